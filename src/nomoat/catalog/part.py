"""A file on its way: `.NAME.part` beside the place where it will be."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nomoat import net, paths, system_errors, whole_files
from nomoat.errors import BadFileError, ChecksumError, DownloadError, NotEnoughDiskError

GENERIC_READ, GENERIC_WRITE, FILE_SHARE_READ, OPEN_ALWAYS = 1 << 31, 1 << 30, 1, 4  # of Windows
LOOK_BYTES = 4 << 20  # that arrive between looks at the disk
SPARE_BYTES = 64 << 20  # left free on the disk, so that the rest of the machine goes on


@dataclass(slots=True, kw_only=True)
class Part:
    """What has arrived of a file. `report` is told bytes so far and bytes in all, where known."""

    target: Path
    path: Path
    file: BinaryIO
    purpose: net.Purpose
    report: Callable[[int, int | None], None]

    @property
    def version_path(self) -> Path:
        """Where the server's name for this version of the file, a tag or a date, is kept until the part is whole."""
        return self.path.with_name(self.path.name + ".etag")

    @property
    def folder_path(self) -> Path:
        """A folder for whatever else has to lie on the target's disk for a while."""
        return self.path.with_name(self.path.name + ".d")

    def size_bytes(self) -> int:
        """Bytes that have arrived, in this run and before it."""
        self.file.flush()
        return self.path.stat().st_size

    def start_over(self) -> None:
        """Forget what has arrived."""
        if self.file.closed:
            os.truncate(self.path, 0)
        else:
            self.file.truncate(0)
        self.version_path.unlink(missing_ok=True)

    def add(self, blocks: Iterable[bytes], total_bytes: int | None) -> None:
        """Write what arrives behind what is there, and report each block.

        `total_bytes`: None where the server does not say. Then it raises NotEnoughDiskError before it takes what is left for all else.
        """
        done = self.size_bytes()
        looks_at = done
        for block in blocks:
            if total_bytes is None and done >= looks_at:
                self.require_space(LOOK_BYTES)
                looks_at = done + LOOK_BYTES
            self.file.write(block)
            done += len(block)
            self.report(done, total_bytes)

    def require_space(self, needed_bytes: int) -> None:
        """Raise NotEnoughDiskError if the disk has no room for so many more bytes."""
        require_space(self.target.name, self.target.parent, needed_bytes)

    def require_whole(self, *, sha256: str | None, where: str, hint: str) -> None:
        """Raise ChecksumError if this is not the file that was promised."""
        size = self.size_bytes()
        if sha256 is not None and (found := paths.sha256_of(self.path)) != sha256:
            raise ChecksumError(
                f"{where} is not the file it should be: {size:,} bytes with sha256 {found[:16]}…, expected {sha256[:16]}…",
                hint=f"nothing was kept; {hint}",
            )
        with self.path.open("rb") as file:
            begin = file.read(9)
        for suffix, kind, is_so in (
            (".gguf", "GGUF", begin[:4] == b"GGUF"),
            (".safetensors", "safetensors", begin[8:] == b"{"),
            (".json", "JSON", begin.lstrip()[:1] in (b"{", b"[")),
        ):
            if self.target.suffix == suffix and not is_so:
                raise ChecksumError(f"{where} is not a {kind} file: it begins with {begin[:4]!r}", hint=f"nothing was kept; {hint}")


def require_space(name: str, folder: Path, needed_bytes: int) -> None:
    """Raise NotEnoughDiskError if the folder's disk has no room for so many more bytes of `name`, and for all else."""
    free = shutil.disk_usage(folder).free
    if needed_bytes and needed_bytes + SPARE_BYTES > free:
        raise NotEnoughDiskError(
            f"`{name}` needs {paths.shown_size(needed_bytes)} more, and beside it {paths.shown_size(SPARE_BYTES)} are to stay free; "
            f"the disk of `{folder}` has {paths.shown_size(free)} free",
            hint=system_errors.DISK_HINT,
        )


@contextmanager
def part_of(target: Path, purpose: net.Purpose, report: Callable[[int, int | None], None]) -> Iterator[Part]:
    """A part to fill, which becomes `target` when the block ends well.

    If it does not, a part with something in it stays to be resumed, unless the disk is full or the bytes are wrong.
    """
    path = path_of(target)
    with system_errors.translate_disk_errors(target):
        paths.make_folder(target.parent)
        opened = _opened_alone(path, target.name)
    with opened as file:
        part = Part(target=target, path=path, file=file, purpose=purpose, report=report)
        try:
            with system_errors.translate_disk_errors(target):
                yield part
                file.flush()
                _let_go(part)
                whole_files.put(path, target)
        except (NotEnoughDiskError, ChecksumError, BadFileError):
            with suppress(OSError):  # what is still in the buffer has no room either
                part.start_over()
            raise
        finally:
            _sweep(part)


@contextmanager
def held(target: Path) -> Iterator[None]:
    """Nobody pulls `target` within this block; raises DownloadError where somebody does. Nothing is kept of it.

    Where its part cannot be opened, as on a full disk, nobody is kept away; nor on Windows, which removes no file that is open.
    """
    path = path_of(target)
    try:
        file = _opened_alone(path, target.name)
    except OSError:
        yield
        return
    with file:
        if os.name == "nt":
            file.close()
        try:
            yield
        finally:
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()


def path_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _let_go(part: Part) -> None:
    """Windows renames and removes no file that is open. Elsewhere it stays open, and locked, until it has its name."""
    if os.name == "nt":
        part.file.close()


def _opened_alone(path: Path, name: str) -> BinaryIO:
    """The part, opened so that a second nomoat cannot write into it.

    Another may have finished it between the two steps: then what is open is its whole file, which must not be touched.
    """
    if sys.platform == "win32":  # by the system's own call: others may read it meanwhile, and so may we, which a lock would forbid
        import ctypes
        import msvcrt

        create = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW  # Python 3.11's own takes ASCII alone
        create.argtypes, create.restype = [ctypes.c_wchar_p, *2 * [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]], ctypes.c_void_p
        access = GENERIC_READ | GENERIC_WRITE
        handle = create(str(path), access, FILE_SHARE_READ, None, OPEN_ALWAYS, 0, None)
        if handle == ctypes.c_void_p(-1).value:
            exc = ctypes.WinError(ctypes.get_last_error())
            if exc.winerror not in system_errors.HELD:
                raise exc
            raise busy(name) from exc
        return os.fdopen(msvcrt.open_osfhandle(handle, os.O_APPEND), "ab")
    while True:
        file = path.open("ab")
        try:
            if not whole_files.lock(file):
                raise busy(name)
        except BaseException:
            file.close()
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def busy(name: str) -> DownloadError:
    """The error for what another nomoat is at."""
    return DownloadError(f"`{name}` is being pulled or removed by another nomoat right now", hint="wait for it, or stop it")


def _sweep(part: Part) -> None:
    """Remove what nobody needs any more: an empty part, its tag, its folder, and folders the pull had made for nothing."""
    shutil.rmtree(part.folder_path, ignore_errors=True)
    with suppress(OSError):
        _let_go(part)
        if part.path.stat().st_size == 0:
            part.path.unlink()
    if not part.path.exists():
        part.version_path.unlink(missing_ok=True)
    whole_files.remove_empty(part.target.parent)
