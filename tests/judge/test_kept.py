"""`stored:SUITE/MODEL`: what a model answered here before, without the model."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Generator, Sequence

import pytest
from quiz import knowing, quiz
from scripted import Asked

from nomoat.asking.store import AnswerStore
from nomoat.engine import served_scores_digest
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError, UnknownModelError, UnsupportedError
from nomoat.judge.duel import run_duel
from nomoat.judge.judged import run_graded, run_judged_duel, run_judged_table
from nomoat.judge.kept import is_kept
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.table import run_table
from nomoat.records import Chunk, ContinuationScore, Example, Message, Request, Usage
from nomoat.responder import Responder

ALL_KNOWN = {f"question {at}": "yes" for at in range(60)}


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


class Served(Likes):
    """Where there is less memory."""

    scores_digest = served_scores_digest("d")


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


def test_kept_likelihoods_of_the_served_form_are_found_and_not_mixed_with_others() -> None:
    """Two questions were scored in float32 and three others with less memory: it is the three."""
    suite = quiz(5, "choice", choices=("yes", "no"))
    for engine, examples in ((Likes(), suite.examples[:2]), (Served(), suite.examples[2:])):
        engine.digest = "d"
        run_suite(Responder("likes", engine), dataclasses.replace(suite, examples=examples))
    evaluation = run_suite("stored:quiz/likes", suite)
    assert [(outcome.example_id, outcome.score) for outcome in evaluation.outcomes] == [("2", 1.0), ("3", 1.0), ("4", 1.0)]


def test_conversations_that_were_not_asked_in_full_are_kept_as_far_as_they_were() -> None:
    """Two turns each; the second was asked in the first conversation only, and nothing of the last one."""
    turns = [dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(quiz(6).examples)]
    asked = dataclasses.replace(quiz(6), examples=tuple(turns[at] for at in (0, 1, 2)))
    run_suite(knowing("good", 2), asked)
    evaluation = run_suite("stored:quiz/good", dataclasses.replace(quiz(6), examples=tuple(turns)))
    assert [(outcome.example_id, outcome.score) for outcome in evaluation.outcomes] == [("0", 1.0), ("1", 1.0), ("2", 0.0)]
    assert "it has answered 3 of 6 of these questions before" in evaluation.notes[0]


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("is_left", [False, True])
def test_nobody_is_asked_what_kept_answers_lack(stop_early: bool, is_left: bool) -> None:
    run_suite(knowing("good", 8), quiz(10))
    engine = Asked(answers=ALL_KNOWN)
    sides = ("stored:quiz/good", Responder("live", engine))
    fought = run_duel(*(sides if is_left else sides[::-1]), quiz(40), RunSettings(concurrency=4), stop_early=stop_early)
    assert sorted(engine.questions) == sorted(f"question {at}" for at in range(10))
    assert (fought.verdict.num_examples, fought.left.side.model) == (10, "stored:quiz/good" if is_left else "live")


@pytest.mark.parametrize("is_judged", [False, True])
def test_no_model_of_a_leaderboard_is_asked_what_kept_answers_lack(is_judged: bool) -> None:
    suite = quiz(12, "judge", name="open") if is_judged else quiz(12)
    asked = dataclasses.replace(suite, examples=suite.examples[:5])
    run_graded(knowing("good", 3), asked, Responder("judge", Grades())) if is_judged else run_suite(knowing("good", 3), asked)
    engine = Asked(answers=ALL_KNOWN)
    models = (Responder("live", engine), f"stored:{suite.name}/good")
    table = run_judged_table(models, suite, Responder("judge", Likes())) if is_judged else run_table(models, suite)
    assert (len(engine.asked), table.leaderboard.num_examples) == (5, 5)


def test_a_number_of_kept_answers_that_a_duel_chose_is_no_number_fixed_before() -> None:
    """16 against 10 of 16, differing in 6: p = 0.031 for a number fixed before, more than that where one looked on."""
    for model in (knowing("good", 16), knowing("bad", 10)):
        run_suite(model, quiz(16))
    sides = ("stored:quiz/good", "stored:quiz/bad")
    verdict = run_duel(*sides, quiz(60), RunSettings(concurrency=4)).verdict
    assert (verdict.num_examples, verdict.num_planned, verdict.winner) == (16, 60, "undecided")
    assert (verdict.difference_low, verdict.difference_high) == (verdict.looks[-1].low, verdict.looks[-1].high)
    assert any(note.endswith("the intervals hold whenever one stops: the rest has no kept answers") for note in verdict.notes)
    assert "for want of money" not in " ".join(verdict.notes)
    everything = run_duel(*sides, quiz(60), RunSettings(concurrency=4), stop_early=False).verdict
    assert everything.p_value < 0.05
    said = [note for note in everything.notes if "has kept answers to some of the questions only" in note]
    assert said == [f"{IF_A_DUEL_ENDED} (without `--all`, in Python: with `stop_early`, they hold)"]


IF_A_DUEL_ENDED = (
    "`stored:quiz/good` has kept answers to some of the questions only: if an earlier duel ended there because its winner was "
    "known, the intervals are narrower here, and p of a comparison smaller, than they should be"
)


def test_a_leaderboard_over_kept_answers_says_that_a_duel_may_have_ended_there() -> None:
    for model in (knowing("good", 16), knowing("bad", 10)):
        run_suite(model, quiz(16))
    models = ("stored:quiz/good", "stored:quiz/bad")
    assert IF_A_DUEL_ENDED in run_table(models, quiz(60)).leaderboard.notes
    for settings in (RunSettings(), RunSettings(limit=5)):
        notes = run_table(models, quiz(16), settings).leaderboard.notes
        assert not any("kept answers to some" in note for note in notes)


def test_a_judge_of_kept_answers_says_that_a_duel_may_have_ended_there() -> None:
    suite = quiz(12, "judge")
    judge = Responder("judge", Grades())
    run_graded(knowing("good", 3), dataclasses.replace(suite, examples=suite.examples[:5]), judge)
    models = ("stored:quiz/good", knowing("bad", 1))
    likes = Responder("likes", Likes())
    assert IF_A_DUEL_ENDED in run_judged_table(models, suite, likes).leaderboard.notes
    assert IF_A_DUEL_ENDED in run_judged_duel(*models, suite, likes).verdict.notes


def test_one_models_kept_answers_say_that_a_duel_may_have_ended_there() -> None:
    run_suite(knowing("good", 3), quiz(5))
    judge = Responder("judge", Grades())
    run_graded(knowing("good", 3), quiz(5, "judge"), judge)
    assert IF_A_DUEL_ENDED in run_suite("stored:quiz/good", quiz(12)).notes
    assert IF_A_DUEL_ENDED in run_graded("stored:quiz/good", quiz(12, "judge"), judge).notes
    assert IF_A_DUEL_ENDED not in run_suite("stored:quiz/good", quiz(5)).notes


@pytest.mark.parametrize("stop_early", [False, True])
def test_a_duel_over_groups_could_not_have_stopped_early_without_all_either(stop_early: bool) -> None:
    def grouped(num_examples: int) -> Suite:
        suite = quiz(num_examples)
        return dataclasses.replace(suite, examples=tuple(dataclasses.replace(e, group=f"g{e.id}") for e in suite.examples))

    for model in (knowing("good", 16), knowing("bad", 10)):
        run_suite(model, grouped(16))
    notes = run_duel("stored:quiz/good", "stored:quiz/bad", grouped(60), stop_early=stop_early).verdict.notes
    assert [note for note in notes if "kept answers to some" in note] == [IF_A_DUEL_ENDED]


def test_kept_answers_to_all_questions_are_a_number_fixed_before() -> None:
    for model in (knowing("good", 16), knowing("bad", 10)):
        run_suite(model, quiz(16))
    for stop_early in (False, True):
        verdict = run_duel("stored:quiz/good", "stored:quiz/bad", quiz(16), RunSettings(concurrency=4), stop_early=stop_early).verdict
        assert not any("kept answers to some" in note or "no kept answers" in note for note in verdict.notes)
    assert (verdict.difference_low, verdict.difference_high) != (verdict.looks[-1].low, verdict.looks[-1].high)


def test_a_side_without_kept_answers_is_named_before_the_other_is_asked() -> None:
    run_suite(knowing("good", 5), quiz(10))
    engine = Asked(answers=ALL_KNOWN)
    other = dataclasses.replace(quiz(10), examples=tuple(dataclasses.replace(e, id=f"x{e.id}") for e in quiz(40).examples[20:]))
    for stop_early in (False, True):
        with pytest.raises(DataError, match="`stored:quiz/good` holds no answers to these questions"):
            run_duel(Responder("live", engine), "stored:quiz/good", other, stop_early=stop_early)
    assert engine.asked == []


def test_likelihoods_are_kept_too() -> None:
    suite = quiz(8, "choice", choices=("no", "yes"))
    first = run_suite(Responder("likes", Likes()), suite)
    again = run_suite("stored:quiz/likes", suite)
    assert again.side.score == first.side.score == 1.0


@pytest.mark.parametrize(("look_up", "most"), [("choice_scores", 1), ("answer", 2)])
def test_what_is_kept_is_looked_up_once_and_what_is_written_once_more_where_it_is_taken(
    look_up: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = quiz(40, "choice", choices=("yes", "no")) if look_up == "choice_scores" else quiz(40)
    if look_up == "choice_scores":
        for name in ("good", "bad"):
            engine = Likes()
            engine.digest = name
            run_suite(Responder(name, engine), suite)
    else:
        for model in (knowing("good", 30), knowing("bad", 25)):
            run_suite(model, suite)
    asked = Counter[object]()
    plain = getattr(AnswerStore, look_up)

    def counted(store: AnswerStore, digest: str, request: Request, *choices: Sequence[str]) -> object:
        asked[digest, request] += 1
        return plain(store, digest, request, *choices)

    monkeypatch.setattr(AnswerStore, look_up, counted)
    shown: list[tuple[int, int]] = []
    settings = RunSettings(concurrency=4, progress=lambda _model, done, total: shown.append((done, total)))
    run_duel("stored:quiz/good", "stored:quiz/bad", suite, settings)
    assert (len(asked), max(asked.values()), shown[0]) == (80, most, (0, 40))


def test_what_was_asked_of_a_model_is_still_known_as_its_own() -> None:
    run_suite(knowing("good", 5), quiz(10))
    run_suite("stored:quiz/good", quiz(10))
    with AnswerStore() as store:
        assert {kept.outcome.model for kept in store.outcomes()} == {"good"}


def test_grades_of_kept_answers_do_not_replace_the_models_own_record() -> None:
    suite = quiz(6, "judge", name="open")
    for model in (knowing("good", 6), "stored:open/good"):
        run_graded(model, suite, Responder("judge", Grades()))
    with AnswerStore() as store:
        assert {kept.outcome.model for kept in store.outcomes()} == {"good"}


def test_judge_is_shown_kept_answers() -> None:
    suite = quiz(6, "judge", name="open")
    judge = Responder("judge", Likes())
    first = run_judged_duel(knowing("good", 6), knowing("bad", 0), suite, judge).verdict
    again = run_judged_duel("stored:open/good", "stored:open/bad", suite, judge).verdict
    assert (again.wins, again.ties, again.losses, again.num_examples) == (first.wins, first.ties, first.losses, 6)


def reworded(suite: Suite, name: str = "other") -> Suite:
    """The same examples, asked in other words."""
    examples = tuple(
        dataclasses.replace(e, messages=(Message(role="user", content=f"And {e.messages[0].content}"),)) for e in suite.examples
    )
    return dataclasses.replace(suite, name=name, examples=examples, sha256=f"{suite.sha256}, reworded")


def versed(name: str, right: int, other_right: int) -> Responder:
    """Answers the first `right` questions with "yes", and in other words the first `other_right`."""
    plain = {f"question {at}": "yes" if at < right else "no" for at in range(40)}
    return Responder(name, FakeEngine(answers=plain | {f"And question {at}": "yes" if at < other_right else "no" for at in range(40)}))


@pytest.mark.parametrize("stop_early", [False, True])
def test_two_wordings_of_the_same_questions_are_compared_on_one_model(stop_early: bool) -> None:
    model = versed("m", 30, 5)
    run_suite(model, quiz(40))
    for _ in range(2):  # the second time, the model has answered the other words too
        verdict = run_duel("stored:quiz/m", model, reworded(quiz(40)), RunSettings(concurrency=40), stop_early=stop_early).verdict
        assert (verdict.left.score, verdict.right.score, verdict.wins, verdict.winner) == (0.75, 0.125, 25, "left")
        assert "40 of 40 questions were asked in other words in `quiz`: answers are paired by id" in verdict.notes
        assert f"`stored:quiz/m` and `m` are one model: both have the digest `{model.digest[:16]}`" in verdict.notes
    again = run_duel("stored:other/m", "stored:quiz/m", reworded(quiz(40)), stop_early=stop_early).verdict
    assert (again.left.score, again.right.score) == (0.125, 0.75)


def test_answers_to_other_words_are_held_against_the_targets_of_now_and_ids_that_are_not_there_are_left_out() -> None:
    run_suite(versed("m", 3, 0), quiz(10))
    said = run_suite("stored:quiz/m", reworded(quiz(20, target="no")))
    assert [outcome.score for outcome in said.outcomes] == [0.0] * 3 + [1.0] * 7
    assert "`stored:quiz/m` is not asked: it has answered 10 of 20 of these questions before, and those answers are used" in said.notes


def test_choices_in_other_words_are_taken_by_what_they_say() -> None:
    class Last(Likes):
        """Finds the last choice likeliest."""

        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            return [ContinuationScore(log_probability=float(at), num_tokens=1) for at in range(len(continuations))]

    run_suite(Responder("last", Last()), quiz(4, "choice", choices=("no", "yes")))
    now = reworded(quiz(4, "choice", choices=("yes", "no")))
    said = run_suite("stored:quiz/last", now)
    assert ({outcome.answer for outcome in said.outcomes}, said.side.score, said.likelihoods) == ({"yes"}, 1.0, {})
    same = run_suite("stored:quiz/last", reworded(quiz(4, "choice", choices=("no", "yes")), "third"))
    assert ({outcome.answer for outcome in same.outcomes}, len(same.likelihoods)) == ({"yes"}, 4)


def test_answers_to_another_suite_are_never_those_to_the_one_that_is_asked() -> None:
    for suite in (quiz(8), dataclasses.replace(reworded(quiz(8), "far"), examples=quiz(12).examples[8:])):
        run_suite(knowing("good", 5), suite)
    with pytest.raises(DataError) as caught:
        run_suite("stored:far/good", quiz(8))
    assert (caught.value.message, caught.value.hint) == (
        "`good` answered 4 examples of `far`, and none has the id of one of the 8 examples of `quiz`: answers are paired by id",
        "name answers to `quiz`, or give the same questions the same ids in both",
    )


def shifted(suite: Suite, name: str) -> Suite:
    """One question more at the beginning: where ids are numbers of rows, each other one gets the next one's."""
    first = dataclasses.replace(suite.examples[0], messages=(Message(role="user", content="a new one"),))
    moved = [dataclasses.replace(e, id=str(at)) for at, e in enumerate((first, *suite.examples))]
    return dataclasses.replace(suite, name=name, examples=tuple(moved), sha256=f"{suite.sha256}, shifted")


