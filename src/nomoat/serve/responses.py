"""OpenAI's newer form of a chat, /v1/responses: its words -> those of /v1/chat/completions, and answers -> its objects and events.

What is asked becomes a body of a chat and goes its way, so that whatever holds for chats holds here. Nothing is kept: what needs
something kept of an earlier request (`previous_response_id`, `conversation`, `item_reference`) is refused by name. Fields that this
form does not have (`seed`, `stop`, `top_k`) are taken as chats take them. A namespace's functions are functions by both names. Tools
that are no functions, such as `web_search`, are left out where there are functions: coding agents always send some.

Format: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi import Response as HttpResponse
from pydantic import ConfigDict, Field

from nomoat.errors import BadRequestError, NomoatError
from nomoat.records import Chunk, Effort, FinishReason, TokenLikelihood, ToolCall, Usage, Verbosity
from nomoat.serve import forms, replies, shapes, wire
from nomoat.serve.served import Served, read_body
from nomoat.serve.shapes import Limit, Several, Shape

LIKELIHOODS = "message.output_text.logprobs"  # what asks for them, in `include`
TEXT_PARTS = frozenset({"input_text", "output_text", "text"})
ITEMS = "message, function_call, function_call_output, reasoning"
KEEPS_NOTHING = "this server keeps no answers; send the conversation's items in `input`"
REFUSED: forms.Refused = {
    "background": ((False,), "; use `stream`, or wait for the answer"),
    "context_management": (([],), ": nothing is cut or summed up here; send fewer items"),
    "conversation": ((), f": {KEEPS_NOTHING}"),
    "moderation": ((), ""),
    "n": ((1,), "; ask several times"),
    "previous_response_id": ((), f": {KEEPS_NOTHING}"),
    "prompt": ((), ": this server keeps no prompts; send `instructions` and `input`"),
    "truncation": (("disabled",), ": nothing is cut here; send fewer items"),
    # what chats call otherwise
    "logprobs": ((False,), f'; use `include`: ["{LIKELIHOODS}"]'),
    "max_completion_tokens": ((), "; use `max_output_tokens`"),
    **dict.fromkeys(("max_tokens", "n_predict", "num_predict"), ((), "; use `max_output_tokens`")),
    "messages": ((), "; use `input`"),
    **dict.fromkeys(("reasoning_effort", "think", "thinking"), ((), "; use `reasoning`: {effort}")),
    "response_format": ((), "; use `text`: {format}"),
    "verbosity": ((), "; use `text`: {verbosity}"),
    "system": (("",), "; use `instructions`"),
    **{
        name: (shapes.UNSUPPORTED[name], f"; for an answer of a form use `text`: {{format}} with a `json_schema`{with_}")
        for name, with_ in sorted(shapes.ABOUT_FORM.items())
    },
}
# What errors of chats call what stands elsewhere here.
FIELDS = (
    ("response_format.json_schema", "text.format"), ("response_format", "text.format"), ("tool_choice.allowed_tools", "tool_choice"),
    (".function.parameters", ".parameters"), (".function.name", ".name"),
)  # fmt: skip
# Why an answer is not whole.
REASONS: dict[FinishReason, str] = {"length": "max_output_tokens", "filtered": "content_filter"}
TOO_MANY_STATUS, SERVER_STATUS = 429, 500


class _Reasoning(Shape):
    effort: Effort | None = None


class _Format(Shape):
    model_config = ConfigDict(extra="allow")
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class _TextConfig(Shape):
    format: _Format | None = None
    verbosity: Verbosity | None = None


class _Named(Shape):
    model_config = ConfigDict(extra="allow")
    type: str
    name: str | None = None


class _Choice(_Named):
    mode: str | None = None
    tools: Several[_Named] | None = None


class _Message(Shape):
    role: str
    content: str | Several[shapes.Part] | None = None
    images: Any = None  # Ollama's


class _Call(Shape):
    call_id: str
    name: str
    namespace: str | None = None
    arguments: str
    extra_content: dict[str, Any] | None = None  # Gemini's


class _CallOutput(Shape):
    call_id: str
    output: str | Several[shapes.Part]


class _Namespace(Shape):
    name: Annotated[str, Field(min_length=1)]
    tools: Several[dict[str, Any]]


class _Asked(Shape):
    """What chats have under other names or not at all; the rest is theirs."""

    model_config = ConfigDict(extra="allow")
    input: str | Several[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: Limit | None = None
    text: _TextConfig | None = None
    reasoning: _Reasoning | None = None
    tools: Several[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    include: Several[str] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call, and what its answer tells of it again. `namespaced`: namespace and name of each function that has one, by what models
    are told of it."""

    call: wire.Call
    echo: dict[str, Any]
    namespaced: Mapping[str, tuple[str, str]]

    def reply(self, call: wire.Call, model: str) -> Reply:
        """The envelope of its answer."""
        return Reply(call, model, self.echo, self.namespaced)


