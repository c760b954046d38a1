"""Likelihoods of several short questions in one pass, which alone would each read all weights for a few tokens.

All tokens lie in one row for the products, those that questions begin with alike but once; for attention each question has a frame of
its own, as it has alone. So a score stays the same to the last bit, where a product's row does not depend on how many rows there are:
of float32 with AVX-512 that is so, with AVX2 it is not, nor of products in 8 bits.

What this does not have: questions of more than `LONGEST` tokens, which are read alone, in parts; ALiBi, sinks, mixtures of experts.

Shapes: N questions, S places of a frame.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import hardware, matching
from nomoat.engine.choosing import STEP_TOKENS, Search
from nomoat.engine.continuations import Ints, Question, Tree
from nomoat.engine.likelihood import PROMPT_PART_TOKENS, Scorer
from nomoat.records import ContinuationScore

LONGEST = PROMPT_PART_TOKENS  # tokens of a question, its tree with them
MOST_SEARCHED = 8  # questions whose trees are searched together: steps of so many are a pass
LARGEST_TREE_TOKENS = 512  # of one that is searched beside others: all of them have room for as many keys and values as the largest
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
        self._kv_heads = math.gcd(*(sink.get_output_partial_shape(0)[1].get_length() for sink in model.get_sinks()))

    @functools.cached_property
    def _even(self) -> int:
        """Frames of a search come in multiples of this.

        Where keys are there already, OpenVINO's attention shares out the keys of all frames' heads evenly among its threads, and adds
        up what each has: so a sum depends on how many frames there are, unless each thread has whole heads.
        """
        threads = int(self._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS"))
        return threads // math.gcd(threads, self._kv_heads)

    def beside(self, questions: Sequence[Question]) -> list[int]:
        size = self._size(questions[0])
        if size is None:
            return [0]
        taken: list[int] = []
        left = self._part_tokens
        is_searched = questions[0].is_searched
        most = min(MOST_SEARCHED, max(1, self._part_tokens // STEP_TOKENS)) if is_searched else len(questions)
        for at, question in enumerate(questions):
            if self._size(question) != size or question.is_searched != is_searched or len(taken) == most:
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
        if questions[0].is_searched:
            return self._searched_together(questions, size)
        _, parts = self._read(size, len(questions), [(question.prompt, question.trees[0][1]) for question in questions])
        return [one.scores([part]) for one, part in zip(questions, parts, strict=True)]

    def _read(self, size: int, count: int, texts: Sequence[tuple[list[int], Tree]]) -> tuple[_Row, list[npt.NDArray[np.float64]]]:
        """One pass over prompts and their trees, in so many frames. What it was fed, and what each tree's reads gave."""
        row = _Row(size, count)
        for prompt, tree in texts:
            row.add(prompt, tree)
        self._request.reset_state()
        values_R = self._run(row.inputs(), np.array(row.reads), np.array(row.tokens)).astype(np.float64)
        return row, np.split(values_R, row.ends[:-1])

    def _searched_together(self, questions: Sequence[Question], size: int) -> list[list[ContinuationScore]]:
        """The prompts, then steps, each of one frame more for every question, until nothing of any of them matters.

        A question that has ended keeps its frames, which then hold nothing of it: keys and values are of all or of none.
        """
        searches = [Search(question) for question in questions]
        count = -(-len(questions) // self._even) * self._even
        texts = [(question.prompt, search.first) for question, search in zip(questions, searches, strict=True)]
        row, parts = self._read(size, count, texts)
        for search, values in zip(searches, parts, strict=True):
            search.take_first(values)
        steps = _Steps(searches, row)
        while any(several := [search.step() for search in searches]):
            inputs, rows, tokens, whose = steps.inputs(several)
            values_R = self._run(inputs, rows, tokens).astype(np.float64)
            for search, which, values in zip(searches, whose, np.split(values_R, np.cumsum(list(map(len, whose)))[:-1]), strict=True):
                search.take(which, values)
        return [search.scores() for search in searches]

    def _size(self, question: Question) -> int | None:
        """Places of its first frame; None if it is read alone, in parts."""
        tokens = _num_tokens(question)
        is_one = len(question.trees) == 1
        if question.is_searched:
            is_one = self._even <= MOST_SEARCHED and question.tree_tokens <= LARGEST_TREE_TOKENS
        return -(-tokens // STEP) * STEP if is_one and tokens <= min(LONGEST, self._part_tokens) else None

    def _seen(self, count: int, places: Ints, sight: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        own = np.arange(count)
        return {
            "places": np.ascontiguousarray(places[None, None, None]), "sight": np.ascontiguousarray(sight[None, None]),
            "frames": own[None], "back": own,
        }  # fmt: skip


def _num_tokens(question: Question) -> int:
    """What the first pass is fed of it."""
    return len(question.prompt) + (0 if question.is_searched else question.tree_tokens)


class _Row:
    """The tokens of one pass, and where each stands in the frames."""

    def __init__(self, size: int, count: int) -> None:
        self.reads: list[int] = []  # all questions' one after another: the token, and the one after it
        self.tokens: list[int] = []
        self.ends: list[int] = []  # of each question's reads
        self.counts: list[int] = []  # of each question's prompt, its tokens
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._back: list[int] = []
        self._known: dict[tuple[int, int], int] = {}  # (token before in the row, or -1; token) -> where it stands in the row
        self._frames = np.zeros((count, size), np.int64)  # which token stands where; the first beyond a question's end
        self.places = np.zeros((count, size), np.int64)
        self._sight = np.zeros((count, size, size), bool)

    def add(self, prompt: Sequence[int], tree: Tree) -> None:
        number, size = len(self.ends), self._frames.shape[1]
        frame, places = self._frames[number], self.places[number]
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
        self.counts.append(count)
        self.reads += frame[count + np.array(rows)].tolist()
        self.tokens += tokens
        self.ends.append(len(self.tokens))

    def inputs(self) -> dict[str, npt.NDArray[Any]]:
        """All but what is read. Frames of no question see all, for a softmax of nothing is no number."""
        self._sight[len(self.ends) :] = True
        return {
            "input_ids": np.array([self._ids]), "position_ids": np.array([self._positions]), "places": self.places[:, None, None],
            "sight": self._sight[:, None], "frames": self._frames, "back": np.array(self._back),
            "beam_idx": np.arange(len(self._frames), dtype=np.int32),
        }  # fmt: skip


class _Steps:
    """Of searches that are made together: the tokens of a step, and where each stands in frames of `STEP_TOKENS` places.

    K: places so far, those of the prompts' frames among them.
    """

    def __init__(self, searches: Sequence[Search], row: _Row) -> None:
        self._searches, self._counts = searches, row.counts
        self._places_NK = row.places
        self._fed = [list[int]() for _ in searches]  # of each, the node at each place behind its prompt's frame; -1 for none

    def inputs(self, several: Sequence[list[int]]) -> tuple[dict[str, npt.NDArray[Any]], Ints, Ints, list[Ints]]:
        """For the next nodes of each, all that is fed; what is read, after which token, and which token; of each, its own reads."""
        count, begun = self._places_NK.shape
        places = np.zeros((count, STEP_TOKENS), np.int64)
        frames = np.zeros((count, STEP_TOKENS), np.int64)
        sight = np.zeros((count, STEP_TOKENS, begun + STEP_TOKENS), bool)
        sight[len(several) :] = True
        ids, positions, back, whose = list[int](), list[int](), list[int](), list[Ints]()
        rows, tokens = list[Ints](), list[Ints]()
        for number, (search, nodes) in enumerate(zip(self._searches, several, strict=True)):
            tree, before = search.tree, len(ids)
            which, rows_R, tokens_R = search.reads(nodes)
            whose.append(which)
            rows.append(before + rows_R)
            tokens.append(tokens_R)
            own = [self._counts[number] + tree.depths[node] for node in nodes]
            places[number, : len(nodes)] = own
            frames[number, : len(nodes)] = np.arange(before, before + len(nodes))
            ids += [tree.ids[node] for node in nodes]
            positions += own
            back += range(number * STEP_TOKENS, number * STEP_TOKENS + len(nodes))
            self._fed[number] += nodes + [-1] * (STEP_TOKENS - len(nodes))
            first = begun + STEP_TOKENS - len(self._fed[number])  # where the frames of steps begin
            sight[number, :, : self._counts[number]] = True  # of places that nobody reads, too: as in `_Row.inputs`
            sight[number, : len(nodes), first:] = search.sight(nodes, self._fed[number])
        self._places_NK = np.concatenate([self._places_NK, places], axis=1)
        inputs = {
            "input_ids": np.array([ids]), "position_ids": np.array([positions]), "places": self._places_NK[:, None, None],
            "sight": sight[:, None], "frames": frames, "back": np.array(back), "beam_idx": np.arange(count, dtype=np.int32),
        }  # fmt: skip
        return inputs, np.concatenate(rows), np.concatenate(tokens), whose
