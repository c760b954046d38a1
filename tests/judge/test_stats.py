"""Each formula against numbers its source, or a later textbook, published, and against simulation."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import optimize, stats

from nomoat.judge.stats import (
    ADDED,
    _between_groups,
    _jackknife,
    _sizes,
    _tango_interval,
    agreement_by_chance,
    bradley_terry,
    bradley_terry_intervals,
    clustered_difference_interval,
    clustered_score_interval,
    cohens_kappa,
    cohens_kappa_interval,
    effective_groups,
    group_totals_interval,
    holm,
    is_equivalent,
    mean_interval,
    mean_p_value,
    paired_permutation,
    paired_proportions_interval,
    total_ratio_interval,
)
from nomoat.judge.verdict import Rules, _fixed, _open_in_groups, score_interval
from nomoat.proportions import mcnemar_exact, wilson_interval


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        # Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables, chapter 2
        (13, 16, 0.5699, 0.9341),
    ],
)
def test_wilson_interval_equals_the_published_ones(wins: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(wins, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_of_an_80_question_win_rate_is_twenty_points_wide() -> None:
    low, high = wilson_interval(36, 80)
    assert (round(low, 2), round(high, 2)) == (0.35, 0.56)


@pytest.mark.parametrize(("wins", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_what_is_no_proportion(wins: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no proportion"):
        wilson_interval(wins, n)


def test_mcnemar_equals_the_published_value() -> None:
    """Cavo et al. 2012: 6 against 16 discordant pairs; Fagerland et al. 2017, chapter 8, print P = 0.0525."""
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar_exact(16, 6) == mcnemar_exact(6, 16)


def test_mcnemar_without_discordant_pairs_knows_nothing() -> None:
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(4, 4) == 1.0
    with pytest.raises(ValueError, match="are no counts"):
        mcnemar_exact(-1, 2)


def test_mcnemar_keeps_its_error_rate_under_the_null() -> None:
    """2,000 duels of equals: an exact test rejects at most 5 % of them in the long run.

    More than 6.5 % by chance has a probability below 0.2 % (binomial, 2,000 draws of 5 %); the seed is fixed anyway.
    """
    rng = np.random.default_rng(7)
    left_only = rng.binomial(40, 0.5, size=2_000)
    rejected = np.mean([mcnemar_exact(int(won), 40 - int(won)) < 0.05 for won in left_only])
    assert 0.02 < rejected < 0.065


# Darwin's maize, crossed minus self-fertilised, in eighths of an inch: Fisher 1935, The Design of Experiments, section 17.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_permutation_test_equals_fishers_count() -> None:
    """Fisher 1935, section 21: of all 2**15 sums, 835 are greater than the one observed and 28 equal it; two-sided 1,726 of 32,768."""
    assert paired_permutation(DARWIN) == pytest.approx(1_726 / 32_768)
    assert paired_permutation([-value for value in DARWIN]) == paired_permutation(DARWIN)


def test_permutation_test_of_many_differences_is_close_to_the_t_test() -> None:
    values = np.random.default_rng(8).normal(0.12, 1.0, size=300)
    assert paired_permutation(values.tolist()) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue, abs=0.01)
    assert paired_permutation(values.tolist()) == paired_permutation(values.tolist())


def test_permutation_test_is_the_same_however_many_throws_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(0.1, 1.0, size=101).tolist()
    found = paired_permutation(values)
    monkeypatch.setattr("nomoat.judge.stats.VALUES_AT_ONCE", 101_000)
    assert paired_permutation(values) == found


def test_many_items_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 items, 2,000 throws of signs are 1.6 GB as doubles, and 1,000 draws of weights 0.8 GB."""
    monkeypatch.setattr("nomoat.judge.stats.NUM_THROWS", 400)
    monkeypatch.setattr("nomoat.judge.stats.NUM_DRAWS", 200)
    values = np.random.default_rng(0).normal(size=100_000)
    wins_IMM = np.zeros((len(values), 2, 2))
    wins_IMM[:, 0, 1], wins_IMM[:, 1, 0] = values > 0, values <= 0
    tracemalloc.start()
    try:
        paired_permutation(values.tolist())
        bradley_terry_intervals(wins_IMM)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


def test_permutation_test_equals_scipys_on_few_differences() -> None:
    values = [0.25, -0.5, 1.0, 0.75, 0.125, -0.25, 0.5, 1.0]
    found = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert paired_permutation(values) == found.pvalue


def test_permutation_test_of_ties_and_of_a_single_difference_shows_nothing() -> None:
    assert paired_permutation([0.0] * 20) == 1.0
    assert paired_permutation([0.0, 0.7]) == 1.0
    assert paired_permutation([1.0] * 8 + [0.0] * 90) == 2 / 2**8
    with pytest.raises(ValueError, match="no differences"):
        paired_permutation([])


def test_paired_interval_equals_the_published_one() -> None:
    """Airway hyper-responsiveness before and after: Fagerland, Lydersen and Laake 2014, doi:10.1002/sim.6148."""
    assert paired_proportions_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_paired_interval_changes_its_sign_with_the_sides() -> None:
    low, high = paired_proportions_interval(30, 10, 100)
    assert paired_proportions_interval(10, 30, 100) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("left_only", "right_only"), [(0, 0), (40, 0), (0, 40)])
def test_paired_interval_where_all_pairs_are_alike_is_near_to_that_where_nearly_all_are(left_only: int, right_only: int) -> None:
    low, high = paired_proportions_interval(left_only, right_only, 40)
    assert -1.0 <= low <= (left_only - right_only) / 40 <= high <= 1.0
    nearly = _tango_interval(max(left_only - 1e-9, 0.0) / 40, max(right_only - 1e-9, 1e-9) / 40, 40, stats.norm.ppf(0.975))
    assert (low, high) == pytest.approx(nearly, abs=1e-4)


