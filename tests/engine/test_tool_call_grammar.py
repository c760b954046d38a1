"""Calls that a model begins by itself: what may be chosen within them, and that nothing is held outside."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llguidance
import numpy as np
import pytest
import tiny
from tiny import TEMPLATE, TOO_DEEP, write_tiny_gguf

from nomoat import net
from nomoat.engine import grammar_check, harmony
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.grammar import Grammar, Grammars
from nomoat.engine.tokenizer import Tokenizer
from nomoat.engine.tool_call_grammar import ChannelCallGrammar, ToolCallGrammar
from nomoat.errors import RemoteError, SchemaError
from nomoat.records import Message, Request

CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
ROME = '{"name": "weather", "arguments": {"city": "Rome"}}'
TIGHT = '{"name":"weather","arguments":{"city":"Rome"}}'
LISTED = f"```json\n[{ROME}, "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return from_metadata(GGUFFile(write_tiny_gguf(tmp_path_factory.mktemp("tokenizer") / "t.gguf", template=TEMPLATE)).metadata)


def made(
    tokenizer: Tokenizer, *tools: dict[str, Any], prompt: str = "", **settings: Any
) -> ToolCallGrammar:  # fmt: skip
    request = Request(messages=(Message(role="user", content="u"),), tools=tuple(map(json.dumps, tools)), **settings)
    kind = ChannelCallGrammar if harmony.is_spoken(tokenizer.chat_template) else ToolCallGrammar
    return kind(request, tokenizer.encode(prompt), tokenizer, Grammars(tokenizer, tokenizer.backend.get_vocab_size()))


def written(
    tokenizer: Tokenizer, text: str, *, tools: tuple[dict[str, Any], ...] = (WEATHER, CLOCK), prompt: str = ""
) -> tuple[str, str]:
    """How much of an answer may be chosen, and what of that was held, a token at a time."""
    return written_with(made(tokenizer, *tools, prompt=prompt), tokenizer, text)


def written_with(begun: ToolCallGrammar, tokenizer: Tokenizer, text: str) -> tuple[str, str]:
    chosen = held = b""
    for token in tokenizer.encode(text):
        content = tokenizer.token_bytes(token)
        if begun.holds:
            logits_V = np.zeros(tokenizer.backend.get_vocab_size(), np.float32)
            begun.forbid(logits_V)
            if logits_V[token] == -np.inf:
                break
            held += content
        begun.accept(token)
        chosen += content
    return chosen.decode(), held.decode()


@pytest.mark.parametrize(
    ("text", "held"),
    [
        (f"I look.\n<tool_call>\n{ROME}\n</tool_call>", f"\n{ROME}\n</tool_call>"),
        (f"<tool_call>{TIGHT}</tool_call> done", f"{TIGHT}</tool_call>"),
        (f"<tool_call>\n{ROME}\n</tool_call>\n" * 2, f"\n{ROME}\n</tool_call>" * 2),
        (ROME, '", "arguments": {"city": "Rome"}}'),
        (json.dumps(json.loads(ROME), indent=4), '",\n    "arguments": {\n        "city": "Rome"\n    }\n}'),
        (f"{LISTED}{ROME}]\n```", '", "arguments": {"city": "Rome"}} "weather", "arguments": {"city": "Rome"}}'),
        (f"<|im_start|>{ROME}", '", "arguments": {"city": "Rome"}}'),
        (f'{ROME}\n</tool_call>\n{ROME}', '", "arguments": {"city": "Rome"}} "weather", "arguments": {"city": "Rome"}}'),
        (f'{ROME}\n\nIt gives {{"name": "Anna"}}', '", "arguments": {"city": "Rome"}}'),
        (f"{ROME} and <tool_call>{ROME}</tool_call>", f'", "arguments": {{"city": "Rome"}}}}{ROME}</tool_call>'),
        (f'{{"type": "function", "function": {ROME}}}', '", "arguments": {"city": "Rome"}}'),
    ],
)  # fmt: skip
def test_a_call_is_held_from_where_it_is_known_to_be_one_to_its_end(tokenizer: Tokenizer, text: str, held: str) -> None:
    assert written(tokenizer, text) == (text, held)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ("<tool_call>", "weather"), ('<tool_call>{"name": "', "spell"), ('<tool_call>\n{"name": "weather"', '}'),
        ('<tool_call>\n{"name": "weather", "arguments": {"', 'town": "Rome"}}'),
        ('{"name": "weather", "arguments": ', '[{"city": "Rome"}]'), ('{"name": "weather", "', 'description": "It"}'),
        ('{"name": "weather", "arguments": {"city": "Rome", "days": ', '"2"}}'),
        ('{"name": "clock", "arguments": {', '"city": "Rome"}}'),
        ('{"name": "weather", "arguments": {"city": "Rome"}', ', "id": 1}'), (f'{LISTED}{{"name": "', 'spell"}'),
        ('{"name": "weather", "arguments": {"city": "Rome", "days": ' + "1" * 20, "1}}"), ("<tool_call>\n", "\n{"),
        (f"<tool_call>{ROME}", "}"), (f"<tool_call>{ROME}\n</tool", " call>"),
    ],
)  # fmt: skip
def test_nothing_but_a_call_of_one_of_the_functions_may_be_chosen_within_one(tokenizer: Tokenizer, allowed: str, refused: str) -> None:
    assert written(tokenizer, allowed + refused)[0] == allowed


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ('<tool_call>{"name": "', 'weather"'), ('{"name": "', 'weather"'), ('```json\n{ "name":"', 'weather"'),
        (f'{LISTED[:8]}[{{"name": "clock", "arguments": {{}}}}, {{"name": "', 'weather"'), ('{"name": "', 'Anna"'),
        ('{"type": "function", "function": {"name": "', 'weather"'), ('[{"function":{"name":"', 'weather"'),
        ('{"id": "c1", "type": "function",\n "function": {"name": "', 'weather"'),
    ],
)  # fmt: skip
def test_of_functions_that_a_model_is_told_of_those_alone_are_called_that_may_be(
    tokenizer: Tokenizer, allowed: str, refused: str
) -> None:
    def chosen(text: str) -> str:
        return written_with(made(tokenizer, WEATHER, CLOCK, may_call="clock"), tokenizer, text)[0]

    assert chosen(allowed + refused) == allowed
    whole = f'{allowed}clock", "arguments": {{}}}}'  # the rest of what it stands in is free
    assert chosen(whole) == whole


@pytest.mark.parametrize(
    "text",
    [
        "It is warm <b>.", "1" * 30, '{"name": "Anna", "arguments": {"city": 1}}', '{"city": "weather"}', f"I call {ROME[:-9]}1}}}}",
        '{"name": "we are"}',
        '<think>\nA <tool_call>, or {"name": "weather", "x"?\n</think>\nNo.', "<think>" + '{"name": "weather", "x": 1}',
    ],
)  # fmt: skip
def test_text_and_thoughts_are_free(tokenizer: Tokenizer, text: str) -> None:
    assert written(tokenizer, text) == (text, "")


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "function", "name": "clock", "parameters": {"name": "Anna"}}', '{"arguments": {"name": "Anna"}, "name": "clock"}',
        '{"id": 7, "owner": {"name": "Anna"}}', f'{{"id": 7, "owner":{" " * 500}{{"name": "Anna"}}}}',
        '{"type": "function", "name": "clock", "parameters": {"function": {"name": "Anna"}}}',
    ],
)  # fmt: skip
def test_a_name_within_what_begins_otherwise_is_free_though_some_functions_may_not_be_called(tokenizer: Tokenizer, text: str) -> None:
    assert written_with(made(tokenizer, WEATHER, CLOCK, may_call="clock"), tokenizer, text) == (text, "")


def test_behind_a_first_name_that_is_none_of_a_call_names_are_free_though_some_functions_may_not_be_called(tmp_path: Path) -> None:
    special = tokenizer_with(tmp_path, '"Anna"}')
    text = '{"name": "Anna"}\n{"name": "Bob"}'
    assert written_with(made(special, WEATHER, CLOCK, may_call="clock"), special, text) == (text, "")


def test_a_thought_may_have_begun_in_the_prompt(tokenizer: Tokenizer) -> None:
    text = f"A <tool_call>?</think>\n\n<tool_call>{ROME}</tool_call>"
    assert written(tokenizer, text, prompt="<|im_start|>assistant\n<think>\n") == (text, f"{ROME}</tool_call>")


def tokenizer_with(tmp_path: Path, text: str) -> Tokenizer:
    """A vocabulary with a special token of this text."""
    told = dict(GGUFFile(write_tiny_gguf(tmp_path / "t.gguf")).metadata)
    told["tokenizer.ggml.tokens"] = [text, *told["tokenizer.ggml.tokens"][1:]]
    made = from_metadata(told)
    assert len(made.encode(text)) == 1
    return made


def test_the_mark_that_ends_a_call_may_be_a_special_token(tmp_path: Path) -> None:
    special = tokenizer_with(tmp_path, "</tool_call>")
    text = f"<tool_call>{ROME}</tool_call> done"
    assert written(special, text) == (text, f"{ROME}</tool_call>")
    assert written(special, f"<tool_call>{ROME}<|im_end|>")[0] == f"<tool_call>{ROME}"


def test_behind_a_call_with_marks_none_without_is_held(tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = f'<tool_call>{ROME}</tool_call>\n{{"name": "Anna", "age": 3}}'
    for vocabulary in (tokenizer, tokenizer_with(tmp_path, "<tool_call>")):
        assert written(vocabulary, text) == (text, f"{ROME}</tool_call>")


WRAPPED = f'{{"type": "function", "function": {ROME}}}'


@pytest.mark.parametrize(
    ("allowed", "more"),
    [
        (f"I look.\n<tool_call>\n{ROME}\n</tool_call>", "\n<tool_call>"), (f"<tool_call>{ROME}</tool_call>", " done"),
        (f'{ROME}\n{{"name":', ' "clock"'), (f'[{ROME}, {{"name":', ' "clock"'),
        (f'{WRAPPED}, {{"type": "function", "function": {{"name":', ' "clock"'),
    ],
)  # fmt: skip
def test_where_one_call_counts_the_answer_ends_behind_it(tokenizer: Tokenizer, allowed: str, more: str) -> None:
    for one_call in (True, False):
        begun = made(tokenizer, WEATHER, CLOCK, one_call=one_call)
        assert written_with(begun, tokenizer, allowed + more)[0] == (allowed if one_call else allowed + more)
        if one_call:
            logits_V = np.zeros(tokenizer.backend.get_vocab_size(), np.float32)
            begun.forbid(logits_V)
            assert set(np.flatnonzero(logits_V == 0)) == set(tokenizer.special.stop_ids)


@pytest.mark.parametrize("text", [f"{ROME} is it, as", f'{ROME} is it, and {{"name": "clock", "arguments": {{}}}} is not', WRAPPED])
def test_a_text_behind_a_call_without_marks_does_not_end_there(tokenizer: Tokenizer, text: str) -> None:
    assert written_with(made(tokenizer, WEATHER, CLOCK, one_call=True), tokenizer, text)[0] == text


def test_a_token_that_ends_name_and_call_at_once_leaves_no_arguments_out(tmp_path: Path) -> None:
    special = tokenizer_with(tmp_path, '"}')
    assert written(special, '{"name": "weather"}')[0] == '{"name": "weather'
    assert written(special, '{"name": "we"}')[0] == '{"name": "we"}'


def test_a_function_that_cannot_be_followed_is_held_to_the_form_of_a_call(tokenizer: Tokenizer) -> None:
    strange = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"not": {"const": 1}}}}}}
    for text, chosen in (
        ('<tool_call>{"name": "f", "arguments": {"x": [1]}}</tool_call>', ...), ('<tool_call>{"name": "f", "arguments": [', -1),
        ('<tool_call>{"name": "weather", "arguments": {"t', -1),
    ):  # fmt: skip
        assert written(tokenizer, text, tools=(WEATHER, strange))[0] == (text if chosen is ... else text[:chosen])


def function_with(parameters: dict[str, Any], name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"x": parameters}}}}


LONG = function_with({"type": "integer", "multipleOf": 100_000_039}, "g")


@pytest.mark.parametrize("tools", [(WEATHER, LONG), (WEATHER, function_with({"not": {"const": 1}}), LONG)])
def test_a_function_that_would_take_hours_is_tried_for_who_asks_and_not_when_a_call_begins(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tools: tuple[dict[str, Any], ...]
) -> None:
    monkeypatch.setattr(grammar_check, "CPU_SECONDS", 1)
    for text, chosen in (
        ('<tool_call>{"name": "g", "arguments": {"x": [1]}}</tool_call>', ...), ('<tool_call>{"name": "g", "arguments": [', -1),
        ('<tool_call>{"name": "weather", "arguments": {"t', -1),
    ):  # fmt: skip
        begun = made(tokenizer, *tools)
        with monkeypatch.context() as patch:
            patch.setattr(grammar_check, "require_short", lambda _grammar: pytest.fail("tried while all answers wait"))
            assert written_with(begun, tokenizer, text)[0] == (text if chosen is ... else text[:chosen])


@pytest.mark.parametrize("form", ["marked", "bare", "in channels"])
def test_large_functions_are_made_ready_for_who_asks_and_not_when_a_call_begins(
    tokenizer: Tokenizer, in_channels: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    large = function_with({"enum": [f"value {at}" for at in range(2000)]})
    call = '{"name": "f", "arguments": {"x": "value 7"}}'
    path = write_tiny_gguf(tmp_path / "t.gguf", template="{{ tools }}{{ messages[0].tool_calls }}")
    asked, text = {
        "marked": (tokenizer, f"<tool_call>{call}</tool_call>"),
        "bare": (from_metadata(GGUFFile(path).metadata), call),
        "in channels": (in_channels, f'{COMMENTARY}.f<|message|>{{"x": "value 7"}}<|call|>'),
    }[form]
    begun = made(asked, WEATHER, large)
    with monkeypatch.context() as patch:
        making = SimpleNamespace(grammar_from_lark=lambda _grammar: pytest.fail("made ready while all answers wait"))
        patch.setattr(llguidance, "LLMatcher", making)
        chosen, held = written_with(begun, asked, text)
    assert chosen == text and held


def test_functions_that_are_too_much_together_are_held_to_the_form_of_a_call(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses_both(grammar: str) -> None:
        if "weather" in grammar:
            raise SchemaError("meant")

    monkeypatch.setattr(grammar_check, "require_short", refuses_both)
    begun = made(tokenizer, WEATHER, function_with({"type": "integer", "multipleOf": 7}))
    call = '{"name": "weather", "arguments": {"t": 1}}</tool_call>'
    assert written_with(begun, tokenizer, f"<tool_call>{call}") == (f"<tool_call>{call}", call)


def test_trying_functions_ends_when_whoever_asks_has_left(tokenizer: Tokenizer) -> None:
    left = threading.Event()
    left.set()
    with net.asking_for(left), pytest.raises(RemoteError, match="nobody waits for this answer any more"):
        made(tokenizer, function_with({"type": "integer", "multipleOf": 100_000_049}))


def test_a_function_with_what_no_utf_8_has_is_held_to_the_form_of_a_call(tokenizer: Tokenizer) -> None:
    text = '<tool_call>{"name": "f", "arguments": {"x": [1]}}</tool_call>'
    assert written(tokenizer, text, tools=(WEATHER, function_with({"format": "\ud800"})))[0] == text


def test_functions_that_are_too_deep_are_held_to_the_form_of_a_call(tokenizer: Tokenizer) -> None:
    deep: dict[str, Any] = {}
    for _ in range(TOO_DEEP):
        deep = {"anyOf": [deep]}
    tools = ({"type": "function", "function": {"name": "f", "parameters": deep}},)
    text = '<tool_call>{"name": "f", "arguments": {"x": [1]}}</tool_call>'
    assert written(tokenizer, text, tools=tools)[0] == text
    assert written(tokenizer, '<tool_call>{"name": "f", "arguments": [1]', tools=tools)[0] == '<tool_call>{"name": "f", "arguments": '


@pytest.fixture(scope="module")
def in_channels(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """GPT-OSS's marks."""
    marks = [harmony.START, harmony.CHANNEL, harmony.CONSTRAIN, harmony.MESSAGE, harmony.END, harmony.CALL, harmony.RETURN]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "SPECIAL", [*tiny.SPECIAL, *marks])
        template = f"{harmony.START}assistant{harmony.FINAL}{{# messages #}}"
        path = write_tiny_gguf(tmp_path_factory.mktemp("channels") / "t.gguf", template=template)
    return from_metadata(GGUFFile(path).metadata)


