"""A model on several processes at once, on this machine or on a Ray cluster: `--workers` and `--ray`.

Workers compute, and nothing else: stores, budgets and verdicts stay in the process that asks, so an answer is kept where any other
would be, the moment it arrives. Servers and stored answers are asked from here: they gain nothing from more processes.

What this does not cover: machines with other processors, and workers with other numbers of threads, whose arithmetic may differ in the
last bits; what the machines of a cluster cost.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import nomoat
from nomoat.asking import cluster
from nomoat.asking.cluster import Hand, Place
from nomoat.engine import Engine
from nomoat.errors import WorkerError
from nomoat.hardware import Detected
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.records import ChoiceScores, Chunk, Completion, ContinuationScore, Request
from nomoat.references import names_weights
from nomoat.responder import Responder, load
from nomoat.words import counted

log = logging.getLogger("nomoat.asking")

MAX_TRIES = 3
LOOK_SECONDS = 5.0  # how long the living have to say that they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a worker says of a model it has opened; see `Responder` for the fields."""

    digest: str
    scores_digest: str
    licence: str
    template: Detected[str] | None
    context_tokens: int | None
    notes: tuple[str, ...] = ()


class Worker:
    """Lives in a process of its own. Opens models, under numbers, and answers for them."""

    def __init__(self, settings: dict[str, str], cpus: float, share: int) -> None:
        cluster.settle(settings, cpus, share)
        self._models: dict[int, Responder] = {}

    def hello(self) -> str:
        """The version of nomoat here."""
        return nomoat.__version__

    def open(self, number: int, ref: str, fallback_template: str | None) -> Facts:
        """Load a model. Raises what `load` raises."""
        model = self._models[number] = load(ref, fallback_template=fallback_template)
        return Facts(
            digest=model.digest,
            scores_digest=model.scores_digest,
            licence=model.licence,
            template=model.template,
            context_tokens=model.engine.context_tokens,
            notes=model.notes,
        )

    def complete(self, number: int, request: Request) -> Completion:
        """The whole answer; see `Responder.complete`."""
        return self._models[number].complete(request)

    def timed_scores(self, number: int, request: Request, continuations: Sequence[str], max_unread: float) -> ChoiceScores:
        """See `Engine.timed_scores`."""
        return self._models[number].engine.timed_scores(request, continuations, max_unread=max_unread)

    def count_tokens(self, number: int, request: Request) -> int:
        """See `Engine.count_tokens`."""
        return self._models[number].engine.count_tokens(request)

    def close(self, number: int) -> None:
        """Free a model's memory."""
        if (model := self._models.pop(number, None)) is not None:
            model.close()


class Workers:
    """Processes that open models and answer. Made by `started_workers`. Several threads may use it."""

    def __init__(self, ray: Any, places: Sequence[Place], *, concurrency: int) -> None:
        self._ray = ray
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._has_left = False
        self._hands = cluster.hands(ray, places, Worker, concurrency=concurrency + 1)

    @property
    def num_alive(self) -> int:
        """How many of the worker processes have not been found dead."""
        return len(self._alive())

    @property
    def is_here(self) -> bool:
        """Whether all of them run on this very machine."""
        return all(cluster.is_here(hand.place.address) for hand in self._hands)

    def require_started(self) -> None:
        """Raises WorkerError for a worker that did not start, or has another nomoat."""
        cluster.require_started(self._ray, self._hands, extras="`ray` extra")

    def load(self, ref: str, *, fallback_template: str | None = None) -> Responder:
        """A responder whose answers come from all workers; what names no weights is asked from here, as without workers.

        Raises what `load` raises, with the machine's name.
        """
        if not names_weights(ref):
            return load(ref, fallback_template=fallback_template)
        number, sent = next(self._numbers), cluster.portable(ref)
        try:
            facts = [fact for wave in cluster.waves(self._alive()) for fact in self._open(wave, number, sent, fallback_template)]
            known = _common(facts, ref)
        except BaseException:
            self.close_model(number)
            raise
        return Responder(ref, _Shared(self, number, known, ref), licence=known.licence, template=known.template, notes=known.notes)

    def _alive(self) -> list[Hand]:
        return [hand for hand in self._hands if hand.is_alive]

    def _open(self, hands: Sequence[Hand], number: int, ref: str, fallback_template: str | None) -> list[tuple[Hand, Facts]]:
        calls = [hand.actor.open.remote(number, ref, fallback_template) for hand in hands]
        return [(hand, cluster.opened(self._ray, hand, call, ref)) for hand, call in zip(hands, calls, strict=True)]

    def ask(self, method: str, *arguments: Any) -> Any:
        """Have the worker with the least to do call a method. If it dies, another one is asked.

        Raises what the method raises, WorkerError if several died over this or none is left.
        """
        deaths = 0
        while deaths < MAX_TRIES:
            hand = self._take()
            try:
                return cluster.result(self._ray, getattr(hand.actor, method).remote(*arguments))
            except self._ray.exceptions.RayError as exc:
                if isinstance(exc, self._ray.exceptions.RayTaskError):  # a defect of ours, with its traceback
                    raise
                self._lose(hand, exc)
                deaths += not self._has_found_dead()  # with others its machine died, and not over this question
            finally:
                with self._lock:
                    hand.num_under_way -= 1
        raise WorkerError(
            f"{MAX_TRIES} workers died over the same question",
            hint="the answers so far are kept; a worker dies of too little memory more than of anything else: try fewer --workers "
            "(in Python: `workers`)",
        )

    def _has_found_dead(self) -> bool:
        """Whether others are no more, too, who had nothing to do that would have shown it. They are asked nothing from now on."""
        if self._has_left:
            return False
        calls = {hand.actor.hello.remote(): hand for hand in self._alive()}
        answered, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=LOOK_SECONDS) if calls else ([], [])
        found = False
        for call in answered:
            try:
                self._ray.get(call)
            except self._ray.exceptions.RayError as exc:
                self._lose(calls[call], exc)
                found = found or calls[call].num_under_way == 0  # else whoever asked it sees it, too
        return found

    def _lose(self, hand: Hand, cause: Exception) -> None:
        """A worker has died, and is asked nothing any more. That is said at once: whoever asks may end before its notes are told."""
        with self._lock:
            is_news = hand.is_alive and not self._has_left
            hand.is_alive = False
            left = f"{self.num_alive} of {len(self._hands)} are left"
        if is_news:
            log.warning("note: a worker on `%s` died, and %s: %s", hand.place.host, left, cluster.last_line(cause))

    def _take(self) -> Hand:
        with self._lock:
            alive = self._alive()
            if self._has_left or not alive:
                raise _none_left()
            hand = min(alive, key=lambda each: each.num_under_way)
            hand.num_under_way += 1
            return hand

    def leave(self) -> None:
        """The caller has left: what is under way is nobody's any more."""
        with self._lock:
            self._has_left = True
        for hand in self._hands:
            self._ray.kill(hand.actor)

    def close_model(self, number: int) -> None:
        """Let every worker free a model's memory."""
        if not self._has_left:
            calls = [hand.actor.close.remote(number) for hand in self._alive()]
            self._ray.wait(calls, num_returns=len(calls), timeout=10.0) if calls else None

    def notes(self, ref: str, num_answered: int) -> Iterator[str]:
        """What has to be known about answers of a model that came from these workers; nothing where none did."""
        if not num_answered:
            return
        yield f"answered by {cluster.names_of(self._hands)}: {counted(num_answered, 'question')} to `{ref}`"
        if not self.is_here:
            yield "the questions were sent to those machines of your Ray cluster; these bytes are not among the bytes sent out"
        if lost := len(self._hands) - self.num_alive:
            yield f"{lost} of {len(self._hands)} workers died, and the others answered in their place"


