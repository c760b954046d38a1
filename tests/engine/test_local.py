"""The engine against the reference implementation, on tiny random weights and on a real model."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE_SECONDS
from reference import model_of_gguf, our_logits
from tiny import CONTEXT, write_adapter, write_tiny_gguf

from nomoat import net
from nomoat.engine import importer, local
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.local import LocalEngine
from nomoat.engine.sampling import Pick
from nomoat.engine.source import open_source
from nomoat.engine.texts import Reading, Text
from nomoat.engine.tokenizer import Tokenizer
from nomoat.engine.weights import Form, quantised, restored
from nomoat.errors import ContextExceededError, NomoatError, StoppedError
from nomoat.records import Completion, Message, Request
from nomoat.responder import Responder, memory_need

HELLO = Request(messages=(Message(role="user", content="hello, the world"),), max_new_tokens=12)


@pytest.fixture
def engine(tiny_gguf: Path) -> Iterator[LocalEngine]:
    made = LocalEngine(importer.import_gguf(tiny_gguf))
    yield made
    made.close()


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("length", [1, 7, 130])
def test_logits_equal_the_reference_implementation_within_a_thousandth(tmp_path: Path, arch: str, length: int) -> None:
    path = write_tiny_gguf(tmp_path / f"{arch}.gguf", arch=arch)
    folder = importer.import_gguf(path)
    rows = np.random.default_rng(length).integers(3, 250, (2, length)).tolist()
    with torch.no_grad():
        reference = model_of_gguf(path)(input_ids=torch.tensor(rows)).logits.numpy()
    assert reference.std() > 0.5  # else closeness would mean nothing
    np.testing.assert_allclose(our_logits(folder, rows), reference, atol=1e-3)
    if length > 1:
        np.testing.assert_allclose(our_logits(folder, rows, cut_at=length // 2), reference, atol=1e-3)


def test_a_reading_s_own_timeout_is_raised() -> None:
    """As an OSError of a network disk is one: it is not that of the wait for a result."""
    reading = Reading([1, 2])
    reading.result.set_exception(TimeoutError("the disk"))
    with pytest.raises(TimeoutError, match="the disk"):
        local._results([reading], None)


def test_each_token_of_a_greedy_answer_is_a_best_one_of_the_reference(engine: LocalEngine, tiny_gguf: Path) -> None:
    """Activations are rounded to 8 bits in the served model, so a near tie may turn: best within a tenth of the spread."""
    ids = engine.tokenizer.prompt_ids(HELLO)
    chunks = list(engine.generate(dataclasses.replace(HELLO, max_new_tokens=8, top_logprobs=0)))
    answer = [likelihood.token_id for chunk in chunks for likelihood in chunk.likelihoods]
    with torch.no_grad():
        logits = model_of_gguf(tiny_gguf)(input_ids=torch.tensor([ids + answer])).logits[0]
    assert len(answer) == 8
    for at, token in enumerate(answer):
        row = logits[len(ids) - 1 + at]
        assert float(row.max() - row[token]) < 0.1 * float(row.max() - row.min())


def test_int8_rows_keep_weights_within_half_a_step() -> None:
    weights = np.random.default_rng(0).normal(size=(16, 96)).astype(np.float32)
    weights[3] = 0
    codes, scales = quantised(weights, Form("int8"))
    assert codes.dtype == np.int8 and scales.shape == (16, 1, 1) and (scales > 0).all()
    error = np.abs(restored((codes, scales), Form("int8")) - weights)
    assert (error <= 0.51 * scales[:, 0].astype(np.float32) + 1e-3 * np.abs(weights)).all()


def test_an_answer_counts_its_tokens_and_ends_for_a_reason(engine: LocalEngine) -> None:
    completion = Responder("tiny", engine).complete(HELLO)
    assert completion.usage.prompt_tokens == engine.count_tokens(HELLO) == len(engine.tokenizer.prompt_ids(HELLO))
    assert completion.finish_reason in ("stop", "length")
    assert 1 <= completion.usage.completion_tokens <= 12
    assert completion.usage.prefill_seconds > 0


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(engine: LocalEngine) -> None:
    """Twelve tokens of a nearly uniform choice among 264: two seeds agree by chance less than once in a million."""

    def sampled(seed: int) -> str:
        request = Request(messages=HELLO.messages, max_new_tokens=12, temperature=1.5, seed=seed)
        return Responder("tiny", engine).complete(request).text

    assert sampled(1) == sampled(1) != sampled(2)


def test_requests_at_the_same_time_get_the_answers_they_get_alone(engine: LocalEngine) -> None:
    responder = Responder("tiny", engine)
    requests = [Request(prompt=f"the hello {n} he", max_new_tokens=6) for n in range(12)]
    alone = [responder.complete(request).text for request in requests]
    together: dict[int, Completion] = dict(responder.complete_many(requests, concurrency=12))
    assert [together[n].text for n in range(12)] == alone


def test_a_closed_stream_frees_its_place_and_others_go_on(engine: LocalEngine) -> None:
    stream = engine.generate(Request(prompt="the hello", max_new_tokens=200))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert Responder("tiny", engine).complete(HELLO).usage.completion_tokens >= 1


def test_a_stream_closed_by_another_thread_ends_for_its_reader(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server of its own does whose client has gone. The reader waits for a token that does not come."""
    monkeypatch.setattr("nomoat.engine.texts.HEARTBEAT_SECONDS", 60)
    monkeypatch.setattr(engine._started_batcher(), "submit", lambda text: None)
    stream, read = engine.generate(HELLO), []
    assert isinstance(stream, local._Begun)
    reader = threading.Thread(target=lambda: read.extend(stream), daemon=True)
    reader.start()
    while not stream._chunks.gi_running:
        time.sleep(0.001)
    stream.close()
    reader.join(PATIENCE_SECONDS)
    assert [(chunk.text, chunk.finish_reason) for chunk in read] == [("", "cancelled")]
    assert list(stream) == []


