"""What an answer is held to: more narrowly than its schema asks where a small model would not find an end, and never otherwise."""

from __future__ import annotations

import json
import logging
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from patience import PATIENCE_SECONDS
from tiny import write_tiny_gguf

from nomoat import net
from nomoat.engine import grammar_check
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.grammar import Grammars, may_take_long
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


@pytest.mark.parametrize(
    "names", [{"type": "string"}, {}, True, {"type": ["string"]}, {"type": "string", "title": "Key", "description": "one's name"}]
)
def test_names_that_may_be_any_are_no_reason_to_refuse(allows: Allows, names: object) -> None:
    """As zod writes them for each record."""
    schema = {"properties": {"at": {"type": "object", "propertyNames": names, "additionalProperties": {"type": "number"}}}}
    assert allows(schema, '{"at":{"x":1.5}}') and not allows(schema, '{"at":{"x":"1.5"}}')


def test_items_that_need_not_differ_are_no_reason_to_refuse(allows: Allows) -> None:
    assert allows({"type": "array", "items": {"type": "integer"}, "uniqueItems": False}, "[1,1]")


PER_LETTER = {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    "schema",
    [
        PER_LETTER, {**PER_LETTER, "propertyNames": {"type": "string", "enum": ["a", "b", 1], "title": "Letter"}},
        {**PER_LETTER, "propertyNames": {"$ref": "#/$defs/Letter", "title": "One"}, "$defs": {"Letter": {"enum": ["a", "b"]}}},
        {**PER_LETTER, "additionalProperties": {"$ref": "#/definitions/whole"}, "definitions": {"whole": {"type": "integer"}}},
        {**PER_LETTER, "properties": {"a": {"enum": [1, 2]}, "c": TEXT}}, {**PER_LETTER, "$defs": []},
    ],
)  # fmt: skip
def test_names_that_are_listed_are_an_objects_properties(allows: Allows, schema: dict[str, Any]) -> None:
    """As pydantic writes `dict[Literal["a", "b"], int]`, and of an enum with a reference."""
    assert allows(schema, "{}") and allows(schema, '{"a":1,"b":2}') and allows(schema, '{"b":2}')
    assert not allows(schema, '{"c":1}') and not allows(schema, '{"a":"1"}') and not allows(schema, '{"a":1,"a":1}')
    required = {**schema, "required": ["a", "b"]}
    assert allows(required, '{"a":1,"b":2}') and not allows(required, '{"a":1}')


def test_one_name_and_any_value_or_none_are_held_too(allows: Allows) -> None:
    one = {"type": "object", "propertyNames": {"const": "a"}}
    assert allows(one, '{"a":[1]}') and not allows(one, '{"b":1}')
    assert not allows({**one, "additionalProperties": False}, '{"a":1}')
    assert allows({**one, "propertyNames": {"const": "a", "enum": ["a", "b"]}}, '{"a":1}')
    assert not allows({**one, "propertyNames": {"const": "a", "enum": ["a", "b"]}}, '{"b":1}')
    assert not allows({**one, "propertyNames": {"enum": []}}, '{"a":1}')


def test_objects_of_listed_names_within_each_other_do_not_multiply(allows: Allows) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(30):
        schema = {**PER_LETTER, "additionalProperties": schema}
    assert allows(schema, '{"b":' * 30 + "7" + "}" * 30) and not allows(schema, '{"b":' * 30 + '"7"' + "}" * 30)


@pytest.mark.parametrize(
    ("at", "ref"),
    [
        ({"properties": {"at": PER_LETTER}}, "#/properties/at/additionalProperties"),
        ({"properties": {"at": {"anyOf": [PER_LETTER, {"type": "null"}]}}}, "#/properties/at/anyOf/0/additionalProperties"),
        ({"properties": {"at": {**PER_LETTER, "additionalProperties": CITY}}}, "#/properties/at/additionalProperties/properties/city"),
        ({"properties": {"at": {**PER_LETTER, "additionalProperties": True}}}, "#/properties/at/additional%50roperties"),
    ],
)
def test_listed_names_whose_values_something_refers_to_are_refused_by_name(grammars: Grammars, at: dict[str, Any], ref: str) -> None:
    """As zod-to-json-schema writes a schema that is there twice."""
    schema = {**at, "additionalProperties": {"$ref": ref}}
    with pytest.raises(SchemaError, match="`propertyNames` of `/properties/at") as caught:
        grammars.of_schema(json.dumps(schema))
    assert caught.value.is_unsupported


