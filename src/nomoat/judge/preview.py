"""What would leave this machine, before it does: how many texts, how many bytes, to whom, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nomoat.engine.remote import RemoteEngine, is_remote
from nomoat.judge.run import Asking, drawn, opened, quiet
from nomoat.judge.spending import Spending
from nomoat.judge.store import AnswerStore
from nomoat.judge.suites import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The questions a server outside would be sent by one run. `most_usd` is None where no price is known.

    `num_bytes` is UTF-8 text; where questions follow each other, earlier ones and their answers are sent once more with the next.
    """

    model: str
    host: str
    texts: tuple[str, ...]
    num_bytes: int
    most_usd: float | None


def preview_of(model: str, suite: Suite, *, limit: int | None, seed: int, spending: Spending, store: AnswerStore) -> Preview | None:
    """What a run would send for this model; None if it is on this machine, or everything is answered already. Sends no text."""
    if not is_remote(model):
        return None
    asked, _ = drawn(suite, limit, seed)
    with opened(model) as responder:
        if responder.is_local or not isinstance(responder.engine, RemoteEngine):
            return None
        asking = Asking(model=responder, suite=asked, store=store, concurrency=1, progress=quiet, spending=spending)
        asking.writes_choices = suite.metric == "choice"  # no server gives likelihoods
        requests = {example: asking.request(replace(example, follows="")) for example in asked.examples}
        pending = [request for request in dict.fromkeys(requests.values()) if store.answer(responder.digest, request) is None]
        rates = spending.pricing(responder).rates
        host = responder.engine.host
    texts = tuple("\n\n".join(message.content for message in request.messages) for request in pending)
    if not texts:
        return None
    return Preview(
        model=model,
        host=host,
        texts=texts,
        num_bytes=sum(len(text.encode()) for text in texts),
        most_usd=None if rates is None else sum(rates.most_usd(request) for request in pending),
    )


def previews(models: Sequence[str], suite: Suite, *, limit: int | None, seed: int, spending: Spending) -> list[Preview]:
    """`preview_of` each model that is named, as far as it would send something."""
    with AnswerStore() as store:
        found = [preview_of(model, suite, limit=limit, seed=seed, spending=spending, store=store) for model in dict.fromkeys(models)]
    return [preview for preview in found if preview is not None]