def add_routes(app: FastAPI, served: Served) -> None:
    """Put /v1/responses into an application."""

    @app.post("/v1/responses")
    async def create_response(request: HttpRequest) -> HttpResponse:
        asked = await read_body(request, parse)
        with forms.fields_named(FIELDS):
            return await served.answer(request, asked.call, asked.reply)


# ---------------------------------------------------------------- what is asked
def parse(body: bytes) -> Asked:
    """A body of /v1/responses. Raises BadRequestError."""
    asked = shapes.parse_shape(_Asked, body)
    extra = asked.model_extra or {}
    chat = forms.without_refused(extra, REFUSED)
    has_likelihoods = LIKELIHOODS in (asked.include or ())
    if extra.get("top_logprobs") and not has_likelihoods:
        raise BadRequestError(f'`top_logprobs` goes with `include`: ["{LIKELIHOODS}"] only', param="top_logprobs")
    told = _joined(_turns(asked))
    tools = _Tools(asked.tools or ())
    chat |= {
        "messages": [turn for _, turn in told],
        "max_completion_tokens": asked.max_output_tokens,
        "reasoning_effort": asked.reasoning.effort if asked.reasoning else None,
        "response_format": _response_format(asked.text),
        "verbosity": asked.text.verbosity if asked.text else None,
        "tools": list(tools.told.values()),
        "tool_choice": _tool_choice(asked.tool_choice),
        "logprobs": has_likelihoods,
    }
    with forms.fields_named(FIELDS):
        call = wire.parse_chat(chat, [place for place, _ in told], list(tools.told))
    echo = _echo(asked, call)
    # An answer with a number that JSON does not have could not be written.
    again = {f"tools.{at}": tool for at, tool in enumerate(echo["tools"])} | {name: echo[name] for name in ("text", "tool_choice")}
    for name, value in again.items():
        wire.as_json(value, name)
    return Asked(call=replace(call, notes=tools.notes), echo=echo, namespaced=tools.namespaced)


def _turns(asked: _Asked) -> list[tuple[str, dict[str, Any]]]:
    """Each item as a chat's message, after where it stands."""
    turns: list[tuple[str, dict[str, Any]]] = []
    if asked.instructions is not None:
        turns.append(("instructions", {"role": "system", "content": asked.instructions}))
    items = [{"role": "user", "content": asked.input}] if isinstance(asked.input, str) else asked.input
    if not items:
        raise BadRequestError("`input` is empty", param="input")
    for at, item in enumerate(items):
        place = f"input.{at}"
        turn = _turn(item, place)
        if turn is not None:
            turns.append((place, turn))
    if not turns:
        raise BadRequestError("`input` holds reasoning alone", param="input")
    return turns


