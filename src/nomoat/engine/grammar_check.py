"""Whether llguidance makes a grammar ready within bounds: tried in a process of its own, which can be ended.

llguidance (1.9) has limits, but none for a text that several patterns have to hold of (work by the power of their number), nor for
`multipleOf` (by its value): a schema of 1 kB computes for hours and takes all memory, and a thread in it cannot be stopped. Nor has it
one for its stack: a `$ref` to a `$ref` and so on, 1,000 times, or 50,000 names in `required`, end the process it runs in.

What crashes there is refused, too.

Not covered: processor time and memory on Windows, where a grammar has WALL_SECONDS; memory on macOS, which refuses so low a limit; and
where it cannot be tried: programs that can start no such process, or one that was ended from outside. Such a grammar is taken.
"""

from __future__ import annotations

import hashlib
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from nomoat import child_process, net
from nomoat.errors import SchemaError

log = logging.getLogger("nomoat.engine.grammar_check")
CPU_SECONDS = 3  # what schemas in use need is some thousandths, and 30 MB
MEMORY_BYTES = 1 << 30
STACK_BYTES = 1 << 20  # less than any thread has that answers: 2 MB and more
MOST_UNTRIED_PARTS = 1000  # values of a schema; the fewest that took 8 MB of stack were 4,000
WALL_SECONDS = 60.0
MAX_KEPT = 1000  # digests of grammars that were tried
TOO_MUCH = {-getattr(signal, name, signal.SIGABRT) for name in ("SIGXCPU", "SIGABRT", "SIGSEGV", "SIGBUS", "SIGILL")}
# The limit of processor time is told by SIGXCPU, if the hard one, SIGKILL, is higher; that of memory by SIGABRT, as Rust ends.
TRY = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
grammar = sys.stdin.buffer.read().decode()  # first of all: who sends it waits until it is read
try:
    import resource
except ImportError:
    pass
else:
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    seconds, memory, stack = map(int, sys.argv[2:])
    limits = {"CORE": 0, "CPU": seconds, "DATA": memory, "STACK": stack}
    for limited, value in ((getattr(resource, "RLIMIT_" + name), value) for name, value in limits.items()):
        try:
            resource.setrlimit(limited, (value, resource.getrlimit(limited)[1]))
        except (ValueError, OSError):  # the others hold
            pass
sys.path.append(sys.argv[1])
from llguidance import LLMatcher, LLTokenizer
try:
    LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
except ValueError:
    pass
except MemoryError:
    os.abort()
"""

_lock = threading.Lock()  # one is tried at a time, so that many of them take one core
_tried: dict[bytes, bool] = {}  # whether it is short, by digest


def may_take_long(schema: dict[str, Any]) -> bool:
    """Whether llguidance's own limits may not end it: several patterns may have to hold at once, of which a length is one,
    `multipleOf` has a state for each remainder, and many parts may stand in one another, or lead to one another.

    A `$ref` may name what else is no schema, such as a value: it is true of some that llguidance makes ready soon.
    """
    patterns: set[str] = set()
    others: set[str] = set()
    waiting: list[Any] = [schema]
    num_parts = 0
    while waiting:
        part = waiting.pop()
        num_parts += 1
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            if "multipleOf" in part:
                return True
            waiting += part.values()
            patterns |= {part["pattern"]} if isinstance(part.get("pattern"), str) else set()
            patterns |= set(part["patternProperties"]) if isinstance(part.get("patternProperties"), dict) else set()
            others |= {part["format"]} if isinstance(part.get("format"), str) else set()
            others |= {"minLength", "maxLength"}.intersection(part)
    return num_parts > MOST_UNTRIED_PARTS or (bool(patterns) and len(patterns) + len(others) > 1)


def require_short(grammar: str) -> None:
    """Raise SchemaError for a grammar that takes too long to be made ready. It may name no tokens.

    Raises RemoteError, soon, where whoever asks has left (`net.asking_for`).
    """
    digest = hashlib.sha256(grammar.encode()).digest()
    is_short = _tried.get(digest)
    if is_short is None:
        is_short = _try_in_turn(grammar, digest)
    if is_short is False:
        raise SchemaError(
            "this JSON schema cannot be followed: what its patterns, `multipleOf` or many parts allow takes too long to work out",
            hint="leave out `pattern`s that hold of the same text, a large `multipleOf`, and what is nested, refers on or is listed "
            "a thousand times, and check the answer",
            is_unsupported=True,
        )


def _try_in_turn(grammar: str, digest: bytes) -> bool | None:
    """See `_is_short`, whose result is kept."""
    while not _lock.acquire(timeout=net.HEARTBEAT_SECONDS):
        net.require_asker()
    try:
        is_short = _tried.get(digest)  # of another who asked for it meanwhile
        if is_short is None:
            is_short = _is_short(grammar)
            if len(_tried) >= MAX_KEPT:
                _tried.clear()
            if is_short is not None:
                _tried[digest] = is_short
        return is_short
    finally:
        _lock.release()


def _is_short(grammar: str) -> bool | None:
    """Whether trying it ends within bounds, with whatever result. None where it cannot be tried."""
    import llguidance

    if not child_process.can_run():
        return None
    packages = Path(llguidance.__file__).parent.parent
    command = [sys.executable, "-I", "-S", "-c", TRY, str(packages), *map(str, (CPU_SECONDS, MEMORY_BYTES, STACK_BYTES))]
    try:
        trial = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as exc:
        log.info("a JSON schema is taken untried: no other process can be had: %s", exc)
        return None
    with trial:
        until = time.monotonic() + WALL_SECONDS
        try:
            # Not by `communicate`, which sends the rest of a long one to nobody once its timeout is over.
            with suppress(OSError), cast(IO[bytes], trial.stdin) as given:  # it has ended; its exit code says more
                given.write(grammar.encode())
            while time.monotonic() < until:
                net.require_asker()
                with suppress(subprocess.TimeoutExpired):
                    return _told_by(trial.wait(timeout=net.HEARTBEAT_SECONDS))
        finally:
            trial.kill()
    return False


def _told_by(ended: int) -> bool | None:
    """What the exit code of a trial says of its grammar; see `_is_short`."""
    if ended == 0:
        return True
    if ended in TOO_MUCH or (ended >= child_process.BY_WINDOWS and ended not in child_process.BY_CTRL_C):
        return False
    log.info("a JSON schema is taken untried: the process that was to try it ended with exit code %d", ended)
    return None
