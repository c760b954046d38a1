"""An engine that answers with what a test writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nomoat.engine.fake import FakeEngine
from nomoat.records import Chunk, Request


class ScriptedEngine(FakeEngine):
    """Answers with what a function yields, and keeps what it was asked."""

    def __init__(self, script: Callable[[], Iterator[Chunk]], **kwargs: int) -> None:
        super().__init__(**kwargs)
        self.asked: list[Request] = []
        self._script = script

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        yield from self._script()