@pytest.mark.parametrize(("left_only", "right_only", "n"), [(0, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_paired_interval_refuses_what_are_no_pairs(left_only: int, right_only: int, n: int) -> None:
    with pytest.raises(ValueError, match="are no pairs"):
        paired_proportions_interval(left_only, right_only, n)


@pytest.mark.parametrize(
    ("n", "won", "lost"), [(60, 0.25, 0.10), (100, 0.02, 0.0), (200, 0.01, 0.0), (200, 0.0, 0.02), (20, 0.9, 0.02)]
)
def test_paired_interval_holds_the_difference_on_both_sides(n: int, won: float, lost: float) -> None:
    """4,000 duels; beyond either end in at most 5.2 % in the long run, by chance in more than 6.5 %: below 0.1 %. By
    Newcombe's method 10 it is 11 to 13 % where 1 or 2 % differ, and half of the others are right on both sides.
    """
    tables = np.random.default_rng(11).multinomial(n, [won, lost, 1 - won - lost], size=4_000).tolist()
    interval = functools.cache(paired_proportions_interval)  # most tables are there many times
    found = [interval(*counts, n) for *counts, _ in tables]
    assert sum(low > won - lost for low, _ in found) <= 260
    assert sum(high < won - lost for _, high in found) <= 260


def test_mean_interval_of_many_values_is_close_to_the_t_interval() -> None:
    """And not narrower: what lies at the ends of the scale may have been missed."""
    values = np.random.default_rng(3).beta(2, 3, size=1500)
    low, high = stats.t.interval(0.95, 1499, loc=values.mean(), scale=stats.sem(values))
    assert mean_interval(values.tolist(), 0, 1) == pytest.approx((low, high), abs=1e-3)
    assert mean_interval(values.tolist(), 0, 1)[0] < low < high < mean_interval(values.tolist(), 0, 1)[1]


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (1, 1), (2, 5), (0, 10), (3, 30), (80, 200), (999, 1000)])
def test_mean_interval_of_values_at_the_ends_is_clopper_and_pearsons(wins: int, n: int) -> None:
    exact = stats.binomtest(wins, n).proportion_ci(method="exact")
    assert mean_interval([1.0] * wins + [0.0] * (n - wins), 0, 1) == pytest.approx(tuple(exact), abs=1e-8)


def test_mean_interval_equals_drawn_weights() -> None:
    """Gaffke's definition: all weights of the values and the end of the range are equally likely. Quantiles of a million of them; the
    tolerance is four of their standard errors.
    """
    rng = np.random.default_rng(0)
    values = rng.random(7)
    weights = rng.dirichlet(np.ones(8), size=1_000_000)
    drawn = np.quantile(weights @ np.append(values, 0), 0.025), np.quantile(weights @ np.append(values, 1), 0.975)
    assert mean_interval(values.tolist(), 0, 1) == pytest.approx(drawn, abs=1.2e-3)


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.3, 3.0)])
def test_mean_interval_of_few_values_holds_what_it_promises(n: int, a: float, b: float) -> None:
    """Promised: 95 %. Below 90 % by chance: a probability of 1.1 % for each case (binomial); the seed is fixed. A bootstrap covers as
    little as 41 % of these.
    """
    rng = np.random.default_rng(4)
    intervals = [mean_interval(rng.beta(a, b, size=n).tolist(), 0, 1) for _ in range(100)]
    assert np.mean([low <= a / (a + b) <= high for low, high in intervals]) >= 0.9


def test_mean_interval_moves_with_its_scale_and_says_little_of_values_near_to_each_other() -> None:
    low, high = mean_interval([0.5, 0.5001], 0, 1)
    assert (low, high) == pytest.approx(mean_interval([0.5, 0.5], 0, 1), abs=1e-4)
    assert high - low > 0.8
    assert mean_interval([5.5, 5.5009], 1, 10) == pytest.approx((1 + 9 * low, 1 + 9 * high))
    for values in ([], [0.5, 1.1]):
        with pytest.raises(ValueError, match="have no interval"):
            mean_interval(values, 0, 1)


@pytest.mark.parametrize("num_others", [1, 6000])
def test_no_interval_holds_what_is_no_number(num_others: int) -> None:
    for function in (mean_interval, mean_p_value):
        with pytest.raises(ValueError, match="have no interval"):
            function([*np.linspace(0, 1, num_others).tolist(), np.nan], 0, 1)


@pytest.mark.parametrize("n", [20, 80, 500])
def test_p_value_of_a_mean_is_where_the_interval_reaches_0(n: int) -> None:
    values = np.clip(np.random.default_rng(n).normal(0.1, 0.3, size=n), -1, 1).tolist()
    p_value = mean_p_value(values, -1, 1)
    wider, narrower = (mean_interval(values, -1, 1, confidence=1 - factor * p_value) for factor in (0.99, 1.01))
    assert wider[0] < 0 < wider[1]
    assert narrower[0] > 0 or narrower[1] < 0
    assert mean_p_value([-value for value in values], -1, 1) == pytest.approx(p_value)


@pytest.mark.parametrize("kind", ["even", "mostly 0", "one far away", "near to each other"])
def test_mean_interval_of_very_many_values_is_no_narrower_and_little_wider(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = {
        "even": rng.random(6_000),
        "mostly 0": np.where(rng.random(9_000) < 0.3, 0.0, rng.random(9_000) ** 4),
        "one far away": np.append(rng.random(6_000) / 100_000, 1.0),
        "near to each other": rng.normal(0.5, 1e-7, 6_000),
    }[kind]
    low, high = mean_interval(values.tolist(), 0, 1)
    monkeypatch.setattr("nomoat.judge.stats.MOST_VALUES", 10_000)
    exact_low, exact_high = mean_interval(values.tolist(), 0, 1)
    assert low <= exact_low < exact_high <= high
    assert high - low < 1.03 * (exact_high - exact_low)
    exact = mean_p_value((values - exact_low).tolist(), -1, 1)
    monkeypatch.undo()
    assert exact <= mean_p_value((values - exact_low).tolist(), -1, 1) < 1.2 * exact


def test_very_many_values_are_reckoned_with_on_few_points() -> None:
    values = np.random.default_rng(0).random(200_000)
    tracemalloc.start()
    low, high = mean_interval(values.tolist(), 0, 1)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < 100_000_000  # each on its own: 2 GB
    error = values.std(ddof=1) / 200_000**0.5
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.03 * error)


