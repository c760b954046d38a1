"""Work in another process: its memory goes with it, and Ctrl-C ends it at once."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nomoat import system_errors
from nomoat.errors import NomoatError, NotEnoughMemoryError, WorkerError

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
    """Whether `run` can be tried. Not where that would start this very program again: a frozen one, or one that has Python within."""
    return bool(sys.executable) and not getattr(sys, "frozen", False) and WITHIN not in os.environ


def run(code: str, *arguments: str, home: Path, progress: Callable[[int, int], None] | None = None) -> bool:
    """Whether another process ran `code` to its end, with this very package, whatever others its Python would find.

    If not, no such process can be had, or it failed in a way that nobody foresaw: the work is to be done, or to fail, in this one.
    `home` is its NOMOAT_HOME. `progress` is told (done, total) as `code` tells by `tell`.

    Raises what `code` raised, if that is a NomoatError or `system_errors.as_error` has one for it, NotEnoughMemoryError where the
    process was killed, WorkerError where it crashed or was ended by another signal, and what `progress` raises.
    """
    if not can_run():
        return False
    flags = [flag for flag, is_set in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if is_set]
    # -P: what lies in the current folder is no module of ours
    command = [sys.executable, *flags, "-P", "-c", SAME_PACKAGE + code, str(Path(__file__).parent), *arguments]
    env = os.environ | {"NOMOAT_HOME": str(home), WITHIN: "1"}
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env}
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="ascii", errors="replace", **quiet)  # type: ignore[call-overload]
    except OSError as exc:
        log.info("no other process can be had: %s", exc)
        return False
    error: NomoatError | None = None
    with child:
        try:
            for line in map(str.strip, child.stdout):
                if told := TOLD_ERROR.fullmatch(line):
                    with suppress(ValueError, EOFError, pickle.UnpicklingError):  # half a line, of one that was killed
                        error = pickle.loads(base64.b64decode(told[1]))
                elif progress is not None and (told := TOLD.fullmatch(line)):
                    progress(*map(int, told.groups()))
            ended = int(child.wait())
        finally:
            child.kill()
            child.wait()  # after Ctrl-C, Popen itself does so for a quarter of a second
    if error is not None:
        raise error
    if ended != 0:
        _require_own_end(ended)
        log.info("another process ended with exit code %d", ended)
    return ended == 0


def _require_own_end(ended: int) -> None:
    if ended == BY_SIGKILL:
        raise NotEnoughMemoryError(
            "a process that nomoat started was killed, as the system does where memory runs out", hint=system_errors.MEMORY_HINT
        )
    if (ended < 0 or ended >= BY_WINDOWS) and ended not in BY_CTRL_C:
        raise WorkerError(f"a process that nomoat started crashed or was ended from outside (exit code {ended})", hint="try again")


def tell(done: int, total: int) -> None:
    """To whoever waits for this process, see `run`."""
    print(done, total, flush=True)


def tell_error(_kind: object, raised: BaseException, _traceback: object) -> None:
    """Its `sys.excepthook`: what ends this process is told, if it is an error that the user can understand."""
    error = system_errors.as_error(raised) if isinstance(raised, Exception) and not isinstance(raised, NomoatError) else raised
    if isinstance(error, NomoatError):
        print("nomoat's error", base64.b64encode(pickle.dumps(error)).decode(), flush=True)
