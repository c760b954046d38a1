"""The training loop: sorted batches, a shared prompt beginning computed once a batch, loss and logits on answer tokens only.

Shapes: B batch, P tokens every prompt begins with, T tokens after them, V vocabulary, N answer tokens.
"""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nomoat import config, paths, responder
from nomoat.engine import importer, tokenizer
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import DataError, UsageError
from nomoat.tune import adapter, data, qlora

BATCH_TOKENS = 2048  # tokens computed in a step, about: long lessons make small batches
MAX_BATCH_LESSONS = 32
WARM_UP_PART = 0.06
SMALLEST_RATE_PART = 0.1
MAX_GRADIENT_NORM = 1.0
VALIDATION_PART, MAX_VALIDATION_LESSONS = 0.1, 200
CHECKPOINT_SECONDS = 30.0
SECONDS_A_MINUTE = 60

Stage = Literal["measuring the base", "tuning", "measuring the result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train. `minutes` bounds the time of training itself and wins over `epochs` when it is shorter."""

    rank: int = 16
    learning_rate: float = 8e-4
    epochs: float = 2.0
    minutes: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "seed" and value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value}", hint="give a number above 0")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}", hint="give a whole number from 0 up to 2**63")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the user is told after each batch of a stage. `fraction` of the stage done lies in 0..1; "tuning" alone has the rest."""

    stage: Stage
    fraction: float
    step: int = 0
    loss: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A lesson in tokens; `answer` ends with the token that ends a turn."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def tune(
    base: str, data_path: str | Path, *, name: str, input_column: str | None = None, label_column: str | None = None,
    instruction: str | None = None, data_licence: str = "own", settings: Settings | None = None,
    resume: bool = False, replace: bool = False,
    on_progress: Callable[[Progress], None] | None = None, on_message: Callable[[str], None] | None = None,
) -> Path:  # fmt: skip
    """Tune `base` on a file and write the adapter `name`; from then on `BASE+NAME` answers. Returns the adapter's folder.

    `data_licence`: the id of the data's terms in the catalogue, "own" for your own; it enters the adapter's licence chain.
    Interrupted at any time (Ctrl-C, kill), the last checkpoint stays, and `resume=True` with the same arguments goes on from it.
    Raises UsageError, DataError, UnknownModelError, NotEnoughMemoryError, NotEnoughDiskError.
    """
    say = on_message or (lambda text: None)
    settings = settings or Settings()
    target = adapter.reserve(name, replace=replace, resume=resume)
    files = responder.find_files(base)
    if files.adapter is not None:
        raise UsageError(f"`{base}` is a tuned model already", hint=f"tune its base: `{files.name}`")
    lessons = data.read_lessons(Path(data_path), input_column=input_column, label_column=label_column, instruction=instruction)
    file = GGUFFile(files.weights)
    words = tokenizer.from_metadata(file.metadata)
    sizes = importer.read_sizes(file)
    if settings.rank > sizes.width:
        raise UsageError(f"rank is {settings.rank:,}, and the model is {sizes.width:,} wide", hint="16 is usual, and 64 is much")
    samples = encode(lessons, words, context_tokens=sizes.context_tokens, path=Path(data_path))
    say(f"data: {len(lessons):,} lessons, {sum(map(len, samples)):,} tokens, the longest {max(map(len, samples)):,}")
    origin = adapter.Origin(
        base=files.name, weights=files.weights, data=Path(data_path), data_licence=data_licence, num_lessons=len(lessons),
        settings=asdict(settings),
        task={"input_column": input_column, "label_column": label_column, "instruction": instruction},
    )  # fmt: skip
    busy = UsageError(f"`{name}` is being tuned by another nomoat right now", hint="wait for it, or choose another --name")
    with paths.alone(target, busy=busy):  # they would write into one checkpoint
        checkpoint = adapter.Checkpoint(target, origin)
        saved = checkpoint.load() if resume else None
        torch.set_num_threads(config.threads().value)
        precision = saved["precision"] if saved else _measured_precision(say)
        run = Run(files.weights, samples, settings, precision=precision, say=say)
        if saved:
            run.restore(saved)
            say(f"going on from step {run.step}, {run.fraction:.0%} of the work")
        elif run.validation:
            run.loss_before = run.validation_loss("measuring the base", on_progress)
        run.train(checkpoint, on_progress)
        metrics = {
            "validation_lessons": len(run.validation),
            "validation_loss_before": run.loss_before,
            "validation_loss_after": run.validation_loss("measuring the result", on_progress) if run.validation else None,
            "steps": run.step,
            "seconds": round(run.seconds, 1),
            "tokens": run.tokens,
            "precision": precision,
        }
        adapter.save(target, run.model, origin, metrics)
        checkpoint.remove()
    return target


def _measured_precision(say: Callable[[str], None]) -> str:
    found = qlora.fastest_precision()
    say(f"precision: {found.value} ({found.reason})")
    return found.value


def encode(lessons: Sequence[data.Lesson], words: tokenizer.Tokenizer, *, context_tokens: int, path: Path) -> list[Sample]:
    """Lessons in tokens. Raises DataError for the first that does not fit into the context: nothing is cut."""
    samples = []
    for lesson in lessons:
        sample = Sample(
            prompt=words.encode(words.render(lesson.messages)), answer=[*words.encode(lesson.answer), words.special.eos_id]
        )
        if len(sample) > context_tokens:
            raise DataError(
                f"`{path}`, line {lesson.line}: {len(sample):,} tokens, and the model's context is {context_tokens:,}",
                hint="shorten that text or remove it; nomoat cuts nothing",
            )
        samples.append(sample)
    return samples


def shared_prefix(samples: Sequence[Sample]) -> int:
    """How many tokens every prompt begins with; at least one token of each prompt is left to be its own."""
    first, last = min(s.prompt for s in samples), max(s.prompt for s in samples)
    shared = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, min(len(s.prompt) for s in samples) - 1)


class Run:
    """The state of one training: model, optimiser, order of the batches, and how far it is."""

    def __init__(
        self, weights: Path, samples: Sequence[Sample], settings: Settings, *, precision: str, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        order = random.Random(settings.seed).sample(range(len(samples)), len(samples))
        held_out = min(MAX_VALIDATION_LESSONS, int(len(samples) * VALIDATION_PART))
        self.validation = [samples[at] for at in order[:held_out]]
        self.training = [samples[at] for at in order[held_out:]]
        self.prefix = shared_prefix(samples)
        if self.prefix:
            say(f"shared beginning: {self.prefix} tokens of every prompt are computed once a batch")
        self.precision = precision
        self.dtype: torch.dtype = getattr(torch, precision)
        model = qlora.load_model(weights, dtype=self.dtype)
        self.model = qlora.add_lora(model, rank=settings.rank, seed=settings.seed)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        say(f"adapter: rank {settings.rank}, {sum(p.numel() for p in self.parameters):,} weights to learn")
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.learning_rate, weight_decay=0.0)
        self.step, self.lessons_done, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.loss_before: float | None = None

    # ---------------------------------------------------------------- how far
    @property
    def fraction(self) -> float:
        """How much of the work is done, 0..1: of the epochs or of the minutes, whichever is nearer to its end."""
        by_lessons = self.lessons_done / (self.settings.epochs * len(self.training))
        minutes = self.settings.minutes
        return min(1.0, max(by_lessons, self.seconds / (minutes * SECONDS_A_MINUTE) if minutes else 0.0))

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here."""
        learned = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        numbers = {name: getattr(self, name) for name in ("step", "lessons_done", "tokens", "seconds", "loss_before")}
        return {
            "learned": learned, "optimizer": self.optimizer.state_dict(), "numbers": numbers, "precision": self.precision,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        learned = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["learned"].items():
                learned[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["numbers"].items():
            setattr(self, name, value)

    # ---------------------------------------------------------------- work
    def train(self, checkpoint: adapter.Checkpoint, on_progress: Callable[[Progress], None] | None) -> None:
        """Train to the end. A checkpoint is written every half minute, at the end, and when the work is stopped by Ctrl-C."""
        self.model.train()
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
                self.seconds = time.perf_counter() - started
                if on_progress:
                    on_progress(
                        Progress(
                            stage="tuning",
                            step=self.step,
                            fraction=self.fraction,
                            loss=loss,
                            seconds=self.seconds,
                            tokens_per_second=self.tokens / self.seconds,
                        )
                    )
                if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                    checkpoint.save(self.state())
                    saved_at = time.perf_counter()
        except KeyboardInterrupt:
            checkpoint.save(self.state())
            raise
        checkpoint.save(self.state())  # what follows may be interrupted, too, or meet a full disk

    def validation_loss(self, stage: Stage, on_progress: Callable[[Progress], None] | None = None) -> float:
        """Mean loss an answer token on the lessons held out."""
        self.model.eval()
        total, count = 0.0, 0
        batches = pack(sorted(self.validation, key=len), self.prefix)
        with torch.no_grad():
            for done, batch in enumerate(batches):
                if on_progress:
                    on_progress(Progress(stage=stage, fraction=done / len(batches)))
                loss, num_tokens = self._loss(batch)
                total, count = total + float(loss) * num_tokens, count + num_tokens
        return total / count

    def _batches(self, epoch: int) -> list[list[Sample]]:
        """Batches of lessons of like length, in an order that depends on seed and epoch."""
        shuffled = random.Random(f"{self.settings.seed}/{epoch}")
        lessons = shuffled.sample(self.training, len(self.training))
        batches = pack(sorted(lessons, key=len), self.prefix)
        shuffled.shuffle(batches)
        return batches

    def _learn(self, batch: list[Sample]) -> float:
        done = self.fraction
        warm = min(1.0, (self.step + 1) / 10, (done + 1e-9) / WARM_UP_PART if done < WARM_UP_PART else 1.0)
        rate = self.settings.learning_rate * max(warm if warm < 1 else 1 - done, SMALLEST_RATE_PART)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, _ = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _loss(self, batch: Sequence[Sample]) -> tuple[torch.Tensor, int]:
        """Mean cross-entropy of the answer tokens, and how many there are."""
        ids_BT, real_BT, answers_BT = _side_by_side(batch, self.prefix)
        network = self.model.get_base_model()
        with torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not torch.float32):
            cache = self._read_prefix(network, batch[0].prompt[: self.prefix], len(batch)) if self.prefix else None
            mask = torch.cat([torch.ones(len(batch), self.prefix, dtype=torch.long), real_BT], dim=1)
            hidden_BTW = network.model(
                input_ids=ids_BT, attention_mask=mask, use_cache=cache is not None,
                position_ids=torch.arange(self.prefix, self.prefix + ids_BT.shape[1])[None].expand_as(ids_BT),
                **{_cache_argument(network.model): cache},
            ).last_hidden_state  # fmt: skip
            where_BT = answers_BT[:, 1:] >= 0
            logits_NV = network.lm_head(hidden_BTW[:, :-1][where_BT])
        targets_N = answers_BT[:, 1:][where_BT]
        return torch.nn.functional.cross_entropy(logits_NV.float(), targets_N), len(targets_N)

    @staticmethod
    def _read_prefix(network: Any, prefix: list[int], count: int) -> Any:
        """Keys and values of the shared beginning, computed once and given to all; gradients of all flow back through it."""
        from transformers import DynamicCache

        cache = DynamicCache()
        network.model(input_ids=torch.tensor([prefix]), use_cache=True, **{_cache_argument(network.model): cache})
        shared = DynamicCache()
        for index, layer in enumerate(cache.layers):
            shared.update(layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1), index)
        return shared


