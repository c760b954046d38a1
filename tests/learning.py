"""Trainings on a small table, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import nomoat
from nomoat.tune.loop import StageProgress
from nomoat.tune.prepare import Settings

COLUMNS: dict[str, Any] = {"input_column": "text", "label_column": "label"}
COLOURS = ("red", "green", "blue")


def write_table(path: Path, labels: Sequence[str] = COLOURS, texts: str = "xyz", *, num_rows: int = 90) -> Path:
    """Texts whose label their first letter tells."""
    rows = (f"{texts[n % len(labels)]} {n},{labels[n % len(labels)]}\n" for n in range(num_rows))
    path.write_text("text,label\n" + "".join(rows))
    return path


def tune(base: object, table: Path, name: str = "colours", *, settings: Settings | None = None, **options: Any) -> Path:
    return nomoat.tune(str(base), table, name=name, **COLUMNS, **asdict(settings or Settings()), **options)


def stopping_at(step: int) -> Callable[[StageProgress], None]:
    """Presses Ctrl-C at that step: an `on_progress`."""

    def stop(progress: StageProgress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return stop


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def facts_of(folder: Path) -> dict[str, Any]:
    """What is written about an adapter."""
    facts: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return facts
