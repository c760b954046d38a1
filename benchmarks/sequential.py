"""What it costs, and what it saves, to look at a duel after every item and stop when the winner is known.

    python benchmarks/sequential.py [--duels 2000] [--json FILE]

Three questions: how often do equals get a winner; how many items does a duel need when the true gap is twice the one that a
fixed-size design was planned for; after how many of 1,319 items do stored answers of two well-known models settle it (RouteLLM's, of
GSM8K).

The simulation follows the capital of many duels at once; `first_stops` is checked against `Watch`, the code that duels run.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from facts import circumstances, write
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from scipy.special import logsumexp

from nomoat import proportions
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine.recorded import read_recorded
from nomoat.judge import stats
from nomoat.judge.sequential import BETS_G, NUM_BETS

# R duels, N items of each, G bets of the grid.
Differences = NDArray[np.float64]
NEVER = 10**9
ALPHA = 0.05
DESIGNS = ((0.2, 0.05), (0.3, 0.05), (0.3, 0.1), (0.4, 0.15), (0.15, 0.03))  # share of discordant items, planned gap
RARE_ITEMS = (20, 30, 50, 100, 150)
BETTER, OTHER = "gpt-4-1106-preview", "Mixtral-8x7B-Instruct-v0.1"


def first_stops(differences_RN: Differences, alpha: float, *, mean: float = 0.0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """After how many items (NEVER if not) each duel rules out that the mean is `mean`, and whether from above."""
    num_duels, num_items = differences_RN.shape
    share = (1 + mean) / 2
    above_RG, below_RG = np.zeros((num_duels, NUM_BETS)), np.zeros((num_duels, NUM_BETS))
    stops_R, is_above_R = np.full(num_duels, NEVER), np.zeros(num_duels, dtype=bool)
    threshold = math.log(2 / alpha) + math.log(NUM_BETS)
    for at in range(num_items):
        y_R1 = (1 + differences_RN[:, at : at + 1]) / 2
        above_RG += np.log(1 - BETS_G + BETS_G * (y_R1 / share))
        below_RG += np.log(1 - BETS_G + BETS_G * ((1 - y_R1) / (1 - share)))
        above_R, below_R = logsumexp(above_RG, axis=1), logsumexp(below_RG, axis=1)
        new_R = (stops_R == NEVER) & (np.maximum(above_R, below_R) >= threshold)
        stops_R[new_R], is_above_R[new_R] = at + 1, above_R[new_R] > below_R[new_R]
    return stops_R, is_above_R


def plug_in_stops(differences_RN: Differences, alpha: float) -> NDArray[np.int64]:
    """The same for the hedged capital with predictable plug-in bets (Waudby-Smith and Ramdas 2023, section 4.2), for comparison."""
    y_RN = (1 + differences_RN) / 2
    num_duels, num_items = y_RN.shape
    above_R, below_R, stops_R = np.zeros(num_duels), np.zeros(num_duels), np.full(num_duels, NEVER)
    sum_R, squares_R, variance_R = np.full(num_duels, 0.5), np.full(num_duels, 0.25), np.full(num_duels, 0.25)
    for at in range(num_items):
        bet_R = np.sqrt(2 * math.log(2 / alpha) / (variance_R * (at + 1) * math.log(at + 2)))
        bet_R = np.minimum(bet_R, 0.75 / 0.5)
        above_R += np.log1p(bet_R * (y_RN[:, at] - 0.5))
        below_R += np.log1p(-bet_R * (y_RN[:, at] - 0.5))
        stops_R[(stops_R == NEVER) & (np.maximum(above_R, below_R) >= math.log(2 / alpha))] = at + 1
        sum_R += y_RN[:, at]
        squares_R += (y_RN[:, at] - sum_R / (at + 2)) ** 2
        variance_R = squares_R / (at + 2)
    return stops_R


# ---------------------------------------------------------------- equals
def right_or_wrong(rng: np.random.Generator, num_duels: int, num_items: int, discordant: float, gap: float = 0.0) -> Differences:
    """Differences of answers that are right or wrong: a share of them discordant, the left side ahead by `gap`."""
    return rng.choice(
        [1.0, 0.0, -1.0], p=[(discordant + gap) / 2, 1 - discordant, (discordant - gap) / 2], size=(num_duels, num_items)
    )


def equals(num_duels: int, rng: np.random.Generator) -> dict[str, Differences]:
    """Duels in which neither side is better, of many kinds; in those of `rare_gains` the sample may lack what makes them equal."""
    items, few = 500, 150
    totals = np.array([1.0] * 60 + [-1.0] * 60 + [0.0] * 180)
    scores = rng.beta(0.6, 0.4, size=(2, num_duels, few))
    grades = rng.integers(1, 11, size=(2, num_duels, few))
    return {
        "right or wrong, 50 % each, independent": right_or_wrong(rng, num_duels, items, 0.5),
        "right or wrong, 10 % discordant": right_or_wrong(rng, num_duels, items, 0.1),
        "right or wrong, 2 % discordant": right_or_wrong(rng, num_duels, items, 0.02),
        "all ties": np.zeros((num_duels, items)),
        "a suite of 300 with equal totals, in random order": np.array([rng.permutation(totals) for _ in range(num_duels)]),
        "shares between 0 and 1 (as F1), independent": scores[0] - scores[1],
        "grades of 1 to 10, independent": (grades[0] - grades[1]) / 10,
        "skewed: mostly slightly worse, rarely much better": rng.choice([-0.1, 0.9], p=[0.9, 0.1], size=(num_duels, few)),
        **{
            f"{share:.0%} better by {1 - share:.2f}, the others worse by about {share:.2f}; {n} items": rare_gains(
                rng, num_duels, n, share
            )
            for share in (0.05, 0.02)
            for n in RARE_ITEMS
        },
    }


def rare_gains(rng: np.random.Generator, num_duels: int, num_items: int, share: float) -> Differences:
    """Most differences slightly below 0, none of them equal, and a share of them far above it; their mean is 0."""
    usual = -share * (1 + rng.uniform(-0.2, 0.2, size=(num_duels, num_items)))
    return np.where(rng.random((num_duels, num_items)) < share, 1 - share, usual)


def last_look_p_value(differences: Differences) -> float:
    """The fixed-size test of a duel that was asked to its end. For right and wrong answers the verdict asks for more: the interval has
    to exclude 0 too.
    """
    if set(np.unique(differences)) <= {-1.0, 0.0, 1.0}:
        return proportions.mcnemar_exact(int((differences > 0).sum()), int((differences < 0).sum()))
    rough = float(scipy_stats.ttest_1samp(differences, 0.0).pvalue)
    if rough > 4 * ALPHA:  # far from any winner: spare the integrals
        return rough
    return stats.mean_p_value(differences.tolist(), -1.0, 1.0)


def false_winners(differences_RN: Differences) -> dict[str, float]:
    """How often a duel of equals gets a winner: by a look on the way, by the last look, and if one tested naively at every item."""
    stops_R, _ = first_stops(differences_RN, ALPHA / 2)
    late = [last_look_p_value(row) < ALPHA / 2 for row in differences_RN[stops_R == NEVER]]
    n = len(differences_RN)
    return {"early": float((stops_R < NEVER).sum() / n), "last": sum(late) / n, "naive": naive_rate(differences_RN)}


def naive_rate(differences_RN: Differences) -> float:
    """How often a plain z test at 5 %, repeated after every item from the tenth on, would name a winner."""
    count_N = np.arange(1, differences_RN.shape[1] + 1)
    mean_RN = np.cumsum(differences_RN, axis=1) / count_N
    spread_RN = np.sqrt(np.maximum(np.cumsum(differences_RN**2, axis=1) / count_N - mean_RN**2, 1e-12) / count_N)
    beyond_RN = (np.abs(mean_RN) > 1.96 * spread_RN) & (np.abs(mean_RN) > 1e-9)
    return float(beyond_RN[:, 9:].any(axis=1).mean())


def missed_truth(num_duels: int, rng: np.random.Generator) -> float:
    """How often a sequence of 500 looks at a true difference of 10 points leaves it out at any of them; promised: 2.5 %."""
    stops_R, _ = first_stops(right_or_wrong(rng, num_duels, 500, 0.4, 0.1), ALPHA / 2, mean=0.1)
    return float((stops_R < NEVER).mean())


# ---------------------------------------------------------------- items needed
def planned_items(discordant: float, gap: float) -> int:
    """Items of a fixed-size McNemar test with 80 % power at `gap`. Source: Connor 1987, doi:10.2307/2531961."""
    z_alpha, z_power = scipy_stats.norm.ppf(1 - ALPHA / 2), scipy_stats.norm.ppf(0.8)
    return math.ceil((z_alpha * math.sqrt(discordant) + z_power * math.sqrt(discordant - gap**2)) ** 2 / gap**2)


def items_needed(discordant: float, gap: float, num_duels: int, rng: np.random.Generator) -> dict[str, float]:
    """Items until the verdict when the true gap is twice the planned one, and power when it is the planned one."""
    n = planned_items(discordant, gap)
    wide = right_or_wrong(rng, num_duels, n, discordant, 2 * gap)
    stops_R, _ = first_stops(wide, ALPHA / 2)
    planned = right_or_wrong(rng, num_duels, n, discordant, gap)
    early_R = first_stops(planned, ALPHA / 2)[0] < NEVER
    last_R = np.array([last_look_p_value(row) for row in planned])
    return {
        "discordant": discordant,
        "planned_gap": gap,
        "planned_items": n,
        "median_share": float(np.median(stops_R) / n),
        "p90_share": float(np.percentile(stops_R, 90) / n),
        "median_share_plug_in": float(np.median(plug_in_stops(wide, ALPHA / 2)) / n),
        "power_fixed": float((last_R < ALPHA).mean()),
        "power": float((early_R | (last_R < ALPHA / 2)).mean()),
        "power_without_last_look": float((first_stops(planned, ALPHA)[0] < NEVER).mean()),
    }


# ---------------------------------------------------------------- stored answers
def read_gsm8k() -> Differences:
    """GPT-4 minus Mixtral, right or wrong, in the file's order."""
    return np.array([row.scores[BETTER] - row.scores[OTHER] for row in read_recorded(pull_dataset("routellm-gsm8k"))])


