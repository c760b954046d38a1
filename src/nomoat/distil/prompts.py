"""How a teacher is asked for tasks, and how its answer becomes tasks again.

The manner is Alpaca's (tatsu-lab/stanford_alpaca, Apache-2.0): some examples, numbered, and the wish for more of them that differ.
The words are our own. Chat models number and decorate their answers in many ways: the fields are known by their names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NO_INPUT = "<noinput>"
EMPTY_INPUTS = {NO_INPUT, "noinput", "none", "n/a", "no input", "(none)", "empty", "없음"}
FIELDS = {
    "instruction": "instruction", "task": "instruction", "지시": "instruction", "지시문": "instruction",
    "input": "input", "입력": "input",
    "output": "output", "출력": "output",
}  # fmt: skip
NUMBER = r"(?:task\s*)?(?P<number>\d+\s*[.):]?)?"
FIELD = re.compile(
    rf"^[\s#*_>-]*{NUMBER}[\s*_#]*(?P<name>{'|'.join(FIELDS)})\s*(?:\*\*|__)?\s*:(?:\*\*|__)?[ \t]*(?P<text>.*)$", re.IGNORECASE
)
SEPARATOR = re.compile(r"^\s*(?:#{2,}|-{3,}|\*{3,}|#{0,6}\s*(?:\*\*)?(?:task\s*\d+[.):]?|\d+[.):])(?:\*\*)?)\s*$", re.IGNORECASE)

REQUEST = """These are {num_examples} tasks for a language model:

{examples}

Write {num_new} more of them.

- Each task is an instruction, an input where the instruction needs one, and the output of somebody who does it well.
- The tasks differ from each other and from the examples: in what has to be done, in the verb, in the subject, in their form.
  Questions, rewriting, summaries, classification, ideas, plans, stories, facts and reasoning all have their place.
- Whoever does them has text only: no image, sound or file is given or asked for, nobody acts in the world, nothing is looked up.
- The instruction is one or two sentences{language}.
- The input is a concrete text of at most 100 words, never a placeholder. Where none is needed, write {no_input}.
- The output is complete, true, and at most 100 words.

Write them in the form of the examples, numbered from {first_new} to {last_new}, and nothing else. Each has its three parts:

{first_new}. Instruction: what is to be done
Input: the text it is done with, or {no_input}
Output: the result"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An instruction with its answer, as Alpaca's files hold them. `input` may be empty."""

    instruction: str
    input: str
    output: str


def render_request(examples: Sequence[Task], num_new: int, *, language: str | None = None) -> str:
    """What the teacher is asked: the examples, and `num_new` tasks more, in `language` where one is named."""
    shown = [_render(number, task) for number, task in enumerate(examples, start=1)]
    return REQUEST.format(
        num_examples=len(examples),
        num_new=num_new,
        language=f", in {language}, and so are input and output" if language else "",
        no_input=NO_INPUT,
        first_new=len(examples) + 1,
        last_new=len(examples) + num_new,
        examples="\n\n".join(shown),
    )


def parse_tasks(answer: str) -> list[Task]:
    """The tasks of an answer, in their order; what is missing of one is empty."""
    found: list[dict[str, list[str]]] = []
    field = ""
    for line in answer.splitlines():
        match = FIELD.match(line)
        name = _field_of(match)
        if match and name == "instruction":
            found.append({"instruction": [match["text"]], "input": [], "output": []})
            field = name
        elif match and found and _may_follow(name, field):
            found[-1][name] = [match["text"]]
            field = name
        elif found:
            found[-1][field].append(line)
    return [_task(fields) for fields in found]


def _field_of(match: re.Match[str] | None) -> str:
    """Which field a line begins; empty if none. `Task:` begins one only with a number: lists of things to do say it, too."""
    if match is None or (match["name"].lower() == "task" and not match["number"]):
        return ""
    return FIELDS[match["name"].lower()]


def _may_follow(name: str, field: str) -> bool:
    """Whether a new field begins here. An output may hold lines that look like fields: they are part of it."""
    return (name == "output" and field in ("instruction", "input")) or (name == "input" and field == "instruction")


def _render(number: int, task: Task) -> str:
    return f"{number}. Instruction: {task.instruction}\nInput: {task.input or NO_INPUT}\nOutput: {task.output}"


def _task(fields: dict[str, list[str]]) -> Task:
    texts = {name: _joined(lines) for name, lines in fields.items()}
    if texts["input"].strip("*_`\"'. ").lower() in EMPTY_INPUTS:
        texts["input"] = ""
    return Task(**texts)


def _joined(lines: Sequence[str]) -> str:
    """The text of a field, without the number or line that only leads to the next task."""
    kept = list(lines)
    while len(kept) > 1 and (not kept[-1].strip() or SEPARATOR.match(kept[-1])):
        kept.pop()
    return "\n".join(kept).strip()
