"""Threads that work on one job together, each its share, and meet between its steps.

They look for the next job for a moment before they sleep, since the layers of a model follow one another and to wake a thread takes
longer than a small product. numba's own pools may give two shares to one thread, one after the other, which threads that meet between
steps cannot do with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from nomoat import hardware, jit

# places of what they share: how many jobs so far, how many threads, how many asleep; where what does a share of a job lies;
# the job itself, two numbers; whether the caller's share of it is not done yet
TICKET, THREADS, SLEEPING, SHARE, JOB, OWED = 0, 24, 25, 26, 32, 34
SHARED = 64


class Team:
    """As many threads as told, the caller's one of them."""

    def __init__(self, threads: int, share: int, serve: Callable[[Any, int, int], int]) -> None:
        """`share`: the address of what does a thread's share of a job, of the state's address, the thread and their number.

        `serve(state, me, done)`: compiled; does the jobs after the first `done`, and says how many there were when none came.
        """
        self.state = np.zeros(SHARED, np.int64)
        self.state[[THREADS, SHARE]] = threads, share
        self._serve = serve
        self._news = threading.Condition()
        serve(self.state, 0, 0)  # compiled here, where an error ends no thread that others wait for
        jit.add_here(self.state, SLEEPING, 0)
        for me in range(1, threads):
            threading.Thread(target=self._work, args=(me,), daemon=True, name=f"nomoat-team-{me}").start()

    def __len__(self) -> int:
        return int(self.state[THREADS])

    def wake(self) -> None:
        """There is a job, and somebody sleeps."""
        with self._news:
            self._news.notify_all()

    def _work(self, me: int) -> None:
        _leave_the_core_of_the_caller()
        done = 0
        while True:
            done = self._serve(self.state, me, done)
            with self._news:  # whoever announces a job counts it first and looks for sleepers then: one of both is seen
                jit.add_here(self.state, SLEEPING, 1)
                self._news.wait_for(lambda done=done: self.state[TICKET] != done)  # type: ignore[misc]
                jit.add_here(self.state, SLEEPING, -1)


def _leave_the_core_of_the_caller() -> None:
    """Run on any core that some thread of this process may use: OpenVINO may have kept the caller on one, which a thread inherits."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, hardware.allowed_cores())
