"""Scoring texts: the log-likelihood of continuations, all of them in one pass over a tree of their tokens; or, where one of many is to
be chosen, of the part of the tree that can matter (see `choosing`).

A token of the tree sees the prompt and its own ancestors, and stands where it would stand in its continuation alone.

Shapes: T tokens in one pass, K tokens it may see (cached and new), R reads (a log-probability of one token after another).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import matching
from nomoat.engine import shutdown
from nomoat.engine.choosing import Search
from nomoat.engine.compiled import core, read_graph
from nomoat.engine.continuations import NOTHING, Ints, Question, Tree
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import StoppedError, UsageError
from nomoat.records import ContinuationScore, Request

# Prompts are read in parts of this length whoever came before, so that what is kept from the last prompt equals what is read anew.
PROMPT_PART_TOKENS = 128
PART_TOKENS = 256  # fed in one pass, of a prompt's rest and the tree after it
LOGIT_VALUES = 2**25  # logits held at a time: 128 MB in float32
KEPT_BYTES = 2**29  # the largest prompt beginning that is kept for the next prompt


def split(
    tokenizer: Tokenizer, request: Request, continuations: Sequence[str], *,
    require: Callable[[str, int | None], None] = lambda text, prompt_tokens: None,
) -> tuple[list[int], list[list[int]]]:  # fmt: skip
    """Token ids of the prompt and of what each continuation adds, from the ids of both together: as a model would have read them.

    Where the end of the prompt and a continuation's beginning are one token (a space at the prompt's end, say), the prompt is taken to
    end before it, for all continuations. `require`: raises for a text that is not to be cut into tokens, the prompt or (told the
    prompt's tokens) one with its continuation. Raises UsageError for an empty prompt, and for a continuation that adds nothing.
    """
    text, add_bos = tokenizer.prompt_text(request, is_scored=True)
    require(text, None)
    prompt = tokenizer.encode(text, add_bos=add_bos)
    if not prompt:
        raise UsageError("a likelihood needs a prompt of at least one token", hint="write something into it")
    texts = [text + continuation for continuation in continuations]
    for whole in texts:
        require(whole, len(prompt))
    wholes = tokenizer.encode_many(texts, add_bos=add_bos)
    parted = [(common := matching.num_common(prompt, ids), ids[common:]) for ids in wholes]  # no whole one is held
    shared = min((common for common, _ in parted), default=len(prompt))
    rows = [prompt[shared:common] + rest for common, rest in parted]
    if shared == 0:  # nothing is left to condition on
        shared, rows = len(prompt), [tokenizer.encode(continuation) for continuation in continuations]
    for continuation, row in zip(continuations, rows, strict=True):
        if not row:
            raise UsageError(f"the continuation {continuation!r} has no tokens", hint="write something into it")
    return prompt[:shared], rows


def ends_of(tokenizer: Tokenizer, request: Request, rows: Sequence[list[int]], *, vocabulary: int) -> tuple[int, ...]:
    """The tokens of which one has to follow each row, as the end of an answer; none where that makes no difference.

    Where the tokens of one continuation begin another's ("1" and "10"), its likelihood is that of every answer that begins so, and the
    longer one could never be the likelier. An answer of a conversation is over at any of the tokens that end one, so after each row,
    not only after those that begin another, the sum of their likelihoods counts: what is compared is then, for all alike, how likely
    the answer is this continuation and nothing more. That is also what `tune` has learned. A prompt without a conversation goes on
    after a continuation, whatever comes; there it is compared as it is (as lm-eval-harness does), and the shorter one is likelier.
    """
    if not request.messages or not matching.some_begin_others(rows):
        return ()
    return tuple(token for token in tokenizer.special.stop_ids if token < vocabulary)


class Scorer:
    """Log-likelihoods with the cache in our hands. Not thread-safe: the engine has one caller at a time.

    A score depends on the prompt and its continuations alone, to the last bit: not on what was scored before, nor beside it.
    """

    def __init__(self, model: Any, properties: dict[str, str]) -> None:
        """`model`: of the graph that `graph` builds, or the folder of one. A model that is given is changed.

        Raises UnsupportedError for a graph that others built, such as optimum-intel.
        """
        from nomoat.engine import likelihood_graph

        with shutdown.waited_for():
            if isinstance(model, Path):
                model = read_graph(model)
            logits = model.output("logits").get_partial_shape()
            self._change(model)
            likelihood_graph.give_log_probabilities(model)
            self._part_tokens = max(1, min(PART_TOKENS, LOGIT_VALUES // logits[2].get_length()))
            self._request = core().compile_model(model, "CPU", properties).create_infer_request()
        self._kept_ids: list[int] = []
        self._kept_states: list[npt.NDArray[Any]] = []

    def beside(self, questions: Sequence[Question]) -> list[int]:
        """Which of these are read together with the first, which is one of them."""
        return [0]

    def score_many(self, questions: Sequence[Question], stop: threading.Event | None = None) -> list[list[ContinuationScore]]:
        """Of each question, the log-probability of each continuation, in their order; a bound of those that may stay unread.

        Raises StoppedError between two parts of one that is read alone once `stop` is set.
        """
        return [
            self._searched(one, stop)
            if one.is_searched
            else one.scores([self._log_probabilities(one.prompt, tree, stop) for _, tree in one.trees])
            for one in questions
        ]

    def _searched(self, question: Question, stop: threading.Event | None) -> list[ContinuationScore]:
        """The prompt first, whose keys and values stay for the steps after it."""
        search, count, fed = Search(question), len(question.prompt), list[int]()
        search.take_first(self._log_probabilities(question.prompt, search.first, stop))
        depths = np.array(search.tree.depths, np.int64)
        while nodes := search.step():
            _require_asked(stop)
            fed += nodes
            places_K = np.concatenate([np.arange(count), count + depths[fed]])
            sight = np.concatenate([np.ones((len(nodes), count), bool), search.sight(nodes, fed)], axis=1)
            which, rows_R, tokens_R = search.reads(nodes)
            search.take(which, self._infer(np.array(search.tree.ids)[nodes], places_K, sight, rows_R, tokens_R))
        return search.scores()

    def _log_probabilities(self, prompt: list[int], tree: Tree, stop: threading.Event | None) -> npt.NDArray[np.float64]:
        """What each read of the tree gives, [R]: the rest of the prompt and the tree are fed together, a part of them at a time."""
        begin = self._read_beginning(prompt, stop)
        count = len(prompt)
        ids = np.array(prompt[begin:] + tree.ids, np.int64)
        places_K = np.concatenate([np.arange(count), count + np.array(tree.depths, np.int64)])
        # A key is seen from itself to here: by all that follows the prompt's tokens, by a node's descendants.
        ends_K = np.concatenate([np.full(count, len(places_K)), count + tree.ends])
        rows_R, tokens_R = np.array(list(tree.reads), np.int64).T
        rows_R = rows_R + count
        values_R = np.zeros(len(rows_R))
        for start in range(begin, len(places_K), self._part_tokens):
            _require_asked(stop)
            end = min(len(places_K), start + self._part_tokens)
            queries = np.arange(start, end)[:, None]
            sight = (np.arange(end) <= queries) & (queries < ends_K[:end])
            here = np.flatnonzero((rows_R >= start) & (rows_R < end))
            part = ids[start - begin : end - begin]
            values_R[here] = self._infer(part, places_K[:end], sight, rows_R[here] - start, tokens_R[here])
        return values_R

    def _read_beginning(self, prompt: list[int], stop: threading.Event | None) -> int:
        """Have the prompt's whole parts before its last token in the cache, read or as kept. Returns how many tokens that is."""
        begin = (len(prompt) - 1) // PROMPT_PART_TOKENS * PROMPT_PART_TOKENS
        known = 0
        while known < min(begin, len(self._kept_ids)) and (
            prompt[known : known + PROMPT_PART_TOKENS] == self._kept_ids[known : known + PROMPT_PART_TOKENS]
        ):
            known += PROMPT_PART_TOKENS
        self._request.reset_state()
        if known:
            for state, kept in zip(self._request.query_state(), self._kept_states, strict=True):
                state.state = _tensor(kept[:, :, :known])
        for start in range(known, begin, PROMPT_PART_TOKENS):
            _require_asked(stop)
            end = start + PROMPT_PART_TOKENS
            self._infer(np.array(prompt[start:end]), np.arange(end), np.ones((1, end), bool), NOTHING, NOTHING)
        if begin > 2 * known:
            self._keep(prompt[:begin])
        return begin

    def _keep(self, ids: list[int]) -> None:
        self._kept_ids, self._kept_states = [], []  # the last prompt's are let go of first
        kept, room = [], KEPT_BYTES
        for state in self._request.query_state():  # one at a time: what OpenVINO gives is a copy, too
            kept.append(state.state.data.copy())
            room -= kept[-1].nbytes
            if room < 0:
                return
        self._kept_ids, self._kept_states = ids, kept

    def _infer(self, ids: Ints, places: Ints, sight: npt.NDArray[np.bool_], rows: Ints, tokens: Ints) -> npt.NDArray[np.float32]:
        """One pass over the last T of K tokens: the log-probability of each of `tokens` after the one of T that `rows` names, [R]."""
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": ids[None],
            "position_ids": np.ascontiguousarray(places[None, len(places) - len(ids) :]),
            "beam_idx": np.zeros(1, np.int32),
            **self._seen(len(ids), places, sight),
        }
        return self._run(inputs, rows, tokens)

    def _seen(self, count: int, places: Ints, sight: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[Any]]:
        """What the last `count` of K tokens see, as the graph takes it."""
        return {"places": np.ascontiguousarray(places), "sight": np.ascontiguousarray(sight[None, None])}

    def _run(self, inputs: dict[str, npt.NDArray[Any]], rows: Ints, tokens: Ints) -> npt.NDArray[np.float32]:
        count = len(rows)
        if count == 0:  # OpenVINO takes no empty input
            rows = tokens = np.zeros(1, np.int64)
        picked, where = np.unique(rows, return_inverse=True)
        reads = {"picked": picked, "reads": np.stack([where, tokens], axis=1)}
        with shutdown.waited_for():
            return np.array(self._request.infer(inputs | reads, share_outputs=True)[0])[:count]

    def _change(self, model: Any) -> None:
        """Let the model take what `_seen` gives instead of a mask."""
        from nomoat.engine import likelihood_graph

        likelihood_graph.take_sight(model)


def _require_asked(stop: threading.Event | None) -> None:
    if stop is not None and stop.is_set():
        raise StoppedError("the reading was stopped", hint="whoever asked for it has gone")


def _tensor(array: npt.NDArray[Any]) -> Any:
    import openvino as ov

    return ov.Tensor(np.ascontiguousarray(array))
