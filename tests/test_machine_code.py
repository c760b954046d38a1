"""Where compiled code is kept. What it computes is tested where it is used."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from patience import wait_until

from nomoat import cache, jit, machine_code, whole_files
from nomoat.errors import NotWritableError

USE = """
import os, sys
from nomoat import machine_code
import numpy as np
numbers = np.zeros(1, np.int64)
machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True).call(numbers.ctypes.data, 5)
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        sys.exit()
    os.waitpid(child, 0)
place = machine_code._read_from()
print(place, numbers[0], place.is_dir(), bool(list(place.rglob("*.o"))))
"""


REFUSING = """
import tempfile
def refuse(**_):
    raise PermissionError(13, "Permission denied")
tempfile.TemporaryFile = tempfile.mkdtemp = refuse
"""


def used(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
    env = os.environ | {name: str(value) for name, value in settings.items()}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)


def test_without_a_home_to_write_to_what_is_compiled_is_kept_for_the_process(tmp_path: Path) -> None:
    """Below a file nobody can write, root neither. A fork that ends leaves the folder."""
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    done = used(USE, NOMOAT_HOME=tmp_path / "file" / "home", TMPDIR=tmp_path / "temporary")
    place, *said = done.stdout.split()
    assert Path(place).parents[3] == tmp_path / "temporary"  # a home, for a process that compiles
    assert said == ["5", "True", "True"]
    kept = tmp_path / "file/home/cache/kernels" / machine_code.FOLDER.name
    assert done.stderr == f"note: `{kept}` cannot be written, so what is compiled is kept for this process alone\n"
    assert list((tmp_path / "temporary").iterdir()) == []


def test_where_all_is_kept_nothing_is_written_and_nothing_is_said(tmp_path: Path) -> None:
    """As in a container whose file systems are all read-only."""
    used(USE, NOMOAT_HOME=tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = used(REFUSING + USE, NOMOAT_HOME=tmp_path)
    assert (done.stdout.split()[1:], done.stderr) == (["5", "True", "True"], "")
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_home_that_cannot_be_written_has_of_compiled_code_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is compiled beside it: numba reads from where it writes."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "kernel.o").write_text("code")
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", refuse)
        place = machine_code._place(tmp_path)
    assert place != tmp_path
    assert (place / "engine" / "kernel.o").read_text() == "code"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # a fork's
        cache.remove_temporary()
    assert place.is_dir()
    cache.remove_temporary()
    assert not place.exists()


@pytest.mark.parametrize("full", [None, (Path, "write_bytes")])
def test_nowhere_to_write_is_an_error_that_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: tuple[object, str] | None
) -> None:
    """Also where a copy of what is there finds no room: what is compiled would find none either, minutes later."""

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept, temporary = tmp_path / "kept", tmp_path / "temporary"
    for folder in (kept, temporary):
        folder.mkdir()
    (kept / "kernel.o").write_text("code")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    if full:
        monkeypatch.setattr(*full, is_full)
    else:
        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(NotWritableError) as caught:
        machine_code._place(kept)
    assert list(temporary.iterdir()) == []
    why = "No space left on device" if full else "Permission denied"
    assert caught.value.message == (
        f"code for this CPU is to be compiled, and neither can `{kept}` be written nor temporary files: {why}"
    )
    assert caught.value.hint == (
        "start the model once where that home can be written, on a CPU of this kind, "
        "or set NOMOAT_HOME, or TMPDIR, to a folder of yours"
    )


def test_a_home_that_can_be_written_keeps_what_is_compiled(tmp_path: Path) -> None:
    assert machine_code._place(tmp_path / "new") == tmp_path / "new"


def test_what_another_environment_compiled_is_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba does not find it there: a mark that all is compiled would let a training compile for itself, and differ in its bits."""
    ours = machine_code._version()
    shutil.copytree(Path(machine_code.__file__).parent, tmp_path / "other", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(machine_code, "__file__", str(tmp_path / "other" / "machine_code.py"))
    assert machine_code._version() != ours


def refuse(**_: object) -> None:
    raise PermissionError(13, "Permission denied")


TELLS = """
import sys
from nomoat import child_process, machine_code, paths, whole_files
assert machine_code.FOLDER.parents[2] == paths.home()
print("words of others")
print(5)
for done in range(3):
    child_process.tell(done, 2)
sys.exit(int(sys.argv[1]))
"""


def test_what_another_process_compiles_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "nomoat.py").write_text("raise SystemError")  # not what is compiled, though it is the first that Python would find
    told: list[tuple[int, int]] = []
    for code, expected in (("1", 3), ("0", 3), ("0", 0)):  # the first fails: it is asked again
        told.clear()
        machine_code.compile_elsewhere("all", TELLS, code, progress=lambda *numbers: told.append(numbers))
        assert told == [(done, 2) for done in range(expected)]
    machine_code.compile_elsewhere("more", TELLS, "0")
    assert sorted(path.name for path in machine_code.FOLDER.glob("*.done")) == ["all.done", "more.done"]


