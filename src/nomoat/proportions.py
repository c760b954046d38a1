"""How sure a proportion is, and a change of it: formulas that a verdict and the end of a training both need."""

from __future__ import annotations

from scipy import special  # `scipy.stats` has these, too, and takes a second to import


def wilson_interval(wins: float, n: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for a proportion: `wins` of `n`, which need not be whole where they are an effective number.

    Returns (low, high) within [0, 1]. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    Raises ValueError if n is 0 or wins is outside 0..n.
    """
    if n <= 0 or not 0 <= wins <= n:
        raise ValueError(f"{wins} of {n} is no proportion")
    share, square = wins / n, float(special.ndtri((1 + confidence) / 2)) ** 2
    middle = share + square / (2 * n)
    reach = (square * (share * (1 - share) + square / (4 * n)) / n) ** 0.5
    return max(0.0, (middle - reach) / (1 + square / n)), min(1.0, (middle + reach) / (1 + square / n))


def mcnemar_exact(left_only: int, right_only: int) -> float:
    """Two-sided p-value that both sides are equally good, from the examples that only one of them got right.

    Also the exact sign test for wins against losses; ties say nothing about who is better and do not enter.
    Source: McNemar 1947, doi:10.1007/BF02295996; exact form: Mosteller 1952, doi:10.2307/3001856.
    Raises ValueError for negative counts.
    """
    if left_only < 0 or right_only < 0:
        raise ValueError(f"{left_only} and {right_only} are no counts")
    return min(1.0, 2 * float(special.bdtr(min(left_only, right_only), left_only + right_only, 0.5)))
