"""Functions that a model may call: what the model is told, what its answer is held to, and what counts as a call."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import transformers
from tiny import TEMPLATE, TOO_DEEP, write_tiny_gguf

from nomoat.engine import tool_calls
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.tokenizer import Tokenizer
from nomoat.records import CallingTurn, Chunk, FinishReason, Message, Request, ToolCall, ToolResult, Usage

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Its weather <now>", "parameters": CITY}}
CLOCK = {"type": "function", "function": {"name": "clock"}}
TOOLS = tuple(json.dumps(tool, ensure_ascii=False) for tool in (WEATHER, CLOCK))
CONVERSATION = (
    Message(role="user", content="서울?"),
    CallingTurn(role="assistant", content="I look.", calls=(
        ToolCall(id="a1", name="weather", arguments='{"city": "서울"}'), ToolCall(id="b2", name="clock", arguments=""),
    )),
    ToolResult(role="tool", content="clear", call_id="a1"),
    ToolResult(role="tool", content="9:30", call_id="b2"),
    Message(role="user", content="and?"),
)  # fmt: skip
REQUEST = Request(messages=(Message(role="user", content="u"),), tools=TOOLS)
READS_TOOLS = (
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}[{{ m.role }}{% if m.role == 'tool' %} {{ m.name }}{% endif %}]{{ m.content }}"
    "{% if m.tool_calls %}{% for call in m.tool_calls %}<tool_call>{{ call.function.name }}: {{ call.function.arguments | tojson }}"
    "</tool_call>{% endfor %}{% endif %}{% endfor %}[assistant]"
)


def tokenizer_of(template: str, tmp_path: Path) -> Tokenizer:
    return from_metadata(GGUFFile(write_tiny_gguf(tmp_path / "t.gguf", template=template)).metadata)


def test_a_template_that_reads_tools_is_given_them_as_transformers_gives_them(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(READS_TOOLS, tmp_path)
    turns = [
        {"role": "user", "content": "서울?"},
        {"role": "assistant", "content": "I look.", "tool_calls": [
            {"type": "function", "function": {"name": "weather", "arguments": {"city": "서울"}}},
            {"type": "function", "function": {"name": "clock", "arguments": {}}},
        ]},
        {"role": "tool", "name": "weather", "content": "clear"}, {"role": "tool", "name": "clock", "content": "9:30"},
        {"role": "user", "content": "and?"},
    ]  # fmt: skip
    clock = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend)
    text = theirs.apply_chat_template(turns, tools=[WEATHER, clock], chat_template=READS_TOOLS, tokenize=False)
    assert tokenizer.render(CONVERSATION, tools=TOOLS) == text
    assert '<tool_call>weather: {"city": "서울"}</tool_call>' in text


# As Hermes 3's, Apertus', Functionary's.
@pytest.mark.parametrize("added", ["tool.function.description", "t.description", 'tool["function"]["description"]'])
def test_a_function_without_a_description_is_told_to_a_template_that_adds_it_to_a_text(added: str, tmp_path: Path) -> None:
    template = "{% for tool in tools %}{% set t = tool.function %}{{ t.name + ': ' + ADDED + '.' }}{% endfor %}{#messages tool_calls#}"
    tokenizer = tokenizer_of(template.replace("ADDED", added), tmp_path)
    assert tokenizer.render(REQUEST.messages, tools=TOOLS) == "weather: Its weather <now>.clock: ."


@pytest.mark.data
def test_a_real_template_shows_tools_calls_and_results(qwen_coder_gguf: Path) -> None:
    tokenizer = from_metadata(GGUFFile(qwen_coder_gguf).metadata)
    text = tokenizer.render(CONVERSATION, tools=TOOLS)
    assert f"<tools>\n{json.dumps(WEATHER, ensure_ascii=False)}\n" in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call>\n<tool_call>\n{"name": "clock"' in text
    assert "user\n<tool_response>\nclear\n</tool_response>\n<tool_response>\n9:30\n</tool_response><|im_end|>" in text
    held = Request(messages=CONVERSATION, tools=TOOLS, must_call=("clock",))
    assert tokenizer.decode(tokenizer.prompt_ids(held)[-2:]) == "<tool_call>\n"


def test_for_a_template_that_knows_no_tools_they_stand_in_the_turns_texts(tmp_path: Path) -> None:
    """What calls came to and the question after it are one turn: many templates want the speakers to take turns."""
    tokenizer = tokenizer_of(TEMPLATE, tmp_path)
    text = tokenizer.render((Message(role="system", content="Be kind."), *CONVERSATION), tools=TOOLS)
    system, *turns = text.split("<|im_start|>")[1:]
    assert system.startswith("system\nBe kind.\n\n# Tools\n") and f"\n{json.dumps(WEATHER, ensure_ascii=False)}\n" in system
    assert turns == [
        "user\n서울?<|im_end|>\n",
        'assistant\nI look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call><|im_end|>\n',
        "user\n<tool_response>\nclear\n</tool_response>\n<tool_response>\n9:30\n</tool_response>\nand?<|im_end|>\n",
        "assistant\n",
    ]
    assert tokenizer.render(CONVERSATION).startswith("<|im_start|>user\n서울?")  # without tools nothing is said of them
    assert tokenizer.render(CONVERSATION, tools=TOOLS).startswith("<|im_start|>system\n# Tools\n")


# As Mistral's.
WANTS_IDS = """{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}
{%- if m.tool_calls %}{% for call in m.tool_calls %}
{%- if not call.id is defined or call.id|length != 9 %}{{ raise_exception("IDs of length 9!") }}{% endif %}[{{ call.id }}]{% endfor %}
{%- elif m.role == "tool" %}
{%- if m.tool_call_id|length != 9 %}{{ raise_exception("IDs of length 9!") }}{% endif %}({{ m.tool_call_id }} {{ m.name }}){% endif %}
{%- endfor %}"""


def test_a_template_that_wants_ids_of_a_form_has_them_whoever_made_them(tmp_path: Path) -> None:
    """Always the same ones, so that what a conversation begins with stays as it was."""

    def told(template: str, *ids: str) -> str:
        called = tuple(ToolCall(id=one, name="clock", arguments="{}") for one in ids)
        results = [ToolResult(role="tool", content="9:30", call_id=one) for one in ids]
        turns = (Message(role="user", content="u"), CallingTurn(role="assistant", content="", calls=called), *results)
        return tokenizer_of(template, tmp_path).render(turns)

    assert told(WANTS_IDS, "abcDEF123", "call_HGiTpWGBQJVvUbIFcmIxSkzE", "functions:", "") == (
        "[abcDEF123][c2cd00112][87c2d6c18][e3b0c4429](abcDEF123 clock)(c2cd00112 clock)(87c2d6c18 clock)(e3b0c4429 clock)"
    )
    assert "[call_1](call_1 clock)" in told(WANTS_IDS.replace("length != 9", "length < 1"), "call_1")


@pytest.mark.parametrize("template", [TEMPLATE, READS_TOOLS])
def test_arguments_with_half_a_character_are_shown_as_they_were_written(template: str, tmp_path: Path) -> None:
    call = ToolCall(id="a1", name="clock", arguments='{"zone": "\\ud83c"}')
    turns = (Message(role="user", content="u"), CallingTurn(role="assistant", content="", calls=(call,)))
    tokenizer = tokenizer_of(template, tmp_path)
    assert json.dumps(call.arguments) in tokenizer.render(turns, tools=TOOLS)
    assert tokenizer.prompt_ids(Request(messages=turns, tools=TOOLS))


def test_an_answer_that_has_to_call_begins_as_calls_of_its_template_do(tmp_path: Path) -> None:
    question = (Message(role="user", content="u"),)
    free, held = Request(messages=question, tools=TOOLS), Request(messages=question, tools=TOOLS, must_call=("clock",))
    for template, begun in (
        (TEMPLATE, "<tool_call>\n"),
        (READS_TOOLS, "<tool_call>\n"),
        (READS_TOOLS.replace("tool_call>", "x>"), ""),
    ):
        tokenizer = tokenizer_of(template, tmp_path)
        assert tokenizer.prompt_text(held)[0] == tokenizer.prompt_text(free)[0] + begun


NODE = {"type": "object", "properties": {"$ref": {"type": "integer"}, "next": {"$ref": "#"}, "kind": {"$ref": "#/$defs/Kind"}},
        "required": ["kind"], "additionalProperties": False, "$defs": {"Kind": {"enum": ["$ref", {"$ref": "#"}]}}}  # fmt: skip
LIST = {"type": "function", "function": {"name": "list", "parameters": NODE}}


def follows(value: Any, schema: str | None) -> bool:
    return jsonschema.Draft202012Validator(json.loads(schema or "")).is_valid(value)


def held_to(template: str = TEMPLATE, **settings: Any) -> str | None:
    tools = (*TOOLS, json.dumps(LIST))
    return tool_calls.schema(Request(messages=(Message(role="user", content="u"),), tools=tools, **settings), template)


def test_an_answer_that_has_to_call_follows_the_arguments_of_one_of_the_functions() -> None:
    schema = held_to(must_call=("weather", "list"))
    assert follows({"name": "weather", "arguments": {"city": "Rome"}}, schema)
    assert not follows({"name": "weather", "arguments": {"kind": "$ref"}}, schema)
    assert not follows({"name": "clock", "arguments": {}}, schema)
    assert follows({"name": "list", "arguments": {"kind": "$ref", "$ref": 1, "next": {"kind": {"$ref": "#"}}}}, schema)
    assert not follows({"name": "list", "arguments": {"kind": "$ref", "next": {"kind": 3}}}, schema)
    assert held_to() is None


def test_an_answer_of_a_schema_or_a_call_calls_none_but_those_that_it_may() -> None:
    schema = held_to(json_schema=json.dumps(NODE), may_call="weather")
    assert follows({"name": "weather", "arguments": {"city": "Rome"}}, schema) and follows({"kind": "$ref"}, schema)
    assert not follows({"name": "clock", "arguments": {}}, schema)


@pytest.mark.parametrize("parameters", [{}, {"required": ["city"]}, {"type": ["object", "null"]}])
def test_arguments_are_an_object_whatever_the_functions_schema_leaves_out(parameters: dict[str, Any]) -> None:
    tool = json.dumps({"type": "function", "function": {"name": "weather", "parameters": parameters}})
    request = Request(messages=(Message(role="user", content="u"),), tools=(tool,), must_call=("weather",))
    schema = tool_calls.schema(request, TEMPLATE)
    assert follows({"name": "weather", "arguments": {"city": "Rome"}}, schema)
    assert not any(follows({"name": "weather", "arguments": other}, schema) for other in (None, "Rome", [], 3))


@pytest.mark.parametrize(
    ("given", "is_free"),
    [
        ({}, False), ({"parameters": {"type": "object", "properties": {}, "required": []}}, False),
        ({"parameters": {"properties": {}, "additionalProperties": True}}, True), ({"parameters": {"type": "object"}}, True),
        ({"parameters": {"properties": {}, "anyOf": [{"required": ["city"]}]}}, True),
    ],
)  # fmt: skip
def test_a_function_without_parameters_is_called_without_arguments(given: dict[str, Any], is_free: bool) -> None:
    tool = json.dumps({"type": "function", "function": {"name": "weather", **given}})
    request = Request(messages=(Message(role="user", content="u"),), tools=(tool,), must_call=("weather",))
    schema = tool_calls.schema(request, TEMPLATE)
    assert follows({"name": "weather", "arguments": {"city": "Rome"}}, schema) is is_free
    assert is_free or follows({"name": "weather", "arguments": {}}, schema)


def test_an_answer_may_be_of_the_schema_or_a_call_where_both_are_allowed() -> None:
    schema = held_to(json_schema=json.dumps(NODE))
    assert follows({"kind": "$ref", "next": {"kind": "$ref"}}, schema) and follows({"name": "clock", "arguments": {}}, schema)
    assert not follows({"kind": "other"}, schema)
    assert not follows({"kind": "$ref"}, held_to(json_schema=json.dumps(NODE), must_call=("clock",)))


def test_a_schema_too_deep_is_left_for_the_grammar_to_refuse() -> None:
    schema = '{"allOf": [' * TOO_DEEP + "{}" + "]}" * TOO_DEEP
    assert held_to(json_schema=schema) == schema


def test_arguments_are_called_as_the_template_calls_them() -> None:
    llama3 = """{% if tools %}{"name": function name, "parameters": dictionary of argument name and its value}{% endif %}
        {% for m in messages %}{% if 'tool_calls' in m %}{{ '"parameters": ' }}{% endif %}{% endfor %}"""
    assert follows({"name": "clock", "parameters": {}}, held_to(llama3, must_call=("clock",)))
    assert not follows({"name": "clock", "arguments": {}}, held_to(llama3, must_call=("clock",)))


ROME = ("weather", {"city": "Rome"})
FOUND = [
    ('<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', "", [ROME]),
    ('I look.\n<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>', "I look.\n", [ROME]),
    ('\n\n<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}', "", [ROME]),
    ('<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>\nand\n<tool_call>{"name": "clock"}</tool_call> done.',
     "", [ROME, ("clock", {})]),
    ('<tool_call>[{"name": "clock", "arguments": {}}, {"name": "clock", "arguments": {}}]</tool_call>', "",
     [("clock", {}), ("clock", {})]),
    ('<tool_call>{"name": "weather", "arguments": {"city": "</tool_call>\n<tool_call>"}}</tool_call>', "",
     [("weather", {"city": "</tool_call>\n<tool_call>"})]),
    ('{"name": "weather", "arguments": {"city": "Rome"}}', "", [ROME]),
    ('{"name": "weather", "parameters": {"city": "Rome"}}; {"name": "clock", "parameters": {}}', "", [ROME, ("clock", {})]),
    (' [{"name": "weather", "arguments": {"city": "Rome"}}]', "", [ROME]),
    ('<think>\nWithin <tool_call></tool_call>, then.\n</think>\n\n<tool_call>{"name": "clock"}</tool_call>',
     "<think>\nWithin <tool_call></tool_call>, then.\n</think>\n\n", [("clock", {})]),
    ('<tool_call>{"name": "weather", "arguments": {"city": "</think> a </think>"}}</tool_call>\n<tool_call>{"name": "clock"}', "",
     [("weather", {"city": "</think> a </think>"}), ("clock", {})]),
    ('{"name": "clock"}, {"name": "weather", "arguments": {"city": "a </think>"}}', "",
     [("clock", {}), ("weather", {"city": "a </think>"})]),
    ('<think>\nNot <tool_call>{"name": "clock"}</tool_call>, nor {"name": "\n</think>\n'
     '<tool_call>{"name": "weather", "arguments": {"city": "<think></think>"}}</tool_call>',
     '<think>\nNot <tool_call>{"name": "clock"}</tool_call>, nor {"name": "\n</think>\n', [("weather", {"city": "<think></think>"})]),
    ('{{"name": "weather", "arguments": {"city": "Rome"}}}}', "", [ROME]),
    ('{"name": "weather", "arguments": {"city": "Rome"}}}\n}', "", [ROME]),
    ('<tool_call>\n{{"name": "weather", "arguments": {"city": "Rome"}}}\n</tool_call>', "", [ROME]),
    ('```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```', "", [ROME]),
    ('{"name": "weather", "arguments": {"city": "Rome"}}\n```', "", [ROME]),
    ('{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', "", [ROME]),
    ('```json\n{"name": "clock"}\n```\n\n```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```\n', "",
     [("clock", {}), ROME]),
    ('{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}}', "", [ROME]),
    ('{"name": "clock", "arguments": null}', "", [("clock", {})]), ('{"name": "clock", "arguments": ""}', "", [("clock", {})]),
    ('{"name": "weather", "arguments": {"city": "Rome"}}\n\nIt is warm in Rome.', "", [ROME]),
    ('{{"name": "weather", "arguments": {"city": "Rome"}}}\n\nSo it is warm, as in {"name": "clock"}.', "", [ROME]),
    ('```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```\n\nThis asks for the weather.', "", [ROME]),
    ('{"name": "clock"}\n```\nThis asks for the time.', "", [("clock", {})]),
    ('{"name": "clock"}\n{"time": "9:30"}', "", [("clock", {})]), ('{"name": "clock"}\n{"id": 9}', "", [("clock", {})]),
    ('{"name": "clock"}, {"name": "wea', "", [("clock", {})]), ('[{"name": "clock"}, {"name": "spell"}]', "", [("clock", {})]),
    ('{"name": "clock"}\nand\n<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>.', "",
     [("clock", {}), ROME]),
    ('{"name": "weather", "arguments": {"city": "<tool_call>"}}', "", [("weather", {"city": "<tool_call>"})]),
    ('{"name": "Anna"} it is.\n<tool_call>{"name": "clock"}</tool_call>', '{"name": "Anna"} it is.\n', [("clock", {})]),
    ('<tool_call>{"name": "clock"}</tool_call>\n<tool_call>{"name": "wea', "", [("clock", {})]),
    ('<tool_call>{"name": "clock"}</tool_call>\n{"name": "clock"}\n<tool_call>{"name": "spell"}</tool_call>', "", [("clock", {})]),
    ('{"name": "weather", "arguments": {"city": "\\ud83c\\udfdb"}}', "", [("weather", {"city": "\U0001f3db"})]),
    ('{"name": "clock"}\n<think>now?</think>\n{"name": "weather", "arguments": {"city": "Rome"}}', "", [("clock", {})]),
    ('{"name": "clock"}<think>or <tool_call>{"name": "clock"}</tool_call>?</think>\n'
     '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>', "", [("clock", {}), ROME]),
    ('{"name": "clock"} <think>or <tool_call>{"name": "clock"}</tool_call>?', "", [("clock", {})]),
    ('{"name": "weather", "arguments": {"city": "</think><think>"}} it is.', "", [("weather", {"city": "</think><think>"})]),
    ('{"name": "clock"}, I think.</think>\n<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>',
     '{"name": "clock"}, I think.</think>\n', [ROME]),
]  # fmt: skip
TEXTS = [
    "It is warm in Rome.", "", " ", "<tool", "a <tool_call", "```python\nprint(1)\n```", '{"name": "Anna", "arguments": {}}', "{",
    "[1] see", "<tool_call>weather</tool_call>",
    '{"name": "weather", "arguments": {"city": "Ro', '<tool_call>{"name": "weather", "arguments": {"city": "Ro', "<tool_call>",
    '<tool_call>{"name": "spell", "arguments": {}}</tool_call>', '{"name": "weather", "arguments": [1]}',
    'So I would call {"name": "weather", "arguments": {"city": "Rome"}}.', '{"name": "weather", "arguments": {"city": 1e999}}',
    'As in\n```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```', '{"time": "9:30"}\n{"name": "clock"}',
    '{"name": "spell"}\n{"name": "clock"}',
    "<tool_call>" + "[" * 100_000, '{"name": ' + "[" * 100_000, '{"name": "weather", "arguments": "{"}', '  ```json\n{"city": 1}\n```',
    '```json\n{"name": "weather", "arguments": {"city": "Rome"}, "response": 31}\n```',
    '<tool_call>{"name": "clock"}</tool_call>, or not?</think>It is late.', '{"name": "spell", "arguments": {"word": "</think>"}}',
    '<think>So <tool_call> is the mark.</think>\n{"name": "clock", "arguments": {}}\nis how a call is written.',
    '<think>Hm <tool_call>.</think>{"name": "clock"}', '{"name": "clock"}, I think.</think>\n{"name": "clock"}',
    '{"name": {"first": "Anna"}}', '{"name": ["clock"], "arguments": {}}', '{"name": null, "arguments": {}}',
    '{"name": "weather", "arguments": {"city": "\\ud83c"}}', '<tool_call>{"name": "clock", "arguments": {"\\udfdb": 1}}</tool_call>',
]  # fmt: skip


def chunks_of(pieces: list[str], reason: FinishReason = "stop") -> Generator[Chunk]:
    yield from (Chunk(text=piece) for piece in pieces)
    yield Chunk(text="", finish_reason=reason, usage=Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0, decode_seconds=0))


def read(pieces: list[str], **settings: Any) -> tuple[list[str], list[tuple[str, Any]]]:
    request = Request(messages=(Message(role="user", content="u"),), tools=TOOLS, **settings)
    found = list(tool_calls.recognised(chunks_of(pieces), request))
    assert not any(chunk.calls for chunk in found[:-1])
    return [chunk.text for chunk in found], [(call.name, json.loads(call.arguments)) for call in found[-1].calls]


@pytest.mark.parametrize(("text", "said", "called"), FOUND)
def test_calls_are_found_however_models_write_them_and_tokens_cut_them(text: str, said: str, called: list[Any]) -> None:
    for size in (1, 2, 7, len(text)):
        pieces, found = read([text[at : at + size] for at in range(0, len(text), size)])
        assert ("".join(pieces), found) == (said, called)
    assert read([text], one_call=True)[1] == called[:1]


def test_a_call_of_a_function_that_may_not_be_called_is_text() -> None:
    text = '<tool_call>{"name": "clock"}</tool_call>'
    assert read([text], may_call="weather") == (["", text], [])
    assert read([text], may_call="clock") == (["", ""], [("clock", {})])


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_call_is_text_to_the_last_letter(text: str) -> None:
    for size in (1, 5, len(text) or 1) if len(text) < 1000 else (len(text),):
        pieces, found = read([text[at : at + size] for at in range(0, len(text), size)])
        assert ("".join(pieces), found) == (text, [])


CALLS = '{"name": "clock"}', '{"name": "weather", "arguments": {"city": "Rome"}}', '{"name": "clock", "arguments": {}}'


@pytest.mark.parametrize("form", ["{}, {}, {}", "[{}, {}, {}]", "{}\n{}\n{}", "```json\n[{}, {}, {}]\n```",
                                  "```json\n{}\n```\n\n```json\n{}\n```\n\n```json\n{}\n```", "{}\n</tool_call>\n{}\n</tool_call>\n{}",
                                  "<tool_call>[{}, {}, {}]</tool_call>",
                                  "<tool_call>{}</tool_call><tool_call>{}</tool_call><tool_call>{}</tool_call>"])  # fmt: skip
def test_whole_calls_before_one_that_the_token_limit_cuts_are_calls(form: str) -> None:
    """A text with braces of its own is formatted in steps."""
    first, second, third = (part + call for part, call in zip(form.split("{}"), CALLS, strict=False))
    for cut in range(1, len(third)):
        *_, last = tool_calls.recognised(chunks_of([first, second, third[:cut]], "length"), REQUEST)
        assert ([call.name for call in last.calls], last.text, last.finish_reason) == (["clock", "weather"], "", "length")
        *_, last = tool_calls.recognised(chunks_of([first, second, third[:cut]], "length"), replace(REQUEST, one_call=True))
        assert ([call.name for call in last.calls], last.text, last.finish_reason) == (["clock"], "", "stop")


@pytest.mark.parametrize("mark", ["```json", "</tool_call>", "<tool_call>"])
def test_a_whole_call_before_a_mark_that_the_token_limit_cuts_is_one(mark: str) -> None:
    for cut in range(1, len(mark)):
        *_, last = tool_calls.recognised(chunks_of([f"{CALLS[0]}\n{mark[:cut]}"], "length"), REQUEST)
        assert ([call.name for call in last.calls], last.text) == (["clock"], "")


@pytest.mark.parametrize("behind", ["It is late.", f"<tool_call>{CALLS[1]}</tool_call>"])
def test_a_thought_that_breaks_off_in_a_call_ends_at_its_mark(behind: str) -> None:
    text = f'<think><tool_call>{CALLS[0]}</tool_call><tool_call>{{"name": "\n</think>\n{behind}'
    assert read([text], one_call=True)[1] == ([ROME] if "Rome" in behind else [])


def test_calls_with_ends_of_thoughts_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more where they are read; 400 of them took a second."""
    looked_at, is_call = [], tool_calls._call
    monkeypatch.setattr(tool_calls, "_call", lambda *told: (looked_at.append(told), is_call(*told))[1])
    text = '<tool_call>{"name": "weather", "arguments": {"city": "</think>"}}</tool_call>\n' * 50
    assert len(read([text])[1]) == 50 and len(looked_at) == 100


