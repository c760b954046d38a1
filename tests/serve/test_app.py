"""The server, asked by OpenAI's own SDK and by plain HTTP, over a real socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Never

import httpx
import openai
import pytest

import nomoat
from nomoat.engine.fake import FakeEngine
from nomoat.errors import NomoatError, RemoteError, UsageError
from nomoat.records import Chunk, Request, Usage
from nomoat.responder import Responder
from nomoat.serve.answers import Answers
from nomoat.serve.app import bind, create_app, serve

Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]
USAGE = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
END = Chunk(text="", finish_reason="stop", usage=USAGE)


class ScriptedEngine(FakeEngine):
    """Answers with what a function yields, and keeps what it was asked."""

    def __init__(self, script: Callable[[], Iterator[Chunk]], **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.asked: list[Request] = []
        self._script = script

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        yield from self._script()


def fake(**kwargs: object) -> Responder:
    return Responder("fake", FakeEngine(**kwargs))  # type: ignore[arg-type]


def ask(client: openai.OpenAI, text: str, **kwargs: object) -> object:
    return client.chat.completions.create(  # type: ignore[call-overload]
        **{"model": "fake", "messages": [{"role": "user", "content": text}], **kwargs}
    )


# ---------------------------------------------------------------- answers
def test_chat_answers_the_sdk_with_text_reason_and_usage(start: Start, sdk: Sdk) -> None:
    reply = ask(sdk(start(fake())), "one two three")
    assert reply.choices[0].message.content == "three two one"
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.model == "fake"
    assert reply.object == "chat.completion"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 3, 6)


def test_stream_gives_the_role_first_the_words_as_they_come_and_usage_last(start: Start, sdk: Sdk) -> None:
    events = list(ask(sdk(start(fake())), "one two three", stream=True, stream_options={"include_usage": True}))
    assert events[0].choices[0].delta.role == "assistant"
    assert [e.choices[0].delta.content for e in events[1:-2]] == ["three", " two", " one"]
    assert "".join(e.choices[0].delta.content or "" for e in events if e.choices) == "three two one"
    assert events[-2].choices[0].finish_reason == "stop"
    assert events[-1].choices == []
    assert events[-1].usage.total_tokens == 6
    assert len({e.id for e in events}) == 1


def test_stream_has_no_usage_unless_it_is_asked_for(start: Start, sdk: Sdk) -> None:
    events = list(ask(sdk(start(fake())), "one", stream=True))
    assert all(event.usage is None and event.choices for event in events)


def test_korean_and_emoji_come_back_whole(start: Start, sdk: Sdk) -> None:
    client = sdk(start(fake()))
    assert ask(client, "해자가 없다 👩‍🚀").choices[0].message.content == "👩‍🚀 없다 해자가"
    events = ask(client, "해자가 없다 👩‍🚀", stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in events) == "👩‍🚀 없다 해자가"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_limit_ends_the_answer_with_reason_length(start: Start, sdk: Sdk, name: str) -> None:
    reply = ask(sdk(start(fake())), "one two three", **{name: 2})
    assert reply.choices[0].message.content == "three two"
    assert reply.choices[0].finish_reason == "length"


def test_without_a_limit_the_answer_may_fill_what_the_context_leaves(start: Start, sdk: Sdk) -> None:
    engine = ScriptedEngine(lambda: iter([END]), context_tokens=100)
    ask(sdk(start(Responder("fake", engine))), "one two three")
    assert engine.asked[0].max_new_tokens == 97


def test_settings_reach_the_engine(start: Start, sdk: Sdk) -> None:
    engine = ScriptedEngine(lambda: iter([END]))
    ask(sdk(start(Responder("fake", engine))), "hi", temperature=0.5, top_p=0.9, seed=7, stop=["\n"], max_tokens=5)
    asked = engine.asked[0]
    assert (asked.temperature, asked.top_p, asked.seed, asked.stop, asked.max_new_tokens) == (0.5, 0.9, 7, ("\n",), 5)


def test_text_completion_continues_a_prompt_without_a_template(start: Start, sdk: Sdk) -> None:
    client = sdk(start(fake()))
    reply = client.completions.create(model="fake", prompt="one two", max_tokens=9)
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("two one", "stop")
    events = list(client.completions.create(model="fake", prompt="one two", stream=True))
    assert "".join(event.choices[0].text for event in events) == "two one"


def test_models_are_listed_under_the_names_they_are_served_as(start: Start, sdk: Sdk) -> None:
    client = sdk(start({"a": fake(), "b": fake()}))
    assert [model.id for model in client.models.list()] == ["a", "b"]
    assert ask(client, "x y", model="b").model == "b"


def test_eight_requests_are_answered_at_the_same_time(start: Start, sdk: Sdk) -> None:
    barrier = threading.Barrier(8, timeout=10)  # breaks, and fails the requests, unless eight engines wait at once

    def script() -> Iterator[Chunk]:
        barrier.wait()
        yield Chunk(text="ok")
        yield END

    client = sdk(start(Responder("fake", ScriptedEngine(script))))
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: ask(client, "hi"), range(8)))
    assert [reply.choices[0].message.content for reply in replies] == ["ok"] * 8


# ---------------------------------------------------------------- refusals
def test_prompt_longer_than_the_context_is_refused_with_the_numbers(start: Start, sdk: Sdk) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(sdk(start(fake(context_tokens=3))), "one two three four", max_tokens=5, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.body["message"] == (
            "the prompt has 4 tokens and the answer may have 5, but the model's context is 3 tokens; "
            "shorten the prompt, ask for fewer new tokens, or choose a model with a longer context"
        )


def test_body_that_is_too_long_is_refused_before_it_is_read_whole(start: Start) -> None:
    with httpx.Client(base_url=start(fake()), trust_env=False) as client:
        reply = client.post("/chat/completions", content=b'{"messages": [{"role": "user", "content": "' + b"a " * (2 << 20))
        assert (reply.status_code, reply.json()["error"]["message"]) == (413, "the body is longer than 2,097,152 bytes")
        assert client.get("/models").status_code == 200


def test_unknown_model_is_a_404_that_names_the_known(start: Start, sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(sdk(start(fake())), "hi", model="gpt-4o")
    assert caught.value.code == "model_not_found"
    assert caught.value.body["message"] == "there is no model `gpt-4o` here; known: fake"


def test_wrong_and_missing_keys_are_refused_and_health_needs_none(start: Start, sdk: Sdk) -> None:
    url = start(fake(), api_key="s3cret-key")
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(sdk(url, api_key="other"), "hi")
    assert caught.value.body["message"] == "the API key is wrong"
    assert httpx.get(f"{url}/models").json()["error"]["message"] == "an API key is needed: `Authorization: Bearer KEY`"
    assert httpx.get(url.replace("/v1", "/health")).json() == {"status": "ok"}


def test_right_key_is_let_in_under_any_host_name(start: Start) -> None:
    url = start(fake(), api_key="s3cret")
    headers = {"authorization": "Bearer s3cret", "host": "nomoat.example"}
    assert httpx.get(f"{url}/models", headers=headers).status_code == 200


def test_tools_are_refused_by_name(start: Start, sdk: Sdk) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk(start(fake())), "hi", tools=tools)
    assert caught.value.body == {
        "message": "`tools` is not supported", "type": "invalid_request_error", "param": "tools", "code": "unsupported",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_body_that_is_no_json_object_is_a_400(start: Start, body: bytes) -> None:
    answer = httpx.post(f"{start(fake())}/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the body is no JSON object: ")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"host": "evil.example:8080"}, "this server answers its own machine only, and the request's host is `evil.example:8080`"),
        ({"origin": "https://evil.example"}, "this server answers its own machine only, and the request's origin is `https://evil.example`"),
        ({"origin": "null"}, "this server answers its own machine only, and the request's origin is `null`"),
    ],
)  # fmt: skip
def test_web_pages_cannot_reach_a_server_without_a_key(start: Start, headers: dict[str, str], message: str) -> None:
    answer = httpx.get(f"{start(fake())}/models", headers=headers)
    assert answer.status_code == 403
    assert answer.json() == {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "wrong_host"}}


@pytest.mark.parametrize(
    ("path", "message"),
    [("/nothing", "GET /nothing: not found"), ("/docs", "GET /docs: not found"),
     ("/v1/chat/completions", "GET /v1/chat/completions: method not allowed")],
)  # fmt: skip
def test_paths_that_are_not_there_answer_in_the_same_form(start: Start, path: str, message: str) -> None:
    answer = httpx.get(start(fake()).replace("/v1", path))
    assert answer.json()["error"]["message"] == message


# ---------------------------------------------------------------- failures and ends
def endless(closed: threading.Event) -> Iterator[Chunk]:
    try:
        while True:
            yield Chunk(text="word ")
            time.sleep(0.01)
    finally:
        closed.set()


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_stops_the_engine(start: Start, stream: bool) -> None:
    closed = threading.Event()
    url = start(Responder("fake", ScriptedEngine(lambda: endless(closed))))
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with (
        httpx.Client(timeout=0.5) as client,
        client.stream("POST", f"{url}/chat/completions", json=body) if stream else (pytest.raises(httpx.ReadTimeout)) as answer,
    ):
        if stream:
            next(answer.iter_bytes())
        else:
            client.post(f"{url}/chat/completions", json=body)
    assert closed.wait(5)


def test_client_that_goes_away_while_it_sends_is_no_failure_of_the_server(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    url = httpx.URL(start(fake()))
    with socket.create_connection((url.host, url.port or 0)) as half:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{")
        time.sleep(0.3)
    time.sleep(0.3)
    assert httpx.get(f"{url}/models").status_code == 200
    assert "ClientDisconnect" not in caplog.text


class SlowReader(FakeEngine):
    """Reads until it is told to stop, as an engine does."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = threading.Event()

    def embed(self, texts: Sequence[str], *, stop: threading.Event | None = None) -> Never:
        assert stop is not None and stop.wait(10)
        self.stopped.set()
        raise NomoatError("the reading was stopped")

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> Never:
        self.embed([], stop=stop)