def test_p_value_of_a_mean_is_exact_for_equal_values_and_never_0() -> None:
    """All of n differences are -0.05: a mean of 0 needs the weight of the end of the range, of Beta(1, n), to be 1/21."""
    for n in (20, 72, 90):
        assert mean_p_value([-0.05] * n, -1, 1) == pytest.approx(min(1.0, 2 * (20 / 21) ** n))
    assert mean_p_value([0.0] * 20, -1, 1) == 1.0
    assert 0 < mean_p_value([1.0] * 200, -1, 1) < 1e-50


def test_ratio_interval_is_close_to_the_delta_method() -> None:
    """The two agree to the first order: Efron and Tibshirani 1993, chapter 25, on a ratio of means."""
    rng = np.random.default_rng(9)
    right = rng.uniform(6.0, 10.0, size=300)
    left = right * 0.9 + rng.normal(0.0, 0.8, size=300)
    ratio = left.sum() / right.sum()
    error = np.sqrt(np.var(left - ratio * right, ddof=1) / 300) / right.mean()
    assert total_ratio_interval(left.tolist(), right.tolist()) == pytest.approx(
        (ratio - 1.96 * error, ratio + 1.96 * error), abs=0.002
    )


def test_ratio_interval_refuses_what_has_no_ratio() -> None:
    assert total_ratio_interval([2.0, 4.0], [1.0, 2.0]) == (2.0, 2.0)
    for left, right in (([1.0, 0.0], [0.0, 1.0]), ([1.0, 2.0, 3.0], [10.0, 0.0, 0.0])):
        assert total_ratio_interval(left, right) is None
    with pytest.raises(ValueError, match="are not paired"):
        total_ratio_interval([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="needs positive scores"):
        total_ratio_interval([1.0, 2.0], [0.0, 0.0])
    with pytest.raises(ValueError, match="needs positive scores"):
        total_ratio_interval([-1.0, 2.0], [1.0, 2.0])


# American League East, 1987: wins of the row over the column (Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore).
# Agresti 2013, Categorical Data Analysis, table 11.10.
BASEBALL = [
    [0, 7, 9, 7, 7, 9, 11],
    [6, 0, 7, 5, 11, 9, 9],
    [4, 6, 0, 7, 7, 8, 12],
    [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12],
    [4, 4, 5, 6, 6, 0, 6],
    [2, 4, 1, 3, 1, 7, 0],
]


def test_bradley_terry_equals_the_textbooks_baseball_teams() -> None:
    """Agresti, as above: log strengths against Baltimore's."""
    (strengths,) = bradley_terry(np.array([BASEBALL], dtype=float))
    assert strengths - strengths[-1] == pytest.approx([1.581, 1.436, 1.294, 1.248, 1.108, 0.684, 0.0], abs=6e-4)
    assert strengths.sum() == pytest.approx(0.0, abs=1e-9)


def test_bradley_terry_without_a_finite_solution_says_so() -> None:
    with pytest.raises(ValueError, match="no finite strengths"):
        bradley_terry(np.array([[[0.0, 5.0], [0.0, 0.0]]]))


def test_bradley_terry_whose_steps_do_not_end_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.judge.stats.MOST_STEPS", 2)
    with pytest.raises(ValueError, match="no strengths were found in 2 steps: the numbers of wins lie too far apart"):
        bradley_terry(np.array([BASEBALL], dtype=float))


def test_bradley_terry_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """60 leagues of 3 models over 150 items, 180 strengths. Fewer than 88 % inside by chance: probability below 0.1 %."""
    truth = np.array([0.5, 0.0, -0.5])
    chances = 1 / (1 + np.exp(truth[None, :] - truth[:, None]))
    rng = np.random.default_rng(3)
    inside = 0
    for league in range(60):
        won = np.triu(rng.random((150, 3, 3)) < chances, 1).astype(float)
        lost = np.triu(1 - won, 1)
        strengths, intervals = bradley_terry_intervals(won + np.swapaxes(lost, 1, 2), seed=league)
        inside += int(np.sum((intervals[:, 0] <= truth) & (truth <= intervals[:, 1])))
        assert np.all((intervals[:, 0] <= strengths) & (strengths <= intervals[:, 1]))
    assert 0.88 <= inside / 180 <= 1.0


def test_model_that_never_lost_has_a_finite_strength_on_a_leaderboard() -> None:
    wins = np.zeros((20, 2, 2))
    wins[:, 0, 1] = 1.0
    strengths, intervals = bradley_terry_intervals(wins)
    assert strengths[0] - strengths[1] == pytest.approx(np.log(20.5 / 0.5))
    assert np.isfinite(intervals).all()


@pytest.mark.parametrize(("wins", "ties", "losses"), [(3, 0, 0), (0, 0, 12), (0, 12, 0), (7, 0, 1)])
def test_strengths_have_an_interval_where_every_item_went_the_same_way(wins: int, ties: int, losses: int) -> None:
    """Without ties it is Jeffreys' for a proportion (Brown, Cai and DasGupta 2001), but for the noise of 1,000 draws: the chances of
    its ends are 2.5 and 97.5 % by Beta(wins + 1/2, losses + 1/2), give or take 1.5 points (three standard errors).
    """
    won = np.repeat([1.0, 0.5, 0.0], [wins, ties, losses])
    games = np.zeros((len(won), 2, 2))
    games[:, 0, 1], games[:, 1, 0] = won, 1 - won
    strengths, intervals = bradley_terry_intervals(games)
    assert np.all(intervals[:, 0] < strengths) and np.all(strengths < intervals[:, 1])
    if not ties:
        ends = 1 / (1 + np.exp(-2 * intervals[0]))
        assert stats.beta.cdf(ends, wins + 0.5, losses + 0.5) == pytest.approx([0.025, 0.975], abs=0.015)


def test_strengths_of_whole_groups_are_those_of_one_of_their_items() -> None:
    won = np.array([1.0, 1.0, 0.5, 1.0, 0.0, 1.0])
    games = np.zeros((6, 2, 2))
    games[:, 0, 1], games[:, 1, 0] = won, 1 - won
    once, fourfold = bradley_terry_intervals(games), bradley_terry_intervals(4 * games)
    assert fourfold[0] == pytest.approx(once[0])
    assert fourfold[1] == pytest.approx(once[1])


def by_jackknife(values: Sequence[float], groups: Sequence[str]) -> tuple[float, float]:
    """The cluster-robust interval, as wide to either side."""
    mean, _, t = _between_groups(values, groups, 0.95)
    reach = t * np.sqrt(_jackknife(np.asarray(values), *_sizes(groups)))
    return mean - reach, mean + reach


def test_error_between_groups_of_one_size_is_the_usual_one() -> None:
    """Liang and Zeger 1986 with the correction G / (G - 1), Student's t with G - 1 degrees of freedom."""
    values = np.array([1, 1, 0, 1, 0, 0, -1, 0, 1, 1, 0, 0.5, -0.5, 1.0])
    sums = (values - values.mean()).reshape(7, 2).sum(axis=1)
    reach = stats.t.ppf(0.975, 6) * np.sqrt(7 / 6 * np.sum(sums**2)) / 14
    found = by_jackknife(values.tolist(), [str(at // 2) for at in range(14)])
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach))
    with pytest.raises(ValueError, match="1 groups have no interval"):
        by_jackknife([1.0, 2.0], ["a", "a"])


def test_error_between_uneven_groups_leaves_each_out_once() -> None:
    """The jackknife word for word, and Bell and McCaffrey's degrees of freedom by the eigenvalues of its quadratic form."""
    values = np.array([1, 1, 0, 1, 0, 0, -1, 0, 1, 1, 0, 0.5, -0.5, 1.0])
    groups = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 4])
    without = [values[groups != group].mean() for group in range(5)]
    variance = 4 / 5 * sum((mean - values.mean()) ** 2 for mean in without)
    moved = np.array([(groups != group) / np.sum(groups != group) - 1 / 14 for group in range(5)])
    spectrum = np.linalg.eigvalsh(moved @ moved.T)
    freedom = spectrum.sum() ** 2 / np.sum(spectrum**2)
    assert 1 < freedom < 4
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    found = by_jackknife(values.tolist(), [str(group) for group in groups])
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach))


