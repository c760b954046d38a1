"""How many questions it would take to tell which side is better, where a duel is too close to call."""

from __future__ import annotations

import math
from dataclasses import replace

from scipy import special

from nomoat.judge.metrics import METRICS
from nomoat.records import Verdict


def pairs_needed(left_only: int, right_only: int, n: int, *, alpha: float) -> float:
    """How many examples McNemar's test takes to find a difference in 4 of 5 cases, if it is as large as it looks in these `n`, and if
    one side alone is right on as large a share; infinite for no difference.

    By a normal approximation: with so many the exact test found seven differences in 75 to 79 of 100 cases, not in 80. Never fewer
    than bring as many unequal ones as that test takes if all are on one side.
    Source: Connor 1987, Biometrics 43, 207-211.
    """
    unequal, difference = (left_only + right_only) / n, abs(left_only - right_only) / n
    if not difference:
        return math.inf
    of_alpha, of_power = float(special.ndtri(1 - alpha / 2)), float(special.ndtri(0.8))
    least = (math.floor(1 + math.log2(1 / alpha)) + 1) / unequal  # 2 * 0.5^k < alpha
    return max(least, (of_alpha * math.sqrt(unequal) + of_power * math.sqrt(unequal - difference**2)) ** 2 / difference**2)


def with_items_needed(verdict: Verdict, *, alpha: float) -> Verdict:
    """The verdict with `num_needed` and a note on it, if it is over answers right or wrong that are independent of each other, and too
    close to call. `alpha`: of its test, see `Watch`."""
    if verdict.winner != "undecided" or verdict.partial or not METRICS[verdict.metric].right_or_wrong:
        return verdict
    needed = pairs_needed(verdict.wins, verdict.losses, verdict.num_examples, alpha=alpha)
    if math.isinf(needed):
        return verdict
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)  # two digits, rounded up
    rounded = step * math.ceil(needed / step)
    return replace(verdict, num_needed=rounded, notes=(*verdict.notes, _needed_note(verdict, rounded)))


def _needed_note(verdict: Verdict, num_needed: int) -> str:
    """How many questions it would have taken, and what that takes for granted."""
    difference = METRICS[verdict.metric].points_per_score * abs(verdict.difference)
    points = f"{difference:.2g}" if difference < 99.5 else f"{difference:.0f}"
    unequal = 100 * (verdict.wins + verdict.losses) / verdict.num_examples
    return (
        f"if the true difference is the {points} points seen here, and one side alone is right on {unequal:.1f} % of the "
        f"questions, some {num_needed:,} items would tell it in 4 of 5 duels"
    )
