"""Large pages for keys and values: with pages of 4 kB the CPU looks up an address for each.

Linux only, and only where it gives large pages to those who ask (`/sys/kernel/mm/transparent_hugepage/enabled`); elsewhere nothing
happens.
"""

from __future__ import annotations

import errno
import mmap
import sys
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from nomoat.errors import NotEnoughMemoryError
from nomoat.system_errors import MEMORY_HINT

PAGE_BYTES = 2 << 20
MADV_HUGEPAGE = 14


def mapped(num_bytes: int, **how: int) -> mmap.mmap:
    """So many bytes of 0 of the operating system's; `how` as `mmap` has it. Raises NotEnoughMemoryError."""
    try:
        return mmap.mmap(-1, num_bytes, **how)
    except OSError as exc:
        if exc.errno != errno.ENOMEM:
            raise
        raise NotEnoughMemoryError(f"the system does not give {num_bytes / 1e9:.1f} GB of memory", hint=MEMORY_HINT) from exc


def memory(num_bytes: int) -> npt.NDArray[np.uint8]:
    """So many bytes of 0, a large page at a time when one is first written, where the system can. Raises NotEnoughMemoryError."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if sys.platform == "linux" else {}  # shared ones have small pages
    kept = mapped(num_bytes + PAGE_BYTES, **private)
    if sys.platform == "linux":
        with suppress(OSError):  # a system without large pages
            kept.madvise(MADV_HUGEPAGE)
    numbers = np.frombuffer(kept, np.uint8)
    start = -numbers.ctypes.data % PAGE_BYTES
    return numbers[start : start + num_bytes]
