"""Evaluations and duels with engines that answer what they are told."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving import Act, Server, events, piece, priced, thinking
from quiz import knowing, quiz
from scripted import Asked

import nomoat
from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.engine.fake import FakeEngine
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.stored import StoredEngine
from nomoat.errors import DataError, UnknownModelError, UnsupportedError, UsageError
from nomoat.judge import choices, sandbox
from nomoat.judge.asking import Asking
from nomoat.judge.duel import run_duel
from nomoat.judge.groups import groups_of
from nomoat.judge.judged import run_graded, run_judged_duel, run_judged_table
from nomoat.judge.metrics import Metric
from nomoat.judge.run import Outcomes, evaluate, run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.stats import clustered_score_interval
from nomoat.judge.table import run_table
from nomoat.judge.verdict import Rules, in_common, score_interval
from nomoat.records import Chunk, Completion, ContinuationScore, Message, Outcome, Request, Usage
from nomoat.responder import Responder


class CountingEngine(FakeEngine):
    """Counts what it is asked, and fails at the `fail_at`-th time."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        super().__init__()
        self.calls = 0
        self.fail_at = fail_at

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt

    def generate(self, request: Request) -> Iterator[Chunk]:
        self._count()
        yield from super().generate(request)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        if continuations:  # else it is made ready
            self._count()
        return super().score(request, continuations)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": -1}, "`seed` is -1"),
        ({"spending": 5}, "`spending` is 5, of the type int"),
        ({"progress": None}, "`progress` is None, of the type NoneType"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
        ({"max_new_tokens": 1.5}, "`max_new_tokens` is 1.5, of the type float"),
        ({"template": 5}, "`template` is of the type int, not a text"),
        ({"template": "x"}, "no chat template is called `x`"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"(?m)^{message}$"):
        evaluate(knowing("m", 5), quiz(5), **given)


@pytest.mark.parametrize(("given", "kind"), [({"store": "x"}, "str"), ({"workers": 3}, "int")])
def test_settings_hold_no_other_store_and_no_number_of_workers(given: dict[str, Any], kind: str) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"(?m)^`{name}` is .*, of the type {kind}$"):
        RunSettings(**given)


def test_whatever_asks_a_model_takes_its_path(tmp_path: Path) -> None:
    absent, suite = tmp_path / "absent.gguf", quiz(1)
    for ask in (
        lambda: run_suite(absent, suite),
        lambda: run_duel(absent, "fake:", suite),
        lambda: run_table([absent, "fake:"], suite),
        lambda: run_graded("fake:", suite, absent),
        lambda: run_judged_duel("fake:", absent, suite, "fake:"),
        lambda: run_judged_table([absent, "fake:"], suite, "fake:"),
    ):
        with pytest.raises(UnknownModelError, match="no file at"):
            ask()


def test_an_outcome_keeps_the_answer_as_it_was_written() -> None:
    (outcome,) = run_suite(knowing("m", 0, wrong="Yes."), quiz(1)).outcomes
    assert (outcome.answer, outcome.score) == ("Yes.", 1.0)


DRAFT = '<think>No, or {"a": 2}, or 7?\n```python\nx = 2\n```\n</think>\n\n'


@pytest.mark.parametrize(
    ("metric", "target", "answer"),
    [
        ("exact", "yes", "Yes."),
        ("numeric", "4", "four, or 4"),
        ("f1", "no reason", "no reason"),
        ("char-f1", "no", "no"),
        ("rouge", "no reason", "no reason"),
        ("chrf", "no reason", "no reason"),
        ("bleu", "for no reason whatever", "for no reason whatever"),
        ("json", '{"a": 1}', '{"a": 1}'),
        ("regex", "^Yes", "Yes"),
        ("code", "{answer}\nassert x == 1", "```python\nx = 1\n```"),
    ],
)
def test_a_draft_is_no_part_of_what_is_scored_and_one_that_never_ends_is_no_answer(
    metric: Metric, target: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "")
    monkeypatch.setattr(sandbox, "run_python", lambda program, **_: sandbox.Ran(outcome="passed" if "x = 1" in program else "failed"))
    suite = dataclasses.replace(quiz(1, target=target), metric=metric)
    for written, score in ((f"{DRAFT}{answer}", 1.0), (f"<think>{answer}", 0.0)):
        evaluation = run_suite(knowing("m", 0, wrong=written), suite)
        (outcome,) = evaluation.outcomes
        assert (outcome.answer, outcome.score) == (written, pytest.approx(score))
        if metric in ("chrf", "bleu"):
            assert f"{100 * score:.1f} (" in evaluation.notes[-1]


def test_an_example_that_follows_another_is_asked_without_the_draft_before_it() -> None:
    suite = quiz(2)
    turns = (suite.examples[0], dataclasses.replace(suite.examples[1], follows="0"))
    engine = Asked(answers={"question 0": "<think>hm</think>\n\nyes"})
    run_suite(Responder("m", engine), dataclasses.replace(suite, examples=turns))
    assert engine.conversations[-1] == ["question 0", "yes", "question 1"]


def test_an_example_that_follows_an_empty_answer_is_asked_behind_a_sign_for_it() -> None:
    """Some servers refuse an empty message."""
    suite = quiz(2)
    turns = (suite.examples[0], dataclasses.replace(suite.examples[1], follows="0"))
    for nothing in ("", "<think>never ended"):
        engine = Asked(answers={"question 0": nothing})
        run_suite(Responder("m", engine), dataclasses.replace(suite, examples=turns))
        assert engine.conversations[-1] == ["question 0", "…", "question 1"]


def test_exact_suite_scores_each_written_answer() -> None:
    outcomes = nomoat.evaluate(knowing("m", 2), quiz(3))
    assert outcomes[0] == Outcome(
        suite="quiz", example_id="0", model="m", answer="yes", score=1.0, prompt_tokens=2, completion_tokens=1, cost_usd=0.0
    )
    assert [(outcome.example_id, outcome.score) for outcome in outcomes] == [("0", 1.0), ("1", 1.0), ("2", 0.0)]


