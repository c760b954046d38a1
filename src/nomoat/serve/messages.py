"""Anthropic's form of a chat, /v1/messages: its words -> those of /v1/chat/completions, and answers -> its blocks and events.

What is asked becomes a body of a chat and goes its way, so that whatever holds for chats holds here. What only Anthropic's servers
can do something with (`cache_control`, `metadata`, `service_tier`, `context_management`, a thinking budget, the headers
`anthropic-version` and `anthropic-beta`) is passed over. Fields that this form does not have (`seed`, `min_p`) are taken as chats
take them. Tools that are no functions, such as `web_search_20250305`, are left out where there are functions.

Format: https://platform.claude.com/docs/en/api/messages and .../streaming. Not covered: how many tokens of a stream's prompt there
are before its end, and which stop sequence ended an answer of another server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi import Response as HttpResponse
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from nomoat.errors import BadRequestError, NomoatError, RemoteError
from nomoat.records import Chunk, Effort, FinishReason, ToolCall, Usage
from nomoat.serve import forms, replies, shapes, wire
from nomoat.serve.served import Served, read_body
from nomoat.serve.shapes import Several, Shape

PATH = "/v1/messages"
BLOCKS = {"user": "text, tool_result", "assistant": "text, tool_use, thinking", "system": "text"}
PASSED_OVER = frozenset({"thinking", "redacted_thinking"})
# How Claude Code's first block of a system prompt begins. It is nothing for models, and another in each conversation: all behind it,
# some 18,000 tokens, would have to be read again.
BILLING = "x-anthropic-billing-header:"
REFUSED: forms.Refused = {
    "container": ((), ""),
    "mcp_servers": (([],), ": this server asks no other for tools; send functions in `tools`"),
    "n": ((1,), "; ask several times"),
    "output_format": ((), "; use `output_config`: {format}"),
    # what chats call otherwise
    "logprobs": ((False,), "; `/v1/chat/completions` has them"),
    "reasoning_effort": ((), "; use `output_config`: {effort}"),
    "response_format": ((), "; use `output_config`: {format}"),
    "stop": ((), "; use `stop_sequences`"),
}
# What errors of chats call what stands elsewhere here.
FIELDS = (
    ("response_format.json_schema.schema", "output_config.format.schema"), ("response_format", "output_config.format"),
    (".function.parameters", ".input_schema"), (".function.name", ".name"),
)  # fmt: skip
ERRORS = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    503: "overloaded_error",
}  # fmt: skip


class _Text(Shape):
    text: str


class _Use(Shape):
    id: str
    name: str
    input: dict[str, Any]
    extra_content: dict[str, Any] | None = None  # Gemini's


class _Result(Shape):
    tool_use_id: str
    content: str | Several[shapes.Part] | None = None


class _Turn(Shape):
    role: Literal["user", "assistant", "system"]
    content: str | Several[dict[str, Any]]


class _Tool(Shape):
    type: str | None = None
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class _Choice(Shape):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Format(Shape):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class _Output(Shape):
    effort: Effort | None = None
    format: _Format | None = None


class _Thinking(Shape):
    type: str


class _Asked(Shape):
    """What chats have under other names or not at all; the rest is theirs."""

    model_config = ConfigDict(extra="allow")
    messages: Annotated[Several[_Turn], Field(min_length=1)]
    system: str | Several[_Text] | None = None
    stop_sequences: Several[str] | None = None
    tools: Several[dict[str, Any]] | None = None
    tool_choice: _Choice | None = None
    output_config: _Output | None = None
    thinking: _Thinking | None = None


def add_routes(app: FastAPI, served: Served) -> None:
    """Put /v1/messages into an application, and what counts its tokens."""

    @app.post(PATH)
    async def create_message(request: HttpRequest) -> HttpResponse:
        call = await read_body(request, parse)
        with forms.fields_named(FIELDS):
            return await served.answer(request, call, Reply)

    @app.post(f"{PATH}/count_tokens")
    async def count_tokens(request: HttpRequest) -> HttpResponse:
        call = await read_body(request, parse)
        with forms.fields_named(FIELDS):
            return JSONResponse({"input_tokens": await served.count(request, call)})


def error_at(path: str, status: int, body: dict[str, Any]) -> dict[str, Any]:
    """The body of an error at a path: OpenAI's, and here Anthropic's."""
    if not path.startswith(PATH):
        return body
    told = body["error"]
    error = {"type": ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error"), "message": told["message"]}
    return {"type": "error", "error": error | ({"details": {"error_code": told["code"]}} if told["code"] else {})}


# ---------------------------------------------------------------- what is asked
def parse(body: bytes) -> wire.Call:
    """A body of /v1/messages, or one whose tokens are to be counted. Raises BadRequestError."""
    asked = shapes.parse_shape(_Asked, body)
    chat = forms.without_refused(asked.model_extra or {}, REFUSED)
    told = _turns(asked)
    tools = _tools(asked.tools or ())
    choice, output = asked.tool_choice, asked.output_config or _Output()
    form = output.format and {"type": "json_schema", "json_schema": {"schema": output.format.schema_}}
    no_thinking: Effort | None = "none" if asked.thinking and asked.thinking.type == "disabled" else None
    chat |= {
        "messages": [turn for _, turn in told],
        "stop": asked.stop_sequences,
        "response_format": form,
        "reasoning_effort": output.effort or no_thinking,
        "tools": list(tools.told.values()),
        "tool_choice": _tool_choice(choice),
        "parallel_tool_calls": not (choice and choice.disable_parallel_tool_use),
    }
    with forms.fields_named(FIELDS):
        call = wire.parse_chat(chat, [place for place, _ in told], list(tools.told))
    return replace(call, notes=tools.notes)


def _turns(asked: _Asked) -> list[tuple[str, dict[str, Any]]]:
    """Each as a chat's messages, after where it stands; what the same one says in a row is one, as Anthropic has it."""
    turns: list[tuple[str, dict[str, Any]]] = []
    system = [_Text(text=asked.system)] if isinstance(asked.system, str) else asked.system or []
    if kept := [block.text for block in system if not block.text.startswith(BILLING)]:
        turns.append(("system", {"role": "system", "content": "\n".join(kept)}))
    for at, turn in enumerate(asked.messages):
        for place, said in _said(turn, f"messages.{at}"):
            before = turns[-1][1] if turns else {}
            if said["role"] == "system" and before.get("role", "system") != "system":
                said["role"] = "user"  # Claude Code sends some in mid-conversation, for which many templates have no place
            if said["role"] == before.get("role") != "tool":
                before["content"] = "\n".join(filter(None, (before["content"], said["content"])))
                before["tool_calls"] = [*before.get("tool_calls", ()), *said.get("tool_calls", ())]
            else:
                turns.append((place, said))
    if asked.messages[-1].role == "assistant":
        last = f"messages.{len(asked.messages) - 1}"
        raise shapes.unsupported(
            f"{last}.role", "is `assistant`, to be gone on with (a prefill); the last message has to be the user's"
        )
    return turns


