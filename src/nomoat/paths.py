"""Where nomoat keeps its files, and what else is asked of a place: its bytes, its sha256, the names of its parts.

How a file appears whole or not at all is in `whole_files.py`, what the system says of a full disk and such in `system_errors.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from nomoat.errors import UsageError

READ_BLOCK_BYTES = 1 << 20
OWNER_ALONE = 0o700
SPLIT_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.(?i:gguf))")
# What Windows gives no file: some characters, a dot or space at the end, the names of its devices, whatever comes behind a dot.
NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\0-\x1f]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?= *(?:\.|$))', re.IGNORECASE)
NO_NAME_HERE = "Windows gives it to a device, or takes no dot at its end"  # of a name of letters, digits, `_`, `-` and `.`


def home() -> Path:
    """`NOMOAT_HOME`, else `~/.nomoat`. Not created here: a listing leaves no trace.

    Raises UsageError for a value that is blank or in quotes, which a file of variables or Windows' `set` took for part of it.
    """
    told = os.environ.get("NOMOAT_HOME") or "~/.nomoat"
    if not told.strip() or (told[0] in "\"'" and told[0] == told[-1]):
        raise UsageError(f"NOMOAT_HOME is `{told}`", hint="set it to a folder of yours, without quotes in the value, or unset it")
    return expanded(told)


def is_name_here(name: str) -> bool:
    """Whether this system gives a file, or a folder, that name; of Windows alone, where `aux` is a device."""
    return sys.platform != "win32" or NOT_ON_WINDOWS.search(name) is None


def require_home() -> None:
    """Raise UsageError if NOMOAT_HOME, or what it lies in, is a file, a link to a place or on a disk that is not there, or may not be
    entered; or no UTF-8, which the libraries that read models want."""
    _require_utf_8()
    try:
        there = next((place for place in (home(), *home().parents) if _is_there(place)), None)
    except PermissionError as exc:  # as where HOME is root's, and the user of the container is not
        place = Path(os.path.realpath(home()))
        barred = next((folder for folder in reversed(place.parents) if not os.access(folder, os.X_OK)), place.parent)
        raise UsageError(
            f"NOMOAT_HOME is `{home()}`, and this user may not enter `{barred}`",
            hint="set NOMOAT_HOME to a folder of yours, or HOME to your own",
        ) from exc
    if there is None:  # Windows alone has paths with nothing above them
        raise UsageError(
            f"NOMOAT_HOME is `{home()}`, and `{home().anchor}` is not there",
            hint="connect its disk, or set NOMOAT_HOME to a folder of yours",
        )
    if not there.exists():
        raise UsageError(
            f"NOMOAT_HOME is `{home()}`, and `{there}` is a link to `{os.path.realpath(there)}`, which is not there",
            hint="mount its disk, make that folder, or set NOMOAT_HOME to a folder of yours",
        )
    if not there.is_dir():
        raise UsageError(f"NOMOAT_HOME is `{home()}`, and `{there}` is a file", hint="set it to a folder of yours")


def _is_there(place: Path) -> bool:
    """Also as a link to nothing. Raises PermissionError where this user may not look; `Path.exists` does so until Python 3.13."""
    for look in (place.stat, place.lstat):
        try:
            look()
        except PermissionError:
            raise
        except (OSError, ValueError):
            continue
        return True
    return False


def _require_utf_8() -> None:
    try:
        str(home()).encode()
    except UnicodeEncodeError as exc:
        told = os.fsencode(home()).decode(errors="replace")
        why, hint = "which is not UTF-8", "set it to a folder of yours with another name"
        if "\ufffd" not in told:
            why = "which is UTF-8, and this locale's encoding is not"
            hint = "set a locale of UTF-8 (`LC_ALL=C.UTF-8`), or PYTHONUTF8=1"
        raise UsageError(f"NOMOAT_HOME is `{told}`, {why}", hint=hint) from exc


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


def split_names(name: str) -> list[str]:
    """The names of all the files of a split GGUF model, from that of any: `m-00001-of-00002.gguf`. Of another name, itself."""
    match = SPLIT_NAME.fullmatch(name)
    if match is None or not 1 <= int(match[2]) <= int(match[3]):
        return [name]
    stem, _, count, ending = match.groups()
    return [f"{stem}-{number:05}-of-{count}{ending}" for number in range(1, int(count) + 1)]


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


def shown_size(num_bytes: int) -> str:
    """Of a file, a folder or what is free on a disk, for people: whole MB, and kB below 1 MB."""
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.0f} kB"


def led_to(target: Path) -> Path:
    """Where a link leads, whether that is there or not; what is no link, as it was given."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target
