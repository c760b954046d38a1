"""A training on several processes, on the machines of a Ray cluster or on this one: `tune --ray ADDRESS` and `--workers N`.

Each batch is split over the workers. Each computes the gradient of its lessons; gloo, which is part of PyTorch, adds them up, weighted
by the tokens that have loss: the sum is the gradient of the batch as one process computes it, up to rounding. All else (order, rates,
looks, checkpoints, minutes, Ctrl-C) stays in the process that asks. It has the adapter and the optimiser, too, and makes each step as
the workers do, with the same gradient: whatever becomes of them, it knows the last step, and nothing goes through a shared folder.

Why not Ray Train: it keeps checkpoints in a storage that all machines share, needs pandas, pyarrow and tensorboardX, and its loop runs
in the workers, so that progress, interruptions, looks and budgets would be there a second time. Below it is gloo, too.

What this does not cover: machines that differ learn as fast as the slowest; gloo's connections, on the address a machine has in the
cluster, are neither encrypted nor ask for a key, as Ray's own do not unless you set that up.
"""

from __future__ import annotations

import datetime
import itertools
import math
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
import torch.distributed

import nomoat
from nomoat import config, hardware
from nomoat.asking import cluster
from nomoat.asking.cluster import Hand
from nomoat.engine import importer, step_tables
from nomoat.engine.gguf import FloatArray
from nomoat.errors import NotEnoughMemoryError, UsageError, WorkerError
from nomoat.hardware import Detected
from nomoat.references import find_files
from nomoat.tune import adapter, execution, kernels, loop, prepare, qlora
from nomoat.tune.execution import ExecutionPlan
from nomoat.tune.prepare import Prepared
from nomoat.tune.samples import Sample, batches_of, shared_prefix, width_of

WAIT = datetime.timedelta(minutes=10)  # of a worker for the others in a step: one may compile meanwhile, or read its file
DEATH_SECONDS = 15.0  # until Ray knows of a death that the other workers have felt
Say = Callable[[str], None]
gloo: Any = torch.distributed  # names it does not list


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a worker says before anything is loaded."""

    machine: str
    precision: Detected[qlora.Precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A step. `batch`: its lessons, by their place among all that are learned; `own`: one worker's, by their place in the batch."""

    step: int
    rate: float
    batch: list[int]
    own: list[int]


class Shares:
    """Which worker learns which lessons of a batch: about as many each.

    A lesson stays where it was in the first epoch if there is room: what the frozen layers say about it is kept there.
    """

    def __init__(self, first_epoch: Sequence[Sequence[Sample]], count: int) -> None:
        self._count = count
        self._first = {id(lesson): at % count for batch in first_epoch for at, lesson in enumerate(batch)}

    def of(self, batch: Sequence[Sample]) -> list[list[int]]:
        """Each worker's lessons, by their place in the batch."""
        room = math.ceil(len(batch) / self._count)
        shares: list[list[int]] = [[] for _ in range(self._count)]
        others: list[int] = []
        for at, lesson in enumerate(batch):
            share = shares[self._first[id(lesson)]]
            (share if len(share) < room else others).append(at)
        for at in others:
            min(shares, key=len).append(at)
        return shares


