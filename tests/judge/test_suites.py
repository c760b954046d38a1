"""Suites: what is read, what is written, and what is refused with file and line."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from homes import be_at_home_in
from letters import decomposed

from nomoat.errors import BadFileError, DataError, NotEnoughDiskError, UnknownModelError, UsageError
from nomoat.judge import suite_files, suites
from nomoat.judge.metrics import Metric
from nomoat.judge.new_suite import suite_from_file
from nomoat.judge.suites import load_suite, load_suites, suite_from_csv, write_suite
from nomoat.records import Example, Message
from nomoat.textfiles import AS_UTF_8_KOREAN

GOOD = {"id": "a", "input": "Works {well}.", "target": "positive", "choices": ["negative", "positive"], "category": "audio"}


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\nWorks well.,positive\nBroke.,negative\n좋아요,positive\n", encoding="utf-8")
    return path


def test_jsonl_alone_is_a_choice_suite_if_every_example_has_choices(tmp_path: Path) -> None:
    suite = load_suite(write_lines(tmp_path / "s.jsonl", GOOD, {"input": "Broke.", "target": "x", "choices": ["x", "y"]}))
    assert (suite.name, suite.metric, suite.licence) == ("s", "choice", "unknown")
    assert suite.examples[0] == Example(
        id="a",
        messages=(Message(role="user", content="Works {well}."),),
        target="positive",
        choices=("negative", "positive"),
        category="audio",
    )
    assert suite.examples[1].id == "2"
    assert load_suite(write_lines(tmp_path / "t.jsonl", GOOD, {"input": "1+1", "target": "2"})).metric == "exact"


def test_jsonl_alone_is_a_code_suite_if_every_target_says_where_the_code_goes(tmp_path: Path) -> None:
    task = {"input": "Write f(x).", "target": "{answer}\nassert f(1) == 2"}
    path = write_lines(tmp_path / "s.jsonl", task, {**task, "target": [task["target"], "{answer}\nassert f(2) == 4"]})
    assert (load_suite(path).metric, load_suite(path).max_new_tokens) == ("code", 768)
    path.with_suffix(".toml").write_text('metric = "exact"')
    assert (load_suite(path).metric, load_suite(path).max_new_tokens) == ("exact", 32)
    path.with_suffix(".toml").write_text("max_new_tokens = 99")
    assert (load_suite(path).metric, load_suite(path).max_new_tokens) == ("code", 99)
    mixed = write_lines(tmp_path / "t.jsonl", task, {**task, "target": [task["target"], "f"]})
    assert load_suite(mixed).metric == "exact"


def test_toml_gives_prompt_and_system_and_the_rest(tmp_path: Path) -> None:
    write_lines(tmp_path / "data.jsonl", GOOD, {"messages": [{"role": "user", "content": "as it is"}], "target": "2"})
    toml = tmp_path / "maths.toml"
    toml.write_text(
        'metric = "exact"\nexamples = "data.jsonl"\nsystem = "Be brief."\nprompt = "{Q}: {input}\\nA:"\n'
        'licence = "mit"\nsource = "here"\nmax_new_tokens = 5\nper_token = true\n'
    )
    suite = load_suite(toml)
    assert (suite.name, suite.metric, suite.licence, suite.source) == ("maths", "exact", "mit", "here")
    assert (suite.max_new_tokens, suite.per_token) == (5, True)
    assert [message.content for message in suite.examples[0].messages] == ["Be brief.", "{Q}: Works {well}.\nA:"]
    assert suite.examples[1].messages == (Message(role="user", content="as it is"),)


def test_table_asks_for_the_labels_that_occur(table: Path) -> None:
    suite = load_suite(table, input_column="text", label_column="label")
    assert suite.metric == "choice"
    assert [example.id for example in suite.examples] == ["2", "3", "4"]
    assert {example.choices for example in suite.examples} == {("negative", "positive")}
    assert suite.examples[2].messages[0].content == (
        "Classify the text. Answer with one of: negative, positive.\n\nText: 좋아요\nLabel:"
    )
    own_words = load_suite(table, input_column="text", label_column="label", instruction="Is it good?")
    assert own_words.examples[2].messages[0].content == "Is it good?\n\nText: 좋아요\nLabel:"
    whole = load_suite(table, input_column="text", label_column="label", instruction="Is {text} good?")
    assert whole.examples[2].messages[0].content == "Is 좋아요 good?"
    assert len({suite.sha256, own_words.sha256, whole.sha256}) == 3


def test_written_suite_reads_back_equal_by_path_folder_and_name(table: Path, empty_home: Path) -> None:
    suite = suite_from_csv(table, "text", "label")
    toml = write_suite(suite, empty_home / "suites" / "reviews")
    for ref in (toml, toml.with_suffix(".jsonl"), toml.parent, "reviews"):
        assert load_suite(ref) == suite


@pytest.mark.parametrize("end", [".toml", ".schema.json", ".jsonl"])
def test_a_suite_that_is_there_is_replaced_only_where_that_is_said(table: Path, tmp_path: Path, end: str) -> None:
    suite = suite_from_csv(table, "text", "label")
    (tmp_path / f"reviews{end}").write_text("yours", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        write_suite(suite, tmp_path)
    assert caught.value.message == f"there is a suite `reviews` in `{tmp_path}` already: `reviews{end}`"
    assert caught.value.hint == "choose another --name, or --replace it (in Python: `name`, `replace`)"
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.glob("reviews.[tsj]*")] == [(f"reviews{end}", "yours")]
    assert load_suite(write_suite(suite, tmp_path, replace=True)) == suite


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("end", [".toml", ".schema.json", ".jsonl"])
def test_a_disk_without_room_for_all_files_of_a_suite_keeps_what_was_there(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool, end: str
) -> None:
    suite = dataclasses.replace(suite_from_csv(table, "text", "label"), schema={"type": "object"})
    folder = tmp_path / "s"
    if is_there:
        write_suite(dataclasses.replace(suite, examples=suite.examples[:2]), folder)
    before = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*")}
    opened = Path.open

    def fill(path: Path, mode: str = "r", **settings: Any) -> Any:
        if path.name.startswith(f".{suite.name}{end}.") and "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, **settings)

    monkeypatch.setattr(Path, "open", fill)
    with pytest.raises(NotEnoughDiskError):
        write_suite(suite, folder, replace=True)
    assert {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*")} == before


def test_a_large_table_takes_no_more_memory_than_a_few_times_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    rows = (f'{number},"{f"Where is order {number}? " * 8}",{("billing", "delivery")[number % 2]},mail\n' for number in range(3000))
    path.write_text(f"id,question,answer,channel\n{''.join(rows)}", encoding="utf-8")
    size, toml, taken = path.stat().st_size, tmp_path / "large.toml", list[float]()
    whole = load_suite(write_suite(suite_from_file(path).suite, tmp_path))  # what is computed once is there
    written = path.with_suffix(".jsonl").stat().st_size
    assert len({id(example.choices) for example in whole.examples}) == 1
    made_of: list[tuple[int, Callable[[], object]]] = [
        (size, lambda: suite_from_file(path)), (written, lambda: write_suite(whole, tmp_path, replace=True)),
        (written, lambda: load_suite(toml)), (size, lambda: load_suite(path, input_column="question", label_column="answer")),
    ]  # fmt: skip
    tracemalloc.start()
    try:
        for num_bytes, make in made_of:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            make()
            taken.append((tracemalloc.get_traced_memory()[1] - before) / num_bytes)
    finally:
        tracemalloc.stop()
    assert [round(times, 1) for times, most in zip(taken, (7, 1, 4.5, 5.8), strict=True) if times > most] == []


def test_a_folder_of_other_things_hides_no_suite_of_its_name(
    table: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = suite_from_csv(table, "text", "label")
    toml = write_suite(suite, empty_home / "suites")
    here = tmp_path / "elsewhere"
    (here / "reviews").mkdir(parents=True)
    (here / "gsm8k").mkdir()
    monkeypatch.chdir(here)
    assert suite_files.find("reviews") == toml and suite_files.find("gsm8k") is None
    with pytest.raises(DataError, match="`reviews` holds no suite"):
        load_suite(Path("reviews"))
    for name in ("a", "b"):
        write_lines(here / "reviews" / f"{name}.jsonl", GOOD)
    assert suite_files.find("reviews") == toml
    (here / "reviews" / "b.jsonl").unlink()
    assert suite_files.find("reviews") == Path("reviews", "a.jsonl")


def test_a_suite_is_found_by_its_name_however_its_letters_are_written(table: Path, empty_home: Path) -> None:
    """A file from a Mac bears the name in parts, one typed elsewhere does not."""
    parted = decomposed("문의")
    toml = write_suite(dataclasses.replace(suite_from_csv(table, "text", "label"), name="문의"), empty_home / "suites")
    assert suite_files.find(parted) == toml
    toml.rename(toml.with_name(f"{parted}.toml"))
    for name in ("문의", parted):
        assert suite_files.find(name) == toml.with_name(f"{parted}.toml")
    moved = table.rename(table.with_name(f"{parted}.csv"))
    assert suite_from_csv(moved, "text", "label").name == "문의"


def test_labels_are_the_same_however_their_letters_are_written(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    rows = ["좋아요,긍정", "별로,부정"]
    path.write_text("\n".join([decomposed("글,분류"), *rows, *(decomposed(row) for row in rows)]), encoding="utf-8")
    for column in ("분류", decomposed("분류")):
        suite = load_suite(path, input_column="글", label_column=column)
        assert suite.examples[0].choices == ("긍정", "부정") and suite.examples[3].target == "부정"


def test_changed_examples_no_longer_match_their_toml(table: Path, tmp_path: Path) -> None:
    toml = write_suite(suite_from_csv(table, "text", "label"), tmp_path)
    with (tmp_path / "reviews.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(BadFileError) as caught:
        load_suite(toml)
    assert caught.value.message == (
        f"`{tmp_path / 'reviews.jsonl'}` is not the file that `reviews.toml` describes: its sha256 differs"
    )


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "-dash", "a/b"])
def test_suite_is_not_written_outside_its_folder(table: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a suite's name"):
        write_suite(dataclasses.replace(suite_from_csv(table, "text", "label"), name=name), tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_suite_has_no_name_that_windows_gives_a_device(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError, match="`CON` cannot be a suite's name: Windows gives it to a device"):
        write_suite(dataclasses.replace(suite_from_csv(table, "text", "label"), name="CON"), tmp_path / "to")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 1.5}, "`id` is 1.5, and should be text or a whole number"),
        ({"id": "first"}, "the id `first` was used in line 1 already"),
        ({"target": None}, "`target` is None, and should be text"),
        ({"target": "so so"}, "the target `so so` is not one of the choices: negative, positive"),
        ({"choices": "negative"}, "`choices` is 'negative', and should be a list of texts"),
        ({"choices": ["positive"]}, "`choices` needs at least two, all different: ['positive']"),
        ({"category": 3}, "`category` is 3, and should be text"),
        ({"input": 3}, "`input` is 3, and should be text"),
        ({"input": "\u3164"}, "`input` is '\u3164', and should be text"),
        ({"messages": []}, "an example has either `input` or `messages`"),
    ],
)
def test_wrong_example_is_refused_with_its_line(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", {**GOOD, "id": "first"}, {**GOOD, **change})
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert caught.value.message == f"`{path}`, line 2: {message}"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", "`messages` is no conversation"),
        ([], "`messages` is no conversation"),
        ([{"role": "human", "content": "x"}], "{'role': 'human', 'content': 'x'} is no message"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "the last message is the assistant's"),
        ([{"role": "user", "content": " "}], "the last message is empty"),
    ],
)
def test_wrong_conversation_is_refused(tmp_path: Path, messages: object, message: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"messages": messages, "target": "x"})
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert caught.value.message == f"`{path}`, line 1: {message}"


def test_what_is_nothing_of_an_example_might_as_well_be_left_out(tmp_path: Path) -> None:
    """`NaN`, as data frames write it, and null; of rows given in Python, too."""
    path = tmp_path / "s.jsonl"
    path.write_text('{"input": "q", "target": "x", "category": NaN, "group": null}\n', encoding="utf-8")
    assert [(example.category, example.group) for example in load_suite(path).examples] == [("", "")]


def test_missing_target_is_said_to_be_missing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"input": "x"})
    with pytest.raises(DataError, match="line 1: `target` is missing, and should be text"):
        load_suite(path)


def test_misspelt_fields_are_refused_and_other_columns_passed_over(tmp_path: Path) -> None:
    row = {"input": "x", "target": "y"}
    for name, hint in (
        ("catgory", "write it as `category`, or leave it out"),
        ("choice", "write it as `choices`, or leave it out"),
        ("other_targets", 'several right answers are a list: "target": ["…", "…"]'),
    ):
        with pytest.raises(DataError) as caught:
            load_suite(write_lines(tmp_path / "s.jsonl", {**row, name: "z"}))
        assert caught.value.message.endswith(f"line 1: an example has no `{name}`")
        assert caught.value.hint == hint
    with pytest.raises(DataError, match="line 1: an example has no `inputt`"):
        load_suite(write_lines(tmp_path / "s.jsonl", {"inputt": "x", "target": "y"}))
    turns = [{"role": "user", "content": "x"}]
    for question in ({"input": "x", "message": "z"}, {"messages": turns, "inputt": "z"}):
        assert load_suite(write_lines(tmp_path / "s.jsonl", {**question, "target": "y"})).examples[0].messages[-1].content == "x"
    more = {"idx": 1, "label": "z", "source": "z", "target_2": "z", "inputs": "z"}
    assert load_suite(write_lines(tmp_path / "s.jsonl", {**row, **more})).examples[0].target == "y"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("metric = ", " is not TOML: "),
        ("metrik = 'exact'", " sets `metrik`, which a suite does not have"),
        ("max_new_tokens = '5'", ": `max_new_tokens` is '5', and should be of type int"),
        ("max_new_tokens = 0", ": max_new_tokens is 0"),
        (f"max_new_tokens = 0x{'F' * 4000}", ": `max_new_tokens` is 3.02e+4816"),
        (f"shots = 0x{'F' * 4000}\nshots_from = 'x.jsonl'", ": `shots` is 3.02e+4816"),
        (f"title = 0x{'F' * 4000}", ": `title` is 3.02e+4816, and should be of type str"),
        ("metric = 'bleurt'", ": no metric is called `bleurt`"),
        ("metric = 'grade'", ": no metric is called `grade`"),
        ("stop = 'x'", ": `stop` is 'x', and should be a list of texts"),
        ("shots = 2", ": shots is 2, without a file they could come from"),
        ("shots = -1\nshots_from = 's.jsonl'", ": shots is -1"),
        ("prompt = 'Q:'", ": the prompt does not say where the example's text goes"),
        ("answer_start = 'A:'\nchat = false", ": answer_start is for conversations, and chat is false"),
        ("examples = 'none.jsonl'", " names examples in `none.jsonl`, and there is no such file"),
    ],
)
def test_wrong_toml_is_refused(tmp_path: Path, toml: str, message: str) -> None:
    write_lines(tmp_path / "s.jsonl", GOOD)
    path = tmp_path / "s.toml"
    path.write_text(toml)
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert caught.value.message.startswith(f"`{path}`{message}")


def test_choice_metric_needs_choices_everywhere(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", GOOD, {"id": "b", "input": "x", "target": "y"})
    path.with_suffix(".toml").write_text('metric = "choice"')
    with pytest.raises(DataError, match="example `b` has no choices, and the metric is `choice`"):
        load_suite(path)


def test_table_without_its_columns_named_says_which_there_are(table: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite(table, input_column="text")
    assert caught.value.message == "`reviews.csv` is a table, and its label column is not named"
    assert caught.value.hint == "name it with --label-column (in Python: `label_column`); its columns are: text, label"


def test_what_is_no_suite_is_refused_with_what_to_give() -> None:
    with pytest.raises(UsageError, match="data are named by a text or a path, or given as rows, and this is of the type NoneType"):
        load_suite(None)  # type: ignore[arg-type]


def test_rows_are_the_suite_that_a_jsonl_file_of_them_is(tmp_path: Path) -> None:
    rows = [GOOD, {"input": "Broke.", "target": "x", "choices": ["x", "y"]}]
    suite, of_file = load_suite(rows), load_suite(write_lines(tmp_path / "rows.jsonl", *rows))
    assert suite == of_file
    assert (suite.name, suite.metric, [example.id for example in suite.examples]) == ("rows", "choice", ["a", "2"])
    assert load_suite(iter({"category": None, "choices": float("nan"), **row} for row in rows)) == of_file  # as data frames have it
    written = write_suite(replace(suite, name="reviews"), tmp_path)
    assert load_suite(written).sha256 == suite.sha256


def test_rows_with_their_columns_named_are_a_table(table: Path) -> None:
    columns = {"input_column": "text", "label_column": "label"}
    texts = (("Works well. ", "positive"), ("Broke.", "negative"), ("좋아요", "positive"))
    rows = [{"label": label, "text": text} for text, label in texts]
    suite, of_file = load_suite(rows, **columns), load_suite(table, **columns)
    assert [replace(example, id="") for example in suite.examples] == [replace(example, id="") for example in of_file.examples]
    assert [example.id for example in suite.examples] == ["1", "2", "3"]
    parted = [{decomposed("글"): decomposed(text), "라벨": label} for text, label in texts]
    assert load_suite(parted, input_column="글", label_column="라벨") == suite
    numbers = load_suite([{"text": 1, "label": True}, {"text": 2.5, "label": False}], **columns)
    assert [example.target for example in numbers.examples] == ["True", "False"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"input": "a", "target": "b"}, {"input": "a"}], {}, "`rows`, row 2: `target` is missing, and should be text"),
        ([GOOD, GOOD], {}, "`rows`, row 2: the id `a` was used in row 1 already"),
        ([{"text": "a", "label": "x"}, {"text": "b"}, {"text": ""}], {"input_column": "text", "label_column": "label"},
         "`rows`, row 3: column `text` is empty; rows 2, 3: column `label` is empty"),
        ([{"text": "a"}], {"input_column": "text", "label_column": "label"}, "`rows` has no column `label`"),
        ([{"text": "a", "label": ["x"]}], {"input_column": "text", "label_column": "label"},
         "`rows`, row 1: column `label` holds a list, not a text"),
        ([{"text": "a", " text": "b", "label": "x"}], {"input_column": "text", "label_column": "label"},
         "`rows` has more than one column `text`"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_rows_is_named_with_the_number_of_the_row(
    rows: list[dict[str, object]], columns: dict[str, str], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_suite(rows, **columns)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"question": "2 + 2", "answer": "4"}, "its columns are: question, answer"),
        ({"input": "Works well.", "label": "good"}, "its columns are: input, label"),
        ({}, "it has no columns"),
    ],
)
def test_rows_that_are_no_examples_have_their_columns_to_be_named(row: dict[str, str], columns: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite([row])
    assert caught.value.message == "`rows` is a table, and its input column is not named"
    assert caught.value.hint == (
        f"name it with --input-column (in Python: `input_column`); {columns}; or name them `input` and `target` where answers are free"
    )


def test_an_instruction_makes_no_table_of_examples() -> None:
    with pytest.raises(UsageError, match="an instruction is for tables, and these rows are a suite's examples") as caught:
        load_suite([GOOD], instruction="Is it good?")
    assert caught.value.hint == (
        "name both columns of a table (in Python: `input_column` and `label_column`), or leave the instruction out"
    )


def test_an_example_without_a_value_is_no_table() -> None:
    with pytest.raises(DataError, match="`rows`, row 1: an example has either `input` or `messages`"):
        load_suite([{"input": None, "target": "x"}])
    with pytest.raises(DataError, match="`rows`, row 1: `target` is 4, and should be text") as caught:
        load_suite([{"input": "2 + 2", "target": 4}])
    assert caught.value.hint == 'write it as text: "target": "…"'


def test_the_home_folder_is_known_by_its_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_at_home_in(tmp_path, monkeypatch)
    write_lines(tmp_path / "s.jsonl", GOOD)
    assert load_suite("~/s.jsonl") == load_suite(Path("~/s.jsonl")) == load_suite(tmp_path / "s.jsonl")


def test_table_needs_two_labels_and_not_hundreds(tmp_path: Path) -> None:
    one = tmp_path / "one.csv"
    one.write_text("text,label\na,x\nb,x\n")
    with pytest.raises(DataError, match="every row has the label `x`"):
        suite_from_csv(one, "text", "label")
    many = tmp_path / "many.csv"
    many.write_text("text,label\n" + "".join(f"t,{n}\n" for n in range(300)))
    with pytest.raises(DataError, match="holds 300 different labels, and at most 256 can be chosen from"):
        suite_from_csv(many, "text", "label")


def test_columns_are_refused_where_there_is_no_table(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", GOOD)
    with pytest.raises(UsageError, match="are for tables"):
        load_suite(path, input_column="text")
    with pytest.raises(UsageError, match="an instruction are for tables"):
        load_suite(path, instruction="Is it good?")


def test_of_several_suites_the_tables_alone_are_read_by_columns(table: Path, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", GOOD)
    columns = {"input_column": "text", "label_column": "label", "instruction": "Is it good?"}
    assert load_suites([str(path), str(table)], **columns) == [load_suite(path), load_suite(table, **columns)]
    for refs in ([str(path), str(path)], []):
        with pytest.raises(UsageError, match="are for tables"):
            load_suites(refs, **columns)
    with pytest.raises(UsageError, match="is a table, and its input column is not named"):
        load_suites([str(path), str(table)])


def test_of_several_suites_none_is_read_where_one_cannot_be_meant(tmp_path: Path) -> None:
    """The first of them might be pulled."""
    broken = write_lines(tmp_path / "broken.jsonl", 1)
    (tmp_path / "report.pdf").write_text("x")
    with pytest.raises(UsageError, match="cannot tell what kind of file this is"):
        load_suites([str(broken), str(tmp_path / "report.pdf")])
    with pytest.raises(UsageError, match="are for tables"):
        load_suites([str(broken)], input_column="text")


def test_a_suite_is_one_file_from_first_to_last(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name means is asked once: a file that comes between would be read with the columns of a table, or without."""
    path = write_lines(tmp_path / "s.jsonl", GOOD)
    asked: list[str] = []
    monkeypatch.setattr(suites, "find", lambda ref: asked.append(ref) or (table if ref == "table" else path))
    load_suites(["s", "table"], input_column="text", label_column="label")
    assert asked == ["s", "table"]


