"""Prompt lookup: what is guessed, how much, and when it falls silent."""

from __future__ import annotations

from nomoat.engine.lookup import FIRST_GUESS, LONGEST_GUESS, REST_TOKENS, Lookup


def test_what_followed_the_last_three_tokens_before_is_guessed() -> None:
    assert Lookup([1, 2, 3, 4, 5, 6, 7, 1, 2, 3]).guess(2) == [4, 5]
    assert Lookup([1, 2, 3, 4, 5, 6, 7, 1, 2, 3]).guess(99) == [4, 5, 6, 7]
    assert Lookup([1, 2, 3, 4, 9, 2, 3]).guess(9) == []
    assert Lookup([]).guess(9) == Lookup([1, 1, 1]).guess(9) == []


def test_of_several_places_the_one_with_the_longer_agreement_wins_and_then_the_later() -> None:
    assert Lookup([8, 1, 2, 3, 40, 9, 1, 2, 3, 50, 8, 1, 2, 3]).guess(1) == [40]
    assert Lookup([8, 1, 2, 3, 40, 9, 1, 2, 3, 50, 7, 1, 2, 3]).guess(1) == [50]


def test_a_guess_never_goes_beyond_the_limit_and_grows_with_success() -> None:
    ids = list(range(100))
    lookup = Lookup([*ids, 0, 1, 2])
    assert lookup.guess(99) == [3, 4, 5, 6] and len(lookup.guess(99)) == FIRST_GUESS
    lookup.learn(4, 4)
    assert len(lookup.guess(99)) == 8
    lookup.learn(8, 8)
    lookup.learn(16, 16)
    assert len(lookup.guess(99)) == LONGEST_GUESS and lookup.guess(5) == [3, 4, 5, 6, 7] and lookup.guess(0) == []


def test_guesses_that_fail_become_shorter_and_then_rest() -> None:
    lookup = Lookup([*range(100), 0, 1, 2])
    for _ in range(2):
        lookup.learn(len(lookup.guess(99)), 0)
    assert lookup.guess(99) == []
    lookup.extend(range(200, 200 + REST_TOKENS - 3))
    lookup.extend([0, 1, 2])
    assert lookup.guess(99) == [200, 201]  # what came after them the last time
