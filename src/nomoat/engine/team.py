"""Threads that work on one job together, each its share, and meet between its steps.

They look for the next job for a moment before they sleep, since the layers of a model follow one another and to wake a thread takes
longer than a small product. numba's own pools may give two shares to one thread, one after the other, which threads that meet between
steps cannot do with.

A pass has some hundred steps, and at each all wait for the last. Where other programs want the cores, too, one of them is always
behind, and two threads are many times slower than one: fewer take part then, for a while. What is computed stays the same to the bit.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

import numpy as np

from nomoat import hardware, machine_code

TEAM_NUMBERS = 64  # and after them, for each thread, whether it is asleep
MOST_THREADS = 2**16 - 1  # that a ticket can name
WINDOW_SECONDS = 0.15  # of chains, after which it is asked how long threads stood in line for a core
CROWDED = 0.8  # how many did at a time, on average, times those that take part
REST_SECONDS, MOST_REST_SECONDS = 0.5, 20.0  # how long fewer threads take part before all of them try again
RESTS_A_TRIAL = 20  # and at least so many times as long as the try took
SERVE = machine_code.Compiled("engine.team_kernels", "serve", 3, gives_number=True)
COUNT = machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)


class TeamState(IntEnum):
    """Places of what a team's threads share, `TEAM_NUMBERS` of 64 bits. `jit.ARRIVED` and `jit.PHASE` lie between them."""

    TICKET = 0  # chains of jobs so far, times 2**16, and threads that do the last; alone in its cache line, which waiting threads read
    THREADS = 24  # that take part in the next chain
    SHARE = 25  # address of what does a thread's share of a chain
    JOBS = 26  # address of the chain, a row of `step_tables.Job` for each
    NUM_JOBS = 27
    OWED = 28  # 1 while the caller's share is not done


class Team:
    """As many threads as told, the caller's one of them."""

    def __init__(self, threads: int, share: int) -> None:
        """`share`: the address of what does a thread's share of a job, of the state's address, the thread and their number."""
        self._threads = threads = min(threads, MOST_THREADS)
        self.state = np.zeros(TEAM_NUMBERS + threads, np.int64)
        self.state[[TeamState.THREADS, TeamState.SHARE]] = threads, share
        self.address = int(self.state.ctypes.data)
        self._seconds, self._ended = 0.0, 0.0  # of the chains in this window; when the last one ended
        self._waited: dict[int, int] = {}  # of each thread, see `waited_ns`: when the window began
        self._rest, self._rested_at = 0.0, 0.0  # how long fewer take part, and until when
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._serve, self._count = SERVE.call, COUNT.call  # here, where an error ends no thread that others wait for
        self._workers = [
            threading.Thread(target=self._work, args=(me,), daemon=True, name=f"nomoat-team-{me}") for me in range(1, threads)
        ]
        for worker in self._workers:
            worker.start()

    def __len__(self) -> int:
        return self._threads

    def wake(self) -> None:
        """There is a job, and somebody sleeps."""
        with self._lock:  # a condition's own `with` can be left by Ctrl-C between the lock and what gives it back
            self._news.notify_all()

    def begin(self) -> float:
        """Before each chain: the time. All take part again if fewer have for long enough."""
        if self.state[TeamState.THREADS] < len(self) and time.monotonic() >= self._rested_at:
            self.state[TeamState.THREADS] = len(self)
            self._begin_window()
        began = time.perf_counter()
        if began - self._ended > WINDOW_SECONDS:  # in a pause the caller may have stood in line for something else
            self._begin_window()
        return began

    def note(self, began: float) -> None:
        """A chain is done that began then. Fewer take part in the next ones if threads stood in line for a core that others had."""
        self._ended = time.perf_counter()
        self._seconds += self._ended - began
        if self._seconds < WINDOW_SECONDS:
            return
        tried, before, taking_part = self._seconds, self._waited, int(self.state[TeamState.THREADS])
        self._begin_window()
        waited = sum(now - before[thread] for thread, now in self._waited.items() if thread in before) / 1e9 / tried
        if taking_part > 1 and waited * taking_part > CROWDED:
            self._rest = min(MOST_REST_SECONDS, max(REST_SECONDS, 2 * self._rest))
            self._rested_at = time.monotonic() + max(self._rest, RESTS_A_TRIAL * tried)
            self.state[TeamState.THREADS] = max(1, taking_part - max(1, round(waited)))
        elif taking_part == len(self):
            self._rest = 0.0

    def _begin_window(self) -> None:
        self._seconds = 0.0
        threads = [
            threading.get_native_id(),
            *(worker.native_id for worker in self._workers[: int(self.state[TeamState.THREADS]) - 1]),
        ]
        self._waited = {thread: waited_ns(thread) for thread in threads if thread is not None}

    def _work(self, me: int) -> None:
        _leave_the_core_of_the_caller()
        asleep = self.address + 8 * (TEAM_NUMBERS + me)
        done = 0
        while True:
            done = self._serve(self.address, me, done)
            with self._news:  # whoever announces a job counts it first and looks for sleepers then: one of both is seen
                self._count(asleep, 1)
                self._news.wait_for(lambda done=done: self._is_called(me, done))  # type: ignore[misc]
                self._count(asleep, -1)

    def _is_called(self, me: int, done: int) -> bool:
        ticket = int(self._count(self.address + 8 * TeamState.TICKET, 0))
        return ticket != done and me < ticket & MOST_THREADS


def waited_ns(thread: int) -> int:
    """How long a thread, by the system's number, has been ready to run while others had the cores; 0 where that is not told."""
    try:
        return int(Path("/proc/self/task", str(thread), "schedstat").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _leave_the_core_of_the_caller() -> None:
    """Run on any core that some thread of this process may use: OpenVINO may have kept the caller on one, which a thread inherits."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, hardware.allowed_cores())
