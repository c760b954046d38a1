"""Parts of a suite: what is in them."""

from __future__ import annotations

import dataclasses

import pytest

from nomoat.judge.slices import language_of, note_on, slices_of
from nomoat.records import Example, Message


def example(text: str, category: str = "") -> Example:
    return Example(id=text, messages=(Message(role="user", content=text),), target="x", category=category)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Which is it?", "other languages"),
        ("이 영화는 어땠나요?", "Korean"),
        ("Classify the review: 정말 재미있는 영화였어요. 다시 보고 싶습니다", "Korean"),
        ("Translate the word 영화 into English, please, and say how it is pronounced", "other languages"),
        ("映画はどうでしたか", "Japanese"),
        ("这部电影怎么样", "Chinese"),
        ("12 + 5 = ?", "other languages"),
        ("", "other languages"),
    ],
)
def test_language_is_read_from_the_letters(text: str, language: str) -> None:
    assert language_of(text) == language


def test_suite_of_one_kind_has_no_parts() -> None:
    assert [row.name for row in slices_of([example(f"same {at:02}") for at in range(40)])] == ["all"]


def test_parts_hold_each_example_once() -> None:
    examples = [example("글자" * (at + 1) if at % 2 else "word " * (at + 1), "ab"[at % 2]) for at in range(60)]
    rows = {row.name: row.positions for row in slices_of(examples)}
    lengths = [name for name in rows if "characters" in name]
    assert list(rows) == ["all", "a", "b", *lengths, "Korean", "other languages"]
    assert lengths[0].startswith("under ")
    assert lengths[2].endswith(" characters or more")
    for names in (("a", "b"), ("Korean", "other languages"), lengths):
        assert sorted(at for name in names for at in rows[name]) == list(range(60))


def test_categories_of_single_questions_have_no_rows_and_a_note_says_so() -> None:
    few, many = ([example(f"same {at:03}", category=str(at)) for at in range(num)] for num in (100, 101))
    assert (len(slices_of(few)), note_on(few)) == (101, "")
    assert [row.name for row in slices_of(many)] == ["all"]
    assert note_on(many) == "The 101 categories have no rows: more than 100 tell little."


def labelled(targets: str, choices: tuple[str, ...]) -> list[Example]:
    return [dataclasses.replace(example(f"same {at}"), target=target, choices=choices) for at, target in enumerate(targets)]


def test_a_table_of_a_few_labels_has_a_row_for_each() -> None:
    rows = slices_of(labelled("hshhs", ("h", "s", "x")))
    assert [(row.name, row.positions, row.is_data) for row in rows[1:]] == [("h", (0, 2, 3), True), ("s", (1, 4), True)]
    many = tuple(map(str, range(21)))
    assert [row.name for row in slices_of(labelled("01", many[:20]))] == ["all", "0", "1"]
    assert [row.name for row in slices_of(labelled("01", many))] == ["all"]


def test_questions_with_choices_or_categories_of_their_own_have_no_row_for_each_label() -> None:
    first, second = labelled("hs", ("h", "s"))
    assert [row.name for row in slices_of([first, dataclasses.replace(second, choices=("s", "x"))])] == ["all"]
    named = [dataclasses.replace(first, category="a"), dataclasses.replace(second, category="b")]
    assert [row.name for row in slices_of(named)] == ["all", "a", "b"]


def test_names_of_tasks_are_not_told_apart_by_length() -> None:
    assert [row.name for row in slices_of([example("x" * (3 + at)) for at in range(30)])] == ["all"]


FRAME = "Classify the text. Answer with one of: negative, positive.\n\nText: {}\nLabel:"


def test_words_around_every_text_count_neither_as_its_language_nor_as_its_length() -> None:
    texts = ["좋다" * (1 + at % 30) for at in range(60)]
    framed = slices_of([example(FRAME.format(text)) for text in texts])
    assert [row.name for row in framed] == ["all", "under 22 characters", "22 to 41 characters", "42 characters or more"]
    mixed = [example(FRAME.format(text)) for text in ("좋아요", "Good.", "별로", "그저 그래요")]
    assert {row.name: row.positions for row in slices_of(mixed)} == {
        "all": (0, 1, 2, 3), "Korean": (0, 2, 3), "other languages": (1,),
    }  # fmt: skip


def test_a_message_before_all_texts_is_no_part_of_their_lengths() -> None:
    system = Message(role="system", content="s" * 500)
    examples = [example(str(at) * (at + 1)) for at in range(60)]
    framed = [dataclasses.replace(one, messages=(system, *one.messages)) for one in examples]
    assert slices_of(framed) == slices_of(examples)