def test_definitions_of_the_schemas_own_are_kept_whatever_their_names(allows: Allows) -> None:
    own = {f"additionalProperties-{rest}": {"const": rest} for rest in ("0", "-0", "1")}
    refs = {rest: reference(f"additionalProperties-{rest}") for rest in ("0", "-0", "1")}
    schema = {"properties": {"at": PER_LETTER, **refs}, "$defs": own}
    assert allows(schema, '{"at":{"a":1},"0":"0","-0":"-0","1":"1"}') and not allows(schema, '{"at":{"a":"0"}}')


def test_so_many_listed_names_that_llguidance_breaks_are_refused_by_name(grammars: Grammars, allows: Allows) -> None:
    names = [f"n{at}" for at in range(100)]
    record = {"type": "object", "propertyNames": reference("names")}
    schema = {"prefixItems": [record] * 20, "$defs": {"names": {"enum": names}}}
    assert allows(schema, '[{"n0":1,"n99":2}]') and not allows(schema, '[{"n100":1}]')
    with pytest.raises(SchemaError, match="`propertyNames` of `/items` cannot be held to"):
        grammars.of_schema(json.dumps({**schema, "items": {**record, "propertyNames": {"enum": ["a"]}}}))


def test_what_breaks_llguidance_is_refused_in_our_words(grammars: Grammars) -> None:
    record = {"type": "object", "properties": {f"n{at}": reference("value") for at in range(140)}}
    with pytest.raises(SchemaError) as caught:
        grammars.of_schema(json.dumps({"type": "array", "prefixItems": [record] * 140, "$defs": {"value": {"type": "integer"}}}))
    assert caught.value.message == "this JSON schema cannot be followed: it is larger than what is supported"
    assert caught.value.is_unsupported


def test_what_may_never_be_is_not_written(allows: Allows) -> None:
    """As zod writes `z.never()`."""
    schema = {"type": "object", "properties": {"f": {"not": {}}, "a": {"type": "integer"}}, "required": ["a"]}
    assert allows(schema, '{"a":1}') and not allows(schema, '{"f":1,"a":1}')
    schema["additionalProperties"] = True
    assert allows(schema, '{"a":1,"g":1}') and not allows(schema, '{"a":1,"f":1}')
    assert allows({"type": "array", "items": {"not": {}}}, "[]") and not allows({"type": "array", "items": {"not": {}}}, "[1]")


@pytest.mark.parametrize("never", [{"not": {}}, False, {"$ref": "#/$defs/also"}, {"$ref": "#/$defs/list/items/1"}])
def test_what_refers_to_what_may_never_be_is_not_written(allows: Allows, never: object) -> None:
    defined = {"never": never, "also": {"not": {}}, "list": {"items": [{}, {"not": {}}]}, "loop": reference("loop")}
    assert allows({"anyOf": [TEXT, reference("never")], "$defs": defined}, '"a"')
    schema = {"type": "object", "properties": {"f": reference("never"), "a": {"type": "integer"}}, "$defs": defined}
    assert allows(schema, '{"a":1}') and not allows(schema, '{"f":1,"a":1}')


DECIMAL = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}


@pytest.mark.parametrize("branches", ["anyOf", "oneOf"])
def test_a_number_that_may_be_a_text_whose_pattern_looks_around_is_a_number(allows: Allows, branches: str) -> None:
    """As pydantic writes `Decimal | None`. A text beside nothing but null stays refused: the answer would always be null."""
    schema = {branches: [{"type": "number"}, DECIMAL, {"type": "null"}]}
    assert allows(schema, "1.5") and allows(schema, "null") and not allows(schema, '"1.5"')
    last = {"properties": {"a": schema, "b": {"$ref": f"#/properties/a/{branches}/2"}}}
    assert allows(last, '{"a":1,"b":null}') and not allows(last, '{"b":1}')
    with pytest.raises(SchemaError, match="look-around"):
        allows({branches: [DECIMAL, {"type": "null"}]}, "null")


LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"


@pytest.mark.parametrize(
    ("name", "pattern", "right", "wrong"),
    [
        ("email", r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
         ["a.b@c-d.org"], [".a@b.de", "a..b@c.de", "a@b", "a@[127.0.0.1]"]),
        ("hostname", rf"^(?=.{{1,253}}\.?$){LABEL}(?:\.{LABEL})*\.?$",
         ["a.de", ".".join(["a" * 60] * 4)], ["a_b", ".".join(["a" * 60] * 5)]),
        ("duration", r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$",
         ["P1Y2M", "PT4H5M", "P3W"], ["P", "PT", "P1YT", "P1W2D"]),
    ],
)  # fmt: skip
def test_what_a_pattern_says_by_looking_around_is_held_where_its_format_says_it(
    allows: Allows, name: str, pattern: str, right: list[str], wrong: list[str]
) -> None:
    """As zod 4.1 and 4.6 write them."""
    schema = {"type": "string", "format": name, "pattern": pattern}
    assert [text for text in right + wrong if allows(schema, f'"{text}"')] == right
    assert allows({"anyOf": [{"type": "number"}, schema]}, f'"{right[0]}"')


@pytest.mark.parametrize(
    "schema",
    [
        {"format": "uri", "pattern": "^(?!http:)https?://"}, {"format": "hostname", "pattern": r"^(?=.*\.example\.com$)"},
        {"format": "email", "pattern": r"^a(?!\.)(?!.*\.\.)"}, {"format": "date", "pattern": r"^(?!\.)(?!.*\.\.)2"},
        {"format": "hostname", "pattern": r"^(?=.{1,253}\.?$)a", "maxLength": 254}, {"pattern": r"^(?=.{1,253}\.?$)a"},
    ],
)  # fmt: skip
def test_what_no_format_says_is_refused_where_a_pattern_looks_around(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="`pattern`: regex parse error: look-around") as caught:
        grammars.of_schema(json.dumps({"type": "string", **schema}))
    assert caught.value.is_unsupported


