"""Text files of the user's: UTF-8, UTF-16 and UTF-32 by their mark, and an error that names file and line where something is wrong."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nomoat import hardware, paths, words
from nomoat.errors import DataError, NotEnoughMemoryError, UsageError

# By the mark a file begins with; the longer mark first, of which a shorter one is the beginning.
MARKED = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
JSONL_SUFFIXES = (".jsonl", ".ndjson")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods")  # names end so
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # names end so
DATA_SETS = ("state.json", "dataset_dict.json")  # one of them lies in a folder that Hugging Face's `datasets` wrote
ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # contents begin so: zip and OLE, which office programs write, too
PARQUET = b"PAR1"  # contents begin and end so; a CSV whose first column is called so only begins with it
JSON_LINE = re.compile(r"([^\n]*)\n?")
TIMES_READ = 2  # a file's bytes, in memory: they and its text, about; what is made of short rows takes many times more
LITTLE_BYTES = 3e8  # so much is there
AS_CSV = (
    'make a CSV of it, with pandas: `pandas.read_parquet("FILE.parquet").to_csv("FILE.csv", index=False)`; '
    'JSONL of conversations: `.to_json("FILE.jsonl", orient="records", lines=True)`'
)
AS_JSONL = (
    'make JSONL of it: `datasets.load_from_disk("FOLDER").to_json("FILE.jsonl")`, of several splits of one: `load_from_disk("FOLDER")'
    '["train"]`; in Python the Dataset itself can be given'
)
AS_UTF_8 = "save it as UTF-8 (in a spreadsheet program: `CSV UTF-8`)"
AS_UTF_8_IN_AN_EDITOR = "save it as UTF-8 (in Notepad: `Encoding`, in Korean `인코딩`)"
AS_UTF_8_KOREAN = "save it as UTF-8 (in Excel: `CSV UTF-8`, in Korean `CSV UTF-8(쉼표로 분리)`)"


def as_named(path: str | Path) -> Path:
    """The path with the home folder in place of its `~`; where there is nothing, the one there of the same letters, in parts as macOS
    writes them or whole. Raises UsageError for what names no file, and as `paths.expanded` does.
    """
    if not isinstance(path, str | Path):
        raise UsageError(
            f"a file is named by a text or a path, and this is of the type {type(path).__name__}", hint='such as "reviews.csv"'
        )
    path = paths.expanded(path)
    if path.exists() or str(path).isascii():
        return path
    found = Path(path.anchor)
    for name in path.parts[bool(path.anchor) :]:
        there = found / name
        if not there.exists():
            try:
                alike = [one for one in found.iterdir() if composed(one.name) == composed(name)]
            except OSError:
                alike = []
            if len(alike) != 1:
                return path
            there = alike[0]
        found = there
    return found


def not_there(path: Path) -> DataError:
    """The error for a file that is not there. An address of the web, of which a path keeps one slash, is none."""
    if _is_address(path):
        address = path.as_posix().replace(":/", "://", 1)
        return DataError(f"`{address}` is an address, and nomoat reads files", hint="download it first, and name that file")
    return DataError(f"`{path}`: there is no such file", hint="check its name, and the folder")


def _is_address(path: Path) -> bool:
    return bool(path.parts) and path.parts[0].lower() in ("http:", "https:")


def of_unknown_kind(path: Path, kinds: str) -> UsageError | DataError:
    """The error for a file whose kind its name's end does not tell; `kinds` says which ends do."""
    if _is_address(path) and not path.exists():
        return not_there(path)
    if path.is_dir():
        is_data_set = any((path / name).is_file() for name in DATA_SETS)
        return UsageError(f"`{path}` is a folder, not a file", hint=AS_JSONL if is_data_set else kinds)
    if path.suffix.lower() in COMPRESSED:
        return UsageError(_no_text(path, "a compressed file"), hint=f"unpack it first; {kinds}")
    if path.suffix.lower() in WORKBOOKS:
        return UsageError(_no_text(path, "a workbook"), hint=AS_UTF_8_KOREAN)
    if _is_parquet(path):
        return UsageError(_no_text(path, "a Parquet file"), hint=AS_CSV)
    return UsageError(f"`{path}`: nomoat cannot tell what kind of file this is", hint=kinds)