def test_who_waits_for_the_compiler_may_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    begun: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **how: begun.append(popen(*args, **how)) or begun[-1])

    def leaves(done: int, total: int) -> None:
        raise KeyboardInterrupt

    endless = "from nomoat import child_process\nwhile True: child_process.tell(0, 1)"
    with pytest.raises(KeyboardInterrupt):
        machine_code.compile_elsewhere("all", endless, progress=leaves)
    assert begun[0].returncode is not None
    assert not (machine_code.FOLDER / "all.done").exists()


def test_a_bar_that_breaks_is_said_and_not_taken_for_want_of_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)

    def breaks(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        machine_code.compile_elsewhere("all", TELLS, "0", progress=breaks)


def test_who_waits_for_another_that_compiles_is_told_and_finds_it_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long that takes while it keeps something new; else patience ends."""
    waits = "note: another process compiles for this CPU (once), and this one waits for it"
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    told: list[tuple[int, int]] = []
    machine_code.FOLDER.mkdir(parents=True)
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += machine_code.PATIENCE_SECONDS - 1
        if now < 4 * machine_code.PATIENCE_SECONDS:
            (machine_code.FOLDER / f"{finishes} {now}.o").write_text("code")
        elif finishes:
            (machine_code.FOLDER / "all.done").touch()

    monkeypatch.setattr(time, "sleep", passes)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with whole_files.alone(machine_code.FOLDER, locks=tmp_path / "cache" / "locks"):
        for finishes in (False, True):
            now = 0.0
            machine_code.compile_elsewhere("all", "raise SystemError", progress=lambda *numbers: told.append(numbers))
            assert (machine_code.FOLDER / "all.done").exists() == finishes
            assert now > 4 * machine_code.PATIENCE_SECONDS
    gives_up = (
        f"note: another process that compiles has kept nothing new for {machine_code.PATIENCE_SECONDS:.0f} s, "
        "so what is used is compiled here, too"
    )
    assert (caplog.messages, told) == ([waits, gives_up, waits], [])


def test_variables_by_which_numba_compiles_nothing_for_this_cpu_are_refused(tmp_path: Path) -> None:
    """What is emitted for this CPU would end the process in LLVM."""
    for name, value in (("NUMBA_CPU_NAME", "generic"), ("NUMBA_CPU_FEATURES", "+sse2"), ("NUMBA_DISABLE_JIT", "1")):
        done = subprocess.run(
            [sys.executable, "-c", "import nomoat.jit"],
            env=os.environ | {name: value, "NOMOAT_HOME": str(tmp_path / "home")}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stderr.splitlines()[-2:] == [
            f"nomoat.errors.UsageError: {name} is `{value}`, and nomoat needs what numba compiles for this CPU",
            f"hint: unset {name}",
        ]


DENYING = """
import ctypes, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit("not here")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's")
def test_where_nothing_written_may_run_it_is_an_error_that_says_so(tmp_path: Path) -> None:
    """As systemd's MemoryDenyWriteExecute has it: LLVM says nothing, and the first call was a segmentation fault."""
    env = os.environ | {"NOMOAT_HOME": str(tmp_path)}
    assert used(USE, **env).stdout.split()[1:] == ["5", "True", "True"]  # kept, as in all starts but the first
    done = subprocess.run([sys.executable, "-c", DENYING + USE], env=env, capture_output=True, text=True, check=False)
    if "not here" in done.stderr:
        pytest.skip("Linux before 6.3 does not know it")
    assert done.stderr.splitlines()[-2:] == [
        "nomoat.errors.SettingError: the system lets this process run no code that is made for this CPU",
        "hint: in a unit of systemd's leave out MemoryDenyWriteExecute; under SELinux allow execmem",
    ]


def test_what_was_compiled_for_another_place_is_no_mark_that_all_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / "of another CPU")
    machine_code.compile_elsewhere("all", "")
    assert not list(machine_code.FOLDER.glob("*.done"))


