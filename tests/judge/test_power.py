"""How many items a duel that is too close to call would have taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from quiz import knowing, quiz

import nomoat
from nomoat.judge.power import pairs_needed
from nomoat.proportions import mcnemar_exact


def test_items_that_a_difference_takes_equal_the_published_ones() -> None:
    """powerandsamplesize.com, McNemar's test, two-sided: 5 % against 45 %, power 80 %: 23."""
    assert np.ceil(pairs_needed(45, 5, 100, alpha=0.05)) == 23
    assert pairs_needed(5, 45, 100, alpha=0.05) == pairs_needed(45, 5, 100, alpha=0.05) == pairs_needed(90, 10, 200, alpha=0.05)
    assert pairs_needed(3, 3, 100, alpha=0.05) == pairs_needed(0, 0, 100, alpha=0.05) == np.inf


def test_more_items_are_needed_than_were_asked_and_than_could_ever_be_decided() -> None:
    for n in range(1, 40):
        for wins in range(n + 1):
            for losses in range(n + 1 - wins):
                if wins != losses and mcnemar_exact(wins, losses) >= 0.05:
                    assert pairs_needed(wins, losses, n, alpha=0.05) > max(n, 5)


def test_so_many_items_find_the_difference_in_about_four_of_five_duels() -> None:
    """2,000 duels with 20 % for the left side alone and 10 % for the right. Outside 72 to 84 % by chance where the true share is 77 %:
    below 0.0001 %; the seed is fixed anyway.
    """
    n = int(np.ceil(pairs_needed(20, 10, 100, alpha=0.05)))
    draws = np.random.default_rng(3).multinomial(n, [0.2, 0.1, 0.7], size=2_000)
    assert 0.72 < np.mean([mcnemar_exact(int(left), int(right)) < 0.05 for left, right, _ in draws]) < 0.84


def test_a_duel_too_close_to_call_says_how_many_items_would_tell() -> None:
    left, right, suite = knowing("a", range(28)), knowing("b", range(28, 51)), quiz(160)
    whole, stopping = (nomoat.duel(left, right, suite, stop_early=stop_early) for stop_early in (False, True))
    assert (whole.wins, whole.losses, whole.num_needed, stopping.num_needed) == (28, 23, 2_600, 3_100)  # at half of alpha
    assert whole.notes[-1] == (
        "if the true difference is the 3.1 points seen here, and one side alone is right on 31.9 % of the questions, "
        "some 2,600 items would tell it in 4 of 5 duels"
    )
    assert (round(whole.p_value, 4), stopping.p_value) == (0.5758, 1.0)


def test_a_difference_of_all_points_is_said_in_figures() -> None:
    verdict = nomoat.duel(knowing("a", 3), knowing("b", 0), quiz(3), stop_early=False)
    assert (verdict.winner, verdict.num_needed) == ("undecided", 6)
    assert verdict.notes[-1].startswith("if the true difference is the 100 points seen here")


def test_nothing_is_said_of_items_where_a_winner_is_named_nothing_differs_or_examples_are_in_groups() -> None:
    left, suite = knowing("a", 28), quiz(60)
    decided, same = (nomoat.duel(left, other, suite) for other in (knowing("b", 0), left))
    assert (decided.winner, decided.num_needed, same.winner, same.num_needed) == ("left", None, "undecided", None)
    together = tuple(replace(example, group=str(at // 2)) for at, example in enumerate(suite.examples))
    grouped = nomoat.duel(left, knowing("b", 26), replace(suite, examples=together))
    assert (grouped.winner, grouped.wins, grouped.num_needed) == ("undecided", 2, None)
