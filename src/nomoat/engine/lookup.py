"""Prompt lookup: where the last words stand earlier in prompt or answer, what followed them there is guessed to follow again.

The model checks all guessed tokens in one pass, which costs little more than making one, and keeps those it would have written itself:
the answer is the same. Editing, extracting and summarising gain; where guesses fail, they become shorter, and then rare.
Source: A. Saxena, Prompt Lookup Decoding, 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

MATCH_TOKENS = 2  # fewer agree by chance too often
LONGEST_MATCH = 32  # compared at most, to choose among several places
PLACES = 8  # remembered of each two tokens, the latest
# of guesses; with the token before them a pass has 2, 4, 8 or 16 tokens, which a product reads as fast as one less
SIZES = (1, 3, 7, 15)
COST = 0.1  # of a guessed token in a pass, in passes over one token
# how likely a guessed token is right: at first, and the number of tokens that is worth; what remains of older ones with each new one
FIRST_CHANCE, FIRST_TOKENS, REMEMBERED = 0.6, 4.0, 0.8
SUREST = 0.999  # of a chance: with 1 the series below has no sum in this form
FORGOTTEN = 0.005  # of what made guesses not worth their cost, whenever there could be one: so they are tried again


class Lookup:
    """The guesses for one answer, and how well they did."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], list[int]] = {}
        self._right, self._tried = FIRST_CHANCE * FIRST_TOKENS, FIRST_TOKENS
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Tokens that are now certain."""
        for token in ids:
            if len(self._ids) >= MATCH_TOKENS:  # what follows these is known now
                places = self._places.setdefault(tuple(self._ids[-MATCH_TOKENS:]), [])
                places.append(len(self._ids))
                del places[:-PLACES]
            self._ids.append(token)

    def guess(self, limit: int) -> list[int]:
        """At most `limit` tokens that may follow; often none."""
        places = self._places.get(tuple(self._ids[-MATCH_TOKENS:]))
        if not places or limit < 1:
            return []
        size = self._best_size()
        if not size:
            self._right += FORGOTTEN * (FIRST_CHANCE * self._tried - self._right)
            return []
        best = max(places, key=lambda place: (self._agreeing(place), place))
        return self._ids[best : best + min(limit, size)]

    def learn(self, guessed: int, right: int) -> None:
        """How many of the last guess were right; those after the first wrong one say nothing."""
        tried = min(guessed, right + 1)
        remembered = REMEMBERED**tried
        self._right, self._tried = self._right * remembered + right, self._tried * remembered + tried

    def _best_size(self) -> int:
        """The guess with the most tokens to be expected for its pass's cost; 0 if a pass without any has more."""
        chance = min(self._right / self._tried, SUREST)
        return max((0, *SIZES), key=lambda size: (1 - chance ** (size + 1)) / (1 + COST * size))  # of a geometric series

    def _agreeing(self, place: int) -> int:
        """How many tokens before `place` are the last ones again."""
        ids, count = self._ids, MATCH_TOKENS
        while count < min(LONGEST_MATCH, place) and ids[place - 1 - count] == ids[-1 - count]:
            count += 1
        return count
