"""What can be learned from: tables and conversations, good and bad."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nomoat import conversations
from nomoat.conversations import Lesson
from nomoat.errors import DataError, UsageError
from nomoat.rows import Source, taken
from nomoat.tune.data import read

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
SHARED = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
ALPACA = {"instruction": "hi", "output": "ho"}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read_lessons(path: Source, **options: str) -> list[Lesson]:
    return read(path, **options).lessons  # type: ignore[arg-type]


def test_a_table_gives_a_lesson_a_row_with_every_label_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\n좋아요!,positive\nBad.,negative\n")
    first, second = read_lessons(path, input_column="text", label_column="label")
    assert first.messages[0].content == (
        "Classify the text. Answer with one of: negative, positive.\n\nText: 좋아요!\nLabel:"
    )  # fmt: skip
    assert (first.label, second.label, second.where) == ("positive", "negative", "line 3")


def test_rows_give_the_lessons_that_their_file_gives(tmp_path: Path) -> None:
    rows = [{"text": "좋아요!", "label": "positive"}, {"text": " Bad.", "label": "negative"}]
    columns = {"input_column": "text", "label_column": "label"}
    of_file = read_lessons(write(tmp_path / "t.csv", "text,label\n좋아요!,positive\nBad.,negative\n"), **columns)
    found = read_lessons(taken(rows, "rows"), **columns)
    assert [replace(lesson, where="") for lesson in found] == [replace(lesson, where="") for lesson in of_file]
    assert [lesson.where for lesson in found] == ["row 1", "row 2"]
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "tool_calls": None, "weight": float("nan")}]
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
    for row in ({"messages": said}, {"conversations": turns}, {"instruction": "hi", "input": None, "output": "ho"}):
        (lesson,) = read_lessons(taken([{**row, "tools": None}], "rows"))
        assert [message.content for message in lesson.messages] == ["hi", "ho"]


def test_of_rows_without_a_conversation_the_columns_have_to_be_named() -> None:
    with pytest.raises(UsageError) as caught:
        read_lessons(taken([{"review": "Bad.", "stars": 1}], "rows"))
    assert caught.value.message == "`rows` is a table, and its input column is not named"
    assert caught.value.hint == (
        "name it with --input-column (in Python: `input_column`); its columns are: review, stars; "
        "or for conversations, give each row `messages`, `conversations`, `instruction` or `prompt`"
    )
    with pytest.raises(DataError, match="`rows`, row 2: no list of `messages`"):
        read_lessons(taken([{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}, {}], "rows"))
    with pytest.raises(UsageError, match="an instruction is for tables") as caught:
        read_lessons(taken([{"messages": []}], "rows"), instruction="Answer.")
    assert caught.value.hint == (
        "write it into each conversation, as its `system` message; "
        "or name both columns of a table (in Python: `input_column` and `label_column`)"
    )


def test_the_users_own_instruction_is_used_word_for_word(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,x\nb,y\n")
    lesson = read_lessons(path, input_column="text", label_column="label", instruction="감정을 고르세요.")[0]
    assert lesson.messages[0].content == "감정을 고르세요.\n\nText: a\nLabel:"


def test_an_instruction_that_holds_the_texts_place_is_the_whole_question_of_each_row(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "title,body,label\na {text},b,x\nc,d,y\n")
    data = read(path, input_column="{title}: {body}", label_column="label", instruction="{text}\n감정:")
    assert data.question == "{text}\n감정:"
    assert [lesson.messages[0].content for lesson in data.lessons] == ["a {text}: b\n감정:", "c: d\n감정:"]


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
    with pytest.raises(DataError, match="line 1: no answer is to be learned: each has weight 0, `loss` or `train` false") as caught:
        read_lessons(write(path, lines(0, 0)))
    assert caught.value.hint == "leave the conversation out, or take the mark off an answer that is to be learned"


@pytest.mark.parametrize("name", ["loss", "train"])
def test_an_answer_that_other_trainers_mark_is_read_and_not_learned(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.jsonl"

    def lesson(**marks: object) -> Lesson:
        return read_lessons(write(path, json.dumps({"messages": [CHAT[0], {**CHAT[1], **marks}, *CHAT]})))[0]

    assert [lesson(**{name: mark}).learned for mark in (False, 0, True, 1, None)] == [[3], [3], [1, 3], [1, 3], [1, 3]]
    assert lesson(**{name: False, "weight": 0}).learned == [3]
    with pytest.raises(DataError) as caught:
        lesson(**{name: 0.5})
    assert caught.value.message == f"`{path}`, line 1: a message of the assistant has {name} 0.5"
    assert caught.value.hint == "write false for an answer that is not learned, true or nothing for one that is"
    with pytest.raises(DataError, match=f"line 1: a message of the assistant has weight 1 and {name} False"):
        lesson(**{name: False, "weight": 1})


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_an_answer_to_learn_is_refused(tmp_path: Path, name: str) -> None:
    """Else a model that reasons would learn to answer without. Of a test file, what is asked there counts alone."""
    path = tmp_path / "c.jsonl"
    for asked, answer, field in ((CHAT[0], CHAT[1], "messages"), (SHARED[0], SHARED[1], "conversations")):
        with pytest.raises(DataError) as caught:
            read(write(path, json.dumps({field: [asked, {**answer, name: "Let me see."}]})))
        said = f"an answer of the assistant has its reasoning beside it, as `{name}`, which would not be learned"
        assert caught.value.message == f"`{path}`, line 1: {said}"
        assert read(path, is_learned=False).notes == (f"not read of turns, with how many have it: `{name}` (1)",)
        for marks in ({name: None}, {name: ""}, {name: "\n\n"}, {name: False}, {name: "Let me see.", "weight": 0}):
            assert read(write(path, json.dumps({field: [asked, {**answer, **marks}, asked, answer]}))).lessons[0].learned[-1] == 3


@pytest.mark.parametrize("entry", [{"messages": CHAT}, {"conversations": SHARED}, ALPACA, {"prompt": "hi", "completion": "ho"}])
@pytest.mark.parametrize(("key", "value", "said"), [
    ("chosen", {"from": "gpt", "value": "ho"}, "it has `chosen`, and nomoat learns answers, not which of two is the better one"),
    ("rejected", "he", "it has `rejected`, and nomoat learns answers, not which of two is the better one"),
    ("images", ["a.png"], "it has `images`, and nomoat learns texts"),
    ("label", False, "its `label` is false, and nomoat learns every answer as a good one"),
    ("kto_tag", True, "its `kto_tag` is true, and nomoat learns every answer as a good one"),
])  # fmt: skip
def test_what_changes_the_meaning_of_a_conversation_is_refused(
    tmp_path: Path, entry: dict[str, Any], key: str, value: object, said: str
) -> None:
    path = tmp_path / "c.jsonl"
    with pytest.raises(DataError) as caught:
        read(write(path, f"{json.dumps(entry)}\n{json.dumps(entry | {key: value})}\n"))
    assert caught.value.message == f"`{path}`, line 2: {said}"
    assert len(read(write(path, json.dumps(entry | {key: None}))).lessons) == 1


def test_the_first_fault_is_told_with_how_many_more_lessons_have_one(tmp_path: Path) -> None:
    def message(*entries: dict[str, Any]) -> str:
        with pytest.raises(DataError) as caught:
            read(write(path, "".join(f"{json.dumps(entry)}\n" for entry in entries)))
        assert caught.value.__cause__ is None  # its traceback has the message once
        return caught.value.message.removeprefix(f"`{path}`, ")

    path = tmp_path / ("a b.jsonl" if sys.platform == "win32" else "a: b.jsonl")
    good, empty = {"messages": CHAT}, {"messages": [CHAT[0], {**CHAT[1], "content": ""}]}
    tools, thought = {"messages": CHAT, "tools": ["f"]}, {"messages": [CHAT[0], {**CHAT[1], "thinking": "Hm."}]}
    said = "line 2: it has `tools`, and nomoat learns what is said, not how tools are called"
    assert message(good, tools, good) == said
    assert message(good, tools, tools, good, tools) == f"{said} (2 more like it)"
    assert message(good, tools, empty, {"messages": []}) == f"{said} (2 more with other faults)"
    assert message(good, tools, empty, tools) == f"{said} (1 more like it, 1 more with other faults)"
    weights = ({"messages": [CHAT[0], {**CHAT[1], "weight": weight}]} for weight in (0.5, 0.7, 0.1))
    assert message(*weights).endswith("weight 0.5 (2 more like it)")
    assert message(good, thought, thought).endswith("as `thinking`, which would not be learned (1 more like it)")


@pytest.mark.parametrize("name", ["system", "weight", ""])
def test_a_note_tells_of_answers_that_nothing_is_asked_before(tmp_path: Path, name: str) -> None:
    """They are not learned, but for those behind a message of the system; nor told of where they are marked as not learned."""
    greeting = {"from": "gpt", "value": "Welcome!", **({"weight": 0} if name == "weight" else {})}
    row = {"conversations": [greeting, *SHARED], **({"system": "Be."} if name == "system" else {})}
    path = write(tmp_path / "c.json", json.dumps([row, row, {"conversations": SHARED}]))
    said = "2 conversations begin with an answer, which is read and not learned: nothing is asked before it"
    assert read(path).notes == (() if name else (said,))
    assert read(path, is_learned=False).notes == ()
    assert read(path).lessons[0].learned == ([1, 3] if name == "system" else [2])


def test_preferences_alone_are_called_so_and_not_by_their_keys(tmp_path: Path) -> None:
    for entry in ({"prompt": "hi", "chosen": "ho", "rejected": "he"}, {"instruction": "hi", "chosen": "ho", "rejected": "he"}):
        with pytest.raises(DataError, match="line 1: it has `chosen`, and nomoat learns answers") as caught:
            read(write(tmp_path / "c.jsonl", json.dumps(entry)))
        assert caught.value.hint == "write the chosen answer as the conversation's last turn, and leave `chosen` and `rejected` out"


def test_notes_name_all_that_was_not_read(tmp_path: Path) -> None:
    named = [CHAT[0] | {"name": "bob"}, CHAT[1] | {"weight": 1, "tool_calls": None}]
    more = {"id": 7, "tools": [], "system": "Be.", "chat_template_kwargs": {"enable_thinking": False}}
    rows = [{"messages": named, "id": 6}, {"messages": [*named, CHAT[0]], **more}]
    assert read(write(tmp_path / "c.json", json.dumps(rows))).notes == (
        "not read of lessons, with how many have it: `id` (2), `chat_template_kwargs` (1)",
        "not read of turns, with how many have it: `name` (2)",
        "1 conversation ends with turns behind the last answer to learn, which are left out",
    )
    plain = [ALPACA | {"input": "", "history": [["a", "b"]]}, {"prompt": CHAT[:1], "completion": CHAT[1:], "system_prompt": "Be."}]
    for entry in (*plain, {"conversations": CHAT}, {"conversations": SHARED}):
        assert read(write(tmp_path / "c.json", json.dumps([entry]))).notes == ()
    rows = [{"conversations": SHARED * 2 + SHARED[:1], **{f"k{n}": n for n in range(12)}}] * 2
    assert read(write(tmp_path / "c.json", json.dumps(rows))).notes == (
        "not read of lessons, with how many have it: " + ", ".join(f"`k{n}` (2)" for n in range(10)) + " and 2 more",
        "2 conversations end with turns behind the last answer to learn, which are left out",
    )


def test_a_prompt_is_asked_and_its_completion_learned(tmp_path: Path) -> None:
    def turns(prompt: object, completion: object, **more: object) -> list[tuple[str, str]]:
        found = read(write(tmp_path / "p.jsonl", json.dumps({"prompt": prompt, "completion": completion, **more})))
        assert found.format == "prompts and completions"
        return [(message.role, message.content) for message in found.lessons[0].messages]

    assert turns("The sky is ", " blue.\n") == [("user", "The sky is"), ("assistant", "blue.")]
    assert turns("def f():", "    return 1") == [("user", "def f():"), ("assistant", "    return 1")]
    assert turns("1 + 1", 2, system_prompt="Add.") == [("system", "Add."), ("user", "1 + 1"), ("assistant", "2")]
    assert turns(CHAT[:1], CHAT[1:]) == [("user", "hi"), ("assistant", "ho")]
    assert turns("hi", CHAT[1:]) == [("user", "hi"), ("assistant", "ho")]


def test_answers_in_a_prompt_are_read_and_not_learned(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    row = {"prompt": [{"role": "system", "content": "Be."}, *CHAT, CHAT[0]], "completion": [CHAT[1], *CHAT]}
    assert read(write(path, json.dumps(row))).lessons[0].learned == [4, 6]
    assert read_lessons(taken([row], "rows"))[0].learned == [4, 6]
    with pytest.raises(DataError, match=r"line 1: no answer is to be learned: .* or stands in a `prompt`"):
        read(write(path, json.dumps({"prompt": CHAT, "completion": CHAT[:1]})))


@pytest.mark.parametrize(("prompt", "completion", "message"), [
    ("", "ho", "`prompt` is ''"), ("hi", " ", "`completion` is ' '"), ("hi", None, "`completion` is None"),
    ("hi", [], "`completion` is empty"), ({"role": "user"}, "ho", "`prompt` is {'role': 'user'}"),
    ("hi", [{"role": "bot", "content": "ho"}], "a message has role 'bot' and content of type str"),
])  # fmt: skip
def test_a_bad_prompt_or_completion_is_named(tmp_path: Path, prompt: object, completion: object, message: str) -> None:
    path = write(tmp_path / "p.jsonl", json.dumps({"prompt": prompt, "completion": completion}))
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, line 1: {message}"


@pytest.mark.parametrize(("field", "who", "words", "asks", "answers"), [
    ("messages", "role", "content", "user", "assistant"), ("conversations", "from", "value", "human", "gpt"),
])  # fmt: skip
@pytest.mark.parametrize("said", [["ho", " "], ["\n", "ho"], [""], ["\u200b"]])
def test_an_empty_answer_is_refused_wherever_it_stands_and_read_where_it_is_not_learned(
    tmp_path: Path, field: str, who: str, words: str, asks: str, answers: str, said: list[str]
) -> None:
    def chat(weight: int) -> str:
        turns = [turn for text in said for turn in ({who: asks, words: "hi"}, {who: answers, words: text, "weight": weight})]
        return json.dumps({field: [*turns, {who: asks, words: "bye"}, {who: answers, words: "farewell"}]}) + "\n"

    path = write(tmp_path / "c.jsonl", chat(1))
    with pytest.raises(DataError) as caught:
        read_lessons(path)
    assert caught.value.message == f"`{path}`, line 1: an answer of the assistant is empty"
    assert caught.value.hint == 'write it, leave the conversation out, or give the answer "weight": 0, which is read and not learned'
    assert read_lessons(write(path, chat(0)))[0].messages[-1].content == "farewell"


def test_a_conversation_in_which_nothing_is_answered_says_what_a_lesson_is(tmp_path: Path) -> None:
    greeting = json.dumps({"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "ho"}]})
    with pytest.raises(DataError, match="no message of the assistant to learn from") as caught:
        read_lessons(write(tmp_path / "c.jsonl", greeting))
    assert caught.value.hint == "a lesson is what is said to the assistant, and its answer"


def test_an_entry_of_another_form_than_the_first_is_named_as_one(tmp_path: Path) -> None:
    said = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
    mixed = [{"messages": CHAT}, said, {"messages": CHAT}, {"instruction": "hi", "output": "ho"}]
    with pytest.raises(DataError) as caught:
        read_lessons(write(tmp_path / "c.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in mixed)))
    assert caught.value.message == (
        f"`{tmp_path / 'c.jsonl'}`, line 2: one of ShareGPT conversations, and the first is one of OpenAI chats (1 more like it)"
    )
    assert caught.value.hint == "keep each form in a file of its own, or write all entries in one"


@pytest.mark.parametrize(("turns", "message"), [([], "`conversations` is empty"), (None, "no list of `conversations`")])
def test_an_entry_without_a_turn_is_of_no_other_form(tmp_path: Path, turns: Any, message: str) -> None:
    """Logs hold such, and where `conversations` are OpenAI's messages they were called ShareGPT's."""
    entries = ({"conversations": CHAT}, {"conversations": turns})
    with pytest.raises(DataError) as caught:
        read_lessons(write(tmp_path / "c.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in entries)))
    assert caught.value.message == f"`{tmp_path / 'c.jsonl'}`, line 2: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "`{path}` is empty"),
        ('{"messages": []}\n', "`{path}`, line 1: `messages` is empty"),
        ('{"conversations": []}\n', "`{path}`, line 1: `conversations` is empty"),
        (f'{json.dumps({"messages": CHAT})}\n{{"prompt": "x"}}\n', "`{path}`, line 2: no list of `messages`"),
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


@pytest.mark.parametrize(
    ("content", "where", "keys"),
    [
        ('{"prompt": "hi", "response": "ho"}\n', "line 1", "`prompt`, `response`"),
        ('{"data": [{"instruction": "hi", "output": "ho"}]}', "line 1", "`data`"),
        (f'[{{"{"x" * 100}": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}}]', "entry 1", f"`{'x' * 80}`, `b`, `c`, `d`, `e` and 1 more"),
        ("{}", "line 1", "none"),
    ],
)
def test_what_is_no_conversation_is_told_by_its_keys_and_the_forms_there_are_are_named(
    tmp_path: Path, content: str, where: str, keys: str
) -> None:
    path = write(tmp_path / "c.jsonl", content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, {where}: no conversation; its keys are: {keys}"
    assert caught.value.hint == (
        'write {"messages": [{"role": ..., "content": ...}]}, {"conversations": [{"from": ..., "value": ...}]}, '
        '{"instruction": ..., "output": ...} or {"prompt": ..., "completion": ...}'
    )


def test_a_table_without_its_columns_named_lists_them(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "text,label\na,x\n")
    with pytest.raises(UsageError) as caught:
        read_lessons(path, input_column="text")
    assert caught.value.message == "`t.csv` is a table, and its label column is not named"
    assert caught.value.hint == "name it with --label-column (in Python: `label_column`); its columns are: text, label"


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
        "if column `label` holds free answers, give an --instruction (in Python: `instruction`) that does not list the labels",
    )
    assert len(read_lessons(path, input_column="text", label_column="label", instruction="Answer.")) == 257


def test_a_file_of_another_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    known = "tables end in .csv, .tsv, .tab, conversations in .jsonl, .ndjson, .json"
    excels = "; rename it to .tsv if it is a table with tabs, as Excel's Unicode text is"
    for name, hint in (("t.pdf", known), ("t.txt", known + excels)):
        with pytest.raises(UsageError) as caught:
            read_lessons(write(tmp_path / name, "x"))
        assert caught.value.message == f"`{tmp_path / name}`: nomoat cannot tell what kind of file this is"
        assert caught.value.hint == hint


def test_a_folder_is_no_file_to_learn_from() -> None:
    with pytest.raises(UsageError) as caught:
        read(Path())
    assert caught.value.message == "`.` is a folder, not a file"


def test_share_gpt_and_alpaca_are_told_by_their_first_entry(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "안녕"}, {"from": "gpt", "value": "네"}, {"from": "human", "value": "bye"}]
    share = read(write(tmp_path / "s.json", json.dumps([{"id": "1", "conversations": turns}])))
    assert share.format == "ShareGPT conversations"
    assert [(m.role, m.content) for m in share.lessons[0].messages] == [("user", "안녕"), ("assistant", "네")]
    alpaca = read(write(tmp_path / "a.jsonl", '{"instruction": "Add.", "input": "1 2", "output": "3"}\n'))
    assert alpaca.format == "Alpaca instructions"
    assert [m.content for m in alpaca.lessons[0].messages] == ["Add.\n\n1 2", "3"]
    empty = read(write(tmp_path / "n.jsonl", '{"instruction": "Add.", "input": NaN, "output": 3}\n'))  # as pandas writes nothing
    assert [m.content for m in empty.lessons[0].messages] == ["Add.", "3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "`{path}` is an empty list"),
        ("[1]", "`{path}`, entry 1: not a JSON object"),
        ('[{"instruction": "x", "output": ""}]', "`{path}`, entry 1: `output` is ''"),
        ('[{"instruction": "x", "output": NaN}]', "`{path}`, entry 1: `output` is None"),
        ('[{"prompt": "x", "completion": NaN}]', "`{path}`, entry 1: `completion` is None"),
        ('[{"prompt": "x", "completion": -Infinity}]', "`{path}`: not JSON: -Infinity, which is no number"),
        (
            '[{"messages": [{"role": "user", "content": "\\ufeff "}, {"role": "assistant", "content": "x"}]}]',
            "`{path}`, entry 1: the question before an answer of the assistant is empty",
        ),
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
    assert caught.value.message == "an instruction is for tables"


@pytest.mark.parametrize("entry", [{"messages": CHAT}, {"conversations": SHARED}, ALPACA])
def test_what_the_system_says_beside_the_turns_is_its_message(tmp_path: Path, entry: dict[str, Any]) -> None:
    def said(**system: object) -> list[tuple[str, str]]:
        (lesson,) = read(write(tmp_path / "c.json", json.dumps([entry | system]))).lessons
        return [(message.role, message.content) for message in lesson.messages]

    turns = [("user", "hi"), ("assistant", "ho")]
    assert said(system="Be a pirate.") == said(system_prompt="Be a pirate.", system="") == [("system", "Be a pirate."), *turns]
    assert said(system="") == said(system=None) == said(system_prompt=" ") == turns
    with pytest.raises(DataError, match="entry 1: `system_prompt` is of type list"):
        said(system_prompt=["Be a pirate."])
    assert said(system_prompt="Be a pirate.", system="Be a pirate.\n") == [("system", "Be a pirate."), *turns]
    with pytest.raises(DataError, match="entry 1: it has a `system` and a `system_prompt`"):
        said(system_prompt="Be a pirate.", system="Be kind.")


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_a_system_that_speaks_beside_the_turns_and_in_the_first_of_them_says_the_same(tmp_path: Path, name: str) -> None:
    path, first = tmp_path / "c.json", {"role": "system", "content": "Be kind."}
    for entry in ({"messages": [first, *CHAT]}, {"prompt": [first, CHAT[0]], "completion": CHAT[1:]}):
        (lesson,) = read(write(path, json.dumps([entry | {name: "Be kind.\n"}]))).lessons
        assert ([message.role for message in lesson.messages], lesson.learned) == (["system", "user", "assistant"], [2])
        with pytest.raises(DataError) as caught:
            read(write(path, json.dumps([entry | {name: "Be a pirate."}])))
        assert caught.value.message == f"`{path}`, entry 1: it has a `{name}`, and begins with another message of the system"
    with pytest.raises(DataError, match="entry 1: it begins with two messages of the system"):
        read(write(path, json.dumps([{"messages": [first, first, *CHAT]}])))


def test_the_history_of_an_instruction_is_its_earlier_turns(tmp_path: Path) -> None:
    """Learned as the turns of other conversations are; with Alpaca's own template, too."""
    entry = {"instruction": "and 2 2?", "input": "now", "output": "4", "history": [["1 1?", "2"]], "system": "Add."}
    (lesson,) = read(write(tmp_path / "a.json", json.dumps([entry]))).lessons
    assert [message.content for message in lesson.messages] == ["Add.", "1 1?", "2", "and 2 2?\n\nnow", "4"]
    assert lesson.learned == [2, 4]
    assert read(write(tmp_path / "b.json", json.dumps([ALPACA | {"history": []}]))).lessons[0].learned == [1]
    for history in (["1 1?", "2"], [["1 1?"]], [["1 1?", ""]], "1 1? 2"):
        with pytest.raises(DataError, match="entry 1: `history` is no list of pairs of texts"):
            read(write(tmp_path / "a.json", json.dumps([entry | {"history": history}])))


