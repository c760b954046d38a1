"""Likelihoods of several short questions in one pass, which alone would each read all weights for a few tokens.

All tokens lie in one row for the products, those that questions begin with alike but once; for attention each question has a frame of
its own, as it has alone. So a score stays the same to the last bit, where a product's row does not depend on how many rows there are:
of float32 with AVX-512 that is so, with AVX2 it is not, nor of products in 8 bits.

What this does not have: questions of more than `LONGEST` tokens, which are read alone, in parts; ALiBi, sinks, mixtures of experts.

Shapes: N questions, S places of a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import hardware, matching
from nomoat.engine.likelihood import PROMPT_PART_TOKENS, Ints, Question, Scorer, Tree
from nomoat.records import ContinuationScore

LONGEST = PROMPT_PART_TOKENS  # tokens of a question, its tree with them
STEP = 32  # a frame has a multiple of so many places, and a pass frames of one size


def scorer(model: Any, properties: dict[str, str]) -> Scorer:
    """Of a model in float32: one that reads short questions together, where this CPU and the model let it."""
    from nomoat.engine import likelihood_graph

    can = "avx512f" in hardware.cpu_flags() and likelihood_graph.can_take_frames(model)
    return (FramedScorer if can else Scorer)(model, properties)


class FramedScorer(Scorer):
    """See the module."""

    def _change(self, model: Any) -> None:
        from nomoat.engine import likelihood_graph

        likelihood_graph.take_frames(model)

    def beside(self, questions: Sequence[Question]) -> list[int]:
        size = self._size(questions[0])
        if size is None:
            return [0]
        taken: list[int] = []
        left = self._part_tokens
        for at, question in enumerate(questions):
            if self._size(question) != size:
                continue
            shared = max((matching.num_common(question.prompt, questions[one].prompt) for one in taken), default=0)
            fresh = _num_tokens(question) - shared
            if fresh <= left:
                left -= fresh
                taken.append(at)
        return taken

    def score_many(self, questions: Sequence[Question], stop: threading.Event | None = None) -> list[list[ContinuationScore]]:
        """Those of one size, as `beside` gives them: in one pass, whoever has gone."""
        size = self._size(questions[0])
        if size is None:
            return super().score_many(questions, stop)
        row = _Row(size, len(questions))
        for question in questions:
            row.add(question.prompt, question.trees[0][1])
        self._request.reset_state()
        values_R = self._run(row.inputs(), np.array(row.reads), np.array(row.tokens)).astype(np.float64)
        return [one.scores([part]) for one, part in zip(questions, np.split(values_R, row.ends[:-1]), strict=True)]

    def _size(self, question: Question) -> int | None:
        """Places of its frame; None if it is read alone, in parts."""
        tokens = _num_tokens(question)
        return -(-tokens // STEP) * STEP if len(question.trees) == 1 and tokens <= min(LONGEST, self._part_tokens) else None

    def _seen(self, count: int, places: Ints, sight: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        own = np.arange(count)
        return {
            "places": np.ascontiguousarray(places[None, None, None]), "sight": np.ascontiguousarray(sight[None, None]),
            "frames": own[None], "back": own,
        }  # fmt: skip


def _num_tokens(question: Question) -> int:
    return len(question.prompt) + sum(len(tree.ids) for _, tree in question.trees)


class _Row:
    """The tokens of one pass, and where each stands in the frames."""

    def __init__(self, size: int, count: int) -> None:
        self.reads: list[int] = []  # all questions' one after another: the token, and the one after it
        self.tokens: list[int] = []
        self.ends: list[int] = []  # of each question's reads
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._back: list[int] = []
        self._known: dict[tuple[int, int], int] = {}  # (token before in the row, or -1; token) -> where it stands in the row
        self._frames = np.zeros((count, size), np.int64)  # which token stands where; the first beyond a question's end
        self._places = np.zeros((count, size), np.int64)
        self._sight = np.zeros((count, size, size), bool)

    def add(self, prompt: Sequence[int], tree: Tree) -> None:
        number, size = len(self.ends), self._frames.shape[1]
        frame, places = self._frames[number], self._places[number]
        count, end = len(prompt), len(prompt) + len(tree.ids)
        places[:end] = np.concatenate([np.arange(count), count + np.array(tree.depths, np.int64)])
        before = -1
        for at, token in enumerate([*prompt, *tree.ids]):
            if at >= count or (before, token) not in self._known:
                if at < count:
                    self._known[before, token] = len(self._ids)
                frame[at] = len(self._ids)
                self._ids.append(token)
                self._positions.append(int(places[at]))
                self._back.append(number * size + at)
            else:
                frame[at] = self._known[before, token]
            before = int(frame[at])
        ends = np.concatenate([np.full(count, end), count + tree.ends, np.full(size - end, size)]).astype(np.int64)
        queries = np.arange(size)[:, None]
        self._sight[number] = (np.arange(size) <= queries) & (queries < ends)  # beyond the end they see one another: nobody reads it
        rows, tokens = zip(*tree.reads, strict=True)
        self.reads += frame[count + np.array(rows)].tolist()
        self.tokens += tokens
        self.ends.append(len(self.tokens))

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """All but what is read."""
        return {
            "input_ids": np.array([self._ids]), "position_ids": np.array([self._positions]), "places": self._places[:, None, None],
            "sight": self._sight[:, None], "frames": self._frames, "back": np.array(self._back),
            "beam_idx": np.arange(len(self._frames), dtype=np.int32),
        }  # fmt: skip
