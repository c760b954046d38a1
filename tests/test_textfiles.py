"""Reading the user's text files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from homes import be_at_home_in
from letters import decomposed

from nomoat import config, hardware, paths
from nomoat.catalog.prices import own_path, price
from nomoat.errors import DataError, NotEnoughMemoryError, UsageError
from nomoat.judge.suites import load_suite
from nomoat.route.policy import default_path, load_policy
from nomoat.textfiles import (
    AS_CSV,
    AS_JSONL,
    AS_UTF_8,
    AS_UTF_8_KOREAN,
    as_named,
    of_unknown_kind,
    parse_json,
    read_jsonl,
    read_text,
)


@pytest.mark.skipif(sys.platform == "darwin", reason="there the two names are one")
def test_a_file_is_found_however_the_letters_of_its_name_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it came from a Mac in an archive, and as it is typed on Linux; and the other way round."""
    there = tmp_path / decomposed("자료") / decomposed("후기.csv")
    there.parent.mkdir()
    there.write_text("text\n", encoding="utf-8")
    (tmp_path / "자료").with_name("문의.csv").write_text("text\n", encoding="utf-8")
    assert as_named(tmp_path / "자료" / "후기.csv") == there
    assert as_named(tmp_path / decomposed("문의.csv")) == tmp_path / "문의.csv"
    monkeypatch.chdir(tmp_path)
    assert as_named(Path("자료/후기.csv")) == Path(decomposed("자료"), decomposed("후기.csv"))
    for name in ("자료/없음.csv", "문의.csv/가", "none.csv"):
        assert as_named(Path(name)) == Path(name)
    (there.parent / "후기.csv").write_text("other\n", encoding="utf-8")
    assert as_named(Path("자료/후기.csv")).read_text(encoding="utf-8") == "other\n"


def test_the_home_folder_is_known_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_at_home_in(tmp_path, monkeypatch)
    assert as_named("~/a.csv") == tmp_path / "a.csv"
    with pytest.raises(UsageError, match="a file is named by a text or a path, and this is of the type NoneType"):
        as_named(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff한\t글\r\n".encode(encoding))
    assert read_text(path) == "한\t글\r\n"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("text\n좋아요, 환불해 주세요\n".encode("cp949"), "line 2: not UTF-8 text", "in Korean `CSV UTF-8(쉼표로 분리)`"),
        ("\ufeffa\n".encode() + "끝\n".encode("cp949"), "line 2: not UTF-8 text", "in Korean `CSV UTF-8(쉼표로 분리)`"),
        ("text\ncafé\n".encode("latin-1"), "line 2: not UTF-8 text", "(in a spreadsheet program: `CSV UTF-8`)"),
        ("text,label\nBroke,bad\n".encode("utf-16-le"), "line 1: not UTF-8 text", "(in a spreadsheet program: `CSV UTF-8`)"),
        ("text,label\nBroke,bad\n".encode("utf-16-be"), "line 1: not UTF-8 text", "(in a spreadsheet program: `CSV UTF-8`)"),
        ("\ufefftext\n".encode("utf-16-le") + b"\x00\xd8", "line 2: not UTF-16 text", "(in a spreadsheet program: `CSV UTF-8`)"),
    ],
)
def test_another_encoding_is_not_guessed_and_the_way_out_is_named(tmp_path: Path, content: bytes, message: str, hint: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert caught.value.message == f"`{path}`, {message}"
    assert caught.value.hint is not None and hint in caught.value.hint
    for name in ("a.toml", "a.json", "a.JSONL"):  # no spreadsheet program wrote it
        path = path.rename(tmp_path / name)
        with pytest.raises(DataError) as caught:
            read_text(path)
        assert caught.value.hint == "save it as UTF-8 (in Notepad: `Encoding`, in Korean `인코딩`)"


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_and_what_may_be_one_are_called_so_and_the_way_out_is_named(tmp_path: Path, start: bytes) -> None:
    unsure = "a document or workbook of an office program, or an archive"
    for name, what, hint in (("표.XLSX", "a workbook", AS_UTF_8_KOREAN), ("글.csv", unsure, AS_UTF_8), ("docx", unsure, AS_UTF_8)):
        path = tmp_path / name
        path.write_bytes(start + b"\xff")
        with pytest.raises(DataError) as caught:
            read_text(path)
        assert (caught.value.message, caught.value.hint) == (f"`{path}` is {what}, not a text file", hint)
    assert of_unknown_kind(Path("표.XLSX"), "").hint == AS_UTF_8_KOREAN


def test_a_compressed_file_and_a_folder_of_datasets_are_called_so_and_the_way_out_is_named(tmp_path: Path) -> None:
    unknown = of_unknown_kind(tmp_path / "a.jsonl.GZ", "tables end in .csv")
    assert unknown.message == f"`{tmp_path / 'a.jsonl.GZ'}` is a compressed file, not a text file"
    assert unknown.hint == "unpack it first; tables end in .csv"
    assert of_unknown_kind(tmp_path, "tables end in .csv").hint == "tables end in .csv"
    (tmp_path / "state.json").touch()
    unknown = of_unknown_kind(tmp_path, "tables end in .csv")
    assert (unknown.message, unknown.hint) == (f"`{tmp_path}` is a folder, not a file", AS_JSONL)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a"])
def test_a_parquet_file_is_called_so_whatever_its_name_and_the_way_out_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PAR1\x15\x04\xffPAR1")
    with pytest.raises(DataError) as caught:
        read_text(path)
    unknown = of_unknown_kind(path, "")
    assert (caught.value.message, caught.value.hint) == (unknown.message, unknown.hint)
    assert (unknown.message, unknown.hint) == (f"`{path}` is a Parquet file, not a text file", AS_CSV)


def test_a_csv_whose_first_column_is_called_as_parquet_files_begin_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for text in ("PAR1,label\na,b\n", "PA"):
        path.write_text(text, newline="\n")
        assert read_text(path) == text
        assert of_unknown_kind(path, "").message == f"`{path}`: nomoat cannot tell what kind of file this is"


def test_jsonl_keeps_line_numbers_and_unicode_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"a": "한\u2028글"}\n\n{"a": 2}\r\n', encoding="utf-8")
    assert read_jsonl(path) == [(1, {"a": "한\u2028글"}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n \n", " is empty"),
        (b'{"a": 1}\n{"a" 1}\n', ", line 2: not JSON: Expecting ':' delimiter at column 6"),
        (b'{"a": "b', ", line 1: not JSON: Unterminated string starting at column 7"),
        (b'{"a": "b\n{"a": "c"}\n', ", line 1: not JSON: Unterminated string starting at column 7"),
        (b'{"a": 1,\n{"a": 2}\n', ", line 1: not JSON: Expecting property name enclosed in double quotes at column 9"),
        (b'{"a": 1}\n\n[1]\n', ", line 3: not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', ", line 2: not UTF-8 text"),
        (b'{"a": 1}\n{"a": ' + b"[" * 100_000, ", line 2: lists or objects inside one another, too many to be read"),
        (b'{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n', ", line 2: a character is only half there (a `\\ud83d` without its partner)"),
    ],
)
def test_broken_jsonl_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_jsonl(path)
    assert caught.value.message == f"`{path}`{message}"


def test_broken_json_says_what_to_look_for(tmp_path: Path) -> None:
    for line, hint in ((3, 'each line is one whole object: {"key": "value"}'), (None, "is the file whole?")):
        with pytest.raises(DataError) as caught:
            parse_json("{", tmp_path / "a", line=line)
        assert caught.value.hint == hint


def test_a_number_of_too_many_digits_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"a": ' + "1" * 5000 + "}")
    with pytest.raises(DataError, match=", line 1: not JSON that can be read: Exceeds the limit"):
        read_jsonl(path)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 5000], ids=["digits", "brackets"])