@pytest.mark.parametrize("name", ["tools", "functions"])
@pytest.mark.parametrize("entry", [{"messages": CHAT}, {"conversations": SHARED}, ALPACA])
def test_a_lesson_with_tools_is_refused(tmp_path: Path, name: str, entry: dict[str, Any]) -> None:
    """Without them it would teach to answer where a call is meant."""
    path = tmp_path / "c.json"
    for tools in ([{"type": "function"}], '[{"name": "weather"}]'):
        with pytest.raises(DataError) as caught:
            read(write(path, json.dumps([entry, entry | {name: tools}])))
        assert caught.value.message == f"`{path}`, entry 2: it has `{name}`, and nomoat learns what is said, not how tools are called"
    for none in ([], "[]", None, ""):
        assert len(read(write(path, json.dumps([entry | {name: none}]))).lessons) == 1


@pytest.mark.parametrize("call", [{"tool_calls": [{"type": "function"}]}, {"function_call": {"name": "weather"}}])
@pytest.mark.parametrize("content", ["", None])
def test_a_turn_that_calls_a_tool_is_refused(tmp_path: Path, call: dict[str, Any], content: str | None) -> None:
    chat = [*CHAT, {"role": "assistant", "content": content, **call}, *CHAT]
    with pytest.raises(DataError, match=f"line 1: it has `{next(iter(call))}`"):
        read(write(tmp_path / "c.jsonl", json.dumps({"messages": chat})))
    none = [{**message, "tool_calls": None} for message in CHAT]
    assert read(write(tmp_path / "c.jsonl", json.dumps({"messages": none}))).lessons[0].learned == [1]


