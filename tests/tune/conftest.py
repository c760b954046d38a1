"""What tests of trainings stand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from learning import write_table

from nomoat import hardware


@pytest.fixture
def same_precision_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are in f32, whatever this machine multiplies fastest."""
    from nomoat.tune import qlora

    monkeypatch.setattr(qlora, "fastest_precision", lambda: hardware.Detected("float32", "set by the test"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "colours.csv")
