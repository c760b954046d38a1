"""What clients share of a server: they take turns, and none has so much of it that nothing is left for another.

A client is an address: who asks several times has no more turns than who asks once. Behind a proxy it is the one that the proxy names.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from nomoat.errors import BusyError, NomoatError, NoThreadError, StoppedError

MAX_TEXTS_HELD = 1 << 16  # being written or waiting, of all clients
MAX_BODY_BYTES_HELD = 256 << 20  # of requests that are not answered yet, of all clients
THREAD_NAME = "answer"
IDLE_SECONDS = 1.0  # so long a thread waits for more: to begin one holds up whoever does, long where others are busy in Python

T = TypeVar("T")

log = logging.getLogger("nomoat.serve")


def stopped() -> StoppedError:
    """What ends the work for a client that has gone, or in a server that is shutting down."""
    return StoppedError("the answer was stopped", hint="the server is shutting down")


def client_of(request: HttpRequest) -> str:
    """Whose turn a request takes."""
    return request.client.host if request.client else ""


class Shares:
    """So much of something. A client may have as much of it as it leaves free: one alone half, and who comes later finds some.

    Source: Choudhury and Hahne 1998, doi:10.1109/90.664262, alpha = 1. To be used by one thread at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._of: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """By all clients."""
        return self._taken

    def take(self, client: str, amount: int = 1) -> bool:
        """Whether that was to be had."""
        if self._of[client] + amount > self._most - self._taken - amount:
            return False
        self._of[client] += amount
        self._taken += amount
        return True

    def give_back(self, client: str, amount: int = 1) -> None:
        self._taken -= amount
        self._of[client] -= amount
        if not self._of[client]:
            del self._of[client]


class Sharing:
    """ASGI middleware: what a request holds (see `Held`) is given back when its response has ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._texts, self._body_bytes = Shares(MAX_TEXTS_HELD), Shares(MAX_BODY_BYTES_HELD)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with ExitStack() as at_end:
            if scope["type"] == "http":
                held = Held(client_of(HttpRequest(scope)), self._texts, self._body_bytes, at_end)
                scope.setdefault("state", {})["held"] = held
            await self._app(scope, receive, send)


class Held:
    """What one request holds until `at_end`. To be used in the event loop's thread."""

    def __init__(self, client: str, texts: Shares, body_bytes: Shares, at_end: ExitStack) -> None:
        self._client = client
        self._texts, self._body_bytes = texts, body_bytes
        self._at_end = at_end
        self._num_bytes = 0

    def hold_texts(self, amount: int) -> None:
        """So many more that are asked for. Raises BusyError."""
        self._take(self._texts, amount, "texts that are being written or wait for their turn")

    def hold_body(self, num_bytes: int) -> None:
        """So many bytes of its body in all. Raises BusyError."""
        if num_bytes > self._num_bytes:
            self._take(self._body_bytes, num_bytes - self._num_bytes, "bytes of requests that are not answered yet")
            self._num_bytes = num_bytes

    def _take(self, shares: Shares, amount: int, what: str) -> None:
        if not shares.take(self._client, amount):
            raise BusyError(f"too much is asked at once: there is no room for {amount:,} more {what}", hint="ask again in a moment")
        self._at_end.callback(shares.give_back, self._client, amount)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    client: str
    future: Future[Any]
    function: Callable[[], Any]

    def run(self, done: Callable[[], None]) -> None:
        """`done` is called before anybody is told of the end, who may have more work at once. Whoever is told so in this thread, by a
        callback of the future, must not wait: the thread counts as idle by then, and what it is handed waits for it."""
        if not self.future.set_running_or_notify_cancel():
            done()
            return
        try:
            result = self.function()
        except BaseException as exc:  # noqa: BLE001  it is raised where the result is waited for
            done()
            self.future.set_exception(exc)
        else:
            done()
            self.future.set_result(result)

    def end(self, why: NomoatError) -> None:
        """Without having been run."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(why)


class Idle:
    """Threads without work, of all rows that share this, and the lock of them all. Any of these takes what comes next in
    any row, but not what waits there already, as for want of a thread; one for which nothing has come for IDLE_SECONDS ends."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.num_threads = 0
        self.is_closed = False
        self._handed: deque[tuple[Row, _Job]] = deque()  # to threads that are idle still, of which there are as many or more

    def hand(self, row: Row, job: _Job) -> bool:
        """Whether one of them takes it."""
        with self.lock:
            if len(self._handed) == self.num_threads:
                return False
            self._handed.append((row, job))
            self.lock.notify()
            return True

    def wait(self) -> tuple[Row, _Job] | None:
        """In one of them: what it is handed."""
        with self.lock:
            self.lock.wait_for(lambda: self._handed or self.is_closed, IDLE_SECONDS)
            self.num_threads -= 1
            return self._handed.popleft() if self._handed else None

    def close(self) -> None:
        """Let none wait any more; no row begins anything then."""
        with self.lock:
            self.is_closed = True
            self.lock.notify_all()