@pytest.mark.parametrize(
    ("path_of", "read"),
    [
        (lambda: paths.home() / "config.toml", config.read_file),
        (config.keys_path, lambda: config.secret("OPENAI_API_KEY")),
        (default_path, load_policy),
        (own_path, lambda: price("openai:gpt-4o-mini")),
        (lambda: paths.home() / "suite.toml", lambda: load_suite(paths.home() / "suite.jsonl")),
    ],
    ids=["config", "keys", "policy", "prices", "suite"],
)
def test_toml_that_is_none_is_named_however_it_is_broken(path_of: Callable[[], Path], read: Callable[[], object], value: str) -> None:
    path = path_of()
    path.parent.mkdir(parents=True)
    path.with_suffix(".jsonl").write_text('{"input": "x", "target": "y"}\n')
    path.write_text(f"stop = {value}")
    path.chmod(0o600)
    said = "(is not TOML|cannot be read|is not a table of prices)"
    with pytest.raises((UsageError, DataError), match=f"`{re.escape(str(path))}` {said}"):
        read()


def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """root may read everything, so the system's refusal is put in its mouth."""
    path = tmp_path / "a.jsonl"
    path.write_text("{}")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError) as caught:
        read_text(path)
    expected = (f"`{path}` cannot be read: Permission denied", "check the path, and who may read the file")
    assert (caught.value.message, caught.value.hint) == expected


def test_a_folder_is_called_one_also_where_the_system_only_denies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows does."""

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError) as caught:
        read_text(tmp_path)
    assert caught.value.message == f"`{tmp_path}` is a folder, not a file"


def test_a_path_that_goes_through_a_file_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    path = tmp_path / "a.jsonl" / "b"
    reason = " cannot be read: Not a directory" if os.name == "posix" else ": there is no such file"  # Windows says no more
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert caught.value.message == f"`{path}`{reason}"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows may say that it is not there")
def test_a_name_that_no_file_can_have_is_said_to_be_unreadable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: "):
        read_text(tmp_path / ("a" * 300))


@pytest.mark.parametrize("address", ["https://example.com/data/x.csv", "http://127.0.0.1:8000/x.csv"])
def test_an_address_of_the_web_is_said_to_be_none_of_a_file(address: str) -> None:
    """A path made of it has lost a slash."""
    with pytest.raises(DataError) as caught:
        read_text(Path(address))
    for error in (caught.value, of_unknown_kind(Path(address), "kinds")):
        assert error.message == f"`{address}` is an address, and nomoat reads files"
        assert error.hint == "download it first, and name that file"


def test_a_file_that_memory_has_no_room_for_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.csv"
    with path.open("wb") as file:
        file.truncate(200_000_000)  # takes no room on most disks
    monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda: hardware.Detected(300_000_000, "so said"))
    with pytest.raises(NotEnoughMemoryError) as caught:
        read_text(path)
    assert caught.value.message == f"`{path}` has 0.2 GB; reading it takes 0.4 GB of memory or more, and 0.3 GB are free"
    assert caught.value.hint == "take a part of it, such as its first lines (`head -n 100000 FILE`), or close other programs"
    monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda: hardware.Detected(1, "so said"))
    with path.open("wb") as file:
        file.write(b"text")
    assert read_text(path) == "text"
    monkeypatch.setattr("nomoat.textfiles.LITTLE_BYTES", 0)
    monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda: hardware.Detected(8, "so said"))
    assert read_text(path) == "text"  # it and its text are all that is needed
