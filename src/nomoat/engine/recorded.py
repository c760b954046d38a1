"""Published tables of how systems did on each question: one row a question, one column a system.

A folder of CSV files. The column `prompt` (or `task`) is the question, `NAME_response` a system's answer where it was kept, `metric`
how a row was scored; each other column is a system, known by its name after the last `/`, and holds True, False, or a score in 0..1.
What this does not cover: how long an answer took, and how many tokens it had.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nomoat.errors import DataError
from nomoat.tables import read_table

QUESTION_COLUMNS = ("prompt", "task")
ANSWER_SUFFIX = "_response"
SCORES = {"True": 1.0, "False": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRow:
    """One question with the score of each system, and with its answer where there is one. `id` is the file's stem and line."""

    id: str
    question: str
    category: str
    scores: Mapping[str, float]
    answers: Mapping[str, str]


def is_recorded(folder: Path) -> bool:
    """Whether a folder holds tables of this kind."""
    return any(folder.glob("*.csv"))


def read_recorded(folder: Path) -> list[RecordedRow]:
    """Every row, file by file. A category is the row's metric, or its file where there are several. Raises DataError."""
    paths = sorted(folder.glob("*.csv"))
    rows = []
    for path in paths:
        for number, row in enumerate(read_table(path), start=1):
            rows.append(_row(path, number, row, category=row.get("metric") or (path.stem if len(paths) > 1 else "")))
    if not rows:
        raise DataError(
            f"`{folder}` holds no recorded answers",
            hint="it needs CSV files with a column `prompt` (or `task`), and one for each system with True, False or a score in 0..1",
        )
    return rows


def _row(path: Path, number: int, row: dict[str, str], *, category: str) -> RecordedRow:
    question = next((row[name] for name in QUESTION_COLUMNS if row.get(name)), None)
    if question is None:
        raise DataError(f"`{path}`, row {number}: needs a `prompt` or a `task`", hint="write the question there, or remove the row")
    scores, answers = {}, {}
    columns: dict[str, str] = {}
    for column, value in row.items():
        name = column.rpartition("/")[2]
        if columns.setdefault(name, column) != column:
            raise DataError(
                f"`{path}`: the columns `{columns[name]}` and `{column}` are both called `{name}`", hint="rename or remove one of them"
            )
        if name.endswith(ANSWER_SUFFIX):
            answers[name.removesuffix(ANSWER_SUFFIX)] = value
        elif column not in (*QUESTION_COLUMNS, "metric"):
            scores[name] = _score(path, number, column, value)
    return RecordedRow(id=f"{path.stem}-{number}", question=question, category=category, scores=scores, answers=answers)


def _score(path: Path, number: int, column: str, value: str) -> float:
    try:
        score = SCORES[value] if value in SCORES else float(value)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise DataError(
            f"`{path}`, row {number}: `{column}` is {value!r}, and should be True, False or a score between 0 and 1",
            hint="correct it, or remove the column if it is no system's",
        )
    return score