def stored_answers(differences: Differences, num_orders: int, rng: np.random.Generator) -> dict[str, float]:
    """Items until the verdict over stored answers, in many random orders."""
    orders = np.array([rng.permutation(differences) for _ in range(num_orders)])
    stops_R, left_R = first_stops(orders, ALPHA / 2)
    rounds_R = np.minimum(np.ceil(stops_R / 16) * 16, len(differences))
    return {
        "items": len(differences),
        "orders": num_orders,
        "median": float(np.median(stops_R)),
        "lowest": int(stops_R.min()),
        "highest": int(stops_R.max()),
        "p95": float(np.percentile(stops_R, 95)),
        "median_in_rounds_of_16": float(np.median(rounds_R)),
        "wrong_winner": int((~left_R).sum()),
    }


def main() -> None:
    """Print a Markdown page of what was measured, and write its JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duels", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(20261124)
    stored, found = read_gsm8k(), {**circumstances(), "duels": options.duels}

    print("| equals | winner on the way | winner at the last look | in all (allowed: 5 %) | a plain test at every item |")
    print("|---|---|---|---|---|")
    rates = {name: false_winners(duels) for name, duels in equals(options.duels, rng).items()}
    for name, rate in rates.items():
        cells = (rate["early"], rate["last"], rate["early"] + rate["last"], rate["naive"])
        print(f"| {name} | {' | '.join(f'{100 * cell:.2f} %' for cell in cells)} |", flush=True)
    missed = missed_truth(options.duels, rng)
    print(f"\nA true difference of 10 points was outside at some look of 500 in {100 * missed:.2f} % of the duels (allowed: 2.5 %).\n")

    print("| discordant | planned gap | planned items | median share used | 90th percentile | plug-in bets | power |")
    print("|---|---|---|---|---|---|---|")
    designs = [items_needed(*design, options.duels, rng) for design in DESIGNS]
    for row in designs:
        shares = " | ".join(f"{100 * row[key]:.1f} %" for key in ("median_share", "p90_share", "median_share_plug_in"))
        power = " / ".join(f"{100 * row[key]:.0f} %" for key in ("power_fixed", "power", "power_without_last_look"))
        print(f"| {row['discordant']:.0%} | {row['planned_gap']:.0%} | {row['planned_items']:,} | {shares} | {power} |", flush=True)
    gsm8k = stored_answers(stored, options.duels, rng)
    print(f"\nGSM8K, stored answers: {json.dumps(gsm8k)}")
    write(options.json, {**found, "equals": rates, "missed_truth": missed, "designs": designs, "gsm8k": gsm8k})


if __name__ == "__main__":
    main()
