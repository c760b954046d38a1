"""How many threads learn: fewer while other programs want the cores, too.

A step has thousands of pieces of work that all threads end together. Where another program wants one of the cores, one of them is
always behind, and fewer threads are faster than more. How much others want is not told by how long threads stand in line, as our own
stand before each other: so it is tried.
"""

from __future__ import annotations

from collections import deque

from nomoat.engine import program
from nomoat.tune import kernels

REST_SECONDS, MOST_REST_SECONDS = 5.0, 30.0  # between two tries; twice as long each time that one has failed
RESTS_A_TRY = 30  # and at least so many times as long as it took: long steps are tried as rarely
RECENT = 4  # steps, of which the fastest a token counts: some steps compile what they need
GAIN = 0.9  # times that: who is faster learns from then on


def use(count: int) -> None:
    """So many learn from now on: PyTorch's, the kernels', and the engine's where it multiplies."""
    kernels.set_threads(count)
    program.use_threads(count)


class Threads:
    """`count` is for the next step. Now and then that is half as many, or twice as many, to see whether they are faster."""

    def __init__(self, most: int) -> None:
        self.count = self._kept = self.most = most
        self._recent = deque[float](maxlen=RECENT)  # seconds a token of those that are kept
        self._rest = self._tried_next = REST_SECONDS
        self._fewer = True  # are tried next

    def note(self, seconds: float, tokens: int, now: float) -> None:
        """A step of so many tokens is done with `count` threads, `now` seconds after the first began."""
        seconds_a_token = seconds / tokens
        if self.count == self._kept:
            self._recent.append(seconds_a_token)
        elif seconds_a_token < GAIN * min(self._recent):
            self._kept, self._rest, self._tried_next = self.count, REST_SECONDS, now + REST_SECONDS
            self._recent.clear()
            self._recent.append(seconds_a_token)
        else:
            self._rest = min(MOST_REST_SECONDS, 2 * self._rest)
            self._tried_next, self._fewer = now + max(self._rest, RESTS_A_TRY * seconds), not self._fewer
        self.count = self._kept if now < self._tried_next or len(self._recent) < RECENT else self._other()

    def _other(self) -> int:
        if self._kept == 1 or (not self._fewer and self._kept < self.most):
            return min(self.most, 2 * self._kept)
        return self._kept // 2
