"""One of many choices, of which only the part that can matter is read: against the scores of all that are read in full."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import CASES, EXACT, RANDOM, make_model, write_gguf

from nomoat import matching
from nomoat.engine import choosing, continuations, frames, importer
from nomoat.engine.choosing import STEP_TOKENS, Search
from nomoat.engine.continuations import Question
from nomoat.engine.frames import FramedScorer
from nomoat.engine.likelihood import Scorer
from nomoat.engine.local import LocalEngine
from nomoat.errors import StoppedError
from nomoat.records import ContinuationScore, Message, Request

ENDS = (2, 5)
# Of one token to seven; many begin alike, some begin others, and one stands there twice.
CHOICES = [RANDOM[at % 9 * 7 : at % 9 * 7 + 1 + at % 3] + RANDOM[100 + at : 100 + at + at % 5] for at in range(70)]
CHOICES += [CHOICES[7][:-1], CHOICES[9]]
PROMPTS = [RANDOM[:20], [*RANDOM[:15], 9, 8], RANDOM[40:63], RANDOM[:29], RANDOM[50:160], RANDOM[:140]]

Likely = Callable[[tuple[int, ...], int], float]


def sure(before: tuple[int, ...], token: int) -> float:
    """A log-probability that differs much between tokens: most are out of the question."""
    return -float(np.random.default_rng([*before, token]).exponential(6))


def flat(_before: tuple[int, ...], _token: int) -> float:
    return -1.0


def read(question: Question, likely: Likely) -> tuple[list[ContinuationScore], list[int]]:
    """What a search finds where tokens are so likely, and how many tokens it was fed in each step."""
    search, steps = Search(question), []
    path: dict[int, tuple[int, ...]] = {-1: ()}
    for node, read_at in enumerate(search.tree.fed_reads):
        before, token = list(search.tree.reads)[read_at]
        path[node] = (*path[before], token)
    search.take_first(np.array([likely((), token) for _, token in search.first.reads]))
    while nodes := search.step():
        steps.append(len(nodes))
        which, rows, tokens = search.reads(nodes)
        search.take(which, np.array([likely(path[nodes[row]], int(token)) for row, token in zip(rows, tokens, strict=True)]))
    return search.scores(), steps


def whole(question: Question, likely: Likely) -> list[float]:
    """Each continuation's log-probability."""
    found = []
    for row in question.continuations:
        rows = [[*row, end] for end in question.ends] or [row]
        found.append(np.logaddexp.reduce([sum(likely(tuple(one[:at]), one[at]) for at in range(len(one))) for one in rows]))
    return found


def shares(scores: Sequence[float]) -> Any:
    return np.exp(np.array(scores) - np.logaddexp.reduce(scores))


@pytest.mark.parametrize("ends", [(), ENDS])
@pytest.mark.parametrize("max_unread", [math.inf, 1e-4])
def test_what_is_left_unread_is_none_that_could_be_the_likeliest_and_has_at_most_its_bound(
    ends: tuple[int, ...], max_unread: float
) -> None:
    """Of 40 made-up models."""
    num_bounds = 0
    for seed in range(40):

        def likely(before: tuple[int, ...], token: int, seed: int = seed) -> float:
            return sure((seed, *before), token) if token not in ENDS else math.log(0.3)

        question = Question([1], CHOICES, ends, max_unread)
        scores, expected = read(question, likely)[0], whole(question, likely)
        assert matching.likeliest(scores) == expected.index(max(expected))
        assert not scores[matching.likeliest(scores)].is_bound
        for score, value, row in zip(scores, expected, CHOICES, strict=True):
            assert value <= score.log_probability if score.is_bound else value == pytest.approx(score.log_probability)
            assert score.num_tokens == len(row) + bool(ends)
        num_bounds += sum(score.is_bound for score in scores)
        if max_unread < 1:
            assert matching.unread_share(scores) <= max_unread
            np.testing.assert_allclose(shares([score.log_probability for score in scores]), shares(expected), atol=1e-4)
    assert num_bounds > 40 * len(CHOICES) / 8


@pytest.mark.parametrize("max_unread", [math.inf, 1e-4])
def test_where_all_tokens_are_as_likely_every_choice_that_could_be_the_likeliest_is_read(max_unread: float) -> None:
    """One token alone is the likeliest; and where each choice has as many, none can be left out."""
    scores, steps = read(Question([1], CHOICES, (), max_unread), flat)
    assert matching.likeliest(scores) == min(range(len(CHOICES)), key=lambda at: len(CHOICES[at]))
    as_long = [[at, 9, 7, at] for at in range(60)]
    scores, steps = read(Question([1], as_long, (), max_unread), flat)
    assert not any(score.is_bound for score in scores)
    assert sum(steps) == 3 * len(as_long) and max(steps) == STEP_TOKENS


def test_the_likeliest_beginnings_are_read_whole_at_first_and_the_others_are_not() -> None:
    """A sure model is asked twice: the prompt, and what begins as the likeliest does."""
    rows = [[first, *range(10, 10 + length), last] for first in (3, 4, 5) for length in (4, 6) for last in (7, 8)]
    scores, steps = read(
        Question([1], rows, (), math.inf), lambda before, token: -9.0 if (before, token) in {((), 3), ((), 5)} else -0.1
    )
    assert steps == [7] and [at for at, score in enumerate(scores) if not score.is_bound] == [4, 5, 6, 7]


def test_a_small_tree_is_read_in_full_with_its_prompt() -> None:
    assert not Question([1], CHOICES[:5], (), math.inf).is_searched
    assert not Question([1], CHOICES).is_searched and Question([1], CHOICES, (), 1e-4).is_searched


