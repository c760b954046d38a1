"""A hundred each of the thousands of damaged models that `benchmarks/fuzz_gguf.py` and `benchmarks/fuzz_folders.py` make."""

from __future__ import annotations

import importlib
import json
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import pytest

from nomoat.engine import tiles

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
pytestmark = [
    pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs the repository's benchmarks folder"),
    pytest.mark.skipif(sys.platform != "linux", reason="its memory limits are Linux's"),
]


@pytest.fixture
def fuzzing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("fuzzing")


@pytest.mark.slow
@pytest.mark.parametrize(("script", "fuzzer"), [("fuzz_gguf", "GGUF"), ("fuzz_folders", "FOLDERS")])
def test_damaged_models_end_in_a_clear_error_or_in_a_model(script: str, fuzzer: str, fuzzing: Any) -> None:
    facts, findings = fuzzing.fuzz(getattr(importlib.import_module(script), fuzzer), first=0, count=100, seed=2)
    assert findings == []
    assert sum(count for outcome, count in facts["outcomes"].items() if outcome.endswith("refused")) > 50


@pytest.mark.slow
def test_whole_models_are_answered_in_their_files_codes_by_odd_numbers(fuzzing: Any, tmp_path: Path) -> None:
    """All types that can be; only GPT-2 is left to OpenVINO, which multiplies by such codes of no file of 8 bits."""
    made = importlib.import_module("fuzz_gguf")
    kinds, in_codes = set(), set()
    for model in made.whole_models():
        fuzzing.write(tmp_path / "model", {model.name: model.write(), **model.beside})
        outcome, stored = fuzzing.try_model(made.GGUF.model(tmp_path / "model"), 1)
        assert outcome.startswith("answered") and stored > 0
        if outcome == "answered in its file's codes":
            in_codes.add(model.metadata.get("general.architecture"))
            kinds |= {gguf.GGMLQuantizationType(kind).name for _, kind, _ in model.tensors.values()}
    assert in_codes == {"llama", "qwen2", "gemma3", "phi3", "qwen3", "qwen3moe", "gpt-oss", None}  # None: of the second of two files
    assert tiles.BLOCKS.keys() <= kinds


def test_more_memory_than_four_times_the_files_twice_is_a_finding(
    fuzzing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = {0: [464_000, 0], 1: [470_000, 470_000], 2: [470_000, 0], 3: [470_000, 470_000]}
    stored = {3: 2_000}  # four times that, once its weights are read

    def tried(path: Path, number: int) -> tuple[str, int]:
        if not tracemalloc.is_tracing():
            return "answered", 0
        bytes(taken[number].pop(0))
        return "refused", stored.get(number, 0)

    monkeypatch.setattr(fuzzing, "try_model", tried)
    monkeypatch.setattr(fuzzing.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(fuzzing.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    files = {"a": bytes(50_000), "b": bytes(50_000)}
    told = {"script": "", "description": "", "cases": 4, "model": lambda folder: folder}
    fuzzer = fuzzing.Fuzzer(**told, whole=lambda: [files], damaged=lambda number, seed: ("bits", files))
    try:
        fuzzing.work(fuzzer, 0, 4, 1, tmp_path / "note")
    finally:
        tracemalloc.stop()
    *findings, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert [(row["case"], row["what"].split(maxsplit=1)[1]) for row in findings] == [(1, "bytes allocated for 100,000 bytes of files")]
    assert whole["outcomes"] == {"bits: refused": 4}
