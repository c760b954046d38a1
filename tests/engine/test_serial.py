"""Answers of models whose attention cannot be paged, on a tiny Gemma 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import CASES, EXACT, WINDOW, make_model, write_gguf

from nomoat.engine import importer
from nomoat.engine.openvino import OpenVINOEngine
from nomoat.engine.serial import Serial
from nomoat.records import Completion, Request
from nomoat.responder import Responder


@pytest.fixture(scope="module")
def gemma2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The reference and its file."""
    model = make_model(CASES["gemma2"])
    return model, write_gguf(tmp_path_factory.mktemp("gemma2") / "gemma2.gguf", CASES["gemma2"], model)


@pytest.fixture
def engine(gemma2: tuple[Any, Path]) -> Iterator[OpenVINOEngine]:
    made = OpenVINOEngine(importer.import_gguf(gemma2[1]))
    yield made
    made.close()


def test_a_greedy_answer_is_the_reference_s_past_the_window(gemma2: tuple[Any, Path]) -> None:
    made = OpenVINOEngine(importer.import_gguf(gemma2[1]))
    serial = Serial(made._folder, EXACT)
    request = Request(prompt="", max_new_tokens=WINDOW)
    ids = list(range(3, 3 + 2 * WINDOW))
    answer = list(serial.submit(ids, request, WINDOW, replace(made.tokenizer.special, eos_id=1, stop_ids=(1,))))
    serial.close()
    assert len(answer) == WINDOW
    with torch.no_grad():
        logits = gemma2[0](input_ids=torch.tensor([ids + answer])).logits[0]
    for at, token in enumerate(answer):
        row = logits[len(ids) - 1 + at]
        assert float(row.max() - row[token]) < 1e-3


def test_the_engine_answers_and_says_why_it_ended(engine: OpenVINOEngine) -> None:
    responder = Responder("tiny", engine)
    request = Request(prompt="hello the", max_new_tokens=9)
    whole = list(engine._started_batcher().submit(engine.tokenizer.prompt_ids(request), request, 9, engine.tokenizer.special))
    completion = responder.complete(request)
    assert (completion.usage.completion_tokens, completion.finish_reason) == (9, "length")
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=(whole[4],))
    first = whole.index(whole[4]) + 1
    completion = responder.complete(request)
    assert (completion.usage.completion_tokens, completion.finish_reason) == (first, "stop")


def test_requests_at_the_same_time_are_answered_one_after_another_as_alone(engine: OpenVINOEngine) -> None:
    responder = Responder("tiny", engine)
    requests = [Request(prompt=f"the hello {n} he", max_new_tokens=5, temperature=0.9, seed=n) for n in range(4)]
    alone = [responder.complete(request).text for request in requests]
    together: dict[int, Completion] = dict(responder.complete_many(requests, concurrency=4))
    assert [together[n].text for n in range(4)] == alone


def test_a_closed_stream_frees_its_place(engine: OpenVINOEngine) -> None:
    stream = engine.generate(Request(prompt="the hello", max_new_tokens=200))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert Responder("tiny", engine).complete(Request(prompt="the", max_new_tokens=3)).usage.completion_tokens == 3


def test_closing_the_engine_ends_answers_under_way_and_waiting_with_an_error(engine: OpenVINOEngine) -> None:
    batcher = engine._started_batcher()
    request = Request(prompt="the hello", max_new_tokens=200)
    special = replace(engine.tokenizer.special, eos_id=1, stop_ids=(1,))
    both = [batcher.submit([5, 6, 7], request, 200, special) for _ in range(2)]
    next(iter(both[0]))
    engine.close()
    for tokens in both:
        with pytest.raises(RuntimeError, match="closed while it was answering"):
            list(tokens)


def test_settings_genai_refuses_are_an_error_and_the_next_request_is_answered(engine: OpenVINOEngine) -> None:
    batcher = engine._started_batcher()
    request = Request(prompt="the", max_new_tokens=3)
    with pytest.raises(RuntimeError):
        list(batcher.submit([5], request, 0, engine.tokenizer.special))
    assert list(batcher.submit([5], request, 3, engine.tokenizer.special))
