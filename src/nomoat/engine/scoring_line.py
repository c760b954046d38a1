"""Callers who want likelihoods at the same time: one of them has the model read what it can read together, for all of these."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from nomoat.engine.likelihood import Question
from nomoat.records import ContinuationScore

Scores = list[ContinuationScore]


class _Place:
    """A caller's in the line."""

    def __init__(self, question: Question, model: int | None) -> None:
        self.question, self.model = question, model
        self.scores: Scores | None = None


class ScoringLine:
    """Who stands first reads, the others wait for their scores or to be first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[_Place] = []
        self._is_reading = False

    def scores(self, question: Question, model: int | None, read: Callable[[Sequence[Question]], dict[int, Scores]]) -> Scores:
        """`read`: the scores of the first of these questions, and of those it reads with it, by their places. All are of `model`.

        What it raises is raised here alone: the next one in the line reads the others' questions.
        """
        place = _Place(question, model)
        is_first = False
        try:
            with self._changed:
                self._line.append(place)
                self._changed.wait_for(lambda: place.scores is not None or (self._line[0] is place and not self._is_reading))
                if place.scores is not None:
                    return place.scores
                self._is_reading = is_first = True
                same = [one for one in self._line if one.model == model]
            found = read([one.question for one in same])
            for at, scores in found.items():
                same[at].scores = scores
            return found[0]
        finally:
            with self._changed:
                self._line = [one for one in self._line if one is not place and one.scores is None]
                self._is_reading = self._is_reading and not is_first
                self._changed.notify_all()
