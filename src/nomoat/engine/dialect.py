"""Where OpenAI-compatible servers differ: what a request is called there, what a server turns out to refuse and in which words, what
its answers look like, and how it counts tokens.

Providers change what their models take faster than a table of them could be kept right, so a refused setting is learned from the
refusal: it names the setting, the request is sent again without it, and `notes` says what that means for the answers.

What this does not cover: a server that ignores a setting without a word.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from nomoat import providers
from nomoat.errors import RemoteError, UnsupportedError
from nomoat.records import CallingTurn, Message, Request, ToolCall, ToolResult

# What may be left out, and what that means for the answers. `top_p` comes first: some refuse it beside `temperature`.
DISPENSABLE = {
    "top_p": "refuses `top_p`: it samples from all words",
    "temperature": "refuses `temperature`: its answers are its own sampling, not the likeliest words",
    "seed": "refuses `seed`: asked again it may answer otherwise",
    "reasoning_effort": "refuses `reasoning_effort`: it thinks as long as it does by itself",
    "verbosity": "refuses `verbosity`: its answers are as long as it makes them by itself",
    "stream_options": "",  # some count without it; of those that do not, each answer's cost is said to be not known
}
BY_VALUE = ("reasoning_effort", "verbosity")
WHOLE = "refuses to stream: answers come whole, and when the first word was there is not known"
REFUSED = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|not permitted|not allowed|not valid|deprecated|extra inputs|cannot"
    r"|must be verified"  # OpenAI of an organisation, before it streams its newest models
    r"|only messages? of role",  # xAI of names
    re.IGNORECASE,
)
# Of who speaks: neither a function's, further down in a message, nor one in a request that is repeated, which its value follows, nor
# one that is proposed in place of another field, or expected (serde's words), nor what another field is called.
NO_FUNCTION = "(?!tool_call|function(?!-))"  # `function-after[…]` is how pydantic calls a model with a validator
NAME = r"(?:(?<!mean )[\"'`]name[\"'`](?!\s*:)|\bname (?:field|property)\b|\b(?:field|property) name\b(?!:?(?: is)? [\"'`]))"
NAME_REFUSED = re.compile(
    rf"\bmessages?\b(?:{NO_FUNCTION}(?:[^\s{{}}:;\"'`]|, | -> )){{0,80}}(?:[./]| -> )name\b"
    rf"|{NAME}(?:{NO_FUNCTION}[^{{}}]){{0,200}}\bmessages?\b(?:\W?\d+)?"
    rf"|\bmessages?\b(?:{NO_FUNCTION}(?!\bexpected )[^{{}}]){{0,200}}{NAME}",
    re.IGNORECASE,
)
ONLY_NAME = re.compile(r"\bonly messages? of role [\"'`]?(\w+)[\"'`]? can have a name\b", re.IGNORECASE)
# That it is streaming which is refused: other refusals repeat the request, which has `"stream": true` in it, or are of broken ones.
REFUSED_TO_STREAM = re.compile(
    r"\b(?:cannot stream|stream this model|stream: extra inputs)\b|([\"'`])stream\1(?!\s*[:=]\s*true)"
    r"|\bstream(?:ing)?\b(?: \w+){0,3} (?:unsupported|not (?:supported|permitted|allowed|valid|available))\b"
    r"|\b(?:not support(?:ed)?|unsupported|cannot)\b:?(?: \w+){0,4} streaming\b|\bnot support stream\b"
    r"|\bstream\b[\"'`]?\s*[:=]\s*true[\"'`)]*(?: \w+){0,3} (?:unsupported|not (?:supported|permitted|allowed|available))\b"
    r"|\bstreaming\b[^.:,;{]{0,40} not supported\b"
    r"|\b(?:parameter|argument|field|property|setting|value|input)s?(?: supplied)?:? stream\b(?!\s*[:=])",
    re.IGNORECASE,
)
# How some say with 400 what others say with another status: Google and xAI of a key, Anthropic of credit, LiteLLM of a model, and of a
# key where it has no database to look in. At the beginning: behind it some repeat the request.
BAD_REQUEST, NOT_FOUND = 400, 404
MEANT = {
    401: re.compile(r"(?:api key (?:not valid|expired)|(?:incorrect|invalid) api key|no connected db)\b", re.IGNORECASE),
    402: re.compile(r"your credit balance is too low\b", re.IGNORECASE),
    NOT_FOUND: re.compile(
        r"(?:litellm\.BadRequestError: )?you passed in model=|(?:/\S+: )?invalid model name passed in model=", re.IGNORECASE
    ),
}
NO_SUCH_MODEL = "model_not_found"  # OpenAI's code for 404, which others send with 400
# llama-cpp-python's server says with 500, which elsewhere passes, what FastAPI says with 422.
INVALID, SERVER_ERROR, UNPROCESSABLE = re.compile(r"\d+ validation errors?\b"), 500, 422
END_MARK = re.compile(rb"[\r\n]data: ?\[DONE\]")
ERROR_EVENT = re.compile(rb"[\r\n]event: ?error[\r\n]")
LONGEST_MARK_BYTES = len(b"\ndata: [DONE]")
EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")
MOST_HELD_BYTES = 16 << 20  # of an answer in JSON, or of one event, which are read whole: longer than any model writes
MOST_TOKENS = 10**9  # no context is nearly so long


class Dialect:
    """How one model of one server wants to be asked. Learns from refusals; safe to use from several threads."""

    def __init__(self, host: str, *, is_cloud: bool) -> None:
        self._host = host
        self._is_cloud = is_cloud
        self._lock = threading.Lock()
        self._left_out: set[str] = set()
        self._streams = True
        # Values of BY_VALUE, each by itself: models take some of OpenAI's.
        self._refused: frozenset[tuple[str, str | None]] = frozenset()
        self._nameless: frozenset[str] = frozenset()  # roles of messages that take no `name`
        self._provider = providers.at(host)
        self._newer_limit = self._provider is not None and self._provider.has_newer_limit
        self._limit_renamed = False
        self._system_role = self._extra_content = True
        self.gives_reasons: bool | None = None  # whether its streams say why they end; None: not known yet

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refused, in words, where it changes what its answers mean."""
        left_out = self._left_out | {name for name, _ in self._refused}
        return self._notes(left_out, has_system=True, lacks_names=bool(self._nameless - {"tool"}))

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """Those of `notes` that concern the answer to this request."""
        unasked = {"top_p"} if request.top_p == 1.0 else set()
        if request.seed is None:
            unasked.add("seed")
        left_out = (self._left_out - unasked) | {name for name in BY_VALUE if (name, getattr(request, name)) in self._refused}
        has_system = any(message.role == "system" for message in request.messages)
        lacks_names = any(message.name and message.role in self._nameless - {"tool"} for message in request.messages)
        return self._notes(left_out, has_system=has_system, lacks_names=lacks_names)

    def _notes(self, left_out: set[str], *, has_system: bool, lacks_names: bool) -> tuple[str, ...]:
        said = [note for name, note in DISPENSABLE.items() if name in left_out and note]
        if not self._streams:
            said.append(WHOLE)
        if has_system and not self._system_role:
            said.append("takes no system message: it was put before the next question")
        if lacks_names:
            said.append("takes no `name` of who speaks: it was left out")
        return tuple(said)

    def body(self, model: str, request: Request) -> dict[str, Any]:
        """The request in this server's words. Raises `refusal`."""
        if (refusal := self.refusal(request)) is not None:
            raise refusal
        newer = self._newer_limit and request.prompt is None
        settings: dict[str, Any] = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True} if self._streams else None,
            "max_completion_tokens" if newer else "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "top_p": None if request.top_p == 1.0 else request.top_p,  # some models take temperature or top_p, not both
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "presence_penalty": request.presence_penalty or None,
            "frequency_penalty": request.frequency_penalty or None,
            "response_format": None if request.json_schema is None else _response_format(request, request.json_schema),
        }
        if request.tools:
            settings |= _about_tools(request, takes_names=self._provider is not None)
        settings["extra_body"] = self._extra_body(request) or None
        if request.prompt is not None:
            settings |= {"prompt": request.prompt, "suffix": request.suffix or None}
        else:
            settings |= {"messages": self._messages(request), "reasoning_effort": self._taken(request, "reasoning_effort")}
        return {name: value for name, value in settings.items() if value is not None and name not in self._left_out}

    def _extra_body(self, request: Request) -> dict[str, Any]:
        """What the SDK, or an older release of it, has no words for."""
        extra = _beside_openais(request)
        if request.prompt is None and (verbosity := self._taken(request, "verbosity")) is not None:
            extra["verbosity"] = verbosity
        if not self._streams:  # the SDK is told otherwise, so that it leaves the reading to us: see `Body`
            extra["stream"] = False
        return extra

    def _taken(self, request: Request, name: str) -> str | None:
        """The request's value of one of BY_VALUE, which plain completions have not; None where it was refused."""
        value: str | None = getattr(request, name)
        return None if (name, value) in self._refused else value

    def refusal(self, request: Request) -> UnsupportedError | None:
        """What says that this cannot be asked there; None if it can, as far as is known before asking."""
        if request.prompt_ids is not None or request.top_logprobs is not None:
            return UnsupportedError(
                f"`{self._host}` is asked for text: it takes no token ids and gives no likelihoods here",
                hint="use a model on this machine",
            )
        if request.prompt is not None and self._provider is not None and self._provider.chats_only:
            return UnsupportedError(f"`{self._host}` takes conversations only", hint="use a model on this machine, or ask as a chat")
        if request.prompt is not None and self._is_cloud and self._provider is None:
            return UnsupportedError(
                f"`{self._host}` is named by OPENAI_BASE_URL, and what `openai:` names takes conversations only",
                hint="name the server itself, as `http://host:port/v1#model`, if it takes prompts without a chat",
            )
        if request.answer_start:
            return UnsupportedError(f"`{self._host}` begins its answers itself", hint="use a model on this machine")
        beside_openais = _beside_openais(request)
        if beside_openais and self._is_cloud:
            name = next(iter(beside_openais))
            hint = "leave it out" if name == "chat_template_kwargs" else "leave it out, or use top_p"
            return UnsupportedError(f"`{self._host}` has no {name}", hint=hint)
        return None

    def learn(self, refusal: str, body: dict[str, Any]) -> bool:
        """Whether a refusal (status 400, or 422: see `meant_status`) says what to ask otherwise than `body` did; it is asked otherwise
        from now on.

        Where that changes nothing for this request, its body is the same again.
        """
        if not REFUSED.search(refusal):
            return False
        with self._lock:
            for name in DISPENSABLE:
                if name in (told := body | body.get("extra_body", {})) and _names(refusal, name):
                    if name in BY_VALUE:
                        self._refused |= {(name, told[name])}
                    else:
                        self._left_out.add(name)
                    return True
            for sent in ("max_tokens", "max_completion_tokens"):
                if sent in body and _names(refusal, sent) and self._rename_limit(sent):
                    return True
            return self._learn_form(refusal, body)

    def _learn_form(self, refusal: str, body: dict[str, Any]) -> bool:
        """As `learn`, of what is no setting to leave out. That of streaming comes last: others repeat the request, it among them."""
        messages = body.get("messages", [])
        if _names(refusal, "extra_content") and '"extra_content"' in json.dumps(messages):
            self._extra_content = False
            return True
        if nameless := _roles_without_name(refusal, messages):
            self._nameless |= nameless
            return True
        sends_system = any(message["role"] == "system" for message in messages)
        if sends_system and _names(refusal, "system") and _names(refusal, "roles?"):
            self._system_role = False
            return True
        if body.get("extra_body", {}).get("stream", True) and REFUSED_TO_STREAM.search(refusal):
            self._streams = False
            return True
        return False

    def _rename_limit(self, sent: str) -> bool:
        """Try the other name, once; another thread may have done so already."""
        now = "max_completion_tokens" if self._newer_limit else "max_tokens"
        if sent != now:
            return True
        if self._limit_renamed:
            return False
        self._newer_limit, self._limit_renamed = not self._newer_limit, True
        return True

    def _messages(self, request: Request) -> list[dict[str, Any]]:
        """Where a server takes no system message, each is put before the question that comes next, or is one if none does."""
        rows: list[dict[str, Any]] = []
        held: list[str] = []
        for message in request.messages:
            if message.role == "system" and not self._system_role:
                held.append(message.content)
                continue
            before, held = (held, []) if message.role == "user" else ([], held)
            named = {"name": message.name} if message.name and message.role not in self._nameless else {}
            rows.append({"role": message.role, "content": "\n\n".join([*before, message.content]), **named, **self._called(message)})
        return [*rows, {"role": "user", "content": "\n\n".join(held)}] if held else rows

    def _called(self, message: Message) -> dict[str, Any]:
        """What a turn with calls, or of what one came to, has besides; a turn of calls alone has no text."""
        if isinstance(message, ToolResult):
            return {"tool_call_id": message.call_id}
        if not isinstance(message, CallingTurn):
            return {}
        calls = [call if self._extra_content else replace(call, extra_content="") for call in message.calls]
        return {"tool_calls": [render_call(call) for call in calls]} | ({} if message.content else {"content": None})


