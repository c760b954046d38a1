"""Answers that follow a JSON schema: at each token, which ones may come next. The work is done by llguidance."""

from __future__ import annotations

import json
import string
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import grammar_check, json_schema
from nomoat.errors import SchemaError

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

OPTIONS = {
    "whitespace_flexible": False,  # no spaces of the model's choice: a small model may go on with them for ever
    "coerce_one_of": True,  # what several branches of a `oneOf` allow cannot be excluded while it is written: `anyOf`
    # `\uc774` for 이, as `json.dumps` writes a prompt's data: a model copies it. Else only control characters may follow `\u`.
    "json_allow_general_unicode_escapes": True,
}
# In JSON whose names are the model's own, and in a call as it writes it by itself: as it has learned, on one line or on several.
SPACE = r" |\n {0,16}"
SPACED = {**OPTIONS, "whitespace_flexible": True, "whitespace_pattern": SPACE}
ANY_OBJECT = {"type": "object"}
MAX_KEPT = 16  # grammars of calls: conversations go on with the same functions
# A small model's number may go on for ever. These are digits in a row: as many as whole numbers of 64 bits take, and of an exponent.
MAX_DIGITS, MAX_EXPONENT_DIGITS = 20, 3

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
        """A grammar for a JSON schema, given as a JSON object, and narrower than it; see `json_schema.narrowed`.

        Raises SchemaError for one that cannot be followed.
        """
        from llguidance import LLMatcher

        narrowed: Any = None
        moved: dict[str, str] = {}
        try:
            narrowed, moved = json_schema.narrowed(json.loads(schema))
            # Made to write without spaces, a small model leaves out names that its prompt asked for.
            options = SPACED if narrowed == ANY_OBJECT else OPTIONS
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(narrowed), defaults=options)
            if grammar_check.may_take_long(narrowed):
                grammar_check.require_short(grammar)
            matcher = LLMatcher(self.ll_tokenizer(), grammar, log_level=0)
            problem = matcher.get_error()
        except (ValueError, RecursionError) as exc:
            problem = str(exc)
        if problem:
            raise _cannot_be_followed(problem, json_schema.asked_places(narrowed, moved))
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
                if grammar_check.may_take_long(asked):
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


def _spaced(schema: dict[str, Any]) -> str:
    """As JSON, narrowed, with the spaces of a call as a model writes it by itself."""
    narrowed, _ = json_schema.narrowed(schema)
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
