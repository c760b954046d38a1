"""What the policy lets the cloud cost: counted before a request leaves, by several processes together, whatever becomes of them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from misbehaving import FINE, Server, events, half, piece, say
from patience import PATIENCE_SECONDS

from nomoat.catalog import prices
from nomoat.engine.fake import FakeEngine
from nomoat.engine.remote import remote_engine
from nomoat.errors import BadFileError, UsageError
from nomoat.records import Message, Request
from nomoat.responder import Responder
from nomoat.route.budget import (
    Allowance,
    OverBudgetError,
    SpentSoFar,
    default_path,
    rates_of,
    read_spent,
    utc_today,
    why_over_budget,
)
from nomoat.route.policy import Policy

Serving = Callable[..., Server]
HELLO = Request(messages=(Message(role="user", content="hello"),), max_new_tokens=100)
# At the prices below: 5 bytes, 16 for the message, 32 for the template, 100 new tokens; and what FINE counts, 5 in and 2 out.
MOST_USD, REAL_USD = (53 * 10 + 100 * 100) / 1e6, (5 * 10 + 2 * 100) / 1e6
PRICE = '[[price]]\napi = "{}"\ninput = 10\noutput = 100\nas_of = "2026-11"\nsource = "test"\n'


def priced(ref: str) -> str:
    """The reference, which has a price of the user's now."""
    prices.own_path().parent.mkdir(parents=True, exist_ok=True)
    prices.own_path().write_text(PRICE.format(ref))
    return ref


@pytest.fixture
def allowed(serving: Serving) -> Iterator[Callable[..., Allowance]]:
    """Makes what a policy allows; `acts` is what the server of its cloud model does."""
    made: list[tuple[Responder, Allowance]] = []

    def make(*acts: Callable[..., None], today: date = date(2026, 11, 29), **policy: float) -> Allowance:
        ref = priced(f"{serving(*acts or (FINE,)).url}#m")
        cloud = Responder(ref, remote_engine(ref))
        found = Policy(cloud=ref, **policy)  # type: ignore[arg-type]
        rates = rates_of(found, is_local=True)
        assert rates is not None
        made.append((cloud, Allowance(found, rates, cloud, today=lambda: today)))
        return made[-1][1]

    yield make
    for cloud, allowance in made:
        cloud.close()
        allowance.close()


def ask(allowance: Allowance, request: Request = HELLO) -> str:
    with allowance.paying(request) as cloud:
        return "".join(chunk.text for chunk in cloud.stream(request))


def spent_on(year: int, month: int, day: int) -> tuple[float, float]:
    """USD of that day, and of its month."""
    found = read_spent(today=lambda: date(year, month, day))
    return pytest.approx(found.today_usd), pytest.approx(found.month_usd)  # type: ignore[return-value]


def test_answer_costs_what_its_server_counted_and_no_longer_the_most_it_could(allowed: Callable[..., Allowance]) -> None:
    allowance = allowed(max_usd_per_day=1.0)
    with allowance.paying(HELLO) as cloud:
        assert spent_on(2026, 11, 29) == (MOST_USD, MOST_USD)
        list(cloud.stream(HELLO))
    assert spent_on(2026, 11, 29) == (REAL_USD, REAL_USD)
    assert allowance.spent_usd == pytest.approx(REAL_USD)


def test_what_could_cost_more_than_is_left_does_not_leave_and_the_reason_has_the_numbers(allowed: Callable[..., Allowance]) -> None:
    """Room for the most of one, and for the real cost of three before it."""
    allowance = allowed(max_usd_per_day=MOST_USD + 2.5 * REAL_USD)
    for _ in range(3):
        assert ask(allowance) == "hello 안녕"
    with pytest.raises(OverBudgetError) as raised:
        ask(allowance)
    assert str(raised.value) == "of $0.0112 a day, $0.00075 is spent, and this could cost up to $0.0105"
    assert allowance.why_over_budget(MOST_USD) == str(raised.value)
    assert allowance.why_over_budget(MOST_USD - REAL_USD) == ""
    assert allowance.spent_usd == pytest.approx(3 * REAL_USD)


def test_exactly_what_is_left_may_be_spent(allowed: Callable[..., Allowance]) -> None:
    """Sums of these numbers in binary fractions are a little above or below; those in the file are whole."""
    allowance = allowed(max_usd_per_day=MOST_USD + 7 * REAL_USD)
    for _ in range(8):
        ask(allowance)
    with pytest.raises(OverBudgetError):
        ask(allowance)