@pytest.mark.parametrize("pattern", [r"\(?=", r"[(?=]", r"[\](?=]", r"(?:a)"])
def test_what_looks_like_looking_around_is_none(allows: Allows, pattern: str) -> None:
    schema = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": f"{pattern}b"}]}
    text = next(text for text in ("(=b", "(b", "ab") if re.search(f"{pattern}b", text))
    assert allows(schema, f'"{text}"')


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"at": {"propertyNames": {"enum": ["x"]}, "patternProperties": {"y": {}}}}},
         "`propertyNames` of `/properties/at` cannot be held to while an answer is written"),
        ({"propertyNames": {"$ref": "#/$defs/name"}, "$defs": {"name": TEXT}},
         "`propertyNames` cannot be held to while an answer is written"),
        ({"type": "string", "format": "emoji", "pattern": "^(?=.)"},
         "`pattern`: regex parse error: look-around, including look-ahead and look-behind, is not supported"),
        ({"propertyNames": {"type": "string", "title": "Key", "maxLength": 3}},
         "`propertyNames` cannot be held to while an answer is written"),
        ({"properties": {"a": TEXT, "b/c": {"items": {"if": {}, "then": {}}}}},
         "`if`, `then` of `/properties/b~1c/items` cannot be held to while an answer is written"),
        ({"anyOf": [TEXT, reference("not")], "$defs": {"not": {"not": TEXT}}},
         "`not` of `/$defs/not` cannot be held to while an answer is written"),
        ({"$defs": {"a": {"not": TEXT}}, "properties": {"a": reference("a"), "b": {"not": TEXT}}},
         "`not` of `/properties/b` cannot be held to while an answer is written"),
        ({"definitions": {"a": {"not": TEXT}}, "items": {"not": TEXT}},
         "`not` of `/items` cannot be held to while an answer is written"),
        ({"properties": {"a": {"type": "string", "pattern": "^a"}, "b": {"type": "string", "pattern": "^(?=a)\\d"}}},
         "`pattern` of `/properties/b`: regex parse error: look-around, including look-ahead and look-behind, is not supported"),
        ({"properties": {"a": reference("A")}, "$defs": {"A": {"items": {"pattern": "^(?=a)"}}}},
         "`pattern` of `/$defs/A/items`: regex parse error: look-around, including look-ahead and look-behind, is not supported"),
        ({"properties": {"a": {"items": {**PER_LETTER, "additionalProperties": {"items": {"pattern": "^(?=a)"}}}}}},
         "`pattern` of `/properties/a/items/additionalProperties/items`: "
         "regex parse error: look-around, including look-ahead and look-behind, is not supported"),
        ({"uniqueItems": False,
          **PER_LETTER, "additionalProperties": {**PER_LETTER, "additionalProperties": {"prefixItems": [{}, {"uniqueItems": True}]}}},
         "`uniqueItems` of `/additionalProperties/additionalProperties/prefixItems/1` cannot be held to while an answer is written"),
        ({"not": {}}, "`not` cannot be held to while an answer is written"),
        ({"properties": {"a": {"patternProperties": {"^(?!x)": TEXT}}}},
         "`patternProperties` of `/properties/a`: "
         "regex parse error: look-around, including look-ahead and look-behind, is not supported"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_keyword_and_where_it_stands(grammars: Grammars, schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        grammars.of_schema(json.dumps(schema))
    assert (caught.value.message, caught.value.is_unsupported) == (f"this JSON schema cannot be followed: {said}", True)


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
    assert not grammars.can_follow_call((("", whole),))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems hold no process to such a limit")
def test_a_schema_that_would_take_all_memory_is_refused(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1000)
    monkeypatch.setattr(grammar_check, "MEMORY_BYTES", 64 << 20)
    with pytest.raises(SchemaError, match="takes too long to work out"):
        grammars.of_schema('{"type": "integer", "multipleOf": 100000009}')


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/x/const", "x": {"const": {"allOf": PATTERNS}}}, {"$ref": "#/default/0", "default": [{"multipleOf": 7}]},
        {"$ref": "#/enum/0", "enum": [{"allOf": PATTERNS}]}, {"$ref": "#/examples/a", "examples": {"a": {"allOf": PATTERNS}}},
        {"type": "string", "pattern": "a", "minLength": 9}, {"allOf": [{"pattern": "a"}, {"maxLength": 9}], "type": "string"},
        {"patternProperties": {"^a": TEXT, "b$": TEXT}}, {"pattern": "a", "format": "date"}, {"multipleOf": 7},
    ],
)  # fmt: skip
def test_a_schema_that_may_take_long_is_known_wherever_a_reference_may_find_it(schema: dict[str, Any]) -> None:
    assert may_take_long({"type": "object", "properties": {"x": schema}})


def test_usual_schemas_are_not_tried() -> None:
    assert not may_take_long(
        {"properties": {"pattern": TEXT, "a": {"pattern": "^a$"}, "format": {"enum": ["b"]}}, "required": ["pattern"]}
    )
    assert not may_take_long({"properties": {"day": {"format": "date"}, "name": {"minLength": 1, "maxLength": 9}}})


def test_several_patterns_that_are_soon_made_ready_are_followed(allows: Allows) -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string", "pattern": "^[a-z]{2}$"}, "day": {"type": "string", "pattern": "^\\d$"}},
    }
    assert allows(schema, '{"id":"ab","day":"7"}') and not allows(schema, '{"id":"ab","day":"x"}')
    assert allows({"type": "integer", "multipleOf": 7}, "21") and not allows({"type": "integer", "multipleOf": 7}, "22")


def asked_until(left: threading.Event, schema: str, grammars: Grammars) -> None:
    with net.asking_for(left), pytest.raises(RemoteError, match="nobody waits for this answer any more"):
        grammars.of_schema(schema)