def _joined(turns: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The same, with an assistant's words and the calls after them as one message, and all it says until its calls have their results.

    Servers refuse a message with calls that is not followed by the results of each.
    """
    joined: list[tuple[str, dict[str, Any]]] = []
    begun: dict[str, Any] | None = None  # an assistant's message,
    waiting: set[str] = set()  # and those of its calls that have no result yet
    for place, turn in turns:
        calls = turn.get("tool_calls", [])
        if turn["role"] == "tool":
            waiting.discard(turn["tool_call_id"])
        elif turn["role"] != "assistant":
            begun, waiting = None, set()
        elif begun is not None and (waiting or (calls and joined[-1][1] is begun)):
            begun["content"] = "\n".join(filter(None, (begun.get("content"), turn.get("content"))))
            begun.setdefault("tool_calls", []).extend(calls)
            waiting.update(call["id"] for call in calls)
            continue
        else:
            begun, waiting = turn, {call["id"] for call in calls}
        joined.append((place, turn))
    return joined


def _turn(item: dict[str, Any], place: str) -> dict[str, Any] | None:
    """One item as a chat's message; None for what models are not told."""
    kind = item.get("type") or "message"
    if kind == "reasoning":
        return None
    if kind == "function_call":
        call = shapes.parse_shape(_Call, item, place=place)
        name = _joined_name(call.namespace, call.name) if call.namespace else call.name
        told = {
            "id": call.call_id, "function": {"name": name, "arguments": call.arguments}, "extra_content": call.extra_content,
        }  # fmt: skip
        return {"role": "assistant", "content": "", "tool_calls": [told]}
    if kind == "function_call_output":
        came = shapes.parse_shape(_CallOutput, item, place=place)
        return {"role": "tool", "tool_call_id": came.call_id, "content": _text(came.output, f"{place}.output")}
    if kind == "item_reference":
        raise shapes.unsupported(f"{place}.type", f"is `item_reference`: {KEEPS_NOTHING} (clients may send them with `store`: false)")
    if kind != "message":
        raise shapes.unsupported(f"{place}.type", f"is `{kind}`; supported are {ITEMS}")
    message = shapes.parse_shape(_Message, item, place=place)
    if message.role in ("tool", "function"):
        advice = "what a call came to is an item of type `function_call_output`"
        raise shapes.unsupported(f"{place}.role", f"is `{message.role}`; {advice}")
    if message.images:
        raise shapes.unsupported(f"{place}.images", "is not supported; nomoat reads text alone")
    if message.content is None:
        return message.model_dump(exclude_unset=True)  # without a content, or with null
    return {"role": message.role, "content": _text(message.content, f"{place}.content")}


def _text(said: str | list[shapes.Part], place: str) -> str:
    if isinstance(said, str):
        return said
    parts = [part.model_copy(update={"type": "text"}) if part.type in TEXT_PARTS else part for part in said]
    return wire.joined(parts, place)


def _response_format(text: _TextConfig | None) -> dict[str, Any] | None:
    form = text.format if text else None
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object", "schema": form.schema_}
    if form.schema_ is None:
        raise BadRequestError("`text.format.schema` is missing", param="text.format.schema")
    told = {"name": form.name, "description": form.description, "schema": form.schema_, "strict": form.strict}
    return {"type": "json_schema", "json_schema": told}


class _Tools(forms.Tools):
    """`namespaced`: see `Asked`."""

    def __init__(self, tools: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.namespaced: dict[str, tuple[str, str]] = {}
        for at, tool in enumerate(tools):
            if tool.get("type") != "namespace":
                self._add(tool, f"tools.{at}")
                continue
            space = shapes.parse_shape(_Namespace, tool, place=f"tools.{at}")
            for within, one in enumerate(space.tools):
                self._add(one, f"tools.{at}.tools.{within}", space.name)

    def _add(self, tool: dict[str, Any], place: str, namespace: str | None = None) -> None:
        if tool.get("type") != "function":
            self.add_other(place, str(tool.get("type")))
            return
        function = shapes.parse_shape(shapes.Function, tool, place=place)
        if namespace is not None:
            name = _joined_name(namespace, function.name)
            self.namespaced[name] = (namespace, function.name)
            function = function.model_copy(update={"name": name})
        self.add_function(place, function)


def _joined_name(namespace: str, name: str) -> str:
    """What models call a function of a namespace, in letters that every server takes."""
    return f"{namespace}__{name}"


def _tool_choice(choice: str | _Choice | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, _Choice):
        return choice
    if choice.type == "function" and choice.name is None:
        raise BadRequestError("`tool_choice.name` is missing", param="tool_choice.name")
    if choice.type == "allowed_tools":
        allowed = [{"type": tool.type, "function": {"name": tool.name or ""}} for tool in choice.tools or ()]
        return {"type": choice.type, "allowed_tools": {"mode": choice.mode, "tools": allowed}}
    return {"type": choice.type, "function": {"name": choice.name or ""}}


def _echo(asked: _Asked, call: wire.Call) -> dict[str, Any]:
    """What an answer tells of the request, as it was understood."""
    extra, (request,) = asked.model_extra or {}, call.requests
    choice = asked.tool_choice or "auto"
    form = asked.text.format if asked.text else None
    text = {"format": form.model_dump(by_alias=True, exclude_unset=True) if form else {"type": "text"}}
    return {
        "background": False,
        "instructions": asked.instructions,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": extra.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "reasoning": {"effort": request.reasoning_effort, "summary": None},
        "store": False,
        "temperature": request.temperature,
        "text": text | ({"verbosity": request.verbosity} if request.verbosity else {}),
        "tool_choice": choice.model_dump(exclude_unset=True) if isinstance(choice, _Choice) else choice,
        "tools": asked.tools or [],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": asked.user,
    }


# ---------------------------------------------------------------- what is answered
class Reply:
    """The envelope of a call's one answer, and where its stream has come to: see `replies.Form`.

    Its output are a message, where the model wrote words or called nothing, and the calls after it.
    """

    sign_of_life = replies.SIGN_OF_LIFE

    def __init__(self, call: wire.Call, model: str, echo: dict[str, Any], namespaced: Mapping[str, tuple[str, str]]) -> None:
        self._response = {
            "id": forms.new_id("resp"), "object": "response", "created_at": int(time.time()), "completed_at": None,
            "status": "in_progress", "error": None, "incomplete_details": None, "model": model, "output": [], "usage": None, **echo,
            "max_output_tokens": call.max_new_tokens,
        }  # fmt: skip
        self._namespaced = namespaced
        self._num_events = 0
        self._output: list[dict[str, Any]] = []  # of a stream: what is done
        self._message_id: str | None = None  # of the message that is being told
        self._text = ""
        # Each as JSON: the last four events have all of them, and Python does nothing else while it writes one event's JSON.
        self._likelihoods: list[bytes] = []
        self._mark = uuid.uuid4().hex  # stands for them, and nobody is ever told it
        self._reason: FinishReason = "stop"
        self._words = forms.Words()

    def whole(self, answers: Sequence[replies.WholeReply]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        (answer,) = answers
        text = answer.text.strip() if answer.calls else answer.text
        output = [self._call_item(call) for call in answer.calls]
        if text or not output:
            status = _status(answer.finish_reason)
            output.insert(0, _message(forms.new_id("msg"), status, text, [replies.chat_likelihood(one) for one in answer.likelihoods]))
        return self._ended(answer.finish_reason, output, answer.usage)

    def opening(self) -> bytes:
        """The first events of a stream."""
        return b"".join(self._event(f"response.{kind}", response=self._response) for kind in ("created", "in_progress"))

    def event(self, chunk: Chunk, at: int = 0) -> bytes:
        """The events of one chunk, which is of answer 0, the only one."""
        events = b""
        told = self._words.told(chunk)
        if told and self._message_id is None:
            events += self._open()
        events += b"".join(self._delta(one.text, one.likelihoods) for one in told if one.text or one.likelihoods)
        if chunk.finish_reason is not None:
            self._reason = chunk.finish_reason
            events += self._close() if self._message_id is not None else b""
            events += b"".join(self._call(call) for call in chunk.calls)
        return events

    def closing(self, usages: Mapping[int, Usage]) -> bytes:
        """The last event of a stream."""
        response = self._ended(self._reason, self._output, usages[0])
        return self._event(f"response.{response['status']}", self._likelihoods, response=response)

    def failure(self, error: NomoatError) -> bytes:
        """What ends a stream in place of `closing`: OpenAI's own has the error both as its pages say and within `error`."""
        forms.name_field(error, FIELDS)
        status, body = replies.render_error(error)
        told = body["error"]
        code = "rate_limit_exceeded" if status == TOO_MANY_STATUS else "server_error" if status >= SERVER_STATUS else "invalid_prompt"
        failed = {"status": "failed", "error": {"code": code, "message": told["message"]}, "output": self._output}
        events = self._event("error", code=told["code"], message=told["message"], param=told["param"], error=told)
        return events + self._event("response.failed", self._likelihoods, response=self._response | failed)

    def _open(self) -> bytes:
        self._message_id = forms.new_id("msg")
        item = {**_message(self._message_id, "in_progress", "", ()), "content": []}
        events = self._event("response.output_item.added", output_index=0, item=item)
        return events + self._event("response.content_part.added", **self._part_place, part=_part("", ()))

    def _delta(self, text: str, likelihoods: Sequence[TokenLikelihood]) -> bytes:
        told = [replies.as_json(replies.chat_likelihood(one)) for one in likelihoods]
        self._text += text
        self._likelihoods += told
        return self._event("response.output_text.delta", told, **self._part_place, delta=text, logprobs=self._marked(told))

    def _close(self) -> bytes:
        told = self._likelihoods
        item = _message(self._message_id or "", _status(self._reason), self._text, self._marked(told))
        self._output.append(item)
        events = self._event("response.output_text.done", told, **self._part_place, text=self._text, logprobs=self._marked(told))
        events += self._event("response.content_part.done", told, **self._part_place, part=item["content"][0])
        return events + self._event("response.output_item.done", told, output_index=0, item=item)

    @property
    def _part_place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _call(self, call: ToolCall) -> bytes:
        item, at = self._call_item(call), len(self._output)
        place = {"item_id": item["id"], "output_index": at}
        begun = item | {"arguments": "", "status": "in_progress"}
        events = self._event("response.output_item.added", output_index=at, item=begun)
        events += self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        events += self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=call.arguments)
        self._output.append(item)
        return events + self._event("response.output_item.done", output_index=at, item=item)

    def _call_item(self, call: ToolCall) -> dict[str, Any]:
        item = {"id": forms.new_id("fc"), "type": "function_call", "status": "completed", "call_id": call.id or forms.new_id("call")}
        namespace, name = self._namespaced.get(call.name, (None, call.name))
        item |= {"name": name, "arguments": call.arguments} | ({"namespace": namespace} if namespace else {})
        return item | ({"extra_content": json.loads(call.extra_content)} if call.extra_content else {})

    def _ended(self, reason: FinishReason, output: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        status = _status(reason)
        details = {"reason": REASONS[reason]} if reason in REASONS else None
        ended = {"status": status, "incomplete_details": details, "output": output, "usage": _usage(usage)}
        return self._response | ended | ({"completed_at": int(time.time())} if details is None else {})

    def _event(self, kind: str, told: Sequence[bytes] = (), **fields: Any) -> bytes:
        """`told`: the likelihoods where a field is, or has in it, what `_marked` makes of them."""
        number, self._num_events = self._num_events, self._num_events + 1
        event = forms.event(kind, sequence_number=number, **fields)
        return event.replace(f'"{self._mark}"'.encode(), b",".join(told)) if told else event

    def _marked(self, told: Sequence[bytes]) -> list[str]:
        return [self._mark] if told else []


def _status(reason: FinishReason) -> str:
    return "incomplete" if reason in REASONS else "completed"


def _message(item_id: str, status: str, text: str, likelihoods: Sequence[object]) -> dict[str, Any]:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": [_part(text, likelihoods)]}


def _part(text: str, likelihoods: Sequence[object]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(likelihoods)}


def _usage(usage: Usage) -> dict[str, Any] | None:
    told = replies.render_usage(usage)
    return told and {
        "input_tokens": told["prompt_tokens"],
        "input_tokens_details": {**told["prompt_tokens_details"], "cache_write_tokens": 0},
        "output_tokens": told["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": told["total_tokens"],
    }
