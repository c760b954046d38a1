"""How a command ends whose result is not over all questions."""

from __future__ import annotations

import pytest
import typer

from nomoat.cli import judging
from nomoat.errors import BudgetReachedError

BUDGET = BudgetReachedError(max_usd=1234.5, spent_usd=0.0, next_usd=2.0).message
LIMIT = "the limit of 100,000 requests is reached: 2 answers held 20 tasks, and 14 of them were kept"


@pytest.mark.parametrize(
    ("partial", "higher"),
    [
        (BUDGET, " with a higher --max-cost"),
        (LIMIT, " with a higher --max-requests"),
        ("the limit of 1 request is reached: 1 answer held 2 tasks, and 1 of them were kept", " with a higher --max-requests"),
        (f"{LIMIT}; 1 failed: {BUDGET}", " with a higher --max-requests"),
        ("`api.example.com` answered 429: the limit of your plan, of $5 a day, is reached", ""),
        ("`api.example.com` answered 400: the budget of tokens is used up; the rate that is allowed is reached", ""),
        ("1 of 2 texts have no answer", ""),
    ],
)
def test_a_bound_of_ours_that_was_met_is_named_and_no_one_elses(capsys: pytest.CaptureFixture[str], partial: str, higher: str) -> None:
    with pytest.raises(typer.Exit) as caught:
        judging.end(partial)
    assert caught.value.exit_code == judging.PARTIAL_EXIT
    assert " ".join(capsys.readouterr().err.split()) == f"partial: {partial}; the same command{higher} goes on from there"
