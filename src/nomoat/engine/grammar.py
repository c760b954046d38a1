"""Answers that follow a JSON schema: at each token, which ones may come next. The work is done by llguidance."""

from __future__ import annotations

import functools
import json
import re
import string
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from nomoat.engine import grammar_check
from nomoat.errors import SchemaError

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

OPTIONS = {
    "whitespace_flexible": False,  # no spaces of the model's choice: a small model may go on with them for ever
    "coerce_one_of": True,  # what several branches of a `oneOf` allow cannot be excluded while it is written: `anyOf`
}
SPACE = r" |\n {0,16}"  # in a call as a model writes it by itself: it goes on as it has learned, on one line or on several
SPACED = {**OPTIONS, "whitespace_flexible": True, "whitespace_pattern": SPACE}
MAX_KEPT = 16  # grammars of calls: conversations go on with the same functions
DEFINITIONS = ("$defs", "definitions")
NAMING = ("properties", "patternProperties", *DEFINITIONS)  # keywords of schemas by names, which are no keywords
VALUES = ("const", "enum", "default", "examples")  # keywords of what is no schema
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
# A small model's number may go on for ever. These are digits in a row: as many as whole numbers of 64 bits take, and of an exponent.
MAX_DIGITS, MAX_EXPONENT_DIGITS = 20, 3
# The same of texts with digits: with nanoseconds and a zone, for a duration more than anybody needs, and for a host DNS's own bound.
MAX_LENGTHS = {
    "date-time": len("2024-05-01T00:00:00.123456789+00:00"), "time": len("00:00:00.123456789+00:00"), "duration": 32, "hostname": 253,
}  # fmt: skip

Calls = tuple[tuple[str, str], ...]  # what may be called: what stands before it, in llguidance's Lark, and its JSON schema