@pytest.mark.parametrize(
    ("path", "body"),
    [("embeddings", {"input": "hi"}), ("completions", {"prompt": "hi", "echo": True, "logprobs": 1, "max_tokens": 1})],
)
def test_client_that_goes_away_stops_what_is_read_for_it(start: Start, path: str, body: dict[str, object]) -> None:
    engine = SlowReader()
    url = start(Responder("fake", engine))
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{url}/{path}", json={"model": "fake", **body}, timeout=0.5)
    assert engine.stopped.wait(5)
    metrics = httpx.get(url.replace("/v1", "/metrics")).text
    assert 'nomoat_requests_total{model="fake",outcome="gone"} 1.0' in metrics


def test_stopping_the_answers_stops_other_work_too() -> None:
    async def main() -> bool:
        answers = Answers()
        begun = threading.Event()

        def work(stop: threading.Event) -> bool:
            begun.set()
            return stop.wait(10)

        working = asyncio.ensure_future(answers.work(work))
        await asyncio.to_thread(begun.wait, 5)
        answers.stop()
        try:
            return await working
        finally:
            answers.close()

    started = time.monotonic()
    assert asyncio.run(main()) and time.monotonic() - started < 8


def test_error_after_the_answer_has_begun_reaches_the_client_as_an_event(start: Start, sdk: Sdk) -> None:
    def script() -> Iterator[Chunk]:
        yield Chunk(text="so far ")
        raise RemoteError("the other server is gone")

    seen = []
    with pytest.raises(openai.APIError) as caught:
        for event in ask(sdk(start(Responder("fake", ScriptedEngine(script)))), "hi", stream=True):
            seen.append(event.choices[0].delta.content)
    assert seen == ["", "so far "]
    assert caught.value.message == "the other server is gone"


