"""OpenAI's JSON: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from nomoat.errors import (
    BadFileError,
    BadRequestError,
    NomoatError,
    NotEnoughDiskError,
    NotWritableError,
    OfflineError,
    PolicyChangedError,
    RedirectedError,
    RemoteError,
    SettingError,
    UnsupportedError,
    UsageError,
)
from nomoat.records import CallingTurn, Chunk, Decision, Message, TokenLikelihood, ToolCall, ToolResult, Usage
from nomoat.serve import replies, responses, served, shapes, wire

HELLO = [{"role": "user", "content": "hello"}]


def parse(**fields: Any) -> wire.Call:
    return wire.parse_chat(json.dumps({"messages": HELLO, **fields}).encode())


def test_bare_chat_has_openais_defaults() -> None:
    call = parse()
    assert call.requests[0].messages == (Message(role="user", content="hello"),)
    assert (call.requests[0].temperature, call.requests[0].top_p, call.requests[0].stop, call.requests[0].seed) == (1.0, 1.0, (), None)
    assert (call.model, call.max_new_tokens, call.stream, call.include_usage) == (None, None, False, False)


def test_content_may_be_a_list_of_text_parts_and_developer_means_system() -> None:
    """The parts are lines: glued, `5` and `900101-1234568` would be another number, which the guard of `auto` does not know."""
    parts = [{"type": "text", "text": "안녕"}, {"type": "text", "text": "!"}]
    call = parse(messages=[{"role": "developer", "content": parts}])
    assert call.requests[0].messages == (Message(role="system", content="안녕\n!"),)


def test_who_speaks_is_kept() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "hi", "name": "alice"},
        {"role": "assistant", "content": "hi", "name": "bot", "tool_calls": [call]},
        {"role": "tool", "content": "1", "name": "f", "tool_call_id": "a"},
        {"role": "user", "content": "so?", "name": None},
    ]
    assert [message.name for message in parse(messages=turns).requests[0].messages] == ["alice", "bot", "f", ""]


def test_verbosity_is_openais() -> None:
    assert (parse(verbosity="low").requests[0].verbosity, parse(verbosity=None).requests[0].verbosity) == ("low", None)
    with pytest.raises(BadRequestError) as caught:
        parse(verbosity="much")
    assert caught.value.param == "verbosity"


def test_what_the_chat_template_is_to_know_is_kept_in_order_and_effort_is_openais() -> None:
    asked = parse(chat_template_kwargs={"b": "한", "a": 1}, reasoning_effort="none").requests[0]
    assert (asked.template_variables, asked.reasoning_effort) == ('{"a": 1, "b": "한"}', "none")
    bare = parse(chat_template_kwargs={}, reasoning_effort=None).requests[0]
    assert (bare.template_variables, bare.reasoning_effort) == ("", None)
    for fields, param in (({"chat_template_kwargs": [1]}, "chat_template_kwargs"), ({"reasoning_effort": "much"}, "reasoning_effort")):
        with pytest.raises(BadRequestError) as caught:
            parse(**fields)
        assert caught.value.param == param
    with pytest.raises(UsageError, match="the template's variable `tools` is set from the conversation itself"):
        parse(chat_template_kwargs={"tools": []})
    with pytest.raises(BadRequestError, match="`chat_template_kwargs` is not supported"):
        wire.parse_text(b'{"prompt": "a", "chat_template_kwargs": {"x": 1}}')


def test_stop_is_one_string_or_several_and_empty_ones_mean_nothing() -> None:
    assert parse(stop="\n").requests[0].stop == ("\n",)
    assert parse(stop=["a", "", "b"]).requests[0].stop == ("a", "b")


def test_top_p_of_nothing_is_taken_as_openai_takes_it() -> None:
    assert parse(top_p=0).requests[0].top_p == 0


def test_negative_seed_becomes_one_an_engine_takes_and_llama_cpps_minus_one_is_none() -> None:
    assert parse(seed=-2).requests[0].seed == 2**63 - 2
    assert parse(seed=-1).requests[0].seed is None
    assert [asked.seed for asked in parse(seed=-1, n=2).requests] == [None, None]


def test_whole_numbers_may_be_written_with_a_point() -> None:
    call = parse(max_tokens=8.0, top_k=40.0, seed=3.0, n=2.0, logprobs=True, top_logprobs=5.0)
    first = call.requests[0]
    assert (call.max_new_tokens, first.top_k, first.seed, call.n, first.top_logprobs) == (8, 40, 3, 2, 5)
    assert wire.parse_text(b'{"prompt": "a", "max_tokens": 0.0, "echo": true, "logprobs": 1.0}').max_new_tokens == 0
    for body in ({"max_tokens": 8.5}, {"max_tokens": True}, {"max_tokens": -3.0}):
        with pytest.raises(BadRequestError, match="`max_tokens`: Input should be"):
            parse(**body)


def test_limits_below_nothing_and_a_top_k_of_minus_one_are_none_as_other_servers_have_it() -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        assert parse(**{name: -1}).max_new_tokens is None and parse(**{name: -1.0}).max_new_tokens is None
    assert wire.parse_text(b'{"prompt": "a", "max_tokens": -1}').max_new_tokens is None
    assert parse(top_k=-1).requests[0].top_k == 0
    with pytest.raises(BadRequestError, match="`top_k`: Input should be greater than or equal to -1"):
        parse(top_k=-2)


def test_what_clients_send_without_effect_is_tolerated() -> None:
    parse(
        user="me", store=False, metadata={}, tools=[], tool_choice="auto", n=1, logprobs=False, presence_penalty=0.0,
        response_format={"type": "text"}, logit_bias=None, unheard_of={"x": 1}, stream=None, stop=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {"50256": -100}), ("modalities", ["audio"]), ("audio", {"voice": "alloy"}),
        ("min_tokens", 5), ("stop_token_ids", [13]),
        ("ignore_eos", True), ("use_beam_search", True), ("continue_final_message", True), ("add_generation_prompt", False),
        ("prompt_logprobs", 0), ("typical_p", 0.5), ("mirostat", 2), ("dry_multiplier", 0.8), ("xtc_probability", 0.5),
        ("bad_words", ["x"]), ("allowed_token_ids", [1]), ("dynatemp_range", 0.5), ("top_n_sigma", 1.0),
        ("truncate_prompt_tokens", 100), ("chat_template", "{{ messages }}"), ("documents", [{"text": "x"}]), ("echo", True),
        ("options", {"temperature": 0}), ("web_search_options", {}), ("samplers", ["top_k"]), ("length_penalty", 1.2),
        ("return_token_ids", True), ("skip_special_tokens", False), ("include_stop_str_in_output", True),
        ("lora", [{"id": 0, "scale": 0.5}]), ("min_keep", 2), ("n_indent", 4), ("t_max_predict_ms", 500),
        ("post_sampling_probs", True), ("return_tokens", True), ("adaptive_target", 0.5), ("reasoning_budget_tokens", 0),
        ("logits_processors", ["x"]), ("logprob_token_ids", [1]), ("return_tokens_as_token_ids", True), ("prompt_embeds", "x"),
        ("repetition_detection", {"max_pattern_size": 8}), ("thinking_token_budget", 10), ("add_special_tokens", True),
        ("stop_regex", "[.]"), ("no_stop_trim", True), ("custom_logit_processor", "x"), ("lora_path", "x"),
        ("return_hidden_states", True),
    ],
)  # fmt: skip
def test_what_would_change_the_answer_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**{field: value})
    assert (caught.value.message, caught.value.param) == (f"`{field}` is not supported", field)


def test_a_gap_is_of_texts_and_the_answer_is_the_middle_alone() -> None:
    def gap(prompt: object = "a", suffix: str | None = "c", **fields: object) -> wire.Call:
        return wire.parse_text(json.dumps({"prompt": prompt, "suffix": suffix, **fields}).encode())

    assert [(one.prompt, one.suffix) for one in gap(["a", ""], n=2).requests] == [("a", "c")] * 2 + [("", "c")] * 2
    assert [gap(suffix=nothing).requests[0].suffix for nothing in ("", None)] == ["", ""]
    assert gap([1, 2], "").requests[0].prompt_ids == (1, 2)
    for prompt in ([1, 2], [[1, 2], [3]], []):
        with pytest.raises(BadRequestError, match=r"^`suffix` goes with a `prompt` of text, not of token ids$"):
            gap(prompt)
    with pytest.raises(BadRequestError, match=r"^`echo` does not go with `suffix`: the answer is what fills in the gap$"):
        gap(echo=True, max_tokens=0)
    with pytest.raises(BadRequestError, match=r"^`prompt` is empty$"):
        gap("", "")


def test_chats_have_no_gap_to_fill_in() -> None:
    with pytest.raises(BadRequestError, match=r"^`suffix` is not supported; `/v1/completions` takes it$"):
        parse(suffix="return c")


@pytest.mark.parametrize(
    ("field", "value", "with_"),
    [
        ("json_schema", {"type": "object"}, ""), ("guided_json", {"type": "object"}, ""), ("structured_outputs", {"json": {}}, ""),
        ("structural_tag", "{}", ""), ("format", "json", ""), ("grammar", 'root ::= "a"', ""), ("guided_grammar", 'root ::= "a"', ""),
        ("ebnf", 'root ::= "a"', ""), ("guided_choice", ["cat", "dog"], " that has an `enum`"),
        ("guided_regex", "[0-9]", " that has a `pattern`, such as `^[0-9]+$`"),
        ("regex", "[0-9]", " that has a `pattern`, such as `^[0-9]+$`"),
    ],
)  # fmt: skip
def test_what_asks_for_a_form_otherwise_is_told_the_way_that_works(field: str, value: object, with_: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**{field: value})
    words = f"`{field}` is not supported; for an answer of a form use `response_format` with a `json_schema`{with_}"
    assert (caught.value.message, caught.value.param, caught.value.code) == (words, field, "unsupported")


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "날씨", "parameters": {"type": "object"}, "strict": True},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def test_functions_are_kept_as_they_were_sent_and_those_that_have_to_be_called_by_their_names() -> None:
    asked = parse(tools=[WEATHER, CLOCK], parallel_tool_calls=False).requests[0]
    assert [json.loads(tool) for tool in asked.tools] == [WEATHER, CLOCK] and "날씨" in asked.tools[0]
    assert (asked.must_call, asked.one_call) == ((), True)
    assert parse(tools=[WEATHER, CLOCK], tool_choice="required").requests[0].must_call == ("weather", "clock")
    one = {"type": "function", "function": {"name": "clock"}}
    assert parse(tools=[WEATHER, CLOCK], tool_choice=one).requests[0].must_call == ("clock",)


@pytest.mark.parametrize(
    ("mode", "may_call", "must_call"), [("auto", ("clock", "add"), ()), ("required", (), ("clock", "add"))]
)  # fmt: skip
def test_beside_allowed_tools_the_others_are_told_and_not_called(
    mode: str, may_call: tuple[str, ...], must_call: tuple[str, ...]
) -> None:
    """As OpenAI's API has it: what was read of the conversation stays."""
    add = {"type": "function", "function": {"name": "add"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [CLOCK, add]}}
    asked = parse(tools=[WEATHER, CLOCK, add], tool_choice=choice).requests[0]
    assert [json.loads(tool) for tool in asked.tools] == [WEATHER, CLOCK, add]
    assert (asked.may_call, asked.must_call) == (may_call, must_call)


