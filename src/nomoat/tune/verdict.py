"""What a training has come to on the lessons held out: right answers and loss, how sure they are, and what is said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from nomoat.proportions import mcnemar_exact, wilson_interval
from nomoat.tune.samples import Sample, texts_of
from nomoat.tune.surveying import ONE_TEXT
from nomoat.words import counted

ALPHA = 0.05
WIDEST = 0.3  # of the interval of right answers: if it is wider, too few rows are held out
Verdict = Literal["better", "not shown to be better", "worse"]
Answer = tuple[int, ...]
ABOUT_RIGHT = (  # what `compare_right` finds
    "validation_right_before", "validation_right_before_95", "validation_right_after", "validation_right_after_95",
    "validation_texts_gained", "validation_texts_lost", "validation_right_p_value", "validation_right_commonest",
    "validation_are_labels",
)  # fmt: skip


def compare_right(
    held_out: Sequence[Sample], before: Sequence[bool], after: Sequence[bool], learned: Iterable[Sample]
) -> dict[str, Any]:  # fmt: skip
    """What is written about right answers: of so many rows held out before and after, with intervals of 95 %; and of how many texts
    more of them or fewer, with the p-value of McNemar's exact test. A text's copies, and a conversation's rows, are one text.

    The answers are labels where most of them are answers to `learned` lessons, too. `validation_right_commonest`: rows that one
    answer to all would have right. Not counted with: that of several looks the best on these same lessons was kept.
    """
    text_R = texts_of(held_out)
    sizes_T = np.bincount(text_R)
    effective = float(sizes_T.sum() ** 2 / (sizes_T @ sizes_T))  # texts of one size that tell as much: Kish 1965, section 11.7
    changes_T = np.bincount(text_R, np.subtract(after, before, dtype=np.float64))
    gained, lost = int((changes_T > 0).sum()), int((changes_T < 0).sum())
    answers = Counter(answer for sample in held_out for answer in answers_of(sample))
    known = {answer for sample in learned for answer in answers_of(sample) if answer in answers}
    alone = Counter(own.pop() for sample in held_out if len(own := set(answers_of(sample))) == 1)
    found: dict[str, Any] = {}
    for name, right in (("before", before), ("after", after)):
        interval = wilson_interval(effective * (sum(right) / len(right)), effective)
        found |= {f"validation_right_{name}": sum(right), f"validation_right_{name}_95": [round(end, 4) for end in interval]}
    return found | {
        "validation_texts_gained": gained,
        "validation_texts_lost": lost,
        "validation_right_p_value": mcnemar_exact(lost, gained),
        "validation_right_commonest": max(alone.values(), default=0),
        "validation_are_labels": 2 * sum(answers[answer] for answer in known) > answers.total(),
    }


def answers_of(sample: Sample) -> list[Answer]:
    """The tokens of each, without what ends it."""
    return [tuple(sample.tokens[start : stop - 1]) for start, stop in sample.answers]


def verdict_of(metrics: dict[str, Any]) -> Verdict | None:
    """Labels have to be right more often, beyond chance, than before, and than the commonest one alone would be. Of other answers, of
    which few or none may be right word for word, the loss decides, unless chance does not explain how many more or fewer are right.

    None where at most one text is held out.
    """
    change = metrics["validation_loss_change_95"]
    if change is None:
        return None
    direction = _clear_direction(metrics)
    if direction < 0 or (change[0] > 0 and not direction and not metrics["validation_are_labels"]):
        return "worse"
    return "not shown to be better" if any(_doubts(metrics)) else "better"


def _clear_direction(metrics: dict[str, Any]) -> int:
    """1 where right answers are more beyond chance, -1 where fewer; else 0, as where texts and the rows together go other ways."""
    more_rows = metrics["validation_right_after"] - metrics["validation_right_before"]
    more_texts = metrics["validation_texts_gained"] - metrics["validation_texts_lost"]
    if metrics["validation_right_p_value"] > ALPHA or more_rows * more_texts <= 0:
        return 0
    return 1 if more_rows > 0 else -1


def _doubts(metrics: dict[str, Any]) -> Iterator[str]:
    direction, are_labels = _clear_direction(metrics), metrics["validation_are_labels"]
    p_value = f"p = {metrics['validation_right_p_value']:.2g}"
    if direction < 0:
        yield f"clearly fewer answers are right than before ({p_value})"
    elif are_labels and not direction:
        texts = f"more in {counted(metrics['validation_texts_gained'], 'text')}, fewer in {metrics['validation_texts_lost']:,}"
        yield f"right answers are not clearly more than before ({texts}, {p_value})"
    if are_labels and metrics["validation_right_commonest"] >= metrics["validation_right_after_95"][0] * metrics["validation_answers"]:
        yield "right answers are not clearly more than the commonest answer alone has"
    if metrics["validation_loss_change_95"][1] >= 0 and direction <= 0 and not are_labels:
        yield _loss(metrics)


def _loss(metrics: dict[str, Any]) -> str:
    """Of one not clearly lower."""
    low, high = metrics["validation_loss_change_95"]
    reach = f"the change is {low:+.3f} to {high:+.3f}, 95 %"
    return f"the loss is clearly higher ({reach})" if low > 0 else f"chance alone may change the loss so ({reach})"


def result_lines(metrics: dict[str, Any], *, has_file: bool) -> Iterator[str]:
    """What a training has come to, in words. `has_file`: what is held out is a file, or rows, of its own."""
    if not metrics["validation_lessons"]:
        return
    lessons, left_out = metrics["validation_lessons"], metrics["validation_lessons_left_out"]
    of_all = f" of the {lessons + left_out:,}" if left_out else ""
    losses = f"{metrics['validation_loss_before']:.3f} before, {metrics['validation_loss_after']:.3f} after"
    yield f"loss on {counted(lessons, 'lesson')}{of_all} held out: {losses}"
    rows, before, after = (metrics[f"validation_{name}"] for name in ("answers", "right_before", "right_after"))
    low, high = metrics["validation_right_after_95"]
    says_right = metrics["validation_are_labels"] or before or after
    if says_right:
        alone = f"; the commonest answer alone: {metrics['validation_right_commonest']:,}" if metrics["validation_are_labels"] else ""
        share = f"{100 * after / rows:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        yield f"right word for word: {after:,} of {counted(rows, 'row')} held out, {share}; {before:,} before{alone}"
    verdict = metrics["validation_verdict"]
    is_too_few = verdict not in (None, "worse") and says_right and high - low > WIDEST
    if doubts := list(_doubts(metrics)) if verdict else []:
        is_unfinished = verdict != "worse" and metrics["epochs_done"] < 1  # then more time helps, which is said where it was over
        advice = "" if is_too_few or is_unfinished else "; try a lower --learning-rate (in Python: `learning_rate`), or more data"
        yield f"{', and '.join(doubts)}: the tuned model is {verdict}{advice}"
    elif verdict and metrics["validation_loss_change_95"][1] >= 0:
        yield f"{_loss(metrics)}, yet clearly more answers are right: a `nomoat duel` on a test tells how good the tuned model is"
    if verdict is None or is_too_few:
        yield f"{'too few rows are held out to tell how many are right' if verdict else ONE_TEXT}; {_more(left_out, has_file)}"


def _more(left_out: int, has_file: bool) -> str:
    if left_out:
        return "more --minutes (in Python: `minutes`) look at more"
    return f"give --validation (in Python: `validation`) {'a file that holds more' if has_file else 'a file'}"
