"""/v1/messages: the same call as a chat's, in Anthropic's words, told in its blocks and events."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from leaving import asking, endless
from patience import PATIENCE_SECONDS, wait_until
from scripted import Asked, ScriptedEngine

from nomoat.engine import tool_calls
from nomoat.engine.fake import FakeEngine
from nomoat.errors import BadRequestError, ContextExceededError, NomoatError, RemoteError, SchemaError
from nomoat.records import CallingTurn, Chunk, Request, ToolCall, ToolResult, Usage
from nomoat.responder import Responder
from nomoat.serve import messages, wire

Start = Callable[..., str]
USAGE = Usage(prompt_tokens=3, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0, cached_tokens=1)
END = Chunk(text="", finish_reason="stop", usage=USAGE)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "weather", "description": "in a city", "input_schema": PARAMETERS}
CHATS_TOOL = {"type": "function", "function": {"name": "weather", "description": "in a city", "parameters": PARAMETERS}}
HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


def post(url: str, path: str = "messages", **fields: Any) -> httpx.Response:
    return httpx.post(f"{url}/{path}", json={"max_tokens": 50, "messages": HI, **fields})


def saying(*script: Chunk) -> Responder:
    return Responder("fake", ScriptedEngine(lambda: iter(script)))


def events_of(url: str, **fields: Any) -> list[dict[str, Any]]:
    """A stream's events, each called the same twice; its blocks are numbered, and each is over before the next begins."""
    told = post(url, stream=True, **fields)
    assert told.status_code == 200 and told.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in told.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    places = [event["index"] for event in events if event["type"] == "content_block_start"]
    assert places == [event["index"] for event in events if event["type"] == "content_block_stop"] == list(range(len(places)))
    return events


