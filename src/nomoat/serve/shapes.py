"""The JSON that clients may send, as pydantic's models, and what of it is refused. `wire` makes our records of it.

What a client sends and we do not know is ignored, as clients send many things; but what would change the answer and is not
supported (images, a bias on tokens, other servers' words for a schema) is refused by name.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Container, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nomoat import bounds
from nomoat.errors import BadRequestError
from nomoat.records import Effort, Verbosity

MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 1024  # prompts times answers to each, in one request
MAX_EMBEDDED = 2048  # texts in one request: as many as OpenAI takes, by which clients cut theirs
RANDOM_SEED = -1  # llama.cpp's word for none


class _Numbers:
    """All those of which that is true."""

    def __init__(self, is_one: Callable[[float], bool]) -> None:
        self._is_one = is_one

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self._is_one(value)


# Field -> the values under which it changes nothing. Of OpenAI's, llama.cpp's, Ollama's, SGLang's and vLLM's.
UNSUPPORTED: dict[str, Container[object]] = {
    "adapter": ("",),
    "adapters": ([], ""),
    "adaptive_target": _Numbers(lambda value: value < 0),
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "chat_template": ("",),
    "continue_final_message": (False,),
    "custom_logit_processor": ("",),
    "documents": ([],),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "ebnf": ("",),
    "format": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "grammar": ("",),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "guided_json": ("",),
    "guided_regex": ("",),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "json_schema": ({},),
    "length_penalty": (1,),
    "logit_bias": ({}, []),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "lora": ([],),
    "lora_path": ("",),
    "min_keep": (0, 1),
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"], []),
    "n_cmpl": (1,),
    "n_indent": (0,),
    "n_probs": (0,),
    "no_stop_trim": (False,),
    "options": ({},),
    "post_sampling_probs": (False,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "reasoning_budget_tokens": (-1,),
    "regex": ("",),
    "repeat_penalty": (1,),
    "repetition_detection": (),
    "return_hidden_states": (False,),
    "return_token_ids": (False,),
    "return_tokens": (False,),
    "return_tokens_as_token_ids": (False,),
    "samplers": ([],),
    "skip_special_tokens": (True,),
    "stop_regex": ("", []),
    "stop_token_ids": ([],),
    "structural_tag": ("",),
    "structured_outputs": ({},),
    "suffix": ("",),
    "t_max_predict_ms": _Numbers(lambda value: value <= 0),
    "tfs_z": (1,),
    "thinking_token_budget": (-1,),
    "top_n_sigma": (-1, 0),
    "truncate_prompt_tokens": (-1,),  # to the context: what is longer than that is refused here
    "typical_p": (1,),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0,),
}
OF_OTHER_CHATS: dict[str, Container[object]] = {  # the same, of Ollama's, Anthropic's and OpenRouter's, of what is to be answered
    "raw": (False,), "reasoning": ({},), "system": ("",), "template": ("",), "think": (), "thinking": (),
}  # fmt: skip
NOT_OF_CHATS: dict[str, Container[object]] = {  # the same, of what /v1/completions takes
    "add_special_tokens": (False,), "echo": (False,),
}  # fmt: skip
NOT_OF_TEXTS: dict[str, Container[object]] = {  # and of what chats take
    "add_special_tokens": (True,), "chat_template_kwargs": ({},), "tools": ([],), "tool_choice": ("none", "auto"),
}  # fmt: skip
# Those that clients ask for to have an answer of a form, which there is another way to: a schema, and what stands in it.
ABOUT_FORM = {
    **dict.fromkeys(
        ("ebnf", "format", "grammar", "guided_grammar", "guided_json", "json_schema", "structural_tag", "structured_outputs"), ""
    ),
    "guided_choice": " that has an `enum`",
    **dict.fromkeys(("guided_regex", "regex"), " that has a `pattern`, such as `^[0-9]+$`"),
}
ADVICE = {
    **{name: f"; for an answer of a form use `response_format` with a `json_schema`{with_}" for name, with_ in ABOUT_FORM.items()},
    **dict.fromkeys(("functions", "function_call"), "; use `tools`"),  # older ones of OpenAI's API
    "n_cmpl": "; use `n`",
    "n_probs": "; use `logprobs`, in chats with `top_logprobs`",
    "repeat_penalty": "; use `repetition_penalty`, which counts all of prompt and answer",  # llama.cpp's counts the last 64 tokens
}
ADVICE_OF_CHATS = {
    **dict.fromkeys(("reasoning", "think", "thinking"), "; use `reasoning_effort`"),
    "suffix": "; `/v1/completions` takes it",
    "system": "; put it before the others as a message of the role `system`",
}

_T = TypeVar("_T")
# All lists that clients send: refused at the first part that is wrong, where a million wrong ones would take gigabytes to tell.
Several = Annotated[list[_T], Field(fail_fast=True)]


def _whole(value: object) -> object:
    """A whole number, if it was written as 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Limit = Annotated[Whole, Field(ge=1)] | Annotated[Literal[-1, -2], BeforeValidator(_whole)]  # below 0: as many as there is room for


