"""Calls that a model begins by itself, and GPT-OSS's that have to come: each is held to its function's schema from where it is known
to be one.

That is behind the mark `<tool_call>`: a call has to come, and `</tool_call>`; and behind `to=functions` in a header of GPT-OSS's.
Without marks, as `tool_calls.BARE` begins, an answer is known for calls by the first one's name, which has to begin as a function's:
that one is held from there on (one token may close name and call at once), those right behind it from their beginning. Where the model
is told of functions that it may not call, a call that the answer begins with is held from the quote before its name: theirs would stay
text. The rest is free, and so is what a model thinks aloud: no mask is computed for it, and no vocabulary read before a call. Where no
more than one call counts, the answer ends behind one that is held: at its mark or, as one without marks may stand within an object
that goes on, where another one begins.

Not covered: the name of a first call without mark, and calls without mark whose name does not come first or that stand behind a
thought. Of arguments whose schema llguidance cannot follow, or not soon, only the form is held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nomoat.engine import harmony, tool_calls
from nomoat.engine.grammar import Calls, Grammar, Grammars
from nomoat.engine.grammar_check import may_take_long
from nomoat.errors import SchemaError
from nomoat.matching import DRAFT_BEGINS, DRAFT_ENDS
from nomoat.records import Request

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

MARK, THOUGHT_BEGINS, THOUGHT_ENDS = (text.encode() for text in (tool_calls.OPENING, DRAFT_BEGINS, DRAFT_ENDS))
NAMING = rb'\{\s*"name"\s*:'  # how calls without mark begin
WRAPPING = rb'\{\s*(?:"(?:type|id)"\s*:\s*"[^"]*"\s*,\s*)*"function"\s*:\s*'  # what may stand around one, as in OpenAI's form
BEFORE_FIRST = re.compile(rb'%b(?:%b)?(?=%b\s*")' % (tool_calls.BEFORE_BARE.encode(), WRAPPING, NAMING))  # up to its name's quote
LAST_TOKENS = 16  # of a prompt: as many as a thought that its template begins may take
LARGE_BYTES = 16_000  # of a schema: llguidance needs some 50 ms for it
KEPT_BYTES = 200  # of what may be a call's beginning, beside its name


class ToolCallGrammar:
    """Masks tokens as a `Grammar` does, in the calls of one answer alone.

    It is made in the thread of who asks: schemas that may take long are tried then, and never later, when all answers wait. Large ones
    are made ready then, too, for calls in the form that the template tells of.
    """

    def __init__(self, request: Request, prompt: Sequence[int], tokenizer: Tokenizer, grammars: Grammars) -> None:
        """Raises RemoteError where whoever asks has left meanwhile (`net.asking_for`)."""
        self._request, self._tokenizer, self._grammars = request, tokenizer, grammars
        self._template = tokenizer.template_for(request.tools) or ""
        self._named = tool_calls.parameters_of(request)
        names = [json.dumps(name, ensure_ascii=False)[:-1].encode(errors="replace") for name, _ in self._named.values()]
        self._first_by_quote = len(names) < len(request.tools)  # what begins as a name of others is known too late
        self._bare = re.compile(NAMING + rb"\s*(?:%b)" % b"|".join(map(re.escape, names)))
        self._kept_bytes = KEPT_BYTES + max(map(len, names))
        before = b"".join(map(tokenizer.token_bytes, prompt[-LAST_TOKENS:]))
        self._thinks = before.rstrip().endswith(THOUGHT_BEGINS)
        self._is_bare = False if self._thinks else None  # None: not known yet
        self._text = b""  # what may be the beginning of a call
        self._grammar: Grammar | None = None  # of the call that is being written
        self._is_marked = self._has_call = False
        self._takes_one = tool_calls.only_first(request, self._template)
        self._is_over = False  # the one call that counts is there: nothing but the answer's end may follow
        self._free = self._free_if_long()  # places of functions; None: found out when a call has begun

    @property
    def _usual_end(self) -> str:
        """Of a call."""
        return tool_calls.CLOSING if tool_calls.start(self._template) else ""

    @property
    def holds(self) -> bool:
        return self._grammar is not None or self._is_over

    def forbid(self, logits_V: npt.NDArray[np.float32]) -> None:
        """See `Grammar.forbid`; a call that became too much for llguidance is free from there on, unless it has to come."""
        if self._is_over:
            ends = [token for token in self._tokenizer.special.stop_ids if token < len(logits_V)]
            kept = logits_V[ends]
            logits_V[:] = -np.inf
            logits_V[ends] = kept
            return
        try:
            if self._grammar is not None:
                self._grammar.forbid(logits_V)
        except SchemaError:
            if self._request.must_call:
                raise
            self._grammar = None

    def accept(self, token: int) -> None:
        """This token has been chosen."""
        if self._grammar is not None:
            self._grammar.accept(token)
        else:
            begun = self._begun(token)
            if begun is None:
                return
            self._text, self._first_by_quote = b"", False
            if self._has_call and self._takes_one:
                self._is_over = True
                return
            self._hold(*begun)
        if self._grammar is not None and self._grammar.is_whole:
            self._grammar, self._has_call = None, True
            self._is_over = self._takes_one and self._is_marked

    def _hold(self, text: bytes, end: str) -> None:
        """Hold a call that begins with this text, if a call may."""
        grammar = self._of_any_call(end)
        if grammar is not None and grammar.accept_text(text):
            self._grammar, self._bare, self._is_marked = grammar, re.compile(NAMING), bool(end)

    def _content_of(self, token: int) -> bytes:
        """Special tokens, as Llama 3's and Mistral's before calls, are no part of an answer's text."""
        content = self._tokenizer.token_bytes(token)
        is_text = self._is_bare is not None or content in (MARK, THOUGHT_BEGINS) or self._tokenizer.decode([token])
        return content if is_text else b""

    def _begun(self, token: int) -> tuple[bytes, str] | None:
        """What there is of a call, if with this token one has begun, and the mark that ends it. The text is read up to there."""
        self._text += self._content_of(token)
        while True:
            before, found, after = self._text.partition(THOUGHT_ENDS if self._thinks else THOUGHT_BEGINS)
            if not self._thinks:
                begun = self._begun_in(before)
                if begun is not None:
                    text, end = begun
                    return text + found + after, end
            if not found:
                if self._is_bare is not None and len(self._text) > self._kept_bytes:
                    self._text, self._first_by_quote = self._text[-self._kept_bytes :], False
                return None
            self._thinks, self._is_bare, self._text = not self._thinks, False, after

    def _begun_in(self, text: bytes) -> tuple[bytes, str] | None:
        """The same of a text without thoughts."""
        _, mark, begun = text.partition(MARK)
        if mark:
            self._is_bare = bool(self._is_bare)
            return begun, tool_calls.CLOSING
        if self._is_bare is None:
            self._is_bare = tool_calls.begins_bare(text.decode(errors="ignore"))
        elif self._is_bare and self._has_call:
            self._is_bare = tool_calls.another_begins(text.decode(errors="ignore")) is not False
        if self._is_bare and self._first_by_quote and (before := BEFORE_FIRST.match(text)):
            return text[before.end() :], ""
        bare = self._bare.search(text) if self._is_bare else None
        return (text[bare.start() :], "") if bare else None

    def _of_any_call(self, end: str) -> Grammar | None:
        if self._free is None:
            self._free = self._free_functions(end)
        try:
            return self._grammars.of_call(self._calls(self._free), end)
        except RecursionError:  # this thread has less room for it than that of who asks
            return None

    def _free_if_long(self) -> Sequence[int] | None:
        try:
            schema = tool_calls.schema_of_calls(self._request, self._template)
            is_long = len(json.dumps(schema)) > LARGE_BYTES or may_take_long(schema)
        except RecursionError:  # too deep for whatever follows, too
            return list(self._named)
        return self._free_functions(self._usual_end) if is_long else None

    def _free_functions(self, end: str) -> Sequence[int]:
        """The functions whose arguments calls are not held to: none, those that cannot be followed by themselves, or all."""
        try:
            if self._grammars.can_follow_call(self._calls(()), end):
                return ()
            by_place = ((at, ("", json.dumps(schema))) for at, (_, schema) in self._named.items())
            free = [at for at, call in by_place if not self._grammars.can_follow_call((call,))]
            return free if self._grammars.can_follow_call(self._calls(free), end) else list(self._named)
        except RecursionError:  # of a schema within a schema, and so on
            return list(self._named)

    def _calls(self, free: Sequence[int]) -> Calls:
        return (("", json.dumps(tool_calls.schema_of_calls(self._request, self._template, free=free))),)