def _said(turn: _Turn, place: str) -> list[tuple[str, dict[str, Any]]]:
    """A turn as messages of a chat: the results of calls first, which servers want behind their calls."""
    blocks = [{"type": "text", "text": turn.content}] if isinstance(turn.content, str) else turn.content
    words, calls, told = list[str](), list[dict[str, Any]](), list[tuple[str, dict[str, Any]]]()
    for within, block in enumerate(blocks):
        kind, where = block.get("type"), f"{place}.content.{within}"
        if kind == "text":
            words.append(shapes.parse_shape(_Text, block, place=where).text)
        elif kind == "tool_use" and turn.role == "assistant":
            use = shapes.parse_shape(_Use, block, place=where)
            called = {"name": use.name, "arguments": wire.as_json(use.input, f"{where}.input")}
            calls.append({"id": use.id, "function": called, "extra_content": use.extra_content})
        elif kind == "tool_result" and turn.role == "user":
            came = shapes.parse_shape(_Result, block, place=where)
            content = wire.joined(came.content, f"{where}.content") if isinstance(came.content, list) else came.content or ""
            told.append((where, {"role": "tool", "tool_call_id": came.tool_use_id, "content": content}))
        elif not (kind in PASSED_OVER and turn.role == "assistant"):
            raise shapes.unsupported(f"{where}.type", f"is `{kind}`; with the role `{turn.role}` supported are {BLOCKS[turn.role]}")
    if words or calls or not told:
        told.append((place, {"role": turn.role, "content": "\n".join(words), "tool_calls": calls}))
    return told


def _tools(tools: Sequence[dict[str, Any]]) -> forms.Tools:
    told = forms.Tools()
    for at, tool in enumerate(tools):
        place = f"tools.{at}"
        if tool.get("type") not in (None, "custom"):
            told.add_other(place, str(tool["type"]))
            continue
        given = shapes.parse_shape(_Tool, tool, place=place)
        function = shapes.Function(
            name=given.name, description=given.description, parameters=given.input_schema, strict=given.strict
        )  # fmt: skip
        told.add_function(place, function)
    return told


