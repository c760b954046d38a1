"""Work in another process: its memory goes with it, and Ctrl-C ends it at once."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from nomoat import system_errors
from nomoat.errors import NomoatError, NotEnoughMemoryError, WorkerError
from nomoat.progress import Progress

log = logging.getLogger("nomoat.child_process")
TOLD = re.compile(r"(\d+) (\d+)")
TOLD_ERROR = re.compile(r"nomoat's error (\S+)")
WITHIN = "NOMOAT_CHILD_PROCESS"  # set in such a process, which starts no other
BY_CTRL_C = (-2, 0xC000013A)  # the second on Windows: before it ignores that
BY_SIGKILL = -9
BY_WINDOWS = 0x80000000  # and above: a crash
# Told where this package lies. It ends by whoever waits for it, not by Ctrl-C, which that may survive.
SAME_PACKAGE = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from importlib import util
place = sys.argv.pop(1)
spec = util.spec_from_file_location("nomoat", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["nomoat"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["nomoat"])
from nomoat import child_process
sys.excepthook = child_process.tell_error
"""


def can_run() -> bool:
    """Whether one can be tried. Not where that would start this very program again: a frozen one, or one that has Python within."""
    return bool(sys.executable) and not getattr(sys, "frozen", False) and WITHIN not in os.environ


def run(code: str, *arguments: str, home: Path, progress: Progress | None = None) -> bool:
    """Let a `Child` run `code`; see there."""
    with Child(code, *arguments, home=home) as child:
        return child.run(progress=progress)


class Child:
    """Another process that runs `code` with this very package, whatever others its Python would find.

    `home` is its NOMOAT_HOME. It has ended where `run` has, and at the latest where the `with` block ends.
    """

    def __init__(self, code: str, *arguments: str, home: Path) -> None:
        flags = [flag for flag, is_set in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if is_set]
        # -P: what lies in the current folder is no module of ours
        self._command = [sys.executable, *flags, "-P", "-c", SAME_PACKAGE + code, str(Path(__file__).parent), *arguments]
        self._env = os.environ | {"NOMOAT_HOME": str(home), WITHIN: "1"}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self) -> None:
        """Let it begin with what it does before it asks for `word`, where such a process can be had. `run` does so at the latest."""
        if self._process is not None or not can_run():
            return
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        try:
            self._process = subprocess.Popen(self._command, **pipes, env=self._env, encoding="ascii", errors="replace")  # type: ignore[call-overload]
        except OSError as exc:
            log.info("no other process can be had: %s", exc)

    def run(self, given: str = "", *, progress: Progress | None = None) -> bool:
        """Whether it ran `code` to its end. `given`: a line of ASCII, which its `word` returns.

        If not, no such process can be had, or it failed in a way that nobody foresaw: the work is to be done, or to fail, in this one.
        `progress` is told (done, total) as `code` tells by `tell`.

        Raises what `code` raised, if that is a NomoatError or `system_errors.as_error` has one for it, NotEnoughMemoryError where the
        process was killed, WorkerError where it crashed or was ended by another signal, and what `progress` raises.
        """
        self.start()
        if (child := self._process) is None:
            return False
        assert child.stdin is not None and child.stdout is not None
        with suppress(OSError):  # it has ended: how, is seen below
            child.stdin.write(given + "\n")
            child.stdin.close()
        error: NomoatError | None = None
        try:
            for line in map(str.strip, child.stdout):
                if told := TOLD_ERROR.fullmatch(line):
                    with suppress(ValueError, EOFError, pickle.UnpicklingError):  # half a line, of one that was killed
                        error = pickle.loads(base64.b64decode(told[1]))
                elif progress is not None and (told := TOLD.fullmatch(line)):
                    progress(*map(int, told.groups()))
            ended = int(child.wait())
        finally:
            self._end()
        if error is not None:
            raise error
        if ended != 0:
            _require_own_end(ended)
            log.info("another process ended with exit code %d", ended)
        return ended == 0

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with self._process:
                with suppress(OSError):  # where Ctrl-C came as the word was said, Popen would say the rest to one that has ended
                    self._process.stdin.close()
                self._process.kill()
                self._process.wait()  # after Ctrl-C, Popen itself does so for a quarter of a second


def _require_own_end(ended: int) -> None:
    if ended == BY_SIGKILL:
        raise NotEnoughMemoryError(
            "a process that nomoat started was killed, as the system does where memory runs out", hint=system_errors.MEMORY_HINT
        )
    if (ended < 0 or ended >= BY_WINDOWS) and ended not in BY_CTRL_C:
        raise WorkerError(f"a process that nomoat started crashed or was ended from outside (exit code {ended})", hint="try again")


def word() -> str:
    """In such a process: what `Child.run` is given, once it is. Ends the process where nobody waits for it any more."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)
    return line.removesuffix("\n")


def tell(done: int, total: int) -> None:
    """To whoever waits for this process, see `Child.run`."""
    print(done, total, flush=True)


def tell_error(_kind: object, raised: BaseException, _traceback: object) -> None:
    """Its `sys.excepthook`: what ends this process is told, if it is an error that the user can understand."""
    error = system_errors.as_error(raised) if isinstance(raised, Exception) and not isinstance(raised, NomoatError) else raised
    if isinstance(error, NomoatError):
        print("nomoat's error", base64.b64encode(pickle.dumps(error)).decode(), flush=True)