COMMENTARY = "<|channel|>commentary to=functions"
THOUGHT = '<|channel|>analysis<|message|>I call to=functions.x {"name": "weather"<|end|><|start|>assistant'


@pytest.mark.parametrize(
    ("free", "held"),
    [
        (COMMENTARY, '.weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'),
        (f"{THOUGHT}{COMMENTARY}", '.weather<|message|>{"city":"Rome","days":2}<|call|>'),
        (f"{THOUGHT} to=functions", ".clock<|channel|>commentary json<|message|>{}<|call|>"),
        ("<|channel|>analysis to=functions", '.weather json<|message|>{\n  "city": "Rome"\n}<|call|>'),
    ],
)
def test_a_call_in_its_channel_is_held_from_its_function_s_name_to_its_end(in_channels: Tokenizer, free: str, held: str) -> None:
    assert written(in_channels, free + held, prompt="<|start|>assistant") == (free + held, held)


def test_a_call_in_its_channel_is_one_that_may_be_called(in_channels: Tokenizer) -> None:
    for name, chosen in (("clock", f"{COMMENTARY}.clock<|message|>{{}}<|call|>"), ("weather", f"{COMMENTARY}.")):
        begun = made(in_channels, WEATHER, CLOCK, prompt="<|start|>assistant", may_call="clock")
        assert written_with(begun, in_channels, f"{COMMENTARY}.{name}<|message|>{{}}<|call|>")[0] == chosen