def test_day_and_month_are_bounds_of_their_own(allowed: Callable[..., Allowance]) -> None:
    bounds = {"max_usd_per_day": MOST_USD, "max_usd_per_month": MOST_USD + 1.5 * REAL_USD}
    for day in (28, 29):
        ask(allowed(today=date(2026, 11, day), **bounds))
    with pytest.raises(OverBudgetError, match=r"^of \$0.0105 a day, \$0.00025 is spent"):
        ask(allowed(today=date(2026, 11, 29), **bounds))
    with pytest.raises(OverBudgetError, match=r"^of \$0.0109 a month, \$0.0005 is spent"):
        ask(allowed(today=date(2026, 11, 30), **bounds))
    ask(allowed(today=date(2026, 12, 1), **bounds))
    assert spent_on(2026, 12, 1) == (REAL_USD, REAL_USD)
    assert spent_on(2026, 11, 30) == (0, 2 * REAL_USD)


def test_answer_counts_on_the_day_it_was_asked_though_it_ends_on_the_next(
    allowed: Callable[..., Allowance], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowance = allowed(today=date(2026, 11, 30), max_usd_per_day=1.0)
    with allowance.paying(HELLO) as cloud:
        list(cloud.stream(HELLO))
        monkeypatch.setattr(allowance, "_today", lambda: date(2026, 12, 1))
    assert (spent_on(2026, 11, 30)[0], spent_on(2026, 12, 1)) == (REAL_USD, (0, 0))


@pytest.mark.parametrize(
    ("act", "cost_usd"),
    [
        (say(400, {"error": {"message": "no"}}), 0),
        (say(400, {"error": {"message": "no", "code": "content_filter"}}), 0),
        (half, MOST_USD),
        (events(piece("hi", "stop")), MOST_USD),
    ],
    ids=["refused", "filtered", "broken off", "not counted"],
)
def test_what_a_server_did_not_count_costs_nothing_if_it_refused_and_the_most_if_it_worked(
    allowed: Callable[..., Allowance], act: Callable[..., None], cost_usd: float
) -> None:
    allowance = allowed(act, max_usd_per_day=1.0)
    try:
        ask(allowance)
    except Exception as error:  # noqa: BLE001  whatever it is called, it is paid for
        assert type(error).__name__ == "RemoteError"
    assert spent_on(2026, 11, 29)[0] == cost_usd


def test_stream_that_is_left_costs_the_most_it_could(allowed: Callable[..., Allowance]) -> None:
    allowance = allowed(max_usd_per_day=1.0)
    with allowance.paying(HELLO) as cloud:
        chunks = cloud.stream(HELLO)
        assert next(chunks).text == "hel"
        chunks.close()  # type: ignore[attr-defined]
    assert spent_on(2026, 11, 29)[0] == MOST_USD


def test_request_that_is_never_asked_costs_nothing(allowed: Callable[..., Allowance]) -> None:
    with allowed(max_usd_per_day=1.0).paying(HELLO):
        pass
    assert spent_on(2026, 11, 29)[0] == 0


def test_an_answer_is_given_though_its_cost_cannot_be_written_down(
    allowed: Callable[..., Allowance], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills after the most it could cost was set aside: that stays, as if the process had been killed."""
    allowance = allowed(max_usd_per_day=1.0)

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with allowance.paying(HELLO) as cloud:
        monkeypatch.setattr("nomoat.route.budget._add", full)
        assert "".join(chunk.text for chunk in cloud.stream(HELLO)) == "hello 안녕"
    assert spent_on(2026, 11, 29)[0] == MOST_USD
    assert allowance.spent_usd == pytest.approx(REAL_USD)
    assert [record.getMessage() for record in caplog.records] == [
        "what an answer cost, $0.00025, cannot be written down: the most it could, $0.0105, stays spent on 2026-11-29: "
        f"no space left on the disk of `{default_path().parent}`"
    ]


def test_without_a_longest_answer_the_policys_is_asked_for_and_set_aside(allowed: Callable[..., Allowance], serving: Serving) -> None:
    endless = replace(HELLO, max_new_tokens=None)
    allowance = allowed(max_usd_per_day=1.0, max_answer_tokens=100)
    with allowance.paying(endless) as cloud:
        assert spent_on(2026, 11, 29) == (MOST_USD, MOST_USD)
        list(cloud.stream(endless))
    assert spent_on(2026, 11, 29) == (REAL_USD, REAL_USD)
    with pytest.raises(OverBudgetError, match=r"this could cost up to \$0.0105$"):
        ask(allowed(max_usd_per_day=MOST_USD, max_answer_tokens=100), endless)


def test_a_long_prompt_without_a_longest_answer_counts_with_the_models_context() -> None:
    rates = rates_of(Policy(cloud="openai:gpt-4o-mini-2024-07-18", max_usd_per_day=1.0), is_local=False)
    assert rates is not None
    endless = replace(HELLO, max_new_tokens=None)
    assert rates.most_usd(endless) == pytest.approx((53 * 0.15 + 4096 * 0.6) / 1e6)
    long = replace(endless, messages=(Message(role="user", content="a" * 124_000),))
    assert rates.most_usd(long) == pytest.approx((124_048 * 0.15 + 128_000 * 0.6) / 1e6)


# ---------------------------------------------------------------- several processes, and what becomes of them
# Pays for answers that nobody writes: making a client of a server takes a second.
SPENDER = """
import sys
from datetime import date
from nomoat.engine.remote import RemoteEngine
from nomoat.records import Request
from nomoat.responder import Responder
from nomoat.route.budget import Allowance, OverBudgetError, rates_of
from nomoat.route.policy import Policy
policy = Policy(cloud="openai:gpt-4o-mini", max_usd_per_day=float(sys.argv[1]))
cloud = Responder(policy.cloud, RemoteEngine.__new__(RemoteEngine))
allowance = Allowance(policy, rates_of(policy, is_local=False), cloud, today=lambda: date(2026, 11, 29))
asked, num = Request(prompt="hello", max_new_tokens=1000), 0
try:
    while num < 1000:
        with allowance.paying(asked) as responder, responder.engine.meter.call(asked):
            num += 1
            if sys.argv[2] == "hold":
                print("held", flush=True)
                sys.stdin.read()
except OverBudgetError:
    pass
print(num)
"""
HELD_USD = (53 * 0.15 + 1000 * 0.6) / 1e6


def spender(most_usd: float, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SPENDER, str(most_usd), how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_at_the_same_time_keep_to_it_together() -> None:
    """Each goes on until it is refused; every answer costs the most it can, so that the sum is known."""
    spenders = [spender(50.5 * HELD_USD, "ask") for _ in range(2)]
    assert sum(int(one.communicate(timeout=PATIENCE_SECONDS)[0]) for one in spenders) == 50
    assert spent_on(2026, 11, 29)[0] == 50 * HELD_USD


def test_what_one_process_holds_another_cannot_spend_and_a_killed_one_leaves_it_spent() -> None:
    with spender(1.5 * HELD_USD, "hold") as held:
        assert held.stdout is not None and held.stdout.readline() == "held\n"
        assert spender(1.5 * HELD_USD, "ask").communicate(timeout=PATIENCE_SECONDS)[0] == "0\n"
        held.kill()
    assert spender(1.5 * HELD_USD, "ask").communicate(timeout=PATIENCE_SECONDS)[0] == "0\n"
    assert spent_on(2026, 11, 29) == (HELD_USD, HELD_USD)


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "removed"])
@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be moved there")
def test_all_go_on_with_a_new_file_where_theirs_was_moved_or_removed(
    allowed: Callable[..., Allowance], caplog: pytest.LogCaptureFixture, moved: bool
) -> None:
    """A process that comes then finds nothing spent, and one that goes on counts with it: also what a request under way did cost."""
    allowance = allowed(max_usd_per_day=1.0)
    for _ in range(5):  # so that there is something in the files beside it, which outlast it
        ask(allowance)
    with allowance.paying(HELLO) as cloud:
        if moved:
            default_path().rename(default_path().with_name("old.sqlite"))
        else:
            default_path().unlink()
        assert spender(HELD_USD, "ask").communicate(timeout=PATIENCE_SECONDS)[0] == "1\n"
        list(cloud.stream(HELLO))
    assert spent_on(2026, 11, 29)[0] == HELD_USD + REAL_USD
    ask(allowance)
    assert spent_on(2026, 11, 29)[0] == HELD_USD + 2 * REAL_USD
    assert [record.getMessage() for record in caplog.records] == [
        f"`{default_path()}` was moved, replaced or removed: what stands in the one there is now counts"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be moved there")
def test_what_was_spent_counts_where_a_copy_is_in_its_place(allowed: Callable[..., Allowance]) -> None:
    """With the most that a request under way could cost: it was set aside in the copy, and is like what was spent there."""
    allowance = allowed(max_usd_per_day=1.0)
    ask(allowance)
    with allowance.paying(HELLO) as cloud:
        copy = default_path().with_name("copy.sqlite")
        with closing(sqlite3.connect(default_path())) as now, closing(sqlite3.connect(copy)) as then:
            now.backup(then)
        copy.replace(default_path())
        list(cloud.stream(HELLO))
    assert spent_on(2026, 11, 29)[0] == MOST_USD + 2 * REAL_USD


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be moved there")
def test_an_answer_is_there_though_what_it_cost_can_be_written_nowhere(
    allowed: Callable[..., Allowance], caplog: pytest.LogCaptureFixture
) -> None:
    allowance = allowed(max_usd_per_day=1.0)
    runs = default_path().parent
    with allowance.paying(HELLO) as cloud:
        runs.rename(runs.with_name("old"))
        runs.write_text("no folder")
        assert "".join(chunk.text for chunk in cloud.stream(HELLO)) == "hello 안녕"
    (record,) = caplog.records
    assert record.getMessage().startswith("what an answer cost, $0.00025, cannot be written down")


# ---------------------------------------------------------------- prices, and the file
@pytest.mark.parametrize(
    ("policy", "is_local"),
    [
        (Policy(max_usd_per_day=1.0), False),
        (Policy(cloud="openai:gpt-99"), False),
        (Policy(cloud="http://127.0.0.1:9/v1#m", max_usd_per_day=1.0), True),
    ],
    ids=["no cloud", "no budget", "a server on this machine takes nothing"],
)
def test_nothing_is_counted_where_nothing_is_paid_or_bounded(policy: Policy, is_local: bool) -> None:
    assert rates_of(policy, is_local=is_local) is None


def test_budget_without_a_price_is_refused_and_says_how_to_give_one() -> None:
    with pytest.raises(UsageError) as raised:
        rates_of(Policy(cloud="openai:gpt-99", max_usd_per_month=9.0, path=Path("policy.toml")), is_local=False)
    assert (
        raised.value.message == "the price of `openai:gpt-99` is not known, and the budget in `policy.toml` cannot be kept without it"
    )
    assert raised.value.hint == (
        f"write it into `{prices.own_path()}`, in USD per million tokens:\n"
        f'[[price]]\napi = "openai:gpt-99"\ninput = …\noutput = …\nas_of = "{utc_today():%Y-%m}"\nsource = "…"'
    )


def test_model_whose_calls_cannot_be_counted_is_refused() -> None:
    policy = Policy(cloud="openai:gpt-4o-mini", max_usd_per_day=1.0)
    rates = rates_of(policy, is_local=False)
    assert rates is not None
    with pytest.raises(UsageError, match=r"(?m)^what `x` takes cannot be counted, and the policy's budget cannot be kept without it$"):
        Allowance(policy, rates, Responder("x", FakeEngine()))


def test_looking_makes_no_file() -> None:
    assert read_spent(today=lambda: date(2026, 11, 29)) == SpentSoFar(today_usd=0.0, month_usd=0.0)
    assert not default_path().exists()


def test_damaged_file_is_named() -> None:
    default_path().parent.mkdir(parents=True)
    default_path().write_bytes(b"no database" * 100)
    with pytest.raises(BadFileError) as raised:
        read_spent()
    assert raised.value.message == f"`{default_path()}` is damaged: file is not a database"
    assert raised.value.hint == "move it out of the way; what was spent until now no longer counts then"


def test_reason_reads_as_a_person_would_say_it() -> None:
    spent = SpentSoFar(today_usd=1.97, month_usd=1.97)
    policy = Policy(max_usd_per_day=2.0, max_usd_per_month=20.0)
    assert why_over_budget(policy, spent, 0.05) == "of $2.00 a day, $1.97 is spent, and this could cost up to $0.05"
    assert why_over_budget(policy, spent, 0.03) == ""


@pytest.mark.parametrize(
    ("spent_usd", "usd", "told"),
    [
        (1.99974, 0.00027, "of $2.00 a day, $1.99974 is spent, and this could cost up to $0.00027"),
        (1.999938903, 0.00008475, "of $2.00 a day, $1.99994 is spent, and this could cost up to $0.000085"),
    ],
)
def test_reason_has_as_many_digits_as_show_that_it_is_too_much(spent_usd: float, usd: float, told: str) -> None:
    spent = SpentSoFar(today_usd=spent_usd, month_usd=0.0)
    assert why_over_budget(Policy(max_usd_per_day=2.0), spent, usd) == told


def test_a_price_that_changes_while_a_request_is_set_aside_does_not_count_for_it(
    allowed: Callable[..., Allowance], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowance = allowed(max_usd_per_day=1.0)
    dearer = replace(allowance.rates, input_usd_per_million=20.0)

    def today() -> date:
        allowance.follow(Policy(max_usd_per_day=1.0), dearer)
        return date(2026, 11, 29)

    monkeypatch.setattr(allowance, "_today", today)
    assert ask(allowance) != ""
    assert spent_on(2026, 11, 29)[0] == REAL_USD
