"""OpenAI's JSON and our records. The only place that knows the wire format.

What a client sends and we do not know is ignored, as clients send many things; but what would change the answer and is not
supported (tools, images, a bias on tokens) is refused by name.

Format: https://platform.openai.com/docs/api-reference/chat and .../completions.
"""

from __future__ import annotations

import base64
import codecs
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt
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
from nomoat.records import Chunk, FinishReason, Message, Request, Role, TokenLikelihood, Usage
from nomoat.responder import Responder

MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 1024  # prompts times answers to each, in one request
COMPLETION_MAX_TOKENS = 16  # what /v1/completions means when it says nothing
DONE = b"data: [DONE]\n\n"

# Field -> the values under which it changes nothing.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "grammar": ("",),
    "logit_bias": ({},),
    "modalities": (["text"], []),
    "repeat_penalty": (1,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
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


class _Schema(BaseModel):
    model_config = ConfigDict(strict=True)
    schema_: Annotated[dict[str, Any] | bool | None, Field(alias="schema")] = None


class _Format(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _Settings(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    response_format: _Format | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Chat(_Settings):
    messages: Annotated[list[_Turn], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class _Text(_Settings):
    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None  # 0 with `echo`: only what the prompt's tokens are worth
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | bool | None = (
        None  # not strictly OpenAI's; llama.cpp's clients send false
    )


class _Embed(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_Asked = TypeVar("_Asked", bound=BaseModel)
# What tells a field from the name pydantic has for one of the types it may be of.
SHAPES: tuple[type[BaseModel], ...] = (_Part, _Turn, _StreamOptions, _Schema, _Format, _Chat, _Text, _Embed)
FIELD_NAMES = frozenset(field.alias or name for shape in SHAPES for name, field in shape.model_fields.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked: one answer to each request. `model` None: the only one served.

    `max_new_tokens` None: as many as the context has room for. `echo`: the prompt is part of the answer. `n`: requests in a row with
    the same prompt.
    """

    kind: Kind
    model: str | None
    requests: tuple[Request, ...]
    max_new_tokens: int | None
    stream: bool
    include_usage: bool
    echo: bool = False
    n: int = 1

    @property
    def request(self) -> Request:
        """The first, and mostly only one."""
        return self.requests[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """What a client wants embedded. `dimensions` None: as many as the model has."""

    model: str | None
    texts: tuple[str, ...]
    as_base64: bool
    dimensions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole answer. `ahead`: see `ahead_of`."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    likelihoods: tuple[TokenLikelihood, ...] = ()
    ahead: int = 0


def parse_chat(body: bytes) -> Call:
    """A body of /v1/chat/completions. Raises BadRequestError."""
    asked = _parse(_Chat, body)
    messages = tuple(_message(turn, f"messages.{at}") for at, turn in enumerate(asked.messages))
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    request = Request(messages=messages, top_logprobs=top, **_sampling(asked))
    return _call("chat", asked, [request], asked.max_completion_tokens or asked.max_tokens)


def parse_text(body: bytes) -> Call:
    """A body of /v1/completions: prompts that no chat template touches, as text or as token ids. Raises BadRequestError."""
    asked = _parse(_Text, body)
    top = None if asked.logprobs is None or asked.logprobs is False else int(asked.logprobs)
    prompts = _prompts(asked.prompt)
    if not prompts or not all(prompts):
        raise BadRequestError("`prompt` is empty, or one of its prompts is", param="prompt")
    settings = {"top_logprobs": top, **_sampling(asked)}
    requests = [
        Request(prompt=prompt, **settings) if isinstance(prompt, str) else Request(prompt_ids=tuple(prompt), **settings)
        for prompt in prompts
    ]
    max_new_tokens = COMPLETION_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    if max_new_tokens == 0 and not asked.echo:
        raise BadRequestError("`max_tokens`: 0 goes with `echo` only", param="max_tokens")
    return replace(_call("text", asked, requests, max_new_tokens), echo=bool(asked.echo))


def parse_embeddings(body: bytes) -> EmbeddingCall:
    """A body of /v1/embeddings. Raises BadRequestError."""
    asked = _parse(_Embed, body)
    texts = (asked.input,) if isinstance(asked.input, str) else tuple(asked.input)
    if not texts or not all(texts):
        raise BadRequestError("`input` is empty, or one of its texts is", param="input")
    if len(texts) > MAX_CHOICES:
        raise BadRequestError(f"`input` holds {len(texts):,} texts; send at most {MAX_CHOICES:,}", param="input")
    return EmbeddingCall(
        model=asked.model, texts=texts, as_base64=asked.encoding_format == "base64", dimensions=asked.dimensions
    )  # fmt: skip


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(part, int) for part in prompt):
        return [cast(list[int], prompt)]
    return cast(list[str | list[int]], prompt)


def _parse(shape: type[_Asked], body: bytes) -> _Asked:
    """The body's fields, checked, and nothing in it that we would have to leave out. pydantic refuses lone surrogates."""
    try:
        asked = shape.model_validate_json(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in FIELD_NAMES)
        if first["type"] == "json_invalid" or not where:
            raise BadRequestError(f"the body is no JSON object: {first['msg']}") from exc
        raise BadRequestError(f"`{where}`: {first['msg']}", param=where) from exc
    extra = asked.model_extra or {}
    for name, harmless in UNSUPPORTED.items():
        if extra.get(name) is not None and extra[name] not in harmless:
            raise BadRequestError(f"`{name}` is not supported", param=name, code="unsupported")
    return asked


def _call(kind: Kind, asked: _Settings, requests: Sequence[Request], max_new_tokens: int | None) -> Call:
    n = asked.n or 1
    if n * len(requests) > MAX_CHOICES:
        raise BadRequestError(f"{n * len(requests):,} answers are asked for; ask for at most {MAX_CHOICES:,}", param="n")
    return Call(
        kind=kind,
        model=asked.model,
        requests=tuple(_numbered(request, at) for request in requests for at in range(n)),
        max_new_tokens=max_new_tokens,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        n=n,
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


def _numbered(request: Request, at: int) -> Request:
    """The answers to one prompt differ, and with a seed are the same ones again."""
    return request if request.seed is None else replace(request, seed=request.seed + at)


def _schema(asked: _Format | None) -> str | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return '{"type": "object"}'
    if asked.json_schema is None or asked.json_schema.schema_ is None:
        raise BadRequestError("`response_format.json_schema.schema` is missing", param="response_format")
    return json.dumps(asked.json_schema.schema_)


def _sampling(asked: _Settings) -> dict[str, Any]:
    """OpenAI's defaults where a client says nothing: temperature 1, so that the same client behaves the same here."""
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return {
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "top_k": asked.top_k or 0,
        "min_p": asked.min_p or 0.0,
        "repetition_penalty": 1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty or 0.0,
        "frequency_penalty": asked.frequency_penalty or 0.0,
        "json_schema": _schema(asked.response_format),
        "seed": None if asked.seed is None else asked.seed % 2**63,
        "stop": tuple(text for text in stop if text),
    }


# ---------------------------------------------------------------- what we answer
class Reply:
    """The envelope of a call's answers: the same id, time and model on every event. Choices are numbered from 0."""

    def __init__(self, call: Call, model: str) -> None:
        self._chat = call.kind == "chat"
        self._include_usage = call.stream and call.include_usage
        self._n, self._echo = call.n, call.echo
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in call.requests]  # characters may take two tokens
        self._offsets = [0] * len(call.requests)  # where each choice's text has come to, in whole characters
        self._envelope = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Sequence[Whole]) -> dict[str, Any]:
        """The body of answers that are not streamed."""
        choices = []
        for at, answer in enumerate(answers):
            self._offsets[at] -= answer.ahead
            choice = self._choice(at, _finish(answer.finish_reason), answer.likelihoods)
            if self._chat:
                choice["message"] = {"role": "assistant", "content": answer.text, "refusal": None}
            else:
                choice["text"] = answer.text
            choices.append(choice)
        kind = "chat.completion" if self._chat else "text_completion"
        usage = render_usage(*(answer.usage for answer in answers), each=self._n)
        return {**self._envelope, "object": kind, "choices": choices, "usage": usage}

    def opening(self) -> bytes:
        """The first events of a chat: the role. A text completion has none."""
        if not self._chat:
            return b""
        return b"".join(self._event(at, {"role": "assistant", "content": ""}, None, ()) for at in range(len(self._offsets)))

    def event(self, chunk: Chunk, at: int = 0) -> bytes:
        """The events of one chunk of choice `at`: its text, and at the end the reason."""
        events = b""
        if self._echo and not self._offsets[at]:
            self._offsets[at] -= ahead_of(chunk)
        if chunk.text or chunk.likelihoods:
            events += self._event(at, {"content": chunk.text}, None, chunk.likelihoods)
        if chunk.finish_reason is not None:
            events += self._event(at, {}, _finish(chunk.finish_reason), ())
        return events

    def closing(self, usages: Mapping[int, Usage]) -> bytes:
        """The last events: the usage, if it was asked for, and the end. `usages`: by the choices' numbers."""
        if not self._include_usage:
            return DONE
        usage = render_usage(*(usages[at] for at in sorted(usages)), each=self._n)
        return _sse({**self._envelope, "object": self._object, "choices": [], "usage": usage}) + DONE

    @property
    def _object(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _event(self, at: int, delta: dict[str, str], finish_reason: str | None, likelihoods: Sequence[TokenLikelihood]) -> bytes:
        choice = self._choice(at, finish_reason, likelihoods)
        if self._chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        event: dict[str, Any] = {**self._envelope, "object": self._object, "choices": [choice]}
        if self._include_usage:
            event["usage"] = None
        return _sse(event)

    def _choice(self, at: int, finish_reason: str | None, likelihoods: Sequence[TokenLikelihood]) -> dict[str, Any]:
        logprobs: dict[str, Any] | None = None
        if likelihoods and self._chat:
            logprobs = {"content": [_chat_likelihood(one) for one in likelihoods], "refusal": None}
        elif likelihoods:
            logprobs = self._text_likelihoods(at, likelihoods)
        return {"index": at, "logprobs": logprobs, "finish_reason": finish_reason}

    def _text_likelihoods(self, at: int, likelihoods: Sequence[TokenLikelihood]) -> dict[str, Any]:
        offsets = []
        for one in likelihoods:
            offsets.append(max(0, self._offsets[at]))
            self._offsets[at] += len(self._decoders[at].decode(one.content))
        return {
            "tokens": [_token(one) for one in likelihoods],
            "token_logprobs": [one.log_probability for one in likelihoods],
            "top_logprobs": [_top_of_text(one) for one in likelihoods],
            "text_offset": offsets,
        }


def ahead_of(echoed: Chunk) -> int:
    """Characters that a model read before an echoed prompt's text: the token that begins a text, SentencePiece's space."""
    read = b"".join(one.content for one in echoed.likelihoods).decode("utf-8", "replace")
    return max(0, len(read) - len(echoed.text))


def _token(one: TokenLikelihood) -> str:
    """A token's text; as OpenAI writes it where it is no whole character, so that two tokens never look the same."""
    try:
        return one.content.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in one.content)


def _chat_likelihood(one: TokenLikelihood) -> dict[str, Any]:
    top = [{"token": _token(other), "logprob": other.log_probability, "bytes": list(other.content)} for other in one.top]
    return {"token": _token(one), "logprob": one.log_probability, "bytes": list(one.content), "top_logprobs": top}


def _top_of_text(one: TokenLikelihood) -> dict[str, float | None] | None:
    """The likeliest tokens, and the token itself. None where nothing was asked for, and for the first token of a text."""
    if not one.top:
        return None
    return {_token(other): other.log_probability for other in (one, *one.top)}


def render_embeddings(call: EmbeddingCall, model: str, vectors_ND: npt.NDArray[np.float32], num_tokens: int) -> dict[str, Any]:
    """The body of /v1/embeddings; vectors have length 1, as OpenAI's have. Raises BadRequestError for other dimensions."""
    if call.dimensions not in (None, vectors_ND.shape[1]):
        raise BadRequestError(f"`dimensions` can only be {vectors_ND.shape[1]:,} for this model", param="dimensions")
    unit_ND = (vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)).astype("<f4")
    rows = [base64.b64encode(row.tobytes()).decode() if call.as_base64 else row.tolist() for row in unit_ND]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens}}


def render_usage(*usages: Usage, each: int = 1) -> dict[str, int]:
    """Tokens in OpenAI's words, of all answers together; of `each` answers in a row to one prompt, the prompt counts once."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::each])
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def render_models(names: Sequence[str], loaded: Mapping[str, Responder], *, created: int) -> dict[str, Any]:
    """The body of /v1/models. What is known of a model only while it is in memory is null before."""
    rows = []
    for name in names:
        responder = loaded.get(name)
        row = {"id": name, "object": "model", "created": created, "owned_by": "nomoat", "loaded": responder is not None}
        row |= {
            "context_tokens": responder.engine.context_tokens if responder else None,
            "licence": responder.licence if responder else None,
            "local": responder.is_local if responder else None,
            "digest": responder.digest if responder else None,
        }
        rows.append(row)
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
