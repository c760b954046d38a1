"""Where a file is written that is none of its own: pipes, devices, and what a process has open, as `/dev/stdout`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

# The system's names for what a process has open: `/dev/stdout` leads to one of these.
OPEN_FILE = re.compile(r"(?:/dev|/proc/(?P<process>\d+)(?:/task/\d+)?)/fd/(?P<number>\d+)")
MAX_LINKS = 40  # in a row; as Linux


def is_stream(target: Path) -> bool:
    """Whether a pipe or a device is there, maybe behind links, or what a process has open: `/dev/stdout`, a file or not."""
    return target.exists() and not target.is_dir() and (not target.is_file() or _open_file(target) is not None)


def open_stream(target: Path) -> IO[bytes]:
    """To write at its end. What this process has open is not opened again: what it writes there later would begin where it was."""
    found = _open_file(target)
    if found is not None and found["process"] in (None, str(os.getpid())):
        return open(int(found["number"]), "wb", closefd=False)
    return target.open("ab")


def _open_file(target: Path) -> re.Match[str] | None:
    """The `OPEN_FILE` that the path is, or that one of its links leads to."""
    for _ in range(MAX_LINKS):
        target = Path(os.path.realpath(target.parent), target.name)
        if found := OPEN_FILE.fullmatch(str(target)):
            return found
        if not target.is_symlink():
            break
        target = target.parent / target.readlink()
    return None