class Shape(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Part(Shape):
    type: str
    text: str | None = None
    refusal: str | None = None


class Called(Shape):
    name: str
    arguments: str | dict[str, Any]  # the second is Ollama's


class ToolCall(Shape):
    id: str | None = None
    function: Called
    extra_content: dict[str, Any] | None = None  # Gemini's


class Turn(Shape):
    role: str
    content: str | Several[Part] | None = None
    name: str | None = None
    refusal: str | None = None  # what an assistant said in place of its content
    tool_calls: Several[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None  # the older form of calls
    images: Any = None  # Ollama's
    audio: Any = None  # of an answer that was spoken


class StreamOptions(Shape):
    include_usage: bool | None = None


class Schema(Shape):
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class Format(Shape):
    type: Literal["text", "json_object", "json_schema", "json"]  # the last is TGI's for `json_object`
    json_schema: Schema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None  # llama.cpp's, of a `json_object`
    value: dict[str, Any] | None = None  # TGI's for the same, which huggingface_hub sends


class Function(Shape):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Shape):
    type: str
    function: Function | None = None


class Named(Shape):
    name: str


class NamedTool(Shape):
    type: str
    function: Named | None = None


class Allowed(Shape):
    mode: Literal["auto", "required"]
    tools: Annotated[Several[NamedTool], Field(min_length=1)]


class Choice(NamedTool):
    allowed_tools: Allowed | None = None


def _within(name: str) -> Any:
    """A field held to the bounds that a `Request` has."""
    low, high = bounds.NUMBERS[name]
    return Field(ge=low, le=high)


class Settings(Shape):
    model_config = ConfigDict(extra="allow")
    model: str | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n_predict: Limit | None = None  # llama.cpp's
    num_predict: Limit | None = None  # Ollama's
    temperature: Annotated[float, _within("temperature")] | None = None
    top_p: Annotated[float, _within("top_p")] | None = None
    top_k: Annotated[Whole, Field(ge=-1)] | None = None  # vLLM's -1 is off, as 0 is
    min_p: Annotated[float, _within("min_p")] | None = None
    repetition_penalty: Annotated[float, _within("repetition_penalty")] | None = None
    presence_penalty: Annotated[float, _within("presence_penalty")] | None = None
    frequency_penalty: Annotated[float, _within("frequency_penalty")] | None = None
    seed: Whole | None = None
    stop: str | Several[str] | None = None
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] | None = None
    best_of: Whole | None = None
    response_format: Format | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Chat(Settings):
    messages: Annotated[Several[Turn], Field(min_length=1)]
    chat_template_kwargs: dict[str, Any] | None = None  # vLLM's and llama.cpp's
    reasoning_effort: Effort | None = None
    verbosity: Verbosity | None = None
    tools: Several[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class Text(Settings):
    prompt: str | Several[str] | Several[int] | Several[Several[int]]
    max_tokens: Limit | Annotated[Literal[0], BeforeValidator(_whole)] | None = None  # 0 with `echo`: the prompt's tokens alone
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | bool | None = None  # llama.cpp's clients send false


class Embed(Shape):
    model_config = ConfigDict(extra="allow")
    model: str | None = None
    input: str | Several[str] | Several[int] | Several[Several[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = None


_Asked = TypeVar("_Asked", bound=BaseModel)


def every_shape(base: type[Shape] = Shape) -> Iterator[type[Shape]]:
    """This one, and all that are made from it."""
    yield base
    for shape in base.__subclasses__():
        yield from every_shape(shape)


def parse_body(shape: type[_Asked], body: bytes | dict[str, Any]) -> _Asked:
    """A body's fields, checked, and nothing in it that we would have to leave out. Raises BadRequestError."""
    asked = parse_shape(shape, body)
    extra = asked.model_extra or {}
    known = UNSUPPORTED | (NOT_OF_CHATS if shape is Chat else NOT_OF_TEXTS) | ({} if shape is Embed else OF_OTHER_CHATS)
    advice = ADVICE | (ADVICE_OF_CHATS if shape is Chat else {})
    if isinstance(asked, Text) and not any(isinstance(part, str) for part in asked.prompt):  # token ids, or none
        known["add_special_tokens"] = (True, False)  # which are sent as they are
    for name, harmless in known.items():
        if extra.get(name) is not None and extra[name] not in harmless:
            raise unsupported(name, "is not supported" + advice.get(name, ""))
    return asked


def parse_shape(shape: type[_Asked], body: bytes | dict[str, Any], *, place: str = "") -> _Asked:
    """JSON's fields, checked. `place`: where all of it stands, in errors. Raises BadRequestError."""
    try:
        if isinstance(body, bytes):
            return shape.model_validate_json(body.removeprefix(codecs.BOM_UTF8))
        return shape.model_validate(body)
    except ValidationError as exc:
        # Of fields: what tells one from the name that pydantic has for one of the types it may be of.
        names = {field.alias or name for one in every_shape() for name, field in one.model_fields.items()}
        found: dict[tuple[object, ...], tuple[list[int | str], Any]] = {}  # the first error of each type that something may be of
        for each in exc.errors(include_url=False, include_input=False):
            parts = [part for part in each["loc"] if isinstance(part, int) or part in names]
            found.setdefault(tuple(part for part in each["loc"] if part not in parts), (parts, each))
        first, _ = next(iter(found.values()))
        # of the first field that is wrong; where it may be of several types, of that which fits the most of it
        of_first = [one for one in found.values() if one[0][: len(first)] == first]
        parts, error = max(of_first, key=lambda one: (len(one[0]), [part for part in one[0] if isinstance(part, int)]))
        where = ".".join([place, *map(str, parts)] if place else map(str, parts))
        if error["type"] == "json_invalid" or not where:
            raise BadRequestError(f"the body is no JSON object: {error['msg']}") from exc
        raise BadRequestError(f"`{where}`: {error['msg']}", param=where) from exc


def unsupported(param: str, what: str) -> BadRequestError:
    """The error, to be raised, of a parameter that we know and do not serve; `what` is said of it."""
    return BadRequestError(f"`{param}` {what}", param=param, code="unsupported")
