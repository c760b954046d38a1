"""A few hundred damaged files of the 20,000 that `benchmarks/fuzz_gguf.py` makes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_gguf.py"


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("fuzz_gguf", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_gguf", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.exists(), reason="needs the repository's benchmarks folder")
@pytest.mark.skipif(sys.platform != "linux", reason="its memory limits are Linux's")
def test_damaged_files_end_in_a_clear_error_or_in_a_model(fuzzing: ModuleType) -> None:
    facts, findings = fuzzing.fuzz(first=0, count=300, seed=2)
    assert findings == []
    assert sum(count for outcome, count in facts["outcomes"].items() if outcome.endswith("refused")) > 150