@pytest.mark.parametrize("name", ["quiz", "other"])
def test_rows_whose_numbers_are_others_now_keep_their_answers(name: str) -> None:
    run_suite(knowing("m", range(0, 10, 2)), quiz(10))
    suite = shifted(quiz(10), name)
    said = run_suite("stored:quiz/m", suite)
    assert [(one.example_id, one.score) for one in said.outcomes] == [(str(at + 1), float(at % 2 == 0)) for at in range(10)]
    assert not any("other words" in note for note in said.notes)


def test_rows_that_are_others_now_and_in_other_words_are_told_by_their_targets() -> None:
    suite = quiz(10)
    examples = tuple(dataclasses.replace(e, target="yes" if at % 2 else "no") for at, e in enumerate(suite.examples))
    suite = dataclasses.replace(suite, examples=examples)
    run_suite(versed("m", 10, 0), suite)
    same = run_suite("stored:quiz/m", reworded(suite))
    assert same.partial == "" and not any("right answers" in note for note in same.notes)
    moved = run_suite("stored:quiz/m", reworded(shifted(suite, "other")))
    why = "9 of 10 answers are paired by an id whose question had other right answers in `quiz`: it may be another question"
    assert (moved.partial, moved.tells_little, moved.notes.count(f"PARTIAL: {why}")) == (why, why, 1) and why not in moved.notes