def test_bug_in_an_engine_is_a_500_that_logs_where_but_not_the_prompt(
    start: Start, sdk: Sdk, caplog: pytest.LogCaptureFixture
) -> None:
    def script() -> Iterator[Chunk]:
        raise KeyError("top secret prompt")
        yield

    with pytest.raises(openai.InternalServerError) as caught:
        ask(sdk(start(Responder("fake", ScriptedEngine(script)))), "top secret prompt")
    assert caught.value.body["message"] == "the engine failed: KeyError; this is a bug; the server's log says where"
    (record,) = [row for row in caplog.records if row.name == "nomoat.serve"]
    assert "KeyError" in record.getMessage() and "in script" in record.getMessage()
    assert "KeyError: " not in caplog.text


def test_no_prompt_and_no_answer_is_logged(
    start: Start, sdk: Sdk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    ask(sdk(start(fake())), "xyzzy plugh")
    output = capfd.readouterr()
    assert "xyzzy" not in caplog.text + output.out + output.err


# ---------------------------------------------------------------- serve()
def test_serve_refuses_to_open_to_others_without_a_key() -> None:
    with pytest.raises(UsageError) as caught:
        serve("fake:", host="0.0.0.0")
    assert caught.value.message == "`0.0.0.0` can be reached from other machines, and there is no API key"


@pytest.mark.parametrize("key", ["비밀-key", "clé", " s3cret", "a\nb"])
def test_key_that_no_client_could_send_is_refused_at_the_start(key: str) -> None:
    for begin in (lambda: serve("no such model", port=0, api_key=key), lambda: create_app(fake(), api_key=key)):
        with pytest.raises(UsageError) as caught:
            begin()
        assert caught.value.message == "the API key holds characters that a header cannot carry"
        assert caught.value.hint == "use letters without accents, digits and signs only"


def test_serve_says_that_the_port_is_in_use_before_it_loads_anything() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            serve("no such model", port=port)
    assert caught.value.message == f"port {port} of `127.0.0.1` is in use"
    assert caught.value.hint == f"choose another: `--port {port + 1}`"


def test_bind_prefers_ipv4_for_localhost_and_refuses_what_is_no_address() -> None:
    with bind("localhost", 0) as listener:
        assert listener.family == socket.AF_INET
    with pytest.raises(UsageError, match=r"`192\.0\.2\.1` port 0"):
        bind("192.0.2.1", 0)


def test_app_needs_a_model() -> None:
    with pytest.raises(UsageError, match="there is no model to serve"):
        create_app({})


def test_nomoat_serve_can_be_called_whatever_was_imported_before() -> None:
    for first in ("import nomoat", "import nomoat.serve.app, nomoat"):
        code = f"{first}\ntry: nomoat.serve('fake:', host='0.0.0.0')\nexcept nomoat.errors.UsageError as e: print(e.message)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "`0.0.0.0` can be reached from other machines, and there is no API key\n"
    assert callable(nomoat.serve)
