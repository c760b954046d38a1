"""How often and how long to evaluate on the lessons held out while learning, and which evaluations are better and worse."""

from __future__ import annotations

import math
from collections.abc import Sequence

EVALUATIONS = 4  # on the lessons held out while learning, at even distances; with more epochs, one an epoch
EVALUATION_PART = 0.2  # of --minutes is enough for these evaluations: so many fewer are made where each takes long
BASE_PART = 0.1  # of --minutes is enough to measure the base, but for a group that is begun: no look is longer than that one
CHANCE = 0.01  # of the lessons held out: so many right answers more or less say nothing
CLEARLY_WORSE = 1.05  # times the lowest loss
SECONDS_A_MINUTE = 60


def num_evaluations(epochs: float, minutes: float | None, seconds_an_evaluation: float) -> int:
    """How often to evaluate on the lessons held out while learning; once at least, at the end. `epochs`: that there is time for."""
    most = max(EVALUATIONS, math.ceil(epochs))
    if not minutes or not seconds_an_evaluation:
        return most
    return max(1, min(most, int(EVALUATION_PART * minutes * SECONDS_A_MINUTE / seconds_an_evaluation)))


def seconds_for_base(minutes: float | None) -> float:
    """After so many the look at the base is over, and later looks are at the lessons that it has reached."""
    return BASE_PART * minutes * SECONDS_A_MINUTE if minutes else math.inf


def is_better(evaluation: dict[str, float], kept: dict[str, float], held_out: int) -> bool:
    """By right answers, since a model too sure of its mistakes has a high loss and the most right; by loss if they are about equal."""
    more = evaluation["right"] - kept["right"]
    return more > 0 if abs(more) > CHANCE * held_out else evaluation["held_out"] < kept["held_out"]


def is_clearly_worse(evaluation: dict[str, float], before: Sequence[dict[str, float]], held_out: int) -> bool:
    """Than the best ones before, in loss and in right answers; in loss alone, where hardly any answer is right yet."""
    most, right, chance = max(each["right"] for each in before), evaluation["right"], CHANCE * held_out
    fewer = most - right > chance or max(most, right) <= chance
    return fewer and evaluation["held_out"] > CLEARLY_WORSE * min(each["held_out"] for each in before)