def test_a_call_in_its_channel_may_have_begun_in_the_prompt(in_channels: Tokenizer) -> None:
    call = ".clock<|message|>{}<|call|>"
    assert written(in_channels, call, prompt=f"<|start|>assistant{COMMENTARY}") == (call, call)


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (f"{COMMENTARY}.", "spell"), (f"{COMMENTARY}.weather", "<|call|>"), (f"{COMMENTARY}.weather <|constrain|>json", "5"),
        (f"{COMMENTARY}.clock json<|message|>{{", '"city": "Rome"}'),
        (f"{COMMENTARY}.clock", "json<|message|>{}"), (f'{COMMENTARY}.weather<|message|>{{"', 'town": "Rome"}'),
        (f'{COMMENTARY}.weather<|message|>{{"city": "Rome"}}', "<|end|>"), (f"{COMMENTARY}.weather<|message|>", "Rome"),
        (f'{COMMENTARY}.weather<|message|>{{"city": "Rome"}}<|call|>', "<|start|>assistant"),
    ],
)  # fmt: skip
def test_nothing_but_a_call_may_be_chosen_within_one_in_its_channel(in_channels: Tokenizer, allowed: str, refused: str) -> None:
    assert written(in_channels, allowed + refused, prompt="<|start|>assistant")[0] == allowed


