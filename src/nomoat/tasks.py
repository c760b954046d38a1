"""Labelled text: how a table of it is read, and the one prompt it becomes.

`tune` learns on this prompt and `judge` asks with it, so that base and tuned model see the same words.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat import bounds
from nomoat.errors import DataError, UsageError
from nomoat.records import Message
from nomoat.textfiles import column_named, composed, read_text
from nomoat.words import first_few

TAB_SUFFIXES = (".tsv", ".tab")
TABLE_SUFFIXES = (".csv", *TAB_SUFFIXES)
MAX_LABELS = 256  # in an instruction that lists them, and to choose from; more than this is hardly a label column
TEXT = "{text}"  # where the text stands in a question as it is kept
NAMED_LINES = 5  # of those where something is missing
LARGEST_FIELD = 2**31 - 1  # a C long where it is shortest
DELIMITERS = (",", ";", "\t")  # the first wins a tie
SAID = re.compile(r"(?i)sep=(.)(?=\r?\n)")  # a first line by which Excel is told it
Records = list[tuple[int, list[str]]]  # the fields of each row, with the line it begins on


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """One row of a table of labelled text. `line` is where the row begins in its file, counted from 1."""

    text: str
    label: str
    line: int


def label_instruction(labels: Sequence[str]) -> str:
    """The instruction used where the user gives none; the same whatever the order of `labels`."""
    return f"Classify the text. Answer with one of: {', '.join(sorted(set(labels)))}."


def label_task_messages(text: str, labels: Sequence[str], *, instruction: str | None = None) -> tuple[Message, ...]:
    """The conversation that asks for the label of `text`; the answer is a label and nothing else.

    `instruction` is used word for word instead of the default one, which names the labels.
    """
    first = label_instruction(labels) if instruction is None else instruction
    bounds.require_text(first, "`instruction`")
    return (Message(role="user", content=f"{first}\n\nText: {text}\nLabel:"),)


def kept_question(instruction: str) -> str:
    """What `label_task_messages` asks, with `TEXT` in the text's place: as `tune` keeps it beside what was learned."""
    return label_task_messages(TEXT, (), instruction=instruction)[0].content


def put_question(question: str, text: str) -> str:
    """A kept question about a text, which becomes what a table's would: in NFC and without surrounding space."""
    before, after = _around_text(question)
    return f"{before}{composed(text).strip()}{after}"


def is_put(question: str, asked: str) -> bool:
    """Whether what is asked is a kept question about some text, whatever stands around it, as a chat template's words do."""
    before, after = _around_text(question)
    begins = asked.find(before)
    return begins >= 0 and asked.find(after, begins + len(before)) >= 0


def _around_text(question: str) -> tuple[str, str]:
    before, _, after = question.rpartition(TEXT)  # the last: an instruction may hold one of its own
    return before, after


def require_columns(path: Path, input_column: str | None, label_column: str | None) -> tuple[str, str]:
    """Both columns of a table. Raises UsageError, naming those there are, if one is not given; and for what is no name."""
    if input_column is None or label_column is None:
        which = "input" if input_column is None else "label"
        header, _ = _parse_table(path)
        raise UsageError(
            f"`{path.name}` is a table, and its {which} column is not named",
            hint=f"name it with --{which}-column (in Python: `{which}_column`); {_columns(header)}",
        )
    for name, column in (("input_column", input_column), ("label_column", label_column)):
        bounds.require_text(column, f"`{name}`")
    return input_column, label_column


def read_labelled(path: Path, *, input_column: str, label_column: str) -> list[LabelledText]:
    """The rows of a CSV or TSV with a text and a label each, both in NFC and without surrounding space.

    Raises DataError for whatever `read_table` refuses, a missing column (naming those there are), or an empty text or label, and
    UsageError for one column that is named as both.
    """
    header, rows = _parse_table(path)
    input_column, label_column = column_named(input_column, header), column_named(label_column, header)
    for column in (input_column, label_column):
        if column not in header:
            raise DataError(f"`{path}` has no column `{column}`", hint=_columns(header))
    require_other(path, input_column, label_column, header)
    labelled = []
    for line, row in rows:
        values = dict(zip(header, row, strict=True))
        labelled.append(LabelledText(text=values[input_column].strip(), label=values[label_column].strip(), line=line))
    empty_texts, empty_labels = [row.line for row in labelled if not row.text], [row.line for row in labelled if not row.label]
    require_no_gaps(path, {input_column: empty_texts, label_column: empty_labels})
    return labelled


