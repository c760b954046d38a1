"""Texts asked about as the tuned models that answer were: a table with the labels they learned beside its own, and by an instruction
that all of them learned; texts without labels with a model's own question.

What this does not cover: models that a server or the router answers with; written suites, whose choices stand there; and the words
around each text of a table where others answer, too, which are the user's to give: where they differ from those that were learned, a
note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat import bounds, commands, matching, references
from nomoat.catalog import tuned
from nomoat.errors import UnknownModelError, UsageError
from nomoat.labelling import MAX_LABELS, kept_question, note_on_commas
from nomoat.references import STORED
from nomoat.responder import ref_of
from nomoat.textfiles import as_named
from nomoat.words import apart, first_few, listed

if TYPE_CHECKING:
    from nomoat.responder import Responder

NAMED = 10  # labels in a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a model tuned on a table learned. `labels` is empty where they were free answers; `instruction`: where one was given."""

    ref: str
    labels: frozenset[str]
    question: str
    instruction: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which of `labels` a text has, asked after `instruction`, or after the default one. `notes`: what has to be known about it."""

    labels: tuple[str, ...]
    instruction: str | None
    notes: tuple[str, ...]


def learned_by(models: Iterable[str | Responder]) -> list[Learned]:
    """Of those models whose adapter is here, or merged into a file, and was tuned on a table, also of those whose kept answers stand
    for them."""
    found = []
    for ref in dict.fromkeys(map(ref_of, models)):
        name = ref.removeprefix(STORED).partition("/")[2] if ref.startswith(STORED) else ref
        if not references.names_weights(name):
            continue
        adapter = references.split(name)[1]
        with suppress(UnknownModelError):  # whoever loads it says so
            if adapter:
                provenance = tuned.provenance_of(tuned.find_adapter(adapter))
            else:
                provenance = references.exported_facts(as_named(name)) if references.is_path(name) else {}
            if (question := tuned.question_of(provenance)) is not None:
                labels = frozenset(tuned.labels_of(provenance))
                found.append(Learned(ref=name, labels=labels, question=question, instruction=tuned.instruction_of(provenance)))
    return found


def question_for(ref: str, labels: Iterable[str] | None = None, instruction: str | None = None) -> Question:
    """What a model is asked about texts: what is not given is as it learned it, where it was tuned on a table.

    Raises UsageError where nothing says which labels there are, and for labels that are not two or more texts that differ, unless the
    model learned just these.
    """
    learned = learned_by([ref])
    model = learned[0] if learned else None
    of_model = []
    if labels is None:
        if model is None or not model.labels:
            if model is None and references.names_weights(ref):
                references.find_files(ref)  # what is not here says nothing
            raise UsageError(
                f"which labels there are is not said, and nothing here says that `{ref}` was tuned on a table of labels",
                hint="add --labels a,b,c, or --labels FILE (in Python: `labels`)",
            )
        labels = sorted(model.labels)
        of_model.append(f"its labels ({_named(labels)})")
    else:
        labels = bounds.several(bounds.in_order(labels), "labels are there to choose from")
        bounds.require_texts("labels", labels)
        labels = list(dict.fromkeys(labels))
        if model is None or model.labels != {*labels}:
            matching.require_different(labels)
    if instruction is None and model is not None and model.instruction is not None:
        instruction = model.instruction
        of_model.append("its instruction")
    taken = [f"asked with {' and '.join(of_model)}, as `{ref}` was tuned: see `{_show(ref)}`"] if of_model else []
    differing = list(notes({*labels}, {*labels}, instruction, learned))
    if model is not None and not model.labels.isdisjoint(labels) and (missing := sorted(model.labels.difference(labels))):
        differing.append(f"`{ref}` learned {_named(missing)}, too, which cannot be chosen here")
    return Question(labels=tuple(labels), instruction=instruction, notes=(*taken, *differing))


def _named(labels: Sequence[str]) -> str:
    return first_few([apart(label) for label in labels], NAMED)


def labels_with(own: set[str], learned: Sequence[Learned]) -> set[str]:
    """A table's own labels, and those that models know besides which learned some of them; who learned none learned something else."""
    known = own.union(*(model.labels for model in learned if model.labels & own))
    return known if len(known) <= MAX_LABELS else own


def common_instruction(own: set[str], models: Sequence[str | Responder], learned: Sequence[Learned]) -> str | None:
    """The one of their own that all these models learned to choose from a table's labels by; None where there is no such."""
    are_all = len(learned) == len({ref_of(model) for model in models})
    instructions = {None if model.labels.isdisjoint(own) else model.instruction for model in learned}
    return instructions.pop() if are_all and len(instructions) == 1 else None


def in_common_words(learned: Sequence[Learned]) -> str:
    """The note that an instruction which all of them learned is used."""
    named = listed(list(dict.fromkeys(f"`{model.ref}`" for model in learned)))
    return f"asked with the instruction that {named} learned, see `{_show(learned[0].ref)}`"


def notes(own: set[str], asked: set[str], instruction: str | None, learned: Sequence[Learned]) -> Iterator[str]:
    """What has to be known where a question differs from what the table alone would ask, or from what a model learned.

    `own` are the table's labels, `asked` those that can be chosen.
    """
    asked_as = kept_question(sorted(asked), instruction)
    in_default_words = asked_as == kept_question(sorted(asked))
    if in_default_words and all(model.question != asked_as for model in learned) and (note := note_on_commas(asked)):
        yield note
    for model in learned:
        if besides := sorted((asked - own) & model.labels):
            yield f"asked for besides the table's labels: {_named(besides)}; `{model.ref}` learned to choose from these, too"
        is_asked_so, knows_some = model.question == asked_as, not model.labels.isdisjoint(own)
        has_to_choose = knows_some or (model.labels and (is_asked_so or (model.instruction is None and in_default_words)))
        unknown = sorted(asked - model.labels) if has_to_choose else []
        if unknown:
            yield (
                f"`{model.ref}` never learned {_named(unknown)}, which can be chosen here; it learned {_named(sorted(model.labels))}"
                if model.labels.isdisjoint(asked)
                else f"`{model.ref}` never learned {_named(unknown)}, which can be chosen here"
            )
        if not is_asked_so and not (knows_some and unknown):
            hint = "; give the same --instruction (in Python: `instruction`)" if model.instruction is not None else ""
            yield f"`{model.ref}` was tuned on another question than this, see `{_show(model.ref)}`{hint}"


def _show(ref: str) -> str:
    return commands.as_line(["nomoat", "show", ref])


def is_on_unlearned(note: str) -> bool:
    """Whether it is one of `notes`, on labels that a model was not tuned to choose."""
    return "` never learned " in note