@pytest.mark.parametrize(
    "text", [f"{THOUGHT}{harmony.FINAL}to=functions.x is not called", "<|channel|>analysis to=python<|message|>1+1<|call|>"]
)
def test_what_is_said_and_thought_in_channels_is_free(in_channels: Tokenizer, text: str) -> None:
    assert written(in_channels, text, prompt="<|start|>assistant") == (text, "")


def test_a_function_that_cannot_be_followed_is_held_to_the_form_of_a_call_in_its_channel(in_channels: Tokenizer) -> None:
    strange = function_with({"not": {"const": 1}})
    for text, chosen in (
        (f'{COMMENTARY}.f<|message|>{{"x": [1]}}<|call|>', ...), (f"{COMMENTARY}.f<|message|>[", -1),
        (f'{COMMENTARY}.weather<|message|>{{"t', -1),
    ):  # fmt: skip
        assert written(in_channels, text, tools=(WEATHER, strange))[0] == (text if chosen is ... else text[:chosen])


SPACED = {"type": "function", "function": {"name": "the clock"}}


def test_a_function_that_no_header_can_name_is_not_called(in_channels: Tokenizer) -> None:
    text = f"{COMMENTARY}.the clock<|message|>{{}}<|call|>"
    assert written(in_channels, text, tools=(WEATHER, SPACED))[0] == f"{COMMENTARY}."
    assert written(in_channels, text, tools=(SPACED,)) == (text, "")


