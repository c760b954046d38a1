"""What a router is worth at every share of prompts that it may send to the cloud: PGR, APGR and CPT, as RouteLLM defines them.

Prompts are sent in the order of their chances, the least likely to be answered as well here first. With r(c) the mean score where the
share c (0 to 1) of the prompts is sent:

    PGR(c) = (r(c) - r(0)) / (r(1) - r(0))    how much of the gap between the models is recovered
    APGR   = the mean of PGR(c) over all c from 0 to 1
    CPT50, CPT80 = the smallest c with PGR(c) >= 0.5, 0.8

Prompts sent at random have PGR(c) = c: APGR 0.5, CPT50 0.5, CPT80 0.8. Prompts of equal chance are sent in no order: between the ends
of a tie r(c) is a straight line, so that a router which always says the same is the random one.

Source: Ong et al. 2024, arXiv:2406.18665. There APGR is a mean over ten shares; here it is over all of them, without rounding.

Intervals are percentiles over draws of how much each prompt counts, equally for those of a group: the Bayesian bootstrap. Among the
prompts drawn, and only there, is what the sample may happen to lack: half a prompt that the local model wins by all there is, and half
one that the cloud does, with the lowest chance and with the highest. So an interval has a width where all prompts say the same.
What they do not cover: the chances are taken as given, so neither what learning from other prompts would have changed, nor prompts of
another kind.

Source: Rubin 1981, doi:10.1214/aos/1176345338; the halves are Jeffreys' prior (Brown, Cai and DasGupta 2001,
doi:10.1214/ss/1009213286).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NUM_DRAWS = 1_000
WEIGHTS_AT_ONCE = 2_000_000  # bounds the memory: draws x prompts
TAILS = (0.025, 0.975)
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)  # of prompts sent away, for which thresholds are looked for
THRESHOLDS = np.arange(101) / 100  # as many digits as a decision shows
CURVE_SHARES = np.arange(11) / 10
ROUNDING = 1e-9  # of a gap: 4/6 of 5/6 is 0.7999999999999999 of it

UNSEEN = np.array([True, True, False, False])  # whether the local model is as good at what is added, with the lowest, highest chance
UNSEEN_WEIGHT = 0.25  # of each: half a prompt of both kinds

# B draws, N prompts, A those and the added, K ends of ties (0 at first), T thresholds, F figures.


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdRow:
    """What a threshold does: the share `share_cloud` (0 to 1) of the prompts has a chance below it and is sent to the cloud.

    `score` is the mean over all prompts, `random_score` that of as many prompts sent at random. `pgr`, which is `share_cloud` at
    random, is None where there is no gap.
    """

    threshold: float
    share_cloud: float
    score: Estimate
    random_score: float
    pgr: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The frontier at one share sent to the cloud; `pgr` is None where there is no gap."""

    share_cloud: float
    score: float
    pgr: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """See the module. `gap` is the cloud's mean score minus the local one; while its interval reaches down to 0, nothing can be said
    of a share of it, and `apgr`, `cpt50`, `cpt80` and every `pgr` are None."""

    gap: Estimate
    apgr: Estimate | None
    cpt50: Estimate | None
    cpt80: Estimate | None
    settings: tuple[ThresholdRow, ...]
    curve: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Frontiers over the same prompts, one for each draw of them: shares sent, and the mean score gained by sending them."""

    share_BK: FloatArray
    gained_BK: FloatArray

    def gaps(self) -> FloatArray:
        """[B]: the cloud's mean score minus the local one."""
        return self.gained_BK[:, -1]

    def pgrs(self) -> FloatArray:
        """[B, K]; NaN in draws where the cloud is no better."""
        gap_B1 = self.gaps()[:, None]
        return np.asarray(self.gained_BK / np.where(gap_B1 > 0, gap_B1, np.nan))

    def apgrs(self) -> FloatArray:
        """[B]."""
        pgr_BK = self.pgrs()
        return np.asarray(np.sum(np.diff(self.share_BK, axis=1) * (pgr_BK[:, 1:] + pgr_BK[:, :-1]) / 2, axis=1))

    def cpts(self, wanted: float) -> FloatArray:
        """[B]: the smallest share that recovers `wanted` of the gap, a number between 0 and 1, neither included."""
        pgr_BK = self.pgrs()
        reached_BK = pgr_BK >= wanted - ROUNDING
        end_B1 = np.argmax(reached_BK, axis=1)[:, None]  # the curve may fall again: the first time counts
        end_B1 = np.maximum(end_B1, 1)  # of NaN, any
        start_pgr_B, end_pgr_B = (np.take_along_axis(pgr_BK, at_B1, axis=1)[:, 0] for at_B1 in (end_B1 - 1, end_B1))
        start_B, end_B = (np.take_along_axis(self.share_BK, at_B1, axis=1)[:, 0] for at_B1 in (end_B1 - 1, end_B1))
        way_B = np.minimum(wanted, end_pgr_B) - start_pgr_B
        return np.asarray(start_B + (end_B - start_B) * way_B / (end_pgr_B - start_pgr_B))


