"""What the system refuses, as errors that say where and what to do."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nomoat import paths, system_errors, whole_files
from nomoat.errors import NotEnoughDiskError, NotEnoughMemoryError, NoThreadError, NotWritableError, SettingError


@pytest.mark.parametrize(
    ("needed", "free", "said"),
    [(2_000_000, 4_000, "needs 2 MB, and its disk has 4 kB"), (10**6, 0, "needs 1 MB, and its disk has 0 kB")],
)
def test_less_than_a_megabyte_is_said_in_kilobytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, free: int, said: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(NotEnoughDiskError) as caught:
        system_errors.require_free_disk(tmp_path, needed)
    assert caught.value.message == f"`{tmp_path}` {said} free"


@pytest.mark.skipif(not hasattr(os, "mkfifo") or not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write everywhere")
def test_a_pipe_that_may_not_be_written_is_named_before_anything_is_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o400)
    with pytest.raises(NotWritableError, match=f"cannot write `{tmp_path / 'pipe'}`"):
        system_errors.require_writable(tmp_path / "pipe")


def test_a_file_below_a_file_cannot_be_written_and_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(NotWritableError) as caught, whole_files.whole_file(tmp_path / "a" / "b" / "report.html"):
        pass
    place = tmp_path / "a" / "b" if os.name == "posix" else tmp_path / "a"  # Windows calls it a file that is there
    cause = caught.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == (errno.ENOTDIR if os.name == "posix" else errno.EEXIST)
    message = f"cannot write `{tmp_path / 'a' / 'b' / 'report.html'}`: {cause.strerror} (`{place}`)"
    hint = "check that its folder is yours, or choose another place"
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts the letters of the whole path")
def test_a_name_that_leaves_no_room_for_the_temporary_one_says_so(tmp_path: Path) -> None:
    target = tmp_path / ("c" * 245)
    with pytest.raises(NotWritableError) as caught, whole_files.whole_file(target) as part:
        part.write_text("x")
    assert caught.value.message == f"cannot write `{target}`: {os.strerror(errno.ENAMETOOLONG)}"
    assert caught.value.hint == "choose a shorter name: while it is written a file has a temporary one, some 20 letters longer"


def by_windows(number: int, name: Path, usual: int = errno.EACCES) -> OSError:
    """What Windows says of a file, with its own number, on whatever system this is."""
    exc = OSError(usual, "Windows' words", str(name))
    exc.winerror = number  # type: ignore[attr-defined]
    return exc


@pytest.mark.parametrize(
    ("number", "usual", "hint"),
    [
        (32, errno.EACCES, system_errors.HELD_HINT),
        (1224, errno.EINVAL, system_errors.HELD_HINT),
        (5, errno.EACCES, f"check whose it is; if it is yours, {system_errors.HELD_HINT}"),
        (123, errno.EINVAL, "check that its folder is yours, or choose another place"),
        (206, errno.EINVAL, system_errors.LONG_NAME_HINT),
    ],
)
def test_what_windows_does_not_replace_says_that_a_program_has_it_open(tmp_path: Path, number: int, usual: int, hint: str) -> None:
    target = tmp_path / "model"
    with pytest.raises(NotWritableError) as caught, system_errors.translate_disk_errors(target):
        raise by_windows(number, target, usual)
    assert (caught.value.message, caught.value.hint) == (f"cannot write `{target}`: Windows' words", hint)


@pytest.mark.parametrize(
    ("number", "usual", "hint"),
    [
        (32, errno.EACCES, system_errors.HELD_HINT),
        (123, errno.EINVAL, 'Windows allows no name with one of <>:"/\\|?* in it'),
    ],
)
def test_what_windows_refuses_elsewhere_is_an_error_of_two_lines(tmp_path: Path, number: int, usual: int, hint: str) -> None:
    found = system_errors.as_error(by_windows(number, tmp_path / "x", usual))
    assert found is not None and (found.message, found.hint) == (f"`{tmp_path / 'x'}`: Windows' words", hint)


def test_a_relative_place_that_may_not_be_written_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def denied(**where: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "tmpbvu6e5q5"))

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(NotWritableError) as caught:
        system_errors.require_writable(Path("r.html"))
    assert caught.value.message == "cannot write `r.html`: Permission denied"
    assert caught.value.hint == "check that its folder is yours, or choose another place"


def test_a_relative_place_on_a_full_disk_is_said_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotEnoughDiskError) as caught, system_errors.translate_disk_errors(Path("r.html")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"no space left on the disk of `{tmp_path}`"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts no files")
@pytest.mark.parametrize(
    ("num_files", "is_out_of_files"), [(1000, True), (0, False)], ids=["all are used", "not counted, as on btrfs"]
)
def test_a_disk_on_which_no_more_files_fit_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int, is_out_of_files: bool
) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_files=num_files, f_favail=0))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(NotEnoughDiskError) as caught, system_errors.translate_disk_errors(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"{'no more files fit' if is_out_of_files else 'no space left'} on the disk of `{tmp_path}`"
    assert system_errors.is_full(tmp_path) == is_out_of_files


BY_OPENVINO = "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"


@pytest.mark.parametrize("words", ["can't start new thread", f"{BY_OPENVINO}Resource temporarily unavailable\n\n"])
def test_threads_that_cannot_be_started_are_an_error_of_two_lines(words: str) -> None:
    error = system_errors.as_error(RuntimeError(words))
    assert isinstance(error, NoThreadError)
    assert error.message == "the system starts no more threads"
    assert error.hint is not None and "`ulimit -u`" in error.hint


@pytest.mark.parametrize(
    "exc",
    [
        OSError(errno.EACCES, "cannot allocate executable memory. This may be due to security restrictions"),
        RuntimeError(f"{BY_OPENVINO}can't protect\n\n"),
    ],
)
def test_where_nothing_that_is_made_for_the_cpu_may_run_is_an_error_of_two_lines(exc: Exception) -> None:
    """Of llvmlite, which numba asks as `tune` imports it, and of OpenVINO, under systemd's MemoryDenyWriteExecute."""
    error = system_errors.as_error(exc)
    assert isinstance(error, SettingError)
    assert error.message == "the system lets this process run no code that is made for this CPU"
    assert error.hint == "in a unit of systemd's leave out MemoryDenyWriteExecute; under SELinux allow execmem"


