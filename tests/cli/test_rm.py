"""`nomoat rm`, as a user's shell sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Nomoat = Callable[..., subprocess.CompletedProcess[str]]


def test_rm_removes_an_adapter_and_nothing_else(empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]) -> None:
    tuned("own")
    (empty_home / "adapters" / "other").mkdir()
    assert nomoat("rm", "openllama-3b+후기").stderr == "openllama-3b+후기: removed\n"
    assert [path.name for path in (empty_home / "adapters").iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("ref", "error", "hint"),
    [
        ("smollm2-135m", "no model called `smollm2-135m` is pulled", "nothing is pulled yet"),
        ("openllama-3b+..", "no adapter is called `..`", "adapters lie in NOMOAT_HOME/adapters"),
    ],
)
def test_rm_of_what_is_not_there_removes_nothing(ref: str, error: str, hint: str, empty_home: Path, nomoat: Nomoat) -> None:
    (empty_home / "adapters" / "kept").mkdir(parents=True)
    done = nomoat("rm", ref)
    assert (done.returncode, done.stderr) == (1, f"error: {error}\nhint: {hint}\n")
    assert (empty_home / "adapters" / "kept").is_dir()
