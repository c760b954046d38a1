"""Whether llguidance makes a grammar ready within bounds: tried in a process of its own, which can be ended.

llguidance (1.9) has limits, but none for a text that several patterns have to hold of (work by the power of their number), nor for
`multipleOf` (by its value): a schema of 1 kB computes for hours and takes all memory, and a thread in it cannot be stopped.

Not covered: processor time on Windows, where a grammar has WALL_SECONDS, and programs that can start no such process
(`child_process.can_run`), where every grammar is taken.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

from nomoat import child_process, net
from nomoat.errors import SchemaError

CPU_SECONDS = 3  # what schemas in use need is some thousandths; with it, memory has a bound of some 400 MB
WALL_SECONDS = 60.0
MAX_KEPT = 1000  # digests of grammars that were tried
TRY = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
except ImportError:
    pass
sys.path.insert(0, sys.argv[1])
from llguidance import LLMatcher, LLTokenizer
LLMatcher(LLTokenizer("byte"), sys.stdin.read(), log_level=0)
"""

_lock = threading.Lock()  # one is tried at a time, so that many of them take one core
_tried: dict[bytes, bool] = {}  # whether it ended, by digest


def require_short(grammar: str) -> None:
    """Raise SchemaError for a grammar that takes too long to be made ready. It may name no tokens.

    Raises RemoteError, soon, where whoever asks has left (`net.asking_for`).
    """
    digest = hashlib.sha256(grammar.encode()).digest()
    while not _lock.acquire(timeout=net.HEARTBEAT_SECONDS):
        net.require_asker()
    try:
        if digest not in _tried:
            if len(_tried) >= MAX_KEPT:
                _tried.clear()
            _tried[digest] = _ends(grammar)
        if not _tried[digest]:
            raise SchemaError(
                "this JSON schema cannot be followed: what its patterns, or `multipleOf`, allow takes too long to work out",
                hint="leave out `pattern`s that hold of the same text, or a large `multipleOf`, and check the answer",
                is_unsupported=True,
            )
    finally:
        _lock.release()


def _ends(grammar: str) -> bool:
    """Whether trying it ends by itself, with whatever result; also where it cannot be tried."""
    import llguidance

    if not child_process.can_run():
        return True
    packages = Path(llguidance.__file__).parent.parent
    command = [sys.executable, "-I", "-S", "-c", TRY, str(packages), str(CPU_SECONDS)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, stdin=subprocess.PIPE, encoding="utf-8", **quiet) as trial:  # type: ignore[call-overload]
        given: str | None = grammar
        until = time.monotonic() + WALL_SECONDS
        try:
            while time.monotonic() < until:
                net.require_asker()
                try:
                    trial.communicate(given, timeout=net.HEARTBEAT_SECONDS)
                except subprocess.TimeoutExpired:
                    given = None  # what is left of it is sent by the next call
                else:
                    return bool(trial.returncode >= 0)
        finally:
            trial.kill()
    return False
