"""Architectures nomoat does not know, through optimum-intel where it is installed (`pip install '.[convert]'`)."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from reference import LLAMA_LIKE, our_logits, write_folder
from tiny import vocabulary, write_tiny_gguf

import nomoat
from nomoat import paths
from nomoat.bench.model import measure_model
from nomoat.config import Quality
from nomoat.engine import importer, layout, optimum
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.safetensors import SafetensorsFolder
from nomoat.engine.source import open_source
from nomoat.errors import UnsupportedError
from nomoat.records import Request
from nomoat.responder import memory_need
from nomoat.tune import prepare


@pytest.fixture
def olmo(tmp_path: Path) -> Path:
    """A tiny OLMo of 2024, a family that is none of ours."""
    torch.manual_seed(7)
    model = transformers.OlmoForCausalLM(transformers.OlmoConfig(vocab_size=len(vocabulary()), **LLAMA_LIKE))
    model.save_pretrained(tmp_path / "model")
    GGUFFile(write_tiny_gguf(tmp_path / "tiny.gguf")).read_tokenizer().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.skipif(not optimum.is_installed(), reason="needs optimum-intel: pip install '.[convert]'")
def test_an_unknown_architecture_answers_as_its_reference(olmo: Path) -> None:
    model = transformers.OlmoForCausalLM.from_pretrained(olmo).eval()
    rows = np.random.default_rng(5).integers(3, 250, (2, 40)).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(rows), use_cache=False).logits.numpy()
    ours = our_logits(importer.import_gguf(olmo), rows, cut_at=9)
    np.testing.assert_allclose(ours, expected, atol=0.1 * expected.std())  # it is rounded to int8, which the reference is not
    with nomoat.load(str(olmo)) as loaded:
        assert loaded.complete(Request(prompt="the hello", max_new_tokens=5)).usage.completion_tokens > 0


def test_without_the_extra_its_name_is_in_the_refusal(olmo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "is_installed", lambda: False)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(olmo)
    assert caught.value.message == "the architecture `olmo` is not one that nomoat can import"
    assert caught.value.hint is not None and caught.value.hint.endswith(
        "with the `convert` extra (`pip install '.[convert]'` in the checkout of nomoat, best into an environment of its own)"
    )


def test_sizes_that_are_no_whole_numbers_are_refused_as_a_folder_is_that_is_not_for_the_converter(
    olmo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimum, "is_installed", lambda: True)
    config = json.loads((olmo / "config.json").read_text())
    sizes = ("hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size", "max_position_embeddings")
    for key, value in itertools.product(sizes, ("abc", [4], {"all": 4}, math.inf)):
        (olmo / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(UnsupportedError, match="the architecture `olmo` is not one"):
            open_source(olmo)


@pytest.mark.skipif(importlib.util.find_spec("optimum") is not None, reason="optimum-intel is installed here")
def test_a_conversion_that_fails_gives_the_last_word_of_the_converter(olmo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "is_installed", lambda: True)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(olmo)
    assert caught.value.message == (
        "optimum-intel cannot convert the architecture `olmo` either: ModuleNotFoundError: No module named 'optimum'"
    )


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Llama that nomoat refuses, and a converter that writes what nomoat makes of the usual one."""
    _, folder = write_folder(tmp_path / "model", "llama")
    made = shutil.copytree(importer.import_gguf(folder), tmp_path / "made")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}))

    def export(self: optimum.ForeignFolder, target: Path) -> None:
        for file in made.glob("openvino_model.*"):
            shutil.copy(file, target)

    monkeypatch.setattr(optimum.ForeignFolder, "export", export)
    monkeypatch.setattr(optimum, "is_installed", lambda: True)
    return folder


@pytest.mark.parametrize("quality", ["small", "default", "high"])
def test_what_the_converter_writes_is_int8_rows_at_every_quality(variant: Path, quality: Quality) -> None:
    source = optimum.ForeignFolder(variant)
    assert source.require("general.architecture") == "llama"
    stored = layout.storage(source, source.sizes, quality)
    assert (stored.forms, stored.fused, stored.reason) == ({"": layout.ROWS}, False, "optimum-intel writes int8 rows")


def test_choosing_by_likelihood_takes_the_served_weights_of_what_was_converted_once_more(variant: Path) -> None:
    """And no float32, however much memory there is."""
    need = memory_need(optimum.ForeignFolder(variant), None)
    assert importer.fits_exactly(variant) is None
    assert need.scoring_bytes == need.weights_bytes > 0


def test_what_was_converted_is_not_taken_for_what_nomoat_makes_itself(variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a later version that knows the variant: of the same weights, and stored alike."""
    theirs = importer.import_gguf(variant, fused=False)
    shutil.rmtree(paths.cache() / "asked")
    known = SafetensorsFolder(write_folder(variant.parent / "known", "llama")[1])
    monkeypatch.setattr(importer, "open_source", lambda path: known)
    assert importer.import_gguf(variant, fused=False) != theirs


def test_what_was_converted_is_timed_without_limits_as_it_is_not_known_what_a_token_reads(variant: Path) -> None:
    speed = measure_model(str(variant))
    assert speed.prefill_tokens_per_second is not None
    assert speed.weights is None


def test_what_was_converted_cannot_be_tuned_and_what_can_is_named(variant: Path) -> None:
    with pytest.raises(UnsupportedError, match="runs here but cannot be tuned") as caught:
        prepare.opened(variant)
    named = str(caught.value.hint).removeprefix("known architectures can: ").split(", ")
    assert "qwen3" in named
    assert "qwen3moe" not in named


def test_what_was_converted_answers_where_the_converter_is_not_installed(variant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importer.import_gguf(variant)
    monkeypatch.setattr(optimum, "is_installed", lambda: False)
    with nomoat.load(str(variant)) as model:
        assert model.complete(Request(prompt="the hello", max_new_tokens=5)).usage.completion_tokens > 0
        assert len(model.score(Request(prompt="the"), [" he", " hello"])) == 2
