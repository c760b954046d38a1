"""Rows given in place of a file: a list of dicts, or a table of pandas, polars, pyarrow or Hugging Face's `datasets`.

They become what a file's readers make of a file, and so meet the same checks. None of those libraries is imported: a table is known
by what it offers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from nomoat import paths, textfiles
from nomoat.bounds import is_missing
from nomoat.errors import DataError, UsageError

AS_ROWS = 'give a list of dicts ([{"text": "…", "label": "…"}, …]), or a table of pandas, polars, pyarrow or datasets'
AS_TEXTS = (date, time, timedelta, Decimal)  # pandas' Timestamp is a date, too
# Floats that Python's own are wider than, as the libraries call them in small letters, and numpy's word for each.
NARROW = {"float16": "float16", "halffloat": "float16", "float32": "float32", "float": "float32"}
TIMES = ("M", "m")  # kinds of numpy's, of which `tolist` may make numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """`name` stands where messages and records name a file. `values` are JSON's, None where a row has nothing.

    `sha256`: of the JSONL file that they would be, a line `json.dumps(row, ensure_ascii=False)` each.
    """

    name: str
    values: tuple[dict[str, Any], ...] = field(repr=False)
    sha256: str

    def __str__(self) -> str:
        return self.name


Source = Path | Rows  # a file, or what was given in its place
Given = str | Path | Iterable[Any]  # how a caller names one, or gives rows: no library's types say that a data frame has them


def source(given: Given, name: str) -> Source:
    """The file that is named, or the rows that are given, which messages then call `name`. Raises what `taken` raises."""
    return textfiles.as_named(given) if isinstance(given, str | Path) else taken(given, name)


def taken(given: Iterable[Any], name: str) -> Rows:
    """The rows of what is given, gone through once; of several tables one after another's.

    Raises UsageError for what holds none, and DataError, naming the row, for what JSON cannot hold.
    """
    values, digest = list[dict[str, Any]](), hashlib.sha256()
    labels = _label_names(given)
    for number, row in enumerate(_rows_of(given, name), start=1):
        where = f"row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"`{name}`, {where}: it is of the type {type(row).__name__}, not a dict", hint=AS_ROWS)
        try:
            value = {_key(key): _named(_value(one, key), labels.get(key)) for key, one in row.items()}
            line = textfiles.utf8_json(value, name, where)
        except TypeError as exc:
            raise DataError(f"`{name}`, {where}: {exc}", hint="make it text, or leave that column out") from exc
        except (RecursionError, ValueError) as exc:  # ValueError: a number of more digits than Python writes
            raise DataError(f"`{name}`, {where}: it cannot be written as JSON: {exc}", hint="make it text, or leave it out") from exc
        digest.update(line + b"\n")
        values.append(value)
    if not values:
        raise DataError(f"`{name}` is empty", hint="give at least one row; an iterator gives its rows once")
    return Rows(name=name, values=tuple(values), sha256=digest.hexdigest())


def read_objects(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `textfiles.parse_jsonl`; of rows each with its number, counted from 1, and without what is None. Raises DataError."""
    if isinstance(source, Path):
        yield from textfiles.parse_jsonl(textfiles.read_text(source), source)
        return
    for number, row in enumerate(source.values, start=1):
        yield number, {key: value for key, value in row.items() if value is not None}


def unit_of(source: Source) -> str:
    """What the numbers count that messages name."""
    return "line" if isinstance(source, Path) else "row"


def sha256_of(source: Source) -> str:
    """Of a file's bytes, or of the JSONL file that rows would be."""
    return paths.sha256_of(source) if isinstance(source, Path) else source.sha256


def without_values(source: Source) -> Source:
    """What names it, and none of its texts."""
    return source if isinstance(source, Path) else replace(source, values=())


