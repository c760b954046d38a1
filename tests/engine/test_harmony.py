"""Answers in channels: what is thought, called and said, in the prompt and in the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import write_tiny_gguf

from nomoat.engine import harmony, importer, likelihood, tool_calls
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.engine.grammar import Grammars
from nomoat.engine.local import LocalEngine
from nomoat.engine.sampling import Pick
from nomoat.engine.tokenizer import Tokenizer
from nomoat.engine.tool_call_grammar import ChannelCallGrammar
from nomoat.errors import SchemaError
from nomoat.records import CallingTurn, Chunk, Message, Request, ToolCall, ToolResult

MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]
TEMPLATE = """<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}<|end|>
{%- if tools %}<|start|>developer<|message|>{% for tool in tools %}{{ '// ' + tool.function.description }}
{{ tool.function.name }}{% endfor %}<|end|>{% endif %}
{%- for m in messages %}
    {%- if m.tool_calls %}
        {%- if m.content %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.content + '<|end|>' }}{% endif %}
        {{- '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|channel|>commentary json<|message|>' }}
        {{- m.tool_calls[0].function.arguments | tojson + '<|call|>' }}
    {%- elif m.role == 'tool' %}{{ '<|start|>functions.x to=assistant<|channel|>commentary<|message|>' + m.content + '<|end|>' }}
    {%- elif m.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
    {%- else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}<|start|>assistant"""
WEATHER = json.dumps({"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}})
ASKED = Message(role="user", content="hi")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "SPECIAL", [*tiny.SPECIAL, *MARKS])
        return write_tiny_gguf(tmp_path_factory.mktemp("harmony") / "model.gguf", template=TEMPLATE)


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return from_metadata(GGUFFile(path).metadata)


def text_of(tokenizer: Tokenizer, written: str, *, prompt: str = "<|start|>assistant", is_cut: bool = False) -> str:
    """The text of an answer behind a prompt."""
    stream = harmony.ChannelStream(tokenizer, tokenizer.encode(prompt))
    return "".join(map(stream.push, tokenizer.encode(written))) + stream.finish(is_cut=is_cut)


FINAL = "<|channel|>final<|message|>"
CHINESE = 70 * "好"  # no spaces
OPENED = "<|start|>assistant<|channel|>analysis<|message|>"  # as templates of some fine-tunes end
THOUGHT = "<|channel|>analysis<|message|>They greet.<|end|>"
CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "서울"}'
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
CALLED = '<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (f"{THOUGHT}<|start|>assistant{FINAL}Hello, 서울.", "<think>\nThey greet.\n</think>\n\nHello, 서울."),
        (f"{FINAL}Hello.", "Hello."),
        (f"{THOUGHT}<|start|>assistant{THOUGHT}<|start|>assistant{FINAL}A", "<think>\nThey greet.\n\nThey greet.\n</think>\n\nA"),
        (CALL, CALLED),
        (f"{THOUGHT}<|start|>assistant{CALL}", f"<think>\nThey greet.\n</think>\n\n{CALLED}"),
        ('<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "서울"}', CALLED),
        ("<|channel|>commentary to=functions.clock<|message|>", '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'),
        (f"<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{CALL}", f"I look.\n\n{CALLED}"),
        (f"<|channel|>analysis to=python code<|message|>1+1<|end|><|start|>assistant{FINAL}2", "<think>\n1+1\n</think>\n\n2"),
        ("<|channel|>commentary to=functions.clock<|constrain|>json<|message|>{}", CLOCK),
        (" to=functions.clock<|channel|>commentary json<|message|>{}", CLOCK),
        ("<|channel|>commentary to=functions.날씨 json<|message|>{}", CLOCK.replace("clock", r"\ub0a0\uc528")),
        ("<|channel|>analysis<|message|>They greet.", "<think>\nThey greet.\n</think>\n\n"),
        (THOUGHT, "<think>\nThey greet.\n</think>\n\n"),
        (f"<|channel|>analysis<|message|>No </think><|end|><|start|>assistant{FINAL}A", "<think>\nNo </think >\n</think>\n\nA"),
        ("안녕 세계 🎉 no channel", "안녕 세계 🎉 no channel"),
        ("Tom", "Tom"),
        ("to", "to"),
        ("<|message|>plain", "plain"),
        (f"{THOUGHT}Hello there", "<think>\nThey greet.\n</think>\n\nHello there"),
        (f"{FINAL}Hello <|message|>world", "Hello world"),
        (f"{FINAL}Use <|start|> here", "Use \n\n here"),
        (f"{FINAL}Use <|start|> here, and as often as you like", "Use \n\n here, and as often as you like"),
        ("<|channel|>final", ""),
        ("<|start|>assistant", ""),
        ("", ""),
        (f"{FINAL}A<|start|>{CHINESE}", f"A\n\n{CHINESE}"),
        (f"{FINAL}A<|channel|>안녕", "A\n\n안녕"),
        ("<|channel|>final Hello", "Hello"),
        ("<|channel|>final a |> b", "a |> b"),
        (f"<|channel|>final{CHINESE}", CHINESE),
        ("<|channel|>analysis We should think about it", "<think>\nWe should think about it\n</think>\n\n"),
        (f"<|channel|>analysis They greet.<|end|><|start|>assistant{FINAL}A", "<think>\nThey greet.\n</think>\n\nA"),
        ("<|channel|>commentary to=functions.clock", CLOCK),
        ("<|channel|>commentary to=functions.clock <|constrain|>json", CLOCK),
        ("<|start|>assistant to=functions.clock<|channel|>commentary json", CLOCK),
        (f"<|channel|>commentary to=functions.{64 * 'f'}<|message|>{{}}", CLOCK.replace("clock", 64 * "f")),
        ('<|channel|>commentary to=functions.clock<|message|>{"a": "</think>"}', CLOCK.replace("{}", r'{"a": "</think\u003e"}')),
    ],
)  # fmt: skip
def test_a_thought_stands_in_think_and_a_call_in_tool_call(tokenizer: Tokenizer, written: str, text: str) -> None:
    assert text_of(tokenizer, written) == text


def test_what_is_cut_off_ends_nowhere(tokenizer: Tokenizer) -> None:
    assert text_of(tokenizer, "<|channel|>analysis<|message|>They", is_cut=True) == "<think>\nThey"
    assert text_of(tokenizer, CALL, is_cut=True) == CALLED.removesuffix("}\n</tool_call>")
    assert text_of(tokenizer, f"{THOUGHT}<|start|>assi", is_cut=True) == "<think>\nThey greet."


@pytest.mark.parametrize("written", ["<|channel|>", "<|channel|>analysis", " to=functions.weather"])
def test_an_answer_that_is_cut_off_in_its_first_header_says_nothing(tokenizer: Tokenizer, written: str) -> None:
    assert text_of(tokenizer, written, is_cut=True) == ""


@pytest.mark.parametrize(
    ("prompt", "written", "text"),
    [
        (f"<|start|>assistant{FINAL}", '{"a": 1}', '{"a": 1}'),
        (f"<|start|>assistant{FINAL}Well", ", 서울", ", 서울"),
        ("<|start|>assistant<|channel|>", "final<|message|>A", "A"),
        (f"<|start|>user<|message|>hi<|end|>{FINAL}", "A", "A"),
        (f"<|start|>assistant{harmony.NO_THOUGHT}", f"{FINAL}A", "A"),
        (OPENED, f"I think.<|end|><|start|>assistant{FINAL}A", "<think>\nI think.\n</think>\n\nA"),
        (f"{OPENED}Well", ", 서울", "<think>\n, 서울\n</think>\n\n"),
        (OPENED, "", "<think>\n\n</think>\n\n"),
    ],
)
def test_an_answer_goes_on_with_what_the_prompt_has_begun(tokenizer: Tokenizer, prompt: str, written: str, text: str) -> None:
    assert text_of(tokenizer, written, prompt=prompt) == text


def test_an_answer_without_channels_is_streamed(tokenizer: Tokenizer) -> None:
    stream = harmony.ChannelStream(tokenizer, tokenizer.encode("<|start|>assistant"))
    assert [stream.push(token) for token in tokenizer.encode("안녕")][-1] == "녕"


@pytest.mark.parametrize("begun", ["<|start|>", "<|channel|>", "<|channel|>final", f"{FINAL}A<|start|>", f"{FINAL}A<|channel|>"])
def test_text_without_spaces_behind_a_stray_mark_is_streamed_and_not_lost(tokenizer: Tokenizer, begun: str) -> None:
    stream = harmony.ChannelStream(tokenizer, tokenizer.encode("<|start|>assistant"))
    pieces = [stream.push(token) for token in tokenizer.encode(begun + CHINESE)]
    assert pieces[-1] == "好"
    assert "".join(pieces).endswith(CHINESE)
    assert stream.finish(is_cut=True) == ""


def test_an_earlier_thought_that_the_template_began_is_left_out_too(tokenizer: Tokenizer) -> None:
    answer = text_of(tokenizer, f"I think.<|end|><|start|>assistant{FINAL}A", prompt=OPENED)
    assert [one.content for one in harmony.told([Message(role="assistant", content=answer)])] == ["A"]


def test_an_answer_ends_with_its_last_message(tokenizer: Tokenizer) -> None:
    ends = {tokenizer.backend.id_to_token(token) for token in tokenizer.special.stop_ids}
    assert {"<|return|>", "<|call|>"} <= ends
    assert "<|end|>" not in ends


def test_end_still_ends_answers_of_other_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "SPECIAL", [*tiny.SPECIAL, "<|end|>"])
    other = from_metadata(GGUFFile(write_tiny_gguf(tmp_path / "model.gguf")).metadata)
    assert other.backend.token_to_id("<|end|>") in other.special.stop_ids


@pytest.mark.parametrize(
    ("settings", "begun"),
    [
        ({}, ""),
        ({"json_schema": "{}"}, FINAL),
        ({"answer_start": "Well"}, f"{FINAL}Well"),
        ({"tools": (WEATHER,), "must_call": ("weather",)}, "<|channel|>commentary to=functions"),
        ({"tools": (WEATHER,)}, ""),
        ({"reasoning_effort": "none"}, FINAL),
        ({"template_variables": {"reasoning_effort": "none"}}, FINAL),
        ({"reasoning_effort": "none", "tools": (WEATHER,)}, harmony.NO_THOUGHT),  # what is said calls nothing
    ],
)
def test_an_answer_that_is_held_or_begun_has_no_thoughts(tokenizer: Tokenizer, settings: dict[str, Any], begun: str) -> None:
    text, _ = tokenizer.prompt_text(Request(messages=(ASKED,), **settings))
    assert text.endswith(f"<|start|>assistant{begun}")


@pytest.mark.parametrize(
    ("opened", "begun"),
    [(FINAL, FINAL), ("<|channel|>analysis<|message|>", f"<|channel|>analysis<|message|><|end|><|start|>assistant{FINAL}")],
)
def test_what_a_template_has_begun_is_not_begun_again(path: Path, opened: str, begun: str) -> None:
    tokenizer = from_metadata(GGUFFile(path).metadata)
    tokenizer.chat_template = TEMPLATE + opened
    for schema, end in (("{}", begun), (None, opened)):
        text, _ = tokenizer.prompt_text(Request(messages=(ASKED,), json_schema=schema))
        assert text.endswith(f"hi<|end|><|start|>assistant{end}")
    called, _ = tokenizer.prompt_text(Request(messages=(ASKED,), tools=(WEATHER,), must_call=("weather",)))
    assert called.endswith(f"{opened}<|end|><|start|>assistant<|channel|>commentary to=functions")


def test_likelihoods_are_those_of_what_is_said(tokenizer: Tokenizer) -> None:
    prompt, _ = likelihood.split(tokenizer, Request(messages=(ASKED,)), ["A", "B"])
    assert tokenizer.decode(prompt, with_control=True).endswith(f"<|start|>assistant{FINAL}")


@pytest.mark.parametrize(("effort", "told"), [("none", "low"), ("minimal", "low"), ("medium", "medium"), ("max", "high")])
def test_the_template_is_told_of_the_efforts_it_knows(tokenizer: Tokenizer, effort: Any, told: str) -> None:
    assert f"Reasoning: {told}" in tokenizer.prompt_text(Request(messages=(ASKED,), reasoning_effort=effort))[0]
    variables = {"reasoning_effort": effort}
    assert f"Reasoning: {told}" in tokenizer.prompt_text(Request(messages=(ASKED,), template_variables=variables))[0]


def test_earlier_thoughts_are_left_out_but_beside_a_call(tokenizer: Tokenizer) -> None:
    turns = (
        ASKED, Message(role="assistant", content="<think>\nThey greet.\n</think>\n\nHello"), ASKED,
        CallingTurn(
            role="assistant", content="<think>\nI look.\n</think>\n\n", calls=(ToolCall(id="1", name="weather", arguments="{}"),)
        ),
        ToolResult(role="tool", content="clear", call_id="1"),
    )  # fmt: skip
    text = tokenizer.render(turns, {}, (WEATHER,))
    assert "<think>" not in text
    assert "<|channel|>final<|message|>Hello<|end|>" in text
    assert "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant to=functions.weather<|channel|>commentary json" in text
    assert "// \nweather" in text  # the function says nothing of itself


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("To close a thought, write </think> behind it.", "To close a thought, write </think> behind it."),
        ("I look.\n\n<think>\nsecret\n</think>\n\nDone", "I look.\n\nDone"),
        ("<think>\nsecret\n\nmore</think>Done", "Done"),
        ("<think>\ncut off", ""),
        ("Write:\n<think>\nand what you think", "Write:\n<think>\nand what you think"),
    ],
)
def test_of_an_earlier_answer_all_that_was_said_is_told(tokenizer: Tokenizer, content: str, said: str) -> None:
    text = tokenizer.render((ASKED, Message(role="assistant", content=content), ASKED))
    assert f"<|start|>assistant{FINAL}{said}<|end|><|start|>user" in text


def test_calls_of_one_turn_are_told_one_by_one_with_what_they_came_to(tokenizer: Tokenizer) -> None:
    calls = tuple(ToolCall(id=name, name=name, arguments="{}") for name in ("weather", "clock", "news"))
    turns = (
        ASKED, CallingTurn(role="assistant", content="I look.", calls=calls),
        ToolResult(role="tool", content="noon", call_id="clock"), ToolResult(role="tool", content="clear", call_id="weather"), ASKED,
    )  # fmt: skip
    told = list(harmony.told(turns))
    assert [one.calls[0].name if isinstance(one, CallingTurn) else one.content for one in told] == [
        "hi", "weather", "clear", "clock", "noon", "news", "hi",
    ]  # fmt: skip
    assert [one.content for one in told if isinstance(one, CallingTurn)] == ["I look.", "", ""]
    text = tokenizer.render(turns, {}, (WEATHER,))
    assert text.index("to=functions.weather") < text.index("clear") < text.index("to=functions.clock") < text.index("noon")


def test_a_function_may_have_nothing_as_its_description(tokenizer: Tokenizer) -> None:
    tool = json.dumps({"type": "function", "function": {"name": "weather", "description": None, "parameters": {}}})
    assert "// \nweather" in tokenizer.render((ASKED,), {}, (tool,))


def answered(engine: LocalEngine, request: Request, written: str, monkeypatch: pytest.MonkeyPatch) -> list[Chunk]:
    """The chunks of an answer whose tokens are these."""

    class Scripted:
        def submit(self, answer: Any) -> None:
            for token in engine.tokenizer.encode(written):
                answer.tokens.ready.put(Pick(token))
            answer.tokens.ready.put(None)

    monkeypatch.setattr(engine, "_started_batcher", Scripted)
    return list(engine.generate(request))


@pytest.fixture
def engine(path: Path) -> LocalEngine:
    return LocalEngine(importer.import_gguf(path))


def test_an_engine_s_answer_is_streamed_in_channels(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = answered(engine, Request(messages=(ASKED,)), f"{THOUGHT}<|start|>assistant{FINAL}Hello.<|return|>", monkeypatch)
    assert "".join(chunk.text for chunk in chunks) == "<think>\nThey greet.\n</think>\n\nHello."
    assert chunks[0].text == "<think>\n"
    assert chunks[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("stop", "text"), [("</think>\n\nHe", "<think>\nThey greet.\n"), ("llo", "<think>\nThey greet.\n</think>\n\nHe")]
)
def test_a_stop_string_ends_an_answer_in_channels(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, stop: str, text: str) -> None:
    chunks = answered(
        engine, Request(messages=(ASKED,), stop=stop), f"{THOUGHT}<|start|>assistant{FINAL}Hello.<|return|>", monkeypatch
    )
    assert "".join(chunk.text for chunk in chunks) == text
    assert chunks[-1].finish_reason == "stop"


def test_a_raw_prompt_s_answer_is_text_as_it_comes(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = answered(engine, Request(prompt="x"), f"a{FINAL}b<|return|>", monkeypatch)
    assert "".join(chunk.text for chunk in chunks) == "afinalb"


def test_a_call_in_its_channel_is_one(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(messages=(ASKED,), tools=(WEATHER,))
    chunks = answered(engine, request, f"{THOUGHT}<|start|>assistant{CALL}<|call|>", monkeypatch)
    ((call,),) = [chunk.calls for chunk in chunks if chunk.calls]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "서울"})
    assert "".join(chunk.text for chunk in chunks).strip() == "<think>\nThey greet.\n</think>"
    assert tool_calls.only_first(request, TEMPLATE)


CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "서울"]}}, "required": ["city"]}
CLOCK_TOOL, CITY_TOOL = (
    json.dumps({"type": "function", "function": {"name": name, "parameters": parameters}})
    for name, parameters in (("clock", {"type": "object", "properties": {}}), ("weather", CITY))
)


def test_an_answer_that_has_to_call_is_a_call_of_one_of_the_functions(engine: LocalEngine) -> None:
    for must_call in (("weather",), ("clock", "weather")):
        request = Request(messages=(ASKED,), tools=(CLOCK_TOOL, CITY_TOOL), must_call=must_call, seed=1, temperature=1)
        chunks = list(engine.generate(request))
        (call,) = chunks[-1].calls
        assert call.name in must_call and chunks[-1].finish_reason == "stop"
        assert not any(chunk.text for chunk in chunks)
        assert json.loads(call.arguments) in ({"clock": [{}], "weather": [{"city": "Rome"}, {"city": "서울"}]}[call.name])


def test_an_answer_that_has_to_call_what_cannot_be_followed_is_refused(engine: LocalEngine) -> None:
    strange = json.dumps({"type": "function", "function": {"name": "f", "parameters": {"properties": {"x": {"not": {"const": 1}}}}}})
    with pytest.raises(SchemaError, match=r"^the function `f`: ") as caught:
        list(engine.generate(Request(messages=(ASKED,), tools=(CITY_TOOL, strange), must_call=("weather", "f"))))
    assert caught.value.field == "tools.1.function.parameters"


COMMENTARY = "<|channel|>commentary to=functions"


@pytest.mark.parametrize("behind", ["<|channel|>commentary json", "<|channel|>commentary <|constrain|>json"])
@pytest.mark.parametrize("before", [f"<|start|>assistant{COMMENTARY}", f"<|start|>assistant{THOUGHT}<|start|>assistant{COMMENTARY}"])
def test_each_header_that_a_held_call_may_have_is_read_as_one(tokenizer: Tokenizer, before: str, behind: str) -> None:
    """Also behind `commentary to=functions`, as the prompt of a call that has to come ends."""
    request = Request(messages=(ASKED,), tools=(CLOCK_TOOL, CITY_TOOL))
    held = f".clock{behind}<|message|>{{}}<|call|>"
    grammar = ChannelCallGrammar(request, tokenizer.encode(before), tokenizer, Grammars(tokenizer, tokenizer.backend.get_vocab_size()))
    for token in tokenizer.encode(held):
        logits_V = np.zeros(tokenizer.backend.get_vocab_size(), np.float32)
        grammar.forbid(logits_V)
        assert logits_V[token] == 0
        grammar.accept(token)
    assert text_of(tokenizer, held.removesuffix("<|call|>"), prompt=before).endswith(CLOCK)


def test_the_mark_of_a_thought_s_end_may_stand_in_a_call(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(messages=(ASKED,), tools=(WEATHER,))
    chunks = answered(engine, request, f"{THOUGHT}<|start|>assistant{CALL.replace('서울', 'a</think> b')}<|call|>", monkeypatch)
    ((call,),) = [chunk.calls for chunk in chunks if chunk.calls]
    assert json.loads(call.arguments) == {"city": "a</think> b"}


@pytest.mark.parametrize("name", ["the weather", "a<b"])
def test_a_function_that_has_to_be_called_and_cannot_be_named_is_refused(engine: LocalEngine, name: str) -> None:
    strange = json.dumps({"type": "function", "function": {"name": name}})
    with pytest.raises(SchemaError, match=r"^this model's calls cannot name `") as caught:
        list(engine.generate(Request(messages=(ASKED,), tools=(CITY_TOOL, strange), must_call=(name,))))
    assert caught.value.field == "tools.1.function.name"


def test_a_name_that_a_header_can_hold_has_an_end(tokenizer: Tokenizer) -> None:
    for name, is_held in ((246 * "f", True), (247 * "f", False)):
        assert harmony.can_call(name) == is_held
        called = text_of(tokenizer, f"{COMMENTARY}.{name} json<|message|>{{}}") == CLOCK.replace("clock", name)
        assert called == is_held


def test_an_answer_that_follows_a_schema_is_said(engine: LocalEngine) -> None:
    chunks = list(engine.generate(Request(messages=(ASKED,), json_schema=json.dumps(CITY), temperature=0)))
    assert json.loads("".join(chunk.text for chunk in chunks)) in [{"city": "Rome"}, {"city": "서울"}]


def test_a_call_that_ends_with_its_header_has_no_arguments(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(messages=(ASKED,), tools=(WEATHER,))
    chunks = answered(engine, request, "<|channel|>commentary to=functions.weather<|call|>", monkeypatch)
    assert [(call.name, call.arguments) for chunk in chunks for call in chunk.calls] == [("weather", "{}")]
