"""Architectures nomoat does not know, through optimum-intel where it is installed (`pip install 'nomoat[convert]'`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from reference import LLAMA_LIKE, our_logits
from tiny import vocabulary, write_tiny_gguf

import nomoat
from nomoat.engine import convert, importer
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import UnsupportedError
from nomoat.records import Request


@pytest.fixture
def stablelm(tmp_path: Path) -> Path:
    """A tiny StableLM, a family that is none of ours."""
    torch.manual_seed(7)
    model = transformers.StableLmForCausalLM(transformers.StableLmConfig(vocab_size=len(vocabulary()), **LLAMA_LIKE))
    model.save_pretrained(tmp_path / "model")
    GGUFFile(write_tiny_gguf(tmp_path / "tiny.gguf")).read_tokenizer().save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
@pytest.mark.skipif(not convert.is_installed(), reason="needs optimum-intel: pip install 'nomoat[convert]'")
def test_an_unknown_architecture_answers_as_its_reference(stablelm: Path) -> None:
    model = transformers.StableLmForCausalLM.from_pretrained(stablelm).eval()
    rows = np.random.default_rng(5).integers(3, 250, (2, 40)).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(rows), use_cache=False).logits.numpy()
    ours = our_logits(importer.import_gguf(stablelm), rows, cut_at=9)
    np.testing.assert_allclose(ours, expected, atol=0.1 * expected.std())  # it is rounded to int8, which the reference is not
    with nomoat.load(str(stablelm)) as loaded:
        assert loaded.complete(Request(prompt="the hello", max_new_tokens=5)).usage.completion_tokens > 0


def test_without_the_extra_its_name_is_in_the_refusal(stablelm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "is_installed", lambda: False)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(stablelm)
    assert caught.value.message == "the architecture `stablelm` is not one that nomoat can import"
    assert caught.value.hint is not None and caught.value.hint.endswith("`pip install 'nomoat[convert]'`")


@pytest.mark.skipif(importlib.util.find_spec("optimum") is not None, reason="optimum-intel is installed here")
def test_a_conversion_that_fails_gives_the_last_word_of_the_converter(stablelm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "is_installed", lambda: True)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(stablelm)
    assert caught.value.message == (
        "optimum-intel cannot convert the architecture `stablelm` either: ModuleNotFoundError: No module named 'optimum'"
    )
