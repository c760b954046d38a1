"""Tables of the user's."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from nomoat.errors import DataError, UsageError
from nomoat.tables import LINE, LabelledText, column_named, read_labelled, read_table, require_columns


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_column_is_found_whichever_way_its_letters_and_spaces_are_written() -> None:
    columns = ["리뷰\u3000내용", "ＩＤ", "a b", "a\u3000b"]
    assert [column_named(name, columns) for name in ("리뷰 내용", "ID", "a b", "a  b", "감정")] == [*columns[:3], "a  b", "감정"]


def test_a_text_may_be_of_several_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "지문,질문,{a}\n서울에 있다.,어디?,예\n여기 {있다}.,저기?,아니오\n")
    rows = read_labelled(path, input_column=r"{지문}\n\n질문: {질문} ({지문})", label_column="{a}")
    assert [row.text for row in rows] == ["서울에 있다.\n\n질문: 어디? (서울에 있다.)", "여기 {있다}.\n\n질문: 저기? (여기 {있다}.)"]
    assert [row.label for row in rows] == ["예", "아니오"]
    assert read_labelled(path, input_column="{a}", label_column="질문")[0].text == "예"
    with pytest.raises(DataError, match="no column `본문`"):
        read_labelled(path, input_column="{본문} {질문}", label_column="{a}")
    with pytest.raises(UsageError, match="`질문` is named for the texts and for the labels"):
        read_labelled(path, input_column="{지문} {질문}", label_column="질문")
    with pytest.raises(DataError, match="line 2: column `질문` is empty"):
        read_labelled(written(path, "지문,질문,답\n서울,,예\n"), input_column="{지문} {질문}", label_column="답")


def test_only_the_words_between_columns_have_line_breaks_of_a_shell(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a\\notes,x,label\none,two,y\n")
    (row,) = read_labelled(path, input_column=r"{a\notes}\n{x}", label_column="label")
    assert row.text == "one\ntwo"


def test_a_large_table_is_in_memory_as_often_as_needed_only(tmp_path: Path) -> None:
    """Its text and its fields, not also at four bytes a letter, as in a StringIO."""
    path = written(tmp_path / "t.csv", "text,label\n" + f"{'word ' * 20_000},a\n" * 40)
    tracemalloc.start()
    try:
        assert len(read_labelled(path, input_column="text", label_column="label")) == 40
        assert tracemalloc.get_traced_memory()[1] < 4 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_lines_end_where_python_ends_those_of_a_file() -> None:
    """The csv module counts them as they are given to it, and a field in quotes may have any letter."""
    chance = random.Random(0)
    for _ in range(2000):
        text = "".join(chance.choices('a\r\n,"\u2028\x0b\x85한', k=chance.randrange(12)))
        assert [line[0] for line in LINE.finditer(text)] == list(io.StringIO(text, newline=""))


def test_columns_by_number_are_refused(tmp_path: Path) -> None:
    number: Any = 1
    table = written(tmp_path / "table.csv", "text,label\na,b\n")
    for columns, name in (((number, "label"), "input_column"), (("text", number), "label_column")):
        with pytest.raises(UsageError, match=f"`{name}` is of the type int, not a text"):
            require_columns(table, *columns)


def test_table_with_byte_order_mark_quotes_and_line_breaks_is_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b'\xef\xbb\xbftext,label\r\n"one, ""two""\nthree",x\r\n\r\nfour,y\r\n')
    assert read_table(path) == [{"text": 'one, "two"\nthree', "label": "x"}, {"text": "four", "label": "y"}]
    rows = read_labelled(path, input_column="text", label_column="label")
    assert rows[1] == LabelledText(text="four", label="y", line=5)


@pytest.mark.parametrize(("name", "content"), [("a.tsv", "a,b\tc\n1,2\t3\n"), ("b.csv", "a,b;x;c\n1,2;0;3\n")])
def test_separator_is_the_suffix_or_what_splits_the_header_most(tmp_path: Path, name: str, content: str) -> None:
    assert {"a,b": "1,2", "c": "3"}.items() <= read_table(written(tmp_path / name, content))[0].items()


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('text, label\n"Works well", "good"\n"Broke", "bad"\n', {"text": "Works well", "label": "good"}),
        ('text,label\n"No, it broke",   "bad, ""really"""\n', {"text": "No, it broke", "label": 'bad, "really"'}),
        ('text; "label"\nBroke; "bad;\nreally"\n', {"text": "Broke", "label": "bad;\nreally"}),
        ('text,label\n"Broke", "Well" he said\n', {"text": "Broke", "label": ' "Well" he said'}),
        ('id,text\n1, "Hello\n2, world"\n', {"id": "1", "text": ' "Hello'}),
        ('id,text,label\n1, "Hello, world"\n2,b,c\n', {"id": "1", "text": ' "Hello', "label": ' world"'}),
    ],
    ids=["the second field", "with commas", "over two lines", "a broken quote", "two rows", "too few fields"],
)
def test_behind_spaces_a_quote_opens_a_field_where_that_leaves_every_row_its_fields(
    tmp_path: Path, content: str, row: dict[str, str]
) -> None:
    assert read_table(written(tmp_path / "t.csv", content))[0] == row


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ('"text, original, full";label\n"good, in all";pos\n', ["text, original, full", "label"]),
        ('id;"comment, free text, any";label, coarse\n1;"a, b";c\n', ["id", "comment, free text, any", "label, coarse"]),
        ('"text\n(원문)";label\n"좋아요,\n정말";긍정\n', ["text\n(원문)", "label"]),
        ("text, original\tlabel, coarse, fine\ngood, in all\tpos\n", ["text, original", "label, coarse, fine"]),
        ('"text, all";label\ngood;pos;\n', None),
    ],
)
def test_the_separator_is_not_looked_for_within_the_names_of_columns(tmp_path: Path, content: str, columns: list[str] | None) -> None:
    path = written(tmp_path / "t.csv", content)
    if columns is not None:
        assert list(read_table(path)[0]) == columns
    else:  # no separator gives every row its columns: that of the header is named wrong in its row
        with pytest.raises(DataError, match="line 2: 3 fields, and the header has 2"):
            read_table(path)


