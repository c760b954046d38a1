"""How long a tuning will take, before it begins: a step through a few of the model's layers, timed here on a batch of the data.

What this does not cover: another program that starts meanwhile, and learning that is stopped early because it no longer helps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from nomoat import config, machine_code, system_errors
from nomoat.tune import adapter, execution, kernels, qlora
from nomoat.tune.network import Network
from nomoat.tune.prepare import Prepared
from nomoat.tune.samples import Sample, batches_of, computed_tokens, count_lessons, shared_prefix, side_by_side, wanted
from nomoat.tune.validation import FIRST_LESSONS, SECONDS_A_MINUTE, num_evaluations, seconds_for_base

PROBED_LAYERS = 2  # of those that learn, and of the frozen ones below
REPETITIONS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`learning_seconds`: of the epochs. `looking_seconds`: at the lessons held out. `seconds`: of both, or the minutes asked
    for if they are fewer, but no less than a step and the looks before and after it; without loading the model. `memory`: how the
    weights will be kept, and how much that takes, in words. `disk_bytes`: while it learns.
    """

    seconds: float
    learning_seconds: float
    looking_seconds: float
    tokens_per_second: float
    memory: str
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one batch in the frozen layers; and in all others, with learning and without."""

    reading: float
    learning: float
    evaluating: float


def estimate(prepared: Prepared, say: Callable[[str], None] | None = None) -> Estimate:
    """Measure some steps and multiply. Takes a second or two for a small model, some more where kernels are compiled.

    Raises NotEnoughMemoryError, NotEnoughDiskError.
    """
    precision = qlora.fastest_precision().value
    kernels.use_threads(config.threads().value, say, types=execution.types_in_tiles(prepared, precision))
    expanded = execution.keep_expanded(prepared, precision)
    settings, samples = prepared.settings, prepared.samples
    prefix = shared_prefix(prepared.all_samples)
    batches = sorted(batches_of(samples, prefix, max_lessons=settings.batch), key=lambda batch: computed_tokens(batch, prefix))
    typical = batches[len(batches) // 2]
    with system_errors.translate_disk_errors(machine_code.place() / "kernel"):
        cost = _cost(prepared, typical, prefix, precision, expanded.value)
    epoch = sum(computed_tokens(batch, prefix) for batch in batches) / computed_tokens(typical, prefix)  # in typical batches
    learned, held_out = (sum(map(len, lessons)) / prepared.survey.num_tokens for lessons in prepared.split)  # parts of an epoch
    if held_out:
        held_out *= _part_looked_at(prepared, (cost.reading + cost.evaluating) * epoch * held_out)
    epochs = settings.epochs
    is_kept = execution.bytes_kept(prepared, precision, expanded=expanded.value) > 0
    an_evaluation = (cost.evaluating + (0 if is_kept else cost.reading)) * epoch * held_out
    learning = (cost.reading * (1 if is_kept else epochs) + cost.learning * epochs) * epoch * learned
    budget = (settings.minutes or math.inf) * SECONDS_A_MINUTE
    evaluations = 1 + num_evaluations(epochs * min(1.0, budget / learning), settings.minutes, an_evaluation)
    evaluating = (cost.reading * (1 if is_kept else evaluations) + cost.evaluating * evaluations) * epoch * held_out
    least = (cost.reading + cost.evaluating) * epoch * held_out + an_evaluation + cost.reading + cost.learning
    return Estimate(
        seconds=min(learning + evaluating, max(budget, least)),
        learning_seconds=learning,
        looking_seconds=evaluating,
        tokens_per_second=prepared.survey.num_tokens * learned * epochs / learning,
        memory=f"weights {'kept expanded' if expanded.value else 'kept small'} ({expanded.reason})",
        disk_bytes=adapter.bytes_on_disk(execution.num_learned(prepared)),
    )


def _part_looked_at(prepared: Prepared, seconds: float) -> float:
    """Of the lessons held out, all of which take so many seconds at first: see `loop.Run.measure_base`."""
    least = FIRST_LESSONS / count_lessons(prepared.split[1])
    return min(1.0, max(least, seconds_for_base(prepared.settings.minutes) / seconds))


def _cost(prepared: Prepared, batch: Sequence[Sample], prefix: int, precision: qlora.Precision, keep_expanded: bool) -> Cost:
    """What a batch takes in the whole model: layers are as slow as those that are probed."""
    settings, layers = prepared.settings, prepared.sizes.layers
    learning, frozen = min(PROBED_LAYERS, settings.layers), min(PROBED_LAYERS, layers - settings.layers)
    network = Network(
        prepared.file, prepared.arch, replace(prepared.sizes, layers=frozen + learning),
        rank=settings.rank, seed=0, precision=precision, keep_expanded=keep_expanded, frozen=frozen,
    )  # fmt: skip
    beginning = network.begin(batch[0].tokens[:prefix]) if prefix else None
    ids, targets = side_by_side(batch, prefix)
    ids_BT, targets_BT, wanted_BT = map(torch.from_numpy, (ids, targets, wanted(targets, evened=True)))
    targets_N = targets_BT[wanted_BT]
    x_BTW = network.read(ids_BT, beginning)

    def through() -> torch.Tensor:
        return network.hidden(x_BTW, wanted_BT, beginning)

    def learn_from(hidden_NW: torch.Tensor) -> None:
        loss, _ = network.loss(hidden_NW, targets_N)
        loss.backward()

    last_NW = through().detach()
    read = _fastest(lambda: network.read(ids_BT, beginning))
    learn = _fastest(lambda: learn_from(through()))
    learn_top = _fastest(lambda: learn_from(last_NW.requires_grad_()))
    with torch.no_grad():
        evaluation = _fastest(lambda: network.losses(through(), targets_N))
        evaluation_top = _fastest(lambda: network.losses(last_NW, targets_N))
    scale = settings.layers / learning
    return Cost(
        reading=read * (layers - settings.layers) / frozen if frozen else read,
        learning=learn_top + max(0.0, learn - learn_top) * scale,
        evaluating=evaluation_top + max(0.0, evaluation - evaluation_top) * scale,
    )


def _fastest(work: Callable[[], object]) -> float:
    """Seconds, the best of some, after one that is not counted."""
    times = []
    for _ in range(1 + REPETITIONS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])
