"""What may stop a training at any moment besides a signal: want of disk and of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nomoat import hardware, machine_code, system_errors
from nomoat.errors import NotEnoughDiskError, NotEnoughMemoryError
from nomoat.tune import adapter


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
