"""JSON schemas: what is in them, and narrower ones for small models, which llguidance takes where zod and pydantic wrote them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from nomoat.bounds import shown

DEFINITIONS = ("$defs", "definitions")
NAMING = ("properties", "patternProperties", *DEFINITIONS)  # keywords of schemas by names, which are no keywords
UNREAD = frozenset({"default", "examples"})  # keywords of what no answer is held to
VALUES = ("const", "enum", *UNREAD)  # keywords of what is no schema
REMARKS = frozenset({"title", "description", "$comment"})  # keywords that assert nothing
NAMES = ("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties")  # about an object's
BRANCHES = ("allOf", "anyOf", "oneOf")  # keywords of schemas of the same value, as `$ref` is
LOOK_AROUNDS = frozenset({"(?=", "(?!", "(?<=", "(?<!"})
OF_PATTERN = re.compile(r"\\.|\[(?:\\.|[^\\\]])*\]?|\(\?<?[=!]|.", re.DOTALL)  # what may have a parenthesis that is none, and the rest
SAID_BY_FORMATS = {  # parts of patterns as zod writes them, and what is left without what the format beside them says as well
    "email": {r"^(?!\.)(?!.*\.\.)": "^"},
    "hostname": {r"^(?=.{1,253}\.?$)": "^"},
    "duration": {r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)": r"^P(?:(\d+W)|", r"(T(?=\d)": "(T"},
}
MAX_LISTED = 2000  # names that become properties, in one schema: each object has its own, and llguidance breaks beyond ten thousand
MAX_REFERENCES = 10  # in a chain, which may go round
# A small model's text with digits may go on for ever. With nanoseconds and a zone, for a duration more than anybody needs, and for a
# host DNS's own bound.
MAX_LENGTHS = {
    "date-time": len("2024-05-01T00:00:00.123456789+00:00"), "time": len("00:00:00.123456789+00:00"), "duration": 32, "hostname": 253,
}  # fmt: skip
# What llguidance takes of numbers: as a bound of any that lie between these two, and whole ones up to 64 bits; and it breaks at values
# below the lower one, the whole process with it. The nearest floats count as 2**63, as it reads them.
LOWEST, HIGHEST, HIGHEST_WHOLE = -(2**63) + 4096, 2**63 - 4096, 2**64 - 1
LOWER_BOUNDS, UPPER_BOUNDS = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
SHARED = "x-nomoat"  # keyword of a narrowed schema: a list of schemas that it names several times


def mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any] | bool]) -> Any:
    """A schema with what `change` makes of it and of each schema within, the outer one first; what is no schema stays as it is."""
    if isinstance(schema, list):
        return [mapped(one, change) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = change(schema)
    if isinstance(changed, bool):
        return changed
    made: dict[str, Any] = {}
    for key, value in changed.items():
        if key in NAMING and isinstance(value, dict):
            made[key] = {name: mapped(one, change) for name, one in value.items()}
        else:
            made[key] = value if key in VALUES else mapped(value, change)
    return made


def narrowed(asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """A schema that allows what a small model needs a bound for, and no more: each answer to it is one to what was asked.

    An object that lists its properties has no others, unless it says that it may: models go on inventing them. Texts with digits in
    them have an end, and numbers that may be nearly any have bounds. With it, by their places in it, where schemas that stand
    elsewhere now were asked, as JSON pointers.

    Raises ValueError for other numbers than are supported.
    """
    added_to, records = _added_to(asked), _Records(asked)

    def change(one: dict[str, Any]) -> dict[str, Any] | bool:
        if one is not asked and _is_never(one, asked):
            return False  # the same, which llguidance takes: `not` it does not, nor what must be, and may not
        near = _with_near_bounds(_without_what_asserts_nothing(one))
        narrowed = _without_look_arounds(records.listed(one, near))
        length = MAX_LENGTHS.get(str(narrowed.get("format")))
        if length is not None and "maxLength" not in one:
            narrowed = {**narrowed, "maxLength": length}
        if id(one) not in added_to and _is_whole_list(one):
            narrowed = {**narrowed, "additionalProperties": False}
        return narrowed

    made, moved = mapped(asked, change), dict[str, str]()
    shared = [mapped(one, change) for one in records.shared]  # more are added meanwhile
    if shared:
        places = {id(one): place for place, one in _places(asked)}
        made[SHARED], moved = shared, {f"/{SHARED}/{at}": places[id(one)] for at, one in enumerate(records.shared)}
    _require_supported_numbers(made, moved)
    return made, moved


def _require_supported_numbers(narrowed: Any, moved: dict[str, str]) -> None:
    """Raise ValueError for others, wherever they stand: a `$ref` may make a schema of it."""
    for place, schema in asked_places(narrowed, moved):
        for key in LOWER_BOUNDS:
            if isinstance(value := schema.get(key), int | float) and value > HIGHEST:
                raise _unsupported(value, f"{place}/{key}")
    for number, place in _numbers_in(narrowed, ""):
        if number < LOWEST or (isinstance(number, int) and number > HIGHEST_WHOLE):
            raise _unsupported(number, _asked_place(place, moved))


def _unsupported(number: float, place: str) -> ValueError:
    return ValueError(f"{shown(number)}, of `{place}`, is no number that is supported")


def _numbers_in(part: Any, place: str) -> Iterator[tuple[float, str]]:
    """All in a part of a schema, whatever they are there, with their JSON pointers."""
    if isinstance(part, int | float):
        yield part, place
    elif isinstance(part, dict):
        for key, one in part.items():
            yield from _numbers_in(one, f"{place}/{_in_pointer(key)}")
    elif isinstance(part, list):
        for at, one in enumerate(part):
            yield from _numbers_in(one, f"{place}/{at}")


def _with_near_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Bounds of numbers that lie so far away that llguidance takes none, such as that of all whole numbers of 64 bits, are nearer."""
    kinds = schema.get("type")
    highest = HIGHEST_WHOLE if kinds == "integer" or (isinstance(kinds, list) and "number" not in kinds) else HIGHEST
    said = {key: one for key, one in schema.items() if isinstance(one, int | float)}
    lower = {key: LOWEST for key in LOWER_BOUNDS if said.get(key, 0) < LOWEST}
    return {**schema, **lower, **{key: highest for key in UPPER_BOUNDS if said.get(key, 0) > highest}}


