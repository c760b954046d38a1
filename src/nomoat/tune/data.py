"""A user's file -> prompts and answers to learn from: a CSV or TSV with a text and a label, or chat JSONL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from nomoat import tasks, textfiles
from nomoat.errors import DataError, UsageError
from nomoat.records import Message, Role

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
CHAT_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A conversation, and the answer the model should learn to give. `line`: where it stands in the file, counted from 1."""

    messages: tuple[Message, ...]
    answer: str
    line: int


def read_lessons(
    path: Path, *, input_column: str | None = None, label_column: str | None = None, instruction: str | None = None
) -> list[Lesson]:
    """Every lesson of a file, in its order. Raises DataError with file and line, UsageError where a flag is missing."""
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        if input_column is None or label_column is None:
            missing = "--input-column" if input_column is None else "--label-column"
            raise UsageError(f"`{path.name}` is a table, and {missing} does not say which column to use", hint=_columns(path))
        rows = tasks.read_labelled(path, input_column=input_column, label_column=label_column)
        labels = sorted({row.label for row in rows})
        if len(labels) < 2:
            raise DataError(f"`{path}`: every row has the label `{labels[0]}`", hint="there is nothing to learn from one label")
        return [
            Lesson(messages=tasks.label_task_messages(row.text, labels, instruction=instruction), answer=row.label, line=row.line)
            for row in rows
        ]
    if suffix in CHAT_SUFFIXES:
        if input_column or label_column:
            raise UsageError("--input-column and --label-column are for tables", hint="chat JSONL needs neither")
        return _read_chats(path)
    raise UsageError(
        f"`{path.name}`: nomoat cannot tell what kind of file this is",
        hint=f"tables end in {', '.join(TABLE_SUFFIXES)}, conversations in {', '.join(CHAT_SUFFIXES)}",
    )


def _columns(path: Path) -> str:
    return f"its columns are: {', '.join(tasks.read_table(path)[0])}"


def _read_chats(path: Path) -> list[Lesson]:
    """OpenAI chat JSONL. A conversation with several answers gives a lesson for each, so that every assistant turn is learned."""
    lessons: list[Lesson] = []
    for line, value in textfiles.read_jsonl(path):
        found = _lessons_of(_messages(value, path, line), line)
        if not found:
            raise DataError(f"`{path}`, line {line}: no message of the assistant to learn from")
        lessons += found
    return lessons


def _messages(value: dict[str, Any], path: Path, line: int) -> list[Message]:
    rows = value.get("messages")
    if not isinstance(rows, list) or not rows:
        raise DataError(f"`{path}`, line {line}: no list of `messages`", hint='write {"messages": [{"role": ..., "content": ...}]}')
    messages = []
    for row in rows:
        role: Any = row.get("role") if isinstance(row, dict) else None
        content = row.get("content") if isinstance(row, dict) else None
        if role not in get_args(Role) or not isinstance(content, str):
            raise DataError(
                f"`{path}`, line {line}: a message has role {role!r} and content of type {type(content).__name__}",
                hint=f"roles are {', '.join(get_args(Role))}; the content is text",
            )
        messages.append(Message(role=role, content=content))
    return messages


def _lessons_of(messages: Sequence[Message], line: int) -> list[Lesson]:
    return [
        Lesson(messages=tuple(messages[:at]), answer=message.content, line=line)
        for at, message in enumerate(messages)
        if message.role == "assistant" and at > 0 and message.content.strip()
    ]