def measure(chances_N: FloatArray, local_N: FloatArray, cloud_N: FloatArray, groups_N: npt.NDArray[np.intp]) -> Frontier:
    """The frontier of prompts whose chances were given by a router that had not seen them, with both models' scores.

    `groups_N` numbers the prompts from 0; those that belong together have equal numbers. Equal prompts give equal intervals.
    """
    thresholds_T = thresholds_for(chances_N)
    columns_T = np.searchsorted(np.unique(chances_N), thresholds_T, side="left")
    chances_A, scores = _with_unseen(chances_N), np.concatenate([local_N, cloud_N])
    local_A = np.append(local_N, np.where(UNSEEN, scores.max(), scores.min()))
    gains_A = np.append(cloud_N, np.where(UNSEEN, scores.min(), scores.max())) - local_A

    def figures_of(weights_BA: FloatArray) -> FloatArray:
        """[B, F]: gap, APGR, CPT50, CPT80, then for each threshold the score, then for each the PGR."""
        drawn = curves(chances_A, gains_A, weights_BA)
        local_B = weights_BA @ local_A / weights_BA.sum(axis=1)
        score_BT = local_B[:, None] + drawn.gained_BK[:, columns_T]
        return np.column_stack([drawn.gaps(), drawn.apgrs(), drawn.cpts(0.5), drawn.cpts(0.8), score_BT, drawn.pgrs()[:, columns_T]])

    once_1A = _once(groups_N)
    observed, observed_F = curves(chances_A, gains_A, once_1A), figures_of(once_1A)[0]
    drawn_BF = np.concatenate([figures_of(weights_BA) for weights_BA in _resamples_with_unseen(groups_N)])
    gap = _estimate(observed_F[0], drawn_BF[:, 0])

    def of_gap(figure: int) -> Estimate | None:
        return _estimate(observed_F[figure], drawn_BF[:, figure]) if gap.low > 0 else None

    first_score, first_pgr = 4, 4 + len(thresholds_T)
    local, shares_T = float(local_N.mean()), observed.share_BK[0, columns_T]
    settings = [
        ThresholdRow(
            threshold=float(threshold),
            share_cloud=float(shares_T[at]),
            score=_estimate(observed_F[first_score + at], drawn_BF[:, first_score + at]),
            random_score=local + float(shares_T[at]) * gap.value,
            pgr=of_gap(first_pgr + at),
        )
        for at, threshold in enumerate(thresholds_T)
    ]
    return Frontier(
        gap=gap,
        apgr=of_gap(1),
        cpt50=of_gap(2),
        cpt80=of_gap(3),
        settings=tuple(settings),
        curve=_curve(observed, local, has_gap=gap.low > 0),
    )


def curves(chances_N: FloatArray, gains_N: FloatArray, weights_BN: FloatArray) -> Curves:
    """The frontier of each draw, in which prompt n counts `weights_BN[:, n]` times. `gains_N`: cloud scores minus local ones."""
    order = np.argsort(chances_N, kind="stable")
    ends_K = np.flatnonzero(np.diff(chances_N[order], append=np.inf))  # the last prompt of each tie
    weights_BN = weights_BN[:, order]
    num_B1 = weights_BN.sum(axis=1, keepdims=True)
    share_BK = np.cumsum(weights_BN, axis=1)[:, ends_K] / num_B1
    gained_BK = np.cumsum(weights_BN * gains_N[order], axis=1)[:, ends_K] / num_B1
    start_B1 = np.zeros_like(num_B1)
    return Curves(share_BK=np.hstack([start_B1, share_BK]), gained_BK=np.hstack([start_B1, gained_BK]))


def auc(chances_N: FloatArray, good_N: npt.NDArray[np.bool_], groups_N: npt.NDArray[np.intp]) -> Estimate:
    """The chance that of two prompts, one `good` and one not, the good one has the higher chance; the draws are those of `measure`."""
    chances_A, good_A = _with_unseen(chances_N), np.append(good_N, UNSEEN)
    observed = aucs(chances_A, good_A, _once(groups_N))[0]
    drawn_B = np.concatenate([aucs(chances_A, good_A, weights_BA) for weights_BA in _resamples_with_unseen(groups_N)])
    return _estimate(observed, drawn_B)