class ChannelCallGrammar(ToolCallGrammar):
    """The same of GPT-OSS's calls: each is held from `to=functions` in its header, with which the prompt of one that has to come ends.

    Not covered: functions that no header can name (`harmony.can_call`); they are not called.
    """

    def __init__(self, request: Request, prompt: Sequence[int], tokenizer: Tokenizer, grammars: Grammars) -> None:
        """Raises SchemaError, too, where a call has to come and cannot be held to all that its function's schema says."""
        super().__init__(request, prompt, tokenizer, grammars)
        self._stream = harmony.ChannelStream(tokenizer, prompt)
        if begun := self._begun_in_header():
            self._hold(*begun)
            if request.must_call and (self._free or not self.holds):
                raise _cannot_be_held()

    @property
    def _usual_end(self) -> str:
        return harmony.CALL

    def accept(self, token: int) -> None:
        """This token has been chosen."""
        self._stream.push(token)  # held or not: where a call becomes free, it is told from another one's header
        super().accept(token)

    def _begun(self, token: int) -> tuple[bytes, str] | None:
        return self._begun_in_header()

    def _begun_in_header(self) -> tuple[bytes, str] | None:
        _, mark, begun = self._stream.header.partition(harmony.CALLED)
        return (begun.encode(), harmony.CALL) if mark else None

    def _calls(self, free: Sequence[int]) -> Calls:
        channel, constrain, message = map(self._grammars.mark, (harmony.CHANNEL, harmony.CONSTRAIN, harmony.MESSAGE))
        header = f'({channel} "commentary")? (" "? {constrain} " "? "json"? | " json")? " "? {message}'
        return tuple(
            (f"{self._grammars.mark(f'.{name}')} {header}", json.dumps({"type": "object"} if at in free else parameters))
            for at, (name, parameters) in self._named.items()
            if harmony.can_call(name)
        )


def _cannot_be_held() -> SchemaError:
    found = SchemaError(
        "the schemas of these functions cannot be followed",
        hint="simplify them, or name fewer functions",
        is_unsupported=True,
    )
    found.field = "tools"
    return found
