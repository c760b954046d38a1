"""OpenBLAS, which numpy and scipy bring each, begins only where a limit of this process leaves room for it.

Where it maps less than it needs it may ask the system for ever, and no signal ends it, or call itself Ctrl-C, or end the process.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path

from nomoat.errors import NotEnoughMemoryError

BRINGS_IT = ("numpy", "scipy", "scipy.linalg")  # the second alone where another package begins with it, and later goes on
MAPPED_BYTES, THREAD_BYTES = (
    64 << 20,
    40 << 20,
)  # measured with numpy 2 and scipy 1.15: what it is itself; a stack of 8 MiB and 32 more
MOST_THREADS = 64  # it was built for
STATM = Path("/proc/self/statm")


def require_room() -> None:
    """From now on, importing what brings it raises NotEnoughMemoryError where `ulimit -v` leaves too little; under Linux alone."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and not any(isinstance(one, _Room) for one in sys.meta_path):
        sys.meta_path.insert(0, _Room(limit))


class _Room(MetaPathFinder):
    """Finds no module, and looks at the room that is left before others do."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in BRINGS_IT:
            with suppress(OSError):  # no /proc
                left = self._limit - int(STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                if left < (needed := MAPPED_BYTES + _threads() * THREAD_BYTES):
                    raise NotEnoughMemoryError(
                        f"`{name}` maps about {needed / 1e9:.1f} GB, and this process may map {max(left, 0) / 1e9:.1f} GB more",
                        hint="raise the limit (`ulimit -v`), or set OPENBLAS_NUM_THREADS=1, which needs less",
                    )


def _threads() -> int:
    """That it starts."""
    told = os.environ.get("OPENBLAS_NUM_THREADS", "")
    allowed = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    return min(int(told), allowed) if told.isdecimal() and int(told) else allowed
