"""The user's own regular expressions.

What this does not cover: those that are fast on the samples and slow on a text, on which the search is given up: see `holds_pattern`;
long groups that are repeated often, and counts behind a comment of `(?x)`, which `regex` writes out.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import regex

# Seconds of a processor, as all below: of all patterns in all readings of a text. More where other threads compute: see `_is_in`.
LONGEST_SEARCH = 5.0
LONGEST_TRY, LONGEST_TRIES = 0.1, 1.0  # of a sample of so many characters, and of all that are begun
SAMPLE_LETTERS = 1000
# Repeats that `regex` writes out, in gigabytes of memory, which no limit of time stops.
LARGEST_COUNT = 99_999
# Blanks are for `(?x)`; longer classes and comments are read as if they were none.
PIECE = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\]){0,999}+\]|\{\s*+(?P<least>\d*+)\s*+(?:,\s*+(?P<most>\d*+)\s*+)?\}|(?P<comment>\(\?#[^)]{0,999}+\))|\S",
    re.DOTALL,
)
PIECES = ("1", "a", "A", "가", " ", "-", "\n")  # of samples, beside the characters and the words of the expression itself


def holds_pattern(texts: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of them is found in one of these, or took too long to look for: what was not looked through is not known to be
    harmless."""
    until = time.thread_time() + LONGEST_SEARCH
    try:
        return any(_is_in(text, _compiled(pattern), until) for text in texts for pattern in patterns)
    except TimeoutError:
        return True


def why_unusable(pattern: str) -> str:
    """Why an expression cannot be looked for; nothing if it can. The expression is not repeated: it may name somebody."""
    import regex

    if _most_repeats(pattern) > LARGEST_COUNT:
        return f"repeats something more than {LARGEST_COUNT:,} times"
    try:
        if _is_in("", _compiled(pattern), time.thread_time() + LONGEST_TRY):
            return "matches the empty text, and so every text"
        _try(pattern)
    except TimeoutError:
        return f"is too slow: {SAMPLE_LETTERS:,} characters take longer than {LONGEST_TRY:g} s"
    except MemoryError:
        return "needs too much memory"
    except (regex.error, ValueError, RecursionError, OverflowError) as exc:
        return f"is no regular expression: {exc}"
    return ""


def _most_repeats(pattern: str) -> float:
    """How many times what is repeated most is written out, as often as the least of its counts: those around a group multiply those
    within it. A count that is too large by itself is given instead."""
    groups, last = [1.0], 1.0  # of each that is open the most so far, and of the piece before
    for piece in PIECE.finditer(pattern):
        if piece["comment"]:
            continue
        counts = [float(count) for count in piece.group("least", "most") if count]
        if counts:
            if max(counts) > LARGEST_COUNT:
                return max(counts)
            last *= max(1.0, float(piece["least"] or 0))
        elif piece[0] == ")" and len(groups) > 1:
            last = groups.pop()
        else:
            last = 1.0
            if piece[0] == "(":
                groups.append(last)
        groups[-1] = max(groups[-1], last)
    return max(groups)


@functools.cache  # of what passes; who was refused is tried anew
def _try(pattern: str) -> None:
    """Raises TimeoutError where a sample takes too long."""
    compiled, until = _compiled(pattern), time.thread_time() + LONGEST_TRIES
    words = re.findall(r"\w+", pattern)
    begins = ("", max(words, key=len, default=""))
    for begin, piece in dict.fromkeys((*product(begins, PIECES), *product(("",), (*pattern, *words)))):
        if time.thread_time() > until:
            break
        sample = begin + (piece * SAMPLE_LETTERS)[:SAMPLE_LETTERS]
        _is_in(f"{sample}\0{pattern}", compiled, time.thread_time() + LONGEST_TRY)  # which holds all that it needs


def _is_in(text: str, pattern: regex.Pattern[str], until: float) -> bool:
    """Raises TimeoutError past `until` on this thread's clock. That of `regex` counts all threads, in which a model may compute: what
    ends too early begins anew with twice the time, which may be more than was left where the others have stopped."""
    allowed = until - time.thread_time()
    while time.thread_time() < until:
        try:
            return pattern.search(text, timeout=allowed) is not None
        except TimeoutError:
            allowed *= 2
    raise TimeoutError


@functools.cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex  # unlike `re` it can be told to give up

    return regex.compile(pattern)
