"""Files and folders that appear whole or not at all, whoever else writes them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS

from nomoat import streams, system_errors, whole_files
from nomoat.catalog.part import part_of
from nomoat.errors import NotEnoughDiskError, NotWritableError


def test_what_a_killed_process_left_of_a_file_goes_when_it_is_written_again(tmp_path: Path) -> None:
    """Whatever the number in its name: it is no process's, and before it was one's, of this machine or another."""
    target, old = tmp_path / "[x].json", time.time() - whole_files.LEFT_SECONDS - 60
    left = [tmp_path / f".[x].json.{number}.part" for number in (1, os.getpid(), 4294967295)]
    young, *others = (tmp_path / name for name in (".[x].json.7.part", ".y.json.7.part", ".[x].json.gguf.part", ".[x].json.part"))
    for path in (*left, young, *others):
        path.write_text("half")
        if path != young:
            os.utime(path, (old, old))
    with whole_files.whole_file(target) as part:
        part.write_text("whole")
    assert target.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted((target, young, *others))


def test_two_processes_of_one_number_that_write_one_file_do_not_write_into_each_others(tmp_path: Path) -> None:
    """As in two containers, with one disk, in each of which nomoat is the process 1. Who ends last is right."""
    target = tmp_path / "report.json"
    with whole_files.whole_file(target) as first, first.open("w") as file:
        file.write("first")
        file.flush()
        with whole_files.whole_file(target) as second:
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
    with whole_files.whole_file(target, first_stays=True) as second:
        second.write_text("second")
        with whole_files.whole_file(target, first_stays=True) as first:
            first.write_text("first")
    assert target.read_text() == kept
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_who_may_read_a_file_stays_as_it_was_when_it_is_written_again(tmp_path: Path) -> None:
    target = tmp_path / "private.jsonl"
    for mode in (0o600, 0o400, 0o664):
        target.touch()
        target.chmod(mode)
        with whole_files.whole_file(target) as part:
            part.write_text("new")
            assert part.stat().st_mode & 0o077 & ~mode == 0
        assert (target.stat().st_mode & 0o777, target.read_text()) == (mode, "new")
        target.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such pipes")
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
        system_errors.require_writable(target)
        with ThreadPoolExecutor(1) as reader:
            read = reader.submit(pipe.read_text) if target in (pipe, tmp_path / "stdout") else None
            with whole_files.whole_file(target) as part:
                part.write_text("whole")
        assert (target.read_text() if read is None else read.result(timeout=PATIENCE_SECONDS)) == "whole"
    assert pipe.is_fifo()
    assert {link: link.readlink() for link in links} == links
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["elsewhere", "new.html", "new.html", "old.html", "pipe", "report.html", "stdout"]
    )


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without such links")
@pytest.mark.parametrize("mode", ["a", "w"])
@pytest.mark.parametrize("name", ["/dev/stdout", "link"])
def test_a_log_that_stdout_goes_to_keeps_what_is_in_it(tmp_path: Path, name: str, mode: str) -> None:
    """As `--report /dev/stdout >> log`, or `> log`: what is written before the report, and after it, is there in this order."""
    log, link = tmp_path / "log", tmp_path / "link"
    log.write_text("old\n" if mode == "a" else "")
    link.symlink_to("/proc/self/fd/1")
    program = """import pathlib, sys
from nomoat import system_errors, whole_files
target = pathlib.Path(sys.argv[1])
print("before", flush=True)
system_errors.require_writable(target)
with whole_files.whole_file(target) as part:
    part.write_text("report\\n")
print("after")
"""
    with log.open(mode) as stdout:
        number = log.stat().st_ino
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], stdout=stdout, check=True, timeout=PATIENCE_SECONDS)
    assert log.read_text() == ("old\n" if mode == "a" else "") + "before\nreport\nafter\n"
    assert (log.stat().st_ino, sorted(tmp_path.iterdir())) == (number, [link, log])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without such links")
def test_what_another_process_has_open_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    with log.open("ab") as stdout, subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=stdout) as other:
        for target in (Path(f"/proc/{other.pid}/fd/1"), Path(f"/proc/{other.pid}/task/{other.pid}/fd/1")):
            with whole_files.whole_file(target) as part:
                part.write_text("more\n")
        other.communicate(timeout=PATIENCE_SECONDS)
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
    with pytest.raises(NotEnoughDiskError) as caught, whole_files.whole_file(tmp_path / "pipe"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.message == f"no space left on the disk of `{tmp_path / 'temporary'}`"


@pytest.mark.parametrize("number", sorted({*whole_files.NO_LOCKS}))
def test_on_a_disk_without_locks_folders_are_made_and_files_pulled(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what another process is making meanwhile stays its own."""
    fcntl = pytest.importorskip("fcntl")

    def refuse(_file: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    def make(text: str, busy: NotWritableError | None) -> None:
        with whole_files.alone(folder, busy=busy, locks=tmp_path / "locks"), whole_files.whole_folder(folder) as part:
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


@pytest.mark.parametrize("number", [5, 32])
def test_what_windows_does_not_rename_for_a_moment_gets_its_name_all_the_same(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a virus scanner looks at it; what is open for longer is an error."""
    replace, num_refused, num_tries = os.replace, 1, 0

    def refuse_at_first(part: Path, place: Path) -> None:
        nonlocal num_tries
        num_tries += 1
        if num_tries <= num_refused:
            refused = PermissionError(errno.EACCES, "Access is denied", str(part))
            refused.winerror = number  # type: ignore[attr-defined]
            raise refused
        replace(part, place)

    monkeypatch.setattr(os, "replace", refuse_at_first)
    file, folder = tmp_path / "state.pt", tmp_path / "model"
    for text in ("old", "new"):
        num_tries = 0
        with whole_files.whole_file(file) as part:
            part.write_text(text)
        num_tries = 0
        with whole_files.whole_folder(folder) as part:
            (part / "weights").write_text(text)
        assert (file.read_text(), (folder / "weights").read_text()) == (text, text)
    monkeypatch.setattr(whole_files, "HELD_SECONDS", 0.01)
    num_refused, num_tries = 1000, 0
    with pytest.raises(NotWritableError) as caught, whole_files.whole_file(file) as part:
        part.write_text("newer")
    assert (caught.value.message, num_tries > 1) == (f"cannot write `{file}`: Access is denied", True)
    assert sorted(tmp_path.iterdir()) == [folder, file]


def test_a_missing_file_that_is_read_meanwhile_is_not_blamed_on_the_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_files.whole_file(tmp_path / "out" / "x"):
        (tmp_path / "elsewhere" / "missing").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows gives links to few")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_takes_the_place_of_a_link_and_what_that_points_to_stays(tmp_path: Path, is_there: bool) -> None:
    kept, link = tmp_path / "kept", tmp_path / "home" / "linked"
    link.parent.mkdir()
    link.symlink_to(kept)
    if is_there:
        kept.mkdir()
        (kept / "file").write_text("old")
    with whole_files.whole_folder(link) as part:
        (part / "file").write_text("new")
    assert (link / "file").read_text() == "new"
    assert list(link.parent.iterdir()) == [link] and not link.is_symlink()
    assert not is_there or (kept / "file").read_text() == "old"