def test_unknown_suite_names_the_nearest_and_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError) as caught:
        load_suite("vicuna8")
    assert caught.value.message == "no suite is called `vicuna8`"
    assert caught.value.hint == (
        "did you mean `vicuna80`? `nomoat suites` lists them, `nomoat suites new FILE` makes one; "
        "or give the path of a .toml, .jsonl or .csv"
    )
    for ref in ("none.jsonl", "no/where", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="there is no such file"):
            load_suite(ref)


def test_folder_with_no_suite_or_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no suite"):
        load_suite(tmp_path)
    for name in ("a", "b"):
        write_lines(tmp_path / f"{name}.jsonl", GOOD)
    with pytest.raises(UsageError, match="holds 2 suites"):
        load_suite(tmp_path)
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UsageError, match="cannot tell what kind of file this is") as caught:
        load_suite(tmp_path / "file.txt")
    assert caught.value.hint == "suites end in .toml, .jsonl or .ndjson, tables in .csv, .tsv, .tab"


def test_a_suite_may_end_in_ndjson(tmp_path: Path) -> None:
    write_lines(tmp_path / "my.ndjson", GOOD)
    assert load_suite(str(tmp_path / "my.ndjson")).name == "my"


def test_a_workbook_is_refused_as_one_whether_or_not_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "표.xlsx").write_bytes(b"PK\x03\x04")
    for load in (lambda: load_suite(tmp_path / "표.xlsx"), lambda: load_suites([str(tmp_path / "표.xlsx")], input_column="글")):
        with pytest.raises(UsageError) as caught:
            load()
        assert caught.value.message == f"`{tmp_path / '표.xlsx'}` is a workbook, not a text file"
        assert caught.value.hint == AS_UTF_8_KOREAN


