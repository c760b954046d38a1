"""What OpenAI's own SDK can ask beside a plain answer: likelihoods, several answers, schemas, embeddings, echoes, metrics."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import httpx
import jsonschema
import numpy as np
import openai
import pytest
from patience import PATIENCE_SECONDS
from scripted import ScriptedEngine
from tiny import TEMPLATE, write_adapter, write_tiny_gguf

from nomoat.catalog import licences
from nomoat.engine import forked, importer, infill, local, tokenizer, tool_calls
from nomoat.engine.fake import FakeEngine
from nomoat.engine.grammar import Grammars
from nomoat.engine.local import LocalEngine
from nomoat.engine.remote import remote_engine
from nomoat.engine.source import open_source
from nomoat.engine.texts import Reading
from nomoat.engine.tokenizer import Tokenizer
from nomoat.engine.tool_call_grammar import ToolCallGrammar
from nomoat.errors import BadFileError, NomoatError, SettingError
from nomoat.records import CallingTurn, Chunk, Request, ToolResult, Usage
from nomoat.responder import Responder, memory_need
from nomoat.serve.models import Loader, Models, from_references

Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]
HALF = -math.log(2)
ONE_TOKEN = Request(prompt="the hello he", max_new_tokens=1, top_logprobs=1)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "old": {"type": "boolean"}},
          "required": ["name", "old"], "additionalProperties": False}  # fmt: skip


def chat(client: openai.OpenAI, text: str, **kwargs: object) -> object:
    model = client.models.list().data[0].id
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **kwargs)  # type: ignore[call-overload]


def test_chat_logprobs_name_each_token_and_its_rivals(fake: openai.OpenAI) -> None:
    (choice,) = chat(fake, "둘 one", logprobs=True, top_logprobs=2).choices
    first, second = choice.logprobs.content
    assert (first.token, first.logprob, bytes(first.bytes)) == ("one", HALF, b"one")
    assert (second.token, bytes(second.bytes).decode()) == (" 둘", " 둘")
    assert [(other.token, round(math.exp(other.logprob), 3)) for other in first.top_logprobs] == [("one", 0.5), ("?", 0.125)]
    assert chat(fake, "one").choices[0].logprobs is None


def test_chat_logprobs_are_streamed_with_their_tokens(fake: openai.OpenAI) -> None:
    events = list(chat(fake, "two one", logprobs=True, stream=True))
    told = [token.token for event in events if event.choices[0].logprobs for token in event.choices[0].logprobs.content]
    assert told == ["one", " two"]


def test_an_answer_without_a_token_has_an_empty_list_of_the_logprobs_that_were_asked_for(start: Start, sdk: Sdk) -> None:
    class Silent(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            usage = Usage(prompt_tokens=1, completion_tokens=0, prefill_seconds=0.0, decode_seconds=0.0)
            yield Chunk(text="", finish_reason="stop", usage=usage)

    client = sdk(start(Responder("silent", Silent())))
    (choice,) = chat(client, "hi", logprobs=True).choices
    assert (choice.logprobs.content, choice.message.content) == ([], "")
    assert [event.choices[0].logprobs.content for event in chat(client, "hi", logprobs=True, stream=True)] == [[], []]
    assert [event.choices[0].logprobs for event in chat(client, "hi", stream=True)] == [None, None]

    def completed(**kwargs: object) -> Any:
        return client.completions.create(model="silent", prompt="hi", **kwargs)  # type: ignore[call-overload]

    for reply in (completed(logprobs=0), *completed(logprobs=0, stream=True)):
        told = reply.choices[0].logprobs
        assert (told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset) == ([], [], [], [])
    assert completed().choices[0].logprobs is None

    asked: Any = {"model": "silent", "input": "hi", "include": ["message.output_text.logprobs"]}
    *_, last = client.responses.create(**asked, stream=True)
    for response in (client.responses.create(**asked), last.response):
        assert response.output[0].content[0].logprobs == []


def test_several_answers_to_one_question_whole_and_streamed(tiny: openai.OpenAI) -> None:
    """Three answers of ten tokens, each one of 264 at a high temperature: two agree by chance less than once in a million."""
    settings = {"n": 3, "seed": 1, "temperature": 1.8, "max_tokens": 10}
    reply = chat(tiny, "hello", **settings)
    texts = [choice.message.content for choice in reply.choices]
    assert [choice.index for choice in reply.choices] == [0, 1, 2] and len(set(texts)) == 3
    assert reply.usage.completion_tokens > reply.usage.prompt_tokens / 3
    pieces = ["", "", ""]
    reasons = []
    for event in chat(tiny, "hello", stream=True, stream_options={"include_usage": True}, **settings):
        for choice in event.choices:
            pieces[choice.index] += choice.delta.content or ""
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert pieces == texts and len(reasons) == 3 and event.usage.prompt_tokens == reply.usage.prompt_tokens


def test_a_schema_is_followed_whole_and_streamed(tiny: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    text = chat(tiny, "who?", response_format=wanted, max_tokens=100, seed=1).choices[0].message.content
    jsonschema.validate(json.loads(text), SCHEMA)
    streamed = "".join(event.choices[0].delta.content or "" for event in
                       chat(tiny, "who?", response_format=wanted, max_tokens=100, seed=1, stream=True))  # fmt: skip
    assert streamed == text
    assert chat(tiny, "who?", response_format={"type": "json_object"}, max_tokens=40).choices[0].message.content.startswith("{")
    huggingfaces = {"type": "json_object", "value": SCHEMA}
    assert chat(tiny, "who?", response_format=huggingfaces, max_tokens=100, seed=1).choices[0].message.content == text


TOOL = {"type": "function", "function": {"name": "note", "parameters": SCHEMA}}
TWO_TOOLS = [TOOL, {"type": "function", "function": {"name": "clock"}}]
READS_TOOLS = TEMPLATE.replace(
    "{{ m['content'] }}", "{{ m['content'] }}{{ m.tool_calls | length if m.tool_calls }}{{ tools | length }}"
)


@pytest.fixture
def tiny_with_tools(tmp_path: Path, start: Start, sdk: Sdk) -> Iterator[openai.OpenAI]:
    """A real engine of random weights, whose template says little of tools: its context is short."""
    engine = LocalEngine(importer.import_gguf(write_tiny_gguf(tmp_path / "t.gguf", template=READS_TOOLS)))
    yield sdk(start(Responder("tiny", engine)))
    engine.close()


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "note"}}])
def test_an_answer_that_has_to_call_is_a_call_with_its_arguments_whole_and_streamed(
    tiny_with_tools: openai.OpenAI, choice: Any
) -> None:
    settings = {"tools": [TOOL] if choice == "required" else TWO_TOOLS, "tool_choice": choice, "max_tokens": 120, "n": 3, "seed": 5}
    reply = chat(tiny_with_tools, "hello", **settings)
    for one in reply.choices:
        (call,) = one.message.tool_calls
        assert (one.finish_reason, one.message.content, call.type, call.function.name) == ("tool_calls", None, "function", "note")
        jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    events = [event.choices[0] for event in chat(tiny_with_tools, "hello", stream=True, **settings)]
    streamed = {event.index: event.delta.tool_calls[0].function.arguments for event in events if event.delta.tool_calls}
    assert [streamed[at] for at in range(3)] == [one.message.tool_calls[0].function.arguments for one in reply.choices]
    assert all(event.delta.content is None for event in events)  # the AI SDK keeps an empty text before a call
    assert [event.finish_reason for event in events if event.finish_reason] == ["tool_calls"] * 3


def test_what_was_read_of_a_conversation_stays_whichever_tools_are_allowed(tiny_with_tools: openai.OpenAI) -> None:
    """The template tells of tools before the question."""
    turns: Any = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hello " * 40}]

    def usage_with(choice: Any) -> tuple[int, int]:
        asked = {"model": "tiny", "messages": turns, "tools": TWO_TOOLS, "tool_choice": choice, "max_tokens": 1}
        usage = tiny_with_tools.chat.completions.create(**asked).usage
        return usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens

    prompt_tokens, _ = usage_with("auto")
    _, cached = usage_with("auto")
    assert cached > 0
    allowed = [{"type": "function", "function": {"name": "note"}}]
    for mode in ("auto", "required"):
        told, kept = usage_with({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}})
        assert (told >= prompt_tokens, kept) == (True, cached)


class Writing(ToolCallGrammar):
    """Of a model that begins a call, and then writes whatever it may."""

    words = "Now:<tool_call>"

    def __init__(self, request: Request, prompt: Sequence[int], tokenizer: Tokenizer, grammars: Grammars) -> None:
        super().__init__(request, prompt, tokenizer, grammars)
        self._begins = tokenizer.encode(self.words)

    @property
    def holds(self) -> bool:
        return bool(self._begins) or super().holds

    def forbid(self, logits_V: np.ndarray) -> None:
        super().forbid(logits_V)
        if self._begins:
            logits_V[np.arange(len(logits_V)) != self._begins[0]] = -np.inf

    def accept(self, token: int) -> None:
        self._begins = self._begins[1:]
        super().accept(token)


@pytest.mark.parametrize(("words", "said"), [("Now:<tool_call>", "Now:"), ('{"name": "note', "")])
def test_a_call_that_a_model_begins_by_itself_has_arguments_of_its_function_however_it_is_asked(
    tiny_with_tools: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    """And whatever it writes behind it."""
    monkeypatch.setattr(local, "ToolCallGrammar", Writing)
    monkeypatch.setattr(Writing, "words", words)
    settings: dict[str, Any] = {"tools": [TOOL], "seed": 5, "max_tokens": 180}
    (whole,) = chat(tiny_with_tools, "hello", **settings).choices
    (call,) = whole.message.tool_calls
    assert (whole.message.content or "", call.function.name) == (said, "note")
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    events = [event.choices[0].delta for event in chat(tiny_with_tools, "hello", stream=True, **settings)]
    assert "".join(event.content or "" for event in events) == said
    ((streamed,),) = [event.tool_calls for event in events if event.tool_calls]
    assert streamed.function.arguments == call.function.arguments
    function: Any = {"type": "function", **TOOL["function"]}
    reply = tiny_with_tools.responses.create(model="tiny", input="hello", max_output_tokens=180, temperature=0, tools=[function])
    jsonschema.validate(json.loads(reply.output[-1].arguments), SCHEMA)
    (cut,) = chat(tiny_with_tools, "hello", **settings | {"max_tokens": 25}).choices
    assert (cut.finish_reason, cut.message.tool_calls) == ("length", None) and cut.message.content.startswith(words)


def test_a_call_that_is_cut_is_text(tiny_with_tools: openai.OpenAI) -> None:
    (choice,) = chat(tiny_with_tools, "hello", tools=[TOOL], tool_choice="required", max_tokens=12).choices
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None) and choice.message.content.startswith('{"name"')


def test_a_functions_schema_that_cannot_be_followed_is_a_400(tiny_with_tools: openai.OpenAI) -> None:
    strange = {"type": "function", "function": {"name": "f", "parameters": {"type": "array", "uniqueItems": True}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    asked: list[tuple[dict[str, Any], bool]] = [
        ({"tool_choice": "required"}, True), ({"response_format": form}, True), ({"response_format": wrong}, False),
        ({"response_format": wrong, "tool_choice": "required"}, True),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, True),
    ]  # fmt: skip
    for settings, is_functions in asked:
        with pytest.raises(openai.BadRequestError) as caught:
            chat(tiny_with_tools, "who?", tools=[*TWO_TOOLS, strange], **settings)
        assert caught.value.code == "unsupported"
        assert caught.value.param == ("tools.2.function.parameters" if is_functions else "response_format")
        assert caught.value.body["message"].startswith("the function `f`: " * is_functions + "this JSON schema cannot be followed")
    allowed = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]},
    }
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(tiny_with_tools, "who?", tools=[*TWO_TOOLS, strange], tool_choice=allowed, stream=stream)
        assert caught.value.param == "tools.2.function.parameters"
    only = {"type": "function", "function": {"name": "note"}}
    assert chat(tiny_with_tools, "who?", tools=[TOOL, strange], tool_choice=only, max_tokens=120).choices[0].message.tool_calls


def test_a_call_that_has_to_be_one_is_not_ended_by_a_stop_string(tiny_with_tools: openai.OpenAI) -> None:
    (choice,) = chat(tiny_with_tools, "hello", tools=[TOOL], tool_choice="required", max_tokens=120, stop=["}", ":"]).choices
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls


@pytest.mark.data
def test_a_real_model_calls_a_tool_that_the_question_is_for(qwen_coder_gguf: Path, start: Start, sdk: Sdk) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
    weather = {
        "type": "function",
        "function": {"name": "get_weather", "description": "The weather in a city", "parameters": parameters},
    }
    clock = {"type": "function", "function": {"name": "clock", "description": "The time of day"}}
    engine = LocalEngine(importer.import_gguf(qwen_coder_gguf))
    client = sdk(start(Responder("qwen", engine)))
    for choice in ("auto", "required"):
        (one,) = chat(client, "What is the weather in Paris?", tools=[weather, clock], tool_choice=choice, temperature=0).choices
        (call,) = one.message.tool_calls
        assert (one.finish_reason, call.function.name, json.loads(call.function.arguments)) == (
            "tool_calls", "get_weather", {"city": "Paris"},
        )  # fmt: skip
    assert chat(client, "Hello!", tools=[weather, clock], temperature=0, max_tokens=30).choices[0].message.content
    engine.close()


def test_a_conversation_with_a_tool_goes_round_as_openais_client_keeps_it(start: Start, sdk: Sdk) -> None:
    """The engine's answers are scripted; what it is asked is what a client sent."""
    said = iter(['Let me see.\n<tool_call>\n{"name": "note", "arguments": {"name": "Emma", "old": true}}\n</tool_call>', "Done."])
    usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)

    class Engine(ScriptedEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            return tool_calls.recognised(super().generate(request), request)  # type: ignore[arg-type]

    engine = Engine(lambda: iter([Chunk(text=next(said)), Chunk(text="", finish_reason="stop", usage=usage)]))
    client = sdk(start(Responder("m", engine)))
    turns: list[Any] = [{"role": "user", "content": "Note Emma"}]
    with client.chat.completions.stream(model="m", messages=turns, tools=TWO_TOOLS) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    assert "tool_calls.function.arguments.done" in kinds and message.content.strip() == "Let me see."
    turns += [message.model_dump(exclude_none=True, exclude={"parsed"}), {"role": "tool", "tool_call_id": call.id, "content": "ok"}]
    last = client.chat.completions.create(model="m", messages=turns, tools=TWO_TOOLS).choices[0]
    assert (last.finish_reason, last.message.content, last.message.tool_calls) == ("stop", "Done.", None)
    calling, result = engine.asked[1].messages[1:]
    assert isinstance(calling, CallingTurn) and isinstance(result, ToolResult) and result.call_id == calling.calls[0].id == call.id
    assert json.loads(calling.calls[0].arguments) == {"name": "Emma", "old": True}


def test_a_schema_that_cannot_be_followed_is_a_400(tiny: openai.OpenAI) -> None:
    for schema, code in (({"type": "nothing"}, None), ({"type": "array", "uniqueItems": True}, "unsupported")):
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match="this JSON schema cannot be followed") as caught:
            chat(tiny, "who?", response_format=wanted)
        assert (caught.value.param, caught.value.code) == ("response_format", code)