@pytest.fixture(scope="module", params=["llama", "gemma3", "bloom"])
def sure_gguf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose random weights say of few tokens that they are likely. The second has windows, the third ALiBi, and so no frames."""
    model = make_model(CASES[request.param])
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(16)
    return write_gguf(tmp_path_factory.mktemp("sure") / "model.gguf", CASES[request.param], model)


@pytest.mark.parametrize("make", [Scorer, frames.scorer])
@pytest.mark.parametrize("ends", [(), ENDS])
def test_a_model_s_likeliest_choice_and_its_score_are_those_of_all_read_in_full(
    sure_gguf: Path, make: Callable[..., Scorer], ends: tuple[int, ...]
) -> None:
    scorer, num_bounds = make(importer.exact_model(sure_gguf), EXACT), 0
    for prompt in PROMPTS:
        full = scorer.score_many([Question(prompt, CHOICES, ends)])[0]
        for max_unread in (math.inf, 1e-4):
            found = scorer.score_many([Question(prompt, CHOICES, ends, max_unread)])[0]
            assert matching.likeliest(found) == matching.likeliest(full)
            for one, other in zip(found, full, strict=True):
                if one.is_bound:
                    assert other.log_probability <= one.log_probability + 1e-3
                else:
                    assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
            num_bounds += sum(one.is_bound for one in found)
        np.testing.assert_allclose(*(shares([one.log_probability for one in each]) for each in (found, full)), atol=2e-4)
    assert num_bounds > 0


def test_a_search_beside_others_gives_what_it_gives_alone_to_the_last_bit(sure_gguf: Path) -> None:
    """Some end after one step, others go on; the number that a pass has room for is read together."""
    scorer = frames.scorer(importer.exact_model(sure_gguf), EXACT)
    questions = [Question([*prompt[:-1], last], CHOICES, (), math.inf) for prompt in PROMPTS for last in range(3, 8)]
    questions += [replace(questions[0], max_unread=1e-4), Question(PROMPTS[0], CHOICES[:3], (), math.inf)]
    alone = [scorer.score_many([question])[0] for question in questions]
    found: dict[int, list[ContinuationScore]] = {}
    together = []
    while left := [at for at in range(len(questions)) if at not in found]:
        taken = [left[at] for at in scorer.beside([questions[at] for at in left])]
        found |= zip(taken, scorer.score_many([questions[at] for at in taken]), strict=True)
        together.append(len(taken))
    assert [found[at] for at in range(len(questions))] == alone
    if isinstance(scorer, FramedScorer):
        assert max(together) == min(8, scorer._part_tokens // STEP_TOKENS)


def test_where_too_many_threads_share_a_head_or_a_tree_is_large_a_search_is_made_alone(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = frames.scorer(importer.exact_model(tiny_gguf), EXACT)
    if not isinstance(scorer, FramedScorer):
        pytest.skip("this CPU has no AVX-512, without which questions are read one by one")
    monkeypatch.setattr(scorer, "_even", 16)
    questions = [Question([*RANDOM[:20], last], CHOICES, (), math.inf) for last in range(3)]
    assert scorer.beside(questions) == [0]
    assert scorer.beside([replace(one, max_unread=0.0, continuations=CHOICES[:5]) for one in questions]) == [0, 1, 2]
    monkeypatch.setattr(scorer, "_even", 2)
    assert scorer.beside(questions) == [0, 1, 2]
    monkeypatch.setattr(frames, "LARGEST_TREE_TOKENS", questions[0].tree_tokens - 1)
    assert scorer.beside(questions) == [0]


def test_more_tokens_than_a_tree_has_room_for_are_searched_as_one(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = frames.scorer(importer.exact_model(tiny_gguf), EXACT)
    expected = scorer.score_many([Question(RANDOM[:9], CHOICES, (), math.inf)])
    monkeypatch.setattr(continuations, "TREE_TOKENS", 40)
    assert scorer.score_many([Question(RANDOM[:9], CHOICES, (), math.inf)]) == expected


def test_who_has_gone_is_not_read_to_the_last_step(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, stop, passes, run = Scorer(importer.exact_model(tiny_gguf), EXACT), threading.Event(), list[int](), Scorer._run

    def leaving(self: Scorer, *rest: Any) -> Any:
        passes.append(1)
        if len(passes) == 2:
            stop.set()
        return run(self, *rest)

    monkeypatch.setattr(Scorer, "_run", leaving)
    with pytest.raises(StoppedError):
        scorer.score_many([Question(RANDOM[:9], CHOICES, (), 1e-9)], stop)
    assert len(passes) == 2


def test_scores_from_python_are_all_read_in_full_and_so_are_those_of_the_served_form(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 8 bits another choice could come out."""
    texts = [f"{letter}{number}he the" for letter in "abcd" for number in range(20)]
    request = Request(messages=(Message(role="user", content="x"),))
    engine = LocalEngine(importer.import_gguf(tiny_gguf), weights=tiny_gguf)
    monkeypatch.setattr(choosing, "Search", None)
    assert not any(score.is_bound for score in engine.score(request, texts))
    searched: list[bool] = []
    monkeypatch.setattr(Scorer, "_searched", lambda *_: searched.append(True) or [ContinuationScore(log_probability=0, num_tokens=1)])
    monkeypatch.setattr(FramedScorer, "_searched_together", lambda *_: searched.append(True) or [[]])
    engine.timed_scores(request, texts, max_unread=math.inf)
    engine.close()
    monkeypatch.setattr(importer, "fits_exactly", lambda _weights: False)
    served = LocalEngine(importer.import_gguf(tiny_gguf), weights=tiny_gguf)
    served.timed_scores(request, texts, max_unread=math.inf)
    served.close()
    assert searched == [True]