def test_columns_without_a_name_and_without_a_value_are_none(tmp_path: Path) -> None:
    """As Excel writes them where cells beside the table were once used."""
    path = written(tmp_path / "t.csv", "text,label,, \na,x,,\nb,y, ,\n")
    assert read_table(path) == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    with pytest.raises(DataError, match="has more than one column ``"):
        read_table(written(path, "text,label,,\na,x,,\nb,y,1,\nc,z,,2\n"))
    assert list(read_table(written(path, "text,label,,\na,x,,\nb,y,1,\n"))[0]) == ["text", "label", ""]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_excels_unicode_text_is_a_table_with_tabs(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, "\ufeff글\t분류\r\n좋아요, 정말\t긍정\r\n".encode("utf-16-le"))
    assert read_table(path) == [{"글": "좋아요, 정말", "분류": "긍정"}]


@pytest.mark.parametrize(("name", "said"), [("a.csv", "\ufeffsep=;\r\n"), ("a.tsv", "SEP=;\n")])
def test_the_separator_a_first_line_tells_excel_is_taken_and_lines_are_still_counted(tmp_path: Path, name: str, said: str) -> None:
    path = written(tmp_path / name, f"{said}text;label,\none,two;x\nthree,;\n".encode())
    assert read_table(path) == [{"text": "one,two", "label,": "x"}, {"text": "three,", "label,": ""}]
    with pytest.raises(DataError, match="line 4: column `label,` is empty"):
        read_labelled(path, input_column="text", label_column="label,")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('text\tlabel\n"good movie\tpos\nbad movie"\tneg\n', ['"good movie', 'bad movie"']),
        ('text\tlabel\r\n"애마부인"이란 이름\tneg\r\n"one"\tpos\r\n', ['"애마부인"이란 이름', '"one"']),
        ('text\tlabel\n"good\tpos\none\rline\tneg\n', ['"good', "one\rline"]),
        ('text\tlabel\tnote\ngood\t"pos\tx"\n', ["good"]),
        ('text\tlabel\n"good, ""really""\nmovie"\tpos\n""\t""\n', ['good, "really"\nmovie']),
    ],
    ids=["over two rows", "at a field's start", "a carriage return in a line", "around a tab", "a quoted field of two lines"],
)
def test_between_tabs_a_quote_is_only_a_quote_where_that_gives_every_line_its_fields(
    tmp_path: Path, content: str, texts: list[str]
) -> None:
    assert [row["text"] for row in read_table(written(tmp_path / "t.tsv", content))] == texts


