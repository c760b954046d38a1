"""How near the references of an input are to one another: what a count by ROUGE-L can give at most where an input has many.

    python benchmarks/reference_agreement.py [SUITE, as it comes e2e_nlg] [--json FILE]

Each reference is taken for an answer and counted by the others of its input, in the two ways of `tuning.py`: the mean over them,
and the best of them. `central` is the reference of an input with the highest mean: nobody who answers can know which one that is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from facts import circumstances, write

from nomoat.judge import stats
from nomoat.judge.scorers import rouge
from nomoat.judge.suites import load_suite


def counted(references: list[str]) -> tuple[float, float, float]:
    """Of the references of one input, each counted by the others: the mean over others, that of the central one, the best other."""
    scores = [[rouge(answer, other) for at, other in enumerate(references) if at != own] for own, answer in enumerate(references)]
    means = [mean(row) for row in scores]
    return mean(means), max(means), mean(max(row) for row in scores)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="?", default="e2e_nlg")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    inputs = [[example.target, *example.other_targets] for example in load_suite(arguments.suite).examples]
    several = [references for references in inputs if len(references) > 1]
    found: dict[str, Any] = {
        **circumstances(), "suite": arguments.suite, "inputs": len(several),
        "references": sum(map(len, several)), "inputs_with_one_left_out": len(inputs) - len(several),
    }  # fmt: skip
    ways = ("mean_of_others", "central_by_mean", "best_of_others")
    for name, values in zip(ways, zip(*map(counted, several), strict=True), strict=True):
        low, high = stats.mean_interval(values, 0.0, 1.0)
        found[name] = {"rouge_l": round(mean(values), 4), "interval": [round(low, 4), round(high, 4)]}
    print(json.dumps(found, indent=1))
    write(arguments.json, found)


if __name__ == "__main__":
    main()
