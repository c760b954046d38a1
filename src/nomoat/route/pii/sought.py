"""Patterns that are tried only where a text holds a word of theirs: most texts hold few of these, and to try a pattern of many
alternatives at each character takes a hundred times as long as to look for a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Near:
    """A pattern, and the words of which each of its matches has one: in small letters, each with the most characters of a match that
    may stand before it. `in_line`: so many may stand there, and the rest of a line before these. `begins`: of one or two characters,
    with which each match begins. `overlapping`: matches may begin within others, as a name does that stands where another has its
    value."""

    pattern: re.Pattern[str]
    words: Mapping[str, int]
    in_line: bool = False
    begins: re.Pattern[str] | None = None
    overlapping: bool = False

    def finditer(self, text: str, small: str) -> Iterator[re.Match[str]]:
        """What the pattern's own `finditer` gives, or, overlapping, its match at each place. `small`: the text in `small_letters`."""
        at = 0
        for first, last in sorted((start - reach, start) for word, reach in self.words.items() for start in _starts(word, small)):
            if first > at:
                at = max(at, text.rfind("\n", at, first) + 1) if self.in_line else first
            while (at := self._next(text, at, last)) <= last:
                found = self.pattern.match(text, at)
                if found:
                    yield found
                at = found.end() if found and not self.overlapping else at + 1

    def _next(self, text: str, at: int, last: int) -> int:
        """Where a match may begin, from `at` up to `last`; behind it if nowhere."""
        if self.begins is None or at > last:
            return at
        begin = self.begins.search(text, at, last + 2)
        return begin.start() if begin else last + 1


def near(pattern: str, words: Iterable[str], reach: int, flags: int = 0) -> Near:
    """Where as many characters of a match may stand before any of the words."""
    return Near(re.compile(pattern, flags), dict.fromkeys(words, reach))


def small_letters(text: str) -> str:
    """As long as the text. Turkish letters are the `i` that patterns take them for where case is ignored."""
    return text.replace("İ", "i").replace("ı", "i").lower()


def led(first: str, before: str) -> str:
    """A pattern of a character of this class behind which `before` looks back and forth: a pattern that begins with a class is
    tried only at its characters, one that begins with looking back at all."""
    return rf"{first}(?<={before}{first})"


def has_any(words: Iterable[str], text: str) -> bool:
    return any(word in text for word in words)


def _starts(word: str, text: str) -> Iterator[int]:
    start = text.find(word)
    while start >= 0:
        yield start
        start = text.find(word, start + 1)
