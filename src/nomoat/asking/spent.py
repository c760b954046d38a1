"""What a model's answers took, added up: a teacher's, or a judge's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nomoat.asking.answers import Collected, notes_of
from nomoat.asking.room import asked_with_other, other_room_note
from nomoat.asking.spending import Pricing, Spending
from nomoat.asking.store import AnswerStore
from nomoat.records import Completion, Request
from nomoat.responder import Responder


@dataclass(slots=True, kw_only=True)
class Spent:
    """Added up over answers, those that were stored before included; `bytes_out` over those that failed, too.

    `cost_usd` is None where no price is known, and once the cost of one is not. `earlier_usd`: what each answer cost that was asked
    for before with another limit; `num_answers` and `num_reused` leave these out. `lost` are the calls that brought none, by request:
    see `Collected`.
    """

    pricing: Pricing
    num_answers: int = 0
    num_reused: int = 0
    num_failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    bytes_out: int = 0
    cost_usd: float | None = 0.0
    num_uncounted: int = 0
    earlier_usd: list[float] = field(default_factory=list)
    lost: dict[Request, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pricing.rates is None:
            self.cost_usd = None

    def add(self, collected: Collected) -> None:
        """Count these answers."""
        self.num_reused += collected.num_reused
        self.num_failed += collected.num_failed
        self.bytes_out += collected.bytes_in_vain
        self.lost.update(collected.lost)
        for completion in collected.answers.values():
            self.num_answers += 1
            self._count(completion)

    def add_earlier(
        self, model: Responder, requests: Iterable[Request], *, store: AnswerStore, spending: Spending, any_room: bool
    ) -> None:
        """Count what these cost when they were asked with another limit, of a model that may take money; see `with_other_room`."""
        if spending.may_cost(model):
            for _, completion in asked_with_other(model, requests, store=store, any_room=any_room):
                if (cost := self._count(completion)) is not None:
                    self.earlier_usd.append(cost)

    def _count(self, completion: Completion) -> float | None:
        """Add what an answer took; its cost, if that is known."""
        self.prompt_tokens += completion.usage.prompt_tokens
        self.completion_tokens += completion.usage.completion_tokens
        self.bytes_out += completion.usage.bytes_out
        cost = self.pricing.cost_usd(completion)
        self.num_uncounted += cost is None
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        return cost

    def notes(self, model: Responder, store: AnswerStore, spending: Spending) -> tuple[str, ...]:
        """What has to be known about these answers of a model, and about the money."""
        lost = self.pricing.lost_note(model.ref, self.lost)
        uncounted = spending.uncounted_note(model, self.num_uncounted)
        earlier = other_room_note(model.ref, self.earlier_usd)
        return (*notes_of(model, store, num_reused=self.num_reused), *earlier, *lost, *uncounted, *spending.notes())

    def facts(self) -> dict[str, Any]:
        """As they stand in a sidecar."""
        return {
            "answers": self.num_answers,
            "answers_reused": self.num_reused,
            "requests_failed": self.num_failed,
            "calls_lost": sum(self.lost.values()),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "bytes_sent_out": self.bytes_out,
            "cost_usd": self.cost_usd,
            "price": self.pricing.note,
        }
