"""Texts of the user's with all that stands beside them, and the tables they become: the labelled ones, and those left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nomoat import tables, textfiles
from nomoat.distil.label import CUT_OFF, Label, Labelled
from nomoat.errors import DataError, UsageError
from nomoat.words import is_blank, trimmed

LINES_SUFFIXES = (".txt", ".text")
KINDS = (  # what they are called where none of them ends a name
    f"tables end in {', '.join((*tables.TABLE_SUFFIXES, *textfiles.JSONL_SUFFIXES))}, "
    f"files of a text a line in {', '.join(LINES_SUFFIXES)}"
)
AS_TSV = "a table between tabs, as Excel's `Unicode Text` is: name it .tsv"

Row = Mapping[str, str]
Table = tuple[list[str], list[Row]]  # the columns, and the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The rows of a file, and the text each is asked about with: in NFC, without surrounding space, empty where there is none."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    of_rows: tuple[str, ...]

    @property
    def asked(self) -> list[str]:
        """The texts there are, in their order."""
        return [text for text in self.of_rows if text]


def read_texts(path: Path, *, input_column: str | None = None) -> Texts:
    """The texts of a table's column, of the objects of a JSONL file, or the lines of a text file, where empty ones are no rows.

    Raises DataError, and UsageError where it is not said which column, the lines are a table's, or the file is none of these.
    """
    suffix = path.suffix.lower()
    if suffix in LINES_SUFFIXES:
        rows = _read_lines(path, input_column)
    elif suffix in tables.TABLE_SUFFIXES:
        rows = tables.read_table(path)
    elif suffix in textfiles.JSONL_SUFFIXES:
        rows = _read_objects(path, input_column)
    else:
        raise textfiles.of_unknown_kind(path, KINDS)
    columns = _columns(rows)
    form = _asked_form(input_column, columns)
    if form is None and columns:
        hint = f"name the column of the texts with --input-column (in Python: `input_column`): it is one of {', '.join(columns)}"
        raise UsageError(f"`{path.name}`: it has several columns", hint=hint)
    tables.require_there(path, form.columns if form and rows else (), columns)
    found = Texts(columns=columns, rows=tuple(rows), of_rows=tuple(_text_of(row, form) for row in rows))
    if not found.asked:
        raise DataError(f"`{path}` holds no text", hint="fill it in, or name another file or column")
    return found


def labelled_table(texts: Texts, found: Labelled) -> Table:
    """The rows that have a label, with it and, where there is one, its confidence; all their columns stay."""
    name, confidence = _free("label", texts.columns), _free("confidence", texts.columns)
    has_confidence = any(one.confidence is not None for one in found.labels)
    rows: list[Row] = []
    for row, one in zip(texts.rows, found.results, strict=True):
        if isinstance(one, Label):
            shown = {} if one.confidence is None else {confidence: f"{one.confidence:.4f}"}
            rows.append({**row, name: one.label, **shown})
    return [*texts.columns, name, *([confidence] if has_confidence else [])], rows


def left_out_table(texts: Texts, found: Labelled) -> Table:
    """The rows that have no label, with all their columns, why they have none, and what the teacher answered, as no formula."""
    why, answer = _free("why", texts.columns), _free("answer", texts.columns)
    rows: list[Row] = []
    for row, one in zip(texts.rows, found.results, strict=True):
        if not isinstance(one, Label):
            at = f" at {found.max_tokens:,} tokens" if one.why == CUT_OFF else ""
            rows.append({**row, why: f"{one.why}{at}", answer: _no_formula(one.answer)})
    return [*texts.columns, why, answer], rows


def _no_formula(text: str) -> str:
    """What others wrote, such that a spreadsheet shows it and computes nothing. Source: OWASP, "CSV Injection"."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _free(name: str, columns: Sequence[str]) -> str:
    """The name of a new column: `teacher_label` where the file has a column `label` of its own."""
    while name in columns:
        name = f"teacher_{name}"
    return name


def _read_lines(path: Path, input_column: str | None) -> list[dict[str, str]]:
    """The lines of a text file as rows of a text each, without empty ones. Raises UsageError where they are rows of a table."""
    lines = [line.removesuffix("\r") for line in textfiles.composed(textfiles.read_text(path)).split("\n") if not is_blank(line)]
    num_tabs = [line.count("\t") for line in lines]
    has_tabs = bool(lines) and num_tabs[0] > 0
    if input_column is not None:
        hint = "leave out --input-column (in Python: `input_column`)"
        raise UsageError(f"`{path.name}` has no columns: each line is a text", hint=f"{AS_TSV}; else {hint}" if has_tabs else hint)
    if has_tabs and len(lines) > 1 and len(set(num_tabs)) == 1:
        raise UsageError(
            f"`{path.name}`: all its lines have as many tabs, and each would be one text",
            hint=f"{AS_TSV}; else put spaces in place of the tabs",
        )
    return [{"text": line} for line in lines]


def _read_objects(path: Path, input_column: str | None) -> list[dict[str, str]]:
    """The objects of a JSONL file as rows of text: what is no text stands there as JSON. Raises DataError where the text is none."""
    objects = [(line, {textfiles.composed(name): one for name, one in value.items()}) for line, value in textfiles.read_jsonl(path)]
    form = _asked_form(input_column, _columns([given for _line, given in objects]))
    for line, given in objects:
        for column in form.columns if form else ():
            if not isinstance(given.get(column), str | None):
                raise DataError(f"`{path}`, line {line}: `{column}` is no text", hint="write it in quotes, or name another column")
    return [{name: _cell(one) for name, one in given.items()} for _line, given in objects]


def _columns(rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The names in any of them, in their order."""
    return tuple(dict.fromkeys(name for row in rows for name in row))


def _asked_form(named: str | None, columns: Sequence[str]) -> tables.TextForm | None:
    """What the texts are made of: what is named, else the only column."""
    if named is None and len(columns) == 1:
        named = columns[0]
    return None if named is None else tables.text_form(named, columns)


def _text_of(row: Row, form: tables.TextForm | None) -> str:
    """Empty where a column of it is."""
    cells = {column: trimmed(row.get(column, "")) for column in form.columns} if form else {}
    return form.filled(cells) if form and all(cells.values()) else ""


def _cell(value: object) -> str:
    if value is None:
        return ""
    return textfiles.composed(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
