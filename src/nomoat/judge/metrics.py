"""Every metric a suite can have: what its scores are and how they are read.

To add one: an entry in `METRICS` (with its scorer in `scorers.py`), and a row in docs/suites.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from nomoat.judge import scorers
from nomoat.judge.stored_reviews import SCALE
from nomoat.records import Example
from nomoat.textfiles import composed

Metric = str  # one of the names of METRICS
SHARE = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What the scores of a metric are. `title`: what their mean is, in words.

    `of_text`: the score of a written answer against one target, both as text; None where `run` scores otherwise, or nobody here does.
    `over_all`: the score of all answers as one text, with its name, of (example, answer) pairs.
    `right_or_wrong`: each answer scores 0 or 1, so that the formulas for proportions hold.
    `scale`: the lowest and the highest score. A share is shown in per cent, anything else in a judge's own points.
    `needs_target`: each example has a right answer; else a schema, or a judge, may be all there is.
    `origin`: "suite": a suite's file may ask for it. "judge": what became of answers that a judge compared. "stored": scored by
    others and kept (`recorded.py`, `stored_reviews.py`).
    """

    title: str
    of_text: Callable[[str, str], float] | None = None
    over_all: Callable[[Sequence[tuple[Example, str]]], str] | None = None
    right_or_wrong: bool = False
    scale: tuple[float, float] = SHARE
    needs_target: bool = True
    origin: Literal["suite", "judge", "stored"] = "suite"

    @property
    def is_share(self) -> bool:
        """Whether scores are shown in per cent."""
        return self.scale == SHARE

    @property
    def points_per_score(self) -> float:
        """How many points one unit of score is shown as."""
        return 100.0 if self.is_share else 1.0

    def in_scale(self, per_cent: float) -> float:
        """Per cent of the scale, such as a rope, as a difference of scores."""
        lowest, highest = self.scale
        return per_cent / 100 * (highest - lowest)

    def in_points(self, per_cent: float) -> float:
        """Per cent of the scale in the points that differences are shown in."""
        return self.points_per_score * self.in_scale(per_cent)


METRICS: Mapping[str, Scoring] = {
    "exact": Scoring(title="accuracy, answer compared with the target", of_text=scorers.exact, right_or_wrong=True),
    "choice": Scoring(title="accuracy of choices", right_or_wrong=True),
    "numeric": Scoring(title="accuracy, last number of the answer", of_text=scorers.numeric, right_or_wrong=True),
    "f1": Scoring(title="F1 over words", of_text=scorers.f1),
    "char-f1": Scoring(title="F1 over characters", of_text=scorers.char_f1),
    "rouge": Scoring(title="ROUGE-L", of_text=scorers.rouge),
    "chrf": Scoring(title="chrF", of_text=scorers.chrf, over_all=scorers.chrf_over_all),
    "bleu": Scoring(title="sentence BLEU", of_text=scorers.bleu, over_all=scorers.bleu_over_all),
    "json": Scoring(title="F1 over the fields of JSON", of_text=scorers.json_score, needs_target=False),
    "regex": Scoring(title="share of answers that hold the pattern", of_text=scorers.matches, right_or_wrong=True),
    "code": Scoring(title="pass@1, the answer's code put to its tests", right_or_wrong=True),
    "judge": Scoring(title="not judged yet", needs_target=False),
    "judged": Scoring(title="share of wins by a judge who saw both orders, ties half", origin="judge"),
    "grade": Scoring(title="grade by a judge, 1 to 10", scale=(1.0, 10.0), origin="judge"),
    "review": Scoring(title="score by a judge's stored reviews, 1 to 10", scale=SCALE, origin="stored"),
    "recorded": Scoring(title="accuracy, as it was published", right_or_wrong=True, origin="stored"),
    "published": Scoring(title="score, as it was published", origin="stored"),
}
WRITABLE = tuple(name for name, scoring in METRICS.items() if scoring.origin == "suite")  # what a suite's file may say


def mean_score(scores: Sequence[float]) -> float:
    """The mean of the scores of items: the same to the last digit, in whatever order they stand."""
    return math.fsum(scores) / len(scores)


def score_text(metric: str, answer: str, example: Example, *, schema: Mapping[str, Any] | None = None) -> float:
    """What a written answer is worth, in 0..1, by any metric that compares it with the example's targets; equal fractions are equal
    to the last digit, however they were computed. Both sides are compared in NFC: the parts a letter is written in do not count.

    Raises DataError for a pattern that takes too long, KeyError for a metric that needs more than the text.
    """
    scorer = partial(scorers.json_score, schema=schema) if metric == "json" else METRICS[metric].of_text
    if scorer is None:
        raise KeyError(metric)
    given = composed(answer)
    return round(max(scorer(given, composed(target)) for target in (example.target, *example.other_targets)), scorers.DIGITS)
