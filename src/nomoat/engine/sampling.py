"""Choosing the next token from its logits, as the request asks.

In this order: penalties, the schema's grammar, temperature, top-k, top-p, min-p, then a draw. Log-probabilities are the model's own,
from before all of that, over all its rows; those behind the last token are never chosen. Shapes: V vocabulary, C candidates.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nomoat.engine.grammar import Grammar
from nomoat.engine.tool_call_grammar import ToolCallGrammar
from nomoat.errors import BadFileError
from nomoat.records import Request

Logits = npt.NDArray[np.float32]
GROUP = 16  # tokens
COLDEST = float(np.finfo(np.float32).tiny)  # a temperature below it cannot be divided by
CANDIDATES = 1024  # sorted first where a share of likelihood is asked for; nearly always enough


@dataclass(frozen=True, slots=True)
class Pick:
    """A chosen token; where it was asked for with its log-probability, natural log, and the likeliest tokens with theirs."""

    token: int
    log_probability: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """The choices of one answer. With a seed they depend on the logits alone, whatever else is answered at the same time."""

    def __init__(
        self, request: Request, prompt: Sequence[int], grammar: Grammar | ToolCallGrammar | None = None, *,
        num_tokens: int = sys.maxsize,
    ) -> None:  # fmt: skip
        """`num_tokens`: what comes behind them in the logits is no token."""
        self._request = request
        self._grammar = grammar
        self._seen = set(prompt) if request.repetition_penalty != 1 else set()
        self._num_tokens = num_tokens
        self._counts: Counter[int] = Counter()
        self._penalised = request.repetition_penalty != 1 or request.presence_penalty != 0 or request.frequency_penalty != 0
        self._random = np.random.default_rng(None if request.seed is None else request.seed % 2**64)

    def pick(self, logits_V: Logits) -> Pick:
        """The next token. `logits_V` is not changed."""
        asked = self._request
        changed_V = logits_V
        is_held = self._grammar is not None and self._grammar.holds
        if self._penalised or is_held or self._num_tokens < len(logits_V):
            changed_V = logits_V.copy()
            changed_V[self._num_tokens :] = -np.inf
            self._penalise(changed_V)
        if self._grammar is not None and is_held:
            self._grammar.forbid(changed_V)
        token = int(changed_V.argmax())  # one that is no number, if there is any
        _require_number(changed_V[token])
        if asked.temperature != 0:
            token = self._draw(changed_V, changed_V[token])
        if self._grammar is not None:
            self._grammar.accept(token)
        if self._penalised:
            self._counts[token] += 1
            self._seen.add(token)
        if asked.top_logprobs is None:
            return Pick(token)
        return with_log_probability(logits_V, token, asked.top_logprobs)

    def _penalise(self, logits_V: Logits) -> None:
        """Repetition, over prompt and answer: Keskar et al. 2019, arXiv:1909.05858. The rest, over the answer: OpenAI's reference."""
        asked = self._request
        if asked.repetition_penalty != 1:
            seen = np.fromiter(self._seen, np.int64)
            values = logits_V[seen]
            logits_V[seen] = np.where(values > 0, values / asked.repetition_penalty, values * asked.repetition_penalty)
        if self._counts and (asked.presence_penalty or asked.frequency_penalty):
            tokens = np.fromiter(self._counts, np.int64)
            counts = np.fromiter(self._counts.values(), np.float32)
            logits_V[tokens] -= np.float32(asked.presence_penalty) + np.float32(asked.frequency_penalty) * counts

    def _draw(self, logits_V: Logits, highest: np.float32) -> int:
        asked = self._request
        with np.errstate(over="ignore"):  # at a temperature near 0 all but the likeliest are infinitely far from it
            scaled_V = (logits_V - highest) / np.float32(max(COLDEST, asked.temperature))
        tokens_C: npt.NDArray[np.intp] | None = None
        if asked.top_k and asked.top_k < len(scaled_V):
            tokens_C = largest(scaled_V, asked.top_k)
            scaled_V = scaled_V[tokens_C]
        weights_C = np.exp(scaled_V)
        if asked.top_p < 1:
            kept = _likeliest_share(weights_C, asked.top_p)
            tokens_C = kept if tokens_C is None else tokens_C[kept]
            weights_C = weights_C[kept]
        if asked.min_p > 0:
            weights_C = np.where(weights_C < np.float32(asked.min_p) * weights_C.max(), np.float32(0), weights_C)
        place = _drawn(weights_C, self._random.random())
        return place if tokens_C is None else int(tokens_C[place])