def _rows_of(given: Any, name: str) -> Iterable[Any]:
    """Raises UsageError for what holds no rows, and DataError for two columns of one name."""
    if (rows := _rows_of_table(given, name)) is not None:
        return rows
    if isinstance(given, Mapping):
        hint = f'{AS_ROWS}; of a DatasetDict a split: `data["train"]`'
        raise UsageError(f"rows are several dicts, and this is one {type(given).__name__}", hint=hint)
    if isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        kind = type(given).__name__
        said = f"data are named by a text or a path, or given as rows, and this is of the type {kind}"
        raise UsageError(said, hint=f'give "reviews.csv", or {AS_ROWS.removeprefix("give ")}')
    return _unwidened(_each(given, name), ((column, getattr(one, "dtype", "")) for column, one in _features(given).items()))


def _each(given: Iterable[Any], name: str) -> Iterator[Any]:
    """What is given row by row, or in tables, as readers give a large one and `datasets` one of another library's format."""
    for one in given:
        rows = None if isinstance(one, Mapping) else _rows_of_table(one, name)
        yield from (one,) if rows is None else rows


def _rows_of_table(given: Any, name: str) -> Iterable[Any] | None:
    """None for what is no table of these libraries. Raises DataError for two columns of one name."""
    if hasattr(given, "to_pylist"):  # pyarrow
        names = getattr(given, "column_names", ())
        require_different(name, names)
        return _unwidened(given.to_pylist(), zip(names, given.schema.types, strict=True) if names else ())
    if hasattr(given, "to_dicts"):  # polars
        return _unwidened(given.to_dicts(), given.schema.items())
    if hasattr(given, "to_dict") and hasattr(given, "columns"):  # pandas
        require_different(name, given.columns)
        return _unwidened(given.to_dict("records"), given.dtypes.items())
    return None


def _unwidened(rows: Iterable[Any], types: Iterable[tuple[Any, Any]]) -> Iterable[Any]:
    """The rows of a table with float16 and float32 where its columns are of them, in place of Python's own numbers. `types`: by the
    columns' names."""
    narrow = {column: word for column, kind in types if (word := NARROW.get(str(kind).lower().removesuffix("[pyarrow]")))}
    if not narrow:
        return rows
    import numpy as np

    return (
        {key: getattr(np, narrow[key])(one) if key in narrow and isinstance(one, float) else one for key, one in row.items()}
        for row in rows
    )


def require_different(name: Source | str, columns: Iterable[Any]) -> None:
    """Raises DataError for two columns of one name."""
    doubled = [column for column, times in Counter(columns).items() if times > 1]
    if doubled:
        raise DataError(f"`{name}` has more than one column `{doubled[0]}`", hint="give each column its own name")


def _label_names(given: Any) -> dict[str, Sequence[str]]:
    """Of each column in which `datasets` has numbers for labels."""
    return {column: one.names for column, one in _features(given).items() if hasattr(one, "int2str")}


def _features(given: Any) -> Mapping[str, Any]:
    """The types of columns as `datasets` has them; of what is none of its none."""
    features = getattr(given, "features", None)
    return features if isinstance(features, Mapping) else {}


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A label by name; the number -1 is none. What is no label's number, as a transform may make it, stays as it is."""
    if names is None or type(value) is not int or not -1 <= value < len(names):
        return value
    return None if value < 0 else names[value]


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"its key {key!r} is of the type {type(key).__name__}, not text")
    return str.__str__(key)


def _value(value: Any, column: str) -> Any:
    """As JSON has it. Raises TypeError for what it cannot hold."""
    if isinstance(value, Mapping):
        return {_key(key): _value(one, column) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_value(one, column) for one in value]
    dtype = getattr(value, "dtype", None)  # of what is numpy's, or made like it
    if dtype is not None and hasattr(value, "tolist") and getattr(dtype, "kind", "") not in TIMES:
        if getattr(dtype, "name", "") in NARROW.values():
            import numpy as np

            value = np.asanyarray(value).astype(str).astype(float)  # 0.1, of which `tolist` makes 0.10000000149011612
        plain = value.tolist()
        return _scalar(value, column) if type(plain) is type(value) else _value(plain, column)  # a longdouble's is itself
    return _scalar(value, column)


def _scalar(value: Any, column: str) -> str | float | None:
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration its value
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int.__int__(value)  # of an enumeration, too
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, AS_TEXTS):
        return str(value)
    raise TypeError(f"`{column}` holds an object of the type {type(value).__name__}")
