"""A model and the store of answers, opened for a run and closed after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from nomoat import references
from nomoat import responder as responders
from nomoat.asking.store import AnswerStore
from nomoat.judge.kept import is_kept, kept_responder
from nomoat.judge.settings import RunSettings
from nomoat.responder import Responder


def given(model: str | Path | Responder) -> str | Responder:
    """What a caller gave as a model. Raises UsageError for what is none."""
    return model if isinstance(model, Responder) else references.named(model)


@contextmanager
def opened(responder: str | Responder, settings: RunSettings | None = None) -> Iterator[Responder]:
    """A responder given is the caller's to close; one loaded here, or on the settings' workers, is closed here.

    Kept answers are looked for in the settings' store.
    """
    if isinstance(responder, Responder):
        yield responder
        return
    settings = settings or RunSettings()
    if is_kept(responder):
        with opened_store(settings) as answers:
            kept = kept_responder(responder, answers)
        yield kept
        return
    load = responders.load if settings.workers is None else settings.workers.load
    with load(responder, fallback_template=settings.template) as loaded:
        yield loaded


@contextmanager
def opened_store(settings: RunSettings) -> Iterator[AnswerStore]:
    """The settings' store, or the usual one. What ends the block tells what was paid: see `Spending.told`."""
    with settings.spending.told(), AnswerStore() if settings.store is None else nullcontext(settings.store) as store:
        yield store
