"""What the other forms of a chat share, OpenAI's newer one (`responses`) and Anthropic's (`messages`): a request's words become a
chat's, so that whatever holds for chats holds for them, and an answer is told by typed events.
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nomoat.errors import BadRequestError, NomoatError, SchemaError
from nomoat.records import Chunk
from nomoat.serve import replies, shapes

Refused = Mapping[str, tuple[Container[object], str]]  # field -> the values under which it changes nothing, and what to do otherwise
Fields = Sequence[tuple[str, str]]  # what errors of chats call what has another name in this form, and that name


def without_refused(extra: Mapping[str, Any], refused: Refused) -> dict[str, Any]:
    """The fields that are a chat's as they are. Raises BadRequestError for one that is refused, and would change the answer."""
    for name, (harmless, advice) in refused.items():
        if extra.get(name) is not None and extra[name] not in harmless:
            raise shapes.unsupported(name, f"is not supported{advice}")
    return {name: value for name, value in extra.items() if name not in refused}


@contextmanager
def fields_named(fields: Fields) -> Iterator[None]:
    """Errors of a chat's fields name those of this form."""
    try:
        yield
    except BadRequestError as error:
        param = _field(error.param or "", fields)
        if param == (error.param or ""):
            raise
        message = error.message.replace(f"`{error.param}", f"`{param}", 1)
        raise BadRequestError(message, param=param, code=error.code, status=error.status) from error
    except SchemaError as error:
        name_field(error, fields)
        raise


def name_field(error: NomoatError, fields: Fields) -> None:
    """The same, of an error within a stream."""
    if isinstance(error, SchemaError):
        error.field = _field(error.field, fields)


def _field(name: str, fields: Fields) -> str:
    for chats, here in fields:
        name = name.replace(chats, here)
    return name


class Tools:
    """A request's tools, by where each stands. Those that are no functions are left out beside functions: coding agents send some."""

    def __init__(self) -> None:
        self._functions: dict[str, dict[str, Any]] = {}
        self._others: dict[str, str] = {}

    def add_function(self, place: str, function: shapes.Function) -> None:
        self._functions[place] = {"type": "function", "function": function.model_dump()}

    def add_other(self, place: str, kind: str) -> None:
        self._others[place] = kind

    @property
    def told(self) -> dict[str, dict[str, Any]]:
        """As chats have them. Where there is no function, nothing could be called: then the others, for `wire` to refuse."""
        return self._functions or {place: {"type": kind} for place, kind in self._others.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        left_out = self._others if self._functions else {}
        return tuple(f"`{place}` (`{kind}`) is left out; only functions are supported" for place, kind in left_out.items())


class Words:
    """A stream's text, told from the first that is more than space: before a call there may be none."""

    def __init__(self) -> None:
        self._have_begun = False
        self._held: list[Chunk] = []

    def told(self, chunk: Chunk) -> list[Chunk]:
        """Those that are to be told now; an answer without words or calls has its space told at its end."""
        self._held.append(chunk)
        self._have_begun |= bool(chunk.text.strip()) or (chunk.finish_reason is not None and not chunk.calls)
        told, self._held = (self._held, []) if self._have_begun else ([], self._held)
        return told


def event(kind: str, **fields: Any) -> bytes:
    """A typed event of a stream."""
    return f"event: {kind}\n".encode() + replies.sse({"type": kind, **fields})


def new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