def test_outcomes_have_the_notes_of_their_evaluation_and_say_why_they_are_partial() -> None:
    found = run_suite(knowing("m", 5), quiz(50), RunSettings(limit=10))
    outcomes = evaluate(knowing("m", 5), quiz(50), limit=10)
    assert isinstance(outcomes, list) and (tuple(outcomes), outcomes.notes) == (found.outcomes, found.notes) and found.notes
    assert outcomes.partial == ""
    for same in (copy.copy(outcomes), pickle.loads(pickle.dumps(outcomes))):
        assert (same, same.notes, same.partial) == (outcomes, outcomes.notes, "")


def test_a_suite_and_its_evaluation_are_shown_without_each_example() -> None:
    duel = run_duel(knowing("m", 200), knowing("n", 0), quiz(200, "choice", choices=("no", "yes")), stop_early=False)
    for shown in (duel.left.suite, duel.left, duel, duel.verdict, duel.verdict.left):
        assert "question 7" not in repr(shown) and len(repr(shown)) < 1500, len(repr(shown))


def test_outcomes_are_shown_in_a_line_without_each_of_them() -> None:
    outcomes = nomoat.evaluate(knowing("m", 150), quiz(200))
    assert repr(outcomes) == "<Outcomes: 200 of m on quiz, mean score 0.75>"
    assert repr(Outcomes(outcomes, partial="why")) == "<Outcomes: 200 of m on quiz, mean score 0.75, partial: why>"
    assert repr(Outcomes()) == "<Outcomes: 0>"


def test_what_is_no_model_or_no_number_is_refused_before_anything_is_asked() -> None:
    for model, settings, message in (
        (None, {}, "a model is named by a text or a path, and this is of the type NoneType"),
        ("fake:", {"limit": "5"}, "`limit` is '5', of the type str"),
        ("fake:", {"concurrency": 2.0}, "`concurrency` is 2.0, of the type float"),
        ("fake:", {"seed": None}, "`seed` is None, of the type NoneType"),
    ):
        with pytest.raises(UsageError) as caught:
            nomoat.evaluate(model, quiz(1), **settings)  # type: ignore[arg-type]
        assert caught.value.message == message
    with pytest.raises(UsageError, match=r"`alpha` is '0[.]05'"):
        nomoat.duel("fake:", "fake:", quiz(1), alpha="0.05")  # type: ignore[arg-type]


