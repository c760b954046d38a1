"""How a model is asked for the label of a text: the one prompt that a table of labelled texts becomes.

`tune` learns on this prompt and `judge` asks with it, so that base and tuned model see the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from nomoat import bounds
from nomoat.records import Message
from nomoat.textfiles import composed
from nomoat.words import apart, first_few

MAX_LABELS = 256  # in an instruction that lists them, and to choose from; more than this is hardly a label column
NAMED = 8  # in a note
TEXT = "{text}"  # where the text stands in a question as it is kept


def label_instruction(labels: Sequence[str]) -> str:
    """The instruction used where the user gives none; the same whatever the order of `labels`."""
    return f"Classify the text. Answer with one of: {', '.join(sorted(set(labels)))}."


def note_on_commas(labels: Iterable[str]) -> str | None:
    """What has to be known where `label_instruction` lists labels that hold commas or line breaks; None if none does."""
    if not (found := [apart(label) for label in sorted(labels) if "," in label or "\n" in label]):
        return None
    return (
        f"labels that hold commas or line breaks look like several where the question lists them: {first_few(found, NAMED)}; "
        "an --instruction (in Python: `instruction`) can tell them apart"
    )


def label_task_messages(text: str, labels: Sequence[str], *, instruction: str | None = None) -> tuple[Message, ...]:
    """The conversation that asks for the label of `text`; the answer is a label and nothing else.

    `instruction` is used word for word instead of the default one, which names the labels.
    """
    first = label_instruction(labels) if instruction is None else instruction
    bounds.require_text(first, "`instruction`")
    return (Message(role="user", content=f"{first}\n\nText: {text}\nLabel:"),)


def kept_question(instruction: str) -> str:
    """What `label_task_messages` asks, with `TEXT` in the text's place: as `tune` keeps it beside what was learned."""
    return label_task_messages(TEXT, (), instruction=instruction)[0].content


def question_line(question: str) -> str:
    """A kept question as JSON has it, for whoever does not ask with `run --as-tuned`."""
    return f"asked in these words, with a text in place of {TEXT}: {json.dumps(question, ensure_ascii=False)}"


def put_question(question: str, text: str) -> str:
    """A kept question about a text, which becomes what a table's would: in NFC and without surrounding space."""
    before, after = _around_text(question)
    return f"{before}{composed(text).strip()}{after}"


def is_put(question: str, asked: str) -> bool:
    """Whether what is asked is a kept question about some text, whatever stands around it, as a chat template's words do."""
    before, after = _around_text(question)
    begins = asked.find(before)
    return begins >= 0 and asked.find(after, begins + len(before)) >= 0


def _around_text(question: str) -> tuple[str, str]:
    before, _, after = question.rpartition(TEXT)  # the last: an instruction may hold one of its own
    return before, after