def joined(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a stream tells, as Anthropic's SDK puts it together."""
    begun, *rest = events
    message: dict[str, Any] = begun["message"]
    for event in rest:
        match event["type"]:
            case "content_block_start":
                message["content"].append(event["content_block"])
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                message["content"][event["index"]]["text"] += event["delta"]["text"]
            case "content_block_delta":
                message["content"][event["index"]]["input"] = json.loads(event["delta"]["partial_json"])
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    return message


def answer(url: str, *, stream: bool, **fields: Any) -> dict[str, Any]:
    if stream:
        return joined(events_of(url, **fields))
    told = post(url, **fields)
    assert told.status_code == 200, told.text
    message: dict[str, Any] = told.json()
    return message


# ---------------------------------------------------------------- answers
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_anthropics_message(start: Start, stream: bool) -> None:
    url = start(Responder("fake", FakeEngine()))
    told = answer(url, stream=stream, model="fake", system="be brief", messages=[{"role": "user", "content": "one two three"}])
    assert told.pop("id").startswith("msg_")
    usage = {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    assert told == {
        "type": "message", "role": "assistant", "model": "fake", "content": [{"type": "text", "text": "three two one"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def test_a_stream_tells_the_answer_by_typed_events_in_their_order(start: Start) -> None:
    events = events_of(start(Responder("fake", FakeEngine())), messages=[{"role": "user", "content": "one two"}])
    assert [event["type"] for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"finish_reason": "length"}, ("max_tokens", None)), ({"finish_reason": "filtered"}, ("refusal", None)),
        ({"finish_reason": "length", "usage": replace(USAGE, completion_tokens=1)}, ("model_context_window_exceeded", None)),
        ({"stopped_by": "END"}, ("stop_sequence", "END")),
        ({"calls": (ToolCall(id="a", name="f", arguments=""),)}, ("tool_use", None)),
    ],
)  # fmt: skip
def test_why_an_answer_ended_is_told_in_anthropics_words(start: Start, last: dict[str, Any], told: Any, stream: bool) -> None:
    url = start(saying(Chunk(text="so"), replace(END, **last)))
    message = answer(url, stream=stream, max_tokens=2)
    assert (message["stop_reason"], message["stop_sequence"]) == told
    usage = last.get("usage", USAGE)
    assert message["usage"] == {
        "input_tokens": 2, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 0, "output_tokens": usage.completion_tokens,
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_no_words_is_a_text_of_none(start: Start, stream: bool) -> None:
    assert answer(start(saying(Chunk(text=" "), END)), stream=stream)["content"] == [{"type": "text", "text": " "}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", ["Let me see.\n", "\n"])
def test_a_conversation_with_a_tool_goes_round_as_clients_keep_it(start: Start, before: str, stream: bool) -> None:
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    said = iter([before + written, "Sunny."])

    class Engine(ScriptedEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            return tool_calls.recognised(super().generate(request), request)  # type: ignore[arg-type]

    engine = Engine(lambda: iter([Chunk(text=next(said)), END]))
    url = start(Responder("fake", engine))
    turns: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    *words, call = (told := answer(url, stream=stream, messages=turns, tools=[TOOL]))["content"]
    assert [block["text"].strip() for block in words] == ([before.strip()] if before.strip() else [])
    assert (told["stop_reason"], call["type"], call["name"], call["input"]) == ("tool_use", "tool_use", "weather", {"city": "Paris"})
    turns += [
        {"role": "assistant", "content": told["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "18 C"}]},
    ]
    assert answer(url, stream=stream, messages=turns, tools=[TOOL])["content"][0]["text"] == "Sunny."
    calling, result = engine.asked[1].messages[1:]
    assert isinstance(calling, CallingTurn) and isinstance(result, ToolResult)
    assert (calling.content.strip(), result.content, result.call_id) == (before.strip(), "18 C", calling.calls[0].id)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_another_server_have_ids_and_keep_what_it_wants_back(start: Start, stream: bool) -> None:
    called = (
        ToolCall(id="a", name="f", arguments="{}", extra_content='{"google": {"x": 1}}'),
        ToolCall(id="", name="g", arguments=""),
    )
    first, second = answer(start(saying(replace(END, calls=called))), stream=stream)["content"]
    assert (first["id"], first["extra_content"]) == ("a", {"google": {"x": 1}}) and second["id"].startswith("toolu_")
    body = {"messages": [*HI, {"role": "assistant", "content": [first]}, *HI]}
    _, calling, _ = messages.parse(json.dumps(body).encode()).requests[0].messages
    assert isinstance(calling, CallingTurn) and calling.calls == called[:1]


@pytest.mark.parametrize("arguments", ["1", '{"a": '])
def test_arguments_of_another_servers_model_that_are_no_object_are_its_error(start: Start, arguments: str) -> None:
    url = start(saying(replace(END, calls=(ToolCall(id="a", name="f", arguments=arguments),))))
    told = {"type": "api_error", "message": "the model called `f` with arguments that are no JSON object; ask again",
            "details": {"error_code": "upstream_error"}}  # fmt: skip
    whole = post(url)
    assert (whole.status_code, whole.json()) == (502, {"type": "error", "error": told})
    assert events_of(url)[-1] == {"type": "error", "error": told}


# ---------------------------------------------------------------- the same call as a chat's
USE = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}, {"type": "text", "text": "b"}]},
    {"role": "user", "content": "c"},
    {"role": "system", "content": "tools: many"},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "So."}, USE]},
    {"role": "assistant", "content": [USE | {"id": "c2"}]},
    {"role": "user", "content": [
        {"type": "text", "text": "And?"}, {"type": "tool_result", "tool_use_id": "c1", "content": "18", "is_error": False},
        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
    ]},
    {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}, USE | {"id": "c3"}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c3"}]},
]  # fmt: skip
CALL = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
CHATS_TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"}, {"role": "user", "content": "a\nb\nc\ntools: many"},
    {"role": "assistant", "content": "So.", "tool_calls": [CALL, CALL | {"id": "c2"}]},
    {"role": "tool", "tool_call_id": "c1", "content": "18"}, {"role": "tool", "tool_call_id": "c2", "content": "x\ny"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "c3"}]}, {"role": "tool", "tool_call_id": "c3", "content": ""},
]  # fmt: skip
SCHEMA = {"type": "object", "properties": {"old": {"type": "boolean"}}}
WITH_TOOL = {"tools": [CHATS_TOOL]}


