"""The server, asked by OpenAI's own SDK and by plain HTTP, over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never, cast
from unittest import mock

import httpx
import openai
import pytest
from leaving import asking, endless
from misbehaving import FINE, Server, Silent, say
from patience import PATIENCE_SECONDS, wait_until
from scripted import ScriptedEngine
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

import nomoat
from nomoat import net, responder
from nomoat.engine import importer
from nomoat.engine.batching import Batcher
from nomoat.engine.fake import FakeEngine
from nomoat.engine.local import LocalEngine
from nomoat.engine.texts import Answer
from nomoat.errors import (
    ContextExceededError,
    NomoatError,
    NotEnoughMemoryError,
    RemoteError,
    StoppedError,
    UnknownModelError,
    UsageError,
)
from nomoat.records import Chunk, Place, Request, ToolCall, Usage
from nomoat.responder import Responder
from nomoat.route.policy import Policy
from nomoat.route.router import RouterEngine
from nomoat.serve import app, connections, replies, served
from nomoat.serve.answers import Answer as Written
from nomoat.serve.answers import Answers, Item
from nomoat.serve.app import create_app, serve
from nomoat.serve.auth import Guard
from nomoat.serve.models import Loader, Models

Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]
WITH_A_KEY = "start it with `--api-key KEY` (in Python: `api_key`) or NOMOAT_API_KEY"
OTHER_PAGES = f"a key lets other pages in: {WITH_A_KEY}, and `--cors ORIGIN` (in Python: `cors`)"
SENT = "authorization,content-type"
USAGE = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
END = Chunk(text="", finish_reason="stop", usage=USAGE)


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


def test_without_a_limit_an_engine_that_knows_its_context_itself_is_told_none(start: Start, sdk: Sdk) -> None:
    engine = ScriptedEngine(lambda: iter([END]))
    engine.context_tokens = None
    ask(sdk(start(Responder("fake", engine))), "one two three")
    assert engine.asked[0].max_new_tokens is None


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


def test_one_model_is_told_by_its_name_whatever_signs_that_has(start: Start, sdk: Sdk) -> None:
    names = ["a+b", "http://host/v1#m", "한국.gguf"]
    client = sdk(start({name: fake() for name in names}))
    assert [client.models.retrieve(name).id for name in names] == names
    assert client.models.retrieve("a+b") == client.models.list().data[0]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt/4o")
    assert (caught.value.code, caught.value.body["message"]) == (
        "model_not_found", f"there is no model `gpt/4o` here; known: {', '.join(names)}",
    )  # fmt: skip


def test_eight_requests_are_answered_at_the_same_time(start: Start, sdk: Sdk) -> None:
    barrier = threading.Barrier(8, timeout=PATIENCE_SECONDS)  # breaks, and fails the requests, unless eight engines wait at once

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
    """In the words by which LiteLLM and others know OpenAI's and vLLM's error, and LangChain Anthropic's."""
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(sdk(start(fake(context_tokens=3))), "one two three four", max_tokens=2000, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.body["message"] == (
            "This model's maximum context length is 3 tokens. However, you requested 2004 tokens (4 in the messages, 2000 in the "
            "completion). Please reduce the length of the messages or completion. The prompt is too long: 4 tokens > 2 maximum."
        )
    _, body = replies.render_error(ContextExceededError(prompt_tokens=4, max_new_tokens=2000, context_tokens=5))
    assert body["error"]["message"] == (
        "This model's maximum context length is 5 tokens. However, you requested 2004 tokens (4 in the messages, 2000 in the "
        "completion). Please reduce the length of the messages or completion."
    )
    status, body = replies.render_error(ContextExceededError(prompt_tokens=None, max_new_tokens=2000, context_tokens=5))
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")  # so long that it was not counted
    assert re.search(
        r"you requested (\d+) tokens \((\d+) in the messages, \d+ in the completion\) or more\.", body["error"]["message"]
    )


def test_body_that_is_too_long_is_refused_before_it_is_read_whole(start: Start) -> None:
    with httpx.Client(base_url=start(fake()), trust_env=False) as client:
        reply = client.post("/chat/completions", content=b'{"messages": [{"role": "user", "content": "' + b"a " * (2 << 20))
        assert (reply.status_code, reply.json()["error"]["message"]) == (413, "the body is longer than 2,097,152 bytes")
        assert client.get("/models").status_code == 200


def test_many_korean_texts_are_embedded_at_once_and_too_many_are_told_to_come_in_parts(start: Start) -> None:
    url = start(fake())
    reply = httpx.post(f"{url}/embeddings", json={"input": ["해자" * 400] * 1000})
    assert (reply.status_code, len(reply.json()["data"])) == (200, 1000)
    reply = httpx.post(f"{url}/embeddings", content=b" " * ((16 << 20) + 1))
    assert (reply.status_code, reply.json()["error"]["message"]) == (
        413, "the body is longer than 16,777,216 bytes; send fewer texts at once",
    )  # fmt: skip


def test_unknown_model_is_a_404_that_names_the_known(start: Start, sdk: Sdk) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(sdk(start(fake())), "hi", model="gpt-4o")
    assert caught.value.code == "model_not_found"
    assert caught.value.body["message"] == "there is no model `gpt-4o` here; known: fake"


def test_wrong_and_missing_keys_are_refused_and_health_needs_none(start: Start, sdk: Sdk) -> None:
    url = start(fake(), api_key="s3cret-key")
    with pytest.raises(openai.AuthenticationError) as caught:
        ask(sdk(url, api_key="other"), "hi")
    assert caught.value.body["message"] == "Incorrect API key provided: it is not this server's"  # LiteLLM knows it by these words
    assert httpx.get(f"{url}/models").json()["error"]["message"] == "an API key is needed: `Authorization: Bearer KEY`"
    assert httpx.get(url.replace("/v1", "/health")).json() == {"status": "ok"}


def test_right_key_is_let_in_under_any_host_name(start: Start) -> None:
    url = start(fake(), api_key="s3cret")
    headers = {"authorization": "Bearer s3cret", "host": "nomoat.example"}
    assert httpx.get(f"{url}/models", headers=headers).status_code == 200


def test_tools_of_the_older_form_are_refused_by_name(start: Start, sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk(start(fake())), "hi", functions=[{"name": "f", "parameters": {}}])
    assert caught.value.body == {
        "message": "`functions` is not supported; use `tools`",
        "type": "invalid_request_error", "param": "functions", "code": "unsupported",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"text"'])
def test_body_that_is_no_json_object_is_a_400(start: Start, body: bytes) -> None:
    answer = httpx.post(f"{start(fake())}/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the body is no JSON object: ")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"host": "evil.example:8080"}, "host is `evil.example:8080`; a key lets others in: " + WITH_A_KEY),
        ({"origin": "https://evil.example"}, f"origin is `https://evil.example`; {OTHER_PAGES}"),
        ({"origin": "http://localhost.evil.example"}, f"origin is `http://localhost.evil.example`; {OTHER_PAGES}"),
        ({"origin": "http://127.999.1.1"}, f"origin is `http://127.999.1.1`; {OTHER_PAGES}"),
        ({"origin": "null"}, f"origin is `null`; {OTHER_PAGES}"),
        ({"sec-fetch-site": "cross-site"}, f"sec-fetch-site is `cross-site`; {OTHER_PAGES}"),
    ],
)  # fmt: skip
def test_web_pages_cannot_reach_a_server_without_a_key(start: Start, headers: dict[str, str], message: str) -> None:
    answer = httpx.get(f"{start(fake())}/models", headers=headers)
    assert answer.status_code == 403
    message = f"this server answers its own machine only, and the request's {message}"
    assert answer.json() == {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "wrong_host"}}
    assert "access-control-allow-origin" not in answer.headers
    asked_ahead = ahead(str(answer.url), headers.get("origin", "https://evil.example"))
    assert (asked_ahead.status_code, asked_ahead.headers.get("access-control-allow-origin")) == (400, None)


