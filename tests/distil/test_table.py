"""Tables of labels: every row of the file stands in one of the two, with all its columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from letters import decomposed

from nomoat.asking.spending import Spending
from nomoat.asking.spent import Spent
from nomoat.distil.label import NO_LABEL, NO_TEXT, Label, Labelled, LeftOut
from nomoat.distil.table import labelled_table, left_out_table, read_texts
from nomoat.errors import DataError, NomoatError, UsageError
from nomoat.responder import load

NAME_COLUMN = "name the column of the texts with --input-column (in Python: `input_column`): it is one of id, text"


def found(*results: Label | LeftOut) -> Labelled:
    with load("fake:") as teacher:
        return Labelled(max_tokens=20, results=list(results), spent=Spent(pricing=Spending().pricing(teacher)))


def test_texts_come_from_a_column_or_from_lines(tmp_path: Path) -> None:
    table, lines = tmp_path / "t.csv", tmp_path / "t.txt"
    table.write_text('id,text\n1,"a, b"\n2, \n3,당첨\n4,\u200b\n', encoding="utf-8")
    lines.write_text("a b\n\n당첨 \n\ufeff\n", encoding="utf-8")
    assert read_texts(table, input_column="text").asked == ["a, b", "당첨"]
    assert read_texts(lines).asked == ["a b", "당첨"]
    table.write_text(decomposed("번호,내용\n1,당첨\n"), encoding="utf-8")
    lines.write_text(decomposed("당첨"), encoding="utf-8")
    assert read_texts(table, input_column="내용").asked == read_texts(lines).asked == ["당첨"]


def test_a_text_may_be_of_several_columns(tmp_path: Path) -> None:
    table, lines = tmp_path / "t.csv", tmp_path / "t.jsonl"
    table.write_text("title,body\nA,b\n,c\nD,\n")
    lines.write_text('{"title": "A", "body": "b"}\n{"title": null, "body": "c"}\n{"body": "d"}\n')
    for path in (table, lines):
        assert read_texts(path, input_column=r"{title}:\n{body}").of_rows == ("A:\nb", "", "")
        with pytest.raises(DataError, match="has no column `text`"):
            read_texts(path, input_column="{title} {text}")
    lines.write_text('{"title": "A", "body": 1}\n')
    with pytest.raises(DataError, match="line 1: `body` is no text"):
        read_texts(lines, input_column="{title} {body}")


@pytest.mark.parametrize(
    ("name", "column", "error", "message", "hint"),
    [
        ("t.csv", None, UsageError, "`t.csv`: it has several columns", NAME_COLUMN),
        ("t.csv", "words", DataError, "`{path}` has no column `words`", "its columns are: id, text"),
        (
            "t.txt", "text", UsageError, "`t.txt` has no columns: each line is a text",
            "leave out --input-column (in Python: `input_column`)",
        ),
        ("t.pdf", None, UsageError, "`{path}`: nomoat cannot tell what kind of file this is", None),
    ],
)  # fmt: skip
def test_files_that_cannot_be_meant(
    tmp_path: Path, name: str, column: str | None, error: type[NomoatError], message: str, hint: str | None
) -> None:
    path = tmp_path / name
    path.write_text("id,text\n1,a\n")
    with pytest.raises(error) as caught:
        read_texts(path, input_column=column)
    assert caught.value.message == message.format(path=path)
    assert hint is None or caught.value.hint == hint


def test_a_table_between_tabs_that_is_called_a_text_is_said_to_be_one(tmp_path: Path) -> None:
    """As Excel's "Unicode Text" is, in Korean "유니코드 텍스트": UTF-16."""
    path = tmp_path / "t.txt"
    path.write_text("번호\t내용\n1\t당첨\n", encoding="utf-16")
    with pytest.raises(UsageError) as caught:
        read_texts(path, input_column="내용")
    leave_out = "leave out --input-column (in Python: `input_column`)"
    assert caught.value.hint == f"a table between tabs, as Excel's `Unicode Text` is: name it .tsv; else {leave_out}"
    with pytest.raises(UsageError) as caught:
        read_texts(path)
    assert (caught.value.message, caught.value.hint) == (
        "`t.txt`: all its lines have as many tabs, and each would be one text",
        "a table between tabs, as Excel's `Unicode Text` is: name it .tsv; else put spaces in place of the tabs",
    )
    assert read_texts(path.rename(path.with_suffix(".tsv")), input_column="내용").asked == ["당첨"]


