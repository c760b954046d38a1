"""What the system says of a disk, a place that cannot be written, or of memory and threads, as errors that say what to do."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nomoat import paths, streams
from nomoat.errors import (
    NomoatError,
    NotEnoughDiskError,
    NotEnoughMemoryError,
    NoThreadError,
    NotWritableError,
    SettingError,
    UsageError,
)

DISK_HINT = (
    "free some space (`nomoat rm --cache` removes what can be made again, `nomoat rm MODEL` a model), "
    "or set NOMOAT_HOME to another disk"
)
RUNS_HINT = (
    "questions and answers lie in that folder, which nomoat makes for its owner alone: set NOMOAT_HOME to a folder of yours, "
    "or check who may write there"
)
OTHERS_LOOK = 0o005
SHOWN_OF_A_NAME = 60
MEMORY_HINT = "close other programs, or take a smaller model (`nomoat models --fits`); a limit of this process is told by `ulimit -v`"
NO_MEMORY = (  # OpenVINO's words, PyTorch's, the C++ library's, and the loader's
    "Failed to allocate",
    "you tried to allocate",
    "bad_alloc",
    "failed to map segment",
    "Cannot allocate memory",
    "can't alloc",
)
NO_THREAD = ("can't start new thread", "Resource temporarily unavailable")  # Python's words, and the C++ library's
THREADS_HINT = (
    "a limit on processes and threads, or on memory, is reached: see `ulimit -u` and `ulimit -v`, or the pids limit of the container"
)
NO_CODE = ("cannot allocate executable memory", "can't protect")  # LLVM's words by llvmlite, and OpenVINO's
CODE_HINT = "in a unit of systemd's leave out MemoryDenyWriteExecute; under SELinux allow execmem"
LONG_NAME_HINT = "choose a shorter name: while it is written a file has a temporary one, some 20 letters longer"
TOO_LONG_HINT = "raise the limit of a file's length (`ulimit -f`), or choose a disk that holds longer ones"
FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_BYTES = 1 << 20  # with less free than this a disk is taken for full, where its error may have several causes
# Windows' own numbers. What is open there, or mapped, is neither replaced nor removed, and of a folder around it that is "denied".
DENIED, HELD, NO_NAMES, TOO_LONG = 5, (32, 33, 1224), (123, 267), (111, 206)
HELD_HINT = "end the program that has it open (a `nomoat serve`, a chat, an editor), and try again"
NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
    errno.EFBIG,
)  # fmt: skip


@contextmanager
def translate_disk_errors(path: Path, *, needed_for: Path | None = None, to: str = "write") -> Iterator[None]:
    """Turn a full disk, and a place near `path` that cannot be written, into errors that say where, and what to do.

    `needed_for`: what the user asked for, where `path` is but a lock of it. `to`: what was done with it, as the error says it.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in FULL:
            raise full_disk(path) from exc
        place = Path(exc.filename) if isinstance(exc.filename, str) else path
        # One of them may be relative: `tempfile` makes whole paths.
        target, found = path.absolute(), place.absolute()
        is_known = exc.errno in NOT_WRITABLE or _by_windows(exc) in (*HELD, *NO_NAMES, *TOO_LONG)
        if not is_known or not (found.is_relative_to(target.parent) or target.is_relative_to(found)):
            raise
        at_fault = f" (`{place}`)" if target.parent.is_relative_to(found) else ""  # the part's name means nothing to the user
        is_long_name = exc.errno == errno.ENAMETOOLONG or _by_windows(exc) in TOO_LONG
        hint = LONG_NAME_HINT if is_long_name else TOO_LONG_HINT if exc.errno == errno.EFBIG else held_hint(exc)
        hint = hint or _elsewhere(needed_for or path, disk=False)
        raise NotWritableError(f"cannot {to} `{path}`: {exc.strerror}{at_fault}", hint=hint) from exc


def full_disk(path: Path) -> NotEnoughDiskError:
    """The error for a file that found no room on its disk. Its folder is there."""
    folder = path.absolute().parent
    if _has_no_inodes(folder):
        return NotEnoughDiskError(
            f"no more files fit on the disk of `{folder}`", hint="remove files there, however small (`df -i` counts them)"
        )
    return NotEnoughDiskError(f"no space left on the disk of `{folder}`", hint=_elsewhere(path, disk=True))


def is_full(folder: Path) -> bool:
    """Whether hardly any byte, or no more file, fits on the disk of a folder that is there."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free < FULL_BYTES or _has_no_inodes(folder)
    return False


def _has_no_inodes(folder: Path) -> bool:
    if sys.platform == "win32":
        return False
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_files > 0 and disk.f_favail == 0  # some, as btrfs, count none
    return False


def _by_windows(exc: OSError) -> int | None:
    """Windows' own number of an error, which tells more than the usual one; elsewhere None."""
    number: int | None = getattr(exc, "winerror", None)
    return number


def held_hint(exc: OSError) -> str:
    """What to do about a file that Windows neither replaces nor removes; nothing where that is not it."""
    number = _by_windows(exc)
    if number == DENIED:
        return f"check whose it is; if it is yours, {HELD_HINT}"
    return HELD_HINT if number in HELD else ""


def is_want_of_memory(exc: Exception) -> bool:
    """Whether the system, or a limit of this process, gave no more memory, in whoever's words."""
    if isinstance(exc, OSError) and exc.errno is not None:
        return exc.errno == errno.ENOMEM
    said = f"{exc}\n{exc.__context__}"  # llvmlite hides the loader's words behind its own
    return isinstance(exc, MemoryError) or (
        isinstance(exc, OSError | ImportError | RuntimeError) and any(words in said for words in NO_MEMORY)
    )


