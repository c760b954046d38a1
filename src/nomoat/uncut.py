"""What is not to be cut in two by a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def uncut() -> Iterator[None]:
    """What is done inside is done whole: Ctrl-C, SIGTERM and SIGHUP, where they raise an error, raise it at its end.

    So are imports where the process goes on, as a notebook's does: PyTorch, OpenVINO and numba that were interrupted while they were
    imported cannot be imported again.
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no other is interrupted
            for number in STOPS:
                if callable(handler := signal.getsignal(number)):
                    before[number] = handler
                    signal.signal(number, lambda it, _: came.append(it))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for one in came:
        signal.raise_signal(one)
