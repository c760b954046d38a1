"""The training loop: sorted batches, a shared beginning computed once a batch, loss and logits on answer tokens only.

Shapes: B batch, T tokens after the shared beginning, N answer tokens.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy import stats

from nomoat import config, hardware, paths
from nomoat.catalog import licences
from nomoat.errors import NotEnoughMemoryError, UsageError
from nomoat.tune import adapter, prepare, qlora
from nomoat.tune.network import Network
from nomoat.tune.samples import BATCH_TOKENS, NOT_LEARNED, Sample, batches_of, shared_prefix, side_by_side

WARM_UP_PART = 0.06
SMALLEST_RATE_PART = 0.1
MAX_GRADIENT_NORM = 1.0
VALIDATION_PART, MAX_VALIDATION_LESSONS = 0.1, 200
LOOKS = 4  # at the lessons held out while learning, at even distances; with more epochs, one an epoch
PATIENCE, CLEARLY_WORSE = 2, 1.05  # so many looks in a row worse than the best by this factor, and the training ends
CHECKPOINT_SECONDS = 30.0
SECONDS_A_MINUTE = 60
PYTORCH_BYTES = 600_000_000
ADAPTER_BYTES_A_WEIGHT = 16  # itself, its gradient, and two means of AdamW, in f32
KEPT_PART = 3  # what the frozen layers say about all lessons is kept if it takes at most this part of the free memory

Stage = Literal["reading", "measuring the base", "tuning", "measuring the result"]
Settings = prepare.Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the user is told after each batch of a stage. `fraction` of the stage done lies in 0..1; "tuning" alone has the rest."""

    stage: Stage
    fraction: float
    step: int = 0
    loss: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float = 0.0


def tune(base: str, data_path: str | Path, *, name: str, data_licence: str = "own", resume: bool = False, replace: bool = False,
         on_progress: Callable[[Progress], None] | None = None, on_message: Callable[[str], None] | None = None,
         **options: Any) -> Path:  # fmt: skip
    """Tune `base` on a file and write the adapter `name`; from then on `BASE+NAME` answers. Returns the adapter's folder.

    `options` are those of `prepare.prepare`. `data_licence`: the id of the data's terms in the catalogue, "own" for your own; it
    enters the adapter's licence chain, and so does the teacher of data that `nomoat distil` made.
    Interrupted at any time (Ctrl-C, kill), the last checkpoint stays, and `resume=True` with the same arguments goes on from it.
    Raises UsageError, DataError, UnknownModelError, NotEnoughMemoryError, NotEnoughDiskError.
    """
    licences.require_known(data_licence)
    adapter.reserve(name, replace=replace, resume=resume)
    prepared = prepare.prepare(base, data_path, **options)
    return learn(
        prepared, name=name, data_licence=data_licence, resume=resume, replace=replace, on_progress=on_progress, on_message=on_message
    )