@pytest.mark.parametrize("speaker", ["function_call", "tool", "observation"])
def test_a_turn_of_a_tool_is_refused_as_such(tmp_path: Path, speaker: str) -> None:
    shared, chat = [*SHARED, {"from": speaker, "value": "sunny"}], [*CHAT, {"role": speaker, "content": "sunny"}]
    for entry in ({"conversations": shared}, {"messages": chat}):
        with pytest.raises(DataError, match=f"entry 1: it has a turn from `{speaker}`, and nomoat learns what is said, not how"):
            read(write(tmp_path / "s.json", json.dumps([entry])))


def test_weights_count_in_share_gpt_as_well(tmp_path: Path) -> None:
    turns = [*SHARED[:1], {"from": "gpt", "value": "no", "weight": 0}, *SHARED]
    (lesson,) = read(write(tmp_path / "s.json", json.dumps([{"system": "Be.", "conversations": turns}]))).lessons
    assert lesson.learned == [4]
    with pytest.raises(DataError, match="entry 1: a message of the assistant has weight 2"):
        read(write(tmp_path / "s.json", json.dumps([{"conversations": [*SHARED[:1], {**SHARED[1], "weight": 2}]}])))


@pytest.mark.parametrize("speaker", ["chatgpt", "bing", "bard"])
def test_other_names_of_the_assistant_are_known(tmp_path: Path, speaker: str) -> None:
    turns = [SHARED[0], {"from": speaker, "value": "ho"}]
    assert read(write(tmp_path / "s.json", json.dumps([{"conversations": turns}]))).lessons[0].learned == [1]


