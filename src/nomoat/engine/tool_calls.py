"""Functions that a model may call: how they are told to it, what an answer that calls is held to, and how calls are found in it.

A chat template that reads `tools` and shows `tool_calls` tells them in its own words. For others the functions stand in the system
message, and calls and what they came to in the turns' texts, in the form that Hermes and Qwen2.5 learned:
`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

Not covered: calls that a model writes in a form of its own that is no JSON (Qwen3-Coder's `<function=...>`), and calls without
marks behind a thought; they stay text.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
from collections.abc import Container, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from nomoat.engine import harmony, rendering
from nomoat.engine.json_schema import BRANCHES, mapped
from nomoat.matching import DRAFT_BEGINS, DRAFT_ENDS, begun_length
from nomoat.records import CallingTurn, Chunk, Message, Request, ToolCall, ToolResult
from nomoat.textfiles import whole_characters

OPENING, CLOSING = harmony.CALL_BEGINS, harmony.CALL_ENDS
CALL_BEGINS = re.compile(r'\{\s*"(?:name|type|function|arguments|parameters|id)"')
# How an answer begins that may be calls without these marks, alone or in a fence.
BEFORE_BARE = r"\s*(?:```(?:json)?\s*)?\[?\s*\{?"
BARE = BEFORE_BARE + CALL_BEGINS.pattern
# What else may stand around and between such calls. A small model loses count of brackets and fences.
AROUND = re.compile(r"\A(?:[\s;,\[\]}]|```(?:json)?(?![a-z])|</tool_call>)*")
ANOTHER_OF_LIST = re.compile(r"\s*,\s*\{")
DECODER = json.JSONDecoder(strict=False)  # models break lines within texts
KEYS = frozenset({"name", "arguments", "parameters", "type", "id"})  # of a call
ONE_AT_ONCE = "single tool-call"  # how Llama 3's templates refuse a turn of several
OTHER_NAME = '"tool_name"'  # of a function in a call, to Command R
ID_LETTERS, ID_LENGTH = string.ascii_letters + string.digits, 9  # as Mistral's templates want them; to others any id is right
COUNTS_ID = re.compile(rf"\|\s*length\s*(?:[!=]=|<)\s*{ID_LENGTH}\b")  # how these refuse other ids
ADDS_DESCRIPTIONS = re.compile(r"\+ t\S*description")  # of functions, to texts: one that is not there would end it (Hermes, GPT-OSS)
INSTRUCTION = """# Tools

You may call functions. They are, one a line:
<tools>
{tools}
</tools>

To call one, answer with its name and its arguments as JSON, within <tool_call></tool_call>, and nothing else:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>"""


# ---------------------------------------------------------------- to the model
def for_template(
    template: str, messages: Sequence[Message], tools: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """What a chat template is given as `messages` and as `tools`."""
    in_channels = harmony.is_spoken(template)
    if in_channels:
        messages = list(harmony.told(messages))
    has_tools = bool(tools) or any(isinstance(message, CallingTurn | ToolResult) for message in messages)
    if has_tools and reads_tools(template):  # to look at a template takes as long as to compile it
        if COUNTS_ID.search(template):
            messages = [_with_short_ids(message) for message in messages]
        names = {call.id: call.name for message in messages if isinstance(message, CallingTurn) for call in message.calls}
        definitions = [_definition(tool) for tool in tools]
        if ADDS_DESCRIPTIONS.search(template):
            definitions = [_described(one) for one in definitions]
        return [_turn(message, names) for message in messages], definitions or None
    return [{"role": message.role, "content": message.content} for message in _without_tools(messages, tools)], None


def reads_tools(template: str) -> bool:
    """Whether a chat template has words for functions and for their calls."""
    return "tool_calls" in template and "tools" in rendering.variables_of(template)


def reads_calls_of(template: str) -> bool:
    """Whether a chat template has such words, and calls as it shows them are found in an answer."""
    return reads_tools(template) and OTHER_NAME not in template


def start(template: str) -> str:
    """What stands before a call, in the model's mouth."""
    return f"{OPENING}\n" if OPENING in template or not reads_tools(template) else ""


def notes(template: str, request: Request) -> tuple[str, ...]:
    """What a model on this machine, and its chat template, make less of than a request may expect."""
    said = [f"the model's chat template does not read `{name}`" for name in rendering.unread_variables(template, request)]
    if request.tools and not reads_tools(template):
        said.append("the model's chat template knows no tools: they stand in the system message")
    if any(message.name for message in request.messages if not isinstance(message, ToolResult)):
        said.append("the model is not told the `name` of who speaks")
    if request.verbosity not in (None, "medium"):
        said.append("the model is not told `verbosity`: say in a message how long the answer is to be")
    return tuple(said)


