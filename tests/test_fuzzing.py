"""Two hundred each of the thousands of damaged models that `benchmarks/fuzz_gguf.py` and `benchmarks/fuzz_folders.py` make."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the repository's benchmarks folder")
@pytest.mark.skipif(sys.platform != "linux", reason="its memory limits are Linux's")
@pytest.mark.parametrize(("script", "fuzzer"), [("fuzz_gguf", "GGUF"), ("fuzz_folders", "FOLDERS")])
def test_damaged_models_end_in_a_clear_error_or_in_a_model(script: str, fuzzer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    fuzzing, made = importlib.import_module("fuzzing"), importlib.import_module(script)
    facts, findings = fuzzing.fuzz(getattr(made, fuzzer), first=0, count=200, seed=2)
    assert findings == []
    assert sum(count for outcome, count in facts["outcomes"].items() if outcome.endswith("refused")) > 100
