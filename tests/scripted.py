"""Engines that keep what they are asked, and one that answers with what a test writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nomoat.engine.fake import FakeEngine
from nomoat.records import ChoiceScores, Chunk, ContinuationScore, Request


class Asked(FakeEngine):
    """Keeps what it is asked."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.asked: list[Request] = []

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        return super().generate(request)

    @property
    def questions(self) -> list[str]:
        """The last message of each conversation."""
        return [request.messages[-1].content for request in self.asked]

    @property
    def conversations(self) -> list[list[str]]:
        """Each conversation's messages."""
        return [[message.content for message in request.messages] for request in self.asked]


class ScriptedEngine(Asked):
    """Answers with what a function yields."""

    def __init__(self, script: Callable[[], Iterator[Chunk]], **kwargs: int) -> None:
        super().__init__(**kwargs)
        self._script = script

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        yield from self._script()


class Choosing(FakeEngine):
    """Scores every question's choices as a function says, which is told how much may stay unread; keeps that."""

    def __init__(self, scores: Callable[[float], tuple[ContinuationScore, ...]]) -> None:
        super().__init__()
        self._scores = scores
        self.max_unread: list[float] = []

    def timed_scores(
        self, request: Request, continuations: Sequence[str], *, max_unread: float = 0.0, stop: threading.Event | None = None
    ) -> ChoiceScores:
        self.max_unread.append(max_unread)
        return ChoiceScores(scores=self._scores(max_unread), seconds=1.0)