def _is_never(schema: Any, root: dict[str, Any]) -> bool:
    """Whether nothing fits a schema, since it says so or refers to one that does. Not covered: longer chains of references."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict) or schema.get("not") == {}:
            break
        schema = next(iter(_pointed_at(schema, root)), None)
    return schema is False or (isinstance(schema, dict) and schema.get("not") == {})


def _without_what_asserts_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what llguidance refuses and nothing is against: by the standard (2020-12) a `format` such as `path` or `binary`,
    `propertyNames` that are any texts, and a `uniqueItems` that is false; and without what is UNREAD."""
    named = schema.get("format")
    empty = {"format"} if isinstance(named, str) and not _is_known_format(named) else set()
    empty |= {"propertyNames"} if _fits_all_names(schema.get("propertyNames")) else set()
    empty |= {"uniqueItems"} if schema.get("uniqueItems") is False else set()
    return {key: value for key, value in schema.items() if key not in empty | UNREAD}


def _fits_all_names(schema: Any) -> bool:
    return schema is True or (isinstance(schema, dict) and _says_of_texts_only(schema, set()))


def _says_of_texts_only(schema: dict[str, Any], keys: set[str]) -> bool:
    """Whether a schema that texts may fit asserts nothing of them but by these keywords."""
    kinds = schema.get("type", "string")
    return REMARKS.issuperset(schema.keys() - {"type", *keys}) and "string" in (kinds if isinstance(kinds, list) else [kinds])


