"""The formulas behind a verdict. All intervals are two-sided; each formula names its source and is tested against it.

Examples that depend on each other (several turns of one conversation, several questions on one text) need the clustered formulas:
all others take examples as independent, which makes intervals too narrow for them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

CONFIDENCE = 0.95
NUM_RESAMPLES = 9_999
NEVER = 1e-9  # how likely a draw may be that no resampling comes to
NUM_THROWS = 100_000
NUM_DEALS = 4_000
NUM_DRAWS = 1_000
ADDED = 0.75  # of a value at an end of the scale: with half of one, shares are missed to one side by up to 7.8 %, so by 4.3 at most
JEFFREYS = 0.5  # of a success and of a failure, added to each count: Jeffreys' prior of a proportion
LEAST_WIN = 1e-4  # of an added half win: a strength is finite
SMALL_STEP = 1e-6  # of a strength, after which the next is of no interest
MOST_STEPS = 1_000  # each of at most 1; random tables took up to 42
VALUES_AT_ONCE = 1 << 22  # bounds the memory: signs or weights, of some throws or draws
SIGNS_A_NUMBER = 4  # of the generator: throws in multiples of so many have the same signs as all of them at once
RESAMPLES_AT_ONCE = 128  # bounds the memory: this many copies of the data
EXACT_UP_TO = 16  # differences, of which all signs can be tried: 2**16 ways
ROUNDING = 1e-9  # of a range: a value this far outside is at its end
MOST_GROUPS = 1_000  # different ones: see `_highest_drawn`
MOST_VALUES = 5_000  # different ones, each of which is reckoned with; of more, see `_on_a_grid`
TINY = 1e-300  # a chance as small as that is of no interest
STEP, COARSE_STEP, FARTHEST_STEP = 0.05, 2.0, 24.0  # of an integral along a line, as arguments of sinh
NEGLIGIBLE = 36.0  # natural logarithm: what is smaller by this adds nothing to a sum of doubles

Interval = tuple[float, float]


def paired_permutation(differences: Sequence[float]) -> float:
    """Two-sided p-value that the sides are interchangeable, from paired differences: how often their sum is as far from 0 when the
    sign of each is thrown by a coin.

    Exact up to 16 differences; beyond that over 100,000 throws, so never below 0.00001. Equal differences give equal values.
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
    rng = np.random.default_rng(0)
    num_as_far = 0
    at_once = SIGNS_A_NUMBER * max(1, VALUES_AT_ONCE // SIGNS_A_NUMBER // len(moved))
    for start in range(0, NUM_THROWS, at_once):
        signs_SD = 2 * rng.integers(0, 2, size=(min(at_once, NUM_THROWS - start), len(moved)), dtype=np.int8) - 1
        num_as_far += int(np.sum(np.abs(signs_SD @ moved) >= observed))
    return (num_as_far + 1) / (NUM_THROWS + 1)  # the observed signs are one of the throws


def paired_proportions_interval(left_only: int, right_only: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Interval for the difference (left minus right) of two proportions measured on the same `n` examples, of which one side alone was
    right on so many.

    Tango's score interval, which goes by these alone: how many both got right makes no difference. Returns (low, high) within [-1, 1].
    Source: Tango 1998, Statistics in Medicine 17, 891-908; recommended by Fagerland, Lydersen and Laake 2014, doi:10.1002/sim.6148.
    Newcombe's method 10, the other one recommended there, is too narrow where few differ and half are right:
    `docs/tried/intervals.md`.
    Raises ValueError for counts that cannot be.
    """
    if n <= 0 or min(left_only, right_only) < 0 or left_only + right_only > n:
        raise ValueError(f"{left_only} and {right_only} of {n} are no pairs")
    quantile = float(special.ndtri((1 + confidence) / 2))
    unseen = quantile**2 / (n + quantile**2)  # where all went one way, what may go another, as in Wilson's
    if not left_only and not right_only:
        return -unseen, unseen
    if n in (left_only, right_only):
        return (1 - 2 * unseen, 1.0) if left_only else (-1.0, 2 * unseen - 1)
    return _tango_interval(left_only / n, right_only / n, n, quantile)


def mean_interval(values: Sequence[float], lowest: float, highest: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Interval for the mean of values that lie between `lowest` and `highest`, or, given paired differences, for their mean.

    Returns (low, high) in the values' unit. It is made for values of any distribution: what a rare value at an end of the range, which
    the sample happens to lack, would do to the mean is in it. So it is wide where values are few for the range, and close to Student's
    where they are many. For values at the two ends only it is Clopper and Pearson's.
    Source: Gaffke 2005, Mathematical Methods of Statistics 14, 451-467; the two-sided form: Learned-Miller and Thomas 2020,
    arXiv:1905.06208. That it holds for every distribution is proved for values at the ends and conjectured for all others, without a
    counterexample so far; `benchmarks/sequential.py` tries hard ones. Of more than 5,000 different values it is a little wider, see
    `_on_a_grid`. Raises ValueError for no values, or one outside the range.
    """
    data_U, counts_U, slack = _within(values, lowest, highest)
    tail = (1 - confidence) / 2
    low, high = -_highest_mean(-data_U, counts_U, -lowest, tail), _highest_mean(data_U, counts_U, highest, tail)
    return max(low - slack, lowest), min(high + slack, highest)


def mean_p_value(values: Sequence[float], lowest: float, highest: float) -> float:
    """Two-sided p-value that the mean of values between `lowest` and `highest` is 0, for values of any distribution.

    It is below 1 - confidence where `mean_interval` excludes 0, and only there. Source and errors: as there.
    """
    data_U, counts_U, slack = _within(values, lowest, highest)
    not_below = _chance_of_mean(data_U, counts_U, highest, -slack)
    not_above = _chance_of_mean(-data_U, counts_U, -lowest, -slack)
    return min(1.0, 2 * min(not_below, not_above))


def total_ratio_interval(
    left: Sequence[float], right: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval | None:
    """Bootstrap interval (BCa) for sum(left) / sum(right), examples resampled in pairs.

    Returns (low, high); None where a draw of nothing but zeros on the right, which has no ratio, is to be reckoned with. Scores are
    not below 0, and right ones not all 0. Equal seeds give equal intervals.
    Source: Efron 1987, doi:10.1080/01621459.1987.10478410.
    Raises ValueError for fewer than 2 pairs, sides of different length, or scores without a ratio.
    """
    left_data, right_data = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if len(left_data) != len(right_data):
        raise ValueError(f"{len(left_data)} and {len(right_data)} scores are not paired")
    if len(left_data) < 2:
        raise ValueError(f"{len(left_data)} values have no interval")
    if left_data.min() < 0 or right_data.min() < 0 or right_data.sum() == 0:
        raise ValueError("a ratio of totals needs positive scores")
    ratio = float(left_data.sum() / right_data.sum())
    if np.array_equal(left_data, ratio * right_data):
        return ratio, ratio
    if np.mean(right_data == 0) ** len(right_data) > NEVER:  # how likely a draw of nothing but zeros is
        return None
    from scipy import stats  # which takes half a second to import

    interval = stats.bootstrap(
        (left_data, right_data),
        lambda one, other, axis=-1: np.sum(one, axis=axis) / np.sum(other, axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=confidence,
        n_resamples=NUM_RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def clustered_score_interval(
    values: Sequence[float], groups: Sequence[str], lowest: float, highest: float, *, confidence: float = CONFIDENCE
) -> Interval:  # fmt: skip
    """Interval for the mean of scores between `lowest` and `highest` that depend on each other within groups, but not between them.

    The Bayesian bootstrap: every group counts more or less by chance, and so does, of one value more at the end of the scale, the part
    `ADDED`. So how far it reaches to either side follows the skewness of the groups, and it has a width where all scores are alike.
    Groups are moved apart until they vary as much as the mean does (`_between_groups`). The added value is of as many values as the
    mean has fewer of for it, and of a group at most. Where values of a group are no more alike than others, each is drawn by itself.
    Of one group alone it is `mean_interval` of its mean.
    Returns (low, high) between `lowest` and `highest`. Close to its confidence, and no bound: how often it
    held is in `docs/statistics.md`.
    What it misses is a rare score far from all that are there, or a rare group.
    Source: Rubin 1981, doi:10.1214/aos/1176345338; the added value, there a whole one: as in `mean_interval`.
    Raises ValueError for no values, or one outside the scale.
    """
    data_U, counts_U, _ = _within(values, lowest, highest)
    if len(set(groups)) < 2:
        return mean_interval([float(data_U @ counts_U / counts_U.sum())], lowest, highest, confidence=confidence)
    data_N = np.clip((np.asarray(values, dtype=np.float64) - lowest) / (highest - lowest), 0.0, 1.0)
    sizes_G, group_N = _sizes(groups)
    mean, num_groups, added = float(data_N.mean()), len(sizes_G), len(data_N) / len(sizes_G)
    moved_G = np.zeros(num_groups)
    if float(np.ptp(data_N)) > ROUNDING:
        alone = float(data_N.var(ddof=1)) / len(data_N)
        variance = _between_groups(data_N, groups, confidence)[1] ** 2
        if variance <= alone * (1 + ROUNDING):
            num_groups, sizes_G, group_N = len(data_N), np.ones(len(data_N)), np.arange(len(data_N))
        moved_G = np.bincount(group_N, weights=data_N - mean).astype(np.float64)
        drawn = float(moved_G @ moved_G) / len(data_N) ** 2 * num_groups / (num_groups + 1)  # the variance by weights alone
        moved_G = moved_G * math.sqrt(max(1.0, variance / drawn))
        added = min(len(data_N) / num_groups, max(1.0, variance / alone))
    low = 1.0 - _highest_drawn(1.0 - mean, -moved_G, sizes_G, added, (1 - confidence) / 2)
    high = _highest_drawn(mean, moved_G, sizes_G, added, (1 - confidence) / 2)
    return lowest + low * (highest - lowest), lowest + high * (highest - lowest)


def _highest_drawn(mean: float, moved_G: NDArray[np.float64], sizes_G: NDArray[np.float64], added: float, tail: float) -> float:
    """The mean that is reached with the chance `tail` where groups weigh more or less by chance, and `ADDED` of a value 1, of size
    `added`. `moved_G`: how far the total of each group is from that of as many values of this mean; their sum is 0.

    Of more than `MOST_GROUPS` different ones, those that are about as far from the mean for each value have one weight, of the mean
    and variance that theirs have together.
    """
    groups_U2, counts_U = np.unique(np.column_stack([sizes_G, moved_G]), axis=0, return_counts=True)
    order_U = np.argsort(groups_U2[:, 1] / groups_U2[:, 0], kind="stable")
    (sizes_U, moved_U), counts_U = groups_U2[order_U].T, counts_U[order_U]
    starts_U = np.unique(np.arange(MOST_GROUPS) * len(counts_U) // MOST_GROUPS)
    totals_U, moved_U, squares_U = (np.add.reduceat(counts_U * each, starts_U) for each in (sizes_U, moved_U, sizes_U**2))
    shapes_U, sizes_U = np.append(totals_U**2 / squares_U, ADDED), squares_U / totals_U
    moved_U = moved_U / totals_U * sizes_U
    wanted = special.ndtri(tail)

    def excess(reached: float) -> float:
        scales_U = np.append(moved_U - (reached - mean) * sizes_U, added * (1.0 - reached))
        chance = _chance_not_below_zero(scales_U[scales_U != 0], shapes_U[scales_U != 0])
        return float(special.ndtri(min(max(chance, TINY), 1 - ROUNDING)) - wanted)

    least = mean + float(np.min(moved_U / sizes_U))
    if mean >= 1.0 or excess(1.0) >= 0:
        return 1.0
    return float(optimize.brentq(excess, least, 1.0, xtol=ROUNDING))


def group_totals_interval(
    values: Sequence[float], groups: Sequence[str], lowest: float, highest: float, *, confidence: float = CONFIDENCE
) -> Interval:  # fmt: skip
    """Interval for the mean of values between `lowest` and `highest` (0 is between them, too) that depend on each other within groups.

    `mean_interval` of the groups' totals, in the unit that their mean is that of the values: what a rare group, which the sample
    happens to lack, would do to the mean is in it. So it is wide where groups are few, or one of them is large. It takes for granted
    that groups which are not there are no larger than the largest, and of as many values on average.
    Source: as there. Raises ValueError as there.
    """
    sizes_G, group_N = _sizes(groups)
    mean_size = len(values) / len(sizes_G)
    totals_G = np.bincount(group_N, weights=np.asarray(values, dtype=np.float64)) / mean_size
    largest = float(sizes_G.max()) / mean_size
    low, high = mean_interval(totals_G.tolist(), lowest * largest, highest * largest, confidence=confidence)
    return max(low, lowest), min(high, highest)


def clustered_difference_interval(
    differences: Sequence[float], groups: Sequence[str], largest: float, *, confidence: float = CONFIDENCE
) -> Interval:  # fmt: skip
    """Interval for the mean of paired differences from -largest to largest that depend on each other within groups, but not between
    them.

    Tango's score interval: a true difference further away takes more wins (or losses) than there are, and has their variance. It is
    that of as many independent pairs as would leave the mean as uncertain as it is (`_between_groups`), and with its t. A win by half
    of `largest` is half a win. So it is about as wide in units of what differs, however small that is for the scale; a rare difference
    far larger than all others is not in it.
    Where nothing differs it is `mean_interval` of as many values as there are groups.
    Returns (low, high) within [-largest, largest]. Close to its confidence, and no bound: how often it
    held is in `docs/statistics.md`.
    Source: Tango 1998, Statistics in Medicine 17, 891-908; for groups: Yang, Sun and Hardin 2012, Pharmaceutical Statistics 11,
    386-393; the number of pairs and t: Korn and Graubard 1998, Survey Methodology 24, 193-201.
    """
    data = np.asarray(differences, dtype=np.float64) / largest
    if len(set(groups)) < 2 or np.ptp(data) <= ROUNDING:
        low, high = mean_interval([float(data.mean())] * len(set(groups)), -1.0, 1.0, confidence=confidence)
    else:
        mean, error, t = _between_groups(data, groups, confidence)
        won, lost = float(np.mean(np.maximum(data, 0.0))), float(np.mean(np.maximum(-data, 0.0)))
        low, high = _tango_interval(won, lost, (won + lost - mean**2) / error**2, t)
    return low * largest, high * largest


def _tango_interval(won: float, lost: float, num_pairs: float, quantile: float) -> Interval:
    """The differences whose distance from won - lost is at most `quantile` standard errors, where these are as large as in the
    likeliest shares of pairs won and lost that are so far apart. Not all pairs are won, nor all lost, nor all tied.
    """
    found = won - lost

    def excess(difference: float) -> float:
        fewer, ahead, apart = (lost, found, difference) if difference >= 0 else (won, -found, -difference)
        # The likeliest share of the side that wins less is the larger root of 2 x**2 + b x + c, where c <= 0: nothing cancels.
        b, c = (2 - ahead) * apart - won - lost, -fewer * apart * (1 - apart)
        variance = ((math.sqrt(b**2 - 8 * c) - b) / 2 + apart - apart**2) / num_pairs
        return (found - difference) ** 2 - quantile**2 * variance

    low, high = (float(optimize.brentq(excess, found, end, xtol=TINY)) for end in (-1.0, 1.0))
    return low, high


def _between_groups(
    values: Sequence[float] | NDArray[np.float64], groups: Sequence[str], confidence: float
) -> tuple[float, float, float]:
    """The mean, its standard error, and Student's t for it.

    The error is that of the larger of two variances. The jackknife's, each of the G groups left out once, which is for groups of one
    size the usual cluster-robust one; that is too small for others, where one large group pulls the mean to itself. And that of
    independent values times the design effect of as much correlation within groups as is beyond chance: the former is too small where
    the groups that differ happen to be small ones.
    t has as many degrees of freedom as the jackknife's variance has where values are independent: G - 1 for groups of one size, fewer
    where some are larger than others. An interval of these alone, as wide to either side, is too narrow on one side among any number
    of groups, where few of them differ from the rest.
    Source: Bell and McCaffrey 2002, Survey Methodology 28, 169-181; for evaluations: Miller 2024, arXiv:2411.00640, section 2.2; the
    design effect: Kish 1965, Survey Sampling, section 5.4; the least correlation within groups: Searle 1971, Linear Models, 9.8.
    Raises ValueError for fewer than 2 groups.
    """
    data_N = np.asarray(values, dtype=np.float64)
    sizes_G, group_N = _sizes(groups)
    if len(sizes_G) < 2:
        raise ValueError(f"{len(sizes_G)} groups have no interval")
    mean = float(data_N.mean())
    alone = float(data_N.var(ddof=1)) / len(data_N)
    error = math.sqrt(max(_jackknife(data_N, sizes_G, group_N), alone * _design_effect(data_N, sizes_G, group_N)))
    shares_G = sizes_G / len(data_N)
    pulls_G = shares_G / (1 - shares_G) ** 2
    freedom = float(np.sum(shares_G / (1 - shares_G)) ** 2 / (pulls_G**2 @ (1 - 2 * shares_G) + (pulls_G @ shares_G) ** 2))
    return mean, error, float(special.stdtrit(freedom, (1 + confidence) / 2))


def _jackknife(data_N: NDArray[np.float64], sizes_G: NDArray[np.float64], group_N: NDArray[np.intp]) -> float:
    """The variance of the mean of all, by the means that are left where each group is left out once."""
    moved_G = np.bincount(group_N, weights=data_N - data_N.mean()) / (len(data_N) - sizes_G)
    return (len(sizes_G) - 1) / len(sizes_G) * float(moved_G @ moved_G)


def _design_effect(data_N: NDArray[np.float64], sizes_G: NDArray[np.float64], group_N: NDArray[np.intp]) -> float:
    """How many times as large the variance of a mean is as of independent values, by the least correlation within groups that
    values so much alike leave, at `CONFIDENCE` to one side.
    """
    num_groups, num_values, kish = len(sizes_G), len(data_N), float(sizes_G @ sizes_G) / len(data_N)
    if num_values == num_groups:
        return 1.0
    means_G = np.bincount(group_N, weights=data_N) / sizes_G
    between = float(sizes_G @ (means_G - data_N.mean()) ** 2) / (num_groups - 1)
    within = float(np.sum((data_N - means_G[group_N]) ** 2)) / (num_values - num_groups)
    by_chance = within * float(special.fdtri(num_groups - 1, num_values - num_groups, CONFIDENCE))
    if between <= by_chance:
        return 1.0
    usual = (num_values - kish) / (num_groups - 1)  # size of a group
    return 1.0 + (between - by_chance) / (between + (usual - 1) * by_chance) * (kish - 1)


def effective_groups(groups: Sequence[str]) -> float:
    """How many groups of one size would leave a mean as uncertain, where all that differs does so between groups.

    Source: Kish 1965, Survey Sampling, section 11.7.
    """
    sizes_G, _ = _sizes(groups)
    return float(sizes_G.sum() ** 2 / (sizes_G @ sizes_G))


def _sizes(groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """How many values each of G groups has, and the number of each value's group."""
    places = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    group_N = np.array([places[group] for group in groups], dtype=np.intp)
    return np.bincount(group_N).astype(np.float64), group_N


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value, corrected for all of them being looked at together; in the order given.

    Calling those below alpha significant is wrong, even once, with a probability of at most alpha. Source: Holm 1979, Scandinavian
    Journal of Statistics 6, 65-70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def is_equivalent(interval: Interval, rope: float) -> bool:
    """Whether a difference with this interval is practically none: all of the interval lies within `rope` of 0.

    With an interval of confidence 1 - alpha this is wrong with a probability of at most alpha / 2, as far as that interval keeps its
    promise to either side: stricter than two one-sided tests at alpha.
    Source: Schuirmann 1987, doi:10.1007/BF01068419; Kruschke 2018, doi:10.1177/2515245918771304.
    """
    return -rope <= interval[0] and interval[1] <= rope


def bradley_terry(wins_PMM: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strengths of M models from how often each (row) won against each other one (column); a tie is half a win for both.

    P problems are solved at once. Strengths are natural log-odds and sum to 0: model i wins against j with the odds
    exp(strength i - strength j). Newton's method on the likelihood. Source: Bradley and Terry 1952, doi:10.2307/2334029;
    uniqueness: Ford 1957, doi:10.2307/2308513. Raises ValueError if there is no finite solution, as where a model never lost, or
    it is not found in 1,000 steps.
    """
    num_models = wins_PMM.shape[1]
    beats_PMM = (wins_PMM > 0) | np.eye(num_models, dtype=bool)
    if not np.all(np.linalg.matrix_power(beats_PMM, num_models)):
        raise ValueError("these games have no finite strengths: a model, or a group of them, never lost or never played the rest")
    losses_PMM = np.swapaxes(wins_PMM, 1, 2)
    strengths_PM: NDArray[np.float64] = np.zeros(wins_PMM.shape[:2])
    ones_MM = np.full((num_models, num_models), 1.0 / num_models)  # makes the singular information invertible
    for _ in range(MOST_STEPS):
        chances_PMM: NDArray[np.float64] = special.expit(strengths_PM[:, :, None] - strengths_PM[:, None, :])
        upsets_PMM = np.swapaxes(chances_PMM, 1, 2)  # 1 - chances, to the last digit where those are nearly 1
        gradient_PM = np.sum(wins_PMM * upsets_PMM - losses_PMM * chances_PMM, axis=2)
        weights_PMM = (wins_PMM + losses_PMM) * chances_PMM * upsets_PMM
        information_PMM = np.eye(num_models) * np.sum(weights_PMM, axis=2)[:, :, None] - weights_PMM
        step_PM = np.linalg.solve(information_PMM + ones_MM, gradient_PM[:, :, None])[:, :, 0]
        strengths_PM += np.clip(step_PM, -1.0, 1.0)
        if np.max(np.abs(step_PM)) <= SMALL_STEP:
            return np.asarray(strengths_PM - strengths_PM.mean(axis=1, keepdims=True))
    raise ValueError(f"no strengths were found in {MOST_STEPS:,} steps: the numbers of wins lie too far apart")


def bradley_terry_intervals(
    wins_IMM: NDArray[np.float64], *, confidence: float = CONFIDENCE, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Strengths (M), and their intervals (M, 2) by weighing the I items anew: games over one item are not independent.

    Half a win is added for both of each two models that met (half of an item's games, where it has several): Jeffreys' prior. So
    strengths stay finite where a model never lost, and every model is pulled a little to the middle. Intervals are percentiles over
    1,000 draws of the weights, of the items and of the added wins: the Bayesian bootstrap with a prior. So they have a width where
    all items went the same way; for two models without ties they are Jeffreys' interval for a proportion. They end at strengths that
    leave 1/10,000 of a win to the other. Equal seeds give equal intervals.

    Source: as above; the weights: Rubin 1981, doi:10.1214/aos/1176345338; Jeffreys' interval: Brown, Cai and DasGupta 2001,
    doi:10.1214/ss/1009213286; half a win as a penalty: Firth 1993, doi:10.1093/biomet/80.1.27.
    """
    total_MM = wins_IMM.sum(axis=0)
    games_IMM = wins_IMM + np.swapaxes(wins_IMM, 1, 2)
    met_MM = games_IMM.sum(axis=0) / np.maximum(1, (games_IMM > 0).sum(axis=0))  # games an item, 0 for those who never met
    rng = np.random.default_rng(seed)
    added_PMM = met_MM * np.maximum(rng.standard_gamma(JEFFREYS, size=(NUM_DRAWS, *met_MM.shape)), LEAST_WIN)
    wins_PMM = _weighed_anew(wins_IMM, rng) + added_PMM
    strengths_M = bradley_terry((total_MM + JEFFREYS * met_MM)[None])[0]
    tails = (1 - confidence) / 2
    return strengths_M, np.quantile(bradley_terry(wins_PMM), (tails, 1 - tails), axis=0).T


def _weighed_anew(tables_ITT: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """[P, T, T]: the tables' sums, in `NUM_DRAWS` draws of how much each of the I items counts, 1 on average. Over their sums these
    weights are Dirichlet's with ones."""
    at_once = max(1, VALUES_AT_ONCE // len(tables_ITT))
    sizes = (min(at_once, NUM_DRAWS - start) for start in range(0, NUM_DRAWS, at_once))
    return np.concatenate([np.tensordot(rng.standard_gamma(1.0, size=(size, len(tables_ITT))), tables_ITT, axes=1) for size in sizes])


def cohens_kappa(one: Sequence[float], other: Sequence[float]) -> float:
    """Agreement of two raters beyond what their own frequencies would give by chance: 1 is full agreement, 0 is chance.

    0 where one rater always says the same, who then agrees no more than chance does. Source: Cohen 1960,
    doi:10.1177/001316446002000104. Raises ValueError for raters of different length, or without ratings.
    """
    return float(_kappas(_agreement_tables(one, other, [""] * len(one)))[0])


def cohens_kappa_interval(one: Sequence[float], other: Sequence[float], groups: Sequence[str]) -> Interval:
    """Interval for Cohen's kappa, whose items depend on each other within groups only: percentiles over 1,000 draws of the weights
    of the groups, and of half a group of agreement and half of disagreement that are added, spread over all pairs of ratings.

    The Bayesian bootstrap with a prior, as in `bradley_terry_intervals`: for the share of agreements it is Jeffreys' interval. So it
    has a width where all agree, and where one rater always says the same. Equal ratings give equal intervals.
    """
    tables_GRR = _agreement_tables(one, other, groups)
    num_ratings = max(2, tables_GRR.shape[1])  # of one rating alone nothing is known of agreement beyond chance
    rng = np.random.default_rng(0)
    same_RR = np.eye(num_ratings)
    shape_RR = JEFFREYS * np.where(same_RR, 1 / num_ratings, 1 / (num_ratings * (num_ratings - 1)))
    tables_PRR = len(one) / len(tables_GRR) * rng.standard_gamma(shape_RR, size=(NUM_DRAWS, num_ratings, num_ratings))
    seen = slice(tables_GRR.shape[1])
    tables_PRR[:, seen, seen] += _weighed_anew(tables_GRR, rng)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(_kappas(tables_PRR), (tails, 1 - tails))
    kappa = cohens_kappa(one, other)
    return min(float(low), kappa), max(float(high), kappa)


def agreement_by_chance(one: Sequence[float], other: Sequence[float]) -> float:
    """How likely at least so many agreements are where the one's ratings are dealt out anew, of 4,000 ways to deal them.

    Does not know of items that depend on each other. Raises ValueError for raters of different length.
    """
    given, dealt_PN = np.array(one), np.tile(np.array(other), (NUM_DEALS, 1))
    agreed = int(np.sum(given == dealt_PN[0]))
    dealt_PN = np.random.default_rng(0).permuted(dealt_PN, axis=1)
    return (1 + int(np.sum(np.sum(given == dealt_PN, axis=1) >= agreed))) / (1 + NUM_DEALS)


def _agreement_tables(one: Sequence[float], other: Sequence[float], groups: Sequence[str]) -> NDArray[np.float64]:
    """How often each rating of one (row) met each of the other (column), for each of the G groups."""
    if not one:
        raise ValueError("no ratings to compare")
    ratings = {rating: at for at, rating in enumerate(sorted({*one, *other}))}
    names = {name: at for at, name in enumerate(sorted(set(groups)))}
    tables_GRR = np.zeros((len(names), len(ratings), len(ratings)))
    for a, b, group in zip(one, other, groups, strict=True):
        tables_GRR[names[group], ratings[a], ratings[b]] += 1
    return tables_GRR


def _kappas(tables_PRR: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of P tables at once."""
    shares_PRR = tables_PRR / tables_PRR.sum(axis=(1, 2), keepdims=True)
    agreed_P = np.trace(shares_PRR, axis1=1, axis2=2)
    chance_P = np.sum(shares_PRR.sum(axis=1) * shares_PRR.sum(axis=2), axis=1)
    return np.where(chance_P < 1, (agreed_P - chance_P) / np.where(chance_P < 1, 1 - chance_P, 1.0), 0.0)


def _within(values: Sequence[float], lowest: float, highest: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """The U different values, how often each occurs, and 0; of many, what `_on_a_grid` has in their place."""
    data = np.asarray(values, dtype=np.float64)
    slack = ROUNDING * (highest - lowest)
    if not len(data) or not (data.min() >= lowest - slack and data.max() <= highest + slack):  # nor is NaN
        raise ValueError(f"{len(data)} values from {min(values, default=lowest)} to {max(values, default=highest)} have no interval")
    data_U, counts_U = np.unique(np.clip(data, lowest, highest), return_counts=True)
    return _on_a_grid(data_U, counts_U) if len(data_U) > MOST_VALUES else (data_U, counts_U.astype(np.float64), 0.0)


def _on_a_grid(data_U: NDArray[np.float64], counts_U: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Points from the least value to the greatest, how often each occurs where every value is shared out to the two beside it, and
    how far a mean drawn of them, as in `_chance_of_mean`, may be from that of the values.

    A value is shared so that it is the mean of what it becomes. Drawn, it lies anywhere between the two points, apart from the others:
    given N weights, whose squares sum to about 2 / N (never to 3 / N), the means differ by more with a chance below `NEVER`. That is
    mostly less than a hundredth of an interval; all values rounded outwards would be a tenth of it and more.
    Source: Hoeffding 1963, doi:10.1080/01621459.1963.10500830, theorem 2.
    """
    points_P = np.unique(np.linspace(data_U[0], data_U[-1], MOST_VALUES))  # fewer where doubles are no denser
    steps_P = np.diff(points_P)
    at_U = np.clip(np.searchsorted(points_P, data_U, side="right") - 1, 0, len(steps_P) - 1)
    above_U = counts_U * np.clip((data_U - points_P[at_U]) / steps_P[at_U], 0.0, 1.0)
    shares_P = np.zeros(len(points_P))
    np.add.at(shares_P, at_U, counts_U - above_U)
    np.add.at(shares_P, at_U + 1, above_U)
    slack = float(steps_P.max()) * math.sqrt(-math.log(NEVER) / 2 * 3 / counts_U.sum())
    return points_P[shares_P > 0], shares_P[shares_P > 0], slack


def _highest_mean(data_U: NDArray[np.float64], counts_U: NDArray[np.float64], highest: float, tail: float) -> float:
    """The mean that drawn ones, as in `_chance_of_mean`, reach with the chance `tail`."""
    least = float(data_U.min())
    if least == highest:
        return highest
    wanted = special.ndtri(tail)

    def excess(mean: float) -> float:  # in normal deviates, almost a line: few steps find its zero
        chance = _chance_of_mean(data_U, counts_U, highest, mean)
        return float(special.ndtri(min(max(chance, TINY), 1 - ROUNDING)) - wanted)

    return float(optimize.brentq(excess, least, highest, xtol=ROUNDING * (highest - least)))


def _chance_of_mean(data_U: NDArray[np.float64], counts_U: NDArray[np.float64], highest: float, mean: float) -> float:
    """How often the weighted mean of the values and one more, `highest`, reaches `mean`, all weights being equally likely.

    Weights are waiting times E over their sum, so that this is the chance of sum(E * (value - mean)) >= 0.
    """
    gaps = np.append(data_U, highest) - mean
    shapes = np.append(counts_U, 1.0)[gaps != 0]
    return _chance_not_below_zero(gaps[gaps != 0], shapes)


def _chance_not_below_zero(scales_U: NDArray[np.float64], shapes_U: NDArray[np.float64]) -> float:
    """P(sum of gamma variables of these shapes times these scales >= 0), to about ten digits, also of very small ones.

    The moment generating function is inverted along a vertical line through its saddle point, where nothing cancels.
    Source: Rice 1980, SIAM Journal on Scientific and Statistical Computing 1, 438-448; steps that grow as sinh.
    """
    if np.all(scales_U > 0):
        return 1.0
    if np.all(scales_U < 0):
        return 0.0
    if scales_U @ shapes_U > 0:
        return 1.0 - _chance_not_below_zero(-scales_U, shapes_U)
    pole = 1 / float(scales_U.max())
    near = 1e-12 * pole
    saddle = float(optimize.brentq(lambda s: np.sum(shapes_U * scales_U / (1 - scales_U * s)) - 1 / s, near, pole - near, xtol=near))
    unit = 1 / math.sqrt(np.sum(shapes_U * (scales_U / (1 - scales_U * saddle)) ** 2) + 1 / saddle**2)

    least_U = 1 - scales_U * saddle  # all are above zero
    at_saddle = float(shapes_U @ np.log(least_U))

    def log_density(steps_S: NDArray[np.float64]) -> NDArray[np.complex128]:
        line_S = saddle + 1j * unit * np.sinh(steps_S)
        slopes_US = (scales_U / least_U)[:, None] * line_S.imag  # log(1 - scale * line) in its parts: complex ones take far longer
        sums_S = at_saddle + shapes_U @ np.log1p(slopes_US**2) / 2 - 1j * (shapes_U @ np.arctan(slopes_US))
        return np.asarray(np.log(unit * np.cosh(steps_S)) - sums_S - np.log(line_S), dtype=np.complex128)

    coarse_S = np.arange(0.0, FARTHEST_STEP, COARSE_STEP)
    heights_S = log_density(coarse_S).real
    end = coarse_S[np.argmax(heights_S < heights_S[0] - NEGLIGIBLE)] or FARTHEST_STEP
    along_S = np.exp(log_density(np.arange(0.0, end, STEP))).real
    return float(STEP * (along_S.sum() - along_S[0] / 2) / math.pi)
