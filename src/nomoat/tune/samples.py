"""Conversations in tokens: what is read, and which of it is learned. Batches of like length.

Shapes: B lessons of a batch, T tokens of the longest after the shared beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nomoat import matching
from nomoat.engine import templates
from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import UnsupportedError
from nomoat.records import Message
from nomoat.tune.data import Lesson

BATCH_TOKENS = 2048  # tokens computed in a step, about: long lessons make small batches
WIDTH_STEP, WANTED_STEP = 4, 32
NOT_LEARNED = -1
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The tokens of a conversation, and the answers in them: (first token, one past the last), in order. Each ends its turn.

    `lesson`: its place in its file. `digest` is the same for lessons with the same text.
    """

    tokens: list[int]
    answers: tuple[tuple[int, int], ...]
    lesson: str = ""
    digest: bytes = b""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_learned(self) -> int:
        """Tokens with loss."""
        return sum(stop - start for start, stop in self.answers)


def encode(lesson: Lesson, tokenizer: Tokenizer) -> list[Sample]:
    """A lesson in tokens: one sample, or one for each answer where the chat template writes earlier turns differently later on.

    Raises UnsupportedError for a conversation and a model without chat template.
    """
    if tokenizer.chat_template is None:
        raise UnsupportedError(
            "this model has no chat template, and these lessons are conversations",
            hint="name the one to learn, and to answer with, by --template NAME (in Python: `template`): one of "
            + ", ".join(templates.NAMED),
        )
    messages = lesson.messages
    if lesson.alpaca_question is not None and tokenizer.chat_template == templates.ALPACA.text:
        messages = (*messages[:-2], Message(role="user", content=lesson.alpaca_question), messages[-1])
    prompts = [tokenizer.render(messages[:at]) for at in lesson.learned]
    answers = [messages[at].content for at in lesson.learned]
    joined = _joined(prompts, answers, tokenizer) if len(answers) > 1 else None
    if joined is not None:
        return [joined]
    ids = [tokenizer.encode(prompt, add_bos=tokenizer.render_lacks_bos) for prompt in prompts]
    return [_sample(prompt, tokenizer.encode(answer), tokenizer) for prompt, answer in zip(ids, answers, strict=True)]


def _sample(prompt: list[int], answer: list[int], tokenizer: Tokenizer) -> Sample:
    tokens = [*prompt, *answer, tokenizer.special.eos_id]
    return Sample(tokens=tokens, answers=((len(prompt), len(tokens)),))


def _joined(prompts: Sequence[str], answers: Sequence[str], tokenizer: Tokenizer) -> Sample | None:
    """All turns in one row, if each prompt begins with the one before and its answer."""
    end = str(tokenizer.backend.id_to_token(tokenizer.special.eos_id))
    tokens, spans, before = list[int](), list[tuple[int, int]](), ""
    for prompt, answer in zip(prompts, answers, strict=True):
        if not prompt.startswith(before):
            return None
        between = prompt[len(before) :]
        if spans:
            if not between.startswith(end):
                return None
            between = between.removeprefix(end)
        tokens += tokenizer.encode(between, add_bos=tokenizer.render_lacks_bos and not spans)
        start = len(tokens)
        tokens += [*tokenizer.encode(answer), tokenizer.special.eos_id]
        spans.append((start, len(tokens)))
        before = prompt + answer
    return Sample(tokens=tokens, answers=tuple(spans))


def count_lessons(samples: Iterable[Sample]) -> int:
    """How many lessons of one file these are: a conversation may be several samples."""
    return len({sample.lesson for sample in samples})


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
