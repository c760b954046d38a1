"""The examples of a suite as JSONL: read with every mistake named, written so that they read back equal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from nomoat.errors import DataError
from nomoat.records import Example, Message, Role
from nomoat.textfiles import read_jsonl


def read_examples(path: Path, *, system: str = "", prompt: str = "{input}") -> tuple[Example, ...]:
    """The examples of a JSONL file; `system` and `prompt` are put around those that give `input`.

    Raises DataError, naming file and line, for whatever is missing, doubled or of the wrong type.
    """
    examples: list[Example] = []
    lines: dict[str, int] = {}
    for line, row in read_jsonl(path):
        where = f"`{path}`, line {line}"
        example = _parse(where, str(line), row, system, prompt)
        if example.id in lines:
            raise DataError(f"{where}: the id `{example.id}` was used in line {lines[example.id]} already")
        lines[example.id] = line
        examples.append(example)
    return tuple(examples)


def render_example(example: Example) -> str:
    """One line of JSONL, without its line end; fields that are empty are left out."""
    row = {key: value for key, value in dataclasses.asdict(example).items() if value}
    return json.dumps({"target": "", **row}, ensure_ascii=False)


def digest_of(examples: Sequence[Example]) -> str:
    """A sha256 that is equal for equal examples, however their file was written."""
    digest = hashlib.sha256()
    for example in examples:
        filled = {key: value for key, value in dataclasses.asdict(example).items() if value}  # a field added later changes nothing
        digest.update(json.dumps(filled, sort_keys=True).encode())
    return digest.hexdigest()


def _parse(where: str, default_id: str, row: dict[str, Any], system: str, prompt: str) -> Example:
    number = row.get("id", default_id)
    if isinstance(number, bool) or not isinstance(number, int | str) or number == "":
        raise DataError(f"{where}: `id` is {number!r}, and should be text or a whole number")
    target = _text(where, row, "target")
    choices = row.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice for choice in choices):
        raise DataError(f"{where}: `choices` is {choices!r}, and should be a list of texts")
    if choices and (len(choices) < 2 or len(set(choices)) < len(choices)):
        raise DataError(f"{where}: `choices` needs at least two, all different: {choices!r}")
    if choices and target not in choices:
        raise DataError(f"{where}: the target `{target}` is not one of the choices: {', '.join(choices)}")
    category = row.get("category", "")
    if not isinstance(category, str):
        raise DataError(f"{where}: `category` is {category!r}, and should be text")
    messages = _messages(where, row, system, prompt)
    return Example(id=str(number), messages=messages, target=target, choices=tuple(choices), category=category)


def _messages(where: str, row: dict[str, Any], system: str, prompt: str) -> tuple[Message, ...]:
    if ("input" in row) == ("messages" in row):
        raise DataError(f"{where}: an example has either `input` or `messages`")
    if "input" in row:
        # Not str.format: texts hold braces of their own.
        asked = Message(role="user", content=prompt.replace("{input}", _text(where, row, "input")))
        return (Message(role="system", content=system), asked) if system else (asked,)
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
        raise DataError(f"{where}: the last message is the {messages[-1].role}'s", hint=hint)
    return tuple(messages)


def _text(where: str, row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        said = "is missing" if key not in row else f"is {value!r}"
        raise DataError(f"{where}: `{key}` {said}, and should be text")
    return value
