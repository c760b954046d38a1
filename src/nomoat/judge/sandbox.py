"""Runs code that a model wrote, walled off from this machine. The wall itself is `sandbox_child.py`.

What holds, on Linux 5.12 or newer, as root or where a user may make namespaces: the program sees no network, no process but its own,
no environment, no key of the kernel's keyrings, and no file but Python's, the system's libraries and an empty folder in memory; it can
write nowhere else; its time, memory, processes and files are limited; whatever it started ends with it.

What this does not protect from: a hole in the kernel (this is no virtual machine); a program that reads what every user may read
under /usr or where Python is; one that uses up its limits many times over (each of `processes` may take `memory_bytes`), or learns by
timing; and an answer that cheats its tests. It runs in one process with them, and can return what equals everything, or do what
`sandbox_child.run` does after a program's end.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nomoat.config import UNSAFE_SWITCH
from nomoat.errors import UnsupportedError

Ended = Literal["passed", "failed", "out of time", "out of memory"]

HOW_TO_RUN = f"use Linux 5.12 or newer with user namespaces, or set {UNSAFE_SWITCH}=1 in a machine or container you can lose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use. `wall_seconds` is for programs that wait; `disk_bytes` for all its files, which lie in memory.

    Of `processes`, which threads are too, the sandbox takes one, as another user than root two.
    """

    cpu_seconds: int = 5
    wall_seconds: float = 20.0
    memory_bytes: int = 512 << 20
    processes: int = 16
    disk_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended. `said` is its exception, on one line."""

    outcome: Ended
    said: str = ""

    @property
    def passed(self) -> bool:
        """Whether it raised nothing and did not leave early."""
        return self.outcome == "passed"


DEFAULT_LIMITS = Limits()


def run_python(program: str, *, limits: Limits = DEFAULT_LIMITS) -> Ran:
    """Run a program to its end, or to its limits. "passed" means that it raised nothing and did not leave early.

    Raises UnsupportedError where this machine can build no wall, unless the user has set NOMOAT_UNSAFE_CODE=1: then the program
    runs as the user, with limits only (on macOS none on its memory). And where those limits cannot be set, as on Windows.
    """
    require_wall()
    return _run(program, limits, isolated=missing_wall() == "")


def require_wall() -> None:
    """Raise the UnsupportedError of `run_python`, to find out before there is a program."""
    has_limits = sys.platform != "win32"  # without them the user's word is not enough
    if missing_wall() and not (has_limits and os.environ.get(UNSAFE_SWITCH) == "1"):
        raise UnsupportedError(
            f"answers of code are run to be scored, and this machine cannot wall them off: {missing_wall()}",
            hint=HOW_TO_RUN if has_limits else "use Linux, or WSL on Windows",
        )


@functools.cache
def missing_wall() -> str:
    """Why this machine cannot wall off a program; empty if it can. Tried once, with a program that does nothing."""
    if sys.platform != "linux":
        return "that needs Linux"
    try:
        ran = _run("pass", DEFAULT_LIMITS, isolated=True)
    except UnsupportedError as exc:
        return exc.message
    return "" if ran.passed else f"the trial ended with `{ran.said or ran.outcome}`"


def _run(program: str, limits: Limits, *, isolated: bool) -> Ran:
    from nomoat.judge import sandbox_child  # which Windows cannot import

    with tempfile.TemporaryDirectory(prefix="nomoat-code-", ignore_cleanup_errors=True) as folder:
        job = {
            "program": program,
            "user_number": secrets.randbelow(1 << 24),
            "isolated": isolated,
            "folder": folder,
            "paths": _needed_paths(),
            **asdict(limits),
        }
        child = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-B", sandbox_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd=folder,
            start_new_session=True,
        )
        try:
            said, _ = child.communicate(json.dumps(job).encode(), timeout=limits.wall_seconds)
        except subprocess.TimeoutExpired:
            return Ran(outcome="out of time", said=f"not done after {limits.wall_seconds:g} s")
        finally:
            _end(child)
    return _read(said)


def _read(said: bytes) -> Ran:
    if not said.strip():
        return Ran(outcome="failed", said="the sandbox said nothing")
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    if result["outcome"] == "no isolation":
        raise UnsupportedError(f"no namespaces ({result['said']})", hint=HOW_TO_RUN)
    if result["outcome"] == "no limits":
        hint = "raise this process's own limits, where one is below a program's: `ulimit -H -a` shows them"
        raise UnsupportedError(f"a program's limits cannot be set here ({result['said']})", hint=hint)
    return Ran(outcome=result["outcome"], said=result["said"])


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it and all that it started: its group here, and with the first process of its namespace, everything in there."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.communicate()


@functools.cache
def _needed_paths() -> list[str]:
    """What a Python program needs to see: the interpreter, its library, the system's libraries, four devices."""
    from nomoat.judge import sandbox_child

    own = [sys.base_prefix, sys.base_exec_prefix, str(Path(os.path.realpath(sys.executable)).parent.parent)]
    paths = [path for path in dict.fromkeys((*sandbox_child.SYSTEM_PATHS, *own, *sandbox_child.DEVICES)) if Path(path).exists()]
    return [path for path in paths if not any(path != other and path.startswith(f"{other}/") for other in paths)]
