"""Decimal fractions: what they end with are no numbers of anyone."""

from __future__ import annotations

import re
from itertools import pairwise

from nomoat.route.pii import cards, residents
from nomoat.route.pii.numbers import has_word_before
from nomoat.route.pii.phones import PHONE_WORDS

# `0.5392234688708106`. Not of a date and such, and neither `900101.1234567` nor what numbers a list: `1.01012345678`.
FRACTION = re.compile(r"(?<![\d.+])(?![1-9]\d{0,2}\.010\d{8}(?!\d))(?:0|[1-9]\d{0,2})\.\d{5,}+(?![.-]?\d)")
DIGITS = re.compile(r"\.\d{5}")
ITEM = re.compile(r"^[^\S\n]*+([1-9]\d{0,2})\.(?=\d{5})(?!.*[^\d\n]\d{1,3}\.\d{5})", re.MULTILINE)  # the line's only fraction
LETTER = re.compile(r"[^\W\d_]")  # each of these words has some: in a table of fractions few are asked for them
SAID = re.compile(rf"{residents.SAID.pattern}|{PHONE_WORDS}|{cards.SAID.pattern}", re.IGNORECASE)


def without_fractions(text: str) -> str:
    """With `!` in place of each. `1.9001011234568` may also be a list's number and somebody's: where a word before it says so, or
    where it begins a line and all that do so count up."""
    if not DIGITS.search(text):
        return text
    items = list(ITEM.finditer(text))
    numbers = [int(item[1]) for item in items]
    is_list = all(after == before + 1 or before > after == 1 for before, after in pairwise(numbers))
    starts = {item.start(1) for item in items} if is_list else set()

    def shown(fraction: re.Match[str]) -> str:
        start = fraction.start()
        may_be_a_list = fraction[0][0] != "0" and (
            start in starts or (has_word_before(LETTER, text, start) and has_word_before(SAID, text, start))
        )
        return fraction[0] if may_be_a_list else "!"

    return FRACTION.sub(shown, text)
