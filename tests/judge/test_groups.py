"""What of a suite is one piece of evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from quiz import knowing

import nomoat
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError, UnsupportedError
from nomoat.judge import wording
from nomoat.judge.duel import run_duel
from nomoat.judge.groups import groups_in, groups_of
from nomoat.judge.judged import run_judged_duel
from nomoat.judge.metrics import Metric
from nomoat.judge.run import run_suite
from nomoat.judge.stats import clustered_score_interval
from nomoat.judge.suite import Suite
from nomoat.judge.table import run_table
from nomoat.judge.verdict import _fixed
from nomoat.records import Chunk, ContinuationScore, Example, Message, Request, Usage, Verdict
from nomoat.responder import Responder


def suite_of(*examples: Example, metric: Metric = "exact") -> Suite:
    return Suite(name="quiz", metric=metric, examples=examples, sha256="")


def asking(question: int, number: int, *, group: str = "", follows: str = "", choices: tuple[str, ...] = ()) -> Example:
    message = Message(role="user", content=f"question {question}")
    return Example(id=str(number), messages=(message,), target="yes", group=group, follows=follows, choices=choices)


def copied(num_questions: int, times: int) -> Suite:
    """Each question `times` times, every time under another id."""
    return suite_of(*(asking(at % num_questions, at) for at in range(num_questions * times)))


def test_equal_questions_are_one_piece_of_evidence() -> None:
    """30 questions five times each are 30 groups, for a score and for a duel, which asks everything; each of them says so."""
    suite = copied(30, 5)
    evaluation = run_suite(knowing("m", 13), suite)
    scores, groups = [outcome.score for outcome in evaluation.outcomes], [str(at % 30) for at in range(150)]
    assert [outcome.group for outcome in evaluation.outcomes] == groups
    assert (evaluation.side.score_low, evaluation.side.score_high) == clustered_score_interval(scores, groups, 0.0, 1.0)
    told = (
        "120 of the 150 questions of `quiz` are equal to one before them: equal questions are one group",
        "150 examples in 30 groups that belong together: errors are those between groups",
    )
    assert evaluation.notes[-2:] == told
    verdict = nomoat.duel(knowing("a", 13), knowing("b", 8), suite)
    assert (verdict.num_examples, verdict.p_value, verdict.winner) == (150, 2 / 2**5, "undecided")  # 25 to 0, were they independent
    assert [note for note in verdict.notes if "group" in note][:2] == list(told)
    assert set(told) <= set(run_table([knowing("a", 13), knowing("b", 8)], suite).leaderboard.notes)


def test_two_sides_are_equal_only_where_groups_that_are_not_there_would_not_change_that() -> None:
    """Nothing differs in 300 questions and 30 that are asked ten times. So it is in 28 of 100 samples where 4.2 % of the latter, and
    with them 2.1 points, are won.
    """
    uneven = suite_of(*(asking(at if at < 330 else 300 + at % 30, at) for at in range(600)))
    even = [nomoat.duel(knowing("a", num), knowing("b", num - 1), copied(num, 2), rope=2) for num in (199, 500)]
    few = nomoat.duel(knowing("a", 0), knowing("b", 0), uneven, rope=2)
    assert [verdict.winner for verdict in (*even, few)] == ["undecided", "equal", "undecided"]
    assert few.difference_low > -0.02 and few.difference_high < 0.02
    assert [told for told in few.notes if "practically" in told] == [
        "not called practically equal: groups unlike these 330, which they may happen to lack, leave more of the difference "
        "open: +0.0 points [-6.1, +6.1]"
    ]
    assert not any("practically" in told for verdict in even for told in verdict.notes)
    least = [nomoat.duel(knowing("a", num), knowing("b", num), copied(num, 2), rope=2) for num in (182, 183)]
    assert [verdict.winner for verdict in least] == ["undecided", "equal"]
    near = wording.open_in_groups_note("exact", 199, 0.005, -0.015, 0.0201, 2.0)
    assert near.endswith(" open: +0.500 points [-1.500, +2.010]")  # which does not read as 2.0


def test_equal_models_seldom_have_a_winner_over_equal_questions() -> None:
    """200 duels of 20 questions five times each: at most 10 winners are promised; more than 20 by chance: below 0.1 %."""
    rng = np.random.default_rng(4)
    groups = [outcome.group for outcome in run_suite(knowing("m", 0), copied(20, 5)).outcomes]
    num_winners = 0
    for _ in range(200):
        left, right = (np.tile(rng.random(20) < 0.5, 5).astype(float).tolist() for _ in range(2))
        num_winners += _fixed("exact", left, right, 0.05, groups).is_decided
    assert num_winners <= 20


def test_a_few_equal_questions_count_and_the_notes_say_what_that_is_worth() -> None:
    """A duel over them may stop early. 4 of 100: the variance is up to 1.08 times what it is taken for."""
    suite = suite_of(*(asking(at % 96, at) for at in range(100)))
    assert nomoat.duel(knowing("a", 100), knowing("b", 0), suite, concurrency=1).num_examples < 100
    evaluation = run_suite(knowing("m", 100), suite)
    note = "4 of the 100 questions of `quiz` are equal to one before them, and count all the same: intervals are up to 4 % too narrow"
    assert [told for told in evaluation.notes if "question" in told] == [note]
    assert groups_of(evaluation.outcomes) is None


class Affirming(FakeEngine):
    """A judge that finds "yes" better than "no", in writing."""

    digest = "affirming"

    def generate(self, request: Request) -> Iterator[Chunk]:
        prompt = request.messages[-1].content
        one, other = ("yes" in prompt.partition(f"<<< Assistant {name} >>>")[2].partition("<<< End")[0] for name in "AB")
        usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
        yield Chunk(text="[[C]]" if one == other else "[[A]]" if one else "[[B]]", finish_reason="stop", usage=usage)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError("writes only")


def fought(left: str | Responder, right: str | Responder, suite: Suite) -> Verdict:
    return run_duel(left, right, suite, stop_early=False).verdict


def judged(left: str | Responder, right: str | Responder, suite: Suite) -> Verdict:
    return run_judged_duel(left, right, suite, Responder("judge", Affirming(context_tokens=100_000))).verdict


def partly_answered() -> Suite:
    """300 questions, of which the last 4 repeat the first: "old" has answered 44 of them to 40 different questions."""
    suite = suite_of(*(asking(at if at < 296 else 0, at) for at in range(300)))
    run_suite(knowing("old", 20), dataclasses.replace(suite, examples=suite.examples[:40]))
    return suite


@pytest.mark.parametrize("fight", [fought, judged])
def test_both_sides_are_in_the_groups_of_what_both_answered(fight: Callable[..., Verdict]) -> None:
    """4 copies in 300 change next to nothing, and in 44 a fifth: whoever is asked first, they are one group for both sides."""
    suite = partly_answered()
    if fight is judged:
        judged(knowing("old", 20), knowing("older", 0), dataclasses.replace(suite, examples=suite.examples[:40]))
    one = fight(knowing("new", 27), "stored:quiz/old", suite)
    other = fight("stored:quiz/old", knowing("new", 27), suite)
    assert one.num_examples == 44
    mirrored = pytest.approx((-other.difference_high, -other.difference_low, other.p_value))
    assert (one.difference_low, one.difference_high, one.p_value) == mirrored
    assert (one.left.score_low, one.left.score_high) == (other.right.score_low, other.right.score_high)
    for verdict in (one, other):
        assert [note for note in verdict.notes if "equal to one" in note or "groups" in note] == [
            "4 of the 44 questions of `quiz` are equal to one before them: equal questions are one group",
            "44 examples in 40 groups that belong together: errors are those between groups",
        ]


def test_a_table_is_in_the_groups_of_what_all_answered() -> None:
    suite = partly_answered()
    for models in ([knowing("new", 27), "stored:quiz/old"], ["stored:quiz/old", knowing("new", 27)]):
        table = run_table(models, suite)
        assert len({tuple(outcome.group for outcome in evaluation.outcomes) for evaluation in table.evaluations}) == 1
        assert [note for note in table.leaderboard.notes if "equal to one" in note or "groups" in note] == [
            "4 of the 44 questions of `quiz` are equal to one before them: equal questions are one group",
            "44 examples in 40 groups that belong together: errors are those between groups",
        ]


def test_groups_that_what_was_answered_hardly_has_are_none() -> None:
    """The other way: 10 equal ones in 100, none of which "old" has answered."""
    suite = suite_of(*(asking(at if at < 90 else 89, at) for at in range(100)))
    old = dataclasses.replace(suite, examples=suite.examples[:89])
    run_suite(knowing("old", 20), old)
    one, other = fought(knowing("new", 27), "stored:quiz/old", suite), fought("stored:quiz/old", knowing("new", 27), suite)
    alone = fought(knowing("new", 27), "stored:quiz/old", old)
    for verdict in (one, other):
        assert not any("equal to one" in note or "errors are those" in note for note in verdict.notes)
        assert verdict.p_value == alone.p_value
    assert (one.difference_low, one.difference_high) == (alone.difference_low, alone.difference_high)
    assert (one.difference_low, one.difference_high) == pytest.approx((-other.difference_high, -other.difference_low))


def test_a_duel_that_may_stop_early_takes_equal_questions_for_several_and_says_so() -> None:
    verdict = run_duel(knowing("new", 27), "stored:quiz/old", partly_answered()).verdict
    assert (verdict.num_examples, bool(verdict.looks)) == (44, True)
    assert [note for note in verdict.notes if "equal to one" in note or "groups" in note] == [
        "4 of the 44 questions of `quiz` are equal to one before them, and count all the same: intervals are up to 17 % too narrow"
    ]


def test_a_suite_without_questions_is_an_error_of_its_own() -> None:
    for ask in (lambda: run_suite(knowing("m", 1), suite_of()), lambda: nomoat.duel(knowing("m", 1), knowing("m", 2), suite_of())):
        with pytest.raises(DataError, match="`m` holds no answers to these questions"):
            ask()


def test_a_copy_that_changes_nothing_is_not_talked_about() -> None:
    suite = suite_of(*(asking(at % 299, at) for at in range(300)))
    evaluation = run_suite(knowing("m", 100), suite)
    assert not any("question" in note for note in evaluation.notes)
    assert groups_of(evaluation.outcomes) is None


def test_questions_with_other_choices_are_others_where_choices_are_compared() -> None:
    examples = [asking(at % 2, at, choices=("yes", f"no {at // 2}")) for at in range(4)]
    assert groups_in(suite_of(*examples, metric="choice")) == {"0": "", "1": "", "2": "", "3": ""}
    assert groups_in(suite_of(*examples)) == {"0": "0", "1": "1", "2": "0", "3": "1"}


def test_equal_turns_are_equal_questions_where_what_came_before_is_equal() -> None:
    turns = [asking(0, 0), asking(9, 1, follows="0"), asking(1, 2), asking(9, 3, follows="2")]
    assert groups_in(suite_of(*turns)) == {"0": "0", "1": "0", "2": "2", "3": "2"}
    again = [asking(0, 4), asking(9, 5, follows="4")]
    assert groups_in(suite_of(*turns, *again)) == {"0": "0", "1": "0", "2": "2", "3": "2", "4": "0", "5": "0"}


def test_equal_questions_join_the_groups_they_are_in() -> None:
    """No name of a group is another's, even where one is called as an example is."""
    examples = [
        asking(0, 0, group="2"),
        asking(1, 1, group="text"),
        asking(2, 2),
        asking(0, 3),
        asking(1, 4, group="more"),
        asking(2, 5),
    ]
    groups = groups_in(suite_of(*examples))
    assert groups == {"0": "2", "3": "2", "1": "text", "4": "text", "2": "example 2", "5": "example 2"}
