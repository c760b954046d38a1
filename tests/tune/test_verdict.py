"""What is written and said at the end of a training, from right answers and losses on the lessons held out."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.tune.samples import Sample
from nomoat.tune.verdict import ABOUT_RIGHT, compare_right, result_lines, verdict_of

UNDECIDED = "chance alone may change the loss so (the change is -0.500 to +0.100, 95 %)"
HIGHER = "the loss is clearly higher (the change is +0.100 to +0.500, 95 %)"
ADVICE = "try a lower --learning-rate (in Python: `learning_rate`), or more data"
UNCLEAR = "right answers are not clearly more than before"
COMMONEST = "right answers are not clearly more than the commonest answer alone has"
MORE_RIGHT = "yet clearly more answers are right: a `nomoat duel` on a test tells how good the tuned model is"
UNPROVEN, WORSE = (f"the tuned model is {verdict}" for verdict in ("not shown to be better", "worse"))


def rows(answers: str, texts: str = "") -> list[Sample]:
    """A row a letter, its answer; `texts`: which text each row is of, another one each if not given."""
    names = texts or [str(at) for at in range(len(answers))]
    return [
        Sample(tokens=[0, 1, ord(answer), 2], answers=((2, 4),), digest=name.encode(), lesson=str(at))
        for at, (answer, name) in enumerate(zip(answers, names, strict=True))
    ]


def measured(
    change: tuple[float, float] | None, right: tuple[int, int], *, of: int = 200, commonest: int | None = 6, kept: int = 0
) -> dict[str, Any]:
    """Metrics of so many rows held out: the first ones are right, but for those that only the base had right (all but `kept`).

    `commonest`: None where the answers are no labels.
    """
    before, after = right
    held_out = rows("a" * (commonest or 1) + "".join(chr(1000 + at) for at in range(of - (commonest or 1))))
    learned = held_out if commonest is not None else []
    had = [at < kept or of - (before - kept) <= at for at in range(of)]
    return judged(change, held_out, had, [at < after for at in range(of)], learned)


def judged(
    change: tuple[float, float] | None, held_out: list[Sample], before: list[bool], after: list[bool], learned: list[Sample]
) -> dict[str, Any]:
    """Metrics of these rows, with the verdict."""
    metrics = {
        "validation_lessons": len(held_out), "validation_lessons_left_out": 0, "validation_answers": len(held_out),
        "validation_loss_before": 1.0, "validation_loss_after": 1.5, "validation_loss_change_95": change,
        "epochs_done": 4.0,
    } | compare_right(held_out, before, after, learned)  # fmt: skip
    return metrics | {"validation_verdict": verdict_of(metrics)}


LOWER, SAME, MORE = (-0.5, -0.1), (-0.5, 0.1), (0.1, 0.5)


@pytest.mark.parametrize(
    ("metrics", "verdict", "said"),
    [
        (measured(LOWER, (31, 177), kept=31), "better", []),
        (measured(LOWER, (150, 120), kept=120), "worse",
         [f"clearly fewer answers are right than before (p = 1.9e-09): {WORSE}; {ADVICE}"]),
        (measured(LOWER, (150, 154), kept=150), "not shown to be better",
         [f"{UNCLEAR} (more in 4 texts, fewer in 0, p = 0.12): {UNPROVEN}; {ADVICE}"]),
        (measured(LOWER, (0, 0)), "not shown to be better",
         [f"{UNCLEAR} (more in 0 texts, fewer in 0, p = 1), and {COMMONEST}: {UNPROVEN}; {ADVICE}"]),
        (measured(LOWER, (20, 174), kept=20, commonest=172), "not shown to be better", [f"{COMMONEST}: {UNPROVEN}; {ADVICE}"]),
        (measured(MORE, (31, 177), kept=31), "better", [f"{HIGHER}, {MORE_RIGHT}"]),
        (measured(MORE, (150, 150), kept=150), "not shown to be better",
         [f"{UNCLEAR} (more in 0 texts, fewer in 0, p = 1): {UNPROVEN}; {ADVICE}"]),
    ],
    ids=["more right", "fewer right", "no more than chance", "none right", "as the commonest", "more, a higher loss", "same right"],
)  # fmt: skip
def test_of_labels_right_answers_decide_whatever_the_loss_does(metrics: dict[str, Any], verdict: str, said: list[str]) -> None:
    lines = list(result_lines(metrics, has_file=False))
    assert (metrics["validation_verdict"], lines[2:]) == (verdict, said)


@pytest.mark.parametrize(
    ("metrics", "verdict", "said"),
    [
        (measured(LOWER, (0, 0), commonest=None), "better", []),
        (measured(LOWER, (3, 5), commonest=None, kept=3), "better", []),
        (measured(LOWER, (150, 120), commonest=None, kept=120), "worse",
         [f"clearly fewer answers are right than before (p = 1.9e-09): {WORSE}; {ADVICE}"]),
        (measured(SAME, (0, 0), commonest=None), "not shown to be better", [f"{UNDECIDED}: {UNPROVEN}; {ADVICE}"]),
        (measured(SAME, (3, 20), commonest=None, kept=3), "better", [f"{UNDECIDED}, {MORE_RIGHT}"]),
        (measured(MORE, (3, 5), commonest=None, kept=3), "worse", [f"{HIGHER}: {WORSE}; {ADVICE}"]),
    ],
    ids=["none right, a lower loss", "a few right", "fewer right", "undecided", "undecided, more right", "a higher loss"],
)  # fmt: skip
def test_of_other_answers_the_loss_decides_unless_right_ones_change_beyond_chance(
    metrics: dict[str, Any], verdict: str, said: list[str]
) -> None:
    lines = list(result_lines(metrics, has_file=False))
    has_right = bool(metrics["validation_right_before"] or metrics["validation_right_after"])
    assert (metrics["validation_verdict"], lines[1 + has_right :]) == (verdict, said)


def test_right_answers_are_said_with_their_interval_and_what_the_commonest_answer_has() -> None:
    """The interval is Wilson's; of answers that are no labels the commonest is none worth naming, and where none is right they are
    not spoken of."""
    loss = "loss on 200 lessons held out: 1.000 before, 1.500 after"
    right = "right word for word: 177 of 200 rows held out, 88.5 % [83.3, 92.2]; 31 before"
    assert list(result_lines(measured(LOWER, (31, 177), kept=31), has_file=False)) == [loss, f"{right}; the commonest answer alone: 6"]
    assert list(result_lines(measured(LOWER, (31, 177), kept=31, commonest=None), has_file=False)) == [loss, right]
    assert list(result_lines(measured(LOWER, (0, 0), commonest=None), has_file=False)) == [loss]


@pytest.mark.parametrize(
    ("change", "last"),
    [(SAME, f"{UNDECIDED}: {UNPROVEN}"), (MORE, f"{HIGHER}: {WORSE}; {ADVICE}")],
    ids=["undecided", "worse so soon"],
)
def test_where_the_time_was_over_before_an_epoch_more_data_is_not_advised(change: tuple[float, float], last: str) -> None:
    """That more time helps is said where the time was over."""
    metrics = measured(change, (0, 0), commonest=None) | {"epochs_done": 0.17}
    assert list(result_lines(metrics, has_file=False))[-1] == last


@pytest.mark.parametrize(
    ("left_out", "has_file", "more"),
    [
        (25, False, "more --minutes (in Python: `minutes`) look at more"),
        (0, False, "give --validation (in Python: `validation`) a file"),
        (0, True, "give --validation (in Python: `validation`) a file that holds more"),
    ],
)
def test_where_too_few_rows_are_held_out_it_is_said_and_how_more_are(left_out: int, has_file: bool, more: str) -> None:
    """Four of four, all with one label: a model that always answers it looks like that, too."""
    metrics = measured(LOWER, (1, 4), of=4, commonest=4, kept=1) | {"validation_lessons_left_out": left_out}
    of_all = " of the 29" if left_out else ""
    assert list(result_lines(metrics, has_file=has_file)) == [
        f"loss on 4 lessons{of_all} held out: 1.000 before, 1.500 after",
        "right word for word: 4 of 4 rows held out, 100.0 % [51.0, 100.0]; 1 before; the commonest answer alone: 4",
        f"{UNCLEAR} (more in 3 texts, fewer in 0, p = 0.25), and {COMMONEST}: {UNPROVEN}",
        f"too few rows are held out to tell how many are right; {more}",
    ]


@pytest.mark.parametrize(("right", "of", "is_said"), [(20, 38, True), (20, 40, False), (8, 9, True), (12, 12, False)])
def test_too_few_is_where_the_interval_is_wider_than_thirty_points(right: int, of: int, is_said: bool) -> None:
    said = list(result_lines(measured(LOWER, (0, right), of=of, commonest=1), has_file=False))
    assert any(line.startswith("too few rows") for line in said) is is_said


def test_one_text_held_out_says_nothing_about_chance() -> None:
    metrics = measured(None, (0, 1), of=1, commonest=1)
    assert metrics["validation_verdict"] is None
    one = "one text held out says nothing about chance"
    for left_out, has_file, more in ((0, False, "a file"), (0, True, "a file that holds more")):
        lines = list(result_lines(metrics | {"validation_lessons_left_out": left_out}, has_file=has_file))
        assert lines[0] == "loss on 1 lesson held out: 1.000 before, 1.500 after"
        assert lines[2:] == [f"{one}; give --validation (in Python: `validation`) {more}"]
    *_, last = result_lines(metrics | {"validation_lessons_left_out": 199}, has_file=False)
    assert last == f"{one}; more --minutes (in Python: `minutes`) look at more"


def test_what_is_found_of_right_answers_has_the_names_that_stand_there_where_nothing_is_held_out() -> None:
    assert set(compare_right(rows("ab"), [False] * 2, [True] * 2, [])) == {*ABOUT_RIGHT}


def test_of_few_rows_a_model_that_is_clearly_worse_is_called_so() -> None:
    lines = [*result_lines(measured(LOWER, (12, 2), kept=2, of=20), has_file=False)]
    assert lines[2:] == [f"clearly fewer answers are right than before (p = 0.002), and {COMMONEST}: {WORSE}; {ADVICE}"]


def test_nothing_is_said_where_nothing_is_held_out() -> None:
    assert not list(result_lines({"validation_lessons": 0}, has_file=False))


def test_a_texts_copies_are_one_text_in_the_interval_and_in_the_test() -> None:
    """Six texts four times each: McNemar's test is of six, and so is Wilson's interval, not of 24."""
    held_out = rows("ab" * 12, "".join(letter * 4 for letter in "uvwxyz"))
    found = compare_right(held_out, [False] * 24, [True] * 24, held_out)
    assert (found["validation_texts_gained"], found["validation_texts_lost"]) == (6, 0)
    assert found["validation_right_p_value"] == pytest.approx(2 / 2**6)
    assert found["validation_right_after_95"] == [pytest.approx(6 / (6 + 1.959964**2), abs=1e-4), 1.0]


def test_right_answers_are_clearly_more_only_where_rows_and_texts_both_say_so() -> None:
    """Nine texts gain a row, and a conversation loses all its twenty: by texts alone p is 0.021."""
    held_out = rows("".join(chr(1000 + at) for at in range(32)), "z" * 20 + "abcdefghijkl")
    had, has = [at < 20 for at in range(32)], [20 <= at < 29 for at in range(32)]
    for before, after, texts in ((had, has, "more in 9 texts, fewer in 1"), (has, had, "more in 1 text, fewer in 9")):
        metrics = judged(MORE, held_out, before, after, held_out)
        assert metrics["validation_verdict"] == "not shown to be better"
        assert any(line.startswith(f"{UNCLEAR} ({texts}, p = 0.021)") for line in result_lines(metrics, has_file=False))
        assert judged(MORE, held_out, before, after, [])["validation_verdict"] == "worse"
        assert judged(LOWER, held_out, before, after, [])["validation_verdict"] == "better"


def test_a_text_that_gains_as_many_rows_as_it_loses_is_not_called_the_same() -> None:
    """Forty texts, each with two labels: before the first is right, then the second."""
    held_out = rows("ab" * 40, "".join(chr(1000 + at) * 2 for at in range(40)))
    metrics = judged(LOWER, held_out, [True, False] * 40, [False, True] * 40, held_out)
    (said,) = [line for line in result_lines(metrics, has_file=False) if "than before" in line]
    assert said.startswith(f"{UNCLEAR} (more in 0 texts, fewer in 0, p = 1)")


def test_answers_are_labels_where_most_are_answers_to_what_was_learned_too() -> None:
    right = [False] * 4
    assert compare_right(rows("aabc"), right, right, rows("ab"))["validation_are_labels"]
    assert not compare_right(rows("aabc"), right, right, rows("bc"))["validation_are_labels"]


def test_the_commonest_answer_has_those_rows_right_that_ask_for_nothing_else() -> None:
    """A conversation of two answers, each as often there: neither alone has it right."""
    two = Sample(tokens=[0, 1, ord("a"), 2, 1, ord("b"), 2], answers=((2, 4), (5, 7)), digest=b"two", lesson="two")
    held_out = [two, two, two, *rows("aabb"), *rows("b", "z")]
    right = [False] * len(held_out)
    assert compare_right(held_out, right, right, held_out)["validation_right_commonest"] == 3