def test_some_right_answers_that_were_corrected_are_told_and_leave_a_winner() -> None:
    run_suite(versed("m", 40, 0), quiz(40))
    suite = reworded(quiz(40))
    corrected = tuple(dataclasses.replace(e, target="no") if int(e.id) < 3 else e for e in suite.examples)
    verdict = run_duel(
        "stored:quiz/m", versed("other", 0, 0), dataclasses.replace(suite, examples=corrected), stop_early=False
    ).verdict
    why = "3 of 40 answers are paired by an id whose question had other right answers in `quiz`: it may be another question"
    assert (verdict.winner, verdict.partial) == ("left", "") and why in verdict.notes


def test_same_questions_under_no_common_id_are_paired_by_their_words() -> None:
    run_suite(knowing("m", 3), quiz(10))
    far = dataclasses.replace(quiz(10), examples=tuple(dataclasses.replace(e, id=f"far {e.id}") for e in quiz(10).examples))
    assert run_suite("stored:quiz/m", dataclasses.replace(far, name="far", sha256="far")).side.score == 0.3


@pytest.mark.parametrize(("before", "now"), [({"max_new_tokens": 1}, {"max_new_tokens": 8}), ({"stop": (".",)}, {"stop": ("!",)})])
def test_answers_within_another_limit_are_those_of_then_though_those_of_now_are_kept(
    before: dict[str, object], now: dict[str, object]
) -> None:
    """As where CI has asked both versions of a suite, and a sha256 tells them not apart."""
    model = Responder("m", FakeEngine(answers={f"question {at}": "yes it is" for at in range(4)}))
    old, new = (dataclasses.replace(quiz(4), **settings) for settings in (before, now))
    run_suite(model, dataclasses.replace(new, name="new"))
    run_suite(model, old)
    said = run_suite("stored:quiz/m", dataclasses.replace(new, name="new"))
    assert {outcome.answer for outcome in said.outcomes} == {"yes" if "max_new_tokens" in before else "yes it is"}
    assert "4 of 4 questions had another limit of new tokens, or other stops, in `quiz`" in said.notes


