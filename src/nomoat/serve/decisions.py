"""Where the requests of one call go, if their model chooses (`auto`), and the headers that say so, which hold nothing of the text.

One more says what another server refused of the settings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable
from urllib.parse import quote

from nomoat.records import Decision, Place, Request
from nomoat.references import shown_name
from nomoat.responder import Responder
from nomoat.serve.models import Models

HEADERS = ("x-nomoat-where", "x-nomoat-model", "x-nomoat-why", "x-nomoat-rule", "x-nomoat-score", "x-nomoat-max-tokens")
NOTES = "x-nomoat-notes"
# All of printable ASCII but `%`, so that whoever decodes gets back what was encoded.
PLAIN = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Decided(Protocol):
    """A decision, and what else a Chooser wants to know of it when the answer is asked for."""

    @property
    def decision(self) -> Decision: ...


@runtime_checkable
class Chooser(Protocol):
    """What an engine that is one of several models can do besides: say which one, and why, before anybody is asked."""

    @property
    def spent_usd(self) -> float | None:
        """What the cloud's answers have cost; None where nobody counts that."""
        ...

    def decide_all(self, requests: Sequence[Request], *, num_answers: int) -> Sequence[Decided]:
        """Where each of these requests goes that are asked together, each `num_answers` times. A model on this machine may be asked
        for it."""
        ...

    def decide_embedding(self) -> Decision:
        """Where texts go that are to be embedded."""
        ...

    def chosen(self, decision: Decision) -> Responder:
        """Who embeds what was decided so."""
        ...

    def answering(
        self, made: Decided, request: Request, on_change: Callable[[Decision], None]
    ) -> AbstractContextManager[tuple[Decision, Responder]]:
        """Who answers what was decided so, if it still holds, within the block, and the decision as it is kept; one that is made after
        it is told."""
        ...


class Decisions:
    """Of one call, all made before the first word of any of its answers. Safe to use from several threads.

    `requests` are those of the answers, `num_answers` in a row with the same prompt. `count` is told of each answer. `notes`: what
    is to be said besides.

    Not covered: the headers of a stream of several answers say nothing of one that stays here after the first word of another, because
    the policy has changed, others have spent what it would have cost, or the cloud failed.
    """

    def __init__(
        self, requests: Sequence[Request], *, num_answers: int, count: Callable[[Decision], None], notes: Sequence[str]
    ) -> None:
        self._requests = requests
        self._num_answers = num_answers
        self._count = count
        self._notes = notes
        self._lock = threading.Lock()
        self._decided: list[Decided] = []  # for each answer, before any of them
        self._made: list[Decision] = []  # for each answer, as it is by now
        self._asked: dict[int, Responder] = {}  # who writes which answer

    @property
    def needs_no_server(self) -> bool:
        """Whether no server, also none of this machine, may refuse one with a status, as far as is decided: those that are begun are
        written in this process."""
        asked = list(self._asked.values())
        is_here = all(decision.where == "local" for decision in self._made)
        return bool(asked) and is_here and all(one.engine.give_up_waiting is None for one in asked)

    def place(self, responder: Responder, at: int) -> Place | None:
        """Where the answer at `at` is to be written; None where nothing is chosen."""
        engine = responder.engine
        if not isinstance(engine, Chooser):
            return None
        with self._lock:
            if not self._made:
                made = engine.decide_all(self._requests[:: self._num_answers], num_answers=self._num_answers)
                self._decided = [one for one in made for _ in range(self._num_answers)]
                self._made = [one.decision for one in self._decided]
        return self._made[at].where

    @contextmanager
    def choose(self, responder: Responder, at: int) -> Iterator[Responder]:
        """Who writes the answer at `at`, whose `place` is known, within the block: the responder itself, or the one it chooses."""
        engine = responder.engine
        if not isinstance(engine, Chooser):
            self._asked[at] = responder
            yield responder
            return

        def keep(decision: Decision) -> None:
            self._made[at] = decision
            self._count(decision)

        with engine.answering(self._decided[at], self._requests[at], keep) as (decision, chosen):
            self._asked[at] = chosen
            keep(decision)
            yield chosen

    def choose_embedder(self, responder: Responder) -> Responder:
        """Who embeds."""
        engine = responder.engine
        if not isinstance(engine, Chooser):
            return responder
        self._made = [engine.decide_embedding()]
        chosen = engine.chosen(self._made[0])
        self._count(self._made[0])
        return chosen

    def headers(self) -> list[tuple[str, str]]:
        """Empty where nothing was decided, and nothing is to be said. Where prompts go to both sides, each has its headers, with its
        first prompt's reason."""
        first: dict[Place, Decision] = {}
        for decision in self._made:
            first.setdefault(decision.where, decision)
        of_models = (note for at, one in list(self._asked.items()) for note in one.notes_on(self._requests[at]))
        notes = dict.fromkeys([*self._notes, *of_models])
        told = [(NOTES, quote("; ".join(notes), safe=PLAIN))] if notes else []
        return [*(header for decision in first.values() for header in _headers(decision)), *told]


class CloudCosts:
    """By name, what the cloud's answers have cost since the server began, of the models that choose and count that."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._before: dict[str, float] = {}  # by what was unloaded since
        models.on_unload = self._keep

    def usd(self) -> dict[str, float]:
        """Now."""
        while True:
            before = self._before
            now = _spent_usd(self._models.loaded())
            if before is self._before:  # else one was unloaded in between, and is in both or in neither
                return _sums(before, now)

    def _keep(self, unloaded: Mapping[str, Responder]) -> None:
        if spent := _spent_usd(unloaded):
            self._before = _sums(self._before, spent)


def _sums(some: Mapping[str, float], others: Mapping[str, float]) -> dict[str, float]:
    return {name: some.get(name, 0.0) + others.get(name, 0.0) for name in (*some, *others)}


def _spent_usd(models: Mapping[str, Responder]) -> dict[str, float]:
    spent = {name: model.engine.spent_usd for name, model in models.items() if isinstance(model.engine, Chooser)}
    return {name: usd for name, usd in spent.items() if usd is not None}


def _headers(decision: Decision) -> list[tuple[str, str]]:
    score = "" if decision.score is None else f"{decision.score:.4f}"
    limit = "" if decision.max_new_tokens is None else str(decision.max_new_tokens)
    values = (decision.where, shown_name(decision.model or ""), decision.why, decision.rule, score, limit)
    return [(name, quote(value, safe=PLAIN)) for name, value in zip(HEADERS, values, strict=True) if value]
