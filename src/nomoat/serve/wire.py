"""OpenAI's JSON and our records. The only place that knows the wire format.

What a client sends and we do not know is ignored, as clients send many things; but what would change the answer and is not
supported (tools, JSON schemas, likelihoods, several answers) is refused by name.

Format: https://platform.openai.com/docs/api-reference/chat and .../completions.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nomoat.errors import (
    BadRequestError,
    ContextExceededError,
    NomoatError,
    NotEnoughMemoryError,
    OfflineError,
    RemoteError,
    UnknownModelError,
    UnsupportedError,
    UsageError,
)
from nomoat.records import Chunk, Completion, FinishReason, Message, Request, Role, Usage

COMPLETION_MAX_TOKENS = 16  # what /v1/completions means when it says nothing
DONE = b"data: [DONE]\n\n"

# Field -> the values under which it changes nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "grammar": ("",),
    "logit_bias": ({},),
    "min_p": (0,),
    "modalities": (["text"], []),
    "n": (1,),
    "presence_penalty": (0,),
    "repeat_penalty": (1,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
STATUS_AND_TYPE: tuple[tuple[type[NomoatError], int, str, str | None], ...] = (
    (ContextExceededError, 400, "invalid_request_error", "context_length_exceeded"),
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (UnsupportedError, 400, "invalid_request_error", "unsupported"),
    (UsageError, 400, "invalid_request_error", None),
    (OfflineError, 403, "permission_error", "offline"),
    (NotEnoughMemoryError, 503, "server_error", "not_enough_memory"),
    (RemoteError, 502, "server_error", "upstream_error"),
)

Kind = Literal["chat", "text"]


# ---------------------------------------------------------------- what a client asks
class _Part(BaseModel):
    model_config = ConfigDict(strict=True)
    type: str
    text: str | None = None


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True)
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True)
    include_usage: bool | None = None


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Chat(_Settings):
    messages: Annotated[list[_Turn], Field(min_length=1)]


class _Text(_Settings):
    prompt: str | list[str]


_Asked = TypeVar("_Asked", bound=_Settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked. `model` None: the only one served. `max_new_tokens` None: as many as the context has room for."""

    kind: Kind
    model: str | None
    request: Request
    max_new_tokens: int | None
    stream: bool
    include_usage: bool


def parse_chat(body: bytes) -> Call:
    """A body of /v1/chat/completions. Raises BadRequestError."""
    asked = _parse(_Chat, body)
    if (asked.model_extra or {}).get("logprobs") not in (None, False):
        raise BadRequestError("`logprobs` is not supported", param="logprobs", code="unsupported")
    messages = tuple(_message(turn, f"messages.{at}") for at, turn in enumerate(asked.messages))
    return _call("chat", asked, Request(messages=messages, **_sampling(asked)), asked.max_completion_tokens or asked.max_tokens)


def parse_text(body: bytes) -> Call:
    """A body of /v1/completions: one prompt that no chat template touches. Raises BadRequestError."""
    asked = _parse(_Text, body)
    logprobs = (asked.model_extra or {}).get("logprobs")
    if logprobs is not None and logprobs is not False:  # 0 asks for the chosen token's
        raise BadRequestError("`logprobs` is not supported", param="logprobs", code="unsupported")
    prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
    if len(prompts) != 1 or not prompts[0]:
        raise BadRequestError(f"`prompt` holds {len(prompts)} prompts; send one that is not empty", param="prompt")
    return _call("text", asked, Request(prompt=prompts[0], **_sampling(asked)), asked.max_tokens or COMPLETION_MAX_TOKENS)


def _parse(shape: type[_Asked], body: bytes) -> _Asked:
    """The body's fields, checked, and nothing in it that we would have to leave out. pydantic refuses lone surrogates."""
    try:
        asked = shape.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "json_invalid" or not where:
            raise BadRequestError(f"the body is no JSON object: {first['msg']}") from exc
        raise BadRequestError(f"`{where}`: {first['msg']}", param=where) from exc
    extra = asked.model_extra or {}
    for name, harmless in UNSUPPORTED.items():
        if extra.get(name) is not None and extra[name] not in harmless:
            raise BadRequestError(f"`{name}` is not supported", param=name, code="unsupported")
    return asked


