"""What the phone numbers of a text are, and that looking for them in a column of other numbers is little work."""

from __future__ import annotations

import random
import sys
from typing import Any

import phonenumbers
import pytest
from phonenumbers import phonenumbermatcher

from nomoat.route.pii.phone_matcher import phones

WRITTEN = (
    "010-1234-5678", "02-312-3456", "+82 10 1234 5678", "821012345678", "0082 10 1234 5678", "1588-1234", "031 123 4567",
    "070-1234-5678", "080-123-4567", "00798 1234 5678", "001 1 650 253 0000", "060-212-3456",
    "+1 650 253 0000", "081 2 312 3456", "82 2 312 3456",
)  # fmt: skip
BETWEEN = (
    " ",
    "-",
    ".",
    "/",
    " - ",
    "(",
    ")",
    "[",
    "]",
    "\n",
    "",
    "",
    ", ",
    "~",
    "x",
    "#",
    "+",
    " ext. ",
    ": ",
    "한",
    "a",
    ";",
    "   ",
)


def altered(chance: random.Random) -> str:
    """Some numbers beside each other, with other digits and marks here and there."""
    text = "".join(chance.choice(WRITTEN) + chance.choice(BETWEEN) for _ in range(chance.randint(1, 4)))
    marks = (chance.choice(BETWEEN) if one in "- " and chance.random() < 0.4 else one for one in text)
    return "".join(chance.choice("0123456789") if one.isdecimal() and chance.random() < 0.1 else one for one in marks)


def test_what_is_found_is_what_the_library_finds() -> None:
    chance = random.Random(0)
    for text in (*WRITTEN, *(altered(chance) for _ in range(400))):
        found = phonenumbers.PhoneNumberMatcher(text, "KR", phonenumbers.Leniency.VALID, sys.maxsize)
        assert [one.raw_string for one in phones(text)] == [one.raw_string for one in found], text


@pytest.mark.parametrize("number", ["1", "12", "30", "77", "3.5", "48213", "310277"])
def test_a_column_of_lone_numbers_is_hardly_tried_as_phone_numbers(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def counted(candidate: str, *given: Any, **named: Any) -> Any:
        tried.append(candidate)
        return phonenumbers.parse(candidate, *given, **named)

    monkeypatch.setattr(phonenumbermatcher, "parse", counted)
    assert not list(phones(f"{number} - " * 1000))
    assert len(tried) < 1000  # the library alone tries 3,000 to 4,000
