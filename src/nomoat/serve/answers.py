"""Engines answer in threads, the server lives in an event loop: `Answers` runs each request's answer in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import operator
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Literal, TypeVar

from nomoat import net, system_errors
from nomoat.errors import NomoatError
from nomoat.records import Chunk, Place
from nomoat.serve.sharing import Idle, Row, stopped

MAX_TEXTS = 64  # at once of one client that alone asks a model, of one that chooses (`auto`) on each side; see `Row` for several
MAX_TEXTS_OF_ONE = 16  # of one answer, so that others find room beside one of many texts
CLOSE_SECONDS = 5.0

T = TypeVar("T")
Item = tuple[int, Chunk] | None  # a chunk with the number of its text, or that there was none for a while
# Told what is set when nobody waits for it any more. A place, given before the first chunk where a model chooses, is where it goes on.
Make = Callable[[threading.Event], Iterator[Chunk | Place]]

log = logging.getLogger("nomoat.serve")


def _unforeseen(exc: BaseException) -> NomoatError:
    """What ends a request because of a bug, or for want of threads or memory. Logged are only places and the kind: the exception's own
    words may quote the prompt."""
    want = system_errors.as_want(exc) if isinstance(exc, Exception) else None
    log.error("%s\n%s", want.message if want else type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
    if want:
        return want
    return NomoatError(f"the engine failed: {type(exc).__name__}", hint="this is a bug; the server's log says where")


def _close(chunks: Iterator[Chunk | Place] | None) -> None:
    if chunks is not None and hasattr(chunks, "close"):
        chunks.close()


class Answer:
    """What a request is answered with: one or several texts, written at the same time and read from the event loop.

    `stop` ends the engine's work after the chunks it is at, and what it waits for from another server.
    """

    def __init__(self, model: str, makes: Sequence[Make], client: str) -> None:
        self.model = model
        self.client = client
        self.futures: set[Future[Place | None]] = set()  # of the texts that are being written, or wait for a thread
        self._makes = makes
        self._begun: dict[int, Iterator[Chunk | Place]] = {}  # those that go on in another thread
        self._turns = iter(range(len(makes)))
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Chunk | NomoatError]] = asyncio.Queue()
        self._stopped = threading.Event()

    async def chunks(self, every: float | None = None) -> AsyncIterator[Item]:
        """Each chunk with the number of its text; None whenever `every` seconds have gone by without one.

        Raises NomoatError where an engine did.
        """
        left = len(self._makes)
        while left:
            try:
                async with asyncio.timeout(every):
                    at, item = await self._queue.get()
            except TimeoutError:
                yield None
                continue
            if isinstance(item, NomoatError):
                raise item
            yield at, item
            left -= item.finish_reason is not None

    def stop(self) -> None:
        """Ask the threads to close the engine's iterators; what waits for one waits no more. Calling it after the end is fine."""
        self._stopped.set()
        for future in list(self.futures):
            future.cancel()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def is_begun(self, at: int) -> bool:
        """Whether this text goes on in another thread, and waits for that."""
        return at in self._begun

    @property
    def num_waiting(self) -> int:
        """Texts whose turn has not come."""
        return operator.length_hint(self._turns)

    def next_turn(self) -> int | None:
        """The text that is to be written next; None if there is none, or nobody waits for it: then that is said to whoever reads."""
        at = next(self._turns, None)
        if at is not None and self._stopped.is_set():
            self.refuse(at, stopped())
            return None
        return at

    def refuse(self, at: int, why: NomoatError) -> None:
        """This text will not be written, or not go on."""
        self._put(at, why)
        _close(self._begun.pop(at, None))

    def run(self, at: int) -> Place | None:
        """Writes one text; runs in a thread. The place is where the rest of it is to be run, where it goes on there."""
        try:
            with net.asking_for(self._stopped, self.client):
                return self._write(at)
        except NomoatError as exc:
            self._put(at, stopped() if self._stopped.is_set() else exc)
        except BaseException as exc:  # noqa: BLE001  an engine's bug, or Rust's panic, must end this request, not the thread without a word
            self._put(at, _unforeseen(exc))
        return None

    def _write(self, at: int) -> Place | None:
        chunks = self._begun.pop(at, None) or self._makes[at](self._stopped)
        knew = False  # the engine could: its next chunk is its last, with what it has done
        try:
            if self._stopped.is_set():
                raise stopped()
            for chunk in chunks:
                if isinstance(chunk, str):
                    self._begun[at] = chunks
                    return chunk
                if chunk.finish_reason == "cancelled":
                    raise stopped()
                # Else it is there for what follows only.
                if chunk.text or chunk.likelihoods or chunk.begun or chunk.finish_reason is not None:
                    self._put(at, chunk)
                if chunk.finish_reason is not None:
                    return None
                if knew:
                    raise stopped()
                knew = self._stopped.is_set()
        finally:
            if at not in self._begun:
                _close(chunks)
        raise RuntimeError("the engine ended without a finish reason")

    def _put(self, at: int, item: Chunk | NomoatError) -> None:
        with suppress(RuntimeError):  # the loop is closed: this thread was left behind, and nobody reads
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (at, item))


