"""The examples of a suite as JSONL: read with every mistake named, written so that they read back equal."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from nomoat.errors import DataError
from nomoat.records import Example, Message, Role, fields_of
from nomoat.rows import Source, read_objects, unit_of
from nomoat.textfiles import read_jsonl
from nomoat.words import is_blank

# Of a line; others are passed over.
FIELDS = ("id", "input", "messages", "target", "choices", "category", "group", "follows", "alpaca_question")
QUESTION = {"input", "messages"}  # of which a line has one
NEARLY = 0.85  # as similar a name is taken for a field's that is misspelt, but not "idx" for "id"
OR_NONE = "write it as text, or leave it out"
ANSWER = "{answer}"  # where the answer's code goes in the program that tests it


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What is put around an example that gives `input`. `shots` are (text, answer) pairs shown before it.

    In a chat they are turns of their own; without `chat` everything is one text, each answer after its text and `delimiter`.
    """

    system: str = ""
    prompt: str = "{input}"
    chat: bool = True
    delimiter: str = " "
    shots: tuple[tuple[str, str], ...] = ()

    def around(self, text: str) -> tuple[Message, ...]:
        """The conversation that asks for `text`."""
        asked_text = self._filled(text)
        if not self.chat:
            shown = [f"{self._filled(shot)}{self.delimiter}{answer}" for shot, answer in self.shots]
            return asked("\n\n".join([*([self.system] if self.system else []), *shown, asked_text]))
        turns = [Message(role="system", content=self.system)] if self.system else []
        for shot, answer in self.shots:
            turns += [Message(role="user", content=self._filled(shot)), Message(role="assistant", content=answer)]
        return (*turns, *asked(asked_text))

    def _filled(self, text: str) -> str:
        return self.prompt.replace("{input}", text)  # not str.format: texts hold braces of their own


def asked(text: str) -> tuple[Message, ...]:
    """A conversation of one question."""
    return (Message(role="user", content=text),)


def code_target(*, before: str, after: str, joined: bool = False) -> str:
    """The program that tests an answer of code. `joined`: the answer goes on in the middle of `before`, not on a line of its own."""
    return f"{before}{ANSWER}\n{after}" if joined else f"{before}\n{ANSWER}\n{after}"


def read_examples(path: Source, frame: Frame, *, needs_target: bool) -> tuple[Example, ...]:
    """The examples of a JSONL file, or of rows; `frame` is put around those that give `input`.

    Raises DataError, naming file and line, for whatever is missing, doubled or of the wrong type.
    """
    examples: list[Example] = []
    lines: dict[str, int] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # choices, which most examples share: each once
    unit = unit_of(path)
    for line, row in read_objects(path):
        where = f"`{path}`, {unit} {line}"
        example = _parse(where, str(line), row, frame, needs_target)
        if example.id in lines:
            raise DataError(
                f"{where}: the id `{example.id}` was used in {unit} {lines[example.id]} already",
                hint="give each example an id of its own, or none",
            )
        if example.follows and example.follows not in lines:
            raise DataError(
                f"{where}: it follows `{example.follows}`, which is no example before it",
                hint="write that one above it, or leave `follows` out",
            )
        lines[example.id] = line
        if example.choices is not (choices := known.setdefault(example.choices, example.choices)):
            example = replace(example, choices=choices)
        examples.append(example)
    return tuple(examples)


def read_shots(path: Path, count: int) -> tuple[tuple[str, str], ...]:
    """The first `count` (input, target) pairs of a JSONL file. Raises DataError."""
    shots = []
    for line, row in read_jsonl(path)[:count]:
        where = f"`{path}`, line {line}"
        shots.append((_text(where, row, "input"), _targets(where, row)[0]))
    if len(shots) < count:
        raise DataError(
            f"`{path}` holds {len(shots)} examples, and {count} are to be shown", hint="add examples, or show fewer: `shots`"
        )
    return tuple(shots)


def render_example(example: Example) -> str:
    """One line of JSONL, without its line end; fields that are empty are left out."""
    row = {key: value for key, value in fields_of(example).items() if value}
    others = row.pop("other_targets", ())
    row = {"target": "", **row, **({"target": [example.target, *others]} if others else {})}
    return json.dumps(row, ensure_ascii=False, default=fields_of)