def _no_text(path: Path, kind: str) -> str:
    return f"`{path}` is {kind}, not a text file"


def _is_parquet(path: Path) -> bool:
    """By its first and last bytes; a pipe is not read."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            begins = file.read(len(PARQUET)) == PARQUET
            file.seek(-len(PARQUET), io.SEEK_END)
            return begins and file.read() == PARQUET
    except OSError:  # it cannot be read, or is shorter
        return False


def read_text(path: Path) -> str:
    """A file's text without a byte-order mark: UTF-8, or UTF-16 and UTF-32 that say so by their mark, as Excel's `Unicode Text` does.

    Nothing is guessed: a file in the code page of a country is refused. Raises DataError for what cannot be read, and with the line
    of the first byte that is no text; NotEnoughMemoryError for a file that is known not to fit.
    """
    try:
        _require_memory(path, path.stat().st_size)
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise not_there(path) from exc
    except OSError as exc:
        if os.path.isdir(path):  # noqa: PTH112 - never raises; Windows only calls it denied
            raise DataError(f"`{path}` is a folder, not a file", hint="name a file in it") from exc
        raise DataError(f"`{path}` cannot be read: {exc.strerror}", hint="check the path, and who may read the file") from exc
    if content.startswith(ARCHIVES):
        if path.suffix.lower() in WORKBOOKS:
            raise DataError(_no_text(path, "a workbook"), hint=AS_UTF_8_KOREAN)
        raise DataError(_no_text(path, "a document or workbook of an office program, or an archive"), hint=AS_UTF_8)
    if content.startswith(PARQUET) and content.endswith(PARQUET):
        raise DataError(_no_text(path, "a Parquet file"), hint=AS_CSV)
    encoding = next((encoding for mark, encoding in MARKED if content.startswith(mark)), "UTF-8")
    try:
        if encoding == "UTF-8" and (at := content.partition(b"\n")[0].find(b"\0")) >= 0:
            raise UnicodeDecodeError("utf-8", content, at, at + 1, "English in UTF-16 without a mark decodes as UTF-8, too")
        return content.decode("utf-8-sig" if encoding == "UTF-8" else encoding)
    except UnicodeDecodeError as exc:
        before = content[: exc.start + len(content) - len(exc.object)]  # of UTF-8 with a mark it counts from behind that
        line = before.decode(encoding, "ignore").count("\n") + 1
        hint = AS_UTF_8_KOREAN if encoding == "UTF-8" and _may_be_korean(content) else AS_UTF_8
        if path.suffix.lower() in (".toml", ".json", *JSONL_SUFFIXES):
            hint = AS_UTF_8_IN_AN_EDITOR
        raise DataError(f"`{path}`, line {line}: not {encoding} text", hint=hint) from exc


def _require_memory(path: Path, num_bytes: int) -> None:
    """Raises NotEnoughMemoryError where what is read would not fit: the system would end the process, without a word."""
    needed = TIMES_READ * num_bytes
    if needed > LITTLE_BYTES and needed > (free := hardware.memory_available_bytes()).value:
        takes, there = words.two_gigabytes(needed, free.value)
        raise NotEnoughMemoryError(
            f"`{path}` has {num_bytes / 1e9:.1f} GB; reading it takes {takes} GB of memory or more, and {there} GB are free",
            hint="take a part of it, such as its first lines (`head -n 100000 FILE`), or "
            f"{hardware.more_memory(free, needed - free.value)}",
        )


def settings_text(content: bytes, shown: str) -> str:
    """The text of a file of settings, which is called `shown` in the error. Raises UsageError where it is no UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{shown} is not UTF-8 text", hint=AS_UTF_8_IN_AN_EDITOR) from None  # there may be a key in it


