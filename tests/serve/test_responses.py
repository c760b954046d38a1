"""/v1/responses, asked by OpenAI's own SDK: the same call as a chat's, told in its objects and events."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from leaving import asking, endless
from openai.types.responses import Response, ResponseStreamEvent
from patience import PATIENCE_SECONDS, wait_until
from pydantic import BaseModel, TypeAdapter
from scripted import ScriptedEngine

from nomoat.engine import tool_calls
from nomoat.engine.fake import FakeEngine
from nomoat.errors import BadRequestError, NomoatError, RemoteError, SchemaError
from nomoat.records import CallingTurn, Chunk, Request, ToolCall, ToolResult, Usage
from nomoat.responder import Responder
from nomoat.serve import replies, responses, wire

Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]
USAGE = Usage(prompt_tokens=3, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0, cached_tokens=1)
END = Chunk(text="", finish_reason="stop", usage=USAGE)
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "in a city", "parameters": PARAMETERS, "strict": False}
TOOL = {"type": "function", **FUNCTION}
CHATS_TOOL = {"type": "function", "function": FUNCTION}
SCHEMA = {"type": "object", "properties": {"old": {"type": "boolean"}}, "required": ["old"], "additionalProperties": False}
LIKELIHOODS = "message.output_text.logprobs"


def ask(client: openai.OpenAI, given: object, **fields: object) -> Any:
    model = client.models.list().data[0].id
    return client.responses.create(model=model, input=given, **fields)  # type: ignore[call-overload]


def parse(**fields: Any) -> responses.Asked:
    return responses.parse(json.dumps({"input": "hi", **fields}).encode())


def events_of(url: str, **fields: Any) -> list[dict[str, Any]]:
    """A stream's events, each of a form that OpenAI's SDK knows, numbered, and called the same twice."""
    told = httpx.post(f"{url}/responses", json={"input": "one two three", "stream": True, **fields})
    assert told.status_code == 200 and told.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in told.text.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        TypeAdapter(ResponseStreamEvent).validate_python(event)
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def without_ids(value: object) -> Any:
    """What two answers have in common."""
    if isinstance(value, list):
        return [without_ids(one) for one in value]
    if isinstance(value, dict):
        return {name: without_ids(one) for name, one in value.items() if name not in ("id", "created_at", "completed_at")}
    return value


# ---------------------------------------------------------------- answers
@pytest.mark.parametrize("stream", [False, True])
def test_tokens_that_a_server_did_not_count_are_null(start: Start, sdk: Sdk, stream: bool) -> None:
    script = [Chunk(text="so"), Chunk(text="", finish_reason="stop", usage=replace(USAGE, is_counted=False))]
    client = sdk(start(Responder("fake", ScriptedEngine(lambda: iter(script)))))
    reply = client.responses.create(model="fake", input="hello", stream=stream)
    if stream:
        *_, last = reply
        reply = last.response
    assert (reply.output_text, reply.status, reply.usage) == ("so", "completed", None)


def test_an_answer_is_openais_object_with_text_usage_and_what_was_asked(fake: openai.OpenAI) -> None:
    body = {
        "model": "fake", "input": "one two three", "instructions": "be brief", "metadata": {"run": "7"}, "user": "me", "store": True,
        "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50, "tools": [TOOL], "tool_choice": "auto",
        "parallel_tool_calls": False, "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}},
        "reasoning": {"effort": "low"}, "truncation": "disabled", "background": False, "previous_response_id": None,
    }  # fmt: skip
    told = httpx.post(f"{fake.base_url}responses", json=body).json()
    reply = Response.model_validate(told)
    assert (reply.output_text, reply.status, reply.model, reply.error) == ("three two one", "completed", "fake", None)
    assert reply.id.startswith("resp_") and reply.output[0].id.startswith("msg_") and reply.completed_at >= reply.created_at
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.total_tokens) == (5, 3, 8)
    assert (reply.usage.input_tokens_details.cached_tokens, reply.usage.output_tokens_details.reasoning_tokens) == (0, 0)
    for name in ("instructions", "metadata", "user", "temperature", "top_p", "max_output_tokens", "tools", "tool_choice",
                 "parallel_tool_calls", "text", "truncation"):  # fmt: skip
        assert told[name] == body[name], name
    assert (told["store"], told["reasoning"]["effort"], told["incomplete_details"]) == (False, "low", None)
    bare = ask(fake, "hi")
    assert (bare.temperature, bare.top_p, bare.tools, bare.tool_choice, bare.parallel_tool_calls) == (1.0, 1.0, [], "auto", True)
    assert (bare.text.format.type, bare.metadata, bare.max_output_tokens) == ("text", {}, None)


def test_a_stream_tells_the_answer_by_typed_events_in_their_order(fake: openai.OpenAI) -> None:
    events = events_of(str(fake.base_url).removesuffix("/"))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 3, "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["delta"] for event in events if "delta" in event] == ["three", " two", " one"]
    assert len({event["item_id"] for event in events if "item_id" in event} | {events[2]["item"]["id"]}) == 1
    assert events[0]["response"]["status"] == "in_progress" and events[0]["response"]["output"] == []
    last = events[-1]["response"]
    assert last["output"] == [events[-2]["item"]] and last["id"] == events[0]["response"]["id"]
    assert without_ids(last) == without_ids(httpx.post(f"{fake.base_url}responses", json={"input": "one two three"}).json())


def test_the_sdks_helper_for_streams_follows_them_to_the_end(fake: openai.OpenAI) -> None:
    with fake.responses.stream(model="fake", input="one two three") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots == ["three", "three two", "three two one"] and final.output_text == "three two one"


def test_the_asynchronous_client_is_answered_too(fake: openai.OpenAI) -> None:
    async def main() -> tuple[str, str]:
        http_client = httpx.AsyncClient(trust_env=False)
        client = openai.AsyncOpenAI(base_url=fake.base_url, api_key="none", max_retries=0, http_client=http_client)
        async with client:
            reply = await client.responses.create(model="fake", input="one two")
            async with client.responses.stream(model="fake", input="one two") as stream:
                async for _ in stream:
                    pass
                return reply.output_text, (await stream.get_final_response()).output_text

    assert asyncio.run(main()) == ("two one", "two one")


@pytest.mark.parametrize(("reason", "why"), [("length", "max_output_tokens"), ("filtered", "content_filter")])
def test_an_answer_that_is_not_whole_says_so_and_why(start: Start, sdk: Sdk, reason: Any, why: str) -> None:
    url = start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text="so"), Chunk(text="", finish_reason=reason, usage=USAGE)]))))
    reply = ask(sdk(url), "hi")
    assert (reply.status, reply.incomplete_details.reason, reply.output[0].status) == ("incomplete", why, "incomplete")
    last = events_of(url)[-1]
    assert (last["type"], last["response"]["incomplete_details"]) == ("response.incomplete", {"reason": why})
    assert without_ids(last["response"]["output"]) == without_ids(reply.to_dict()["output"])


def test_a_limit_of_tokens_is_kept_to(fake: openai.OpenAI) -> None:
    reply = ask(fake, "one two three", max_output_tokens=2)
    assert (reply.output_text, reply.status, reply.usage.output_tokens) == ("three two", "incomplete", 2)


def test_an_answer_of_no_words_is_a_message_of_none(start: Start, sdk: Sdk) -> None:
    url = start(Responder("fake", ScriptedEngine(lambda: iter([Chunk(text=" "), END]))))
    assert [part.text for part in ask(sdk(url), "hi").output[0].content] == [" "]
    events = events_of(url)
    assert [event["delta"] for event in events if "delta" in event] == [" "]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == " "


def test_a_pydantic_model_is_filled_whole_and_streamed(tiny: openai.OpenAI) -> None:
    class Age(BaseModel):
        old: bool

    asked: Any = {"model": "tiny", "input": "who?", "text_format": Age, "max_output_tokens": 60, "extra_body": {"seed": 1}}
    parsed = tiny.responses.parse(**asked).output_parsed
    with tiny.responses.stream(**asked) as stream:
        assert stream.until_done().get_final_response().output_parsed == parsed
    assert isinstance(parsed, Age)
    text = ask(tiny, "who?", text={"format": {"type": "json_object"}}, max_output_tokens=30).output_text
    assert text.startswith("{")


def test_likelihoods_come_with_their_tokens_where_they_are_included(fake: openai.OpenAI) -> None:
    reply = ask(fake, "two one", include=[LIKELIHOODS], top_logprobs=2)
    first, second = reply.output[0].content[0].logprobs
    assert (first.token, second.token, len(first.top_logprobs), reply.top_logprobs) == ("one", " two", 2, 2)
    streamed = [one.token for event in ask(fake, "two one", include=[LIKELIHOODS], stream=True)
                if event.type == "response.output_text.delta" for one in event.logprobs]  # fmt: skip
    assert streamed == ["one", " two"]
    url = str(fake.base_url).removesuffix("/")
    last = events_of(url, input="two one", include=[LIKELIHOODS], top_logprobs=2)[-1]["response"]
    assert without_ids(last["output"]) == without_ids(reply.to_dict()["output"])
    assert ask(fake, "one", include=["reasoning.encrypted_content"]).output[0].content[0].logprobs == []


def test_likelihoods_are_written_once_and_what_may_be_long_is_written_beside_the_event_loop(
    fake: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, str]] = []
    as_json = replies.as_json

    def record(value: object) -> bytes:
        text = as_json(value)
        written.append((threading.current_thread().name, text.decode()))
        return text

    monkeypatch.setattr(replies, "as_json", record)
    events = events_of(str(fake.base_url).removesuffix("/"), include=[LIKELIHOODS], top_logprobs=2)
    assert len([text for _, text in written if '"top_logprobs":[' in text]) == 3
    told = [event["logprobs"][0] for event in events if event["type"] == "response.output_text.delta"]
    text_done, part_done, item_done, completed = events[-4:]
    assert text_done["logprobs"] == part_done["part"]["logprobs"] == item_done["item"]["content"][0]["logprobs"] == told
    assert completed["response"]["output"] == [item_done["item"]]
    beside = {json.loads(text)["type"].removeprefix("response.") for thread, text in written
              if thread.startswith("asyncio_") and '"sequence_number"' in text}  # fmt: skip
    assert beside >= {"created", "in_progress", "output_text.done", "content_part.done", "output_item.done", "completed"}


# ---------------------------------------------------------------- tools
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", ["Let me see.\n", "\n"])
def test_a_conversation_with_a_tool_goes_round_as_openais_client_keeps_it(start: Start, sdk: Sdk, before: str, stream: bool) -> None:
    written = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    said = iter([before + written, "Sunny."])

    class Engine(ScriptedEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            return tool_calls.recognised(super().generate(request), request)  # type: ignore[arg-type]

    engine = Engine(lambda: iter([Chunk(text=next(said)), END]))
    client = sdk(start(Responder("fake", engine)))
    given: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    if stream:
        with client.responses.stream(model="fake", input=given, tools=[TOOL]) as events:  # type: ignore[list-item]
            assert [event.arguments for event in events if event.type == "response.function_call_arguments.done"] == [
                '{"city": "Paris"}'
            ]
            reply: Any = events.get_final_response()
    else:
        reply = ask(client, given, tools=[TOOL])
    *words, call = reply.output
    assert [item.content[0].text.strip() for item in words] == ([before.strip()] if before.strip() else [])
    assert (call.type, call.name, json.loads(call.arguments), call.status) == (
        "function_call", "weather", {"city": "Paris"}, "completed",
    )  # fmt: skip
    items = [item.to_dict() for item in reply.output]
    given += [*items, {"type": "function_call_output", "call_id": call.call_id, "output": "18 C"}]
    assert ask(client, given, tools=[TOOL]).output_text == "Sunny."
    calling, result = engine.asked[1].messages[1:]
    assert isinstance(calling, CallingTurn) and isinstance(result, ToolResult)
    assert (calling.content.strip(), result.content, result.call_id) == (before.strip(), "18 C", calling.calls[0].id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_function_of_a_namespace_is_told_by_both_names_and_called_by_its_own(start: Start, sdk: Sdk, stream: bool) -> None:
    """As Codex sends the tools of MCP servers, beside a function and a tool that is none."""
    call = ToolCall(id="c1", name="mcp__here__weather", arguments='{"city": "Paris"}')
    engine = ScriptedEngine(lambda: iter([replace(END, calls=(call,))]))
    url = start(Responder("fake", engine))
    spaced = {"type": "namespace", "name": "mcp__here", "description": "In this place.", "tools": [TOOL]}
    tools = [TOOL, spaced, {"type": "web_search"}]
    if stream:
        events = events_of(url, tools=tools)
        reply = Response.model_validate(events[-1]["response"])
        assert [event["name"] for event in events if event["type"] == "response.function_call_arguments.done"] == ["weather"]
    else:
        reply = ask(sdk(url), "hi", tools=tools)
    (item,) = (one.to_dict() for one in reply.output)
    assert (item["namespace"], item["name"], item["arguments"]) == ("mcp__here", "weather", call.arguments)
    assert [one.to_dict() for one in reply.tools][1]["name"] == "mcp__here"
    came = {"type": "function_call_output", "call_id": "c1", "output": "18 C"}
    told = httpx.post(f"{url}/responses", json={"input": [item, came], "tools": tools})
    assert told.headers["x-nomoat-notes"] == "`tools.2` (`web_search`) is left out; only functions are supported"
    asked = engine.asked[-1]
    assert [json.loads(tool)["function"]["name"] for tool in asked.tools] == ["weather", "mcp__here__weather"]
    assert isinstance(calling := asked.messages[0], CallingTurn) and calling.calls[0].name == "mcp__here__weather"


def test_calls_of_another_server_come_one_by_one_and_keep_what_it_wants_back(start: Start) -> None:
    """Its words before them may be spaces alone, and its calls without ids."""
    signed = ToolCall(id="a", name="f", arguments="{}", extra_content='{"google": {"x": 1}}')
    called = (signed, ToolCall(id="", name="g", arguments="1"))
    script = [Chunk(text="\n"), Chunk(text=" ", finish_reason="stop", usage=USAGE, calls=called)]
    url = start(Responder("fake", ScriptedEngine(lambda: iter(script))))
    events = events_of(url)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress",
        *["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"] * 2, "completed",
    ]  # fmt: skip
    assert [event["output_index"] for event in events if "output_index" in event] == [0] * 4 + [1] * 4
    first, second = events[-1]["response"]["output"]
    assert (first["call_id"], first["extra_content"]) == ("a", {"google": {"x": 1}}) and second["call_id"].startswith("call_")
    whole = httpx.post(f"{url}/responses", json={"input": "hi"}).json()["output"]
    assert [(item["name"], item["arguments"]) for item in whole] == [("f", "{}"), ("g", "1")]
    call, _ = parse(input=[first, second]).call.requests[0].messages[0].calls  # type: ignore[attr-defined]
    assert call == signed


# ---------------------------------------------------------------- the same call as a chat's
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
    {"type": None, "role": "user", "content": "Weather?"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
     "content": [{"type": "output_text", "text": "So.", "annotations": [], "logprobs": []}]},
    {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": "{}", "status": "completed"},
    {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": '{"city": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "18"},
    {"type": "function_call_output", "call_id": "c2",
     "output": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]},
    {"type": "function_call", "call_id": "c3", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c3", "output": "19"},
    {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
]  # fmt: skip
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "developer", "content": "a\nb"},
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "So.", "tool_calls": [
        {"id": "c1", "function": {"name": "weather", "arguments": "{}"}},
        {"id": "c2", "function": {"name": "weather", "arguments": '{"city": 1}'}},
    ]},
    {"role": "tool", "tool_call_id": "c1", "content": "18"},
    {"role": "tool", "tool_call_id": "c2", "content": "x\ny"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "c3", "function": {"name": "weather", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c3", "content": "19"},
    {"role": "assistant", "refusal": "no"},
]  # fmt: skip
HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("script", "turns"),
    [
        ("A 1 B =1", [("A\nB", "1"), "=1"]), ("1 B 2 =1 =2 C", [("B", "12"), "=1", "=2", ("C", "")]),
        ("A 1 2 =1 B 3 =2 =3", [("A\nB", "123"), "=1", "=2", "=3"]), ("A B 1 =1 2 =2", [("A", ""), ("B", "1"), "=1", ("", "2"), "=2"]),
        ("1 user B 2", [("", "1"), "user", ("B", "2")]),
    ],
)  # fmt: skip
def test_what_an_assistant_says_before_its_calls_have_results_is_one_message_with_them(script: str, turns: list[Any]) -> None:
    def item(word: str) -> dict[str, Any]:
        if word.isdigit():
            return {"type": "function_call", "call_id": word, "name": "f", "arguments": "{}"}
        if word.startswith("="):
            return {"type": "function_call_output", "call_id": word[1:], "output": word}
        return {"role": "user" if word == "user" else "assistant", "content": word}

    messages = parse(input=[item(word) for word in script.split()]).call.requests[0].messages
    told = [(one.content, "".join(call.id for call in getattr(one, "calls", ()))) for one in messages]
    assert told == [(one, "") if isinstance(one, str) else one for one in turns]


@pytest.mark.parametrize(
    ("body", "chat"),
    [
        ({"input": "hi"}, HI),
        ({"input": "hi", "model": "m", "stream": True}, HI | {"model": "m", "stream": True}),
        ({"input": ITEMS, "instructions": "be brief"}, {"messages": TURNS}),
        ({"input": "hi", "max_output_tokens": 5, "temperature": 0, "top_p": 0.5},
         HI | {"max_tokens": 5, "temperature": 0, "top_p": 0.5}),
        ({"input": "hi", "seed": 3, "stop": ["x"], "top_k": 5, "min_p": 0.1},
         HI | {"seed": 3, "stop": ["x"], "top_k": 5, "min_p": 0.1}),
        ({"input": "hi", "tools": [TOOL]}, HI | {"tools": [CHATS_TOOL]}),
        ({"input": "hi", "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
         HI | {"tools": [CHATS_TOOL], "tool_choice": "required", "parallel_tool_calls": False}),
        ({"input": "hi", "tools": [TOOL], "tool_choice": {"type": "function", "name": "weather"}},
         HI | {"tools": [CHATS_TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
        ({"input": "hi", "tools": [TOOL], "tool_choice": {
            "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}},
         HI | {"tools": [CHATS_TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
             {"type": "function", "function": {"name": "weather"}}]}}}),
        ({"input": "hi", "tools": [TOOL], "tool_choice": "none"}, HI | {"tools": [CHATS_TOOL], "tool_choice": "none"}),
        ({"input": "hi", "text": {"format": {"type": "text"}, "verbosity": "low"}}, HI | {"verbosity": "low"}),
        ({"input": "hi", "text": {"format": {"type": "json_object"}}}, HI | {"response_format": {"type": "json_object"}}),
        ({"input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}},
         HI | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}}),
        ({"input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "description": "in KST", "schema": SCHEMA}}},
         HI | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "description": "in KST", "schema": SCHEMA}}}),
        ({"input": "hi", "reasoning": {"effort": "none", "summary": "auto"}, "chat_template_kwargs": {"a": 1}},
         HI | {"reasoning_effort": "none", "chat_template_kwargs": {"a": 1}}),
        ({"input": "hi", "include": [LIKELIHOODS], "top_logprobs": 3}, HI | {"logprobs": True, "top_logprobs": 3}),
        ({"input": "hi", "previous_response_id": None, "conversation": None, "prompt": None, "background": False, "n": 1,
          "truncation": "disabled", "service_tier": "auto", "prompt_cache_key": "k", "context_management": [], "top_logprobs": 0,
          "stream_options": {"include_obfuscation": False}, "max_tool_calls": 3, "safety_identifier": "me"}, HI),
    ],
)  # fmt: skip
def test_what_is_asked_is_the_call_that_a_chat_would_be(body: dict[str, Any], chat: dict[str, Any]) -> None:
    call, chats = responses.parse(json.dumps(body).encode()).call, wire.parse_chat(json.dumps(chat).encode())
    assert json.loads(call.requests[0].json_schema or "1") == json.loads(chats.requests[0].json_schema or "1")
    assert call == chats


REFERENCE = {"type": "item_reference", "id": "msg_1"}
IMAGE = {"role": "user", "content": [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": "data:,"}]}
KEEPS_NOTHING = "this server keeps no answers; send the conversation's items in `input`"
RESULT = {"type": "function_call_output", "call_id": "a"}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", f"`previous_response_id` is not supported: {KEEPS_NOTHING}"),
        ({"conversation": "conv_1"}, "conversation", f"`conversation` is not supported: {KEEPS_NOTHING}"),
        ({"background": True}, "background", "`background` is not supported; use `stream`, or wait for the answer"),
        ({"prompt": {"id": "p"}}, "prompt",
         "`prompt` is not supported: this server keeps no prompts; send `instructions` and `input`"),
        ({"truncation": "auto"}, "truncation", "`truncation` is not supported: nothing is cut here; send fewer items"),
        ({"n": 2}, "n", "`n` is not supported; ask several times"),
        ({"max_tokens": 5}, "max_tokens", "`max_tokens` is not supported; use `max_output_tokens`"),
        ({"response_format": {"type": "text"}}, "response_format", "`response_format` is not supported; use `text`: {format}"),
        ({"verbosity": "low"}, "verbosity", "`verbosity` is not supported; use `text`: {verbosity}"),
        ({"messages": []}, "messages", "`messages` is not supported; use `input`"),
        ({"guided_json": SCHEMA}, "guided_json",
         "`guided_json` is not supported; for an answer of a form use `text`: {format} with a `json_schema`"),
        ({"guided_choice": ["cat"]}, "guided_choice",
         "`guided_choice` is not supported; for an answer of a form use `text`: {format} with a `json_schema` that has an `enum`"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}},
         "tool_choice.tools.0.type", "`tool_choice.tools.0.type` is `mcp`; only functions are supported"),
        ({"logit_bias": {"1": 1}}, "logit_bias", "`logit_bias` is not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "`tools.0.type` is `web_search`; only functions are supported"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "custom", "name": "b"}]}]}, "tools.0.tools.0.type",
         "`tools.0.tools.0.type` is `custom`; only functions are supported"),
        ({"tools": [TOOL], "tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice",
         "`tool_choice` is of type `mcp`; `function` and `allowed_tools` are supported"),
        ({"input": ["hi", IMAGE][1:]}, "input.0.content",
         "`input.0.content` holds a part of type `input_image`; only text is supported"),
        ({"input": [{**RESULT, "output": [{"type": "input_file"}]}]}, "input.0.output",
         "`input.0.output` holds a part of type `input_file`; only text is supported"),
        ({"input": [{"role": "user", "content": "hi"}, REFERENCE]}, "input.1.type",
         f"`input.1.type` is `item_reference`: {KEEPS_NOTHING} (clients may send them with `store`: false)"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input.0.type",
         "`input.0.type` is `web_search_call`; supported are message, function_call, function_call_output, reasoning"),
        ({"input": [{"role": "user", "content": "x", "images": ["iVBO"]}]}, "input.0.images",
         "`input.0.images` is not supported; nomoat reads text alone"),
        ({"num_predict": 3}, "num_predict", "`num_predict` is not supported; use `max_output_tokens`"),
        ({"think": False}, "think", "`think` is not supported; use `reasoning`: {effort}"),
        ({"system": "Be."}, "system", "`system` is not supported; use `instructions`"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role",
         "`input.0.role` is `tool`; what a call came to is an item of type `function_call_output`"),
    ],
)  # fmt: skip
def test_what_would_be_wrong_in_silence_is_refused_by_name(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields)
    assert (caught.value.message, caught.value.param, caught.value.code) == (message, param, "unsupported")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"), ({"input": []}, "input"), ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": [{"role": "user"}]}, "input.0.content"), ({"input": [{"content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "guest", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input.0.arguments"),
        ({"input": [{**RESULT, "output": None}]}, "input.0.output"), ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"reasoning": {"effort": "much"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"), ({"tools": [CHATS_TOOL]}, "tools.0.name"),
        ({"text": {"format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}}, "text.format.schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.name"), ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice"), ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
         "tool_choice.tools.0"),
        ({"tools": [TOOL, {**TOOL, "description": "another"}]}, "tools.1.name"),
        ({"tools": [{"type": "namespace", "name": "a"}]}, "tools.0.tools"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [TOOL, {**TOOL, "description": "another"}]}]}, "tools.0.tools.1.name"),
        ({"metadata": {"a": 1}}, "metadata"), ({"top_logprobs": 30, "include": [LIKELIHOODS]}, "top_logprobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_names_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields)
    assert (caught.value.param, caught.value.code) == (param, None) and f"`{param}" in caught.value.message


def test_a_content_that_is_null_is_not_called_missing_and_an_assistant_may_have_either() -> None:
    for given, said in ({"content": None}, "is null; of a `user` message it has to be a text, which may be empty"), ({}, "is missing"):
        with pytest.raises(BadRequestError) as caught:
            parse(input=[{"role": "user", **given}])
        assert caught.value.message == f"`input.0.content` {said}"
        call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
        (turn,) = parse(input=[{"role": "assistant", **given}, call]).call.requests[0].messages
        assert isinstance(turn, CallingTurn) and turn.content == ""


INFINITE = {"maximum": float("inf")}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TOOL, {**TOOL, "parameters": INFINITE}]}, "tools.1.parameters"), ({"tools": [TOOL, TOOL | INFINITE]}, "tools.1"),
        ({"tools": [{**TOOL, "parameters": INFINITE}], "tool_choice": "none"}, "tools.0.parameters"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [{**TOOL, "parameters": INFINITE}]}]}, "tools.0.tools.0.parameters"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": INFINITE}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object", "schema": INFINITE}}}, "text.format.schema"),
        ({"text": {"format": {"type": "text", **INFINITE}}}, "text"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "weather", **INFINITE}}, "tool_choice"),
    ],
)  # fmt: skip
def test_a_number_that_no_answer_could_tell_again_is_refused_where_it_stands(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError, match="holds a number that JSON does not have") as caught:
        parse(**fields)
    assert caught.value.param == param


# ---------------------------------------------------------------- errors and ends
def test_errors_are_a_chats_with_fields_named_as_here(tiny: openai.OpenAI, start: Start, sdk: Sdk) -> None:
    unique = {"type": "array", "uniqueItems": True}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="this JSON schema cannot be followed") as caught:
            ask(tiny, "hi", text={"format": {"type": "json_schema", "name": "x", "schema": unique}}, stream=stream)
        assert (caught.value.param, caught.value.code) == ("text.format", "unsupported")
        with pytest.raises(openai.BadRequestError, match="The prompt is too long") as caught:
            ask(tiny, "word " * 500, stream=stream)
        assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match=KEEPS_NOTHING) as caught:
        ask(tiny, "hi", previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported")
    with pytest.raises(openai.NotFoundError) as missing:
        tiny.responses.create(model="gpt-4o", input="hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        ask(sdk(start(Responder("fake", FakeEngine()), api_key="s3cret"), api_key="other"), "hi")


def test_a_functions_schema_is_named_by_its_place_among_the_clients_tools(start: Start) -> None:
    """An engine knows of one that is sent twice once."""

    def refuse() -> Iterator[Chunk]:
        error = SchemaError("cannot be followed")
        error.field = "tools.1.function.parameters"
        raise error

    url = start(Responder("fake", ScriptedEngine(refuse)))
    other = {"type": "function", "name": "f", "parameters": {}}
    spaced = {"type": "namespace", "name": "a", "tools": [other]}
    for tools, place in (([TOOL, TOOL, other], "tools.2"), ([{"type": "web_search"}, TOOL, spaced], "tools.2.tools.0")):
        for stream in (False, True):
            told = httpx.post(f"{url}/responses", json={"input": "hi", "tools": tools, "stream": stream})
            assert (told.status_code, told.json()["error"]["param"]) == (400, f"{place}.parameters")


@pytest.mark.parametrize(
    ("error", "code"),
    [(NomoatError("the engine fell over"), "server_error"), (RemoteError("too many", status=429), "rate_limit_exceeded"),
     (RemoteError("too long", status=413), "invalid_prompt")],
)  # fmt: skip
def test_an_error_in_mid_stream_is_one_to_the_sdk_and_fails_the_response(
    start: Start, sdk: Sdk, error: NomoatError, code: str
) -> None:
    def script() -> Iterator[Chunk]:
        yield Chunk(text="so")
        raise error

    url = start(Responder("fake", ScriptedEngine(script)))
    *_, told, last = events_of(url)
    assert (told["type"], told["message"]) == ("error", error.message)
    assert (last["type"], last["response"]["status"], last["response"]["error"]) == (
        "response.failed", "failed", {"code": code, "message": error.message},
    )  # fmt: skip
    with pytest.raises(openai.APIError, match=error.message), sdk(url).responses.stream(model="fake", input="hi") as stream:
        stream.get_final_response()


def test_a_stream_in_which_nothing_comes_gets_signs_of_life_after_its_first_events(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.serve.served.SIGN_SECONDS", 0.05)
    go_on = threading.Event()

    def script() -> Iterator[Chunk]:
        assert go_on.wait(PATIENCE_SECONDS)
        yield Chunk(text="late", finish_reason="stop", usage=USAGE)

    url = start(Responder("fake", ScriptedEngine(script)))
    with httpx.stream("POST", f"{url}/responses", json={"input": "hi", "stream": True}) as told:
        lines = (line for line in told.iter_lines() if line and not line.startswith("data: "))
        assert [next(lines) for _ in range(3)] == ["event: response.created", "event: response.in_progress", ": at work"]
        go_on.set()
        assert list(lines)[-1] == "event: response.completed"


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_goes_away_stops_the_engine(start: Start, stream: bool) -> None:
    begun, closed = threading.Event(), threading.Event()
    url = start(Responder("fake", ScriptedEngine(lambda: endless(begun, closed))))
    with asking(f"{url}/responses", {"input": "hi", "stream": stream}) as client:
        assert begun.wait(PATIENCE_SECONDS)
        if stream:
            assert client.recv(1)
        assert not closed.is_set()
    assert closed.wait(PATIENCE_SECONDS)
    counted = 'nomoat_requests_total{model="fake",outcome="gone"} 1.0'
    wait_until(lambda: counted in httpx.get(url.replace("/v1", "/metrics")).text, counted)