def test_a_stream_closed_by_another_thread_between_two_chunks_ends_for_its_reader(engine: LocalEngine) -> None:
    stream = engine.generate(Request(prompt="a", max_new_tokens=200))
    next(stream)
    closer = threading.Thread(target=stream.close)  # type: ignore[attr-defined]
    closer.start()
    closer.join()
    assert [chunk.finish_reason for chunk in stream] == ["cancelled"]


def test_answers_and_readings_are_told_whom_they_are_for(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[tuple[str, str]] = []
    batcher = engine._started_batcher()
    submit = batcher.submit

    def noted(text: Text) -> None:
        submitted.append((type(text).__name__, text.asker))
        submit(text)

    monkeypatch.setattr(batcher, "submit", noted)
    with net.asking_for(threading.Event(), "192.0.2.7"):
        list(engine.generate(Request(prompt="a", max_new_tokens=1)))
        engine.embed(["b"])
    assert submitted == [("Answer", "192.0.2.7"), ("Reading", "192.0.2.7")]


def test_an_answer_for_somebody_who_has_left_ends_with_what_it_took(engine: LocalEngine) -> None:
    left = threading.Event()
    with net.asking_for(left):
        stream = engine.generate(Request(prompt="a", max_new_tokens=200, top_logprobs=0))
        read = [next(stream), next(stream)]
        left.set()
        (last,) = stream
    assert last.finish_reason == "cancelled" and last.usage is not None
    told = sum(len(chunk.likelihoods) for chunk in read)
    assert told <= last.usage.completion_tokens <= told + 1  # one may have been there already
    assert last.usage.prompt_tokens == 1


def test_an_answer_that_is_cancelled_gives_no_more_of_what_was_ready(engine: LocalEngine) -> None:
    stream = engine.generate(HELLO)
    assert isinstance(stream, local._Begun)
    next(stream)
    stream._tokens.cancel()
    assert [chunk.finish_reason for chunk in stream] == ["cancelled"]


FORK = """
import os, signal, sys
from nomoat import responder
from nomoat.errors import NomoatError
from nomoat.records import Request
asked = Request(prompt="the hello", max_new_tokens=4)
model = responder.load(sys.argv[1])
early = os.fork()
if early == 0:
    signal.alarm(60)
    print(model.complete(asked).finish_reason, flush=True)
    os._exit(0)
assert os.waitpid(early, 0)[1] == 0
model.complete(asked)
batcher = model.engine._started_batcher()
submit, batcher.submit = batcher.submit, lambda text: None
stream = model.stream(asked)
batcher.submit = submit
child = os.fork()
if child == 0:
    signal.alarm(60)
    asks = [(model.complete, asked), (model.embed, ["the"]), (model.score, asked, [" he"])]
    for ask, *told in [*asks, (responder.load, sys.argv[1]), (list, stream)]:
        try:
            print(ask(*told))
        except NomoatError as error:
            print(error, flush=True)
    model.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(model.complete(asked).finish_reason)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_fork_of_a_process_that_has_asked_a_model_is_told_so_and_does_not_wait_for_ever(tiny_gguf: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(tiny_gguf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = "this process is a fork of one that had asked or tuned a model, and has none of the threads that run models\n"
    assert (done.returncode, done.stdout) == (0, f"length\n{5 * refused}length\n"), done.stderr


SLOW = """
import os, sys, threading, time
from pathlib import Path
from nomoat.engine import importer, local
begun = threading.Event()
def work(done):
    begun.set()
    time.sleep(0.3)
    os.write(1, done)
class Slow(local.PagedModel):
    def __init__(self, *told):
        work(b"")
        super().__init__(*told)
        os.write(1, b"made")
    def __del__(self):
        work(b" freed")
local.PagedModel = Slow
engine = local.LocalEngine(importer.import_gguf(Path(sys.argv[1])))
start = threading.Thread(target=engine._started_batcher, daemon=True)
start.start()
if sys.argv[2] == "freed":
    start.join()
    begun.clear()
    del start, engine
begun.wait()
"""


@pytest.mark.parametrize(("until", "done"), [("made", "made"), ("freed", "made freed")])
def test_a_process_that_ends_waits_for_a_model_that_is_made_or_freed(until: str, done: str, tiny_gguf: Path) -> None:
    """Its thread, ended in the midst of OpenVINO's code, would abort it. Nor does it wait for what waits for it."""
    command = [sys.executable, "-c", SLOW, str(tiny_gguf), until]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout == done


def test_a_model_that_nobody_has_any_more_is_freed_with_its_thread(tiny_gguf: Path) -> None:
    responder = Responder("tiny", LocalEngine(importer.import_gguf(tiny_gguf)))
    responder.complete(HELLO)
    batcher = responder.engine._shared.batcher  # type: ignore[attr-defined]
    thread, model = batcher._thread, weakref.ref(batcher._model)
    del responder, batcher
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    gc.collect()
    assert (thread.is_alive(), model()) == (False, None)


def test_a_model_runs_for_as_long_as_anybody_has_one_of_its_views(tiny_gguf: Path, tmp_path: Path) -> None:
    engine = LocalEngine(importer.import_gguf(tiny_gguf, fused=False), beside=[write_adapter(tmp_path / "a")])
    kept, forgotten = engine.adapted(0), engine.adapted(0)
    for each in (forgotten, kept, engine):
        Responder("tiny", each).complete(HELLO)
    assert engine._shared.batcher is not None
    thread = engine._shared.batcher._thread
    del engine, forgotten, each
    gc.collect()
    assert Responder("tiny", kept).complete(HELLO).usage.completion_tokens > 0
    del kept
    gc.collect()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_closing_a_view_closes_the_model(spaced: LocalEngine) -> None:
    spaced.adapted(0).close()
    for each in (spaced, spaced.adapted(0)):
        with pytest.raises(StoppedError, match="the model is closed"):
            each.embed(["the"])


def test_a_model_that_is_forgotten_while_a_stream_is_read_answers_to_the_end(tiny_gguf: Path) -> None:
    stream = Responder("tiny", LocalEngine(importer.import_gguf(tiny_gguf))).stream(HELLO)
    gc.collect()
    assert list(stream)[-1].finish_reason in ("stop", "length")


def test_a_closed_model_says_so_and_does_not_load_itself_again(tiny_gguf: Path) -> None:
    for is_used in (True, False):
        with Responder("tiny", LocalEngine(importer.import_gguf(tiny_gguf))) as model:
            if is_used:
                model.complete(HELLO)
        model.close()  # twice is fine
        asks: list[Any] = [lambda: model.complete(HELLO), lambda: model.stream(HELLO), lambda: model.embed(["the"])]
        asks.append(lambda: model.embed([]))
        for ask in [*asks, lambda: model.score(HELLO, ["he"])]:
            with pytest.raises(StoppedError, match="the model is closed"):
                ask()


CTRL_C_AFTER_CLOSE = """
import signal, sys
from nomoat import responder
from nomoat.records import Request
for number in range(2):
    with responder.load(sys.argv[1]) as model:
        model.complete(Request(prompt="the hello", max_new_tokens=4))
        model.score(Request(prompt="the hello"), [" he"])
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("survived", number)
"""


def test_ctrl_c_after_an_engine_was_closed_is_an_exception_and_no_crash(tiny_gguf: Path) -> None:
    """The plugin's stack for signal handlers was unmapped under the main thread's feet."""
    done = subprocess.run([sys.executable, "-c", CTRL_C_AFTER_CLOSE, str(tiny_gguf)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "survived 0\nsurvived 1\n"), done.stderr


def test_closing_the_engine_ends_an_answer_under_way_with_an_error(engine: LocalEngine) -> None:
    stream = engine.generate(Request(prompt="the hello", max_new_tokens=240))
    next(stream)
    closer = threading.Thread(target=engine.close)
    closer.start()
    with pytest.raises(StoppedError, match="closed while it was answering"):
        for _ in stream:
            pass
    closer.join()


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(engine: LocalEngine) -> None:
    responder = Responder("tiny", engine)
    request = Request(prompt="hello the", max_new_tokens=20)
    whole = responder.complete(request).text
    stop = whole[5:8]
    assert len(stop) == 3
    request = Request(prompt="hello the", max_new_tokens=20, stop=("no such text", stop))
    stopped = responder.complete(request)
    assert stopped.text == whole[: whole.index(stop)] and stopped.finish_reason == "stop"
    assert [chunk.stopped_by for chunk in engine.generate(request)][-1] == stop


PIECES = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁hello", "▁", "h", "e"]


class Says:
    """In place of a sampler: these pieces, whatever the model finds likely."""

    pieces = ("▁hello", "<0xFF>", "▁the")

    def __init__(self, *asked: object, num_tokens: int) -> None:
        self._said = iter(self.pieces)

    def pick(self, logits_V: object) -> Pick:
        return Pick(PIECES.index(next(self._said)))


@pytest.fixture
def spaced(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEngine]:
    """With a SentencePiece vocabulary, and an adapter beside it."""
    kinds = [2, 3, 3, *[6] * 256, *[1] * 5]
    facts = {"model": "llama", "tokens": PIECES, "scores": [0.0] * len(PIECES), "token_type": kinds}
    facts |= {"bos_token_id": 1, "eos_token_id": 2}
    tokenizer = from_metadata({f"tokenizer.ggml.{name}": value for name, value in facts.items()})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}:"
    monkeypatch.setattr(local, "load_tokenizer", lambda folder: tokenizer)
    monkeypatch.setattr(local, "Sampler", Says)
    made = LocalEngine(importer.import_gguf(tiny_gguf, fused=False), beside=[write_adapter(tmp_path / "a")])
    yield made
    made.close()


def test_an_answer_of_sentencepiece_keeps_its_first_space_where_it_goes_on_with_a_text(spaced: LocalEngine) -> None:
    chat = (Message(role="user", content="the"),)
    ids = tuple(spaced.tokenizer.encode("the", add_bos=True))
    for engine in (spaced, spaced.adapted(0)):
        responder = Responder("x", engine)
        for request, text in (
            (Request(messages=chat, max_new_tokens=3), "hello\ufffd the"),
            (Request(messages=chat, answer_start="the", max_new_tokens=3), " hello\ufffd the"),
            (Request(prompt="the", max_new_tokens=3), " hello\ufffd the"),
            (Request(prompt_ids=ids, max_new_tokens=3), " hello\ufffd the"),
        ):
            assert responder.complete(request).text == text, request


def test_a_stop_string_is_looked_for_in_what_is_there_however_long_it_is() -> None:
    """A client may send one of 2 MiB. All its beginnings were tried at each token, which took a minute and could not be ended."""
    watch = local._StopWatch(["x" * 400_000])
    began = time.process_time()
    assert watch.push("what is said, x") == "what is said, " and watch.push("y") == "xy"
    assert time.process_time() - began < 2


def test_a_stop_string_that_the_last_bytes_complete_ends_the_answer(spaced: LocalEngine) -> None:
    """Bytes that are no text are certain only when nothing can follow them."""
    request = Request(prompt="the", max_new_tokens=2, stop=("lo\ufffd",))
    answer = Responder("x", spaced).complete(request)
    assert (answer.text, answer.finish_reason) == (" hel", "stop")


def test_a_token_s_part_of_the_text_is_known_without_the_vocabulary_of_grammars(spaced: LocalEngine) -> None:
    """Which had none for the byte 255, and takes a second to be made."""
    told = [spaced._likelihood(Pick(PIECES.index(piece), -1.0)).content for piece in ("<0xFF>", "<0xED>", "▁the", "h", "</s>")]
    assert told == [b"\xff", b"\xed", b" the", b"h", b"</s>"]
    assert spaced._likelihood(Pick(len(PIECES) + 1, -1.0)).content == b""
    assert spaced._grammars._ll_tokenizer is None


def test_views_of_one_model_have_one_context(spaced: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.footprint.USUAL_TOKENS", 64)
    views = [spaced.adapted(0), spaced.adapted(0), spaced]
    views[0].bound_cache(0)
    assert [view.context_tokens for view in views] == [64, 64, 64]


def test_more_likely_tokens_than_there_are_are_all_of_them(engine: LocalEngine) -> None:
    (likelihood,) = engine.prompt_likelihoods(Request(prompt_ids=(5, 6), top_logprobs=10**6))[1:]
    assert len({one.token_id for one in likelihood.top}) == engine._sizes.vocabulary


def test_of_several_texts_the_error_names_the_one_that_cannot_be_read(engine: LocalEngine) -> None:
    for row, why in (((), "has no tokens"), ([10**6], "token 1000000 is not one"), ([5] * 10**5, "is too long"),
                     ("x" * 10**6, "it has more than 256 tokens")):  # fmt: skip
        with pytest.raises(NomoatError, match=why) as raised:
            engine.embed(["the", row])
        assert raised.value.message.startswith("`texts[1]`: ") and str(raised.value) == raised.value.message
        assert raised.value.at == 1


def test_no_texts_have_no_embeddings(engine: LocalEngine) -> None:
    assert engine.embed([]).shape == (0, engine.embed(["the"]).shape[1])


def test_an_answer_that_is_cut_within_a_character_ends_with_the_one_before(
    spaced: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Half a Korean syllable, whether the model was cut in it or ended there itself, which is its doing."""
    for pieces, text, reason in (
        (("▁hello", "<0xED>", "<0x95>"), "hello", "length"),
        (("▁hello", "<0xED>", "</s>"), "hello\ufffd", "stop"),
        (("▁hello", "<0xFF>", "<0xED>"), "hello\ufffd", "length"),
    ):
        monkeypatch.setattr(Says, "pieces", pieces)
        answer = Responder("x", spaced).complete(Request(messages=(Message(role="user", content="the"),), max_new_tokens=3))
        assert (answer.text, answer.finish_reason) == (text, reason)


def test_a_prompt_over_the_context_is_refused_with_the_numbers(engine: LocalEngine) -> None:
    request = Request(prompt="x" * (CONTEXT + 44), max_new_tokens=5)
    with pytest.raises(ContextExceededError) as caught:
        next(engine.generate(request))
    assert caught.value.message == (
        "the prompt is too long: it has 300 tokens and the answer may have 5, but the model's context is 256 tokens"
    )
    assert caught.value.hint == "shorten the prompt, ask for fewer new tokens, or choose a model with a longer context"


def test_a_prompt_far_beyond_the_context_is_refused_without_being_cut_to_its_end(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A text of megabytes takes hundreds of them. On the wire its tokens stand where clients look for them, as so many "or more"."""
    cut, encode = list[int](), Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, text, **how: cut.append(len(text)) or encode(self, text, **how))
    request = Request(prompt="x" * 10**6, max_new_tokens=5)
    asked = ((5, lambda: next(engine.generate(request))), (1, lambda: engine.count_tokens(request)))
    for wanted, ask in asked:
        with pytest.raises(ContextExceededError) as caught:
            ask()
        assert caught.value.message == (
            f"the prompt is too long: it has more than 256 tokens and the answer may have {wanted}, "
            "but the model's context is 256 tokens"
        )
        assert caught.value.on_the_wire == (
            f"This model's maximum context length is 256 tokens. However, you requested {257 + wanted} tokens (257 in the messages, "
            f"{wanted} in the completion) or more. Please reduce the length of the messages or completion. The prompt is too long: "
            "257 tokens > 255 maximum."
        )
        again = pickle.loads(pickle.dumps(caught.value))  # as from another process
        assert (again.message, again.on_the_wire) == (caught.value.message, caught.value.on_the_wire)
    with pytest.raises(ContextExceededError, match="it has more than 256 tokens and the answer may have 0"):
        engine.prompt_likelihoods(Request(prompt="x" * 10**6))
    with pytest.raises(ContextExceededError, match="it has more than 256 tokens and the answer may have 1,"):
        engine.score(request, ["abcde"])
    assert max(cut) < 10**6


def test_a_continuation_far_beyond_the_context_is_refused_without_being_cut_to_its_end(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    cut, encode_many = list[str](), Tokenizer.encode_many
    monkeypatch.setattr(Tokenizer, "encode_many", lambda self, texts, **how: cut.extend(texts) or encode_many(self, texts, **how))
    for prompt in ("abc", "x" * 10**6):
        with pytest.raises(ContextExceededError) as caught:
            engine.score(Request(prompt=prompt), ["a", "x" * 10**6])
        assert caught.value.message.startswith(("the prompt has 3 tokens and the answer may have 256,", "the prompt is too long"))
    assert max(map(len, cut)) < 10**6


def test_a_prompt_over_a_context_that_the_user_shortened_says_to_raise_that(tiny_gguf: Path) -> None:
    engine = LocalEngine(importer.import_gguf(tiny_gguf), context_tokens=20)
    with pytest.raises(ContextExceededError) as caught:
        next(engine.generate(Request(prompt="x" * 30)))
    assert caught.value.hint == (
        "shorten the prompt, ask for fewer new tokens, or raise -c (in Python: `context_tokens`), "
        "or `context_tokens` where `nomoat config` says it is set"
    )


def test_a_text_longer_than_a_bounded_cache_is_refused(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.footprint.USUAL_TOKENS", 64)
    engine.bound_cache(0)
    assert engine.context_tokens == 64 < CONTEXT
    with pytest.raises(ContextExceededError, match="64"):
        list(engine.generate(Request(prompt="word " * 100, max_new_tokens=1)))
    whole = Responder("tiny", engine).complete(Request(prompt="a", max_new_tokens=None))
    assert whole.finish_reason in ("length", "stop")  # it ends where the cache does


@pytest.mark.parametrize("context", [64, 100, CONTEXT])
def test_a_cache_that_was_planned_for_a_context_holds_a_text_of_that_length(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, context: int
) -> None:
    """To the last token of an answer, guesses included."""
    monkeypatch.setattr("nomoat.footprint.USUAL_TOKENS", 32)
    engine = LocalEngine(importer.import_gguf(tiny_gguf), context_tokens=context)
    need = memory_need(open_source(tiny_gguf), context)
    engine.bound_cache(need.kv_cache_bytes)
    assert engine.context_tokens == context
    numbers = json.dumps({"type": "array", "items": {"const": 1}, "minItems": CONTEXT})
    completion = Responder("tiny", engine).complete(Request(prompt="[1,1,1,1,", max_new_tokens=None, json_schema=numbers))
    assert completion.usage.prompt_tokens + completion.usage.completion_tokens == context
    assert engine._started_batcher()._pool.num_blocks == -(-context // 32)
    engine.close()


def test_an_answer_ends_where_the_context_ends(engine: LocalEngine) -> None:
    completion = Responder("tiny", engine).complete(Request(prompt="x" * (CONTEXT - 3), max_new_tokens=100))
    assert completion.usage.completion_tokens <= 3


def test_an_answer_without_a_limit_may_go_on_to_the_end_of_the_context(engine: LocalEngine) -> None:
    letter = {"type": "array", "items": {"const": 1}, "minItems": CONTEXT}
    request = Request(prompt="x" * (CONTEXT - 40), max_new_tokens=None, json_schema=json.dumps(letter))
    completion = Responder("tiny", engine).complete(request)
    assert (completion.usage.completion_tokens, completion.finish_reason) == (40, "length")


def test_likelihoods_are_those_of_the_whole_text_read_at_once(engine: LocalEngine, tiny_gguf: Path) -> None:
    model = model_of_gguf(tiny_gguf)
    request = Request(prompt="the hello the")
    continuations = [" he", " the world", "x"]
    prompt = engine.tokenizer.prompt_ids(request)
    for text, score in zip(continuations, engine.score(request, continuations), strict=True):
        ids = engine.tokenizer.encode(text)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        expected = sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(ids))
        assert score.num_tokens == len(ids)
        assert score.log_probability == pytest.approx(expected, abs=0.25)  # activations rounded to 8 bits


@pytest.mark.data
def test_smollm2_knows_the_capital_of_france(smollm2_gguf: Path) -> None:
    engine = LocalEngine(importer.import_gguf(smollm2_gguf))
    question = Request(prompt="The capital of France is", max_new_tokens=5)  # asked in chat, this fragile model may say anything
    assert "Paris" in Responder("smollm2", engine).complete(question).text
    paris, london = engine.score(Request(prompt="The capital of France is"), [" Paris", " London"])
    assert paris.log_probability > london.log_probability + 1
    engine.close()


def test_a_seed_may_be_any_whole_number(engine: LocalEngine) -> None:
    for seed in (-1, 2**80):
        *_, last = engine.generate(Request(prompt="the", max_new_tokens=2, temperature=1.0, seed=seed))
        assert last.usage is not None
