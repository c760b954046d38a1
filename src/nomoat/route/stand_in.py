"""An engine of one request, which a model answers in a way of its own: all but the answer is as that model has it."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.engine import Engine
from nomoat.records import ContinuationScore, Request
from nomoat.responder import Responder


class StandIn(Engine):
    """See the module."""

    def __init__(self, model: Responder) -> None:
        self._stand_for(model)

    def _stand_for(self, model: Responder) -> None:
        """From now on."""
        self._model = model
        self.give_up_waiting = model.engine.give_up_waiting

    @property
    def digest(self) -> str:
        return self._model.digest

    @property
    def is_local(self) -> bool:
        return self._model.is_local

    @property
    def context_tokens(self) -> int | None:
        return self._model.engine.context_tokens

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """See `Responder.notes_on`: of the one who answers."""
        return self._model.notes_on(request)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return self._model.score(request, continuations)

    def count_tokens(self, request: Request) -> int:
        return self._model.engine.count_tokens(request)

    def close(self) -> None:
        """The model is its owner's."""
