"""How a model is asked for the label of a text: the one prompt that a table of labelled texts becomes.

`tune` learns on this prompt and `judge` asks with it, so that base and tuned model see the same words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from nomoat import bounds
from nomoat.errors import UsageError
from nomoat.records import Message
from nomoat.textfiles import composed
from nomoat.words import apart, first_few

MAX_LABELS = 256  # in an instruction that lists them, and to choose from; more than this is hardly a label column
NAMED = 8  # in a note
TEXT = "{text}"  # where the text stands in a question as it is kept
FRAME = f"\n\nText: {TEXT}\nLabel:"  # behind an instruction that does not hold it


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
    """The conversation that asks for the label of `text`; the answer is a label and nothing else. See `kept_question`."""
    return messages_of(kept_question(labels, instruction), text)


def messages_of(question: str, text: str) -> tuple[Message, ...]:
    """The conversation that asks a kept question about `text`, which stands there as it is."""
    before, after = _around_text(question)
    return (Message(role="user", content=f"{before}{text}{after}"),)


def kept_question(labels: Sequence[str], instruction: str | None = None) -> str:
    """What is asked about each text, with `TEXT` in the text's place: as `tune` keeps it beside what was learned.

    `instruction` is used word for word instead of the default one, which names the labels; behind either stands `FRAME`.
    One that holds `TEXT` is the whole question. Where it is a single line, `\\n` in it is a line break, as people write it in a shell.
    Raises UsageError for one that is no text, or holds `TEXT` more than once.
    """
    first = label_instruction(labels) if instruction is None else instruction
    bounds.require_text(first, "`instruction`")
    if instruction is None or TEXT not in first:
        return f"{first}{FRAME}"
    if (count := first.count(TEXT)) > 1:
        raise UsageError(
            f"`instruction` holds `{TEXT}` {count} times: with it an instruction is the whole question, in which the text stands once",
            hint=f"write `{TEXT}` once, where the text goes, or not at all: then the text stands behind the instruction",
        )
    return first if "\n" in first else first.replace("\\n", "\n")


def question_line(question: str) -> str:
    """A kept question as JSON has it, for whoever does not ask with `run --as-tuned`."""
    return f"asked in these words, with a text in place of {TEXT}: {json.dumps(question, ensure_ascii=False)}"


def put_question(question: str, text: str) -> str:
    """A kept question about a text, which becomes what a table's would: in NFC and without surrounding space."""
    before, after = _around_text(question)
    return f"{before}{composed(text).strip()}{after}"


def is_put(question: str, asked: str) -> bool:
    """Whether what is asked is a kept question about some text, whatever stands around it, as a chat template's words do, and without
    the space around it, which many trim."""
    before, after = _around_text(question.strip())
    begins = asked.find(before)
    return begins >= 0 and asked.find(after, begins + len(before)) >= 0


def _around_text(question: str) -> tuple[str, str]:
    before, _, after = question.rpartition(TEXT)  # the last: the default instruction may name a label that holds one
    return before, after
