"""Rows in place of a file: what becomes of a list of dicts and of each library's table, and what is refused."""

from __future__ import annotations

import csv
import datetime
import decimal
import enum
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nomoat import paths
from nomoat.errors import DataError, NomoatError, UsageError
from nomoat.rows import AS_ROWS, read_objects, sha256_of, source, taken

ROWS: list[dict[str, Any]] = [{"text": "좋아요", "label": "good"}, {"text": "It broke.", "label": None}]


class Pandas:
    """A data frame as pandas has it: who iterates over it gets the names of its columns."""

    def __init__(self, rows: list[dict[Any, Any]], columns: list[Any] | None = None) -> None:
        self.rows, self.columns = rows, list(rows[0]) if columns is None else columns
        self.dtypes = dict.fromkeys(self.columns, np.dtype(object))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.columns)

    def to_dict(self, orient: str = "dict") -> list[dict[Any, Any]]:
        assert orient == "records"
        return [{key: float("nan") if value is None else value for key, value in row.items()} for row in self.rows]


class Polars:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.columns = rows, list(rows[0])
        self.schema = dict.fromkeys(self.columns, "String")

    def __iter__(self) -> Iterator[Any]:  # over its columns, without their names
        return iter([[row[name] for row in self.rows] for name in self.columns])

    def to_dict(self, *, as_series: bool = True) -> dict[str, Any]:
        return {name: [row[name] for row in self.rows] for name in self.columns}

    def to_dicts(self) -> list[dict[str, Any]]:
        return self.rows


class Arrow:
    def __init__(self, rows: list[dict[str, Any]], column_names: list[str] | None = None) -> None:
        self.rows, self.column_names = rows, column_names or list(rows[0])
        self.columns = [[row[name] for row in rows] for name in rows[0]]
        self.schema = SimpleNamespace(types=["string"] * len(self.column_names))

    def to_pylist(self) -> list[dict[str, Any]]:
        return self.rows


class ClassLabel:
    """A column's type as Hugging Face's `datasets` has it."""

    names = ("bad", "good")

    def int2str(self, values: int) -> str:
        return self.names[values]


class Dataset:
    """As Hugging Face's, which keeps the numbers of labels."""

    def __init__(self, rows: list[Any], features: dict[str, Any], column_names: list[str] | None = None) -> None:
        self.rows, self.features, self.column_names = rows, features, column_names or list(rows[0])

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {name: [row[name] for row in self.rows] for name in self.column_names}


@pytest.mark.parametrize("given", [ROWS, tuple(ROWS), Pandas(ROWS), Polars(ROWS), Arrow(ROWS), Dataset(ROWS, {})], ids=type)
def test_a_list_and_each_librarys_table_are_the_same_rows_and_have_the_sha256_of_their_jsonl_file(given: Any, tmp_path: Path) -> None:
    found = taken(given, "rows")
    assert found.values == tuple(ROWS)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS), encoding="utf-8", newline="")
    assert sha256_of(found) == sha256_of(source(path, "rows")) == paths.sha256_of(path)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow", "datasets"])
def test_a_real_table_of_each_library_that_is_here(library: str) -> None:
    module: Any = pytest.importorskip(library)
    make = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table.from_pylist", "datasets": "Dataset.from_list"}[library]
    for name in make.split("."):
        module = getattr(module, name)
    found = taken(module(ROWS), "rows")
    assert (found.values, found.sha256) == (tuple(ROWS), taken(ROWS, "rows").sha256)


def test_a_table_that_comes_in_several_is_the_rows_of_all() -> None:
    """As pandas' and pyarrow's readers give a large one, and `datasets` one of another library's format: each row as a table."""
    for table in (Pandas, Polars, Arrow):
        pieces = [table([row]) for row in ROWS]
        assert taken(iter(pieces), "rows") == taken(ROWS, "rows")
        numbered = [{"text": row["text"], "label": at} for at, row in enumerate(ROWS)]
        dataset = Dataset([table([row]) for row in numbered], {"label": ClassLabel()}, ["text", "label"])
        assert [row["label"] for row in taken(dataset, "rows").values] == ["bad", "good"]
    with pytest.raises(DataError, match=r"^`rows`, row 2: it is of the type str, not a dict"):
        taken([Pandas(ROWS[:1]), "text"], "rows")


