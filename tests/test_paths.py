"""Files that appear whole or not at all, and places that cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from nomoat import paths, streams
from nomoat.asking.store import AnswerStore
from nomoat.catalog.part import part_of
from nomoat.errors import NotEnoughDiskError, NotEnoughMemoryError, NotWritableError, UsageError


@pytest.mark.parametrize("name", ["m.gguf", "m-00003-of-00002.gguf", "m-00000-of-00000.gguf", "m-1-of-2.gguf"])
def test_a_name_that_is_no_part_s_is_that_of_a_whole(name: str) -> None:
    assert paths.split_names(name) == [name]


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("make", ["file", "folder", "place", "lock", "pulled", "answers"])
def test_the_home_is_made_for_its_owner_alone(make: str, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes it, below folders that are not there either."""
    home = tmp_path / "above" / "home"
    monkeypatch.setenv("NOMOAT_HOME", str(home))
    target = home / "below" / "it"
    makers = {
        "file": lambda: paths.whole_file(target), "folder": lambda: paths.whole_folder(target), "lock": lambda: paths.alone(target),
        "pulled": lambda: part_of(target, "pull a model", lambda _done, _all: None), "answers": AnswerStore,
    }  # fmt: skip
    if make == "place":
        paths.require_writable(target)
    else:
        with makers[make]() as part:
            if make == "file":
                part.touch()
    assert (mode_of(home), mode_of(home.parent)) == (0o700, 0o755)
    assert not empty_home.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.usefixtures("usual_umask")
def test_a_home_that_is_there_stays_as_open_as_it_is(empty_home: Path) -> None:
    empty_home.mkdir()
    AnswerStore().close()
    assert (mode_of(empty_home), mode_of(empty_home / "runs")) == (0o755, 0o700)
    (empty_home / "runs").chmod(0o750)
    AnswerStore().close()
    assert mode_of(empty_home / "runs") == 0o750


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_again(tmp_path: Path) -> None:
    """Whatever the number in its name: it is no process's, and before it was one's, of this machine or another."""
    target, old = tmp_path / "[x].json", time.time() - paths.LEFT_SECONDS - 60
    left = [tmp_path / f".[x].json.{number}.part" for number in (1, os.getpid(), 4294967295)]
    young, *others = (tmp_path / name for name in (".[x].json.7.part", ".y.json.7.part", ".[x].json.gguf.part", ".[x].json.part"))
    for path in (*left, young, *others):
        path.write_text("half")
        if path != young:
            os.utime(path, (old, old))
    with paths.whole_file(target) as part:
        part.write_text("whole")
    assert target.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted((target, young, *others))


def test_two_processes_of_one_number_that_write_one_file_do_not_write_into_each_others(tmp_path: Path) -> None:
    """As in two containers, with one disk, in each of which nomoat is the process 1. Who ends last is right."""
    target = tmp_path / "report.json"
    with paths.whole_file(target) as first, first.open("w") as file:
        file.write("first")
        file.flush()
        with paths.whole_file(target) as second:
            second.write_text("2nd")
        assert target.read_text() == "2nd"
        file.write(", whole")
    assert target.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such pipes")
@pytest.mark.parametrize(("has_links", "kept"), [(True, "first"), (False, "second")])
def test_what_another_process_has_put_there_meanwhile_may_stay_where_the_disk_has_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool, kept: str
) -> None:
    def refuse(*_paths: Path) -> None:
        raise PermissionError

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "target"
    with paths.whole_file(target, first_stays=True) as second:
        second.write_text("second")
        with paths.whole_file(target, first_stays=True) as first:
            first.write_text("first")
    assert target.read_text() == kept
    assert list(tmp_path.iterdir()) == [target]


def test_a_pipe_is_written_into_and_a_link_leads_to_what_is_written(tmp_path: Path) -> None:
    """`/dev/stdout` is a link to a pipe or a device. What is there stays what it is, and nothing else is left beside it."""
    pipe, real = tmp_path / "pipe", tmp_path / "elsewhere" / "report.html"
    os.mkfifo(pipe)
    real.parent.mkdir()
    links = {tmp_path / "stdout": pipe, tmp_path / "old.html": real, tmp_path / "new.html": real.with_name("new.html")}
    for link, leads_to in links.items():
        link.symlink_to(leads_to)
    real.write_text("old")
    for target in (pipe, *links):
        paths.require_writable(target)
        with ThreadPoolExecutor(1) as reader:
            read = reader.submit(pipe.read_text) if target in (pipe, tmp_path / "stdout") else None
            with paths.whole_file(target) as part:
                part.write_text("whole")
        assert (target.read_text() if read is None else read.result(timeout=60)) == "whole"
    assert pipe.is_fifo()
    assert {link: link.readlink() for link in links} == links
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["elsewhere", "new.html", "new.html", "old.html", "pipe", "report.html", "stdout"]
    )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without such links")