def aucs(chances_N: FloatArray, good_N: npt.NDArray[np.bool_], weights_BN: FloatArray) -> FloatArray:
    """[B]: the area under the ROC curve of each draw, NaN where it has one side only; ties count half."""
    order = np.argsort(chances_N, kind="stable")
    starts_K = np.flatnonzero(np.diff(chances_N[order], prepend=-np.inf))
    good_BK = np.add.reduceat(weights_BN[:, order] * good_N[order], starts_K, axis=1)
    bad_BK = np.add.reduceat(weights_BN[:, order] * ~good_N[order], starts_K, axis=1)
    below_BK = np.cumsum(bad_BK, axis=1) - bad_BK / 2
    num_pairs_B = good_BK.sum(axis=1) * bad_BK.sum(axis=1)
    return np.asarray((good_BK * below_BK).sum(axis=1) / np.where(num_pairs_B > 0, num_pairs_B, np.nan))


def resamples(groups_N: npt.NDArray[np.intp], *, seed: int = 0) -> Iterator[FloatArray]:
    """How much each prompt counts, 1 on average and equally for those of a group, in each of `NUM_DRAWS` draws, some at a time."""
    rng = np.random.default_rng(seed)
    num_groups = int(groups_N.max()) + 1
    at_once = max(1, WEIGHTS_AT_ONCE // max(num_groups, len(groups_N)))
    for start in range(0, NUM_DRAWS, at_once):
        yield rng.standard_exponential((min(at_once, NUM_DRAWS - start), num_groups))[:, groups_N]


def _resamples_with_unseen(groups_N: npt.NDArray[np.intp]) -> Iterator[FloatArray]:
    """[B, A]: those of `resamples`, and how much what is added counts there; a prompt of it as much as a group does on average."""
    rng = np.random.default_rng(1)
    group_size = len(groups_N) / (int(groups_N.max()) + 1)
    for weights_BN in resamples(groups_N):
        yield np.hstack([weights_BN, group_size * rng.standard_gamma(UNSEEN_WEIGHT, size=(len(weights_BN), len(UNSEEN)))])


def _once(groups_N: npt.NDArray[np.intp]) -> FloatArray:
    """[1, A]: each prompt once, and nothing added."""
    return np.append(np.ones(len(groups_N)), np.zeros(len(UNSEEN)))[None]


def _with_unseen(chances_N: FloatArray) -> FloatArray:
    """[A]"""
    return np.append(chances_N, [chances_N.min(), chances_N.max()] * 2)


def thresholds_for(chances_N: FloatArray) -> FloatArray:
    """For each of `SHARES` the threshold that sends nearest to that share away, without repetition; of several, the middle one."""
    shares_T = np.searchsorted(np.sort(chances_N), THRESHOLDS, side="left") / len(chances_N)
    found = []
    for share in SHARES:
        far_T = np.abs(shares_T - share)
        nearest = np.flatnonzero(far_T == far_T.min())
        found.append(THRESHOLDS[nearest[len(nearest) // 2]])
    return np.unique(found)


def frontier_from(facts: Mapping[str, Any]) -> Frontier:
    """Read what `dataclasses.asdict` made of a Frontier. Raises KeyError or TypeError for anything else."""
    return Frontier(
        gap=Estimate(**facts["gap"]),
        apgr=_maybe(facts["apgr"]),
        cpt50=_maybe(facts["cpt50"]),
        cpt80=_maybe(facts["cpt80"]),
        settings=tuple(
            ThresholdRow(**{**one, "score": Estimate(**one["score"]), "pgr": _maybe(one["pgr"])}) for one in facts["settings"]
        ),
        curve=tuple(Point(**one) for one in facts["curve"]),
    )  # fmt: skip


def _maybe(facts: Mapping[str, Any] | None) -> Estimate | None:
    return None if facts is None else Estimate(**facts)


def _estimate(observed: float, drawn_B: FloatArray) -> Estimate:
    """Left out are draws without a gap, which have no PGR (less than a fortieth of them, else there is no estimate at all). What is
    added moves the draws, which may all lie on one side of a figure at the end of its scale: the interval reaches to it."""
    low, high = np.nanquantile(drawn_B, TAILS)
    return Estimate(value=float(observed), low=min(float(low), float(observed)), high=max(float(high), float(observed)))


def _curve(observed: Curves, local: float, *, has_gap: bool) -> tuple[Point, ...]:
    gained = np.interp(CURVE_SHARES, observed.share_BK[0], observed.gained_BK[0])
    gap = float(observed.gaps()[0])
    return tuple(
        Point(share_cloud=float(share), score=local + float(gain), pgr=float(gain) / gap if has_gap else None)
        for share, gain in zip(CURVE_SHARES, gained, strict=True)
    )
