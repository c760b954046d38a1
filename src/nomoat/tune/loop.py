"""The training loop: sorted batches, a shared beginning computed once a batch, loss and logits on answer tokens only.

Shapes: B batch, T tokens after the shared beginning, N answer tokens.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from scipy import special

from nomoat import config
from nomoat.errors import UsageError
from nomoat.tune import adapter, execution, prepare, threads, verdict
from nomoat.tune.execution import ExecutionPlan
from nomoat.tune.network import Network
from nomoat.tune.samples import (
    MOST_LOOKED_AT,
    Sample,
    batches_of,
    computed_tokens,
    count_lessons,
    count_texts,
    drawn,
    shared_prefix,
    side_by_side,
    texts_of,
    wanted,
)
from nomoat.tune.soap import Soap
from nomoat.tune.sweeps import LEAST_KNOWN_PART, Sweeps
from nomoat.tune.validation import (
    BASE_PART,
    SECONDS_A_MINUTE,
    is_better,
    is_clearly_worse,
    num_evaluations,
    num_next,
    seconds_for_base,
)
from nomoat.uncut import uncut
from nomoat.words import counted

WARM_UP_PART = 0.06
SMALLEST_RATE_PART = 0.1
MAX_GRADIENT_NORM = 1.0
AVERAGED_PART = 0.1  # of all steps so far: over about so many the weights are averaged
PATIENCE = 2  # so many looks in a row clearly worse than those before, and the training ends
STOPPED_EARLY = f"stopped early: {PATIENCE} looks at the lessons held out were clearly worse than the best"
CHECKPOINT_SECONDS = 30.0
LARGE_PART = 0.25  # of a step's tokens
MORE_TIME = "more --minutes (in Python: `minutes`) learn more"

SECONDS_UNSAID = 1.0  # of reading the weights: small models are read before anyone asks how far it is
Stage = Literal["reading the weights", "measuring the base", "tuning"]
OnProgress = Callable[["StageProgress"], None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """What the user is told after each batch of a stage. `fraction` of the stage done lies in 0..1. `seconds_left` of the stage: as
    fast as it went so far, None before anything can tell. "tuning" alone has the rest.
    """

    stage: Stage
    fraction: float
    seconds_left: float | None = None
    step: int = 0
    loss: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float = 0.0


class Run:
    """The state of one training: model, optimiser, order of the batches, and how far it is."""

    def __init__(
        self, prepared: prepare.Prepared, *, plan: ExecutionPlan, say: Callable[[str], None], on_progress: OnProgress = None
    ) -> None:
        self.settings, self.plan = prepared.settings, plan
        self.training, self.all_held_out = prepared.split
        self.prefix = shared_prefix(prepared.all_samples)
        self.sweeps = Sweeps(self.training, self.prefix, self.settings)
        self._drawn = drawn(self.all_held_out, self.settings.seed)
        self.lessons_looked_at = len(self._drawn)
        self.look_at(self.all_held_out)
        if self.prefix:
            say(f"shared beginning: {self.prefix} tokens of every lesson are computed once a batch{self._advice(prepared)}")
        self.learned = self._open(prepared, on_progress)
        if prepared.start:
            self._use({name: torch.from_numpy(matrix) for name, matrix in prepared.start.learned.items()})
        self.parameters = list(self.learned.values())
        say(
            f"adapter: rank {self.settings.rank} on the upper {self.settings.layers} of {prepared.sizes.layers} layers, "
            f"{sum(p.numel() for p in self.parameters):,} weights to learn; learning rate {self.settings.learning_rate:g}, "
            f"{counted(self.settings.epochs, 'epoch')}, {counted(self.settings.batch, 'lesson')} a step"
        )
        if not self.sweeps.are_of_all:
            say(f"order: every lesson once, then the {LEAST_KNOWN_PART:.0%} known least, again and again (there are many labels)")
        self.optimizer = Soap(self.parameters, self.settings.learning_rate)
        self.step, self.lessons_done, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.step_looked = 0  # after which the last look was
        self.seconds_looking, self.seconds_a_look = 0.0, 0.0  # all looks at the lessons held out; the next one, about
        self.seconds_reading = 0.0  # what will be kept: once for each lesson
        self.losses_before: list[float] = []
        self.right_before: list[bool] = []
        self.losses_after: list[float] = []  # of the best look
        self.right_after: list[bool] = []
        # of each look: fraction, seconds, the loss a token, learning and held out, and how many answers held out are right
        self.history: list[dict[str, float]] = []
        self.average = self._learned()  # of the weights, later ones counting more: nearer to the end of learning than any of them
        self.set_aside: dict[str, torch.Tensor] | None = None  # the last weights, while a look is at others
        self.best: dict[str, torch.Tensor] | None = None
        self.best_look: dict[str, float] | None = None
        self.learning_loss = 0.0  # a running mean
        self.workers = [self.num_workers]  # how many processes learned, anew where a resumed training has more or less of them

    num_workers = 1

    def _open(self, prepared: prepare.Prepared, on_progress: OnProgress) -> dict[str, torch.nn.Parameter]:
        """Have the model read. Returns what learns, by PEFT's names."""
        began = time.perf_counter()

        def tell(done: int, total: int) -> None:
            if on_progress and (passed := time.perf_counter() - began) > SECONDS_UNSAID:
                left = passed * (total - done) / done
                on_progress(StageProgress(stage="reading the weights", fraction=done / total, seconds_left=left))

        self.network = Network(
            prepared.file, prepared.arch, prepared.sizes, rank=self.settings.rank, seed=self.settings.seed, progress=tell,
            precision=self.plan.precision, keep_expanded=self.plan.expanded, frozen=prepared.sizes.layers - self.settings.layers,
        )  # fmt: skip
        self.beginning = self.network.begin(prepared.all_samples[0].tokens[: self.prefix]) if self.prefix else None
        self.kept: dict[int, torch.Tensor] = {}  # what the frozen layers say about each lesson, by its identity
        first_batches = self.sweeps.first() if self.plan.keeps_lower else []
        self._read_with = {id(lesson): batch for batch in first_batches for lesson in batch}  # also by a resumed run: the same bits
        return self.network.parameters

    def _advice(self, prepared: prepare.Prepared) -> str:
        """What to do about a shared beginning that is much of the work, where it is an instruction that lists the labels."""
        own = self.settings.batch * (sum(map(len, self.training)) / len(self.training) - self.prefix)
        part = self.prefix / (self.prefix + own)
        if part < LARGE_PART or not prepared.options["label_column"] or prepared.options["instruction"]:
            return ""
        listed = prepared.file.read_tokenizer().encode(", ".join(prepared.survey.labels))
        if 2 * len(listed) < self.prefix:  # few labels: most of it is the chat template, which no instruction makes shorter
            return ""
        shorter = "a short --instruction (in Python: `instruction`) that does not list the labels"
        return f", {part:.0%} of all that is computed; {shorter} saves most of it"

    # ---------------------------------------------------------------- how far
    @property
    def epochs_done(self) -> float:
        """How many times as many lessons are done as there are."""
        return self.lessons_done / len(self.training)

    @property
    def fraction(self) -> float:
        """How much is learned, 0..1: of the epochs, or of the minutes that looks leave, whichever is nearer to its end."""
        by_lessons, by_time = self.epochs_done / self.settings.epochs, 0.0
        if self.settings.minutes:
            evaluating = self.seconds_looking + (self._num_evaluations - len(self.history)) * self.seconds_a_look
            learning = self.settings.minutes * SECONDS_A_MINUTE - evaluating
            by_time = self.seconds / learning if learning > 0 else 1.0
        return min(1.0, max(by_lessons, by_time))

    @property
    def _num_evaluations(self) -> int:
        """While learning, those there were and those to come; the last one at the end."""
        epochs = self.settings.epochs
        if self.settings.minutes:  # so many as there is time for, as fast as it went so far
            speed = self.epochs_done / self.seconds if self.seconds else 0.0
            epochs = min(epochs, speed * self.settings.minutes * SECONDS_A_MINUTE)
        return max(num_evaluations(epochs, self.settings.minutes, self.seconds_a_look), len(self.history) + 1)

    @property
    def _seconds_left(self) -> float:
        """After a step: of learning, and of the looks to come."""
        looking = (self._num_evaluations - len(self.history)) * self.seconds_a_look
        return self.seconds * (1 - self.fraction) / self.fraction + looking

    NUMBERS = (
        "step", "step_looked", "lessons_done", "tokens", "seconds", "seconds_looking", "seconds_a_look", "losses_before",
        "right_before", "losses_after", "right_after", "history", "average", "best", "best_look", "learning_loss", "workers",
        "lessons_looked_at",
    )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything needed to go on exactly here."""
        return {
            "learned": self.set_aside or self._learned(), "optimizer": self.optimizer.state_dict(),
            "sweeps": self.sweeps.state_dict(), "way": asdict(self.plan),
            "numbers": {name: getattr(self, name) for name in self.NUMBERS},
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a saved state."""
        self._use(state["learned"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sweeps.load_state_dict(state["sweeps"])
        for name, value in state["numbers"].items():
            setattr(self, name, value)
        self.look_at(self._held_out(0, self.lessons_looked_at))
        if self.workers[-1] != self.num_workers:
            self.workers.append(self.num_workers)

    def use_best(self) -> None:
        """Take the averaged weights that did best on the lessons held out; without such lessons the last ones."""
        self._use(self.average if self.best is None else self.best)

    def _learned(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.learned.items()}

    def _use(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self.learned[name].copy_(value)

    # ---------------------------------------------------------------- work
    def train(self, checkpoint: adapter.Checkpoint, on_progress: OnProgress, say: Callable[[str], None]) -> None:
        """Train to the end. A checkpoint is written every half minute, at the end, and when the work is stopped by Ctrl-C."""
        batches: list[list[Sample]] = []
        learning = threads.Threads(config.threads().value)
        try:
            if self._is_evaluation_due():  # the work was stopped while it looked
                self._evaluate_and_compare()
            started, saved_at = time.perf_counter() - self.seconds, time.perf_counter()
            while (self.fraction < 1 or not self.step) and not self._has_stopped_learning():
                batches = batches or self.sweeps.after(self.lessons_done)
                loss = self._learn_with(learning, batches.pop(0))
                self.seconds = time.perf_counter() - started
                if on_progress:
                    on_progress(
                        StageProgress(
                            stage="tuning", step=self.step, fraction=self.fraction, loss=loss, seconds=self.seconds,
                            tokens_per_second=self.tokens / self.seconds, seconds_left=self._seconds_left,
                        )
                    )  # fmt: skip
                if self._is_evaluation_due():
                    self._evaluate_and_compare()
                    started = time.perf_counter() - self.seconds  # looking is not learning
                if time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
                    checkpoint.save(self.state())
                    saved_at = time.perf_counter()
        except KeyboardInterrupt:
            with uncut():  # a terminal that is closed may say so twice
                checkpoint.save(self.state())
            raise
        finally:
            threads.use(learning.most)
        checkpoint.save(self.state())  # what follows may be interrupted, too, or meet a full disk
        if self.epochs_done < self.settings.epochs:
            say(STOPPED_EARLY if self._has_stopped_learning() else self._time_was_over())

    def _learn_with(self, learning: threads.Threads, batch: list[Sample]) -> float:
        """`_learn`; where time decides how much is learned, with fewer threads while they are faster, which add up otherwise."""
        threads.use(learning.count)
        began = time.perf_counter()
        loss = self._learn(batch)
        if self.settings.minutes and self.num_workers == 1:
            seconds = time.perf_counter() - began
            learning.note(seconds, computed_tokens(batch, self.prefix), self.seconds + seconds)
        return loss

    @property
    def _epochs_shown(self) -> float:
        """Never one more than were done."""
        return 100 * self.lessons_done // len(self.training) / 100

    def _time_was_over(self) -> str:
        num, epochs = len(self.training), self.settings.epochs
        done, to_do = self._epochs_shown, math.ceil(round(epochs * num, 6))  # 1.1 * 100 is a little more than 110
        unit = "lesson" if count_lessons(self.training) == num else "row"
        seen = f"{done:g} of {counted(epochs, 'epoch')} ({self.lessons_done:,} of {to_do:,} {unit}s)"
        if done < 1 <= epochs:
            return f"warning: the time was over before every {unit} was learned once, after {seen}: {MORE_TIME}"
        return f"the time was over after {seen}: {MORE_TIME}"

    def _evaluate_and_compare(self) -> None:
        fraction = self.fraction
        self.set_aside = self._learned()  # a checkpoint has these, wherever the look is interrupted
        self._use(self.average)
        losses, right = self.evaluate()
        self._use(self.set_aside)
        self.set_aside = None
        found = {
            "fraction": fraction, "seconds": self.seconds, "learning": self.learning_loss, "held_out": self._mean(losses),
            "right": sum(right),
        }  # fmt: skip
        with uncut():
            if self.best_look is None or is_better(found, self.best_look, len(self.validation)):
                self.best_look = found
                self.best = {name: value.clone() for name, value in self.average.items()}
                self.losses_after, self.right_after = losses, right
            self.history.append(found)
            self.step_looked = self.step

    def _is_evaluation_due(self) -> bool:
        has_learned = self.step > self.step_looked  # since the last one
        return bool(self.validation) and has_learned and self.fraction * self._num_evaluations >= len(self.history) + 1

    def _average(self) -> None:
        share = 1 / (1 + AVERAGED_PART * (self.step - 1))
        for name, parameter in self.learned.items():
            self.average[name].lerp_(parameter.detach(), share)

    def _has_stopped_learning(self) -> bool:
        """Not before every lesson was learned once: until then a worse look is no sign of learning by heart."""
        if self.lessons_done < len(self.training):
            return False
        before, since = self.history[:-PATIENCE], self.history[-PATIENCE:]
        return bool(before) and all(is_clearly_worse(each, before, len(self.validation)) for each in since)

    def _mean(self, losses: Sequence[float]) -> float:
        return sum(losses) / sum(sample.num_learned for sample in self.validation)

    def measure_base(self, on_progress: OnProgress, say: Callable[[str], None]) -> None:
        """The look before anything is learned. Where it would take too much of the minutes, this and all later ones are at some of the
        lessons held out, as many as there is time for: a few at least, however long they take.
        """
        done, num, most = 0, len(self._drawn), seconds_for_base(self.settings.minutes)
        looked, seconds = dict[int, tuple[float, bool]](), 0.0

        def tell(part: float) -> None:
            if on_progress:
                passed = self.seconds_looking + time.perf_counter() - began
                fraction = max((done + part * more) / num, min(1.0, passed / most))
                left = passed * (1 - fraction) / fraction if fraction else None
                on_progress(StageProgress(stage="measuring the base", fraction=fraction, seconds_left=left))

        while more := num_next(done, num, self.seconds_looking, most):
            self.look_at(self._held_out(done, done + more))
            began = time.perf_counter()
            looked |= zip(map(id, self.validation), zip(*self.evaluate(tell), strict=True), strict=True)
            seconds, done = seconds + self.seconds_a_look, done + more
        self.lessons_looked_at = done
        self.look_at(self._held_out(0, done))
        self.losses_before = [looked[id(one)][0] for one in self.validation]
        self.right_before = [looked[id(one)][1] for one in self.validation]
        self.seconds_a_look = seconds
        if done < num:
            say(
                f"{BASE_PART:.0%} of the time was over: {done:,} of the {num:,} lessons held out are looked at, "
                "drawn at random; more --minutes (in Python: `minutes`) look at more of them"
            )

    def _held_out(self, start: int, stop: int) -> list[Sample]:
        """The rows of these of the lessons drawn."""
        lessons = set(self._drawn[start:stop])
        return [sample for sample in self.all_held_out if sample.lesson in lessons]

    def look_at(self, rows: Sequence[Sample]) -> None:
        """From now on. They are the validation, batch by batch."""
        self.held_out = batches_of(rows, self.prefix, max_lessons=MOST_LOOKED_AT)
        self.validation = [sample for batch in self.held_out for sample in batch]

    def evaluate(self, tell: Callable[[float], None] | None = None) -> tuple[list[float], list[bool]]:
        """Summed loss of each lesson held out, in the order of `self.validation`, and whether every token is the likeliest.

        `tell` is told which part is done, before each batch.
        """
        started, read_before = time.perf_counter(), self.seconds_reading
        losses, right = list[float](), list[bool]()
        with torch.no_grad():
            found = self._evaluated(self.held_out)
            for done in range(len(self.held_out)):
                if tell:
                    tell(done / len(self.held_out))
                of_batch, right_of_batch = next(found)
                right += right_of_batch
                losses += of_batch
        seconds = time.perf_counter() - started
        self.seconds_looking += seconds
        self.seconds_a_look = seconds - (self.seconds_reading - read_before)
        return losses, right

    def _evaluated(self, batches: list[list[Sample]]) -> Iterator[tuple[list[float], list[bool]]]:
        """Of each batch in turn: each lesson's summed loss, and whether it is right."""
        return map(self.evaluate_batch, batches)

    def evaluate_batch(self, batch: Sequence[Sample]) -> tuple[list[float], list[bool]]:
        """One batch of what `evaluate` evaluates on."""
        lengths = [sample.num_learned for sample in batch]
        hidden_NW, targets_N = self.hidden(batch)
        losses_N, hits_N = self.network.losses(hidden_NW, targets_N)
        self._require_numbers(hidden_NW, losses_N)
        return [float(loss.sum()) for loss in losses_N.split(lengths)], [bool(hits.all()) for hits in hits_N.split(lengths)]

    def metrics(self) -> dict[str, Any]:
        """What is written about the training. Losses, and the interval of their change, are per answer token of the lessons held out.

        An answer is right if every token of it is the likeliest. See `verdict.compare_right` for the rest of what is said of these.
        """
        num_lessons, num_texts = count_lessons(self.validation), count_texts(self.validation)
        found: dict[str, Any] = {
            "validation_lessons": num_lessons,
            "validation_texts": num_texts,
            "validation_lessons_left_out": len(self._drawn) - num_lessons,
            "validation_loss_before": self._mean(self.losses_before) if num_lessons else None,
            "validation_loss_after": self._mean(self.losses_after) if num_lessons else None,
            "validation_loss_change_95": self._change_95(num_texts) if num_texts > 1 else None,
            "validation_answers": len(self.validation),
            **dict.fromkeys((*verdict.ABOUT_RIGHT, "validation_verdict")),
        }
        if num_lessons:
            found |= verdict.compare_right(self.validation, self.right_before, self.right_after, self.training)
            found["validation_verdict"] = verdict.verdict_of(found)
        return found | {
            "history": self.history,
            "steps": self.step,
            "lessons_done": self.lessons_done,
            "epochs_done": self._epochs_shown,
            "seconds": round(self.seconds, 1),
            "tokens": self.tokens,
            "way": asdict(self.plan),
            "workers": self.workers,
        }

    def _change_95(self, num_texts: int) -> list[float]:
        """Of the loss, a ratio of two sums over the texts, which are what is drawn: linearised. Source: Cochran 1977, section 6.

        A text's copies are one, as are the answers of a conversation. Not counted with: that of several looks the best on these same
        lessons was kept.
        """
        text = texts_of(self.validation)
        num_learned = np.bincount(text, [sample.num_learned for sample in self.validation])
        changes = np.bincount(text, np.subtract(self.losses_after, self.losses_before))
        change = float(changes.sum() / num_learned.sum())
        deviation = float(np.std(changes - change * num_learned, ddof=1)) / float(num_learned.mean())
        quantile = float(special.stdtrit(num_texts - 1, 0.975))  # `scipy.stats` has it, too, and takes a second to import
        reach = quantile * deviation / num_texts**0.5
        return [round(change + side * reach, 4) for side in (-1, 1)]

    def _learn(self, batch: list[Sample]) -> float:
        """One step. Returns its loss. An interruption leaves the step undone, or comes when it is done and counted."""
        done = self.fraction
        warm = min(1.0, (self.step + 1) / 10, (done + 1e-9) / WARM_UP_PART)
        self.optimizer.rate = self.settings.learning_rate * max(warm if warm < 1 else 1 - done, SMALLEST_RATE_PART)
        losses_B = self.backward(batch)
        self._require_numbers(losses_B, torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM))
        found = float(losses_B.sum()) / sum(lesson.num_learned for lesson in batch)
        with uncut():
            self.optimizer.step()
            self.step += 1
            self._average()
            self.lessons_done += len(batch)
            self.sweeps.note(batch, losses_B.tolist())
            self.tokens += sum(map(len, batch))
            self.learning_loss = found if self.step == 1 else 0.95 * self.learning_loss + 0.05 * found
        return found

    def backward(self, batch: Sequence[Sample]) -> torch.Tensor:
        """Have each parameter's gradient found, of the mean loss of the tokens that are learned. Returns each lesson's sum [B]."""
        hidden_NW, targets_N = self.hidden(batch, learning=True)
        loss, losses_N = self.network.loss(hidden_NW, targets_N)
        loss.backward()
        of_lessons = losses_N[targets_N >= 0].split([lesson.num_learned for lesson in batch])
        return torch.stack([losses.sum() for losses in of_lessons])

    def _require_numbers(self, *found: torch.Tensor) -> None:
        """Raises UsageError if some are none. The loss alone does not tell: products in 8 bits make zeros of what is no number."""
        if not all(bool(numbers.isfinite().all()) for numbers in found):
            raise UsageError(
                f"learning has failed: after {self.step} steps the loss is no number any more",
                hint=f"the learning rate is {self.settings.learning_rate:g}: choose a lower one",
            )

    def _kept(self, batch: Sequence[Sample], width: int) -> torch.Tensor:
        """What the frozen layers say about each lesson [B, T, W]: kept since its batch of the first epoch was met, or computed now."""
        started = time.perf_counter()
        for lesson in batch:
            if id(lesson) not in self.kept:
                together = self._read_with.get(id(lesson), batch)  # of those held out, with what is looked at
                x_BTW = self.network.read(torch.from_numpy(side_by_side(together, self.prefix)[0]), self.beginning)
                self.kept |= {id(one): row[: len(one) - self.prefix].clone() for one, row in zip(together, x_BTW, strict=True)}
        self.seconds_reading += time.perf_counter() - started
        x_BTW = torch.nn.utils.rnn.pad_sequence([self.kept[id(lesson)] for lesson in batch], batch_first=True)
        return torch.nn.functional.pad(x_BTW, (0, 0, 0, width - x_BTW.shape[1]))

    def noise(self, rows: int, length: int, width: int) -> torch.Tensor:
        """NEFTune's of this step: uniform, less of it the longer and wider the rows are. Source: https://arxiv.org/abs/2310.05914."""
        drawn = torch.Generator().manual_seed(zlib.crc32(f"{self.settings.seed}/{self.step}".encode()))
        largest = self.settings.noise / (length * width) ** 0.5
        return torch.empty(rows, length, width).uniform_(-largest, largest, generator=drawn)

    def _noisy(self, x_BTW: torch.Tensor) -> torch.Tensor:
        return x_BTW + self.noise(*x_BTW.shape)

    def hidden(self, batch: Sequence[Sample], *, learning: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """What the last layer says before each answer token [N, W], and these tokens [N], lesson by lesson.

        `learning`: with noise on the embeddings, and at some other places, too, where the token is NOT_LEARNED (see `samples.wanted`).
        """
        ids, targets = side_by_side(batch, self.prefix)
        ids_BT, targets_BT, wanted_BT = map(torch.from_numpy, (ids, targets, wanted(targets, evened=learning)))
        x_BTW = self._kept(batch, ids_BT.shape[1]) if self.plan.keeps_lower else self.network.read(ids_BT, self.beginning)
        if learning and self.settings.noise:
            x_BTW = self._noisy(x_BTW)
        return self.network.hidden(x_BTW, wanted_BT, self.beginning), targets_BT[wanted_BT]


class Learners(Protocol):
    """Who learns: this process, or several others."""

    def choose_plan(self, say: Callable[[str], None]) -> ExecutionPlan:
        """How to compute, and what to keep in memory; `say` is told, and why. Raises NotEnoughMemoryError."""
        ...

    def opened(self, plan: ExecutionPlan, say: Callable[[str], None], on_progress: OnProgress, *, is_resumed: bool) -> Run:
        """The training, its model loaded. `is_resumed`: the plan is an earlier one's. Raises NotEnoughMemoryError."""
        ...


@dataclass(frozen=True, slots=True)
class ThisProcess:
    """See `Learners`."""

    prepared: prepare.Prepared

    def choose_plan(self, say: Callable[[str], None]) -> ExecutionPlan:
        return execution.choose_plan(self.prepared, say)

    def opened(self, plan: ExecutionPlan, say: Callable[[str], None], on_progress: OnProgress, *, is_resumed: bool) -> Run:
        if is_resumed:
            execution.require_memory(self.prepared, plan)
        return Run(self.prepared, plan=plan, say=say, on_progress=on_progress)