def test_rows_are_asked_as_a_suite_and_found_again_as_their_file(tmp_path: Path) -> None:
    rows = [{"input": f"question {n}", "target": "yes"} for n in range(3)]
    outcomes = nomoat.evaluate(knowing("m", 2), (row for row in rows))
    assert [(outcome.suite, outcome.example_id, outcome.score) for outcome in outcomes] == [
        ("rows", "1", 1.0), ("rows", "2", 1.0), ("rows", "3", 0.0),
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    again = run_suite(knowing("m", 2), path)
    assert again.outcomes == tuple(outcomes)
    assert "3" in again.side.facts["reused answers"]
    verdict = nomoat.duel(knowing("m", 2), knowing("n", 0), iter(rows), stop_early=False)
    assert (verdict.suite, verdict.num_examples) == ("rows", 3)


def test_choice_suite_takes_the_likeliest_choice() -> None:
    suite = quiz(2, "choice", choices=("yes", "question"))
    outcomes = nomoat.evaluate(Responder("m", FakeEngine()), suite)
    assert [(outcome.answer, outcome.score) for outcome in outcomes] == [("question", 0.0)] * 2
    right = dataclasses.replace(suite, examples=tuple(dataclasses.replace(e, target="question") for e in suite.examples))
    assert [outcome.score for outcome in nomoat.evaluate(Responder("m", FakeEngine()), right)] == [1.0, 1.0]


def test_choices_normalised_by_tokens_prefer_the_long_one() -> None:
    class Fixed(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            return [ContinuationScore(log_probability=-2.0, num_tokens=1), ContinuationScore(log_probability=-3.0, num_tokens=3)]

    suite = quiz(1, "choice", choices=("no", "yes"))
    assert nomoat.evaluate(Responder("m", Fixed()), suite)[0].answer == "no"
    assert nomoat.evaluate(Responder("m", Fixed()), dataclasses.replace(suite, per_token=True))[0].answer == "yes"


def test_model_without_likelihoods_writes_its_choice_and_the_verdict_says_so() -> None:
    engine = StoredEngine({"0: yes or no?": "Yes!", "1: yes or no?": "I think yes", "2: yes or no?": "no"}, name="stored:s/m")
    suite = quiz(3, "choice", choices=("no", "yes"))
    asked = {"question 0": "0: yes or no?", "question 1": "1: yes or no?", "question 2": "2: yes or no?"}
    examples = [
        dataclasses.replace(example, messages=(Message(role="user", content=asked[example.messages[0].content]),))
        for example in suite.examples
    ]
    evaluation = run_suite(Responder("m", engine), dataclasses.replace(suite, examples=tuple(examples)))
    assert [outcome.score for outcome in evaluation.outcomes] == [1.0, 0.0, 0.0]
    assert evaluation.notes == ("`m` gives no likelihoods: it wrote its choice; 1 of 3 answers were none of them",)


def test_answers_given_before_are_read_without_letters_they_never_saw_and_cost_what_is_not_known() -> None:
    suite = quiz(3, "choice", choices=("no", "yes"))
    assert choices.by_letter(suite)
    engine = StoredEngine({"question 0": "Yes.", "question 1": "A", "question 2": "no"}, name="theirs")
    verdict = nomoat.duel(Responder("openai:gpt-4o of May", engine), "fake:", suite, stop_early=False)
    assert (verdict.left.score, verdict.left.price, verdict.left.cost_usd) == (pytest.approx(1 / 3), "answered before", None)
    assert "`openai:gpt-4o of May` gives no likelihoods: it wrote its choice; 1 of 3 answers were none of them" in verdict.notes
    again = run_suite("stored:quiz/openai:gpt-4o of May", suite)
    assert again.side.score == verdict.left.score and not any("other words" in note for note in again.notes)


def test_no_likelihoods_of_a_server_are_looked_up(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AnswerStore, "choice_scores", lambda *_: pytest.fail("a server gives none"))
    evaluation = run_suite(f"{serving(thinking('yes', 0)).url}#m", quiz(2, "choice", choices=("no", "yes")))
    assert [outcome.answer for outcome in evaluation.outcomes] == ["yes", "yes"]
    assert "gives no likelihoods" in evaluation.notes[0]


def test_a_written_choice_is_scored_as_the_notes_count_it() -> None:
    """Its draft is taken off once: what stands behind may look like another."""

    class WithoutLikelihoods(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            raise UnsupportedError("no likelihoods", hint="")

    suite = quiz(1, "choice", choices=("no", "yes"))
    question = choices.written_question(suite.examples[0], lettered=True)[-1].content
    letter = "A" if "A. yes" in question else "B"
    engine = WithoutLikelihoods(answers={question: f"<think>a</think>\n{letter}\n</think>\n"})
    evaluation = run_suite(Responder("m", engine), suite)
    assert evaluation.outcomes[0].score == 1.0
    assert evaluation.notes == ("`m` gives no likelihoods: it wrote a letter",)


@pytest.mark.parametrize("metric", ["exact", "choice"])
def test_second_run_asks_nothing_and_comes_to_the_same(metric: Metric) -> None:
    engine = CountingEngine()
    suite = quiz(5, metric, choices=("yes", "no"))
    first = run_suite(Responder("m", engine), suite)
    assert engine.calls == 5
    second = run_suite(Responder("m", engine), suite)
    assert engine.calls == 5
    assert first.outcomes == second.outcomes
    assert (first.side.facts["reused answers"], second.side.facts["reused answers"]) == ("0", "5")


def test_what_an_example_asks_is_made_once_however_often_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    usual = Asking._usual
    monkeypatch.setattr(Asking, "_usual", lambda self, example: made.append(example.id) or usual(self, example))
    suite, model = quiz(5), Responder("m", CountingEngine())
    for _ in range(2):  # the second time of kept answers
        made.clear()
        run_suite(model, suite)
        assert made == [example.id for example in suite.examples]


def test_what_follows_an_answer_that_is_another_now_is_asked_after_that_one() -> None:
    first, second = quiz(2).examples
    suite = dataclasses.replace(quiz(2), examples=(first, dataclasses.replace(second, follows=first.id)))
    with AnswerStore() as store:
        asking = Asking(model=Responder("m", FakeEngine()), suite=suite, store=store, settings=RunSettings())
        usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
        for said in ("cut", "whole"):
            asking.remember(first, Completion(text=said, finish_reason="stop", usage=usage))
            assert [message.content for message in asking.request(suite.examples[1]).messages][1] == said


@pytest.mark.parametrize("metric", ["exact", "choice"])
def test_stopped_run_goes_on_where_it_was(metric: Metric) -> None:
    suite = quiz(6, metric, choices=("yes", "no"))
    stopped = CountingEngine(fail_at=4)
    with pytest.raises(KeyboardInterrupt):
        run_suite(Responder("m", stopped), suite, RunSettings(concurrency=1))
    engine = CountingEngine()
    evaluation = run_suite(Responder("m", engine), suite, RunSettings(concurrency=1))
    assert engine.calls == 3
    assert evaluation.side.facts["reused answers"] == "3"


def test_equal_questions_are_asked_once() -> None:
    engine = CountingEngine()
    suite = quiz(2)
    twice = (*suite.examples, dataclasses.replace(suite.examples[0], id="again"))
    assert len(nomoat.evaluate(Responder("m", engine), dataclasses.replace(suite, examples=twice))) == 3
    assert engine.calls == 2


def test_an_answer_to_equal_questions_is_paid_for_and_sent_once() -> None:
    class Sending(CountingEngine):
        is_local = False

        def generate(self, request: Request) -> Iterator[Chunk]:
            for chunk in super().generate(request):
                used = None if chunk.usage is None else dataclasses.replace(chunk.usage, bytes_out=100)
                yield dataclasses.replace(chunk, usage=used)

    suite = quiz(2)
    thrice = (*suite.examples, *(dataclasses.replace(suite.examples[0], id=name) for name in ("again", "once more")))
    spending = Spending(input_usd_per_million=1e6, output_usd_per_million=0.0)
    model = Responder("openai:m", Sending())
    once, several = (
        run_suite(model, dataclasses.replace(suite, examples=examples), RunSettings(spending=spending))
        for examples in (suite.examples, thrice)
    )
    assert [outcome.same_as for outcome in several.outcomes] == ["", "", "0", "0"]
    assert (once.side.bytes_out, several.side.bytes_out) == (200, 200)
    assert once.side.cost_usd == several.side.cost_usd == 4.0  # two questions of two tokens each
    assert several.side.cost_usd_per_1000 == once.side.cost_usd_per_1000 == 2000.0
    for left in (several.outcomes[1:], several.outcomes[:1]):  # those that are left out were asked, too
        cut = in_common([several, dataclasses.replace(several, outcomes=left)])
        assert len(cut[0].outcomes) == len(left)
        assert (cut[0].side.bytes_out, cut[0].side.cost_usd) == (200, 4.0)


def test_answer_that_is_begun_counts_with_its_beginning_and_no_server_is_asked() -> None:
    begun = dataclasses.replace(quiz(2), answer_start="y")
    model = Responder("m", FakeEngine(answers={"question 0": "es", "question 1": "yes"}))
    found = run_suite(model, begun)
    assert [(outcome.answer, outcome.score) for outcome in found.outcomes] == [("es", 1.0), ("yes", 0.0)]
    with pytest.raises(UnsupportedError, match=r"`quiz` puts words into a model's mouth, and `http://\S+` is a server"):
        run_suite("http://127.0.0.1:1/v1#x", begun)


def test_code_to_be_gone_on_with_is_refused_for_who_only_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "")
    engine = CountingEngine()
    suite = dataclasses.replace(quiz(2, "code", target="{answer}"), chat=False)
    with pytest.raises(UnsupportedError) as caught:
        run_suite(Responder("openai:gpt-4o", engine), suite)
    assert caught.value.message == (
        "`quiz` lets a model go on with code, and `openai:gpt-4o` only chats: what it says is no continuation"
    )  # fmt: skip
    assert "such as `humaneval`" in (caught.value.hint or "")
    assert engine.calls == 0


def test_code_that_cannot_be_walled_off_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "missing_wall", lambda: "no namespaces here")
    engine = CountingEngine()
    suite = quiz(2, "code", target="{answer}")
    for ask in (
        lambda: run_suite(Responder("m", engine), suite),
        lambda: run_duel(Responder("m", engine), Responder("n", engine), suite),
        lambda: run_duel(Responder("m", engine), Responder("n", engine), suite, stop_early=False),
    ):
        with pytest.raises(UnsupportedError, match="this machine cannot wall them off: no namespaces here"):
            ask()
    assert engine.calls == 0


def test_outcomes_are_kept_for_the_router() -> None:
    outcomes = nomoat.evaluate(knowing("m", 1), quiz(2))
    with AnswerStore() as store:
        assert [kept.outcome for kept in store.outcomes(suite_sha256="exact2")] == outcomes


def test_limit_draws_with_the_seed_and_says_so() -> None:
    evaluation = run_suite(knowing("m", 5), quiz(50), RunSettings(limit=10, seed=3))
    again = run_suite(knowing("m", 5), quiz(50), RunSettings(limit=10, seed=3))
    other = run_suite(knowing("m", 5), quiz(50), RunSettings(limit=10, seed=4))
    ids = [int(outcome.example_id) for outcome in evaluation.outcomes]
    assert len(ids) == 10
    assert ids == sorted(ids)
    assert max(ids) > 10  # not simply the first ones
    assert evaluation.outcomes == again.outcomes
    assert ids != [int(outcome.example_id) for outcome in other.outcomes]
    assert evaluation.notes == ("10 of 50 examples, drawn with seed 3",)
    with pytest.raises(UsageError, match="the limit is 0"):
        run_suite(knowing("m", 1), quiz(1), RunSettings(limit=0))


def test_settings_may_be_numbers_of_numpys() -> None:
    given = {"limit": np.int64(10), "seed": np.uint8(3), "concurrency": np.int32(2), "max_new_tokens": np.int64(40)}
    settings, rules = RunSettings(**given), Rules(alpha=np.float32(0.25), rope=np.int64(2))
    assert [type(getattr(settings, name)) for name in given] == [int] * 4
    assert (type(rules.alpha), type(rules.rope)) == (float, float)
    plain = RunSettings(limit=10, seed=3, concurrency=2, max_new_tokens=40)
    drawn, expected = (run_suite(knowing("m", 5), quiz(50), how).suite.examples for how in (settings, plain))
    assert drawn == expected
    spending = Spending(max_cost_usd=np.float64(1), input_usd_per_million=np.int64(1), output_usd_per_million=np.float16(2))
    verdict = nomoat.duel(knowing("m", 5), knowing("n", 9), quiz(50), spending=spending, alpha=np.float32(0.25), **given)
    assert json.loads(json.dumps(dataclasses.asdict(verdict)))["alpha"] == 0.25


def test_progress_counts_every_answer() -> None:
    seen: list[tuple[str, int, int]] = []
    run_suite(knowing("m", 1), quiz(3), RunSettings(concurrency=1, progress=lambda *row: seen.append(row)))
    assert seen == [("m", 0, 3), ("m", 0, 3), ("m", 1, 3), ("m", 2, 3), ("m", 3, 3)]


def test_answers_cut_at_the_limit_are_counted() -> None:
    evaluation = run_suite(knowing("m", 1, wrong="a long answer"), quiz(3, max_new_tokens=2))
    assert evaluation.notes == (
        "2 of 3 answers of `m` ended at the limit of 2 new tokens (`--max-tokens`, in Python: `max_new_tokens`, gives more)",
    )


def test_a_model_that_thinks_first_gets_room_and_is_asked_again_only_what_was_cut_off(serving: Callable[..., Server]) -> None:
    server = serving(thinking("yes", 300))
    model = f"{server.url}#m"
    cut = run_suite(model, quiz(4))
    said = f"3 of 4 answers of `{model}` were cut off within the limit of 32 new tokens with nothing in them, or reasoning alone"
    assert (cut.side.score, cut.partial) == (0.25, said)
    assert any(note == f"PARTIAL: {said}" for note in cut.notes)
    whole = run_suite(model, quiz(4), RunSettings(max_new_tokens=2000))
    assert (whole.side.score, whole.partial, whole.notes, whole.suite.max_new_tokens) == (1.0, "", (), 2000)
    assert len(server.bodies) == 4 + 3
    assert len(evaluate(model, quiz(4), max_new_tokens=2000)) == 4
    assert nomoat.duel(model, f"stored:quiz/{model}", quiz(4), max_new_tokens=2000).ties == 4
    assert len(server.bodies) == 4 + 3
    with pytest.raises(DataError, match="holds no answers") as caught:
        run_suite(f"stored:quiz/{model}", quiz(4), RunSettings(max_new_tokens=1))
    assert caught.value.hint is not None and "--max-tokens and --reasoning-effort (in Python: `limit`" in caught.value.hint


@pytest.mark.parametrize("stop_early", [None, True, False])
def test_a_model_whose_answers_never_begin_is_not_paid_for_the_rest(serving: Callable[..., Server], stop_early: bool | None) -> None:
    """Neither in a duel that may stop early nor elsewhere, and the other side is not asked the rest either."""
    server = serving(thinking("yes", 300))
    model = f"{server.url}#m"
    suite = dataclasses.replace(quiz(41), examples=quiz(41).examples[1:])
    said = f"16 of 16 answers of `{model}` were cut off within the limit of 32 new tokens with nothing in them, or reasoning alone"
    if stop_early is None:
        found = run_suite(model, suite, RunSettings(spending=priced()))
        assert found.partial == f"{said}; 24 questions more were not asked"
    else:
        verdict = run_duel(model, knowing("n", 41), suite, RunSettings(spending=priced()), stop_early=stop_early).verdict
        assert (verdict.partial, verdict.winner) == (f"{said}; 24 questions more were not asked", "undecided")
        assert verdict.num_examples == 16
    assert len(server.bodies) == 16
    whole = run_suite(model, suite, RunSettings(spending=priced(), max_new_tokens=400))
    assert (whole.side.score, whole.partial, len(server.bodies)) == (1.0, "", 16 + 40)


@pytest.mark.parametrize("max_cost_usd", [None, 100.0])
def test_nor_is_it_for_the_rest_of_many_conversations(serving: Callable[..., Server], max_cost_usd: float | None) -> None:
    server = serving(thinking("yes", 300))
    talks = [dataclasses.replace(each, follows=str(at - 1) if at % 2 else "") for at, each in enumerate(quiz(80).examples)]
    suite = dataclasses.replace(quiz(80), examples=(*talks[2:], *talks[:2]))  # "question 0" is answered at once
    found = run_suite(f"{server.url}#m", suite, RunSettings(spending=priced(max_cost_usd), concurrency=8))
    assert found.partial.endswith("; 64 questions more were not asked")
    assert len(server.bodies) == len(found.outcomes) == 16


@pytest.mark.parametrize(
    ("template", "is_partial"), [("{{ messages[0].content }}<think>\n", True), ("{{ messages[0].content }}", False)]
)
def test_a_draft_that_the_template_began_and_that_was_cut_off_is_no_answer(tiny_gguf: Path, template: str, is_partial: bool) -> None:
    engine = FakeEngine(answers={f"question {at}": "Okay, the user asks. " * 60 for at in range(4)})
    engine.tokenizer = GGUFFile(tiny_gguf).read_tokenizer()
    engine.tokenizer.chat_template = template
    assert bool(run_suite(Responder("m", engine), quiz(4)).partial) is is_partial


def test_kept_answers_that_were_cut_off_are_left_out_and_said_so(serving: Callable[..., Server]) -> None:
    model = f"{serving(thinking('yes', 300)).url}#m"
    run_suite(model, quiz(4))
    said = f"3 of 4 kept answers of `{model}` were cut off within the limit of 32 new tokens with nothing in them, or reasoning alone"
    short = run_suite(f"stored:quiz/{model}", quiz(4))
    assert short.partial == said
    assert any(
        note.endswith("(naming the model itself, `--max-tokens`, in Python: `max_new_tokens`, gives more)") for note in short.notes
    )
    kept = run_suite(f"stored:quiz/{model}", quiz(4), RunSettings(max_new_tokens=2000))
    why = "within less room than 2,000 new tokens they were cut off, or what they follow was"
    said = f"3 of 4 kept answers of `{model}` are left out: {why}"
    assert (len(kept.outcomes), kept.side.score, kept.partial, kept.notes[0]) == (1, 1.0, said, f"PARTIAL: {said}")
    assert not any("if an earlier duel ended there" in note for note in kept.notes)
    for stop_early in (True, False):
        duel = run_duel(f"stored:quiz/{model}", knowing("n", 4), quiz(4), RunSettings(max_new_tokens=2000), stop_early=stop_early)
        assert (duel.verdict.num_examples, duel.verdict.partial) == (1, said)
    cut = dataclasses.replace(quiz(4), examples=quiz(4).examples[1:])
    with pytest.raises(DataError, match=r"3 of 3 kept answers of .* are left out") as caught:
        run_suite(f"stored:quiz/{model}", cut, RunSettings(max_new_tokens=2000))
    assert caught.value.hint == "name the model itself: what was cut off is asked again"


def test_what_follows_a_kept_answer_that_was_cut_off_is_left_out_with_it(serving: Callable[..., Server]) -> None:
    model = f"{serving(thinking('yes', 300)).url}#m"
    one, *others = quiz(4).examples
    follows = [dataclasses.replace(each, follows=str(int(each.id) - 1)) for each in others]
    suite = dataclasses.replace(quiz(4), examples=(one, *follows))
    run_suite(model, suite)
    kept = run_suite(f"stored:quiz/{model}", suite, RunSettings(max_new_tokens=2000))
    assert (len(kept.outcomes), kept.partial.split(" kept answers")[0]) == (1, "3 of 4")
    assert not any("if an earlier duel ended there" in note for note in kept.notes)


def test_an_effort_is_asked_for_and_told_and_answers_of_another_are_not_used(serving: Callable[..., Server]) -> None:
    server = serving(thinking("yes", 0))
    model = f"{server.url}#m"
    low = run_suite(model, quiz(2), RunSettings(reasoning_effort="low"))
    assert low.notes == (f"`{model}` was asked for the reasoning effort `low`",)
    assert run_suite(model, quiz(2)).notes == ()
    assert len(evaluate(model, quiz(2), reasoning_effort="low")) == 2
    verdict = nomoat.duel(model, f"stored:quiz/{model}", quiz(2), reasoning_effort="low")
    assert verdict.ties == 2
    assert [body.get("reasoning_effort") for body in server.bodies] == ["low", "low", None, None]
    with pytest.raises(UsageError, match="reasoning_effort"):
        RunSettings(reasoning_effort="lots")  # type: ignore[arg-type]


def test_what_is_no_chat_is_asked_for_no_effort(serving: Callable[..., Server]) -> None:
    server = serving(events(json.dumps({"choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}]})))
    suite = dataclasses.replace(quiz(2), chat=False)
    model = f"{server.url}#m"
    assert [outcome.answer for outcome in run_suite(model, suite, RunSettings(reasoning_effort="low")).outcomes] == ["yes", "yes"]
    assert not any("effort" in note for note in run_suite(model, suite, RunSettings(reasoning_effort="low")).notes)
    assert run_suite(model, suite).side.facts["reused answers"] == "2"
    assert sorted(body["prompt"] for body in server.bodies) == ["question 0", "question 1"]
    assert not any("reasoning_effort" in body for body in server.bodies)


def test_a_lower_limit_takes_no_answers_that_had_more_room(serving: Callable[..., Server]) -> None:
    server = serving(thinking("yes", 20))
    run_suite(f"{server.url}#m", quiz(3))
    cut = run_suite(f"{server.url}#m", quiz(3), RunSettings(max_new_tokens=16))
    assert (len(server.bodies), cut.side.score) == (6, pytest.approx(1 / 3))


@pytest.mark.parametrize("stop_early", [True, False])
def test_a_duel_gives_both_sides_the_same_room(serving: Callable[..., Server], stop_early: bool) -> None:
    models = [f"{serving(thinking('yes', hidden)).url}#m" for hidden in (300, 0)]
    verdict = nomoat.duel(*models, quiz(20), max_new_tokens=301, stop_early=stop_early, rope=50)
    assert (verdict.ties, verdict.partial) == (verdict.num_examples, "")
    assert run_duel(*models, quiz(20), stop_early=stop_early).verdict.partial.endswith("with nothing in them, or reasoning alone")


def test_likelihoods_are_the_same_whatever_room_an_answer_had() -> None:
    engine = CountingEngine()
    for limit in (None, 2000):
        run_suite(Responder("m", engine), quiz(3, "choice", choices=("yes", "no")), RunSettings(max_new_tokens=limit))
    assert engine.calls == 3


@pytest.mark.parametrize(("of_the_suite", "of_the_run"), [({}, {"max_new_tokens": 2000}), ({"max_new_tokens": 2000}, {})])
def test_room_that_a_context_does_not_have_is_told_with_what_to_lower(
    of_the_suite: dict[str, int], of_the_run: dict[str, int]
) -> None:
    """A suite of long reasoning or JSON asks for as many tokens as the longest answer has bytes."""
    with pytest.raises(DataError) as caught:
        evaluate(Responder("m", FakeEngine(context_tokens=100)), quiz(3, **of_the_suite), **of_the_run)
    assert caught.value.hint == (
        "shorten or remove the example, lower --max-tokens (in Python: `max_new_tokens`), or choose a model with a longer context"
    )


def test_answers_that_a_server_cuts_before_the_limit_are_counted_by_themselves(serving: Callable[..., Server]) -> None:
    def cut(tokens: int) -> Act:
        usage = {"prompt_tokens": 5, "completion_tokens": tokens}
        return events(piece("so", "length"), {"choices": [], "usage": usage})

    server = serving(cut(1), cut(2), cut(2))
    evaluation = run_suite(f"{server.url}#m", quiz(3, max_new_tokens=2), RunSettings(concurrency=1))
    assert evaluation.notes == (
        f"2 of 3 answers of `{server.url}#m` ended at the limit of 2 new tokens "
        "(`--max-tokens`, in Python: `max_new_tokens`, gives more)",
        f"1 of 3 answers of `{server.url}#m` were cut off by its server, which counted fewer new tokens than the limit of 2: "
        "a limit of its own, or thinking that it does not count (`--max-tokens`, in Python: `max_new_tokens`, gives more)",
    )


def test_example_that_does_not_fit_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Small(CountingEngine):
        def count_tokens(self, request: Request) -> int:
            return 5000 if request.messages[-1].content == "question 2" else 2

    engine = Small()
    with pytest.raises(DataError) as caught:
        nomoat.evaluate(Responder("m", engine), quiz(3))
    assert caught.value.message == (
        "example `2` of `quiz` has 5,000 tokens and the answer may have 32, but the context of `m` is 4,096 tokens"
    )
    assert caught.value.hint == "shorten or remove the example, or choose a model with a longer context"
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "4096")
    with pytest.raises(DataError) as caught:
        nomoat.evaluate(Responder("m", engine), quiz(3))
    assert caught.value.hint == "shorten or remove the example, or raise `context_tokens` where `nomoat config` says it is set"
    assert engine.calls == 0


def test_clear_winner_is_called_with_interval_and_p_value() -> None:
    """80 right against 40 of 100, 40 items apart all one way: exact McNemar p = 2 / 2**40."""
    verdict = nomoat.duel(knowing("tuned", 80), knowing("base", 40), quiz(100), stop_early=False)
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.winner) == (40, 60, 0, "left")
    assert verdict.p_value == pytest.approx(2 / 2**40)
    assert verdict.difference == pytest.approx(0.4)
    assert 0.29 < verdict.difference_low < 0.31
    assert 0.48 < verdict.difference_high < 0.51
    assert verdict.sentence == (
        "`tuned` (80.0 % [71.1, 86.7]) is ahead of `base` (40.0 % [30.9, 49.8]) on `quiz`, 100 items: "
        f"by 40.0 points [{100 * verdict.difference_low:.1f}, {100 * verdict.difference_high:.1f}], p < 0.0001."
    )
    mirrored = nomoat.duel(knowing("base", 40), knowing("tuned", 80), quiz(100), stop_early=False)
    assert (mirrored.winner, mirrored.sentence) == ("right", verdict.sentence)


def test_small_lead_is_too_close_to_call() -> None:
    verdict = nomoat.duel(knowing("a", 45), knowing("b", 41), quiz(80), stop_early=False)
    assert (verdict.winner, verdict.p_value) == ("undecided", 0.125)
    assert verdict.sentence == (
        "Too close to call on `quiz` after 80 items: `a` (56.2 % [45.3, 66.6]) against `b` (51.2 % [40.5, 61.9])."
    )


def test_winner_needs_the_test_and_the_interval_both() -> None:
    """6 against 16 (Cavo et al. 2012): Tango's interval excludes 0, the exact test says p = 0.0525."""
    left = [1.0] * 59 + [1.0] * 6 + [0.0] * 16 + [0.0] * 80
    right = [1.0] * 59 + [0.0] * 6 + [1.0] * 16 + [0.0] * 80
    sides = [
        Responder(name, FakeEngine(answers={f"question {at}": "yes" if score else "no" for at, score in enumerate(scores)}))
        for name, scores in (("left", left), ("right", right))
    ]
    verdict = nomoat.duel(*sides, quiz(161), stop_early=False)
    assert verdict.difference_high < 0
    assert verdict.p_value == pytest.approx(0.0525, abs=1e-4)
    assert verdict.winner == "undecided"


@pytest.mark.parametrize("num_right", [0, 50, 100])
def test_questions_that_nothing_differs_on_leave_as_much_open_however_many_are_right(num_right: int) -> None:
    """Where the true difference is 2.1 points, none of 100 questions tells it in 12 of 100 duels."""
    verdict = nomoat.duel(knowing("a", num_right), knowing("b", num_right), quiz(100), stop_early=False, rope=2)
    assert (verdict.winner, verdict.difference_high) == ("undecided", pytest.approx(0.037, abs=5e-4))


def test_model_against_itself_is_all_ties() -> None:
    verdict = nomoat.duel("fake:", "fake:", quiz(4))
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.p_value, verdict.winner) == (0, 4, 0, 1.0, "undecided")
    assert verdict.difference_low < 0 < verdict.difference_high


def test_examples_of_one_group_count_as_one_piece_of_evidence() -> None:
    """12 of 24 examples apart, all one way: p = 2 / 2**12 if they were independent, but they lie in 4 groups: p = 2 / 2**4."""
    suite = quiz(24)
    grouped = tuple(dataclasses.replace(example, group=str(at // 3)) for at, example in enumerate(suite.examples))
    verdict = nomoat.duel(knowing("a", 24), knowing("b", 12), dataclasses.replace(suite, examples=grouped))
    assert (verdict.p_value, verdict.winner) == (pytest.approx(2 / 2**4), "undecided")
    assert (
        "24 examples in 8 groups that belong together: errors are those between groups, which tell as much as 8.0 of one size; "
        "of fewer than 10, intervals can be too narrow"
    ) in verdict.notes
    alone = nomoat.duel(knowing("a", 24), knowing("b", 12), suite, stop_early=False)
    assert (alone.p_value, alone.winner) == (2 / 2**12, "left")


def test_examples_that_are_all_of_one_group_decide_nothing() -> None:
    """12 of 24 examples apart, all one way, on one text: what another text would give is not known."""
    suite = quiz(24)
    suite = dataclasses.replace(suite, examples=tuple(dataclasses.replace(example, group="text") for example in suite.examples))
    verdict = nomoat.duel(knowing("a", 24), knowing("b", 12), suite)
    assert (verdict.p_value, verdict.winner) == (1.0, "undecided")
    assert verdict.difference_low < -0.5 and verdict.difference_high > 0.5
    assert (verdict.right.score_low, verdict.right.score_high) == pytest.approx((0.0, 1.0), abs=0.05)
    note = "all 24 examples are of one group: one piece of evidence, which leaves open what others would say"
    assert note in verdict.notes


def test_score_of_examples_in_groups_has_the_interval_of_groups() -> None:
    suite = quiz(24)
    grouped = tuple(dataclasses.replace(example, group=str(at // 3)) for at, example in enumerate(suite.examples))
    side = run_suite(knowing("m", 12), dataclasses.replace(suite, examples=grouped)).side
    scores, groups = [1.0] * 12 + [0.0] * 12, [example.group for example in grouped]
    assert (side.score_low, side.score_high) == clustered_score_interval(scores, groups, 0.0, 1.0)


def test_examples_that_follow_each_other_are_one_group_without_being_told() -> None:
    """20 conversations of two turns: 20 pieces of evidence, not 40."""
    suite = quiz(40)
    turns = tuple(dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(suite.examples))
    evaluation = run_suite(knowing("m", 20), dataclasses.replace(suite, examples=turns))
    assert [outcome.group for outcome in evaluation.outcomes] == [str(at - at % 2) for at in range(40)]
    assert groups_of(evaluation.outcomes) is not None
    named = tuple(dataclasses.replace(e, group="told" if at == 1 else "") for at, e in enumerate(turns))
    outcomes = run_suite(knowing("m", 20), dataclasses.replace(suite, examples=named)).outcomes
    assert [outcome.group for outcome in outcomes[:4]] == ["told", "told", "2", "2"]


def test_scores_that_hardly_differ_leave_as_much_open_as_equal_ones() -> None:
    """Two answers of 0.5 and 0.5001 say as little of the next as two of 0.5."""
    for nearly, equal in (([0.1 + 0.2, 0.3] * 6, [0.3] * 12), ([0.5, 0.5001], [0.5, 0.5])):
        low, high = score_interval("rouge", nearly)
        assert (low, high) == pytest.approx(score_interval("rouge", equal), abs=1e-4)
        assert high - low > 0.2


def test_one_example_decides_nothing() -> None:
    verdict = nomoat.duel(knowing("a", 1), knowing("b", 0), quiz(1))
    assert verdict.winner == "undecided"
    assert verdict.sentence.startswith("Too close to call on `quiz` after 1 item:")


def test_side_says_time_bytes_and_licence() -> None:
    class Timed(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            for chunk in super().generate(request):
                if chunk.usage is None:
                    yield chunk
                else:
                    at = int(request.messages[-1].content.split()[1])
                    usage = dataclasses.replace(chunk.usage, prefill_seconds=1.0, decode_seconds=float(at), bytes_out=100)
                    yield dataclasses.replace(chunk, usage=usage)

    side = run_suite(Responder("m", Timed(), licence="apache-2.0: yes"), quiz(5)).side
    assert (side.seconds_p50, side.bytes_out, side.licence, side.cost_usd_per_1000) == (3.0, 500, "apache-2.0: yes", 0.0)
    assert side.seconds_p95 is not None
    assert math.isclose(side.seconds_p95, 4.8)
    assert run_suite(knowing("m", 1), quiz(1)).side.seconds_p50 is None


def test_duel_without_a_suite_needs_two_stored_sides() -> None:
    for sides in (("fake:", "fake:"), ("stored:a/x", "fake:"), ("stored:a/x", "stored:b/x")):
        with pytest.raises(UsageError) as caught:
            nomoat.duel(*sides)
        assert caught.value.message == "a duel needs a suite to fight over"


# ---------------------------------------------------------------- stored reviews
@pytest.mark.data
def test_vicuna_replay_prints_the_blogs_number_and_what_it_leaves_out(vicuna_folder: Path) -> None:
    """638.0 / 693.0 = 92.06 %: lmsys.org/blog/2023-03-30-vicuna; wins, ties and losses are counted from the same reviews."""
    duel = run_duel("stored:vicuna80/vicuna-13b", "stored:vicuna80/gpt35")
    verdict = duel.verdict
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.num_examples) == (14, 22, 44, 80)
    measures = {measure.name: measure for measure in verdict.measures}
    ratio = measures["total score ratio"]
    assert (ratio.text, round(ratio.value, 4)) == ("638.0 / 693.0", 0.9206)
    assert ratio.low < ratio.value < ratio.high < 1
    better_or_equal = measures["wins and ties"]
    assert (round(better_or_equal.low, 2), better_or_equal.value, round(better_or_equal.high, 2)) == (0.35, 0.45, 0.56)
    assert verdict.winner == "right"
    assert "each pair was shown to the judge in one order only, `gpt35` first: what the order did is not known" in verdict.notes
    assert duel.left.outcomes[0].answer.startswith("Improving your time management skills")
    assert (duel.left.outcomes[0].score, duel.right.outcomes[0].score) == (8.5, 9.0)


@pytest.mark.data
def test_vicuna_replay_works_with_the_sides_swapped(vicuna_folder: Path) -> None:
    verdict = nomoat.duel("stored:vicuna80/gpt35", "stored:vicuna80/vicuna-13b")
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.winner) == (44, 22, 14, "left")
    assert next(measure.text for measure in verdict.measures if measure.name == "total score ratio") == "693.0 / 638.0"


@pytest.mark.data
def test_reviews_compare_stored_answers_only(vicuna_folder: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        nomoat.duel("fake:", "stored:vicuna80/gpt35", "vicuna80")
    assert caught.value.message == "`vicuna80` has reviews of stored answers only, and `fake:` is not one of them"
    with pytest.raises(UnsupportedError, match="they can only be compared"):
        nomoat.evaluate("fake:", "vicuna80")


@pytest.mark.data
def test_one_stored_review_decides_nothing(vicuna_folder: Path) -> None:
    verdict = nomoat.duel("stored:vicuna80/vicuna-13b", "stored:vicuna80/gpt35", limit=1)
    assert (verdict.winner, verdict.num_examples) == ("undecided", 1)


def test_python_asks_a_table_as_the_command_line_does(tmp_path: Path) -> None:
    table = tmp_path / "reviews.csv"
    table.write_text("text,label\ngood,pos\nbad,neg\n")
    columns = {"input_column": "text", "label_column": "label"}
    assert len(nomoat.evaluate("fake:", table, **columns)) == 2
    assert nomoat.duel("fake:", "fake:", table, **columns).num_examples == 2


def test_score_of_all_sentences_as_one_says_whose_it_is_and_is_of_the_sentences_both_answered() -> None:
    """The left side alone answered the third question, and wrongly: over the two others it is as good as the right one."""
    suite = quiz(3, "chrf", target="some words here")
    good, bad = ({f"question {at}": answer for at in range(3)} for answer in ("some words here", "xyz"))
    partly = {**good, "question 2": "xyz"}
    one, other = (run_suite(Responder(name, FakeEngine(answers=said)), suite) for name, said in (("a", partly), ("b", good)))
    two = dataclasses.replace(suite, examples=suite.examples[:2])
    other = dataclasses.replace(other, suite=two, outcomes=other.outcomes[:2])
    notes = [note for side in in_common([one, other]) for note in side.notes if "as one text" in note]
    assert [note.partition(" (")[0] for note in notes] == [
        f"`{name}` over all sentences as one text: chrF2 100.0" for name in ("a", "b")
    ]
    duel = run_duel(Responder("a", FakeEngine(answers=bad)), Responder("b", FakeEngine(answers=bad)), suite)
    assert [note[:3] for note in duel.verdict.notes if "as one text" in note] == ["`a`", "`b`"]


def test_score_of_all_sentences_as_one_counts_the_words_put_into_a_models_mouth() -> None:
    model = Responder("m", FakeEngine(answers={f"question {at}": "here" for at in range(3)}))
    suite = dataclasses.replace(quiz(3, "chrf", target="some words here"), answer_start="some words ")
    assert any("over all sentences as one text: chrF2 100.0" in note for note in run_suite(model, suite).notes)


@pytest.mark.parametrize(
    ("targets", "metric"),
    [
        (["보통 2~3일 안에 도착합니다", "환불은 3일 걸려요", "네, 가능합니다", "아니요, 어렵습니다"], "char-f1"),
        (["It takes two or three days.", "No, it does not.", "Yes, both of them do."], "rouge"),
        (["4", "9", "1,204"], "numeric"),
        (['{"item": "coffee", "count": 2, "note": "no sugar in it"}', '\n["tea"]'], "json"),
        (["Seoul", "Busan", "Daejeon"], ""),
        (["yes", "no", "yes", "no", "yes", "no"], ""),
    ],
)
def test_targets_that_are_compared_word_for_word_unasked_and_should_not_be_are_told_of(
    tmp_path: Path, targets: list[str], metric: str
) -> None:
    rows = [{"input": f"q{at}", "target": target} for at, target in enumerate(targets)]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    model = Responder("m", FakeEngine(answers={f"q{at}": target for at, target in enumerate(targets)}))
    told = (
        f"no `metric` is set, and answers are compared word for word: `{metric}` would suit these targets more, and "
        "`nomoat suites new` takes it"
    )
    evaluation = run_suite(model, str(path))
    assert (evaluation.suite.metric, told in evaluation.notes) == ("exact", bool(metric))
    assert bool(metric) or not any("`metric`" in note for note in evaluation.notes)
    path.with_suffix(".toml").write_text('metric = "exact"\n', encoding="utf-8")
    assert run_suite(model, str(path.with_suffix(".toml"))).notes == tuple(note for note in evaluation.notes if note != told)