class Answers:
    """The answers that are being written now.

    Each model has places of its own, and so has each side of one that chooses, and its other work: a server that says nothing, or a
    model that is being loaded, keeps only those waiting who ask for it. The threads are of all of them: one that is idle is given what
    comes next of any.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, Place | Literal["work"] | None], Row] = {}  # None: where it is decided, if it is
        self._idle = Idle()
        self._running: dict[Future[Place | None], Answer] = {}
        self._working: dict[Future[Any], threading.Event] = {}
        self._stopped_at: float | None = None

    @property
    def num_texts(self) -> int:
        """Texts being written or waiting for their turn."""
        running = list(self._running.values())
        return len(running) + sum(answer.num_waiting for answer in set(running))

    @property
    def num_waiting(self) -> int:
        """Those of them whose turn has not come."""
        return self.num_texts - sum(future.running() for future in list(self._running))

    def start(self, model: str, makes: Sequence[Make], *, client: str = "") -> Answer:
        """Begin an answer of this model; each of `makes` is called in a thread of its own, MAX_TEXTS_OF_ONE at once."""
        answer = Answer(model, makes, client)
        if self._stopped_at is not None:
            answer.stop()
        for _ in range(MAX_TEXTS_OF_ONE):
            self._begin_next(answer)
        return answer

    async def work(self, model: str, function: Callable[[threading.Event], T], *, client: str = "") -> T:
        """The result of something that takes this model time, done in a thread that no answer needs. It is told what is set when
        nobody waits for it any more. Raises NoThreadError, too."""
        stop = threading.Event()
        if self._stopped_at is not None:
            stop.set()

        def work() -> T:
            try:
                with net.asking_for(stop, client):
                    return function(stop)
            except NomoatError:
                if stop.is_set():
                    raise stopped() from None
                raise
            except BaseException as exc:  # noqa: BLE001  as in an answer
                problem = _unforeseen(exc)
            raise problem  # here, where it does not carry the other one along

        try:
            return await asyncio.wrap_future(self._submit_work(model, client, work, stop))
        finally:
            stop.set()

    def stop(self) -> None:
        """Stop all of them, because the server ends."""
        self._stopped_at = self._stopped_at or time.monotonic()
        for answer in list(self._running.values()):
            answer.stop()
        for stop in list(self._working.values()):
            stop.set()

    def close(self) -> None:
        """Stop all of them and wait for their threads, so that an engine may be closed after it.

        Not for ever: a thread that hangs in a connection no one answers, or loads a model, is left behind CLOSE_SECONDS after they
        were first told to stop.
        """
        self.stop()
        assert self._stopped_at is not None
        left_seconds = max(0.0, self._stopped_at + CLOSE_SECONDS - time.monotonic())
        self._idle.close()
        for row in list(self._rows.values()):
            row.close()
        _, left = concurrent.futures.wait([*list(self._running), *list(self._working)], timeout=left_seconds)
        if left:
            log.warning("did not stop within %g s and are left behind: %d answers", CLOSE_SECONDS, len(left))

    def _begin_next(self, answer: Answer) -> None:
        at = answer.next_turn()
        if at is not None:
            self._run(answer, at, None)

    def _run(self, answer: Answer, at: int, place: Place | None) -> None:
        future = self._submit(answer.model, place, answer.client, answer.run, at)
        self._running[future] = answer
        answer.futures.add(future)
        # Just now, where this changes threads: `stop` has not found it.
        if answer.is_stopped or self._stopped_at is not None:
            answer.stop()
        future.add_done_callback(functools.partial(self._ended, at))

    def _ended(self, at: int, future: Future[Place | None]) -> None:
        """In the thread that wrote it, or in whichever stopped the answer."""
        answer = self._running.pop(future)
        answer.futures.discard(future)
        if future.cancelled():
            self._let_go(answer, at)
        elif isinstance(error := future.exception(), NomoatError):
            answer.refuse(at, error)
            answer.stop()
        elif (place := future.result()) is not None:
            self._run(answer, at, place)
            return
        self._begin_next(answer)

    def _let_go(self, answer: Answer, at: int) -> None:
        """In a thread where something is begun: giving its model back may take a moment, and this may be the event loop's thread."""
        refuse = functools.partial(answer.refuse, at, stopped())
        if not answer.is_begun(at):
            refuse()
            return
        future = self._submit_work(answer.model, answer.client, refuse, threading.Event())
        future.add_done_callback(lambda ended: refuse() if ended.cancelled() or ended.exception() else None)

    def _submit_work(self, model: str, client: str, function: Callable[[], T], stop: threading.Event) -> Future[T]:
        future = self._submit(model, "work", client, function)
        self._working[future] = stop
        future.add_done_callback(self._working.pop)
        return future

    def _submit(
        self, model: str, place: Place | Literal["work"] | None, client: str, function: Callable[..., T], *given: Any
    ) -> Future[T]:  # fmt: skip
        row = self._rows.setdefault((model, place), Row(model, MAX_TEXTS, self._idle))
        return row.put(client, function, *given)