class Writes(FakeEngine):
    """Writes the letter of `red`."""

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError("no likelihoods", hint="")

    def _words(self, request: Request) -> Generator[Chunk]:
        letter = next(line[0] for line in request.messages[-1].content.splitlines() if line.endswith(". red"))
        yield Chunk(text=letter)
        yield Chunk(
            text="", finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0),
        )  # fmt: skip


def test_letter_that_stood_for_another_choice_is_no_answer() -> None:
    suite = quiz(8, "choice", choices=("red", "green", "blue"), target="red")
    run_suite(Responder("m", Writes()), suite)
    assert run_suite("stored:quiz/m", reworded(suite)).side.score == 1.0
    turned = tuple(dataclasses.replace(e, choices=("blue", "green", "red")) for e in suite.examples)
    with pytest.raises(DataError, match="holds no answers to these questions"):
        run_suite("stored:quiz/m", reworded(dataclasses.replace(suite, examples=turned)))


def test_letter_that_stood_for_another_choice_of_two_lines_is_no_answer() -> None:
    suite = quiz(8, "choice", choices=("a\nfine. red", "a\ngreen", "a\nblue"), target="a\nfine. red")
    run_suite(Responder("m", Writes()), suite)
    turned = tuple(dataclasses.replace(e, choices=e.choices[::-1]) for e in suite.examples)
    with pytest.raises(DataError, match="holds no answers to these questions"):
        run_suite("stored:quiz/m", reworded(dataclasses.replace(suite, examples=turned)))


