"""What counts as the same answer, and which choice is taken."""

from __future__ import annotations

import pytest

from nomoat.judge.scorers import exact, likeliest, matching_choice, normalise_answer
from nomoat.records import ContinuationScore


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("  Positive.\n", "positive"),
        ("“Positive”", "positive"),
        ("**spam**", "SPAM"),
        ("ｐｏｓｉｔｉｖｅ", "positive"),  # full-width letters
        ("긍정。", "긍정"),
        ("\u1100\u1173\u11bc\u110c\u1165\u11bc", "긍정"),  # syllables written as single letters
        ("new \t york", "New York"),
        ("STRASSE", "Straße"),
        ("-5", "-5."),
        ("?", "?"),
    ],
)
def test_answers_that_differ_only_in_writing_are_the_same(answer: str, target: str) -> None:
    assert exact(answer, target) == 1.0


@pytest.mark.parametrize(
    ("answer", "target"),
    [("", "positive"), ("...", "positive"), ("not positive", "positive"), ("5", "-5"), ("50", "$50"), ("!", "?"), ("us", "u.s.")],
)
def test_answers_that_say_something_else_are_not(answer: str, target: str) -> None:
    assert exact(answer, target) == 0.0


@pytest.mark.parametrize("text", ["ẞ", "ǰ.", "ﬁn", "  a  b ", "-5", "--", "Ⅷ"])
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


def scores(*pairs: tuple[float, int]) -> list[ContinuationScore]:
    return [ContinuationScore(log_probability=value, num_tokens=tokens) for value, tokens in pairs]


def test_likeliest_sums_over_tokens_unless_told_to_average() -> None:
    short_and_long = scores((-2.0, 1), (-3.0, 3))
    assert likeliest(short_and_long) == 0
    assert likeliest(short_and_long, per_token=True) == 1


def test_first_of_equally_likely_choices_is_taken() -> None:
    assert likeliest(scores((-4.0, 1), (-2.0, 1), (-2.0, 1))) == 1
    assert likeliest(scores((float("-inf"), 0), (float("-inf"), 2))) == 0
    with pytest.raises(ValueError, match="nothing to choose from"):
        likeliest([])


def test_written_answer_matches_a_choice_whole_or_not_at_all() -> None:
    choices = ("negative", "positive")
    assert matching_choice(" Positive!", choices) == 1
    assert matching_choice("It is positive", choices) is None
    assert matching_choice("", choices) is None
    assert matching_choice("a", ("A", "a.")) is None
