"""A suite from a user's own file: what is guessed, and that it is said."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from letters import decomposed

from nomoat.commands import as_line
from nomoat.errors import DataError, UsageError
from nomoat.judge.metrics import Metric
from nomoat.judge.new_suite import suite_from_file
from nomoat.judge.suites import load_suite, write_suite
from nomoat.tune.data import read


def said(*texts: str) -> list[dict[str, str]]:
    """A chat whose turns are the user's and the assistant's."""
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]


def write_lines(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


LONG = "Send it back within 14 days, and we pay you back."
CHATS: list[dict[str, object]] = [
    {"messages": [{"role": "system", "content": "Be brief."}, *said("hi", "ho", "How do I send it back?", LONG, "Thanks!")]},
    {"messages": [*said("bye", "see you"), {"role": "user", "content": "?"}, {"role": "assistant", "content": "", "weight": 0}]},
]
SHARED: list[dict[str, object]] = [
    {"system": "Be brief.", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": LONG}]},
    {"conversations": [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2"}, {"from": "human", "value": "3"},
                       {"from": "gpt", "value": "4"}]},
]  # fmt: skip
ALPACA: list[dict[str, object]] = [
    {"instruction": "Translate to German. ", "input": "cat\n", "output": "Katze"},
    {"instruction": "Say hi.", "input": "", "output": LONG},
    {"instruction": "and dog?", "input": None, "output": "Hund", "history": [["What is cat in German?", "Katze"]]},
]


PROMPTED: list[dict[str, object]] = [
    {"prompt": "How do I send it back? ", "completion": f" {LONG}"},
    {"prompt": [{"role": "system", "content": "Be brief."}, *said("hi", "ho", "bye")], "completion": [
        {"role": "assistant", "content": "see you"}]},
]  # fmt: skip


@pytest.mark.parametrize("rows", [CHATS, SHARED, ALPACA, PROMPTED])
def test_what_tune_learns_is_asked_in_the_same_words_up_to_the_last_answer(rows: list[dict[str, object]], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", *rows)
    lessons, guess = read(path).lessons, suite_from_file(path)
    asked = [(*example.messages, example.target) for example in guess.suite.examples]
    assert asked == [(*lesson.messages[:-1], lesson.messages[-1].content) for lesson in lessons]
    assert [example.alpaca_question or None for example in guess.suite.examples] == [lesson.alpaca_question for lesson in lessons]
    assert guess.reasons == (
        f"input: {read(path).format}, as `tune` learns them, up to the last answer",
        "label: the last answer",
        *(f"note: {note}" for note in read(path).notes),
        "metric: rouge (answers of up to 11 words)",
    )
    assert (guess.suite.max_new_tokens, guess.suite.source) == (256, "my.jsonl")


def test_an_instruction_is_asked_with_its_input(tmp_path: Path) -> None:
    examples = suite_from_file(write_lines(tmp_path / "my.jsonl", *ALPACA)).suite.examples
    assert examples[0].messages[0].content == "Translate to German.\n\ncat"
    assert [example.alpaca_question for example in examples] == ["Translate to German.\n\n### Input:\ncat", "", ""]


@pytest.mark.parametrize("rows", [CHATS, SHARED, ALPACA, PROMPTED])
def test_conversations_are_the_same_suite_where_they_are_named_given_as_rows_and_written_down(
    rows: list[dict[str, object]], tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "my.jsonl", *rows)
    suite = suite_from_file(path).suite
    assert load_suite(path) == suite
    assert load_suite(rows).sha256 == suite.sha256
    written = load_suite(write_suite(suite, tmp_path / "to"))
    assert (written.sha256, written.metric, written.max_new_tokens) == (suite.sha256, "rouge", 256)


def test_answers_of_conversations_that_repeat_are_chosen_from_and_the_question_stays(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"messages": said(f"Is {n} even?", ("yes", "no")[n % 2])} for n in range(4)]
    guess = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows))
    example = guess.suite.examples[0]
    assert (guess.suite.metric, example.choices, example.messages[0].content) == ("choice", ("no", "yes"), "Is 0 even?")
    assert guess.reasons[-1] == "metric: choice (2 different answers in 4 rows: no, yes)"


def test_the_draft_before_an_answer_is_no_part_of_what_is_right(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"messages": said("1 + 1", "<think>\nOne and one.\n</think>\n\n2")},
        {"messages": said("?", "<think>x")},
    ]
    suite = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows)).suite
    assert [example.target for example in suite.examples] == ["2", "<think>x"]


THOUGHT: list[dict[str, object]] = [
    {"messages": said(f"Is {n} even?", f"<think>\n{n} by two leaves {n % 2}, I think.\n</think>\n\n{('yes', 'no')[n % 2]}")}
    for n in range(4)
]


def test_answers_that_were_reasoned_for_are_no_choice_and_have_room_for_the_reasoning(tmp_path: Path) -> None:
    """A choice is scored right after the question, where what learned to think first has not answered yet."""
    path = write_lines(tmp_path / "my.jsonl", *THOUGHT)
    guess = suite_from_file(path)
    assert (guess.suite.metric, guess.suite.max_new_tokens) == ("exact", 49)
    why = "exact (2 different answers in 4 rows: no, yes; no choice, which has no room for the reasoning before some answers)"
    assert guess.reasons[-1] == f"metric: {why}"
    assert suite_from_file(path, metric="choice").reasons[-1] == (
        "metric: choice (as told; a choice is scored right after the question, without the reasoning that stands before some answers)"
    )
    assert suite_from_file(path, metric="rouge").suite.max_new_tokens == 256
    numbers = [{"messages": said(f"{n} + 1", f"<think>\n{'One more. ' * 30}</think>\n{n % 2 + 1}")} for n in range(4)]
    suite = suite_from_file(write_lines(tmp_path / "n.jsonl", *numbers)).suite
    assert (suite.metric, suite.max_new_tokens) == ("numeric", 318)
    assert load_suite(write_suite(suite, tmp_path / "to")).max_new_tokens == 318
    korean = [{"messages": said("?", f"<think>{'생각 ' * 100}</think>{n}")} for n in range(4)]
    assert suite_from_file(write_lines(tmp_path / "k.jsonl", *korean)).suite.max_new_tokens == 316


def test_answers_that_differ_in_the_space_around_them_are_one_choice(tmp_path: Path) -> None:
    answers = ("yes", "yes ", "no", " no\n")
    suite = suite_from_file(write_lines(tmp_path / "my.jsonl", *({"messages": said("?", answer)} for answer in answers))).suite
    assert (suite.metric, suite.examples[0].choices) == ("choice", ("no", "yes"))
    assert [example.target for example in suite.examples] == ["yes", "yes", "no", "no"]


def test_a_completion_is_the_answer_that_tune_learns_and_a_question_in_two_is_none(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"Is {n} even?", "completion": (" yes", " no")[n % 2], "id": n} for n in range(4)]
    guess = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows))
    assert (guess.suite.examples[0].messages[0].content, guess.suite.examples[0].choices) == ("Is 0 even?", ("no", "yes"))
    note = "not read of lessons, with how many have it: `id` (4)"
    assert guess.reasons[2] == f"note: {note}"
    assert guess.suite.notes == load_suite(tmp_path / "my.jsonl").notes == load_suite(rows).notes == (note,)
    path = write_lines(tmp_path / "my.jsonl", *({**row, "input": "1"} for row in rows))
    for read_suite in (read, load_suite, suite_from_file):
        with pytest.raises(DataError, match="line 1: it has a `prompt`, and beside it `input`, which would not be asked"):
            read_suite(path)


@pytest.mark.parametrize("name", ["reference", "answer", "Label", "gold", "expected", "정답"])
def test_what_a_model_said_beside_the_right_answer_is_no_right_answer(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"{n} + 1?", "completion": f"It is {n}", name: str(n + 1)} for n in range(4)]
    guess = suite_from_file(write_lines(tmp_path / "log.jsonl", *rows))
    assert guess.reasons[:2] == ("input: column `prompt` (by its name)", f"label: column `{name}` (by its name)")
    assert [example.target for example in guess.suite.examples] == ["1", "2", "3", "4"]
    with pytest.raises(DataError, match="line 1: beside its `prompt` and `completion`, another column may be") as caught:
        load_suite(tmp_path / "log.jsonl")
    assert "with `nomoat suites new`, which also takes the columns by --input-column and --label-column" in str(caught.value.hint)
    with pytest.raises(UsageError, match="`rows` is a table"):
        load_suite(rows)
    path = write_lines(tmp_path / "later.jsonl", {**rows[0], name: None}, rows[1])
    for read_suite in (suite_from_file, load_suite):
        with pytest.raises(DataError) as caught:
            read_suite(path)
        assert caught.value.message == f"`{path}`, line 2: it has a `{name}`, and the right answer of a conversation is its last one"


@pytest.mark.parametrize("name", ["category", "class", "intent", "sentiment", "유형", "분류", "카테고리", "감정", "감성"])
def test_a_remark_beside_a_completion_is_no_right_answer(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"{n} + 1?", "completion": str(n + 1), name: "ab"[n % 2]} for n in range(4)]
    path = write_lines(tmp_path / "my.jsonl", *rows)
    for suite in (suite_from_file(path).suite, load_suite(path), load_suite(rows)):
        assert [example.target for example in suite.examples] == ["1", "2", "3", "4"]
        assert suite.notes == (f"not read of lessons, with how many have it: `{name}` (4)",)


@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_a_completion_in_a_conversation_is_its_right_answer(field: str, tmp_path: Path) -> None:
    row: dict[str, object] = {"prompt": "1 + 1?", "completion": "It is 2", "answer": "2"}
    turns = said("1 + 1?") if field == "prompt" else said("", "It is 2")[1:]
    path = write_lines(tmp_path / "my.jsonl", {**row, field: turns})
    for suite in (suite_from_file(path).suite, load_suite(path)):
        assert suite.examples[0].target == "It is 2"
        assert suite.notes == ("not read of lessons, with how many have it: `answer` (1)",)


@pytest.mark.parametrize("name", ["text", "Question", "input"])
@pytest.mark.parametrize("written", ["Translate:  hello bonjour", "hello"])
def test_a_text_that_holds_the_prompt_or_stands_in_it_is_no_other_question(name: str, written: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"prompt": "Translate: hello", "completion": "bonjour", name: written}]
    path = write_lines(tmp_path / "my.jsonl", *rows)
    for suite in (suite_from_file(path).suite, load_suite(path), load_suite(rows)):
        assert (suite.examples[0].messages[-1].content, suite.examples[0].target) == ("Translate: hello", "bonjour")


@pytest.mark.parametrize("name", ["question", "Text"])
def test_a_question_beside_a_prompt_is_a_column_to_ask(name: str, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{name: f"{n} + 1?", "prompt": "Be brief.", "completion": str(n + 1)} for n in range(3)]
    guess = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows))
    assert guess.reasons[:2] == (f"input: column `{name}` (by its name)", "label: column `completion` (by its name)")
    empty = [{**row, "prompt": ""} for row in rows]
    assert suite_from_file(write_lines(tmp_path / "my.jsonl", *empty)).suite.examples[0].messages[-1].content == "0 + 1?"
    plain = [{**row, name: " "} for row in rows]
    assert suite_from_file(write_lines(tmp_path / "my.jsonl", *plain)).suite.examples[0].messages[0].content == "Be brief."


def test_verdicts_on_completions_are_refused_as_such(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "kto.jsonl", {"prompt": "hi", "completion": "ho", "label": True})
    with pytest.raises(DataError, match="line 1: its `label` is true, and nomoat learns every answer as a good one"):
        suite_from_file(path)


@pytest.mark.parametrize("field", ["messages", "conversations"])
def test_reasoning_beside_a_right_answer_is_left_aside(field: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", {field: [*said("2 + 2?"), {**said("", "4")[1], "reasoning_content": "Two, two."}]})
    for suite in (suite_from_file(path).suite, load_suite(path)):
        assert suite.examples[0].target == "4"
        assert suite.notes == ("not read of turns, with how many have it: `reasoning_content` (1)",)


@pytest.mark.parametrize("rows", [CHATS, SHARED, ALPACA, PROMPTED])
def test_a_target_among_conversations_is_not_passed_over(rows: list[dict[str, object]], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", rows[0], {**rows[1], "target": "other"})
    for read_suite in (suite_from_file, load_suite):
        with pytest.raises(DataError) as caught:
            read_suite(path)
        said = "it has a `target`, and the right answer of a conversation is its last one"
        assert caught.value.message == f"`{path}`, line 2: {said}"


@pytest.mark.parametrize(
    "row", [{"messages": said("hi")}, {"conversations": [{"from": "human", "value": "hi"}]}], ids=["OpenAI", "ShareGPT"]
)
def test_conversations_whose_first_has_no_answer_are_no_table(row: dict[str, object], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", row)
    with pytest.raises(DataError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`, line 1: no message of the assistant to learn from"


def test_turns_without_an_answer_beside_the_columns_of_a_table_make_no_conversation_of_it(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"messages": said(f"{n}+1?"), "question": f"{n}+1?", "answer": str(n + 1)} for n in range(3)]
    guess = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows))
    assert (guess.suite.metric, guess.reasons[0]) == ("numeric", "input: column `question` (by its name)")


@pytest.mark.parametrize("rows", [CHATS, SHARED, ALPACA])
def test_a_target_of_null_is_none(rows: list[dict[str, object]], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", *({**row, "target": None} for row in rows))
    of_rows = suite_from_file(write_lines(tmp_path / "their.jsonl", *rows)).suite
    assert suite_from_file(path).suite.sha256 == load_suite(path).sha256 == of_rows.sha256


def test_a_text_beside_an_instruction_is_asked_where_its_column_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", {"instruction": "Summarise.", "text": "A long story.", "output": "Short."})
    with pytest.raises(DataError, match="line 1: it has no `input`, and a `text`, which would not be asked"):
        suite_from_file(path)
    assert suite_from_file(path, input_column="text").suite.examples[0].messages[0].content == "A long story."


def test_numbers_are_answers_of_instructions(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"instruction": f"What is 0 + {n}?", "output": n} for n in range(3)]
    suite = suite_from_file(write_lines(tmp_path / "my.jsonl", *rows)).suite
    assert (suite.metric, [example.target for example in suite.examples]) == ("numeric", ["0", "1", "2"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": said("hi")}, "no message of the assistant to learn from"),
        ({"messages": [{"role": "system", "content": "Begin."}, {"role": "assistant", "content": "ho"}]},
         "before its last answer to learn the system speaks, and a suite's question ends with what the user says"),
        ({"instruction": "hi", "output": "ho"}, "one of Alpaca instructions, and the first is one of OpenAI chats"),
        ({"messages": said("hi", "ho"), "tools": [{"type": "function"}]},
         "it has `tools`, and nomoat learns what is said, not how tools are called"),
    ],
)  # fmt: skip
def test_a_conversation_that_cannot_be_asked_is_named_with_its_line(row: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", {"messages": said("hi", "ho")}, row)
    with pytest.raises(DataError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`, line 2: {message}"


def test_an_answer_of_a_conversation_that_the_metric_cannot_use_is_named_with_its_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "my.jsonl", {"messages": said("1 + 1", "2")}, {"messages": said("How many?", "3 of 4")})
    with pytest.raises(DataError) as caught:
        suite_from_file(path, metric="numeric")
    assert caught.value.message.startswith(f"`{path}`, line 2: the last answer has the target `3 of 4`, which holds 2 numbers")


@pytest.mark.parametrize(
    "rows",
    [
        "instruction,input,output\nIs it an address?,a@b.c,yes\nIs it an address?,hello,no\n",
        "instruction,input,output,text\nTranslate.,a cat,Katze,Translate. a cat ### Response: Katze\n",
    ],
)
def test_an_input_is_not_left_out_whatever_it_holds_and_whatever_is_beside_it(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(rows)
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: columns `instruction` and `input` are one question together"


@pytest.mark.parametrize("name", ["my.csv", "my.jsonl"])
def test_an_input_without_its_instruction_is_not_asked_unless_it_is_told(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "my.csv":
        path.write_text("instruction,input,output\nTranslate.,cat,Katze\n")
    else:
        write_lines(path, {"instruction": "Translate.", "input": "cat", "answer": "Katze"})
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: columns `instruction` and `input` are one question together"
    assert suite_from_file(path, input_column="input").suite.examples[0].messages[0].content == "cat"
    assert suite_from_file(path, label_column="instruction").suite.examples[0].target == "Translate."


QUESTIONS: list[dict[str, object]] = [
    {"question": "Who lives there?", "context": "Kim lives in Tongyeong.", "answer": "Kim"},
    {"question": "Where is it?", "context": "The hall is in Seoul.", "answer": "Seoul"},
]


@pytest.mark.parametrize(
    ("columns", "form"),
    [
        ("question,context,answer", r"{context}\n\n{question}"),
        ("Text,Question,Answer", r"{Text}\n\n{Question}"),
        ("질문,지문,정답", r"{지문}\n\n{질문}"),
    ],
)
def test_what_a_question_is_about_is_not_left_out(tmp_path: Path, columns: str, form: str) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(f"{columns}\nKim lives in Tongyeong.,Who lives there?,Kim\n", encoding="utf-8")
    with pytest.raises(UsageError, match="may be one question together") as caught:
        suite_from_file(path)
    assert f"--input-column {as_line([form])}" in str(caught.value.hint)
    first, second, _ = columns.split(",")
    guess = suite_from_file(path, input_column=form)
    asked = {first: "Kim lives in Tongyeong.", second: "Who lives there?"}
    assert guess.suite.examples[0].messages[0].content == form.replace(r"\n", "\n").format(**asked)
    assert guess.suite.examples[0].target == "Kim"
    assert suite_from_file(path, input_column=first).suite.examples[0].messages[0].content == "Kim lives in Tongyeong."


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ("text,document,label\nWho is it?,1,x\nWhere is it?,2.5,y\n", "label"),
        ("question,document,answer\nWho is it?,doc1.pdf,Kim\n", "answer"),
        ("question,context,answer\nWho is it?,,Kim\nWhere is it?, ,Seoul\n", "answer"),
        ("text,question,answer\nWho is it?,Who  is it?,Kim\n", "answer"),
        ("text,content\nWho is it?,It is Kim.\n", "content"),
        ('{"question": "Who is it?", "context": null, "answer": "Kim"}\n{"question": "Where?", "answer": "Seoul"}\n', "answer"),
        ('{"question": "Who is it?", "contexts": ["", []], "answer": "Kim"}\n', "answer"),
        ("question,document,answer\nWho is it?,doc1.pdf,Kim\nWho is it?,doc2.pdf,Kim\n", "answer"),
        ("question,context,answer\nKim came. Who is it?,Kim came.,Kim\n", "answer"),
        ("question,메일,label\nWho is it?,a@b.c,x\nWhere is it?,Kim Lee <k@b.c>,y\n", "label"),
    ],
)
def test_what_holds_no_part_of_a_question_may_stand_beside_it(rows: str, label: str, tmp_path: Path) -> None:
    path = tmp_path / ("my.jsonl" if rows.startswith("{") else "my.csv")
    path.write_text(rows)
    guess = suite_from_file(path)
    assert "Who is it?" in guess.suite.examples[0].messages[0].content
    assert guess.reasons[1].startswith(f"label: column `{label}` ")


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("text,question,answer", ["김 씨는 통영에 삽니다.,누구인가?,김 씨"]),
        ("document,q,answer", ["Kim lives in Tongyeong.,Who?,Kim"]),
        ("text,instruction,output", ["A long text here.,번역하시오,Ein Text"]),
        ("document,instruction,output", ["A long text here.,Summarize:,A text"]),
        ("text,instruction,output", ["A long text here.,Summarize this: A long text here.,A text"]),
        ("sentence,query,label", ["The battery life is good.,battery life,pos", "The battery life is good.,food,none"]),
        ("query,document,label", ["fish soup,I like fish soup.,1"]),
        ("질의,문서,정답", ["연차,연차는 열다섯 날입니다.,1", "출장비,이 출장비 규정은 옛것입니다.,0"]),
        ("query,passage,label", ["fish,I like fish soup.,1"]),
        ("question,context,answer", ["Tongyeong,Kim lives in Tongyeong by the sea.,Kim"]),
        ("question,context,answer", ["誰がそこに住んでいますか,金さんは統営に住んでいます,金さん"]),
        ("question,context,answer", ["Double it.,3,6", "Double it.,4,8"]),
        ("question,context", ["Who is it?,Kim is here."]),
    ],
)
def test_neither_of_a_question_and_what_it_is_about_is_left_out(columns: str, rows: list[str], tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text("\n".join([columns, *rows]), encoding="utf-8")
    one, other = columns.split(",")[:2]
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: columns `{one}` and `{other}` may be one question together"


def test_a_column_of_any_row_is_looked_at_and_may_be_named(tmp_path: Path) -> None:
    about = {"question": "Who is it?", "context": "Kim is here."}
    path = write_lines(tmp_path / "qa.jsonl", about, {**about, "answer": "Kim"})
    with pytest.raises(UsageError, match="columns `question` and `context` may be one question together"):
        suite_from_file(path)
    with pytest.raises(DataError, match="line 1: column `answer` is empty or no text"):
        suite_from_file(path, input_column="{context} {question}")
    path = write_lines(tmp_path / "qa.jsonl", {"question": "Who?", "answer": "Kim"}, {**about, "answer": "Kim"})
    with pytest.raises(DataError, match="line 1: column `context` is empty or no text"):
        suite_from_file(path, input_column="context")


@pytest.mark.parametrize(("columns", "label"), [("text,question", "text"), ("instruction,input", "input")])
def test_a_column_that_is_named_for_the_labels_is_not_guessed_for_the_texts(columns: str, label: str, tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text(f"{columns}\nWho is it?,It is Kim.\n")
    (other,) = {*columns.split(",")} - {label}
    assert suite_from_file(path, label_column=label).reasons[0] == f"input: column `{other}` (by its name)"


def test_the_form_of_a_question_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    for name, is_named in (("customer's question", True), ("my {x} question", False)):
        path.write_text(f"{name},context,answer\nWho lives there?,Kim lives there.,Kim\n")
        with pytest.raises(UsageError) as caught:
            suite_from_file(path)
        hint = str(caught.value.hint)
        assert ("{context}" in hint) is is_named
        if is_named:
            (form,) = shlex.split(hint.removeprefix("say what is asked with --input-column ").partition(" (in Python")[0])
            assert suite_from_file(path, input_column=form).suite.examples[0].messages[0].content.endswith("Who lives there?")


def test_a_question_of_nothing_to_see_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "qa.csv"
    path.write_text("question,context,answer\n\u200b,\u200b,Kim\nWho?,\u200b,\u200b\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: column `question` is empty or no text; line 3: column `answer` is empty"):
        suite_from_file(path)
    with pytest.raises(DataError, match="lines 2, 3: column `context` is empty"):
        suite_from_file(path, input_column="{question} {context}")


@pytest.mark.parametrize(
    "contexts",
    [
        (["Kim lives in Tongyeong."], ["It is in Seoul."]), ({"sentences": [["Kim lives in Tongyeong."]]}, {}),
        (None, "The hall is in Seoul."), ("小明住在北京。", ""),
    ],
)  # fmt: skip
def test_what_a_question_is_about_is_named_in_no_form_where_it_is_not_a_text_in_each_row(
    contexts: tuple[object, object], tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "qa.jsonl", *({**row, "context": one} for row, one in zip(QUESTIONS, contexts, strict=True)))
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: columns `question` and `context` may be one question together"
    assert caught.value.hint == (
        "say with --input-column (in Python: `input_column`) which one is asked, or write the whole question into one column"
    )
    assert suite_from_file(path, input_column="question").suite.examples[0].messages[0].content == "Who lives there?"


def test_a_text_of_several_columns_needs_each(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "qa.jsonl", *QUESTIONS, {"question": "When?", "context": " ", "answer": "Now"})
    with pytest.raises(DataError, match="line 3: column `context` is empty or no text"):
        suite_from_file(path, input_column="{context} {question}")
    with pytest.raises(DataError, match="no column `contexts`"):
        suite_from_file(path, input_column="{contexts} {question}")
    with pytest.raises(UsageError, match="column `answer` is named for the texts and for the labels"):
        suite_from_file(path, input_column="{answer} {question}", label_column="answer")


def test_dollys_response_is_the_answer_whatever_its_category(tmp_path: Path) -> None:
    rows = [
        {"instruction": row["question"], "context": row["context"], "response": row["answer"], "category": "qa"} for row in QUESTIONS
    ]
    suite = suite_from_file(write_lines(tmp_path / "dolly.jsonl", *rows)).suite
    assert suite.examples[0].messages[0].content == "Who lives there?\n\nKim lives in Tongyeong."
    assert [example.target for example in suite.examples] == ["Kim", "Seoul"]


@pytest.mark.parametrize(
    ("text", "reply", "of_class"),
    [
        ("review", "response", "sentiment"), ("message", "output", "intent"), ("prompt", "completion", "class"),
        ("text", "Answer", "category"), ("리뷰", "답변", "감정"), ("내용", "응답", "유형"),
    ],
)  # fmt: skip
def test_of_a_reply_and_a_class_none_is_guessed_to_be_the_right_answer(text: str, reply: str, of_class: str, tmp_path: Path) -> None:
    for header in (f"{text},{reply},{of_class}", f"{text},{of_class},{reply}"):
        path = tmp_path / "my.csv"
        path.write_text(f"{header}\ngood,x,y\nbad,z,y\n", encoding="utf-8")
        with pytest.raises(UsageError) as caught:
            suite_from_file(path)
        assert caught.value.message == f"`{path}`: columns `{reply}` and `{of_class}` may each hold the right answer"
        columns = ", ".join(header.split(","))
        assert caught.value.hint == f"say which with --label-column (in Python: `label_column`); its columns are: {columns}"
        for label in (reply, of_class):
            assert suite_from_file(path, label_column=label).reasons[1] == f"label: column `{label}` (as told)"
    path.write_text(f"{header},정답\ngood,x,y,A\nbad,z,y,B\n", encoding="utf-8")
    assert suite_from_file(path).reasons[1] == "label: column `정답` (by its name)"


def test_several_right_answers(tmp_path: Path) -> None:
    """A list of them, and SQuAD's and KorQuAD's object."""
    ask = "{context} {question}"
    rows: list[dict[str, object]] = [
        {**QUESTIONS[0], "answer": ["Kim", "Mr Kim", "Kim"]}, {**QUESTIONS[1], "answer": {"text": ["Seoul"], "answer_start": [15]}},
    ]  # fmt: skip
    suite = suite_from_file(write_lines(tmp_path / "qa.jsonl", *rows), input_column=ask).suite
    assert [(one.target, one.other_targets) for one in suite.examples] == [("Kim", ("Mr Kim",)), ("Seoul", ())]
    write_suite(suite, tmp_path / "out")
    assert load_suite(tmp_path / "out" / "qa.toml").examples[0].other_targets == ("Mr Kim",)
    for nothing in ([], {"answer_start": [1]}, ["Kim", ""]):
        with pytest.raises(DataError, match="line 1: column `answer` is empty or no text"):
            suite_from_file(write_lines(tmp_path / "b.jsonl", {**QUESTIONS[0], "answer": nothing}), input_column=ask)


def test_several_right_answers_of_a_row_are_no_repeated_ones(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"question": f"{n}?", "answer": ["x", "y"]} for n in range(4)]
    assert (
        suite_from_file(write_lines(tmp_path / "few.jsonl", *rows[:2])).reasons[2] == "metric: exact (no answer has more than 1 word)"
    )
    reasons = suite_from_file(write_lines(tmp_path / "more.jsonl", *rows)).reasons
    assert reasons[2] == "metric: choice (2 different answers in 4 rows: x, y)"


def test_few_answers_that_repeat_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("문장,정답\n좋아요,긍정\n별로,부정\n최고,긍정\n싫어요,부정\n")
    guess = suite_from_file(path)
    assert guess.reasons == (
        "input: column `문장` (by its name)",
        "label: column `정답` (by its name)",
        "metric: choice (2 different answers in 4 rows: 긍정, 부정)",
    )
    assert (guess.suite.metric, guess.suite.language, guess.suite.examples[0].choices) == ("choice", "ko", ("긍정", "부정"))


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["1", "2.5", "1,000"], "numeric"),
        (["1e5", "+3", "−2", "$4"], "numeric"),
        (["1", "2.5", "nan"], "exact"),  # which no answer's number could equal
        (["Paris", "New York", "Seoul"], "exact"),
        (["It is the capital of France, on the Seine.", "b", "c"], "rouge"),
        (["Washington D.C.", "Yes.", "St. Louis"], "exact"),
        (["It takes two days.", "b", "c"], "rouge"),
        (["바람과 함께", "부산광역시", "중요"], "exact"),
        (["보통 2~3일 걸립니다.", "부산", "대구"], "char-f1"),
        (["네, 가능합니다", "부산", "대구"], "char-f1"),
        (["고객센터로 전화하세요!", "부산", "대구"], "char-f1"),
        (["바람과 함께 사라지다", "부산", "대구"], "char-f1"),
        (["서울은 대한민국의 수도이고 아주 큰 도시이다", "부산", "대구"], "char-f1"),
        (['{"item": "coffee", "count": 2}', '["tea", "milk"]'], "json"),
        (["12,000원", "3억", "만 2천원"], "numeric"),
        (['{"배송": "늦음"}', '{"배송": "늦음"}', '{"배송": "빠름"}', '{"배송": "제때"}'], "json"),
        (['["spam"]', '["ham"]', '["ham"]', '["spam"]'], "choice"),
        (['{"item": "coffee"', "[1]"], "exact"),
        (["[서울]", "[1]"], "exact"),
    ],
)
def test_other_answers_decide_how_they_are_compared(tmp_path: Path, answers: list[str], metric: str) -> None:
    path = tmp_path / "my.tsv"
    path.write_text("question\tx\n" + "".join(f"q{at}\t{answer}\n" for at, answer in enumerate(answers)))
    guess = suite_from_file(path)
    assert guess.suite.metric == metric
    assert guess.reasons[1] == "label: column `x` (the only other one)"


@pytest.mark.parametrize(("num_letters", "tokens"), [(3, 256), (500, 1514)])
def test_answers_of_json_have_room_for_the_longest_target(num_letters: int, tokens: int, tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    targets = [json.dumps({"배송": "늦" * num}, ensure_ascii=False) for num in (1, num_letters)]
    path.write_text("".join(json.dumps({"input": "q", "target": target}) + "\n" for target in targets))
    suite = suite_from_file(path).suite
    assert (suite.metric, suite.max_new_tokens) == ("json", tokens)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["Martin Luther King Jr.", *"abcdefghi"], "exact (no answer has more than 4 words)"),
        (["Martin Luther King Jr.", *"abcdefgh"], "rouge (1 of 9 answers are sentences)"),
        (["It takes two days.", "It may take three.", *"abc"], "rouge (2 of 5 answers are sentences)"),
        (["It takes two days, or three.", "b"], "rouge (answers of up to 6 words)"),
        (["네, 가능합니다", "부산"], "char-f1 (Korean; 1 of 2 answers are sentences)"),
        (["바람과 함께 사라지다", "부산"], "char-f1 (Korean; answers of up to 3 words)"),
    ],
)
def test_a_few_answers_that_look_like_sentences_are_compared_as_the_others_and_the_reason_is_said(
    tmp_path: Path, answers: list[str], reason: str
) -> None:
    path = tmp_path / "my.tsv"
    path.write_text("question\tx\n" + "".join(f"q{at}\t{answer}\n" for at, answer in enumerate(answers)), encoding="utf-8")
    assert suite_from_file(path).reasons[2] == f"metric: {reason}"


def test_programs_that_say_where_the_code_goes_test_a_models_code(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    tasks = [{"input": f"Write f{at}.", "target": f"{{answer}}\nassert f{at}()"} for at in (1, 1, 2, 2)]
    path.write_text("".join(f"{json.dumps(task)}\n" for task in tasks))
    guess = suite_from_file(path)
    assert (guess.suite.metric, guess.suite.max_new_tokens) == ("code", 768)
    assert guess.reasons[2] == "metric: code (every answer holds {answer}, where a model's code goes)"
    path.write_text("".join(f"{json.dumps(task)}\n" for task in [*tasks, {"input": "What is 1 + 1?", "target": "2"}]))
    assert suite_from_file(path).suite.metric == "exact"


@pytest.mark.parametrize(
    ("tests", "target"),
    [
        ("assert f(1) == 2", "{answer}\nassert f(1) == 2"),
        (["assert f(1) == 2", "assert f(2) == 3"], "{answer}\nassert f(1) == 2\nassert f(2) == 3"),  # as MBPP has them
    ],
)
def test_tests_without_a_place_for_the_answer_get_it_before_them(tests: object, target: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps({'prompt': 'Write f.', 'tests': tests})}\n")
    guess = suite_from_file(path)
    assert (guess.suite.metric, guess.suite.examples[0].target, guess.suite.examples[0].other_targets) == ("code", target, ())
    assert guess.reasons[2] == "metric: code (every answer is tests; {answer} is put before them, where a model's code goes)"
    assert suite_from_file(path, metric="code").suite.examples == guess.suite.examples


@pytest.mark.parametrize(
    "program", ["def f(x):\n    return x", "def check(f):\n    assert f(1) == 2", "def f(x):\n    return x\n\nassert f(1) == 1"]
)
def test_a_solution_or_a_function_that_nothing_calls_is_no_tests(program: str, tmp_path: Path) -> None:
    """It would pass whatever was answered."""
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps({'prompt': 'Write f.', 'tests': program})}\n")
    with pytest.raises(DataError, match=r"has a target without \{answer\} before its tests"):
        suite_from_file(path, metric="code")


def test_jsonl_and_what_the_user_says_come_first(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text('{"body": "a", "team": 3}\n{"body": "b", "team": 4}\n')
    guess = suite_from_file(path, input_column="body", label_column="team", metric="exact", name="teams")
    assert (guess.suite.name, guess.suite.metric, guess.suite.examples[0].target) == ("teams", "exact", "3")
    assert guess.reasons[2] == "metric: exact (as told)"


def test_columns_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("a1,b1,c1\nx,y,z\n")
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: no column is named like a usual input"
    assert caught.value.hint == "say which with --input-column (in Python: `input_column`); its columns are: a1, b1, c1"
    with pytest.raises(DataError, match="has no column `d1`"):
        suite_from_file(path, input_column="d1")
    with pytest.raises(DataError, match="holds 1 labels, and a choice has 2 to 256"):
        suite_from_file(path, input_column="a1", label_column="b1", metric="choice")


def test_an_empty_answer_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="line 2: column `label` is empty or no text"):
        suite_from_file(path)
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n{"text": [], "label": "x"}\n{"text": "c", "label": null}\n')
    with pytest.raises(DataError, match="line 3: column `text` is empty or no text; lines 2, 4: column `label` is empty or no text"):
        suite_from_file(path)


def test_an_empty_cell_of_a_table_is_named_by_the_line_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text('text,label\n\n"two\nlines",x\nb,\n')
    with pytest.raises(DataError, match="line 5: column `label` is empty or no text"):
        suite_from_file(path)
    path.write_text('text,label\n\n"two\nlines",x\nb,y\n')
    assert [example.id for example in suite_from_file(path).suite.examples] == ["3", "5"]


ROWS = [("환불해 주세요", "환불"), ("어디쯤 왔나요", "배송"), ("돈을 돌려 주세요", "환불"), ("언제 오나요", "배송")]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_macos_writes_is_the_same_text_labels_and_columns(tmp_path: Path, suffix: str) -> None:
    """Half of the rows are in the spelling of macOS, and so are the names of the columns and of the file."""
    cells = [(decomposed(text), decomposed(label)) if at % 2 else (text, label) for at, (text, label) in enumerate(ROWS * 2)]
    cells += [(decomposed(text), decomposed(label)) for text, label in ROWS]
    if suffix == ".csv":
        content = decomposed("상담 내용,분류\n") + "".join(f"{text},{label}\n" for text, label in cells)
    else:
        content = "".join(json.dumps({decomposed("상담 내용"): text, decomposed("분류"): label}) + "\n" for text, label in cells)
    path = tmp_path / f"{decomposed('문의')}{suffix}"
    path.write_text(content, encoding="utf-8")
    suite = suite_from_file(path, input_column="상담 내용", label_column=decomposed("분류")).suite
    assert (suite.name, suite.language, suite.examples[1].choices) == ("문의", "ko", ("배송", "환불"))
    assert "어디쯤 왔나요" in suite.examples[1].messages[0].content


def test_long_korean_answers_of_macos_are_korean(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(decomposed("질문,답변\n언제,환불은 보통 사흘 안에 모두 끝납니다\n왜,늦어서\n"), encoding="utf-8")
    guess = suite_from_file(path)
    assert (guess.suite.metric, guess.suite.language) == ("char-f1", "ko")


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("번호,상담 내용,분류", "상담 내용", "분류"),
        ("번호,상담내용,문의 유형", "상담내용", "문의 유형"),
        ("id,리뷰,감정", "리뷰", "감정"),
        ("id,상품평,감정", "상품평", "감정"),
        ("id,customer_message,final category", "customer_message", "final category"),
        ("model_a,model_b,text", "text", None),
        ("id,처리 내용,상담 내용", None, None),
        ("id,question,gold,model_answer", "question", "gold"),
        ("id,text,b,pred_label", "text", None),
        ("번호,문의,답변내용,처리응답", "문의", None),
        ("번호,고객 메일,분류", "고객 메일", "분류"),
        ("번호,민원,담당 분류", "민원", "담당 분류"),
        ("번호,고객요청,유형", "고객요청", "유형"),
    ],
)
def test_a_column_is_known_by_its_name_or_the_end_of_it(tmp_path: Path, header: str, text: str | None, label: str | None) -> None:
    path = tmp_path / "my.csv"
    path.write_text(header + "".join(f"\n{at},하나 둘,셋{',넷' * (header.count(',') - 2)}" for at in range(4)), encoding="utf-8")
    if text is None or label is None:
        with pytest.raises(UsageError, match="no column is named like a usual " + ("input" if text is None else "label")):
            suite_from_file(path)
        return
    why_text, why_label, _ = suite_from_file(path).reasons
    assert why_text.startswith(f"input: column `{text}` (by ") and why_label.startswith(f"label: column `{label}` (by ")


def test_a_column_of_mail_addresses_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("번호,이메일,메일,상담내용,유형\n" + "1,a@b.kr, c@d.kr ,하나 둘,셋\n" * 4, encoding="utf-8")
    assert suite_from_file(path).reasons[0] == "input: column `상담내용` (by the end of its name)"
    assert suite_from_file(path, input_column="메일").reasons[0] == "input: column `메일` (as told)"


@pytest.mark.parametrize(
    ("stem", "name"), [("고객 문의", "고객_문의"), ("my reviews (1)", "my_reviews_1"), (".a b", "a_b"), ("-a", "a")]
)
def test_a_file_whose_name_no_suite_can_have_gives_one_near_to_it(tmp_path: Path, stem: str, name: str) -> None:
    path = tmp_path / f"{stem}.csv"
    path.write_text("text,label\na,x\nb,y\n")
    guess = suite_from_file(path)
    assert guess.suite.name == name
    assert guess.reasons[-1] == f"name: {name} (a suite cannot be called `{stem}`; give another with --name, in Python: `name`)"
    assert len(suite_from_file(path, name="mine").reasons) == 3


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".NDJSON"])
def test_lines_of_json_are_known_by_each_of_their_endings(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"my{suffix}"
    path.write_text('{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 2", "answer": "3"}\n')
    assert suite_from_file(path).suite.metric == "numeric"


def test_a_file_of_another_kind_is_not_taken_for_a_table(tmp_path: Path) -> None:
    for name in ("my.xml", "my.txt"):
        (tmp_path / name).write_text('[{"question": "1 + 1", "answer": "2"}]')
        with pytest.raises(UsageError, match="cannot tell what kind of file this is") as caught:
            suite_from_file(tmp_path / name)
        kinds = "tables end in .csv, .tsv, .tab, lines of JSON in .jsonl, .ndjson, conversations in .jsonl, .ndjson, .json"
        assert caught.value.hint == kinds


def test_a_json_file_is_one_of_conversations(tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text('[{"question": "1 + 1", "answer": "2"}]')
    with pytest.raises(DataError, match="entry 1: no conversation; its keys are: `question`, `answer`"):
        suite_from_file(path)
    path.write_text(json.dumps([{"messages": [*said("hi", "ho")]}, {"messages": [*said("bye", "see you")]}], indent=1))
    assert [(one.id, one.target) for one in suite_from_file(path).suite.examples] == [("1", "ho"), ("2", "see you")]


def test_answers_of_one_word_are_said_to_have_one(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("question,answer\nFrance?,Paris\nItaly?,Rome\nKorea?,Seoul\n")
    assert suite_from_file(path).reasons[-1] == "metric: exact (no answer has more than 1 word)"


def test_texts_are_not_their_own_answers(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("question,answer\nFrance?,Paris\n")
    with pytest.raises(UsageError, match="column `question` is named for the texts and for the labels"):
        suite_from_file(path, input_column="question", label_column="question")


@pytest.mark.parametrize(
    ("metric", "answer", "why"),
    [
        ("numeric", "3 of 4", "has the target `3 of 4`, which holds 2 numbers: write the answer alone, or behind `####`"),
        ("regex", "(", "has the target `(`, which is no pattern (missing ) at position 1)"),
    ],
)
def test_an_answer_that_the_metric_cannot_use_is_named_with_its_line(tmp_path: Path, metric: Metric, answer: str, why: str) -> None:
    """As `eval` would say it of the suite that is made: here of the user's own file."""
    path = tmp_path / "my.csv"
    path.write_text(f'question,answer\n"two\nlines",5\nhow many,{answer}\n')
    with pytest.raises(DataError) as caught:
        suite_from_file(path, metric=metric)
    assert caught.value.message == f"`{path}`, line 4: column `answer` {why}, and the metric is `{metric}`"