def schema(request: Request, template: str | None) -> str | None:
    """The JSON schema that an answer follows: the request's, that of its calls, or either. None, too, where one of GPT-OSS's has to
    come: `ChannelCallGrammar` holds it."""
    if request.must_call and harmony.is_spoken(template):
        return None
    if not (request.must_call or (request.tools and request.json_schema is not None)) or template is None:
        return request.json_schema
    either = schema_of_calls(request, template)
    if request.json_schema is not None and not request.must_call:
        try:
            either["$defs"]["answer"] = _moved(json.loads(request.json_schema), "#/$defs/answer")
        except RecursionError:
            return request.json_schema  # for the grammar to refuse
        either["anyOf"].insert(0, {"$ref": "#/$defs/answer"})
    return json.dumps(either)


def schema_of_calls(request: Request, template: str, *, free: Container[int] = ()) -> dict[str, Any]:
    """Of one call of any of the functions; those at the places `free` have any arguments."""
    definitions: dict[str, Any] = {}
    forms: list[dict[str, Any]] = []
    key = "parameters" if '"parameters": ' in template and reads_tools(template) and '"arguments' not in template else "arguments"
    for at, (name, parameters) in parameters_of(request).items():
        definitions[f"{at}"] = {"type": "object"} if at in free else _moved(parameters, f"#/$defs/{at}")
        parts = {"name": {"const": name}, key: {"$ref": f"#/$defs/{at}"}}
        forms.append({"type": "object", "properties": parts, "required": list(parts), "additionalProperties": False})
    return {"$defs": definitions, "anyOf": forms}


def parameters_of(request: Request) -> dict[int, tuple[str, dict[str, Any]]]:
    """Name and parameters of the functions that an answer may call, by their places among the request's."""
    only = request.must_call or request.may_call
    named = {at: (_name(tool), _parameters(tool)) for at, tool in enumerate(request.tools)}
    return {at: one for at, one in named.items() if not only or one[0] in only}