@pytest.mark.parametrize("table", [Pandas, Polars, Arrow, Dataset])
def test_numbers_of_narrow_floats_are_those_that_a_csv_would_have(table: Any) -> None:
    widened = [{"a": 0.10000000149011612, "b": 0.10000000149011612}, {"a": None, "b": 0.5}]
    given = table(widened, {}) if table is Dataset else table(widened)
    if table is Arrow:
        given.schema.types = ["float", "double"]
    elif table is Dataset:
        given.features = {"a": SimpleNamespace(dtype="float32"), "b": SimpleNamespace(dtype="float64")}
    else:
        given.dtypes = given.schema = {"a": "Float32", "b": "Float64"}
    assert taken(given, "rows").values == ({"a": 0.1, "b": 0.10000000149011612}, {"a": None, "b": 0.5})


def test_columns_of_float16_have_the_numbers_that_a_csv_would_have() -> None:
    given = Arrow([{"a": 0.0999755859375, "b": 0.0999755859375}])
    given.schema.types = ["halffloat", "halffloat[pyarrow]"]
    assert taken(given, "rows").values == ({"a": 0.1, "b": 0.1},)


@pytest.mark.parametrize("kind", ["float16", "float32", ">f2", ">f4"])
def test_an_array_of_narrow_floats_has_the_numbers_that_a_csv_would_have_and_none_that_are_masked(kind: str) -> None:
    masked = np.ma.array([0.1, 0.2], mask=[False, True], dtype=kind)
    (row,) = taken([{"one": np.array([0.1], kind)[0], "array": np.array([[0.1, np.nan]], kind), "masked": masked}], "rows").values
    assert row == {"one": 0.1, "array": [[0.1, None]], "masked": [0.1, None]}


def test_labels_that_a_dataset_keeps_as_numbers_have_their_names() -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": np.int64(0)}, {"text": "c", "label": -1}, {"text": "d", "label": None}]
    found = taken(Dataset(rows, {"text": object(), "label": ClassLabel()}), "rows")
    assert [row["label"] for row in found.values] == ["good", "bad", None, None]


def test_what_is_no_labels_number_stays_as_it_is() -> None:
    """A dataset's transform may make anything of a label."""
    made = ["good", 2, -2, [1], 1.0, True]
    found = taken(Dataset([{"label": one} for one in made], {"label": ClassLabel()}), "rows")
    assert [row["label"] for row in found.values] == made
    with pytest.raises(DataError, match=r"^`rows`, row 1: `label` holds an object of the type bytes"):
        taken(Dataset([{"label": b"x"}], {"label": ClassLabel()}), "rows")


def test_values_are_those_of_json() -> None:
    class NAType:
        """As pandas' `NA`, which has no truth."""

        def __bool__(self) -> bool:
            raise TypeError

    class NaTType(datetime.datetime):
        """As pandas' `NaT`, which is a datetime."""

    missing = [None, float("nan"), np.float32("nan"), decimal.Decimal("NaN"), NAType(), NaTType(1, 1, 1)]
    given = {
        "missing": missing, "numbers": [1, 2.5, True, np.int8(3), np.float32(0.5), np.bool_(False)], "array": np.array([[1, 2]]),
        "texts": (np.str_("x"), enum.Enum("Word", {"YES": "yes"}, type=str).YES), "dict": {"of": np.array(["a"], object)},
        "enumerated": [enum.IntEnum("Stars", ["ONE"]).ONE, enum.Enum("Half", {"IT": 0.5}, type=float).IT],
        "times": [datetime.datetime(2026, 11, 24, 1, 2, 3), datetime.date(2026, 11, 24), decimal.Decimal("1.20")],
    }  # fmt: skip
    (row,) = taken([given], "rows").values
    assert row == {
        "missing": [None] * len(missing), "numbers": [1, 2.5, True, 3, 0.5, False], "array": [[1, 2]],
        "texts": ["x", "yes"], "dict": {"of": ["a"]}, "enumerated": [1, 0.5], "times": ["2026-11-24 01:02:03", "2026-11-24", "1.20"],
    }  # fmt: skip
    assert {type(value) for value in row["texts"]} == {str}
    assert [type(value) for value in row["enumerated"]] == [int, float]


