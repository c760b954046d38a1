"""What answers cost, and what may be spent on them. A price is the user's, or one of the table with its date; it is never guessed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from nomoat.catalog import prices
from nomoat.engine.budget import Budget, Meter, Rates
from nomoat.engine.remote import RemoteEngine
from nomoat.engine.stored import StoredEngine
from nomoat.errors import UsageError
from nomoat.money import dollars
from nomoat.providers import is_remote
from nomoat.records import Completion, Request
from nomoat.references import STORED, names_weights
from nomoat.responder import Responder
from nomoat.words import counted

ROUNDING_USD = 1e-9
GIVE_PRICE = (
    "give --price-in and --price-out, both in USD per million tokens (in Python: `input_usd_per_million`, `output_usd_per_million`)"
)
NAME_ONE_MODEL = "name one model: one on this machine, or a server"
FREE = Rates(input_usd_per_million=0.0, output_usd_per_million=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """What a model's answers cost. `rates` is None where that is not known; `note` says where the rates are from."""

    rates: Rates | None
    note: str

    def cost_usd(self, completion: Completion) -> float | None:
        """The cost of one answer; None if it is not known. A question that a content filter refused before any work costs nothing."""
        if self.rates is None:
            return None
        usage = completion.usage
        is_refused = completion.finish_reason == "filtered" and not completion.text and not usage.prompt_tokens and usage.is_counted
        return 0.0 if is_refused or self.rates == FREE else self.rates.cost_usd(usage)

    def billed_usd(self, request: Request, completion: Completion) -> float | None:
        """What an answer counts with: its cost, or the most it can have cost where a server did not count; None without a price."""
        cost = self.cost_usd(completion)
        return self.rates.most_usd(request, completion.usage) if cost is None and self.rates is not None else cost

    def lost_note(self, ref: str, lost: Mapping[Request, int], *, is_all: bool = False) -> tuple[str, ...]:
        """How many calls to a model brought no whole answer, each as often as `lost` says, and what they may have cost.

        `is_all`: no other cost is told of.
        """
        num = sum(lost.values())
        if not num or self.rates == FREE:
            return ()
        said = f"{counted(num, 'call')} to `{ref}` brought no whole answer, and may have been billed"
        if self.rates is None:
            return (said,)
        most_usd = sum(times * self.rates.most_usd(request) for request, times in lost.items())
        return (f"{said}: at most {dollars(most_usd)}{'' if is_all else ' more'}",)

    @property
    def likelihoods_usd(self) -> float | None:
        """The cost of an answer that is one of likelihoods, which only models on this machine give; None if it is not known."""
        return 0.0 if self.rates == FREE else None


def list_pricing(ref: str, *, is_local: bool) -> Pricing:
    """What the answers of a reference cost by the user's table of prices, or nomoat's; of one on this machine in neither, nothing.

    Raises DataError if the user's own table cannot be read.
    """
    found = prices.price(ref) if is_remote(ref) else None
    if found is None and is_local:
        return Pricing(rates=FREE, note="runs here: electricity is not counted")
    if found is None or found.unit != "tokens":
        return Pricing(rates=None, note="no price is known")
    rates = Rates(
        input_usd_per_million=found.input_usd_per_million, output_usd_per_million=found.output_usd_per_million,
        long_prompts=found.long_prompts,
    )  # fmt: skip
    said = _per_million(rates)
    own = f"{said}, your price as of {found.as_of} ({found.source})"
    return Pricing(rates=rates, note=own if found.is_own else f"{said}, list price as of {found.as_of}")


@dataclass(slots=True, kw_only=True)
class _Asked:
    """What a run has had of a model that takes money, or may: answers that are kept, and what they cost; and calls that were lost."""

    pricing: Pricing
    num_answers: int = 0
    num_uncounted: int = 0
    usd: float = 0.0
    lost: Counter[Request] = field(default_factory=Counter)

    def notes(self, ref: str) -> Iterator[str]:
        if self.num_answers:
            most = "at most " if self.num_uncounted else ""
            cost = "whose cost is not known" if self.pricing.rates is None else f"which cost {most}{dollars(self.usd)}"
            yield f"{counted(self.num_answers, 'answer')} of `{ref}` came before, {cost}: what came is kept, and is not asked again"
        yield from self.pricing.lost_note(ref, self.lost, is_all=not self.num_answers)