def _may_be_korean(content: bytes) -> bool:
    """Whether it is Korean once it is read as Korean Windows writes text: more than half of what is not ASCII are syllables."""
    try:
        letters = [char for char in content.decode("cp949") if not char.isascii()]
    except UnicodeDecodeError:
        return False
    return sum("가" <= char <= "힣" for char in letters) * 2 > len(letters)


def parse_json(text: str, path: Path, *, line: int | None = None) -> Any:
    """The JSON value in that text, which is a whole file or one line of it; null where it says NaN, as data frames do of nothing.

    Raises DataError, with the line where it is known.
    """
    at = f", line {line}" if line else ""
    try:
        return json.loads(text, parse_constant=_nothing)
    except json.JSONDecodeError as exc:
        what = exc.msg.removesuffix(" at")
        hint = 'each line is one whole object: {"key": "value"}' if line else "is the file whole?"
        raise DataError(f"`{path}`, line {line or exc.lineno}: not JSON: {what} at column {exc.colno}", hint=hint) from exc
    except RecursionError as exc:
        raise DataError(f"`{path}`{at}: lists or objects inside one another, too many to be read", hint="is it damaged?") from exc
    except InfiniteError as exc:
        raise DataError(f"`{path}`{at}: not JSON: {exc}, which is no number", hint="write it as text, in quotes, or null") from exc
    except ValueError as exc:  # a number of more digits than Python reads
        raise DataError(f"`{path}`{at}: not JSON that can be read: {exc}", hint="write so long a number as text, in quotes") from exc


class InfiniteError(ValueError):
    """What is said is infinite."""


def _nothing(constant: str) -> None:
    if constant != "NaN":
        raise InfiniteError(constant)


def parse_toml(text: str) -> dict[str, Any]:
    """The table that text of TOML is. Raises ValueError for what is none, or holds more digits or brackets than can be read."""
    try:
        return tomllib.loads(text)
    except RecursionError as exc:
        raise ValueError("lists or tables inside one another, too many to be read") from exc


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, each with its line, counted from 1. Empty lines are skipped.

    Raises DataError for an empty file, and for a line that is not one JSON object.
    """
    return [*parse_jsonl(read_text(path), path)]


def parse_jsonl(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_jsonl`, of what was read of the file, one object at a time: those of a large one take several times its bytes."""
    is_empty = True
    # Not splitlines(): that also splits at U+2028 and its like, which JSON allows inside a string.
    for line, found in enumerate(JSON_LINE.finditer(text), start=1):
        row = found[1]
        if not row.strip():
            continue
        value = parse_json(row, path, line=line)
        if not isinstance(value, dict):
            raise DataError(f"`{path}`, line {line}: not a JSON object", hint='each line is one object: {"key": "value"}')
        if "\\u" in row:
            utf8_json(value, path, f"line {line}")
        is_empty = False
        yield line, value
    if is_empty:
        raise DataError(f"`{path}` is empty", hint="each line is one JSON object")


def composed(text: str) -> str:
    """The text in NFC: letters that macOS writes in parts (a Korean syllable as two or three) as everyone else writes them."""
    return unicodedata.normalize("NFC", text)


def whole_characters(text: str) -> str:
    """The text as UTF-8 can hold it: halves of a character that stand side by side are joined, and a half alone is `�`.

    JSON's escapes write such halves, and a server may send each in an event of its own.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def utf8_json(value: dict[str, Any], path: Path | str, where: str) -> bytes:
    """As JSON in UTF-8. Raises DataError for text that UTF-8 cannot hold, which JSON's escapes and Python can."""
    try:
        return json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DataError(
            f"`{path}`, {where}: a character is only half there (a `\\ud83d` without its partner)",
            hint="write that character itself, in UTF-8, or remove it",
        ) from exc