def test_an_instruction_without_input_may_say_null(tmp_path: Path) -> None:
    (lesson,) = read(write(tmp_path / "a.json", json.dumps([ALPACA | {"input": None}]))).lessons
    assert (lesson.messages[0].content, lesson.alpaca_question) == ("hi", None)


def test_numbers_of_an_instruction_are_their_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"instruction": "Double it.", "input": 0.5, "output": 1}\n')
    assert [message.content for message in read(path).lessons[0].messages] == ["Double it.\n\n0.5", "1"]
    with pytest.raises(DataError, match="line 1: `output` is True"):
        read(write(tmp_path / "b.jsonl", '{"instruction": "Is it?", "output": true}\n'))


@pytest.mark.parametrize(
    ("name", "given"), [("text", "A story."), ("본문", "A story."), ("Question", "A story."), ("Context", "A story."), ("q", 0.5)]
)
def test_a_text_that_stands_in_the_place_of_an_input_is_not_passed_over(tmp_path: Path, name: str, given: object) -> None:
    entry = {"instruction": "Summarise\nit, Zoë.", name: given, "output": "Short."}
    path = write(tmp_path / "a.jsonl", json.dumps({**entry, name: " "}) + "\n" + json.dumps(entry) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, line 2: it has no `input`, and a `{name}`, which would not be asked"
    written_out = "Below is an instruction.\r\n\r\nSummarise\r\nit,  Zoe\u0308.\r\n"  # as Alpaca's own file has `text`
    for nothing in ("", None):
        with pytest.raises(DataError, match=f"line 1: it has an empty `input`, and a `{name}`"):
            read(write(path, json.dumps({**entry, "input": nothing}) + "\n"))
    for more in ({name: written_out}, {name: True}):
        (lesson,) = read(write(tmp_path / "b.jsonl", json.dumps({**entry, **more}) + "\n")).lessons
        assert lesson.messages[0].content == "Summarise\nit, Zoë."


def test_dolly_is_read_as_alpaca_is(tmp_path: Path) -> None:
    entry = {"instruction": "Who lives there?", "context": "Kim lives there.", "response": "Kim", "category": "closed_qa"}
    chats = read(write(tmp_path / "a.jsonl", json.dumps(entry) + "\n" + json.dumps({**entry, "context": ""}) + "\n"))
    assert chats.format == "Alpaca instructions"
    asked = [[message.content for message in lesson.messages] for lesson in chats.lessons]
    assert asked == [["Who lives there?\n\nKim lives there.", "Kim"], ["Who lives there?", "Kim"]]
    assert chats.notes == ("not read of lessons, with how many have it: `category` (2)",)
    alpaca = write(tmp_path / "b.jsonl", json.dumps({**entry, "input": "Lee lives there.", "output": "Lee"}) + "\n")
    with pytest.raises(DataError, match="no `output`; its keys are: `instruction`, `answer`"):
        read(write(tmp_path / "c.jsonl", json.dumps({"instruction": "Who?", "answer": "Kim"}) + "\n"))
    assert read(alpaca).notes == ("not read of lessons, with how many have it: `context` (1), `response` (1), `category` (1)",)
    for nothing in ("", None):
        joined = read(write(tmp_path / "d.jsonl", json.dumps({**entry, "input": nothing, "output": nothing}) + "\n"))
        assert joined.lessons == read(write(tmp_path / "d.jsonl", json.dumps(entry) + "\n")).lessons


@pytest.mark.parametrize(("name", "source"), [("document", "wiki_12.pdf"), ("본문", 12)])
def test_the_source_of_a_context_is_no_part_of_its_question(tmp_path: Path, name: str, source: object) -> None:
    entry = {"instruction": "Who lives there?", "context": "Kim lives there.", "response": "Kim"}
    path = write(tmp_path / "a.jsonl", json.dumps({**entry, name: source}) + "\n")
    assert read(path).lessons[0].messages[0].content == "Who lives there?\n\nKim lives there."
    assert read(path).notes == (f"not read of lessons, with how many have it: `{name}` (1)",)
    (alone,) = read(write(path, json.dumps({**entry, "context": "", "input": "", name: source}) + "\n")).lessons
    assert alone.messages[0].content == "Who lives there?"
    with pytest.raises(DataError, match=f"it has no `input`, and a `{name}`"):
        read(write(path, json.dumps({"instruction": "Translate into Korean.", name: source, "output": "Kim"}) + "\n"))
    for more in ({name: "Lee lives there."}, {"message": "ok"}, {"문의": "12"}):
        with pytest.raises(DataError, match="it has a `context`, and beside it"):
            read(write(path, json.dumps({**entry, **more}) + "\n"))


@pytest.mark.parametrize("nothing", ["", None])
def test_a_context_is_the_input_where_that_says_nothing(tmp_path: Path, nothing: str | None) -> None:
    entry = {"instruction": "Who lives\nthere?", "input": nothing, "context": "Kim lives there.", "output": "Kim"}
    chats = read(write(tmp_path / "a.jsonl", json.dumps(entry) + "\n"))
    assert (chats.lessons[0].messages[0].content, chats.notes) == ("Who lives\nthere?\n\nKim lives there.", ())


def test_a_context_that_stands_in_the_instruction_is_not_learned_twice(tmp_path: Path) -> None:
    entry = {"instruction": "Given this: Kim lives\nthere.\nWho?", "context": "Kim lives there.", "output": "Kim"}
    chats = read(write(tmp_path / "a.jsonl", json.dumps(entry) + "\n"))
    assert chats.lessons[0].messages[0].content == entry["instruction"]
    assert chats.notes == ("not read of lessons, with how many have it: `context` (1)",)


@pytest.mark.parametrize(
    ("instruction", "context"), [("Multiply the number by 5.", "5"), ("Multiply the number by 5.", 5), ("What is C++?", "C++")]
)
def test_a_context_of_one_word_is_learned_wherever_else_it_stands(tmp_path: Path, instruction: str, context: object) -> None:
    entry = {"instruction": instruction, "context": context, "response": "25"}
    chats = read(write(tmp_path / "a.jsonl", json.dumps(entry) + "\n"))
    assert (chats.lessons[0].messages[0].content, chats.notes) == (f"{instruction}\n\n{context}", ())


def test_long_contexts_that_stand_in_the_instruction_are_read_at_once(tmp_path: Path) -> None:
    contexts = [" ".join(f"{n}-{at}" for at in range(4000)) for n in range(50)]
    entries = [{"instruction": f"{context} Who?", "context": context, "output": "Kim"} for context in contexts]
    path = write(tmp_path / "a.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in entries))
    started = time.process_time()
    assert read(path).lessons[49].messages[0].content == f"{contexts[49]} Who?"
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "turn", "is_held"),
    [
        ("b c", "a b\nc d", True), ("b c", "ab c, b cd", False), ("b", "ab, b.", True), ("b", "_b b1", False),
        ("C++", "What is C++?", True), ("한 줄", "한 줄입니다", False), ("a a", "a aa a", False),
        ("aa", "aaa aa", True), ("abc", "ab", False),
    ],
)  # fmt: skip
def test_a_text_stands_in_another_as_whole_words(text: str, turn: str, is_held: bool) -> None:
    assert conversations.stands_in(text, turn) is is_held


