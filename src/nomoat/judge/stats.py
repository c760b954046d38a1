"""The formulas behind a verdict. All intervals are two-sided; each formula names its source and is tested against it.

What this does not cover: examples that depend on each other (several turns of one conversation, several questions on one text)
are treated as independent, which makes intervals too narrow for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE = 0.95
NUM_RESAMPLES = 9_999
NUM_THROWS = 100_000
THROWS_AT_ONCE = 2_000
RESAMPLES_AT_ONCE = 128  # bounds the memory: this many copies of the data
EXACT_UP_TO = 16  # differences, of which all signs can be tried: 2**16 ways

Interval = tuple[float, float]


def wilson_interval(wins: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Interval for a proportion: `wins` of `n`.

    Returns (low, high) within [0, 1]. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    Raises ValueError if n is 0 or wins is outside 0..n.
    """
    if n <= 0 or not 0 <= wins <= n:
        raise ValueError(f"{wins} of {n} is no proportion")
    interval = stats.binomtest(wins, n).proportion_ci(confidence_level=confidence, method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def mcnemar_exact(left_only: int, right_only: int) -> float:
    """Two-sided p-value that both sides are equally good, from the examples that only one of them got right.

    Also the exact sign test for wins against losses; ties say nothing about who is better and do not enter.
    Source: McNemar 1947, doi:10.1007/BF02295996; exact form: Mosteller 1952, doi:10.2307/3001856.
    Raises ValueError for negative counts.
    """
    if left_only < 0 or right_only < 0:
        raise ValueError(f"{left_only} and {right_only} are no counts")
    discordant = left_only + right_only
    return 1.0 if discordant == 0 else float(stats.binomtest(left_only, discordant, 0.5).pvalue)


def paired_permutation(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value that the sides are interchangeable, from paired differences: how often their sum is as far from 0 when the
    sign of each is thrown by a coin.

    Exact up to 16 differences; beyond that over 100,000 throws, so never below 0.00001. Equal seeds give equal values.
    Source: Fisher 1935, The Design of Experiments, section 21. Raises ValueError if there are no differences.
    """
    data = np.asarray(differences, dtype=np.float64)
    if not len(data):
        raise ValueError("no differences to permute")
    # S throws, D differences
    moved = data[data != 0.0]  # a sign of 0 changes nothing, and fewer of them are sooner exact
    observed = abs(float(moved.sum())) * (1 - 1e-12)  # sums in another order may differ in their last digit
    if len(moved) <= EXACT_UP_TO:
        signs_SD = 1 - 2 * (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1)
        return float(np.mean(np.abs(signs_SD @ moved) >= observed))
    rng = np.random.default_rng(seed)
    num_as_far = 0
    for _ in range(NUM_THROWS // THROWS_AT_ONCE):
        signs_SD = 2 * rng.integers(0, 2, size=(THROWS_AT_ONCE, len(moved)), dtype=np.int8) - 1
        num_as_far += int(np.sum(np.abs(signs_SD @ moved) >= observed))
    return (num_as_far + 1) / (NUM_THROWS + 1)  # the observed signs are one of the throws


def paired_proportions_interval(
    both: int, left_only: int, right_only: int, neither: int, *, confidence: float = CONFIDENCE
) -> Interval:
    """Interval for the difference (left minus right) of two proportions measured on the same examples.

    Returns (low, high) within [-1, 1]. Newcombe's square-and-add interval: two Wilson intervals, joined with the correlation
    of the two sides. Source: Newcombe 1998, doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, method 10;
    recommended by Fagerland, Lydersen and Laake 2014, doi:10.1002/sim.6148.
    Raises ValueError if there are no examples.
    """
    n = both + left_only + right_only + neither
    left_wins, right_wins = both + left_only, both + right_only
    left_low, left_high = wilson_interval(left_wins, n, confidence=confidence)
    right_low, right_high = wilson_interval(right_wins, n, confidence=confidence)
    left, right = left_wins / n, right_wins / n
    correlation = _corrected_phi(both, left_only, right_only, neither)

    def width(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    low = left - right - width(left - left_low, right_high - right)
    high = left - right + width(left_high - left, right - right_low)
    return max(-1.0, low), min(1.0, high)


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Bootstrap interval (BCa) for a mean, or, given paired differences, for their mean.

    Returns (low, high) in the values' unit. Values that are all equal have no spread to learn from: the result is (value, value).
    Equal seeds give equal intervals. Source: Efron 1987, doi:10.1080/01621459.1987.10478410.
    Raises ValueError for fewer than 2 values.
    """
    data = _at_least_two(values)
    if np.ptp(data) == 0.0:
        return float(data[0]), float(data[0])
    return _bca((data,), lambda sample, axis=-1: np.mean(sample, axis=axis), confidence, seed)


def total_ratio_interval(left: Sequence[float], right: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """Bootstrap interval (BCa) for sum(left) / sum(right), examples resampled in pairs.

    Returns (low, high). Scores must be positive, as on a scale of 1 to 10. Equal seeds give equal intervals.
    Source: Efron 1987, as above. Raises ValueError for fewer than 2 pairs, sides of different length, or a score below 0.
    """
    left_data, right_data = _at_least_two(left), _at_least_two(right)
    if len(left_data) != len(right_data):
        raise ValueError(f"{len(left_data)} and {len(right_data)} scores are not paired")
    if left_data.min() < 0 or right_data.min() <= 0:
        raise ValueError("a ratio of totals needs positive scores")
    ratios = left_data / right_data
    if np.ptp(ratios) == 0.0:
        return float(ratios[0]), float(ratios[0])
    return _bca(
        (left_data, right_data),
        lambda one, other, axis=-1: np.sum(one, axis=axis) / np.sum(other, axis=axis),
        confidence,
        seed,
    )


def _corrected_phi(both: int, left_only: int, right_only: int, neither: int) -> float:
    """Correlation of the two sides, shrunk towards 0 by Newcombe's continuity correction; 0 where a margin is empty."""
    margins = (both + left_only) * (right_only + neither) * (both + right_only) * (left_only + neither)
    if margins == 0:
        return 0.0
    determinant = float(both * neither - left_only * right_only)
    if determinant > 0:
        determinant = max(0.0, determinant - (both + left_only + right_only + neither) / 2)
    return determinant / math.sqrt(margins)


def _at_least_two(values: Sequence[float]) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        raise ValueError(f"{len(data)} values have no interval")
    return data


def _bca(data: tuple[NDArray[np.float64], ...], statistic: Callable[..., Any], confidence: float, seed: int) -> Interval:
    interval = stats.bootstrap(
        data,
        statistic,
        paired=len(data) > 1,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=NUM_RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
