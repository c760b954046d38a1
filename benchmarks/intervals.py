"""How often the interval of a mean score, or of a difference, holds the truth, to either side, and how wide it is.

    python benchmarks/intervals.py [--runs 300] [--json FILE]

Scores of many kinds, in groups of many kinds: the cluster-robust interval (the jackknife's standard error and Student's t),
`clustered_score_interval` (with less and more at the end of the scale, too), where no two values belong together `mean_interval`, and
where they are right or wrong Wilson's for as many values as the jackknife says. Differences: Tango's interval for as many pairs as the
jackknife says, and `clustered_difference_interval`. All runs of a setting are reckoned at once, with drawn weights in place of the
integral; a test holds that beside the functions themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from facts import circumstances, write
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from nomoat.judge import stats

# R runs, G groups, N values, B draws of weights, Q quantiles of a kind of scores.
Ends = tuple[NDArray[np.float64], NDArray[np.float64]]
TAIL = (1 - stats.CONFIDENCE) / 2
NUM_DRAWS = 1_000
ADDED = {"now": stats.ADDED, "half": 0.5, "whole": 1.0}  # of a value at the end
SHARES_Q = (np.arange(100_000) + 0.5) / 100_000
HELD = 0.04  # at most so often beyond either end: widths are compared there, 2.5 % are meant
MISSED = 0.05
FORMULAS = ("jackknife", *ADDED, "gaffke", "wilson")
RIGHT = "0 or 1"
DIFFERING = ((0.02, 0.0), (0.1, 0.0), (0.02, 0.02), (0.1, 0.02), (0.05, 0.05), (0.2, 0.2), (0.3, 0.1), (0.5, 0.3))  # won, lost
GRADED = ((0.98, 0.96, 1), (0.98, 0.96, 10), (0.9, 0.8, 2), (0.8, 0.8, 4), (0.6, 0.5, 10))  # means of both sides, and concentration
HALVINGS = 45
FEW_LARGE = "a fifth of 10, others of 1"


def beta(mean: float, concentration: float) -> NDArray[np.float64]:
    """Quantiles of Beta."""
    return np.asarray(scipy_stats.beta.ppf(SHARES_Q, mean * concentration, (1 - mean) * concentration))


def mixed(*parts: tuple[float, NDArray[np.float64] | float]) -> NDArray[np.float64]:
    """Quantiles, in no order, of a mixture: each part with its share."""
    at = np.split(np.arange(len(SHARES_Q)), [round(end * len(SHARES_Q)) for end in np.cumsum([share for share, _ in parts])[:-1]])
    return np.concatenate(
        [np.quantile(part, (np.arange(len(own)) + 0.5) / len(own)) for own, (_, part) in zip(at, parts, strict=True)]
    )


def kinds() -> dict[str, NDArray[np.float64]]:
    """Kinds of scores; to three digits, so that those near an end are at it."""
    found = {f"{RIGHT}, {share:.0%}": mixed((1 - share, 0.0), (share, 1.0)) for share in (0.3, 0.5, 0.62, 0.75, 0.87, 0.9, 0.95, 0.98)}
    for mean, concentration in (
        (0.5, 1),
        (0.5, 10),
        (0.5, 60),
        (0.8, 4),
        (0.9, 2),
        (0.9, 10),
        (0.98, 2),
        (0.98, 20),
        (0.2, 7.5),
        (0.05, 10),
    ):
        found[f"Beta, mean {mean:g}, concentration {concentration:g}"] = beta(mean, concentration)
    for share in (0.3, 0.62, 0.75, 0.9, 0.97):
        found[f"1 in {share:.0%}, else uniform"] = mixed((1 - share, SHARES_Q), (share, 1.0))
    found["1 in 60 %, else Beta, mean 0.8"] = mixed((0.4, beta(0.8, 4)), (0.6, 1.0))
    found["0 in 30 %, 1 in 30 %, else uniform"] = mixed((0.3, 0.0), (0.4, SHARES_Q), (0.3, 1.0))
    found["0 in 80 %, else uniform"] = mixed((0.8, 0.0), (0.2, SHARES_Q))
    found["0 in 95 %, else Beta, mean 0.5"] = mixed((0.95, 0.0), (0.05, beta(0.5, 4)))
    found["grades: 1 in 60 %, 0.9 in 25, 0.8 in 10, 0.5 in 4, 0 in 1"] = mixed(
        (0.01, 0.0), (0.04, 0.5), (0.1, 0.8), (0.25, 0.9), (0.6, 1.0)
    )
    found["grades: 0.9 in 40 %, 0.8 in 50, 0.5 in 8, 0 in 2"] = mixed((0.02, 0.0), (0.08, 0.5), (0.5, 0.8), (0.4, 0.9))
    for share in (0.1, 0.05, 0.02):
        found[f"rare: 0 in {share:.0%}, else Beta, mean 0.9, concentration 50"] = mixed((share, 0.0), (1 - share, beta(0.9, 50)))
    found["rare: 1 in 5%, else Beta, mean 0.5, concentration 60"] = mixed((0.05, 1.0), (0.95, beta(0.5, 60)))
    return {name: np.round(values_Q, 3) for name, values_Q in found.items()}


def shapes() -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Sizes of groups."""
    for num in (5, 10, 20, 50, 200):
        yield "alone", np.ones(num, dtype=np.int64)
        yield "even", np.full(num, 5)
        if num >= 10:
            yield "one with a third", np.array([num, *[2] * (num - 1)])
            yield FEW_LARGE, np.array([10] * (num // 5) + [1] * (num - num // 5))
            yield "a tenth of 5, others of 1", np.array([5] * (num // 10) + [1] * (num - num // 10))
    yield "even", np.full(50, 20)
    yield "alone", np.ones(1_000, dtype=np.int64)


def drawn(
    rng: np.random.Generator, runs: int, sizes_G: NDArray[np.int64], alike: float, values_Q: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[R, N]: values whose correlation within groups is `alike`: that share of pairs has the value of the group."""
    group_N = np.repeat(np.arange(len(sizes_G)), sizes_G)
    own_RN, common_RN = rng.random((runs, len(group_N))), rng.random((runs, len(sizes_G)))[:, group_N]
    share_RN = np.where(rng.random(own_RN.shape) < np.sqrt(alike), common_RN, own_RN)
    return np.asarray(values_Q[(share_RN * len(values_Q)).astype(np.int64)])


class Runs:
    """What the intervals of all runs of a setting are made of; `variance_R` and the rest as in `stats.clustered_score_interval`."""

    def __init__(self, values_RN: NDArray[np.float64], sizes_G: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.rng = rng  # weights of one setting are not those of another, so that means over settings are not all off alike
        starts_G, self.sizes_G, self.num = np.cumsum(sizes_G) - sizes_G, sizes_G.astype(np.float64), int(sizes_G.sum())
        num_groups = len(sizes_G)
        self.mean_R = values_RN.mean(axis=1)
        self.moved_RG = np.add.reduceat(values_RN, starts_G, axis=1) - self.mean_R[:, None] * sizes_G
        without_RG = self.moved_RG / (self.num - sizes_G)
        self.error_R = np.sqrt((num_groups - 1) / num_groups * np.sum(without_RG**2, axis=1))
        groups = [str(group) for group, size in enumerate(sizes_G) for _ in range(size)]
        self.t = stats._between_groups([0.0] * self.num, groups, stats.CONFIDENCE)[2]
        self.alone_R = np.maximum(values_RN.var(axis=1), 0.0) / (self.num - 1)
        self.variance_R = np.maximum(self.error_R**2, self.alone_R * self._design_effects(values_RN.var(axis=1)))
        self.values_RN = values_RN

    def _design_effects(self, spread_R: NDArray[np.float64]) -> NDArray[np.float64]:
        num_groups, kish = len(self.sizes_G), float(self.sizes_G @ self.sizes_G) / self.num
        if num_groups == self.num:
            return np.ones(len(spread_R))
        between_R = np.sum(self.moved_RG**2 / self.sizes_G, axis=1)
        within_R = np.maximum(self.num * spread_R - between_R, 0.0) / (self.num - num_groups)
        between_R = between_R / (num_groups - 1)
        by_chance_R = within_R * scipy_stats.f.ppf(stats.CONFIDENCE, num_groups - 1, self.num - num_groups)
        usual, over_R = (self.num - kish) / (num_groups - 1), np.maximum(between_R - by_chance_R, 0.0)
        return np.asarray(1 + over_R / np.maximum(between_R + (usual - 1) * by_chance_R, stats.TINY) * (kish - 1))

    def jackknife(self) -> Ends:
        """The cluster-robust interval; of groups that are all alike Gaffke's, as if each were one value."""
        q = TAIL ** (1 / len(self.sizes_G))
        none_R, reach_R = self.error_R < stats.ROUNDING, self.t * self.error_R
        low_R, high_R = (
            np.where(none_R, self.mean_R * q, self.mean_R - reach_R),
            np.where(none_R, 1 - (1 - self.mean_R) * q, self.mean_R + reach_R),
        )
        return np.clip(low_R, 0, 1), np.clip(high_R, 0, 1)

    def weighed(self) -> dict[str, Ends]:
        """`clustered_score_interval`, and the same with half of a value at the end, and with a whole one."""
        found = self._weighed(self.moved_RG, self.sizes_G, self.variance_R)
        by_value_R = (self.variance_R > 0) & (self.variance_R <= self.alone_R)
        if len(self.sizes_G) == self.num or not by_value_R.any():
            return found
        alone = self._weighed(self.values_RN - self.mean_R[:, None], np.ones(self.num), self.variance_R)
        return {
            name: (np.where(by_value_R, alone[name][0], low_R), np.where(by_value_R, alone[name][1], high_R))
            for name, (low_R, high_R) in found.items()
        }

    def gaffke(self) -> Ends:
        """`mean_interval` of values that do not belong together."""
        return self._weighed(self.moved_RG, self.sizes_G, np.zeros_like(self.variance_R))["whole"]

    def wilson(self) -> Ends:
        """Of right or wrong values, for as many as the jackknife says, and at most those there are; of groups that are all alike
        Gaffke's, as if each were one value.
        """
        q, p_R, t = TAIL ** (1 / len(self.sizes_G)), self.mean_R, self.t
        none_R = self.error_R < stats.ROUNDING
        n_R = np.where(none_R, 1.0, np.minimum(self.num, p_R * (1 - p_R) / np.where(none_R, 1.0, self.error_R**2)))
        middle_R, reach_R = p_R + t**2 / (2 * n_R), t * np.sqrt(p_R * (1 - p_R) / n_R + t**2 / (4 * n_R**2))
        return (
            np.where(none_R, p_R * q, (middle_R - reach_R) / (1 + t**2 / n_R)),
            np.where(none_R, 1 - (1 - p_R) * q, (middle_R + reach_R) / (1 + t**2 / n_R)),
        )

    def tango(self, variance_R: NDArray[np.float64]) -> Ends:
        """Of differences, for as many pairs as that variance of the mean says; where nothing differs, as if each group were one."""
        q, found_R = TAIL ** (1 / len(self.sizes_G)), self.mean_R
        won_R, lost_R = np.maximum(self.values_RN, 0).mean(axis=1), np.maximum(-self.values_RN, 0).mean(axis=1)
        none_R = np.ptp(self.values_RN, axis=1) < stats.ROUNDING
        n_R = (won_R + lost_R - found_R**2) / np.where(none_R, 1.0, variance_R)

        def is_inside(apart_R: NDArray[np.float64]) -> NDArray[np.bool_]:
            is_more = apart_R >= 0
            fewer_R, ahead_R = np.where(is_more, lost_R, won_R), np.where(is_more, found_R, -found_R)
            away_R = np.abs(apart_R)
            b_R, c_R = (2 - ahead_R) * away_R - won_R - lost_R, -fewer_R * away_R * (1 - away_R)
            spread_R = (np.sqrt(b_R**2 - 8 * c_R) - b_R) / 2 + away_R - away_R**2
            return np.asarray((found_R - apart_R) ** 2 * n_R < self.t**2 * spread_R)

        ends = []
        for end in (-1.0, 1.0):
            near_R, far_R = found_R, np.full_like(found_R, end)
            for _ in range(HALVINGS):
                middle_R = (near_R + far_R) / 2
                inside_R = is_inside(middle_R)
                near_R, far_R = np.where(inside_R, middle_R, near_R), np.where(inside_R, far_R, middle_R)
            ends.append(np.where(none_R, end + (found_R - end) * q, near_R))
        return ends[0], ends[1]

    def _weighed(
        self, moved_RG: NDArray[np.float64], sizes_G: NDArray[np.float64], variance_R: NDArray[np.float64]
    ) -> dict[str, Ends]:
        num_groups = len(sizes_G)
        weights_GB = self.rng.standard_exponential((num_groups, NUM_DRAWS))
        drawn_R = np.sum(moved_RG**2, axis=1) / self.num**2 * num_groups / (num_groups + 1)
        some_R = drawn_R > stats.TINY
        wider_R = np.sqrt(np.maximum(1.0, np.where(some_R, variance_R, 1.0) / np.where(some_R, drawn_R, 1.0)))
        effect_R = np.maximum(1.0, np.where(self.alone_R > 0, variance_R / np.maximum(self.alone_R, stats.TINY), np.inf))
        total_B, size_R = sizes_G @ weights_GB, np.minimum(self.num / num_groups, effect_R)
        mean_RB = self.mean_R[:, None] + wider_R[:, None] * (moved_RG @ weights_GB) / total_B
        found = {}
        for name, added in ADDED.items():
            end_RB = size_R[:, None] * self.rng.standard_gamma(added, NUM_DRAWS)
            share_RB = end_RB / (total_B + end_RB)
            low_R = np.quantile(mean_RB * (1 - share_RB), TAIL, axis=1)
            high_R = np.quantile(mean_RB * (1 - share_RB) + share_RB, 1 - TAIL, axis=1)
            found[name] = np.clip(low_R, 0, 1), np.clip(high_R, 0, 1)
        return found


def rates(found: dict[str, Ends], truth: float) -> dict[str, list[float]]:
    """By formula: the shares of runs whose truth lies below and above, and the mean width."""
    return {
        name: [float(np.mean(truth < low - 1e-9)), float(np.mean(truth > high + 1e-9)), float(np.mean(high - low))]
        for name, (low, high) in found.items()
    }


def settings(of_each: dict[str, NDArray[np.float64]]) -> Iterator[tuple[dict[str, Any], NDArray[np.int64], NDArray[np.float64]]]:
    """Each kind of groups with each kind of values: what it is called, the sizes of the groups, and the values' quantiles."""
    for shape, sizes_G in shapes():
        for alike in (0.0,) if shape == "alone" else (0.0, 0.3, 1.0):
            for kind, values_Q in of_each.items():
                named = {"groups": len(sizes_G), "sizes": shape, "largest": int(sizes_G.max()), "alike": alike, "scores": kind}
                yield named, sizes_G, values_Q


def measured(runs: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Each setting of scores, with the `rates` of each formula."""
    for named, sizes_G, values_Q in settings(kinds()):
        of = Runs(drawn(rng, runs, sizes_G, named["alike"], values_Q), sizes_G, rng)
        found = {"jackknife": of.jackknife(), **of.weighed()}
        if named["sizes"] == "alone":
            found["gaffke"] = of.gaffke()
        if named["scores"].startswith(RIGHT):
            found["wilson"] = of.wilson()
        yield {**named, **rates(found, float(values_Q.mean()))}


def differences(runs: int, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The same of differences between answers, right or wrong and graded."""
    of_each = {f"won {won:.0%}, lost {lost:.0%}": mixed((won, 1.0), (1 - won - lost, 0.0), (lost, -1.0)) for won, lost in DIFFERING}
    for one, other, concentration in GRADED:
        left_Q, right_Q = np.round(beta(one, concentration), 3), np.round(beta(other, concentration), 3)
        of_each[f"graded: Beta, means {one:g} and {other:g}, concentration {concentration}"] = np.sort(
            left_Q - rng.permutation(right_Q)
        )
    for named, sizes_G, values_Q in settings(of_each):
        of = Runs(drawn(rng, runs, sizes_G, named["alike"], values_Q), sizes_G, rng)
        found = {"jackknife": of.tango(np.maximum(of.error_R**2, of.alone_R)), "now": of.tango(of.variance_R)}
        yield {**named, **rates(found, float(values_Q.mean()))}


def summary_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For parts of the settings and each formula: the worst share beyond one end, the mean of all, in how many settings it is more
    than `MISSED`, and the width as a ratio to the jackknife's (of right or wrong values Wilson's) where that one held.
    """
    usual = [row for row in found if not row["scores"].startswith(("rare", RIGHT))]
    right = [row for row in found if row["scores"].startswith(RIGHT)]
    parts = {f"{num} groups": [row for row in usual if row["groups"] == num] for num in (5, 10, 20, 50, 200)}
    parts |= {
        f"sizes: {shape}": [row for row in usual if row["sizes"] == shape] for shape in dict.fromkeys(name for name, _ in shapes())
    }
    parts |= {"all": usual, "rare values": [row for row in found if row["scores"].startswith("rare")], "right or wrong": right}
    parts["right or wrong, " + FEW_LARGE] = [row for row in right if row["sizes"] == FEW_LARGE]
    return [
        _summed(title, name, rows) for title, rows in parts.items() for name in FORMULAS if rows and all(name in row for row in rows)
    ]


def summary_of_differences(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `summary_of`, beside Tango's interval with the jackknife's variance."""
    parts = dict[str, list[dict[str, Any]]]()
    for kind, is_graded in (("differences", False), ("graded differences", True)):
        of_kind = [row for row in found if row["scores"].startswith("graded") == is_graded]
        for num in (5, 10, 20, 50, 200):
            parts[f"{kind}, {num} groups"] = [row for row in of_kind if row["groups"] == num]
        for shape in dict.fromkeys(name for name, _ in shapes()):
            parts[f"{kind}, {shape}"] = [row for row in of_kind if row["sizes"] == shape]
        parts[f"{kind}, all"] = of_kind
    return [_summed(title, name, rows) for title, rows in parts.items() for name in ("jackknife", "now")]


def _summed(title: str, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    misses = [max(row[name][:2]) for row in rows]
    before = "wilson" if "wilson" in rows[0] else "jackknife"
    widths = [row[name][2] / row[before][2] for row in rows if max(row[before][:2]) <= HELD]
    return {
        "settings": title, "formula": name, "worst": max(misses), "mean": sum(misses) / len(misses),
        "missed": sum(miss > MISSED for miss in misses), "of": len(misses),
        "width": float(np.mean(widths)), "median_width": float(np.median(widths)),
    }  # fmt: skip


def main() -> None:
    """Print a Markdown page of what was measured, and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(20261130)
    scores, apart = list(measured(options.runs, rng)), list(differences(options.runs, rng))
    summary = summary_of(scores) + summary_of_differences(apart)
    print("| settings | formula | beyond one end, worst | mean | above 5 % | mean width (median) where the former formula held |")
    print("|---|---|---|---|---|---|")
    for row in summary:
        shares = f"{100 * row['worst']:.1f} % | {100 * row['mean']:.1f} % | {row['missed']} of {row['of']}"
        print(f"| {row['settings']} | {row['formula']} | {shares} | {row['width']:.2f} ({row['median_width']:.2f}) |")
    missed = [row for row in (*scores, *apart) if max(row["now"][:2]) > MISSED]
    write(options.json, {**circumstances(), "runs": options.runs, "summary": summary, "missed": missed})


if __name__ == "__main__":
    main()