def with_log_probability(logits_V: Logits, token: int, num_top: int) -> Pick:
    """A token that is given, with its log-probability and the `num_top` likeliest ones, or all there are."""
    highest = logits_V.max()
    _require_number(highest)
    log_sum = float(highest) + float(np.log(np.exp(logits_V - highest).sum(dtype=np.float64)))
    top = largest(logits_V, min(num_top, len(logits_V))) if num_top else np.zeros(0, np.intp)
    top = top[np.argsort(-logits_V[top], kind="stable")]
    return Pick(token, float(logits_V[token]) - log_sum, tuple((int(at), float(logits_V[at]) - log_sum) for at in top))


def _require_number(highest: np.float32) -> None:
    """Raise BadFileError if the highest of all logits is none: of one that is NaN, numpy says that it is the highest."""
    if not np.isfinite(highest):
        raise BadFileError("the model's logits for this text are no numbers", hint="download its weights again: they may be damaged")


def largest(values_V: Logits, count: int) -> npt.NDArray[np.intp]:
    """Where the `count` largest values stand, in any order.

    So many of the largest of groups bound them from below, so that few are left to choose from: an order of all takes some ms.
    """
    places, size = None, len(values_V) // GROUP
    if size > 2 * count:
        groups = values_V[: size * GROUP].reshape(GROUP, size).max(axis=0)
        places = np.flatnonzero(values_V >= np.partition(groups, -count)[-count])
        values_V = values_V[places]
    found = np.argpartition(values_V, -count)[-count:]
    return found if places is None else places[found]


def _drawn(weights_C: Logits, chance: float) -> int:
    """A place, each as likely as its weight. `chance`: a number drawn from [0, 1).

    A group is drawn first, and then one of it: to sum all, one after another, takes longer than all else of a choice.
    """
    size = len(weights_C) // GROUP
    in_groups = weights_C[: size * GROUP].reshape(GROUP, size)
    sums = np.cumsum(np.concatenate([in_groups.sum(axis=0), weights_C[size * GROUP :]]), dtype=np.float64)
    aim = min(chance * sums[-1], np.nextafter(sums[-1], 0))
    at = int(np.searchsorted(sums, aim, side="right"))
    if at >= size:
        return size * (GROUP - 1) + at
    within = np.cumsum(in_groups[:, at], dtype=np.float64)
    aim = min(aim - (sums[at - 1] if at else 0.0), np.nextafter(within[-1], 0))
    return int(np.searchsorted(within, aim, side="right")) * size + at


def _likeliest_share(weights_C: Logits, share: float) -> npt.NDArray[np.intp]:
    """The fewest candidates that hold this share of the likelihood, the likeliest first.

    Source: Holtzman et al. 2020, arXiv:1904.09751.
    """
    total = float(weights_C.sum(dtype=np.float64)) * share
    size = min(CANDIDATES, len(weights_C))
    while True:
        some = largest(weights_C, size)
        order = some[np.argsort(-weights_C[some], kind="stable")]
        sums = np.cumsum(weights_C[order], dtype=np.float64)
        if sums[-1] >= total or size == len(weights_C):
            return order[: int(np.searchsorted(sums, total)) + 1]
        size = min(len(weights_C), size * 8)
