"""What the policy lets the cloud cost in a day and in a month, and what it has cost: `runs/spent.sqlite`, a row a day.

Days and months are those of UTC. The most a request can cost is counted as spent before it leaves, in one step with the look whether
that fits, so that several processes together keep to the policy; once it has ended, what it did cost stands in that place. Where a
process is killed in between, or its disk is full then, the most its requests could cost stays: it counts as spent, on the day they
were asked, for good.

Where the file is moved, replaced or removed, all go on with the one that is there then, or a new one: what stands in that counts. A
copy counts what was spent until it was made; what was set aside then for requests under way stays spent in it.

What this does not cover: what was spent while the policy had no budget, and what other commands spend (`--max-cost` is theirs).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from nomoat import paths
from nomoat.asking.database import Database
from nomoat.asking.spending import FREE, list_pricing
from nomoat.catalog import cards, prices
from nomoat.engine.budget import Budget, Meter, Rates
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import NomoatError, UsageError
from nomoat.money import as_told, dollars
from nomoat.records import Request
from nomoat.responder import Responder
from nomoat.route.policy import Policy

SCHEMA_VERSION = 1
SCHEMA = "CREATE TABLE IF NOT EXISTS spent (day TEXT PRIMARY KEY, nanodollars INTEGER NOT NULL) WITHOUT ROWID;"
NOT_COUNTED = "what the cloud costs cannot be counted now, so nothing leaves until it can"
NANO_DIGITS = 9
PER_USD = 10**9  # whole numbers: what is added and taken away again leaves nothing over

log = logging.getLogger("nomoat.route")


class OverBudgetError(Exception):
    """A request could cost more than is left, as far as that can be counted. Its words are the reason, with the numbers; it has not
    left."""


def utc_today() -> date:
    """The day whose budget is being spent."""
    return datetime.now(UTC).date()


def default_path() -> Path:
    """Where it is kept what `auto` has spent."""
    return paths.runs() / "spent.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentSoFar:
    """US dollars spent on one UTC day, and in its month. Requests under way count with the most they can cost."""

    today_usd: float
    month_usd: float


def read_spent(*, today: Callable[[], date] = utc_today) -> SpentSoFar:
    """What was spent; makes no file where there is none. Raises BadFileError."""
    if not default_path().exists():
        return SpentSoFar(today_usd=0.0, month_usd=0.0)
    with closing(_opened()) as database, database.turn() as db:
        return _read(db, today())


def rates_of(policy: Policy, *, is_local: bool) -> Rates | None:
    """What the policy's cloud model takes, and how long an answer of it is at most; None where there is no budget, or nothing to pay.

    `is_local`: it is on this machine.

    Raises UsageError if its price is not known, and DataError if the user's own table of prices cannot be read.
    """
    if policy.cloud is None or not policy.has_budget:
        return None
    rates = list_pricing(policy.cloud, is_local=is_local).rates
    if rates is None:
        raise UsageError(
            f"the price of `{policy.cloud}` is not known, and the budget in `{policy.path}` cannot be kept without it",
            hint=f"write it into `{prices.own_path()}`, in USD per million tokens:"
            + prices.lines(policy.cloud, usd_in="…", usd_out="…", as_of=f"{utc_today():%Y-%m}"),
        )
    if rates == FREE:
        return None
    undated = prices.VERSION_DATE.sub("", policy.cloud)
    card = next((card for card in cards.cards() if card.api == undated), None)
    return dataclasses.replace(
        rates, longest_answer_tokens=card.context_tokens if card else None, default_answer_tokens=policy.max_answer_tokens
    )  # fmt: skip


def why_over_budget(policy: Policy, spent: SpentSoFar, usd: float) -> str:
    """Why the policy's budget keeps a request here that can cost so much; empty if it does not."""
    for most, so_far, span in (
        (policy.max_usd_per_day, spent.today_usd, "day"),
        (policy.max_usd_per_month, spent.month_usd, "month"),
    ):
        if most is not None and _nanodollars(so_far) + _nanodollars(usd) > _nanodollars(most):
            return _over_budget(most, so_far, usd, span)
    return ""


def _over_budget(most: float, so_far: float, usd: float, span: str) -> str:
    """With as many digits as show that what is spent and what this could cost are more than the budget."""

    def shows(digits: int) -> bool:
        may, spent, next_one = (_nanodollars(as_told(sum_usd, digits=digits)) for sum_usd in (most, so_far, usd))
        return spent + next_one > may

    digits = next(filter(shows, range(4, NANO_DIGITS)), NANO_DIGITS)
    may, spent, next_one = (dollars(sum_usd, digits=digits) for sum_usd in (most, so_far, usd))
    return f"of {may} a {span}, {spent} is spent, and this could cost up to {next_one}"