class _Shared(Engine):
    """One model on all workers. An answer comes in one chunk."""

    def __init__(self, workers: Workers, number: int, facts: Facts, ref: str) -> None:
        self._workers = workers
        self._number = number
        self._ref = ref
        self._lock = threading.Lock()
        self._num_answered = 0
        self._facts = facts
        self.digest: str = facts.digest
        self.context_tokens: int | None = facts.context_tokens

    @property
    def scores_digest(self) -> str:
        return self._facts.scores_digest

    @property
    def is_local(self) -> bool:
        return self._workers.is_here

    @property
    def num_workers(self) -> int:
        """How many answer at once."""
        return self._workers.num_alive

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._workers.notes(self._ref, self._num_answered))

    def give_up_waiting(self) -> None:
        """End the workers: nobody waits for their answers any more."""
        self._workers.leave()

    def generate(self, request: Request) -> Iterator[Chunk]:
        completion = self._workers.ask("complete", self._number, request)
        self._count()
        yield Chunk(text=completion.text, finish_reason=completion.finish_reason, usage=completion.usage, calls=completion.calls)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return list(self.timed_scores(request, continuations).scores)

    def timed_scores(
        self, request: Request, continuations: Sequence[str], *, max_unread: float = 0.0, stop: threading.Event | None = None
    ) -> ChoiceScores:
        """In the worker's time. `stop`: see `give_up_waiting`."""
        scored: ChoiceScores = self._workers.ask("timed_scores", self._number, request, tuple(continuations), max_unread)
        if continuations:  # else the model was only to be loaded
            self._count()
        return scored

    def _count(self) -> None:
        with self._lock:
            self._num_answered += 1

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
    if num_workers is None and address is None:
        yield None
        return
    with cluster.connection(num_workers, address, what="answering on several workers") as ray:
        workers = Workers(ray, cluster.places(ray, num_workers), concurrency=concurrency)
        try:
            workers.require_started()
            yield workers
        finally:
            workers.leave()


def _common(facts: Sequence[tuple[Hand, Facts]], ref: str) -> Facts:
    """What all workers say of a model. Raises WorkerError where they differ, or none is left."""
    if not facts:
        raise _none_left()
    first, known = facts[0]
    for hand, found in facts:
        if found != known:
            what = "another file or layout" if found.digest != known.digest else "other memory or settings"
            raise WorkerError(
                f"`{hand.place.host}` and `{first.place.host}` would answer differently for `{ref}`: they have {what}",
                hint="give every machine the same file, processor, memory and settings, or use fewer --workers (in Python: `workers`)",
            )
    return known


def _none_left() -> WorkerError:
    return WorkerError("no worker is left", hint="the answers so far are kept; the same command goes on from there")