def test_choice_that_is_written_otherwise_keeps_its_letter() -> None:
    suite = quiz(8, "choice", choices=("red", "green", "blue"), target="red")
    run_suite(Responder("m", Writes()), suite)
    mended = tuple(dataclasses.replace(e, choices=("red", "green", "light blue")) for e in suite.examples)
    assert run_suite("stored:quiz/m", dataclasses.replace(suite, examples=mended, sha256="mended")).side.score == 1.0


@pytest.mark.parametrize("now", [("Red", "Green", "Blue", "Grey"), ("Red", "Green"), ("Blue", "Green", "Red")])
def test_letters_of_more_or_fewer_choices_or_of_others_in_other_case_are_no_answers(now: tuple[str, ...]) -> None:
    run_suite(Responder("m", Writes()), quiz(8, "choice", choices=("red", "green", "blue"), target="red"))
    with pytest.raises(DataError, match="holds no answers to these questions"):
        run_suite("stored:quiz/m", reworded(quiz(8, "choice", choices=now, target="Red")))


def test_letters_of_rows_whose_numbers_are_others_now_mean_what_they_meant() -> None:
    suite = quiz(8, "choice", choices=("red", "green", "blue"), target="red")
    run_suite(Responder("m", Writes()), suite)
    said = run_suite("stored:quiz/m", shifted(suite, "other"))
    assert [(one.example_id, one.score) for one in said.outcomes] == [(str(at + 1), 1.0) for at in range(8)]
    assert not any("other words" in note for note in said.notes)