def _call(kind: Kind, asked: _Settings, request: Request, max_new_tokens: int | None) -> Call:
    return Call(
        kind=kind,
        model=asked.model,
        request=request,
        max_new_tokens=max_new_tokens,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
    )


def _message(turn: _Turn, where: str) -> Message:
    role = "system" if turn.role == "developer" else turn.role
    if role not in get_args(Role):
        raise BadRequestError(f"`{where}.role` is `{turn.role}`; known are system, developer, user, assistant", param=f"{where}.role")
    if turn.content is None:
        raise BadRequestError(f"`{where}.content` is missing", param=f"{where}.content")
    if isinstance(turn.content, str):
        return Message(role=cast(Role, role), content=turn.content)
    strange = [part.type for part in turn.content if part.type != "text" or part.text is None]
    if strange:
        raise BadRequestError(
            f"`{where}.content` holds a part of type `{strange[0]}`; only text is supported", param=f"{where}.content"
        )
    return Message(role=cast(Role, role), content="".join(part.text or "" for part in turn.content))


def _sampling(asked: _Settings) -> dict[str, Any]:
    """OpenAI's defaults where a client says nothing: temperature 1, so that the same client behaves the same here."""
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return {
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "top_k": asked.top_k or 0,
        "seed": None if asked.seed is None else asked.seed % 2**63,
        "stop": tuple(text for text in stop if text),
    }


# ---------------------------------------------------------------- what we answer
class Reply:
    """One answer's envelope: the same id, time and model on every event."""

    def __init__(self, call: Call, model: str) -> None:
        self._chat = call.kind == "chat"
        self._include_usage = call.stream and call.include_usage
        self._envelope = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, completion: Completion) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": _finish(completion.finish_reason)}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": completion.text, "refusal": None}
        else:
            choice["text"] = completion.text
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._envelope, "object": kind, "choices": [choice], "usage": render_usage(completion.usage)}

    def opening(self) -> bytes:
        """The first event of a chat: the role. A text completion has none."""
        return self._event({"role": "assistant", "content": ""}, None) if self._chat else b""

    def event(self, chunk: Chunk) -> bytes:
        """The events of one chunk: its text, and at the end the reason and, if asked for, the usage."""
        events = self._event({"content": chunk.text}, None) if chunk.text else b""
        if chunk.finish_reason is not None:
            events += self._event({}, _finish(chunk.finish_reason))
            if self._include_usage and chunk.usage is not None:
                events += _sse({**self._envelope, "object": self._object, "choices": [], "usage": render_usage(chunk.usage)})
        return events

    @property
    def _object(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _event(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
        if self._chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        event: dict[str, Any] = {**self._envelope, "object": self._object, "choices": [choice]}
        if self._include_usage:
            event["usage"] = None
        return _sse(event)


def render_usage(usage: Usage) -> dict[str, int]:
    """Tokens in OpenAI's words."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def render_models(names: list[str], *, created: int) -> dict[str, Any]:
    """The body of /v1/models."""
    rows = [{"id": name, "object": "model", "created": created, "owned_by": "nomoat"} for name in names]
    return {"object": "list", "data": rows}


def render_error(error: NomoatError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body. The hint follows the message; what is not the client's doing is a 500."""
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    if isinstance(error, BadRequestError):
        return error.status, error_body(message, param=error.param, code=error.code)
    for kind, status, name, code in STATUS_AND_TYPE:
        if isinstance(error, kind):
            return status, error_body(message, kind=name, code=code, param="model" if status == 404 else None)
    return 500, error_body(message, kind="server_error")


def render_error_event(error: NomoatError) -> bytes:
    """An error after the answer has begun."""
    return _sse(render_error(error)[1])


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's form of an error. The message is never empty."""
    return {"error": {"message": message or "unknown error", "type": kind, "param": param, "code": code}}


def _finish(reason: FinishReason) -> str:
    return {"length": "length", "filtered": "content_filter"}.get(reason, "stop")


def _sse(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
