"""Where nomoat keeps its files, and how a file appears whole or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nomoat import streams
from nomoat.errors import NomoatError, NotEnoughDiskError, NotEnoughMemoryError, NotWritableError, UsageError

READ_BLOCK_BYTES = 1 << 20
OWNER_ALONE = 0o700
SECONDS_TO_NEXT_LOOK = 0.1  # whether a lock is free, where the system does not wait for it
LEFT_SECONDS = 3600  # for so long nobody has written to what a killed process left
DISK_HINT = (
    "free some space (`nomoat rm --cache` removes what can be made again, `nomoat rm MODEL` a model), "
    "or set NOMOAT_HOME to another disk"
)
RUNS_HINT = (
    "questions and answers lie in that folder, which nomoat makes for its owner alone: set NOMOAT_HOME to a folder of yours, "
    "or check who may write there"
)
SHOWN_OF_A_NAME = 60
SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MEMORY_HINT = "close other programs, or take a smaller model (`nomoat models --fits`); a limit of this process is told by `ulimit -v`"
NO_MEMORY = (  # OpenVINO's words, PyTorch's, the C++ library's, and the loader's
    "Failed to allocate",
    "you tried to allocate",
    "bad_alloc",
    "failed to map segment",
    "Cannot allocate memory",
)
NO_THREAD = "can't start new thread"  # Python's words
THREADS_HINT = (
    "a limit on processes and threads, or on memory, is reached: see `ulimit -u` and `ulimit -v`, or the pids limit of the container"
)
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
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # of disks on a network: Lustre without `flock`, some NFS


def home() -> Path:
    """`NOMOAT_HOME`, else `~/.nomoat`. Not created here: a listing leaves no trace.

    Raises UsageError for a value that is blank or in quotes, which a file of variables or Windows' `set` took for part of it.
    """
    told = os.environ.get("NOMOAT_HOME") or "~/.nomoat"
    if not told.strip() or (told[0] in "\"'" and told[0] == told[-1]):
        raise UsageError(f"NOMOAT_HOME is `{told}`", hint="set it to a folder of yours, without quotes in the value, or unset it")
    return expanded(told)


def require_home() -> None:
    """Raise UsageError if NOMOAT_HOME, or what it lies in, is a file, or a link to a place that is not there."""
    there = next((place for place in (home(), *home().parents) if place.exists() or place.is_symlink()), None)
    if there is not None and not there.exists():
        raise UsageError(
            f"NOMOAT_HOME is `{home()}`, and `{there}` is a link to `{os.path.realpath(there)}`, which is not there",
            hint="mount its disk, make that folder, or set NOMOAT_HOME to a folder of yours",
        )
    if there is not None and not there.is_dir():
        raise UsageError(f"NOMOAT_HOME is `{home()}`, and `{there}` is a file", hint="set it to a folder of yours")


def expanded(path: str | Path) -> Path:
    """The path with the home folder in place of its `~`. Raises UsageError where nobody has that one: `~typo`, or no HOME at all."""
    place = Path(path)
    try:
        if sys.platform != "win32" and os.environ.get("HOME") == "" and place.parts[:1] == ("~",):  # an empty variable is one not set
            return Path(_home_of_account(), *place.parts[1:])
        return place.expanduser()
    except (RuntimeError, KeyError) as exc:
        folder = "NOMOAT_HOME" if str(path) == "~/.nomoat" else "the whole path"
        raise UsageError(f"`{path}`: no home folder is known for `{Path(path).parts[0]}`", hint=f"give {folder} instead") from exc


def _home_of_account() -> str:
    """Raises KeyError where the system knows no such user."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_dir


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those above it, that are not there; NOMOAT_HOME for its owner alone: prompts and answers lie in it.

    `mode` is the folder's own. What is there stays as it is.
    """
    if folder.is_relative_to(home()) and not home().exists():
        home().parent.mkdir(parents=True, exist_ok=True)
        home().mkdir(mode=OWNER_ALONE, exist_ok=True)
    folder.mkdir(mode=mode, parents=True, exist_ok=True)


def models() -> Path:
    """Pulled weights."""
    return home() / "models"


def adapters() -> Path:
    """Tuned adapters, a folder each."""
    return home() / "adapters"


def suites() -> Path:
    """Suites of one's own."""
    return home() / "suites"


