"""Answers that follow a JSON schema: at each token, which ones may come next. The work is done by llguidance."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nomoat.errors import SchemaError

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

OPTIONS = {
    "whitespace_flexible": False,  # no spaces of the model's choice: a small model may go on with them for ever
    "coerce_one_of": True,  # what several branches of a `oneOf` allow cannot be excluded while it is written: `anyOf`
}
NAMING = ("properties", "patternProperties", "$defs", "definitions")  # keywords of schemas by names, which are no keywords
VALUES = ("const", "enum", "default", "examples")  # keywords of what is no schema


class Grammar:
    """One answer's place in its schema."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        """`vocabulary`: the matcher's, which may have more tokens than there are logits."""
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = matcher
        self._mask = allocate_token_bitmask(1, vocabulary)

    def forbid(self, logits_V: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that may not come next to minus infinity, in place.

        Raises SchemaError for one that became too much for llguidance, which then allows nothing but the answer's end.
        """
        from llguidance.numpy import apply_token_bitmask_inplace, fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask, 0)
        if self._matcher.is_error():
            raise _cannot_be_followed(self._matcher.get_error())
        apply_token_bitmask_inplace(logits_V[None], self._mask)

    def accept(self, token: int) -> None:
        """This token has been chosen."""
        self._matcher.consume_token(token)


class Grammars:
    """Makes grammars for one model's vocabulary. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._lock = threading.Lock()
        self._words: Any = None

    def of_schema(self, schema: str) -> Grammar:
        """A grammar for a JSON schema, given as JSON; the formats of texts that llguidance does not know are taken as remarks.

        Raises SchemaError for what is no schema, or none that can be followed.
        """
        from llguidance import LLMatcher

        try:
            asked = json.loads(schema)
        except (ValueError, RecursionError) as exc:  # also of a number of more digits than Python reads
            raise SchemaError(f"the JSON schema is not JSON that can be read: {exc}", hint="see https://json-schema.org") from exc
        if not isinstance(asked, dict):
            raise SchemaError(f"the JSON schema is a {type(asked).__name__}, not an object", hint="`{}` allows every JSON value")
        try:
            grammar = LLMatcher.grammar_from_json_schema(mapped(asked, _with_known_format), defaults=OPTIONS)
            matcher = LLMatcher(self.words(), grammar, log_level=0)
            problem = matcher.get_error()
        except (ValueError, RecursionError) as exc:
            problem = str(exc)
        if problem:
            raise _cannot_be_followed(problem)
        return Grammar(matcher, self.words().vocab_size)

    def words(self) -> Any:
        """The vocabulary as llguidance knows it, made when it is first asked for."""
        from llguidance import LLTokenizer

        with self._lock:
            if self._words is None:
                special, backend = self._tokenizer.special, self._tokenizer.backend
                size = max(self._vocabulary, 1 + max(backend.get_vocab().values()))  # it may have tokens that the weights do not have
                self._words = LLTokenizer(backend.to_str(), n_vocab=size, eos_token=special.eos_id)
            return self._words


def mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A schema with what `change` makes of it and of each schema within, the outer one first; what is no schema stays as it is."""
    if isinstance(schema, list):
        return [mapped(one, change) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for key, value in change(schema).items():
        if key in NAMING and isinstance(value, dict):
            made[key] = {name: mapped(one, change) for name, one in value.items()}
        else:
            made[key] = value if key in VALUES else mapped(value, change)
    return made


def _with_known_format(schema: dict[str, Any]) -> dict[str, Any]:
    """Without a `format` that llguidance refuses (`path`, `binary`): by the standard (2020-12) it asserts nothing."""
    named = schema.get("format")
    if not isinstance(named, str) or _is_known_format(named):
        return schema
    return {key: value for key, value in schema.items() if key != "format"}


@functools.lru_cache(maxsize=256)
def _is_known_format(name: str) -> bool:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema({"type": "string", "format": name}, defaults=OPTIONS)
    return not LLMatcher.validate_grammar(grammar)


def _cannot_be_followed(problem: str) -> SchemaError:
    """`problem`: in llguidance's words, of which the first line says what, and the others its state; of a pattern, the last one."""
    said, *rest = problem.strip().splitlines()
    if rest and said.endswith(":"):
        said = f"{said} {rest[-1].removeprefix('error: ')}"
    _, unimplemented, keys = said.partition("Unimplemented keys: ")
    if unimplemented:
        named = ", ".join(f"`{key}`" for key in json.loads(keys))
        return SchemaError(
            f"this JSON schema cannot be followed: {named} cannot be held to while an answer is written",
            hint="leave it out and check the answer, or use a simpler one", is_unsupported=True,
        )  # fmt: skip
    return SchemaError(f"this JSON schema cannot be followed: {said}", hint="use a simpler one", is_unsupported="supported" in said)
