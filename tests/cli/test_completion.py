"""What a shell is told at a press of Tab, by the words it sends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import shell


def completed(*words: str) -> list[str]:
    """What bash is offered for the last of these words."""
    asked = {"COMP_WORDS": " ".join(("nomoat", *words)), "COMP_CWORD": str(len(words)), "_NOMOAT_COMPLETE": "complete_bash"}
    done = shell.program(**asked)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.fixture
def home(empty_home: Path) -> Path:
    """With a pulled model, an adapter, and a suite."""
    for path in ("models/hf/owner/m/m.gguf", "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf", "suites/mine.toml"):
        (empty_home / path).parent.mkdir(parents=True, exist_ok=True)
        (empty_home / path).write_bytes(b"")
    adapter = empty_home / "adapters" / "reviews"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "provenance.json").write_text(json.dumps({"base": "smollm2-135m"}))
    return empty_home


@pytest.mark.usefixtures("home")
def test_models_adapters_suites_and_values_are_completed() -> None:
    assert completed("run", "sm") == ["smollm2-135m", "smollm2-135m+reviews"]
    assert completed("duel", "smollm2-135m", "h") == ["hf:owner/m/m.gguf"]
    assert completed("export", "") == ["smollm2-135m+reviews"]
    assert completed("pull", "smollm2-3") == ["smollm2-360m"]
    assert completed("eval", "smollm2-135m", "vader-n") == ["vader-news"]
    assert completed("duel", "a", "b", "--suite", "mi") == ["mine"]
    assert completed("suites", "rm", "") == ["mine"]
    assert completed("run", "--quality", "h") == ["high"]
    assert completed("run", "--template", "vic") == ["vicuna_v1.1"]
    assert completed("suites", "new", "x.csv", "--metric", "nu") == ["numeric"]
    assert completed("export", "a+b", "--form", "o") == ["ollama"]


def test_an_adapter_that_is_broken_is_passed_over_and_nothing_is_said(home: Path) -> None:
    (home / "adapters" / "reviews" / "provenance.json").write_text("{")
    assert completed("run", "sm") == ["smollm2-135m"]


def test_completing_a_model_imports_nothing_that_computes() -> None:
    code = "import sys; from nomoat.cli import completion as c; c.models_here(''); print({'numpy', 'openvino'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
