"""What can be learned from: tables and conversations, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nomoat.errors import DataError, UsageError
from nomoat.tune.data import Lesson, read


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read_lessons(path: Path, **options: str) -> list[Lesson]:
    return read(path, **options).lessons  # type: ignore[arg-type]


def test_a_table_gives_a_lesson_a_row_with_every_label_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\n좋아요!,positive\nBad.,negative\n")
    first, second = read_lessons(path, input_column="text", label_column="label")
    assert first.messages[0].content == (
        "Classify the text. Answer with one of: negative, positive.\n\nText: 좋아요!\nLabel:"
    )  # fmt: skip
    assert (first.label, second.label, second.where) == ("positive", "negative", "line 3")


def test_the_users_own_instruction_is_used_word_for_word(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,x\nb,y\n")
    lesson = read_lessons(path, input_column="text", label_column="label", instruction="감정을 고르세요.")[0]
    assert lesson.messages[0].content == "감정을 고르세요.\n\nText: a\nLabel:"


def test_every_assistant_turn_of_a_conversation_is_learned(tmp_path: Path) -> None:
    turns = [("system", "Be kind."), ("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "farewell")]
    chat = {"messages": [{"role": role, "content": content} for role, content in turns]}
    path = write(tmp_path / "c.jsonl", json.dumps(chat) + "\n")
    (lesson,) = read_lessons(path)
    assert [message.content for message in lesson.messages if message.role == "assistant"] == ["hello", "farewell"]


def test_an_answer_of_weight_0_is_read_and_not_learned(tmp_path: Path) -> None:
    def lines(*weights: object) -> str:
        said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
        return json.dumps({"messages": [{**message, "weight": weight} for weight in weights for message in said]}) + "\n"

    path = write(tmp_path / "c.jsonl", lines(0, 1, None, 0) + lines(1))
    first, second = read_lessons(path)
    assert (len(first.messages), first.learned) == (6, [3, 5])
    assert (len(second.messages), second.learned) == (2, [1])
    for weight in (0.5, -1, True, "1", [1]):
        with pytest.raises(DataError) as caught:
            read_lessons(write(path, lines(1) + lines(1, weight)))
        assert caught.value.message == f"`{path}`, line 2: a message of the assistant has weight {weight!r}"
        assert caught.value.hint == "write 0 for an answer that is not learned, 1 or nothing for one that is"
    with pytest.raises(DataError, match="line 1: no message of the assistant to learn from"):
        read_lessons(write(path, lines(0, 0)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "`{path}` is empty"),
        ('{"messages": []}\n', "`{path}`, line 1: no list of `messages`"),
        ('\n{"prompt": "x"}\n', "`{path}`, line 2: no list of `messages`"),
        ('{"messages": [{"role": "bot", "content": "x"}]}', "`{path}`, line 1: a message has role 'bot' and content of type str"),
        (
            '{"messages": [{"role": "user", "content": null}]}',
            "`{path}`, line 1: a message has role 'user' and content of type NoneType",
        ),
        ('{"messages": [{"role": "user", "content": "x"}]}', "`{path}`, line 1: no message of the assistant to learn from"),
        ("{nonsense}\n", "`{path}`, line 1: not JSON: Expecting property name enclosed in double quotes at column 2"),
    ],
)
def test_a_bad_conversation_is_named_with_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "c.jsonl", content)
    with pytest.raises(DataError) as caught:
        read_lessons(path)
    assert caught.value.message == message.format(path=path)


def test_a_table_without_its_columns_named_lists_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,x\n")
    with pytest.raises(UsageError) as caught:
        read_lessons(path, input_column="text")
    assert caught.value.message == "`t.csv` is a table, and --label-column does not say which column to use"
    assert caught.value.hint == "its columns are: text, label"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("", "`{path}` is empty", "the first line names the columns, each further line is one row"),
        ("text,label\n", "`{path}` has a header and no rows", "each line after the first is one row"),
        ("text,kind\na,x\n", "`{path}` has no column `label`", "its columns are: text, kind"),
        ("text,label\na,x\nb, \n", "`{path}`, line 3: column `label` is empty", "fill it in or remove the row"),
    ],
)
def test_a_bad_table_is_named_with_what_to_do(tmp_path: Path, content: str, message: str, hint: str) -> None:
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DataError) as caught:
        read_lessons(path, input_column="text", label_column="label")
    assert (caught.value.message, caught.value.hint) == (message.format(path=path), hint)


def test_a_single_label_teaches_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,x\nb,x\n")
    with pytest.raises(DataError, match="every row has the label `x`"):
        read_lessons(path, input_column="text", label_column="label")


def test_free_answers_are_learned_with_an_instruction_and_refused_where_the_question_would_list_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\n" + "".join(f"Say {n}.,It is {n}.\n" for n in range(257)))
    with pytest.raises(DataError) as caught:
        read_lessons(path, input_column="text", label_column="label")
    assert (caught.value.message, caught.value.hint) == (
        f"`{path}`: there are 257 different labels, and the question can name 256 at most",
        "give --instruction, which does not list them, if column `label` holds free answers",
    )
    assert len(read_lessons(path, input_column="text", label_column="label", instruction="Answer.")) == 257


def test_a_file_of_another_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_lessons(write(tmp_path / "t.xlsx", "x"))
    assert caught.value.hint == "tables end in .csv, .tsv, .tab, conversations in .jsonl, .ndjson, .json"


def test_share_gpt_and_alpaca_are_told_by_their_first_entry(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "네"}, {"from": "human", "value": "bye"}]
    share = read(write(tmp_path / "s.json", json.dumps([{"id": "1", "conversations": turns}])))
    assert share.format == "ShareGPT conversations"
    assert [(m.role, m.content) for m in share.lessons[0].messages] == [("user", "안녕"), ("assistant", "네")]
    alpaca = read(write(tmp_path / "a.jsonl", '{"instruction": "Add.", "input": "1 2", "output": "3"}\n'))
    assert alpaca.format == "Alpaca instructions"
    assert [m.content for m in alpaca.lessons[0].messages] == ["Add.\n\n1 2", "3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "`{path}` is an empty list"),
        ("[1]", "`{path}`, entry 1: not a JSON object"),
        ('[{"instruction": "x", "output": ""}]', "`{path}`, entry 1: `output` is ''"),
        (
            '[{"conversations": [{"from": "cat", "value": "x"}]}]',
            "`{path}`, entry 1: a turn is from 'cat' and has a value of type str",
        ),
        (
            '[{"conversations": [{"from": ["human"], "value": "x"}]}]',
            "`{path}`, entry 1: a turn is from ['human'] and has a value of type str",
        ),
        ("[" * 100_000, "`{path}`: lists or objects inside one another, too many to be read"),
        (
            '[{"instruction": "x", "output": "\\ud83d"}]',
            "`{path}`, entry 1: a character is only half there (a `\\ud83d` without its partner)",
        ),
        ('[\n{"instruction": \n}]', "`{path}`, line 3: not JSON: Expecting value at column 1"),
        ('\n\n\n[\n{"instruction": \n}]', "`{path}`, line 6: not JSON: Expecting value at column 1"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "c.json", content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == message.format(path=path)


def test_an_instruction_for_conversations_is_refused(tmp_path: Path) -> None:
    """They hold all that is asked; it would be kept in the adapter, and stand before the texts of a table that goes on from it."""
    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n')
    with pytest.raises(UsageError) as caught:
        read(path, instruction="Be brief.")
    assert caught.value.message == "--instruction is for tables"
