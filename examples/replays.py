"""Published claims about open and closed models, fought again from what their authors stored. No model is run, but in the last.

    python examples/replays.py [vicuna | routellm | lora-land]
    python examples/replays.py live --data FOLDER           # four models on this machine: see live.py

The data is pulled when it is first needed. docs/replays.md says what the numbers mean.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import nomoat
from nomoat.errors import NomoatError
from nomoat.judge.wording import render_difference, render_estimate, render_measure, render_p_value
from nomoat.proportions import mcnemar_exact
from nomoat.records import Verdict

VICUNAS = ("vicuna-13b", "vicuna-13b-20230322-new-hp-fp16", "vicuna-7b-20230322-fp16")
BASELINES = ("gpt35", "bard", "alpaca-13b", "llama-13b")
TUNED = ("phi-2_ft", "gemma-2b_ft", "gemma-7b_ft", "llama-2-7b_ft", "mistral-7b_ft", "zephyr-7b-beta_ft")


def flips_until_undecided(verdict: Verdict) -> int:
    """How many of the winner's items would have to go to the other side until the exact test of wins against losses is at 5 %."""
    won, lost = max(verdict.wins, verdict.losses), min(verdict.wins, verdict.losses)
    return next(flips for flips in range(won + 1) if mcnemar_exact(won - flips, lost + flips) >= 0.05)


def vicuna() -> None:
    """All thirteen pairs that GPT-4 reviewed for the Vicuna blog."""
    print("| pair | totals | won, tied, lost | left minus right | undecided after |")
    print("|---|---|---|---|---|")
    for left, right in [(left, right) for left in VICUNAS for right in BASELINES] + [("alpaca-13b", "llama-13b")]:
        verdict = nomoat.duel(f"stored:vicuna80/{left}", f"stored:vicuna80/{right}")
        ratio = next(measure for measure in verdict.measures if measure.name == "total score ratio")
        counts = f"{verdict.wins}, {verdict.ties}, {verdict.losses}"
        flips = flips_until_undecided(verdict)
        print(f"| {left} / {right} | {render_measure(ratio)} | {counts} | {render_difference(verdict)} | {flips} flips |")


def routellm() -> None:
    """GPT-4 against Mixtral on two test sets, and what a router that always knew better would reach."""
    print("| test set | items | GPT-4 | Mixtral-8x7B | difference | either right |")
    print("|---|---|---|---|---|---|")
    for suite in ("routellm-gsm8k", "routellm-mmlu"):
        verdict = nomoat.duel(f"stored:{suite}/gpt-4", f"stored:{suite}/mixtral")
        scores = [
            render_estimate(verdict.metric, side.score, side.score_low, side.score_high) for side in (verdict.left, verdict.right)
        ]
        either = next(measure for measure in verdict.measures if measure.name == "either right")
        gap = f"{render_difference(verdict)}, {render_p_value(verdict.p_value, verdict.alpha)}"
        print(f"| {suite} | {verdict.num_examples:,} | {scores[0]} | {scores[1]} | {gap} | {render_measure(either)} |")


def lora_land() -> None:
    """On how many of 31 tasks each tuned model scored higher than GPT-4."""
    print("| tuned model | ahead of GPT-4 | equal | mean difference | p |")
    print("|---|---|---|---|---|")
    for model in TUNED:
        verdict = nomoat.duel(f"stored:lora-land/{model}", "stored:lora-land/gpt-4")
        wins = next(measure for measure in verdict.measures if measure.name == "wins")
        p_value = render_p_value(verdict.p_value, verdict.alpha)
        print(f"| {model} | {render_measure(wins)} | {verdict.ties} | {render_difference(verdict)} | {p_value} |")


REPLAYS = {"vicuna": vicuna, "routellm": routellm, "lora-land": lora_land}


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    try:
        play(arguments)
    except NomoatError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}" if error.hint else f"error: {error.message}")


def play(arguments: Sequence[str]) -> None:
    """What the command line names."""
    if arguments and arguments[0] == "live":
        import live

        live.main(arguments[1:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("replays", nargs="*", metavar="REPLAY", help=f"{', '.join(REPLAYS)}; all of them where none is named")
    named = parser.parse_args(arguments).replays
    if unknown := sorted(set(named) - set(REPLAYS)):
        parser.error(f"there is no replay `{unknown[0]}`; give {', '.join(REPLAYS)}, or live first")
    for name in named or REPLAYS:
        REPLAYS[name]()
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
