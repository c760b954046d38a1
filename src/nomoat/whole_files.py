"""How files and folders appear whole or not at all, how one process makes them while others wait, and how they go."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nomoat import paths, streams
from nomoat.errors import NomoatError
from nomoat.system_errors import held_hint, translate_disk_errors

SECONDS_TO_NEXT_LOOK = 0.1  # whether a lock is free, where the system does not wait for it
HELD_SECONDS = 5.0  # so long what is new may be open in a program that looks at all files, where the system renames no such file
LEFT_SECONDS = 3600  # for so long nobody has written to what a killed process left
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # of disks on a network: Lustre without `flock`, some NFS


@contextmanager
def whole_file(target: Path, *, first_stays: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well, and disappears when it does not.

    `first_stays`: what another process has put there meanwhile is not replaced, where the disk has links.

    Its name is its own: the number of a process may be that of another container's, with the same disk. What a killed process
    left of the same file is swept away, when nobody has written to it for an hour. Who may read a file stays as it was, also while
    it is written: of a file that is there, the path leads to an empty one from the start. Links stay, and so does a stream, which is
    written into at the end: see `nomoat.streams`.
    """
    if streams.is_stream(target):
        with translate_disk_errors(paths.led_to(target) if target.is_file() else target), tempfile.TemporaryDirectory() as folder:
            part = Path(folder, target.name)
            with translate_disk_errors(Path(folder)):
                yield part
            with part.open("rb") as file, streams.open_stream(target) as stream:
                shutil.copyfileobj(file, stream)
        return
    place = paths.led_to(target)
    part = place.with_name(f".{place.name}.{secrets.randbits(32)}.part")
    with translate_disk_errors(place):
        paths.make_folder(place.parent)
        _sweep_parts(place)
        try:
            with suppress(OSError):  # nothing is there
                part.touch(mode=place.stat().st_mode & 0o666 | 0o200)
            yield part
            if not (first_stays and _linked(part, place)):
                with suppress(OSError):  # nothing is there, or the disk knows of no such thing
                    shutil.copymode(place, part)
                put(part, place)
        finally:
            part.unlink(missing_ok=True)


def put(part: Path, place: Path) -> None:
    """`os.replace`, which Windows refuses while a program has one of both open, as a virus scanner or an index what is new: tried
    again for HELD_SECONDS. Raises OSError."""
    until = time.monotonic() + HELD_SECONDS
    while True:
        try:
            os.replace(part, place)
            return
        except OSError as exc:
            if not held_hint(exc) or time.monotonic() > until:
                raise
        time.sleep(SECONDS_TO_NEXT_LOOK)


def _linked(part: Path, place: Path) -> bool:
    """Whether there is a file at its place: this one, or another that was there. Else the disk has no links."""
    try:
        os.link(part, place)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _sweep_parts(target: Path) -> None:
    """Not the young ones, which may be another process's; and numbers alone: `.m.gguf.part` is a pull's of another file than `m`."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        is_ours = part.name.removeprefix(f".{target.name}.").removesuffix(".part").isdecimal()
        with suppress(OSError):
            if is_ours and part.is_file() and time.time() - part.stat().st_mtime > LEFT_SECONDS:
                part.unlink()


@contextmanager
def whole_folder(target: Path, *, mode: int = 0o755) -> Iterator[Path]:
    """A new folder to fill, which becomes `target` (replacing it) when the block ends well, and disappears when it does not.

    `mode` is the folder's own; where it keeps others out, its files do, too.
    """
    with translate_disk_errors(target):
        paths.make_folder(target.parent)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    old = part.with_suffix(".old")
    try:
        with translate_disk_errors(target):
            yield part
            part.chmod(mode)
            for file in part.iterdir() if mode == paths.OWNER_ALONE else ():
                file.chmod(mode & 0o666)
            if target.exists() or target.is_symlink():  # neither a folder that is not empty nor a link is replaced in one step
                put(target, old)
            put(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if (old.exists() or old.is_symlink()) and not target.exists():
            put(old, target)
        with suppress(OSError):
            remove_folder(old)


def held_in(folder: Path) -> OSError | None:
    """What Windows says of a file in the folder that a program has open: it would stay, and of half a folder nobody has a use.

    None where all can be removed, and on other systems.
    """
    if sys.platform == "win32":
        for path in folder.rglob("*"):
            try:
                path.rename(path)  # needs the right to remove it
            except FileNotFoundError:  # moved or removed while we look
                continue
            except OSError as exc:
                return exc
    return None


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it; of a link to one, the link alone. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def remove_empty(folder: Path) -> None:
    """Remove a folder, and those above it, as far as they are empty; the home stays."""
    with suppress(OSError):  # not empty, or not there
        for one in (folder, *folder.parents):
            if one == paths.home():
                break
            if one.exists():
                one.rmdir()


def lock(file: IO[bytes]) -> bool:
    """Lock it until it is closed, or the process ends; whether that succeeded: another may have.

    Where the disk has no locks, as if it had: two pulls of a file at once write into one part, which its sha256 tells, where known.
    """
    return _locked(file, wait=False) is not False


def _locked(file: IO[bytes], *, wait: bool) -> bool | None:
    """See `lock`; None where the disk has no locks. On Windows nothing waits."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError as exc:
            return False if exc.errno in (errno.EACCES, errno.EDEADLK) else None
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        if exc.errno in NO_LOCKS:
            return None
        if wait or exc.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


@contextmanager
def alone(
    target: Path, *, busy: NomoatError | None = None, locks: Path | None = None, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Wait until no other process makes the folder `target`, or raise `busy`; sweep away what a killed process left of it.

    `locks`: the folder of files to lock, where it is not the cache's; `waiting` is told that another process is at it. On a disk
    without locks nothing is waited for, nor swept away: it may be what another makes. `whole_folder` then makes a folder twice, and
    keeps one.
    """
    place = (locks or paths.cache() / "locks") / target.name
    with translate_disk_errors(place, needed_for=target):
        paths.make_folder(place.parent)
        file = place.open("ab")
    with file:
        if (is_alone := _locked(file, wait=False)) is False:
            if busy is not None:
                raise busy
            waiting()
            while (is_alone := _locked(file, wait=True)) is False:
                time.sleep(SECONDS_TO_NEXT_LOOK)
        if is_alone:
            _sweep_folders(target)
        yield


def sweep_left(target: Path) -> None:
    """Sweep away what a killed process left of the folder `target`, unless another makes it now. Where that cannot be, it stays."""
    with suppress(NomoatError, OSError), alone(target, busy=NomoatError("another process makes it", hint=None)):
        pass


def _sweep_folders(target: Path) -> None:
    made_by_mkdtemp = f".{glob.escape(target.name)}.????????"
    for old in target.parent.glob(f"{made_by_mkdtemp}.old"):
        if not target.exists():  # killed between the two steps of a replacement
            put(old, target)
    for kind in ("part", "old"):
        for left in target.parent.glob(f"{made_by_mkdtemp}.{kind}"):
            with suppress(OSError):
                remove_folder(left)