def test_trying_a_schema_ends_when_whoever_asks_has_left(grammars: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1000)
    monkeypatch.setattr(grammar_check, "WALL_SECONDS", 1000)
    trials: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    left = threading.Event()

    def begun(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        trials.put(trial := popen(*args, **kwargs))
        return trial

    popen = subprocess.Popen
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(subprocess, "Popen", begun)
        asked = pool.submit(asked_until, left, '{"type": "integer", "multipleOf": 100000037}', grammars)
        trial = trials.get(timeout=PATIENCE_SECONDS)
        assert trial.returncode is None
        left.set()
        asked.result(timeout=PATIENCE_SECONDS)
    assert trial.returncode is not None
    assert not grammar_check._lock.locked()


def test_who_waits_for_another_schema_to_be_tried_may_leave(grammars: Grammars) -> None:
    left = threading.Event()
    with ThreadPoolExecutor(1) as pool, grammar_check._lock:
        asked = pool.submit(asked_until, left, '{"type": "integer", "multipleOf": 5}', grammars)
        left.set()
        asked.result(timeout=PATIENCE_SECONDS)


def test_a_schema_that_was_tried_does_not_wait_for_another_that_is(grammars: Grammars) -> None:
    schema = '{"type": "integer", "multipleOf": 11}'
    grammars.of_schema(schema)
    left = threading.Event()
    left.set()
    with grammar_check._lock, net.asking_for(left):
        grammars.of_schema(schema)


ENDED_FROM_OUTSIDE = [f"import os; os.kill(os.getpid(), {number})" for number in (2, 9, 15)]


@pytest.mark.parametrize(
    "trial",
    ["raise SystemExit(1)", *(ENDED_FROM_OUTSIDE if sys.platform != "win32" else ()), None],
)
def test_a_schema_that_cannot_be_tried_is_taken_and_tried_the_next_time(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trial: str | None
) -> None:
    """None: no process can be had."""
    caplog.set_level(logging.INFO, "nomoat.engine.grammar_check")
    monkeypatch.setattr(grammar_check, "_tried", {})
    schema = '{"type": "integer", "multipleOf": 7}'
    with monkeypatch.context() as patch:
        if trial is None:
            patch.setattr(subprocess, "Popen", Mock(side_effect=BlockingIOError("no more processes")))
        else:
            patch.setattr(grammar_check, "TRY", trial)
        grammars.of_schema(schema)
    assert not grammar_check._tried and caplog.messages[0].startswith("a JSON schema is taken untried: ")
    grammars.of_schema(schema)
    assert list(grammar_check._tried.values()) == [True] and len(caplog.messages) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="abort() ends with exit code 3 there")
def test_a_schema_that_crashes_the_trial_would_crash_this_process_and_is_refused(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_check, "TRY", "import os; os.abort()")
    with pytest.raises(SchemaError, match="takes too long to work out"):
        grammars.of_schema('{"type": "integer", "multipleOf": 13}')


def test_crashes_are_known_on_windows_and_ctrl_c_is_none() -> None:
    on_windows = {"access violation": 0xC0000005, "stack overflow": 0xC00000FD, "Ctrl-C": 0xC000013A}
    assert [grammar_check._told_by(code) for code in on_windows.values()] == [False, False, None]


def test_ctrl_c_does_not_end_a_trial_and_what_llguidance_refuses_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = "signal.raise_signal(signal.SIGINT)\nfrom llguidance import"
    monkeypatch.setattr(grammar_check, "TRY", grammar_check.TRY.replace("from llguidance import", stopped))
    assert grammar_check._is_short("no grammar, \u00e9") is True


@pytest.mark.parametrize("schema", [{"properties": {"x": {"format": "\ud800"}}}, {"anyOf": [{"const": "\ud800"}]}])
def test_what_no_utf_8_has_cannot_be_followed(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match=r"^this JSON schema cannot be followed: "):
        grammars.of_schema(json.dumps(schema))
    calls = (("", json.dumps(schema)),)
    assert grammars.of_call(calls) is None and not grammars.can_follow_call(calls)


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
