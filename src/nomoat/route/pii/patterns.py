"""The user's own regular expressions.

What this does not cover: those that are fast on the samples and slow on a text, on which the search is given up: see `holds_pattern`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

LONGEST_SEARCH, LONGEST_TRY = 5.0, 0.2  # seconds of all processors: of a text, and of a sample of so many characters
SAMPLE_LETTERS = 2000
PIECES = ("1", "a", "A", "가", " ", "-", "\n")  # of samples, beside the characters and the words of the expression itself


def holds_pattern(text: str, patterns: Sequence[str]) -> bool:
    """Whether one of them is found in it, or took too long to look for: what was not looked through is not known to be harmless."""
    try:
        return any(_compiled(pattern).search(text, timeout=LONGEST_SEARCH) for pattern in patterns)
    except TimeoutError:
        return True


@functools.cache
def why_unusable(pattern: str) -> str:
    """Why an expression cannot be looked for; nothing if it can. The expression is not repeated: it may name somebody."""
    import regex

    try:
        compiled = _compiled(pattern)
        if compiled.search("", timeout=LONGEST_TRY):
            return "matches the empty text, and so every text"
        words = re.findall(r"\w+", pattern)
        for begin, piece in dict.fromkeys((*product(("", *words), PIECES), *product(("",), (*pattern, *words)))):
            sample = begin + (piece * SAMPLE_LETTERS)[:SAMPLE_LETTERS]
            compiled.search(f"{sample}\0{pattern}", timeout=LONGEST_TRY)  # which holds all that it needs
    except (regex.error, RecursionError, OverflowError) as exc:
        return f"is no regular expression: {exc}"
    except TimeoutError:
        return f"is too slow: {SAMPLE_LETTERS:,} characters take longer than {LONGEST_TRY:g} s"
    return ""


@functools.cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex  # unlike `re` it can be told to give up

    return regex.compile(pattern)
