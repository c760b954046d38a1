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
_passes: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def passes() -> threading.Lock:
    """A lock for one model's passes of OpenVINO: held around each, which begins with `require_time`."""
    made = threading.Lock()
    with _adding:
        _passes.add(made)
    return made


@contextmanager
def waited_for() -> Iterator[None]:
    """OpenVINO is at work as in a pass. Raises RuntimeError, before it begins, if the process ends."""
    with passes():
        require_time()
        yield


def require_time() -> None:
    """Raises RuntimeError if the process ends."""
    if _no_pass_begins.is_set():
        raise RuntimeError(ENDS)


def require_time_for_job() -> None:
    """The same for what a pass may be in the midst of: raises RuntimeError once those under way have ended."""
    if process_ends.is_set():
        raise RuntimeError(ENDS)


def end(seconds: float) -> None:
    """Wait for passes that are under way, so long at most. No other begins then.

    No lock is held while another is waited for: who makes a model asks for that of its passes.
    """
    deadline = time.monotonic() + seconds
    _no_pass_begins.set()
    with _adding:
        under_way = list(_passes)
    for lock in under_way:
        if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            lock.release()
    process_ends.set()
