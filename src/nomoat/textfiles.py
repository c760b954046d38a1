"""Text files of the user's: UTF-8, and an error that names file and line where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nomoat.errors import DataError


def read_text(path: Path) -> str:
    """A UTF-8 file's text without a byte-order mark.

    Raises DataError for what cannot be read, and with the line of the first byte that is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as exc:
        raise DataError(f"`{path}`: there is no such file") from exc
    except IsADirectoryError as exc:
        raise DataError(f"`{path}` is a folder, not a file") from exc
    except OSError as exc:
        raise DataError(f"`{path}` cannot be read: {exc.strerror}", hint="check the path, and who may read the file") from exc
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise DataError(
            f"`{path}`, line {line}: not UTF-8 text", hint="save it as UTF-8 (in a spreadsheet program: `CSV UTF-8`)"
        ) from exc


def parse_json(text: str, path: Path, *, line: int | None = None) -> Any:
    """The JSON value in that text, which is a whole file or one line of it. Raises DataError, with the line where it is known."""
    at = f", line {line}" if line else ""
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise DataError(f"`{path}`, line {line or exc.lineno}: not JSON: {exc.msg} at column {exc.colno}") from exc
    except RecursionError as exc:
        raise DataError(f"`{path}`{at}: lists or objects inside one another, too many to be read", hint="is it damaged?") from exc
    except ValueError as exc:  # a number of more digits than Python reads
        raise DataError(f"`{path}`{at}: not JSON that can be read: {exc}") from exc


def read_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, each with its line, counted from 1. Empty lines are skipped.

    Raises DataError for an empty file, and for a line that is not one JSON object.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    # Not splitlines(): that also splits at U+2028 and its like, which JSON allows inside a string.
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        value = parse_json(text, path, line=line)
        if not isinstance(value, dict):
            raise DataError(f"`{path}`, line {line}: not a JSON object", hint='each line is one object: {"key": "value"}')
        if "\\u" in text:
            require_whole_characters(value, path, f"line {line}")
        rows.append((line, value))
    if not rows:
        raise DataError(f"`{path}` is empty", hint="each line is one JSON object")
    return rows


def whole_characters(text: str) -> str:
    """The text as UTF-8 can hold it: halves of a character that stand side by side are joined, and a half alone is `�`.

    JSON's escapes write such halves, and a server may send each in an event of its own.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def require_whole_characters(value: dict[str, Any], path: Path, where: str) -> None:
    """Raise DataError for text that UTF-8 cannot hold, which JSON's escapes can."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DataError(
            f"`{path}`, {where}: a character is only half there (a `\\ud83d` without its partner)",
            hint="write that character itself, in UTF-8, or remove it",
        ) from exc