@pytest.mark.parametrize(
    "header",
    [
        "question,answer,category", "category,q,a", "유형,질문,답변", "문의,분류,응답", "Query,class,response", "고객 문의,답변,유형",
        "customer question,category,answer",
    ],
)  # fmt: skip
def test_beside_a_question_and_its_answer_a_class_is_a_remark(header: str, tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    names = header.split(",")
    rows = [{name: f"{name}{at}" for name in names} for at in (1, 2)]
    path.write_text("\n".join([header, *(",".join(row.values()) for row in rows)]) + "\n", encoding="utf-8")
    answer = next(name for name in names if name in ("answer", "a", "답변", "응답", "response"))
    assert [example.target for example in suite_from_file(path).suite.examples] == [f"{answer}1", f"{answer}2"]


@pytest.mark.parametrize(
    "header", ["번호,문의내용", "ID,text", "question,A,B", "Q,A,B", "question,A,B,C,D,category", "질문,A,B,유형", "text,a,b,category"]
)
def test_a_table_without_an_answer_asks_for_its_column(header: str, tmp_path: Path) -> None:
    path = tmp_path / "quiz.csv"
    path.write_text(f"{header}\n{header}\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: no column is named like a usual label"
    assert caught.value.hint == (
        f"say which with --label-column (in Python: `label_column`); its columns are: {', '.join(header.split(','))}"
    )


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("question,A,B,C,D,category,답", "답"), ("text,A,B,answer,category", "answer"), ("Q,A,B,correct answer", "correct answer"),
        ("question,A,category", "A"), ("question,a,A", "a"),
    ],
)  # fmt: skip
def test_what_a_quiz_lets_choose_from_is_no_answer(header: str, label: str, tmp_path: Path) -> None:
    path = tmp_path / "quiz.csv"
    path.write_text(f"{header}\n{header}\n", encoding="utf-8")
    assert suite_from_file(path).suite.examples[0].target == label


