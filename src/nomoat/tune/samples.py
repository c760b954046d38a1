"""Conversations in tokens: what is read, and which of it is learned. Batches of like length.

Shapes: B lessons of a batch, T tokens of the longest after the shared beginning.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nomoat import matching
from nomoat.conversations import Lesson
from nomoat.engine import templates
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import UnsupportedError
from nomoat.records import Message
from nomoat.tune import questions
from nomoat.tune.prompts import AlikePrompts

BATCH_TOKENS = 2048  # tokens computed in a step, about: long lessons make small batches
MOST_LOOKED_AT = 32  # lessons of a batch that is held out
WIDTH_STEP, WANTED_STEP = 4, 32
NOT_LEARNED = -1
Ids = npt.NDArray[np.int64]
Texts = tuple[str, str]  # a prompt and its answer
Turn = tuple[list[int], list[int], bytes]  # and what is asked before the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The tokens of a conversation, and the answers in them: (first token, one past the last), in order. Each ends its turn.

    `end`: the token that is learned as each answer's last, whatever stands there to be read by what follows; None: what stands there.
    `asked`: before each answer, see `questions.asked`. `lesson`: its place in its file. `digest` is the same for lessons with the same
    text, and for those that one conversation goes on from; `is_shared`: several do, each another way.
    """

    tokens: list[int] | array[int]
    answers: tuple[tuple[int, int], ...]
    end: int | None = None
    asked: tuple[bytes, ...] = ()
    lesson: str = ""
    digest: bytes = b""
    is_shared: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_learned(self) -> int:
        """Tokens with loss."""
        return sum(stop - start for start, stop in self.answers)

    def without(self, taught: Container[bytes]) -> Sample:
        """With the answers to these questions read alone."""
        left = [at for at, question in enumerate(self.asked) if question not in taught]
        if len(left) == len(self.asked):
            return self
        return replace(self, answers=tuple(self.answers[at] for at in left), asked=tuple(self.asked[at] for at in left))


def encode(lesson: Lesson, tokenizer: Tokenizer, context_tokens: int, alike: AlikePrompts | None = None) -> list[Sample]:
    """A lesson in tokens: one sample, or several where earlier answers are other tokens when they are read later on.

    `alike` cuts the prompts of lessons with one answer, which may begin as those of others do.
    Of one that is longer than `context_tokens` the last answer alone: each turn more takes longer to be written by a template; and
    nothing of one of which any prompt or answer is by itself so much longer that it need not be cut (`Tokenizer.is_beyond`).
    Raises UnsupportedError for a conversation and a model without chat template.
    """
    (samples,) = encode_many([lesson], tokenizer, context_tokens, alike)
    return samples


def encode_many(
    lessons: Sequence[Lesson], tokenizer: Tokenizer, context_tokens: int, alike: AlikePrompts | None = None
) -> list[list[Sample]]:
    """As `encode`, of each lesson in order: those with one answer are cut several at once, one a core."""
    if tokenizer.chat_template is None:
        raise UnsupportedError(
            "this model has no chat template, and every lesson, a table's too, is learned as a chat",
            hint="name the one to learn, and to answer with, by --template NAME (in Python: `template`): "
            + templates.choice(tokenizer.backend.token_to_id),
        )
    made, single = [list[Sample]() for _ in lessons], dict[int, tuple[str, str, bytes]]()
    for number, lesson in enumerate(lessons):
        messages = lesson.messages
        if lesson.alpaca_question is not None and tokenizer.chat_template == templates.ALPACA.text:
            messages = (*messages[:-2], Message(role="user", content=lesson.alpaca_question), messages[-1])
        asked = dict(questions.asked(lesson))
        *earlier, last = asked
        texts = _texts(messages, last, tokenizer)
        if any(tokenizer.is_beyond(text, context_tokens) for text in texts):
            continue
        if earlier:
            made[number] = _of_several(messages, texts, asked, tokenizer, context_tokens)
        else:
            single[number] = (*texts, asked[last])
    prompts = (alike or AlikePrompts(tokenizer)).cut([prompt for prompt, _, _ in single.values()])
    answers = list(dict.fromkeys(answer for _, answer, _ in single.values()))  # rows of a table share some labels
    ids_of = dict(zip(answers, tokenizer.encode_many(answers), strict=True))
    for (number, (_, answer, question)), ids in zip(single.items(), prompts, strict=True):
        made[number] = _as_served([(ids, ids_of[answer], question)], tokenizer.special.eos_id)
    return made


def _of_several(
    messages: Sequence[Message], texts: Texts, asked: Mapping[int, bytes], tokenizer: Tokenizer, context_tokens: int
) -> list[Sample]:
    """Of a conversation with several answers to learn, each of which is at a place in `asked`; `texts`: the last one's."""
    *earlier, last = asked
    known = dict[str, list[int]]()
    turn = _turn(texts, asked[last], tokenizer, known)
    earlier = earlier if sum(map(len, turn[:2])) < context_tokens else []
    before = {at: _texts(messages, at, tokenizer) for at in reversed(earlier)}
    if any(tokenizer.is_beyond(text, context_tokens) for text in itertools.chain.from_iterable(before.values())):
        return []  # as of an answer that the last prompt leaves out
    turns = (_turn(texts, asked[at], tokenizer, known) for at, texts in before.items())
    return _as_served(itertools.chain([turn], turns), tokenizer.special.eos_id)