@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_log_that_stdout_goes_to_keeps_what_is_in_it(tmp_path: Path, mode: str) -> None:
    """As `--report /dev/stdout >> log`, or `> log`: what is written before the report, and after it, is there in this order."""
    log, link = tmp_path / "log", tmp_path / "stdout"
    log.write_text("old\n" if mode == "a" else "")
    link.symlink_to("/proc/self/fd/1")
    program = """import pathlib, sys
from nomoat import paths
target = pathlib.Path(sys.argv[1])
print("before", flush=True)
paths.require_writable(target)
with paths.whole_file(target) as part:
    part.write_text("report\\n")
print("after")
"""
    with log.open(mode) as stdout:
        number = log.stat().st_ino
        subprocess.run([sys.executable, "-c", program, str(link)], stdout=stdout, check=True, timeout=60)
    assert log.read_text() == ("old\n" if mode == "a" else "") + "before\nreport\nafter\n"
    assert (log.stat().st_ino, sorted(tmp_path.iterdir())) == (number, [log, link])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without such links")
def test_what_another_process_has_open_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    with log.open("ab") as stdout, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=stdout) as other:
        for target in (Path(f"/proc/{other.pid}/fd/1"), Path(f"/proc/{other.pid}/task/{other.pid}/fd/1")):
            with paths.whole_file(target) as part:
                part.write_text("more\n")
        other.communicate(timeout=60)
    assert log.read_text() == "old\nmore\nmore\n"