def digest_of(examples: Sequence[Example], *, answer_start: str = "") -> str:
    """A sha256 that is equal for equal examples whose answers begin alike, however their file was written."""
    digest = hashlib.sha256(answer_start.encode())
    told = json.JSONEncoder(sort_keys=True, default=fields_of)
    for example in examples:
        filled = {key: value for key, value in fields_of(example).items() if value}  # a field added later changes nothing
        digest.update(told.encode(filled).encode())
    return digest.hexdigest()


def _require_known(where: str, row: dict[str, Any]) -> None:
    """Raises DataError for a name that is nearly that of a field the line lacks, and for one that `Example` has and no line."""
    for name in row:
        if (meant := _misspelt(name)) and not row.keys() & (QUESTION if meant in QUESTION else {meant}):
            raise DataError(f"{where}: an example has no `{name}`", hint=f"write it as `{meant}`, or leave it out")
    if "other_targets" in row:
        raise DataError(f"{where}: an example has no `other_targets`", hint='several right answers are a list: "target": ["…", "…"]')


@cache
def _misspelt(name: str) -> str:
    """The field whose name this one nearly is; empty if it is one, or far from all."""
    return "" if name in FIELDS else next(iter(difflib.get_close_matches(name, FIELDS, n=1, cutoff=NEARLY)), "")


def _parse(where: str, default_id: str, row: dict[str, Any], frame: Frame, needs_target: bool) -> Example:
    _require_known(where, row)
    number = row.get("id", default_id)
    if isinstance(number, bool) or not isinstance(number, int | str) or number == "":
        raise DataError(f"{where}: `id` is {number!r}, and should be text or a whole number", hint=OR_NONE)
    target, *others = _targets(where, row) if needs_target or row.get("target") else [""]
    choices = row.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise DataError(f"{where}: `choices` is {choices!r}, and should be a list of texts", hint='write it as ["no", "yes"]')
    if choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
        raise DataError(f"{where}: `choices` needs at least two, all different: {choices!r}", hint="write each possible answer once")
    for wanted in (target, *others):
        if choices and wanted not in choices:
            said = f"{where}: the target `{wanted}` is not one of the choices: {', '.join(choices)}"
            raise DataError(said, hint="correct the target, or add it to `choices`")
    names = {}
    for key in ("category", "follows", "group", "alpaca_question"):
        names[key] = "" if row.get(key) is None else row[key]
        if not isinstance(names[key], str):
            raise DataError(f"{where}: `{key}` is {names[key]!r}, and should be text", hint=OR_NONE)
    messages = _messages(where, row, frame)
    return Example(id=str(number), messages=messages, target=target, choices=tuple(choices), other_targets=tuple(others), **names)


def _targets(where: str, row: dict[str, Any]) -> list[str]:
    """The right answer, or all of them."""
    value = row.get("target")
    if isinstance(value, list) and value and all(isinstance(item, str) and not is_blank(item) for item in value):
        return list(dict.fromkeys(value))
    return [_text(where, row, "target")]


def _messages(where: str, row: dict[str, Any], frame: Frame) -> tuple[Message, ...]:
    if ("input" in row) == ("messages" in row):
        raise DataError(
            f"{where}: an example has either `input` or `messages`", hint="write one question as `input`, a conversation as `messages`"
        )
    if "input" in row:
        return frame.around(_text(where, row, "input"))
    turns = row["messages"]
    hint = 'a conversation is [{"role": "user", "content": "…"}, …], and the user speaks last'
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: `messages` is no conversation", hint=hint)
    messages = []
    for turn in turns:
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, dict) else (None, None)
        if role not in get_args(Role) or not isinstance(content, str):
            raise DataError(f"{where}: {turn!r} is no message", hint=hint)
        messages.append(Message(role=cast(Role, role), content=content))
    if messages[-1].role != "user":
        made = "; `nomoat suites new FILE` makes a suite of conversations with their answers"
        raise DataError(f"{where}: the last message is the {messages[-1].role}'s", hint=f"{hint}{made}")
    if is_blank(messages[-1].content):
        raise DataError(f"{where}: the last message is empty", hint="write the question, or leave the example out")
    return tuple(messages)


def _text(where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or is_blank(value):
        said = "is missing" if key not in row else f"is {value!r}"
        raise DataError(f"{where}: `{key}` {said}, and should be text", hint=f'write it as text: "{key}": "…"')
    return value
