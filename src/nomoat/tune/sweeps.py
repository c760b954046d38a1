"""Which lessons are learned, and in which order: all, then all again; where there are many labels, then those known least.

What is known least of few labels is mostly what is said wrongly or could be either: so is what free texts say of their own. What was
measured stands in docs/tried/tuning-accuracy.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from nomoat.tune.prepare import Chosen
from nomoat.tune.samples import Sample, batches_of

LEAST_KNOWN_PART = 0.5  # of the lessons are learned once more in each later sweep
MANY_LABELS, LESSONS_A_LABEL = 20, 10


class Sweeps:
    """Batches of lessons of like length, in an order that depends on the seed and the sweep.

    `are_of_all`: later ones, too.
    """

    def __init__(self, training: Sequence[Sample], prefix: int, settings: Chosen) -> None:
        self._training, self._prefix, self._settings = training, prefix, settings
        self._places = {id(lesson): at for at, lesson in enumerate(training)}
        self._last_losses = [0.0] * len(training)  # of each lesson's answers, as it was last met
        self._least_known: list[int] = []  # the places of this sweep's lessons, where they are not all
        self._num_later = len(training)  # of a sweep after the first
        self.are_of_all = not has_many_labels(training)
        if not self.are_of_all:  # a whole number of batches, so that no step is of a few
            batches = math.ceil(len(training) * LEAST_KNOWN_PART / settings.batch)
            self._num_later = min(len(training), batches * settings.batch)

    def first(self) -> list[list[Sample]]:
        """The batches of all lessons, as they are met before any other."""
        return self._batches(self._training, 0)

    def after(self, num_done: int) -> list[list[Sample]]:
        """The batches left of a sweep when so many lessons are done: a resumed training meets the same ones, in the middle, too."""
        if num_done < len(self._training):
            batches, within = self.first(), num_done
        else:
            sweep, within = divmod(num_done - len(self._training), self._num_later)
            if not self.are_of_all and not within:
                self._least_known = self._find_least_known()
            lessons = [self._training[at] for at in self._least_known] or self._training
            batches = self._batches(lessons, 1 + sweep)
        while within > 0:
            within -= len(batches.pop(0))
        return batches

    def places(self, batch: Sequence[Sample]) -> list[int]:
        """Of its lessons among all."""
        return [self._places[id(lesson)] for lesson in batch]

    def note(self, batch: Sequence[Sample], losses: Sequence[float]) -> None:
        """These were met, and each one's loss was this."""
        for place, loss in zip(self.places(batch), losses, strict=True):
            self._last_losses[place] = loss

    def state_dict(self) -> dict[str, Any]:
        """To go on from."""
        return {"last_losses": self._last_losses, "least_known": self._least_known}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self._last_losses, self._least_known = saved["last_losses"], saved["least_known"]

    def _find_least_known(self) -> list[int]:
        """The places of the lessons with the highest losses when they were last met.

        A lesson that was met early has a high one, and one that is left out keeps its own while those of the others fall: none is
        left out for ever. Idea: Loshchilov & Hutter 2015, Online batch selection, arXiv:1511.06343.
        """
        return sorted(range(len(self._training)), key=lambda at: -self._last_losses[at])[: self._num_later]

    def _batches(self, lessons: Sequence[Sample], sweep: int) -> list[list[Sample]]:
        shuffled = random.Random(f"{self._settings.seed}/{sweep}")
        batches = batches_of(shuffled.sample(lessons, len(lessons)), self._prefix, max_lessons=self._settings.batch)
        shuffled.shuffle(batches)
        return batches


def has_many_labels(lessons: Sequence[Sample]) -> bool:
    """Each has one answer, which it shares with others; a table's, or a chat's. There are MANY_LABELS different ones, or more."""
    labels = {tuple(lesson.tokens[start:stop]) for lesson in lessons for start, stop in lesson.answers}
    has_one = all(len(lesson.answers) == 1 for lesson in lessons)
    return has_one and MANY_LABELS <= len(labels) <= len(lessons) / LESSONS_A_LABEL
