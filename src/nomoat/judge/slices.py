"""Parts of a suite that are worth a look of their own: its categories, the lengths of its questions, its languages."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nomoat.records import Example

MIN_FOR_LENGTHS = 30  # thirds of fewer examples say nothing
SHORTEST_OF_INTEREST = 40  # characters: below, texts are names rather than questions
MOST_CATEGORIES = 100  # a row of the report each; more are names of single questions rather than kinds of them
MOST_LABELS = 20
LETTERS_LOOKED_AT = 400
LANGUAGES = (("HANGUL", "Korean"), ("HIRAGANA", "Japanese"), ("KATAKANA", "Japanese"), ("CJK", "Chinese"))
ELSE = "other languages"
NO_CATEGORY = "(none)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some examples of a suite, by their positions in it. `is_data`: the name is a category's or a label's, and not a word of ours."""

    name: str
    positions: tuple[int, ...]
    is_data: bool = False


def slices_of(examples: Sequence[Example]) -> list[Slice]:
    """All examples first, then each category, third of lengths and language, where there are several; see `note_on` for categories.

    A suite of labels without categories has those of its right answers: which labels are recognised, and which are not.

    Lengths and languages are those of what differs: the words that a suite puts around each text are in all of them.
    """
    rows = [Slice(name="all", positions=tuple(range(len(examples))))]
    categories = _labels(examples) or [example.category or NO_CATEGORY for example in examples]
    if len(set(categories)) <= MOST_CATEGORIES:
        rows += [replace(row, is_data=row.name != NO_CATEGORY) for row in _several(categories)]
    own = _without_frame([example.messages[-1].content for example in examples])
    if len(examples) >= MIN_FOR_LENGTHS:
        before = [sum(len(turn.content) for turn in example.messages[:-1]) for example in examples]
        shortest = min(before)
        rows += _thirds([length - shortest + len(text) for length, text in zip(before, own, strict=True)])
    rows += _several([language_of(text) for text in own])
    return rows


def _labels(examples: Sequence[Example]) -> list[str]:
    """The right label of each, where all are chosen from the same few and none has a category."""
    choices = {example.choices for example in examples}
    few = len(choices) == 1 and 1 < len(examples[0].choices) <= MOST_LABELS
    return [example.target for example in examples] if few and not any(example.category for example in examples) else []


def note_on(examples: Sequence[Example]) -> str:
    """That there are too many categories for a row each; empty where there are not."""
    num = len({example.category for example in examples})
    return "" if num <= MOST_CATEGORIES else f"The {num:,} categories have no rows: more than {MOST_CATEGORIES} tell little."


def _without_frame(texts: Sequence[str]) -> list[str]:
    """The texts without the words that all of them begin and end with."""
    begin = _common_beginning(texts)
    bare = [text[begin:] for text in texts]
    end = _common_beginning([text[::-1] for text in bare])
    return [text[: len(text) - end] for text in bare]


def _common_beginning(texts: Sequence[str]) -> int:
    """How many characters all begin with, up to a space: half a word is part of what differs."""
    first, last = min(texts), max(texts)
    same = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return max((at for at, char in enumerate(same, start=1) if char.isspace()), default=0)


def language_of(text: str) -> str:
    """The language a text is written in, as far as its letters tell: Korean, Japanese and Chinese are told apart, all else is one.

    A Korean question in a Latin prompt counts as Korean from one letter in five on.
    """
    letters = [char for char in text if char.isalpha()][-LETTERS_LOOKED_AT:]
    names = [unicodedata.name(char, "").partition(" ")[0] for char in letters]
    for script, language in LANGUAGES:
        if sum(name.startswith(script) for name in names) > len(letters) / 5:
            return language
    return ELSE


def _several(names: Sequence[str]) -> list[Slice]:
    positions: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        positions.setdefault(name, []).append(at)
    if len(positions) < 2:
        return []
    return [Slice(name=name, positions=tuple(positions[name])) for name in sorted(positions)]


def _thirds(lengths: Sequence[int]) -> list[Slice]:
    ordered = sorted(lengths)
    low, high = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
    if not ordered[0] < low < high or high < SHORTEST_OF_INTEREST:
        return []
    bounds = (
        (f"under {low:,} characters", 0, low),
        (f"{low:,} to {high - 1:,} characters", low, high),
        (f"{high:,} characters or more", high, ordered[-1] + 1),
    )
    return [
        Slice(name=name, positions=tuple(at for at, length in enumerate(lengths) if start <= length < end))
        for name, start, end in bounds
    ]
