"""Threads that work on one job together, each its share, and meet between its steps.

They look for the next job for a moment before they sleep, since the layers of a model follow one another and to wake a thread takes
longer than a small product. numba's own pools may give two shares to one thread, one after the other, which threads that meet between
steps cannot do with.

A pass has some hundred steps, and at each all wait for the last: see `taking_part`. However many take part, what is computed is the
same to the bit.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from enum import IntEnum

import numpy as np

from nomoat import hardware, machine_code
from nomoat.engine.taking_part import TakingPart

TEAM_NUMBERS = 64  # and after them, for each thread, whether it is asleep
MOST_THREADS = 2**16 - 1  # that a ticket can name
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
        self._taking_part = TakingPart(threads, self._numbers)
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
        """Before each chain: the time, for `note`."""
        began = self._taking_part.begin()
        self.state[TeamState.THREADS] = self._taking_part.count
        return began

    def note(self, began: float) -> None:
        """A chain is done that began then."""
        self._taking_part.note(began)

    def _numbers(self, count: int) -> list[int]:
        workers = (worker.native_id for worker in self._workers[: count - 1])
        return [threading.get_native_id(), *(number for number in workers if number is not None)]

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


def _leave_the_core_of_the_caller() -> None:
    """Run on any core that some thread of this process may use: OpenVINO may have kept the caller on one, which a thread inherits."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, hardware.allowed_cores())
