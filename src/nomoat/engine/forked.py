"""A fork of a process that has run a model, or tuned one: it has the model's memory, and none of the threads that run it.

Not covered: a fork of a process that runs OpenVINO or PyTorch by itself.
"""

from __future__ import annotations

import os

from nomoat.errors import ForkedError

_ran_in: set[int] = set()  # the processes that have run or tuned a model, as far as this one knows: itself, or the one it is a fork of


def begin() -> None:
    """A model is run or tuned from now on. Raises ForkedError as `require_none` does.

    No lock is taken, which a fork may find held for ever.
    """
    require_none()
    _ran_in.add(os.getpid())


def is_fork() -> bool:
    """Whether this process is a fork of one that had run or tuned a model."""
    return not _ran_in <= {os.getpid()}


def require_none() -> None:
    """Raises ForkedError if it is."""
    if is_fork():
        raise ForkedError(
            "this process is a fork of one that had asked or tuned a model, and has none of the threads that run models",
            hint='start processes by `spawn`: multiprocessing.get_context("spawn"); or fork before a model is first asked or tuned',
        )