class Part(loop.Run):
    """The training as a worker sees it: the whole model, and its share of each batch."""

    def __init__(self, prepared: Prepared, *, plan: ExecutionPlan, rank: int, count: int) -> None:
        super().__init__(prepared, plan=plan, say=lambda _: None)
        self._batch: list[Sample] = []
        self._own: list[int] = []
        if plan.keeps_lower:  # with others of its share or alone, never otherwise: a resumed training computes the same bits
            self._read_with |= {id(lesson): [lesson] for lesson in self.training}
            for batch in self.sweeps.first():
                share = [batch[at] for at in Shares([batch], count).of(batch)[rank]]
                self._read_with |= {id(lesson): share for lesson in share}

    def gradient(self, task: Task) -> torch.Tensor:
        """Of this worker's share of the batch's loss; behind it the summed losses of its lessons, at their places. 1-D, f32."""
        self.step, self._own = task.step, task.own
        self._batch = [self.training[at] for at in task.batch]
        own = [self._batch[at] for at in task.own]
        losses_B = torch.zeros(len(self._batch))
        if not own:
            return torch.cat([torch.zeros(sum(parameter.numel() for parameter in self.parameters)), losses_B])
        losses_B[task.own] = self.backward(own)
        share = sum(lesson.num_learned for lesson in own) / sum(lesson.num_learned for lesson in self._batch)
        gradients = (cast(torch.Tensor, parameter.grad).flatten().mul_(share) for parameter in self.parameters)
        return torch.cat([*gradients, losses_B])

    def make_step(self, flat: torch.Tensor, rate: float) -> None:
        """What `Run` does with a gradient and the averages do not need."""
        set_gradients(self.parameters, flat)
        torch.nn.utils.clip_grad_norm_(self.parameters, loop.MAX_GRADIENT_NORM)
        self.optimizer.rate = rate
        self.optimizer.step()
        self.step += 1

    def take(self, weights: dict[str, FloatArray], optimizer: dict[str, Any] | None) -> None:
        """Go on from there."""
        self._use({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
        if optimizer is not None:
            self.optimizer.load_state_dict(optimizer)

    def _noisy(self, x_BTW: torch.Tensor) -> torch.Tensor:
        """With what falls to its lessons of the whole batch's noise."""
        noise = self.noise(len(self._batch), width_of(self._batch, self.prefix), x_BTW.shape[2])
        return x_BTW + noise[self._own, : x_BTW.shape[1]]


class Learner:
    """Lives in a process of its own, where it finds the model, and computes."""

    def __init__(self, settings: dict[str, str], cpus: float, share: int) -> None:
        cluster.settle(settings, cpus, share)
        self._sharing = share

    def hello(self) -> str:
        """The version of nomoat here."""
        return nomoat.__version__

    def find(self, sent: dict[str, Any], sha256: str) -> Found:
        """Find the model here. Raises what `find_files` raises, and WorkerError for another file."""
        weights = find_files(sent["base"]).weights
        if importer.sha256_of_model(weights) != sha256:
            raise WorkerError(
                f"`{weights.name}` is another file than on the machine that asks",
                hint="have the same file on both",
            )
        self._prepared, precision = Prepared(**sent, weights=weights, file=prepare.opened(weights)), qlora.fastest_precision()
        kernels.use_threads(config.threads().value, types=execution.types_in_tiles(self._prepared, precision.value))
        return Found(machine=hardware.summary(), precision=precision)

    def choose_plan(self, precision: Detected[qlora.Precision]) -> tuple[ExecutionPlan, list[str]]:
        """By this machine's memory, and what there is to say of it."""
        said: list[str] = []
        return execution.choose_plan(self._prepared, said.append, precision=precision, sharing=self._sharing), said

    def open(self, plan: ExecutionPlan, rank: int, count: int, is_resumed: bool) -> dict[str, FloatArray]:
        """Load the model. Returns the matrices that learn, from the first worker. Raises NotEnoughMemoryError, WorkerError."""
        if plan.precision == "int8" and not step_tables.HAS_PANELS:
            raise WorkerError(
                "this training began with products in int8, which this CPU has not",
                hint="start again without --resume (in Python: `resume`)",
            )
        try:
            doing = "going on as it began" if is_resumed else "learning as the other workers do"
            execution.require_memory(self._prepared, plan, doing=doing)
        except NotEnoughMemoryError as error:
            if not is_resumed:
                free = hardware.memory_available_bytes()
                error.hint = f"{hardware.more_memory(free)} there, or take fewer --workers (in Python: `workers`)"
            raise
        self._run, self._rank, self._count = Part(self._prepared, plan=plan, rank=rank, count=count), rank, count
        return {} if rank else {name: value.detach().numpy() for name, value in self._run.learned.items()}

    def listen(self, address: str) -> int:
        """Have the others find each other here. Returns the port."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listening = socket.create_server((address, 0), family=family)  # PyTorch's own would be on every network
        port: int = listening.getsockname()[1]
        self._store = _store(address, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
        return port

    def join(self, store: tuple[str, int], address: str) -> None:
        """Meet the others."""
        if self._rank:
            self._store = _store(*store, is_master=False)
        options = gloo.ProcessGroupGloo._Options()
        options._devices, options._timeout = [gloo.ProcessGroupGloo.create_device(hostname=address)], WAIT
        self._group = gloo.ProcessGroupGloo(self._store, self._rank, self._count, options)

    def take(self, weights: dict[str, FloatArray], optimizer: dict[str, Any] | None) -> None:
        """Go on from there."""
        self._run.take(weights, optimizer)

    def learn(self, task: Task) -> tuple[float, FloatArray | None]:
        """A step. Returns the seconds of adding up and, from the first worker, the batch's gradient and, behind it, its losses."""
        flat = self._run.gradient(task)
        began = time.perf_counter()
        try:
            self._group.allreduce([flat]).wait()
        except RuntimeError as exc:
            raise WorkerError(f"a worker lost the others: {cluster.last_line(exc)}", hint="is the network whole?") from exc
        seconds = time.perf_counter() - began
        found = None if self._rank else flat.numpy().copy()
        self._run.make_step(flat, task.rate)
        return seconds, found

    def evaluate(self, batch: list[int]) -> tuple[tuple[list[float], list[bool]], float]:
        """At a batch of the lessons held out, by their places among these; and the seconds of reading what will be kept."""
        read_before = self._run.seconds_reading
        with torch.no_grad():
            found = self._run.evaluate_batch([self._run.all_held_out[at] for at in batch])
        return found, self._run.seconds_reading - read_before


def _store(address: str, port: int, **settings: Any) -> Any:
    """Where workers tell each other their addresses. PyTorch asks for libuv unless told not to, and for Windows is built without."""
    return gloo.TCPStore(address, port, timeout=WAIT, use_libuv=sys.platform != "win32", **settings)


def set_gradients(parameters: Sequence[torch.nn.Parameter], flat: torch.Tensor) -> None:
    """Each parameter's part of a gradient that has the lessons' losses behind it."""
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, flat[: sum(sizes)].split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)


class DataParallelRun(loop.Run):
    """The training as the process that asks sees it: everything but the model."""

    def __init__(self, crew: Crew, prepared: Prepared, *, plan: ExecutionPlan, say: Say) -> None:
        self._crew, self._is_told = crew, True
        self.num_workers = len(crew.hands)
        super().__init__(prepared, plan=plan, say=say)
        self._shares = Shares(self.sweeps.first(), self.num_workers)
        self._seconds_adding, self._steps_here = 0.0, 0

    def _open(self, prepared: Prepared, on_progress: loop.OnProgress) -> dict[str, torch.nn.Parameter]:
        return {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in self._crew.weights.items()}

    def _use(self, weights: dict[str, torch.Tensor]) -> None:
        super()._use(weights)
        self._is_told = False

    def _tell(self, *, learning: bool) -> None:
        """Let the workers have these weights, if they have others."""
        if self._is_told:
            return
        weights = {name: value.detach().numpy() for name, value in self.learned.items()}
        given = self._crew.sent(weights), self._crew.sent(self.optimizer.state_dict() if learning else None)
        self._crew.each("take", [given] * self.num_workers)
        self._is_told = learning  # after a look come other weights in any case

    def backward(self, batch: Sequence[Sample]) -> torch.Tensor:
        self._tell(learning=True)
        numbers = self.sweeps.places(batch)
        tasks = [Task(step=self.step, rate=self.optimizer.rate, batch=numbers, own=own) for own in self._shares.of(batch)]
        found = self._crew.each("learn", [(task,) for task in tasks])
        self._seconds_adding += min(seconds for seconds, _ in found)  # the others waited for that one
        self._steps_here += 1
        flat = torch.from_numpy(found[0][1].copy())
        set_gradients(self.parameters, flat)
        return flat[-len(batch) :]

    def _evaluated(self, batches: list[list[Sample]]) -> Iterator[tuple[list[float], list[bool]]]:
        self._tell(learning=False)
        read_before, reading = self.seconds_reading, [0.0] * len(self._crew.hands)  # workers read at the same time
        places = {id(lesson): at for at, lesson in enumerate(self.all_held_out)}
        numbers = [[places[id(lesson)] for lesson in batch] for batch in batches]
        for number, (found, seconds) in enumerate(self._crew.evaluated(numbers)):
            reading[number % len(reading)] += seconds
            self.seconds_reading = read_before + max(reading)
            yield found

    def train(self, checkpoint: adapter.Checkpoint, on_progress: loop.OnProgress, say: Say) -> None:
        """As of `Run`; when a worker dies, the last whole step is kept, too."""
        try:
            super().train(checkpoint, on_progress, say)
        except WorkerError as error:
            if self.step:
                checkpoint.save(self.state())
                again = "the same again with --resume, and with fewer --workers, too (in Python: `resume`, `workers`)"
                error.hint = f"{again}, goes on from step {self.step:,}"
            raise
        if self._steps_here:
            megabytes = sum(parameter.numel() for parameter in self.parameters) * 4 / 1e6
            say(f"adding up {megabytes:.1f} MB of gradients took {self._milliseconds:.0f} ms a step")

    @property
    def _milliseconds(self) -> float:
        return 1e3 * self._seconds_adding / max(1, self._steps_here)

    def metrics(self) -> dict[str, Any]:
        machines = list(dict.fromkeys(found.machine for found in self._crew.found))
        return {**super().metrics(), "machines": machines, "milliseconds_a_step_adding_up": round(self._milliseconds, 1)}


class Crew:
    """The workers of a training; see `loop.Learners`. Made by `learners`."""

    def __init__(self, ray: Any, prepared: Prepared, hands: Sequence[Hand]) -> None:
        self._ray, self._prepared, self.hands = ray, prepared, hands
        self.found: list[Found] = []
        self.weights: dict[str, FloatArray] = {}

    def find(self) -> None:
        """Have each find the model. Raises UnknownModelError, WorkerError."""
        names = (field.name for field in fields(Prepared) if field.name not in ("weights", "file"))
        own = {"base": cluster.portable(self._prepared.base), "shared_texts": ()}
        sent = {name: getattr(self._prepared, name) for name in names} | own
        given = (self.sent(sent), importer.sha256_of_model(self._prepared.weights))
        self.found = self._opened("find", self.hands, [given] * len(self.hands))

    def choose_plan(self, say: Say) -> ExecutionPlan:
        """The fastest precision if it is that everywhere, and of what is kept in memory only what all have room for."""
        fastest = [found.precision for found in self.found]
        precision = fastest[0]
        if any(other.value != precision.value for other in fastest):
            precision = Detected("float32", "machines differ in what they multiply fastest")
        chosen = self._opened("choose_plan", self.hands, [(precision,)] * len(self.hands))
        plan, said = min(chosen, key=lambda each: (each[0].expanded, each[0].keeps_lower))
        for line in said:
            say(line)
        return ExecutionPlan(precision=plan.precision, expanded=plan.expanded, keeps_lower=all(each.keeps_lower for each, _ in chosen))

    def opened(self, plan: ExecutionPlan, say: Say, on_progress: loop.OnProgress, *, is_resumed: bool) -> loop.Run:
        ranks = {id(hand): rank for rank, hand in enumerate(self.hands)}
        for wave in cluster.waves(self.hands):
            given = [(plan, ranks[id(hand)], len(ranks), is_resumed) for hand in wave]
            for hand, weights in zip(wave, self._opened("open", wave, given), strict=True):
                self.weights = weights if hand is self.hands[0] else self.weights
        first = self.hands[0]
        address = first.place.address
        (port,) = self._opened("listen", [first], [(address,)])
        self._opened("join", self.hands, [((address, port), hand.place.address) for hand in self.hands])
        return DataParallelRun(self, self._prepared, plan=plan, say=say)

    def sent(self, value: Any) -> Any:
        """To be given to several workers."""
        return self._ray.put(value)

    def _opened(self, method: str, hands: Sequence[Hand], given: Sequence[tuple[Any, ...]]) -> list[Any]:
        calls = [getattr(hand.actor, method).remote(*each) for hand, each in zip(hands, given, strict=True)]
        return [cluster.opened(self._ray, hand, call, self._prepared.base) for hand, call in zip(hands, calls, strict=True)]

    def each(self, method: str, given: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What each worker's method returns, each `given` its own. Raises what it raises, and WorkerError that names one that died."""
        owners = {getattr(hand.actor, method).remote(*own): hand for hand, own in zip(self.hands, given, strict=True)}
        waiting, found = list(owners), {}
        while waiting:
            (done,), waiting = cluster.wait(self._ray, waiting)
            found[done] = self._result(done, owners)
        return [found[call] for call in owners]

    def evaluated(self, batches: list[list[int]]) -> Iterator[tuple[tuple[list[float], list[bool]], float]]:
        """Of each batch of the lessons held out in turn, the workers by turns: see `Learner.evaluate`."""
        turns = itertools.cycle(self.hands)
        asked = [(hand.actor.evaluate.remote(batch), hand) for batch, hand in zip(batches, turns, strict=False)]
        for call, hand in asked:
            yield self._result(call, {call: hand})

    def _result(self, call: Any, owners: dict[Any, Hand]) -> Any:
        try:
            return cluster.result(self._ray, call)
        except WorkerError:  # it lost the others, perhaps since one of them died
            for other in self._ray.wait(list(owners), num_returns=len(owners), timeout=DEATH_SECONDS)[0]:
                self._require_alive(other, owners[other])
            raise
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError:
            self._require_alive(call, owners[call])
            raise

    def _require_alive(self, call: Any, hand: Hand) -> None:
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayTaskError:
            return
        except self._ray.exceptions.RayError as exc:
            raise WorkerError(
                f"the worker on `{hand.place.host}` died: {cluster.last_line(exc)}",
                hint="nothing was learned yet: start again; has that machine the memory for it?",
            ) from exc


@contextmanager
def learners(prepared: Prepared, num_workers: int | None, address: str | None, say: Say) -> Iterator[loop.Learners]:
    """Workers on the Ray cluster at `address`, one a machine unless a number is given; or so many on this machine.

    One on this very machine is this process. They end with the block.
    Raises UsageError, MissingExtraError, OfflineError, UnknownModelError where a machine has not the model, WorkerError.
    """
    with cluster.connection(num_workers, address, what="tuning on several workers") as ray:
        places = sorted(cluster.places(ray, num_workers), key=lambda place: not cluster.is_here(place.address))
        if len(places) == 1 and cluster.is_here(places[0].address):
            say("one worker, which is this machine: it learns by itself")
            yield loop.ThisProcess(prepared)
            return
        _require_work(prepared, len(places))
        hands = cluster.hands(ray, places, Learner, concurrency=1)
        try:
            cluster.require_started(ray, hands, extras="`ray` and `tune` extras")
            crew = Crew(ray, prepared, hands)
            crew.find()
            say(f"each batch is split over {cluster.names_of(hands)}")
            if not all(cluster.is_here(place.address) for place in places):
                say("the lessons are sent to those machines of your Ray cluster")
            yield crew
        finally:
            for hand in hands:
                ray.kill(hand.actor)


def _require_work(prepared: Prepared, count: int) -> None:
    """Raises UsageError where no step has a lesson for each worker."""
    prefix, batch = shared_prefix(prepared.all_samples), prepared.settings.batch
    most = max(map(len, batches_of(prepared.split[0], prefix, max_lessons=batch)))
    if most < count:
        larger = ", or a larger --batch (in Python: `batch`)" if most == batch else ""
        raise UsageError(
            f"a step has at most {most} lessons, and there are {count} workers",
            hint=f"take --workers {most} (in Python: `workers`){larger}",
        )