def _turn(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    """`names`: those of the functions that were called, by the calls' ids."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if isinstance(message, CallingTurn):
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
            for call in message.calls
        ]
    elif isinstance(message, ToolResult):
        turn |= {"tool_call_id": message.call_id, "name": names.get(message.call_id, "")}
    return turn


def _with_short_ids(message: Message) -> Message:
    """For a conversation that began elsewhere: an id of another form is always the same one of Mistral's, in calls and results."""
    if isinstance(message, CallingTurn):
        return replace(message, calls=tuple(replace(call, id=_short_id(call.id)) for call in message.calls))
    return replace(message, call_id=_short_id(message.call_id)) if isinstance(message, ToolResult) else message


def _short_id(given: str) -> str:
    is_short = len(given) == ID_LENGTH and set(ID_LETTERS).issuperset(given)
    return given if is_short else hashlib.sha256(given.encode()).hexdigest()[:ID_LENGTH]


def _without_tools(messages: Sequence[Message], tools: Sequence[str]) -> list[Message]:
    """For a template that knows no functions. What calls came to is one turn of the user, with what is asked after it."""
    told: list[Message] = []
    if tools:
        instruction = INSTRUCTION.format(tools="\n".join(json.dumps(_definition(tool), ensure_ascii=False) for tool in tools))
        system = messages[0].content if messages and messages[0].role == "system" else ""
        told.append(Message(role="system", content=f"{system}\n\n{instruction}".lstrip()))
        messages = messages[1:] if messages and messages[0].role == "system" else messages
    is_open = False
    for message in messages:
        is_result, content = isinstance(message, ToolResult), message.content
        if isinstance(message, CallingTurn):
            content = "\n".join([content] * bool(content) + [_shown(call) for call in message.calls])
        elif is_result:
            content = f"<tool_response>\n{content}\n</tool_response>"
        if is_open and (is_result or message.role == "user"):
            told[-1] = Message(role="user", content=f"{told[-1].content}\n{content}")
        else:
            told.append(Message(role="user" if is_result else message.role, content=content))
        is_open = is_result
    return told


def _shown(call: ToolCall) -> str:
    return f"{OPENING}\n{json.dumps({'name': call.name, 'arguments': _arguments(call)}, ensure_ascii=False)}\n{CLOSING}"


def _arguments(call: ToolCall) -> Any:
    """As templates want them; a text that is no JSON, or JSON of half a character, stays one."""
    try:
        arguments = json.loads(call.arguments or "{}")
        json.dumps(arguments, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return call.arguments
    return arguments


def _definition(tool: str) -> dict[str, Any]:
    """A function as models learned to read it: with parameters, and without what is said to servers."""
    told: dict[str, Any] = json.loads(tool)
    function = {"parameters": {"type": "object", "properties": {}}} | told["function"]
    order = ("name", "description", "parameters")
    return {"type": "function", "function": {name: function[name] for name in order if name in function}}


def _parameters(tool: str) -> dict[str, Any]:
    """The schema of a function's arguments. To OpenAI a function that says nothing of its parameters has none."""
    parameters: dict[str, Any] = _definition(tool)["function"]["parameters"] | {"type": "object"}
    takes_others = any(parameters.get(key) for key in ("$ref", "required", "patternProperties", *BRANCHES))
    if parameters.get("properties") == {} and not takes_others:
        return {"additionalProperties": False} | parameters
    return parameters


def _described(definition: Mapping[str, Any]) -> dict[str, Any]:
    function = definition["function"]
    return {**definition, "function": {**function, "description": function.get("description") or ""}}


def _name(tool: str) -> str:
    return str(json.loads(tool)["function"]["name"])


def _moved(schema: Any, to: str) -> Any:
    """A schema whose references to itself hold when it stands at `to` in another one."""

    def change(part: dict[str, Any]) -> dict[str, Any]:
        ref = part.get("$ref")
        return {**part, "$ref": to + ref[1:]} if isinstance(ref, str) and ref.startswith("#") else part

    return mapped(schema, change)


# ---------------------------------------------------------------- from the model
def recognised(chunks: Generator[Chunk], request: Request, template: str | None = None) -> Generator[Chunk]:
    """An answer's chunks, with the calls of the request's functions in place of the text they are written in, on the last one.

    A call that the token limit cuts, behind others, is left out, and the `finish_reason` stays "length". Where no more than one
    counts, it is "stop": that one is whole.
    """
    takes_one = only_first(request, template)
    reader = _Reader({name for name, _ in parameters_of(request).values()}, takes_one=takes_one)
    with closing(chunks):
        for chunk in chunks:
            text = reader.push(chunk.text)
            if chunk.finish_reason is None:
                yield replace(chunk, text=text)
                continue
            rest, calls = reader.finish()
            last = replace(chunk, text=text + rest, calls=calls)
            is_whole = takes_one and calls and chunk.finish_reason == "length"
            yield replace(last, finish_reason="stop") if is_whole else last


def only_first(request: Request, template: str | None) -> bool:
    """Whether no more than one call counts: the request says so, or the template takes no turn with several."""
    return request.one_call or ONE_AT_ONCE in (template or "") or harmony.is_spoken(template)


def another_begins(text: str) -> bool | None:
    """Whether this, behind a call without marks, begins another one; None if more of it tells."""
    rest = AROUND.sub("", text)
    return None if CLOSING.startswith(rest) else begins_bare(rest)


def begins_bare(text: str) -> bool | None:
    """Whether an answer with this beginning may be calls without marks; None if more of it tells."""
    import regex  # which tells the beginning of what may yet fit

    begins = regex.match(BARE, text, partial=True)
    return None if begins is not None and begins.partial else begins is not None


class _Reader:
    """Gives out text as it comes, and holds back what may be calls."""

    def __init__(self, functions: set[str], *, takes_one: bool) -> None:
        self._functions, self._takes_one = functions, takes_one
        self._held = ""
        self._given = ""
        self._is_text = False  # it has begun, and is no call alone
        self._may_be_calls = False

    def push(self, piece: str) -> str:
        self._held += piece
        if not self._is_text and not self._may_be_calls:
            if not self._held.strip():
                return ""
            begins = begins_bare(self._held)
            if begins is None:
                return ""
            self._may_be_calls, self._is_text = begins, not begins
        if self._may_be_calls:
            return ""
        at = self._held.find(OPENING)
        self._may_be_calls = at >= 0
        if at < 0:
            at = len(self._held) - begun_length(self._held, OPENING)
        text = self._held[:at]
        if not self._given and not text.strip():
            return ""
        self._held = self._held[at:]
        self._given += text
        return text

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What was held back: text, calls, or both."""
        calls = () if self._given else _calls_at_start(self._held, self._functions, is_marked=False)
        begins = _behind_thought(self._held, self._functions, is_bare=bool(calls))
        text = ""
        if begins or not calls:  # what stands without marks behind a thought is no call
            said, _, marked = self._held[begins:].partition(OPENING)
            calls = _calls_at_start(marked, self._functions, is_marked=True)
            text = self._held[:begins] + said
        if not calls:
            return self._held, ()
        return text if text.strip() else "", calls[:1] if self._takes_one else calls


def _behind_thought(text: str, functions: set[str], *, is_bare: bool) -> int:
    """Where an answer begins: behind the last mark that ends a thought. One within a call, as in an argument, ends none.

    `is_bare`: it begins with calls without marks, and a thought that begins behind them is not the answer's first.
    """
    begins = at = 0
    while (mark := text.find(DRAFT_ENDS, at)) >= 0:
        start, at = at, _behind_calls(text, at, mark, functions)
        if at <= mark:
            at = mark + len(DRAFT_ENDS)
            if not (is_bare and DRAFT_BEGINS in text[start:mark]):
                begins = at
    return begins


def _behind_calls(text: str, start: int, stop: int, functions: set[str]) -> int:
    """Behind the last whole call that begins between two places; no further than `stop` if none goes beyond."""
    while found := CALL_BEGINS.search(text, start, stop):
        start = found.end()
        with suppress(ValueError, RecursionError):
            value, end = DECODER.raw_decode(text, found.start())
            if _call(value, functions):
                start = end
    return start


def _calls_at_start(rest: str, functions: set[str], *, is_marked: bool) -> tuple[ToolCall, ...]:
    """The calls that a text begins with, and those behind marks that follow.

    `is_marked`: the text stands behind a mark. Calls without marks follow one another; in marks there may be a list of them. What a
    model writes between and behind calls is left out.
    """
    found: list[ToolCall] = []
    while rest := AROUND.sub("", rest):
        try:
            value, end = DECODER.raw_decode(rest, int(rest.startswith("{{")))  # as the template of Qwen2.5-Coder shows it
        except (ValueError, RecursionError):
            break
        call = _call(value, functions)
        if call is None:
            break
        found.append(call)
        rest = rest[end:]
        if not (ANOTHER_OF_LIST.match(rest) if is_marked else another_begins(rest)):
            rest, is_marked = _behind_mark(rest)
    return tuple(found)


def _behind_mark(text: str) -> tuple[str, bool]:
    """What stands behind the next mark of a call that is in no thought; whether there is one."""
    before, mark, rest = text.partition(OPENING)
    while mark and before.rfind(DRAFT_BEGINS) > before.rfind(DRAFT_ENDS):
        before, mark, rest = rest.partition(DRAFT_ENDS)[2].partition(OPENING)
    return rest, bool(mark)


def _call(value: Any, functions: set[str]) -> ToolCall | None:
    """One of the functions' calls, in any of the forms that models write as JSON; None for what is none, or has arguments that are no
    JSON or hold half a character."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not KEYS.issuperset(value):
        return None
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters"))
    try:
        if isinstance(arguments, str):
            arguments = json.loads(arguments or "null")
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or name not in functions or not isinstance(arguments, dict):
            return None
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (ValueError, RecursionError):
        return None
    return ToolCall(id=new_id(), name=name, arguments=text)


def new_id() -> str:
    """Of a call; no other of the conversation has it."""
    return "".join(secrets.choice(ID_LETTERS) for _ in range(ID_LENGTH))


class Gathered:
    """Calls whose parts come from a server one after another."""

    def __init__(self) -> None:
        self._parts: list[dict[str, str]] = []
        self._newest: dict[int, dict[str, str]] = {}  # of the parts, by the number that the server gave

    def add(self, told: Sequence[Any]) -> None:
        """Parts as OpenAI's SDK reads them. Raises TypeError for what is no text.

        Servers that send whole calls may not number them, or give all the number 0; others give each part an id of its own.
        """
        for part in told:
            place = part.index if isinstance(part.index, int) else len(self._parts) - (not part.id)
            known = self._newest.get(place)
            is_besides = known is not None and part.function is None  # as Gemini's signature; a first part without one is no call
            name, arguments = ("", "") if is_besides else (part.function.name or "", part.function.arguments or "")
            if known is None or (name and part.id and known["id"] not in ("", part.id)):
                known = self._newest[place] = {"id": "", "name": "", "arguments": "", "extra_content": ""}
                self._parts.append(known)
            known["id"] += (not known["id"] and part.id) or ""
            known["name"] += name
            known["arguments"] += arguments
            if isinstance(extra := getattr(part, "extra_content", None), dict):
                known["extra_content"] = json.dumps(extra, ensure_ascii=False)

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """Each with an id, and in whole characters, whatever the server sent."""
        whole = [{key: whole_characters(text) for key, text in part.items()} for part in self._parts]
        return tuple(ToolCall(**(one | {"id": one["id"] or new_id()})) for one in whole)
