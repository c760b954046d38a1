"""An answer is held to less than its schema allows where a small model would not find an end, and never otherwise."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from schemas import CITY, PER_LETTER, TEXT, Allows, reference

from nomoat.engine.grammar import Grammars
from nomoat.errors import SchemaError

BASE = {"type": "object", "properties": {"id": TEXT}, "required": ["id"]}


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


@pytest.mark.parametrize("kind", ["integer", "number", ["integer", "null"], None])
@pytest.mark.parametrize(
    ("lowest", "highest"),
    [(-(2**63), 2**63 - 1), (-(2**63), 2**64 - 1), (-(10**30), 10**30), (-1.7976931348623157e308, 1.7976931348623157e308)],
)
def test_bounds_that_are_far_away_are_held_to(allows: Allows, kind: object, lowest: float, highest: float) -> None:
    """As those of whole numbers of 64 bits are, and of float64, which generators of schemas write."""
    for schema in (
        {"minimum": lowest, "maximum": highest, "default": -(2**63)}, {"exclusiveMinimum": lowest}, {"exclusiveMaximum": highest},
    ):  # fmt: skip
        asked = {**schema, **({} if kind is None else {"type": kind})}
        for whole in (asked, {"items": asked, "type": "array"}):
            text = "{}" if whole is asked else "[{}]"
            assert allows(whole, text.format("-9000000000000000000")) and allows(whole, text.format("9000000000000000000"))
    assert not allows({"type": "integer", "minimum": -(2**63)}, str(-(2**63) - 1))
    assert allows({"type": "integer", "maximum": 2**63 - 1}, str(2**63 - 1))
    assert not allows({"type": "integer", "maximum": 2**63 - 1}, str(2**63))
    assert not allows({"type": "number", "maximum": 2**63}, str(2**63 + 1))


@pytest.mark.parametrize("number", [-1e30, -1.7976931348623157e308, float("inf"), -(2**63), 2**64, -(2**70)])
def test_numbers_that_no_answer_is_held_to_may_be_any(grammars: Grammars, allows: Allows, number: float) -> None:
    """Such as pydantic's `best: float = -sys.float_info.max`."""
    asked = {"type": "number", "default": number, "examples": [number, {"best": number}]}
    for schema in (asked, {"$ref": "#/$defs/default", "$defs": {"default": asked}}, {"anyOf": [asked]}):
        assert allows(schema, "1.5") and not allows(schema, "true")
        assert grammars.of_call((("", json.dumps(schema)),)) is not None
