"""How many threads work on one job together: fewer while other programs want the cores, too.

Threads that meet again and again all wait for the last. Where other programs want the cores one of them is always behind, and two
threads may be many times slower than one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

WINDOW_SECONDS = 0.15  # of work, after which it is asked how long threads stood in line for a core
CROWDED = 0.8  # how many did at a time, on average, times those that take part
REST_SECONDS, MOST_REST_SECONDS = 0.5, 20.0  # how long fewer threads take part before all of them try again
RESTS_A_TRIAL = 20  # and at least so many times as long as the try took
TASKS = Path("/proc/self/task")


class TakingPart:
    """How many of some threads take part in the next piece of work, told by how it went with the last ones."""

    def __init__(self, most: int, threads: Callable[[int], Iterable[int]]) -> None:
        """`threads`: the system's numbers of those that do, where so many take part."""
        self.count, self._most, self._threads = most, most, threads
        self._seconds, self._ended = 0.0, 0.0  # of the work in this window; when the last piece ended
        self._waited: dict[int, int] = {}  # of each thread, see `waited_ns`: when the window began
        self._rest, self._rested_at = 0.0, 0.0  # how long fewer take part, and until when

    def begin(self) -> float:
        """Before each piece of work: the time. All take part again if fewer have for long enough."""
        if self.count < self._most and time.monotonic() >= self._rested_at:
            self.count = self._most
            self._begin_window()
        began = time.perf_counter()
        if began - self._ended > WINDOW_SECONDS:  # in a pause the caller may have stood in line for something else
            self._begin_window()
        return began

    def note(self, began: float) -> None:
        """A piece is done that began then. Fewer do the next ones if threads stood in line for a core that others had."""
        self._ended = time.perf_counter()
        self._seconds += self._ended - began
        if self._seconds < WINDOW_SECONDS:
            return
        tried, before = self._seconds, self._waited
        self._begin_window()
        waited = sum(now - before[thread] for thread, now in self._waited.items() if thread in before) / 1e9 / tried
        if self.count > 1 and waited * self.count > CROWDED:
            self._rest = min(MOST_REST_SECONDS, max(REST_SECONDS, 2 * self._rest))
            self._rested_at = time.monotonic() + max(self._rest, RESTS_A_TRIAL * tried)
            self.count = max(1, self.count - max(1, round(waited)))
        elif self.count == self._most:
            self._rest = 0.0

    def _begin_window(self) -> None:
        self._seconds = 0.0
        self._waited = {thread: waited_ns(thread) for thread in self._threads(self.count)}


def all_threads() -> list[int]:
    """The system's numbers of this process's; none where that is not told."""
    with suppress(OSError):
        return [int(task.name) for task in TASKS.iterdir()]
    return []


def waited_ns(thread: int) -> int:
    """How long a thread, by the system's number, has been ready to run while others had the cores; 0 where that is not told."""
    try:
        return int((TASKS / str(thread) / "schedstat").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