@pytest.mark.data
def test_vicuna80_has_its_80_questions_in_nine_categories(vicuna_folder: Path) -> None:
    suite = load_suite("vicuna80")
    assert len(suite.examples) == 80
    assert len({example.category for example in suite.examples}) == 9
    assert (suite.metric, suite.licence) == ("review", "apache-2.0")


def test_shots_are_turns_of_a_chat_or_one_text(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", {"input": "1+1", "target": "2"}, {"input": "2+2", "target": "4"})
    write_lines(tmp_path / "s.jsonl", {"input": "3+3", "target": "6"})
    toml = tmp_path / "s.toml"
    frame = 'metric = "numeric"\nprompt = "Q: {input}\\nA:"\nshots = 2\nshots_from = "train.jsonl"\n'
    toml.write_text(frame)
    assert [(message.role, message.content) for message in load_suite(toml).examples[0].messages] == [
        ("user", "Q: 1+1\nA:"),
        ("assistant", "2"),
        ("user", "Q: 2+2\nA:"),
        ("assistant", "4"),
        ("user", "Q: 3+3\nA:"),
    ]
    toml.write_text(frame + 'chat = false\nsystem = "Add."\n')
    (message,) = load_suite(toml).examples[0].messages
    assert message.content == "Add.\n\nQ: 1+1\nA: 2\n\nQ: 2+2\nA: 4\n\nQ: 3+3\nA:"
    toml.write_text(frame.replace("shots = 2", "shots = 3"))
    with pytest.raises(DataError, match="holds 2 examples, and 3 are to be shown"):
        load_suite(toml)


def test_every_setting_is_written_and_read_back(tmp_path: Path) -> None:
    first = {"input": "x", "target": ["1", "one"], "group": "g"}
    write_lines(tmp_path / "s.jsonl", first, {"id": "b", "input": "y", "target": "2"})
    (tmp_path / "s.toml").write_text(
        'metric = "f1"\ntitle = "T"\nlanguage = "en"\nprompt_source = "ours"\nstop = ["\\n"]\nchat = false\ndelimiter = "  "\n'
    )
    suite = load_suite(tmp_path / "s.toml")
    assert suite.examples[0].other_targets == ("one",)
    assert (suite.stop, suite.chat, suite.delimiter) == (("\n",), False, "  ")
    assert load_suite(write_suite(suite, tmp_path / "copy")) == suite
    (tmp_path / "s.toml").write_text('metric = "f1"\nchat = false\ndelimiter = ""\n')
    joined = load_suite(tmp_path / "s.toml")
    assert load_suite(write_suite(joined, tmp_path / "joined")) == joined
    write_lines(tmp_path / "s.jsonl", first, {"id": "b", "input": "y", "target": "2", "follows": "1"})
    (tmp_path / "s.toml").write_text('answer_start = "답:\\n"')
    begun = load_suite(tmp_path / "s.toml")
    assert (begun.answer_start, begun.sha256 != suite.sha256) == ("답:\n", True)
    assert load_suite(write_suite(begun, tmp_path / "begun")) == begun


@pytest.mark.parametrize("metric", ["judged", "grade", "review"])
def test_a_suite_whose_scores_come_from_elsewhere_is_not_written(table: Path, tmp_path: Path, metric: Metric) -> None:
    """It could not be read again."""
    suite = replace(load_suite(table, input_column="text", label_column="label"), metric=metric)
    with pytest.raises(UsageError, match=f"has scores from elsewhere \\(`{metric}`\\), which a suite's file cannot hold"):
        write_suite(suite, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    "row",
    [
        {"id": "b", "input": "and then?", "target": "y", "follows": "a"},
        {"id": "b", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}], "target": "y"},
    ],
)
def test_conversation_without_a_chat_is_refused(tmp_path: Path, row: dict[str, object]) -> None:
    """Only its last message would be asked."""
    path = write_lines(tmp_path / "s.jsonl", {"id": "a", "input": "x", "target": "y"}, row)
    assert len(load_suite(path).examples) == 2
    path.with_suffix(".toml").write_text("chat = false")
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert caught.value.message == f"`{path}`: example `b` is part of a conversation, and chat is false"