def raised_behind(context: Exception, own: Exception) -> Exception:
    """What llvmlite raises where the loader gave it no library."""
    own.__context__ = context
    return own


NOT_MAPPED = "libllvmlite.so: failed to map segment from shared object"
NOT_LOADED = "Could not find/load shared object file 'libllvmlite.so'"


@pytest.mark.parametrize(
    ("exc", "is_memory"),
    [
        (OSError(NOT_MAPPED), True),
        (raised_behind(OSError(NOT_MAPPED), OSError(NOT_LOADED)), True),
        (raised_behind(OSError("libllvmlite.so: invalid ELF header"), OSError(NOT_LOADED)), False),
        (OSError(errno.ENOENT, f"no file `{NOT_MAPPED}`"), False),
        (RuntimeError(f"{BY_OPENVINO}can't alloc\n\n"), True),
        (RuntimeError(f"{BY_OPENVINO}can't infer\n\n"), False),
    ],
)
def test_memory_that_a_library_got_none_of_is_an_error_of_two_lines(exc: Exception, is_memory: bool) -> None:
    """A limit (`ulimit -v`) is met wherever memory is asked for, by whomever."""
    error = system_errors.as_error(exc)
    assert isinstance(error, NotEnoughMemoryError) == is_memory
    assert error is None or (error.message, error.hint) == ("the system gives no more memory", system_errors.MEMORY_HINT)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_answers_of_another_user_are_said_to_be_his() -> None:
    found = system_errors.as_error(PermissionError(errno.EACCES, "Permission denied", str(paths.runs() / "spent.sqlite")))
    assert found is not None and (found.message, found.hint) == (
        f"`{paths.runs() / 'spent.sqlite'}`: Permission denied",
        system_errors.RUNS_HINT,
    )


def test_a_place_whose_lock_cannot_be_written_has_its_own_hint(empty_home: Path) -> None:
    """Another one's than an import's: no start of a model makes the lock of an adapter."""
    paths.models().mkdir(parents=True)
    paths.cache().write_text("")
    with pytest.raises(NotWritableError) as caught, whole_files.alone(paths.adapters() / "y"):
        pass
    assert caught.value.hint == f"check who may write to `{empty_home}`, or set NOMOAT_HOME to a folder of yours"
