"""Many pieces of work at once, in threads: what was begun is finished, even when one piece fails or the person presses Ctrl-C."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from nomoat import bounds
from nomoat.errors import UsageError
from nomoat.words import counted

log = logging.getLogger("nomoat.pool")

Item = TypeVar("Item")
Result = TypeVar("Result")

DEFAULT_CONCURRENCY = 16  # answers in the making at once
GRACE_SECONDS = 30.0  # how long a person who pressed Ctrl-C waits at most for answers that are paid for already

HEARTBEAT_SECONDS = 0.5  # no wait is longer: on Windows Ctrl-C ends none, and comes behind it


def run_many(
    work: Callable[[Item, threading.Event], Result],
    items: Sequence[Item],
    *,
    concurrency: int,
    on_leaving: Callable[[], None] = lambda: None,
    grace_seconds: float = GRACE_SECONDS,
) -> Generator[tuple[int, Result]]:
    """Yield (index, result) as pieces of work finish; up to `concurrency` at once, begun in their order.

    The first exception lets nothing new begin; it is raised when what was begun has finished and its results were yielded.
    If the caller leaves early (Ctrl-C), the event given to `work` is set and `on_leaving` is called, so that work nobody paid for may
    end, and the rest gets `grace_seconds` to finish, which is told, and which another Ctrl-C ends. Its results are not yielded then:
    what must not be lost is kept by `work`.
    Where the system starts no more threads, those that did start do it all; RuntimeError if none did.
    """
    crew = _Crew(work, items)
    threads = [threading.Thread(target=crew.run, name="answer", daemon=True) for _ in range(min(concurrency, len(items)))]
    failure: BaseException | None = None
    num_running = 0
    try:
        for thread in threads:
            num_running += 1
            try:
                thread.start()
            except RuntimeError:
                num_running -= 1
                if not num_running:
                    raise
                break
        while num_running:
            finished = crew.next_finished()
            if finished is None:
                num_running -= 1
            elif isinstance(finished, BaseException):
                failure = failure or finished
            else:
                yield finished
        if failure is not None:
            raise failure
    finally:
        crew.stop.set()
        if num_running:
            crew.caller_left.set()
            on_leaving()
        _wait_for(threads, grace_seconds)


def _wait_for(threads: Sequence[threading.Thread], seconds: float) -> None:
    deadline, is_told = time.monotonic() + seconds, False
    for thread in threads:
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:  # perhaps it was never started
            thread.join(min(left, HEARTBEAT_SECONDS))
            if thread.is_alive() and not is_told:  # most work ends at once
                num = sum(one.is_alive() for one in threads)
                under_way = counted(num, "answer")
                log.warning("stopping: waiting up to %.0f s for %s in the making; Ctrl-C again ends at once", left, under_way)
                is_told = True


def some(concurrency: int) -> int:
    """As Python's own number. Raises UsageError for what is no whole number, and for none at once: nothing would ever be done."""
    concurrency = bounds.whole("concurrency", concurrency)
    if concurrency < 1:
        raise UsageError(f"{concurrency} answers in the making at once are asked for", hint="ask for at least 1")
    return concurrency


class _Crew(Generic[Item, Result]):
    """What the threads share."""

    def __init__(self, work: Callable[[Item, threading.Event], Result], items: Sequence[Item]) -> None:
        self.stop = threading.Event()
        self.caller_left = threading.Event()
        self._finished: queue.SimpleQueue[tuple[int, Result] | BaseException | None] = queue.SimpleQueue()
        self._work = work
        self._todo = iter(enumerate(items))
        self._lock = threading.Lock()

    def next_finished(self) -> tuple[int, Result] | BaseException | None:
        """Wait for a result, a failure, or None from a thread that ends."""
        while True:
            with suppress(queue.Empty):
                return self._finished.get(timeout=HEARTBEAT_SECONDS)

    def run(self) -> None:
        while not self.stop.is_set():
            with self._lock:
                following = next(self._todo, None)
            if following is None:
                break
            index, item = following
            try:
                self._finished.put((index, self._work(item, self.caller_left)))
            except BaseException as exc:  # noqa: BLE001 - raised again where the caller is
                self.stop.set()
                self._finished.put(exc)
        self._finished.put(None)