@pytest.mark.parametrize(
    ("metric", "target", "message"),
    [
        ("numeric", "many", "line 1: example `1` has the target `many`, which holds no number"),
        ("numeric", "10 or 12", "which holds 2 numbers: write the answer alone, or behind `####`"),
        ("numeric", "9 * 2 = 18 #### 18 of 20", "which holds 2 numbers"),
        ("numeric", "1/2", "which is a fraction or a power: write it out, such as 0.5"),
        ("numeric", "10½", "which is a fraction or a power"),
        ("numeric", "10²", "which is a fraction or a power"),
        ("numeric", "10^2", "which is a fraction or a power"),
        ("numeric", "10⁻³", "which is a fraction or a power"),
        ("numeric", "5 m #### 10²", "which is a fraction or a power"),
        ("regex", "(", "has the target `(`, which is no pattern"),
        ("regex", "(" * 3000, "`, which is no pattern (it is nested too deep)"),
        ("code", "assert f()", "has a target without {answer} before its tests, where the answer's code goes"),
        (
            "code",
            "{answer}\nconsole.assert(f() === 1)",
            "has a target that is no Python program, whatever stands for {answer}: no other language is run",
        ),
        ("json", "{", "has a target that is not JSON"),
    ],
)
@pytest.mark.parametrize("first", ["", '[1, "{answer}"]'])
def test_target_that_the_metric_cannot_use_is_refused(tmp_path: Path, metric: str, target: str, message: str, first: str) -> None:
    """Alone, and behind one that every metric can use."""
    path = write_lines(tmp_path / "s.jsonl", {"input": "x", "target": [first, target] if first else target})
    path.with_suffix(".toml").write_text(f'metric = "{metric}"')
    with pytest.raises(DataError) as caught:
        load_suite(path)
    assert message in caught.value.message and caught.value.message.endswith(f"and the metric is `{metric}`")