class Grammar:
    """One answer's place in its schema."""

    holds = True  # `forbid` has something to forbid

    def __init__(self, matcher: Any, tokenizer: Any, digits_V: npt.NDArray[np.uint8]) -> None:
        """`digits_V`: how many each token begins with. The matcher's vocabulary may have more tokens than there are logits."""
        from llguidance.numpy import allocate_token_bitmask

        self._matcher, self._tokenizer, self._digits_V = matcher, tokenizer, digits_V
        self._mask = allocate_token_bitmask(1, tokenizer.vocab_size)
        self._longest = int(digits_V.max(initial=0))
        self._in_text = self._is_escaped = False
        self._room = MAX_DIGITS  # what a number at this place may yet have

    def forbid(self, logits_V: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that may not come next to minus infinity, in place.

        Raises SchemaError for one that became too much for llguidance, which then allows nothing but the answer's end.
        """
        from llguidance.numpy import apply_token_bitmask_inplace, fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask, 0)
        if self._matcher.is_error():
            raise _cannot_be_followed(self._matcher.get_error())
        apply_token_bitmask_inplace(logits_V[None], self._mask)
        if self._room < self._longest and not self._in_text:
            held_V = np.where(self._digits_V[: len(logits_V)] > max(self._room, 0), -np.inf, logits_V)
            if (held_V > -np.inf).any():  # else the schema wants so many
                logits_V[:] = held_V

    @property
    def is_whole(self) -> bool:
        """Whether what has been chosen may end here."""
        return bool(self._matcher.is_accepting())

    def accept_text(self, text: bytes) -> bool:
        """This text is there already. False, and nothing has changed, if it may not be."""
        tokens = self._tokenizer.tokenize_bytes(text)
        if self._tokenizer.decode_bytes(tokens) != text or self._matcher.validate_tokens(tokens) < len(tokens):
            return False
        for token in tokens:
            self.accept(token)
        return True

    def accept(self, token: int) -> None:
        """This token has been chosen."""
        self._matcher.consume_token(token)
        for byte in self._tokenizer.decode_bytes([token]):
            if self._in_text:
                self._in_text = byte != ord('"') or self._is_escaped
                self._is_escaped = byte == ord("\\") and not self._is_escaped
            elif byte in b"0123456789":
                self._room -= 1
            elif byte not in b"+-":  # a sign, of a number or of the exponent that has begun
                self._in_text = byte == ord('"')
                self._room = MAX_EXPONENT_DIGITS if byte in b"eE" else MAX_DIGITS


class Grammars:
    """Makes grammars for one model's vocabulary. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._of_calls: dict[tuple[Calls, str], Any] = {}  # matchers at their beginning, by what they are of, and end
        self._ll_tokenizer: Any = None
        self._digits_V: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)

    def of_schema(self, schema: str) -> Grammar:
        """A grammar for a JSON schema, given as a JSON object, and narrower than it; see `_narrowed`.

        Raises SchemaError for one that cannot be followed.
        """
        from llguidance import LLMatcher

        narrowed: Any = None
        moved: dict[str, str] = {}
        try:
            narrowed, moved = _narrowed(json.loads(schema))
            grammar = LLMatcher.grammar_from_json_schema(narrowed, defaults=OPTIONS)
            if may_take_long(narrowed):
                grammar_check.require_short(grammar)
            matcher = LLMatcher(self.ll_tokenizer(), grammar, log_level=0)
            problem = matcher.get_error()
        except (ValueError, RecursionError) as exc:
            problem = str(exc)
        if problem:
            raise _cannot_be_followed(problem, _asked_places(narrowed, moved))
        return Grammar(matcher, self.ll_tokenizer(), self._digits_V)

    def of_call(self, calls: Calls, end: str = "") -> Grammar | None:
        """The same for a call, any of these, as a model writes it by itself: with spaces around and within it, and `end` behind it.

        None for no calls, and for what cannot be followed. How long that takes has no bound: see `can_follow_call`.
        """
        from llguidance import LLMatcher

        if not calls:
            return None
        matcher = self._of_calls.get((calls, end))
        if matcher is None:
            try:
                rules = [f"call{at}: %json {_spaced(json.loads(schema))}" for at, (_, schema) in enumerate(calls)]
                starts = (f"{before} SPACE? call{at} SPACE? {self.mark(end)}" for at, (before, _) in enumerate(calls))
                grammar = "\n".join([f"start: {' | '.join(starts)}", f"SPACE: /{SPACE}/", *rules])
                matcher = LLMatcher(self.ll_tokenizer(), LLMatcher.grammar_from_lark(grammar), log_level=0)
            except ValueError:
                return None
            if len(self._of_calls) >= MAX_KEPT:
                self._of_calls.clear()
            self._of_calls[calls, end] = matcher
        return None if matcher.is_error() else Grammar(matcher.deep_copy(), self.ll_tokenizer(), self._digits_V)

    def mark(self, text: str) -> str:
        """A text in llguidance's Lark, which may be a special token there, whatever it is to the model."""
        token = self._tokenizer.backend.token_to_id(text)
        is_special = token is not None and self.ll_tokenizer().is_special_token(token)
        return f"<[{token}]>" if is_special else json.dumps(text, ensure_ascii=False)

    def can_follow_call(self, calls: Calls, end: str = "") -> bool:
        """Whether `of_call` has a grammar, soon. What may take long is tried: not for a thread that others wait for.

        Raises RemoteError where whoever asks has left meanwhile (`net.asking_for`).
        """
        from llguidance import LLMatcher

        try:
            for asked in (json.loads(schema) for _, schema in calls):
                if may_take_long(asked):
                    grammar_check.require_short(LLMatcher.grammar_from_json_schema(_spaced(asked)))
        except (SchemaError, ValueError):
            return False
        return self.of_call(calls, end) is not None

    def ll_tokenizer(self) -> Any:
        """The vocabulary as llguidance knows it, made when it is first asked for."""
        from llguidance import LLTokenizer

        with self._lock:
            if self._ll_tokenizer is None:
                special, backend = self._tokenizer.special, self._tokenizer.backend
                vocabulary = backend.get_vocab()
                size = max(self._vocabulary, 1 + max(vocabulary.values()))  # it may have tokens that the weights do not have
                self._digits_V = np.zeros(size, np.uint8)
                for text, token in vocabulary.items():
                    if text[:1].isdecimal():
                        self._digits_V[token] = min(len(text) - len(text.lstrip(string.digits)), 255)
                self._ll_tokenizer = LLTokenizer(backend.to_str(), n_vocab=size, eos_token=special.eos_id)
            return self._ll_tokenizer


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


def _narrowed(asked: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """A schema that allows what a small model needs a bound for, and no more: each answer to it is one to what was asked.

    An object that lists its properties has no others, unless it says that it may: models go on inventing them. Texts with digits in
    them have an end. With it, by their places in it, where schemas that stand elsewhere now were asked, as JSON pointers.
    """
    added_to, records = _added_to(asked), _Records(asked)

    def change(one: dict[str, Any]) -> dict[str, Any] | bool:
        if one is not asked and _is_never(one, asked):
            return False  # the same, which llguidance takes: `not` it does not, nor what must be, and may not
        narrowed = _without_look_arounds(records.listed(one, _without_what_asserts_nothing(one)))
        length = MAX_LENGTHS.get(str(narrowed.get("format")))
        if length is not None and "maxLength" not in one:
            narrowed = {**narrowed, "maxLength": length}
        if id(one) not in added_to and _is_whole_list(one):
            narrowed = {**narrowed, "additionalProperties": False}
        return narrowed

    made = mapped(asked, change)
    named = {records.name(at): mapped(one, change) for at, one in enumerate(records.shared)}  # more are added meanwhile
    if not named:
        return made, {}
    defined = made.get("$defs")
    made["$defs"] = {**defined, **named} if isinstance(defined, dict) else named
    places = {id(one): place for place, one in _places(asked)}
    return made, {f"/$defs/{records.name(at)}": places[id(one)] for at, one in enumerate(records.shared)}


def _is_never(schema: Any, root: dict[str, Any]) -> bool:
    """Whether nothing fits a schema, since it says so or refers to one that does. Not covered: longer chains of references."""
    for _ in range(MAX_REFERENCES):
        if not isinstance(schema, dict) or schema.get("not") == {}:
            break
        schema = next(iter(_pointed_at(schema, root)), None)
    return schema is False or (isinstance(schema, dict) and schema.get("not") == {})


def _without_what_asserts_nothing(schema: dict[str, Any]) -> dict[str, Any]:
    """Without what llguidance refuses and nothing is against: by the standard (2020-12) a `format` such as `path` or `binary`,
    `propertyNames` that are any texts, and a `uniqueItems` that is false."""
    named = schema.get("format")
    empty = {"format"} if isinstance(named, str) and not _is_known_format(named) else set()
    empty |= {"propertyNames"} if _fits_all_names(schema.get("propertyNames")) else set()
    empty |= {"uniqueItems"} if schema.get("uniqueItems") is False else set()
    return {key: value for key, value in schema.items() if key not in empty}


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
        self._name = "additionalProperties-"
        defined = root.get("$defs")
        while isinstance(defined, dict) and any(name.startswith(self._name) for name in defined):
            self._name += "-"

    def name(self, at: int) -> str:
        """The name among the root's `$defs` that the one at this place of `shared` has."""
        return f"{self._name}{at}"

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
            value = {"$ref": f"#/$defs/{self.name(len(self.shared) - 1)}"}
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


def may_take_long(schema: dict[str, Any]) -> bool:
    """Whether llguidance's own limits may not end it: several patterns may have to hold at once, of which a length is one, and
    `multipleOf` has a state for each remainder.

    A `$ref` may name what else is no schema, such as a value: it is true of some that llguidance makes ready soon.
    """
    patterns: set[str] = set()
    others: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            if "multipleOf" in part:
                return True
            waiting += part.values()
            patterns |= {part["pattern"]} if isinstance(part.get("pattern"), str) else set()
            patterns |= set(part["patternProperties"]) if isinstance(part.get("patternProperties"), dict) else set()
            others |= {part["format"]} if isinstance(part.get("format"), str) else set()
            others |= {"minLength", "maxLength"}.intersection(part)
    return bool(patterns) and len(patterns) + len(others) > 1


def _spaced(schema: dict[str, Any]) -> str:
    """As JSON, narrowed, with the spaces of a call as a model writes it by itself."""
    narrowed, _ = _narrowed(schema)
    return json.dumps({**narrowed, "x-guidance": SPACED})


def _cannot_be_followed(problem: str, places: Iterable[tuple[str, dict[str, Any]]] = ()) -> SchemaError:
    """`problem`: in llguidance's words, of which the first line says what, and the others its state; of a pattern, the one that
    begins so.

    Where that is, they do not say: the first of the `places` that has it is named.
    """
    said, *rest = problem.strip().splitlines()
    if rest and said.endswith(":"):
        reason = next((line for line in rest if line.startswith("error: ")), rest[-1])
        said = f"{_of_pattern(places, problem)}{said} {reason.removeprefix('error: ')}"
    elif said.startswith("panic: "):
        said = "it is larger than what is supported"
    _, unimplemented, keys = said.partition("Unimplemented keys: ")
    if unimplemented:
        keywords = json.loads(keys)
        place = next((place for place, one in places if keywords[0] in one), "")
        named = ", ".join(f"`{key}`" for key in keywords) + _of_place(place)
        return SchemaError(
            f"this JSON schema cannot be followed: {named} cannot be held to while an answer is written",
            hint="leave it out and check the answer, or use a simpler one", is_unsupported=True,
        )  # fmt: skip
    return SchemaError(f"this JSON schema cannot be followed: {said}", hint="use a simpler one", is_unsupported="supported" in said)


def _of_pattern(places: Iterable[tuple[str, dict[str, Any]]], problem: str) -> str:
    """The keyword and the place of the pattern that has this problem. It is tried: llguidance shows it in words of its own."""
    for place, one in places:
        for keyword in ("pattern", "patternProperties"):
            given = one.get(keyword)
            patterns = given if isinstance(given, dict) else [given]
            if any(isinstance(pattern, str) and _has_problem(pattern, problem) for pattern in patterns):
                return f"`{keyword}`{_of_place(place)}: "
    return ""


def _has_problem(pattern: str, problem: str) -> bool:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern})
    said: str = LLMatcher.validate_grammar(grammar)
    return said.strip().splitlines()[:2] == problem.strip().splitlines()[:2]


def _of_place(place: str) -> str:
    return f" of `{place}`" if place else ""


def _asked_places(narrowed: Any, moved: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schemas of a narrowed one, with the places where they were asked; see `_narrowed`."""
    for place, one in _places(narrowed):
        start = "/".join(place.split("/")[:3])
        yield moved.get(start, start) + place[len(start) :], one


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
                    yield from _places(one, f"{place}/{key}/{name.replace('~', '~0').replace('/', '~1')}")
            elif key not in VALUES:
                yield from _places(value, f"{place}/{key}")
