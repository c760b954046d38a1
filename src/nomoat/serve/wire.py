"""OpenAI's JSON -> our records: what a client asks. With `replies` the only place that knows the wire format.

What a client sends and we do not know is ignored, as clients send many things; but what would change the answer and is not
supported (images, a bias on tokens, other servers' words for a schema) is refused by name.

Format: https://platform.openai.com/docs/api-reference/chat and .../completions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nomoat.errors import BadRequestError
from nomoat.records import CallingTurn, Effort, Message, Request, Role, SchemaMode, ToolCall, ToolResult

MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 1024  # prompts times answers to each, in one request
RANDOM_SEED = -1  # llama.cpp's word for none
COMPLETION_MAX_TOKENS = 16  # what /v1/completions means when it says nothing

# Field -> the values under which it changes nothing. Of OpenAI's, llama.cpp's, Ollama's and vLLM's.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": ("",),
    "continue_final_message": (False,),
    "documents": ([],),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
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
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"], []),
    "options": ({},),
    "prompt_logprobs": (),
    "repeat_penalty": (1,),
    "return_token_ids": (False,),
    "samplers": ([],),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "structural_tag": ("",),
    "structured_outputs": ({},),
    "suffix": ("",),
    "top_n_sigma": (-1, 0),
    "truncate_prompt_tokens": (-1,),  # to the context: what is longer than that is refused here
    "typical_p": (1,),
    "use_beam_search": (False,),
    "web_search_options": (),
    "xtc_probability": (0,),
}
NOT_OF_CHATS: dict[str, tuple[object, ...]] = {"echo": (False,)}  # the same, of what /v1/completions takes
NOT_OF_TEXTS: dict[str, tuple[object, ...]] = {  # and of what chats take
    "chat_template_kwargs": ({},), "tools": ([],), "tool_choice": ("none", "auto"),
}  # fmt: skip
# Those that clients ask for to have an answer of a form, which there is another way to.
ABOUT_FORM = frozenset({"format", "guided_json", "json_schema", "structural_tag", "structured_outputs"})
FORM_ADVICE = "; for an answer of a form use `response_format` with a `json_schema`"
OLDER = ("functions", "function_call")  # of OpenAI's API
Kind = Literal["chat", "text"]

_T = TypeVar("_T")
# All lists that clients send: refused at the first part that is wrong, where a million wrong ones would take gigabytes to tell.
Several = Annotated[list[_T], Field(fail_fast=True)]


def _whole(value: object) -> object:
    """A whole number, if it was written as 8.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
Limit = Annotated[Whole, Field(ge=1)] | Annotated[Literal[-1, -2], BeforeValidator(_whole)]  # below 0: as many as there is room for


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True)


class Part(_Shape):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Called(_Shape):
    name: str
    arguments: str | dict[str, Any]  # the second is Ollama's


class _ToolCall(_Shape):
    id: str | None = None
    function: _Called
    extra_content: dict[str, Any] | None = None  # Gemini's


