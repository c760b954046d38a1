"""Whether there is memory for what a reference means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nomoat import footprint, hardware, responder
from nomoat.cli.show import show
from nomoat.engine import importer
from nomoat.engine.source import open_source
from nomoat.errors import NotEnoughMemoryError
from nomoat.hardware import Detected


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX and much memory, where no model is too small for a second form for prompts."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "amx_bf16"}))
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: Detected(64 * 10**9, "memory of the machine"))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)


@pytest.mark.usefixtures("amx")
def test_show_counts_no_second_form_of_a_file_that_keeps_its_codes(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(str(tiny_gguf), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["layout"]["forms"] == {"": ["tiles", 0]}
    assert (facts["layout"]["prompts"]["value"], facts["memory"]["prompts_bytes"]) == ("codes", 0)


@pytest.mark.usefixtures("amx")
def test_a_model_in_its_own_codes_is_loaded_where_there_is_room_for_one_form(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = responder.memory_need(str(tiny_gguf), 64)
    assert found is not None
    need = found.total_bytes
    check = responder._memory_check("tiny", 64)
    source = open_source(tiny_gguf)
    stored, _ = importer.planned(source)
    told = importer.read_sizes(source), source.num_values, stored.bytes_of(source), stored.has_tiles
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need, "free"))
    check(*told)
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need - 1, "free"))
    with pytest.raises(NotEnoughMemoryError, match=r"`tiny` needs about 0\.4 GB of memory at a context of 64 tokens"):
        check(*told)
