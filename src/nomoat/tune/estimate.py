"""How long a tuning will take, before it begins: a step through a few of the model's layers, timed here on a batch of the data.

What this does not cover: another program that starts meanwhile, and learning that is stopped early because it no longer helps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nomoat import config
from nomoat.tune import qlora, train
from nomoat.tune.network import Network
from nomoat.tune.prepare import Prepared
from nomoat.tune.samples import NOT_LEARNED, Sample, batches_of, shared_prefix, side_by_side

PROBED_LAYERS = 2
REPETITIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`learning_seconds`: of the epochs or the minutes asked for, the shorter. `looking_seconds`: at the lessons held out.

    `memory`: how the weights will be kept, and how much memory that takes, in words.
    """

    learning_seconds: float
    looking_seconds: float
    tokens_per_second: float
    memory: str

    @property
    def seconds(self) -> float:
        """All of it, without loading the model."""
        return self.learning_seconds + self.looking_seconds


def estimate(prepared: Prepared) -> Estimate:
    """Measure some steps and multiply. Takes a second or two for a small model. Raises NotEnoughMemoryError."""
    torch.set_num_threads(config.threads().value)
    dtype: torch.dtype = getattr(torch, qlora.fastest_precision().value)
    kept = train.keep_expanded(prepared, dtype)
    settings, samples = prepared.settings, prepared.samples
    prefix = shared_prefix(samples)
    batches = sorted(batches_of(samples, prefix, max_lessons=settings.batch), key=lambda batch: _computed(batch, prefix))
    typical = batches[len(batches) // 2]
    learning, looking = (seconds / _computed(typical, prefix) for seconds in _step(prepared, typical, prefix, dtype, kept.value))
    computed = sum(_computed(batch, prefix) for batch in batches)  # of an epoch, held-out lessons among them
    held_out = min(train.MAX_VALIDATION_LESSONS, int(len(samples) * train.VALIDATION_PART)) / len(samples)
    learning_seconds = learning * computed * (1 - held_out) * settings.epochs
    full_seconds = learning_seconds
    if settings.minutes:
        learning_seconds = min(learning_seconds, settings.minutes * train.SECONDS_A_MINUTE)
    looks = 2 + max(train.LOOKS, math.ceil(settings.epochs))
    tokens = prepared.survey.num_tokens * (1 - held_out) * settings.epochs
    return Estimate(
        learning_seconds=learning_seconds,
        looking_seconds=looking * computed * held_out * looks,
        tokens_per_second=tokens / full_seconds,
        memory=f"weights {'kept expanded' if kept.value else 'expanded layer by layer'} ({kept.reason})",
    )


def _computed(batch: Sequence[Sample], prefix: int) -> int:
    """Tokens that a step computes, padding among them."""
    return prefix + len(batch) * (max(map(len, batch)) - prefix)


def _step(prepared: Prepared, batch: Sequence[Sample], prefix: int, dtype: torch.dtype, keep_expanded: bool) -> tuple[float, float]:
    """Seconds of a step that learns, and of one that only looks, of the whole model: layers are as slow as those that are probed."""
    layers = min(PROBED_LAYERS, prepared.sizes.layers)
    network = Network(
        prepared.file, prepared.arch, replace(prepared.sizes, layers=layers),
        rank=prepared.settings.rank, seed=0, dtype=dtype, keep_expanded=keep_expanded,
    )  # fmt: skip
    ids, targets = (torch.from_numpy(array) for array in side_by_side(batch, prefix))
    learned = targets != NOT_LEARNED
    scale = prepared.sizes.layers / layers

    def hidden() -> torch.Tensor:
        cache = network.read_prefix(batch[0].tokens[:prefix]) if prefix else None
        return network.hidden(ids, cache)[learned]

    def learn() -> None:
        network.loss(hidden(), targets[learned]).backward()

    def head() -> None:
        network.loss(given.detach().requires_grad_(), targets[learned]).backward()

    def look() -> None:
        with torch.no_grad():
            network.loss(hidden(), targets[learned])

    given = hidden()
    whole, top, looking = (_fastest(work) for work in (learn, head, look))
    return top + max(0.0, whole - top) * scale, looking * scale


def _fastest(work: Any) -> float:
    """Seconds, the best of some, after one that is not counted."""
    times = []
    for _ in range(1 + REPETITIONS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])
