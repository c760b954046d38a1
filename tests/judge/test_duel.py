"""Duels that stop when the answer is known: what they ask, what they say, what they leave."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator

import pytest
from misbehaving import Server, counted
from quiz import quiz
from scripted import Asked

import nomoat
from nomoat.asking.spending import Spending
from nomoat.engine.fake import FakeEngine
from nomoat.errors import ContextExceededError, DataError, NotEnoughMemoryError, RemoteError, UnsupportedError, UsageError
from nomoat.judge import duel as duels
from nomoat.judge.duel import run_duel, run_duels
from nomoat.judge.settings import RunSettings
from nomoat.judge.verdict import Rules
from nomoat.records import Chunk, Example, Message, Request
from nomoat.responder import Responder


class Counting(Asked):
    """Answers "yes" to the questions in `right`."""

    def __init__(self, right: set[int], num_examples: int) -> None:
        super().__init__(answers={f"question {at}": "yes" if at in right else "no" for at in range(num_examples)})


def sides(right_one: set[int], right_other: set[int], n: int) -> tuple[Responder, Responder, Counting, Counting]:
    one, other = Counting(right_one, n), Counting(right_other, n)
    return Responder("tuned", one), Responder("base", other), one, other


def test_duel_stops_when_the_winner_is_known_and_says_how_many_it_asked() -> None:
    left, right, one, other = sides(set(range(180)), set(range(60)), 200)
    duel = run_duel(left, right, quiz(200), RunSettings(concurrency=8))
    verdict = duel.verdict
    assert verdict.winner == "left"
    assert (verdict.num_examples, verdict.num_planned) == (16, 200)
    assert len(one.asked) == len(other.asked) == 16
    assert verdict.sentence.startswith("`tuned` (93.8 % [")
    assert "is ahead of `base`" in verdict.sentence
    assert ", 16 of 200 items: by " in verdict.sentence
    assert [look.num_examples for look in verdict.looks] == [8, 16]
    assert (verdict.difference_low, verdict.difference_high) == (verdict.looks[-1].low, verdict.looks[-1].high)
    assert verdict.notes == (
        "asked in a random order (seed 0), 8 at a time, with a look after each; the intervals hold whenever one stops: "
        "the rest was not needed (`--all`, in Python: `stop_early=False`, asks everything)",
    )
    assert duel.left.side == verdict.left


def test_rounds_of_a_long_duel_grow_with_what_was_asked_and_the_note_says_so() -> None:
    """Rounds of 4 up to 252 items, of which 2 % are 5."""
    left, right, one, other = sides(set(range(0, 400, 2)), set(range(1, 400, 2)), 400)
    verdict = run_duel(left, right, quiz(400), RunSettings(concurrency=4)).verdict
    asked = [look.num_examples for look in verdict.looks]
    rounds = [after - before for before, after in itertools.pairwise([0, *asked])]
    assert rounds == [4] * 63 + [5] * 10 + [6] * 8 + [7] * 7 + [1]
    assert len(one.asked) == len(other.asked) == 400
    order = "asked in a random order (seed 0), 4 at a time and later 2 % of those before, with a look after each; the intervals hold "
    assert verdict.notes[0] == f"{order}whenever one stops"


def test_both_sides_are_asked_the_same_in_the_order_of_the_seed() -> None:
    left, right, one, other = sides(set(range(30)), set(range(29)), 40)
    run_duel(left, right, quiz(40), RunSettings(concurrency=1, seed=3))
    drawn = random.Random(3).sample(range(40), 40)
    assert one.questions == other.questions == [f"question {at}" for at in drawn]


def test_scores_of_a_stopped_duel_are_given_with_wider_intervals_than_those_of_a_planned_one() -> None:
    left, right, *_ = sides(set(range(180)), set(range(60)), 200)
    verdict = nomoat.duel(left, right, quiz(200), concurrency=8)
    assert verdict.left.score_low < 0.60
    whole = nomoat.duel(left, right, quiz(200), stop_early=False)
    with pytest.raises(UsageError, match="`stop_early` is 'no'"):  # which would be True
        nomoat.duel(left, right, quiz(200), stop_early="no")  # type: ignore[arg-type]
    assert (whole.num_examples, whole.num_planned, whole.looks) == (200, 200, ())
    assert whole.left.score_low > 0.85


def test_scores_and_their_difference_are_the_same_to_the_last_digit_in_whatever_order_the_items_stand() -> None:
    """As a plain sum of such scores, and numpy's, is not."""
    asked = quiz(60, "f1")
    left, right = (
        Responder(f"of {k}", FakeEngine(answers={f"question {at}": "yes" + " no" * (k * at % 7) for at in range(60)})) for k in (1, 2)
    )
    orders = [asked.examples, asked.examples[::-1], tuple(sorted(asked.examples, key=lambda example: int(example.id) % 7))]
    verdicts = [run_duel(left, right, dataclasses.replace(asked, examples=order), stop_early=False).verdict for order in orders]
    assert len({(verdict.left.score, verdict.right.score, verdict.difference) for verdict in verdicts}) == 1


