"""One vector of a text: the mean of its last hidden states, or what the model's files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import model_of_gguf, write_folder
from tiny import write_tiny_gguf
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

import nomoat
from nomoat.engine import batching, importer
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.local import LocalEngine
from nomoat.engine.pooling import FIRST, LAST, MEAN, of_folder, of_metadata
from nomoat.engine.safetensors import model_files
from nomoat.errors import UnsupportedError

TEXTS = ["the hello", "world", "안녕 the hello " * 9]
SENTENCE = "sentence_transformers.models"


def said(folder: Path, pooling: Any, *more: str) -> Path:
    """What sentence-transformers writes beside a model."""
    modules = [{"idx": at, "path": "", "type": f"{SENTENCE}.{kind}"} for at, kind in enumerate(("Transformer", "Pooling", *more))]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True, parents=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def states(model: Any, ids: list[int]) -> Any:
    """The last hidden states of these tokens, [T, D]."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].numpy()


def cosine(ours: Any, theirs: Any) -> float:
    return float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))


@pytest.mark.parametrize(("kind", "at"), [(2, 0), (3, -1)])
@pytest.mark.parametrize("ends", [True, False])
def test_a_gguf_file_says_which_of_the_last_hidden_states_is_a_texts_vector(
    kind: int, at: int, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Qwen3-Embedding's does: of the token that ends a text, which is put behind it. Token ids are taken as they are."""
    path = write_tiny_gguf(tmp_path / "t.gguf", said={"llama.pooling_type": kind, "tokenizer.ggml.add_eos_token": ends})
    engine, model = LocalEngine(importer.import_gguf(path)), model_of_gguf(path)
    rows = [engine.tokenizer.encode(text, add_bos=True) + [2] * ends for text in TEXTS]
    for room in (2048, 16):  # whole, and in parts
        monkeypatch.setattr(batching, "PASS_TOKENS", room)
        vectors = engine.embed(TEXTS)
        for ours, ids in zip(vectors, rows, strict=True):
            assert cosine(ours, states(model, ids)[at]) > 0.998
        np.testing.assert_allclose(engine.embed(rows), vectors, atol=1e-3)
    engine.close()


def test_a_folder_says_it_and_its_tokenizer_what_stands_behind_a_text(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "llama")
    with nomoat.load(str(folder)) as plain:
        mean = plain.embed(TEXTS)
    said(folder, {"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "Normalize")
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    special = [("<|im_start|>", 1), ("<|endoftext|>", 0)]
    backend.post_processor = TemplateProcessing(single="<|im_start|> $A <|endoftext|>", special_tokens=special)
    backend.save(str(folder / "tokenizer.json"))
    with nomoat.load(str(folder)) as loaded:
        vectors, tokenizer = loaded.embed(TEXTS), loaded.engine.tokenizer
    assert (tokenizer.special.begin_ids, tokenizer.special.end_ids) == ((1,), (0,))
    for text, ours, before in zip(TEXTS, vectors, mean, strict=True):
        last = states(model, [1, *tokenizer.encode(text), 0])[-1]
        assert cosine(ours, last) > 0.998 > cosine(before, last)


def test_without_a_word_it_is_the_mean_and_other_kinds_are_named(tmp_path: Path) -> None:
    metadata = GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata
    found = [of_metadata({**metadata, "llama.pooling_type": kind}) for kind in (0, 1, 2, 3, 4, "last")]
    assert found == [MEAN, MEAN, FIRST, LAST, "pooling of the type 4", "pooling of the type 'last'"]
    assert of_metadata(metadata) == of_folder(tmp_path) == MEAN


@pytest.mark.parametrize(
    ("pooling", "found"),
    [
        ({}, MEAN),
        ({"pooling_mode_cls_token": True}, FIRST),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}, LAST),
        ({"embedding_dimension": 8, "pooling_mode": "lasttoken"}, LAST),
        ({"pooling_mode": ["mean"]}, MEAN),
        ({"pooling_mode_weightedmean_tokens": True}, "pooling by `weightedmean`"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True}, "pooling by `mean` and `lasttoken`"),
        ({"pooling_mode": 7}, "pooling by `7`"),
        ([], "a whole `1_Pooling/config.json`"),
    ],
)
def test_what_sentence_transformers_writes_is_read(pooling: Any, found: str, tmp_path: Path) -> None:
    assert of_folder(said(tmp_path, pooling)) == found


def test_a_module_more_or_a_damaged_list_of_them_is_named(tmp_path: Path) -> None:
    assert of_folder(said(tmp_path, {}, "Dense")) == "the module `Dense`"
    for damaged in ("{", "{}", "[1]"):
        (tmp_path / "modules.json").write_text(damaged)
        assert of_folder(tmp_path) == "a whole `modules.json`"
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"{SENTENCE}.Transformer"}]))
    assert of_folder(tmp_path) == MEAN


def test_a_model_of_another_kind_writes_and_refuses_to_embed(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf", said={"llama.pooling_type": 4})
    with nomoat.load(str(path)) as model:
        assert model.complete("hello").usage.completion_tokens > 0
        with pytest.raises(UnsupportedError, match="embeddings of this model need pooling of the type 4, which nomoat does not have"):
            model.embed(["hello"])


def test_a_folder_that_says_it_later_is_another_model(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    before, first = model_files(folder), importer.import_gguf(folder)
    said(folder, {"pooling_mode": "cls"})
    assert {path.name for path in model_files(folder)} == {*(path.name for path in before), "modules.json"}
    assert len(model_files(folder)) == len(before) + 2 and importer.import_gguf(folder) != first
