"""A user's shell, for the tests of the command line: `nomoat` as a process of its own, or within this one."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from patience import PATIENCE_SECONDS

from nomoat import cli

NOMOAT = str(Path(sys.executable).with_name("nomoat"))
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
IGNORED = "ignored by what runs the tests, as by nohup"

Done = subprocess.CompletedProcess[str]


def sending(*names: str) -> pytest.MarkDecorator:
    """For each of these signals, as `name`. Skipped are those that whatever runs the tests, and so what they start, ignores."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.skipif(is_ignored(name), reason=IGNORED)) for name in names]
    )


def is_ignored(name: str) -> bool:
    """Whether whatever runs the tests ignores this signal, or the system has none of the name, as Windows has no SIGHUP."""
    number = getattr(signal, name, None)
    return number is None or signal.getsignal(number) is signal.SIG_IGN


def program(*arguments: str, piped: bytes = b"", **environment: str) -> Done:
    """The program itself, without a terminal: for what its start, its end, its signals and its encoding do."""
    given = {**os.environ, **environment}
    done = subprocess.run([NOMOAT, *arguments], input=piped, capture_output=True, timeout=PATIENCE_SECONDS, check=False, env=given)
    return subprocess.CompletedProcess(done.args, done.returncode, _text(done.stdout), _text(done.stderr))


def nomoat(*arguments: str, piped: bytes = b"", **environment: str) -> Done:
    """What `program` gives, without a process that has to import everything: the same entry point, with streams of its own.

    An error that is a bug is raised, and no traceback printed. Not covered: what is written past Python's streams.
    """
    streams = [io.TextIOWrapper(io.BytesIO(given), encoding="utf-8") for given in (piped, b"", b"")]
    given = {"COLUMNS": "80", **os.environ, **environment}  # else the width of the terminal the tests run in
    patches = [mock.patch.object(sys, name, stream) for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True)]
    patches += [mock.patch.object(sys, "argv", [NOMOAT, *arguments]), mock.patch.dict(os.environ, given)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_state_of_a_process())
        for patch in patches:
            stack.enter_context(patch)
        code = _exit_code()
        printed = [_text(_bytes(stream)) for stream in streams[1:]]
    return subprocess.CompletedProcess([NOMOAT, *arguments], code, *printed)


def _text(written: bytes) -> str:
    """With ends of lines as elsewhere, where the system has its own."""
    return written.decode().replace(os.linesep, "\n")


def _exit_code() -> int:
    try:
        cli.main()
    except SystemExit as ended:
        assert ended.code is None or isinstance(ended.code, int)
        return ended.code or 0
    return 0


def _bytes(stream: io.TextIOWrapper) -> bytes:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@contextlib.contextmanager
def _state_of_a_process() -> Iterator[None]:
    """What the entry point sets for a whole process is set back."""
    handlers, hook, threshold, folder = [*map(signal.getsignal, SIGNALS)], sys.unraisablehook, gc.get_threshold(), Path.cwd()
    try:
        yield
    finally:
        os.chdir(folder)
        gc.set_threshold(*threshold)
        sys.unraisablehook = hook
        for number, handler in zip(SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