@pytest.mark.parametrize("shared", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "sizes", [[10] * 30, [40] * 3 + [2] * 27, [100] + [2] * 29, [30] + [2] * 11, [20] + [1] * 7], ids=lambda sizes: f"{sizes[0]}"
)
def test_error_between_groups_holds_the_mean_however_uneven_groups_are(sizes: list[int], shared: float) -> None:
    """500 draws; `shared` of the variance is the groups' own. By chance fewer than 458 where 475 are promised: below 0.1 %."""
    rng = np.random.default_rng(12)
    groups = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    inside = 0
    for _ in range(500):
        common = np.repeat(rng.standard_normal(len(sizes)), sizes)
        values = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal(len(groups))
        low, high = by_jackknife(values.tolist(), groups)
        inside += low <= 0 <= high
    assert inside >= 458


def right_in_groups(rng: np.random.Generator, share: float, num_groups: int, size: int, alike: float) -> list[float]:
    """Answers right or wrong, group by group; two of a group are right together as if `alike` of their variance were the group's."""
    if alike == 1:
        return np.repeat(rng.random(num_groups) < share, size).astype(float).tolist()
    shares = rng.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), (num_groups, 1))
    return (rng.random((num_groups, size)) < shares).astype(float).ravel().tolist()


@pytest.mark.parametrize(
    ("share", "num_groups", "size", "alike"), [(0.95, 100, 2, 1.0), (0.9, 50, 2, 1.0), (0.98, 100, 4, 0.3), (0.02, 60, 3, 0.3)]
)
def test_interval_of_a_share_in_groups_holds_shares_near_the_ends(share: float, num_groups: int, size: int, alike: float) -> None:
    """1,000 draws; the cluster-robust interval holds 84 to 89 of 100 of them. Fewer than 900, where it is 93 of 100: below 0.1 %."""
    rng = np.random.default_rng(5)
    groups = [str(at // size) for at in range(num_groups * size)]
    inside = before = 0

    @functools.cache
    def interval(right: tuple[int, ...]) -> tuple[float, float]:
        """`right`: answers of each group."""
        return score_interval("exact", [float(at < number) for number in right for at in range(size)], groups=groups)

    for _ in range(1_000):
        values = right_in_groups(rng, share, num_groups, size, alike)
        low, high = interval(tuple(sorted(np.reshape(values, (-1, size)).sum(axis=1).astype(int).tolist())))
        inside += low <= share <= high
        wald = by_jackknife(values, groups)
        before += wald[0] <= share <= wald[1]
    assert before < 900 <= inside


@pytest.mark.parametrize(("num_groups", "share"), [(12, 0.99), (12, 0.8), (20, 0.95), (50, 0.99), (100, 0.95), (200, 0.98)])
def test_interval_of_a_share_in_groups_that_are_right_as_a_whole_holds_it(num_groups: int, share: float) -> None:
    """Reckoned over all numbers of groups that may be right, and not drawn: beyond each end in at most 2.1 %."""
    groups, chances = [str(at // 2) for at in range(2 * num_groups)], stats.binom.pmf(range(num_groups + 1), num_groups, share)
    found = [score_interval("exact", [1.0] * 2 * num + [0.0] * 2 * (num_groups - num), groups=groups) for num in range(num_groups + 1)]
    assert sum(chance for chance, (low, _) in zip(chances, found, strict=True) if share < low) < 0.021
    assert sum(chance for chance, (_, high) in zip(chances, found, strict=True) if share > high) < 0.021


@pytest.mark.parametrize(
    ("num_large", "size", "num_small", "most"),
    [(10, 5, 100, 0.025), (4, 20, 100, 0.01), (20, 10, 80, 0.06)],
    ids=["tens", "four", "half"],
)
def test_interval_of_a_share_in_uneven_groups_holds_it(num_large: int, size: int, num_small: int, most: float) -> None:
    """As above, large groups and groups of 1, of which 95 % are right. By Wilson's for as many values as the jackknife says it lay
    beyond one end in 10 %, and in up to 38 % where large groups hold most values.
    """
    groups = [str(at // size) if at < num_large * size else str(at) for at in range(num_large * size + num_small)]
    large, small = (stats.binom.pmf(range(count + 1), count, 0.95) for count in (num_large, num_small))
    beyond = np.zeros(2)
    for some, others in np.argwhere(np.outer(large, small) > 1e-5):
        right = [1.0] * size * some + [0.0] * size * (num_large - some) + [1.0] * others + [0.0] * (num_small - others)
        low, high = score_interval("exact", right, groups=groups)
        beyond += large[some] * small[others] * np.array([low > 0.95, high < 0.95])
    assert beyond.max() < most


def test_groups_that_are_half_right_say_about_what_as_many_answers_do() -> None:
    groups = [str(at // 2) for at in range(60)]
    assert score_interval("exact", [1.0, 0.0] * 30, groups=groups) == pytest.approx(wilson_interval(30, 60), abs=0.01)


def test_interval_of_a_share_in_groups_is_about_wilsons_of_so_many_answers() -> None:
    """Groups of five copies say what one of each does; groups of answers with nothing in common say what all do."""
    values = [1.0] * 70 + [0.0] * 30
    copied = score_interval("exact", [value for value in values for _ in range(5)], groups=[str(at // 5) for at in range(500)])
    assert copied == pytest.approx(wilson_interval(70, 100), abs=0.01)
    even = score_interval("exact", [1.0, 0.0] * 500 + [1.0, 1.0], groups=[str(at // 2) for at in range(1_002)])
    assert even == pytest.approx(wilson_interval(502, 1_002), abs=0.001)
    assert score_interval("exact", [1.0, 0.0], groups=["a", "a"]) == mean_interval([0.5], 0.0, 1.0)


def test_groups_that_are_all_right_say_about_what_as_many_answers_do() -> None:
    low, high = score_interval("exact", [1.0] * 90, groups=[str(at % 30) for at in range(90)])
    assert (low, high) == pytest.approx((0.025 ** (1 / 30), 1.0), abs=0.02)  # Clopper and Pearson's


def graded_in_groups(rng: np.random.Generator, kind: str, sizes: Sequence[int], alike: float) -> tuple[list[float], float]:
    """Scores, and the truth; that share of pairs within groups have the group's score."""
    group_N = np.repeat(np.arange(len(sizes)), sizes)
    common_N, own_N = rng.random(len(sizes))[group_N], rng.random(len(group_N))
    share_N = np.where(rng.random(len(group_N)) < np.sqrt(alike), common_N, own_N)
    if kind == "full":  # 90 % have all marks, the others any
        return np.minimum(1.0, share_N / 0.1).tolist(), 0.95
    if kind == "empty":
        return np.maximum(0.0, (share_N - 0.8) / 0.2).tolist(), 0.1
    return np.round(stats.beta.ppf(share_N, 1.8, 0.2), 3).tolist(), 0.9  # "high"


@pytest.mark.parametrize(
    ("kind", "sizes", "alike"),
    [
        ("full", [5] * 10, 0.3),
        ("empty", [5] * 10, 1.0),
        ("high", [1] * 10, 0.0),
        ("full", [10] * 10 + [1] * 40, 1.0),
        ("high", [5] * 5, 1.0),
    ],
)
def test_interval_of_grades_in_groups_holds_them_on_both_sides(kind: str, sizes: list[int], alike: float) -> None:
    """200 draws; the truth lies beyond either end in at most 4 % of them in the long run; by chance more than 9 %: below 0.1 %. By the
    jackknife it is 10 to 37 %.
    """
    rng = np.random.default_rng(8)
    groups = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    beyond, before = np.zeros(2), np.zeros(2)
    for _ in range(200):
        values, truth = graded_in_groups(rng, kind, sizes, alike)
        low, high = clustered_score_interval(values, groups, 0.0, 1.0)
        assert 0 <= low <= np.mean(values) <= high <= 1 and high - low > 0.01
        beyond += truth < low - 1e-9, truth > high + 1e-9
        low, high = by_jackknife(values, groups)
        before += truth < low - 1e-9, truth > high + 1e-9
    assert beyond.max() <= 18 < before.max()


@pytest.mark.parametrize("n", [5, 50])
def test_weights_with_so_much_added_miss_no_share_too_often_to_either_side(n: int) -> None:
    """Reckoned: with half of a value they miss some in 7 % of cases, with a whole one (Clopper and Pearson's) in 2.5."""
    shares, right = np.linspace(0.005, 0.995, 199), np.arange(1, n + 1)
    worst = {}
    for added in (0.5, ADDED):
        lows = stats.beta.ppf(0.025, right, n - right + added)
        worst[added] = (stats.binom.pmf(right[:, None], n, shares) * (shares < lows[:, None])).sum(axis=0).max()
    assert worst[ADDED] < 0.05
    assert worst[0.5] > 0.06


def test_interval_of_grades_in_groups_is_a_betas_where_they_are_0_or_1() -> None:
    """Weights of so many groups right and wrong are Beta's; so many more as widen it to the jackknife's variance are nearly none."""
    values, groups = [1.0] * 900 + [0.0] * 100, [str(at) for at in range(1_000)]
    low, high = clustered_score_interval(values, groups, 0.0, 1.0)
    assert (low, high) == pytest.approx((stats.beta.ppf(0.025, 900, 100 + ADDED), stats.beta.ppf(0.975, 900 + ADDED, 100)), abs=2e-5)
    assert (low, high) == pytest.approx(wilson_interval(900, 1_000), abs=2e-3)
    low, high = clustered_score_interval([1 + 9 * value for value in values], groups, 1.0, 10.0)
    assert ((low - 1) / 9, (high - 1) / 9) == pytest.approx(clustered_score_interval(values, groups, 0.0, 1.0))


@pytest.mark.parametrize("grade", [0.0, 0.3, 0.1 + 0.2, 1.0])
def test_grades_that_are_all_the_same_leave_open_what_a_value_at_an_end_would_do(grade: float) -> None:
    groups = [str(at // 3) for at in range(60)]
    share = stats.beta.ppf(0.975, ADDED, 20)
    expected = grade * (1 - share), grade + (1 - grade) * share
    assert clustered_score_interval([grade] * 60, groups, 0.0, 1.0) == pytest.approx(expected, abs=1e-8)
    nearly = [min(1.0, grade + 1e-12)] + [grade] * 59
    assert clustered_score_interval(nearly, groups, 0.0, 1.0) == pytest.approx(expected, abs=1e-8)
    assert clustered_score_interval([grade] * 3, ["a"] * 3, 0.0, 1.0) == mean_interval([grade], 0.0, 1.0)


def test_copies_of_grades_say_no_more_than_one_of_them() -> None:
    values = (np.arange(1, 41) / 41).tolist()
    alone = clustered_score_interval(values, [str(at) for at in range(40)], 0.0, 1.0)
    copied = clustered_score_interval(
        [value for value in values for _ in range(5)], [str(at) for at in range(40) for _ in range(5)], 0.0, 1.0
    )
    assert copied == pytest.approx(alone)


def test_groups_of_grades_that_happen_to_be_alike_say_no_more_than_as_many_values() -> None:
    values = [0.2, 0.9] * 30
    found = clustered_score_interval(values, [str(at // 2) for at in range(60)], 0.0, 1.0)
    assert found == pytest.approx(clustered_score_interval(values, [str(at) for at in range(60)], 0.0, 1.0))


def test_interval_of_grades_in_very_many_groups_is_that_of_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(9).beta(2, 1, 1_500).tolist(), [str(at // 2 if at < 900 else at) for at in range(1_500)]
    found = clustered_score_interval(values, groups, 0.0, 1.0)
    monkeypatch.setattr("nomoat.judge.stats.MOST_GROUPS", 10_000)
    assert found == pytest.approx(clustered_score_interval(values, groups, 0.0, 1.0), abs=1e-5)


def test_interval_of_grades_in_very_many_groups_of_many_sizes_is_as_wide_as_that_of_each_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Documents with a long tail of lengths, whose grades are alike."""
    rng = np.random.default_rng(9)
    sizes = np.ceil(rng.lognormal(2, 1, 1_500)).astype(int)
    values, groups = np.repeat(rng.beta(2, 1, 1_500), sizes).tolist(), np.repeat(np.arange(1_500).astype(str), sizes).tolist()
    monkeypatch.setattr("nomoat.judge.stats.MOST_GROUPS", 200)
    low, high = clustered_score_interval(values, groups, 0.0, 1.0)
    monkeypatch.setattr("nomoat.judge.stats.MOST_GROUPS", 10_000)
    each_low, each_high = clustered_score_interval(values, groups, 0.0, 1.0)
    assert high - low == pytest.approx(each_high - each_low, rel=0.02)


def test_interval_of_totals_is_that_of_means_where_groups_are_of_one_size() -> None:
    """And wider where what is rare may be a large group."""
    values, groups = [1.0, 1.0, 0.0, 0.0, -1.0, 0.0], ["a", "a", "b", "b", "c", "c"]
    assert group_totals_interval(values, groups, -1, 1) == pytest.approx(mean_interval([1.0, 0.0, -0.5], -1, 1))
    none, sizes = [0.0] * 500, [str(at // 5) for at in range(500)]
    uneven = [str(min(at, 99)) for at in range(500)]
    assert group_totals_interval(none, sizes, -1, 1)[1] == pytest.approx(1 - 0.025 ** (1 / 100))
    assert group_totals_interval(none, uneven, -1, 1)[1] == 1.0


@pytest.mark.parametrize(
    ("sizes", "apart", "between"),
    [([2] * 250, [0.021] * 250, 0.005), ([1] * 300 + [10] * 30, [0.0] * 300 + [0.042] * 30, 0.275)],
    ids=["even", "uneven"],
)
def test_groups_that_are_further_apart_are_seldom_called_equal(sizes: list[int], apart: list[float], between: float) -> None:
    """1,500 duels, truly 2.1 points apart, where 2 count: at most 2.5 % look equivalent in the long run; more than 4 %: below 0.1 %.
    `between`: the share, give or take 4 standard errors, by the interval of the difference alone, which knows nothing of large groups
    that are not there.
    """
    rng = np.random.default_rng(6)
    groups = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    looked: dict[tuple[int, int], tuple[bool, bool]] = {}
    claimed = alone = 0
    for _ in range(1_500):
        won = rng.random(len(sizes)) < apart
        kind = int(won[: sizes.count(1)].sum()), int(won[sizes.count(1) :].sum())
        if kind not in looked:
            values = np.repeat(won, sizes).astype(float).tolist()
            found = _fixed("exact", values, [0.0] * len(values), 0.05, groups)
            is_near = is_equivalent((found.low, found.high), 0.02)
            still_open = _open_in_groups("exact", values, groups, Rules(rope=2))
            looked[kind] = is_near and still_open is None, is_near
        claimed += looked[kind][0]
        alone += looked[kind][1]
    assert claimed <= 60
    assert alone / 1_500 == pytest.approx(between, abs=4 * np.sqrt(between * (1 - between) / 1_500))


def test_tango_interval_equals_the_published_one() -> None:
    """Airway hyper-responsiveness before and after: Fagerland, Lydersen and Laake 2014, doi:10.1002/sim.6148."""
    assert _tango_interval(1 / 21, 7 / 21, 21, stats.norm.ppf(0.975)) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("won", "lost"), [(0.3, 0.1), (0.02, 0.0), (0.0, 1.0 - 1e-6), (0.2, 0.2), (0.004, 0.9)])
def test_tango_interval_ends_where_the_likeliest_shares_so_far_apart_allow_just_that_distance(won: float, lost: float) -> None:
    ends = _tango_interval(won, lost, 40, 2.1)
    assert ends[0] < won - lost < ends[1]
    for end in ends:

        def surprise(less: float, end: float = end) -> float:
            shares, seen = np.array([less + end, less, 1 - 2 * less - end]), np.array([won, lost, 1 - won - lost])
            return -float(np.sum(seen[seen > 0] * np.log(np.maximum(shares[seen > 0], 1e-300))))

        within = max(0.0, -end), (1 - end) / 2
        likeliest = float(optimize.minimize_scalar(surprise, bounds=within, method="bounded", options={"xatol": 1e-12}).x)
        assert abs(won - lost - end) == pytest.approx(2.1 * np.sqrt((2 * likeliest + end - end**2) / 40), abs=1e-5)


def differing_in_groups(rng: np.random.Generator, shares: Sequence[float], num_groups: int, size: int, graded: bool) -> list[float]:
    """Differences of examples, won and lost with these chances, that are the group's for three of ten; where graded, by parts of 1."""
    drawn = np.where(rng.random((num_groups, size)) < np.sqrt(0.3), rng.random((num_groups, 1)), rng.random((num_groups, size)))
    signs = np.where(drawn < shares[0], 1.0, np.where(drawn < sum(shares), -1.0, 0.0))
    return (signs * (rng.beta(2, 2, signs.shape) if graded else 1.0)).ravel().tolist()


@pytest.mark.parametrize(
    ("shares", "num_groups", "size", "graded"),
    [((0.02, 0.0), 100, 5, False), ((0.02, 0.0), 100, 5, True), ((0.0, 0.02), 50, 5, False), ((0.05, 0.01), 50, 2, True)],
)
def test_interval_of_a_difference_in_groups_holds_it_on_both_sides(
    shares: tuple[float, float], num_groups: int, size: int, graded: bool
) -> None:
    """1,000 draws; the difference lies beyond either end in at most 5.2 % of them in the long run; by chance more than 7.5 %: below
    0.1 %. By the jackknife it is 9.5 to 25 %, on the side where few groups differ.
    """
    rng = np.random.default_rng(7)
    groups = [str(at // size) for at in range(num_groups * size)]
    truth = (shares[0] - shares[1]) * (0.5 if graded else 1.0)
    beyond, before = np.zeros(2), np.zeros(2)
    for _ in range(1_000):
        values = differing_in_groups(rng, shares, num_groups, size, graded)
        low, high = clustered_difference_interval(values, groups, 1.0)
        beyond += truth < low, truth > high
        low, high = by_jackknife(values, groups)
        before += truth < low, truth > high
    assert beyond.max() <= 75 and before.max() > 90


def test_interval_of_a_difference_in_groups_most_of_which_are_small_holds_it() -> None:
    """1,000 draws: 40 groups of 10, 160 of 1, of which 2 % differ as a whole. The jackknife's variance alone, where by chance only
    small ones differ, has it beyond one end in 40 %.
    """
    rng = np.random.default_rng(8)
    sizes = [10] * 40 + [1] * 160
    groups = [str(at) for at, size in enumerate(sizes) for _ in range(size)]
    found = [
        clustered_difference_interval(np.repeat((rng.random(200) < 0.02) * 1.0, sizes).tolist(), groups, 1.0) for _ in range(1_000)
    ]
    assert sum(low > 0.02 for low, _ in found) <= 50
    assert sum(high < 0.02 for _, high in found) <= 50


def test_interval_of_a_difference_in_groups_of_one_is_close_to_that_of_pairs() -> None:
    """Tango's of both; copies say no more than one of them, and a scale ten times as long is one."""
    values = [1.0] * 24 + [-1.0] * 10 + [0.0] * 166
    alone = clustered_difference_interval(values, [str(at) for at in range(200)], 1.0)
    assert alone == pytest.approx(paired_proportions_interval(24, 10, 200), abs=0.005)
    groups = [str(at) for at in range(200) for _ in range(5)]
    copied = clustered_difference_interval([value for value in values for _ in range(5)], groups, 1.0)
    assert copied == pytest.approx(alone)
    low, high = clustered_difference_interval([-10 * value for value in values], [str(at) for at in range(200)], 10.0)
    assert (-high / 10, -low / 10) == pytest.approx(alone)


def test_groups_with_as_many_wins_as_losses_say_no_more_than_as_many_pairs() -> None:
    groups = [str(at // 2) for at in range(60)]
    found = clustered_difference_interval([1.0, -1.0] * 30, groups, 1.0)
    assert found == pytest.approx(_tango_interval(0.5, 0.5, 59, stats.t.ppf(0.975, 29)))


def test_differences_that_are_all_the_same_are_one_value_a_group() -> None:
    assert clustered_difference_interval([0.0] * 90, [str(at % 30) for at in range(90)], 1.0) == mean_interval([0.0] * 30, -1.0, 1.0)
    assert clustered_difference_interval([1.0, 0.0], ["a", "a"], 1.0) == mean_interval([0.5], -1.0, 1.0)


def test_interval_of_differences_that_are_nearly_all_lost_is_found() -> None:
    """Of the likeliest shares lost, nearly 1, rounding once left less than the distance to the end."""
    values = [-1.0] * 2 + [-1 + 2e-9] * 5
    low, high = clustered_difference_interval(values, list("abcdeab"), 1.0)
    assert -1 <= low <= np.mean(values) <= high < -0.99


def test_groups_of_one_size_count_as_many_as_they_are() -> None:
    assert effective_groups(["a", "b", "c", "a", "b", "c"]) == pytest.approx(3)
    assert effective_groups(["a"] * 9 + ["b"]) == pytest.approx(100 / 82)


def test_error_between_groups_is_larger_where_answers_of_a_group_agree() -> None:
    """Each group holds the same value five times: five times the items, and not an item's worth of news more."""
    values = [float(at % 3 == 0) for at in range(40)]
    alone = by_jackknife(values, [str(at) for at in range(40)])
    repeated = by_jackknife([value for value in values for _ in range(5)], [str(at) for at in range(40) for _ in range(5)])
    assert repeated == pytest.approx(alone)


def test_holm_equals_statsmodels() -> None:
    """statsmodels 0.14, multipletests(method="holm")."""
    ten = [0.01, 0.013, 0.014, 0.19, 0.35, 0.5, 0.63, 0.67, 0.75, 0.81]
    assert holm(ten) == pytest.approx([0.1, 0.117, 0.117, *[1.0] * 7])
    assert holm([0.0001, 0.04, 0.03, 0.005]) == pytest.approx([0.0004, 0.06, 0.06, 0.015])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_equivalence_needs_the_whole_interval_inside() -> None:
    assert is_equivalent((-0.019, 0.02), 0.02)
    assert not is_equivalent((-0.021, 0.0), 0.02)


@pytest.mark.parametrize(
    ("n", "won", "lost", "rope"),
    [(2_000, 0.04, 0.02, 0.02), (100, 0.0204, 0.0, 0.02), (200, 0.0204, 0.0, 0.02), (50, 0.0, 0.051, 0.05), (200, 0.25, 0.05, 0.2)],
)
def test_equivalence_is_claimed_of_models_just_outside_no_oftener_than_promised(n: int, won: float, lost: float, rope: float) -> None:
    """1,000 duels whose true difference is that of the rope, or a little more: at most 2.7 % look equivalent in the long run; more
    than 4.5 % by chance: probability below 0.1 %. By Newcombe's method 10 it may be 11 % of 100 items, 8 % of 200, where half of the
    others are right on both sides.
    """
    tables = np.random.default_rng(4).multinomial(n, [won, lost, 1 - won - lost], size=1_000).tolist()
    interval = functools.cache(paired_proportions_interval)
    assert sum(is_equivalent(interval(*counts, n), rope) for *counts, _ in tables) <= 45


def test_kappa_equals_the_published_value() -> None:
    """Fleiss, Cohen and Everitt 1969, doi:10.1037/h0028106: 200 people in three categories, kappa 0.429."""
    table = ((106, 10, 4), (22, 28, 10), (2, 12, 6))
    pairs = [(row, column) for row in range(3) for column in range(3) for _ in range(table[row][column])]
    assert cohens_kappa([one for one, _ in pairs], [other for _, other in pairs]) == pytest.approx(0.429, abs=5e-4)


def test_kappa_of_a_rater_who_always_says_the_same_is_chance() -> None:
    assert cohens_kappa([1, 1, 1], [1, 0, 1]) == cohens_kappa([1, 1], [1, 1]) == 0.0
    assert cohens_kappa([1, 0, 1], [1, 0, 1]) == 1.0
    with pytest.raises(ValueError, match="no ratings"):
        cohens_kappa([], [])


def test_kappa_of_raters_who_guess_is_rarely_called_beyond_chance() -> None:
    """Promised: 2.5 % of the intervals lie above 0; with 300 tries more than 6 % have a chance below 0.1 %."""
    rng = np.random.default_rng(0)
    above = 0
    for _ in range(300):
        one, other = rng.integers(0, 3, size=(2, 80)).tolist()
        above += cohens_kappa_interval(one, other, [f"question {at // 2}" for at in range(80)])[0] > 0
    assert 0 < above <= 18


def test_kappa_interval_is_wider_where_items_are_copies_of_each_other() -> None:
    one, other = [1, 0, 1, 0, 1, 0, 1, 1, 0, 0] * 4, [1, 0, 1, 1, 1, 0, 0, 1, 0, 0] * 4
    single = cohens_kappa_interval(one, other, [str(at) for at in range(40)])
    copied = cohens_kappa_interval(one, other, [str(at % 10) for at in range(40)])
    assert copied[1] - copied[0] > 1.5 * (single[1] - single[0])


def test_kappa_of_full_agreement_has_an_interval_that_narrows_with_the_items() -> None:
    lows = []
    for num in (8, 40, 200):
        ratings = [1.0, 0.0] * (num // 2)
        low, high = cohens_kappa_interval(ratings, ratings, [str(at) for at in range(num)])
        assert high == 1.0
        lows.append(low)
    assert 0.2 < lows[0] < lows[1] < lows[2] < 1
    assert lows[0] < 0.6 and lows[2] > 0.9


def test_kappa_is_known_to_be_above_chance_where_few_labels_are_rare_and_all_agree() -> None:
    """38 and 2 of 40, all alike: Fisher's exact p is 1 in 780. Of one label alone nothing is known."""
    groups, ratings = [str(at) for at in range(40)], [1.0] * 38 + [0.0] * 2
    assert cohens_kappa_interval(ratings, ratings, groups)[0] > 0
    low, high = cohens_kappa_interval([1.0] * 40, [1.0] * 40, groups)
    assert low <= 0 and high > 0.9


@pytest.mark.parametrize(("num", "kappa"), [(8, 0.8), (20, 0.9), (40, 0.4)])
def test_kappa_interval_holds_the_truth_about_as_often_as_it_says(num: int, kappa: float) -> None:
    """Labels of equal chances. 100 intervals at 95 %: fewer than 86 have a chance of about 0.1 %, for another seed."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(100):
        one = rng.integers(0, 2, num)
        other = np.where(rng.random(num) < (1 + kappa) / 2, one, 1 - one)
        low, high = cohens_kappa_interval(one.tolist(), other.tolist(), [str(at) for at in range(num)])
        inside += low <= kappa <= high
    assert inside >= 86


def test_agreement_by_chance_is_as_rare_as_the_ways_to_deal_it() -> None:
    """8 labels of two kinds, 4 each, can be dealt in 70 ways; 40 with 2 of a kind in 780; 8 with one in 8."""
    for ratings, ways in (([0.0] * 4 + [1.0] * 4, 70), ([0.0] * 38 + [1.0] * 2, 780), ([0.0] * 7 + [1.0], 8)):
        assert agreement_by_chance(ratings, ratings) == pytest.approx(1 / ways, abs=0.02)
    assert agreement_by_chance([0.0, 1.0], [1.0, 0.0]) == 1.0
