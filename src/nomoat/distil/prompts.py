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
NUMBER = r"(?:task\s*)?(?:(?P<number>\d+)\s*[.):：]?)?"
FIELD = re.compile(
    rf"^[\s#*_>-]*{NUMBER}[\s*_#]*(?P<name>{'|'.join(FIELDS)})\s*(?:\*\*|__)?\s*[:：](?:\*\*|__)?[ \t]*(?P<text>.*)$", re.IGNORECASE
)
RULE = re.compile(r"^\s*(?:#{2,}|-{3,}|\*{3,})?\s*$")
HEADING = re.compile(
    r"^\s*(?P<mark>#{0,6}\s*(?:\*\*)?)(?P<task>task\s*)?(?P<number>\d+)(?(task)[.):：]?|[.):：])(?:\*\*)?\s*$", re.IGNORECASE
)

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
    """The tasks of an answer, in their order; what is missing of one is empty.

    A numbered line in an output is part of it, unless it bears the next task's number, or an input or an output of its own follows.
    """
    lines = answer.splitlines()
    matches = [FIELD.match(line) for line in lines]
    names = [_field_of(match) for match in matches]
    found: list[dict[str, list[str]]] = []
    field, text = "", [""]  # `text` takes the lines that begin no field
    number: int | None = None  # of the last task
    listed: int | None = None  # of the last line since that looks like the next one's
    for at, (line, match) in enumerate(zip(lines, matches, strict=True)):
        given = _number_of(match)
        has_own = next((name for name in names[at + 1 :] if name), "") in ("input", "output")
        follows = number is not None and given == number + 1 and listed != number
        if match and names[at] == "instruction" and (given is None or not found or follows or has_own):
            led = _cut_heading(text, number, is_numbered=given is not None)
            number = given or led or (number + 1 if number else None)
            field, text, listed = names[at], [match["text"]], None
            found.append({"instruction": text, "input": [], "output": []})
        elif match and found and _may_follow(names[at], field):
            field, text = names[at], [match["text"]]
            found[-1][field] = text
            listed = _number_of(FIELD.match(match["text"]))
        else:
            listed = given if names[at] == "instruction" else listed
            text.append(line)
    return [_task(fields) for fields in found]


def _cut_heading(text: list[str], number: int | None, *, is_numbered: bool) -> int | None:
    """Take off what only leads to the task that begins behind `text`: empty lines, rules, and a line with its number, which is given.

    A number without a mark is that of the task only where the task has none itself, and it comes after `number`, the last one's.
    """
    led = None
    while len(text) > 1:
        if (heading := HEADING.match(text[-1])) and led is None:
            is_next = number is None or int(heading["number"]) == number + 1
            if not (heading["mark"].strip() or heading["task"] or (is_next and not is_numbered)):
                break
            led = int(heading["number"])
        elif not RULE.match(text[-1]):
            break
        text.pop()
    return led


def _number_of(match: re.Match[str] | None) -> int | None:
    return int(match["number"]) if match and match["number"] else None


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
    """The text of a field, without rules and empty lines at its end."""
    kept = list(lines)
    while len(kept) > 1 and RULE.match(kept[-1]):
        kept.pop()
    return "\n".join(kept).strip()