class Row:
    """Places for one kind of work, and what waits for one: clients take turns, and one alone may have `most` of them at once.

    Once Python ends, which waits for these threads, nothing is begun.
    """

    def __init__(self, name: str, most: int, idle: Idle | None = None) -> None:
        self._name = name
        self.idle = idle or Idle()
        self._lock = self.idle.lock
        self._shares = Shares(2 * most)
        self._waiting: OrderedDict[str, OrderedDict[Future[Any], _Job]] = OrderedDict()  # by client, in the order of their turns
        self._lacks_threads = False

    def put(self, client: str, function: Callable[..., T], *given: Any) -> Future[T]:
        """What the function returns, called in its turn; cancelled before that, it waits no more. It ends in NoThreadError where the
        system has no thread for it, none of the row is at work and none idle, in StoppedError where the row is closed."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.setdefault(client, OrderedDict())[future] = _Job(client, future, functools.partial(function, *given))
        future.add_done_callback(functools.partial(self._forget, client))
        self.begin()
        return future

    def close(self) -> None:
        """End what has not begun, and whatever comes later in any row with these threads."""
        self.idle.close()
        with self._lock:
            left = [job for jobs in self._waiting.values() for job in jobs.values()]
            self._waiting.clear()
        for job in left:
            job.end(stopped())

    def begin(self) -> None:
        """All whose turn has come."""
        while (job := self._next()) is not None:
            if self.idle.hand(self, job):
                continue
            try:
                # No daemon, as the thread that calls this may be: Python's end would break compiled code off.
                threading.Thread(target=_work, args=[self, [job]], name=THREAD_NAME, daemon=False).start()
            except RuntimeError as exc:
                if self._waits_again(job, exc):
                    return
                self._fail(job, exc)
            else:
                self._lacks_threads = False

    def end(self, client: str, jobs: list[_Job]) -> None:
        """One of this client's ends in this thread: `jobs` is given the one whose turn has come, or the thread is idle."""
        if (job := self._next(client)) is not None:
            jobs.append(job)

    def _next(self, ended: str | None = None) -> _Job | None:
        """The one whose turn has come. `ended`: the client of the one before in this thread, which is idle if there is none."""
        if self.idle.is_closed or not threading.main_thread().is_alive():
            self.close()
        with self._lock:
            if ended is not None:
                self._shares.give_back(ended)
            job = self._turn()
            if ended is not None and job is None:
                self.idle.num_threads += 1
            return job

    def _turn(self) -> _Job | None:
        client = next((one for one in self._waiting if self._shares.take(one)), None)
        if client is None:
            return None
        jobs = self._waiting.pop(client)
        _, job = jobs.popitem(last=False)
        if jobs:
            self._waiting[client] = jobs  # behind the others
        return job

    def _waits_again(self, job: _Job, why: RuntimeError) -> bool:
        """Whether this one, for which no thread begins, has one that is idle by now, or may wait for one that is at work: its turn is
        the next still."""
        with self._lock:
            if self.idle.hand(self, job):
                return True
            self._shares.give_back(job.client)
            if self.idle.is_closed or not self._shares.taken:
                return False
            if not job.future.cancelled():  # else `_forget` has been here
                jobs = self._waiting.setdefault(job.client, OrderedDict())
                jobs[job.future] = job
                jobs.move_to_end(job.future, last=False)
                self._waiting.move_to_end(job.client, last=False)
            lacked, self._lacks_threads = self._lacks_threads, True
        if not lacked:
            log.warning("answers of `%s` wait for those under way: %s", self._name, why)
        return True

    def _fail(self, job: _Job, why: RuntimeError) -> None:
        if self.idle.is_closed:
            job.end(stopped())
            return
        log.error("an answer of `%s` cannot begin: %s", self._name, why)
        hint = "ask again; the server's system lets a process have so many threads only (`ulimit -u`, or a container's limit)"
        job.end(NoThreadError(f"the server cannot begin the answer: {why}", hint=hint))

    def _forget(self, client: str, future: Future[Any]) -> None:
        with self._lock:
            jobs = self._waiting.get(client, OrderedDict())
            jobs.pop(future, None)
            if not jobs:
                self._waiting.pop(client, None)


def _work(row: Row, jobs: list[_Job]) -> None:
    """In a thread, for as long as there is work: the one in `jobs` first. While it waits, it keeps nothing of what has ended."""
    while jobs:
        client = jobs[0].client
        jobs.pop().run(functools.partial(row.end, client, jobs))
        if jobs:
            row.begin()  # where one ends, two may begin: see `Shares`
        elif (handed := row.idle.wait()) is not None:
            row, job = handed
            jobs.append(job)
            del handed, job