def test_a_function_that_is_sent_twice_is_told_once() -> None:
    """As agents do that join two servers' tools. Errors name it by its place among the client's."""
    call = parse(tools=[CLOCK, WEATHER, CLOCK, {"type": "function", "function": {"name": "add"}}], tool_choice="required")
    assert [json.loads(tool)["function"]["name"] for tool in call.requests[0].tools] == ["clock", "weather", "add"]
    assert (call.requests[0].must_call, call.tool_places) == (
        ("clock", "weather", "add"), ("tools.0", "tools.1", "tools.3"),
    )  # fmt: skip


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_two_functions_of_one_name_are_refused(choice: str) -> None:
    other = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
    with pytest.raises(BadRequestError) as caught:
        parse(tools=[WEATHER, CLOCK, other], tool_choice=choice)
    assert (caught.value.message, caught.value.param) == (
        "`tools.2.function.name` is `clock`, the name of another function, `tools.1`; rename one, or leave it out",
        "tools.2.function.name",
    )


def test_no_functions_are_told_where_a_text_is_wanted() -> None:
    for fields in ({"tools": [CLOCK], "tool_choice": "none"}, {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}):
        asked = parse(**fields).requests[0]
        assert (asked.tools, asked.must_call, asked.one_call) == ((), (), False)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "`tools.0.type` is `web_search`; only functions are supported"),
        ({"tools": [CLOCK, {"type": "function"}]}, "tools.1.function", "`tools.1.function` is missing"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", "`tools.0.function.name`: Field required"),
        ({"tool_choice": "required"}, "tool_choice",
         "`tool_choice` is given without `tools`; send the functions in `tools`, or leave `tool_choice` out"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "clok"}}}, "tool_choice",
         "`tool_choice` names `clok`, which is none of the tools: clock"),
        ({"tools": [CLOCK], "tool_choice": {"type": "custom"}}, "tool_choice",
         "`tool_choice` is of type `custom`; `function` and `allowed_tools` are supported"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools",
         "`tool_choice.allowed_tools` is missing"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CLOCK, WEATHER]}}},
         "tool_choice.allowed_tools.tools.1",
         "`tool_choice.allowed_tools.tools.1` names `weather`, which is none of the tools: clock"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "mcp"}]}}},
         "tool_choice.allowed_tools.tools.0.type",
         "`tool_choice.allowed_tools.tools.0.type` is `mcp`; only functions are supported"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [CLOCK]}}},
         "tool_choice.allowed_tools.mode", None),
        ({"tools": [CLOCK], "tool_choice": {"type": "function", "name": "clock"}}, "tool_choice.function",
         "`tool_choice.function` is missing"),
        ({"tools": [CLOCK], "tool_choice": "often"}, "tool_choice", None),
        ({"functions": [{}]}, "functions", "`functions` is not supported; use `tools`"),
        ({"function_call": {"name": "f"}}, "function_call", "`function_call` is not supported; use `tools`"),
        (
            {"repeat_penalty": 1.1},
            "repeat_penalty",
            "`repeat_penalty` is not supported; use `repetition_penalty`, which counts all of prompt and answer",
        ),
        ({"n_probs": 3}, "n_probs", "`n_probs` is not supported; use `logprobs`, in chats with `top_logprobs`"),
        ({"n_cmpl": 2}, "n_cmpl", "`n_cmpl` is not supported; use `n`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_tools_is_named(fields: dict[str, Any], param: str, message: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields)
    assert caught.value.param == param and (message is None or caught.value.message == message)


def test_special_tokens_are_those_of_the_template_in_chats_and_those_of_the_model_elsewhere() -> None:
    wire.parse_text(json.dumps({"prompt": "a", "add_special_tokens": True}).encode())
    with pytest.raises(BadRequestError, match="`add_special_tokens` is not supported"):
        wire.parse_text(json.dumps({"prompt": ["a"], "add_special_tokens": False}).encode())
    for ids in ([1, 2], [[1], [2]]):  # which are sent as they are
        wire.parse_text(json.dumps({"prompt": ids, "add_special_tokens": False}).encode())


def test_prompts_without_a_conversation_have_no_tools() -> None:
    with pytest.raises(BadRequestError, match="`tools` is not supported") as caught:
        wire.parse_text(json.dumps({"prompt": "a", "tool_choice": "required", "tools": [CLOCK]}).encode())
    assert caught.value.param == "tools"


def test_calls_and_what_they_came_to_are_part_of_a_conversation() -> None:
    function = {"name": "weather", "arguments": '{"city": "서울"}'}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "a1", "content": [{"type": "text", "text": "clear"}]},
        {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "서울"}}}]},
    ]
    assert parse(messages=[*HELLO, *turns]).requests[0].messages[1:] == (
        CallingTurn(role="assistant", content="", calls=(ToolCall(id="a1", name="weather", arguments='{"city": "서울"}'),)),
        ToolResult(role="tool", content="clear", call_id="a1"),
        CallingTurn(role="assistant", content="x", calls=(ToolCall(id="", name="clock", arguments='{"zone": "서울"}'),)),
    )