@pytest.mark.parametrize(
    "target",
    [
        "18",
        "-1,234.50",
        "$18",
        "1e5",
        "25 m²",
        "18개",
        "25㎡",
        "25 ㎡",
        "5㎏",
        "10㎝",
        "50㎖",
        "25º",
        "18 = 36/2",
        "She makes 9 * 2 = 18 dollars.\n#### 18",
        "5² = 25 #### 25",
        "25² is 625, and its root\n#### 25",
    ],
)
def test_target_of_one_number_may_have_a_unit_or_a_solution_before_it(tmp_path: Path, target: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"input": "x", "target": target})
    path.with_suffix(".toml").write_text('metric = "numeric"')
    assert load_suite(path).examples[0].target == target


def test_schema_may_be_all_there_is(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"input": "x"})
    (tmp_path / "s.schema.json").write_text('{"type": "object", "required": ["a"]}')
    path.with_suffix(".toml").write_text('metric = "json"\nschema = "s.schema.json"')
    suite = load_suite(path)
    assert suite.schema == {"type": "object", "required": ["a"]}
    assert load_suite(write_suite(suite, tmp_path / "copy")) == suite


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ('{"type": "thing"}', "is no JSON schema"),
        ("5", "is no JSON schema"),
        ('{"properties": {"a": {"$ref": "#/$defs/a"}}}', "refers to `#/$defs/a`, which is not in it"),
        ('{"$ref": "http://127.0.0.1:9/schema.json"}', "refers to `http://127.0.0.1:9/schema.json`"),
        ('{"$ref": "https://json-schema.org/nope"}', "refers to `https://json-schema.org/nope`, which is not in it"),
        ('{"$dynamicRef": "#nope"}', "refers to `#nope`, which is not in it"),
        ('{"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveRef": "#nope"}', "refers to `#nope`"),
        ('{"$ref": "#/enum/0", "enum": [{"type": "nope"}]}', "refers to `#/enum/0`, which is no JSON schema"),
        ('{"$ref": "#/title", "title": "x"}', "refers to `#/title`, which is no JSON schema"),
        ('{"$id": "http://[", "$ref": "a"}', "refers to `a`, which is not in it"),
        ('{"properties": {"a": ' * 300 + "{}" + "}}" * 300, "is nested too deep"),
        ('{"a": ' + "[" * 100_000, "too many to be read"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(tmp_path: Path, schema: str, message: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", {"input": "x"})
    (tmp_path / "s.schema.json").write_text(schema)
    path.with_suffix(".toml").write_text('metric = "json"\nschema = "s.schema.json"')
    with pytest.raises(DataError, match=re.escape(message)):
        load_suite(path)


def test_nothing_follows_a_choice(tmp_path: Path) -> None:
    first = {"id": "a", "input": "x", "choices": ["1", "2"], "target": "1"}
    path = write_lines(tmp_path / "s.jsonl", first, {**first, "id": "b", "follows": "a"})
    path.with_suffix(".toml").write_text('metric = "choice"')
    with pytest.raises(DataError, match="example `b` follows another"):
        load_suite(path)
