"""A table asked as the tuned models that answer it were: with the labels they learned beside its own.

What this does not cover: models that a server or the router answers with; written suites, whose choices stand there; and the words
before each text, which are the user's to give: where they differ from those that were learned, a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat import references
from nomoat.catalog import tuned
from nomoat.errors import UnknownModelError
from nomoat.references import STORED
from nomoat.tasks import MAX_LABELS, kept_question

if TYPE_CHECKING:
    from nomoat.responder import Responder

NAMED = 10  # labels in a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a model tuned on a table learned. `labels` is empty where they were free answers."""

    ref: str
    labels: frozenset[str]
    question: str
    has_instruction: bool


def learned_by(models: Iterable[str | Responder]) -> list[Learned]:
    """Of those models whose adapter is here and was tuned on a table, also of those whose kept answers stand for them."""
    found = []
    for ref in dict.fromkeys(model if isinstance(model, str) else model.ref for model in models):
        name = ref.removeprefix(STORED).partition("/")[2] if ref.startswith(STORED) else ref
        adapter = references.split(name)[1] if references.names_weights(name) else ""
        with suppress(UnknownModelError):  # whoever loads it says so
            provenance = tuned.provenance_of(tuned.find_adapter(adapter)) if adapter else {}
            if (question := tuned.question_of(provenance)) is not None:
                labels = frozenset(tuned.labels_of(provenance))
                has_instruction = tuned.instruction_of(provenance) is not None
                found.append(Learned(ref=name, labels=labels, question=question, has_instruction=has_instruction))
    return found


def labels_with(own: set[str], learned: Sequence[Learned]) -> set[str]:
    """A table's own labels, and those that models know besides which learned some of them; who learned none learned something else."""
    known = own.union(*(model.labels for model in learned if model.labels & own))
    return known if len(known) <= MAX_LABELS else own


def notes(own: set[str], asked: set[str], words: str, learned: Sequence[Learned]) -> Iterator[str]:
    """What has to be known where a question differs from what the table alone would ask, or from what a model learned.

    `own` are the table's labels, `asked` those that can be chosen, `words` stand before each text.
    """
    for model in learned:
        if besides := sorted((asked - own) & model.labels):
            yield f"asked for besides the table's labels: {_some(besides)}; `{model.ref}` learned to choose from these, too"
        unknown = sorted(asked - model.labels) if model.labels & own else []
        if unknown:
            yield f"`{model.ref}` never learned {_some(unknown)}, which can be chosen here"
        elif model.question != kept_question(words):
            hint = "; give the same --instruction (in Python: `instruction`)" if model.has_instruction else ""
            yield f"`{model.ref}` was tuned on another question than this, see `nomoat show {model.ref}`{hint}"


def _some(labels: Sequence[str]) -> str:
    rest = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    return f"{', '.join(labels[:NAMED])}{rest}"