@pytest.mark.parametrize("texts", [["a\tb"], ["a\tb", "c"], ["a", "b\tc"], ["a\tb", "c\td\te"]])
def test_lines_with_tabs_in_some_are_texts(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "t.txt"
    path.write_text("\r\n".join(["", *texts, ""]), newline="")
    assert read_texts(path).asked == texts


def test_a_folder_holds_no_texts() -> None:
    with pytest.raises(UsageError, match=r"`\.` is a folder, not a file"):
        read_texts(Path())


def test_a_file_without_a_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n \n")
    with pytest.raises(DataError, match="holds no text"):
        read_texts(tmp_path / "t.txt")
    (tmp_path / "t.jsonl").write_text("{}\n{}\n")
    with pytest.raises(DataError, match="holds no text"):
        read_texts(tmp_path / "t.jsonl")


def test_objects_of_a_jsonl_file_are_rows_whatever_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"id": 1, "text": " WIN ", "tags": ["a"]}\n{"text": null, "id": "둘"}\n', encoding="utf-8")
    texts = read_texts(path, input_column="text")
    assert texts.asked == ["WIN"]
    assert texts.columns == ("id", "text", "tags")
    assert texts.rows == ({"id": "1", "text": " WIN ", "tags": '["a"]'}, {"text": "", "id": "둘"})


@pytest.mark.parametrize("column", ["text", None])
@pytest.mark.parametrize("value", ["5", "0", "false", "[]", "{}"])
def test_a_text_that_is_none_is_not_asked_about(tmp_path: Path, column: str | None, value: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"text": "a"}}\n{{"text": {value}}}\n')
    with pytest.raises(DataError, match="line 2: `text` is no text"):
        read_texts(path, input_column=column)


def test_every_row_is_in_one_of_two_tables_with_all_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,body\n1, WIN \n2,\n3,noon\n")
    texts = read_texts(path, input_column="body")
    result = found(
        Label(text="WIN", label="spam", confidence=0.75),
        LeftOut(text="", why=NO_TEXT),
        LeftOut(text="noon", why=NO_LABEL, answer="Hm.\nHam?"),
    )
    assert labelled_table(texts, result) == (
        ["id", "body", "label", "confidence"], [{"id": "1", "body": " WIN ", "label": "spam", "confidence": "0.7500"}],
    )  # fmt: skip
    assert left_out_table(texts, result) == (
        ["id", "body", "why", "answer"],
        [
            {"id": "2", "body": "", "why": "no text", "answer": ""},
            {"id": "3", "body": "noon", "why": "none of the labels", "answer": "Hm.\nHam?"},
        ],
    )


def test_a_column_of_the_users_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label,answer\nWIN,ham,x\nnoon,spam,y\n")
    texts = read_texts(path, input_column="text")
    result = found(Label(text="WIN", label="spam"), LeftOut(text="noon", why=NO_LABEL, answer="?"))
    row = {"text": "WIN", "label": "ham", "answer": "x", "teacher_label": "spam"}
    assert labelled_table(texts, result) == (["text", "label", "answer", "teacher_label"], [row])
    row = {"text": "noon", "label": "spam", "answer": "y", "why": "none of the labels", "teacher_answer": "?"}
    assert left_out_table(texts, result) == (["text", "label", "answer", "why", "teacher_answer"], [row])
