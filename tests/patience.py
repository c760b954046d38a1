"""How long tests wait for what is bound to come: a loaded machine may take its time, and only what is broken takes this long."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable

import httpx
import pytest

PATIENCE_SECONDS = 300.0


def wait_until(has_come: Callable[[], object], what: str = "it") -> None:
    """Return once `has_come()` is true; AssertionError if that takes longer than our patience."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not has_come():
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE_SECONDS:g} s"
        time.sleep(0.01)


def make_httpx_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plain `httpx.get` and the like, which give up after five seconds, wait as long as we do."""
    default = inspect.signature(httpx.Client).parameters["timeout"].default
    for name in ("connect", "read", "write", "pool"):
        monkeypatch.setattr(default, name, PATIENCE_SECONDS)
