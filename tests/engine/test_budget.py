"""A bound on what is spent that holds before each call."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import pytest
from patience import PATIENCE_SECONDS, wait_until

from nomoat.engine.budget import Budget, Meter, Rates
from nomoat.errors import BudgetReachedError, UsageError
from nomoat.records import LongPrompts, Message, Request, Usage

RATES = Rates(input_usd_per_million=10.0, output_usd_per_million=100.0)
ASKED = Request(messages=(Message(role="user", content="안녕"),), max_new_tokens=50)


def refused(budget: Budget, usd: float) -> None:
    with pytest.raises(BudgetReachedError):
        budget.reserve(usd)


def usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, prefill_seconds=0.0, decode_seconds=0.0)


def test_most_a_request_can_cost_counts_a_token_a_byte_and_the_longest_answer() -> None:
    """6 bytes, 16 for the message, 32 for the template; 50 tokens out."""
    assert RATES.most_usd(ASKED) == pytest.approx((54 * 10 + 50 * 100) / 1e6)
    assert RATES.cost_usd(usage(9, 2)) == pytest.approx((9 * 10 + 2 * 100) / 1e6)


def test_both_sides_of_a_gap_count() -> None:
    gap = Request(prompt="안녕", suffix="네", max_new_tokens=50)
    assert RATES.most_usd(gap) == pytest.approx((54 * 10 + (3 + 16) * 10 + 50 * 100) / 1e6)


def test_schema_counts_as_text_and_a_models_own_limit_bounds_the_answer() -> None:
    schema = '{"type": "object"}'
    assert RATES.most_usd(replace(ASKED, json_schema=schema)) == pytest.approx((54 * 10 + (18 + 16) * 10 + 50 * 100) / 1e6)
    short = replace(RATES, longest_answer_tokens=40)
    assert [short.most_usd(replace(ASKED, max_new_tokens=limit)) for limit in (None, 50, 30)] == [
        pytest.approx((54 * 10 + tokens * 100) / 1e6) for tokens in (40, 40, 30)
    ]


def test_request_without_a_longest_answer_is_sent_with_the_default_where_that_fits_the_context() -> None:
    """54 tokens at most are read: with 10 to write they fit into a context of 64."""
    endless = replace(ASKED, max_new_tokens=None)
    for context, limit, most_tokens in ((None, 10, 10), (64, 10, 10), (63, None, 63)):
        rates = replace(RATES, longest_answer_tokens=context, default_answer_tokens=10)
        assert rates.limited(endless).max_new_tokens == limit
        assert rates.most_usd(endless) == pytest.approx((54 * 10 + most_tokens * 100) / 1e6)
        assert rates.limited(ASKED) == ASKED
    assert RATES.limited(endless) == endless


def test_a_long_prompt_makes_the_whole_request_dearer() -> None:
    """54 tokens at most are read: they may be more than 53, and are not more than 54."""
    rates = replace(RATES, long_prompts=LongPrompts(above_tokens=53, input_usd_per_million=20.0, output_usd_per_million=150.0))
    assert rates.most_usd(ASKED) == pytest.approx((54 * 20 + 50 * 150) / 1e6)
    assert [rates.cost_usd(usage(prompt, 2)) for prompt in (53, 54)] == [
        pytest.approx((53 * 10 + 2 * 100) / 1e6), pytest.approx((54 * 20 + 2 * 150) / 1e6),
    ]  # fmt: skip
    up_to = replace(RATES, long_prompts=LongPrompts(above_tokens=54, input_usd_per_million=20.0, output_usd_per_million=150.0))
    assert up_to.most_usd(ASKED) == RATES.most_usd(ASKED)
    cheaper = replace(RATES, long_prompts=LongPrompts(above_tokens=53, input_usd_per_million=1.0, output_usd_per_million=1.0))
    assert cheaper.most_usd(ASKED) == RATES.most_usd(ASKED), "it may be one token less"
    with pytest.raises(UsageError, match="a price is -1"):
        replace(RATES, long_prompts=LongPrompts(above_tokens=1, input_usd_per_million=-1.0, output_usd_per_million=1.0))


def test_what_was_set_aside_for_a_long_prompt_is_settled_at_what_it_was() -> None:
    rates = replace(RATES, long_prompts=LongPrompts(above_tokens=53, input_usd_per_million=20.0, output_usd_per_million=150.0))
    budget = Budget(1.0)
    with Meter(rates=rates, budget=budget).call(ASKED) as bill:
        assert bill.usd == rates.most_usd(ASKED)
        bill.usd = rates.cost_usd(usage(20, 2)) or bill.usd
    assert budget.spent_usd == pytest.approx((20 * 10 + 2 * 100) / 1e6)


def test_answer_without_counts_has_no_known_cost() -> None:
    for counted in (usage(0, 0), usage(0, 2), usage(-9, 20), usage(9, -2), replace(usage(9, 0), is_counted=False)):
        assert RATES.cost_usd(counted) is None
        assert RATES.billed_usd(ASKED, counted) == RATES.most_usd(ASKED)
    assert RATES.cost_usd(usage(9, 0)) == RATES.billed_usd(ASKED, usage(9, 0)) == pytest.approx(9 * 10 / 1e6)
    assert RATES.billed_usd(ASKED, usage(0, 1000)) == pytest.approx((54 * 10 + 1000 * 100) / 1e6)
    assert RATES.billed_usd(ASKED, replace(usage(1000, 0), is_counted=False)) == pytest.approx((1000 * 10 + 50 * 100) / 1e6)


def test_call_that_could_exceed_the_budget_is_not_made() -> None:
    most = RATES.most_usd(ASKED)
    budget = Budget(1.5 * most)
    meter = Meter(rates=RATES, budget=budget)
    with meter.call(ASKED) as bill:
        bill.usd = most / 2
    with meter.call(ASKED):  # whose end nobody knows: it counts in full
        pass
    assert budget.spent_usd == pytest.approx(1.5 * most)
    with pytest.raises(BudgetReachedError) as caught, meter.call(ASKED):
        raise AssertionError("never called")
    assert caught.value.message == "the budget of $0.0083 is reached: $0.0083 is spent, and the next call may cost $0.0055"


def test_call_without_a_longest_answer_is_not_made_where_there_is_a_budget() -> None:
    budget = Budget(1.0)
    endless = Request(prompt="x", max_new_tokens=None)
    with pytest.raises(UsageError) as caught, Meter(rates=RATES, budget=budget).call(endless):
        raise AssertionError("never called")
    assert (caught.value.message, caught.value.hint) == (
        "what an answer without a limit costs cannot be bounded", "give max_new_tokens, or no --max-cost (in Python: `max_cost_usd`)",
    )  # fmt: skip
    assert budget.spent_usd == 0


@pytest.mark.parametrize("usd", [math.nan, math.inf, -1.0])
def test_what_is_no_sum_of_money_is_refused(usd: float) -> None:
    """No sum exceeds one that is no number: everything would have been let through."""
    with pytest.raises(UsageError, match="the budget is "):
        Budget(usd)
    with pytest.raises(UsageError, match="a price is "):
        Rates(input_usd_per_million=1.0, output_usd_per_million=usd)


@pytest.mark.parametrize("given", ["2", True])
def test_what_is_no_number_is_no_sum_of_money_either(given: Any) -> None:
    with pytest.raises(UsageError, match="`max_cost_usd` is "):
        Budget(given)
    with pytest.raises(UsageError, match="`input_usd_per_million` is "):
        Rates(input_usd_per_million=given, output_usd_per_million=1.0)


def reserving(budget: Budget, usd: float) -> tuple[threading.Thread, list[BudgetReachedError]]:
    """A thread that waits to reserve so much, and what that raised."""
    errors: list[BudgetReachedError] = []

    def reserve() -> None:
        try:
            budget.reserve(usd)
        except BudgetReachedError as error:
            errors.append(error)

    thread = threading.Thread(target=reserve)
    thread.start()
    wait_until(lambda: bool(budget._queue))
    assert thread.is_alive()
    return thread, errors


def test_call_waits_for_what_calls_under_way_leave_over() -> None:
    budget = Budget(1.0)
    budget.reserve(0.6)
    thread, errors = reserving(budget, 0.6)
    budget.settle(0.6, 0.1)
    thread.join(PATIENCE_SECONDS)
    assert (thread.is_alive(), errors) == (False, [])
    budget.settle(0.6, 0.1)
    refused(budget, 0.95)


def told_of_the_end(thread: threading.Thread, errors: list[BudgetReachedError], *, spent: str, next_one: str) -> None:
    """Whoever waited is refused now, with these sums."""
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert [error.message for error in errors] == [
        f"the budget of $1.00 is reached: ${spent} is spent, and the next call may cost ${next_one}"
    ]


def test_end_of_a_budget_is_told_with_what_the_calls_under_way_cost() -> None:
    """Though the next would not have fitted whatever these cost."""
    budget = Budget(1.0)
    budget.reserve(0.1)
    thread, errors = reserving(budget, 1.2)
    budget.settle(0.1, 0.0195)
    told_of_the_end(thread, errors, spent="0.0195", next_one="1.20")


def test_end_of_a_budget_is_told_when_the_last_call_under_way_has_ended() -> None:
    budget = Budget(1.0)
    budget.reserve(0.4)
    budget.reserve(0.4)
    thread, errors = reserving(budget, 0.7)
    budget.settle(0.4, 0.4)
    assert not budget._is_decided(0.7)
    budget.settle(0.4, 0.05)
    told_of_the_end(thread, errors, spent="0.45", next_one="0.70")


def test_short_request_does_not_overtake_a_long_one() -> None:
    budget = Budget(1.0)
    budget.reserve(0.9)
    waiting = threading.Thread(target=refused, args=(budget, 0.5))
    waiting.start()
    budget.settle(0.9, 0.9)
    waiting.join()
    with pytest.raises(BudgetReachedError):
        budget.reserve(0.05)
    budget.begin_stage(1)
    budget.reserve(0.05)


def test_all_who_come_after_are_told_of_the_call_that_did_not_fit() -> None:
    """A call of their own price would have fitted: $0 spent and $0.05 would be no reason."""
    budget = Budget(1.0)
    for usd in (1.2, 0.05):
        with pytest.raises(BudgetReachedError) as caught:
            budget.reserve(usd)
        assert caught.value.message == "the budget of $1.00 is reached: $0.00 is spent, and the next call may cost $1.20"


def test_each_who_spends_after_the_other_has_a_share_and_the_last_one_all() -> None:
    budget = Budget(1.0)
    budget.begin_stage(2)
    budget.reserve(0.4)
    budget.settle(0.4, 0.1)
    with pytest.raises(BudgetReachedError, match=r"\$0.50 is kept for who is asked next"):
        budget.reserve(0.45)
    budget.begin_stage(1)
    budget.reserve(0.9)
