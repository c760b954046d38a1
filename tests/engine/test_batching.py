"""Many texts at once on a tiny model: what they share, what they must not, and what happens when room is short."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jsonschema
import llguidance
import numpy as np
import pytest
import torch
from patience import PATIENCE_SECONDS, wait_until
from reference import model_of_gguf

from nomoat import footprint, hardware
from nomoat.engine import batching, importer, layout
from nomoat.engine.line import Line
from nomoat.engine.local import LocalEngine
from nomoat.engine.lookup import Lookup
from nomoat.engine.paged import Row
from nomoat.engine.sampling import Sampler
from nomoat.engine.texts import Answer, Reading
from nomoat.errors import NotEnoughMemoryError, SchemaError, StoppedError, UsageError
from nomoat.hardware import Detected
from nomoat.records import Message, Request
from nomoat.responder import Responder

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "파랑"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.fixture
def engines(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[LocalEngine]]:
    """Computed in float32, so that the same tokens give the same logits in every pass."""
    exact = layout.Layout(dict(EXACT), {})
    monkeypatch.setattr(layout, "choose", lambda *args, **kwargs: exact)
    made: list[LocalEngine] = []

    def make() -> Iterator[LocalEngine]:
        while True:
            made.append(LocalEngine(importer.import_gguf(tiny_gguf)))
            yield made[-1]

    yield make()
    for engine in made:
        engine.close()


@pytest.fixture
def engine(engines: Iterator[LocalEngine]) -> LocalEngine:
    return next(engines)


def answer(engine: LocalEngine, request: Request) -> str:
    return Responder("tiny", engine).complete(request).text


def test_guesses_change_nothing_but_the_number_of_passes(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model soon repeats itself, so that guesses come and many are right."""
    requests = [Request(prompt=f"the hello {text}", max_new_tokens=120, **settings) for text in ("he", "world the", "x y z")
                for settings in ({}, {"repetition_penalty": 1.1}, {"temperature": 0.4, "seed": 3})]  # type: ignore[arg-type]  # fmt: skip
    passes = []
    answers = []
    for guessed in (0, 16):
        monkeypatch.setattr(batching, "GUESSED_TOKENS", guessed)
        batcher = engine._started_batcher()
        run, count = batcher._model.run, 0

        def counted(rows: object, run: object = run) -> object:
            nonlocal count
            count += 1
            return run(rows)  # type: ignore[operator]

        monkeypatch.setattr(batcher._model, "run", counted)
        answers.append([answer(engine, request) for request in requests])
        monkeypatch.setattr(batcher._model, "run", run)
        passes.append(count)
    assert answers[0] == answers[1]
    assert passes[1] < 0.9 * passes[0]


def test_a_seed_gives_the_same_answer_alone_and_among_others(engine: LocalEngine) -> None:
    requests = [Request(prompt=f"the {seed}", max_new_tokens=20, temperature=1.3, top_p=0.9, seed=seed) for seed in range(9)]
    alone = [answer(engine, request) for request in requests]
    together = dict(Responder("tiny", engine).complete_many(requests, concurrency=9))
    assert [together[at].text for at in range(9)] == alone
    assert len(set(alone)) == 9


def test_when_the_cache_is_full_texts_wait_and_lose_nothing(
    engines: Iterator[LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    requests = [Request(prompt=f"{n} the hello world", max_new_tokens=100) for n in range(12)]
    roomy, engine = next(engines), next(engines)
    alone = [answer(roomy, request) for request in requests]
    monkeypatch.setattr(batching, "_num_blocks", lambda *asked: 9)
    together = dict(Responder("tiny", engine).complete_many(requests, concurrency=12))
    assert [together[at].text for at in range(12)] == alone
    assert engine._started_batcher()._pool.num_free == 9


def test_blocks_of_ended_and_cancelled_answers_come_back(engine: LocalEngine) -> None:
    batcher = engine._started_batcher()
    for _ in range(3):
        stream = engine.generate(Request(prompt="the hello" * 12, max_new_tokens=100))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        answer(engine, Request(prompt="hello", max_new_tokens=5))
    assert batcher._pool.num_free == batcher._pool.num_blocks


class Panic(BaseException):
    """As Rust's, which is no Exception."""


@pytest.mark.parametrize("error", [ArithmeticError, Panic])
def test_one_requests_failure_is_nobody_elses(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    good, bad = (
        Request(prompt="the hello", max_new_tokens=40),
        Request(prompt="the hello", max_new_tokens=40, temperature=0.5, seed=13),
    )
    expected = answer(engine, good)
    draw = Sampler._draw

    def fails(self: Sampler, *logits: object) -> int:
        if self._request.seed == 13 and self._random.random() < 2:
            raise error("meant")
        return draw(self, *logits)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "_draw", fails)
    stream = engine.generate(good)
    begun = next(stream).text
    with pytest.raises(error, match="meant"):
        answer(engine, bad)
    assert begun + "".join(chunk.text for chunk in stream) == expected
    assert answer(engine, good) == expected


def test_every_answer_follows_its_schema(engine: LocalEngine) -> None:
    """Of a model of random weights, at a high temperature: nothing but the grammar makes this JSON."""
    schema = json.dumps(SCHEMA)
    requests = [
        Request(prompt=f"hello {seed}", max_new_tokens=200, temperature=1.5, seed=seed, json_schema=schema) for seed in range(50)
    ]
    for _, completion in Responder("tiny", engine).complete_many(requests):
        assert completion.finish_reason == "stop"
        jsonschema.validate(json.loads(completion.text), SCHEMA)


def test_one_of_several_schemas_is_followed_as_any_of_them(engine: LocalEngine) -> None:
    """As pydantic writes a discriminated union; whether exactly one branch fits is not known while the answer is written."""
    shape = {"type": "object", "required": ["n"], "additionalProperties": False}
    kinds = {
        name: {**shape, "properties": {"kind": {"const": name, "default": name}, "n": {"enum": [1, 2]}}} for name in ("cat", "dog")
    }
    schema = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}], "$defs": kinds}
    text = answer(engine, Request(prompt="the", max_new_tokens=200, json_schema=json.dumps(schema)))
    jsonschema.validate(json.loads(text), {**schema, "anyOf": schema["oneOf"], "oneOf": [{}]})


