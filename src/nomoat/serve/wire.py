"""OpenAI's JSON -> our records: what a client asks. With `shapes` and `replies` the only place that knows the wire format.

Format: https://platform.openai.com/docs/api-reference/chat and .../completions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from nomoat.errors import BadRequestError, ContextExceededError, SchemaError, SettingError, UsageError
from nomoat.records import CallingTurn, Message, Request, Role, SchemaMode, ToolCall, ToolResult
from nomoat.serve import shapes

MOST_SEEDS = 2**63  # a client's, which every engine takes
MOST_DRAWN_SEEDS = 2**31  # ours, which every server takes, too
COMPLETION_MAX_TOKENS = 16  # what /v1/completions means when it says nothing
ANY_OBJECT = '{"type": "object"}'  # the schema of a `json_object` with none
Kind = Literal["chat", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asked: one answer to each request. `model` None: the only one served.

    `max_new_tokens` None: as many as the context has room for. `echo`: the prompt is part of the answer. `n`: requests in a row with
    the same prompt. `tool_places`: where each of the requests' tools stood in the client's body. `notes`: what the client is told of
    what was left out.
    """

    kind: Kind
    model: str | None
    requests: tuple[Request, ...]
    max_new_tokens: int | None
    stream: bool
    include_usage: bool
    echo: bool = False
    n: int = 1
    tool_places: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @contextmanager
    def in_its_words(self, at: int) -> Iterator[None]:
        """An error of a function's schema names the client's tool, where an engine names the request's; one of what the request at
        this place asks names its prompt, where there are several."""
        try:
            yield
        except SchemaError as error:
            kind, *rest = error.field.split(".", 2)
            if kind == "tools" and rest:
                number, within = rest
                error.field = f"{self.tool_places[int(number)]}.{within}"
            raise
        except (ContextExceededError, UsageError) as error:
            if len(self.requests) == self.n or isinstance(error, SettingError):
                raise
            raise _about_text(error, "prompt", at // self.n) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCall:
    """What a client wants embedded: texts, or their token ids. `dimensions` None: as many as the model has."""

    model: str | None
    texts: tuple[str | tuple[int, ...], ...]
    as_base64: bool
    dimensions: int | None


def parse_chat(body: bytes | dict[str, Any], places: Sequence[str] = (), tool_places: Sequence[str] = ()) -> Call:
    """A body of /v1/chat/completions, or another endpoint's in its words. `places` and `tool_places`: what errors call each message
    and each tool, where that is not `messages.N` and `tools.N`. Raises BadRequestError."""
    asked = shapes.parse_body(shapes.Chat, body)
    messages = tuple(_message(turn, places[at] if places else f"messages.{at}") for at, turn in enumerate(asked.messages))
    if asked.top_logprobs and not asked.logprobs:
        raise BadRequestError("`top_logprobs` goes with `logprobs`: true only", param="top_logprobs")
    top = (asked.top_logprobs or 0) if asked.logprobs else None
    variables = as_json(asked.chat_template_kwargs, "chat_template_kwargs", sort_keys=True) if asked.chat_template_kwargs else ""
    at_tools, about_tools = _about_tools(asked, tool_places or [f"tools.{at}" for at in range(len(asked.tools or ()))])
    request = Request(
        messages=messages, top_logprobs=top, template_variables=variables, reasoning_effort=asked.reasoning_effort,
        verbosity=asked.verbosity, **about_tools, **_sampling(asked),
    )  # fmt: skip
    return replace(_call("chat", asked, [request], _max_new_tokens(asked, None)), tool_places=at_tools)


def parse_text(body: bytes) -> Call:
    """A body of /v1/completions: prompts that no chat template touches, as text or as token ids. Raises BadRequestError."""
    asked = shapes.parse_body(shapes.Text, body)
    top = None if asked.logprobs is None or asked.logprobs is False else int(asked.logprobs)
    prompts = _prompts(asked.prompt)
    if asked.suffix:
        _require_gaps(asked, prompts)
    else:
        _require_filled("prompt", prompts)
    settings = {"top_logprobs": top, "suffix": asked.suffix or "", **_sampling(asked)}
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
    asked = shapes.parse_body(shapes.Embed, body)
    texts = tuple(text if isinstance(text, str) else tuple(text) for text in _prompts(asked.input))
    _require_filled("input", texts)
    if len(texts) > shapes.MAX_EMBEDDED:
        raise BadRequestError(f"`input` holds {len(texts):,} texts; send at most {shapes.MAX_EMBEDDED:,}", param="input")
    return EmbeddingCall(
        model=asked.model, texts=texts, as_base64=asked.encoding_format == "base64", dimensions=asked.dimensions
    )  # fmt: skip


def require_dimensions(asked: int, of_model: int) -> None:
    """Raises BadRequestError for other dimensions than a model's embeddings have."""
    if asked != of_model:
        raise BadRequestError(f"`dimensions` can only be {of_model:,} for this model", param="dimensions")


def about_input(error: UsageError | ContextExceededError, call: EmbeddingCall) -> BadRequestError:
    """What a model has against the texts that are to be embedded, in the request's words."""
    advice = ". LangChain's `OpenAIEmbeddings` sends OpenAI's tokens unless it has `check_embedding_ctx_length=False`"
    return _about_text(error, "input", error.at, advice="" if all(isinstance(text, str) for text in call.texts) else advice)


def _about_text(error: UsageError | ContextExceededError, field: str, at: int | None, *, advice: str = "") -> BadRequestError:
    """`at`: which text of the field, where it holds several."""
    place, before = (field, "") if at is None else (f"{field}.{at}", f"`{field}.{at}`: ")
    if isinstance(error, ContextExceededError):
        return BadRequestError(f"{before}{error.on_the_wire}", param=place, code="context_length_exceeded")
    return BadRequestError(f"{before}{error.on_the_wire.removeprefix(f'`texts[{at}]`: ')}{advice}", param=place)


def _require_filled(field: str, texts: Sequence[str | Sequence[int]]) -> None:
    """Raises BadRequestError for no text at all, and for an empty one."""
    empty = [at for at, text in enumerate(texts) if not text]
    if empty or not texts:
        place = f"{field}.{empty[0]}" if len(texts) > 1 else field
        raise BadRequestError(f"`{place}` is empty", param=place)


def _require_gaps(asked: shapes.Text, prompts: Sequence[str | list[int]]) -> None:
    """Raises BadRequestError for what stands behind a gap, and nothing that could stand before it; a text may be empty."""
    if not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise BadRequestError("`suffix` goes with a `prompt` of text, not of token ids", param="suffix")
    if asked.echo:
        raise BadRequestError("`echo` does not go with `suffix`: the answer is what fills in the gap", param="echo")


def _prompts(prompt: str | list[str] | list[int] | list[list[int]]) -> Sequence[str | list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(part, int) for part in prompt):
        return [cast(list[int], prompt)]
    return cast(list[str | list[int]], prompt)


def _call(kind: Kind, asked: shapes.Settings, requests: Sequence[Request], max_new_tokens: int | None) -> Call:
    n = asked.n or 1
    if asked.best_of is not None and asked.best_of < n:
        raise BadRequestError(f"`best_of` is {asked.best_of}, and `n` is {n}; leave `best_of` out", param="best_of")
    if asked.best_of is not None and asked.best_of > n:
        raise shapes.unsupported("best_of", f"is {asked.best_of}, and `n` is {n}; to choose among more answers is not supported")
    if n * len(requests) > shapes.MAX_CHOICES:
        raise BadRequestError(f"{n * len(requests):,} answers are asked for; ask for at most {shapes.MAX_CHOICES:,}", param="n")
    return Call(
        kind=kind,
        model=asked.model,
        requests=tuple(_numbered(request, at) for request in requests for at in range(n)),
        max_new_tokens=max_new_tokens,
        stream=bool(asked.stream),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        n=n,
    )


def _max_new_tokens(asked: shapes.Settings, otherwise: int | None) -> int | None:
    """See `Call`. OpenAI's own names go before others'."""
    limits = (asked.max_completion_tokens, asked.max_tokens, asked.n_predict, asked.num_predict)
    limit = next((limit for limit in limits if limit is not None), otherwise)
    return None if limit is not None and limit < 0 else limit


def _message(turn: shapes.Turn, where: str) -> Message:
    role = "system" if turn.role == "developer" else turn.role
    if role == "function":
        raise shapes.unsupported(f"{where}.role", "is `function`, which is not supported; use `tool`")
    if turn.function_call:
        raise shapes.unsupported(f"{where}.function_call", "is not supported; use `tool_calls`")
    for name, said in (("images", turn.images), ("audio", turn.audio)):
        if said:
            raise shapes.unsupported(f"{where}.{name}", "is not supported; nomoat reads text alone")
    content, name = _content(turn, where), turn.name or ""
    if role == "tool":
        return ToolResult(role="tool", content=content, name=name, call_id=turn.tool_call_id or "")
    if role not in get_args(Role):
        known = "system, developer, user, assistant, tool"
        raise BadRequestError(f"`{where}.role` is `{turn.role}`; known are {known}", param=f"{where}.role")
    if role == "assistant" and turn.tool_calls:
        calls = _called(turn.tool_calls, f"{where}.tool_calls")
        return CallingTurn(role="assistant", content=content, name=name, calls=calls)
    return Message(role=cast(Role, role), content=content, name=name)


def _called(calls: Sequence[shapes.ToolCall], where: str) -> tuple[ToolCall, ...]:
    called = []
    for at, call in enumerate(calls):
        arguments = call.function.arguments
        text = arguments if isinstance(arguments, str) else as_json(arguments, f"{where}.{at}.function.arguments")
        extra = as_json(call.extra_content, f"{where}.{at}.extra_content") if call.extra_content else ""
        called.append(ToolCall(id=call.id or "", name=call.function.name, arguments=text, extra_content=extra))
    return tuple(called)


def _about_tools(asked: shapes.Chat, at_each: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Functions, and which of them may or have to be called; before them their places, of those `at_each` tool. None where the client
    wants a text."""
    tools: dict[str, tuple[str, str]] = {}
    for at, tool in zip(at_each, asked.tools or (), strict=True):
        if tool.type != "function":
            raise shapes.unsupported(f"{at}.type", f"is `{tool.type}`; only functions are supported")
        if tool.function is None:
            raise BadRequestError(f"`{at}.function` is missing", param=f"{at}.function")
        definition = {"type": "function", "function": tool.function.model_dump(exclude_none=True)}
        text = as_json(definition, f"{at}.function.parameters")
        before, known = tools.setdefault(tool.function.name, (at, text))
        if known != text:
            where = f"{at}.function.name"
            taken = f"`{tool.function.name}`, the name of another function, `{before}`"
            raise BadRequestError(f"`{where}` is {taken}; rename one, or leave it out", param=where)
    if asked.tool_choice == "none":
        return (), {}
    if asked.tool_choice not in (None, "auto") and not tools:
        advice = "send the functions in `tools`, or leave `tool_choice` out"
        raise BadRequestError(f"`tool_choice` is given without `tools`; {advice}", param="tool_choice")
    may_call, must_call = _chosen(asked.tool_choice, tools)
    places, told = tuple(at for at, _ in tools.values()), tuple(definition for _, definition in tools.values())
    one_call = bool(tools) and asked.parallel_tool_calls is False
    return places, {"tools": told, "may_call": may_call, "must_call": must_call, "one_call": one_call}


def _chosen(choice: str | shapes.Choice | None, names: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The functions that a model may call, none for all of them, and those of which it has to call one."""
    if not isinstance(choice, shapes.Choice):
        return (), tuple(names) if choice == "required" else ()
    if choice.type == "function":
        return (), (_chosen_name(choice, names, "tool_choice"),)
    if choice.type != "allowed_tools":
        raise shapes.unsupported("tool_choice", f"is of type `{choice.type}`; `function` and `allowed_tools` are supported")
    if choice.allowed_tools is None:
        raise BadRequestError("`tool_choice.allowed_tools` is missing", param="tool_choice.allowed_tools")
    allowed = tuple(
        _chosen_name(one, names, f"tool_choice.allowed_tools.tools.{at}") for at, one in enumerate(choice.allowed_tools.tools)
    )
    return ((), allowed) if choice.allowed_tools.mode == "required" else (allowed, ())


def _chosen_name(tool: shapes.NamedTool, names: Mapping[str, object], where: str) -> str:
    if tool.type != "function":
        raise shapes.unsupported(f"{where}.type", f"is `{tool.type}`; only functions are supported")
    if tool.function is None:
        raise BadRequestError(f"`{where}.function` is missing", param=f"{where}.function")
    if tool.function.name not in names:
        raise BadRequestError(f"`{where}` names `{tool.function.name}`, which is none of the tools: {', '.join(names)}", param=where)
    return tool.function.name


def _content(turn: shapes.Turn, where: str) -> str:
    """A turn's text. An assistant may have said nothing, or have refused to."""
    if turn.content is None and turn.role == "assistant":
        return turn.refusal or ""
    if turn.content is None:
        is_null = "content" in turn.model_fields_set
        problem = f"is null; of a `{turn.role}` message it has to be a text, which may be empty" if is_null else "is missing"
        raise BadRequestError(f"`{where}.content` {problem}", param=f"{where}.content")
    if isinstance(turn.content, str):
        return turn.content
    return joined(turn.content, f"{where}.content")


def joined(parts: Sequence[shapes.Part], where: str) -> str:
    """The text that parts are together, which stand at `where`. Raises BadRequestError."""
    return "\n".join(_said(part, where, at) for at, part in enumerate(parts))


def _said(part: shapes.Part, where: str, at: int) -> str:
    if part.type not in ("text", "refusal"):
        raise shapes.unsupported(where, f"holds a part of type `{part.type}`; only text is supported")
    said = part.text if part.type == "text" else part.refusal
    if said is None:
        raise BadRequestError(f"`{where}.{at}.{part.type}` is missing", param=f"{where}.{at}.{part.type}")
    return said


def _numbered(request: Request, at: int) -> Request:
    """The answers to one prompt differ, and with a seed are the same ones again. Another seed has others, however near it is."""
    if request.seed is None or not at:
        return request
    drawn = hashlib.sha256(f"{request.seed} {at}".encode()).digest()
    return replace(request, seed=int.from_bytes(drawn[:4]) % MOST_DRAWN_SEEDS)


def _form(asked: shapes.Format | None) -> dict[str, Any]:
    """What an answer has to follow: a schema, where clients write it, and what is said of it."""
    if asked is None or asked.type == "text":
        return {}
    about = asked.json_schema or shapes.Schema()
    within = {"json_schema.schema": about.schema_}
    if asked.type != "json_schema":
        within |= {"schema": asked.schema_, "value": asked.value}
    told = (as_json(schema, f"response_format.{place}") for place, schema in within.items() if schema is not None)
    schema = next(told, None if asked.type == "json_schema" else ANY_OBJECT)
    if schema is None:
        raise BadRequestError("`response_format.json_schema.schema` is missing", param="response_format")
    is_any = asked.type != "json_schema" and schema == ANY_OBJECT
    mode: SchemaMode | None = "json_object" if is_any else "strict" if about.strict else None
    return {
        "json_schema": schema, "schema_mode": mode, "schema_name": about.name or "", "schema_description": about.description or "",
    }  # fmt: skip


def as_json(value: object, where: str, *, sort_keys: bool = False) -> str:
    """JSON again, of a value that stands at `where`. Raises BadRequestError for numbers that Python reads, and JSON does not have."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=sort_keys)
    except ValueError as exc:
        raise BadRequestError(f"`{where}` holds a number that JSON does not have (NaN, Infinity, 1e999)", param=where) from exc


def _sampling(asked: shapes.Settings) -> dict[str, Any]:
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
        **_form(asked.response_format),
        "seed": None if asked.seed in (None, shapes.RANDOM_SEED) else asked.seed % MOST_SEEDS,
        "stop": tuple(text for text in stop if text),
    }
