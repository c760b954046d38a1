"""Parts of a suite: what is in them."""

from __future__ import annotations

import pytest

from nomoat.judge.slices import language_of, slices_of
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


def test_names_of_tasks_are_not_told_apart_by_length() -> None:
    assert [row.name for row in slices_of([example("x" * (3 + at)) for at in range(30)])] == ["all"]