def _tool_choice(choice: _Choice | None) -> str | dict[str, Any] | None:
    if choice is None:
        return None
    if choice.type in ("auto", "none"):
        return choice.type
    if choice.type == "any":
        return "required"
    if choice.name is None:
        raise BadRequestError("`tool_choice.name` is missing", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


# ---------------------------------------------------------------- what is answered
class Reply:
    """The envelope of a call's one answer, and where its stream has come to: see `replies.Form`.

    Its blocks are a text, where the model wrote words or called nothing, and the calls after it.
    """

    sign_of_life = forms.event("ping")

    def __init__(self, call: wire.Call, model: str) -> None:
        self._message = {"id": forms.new_id("msg"), "type": "message", "role": "assistant", "model": model, "content": []}
        self._most = call.max_new_tokens
        self._words = forms.Words()
        self._num_blocks = 0
        self._is_open = False  # the text's block
        self._last = Chunk(text="", finish_reason="stop")

    def whole(self, answers: Sequence[replies.WholeReply]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        (answer,) = answers
        text = answer.text.strip() if answer.calls else answer.text
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text or not answer.calls else []
        content += [{**_use(call), "input": _input(call)} for call in answer.calls]
        ended = self._ended(answer.finish_reason, bool(answer.calls), answer.stopped_by, answer.usage)
        return self._message | {"content": content, "usage": _usage(answer.usage)} | ended

    def opening(self) -> bytes:
        """The first event of a stream. How many tokens the prompt has is told at its end."""
        begun = {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0}}
        return forms.event("message_start", message=self._message | begun)

    def event(self, chunk: Chunk, at: int = 0) -> bytes:
        """The events of one chunk, which is of answer 0, the only one."""
        events = b""
        told = self._words.told(chunk)
        if told and not self._is_open:
            self._is_open = True
            events += self._block_start({"type": "text", "text": ""})
        events += b"".join(self._delta({"type": "text_delta", "text": one.text}) for one in told if one.text)
        if chunk.finish_reason is not None:
            self._last = chunk
            events += self._block_stop() if self._is_open else b""
            events += b"".join(self._call(call) for call in chunk.calls)
        return events

    def closing(self, usages: Mapping[int, Usage]) -> bytes:
        """The last events of a stream."""
        last = self._last
        ended = self._ended(last.finish_reason or "stop", bool(last.calls), last.stopped_by, usages[0])
        return forms.event("message_delta", delta=ended, usage=_usage(usages[0])) + forms.event("message_stop")

    def failure(self, error: NomoatError) -> bytes:
        """What ends a stream in place of `closing`."""
        forms.name_field(error, FIELDS)
        told = error_at(PATH, *replies.render_error(error))
        return forms.event("error", error=told["error"])

    def _call(self, call: ToolCall) -> bytes:
        told = json.dumps(_input(call), ensure_ascii=False)
        delta = {"type": "input_json_delta", "partial_json": told}
        return self._block_start({**_use(call), "input": {}}) + self._delta(delta) + self._block_stop()

    def _block_start(self, block: dict[str, Any]) -> bytes:
        return forms.event("content_block_start", index=self._num_blocks, content_block=block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return forms.event("content_block_delta", index=self._num_blocks, delta=delta)

    def _block_stop(self) -> bytes:
        self._num_blocks += 1
        return forms.event("content_block_stop", index=self._num_blocks - 1)

    def _ended(self, reason: FinishReason, has_calls: bool, stopped_by: str, usage: Usage) -> dict[str, Any]:
        why = "tool_use" if has_calls else "stop_sequence" if stopped_by else "end_turn"
        if reason == "filtered":
            why = "refusal"
        if reason == "length":  # the context may have had less room than was asked for
            is_full = self._most is None or (usage.is_counted and usage.completion_tokens < self._most)
            why = "model_context_window_exceeded" if is_full else "max_tokens"
        return {"stop_reason": why, "stop_sequence": stopped_by if why == "stop_sequence" else None}


def _use(call: ToolCall) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call.id or forms.new_id("toolu"), "name": call.name}
    return block | ({"extra_content": json.loads(call.extra_content)} if call.extra_content else {})


def _input(call: ToolCall) -> dict[str, Any]:
    """Raises RemoteError for arguments that are no object, as another server's model may write."""
    try:
        told = json.loads(call.arguments or "{}")
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise RemoteError(f"the model called `{call.name}` with arguments that are no JSON object", hint="ask again")
    return told


def _usage(usage: Usage) -> dict[str, int]:
    """Tokens in Anthropic's words, by which those of the prompt that were read before are counted apart."""
    return {
        "input_tokens": usage.read_tokens, "cache_creation_input_tokens": 0, "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }  # fmt: skip