class _Records:
    """The objects of a schema whose `propertyNames` lists all that there are, with these as `properties`.

    Left as they are, for llguidance to refuse: those whose other properties a `$ref` points at or into, which would not find them,
    and those with too many names.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self.shared: list[dict[str, Any]] = []  # of several properties each: copies of what holds others would be without number
        self._root = root
        self._room = MAX_LISTED
        steps = (step for one in _schemas_in(root, set()) for step in _steps_to_pointed_at(one, root))
        self._pointed_into = {id(part) for part, step in steps if step == "additionalProperties"}

    def listed(self, asked: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
        """What becomes of `schema`, as `asked` is by now."""
        names, listed = _names_of(schema.get("propertyNames"), self._root), schema.get("properties", {})
        if names is None or not isinstance(listed, dict) or "patternProperties" in schema:
            return schema
        if id(asked) in self._pointed_into or len(names) > self._room:
            return schema
        self._room -= len(names)
        value = schema.get("additionalProperties", True)
        if isinstance(value, dict):
            self.shared.append(value)
            value = {"$ref": f"#/{SHARED}/{len(self.shared) - 1}"}
        properties = {name: listed.get(name, value) for name in names}
        rest = {key: one for key, one in schema.items() if key != "propertyNames"}
        return {**rest, "properties": properties, "additionalProperties": False}


def _names_of(schema: Any, root: dict[str, Any]) -> list[str] | None:
    """The texts that a schema lists, or the one that its `$ref` names; None where it does not."""
    if isinstance(schema, dict) and "$ref" in schema and _says_of_texts_only(schema, {"$ref"}):
        schema = next(iter(_pointed_at(schema, root)), None)
    if not isinstance(schema, dict) or not _says_of_texts_only(schema, {"enum", "const"}):
        return None
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(listed, list):
        return None
    return [name for name in listed if isinstance(name, str) and name == schema.get("const", name)]


def _without_look_arounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what patterns say by looking around, which llguidance does not do, where something else says the same, or enough.

    That is a `format` beside the pattern: zod writes both of an e-mail address. Of a number that may be written as a text, too, as
    pydantic has `Decimal`, it is the number.
    """
    for key in ("anyOf", "oneOf"):
        branches = schema.get(key)
        if isinstance(branches, list) and any(isinstance(one, dict) and one.get("type") in ("number", "integer") for one in branches):
            schema = {**schema, key: [False if _looks_around(one) else one for one in branches]}  # others keep their places
    pattern = schema.get("pattern")
    return {**schema, "pattern": _without_what_a_format_says(pattern, schema)} if isinstance(pattern, str) else schema


def _looks_around(schema: Any) -> bool:
    pattern = schema.get("pattern") if isinstance(schema, dict) else None
    return isinstance(pattern, str) and not LOOK_AROUNDS.isdisjoint(OF_PATTERN.findall(_without_what_a_format_says(pattern, schema)))


def _without_what_a_format_says(pattern: str, schema: dict[str, Any]) -> str:
    """A schema's pattern: with its `format`, it fits the same texts as before."""
    named = str(schema.get("format"))
    if named == "hostname" and schema.get("maxLength", 0) not in range(MAX_LENGTHS[named] + 1):
        return pattern  # the length that it says is not held to
    for part, rest in SAID_BY_FORMATS.get(named, {}).items():
        pattern = pattern.replace(part, rest)
    return pattern


def _is_whole_list(schema: dict[str, Any]) -> bool:
    """Whether an object's properties may be taken for all that it has."""
    listed, at_least = schema.get("properties"), schema.get("minProperties", 0)
    says_more = any(key in schema for key in ("additionalProperties", "patternProperties", "unevaluatedProperties"))
    return (
        isinstance(listed, dict) and bool(listed) and not says_more and _requires_only(schema, listed)
        and isinstance(at_least, int) and at_least <= len(listed)
    )  # fmt: skip