def talks(name: str, *, first: str = "Hello", moved: int = 0) -> Suite:
    """Four conversations of two turns; a number in `first` is that of the conversation. Ids are numbers of rows."""
    turns = [
        Example(
            id=str(2 * at + turn + moved), messages=(Message(role="user", content=(first.format(at), f"question {at}")[turn]),),
            target="yes", follows=str(2 * at + moved) if turn else "",
        )
        for at in range(4) for turn in range(2)
    ]  # fmt: skip
    return dataclasses.replace(quiz(1), name=name, examples=tuple(turns), sha256=f"{name} {moved}")


def test_turns_behind_equal_beginnings_are_kept_in_another_suite() -> None:
    run_suite(knowing("m", 4), talks("talks"))
    suite = talks("other")
    last = dataclasses.replace(suite.examples[-1], messages=(Message(role="user", content="question 3, please"),))
    said = run_suite("stored:talks/m", dataclasses.replace(suite, examples=(*suite.examples[:-1], last)))
    assert [one.score for one in said.outcomes] == [0.0, 1.0] * 4
    assert "1 of 8 questions were asked in other words in `talks`: answers are paired by id" in said.notes


def test_conversations_whose_rows_have_other_numbers_now_are_kept_whole() -> None:
    run_suite(knowing("m", 4), talks("talks", first="Hello {}"))
    said = run_suite("stored:talks/m", talks("other", first="Hello {}", moved=2))
    assert [one.score for one in said.outcomes] == [0.0, 1.0] * 4
    assert not any("other words" in note for note in said.notes)


