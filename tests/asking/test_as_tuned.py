"""Texts are asked about as the tuned models that answer learned it. The adapters have no weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import write_learned

import nomoat
from nomoat import commands, paths
from nomoat.asking.as_tuned import Question, question_for
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError, UnknownModelError, UsageError
from nomoat.judge.run import run_suite
from nomoat.judge.suite import Suite
from nomoat.judge.suites import load_suite
from nomoat.labelling import MAX_LABELS, label_instruction
from nomoat.responder import Responder

COLUMNS = {"input_column": "text", "label_column": "label"}


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    path = tmp_path / "gold.csv"
    path.write_text("text,label\nfine,positive\nbad,negative\n", encoding="utf-8")
    return path


def write_adapter(name: str, *labels: str, instruction: str | None = None, before: tuple[str, ...] = ()) -> str:
    """A reference to a model that was tuned on a table with these labels, and before that on one with others."""
    folder = paths.adapters() / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    write_learned(folder, *labels, instruction=instruction, before=before)
    return f"base+{name}"


def test_a_model_that_learned_a_whole_question_is_asked_it_and_told_where_it_is_not(gold: Path) -> None:
    tuned = write_adapter("whole", "negative", "positive", instruction="Is {text} good?")
    suite = load_suite(gold, **COLUMNS, instruction="Is {text} good?", models=[tuned])
    assert (suite.examples[0].messages[0].content, suite.notes) == ("Is fine good?", ())
    assert load_suite(gold, **COLUMNS, models=[tuned, "fake:"]).notes == (
        "`base+whole` was tuned on another question than this, see `nomoat show base+whole`; "
        "give the same --instruction (in Python: `instruction`)",
    )
    assert question_for(tuned).instruction == "Is {text} good?"


def test_models_that_all_learned_one_instruction_are_asked_with_it_where_none_is_given(gold: Path) -> None:
    one, other = (write_adapter(name, "negative", "positive", instruction="Is {text} good?") for name in ("one", "other"))
    plain, spam = write_adapter("plain", "negative", "positive"), write_adapter("spam", "ham", "spam", instruction="Is {text} spam?")
    suite = load_suite(gold, **COLUMNS, models=[one])
    assert suite.examples[0].messages[0].content == "Is fine good?"
    assert suite.notes == ("asked with the instruction that `base+one` learned, see `nomoat show base+one`",)
    both = load_suite(gold, **COLUMNS, models=[one, other, f"stored:gold/{one}"])
    assert both.notes == ("asked with the instruction that `base+one` and `base+other` learned, see `nomoat show base+one`",)
    assert both.sha256 == suite.sha256
    for models in ([one, "base"], [one, plain], [spam], [one, spam]):
        assert load_suite(gold, **COLUMNS, models=models).examples[0].messages[0].content.startswith("Classify the text.")


def asked(suite: Suite) -> tuple[tuple[str, ...], str]:
    """The choices, and the first line of the question."""
    (choices,) = {example.choices for example in suite.examples}
    return choices, suite.examples[0].messages[0].content.partition("\n")[0]


def test_labels_that_only_the_tuned_model_knows_are_asked_of_every_side(gold: Path) -> None:
    tuned = write_adapter("t", "negative", "neutral", before=("positive",))
    suite = load_suite(gold, **COLUMNS, models=["openai:m", tuned])
    labels = ("negative", "neutral", "positive")
    assert asked(suite) == (labels, label_instruction(labels))
    assert suite.notes == ("asked for besides the table's labels: neutral; `base+t` learned to choose from these, too",)
    model = Responder(tuned, FakeEngine())
    assert run_suite(model, suite).notes[0] == suite.notes[0]
    assert suite.notes[0] in nomoat.duel(model, "fake:", gold, **COLUMNS).notes
    assert load_suite(gold, **COLUMNS, models=["stored:gold/base+t", "fake:"]).sha256 == suite.sha256


def test_without_a_tuned_model_a_table_is_asked_as_ever(gold: Path) -> None:
    write_adapter("t", "negative", "neutral", "positive")
    plain = load_suite(gold, **COLUMNS)
    for models in (["base", "fake:"], ["base+no_such", "openai:m+t", "auto"]):
        assert load_suite(gold, **COLUMNS, models=models) == plain
    assert asked(plain) == (("negative", "positive"), label_instruction(["negative", "positive"]))
    assert plain.notes == ()


def test_a_table_of_one_label_is_asked_where_a_model_knows_others(gold: Path) -> None:
    gold.write_text("text,label\nfine,positive\n", encoding="utf-8")
    with pytest.raises(DataError, match="every row has the label `positive`"):
        load_suite(gold, **COLUMNS)
    tuned = write_adapter("t", "negative", "positive")
    assert asked(load_suite(gold, **COLUMNS, models=[tuned]))[0] == ("negative", "positive")


def test_labels_that_a_model_never_learned_are_named(gold: Path) -> None:
    one, other = write_adapter("one", "positive", "mixed"), write_adapter("other", "negative", "positive")
    suite = load_suite(gold, **COLUMNS, models=[one, other])
    assert asked(suite)[0] == ("mixed", "negative", "positive")
    assert suite.notes == (
        "asked for besides the table's labels: mixed; `base+one` learned to choose from these, too",
        "`base+one` never learned negative, which can be chosen here",
        "`base+other` never learned mixed, which can be chosen here",
    )


def test_other_words_or_another_task_are_said_and_change_nothing(gold: Path) -> None:
    spam, shorter = write_adapter("spam", "ham", "spam"), write_adapter("short", "negative", "positive", instruction="Good?")
    many = write_adapter("many", "positive", *(f"label {number}" for number in range(MAX_LABELS - 1)))
    suite = load_suite(gold, **COLUMNS, models=[spam, shorter])
    assert asked(suite) == asked(load_suite(gold, **COLUMNS))
    assert suite.notes == (
        "`base+spam` never learned negative, positive, which can be chosen here; it learned ham, spam",
        "`base+spam` was tuned on another question than this, see `nomoat show base+spam`",
        "`base+short` was tuned on another question than this, see `nomoat show base+short`; "
        "give the same --instruction (in Python: `instruction`)",
    )
    assert load_suite(gold, **COLUMNS, instruction="Good?", models=[shorter]).notes == ()
    too_many = load_suite(gold, **COLUMNS, models=[many])  # 257 with the table's own
    assert asked(too_many) == asked(load_suite(gold, **COLUMNS))
    assert too_many.notes == ("`base+many` never learned negative, which can be chosen here",)


def test_labels_that_a_model_never_learned_are_named_where_it_is_asked_in_its_words_and_knows_none_of_them(gold: Path) -> None:
    other = write_adapter("other", "bad", "good", instruction="Good?")
    assert load_suite(gold, **COLUMNS, instruction="Good?", models=[other]).notes == (
        "`base+other` never learned negative, positive, which can be chosen here; it learned bad, good",
    )


def test_evaluate_and_duel_warn_of_labels_that_the_model_never_learned() -> None:
    """As of whole numbers that a data frame has made floats."""
    model = Responder(write_adapter("spam", "0", "1"), FakeEngine())
    rows = [{"text": "fine", "label": 0.0}, {"text": "win", "label": 1.0}]
    said = "`base+spam` never learned 0.0, 1.0, which can be chosen here; it learned 0, 1"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$") as warned:
        outcomes = nomoat.evaluate(model, rows, **COLUMNS)
    assert said in outcomes.notes
    assert [one.filename for one in warned] == [__file__]
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$") as warned:
        verdict = nomoat.duel(model, "fake:", rows, **COLUMNS)
    assert said in verdict.notes
    assert [one.filename for one in warned] == [__file__]
    whole = [{**row, "label": int(row["label"])} for row in rows]
    nomoat.evaluate(model, whole, **COLUMNS)  # says nothing
    nomoat.duel(model, "fake:", whole, **COLUMNS)


def test_where_warnings_are_errors_nothing_is_asked_of_a_model_that_never_learned_the_labels() -> None:
    model = Responder(write_adapter("spam", "0", "1"), FakeEngine())
    rows = [{"text": "fine", "label": 2}, {"text": "win", "label": 3}]
    told: list[object] = []
    with pytest.raises(UserWarning, match="never learned 2, 3"):
        nomoat.evaluate(model, rows, **COLUMNS, progress=lambda *so_far: told.append(so_far))
    assert told == []


def test_texts_without_labels_are_asked_about_as_a_model_learned_it() -> None:
    plain, worded = write_adapter("plain", "no", before=("yes",)), write_adapter("worded", "no", "yes", instruction="Good?")
    asked_as = "asked with {1}, as `base+{0}` was tuned: see `nomoat show base+{0}`"
    notes = (asked_as.format("plain", "its labels (no, yes)"),)
    assert question_for(plain) == Question(labels=("no", "yes"), instruction=None, notes=notes)
    notes = (asked_as.format("worded", "its labels (no, yes) and its instruction"),)
    assert question_for(worded) == Question(labels=("no", "yes"), instruction="Good?", notes=notes)
    notes = (
        asked_as.format("worded", "its instruction"),
        "`base+worded` never learned maybe, which can be chosen here",
        "`base+worded` learned no, too, which cannot be chosen here",
    )
    assert question_for(worded, ["yes", "maybe"]) == Question(labels=("yes", "maybe"), instruction="Good?", notes=notes)


def test_what_shows_a_model_of_a_file_can_be_pasted_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "tiny one.gguf").touch()
    ref = write_adapter("plain", "no", "yes").replace("base", str(tmp_path / "tiny one.gguf"))
    command = commands.as_line(["nomoat", "show", ref])
    assert question_for(ref).notes == (f"asked with its labels (no, yes), as `{ref}` was tuned: see `{command}`",)
    other = f"`{ref}` was tuned on another question than this, see `{command}`"
    assert question_for(ref, ["no", "yes"], "Good?").notes == (other,)


def test_texts_asked_about_otherwise_than_a_model_learned_it_have_the_notes_of_a_table() -> None:
    plain, worded = write_adapter("plain", "no", "yes"), write_adapter("worded", "no", "yes", instruction="Good?")
    assert question_for(plain, ["yes", "no"]).notes == question_for(worded, ["yes", "no"], "Good?").notes == ()
    other = "`base+plain` was tuned on another question than this, see `nomoat show base+plain`"
    assert question_for(plain, ["no", "yes"], "Good?").notes == question_for(plain, ["ham", "spam"], "Good?").notes == (other,)
    unlearned = "`base+plain` never learned ham, spam, which can be chosen here; it learned no, yes"
    assert question_for(plain, ["ham", "spam"]).notes == (unlearned, other)
    assert question_for(worded, ["no", "yes"], "Bad?").notes[0].endswith("; give the same --instruction (in Python: `instruction`)")


def test_labels_as_a_model_learned_them_are_taken_though_they_differ_in_case_alone() -> None:
    messy = write_adapter("messy", "Yes", "yes")
    assert question_for(messy, question_for(messy).labels).labels == ("Yes", "yes")
    with pytest.raises(UsageError, match="the labels are `No`, `no`"):
        question_for(messy, ["No", "no"])


def test_labels_that_hold_commas_are_named_where_the_question_lists_them_and_no_model_learned_it(tmp_path: Path) -> None:
    note = (
        "labels that hold commas or line breaks look like several where the question lists them: `a, b`; "
        "an --instruction (in Python: `instruction`) can tell them apart"
    )
    path, labels = tmp_path / "t.csv", ["a", "a, b", "b"]
    path.write_text('text,label\none,a\ntwo,b\nthree,"a, b"\n', encoding="utf-8")
    assert question_for("fake:", labels).notes == load_suite(path, **COLUMNS).notes == (note,)
    assert question_for("fake:", labels, "Which?").notes == load_suite(path, **COLUMNS, instruction="Which?").notes == ()
    tuned = write_adapter("commas", *labels)
    asked_as = "asked with its labels (a, `a, b`, b), as `base+commas` was tuned: see `nomoat show base+commas`"
    assert question_for(tuned).notes == (asked_as,)
    assert load_suite(path, **COLUMNS, models=[tuned]).notes == ()


def test_labels_of_a_set_are_asked_about_in_the_same_order_by_every_process() -> None:
    names = [f"label {number}" for number in range(10, 30)]
    assert question_for("fake:", set(names)).labels == (*names,)


def test_labels_have_to_be_given_where_nothing_says_that_a_model_learned_some() -> None:
    free = write_adapter("free", instruction="Answer.")
    for ref in ("fake:", "openai:m", free):
        with pytest.raises(UsageError, match=f"nothing here says that `{re.escape(ref)}` was tuned on a table of labels") as caught:
            question_for(ref)
        assert caught.value.hint == "add --labels a,b,c, or --labels FILE (in Python: `labels`)"
    assert question_for("fake:", ["a", "b"]) == Question(labels=("a", "b"), instruction=None, notes=())
    assert question_for(free, ["a", "b"]).instruction == "Answer."
    with pytest.raises(UnknownModelError, match="`base`"):
        question_for("base+no_such")
