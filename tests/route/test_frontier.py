"""PGR, APGR, CPT and thresholds: against numbers worked out by hand, and what is said where there is no gap."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import rankdata

from nomoat.route.frontier import Frontier, auc, curves, frontier_from, measure

FloatArray = npt.NDArray[np.float64]


def measured(chances: FloatArray, local: FloatArray, cloud: FloatArray, groups: npt.NDArray[np.intp] | None = None) -> Frontier:
    """All prompts differ unless `groups` says otherwise."""
    return measure(chances, local, cloud, np.arange(len(chances)) if groups is None else groups)


def values(frontier: Frontier) -> tuple[float, float, float]:
    assert frontier.apgr is not None
    assert frontier.cpt50 is not None
    assert frontier.cpt80 is not None
    return frontier.apgr.value, frontier.cpt50.value, frontier.cpt80.value


def test_router_that_sends_the_failures_first_recovers_all_of_the_gap_with_half_of_the_prompts() -> None:
    """PGR rises from 0 to 1 over the first half and stays there: a mean of 3/4."""
    frontier = measured(np.linspace(0.01, 0.99, 100), np.repeat([0.0, 1.0], 50), np.ones(100))
    assert frontier.gap.value == 0.5
    assert values(frontier) == pytest.approx((0.75, 0.25, 0.4))
    assert [(point.share_cloud, point.score, point.pgr) for point in frontier.curve[::5]] == [(0, 0.5, 0), (0.5, 1, 1), (1, 1, 1)]


def test_router_that_sends_the_failures_last_is_worse_than_chance() -> None:
    frontier = measured(np.linspace(0.01, 0.99, 100), np.repeat([1.0, 0.0], 50), np.ones(100))
    assert values(frontier) == pytest.approx((0.25, 0.75, 0.9))


def test_router_that_always_says_the_same_is_the_random_one() -> None:
    scores = np.random.default_rng(1).random((2, 60))
    frontier = measured(np.full(60, 0.7), scores.min(axis=0), scores.max(axis=0))
    assert values(frontier) == pytest.approx((0.5, 0.5, 0.8))
    assert frontier.apgr is not None
    assert (frontier.apgr.low, frontier.apgr.high) == pytest.approx((0.5, 0.5))


def test_apgr_of_ties_is_the_mean_over_all_orders_of_them() -> None:
    """Another way to the area: each prompt's gain counts for the shares after its place, which is its mean place within its tie."""
    draw = np.random.default_rng(2)
    chances, local = draw.integers(1, 8, 200) / 8, draw.integers(0, 2, 200).astype(float)
    cloud = np.maximum(local, draw.random(200) < 0.6)
    place = (rankdata(chances) - 0.5) / 200
    expected = np.sum((cloud - local) * (1 - place)) / np.sum(cloud - local)
    assert values(measured(chances, local, cloud))[0] == pytest.approx(expected)


def test_cpt_is_the_first_share_that_recovers_enough_where_the_curve_rises_above_the_cloud_and_falls() -> None:
    """40 of 100 only the cloud can answer, 20 only the local model: PGR is 2 after the first 40, and falls to 1 at the end."""
    local, cloud = np.repeat([0.0, 1.0, 1.0], [40, 40, 20]), np.repeat([1.0, 1.0, 0.0], [40, 40, 20])
    frontier = measured(np.linspace(0.01, 0.99, 100), local, cloud)
    assert values(frontier)[1:] == pytest.approx((0.1, 0.16))
    assert max(point.pgr or 0 for point in frontier.curve) == pytest.approx(2)


def test_cpt_is_where_the_mark_is_touched_though_its_fraction_rounds_below() -> None:
    """4/6 of a gap of 5/6 are four fifths of it, and 0.7999999999999999 to a computer. Behind it the curve is flat, then rises."""
    assert (4 / 6) / (5 / 6) < 0.8
    found = curves(np.arange(6.0), np.array([1.0, 1, 1, 1, 0, 1]), np.ones((1, 6))).cpts(0.8)
    assert found == pytest.approx([4 / 6])


def test_prompts_that_all_say_the_same_leave_an_interval() -> None:
    """8 of 8 for the cloud, or 20 and 20 told apart without a mistake: what was not seen is not ruled out."""
    gap = measured(np.linspace(0, 1, 8), np.zeros(8), np.ones(8)).gap
    assert gap.value == gap.high == 1.0 and 0.2 < gap.low < 0.9
    ranked = auc(np.linspace(0, 1, 40), np.arange(40) >= 20, np.arange(40))
    assert ranked.value == ranked.high == 1.0 and 0.75 < ranked.low < 0.97


