"""VADER itself on the test splits of `tuning.py`'s four VADER tasks: the same texts, classes and scores as the tuned models get.

    pip install vaderSentiment      # in the environment of nomoat; MIT
    python benchmarks/vader.py [--json FILE]

Its class is told by the bound its authors give: compound >= 0.05 is positive, <= -0.05 negative, anything between is neutral.
The paper's Table 4 was computed by the authors on all texts; how they made classes of the ratings is not said to the digit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tuning import NEUTRAL, TASKS, label_scores
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from nomoat.records import Example


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    analyzer, found = SentimentIntensityAnalyzer(), {}

    def answer(example: Example) -> str:
        text = example.messages[-1].content.split("\nText: ", 1)[1].removesuffix("\nLabel:")
        compound = analyzer.polarity_scores(text)["compound"]
        return "positive" if compound >= NEUTRAL else "negative" if compound <= -NEUTRAL else "neutral"

    for task in (name for name in TASKS if name.startswith("vader-")):
        test = TASKS[task](Path(), Path()).test
        found[task] = label_scores(test, {example.id: answer(example) for example in test})
        print(task, found[task], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
