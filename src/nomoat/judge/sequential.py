"""Looking at a duel while it goes on, and stopping when the winner is known, without cheating.

A bettor who believes neither side to be better can only lose money, on average, by betting on one of them. So capital that has
grown a hundredfold is evidence, whenever one looks: by Ville's inequality (1939) it ever reaches 1/alpha with a probability of at
most alpha. Each candidate for the true mean difference has a bettor against it from below and one from above; the candidates
nobody got rich against are the confidence sequence.

Source: Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting", JRSS B 86(1),
doi:10.1093/jrsssb/qkad009: the hedged grid Kelly capital (section 5), with equal shares of the capital on each bet of the grid. For
answers that are right or wrong, the capital against "equally good" depends on the discordant pairs only: it is the beta-binomial
mixture test of one proportion (Robbins 1970, doi:10.1214/aoms/1177696786), a McNemar test for continuous looking.

`benchmarks/sequential.py` measures that it holds and what it saves. What this does not cover: examples asked in an order that knows
something of the answers (files are often sorted), and examples that depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp

from nomoat.judge.stats import Interval, is_equivalent
from nomoat.records import Look

# G bets of the grid, U different values seen. A bet is the share of its capital that a bettor stakes each time.
NUM_BETS = 100
BETS_G = (np.arange(NUM_BETS) + 0.5) / NUM_BETS
PRECISION = 1e-7  # of an end of the interval, as a share of the range
SURELY = 10 * PRECISION  # behind an end: what is ruled out there may move it, what is not does not
EDGE = 1e-9  # candidates stay this far inside the range: at its very end a bettor's odds are infinite


class ConfidenceSequence:
    """An interval for the mean of values between `lowest` and `highest` that holds at every look at once.

    With a probability of at least 1 - alpha, the true mean lies in all of the intervals that `add` ever returns.
    """

    def __init__(self, *, lowest: float, highest: float, alpha: float) -> None:
        self._lowest, self._width = lowest, highest - lowest
        self._log_threshold = math.log(2 / alpha)  # half of the capital bets on each side
        self._counts: dict[float, int] = {}
        self.interval: Interval = (lowest, highest)

    def add(self, values: Sequence[float]) -> Interval:
        """Take more values into account, and return the interval so far: the part common to all looks.

        Raises ValueError for a value outside the range.
        """
        for value in values:
            share = (value - self._lowest) / self._width
            if not -EDGE <= share <= 1 + EDGE:
                raise ValueError(f"{value} is outside {self._lowest} to {self._lowest + self._width}")
            self._counts[share] = self._counts.get(share, 0) + 1
        shares_U, counts_U = np.array(list(self._counts)), np.array(list(self._counts.values()))
        low, high = self.interval
        known_low, known_high = ((end - self._lowest) / self._width for end in self.interval)
        if _is_ruled_out(shares_U, counts_U, known_low - SURELY, self._log_threshold):
            found = _lowest_plausible(shares_U, counts_U, known_low - SURELY, self._log_threshold)
            low = max(low, self._lowest + found * self._width)
        if _is_ruled_out(1 - shares_U, counts_U, 1 - known_high - SURELY, self._log_threshold):
            found = 1 - _lowest_plausible(1 - shares_U, counts_U, 1 - known_high - SURELY, self._log_threshold)
            high = min(high, self._lowest + found * self._width)
        self.interval = low, high
        return self.interval

    def p_value_now(self, mean: float) -> float:
        """A p-value for the hypothesis that the mean is this one. The smallest of all looks is one too."""
        share = (mean - self._lowest) / self._width
        shares_U, counts_U = np.array(list(self._counts)), np.array(list(self._counts.values()))
        log_capital = max(_log_capital(shares_U, counts_U, share), _log_capital(1 - shares_U, counts_U, 1 - share))
        return min(1.0, 2 * math.exp(-log_capital))


class Watch:
    """Follows a duel of at most `num_planned` examples, asked in random order, and knows when it may stop.

    Half of `alpha` is for looking at any time. The other half is kept for one look at the end, once all planned examples are asked,
    with the fixed-size formulas: that look sees smaller differences than the sequence does.
    `lowest` and `highest` bound the differences; `rope` is how far from 0 still counts as equal, in the same unit.
    """

    def __init__(self, *, lowest: float, highest: float, alpha: float, rope: float | None, num_planned: int) -> None:
        self.alpha_each = alpha / 2
        self.num_planned = num_planned
        self.looks: list[Look] = []
        self.p_value = 1.0
        self._rope = rope
        self._num_seen = 0
        self._was_ended = False
        self._sequence = ConfidenceSequence(lowest=lowest, highest=highest, alpha=self.alpha_each)

    def add(self, differences: Sequence[float]) -> None:
        """Take the differences of the examples asked since the last look into account."""
        self._num_seen += len(differences)
        low, high = self._sequence.add(differences)
        self.p_value = min(self.p_value, 2 * self._sequence.p_value_now(0.0))
        self.looks.append(Look(num_examples=self._num_seen, low=low, high=high))

    def end(self) -> None:
        """All planned examples were asked, and those without an answer will have none."""
        self._was_ended = True

    @property
    def is_known(self) -> bool:
        """Whether the looks so far name a winner, or show that both are equal."""
        low, high = self.interval
        return low > 0 or high < 0 or (self._rope is not None and is_equivalent((low, high), self._rope))

    @property
    def interval(self) -> Interval:
        """The difference, as far as the looks so far know it."""
        return self._sequence.interval

    @property
    def is_complete(self) -> bool:
        """Whether all planned examples are asked, so that the last look is due."""
        return self._was_ended or self._num_seen >= self.num_planned


def common_part(sequence: Interval, last_look: Interval) -> Interval:
    """Where both intervals hold; the sequence's alone if they contradict each other."""
    low, high = max(sequence[0], last_look[0]), min(sequence[1], last_look[1])
    return (low, high) if low <= high else sequence


def _log_capital(shares_U: NDArray[np.float64], counts_U: NDArray[np.int64], mean: float) -> float:
    """Log of the capital, 1 at the start, of bettors who believe the mean of values in 0..1 to be above `mean`.

    It never grows when `mean` does, so the candidates it rules out are those below some number.
    """
    factors_GU = 1 - BETS_G[:, None] + BETS_G[:, None] * (shares_U / mean)
    return float(logsumexp(np.log(factors_GU) @ counts_U) - math.log(NUM_BETS))


def _is_ruled_out(shares_U: NDArray[np.float64], counts_U: NDArray[np.int64], mean: float, log_threshold: float) -> bool:
    """Whether bettors got rich against this mean, so that the end of the interval there may move on. All below the range are."""
    return mean < EDGE or _log_capital(shares_U, counts_U, mean) >= log_threshold


def _lowest_plausible(shares_U: NDArray[np.float64], counts_U: NDArray[np.int64], ruled_out: float, log_threshold: float) -> float:
    """The lowest mean that is not ruled out, as `ruled_out` is; no bettor gets rich against the mean of the values themselves."""

    def excess(mean: float) -> float:
        return _log_capital(shares_U, counts_U, mean) - log_threshold

    if ruled_out < EDGE and excess(EDGE) < 0:
        return 0.0
    mean = float(shares_U @ counts_U) / float(counts_U.sum())
    return float(brentq(excess, max(ruled_out, EDGE), min(mean, 1 - EDGE), xtol=PRECISION))
