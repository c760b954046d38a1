"""Answers, embeddings and likelihoods of many texts at once: one thread, one model, a pass at a time over whatever is waiting.

A pass holds the next token of each answer under way (with a guess of what may follow, see `lookup`) and as much of the prompts that
are waiting as fits. A text may join at any pass and leave at any pass. When the cache is full, the latest to come, of whoever has most
under way, gives its blocks back and begins again later: that costs time, and what is read anew may be rounded otherwise.

Somebody waits for an answer's first word, so answers go before texts that are only read, of which one request may bring hundreds.
These go on all the same, if slowly: see `Batcher._next` and `Batcher._plan`. Nor does somebody who asks for one thing wait for the
many of another, until theirs are read (`line`) or written (`Batcher._in_turn`).
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from nomoat import footprint, hardware
from nomoat.engine import KvCache, shutdown
from nomoat.engine.blocks import BLOCK_TOKENS, BlockPool
from nomoat.engine.line import Line
from nomoat.engine.native import NativeModel
from nomoat.engine.paged import PagedModel, Row
from nomoat.engine.serial import SerialModel
from nomoat.engine.texts import Answer, Floats, Reading, Text
from nomoat.errors import CacheExceededError, StoppedError

PASS_TOKENS = 2048  # tokens a pass may read, over all texts
PASS_TOKENS_BESIDE_ANSWERS = 512  # prompt tokens while others are writing, or another model is at work: bounds how long they wait
LIKELIHOOD_TOKENS = 256  # of a pass, over all texts, where logits of each token are wanted: bounds their memory
MAX_TEXTS = 256  # under way at once
TEXTS_BESIDE_OTHERS = 8  # answers of one asker in a pass while others ask, too: it takes little longer than with theirs alone
GUESSED_TOKENS = 16  # of a pass with guesses, over all answers: beside many of them a guess no longer comes nearly for free
SHORT_PROMPTS_PART = 2  # one token in so many of those for prompts is for the shortest, where a long one came first
READINGS_PART = 8  # one token in so many of a pass is for readings, where answers' prompts would take them all
PASSED_READING = 8  # answers in a row that are let in before a reading that waits
REMEMBERED_TEXTS = 32  # texts that were read last, the logits after which are kept: as many as end in a pass over short ones
CACHE_SHARE = 0.5  # of free memory, at most; the system gives it when it is first used

Model = NativeModel | PagedModel | SerialModel  # what runs rows of texts
_batchers: list[Batcher] = []  # of this process, which share its cores
_unfreed: list[Model] = []  # of those that came to their end after the process had begun to end


class Batcher:
    """The one thread that touches the model, from its making to its end."""

    def __init__(self, make: Callable[[], Model], *, context_tokens: int, cache_bytes: int | None = None) -> None:
        """`make` compiles the model; it is called in the thread, which keeps nothing of it, so that its owner can be freed.

        `cache_bytes`: what keys and values may take, see `_num_blocks`.
        """
        self._incoming: queue.SimpleQueue[Text | None] = queue.SimpleQueue()
        self._answers, self._readings = Line(), Line()  # those that wait
        self._running: list[Text] = []  # in the order in which they were let in
        self._num_passed = 0  # answers in a row that were let in before a reading that waits
        self._num_turns = 0  # taken by answers
        self._turned_away: tuple[Text, int] | None = None  # who found too few blocks, and how many were free for it
        self._after: dict[tuple[int | None, tuple[int, ...]], Floats] = {}  # logits [V] after the texts read last, by adapter
        self._closing, self._is_closed = threading.Lock(), False
        made: Future[None] = Future()
        told = ([make], made, context_tokens, cache_bytes)
        self._thread = threading.Thread(target=self._work, args=told, name="nomoat-engine", daemon=True)
        self._thread.start()
        try:
            made.result()
        except BaseException:  # Ctrl-C, too: nobody will close what nobody has
            self.end_soon()
            raise

    @property
    def kv_cache(self) -> KvCache | None:
        """See `Engine.kv_cache`; None where the model keeps keys and values itself."""
        if not self._block_bytes:
            return None
        return KvCache(used_bytes=self._pool.num_touched * self._block_bytes, max_bytes=self._pool.num_blocks * self._block_bytes)

    def submit(self, text: Text) -> None:
        """Begin with this text at the next pass."""
        with self._closing:
            if not self._is_closed:
                self._incoming.put(text)
                return
        text.fail(_closed())

    def close(self) -> None:
        """End the thread and free the memory. What is under way ends with an error."""
        with self._closing:
            self._is_closed = True
            self.end_soon()
        self._thread.join()

    def end_soon(self) -> None:
        """End the thread and free the memory, and do not wait for it: for wherever Python frees objects. Nobody may ask any more."""
        self._incoming.put(None)

    def _work(self, make: list[Callable[[], Model]], made: Future[None], context_tokens: int, cache_bytes: int | None) -> None:
        try:
            self._model = make.pop()()
            self._block_bytes = self._model.block_bytes
            self._pool = BlockPool(_num_blocks(self._model, context_tokens, cache_bytes))
            self._model.allocate(self._pool.num_blocks)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised where it was waited for
            made.set_exception(exc)
            return
        made.set_result(None)
        _batchers.append(self)
        try:
            while self._receive():
                try:
                    self._pass()
                    self._drop_cancelled()  # before what comes next, which is not behind what its asker no longer wants
                except BaseException as exc:  # noqa: BLE001 - a mistake of ours, or Rust's panic, must not leave anyone waiting for ever
                    self._fail_all(exc, also_waiting=not self._running)
        finally:
            _batchers.remove(self)
        self._fail_all(_closed(), also_waiting=True)
        try:
            with shutdown.waited_for():
                del self._model
        except RuntimeError:  # the process ends, in whose main thread the model is freed
            _unfreed.append(self._model)

    def _fail_all(self, error: BaseException, *, also_waiting: bool) -> None:
        for text in list(self._running):
            self._fail(text, error)
        while also_waiting and (line := self._answers or self._readings):
            line.popleft().fail(error)

    def _receive(self) -> bool:
        """Take in what has come; with nothing to do, wait for it. False when the end has come."""
        while not (self._running or self._answers or self._readings) or not self._incoming.empty():
            text = self._incoming.get()
            if text is None:
                return False
            if not text.cancelled and not self._ends_at_once(text):
                self._line_of(text).put(text)
        return True

    def _ends_at_once(self, text: Text) -> bool:
        """One token after a text whose likelihoods were told just now, as lm-evaluation-harness asks for both in one request.

        Who asks for the token alone does not get it from here: these logits are rounded otherwise, and the same request alone is to
        have the same answer.
        """
        if not isinstance(text, Answer) or not text.is_one_token:
            return False
        logits_V = self._after.pop((text.adapter, tuple(text.ids)), None)
        if logits_V is None:
            return False
        text.begin(len(text.ids))
        try:
            text.take(logits_V[None], logits_V[None, :0])
        except BaseException as exc:  # noqa: BLE001 - one request's failure is nobody else's
            text.fail(exc)
        return True

    def _line_of(self, text: Text) -> Line:
        return self._answers if isinstance(text, Answer) else self._readings

    def _drop_cancelled(self) -> None:
        for text in [text for text in self._running if text.cancelled]:
            self._leave(text)
        unread = [text for text in self._running if text.num_left > 1]
        for line in (self._answers, self._readings):
            line.drop_cancelled([text for text in unread if self._line_of(text) is line])

    def _pass(self) -> None:
        self._admit()
        planned = self._plan()
        if not planned:
            return
        rows = [row for _, row in planned]
        try:
            logits_WV, hidden_TD = self._model.run(rows)
        except BaseException as exc:  # noqa: BLE001 - those who wait had no part in this pass
            for text, _ in planned:
                self._fail(text, exc)
            return
        w = t = 0
        for text, row in planned:
            try:
                ended = text.take(logits_WV[w : w + row.wanted], hidden_TD[t : t + len(row.ids)])
            except BaseException as exc:  # noqa: BLE001 - one request's failure is nobody else's
                self._fail(text, exc)
            else:
                if self._is_kept(text):
                    self._pool.keep(text.blocks, text.digests, text.ids, text.done, text.salt)
                if ended:
                    self._leave(text)
                    self._remember(text, logits_WV[w : w + row.wanted])
            w, t = w + row.wanted, t + len(row.ids)

    def _remember(self, text: Text, logits_WV: Floats) -> None:
        if isinstance(text, Reading) and text.goes_on:
            self._after[text.adapter, tuple(text.ids)] = logits_WV[-1].copy()
            if len(self._after) > REMEMBERED_TEXTS:
                del self._after[next(iter(self._after))]

    def _is_kept(self, text: Text) -> bool:
        """Whether others may use its keys and values: an answer often follows its prompt's likelihoods, and nothing an embedding.

        A short prompt that fills a block is rounded otherwise than a longer one that begins with it; readings never are.
        """
        if isinstance(text, Answer):
            return not BLOCK_TOKENS <= text.num_prompt_tokens < self._model.alike_from
        return text.wants_each

    def _admit(self) -> None:
        """Let texts in while there are blocks for their prompts; the first one always, as nothing else is in its way.

        Blocks for what those under way have yet to read are not free: who came later would take them again and again, and a reading
        would never be done.
        One that is longer than the whole cache is refused before it is read. What is left to read of a prompt is never so little that
        it would be rounded otherwise than the whole: the same prompt alone gives the same answer, whether its beginning is kept from
        such a prompt or not. What is kept of an answer, or was read beside other texts, is rounded as it was then.
        """
        owed = sum(max(0, text.num_missing) for text in self._running)
        while len(self._running) < (MAX_TEXTS if self._model.takes_many else 1) and (text := self._next()) is not None:
            free = self._pool.num_free - owed
            if self._running and self._turned_away == (text, free):
                return
            if len(text.ids) > self._pool.num_blocks * BLOCK_TOKENS:
                self._line_of(text).popleft()
                text.fail(self._too_long(len(text.ids)))
                continue
            if isinstance(text, Answer) and self._model.takes_many:
                text.blocks, text.digests = self._pool.beginning(text.ids, text.salt, self._model.alike_from)
            if self._running and len(text.ids) // BLOCK_TOKENS + 1 - len(text.blocks) > self._pool.num_free - owed:
                self._pool.release(text.blocks)
                self._turned_away, text.digests = (text, free), []
                return
            self._line_of(text).popleft()
            self._num_passed = self._num_passed + 1 if isinstance(text, Answer) and self._readings else 0
            self._running.append(text)
            text.turn = self._num_turns  # behind those that are being written
            text.begin(len(text.blocks) * BLOCK_TOKENS + self._copied(text))
            owed += text.num_missing

    def _copied(self, text: Text) -> int:
        """How many tokens more need not be read: of a kept block whose last tokens have to be. The text gets a copy of it."""
        known = max(0, len(text.ids) - self._model.alike_from) - len(text.blocks) * BLOCK_TOKENS
        if not isinstance(text, Answer) or not isinstance(self._model, NativeModel) or not 0 < known < BLOCK_TOKENS:
            return 0
        block = self._pool.following(text.digests, text.ids, text.salt)
        if block is None or not self._pool.extend(text.blocks, len(text.blocks) * BLOCK_TOKENS + known):
            return 0
        self._model.copy_block(block, text.blocks[-1])
        return known

    def _next(self) -> Text | None:
        """Who is let in next: the first answer of those that wait, before all readings. None if nobody is.

        After `PASSED_READING` answers it is a reading, so that answers which never end coming do not shut it out. Readings are let in
        until those under way have enough for a pass: more would only take the places of answers that may come.
        """
        answer = self._answers[0] if self._answers else None
        if answer is not None and self._num_passed < PASSED_READING:
            return answer
        if _num_unread(self._running) >= PASS_TOKENS:
            return answer
        return self._readings[0] if self._readings else answer

    def _plan(self) -> list[tuple[Text, Row]]:
        """Who takes part in the next pass, and with what: answers being written, then answers' prompts, then readings.

        A long prompt does not hold up short ones behind it: half of what prompts may have is for those with the fewest tokens left.
        Readings have a part of it whatever the prompts need, so that prompts which never end coming do not stop them. They have no
        more beside prompts than beside answers being written: both wait for the whole pass. So do texts of other models, whose passes
        take turns with this one's (see `program`).
        """
        answers = [text for text in self._running if isinstance(text, Answer)]
        writing = [text for text in answers if text.num_left == 1]
        if len(writing) > TEXTS_BESIDE_OTHERS and len({text.asker for text in answers}) > 1:
            writing = self._in_turn(writing)
        prompts = self._answers.in_order([text for text in answers if text.num_left > 1])
        guess = max(0, GUESSED_TOKENS // len(writing) - 1) if writing and self._model.takes_many else 0
        several = len({text.asker for text in prompts}) > 1
        is_alone = not writing and not several and not any(other._running for other in _batchers if other is not self)
        room = min(PASS_TOKENS if is_alone else PASS_TOKENS_BESIDE_ANSWERS + len(writing), self._model.largest_pass)
        kept = min(room // READINGS_PART, _num_unread(self._running))
        planned: list[tuple[Text, Row]] = []
        room = self._add(planned, writing, room, guess=guess)
        room -= kept
        for_short = room // SHORT_PROMPTS_PART
        room -= for_short - self._add(planned, sorted(prompts[1:], key=lambda text: text.num_left), for_short)
        room = self._add(planned, prompts, room) + kept
        readings = self._readings.in_order([text for text in self._running if isinstance(text, Reading)])
        self._add(planned, readings, min(room, PASS_TOKENS_BESIDE_ANSWERS) if prompts else room)
        return planned

    def _in_turn(self, writing: list[Answer]) -> list[Answer]:
        """Those of the answers being written that take part in the next pass: a few of each asker, those that waited longest."""
        chosen, taken = [], Counter[str]()
        for text in sorted(writing, key=lambda text: text.turn):
            if taken[text.asker] < TEXTS_BESIDE_OTHERS:
                taken[text.asker] += 1
                self._num_turns += 1
                text.turn = self._num_turns
                chosen.append(text)
        return chosen

    def _add(self, planned: list[tuple[Text, Row]], texts: Sequence[Text], room: int, *, guess: int | None = None) -> int:
        """Plan the next tokens of these, but for those that have a plan, `room` at most; how many are left. `guess`: what each may add
        that is being written.
        """
        before, logits = {text for text, _ in planned}, LIKELIHOOD_TOKENS - sum(row.wanted for _, row in planned)
        for text in texts:
            if room <= 0 or text in before or text not in self._running:  # another's need of blocks may have thrown it out
                continue
            left = BLOCK_TOKENS * (len(text.blocks) + self._pool.num_free) - len(text.ids)  # no guess takes another's blocks
            part = 1 + (guess or 0)
            if guess is None:
                wants_each = isinstance(text, Reading) and text.wants_each
                part = self._part(text, max(0, min(room, logits)) if wants_each else room, may_wait=len(planned) > len(before))
            ids, wanted = text.next_tokens(part, min(guess or 0, left))
            if not ids or not self._make_room(text, text.done + len(ids), [kept for kept, _ in planned]):
                continue
            planned.append((text, Row(ids, text.done, text.blocks, wanted, text.adapter, isinstance(text, Reading))))
            room, logits = room - len(ids), logits - wanted
        return room

    def _part(self, text: Text, room: int, *, may_wait: bool) -> int:
        """How many of a text's tokens the next pass may read: so many, and leaving so many, as are computed alike. Where there is no
        room for that, none at all if it may wait; the first of its line may not.
        """
        left, least = text.num_left, self._model.alike_from
        if left <= room or left - room >= least <= room:
            return room
        if left - least >= least and room >= left - least:
            return left - least
        return 0 if may_wait else room

    def _make_room(self, text: Text, num_tokens: int, planned: list[Text]) -> bool:
        """Blocks for so many tokens, if need be those of the latest to come, of whoever has most under way. False: this text itself is
        that, and has to wait.

        Somebody goes on in each pass: the first of those under way waits for none but those that take part in it.
        """
        while not self._pool.extend(text.blocks, num_tokens):
            counts = Counter(other.asker for other in self._running)
            others = [other for other in reversed(self._running[1:]) if other not in planned]
            latest = max(others, key=lambda other: counts[other.asker], default=text)
            if latest is text:
                if len(self._running) == 1:
                    self._fail(text, self._too_long(max(num_tokens, len(text.ids))))
                return False
            self._leave(latest)
            latest.begin_again()
            self._line_of(latest).give_back(latest)
        return True

    def _too_long(self, num_tokens: int) -> CacheExceededError:
        room = self._pool.num_blocks * BLOCK_TOKENS
        needed = num_tokens * self._model.block_bytes / BLOCK_TOKENS / 1e9
        return CacheExceededError(
            f"a text of {num_tokens:,} tokens needs {needed:.1f} GB of memory beside the model, and there is room for {room:,} tokens",
            hint=f"shorten it, or {hardware.more_memory(hardware.memory_available_bytes())} and start again",
        )

    def _leave(self, text: Text) -> None:
        self._running.remove(text)
        self._pool.release(text.blocks)

    def _fail(self, text: Text, error: BaseException) -> None:
        self._leave(text)
        text.fail(error)


def _closed() -> StoppedError:
    return StoppedError("the model was closed while it was answering", hint="close it when all have their answers")


def _num_unread(texts: Sequence[Text]) -> int:
    """How many tokens the readings among these have yet to read together."""
    return sum(text.num_left for text in texts if isinstance(text, Reading))


def _num_blocks(model: Model, context_tokens: int, cache_bytes: int | None) -> int:
    """How many blocks the cache has: `footprint.CACHE_BYTES` or a whole context, as far as memory goes and `cache_bytes` allows, but a
    context of usual length always.

    Weights in a mapped file count as free memory, which they are not for long.
    """
    whole = -(-context_tokens // BLOCK_TOKENS) + 1
    if model.block_bytes == 0:
        return whole
    wanted = max(whole * model.block_bytes, footprint.CACHE_BYTES)
    free = hardware.memory_available_bytes().value - model.mapped_bytes
    allowed = int(max(0, min(free * CACHE_SHARE, wanted if cache_bytes is None else cache_bytes)))
    return max(min(wanted, allowed) // model.block_bytes, min(whole, footprint.USUAL_TOKENS // BLOCK_TOKENS + 1))
