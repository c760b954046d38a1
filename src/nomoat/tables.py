"""Tables of the user's, CSV and TSV, and rows in their place: read with every mistake named.

What labelled texts are asked with is in `labelling.py`.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from nomoat import bounds
from nomoat.errors import DataError, UsageError
from nomoat.rows import Rows, Source, require_different, unit_of
from nomoat.textfiles import composed, read_text
from nomoat.words import counted, first_few, trimmed

Row = TypeVar("Row")

TAB_SUFFIXES = (".tsv", ".tab")
TABLE_SUFFIXES = (".csv", *TAB_SUFFIXES)
NAMED_LINES = 5  # of those where something is missing
LARGEST_FIELD = 2**31 - 1  # a C long where it is shortest
DELIMITERS = (",", ";", "\t")  # the first wins a tie
LOOKED_AT = 20  # rows that tell the separator
SAID = re.compile(r"(?i)sep=(.)(?=\r?\n)")  # a first line by which Excel is told it
IN_BRACES = re.compile(r"\{([^{}]+)\}")  # a column in a text of several
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # with its end
INPUT_NAMES = (  # of columns that hold what is asked
    "input", "text", "question", "prompt", "sentence", "document", "review", "message", "instruction", "query", "content", "q",
    "질문", "문장", "입력", "본문", "내용", "텍스트", "리뷰", "후기", "상품평", "댓글", "문의", "질의", "메시지", "메일", "민원",
    "요청",
)  # fmt: skip
QUESTIONS = ("question", "query", "q", "질문", "질의", "문의")  # of columns whose answer is what another calls so
PASSAGES = (  # of columns that hold what a question is about
    "context", "contexts", "passage", "document", "article", "문서", "지문", "문맥", "본문", "근거",
)  # fmt: skip
REPLY_NAMES = (
    "answer", "answers", "output", "response", "a", "답", "답변", "응답", "출력",
    "completion",  # beside another of these, it is what a model said
)  # fmt: skip
CLASS_NAMES = ("class", "sentiment", "category", "intent", "분류", "유형", "카테고리", "감정", "감성")
LABEL_NAMES = (  # of columns that hold the right answer; which of a reply and a class it is, only the user knows
    "label", "target", "gold", "reference", "expected", "ground_truth", "정답", "라벨", "레이블", *REPLY_NAMES, *CLASS_NAMES,
)  # fmt: skip
KOREAN_LABELS = tuple(name for name in LABEL_NAMES if not name.isascii())
Records = list[tuple[int, list[Any]]]  # the fields of each row, with the line it begins on


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """One row of a table of labelled text. `line` is where the row begins in its file, counted from 1; of rows the number."""

    text: str
    label: str
    line: int


def column_named(name: str, columns: Sequence[str]) -> str:
    """The column of that name in NFC; else the one that alone looks the same, of another width or spacing; else the name."""
    name = composed(name)
    alike = [column for column in columns if _plain_name(column) == _plain_name(name)]
    return alike[0] if name not in columns and len(alike) == 1 else name


@dataclass(frozen=True, slots=True)
class TextForm:
    """What the text of a row is made of: words and columns in turn, `"", "question", ""` where it is one column."""

    parts: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(self.parts[1::2]))

    def filled(self, cells: Mapping[str, str]) -> str:
        """The text of the row with those cells, without surrounding space."""
        pieces = [cells[part] if at % 2 else part for at, part in enumerate(self.parts)]
        return trimmed("".join(filter(None, pieces)))  # of one column its cell itself, and no copy


def text_form(input_column: str, columns: Sequence[str]) -> TextForm:
    """The column of that name; or those in braces where there is none and it is a text of several, as in `{context} {question}`.

    In such a text `\\n` is a line break, as people write it in a shell. What is not among the columns is left to the caller.
    """
    name = column_named(input_column, columns)
    pieces = IN_BRACES.split(name)
    if name in columns or len(pieces) == 1:
        return TextForm(("", name, ""))
    return TextForm(tuple(column_named(piece, columns) if at % 2 else piece.replace("\\n", "\n") for at, piece in enumerate(pieces)))


def _plain_name(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split())


def require_columns(path: Source, input_column: str | None, label_column: str | None, *, or_else: str = "") -> tuple[str, str]:
    """Both columns of a table. Raises UsageError, naming those there are, if one is not given; and for what is no name.

    `or_else`: what else its hint says of rows, which may be no table.
    """
    if input_column is None or label_column is None:
        which = "input" if input_column is None else "label"
        header, _ = _parse_table(path)
        raise UsageError(
            f"`{path.name}` is a table, and its {which} column is not named",
            hint=f"name it with --{which}-column (in Python: `{which}_column`); {its_columns(header)}"
            + (f"; or {or_else}" if isinstance(path, Rows) and or_else else ""),
        )
    for name, column in (("input_column", input_column), ("label_column", label_column)):
        bounds.require_text(column, f"`{name}`")
    return input_column, label_column


def read_labelled(path: Source, *, input_column: str, label_column: str) -> list[LabelledText]:
    """The rows of a CSV or TSV, or those given, with a text and a label each, both in NFC and without surrounding space.

    `input_column` is a column, or a text with columns in braces, see `text_form`, whose cells all have to be there.
    Raises DataError for whatever `read_table` refuses, a missing column (naming those there are), or an empty text or label (of rows
    also one that is a list or an object), and UsageError for one column that is named as both.
    """
    header, rows = _parse_table(path)
    form, label_column = text_form(input_column, header), column_named(label_column, header)
    require_there(path, (*form.columns, label_column), header)
    require_other(path, form, label_column, header)
    places = {column: header.index(column) for column in (*form.columns, label_column)}
    gaps: dict[str, list[int]] = {column: [] for column in places}
    labelled = []
    for line, row in taken_out(rows):
        cells = {column: _text(path, line, column, row[at]) for column, at in places.items()}
        for column in (column for column, cell in cells.items() if not cell):
            gaps[column].append(line)
        labelled.append(LabelledText(text=form.filled(cells), label=cells[label_column], line=line))
    require_no_gaps(path, gaps)
    return labelled


def _text(path: Source, line: int, column: str, value: Any) -> str:
    """A cell's text, of rows also what a CSV would have: `3`, `True`."""
    if isinstance(value, list | dict):
        raise DataError(
            f"`{path}`, {unit_of(path)} {line}: column `{column}` holds a {type(value).__name__}, not a text",
            hint="make it one text, or name another column",
        )
    return trimmed(composed("" if value is None else str(value)))


