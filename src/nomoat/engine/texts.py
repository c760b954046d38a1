"""What passes are made of (`batching`): prompts with their answers, and texts that are only read.

Each says what its next tokens are, and takes what a pass made of them.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from nomoat.engine import forked
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.lookup import Lookup
from nomoat.engine.pooling import LAST, MEAN
from nomoat.engine.sampling import Pick, Sampler, with_log_probability

HEARTBEAT_SECONDS = 0.5  # between looks of who waits whether it is still to

Floats = npt.NDArray[np.float32]


class Tokens:
    """The tokens of one answer as they are chosen. `cancel` stops the work, and ends them for whoever reads, in any thread; calling it
    after the end is fine.

    `num_kept`: how many of the prompt's tokens were not read, since their keys and values were kept; None before it is let in.
    """

    def __init__(self) -> None:
        self.ready: queue.SimpleQueue[Pick | BaseException | None] = queue.SimpleQueue()
        self.cancelled = False
        self.num_kept: int | None = None

    def __iter__(self) -> Iterator[Pick | None]:
        """None where nothing has come for a while, so that whoever reads may see to something else, such as a client that has gone."""
        while True:
            try:
                item = self.ready.get(timeout=HEARTBEAT_SECONDS)
            except queue.Empty:
                forked.require_none()
                yield None
                continue
            if item is None or self.cancelled:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled = True
        self.ready.put(None)


class _Text:
    """Something that is read, and perhaps continued. `done` of its `ids` have their keys and values in `blocks`."""

    def __init__(self, ids: Sequence[int], *, adapter: int | None, asker: str) -> None:
        self.ids = list(ids)
        self.adapter = adapter
        self.asker, self.place, self.turn = asker, 0, 0  # the second: see `line`, the last: see `Batcher._in_turn`
        self.done = 0
        self.blocks: list[int] = []
        self.digests: list[bytes] = []

    @property
    def num_left(self) -> int:
        """How many tokens it has yet to read."""
        return len(self.ids) - self.done

    @property
    def num_missing(self) -> int:
        """How many blocks it needs beside those it has. Below 0 where it has some for guesses."""
        return -(-len(self.ids) // BLOCK_TOKENS) - len(self.blocks)

    @property
    def salt(self) -> bytes:
        """Keys and values of the same tokens differ from adapter to adapter."""
        return str(self.adapter).encode()

    def begin(self, done: int) -> None:
        """It is let in, with the blocks of its first `done` tokens, which need not be read."""
        self.done = done

    def begin_again(self) -> None:
        """Its blocks were taken away."""
        self.done = 0
        self.digests = []


class Answer(_Text):
    """A prompt and its continuation."""

    def __init__(
        self, ids: Sequence[int], sampler: Sampler, *, max_new_tokens: int, stop_ids: Sequence[int], lookup: Lookup,
        adapter: int | None = None, asker: str = "",
    ) -> None:  # fmt: skip
        super().__init__(ids, adapter=adapter, asker=asker)
        self.tokens = Tokens()
        self.num_prompt_tokens = len(ids)
        self._sampler = sampler
        self._end = len(ids) + max_new_tokens
        self._stop_ids = frozenset(stop_ids)
        self._lookup = lookup
        self._guess: list[int] = []
        self._reading = 0

    @property
    def cancelled(self) -> bool:
        return self.tokens.cancelled

    @property
    def is_one_token(self) -> bool:
        return self._end == self.num_prompt_tokens + 1

    def next_tokens(self, room: int, guess: int) -> tuple[list[int], int]:
        """The tokens of its next pass, at most `room` and `guess` of them guessed, and of how many of the last logits are wanted."""
        ids = self.ids[self.done : self.done + room]
        self._reading = len(ids)
        self._guess = []
        if self.done + len(ids) < len(self.ids):
            return ids, 0
        if len(ids) == 1:
            self._guess = self._lookup.guess(min(guess, room - 1, self._end - len(self.ids) - 1))
        return ids + self._guess, 1 + len(self._guess)

    def begin(self, done: int) -> None:
        super().begin(done)
        if self.tokens.num_kept is None:
            self.tokens.num_kept = done

    def take(self, logits_WV: Floats, hidden_TD: Floats) -> bool:
        """What the pass made of them; whether this text has ended. Counts them as done."""
        self.done += self._reading
        chosen: list[int] = []
        right = 0
        for at, logits_V in enumerate(logits_WV):
            pick = self._sampler.pick(logits_V)
            chosen.append(pick.token)
            self.tokens.ready.put(pick)
            if pick.token in self._stop_ids or len(self.ids) + len(chosen) >= self._end:
                self.tokens.ready.put(None)
                return True
            if at == len(self._guess) or pick.token != self._guess[at]:
                break
            right += 1
        self.ids += chosen
        self.done += right
        self._lookup.extend(chosen)
        if self._guess:
            self._lookup.learn(len(self._guess), right)
        return False

    def fail(self, error: BaseException) -> None:
        self.tokens.ready.put(error)


class Reading(_Text):
    """A text that is read from its beginning and not continued: for its embedding, or for the likelihoods of its tokens.

    `result` gives a vector of its last hidden states [D], see `pooling`, and for each token after the first a Pick if `top_logprobs`
    is not None. `goes_on`: whoever asks wants one token more, for which its logits are kept.
    """

    def __init__(
        self, ids: Sequence[int], *, top_logprobs: int | None = None, goes_on: bool = False, adapter: int | None = None,
        pooled: str = MEAN, asker: str = "",
    ) -> None:  # fmt: skip
        super().__init__(ids, adapter=adapter, asker=asker)
        self.result: Future[tuple[Floats, list[Pick]]] = Future()
        self._top, self._pooled = top_logprobs, pooled
        self.wants_each, self.goes_on = top_logprobs is not None, goes_on  # the first: of its tokens the logits
        self.begin_again()

    def begin_again(self) -> None:
        super().begin_again()
        self._vector_D: npt.NDArray[np.float64] | float = 0.0
        self._picks: list[Pick] = []

    @property
    def cancelled(self) -> bool:
        return self.result.cancelled()

    def next_tokens(self, room: int, guess: int) -> tuple[list[int], int]:
        ids = self.ids[self.done : self.done + room]
        return ids, 1 if self._top is None else len(ids)

    def take(self, logits_WV: Floats, hidden_TD: Floats) -> bool:
        if self._pooled == MEAN:
            self._vector_D = self._vector_D + hidden_TD.sum(axis=0, dtype=np.float64) / len(self.ids)
        elif self._pooled == LAST or self.done == 0:
            self._vector_D = hidden_TD[-1 if self._pooled == LAST else 0].astype(np.float64)
        if self._top is not None:
            following = self.ids[self.done + 1 : self.done + 1 + len(logits_WV)]
            self._picks += [with_log_probability(row, token, self._top) for row, token in zip(logits_WV, following, strict=False)]
        self.done += len(hidden_TD)
        if self.done < len(self.ids):
            return False
        if self.result.set_running_or_notify_cancel():
            self.result.set_result((np.asarray(self._vector_D, np.float32), self._picks))
        return True

    def fail(self, error: BaseException) -> None:
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)


Text = Answer | Reading
