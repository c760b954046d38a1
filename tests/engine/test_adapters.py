"""Adapters beside the weights: each text is read with its own, and with no other's."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import model_of_gguf
from tiny import ADAPTED, WIDTH, write_adapter

from nomoat.engine import Engine, Reader, importer, layout
from nomoat.engine.likelihood import Scorer
from nomoat.engine.local import LocalEngine
from nomoat.engine.lora import LoraDelta
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.records import Message, Request
from nomoat.responder import Responder

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two adapters of different ranks, the second on some of the first one's layers."""
    return [
        write_adapter(tmp_path / "a", seed=1, rank=4),
        write_adapter(tmp_path / "b", seed=2, rank=3, parts={"mlp.down_proj": ADAPTED["mlp.down_proj"]}),
    ]


@pytest.fixture
def engine(tiny_gguf: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    monkeypatch.setattr(layout, "choose", lambda *args, **kwargs: layout.Layout(dict(EXACT), {}))
    made = LocalEngine(importer.import_gguf(tiny_gguf, fused=False), beside=folders)
    yield made
    made.close()


def expected(path: Path, adapter: Path | None, ids: list[int]) -> list[float]:
    """Log-probabilities of tokens after those before them, of the reference with the adapter added to its weights."""
    model = model_of_gguf(path)
    if adapter is not None:
        weights = dict(model.named_parameters())
        with torch.no_grad():
            delta = LoraDelta(adapter)
            for name in delta.layers:
                a_RI, b_OR = delta.scaled(name) or (np.zeros(0), np.zeros(0))
                weights[f"{name}.weight"] += torch.tensor(b_OR @ a_RI)
    with torch.no_grad():
        rows = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return [float(rows[at, token]) for at, token in enumerate(ids[1:])]


def told(engine: Engine, ids: list[int]) -> list[float | None]:
    assert isinstance(engine, Reader)
    return [one.log_probability for one in engine.prompt_likelihoods(Request(prompt_ids=tuple(ids)))[1:]]


def test_each_adapter_and_none_give_what_the_reference_gives(engine: LocalEngine, tiny_gguf: Path, folders: list[Path]) -> None:
    ids = engine.tokenizer.encode("the hello world, and hello the he")
    alone = told(engine, ids)
    assert alone == pytest.approx(expected(tiny_gguf, None, ids), abs=1e-3)
    for at, folder in enumerate(folders):
        found = told(engine.adapted(at), ids)
        assert found == pytest.approx(expected(tiny_gguf, folder, ids), abs=1e-3)
        assert np.abs(np.subtract(found, alone)).max() > 0.3  # type: ignore[arg-type]


def test_texts_with_different_adapters_share_passes_and_no_keys(engine: LocalEngine) -> None:
    """The same prompt, longer than a block of the cache, to all three at once and again."""
    engines = [engine, engine.adapted(0), engine.adapted(1)]
    request = Request(prompt="the hello world " * 9, max_new_tokens=20)
    alone = [Responder("x", one).complete(request).text for one in engines]
    streams = [one.generate(request) for one in engines * 2]
    texts = [""] * len(streams)
    for _ in range(30):
        for at, stream in enumerate(streams):
            texts[at] += "".join(chunk.text for chunk in [next(stream, None)] if chunk is not None)
    assert texts == alone * 2
    assert len(set(alone)) == 3


def test_an_answer_that_is_begun_goes_on_with_an_adapter_as_without(engine: LocalEngine) -> None:
    """The template ends in the same words either way."""
    talk = (Message(role="user", content="the hello"),)
    begun = Request(messages=talk, answer_start="the he", max_new_tokens=12)
    written = Request(prompt=engine.tokenizer.prompt_text(begun)[0], max_new_tokens=12)
    for one in (engine, engine.adapted(0)):
        assert Responder("x", one).complete(begun).text == Responder("x", one).complete(written).text
        assert one.count_tokens(begun) == one.count_tokens(written)


def test_the_digests_differ(engine: LocalEngine) -> None:
    assert len({engine.digest, engine.adapted(0).digest, engine.adapted(1).digest}) == 3


def test_embeddings_differ_and_likelihoods_of_continuations_are_refused(engine: LocalEngine) -> None:
    adapted = engine.adapted(0)
    assert isinstance(adapted, Reader)
    assert np.abs(adapted.embed(["the hello"]) - engine.embed(["the hello"])).max() > 0.05
    with pytest.raises(UnsupportedError, match="gives no likelihoods of continuations") as refused:
        adapted.score(Request(prompt="x"), [" he"])
    assert refused.value.hint


def test_one_model_for_likelihoods_of_continuations_is_held_at_a_time(
    engine: LocalEngine, tiny_gguf: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes up to a quarter of memory; who is asked by turns gets the same as before."""
    weighted = LocalEngine(engine._folder, weights=tiny_gguf, beside=folders)
    views = [weighted, weighted.adapted(0), weighted.adapted(1)]
    held: weakref.WeakSet[Scorer] = weakref.WeakSet()
    num_held: list[int] = []
    make = LocalEngine._make_scorer

    def counted(self: LocalEngine) -> Scorer:
        num_held.append(len(held))
        held.add(made := make(self))
        return made

    monkeypatch.setattr(LocalEngine, "_make_scorer", counted)
    scores = [view.score(Request(prompt="the hello"), [" he"]) for view in views * 2]
    assert scores[:3] == scores[3:] and len({one.log_probability for (one,) in scores}) == 3
    weighted.close()
    assert num_held == [0] * 6 and not held


def test_an_adapter_that_does_not_fit_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    base = importer.import_gguf(tiny_gguf, fused=False)
    strange = write_adapter(tmp_path / "strange", seed=1, rank=2, parts={"mlp.no_proj": (WIDTH, WIDTH)})
    large = write_adapter(tmp_path / "large", seed=1, rank=2, parts={"mlp.down_proj": (WIDTH, WIDTH)})
    for folder, message in (
        (strange, "an adapter changes the layer `model.layers.0.mlp.no_proj`, which this model does not have"),
        (
            large,
            f"`{large / 'adapter_model.safetensors'}` changes `model.layers.0.mlp.down_proj` as one of [64, 64], "
            "and the model's is [64, 128]",
        ),
    ):
        with pytest.raises(BadFileError) as caught:
            LocalEngine(base, beside=[folder]).generate(Request(prompt="x"))
        assert caught.value.message == message
