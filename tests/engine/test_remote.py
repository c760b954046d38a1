"""Servers elsewhere: well-behaved ones, and a real one on loopback that misbehaves in every way we know."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import shell
from misbehaving import FINE, ROWS, Act, Pieces, Server, Silent, counted, events, half, piece, reset, say
from patience import PATIENCE_SECONDS, wait_until

from nomoat import config, net
from nomoat.asking.store import AnswerStore
from nomoat.engine import dialect, remote, server_address
from nomoat.engine.budget import Budget, Meter, Rates
from nomoat.engine.pacing import GaveUpWaitingError
from nomoat.engine.remote import RemoteEngine, remote_engine
from nomoat.errors import OfflineError, RedirectedError, RemoteError, StoppedError, UnsupportedError, UsageError
from nomoat.providers import PROVIDERS
from nomoat.records import CallingTurn, Chunk, Message, Request, SchemaMode, ToolCall, ToolResult
from nomoat.responder import Responder, load

HELLO = Request(messages=(Message(role="user", content="hello there"),))
RATES = Rates(input_usd_per_million=10.0, output_usd_per_million=100.0)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what else the SDK would send of whoever runs the tests."""
    for name in ("OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID"):
        monkeypatch.delenv(name, raising=False)


def at(server: Server, model: str = "m", **kwargs: float) -> RemoteEngine:
    if kwargs:
        return RemoteEngine(base_url=server.url, model=model, key=server_address.NO_KEY, **kwargs)
    return remote_engine(f"{server.url}#{model}")


def failure(server: Server, **kwargs: float) -> RemoteError:
    """What asking this server raises."""
    engine = at(server, **kwargs)
    try:
        with pytest.raises(RemoteError) as caught:
            list(engine.generate(HELLO))
    finally:
        engine.close()
    return caught.value


# ---------------------------------------------------------------- answers
def test_answer_is_streamed_and_counted_as_the_server_says(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    with Responder("r", at(server)) as responder:
        chunks = list(responder.stream(HELLO))
    assert [chunk.text for chunk in chunks] == ["hel", "lo 안녕", ""]
    assert chunks[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 2)
    assert chunks[-1].usage.prefill_seconds > 0
    assert server.bodies == [
        {
            "model": "m", "messages": [{"role": "user", "content": "hello there"}], "temperature": 0.0, "max_tokens": 512,
            "stream": True, "stream_options": {"include_usage": True},
        }
    ]  # fmt: skip


def test_settings_are_sent_only_where_they_say_something(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    request = Request(messages=HELLO.messages, temperature=0.5, top_p=0.9, top_k=40, seed=3, stop=("\n",), max_new_tokens=9)
    with Responder("r", at(server)) as responder:
        responder.complete(request)
    body = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["top_k"], body["seed"], body["stop"], body["max_tokens"]) == (
        0.5, 0.9, 40, 3, ["\n"], 9,
    )  # fmt: skip


def test_what_the_template_is_to_know_is_passed_on(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    request = Request(messages=HELLO.messages, template_variables='{"enable_thinking": false}', reasoning_effort="low")
    with Responder("r", at(server)) as responder:
        responder.complete(request)
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert server.bodies[0]["reasoning_effort"] == "low"


def test_how_much_is_to_be_said_and_who_speaks_are_passed_on(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    request = Request(messages=(Message(role="user", content="hi", name="alice"),), verbosity="low", top_k=4)
    with Responder("r", at(server)) as responder:
        responder.complete(request)
    body = server.bodies[0]
    assert body["messages"] == [{"role": "user", "content": "hi", "name": "alice"}]
    assert (body["verbosity"], body["top_k"]) == ("low", 4)


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}
OTHER, ADD = ({"type": "function", "function": {"name": name}} for name in ("clock", "add"))


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({}, {}),
        ({"must_call": ("weather", "clock", "add"), "one_call": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"must_call": ("clock",)}, {"tools": [OTHER], "tool_choice": "required"}),
        ({"may_call": ("clock",)}, {"tools": [OTHER]}),
        ({"must_call": ("clock", "add")}, {"tools": [OTHER, ADD], "tool_choice": "required"}),
    ],
)  # fmt: skip
def test_functions_are_passed_on_and_calls_come_back(serving: Callable[..., Server], settings: Any, sent: dict[str, Any]) -> None:
    def part(index: int, **told: Any) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": index, **told}]}, "finish_reason": None}]}

    server = serving(events(
        piece("I look."), part(0, id="a1", type="function", function={"name": "weather", "arguments": ""}),
        part(0, function={"arguments": '{"city": '}), part(1, id="b2", type="function", function={"name": "clock", "arguments": "{}"}),
        part(0, function={"arguments": '"서울"}'}), piece(None, "tool_calls"),
    ))  # fmt: skip
    called = (ToolCall(id="a1", name="weather", arguments='{"city": "서울"}'), ToolCall(id="b2", name="clock", arguments="{}"))
    tools = (TOOL, OTHER, ADD)
    turns = (
        *HELLO.messages, CallingTurn(role="assistant", content="", calls=called[:1]),
        ToolResult(role="tool", content="clear", call_id="a1"),
    )  # fmt: skip
    with Responder("r", at(server)) as responder:
        completion = responder.complete(Request(messages=turns, tools=tuple(map(json.dumps, tools)), **settings))
    assert (completion.text, completion.calls, completion.finish_reason) == ("I look.", called, "stop")
    (body,) = server.bodies
    choices = ("tools", "tool_choice", "parallel_tool_calls")
    assert {name: body[name] for name in choices if name in body} == {"tools": list(tools)} | sent
    function = {"name": "weather", "arguments": '{"city": "서울"}'}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a1", "content": "clear"},
    ]


