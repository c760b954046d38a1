"""How fast a server is asked: waits that grow, with chance in them, and fewer requests at once after it said it was too much."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from nomoat import net

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
LONGEST_TURN_SECONDS = 300.0  # that others wait for: whoever reads an answer may have stopped to
LONGEST_ASKED_WAIT_SECONDS = 300.0  # a server that wants us away for longer is better answered with an error
SILENT_SECONDS = 10.0  # without a first word: such a request of one client keeps no other waiting
SHOULD_RETRY = "x-should-retry"  # "false": whoever asks again is told the same; OpenAI's clients go by it, too


def wait_before(attempt: int) -> float:
    """Seconds to wait before the `attempt`-th time of asking again (1 is the first): doubling, half of it by chance.

    Without chance, all who were refused together would come back together.
    """
    return min(LONGEST_WAIT_SECONDS, math.ldexp(FIRST_WAIT_SECONDS, attempt - 1)) * random.uniform(0.5, 1.0)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server's answer asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date. None if it does not.

    A date is counted from the answer's own `Date`, where it has one: this machine's clock may be wrong.
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value) * scale
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    when = _date(headers.get("retry-after", ""))
    if when is None:
        return None
    return max(0.0, (when - (_date(headers.get("date", "")) or datetime.now(UTC))).total_seconds())


def _date(value: str) -> datetime | None:
    """Of a header; None where it is none."""
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # numbers of many digits
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)  # "-0000" in a date means UTC of which nothing more is known


class GaveUpWaitingError(Exception):
    """Whoever this thread asks for has left."""


@dataclass(slots=True, eq=False)
class Turn:
    """One request that is being answered. Whoever reads the answer says that it `has_begun`.

    `is_newest`: no question has come after it.
    """

    since: float  # on the monotonic clock
    has_begun: bool = False
    is_newest: bool = True  # surely: of those that begin at once the server may see any last

    @property
    def is_silent(self) -> bool:
        """Whether its server has said nothing for SILENT_SECONDS, which may go on for minutes."""
        return not self.has_begun and time.monotonic() - self.since >= SILENT_SECONDS


class Pace:
    """The turns of the threads that ask one server. A refusal halves how many ask at once; each round that goes well adds one.

    With `counts_silent` False, for clients that know nothing of each other, a turn that `is_silent` takes no place. In a batch it
    does: its server may well be at work, as on what a model thinks for a minute, and refuse what comes beside.

    Who asks alone waits until all others have their answers, and they wait for that one.

    `came_at`, here and there, is `num_given_up` of when the question came, which may wait several times.
    """

    def __init__(self, *, counts_silent: bool = True) -> None:
        self._counts_silent = counts_silent
        self._condition = threading.Condition()
        self._turns: set[Turn] = set()
        self._num_waiting_alone = 0
        self._alone: Turn | None = None
        self.limit: int | None = None  # how many may ask at once now; None if the server never complained
        self._num_well = 0
        self._is_told = False
        self._not_before = 0.0
        self._halved_until = 0.0
        self.num_given_up = 0  # how often all who had come until then were sent away

    @contextmanager
    def turn(self, came_at: int, *, alone: bool = False) -> Iterator[Turn]:
        """Wait until it is this thread's turn to ask, and keep the place until the block ends.

        `alone`: with nobody else's turn, unless one that had it before keeps it for longer than LONGEST_TURN_SECONDS, or
        where not `counts_silent` than SILENT_SECONDS, for which it keeps others waiting itself there.
        Raises GaveUpWaitingError, and what `net.require_asker` raises.
        """
        with self._condition:
            with self._all_others_waiting() if alone else nullcontext(self._is_crowded) as crowded:
                self._wait_while(crowded, until=lambda: self._not_before, came_at=came_at)
            turn = Turn(since=time.monotonic(), is_newest=alone or all(other.has_begun for other in self._turns))
            for other in self._turns:
                other.is_newest = False
            self._turns.add(turn)
            self._alone = turn if alone else self._alone
        try:
            yield turn
        finally:
            with self._condition:
                self._turns.remove(turn)
                self._alone = None if self._alone is turn else self._alone
                self._condition.notify_all()

    @contextmanager
    def _all_others_waiting(self) -> Iterator[Callable[[], bool]]:
        """Let nobody who does not ask alone begin meanwhile. Whether one that began before still has to be waited for."""
        end = time.monotonic() + (LONGEST_TURN_SECONDS if self._counts_silent else SILENT_SECONDS)
        self._num_waiting_alone += 1
        try:
            yield lambda: self._is_kept_alone() or (bool(self._turns) and time.monotonic() < end)
        finally:
            self._num_waiting_alone -= 1
            self._condition.notify_all()

    def pause(self, seconds: float, came_at: int) -> None:
        """Let this thread wait before it asks again. Raises what `turn` raises."""
        end = time.monotonic() + seconds
        with self._condition:
            self._wait_while(lambda: False, until=lambda: end, came_at=came_at)

    def too_fast(self, wait_seconds: float) -> None:
        """The server refused a request as one too many: nobody asks for a while. Refusals of one moment count once."""
        with self._condition:
            now = time.monotonic()
            if now >= self._halved_until:
                self.limit = max(1, (len(self._turns) + 1) // 2)
                self._num_well = 0
            self._halved_until = max(self._halved_until, now + wait_seconds)
            self._not_before = max(self._not_before, now + wait_seconds)

    def went_well(self) -> None:
        """An answer came: after as many as may run at once, one more may."""
        with self._condition:
            self._num_well += 1
            if self.limit is not None and self._num_well >= self.limit:
                self.limit += 1
                self._num_well = 0
                self._condition.notify_all()

    def is_first_told(self) -> bool:
        """Whether nobody was told yet that this server keeps refusing; from now on somebody was."""
        with self._condition:
            was_told, self._is_told = self._is_told, True
        return not was_told

    def give_up_waiting(self) -> None:
        """Send away all who have come, once they wait; whoever is answered already is not disturbed."""
        with self._condition:
            self.num_given_up += 1
            self._condition.notify_all()

    def require_asker(self, came_at: int) -> None:
        """Raise GaveUpWaitingError, or what `net.require_asker` raises, if whoever this thread asks for has left."""
        if self.num_given_up != came_at:
            raise GaveUpWaitingError
        net.require_asker()

    def _is_crowded(self) -> bool:
        return self._num_waiting_alone > 0 or self._is_kept_alone() or self._is_full()

    def _is_kept_alone(self) -> bool:
        return self._alone is not None and (self._counts_silent or time.monotonic() - self._alone.since < SILENT_SECONDS)

    def _is_full(self) -> bool:
        return self.limit is not None and sum(self._counts_silent or not turn.is_silent for turn in self._turns) >= self.limit

    def _wait_while(self, crowded: Callable[[], bool], *, until: Callable[[], float], came_at: int) -> None:
        self.require_asker(came_at)
        while (wait := until() - time.monotonic()) > 0 or crowded():
            self._condition.wait(min(wait, net.HEARTBEAT_SECONDS) if wait > 0 else net.HEARTBEAT_SECONDS)
            self.require_asker(came_at)