def test_settings_of_other_servers_are_taken_from_the_extra_body(tiny: openai.OpenAI) -> None:
    plain = chat(tiny, "hello", max_tokens=20, temperature=0).choices[0].message.content
    other = chat(tiny, "hello", max_tokens=20, temperature=0, extra_body={"repetition_penalty": 5.0}).choices[0].message.content
    same = chat(tiny, "hello", max_tokens=20, temperature=1.5, seed=2, extra_body={"min_p": 1.0}).choices[0].message.content
    assert plain == same != other


def test_variables_of_the_chat_template_change_the_prompt_and_those_it_does_not_read_are_told_in_a_header(
    tmp_path: Path, start: Start, sdk: Sdk
) -> None:
    template = TEMPLATE.replace("{% for", "{% if enable_thinking is defined %}xxxxxxxxx{% endif %}{% for", 1)
    engine = LocalEngine(importer.import_gguf(write_tiny_gguf(tmp_path / "t.gguf", template=template)))
    client = sdk(start(Responder("tiny", engine)))
    told = [
        client.chat.completions.with_raw_response.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=1, stream=stream, **settings
        )
        for stream in (False, True)
        for settings in ({}, {"reasoning_effort": "none"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": 0, "x": 1}}})
    ]
    sizes = [reply.parse().usage.prompt_tokens for reply in told[:3]]
    assert [size - sizes[0] for size in sizes] == [0, 9, 9]
    assert [reply.headers.get("x-nomoat-notes") for reply in told] == [
        None, None, "the model's chat template does not read `x`",
    ] * 2  # fmt: skip
    engine.close()


@pytest.mark.parametrize(("call", "field"), [("chat/completions", "messages"), ("responses", "input")])
def test_a_model_here_answers_whatever_the_verbosity_and_says_that_it_is_not_told(tiny: openai.OpenAI, call: str, field: str) -> None:
    replies = []
    for verbosity in ("medium", "low"):
        told = {"verbosity": verbosity} if field == "messages" else {"text": {"verbosity": verbosity}}
        asked = {"model": "tiny", field: [{"role": "user", "content": "hello"}], **told}
        replies.append(httpx.post(f"{tiny.base_url}{call}", json=asked, timeout=PATIENCE_SECONDS))
    assert [reply.status_code for reply in replies] == [200, 200]
    said = [reply.headers.get("x-nomoat-notes", "") for reply in replies]
    assert ["verbosity" in one for one in said] == [False, True]


def test_a_chat_with_a_model_without_template_is_refused_in_words_for_clients(tmp_path: Path, start: Start) -> None:
    """What `nomoat run` may be told, or the server's command line, is nothing that its clients can do."""
    path = write_tiny_gguf(tmp_path / "base.gguf", template=None)
    url = start(from_references([str(path)]))
    for call, said in {"chat/completions": {"messages": [{"role": "user", "content": "hi"}]}, "responses": {"input": "hi"}}.items():
        answer = httpx.post(f"{url}/{call}", json=said, timeout=PATIENCE_SECONDS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported")
        assert answer.json()["error"]["message"] == (
            "this model has no chat template: it completes texts, it does not chat; use `POST /v1/completions`, or another model"
        )


def test_a_chat_that_a_model_would_refuse_unloads_no_other_for_it(tmp_path: Path, start: Start) -> None:
    """But with functions, for which there may be another template."""
    chat, base = write_tiny_gguf(tmp_path / "chat.gguf"), write_tiny_gguf(tmp_path / "base.gguf", template=None)
    budget = memory_need(open_source(chat), None).total_bytes
    models = from_references([str(chat), str(base)], memory_bytes=budget + 1000)
    url = start(models)
    said = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

    def ask(model: str, **more: object) -> int:
        return httpx.post(f"{url}/chat/completions", json={"model": model, **said, **more}, timeout=PATIENCE_SECONDS).status_code

    assert [ask("chat.gguf"), ask("base.gguf"), ask("base.gguf", stream=True)] == [200, 400, 400]
    assert [*models.loaded()] == ["chat.gguf"]
    functions = [{"type": "function", "function": {"name": "f"}}]
    assert ask("base.gguf", tools=functions) == 400
    assert [*models.loaded()] == ["base.gguf"]
    assert ask("base.gguf") == 400


def test_echo_tells_what_the_prompts_tokens_are_worth(fake: openai.OpenAI) -> None:
    (choice,) = fake.completions.create(model="fake", prompt="c b a", echo=True, logprobs=1, max_tokens=1).choices
    assert choice.text == "c b aa"
    assert choice.logprobs.tokens == ["c", " b", " a", "a"]
    assert choice.logprobs.token_logprobs == [None, HALF, HALF, HALF]
    assert choice.logprobs.top_logprobs[0] is None and choice.logprobs.top_logprobs[1] == {" b": HALF}
    assert choice.logprobs.text_offset == [0, 1, 3, 5]
    (choice,) = fake.completions.create(model="fake", prompt="c b a", echo=True, max_tokens=0).choices
    assert (choice.text, choice.logprobs) == ("c b a", None)


def test_usage_of_several_prompts_is_the_same_whole_and_streamed(fake: openai.OpenAI) -> None:
    asked = {"model": "fake", "prompt": ["a", "a", "a b c"], "n": 2, "max_tokens": 1}
    assert fake.completions.create(**asked).usage.prompt_tokens == 5
    *_, last = fake.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage.prompt_tokens, last.usage.completion_tokens) == ([], 5, 6)


GAP = {"model": "m", "prompt": "the", "suffix": "hello", "max_tokens": 8, "temperature": 0}


@pytest.fixture
def gap(tmp_path: Path, start: Start, sdk: Sdk) -> Iterator[tuple[openai.OpenAI, LocalEngine]]:
    """A model of random weights that has Qwen2.5-Coder's tokens to fill in the middle of a text."""
    engine = LocalEngine(importer.import_gguf(write_tiny_gguf(tmp_path / "t.gguf", marks=infill.NAMES[0])))
    yield sdk(start(Responder("m", engine))), engine
    engine.close()


def test_the_middle_of_a_text_is_filled_in_by_the_models_own_tokens(gap: tuple[openai.OpenAI, LocalEngine]) -> None:
    client, engine = gap
    ids = engine.tokenizer.infill_ids("the", "hello")
    answer = client.completions.create(**GAP)
    assert answer.usage.prompt_tokens == len(ids)
    text = client.completions.create(**{**GAP, "prompt": ids, "suffix": None}).choices[0].text
    assert answer.choices[0].text == text
    assert "".join(chunk.choices[0].text for chunk in client.completions.create(**GAP, stream=True)) == text
    assert [one.text for one in client.completions.create(**{**GAP, "prompt": ["", "the"]}, n=2).choices[2:]] == [text] * 2
    assert len(client.completions.create(**GAP, logprobs=2).choices[0].logprobs.tokens) == 8
    at = next(at for at in range(1, len(text)) if text[at] not in text[:at])
    (stopped,) = client.completions.create(**GAP, stop=[text[at]]).choices
    assert (stopped.text, stopped.finish_reason) == (text[:at], "stop")
    korean = client.completions.create(**{**GAP, "prompt": "# 합계를 ", "suffix": "\n# 끝 <|fim_middle|>"})
    assert korean.usage.prompt_tokens == len(engine.tokenizer.infill_ids("# 합계를 ", "\n# 끝 <|fim_middle|>"))


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_a_model_without_such_tokens_for_a_middle_is_told(tiny: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tiny.completions.create(**{**GAP, "model": "tiny"}, stream=stream)
    assert (caught.value.param, caught.value.code) == ("suffix", "unsupported")
    what = "`suffix`: `tiny` has no tokens to fill in the middle of a text; ask a model of code that has them, such as Qwen2.5-Coder"
    assert caught.value.body["message"] == what  # type: ignore[index]
    assert tiny.completions.create(**{**GAP, "model": "tiny", "suffix": ""}).choices[0].text


def test_likelihoods_as_an_evaluation_harness_asks_for_them(tiny: openai.OpenAI, tiny_gguf: Path) -> None:
    """Token ids in, `echo`, one token more, the likeliest rival of each: what lm-evaluation-harness sends and reads."""
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    texts = ["the hello he", "hello the world"]
    rows = [engine.tokenizer.encode(text) for text in texts]
    reply = tiny.completions.create(model="tiny", prompt=rows, echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234)
    assert reply.usage.prompt_tokens_details.cached_tokens == reply.usage.prompt_tokens, "each is read once"
    for text, row, choice in zip(texts, rows, sorted(reply.choices, key=lambda one: one.index), strict=True):
        told = choice.logprobs
        assert len(told.token_logprobs) == len(row) + 1 and choice.text.startswith(text)
        assert told.token_logprobs[-1] == max(told.top_logprobs[-1].values())  # what greedy takes is the likeliest
        assert all(value <= max(top.values()) for value, top in zip(told.token_logprobs[1:], told.top_logprobs[1:], strict=True))
    engine.close()


@pytest.mark.parametrize("echo", [True, False])
def test_an_answer_that_ends_at_once_tells_of_the_token_that_ended_it(echo: bool, tiny_gguf: Path, start: Start, sdk: Sdk) -> None:
    """A harness leaves out the last likelihood, which is not the prompt's; without this it left out the prompt's last one."""
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    (first,) = (pick.token_id for chunk in engine.generate(ONE_TOKEN) for pick in chunk.likelihoods)
    client = sdk(start(Responder("tiny", engine)))
    asked = {"model": "tiny", "prompt": ONE_TOKEN.prompt, "echo": echo, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    (going_on,) = client.completions.create(**asked).choices
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=(first,))
    (ended,) = client.completions.create(**asked).choices
    streamed = [event.choices[0] for event in client.completions.create(**asked, stream=True)]
    assert (going_on.finish_reason, ended.finish_reason, ended.text) == ("length", "stop", ONE_TOKEN.prompt if echo else "")
    assert ended.logprobs == going_on.logprobs
    assert [value for choice in streamed for value in choice.logprobs.token_logprobs] == ended.logprobs.token_logprobs
    told = chat(client, "hello", logprobs=True, max_tokens=1, temperature=0).choices[0].logprobs
    engine.tokenizer.special = replace(engine.tokenizer.special, stop_ids=tuple(range(300)))
    assert chat(client, "hello", logprobs=True, max_tokens=1).choices[0].logprobs.content == [] != told.content  # as OpenAI's chats
    engine.close()


def test_embeddings_come_in_both_encodings_with_length_one(tiny: openai.OpenAI) -> None:
    """The SDK asks for base64 by itself and decodes it."""
    texts = ["the hello", "world", "안녕"]
    by_default = [row.embedding for row in tiny.embeddings.create(model="tiny", input=texts).data]
    as_floats = tiny.embeddings.create(model="tiny", input=texts, encoding_format="float")
    np.testing.assert_allclose(by_default, [row.embedding for row in as_floats.data], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(by_default, axis=1), 1, atol=1e-5)
    assert [row.index for row in as_floats.data] == [0, 1, 2] and len(by_default[0]) == 64
    assert as_floats.usage.prompt_tokens == as_floats.usage.total_tokens > 3
    (alone,) = tiny.embeddings.create(model="tiny", input="world").data
    np.testing.assert_allclose(alone.embedding, by_default[1], atol=1e-3)


def test_texts_embedded_as_the_models_tokens_are_those_embedded_as_texts(tiny: openai.OpenAI, tiny_gguf: Path) -> None:
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    texts = ["the hello", "안녕"]
    rows = [engine.tokenizer.encode(text, add_bos=True) for text in texts]
    engine.close()
    by_text, by_tokens = (tiny.embeddings.create(model="tiny", input=given) for given in (texts, rows))
    np.testing.assert_allclose([row.embedding for row in by_tokens.data], [row.embedding for row in by_text.data], atol=1e-3)
    assert by_tokens.usage == by_text.usage
    (alone,) = tiny.embeddings.create(model="tiny", input=rows[0]).data
    np.testing.assert_allclose(alone.embedding, by_text.data[0].embedding, atol=1e-3)
    with pytest.raises(
        openai.BadRequestError, match=r"token 99999 is not one of this model's 264; send text, or this model's own tokens"
    ) as caught:
        tiny.embeddings.create(model="tiny", input=[[99999]])
    assert caught.value.param == "input" and "`check_embedding_ctx_length=False`" in caught.value.message


def test_of_several_texts_the_one_that_the_model_refuses_is_named(tiny: openai.OpenAI) -> None:
    far = "the hello world " * 200
    for given, field, words in (
        (["a", "b", far], "input.2", "This model's maximum context length is 256 tokens"),
        ([[1], [99999]], "input.1", "token 99999 is not one of this model's 264"),
    ):
        with pytest.raises(openai.BadRequestError, match=f"`{field}`: {words}") as caught:
            tiny.embeddings.create(model="tiny", input=given)  # type: ignore[arg-type]
        assert caught.value.param == field
    with pytest.raises(openai.BadRequestError, match="400 - This model's maximum context length is 256 tokens") as caught:
        tiny.embeddings.create(model="tiny", input=far)
    assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=r"`prompt\.1`: This model's maximum context length") as caught:
            tiny.completions.create(model="tiny", prompt=["a", far], n=2, max_tokens=2, stream=stream)  # type: ignore[call-overload]
        assert (caught.value.param, caught.value.code) == ("prompt.1", "context_length_exceeded")


def test_the_token_that_a_model_has_behind_an_embedded_text_is_counted(tmp_path: Path, start: Start, sdk: Sdk) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf", said={"llama.pooling_type": 3, "tokenizer.ggml.add_eos_token": True})
    engine = LocalEngine(importer.import_gguf(path))
    row = engine.tokenizer.encode("the hello", add_bos=True)
    asked: list[Any] = ["the hello", [*row, 2]]
    one, other = (sdk(start({"m": Responder("m", engine)})).embeddings.create(model="m", input=[each]).usage for each in asked)
    assert one == other and one.prompt_tokens == len(row) + 1
    engine.close()


def test_a_server_that_is_a_fork_has_nothing_against_the_texts(tiny: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_ran_in", {-1})
    asks: list[Callable[[], object]] = [
        lambda: tiny.embeddings.create(model="tiny", input=[[1]]),
        lambda: tiny.completions.create(model="tiny", prompt=["the", "hello"]),
    ]
    for ask in asks:
        with pytest.raises(openai.InternalServerError, match="this process is a fork of one that had asked") as caught:
            ask()
        assert caught.value.param is None and "check_embedding_ctx_length" not in caught.value.message
    monkeypatch.undo()  # for the engine to be closed


def test_model_on_a_server_is_said_to_give_no_embeddings(start: Start, sdk: Sdk) -> None:
    far = Responder("openai:gpt-4o-mini", remote_engine("http://127.0.0.1:9/v1#gpt-4o-mini"))
    with pytest.raises(
        openai.BadRequestError, match="`openai:gpt-4o-mini` gives no embeddings; use a model on this machine"
    ) as caught:
        sdk(start(far)).embeddings.create(model="openai:gpt-4o-mini", input="a")
    assert caught.value.code == "unsupported"
    far.close()


def test_reading_that_nobody_waits_for_any_more_is_given_up(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    read = engine._read
    seen: list[Reading] = []

    def watched(*args: Any, **kwargs: Any) -> list[Reading]:
        seen[:] = read(*args, **kwargs)
        return list(seen)

    monkeypatch.setattr(engine, "_read", watched)
    gone = threading.Event()
    gone.set()
    for ask in (
        lambda: engine.embed(["the hello"] * 50, stop=gone),
        lambda: engine.prompt_likelihoods(Request(prompt="the"), stop=gone),
    ):
        with pytest.raises(NomoatError, match="the reading was stopped"):
            ask()
        assert all(one.cancelled for one in seen) and seen.pop()
    assert engine.embed(["the hello"], stop=threading.Event()).shape == (1, 64)
    engine.close()


def test_embeddings_that_cannot_be_had_are_refused(fake: openai.OpenAI, start: Start, sdk: Sdk) -> None:
    with pytest.raises(openai.BadRequestError, match=r"`input\.1` is empty"):
        fake.embeddings.create(model="fake", input=["a", ""])
    far = Responder("far", _without_weights())
    with pytest.raises(openai.BadRequestError, match="`far` gives no embeddings"):
        sdk(start({"far": far})).embeddings.create(model="far", input="a")


def test_what_cannot_be_meant_of_the_servers_settings_is_no_fault_of_the_texts(start: Start, sdk: Sdk) -> None:
    class Unset(FakeEngine):
        def embed(self, texts: Sequence[str | Sequence[int]], **_: object) -> Never:
            raise SettingError("`NOMOAT_GATEWAYS` cannot be meant", hint="mend it")

    with pytest.raises(openai.InternalServerError) as raised:
        sdk(start({"m": Responder("m", Unset())})).embeddings.create(model="m", input="a")
    assert (raised.value.status_code, raised.value.code) == (503, "bad_setting")


def test_dimensions_that_a_model_has_not_are_refused_before_a_text_is_read(
    start: Start, sdk: Sdk, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | Sequence[int]] = []
    embed = FakeEngine.embed
    monkeypatch.setattr(FakeEngine, "embed", lambda self, texts, **told: read.extend(texts) or embed(self, texts, **told))
    client = sdk(start({"fake": Responder("fake", FakeEngine())}))
    with pytest.raises(openai.BadRequestError, match="`dimensions` can only be 9 for this model"):
        client.embeddings.create(model="fake", input=["a", "b"], dimensions=8)
    assert read == []
    assert len(client.embeddings.create(model="fake", input=["a", "b"], dimensions=9).data[1].embedding) == 9
    assert read == ["a", "b"]


def _without_weights() -> FakeEngine:
    class Far:
        is_local, context_tokens, digest = False, None, "far"

        def count_tokens(self, request: object) -> int:
            return 1

    return Far()  # type: ignore[return-value]


def test_a_model_tuned_on_a_table_tells_its_question_and_which_answers_were_asked_otherwise(start: Start) -> None:
    question = "Which colour?\n\nText: {text}\nLabel:"
    url = start({"t": Responder("t", FakeEngine(), question=question), "plain": Responder("plain", FakeEngine())})
    assert [row["question"] for row in httpx.get(f"{url}/models").json()["data"]] == [question, None]

    def note_on(model: str, text: str) -> str | None:
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        return httpx.post(f"{url}/chat/completions", json=body).headers.get("x-nomoat-notes")

    assert "`t` was tuned on a table, and asked in other words than it learned" in (note_on("t", "x") or "")
    assert (note_on("t", question.replace("{text}", "x")), note_on("plain", "x")) == (None, None)


def test_models_are_told_with_their_context_and_licence(fake: openai.OpenAI) -> None:
    (row,) = httpx.get(f"{fake.base_url}models").json()["data"]
    assert (row["id"], row["context_tokens"], row["licence"], row["local"], row["loaded"]) == ("fake", 4096, "unknown", True, True)


def test_a_model_that_was_not_asked_yet_is_told_with_where_its_prompts_go(start: Start) -> None:
    url = start(from_references(["fake:", "https://llm.example/v1#m"]))
    rows = httpx.get(f"{url}/models").json()["data"]
    assert [(row["id"], row["loaded"], row["local"]) for row in rows] == [
        ("fake:", False, True), ("https://llm.example/v1#m", False, False),
    ]  # fmt: skip
    assert httpx.get(f"{url}/models/fake:").json() == rows[0]


def test_models_are_told_with_whether_they_chat(tmp_path: Path, start: Start) -> None:
    paths = [write_tiny_gguf(tmp_path / f"{name}.gguf", template=template) for name, template in (("base", None), ("chat", TEMPLATE))]
    rows = httpx.get(f"{start(from_references([*map(str, paths), 'fake:']))}/models").json()["data"]
    assert [row["chats"] for row in rows] == [False, True, None]


def test_metrics_count_requests_tokens_and_seconds_and_no_words(fake: openai.OpenAI) -> None:
    chat(fake, "xyzzy two three")
    list(chat(fake, "one two", stream=True))
    fake.embeddings.create(model="fake", input="plugh")
    with pytest.raises(openai.BadRequestError):
        chat(fake, "word " * 5000)
    body = httpx.get(str(fake.base_url).replace("/v1/", "/metrics")).text
    found = dict(re.findall(r"^(nomoat_\w+(?:{[^}]*})?) (\S+)$", body, re.M))
    assert found['nomoat_requests_total{model="fake",outcome="ok"}'] == "3.0"
    assert found['nomoat_requests_total{model="fake",outcome="error"}'] == "1.0"
    assert (found['nomoat_prompt_tokens_total{model="fake"}'], found['nomoat_completion_tokens_total{model="fake"}']) == ("5.0", "5.0")
    assert found['nomoat_answer_seconds_count{model="fake"}'] == "2.0"
    assert (found["nomoat_answers_under_way"], found["nomoat_models_loaded"]) == ("0.0", "1.0")
    assert "xyzzy" not in body and "plugh" not in body


def test_metrics_count_refused_requests_by_their_status(start: Start) -> None:
    """Whoever refuses them: the guard, the router of paths, what reads bodies, the list of models."""
    keyed, url = start(Responder("fake", FakeEngine()), api_key="k"), start(Responder("fake", FakeEngine()))
    chats = f"{url}/chat/completions"
    said = {"messages": [{"role": "user", "content": "hi"}]}
    statuses = [
        httpx.post(chats, json={**said, "model": "nope"}),
        httpx.get(f"{url}/nothing"),
        httpx.get(chats),
        httpx.post(chats, json={**said, "temperature": 9}),
        httpx.post(chats, content=b"x", headers={"content-encoding": "gzip"}),
        httpx.post(chats, content=bytes(3 << 20)),
        httpx.get(f"{url}/models", headers={"host": "evil.example"}),
        httpx.post(chats, json=said),
    ]
    assert [answer.status_code for answer in statuses] == [404, 404, 405, 400, 415, 413, 403, 200]
    body = httpx.get(url.replace("/v1", "/metrics")).text
    counted = dict(re.findall(r'^nomoat_http_errors_total{status="(\d+)"} (\S+)$', body, re.M))
    assert counted == {"404": "2.0", "405": "1.0", "400": "1.0", "415": "1.0", "413": "1.0", "403": "1.0"}
    assert httpx.get(f"{keyed}/models").status_code == 401
    body = httpx.get(keyed.replace("/v1", "/metrics"), headers={"authorization": "Bearer k"}).text
    assert 'nomoat_http_errors_total{status="401"} 1.0' in body


def test_the_others_are_served_while_a_huge_prompt_is_read(tiny: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 150,000 tokens are split in a thread that lets the event loop run: who asks meanwhile is answered before it ends."""
    count_tokens, begun, ended = LocalEngine.count_tokens, threading.Event(), threading.Event()

    def watched(engine: LocalEngine, request: Request) -> int:
        begun.set()
        try:
            return count_tokens(engine, request)
        finally:
            ended.set()

    monkeypatch.setattr(tokenizer, "COUNTED_TEXT", 1 << 30)  # to its end, and not refused by its beginning
    monkeypatch.setattr(LocalEngine, "count_tokens", watched)
    health = str(tiny.base_url).replace("/v1/", "/health")
    num_answered = 0
    with ThreadPoolExecutor(1) as pool, httpx.Client(trust_env=False) as client:
        huge = pool.submit(chat, tiny, "the hello world " * 50_000)
        assert begun.wait(PATIENCE_SECONDS)
        while not ended.is_set():
            client.get(health)
            num_answered += not ended.is_set()
        with pytest.raises(openai.BadRequestError, match="This model's maximum context length is 256 tokens"):
            huge.result()
    assert num_answered >= 3


def test_adapters_of_one_base_are_served_on_one_copy_of_its_weights(tiny_gguf: Path, empty_home: Path, start: Start, sdk: Sdk) -> None:
    for seed, name in enumerate(("spam", "후기")):
        folder = write_adapter(empty_home / "adapters" / name, seed=seed)
        facts = {"licence": licences.as_dict(licences.chain(None))}
        (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    refs = [str(tiny_gguf), f"{tiny_gguf}+spam", f"{tiny_gguf}+후기"]
    models = from_references(refs)
    client = sdk(start(models))
    names = [model.id for model in client.models.list()]
    assert names == ["tiny.gguf", "tiny.gguf+spam", "tiny.gguf+후기"] and models.loaded() == {}

    def ask(name: str) -> str:
        reply = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=12
        )  # fmt: skip
        assert reply.model == name
        return reply.choices[0].message.content or ""

    alone = [ask(name) for name in names]
    assert len(set(alone)) == 3
    engines = {id(one.engine._shared) for one in models.loaded().values()}
    assert len(engines) == 1
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, names * 2)) == alone * 2
    models.close()


def test_a_model_that_cannot_be_loaded_is_an_error_of_its_own_requests_and_the_log_says_why(
    start: Start, sdk: Sdk, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> list[Responder]:
        raise BadFileError("`x.gguf` is damaged", hint="download it again")

    models = Models({"fine": Responder("fine", FakeEngine())}, [Loader(names=("broken",), planned_bytes=1, load=broken)])
    client = sdk(start(models))
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="the server cannot use one of its files; its log says more"):
            client.chat.completions.create(model="broken", messages=[{"role": "user", "content": "a b"}])
        reply = client.chat.completions.create(model="fine", messages=[{"role": "user", "content": "a b"}])
        assert reply.choices[0].message.content == "b a"
    assert [record.getMessage() for record in caplog.records] == ["`x.gguf` is damaged; download it again"] * 2


@pytest.mark.usefixtures("online")
def test_a_key_that_is_gone_when_its_model_is_first_asked_for_is_the_servers_fault_and_its_place_for_the_log(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SettingError) as refused:
        from_references(["fake:", "openai:big"])
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    url = start(from_references(["fake:", "openai:big"]))
    monkeypatch.delenv("OPENAI_API_KEY")
    body = {"model": "openai:big", "messages": [{"role": "user", "content": "a b"}]}
    answer = httpx.post(f"{url}/chat/completions", json=body, headers={"origin": "http://localhost"})
    assert answer.headers["x-should-retry"] == "false" and "x-should-retry" in answer.headers["access-control-expose-headers"]
    assert (answer.status_code, answer.json()["error"]) == (
        503,
        {
            "message": "the server lacks a key, or cannot use one of its settings; its log says more", "type": "server_error",
            "param": None, "code": "bad_setting",
        },
    )  # fmt: skip
    assert [record.getMessage() for record in caplog.records] == [f"{refused.value.message}; {refused.value.hint}"]


def test_metrics_count_what_was_read_and_seconds_from_when_a_request_came(start: Start, sdk: Sdk, tiny_gguf: Path) -> None:
    """The first request loads the model; the second one's prompt is known but for its end."""
    engine = LocalEngine(importer.import_gguf(tiny_gguf))

    def load() -> list[Responder]:
        time.sleep(0.3)
        return [Responder("tiny", engine)]

    url = start(Models(loaders=[Loader(names=("tiny",), planned_bytes=1, load=load)]))
    asked = {"model": "tiny", "prompt": "x" * 160, "max_tokens": 2}
    first, again = (sdk(url).completions.create(**asked).usage for _ in range(2))
    assert [usage.prompt_tokens_details.cached_tokens for usage in (first, again)] == [0, 96]
    body = httpx.get(url.replace("/v1", "/metrics")).text
    found = {name: float(value) for name, value in re.findall(r'^nomoat_(\w+){model="tiny"} (\S+)$', body, re.M)}
    assert (found["prompt_tokens_total"], found["answer_seconds_count"]) == (160 + 64, 2)
    assert 0.3 < found["first_token_seconds_sum"] <= found["answer_seconds_sum"]