@pytest.mark.parametrize("name", ["talks", "other"])
def test_turns_behind_equal_beginnings_go_by_all_that_was_said_whatever_their_numbers(name: str) -> None:
    """The first conversation is a new one, which begins as the others do."""
    run_suite(knowing("m", 2), talks("talks"))
    suite = talks(name, moved=2)
    new = [
        dataclasses.replace(e, id=str(at), messages=(Message(role="user", content=text),), follows="0" if at else "")
        for at, (e, text) in enumerate(zip(suite.examples[:2], ("Hello", "new"), strict=True))
    ]
    said = run_suite("stored:talks/m", dataclasses.replace(suite, examples=(*new, *suite.examples)))
    assert [one.score for one in said.outcomes if one.example_id in ("3", "5", "7", "9")] == [1.0, 1.0, 0.0, 0.0]
    assert "1" not in [one.example_id for one in said.outcomes]
    assert not any("other words" in note for note in said.notes)


def test_moved_conversations_are_kept_whole_with_another_limit() -> None:
    run_suite(knowing("m", 4), talks("talks", first="Hello {}"))
    suite = dataclasses.replace(talks("other", first="Hello {}", moved=2), max_new_tokens=77)
    assert len(run_suite("stored:talks/m", suite).outcomes) == 8


@pytest.mark.parametrize("limit", [None, 30])
def test_new_rows_are_not_paired_by_their_numbers_whichever_are_drawn(limit: int | None) -> None:
    run_suite(knowing("m", 30), quiz(30))
    suite = quiz(30)
    for _ in range(30):
        suite = shifted(suite, "other")
    examples = tuple(dataclasses.replace(e, messages=(Message(role="user", content=f"new {e.id}"),)) for e in suite.examples[:30])
    suite = dataclasses.replace(suite, examples=(*examples, *suite.examples[30:]))
    said = run_suite("stored:quiz/m", suite, RunSettings(limit=limit))
    assert said.outcomes and all(int(one.example_id) >= 30 for one in said.outcomes)