def data() -> Path:
    """Pulled data sets."""
    return home() / "data"


def cache() -> Path:
    """What can be made again: see `nomoat.cache`."""
    return home() / "cache"


def runs() -> Path:
    """Answers and reports."""
    return home() / "runs"


def as_command(words: Sequence[str]) -> str:
    """The words as one line for this system's shell: in quotes where need be, double ones on Windows, whose `cmd` has no others."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def split_names(name: str) -> list[str]:
    """The names of all the files of a split GGUF model, from that of any: `m-00001-of-00002.gguf`. Of another name, itself."""
    match = SPLIT_NAME.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return [name]
    stem, _, count = match.groups()
    return [f"{stem}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1)]


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_texts(*texts: str) -> str:
    """Of texts one after another, a line each."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder and its folders, which others may change meanwhile; 0 if there is no such folder."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # moved or removed while we look
                total += (Path(root) / name).stat().st_size
    return total


@contextmanager
def translate_disk_errors(path: Path, *, needed_for: Path | None = None) -> Iterator[None]:
    """Turn a full disk, and a place near `path` that cannot be written, into errors that say where, and what to do.

    `needed_for`: what the user asked for, where `path` is but a lock of it.
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
        raise NotWritableError(f"cannot write `{path}`: {exc.strerror}{at_fault}", hint=hint) from exc


def full_disk(path: Path) -> NotEnoughDiskError:
    """The error for a file that found no room on its disk. Its folder is there."""
    folder = path.absolute().parent
    if _has_no_inodes(folder):
        return NotEnoughDiskError(
            f"no more files fit on the disk of `{folder}`", hint="remove files there, however small (`df -i` counts them)"
        )  # fmt: skip
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
    if isinstance(exc, OSError):
        return exc.errno == errno.ENOMEM
    return isinstance(exc, MemoryError) or (
        isinstance(exc, ImportError | RuntimeError) and any(words in str(exc) for words in NO_MEMORY)
    )


def as_error(exc: Exception) -> NomoatError | None:
    """What the system says of a place, or of memory, that nobody foresaw, as an error for the user; None for all else."""
    if isinstance(exc, RuntimeError) and NO_THREAD in str(exc):
        return NotEnoughMemoryError("the system starts no more threads", hint=THREADS_HINT)
    if is_want_of_memory(exc):
        return NotEnoughMemoryError("the system gives no more memory", hint=MEMORY_HINT)
    return _place_error(exc) if isinstance(exc, OSError) else None


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
    if os.name == "posix" and exc.errno == errno.EACCES and Path(name).is_relative_to(home()):
        opened = f"nomoat makes `{home()}` for its owner alone, who may open it to others: chmod 755 {shlex.quote(str(home()))}"
        hint = RUNS_HINT if Path(name).is_relative_to(runs()) else f"{hint}; {opened}"
    return UsageError(f"`{name}`: {exc.strerror or os.strerror(exc.errno or 0)}", hint=hint)


def _elsewhere(path: Path, *, disk: bool) -> str:
    """What the user can do about a place that cannot be written."""
    path = path.absolute()
    if not path.is_relative_to(home().absolute()):
        return "free some space, or choose another place" if disk else "check that its folder is yours, or choose another place"
    if disk:
        return DISK_HINT
    if path.is_relative_to(cache().absolute()) and models().is_dir():  # others filled it, and started no model
        return f"let who may write to `{home()}` start the model once (`nomoat run MODEL hi`), or set NOMOAT_HOME to a folder of yours"
    return f"check who may write to `{home()}`, or set NOMOAT_HOME to a folder of yours"


def free_disk_bytes(folder: Path) -> int:
    """What is free on the folder's disk. The folder itself need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def require_free_disk(folder: Path, needed_bytes: int, cause: BaseException | None = None) -> None:
    """Raise NotEnoughDiskError if the folder's disk has less than that free. The folder itself need not exist yet."""
    free = free_disk_bytes(folder)
    if free < needed_bytes:
        raise NotEnoughDiskError(
            f"`{folder}` needs {shown_size(needed_bytes)}, and its disk has {shown_size(free)} free",
            hint=_elsewhere(folder, disk=True),
        ) from cause


