"""References: which files they mean, and whether there is memory for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny import write_adapter

from nomoat import footprint, hardware, responder
from nomoat.catalog import cards, pull
from nomoat.cli.show import show
from nomoat.engine import importer
from nomoat.engine.source import open_source
from nomoat.errors import BadFileError, NomoatError, NotEnoughMemoryError, UnknownModelError
from nomoat.hardware import Detected
from nomoat.records import Request


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


@pytest.mark.parametrize("ref", ["smollm2-135m", "smollm2-135m+mine"])
def test_a_folder_of_other_things_does_not_hide_a_card_of_its_name(
    ref: str, tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cards.card("smollm2-135m").sources[0]
    pulled = empty_home / "models" / "smollm2-135m" / source.file_name
    pulled.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, pulled)
    adapter = write_adapter(empty_home / "adapters" / "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ref).mkdir()
    found = responder.find_files(ref)
    assert (found.weights, found.adapter) == (pulled, adapter if "+" in ref else None)
    (tmp_path / ref / "config.json").write_text("{}")
    assert responder.find_files(ref).weights == Path(ref)


def test_a_model_pulled_from_any_server_is_used_by_its_address(tiny_gguf: Path, empty_home: Path) -> None:
    ref = "https://host/models/tiny.gguf"
    with pytest.raises(UnknownModelError) as missing:
        responder.load(ref)
    assert (missing.value.message, missing.value.hint) == (f"`{ref}` is not on this machine yet", f"nomoat pull {ref}")
    pulled = empty_home / "models" / "https" / "host" / "models" / "tiny.gguf"
    pulled.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, pulled)
    adapter = write_adapter(empty_home / "adapters" / "mine")
    assert [model.ref for model in pull.installed()] == [ref]
    assert responder.names_weights(ref) and responder.groups([ref, f"{ref}+mine"]) == [[ref, f"{ref}+mine"]]
    assert responder.find_files(f"{ref}+mine") == responder.LocalFiles(name=ref, weights=pulled, adapter=adapter)
    with responder.load(ref, context_tokens=64) as model:
        assert (model.name, model.is_local) == (ref, True)
        assert model.complete(Request(prompt="moat", max_new_tokens=2)).usage.completion_tokens == 2


def test_a_file_named_like_a_card_is_that_file(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_gguf, "smollm2-135m")
    assert responder.find_files("smollm2-135m").weights == Path("smollm2-135m")


def test_a_provenance_of_endless_brackets_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("[" * 100_000)
    with pytest.raises(BadFileError) as caught:
        responder.provenance_of(tmp_path)
    assert caught.value.message.startswith(f"`{tmp_path / 'provenance.json'}` cannot be read")
    assert caught.value.hint == "tune the adapter again"


@pytest.mark.parametrize("ref", ["gpt-4", "palm2", "opt-125m", "hf:owner", "nothing"])
def test_what_cannot_be_had_is_refused_in_the_words_of_pull(ref: str) -> None:
    with pytest.raises(NomoatError) as pulled:
        pull.pull_model(ref)
    with pytest.raises(NomoatError) as loaded:
        responder.load(ref)
    assert (type(loaded.value), loaded.value.message, loaded.value.hint) == (
        type(pulled.value),
        pulled.value.message,
        pulled.value.hint,
    )
