"""Answers in channels, as GPT-OSS writes them: what it thinks (`analysis`), calls (`commentary`) and says (`final`).

An answer is messages, one after another, whose marks are control tokens:

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Here it becomes a text as other models write one: what is thought stands in `<think>`, a call in `<tool_call>`. Source: https://cookbook.openai.com/articles/openai-harmony

Not covered: calls of anything but `functions.NAME`, such as OpenAI's own tools (`python`, `browser`), which are taken for thoughts.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nomoat.matching import DRAFT_BEGINS, DRAFT_ENDS
from nomoat.records import CallingTurn, Message, Request, ToolResult

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

START, CHANNEL, CONSTRAIN, MESSAGE, END, CALL, RETURN = (
    f"<|{name}|>" for name in ("start", "channel", "constrain", "message", "end", "call", "return")
)
ENDS = (CALL, RETURN)  # of an answer; `END` is of a message
FINAL = f"{CHANNEL}final{MESSAGE}"  # how what is said begins
NEXT = f"{END}{START}assistant"  # how a message ends and another one begins
NO_THOUGHT = f"{CHANNEL}analysis{MESSAGE}{NEXT}"
CALL_BEGINS, CALL_ENDS = "<tool_call>", "</tool_call>"
CLOSED = f"\n{DRAFT_ENDS}\n\n"  # how a thought ends in the text
MENTIONED, ESCAPED = "</think >", r"</think\u003e"  # the same mark within a thought, and in a text of a call's JSON
# A thought in an earlier answer; in the midst of it only as it is written here.
TOLD = re.compile(r"(?:\A\s*<think>|(?<=\n\n)<think>\n).*?(?:</think>\s*|\Z)", re.DOTALL)
FUNCTIONS, RECIPIENT_BEGINS = "functions.", "to="
CALLED = f"{RECIPIENT_BEGINS}functions"  # what a header of a call has before its name; tokens may begin with the dot
MOST_WORDS = 5  # of a header: `assistant<|channel|>commentary to=functions.NAME<|channel|>commentary json`
MARK, WORD = re.compile(r"<\|[a-z]+\|>"), re.compile(r"to=\S{0,256}|[!-~]{1,24}")  # of a header; what is longer, or not ASCII, is text
# Marks and words that a header without `MESSAGE` begins with; text follows.
UNENDED = re.compile(rf"(?:.*{MARK.pattern}(?:\s*(?:assistant|analysis|commentary|final|json|to=[^\s<]+)(?![a-z])\s*)*)?", re.DOTALL)
RECIPIENT, ANALYSIS = re.compile(r"\bto=([^\s<]+)"), re.compile(rf"{re.escape(CHANNEL)}\s*analysis")
EFFORTS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}  # it has learned three


def is_spoken(template: str | None) -> bool:
    """Whether a chat template has answers in channels."""
    return template is not None and FINAL in template


def can_call(name: str) -> bool:
    """Whether a header can name this function."""
    recipient = f"{CALLED}.{name}"
    return bool(WORD.fullmatch(recipient) and RECIPIENT.fullmatch(recipient))


def effort_of(request: Request) -> Any:
    """What a request says of `reasoning_effort`; what it says among the template's variables comes first."""
    return json.loads(request.template_variables or "{}").get("reasoning_effort", request.reasoning_effort)


def start(request: Request, prompt: str, *, is_scored: bool) -> str:
    """How an answer begins behind a prompt that the template made.

    One that has to call does so at once. One that is scored, held to a form, or begun with given words is said, without thoughts, and
    so is one that nobody wants thoughts in. Where that one may call functions, it comes behind an empty thought, as what is said
    calls none.
    """
    is_said = is_scored or request.json_schema is not None or bool(request.answer_start)
    calls = bool(request.must_call) and not is_scored
    begun = ""
    if calls:
        begun = f"{CHANNEL}commentary {CALLED}"
    elif is_said or effort_of(request) == "none":
        begun = FINAL if is_said or not request.tools else NO_THOUGHT
    opened = prompt.rpartition(START)[2].rpartition(END)[2]  # by the template itself, as those of some fine-tunes do
    if not begun or MESSAGE not in opened:
        return begun
    return f"{NEXT}{begun}" if calls or ANALYSIS.search(opened) else ""


def told(messages: Sequence[Message]) -> Iterator[Message]:
    """A conversation as a template of channels wants it: without the thoughts in earlier answers; with one call a turn, and what it
    came to right behind it. Beside the first call stands what was thought and said before it, without marks."""
    rest = deque(messages)
    while rest:
        message = rest.popleft()
        if isinstance(message, CallingTurn) and message.calls:
            results: list[ToolResult] = []
            while rest and isinstance(result := rest[0], ToolResult):
                results.append(result)
                rest.popleft()
            yield from _one_by_one(message, results)
        elif message.role == "assistant":
            yield replace(message, content=TOLD.sub("", message.content))
        else:
            yield message


