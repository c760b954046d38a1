"""What of an answer is held while it is written, and how a schema that cannot be followed is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from schemas import CITY, PER_LETTER, TEXT, Allows, reference

from nomoat.engine.grammar import Grammars
from nomoat.errors import SchemaError


def test_what_breaks_llguidance_is_refused_in_our_words(grammars: Grammars) -> None:
    record = {"type": "object", "properties": {f"n{at}": reference("value") for at in range(140)}}
    with pytest.raises(SchemaError) as caught:
        grammars.of_schema(json.dumps({"type": "array", "prefixItems": [record] * 140, "$defs": {"value": {"type": "integer"}}}))
    assert caught.value.message == "this JSON schema cannot be followed: it is larger than what is supported"
    assert caught.value.is_unsupported


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
        ({"properties": {"a/b": {"enum": [1, 10**30]}}}, f"{10**30}, of `/properties/a~1b/enum/1`, is no number that is supported"),
        ({"items": {"minimum": 2**64}}, "18446744073709551616, of `/items/minimum`, is no number that is supported"),
        ({**PER_LETTER, "additionalProperties": {"items": {"const": 2**64}}},
         "18446744073709551616, of `/additionalProperties/items/const`, is no number that is supported"),
        ({"type": "number", "minimum": 1e20, "maximum": 1e25}, "1e+20, of `/minimum`, is no number that is supported"),
        ({"type": "number", "exclusiveMinimum": 1e20}, "1e+20, of `/exclusiveMinimum`, is no number that is supported"),
        ({"type": "integer", "minimum": 2**63, "maximum": 2**64 - 1}, f"{2**63}, of `/minimum`, is no number that is supported"),
        ({"items": {"type": "integer", "minimum": 2**63, "allOf": [{"maximum": 2**64 - 1}]}},
         f"{2**63}, of `/items/minimum`, is no number that is supported"),
        ({"items": {"minItems": 2**64}}, "18446744073709551616, of `/items/minItems`, is no number that is supported"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_keyword_and_where_it_stands(grammars: Grammars, schema: dict[str, Any], said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        grammars.of_schema(json.dumps(schema))
    assert (caught.value.message, caught.value.is_unsupported) == (f"this JSON schema cannot be followed: {said}", True)


@pytest.mark.parametrize("number", [-(2**63), -(2**63) + 1, -9.223372036854775e18, -1e19, -(10**30), float("-inf")])
@pytest.mark.parametrize("keyword", ["const", "enum"])
def test_a_value_that_llguidance_breaks_at_is_refused(grammars: Grammars, number: float, keyword: str) -> None:
    """It went round in itself until its stack was full, and the whole process ended."""
    for value in (number, [number], {"minimum": number}, {"default": {"default": number}}):
        schema = {"type": ["integer", "array", "object"], keyword: [value] if keyword == "enum" else value}
        for asked in (
            schema, {"properties": {"a": schema}}, {"properties": {"default": schema}}, {"default": schema, "$ref": "#/default"},
            {"default": {"x": schema}, "$ref": "#/default/x"}, {"examples": [schema], "properties": {"a": {"$ref": "#/examples/0"}}},
            {"default": schema, "$ref": "#/d%65fault"}, {"default": {"$anchor": "a", **schema}, "$ref": "#a"},
            {"default": {"$ref": "#/examples/0"}, "examples": [schema], "$ref": "#/default"},
            {"properties": schema, "$ref": "#/properties"}, {"x": schema, "$ref": "#/x"},
        ):  # fmt: skip
            with pytest.raises(SchemaError, match=r"^this JSON schema cannot be followed: "):
                grammars.of_schema(json.dumps(asked))
            calls = (("", json.dumps(asked)),)
            assert grammars.of_call(calls) is None and not grammars.can_follow_call(calls)


@pytest.mark.parametrize("required", [[["city"]], {"city": True}, True, "city", [None]])
def test_what_requires_no_names_is_refused(grammars: Grammars, required: object) -> None:
    with pytest.raises(SchemaError, match=r"^this JSON schema cannot be followed: "):
        grammars.of_schema(json.dumps({**CITY, "required": required}))


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


def test_an_object_of_the_models_own_names_has_the_spaces_that_it_writes_and_one_of_a_schemas_has_none(allows: Allows) -> None:
    anything = {"type": "object"}
    assert allows(anything, '{"a": 1}') and allows(anything, '{\n  "a": [\n    1\n  ]\n}') and allows(anything, '{"a":1}')
    assert not allows(anything, '{  "a": 1}') and not allows(anything, '{\n\n"a": 1}')  # a small model goes on with them
    assert not allows(CITY, '{"city": "Paris"}') and allows(CITY, '{"city":"Paris"}')


def test_digits_of_a_text_and_those_that_a_schema_wants_are_not_counted(allows: Allows) -> None:
    assert allows({}, '"' + "1" * 40 + '"') and allows({}, '["\\"' + "1" * 40 + '","\\\\",1]')
    assert not allows({}, '["\\\\",' + "1" * 21 + "]")
    tiny = {"type": "number", "minimum": 1e-22, "maximum": 2e-22}
    assert allows(tiny, f"0.{'0' * 21}1") and not allows(tiny, f"0.{'0' * 21}10")


def test_a_letter_may_be_written_as_its_number_which_models_copy_from_what_json_dumps_made(allows: Allows) -> None:
    name = json.dumps("이름")
    assert "\\u" in name
    for schema, text in ((TEXT, name), ({"type": "object"}, f"{{{name}:{name}}}"), ({}, f"[{name}]")):
        assert allows(schema, text)
    assert allows({**TEXT, "maxLength": 2}, name) and not allows({**TEXT, "maxLength": 1}, name)
    emoji = json.dumps("\U0001f600")
    assert allows({**TEXT, "maxLength": 1}, emoji)
    assert not allows(TEXT, f'{emoji[:7]}"') and not allows(TEXT, f'"{emoji[7:]}'), "half a character is no text"
