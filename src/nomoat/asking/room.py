"""More room for answers than they had before: what was answered whole stays, and only what was cut off is asked again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nomoat.asking.store import AnswerStore
from nomoat.records import Request
from nomoat.responder import Responder


def with_less_room(request: Request, limits: Sequence[int]) -> list[Request]:
    """The request as it may have been asked before, with each of these limits that is lower than its own."""
    most = request.max_new_tokens
    return [replace(request, max_new_tokens=limit) for limit in limits if most is not None and limit < most]


def with_room(model: Responder, request: Request, max_new_tokens: int, *, store: AnswerStore, limits: Sequence[int]) -> Request:
    """The request with so much room for its answer; or with that one of these `limits` which it was answered whole with before.

    `limits` are of those that the store knows of the model: see `AnswerStore.limits`.
    """
    for limit in limits:
        asked = replace(request, max_new_tokens=limit)
        kept = store.answer(model.digest, asked)
        if kept is not None and kept.finish_reason != "length":
            return asked
    return replace(request, max_new_tokens=max_new_tokens)