def _one_by_one(turn: CallingTurn, results: list[ToolResult]) -> Iterator[Message]:
    beside = turn.content.replace(DRAFT_BEGINS, "").replace(DRAFT_ENDS, "").strip()
    for call in turn.calls:
        yield replace(turn, content=beside, calls=(call,))
        beside = ""
        result = next((one for one in results if one.call_id == call.id), None)
        if result is not None:
            results.remove(result)
            yield result
    yield from results


class ChannelStream:
    """Decodes an answer token by token, as `DecodeStream` does, into the text that the module describes.

    Text that no header comes before is said. A mark within a message that ends none is left out.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        """`prompt`: the tokens before the answer, which may end in a header or within a message."""
        ids = {mark: tokenizer.backend.token_to_id(mark) for mark in (START, CHANNEL, CONSTRAIN, MESSAGE, END)}
        self._marks = {token: mark for mark, token in ids.items() if token is not None}
        self._tokenizer = tokenizer
        self._stream = tokenizer.decode_stream()
        self._header: str | None = ""  # None: within a message
        self._thinks = self._calls = self._has_begun = self._has_text = False
        self._newest = ""  # text of a thought or a call: as much as may begin the mark of a thought's end
        last = next((at for at in reversed(range(len(prompt))) if self._marks.get(prompt[at]) in (START, END)), 0)
        for token in prompt[last:]:
            self._push(token)
        self._opening = f"{DRAFT_BEGINS}\n" if self._thinks else ""  # for a thought that the prompt has begun
        if self._header is not None and CHANNEL not in self._header:
            self._header = ""  # `assistant`, which is no part of the answer

    @property
    def header(self) -> str:
        """What there is of the header that is being written; empty within a message."""
        return self._header or ""

    def push(self, token_id: int) -> str:
        """The text that this token makes certain; may be empty."""
        opening, self._opening = self._opening, ""
        return opening + self._push(token_id)

    def _push(self, token_id: int) -> str:
        mark = self._marks.get(token_id)
        if mark is None:
            return self._read(self._stream.push(token_id))
        if self._header is None and mark in (MESSAGE, CONSTRAIN):
            return ""
        text = self._read(self._stream.finish())
        self._stream = self._tokenizer.decode_stream()
        if self._header is not None and mark in (START, END):
            text += self._end_header()
        if self._header is None:
            text, self._header = text + self._end(), ""
        if mark == MESSAGE:
            return text + self._begin(self._header)
        if mark in (START, END):
            self._header = ""
        if mark != END:
            self._header += mark
        return text

    def finish(self, *, is_cut: bool = False) -> str:
        """What was still held back. A thought or a call that was cut off stays one that has not ended."""
        text = self._opening + self._read(self._stream.finish(is_cut=is_cut))
        if self._header is not None and not (is_cut and self._is_header()):
            text += self._end_header()
        if is_cut:
            return text
        return text + (CLOSED if self._thinks else self._end() if self._header is None else "")

    def _read(self, text: str) -> str:
        """What comes of text: held back where it is a header, or may become one."""
        if self._header is not None:
            self._header += text
            if self._is_header() or RECIPIENT_BEGINS.startswith(self._header.strip()):
                return ""
            return self._end_header()
        self._has_text = self._has_text or bool(text.strip())
        if not self._thinks and not self._calls:
            return text
        before = self._newest
        whole = (before + text).replace(DRAFT_ENDS, MENTIONED if self._thinks else ESCAPED)
        self._newest = whole[1 - len(DRAFT_ENDS) :]
        return whole[len(before) :]

    def _is_header(self) -> bool:
        header = (self._header or "").strip()
        begins = START in header or CHANNEL in header or header.startswith(RECIPIENT_BEGINS)
        words = MARK.sub(" ", header).split()
        return begins and len(words) <= MOST_WORDS and all(map(WORD.fullmatch, words))

    def _end_header(self) -> str:
        """What comes of a header without `MESSAGE`: the text in it, or a call without arguments."""
        whole = self._header or ""
        text = UNENDED.sub("", whole, count=1)
        header = whole.removesuffix(text)
        if not text.strip() and RECIPIENT_BEGINS + FUNCTIONS not in header:
            return ""
        return self._begin(header) + self._read(text)

    def _begin(self, header: str) -> str:
        """How the text of the next message begins, and how the last thought's ends."""
        recipient = RECIPIENT.search(header)
        name = recipient[1] if recipient else ""
        thought = self._thinks
        self._calls = name.startswith(FUNCTIONS)
        self._thinks = not self._calls and bool(name or ANALYSIS.search(header))
        between = "\n\n" if self._has_begun else ""
        self._header, self._has_begun, self._has_text, self._newest = None, True, False, ""
        if thought and not self._thinks:
            between = CLOSED
        if self._thinks:
            return between if thought else f"{between}{DRAFT_BEGINS}\n"
        if self._calls:
            return f'{between}{CALL_BEGINS}\n{{"name": {json.dumps(name.removeprefix(FUNCTIONS))}, "arguments": '
        return between

    def _end(self) -> str:
        """How a message's text ends; that of a thought when another kind begins."""
        return f"{'' if self._has_text else '{}'}}}\n{CALL_ENDS}" if self._calls else ""