def render_call(call: ToolCall) -> dict[str, Any]:
    """In OpenAI's form."""
    row = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    return row | ({"extra_content": json.loads(call.extra_content)} if call.extra_content else {})


def _about_tools(request: Request, *, takes_names: bool) -> dict[str, Any]:
    """Of a choice among some of the functions few servers know: they are told of these alone. So they are of a named one but for
    those that take names: LM Studio refuses a name as `tool_choice`, and llama.cpp's server takes it for `auto`.
    """
    only = request.must_call or request.may_call
    tools = [json.loads(tool) for tool in request.tools]
    settings: dict[str, Any] = {"tools": tools}
    if takes_names and len(request.must_call) == 1 < len(tools):
        settings["tool_choice"] = {"type": "function", "function": {"name": request.must_call[0]}}
    elif only:
        settings["tools"] = [tool for tool in tools if tool["function"]["name"] in only]
        settings |= {"tool_choice": "required"} if request.must_call else {}
    return settings | ({"parallel_tool_calls": False} if request.one_call else {})


def _beside_openais(request: Request) -> dict[str, Any]:
    """Settings that OpenAI's API does not have and other servers take."""
    extra: dict[str, Any] = {}
    if request.top_k:
        extra["top_k"] = request.top_k
    if request.min_p:
        extra["min_p"] = request.min_p
    if request.repetition_penalty != 1:
        extra["repetition_penalty"] = request.repetition_penalty
    if request.template_variables:
        extra["chat_template_kwargs"] = json.loads(request.template_variables)
    return extra