def test_without_another_process_what_is_used_is_compiled_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / "version")
    for executable in (str(tmp_path / "no python"), None):
        monkeypatch.setattr(sys, "executable", executable)
        machine_code.compile_elsewhere("all", "")
    machine_code.compile_elsewhere("all", 'from nomoat import errors; raise errors.NotWritableError("no")')
    assert not (machine_code.FOLDER / "all.done").exists()


def test_what_is_kept_is_found_without_a_compiler_and_what_is_damaged_or_another_s_is_compiled_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never run: LLVM would end the process, or the code would do anything."""
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "kept")
    compiled, numbers = [], np.zeros(1, np.int64)
    of_numba = jit.machine_code_of
    monkeypatch.setattr(jit, "machine_code_of", lambda *told, **how: compiled.append(told[2]) or of_numba(*told, **how))

    def added() -> int:
        machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True).call(numbers.ctypes.data, 3)
        return int(numbers[0])

    assert (added(), added()) == (3, 6)
    assert compiled == ["team_kernels_add"]
    file = tmp_path / "kept" / "team_kernels_add.o"
    whole = file.read_bytes()
    damaged = [b"", whole[:-1], whole[:-1] + b"!", whole.replace(b"needs", b"neeks"), b"[]\n", b'{"needs": 1}\n', b"\xff\n"]
    anothers = [whole.replace(b"_add", b"_and", 1), whole.replace(b"2", b"3", 1), whole.replace(b"[]", b'["no_such_function"]', 1)]
    for number, content in enumerate(damaged + anothers, 1):
        file.write_bytes(content)
        assert added() == 6 + 3 * number
        assert len(compiled) == 1 + number
        assert machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)._kept() is not None


def test_code_that_needs_what_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(jit, "machine_code_of", lambda *told, **how: (b"", ["malloc", "no_such_function"]))
    with pytest.raises(RuntimeError, match=r"^`team_kernels_add` needs no_such_function, which this process does not have$"):
        _ = machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True).address


KILLED = """
import os, sys
from nomoat import machine_code

class Function(machine_code.Compiled):
    @property
    def address(self):
        os.write(1, f"7 {os.getpid()}{os.linesep}".encode())
        KILL

machine_code.compile_all([Function("a", "b", 1), Function("c", "d", 1)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="one process compiles")
def test_a_compiler_that_is_killed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    machine_code.compile_elsewhere("all", KILLED.replace("KILL", "os.kill(os.getpid(), 9)"))
    assert not (machine_code.FOLDER / "all.done").exists()


MANY = """
from nomoat import machine_code

class Function(machine_code.Compiled):
    address = 0

machine_code.compile_all([Function("a", "b", 1)] * 300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="one process compiles")
def test_more_functions_than_a_byte_can_number_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    told: list[tuple[int, int]] = []
    machine_code.compile_elsewhere("all", MANY, progress=lambda *both: told.append(both))
    assert told[-1] == (300, 300)


@pytest.mark.skipif(sys.platform != "linux", reason="one process compiles")
def test_compilers_end_with_whoever_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "cache" / cache.KERNELS / machine_code.FOLDER.name)
    compilers = []

    def leaves(done: int, total: int) -> None:
        if done == 7:
            compilers.append(psutil.Process(total))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine_code.compile_elsewhere("all", KILLED.replace("KILL", "import time; time.sleep(1000)"), progress=leaves)

    def has_ended() -> bool:
        with suppress(psutil.NoSuchProcess):
            return bool(compilers[0].status() == psutil.STATUS_ZOMBIE)  # of a system whose first process looks after nobody
        return True

    wait_until(has_ended, "end")


def test_what_another_process_kept_meanwhile_and_has_open_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, which replaces no file that is open."""

    def refuse(part: Path, place: Path) -> None:
        raise PermissionError(errno.EACCES, "Access denied", str(part))

    monkeypatch.setattr(machine_code, "FOLDER", tmp_path / "kept")
    file = tmp_path / "kept" / "team_kernels_add.o"
    _ = machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True).address
    kept = file.read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    assert machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)._compile()
    assert [*file.parent.iterdir()] == [file]
    assert file.read_bytes() == kept
    file.unlink()
    with pytest.raises(NotWritableError):
        machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)._compile()


@pytest.mark.skipif(sys.platform != "linux", reason="one process compiles")
def test_where_no_process_can_be_copied_one_compiles_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse_copies() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse_copies)
    machine_code.compile_all([machine_code.Compiled("engine.team_kernels", "add", 2, gives_number=True)])
    assert capsys.readouterr().out.splitlines() == ["0 1", "1 1"]