@pytest.mark.parametrize("asked", ["{a} {b}", "a", "b"])
def test_two_texts_that_are_asked_are_no_choices(asked: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("id,a,b,class\n1,one,two,same\n2,here,there,other\n", encoding="utf-8")
    assert suite_from_file(path, input_column=asked).suite.examples[0].target == "same"
    for answer in ("answer", "gold label", "관계 정답"):  # beside which the class is a remark
        path.write_text(f"id,a,b,class,{answer}\n1,one,two,same,x\n2,here,there,other,y\n", encoding="utf-8")
        assert suite_from_file(path, input_column=asked).suite.examples[0].target == "x"
    path.write_text("id,question,A,B,class\n1,Which?,one,two,same\n2,Where?,here,there,other\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no column is named like a usual label"):
        suite_from_file(path, input_column="{question} {A} {B}")


def test_documents_tell_questions_of_a_quiz_apart_by_their_answers_not_by_what_there_is_to_choose_from(tmp_path: Path) -> None:
    path = tmp_path / "quiz.csv"
    path.write_text("question,document,A,B,답\nWhich?,d1,one,two,B\nWhich?,d2,three,two,B\n", encoding="utf-8")
    assert suite_from_file(path).suite.examples[0].messages[0].content.endswith("Which?")
    path.write_text("question,document,A,B,답\nWhich?,d1,one,two,A\nWhich?,d2,one,two,B\n", encoding="utf-8")
    with pytest.raises(UsageError, match="columns `question` and `document` may be one question together"):
        suite_from_file(path)
