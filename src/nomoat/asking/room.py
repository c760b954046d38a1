"""More room for answers than they had before: what was answered whole stays, and only what was cut off is asked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nomoat.asking.store import AnswerStore
from nomoat.money import dollars
from nomoat.records import Completion, Request
from nomoat.responder import Responder
from nomoat.words import counted


def with_less_room(request: Request, limits: Sequence[int]) -> list[Request]:
    """The request as it may have been asked before, with each of these limits that is lower than its own."""
    most = request.max_new_tokens
    return [replace(request, max_new_tokens=limit) for limit in limits if most is not None and limit < most]


def asked_with_less(model: Responder, requests: Iterable[Request], *, store: AnswerStore) -> Iterator[tuple[Request, Completion]]:
    """The stored answers that a lower limit gave to these, whole or cut off, each with its request: no evidence, but paid for."""
    limits = store.limits(model.digest)
    for request in requests:
        for tried in with_less_room(request, limits):
            if (answer := store.answer(model.digest, tried)) is not None:
                yield request, answer


def less_room_note(ref: str, costs: Sequence[float]) -> tuple[str, ...]:
    """What those took that `asked_with_less` finds, each of them; nothing if there are none."""
    if not costs:
        return ()
    answers = counted(len(costs), "answer")
    return (f"the cost of `{ref}` in total holds {dollars(sum(costs))} for {answers} asked for before with a lower limit",)


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