@pytest.mark.parametrize(
    ("more", "what", "mend"),
    [
        ({"question": "Who?", "context": "Kim lives there."}, "a `context`, and beside it `question`", "write it into the `context`"),
        ({"question": "Who?", "context": ""}, "no `input`, and a `question`", "call it `input`"),
    ],
)
def test_a_question_beside_a_context_is_not_passed_over(tmp_path: Path, more: dict[str, str], what: str, mend: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"instruction": "Answer the question.", **more, "output": "Kim"}) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, line 1: it has {what}, which would not be asked"
    assert str(caught.value.hint).startswith(f"{mend}, or leave it out")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"context": ["a"], "response": "x"}, "`context` is ['a']"),
        ({"instruction": "Who? ['a b']", "context": ["a b"], "response": "x"}, "`context` is ['a b']"),
        ({"context": "a", "response": None}, "`response` is None"),
        ({"context": "a", "response": ""}, "`response` is ''"),
    ],
)
def test_what_is_wrong_with_dollys_fields_is_said_of_their_own_names(tmp_path: Path, more: dict[str, object], what: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"instruction": "Who?", **more}) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, line 1: {what}"
    assert caught.value.hint == "`instruction` and `response` are text; `context` may be empty"


@pytest.mark.parametrize("name", ["input", "context", "document", "본문"])
def test_a_text_beside_a_prompt_is_not_passed_over(tmp_path: Path, name: str) -> None:
    path, asked = tmp_path / "p.jsonl", [{"role": "system", "content": "Be."}, {"role": "user", "content": "Summarise\nit."}]
    for entry in ({"prompt": "Summarise\nit.", "completion": "Short."}, {"prompt": asked, "completion": CHAT[1:]}):
        with pytest.raises(DataError) as caught:
            read(write(path, json.dumps({**entry, name: ""}) + "\n" + json.dumps({**entry, name: "A story."}) + "\n"))
        said = f"it has a `prompt`, and beside it `{name}`, which would not be asked"
        assert caught.value.message == f"`{path}`, line 2: {said}"
        for nothing in ("", " ", None):
            assert read(write(path, json.dumps({**entry, name: nothing}) + "\n")).notes == ()
        for once_more in ("User: Summarise it. Bot: Short.", "it."):
            rows = ({**entry, name: once_more}, entry)
            assert len(read(write(path, "".join(f"{json.dumps(row)}\n" for row in rows))).lessons) == 2
        with pytest.raises(DataError, match=f"beside it `{name}`"):
            read(write(path, f"{json.dumps(entry)}\n{json.dumps({**entry, name: 'Sum'})}\n"))


