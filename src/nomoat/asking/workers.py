"""A model on several processes at once, on this machine or on a Ray cluster: `--workers` and `--ray`.

Workers compute, and nothing else: stores, budgets and verdicts stay in the process that asks, so an answer is kept where any other
would be, the moment it arrives. Servers and stored answers are asked from here: they gain nothing from more processes.

What this does not cover: machines with other processors, and workers with other numbers of threads, whose arithmetic may differ in the
last bits; what the machines of a cluster cost.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nomoat
from nomoat import config, paths
from nomoat.asking import cluster
from nomoat.asking.cluster import Place
from nomoat.errors import NomoatError, UnknownModelError, UsageError, WorkerError
from nomoat.hardware import Detected
from nomoat.records import Chunk, ContinuationScore, Request
from nomoat.responder import DEFAULT_CONCURRENCY, Responder, find_files, load, names_weights

MAX_TRIES = 3
START_SECONDS = 120.0  # for a worker's process, without any model
SENT_SETTINGS = ("quality", "context_tokens", "offline")  # what changes answers, or who may be asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a worker says of a model it has opened. `is_exact`: likelihoods are computed from the file's own weights."""

    digest: str
    licence: str
    template: Detected[str] | None
    context_tokens: int | None
    is_exact: bool


class Worker:
    """Lives in a process of its own. Opens models, under numbers, and answers for them."""

    def __init__(self, settings: dict[str, str], cpus: float, share: int) -> None:
        os.environ.update(settings)
        os.environ["NOMOAT_THREADS"] = str(max(1, min(int(cpus), config.threads().value // share)))
        self._models: dict[int, Responder] = {}

    def hello(self) -> str:
        """The version of nomoat here."""
        return nomoat.__version__

    def open(self, number: int, ref: str, fallback_template: str | None) -> Facts:
        """Load a model. Raises what `load` raises."""
        from nomoat.engine import importer

        model = self._models[number] = load(ref, fallback_template=fallback_template)
        return Facts(
            digest=model.digest,
            licence=model.licence,
            template=model.template,
            context_tokens=model.engine.context_tokens,
            is_exact=importer.fits_exactly(find_files(ref).weights),
        )

    def complete(self, number: int, request: Request) -> Any:
        """The whole answer; see `Responder.complete`."""
        return self._models[number].complete(request)

    def score(self, number: int, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """See `Engine.score`."""
        return self._models[number].score(request, continuations)

    def count_tokens(self, number: int, request: Request) -> int:
        """See `Engine.count_tokens`."""
        return self._models[number].engine.count_tokens(request)

    def close(self, number: int) -> None:
        """Free a model's memory."""
        if (model := self._models.pop(number, None)) is not None:
            model.close()


@dataclass(slots=True, kw_only=True)
class _Hand:
    """A worker as this process sees it."""

    actor: Any
    place: Place
    num_under_way: int = 0
    is_alive: bool = True


class Workers:
    """Processes that open models and answer. Made by `started_workers`. Several threads may use it."""

    def __init__(self, ray: Any, places: Sequence[Place], *, concurrency: int) -> None:
        self._ray = ray
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._has_left = False
        settings = {config.variable(name): said.value for name in SENT_SETTINGS if (said := config.given(name))}
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        self._hands = [
            _Hand(
                actor=ray.remote(Worker)
                .options(
                    num_cpus=place.cpus,
                    max_concurrency=concurrency + 1,
                    scheduling_strategy=strategy(node_id=place.node_id, soft=False),
                )
                .remote(settings, place.cpus, place.share),
                place=place,
            )
            for place in places
        ]

    @property
    def num_alive(self) -> int:
        return sum(hand.is_alive for hand in self._hands)

    @property
    def is_here(self) -> bool:
        """Whether all of them run on this very machine."""
        return all(cluster.is_here(hand.place.address) for hand in self._hands)

    def require_started(self) -> None:
        """Wait until every worker's process is there. Raises WorkerError for one that is not, or has another nomoat."""
        calls = [hand.actor.hello.remote() for hand in self._hands]
        for hand, call in zip(self._hands, calls, strict=True):
            try:
                version = self._ray.get(call, timeout=START_SECONDS)
            except self._ray.exceptions.GetTimeoutError as exc:
                raise WorkerError(
                    f"the worker on `{hand.place.host}` did not start within {START_SECONDS:.0f} s",
                    hint=f"are {hand.place.cpus:g} of its CPUs free? `ray status` tells; fewer --workers take fewer machines",
                ) from exc
            except self._ray.exceptions.RayError as exc:
                raise WorkerError(
                    f"the worker on `{hand.place.host}` could not start: {cluster.last_line(exc)}",
                    hint="has that machine's Python the same nomoat, with its `ray` extra?",
                ) from exc
            if version != nomoat.__version__:
                raise WorkerError(
                    f"`{hand.place.host}` has nomoat {version}, and this machine {nomoat.__version__}",
                    hint="install the same version on both",
                )

    def load(self, ref: str, *, fallback_template: str | None = None) -> Responder:
        """A responder whose answers come from all workers; what names no weights is asked from here, as without workers.

        Raises what `load` raises, with the machine's name.
        """
        if not names_weights(ref):
            return load(ref, fallback_template=fallback_template)
        number, sent = next(self._numbers), _portable(ref)
        try:
            facts = [fact for wave in self._waves() for fact in self._open(wave, number, sent, fallback_template)]
        except BaseException:
            self.close_model(number)
            raise
        if not facts:
            raise _none_left()
        first, known = facts[0]
        for hand, found in facts:
            if found != known:
                what = "another file or layout" if found.digest != known.digest else "other memory or settings"
                raise WorkerError(
                    f"`{hand.place.host}` and `{first.place.host}` would answer differently for `{ref}`: they have {what}",
                    hint="give every machine the same file, processor, memory and settings, or use fewer --workers",
                )
        return Responder(ref, _Shared(self, number, known), licence=known.licence, template=known.template)

    def _waves(self) -> list[list[_Hand]]:
        """One worker a machine at a time: the first imports the file, and those after it see how much memory is left."""
        alive = [hand for hand in self._hands if hand.is_alive]
        return [[hand for hand in alive if hand.place.wave == wave] for wave in sorted({hand.place.wave for hand in alive})]

    def _open(self, hands: Sequence[_Hand], number: int, ref: str, fallback_template: str | None) -> list[tuple[_Hand, Facts]]:
        calls = [hand.actor.open.remote(number, ref, fallback_template) for hand in hands]
        return [(hand, self._opened(hand, call, ref)) for hand, call in zip(hands, calls, strict=True)]

    def _opened(self, hand: _Hand, call: Any, ref: str) -> Facts:
        try:
            return self._result(call)  # type: ignore[no-any-return]
        except NomoatError as error:
            error.message = f"on `{hand.place.host}`: {error.message}"
            error.args = (error.message,)
            if isinstance(error, UnknownModelError) and error.hint:
                error.hint = f"on that machine: {error.hint}"
            raise
        except self._ray.exceptions.RayError as exc:
            raise WorkerError(
                f"the worker on `{hand.place.host}` died while it opened `{ref}`: {cluster.last_line(exc)}",
                hint="has that machine the memory for it? `nomoat show` tells what it takes",
            ) from exc

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have the worker with the least to do call a method. If it dies, another one is asked.

        Raises what the method raises, WorkerError if several died over this or none is left.
        """
        for _ in range(MAX_TRIES):
            hand = self._take()
            try:
                return self._result(getattr(hand.actor, method).remote(*arguments))
            except self._ray.exceptions.RayError as exc:
                if isinstance(exc, self._ray.exceptions.RayTaskError):  # a defect of ours, with its traceback
                    raise
                hand.is_alive = False
            finally:
                with self._lock:
                    hand.num_under_way -= 1
        raise WorkerError(
            f"{MAX_TRIES} workers died over the same question",
            hint="the answers so far are kept; a worker dies of too little memory more than of anything else: try fewer --workers",
        )

    def _take(self) -> _Hand:
        with self._lock:
            alive = [hand for hand in self._hands if hand.is_alive]
            if self._has_left or not alive:
                raise _none_left()
            hand = min(alive, key=lambda each: each.num_under_way)
            hand.num_under_way += 1
            return hand

    def _result(self, call: Any) -> Any:
        try:
            return self._ray.get(call)
        except self._ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, NomoatError):
                raise exc.cause from None
            raise

    def leave(self) -> None:
        """The caller has left: what is under way is nobody's any more."""
        with self._lock:
            self._has_left = True
        for hand in self._hands:
            self._ray.kill(hand.actor)

    def close_model(self, number: int) -> None:
        """Let every worker free a model's memory."""
        if not self._has_left:
            calls = [hand.actor.close.remote(number) for hand in self._hands if hand.is_alive]
            self._ray.wait(calls, num_returns=len(calls), timeout=10.0) if calls else None

    def notes(self) -> Iterator[str]:
        """What has to be known about answers that came from these workers."""
        hosts = dict.fromkeys(f"{hand.place.host} ({hand.place.address})" for hand in self._hands)
        yield f"answered by {len(self._hands)} worker{'s' if len(self._hands) > 1 else ''} on {', '.join(hosts)}"
        if not self.is_here:
            yield "the questions were sent to those machines of your Ray cluster; these bytes are not among the bytes sent out"
        if lost := len(self._hands) - self.num_alive:
            yield f"{lost} of {len(self._hands)} workers died, and the others answered in their place"


class _Shared:
    """One model on all workers; see `Engine` for what the methods promise. An answer comes in one chunk."""

    def __init__(self, workers: Workers, number: int, facts: Facts) -> None:
        self._workers = workers
        self._number = number
        self.digest = facts.digest
        self.context_tokens = facts.context_tokens

    @property
    def is_local(self) -> bool:
        return self._workers.is_here

    @property
    def num_workers(self) -> int:
        """How many answer at once."""
        return self._workers.num_alive

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._workers.notes())

    def give_up_waiting(self) -> None:
        """End the workers: nobody waits for their answers any more."""
        self._workers.leave()

    def generate(self, request: Request) -> Iterator[Chunk]:
        completion = self._workers.ask("complete", self._number, request)
        yield Chunk(text=completion.text, finish_reason=completion.finish_reason, usage=completion.usage)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return self._workers.ask("score", self._number, request, tuple(continuations))  # type: ignore[no-any-return]

    def count_tokens(self, request: Request) -> int:
        return self._workers.ask("count_tokens", self._number, request)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._workers.close_model(self._number)


@contextmanager
def started_workers(
    num_workers: int | None, address: str | None, *, concurrency: int = DEFAULT_CONCURRENCY
) -> Iterator[Workers | None]:
    """`num_workers` workers on the Ray cluster at `address`, or on this machine; None if neither is given.

    One worker a machine unless a number is given; each of them has up to `concurrency` answers in the making. They end with the block,
    and so does the connection, unless it was there before.
    Raises UsageError for no workers or no address, MissingExtraError, OfflineError for machines that may not be asked, WorkerError for
    what does not start.
    """
    if num_workers is not None and num_workers < 1:
        raise UsageError(f"the number of workers is {num_workers}", hint="give a whole number of at least 1")
    if num_workers is None and address is None:
        yield None
        return
    address = None if address is None else cluster.checked_address(address)
    ray = cluster.import_ray(on_loopback=address is None)
    was_connected = ray.is_initialized()
    if not was_connected:
        cluster.connect(ray, address)
    workers = None
    try:
        places = cluster.places(ray, num_workers)
        workers = Workers(ray, places, concurrency=concurrency)
        workers.require_started()
        yield workers
    finally:
        if workers is not None:
            workers.leave()
        if not was_connected:
            ray.shutdown()


def _portable(ref: str) -> str:
    """The reference as workers understand it, who have another working folder."""
    if paths.expanded(ref).exists():
        return str(paths.expanded(ref).absolute())
    base, plus, adapter = ref.rpartition("+")
    return f"{_portable(base)}{plus}{_portable(adapter)}" if plus and base and adapter else ref


def _none_left() -> WorkerError:
    return WorkerError("no worker is left", hint="the answers so far are kept; the same command goes on from there")
