"""`stored:SUITE/MODEL`: what a model answered here before, without the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from nomoat.asking.store import AnswerStore
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError, UnknownModelError
from nomoat.judge.duel import run_duel
from nomoat.judge.judged import run_graded, run_judged_duel
from nomoat.judge.kept import is_kept
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suites import Suite
from nomoat.records import ContinuationScore, Example, Message, Request
from nomoat.responder import Responder


def quiz(num_examples: int, *, choices: tuple[str, ...] = ()) -> Suite:
    examples = tuple(
        Example(id=str(at), messages=(Message(role="user", content=f"question {at}"),), target="yes", choices=choices)
        for at in range(num_examples)
    )
    return Suite(name="quiz", metric="choice" if choices else "exact", examples=examples, sha256=f"quiz{num_examples}{choices}")


def knowing(name: str, num_right: int, num_examples: int = 60) -> Responder:
    engine = FakeEngine(answers={f"question {at}": "yes" if at < num_right else "no" for at in range(num_examples)})
    engine.digest = f"digest of {name}"
    return Responder(name, engine)


class Grades(FakeEngine):
    """Gives everything a 7."""

    digest = "grades"

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return [ContinuationScore(log_probability=float("7" in text), num_tokens=1) for text in continuations]


class Likes(FakeEngine):
    """Finds `yes` likelier than anything else."""

    digest = "likes"

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return [ContinuationScore(log_probability=0.0 if text == "yes" else -1.0, num_tokens=1) for text in continuations]


def test_duel_is_fought_again_from_its_kept_answers_and_stops_where_it_stopped() -> None:
    suite = quiz(60)
    first = run_duel(knowing("good", 58), knowing("bad", 3), suite, RunSettings(concurrency=4)).verdict
    again = run_duel("stored:quiz/good", "stored:quiz/bad", suite, RunSettings(concurrency=4)).verdict
    assert first.num_examples < 60
    assert (again.num_examples, again.winner, again.p_value, again.looks) == (
        first.num_examples,
        "left",
        first.p_value,
        first.looks,
    )
    assert (again.left.model, again.left.score) == ("stored:quiz/good", first.left.score)


def test_all_kept_answers_are_counted_where_a_duel_needs_few_of_them() -> None:
    for model in (knowing("good", 58), knowing("bad", 3)):
        run_suite(model, quiz(60))
    verdict = run_duel("stored:quiz/good", "stored:quiz/bad", quiz(60), RunSettings(concurrency=4), stop_early=True).verdict
    live = run_duel("stored:quiz/good", knowing("bad", 3), quiz(60), RunSettings(concurrency=4)).verdict
    for said, n in ((verdict, verdict.num_examples), (live, live.num_examples)):
        assert n < 60
        assert any(
            "`stored:quiz/good` is not asked: it has answered 60 of 60 of these questions before" in note for note in said.notes
        )


def test_answers_that_are_not_kept_are_left_out_and_counted() -> None:
    run_suite(knowing("good", 5), quiz(10))
    evaluation = run_suite("stored:quiz/go", quiz(40))
    assert (len(evaluation.outcomes), evaluation.side.score, evaluation.partial) == (10, 0.5, "")
    assert "`stored:quiz/go` is not asked: it has answered 10 of 40 of these questions before" in evaluation.notes[0]


def test_conversations_that_were_not_asked_in_full_are_kept_as_far_as_they_were() -> None:
    """Two turns each; the second was asked in the first conversation only, and nothing of the last one."""
    turns = [dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(quiz(6).examples)]
    asked = dataclasses.replace(quiz(6), examples=tuple(turns[at] for at in (0, 1, 2)))
    run_suite(knowing("good", 2), asked)
    evaluation = run_suite("stored:quiz/good", dataclasses.replace(quiz(6), examples=tuple(turns)))
    assert [(outcome.example_id, outcome.score) for outcome in evaluation.outcomes] == [("0", 1.0), ("1", 1.0), ("2", 0.0)]
    assert "it has answered 3 of 6 of these questions before" in evaluation.notes[0]


def test_likelihoods_are_kept_too() -> None:
    suite = quiz(8, choices=("no", "yes"))
    first = run_suite(Responder("likes", Likes()), suite)
    again = run_suite("stored:quiz/likes", suite)
    assert again.side.score == first.side.score == 1.0


def test_what_was_asked_of_a_model_is_still_known_as_its_own() -> None:
    run_suite(knowing("good", 5), quiz(10))
    run_suite("stored:quiz/good", quiz(10))
    with AnswerStore() as store:
        assert {outcome.model for outcome in store.outcomes()} == {"good"}


def test_grades_of_kept_answers_do_not_replace_the_models_own_record() -> None:
    suite = Suite(name="open", metric="judge", examples=quiz(6).examples, sha256="open")
    for model in (knowing("good", 6), "stored:open/good"):
        run_graded(model, suite, Responder("judge", Grades()))
    with AnswerStore() as store:
        assert {outcome.model for outcome in store.outcomes()} == {"good"}


def test_judge_is_shown_kept_answers() -> None:
    suite = Suite(name="open", metric="judge", examples=quiz(6).examples, sha256="open")
    judge = Responder("judge", Likes())
    first = run_judged_duel(knowing("good", 6), knowing("bad", 0), suite, judge).verdict
    again = run_judged_duel("stored:open/good", "stored:open/bad", suite, judge).verdict
    assert (again.wins, again.ties, again.losses, again.num_examples) == (first.wins, first.ties, first.losses, 6)


def test_model_that_never_answered_is_told_who_did() -> None:
    run_suite(knowing("good", 5), quiz(10))
    with pytest.raises(UnknownModelError) as caught:
        run_suite("stored:quiz/other", quiz(10))
    assert (caught.value.message, caught.value.hint) == ("no answers of `other` to `quiz` are kept", "answered `quiz` here: good")
    with pytest.raises(UnknownModelError) as caught:
        run_suite("stored:none/good", quiz(10))
    assert caught.value.hint == "run `nomoat eval MODEL SUITE` first: its answers are kept"
    other = Suite(
        name="quiz",
        metric="exact",
        examples=(Example(id="x", messages=(Message(role="user", content="new"),), target="y"),),
        sha256="x",
    )
    with pytest.raises(DataError, match="`stored:quiz/good` holds no answers to these questions"):
        run_suite("stored:quiz/good", other)


@pytest.mark.parametrize(
    ("ref", "expected"), [("good", False), ("stored:quiz/good", True), ("stored:quiz", False), ("stored:", False)]
)
def test_kept_answers_are_told_from_models(ref: str, expected: bool) -> None:
    assert is_kept(ref) == expected
