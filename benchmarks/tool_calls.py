"""How many answers call a function as its schema has it, where the model may write text or calls, as it likes.

    python benchmarks/tool_calls.py qwen2.5-coder-0.5b qwen2.5-coder-1.5b [--seeds 3] [--marked] [--json FILE]

Each question is asked at temperature 1 with the same seeds twice: with begun calls held to their schemas, as they are served (see
`engine.tool_call_grammar`), and free. `--marked`: the answer begins with `<tool_call>`, put there for the model, which shows what the
schemas' hold alone does. An answer counts once: "valid" if it has a call and each of its calls follows its function's schema, formats
included, by the `jsonschema` library; else "missed" (a call against its schema), or "text". Questions and functions are ours.
"""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import numpy as np
from facts import circumstances, write

import nomoat
from nomoat.engine import local, tool_calls
from nomoat.engine.tool_call_grammar import ToolCallGrammar
from nomoat.records import Message, Request

TEXT = {"type": "string"}
NEW_TOKENS = 300
QUESTIONS = [
    "What is the weather in Paris?",
    "How warm is it in Seoul right now?",
    "Book a table for four at Luigi's for tomorrow at eight in the evening, my number is 010-1234-5678, I am Jan.",
    "Reserve the bar at Noma for two on 2025-08-01 at 19:30, for Mia.",
    "Put a weekly 45 minute review with Tom and Lisa into my calendar from 2025-03-04.",
    "Add a dentist appointment next Monday for half an hour.",
    "Find me a garden hose below 30 dollars with more than 4 stars.",
    "Search for a light laptop, cheapest first.",
    "Make the kitchen warm orange at half brightness.",
    "Turn the bedroom lamp off.",
    "Which ten customers bought most last year? The table is sales(customer, amount, day).",
    'Show all users whose name contains "O\'Brien", with quotes.',
    "Dim the hall to 20% in blue and the kitchen to 80% in white.",
    "Is it colder in Oslo or in Rome?",
]


def choice(*values: str) -> dict[str, Any]:
    """One of these texts."""
    return {**TEXT, "enum": list(values)}


def function(name: str, description: str, properties: dict[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    """As OpenAI's API has it."""
    schema = {"type": "object", "properties": properties, "required": list(required) or list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


PERSON = {"type": "object", "properties": {"name": TEXT, "email": {**TEXT, "format": "email"}}, "required": ["name"]}
CONTACT = {
    "type": "object",
    "properties": {"name": TEXT, "phone": {**TEXT, "pattern": "^[0-9]{3}-[0-9]{4}-[0-9]{4}$"}},
    "required": ["name", "phone"],
}
FILTER = {
    "type": "object",
    "properties": {"field": choice("price", "stars", "weight"), "op": choice("<", ">", "="), "value": {"type": "number"}},
    "required": ["field", "op", "value"],
}
FUNCTIONS = [
    function("get_weather", "The weather of a city now", {"city": TEXT, "unit": choice("celsius", "fahrenheit")}, ["city"]),
    function(
        "book_table", "Book a table in a restaurant",
        {
            "restaurant": TEXT, "people": {"type": "integer", "minimum": 1, "maximum": 12}, "at": {**TEXT, "format": "date-time"},
            "seats": choice("inside", "outside", "bar"), "contact": CONTACT,
        },
        ["restaurant", "people", "at", "contact"],
    ),
    function(
        "add_event", "Put an event into the calendar",
        {
            "title": TEXT, "date": {**TEXT, "format": "date"}, "minutes": {"type": "integer"},
            "guests": {"type": "array", "items": PERSON}, "repeat": choice("never", "daily", "weekly"),
        },
        ["title", "date", "minutes", "repeat"],
    ),
    function(
        "search_products", "Search the shop",
        {"query": TEXT, "filters": {"type": "array", "items": FILTER}, "sort": choice("price_asc", "price_desc", "newest")},
    ),
    function(
        "set_lights", "Set the lamps of a room",
        {
            "room": choice("kitchen", "bedroom", "hall"), "level": {"type": "integer", "minimum": 0, "maximum": 100},
            "colour": {**TEXT, "pattern": "^#[0-9a-f]{6}$"},
        },
    ),
    function("run_sql", "Run a query on the database", {"sql": TEXT, "limit": {"type": "integer"}}),
]  # fmt: skip
SCHEMAS = {one["function"]["name"]: one["function"]["parameters"] for one in FUNCTIONS}


def way(*, held: bool, marked: bool) -> Callable[..., ToolCallGrammar]:
    """What stands in for `ToolCallGrammar`."""

    class Begun(ToolCallGrammar):
        def __init__(self, *told: Any) -> None:
            super().__init__(*told)
            self._begins = self._tokenizer.encode(f"{tool_calls.OPENING}\n") if marked else []

        @property
        def holds(self) -> bool:
            return bool(self._begins) or (held and super().holds)

        def forbid(self, logits_V: Any) -> None:
            if self._begins:
                logits_V[np.arange(len(logits_V)) != self._begins[0]] = -np.inf
            else:
                super().forbid(logits_V)

        def accept(self, token: int) -> None:
            self._begins = self._begins[1:]
            if held:
                super().accept(token)

    return Begun


def kind(found: Sequence[Any]) -> str:
    """Of an answer with these calls."""
    try:
        for call in found:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name], format_checker=jsonschema.FormatChecker())
    except (ValueError, jsonschema.ValidationError):
        return "missed"
    return "valid" if found else "text"


def count(ref: str, seeds: int) -> dict[str, int]:
    """How many answers of a model are what."""
    found = collections.Counter[str]()
    tools = tuple(json.dumps(one) for one in FUNCTIONS)
    with nomoat.load(ref) as model:
        for question in QUESTIONS:
            for seed in range(seeds):
                message = Message(role="user", content=question)
                asked = Request(messages=(message,), tools=tools, temperature=1.0, seed=seed, max_new_tokens=NEW_TOKENS)
                found[kind(model.complete(asked).calls)] += 1
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--marked", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for ref in options.models:
        found[ref] = {}
        for name, held in (("held", True), ("free", False)):
            with mock.patch.object(local, "ToolCallGrammar", way(held=held, marked=options.marked)):
                found[ref][name] = count(ref, options.seeds)
            print(ref, name, found[ref][name], flush=True)
    write(
        options.json,
        {**circumstances(), "questions": len(QUESTIONS), "seeds": options.seeds, "marked": options.marked, "answers": found},
    )


if __name__ == "__main__":
    main()