def test_what_a_row_does_not_have_is_no_key_of_its_object() -> None:
    assert [*read_objects(taken([{"a": None, "b": 1}, {"a": 2}], "rows"))] == [(1, {"b": 1}), (2, {"a": 2})]


def test_an_iterator_is_gone_through_once() -> None:
    once = iter(ROWS)
    assert taken(once, "rows").values == tuple(ROWS)
    with pytest.raises(DataError, match=r"(?m)^`rows` is empty$") as caught:
        taken(once, "rows")
    assert caught.value.hint == "give at least one row; an iterator gives its rows once"


NOT_NAMED = "data are named by a text or a path, or given as rows, and this is of the type "
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (None, UsageError, f"{NOT_NAMED}NoneType"),
        (b"reviews.csv", UsageError, f"{NOT_NAMED}bytes"),
        (ROWS[0], UsageError, "rows are several dicts, and this is one dict"),
        ([], DataError, "`rows` is empty"),
        (Pandas([], ["text"]), DataError, "`rows` is empty"),
        (["a.csv", "b.csv"], DataError, "`rows`, row 1: it is of the type str, not a dict"),
        (Dataset([(1,)], {"a": ClassLabel()}), DataError, "`rows`, row 1: it is of the type tuple, not a dict"),  # in another format
        (np.array([[1, 2]]), DataError, "`rows`, row 1: it is of the type ndarray, not a dict"),
        ([ROWS[0], None], DataError, "`rows`, row 2: it is of the type NoneType, not a dict"),
        ([{0: "a"}], DataError, "`rows`, row 1: its key 0 is of the type int, not text"),
        (csv.DictReader(io.StringIO("a\n1,2\n")), DataError, "`rows`, row 1: its key None is of the type NoneType, not text"),
        ([{"a": {1: 2}}], DataError, "`rows`, row 1: its key 1 is of the type int, not text"),
        ([{"a": "x"}, {"a": b"x"}], DataError, "`rows`, row 2: `a` holds an object of the type bytes"),
        ([{"a": [object()]}], DataError, "`rows`, row 1: `a` holds an object of the type object"),
        ([{"a": np.datetime64(1, "ns")}], DataError, "`rows`, row 1: `a` holds an object of the type datetime64"),
        ([{"a": np.longdouble(1)}], DataError, "`rows`, row 1: `a` holds an object of the type longdouble"),
        ([{"a": "\ud83d"}], DataError, r"`rows`, row 1: a character is only half there (a `\ud83d` without its partner)"),
        ([{"a": CYCLE}], DataError, "`rows`, row 1: it cannot be written as JSON: maximum recursion depth exceeded"),
        ([{"a": 10**5000}], DataError, "`rows`, row 1: it cannot be written as JSON: Exceeds the limit"),
        (Pandas([{"a": 1}], ["a", "a"]), DataError, "`rows` has more than one column `a`"),
        (Arrow([{"a": 1}], ["a", "a"]), DataError, "`rows` has more than one column `a`"),
    ],
)
def test_what_holds_no_rows_or_what_json_cannot_hold_is_refused(given: Any, kind: type[NomoatError], message: str) -> None:
    with pytest.raises(kind) as caught:
        source(given, "rows")
    assert caught.value.message.startswith(message)
    if kind is UsageError:
        assert AS_ROWS.removeprefix("give ") in str(caught.value.hint)