def test_equal_questions_of_which_one_has_other_words_now_are_paired_by_id() -> None:
    suite = quiz(6)
    twice = tuple(dataclasses.replace(e, messages=suite.examples[at // 2].messages) for at, e in enumerate(suite.examples))
    suite = dataclasses.replace(suite, examples=twice)
    run_suite(knowing("m", 6), suite)
    mixed = tuple(new if at % 2 else e for at, (e, new) in enumerate(zip(twice, reworded(suite).examples, strict=True)))
    assert len(run_suite("stored:quiz/m", dataclasses.replace(reworded(suite), examples=mixed)).outcomes) == 6


@pytest.mark.parametrize(
    "now", [{"target": "YES."}, {"target": " yes\u200a"}, {"other_targets": ("yep",)}, {"target": "yep", "other_targets": ("yes",)}]
)
def test_right_answers_that_are_written_otherwise_or_are_more_are_no_other_ones(now: dict[str, str]) -> None:
    run_suite(knowing("m", 8), quiz(8))
    suite = reworded(quiz(8))
    said = run_suite(
        "stored:quiz/m", dataclasses.replace(suite, examples=tuple(dataclasses.replace(e, **now) for e in suite.examples))
    )
    assert (said.partial, said.side.score) == ("", 1.0)
    assert not any("right answers" in note for note in said.notes)


def test_patterns_that_a_judge_is_not_shown_are_no_other_right_answers() -> None:
    suite = quiz(8, "regex", max_new_tokens=512)
    for _ in range(2):
        run_graded(knowing("m", 8), suite, Responder("judge", Grades()))
        run_suite(knowing("m", 8), suite)
    assert run_graded("stored:quiz/m", reworded(suite), Responder("judge", Grades())).partial == ""


def test_likelihoods_of_choices_in_another_order_are_not_told_as_those_of_now() -> None:
    run_suite(Responder("m", Likes()), quiz(4, "choice", choices=("yes", "no", "maybe")))
    said = run_suite("stored:quiz/m", reworded(quiz(4, "choice", choices=("yes", "maybe", "no"))))
    assert (said.side.score, said.likelihoods) == (1.0, {})


def test_outcomes_of_a_suite_whose_name_has_a_slash_are_found_by_their_model() -> None:
    run_suite(knowing("m", 2), quiz(4, name="team/quiz"))
    with AnswerStore() as store:
        assert len(store.outcomes(model="m")) == 4


def test_version_of_a_suite_is_named_by_its_digest() -> None:
    """Both are called `quiz`; its name means the one that is asked."""
    model, first, second = versed("m", 8, 2), quiz(8), reworded(quiz(8), "quiz")
    run_suite(model, first)
    assert run_suite("stored:quiz/m", second).side.score == 1.0
    run_suite(model, second)
    said = run_suite("stored:quiz/m", second)
    assert said.side.score == 0.25
    (note,) = [note for note in said.notes if "in other words, too" in note]
    assert note.startswith("`m` was asked `quiz` in other words, too: those answers are `stored:exact8/m` (")
    longer = dataclasses.replace(first, sha256="0123456789abcdef")
    run_suite(model, longer)
    assert run_suite("stored:01234567/m", second).side.score == 1.0


def test_another_name_of_the_same_weights_takes_no_name_away() -> None:
    engine = FakeEngine(answers=ALL_KNOWN)
    for name in ("./base.gguf", "small"):
        run_suite(Responder(name, engine), quiz(6))
        run_suite(Responder(name, engine), dataclasses.replace(quiz(6), name="quiz-2"))
    for ref in ("stored:quiz/./base.gguf", "stored:quiz/small", "stored:quiz-2/./base.gguf"):
        assert run_suite(ref, quiz(6)).side.score == 1.0
    with AnswerStore() as store:
        assert len(store.outcomes(model="./base.gguf")) == len(store.outcomes(model="small")) == 6


def test_file_that_was_replaced_is_told_and_its_old_answers_are_named_by_digest() -> None:
    old, new = knowing("./cand.gguf", 2), knowing("./cand.gguf", 4)
    for model in (old, new, Responder("base", old.engine)):
        run_suite(model, quiz(8))
    said = run_suite("stored:quiz/./cand.gguf", quiz(8))
    assert said.side.score == 0.5
    (note,) = [note for note in said.notes if "not always the same weights" in note]
    assert f"those of `{new.digest[:16]}` (" in note and f"others are `stored:quiz/{old.digest[:16]}` (" in note
    assert run_suite(f"stored:quiz/{old.digest[:16]}", quiz(8)).side.score == 0.25


def test_judge_is_shown_kept_answers_to_other_words() -> None:
    suite = quiz(6, "judge", name="open")
    model, judge = versed("m", 6, 0), Responder("judge", Likes())
    run_graded(model, suite, Responder("grades", Grades()))
    verdict = run_judged_duel("stored:open/m", model, reworded(suite), judge).verdict
    assert verdict.num_examples == 6 and any("6 of 6 questions were asked in other words in `open`" in note for note in verdict.notes)


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
    with pytest.raises(DataError) as nothing:
        run_suite("stored:quiz/good", other)
    assert (nothing.value.message, nothing.value.hint) == (
        "`stored:quiz/good` holds no answers to these questions",
        "name the --limit, --seed, --max-tokens and --reasoning-effort (in Python: `limit`, `seed`, `max_new_tokens`, "
        "`reasoning_effort`), the same --judge or none, and of a "
        "table, whose labels depend on them, the same models together, that they were asked with",
    )


@pytest.mark.parametrize(
    ("ref", "expected"), [("good", False), ("stored:quiz/good", True), ("stored:quiz", False), ("stored:", False)]
)
def test_kept_answers_are_told_from_models(ref: str, expected: bool) -> None:
    assert is_kept(ref) == expected