def test_the_spaces_that_code_begins_with_are_learned(tmp_path: Path) -> None:
    entry = {"instruction": " Mend it. ", "input": "\r\n \n\tif x:\n\t\ty \n", "output": "    y = x + 1\n    return y\n\n"}
    (lesson,) = read(write(tmp_path / "a.json", json.dumps([entry]))).lessons
    assert [message.content for message in lesson.messages] == ["Mend it.\n\n\tif x:\n\t\ty", "    y = x + 1\n    return y"]


def test_one_object_over_several_lines_is_one_lesson(tmp_path: Path) -> None:
    """And a line that is broken is named as ever."""
    (lesson,) = read(write(tmp_path / "one.json", json.dumps({"messages": CHAT}, indent=1))).lessons
    assert (lesson.where, lesson.learned) == ("entry 1", [1])
    with pytest.raises(DataError, match="line 2: not JSON"):
        read(write(tmp_path / "two.jsonl", json.dumps({"messages": CHAT}) + "\n{"))


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_chats_are_read_as_they_are_answered_to(tmp_path: Path, field: str) -> None:
    """With the role `developer` and texts in parts; and under the name that ShareGPT's turns have, as on the hub."""
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    chat = [{"role": "developer", "content": "Be."}, {"role": "user", "content": parts}, CHAT[1]]
    found = read(write(tmp_path / "c.jsonl", json.dumps({field: chat}) + "\n"))
    said = [(message.role, message.content) for message in found.lessons[0].messages]
    assert said == [("system", "Be."), ("user", "h\ni"), ("assistant", "ho")]
    assert (found.format, found.lessons[0].learned) == ("OpenAI chats", [2])
    path = write(tmp_path / "c.jsonl", json.dumps({field: [{"role": "bot", "content": "hi"}]}) + "\n")
    with pytest.raises(DataError, match="line 1: a message has role 'bot' and content of type str"):
        read(path)


@pytest.mark.parametrize(
    ("part", "kind"),
    [({"type": "image_url", "image_url": {"url": "x"}}, "'image_url'"), ({"type": "text"}, "'text'"), ({"text": "hi"}, "None")],
)
def test_a_part_that_is_no_text_is_named(tmp_path: Path, part: dict[str, Any], kind: str) -> None:
    chat = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}, CHAT[1]]
    path = write(tmp_path / "c.jsonl", json.dumps({"messages": chat}) + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.message == f"`{path}`, line 1: a message holds a part of type {kind}, and nomoat learns texts"
    assert caught.value.hint == 'leave the conversation out, or write the part as {"type": "text", "text": ...}'
    for content in ([], ["hi"]):
        with pytest.raises(DataError, match="a message has role 'user' and content of type list"):
            read(write(path, json.dumps({"messages": [{"role": "user", "content": content}, CHAT[1]]}) + "\n"))