def require_there(path: Source, named: Sequence[str], columns: Sequence[str]) -> None:
    """Raises DataError, naming those there are, for the first that is not among the columns."""
    for column in named:
        if column not in columns:
            raise DataError(f"`{path}` has no column `{column}`", hint=its_columns(columns))


def require_other(path: Source, form: TextForm, label_column: str, columns: Sequence[str]) -> None:
    """Raises UsageError where the texts would be, or hold, their own labels."""
    if label_column in form.columns:
        raise UsageError(f"`{path}`: column `{label_column}` is named for the texts and for the labels", hint=its_columns(columns))


def require_no_gaps(path: Source, gaps: Mapping[str, Sequence[int]], *, what: str = "is empty") -> None:
    """Raises DataError, naming the first lines of each column where it is so and how many more there are, if there are any."""
    found = [f"{_lines_named(lines, unit_of(path))}: column `{column}` {what}" for column, lines in gaps.items() if lines]
    if found:
        several = sum(map(len, gaps.values())) > 1
        hint = "fill them in or remove the rows" if several else "fill it in or remove the row"
        raise DataError(f"`{path}`, {'; '.join(found)}", hint=hint)


def _lines_named(lines: Sequence[int], unit: str) -> str:
    return f"{unit}{'s' if len(lines) > 1 else ''} {first_few([str(line) for line in lines], NAMED_LINES)}"


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV or TSV with a header, by column name, all in NFC: macOS's spelling of a label is not a label of its own.

    Encodings are those of `textfiles.read_text`. A `.tsv` or `.tab` has tabs between its columns, any other file whichever of
    comma, semicolon and tab gives its first rows as many columns as the header, of several, or none, the one that gives the header
    most; what a first line for Excel says (`sep=;`) comes before both. Empty lines are skipped, and so are columns without a name and
    without a value in any row. Between tabs a quote may be only a quote, see `_records`; else one behind spaces may open a field.
    Raises DataError for a missing or empty file, other encodings, a broken quote, a row of the wrong length, doubled columns.
    """
    return [row for _, row in read_numbered_table(path)]


def read_numbered_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """As `read_table`, each row with the line it begins on."""
    header, rows = _parse_table(path)
    return [(line, dict(zip(header, row, strict=True))) for line, row in taken_out(rows)]


def taken_out(rows: list[Row]) -> Iterator[Row]:
    """Each row in turn, of which the list is emptied: a large table is not to be in memory beside what is made of it."""
    rows.reverse()
    while rows:
        yield rows.pop()


def its_columns(header: Sequence[str]) -> str:
    return f"its columns are: {', '.join(name or '(no name)' for name in header)}" if header else "it has no columns"


def _parse_table(path: Source) -> tuple[list[str], Records]:
    """Header, and each row with the line it begins on; rows' values are what JSON has, None for what is missing."""
    if isinstance(path, Rows):
        names = list(dict.fromkeys(name for row in path.values for name in row))
        return _header(path, names), [(number, [row.get(name) for name in names]) for number, row in enumerate(path.values, start=1)]
    text = composed(read_text(path))
    csv.field_size_limit(max(csv.field_size_limit(), min(len(text), LARGEST_FIELD)))  # Python's own is 131,072 characters
    records = _records(path, text) if text.strip() else []
    if not records:
        raise DataError(f"`{path}` is empty", hint="the first line names the columns, each further line is one row")
    (_, names), *rows = records
    if not rows:
        raise DataError(f"`{path}` has a header and no rows", hint="each line after the first is one row")
    for line, record in rows:
        if len(record) != len(names):
            raise DataError(
                f"`{path}`, line {line}: {counted(len(record), 'field')}, and the header has {len(names)}",
                hint="a field that holds the separator or a line break is put in double quotes",
            )
    names, rows = _without_empty_columns(names, rows)
    return _header(path, names), rows