def parts(*told: dict[str, Any]) -> list[dict[str, Any]]:
    """Events with a part of a call each."""
    return [{"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]} for part in told]


TWO_CALLS = [
    [{"index": 0, "id": "a1", "function": {"name": "weather", "arguments": "{}"}},
     {"index": 0, "id": "b2", "function": {"name": "clock", "arguments": ""}}, {"index": 0, "function": {"arguments": '{"at": 1}'}}],
    [{"id": "a1", "function": {"name": "weather", "arguments": "{}"}},
     {"id": "b2", "function": {"name": "clock", "arguments": ""}}, {"function": {"arguments": '{"at": 1}'}}],
    [{"index": 0, "id": "a1", "function": {"name": "weather", "arguments": "{"}},
     {"index": 0, "id": "x", "function": {"arguments": "}"}},
     {"index": 1, "id": "b2", "function": {"name": "clock"}}, {"index": 1, "id": "y", "function": {"arguments": '{"at": 1}'}}],
]  # fmt: skip


@pytest.mark.parametrize("told", TWO_CALLS, ids=["all the first", "without numbers", "each part with an id"])
def test_calls_are_told_apart_however_servers_number_their_parts(serving: Callable[..., Server], told: list[dict[str, Any]]) -> None:
    with Responder("r", at(serving(events(*parts(*told), piece(None, "tool_calls"))))) as responder:
        found = responder.complete(Request(messages=HELLO.messages, tools=(json.dumps(TOOL), json.dumps(OTHER)))).calls
    assert found == (ToolCall(id="a1", name="weather", arguments="{}"), ToolCall(id="b2", name="clock", arguments='{"at": 1}'))


def test_calls_are_whole_characters_and_say_once_that_they_have_begun(serving: Callable[..., Server]) -> None:
    told = parts(
        {"index": 0, "id": "a1", "function": {"name": "weather", "arguments": '{"city": "\ud83c'}},
        {"index": 0, "function": {"arguments": "\udfdb"}}, {"index": 0, "function": {"arguments": '\udfdb"}'}},
    )  # fmt: skip
    with Responder("r", at(serving(events(*told, piece(None, "tool_calls"))))) as responder:
        chunks = list(responder.stream(Request(messages=HELLO.messages, tools=(json.dumps(TOOL),))))
    assert [(chunk.text, chunk.begun) for chunk in chunks] == [("", True), ("", False)]
    assert chunks[-1].calls[0].arguments == '{"city": "\U0001f3db\ufffd"}'


SIGNED = {"google": {"thought_signature": "c2lnbmVk"}}


@pytest.mark.parametrize("is_last", [False, True], ids=["with the call", "in a part of its own"])
def test_what_a_server_wants_back_with_a_call_comes_and_goes_with_it(serving: Callable[..., Server], is_last: bool) -> None:
    """As Gemini's signatures of its thoughts."""
    extra = SIGNED
    told = {"index": 0, "id": "a1", "type": "function", "function": {"name": "clock", "arguments": "{}"}, "extra_content": extra}
    first = {name: value for name, value in told.items() if name != "extra_content"}
    pieces = parts(first, {"id": None, "extra_content": extra}) if is_last else parts(told)
    server = serving(events(*pieces, piece(None, "tool_calls")), FINE)
    with Responder("r", at(server)) as responder:
        called = responder.complete(Request(messages=HELLO.messages, tools=(json.dumps(OTHER),))).calls
        turns = (*HELLO.messages, CallingTurn(role="assistant", content="", calls=called))
        asked = Request(messages=turns, tools=(json.dumps(OTHER),))
        responder.complete(asked)
    assert called[0].extra_content in asked.texts and json.loads(called[0].extra_content) == extra
    (sent,) = server.bodies[1]["messages"][1]["tool_calls"]
    assert sent == {name: value for name, value in told.items() if name != "index"}


@pytest.mark.parametrize("told", [
    "call", [1], [{"index": 0, "id": "a", "function": None}], [{"function": {"name": 1}}], [{"id": 7, "function": {"name": "clock"}}],
])  # fmt: skip
def test_calls_that_are_none_are_no_answer(serving: Callable[..., Server], told: Any) -> None:
    act = events({"choices": [{"index": 0, "delta": {"tool_calls": told}, "finish_reason": None}]}, piece(None, "stop"))
    with Responder("r", at(serving(act))) as responder, pytest.raises(RemoteError, match="sent something that is no answer"):
        responder.complete(Request(messages=HELLO.messages, tools=(json.dumps(TOOL),)))


def test_no_limit_is_sent_where_none_is_asked_for(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(Request(messages=HELLO.messages, max_new_tokens=None))
    assert sorted(server.bodies[0]) == ["messages", "model", "stream", "stream_options", "temperature"]


SCHEMA = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        (None, {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}),
        ("strict", {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}),
        ("json_object", {"type": "json_object"}),
    ],
)  # fmt: skip
def test_schema_is_asked_for_in_the_way_that_was_meant(
    serving: Callable[..., Server], mode: SchemaMode | None, sent: dict[str, object]
) -> None:
    server = serving(FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(Request(messages=HELLO.messages, json_schema=json.dumps(SCHEMA), schema_mode=mode))
    assert server.bodies[0]["response_format"] == sent


def test_a_schemas_name_and_description_are_told(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    told = {"name": "event", "description": "times in KST"}
    with Responder("r", at(server)) as responder:
        responder.complete(
            Request(messages=HELLO.messages, json_schema=SCHEMA, schema_name=told["name"], schema_description=told["description"])
        )
    assert server.bodies[0]["response_format"] == {"type": "json_schema", "json_schema": {**told, "schema": SCHEMA}}


def test_raw_prompt_goes_to_the_completions_endpoint(serving: Callable[..., Server]) -> None:
    server = serving(events({"choices": [{"index": 0, "text": "upon", "finish_reason": "length"}]}))
    with Responder("r", at(server)) as responder:
        completion = responder.complete(Request(prompt="once"))
    assert (completion.text, completion.finish_reason) == ("upon", "length")
    assert server.paths == ["/v1/completions"]
    assert "suffix" not in server.bodies[0]


def test_what_stands_behind_a_gap_is_passed_on_as_it_is(serving: Callable[..., Server]) -> None:
    """Also of code that begins with it."""
    server = serving(events({"choices": [{"index": 0, "text": "upon", "finish_reason": "stop"}]}))
    with Responder("r", at(server)) as responder:
        for prompt in ("once", ""):
            assert responder.complete(Request(prompt=prompt, suffix=" a time\n")).text == "upon"
    assert server.paths == ["/v1/completions"] * 2
    assert [(body["prompt"], body["suffix"]) for body in server.bodies] == [("once", " a time\n"), ("", " a time\n")]


def test_server_without_usage_leaves_the_counts_at_zero(serving: Callable[..., Server]) -> None:
    with Responder("r", at(serving(events(piece("x", "stop"))))) as responder:
        usage = responder.complete(HELLO).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (0, 0)


def test_loopback_is_local_and_sends_nothing_out_and_others_are_counted(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(say(429, {"error": {"message": "slow down"}}), FINE)
    assert at(server).is_local
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    engine = at(server)  # the request and its retry were sent out
    with Responder("r", engine) as responder:
        sent = responder.complete(HELLO).usage.bytes_out
    assert sent == sum(int(headers["content-length"]) for headers in server.headers) > 200


@pytest.mark.parametrize("status", [200, 401])
def test_litellms_proxy_here_is_refused_and_asked_nothing_more_until_it_is_named_a_gateway(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Whatever it answers, by whichever engine; what was answered may have been paid for."""
    monkeypatch.setattr("nomoat.engine.remote._proxy_ports", set())  # the port may be another test's afterwards
    monkeypatch.delenv("NOMOAT_OFFLINE")
    litellm = {"x-litellm-version": "1.108.7"}
    answer = events(*ROWS, headers=litellm) if status == 200 else say(status, {"error": {"message": "no"}}, headers=litellm)
    server = serving(answer)
    origin = server.url.removesuffix("/v1")
    budget, lost = Budget(1.0), list[Request]()
    request = replace(HELLO, max_new_tokens=10)
    for consequence in ("its answer is refused", "it is not asked", "it is not asked"):
        engine = at(server)
        engine.meter, engine.calls.on_lost = Meter(rates=RATES, budget=budget), lost.append
        with Responder("r", engine) as model:
            for said in (consequence, "it is not asked"):
                with pytest.raises(RedirectedError) as raised:
                    model.complete(request)
                is_proxy = "is LiteLLM's proxy, which may send on what it is asked, and it counts as this machine"
                assert raised.value.message == f"`{server.url}` {is_proxy}: {said}"
                assert raised.value.hint == f"add `{origin}` to `gateways` in config.toml, or to NOMOAT_GATEWAYS, which goes before it"
    with pytest.raises(RedirectedError):
        remote_engine(server.url)
    assert len(server.paths) == 1
    assert (budget.spent_usd, lost) == ((RATES.most_usd(request), [request]) if status == 200 else (0.0, []))
    monkeypatch.setenv("NOMOAT_GATEWAYS", origin)
    with Responder("r", at(server)) as model:
        if status == 200:
            assert model.complete(HELLO).text == "hello 안녕"
        else:
            with pytest.raises(RemoteError):
                model.complete(HELLO)


def test_what_has_to_stay_is_not_sent_again_to_a_server_that_is_named_a_gateway_between_two_attempts(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the engine nor where a broken answer is asked for again."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    for first in (say(429, {"error": {"message": "slow down"}}), events(piece("half"), done=False)):
        monkeypatch.delenv("NOMOAT_GATEWAYS", raising=False)
        server = serving(first, FINE)
        engine = at(server)
        engine.has_to_stay = True

        def named(request: object, url: str = server.url) -> None:
            monkeypatch.setenv("NOMOAT_GATEWAYS", url)

        engine._client._client.event_hooks["response"].append(named)
        with Responder("r", engine) as model, pytest.raises(RedirectedError, match=r"a gateway, .* this has to stay here"):
            model.complete(HELLO)
        assert len(server.bodies) == 1


def test_litellms_proxy_here_that_is_asked_for_its_models_is_refused(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.engine.remote._proxy_ports", set())
    server = serving(say(200, {"data": [{"id": "m"}]}, headers={"x-litellm-version": "1.108.7"}))
    with pytest.raises(RedirectedError, match="its answer is refused"):
        remote_engine(server.url)


def test_an_answer_of_auto_here_is_an_answer_whichever_side_wrote_it(serving: Callable[..., Server]) -> None:
    """Its cloud may be a server on this machine as well."""
    with Responder("r", at(serving(events(*ROWS, headers={"x-nomoat-where": "cloud"})))) as model:
        assert model.complete(HELLO).text == "hello 안녕"


def test_what_an_answer_that_broke_off_was_sent_is_counted_too(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(half, events(piece("half"), done=False), FINE)
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    engine = at(server)
    with Responder("r", engine) as responder:
        sent = responder.complete(HELLO).usage.bytes_out
    assert sent == sum(int(headers["content-length"]) for headers in server.headers) > 300


def test_what_was_sent_is_counted_for_each_answer_whoever_reads_it(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers by turns in one thread, and each read on in another one, where it breaks off."""
    half_of_it = events(piece("half"), done=False)
    server = serving(half_of_it, half_of_it, say(200, {"data": [{"id": "m"}]}))
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    engine = at(server)
    answers = [engine.generate(replace(HELLO, messages=(Message(role="user", content=text),))) for text in ("x" * 5000, "y")]
    assert [next(chunks).text for chunks in answers] == ["half", "half"]
    for chunks, headers in zip(answers, server.headers, strict=True):
        with ThreadPoolExecutor() as pool, pytest.raises(RemoteError, match="before it was whole") as caught:
            pool.submit(list, chunks).result()
        assert caught.value.bytes_out == int(headers["content-length"])
    with closing(engine), ThreadPoolExecutor() as pool:
        assert pool.submit(engine.list_models).result() == ["m"]  # in a thread that has asked for no answer


def test_a_character_sent_in_two_halves_is_one_and_a_half_alone_is_marked(serving: Callable[..., Server]) -> None:
    halves = events(piece("a\ud83d"), piece("\ude00b"), piece("\ud83d"), piece("c\ude00"), piece("\ud83d", "stop"))
    with Responder("r", at(serving(halves))) as responder, AnswerStore() as store:
        chunks = [chunk.text for chunk in responder.stream(HELLO)]
        completion = responder.complete(HELLO)
        store.save_answer(responder.digest, HELLO, completion)
    assert chunks == ["a", "😀b", "�c�", "�"]
    assert completion.text == "a😀b�c��"


def test_headers_carry_the_key_and_nothing_about_this_machine_or_openai(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_UPSTREAM_API_KEY", "k-123")
    monkeypatch.setenv("NOMOAT_API_KEY", "of-my-own-server")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-secret: 1\nauthorization: Bearer sk-other")
    server = serving(FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(HELLO)
    assert sorted(server.headers[0]) == [
        "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host", "user-agent",
    ]  # fmt: skip
    assert server.headers[0]["authorization"] == "Bearer k-123"
    assert server.headers[0]["user-agent"] == "nomoat"


@pytest.mark.parametrize(
    ("as_client", "variables"), [(True, "NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"), (False, "NOMOAT_UPSTREAM_API_KEY")]
)
def test_refused_key_of_a_server_is_looked_for_in_the_variables_that_are_asked_for_it(
    serving: Callable[..., Server], as_client: bool, variables: str
) -> None:
    server = serving(say(401, {"error": {"message": "bad key"}}))
    with load(f"{server.url}#m", as_client=as_client) as responder, pytest.raises(RemoteError) as caught:
        responder.complete(HELLO)
    assert caught.value.hint == f"check the key in {variables}"


@pytest.mark.parametrize(("as_client", "sent"), [(True, "Bearer clients"), (False, "Bearer none")])
def test_key_that_clients_send_is_sent_by_clients_only(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, as_client: bool, sent: str
) -> None:
    monkeypatch.setenv("NOMOAT_API_KEY", "clients")
    server = serving(FINE)
    with load(f"{server.url}#m", as_client=as_client) as responder:
        responder.complete(HELLO)
    assert server.headers[0]["authorization"] == sent


def test_a_servers_own_key_in_the_file_comes_before_the_clients_in_the_environment(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    config.keys_path().parent.mkdir()
    config.keys_path().write_text('NOMOAT_UPSTREAM_API_KEY = "k-123"')
    config.keys_path().chmod(0o600)
    monkeypatch.setenv("NOMOAT_API_KEY", "of-my-own-server")
    server = serving(FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(HELLO)
    assert server.headers[0]["authorization"] == "Bearer k-123"


def test_closing_the_iterator_hangs_up(serving: Callable[..., Server]) -> None:
    gone = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(f"data: {json.dumps(piece('x'))}\n\n".encode())
                time.sleep(0.005)
        except OSError:
            gone.set()

    engine = at(serving(endless))
    chunks = engine.generate(HELLO)
    assert next(chunks).text == "x"
    chunks.close()  # type: ignore[attr-defined]
    assert gone.wait(PATIENCE_SECONDS)
    engine.close()


@pytest.mark.parametrize(
    ("status", "kind", "begin", "more"),
    [
        (200, "application/json", b'{"id": "', b"a" * 1000),
        (500, "application/json", b'{"error": "', b"a" * 1000),
        (200, "text/event-stream", b'data: {"id": "', b"a" * 1000),
        (200, "text/event-stream", b"", b": at work\ndata: 1\n" * 100),
        (200, "text/event-stream", b"", f"data: {json.dumps(piece('x' * 900))}\n\n".encode()),
    ],
)
def test_an_answer_without_end_is_hung_up_on(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, status: int, kind: str, begin: bytes, more: bytes
) -> None:
    monkeypatch.setattr(dialect, "MOST_HELD_BYTES", 100_000)
    monkeypatch.setattr(remote, "MOST_BYTES", 200_000)
    gone = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.end_headers()
        try:
            handler.wfile.write(begin)
            while True:
                handler.wfile.write(more)
        except OSError:
            gone.set()

    engine = at(serving(endless)).asked_once()
    with pytest.raises(RemoteError, match="goes on sending after more than any answer to what was asked for can be") as caught:
        list(engine.generate(replace(HELLO, max_new_tokens=16)))
    assert caught.value.fate == "final"
    assert gone.wait(PATIENCE_SECONDS)
    engine.close()


def test_a_long_answer_in_many_events_is_no_answer_without_end(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the lines that end an event come apart."""
    monkeypatch.setattr(dialect, "MOST_HELD_BYTES", 1000)
    pieces = [part for _ in range(50) for part in (f"data: {json.dumps(piece('x'))}\n".encode(), b"\n")]
    engine = at(serving(Pieces(*pieces, f"data: {json.dumps(piece(None, 'stop'))}\n\ndata: [DONE]\n\n".encode())))
    assert "".join(chunk.text for chunk in engine.generate(HELLO)) == "x" * 50
    engine.close()


@pytest.mark.parametrize("first", [(), (piece("so far"),)], ids=["before the answer", "within the answer"])
def test_a_silent_server_is_hung_up_on_once_whoever_asks_has_left(serving: Callable[..., Server], first: tuple[object, ...]) -> None:
    silent, stop = Silent(*first), threading.Event()
    engine = at(serving(silent))
    budget = Budget(1.0)
    engine.meter = Meter(rates=RATES, budget=budget)
    leaving = threading.Thread(target=lambda: (silent.asked.wait(PATIENCE_SECONDS), stop.set()))
    leaving.start()
    with pytest.raises(RemoteError, match="nobody waits for this answer any more"), net.asking_for(stop):
        list(engine.generate(HELLO))
    assert silent.hung_up.wait(PATIENCE_SECONDS)
    assert budget.spent_usd == pytest.approx(RATES.most_usd(HELLO))  # it may have worked until then
    leaving.join()
    engine.close()


def test_nobody_is_asked_again_for_somebody_who_has_left(serving: Callable[..., Server]) -> None:
    stop = threading.Event()

    def busy(handler: BaseHTTPRequestHandler) -> None:
        say(503, b"busy", headers={"retry-after": "60"})(handler)
        leaving.start()

    leaving = threading.Timer(0.1, stop.set)
    server = serving(busy)
    engine = at(server)
    with net.asking_for(stop):
        for _ in range(2):  # the second would have to wait for its turn
            with pytest.raises(RemoteError, match="nobody waits for this answer any more"):
                list(engine.generate(HELLO))
    assert len(server.bodies) == 1
    leaving.join()
    engine.close()


def test_a_refusal_that_comes_after_all_have_left_is_not_asked_again(serving: Callable[..., Server]) -> None:
    def busy(handler: BaseHTTPRequestHandler) -> None:
        engine.give_up_waiting()
        say(429, {"error": {"message": "slow down"}}, headers={"retry-after": "0.01"})(handler)

    server = serving(busy, FINE)
    engine = at(server)
    with Responder("r", engine) as responder:
        with pytest.raises(GaveUpWaitingError):
            responder.complete(HELLO)
        assert len(server.bodies) == 1
        assert responder.complete(HELLO).text == "hello 안녕"  # who comes later is answered


def test_who_waits_for_the_budget_asks_nothing_once_all_have_left(serving: Callable[..., Server]) -> None:
    """There is money for one at a time; what the first leaves over would be enough for the others."""
    ends, failures = threading.Event(), []

    def held(handler: BaseHTTPRequestHandler) -> None:
        ends.wait(PATIENCE_SECONDS)
        FINE(handler)

    server = serving(held)
    engine = at(server)
    budget = Budget(1.5 * RATES.most_usd(HELLO))
    engine.meter = Meter(rates=RATES, budget=budget)

    def ask() -> None:
        try:
            list(engine.generate(HELLO))
        except GaveUpWaitingError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.bodies and len(budget._queue) == 2)
    engine.give_up_waiting()
    ends.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert (len(failures), len(server.bodies)) == (2, 1)
    assert budget.spent_usd == pytest.approx((5 * 10 + 2 * 100) / 1e6)
    engine.close()


def test_waiting_for_the_budget_is_no_time_of_the_servers(serving: Callable[..., Server]) -> None:
    """Another call holds the money for half a second and more."""
    engine, held = at(serving(FINE)), RATES.most_usd(HELLO)
    budget = Budget(1.5 * held)
    budget.reserve(held)
    engine.meter = Meter(rates=RATES, budget=budget)
    chunks: list[Chunk] = []
    thread = threading.Thread(target=lambda: chunks.extend(engine.generate(HELLO)))
    began = time.perf_counter()
    thread.start()
    wait_until(lambda: budget._queue)
    time.sleep(0.5)
    waited = time.perf_counter() - began
    budget.settle(held, 0.0)
    thread.join(PATIENCE_SECONDS)
    took, usage = time.perf_counter() - began, chunks[-1].usage
    assert usage is not None and 0 < usage.seconds <= took - waited
    engine.close()


def test_an_answer_that_cost_nothing_takes_nothing_of_the_budget(serving: Callable[..., Server]) -> None:
    engine = at(serving(counted("", 5, 0)))
    budget = Budget(1.0)
    engine.meter = Meter(rates=replace(RATES, input_usd_per_million=0.0), budget=budget)
    with closing(engine):
        list(engine.generate(HELLO))
    assert budget.spent_usd == 0.0


def test_who_has_left_while_the_budget_was_waited_for_is_asked_for_no_more(serving: Callable[..., Server]) -> None:
    server, stop = serving(FINE), threading.Event()
    engine = at(server)
    budget = Budget(1.0)
    engine.meter = Meter(rates=RATES, budget=budget)
    reserve = budget.reserve
    budget.reserve = lambda usd: (reserve(usd), stop.set())[0]  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="nobody waits for this answer any more"), net.asking_for(stop):
        list(engine.generate(HELLO))
    assert (server.bodies, budget.spent_usd) == ([], 0.0)
    engine.close()


def test_a_slow_answer_comes_whole_though_it_is_looked_whether_anybody_waits(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net, "HEARTBEAT_SECONDS", 0.01)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        FINE(handler)

    with (
        Responder("r", at(serving(slow))) as patient,
        Responder("r", at(serving(Silent()), read_timeout_seconds=0.3)) as hasty,
        net.asking_for(threading.Event()),
    ):
        assert patient.complete(HELLO).text == "hello 안녕"
        with pytest.raises(RemoteError, match=r"did not answer within 0\.3 s"):
            hasty.complete(HELLO)


# ---------------------------------------------------------------- servers that misbehave
@pytest.mark.parametrize("act", [say(429, b"no"), say(503, b"no")], ids=["too many", "failed"])
def test_an_error_of_a_server_that_was_asked_as_often_as_we_ask_says_so(serving: Callable[..., Server], act: Act) -> None:
    assert failure(serving(act)).was_asked_often
    assert not failure(serving(say(401, b"no"))).was_asked_often
    with pytest.raises(RemoteError) as caught:
        list(at(serving(act)).asked_once().generate(HELLO))
    assert not caught.value.was_asked_often


@pytest.mark.parametrize("as_client", [True, False], ids=["in a batch", "for clients of our own"])
def test_what_a_server_is_still_silent_about_takes_a_place_after_a_refusal_in_a_batch_only(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, as_client: bool
) -> None:
    """With `as_client` the first may think for a minute, as models that reason do; else it may hang, and the second is another's."""
    monkeypatch.setattr("nomoat.engine.pacing.SILENT_SECONDS", 0.1)
    monkeypatch.setattr(net, "HEARTBEAT_SECONDS", 0.01)
    is_over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        is_over.wait(PATIENCE_SECONDS)
        FINE(handler)

    server = serving(silent, say(429, {"error": {"message": "too many at once"}}), FINE)
    with load(f"{server.url}#m", as_client=as_client) as responder, ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(responder.complete, HELLO)
            wait_until(lambda: server.bodies)
            second = pool.submit(responder.complete, HELLO)
            if as_client:
                wait_until(lambda: len(server.bodies) == 2)
                time.sleep(1.0)
                assert len(server.bodies) == 2
            else:
                assert second.result(PATIENCE_SECONDS).text == "hello 안녕"
            assert not first.done()
        finally:
            is_over.set()
        assert first.result(PATIENCE_SECONDS).text == second.result(PATIENCE_SECONDS).text == "hello 안녕"


def test_busy_server_is_asked_again(serving: Callable[..., Server]) -> None:
    server = serving(say(429, {"error": {"message": "slow down"}}), say(500, b"oops"), FINE)
    with Responder("r", at(server)) as responder:
        assert responder.complete(HELLO).text == "hello 안녕"
    assert len(server.bodies) == 3


def test_a_call_for_whose_answer_a_gateway_gave_up_waiting_is_lost_and_asked_for_again_twice(serving: Callable[..., Server]) -> None:
    """What stands behind the gateway may have worked, and may go on: each counts as paid for."""
    server, budget, lost = serving(say(504, b"timeout")), Budget(1.0), list[Request]()
    engine = at(server)
    engine.meter, engine.calls.on_lost = Meter(rates=RATES, budget=budget), lost.append
    with Responder("r", engine) as responder, pytest.raises(RemoteError):
        responder.complete(HELLO)
    assert (len(server.bodies), len(lost), budget.spent_usd) == (3, 3, pytest.approx(3 * RATES.most_usd(HELLO)))


def test_server_that_says_when_is_asked_again_then(serving: Callable[..., Server]) -> None:
    server = serving(say(429, {"error": {"message": "slow down"}}, headers={"retry-after": "0.3"}), FINE)
    began = time.monotonic()
    with Responder("r", at(server)) as responder:
        responder.complete(HELLO)
    assert time.monotonic() - began >= 0.3


def test_a_pace_that_a_refusal_slowed_comes_back_with_whole_answers(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`complete` hangs up at the last chunk."""
    monkeypatch.setattr("nomoat.engine.pacing.wait_before", lambda attempt: 0.01)
    engine = at(serving(say(429, {"error": {"message": "slow down"}}), FINE))
    with Responder("r", engine) as responder:
        limits = []
        for _ in range(4):
            responder.complete(HELLO)
            limits.append(engine._pace.limit)
    assert limits == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("asks", "waits"),
    [
        ("0", [0.01, 0.02, 0.03]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [0.01, 0.02, 0.03]),
        ("0.025", [0.025, 0.025, 0.03]),
        (None, [0.01, 0.02, 0.03]),
    ],
)
def test_waits_grow_whatever_a_server_asks_for(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, asks: str | None, waits: list[float]
) -> None:
    monkeypatch.setattr("nomoat.engine.pacing.wait_before", lambda attempt: attempt / 100)
    waited: list[float] = []
    monkeypatch.setattr("nomoat.engine.pacing.Pace.pause", lambda self, seconds, came_at: waited.append(seconds))
    busy = say(429, {"error": {"message": "slow down"}}, headers={} if asks is None else {"retry-after": asks})
    with Responder("r", at(serving(busy, busy, busy, FINE))) as responder:
        responder.complete(HELLO)
    assert waited == waits


def test_who_waits_for_a_server_that_keeps_refusing_is_told_once(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nomoat.engine.pacing.wait_before", lambda attempt: 0.001)
    fault = say(500, {"error": {"message": "no GPU"}})
    with Responder("r", at(serving(*[fault] * 3, FINE, *[fault] * 4, FINE, *[fault] * 4, FINE))) as responder:
        told = []
        for _ in range(3):
            responder.complete(HELLO)
            told.append([record.getMessage() for record in caplog.records if record.name == "nomoat.engine"])
    note = "note: `127.0.0.1` keeps refusing, and is asked again: `127.0.0.1` answered 500: no GPU"
    assert told == [[], [note], [note]]


def test_what_a_server_said_to_a_client_of_ours_is_not_logged(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nomoat.engine.pacing.wait_before", lambda attempt: 0.001)
    fault = say(500, {"error": {"message": "cannot parse `Hello`"}})
    with Responder("r", at(serving(*[fault] * 4, FINE))) as responder, net.asking_for(threading.Event()):
        responder.complete(HELLO)
    told = [record.getMessage() for record in caplog.records if record.name == "nomoat.engine"]
    assert told == ["note: `127.0.0.1` keeps refusing, and is asked again: `127.0.0.1` answered 500"]


def test_server_that_wants_us_away_for_an_hour_is_an_error_at_once(serving: Callable[..., Server]) -> None:
    server = serving(say(429, {"error": {"message": "daily limit"}}, headers={"retry-after": "3600"}))
    error = failure(server)
    assert (error.message, error.hint) == ("`127.0.0.1` answered 429: daily limit", "the server asks to wait for 60 minutes")
    assert len(server.bodies) == 1


@pytest.mark.parametrize("told", [{"code": "insufficient_quota"}, {"type": "insufficient_quota", "code": None}])
def test_used_up_quota_is_no_reason_to_ask_again(told: dict[str, Any], serving: Callable[..., Server]) -> None:
    server = serving(say(429, {"error": {"message": "You exceeded your current quota", **told}}))
    assert failure(server).status == 429
    assert len(server.bodies) == 1


@pytest.mark.parametrize(("says", "times"), [("false", 1), ("true", 2)])
def test_server_that_says_that_asking_again_is_of_no_use_is_not_asked_again(
    says: str, times: int, serving: Callable[..., Server]
) -> None:
    server = serving(say(503, {"error": {"message": "no key"}}, headers={"x-should-retry": says}), say(400, b"no"))
    error = failure(server)
    assert (len(server.bodies), error.fate, error.may_be_billed) == (times, "final", False)


def test_answer_that_broke_off_is_asked_for_again(serving: Callable[..., Server]) -> None:
    server = serving(half, events(piece("half"), done=False), FINE)
    with Responder("r", at(server)) as responder:
        assert responder.complete(HELLO).text == "hello 안녕"
    assert len(server.bodies) == 3


def test_answer_that_ends_with_the_end_mark_is_whole_without_a_finish_reason(serving: Callable[..., Server]) -> None:
    cut_mark = Pieces(b'data: {"choices": [{"index": 0, "delta": {"content": "so far"}}]}\r\n\r\ndat', b"a:[DO", b"NE]\r\n\r\n")
    for act in (events(piece("so "), piece("far")), cut_mark):
        server = serving(act)
        with Responder("r", at(server)) as responder:
            completion = responder.complete(HELLO)
        assert (completion.text, completion.finish_reason, completion.usage.is_counted) == ("so far", "stop", False)
        assert len(server.bodies) == 1


def one_at_a_time() -> Act:
    """As llama-cpp-python's server: what it writes ends with a bare end mark when the next question comes."""
    coming: list[None] = []
    writing = threading.Lock()

    def act(handler: BaseHTTPRequestHandler) -> None:
        coming.append(None)
        with writing:
            coming.pop()
            patience = time.monotonic() + 0.1
            while not coming and time.monotonic() < patience:
                time.sleep(0.001)
            events(piece("half"), *(() if coming else (piece(" and half"), piece(None, "stop"))))(handler)

    return act


def test_answers_that_the_next_question_ends_are_asked_for_alone(serving: Callable[..., Server]) -> None:
    server = serving(one_at_a_time())
    with Responder("r", at(server)) as responder:
        answers = [done.text for _, done in responder.complete_many([HELLO] * 4, concurrency=4)]
    assert answers == ["half and half"] * 4
    assert 4 < len(server.bodies) <= 12


def test_a_server_that_never_says_why_its_answers_end_is_known_once_it_was_asked_alone(serving: Callable[..., Server]) -> None:
    server = serving(events(piece("so "), piece("far")))
    with Responder("r", at(server)) as responder:
        for most in (12, 16):
            assert [done.text for _, done in responder.complete_many([HELLO] * 4, concurrency=4)] == ["so far"] * 4
            assert len(server.bodies) <= most


def test_streams_at_once_of_a_server_of_which_nothing_is_known_may_end_without_a_reason(serving: Callable[..., Server]) -> None:
    def act(handler: BaseHTTPRequestHandler) -> None:
        wait_until(lambda: len(server.bodies) >= 2)
        events(piece("so "), piece("far"))(handler)

    server = serving(act)
    with Responder("r", at(server)) as responder, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: "".join(chunk.text for chunk in responder.stream(HELLO)), range(2)))
    assert (answers, len(server.bodies)) == (["so far"] * 2, 2)


def test_a_stream_that_nobody_reads_on_keeps_no_answer_from_being_whole(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.engine.pacing.LONGEST_TURN_SECONDS", 0.01)
    server = serving(events(piece("so "), piece("far")))
    with Responder("r", at(server)) as responder, closing(responder.stream(HELLO)) as unread:
        assert next(unread).text == "so "
        assert responder.complete(HELLO).text == "so far"
    assert len(server.bodies) == 2


def test_an_answer_without_the_reason_that_its_server_gives_is_whole_if_asked_alone(serving: Callable[..., Server]) -> None:
    server = serving(FINE, events(piece("so far")))
    with Responder("r", at(server)) as responder:
        responder.complete(HELLO)
        with pytest.raises(RemoteError, match="before it was whole") as caught:
            list(responder.stream(HELLO))
        assert caught.value.hint is not None and caught.value.hint.startswith("try again while nobody else asks it")
        assert responder.complete(HELLO).text == "so far"
    assert len(server.bodies) == 5


def test_only_what_another_question_may_have_ended_is_asked_for_alone(serving: Callable[..., Server]) -> None:
    asked_alone: list[bool] = []

    def act(handler: BaseHTTPRequestHandler) -> None:
        asked_alone.append(engine._pace._alone is not None)
        say(504, b"")(handler)

    engine = at(serving(act))
    with Responder("r", engine) as responder, pytest.raises(RemoteError, match="504"):
        responder.complete(HELLO)
    assert asked_alone == [False] * 3


def test_the_end_mark_alone_and_words_that_look_like_it_end_no_answer(serving: Callable[..., Server]) -> None:
    assert re.fullmatch(NO_ANSWER, failure(serving(events())).message)
    quoted = failure(serving(events(piece("\ndata: [DONE]\n"), piece("data: [DONE]"), done=False)))
    assert quoted.message == "`127.0.0.1` ended the answer of `m` before it was whole"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (b'event: error\ndata: {"message": "boom"}\n\n', ": boom"),
        (b'data: {"object": "error", "message": "boom", "error": null, "code": 500}\n\n', ": boom"),
        (b'data: {"text": "**NETWORK ERROR**", "error_code": 50004}\n\n', ": **NETWORK ERROR**"),
        (b'event: error\r\ndata: {"choices": [], "usage": {"total_tokens": 7}}\r\n\r\n', ""),
    ],
)
@pytest.mark.parametrize("before", [b"", b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'])
def test_an_answer_that_failed_midway_is_not_whole_though_the_end_mark_follows(
    serving: Callable[..., Server], before: bytes, told: bytes, words: str
) -> None:
    error = failure(serving(say(200, before + told + b"data: [DONE]\n\n", "text/event-stream")))
    assert (error.message, error.fate) == (f"`127.0.0.1` ended the answer of `m` before it was whole{words}", "lost")


@pytest.mark.parametrize("beside", [{}, {"type": "ping"}])
def test_an_event_that_is_nothing_of_an_answer_changes_none_that_a_finish_reason_ends(
    serving: Callable[..., Server], beside: dict[str, str]
) -> None:
    with Responder("r", at(serving(events(beside, piece("hello"), beside, piece(None, "stop"), beside)))) as responder:
        assert responder.complete(HELLO).text == "hello"


def test_an_event_that_is_no_failure_leaves_an_answer_whole_that_the_end_mark_alone_ends(serving: Callable[..., Server]) -> None:
    server = serving(events({"type": "ping"}, piece("hello"), {"type": "ping"}))
    with Responder("r", at(server)) as responder:
        assert (responder.complete(HELLO).text, len(server.bodies)) == ("hello", 1)


def test_whose_turn_it_is_alone_is_no_answer_and_an_empty_text_is_one(serving: Callable[..., Server]) -> None:
    turn = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    assert failure(serving(events(turn))).message == "`127.0.0.1` ended the answer of `m` before it was whole"
    with Responder("r", at(serving(events(turn, piece(""))))) as responder:
        assert (responder.complete(HELLO).text, responder.complete(HELLO).finish_reason) == ("", "stop")


@pytest.mark.parametrize("is_whole", [False, True])
@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ({"finish_reason": "error"}, ""),
        ({"finish_reason": "error", "error": {"code": 502, "message": "upstream died"}}, ": upstream died"),
        ({"finish_reason": "stop", "error": "upstream died"}, ": upstream died"),
    ],
)
def test_an_answer_that_the_server_itself_calls_failed_is_none(
    serving: Callable[..., Server], ending: dict[str, Any], words: str, is_whole: bool
) -> None:
    said = {"message" if is_whole else "delta": {"content": "half an ans"}}
    body = {"choices": [{"index": 0, **said, **ending}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    error = failure(serving(say(200, body) if is_whole else events(piece("so "), body)))
    assert (error.message, error.fate) == (f"`127.0.0.1` failed while it answered{words}", "lost")


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("choice", "answer"),
    [
        ({"message": {"role": "assistant", "content": "안녕"}, "finish_reason": "stop"}, ("안녕", "stop", ())),
        ({"message": {"role": "assistant", "content": "cut"}, "finish_reason": "length"}, ("cut", "length", ())),
        ({"message": {"content": "no reason"}}, ("no reason", "stop", ())),
        ({"text": "of a prompt", "finish_reason": "stop"}, ("of a prompt", "stop", ())),
        ({"message": {"content": None, "tool_calls": [CALL, CALL | {"id": "c2"}]}, "finish_reason": "tool_calls"},
         ("", "stop", tuple(ToolCall(id=name, name="add", arguments="{}") for name in ("c1", "c2")))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_whole_answer_in_place_of_a_stream_is_the_answer_and_asked_for_once(
    serving: Callable[..., Server], choice: dict[str, Any], answer: tuple[str, str, tuple[ToolCall, ...]], kind: str
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    body = {"object": "chat.completion", "choices": [{"index": 0, **choice}], "usage": usage}
    server = serving(say(200, b"\n " + json.dumps(body, indent=1).encode(), kind))
    budget = Budget(1.0)
    with Responder("r", at(server).with_meter(Meter(rates=RATES, budget=budget))) as responder:
        completion = responder.complete(Request(prompt="once") if "text" in choice else HELLO)
    assert (completion.text, completion.finish_reason, completion.calls) == answer
    told = completion.usage
    assert (told.prompt_tokens, told.completion_tokens, told.is_counted, told.decode_tokens_per_second) == (5, 2, True, 0)
    assert budget.spent_usd == pytest.approx(RATES.cost_usd(told))
    assert len(server.bodies) == 1


def test_content_filter_is_an_answer_of_its_own(serving: Callable[..., Server]) -> None:
    refused = say(400, {"error": {"message": "The response was filtered", "code": "content_filter"}})
    flagged = say(400, {"error": {"message": "Invalid prompt: your prompt was flagged", "code": "invalid_prompt"}})
    for act, text in ((refused, ""), (flagged, ""), (events(piece("so f"), piece(None, "content_filter")), "so f")):
        with Responder("r", at(serving(act))) as responder:
            completion = responder.complete(HELLO)
        assert (completion.text, completion.finish_reason) == (text, "filtered")


def test_hidden_reasoning_is_counted_where_only_the_total_holds_it(serving: Callable[..., Server]) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 107, "prompt_tokens_details": {"cached_tokens": 4}}
    with Responder("r", at(serving(events(piece("x", "stop"), {"choices": [], "usage": usage})))) as responder:
        told = responder.complete(HELLO).usage
        assert (told.completion_tokens, told.cached_tokens, told.read_tokens) == (102, 4, 1)


REFUSALS = [
    ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
     "max_tokens", "max_completion_tokens", ()),
    ("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
     "temperature", None, ("`m` at `127.0.0.1` refuses `temperature`: its answers are its own sampling, not the likeliest words",)),
    ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed", None,
     ("`m` at `127.0.0.1` refuses `seed`: asked again it may answer otherwise",)),
    ("Unsupported parameter: 'reasoning_effort' is not supported with this model.", "reasoning_effort", None,
     ("`m` at `127.0.0.1` refuses `reasoning_effort`: it thinks as long as it does by itself",)),
    ("Unsupported parameter: 'verbosity' is not supported with this model.", "verbosity", None,
     ("`m` at `127.0.0.1` refuses `verbosity`: its answers are as long as it makes them by itself",)),
    ([{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}], "stream_options", None, ()),
]  # fmt: skip


@pytest.mark.parametrize(("refusal", "refused", "instead", "notes"), REFUSALS)
def test_setting_a_server_refuses_is_left_out_and_said(
    serving: Callable[..., Server], refusal: object, refused: str, instead: str | None, notes: tuple[str, ...]
) -> None:
    server = serving(say(400, {"error": {"message": refusal}} if isinstance(refusal, str) else {"detail": refusal}), FINE)
    engine = at(server)
    with Responder("r", engine) as responder:
        asked = Request(messages=HELLO.messages, seed=1, reasoning_effort="low", verbosity="low")
        for _ in range(2):
            assert responder.complete(asked).text == "hello 안녕"
        assert responder.notes_on(asked) == notes
        assert responder.notes_on(HELLO) == (() if refused in ("seed", "reasoning_effort", "verbosity") else notes)
    assert [refused in body for body in server.bodies] == [True, False, False]
    assert instead is None or server.bodies[1][instead] == 512
    assert engine.notes == notes


def whole(content: object, **more: object) -> Act:
    """An answer in JSON that says this."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": "stop"}
    return say(200, {"choices": [choice], "usage": usage})


@pytest.mark.parametrize(
    "refusal",
    [
        "Your organization must be verified to stream this model. Please go to: ...", "Streaming is not supported here.",
        "This model does not support streaming.", "Unsupported parameter: 'stream'", "Unknown parameter: stream",
        "body.stream: Extra inputs are not permitted", "Cannot use tools with streaming for this model", "stream is not allowed",
        "Unsupported value: 'stream' does not support true with this model.", "Unrecognized request argument supplied: `stream`",
        "Unrecognized request argument supplied: stream", "stream=true is not supported for this model",
        "stream=True is not supported", "stream: true is not supported", "'stream': true is not supported",
        "`stream=true` is not supported with this model", "Streaming (stream=true) is not supported",
        "Streaming for this model is not supported",
    ],
)  # fmt: skip
def test_a_server_that_refuses_to_stream_is_asked_for_whole_answers(serving: Callable[..., Server], refusal: str) -> None:
    server = serving(say(400, {"error": {"message": refusal, "param": "stream"}}), whole("hello"))
    with Responder("r", at(server)) as responder:
        request = Request(messages=HELLO.messages, top_k=3)
        for _ in range(2):
            completion = responder.complete(request)
            assert (completion.text, completion.usage.completion_tokens, completion.usage.decode_seconds) == ("hello", 2, 0.0)
        said = "refuses to stream: answers come whole, and when the first word was there is not known"
        assert responder.notes_on(request) == (f"`m` at `127.0.0.1` {said}",)
    asked = [(body["stream"], "stream_options" in body, body["top_k"]) for body in server.bodies]
    assert asked == [(True, True, 3), *[(False, False, 3)] * 2]


@pytest.mark.parametrize(
    "refusal",
    ["Upstream error: unexpected end of stream", "unknown error: stream disconnected", "cannot connect to stream backend",
     "Unsupported model. Received: {'stream': True}", 'not supported: {"stream": true}', "unknown: stream=True",
     "{'model': 'x', 'stream': True} is not supported", "{'stream': True, 'model': 'x'}: x is not supported",
     "Received: {'stream': true}. Model x is not supported", "Streaming request: model x is not supported"],
)  # fmt: skip
def test_a_refusal_that_has_a_stream_in_it_is_no_refusal_to_stream(serving: Callable[..., Server], refusal: str) -> None:
    server = serving(say(400, {"error": {"message": refusal}}))
    engine = at(server)
    with pytest.raises(RemoteError, match="answered 400"):
        list(engine.generate(HELLO))
    assert (len(server.bodies), engine.notes) == (1, ())


@pytest.mark.parametrize(
    ("is_wrong", "refusal"),
    [
        (lambda body: "max_tokens" in body, "'max_tokens' is not supported. Use 'max_completion_tokens'. Received: {'stream': True}"),
        (lambda body: body["stream"], "Streaming is not supported. Received: {'max_tokens': 1, 'max_completion_tokens': None}"),
    ],
)
def test_what_a_refusal_is_of_is_learned_though_it_repeats_the_request(
    serving: Callable[..., Server], is_wrong: Callable[[dict[str, Any]], bool], refusal: str
) -> None:
    def answer(handler: Any) -> None:
        (say(400, {"error": {"message": refusal}}) if is_wrong(handler.body) else whole("hello"))(handler)

    server = serving(answer)
    with Responder("r", at(server)) as responder:
        assert responder.complete(HELLO).text == "hello"
    assert [is_wrong(body) for body in server.bodies] == [True] * (len(server.bodies) - 1) + [False]


def test_a_server_that_refuses_to_stream_even_whole_answers_is_an_error(serving: Callable[..., Server]) -> None:
    server = serving(say(400, {"error": {"message": "Streaming is not supported here."}}))
    assert failure(server).status == 400
    assert len(server.bodies) == 2


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me think."}]}
PARTS = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]


@pytest.mark.parametrize(
    "act",
    [
        whole([THOUGHT, *PARTS]),
        events(piece([THOUGHT]), piece(PARTS), piece(None, "stop")),  # type: ignore[arg-type]
        events(piece("hello"), {"choices": [{"index": 0, "finish_reason": None, "content_filter_results": {}}]}, piece(None, "stop")),
        events(piece("hello"), {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}),
    ],
)
def test_an_answer_in_parts_or_with_events_beside_it_is_read_at_once(serving: Callable[..., Server], act: Act) -> None:
    server = serving(act)
    with Responder("r", at(server)) as responder:
        assert (responder.complete(HELLO).text, len(server.bodies)) == ("hello", 1)


def test_an_answer_in_a_form_that_is_not_known_is_paid_for_once(serving: Callable[..., Server]) -> None:
    server = serving(whole({"odd": 1}))
    budget = Budget(1.0)
    engine = at(server).with_meter(Meter(rates=RATES, budget=budget))
    with Responder("r", engine) as responder, pytest.raises(RemoteError, match="is no answer of") as caught:
        responder.complete(HELLO)
    assert caught.value.hint == "ask another model, or another server that has this one"
    assert (len(server.bodies), budget.spent_usd) == (1, pytest.approx(RATES.most_usd(HELLO)))


def test_an_error_in_place_of_an_answer_counts_with_the_status_that_it_names(serving: Callable[..., Server]) -> None:
    budget = Budget(1.0)
    busy = {"error": {"message": "Provider returned error", "code": 429}}
    for act in (say(200, busy), events(busy)):
        server = serving(act, FINE)
        with Responder("r", at(server).with_meter(Meter(rates=RATES, budget=budget))) as responder:
            assert (responder.complete(HELLO).text, len(server.bodies)) == ("hello 안녕", 2)
    assert budget.spent_usd == pytest.approx(2 * (5 * 10 + 2 * 100) / 1e6)
    error = failure(serving(say(200, {"error": {"message": "No credit", "code": "402"}})))
    assert (error.message, error.status, error.fate, error.may_be_billed) == (
        "`127.0.0.1` answered 402: No credit",
        402,
        "final",
        False,
    )
    midway = failure(serving(events(piece("half"), busy)))
    assert (midway.message, midway.fate) == ("`127.0.0.1` failed while it answered: Provider returned error", "lost")


def test_what_a_model_says_in_refusal_is_its_answer_and_counted_as_filtered(serving: Callable[..., Server]) -> None:
    said = {"choices": [{"index": 0, "delta": {"content": None, "refusal": "I cannot."}, "finish_reason": None}]}
    for act in (events(said, piece(None, "stop")), whole(None, refusal="I cannot.")):
        with Responder("r", at(serving(act))) as responder:
            completion = responder.complete(HELLO)
        assert (completion.text, completion.finish_reason) == ("I cannot.", "filtered")
    assert failure(serving(events(said, done=False))).message.endswith("before it was whole")


def test_room_that_was_used_up_before_an_answer_began_is_an_empty_one_that_was_cut_off(serving: Callable[..., Server]) -> None:
    words = (
        "Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."
    )
    budget = Budget(1.0)
    with Responder(
        "r", at(serving(say(400, {"error": {"message": words}}))).with_meter(Meter(rates=RATES, budget=budget))
    ) as responder:
        completion = responder.complete(HELLO)
    assert (completion.text, completion.finish_reason, completion.usage.is_counted) == ("", "length", False)
    assert budget.spent_usd == pytest.approx(RATES.most_usd(HELLO))


@pytest.mark.parametrize(("setting", "refused", "taken"), [("reasoning_effort", "xhigh", "high"), ("verbosity", "high", "low")])
def test_a_value_that_a_server_refuses_is_left_out_and_others_are_not(
    serving: Callable[..., Server], setting: str, refused: str, taken: str
) -> None:
    refusal = f"Unsupported value: '{setting}' does not support '{refused}' with this model. Supported values are: 'low', '{taken}'."
    server = serving(say(400, {"error": {"message": refusal}}), FINE)
    one, other = (Request(messages=HELLO.messages, **{setting: value}) for value in (refused, taken))  # type: ignore[arg-type]
    with Responder("r", at(server)) as responder:
        for request in (one, other, one):
            responder.complete(request)
        assert len(responder.notes_on(one)) == 1 and responder.notes_on(other) == responder.notes_on(HELLO) == ()
    assert [body.get(setting) for body in server.bodies] == [refused, None, taken, None]


@pytest.mark.parametrize(
    "refusal",
    [
        {"error": {"message": "'messages.0' : for 'role:user' the following must be satisfied[('messages.0' : property 'name' is "
                              "unsupported)]"}},
        {"detail": [{"loc": ["body", "messages", 0, "user", "name"], "msg": "Extra inputs are not permitted"}]},
        {"error": {"message": "Additional properties are not allowed ('name' was unexpected) - 'messages.0'"}},
        {"error": {"message": "Invalid JSON payload received. Unknown name \"name\" at 'messages[0]': Cannot find field."}},
        {"error": {"message": "Failed to deserialize the JSON body: messages[0]: unknown field `name`, expected `role`"}},
    ],
)  # fmt: skip
def test_who_speaks_is_left_out_where_it_is_refused(serving: Callable[..., Server], refusal: dict[str, Any]) -> None:
    server = serving(say(400, refusal), FINE)
    named = Request(messages=(Message(role="user", content="hi", name="alice"),))
    with Responder("r", at(server)) as responder:
        for _ in range(2):
            responder.complete(named)
        assert responder.notes_on(named) == ("`m` at `127.0.0.1` takes no `name` of who speaks: it was left out",)
        result = ToolResult(role="tool", content="9", call_id="a1", name="f")
        assert responder.notes_on(Request(messages=(*HELLO.messages, result))) == ()
        assert responder.notes_on(HELLO) == ()
    assert ["name" in body["messages"][0] for body in server.bodies] == [True, False, False]


RESULT = ToolResult(role="tool", content="9", call_id="a1", name="f")
NAMED = (Message(role="user", content="hi", name="alice"), Message(role="assistant", content="ho", name="bob"), RESULT)


@pytest.mark.parametrize(("at", "refusal"), [
    # pydantic 1, vLLM's as a text; with LiteLLM's words before it
    ({0}, "1 validation error for Request body -> messages -> 0 -> name extra fields not permitted (type=value_error.extra)"),
    ({1}, "litellm.BadRequestError: OpenAIException - messages -> 1 -> name: extra fields not permitted"),
    # pydantic 2: of one model, of a union of them, of one with validators, of a text or a list
    ({1}, "body.messages.1.name: Extra inputs are not permitted"),
    ({1}, "body.messages.1.assistant.name: Extra inputs are not permitted"),
    ({1}, "body.messages.1.function-after[check(), UserMessage].name: Extra inputs are not permitted"),
    ({1}, "body.messages.list[union[UserMessage,ToolMessage]].1.UserMessage.name: Extra inputs are not permitted"),
    # Groq, the last one with LiteLLM's words before it
    ({0}, "'messages.0' : for 'role:user' the following must be satisfied[('messages.0' : property 'name' is unsupported)]"),
    ({2}, "'messages.2' : for 'role:tool' the following must be satisfied[('messages.2' : property 'name' is unsupported)]"),
    ({2}, "litellm.BadRequestError: GroqException - {\"error\":{\"message\":\"'messages.2' : for 'role:tool' the following must be "
          "satisfied[('messages.2' : property 'name' is unsupported)]\"}}"),
    # Mistral, Anthropic, Google, DeepSeek, OpenAI
    ({0}, "{'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'messages', 0, 'user', 'name'], 'msg': 'Extra inputs are not "
          "permitted', 'input': 'alice'}]}"),
    ({0}, "messages.0.name: Extra inputs are not permitted"),
    ({1}, "Invalid JSON payload received. Unknown name \"name\" at 'messages[1]': Cannot find field."),
    ({0}, "Failed to deserialize the JSON body into the target type: messages[0]: unknown field `name`, expected `role`"),
    ({0}, "Unsupported parameter: 'messages[0].name'"),
    # xAI
    ({1, 2}, "Only messages of role 'user' can have a name."),
    # other forms of a path, and of words
    ({0}, "/messages/0/name is not allowed"),
    ({1}, "messages.[1].name: unknown field"),
    ({0}, "messages[0]: the name field is not supported"),
    ({0, 1, 2}, "unknown field \"name\" in a message"),
    ({0}, "messages[0]: Unexpected field 'name'"),
    ({1}, "messages.1: unexpected keyword argument 'name'"),
    ({0}, "messages[0] has an unexpected field name \"name\""),
    ({0}, "unknown field `name`, expected one of `role`, `content` in messages[0]"),
    ({0, 1, 2}, "messages.7.name: Extra inputs are not permitted"),
])  # fmt: skip
def test_names_are_left_out_of_messages_of_the_role_that_is_refused_one(at: set[int], refusal: str) -> None:
    one = dialect.Dialect("h", is_cloud=False)
    asked = Request(messages=NAMED)
    assert one.learn(refusal, one.body("m", asked))
    assert {at for at, row in enumerate(one.body("m", asked)["messages"]) if "name" not in row} == at
    said = ("takes no `name` of who speaks: it was left out",) if at - {2} else ()
    assert one.notes_on(asked) == one.notes == said
    assert one.notes_on(Request(messages=(*HELLO.messages, RESULT))) == ()


def test_a_server_that_takes_no_names_at_all_is_asked_without_them(serving: Callable[..., Server]) -> None:
    refusals = [say(400, {"error": {"message": f"property 'name' is unsupported in 'messages.{at}'"}}) for at in range(len(NAMED))]
    server = serving(*refusals, FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(Request(messages=NAMED))
    assert ["name" in row for row in server.bodies[-1]["messages"]] == [False] * 3


def test_what_was_refused_can_be_read_while_another_thread_learns() -> None:
    """Where the one walked through what the other changed, 50 of 50 runs failed."""
    one, is_read, before = dialect.Dialect("h", is_cloud=False), threading.Event(), sys.getswitchinterval()

    def learn(values: Iterable[int]) -> None:
        for value in values:
            one.learn("unknown verbosity", {"verbosity": str(value)})

    learn(range(1000))
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(1) as threads:
            learning = threads.submit(learn, itertools.takewhile(lambda _: not is_read.is_set(), itertools.count(1000)))
            try:
                assert {one.notes for _ in range(500)} == {(dialect.DISPENSABLE["verbosity"],)}
            finally:
                is_read.set()
            learning.result()
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize(
    "refusal",
    [
        "messages.1.tool_calls.0.function.name: `f.x` is not allowed",
        "messages -> 1 -> tool_calls -> 0 -> function -> name: extra fields not permitted",
        "body.messages.0.assistant.tool_calls.0.name: Extra inputs are not permitted",
        "'messages.0' : for 'role:assistant' the following must be satisfied[('messages.0.tool_calls.0.function' : property 'name' is "
        "not allowed)]",
        "'messages.0' : for 'role:user' the following must be satisfied[('messages.0' : property 'status' is unsupported, did you "
        "mean 'name'?)]",
        "messages[0]: unknown field `reasoning`, expected one of `role`, `content`, `name`",
        "messages[0].content: value is not allowed; the field name is 'text'",
        "Unexpected field name 'status' in messages[0], which is not allowed",
        "Unsupported parameter: 'stop'. Got {'messages': [{'role': 'user', 'content': 'hi', 'name': 'alice'}]}",
    ],
)
def test_what_is_no_refusal_of_who_speaks_is_not_taken_for_one(serving: Callable[..., Server], refusal: str) -> None:
    server = serving(say(400, {"error": {"message": refusal}}), FINE)
    named = Request(messages=(Message(role="user", content="hi", name="alice"),), stop=("end",))
    with Responder("r", at(server)) as responder:
        with pytest.raises(RemoteError, match="answered 400"):
            responder.complete(named)
        responder.complete(named)
        assert responder.notes_on(named) == ()
    assert ["name" in body["messages"][0] for body in server.bodies] == [True, True]


def test_what_another_server_wanted_back_is_left_out_where_it_is_refused(serving: Callable[..., Server]) -> None:
    refusal = "messages.1.tool_calls.0.extra_content: Unsupported parameter: 'extra_content'"
    server = serving(say(400, {"error": {"message": refusal}}), FINE)
    call = ToolCall(id="a1", name="clock", arguments="{}", extra_content=json.dumps(SIGNED))
    turns = (
        *HELLO.messages,
        CallingTurn(role="assistant", content="", calls=(call,)),
        ToolResult(role="tool", content="9", call_id="a1"),
    )
    with Responder("r", at(server)) as responder:
        for _ in range(2):
            responder.complete(Request(messages=(*turns, ToolResult(role="tool", content="9", call_id="a1"))))
    assert ["extra_content" in json.dumps(body["messages"]) for body in server.bodies] == [True, False, False]


def test_system_message_goes_before_the_question_where_it_has_no_role(serving: Callable[..., Server]) -> None:
    server = serving(say(400, {"error": {"message": "Unsupported value: 'messages[0].role' does not support 'system'"}}), FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(Request(messages=(Message(role="system", content="짧게"), *HELLO.messages)))
        assert responder.notes_on(HELLO) == ()
        (note,) = responder.notes_on(Request(messages=(Message(role="system", content="짧게"), *HELLO.messages)))
    assert note == "`m` at `127.0.0.1` takes no system message: it was put before the next question"
    assert server.bodies[1]["messages"] == [{"role": "user", "content": "짧게\n\nhello there"}]


NO_SYSTEM = say(400, {"error": {"message": "Unsupported value: 'messages[0].role' does not support 'system'"}})


def test_every_system_message_goes_before_the_question_that_comes_next(serving: Callable[..., Server]) -> None:
    roles = ("user", "system", "assistant", "user", "system", "system", "user", "system")
    talk = tuple(Message(role=role, content=str(at)) for at, role in enumerate(roles))
    server = serving(NO_SYSTEM, FINE)
    with Responder("r", at(server)) as responder:
        responder.complete(Request(messages=talk))
    assert [(row["role"], row["content"]) for row in server.bodies[1]["messages"]] == [
        ("user", "0"), ("assistant", "2"), ("user", "1\n\n3"), ("user", "4\n\n5\n\n6"), ("user", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize("request_", [
    Request(messages=(*HELLO.messages, Message(role="system", content="짧게"))),
    Request(messages=(Message(role="system", content="짧게"),)),
    Request(messages=HELLO.messages, max_new_tokens=None),
    Request(prompt="once"),
])  # fmt: skip
@pytest.mark.parametrize(
    "refusal", ["role `system` is not supported", "max_tokens is not supported", "max_completion_tokens: unsupported"]
)
def test_a_server_that_refuses_whatever_it_is_asked_is_an_error(
    serving: Callable[..., Server], request_: Request, refusal: str
) -> None:
    server = serving(say(400, {"error": {"message": refusal}}))
    engine = at(server)
    for _ in range(2):
        with pytest.raises(RemoteError, match="answered 400"):
            list(engine.generate(request_))
    assert len(server.bodies) <= 4
    engine.close()


def told(text: str | None, usage: object) -> Act:
    """A whole answer with this usage; `usage` may be JSON."""
    raw = usage if isinstance(usage, str) else json.dumps(usage)
    return events(piece(text, "stop"), f'{{"choices": [], "usage": {raw}}}')


@pytest.mark.parametrize("prompt_tokens", [1000, 1000.0])
def test_counts_are_whole_numbers_in_either_form(serving: Callable[..., Server], prompt_tokens: float) -> None:
    budget = Budget(1.0)
    with Responder("r", at(serving(told("hi", {"prompt_tokens": prompt_tokens, "completion_tokens": 2}))).with_meter(
        Meter(rates=RATES, budget=budget)
    )) as responder:  # fmt: skip
        usage = responder.complete(HELLO).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.is_counted) == (1000, 2, True)
    assert budget.spent_usd == pytest.approx((1000 * 10 + 2 * 100) / 1e6)


@pytest.mark.parametrize(
    ("text", "usage", "counts"),
    [
        ("hi", None, (0, 0)),
        ("hi", [1], (0, 0)),
        ("hi", {"completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": 0, "completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": 5}, (5, 0)),
        ("hi", {"prompt_tokens": 5, "completion_tokens": 0}, (5, 0)),
        (None, {"prompt_tokens": 5}, (5, 0)),
        ("hi", {"prompt_tokens": 5, "total_tokens": 4}, (5, 0)),
        ("hi", {"total_tokens": 7}, (0, 0)),
        ("hi", {"prompt_tokens": 1.5, "completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": "5", "completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": True, "completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": -900_000, "completion_tokens": 2}, (0, 2)),
        ("hi", {"prompt_tokens": 5, "completion_tokens": -2}, (5, 0)),
        ("hi", f'{{"prompt_tokens": {"9" * 400}, "completion_tokens": 2}}', (0, 2)),
        ("hi", '{"prompt_tokens": 1e400, "completion_tokens": NaN}', (0, 0)),
    ],
)
def test_a_count_that_is_absent_or_cannot_be_is_unknown_and_the_most_the_call_can_have_cost_is_spent(
    serving: Callable[..., Server], text: str | None, usage: object, counts: tuple[int, int]
) -> None:
    budget = Budget(1.0)
    with Responder("r", at(serving(told(text, usage))).with_meter(Meter(rates=RATES, budget=budget))) as responder:
        found = responder.complete(HELLO).usage
    assert ((found.prompt_tokens, found.completion_tokens), found.is_counted) == (counts, False)
    assert (RATES.cost_usd(found), budget.spent_usd) == (None, pytest.approx(RATES.most_usd(HELLO)))


def test_what_is_counted_beyond_the_bound_is_spent_though_the_other_count_is_unknown(serving: Callable[..., Server]) -> None:
    for usage in ({"prompt_tokens": 70_000}, {"prompt_tokens": -1, "completion_tokens": 7_000}):
        budget = Budget(10.0)
        with Responder("r", at(serving(told("hi", usage))).with_meter(Meter(rates=RATES, budget=budget))) as responder:
            responder.complete(HELLO)
        assert budget.spent_usd > 0.7 > RATES.most_usd(HELLO)


def test_an_answer_without_words_may_have_no_tokens_and_one_that_was_refused_has_none(serving: Callable[..., Server]) -> None:
    refused = say(400, {"error": {"message": "The response was filtered", "code": "content_filter"}})
    for act, cost in ((told(None, {"prompt_tokens": 5, "completion_tokens": 0}), 5 * 10 / 1e6), (refused, 0.0)):
        budget = Budget(1.0)
        with Responder("r", at(serving(act)).with_meter(Meter(rates=RATES, budget=budget))) as responder:
            assert responder.complete(HELLO).usage.is_counted
        assert budget.spent_usd == pytest.approx(cost)


def spent(engine: RemoteEngine, request: Request, error: type[Exception]) -> float:
    """USD counted for a call that raises this."""
    budget = Budget(1.0)
    engine.meter = Meter(rates=RATES, budget=budget)
    with pytest.raises(error):
        list(engine.generate(request))
    engine.close()
    return budget.spent_usd


def test_a_call_that_may_have_been_worked_on_is_counted_and_one_that_was_not_is_free(serving: Callable[..., Server]) -> None:
    most = RATES.most_usd(HELLO)
    assert spent(at(serving(Silent()), read_timeout_seconds=0.1), HELLO, RemoteError) == pytest.approx(most)
    assert spent(at(serving(half)), HELLO, RemoteError) == pytest.approx(most)
    for status, usd in ((400, 0), (504, most), (524, most)):
        assert spent(at(serving(say(status, {"error": "no"}))), HELLO, RemoteError) == pytest.approx(usd)
    cloud = RemoteEngine(base_url="http://127.0.0.1:9/v1", model="m", key="k", provider="google")
    assert spent(cloud, Request(messages=HELLO.messages, top_k=3), UnsupportedError) == 0


def test_a_closed_model_of_a_server_says_so(serving: Callable[..., Server]) -> None:
    server = serving(say(200, {}))
    engine = at(server)
    engine.close()
    asks: list[Callable[[], object]] = [lambda: list(engine.generate(HELLO)), engine.list_models]
    for ask in asks:
        with pytest.raises(StoppedError, match="the model is closed"):
            ask()
    assert not server.bodies


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        ([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}],
         401, "check the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"),
        ({"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk***YA."},
         401, "check the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"),
        ({"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}},
         402, "the account's credit is used up: look at the account"),
        ({"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}},
         401, "check the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"),
        ({"error": {"message": "litellm.BadRequestError: You passed in model=m. There are no healthy deployments for this model"}},
         404, "does the server have a model `m`, and is the address right?"),
        ({"error": {"message": "/chat/completions: Invalid model name passed in model=m. Call `/v1/models` to view them"}},
         404, "does the server have a model `m`, and is the address right?"),
        ({"error": {"message": "The model `m` does not exist", "code": "model_not_found"}},
         404, "does the server have a model `m`, and is the address right?"),
        ({"error": {"message": "`messages`: 'Incorrect API key provided' is too long"}}, 400, None),
    ],
)  # fmt: skip
def test_refused_key_used_up_credit_and_unknown_model_are_known_by_their_words_where_they_come_as_a_bad_request(
    serving: Callable[..., Server], body: object, status: int, hint: str | None
) -> None:
    server = serving(say(400, body))
    error = failure(server)
    assert (error.status, error.hint, error.fate) == (status, hint, "final")
    assert error.message.startswith("`127.0.0.1` answered 400: ")
    assert len(server.bodies) == 1


def test_refusal_that_names_a_setting_for_its_value_is_the_users_to_mend(serving: Callable[..., Server]) -> None:
    server = serving(say(400, {"error": {"message": "max_tokens is too large: 512. This model has at most 400."}}))
    assert failure(server).status == 400
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("status", "body", "message", "hint"),
    [
        (401, {"error": {"message": "bad key k-123"}}, "`127.0.0.1` answered 401: bad key …",
         "check the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"),
        (404, {"error": {"message": "model 'm' not found"}}, "`127.0.0.1` answered 404: model 'm' not found",
         "does the server have a model `m`, and is the address right?"),
        (429, {"error": {"message": "quota"}}, "`127.0.0.1` answered 429: quota",
         "too many requests, or the account's quota is used up: wait, or look at the account"),
        (400, [{"error": {"message": "google's form"}}], "`127.0.0.1` answered 400: google's form", None),
        (503, b"", "`127.0.0.1` answered 503: nothing more", "the server's own fault: try again later"),
        (500, {"error": {"message": "1 validation error:\n  {'loc': ('body', 'response_format', 'type')}", "code": None}},
         "`127.0.0.1` answered 500: 1 validation error: {'loc': ('body', 'response_format', 'type')}",
         "ask without --json-schema (in Python: `json_schema`), or with one that this server takes"),
        (502, b"<html>\n<h1>Bad   Gateway</h1>", "`127.0.0.1` answered 502: <html> <h1>Bad Gateway</h1>",
         "the server's own fault: try again later"),
        (504, b"", "`127.0.0.1` answered 504: nothing more", "try again, or ask for less"),
        (400, {"error": "plain text"}, "`127.0.0.1` answered 400: plain text", None),
        (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "field required", "type": "missing", "input": {"a": 1}},
                          {"msg": "k-123 is too long"}]},
         "`127.0.0.1` answered 422: body.messages.0.role: field required; … is too long", None),
        (422, {"object": "error", "message": {"detail": [{"loc": ["body", "messages", 0, "user", "id"], "msg": "Extra inputs"}]}},
         "`127.0.0.1` answered 422: body.messages.0.user.id: Extra inputs", None),
        (403, {"error": {"message": "not yours"}}, "`127.0.0.1` answered 403: not yours",
         "the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY may not use this model"),
        (403, {"error": {"message": "Your input was flagged for the following reasons: violence", "code": 403}},
         "`127.0.0.1` answered 403: Your input was flagged for the following reasons: violence", "ask otherwise, or another model"),
        (422, {"detail": "no such thing"}, "`127.0.0.1` answered 422: no such thing", None),
        (422, {"detail": ["odd"]}, "`127.0.0.1` answered 422: ['odd']", None),
    ],
)  # fmt: skip
def test_error_says_status_words_and_advice_and_never_the_key(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, status: int, body: object, message: str, hint: str | None
) -> None:
    monkeypatch.setenv("NOMOAT_UPSTREAM_API_KEY", "k-123")
    error = failure(serving(say(status, body)))
    assert (error.message, error.hint, error.status) == (message, hint, 422 if status == 500 else status)


@pytest.mark.parametrize(("code", "told"), [("context_length_exceeded", "context_length_exceeded"), (400, None), (None, None)])
def test_error_has_the_servers_own_code_where_it_is_a_name(serving: Callable[..., Server], code: object, told: str | None) -> None:
    assert failure(serving(say(400, {"error": {"message": "too long", "code": code}}))).code == told


@pytest.mark.parametrize(("param", "told"), [("tools.3.function.parameters", "tools.3.function.parameters"), (3, None), (None, None)])
def test_error_names_the_field_that_the_server_refused(serving: Callable[..., Server], param: object, told: str | None) -> None:
    assert failure(serving(say(400, {"error": {"message": "no", "param": param}}))).param == told


NO_ANSWER = r"`127\.0\.0\.1` sent something that is no answer of an OpenAI-compatible server"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (reset, r"no connection to `http://127\.0\.0\.1:\d+/v1`: Server disconnected without sending a response\."),
        (half, r"`127\.0\.0\.1` ended the answer of `m` before it was whole: peer closed connection .+"),
        (events(piece("half an answer"), done=False), r"`127\.0\.0\.1` ended the answer of `m` before it was whole"),
        (say(200, b"<html>hello</html>", "text/html"), NO_ANSWER),
        (events("{not json"), NO_ANSWER),
        (say(200, b'{"choices": [{"message": {"content": "x'), r"`127\.0\.0\.1` ended the answer of `m` before it was whole"),
        (say(200, '{"choices": [{"text": "안'.encode()[:-1]), r"`127\.0\.0\.1` ended the answer of `m` before it was whole"),
        (say(200, b'{"choices": no}'), NO_ANSWER),
        (say(200, {"hello": 1}), NO_ANSWER),
        (say(200, {"choices": 1}), NO_ANSWER),
        (say(200, {"choices": [{"message": {"content": ["parts"]}}]}), NO_ANSWER),
        (say(200, {"choices": [{"message": {"content": None, "tool_calls": [1]}}]}), NO_ANSWER),
        (say(200, {"error": {"message": "out of memory"}}), r"`127\.0\.0\.1` failed while it answered: out of memory"),
        (say(200, {"error": "quota exceeded"}), r"`127\.0\.0\.1` failed while it answered: quota exceeded"),
        (events({"choices": "no"}), NO_ANSWER),
        (events({"hello": 1}), NO_ANSWER),
        (events({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": ["stop"]}]}), NO_ANSWER),
        (events("[" * 100_000 + "]" * 100_000), NO_ANSWER),
        (events(piece("x", "stop"), f'{{"choices": [], "usage": {{"prompt_tokens": {"9" * 5000}}}}}'), NO_ANSWER),
        (events(piece("x"), {"error": {"message": "out of memory"}}), r"`127\.0\.0\.1` failed while it answered: out of memory"),
    ],
)  # fmt: skip
def test_answer_that_is_none_is_an_error(serving: Callable[..., Server], act: Act, message: str) -> None:
    assert re.fullmatch(message, failure(serving(act)).message)


@pytest.mark.parametrize("error", [ValueError, RecursionError])
def test_an_error_of_ours_while_sending_is_not_said_to_be_the_servers(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def send(*_: object) -> None:
        raise error("ours")

    with closing(at(serving(FINE))) as engine:
        monkeypatch.setattr(engine, "_send", send)
        with pytest.raises(error, match="ours"):
            list(engine.generate(HELLO))


def test_a_list_of_models_of_thousands_of_brackets_is_none(serving: Callable[..., Server]) -> None:
    with closing(at(serving(say(200, b"[" * 100_000, "application/json")))) as engine, pytest.raises(RemoteError) as caught:
        engine.list_models()
    assert re.fullmatch(NO_ANSWER, caught.value.message)


def test_what_a_server_says_is_quoted_without_what_drives_a_terminal(serving: Callable[..., Server]) -> None:
    bad = "bad \x1b]0;PWNED\x07 \x9b31m \u202e model\r\nno"
    engine = at(serving(say(400, {"error": {"message": bad, "code": "no\x1b[2J"}})))
    with pytest.raises(RemoteError) as caught:
        list(engine.generate(HELLO))
    engine.close()
    assert (caught.value.message, caught.value.code) == ("`127.0.0.1` answered 400: bad ]0;PWNED 31m model no", "no [2J")


def test_slow_server_is_given_up(serving: Callable[..., Server]) -> None:
    assert failure(serving(Silent()), read_timeout_seconds=0.1).message == "`127.0.0.1` did not answer within 0.1 s"


def test_no_server_says_where_and_asks_whether_it_runs(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    server.close()
    error = failure(server)
    assert error.message.startswith(f"no connection to `{server.url}`: ")
    assert error.hint == "is the server running, and the port right?"


def test_a_certificate_that_is_not_trusted_is_named_with_the_variable_that_helps(
    untrusted: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, pem = untrusted
    error = failure(server)
    assert "CERTIFICATE_VERIFY_FAILED" in error.message
    assert error.hint == (
        "if you trust whoever signed its certificate (a company's proxy, yourself), name theirs: SSL_CERT_FILE=FILE.pem"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with Responder("r", at(server)) as responder:
        assert responder.complete(HELLO).text == "hello 안녕"


def test_a_server_whose_certificate_is_not_trusted_is_asked_once_and_takes_no_money(untrusted: tuple[Server, Path]) -> None:
    server, _ = untrusted
    engine, budget = at(server), Budget(1.0)
    engine.meter = Meter(rates=RATES, budget=budget)
    lost: list[Request] = []
    engine.calls.on_lost = lost.append
    asked: list[float] = []
    reserve = budget.reserve
    budget.reserve = lambda usd: (reserve(usd), asked.append(usd))[0]  # type: ignore[method-assign]
    with pytest.raises(RemoteError, match="CERTIFICATE_VERIFY_FAILED"):
        list(engine.generate(HELLO))
    assert (len(asked), budget.spent_usd, lost) == (1, 0.0, [])
    engine.close()


def test_a_certificate_for_another_name_is_no_matter_of_trust(untrusted: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server, pem = untrusted
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    server.url = server.url.replace("127.0.0.1", "localhost")
    assert failure(server).hint == "its certificate is for another name, or out of date: check the address, and this machine's clock"


def sent_on(to: str) -> Act:
    return say(307, b"", headers={"location": to})


def test_redirect_within_the_server_that_was_named_is_followed(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_UPSTREAM_API_KEY", "k-123")
    server = serving(sent_on("/there"), FINE)
    with Responder("r", at(server)) as responder:
        assert responder.complete(HELLO).text == "hello 안녕"
    assert [headers["authorization"] for headers in server.headers] == ["Bearer k-123"] * 2


def test_redirect_to_another_port_gets_neither_key_nor_prompt(serving: Callable[..., Server]) -> None:
    other = serving(FINE)
    engine = at(server := serving(sent_on(f"{other.url}/there")))
    with pytest.raises(RedirectedError) as caught:
        list(engine.generate(HELLO))
    engine.close()
    assert other.bodies == []
    assert caught.value.message == (
        f"refused to connect to `{other.url.removesuffix('/v1')}` to ask a model server: only `{server.url}` was asked for, "
        "and it sends requests on"
    )
    assert caught.value.hint == "name that server in its place if you want to use it"


@pytest.mark.parametrize(
    ("named", "to", "is_followed"),
    [
        ("https://llm.example/v1", "http://llm.example/v1", False),
        ("https://llm.example/v1", "https://llm.example:8443/v1", False),
        ("https://llm.example/v1", "https://llm.example:443/v1", True),
        ("http://llm.example/v1", "https://llm.example/v1", True),
        ("http://llm.example:8000/v1", "https://llm.example/v1", False),
        ("http://llm.example/v1", "https://other.example/v1", False),
        ("http://llm.example/v1", "http://192.0.2.1/v1", False),
    ],
)
@pytest.mark.parametrize("provider", ["http", "openai"])
def test_a_prompt_is_sent_on_to_the_same_server_only(named: str, to: str, is_followed: bool, provider: str) -> None:
    engine = RemoteEngine(base_url=named, model="m", key="k", provider=provider)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(307 if len(asked) == 1 else 404, headers={"location": to})

    client = engine._client._client
    client._transport, client._mounts = httpx.MockTransport(answer), {}
    with pytest.raises(RemoteError if is_followed else RedirectedError):
        engine.list_models()
    engine.close()
    assert len(asked) == 1 + is_followed


def test_what_is_meant_for_openai_goes_to_its_base_url_and_nothing_about_this_machine(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(FINE)
    for name, value in {
        "OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": server.url, "OPENAI_ORG_ID": "org-1", "OPENAI_CUSTOM_HEADERS": "x-gateway: 7",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with Responder("r", remote_engine("openai:m")) as responder:
        responder.complete(HELLO)
    headers = server.headers[0]
    assert [headers.get(name) for name in ("authorization", "openai-organization", "x-gateway")] == ["Bearer sk-1", "org-1", "7"]
    assert [name for name in headers if name.startswith("x-stainless")] == []


# ---------------------------------------------------------------- references
def test_reference_without_a_model_takes_the_only_one(serving: Callable[..., Server]) -> None:
    engine = remote_engine(serving(say(200, {"object": "list", "data": [{"id": "one"}]})).url)
    assert engine.model == "one"
    engine.close()


def test_reference_without_a_model_lists_them_when_there_are_several(serving: Callable[..., Server]) -> None:
    server = serving(say(200, {"object": "list", "data": [{"id": "one"}, {"id": "two"}]}))
    with pytest.raises(UsageError) as caught:
        remote_engine(server.url)
    assert caught.value.message == f"the server at `{server.url}` has 2 models: one, two"
    assert caught.value.hint == f"write `{server.url}#one`"
    empty = serving(say(200, {"object": "list", "data": []}))
    with pytest.raises(UsageError) as refused:
        remote_engine(empty.url)
    assert refused.value.message == f"the server at `{empty.url}` has no model" and f"`{empty.url}#MODEL`" in str(refused.value.hint)


@pytest.mark.parametrize("act", [say(200, {"hello": 1}), say(200, b"<html>hello</html>", "text/html")], ids=["json", "page"])
def test_server_whose_model_list_is_none_is_an_error(act: Act, serving: Callable[..., Server]) -> None:
    with pytest.raises(RemoteError, match="sent something that is no answer"):
        remote_engine(serving(act).url)


def test_clouds_have_their_addresses_and_are_not_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefgh")
    monkeypatch.setenv("GEMINI_API_KEY", "g")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a")
    for ref in ("openai:x", "google:x", "anthropic:x"):
        engine = remote_engine(ref)
        assert engine.base_url == PROVIDERS[ref.partition(":")[0]].base_url
        assert not engine.is_local
        assert "sk-abcdefgh" not in repr(engine)
        with pytest.raises(UnsupportedError, match="has no top_k"):
            list(engine.generate(Request(messages=HELLO.messages, top_k=5)))
        engine.close()


def test_openai_base_url_leads_elsewhere(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serving(FINE)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    with Responder("r", remote_engine("openai:m")) as responder:
        assert responder.complete(HELLO).text == "hello 안녕"


def test_offline_refuses_a_cloud_before_it_looks_for_a_key() -> None:
    with pytest.raises(OfflineError) as caught:
        remote_engine("openai:gpt")
    assert caught.value.message == "refused to connect to `api.openai.com` to ask a model server: NOMOAT_OFFLINE is set"


def test_digest_tells_servers_and_models_apart() -> None:
    engines = [remote_engine(ref) for ref in ("http://localhost:1#a", "http://localhost:1#b", "http://localhost:2#a")]
    assert len({engine.digest for engine in engines}) == 3
    for engine in engines:
        engine.close()


def test_likelihoods_and_token_counts_are_not_to_be_had() -> None:
    engine = remote_engine("http://localhost:1#a")
    with pytest.raises(UnsupportedError, match="gives no likelihoods"):
        engine.score(HELLO, ["x"])
    with pytest.raises(UnsupportedError, match="is not known here"):
        engine.count_tokens(HELLO)
    engine.close()


def test_another_nomoat_is_a_server_like_any(tmp_path: Path) -> None:
    command = [shell.NOMOAT, "serve", "fake:", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NOMOAT_HOME": str(tmp_path)}) as child:
        assert child.stderr is not None
        try:
            url = next(found.group() for line in child.stderr if (found := re.search(r"http://\S+/v1", line)))
            with Responder("r", remote_engine(url)) as responder:
                completion = responder.complete(Request(messages=(Message(role="user", content="해자가 없다"),)))
            assert (completion.text, completion.usage.completion_tokens) == ("없다 해자가", 2)
        finally:
            child.terminate()