def as_error(exc: Exception) -> NomoatError | None:
    """What the system says of a place, of memory or of threads, that nobody foresaw, as an error for the user; None for all else."""
    return as_want(exc) or (_place_error(exc) if isinstance(exc, OSError) else None)


def as_want(exc: Exception) -> NomoatError | None:
    """Threads or memory that the system does not give, or what is made for this CPU that it does not let run, as an error that repeats
    nothing of `exc`; None for all else.
    """
    if isinstance(exc, RuntimeError) and any(words in str(exc) for words in NO_THREAD):
        return NoThreadError("the system starts no more threads", hint=THREADS_HINT)
    if is_want_of_memory(exc):
        return NotEnoughMemoryError("the system gives no more memory", hint=MEMORY_HINT)
    if isinstance(exc, OSError | RuntimeError) and any(words in str(exc) for words in NO_CODE):
        return SettingError("the system lets this process run no code that is made for this CPU", hint=CODE_HINT)
    return None


def _place_error(exc: OSError) -> NomoatError | None:
    if exc.errno == errno.EFBIG:
        return NotWritableError("a file got longer than it may be", hint=TOO_LONG_HINT)
    if exc.errno in FULL:
        return NotEnoughDiskError("no space left on the disk", hint="free some space, on NOMOAT_HOME's disk and where the output goes")
    number = _by_windows(exc)
    is_too_long = exc.errno == errno.ENAMETOOLONG or number in TOO_LONG
    is_known = is_too_long or exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS) or number in (*HELD, *NO_NAMES)
    if exc.filename is None or not is_known:
        return None
    name = os.fsdecode(exc.filename)
    if is_too_long:
        shown = f"{name[:SHOWN_OF_A_NAME]}…"
        return UsageError(f"`{shown}` is longer than the name of a file may be", hint="is it a text, where a name is asked for?")
    if number in NO_NAMES:
        return UsageError(f"`{name}`: {exc.strerror}", hint='Windows allows no name with one of <>:"/\\|?* in it')
    hint = held_hint(exc) or "check who may read and write there"
    if os.name == "posix" and exc.errno == errno.EACCES and Path(name).is_relative_to(paths.home()):
        hint = RUNS_HINT if Path(name).is_relative_to(paths.runs()) else f"{hint}, or set NOMOAT_HOME to a folder of yours{_opened()}"
    return UsageError(f"`{name}`: {exc.strerror or os.strerror(exc.errno or 0)}", hint=hint)


def _opened() -> str:
    """How the owner of a home that keeps others out lets them in, or has back what others have put there; empty where it is open."""
    home = paths.home()
    quoted = shlex.quote(str(home))
    with suppress(OSError):
        told = home.stat()
        if told.st_mode & OTHERS_LOOK == OTHERS_LOOK:
            return ""
        if told.st_uid == os.geteuid():
            return f"; what lies there may be another user's, as after a command of root's: sudo chown -R {told.st_uid} {quoted}"
        return f"; nomoat makes `{home}` for its owner alone, who may open it to others: chmod 755 {quoted}"
    return ""


def _elsewhere(path: Path, *, disk: bool) -> str:
    """What the user can do about a place that cannot be written."""
    path, home = path.absolute(), paths.home()
    if not path.is_relative_to(home.absolute()):
        return "free some space, or choose another place" if disk else "check that its folder is yours, or choose another place"
    if disk:
        return DISK_HINT
    if path.is_relative_to(paths.cache().absolute()) and paths.models().is_dir():  # others filled it, and started no model
        return f"let who may write to `{home}` start the model once (`nomoat run MODEL hi`), or set NOMOAT_HOME to a folder of yours"
    return f"check who may write to `{home}`, or set NOMOAT_HOME to a folder of yours"


def free_disk_bytes(folder: Path) -> int:
    """What is free on the folder's disk. The folder itself need not exist yet."""
    return shutil.disk_usage(_nearest(folder)).free


def is_one_disk(one: Path, other: Path) -> bool:
    """Whether two folders, which need not exist yet, lie or would lie on one disk."""
    return _nearest(one).stat().st_dev == _nearest(other).stat().st_dev


def _nearest(folder: Path) -> Path:
    """The folder, or what is there of those above it; itself where nothing is, as on a drive of Windows that is not there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)


def require_free_disk(folder: Path, needed_bytes: int, cause: BaseException | None = None, *, what: str = "") -> None:
    """Raise NotEnoughDiskError if the folder's disk has less than that free. The folder itself need not exist yet.

    `what` needs it, as the error says it, where the folder's name tells the user nothing.
    """
    free = free_disk_bytes(folder)
    if free < needed_bytes:
        raise NotEnoughDiskError(
            f"{what or f'`{folder}`'} needs {paths.shown_size(needed_bytes)}, and "
            f"{f'the disk of `{folder.parent}`' if what else 'its disk'} has {paths.shown_size(free)} free",
            hint=_elsewhere(folder, disk=True),
        ) from cause


def require_writable(target: Path) -> None:
    """Raise NotWritableError if no file can be made at `target`. Its folder is made if it is not there."""
    with translate_disk_errors(target):
        if streams.is_stream(target):
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
            return
        folder = paths.led_to(target).parent
        paths.make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
