"""Reading the user's text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.errors import DataError
from nomoat.textfiles import read_jsonl


def test_jsonl_keeps_line_numbers_and_unicode_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "한\u2028글"}\n\n{"a": 2}\r\n', encoding="utf-8")
    assert read_jsonl(path) == [(1, {"a": "한\u2028글"}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", " is empty"),
        (b'{"a": 1}\n{"a" 1}\n', ", line 2: not JSON: Expecting ':' delimiter at column 6"),
        (b'{"a": 1}\n\n[1]\n', ", line 3: not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', ", line 2: not UTF-8 text"),
        (b'{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n', ", line 2: a character is only half there (a `\\ud83d` without its partner)"),
    ],
)
def test_broken_jsonl_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_jsonl(path)
    assert caught.value.message == f"`{path}`{message}"