def learn(
    prepared: prepare.Prepared, *, name: str, data_licence: str = "own", resume: bool = False, replace: bool = False,
    on_progress: Callable[[Progress], None] | None = None, on_message: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """`tune`, with the data prepared already."""
    say = on_message or (lambda text: None)
    licences.require_known(data_licence)
    target = adapter.reserve(name, replace=replace, resume=resume)
    origin = adapter.Origin(
        base=prepared.base, weights=prepared.weights, data=prepared.data.path, data_licence=data_licence,
        num_lessons=len(prepared.data.lessons), settings=asdict(prepared.settings), task=prepared.options,
        teachers=prepared.sidecar.parents if prepared.sidecar else (),
    )  # fmt: skip
    busy = UsageError(f"`{name}` is being tuned by another nomoat right now", hint="wait for it, or choose another --name")
    with paths.alone(target, busy=busy):  # they would write into one checkpoint
        checkpoint = adapter.Checkpoint(target, origin)
        saved = checkpoint.load() if resume else None
        torch.set_num_threads(config.threads().value)
        precision = saved["precision"] if saved else _measured_precision(say)
        run = Run(prepared, precision=precision, say=say)
        if saved:
            run.restore(saved)
            say(f"going on from step {run.step}, {run.fraction:.0%} of the work")
        run.read_all(on_progress, say)
        if not saved and run.validation:
            run.losses_before = run.validation_losses("measuring the base", on_progress)
        run.train(checkpoint, on_progress, say)
        run.use_best()
        metrics = run.metrics(run.validation_losses("measuring the result", on_progress))
        adapter.save(target, run.network.parameters, origin, metrics, asdict(prepared.survey))
        checkpoint.remove()
    return target


def _measured_precision(say: Callable[[str], None]) -> str:
    found = qlora.fastest_precision()
    say(f"precision: {found.value} ({found.reason})")
    return found.value


def keep_expanded(prepared: prepare.Prepared, dtype: torch.dtype) -> hardware.Detected[bool]:
    """Whether the weights fit into memory expanded, or have to stay int8 codes and be expanded layer by layer.

    Raises NotEnoughMemoryError if neither fits.
    """
    sizes, settings = prepared.sizes, prepared.settings
    free = hardware.memory_available_bytes().value
    values = prepared.file.num_values
    shapes = [prepared.file.tensor(f"blk.0.{name}.weight").shape for name in prepared.arch.projections.values()]
    per_layer = sum(rows + columns for rows, columns in shapes)
    learned = ADAPTER_BYTES_A_WEIGHT * settings.rank * settings.layers * per_layer
    tokens = max(len(batch) * max(map(len, batch)) for batch in batches_of(prepared.samples, 0, max_lessons=settings.batch))
    state = 4 * (12 * sizes.width + 4 * sizes.hidden)  # bytes a token and layer that wait for the backward pass
    expanded = PYTORCH_BYTES + values * dtype.itemsize + learned + tokens * settings.layers * state
    codes = PYTORCH_BYTES + values + learned + tokens * (settings.layers * 4 * sizes.width + 3 * state)
    if expanded < free:
        return hardware.Detected(True, f"about {expanded / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
    if codes < free:
        why = f"expanded they need about {expanded / 1e9:.1f} GB, as int8 {codes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        return hardware.Detected(False, why)
    raise NotEnoughMemoryError(
        f"tuning `{prepared.weights.name}` needs about {codes / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
        hint="tune a smaller model (`nomoat models --fits`), take a lower --rank or --batch, or close other programs",
    )


def bytes_kept(prepared: prepare.Prepared, prefix: int) -> int:
    """Memory for what the frozen layers say about all lessons, after their shared beginning. 0: each step computes that anew.

    It does without frozen layers, in a single epoch, and for want of memory.
    """
    size = 4 * prepared.sizes.width * sum(len(sample) - prefix for sample in prepared.samples)
    none_frozen = prepared.settings.layers == prepared.sizes.layers
    if none_frozen or prepared.settings.epochs <= 1 or size * KEPT_PART > hardware.memory_available_bytes().value:
        return 0
    return size


class Run:
    """The state of one training: model, optimiser, order of the batches, and how far it is."""

    def __init__(self, prepared: prepare.Prepared, *, precision: str, say: Callable[[str], None]) -> None:
        self.settings = prepared.settings
        samples = prepared.samples
        order = random.Random(self.settings.seed).sample(range(len(samples)), len(samples))
        held_out = min(MAX_VALIDATION_LESSONS, int(len(samples) * VALIDATION_PART))
        self.validation = [samples[at] for at in order[:held_out]]
        self.training = [samples[at] for at in order[held_out:]]
        self.prefix = shared_prefix(samples)
        if self.prefix:
            say(f"shared beginning: {self.prefix} tokens of every lesson are computed once a batch")
        self.precision = precision
        dtype: torch.dtype = getattr(torch, precision)
        kept = keep_expanded(prepared, dtype)
        say(f"weights: {'kept expanded' if kept.value else 'expanded layer by layer, activations computed twice'} ({kept.reason})")
        self.network = Network(
            prepared.file, prepared.arch, prepared.sizes, rank=self.settings.rank, seed=self.settings.seed, dtype=dtype,
            keep_expanded=kept.value, frozen=prepared.sizes.layers - self.settings.layers,
        )  # fmt: skip
        self.beginning = self.network.begin(samples[0].tokens[: self.prefix]) if self.prefix else None
        self.bytes_kept = bytes_kept(prepared, self.prefix)
        self.kept: dict[int, torch.Tensor] = {}  # what the frozen layers say about each lesson, by its identity
        self.parameters = list(self.network.parameters.values())
        say(
            f"adapter: rank {self.settings.rank} on the upper {self.settings.layers} of {prepared.sizes.layers} layers, "
            f"{sum(p.numel() for p in self.parameters):,} weights to learn; learning rate "
            f"{self.settings.learning_rate:g}, {self.settings.epochs:g} epochs, {self.settings.batch} lessons a step"
        )
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.settings.learning_rate, weight_decay=0.0, fused=True)
        self.step, self.lessons_done, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.losses_before: list[float] = []
        self.history: list[dict[str, float]] = []  # of each look: fraction, seconds, and the loss a token, learning and held out
        self.best: dict[str, torch.Tensor] | None = None
        self.learning_loss = 0.0  # a running mean

    # ---------------------------------------------------------------- how far
    @property
    def fraction(self) -> float:
        """How much of the work is done, 0..1: of the epochs or of the minutes, whichever is nearer to its end."""
        by_lessons = self.lessons_done / (self.settings.epochs * len(self.training))
        minutes = self.settings.minutes
        return min(1.0, max(by_lessons, self.seconds / (minutes * SECONDS_A_MINUTE) if minutes else 0.0))

    NUMBERS = ("step", "lessons_done", "tokens", "seconds", "losses_before", "history", "best", "learning_loss")

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here."""
        return {
            "learned": self._learned(), "optimizer": self.optimizer.state_dict(), "precision": self.precision,
            "numbers": {name: getattr(self, name) for name in self.NUMBERS},
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._use(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["numbers"].items():
            setattr(self, name, value)

    def use_best(self) -> None:
        """Go back to the weights with the lowest loss on the lessons held out."""
        if self.best is not None:
            self._use(self.best)

    def _learned(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.network.parameters.items()}

    def _use(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self.network.parameters[name].copy_(value)

    # ---------------------------------------------------------------- work
    def train(
        self, checkpoint: adapter.Checkpoint, on_progress: Callable[[Progress], None] | None, say: Callable[[str], None]
    ) -> None:
        """Train to the end. A checkpoint is written every half minute, at the end, and when the work is stopped by Ctrl-C."""
        started, saved_at = time.perf_counter() - self.seconds, time.perf_counter()
        batches: list[list[Sample]] = []
        try:
            while self.fraction < 1:
                epoch, within = divmod(self.lessons_done, len(self.training))
                if not batches:  # the order depends on seed and epoch only, so that a resumed run meets the same batches
                    batches = self._batches(epoch)
                    while batches and within > 0:
                        within -= len(batches.pop(0))
                batch = batches.pop(0)
                loss = self._learn(batch)
                if not math.isfinite(loss):
                    raise UsageError(
                        f"learning has failed: after {self.step} steps the loss is no number any more",
                        hint=f"the learning rate is {self.settings.learning_rate:g}: choose a lower one",
                    )
                self.step += 1
                self.lessons_done += len(batch)
                self.tokens += sum(map(len, batch))
                self.learning_loss = loss if self.step == 1 else 0.95 * self.learning_loss + 0.05 * loss
                self.seconds = time.perf_counter() - started
                if on_progress:
                    on_progress(
                        Progress(
                            stage="tuning", step=self.step, fraction=self.fraction, loss=loss, seconds=self.seconds,
                            tokens_per_second=self.tokens / self.seconds,
                        )
                    )  # fmt: skip
                if self.validation and self.fraction * max(LOOKS, math.ceil(self.settings.epochs)) >= len(self.history) + 1:
                    self._look()
                    started = time.perf_counter() - self.seconds  # looking is not learning
                    if self._has_stopped_learning():
                        say(f"stopped early: {PATIENCE} looks at the lessons held out were clearly worse than the best")
                        break
                if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                    checkpoint.save(self.state())
                    saved_at = time.perf_counter()
        except KeyboardInterrupt:
            checkpoint.save(self.state())
            raise
        checkpoint.save(self.state())  # what follows may be interrupted, too, or meet a full disk

    def _look(self) -> None:
        loss = self._mean(self.validation_losses())
        if loss < min((look["held_out"] for look in self.history), default=math.inf):
            self.best = self._learned()
        self.history.append(
            {"fraction": self.fraction, "seconds": self.seconds, "learning": self.learning_loss, "held_out": loss}
        )  # fmt: skip

    def _has_stopped_learning(self) -> bool:
        losses = [look["held_out"] for look in self.history]
        return len(losses) > PATIENCE and min(losses[-PATIENCE:]) > CLEARLY_WORSE * min(losses[:-PATIENCE])

    def _mean(self, losses: Sequence[float]) -> float:
        return sum(losses) / sum(sample.num_learned for sample in self.validation)

    def validation_losses(self, stage: Stage | None = None, on_progress: Callable[[Progress], None] | None = None) -> list[float]:
        """Summed loss of each lesson held out, in the order of `self.validation`."""
        places = {id(sample): at for at, sample in enumerate(self.validation)}
        losses = [0.0] * len(self.validation)
        batches = batches_of(self.validation, self.prefix, max_lessons=32)
        with torch.no_grad():
            for done, batch in enumerate(batches):
                if on_progress and stage:
                    on_progress(Progress(stage=stage, fraction=done / len(batches)))
                hidden_BTW, targets_BT = self._hidden(batch)
                for sample, hidden, targets in zip(batch, hidden_BTW, targets_BT, strict=True):
                    learned = targets != NOT_LEARNED
                    mean, count = self.network.loss(hidden[learned], targets[learned]), int(learned.sum())
                    losses[places[id(sample)]] = float(mean) * count
        return losses

    def metrics(self, losses_after: Sequence[float]) -> dict[str, Any]:
        """What is written about the training. Losses are per answer token; the change is paired over the lessons held out."""
        lengths = [sample.num_learned for sample in self.validation]
        change = None
        if len(lengths) > 1:
            pairs = [(after - before) / n for before, after, n in zip(self.losses_before, losses_after, lengths, strict=True)]
            mean, error = float(np.mean(pairs)), float(np.std(pairs, ddof=1) / len(pairs) ** 0.5)
            reach = float(stats.t.ppf(0.975, len(pairs) - 1)) * error
            change = [round(mean - reach, 4), round(mean + reach, 4)]
        return {
            "validation_lessons": len(self.validation),
            "validation_loss_before": self._mean(self.losses_before) if lengths else None,
            "validation_loss_after": self._mean(losses_after) if lengths else None,
            "validation_loss_change_95": change,
            "history": self.history,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "tokens": self.tokens,
            "precision": self.precision,
        }

    def _batches(self, epoch: int) -> list[list[Sample]]:
        """Batches of lessons of like length, in an order that depends on seed and epoch."""
        shuffled = random.Random(f"{self.settings.seed}/{epoch}")
        lessons = shuffled.sample(self.training, len(self.training))
        batches = batches_of(lessons, self.prefix, max_lessons=self.settings.batch)
        shuffled.shuffle(batches)
        return batches

    def _learn(self, batch: list[Sample]) -> float:
        done = self.fraction
        warm = min(1.0, (self.step + 1) / 10, (done + 1e-9) / WARM_UP_PART if done < WARM_UP_PART else 1.0)
        rate = self.settings.learning_rate * max(warm if warm < 1 else 1 - done, SMALLEST_RATE_PART)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        hidden_BTW, targets_BT = self._hidden(batch)
        learned = targets_BT != NOT_LEARNED
        loss = self.network.loss(hidden_BTW[learned], targets_BT[learned])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def read_all(self, on_progress: Callable[[Progress], None] | None, say: Callable[[str], None]) -> None:
        """Bring every lesson through the frozen layers once, and keep what they say, if that is worth it: see `bytes_kept`.

        The batches are always the same, so that a resumed run meets the same numbers.
        """
        if not self.bytes_kept:
            return
        lessons = [*self.training, *self.validation]
        size = f"{self.bytes_kept / 1e9:.1f} GB"
        say(f"the lowest {self.network.frozen} layers stay as they are: what they say is computed once and kept ({size})")
        batches = batches_of(lessons, self.prefix, max_lessons=BATCH_TOKENS)
        for done, batch in enumerate(batches):
            if on_progress:
                on_progress(Progress(stage="reading", fraction=done / len(batches)))
            ids_BT, _ = side_by_side(batch, self.prefix)
            x_BTW = self.network.read(torch.from_numpy(ids_BT), self.beginning)
            for lesson, row in zip(batch, x_BTW, strict=True):
                self.kept[id(lesson)] = row[: len(lesson) - self.prefix].clone()

    def _hidden(self, batch: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last layer says at each position [B, T, W], and what comes next there [B, T]."""
        ids_BT, targets_BT = (torch.from_numpy(array) for array in side_by_side(batch, self.prefix))
        if self.kept:
            x_BTW = torch.nn.utils.rnn.pad_sequence([self.kept[id(lesson)] for lesson in batch], batch_first=True)
        else:
            x_BTW = self.network.read(ids_BT, self.beginning)
        return self.network.hidden(x_BTW, self.beginning), targets_BT