def test_a_page_of_elsewhere_has_no_model_loaded_by_a_picture_and_may_lead_to_this_page(start: Start) -> None:
    """A page of this machine's, at another of its names, is one of elsewhere for the browser, and says whose it is."""
    loaded: list[str] = []

    def load() -> list[Responder]:
        loaded.append("fake")
        return [Responder("fake", FakeEngine())]

    url = start(Models(loaders=[Loader(names=("fake",), planned_bytes=1, load=load)], memory_bytes=1)).removesuffix("/v1")
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert httpx.get(f"{url}/tokenizer_info?model=fake", headers=picture).status_code == 403
    assert loaded == []
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    for path, headers in (
        ("/", link),
        ("/health", picture),
        ("/v1/models", {"sec-fetch-site": "cross-site", "origin": "http://localhost:3000"}),
        ("/v1/models", {"sec-fetch-site": "same-origin"}),
        ("/v1/models", {"sec-fetch-site": "none"}),
    ):
        assert httpx.get(f"{url}{path}", headers=headers).status_code == 200, (path, headers)
    keyed = start(fake(), api_key="secret")
    assert httpx.get(f"{keyed}/models", headers={"authorization": "Bearer secret", **picture}).status_code == 200


def ahead(url: str, origin: str, method: str = "POST") -> httpx.Response:
    """What a browser asks before it sends a page's request: no key, no body."""
    return httpx.options(
        url,
        headers={"origin": origin, "access-control-request-method": method, "access-control-request-headers": SENT},
    )


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000", "https://127.0.0.1", "http://127.10.200.255", "http://[::1]:5173", "tauri://localhost",
        "capacitor://localhost",
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", [None, "s3cret"])
def test_web_pages_of_this_machine_may_ask_and_read_the_answer(start: Start, origin: str, key: str | None) -> None:
    url = f"{start(fake(), api_key=key)}/chat/completions"
    asked_ahead = ahead(url, origin)
    allowed = {name: asked_ahead.headers[f"access-control-allow-{name}"] for name in ("origin", "methods", "headers")}
    assert (asked_ahead.status_code, allowed) == (
        200, {"origin": origin, "methods": "GET, HEAD, POST", "headers": SENT},
    )  # fmt: skip
    headers = {"origin": origin, **({"authorization": f"Bearer {key}"} if key else {})}
    answer = httpx.post(url, json={"messages": [{"role": "user", "content": "hi"}]}, headers=headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert "x-nomoat-where" in answer.headers["access-control-expose-headers"]
    if key:
        refused = httpx.post(url, headers={"origin": origin})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)


