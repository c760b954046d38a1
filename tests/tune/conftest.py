"""What tests of trainings stand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import learning
import pytest
import torch

from nomoat import hardware, paths
from nomoat.tune import kernels


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """What trainings compute with, by one process for all: who uses it without `train` would compile it beside the others."""
    kernels.use_threads(torch.get_num_threads())


@pytest.fixture
def same_precision_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are in f32, whatever this machine multiplies fastest."""
    from nomoat.tune import qlora

    monkeypatch.setattr(qlora, "fastest_precision", lambda: hardware.Detected("float32", "set by the test"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return learning.write_table(tmp_path / "colours.csv")


@pytest.fixture(scope="module")
def trained() -> dict[str, Path]:
    return {}


@pytest.fixture
def uninterrupted(tiny_gguf: Path, table: Path, trained: dict[str, Path]) -> Callable[..., Path]:
    """Trainings that nothing interrupts, once for all tests of a file that ask for the same: by this process, or by `ray`."""

    def make(settings: object, *, ray: str | None = None) -> Path:
        key = f"{settings} {ray} {paths.sha256_of(table)}"
        if key not in trained:
            trained[key] = learning.tune(tiny_gguf, table, "whole-by-ray" if ray else "whole", settings=settings, ray=ray)
        return trained[key]

    return make


class BegunError(Exception):
    """Learning was to begin."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """What `nomoat.tune` raises in place of learning."""

    def learn(*_: object, **__: object) -> Path:
        raise BegunError

    monkeypatch.setattr("nomoat.tune.train.learn", learn)
    return BegunError