@pytest.mark.parametrize("behind", ["\nThis asks", '\n{"time": "9', "\n```\nThis"])
def test_the_token_limit_may_cut_what_is_said_behind_a_call(behind: str) -> None:
    for request, reported in ((REQUEST, "length"), (replace(REQUEST, one_call=True), "stop")):
        *_, last = tool_calls.recognised(chunks_of([CALLS[0], behind], "length"), request)
        assert ([call.name for call in last.calls], last.text, last.finish_reason) == (["clock"], "", reported)


def test_a_first_call_that_the_token_limit_cuts_is_text() -> None:
    for request in (REQUEST, replace(REQUEST, one_call=True)):
        found = list(tool_calls.recognised(chunks_of([CALLS[1][:-2]], "length"), request))
        assert ("".join(chunk.text for chunk in found), found[-1].calls, found[-1].finish_reason) == (CALLS[1][:-2], (), "length")


def test_text_is_given_out_as_it_comes() -> None:
    assert read(["It ", "is <b>", " a < b", "<too", "l>"])[0] == ["It ", "is <b>", " a < b", "", "<tool>", ""]
    assert read(["def ", "f"])[0] == ["def ", "f", ""] and read(['{"b', '": 1', "}"])[0] == ['{"b', '": 1', "}", ""]