def _requires_only(schema: dict[str, Any], listed: dict[str, Any]) -> bool:
    required = schema.get("required", [])
    return isinstance(required, list) and all(isinstance(name, str) and name in listed for name in required)


def _adds(branches: Any, listed: Any) -> bool:
    """Whether alternatives say more than which of an object's listed properties have to be there."""
    if not isinstance(branches, list) or not isinstance(listed, dict):
        return True
    return not all(isinstance(one, dict) and {"required"}.issuperset(one) and _requires_only(one, listed) for one in branches)


def _added_to(root: dict[str, Any]) -> set[int]:
    """The `id`s of schemas of objects that another schema says something about, too: closed, they would not go together."""
    found: set[int] = set()
    waiting: list[Any] = []
    for one in _schemas_in(root, set()):
        said = len(one["allOf"]) if isinstance(one.get("allOf"), list) else 0
        said += sum(key in one and _adds(one[key], one.get("properties")) for key in ("anyOf", "oneOf"))
        said += sum(any(key in one for key in keys) for keys in (("$ref",), ("const", "enum"), NAMES))
        if said > 1:
            listed = one.get("properties")
            found.add(id(one))
            waiting += [one.get(key) for key in BRANCHES] + _pointed_at(one, root)
            waiting += listed.values() if isinstance(listed, dict) else ()
    looked_at: set[int] = set()
    while waiting:
        for one in _schemas_in(waiting.pop(), looked_at):
            found.add(id(one))
            waiting += _pointed_at(one, root)
    return found


def _schemas_in(part: Any, looked_at: set[int]) -> list[dict[str, Any]]:
    """Without those that were looked at before, and what is in them; their `id`s are added to these."""
    found: list[dict[str, Any]] = []

    def note(one: dict[str, Any]) -> dict[str, Any]:
        if id(one) in looked_at:
            return {}
        looked_at.add(id(one))
        found.append(one)
        return one

    mapped(part, note)
    return found


def _pointed_at(schema: dict[str, Any], root: dict[str, Any]) -> list[Any]:
    """The schema that a `$ref` names, if there is one; the root where it is not found, which may be it or hold it."""
    if not isinstance(schema.get("$ref"), str):
        return []
    *_, (found, _) = _steps_to_pointed_at(schema, root)
    return [root if found is None else found]


def _steps_to_pointed_at(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    """What a `$ref` leads through, each with the name by which it goes on; what it names, or None, comes last, and goes on by none."""
    ref = schema.get("$ref")
    if not isinstance(ref, str):
        return
    part: Any = root
    for step in ref.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        yield part, name
        if isinstance(part, list):
            part = part[int(name)] if name.isdecimal() and int(name) < len(part) else None
        else:
            part = part.get(name) if isinstance(part, dict) else None
    yield part, ""


@functools.lru_cache(maxsize=256)
def _is_known_format(name: str) -> bool:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema({"type": "string", "format": name})
    return not LLMatcher.validate_grammar(grammar)


def asked_places(narrowed: Any, moved: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of a narrowed one, with the places where they were asked; see `narrowed`."""
    return ((_asked_place(place, moved), one) for place, one in _places(narrowed))


def _asked_place(place: str, moved: dict[str, str]) -> str:
    start = "/".join(place.split("/")[:3])
    return moved.get(start, start) + place[len(start) :]


def _places(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and each within, as `mapped` finds them, with their JSON pointers; definitions last, which may be used nowhere."""
    if isinstance(part, list):
        for at, one in enumerate(part):
            yield from _places(one, f"{place}/{at}")
    elif isinstance(part, dict):
        yield place, part
        for key, value in sorted(part.items(), key=lambda item: item[0] in DEFINITIONS):
            if key in NAMING and isinstance(value, dict):
                for name, one in value.items():
                    yield from _places(one, f"{place}/{key}/{_in_pointer(name)}")
            elif key not in VALUES:
                yield from _places(value, f"{place}/{key}")


def _in_pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