class Spending:
    """The prices and the budget of one run: both sides of a duel, and its judge.

    `input_usd_per_million` and `output_usd_per_million` stand in for the table's price of a server, this machine's included.
    Raises UsageError if only one of them is given.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        input_usd_per_million: float | None = None,
        output_usd_per_million: float | None = None,
    ) -> None:
        if (input_usd_per_million is None) != (output_usd_per_million is None):
            raise UsageError("a price has two parts", hint=GIVE_PRICE)
        self.budget = None if max_cost_usd is None else Budget(max_cost_usd)
        self.paid: set[tuple[str, Request]] = set()  # the answers that the budget knows of, by their model's digest
        self.lost: Counter[tuple[str, Request]] = Counter()  # the lost calls that it knows of
        self.waited_for: set[str] = set()  # the models, by digest, that another run was asking: said once
        self._given: Rates | None = None
        self._given_to: str | None = None
        self._found: dict[str, Pricing] = {}
        self._asked: dict[str, _Asked] = {}  # by the model's reference
        self._told: list[str] = []  # the notes that an error has by now
        self._lock = threading.Lock()
        if input_usd_per_million is not None and output_usd_per_million is not None:
            self._given = Rates(input_usd_per_million=input_usd_per_million, output_usd_per_million=output_usd_per_million)

    def pricing(self, model: Responder) -> Pricing:
        """What this model's answers cost. Raises UsageError if the price given would have to be two models'."""
        if model.ref not in self._found:
            self._found[model.ref] = self._price(model)
        return self._found[model.ref]

    def require_one_server(self, refs: Iterable[str]) -> None:
        """Raise UsageError if one price is given and several models on servers would have it, before any of them is asked."""
        if self._given is None:
            return
        server = self._given_to
        for ref in filter(is_remote, refs):
            if server not in (None, ref):
                each = "".join(prices.lines(one, usd_in="…", usd_out="…") for one in (server, ref))
                raise UsageError(
                    f"one price is given for two models, `{server}` and `{ref}`",
                    hint=f"write a price for each into `{prices.own_path()}` instead, in these lines:{each}",
                )
            server = ref

    def may_cost(self, model: Responder) -> bool:
        """Whether asking this model takes money, or may: where no price is known. Weights on workers take nobody's price."""
        return self.pricing(model).rates != FREE and not _has_answered(model) and not names_weights(model.ref)

    def _price(self, model: Responder) -> Pricing:
        if _has_answered(model):
            return Pricing(rates=None, note="answered before")
        if self._given is not None and is_remote(model.ref):
            self.require_one_server([model.ref])
            self._given_to = model.ref
            return Pricing(rates=self._given, note=f"{_per_million(self._given)}, as given")
        return list_pricing(model.ref, is_local=model.is_local)

    def count_answer(self, model: Responder, request: Request, completion: Completion) -> None:
        """An answer of this run came, and is kept; its meter has counted it."""
        with self._lock:
            self.paid.add((model.digest, request))
            if (asked := self._asked_of(model)) is not None:
                asked.num_answers += 1
                asked.num_uncounted += asked.pricing.cost_usd(completion) is None
                asked.usd += asked.pricing.billed_usd(request, completion) or 0.0

    def count_lost(self, model: Responder, request: Request, *, is_told: bool = False) -> None:
        """A call of this run may be billed, and nothing of it is kept; its meter has counted it. `is_told`: an error says so."""
        with self._lock:
            self.lost[model.digest, request] += 1
            if not is_told and (asked := self._asked_of(model)) is not None:
                asked.lost[request] += 1

    def _asked_of(self, model: Responder) -> _Asked | None:
        return self._asked.setdefault(model.ref, _Asked(pricing=self.pricing(model))) if self.may_cost(model) else None

    @contextmanager
    def told(self) -> Iterator[None]:
        """An error, or Ctrl-C, that ends this block says in notes (PEP 678) what this run has paid, or may have.

        Of blocks within each other the outer one's notes stand in the place of the inner one's: more may have come in between.
        """
        try:
            yield
        except BaseException as error:
            with self._lock:
                earlier = self._told
                self._told = [f"note: {note}" for ref, asked in self._asked.items() for note in asked.notes(ref)]
                others = [note for note in getattr(error, "__notes__", ()) if note not in earlier]
                if self._told:
                    error.__notes__ = [*others, *self._told]
            raise

    def uncounted_note(self, model: Responder, num: int) -> tuple[str, ...]:
        """That a server with a price did not count the tokens of so many answers, and how they count in the budget."""
        if not num or self.pricing(model).rates is None:
            return ()
        answers = counted(num, "answer")
        said = f"{answers} of `{model.ref}` came without a whole count of tokens, or with one that cannot be: the cost is not known"
        return (said if self.budget is None else f"{said}, and the budget counts the most each can have cost",)

    def notes(self) -> tuple[str, ...]:
        """That more is spent than may be, where it is, or may be so: what was lost counts with the most it can have cost."""
        if self.budget is None or self.budget.spent_usd <= self.budget.max_usd + ROUNDING_USD:
            return ()
        return (
            f"more than the budget of {dollars(self.budget.max_usd)} is spent, or may be: a server counted more tokens than it was "
            "allowed, or earlier tries at these questions, lost calls included, had a higher bound or none",
        )

    def begin_stage(self, *refs: str) -> None:
        """Those named spend from now on, one after the other: the first may have its share, and leaves something for the others."""
        if self.budget is not None:
            self.budget.begin_stage(max(1, sum(is_remote(ref) for ref in refs)))

    def watch(self, model: Responder) -> None:
        """Let no call to this model's server exceed the budget.

        Raises UsageError where there is a budget, and no price is known, or whoever is asked cannot be bounded: `auto` is two models.
        """
        if self.budget is None:
            return
        if not isinstance(model.engine, RemoteEngine):
            if not model.is_local and not names_weights(model.ref):  # weights on workers take nobody's price
                raise UsageError(
                    f"what `{model.ref}` sends away cannot be counted, and the budget cannot be kept without it",
                    hint=NAME_ONE_MODEL,
                )
            return
        rates = self.pricing(model).rates
        if rates is None:
            raise UsageError(
                f"the price of `{model.ref}` is not known, and the budget cannot be kept without it",
                hint=GIVE_PRICE,
            )
        if rates != FREE:
            model.engine.meter = Meter(rates=rates, budget=self.budget)


def _has_answered(model: Responder) -> bool:
    """Whether its answers were given before: nobody is asked now, and what they cost then is not known."""
    return model.ref.startswith(STORED) or isinstance(model.engine, StoredEngine)


def _per_million(rates: Rates) -> str:
    said = f"{dollars(rates.input_usd_per_million)} in, {dollars(rates.output_usd_per_million)} out per million tokens"
    if (long := rates.long_prompts) is None:
        return said
    dearer_in, dearer_out = dollars(long.input_usd_per_million), dollars(long.output_usd_per_million)
    return f"{said} ({dearer_in} and {dearer_out} where a prompt has more than {long.above_tokens:,})"
