"""Reviews of stored answers that a judge wrote before, and that were kept. Models that judge now are in `model_judge.py`.

A folder in FastChat's layout holds answer/answer_NAME.jsonl (answer_id), review/RUN/FILE.jsonl (answer1_id, answer2_id, score,
text) and reviewer.jsonl (reviewer_id, metadata). Which systems a review file compares is read from its answer ids, not its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.engine.stored import ANSWER_PREFIX, full_stored_name, stored_names
from nomoat.errors import DataError, UnsupportedError
from nomoat.textfiles import read_jsonl

SCALE = (0.0, 10.0)  # judges are asked for 1 to 10, and GPT-4 gave a 0 to an answer that holds nothing
PULL_AGAIN = "that is not as it was published: remove the file, and it is pulled again"
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
    temperature: float | None
    num_in_prose: int


def load_reviews(suite: str, folder: Path, left: str, right: str) -> StoredReviews:
    """The stored reviews of two systems, whichever was shown first.

    Raises UnknownModelError for a system without stored answers, UnsupportedError (naming the pairs there are) for two that were
    never compared, DataError for a review that is not as it should be.
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
    for line, row in read_jsonl(path):
        first, second, in_prose = _scores(path, line, row)
        scores[str(row["question_id"])] = (second, first) if swapped else (first, second)
        num_in_prose += in_prose
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


def _scores(path: Path, line: int, row: dict[str, Any]) -> tuple[float, float, bool]:
    """First's and second's score of one review, and whether its text could not confirm them."""
    where = f"`{path}`, line {line}"
    stated = parse_scores(str(row.get("text", "")))
    recorded = row.get("score")
    if recorded is None and stated is not None:
        recorded = list(stated)
    if "question_id" not in row or not isinstance(recorded, list) or len(recorded) != 2:
        raise DataError(f"{where}: a review has a `question_id` and two scores", hint=PULL_AGAIN)
    if not all(isinstance(value, int | float) and SCALE[0] <= value <= SCALE[1] for value in recorded):
        raise DataError(f"{where}: the scores are {recorded}, and should lie between 0 and 10", hint=PULL_AGAIN)
    if stated is not None and list(stated) != [float(value) for value in recorded]:
        raise DataError(
            f"{where}: the review says {stated[0]:g} and {stated[1]:g}, but {recorded} is recorded with it", hint=PULL_AGAIN
        )
    return float(recorded[0]), float(recorded[1]), stated is None


def _pairs(folder: Path) -> dict[tuple[str, str], Path]:
    """Review file by the systems it compares, in the order in which the judge read them."""
    owner: dict[str, str] = {}
    for name in stored_names(folder):
        for _, row in read_jsonl(folder / "answer" / f"{ANSWER_PREFIX}{name}.jsonl"):
            owner[str(row.get("answer_id"))] = name
    pairs: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("review/*/*.jsonl")):
        compared = {(owner.get(str(row.get("answer1_id"))), owner.get(str(row.get("answer2_id")))) for _, row in read_jsonl(path)}
        first, second = next(iter(compared))
        if len(compared) != 1 or first is None or second is None:
            raise DataError(f"`{path}` does not review the stored answers of the same two systems throughout", hint=PULL_AGAIN)
        pairs.setdefault((first, second), path)
    return pairs


def _judge(folder: Path) -> tuple[str, float | None]:
    """Name and temperature of the judge, as far as the folder says."""
    path = folder / "reviewer.jsonl"
    if not path.exists():
        return "an unnamed judge", None
    rows = [row for _, row in read_jsonl(path)]
    names = {str(row.get("reviewer_id", "")).rpartition("-")[0] for row in rows}  # gpt-4-0328-coding, gpt-4-0328-math, ...
    temperatures = {row.get("metadata", {}).get("temperature") for row in rows}
    temperature = temperatures.pop() if len(temperatures) == 1 else None
    return (names.pop() if len(names) == 1 else "") or "an unnamed judge", temperature
