"""What every test stands on: an empty home of its own, and no way out of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NOMOAT_HOME in a temporary folder, offline, and without the settings of whoever runs the tests."""
    home = tmp_path / "home"
    for name in list(os.environ):
        if name.startswith("NOMOAT_") and name != "NOMOAT_MIRROR":
            monkeypatch.delenv(name)
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GOOGLE_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOMOAT_HOME", str(home))
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    return home