def test_links_in_a_circle_are_no_stream(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert not streams.is_stream(circle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such pipes")
def test_a_full_temporary_folder_is_not_said_to_be_the_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes into a pipe is made there first."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotEnoughDiskError) as caught, paths.whole_file(tmp_path / "pipe"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"no space left on the disk of `{tmp_path / 'temporary'}`"


@pytest.mark.parametrize(
    ("needed", "free", "said"),
    [(2_000_000, 4_000, "needs 2 MB, and its disk has 4 kB"), (10**6, 0, "needs 1 MB, and its disk has 0 kB")],
)
def test_less_than_a_megabyte_is_said_in_kilobytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int, free: int, said: str
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(NotEnoughDiskError) as caught:
        paths.require_free_disk(tmp_path, needed)
    assert caught.value.message == f"`{tmp_path}` {said} free"


@pytest.mark.skipif(not hasattr(os, "mkfifo") or not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write everywhere")
def test_a_pipe_that_may_not_be_written_is_named_before_anything_is_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o400)
    with pytest.raises(NotWritableError, match=f"cannot write `{tmp_path / 'pipe'}`"):
        paths.require_writable(tmp_path / "pipe")


@pytest.mark.parametrize("number", sorted({*paths.NO_LOCKS}))
def test_on_a_disk_without_locks_folders_are_made_and_files_pulled(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what another process is making meanwhile stays its own."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(_file: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    def make(text: str, busy: NotWritableError | None) -> None:
        with paths.alone(folder, busy=busy, locks=tmp_path / "locks"), paths.whole_folder(folder) as part:
            if busy is None:
                make("first", NotWritableError("busy"))
                assert (folder / "file").read_text() == "first"
            (part / "file").write_text(text)

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = tmp_path / "model"
    make("whole", None)
    with part_of(tmp_path / "m.gguf", "pull a model", lambda _done, _all: None) as pulled:
        pulled.file.write(b"GGUF")
    assert ((folder / "file").read_text(), (tmp_path / "m.gguf").read_bytes()) == ("whole", b"GGUF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locks", "m.gguf", "model"]


def test_a_file_below_a_file_cannot_be_written_and_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(NotWritableError) as caught, paths.whole_file(tmp_path / "a" / "b" / "report.html"):
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
    with pytest.raises(NotWritableError) as caught, paths.whole_file(target) as part:
        part.write_text("x")
    assert caught.value.message == f"cannot write `{target}`: {os.strerror(errno.ENAMETOOLONG)}"
    assert caught.value.hint == "choose a shorter name: while it is written a file has a temporary one, some 20 letters longer"


def test_a_missing_file_that_is_read_meanwhile_is_not_blamed_on_the_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), paths.whole_file(tmp_path / "out" / "x"):
        (tmp_path / "elsewhere" / "missing").read_text()


def by_windows(number: int, name: Path, usual: int = errno.EACCES) -> OSError:
    """What Windows says of a file, with its own number, on whatever system this is."""
    exc = OSError(usual, "Windows' words", str(name))
    exc.winerror = number  # type: ignore[attr-defined]
    return exc


@pytest.mark.parametrize(
    ("number", "usual", "hint"),
    [
        (32, errno.EACCES, paths.HELD_HINT),
        (1224, errno.EINVAL, paths.HELD_HINT),
        (5, errno.EACCES, f"check whose it is; if it is yours, {paths.HELD_HINT}"),
        (123, errno.EINVAL, "check that its folder is yours, or choose another place"),
        (206, errno.EINVAL, paths.LONG_NAME_HINT),
    ],
)
def test_what_windows_does_not_replace_says_that_a_program_has_it_open(tmp_path: Path, number: int, usual: int, hint: str) -> None:
    target = tmp_path / "model"
    with pytest.raises(NotWritableError) as caught, paths.translate_disk_errors(target):
        raise by_windows(number, target, usual)
    assert (caught.value.message, caught.value.hint) == (f"cannot write `{target}`: Windows' words", hint)


@pytest.mark.parametrize(
    ("number", "usual", "hint"),
    [
        (32, errno.EACCES, paths.HELD_HINT),
        (123, errno.EINVAL, 'Windows allows no name with one of <>:"/\\|?* in it'),
    ],
)
def test_what_windows_refuses_elsewhere_is_an_error_of_two_lines(tmp_path: Path, number: int, usual: int, hint: str) -> None:
    found = paths.as_error(by_windows(number, tmp_path / "x", usual))
    assert found is not None and (found.message, found.hint) == (f"`{tmp_path / 'x'}`: Windows' words", hint)


@pytest.mark.parametrize(("system", "line"), [("linux", "nomoat run 'a b' c"), ("win32", 'nomoat run "a b" c')])
def test_a_command_is_quoted_as_the_systems_shell_reads_it(monkeypatch: pytest.MonkeyPatch, system: str, line: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert paths.as_command(["nomoat", "run", "a b", "c"]) == line


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives links to few")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_takes_the_place_of_a_link_and_what_that_points_to_stays(tmp_path: Path, is_there: bool) -> None:
    kept, link = tmp_path / "kept", tmp_path / "home" / "linked"
    link.parent.mkdir()
    link.symlink_to(kept)
    if is_there:
        kept.mkdir()
        (kept / "file").write_text("old")
    with paths.whole_folder(link) as part:
        (part / "file").write_text("new")
    assert (link / "file").read_text() == "new"
    assert list(link.parent.iterdir()) == [link] and not link.is_symlink()
    assert not is_there or (kept / "file").read_text() == "old"


def test_a_relative_place_that_may_not_be_written_is_named_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def denied(**where: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "tmpbvu6e5q5"))

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(NotWritableError) as caught:
        paths.require_writable(Path("r.html"))
    assert caught.value.message == "cannot write `r.html`: Permission denied"
    assert caught.value.hint == "check that its folder is yours, or choose another place"


def test_a_relative_place_on_a_full_disk_is_said_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotEnoughDiskError) as caught, paths.translate_disk_errors(Path("r.html")):
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
    with pytest.raises(NotEnoughDiskError) as caught, paths.translate_disk_errors(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"{'no more files fit' if is_out_of_files else 'no space left'} on the disk of `{tmp_path}`"
    assert paths.is_full(tmp_path) == is_out_of_files


def test_threads_that_cannot_be_started_are_an_error_of_two_lines() -> None:
    error = paths.as_error(RuntimeError("can't start new thread"))
    assert isinstance(error, NotEnoughMemoryError)
    assert error.message == "the system starts no more threads"
    assert error.hint is not None and "`ulimit -u`" in error.hint


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not ask HOME")
def test_an_empty_home_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.delenv("NOMOAT_HOME")
    monkeypatch.setenv("HOME", "")
    assert paths.home() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".nomoat"
    assert paths.expanded("/a/~") == Path("/a/~")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as in a container, which knows no such user
    with pytest.raises(UsageError) as caught:
        paths.home()
    assert (caught.value.message, caught.value.hint) == ("`~/.nomoat`: no home folder is known for `~`", "give NOMOAT_HOME instead")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_answers_of_another_user_are_said_to_be_his() -> None:
    found = paths.as_error(PermissionError(errno.EACCES, "Permission denied", str(paths.runs() / "spent.sqlite")))
    assert found is not None and (found.message, found.hint) == (
        f"`{paths.runs() / 'spent.sqlite'}`: Permission denied",
        paths.RUNS_HINT,
    )


def test_a_place_whose_lock_cannot_be_written_has_its_own_hint(empty_home: Path) -> None:
    """Another one's than an import's: no start of a model makes the lock of an adapter."""
    paths.models().mkdir(parents=True)
    paths.cache().write_text("")
    with pytest.raises(NotWritableError) as caught, paths.alone(paths.adapters() / "y"):
        pass
    assert caught.value.hint == f"check who may write to `{empty_home}`, or set NOMOAT_HOME to a folder of yours"
