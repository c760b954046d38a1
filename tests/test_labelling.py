"""The one prompt that a table of labelled texts becomes."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.errors import UsageError
from nomoat.labelling import is_put, kept_question, label_task_messages, put_question
from nomoat.records import Message


def test_label_prompt_names_the_labels_in_order_once() -> None:
    expected = "Classify the text. Answer with one of: negative, positive.\n\nText: Works well.\nLabel:"
    for labels in (["positive", "negative"], ["negative", "positive", "negative"]):
        assert label_task_messages("Works well.", labels) == (Message(role="user", content=expected),)


def test_own_instruction_is_used_word_for_word() -> None:
    (message,) = label_task_messages("좋아요", ["긍정", "부정"], instruction="리뷰의 감정을 고르세요: {긍정, 부정}")
    assert message.content == "리뷰의 감정을 고르세요: {긍정, 부정}\n\nText: 좋아요\nLabel:"


def test_an_instruction_that_is_no_text_is_refused() -> None:
    number: Any = 1
    with pytest.raises(UsageError, match="`instruction` is of the type int, not a text"):
        label_task_messages("Works well.", ["positive", "negative"], instruction=number)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("리뷰: {text}\n감정:", "리뷰: 좋아요 {text}\n감정:"),
        (r"리뷰: {text}\n감정:", "리뷰: 좋아요 {text}\n감정:"),
        ("{text}", "좋아요 {text}"),
        ('Answer {"label": "긍정"} or {label}.\n{text}', 'Answer {"label": "긍정"} or {label}.\n좋아요 {text}'),
        ('Such as {"text": "a\\nb"}.\n{text}', 'Such as {"text": "a\\nb"}.\n좋아요 {text}'),
    ],
)
def test_an_instruction_that_holds_the_texts_place_is_the_whole_question(instruction: str, expected: str) -> None:
    labels = ["긍정", "부정"]
    assert label_task_messages("좋아요 {text}", labels, instruction=instruction) == (Message(role="user", content=expected),)


@pytest.mark.parametrize("instruction", [r'Answer {"label": "good\n"}.', "Which {name}?", "Which { text }, {Text} or {{}}?"])
def test_other_words_in_braces_stand_before_the_text_as_they_are(instruction: str) -> None:
    (message,) = label_task_messages("fine", ["bad", "good"], instruction=instruction)
    assert message.content == f"{instruction}\n\nText: fine\nLabel:"


def test_an_instruction_that_holds_the_texts_place_twice_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        label_task_messages("fine", ["bad", "good"], instruction="{text}\nIs {text} good?")
    assert caught.value.message == (
        "`instruction` holds `{text}` 2 times: with it an instruction is the whole question, in which the text stands once"
    )
    assert caught.value.hint == "write `{text}` once, where the text goes, or not at all: then the text stands behind the instruction"


def test_a_label_that_reads_as_the_texts_place_is_named_as_any_other() -> None:
    labels = ["{name}", "{text}"]
    (message,) = label_task_messages("fine", labels)
    expected = "Classify the text. Answer with one of: {name}, {text}.\n\nText: fine\nLabel:"
    assert message.content == put_question(kept_question(labels), "fine") == expected


@pytest.mark.parametrize("instruction", [None, "감정을 고르세요.", r"Fill {text} in.\n:"])
def test_a_kept_question_asks_about_any_text_what_a_row_of_it_would_be_asked(instruction: str | None) -> None:
    (asked,) = label_task_messages("좋아요 {text}", ["긍정", "부정"], instruction=instruction)
    assert put_question(kept_question(["긍정", "부정"], instruction), "좋아요 {text}\n") == asked.content


def test_a_kept_question_is_an_instruction_that_asks_the_same() -> None:
    question = kept_question(["spam", "ham"])
    assert kept_question([], question) == kept_question([], question.replace("\n", "\\n")) == question


def test_a_kept_question_is_known_by_the_words_around_the_text() -> None:
    question = kept_question([], "감정을 고르세요.")
    asked = put_question(question, "좋아요")
    assert is_put(question, asked) and is_put(question, f"<|user|>{asked}<|end|>")
    spaced = kept_question([], "\nReview: {text}\nLabel:\n")
    assert is_put(spaced, "Review: x\nLabel:") and not is_put(spaced, "Review: x")
    for other in ("좋아요", asked.removesuffix("Label:"), asked.removeprefix("감정을"), ""):
        assert not is_put(question, other)
