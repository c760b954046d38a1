"""What can be made again: its size, and when it goes."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from nomoat import cache, paths, system_errors
from nomoat.errors import NotWritableError

LONG_AGO = time.time() - 31 * 86_400


def made(kind: str, name: str, *, used: float | None = None) -> Path:
    folder = paths.cache() / kind / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(1000))
    if used is not None:
        os.utime(folder, (used, used))
    return folder


def test_a_sweep_removes_what_nobody_used_for_a_month_and_what_belongs_to_it() -> None:
    old, new = made(cache.IMPORTED, "old", used=LONG_AGO), made(cache.IMPORTED, "new")
    copies = [made(cache.COMPILED, name) for name in ("old", "new", "new-prompts")]  # the last of an older nomoat
    kernels = [made(cache.KERNELS, "before", used=LONG_AGO), made(cache.KERNELS, "now")]
    cache.sweep()
    assert [folder.exists() for folder in (old, new, *copies, *kernels)] == [False, True, False, True, False, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_note_may_be_on_a_file_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    """As CP949 names from a zip are."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xb8\xf0\xb5\xa8"))
    path.touch()
    assert cache.note_on("sha256", [path]) != cache.note_on("sha256", [tmp_path])


def test_a_note_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    """Another program may remove it between two looks, and it may be another user's."""
    assert (cache.read_note(tmp_path / "gone"), cache.read_note(tmp_path)) == (None, None)
    assert cache.write_note(tmp_path / "note", "said") == cache.read_note(tmp_path / "note") == "said"


def test_a_use_counts() -> None:
    folder = made(cache.IMPORTED, "model", used=LONG_AGO)
    cache.use(folder)
    cache.use(folder.with_name("not there"))
    cache.sweep()
    assert folder.exists()


@pytest.mark.parametrize("kind", [cache.IMPORTED, cache.COMPILED, cache.KERNELS])
@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_what_a_killed_program_left_goes_after_a_day(kind: str, hours: int, stays: bool) -> None:
    begun = made(kind, ".model.abcdefgh.part", used=time.time() - 3600 * hours)
    cache.sweep()
    assert begun.exists() == stays


def test_clear_removes_all_but_what_is_being_made() -> None:
    assert (cache.size(), cache.clear()) == (0, 0)
    whole, begun = made(cache.IMPORTED, "model"), made(cache.IMPORTED, ".other.abcdefgh.part")
    made(cache.COMPILED, "model"), made(cache.KERNELS, "version")
    assert cache.size() == 4000
    assert cache.clear() == 3000
    assert (whole.exists(), begun.exists(), cache.size()) == (False, True, 1000)


def test_what_cannot_be_removed_is_named_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    left, gone = made(cache.IMPORTED, "left"), made(cache.KERNELS, "gone")
    remove = shutil.rmtree

    def read_only_below_imports(folder: Path, ignore_errors: bool = False) -> None:
        if folder != left:
            remove(folder, ignore_errors=ignore_errors)
        elif not ignore_errors:
            raise OSError(errno.EROFS, "Read-only file system", str(folder / "weights"))

    monkeypatch.setattr(shutil, "rmtree", read_only_below_imports)
    with pytest.raises(NotWritableError) as caught:
        cache.clear()
    assert caught.value.message == f"cannot remove `{left}`: Read-only file system; 1 kB are free again"
    assert (left.exists(), gone.exists()) == (True, False)
    cache.sweep(unused_days=0)  # at the end of an import nobody waits for it


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives links to few")
def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    """A kind that is a link may be another home's, and its sweep is that home's matter; of a folder that is one the link goes."""
    other = tmp_path / "other"
    for name in ("kernels/version", "imported/model", "elsewhere"):
        (other / name).mkdir(parents=True)
    compiled, orphan = made(cache.COMPILED, "model"), made(cache.COMPILED, "orphan")
    for kind in (cache.KERNELS, cache.IMPORTED):
        (paths.cache() / kind).symlink_to(other / kind)
    link = compiled.with_name("linked")
    link.symlink_to(other / "elsewhere")
    cache.clear()
    assert {path.name for path in other.rglob("*")} == {"kernels", "version", "imported", "model", "elsewhere"}
    assert (compiled.exists(), orphan.exists(), link.is_symlink()) == (True, False, False)
    assert cache.links() == [paths.cache() / kind for kind in (cache.IMPORTED, cache.KERNELS)]
    assert [path.name for path in cache.folders(cache.IMPORTED)] == ["model"]  # for who removes one by its digest


def test_windows_keeps_what_a_program_has_open_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would remove the files around that one, and the model could not be started beside the program that runs it."""
    held, free = made(cache.IMPORTED, "held"), made(cache.IMPORTED, "free")
    (held / "config").write_text("x")

    def rename(path: Path, _: Path) -> None:
        if path == held / "weights":
            exc = PermissionError(13, "open elsewhere", str(path))
            exc.winerror = 32  # type: ignore[attr-defined]
            raise exc

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(NotWritableError) as caught:
        cache.clear()
    assert caught.value.message == f"cannot remove `{held}`: open elsewhere; 1 kB are free again"
    assert caught.value.hint == system_errors.HELD_HINT
    assert (sorted(path.name for path in held.iterdir()), free.exists()) == (["config", "weights"], False)
