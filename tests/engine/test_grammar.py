"""What an answer is held to: more narrowly than its schema asks where a small model would not find an end, and never otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tiny import write_tiny_gguf

from nomoat import net
from nomoat.engine import grammar_check
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.grammar import Grammars
from nomoat.engine.tokenizer import from_metadata
from nomoat.errors import RemoteError, SchemaError

TEXT = {"type": "string"}
CITY = {"type": "object", "properties": {"city": TEXT}, "required": ["city"]}
BASE = {"type": "object", "properties": {"id": TEXT}, "required": ["id"]}
Allows = Callable[[dict[str, Any], str], bool]


@pytest.fixture(scope="module")
def grammars(tmp_path_factory: pytest.TempPathFactory) -> Grammars:
    tokenizer = from_metadata(GGUFFile(write_tiny_gguf(tmp_path_factory.mktemp("tokenizer") / "t.gguf")).metadata)
    return Grammars(tokenizer, tokenizer.backend.get_vocab_size())


@pytest.fixture
def allows(grammars: Grammars) -> Allows:
    """Whether an answer may be this text and end there."""
    tokenizer = grammars._tokenizer

    def asked(schema: dict[str, Any], text: str) -> bool:
        grammar = grammars.of_schema(json.dumps(schema))
        for token in [*tokenizer.backend.encode(text, add_special_tokens=False).ids, tokenizer.special.eos_id]:
            logits_V = np.zeros(tokenizer.backend.get_vocab_size(), np.float32)
            grammar.forbid(logits_V)
            if logits_V[token] == -np.inf:
                return False
            grammar.accept(token)
        return True

    return asked


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


@pytest.mark.parametrize(
    "schema",
    [
        CITY, {key: CITY[key] for key in ("properties", "required")}, {**CITY, "type": ["object", "null"]},
        {**CITY, "minProperties": 1}, {"anyOf": [CITY, {"type": "null"}]}, {"oneOf": [CITY, BASE], "type": "object"},
        {**reference("City"), "$defs": {"City": CITY}}, {"allOf": [reference("City")], "$defs": {"City": CITY}, "default": {}},
        {**CITY, "required": [], "anyOf": [{"required": ["city"]}]},
        {"$defs": {"City": CITY, "Other": {"allOf": [BASE, CITY]}}, **reference("City")},
    ],
)  # fmt: skip
def test_an_object_that_lists_its_properties_has_no_others(allows: Allows, schema: dict[str, Any]) -> None:
    assert allows(schema, '{"city":"Rome"}') and not allows(schema, '{"city":"Rome","unit":"c"}')
    whole = {"type": "object", "properties": {"rows": {"type": "array", "items": schema}}, "$defs": schema.get("$defs", {})}
    assert allows(whole, '{"rows":[{"city":"Rome"}]}') and not allows(whole, '{"rows":[{"city":"Rome","unit":"c"}]}')


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({**CITY, "additionalProperties": True}, '{"city":"Rome","unit":"c"}'),
        ({**CITY, "additionalProperties": TEXT}, '{"city":"Rome","unit":"c"}'),
        ({**CITY, "patternProperties": {"^u": TEXT}}, '{"city":"Rome","unit":"c"}'),
        ({**CITY, "required": ["city", "unit"]}, '{"city":"Rome","unit":"c"}'),
        ({**CITY, "required": [], "properties": {}}, '{"unit":"c"}'), ({"type": "object"}, '{"unit":"c"}'),
        ({"properties": {"city": TEXT, "at": {"type": "object"}}}, '{"city":"Rome","at":{"unit":"c"}}'),
        ({"allOf": [BASE, CITY]}, '{"id":"a","city":"Rome"}'),
        ({**CITY, "allOf": [BASE]}, '{"city":"Rome","id":"a"}'), ({**CITY, "anyOf": [BASE, TEXT]}, '{"city":"Rome","id":"a"}'),
        ({"allOf": [reference("Base"), CITY], "$defs": {"Base": BASE}}, '{"id":"a","city":"Rome"}'),
        ({"allOf": [reference("Base"), {"properties": {"city": TEXT}}], "$defs": {"Base": reference("Id"), "Id": BASE}},
         '{"id":"a","city":"Rome"}'),
        ({**reference("Base"), "properties": {"city": TEXT}, "$defs": {"Base": BASE}}, '{"id":"a","city":"Rome"}'),
        ({"allOf": [reference("a~1b%20c"), CITY], "$defs": {"a/b c": BASE}}, '{"id":"a","city":"Rome"}'),
        ({"allOf": [{"properties": {"at": BASE}}, {"properties": {"at": CITY}}]}, '{"at":{"id":"a","city":"Rome"}}'),
        ({**CITY, "enum": [{"city": "Rome", "unit": "c"}]}, '{"city":"Rome","unit":"c"}'),
        ({"required": ["id"], "anyOf": [CITY, TEXT]}, '{"city":"Rome","id":"a"}'),
        ({**CITY, "anyOf": [{"required": ["id"]}]}, '{"city":"Rome","id":"a"}'),
        ({"properties": {"at": BASE}, "oneOf": [{"properties": {"at": CITY}}]}, '{"at":{"id":"a","city":"Rome"}}'),
    ],
)  # fmt: skip
def test_an_object_that_says_so_or_that_two_schemas_describe_has_others(allows: Allows, schema: dict[str, Any], text: str) -> None:
    assert allows(schema, text)


@pytest.mark.parametrize("required", [[["city"]], {"city": True}, True, "city", [None]])
def test_what_requires_no_names_is_refused(grammars: Grammars, required: object) -> None:
    with pytest.raises(SchemaError, match=r"^this JSON schema cannot be followed: "):
        grammars.of_schema(json.dumps({**CITY, "required": required}))


PATTERNS = [{"type": "string", "pattern": f".*{letter}.{{20}}"} for letter in "abcdefghijklmnopqrstuvwxyz"]


@pytest.mark.parametrize("schema", [{"allOf": PATTERNS}, {"type": "integer", "multipleOf": 100_000_007}])
def test_a_schema_that_would_take_hours_to_make_ready_is_refused(
    grammars: Grammars, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1)
    whole = json.dumps({"type": "object", "properties": {"a": schema}})
    with pytest.raises(SchemaError, match="cannot be followed: what its patterns, or `multipleOf`, allow takes too long to work out"):
        grammars.of_schema(whole)
    assert grammars.of_call(whole) is None


def test_several_patterns_that_are_soon_made_ready_are_followed(allows: Allows) -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string", "pattern": "^[a-z]{2}$"}, "day": {"type": "string", "pattern": "^\\d$"}},
    }
    assert allows(schema, '{"id":"ab","day":"7"}') and not allows(schema, '{"id":"ab","day":"x"}')
    assert allows({"type": "integer", "multipleOf": 7}, "21") and not allows({"type": "integer", "multipleOf": 7}, "22")


def test_trying_a_schema_ends_when_whoever_asks_has_left(grammars: Grammars) -> None:
    left = threading.Event()
    left.set()
    with net.asking_for(left), pytest.raises(RemoteError, match="nobody waits for this answer any more"):
        grammars.of_schema(json.dumps({"allOf": PATTERNS}))


def test_a_number_comes_to_an_end(allows: Allows) -> None:
    for schema in ({"type": "number"}, {}, {"type": ["null", "number"], "minimum": 0}):
        for text in ("1" + "0" * 19, "0." + "3" * 20, f"{2**64 - 1}.{'5' * 20}"):
            assert allows(schema, text) and not allows(schema, f"{text}0")
    assert allows({"type": "integer"}, f"-{2**63}") and not allows({"type": "integer"}, "1" * 21)
    assert allows({"type": "number"}, "-1.5E+100") and allows({}, "6e-100") and not allows({"type": "number"}, "1e1000")
    pair = {"type": "array", "items": {"type": "integer"}}
    assert allows(pair, f"[{'1' * 20},{'2' * 20},-3]") and not allows(pair, f"[1,{'2' * 21}]")
    assert allows({"type": "object"}, '{"n":1}') and not allows({"type": "object"}, f'{{"n":{"1" * 21}}}')


def test_digits_of_a_text_and_those_that_a_schema_wants_are_not_counted(allows: Allows) -> None:
    assert allows({}, '"' + "1" * 40 + '"') and allows({}, '["\\"' + "1" * 40 + '","\\\\",1]')
    assert not allows({}, '["\\\\",' + "1" * 21 + "]")
    tiny = {"type": "number", "minimum": 1e-22, "maximum": 2e-22}
    assert allows(tiny, f"0.{'0' * 21}1") and not allows(tiny, f"0.{'0' * 21}10")


@pytest.mark.parametrize(
    ("name", "text", "endless"),
    [
        ("duration", "P1Y2M3DT4H5M6S", "PT" + "1" * 30 + "S"),
        ("time", "10:00:00.123456789+00:00", "10:00:00." + "1" * 30 + "Z"),
        ("date-time", "2024-05-01T10:00:00.123456789+00:00", "2024-05-01T10:00:00." + "1" * 30 + "Z"),
    ],
)
def test_times_come_to_an_end(allows: Allows, name: str, text: str, endless: str) -> None:
    schema = {"type": "string", "format": name}
    assert allows(schema, f'"{text}"') and not allows(schema, f'"{endless}"') and allows({**schema, "maxLength": 60}, f'"{endless}"')
