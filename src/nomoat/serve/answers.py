"""Engines answer in threads, the server lives in an event loop: `Answers` runs each request's answer in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import operator
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from nomoat import net
from nomoat.errors import NomoatError, StoppedError
from nomoat.records import Chunk

MAX_TEXTS = 64  # at once; more wait
MAX_TEXTS_OF_ONE = 16  # of one answer, so that others find room beside one of many texts
CLOSE_SECONDS = 5.0
THREAD_NAME = "answer"

T = TypeVar("T")
Item = tuple[int, Chunk] | None  # a chunk with the number of its text, or that there was none for a while
Make = Callable[[threading.Event], Iterator[Chunk]]  # told what is set when nobody waits for it any more

log = logging.getLogger("nomoat.serve")


def stopped() -> StoppedError:
    """What ends the work for a client that has gone, or in a server that is shutting down."""
    return StoppedError("the answer was stopped", hint="the server is shutting down")


def _bug(exc: BaseException) -> NomoatError:
    """What ends a request because of a bug. Logged are only places and the kind: the exception's own words may quote the prompt."""
    log.error("%s\n%s", type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
    return NomoatError(f"the engine failed: {type(exc).__name__}", hint="this is a bug; the server's log says where")


class Answer:
    """What a request is answered with: one or several texts, written at the same time and read from the event loop.

    `stop` ends the engine's work after the chunks it is at, and what it waits for from another server.
    """

    def __init__(self, makes: Sequence[Make]) -> None:
        self._makes = makes
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
        """Ask the threads to close the engine's iterators. Calling it after the end is fine."""
        self._stopped.set()

    @property
    def num_waiting(self) -> int:
        """Texts whose turn has not come."""
        return operator.length_hint(self._turns)

    def next_turn(self) -> int | None:
        """The text that is to be written next; None if there is none, or nobody waits for it: then that is said to whoever reads."""
        at = next(self._turns, None)
        if at is not None and self._stopped.is_set():
            self.refuse(at)
            return None
        return at

    def refuse(self, at: int) -> None:
        """This text will not be written."""
        self._put(at, stopped())

    def run(self, at: int) -> None:
        """Writes one text; runs in a thread."""
        try:
            with net.asking_for(self._stopped):
                self._write(at)
        except NomoatError as exc:
            self._put(at, stopped() if self._stopped.is_set() else exc)
        except BaseException as exc:  # noqa: BLE001  an engine's bug, or Rust's panic, must end this request, not the thread without a word
            self._put(at, _bug(exc))

    def _write(self, at: int) -> None:
        if self._stopped.is_set():
            raise stopped()
        chunks = self._makes[at](self._stopped)
        knew = False  # the engine could: its next chunk is its last, with what it has done
        try:
            for chunk in chunks:
                if chunk.finish_reason == "cancelled":
                    raise stopped()
                # Else it is there for what follows only.
                if chunk.text or chunk.likelihoods or chunk.begun or chunk.finish_reason is not None:
                    self._put(at, chunk)
                if chunk.finish_reason is not None:
                    return
                if knew:
                    raise stopped()
                knew = self._stopped.is_set()
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        raise RuntimeError("the engine ended without a finish reason")

    def _put(self, at: int, item: Chunk | NomoatError) -> None:
        with suppress(RuntimeError):  # the loop is closed: this thread was left behind, and nobody reads
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (at, item))


class Answers:
    """The answers that are being written now."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=MAX_TEXTS, thread_name_prefix=THREAD_NAME)
        self._running: dict[Future[None], Answer] = {}
        self._working: dict[Future[Any], threading.Event] = {}
        self._stopped_at: float | None = None

    @property
    def num_texts(self) -> int:
        """Texts being written or waiting for their turn."""
        running = list(self._running.values())
        return len(running) + sum(answer.num_waiting for answer in set(running))

    def start(self, makes: Sequence[Make]) -> Answer:
        """Begin an answer; each of `makes` is called in a thread of its own, MAX_TEXTS_OF_ONE at once."""
        answer = Answer(makes)
        if self._stopped_at is not None:
            answer.stop()
        for _ in range(MAX_TEXTS_OF_ONE):
            self._begin_next(answer)
        return answer

    async def work(self, function: Callable[[threading.Event], T]) -> T:
        """The result of something that takes time, done in a thread beside the answers. It is told what is set when nobody waits for
        it any more."""
        stop = threading.Event()
        if self._stopped_at is not None:
            stop.set()

        def work() -> T:
            try:
                with net.asking_for(stop):
                    return function(stop)
            except NomoatError:
                if stop.is_set():
                    raise stopped() from None
                raise
            except BaseException as exc:  # noqa: BLE001  as in an answer
                problem = _bug(exc)
            raise problem  # here, where it does not carry the other one along

        future = self._pool.submit(work)
        self._working[future] = stop
        future.add_done_callback(self._working.pop)
        try:
            return await asyncio.wrap_future(future)
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
        self._pool.shutdown(wait=False, cancel_futures=True)
        _, left = concurrent.futures.wait([*list(self._running), *list(self._working)], timeout=left_seconds)
        if left:
            log.warning("did not stop within %g s and are left behind: %d answers", CLOSE_SECONDS, len(left))

    def _begin_next(self, answer: Answer) -> None:
        at = answer.next_turn()
        if at is None:
            return
        try:
            future = self._pool.submit(answer.run, at)
        except RuntimeError:  # the pool is closed
            answer.refuse(at)
            return
        self._running[future] = answer
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        """In the thread that wrote it."""
        self._begin_next(self._running.pop(future))