def test_what_a_server_wants_back_with_a_call_is_kept_by_clients_and_taken_from_them() -> None:
    extra = {"google": {"thought_signature": "c2lnbmVk"}}
    sent = {"id": "a1", "type": "function", "function": {"name": "clock", "arguments": "{}"}, "extra_content": extra}
    (turn,) = parse(messages=[{"role": "assistant", "tool_calls": [sent]}]).requests[0].messages
    assert isinstance(turn, CallingTurn)
    usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0, decode_seconds=0)
    whole = replies.WholeReply(text="", finish_reason="stop", usage=usage, calls=turn.calls)
    assert replies.Reply(parse(), "m").whole([whole])["choices"][0]["message"]["tool_calls"] == [sent]


def test_settings_of_other_servers_that_change_nothing_are_tolerated() -> None:
    """As clients of llama.cpp and vLLM send all they know, at rest."""
    parse(
        typical_p=1.0, mirostat=0, dry_multiplier=0.0, xtc_probability=0.0, min_tokens=0, stop_token_ids=[], ignore_eos=False,
        use_beam_search=False, continue_final_message=False, add_generation_prompt=True, guided_json=None, guided_choice=[],
        json_schema={}, logit_bias=[], grammar="", bad_words=[], dynatemp_range=0.0, top_n_sigma=-1.0, structural_tag=None,
        truncate_prompt_tokens=-1, n_predict=-1, echo=False, length_penalty=1.0, skip_special_tokens=True, return_token_ids=False,
        options={}, documents=[], chat_template=None, format="", samplers=[], web_search_options=None, num_ctx=8192,
        regex=None, ebnf="", n_probs=0, min_keep=0, n_indent=0, n_cmpl=1, t_max_predict_ms=-1, adaptive_target=-1.0, lora=[],
        post_sampling_probs=False, return_tokens=False, reasoning_budget_tokens=-1, add_special_tokens=False, no_stop_trim=False,
        return_hidden_states=False, lora_path=None, stop_regex=None,
    )  # fmt: skip
    parse(min_keep=1, t_max_predict_ms=-20, adaptive_target=-0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "`messages`: List should have at least 1 item after validation, not 0"),
        ({"messages": [{"role": "robot", "content": "x"}]},
         "`messages.0.role` is `robot`; known are system, developer, user, assistant, tool"),
        ({"messages": [{"role": "user"}]}, "`messages.0.content` is missing"),
        ({"messages": [{"role": "tool", "tool_call_id": "a1", "content": None}]},
         "`messages.0.content` is null; of a `tool` message it has to be a text, which may be empty"),
        ({"messages": [{"role": "assistant", "content": [{"type": "refusal"}]}]}, "`messages.0.content.0.refusal` is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "`messages.0.content.0.text` is missing"),
        ({"max_tokens": 0}, "`max_tokens`: Input should be greater than or equal to 1"),
        ({"max_tokens": "12"}, "`max_tokens`: Input should be a valid integer"),
        ({"n_predict": 0}, "`n_predict`: Input should be greater than or equal to 1"),
        ({"temperature": -1}, "`temperature`: Input should be greater than or equal to 0"),
        ({"top_p": -0.1}, "`top_p`: Input should be greater than or equal to 0"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_with_what_it_should_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields)
    assert caught.value.message == message


def test_an_assistant_that_said_nothing_or_refused_is_taken() -> None:
    turns = [
        {"role": "assistant", "content": None, "tool_calls": []}, {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I will not."}], "tool_calls": None},
    ]  # fmt: skip
    said = parse(messages=[*HELLO, *turns]).requests[0].messages[1:]
    assert said == tuple(Message(role="assistant", content=text) for text in ("", "No.", "I will not."))


@pytest.mark.parametrize(
    ("turn", "param", "message"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:"}}]},
         "messages.1.content", "`messages.1.content` holds a part of type `image_url`; only text is supported"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
         "messages.1.function_call", "`messages.1.function_call` is not supported; use `tool_calls`"),
        ({"role": "user", "content": "a", "images": ["iVBO"]},
         "messages.1.images", "`messages.1.images` is not supported; nomoat reads text alone"),
        ({"role": "assistant", "content": "a", "audio": {"id": "audio_1"}},
         "messages.1.audio", "`messages.1.audio` is not supported; nomoat reads text alone"),
        ({"role": "function", "name": "f", "content": "4"},
         "messages.1.role", "`messages.1.role` is `function`, which is not supported; use `tool`"),
    ],
)  # fmt: skip
def test_images_and_calls_of_the_older_form_are_refused_as_unsupported(turn: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(messages=[*HELLO, turn])
    assert (caught.value.message, caught.value.param, caught.value.code) == (message, param, "unsupported")


def test_what_clients_of_other_chats_say_is_told_the_way_that_works() -> None:
    for field, value, more in (
        ("think", False, "; use `reasoning_effort`"), ("thinking", {"type": "disabled"}, "; use `reasoning_effort`"),
        ("reasoning", {"effort": "low"}, "; use `reasoning_effort`"), ("template", "{{ .Prompt }}", ""), ("raw", True, ""),
        ("system", "Be.", "; put it before the others as a message of the role `system`"),
    ):  # fmt: skip
        with pytest.raises(BadRequestError) as caught:
            parse(**{field: value})
        assert (caught.value.message, caught.value.code) == (f"`{field}` is not supported{more}", "unsupported")
        with pytest.raises(BadRequestError) as caught:
            wire.parse_text(json.dumps({"prompt": "a", field: value}).encode())
        assert caught.value.message == f"`{field}` is not supported"
        assert wire.parse_embeddings(json.dumps({"input": "a", field: value}).encode()).texts == ("a",)
    parse(system="", raw=False, template="", think=None, adapters=[])
    parse(messages=[{**HELLO[0], "images": [], "audio": None}])


def test_embeddings_take_texts_or_tokens_as_text_completions_do() -> None:
    for given, texts in (("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1, 2], [3]], ((1, 2), (3,)))):
        assert wire.parse_embeddings(json.dumps({"input": given}).encode()).texts == texts
    for empty, param in (([], "input"), ("", "input"), ([[]], "input"), ([[1], []], "input.1"), (["a", "", ""], "input.1")):
        with pytest.raises(BadRequestError, match=f"^`{param}` is empty$") as raised:
            wire.parse_embeddings(json.dumps({"input": empty}).encode())
        assert raised.value.param == param


def test_as_many_texts_are_embedded_at_once_as_openai_takes() -> None:
    assert len(wire.parse_embeddings(json.dumps({"input": ["a"] * 2048}).encode()).texts) == 2048
    with pytest.raises(BadRequestError, match="`input` holds 2,049 texts; send at most 2,048"):
        wire.parse_embeddings(json.dumps({"input": [[1]] * 2049}).encode())


def test_an_embedding_of_zeros_stays_one() -> None:
    """NaN would be no JSON."""
    vectors = np.array([[0, 0], [3, 4]], np.float32)
    body = replies.render_embeddings(wire.parse_embeddings(b'{"input": ["a", "b"]}'), "m", vectors, 2)
    assert [row["embedding"] for row in body["data"]] == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)]]


def test_the_mark_that_windows_puts_before_a_text_is_no_part_of_the_json() -> None:
    body = b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "hello"}]}'
    assert wire.parse_chat(body) == parse()