class _Turn(_Shape):
    role: str
    content: str | Several[Part] | None = None
    refusal: str | None = None  # what an assistant said in place of its content
    tool_calls: Several[_ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None  # the older form of calls


class _StreamOptions(_Shape):
    include_usage: bool | None = None


class _Schema(_Shape):
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class _Format(_Shape):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None  # llama.cpp's, of a `json_object`


class _Function(_Shape):
    name: Annotated[str, Field(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(_Shape):
    type: str
    function: _Function | None = None


class _Named(_Shape):
    name: str


class _NamedTool(_Shape):
    type: str
    function: _Named | None = None


class _Allowed(_Shape):
    mode: Literal["auto", "required"]
    tools: Annotated[Several[_NamedTool], Field(min_length=1)]


class _Choice(_NamedTool):
    allowed_tools: _Allowed | None = None


class _Settings(_Shape):
    model_config = ConfigDict(extra="allow")
    model: str | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n_predict: Limit | None = None  # llama.cpp's
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[Whole, Field(ge=-1)] | None = None  # vLLM's -1 is off, as 0 is
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Whole | None = None
    stop: str | Several[str] | None = None
    n: Annotated[Whole, Field(ge=1, le=MAX_CHOICES)] | None = None
    response_format: _Format | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class _Chat(_Settings):
    messages: Annotated[Several[_Turn], Field(min_length=1)]
    chat_template_kwargs: dict[str, Any] | None = None  # vLLM's and llama.cpp's
    reasoning_effort: Effort | None = None
    tools: Several[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None


class _Text(_Settings):
    prompt: str | Several[str] | Several[int] | Several[Several[int]]
    max_tokens: Limit | Annotated[Literal[0], BeforeValidator(_whole)] | None = None  # 0 with `echo`: the prompt's tokens alone
    echo: bool | None = None
    logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] | bool | None = None  # llama.cpp's clients send false


class _Embed(_Shape):
    model_config = ConfigDict(extra="allow")
    model: str | None = None
    input: str | Several[str] | Several[int] | Several[Several[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = None


_Asked = TypeVar("_Asked", bound=BaseModel)
# What tells a field from the name pydantic has for one of the types it may be of.
SHAPES: tuple[type[BaseModel], ...] = (*_Shape.__subclasses__(), *_NamedTool.__subclasses__(), *_Settings.__subclasses__())


def field_names(shapes: Sequence[type[BaseModel]]) -> frozenset[str]:
    """As clients write them."""
    return frozenset(field.alias or name for shape in shapes for name, field in shape.model_fields.items())


FIELD_NAMES = field_names(SHAPES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked: one answer to each request. `model` None: the only one served.

    `max_new_tokens` None: as many as the context has room for. `echo`: the prompt is part of the answer. `n`: requests in a row with
    the same prompt.
    """

    kind: Kind
    model: str | None
    requests: tuple[Request, ...]
    max_new_tokens: int | None
    stream: bool
    include_usage: bool
    echo: bool = False
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """What a client wants embedded: texts, or their token ids. `dimensions` None: as many as the model has."""

    model: str | None
    texts: tuple[str | tuple[int, ...], ...]
    as_base64: bool
    dimensions: int | None


def parse_chat(body: bytes | dict[str, Any], places: Sequence[str] = ()) -> Call:
    """A body of /v1/chat/completions, or another endpoint's in its words. `places`: what errors call each message, where that is not
    `messages.N`. Raises BadRequestError."""
    asked = _parse(_Chat, body)
    messages = tuple(_message(turn, places[at] if places else f"messages.{at}") for at, turn in enumerate(asked.messages))
    if asked.top_logprobs and not asked.logprobs:
        raise BadRequestError("`top_logprobs` goes with `logprobs`: true only", param="top_logprobs")
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    variables = json.dumps(asked.chat_template_kwargs, ensure_ascii=False, sort_keys=True) if asked.chat_template_kwargs else ""
    request = Request(
        messages=messages, top_logprobs=top, template_variables=variables, reasoning_effort=asked.reasoning_effort,
        **_about_tools(asked), **_sampling(asked),
    )  # fmt: skip
    return _call("chat", asked, [request], _max_new_tokens(asked, None))


def parse_text(body: bytes) -> Call:
    """A body of /v1/completions: prompts that no chat template touches, as text or as token ids. Raises BadRequestError."""
    asked = _parse(_Text, body)
    top = None if asked.logprobs is None or asked.logprobs is False else int(asked.logprobs)
    prompts = _prompts(asked.prompt)
    if not prompts or not all(prompts):
        raise BadRequestError("`prompt` is empty, or one of its prompts is", param="prompt")
    settings = {"top_logprobs": top, **_sampling(asked)}
    requests = [
        Request(prompt=prompt, **settings) if isinstance(prompt, str) else Request(prompt_ids=tuple(prompt), **settings)
        for prompt in prompts
    ]
    max_new_tokens = _max_new_tokens(asked, COMPLETION_MAX_TOKENS)
    if max_new_tokens == 0 and not asked.echo:
        raise BadRequestError("`max_tokens`: 0 goes with `echo` only", param="max_tokens")
    return replace(_call("text", asked, requests, max_new_tokens), echo=bool(asked.echo))


def parse_embeddings(body: bytes) -> EmbeddingCall:
    """A body of /v1/embeddings: texts, as text or as token ids. Raises BadRequestError."""
    asked = _parse(_Embed, body)
    texts = tuple(text if isinstance(text, str) else tuple(text) for text in _prompts(asked.input))
    if not texts or not all(texts):
        raise BadRequestError("`input` is empty, or one of its texts is", param="input")
    if len(texts) > MAX_CHOICES:
        raise BadRequestError(f"`input` holds {len(texts):,} texts; send at most {MAX_CHOICES:,}", param="input")
    return EmbeddingCall(
        model=asked.model, texts=texts, as_base64=asked.encoding_format == "base64", dimensions=asked.dimensions
    )  # fmt: skip


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(part, int) for part in prompt):
        return [cast(list[int], prompt)]
    return cast(list[str | list[int]], prompt)


def _parse(shape: type[_Asked], body: bytes | dict[str, Any]) -> _Asked:
    """The body's fields, checked, and nothing in it that we would have to leave out."""
    asked = parse_shape(shape, body)
    extra = asked.model_extra or {}
    known = UNSUPPORTED | (NOT_OF_CHATS if shape is _Chat else NOT_OF_TEXTS)
    for name, harmless in known.items():
        if extra.get(name) is not None and extra[name] not in harmless:
            advice = FORM_ADVICE if name in ABOUT_FORM else "; use `tools`" if name in OLDER else ""
            raise unsupported(name, "is not supported" + advice)
    return asked


def parse_shape(
    shape: type[_Asked], body: bytes | dict[str, Any], *, names: frozenset[str] = FIELD_NAMES, place: str = ""
) -> _Asked:  # fmt: skip
    """JSON's fields, checked. `names`: those of the shape's fields and of what stands in them; `place`: where all of it stands, in
    errors. pydantic refuses lone surrogates. Raises BadRequestError."""
    try:
        return shape.model_validate_json(body) if isinstance(body, bytes) else shape.model_validate(body)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        found = [str(part) for part in first["loc"] if isinstance(part, int) or part in names]
        where = ".".join([place, *found] if place else found)
        if first["type"] == "json_invalid" or not where:
            raise BadRequestError(f"the body is no JSON object: {first['msg']}") from exc
        raise BadRequestError(f"`{where}`: {first['msg']}", param=where) from exc


def _call(kind: Kind, asked: _Settings, requests: Sequence[Request], max_new_tokens: int | None) -> Call:
    n = asked.n or 1
    if n * len(requests) > MAX_CHOICES:
        raise BadRequestError(f"{n * len(requests):,} answers are asked for; ask for at most {MAX_CHOICES:,}", param="n")
    return Call(
        kind=kind,
        model=asked.model,
        requests=tuple(_numbered(request, at) for request in requests for at in range(n)),
        max_new_tokens=max_new_tokens,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        n=n,
    )


def _max_new_tokens(asked: _Settings, otherwise: int | None) -> int | None:
    """See `Call`. OpenAI's own names go before llama.cpp's."""
    limits = (asked.max_completion_tokens, asked.max_tokens, asked.n_predict)
    limit = next((limit for limit in limits if limit is not None), otherwise)
    return None if limit is not None and limit < 0 else limit


def _message(turn: _Turn, where: str) -> Message:
    role = "system" if turn.role == "developer" else turn.role
    if role == "function":
        raise unsupported(f"{where}.role", "is `function`, which is not supported; use `tool`")
    if turn.function_call:
        raise unsupported(f"{where}.function_call", "is not supported; use `tool_calls`")
    content = _content(turn, where)
    if role == "tool":
        return ToolResult(role="tool", content=content, call_id=turn.tool_call_id or "")
    if role not in get_args(Role):
        known = "system, developer, user, assistant, tool"
        raise BadRequestError(f"`{where}.role` is `{turn.role}`; known are {known}", param=f"{where}.role")
    if role == "assistant" and turn.tool_calls:
        return CallingTurn(role="assistant", content=content, calls=tuple(map(_called, turn.tool_calls)))
    return Message(role=cast(Role, role), content=content)


def _called(call: _ToolCall) -> ToolCall:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    extra = json.dumps(call.extra_content, ensure_ascii=False) if call.extra_content else ""
    return ToolCall(id=call.id or "", name=call.function.name, arguments=text, extra_content=extra)


def _about_tools(asked: _Chat) -> dict[str, Any]:
    """Functions, and which of them have to be called. None where the client wants a text."""
    tools: list[tuple[str, str]] = []
    for at, tool in enumerate(asked.tools or ()):
        if tool.type != "function":
            raise unsupported(f"tools.{at}.type", f"is `{tool.type}`; only functions are supported")
        if tool.function is None:
            raise BadRequestError(f"`tools.{at}.function` is missing", param=f"tools.{at}.function")
        definition = {"type": "function", "function": tool.function.model_dump(exclude_none=True)}
        tools.append((tool.function.name, json.dumps(definition, ensure_ascii=False)))
    if asked.tool_choice == "none":
        return {}
    if asked.tool_choice not in (None, "auto") and not tools:
        raise BadRequestError("`tool_choice` goes with `tools` only", param="tool_choice")
    may_call, must_call = _chosen(asked.tool_choice, tuple(name for name, _ in tools))
    told = tuple(tool for name, tool in tools if name in may_call)
    return {"tools": told, "must_call": must_call, "one_call": bool(tools) and asked.parallel_tool_calls is False}


def _chosen(choice: str | _Choice | None, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions that a model is told of, and those of which it has to call one."""
    if not isinstance(choice, _Choice):
        return names, names if choice == "required" else ()
    if choice.type == "function":
        return names, (_chosen_name(choice, names, "tool_choice"),)
    if choice.type != "allowed_tools":
        raise unsupported("tool_choice", f"is of type `{choice.type}`; `function` and `allowed_tools` are supported")
    if choice.allowed_tools is None:
        raise BadRequestError("`tool_choice.allowed_tools` is missing", param="tool_choice.allowed_tools")
    allowed = tuple(
        _chosen_name(one, names, f"tool_choice.allowed_tools.tools.{at}") for at, one in enumerate(choice.allowed_tools.tools)
    )
    return allowed, allowed if choice.allowed_tools.mode == "required" else ()


def _chosen_name(tool: _NamedTool, names: tuple[str, ...], where: str) -> str:
    if tool.type != "function":
        raise unsupported(f"{where}.type", f"is `{tool.type}`; only functions are supported")
    if tool.function is None:
        raise BadRequestError(f"`{where}.function` is missing", param=f"{where}.function")
    if tool.function.name not in names:
        raise BadRequestError(f"`{where}` names `{tool.function.name}`, which is none of the tools: {', '.join(names)}", param=where)
    return tool.function.name


def _content(turn: _Turn, where: str) -> str:
    """A turn's text. An assistant may have said nothing, or have refused to."""
    if turn.content is None and turn.role == "assistant":
        return turn.refusal or ""
    if turn.content is None:
        raise BadRequestError(f"`{where}.content` is missing", param=f"{where}.content")
    if isinstance(turn.content, str):
        return turn.content
    return joined(turn.content, f"{where}.content")


def joined(parts: Sequence[Part], where: str) -> str:
    """The text that parts are together, which stand at `where`. Raises BadRequestError."""
    return "\n".join(_said(part, where, at) for at, part in enumerate(parts))


def _said(part: Part, where: str, at: int) -> str:
    if part.type not in ("text", "refusal"):
        raise unsupported(where, f"holds a part of type `{part.type}`; only text is supported")
    said = part.text if part.type == "text" else part.refusal
    if said is None:
        raise BadRequestError(f"`{where}.{at}.{part.type}` is missing", param=f"{where}.{at}.{part.type}")
    return said


def unsupported(param: str, what: str) -> BadRequestError:
    return BadRequestError(f"`{param}` {what}", param=param, code="unsupported")


def _numbered(request: Request, at: int) -> Request:
    """The answers to one prompt differ, and with a seed are the same ones again."""
    return request if request.seed is None else replace(request, seed=request.seed + at)


def _schema(asked: _Format | None) -> str | None:
    if asked is None or asked.type == "text":
        return None
    if asked.type == "json_object":
        return '{"type": "object"}' if asked.schema_ is None else json.dumps(asked.schema_)
    if asked.json_schema is None or asked.json_schema.schema_ is None:
        raise BadRequestError("`response_format.json_schema.schema` is missing", param="response_format")
    return json.dumps(asked.json_schema.schema_)


def _schema_mode(asked: _Format | None) -> SchemaMode | None:
    if asked is None:
        return None
    if asked.type == "json_object":
        return "json_object" if asked.schema_ is None else None
    return "strict" if asked.json_schema is not None and asked.json_schema.strict else None


def _sampling(asked: _Settings) -> dict[str, Any]:
    """OpenAI's defaults where a client says nothing: temperature 1, so that the same client behaves the same here."""
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return {
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "top_k": max(0, asked.top_k or 0),
        "min_p": asked.min_p or 0.0,
        "repetition_penalty": 1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty or 0.0,
        "frequency_penalty": asked.frequency_penalty or 0.0,
        "json_schema": _schema(asked.response_format),
        "schema_mode": _schema_mode(asked.response_format),
        "seed": None if asked.seed in (None, RANDOM_SEED) else asked.seed % 2**63,
        "stop": tuple(text for text in stop if text),
    }
