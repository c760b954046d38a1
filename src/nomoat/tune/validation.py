"""How often and how long to evaluate on the lessons held out while learning, and which evaluations are better and worse."""

from __future__ import annotations

import math
from collections.abc import Sequence

EVALUATIONS = 4  # on the lessons held out while learning, at even distances; with more epochs, one an epoch
EVALUATION_PART = 0.2  # of --minutes is enough for these evaluations: so many fewer are made where each takes long
BASE_PART = 0.1  # of --minutes is enough to measure the base
FIRST_LESSONS = 4  # held out: how many more there is time for is told by how long these take
CHANCE = 0.01  # of the lessons held out: so many right answers fewer do not end the learning
CLEARLY_WORSE = 1.05  # times the lowest loss
SECONDS_A_MINUTE = 60


def num_evaluations(epochs: float, minutes: float | None, seconds_an_evaluation: float) -> int:
    """How often to evaluate on the lessons held out while learning; once at least, at the end. `epochs`: that there is time for."""
    most = max(EVALUATIONS, math.ceil(epochs))
    if not minutes or not seconds_an_evaluation:
        return most
    return max(1, min(most, int(EVALUATION_PART * minutes * SECONDS_A_MINUTE / seconds_an_evaluation)))


def seconds_for_base(minutes: float | None) -> float:
    """So many are enough for the look at the base; later looks are at the lessons that it has reached."""
    return BASE_PART * minutes * SECONDS_A_MINUTE if minutes else math.inf


def num_next(done: int, of: int, seconds: float, most_seconds: float) -> int:
    """How many lessons held out to look at next where some are `done`: those there is time for, as fast as it went; at first a few."""
    if math.isinf(most_seconds):
        return of - done
    if not done:
        return min(of, FIRST_LESSONS)
    more = done * (most_seconds - seconds) / seconds if seconds else math.inf
    return int(min(of - done, more)) if more >= FIRST_LESSONS else 0


def is_better(evaluation: dict[str, float], kept: dict[str, float], held_out: int) -> bool:
    """By loss; by right answers where chance does not explain how many more they are, since a model too sure of its mistakes has a
    high loss and the most right.
    """
    more = evaluation["right"] - kept["right"]
    wrong = 2 * held_out - evaluation["right"] - kept["right"]  # in both: the variance of the difference, were they independent
    return more > 0 if abs(more) > math.sqrt(wrong) else evaluation["held_out"] < kept["held_out"]


def is_clearly_worse(evaluation: dict[str, float], before: Sequence[dict[str, float]], held_out: int) -> bool:
    """Than the best ones before, in loss and in right answers; in loss alone, where hardly any answer is right yet."""
    most, right, chance = max(each["right"] for each in before), evaluation["right"], CHANCE * held_out
    fewer = most - right > chance or max(most, right) <= chance
    return fewer and evaluation["held_out"] > CLEARLY_WORSE * min(each["held_out"] for each in before)
