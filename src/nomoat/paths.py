"""Where nomoat keeps its files, and how a file appears whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nomoat.errors import NotEnoughDiskError

READ_BLOCK_BYTES = 1 << 20


def home() -> Path:
    """`NOMOAT_HOME`, else `~/.nomoat`. Not created here: a listing leaves no trace."""
    return Path(os.environ.get("NOMOAT_HOME") or Path.home() / ".nomoat").expanduser()


def models() -> Path:
    """Pulled weights."""
    return home() / "models"


def adapters() -> Path:
    """Tuned adapters, a folder each."""
    return home() / "adapters"


def data() -> Path:
    """Pulled data sets."""
    return home() / "data"


def cache() -> Path:
    """What can be made again: imported models."""
    return home() / "cache"


def runs() -> Path:
    """Answers and reports."""
    return home() / "runs"


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def translate_disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says where, and what to do."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NotEnoughDiskError(
            f"no space left on the disk of `{path.parent}`",
            hint="free some space (`nomoat rm MODEL` removes a model), or set NOMOAT_HOME to another disk",
        ) from exc


def require_free_disk(folder: Path, needed_bytes: int, cause: BaseException | None = None) -> None:
    """Raise NotEnoughDiskError if the folder's disk has less than that free. The folder itself need not exist yet."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise NotEnoughDiskError(
            f"`{folder}` needs {needed_bytes / 1e6:,.0f} MB, and its disk has {free / 1e6:,.0f} MB free",
            hint="free some space (`nomoat rm MODEL` removes a model), or set NOMOAT_HOME to another disk",
        ) from cause


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, which becomes `target` when the block ends well, and disappears when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with translate_disk_errors(target):
            yield part
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `target` (replacing it) when the block ends well, and disappears when it does not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    old = part.with_suffix(".old")
    try:
        with translate_disk_errors(target):
            yield part
            part.chmod(0o755)
            if target.exists():  # a folder that is not empty cannot be replaced in one step
                os.replace(target, old)
            os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)
