"""VADER itself on `tuning.py`'s four VADER tasks: all texts beside the paper's Table 4, and the test splits of the tuned models.

    pip install vaderSentiment      # in the environment of nomoat; MIT
    python benchmarks/vader.py [--json FILE]

Its class is told by the bound its authors give: compound >= 0.05 is positive, <= -0.05 negative, anything between is neutral. A text's
own class is the sign of its mean rating, and the score the classes' F1 weighted by how many texts have them: so counted, the version
that came with the paper has its F1 of tweets, and the others within 0.03 (see `results/`); this one is some years younger.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facts import circumstances, write
from tuning import TASKS, VADER_FILES, VADER_LABELS, label_scores, vader_classes

from nomoat.judge import builtin_examples
from nomoat.records import Example

BOUND = 0.05
TABLE_4 = {"vader-tweets": 0.96, "vader-reviews": 0.63, "vader-movies": 0.61, "vader-news": 0.55}  # F1 of VADER; Hutto & Gilbert 2014


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has nomoat and vaderSentiment:\n{__doc__}")
    analyzer, found = SentimentIntensityAnalyzer(), {}

    def answer(example: Example) -> str:
        text = example.messages[-1].content.split("\nText: ", 1)[1].removesuffix("\nLabel:")
        compound = analyzer.polarity_scores(text)["compound"]
        return "positive" if compound >= BOUND else "negative" if compound <= -BOUND else "neutral"

    def scored(examples: Sequence[Example]) -> dict[str, Any]:
        return label_scores(examples, {example.id: answer(example) for example in examples})

    for task in VADER_FILES:
        every = list(builtin_examples.labelled(vader_classes(task), VADER_LABELS))
        found[task] = {"test": scored(TASKS[task](Path(), Path()).test), "all": scored(every), "table_4": TABLE_4[task]}
        print(task, found[task], flush=True)
    write(arguments.json, {**circumstances(), **found})


if __name__ == "__main__":
    main()