def require_other(path: Path, input_column: str, label_column: str, columns: Sequence[str]) -> None:
    """Raises UsageError where the texts would be their own labels."""
    if input_column == label_column:
        raise UsageError(f"`{path}`: column `{input_column}` is named for the texts and for the labels", hint=_columns(columns))


def require_no_gaps(path: Path, gaps: Mapping[str, Sequence[int]], *, what: str = "is empty") -> None:
    """Raises DataError, naming the first lines of each column where it is so and how many more there are, if there are any."""
    found = [f"{_lines_named(lines)}: column `{column}` {what}" for column, lines in gaps.items() if lines]
    if found:
        several = sum(map(len, gaps.values())) > 1
        hint = "fill them in or remove the rows" if several else "fill it in or remove the row"
        raise DataError(f"`{path}`, {'; '.join(found)}", hint=hint)


def _lines_named(lines: Sequence[int]) -> str:
    return f"line{'s' if len(lines) > 1 else ''} {first_few([str(line) for line in lines], NAMED_LINES)}"


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or TSV with a header, by column name, all in NFC: macOS's spelling of a label is not a label of its own.

    Encodings are those of `textfiles.read_text`. A `.tsv` or `.tab` has tabs between its columns, any other file whichever of
    comma, semicolon and tab gives the header most columns; what a first line for Excel says (`sep=;`) comes before both. Empty lines
    are skipped. Between tabs a quote may be only a quote: see `_records`.
    Raises DataError for a missing or empty file, other encodings, a broken quote, a row of the wrong length, doubled columns.
    """
    return [row for _, row in read_numbered_table(path)]


def read_numbered_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """As `read_table`, each row with the line it begins on."""
    header, rows = _parse_table(path)
    return [(line, dict(zip(header, row, strict=True))) for line, row in rows]


def _columns(header: Sequence[str]) -> str:
    return f"its columns are: {', '.join(name or '(no name)' for name in header)}"


def _parse_table(path: Path) -> tuple[list[str], Records]:
    """Header, and each row with the line it begins on."""
    text = composed(read_text(path))
    csv.field_size_limit(max(csv.field_size_limit(), min(len(text), LARGEST_FIELD)))  # Python's own is 131,072 characters
    records = _records(path, text) if text.strip() else []
    if not records:
        raise DataError(f"`{path}` is empty", hint="the first line names the columns, each further line is one row")
    header = [name.strip() for name in records[0][1]]
    doubled = [name for name, times in Counter(header).items() if times > 1]
    if doubled:
        raise DataError(f"`{path}` has more than one column `{doubled[0]}`", hint="give each column its own name")
    if len(records) == 1:
        raise DataError(f"`{path}` has a header and no rows", hint="each line after the first is one row")
    for line, record in records[1:]:
        if len(record) != len(header):
            raise DataError(
                f"`{path}`, line {line}: {len(record)} fields, and the header has {len(header)}",
                hint="a field that holds the separator or a line break is put in double quotes",
            )
    return header, records[1:]


def _records(path: Path, text: str) -> Records:
    """The header and the rows, without empty ones.

    Between tabs, as in NSMC's files, a quote is only a quote if so every line has as many fields as the header, and read as CSV some
    would not, or a row would be several lines.
    """
    said = SAID.match(text)
    text = text[said.end() :] if said else text  # the line stays, and is empty
    delimiter = said[1] if said else _delimiter(path, text)
    plain = [(line, row.rstrip("\r").split("\t")) for line, row in enumerate(text.split("\n"), start=1) if row.strip()]
    widths = _widths(plain)
    # In a single column every line has as many fields as the header.
    can_be_plain = delimiter == "\t" and len(plain) > 1 and len(widths) == 1 and widths != {1}
    try:
        records = _csv_records(path, text, delimiter)
    except DataError:
        if not can_be_plain:
            raise
        return plain
    spans_lines = any("\n" in field for _, record in records for field in record)
    return plain if can_be_plain and (spans_lines or _widths(records) != widths) else records


def _csv_records(path: Path, text: str, delimiter: str) -> Records:
    """Raises DataError for a broken quote."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records: Records = []
    begins = 1
    try:
        for record in reader:
            if any(field.strip() for field in record):
                records.append((begins, record))
            begins = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(
            f"`{path}`, line {begins}: {exc}", hint='a quote inside a quoted field is written twice: "she said ""no"""'
        ) from exc
    return records


def _widths(records: Records) -> set[int]:
    return {len(record) for _, record in records}


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() in TAB_SUFFIXES:
        return "\t"
    header = text.lstrip().splitlines()[0]
    return max(DELIMITERS, key=header.count)