def shown_size(num_bytes: int) -> str:
    """Of a file, a folder or what is free on a disk, for people: whole MB, and kB below 1 MB."""
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.0f} kB"


def require_writable(target: Path) -> None:
    """Raise NotWritableError if no file can be made at `target`. Its folder is made if it is not there."""
    with translate_disk_errors(target):
        if streams.is_stream(target):
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))
            return
        folder = led_to(target).parent
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def whole_file(target: Path, *, first_stays: bool = False) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well, and disappears when it does not.

    `first_stays`: what another process has put there meanwhile is not replaced, where the disk has links.

    Its name is its own: the number of a process may be that of another container's, with the same disk. What a killed process
    left of the same file is swept away, when nobody has written to it for an hour. Links stay, and so does a stream, which is
    written into at the end: see `nomoat.streams`.
    """
    if streams.is_stream(target):
        with translate_disk_errors(led_to(target) if target.is_file() else target), tempfile.TemporaryDirectory() as folder:
            part = Path(folder, target.name)
            with translate_disk_errors(Path(folder)):
                yield part
            with part.open("rb") as file, streams.open_stream(target) as stream:
                shutil.copyfileobj(file, stream)
        return
    place = led_to(target)
    part = place.with_name(f".{place.name}.{secrets.randbits(32)}.part")
    with translate_disk_errors(place):
        make_folder(place.parent)
        _sweep_parts(place)
        try:
            yield part
            if not (first_stays and _linked(part, place)):
                os.replace(part, place)
        finally:
            part.unlink(missing_ok=True)


def _linked(part: Path, place: Path) -> bool:
    """Whether there is a file at its place: this one, or another that was there. Else the disk has no links."""
    try:
        os.link(part, place)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def led_to(target: Path) -> Path:
    """Where a link leads, whether that is there or not; what is no link, as it was given."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def _sweep_parts(target: Path) -> None:
    """Not the young ones, which may be another process's; and numbers alone: `.m.gguf.part` is a pull's of another file than `m`."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        is_ours = part.name.removeprefix(f".{target.name}.").removesuffix(".part").isdecimal()
        with suppress(OSError):
            if is_ours and part.is_file() and time.time() - part.stat().st_mtime > LEFT_SECONDS:
                part.unlink()


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `target` (replacing it) when the block ends well, and disappears when it does not."""
    with translate_disk_errors(target):
        make_folder(target.parent)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    old = part.with_suffix(".old")
    try:
        with translate_disk_errors(target):
            yield part
            part.chmod(0o755)
            if target.exists() or target.is_symlink():  # neither a folder that is not empty nor a link is replaced in one step
                os.replace(target, old)
            os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if (old.exists() or old.is_symlink()) and not target.exists():
            os.replace(old, target)
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
            if one == home():
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
    place = (locks or cache() / "locks") / target.name
    with translate_disk_errors(place, needed_for=target):
        make_folder(place.parent)
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
    """Sweep away what a killed process left of the folder `target`, unless another makes it now."""
    with suppress(NomoatError), alone(target, busy=NomoatError("another process makes it")):
        pass


def _sweep_folders(target: Path) -> None:
    made_by_mkdtemp = f".{glob.escape(target.name)}.????????"
    for old in target.parent.glob(f"{made_by_mkdtemp}.old"):
        if not target.exists():  # killed between the two steps of a replacement
            os.replace(old, target)
    for kind in ("part", "old"):
        for left in target.parent.glob(f"{made_by_mkdtemp}.{kind}"):
            with suppress(OSError):
                remove_folder(left)
