"""Engines answer in threads, the server lives in an event loop: `Answers` runs each request's answer in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from nomoat.errors import NomoatError
from nomoat.records import Chunk

MAX_ANSWERS = 64  # at once; more wait

log = logging.getLogger("nomoat.serve")


class Answer:
    """The chunks of one answer, read from the event loop. `stop` ends the engine's work after the chunk it is at."""

    def __init__(self, make: Callable[[], Iterator[Chunk]]) -> None:
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Chunk | NomoatError] = asyncio.Queue()
        self._stopped = threading.Event()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Raises NomoatError where the engine did."""
        while True:
            item = await self._queue.get()
            if isinstance(item, NomoatError):
                raise item
            yield item
            if item.finish_reason is not None:
                return

    def stop(self) -> None:
        """Ask the thread to close the engine's iterator. Calling it after the end is fine."""
        self._stopped.set()

    def run(self) -> None:
        """Runs in the thread."""
        try:
            self._write()
        except NomoatError as exc:
            self._put(exc)
        except Exception as exc:  # noqa: BLE001  an engine's bug must end this request, not the thread without a word
            # Only places and the kind: the exception's own words may quote the prompt.
            log.error("%s\n%s", type(exc).__name__, "".join(traceback.format_tb(exc.__traceback__)))
            self._put(NomoatError(f"the engine failed: {type(exc).__name__}", hint="this is a bug; the server's log says where"))

    def _write(self) -> None:
        if self._stopped.is_set():
            return
        chunks = self._make()
        try:
            for chunk in chunks:
                self._put(chunk)
                if chunk.finish_reason is not None:
                    return
                if self._stopped.is_set():
                    self._put(NomoatError("the answer was stopped", hint="the server is shutting down"))
                    return
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        raise RuntimeError("the engine ended without a finish reason")

    def _put(self, item: Chunk | NomoatError) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, item)


class Answers:
    """The answers that are being written now."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=MAX_ANSWERS, thread_name_prefix="answer")
        self._running: set[Answer] = set()

    def start(self, make: Callable[[], Iterator[Chunk]]) -> Answer:
        """Begin an answer; `make` is called in its thread."""
        answer = Answer(make)
        self._running.add(answer)
        self._pool.submit(answer.run).add_done_callback(lambda _: self._running.discard(answer))
        return answer

    def stop(self) -> None:
        """Stop all of them."""
        for answer in list(self._running):
            answer.stop()

    def close(self) -> None:
        """Stop all of them and wait for their threads, so that an engine may be closed after it."""
        self.stop()
        self._pool.shutdown(wait=True, cancel_futures=True)
