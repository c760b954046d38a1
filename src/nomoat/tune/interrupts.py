"""What may stop a training at any moment: a signal, and want of memory."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nomoat import hardware, machine_code, system_errors
from nomoat.errors import NotEnoughDiskError, NotEnoughMemoryError
from nomoat.tune import adapter

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


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
def translate_errors(weights: str, name: str, *, resume: bool) -> Iterator[None]:
    """Turn want of disk and of memory, while the adapter `name` is tuned, into errors that say how to go on.

    `resume`: with the state that is there. Else that is an earlier training's, which this one does not go on with.
    """
    earlier = None if resume else adapter.saved_at(name)
    try:
        with system_errors.translate_disk_errors(machine_code.place() / "kernel"):
            yield
    except NotEnoughDiskError as error:
        if adapter.can_resume(name, earlier=earlier):
            error.hint = f"{error.hint}; then the same again with --resume (in Python: `resume`) goes on"
        raise
    except Exception as exc:
        if not system_errors.is_want_of_memory(exc):
            raise
        resuming = " and go on with --resume (in Python: `resume`)" if adapter.can_resume(name, earlier=earlier) else ""
        more = hardware.more_memory(hardware.memory_available_bytes())
        raise NotEnoughMemoryError(
            f"the memory was not enough to go on tuning `{weights}`",
            hint=f"{more}{resuming}, or start again with a lower --batch or --rank (in Python: `batch`, `rank`)",
        ) from exc
