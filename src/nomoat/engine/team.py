"""Threads that work on one job together, each its share, and meet between its steps.

They look for the next job for a moment before they sleep, since the layers of a model follow one another and to wake a thread takes
longer than a small product. numba's own pools may give two shares to one thread, one after the other, which threads that meet between
steps cannot do with.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from enum import IntEnum

import numpy as np

from nomoat import hardware, machine_code

TEAM_NUMBERS = 64
SERVE = machine_code.Compiled("engine.team_kernels", "serve", 3, gives_number=True)
COUNT = machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)


class TeamState(IntEnum):
    """Places of what a team's threads share, `TEAM_NUMBERS` of 64 bits. `jit.ARRIVED` and `jit.PHASE` lie between them."""

    TICKET = 0  # how many chains of jobs so far; alone in its cache line, which waiting threads read
    THREADS = 24
    SLEEPING = 25  # threads that are asleep
    SHARE = 26  # address of what does a thread's share of a chain
    JOBS = 32  # address of the chain, a row of `step_tables.Job` for each
    NUM_JOBS = 33
    OWED = 34  # 1 while the caller's share is not done


class Team:
    """As many threads as told, the caller's one of them."""

    def __init__(self, threads: int, share: int) -> None:
        """`share`: the address of what does a thread's share of a job, of the state's address, the thread and their number."""
        self.state = np.zeros(TEAM_NUMBERS, np.int64)
        self.state[[TeamState.THREADS, TeamState.SHARE]] = threads, share
        self.address = int(self.state.ctypes.data)
        self._news = threading.Condition()
        self._serve, self._count = SERVE.call, COUNT.call  # here, where an error ends no thread that others wait for
        for me in range(1, threads):
            threading.Thread(target=self._work, args=(me,), daemon=True, name=f"nomoat-team-{me}").start()

    def __len__(self) -> int:
        return int(self.state[TeamState.THREADS])

    def wake(self) -> None:
        """There is a job, and somebody sleeps."""
        with self._news:
            self._news.notify_all()

    def _work(self, me: int) -> None:
        _leave_the_core_of_the_caller()
        done = 0
        while True:
            done = self._serve(self.address, me, done)
            with self._news:  # whoever announces a job counts it first and looks for sleepers then: one of both is seen
                self._count(self.address + 8 * TeamState.SLEEPING, 1)
                self._news.wait_for(lambda done=done: self._count(self.address + 8 * TeamState.TICKET, 0) != done)  # type: ignore[misc]
                self._count(self.address + 8 * TeamState.SLEEPING, -1)


def _leave_the_core_of_the_caller() -> None:
    """Run on any core that some thread of this process may use: OpenVINO may have kept the caller on one, which a thread inherits."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, hardware.allowed_cores())
