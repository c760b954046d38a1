"""What would leave this machine, before it does: how many texts, how many bytes, to whom, at what cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import UsageError
from nomoat.records import Request
from nomoat.references import names_weights
from nomoat.responder import Responder


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The questions a server outside would be sent by one run. `most_usd` is None where no price is known.

    `num_bytes` is UTF-8 text; where questions follow each other, earlier ones and their answers are sent once more with the next, and
    count where they are known.
    """

    model: str
    host: str
    texts: tuple[str, ...]
    num_bytes: int
    most_usd: float | None


def preview_requests(model: Responder, requests: Iterable[Request], *, spending: Spending, store: AnswerStore) -> Preview | None:
    """What these requests would send; None if the model runs here or on workers, or all are answered already. Sends nothing.

    Raises UsageError for a model that is neither here nor one server: `auto` is two models.
    """
    if model.is_local or names_weights(model.ref):
        return None
    if not isinstance(model.engine, RemoteEngine):
        raise UsageError(
            f"what `{model.ref}` would send, and to whom, is not known beforehand",
            hint="name one model: one on this machine, or a server",
        )
    pending = [request for request in dict.fromkeys(requests) if store.answer(model.digest, request) is None]
    texts = tuple(_text_of(request) for request in pending)
    if not texts:
        return None
    rates = spending.pricing(model).rates
    return Preview(
        model=model.ref,
        host=model.engine.host,
        texts=texts,
        num_bytes=sum(len(text.encode()) for text in texts),
        most_usd=None if rates is None else sum(rates.most_usd(request) for request in pending),
    )


def _text_of(request: Request) -> str:
    """All that a request says: its conversation, or the text that is to be continued."""
    return "\n\n".join(message.content for message in request.messages) if request.prompt is None else request.prompt
