"""What the questions of a suite would send to servers outside."""

from __future__ import annotations

from collections.abc import Sequence

from nomoat.asking.preview import Preview, preview_requests
from nomoat.asking.store import AnswerStore
from nomoat.judge.asking import Asking
from nomoat.judge.opened import opened
from nomoat.judge.run import drawn
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.providers import is_remote


def preview_of(model: str, suite: Suite, settings: RunSettings, *, store: AnswerStore) -> Preview | None:
    """What a run would send for this model; None if it is on this machine, or everything is answered already. Sends no text."""
    if not is_remote(model):
        return None
    asked, _ = drawn(suite, settings.limit, settings.seed)
    with opened(model) as responder:
        if responder.is_local:
            return None
        asking = Asking(model=responder, suite=asked, store=store, settings=settings)
        asking.writes_choices = suite.metric == "choice"  # no server gives likelihoods
        asking.answered(asked.examples)  # remembered: what follows an answer is asked with the conversation before it
        requests = [asking.request(example) for example in asked.examples]
        return preview_requests(responder, dict.fromkeys(requests), spending=settings.spending, store=store)


def shown_to_judge(suite: Suite, *, limit: int | None, seed: int) -> tuple[str, ...]:
    """The texts of a suite that a judge is shown besides the answers: its questions and reference answers."""
    asked, _ = drawn(suite, limit, seed)
    texts = (text for example in asked.examples for text in (*(message.content for message in example.messages), example.target))
    return tuple(text for text in texts if text)


def previews(models: Sequence[str], suite: Suite, settings: RunSettings) -> list[Preview]:
    """`preview_of` each model that is named, as far as it would send something."""
    with AnswerStore() as store:
        found = [preview_of(model, suite, settings, store=store) for model in dict.fromkeys(models)]
    return [preview for preview in found if preview is not None]