def _texts(messages: Sequence[Message], at: int, tokenizer: Tokenizer) -> Texts:
    return tokenizer.render(messages[:at]), messages[at].content


def _turn(texts: Texts, asked: bytes, tokenizer: Tokenizer, known: dict[str, list[int]]) -> Turn:
    """`known`: see `Tokenizer.encode_prompts`."""
    prompt, answer = texts
    (ids,) = tokenizer.encode_prompts([prompt], known, add_bos=tokenizer.render_lacks_bos)
    return ids, next(tokenizer.encode_many([answer])), asked


def _as_served(turns: Iterable[Turn], end: int) -> list[Sample]:
    """As few rows as have, before each answer, the very tokens that the model is asked with when it is served.

    `turns`: the last one first. A row has the earlier turns as its last prompt writes them: an answer is learned there if it is the
    same tokens, and begins a row of its own else. What stands behind it, the template's own sign, is read and not learned.
    """
    rows, left = list[Sample](), iter(turns)
    while turn := next(left, None):
        prompt, answer, question = turn
        tokens = [*prompt, *answer, end]
        spans, asked, others = [(len(prompt), len(tokens))], [question], list[Turn]()
        for one in left:
            start, stop = len(one[0]), len(one[0]) + len(one[1]) + 1
            if stop <= spans[-1][0] and tokens[: stop - 1] == [*one[0], *one[1]]:
                spans.append((start, stop))
                asked.append(one[2])
            else:
                others.append(one)
        rows.append(Sample(tokens=tokens, answers=tuple(reversed(spans)), end=end, asked=tuple(reversed(asked))))
        left = iter(others)
    return rows[::-1]


def count_lessons(samples: Iterable[Sample]) -> int:
    """How many lessons of one file these are: a conversation may be several samples."""
    return len({sample.lesson for sample in samples})


def texts_of(samples: Iterable[Sample]) -> list[int]:
    """The number of each one's text, from 0 on."""
    places = dict[bytes, int]()
    return [places.setdefault(sample.digest, len(places)) for sample in samples]


def count_texts(samples: Iterable[Sample]) -> int:
    """The different texts that they are of."""
    return len({sample.digest for sample in samples})


def shared_prefix(samples: Sequence[Sample]) -> int:
    """How many tokens every sample begins with; at least one token before each first answer is left to be its own."""
    shared = matching.num_common(min(s.tokens for s in samples), max(s.tokens for s in samples))
    return max(0, min(shared, min(s.answers[0][0] for s in samples) - 1))


def batches_of(samples: Sequence[Sample], prefix: int, *, max_lessons: int) -> list[list[Sample]]:
    """The samples sorted by length, neighbours together: at most `max_lessons`, and BATCH_TOKENS computed tokens with padding."""
    batches: list[list[Sample]] = []
    for sample in sorted(samples, key=len):
        width = len(sample) - prefix  # of the whole batch, since it is the longest so far
        if not batches or len(batches[-1]) == max_lessons or width * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(sample)
    return batches


def drawn(samples: Iterable[Sample], seed: int) -> list[str]:
    """Their lessons, in an order drawn by `seed`: the first ones stand for the rest."""
    lessons = list(dict.fromkeys(sample.lesson for sample in samples))
    return random.Random(f"{seed}/held out").sample(lessons, len(lessons))


def computed_tokens(batch: Sequence[Sample], prefix: int) -> int:
    """What a step computes: the shared beginning, and all rows after it with their padding."""
    return prefix + len(batch) * (max(map(len, batch)) - prefix)


def side_by_side(batch: Sequence[Sample], prefix: int) -> tuple[Ids, Ids]:
    """Token ids after the prefix, padded at the end, and what each position should predict next, or NOT_LEARNED: both [B, T].

    T is that of `width_of`.
    """
    width = width_of(batch, prefix)
    ids, targets = np.zeros((len(batch), width), np.int64), np.full((len(batch), width), NOT_LEARNED)
    for row, sample in enumerate(batch):
        ids[row, : len(sample) - prefix] = sample.tokens[prefix:]
        for start, stop in sample.answers:
            targets[row, start - 1 - prefix : stop - 1 - prefix] = sample.tokens[start:stop]
            if sample.end is not None:
                targets[row, stop - 2 - prefix] = sample.end
    return ids, targets


def width_of(batch: Sequence[Sample], prefix: int) -> int:
    """A multiple of WIDTH_STEP: for each other T a step's products are compiled once more, and kept (by oneDNN)."""
    return -(-(max(map(len, batch)) - prefix) // WIDTH_STEP) * WIDTH_STEP


def wanted(targets_BT: Ids, *, evened: bool) -> npt.NDArray[np.bool_]:
    """The positions with a target; `evened`: and some without, so that their number is a multiple of WANTED_STEP, as T is."""
    found: npt.NDArray[np.bool_] = targets_BT != NOT_LEARNED
    if evened:
        found.flat[np.flatnonzero(~found)[: -int(found.sum()) % WANTED_STEP]] = True
    return found