def test_last_look_finds_what_the_sequence_is_too_careful_for() -> None:
    """11 against 1 of 60: the fixed-size test at alpha / 2 sees it (p = 0.0063), the confidence sequence does not yet."""
    left, right, *_ = sides(set(range(11)), {59}, 60)
    verdict = nomoat.duel(left, right, quiz(60), concurrency=60)
    assert verdict.looks[-1].low < 0 < verdict.difference_low
    assert (verdict.winner, verdict.num_examples) == ("left", 60)
    assert verdict.p_value == pytest.approx(2 * 0.00635, abs=1e-4)
    assert "the rest was not needed" not in verdict.notes[-1]


def test_last_look_is_taken_though_a_question_failed() -> None:
    """The same 11 against 1; one of the 48 items in which the sides are alike has no answer of the right side."""

    class Failing(Counting):
        def generate(self, request: Request) -> Iterator[Chunk]:
            if request.messages[-1].content == "question 30":
                raise RemoteError("too busy")
            yield from super().generate(request)

    left, *_ = sides(set(range(11)), set(), 60)
    for size in (60, 7):
        verdict = nomoat.duel(left, Responder("base", Failing({59}, 60)), quiz(60), concurrency=size)
        assert (verdict.winner, verdict.num_examples, verdict.num_planned) == ("left", 59, 60)
        assert verdict.p_value == pytest.approx(2 * 0.00635, abs=1e-4)
        assert "1 question got no answer: too busy" in verdict.partial
        assert "the rest" not in verdict.notes[-1]


class Dead(FakeEngine):
    """A server that nobody runs any more, once it has answered so many questions."""

    def __init__(self, *, after: int = 0) -> None:
        super().__init__(answers={})
        self.num_asked, self.after = 0, after

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.num_asked += 1
        if self.num_asked > self.after:
            raise RemoteError("cannot reach it")
        yield from super().generate(request)


@pytest.mark.parametrize("after", [0, 3])
def test_duel_that_asks_a_few_at_a_time_ends_at_five_failures_in_a_row(after: int) -> None:
    left, *_ = sides(set(range(60)), set(), 60)
    dead = Dead(after=after)
    with pytest.raises(RemoteError, match="cannot reach it"):
        nomoat.duel(left, Responder("dead", dead), quiz(60), concurrency=1)
    assert dead.num_asked == after + 5


def test_conversations_asked_a_few_at_a_time_under_a_budget_end_at_five_failures_in_a_row() -> None:
    dead = Dead()
    examples = tuple(
        Example(id=f"{at}{turn}", messages=(Message(role="user", content=f"{turn} {at}"),), target="yes", follows=before and f"{at}a")
        for at in range(20)
        for turn, before in (("a", ""), ("b", "a"))
    )
    with pytest.raises(RemoteError, match="cannot reach it"):
        nomoat.evaluate(
            Responder("dead", dead),
            dataclasses.replace(quiz(1), examples=examples),
            concurrency=1,
            spending=Spending(max_cost_usd=1.0),
        )
    assert dead.num_asked == 5


def test_too_close_to_call_after_everything_was_asked() -> None:
    left, right, *_ = sides(set(range(45)), set(range(41)), 80)
    verdict = nomoat.duel(left, right, quiz(80))
    assert (verdict.winner, verdict.num_examples) == ("undecided", 80)
    assert verdict.sentence.startswith("Too close to call on `quiz` after 80 items: `tuned` (56.2 % [")


def test_rope_ends_a_duel_of_equals_as_practically_equal() -> None:
    left, right, one, _ = sides(set(range(500)), set(range(500)), 1000)
    verdict = nomoat.duel(left, right, quiz(1000), rope=5)
    assert verdict.winner == "equal"
    assert len(one.asked) < 200
    assert verdict.sentence.startswith("Practically equal on `quiz` after ")
    assert "apart by +0.0 points [-" in verdict.sentence
    assert verdict.sentence.endswith("less than the 5 that count.")
    few = nomoat.duel(left, right, quiz(20), rope=5, stop_early=False)
    assert few.winner == "undecided"  # twenty ties do not show that the two are within 5 points


