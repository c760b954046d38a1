"""Answers in channels, as GPT-OSS writes them: what it thinks (`analysis`), calls (`commentary`) and says (`final`).

An answer is messages, one after another, whose marks are control tokens:

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Here it becomes a text as other models write one: what is thought stands in `<think>`, a call in `<tool_call>`. Source: https://cookbook.openai.com/articles/openai-harmony

Not covered: calls of OpenAI's own tools (`python`, `browser`), which are taken for thoughts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nomoat import matching
from nomoat.records import CallingTurn, Effort, Message, Request

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import DecodeStream, Tokenizer

START, CHANNEL, MESSAGE, END, CALL, RETURN = (f"<|{name}|>" for name in ("start", "channel", "message", "end", "call", "return"))
ENDS = (CALL, RETURN)  # of an answer; `END` is of a message
FINAL = f"{CHANNEL}final{MESSAGE}"  # how what is said begins
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"
CALL_BEGINS, CALL_ENDS = "<tool_call>", "</tool_call>"
FUNCTIONS = "functions."
RECIPIENT, ANALYSIS = re.compile(r"\bto=([^\s<]+)"), re.compile(rf"{re.escape(CHANNEL)}\s*analysis")
EFFORTS: dict[Effort, Effort] = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}  # it has learned three


def is_spoken(template: str | None) -> bool:
    """Whether a chat template has answers in channels."""
    return template is not None and FINAL in template


def begins_final(request: Request) -> bool:
    """Whether an answer has no thoughts: one that is held to a form, that begins with given words, or that nobody wants them in."""
    is_held = request.json_schema is not None or bool(request.must_call or request.answer_start)
    return is_held or request.reasoning_effort == "none"


def told(message: Message) -> Message:
    """A turn as a template of channels wants it: earlier thoughts are left out; beside a call there is nothing else."""
    if isinstance(message, CallingTurn):
        return replace(message, content=message.content.replace(THOUGHT_BEGINS, "").replace(THOUGHT_ENDS, "").strip())
    if message.role != "assistant":
        return message
    said = matching.without_draft(message.content)
    return message if said == message.content else replace(message, content=said.lstrip())


class ChannelStream:
    """Decodes an answer token by token, as `DecodeStream` does, into the text that the module describes."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = (), *, begun: bool) -> None:
        """`begun`: the prompt, whose tokens are `before`, ends within a message that is said."""
        ids = {mark: tokenizer.backend.token_to_id(mark) for mark in (START, CHANNEL, MESSAGE, END, *ENDS)}
        self._marks = {token: mark for mark, token in ids.items()}
        self._tokenizer = tokenizer
        self._body: DecodeStream | None = tokenizer.decode_stream(before) if begun else None  # None: between two messages
        self._header = ""
        self._thinks = self._calls = self._has_text = False
        self._has_begun = begun

    def push(self, token_id: int) -> str:
        """The text that this token makes certain; may be empty."""
        mark = self._marks.get(token_id, "")
        if self._body is not None and not mark:
            return self._written(self._body.push(token_id))
        if self._body is not None:
            ended = self._end()
            self._header = mark
            return ended
        if mark == MESSAGE:
            return self._begin()
        self._header += mark or self._tokenizer.decode([token_id])
        return ""

    def finish(self, *, is_cut: bool = False) -> str:
        """What was still held back. A call that was cut off stays one that has not ended."""
        if self._body is None:
            return "" if self._has_begun else self._header
        return self._written(self._body.finish(is_cut=True)) if is_cut else self._end()

    def _begin(self) -> str:
        """How the next message's text begins, and the last thought's ends."""
        recipient = RECIPIENT.search(self._header)
        name = recipient[1] if recipient else ""
        thought, was_said = self._thinks, self._has_begun and not self._thinks
        self._calls = name.startswith(FUNCTIONS)
        self._thinks = not self._calls and bool(name or ANALYSIS.search(self._header))
        self._body, self._has_begun, self._has_text = self._tokenizer.decode_stream(), True, False
        before = "\n\n" if was_said or (thought and self._thinks) else ""
        if thought and not self._thinks:
            before = f"\n{THOUGHT_ENDS}\n\n"
        if self._thinks:
            return before if thought else f"{before}{THOUGHT_BEGINS}\n"
        if self._calls:
            return f'{before}{CALL_BEGINS}\n{{"name": {json.dumps(name.removeprefix(FUNCTIONS))}, "arguments": '
        return before

    def _written(self, text: str) -> str:
        self._has_text = self._has_text or bool(text.strip())
        return text

    def _end(self) -> str:
        assert self._body is not None
        text = self._written(self._body.finish())
        self._body = None
        if not self._calls:
            return text
        return f"{text}{'' if self._has_text else '{}'}}}\n{CALL_ENDS}"
