"""Prompt lookup: what is guessed, how much, and when it falls silent."""

from __future__ import annotations

from nomoat.engine.lookup import SIZES, Lookup


def test_what_followed_the_last_two_tokens_before_is_guessed() -> None:
    assert Lookup([1, 2, 3, 4, 5, 6, 7, 1, 2, 3]).guess(2) == [4, 5]
    assert Lookup([1, 2, 3, 4, 5, 6, 7, 2, 3]).guess(99) == [4, 5, 6]
    assert Lookup([1, 2, 3, 4, 9, 3]).guess(9) == []
    assert Lookup([]).guess(9) == Lookup([1, 1]).guess(9) == Lookup([1, 2, 3, 1, 2]).guess(0) == []


def test_of_several_places_the_one_with_the_longer_agreement_wins_and_then_the_later() -> None:
    assert Lookup([8, 1, 2, 3, 40, 9, 1, 2, 3, 50, 8, 1, 2, 3]).guess(1) == [40]
    assert Lookup([8, 1, 2, 3, 40, 9, 1, 2, 3, 50, 7, 1, 2, 3]).guess(1) == [50]


def test_a_guess_never_goes_beyond_the_limit_and_grows_with_success() -> None:
    lookup = Lookup([*range(100), 0, 1, 2])
    assert lookup.guess(99) == [3, 4, 5]
    sizes = []
    for _ in range(4):
        lookup.learn(3, 3)
        sizes.append(len(lookup.guess(99)))
    assert sizes == sorted(sizes) and sizes[-1] == SIZES[-1]
    assert lookup.guess(5) == [3, 4, 5, 6, 7]


def test_guesses_that_fail_become_shorter_and_then_rare() -> None:
    lookup = Lookup([*range(100), 0, 1, 2])
    sizes = []
    for _ in range(200):
        sizes.append(len(lookup.guess(99)))
        if sizes[-1]:
            lookup.learn(sizes[-1], 0)
    first = sizes.index(0)
    assert sizes[:first] == sorted(sizes[:first], reverse=True) and 2 < first < 12
    assert 2 < sum(size > 0 for size in sizes[first:]) < 40  # tried again now and then


def test_half_right_guesses_are_short() -> None:
    lookup = Lookup([*range(100), 0, 1, 2])
    for right in [1, 0, 2, 0, 1, 3, 0, 1] * 3:
        lookup.learn(3, right)
    assert lookup.guess(99) in ([3], [3, 4, 5])
