"""Answers of models whose attention cannot be paged, on a tiny Gemma 2, and of any model where no attention can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import CASES, EXACT, WINDOW, make_model, write_gguf

from nomoat import hardware
from nomoat.engine import importer, layout
from nomoat.engine.local import LocalEngine
from nomoat.engine.paged import Inference, PagedModel
from nomoat.engine.serial import SerialModel
from nomoat.errors import StoppedError
from nomoat.records import Completion, Request
from nomoat.responder import Responder


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The reference and its file."""
    model = make_model(CASES["gemma2"])
    return model, write_gguf(tmp_path_factory.mktemp("gemma2") / "gemma2.gguf", CASES["gemma2"], model)


@pytest.fixture
def engine(gemma2: tuple[Any, Path]) -> Iterator[LocalEngine]:
    made = LocalEngine(importer.import_gguf(gemma2[1]))
    yield made
    made.close()


def test_a_greedy_answer_is_the_reference_s_past_the_window(
    gemma2: tuple[Any, Path], engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "layout", layout.Layout(dict(EXACT), {}))
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=(1,))
    ids = tuple(range(3, 3 + 2 * WINDOW))
    chunks = engine.generate(Request(prompt_ids=ids, max_new_tokens=WINDOW, top_logprobs=0))
    answer = [one.token_id for chunk in chunks for one in chunk.likelihoods]
    assert len(answer) == WINDOW
    with torch.no_grad():
        logits = gemma2[0](input_ids=torch.tensor([[*ids, *answer]])).logits[0]
    for at, token in enumerate(answer):
        row = logits[len(ids) - 1 + at]
        assert float(row.max() - row[token]) < 1e-3


def test_the_engine_answers_and_says_why_it_ended(engine: LocalEngine) -> None:
    responder = Responder("tiny", engine)
    request = Request(prompt="hello the", max_new_tokens=9, top_logprobs=0)
    whole = [one.token_id for chunk in engine.generate(request) for one in chunk.likelihoods]
    completion = responder.complete(request)
    assert (completion.usage.completion_tokens, completion.finish_reason) == (9, "length")
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=(whole[4],))
    first = whole.index(whole[4]) + 1
    completion = responder.complete(request)
    assert (completion.usage.completion_tokens, completion.finish_reason) == (first, "stop")


def test_requests_at_the_same_time_are_answered_one_after_another_as_alone(engine: LocalEngine) -> None:
    responder = Responder("tiny", engine)
    requests = [Request(prompt=f"the hello {n} he", max_new_tokens=5, temperature=0.9, seed=n) for n in range(4)]
    alone = [responder.complete(request).text for request in requests]
    together: dict[int, Completion] = dict(responder.complete_many(requests, concurrency=4))
    assert [together[n].text for n in range(4)] == alone


def test_a_closed_stream_frees_its_place(engine: LocalEngine) -> None:
    stream = engine.generate(Request(prompt="the hello", max_new_tokens=200))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert Responder("tiny", engine).complete(Request(prompt="the", max_new_tokens=3)).usage.completion_tokens == 3


def test_closing_the_engine_ends_answers_under_way_and_waiting_with_an_error(engine: LocalEngine) -> None:
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=(1,))
    both = [engine.generate(Request(prompt_ids=(5, 6, 7), max_new_tokens=200)) for _ in range(2)]
    next(iter(both[0]))
    engine.close()
    for chunks in both:
        with pytest.raises(StoppedError, match="closed while it was answering"):
            list(chunks)


def test_likelihoods_and_embeddings_are_those_of_the_reference(
    gemma2: tuple[Any, Path], engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "layout", layout.Layout(dict(EXACT), {}))
    ids = engine.tokenizer.encode("the hello world", add_bos=True)
    with torch.no_grad():
        told = gemma2[0](input_ids=torch.tensor([ids]), output_hidden_states=True)
    expected = told.logits[0].log_softmax(-1)
    for at, one in enumerate(engine.prompt_likelihoods(Request(prompt_ids=tuple(ids)))[1:]):
        assert one.log_probability == pytest.approx(float(expected[at, ids[at + 1]]), abs=1e-2)
    ours, theirs = engine.embed(["the hello world"])[0], told.hidden_states[-1][0].mean(0).numpy()
    assert float(ours @ theirs / (ours @ ours) ** 0.5 / (theirs @ theirs) ** 0.5) > 0.999


def test_a_cpu_without_avx2_answers_so_with_any_model_as_others_do(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = []
    for flags, kind in (
        (frozenset({"sse2", "avx2"}), PagedModel),
        (frozenset({"sse2"}), SerialModel),
        (frozenset({"neon"}), SerialModel),
    ):
        monkeypatch.setattr(hardware, "cpu_flags", lambda flags=flags: flags)
        engine = LocalEngine(importer.import_gguf(tiny_gguf))
        monkeypatch.setattr(engine, "layout", layout.Layout(dict(EXACT), {}))
        assert isinstance(engine._make_model(), kind)
        chunks = engine.generate(Request(prompt="hello the", max_new_tokens=12, top_logprobs=0))
        answers.append([one.token_id for chunk in chunks for one in chunk.likelihoods])
        engine.close()
    assert len(answers[0]) == 12
    assert answers[1] == answers[0] and answers[2] == answers[0]


def test_an_input_that_a_model_does_not_have_is_an_error_but_for_places() -> None:
    """Models that optimum-intel converts have those where they use them, and inputs with several names."""
    import openvino as ov
    from openvino import opset13 as op

    ids = op.parameter([-1, -1], np.int64)
    ids.output(0).set_names({"input_ids", "a", "z"})
    outputs = [op.convert(ids, "f32"), op.convert(op.add(ids, np.int64(1)), "f32")]
    inference = Inference(ov.Core().compile_model(ov.Model(outputs, [ids]), "CPU"))
    row = np.array([[3, 4]], np.int64)
    for name in ("input_ids", "a", "z"):
        logits, hidden = inference.run({name: row, "position_ids": row})
        assert (logits.tolist(), hidden.tolist()) == ([[3, 4]], [[4, 5]])
    with pytest.raises(KeyError, match="beam_idx"):
        inference.run({"input_ids": row, "beam_idx": row})
