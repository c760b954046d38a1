"""What may stop a training at any moment: a signal, and want of memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nomoat.errors import NotEnoughMemoryError
from nomoat.tune import adapter

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
NO_MEMORY = ("you tried to allocate", "bad_alloc")  # PyTorch's words and the C++ library's, in a RuntimeError


@contextmanager
def uncut() -> Iterator[None]:
    """What is done inside is done whole: Ctrl-C, SIGTERM and SIGHUP, where they raise an error, raise it at its end."""
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


@contextmanager
def translate_memory_errors(weights: str, name: str) -> Iterator[None]:
    """Turn want of memory, while the adapter `name` is tuned, into NotEnoughMemoryError, which says how to go on."""
    try:
        yield
    except (MemoryError, RuntimeError) as exc:
        if isinstance(exc, RuntimeError) and not any(words in str(exc) for words in NO_MEMORY):
            raise
        resuming = " and go on with --resume" if adapter.can_resume(name) else ""
        raise NotEnoughMemoryError(
            f"the memory was not enough to go on tuning `{weights}`",
            hint=f"close other programs{resuming}, or start again with a lower --batch or --rank",
        ) from exc