def test_a_page_of_the_network_may_ask_this_machine_where_it_is_named(start: Start) -> None:
    """Chrome asks that ahead, where a page comes from an address that more can reach than the server's."""
    url = f"{start(fake(), api_key='s3cret', cors=['https://chat.example'])}/models"
    headers = {"access-control-request-method": "GET", "access-control-request-private-network": "true"}
    answer = httpx.options(url, headers={"origin": "https://chat.example", **headers})
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")
    assert httpx.options(url, headers={"origin": "https://evil.example", **headers}).status_code == 400


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_web_pages_may_read_with_the_key_whether_they_want_a_body_or_not(start: Start, method: str) -> None:
    url, origin = f"{start(fake(), api_key='s3cret')}/models", "http://localhost:3000"
    assert ahead(url, origin, method).status_code == 200
    answer = httpx.request(method, url, headers={"origin": origin, "authorization": "Bearer s3cret"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)


def test_other_web_pages_need_the_key_and_to_be_named(start: Start) -> None:
    named = ["https://chat.example", "app://obsidian.md"]
    url = f"{start(fake(), api_key='s3cret', cors=named)}/models"
    for origin, allowed in ((named[0], named[0]), (named[1], named[1]), ("https://evil.example", None)):
        assert ahead(url, origin).headers.get("access-control-allow-origin") == allowed
        answer = httpx.get(url, headers={"origin": origin, "authorization": "Bearer s3cret"})
        assert (answer.status_code, answer.headers.get("access-control-allow-origin")) == (200, allowed)
        assert httpx.get(url, headers={"origin": origin}).status_code == 401


def test_a_host_that_is_none_and_one_origin_for_several_are_refused() -> None:
    nothing: Any = None
    with pytest.raises(UsageError, match="`host` is of the type NoneType, not a text"):
        serve(fake(), host=nothing)
    with pytest.raises(UsageError, match="several origins may be let in, and this is one str"):
        serve(fake(), cors="https://chat.example", api_key="k")


@pytest.mark.parametrize(
    "origin", ["chat.example", "https://chat.example/", "https://Chat.example", "*", "null", "https://a@b.example"]
)
def test_what_no_browser_sends_as_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_app(fake(), api_key="k", cors=[origin])
    assert caught.value.message == f"`{origin}` is no origin of web pages"
    assert caught.value.hint == "write it as browsers do, in small letters and without a path: https://HOST:PORT"


def test_other_web_pages_without_a_key_are_refused_at_the_start() -> None:
    for begin in (lambda **cors: serve("no such model", port=0, **cors), lambda **cors: create_app(fake(), **cors)):
        with pytest.raises(UsageError) as caught:
            begin(cors=["https://chat.example"])
        assert caught.value.message == "pages of `https://chat.example` are to be let in, and there is no API key"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1:{port}/v1/models", 200),
        ("HTTP://localhost/v1/models?x=/", 200),
        ("http://localhost", 200),  # the page
        ("http://evil.example/v1/models", 403),
        ("ftp://localhost/v1/models", 404),
    ],
)
def test_a_request_for_a_whole_url_is_one_for_its_path_at_its_host(start: Start, target: str, status: int) -> None:
    port = httpx.URL(start(fake())).port
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(f"GET {target.format(port=port)} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        assert client.makefile("rb").readline().split()[1] == str(status).encode()


@pytest.mark.parametrize(
    ("key", "headers", "is_let_in"),
    [
        (None, {"host": "127.0.0.1"}, True),
        (None, {"host": "127.0.0.1", "origin": "https://evil.example"}, False),
        (None, {"host": "evil.example"}, False),
        ("s3cret", {"host": "127.0.0.1"}, False),
        ("s3cret", {"authorization": "Bearer s3cret"}, True),
    ],
)
def test_guard_stands_in_front_of_web_sockets_too(key: str | None, headers: dict[str, str], is_let_in: bool) -> None:
    told: list[object] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        told.append("let in")

    async def send(message: object) -> None:
        told.append(message)

    scope = {
        "type": "websocket", "path": "/ws", "server": ("127.0.0.1", 8080),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    asyncio.run(Guard(behind, api_key=key)(scope, None, send))  # type: ignore[arg-type]
    assert told == (["let in"] if is_let_in else [{"type": "websocket.close", "code": 1008, "reason": ""}])


@pytest.mark.parametrize(
    ("path", "message"),
    [("/nothing", "GET /nothing: not found; the API is under /v1, as in /v1/chat/completions"),
     ("/chat/completions", "GET /chat/completions: not found; the API is under /v1, as in /v1/chat/completions"),
     ("/v1/responses/resp_1",
      "`/v1/responses/resp_1` is not served; served are /v1/chat/completions, /v1/completions, /v1/responses, /v1/messages, "
      "/v1/messages/count_tokens, /v1/embeddings, /v1/models"),
     ("/v1/rerank", "`/v1/rerank` is not served; likelihoods of texts: `/v1/completions` with `echo`, `logprobs` and `max_tokens` 0"),
     ("/api/tags",
      "GET /api/tags: not found; this is OpenAI's API, not Ollama's or LM Studio's: its clients take a base URL that ends in /v1"),
     ("/metrics/", "GET /metrics/: not found; `/metrics` is served, without a slash at its end"),
     ("/reports/score", "GET /reports/score: not found; the API is under /v1, as in /v1/chat/completions"),
     ("/v1/chat/completions", "GET /v1/chat/completions: method not allowed")],
)  # fmt: skip
def test_paths_that_are_not_there_answer_in_the_same_form(start: Start, path: str, message: str) -> None:
    base = start(fake()).removesuffix("/v1")
    assert httpx.get(f"{base}{path}").json()["error"]["message"] == message


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health"])
def test_a_slash_at_the_end_is_another_path_and_nobody_is_sent_on(start: Start, path: str) -> None:
    """A redirect would name an address that is not that of a proxy in front; and its limits are for the paths as they are."""
    answer = httpx.post(f"{start(fake()).removesuffix('/v1')}{path}/", json={"messages": [{"role": "user", "content": "hi"}]})
    assert answer.status_code == 404 and f"{path}/" in answer.json()["error"]["message"]


def test_a_call_that_others_have_is_unsupported_here(start: Start, sdk: Sdk) -> None:
    """As an answer of an earlier request, none of which is kept."""
    with pytest.raises(openai.NotFoundError, match="`/v1/responses/resp_1` is not served") as caught:
        sdk(start(fake())).responses.retrieve("resp_1")
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}), ("completions", {"prompt": "hi"}),
        ("responses", {"input": "hi"}), ("embeddings", {"input": "hi"}),
    ],
)  # fmt: skip
def test_a_packed_body_is_refused_as_such(start: Start, path: str, body: dict[str, Any]) -> None:
    url = f"{start(fake())}/{path}"
    answer = httpx.post(url, content=gzip.compress(json.dumps(body).encode()), headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported")
    assert answer.json()["error"]["message"] == "`Content-Encoding: gzip` is not supported; send the body as it is"
    assert httpx.post(url, json=body, headers={"content-encoding": "identity"}).status_code == 200


def test_a_proxy_is_told_to_pass_a_stream_on_as_it_comes(start: Start) -> None:
    """nginx gathers answers unless it is told not to, so that words come in lumps and signs of life not at all."""
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    assert httpx.post(f"{start(fake())}/chat/completions", json=body).headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("path", ["/health", "/metrics", "/", "/v1/models", "/v1/models/fake"])
def test_what_is_read_answers_head_without_a_body(start: Start, path: str) -> None:
    """As `curl -I`, `wget --spider` and the checks of containers ask."""
    url = start(fake()).replace("/v1", path)
    answer = httpx.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == httpx.get(url).headers["content-type"]


def test_the_model_of_no_name_is_the_list(start: Start) -> None:
    url = start(fake())
    assert httpx.get(f"{url}/models/").json() == httpx.get(f"{url}/models").json()


# ---------------------------------------------------------------- failures and ends
@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_stops_the_engine(start: Start, stream: bool) -> None:
    begun, closed = threading.Event(), threading.Event()
    url = start(Responder("fake", ScriptedEngine(lambda: endless(begun, closed))))
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with asking(f"{url}/chat/completions", body) as client:
        assert begun.wait(PATIENCE_SECONDS)
        if stream:
            assert client.recv(1)
        assert not closed.is_set()
    assert closed.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_ends_the_request_to_another_server(start: Start, serving: Callable[..., Server], stream: bool) -> None:
    silent = Silent()
    with responder.load(f"{serving(silent).url}#m") as elsewhere:
        url = start(elsewhere)
        with asking(f"{url}/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": stream}):
            assert silent.asked.wait(PATIENCE_SECONDS)
        assert silent.hung_up.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("theirs", "status"), [(429, 429), (503, 502)])
