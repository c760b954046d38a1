"""Short questions that are read in one pass: the scores each has alone, to the last bit, and those of the reference implementation."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE_SECONDS
from reference import CASES, CONTINUATIONS, EXACT, RANDOM, make_model, reference_values, write_gguf
from tiny import write_adapter

from nomoat import hardware
from nomoat.engine import frames, importer
from nomoat.engine.continuations import Question
from nomoat.engine.frames import FramedScorer
from nomoat.engine.likelihood import Scorer
from nomoat.engine.local import LocalEngine
from nomoat.engine.scoring_line import ScoringLine
from nomoat.errors import StoppedError, UnsupportedError
from nomoat.pool import run_many
from nomoat.records import ChoiceScores, ContinuationScore, Request

# Of several sizes, some of which begin alike; one is too long to be read with others.
PROMPTS = [RANDOM[:1], RANDOM[:20], [*RANDOM[:15], 9, 8], RANDOM[40:63], [*RANDOM[:20], 7], RANDOM[:29], RANDOM[50:140], RANDOM[:140]]
ROWS = CONTINUATIONS[:7]


@pytest.fixture
def scorer(tiny_gguf: Path) -> Scorer:
    made = frames.scorer(importer.exact_model(tiny_gguf), EXACT)
    if not isinstance(made, FramedScorer):
        pytest.skip("this CPU has no AVX-512, without which questions are read one by one")
    return made


def passes(scorer: Scorer, questions: Sequence[Question]) -> dict[int, list[ContinuationScore]]:
    """All of them, as callers who wait in a line are answered."""
    found: dict[int, list[ContinuationScore]] = {}
    while left := [at for at in range(len(questions)) if at not in found]:
        taken = [left[at] for at in scorer.beside([questions[at] for at in left])]
        assert left[0] == taken[0]
        found |= zip(taken, scorer.score_many([questions[at] for at in taken]), strict=True)
    return found


@pytest.mark.parametrize("name", CASES)
def test_scores_of_questions_read_together_are_those_of_each_alone_to_the_last_bit_and_the_reference_s(
    name: str, tmp_path: Path
) -> None:
    """Where a model or this CPU is not for it, each is read by itself."""
    model = make_model(CASES[name])
    scorer = frames.scorer(importer.exact_model(write_gguf(tmp_path / "model.gguf", CASES[name], model)), EXACT)
    questions = [Question(prompt, ROWS) for prompt in PROMPTS]
    together = passes(scorer, questions)
    for at, question in enumerate(questions):
        assert together[at] == scorer.score_many([question])[0], at
        if at in (2, 5):  # the whole is compared in test_likelihood, which has each alone
            found = [score.log_probability for score in together[at]]
            np.testing.assert_allclose(found, reference_values(model, question.prompt, ROWS), atol=1e-3)


def test_short_questions_of_one_size_are_read_in_one_pass_and_what_they_begin_with_once(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    run = FramedScorer._run
    monkeypatch.setattr(
        FramedScorer, "_run", lambda self, inputs, *rest: (fed.append(inputs["input_ids"].size), run(self, inputs, *rest))[1]
    )
    passes(scorer, [Question([*RANDOM[:20], last], [[7], [8, 9]]) for last in range(5)])
    assert fed == [20 + 5 * 2]
    fed.clear()
    passes(scorer, [Question(RANDOM[start : start + 100], [[7]]) for start in range(5)])
    assert fed == [200, 200, 100]  # with no more than a pass has
    fed.clear()
    passes(scorer, [Question(RANDOM[:20], [[7]]), Question(RANDOM[:50], [[7]]), Question(RANDOM[:140], [[7]])])
    assert fed == [20, 50, 128, 12]


def test_a_cpu_without_avx512_reads_questions_one_by_one(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a product's row depends on how many there are."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2"}))
    made = frames.scorer(importer.exact_model(tiny_gguf), EXACT)
    assert type(made) is Scorer and made.beside([Question([1], [[7]]), Question([2], [[7]])]) == [0]


@pytest.fixture
def engine(tiny_gguf: Path) -> Iterator[LocalEngine]:
    made = LocalEngine(importer.import_gguf(tiny_gguf), weights=tiny_gguf)
    yield made
    made.close()


def test_callers_at_the_same_time_have_the_scores_they_have_alone(engine: LocalEngine) -> None:
    texts = [("the hello " * (at % 5) + "x" * at, [" the", "he", " 안녕"]) for at in range(1, 40)]
    alone = [engine.score(Request(prompt=text), choices) for text, choices in texts]
    found = dict(run_many(lambda one, _left: engine.score(Request(prompt=one[0]), one[1]), texts, concurrency=16))
    assert [found[at] for at in range(len(texts))] == alone


def scores_of(number: int) -> ChoiceScores:
    return ChoiceScores(scores=(), seconds=float(number))


def test_who_waits_for_a_pass_is_read_in_the_next_with_all_others_of_its_model_and_a_failure_is_the_first_one_s_alone() -> None:
    line, begun, goes_on = ScoringLine(), threading.Event(), threading.Event()
    asked: list[list[int]] = []

    def read(questions: Sequence[Question]) -> dict[int, ChoiceScores]:
        prompts = [one.prompt[0] for one in questions]
        asked.append(prompts)
        begun.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        if prompts[0] == 2:
            raise ValueError("two")
        return {at: scores_of(prompt) for at, prompt in enumerate(prompts)}

    found: dict[int, float | ValueError] = {}

    def ask(number: int, model: int | None) -> None:
        try:
            found[number] = line.scores(Question([number], [[7]]), model, read).seconds
        except ValueError as error:
            found[number] = error

    threads = [threading.Thread(target=ask, args=(number, model)) for number, model in ((1, None), (2, None), (3, 0), (4, None))]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        assert begun.wait(PATIENCE_SECONDS)
        while len(line._line) < number:
            pass
    goes_on.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert asked == [[1], [2, 4], [4], [3]]  # before the third another adapter may have to be loaded
    assert isinstance(found.pop(2), ValueError) and found == {1: 1.0, 3: 3.0, 4: 4.0}


def test_who_waits_in_the_line_is_sent_away_once_the_caller_has_left_and_what_is_being_read_is_kept() -> None:
    line, begun, goes_on, left = ScoringLine(), threading.Event(), threading.Event(), threading.Event()
    found: dict[int, float | StoppedError] = {}

    def read(questions: Sequence[Question]) -> dict[int, ChoiceScores]:
        """The first two."""
        if len(questions) > 1:
            begun.set()
            assert goes_on.wait(PATIENCE_SECONDS)
        return {at: scores_of(one.prompt[0]) for at, one in enumerate(questions[:2])}

    def ask(number: int, stop: threading.Event | None) -> None:
        try:
            found[number] = line.scores(Question([number], [[7]]), None, read, stop=stop).seconds
        except StoppedError as error:
            found[number] = error

    with line._changed:  # nobody reads before all stand in the line
        threads = [threading.Thread(target=ask, args=(at, None if at == 4 else left)) for at in range(5)]
        line._is_reading = True
    for number, thread in enumerate(threads, start=1):
        thread.start()
        while len(line._line) < number:
            pass
    with line._changed:
        line._is_reading = False
        line._changed.notify_all()
    assert begun.wait(PATIENCE_SECONDS)
    left.set()
    with line._changed:
        line._changed.notify_all()  # those who are being read stay
    goes_on.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert [type(found[at]) for at in range(5)] == [float, float, StoppedError, StoppedError, float]


def test_questions_of_two_adapters_at_once_have_each_loaded_once_while_there_are_some_of_it(tiny_gguf: Path, tmp_path: Path) -> None:
    made: list[int | None] = []

    class Counting(LocalEngine):
        def _make_scorer(self) -> Scorer:
            made.append(self._at)
            return super()._make_scorer()

    adapters = [write_adapter(tmp_path / name, seed=at) for at, name in enumerate("ab")]
    engine = Counting(importer.import_gguf(tiny_gguf), weights=tiny_gguf, beside=adapters)
    views = [engine.adapted(0), engine.adapted(1)]
    asked = [(views[at % 2], "x" * at) for at in range(1, 17)]
    with engine._shared.scoring:  # all stand in the line before the first is read
        several = run_many(lambda one, _left: one[0].score(Request(prompt=one[1]), [" the"]), asked, concurrency=16)
        first = threading.Thread(target=lambda: list(several))
        first.start()
        while len(engine._shared.line._line) < len(asked):
            pass
    first.join(PATIENCE_SECONDS)
    engine.close()
    assert sorted(made, key=str) == [0, 1]


@pytest.mark.parametrize("why", [UnsupportedError("no", hint="compare what it writes"), RuntimeError("no")])
def test_a_scorer_that_cannot_be_made_is_tried_once_for_all_who_wait_for_it(tiny_gguf: Path, tmp_path: Path, why: Exception) -> None:
    """Each gets an error of its own, and who asks later has it tried again. Those of another adapter have their scores."""
    tried: list[int | None] = []

    class Failing(LocalEngine):
        def _make_scorer(self) -> Scorer:
            tried.append(self._at)
            if self._at == 0 and tried.count(0) == 1:
                raise why
            return super()._make_scorer()

    adapters = [write_adapter(tmp_path / name, seed=at) for at, name in enumerate("ab")]
    engine = Failing(importer.import_gguf(tiny_gguf), weights=tiny_gguf, beside=adapters)
    views = [engine.adapted(0), engine.adapted(1)]

    def ask(at: int, _left: threading.Event) -> Exception | None:
        try:
            views[at % 2].score(Request(prompt="x"), [" the"])
        except type(why) as error:
            return error
        return None

    found: dict[int, Exception | None] = {}
    with engine._shared.scoring:  # all stand in the line before it is tried
        thread = threading.Thread(target=lambda: found.update(run_many(ask, range(16), concurrency=16)))
        thread.start()
        while len(engine._shared.line._line) < 16:
            pass
    thread.join(PATIENCE_SECONDS)
    failed = {id(error): at for at, error in found.items() if error is not None}
    assert (sorted(failed.values()), sorted(tried, key=str)) == (list(range(0, 16, 2)), [0, 1])
    assert ask(0, threading.Event()) is None
    engine.close()


def test_the_time_of_a_question_is_its_share_of_the_pass_and_no_waiting(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only passes move, two seconds each."""
    now = 0.0
    run = Scorer._run

    def _run(self: Scorer, *rest: Any) -> Any:
        nonlocal now
        now += 2
        return run(self, *rest)

    monkeypatch.setattr(Scorer, "_run", _run)
    monkeypatch.setattr("nomoat.engine.local.time", SimpleNamespace(perf_counter=lambda: now))
    alone = engine.timed_scores(Request(prompt="x"), [" the"])
    assert alone.seconds == 2
    texts = [letter * 5 for letter in "abcd"]
    with engine._shared.scoring:
        several = run_many(lambda text, left: engine.timed_scores(Request(prompt=text), [" the"], stop=left), texts, concurrency=4)
        found: list[ChoiceScores] = []
        thread = threading.Thread(target=lambda: found.extend(scores for _, scores in several))
        thread.start()
        while len(engine._shared.line._line) < len(texts):
            pass
    thread.join(PATIENCE_SECONDS)
    assert sum(one.seconds for one in found) == pytest.approx(now - 2)  # of whatever passes there were
