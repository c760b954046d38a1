"""A bound on what is spent, held before each call: what was spent, and the most that calls under way may still cost, stay below it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nomoat.errors import BudgetReachedError
from nomoat.records import Request, Usage

# A tokenizer makes at most one token of each byte (byte-level BPE; SentencePiece with byte fallback). Templates add role markers.
TEMPLATE_TOKENS_PER_MESSAGE = 16
TEMPLATE_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a server takes, in USD per million tokens."""

    input_usd_per_million: float
    output_usd_per_million: float

    def cost_usd(self, usage: Usage) -> float | None:
        """What an answer cost by these rates; None if the server did not count its tokens."""
        if usage.prompt_tokens + usage.completion_tokens == 0:
            return None
        return self._usd(usage.prompt_tokens, usage.completion_tokens)

    def most_usd(self, request: Request) -> float:
        """More than this a request cannot cost: a token for each byte of its text, and the longest answer it allows.

        What this takes for granted: the server keeps to the longest answer, counts hidden reasoning within it, and its template
        adds no more than a few words.
        """
        texts = [request.prompt] if request.prompt is not None else [message.content for message in request.messages]
        prompt_tokens = sum(len(text.encode()) + TEMPLATE_TOKENS_PER_MESSAGE for text in texts) + TEMPLATE_TOKENS
        return self._usd(prompt_tokens, request.max_new_tokens)

    def _usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.input_usd_per_million + completion_tokens * self.output_usd_per_million) / 1e6


class Budget:
    """What may be spent, shared by all who spend it. Safe to use from several threads."""

    def __init__(self, max_usd: float) -> None:
        self.max_usd = max_usd
        self._spent_usd = 0.0
        self._reserved_usd = 0.0
        self._num_under_way = 0
        self._condition = threading.Condition()

    @property
    def spent_usd(self) -> float:
        """What was spent for certain, or may have been: a call whose answer was lost counts with the most it can have cost."""
        return self._spent_usd

    def count(self, usd: float) -> None:
        """Count what was spent before."""
        with self._condition:
            self._spent_usd += usd

    def reserve(self, usd: float) -> None:
        """Set `usd` aside for a call; waits for calls under way if what they leave over may be enough.

        Raises BudgetReachedError if it is not.
        """
        with self._condition:
            while self._spent_usd + self._reserved_usd + usd > self.max_usd:
                if self._spent_usd + usd > self.max_usd or not self._num_under_way:
                    raise BudgetReachedError(max_usd=self.max_usd, spent_usd=self._spent_usd, next_usd=usd)
                self._condition.wait()
            self._reserved_usd += usd
            self._num_under_way += 1

    def settle(self, reserved_usd: float, cost_usd: float) -> None:
        """A call has ended: what was set aside for it is free again, but for what it cost."""
        with self._condition:
            self._num_under_way -= 1
            # Nothing under way means nothing set aside, whatever rounding says.
            self._reserved_usd = self._reserved_usd - reserved_usd if self._num_under_way else 0.0
            self._spent_usd += cost_usd
            self._condition.notify_all()


@dataclass(slots=True)
class Bill:
    """What one call costs, as far as is known while it goes on."""

    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Rates and the budget they are paid from: what an engine asks before each call."""

    rates: Rates
    budget: Budget

    @contextmanager
    def call(self, request: Request) -> Iterator[Bill]:
        """Around one call: the bill begins with the most it can cost, and is paid as it stands when the block ends, however it ends.

        Raises BudgetReachedError before the call.
        """
        most = self.rates.most_usd(request)
        self.budget.reserve(most)
        bill = Bill(most)
        try:
            yield bill
        finally:
            self.budget.settle(most, bill.usd)
