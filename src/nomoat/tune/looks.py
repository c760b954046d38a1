"""How often to look at the lessons held out while learning, and which of two looks was the better one."""

from __future__ import annotations

import math

LOOKS = 4  # at the lessons held out while learning, at even distances; with more epochs, one an epoch
LOOKING_PART = 0.2  # of --minutes is enough for these looks: so many fewer are made where each takes long
CHANCE = 0.01  # of the lessons held out: so many right answers more or less say nothing
SECONDS_A_MINUTE = 60


def num_looks(epochs: float, minutes: float | None, seconds_a_look: float) -> int:
    """How often to look at the lessons held out while learning; once at least, at the end. `epochs`: that there is time for."""
    most = max(LOOKS, math.ceil(epochs))
    if not minutes or not seconds_a_look:
        return most
    return max(1, min(most, int(LOOKING_PART * minutes * SECONDS_A_MINUTE / seconds_a_look)))


def is_better(look: dict[str, float], kept: dict[str, float], held_out: int) -> bool:
    """By right answers, since a model too sure of its mistakes has a high loss and the most right; by loss if they are about equal."""
    more = look["right"] - kept["right"]
    return more > 0 if abs(more) > CHANCE * held_out else look["held_out"] < kept["held_out"]
