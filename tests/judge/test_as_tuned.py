"""A table is asked as the tuned models that answer it learned it. Adapters here are what `tune` writes about them, without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nomoat
from nomoat import paths
from nomoat.engine.fake import FakeEngine
from nomoat.errors import DataError
from nomoat.judge.run import run_suite
from nomoat.judge.suites import Suite, load_suite
from nomoat.responder import Responder
from nomoat.tasks import MAX_LABELS, kept_question, label_instruction

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
    words = label_instruction([*labels, *before]) if instruction is None else instruction
    facts: dict[str, Any] = {
        "data": {"labels": dict.fromkeys(labels, 3), "question": kept_question(words)},
        "task": {"instruction": instruction},
        "start": {"labels": list(before), "instruction": None} if before else None,
    }
    (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    return f"base+{name}"


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
        "`base+spam` was tuned on another question than this, see `nomoat show base+spam`",
        "`base+short` was tuned on another question than this, see `nomoat show base+short`; "
        "give the same --instruction (in Python: `instruction`)",
    )
    assert load_suite(gold, **COLUMNS, instruction="Good?", models=[shorter]).notes == ()
    too_many = load_suite(gold, **COLUMNS, models=[many])  # 257 with the table's own
    assert asked(too_many) == asked(load_suite(gold, **COLUMNS))
    assert too_many.notes == ("`base+many` never learned negative, which can be chosen here",)
