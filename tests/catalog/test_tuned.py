"""What was written about a tuned adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nomoat.catalog import tuned
from nomoat.errors import BadFileError


def test_a_provenance_of_endless_brackets_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text("[" * 100_000)
    with pytest.raises(BadFileError) as caught:
        tuned.provenance_of(tmp_path)
    assert caught.value.message.startswith(f"`{tmp_path / 'provenance.json'}` cannot be read")
    assert caught.value.hint == "tune the adapter again"


BY_LABELS = "Classify the text. Answer with one of: ham, spam.\n\nText: {text}\nLabel:"


def table(labels: dict[str, int], instruction: str | None = None, **more: Any) -> dict[str, Any]:
    """What the first versions wrote of a table."""
    task = {"input_column": "text", "label_column": "label", "instruction": instruction}
    return {"task": task, "data": {"format": "table of texts and labels", "labels": labels}, **more}


@pytest.mark.parametrize(
    ("provenance", "question"),
    [
        (table({"spam": 7, "ham": 52}), BY_LABELS),
        (table({"spam": 7}, start={"labels": ["ham", "spam"], "instruction": None}), BY_LABELS),
        (table({"spam": 7, "ham": 52}, "Is {text} spam?"), "Is {text} spam?\n\nText: {text}\nLabel:"),
        (table({}, "Which colour?"), "Which colour?\n\nText: {text}\nLabel:"),
        (table({}), None),
        ({"task": {"input_column": None, "instruction": None}, "data": {"format": "OpenAI chats", "labels": {}}}, None),
        ({**table({"spam": 7, "ham": 52}), "data": {"question": "Kept: {text}", "labels": {"spam": 7}}}, "Kept: {text}"),
        ({**table({"spam": 7, "ham": 52}), "data": {"question": None, "labels": {"spam": 7}}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_question_of_a_table_is_made_of_what_there_was_where_it_was_not_kept(provenance: dict[str, Any], question: str) -> None:
    assert tuned.question_of(provenance) == question
