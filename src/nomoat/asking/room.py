"""More room for answers than they had before: what was answered whole stays, and only what was cut off is asked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nomoat.asking.store import AnswerStore
from nomoat.money import dollars
from nomoat.records import Completion, Request
from nomoat.responder import Responder
from nomoat.words import counted


def with_other_room(request: Request, limits: Sequence[int], *, any_room: bool) -> list[Request]:
    """The request as it may have been asked before: with each of these limits below its own; with `any_room`, above it, too."""
    most = request.max_new_tokens
    others = [limit for limit in limits if most is not None and (limit < most or (any_room and limit > most))]
    return [replace(request, max_new_tokens=limit) for limit in others]


def asked_with_other(
    model: Responder, requests: Iterable[Request], *, store: AnswerStore, any_room: bool = False
) -> Iterator[tuple[Request, Completion]]:
    """The stored answers that the limits of `with_other_room` gave to these, whole or cut off, each with its request: no evidence, but
    paid for."""
    limits = store.limits(model.digest)
    for request in requests:
        for tried in with_other_room(request, limits, any_room=any_room):
            if (answer := store.answer(model.digest, tried)) is not None:
                yield request, answer


def other_room_note(ref: str, costs: Sequence[float]) -> tuple[str, ...]:
    """What those took that `asked_with_other` finds, each of them; nothing if there are none."""
    if not costs:
        return ()
    answers = counted(len(costs), "answer")
    return (f"the cost of `{ref}` in total holds {dollars(sum(costs))} for {answers} asked for before with another limit",)


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
