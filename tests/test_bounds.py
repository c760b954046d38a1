"""What a request's settings can be, and what is taken for what."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nomoat import bounds
from nomoat.errors import SchemaError, UsageError
from nomoat.records import Message, Request
from nomoat.serve import shapes

HI = Message(role="user", content="Say hi")
TOOL = {"type": "function", "function": {"name": "f"}}
OTHER_TOOL = {"type": "function", "function": {"name": "g"}}
WHOLE = "give a whole number (an int)"
DIGITS = "give a whole number of at most 100 digits"
try:
    json.dumps(math.nan, allow_nan=False)
except ValueError as error:
    NO_NUMBER = str(error)  # in this Python's words


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        ({"temperature": -1}, "`temperature` is -1", "it can be 0 to 2"),
        ({"temperature": math.nan}, "`temperature` is nan", "it can be 0 to 2"),
        ({"temperature": "hot"}, "`temperature` is 'hot'", "it can be 0 to 2"),
        ({"top_p": 5}, "`top_p` is 5", "it can be 0 to 1"),
        ({"min_p": 2}, "`min_p` is 2", "it can be 0 to 1"),
        ({"repetition_penalty": 0}, "`repetition_penalty` is 0", "it can be 0.01 to 10"),
        ({"frequency_penalty": 2.5}, "`frequency_penalty` is 2.5", "it can be -2 to 2"),
        ({"top_k": -5}, "`top_k` is -5", "it can be 0 or more"),
        ({"top_logprobs": -1}, "`top_logprobs` is -1", "it can be 0 or more"),
        ({"temperature": True}, "`temperature` is True", "it can be 0 to 2"),
        ({"seed": 1.5}, "`seed` is 1.5, of the type float", WHOLE),
        ({"seed": True}, "`seed` is True, of the type bool", WHOLE),
        ({"top_k": "4"}, "`top_k` is '4', of the type str", WHOLE),
        ({"max_new_tokens": 4.0}, "`max_new_tokens` is 4.0, of the type float", WHOLE),
        ({"max_new_tokens": math.inf}, "`max_new_tokens` is inf, of the type float", WHOLE),
        ({"one_call": "no"}, "`one_call` is 'no', of the type str", "give True or False"),
        ({"one_call": 1}, "`one_call` is 1, of the type int", "give True or False"),
        ({"json_schema": {"maximum": math.nan}},
         f"`json_schema` cannot be written as JSON: {NO_NUMBER}", "give JSON, or a dict"),
        ({"template_variables": '{"x": NaN}'},
         "the template's variables are no JSON: NaN is no number of JSON's", 'such as {"enable_thinking": false}'),
        ({"template_variables": f'{{"x": {"1" * 5000}}}'},
         "the template's variables are no JSON: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; "
         "use sys.set_int_max_str_digits() to increase the limit", 'such as {"enable_thinking": false}'),
        ({"template_variables": '{"x": 1e999}'},
         "the template's variables are no JSON: the number '1e999' is beyond a float's range", 'such as {"enable_thinking": false}'),
        ({"temperature": 10**5000}, "`temperature` is 1.00e+5000", "it can be 0 to 2"),
        ({"temperature": [10**5000]}, "`temperature` is [1.00e+5000]", "it can be 0 to 2"),
        ({"top_k": -(10**5000)}, "`top_k` is -1.00e+5000", DIGITS),
        ({"top_k": [10**5000]}, "`top_k` is [1.00e+5000], of the type list", WHOLE),
        ({"max_new_tokens": -(10**5000)}, "`max_new_tokens` is -1.00e+5000", DIGITS),
        ({"max_new_tokens": 123456 * 10**5000}, "`max_new_tokens` is 1.23e+5005", DIGITS),
        ({"seed": 10**100}, "`seed` is 1.00e+100", DIGITS),
        ({"prompt_ids": [1, 10**5000]}, "`prompt_ids[1]` is 1.00e+5000", DIGITS),
        ({"one_call": 10**5000}, "`one_call` is 1.00e+5000, of the type int", "give True or False"),
        ({"reasoning_effort": 10**5000}, "`reasoning_effort` is 1.00e+5000", "known are none, minimal, low, medium, high, xhigh, max"),
        ({"json_schema": 5}, "`json_schema` is of the type int, and neither a text nor a dict", "give JSON, or a dict"),
        ({"stop": 5}, "`stop` is of the type int, not a tuple", "give a tuple"),
        ({"stop": [5]}, "what `stop` holds is of the type int, not a text", 'give "…"'),
        ({"stop": {"END": 1}}, "what `stop` holds is of the type dict, not a text", 'give "…"'),
        ({"answer_start": 5}, "`answer_start` is of the type int, not a text", 'give "…"'),
        ({"schema_mode": "foo"}, "`schema_mode` is 'foo'", "known are strict, json_object"),
        ({"verbosity": "lots"}, "`verbosity` is 'lots'", "known are low, medium, high"),
        ({"reasoning_effort": "lots"}, "`reasoning_effort` is 'lots'", "known are none, minimal, low, medium, high, xhigh, max"),
        ({"tools": [{"name": "f"}]}, "`tools[0]` is no function", bounds.TOOLS_HINT),
        ({"tools": [TOOL, {"type": "function", "function": {}}]}, "`tools[1]` is no function", bounds.TOOLS_HINT),
        ({"tools": ["f"]}, "`tools[0]` is no function", bounds.TOOLS_HINT),
        ({"tools": [{"function": {"name": "f", "parameters": 0}}]},
         "`tools[0]` has a name or parameters that are none", bounds.TOOLS_HINT),
        ({"must_call": "f"}, "`must_call` names `f`, which is none of the request's functions", "give them as `tools`"),
        ({"tools": [TOOL], "must_call": ["g"]}, "`must_call` names `g`, which is none of the request's functions", "those are f"),
        ({"tools": [TOOL], "may_call": "g"}, "`may_call` names `g`, which is none of the request's functions", "those are f"),
        ({"tools": [TOOL, OTHER_TOOL], "may_call": ["f"], "must_call": ["g"]},
         "`must_call` names `g`, which is none of the functions that may be called", "those are f"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_meant_is_named_with_what_it_can_be(settings: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Request(messages=(HI,), **settings)
    assert (caught.value.message, caught.value.hint) == (message, hint)


class Compared(str):
    """A name that counts what it is compared with."""

    num = 0

    def __eq__(self, other: object) -> bool:
        Compared.num += 1
        return str(self) == other

    __hash__ = str.__hash__


def test_functions_that_have_to_be_called_are_not_each_compared_with_all_others() -> None:
    """A request of 2 MiB may name 28,000 of them."""
    names = [f"f{at}" for at in range(300)]
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    Compared.num = 0
    Request(messages=(HI,), tools=tools, must_call=[Compared(name) for name in names])
    assert 0 < Compared.num < 10 * len(names)


def test_the_bounds_are_those_of_the_server() -> None:
    for name, (low, high) in bounds.NUMBERS.items():
        told = shapes.Settings.model_json_schema()["properties"][name]["anyOf"][0]
        assert (told.get("minimum", told.get("exclusiveMinimum")), told["maximum"]) == (low, high), name


@pytest.mark.parametrize("number", [Fraction(10**5000), {"x": Fraction(10**5000)}])
def test_a_number_that_python_cannot_write_is_refused_in_words(number: Any) -> None:
    for name in ("temperature", "top_k", "one_call", "prompt_ids"):
        with pytest.raises(UsageError, match=f"(?m)^`{name}`"):
            Request(**({} if name == "prompt_ids" else {"prompt": "x"}), **{name: number})
    for name, require in (("alpha", bounds.number), ("limit", bounds.whole)):
        with pytest.raises(UsageError, match=f"(?m)^`{name}` is "):
            require(name, number)


def test_whole_numbers_have_at_most_100_digits() -> None:
    assert [Request(prompt="x", seed=seed).seed for seed in (1 - 10**100, 10**100 - 1)] == [1 - 10**100, 10**100 - 1]


@pytest.mark.parametrize(
    ("messages", "kind"), [("Say hi", "str"), ([{"role": "user", "content": "Say hi"}], "dict"), ({"role": "user"}, "dict")]
)
def test_messages_that_are_none_are_refused_with_what_to_give(messages: Any, kind: str) -> None:
    with pytest.raises(UsageError, match=f"(?m)^`messages` holds something of the type {kind}, not Messages$") as caught:
        Request(messages=messages)
    assert 'Message(role="user", content="…")' in str(caught.value.hint)


def test_a_request_of_nothing_and_a_message_without_a_text_are_refused() -> None:
    for make, message in (
        (Request, "a request has either messages or a prompt"),
        (lambda: Request(prompt="x", messages=(HI,)), "a request has either messages or a prompt"),
        (lambda: Message(role="user", content=None), "a message's content is of the type NoneType, not a text"),  # type: ignore[arg-type]
        (lambda: Request(prompt=b"x"), "the prompt is of the type bytes, not a text"),  # type: ignore[arg-type]
        (lambda: Request(prompt_ids="abc"), "`prompt_ids` are no whole numbers"),  # type: ignore[arg-type]
        (lambda: Request(prompt_ids=[1, True]), "`prompt_ids` are no whole numbers"),
    ):
        with pytest.raises(UsageError, match=f"(?m)^{message}$"):
            make()


@pytest.mark.parametrize(
    ("schema", "message"),
    [("", "the JSON schema is not JSON that can be read: Expecting value"), ("{", "the JSON schema is not JSON that can be read: "),
     ('{"maximum": NaN}', "the JSON schema is not JSON that can be read: NaN is no number of JSON's"),
     ('{"maximum": -1e999}', "the JSON schema is not JSON that can be read: the number '-1e999' is beyond a float's range"),
     ('{"items": ' * 100_000 + "{}" + "}" * 100_000, "the JSON schema is not JSON that can be read: "),
     ('{"maximum": ' + "1" * 5000 + "}", "the JSON schema is not JSON that can be read: Exceeds the limit "),
     ("[]", "the JSON schema is of the type list, not an object"), ("true", "the JSON schema is of the type bool, not an object")],
)  # fmt: skip
def test_what_is_no_schema_is_refused_before_a_model_is_asked(schema: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Request(prompt="x", json_schema=schema)
    assert caught.value.message.startswith(message) and not caught.value.is_unsupported


def test_one_text_to_stop_at_is_one_and_not_its_characters() -> None:
    assert Request(messages=(HI,), stop="END").stop == ("END",)
    assert Request(messages=(HI,), stop=None).stop == ()


def test_texts_of_a_set_are_in_the_same_order_in_every_process() -> None:
    texts = [f"END {number}" for number in range(10, 30)]
    assert Request(prompt="x", stop=set(texts)).stop == (*texts,)
    assert len(bounds.in_order({"a", 10**5000, None})) == 3  # what are no texts is refused elsewhere, in words


def test_several_texts_keep_the_order_in_which_their_caller_has_them() -> None:
    """Who gives a set pairs the answers with it."""
    texts = frozenset(f"END {number}" for number in range(10, 30))
    assert bounds.several(texts, "texts") == list(texts)


def test_lists_dicts_and_numbers_of_numpy_are_taken_for_what_they_are() -> None:
    schema = {"type": "object"}
    plain = Request(
        messages=(HI,), stop=("a",), json_schema=json.dumps(schema), tools=(json.dumps(TOOL),), must_call=("f",),
        template_variables='{"x": true}', temperature=0.5, seed=3, max_new_tokens=4,
    )  # fmt: skip
    told: dict[str, Any] = {
        "messages": [HI], "stop": ["a"], "json_schema": schema, "tools": [TOOL], "must_call": "f",
        "template_variables": {"x": True}, "temperature": np.float32(0.5), "seed": np.int64(3), "max_new_tokens": np.uint8(4),
    }  # fmt: skip
    request = Request(**told)
    assert request == plain and hash(request) == hash(plain)
    assert [type(value) for value in (request.temperature, request.seed, request.max_new_tokens)] == [float, int, int]
    assert Request(prompt_ids=np.array([1, 2])).prompt_ids == (1, 2)


def test_a_number_is_one_setting_however_it_is_written() -> None:
    """Answers are kept under the settings' JSON, in which 1 and 1.0 are two."""
    numbers = {name: getattr(Request(prompt="x", **{name: 1}), name) for name in bounds.NUMBERS}
    assert {json.dumps(number) for number in numbers.values()} == {"1.0"}