@pytest.mark.parametrize("wins", [30, 31, 33], ids=["cloud worse", "equal", "not told apart"])
def test_without_a_gap_nothing_is_recovered_and_the_scores_still_stand(wins: int) -> None:
    """The local model alone answers 31 prompts, the cloud alone 30, 31 or 33."""
    local, cloud = np.zeros(100), np.zeros(100)
    local[:31], cloud[31 : 31 + wins] = 1, 1
    frontier = measured(np.linspace(0.01, 0.99, 100), local, cloud)
    assert frontier.gap.value == pytest.approx((wins - 31) / 100)
    assert frontier.gap.low <= 0 <= frontier.gap.high
    assert (frontier.apgr, frontier.cpt50, frontier.cpt80) == (None, None, None)
    assert {setting.pgr for setting in frontier.settings} == {point.pgr for point in frontier.curve} == {None}
    assert frontier.curve[-1].score == pytest.approx(wins / 100)
    json.dumps(asdict(frontier), allow_nan=False)


def test_thresholds_say_what_they_send_away_and_with_what_score() -> None:
    """100 chances from 0.005 to 0.995: the threshold 0.1 is above ten of them. The first half fails here."""
    frontier = measured((np.arange(100) + 0.5) / 100, np.repeat([0.0, 1.0], 50), np.ones(100))
    rows = [
        (row.threshold, row.share_cloud, row.score.value, row.random_score, row.pgr and row.pgr.value) for row in frontier.settings
    ]
    assert rows == [
        pytest.approx(row)
        for row in (
            (0.1, 0.1, 0.6, 0.55, 0.2),
            (0.2, 0.2, 0.7, 0.6, 0.4),
            (0.3, 0.3, 0.8, 0.65, 0.6),
            (0.5, 0.5, 1.0, 0.75, 1.0),
            (0.7, 0.7, 1.0, 0.85, 1.0),
        )
    ]


def test_threshold_between_two_kinds_of_prompts_is_named_once_and_lies_in_the_middle() -> None:
    """Half of the chances are 0.2, half 0.81: all that a threshold can send away is nothing, one half, or everything."""
    frontier = measured(np.repeat([0.2, 0.81], 50), np.repeat([0.0, 1.0], 50), np.ones(100))
    shares = [(row.threshold, row.share_cloud) for row in frontier.settings]
    assert shares == [(0.1, 0.0), (0.51, 0.5)]


def test_chance_at_the_threshold_stays_here() -> None:
    """As in `route.router.decide`: only what is below is sent away. Here every threshold is some prompt's chance."""
    chances = np.arange(1, 101) / 100
    frontier = measured(chances, np.repeat([0.0, 1.0], 50), np.ones(100))
    for row in frontier.settings:
        assert row.threshold in chances
        assert row.share_cloud == np.mean(chances < row.threshold)


def test_intervals_are_those_of_prompts_drawn_together_where_they_are_equal() -> None:
    """Each prompt four times over tells no more than once: without the groups the interval would be half as wide."""
    draw = np.random.default_rng(3)
    chances = draw.random(150)
    local = (draw.random(150) < chances).astype(float)
    once = measured(chances, local, np.ones(150))
    four = [np.repeat(one, 4) for one in (chances, local, np.ones(150))]
    grouped, apart = measured(*four, groups=np.repeat(np.arange(150), 4)), measured(*four)

    def width(frontier: Frontier) -> float:
        assert frontier.apgr is not None
        return frontier.apgr.high - frontier.apgr.low

    assert width(grouped) == pytest.approx(width(once))
    assert width(apart) == pytest.approx(width(once) / 2, rel=0.1)


def test_interval_of_apgr_covers_the_truth_as_often_as_it_says() -> None:
    """The local model fails with probability 1 - chance, chances are uniform: APGR is 2/3. Of 150 simulations at 95 %, fewer than 134
    or all have a chance of 0.5 % for another seed, and none for this one."""
    draw, covered = np.random.default_rng(4), 0
    for _ in range(150):
        chances = draw.random(80)
        found = measured(chances, (draw.random(80) < chances).astype(float), np.ones(80)).apgr
        assert found is not None
        covered += found.low <= 2 / 3 <= found.high
    assert 134 <= covered <= 149


@pytest.mark.parametrize("cloud", [1.0, 0.0])
def test_frontier_is_the_same_after_writing_and_reading(cloud: float) -> None:
    frontier = measured(np.linspace(0, 1, 50), np.repeat([0.0, 1.0], 25), np.full(50, cloud))
    assert frontier_from(json.loads(json.dumps(asdict(frontier)))) == frontier


def test_auc_counts_ties_half() -> None:
    assert auc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False]), np.arange(4)).value == 3.5 / 4


@pytest.mark.parametrize("copies", [1, 4])
def test_auc_interval_covers_the_truth_as_often_as_it_says(copies: int) -> None:
    """Normal scores one standard deviation apart have AUC 0.760; each is there `copies` times, which is no more evidence.

    200 simulations at 95 %: outside 90 to 99 % has a chance of 0.2 % for another seed, and none for this one. Copies that count as
    independent would make it 67 %.
    """
    draw = np.random.default_rng(5)
    good, groups = np.repeat([True, False], 60 * copies), np.repeat(np.arange(120), copies)
    covered = 0
    for _ in range(200):
        scores = np.concatenate([draw.normal(1, 1, 60), draw.normal(0, 1, 60)])
        found = auc(np.repeat(scores, copies), good, groups)
        covered += found.low <= 0.7602499389 <= found.high
    assert 180 <= covered <= 198