def test_a_template_that_takes_no_turn_of_several_calls_is_given_none() -> None:
    template = "{{ raise_exception('This model only supports single tool-calls at once!') }}"
    request = Request(messages=(Message(role="user", content="u"),), tools=TOOLS)
    *_, last = tool_calls.recognised(
        chunks_of(['{"name": "clock", "parameters": {}}; {"name": "clock", "parameters": {}}']), request, template
    )
    assert len(last.calls) == 1


@pytest.mark.parametrize("behind", ['{"name": "spell"}', '{"time": "9:30"}', "now", '{"name": "clock", "arguments": 1}'])
def test_where_one_call_counts_all_behind_the_first_one_with_marks_is_left_out(behind: str) -> None:
    for form in ("<tool_call>{}</tool_call>\n<tool_call>{}</tool_call>", "<tool_call>[{}, {}]</tool_call>"):
        text = behind.join(form.replace("{}", CALLS[0], 1).split("{}"))
        assert read([text], one_call=True) == (["", ""], [("clock", {})])


def test_an_answer_that_was_cancelled_says_so_behind_its_one_call() -> None:
    *_, last = tool_calls.recognised(chunks_of([CALLS[0]], "cancelled"), replace(REQUEST, one_call=True))
    assert ([call.name for call in last.calls], last.finish_reason) == (["clock"], "cancelled")


def test_tools_that_a_template_does_not_know_are_said_so() -> None:
    request = Request(messages=(Message(role="user", content="u"),), tools=TOOLS, template_variables='{"x": 1}')
    assert tool_calls.notes(READS_TOOLS, request) == ("the model's chat template does not read `x`",)
    assert tool_calls.notes(TEMPLATE, request)[1:] == ("the model's chat template knows no tools: they stand in the system message",)


def test_each_call_has_an_id_of_its_own() -> None:
    text = '<tool_call>[{"name": "clock"}, {"name": "clock"}]</tool_call>'
    *_, last = tool_calls.recognised(chunks_of([text]), Request(messages=(Message(role="user", content="u"),), tools=TOOLS))
    assert len({call.id for call in last.calls}) == 2 and all(len(call.id) == 9 and call.id.isalnum() for call in last.calls)