def test_formats_nobody_can_hold_an_answer_to_are_remarks_and_the_others_are_followed(engine: LocalEngine) -> None:
    """As pydantic writes `pathlib.Path` and `bytes`. What only looks like a `format` stays: a property's name, a constant's part."""
    file = {"anyOf": [{"type": "string", "format": "binary", "maxLength": 3}, {"type": "null"}]}
    properties = {
        "format": {"type": "string", "format": "path", "maxLength": 3}, "day": {"type": "string", "format": "date"},
        "file": {"$ref": "#/$defs/file"}, "kind": {"const": {"format": "path"}},
    }  # fmt: skip
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    text = answer(engine, Request(prompt="the", max_new_tokens=200, json_schema=json.dumps({**schema, "$defs": {"file": file}})))
    jsonschema.validate(json.loads(text), {**schema, "$defs": {"file": file}}, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array", "uniqueItems": True}, "`uniqueItems` cannot be held to while an answer is written"),
        ({"if": {}, "then": {}}, "`if`, `then` cannot be held to while an answer is written"),
        ({"properties": {"a": {"not": {"const": 1}}}}, "`not` of `/properties/a` cannot be held to while an answer is written"),
        ({"type": "string", "pattern": "^(?=a)b"},
         "`pattern`: regex parse error: look-around, including look-ahead and look-behind, is not supported"),
    ],
)  # fmt: skip
def test_what_no_answer_can_be_held_to_is_named(engine: LocalEngine, schema: dict[str, object], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        engine.generate(Request(prompt="x", json_schema=json.dumps(schema)))
    assert (caught.value.message, caught.value.is_unsupported) == (f"this JSON schema cannot be followed: {problem}", True)


def test_a_schema_goes_with_guesses_penalties_and_likelihoods(engine: LocalEngine) -> None:
    settings = {"json_schema": json.dumps(SCHEMA), "repetition_penalty": 1.3, "top_logprobs": 1, "max_new_tokens": 200}
    chunks = list(engine.generate(Request(prompt='{"name": "the", "age": 3, "tags": ["red"]} {"name":', **settings)))  # type: ignore[arg-type]
    jsonschema.validate(json.loads("".join(chunk.text for chunk in chunks)), SCHEMA)
    told = [one for chunk in chunks for one in chunk.likelihoods]
    assert b"".join(one.content for one in told).decode() == "".join(chunk.text for chunk in chunks) + "<|im_end|>"


@pytest.mark.parametrize(
    "schema",
    ['{"type": "nothing"}', '{"items": ' * 400 + "{}" + "}" * 400],
)
def test_a_schema_that_cannot_be_followed_is_refused_before_anything_runs(engine: LocalEngine, schema: str) -> None:
    with pytest.raises(SchemaError, match=r"^this JSON schema cannot be followed: ") as caught:
        engine.generate(Request(prompt="x", json_schema=schema))
    assert not caught.value.is_unsupported


def test_a_schema_that_becomes_too_much_within_an_answer_ends_that_one_with_an_error(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way beside it goes on. llguidance's limits are lowered, so that few tokens reach them."""
    good = Request(prompt="the hello", max_new_tokens=40)
    expected = answer(engine, good)
    low = functools.partial(llguidance.LLMatcher, limits=llguidance.LLParserLimits(max_lexer_states=50))
    low.grammar_from_json_schema = llguidance.LLMatcher.grammar_from_json_schema  # type: ignore[attr-defined]
    monkeypatch.setattr(llguidance, "LLMatcher", low)
    schema = json.dumps({"type": "string", "pattern": "^(a|b)*a(a|b){18}$"})
    stream = engine.generate(good)
    with pytest.raises(UsageError, match=r"(?m)^this JSON schema cannot be followed: lexer error: too many states: 50 >= 50$"):
        answer(engine, Request(prompt="the", max_new_tokens=200, temperature=1.5, seed=1, json_schema=schema))
    assert "".join(chunk.text for chunk in stream) == expected


def test_likelihoods_of_answer_and_prompt_equal_the_reference(engine: LocalEngine, tiny_gguf: Path) -> None:
    """Within 0.01: the weights are the same, in 8 bits a row and in the file's own floats."""
    request = Request(prompt="the hello he", max_new_tokens=9, top_logprobs=3)
    told = [one for chunk in engine.generate(request) for one in chunk.likelihoods]
    prompt = engine.prompt_likelihoods(request)
    ids = [one.token_id for one in [*prompt, *told]]
    with torch.no_grad():
        expected = model_of_gguf(tiny_gguf)(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1).numpy()
    assert prompt[0].log_probability is None and prompt[0].top == ()
    for at, one in enumerate([*prompt, *told][1:]):
        assert one.log_probability == pytest.approx(float(expected[at, one.token_id]), abs=0.01)
        best = np.sort(expected[at])[-3:][::-1]
        assert [other.log_probability for other in one.top] == pytest.approx(best.tolist(), abs=0.01)
        assert len(one.top) == 3
    again = engine.prompt_likelihoods(Request(prompt_ids=tuple(ids)))
    assert [one.log_probability for one in again[1:]] == pytest.approx([one.log_probability for one in [*prompt, *told][1:]], abs=1e-3)


@pytest.mark.parametrize("asked", [{}, {"temperature": 1.0, "seed": 3, "repetition_penalty": 1.3}])
def test_one_token_after_a_prompt_whose_likelihoods_were_told_is_not_computed_again(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    """What lm-evaluation-harness asks of each text: it was read twice."""
    texts = [Request(prompt=f"{n} the hello he", max_new_tokens=1, top_logprobs=2, **asked) for n in range(3)]
    expected = [list(engine.generate(text)) for text in texts]
    for text in texts:
        engine.prompt_likelihoods(text)
    run, passes = engine._started_batcher()._model.run, []
    monkeypatch.setattr(engine._started_batcher()._model, "run", lambda rows: (passes.append(rows), run(rows))[1])
    for text, chunks in zip(reversed(texts), reversed(expected), strict=True):
        told = list(engine.generate(text))
        assert "".join(chunk.text for chunk in told) == "".join(chunk.text for chunk in chunks)
        assert told[0].likelihoods[0].log_probability == pytest.approx(chunks[0].likelihoods[0].log_probability, abs=0.01)
        assert (told[-1].finish_reason, told[-1].usage.read_tokens) == (chunks[-1].finish_reason, 0)
    assert passes == []
    engine.prompt_likelihoods(texts[0])
    list(engine.generate(dataclasses.replace(texts[0], max_new_tokens=2)))
    assert len(passes) == 3, "a longer answer needs the prompt's keys and values"


def test_of_texts_whose_likelihoods_were_told_the_last_are_remembered(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "REMEMBERED_TEXTS", 2)
    texts = [Request(prompt=f"{n} the", max_new_tokens=1) for n in range(4)]
    for text in texts:
        engine.prompt_likelihoods(text)
    assert [list(engine.generate(text))[-1].usage.read_tokens > 0 for text in texts] == [True, True, False, False]
    assert engine._started_batcher()._after == {}


def test_one_token_of_a_prompt_is_the_same_whether_others_asked_for_its_likelihoods_or_not(engine: LocalEngine) -> None:
    """Logits after a reading are rounded otherwise, by up to some tenths."""
    asked = Request(prompt="the hello he", max_new_tokens=1)
    engine.prompt_likelihoods(dataclasses.replace(asked, max_new_tokens=None))
    assert list(engine.generate(asked))[-1].usage.cached_tokens == 0


def test_a_long_prompts_likelihoods_are_told_in_parts_with_the_same_result(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(prompt="the hello he " * 14, top_logprobs=0)
    whole = [one.log_probability for one in engine.prompt_likelihoods(request)[1:]]
    monkeypatch.setattr(batching, "LIKELIHOOD_TOKENS", 7)
    assert [one.log_probability for one in engine.prompt_likelihoods(request)[1:]] == pytest.approx(whole, abs=1e-3)


def test_likelihoods_of_many_texts_share_the_logits_of_a_pass(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [engine.tokenizer.encode(f"{n} the hello he " * 8) for n in range(4)]

    def told() -> list[list[float]]:
        return [[pick.log_probability or 0.0 for pick in reading.result.result()[1]] for reading in read()]

    def read() -> list[Reading]:
        return engine._read(rows, top_logprobs=0)

    whole = told()
    monkeypatch.setattr(batching, "LIKELIHOOD_TOKENS", 60)
    batcher, wanted = engine._started_batcher(), []
    run = batcher._model.run

    def counted(passed: list[Row]) -> object:
        wanted.append(sum(row.wanted for row in passed))
        return run(passed)

    monkeypatch.setattr(batcher._model, "run", counted)
    for parts, at_once in zip(told(), whole, strict=True):
        assert parts == pytest.approx(at_once, abs=1e-3)
    assert sum(wanted) == sum(map(len, rows)) and max(wanted) <= 60


@pytest.mark.parametrize("error", [IndexError, Panic])
def test_a_pass_that_fails_fails_nobody_who_waits(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """One text at a time may run, so that the second one waits while the first one fails."""
    batcher = engine._started_batcher()
    expected = answer(engine, Request(prompt="the hello", max_new_tokens=5))
    run, failed = batcher._model.run, threading.Event()

    def failing(rows: object) -> object:
        while not (failed.is_set() or batcher._answers) and batcher._incoming.empty():
            time.sleep(0.01)
        if batcher._answers and not failed.is_set():
            failed.set()
            raise error("meant")
        return run(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(batching, "MAX_TEXTS", 1)
    monkeypatch.setattr(batcher._model, "run", failing)
    first, second = (engine.generate(Request(prompt=text, max_new_tokens=5)) for text in ("x", "the hello"))
    with pytest.raises(error, match="meant"):
        list(first)
    assert "".join(chunk.text for chunk in second) == expected


def test_embeddings_are_the_mean_of_the_references_last_hidden_states(
    engine: LocalEngine, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the hello", "world", "안녕 the hello " * 9]
    model = model_of_gguf(tiny_gguf)
    expected = []
    for text in texts:
        with torch.no_grad():
            states = model(input_ids=torch.tensor([engine.tokenizer.encode(text, add_bos=True)]), output_hidden_states=True)
        expected.append(states.hidden_states[-1][0].mean(0).numpy())
    for room in (2048, 16):  # whole, and in parts
        monkeypatch.setattr(batching, "PASS_TOKENS", room)
        for ours, theirs in zip(engine.embed(texts), expected, strict=True):
            assert float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)) > 0.9989


def test_token_ids_may_be_the_prompt_and_strange_ones_are_refused(engine: LocalEngine) -> None:
    text = Request(prompt="the hello", max_new_tokens=8)
    ids = tuple(engine.tokenizer.prompt_ids(text))
    assert answer(engine, Request(prompt_ids=ids, max_new_tokens=8)) == answer(engine, text)
    assert engine.count_tokens(Request(prompt_ids=ids)) == len(ids)
    with pytest.raises(UsageError, match="token 9999 is not one of this model's 264"):
        engine.generate(Request(prompt_ids=(1, 9999)))
    with pytest.raises(UsageError, match="the prompt has no tokens"):
        engine.generate(Request(prompt_ids=()))


def test_a_prompt_that_takes_long_gives_signs_of_life(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.engine.texts.HEARTBEAT_SECONDS", 0.01)
    batcher = engine._started_batcher()
    run = batcher._model.run

    def slow(rows: object) -> object:
        time.sleep(0.1)
        return run(rows)  # type: ignore[arg-type]

    monkeypatch.setattr(batcher._model, "run", slow)
    chunks = list(engine.generate(Request(messages=(Message(role="user", content="hello"),), max_new_tokens=2)))
    assert chunks[0].text == "" and chunks[0].finish_reason is None and chunks[-1].finish_reason is not None


@pytest.mark.data
def test_embeddings_of_a_real_model_are_those_of_transformers(smollm2_gguf: Path) -> None:
    """Of the float32 model made from the same file; ours is the served one, which rounds inputs to 8 bits."""
    engine = LocalEngine(importer.import_gguf(smollm2_gguf))
    texts = ["The capital of France is Paris.", "def add(a, b):\n    return a + b", "대한민국의 수도는 서울이다.", "I love this film!"]
    model = model_of_gguf(smollm2_gguf)
    for text, ours in zip(texts, engine.embed(texts), strict=True):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([engine.tokenizer.encode(text)]), output_hidden_states=True)
        theirs = states.hidden_states[-1][0].mean(0).numpy()
        assert float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)) > 0.998
    engine.close()


def test_settings_that_are_off_change_no_record() -> None:
    """Stored answers are found again by what was asked: a request says the same with a default written out."""
    plain = Request(prompt="x")
    assert dataclasses.replace(plain, min_p=0.0, repetition_penalty=1.0, top_logprobs=None) == plain


def test_a_text_longer_than_the_cache_is_refused_with_the_numbers_and_others_go_on(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_num_blocks", lambda *asked: 3)
    with pytest.raises(NotEnoughMemoryError, match=r"a text of 118 tokens needs 0\.0 GB .* there is room for 96 tokens"):
        answer(engine, Request(prompt="x" * 118, max_new_tokens=5))
    with pytest.raises(NotEnoughMemoryError, match="a text of 97 tokens"):
        answer(engine, Request(prompt="x" * 90, max_new_tokens=50, seed=1))
    assert len(answer(engine, Request(prompt="x" * 30, max_new_tokens=5))) > 0


class Fake:
    """A model of no weights, which writes token 0. Notes who takes part in each pass, by their first token, and with how many."""

    takes_many, largest_pass, alike_from, block_bytes, mapped_bytes = True, 1 << 31, 1, 32 * 1000, 0

    def __init__(self) -> None:
        self.may_begin = threading.Event()
        self.passes: list[dict[int, int]] = []
        self.before_pass: Callable[[], None] = lambda: None
        self._first: dict[int, int] = {}  # by first block

    def allocate(self, num_blocks: int) -> None:
        pass

    def run(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        assert self.may_begin.wait(PATIENCE_SECONDS)
        self.before_pass()
        self._first |= {row.blocks[0]: row.ids[0] for row in rows if row.past == 0}
        self.passes.append({self._first[row.blocks[0]]: len(row.ids) for row in rows})
        return np.zeros((sum(row.wanted for row in rows), 1000), np.float32), np.zeros(
            (sum(len(row.ids) for row in rows), 1), np.float32
        )


def answer_to(first: int, num_tokens: int, *, max_new_tokens: int = 1, asker: str = "") -> Answer:
    """With a prompt of so many tokens."""
    ids = [first] + [1] * (num_tokens - 1)
    sampler = Sampler(Request(prompt="x"), ids)
    return Answer(ids, sampler, max_new_tokens=max_new_tokens, stop_ids=(), lookup=Lookup([]), asker=asker)


def reading_of(first: int, num_tokens: int, *, asker: str = "") -> Reading:
    return Reading([first] + [2] * (num_tokens - 1), asker=asker)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Fake, batching.Batcher]]:
    """Whatever is submitted, the first pass waits for `may_begin`; it is over one reading of a token."""
    monkeypatch.setattr(batching, "_num_blocks", lambda *asked: 1000)
    model = Fake()
    batcher = batching.Batcher(lambda: model, context_tokens=32_000)  # type: ignore[arg-type, return-value]
    batcher.submit(reading_of(999, 1))
    while not batcher._running:
        time.sleep(0.001)
    yield model, batcher
    model.may_begin.set()
    batcher.close()


def test_a_text_longer_than_the_cache_is_refused_unread_though_others_are_under_way(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    long, other = reading_of(1, 40_000), answer_to(2, 5)
    batcher.submit(long)
    batcher.submit(other)
    model.may_begin.set()
    with pytest.raises(NotEnoughMemoryError, match=r"a text of 40,000 tokens needs 0\.0 GB .* there is room for 32,000 tokens"):
        long.result.result(timeout=PATIENCE_SECONDS)
    assert len(list(other.tokens)) == 1
    assert model.passes == [{999: 1}, {2: 5}]


def test_the_first_token_of_an_answer_does_not_wait_for_hundreds_of_readings(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    readings = [reading_of(100 + at, 64) for at in range(500)]
    for reading in readings:
        batcher.submit(reading)
    late = [answer_to(1, 300), answer_to(2, 300)]
    model.before_pass = lambda: [batcher.submit(one) for one in late] if len(model.passes) == 1 else None
    model.may_begin.set()
    for one in late:
        list(one.tokens)
    for reading in readings:
        reading.result.result(timeout=PATIENCE_SECONDS)
    assert sum(model.passes[1].values()) == 2048 and not model.passes[1].keys() & {1, 2}  # before they came
    assert dict(list(model.passes[2].items())[:2]) == {1: 300, 2: 300}
    assert sum(model.passes[2].values()) == 600 + 512
    assert sum(map(len, model.passes)) <= 500 + 2 + 1 + len(model.passes)  # each is read by itself, but for one a pass cuts in two


def test_a_short_prompt_does_not_wait_for_a_long_one_that_came_first(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    writing, long, short = answer_to(1, 5, max_new_tokens=40), answer_to(2, 7000), answer_to(3, 30)
    batcher.submit(writing)
    batcher.submit(long)
    model.before_pass = lambda: batcher.submit(short) if len(model.passes) == 4 else None
    model.may_begin.set()
    for one in (writing, long, short):
        list(one.tokens)
    with_short = next(passed for passed in model.passes if 3 in passed)
    assert model.passes.index(with_short) == 5 and with_short[3] == 30 and with_short[2] > 470  # of 512, with guesses
    assert sum(2 in passed for passed in model.passes) > 10


def test_many_answers_of_one_asker_take_turns_while_another_asks(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    many = [answer_to(100 + at, 3, max_new_tokens=40, asker="many") for at in range(30)]
    one = answer_to(1, 3, max_new_tokens=40, asker="one")
    for text in (*many, one):
        batcher.submit(text)
    model.may_begin.set()
    assert [len(list(text.tokens)) for text in (*many, one)] == [40] * 31
    shared = [passed for passed in model.passes if 1 in passed][1:]  # the first reads the prompts
    assert {len(passed) for passed in shared} == {9}
    took_part = [sum(text.ids[0] in passed for passed in shared) for text in many]
    assert max(took_part) - min(took_part) <= 1
    last = max(at for at, passed in enumerate(model.passes) if 1 in passed)
    assert len(model.passes[last + 1]) == 30  # nobody else asks any more


def test_a_long_answer_goes_on_beside_short_ones_of_its_asker_that_never_end_coming(fake: tuple[Fake, batching.Batcher]) -> None:
    """As of a chat beside questions that are answered by yes or no, from one machine, while somebody asks from another."""
    model, batcher = fake
    long, other = answer_to(1, 3, max_new_tokens=40, asker="many"), answer_to(2, 3, max_new_tokens=400, asker="one")
    names = itertools.count(100)
    model.before_pass = lambda: [batcher.submit(answer_to(next(names), 3, max_new_tokens=2, asker="many")) for _ in range(8)] and None
    for text in (long, other):
        batcher.submit(text)
    model.may_begin.set()
    assert list(long.tokens)
    model.before_pass = lambda: None
    assert max(at for at, passed in enumerate(model.passes) if 1 in passed) < 200


def read_before(model: Fake, first: int) -> Counter[int]:
    """How many tokens of each other text were read before this one's last part."""
    last = max(at for at, passed in enumerate(model.passes) if first in passed)
    read = Counter[int]()
    for passed in model.passes[:last]:
        read.update(passed)
    del read[first], read[999]
    return read


@pytest.mark.parametrize("num_blocks", [1000, 220])  # room for all of them, and for two
def test_a_long_prompt_does_not_wait_for_the_many_of_another_asker(fake: tuple[Fake, batching.Batcher], num_blocks: int) -> None:
    model, batcher = fake
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - num_blocks))
    many = [answer_to(100 + at, 3000, asker="many") for at in range(9)]
    one = answer_to(1, 3000, asker="one")
    for text in many:
        batcher.submit(text)
    model.before_pass = lambda: batcher.submit(one) if len(model.passes) == 1 else None
    model.may_begin.set()
    assert [len(list(text.tokens)) for text in (*many, one)] == [1] * 10
    assert sum(read_before(model, 1).values()) < 4 * 3000
    ended = [max(at for at, passed in enumerate(model.passes) if text.ids[0] in passed) for text in many]
    assert ended == sorted(ended)


def test_short_prompts_do_not_wait_in_line_for_the_many_of_another_asker(fake: tuple[Fake, batching.Batcher]) -> None:
    """There is room for two long ones; a third came before them."""
    model, batcher = fake
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - 220))
    many = [answer_to(100 + at, 3000, asker="many") for at in range(9)]
    few = [answer_to(1 + at, 30, asker="few") for at in range(3)]
    for text in many:
        batcher.submit(text)
    model.before_pass = lambda: [batcher.submit(text) for text in few] and None if len(model.passes) == 1 else None
    model.may_begin.set()
    for text in (*many, *few):
        list(text.tokens)
    assert sum(read_before(model, 3).values()) < 2 * 3000


@pytest.mark.parametrize("at", [250, 700])  # passes: some of the many begin again, and wait for room; some of them have ended
def test_one_answer_is_not_held_up_by_the_many_of_another_asker_that_fill_the_cache(
    fake: tuple[Fake, batching.Batcher], at: int
) -> None:
    model, batcher = fake
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - 200))
    many = [answer_to(100 + number, 30, max_new_tokens=600, asker="many") for number in range(30)]  # a third have room to their end
    one = answer_to(1, 30, max_new_tokens=200, asker="one")
    for text in many:
        batcher.submit(text)
    model.before_pass = lambda: batcher.submit(one) if len(model.passes) == at else None
    model.may_begin.set()
    for text in (*many, one):
        assert list(text.tokens)
    took_part = [number for number, passed in enumerate(model.passes) if 1 in passed]
    assert took_part == list(range(at + 1, at + 201))


def test_what_begins_again_is_before_its_askers_others_and_behind_as_much_of_another_as_it_is_to_read() -> None:
    first, second, other, more = (
        answer_to(number, length, asker=asker) for number, (length, asker) in enumerate([(50, "a"), (30, "a"), (60, "b"), (60, "b")])
    )
    line = Line()
    for text in (first, second):
        line.put(text)
    assert line.popleft() is first
    line.in_order([first])
    first.ids += [0] * 50
    line.give_back(first)
    for text in (other, more):
        line.put(text)
    assert list(line) == [other, first, more, second]


def test_prompts_that_were_cancelled_count_as_nobodys_turn(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    gone, others = ([answer_to(first + at, 3000, asker=str(first)) for at in range(5)] for first in (100, 200))
    again = answer_to(1, 3100, asker="100")
    for text in (*gone, *others):
        batcher.submit(text)

    def leave() -> None:
        if len(model.passes) == 1:
            for text in gone:
                text.tokens.cancel()
        elif len(model.passes) == 3:
            batcher.submit(again)

    model.before_pass = leave
    model.may_begin.set()
    for text in (*others, again):
        list(text.tokens)
    assert sum(read_before(model, 1)[text.ids[0]] for text in others) < 4 * 3000


def test_prompts_that_were_just_cancelled_do_not_hold_up_what_is_asked_in_their_place(fake: tuple[Fake, batching.Batcher]) -> None:
    """As an editor does at each key."""
    model, batcher = fake
    many = [answer_to(100 + at, 3000, asker="many") for at in range(9)]
    typed = [answer_to(1 + at, 3000, asker="one") for at in range(5)]
    for text in many:
        batcher.submit(text)

    def ask_anew() -> None:
        if 1 <= (at := len(model.passes)) <= len(typed):
            for text in typed[: at - 1]:
                text.tokens.cancel()
            batcher.submit(typed[at - 1])

    model.before_pass = ask_anew
    model.may_begin.set()
    for text in (*many, typed[-1]):
        list(text.tokens)
    read = read_before(model, typed[-1].ids[0])
    assert sum(read[text.ids[0]] for text in many) < 4 * 3000


def test_a_few_readings_do_not_wait_for_the_many_of_another_asker(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    many, few = [reading_of(100 + at, 256, asker="many") for at in range(200)], [reading_of(1, 256, asker="one")]
    for text in (*many, *few):
        batcher.submit(text)
    model.may_begin.set()
    for text in (*many, *few):
        text.result.result(timeout=PATIENCE_SECONDS)
    assert [at for at, passed in enumerate(model.passes) if 1 in passed] == [1]


def test_the_passes_over_prompts_of_several_askers_are_short(fake: tuple[Fake, batching.Batcher]) -> None:
    """A short prompt waits for the whole pass."""
    model, batcher = fake
    long, short = answer_to(1, 7000, asker="one"), answer_to(2, 30, asker="other")
    batcher.submit(long)
    model.before_pass = lambda: batcher.submit(short) if len(model.passes) == 1 else None
    model.may_begin.set()
    for text in (long, short):
        list(text.tokens)
    assert [passed[1] for passed in model.passes[1:]] == [2048, 482, 2048, 2048, 374]


def test_a_long_prompts_passes_are_short_while_another_model_has_texts_under_way(fake: tuple[Fake, batching.Batcher]) -> None:
    other, others = fake
    model, long = Fake(), answer_to(1, 7000)
    model.may_begin.set()

    def end_others() -> None:
        if len(model.passes) == 3:
            other.may_begin.set()
            wait_until(lambda: not others._running, "the other model's end")

    model.before_pass = end_others
    batcher = batching.Batcher(lambda: model, context_tokens=32_000)  # type: ignore[arg-type, return-value]
    batcher.submit(long)
    list(long.tokens)
    batcher.close()
    assert [passed[1] for passed in model.passes] == [512] * 4 + [2048, 2048, 856]
    assert batcher not in batching._batchers


def test_a_long_prompt_goes_on_though_short_ones_never_end_coming(fake: tuple[Fake, batching.Batcher]) -> None:
    model, batcher = fake
    long = answer_to(1, 20_000)
    batcher.submit(long)
    model.before_pass = lambda: [batcher.submit(answer_to(100 + at, 1500)) for at in range(2)] and None
    model.may_begin.set()
    list(long.tokens)
    parts = [passed[1] for passed in model.passes if 1 in passed]
    assert len(parts) < 25 and all(part >= 1024 for part in parts[:-1])


def test_embeddings_do_not_push_out_what_is_kept_of_prompts(fake: tuple[Fake, batching.Batcher]) -> None:
    """Nobody goes on after them; after likelihoods the answer to the same prompt follows, where a request asks for both."""
    model, batcher = fake
    model.may_begin.set()
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - 40))

    def num_kept(first: int) -> int | None:
        asked = answer_to(first, 640, max_new_tokens=2)
        batcher.submit(asked)
        list(asked.tokens)
        return asked.tokens.num_kept

    assert [num_kept(1), num_kept(1)] == [0, 608]
    for at in range(8):
        reading = reading_of(100 + at, 160)
        batcher.submit(reading)
        reading.result.result(timeout=PATIENCE_SECONDS)
    assert num_kept(1) == 608
    told = Reading(answer_to(2, 640).ids, top_logprobs=0)
    batcher.submit(told)
    told.result.result(timeout=PATIENCE_SECONDS)
    assert num_kept(2) == 608


@pytest.mark.parametrize("lengths", [(2020, 102), (2000, 60), (2060,), (4090,), (2040, 20, 30)])
def test_no_part_of_a_text_is_so_small_that_it_is_computed_otherwise(
    fake: tuple[Fake, batching.Batcher], monkeypatch: pytest.MonkeyPatch, lengths: Sequence[int]
) -> None:
    model, batcher = fake
    monkeypatch.setattr(model, "alike_from", 24)
    readings = [reading_of(at, length) for at, length in enumerate(lengths, 1)]
    for reading in readings:
        batcher.submit(reading)
    model.may_begin.set()
    for reading in readings:
        reading.result.result(timeout=PATIENCE_SECONDS)
    for at, length in enumerate(lengths, 1):
        parts = [taking_part[at] for taking_part in model.passes if at in taking_part]
        assert sum(parts) == length and min(parts) >= min(24, length)


def test_a_text_of_which_each_tokens_logits_are_wanted_is_cut_alike_too(
    fake: tuple[Fake, batching.Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batcher = fake
    monkeypatch.setattr(model, "alike_from", 24)
    reading = Reading([1] * 260, top_logprobs=0)
    batcher.submit(reading)
    model.may_begin.set()
    reading.result.result(timeout=PATIENCE_SECONDS)
    assert [taking_part[1] for taking_part in model.passes[1:]] == [236, 24]


@pytest.mark.parametrize(
    ("num_tokens", "takes_many", "num_blocks"), [(3000, True, 999), (20, True, 999), (20, False, 999), (200, True, 30)]
)
def test_answers_that_never_end_coming_do_not_stop_a_reading(
    fake: tuple[Fake, batching.Batcher], monkeypatch: pytest.MonkeyPatch, num_tokens: int, takes_many: bool, num_blocks: int
) -> None:
    """Long prompts would take every pass, short ones every place, and those of either kind every block of a small cache."""
    model, batcher = fake
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - num_blocks))
    monkeypatch.setattr(batching, "MAX_TEXTS", 4)
    monkeypatch.setattr(model, "takes_many", takes_many)
    reading = reading_of(1, 700)

    names = itertools.count(2)

    def more() -> None:
        for _ in range(5):
            batcher.submit(answer_to(next(names), num_tokens))

    model.before_pass = more
    more()
    batcher.submit(reading)
    model.may_begin.set()
    reading.result.result(timeout=PATIENCE_SECONDS)
    assert all(max(taking_part) > 1 for taking_part in model.passes[1:5])  # answers went on beside it, or before it


@pytest.mark.parametrize(("num_blocks", "lengths"), [(86, (20,)), (90, (20, 30)), (99, (30, 30, 30, 30))])
def test_who_came_first_loses_no_blocks_to_who_came_later(
    fake: tuple[Fake, batching.Batcher], monkeypatch: pytest.MonkeyPatch, num_blocks: int, lengths: tuple[int, ...]
) -> None:
    """The answers are let in with a block each, and grow into what the reading before them has yet to fill."""
    model, batcher = fake
    assert batcher._pool.extend([], 32 * (batcher._pool.num_free - num_blocks))
    monkeypatch.setattr(batching, "PASS_TOKENS_BESIDE_ANSWERS", 8)
    reading, answers = reading_of(1, 2048 + 640), [answer_to(at, length, max_new_tokens=200) for at, length in enumerate(lengths, 2)]
    batcher.submit(reading)
    model.before_pass = lambda: [batcher.submit(one) for one in answers] if len(model.passes) == 1 else None
    model.may_begin.set()
    reading.result.result(timeout=PATIENCE_SECONDS)
    assert [len(list(one.tokens)) for one in answers] == [200] * len(answers)
    assert sum(taking_part.get(1, 0) for taking_part in model.passes) == 2048 + 640  # it never began again


@pytest.mark.parametrize("error", [ValueError, Panic])
def test_a_mistake_of_ours_leaves_nobody_waiting(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    batcher = engine._started_batcher()
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_plan", Mock(side_effect=error("meant")))
        with pytest.raises(error, match="meant"):
            answer(engine, Request(prompt="x", max_new_tokens=5))
    assert len(answer(engine, Request(prompt="x", max_new_tokens=5))) > 0
    assert batcher._pool.num_free == batcher._pool.num_blocks


def test_who_comes_after_the_end_is_told(engine: LocalEngine) -> None:
    batcher = engine._started_batcher()
    engine.close()
    reading = Reading([1, 2, 3])
    batcher.submit(reading)
    with pytest.raises(StoppedError, match="the model was closed"):
        reading.result.result(timeout=PATIENCE_SECONDS)


def test_a_prompt_that_begins_like_one_under_way_needs_blocks_for_the_rest_alone(
    engines: Iterator[LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9 blocks the first answer has 6 or 7, and the second needs 6, of which 4 hold what it begins with."""
    request = Request(prompt="x" * 160, max_new_tokens=30)
    roomy, engine = next(engines), next(engines)
    expected = answer(roomy, request)
    monkeypatch.setattr(batching, "_num_blocks", lambda *asked: 9)
    batcher = engine._started_batcher()
    run, first_came, second_sent, rows_of_passes = batcher._model.run, threading.Event(), threading.Event(), []

    def counted(rows: Any) -> Any:
        if first_came.is_set():
            assert second_sent.wait(PATIENCE_SECONDS)
        rows_of_passes.append(len(rows))
        made = run(rows)
        first_came.set()
        return made

    monkeypatch.setattr(batcher._model, "run", counted)
    first, second = engine.generate(request), None
    assert first_came.wait(PATIENCE_SECONDS)
    second = engine.generate(request)
    second_sent.set()
    assert ["".join(chunk.text for chunk in stream) for stream in (first, second)] == [expected, expected]
    assert max(rows_of_passes) == 2
    assert batcher._pool.num_free == 9


def test_an_answer_tells_how_much_of_its_prompt_was_known(engine: LocalEngine) -> None:
    request = Request(prompt="x" * 160, max_new_tokens=3)
    first, again = (Responder("tiny", engine).complete(request).usage for _ in range(2))
    assert (first.prompt_tokens, first.cached_tokens, first.read_tokens) == (160, 0, 160)
    assert (again.prompt_tokens, again.cached_tokens, again.read_tokens) == (160, 96, 64)
    assert again.prefill_tokens_per_second == pytest.approx(64 / again.prefill_seconds)


@pytest.mark.parametrize("end", ["close", "__del__"])
def test_a_stream_that_nobody_began_to_read_ends_its_work(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    submitted: list[Any] = []
    monkeypatch.setattr(engine._started_batcher(), "submit", submitted.append)
    stream = engine.generate(Request(prompt="the hello", max_new_tokens=200))
    (text,) = submitted
    assert not text.cancelled
    if end == "close":
        stream.close()  # type: ignore[attr-defined]
    else:
        del stream
    assert text.cancelled


def test_a_start_that_is_interrupted_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Future):  # type: ignore[type-arg]
        def result(self, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(batching, "Future", Interrupted)
    goes_on, before = threading.Event(), set(threading.enumerate())

    def make() -> Any:
        goes_on.wait(PATIENCE_SECONDS)
        return SimpleNamespace(block_bytes=0, mapped_bytes=0, allocate=lambda num_blocks: None)

    with pytest.raises(KeyboardInterrupt):
        batching.Batcher(make, context_tokens=64)
    (thread,) = set(threading.enumerate()) - before
    goes_on.set()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("free", "mapped", "context", "bound", "tokens"),
    [
        (10**12, 0, 8000, None, 2**21),  # of many texts
        (10**12, 0, 2**22, None, 2**22 + 32),  # of one as long as the context
        (10**9, 0, 8000, None, 488_256),  # half of what is free
        (10**9, 4 * 10**8, 8000, None, 292_960),  # weights in a mapped file are not
        (10**12, 0, 8000, 10**8, 97_632),  # what a server has left for it
        (10**12, 0, 8000, 1000, 4096 + 32),  # a context of usual length always
        (10**6, 10**9, 8000, None, 4096 + 32),
        (10**6, 0, 64, 1000, 96),
    ],
)
def test_the_cache_takes_what_is_free_and_not_promised_to_others(
    free: int, mapped: int, context: int, bound: int | None, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kibibyte a token."""
    assert footprint.CACHE_BYTES == 2**31
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(free, "free"))
    model: Any = SimpleNamespace(block_bytes=32 * 1024, mapped_bytes=mapped)
    assert 32 * batching._num_blocks(model, context, bound) == tokens


def test_answers_do_not_wait_for_likelihoods(engine: LocalEngine) -> None:
    begun, ends = threading.Event(), threading.Event()

    def score(*asked: object) -> list[list[Any]]:
        begun.set()
        ends.wait(PATIENCE_SECONDS)
        return [[]]

    engine._shared.scorer = None, SimpleNamespace(beside=lambda _questions: [0], score_many=score)  # type: ignore[assignment]
    scoring = threading.Thread(target=engine.score, args=(Request(prompt="the"), [" he"]))
    answering = threading.Thread(target=answer, args=(engine, Request(prompt="the", max_new_tokens=2)))
    try:
        scoring.start()
        assert begun.wait(PATIENCE_SECONDS)
        answering.start()
        answering.join(PATIENCE_SECONDS)
        assert not answering.is_alive()
    finally:
        ends.set()
        scoring.join()
