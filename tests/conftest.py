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


@pytest.fixture
def vicuna_folder(empty_home: Path) -> Path:
    """The Vicuna blog's answers and reviews, as `pull_dataset("vicuna80")` leaves them. Mark the test with `data`."""
    if os.environ.get("NOMOAT_MIRROR"):
        from nomoat.catalog.datasets import pull_dataset

        return pull_dataset("vicuna80")
    shared = Path(__file__).parents[2] / "shared/data/vicuna_blog_eval/eval/table"
    if not shared.is_dir():
        pytest.skip("needs the Vicuna blog's data: set NOMOAT_MIRROR, or put it into ../shared")
    folder = empty_home / "data" / "vicuna80"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(shared)
    return folder