def test_wait_that_another_server_asks_for_is_passed_on(
    start: Start, serving: Callable[..., Server], theirs: int, status: int, stream: bool
) -> None:
    busy = serving(say(theirs, {"error": {"message": "later"}}, headers={"retry-after": "1799.2"}))
    with responder.load(f"{busy.url}#m") as elsewhere:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        told = httpx.post(f"{start(elsewhere)}/chat/completions", json=body, headers={"origin": "http://localhost"})
        assert (told.status_code, told.headers["retry-after"]) == (status, "1800")
        assert "retry-after" in told.headers["access-control-expose-headers"]


def test_a_key_that_another_server_refuses_as_a_bad_request_is_not_the_clients_fault(
    start: Start, serving: Callable[..., Server]
) -> None:
    refused = serving(say(400, [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}]))
    with responder.load(f"{refused.url}#m") as elsewhere:
        told = httpx.post(f"{start(elsewhere)}/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
    assert (told.status_code, told.json()["error"]["code"]) == (502, "upstream_error")


NO_SEED = say(400, {"error": {"message": "Unknown name seed"}})


@pytest.mark.parametrize("stream", [True, False])
def test_setting_that_another_server_refused_is_told_in_a_header_of_the_answers_it_concerns(
    start: Start, serving: Callable[..., Server], stream: bool
) -> None:
    behind = serving(NO_SEED, FINE)
    with responder.load(f"{behind.url}#m") as elsewhere:
        url = start(elsewhere)
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        told = [
            httpx.post(f"{url}/chat/completions", json={**body, **fields}, headers={"origin": "http://localhost"})
            for fields in ({"seed": 1}, {"seed": 2}, {})
        ]
    assert [reply.headers.get("x-nomoat-notes") for reply in told] == [
        *["`m` at `127.0.0.1` refuses `seed`: asked again it may answer otherwise"] * 2, None,
    ]  # fmt: skip
    assert "x-nomoat-notes" in told[0].headers["access-control-expose-headers"]


def test_client_that_goes_away_while_it_sends_is_no_failure_of_the_server(
    start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended, read = threading.Event(), threading.Event(), served._body

    async def watched(*args: Any, **kwargs: Any) -> bytes:
        begun.set()
        try:
            return await read(*args, **kwargs)
        finally:
            ended.set()

    monkeypatch.setattr(served, "_body", watched)
    url = httpx.URL(start(fake()))
    with socket.create_connection((url.host, url.port or 0)) as half:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{")
        assert begun.wait(PATIENCE_SECONDS)
    assert ended.wait(PATIENCE_SECONDS)
    assert httpx.get(f"{url}/models").status_code == 200
    assert "ClientDisconnect" not in caplog.text


class SlowReader(FakeEngine):
    """Reads until it is told to stop, as an engine does."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.stopped = threading.Event(), threading.Event()

    def embed(self, texts: Sequence[str], *, stop: threading.Event | None = None) -> Never:
        self.begun.set()
        assert stop is not None and stop.wait(PATIENCE_SECONDS)
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
    with asking(f"{url}/{path}", {"model": "fake", **body}):
        assert engine.begun.wait(PATIENCE_SECONDS)
        assert not engine.stopped.is_set()
    assert engine.stopped.wait(PATIENCE_SECONDS)
    counted = 'nomoat_requests_total{model="fake",outcome="gone"} 1.0'
    wait_until(lambda: counted in httpx.get(url.replace("/v1", "/metrics")).text, counted)
    assert "nomoat_http_errors_total{" not in httpx.get(url.replace("/v1", "/metrics")).text


@pytest.mark.parametrize(("written", "counted"), [(3, {"prompt": 5.0, "completion": 3.0}), (0, {})])
@pytest.mark.parametrize("stream", [True, False])
def test_tokens_of_an_answer_whose_client_left_are_counted(
    start: Start, stream: bool, written: int, counted: dict[str, float]
) -> None:
    """But for those of a prompt that was perhaps not read to its end."""
    begun = threading.Event()

    def until_left() -> Iterator[Chunk]:
        while not net.asker_has_left():
            yield Chunk(text="word ")
            begun.set()
            time.sleep(0.01)
        usage = Usage(prompt_tokens=7, cached_tokens=2, completion_tokens=written, prefill_seconds=0, decode_seconds=0)
        yield Chunk(text="", finish_reason="cancelled", usage=usage)

    url = start(Responder("fake", ScriptedEngine(until_left)))
    with asking(f"{url}/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "stream": stream}):
        assert begun.wait(PATIENCE_SECONDS)
    wait_until(lambda: "nomoat_answers_under_way 0.0" in httpx.get(url.replace("/v1", "/metrics")).text, "the answer's end")
    found = re.findall(r"^nomoat_(\w+)_tokens_total{.*} (\S+)$", httpx.get(url.replace("/v1", "/metrics")).text, re.M)
    assert {kind: float(number) for kind, number in found} == counted


def test_the_memory_of_the_process_and_of_keys_and_values_is_told(start: Start, tiny_gguf: Path) -> None:
    """What stays of short texts, which are all kept, is no more than what the cache may take."""
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    url = start({"tiny": Responder("tiny", engine), "fake": fake()})

    def told() -> dict[str, float]:
        lines = httpx.get(url.replace("/v1", "/metrics")).text.splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    assert not [name for name in told() if "kv_cache" in name]  # nothing was asked
    used, most = 'nomoat_kv_cache_bytes{model="tiny"}', 'nomoat_kv_cache_max_bytes{model="tiny"}'
    seen = []
    for at in range(2):
        body = {"model": "tiny", "prompt": f"{at} {'word ' * 12}", "max_tokens": 1}
        assert httpx.post(f"{url}/completions", json=body, timeout=PATIENCE_SECONDS).status_code == 200
        seen.append(told())
    engine.close()
    assert 0 < seen[0][used] < seen[1][used] < seen[1][most] == seen[0][most]
    assert [name for name in seen[0] if "kv_cache" in name] == [used, most]
    if sys.platform == "linux":
        assert seen[0]["process_resident_memory_bytes"] > 1e6 and seen[0]["process_open_fds"] > 1


@pytest.mark.parametrize(("opening", "outcome"), [(lambda: b"role", "gone"), (lambda: 1 / 0, "error")])
def test_a_stream_is_counted_from_its_first_word_on(opening: Callable[[], object], outcome: str) -> None:
    """Whoever leaves at it has gone; what raises there is an error."""
    counted: list[tuple[str, str]] = []
    metrics = SimpleNamespace(count_request=lambda model, outcome: counted.append((model, outcome)))
    answering = served.Served(cast(Any, None), cast(Any, None), cast(Any, metrics))

    async def nothing() -> AsyncIterator[Item]:
        return
        yield

    async def leave() -> None:
        events = cast("AsyncGenerator[bytes]", answering._events("fake", cast(Any, SimpleNamespace(opening=opening)), None, nothing()))
        with suppress(ZeroDivisionError):
            await anext(events)
        await events.aclose()

    asyncio.run(leave())
    assert counted == [("fake", outcome)]


def test_client_that_goes_away_stops_the_counting_of_what_was_embedded() -> None:
    counted: list[Request] = []
    counting, has_left = threading.Event(), threading.Event()

    class SlowCounter(FakeEngine):
        def count_tokens(self, request: Request) -> int:
            counted.append(request)
            counting.set()
            assert has_left.wait(PATIENCE_SECONDS)
            return 1

    async def leave() -> dict[str, str]:
        await asyncio.to_thread(counting.wait, PATIENCE_SECONDS)
        return {"type": "http.disconnect"}

    async def embed() -> Response:
        asked = app.wire.parse_embeddings(b'{"input": ["hi", "you"]}')
        return await answering.embed(app.HttpRequest({"type": "http", "headers": [], "state": {"held": mock.Mock()}}, leave), asked)

    answers = Answers()
    metrics = app.Metrics(num_texts=lambda: 0, num_waiting=lambda: 0, num_loaded=lambda: 0, spent_usd=dict, kv_caches=dict)
    answering = served.Served(app.Models({"fake": Responder("fake", SlowCounter())}), answers, metrics)
    with pytest.raises(ClientDisconnect):
        asyncio.run(embed())
    has_left.set()
    answers.close()  # waits for the thread
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("path", "body"), [("embeddings", {"input": ["hi", "you"]}), ("completions", {"prompt": ["hi", "you"], "max_tokens": 2})]
)
def test_long_bodies_are_written_beside_the_event_loop(
    start: Start, path: str, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(JSONResponse):
        def render(self, content: object) -> bytes:
            threads.append(threading.get_ident())
            return super().render(content)

    threads: list[int] = []
    for module in (app, served):
        monkeypatch.setattr(module, "JSONResponse", Watched)
    url = start(fake())
    assert httpx.get(f"{url}/models").status_code == 200
    assert httpx.post(f"{url}/{path}", json={"model": "fake", **body}).status_code == 200
    assert len(set(threads)) == len(threads) == 2


@pytest.mark.parametrize(
    ("path", "parse", "body"),
    [
        ("chat/completions", "parse_chat", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}),
        ("completions", "parse_text", {"prompt": "hi"}),
        ("responses", "parse_chat", {"input": "hi"}),
        ("embeddings", "parse_embeddings", {"input": "hi"}),
    ],
)
def test_long_bodies_are_parsed_beside_the_event_loop(
    start: Start, path: str, parse: str, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    parsed = getattr(app.wire, parse)

    def watched(*given: object) -> object:
        threads.append(threading.get_ident())
        return parsed(*given)

    monkeypatch.setattr(app.wire, parse, watched)
    url = start(fake())
    for more in ({}, {"user": "x" * (64 << 10)}, {}):
        assert httpx.post(f"{url}/{path}", json={"model": "fake", **body, **more}).status_code == 200
    assert threads[0] == threads[2] != threads[1]


def test_stopping_the_answers_stops_other_work_too() -> None:
    async def main() -> bool:
        answers = Answers()
        begun = threading.Event()

        def work(stop: threading.Event) -> bool:
            begun.set()
            return stop.wait(PATIENCE_SECONDS)

        working = asyncio.ensure_future(answers.work("m", work))
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        answers.stop()
        try:
            return await working
        finally:
            answers.close()

    assert asyncio.run(main())  # it was told, and has not waited in vain


@pytest.mark.parametrize("places", [(), ("cloud",)])
def test_an_answer_of_many_texts_leaves_room_for_others(places: tuple[Place, ...]) -> None:
    """Also on the side that it chose."""
    begun, go_on = threading.Semaphore(0), threading.Event()

    def wait(stop: threading.Event) -> Iterator[Chunk | Place]:
        yield from places
        begun.release()
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    async def written(answer: Written) -> list[int]:
        return sorted([item[0] async for item in answer.chunks() if item is not None])

    async def main() -> None:
        answers = Answers()
        many = answers.start("m", [wait] * 100)
        for _ in range(16):
            assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await written(answers.start("m", [lambda stop: iter([*places, END])])) == [0]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while answers.num_texts > 100:  # the other one's thread ends a little later than its text
                await asyncio.sleep(0.01)
        assert (answers.num_texts, begun.acquire(blocking=False)) == (100, False)
        go_on.set()
        assert await written(many) == list(range(100))
        answers.close()

    asyncio.run(main())


@pytest.mark.parametrize("places", [(), ("cloud",)])
def test_a_text_whose_turn_has_not_come_is_refused_when_answers_are_stopped(
    places: tuple[Place, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it would otherwise wait until the server gives up its connections."""
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 1)
    waiting, go_on = threading.Event(), threading.Event()
    begun, ended = [], []

    def wait(stop: threading.Event) -> Iterator[Chunk | Place]:
        yield from places
        waiting.set()
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    def write(stop: threading.Event) -> Iterator[Chunk | Place]:
        begun.append(1)
        try:
            yield from places
            yield END
        finally:
            ended.append(1)

    async def main() -> None:
        answers = Answers()
        answers.start("m", [wait])
        assert await asyncio.to_thread(waiting.wait, PATIENCE_SECONDS)
        behind = answers.start("m", [write] * 20)
        await asyncio.to_thread(wait_until, lambda: len(begun) == 16 * len(places))
        answers.stop()
        go_on.set()
        with pytest.raises(StoppedError, match="the answer was stopped"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for _ in behind.chunks():
                    pass
        answers.close()

    asyncio.run(main())
    assert len(begun) == len(ended) == 16 * len(places)


def test_an_answer_that_changes_threads_just_as_the_server_is_stopped_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def write(stop: threading.Event) -> Iterator[Chunk | Place]:
        yield "local"
        told.append(stop.wait(1))
        yield END

    async def main() -> None:
        answers = Answers()
        submit = answers._submit

        def submit_and_stop(model: str, place: Any, *work: Any) -> Any:
            if place == "local":
                answers.stop()
            return submit(model, place, *work)

        monkeypatch.setattr(answers, "_submit", submit_and_stop)
        answer = answers.start("m", [write])
        with suppress(StoppedError):  # where it was told before it went on
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for _ in answer.chunks():
                    pass
        answers.close()

    asyncio.run(main())
    assert told in ([True], [])


@pytest.mark.parametrize(("path", "asked"), [("chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
                                             ("embeddings", {"input": "hi"})])  # fmt: skip
def test_a_server_that_may_begin_no_more_threads_says_so(
    start: Start, caplog: pytest.LogCaptureFixture, path: str, asked: dict[str, Any]
) -> None:
    url = start(fake())
    with no_threads("answer"):
        reply = httpx.post(f"{url}/{path}", json=asked)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (503, "no_thread")
    assert "the server cannot begin the answer: can't start new thread" in error["message"]
    assert "an answer of `fake` cannot begin: can't start new thread" in caplog.text
    assert httpx.post(f"{url}/{path}", json=asked).status_code == 200


def no_threads(named: str) -> Any:
    """Within the block none of these names begins."""
    begin = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(named):
            raise RuntimeError("can't start new thread")
        begin(thread)

    return mock.patch.object(threading.Thread, "start", refuse)


def test_a_server_that_may_begin_no_thread_beside_its_event_loop_says_so(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    url, asked = start(fake()), {"messages": [{"role": "user", "content": "hi"}]}
    with no_threads("asyncio"):
        replies = [httpx.get(f"{url}/models"), httpx.post(f"{url}/chat/completions", json=asked)]
        stream = httpx.post(f"{url}/chat/completions", json={**asked, "stream": True}).text
    errors = [*(reply.json()["error"] for reply in replies), json.loads(stream.removeprefix("data: "))["error"]]
    assert [reply.status_code for reply in replies] == [503, 503]
    assert [error["code"] for error in errors] == ["no_thread"] * 3
    assert all(error["message"].startswith("the system starts no more threads; a limit on processes and") for error in errors)
    assert "GET /v1/models: the system starts no more threads" in caplog.text
    assert httpx.get(f"{url}/models").status_code == 200


@pytest.mark.parametrize(
    ("problem", "code"), [(RuntimeError("can't start new thread"), "no_thread"), (MemoryError(), "not_enough_memory")]
)
def test_what_the_system_does_not_give_while_an_answer_is_written_is_no_bug(start: Start, problem: Exception, code: str) -> None:
    def script() -> Iterator[Chunk]:
        raise problem
        yield

    reply = httpx.post(f"{start(Responder('m', ScriptedEngine(script)))}/completions", json={"prompt": "hi"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, code)


def test_a_model_whose_server_says_nothing_keeps_no_other_waiting(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    go_on = threading.Event()

    def script() -> Iterator[Chunk]:
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    far = ScriptedEngine(script)
    url = start({"far": Responder("far", far), "fake": fake()})
    body = {"messages": [{"role": "user", "content": "hi"}]}
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(httpx.post, f"{url}/chat/completions", json={"model": "far", **body}) for _ in range(3)]
        try:
            wait_until(lambda: "nomoat_answers_under_way 3.0" in httpx.get(url.replace("/v1", "/metrics")).text, "all of them")
            told = [httpx.post(f"{url}/{path}", json={"model": "fake", **asked}).status_code
                    for path, asked in (("chat/completions", body), ("embeddings", {"input": "hi"}))]  # fmt: skip
            assert (told, len(far.asked), [one.done() for one in waiting]) == ([200, 200], 2, [False] * 3)
        finally:
            go_on.set()
    assert [one.result().status_code for one in waiting] == [200] * 3


@pytest.mark.parametrize("kind", ["answer", "work"])
def test_closing_leaves_a_thread_behind_that_does_not_stop(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nomoat.serve.answers.CLOSE_SECONDS", 0.1)
    hanging, end, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(stop: threading.Event) -> Iterator[Chunk]:
        hanging.set()
        end.wait(PATIENCE_SECONDS)
        ended.set()
        return iter([END])

    async def main() -> None:
        answers = Answers()
        if kind == "answer":
            answers.start("m", [hang])
        else:
            working = asyncio.ensure_future(answers.work("m", hang))
        await asyncio.to_thread(hanging.wait, PATIENCE_SECONDS)
        answers.close()
        assert not ended.is_set()
        end.set()
        if kind == "work":
            await working

    asyncio.run(main())
    assert "did not stop within 0.1 s and are left behind: 1 answers" in caplog.text


class Signs:
    """The times that nothing came for a while in any answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nomoat.serve.served.SIGN_SECONDS", 0.05)
        self.count, chunks = 0, Written.chunks

        async def watched(answer: Written, every: float | None = None) -> AsyncIterator[Item]:
            async for item in chunks(answer, every):
                self.count += item is None
                yield item

        monkeypatch.setattr(Written, "chunks", watched)

    def wait(self) -> None:
        """Until there were two more: the first may be from before what was written last had come."""
        seen = self.count
        wait_until(lambda: self.count >= seen + 2, "a sign of life")


def test_a_stream_in_which_nothing_comes_gets_signs_of_life_that_clients_pass_over(
    start: Start, sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts are read for minutes here; proxies and clients give up a connection that says nothing for one."""
    signs = Signs(monkeypatch)

    def script() -> Iterator[Chunk]:
        signs.wait()
        yield Chunk(text="so")
        signs.wait()
        yield Chunk(text=" late")
        yield END

    url = start(Responder("fake", ScriptedEngine(script)))
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
        assert [next(lines) for _ in range(4)] == ["", ": at work", "", ": at work"]  # before the first word
        said = list(lines)
    words = [at for at, line in enumerate(said) if '"content"' in line]
    assert len(words) == 2 and ": at work" in said[words[0] : words[1]]
    assert said[-2:] == ["data: [DONE]", ""]
    events = list(ask(sdk(url), "hi", stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == "so late"


def test_a_stream_of_another_server_that_is_only_calls_begins_with_them(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = Signs(monkeypatch)

    def script() -> Iterator[Chunk]:
        yield Chunk(text="", begun=True)
        signs.wait()
        yield replace(END, calls=(ToolCall(id="a", name="clock", arguments="{}"),))

    engine = ScriptedEngine(script)
    engine.give_up_waiting = lambda: None  # as the engines of servers
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    reply = httpx.post(f"{start(Responder('fake', engine))}/chat/completions", json=body)
    role, *signs_of_life, call, end, done = [line for line in reply.text.splitlines() if line]
    assert '"role":"assistant"' in role and '"name":"clock"' in call and '"tool_calls"' in end and done == "data: [DONE]"
    assert signs_of_life and set(signs_of_life) == {": at work"}


def nothing_until(go_on: threading.Event) -> Iterator[Chunk]:
    """What engines give while they read a prompt: chunks without a word, so that whoever reads may see to a client that has gone."""
    while not go_on.wait(0.01):
        yield Chunk(text="")


def signs_of_life(url: str, go_on: threading.Event) -> list[str]:
    """Of a stream that is given `go_on` after its second: the lines before the first, between them, and how it ends."""
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 4}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert json.loads(next(lines).removeprefix("data: "))["choices"][0]["delta"]["role"] == "assistant"
        seen = [next(lines) for _ in range(4)]
        go_on.set()
        return [*seen, *list(lines)[-2:]]


def test_chunks_without_a_word_are_no_sign_of_life(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.served.SIGN_SECONDS", 0.3)
    go_on = threading.Event()

    def script() -> Iterator[Chunk]:
        yield from nothing_until(go_on)
        yield END

    url = start(Responder("fake", ScriptedEngine(script)))
    assert signs_of_life(url, go_on) == ["", ": at work", "", ": at work", "data: [DONE]", ""]


def test_a_model_that_reads_a_long_prompt_gives_signs_of_life(start: Start, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real engine, whose passes begin late."""
    monkeypatch.setattr("nomoat.serve.served.SIGN_SECONDS", 0.3)
    monkeypatch.setattr("nomoat.engine.texts.HEARTBEAT_SECONDS", 0.01)
    go_on = threading.Event()
    submit = Batcher.submit

    def late(self: Batcher, answer: Answer) -> None:
        threading.Thread(target=lambda: (go_on.wait(PATIENCE_SECONDS), submit(self, answer))).start()

    with responder.load(str(tiny_gguf)) as tiny:
        tiny.complete(Request(prompt="hello", max_new_tokens=1))  # it is loaded
        monkeypatch.setattr(Batcher, "submit", late)
        assert signs_of_life(start(tiny), go_on) == ["", ": at work", "", ": at work", "data: [DONE]", ""]


def test_what_is_refused_after_chunks_without_a_word_keeps_its_status(start: Start, sdk: Sdk) -> None:
    def script() -> Iterator[Chunk]:
        for _ in range(3):
            yield Chunk(text="")
        raise RemoteError("too many requests", status=429)

    with pytest.raises(openai.RateLimitError):
        ask(sdk(start(Responder("fake", ScriptedEngine(script)))), "hi", stream=True)


@pytest.mark.parametrize("chooses", [False, True])
def test_what_another_server_refuses_late_keeps_its_status(
    start: Start, serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, chooses: bool
) -> None:
    """Also one on this machine."""
    signs = Signs(monkeypatch)

    def refuse(handler: Any) -> None:
        signs.wait()
        say(413, {"error": {"message": "too long"}})(handler)

    with responder.load(f"{serving(refuse).url}#m") as far:
        url = start(Responder("auto", RouterEngine(Policy(local=far.ref), far)) if chooses else far)
        reply = httpx.post(f"{url}/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], "stream": True})
        assert (far.is_local, reply.status_code) == (True, 413)


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


class PanicException(BaseException):
    """As pyo3 calls what a panic of a package in Rust becomes."""


@pytest.mark.parametrize("kind", [KeyError, SystemExit, PanicException])
def test_bug_in_an_engine_is_a_500_that_logs_where_but_not_the_prompt(
    start: Start, sdk: Sdk, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    def script() -> Iterator[Chunk]:
        raise kind("top secret prompt")
        yield

    with pytest.raises(openai.InternalServerError) as caught:
        ask(sdk(start(Responder("fake", ScriptedEngine(script)))), "top secret prompt")
    assert caught.value.body["message"] == f"the engine failed: {kind.__name__}; this is a bug; the server's log says where"
    (record,) = [row for row in caplog.records if row.name == "nomoat.serve"]
    assert kind.__name__ in record.getMessage() and "in script" in record.getMessage()
    assert f"{kind.__name__}: " not in caplog.text


@pytest.mark.parametrize("kind", [KeyError, SystemExit, PanicException])
def test_bug_while_embedding_is_a_500_that_logs_where_but_not_the_text(
    start: Start, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    class Broken(FakeEngine):
        def embed(self, texts: Sequence[str], *, stop: threading.Event | None = None) -> Never:
            raise kind(texts[0])

    reply = httpx.post(f"{start(Responder('fake', Broken()))}/embeddings", json={"input": "top secret text"})
    assert (reply.status_code, reply.json()["error"]["message"]) == (
        500, f"the engine failed: {kind.__name__}; this is a bug; the server's log says where",
    )  # fmt: skip
    (record,) = [row for row in caplog.records if row.name == "nomoat.serve"]
    assert kind.__name__ in record.getMessage() and "in embed" in record.getMessage()
    assert "top secret" not in caplog.text


def test_no_prompt_and_no_answer_is_logged(
    start: Start, sdk: Sdk, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    ask(sdk(start(fake())), "xyzzy plugh")
    output = capfd.readouterr()
    assert "xyzzy" not in caplog.text + output.out + output.err


# ---------------------------------------------------------------- serve()
def test_serve_says_what_the_first_answer_would_lack_before_it_serves() -> None:
    class Starved(FakeEngine):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    def begin(url: str) -> None:
        pytest.fail(f"it serves at {url}")

    with pytest.raises(RuntimeError, match="can't start new thread"):
        nomoat.serve(Responder("starved", Starved()), port=0, on_ready=begin)


def test_serve_refuses_to_open_to_others_without_a_key() -> None:
    with pytest.raises(UsageError) as caught:
        serve("fake:", host="0.0.0.0")
    assert caught.value.message == "`0.0.0.0` can be reached from other machines, and there is no API key"


def test_no_answer_is_longer_than_the_server_lets_it_be(start: Start) -> None:
    """A client that asked for more is told; one that asked for fewer has these."""
    url = start(fake(), max_tokens=3)
    chat = {"messages": [{"role": "user", "content": "one two three four five"}]}
    asked = [chat, chat | {"max_tokens": 4}, chat | {"max_tokens": 2}, chat | {"max_tokens": -1, "stream": True}]
    replies = [httpx.post(f"{url}/chat/completions", json=one) for one in asked]
    ended = [reply.json()["choices"][0] for reply in replies[:3]]
    assert [one["message"]["content"] for one in ended] == ["five four three", "five four three", "five four"]
    assert {one["finish_reason"] for one in ended} == {"length"}
    assert '"finish_reason":"length"' in replies[3].text
    told = "an answer has at most 3 tokens on this server"
    assert [reply.headers.get("x-nomoat-notes") for reply in replies] == [None, told, None, None]
    text = httpx.post(f"{url}/completions", json={"prompt": "one two three four five", "max_tokens": 0, "echo": True}).json()
    assert text["usage"]["completion_tokens"] == 0
    for more in ({}, {"max_output_tokens": 9}):
        response = httpx.post(f"{url}/responses", json={"input": "one two three four five", **more}).json()
        assert (response["max_output_tokens"], response["incomplete_details"]) == (3, {"reason": "max_output_tokens"})


def test_answers_without_a_token_are_refused() -> None:
    for begin in (lambda: serve("no such model", port=0, max_tokens=0), lambda: create_app(fake(), max_tokens=0)):
        with pytest.raises(UsageError) as caught:
            begin()
        assert (caught.value.message, caught.value.hint) == ("`max_tokens` is 0", "it can be 1 or more; leave it out for no limit")


def test_a_time_to_drain_below_0_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        serve("fake:", drain_seconds=-1)
    assert (caught.value.message, caught.value.hint) == ("`drain_seconds` is -1", "it can be 0 or more")


def test_serve_within_an_event_loop_is_refused_and_a_thread_of_its_own_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[app.Server] = []

    def make(application: app.FastAPI, **options: Any) -> app.Server:
        made.append(running := connections.Server(application, **options))
        return running

    async def asked() -> int:
        ready: asyncio.Queue[str] = asyncio.Queue()
        serving = {"port": 0, "on_ready": partial(asyncio.get_running_loop().call_soon_threadsafe, ready.put_nowait)}
        with pytest.raises(UsageError) as caught:
            serve("fake:", **serving)
        assert caught.value.message == "an event loop runs in this thread, as in a notebook, and the server needs one of its own"
        hint = "serve from another thread: `threading.Thread(target=nomoat.serve, args=[MODEL], daemon=True).start()`"
        assert (caught.value.hint, made) == (hint, [])
        thread = threading.Thread(target=nomoat.serve, args=["fake:"], kwargs=serving, daemon=True)
        thread.start()
        async with asyncio.timeout(PATIENCE_SECONDS), httpx.AsyncClient() as client:
            status = (await client.get(f"{await ready.get()}/models")).status_code
        made[0].should_exit = True
        await asyncio.to_thread(thread.join, PATIENCE_SECONDS)
        return status

    monkeypatch.setattr(app, "Server", make)
    assert asyncio.run(asked()) == 200


@pytest.mark.parametrize("key", ["비밀-key", "clé", " s3cret", "a\nb"])
def test_key_that_no_client_could_send_is_refused_at_the_start(key: str) -> None:
    for begin in (lambda: serve("no such model", port=0, api_key=key), lambda: create_app(fake(), api_key=key)):
        with pytest.raises(UsageError) as caught:
            begin()
        assert caught.value.message == "the API key holds characters that a header cannot carry"
        assert caught.value.hint == "use letters without accents, digits and signs only"


def test_an_empty_key_is_refused_at_the_start_wherever_the_server_would_be_reached() -> None:
    for begin in (
        lambda: serve("no such model", port=0, api_key=""), lambda: serve("no such model", host="0.0.0.0", api_key=""),
        lambda: create_app(fake(), api_key=""),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            begin()
        assert caught.value.message == "the API key is empty"
        assert caught.value.hint == "give one (is a variable unset?), or leave it out to serve this machine without a key"


def test_serve_says_how_auto_is_served_from_python() -> None:
    for models in ("auto", ["fake:", "auto"]):
        with pytest.raises(UsageError) as caught:
            serve(models, port=0)
        assert caught.value.message == "`auto` cannot be loaded here"
        assert caught.value.hint == "`from nomoat.route.router import load_auto`, then `nomoat.serve(load_auto())`"


def test_serve_takes_memory_and_a_context_for_what_it_loads_and_for_nothing_else(tiny_gguf: Path) -> None:
    contexts = []

    def look(models: Models) -> None:
        with models.use(models.names[0]) as model:
            contexts.append(model.engine.context_tokens)
        raise StoppedError("that is all", hint=None)

    with mock.patch.object(app, "_start_first", look), pytest.raises(StoppedError):
        serve(tiny_gguf, port=0, context_tokens=64)
    assert contexts == [64]
    with pytest.raises(NotEnoughMemoryError, match=r"the budget is 0\.2 GB"):
        serve(tiny_gguf, port=0, memory_bytes=200_000_000)
    for wrong in ({"context_tokens": 0}, {"memory_bytes": "4 GB"}):
        with pytest.raises(UsageError):
            serve(tiny_gguf, port=0, **wrong)  # type: ignore[arg-type]
    for told in ({"context_tokens": 64}, {"memory_bytes": 10**9}):
        with pytest.raises(UsageError) as caught:
            serve(fake(), port=0, **told)
        assert caught.value.message == (
            "`memory_bytes` and `context_tokens` are for models that the server loads, and this one is given to it"
        )


def test_app_needs_a_model() -> None:
    with pytest.raises(UsageError, match="there is no model to serve"):
        create_app({})


def test_models_are_served_by_their_paths_too(tmp_path: Path) -> None:
    for models in (tmp_path / "m.gguf", [tmp_path / "m.gguf"]):
        with pytest.raises(UnknownModelError, match=re.escape(f"`{tmp_path / 'm.gguf'}`")):
            serve(models, port=0)


def test_what_names_no_model_and_no_key_is_refused() -> None:
    wrong: Any = 5
    for models in (wrong, [wrong]):
        with pytest.raises(UsageError, match="a model is named by a text or a path, and this is of the type int"):
            serve(models, port=0)
    with pytest.raises(UsageError, match="the API key is of the type int, not a text"):
        serve("fake:", port=0, api_key=wrong)


def test_nomoat_serve_can_be_called_whatever_was_imported_before() -> None:
    for first in ("import nomoat", "import nomoat.serve.app, nomoat"):
        code = f"{first}\ntry: nomoat.serve('fake:', host='0.0.0.0')\nexcept nomoat.errors.UsageError as e: print(e.message)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "`0.0.0.0` can be reached from other machines, and there is no API key\n"
    assert callable(nomoat.serve)
