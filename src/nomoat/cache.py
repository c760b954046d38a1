"""What can be made again, in `paths.cache()`: imported and compiled models, and kernels. How much it is, and when it goes.

Where nothing can be written there, a process has a folder of its own for it among the temporary files.

Nothing here is locked: a program that still reads what is removed keeps its memory of it, and makes it again at its next start.
"""

from __future__ import annotations

import atexit
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nomoat import paths

UNUSED_DAYS = 30  # a folder nobody has used for so long is removed when another is made
LEFT_DAYS = 1  # so old is what a killed program began and left
DAY = 86_400
IMPORTED, COMPILED, KERNELS = "imported", "compiled", "kernels"
TEMPORARY = "nomoat-kernels-"  # then the process, and what makes the name new

_temporary: list[tuple[Path, int]] = []  # and whose they are


def use(folder: Path) -> None:
    """Note that a folder is used now. It need not be there, nor be ours."""
    with suppress(OSError):
        os.utime(folder)


def size() -> int:
    """Bytes of all of it."""
    return paths.bytes_below(paths.cache())


def sweep(unused_days: float = UNUSED_DAYS) -> None:
    """Remove what nobody has used for so long, and the compiled forms of imports that are gone."""
    for kind, days in ((IMPORTED, unused_days), (KERNELS, unused_days), (COMPILED, math.inf)):
        for folder in folders(kind):
            begun = folder.name.startswith(".")
            if _age(folder) > DAY * (LEFT_DAYS if begun else days):
                shutil.rmtree(folder, ignore_errors=True)
    imported = {folder.name for folder in folders(IMPORTED)}
    for folder in folders(COMPILED):
        if folder.name.partition("-")[0] not in imported and not folder.name.startswith("."):
            shutil.rmtree(folder, ignore_errors=True)


def clear() -> int:
    """Remove all of it, except what is being made now. Returns the bytes that got free."""
    before = size()
    sweep(unused_days=0)
    for notes in ("asked", "sha256"):
        shutil.rmtree(paths.cache() / notes, ignore_errors=True)
    return before - size()


def folders(kind: str) -> Iterator[Path]:
    """Those of IMPORTED, COMPILED or KERNELS, some of them perhaps not finished."""
    place = paths.cache() / kind
    return (path for path in list(place.iterdir()) if path.is_dir()) if place.is_dir() else iter(())


def temporary_folder() -> Path:
    """A new one, which goes when this process ends. Those that killed processes left go now. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}-"))
    _temporary.append((folder, os.getpid()))
    _sweep_temporary(folder.parent)
    return folder


@atexit.register
def remove_temporary() -> None:
    """For whoever ends the process without `atexit`. Not at the end of a fork."""
    for folder, owner in _temporary:
        if owner == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_temporary(place: Path) -> None:
    """Ours, and not the young ones: a process that is not seen here may be another container's, with the same disk."""
    import psutil

    for folder in place.glob(f"{TEMPORARY}*-*"):
        process = folder.name.removeprefix(TEMPORARY).partition("-")[0]
        with suppress(OSError):  # another program has removed it
            is_old = folder.lstat().st_uid == os.getuid() and _age(folder) > DAY * LEFT_DAYS
            if is_old and process.isdecimal() and not psutil.pid_exists(int(process)):
                shutil.rmtree(folder, ignore_errors=True)


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:  # another program has removed it
        return 0.0