def _response_format(request: Request, json_schema: str) -> dict[str, Any]:
    if request.schema_mode == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": request.schema_name or "answer", "schema": json.loads(json_schema)}
    if request.schema_description:
        schema["description"] = request.schema_description
    if request.schema_mode == "strict":
        schema["strict"] = True
    return {"type": "json_schema", "json_schema": schema}


def _roles_without_name(refusal: str, messages: list[dict[str, Any]]) -> set[str]:
    """Of the messages that were sent with a name: the role of the one whose name is refused, of all where none is told."""
    if only := ONLY_NAME.search(refusal):
        return _named(messages) - {only[1].lower()}
    if (refused := NAME_REFUSED.search(refusal)) is None:
        return set()
    at = re.search(r"\b\d{1,9}\b", refused[0])
    return _named(messages[int(at[0]) :][:1] if at else []) or _named(messages)


def _named(messages: list[dict[str, Any]]) -> set[str]:
    return {message["role"] for message in messages if "name" in message}


def _names(refusal: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", refusal, re.IGNORECASE) is not None


def _count(told: Any, name: str) -> int | None:
    """What a server counted under this name; None if it did not, or as what no count can be: half, negative, beyond any context."""
    value = getattr(told, name, None)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def prompt_tokens(told: Any) -> int | None:
    """Those that were read; None if the server did not count them. No prompt has none."""
    return _count(told, "prompt_tokens") or None


def cached_tokens(told: Any) -> int:
    """Those of the prompt that the server did not read; 0 if it does not tell."""
    return min(prompt_tokens(told) or 0, _count(getattr(told, "prompt_tokens_details", None), "cached_tokens") or 0)


def completion_tokens(told: Any, *, has_written: bool) -> int | None:
    """What was written, hidden reasoning included: Gemini counts it in the total only. None if the server did not count it.

    `has_written`: there is an answer, which has at least one.
    """
    read, total = prompt_tokens(told), _count(told, "total_tokens")
    counted = [_count(told, "completion_tokens"), None if read is None or total is None else total - read]
    most = max((tokens for tokens in counted if tokens is not None), default=-1)
    return most if most >= has_written else None


class Body:
    """The body of an answer, read by the SDK as a stream of events, though the server may have sent the whole answer as JSON.

    Known once it is read: `is_stream`: it was none of these; `is_whole`: it was, or its last event is the end mark of streams;
    `is_cut_json`: it was JSON that ends midway, of which no event is made; `has_error_event`: an event was named `error`.
    """

    def __init__(self, response: Any, too_long: Callable[[], RemoteError]) -> None:
        """`response`: httpx's, of which nothing is read yet. `too_long`: what is raised for JSON, or an event, without end."""
        self._too_long = too_long
        self.is_stream, self.is_whole, self.is_cut_json, self.has_error_event = True, False, False, False
        self._bytes = response.iter_bytes
        response.iter_bytes = self._events

    def _events(self) -> Iterator[bytes]:
        """In bytes. Raises ValueError for what begins as JSON does and is none."""
        before, num_held = b"\n", 0
        pieces = self._bytes()
        for piece in pieces:
            if not before.strip() and piece.lstrip().startswith(b"{"):  # no event begins so
                answer = bytearray(piece)
                for more in pieces:
                    answer += more
                    self._require_held(len(answer))
                self.is_cut_json = not answer.rstrip().endswith(b"}")
                if not self.is_cut_json:
                    yield _as_event(bytes(answer))
                self.is_stream, self.is_whole = False, not self.is_cut_json
                return
            before += piece
            self.is_whole = self.is_whole or END_MARK.search(before) is not None
            self.has_error_event = self.has_error_event or ERROR_EVENT.search(before) is not None
            ended = max(before.rfind(end) for end in EVENT_ENDS)
            num_held = num_held + len(piece) if ended < 0 else len(before) - ended
            self._require_held(num_held)
            before = before[-LONGEST_MARK_BYTES:]
            yield piece

    def _require_held(self, num_bytes: int) -> None:
        if num_bytes > MOST_HELD_BYTES:
            raise self._too_long()


def _as_event(answer: bytes) -> bytes:
    """A whole answer in JSON as the one event of a stream."""
    told = json.loads(answer)
    choices = told.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and isinstance(message := choice.get("message"), dict):
            calls = message.get("tool_calls")
            if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
                calls = [{"index": at, **call} for at, call in enumerate(calls)]
            choice["delta"] = message | {"tool_calls": calls}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def text_of(content: Any) -> Any:
    """The text of what a message says, where it comes in parts: those that are text, and not what was thought. Else as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    texts = [part.get("text") for part in content if part.get("type", "text") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def status_in(error: Any) -> int | None:
    """The HTTP status that an error's own code is, where a server sends it within an answer of status 200; None if it is none."""
    code = error.get("code") if isinstance(error, dict) else None
    number = int(code) if isinstance(code, str) and code.isdecimal() and len(code) == len("429") else code
    return number if type(number) is int and 400 <= number < 600 else None


def words_of(error: Any) -> str:
    """The words of an error's body, in any of the forms servers give it; empty where it has none."""
    said = error[0] if isinstance(error, list) and error else error
    if isinstance(said, dict):
        said = said.get("error") or said
    while isinstance(said, dict) and (told := said.get("message") or said.get("detail") or said.get("text")):  # Mistral's has two
        said = told
    if isinstance(said, list) and all(isinstance(row, dict) and "msg" in row for row in said):  # FastAPI's
        said = "; ".join(_invalid_field(row) for row in said)
    return str(said or "")


def _invalid_field(row: dict[str, Any]) -> str:
    place = row.get("loc")
    named = ".".join(map(str, place)) if isinstance(place, list) else ""
    return f"{named}: {row['msg']}" if named else str(row["msg"])


def meant_status(status: int, said: str, code: object) -> int:
    """The HTTP status that says what an error's words and code say: some refuse a key, or a model, as a bad request, or fail for a
    field."""
    if status == BAD_REQUEST and code == NO_SUCH_MODEL:
        return NOT_FOUND
    if status == SERVER_ERROR and INVALID.match(said):
        return UNPROCESSABLE
    return next((meant for meant, words in MEANT.items() if status == BAD_REQUEST and words.match(said)), status)
