"""Answers that were given before and kept: asking again costs nothing, and nothing leaves the machine.

The folder has FastChat's layout: question.jsonl (question_id, text) and answer/answer_NAME.jsonl (question_id, text). Or it holds
tables of scores, and of answers where they were kept: see recorded.py.
What this does not cover: how long an answer took, and how many tokens it had, is not stored; both read as 0. Where several rows of
tables have one question, it is answered with the last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nomoat.engine import Engine
from nomoat.engine.recorded import is_recorded, read_recorded
from nomoat.errors import DataError, UnknownModelError, UnsupportedError, UsageError
from nomoat.records import Chunk, ContinuationScore, Request, Usage
from nomoat.textfiles import read_jsonl

ANSWER_PREFIX = "answer_"
DIGEST_BEGINS = "stored-"


class StoredEngine(Engine):
    """Answers a conversation of one user message with what was stored for its text. `name` is for error messages.

    In a `Responder` it stands in a duel for what a model of the caller's answered: see docs/python.md. Raises UsageError for an answer
    that is no text, such as a classifier's number.
    """

    is_local = True
    context_tokens: int | None = None

    def __init__(self, answers: Mapping[str, str], *, name: str) -> None:
        self._answers = dict(answers)
        self._name = name
        for text, answer in self._answers.items():
            if not isinstance(answer, str):
                raise UsageError(
                    f"the answer of `{name}` to {_shortened(str(text))} is of the type {type(answer).__name__}, not a text",
                    hint='give `str(answer)`, and "" where there is none',
                )
        content = json.dumps(self._answers, sort_keys=True).encode()
        self.digest: str = DIGEST_BEGINS + hashlib.sha256(content).hexdigest()

    def generate(self, request: Request) -> Iterator[Chunk]:
        if request.prompt_ids is not None:
            raise UnsupportedError(f"`{self._name}` holds answers to texts, and knows no token ids", hint="give text")
        if request.tools:
            raise UnsupportedError(f"`{self._name}` holds answers, and calls no functions", hint="leave out `tools`")
        if request.suffix:
            raise UnsupportedError(f"`{self._name}` holds answers, and fills in no middle of a text", hint="leave out `suffix`")
        asked = request.prompt if request.prompt is not None else request.messages[-1].content
        if len(request.messages) > 1 or asked not in self._answers:
            raise UnsupportedError(
                f"`{self._name}` has no answer to {_shortened(asked)}",
                hint=f"it holds {len(self._answers)} answers given before, and answers nothing else",
            )
        yield Chunk(
            text=self._answers[asked],
            finish_reason="stop",
            usage=Usage(prompt_tokens=0, completion_tokens=0, prefill_seconds=0.0, decode_seconds=0.0),
        )

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError(
            f"`{self._name}` holds answers, and no likelihoods", hint="ask a local model, or a suite whose answers are written"
        )

    def count_tokens(self, request: Request) -> int:
        raise UnsupportedError(f"`{self._name}` holds answers, and no tokenizer", hint="ask a local model")

    def close(self) -> None:
        """Nothing to free."""


def stored_names(folder: Path) -> list[str]:
    """The systems whose answers a folder holds."""
    if is_recorded(folder):
        return sorted(read_recorded(folder)[0].scores)
    return sorted(path.stem.removeprefix(ANSWER_PREFIX) for path in folder.glob(f"answer/{ANSWER_PREFIX}*.jsonl"))


def full_stored_name(suite: str, name: str, folder: Path) -> str:
    """The stored system that `name` means: its whole name, or a beginning that only one of them has.

    Raises UnknownModelError, naming those there are.
    """
    return _full_name(suite, name, stored_names(folder))


def _full_name(suite: str, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    meant = [candidate for candidate in known if name and candidate.casefold().startswith(name.casefold())]
    if len(meant) != 1:
        raise UnknownModelError(f"`stored:{suite}/{name}` is not among the stored answers", hint=f"stored are: {', '.join(known)}")
    return meant[0]


def stored_engine(suite: str, name: str, folder: Path) -> StoredEngine:
    """The engine behind `stored:SUITE/NAME`. Raises UnknownModelError, and DataError for a file that is not as it should be."""
    if is_recorded(folder):
        rows = read_recorded(folder)
        name = _full_name(suite, name, sorted(rows[0].scores))
        return StoredEngine(
            {row.question: row.answers.get(name, f"scored {row.scores[name]:g}") for row in rows}, name=f"stored:{suite}/{name}"
        )
    name = full_stored_name(suite, name, folder)
    answers = _texts(folder / "answer" / f"{ANSWER_PREFIX}{name}.jsonl")
    questions = _texts(folder / "question.jsonl")
    return StoredEngine(
        {text: answers[number] for number, text in questions.items() if number in answers}, name=f"stored:{suite}/{name}"
    )


def _texts(path: Path) -> dict[str, str]:
    """Text by question."""
    texts = {}
    for line, row in read_jsonl(path):
        if "question_id" not in row or not isinstance(row.get("text"), str):
            raise DataError(f"`{path}`, line {line}: needs a `question_id` and a `text`", hint="add them, or remove the line")
        texts[str(row["question_id"])] = row["text"]
    return texts


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return f"`{line if len(line) <= 60 else line[:59] + '…'}`"
