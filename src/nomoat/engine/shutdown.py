"""What is at work when a process ends, which frees its memory: passes that are under way end first, and no other begins.

The same goes for models that are made or freed. A thread that waits for Python in the midst of OpenVINO's code is ended there once
Python ends, which aborts the process.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

ENDS = "the process ends"
_no_pass_begins = threading.Event()
process_ends = threading.Event()  # no job either, such as of a pass that was under way
_adding = threading.Lock()
_at_work: weakref.WeakSet[threading.Lock] = weakref.WeakSet()  # each held as long as its work takes


@contextmanager
def waited_for() -> Iterator[None]:
    """OpenVINO is at work: on a pass, or a model that is made or freed. Raises RuntimeError, before it begins, if the process ends."""
    work = threading.Lock()
    with work:
        with _adding:
            if _no_pass_begins.is_set():
                raise RuntimeError(ENDS)
            _at_work.add(work)
        yield


def require_time() -> None:
    """For a job, which may be that of a pass: raises RuntimeError once the process ends and passes under way have ended."""
    if process_ends.is_set():
        raise RuntimeError(ENDS)


def end(seconds: float) -> None:
    """Wait for passes that are under way, so long at most. No other begins then.

    `_adding` is not held meanwhile: work that is under way may begin some of its own, and is told that it is too late.
    """
    deadline = time.monotonic() + seconds
    _no_pass_begins.set()
    with _adding:
        under_way = list(_at_work)
    for lock in under_way:
        if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            lock.release()
    process_ends.set()
