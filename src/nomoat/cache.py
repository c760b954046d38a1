"""What can be made again, in `paths.cache()`: imported and compiled models, and kernels. How much it is, and when it goes.

Where nothing can be written there, a process that compiles has a folder of its own among the temporary files.

Nothing in the cache is locked: a program that still reads what is removed keeps its memory of it, and makes it again at its next
start. On Windows what a program has open stays.
"""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from nomoat import paths, system_errors, whole_files
from nomoat.errors import NotEnoughDiskError, NotWritableError
from nomoat.words import counted

UNUSED_DAYS = 30  # a folder nobody has used for so long is removed when another is made
LEFT_DAYS = 1  # so old is what a killed program began and left
DAY = 86_400
IMPORTED, COMPILED, KERNELS = "imported", "compiled", "kernels"
NOTES = ("asked", "sha256", "sizes")

_temporary: dict[Path, int] = {}  # the process whose each is


def note_on(kind: str, files: Sequence[Path], *how: str) -> Path:
    """Where it is noted what was found out of files, and how, as they are now: under path, size and times of change, one of them the
    system's own (Windows, which has none, gives that of its making).

    `kind` is one of NOTES. Raises OSError for a file that is not there.
    """
    stats = [(path.resolve(), path.stat()) for path in files]
    told = (f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}" for path, stat in stats)
    return paths.cache() / kind / hashlib.sha256("\0".join((*told, *how)).encode("utf-8", "surrogateescape")).hexdigest()


def read_note(note: Path) -> str | None:
    """What is noted there; None where nothing is, or nothing that can be read."""
    with suppress(OSError):
        return note.read_text(errors="replace")
    return None


def write_note(note: Path, text: str) -> str:
    """Keeps a text there, if there is room: a note saves time, nothing else. Returns the text."""
    with suppress(NotEnoughDiskError, NotWritableError), whole_files.whole_file(note) as part:
        part.write_text(text, newline="\n")
    return text


def use(folder: Path) -> None:
    """Note that a folder is used now. It need not be there, nor be ours."""
    with suppress(OSError):
        os.utime(folder)


def size() -> int:
    """Bytes of all of it."""
    return paths.bytes_below(paths.cache())


def sweep(unused_days: float = UNUSED_DAYS) -> dict[Path, OSError]:
    """Remove what nobody has used for so long, and the compiled forms of imports that are gone. What could not be removed, and why."""
    doomed: list[Path] = []
    for kind, days in ((IMPORTED, unused_days), (KERNELS, unused_days), (COMPILED, math.inf)):
        for folder in _own(kind):
            begun = folder.name.startswith(".")
            if _age(folder) > DAY * (LEFT_DAYS if begun else days):
                doomed.append(folder)
    left = _remove(doomed)
    imported = {path.name for path in (paths.cache() / IMPORTED).glob("*")}  # also where a link leads
    orphans = [one for one in _own(COMPILED) if one.name not in imported and not one.name.startswith(".")]
    return left | _remove(orphans)


def clear() -> int:
    """Remove all of it, except what is being made now and what links lead to. Returns the bytes that got free.

    Raises NotWritableError where something stays that should have gone.
    """
    before = size()
    left = sweep(unused_days=0) | _remove([paths.cache() / notes for notes in NOTES])
    if left:
        folder, exc = next(iter(left.items()))
        more = f", nor {counted(len(left) - 1, 'more folder')}" if len(left) > 1 else ""
        raise NotWritableError(
            f"cannot remove `{folder}`{more}: {exc.strerror}; {paths.shown_size(before - size())} are free again",
            hint=system_errors.held_hint(exc)
            or f"check who may write to `{paths.cache()}`, and that its disk is not mounted to be read alone",
        ) from exc
    return before - size()


def folders(kind: str) -> list[Path]:
    """Those of IMPORTED, COMPILED or KERNELS, some perhaps not finished."""
    place = paths.cache() / kind
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []


def _own(kind: str) -> list[Path]:
    """The same, but none of a kind that is a link: others may use them."""
    return [] if (paths.cache() / kind).is_symlink() else folders(kind)


def links() -> list[Path]:
    """The kinds that are kept elsewhere."""
    return [place for kind in (IMPORTED, COMPILED, KERNELS) if (place := paths.cache() / kind).is_symlink()]


def _remove(doomed: Iterable[Path]) -> dict[Path, OSError]:
    """As much of each as can be, but nothing of one in which a file is held. What is left of them, and why."""
    left = {}
    for folder in doomed:
        if (held := whole_files.held_in(folder)) is not None:
            left[folder] = held
            continue
        shutil.rmtree(folder, ignore_errors=True)
        try:
            if os.path.lexists(folder):  # once more, to be told why
                whole_files.remove_folder(folder)
        except FileNotFoundError:  # another program has removed it
            continue
        except OSError as exc:
            left[folder] = exc
    return left


def temporary_folder() -> Path:
    """A new one, which goes when this process ends. One that a killed process left is the system's to clear. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix="nomoat-kernels-"))
    _temporary[folder] = os.getpid()
    return folder


@atexit.register
def remove_temporary(*folders: Path) -> None:
    """Those of `temporary_folder` that are named, else all, for whoever ends the process without `atexit`. Not in a fork."""
    for folder in folders or tuple(_temporary):
        if _temporary[folder] == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)
            del _temporary[folder]


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:  # another program has removed it
        return 0.0
