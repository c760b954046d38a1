"""What tests write into a home, and find in its folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nomoat.route.policy import default_path


def write_policy(text: str) -> None:
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text(text, encoding="utf-8")


def be_at_home_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `~` stands for, whichever variable this system asks."""
    monkeypatch.setenv("USERPROFILE" if sys.platform == "win32" else "HOME", str(folder))


def names_in(folder: Path) -> list[str]:
    """Of all files and folders below it; none where it is not there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []
