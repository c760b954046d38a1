"""Answers that follow a JSON schema: at each token, which ones may come next. The work is done by llguidance."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine.tokenizer import Tokenizer
from nomoat.errors import UsageError

OPTIONS = {
    "whitespace_flexible": False,  # no spaces of the model's choice: a small model may go on with them for ever
    "coerce_one_of": True,  # what several branches of a `oneOf` allow cannot be excluded while it is written: `anyOf`
}


class Grammar:
    """One answer's place in its schema."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        """`vocabulary`: the matcher's, which may have more tokens than there are logits."""
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = matcher
        self._mask = allocate_token_bitmask(1, vocabulary)

    def forbid(self, logits_V: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that may not come next to minus infinity, in place.

        Raises UsageError for a schema that became too much for llguidance, which then allows nothing but the answer's end.
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
        """A grammar for a JSON schema, given as JSON. Raises UsageError for what is no schema, or none that can be followed."""
        from llguidance import LLMatcher

        try:
            asked = json.loads(schema)
        except json.JSONDecodeError as exc:
            raise UsageError(f"the JSON schema is not JSON: {exc}", hint="see https://json-schema.org") from exc
        if not isinstance(asked, dict):
            raise UsageError(f"the JSON schema is a {type(asked).__name__}, not an object", hint="`{}` allows every JSON value")
        try:
            grammar = LLMatcher.grammar_from_json_schema(asked, defaults=OPTIONS)
            matcher = LLMatcher(self.words(), grammar, log_level=0)
            problem = matcher.get_error()
        except ValueError as exc:
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


def _cannot_be_followed(problem: str) -> UsageError:
    """`problem`: in llguidance's words, of which the first line says what, and the others its state."""
    return UsageError(f"this JSON schema cannot be followed: {problem.strip().splitlines()[0]}", hint="use a simpler one")