@pytest.mark.parametrize(
    ("body", "chat"),
    [
        ({}, {}),
        ({"model": "m", "max_tokens": 5, "stream": True}, {"model": "m", "max_tokens": 5, "stream": True}),
        ({"messages": TURNS, "system": "be brief"}, {"messages": CHATS_TURNS}),
        ({"system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"}, {"type": "text", "text": "be"},
                     {"type": "text", "text": "brief"}]},
         {"messages": [{"role": "system", "content": "be\nbrief"}, *HI]}),
        ({"messages": [{"role": "system", "content": "be"}, {"role": "system", "content": "brief"}, *HI]},
         {"messages": [{"role": "system", "content": "be\nbrief"}, *HI]}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 5, "stop_sequences": ["x"], "seed": 3},
         {"temperature": 0, "top_p": 0.5, "top_k": 5, "stop": ["x"], "seed": 3}),
        ({"tools": [TOOL]}, WITH_TOOL),
        ({"tools": [TOOL | {"type": "custom"}], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
         WITH_TOOL | {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "weather"}},
         WITH_TOOL | {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, WITH_TOOL), ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {}),
        ({"output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}}},
         {"reasoning_effort": "high", "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "x"}, "service_tier": "auto",
          "cache_control": {"type": "ephemeral"}, "context_management": {"edits": []}, "mcp_servers": [], "container": None}, {}),
    ],
)  # fmt: skip
def test_what_is_asked_is_the_call_that_a_chat_would_be(body: dict[str, Any], chat: dict[str, Any]) -> None:
    call = messages.parse(json.dumps({"messages": HI, **body}).encode())
    assert call == wire.parse_chat(json.dumps({"messages": HI, **chat}).encode())


