"""How far judges on this machine agree with GPT-4's stored reviews of the Vicuna blog, and how far GPT-4 agrees with itself there.

    python benchmarks/judge_agreement.py [JUDGE ...] [--pairs 40] [--json FILE]

Pairs are drawn from the 320 that compare Vicuna-13B with ChatGPT, Bard, Alpaca and LLaMA on 80 questions; each is shown to a judge in
both orders. Intervals of kappa are by drawing questions again. "The longer answer" is what a judge reaches that counts characters.

The labels are no truth: GPT-4 saw each pair in one order only. How steady it is shows where its reviews score the very same answer
more than once, each time beside another answer.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from facts import circumstances, write

from nomoat import proportions, responder
from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.catalog.datasets import pull_dataset
from nomoat.judge import agreement
from nomoat.judge.agreement import Agreement, LabelledPairs
from nomoat.judge.model_judge import Judge
from nomoat.judge.stored_reviews import load_reviews

JUDGES = ("smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b")
SEED = 0  # the one a duel has, which then finds these verdicts stored
SYSTEMS = ("gpt35", "bard", "alpaca-13b", "llama-13b")  # whose answers several Vicunas were compared with
VICUNAS = ("vicuna-13b", "vicuna-13b-20230322-new-hp-fp16", "vicuna-7b-20230322-fp16")


def row_of(name: str, found: Agreement) -> dict[str, Any]:
    """One judge's figures."""
    consistent, first = agreement.order_shares(found.verdicts, found.groups)
    shown = Counter((verdict.first or "unreadable") + (verdict.second or "unreadable") for verdict in found.verdicts)
    return {
        "judge": name,
        "num_pairs": found.num_pairs,
        "both_decided": found.both_decided,
        "kappa": found.kappa,
        "kappa_interval": found.kappa_interval,
        "ties": found.scores.count(0.5),
        "same_share": found.same_share,
        "agreed_share": found.agreed_share,
        "consistent_share": consistent,
        "first_share": first or "-",
        "verdicts": dict(shown),
    }


def asked(name: str, labelled: LabelledPairs) -> dict[str, Any]:
    """Ask one judge on this machine."""
    with responder.load(name) as model, AnswerStore() as store:
        judge = Judge(model=model, store=store, spending=Spending(), concurrency=1)
        found = agreement.measure(judge, labelled)
        if found is None:
            raise SystemExit(f"{name} gave no verdict")
        return row_of(name, found)


def by_length(labelled: LabelledPairs) -> dict[str, Any]:
    found = agreement.compare([agreement.by_length(pair) for pair in labelled.pairs], labelled)
    if found is None:
        raise SystemExit("there are no pairs")
    return row_of("the longer answer", found)


def steadiness() -> dict[str, Any]:
    """How differently GPT-4 scored the same answer, read beside the answers of two Vicunas."""
    folder = pull_dataset(agreement.VICUNA)
    gaps: list[float] = []
    for system in SYSTEMS:
        scored = [load_reviews(agreement.VICUNA, folder, vicuna, system).scores for vicuna in VICUNAS]
        gaps += [abs(one[key][1] - other[key][1]) for one, other in combinations(scored, 2) for key in one]
    return {
        "num": len(gaps),
        "equal": sum(gap == 0 for gap in gaps),
        "more_than_1": sum(gap > 1 for gap in gaps),
        "mean_gap": sum(gaps) / len(gaps),
    }


def render(rows: Sequence[dict[str, Any]], steady: dict[str, Any]) -> str:
    lines = [
        "| judge | pairs | same winner, both decided | same verdict, ties included | kappa | its ties | both orders agree | "
        "first shown wins |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["judge"],
            str(row["num_pairs"]),
            row["agreed_share"],
            row["same_share"],
            "{:.2f} [{:.2f}, {:.2f}]".format(row["kappa"], *row["kappa_interval"]),
            str(row["ties"]),
            row["consistent_share"],
            row["first_share"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    low, high = proportions.wilson_interval(steady["equal"], steady["num"])
    lines += [
        "",
        f"GPT-4's own score of one and the same answer, read twice ({steady['num']:,} times): equal in "
        f"{100 * steady['equal'] / steady['num']:.0f} % [{100 * low:.0f}, {100 * high:.0f}], more than a point apart in "
        f"{100 * steady['more_than_1'] / steady['num']:.0f} %, {steady['mean_gap']:.2f} points on average.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judges", nargs="*", default=JUDGES, metavar="JUDGE")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    labelled = agreement.load_labels(agreement.VICUNA, num_pairs=args.pairs, seed=SEED)
    everything = agreement.load_labels(agreement.VICUNA, num_pairs=1_000, seed=SEED)
    rows = [by_length(everything), by_length(labelled)]
    for name in args.judges:
        rows.append(asked(name, labelled))
        print(render(rows[-1:], steadiness()), flush=True)
    labels = {str(label): count for label, count in Counter(labelled.labels).items()}
    steady = steadiness()
    print(f"labels of the {len(labelled.pairs)} pairs: {labels}\n\n{render(rows, steady)}")
    write(args.json, {**circumstances(), "seed": SEED, "labels": labels, "rows": rows, "gpt4": steady})


if __name__ == "__main__":
    main()