def test_a_single_column_says_nothing_about_quotes_so_they_are_a_csv_s(tmp_path: Path) -> None:
    assert read_table(written(tmp_path / "t.tsv", 'text\n"one\ntwo"\n')) == [{"text": "one\ntwo"}]
    with pytest.raises(DataError, match="line 2: unexpected end of data"):
        read_table(written(tmp_path / "t.tsv", 'text\n"one\ntwo\n'))


def test_a_field_of_any_length_is_read(tmp_path: Path) -> None:
    text = "word " * 30_000 + "end"
    assert read_table(written(tmp_path / "long.csv", f"text,label\n{text},x\n")) == [{"text": text, "label": "x"}]


def test_a_quote_that_is_not_closed_in_a_long_file_is_told_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "long.csv", 'text,label\na,x\n"b,y\n' + "c,z\n" * 40_000)
    with pytest.raises(DataError, match="line 3: unexpected end of data") as caught:
        read_table(path)
    assert caught.value.hint == 'a quote inside a quoted field is written twice: "she said ""no"""'


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("", "is empty", "the first line names the columns, each further line is one row"),
        (",,\n", "is empty", "the first line names the columns, each further line is one row"),
        ("text,label\n", "has a header and no rows", "each line after the first is one row"),
        ("text,text\na,b\n", "has more than one column `text`", "give each column its own name"),
        ("text,label\na,x\nb\n", ", line 3: 1 field, and the header has 2", None),
        ('text,label\na,x\n"b,y\n', ", line 3: unexpected end of data", None),
        ("text,label\n\uc88b\uc544,x\n".encode("cp949"), ", line 2: not UTF-8 text", None),
        ("text,label\na,x\n\n ,y\n", ", line 4: column `text` is empty", "fill it in or remove the row"),
        ("text,label\na,\nb,y\nc,\n", ", lines 2, 4: column `label` is empty", "fill them in or remove the rows"),
        (
            "text,label\n ,x\n" + 1303 * "a,\n",
            ", line 2: column `text` is empty; lines 3, 4, 5, 6, 7 and 1,298 more: column `label` is empty",
            "fill them in or remove the rows",
        ),
        ("text,class\na,x\n", "has no column `label`", "its columns are: text, class"),
        ("text,\na,x\n", "has no column `label`", "its columns are: text, (no name)"),
    ],
)
def test_bad_table_is_refused_with_file_and_line(tmp_path: Path, content: str | bytes, message: str, hint: str | None) -> None:
    path = written(tmp_path / "bad.csv", content)
    with pytest.raises(DataError) as caught:
        read_labelled(path, input_column="text", label_column="label")
    separator = "" if message.startswith(",") else " "
    assert caught.value.message == f"`{path}`{separator}{message}"
    assert caught.value.hint is not None
    if hint is not None:
        assert caught.value.hint == hint


def test_a_text_of_several_columns_has_no_space_around_it(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "title,label\nA,x\n")
    assert read_labelled(path, input_column=r" {title}:\n", label_column="label")[0].text == "A:"


def test_texts_are_not_their_own_labels(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\n")
    with pytest.raises(UsageError) as caught:
        read_labelled(path, input_column="text", label_column=" text")
    assert caught.value.message == f"`{path}`: column `text` is named for the texts and for the labels"
    assert caught.value.hint == "its columns are: text, label"


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder, not a file"):
        read_table(tmp_path)