def block(kind: str, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [{"type": kind, **fields}]}, *HI]}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        (block("image", source={}), "messages.0.content.0.type",
         "`messages.0.content.0.type` is `image`; with the role `user` supported are text, tool_result"),
        (block("server_tool_use", "assistant"), "messages.0.content.0.type",
         "`messages.0.content.0.type` is `server_tool_use`; with the role `assistant` supported are text, tool_use, thinking"),
        (block("tool_result", tool_use_id="a", content=[{"type": "image"}]), "messages.0.content.0.content",
         "`messages.0.content.0.content` holds a part of type `image`; only text is supported"),
        ({"messages": [*HI, {"role": "assistant", "content": "So"}]}, "messages.1.role",
         "`messages.1.role` is `assistant`, to be gone on with (a prefill); the last message has to be the user's"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type",
         "`tools.0.type` is `web_search_20250305`; only functions are supported"),
        ({"mcp_servers": [{"name": "x"}]}, "mcp_servers",
         "`mcp_servers` is not supported: this server asks no other for tools; send functions in `tools`"),
        ({"output_format": {}}, "output_format", "`output_format` is not supported; use `output_config`: {format}"),
        ({"stop": "x"}, "stop", "`stop` is not supported; use `stop_sequences`"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "`logit_bias` is not supported"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_in_silence_is_refused_by_name(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        messages.parse(json.dumps({"messages": HI, **fields}).encode())
    assert (caught.value.message, caught.value.param, caught.value.code) == (message, param, "unsupported")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"), (block("text"), "messages.0.content.0.text"),
        (block("tool_use", "assistant", id="a", name="f", input="{}"), "messages.0.content.0.input"),
        (block("tool_result", content="x"), "messages.0.content.0.tool_use_id"), ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"), ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": [TOOL, TOOL | {"description": "other"}]}, "tools.1.name"), ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"a": float("inf")}}}}, "output_config.format.schema"),
        ({"tools": [TOOL | {"input_schema": {"a": float("inf")}}]}, "tools.0.input_schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        messages.parse(json.dumps({"messages": HI, **fields}).encode())
    assert (caught.value.param, caught.value.code) == (param, None) and f"`{param}" in caught.value.message


def test_a_tool_that_is_no_function_is_left_out_beside_one_and_said(start: Start) -> None:
    engine = Asked()
    told = post(start(Responder("fake", engine)), tools=[{"type": "web_search_20250305", "name": "web_search"}, TOOL])
    assert told.headers["x-nomoat-notes"] == "`tools.0` (`web_search_20250305`) is left out; only functions are supported"
    assert [json.loads(tool) for tool in engine.asked[0].tools] == [CHATS_TOOL]


def test_tokens_are_counted_and_nothing_is_answered(start: Start) -> None:
    engine = Asked()
    url = start(Responder("fake", engine))
    told = httpx.post(f"{url}/messages/count_tokens", json={"model": "fake", "system": "be brief", "messages": HI})
    assert (told.status_code, told.json(), engine.asked) == (200, {"input_tokens": 3}, [])


# ---------------------------------------------------------------- errors and ends
@pytest.mark.parametrize("path", ["messages", "messages/count_tokens"])
def test_errors_have_anthropics_form(start: Start, path: str) -> None:
    url = start(Responder("fake", FakeEngine()), api_key="s3cret")
    key = {"x-api-key": "s3cret"}
    body = {"messages": HI}
    wrong = {"model": "claude", **body}
    for status, kind, code, told in (
        (401, "authentication_error", "invalid_api_key", httpx.post(f"{url}/{path}", json=body)),
        (401, "authentication_error", "invalid_api_key", httpx.post(f"{url}/{path}", json=body, headers={"x-api-key": "other"})),
        (404, "not_found_error", "model_not_found", httpx.post(f"{url}/{path}", json=wrong, headers=key)),
        (400, "invalid_request_error", None, httpx.post(f"{url}/{path}", json={}, headers=key)),
        (404, "not_found_error", "unsupported", httpx.post(f"{url}/{path}/", json=body, headers=key)),
        (405, "invalid_request_error", None, httpx.get(f"{url}/{path}", headers=key)),
        (413, "invalid_request_error", "body_too_long", httpx.post(f"{url}/{path}", content=b" " * (2 << 20) + b"{}", headers=key)),
    ):
        error = told.json()
        assert (told.status_code, error["type"], error["error"]["type"]) == (status, "error", kind), told.text
        assert error["error"].get("details") == (code and {"error_code": code}) and error["error"]["message"]
    for headers in (key, {"authorization": "Bearer s3cret"}, key | {"authorization": "Bearer none"}):
        assert httpx.post(f"{url}/{path}", json=body, headers=headers).status_code == 200


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_claude_code_knows() -> None:
    error = ContextExceededError(prompt_tokens=9, max_new_tokens=1, context_tokens=8)
    assert error.on_the_wire.endswith("The prompt is too long: 9 tokens > 7 maximum.")


def test_a_schema_is_named_where_it_stands(start: Start) -> None:
    def refuse() -> Iterator[Chunk]:
        error = SchemaError("cannot be followed")
        error.field = "tools.0.function.parameters"
        raise error

    url = start(Responder("fake", ScriptedEngine(refuse)))
    told = [post(url, tools=[{"type": "bash_20250124", "name": "bash"}, TOOL], stream=stream).json() for stream in (False, True)]
    assert [one["error"]["message"] for one in told] == ["cannot be followed"] * 2


@pytest.mark.parametrize(
    ("error", "kind"), [(NomoatError("the engine fell over"), "api_error"), (RemoteError("too many", status=429), "rate_limit_error")]
)
def test_an_error_in_mid_stream_is_an_event(start: Start, error: NomoatError, kind: str) -> None:
    def script() -> Iterator[Chunk]:
        yield Chunk(text="so")
        raise error

    last = events_of_failing(start(Responder("fake", ScriptedEngine(script))))[-1]
    assert (last["type"], last["error"]["type"], last["error"]["message"]) == ("error", kind, error.message)


def events_of_failing(url: str) -> list[dict[str, Any]]:
    lines = post(url, stream=True).text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_another_servers_429_is_one_here_with_when_to_ask_again(start: Start) -> None:
    def refuse() -> Iterator[Chunk]:
        raise RemoteError("too many", status=429, wait_seconds=7.0)
        yield

    told = post(start(Responder("fake", ScriptedEngine(refuse))))
    assert (told.status_code, told.json()["error"]["type"], told.headers["retry-after"]) == (429, "rate_limit_error", "7")


def test_a_stream_in_which_nothing_comes_gets_pings(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.served.SIGN_SECONDS", 0.05)
    go_on = threading.Event()

    def script() -> Iterator[Chunk]:
        assert go_on.wait(PATIENCE_SECONDS)
        yield Chunk(text="late", finish_reason="stop", usage=USAGE)

    url = start(Responder("fake", ScriptedEngine(script)))
    with httpx.stream("POST", f"{url}/messages", json={"messages": HI, "stream": True}) as told:
        lines = (line for line in told.iter_lines() if line and not line.startswith("data: "))
        assert [next(lines) for _ in range(2)] == ["event: message_start", "event: ping"]
        go_on.set()
        assert list(lines)[-1] == "event: message_stop"


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_stops_the_engine(start: Start, stream: bool) -> None:
    begun, closed = threading.Event(), threading.Event()
    url = start(Responder("fake", ScriptedEngine(lambda: endless(begun, closed))))
    with asking(f"{url}/messages", {"messages": HI, "stream": stream}) as client:
        assert begun.wait(PATIENCE_SECONDS)
        if stream:
            assert client.recv(1)
        assert not closed.is_set()
    assert closed.wait(PATIENCE_SECONDS)
    counted = 'nomoat_requests_total{model="fake",outcome="gone"} 1.0'
    wait_until(lambda: counted in httpx.get(url.replace("/v1", "/metrics")).text, counted)


def test_a_limit_of_the_server_is_kept_to_and_noted(start: Start) -> None:
    url = start(Responder("fake", FakeEngine()), max_tokens=2)
    told = post(url, messages=[{"role": "user", "content": "one two three"}])
    assert told.headers["x-nomoat-notes"] == "an answer has at most 2 tokens on this server"
    assert (told.json()["content"][0]["text"], told.json()["stop_reason"]) == ("three two", "max_tokens")


# ---------------------------------------------------------------- Anthropic's own client
def test_anthropics_sdk_asks_streams_calls_counts_and_knows_the_errors(start: Start) -> None:
    anthropic: Any = pytest.importorskip("anthropic", reason="needs Anthropic's SDK, of the extra `dev`")
    url = start(Responder("fake", FakeEngine()), api_key="s3cret").removesuffix("/v1")
    asked: Any = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}]}
    with anthropic.Anthropic(base_url=url, api_key="s3cret", max_retries=0) as client:
        assert client.messages.create(max_tokens=9, **asked).content[0].text == "three two one"
        with client.messages.stream(max_tokens=2, **asked) as stream:
            assert list(stream.text_stream) == ["three", " two"]
            final = stream.get_final_message()
        assert (final.stop_reason, final.usage.input_tokens, final.usage.output_tokens) == ("max_tokens", 3, 2)
        assert client.messages.count_tokens(**asked).input_tokens == 3
        with pytest.raises(anthropic.NotFoundError) as missing:
            client.messages.create(max_tokens=9, **asked | {"model": "claude"})
        assert (missing.value.type, missing.value.error_code) == ("not_found_error", "model_not_found")
    with anthropic.Anthropic(base_url=url, auth_token="other", max_retries=0) as client, pytest.raises(anthropic.AuthenticationError):
        client.messages.create(max_tokens=9, **asked)