def test_answers_that_only_a_judge_can_compare_are_refused_before_anything_is_asked() -> None:
    left, right, one, _ = sides({1}, {2}, 5)
    with pytest.raises(UnsupportedError, match="they can only be compared"):
        nomoat.duel(left, right, dataclasses.replace(quiz(5), metric="judge"))
    assert one.asked == []


def test_smaller_alpha_asks_longer() -> None:
    left, right, *_ = sides(set(range(180)), set(range(60)), 200)
    careful = nomoat.duel(left, right, quiz(200), concurrency=1, alpha=0.001)
    usual = nomoat.duel(left, right, quiz(200), concurrency=1)
    assert usual.num_examples < careful.num_examples < 60
    assert careful.winner == "left"


@pytest.mark.parametrize(
    ("rules", "message", "hint"),
    [
        ({"alpha": 1.0}, "alpha is 1", "give a share between 0 and 1, such as 0.05"),
        ({"rope": 0.0}, "the rope is 0", "give the per cent of the scale that still count as equal, such as 2"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules: dict[str, float], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Rules(**rules)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_without_memory_for_both_everything_is_asked_and_the_verdict_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second model is refused while the first is loaded, as `load` does when memory is short."""
    open_now: list[str] = []

    class Loaded(Responder):
        def close(self) -> None:
            open_now.remove(self.ref)

    def load(ref: str, *, fallback_template: str | None) -> Responder:
        if open_now:
            raise NotEnoughMemoryError("no room")
        open_now.append(ref)
        return Loaded(ref, Counting(set(range(180)) if ref == "a" else set(range(60)), 200))

    monkeypatch.setattr("nomoat.responder.load", load)
    looked_at: list[object] = []
    monkeypatch.setattr("nomoat.judge.duel.require_askable", lambda models, *_: looked_at.extend(models))  # there are no such files
    verdict = nomoat.duel("a", "b", quiz(200))
    assert (verdict.winner, verdict.num_examples, open_now) == ("left", 200, [])
    assert looked_at == ["a", "b"]  # once
    assert verdict.notes == (
        "memory does not hold both models at once: each side answered everything, and the duel could not stop early",
    )


def test_examples_in_groups_are_all_asked() -> None:
    left, right, *_ = sides(set(range(90)), set(range(30)), 100)
    suite = quiz(100)
    grouped = tuple(dataclasses.replace(example, group=str(at // 2)) for at, example in enumerate(suite.examples))
    verdict = nomoat.duel(left, right, dataclasses.replace(suite, examples=grouped))
    assert (verdict.num_examples, verdict.looks) == (100, ())
    assert "examples belong together in groups: each side answered everything, and the duel could not stop early" in verdict.notes


def test_example_too_long_for_one_side_is_found_before_either_is_asked() -> None:
    class Small(Counting):
        def count_tokens(self, request: Request) -> int:
            return 5000 if request.messages[-1].content == "question 42" else 2

    class Beyond(Counting):
        def count_tokens(self, request: Request) -> int:
            raise ContextExceededError(prompt_tokens=None, max_new_tokens=1, context_tokens=4096)

    left, _, one, _ = sides({1}, {1}, 60)
    for kind, said in (
        (Small, "example `42` of `quiz` has 5,000 tokens"),
        (Beyond, "of `quiz` has more than 4,096 tokens"),
    ):
        with pytest.raises(DataError, match=said):
            nomoat.duel(left, Responder("small", kind({1}, 60)), quiz(60))
    assert one.asked == []


def test_stopped_duel_asks_nothing_when_it_is_fought_again() -> None:
    left, right, one, other = sides(set(range(180)), set(range(60)), 200)
    first = run_duel(left, right, quiz(200))
    asked = len(one.asked)
    again = run_duel(left, right, quiz(200))
    assert len(one.asked) == len(other.asked) == asked
    assert again.verdict.sentence == first.verdict.sentence
    assert again.left.side.facts["reused answers"] == str(asked)


def test_model_against_itself_shows_the_progress_of_each_side() -> None:
    seen: list[tuple[str, int, int]] = []
    one, other = (Responder("same", FakeEngine(answers={f"question {at}": "yes" for at in range(20)})) for _ in range(2))
    run_duel(one, other, quiz(20), RunSettings(concurrency=8, progress=lambda *row: seen.append(row)))
    assert {name: max(done for shown, done, _ in seen if shown == name) for name, _, _ in seen} == {
        "same (left)": 20,
        "same (right)": 20,
    }


def test_progress_of_a_stopped_duel_counts_of_all_planned() -> None:
    seen: list[tuple[str, int, int]] = []
    left, right, *_ = sides(set(range(180)), set(range(60)), 200)
    run_duel(left, right, quiz(200), RunSettings(concurrency=8, progress=lambda *row: seen.append(row)))
    assert seen[0] == ("tuned", 0, 200)
    assert [row for row in seen if row[0] == "base"][-1] == ("base", 16, 200)
    assert duels.STORED == "stored:"


def test_several_suites_share_alpha_and_have_their_p_values_corrected() -> None:
    left, right, *_ = sides(set(range(40)), set(range(30)), 60)
    suites = [quiz(60), dataclasses.replace(quiz(50), name="other")]
    first, second = (duel.verdict for duel in run_duels(left, right, suites, stop_early=False))
    assert (first.alpha, second.alpha) == (0.025, 0.025)
    assert first.p_value == second.p_value == 2 / 2**10  # ten items apart, all one way, in both
    assert first.p_value_corrected == second.p_value_corrected == 4 / 2**10
    assert (first.winner, second.winner, first.suite, second.suite) == ("left", "left", "quiz", "other")
    alone = nomoat.duel(left, right, quiz(60), stop_early=False)
    assert first.difference_low < alone.difference_low


@pytest.mark.parametrize("stop_early", [True, False])
def test_duels_that_were_fought_are_kept_where_the_budget_ends_before_the_next_suite(
    serving: Callable[..., Server], stop_early: bool
) -> None:
    """Ten answers of a cent each are all that a dime pays for."""
    left = Responder("left", FakeEngine(answers={f"question {at}": "yes" for at in range(60)}))
    paid = Spending(max_cost_usd=0.1, input_usd_per_million=100.0, output_usd_per_million=100.0)
    suites = [dataclasses.replace(quiz(60), max_new_tokens=10), dataclasses.replace(quiz(50), name="other")]
    right = f"{serving(counted('yes', 90, 10)).url}#m"
    (duel,) = run_duels(left, right, suites, RunSettings(spending=paid, concurrency=1), stop_early=stop_early)
    assert (duel.verdict.suite, duel.verdict.num_examples) == ("quiz", 10)
    assert duel.verdict.partial.startswith("the budget of $0.10 is reached")
    assert duel.verdict.notes[-1].startswith("PARTIAL: nothing was fought over `other`: the budget of $0.10 is reached")
    assert duel.verdict.p_value_corrected == min(1.0, 2 * duel.verdict.p_value)


@pytest.mark.parametrize("group_of", [lambda at: "", lambda at: str(at // 4)])
def test_a_few_ties_never_make_two_models_equal(group_of: Callable[[int], str]) -> None:
    """Twelve answers, in three groups or none, all right on both sides: no spread at all, and far from showing equality."""
    left, right, *_ = sides(set(range(12)), set(range(12)), 12)
    examples = tuple(dataclasses.replace(example, group=group_of(at)) for at, example in enumerate(quiz(12).examples))
    suite = dataclasses.replace(quiz(12), examples=examples)
    for stop_early in (True, False):
        verdict = nomoat.duel(left, right, suite, rope=5, stop_early=stop_early)
        assert verdict.winner == "undecided"
        assert verdict.difference_low < -0.05 < 0.05 < verdict.difference_high
        assert verdict.left.score_low < 0.9


def test_groups_that_all_come_to_the_same_do_not_make_two_models_equal() -> None:
    """Six answers in three groups, one won and one lost in each: nothing lies between the groups, and three of them show little."""
    left, right, *_ = sides({0, 2, 4}, {1, 3, 5}, 6)
    examples = tuple(dataclasses.replace(example, group=str(at // 2)) for at, example in enumerate(quiz(6).examples))
    verdict = nomoat.duel(left, right, dataclasses.replace(quiz(6), examples=examples), rope=5)
    assert (verdict.winner, verdict.difference) == ("undecided", 0.0)
    assert verdict.difference_low < -0.5 < 0.5 < verdict.difference_high
    assert verdict.left.score_low < 0.25
    assert verdict.left.score_high > 0.75
