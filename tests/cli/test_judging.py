"""How results are printed, and how a command ends whose result is not over all questions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import typer

from nomoat.cli import console, judging
from nomoat.errors import BudgetReachedError
from nomoat.records import Side

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
        (
            "3 of 4 kept answers of `hf:a/b` were cut off within the limit of 32 new tokens with nothing in them",
            ", naming `hf:a/b` itself, with a higher --max-tokens",
        ),
        (
            "9 of 9 answers of `m` are read as none of the choices: most of them were cut off within the limit of 32 new tokens",
            " with a higher --max-tokens",
        ),
        ("3 of 4 kept answers of `a` are left out: within less room than 64 new tokens they were cut off", ", naming `a` itself,"),
    ],
)
def test_a_bound_of_ours_that_was_met_is_named_and_no_one_elses(capsys: pytest.CaptureFixture[str], partial: str, higher: str) -> None:
    with pytest.raises(typer.Exit) as caught:
        judging.end(partial)
    assert caught.value.exit_code == judging.PARTIAL_EXIT
    assert " ".join(capsys.readouterr().err.split()) == f"partial: {partial}; the same command{higher} goes on from there"


def test_what_to_do_first_is_said_where_no_bound_of_ours_was_met(capsys: pytest.CaptureFixture[str]) -> None:
    for partial, said in (
        ("`h` answered 401: bad key", "check the key in OPENAI_API_KEY; then the same command goes on from there"),
        (BUDGET, "the same command with a higher --max-cost goes on from there"),
    ):
        with pytest.raises(typer.Exit):
            judging.end(partial, "check the key in OPENAI_API_KEY")
        assert " ".join(capsys.readouterr().err.split()) == f"partial: {partial}; {said}"


def test_answers_that_are_no_choice_are_helped_by_other_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught:
        judging.end("9 of 9 answers of `m` are read as none of the choices")
    assert caught.value.exit_code == judging.PARTIAL_EXIT
    assert " ".join(capsys.readouterr().err.split()) == (
        "partial: 9 of 9 answers of `m` are read as none of the choices; look at the answers (--report), and ask in words that they "
        "keep to (of a table: --instruction)"
    )


def test_answers_that_may_be_to_other_questions_are_helped_by_ids_and_not_by_the_same_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    partial = "9 of 9 answers are paired by an id whose question had other right answers in `s`: it may be another question"
    with pytest.raises(typer.Exit):
        judging.end(partial)
    said = "give the same questions the same ids in both suites, or ask the model itself"
    assert " ".join(capsys.readouterr().err.split()) == f"partial: {partial}; {said}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What bars and logs take for the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_has_a_line_at_each_new_tenth_of_what_takes_long(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """A job that hangs, and one that is nearly done, are not the same in it."""
    with judging.counting_bars("answers") as show:
        for done in range(0, 1001, 5):
            show("m", done, 2000)
            clock[0] += 2.0
    assert capsys.readouterr().err.splitlines() == [
        "m: 4%, 75 of 2,000 answers",
        *[f"m: {tenth}0%, {200 * tenth:,} of 2,000 answers" for tenth in range(1, 6)],
    ]


def test_what_is_soon_done_leaves_nothing_in_a_log(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with judging.counting_bars("answers") as show:
        for done in range(101):
            show("m", done, 100)
            clock[0] += 0.29
    assert capsys.readouterr().err == ""


def test_a_duel_of_many_looks_has_few_lines_of_each_side_in_a_log(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Also of one against itself, where both have one name."""
    with judging.counting_bars("answers") as show:
        for done in range(101):
            for side in ("a", "b"):
                show(side, done, 100)
                show(side, done, 100)
                clock[0] += 1.0
        clock[0] += 60.0
        show("a", 10, 100)
        clock[0] += 31.0
        show("a", 11, 100)
    said = capsys.readouterr().err.splitlines()
    assert said[:4] == [f"{side}: {done}%, {done} of 100 answers" for done in (15, 30) for side in "ab"]
    assert len(said) == 13 and said[-1] == "a: 11%, 11 of 100 answers"


def test_a_terminal_has_the_bar_and_no_such_lines(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "shows_bars", lambda: True)
    with judging.counting_bars("answers") as show:
        show("m", 0, 2)
        clock[0] += 60.0
        show("m", 1, 2)
    assert "1 of 2" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (100, ["stored:reviews/smollm2-135m+reviews  http://127.0.0.1:8431/v1#smollm2"]),
        (80, ["stored:reviews/      http://127.0.0.1:8431/", "smollm2-135m+        v1#", "reviews              smollm2"]),
    ],
)
def test_a_side_whose_name_is_too_long_for_its_column_is_broken_at_a_sign(
    capsys: pytest.CaptureFixture[str], width: int, heads: list[str]
) -> None:
    names = ("stored:reviews/smollm2-135m+reviews", "http://127.0.0.1:8431/v1#smollm2")
    unknown = {"licence": "", "seconds_p50": None, "seconds_p95": None, "bytes_out": 0, "cost_usd_per_1000": None}
    sides = [Side(model=name, score=0.5, score_low=0.25, score_high=0.75, **unknown) for name in names]  # type: ignore[arg-type]
    out = console.stdout_console()
    out.width = width
    judging.print_sides(out, "exact", sides)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[: len(heads)] == heads and shown[len(heads)].startswith("score ")
