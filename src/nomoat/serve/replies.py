"""Our records -> OpenAI's JSON: what a client is answered. See `wire`."""

from __future__ import annotations

import base64
import codecs
import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nomoat.engine import pacing
from nomoat.engine.dialect import render_call
from nomoat.errors import (
    BadFileError,
    BadRequestError,
    BusyError,
    ContextExceededError,
    NomoatError,
    NotEnoughDiskError,
    NotEnoughMemoryError,
    NoThreadError,
    NotWritableError,
    OfflineError,
    PolicyChangedError,
    RedirectedError,
    RemoteError,
    SchemaError,
    SettingError,
    StoppedError,
    UnknownModelError,
    UnsupportedError,
    UsageError,
)
from nomoat.records import Chunk, FinishReason, TokenLikelihood, ToolCall, Usage
from nomoat.responder import Responder
from nomoat.serve.wire import Call, EmbeddingCall

DONE = b"data: [DONE]\n\n"
SIGN_OF_LIFE = b": at work\n\n"  # a comment, which clients pass over
RETRY_AFTER = "retry-after"
BUSY_SECONDS = 10  # until a client that was told so asks again
STATUS_AND_TYPE: tuple[tuple[type[NomoatError], int, str, str | None], ...] = (
    (ContextExceededError, 400, "invalid_request_error", "context_length_exceeded"),
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (UnsupportedError, 400, "invalid_request_error", "unsupported"),
    (UsageError, 400, "invalid_request_error", None),
    (RedirectedError, 502, "server_error", "upstream_error"),  # that server's fault, not the client's
    (OfflineError, 403, "permission_error", "offline"),
    (NotEnoughMemoryError, 503, "server_error", "not_enough_memory"),
    (StoppedError, 503, "server_error", "shutting_down"),
    (BusyError, 503, "server_error", "busy"),
    (NoThreadError, 503, "server_error", "no_thread"),
    (PolicyChangedError, 503, "server_error", "policy_changed"),
    (RemoteError, 502, "server_error", "upstream_error"),
)
# What is wrong with the server's own disk, files and settings: its log has the error, which names folders, and the client these words.
OWN_FILES: tuple[tuple[type[NomoatError], int, str, str], ...] = (
    (NotEnoughDiskError, 507, "disk_full", "the server's disk is full"),
    (NotWritableError, 500, "not_writable", "the server cannot write one of its files"),
    (BadFileError, 500, "bad_file", "the server cannot use one of its files"),
    (SettingError, 503, "bad_setting", "the server lacks a key, or cannot use one of its settings"),
)
# What another server refuses and the client, not this server, can do something about.
CLIENTS_STATUS = {400: "invalid_request_error", 413: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error"}

log = logging.getLogger("nomoat.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeReply:
    """A whole answer. `ahead`: see `ahead_of`; `stopped_by`: see `Chunk`."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    likelihoods: tuple[TokenLikelihood, ...] = ()
    ahead: int = 0
    calls: tuple[ToolCall, ...] = ()
    stopped_by: str = ""


class Form(Protocol):
    """How answers to a call are told; see `Reply`, which has these methods, for what each is. `sign_of_life`: in a stream in which
    nothing comes for a while."""

    sign_of_life: bytes

    def whole(self, answers: Sequence[WholeReply]) -> dict[str, Any]: ...
    def opening(self) -> bytes: ...
    def event(self, chunk: Chunk, at: int = 0) -> bytes: ...
    def closing(self, usages: Mapping[int, Usage]) -> bytes: ...
    def failure(self, error: NomoatError) -> bytes: ...


MakeForm = Callable[[Call, str], Form]  # of a call and the name of the model that answers it


class Reply:
    """The envelope of a call's answers: the same id, time and model on every event. Choices are numbered from 0."""

    sign_of_life = SIGN_OF_LIFE

    def __init__(self, call: Call, model: str) -> None:
        self._chat = call.kind == "chat"
        self._include_usage = call.stream and call.include_usage
        self._n, self._echo = call.n, call.echo
        self._may_call = any(request.tools for request in call.requests)
        self._asks_likelihoods = any(request.top_logprobs is not None for request in call.requests)
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in call.requests]  # characters may take two tokens
        self._offsets = [0] * len(call.requests)  # where each choice's text has come to, in whole characters
        self._envelope = {
            "id": ("chatcmpl-" if self._chat else "cmpl-") + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, answers: Sequence[WholeReply]) -> dict[str, Any]:
        """The body of answers that are not streamed."""
        choices = []
        for at, answer in enumerate(answers):
            self._offsets[at] -= answer.ahead
            choice = self._choice(at, _finish(answer.finish_reason, answer.calls), answer.likelihoods)
            if self._chat:
                message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
                if answer.calls:
                    message |= {"content": answer.text.strip() or None, "tool_calls": [render_call(call) for call in answer.calls]}
                choice["message"] = message
            else:
                choice["text"] = answer.text
            choices.append(choice)
        kind = "chat.completion" if self._chat else "text_completion"
        usage = render_usage(*(answer.usage for answer in answers), each=self._n)
        return {**self._envelope, "object": kind, "choices": choices} | ({} if usage is None else {"usage": usage})

    def opening(self) -> bytes:
        """The first events of a chat: the role. A text completion has none.

        Where calls may come, no text has begun with it: clients would keep an empty one before a call.
        """
        if not self._chat:
            return b""
        begun = {"role": "assistant", "content": None if self._may_call else ""}
        return b"".join(self._event(at, begun, None, ()) for at in range(len(self._offsets)))

    def event(self, chunk: Chunk, at: int = 0) -> bytes:
        """The events of one chunk of choice `at`: its text, and at the end the reason."""
        events = b""
        if self._echo and not self._offsets[at]:
            self._offsets[at] -= ahead_of(chunk)
        if chunk.text or chunk.likelihoods:
            events += self._event(at, {"content": chunk.text}, None, chunk.likelihoods)
        for place, call in enumerate(chunk.calls):
            events += self._event(at, {"tool_calls": [{"index": place, **render_call(call)}]}, None, ())
        if chunk.finish_reason is not None:
            events += self._event(at, {}, _finish(chunk.finish_reason, chunk.calls), ())
        return events

    def closing(self, usages: Mapping[int, Usage]) -> bytes:
        """The last events: the usage, if it was asked for and is known, and the end. `usages`: by the choices' numbers."""
        usage = render_usage(*(usages[at] for at in sorted(usages)), each=self._n) if self._include_usage else None
        if usage is None:
            return DONE
        return sse({**self._envelope, "object": self._object, "choices": [], "usage": usage}) + DONE

    def failure(self, error: NomoatError) -> bytes:
        """What ends a stream in place of `closing`."""
        return sse(render_error(error)[1])

    @property
    def _object(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _event(self, at: int, delta: dict[str, Any], finish_reason: str | None, likelihoods: Sequence[TokenLikelihood]) -> bytes:
        choice = self._choice(at, finish_reason, likelihoods)
        if self._chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        event: dict[str, Any] = {**self._envelope, "object": self._object, "choices": [choice]}
        if self._include_usage:
            event["usage"] = None
        return sse(event)

    def _choice(self, at: int, finish_reason: str | None, likelihoods: Sequence[TokenLikelihood]) -> dict[str, Any]:
        logprobs: dict[str, Any] | None = None  # only where they were not asked for: an answer may have no token
        if self._asks_likelihoods and self._chat:
            logprobs = {"content": [chat_likelihood(one) for one in likelihoods], "refusal": None}
        elif self._asks_likelihoods:
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


def chat_likelihood(one: TokenLikelihood) -> dict[str, Any]:
    """A token with its likeliest rivals, as chats have them."""
    top = [{"token": _token(other), "logprob": other.log_probability, "bytes": list(other.content)} for other in one.top]
    return {"token": _token(one), "logprob": one.log_probability, "bytes": list(one.content), "top_logprobs": top}


def _top_of_text(one: TokenLikelihood) -> dict[str, float | None] | None:
    """The likeliest tokens, and the token itself. None where nothing was asked for, and for the first token of a text."""
    if not one.top:
        return None
    return {_token(other): other.log_probability for other in (one, *one.top)}


def render_embeddings(call: EmbeddingCall, model: str, vectors_ND: npt.NDArray[np.float32], num_tokens: int) -> dict[str, Any]:
    """The body of /v1/embeddings; vectors but zeros have length 1, as OpenAI's have."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    unit_ND = (vectors_ND / np.where(lengths_N1 == 0, 1, lengths_N1)).astype("<f4")
    rows = [base64.b64encode(row.tobytes()).decode() if call.as_base64 else row.tolist() for row in unit_ND]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens}}


def render_usage(*usages: Usage, each: int = 1) -> dict[str, Any] | None:
    """Tokens in OpenAI's words, of all answers together; of `each` answers in a row to one prompt, the prompt counts once.

    None where a server that was asked did not count all of them.
    """
    if not all(usage.is_counted for usage in usages):
        return None
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::each])
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_tokens for usage in usages[::each])},
    }


def render_models(
    names: Sequence[str], loaded: Mapping[str, Responder], local: Mapping[str, bool | None], chats: Mapping[str, bool | None],
    questions: Mapping[str, str], *, created: int,
) -> dict[str, Any]:  # fmt: skip
    """The body of /v1/models. What is known of a model only while it is in memory is null before.

    `local`, `chats` and `questions`: see `Models`.
    """
    rows = []
    for name in names:
        responder = loaded.get(name)
        row = {"id": name, "object": "model", "created": created, "owned_by": "nomoat", "loaded": responder is not None}
        row |= {
            "context_tokens": responder.engine.context_tokens if responder else None,
            "licence": responder.licence if responder else None,
            "local": local[name],
            "chats": chats[name],
            "question": questions.get(name),
            "digest": responder.digest if responder else None,
        }
        rows.append(row)
    return {"object": "list", "data": rows}


def render_error(error: NomoatError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body. The hint follows the message; what is not the client's doing is a 500, or 502 if another server failed.

    What is wrong with the server's own files is logged.
    """
    message = error.on_the_wire
    if isinstance(error, BadRequestError):
        return error.status, error_body(message, param=error.param, code=error.code)
    if isinstance(error, SchemaError):
        return 400, error_body(message, param=error.field, code="unsupported" if error.is_unsupported else None)
    if isinstance(error, RemoteError) and error.status in CLIENTS_STATUS:
        kind, code = CLIENTS_STATUS[error.status], error.code or "upstream_error"
        return error.status, error_body(message, kind=kind, param=error.param, code=code)
    for of, status, code, words in OWN_FILES:
        if isinstance(error, of):
            log.error("%s", message)
            return status, error_body(f"{words}; its log says more", kind="server_error", code=code)
    for of, status, kind, named in STATUS_AND_TYPE:
        if isinstance(error, of):
            return status, error_body(message, kind=kind, code=named, param="model" if status == 404 else None)
    return 500, error_body(message, kind="server_error")


def error_headers(error: NomoatError) -> dict[str, str]:
    """What goes with an error's status: the seconds that another server asked to wait, in whole numbers as `Retry-After` has them; of
    what is wrong here until somebody mends it, and of a server that was asked often, that asking again is of no use now. Where this
    server is busy, when to ask again."""
    headers: dict[str, str] = {}
    if isinstance(error, tuple(of for of, *_ in OWN_FILES)) or (isinstance(error, RemoteError) and error.was_asked_often):
        headers[pacing.SHOULD_RETRY] = "false"
    if isinstance(error, RemoteError) and error.wait_seconds is not None:
        headers[RETRY_AFTER] = str(math.ceil(error.wait_seconds))
    if isinstance(error, BusyError):
        headers[RETRY_AFTER] = str(BUSY_SECONDS)
    return headers


def error_body(
    message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's form of an error. The message is never empty."""
    return {"error": {"message": message or "unknown error", "type": kind, "param": param, "code": code}}


def _finish(reason: FinishReason, calls: Sequence[ToolCall]) -> str:
    return {"length": "length", "filtered": "content_filter"}.get(reason, "tool_calls" if calls else "stop")


def sse(value: dict[str, Any]) -> bytes:
    """An event of a stream."""
    return b"data: " + as_json(value) + b"\n\n"


def as_json(value: object) -> bytes:
    """One line, also to clients that cut streams into lines as Unicode does (httpx's `iter_lines`)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for end in "\x85\u2028\u2029":  # the others are escaped already
        text = text.replace(end, f"\\u{ord(end):04x}")
    return text.encode()