def test_a_call_that_became_too_much_is_free_unless_it_has_to_come(in_channels: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(*_: object) -> None:
        raise SchemaError("meant")

    monkeypatch.setattr(Grammar, "forbid", gives_up)
    logits_V = np.zeros(in_channels.backend.get_vocab_size(), np.float32)
    prompt = f"<|start|>assistant{COMMENTARY}"
    free, has_to_come = (made(in_channels, WEATHER, prompt=prompt, must_call=names) for names in ((), ("weather",)))
    for token in in_channels.encode(".weather<|message|>{"):
        free.accept(token)
    free.forbid(logits_V)
    assert written_with(free, in_channels, '"town": 1}<|call|>') == ('"town": 1}<|call|>', "")
    with pytest.raises(SchemaError, match="meant"):
        has_to_come.forbid(logits_V)


def test_a_call_that_has_to_come_and_cannot_be_held_is_refused(in_channels: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Grammars, "can_follow_call", lambda _self, calls, _end="": len(calls) < 2)
    prompt = f"<|start|>assistant{COMMENTARY}"
    assert made(in_channels, WEATHER, CLOCK, prompt=prompt).holds
    with pytest.raises(SchemaError, match=r"^the schemas of these functions cannot be followed\n") as caught:
        made(in_channels, WEATHER, CLOCK, prompt=prompt, must_call=("weather", "clock"))
    assert caught.value.field == "tools"
