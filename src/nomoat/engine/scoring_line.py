"""Callers who want likelihoods at the same time: one of them has the model read what it can read together, for all of these."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence

from nomoat.engine.continuations import Question
from nomoat.errors import StoppedError
from nomoat.records import ChoiceScores


class _Place:
    """A caller's in the line."""

    def __init__(self, question: Question, model: int | None) -> None:
        self.question, self.model = question, model
        self.found: ChoiceScores | Exception | None = None


class ScoringLine:
    """Who stands first reads, the others wait for their scores or to be first.

    Those of the model that was read last stand before all others: another one may have to be loaded first. So while some come for it
    again and again, nobody else's turn comes.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[_Place] = []
        self._is_reading = False
        self._model: int | None = None

    def scores(
        self, question: Question, model: int | None, read: Callable[[Sequence[Question]], dict[int, ChoiceScores]], *,
        load: Callable[[], None] = lambda: None, stop: threading.Event | None = None,
    ) -> ChoiceScores:  # fmt: skip
        """`read`: the scores of the first of these questions, which is this one, and of those it reads with it, by their places. All
        are of `model`.

        `load` makes the model ready before; what it raises is raised for all who stand in the line for this model then. What `read`
        raises is raised here alone: the next one in the line reads the others' questions. Once `stop` is set, who was not read gets
        StoppedError as soon as nobody is being read.
        """
        place = _Place(question, model)
        has_left = stop.is_set if stop is not None else bool
        is_first = False
        try:
            with self._changed:
                self._line.append(place)
                self._changed.wait_for(
                    lambda: place.found is not None or (not self._is_reading and (self._first() is place or has_left()))
                )
                if isinstance(place.found, Exception):  # of its own: each of several threads adds to the traceback of what it raises
                    raise copy.copy(place.found) from place.found
                if place.found is not None:
                    return place.found
                if has_left():
                    raise StoppedError("the question was not read", hint="whoever asked it has gone")
                self._is_reading = is_first = True
                self._model = model
            self._load_for_all(model, load)
            with self._changed:
                same = [one for one in self._line if one.model == model]
            found = read([one.question for one in same])
            for at, scores in found.items():
                same[at].found = scores
            return found[0]
        finally:
            with self._changed:
                self._line = [one for one in self._line if one is not place and one.found is None]
                self._is_reading = self._is_reading and not is_first
                self._changed.notify_all()

    def _load_for_all(self, model: int | None, load: Callable[[], None]) -> None:
        try:
            load()
        except Exception as exc:
            with self._changed:
                for one in self._line:
                    if one.model == model:
                        one.found = exc
            raise

    def _first(self) -> _Place:
        return min(self._line, key=lambda one: one.model != self._model)
