"""What would leave this machine, before it does: how many texts, how many bytes, to whom, at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nomoat.asking.spending import NAME_ONE_MODEL, Spending
from nomoat.asking.store import AnswerStore
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import UsageError
from nomoat.records import Request
from nomoat.references import names_weights
from nomoat.responder import Responder


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The questions a server outside would be sent by one run, and the first of them. `most_usd` is None where no price is known.

    `num_bytes` is UTF-8 text; where questions follow each other, earlier ones and their answers are sent once more with the next, and
    count where they are known. `texts` are the questions, or, where they `are_parts`, what all of these are made of.
    """

    model: str
    host: str
    num_texts: int
    num_bytes: int
    most_usd: float | None
    first: str
    texts: tuple[str, ...]
    are_parts: bool = False


def preview_requests(
    model: Responder, requests: Iterable[Request], *, spending: Spending, store: AnswerStore, parts: Sequence[str] = ()
) -> Preview | None:
    """What these requests, each of them once, would send; None if the model runs here or on workers, or all are answered already.

    Sends nothing. `parts` are what all requests are made of; where these are fewer, they are told in place of the questions.
    Raises UsageError for a model that is neither here nor one server: `auto` is two models.
    """
    if model.is_local or names_weights(model.ref):
        return None
    if not isinstance(model.engine, RemoteEngine):
        raise UsageError(f"what `{model.ref}` would send, and to whom, is not known beforehand", hint=NAME_ONE_MODEL)
    rates = spending.pricing(model).rates
    texts: list[str] = []
    num_texts, num_bytes, most_usd = 0, 0, 0.0
    for request in requests:  # which may be made one by one, and more than there is memory for
        if store.answer(model.digest, request) is not None:
            continue
        text = _text_of(request)
        num_texts, num_bytes = num_texts + 1, num_bytes + len(text.encode())
        most_usd += 0.0 if rates is None else rates.most_usd(request)
        if not parts or len(texts) < len(parts):
            texts.append(text)
    if not texts:
        return None
    are_parts = num_texts > len(parts) > 0
    return Preview(
        model=model.ref, host=model.engine.place, num_texts=num_texts, num_bytes=num_bytes,
        most_usd=None if rates is None else most_usd, first=texts[0], texts=tuple(parts if are_parts else texts), are_parts=are_parts,
    )  # fmt: skip


def _text_of(request: Request) -> str:
    """All that a request says: its conversation, or the text that is to be continued."""
    return "\n\n".join(message.content for message in request.messages) if request.prompt is None else request.prompt
