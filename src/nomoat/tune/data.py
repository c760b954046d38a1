"""A user's file, or rows in its place -> conversations to learn from: a table with a text and a label, or chats as OpenAI,
ShareGPT, Alpaca or TRL write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nomoat import conversations, labelling, tables, textfiles
from nomoat.conversations import CHAT_SUFFIXES, KEYS_OF_CHATS, Lesson, is_chat
from nomoat.errors import DataError, UsageError
from nomoat.rows import Rows, Source, unit_of, without_values
from nomoat.words import counted, listed

Format = Literal["table of texts and labels", conversations.Form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A file that was read, or rows, of which `path` keeps the name. `labels`: of a table, sorted; otherwise empty. `question`: a
    table's, see `labelling.kept_question`. `notes` say what was not read of conversations.
    """

    path: Source
    format: Format
    lessons: list[Lesson]
    labels: tuple[str, ...] = ()
    question: str | None = None
    notes: tuple[str, ...] = ()


def is_table(path: Source, input_column: str | None, label_column: str | None) -> bool:
    """By a file's suffix; of rows where a column is named, or the first is no conversation."""
    if isinstance(path, Rows):
        return not (input_column is None and label_column is None and is_chat(path.values[0]))
    return path.suffix.lower() in tables.TABLE_SUFFIXES


def read(
    path: Source, *, input_column: str | None = None, label_column: str | None = None, instruction: str | None = None,
    labels: Sequence[str] | None = None, is_learned: bool = True,
) -> Data:  # fmt: skip
    """Every lesson of a file or of rows, in their order; the format is told by a file's suffix, or named columns, and the first entry.

    `labels`: those the default instruction names, if not those of this file. `is_learned`: else what is asked there counts alone.
    Raises DataError with file and line, UsageError where a flag is missing or has no meaning.
    """
    if is_table(path, input_column, label_column):
        return _read_table(path, input_column, label_column, instruction, labels)
    if isinstance(path, Rows) or (suffix := path.suffix.lower()) in CHAT_SUFFIXES:
        if input_column or label_column:
            raise UsageError("an input column and a label column are for tables", hint="conversations need neither")
        if instruction is not None:
            hint = "write it into each conversation, as its `system` message"
            if isinstance(path, Rows):
                hint += "; or name both columns of a table (in Python: `input_column` and `label_column`)"
            raise UsageError("an instruction is for tables", hint=hint)
        chats = conversations.read(path)
        notes = chats.notes
        if is_learned:
            _require_no_reasoning(chats.lessons, path)
            notes += _of_beginnings(chats.lessons)
        return Data(path=without_values(path), format=chats.form, lessons=chats.lessons, notes=notes)
    table = "; rename it to .tsv if it is a table with tabs, as Excel's Unicode text is" if suffix == ".txt" else ""
    kinds = f"tables end in {', '.join(tables.TABLE_SUFFIXES)}, conversations in {', '.join(CHAT_SUFFIXES)}{table}"
    raise textfiles.of_unknown_kind(path, kinds)


def _require_no_reasoning(lessons: Sequence[Lesson], path: Source) -> None:
    """Raises DataError for reasoning that stands beside an answer to learn: where it belongs is the model's own."""
    said = "an answer of the assistant has its reasoning beside it"
    faults = [
        DataError(
            f"`{path}`, {lesson.where}: {said}, as `{name}`, which would not be learned",
            hint="write the reasoning at the beginning of the answer's text, as the model does (<think>...</think>), in place of "
            f"`{name}`; or leave it out, and the answer is learned without",
        )
        for lesson in lessons
        if (name := lesson.reasoning) is not None
    ]
    conversations.require_none(faults)


def _of_beginnings(lessons: Sequence[Lesson]) -> tuple[str, ...]:
    """What to say of answers that nothing is asked before, but for those that are marked as not learned."""
    count = sum(lesson.turns[0].role == "assistant" and 0 not in lesson.not_learned for lesson in lessons)
    begin = "begins" if count == 1 else "begin"
    said = f"{counted(count, 'conversation')} {begin} with an answer, which is read and not learned: nothing is asked before it"
    return (said,) if count else ()


def _read_table(
    path: Source, input_column: str | None, label_column: str | None, instruction: str | None, labels: Sequence[str] | None
) -> Data:
    or_else = f"for conversations, give each row {listed([f'`{key}`' for key in (*KEYS_OF_CHATS, 'prompt')], last='or')}"
    input_column, label_column = tables.require_columns(path, input_column, label_column, or_else=or_else)
    rows = tables.read_labelled(path, input_column=input_column, label_column=label_column)
    named = sorted({row.label for row in rows} if labels is None else labels)
    if len(named) < 2:
        raise DataError(f"`{path}`: every row has the label `{named[0]}`", hint="there is nothing to learn from one label")
    if instruction is None and len(named) > labelling.MAX_LABELS:
        raise DataError(
            f"`{path}`: there are {len(named):,} different labels, and the question can name {labelling.MAX_LABELS} at most",
            hint=f"if column `{label_column}` holds free answers, give an --instruction (in Python: `instruction`) "
            "that does not list the labels",
        )
    question = labelling.kept_question(named, instruction)
    same = {label: label for label in named}  # one text a label, not one a row
    unit = unit_of(path)
    lessons = [
        Lesson(where=f"{unit} {row.line}", text=row.text, label=same.get(row.label, row.label), question=question) for row in rows
    ]
    return Data(path=without_values(path), format="table of texts and labels", lessons=lessons, labels=tuple(named), question=question)
