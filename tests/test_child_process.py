"""Work in another process: how it may end, and what of that is told."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from patience import wait_until

from nomoat import child_process, errors

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="its processes end by no signals")
FULL = 'from nomoat import errors\nraise errors.NotEnoughDiskError("the disk is full", hint="free some")'


def run(code: str, **how: object) -> bool:
    return child_process.run(code, home=Path(os.environ["NOMOAT_HOME"]), **how)  # type: ignore[arg-type]


def test_it_tells_how_far_it_is_and_whether_it_reached_its_end() -> None:
    told: list[tuple[int, int]] = []
    assert run("child_process.tell(1, 2)\nchild_process.tell(2, 2)", progress=lambda *both: told.append(both))
    assert told == [(1, 2), (2, 2)]


def test_it_begins_before_it_is_given_its_word(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"open({str(begun)!r}, 'x').close()\nsys.exit(child_process.word() != 'a word')"
    with child_process.Child(code, home=tmp_path) as child:
        child.start()
        wait_until(begun.exists, "begin")
        assert child.run("a word")


def test_one_that_is_given_no_word_ends_with_the_block(tmp_path: Path) -> None:
    before = psutil.Process().children()
    with child_process.Child("child_process.word()", home=tmp_path) as child:
        child.start()
        (started,) = set(psutil.Process().children()).difference(before)
    assert not started.is_running()


def test_ctrl_c_as_the_word_is_said_stays_ctrl_c(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), child_process.Child("child_process.word()", home=tmp_path) as child:
        child.start()
        assert child._process is not None and child._process.stdin is not None
        child._process.stdin.write("a word\n")
        raise KeyboardInterrupt


@pytest.mark.parametrize("code", [1, 2, 125])  # of a bug; of a server's or another host's program, which knows none of our options
def test_what_failed_and_does_not_say_why_is_left_to_who_asked(code: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nomoat"):
        assert not run(f"sys.exit({code})")
    assert caplog.messages == [f"another process ended with exit code {code}"]


def test_a_frozen_program_and_such_a_process_start_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python is within a program `sys.executable` may be that program, and so on without end."""
    assert run("sys.exit(child_process.can_run())")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process is started"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "frozen", True, raising=False)
        assert not run("")
    monkeypatch.setenv(child_process.WITHIN, "1")
    assert not run("")


def test_python_s_own_options_hold_there_too(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom nomoat import child_process\n"
        "told = 'sys.exit(not (sys.flags.ignore_environment and sys.flags.no_user_site and sys.flags.safe_path))'\n"
        f"sys.exit(not child_process.run(told, home=Path({str(tmp_path)!r})))"
    )
    found = f"import sys; sys.path.insert(0, {str(Path(child_process.__file__).parents[1])!r})\n"
    assert subprocess.run([sys.executable, "-I", "-c", found + code], check=False).returncode == 0


def test_its_error_is_raised_here() -> None:
    with pytest.raises(errors.NotEnoughDiskError) as caught:
        run(FULL)
    assert (caught.value.message, caught.value.hint) == ("the disk is full", "free some")


def test_want_of_memory_there_is_an_error_that_says_so() -> None:
    with pytest.raises(errors.NotEnoughMemoryError, match=r"^the system gives no more memory\b"):
        run("raise MemoryError")


def test_words_in_no_known_encoding_are_passed_over() -> None:
    assert run(r"sys.stdout.buffer.write(b'\xff\xfe\x81\n')")


def test_what_is_told_of_progress_may_fail_by_itself() -> None:
    """Such as a bar on a terminal that has gone: that is no want of a process."""

    def breaks(done: int, total: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run("child_process.tell(1, 2)", progress=breaks)


@needs_signals
def test_a_process_that_is_killed_ran_out_of_memory_and_one_that_crashes_did_not() -> None:
    with pytest.raises(errors.NotEnoughMemoryError) as killed:
        run("import os; os.kill(os.getpid(), 9)")
    assert killed.value.message == "a process that nomoat started was killed, as the system does where memory runs out"
    with pytest.raises(errors.WorkerError) as ended:
        run("import os; os.kill(os.getpid(), signal.SIGTERM)")
    assert ended.value.message == "a process that nomoat started crashed or was ended from outside (exit code -15)"


@needs_signals
def test_ctrl_c_is_for_who_waits_to_heed() -> None:
    """It goes to both; a server, or a program that notes it, may go on for a while. Before a process can ignore it, it just ends."""
    assert run("import os; os.kill(os.getpid(), signal.SIGINT)")
    assert not run("import os; signal.signal(signal.SIGINT, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGINT)")


WAITS = """
import sys
from pathlib import Path
from nomoat import child_process
endless = "import os\\nwhile True: child_process.tell(0, os.getpid())"
child_process.run(endless, home=Path(sys.argv[1]), progress=lambda done, process: print(process, flush=True))
"""

STARTS = """
import sys, time
from pathlib import Path
import psutil
from nomoat import child_process
child = child_process.Child("child_process.word()", home=Path(sys.argv[1]))
child.start()
print(psutil.Process().children()[0].pid, flush=True)
time.sleep(1000)
"""


@needs_signals
@pytest.mark.parametrize("code", [WAITS, STARTS])
def test_it_ends_with_who_waits_for_it(code: str, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as waits:
        assert waits.stdout is not None
        child = psutil.Process(int(waits.stdout.readline()))
        waits.send_signal(signal.SIGKILL)
        waits.stdout.read()

    def has_ended() -> bool:
        try:
            return bool(child.status() == psutil.STATUS_ZOMBIE)  # of a system whose first process looks after nobody
        except psutil.NoSuchProcess:
            return True

    wait_until(has_ended, "end")
