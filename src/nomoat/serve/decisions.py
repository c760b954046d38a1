"""Where the requests of one call go, if their model chooses (`auto`), and the headers that say so, which hold nothing of the text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable
from urllib.parse import quote

from nomoat.records import Decision, Place, Request
from nomoat.responder import Responder, shown_name

HEADERS = ("x-nomoat-where", "x-nomoat-model", "x-nomoat-why", "x-nomoat-score")
# All of printable ASCII but `%`, so that whoever decodes gets back what was encoded.
PLAIN = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


@runtime_checkable
class Chooser(Protocol):
    """What an engine that is one of several models can do besides: say which one, and why, before anybody is asked."""

    def decide(self, request: Request) -> Decision:
        """Where this request goes; asking twice gives the same answer."""
        ...

    def decide_embedding(self) -> Decision:
        """Where texts go that are to be embedded."""
        ...

    def chosen(self, decision: Decision) -> Responder:
        """Who answers what was decided so."""
        ...


class Decisions:
    """Of one call, all made before the first word of any of its answers. Safe to use from several threads.

    `count` is told the side of each answer.
    """

    def __init__(self, requests: Sequence[Request], *, count: Callable[[Place], None]) -> None:
        self._requests = requests
        self._count = count
        self._lock = threading.Lock()
        self._made: tuple[Decision, ...] = ()

    def choose(self, responder: Responder, at: int) -> Responder:
        """Who answers the request at `at`: the responder itself, or the one it chooses."""
        engine = responder.engine
        if not isinstance(engine, Chooser):
            return responder
        with self._lock:
            if not self._made:
                self._made = tuple(map(engine.decide, self._requests))
        return self._chosen(engine, self._made[at])

    def choose_embedder(self, responder: Responder) -> Responder:
        """Who embeds."""
        engine = responder.engine
        if not isinstance(engine, Chooser):
            return responder
        self._made = (engine.decide_embedding(),)
        return self._chosen(engine, self._made[0])

    def headers(self) -> list[tuple[str, str]]:
        """None where nothing was decided. Where prompts go to both sides, each has its headers, with its first prompt's reason."""
        first: dict[Place, Decision] = {}
        for decision in self._made:
            first.setdefault(decision.where, decision)
        return [header for decision in first.values() for header in _headers(decision)]

    def _chosen(self, engine: Chooser, decision: Decision) -> Responder:
        chosen = engine.chosen(decision)
        self._count(decision.where)
        return chosen


def _headers(decision: Decision) -> list[tuple[str, str]]:
    score = "" if decision.score is None else f"{decision.score:.4f}"
    values = (decision.where, shown_name(decision.model or ""), decision.why, score)
    return [(name, quote(value, safe=PLAIN)) for name, value in zip(HEADERS, values, strict=True) if value]