@pytest.mark.parametrize(
    ("parse_body", "body"),
    [
        (wire.parse_chat, rb'{"messages": [{"role": "user", "content": "a\ud83d b"}]}'),
        (wire.parse_embeddings, rb'{"input": ["fine", "\ud83d\udc4b", "\uc778\ud83d"]}'),
        (responses.parse, rb'{"input": "\ud83d"}'),
    ],
)
def test_half_of_a_character_is_refused_with_its_place(parse_body: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(BadRequestError, match=r"the body is no JSON object: .* hex escape at line 1 column \d+$"):
        parse_body(body)


def test_text_completion_takes_prompts_as_text_or_tokens_and_sixteen_tokens_by_default() -> None:
    call = wire.parse_text(b'{"prompt": ["once"]}')
    assert (call.requests[0].prompt, call.max_new_tokens, call.echo) == ("once", 16, False)
    assert [asked.prompt for asked in wire.parse_text(b'{"prompt": ["a", "b"]}').requests] == ["a", "b"]
    assert [asked.prompt_ids for asked in wire.parse_text(b'{"prompt": [[1, 2], [3]]}').requests] == [(1, 2), (3,)]
    assert [asked.prompt_ids for asked in wire.parse_text(b'{"prompt": [1, 2]}').requests] == [(1, 2)]
    for body, param in ((b'{"prompt": []}', "prompt"), (b'{"prompt": ["a", ""]}', "prompt.1"), (b'{"prompt": [[]]}', "prompt")):
        with pytest.raises(BadRequestError, match=f"^`{param}` is empty$"):
            wire.parse_text(body)
    with pytest.raises(BadRequestError, match="`max_tokens`: 0 goes with `echo` only"):
        wire.parse_text(b'{"prompt": "a", "max_tokens": 0}')


def test_a_limits_newer_name_counts_in_text_completions_too() -> None:
    assert wire.parse_text(b'{"prompt": "a", "max_completion_tokens": 40}').max_new_tokens == 40
    assert wire.parse_text(b'{"prompt": "a", "max_completion_tokens": 40, "max_tokens": 5}').max_new_tokens == 40
    assert wire.parse_text(b'{"prompt": "a", "max_tokens": 5}').max_new_tokens == 5


def test_llama_cpps_name_for_the_limit_counts_where_openais_are_not_given() -> None:
    def parse_text(**fields: int) -> int | None:
        return wire.parse_text(json.dumps({"prompt": "a", **fields}).encode()).max_new_tokens

    for limit_of in (lambda **fields: parse(**fields).max_new_tokens, parse_text):
        assert limit_of(n_predict=40) == 40
        assert limit_of(n_predict=-1) is None and limit_of(n_predict=-2) is None  # as many as there is room for
        assert limit_of(n_predict=40, max_tokens=5) == limit_of(num_predict=5) == 5 and limit_of(num_predict=-1) is None
        assert limit_of(n_predict=-1, max_completion_tokens=5) == 5


def test_logprobs_mean_what_each_endpoint_means_by_them() -> None:
    assert parse().requests[0].top_logprobs is None
    assert parse(logprobs=False, top_logprobs=0).requests[0].top_logprobs is None
    assert parse(logprobs=True).requests[0].top_logprobs == 0
    assert parse(logprobs=True, top_logprobs=3).requests[0].top_logprobs == 3
    for fields in ({}, {"logprobs": False}):
        with pytest.raises(BadRequestError, match="`top_logprobs` goes with `logprobs`: true only") as caught:
            parse(top_logprobs=3, **fields)
        assert caught.value.param == "top_logprobs"
    assert wire.parse_text(b'{"prompt": "a", "logprobs": 0}').requests[0].top_logprobs == 0
    assert wire.parse_text(b'{"prompt": "a", "logprobs": false}').requests[0].top_logprobs is None


def test_several_answers_get_seeds_of_their_own() -> None:
    """64 seeds at random agree anywhere less than once in a million; the first is the client's own."""
    drawn = [[asked.seed for asked in parse(n=8, seed=seed).requests] for seed in (7, 8, 9, 14, 2**63 - 2, 2**63 - 1, 0, 1)]
    assert len({seed for seeds in drawn for seed in seeds}) == 64
    assert [seeds[0] for seeds in drawn] == [7, 8, 9, 14, 2**63 - 2, 2**63 - 1, 0, 1]
    assert all(0 <= seed < 2**31 for seeds in drawn for seed in seeds[1:])  # as Gemini takes them
    assert [asked.seed for asked in parse(n=3, seed=7).requests] == drawn[0][:3]
    assert [asked.seed for asked in parse(n=2).requests] == [None, None]
    with pytest.raises(BadRequestError, match="`n`: Input should be less than or equal to 1024"):
        parse(n=2000)


def test_as_many_answers_as_are_the_best_of_is_no_choice_among_more() -> None:
    assert len(parse(n=2, best_of=2).requests) == 2
    assert len(wire.parse_text(b'{"prompt": "a", "best_of": 1}').requests) == 1
    for fields, message, code in (
        ({"n": 2, "best_of": 1}, "`best_of` is 1, and `n` is 2; leave `best_of` out", None),
        ({"best_of": 2}, "`best_of` is 2, and `n` is 1; to choose among more answers is not supported", "unsupported"),
    ):
        with pytest.raises(BadRequestError) as caught:
            parse(**fields)
        assert (caught.value.message, caught.value.param, caught.value.code) == (message, "best_of", code)


def test_response_format_becomes_a_schema() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    assert parse(response_format={"type": "json_object"}).requests[0].json_schema == '{"type": "object"}'
    asked = parse(response_format={"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}})
    assert json.loads(asked.requests[0].json_schema or "") == schema
    assert asked.requests[0].schema_mode == "strict"
    assert parse(response_format={"type": "json_object"}).requests[0].schema_mode == "json_object"
    loose = parse(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}).requests[0]
    assert loose.json_schema == asked.requests[0].json_schema and loose.schema_mode is None
    for others in ({"schema": schema}, {"value": schema}, {"json_schema": {"schema": schema}}, {"type": "json", "value": schema}):
        theirs = parse(response_format={"type": "json_object", **others}).requests[0]
        assert theirs.json_schema == asked.requests[0].json_schema and theirs.schema_mode is None
    assert (loose.schema_name, loose.schema_description) == ("x", "")
    told = parse(response_format={"type": "json_schema", "json_schema": {"description": "times in KST", "schema": schema}}).requests[0]
    assert (told.schema_name, told.schema_description) == ("", "times in KST")
    text = parse(response_format={"type": "text", "json_schema": {"name": "x", "description": "y"}}).requests[0]
    assert (text.json_schema, text.schema_mode, text.schema_name, text.schema_description) == (None, None, "", "")
    with pytest.raises(BadRequestError, match=r"`response_format\.json_schema\.schema` is missing"):
        parse(response_format={"type": "json_schema"})


def test_cancelled_answers_end_with_a_reason_clients_know() -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0)
    body = replies.Reply(parse(), "m").whole([replies.WholeReply(text="x", finish_reason="cancelled", usage=usage)])
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_tokens_that_a_server_did_not_count_are_not_said_to_be_none(kind: str) -> None:
    counted = Usage(prompt_tokens=5, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0)
    uncounted = replace(counted, prompt_tokens=0, completion_tokens=0, is_counted=False)
    asked = {"n": 2, "stream": True, "stream_options": {"include_usage": True}}
    call = parse(**asked) if kind == "chat" else wire.parse_text(json.dumps({"prompt": "a", **asked}).encode())
    reply = replies.Reply(call, "m")
    whole = [replies.WholeReply(text="x", finish_reason="stop", usage=usage) for usage in (counted, uncounted)]
    assert "usage" not in reply.whole(whole)
    assert reply.closing({0: counted, 1: uncounted}) == replies.DONE


def test_answers_to_one_prompt_count_it_once() -> None:
    usage = Usage(prompt_tokens=5, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0, cached_tokens=3)
    assert replies.render_usage(usage, usage, usage, usage, each=2) == {
        "prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 6},
    }  # fmt: skip


def test_equal_prompts_count_as_often_as_they_are_sent() -> None:
    usage = Usage(prompt_tokens=5, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0)
    reply = replies.Reply(wire.parse_text(b'{"prompt": ["a", "a"]}'), "m")
    whole = replies.WholeReply(text="x", finish_reason="stop", usage=usage)
    assert reply.whole([whole, whole])["usage"]["prompt_tokens"] == 10


def test_streamed_usage_is_that_of_each_prompt_whichever_answer_ends_first() -> None:
    body = b'{"prompt": ["a", "a b c"], "n": 2, "stream": true, "stream_options": {"include_usage": true}}'
    ended = {
        at: Usage(prompt_tokens=tokens, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
        for at, tokens in ((3, 3), (0, 1), (2, 3), (1, 1))
    }
    event, _, _ = replies.Reply(wire.parse_text(body), "m").closing(ended).partition(b"\n\n")
    usage = json.loads(event.removeprefix(b"data: "))["usage"]
    assert usage == {"prompt_tokens": 4, "completion_tokens": 4, "total_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}}


def test_a_character_of_two_tokens_moves_the_text_on_once_it_is_whole() -> None:
    parts = "한국".encode()
    halves = [parts[:2], parts[2:4], parts[4:], b"!"]
    tokens = tuple(TokenLikelihood(token_id=1, content=half, log_probability=-1.0) for half in halves)
    reply = replies.Reply(wire.parse_text(b'{"prompt": ["a", "b"], "logprobs": 0}'), "m")
    usage = Usage(prompt_tokens=1, completion_tokens=4, prefill_seconds=0.0, decode_seconds=0.0)
    whole = replies.WholeReply(text="한국!", finish_reason="stop", usage=usage, likelihoods=tokens)
    for choice in reply.whole([whole, whole])["choices"]:
        assert choice["logprobs"]["text_offset"] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("parse_body", "body", "param"),
    [
        (wire.parse_chat, {"messages": HELLO, "stop": ["a", 1]}, "stop.1"),
        (wire.parse_chat, {"messages": HELLO, "stop": 1}, "stop"),
        (wire.parse_chat, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        (wire.parse_text, {"prompt": 3}, "prompt"),
        (wire.parse_text, {"prompt": "a", "logprobs": "x"}, "logprobs"),
        (wire.parse_embeddings, {"input": [[1.5]]}, "input.0.0"),
        (wire.parse_embeddings, {"input": ["a", "b", None]}, "input.2"),
        (wire.parse_embeddings, {"input": [1, None]}, "input.1"),
        (wire.parse_embeddings, {"input": [[1, 2], "a"]}, "input.1"),
        (wire.parse_chat, {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
         "response_format.json_schema.schema"),
        (wire.parse_chat, {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": True}}},
         "response_format.json_schema.schema"),
        (wire.parse_chat, {"messages": [{"role": "user", "content": 5, "tool_calls": [{"id": 5}]}]}, "messages.0.content"),
        (wire.parse_chat, {"messages": HELLO, "tool_choice": {"type": 5, "allowed_tools": {"mode": 5}}}, "tool_choice.type"),
    ],
)  # fmt: skip
def test_field_of_several_types_is_named_without_them(parse_body: Callable[[bytes], object], body: object, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_body(json.dumps(body).encode())
    assert caught.value.param == param and caught.value.message.startswith(f"`{param}`: ")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (lambda x: {"tools": [CLOCK, {"type": "function", "function": {"name": "f", "parameters": x}}]},
         "tools.1.function.parameters"),
        (lambda x: {"response_format": {"type": "json_object", "schema": x}}, "response_format.schema"),
        (lambda x: {"response_format": {"type": "json_object", "value": x}}, "response_format.value"),
        (lambda x: {"response_format": {"type": "json_schema", "json_schema": {"schema": x}}}, "response_format.json_schema.schema"),
        (lambda x: {"chat_template_kwargs": x}, "chat_template_kwargs"),
        (lambda x: {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": x}}]}]},
         "messages.0.tool_calls.0.function.arguments"),
    ],
)  # fmt: skip
def test_a_number_that_json_does_not_have_is_refused_where_it_stands(
    fields: Callable[[object], dict[str, Any]], param: str, number: float
) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields({"maximum": number}))
    told = f"`{param}` holds a number that JSON does not have (NaN, Infinity, 1e999)"
    assert (caught.value.message, caught.value.param) == (told, param)


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("param", ["temperature", "top_p", "presence_penalty"])
def test_a_setting_that_is_no_finite_number_is_refused_as_such(param: str, number: float) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**{param: number})
    assert (caught.value.message, caught.value.param) == (f"`{param}`: Input should be a finite number", param)


MANY = 1000


@pytest.mark.parametrize(
    ("parse_body", "body"),
    [
        (wire.parse_chat, {"messages": [1] * MANY}),
        (wire.parse_chat, {"messages": [{"role": "user", "content": [1] * MANY}]}),
        (wire.parse_chat, {"messages": HELLO, "stop": [1] * MANY}),
        *((wire.parse_text, {"prompt": [wrong] * MANY}) for wrong in (1.5, [1.5] * MANY)),
        *((wire.parse_embeddings, {"input": [wrong] * MANY}) for wrong in (1.5, {}, [1.5])),
    ],
)  # fmt: skip
def test_a_list_of_wrong_parts_is_refused_at_the_first(parse_body: Callable[[bytes], object], body: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_body(json.dumps(body).encode())
    assert isinstance(caught.value.__cause__, ValidationError)
    assert caught.value.__cause__.error_count() <= 4  # one for each type the field may be of


def test_all_lists_that_clients_send_are_checked_to_the_first_error_only() -> None:
    def lists(schema: object) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict) and schema.get("type") == "list":
            yield schema
        for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
            yield from lists(part)

    found = [one for shape in shapes.every_shape() for one in lists(shape.__pydantic_core_schema__)]
    assert found
    assert [one for one in found if not one.get("fail_fast")] == []


def test_half_a_character_is_told_as_bytes() -> None:
    half = TokenLikelihood(token_id=1, content="한".encode()[:2], log_probability=-1.0)
    event = replies.Reply(parse(stream=True, logprobs=True), "m").event(Chunk(text="", likelihoods=(half,)))
    (content,) = json.loads(event.removeprefix(b"data: "))["choices"][0]["logprobs"]["content"]
    assert content == {"token": "bytes:\\xed\\x95", "logprob": -1.0, "bytes": [0xED, 0x95], "top_logprobs": []}


@pytest.mark.parametrize("stream", [False, True])
def test_offsets_are_places_in_the_text_whatever_a_model_reads_before_it(stream: bool) -> None:
    """`<s>`, and the space that SentencePiece puts before a text; a character of three tokens is one."""
    usage = Usage(prompt_tokens=6, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
    contents = [b"<s>", b" the", b" ", b"\xed", b"\x95", b"\x9c", b" x", b"!"]
    told = tuple(TokenLikelihood(token_id=1, content=content, log_probability=None) for content in contents)
    chunks = [
        Chunk(text="the 한", likelihoods=told[:6]), Chunk(text=" x", likelihoods=told[6:7]), Chunk(text="!", likelihoods=told[7:]),
        Chunk(text="", finish_reason="stop", usage=usage),
    ]  # fmt: skip
    call = wire.parse_text(json.dumps({"prompt": "the 한", "echo": True, "logprobs": 0, "stream": stream}).encode())
    reply = replies.Reply(call, "m")
    if stream:
        events = b"".join(map(reply.event, chunks)).decode().splitlines()
        choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in events if line]
    else:
        choices = reply.whole([served._joined_chunks("m", chunks, echo=True)])["choices"]
    assert "".join(choice["text"] for choice in choices) == "the 한 x!"
    assert [at for choice in choices if choice["logprobs"] for at in choice["logprobs"]["text_offset"]] == [0, 0, 3, 4, 4, 4, 5, 7]


def test_event_is_one_data_line_whatever_the_text_holds() -> None:
    """Also to clients that cut lines as `str.splitlines` does."""
    said = "a\n\ndata: b\r\v\f\x1c\x1d\x1e\x85\u2028\u2029안"
    line, empty = replies.Reply(parse(stream=True), "m").event(Chunk(text=said)).decode().splitlines()
    assert json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"] == said and not empty


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(RemoteError("x"), 502, "upstream_error"),
     (PolicyChangedError("x", hint=None, status=503, decision=Decision(where="local", model="m", why="y", rule="private")),
      503, "policy_changed"),
     (OfflineError("x"), 403, "offline"),
     (RedirectedError("x"), 502, "upstream_error"), (UnsupportedError("x"), 400, "unsupported"),
     (NomoatError("x"), 500, None)],
)  # fmt: skip
def test_each_kind_of_error_has_its_status(error: NomoatError, status: int, code: str | None) -> None:
    told, body = replies.render_error(error)
    assert (told, body["error"]["code"], body["error"]["message"]) == (status, code, "x")


@pytest.mark.parametrize(
    ("theirs", "code", "status", "kind", "told"),
    [
        (400, "context_length_exceeded", 400, "invalid_request_error", "context_length_exceeded"),
        (413, None, 413, "invalid_request_error", "upstream_error"),
        (422, None, 422, "invalid_request_error", "upstream_error"),
        (429, "insufficient_quota", 429, "rate_limit_error", "insufficient_quota"),
        *((status, "theirs", 502, "server_error", "upstream_error") for status in (401, 403, 404, 408, 500, 503, None)),
    ],
)  # fmt: skip
def test_what_another_server_refuses_is_the_clients_where_it_can_do_something_about_it(
    theirs: int | None, code: str | None, status: int, kind: str, told: str
) -> None:
    answered, body = replies.render_error(RemoteError("x", status=theirs, code=code, param="tools"))
    assert (answered, body["error"]["type"], body["error"]["code"]) == (status, kind, told)
    assert body["error"]["param"] == (None if status == 502 else "tools")


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (NotEnoughDiskError, 507, "disk_full"), (NotWritableError, 500, "not_writable"), (BadFileError, 500, "bad_file"),
        (SettingError, 503, "bad_setting"),
    ],
)  # fmt: skip
def test_folders_of_the_server_are_for_its_log_also_in_a_stream(
    kind: type[NomoatError], status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    told, body = replies.render_error(kind("`/home/kim/.nomoat/runs` is full", hint="free some space"))
    assert (told, body["error"]["code"], body["error"]["type"]) == (status, code, "server_error")
    event = replies.Reply(parse(), "m").failure(kind("`/home/kim/.nomoat/runs` is full", hint="free some space"))
    assert "kim" not in json.dumps(body) and b"kim" not in event
    assert [record.getMessage() for record in caplog.records] == ["`/home/kim/.nomoat/runs` is full; free some space"] * 2
    assert replies.error_headers(kind("x")) == {"x-should-retry": "false"}  # whoever asks again is told the same


def test_an_error_of_a_server_that_was_asked_often_tells_clients_not_to_ask_as_often_again() -> None:
    error = RemoteError("busy", status=503, wait_seconds=1.5)
    assert replies.error_headers(error) == {"retry-after": "2"}
    error.was_asked_often = True
    assert replies.error_headers(error) == {"x-should-retry": "false", "retry-after": "2"}


def test_error_message_is_never_empty() -> None:
    assert replies.render_error(NomoatError(""))[1]["error"]["message"] == "unknown error"