def _without_empty_columns(names: list[str], rows: Records) -> tuple[list[str], Records]:
    """Without those that have neither a name nor a value in any row: spreadsheet programs write such ones at the end."""
    empty = {at for at, name in enumerate(names) if not name.strip() and not any(row[at].strip() for _, row in rows)}
    if not empty:
        return names, rows
    left = [at for at in range(len(names)) if at not in empty]
    return [names[at] for at in left], [(line, [row[at] for at in left]) for line, row in rows]


def _header(path: Source, names: Sequence[str]) -> list[str]:
    header = [composed(name).strip() for name in names]
    require_different(path, header)
    return header


def _records(path: Path, text: str) -> Records:
    """The header and the rows, without empty ones.

    Between tabs, as in NSMC's files, a quote is only a quote if so every line has as many fields as the header, and read as CSV some
    would not, or a row would be several lines.
    """
    said = SAID.match(text)
    text = text[said.end() :] if said else text  # the line stays, and is empty
    delimiter = said[1] if said else _delimiter(path, text)
    if delimiter != "\t":
        return _csv_records(path, text, delimiter)
    plain = [(line, row.rstrip("\r").split("\t")) for line, row in enumerate(text.split("\n"), start=1) if row.strip()]
    widths = _widths(plain)
    can_be_plain = len(plain) > 1 and len(widths) == 1 and widths != {1}  # in a single column every line has as many as the header
    try:
        records = list(_read_csv(path, text, delimiter))
    except DataError:
        if not can_be_plain:
            raise
        return plain
    spans_lines = any("\n" in field for _, record in records for field in record)
    return plain if can_be_plain and (spans_lines or _widths(records) != widths) else records


def _csv_records(path: Path, text: str, delimiter: str) -> Records:
    """Behind spaces (`one, "two"`), as people write tables, a quote opens a field, too: but not where each row has as many fields as
    the header without that, and would not with it, or would be one with another. Raises DataError for a broken quote.
    """
    records = list(_read_csv(path, text, delimiter))
    if not any(field[:1] == " " and field.lstrip(" ")[:1] == '"' for _, record in records for field in record):
        return records
    try:
        others = list(_read_csv(path, text, delimiter, skips_spaces=True))
    except DataError:
        return records
    widths = _widths(records)
    return records if len(widths) == 1 and (len(others) != len(records) or _widths(others) != widths) else others


def _read_csv(path: Path, text: str, delimiter: str, *, skips_spaces: bool = False) -> Iterator[tuple[int, list[Any]]]:
    """The records that are not empty, each with the line it begins on. Raises DataError for a broken quote."""
    lines = (line[0] for line in LINE.finditer(text))  # in a StringIO each letter would take four bytes
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=skips_spaces, strict=True)
    begins = 1
    try:
        for record in reader:
            if any(field.strip() for field in record):
                yield begins, record
            begins = reader.line_num + 1
    except csv.Error as exc:
        raise DataError(
            f"`{path}`, line {begins}: {exc}", hint='a quote inside a quoted field is written twice: "she said ""no"""'
        ) from exc


def _widths(records: Records) -> set[int]:
    return {len(record) for _, record in records}


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() in TAB_SUFFIXES:
        return "\t"

    def fit(delimiter: str) -> tuple[bool, int]:
        """Whether it gives the first rows the header's columns, two or more; and how many the header has."""
        rows, is_broken = list[tuple[int, list[Any]]](), True
        with suppress(DataError):
            rows.extend(islice(_read_csv(path, text, delimiter), LOOKED_AT))
            is_broken = False
        columns = len(rows[0][1]) if rows else 1
        return not is_broken and columns > 1 and len(_widths(rows)) == 1, columns

    return max(DELIMITERS, key=fit)