def _cache_argument(model: torch.nn.Module) -> str:
    """What this version of transformers calls the keys and values of earlier tokens (`past_key_values` before 5.24)."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def pack(lessons: Sequence[Sample], prefix: int) -> list[list[Sample]]:
    """Neighbours put into batches of at most BATCH_TOKENS computed tokens (padding included) and MAX_BATCH_LESSONS lessons."""
    batches: list[list[Sample]] = []
    width = 0
    for sample in lessons:
        width = max(width, len(sample) - prefix)
        full = batches and (len(batches[-1]) == MAX_BATCH_LESSONS or width * (len(batches[-1]) + 1) > BATCH_TOKENS)
        if full or not batches:
            batches.append([])
            width = len(sample) - prefix
        batches[-1].append(sample)
    return batches


def _side_by_side(batch: Sequence[Sample], prefix: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, which of them are real, and the answers' ids (elsewhere -1), of what follows the prefix: all [B, T]."""
    width = max(map(len, batch)) - prefix
    ids, real = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width, dtype=torch.long)
    answers = torch.full((len(batch), width), -1)
    for at, sample in enumerate(batch):
        row = sample.prompt[prefix:] + sample.answer
        ids[at, : len(row)], real[at, : len(row)] = torch.tensor(row), 1
        answers[at, len(row) - len(sample.answer) : len(row)] = torch.tensor(sample.answer)
    return ids, real, answers
