"""Prompt lookup: where the last words stand earlier in prompt or answer, what followed them there is guessed to follow again.

The model checks all guessed tokens in one pass, which costs little more than making one, and keeps those it would have written itself:
the answer is the same. Editing, extracting and summarising gain; where guesses fail, they become rarer and shorter.
Source: A. Saxena, Prompt Lookup Decoding, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

MATCH_TOKENS = 3  # fewer agree by chance too often
LONGEST_MATCH = 32  # compared at most, to choose among several places
PLACES = 8  # remembered of each three tokens, the latest
FIRST_GUESS, LONGEST_GUESS = 4, 16
REST_TOKENS = 16  # without a guess after guesses that failed; doubled each time, up to
LONGEST_REST_TOKENS = 256


class Lookup:
    """The guesses for one answer, and how well they did."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._size = FIRST_GUESS
        self._rest = REST_TOKENS
        self._silent_until = 0
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Tokens that are now certain."""
        for token in ids:
            if len(self._ids) >= MATCH_TOKENS:  # what follows these three is known now
                places = self._places.setdefault(tuple(self._ids[-MATCH_TOKENS:]), [])
                places.append(len(self._ids))
                del places[:-PLACES]
            self._ids.append(token)

    def guess(self, limit: int) -> list[int]:
        """At most `limit` tokens that may follow; often none."""
        if len(self._ids) < self._silent_until:
            return []
        places = self._places.get(tuple(self._ids[-MATCH_TOKENS:]))
        if not places:
            return []
        best = max(places, key=lambda place: (self._agreeing(place), place))
        return self._ids[best : best + min(limit, self._size)]

    def learn(self, guessed: int, right: int) -> None:
        """How many of the last guess were right: guess more after a success, less after a failure, and rest after a bad one."""
        if right == guessed:
            self._size = min(LONGEST_GUESS, max(FIRST_GUESS, 2 * guessed))
            self._rest = REST_TOKENS
        elif right * 3 < guessed:
            self._size = max(1, self._size // 2)
            if self._size == 1:
                self._silent_until = len(self._ids) + self._rest
                self._rest = min(LONGEST_REST_TOKENS, 2 * self._rest)
                self._size = 2

    def _agreeing(self, place: int) -> int:
        """How many tokens before `place` are the last ones again."""
        ids, count = self._ids, MATCH_TOKENS
        while count < min(LONGEST_MATCH, place) and ids[place - 1 - count] == ids[-1 - count]:
            count += 1
        return count