class Allowance:
    """What `auto` may still spend on a cloud model. Safe to use from several threads.

    Raises UsageError for a model whose calls cannot be counted, and what opening a `Database` raises.
    """

    def __init__(self, policy: Policy, rates: Rates, cloud: Responder, *, today: Callable[[], date] = utc_today) -> None:
        if not isinstance(cloud.engine, RemoteEngine):
            raise UsageError(
                f"what `{cloud.ref}` takes cannot be counted, and the policy's budget cannot be kept without it",
                hint="name a server as `cloud`, or leave out the budget",
            )
        self.rates = rates
        self.spent_usd = 0.0  # by this process; requests under way are not in it
        self._policy = policy
        self._ref = cloud.ref
        self._engine = cloud.engine
        self._today = today
        self._said = ""  # why it cannot be counted, since when it could
        self._lock = threading.Lock()
        self._database = _opened()

    def follow(self, policy: Policy, rates: Rates) -> None:
        """Keep to another budget for the same model from now on."""
        self._policy, self.rates = policy, rates

    def why_over_budget(self, usd: float) -> str:
        """See the function of that name, now; or that it cannot be counted, as where the disk is full or the file is damaged."""
        try:
            with self._current() as database, database.turn() as db:
                return why_over_budget(self._policy, _read(db, self._today()), usd)
        except NomoatError as error:
            return self._not_counted(error)

    @contextmanager
    def paying(self, request: Request) -> Iterator[Responder]:
        """The cloud model, to be asked this request within the block: the most that can cost is set aside until it ends.

        Raises OverBudgetError where it does not fit, or that cannot be written down.
        """
        rates = self.rates  # one price for what is set aside and what is paid: others may come in between
        most = rates.most_usd(request)
        budget = _SetAside(most, functools.partial(self._settle, *self._set_aside(most), most))
        try:
            yield Responder(self._ref, self._engine.with_meter(Meter(rates=rates, budget=budget)))
        finally:
            budget.end()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _current(self) -> Iterator[Database]:
        """The file that others see, too, for one thread at a time."""
        with self._lock:
            if not self._database.is_in_place():
                moved, self._database = self._database, _opened()
                moved.close()
                log.warning("`%s` was moved, replaced or removed: what stands in the one there is now counts", self._database.path)
            yield self._database

    def _set_aside(self, usd: float) -> tuple[Database, date]:
        """Count `usd` as spent, if it fits. Returns where and on which day it is counted."""
        try:
            with self._current() as database, database.transaction() as db:
                today = self._today()
                if refusal := why_over_budget(self._policy, _read(db, today), usd):
                    raise OverBudgetError(refusal)
                _add(db, today, _nanodollars(usd))
        except NomoatError as error:
            raise OverBudgetError(self._not_counted(error)) from error
        self._said = ""
        return database, today

    def _not_counted(self, error: NomoatError) -> str:
        """Why a request stays here; the log is told what to mend, once."""
        if error.message != self._said:
            hint = f"; {error.hint}" if error.hint else ""
            log.error("%s; nothing is sent to the cloud until what it costs can be counted%s", error.message, hint)
        self._said = error.message
        return NOT_COUNTED

    def _settle(self, counted_in: Database, day: date, set_aside_usd: float, cost_usd: float) -> None:
        with self._lock:
            self.spent_usd += cost_usd
        try:
            with self._current() as database, database.transaction() as db:
                _add(db, day, _nanodollars(cost_usd) - (_nanodollars(set_aside_usd) if database is counted_in else 0))
        except NomoatError as error:  # the answer is there, and paid for
            kept = f"what an answer cost, {dollars(cost_usd)}, cannot be written down: the most it could, {dollars(set_aside_usd)}"
            log.warning("%s, stays spent on %s: %s", kept, day, error.message)


class _SetAside(Budget):
    """What is set aside for the calls of one request. The rest is free as soon as it is known what the one costs that did any work.

    That is before its last word, so that whoever asks one after the other finds what was left over. `settle` is told the cost, once.
    """

    def __init__(self, usd: float, settle: Callable[[float], None]) -> None:
        super().__init__(usd)
        self._settle = settle
        self._has_ended = False

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        super().settle(reserved_usd, cost_usd)
        if cost_usd > 0:  # one that was refused for now is asked again
            self.end()

    def end(self) -> None:
        """Nothing more will be spent."""
        if not self._has_ended:
            self._has_ended = True
            self._settle(self.spent_usd)


def _nanodollars(usd: float) -> int:
    return round(usd * PER_USD)


def _opened() -> Database:
    if_damaged = "move it out of the way; what was spent until now no longer counts then"
    return Database(default_path(), schema=SCHEMA, version=SCHEMA_VERSION, table="spent", if_damaged=if_damaged)


def _read(db: sqlite3.Connection, today: date) -> SpentSoFar:
    todays, months = db.execute(
        "SELECT total(nanodollars) FILTER (WHERE day = ?1), total(nanodollars) FROM spent WHERE substr(day, 1, 7) = substr(?1, 1, 7)",
        (today.isoformat(),),
    ).fetchone()
    return SpentSoFar(today_usd=todays / PER_USD, month_usd=months / PER_USD)


def _add(db: sqlite3.Connection, day: date, nanodollars: int) -> None:
    db.execute(
        "INSERT INTO spent VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET nanodollars = nanodollars + excluded.nanodollars",
        (day.isoformat(), nanodollars),
    )
