"""A bound on what is spent, held before each call: what was spent, and the most that calls under way may still cost, stay below it.

`Calls` knows the calls of a server that are under way, and tells of each that may be billed and brings no answer.
"""

from __future__ import annotations

import copy
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from nomoat import bounds
from nomoat.errors import BudgetReachedError, NomoatError, UsageError
from nomoat.records import LongPrompts, Request, Usage

# A tokenizer makes at most one token of each byte (byte-level BPE; SentencePiece with byte fallback). Templates add role markers.
TEMPLATE_TOKENS_PER_MESSAGE = 16
TEMPLATE_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What a server takes, in USD per million tokens. Raises UsageError for what is no price.

    `long_prompts`: its price where a prompt is long; None where that makes no difference.
    `longest_answer_tokens`: no answer of its model is longer, whatever a request allows; None if that is not known.
    `default_answer_tokens`: the longest answer that a request asks for which names none (`limited`); None asks without a limit.
    """

    input_usd_per_million: float
    output_usd_per_million: float
    long_prompts: LongPrompts | None = None
    longest_answer_tokens: int | None = None
    default_answer_tokens: int | None = None

    def __post_init__(self) -> None:
        for rates, name in itertools.product(self._each(), ("input_usd_per_million", "output_usd_per_million")):
            price = bounds.number(name, getattr(rates, name))
            object.__setattr__(rates, name, price)
            if not 0 <= price < math.inf:  # nan is neither
                raise UsageError(f"a price is {price:g}", hint="give it in USD per million tokens, 0 or more")

    def cost_usd(self, usage: Usage) -> float | None:
        """What an answer cost by these rates; None if the server did not count all its tokens, or as no tokens can be."""
        if not usage.is_counted or usage.prompt_tokens < 1 or usage.completion_tokens < 0:
            return None
        return _usd(self._each(usage.prompt_tokens)[-1], usage.prompt_tokens, usage.completion_tokens)

    def billed_usd(self, request: Request, usage: Usage) -> float:
        """What an answer counts with: what it cost, or the most it can have cost where that is not known."""
        cost = self.cost_usd(usage)
        return self.most_usd(request, usage) if cost is None else cost

    def limited(self, request: Request) -> Request:
        """As it is sent: with a longest answer, where it names none and there is a default.

        Not where prompt and default might not fit into the model's context together: servers refuse that; the context is the limit.
        """
        limit, context = self.default_answer_tokens, self.longest_answer_tokens
        if request.max_new_tokens is not None or limit is None or (context is not None and _most_tokens(request) + limit > context):
            return request
        return replace(request, max_new_tokens=limit)

    def most_usd(self, request: Request, usage: Usage | None = None) -> float:
        """More than this a request cannot cost: a token for each byte of its text and schema, and the longest answer it allows; or
        as many as its server counted, in `usage`, if these are more.

        What this takes for granted: the server keeps to the longest answer, counts hidden reasoning within it, and its template
        adds no more than a few words. Raises UsageError for a request that names no longest answer, if its model has none either.
        """
        limits = [limit for limit in (self.limited(request).max_new_tokens, self.longest_answer_tokens) if limit is not None]
        if not limits:
            hint = "give max_new_tokens, or no --max-cost (in Python: `max_cost_usd`)"
            raise UsageError("what an answer without a limit costs cannot be bounded", hint=hint)
        most_tokens, most_written = _most_tokens(request), min(limits)
        if usage is not None:
            most_tokens, most_written = max(most_tokens, usage.prompt_tokens), max(most_written, usage.completion_tokens)
        return max(_usd(rates, most_tokens, most_written) for rates in self._each(most_tokens))

    def _each(self, prompt_tokens: float = math.inf) -> list[Rates | LongPrompts]:
        """The prices that a prompt of at most so many tokens may have; the last is that of one of just so many."""
        return [self, self.long_prompts] if self.long_prompts and prompt_tokens > self.long_prompts.above_tokens else [self]


def _usd(rates: Rates | LongPrompts, prompt_tokens: int, completion_tokens: int) -> float:
    return (prompt_tokens * rates.input_usd_per_million + completion_tokens * rates.output_usd_per_million) / 1e6


def _most_tokens(request: Request) -> int:
    """More than that the texts and the schema of a request cannot be."""
    return sum(len(text.encode()) + TEMPLATE_TOKENS_PER_MESSAGE for text in request.texts) + TEMPLATE_TOKENS


class Budget:
    """What may be spent, shared by all who spend it. Safe to use from several threads.

    Whoever comes first is served first: a short request that would fit does not overtake a long one that has to wait, or does not
    fit any more. Otherwise the questions answered would be the short ones. Raises UsageError for what is no sum of money.
    """

    def __init__(self, max_usd: float) -> None:
        max_usd = bounds.number("max_cost_usd", max_usd)
        if not 0 <= max_usd < math.inf:  # nan is neither, and no sum would ever exceed it
            hint = "give --max-cost (in Python: `max_cost_usd`) in USD, 0 or more"
            raise UsageError(f"the budget is {max_usd:g}", hint=hint)
        self.max_usd = max_usd
        self._spent_usd = 0.0
        self._reserved_usd = 0.0
        self._num_under_way = 0
        self._kept_usd = 0.0
        self._reached: BudgetReachedError | None = None
        self._queue: deque[object] = deque()
        self._condition = threading.Condition()

    @property
    def spent_usd(self) -> float:
        """What was spent for certain, or may have been: a call whose answer was lost counts with the most it can have cost."""
        return self._spent_usd

    def _fits(self, usd: float) -> bool:
        return self._spent_usd + self._reserved_usd + usd <= self.max_usd - self._kept_usd

    def _is_decided(self, usd: float) -> bool:
        """Whether a call fits now, or nothing is under way any more: only then is it known what is spent, which the error tells."""
        return self._fits(usd) or not self._num_under_way

    def begin_stage(self, num_stages_left: int) -> None:
        """Begin the next of several who spend one after the other: it may spend its share of what is left, and the last one all."""
        with self._condition:
            left_usd = max(0.0, self.max_usd - self._spent_usd)
            self._kept_usd = left_usd * (num_stages_left - 1) / num_stages_left
            self._reached = None

    def count(self, usd: float) -> None:
        """Count what was spent before."""
        with self._condition:
            self._spent_usd += usd

    def reserve(self, usd: float) -> None:
        """Set `usd` aside for a call; waits for its turn, and until there is room beside the calls under way, or they have ended. So
        a thread that holds a call open must not reserve more beside it.

        Raises BudgetReachedError if there is none when they have ended, and from then on until the next stage, with the numbers of the
        call that did not fit.
        """
        place = object()
        with self._condition:
            self._queue.append(place)
            try:
                self._condition.wait_for(lambda: self._reached or (self._queue[0] is place and self._is_decided(usd)))
                if self._reached is None and not self._fits(usd):
                    self._reached = BudgetReachedError(
                        max_usd=self.max_usd, spent_usd=self._spent_usd, next_usd=usd, kept_usd=self._kept_usd
                    )
                if self._reached is not None:
                    raise copy.copy(self._reached)  # each says what was sent in vain for its own request
                self._reserved_usd += usd
                self._num_under_way += 1
            finally:
                self._queue.remove(place)
                self._condition.notify_all()

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


class Calls:
    """The calls of one server that are under way. Safe to use from several threads.

    `on_lost` is told of each that may be billed and brings no answer: once, in the thread that finds it out.
    """

    def __init__(self) -> None:
        self.on_lost: Callable[[Request], None] = lambda _request: None
        self._lock = threading.Lock()
        self._under_way: dict[object, Request] = {}

    @contextmanager
    def under_way(self, request: Request, bill: Bill) -> Iterator[None]:
        """Around one call, from when it is sent. A server that refused did no work, and takes no money: the bill is nothing then."""
        call = object()
        with self._lock:
            self._under_way[call] = request
        try:
            yield
        except BaseException as error:
            if not isinstance(error, NomoatError) or error.may_be_billed:
                self._lose(call)
            else:
                bill.usd = 0.0
            raise
        finally:
            with self._lock:
                self._under_way.pop(call, None)

    def abandon(self) -> None:
        """Nobody waits any longer for those under way: their answers count as lost, whatever comes of them."""
        with self._lock:
            left = [*self._under_way]
        for call in left:
            self._lose(call)

    def _lose(self, call: object) -> None:
        with self._lock:  # also while it is told: whoever abandons the others may stop listening then
            if (request := self._under_way.pop(call, None)) is not None:
                self.on_lost(request)
