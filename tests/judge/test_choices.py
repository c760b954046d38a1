"""Choices of a model that gives no likelihoods, and questions that follow an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import pytest
from scripted import Asked

from nomoat.engine.fake import FakeEngine
from nomoat.errors import UnsupportedError
from nomoat.judge import choices
from nomoat.judge.duel import run_duel
from nomoat.judge.examples import asked
from nomoat.judge.run import drawn, run_suite
from nomoat.judge.suite import Suite
from nomoat.judge.table import run_table
from nomoat.judge.verdict import Rules
from nomoat.judge.wording import render_ahead, several_sentence
from nomoat.records import Chunk, ContinuationScore, Example, Request
from nomoat.responder import Responder

CITIES = ("Paris", "Rome", "Seoul")


class ChatOnly(FakeEngine):
    """Gives no likelihoods, keeps what it is asked, and answers a question by the letter that stands before the right city."""

    def __init__(self, right: str) -> None:
        super().__init__(answers={right: right})  # another digest for another city
        self.right = right
        self.asked: list[str] = []

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError("no likelihoods")

    def generate(self, request: Request) -> Iterator[Chunk]:
        text = request.messages[-1].content
        self.asked.append(text)
        letter = next(line[0] for line in text.splitlines() if line.endswith(f". {self.right}"))
        for chunk in super().generate(request):
            yield Chunk(text=f"{letter}." if chunk.text else "", finish_reason=chunk.finish_reason, usage=chunk.usage)


class Writing(FakeEngine):
    """Gives no likelihoods, and writes what it is told to: its answers are in turn these."""

    def __init__(self, *answers: str) -> None:
        super().__init__(answers={f"q{at}: spam or ham?": answer for at, answer in enumerate(answers)})

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError("no likelihoods")


def spam_or_ham(num_examples: int) -> Suite:
    examples = tuple(
        Example(id=str(at), messages=asked(f"q{at}: spam or ham?"), target="ham", choices=("ham", "spam"))
        for at in range(num_examples)
    )
    return Suite(name="spam", metric="choice", examples=examples, sha256="s")


@pytest.mark.parametrize("stop_early", [True, False])
def test_no_winner_is_named_over_answers_that_are_read_as_no_choice(stop_early: bool) -> None:
    right, unread = Responder("l", Writing(*["ham"] * 40)), Responder("r", Writing(*["It is ham, I think"] * 40))
    said = " answers of `r` are read as none of the choices"
    verdict = run_duel(right, unread, spam_or_ham(40), stop_early=stop_early).verdict
    assert (verdict.winner, verdict.partial.partition(" answers")[1:]) == ("undecided", (" answers", said.removeprefix(" answers")))
    assert verdict.sentence.startswith("No winner is named on `spam` after ")
    assert any(note == f"PARTIAL: {verdict.partial}" for note in verdict.notes)
    assert not any("was not needed" in note for note in verdict.notes)
    assert run_suite(unread, spam_or_ham(40)).partial == f"40 of 40{said}"


def test_no_winner_is_named_where_the_answers_that_are_no_choice_could_turn_it() -> None:
    """28 of 40 are right; the loser has 12 wrong, or 12 that nobody can read: these may be right."""
    left = Responder("l", Writing(*["ham"] * 40))
    for other, winner in (("spam", "left"), ("Hm.", "undecided")):
        right = Responder("r", Writing(*["ham"] * 28, *[other] * 12))
        verdict = run_duel(left, right, spam_or_ham(40), stop_early=False).verdict
        assert verdict.winner == winner
        if winner == "undecided":
            assert verdict.partial == "12 of 40 answers of `r` are read as none of the choices, enough to turn the verdict"
            assert any(note == f"PARTIAL: {verdict.partial}" for note in verdict.notes)
    wrong = Responder("r", Writing(*["ham"] * 10, *["spam"] * 26, *["Hm."] * 4))
    assert run_duel(left, wrong, spam_or_ham(40), stop_early=False).verdict.winner == "left"


def test_answers_that_are_no_choice_because_they_were_cut_off_are_told_as_such() -> None:
    """The limit is 64: half of the side is right, and what the rest would have come to is not known."""
    suite = dataclasses.replace(spam_or_ham(40), max_new_tokens=64)
    left, long = Responder("l", Writing(*["ham"] * 40)), "Let me see what this text says. " * 40
    cut = "most of them were cut off within the limit of 64 new tokens"
    verdict = run_duel(left, Responder("r", Writing(*["ham"] * 20, *[long] * 20)), suite, stop_early=False).verdict
    assert verdict.why_none == f"20 of 40 answers of `r` are read as none of the choices, enough to turn the verdict: {cut}"
    assert run_suite(Responder("r", Writing(*["Hm."] * 20, *[long] * 20)), suite).partial.endswith("none of the choices")
    assert run_suite(Responder("r", Writing(*["Hm."] * 19, *[long] * 21)), suite).partial.endswith(f"none of the choices: {cut}")


def test_a_duel_that_stopped_says_that_its_scores_would_do_and_over_several_suites_that_no_winner_is_named() -> None:
    sides = Responder("l", Writing(*["ham"] * 400)), Responder("r", Writing(*(["ham", "Hm.", "ham"] * 134)[:400]))
    verdict = run_duel(*sides, spam_or_ham(400)).verdict
    assert verdict.num_examples < 400 and verdict.why_none.endswith("enough to turn the verdict")
    said = "the rest was not asked, for the scores would do for a verdict, though the answers tell too little"
    assert verdict.notes[-1].endswith(f"; the intervals hold whenever one stops: {said}")
    both = [verdict, dataclasses.replace(verdict, why_none="")]
    assert [render_ahead(each) for each in both] == ["no winner named", "too close to call"]
    assert several_sentence(both).endswith("; too close to call on 1; no winner named on 1.")


def test_sides_are_not_called_equal_where_the_answers_that_are_no_choice_could_bring_them_apart() -> None:
    """Both have 350 of 400 right. 50 more would be 12.5 points, and 20 more 5, which the rope of 6 holds."""
    left = Responder("l", Writing(*["ham"] * 350, *["spam"] * 50))
    for num_unread, winner in ((50, "undecided"), (20, "equal")):
        right = Responder("r", Writing(*["ham"] * 350, *["spam"] * (50 - num_unread), *["Hm."] * num_unread))
        for sides in ((left, right), (right, left)):
            verdict = run_duel(*sides, spam_or_ham(400), stop_early=False, rules=Rules(rope=6)).verdict
            assert verdict.winner == winner
            said = "50 of 400 answers of `r` are read as none of the choices, enough to turn the verdict"
            assert verdict.partial == ("" if winner == "equal" else said)


def test_a_table_names_no_leader_where_a_duel_would_name_no_winner() -> None:
    """Of answers that nobody can read none may be led, nor where so many of them are that they could turn it."""
    left, wrong = Responder("l", Writing(*["ham"] * 40)), Responder("w", Writing(*["spam"] * 40))
    for others, why in (
        (["Hm."] * 40, "40 of 40 answers of `r` are read as none of the choices"),
        (["ham"] * 28 + ["Hm."] * 12, "12 of 40 answers of `r` are read as none of the choices, enough to turn the verdict"),
    ):
        found = run_table([left, wrong, Responder("r", Writing(*others))], spam_or_ham(40))
        assert found.leaderboard.sentence == "`l` leads 1 other model on `spam`, 40 items; too close to call between it and `r`."
        assert set(found.partials) == {why} and found.leaderboard.notes.count(f"PARTIAL: {why}") == 1
        assert found.leaderboard.partial == why
    read = run_table([left, wrong], spam_or_ham(40))
    assert (read.partials, read.leaderboard.sentence) == ((), "`l` leads 1 other model on `spam`, 40 items.")


def cities(num_examples: int) -> Suite:
    examples = tuple(
        Example(id=str(at), messages=asked(f"Question {at}: which city?"), target="Rome", choices=CITIES) for at in range(num_examples)
    )
    return Suite(name="cities", metric="choice", examples=examples, sha256="c", chat=False, delimiter=" ")


def test_choices_are_asked_for_by_letter_and_no_letter_is_always_right() -> None:
    engine = ChatOnly("Rome")
    evaluation = run_suite(Responder("m", engine), cities(30))
    assert evaluation.side.score == 1.0
    assert engine.asked[0].startswith("Question 0: which city?\n\nA. ")
    assert engine.asked[0].endswith("\n\nAnswer with the letter of the right choice only.")
    assert {outcome.answer[0] for outcome in evaluation.outcomes} == {"A", "B", "C"}
    assert evaluation.notes == ("`m` gives no likelihoods: it wrote a letter",)
    assert run_suite(Responder("n", ChatOnly("Paris")), cities(30)).side.score == 0.0


def test_a_question_that_names_its_choices_is_asked_as_it_is() -> None:
    example = Example(id="1", messages=asked("spam or ham?"), target="ham", choices=("ham", "spam"))
    assert not choices.by_letter(Suite(name="s", metric="choice", examples=(example,), sha256="s"))
    assert choices.written_question(example, lettered=False) == example.messages
    assert choices.written_choice(example, "Ham.", lettered=False) == "ham"
    assert choices.written_choice(example, "B", lettered=False) is None
    assert choices.written_choice(example, "The answer is ham.", lettered=False) == "ham"


def test_a_sentence_about_a_letter_is_the_letter_even_where_a_choice_is_called_so() -> None:
    groups = Example(id="0", messages=asked("Which blood group?"), target="B", choices=("O", "A", "B", "AB"))
    assert "\nB. O\n" in choices.written_question(groups, lettered=True)[-1].content
    assert choices.written_choice(groups, "The answer is B.", lettered=True) == "O"
    assert choices.written_choice(groups, "B", lettered=True) == "B"
    assert choices.written_choice(groups, "<think>A, B or C?</think> The answer is B.", lettered=True) == "O"
    assert choices.written_choice(groups, "정답은 AB입니다.", lettered=True) == "AB"


def test_how_choices_are_asked_for_is_decided_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deciding looks at every example: for each of them anew, 50,000 rows took half an hour."""
    decided = 0
    by_letter = choices.by_letter

    def counting(suite: Suite) -> bool:
        nonlocal decided
        decided += 1
        return by_letter(suite)

    monkeypatch.setattr(choices, "by_letter", counting)
    run_suite(Responder("m", ChatOnly("Rome")), cities(30))
    assert decided == 1
    run_suite("stored:cities/m", cities(30))
    assert decided == 2


def conversations(count: int) -> Suite:
    pairs = [
        (
            Example(id=f"{at}a", messages=asked(f"first {at}"), target="x"),
            Example(id=f"{at}b", messages=asked(f"second {at}"), target="x", follows=f"{at}a"),
        )
        for at in range(count)
    ]
    return Suite(name="turns", metric="exact", examples=tuple(example for pair in pairs for example in pair), sha256="t")


def test_a_second_turn_is_asked_after_the_models_own_first_answer() -> None:
    engine = Asked(answers={"first 0": "one", "second 0": "two"})
    evaluation = run_suite(Responder("m", engine), conversations(1))
    assert [outcome.answer for outcome in evaluation.outcomes] == ["one", "two"]
    assert [(message.role, message.content) for message in engine.asked[1].messages] == [
        ("user", "first 0"),
        ("assistant", "one"),
        ("user", "second 0"),
    ]


def test_a_drawn_suite_keeps_conversations_whole() -> None:
    suite, notes = drawn(conversations(10), 6, 0)
    assert len(suite.examples) == 6
    assert all(example.follows in {other.id for other in suite.examples} for example in suite.examples if example.follows)
    assert notes == ("6 of 20 examples, drawn with seed 0",)
