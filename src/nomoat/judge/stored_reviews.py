"""Reviews of stored answers that a judge wrote before, and that were kept. Models that judge now are in `model_judge.py`.

A folder in FastChat's layout holds answer/answer_NAME.jsonl (answer_id), review/RUN/FILE.jsonl (answer1_id, answer2_id, score,
text) and reviewer.jsonl (reviewer_id, metadata). Which systems a review file compares is read from its answer ids, not its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nomoat.engine.stored import ANSWER_PREFIX, full_stored_name, stored_names
from nomoat.errors import UnsupportedError
from nomoat.textfiles import read_jsonl

SCALE = (0.0, 10.0)  # judges are asked for 1 to 10, and GPT-4 gave a 0 to an answer that holds nothing
TWO_SCORES = re.compile(r"\s*(\d+(?:\.\d+)?)(?:\s*[,/]\s*|\s+)(\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReviews:
    """What one judge thought of two systems' answers. `scores` is (left, right) by question, on the judge's scale: see SCALE.

    `shown_first` is the system whose answers the judge read first, in every review. `num_in_prose` counts the reviews whose text
    does not begin with the two scores, so that the recorded numbers could not be checked against it.
    """

    left: str
    right: str
    scores: Mapping[str, tuple[float, float]]
    shown_first: str
    judge: str
    temperature: float
    num_in_prose: int


def load_reviews(suite: str, folder: Path, left: str, right: str) -> StoredReviews:
    """The stored reviews of two systems, whichever was shown first.

    Raises UnknownModelError for a system without stored answers, UnsupportedError (naming the pairs there are) for two that were
    never compared.
    """
    left, right = full_stored_name(suite, left, folder), full_stored_name(suite, right, folder)
    pairs = _pairs(folder)
    if (left, right) in pairs:
        path, swapped = pairs[left, right], False
    elif (right, left) in pairs:
        path, swapped = pairs[right, left], True
    else:
        known = "; ".join(sorted(f"{second} and {first}" for first, second in pairs))
        raise UnsupportedError(f"no stored review compares `{left}` and `{right}`", hint=f"reviewed together were: {known}")
    judge, temperature = _judge(folder)
    scores: dict[str, tuple[float, float]] = {}
    num_in_prose = 0
    for _, row in read_jsonl(path):
        first, second = map(float, row["score"])  # some are whole numbers
        scores[str(row["question_id"])] = (second, first) if swapped else (first, second)
        num_in_prose += parse_scores(row["text"]) is None
    return StoredReviews(
        left=left,
        right=right,
        scores=scores,
        shown_first=right if swapped else left,
        judge=judge,
        temperature=temperature,
        num_in_prose=num_in_prose,
    )


def parse_scores(review: str) -> tuple[float, float] | None:
    """The two scores a review begins with: "9 8.5", "9, 8.5" or "9/8.5" alone on its first line; None if it begins otherwise."""
    lines = review.strip().splitlines()
    found = TWO_SCORES.fullmatch(lines[0]) if lines else None
    return (float(found[1]), float(found[2])) if found else None


def _pairs(folder: Path) -> dict[tuple[str, str], Path]:
    """Review file by the systems it compares, in the order in which the judge read them."""
    owner: dict[str, str] = {}
    for name in stored_names(folder):
        for _, row in read_jsonl(folder / "answer" / f"{ANSWER_PREFIX}{name}.jsonl"):
            owner[row["answer_id"]] = name
    pairs: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("review/*/*.jsonl")):
        _, row = read_jsonl(path)[0]
        pairs.setdefault((owner[row["answer1_id"]], owner[row["answer2_id"]]), path)
    return pairs


def _judge(folder: Path) -> tuple[str, float]:
    """Name and temperature of the judge."""
    rows = [row for _, row in read_jsonl(folder / "reviewer.jsonl")]
    (name,) = {row["reviewer_id"].rpartition("-")[0] for row in rows}  # gpt-4-0328-coding, gpt-4-0328-math, ...
    (temperature,) = {row["metadata"]["temperature"] for row in rows}
    return name, temperature
