"""Conversations that end with an answer: chats as OpenAI, ShareGPT, Alpaca or TRL write them, of a file or of rows in its place.

`tune` learns their answers, and `judge` asks what stands before the last one, so that both see the same words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from nomoat import labelling, textfiles
from nomoat.errors import DataError
from nomoat.records import Message, Role
from nomoat.rows import Rows, Source, read_objects
from nomoat.tables import INPUT_NAMES, PASSAGES
from nomoat.words import LONGEST_NAME, first_few, has_several_words, is_blank, listed

CHAT_SUFFIXES = (*textfiles.JSONL_SUFFIXES, ".json")
Entries = list[tuple[str, dict[str, Any]]]  # each with its place, such as "line 3"
Form = Literal["OpenAI chats", "ShareGPT conversations", "Alpaca instructions", "prompts and completions"]
ROLES: dict[str, Role] = {**{role: role for role in get_args(Role)}, "developer": "system"}
SPEAKERS: dict[str, Role] = {
    "human": "user", "user": "user", "system": "system",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
}  # fmt: skip
NOTHING: tuple[Any, ...] = (None, "", [], {}, "[]", "{}")  # of a key that might as well be left out
NAMED_KEYS = 5  # of an entry that is no conversation
NAMED_NOT_READ = 10  # keys
KEYS_OF_CHATS = ("messages", "conversations", "instruction")  # or `prompt` with `completion`
FORMS = (
    '{"messages": [{"role": ..., "content": ...}]}', '{"conversations": [{"from": ..., "value": ...}]}',
    '{"instruction": ..., "output": ...}', '{"prompt": ..., "completion": ...}',
)  # fmt: skip
MESSAGE = '{"role": ..., "content": ...}'
FIELDS: Mapping[Form, tuple[str, ...]] = {
    "OpenAI chats": ("messages", "conversations"), "ShareGPT conversations": ("conversations",),
    "Alpaca instructions": ("instruction", "input", "output", "history"), "prompts and completions": ("prompt", "completion"),
}  # fmt: skip
ASKED_BEFORE = ("text", "question")  # columns that a table is rather asked by than by its `prompt`
RIGHT_ANSWERS = (  # columns that are no remark on a completion, such as its category
    "target", "gold", "reference", "expected", "answer", "label", "정답", "답",
)  # fmt: skip
SYSTEMS = ("system", "system_prompt")  # beside the turns
MARKS = ("weight", "loss", "train")  # of an answer: OpenAI's, XTuner's and ms-swift's, Axolotl's
KEYS_OF_TURNS = ("role", "content", "from", "value", *MARKS)
REASONING = ("reasoning_content", "reasoning", "thinking")  # beside an answer's text
BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")  # before a text
ALPACA_INPUT = "\n\n### Input:\n"  # between an instruction and its input, where the template is Alpaca's
ONE_SPACE = re.compile(r"\A (?=\S)")  # between a prompt and its completion
CALLS = ("tools", "functions", "tool_calls", "function_call")
NOT_LEARNED = (  # beside the turns, or in one of them: keys, why, and what to do
    (
        CALLS, "nomoat learns what is said, not how tools are called",
        "leave the conversation out, or write the tools and their calls into the texts of its turns",
    ),
    (("image", "images", "video", "videos", "audio", "audios"), "nomoat learns texts", "leave the conversation out"),
    (
        ("chosen", "rejected"), "nomoat learns answers, not which of two is the better one",
        "write the chosen answer as the conversation's last turn, and leave `chosen` and `rejected` out",
    ),
)  # fmt: skip
VERDICTS = ("label", "kto_tag")  # beside the turns: true of good answers, false of bad ones
CALLERS = ("tool", "function", "function_call", "tool_call", "tool_response", "function_response", "observation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A conversation that ends with an answer; every turn of the assistant is learned, but for those at the places `not_learned`.

    `where`: the place in the file, "line 3" or "entry 3", or "row 3" of rows, counted from 1. `turns`: of a table's row none; it has
    `text` and `label`, and the kept `question` that all rows share.
    `alpaca_question`: what a model with Alpaca's chat template is asked instead of the last question; None if that is the same.
    `reasoning`: the key under which it stands beside an answer to learn, which is without it; None if it does not.
    `is_cut`: turns behind the last answer to learn were left out.
    """

    where: str
    turns: tuple[Message, ...] = ()
    not_learned: tuple[int, ...] = ()
    text: str | None = None
    label: str | None = None
    question: str | None = None
    alpaca_question: str | None = None
    reasoning: str | None = None
    is_cut: bool = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The turns. A row's are made when they are asked for: each holds the whole question."""
        if self.text is None or self.label is None or self.question is None:
            return self.turns
        return (*labelling.messages_of(self.question, self.text), Message(role="assistant", content=self.label))

    @property
    def learned(self) -> list[int]:
        """The places of the answers to learn, from 0."""
        return [at for at, one in enumerate(self.messages) if one.role == "assistant" and at > 0 and at not in self.not_learned]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chats:
    """The lessons of a file or of rows, in their order. `form` is that of the first entry; `notes` say what was not read of them."""

    form: Form
    lessons: list[Lesson]
    notes: tuple[str, ...]


def read(path: Source) -> Chats:
    """Raises DataError, naming file and place, for what cannot be learned, with how many more lessons cannot."""
    return lessons_of(entries(path), path)


def lessons_of(found: Entries, path: Source) -> Chats:
    """As `read`, of the entries that were found in a file."""
    where, first = found[0]
    form = _form_of(first)
    if form is None:
        _require_learnable(first, path, where)
        keys = first_few([_shown(key) for key in first], NAMED_KEYS) or "none"
        raise DataError(f"`{path}`, {where}: no conversation; its keys are: {keys}", hint=f"write {listed(FORMS, last='or')}")
    readers = {
        "OpenAI chats": _open_ai, "ShareGPT conversations": _share_gpt, "Alpaca instructions": _alpaca,
        "prompts and completions": _prompted,
    }  # fmt: skip
    read_one = readers[form]
    lessons, faults = list[Lesson](), list[DataError]()
    for where, value in found:
        try:
            _require_learnable(value, path, where)
            lessons.append(read_one(value, path, where))
        except DataError as exc:
            faults.append(_other_form(value, form, path, where) or exc)
    require_none(faults)
    return Chats(form=form, lessons=lessons, notes=tuple(_notes(found, form, lessons)))


def _form_of(entry: Mapping[str, Any]) -> Form | None:
    if "conversations" in entry:
        return "OpenAI chats" if _has_roles(entry) else "ShareGPT conversations"
    if "instruction" in entry:
        return "Alpaca instructions"
    if "messages" in entry:
        return "OpenAI chats"
    return "prompts and completions" if is_prompt(entry) else None


def _other_form(entry: Mapping[str, Any], form: Form, path: Source, where: str) -> DataError | None:
    """What to say of an entry that could not be read, as it is of another form than the first."""
    its = _form_of(entry)
    has_no_turns = "conversations" in entry and _is_nothing(entry["conversations"])  # and so no form
    if its in (None, form) or has_no_turns:
        return None
    hint = "keep each form in a file of its own, or write all entries in one"
    return DataError(f"`{path}`, {where}: one of {its}, and the first is one of {form}", hint=hint)


def require_none(faults: Sequence[DataError]) -> None:
    """Raises the first of them, of lessons of a file, with how many more there are: else each would be told by a run of its own."""
    if not faults:
        return
    alike = sum(fault.hint == faults[0].hint for fault in faults)
    more = {"like it": alike - 1, "with other faults": len(faults) - alike}
    counts = ", ".join(f"{count:,} more {what}" for what, count in more.items() if count)
    raise DataError(f"{faults[0].message}{f' ({counts})' if counts else ''}", hint=faults[0].hint)


def _notes(found: Entries, form: Form, lessons: Sequence[Lesson]) -> Iterator[str]:
    entries, turns = Counter[str](), Counter[str]()
    for _, value in found:
        known = (*_fields(form, value), *SYSTEMS)
        entries.update(key for key, said in value.items() if not _is_nothing(said) and key not in known)
        for rows in (value.get(field) for field in FIELDS[form]):
            for row in rows if isinstance(rows, list) else ():
                said_of = row if isinstance(row, dict) else {}
                turns.update(key for key, said in said_of.items() if not _is_nothing(said) and key not in KEYS_OF_TURNS)
    of_entries, of_turns = ([f"{_shown(key)} ({count:,})" for key, count in keys.most_common()] for keys in (entries, turns))
    if named := first_few(of_entries, NAMED_NOT_READ):
        yield f"not read of lessons, with how many have it: {named}"
    if named := first_few(of_turns, NAMED_NOT_READ):
        yield f"not read of turns, with how many have it: {named}"
    count = sum(lesson.is_cut for lesson in lessons)
    if count == 1:
        yield "1 conversation ends with turns behind the last answer to learn, which are left out"
    elif count:
        yield f"{count:,} conversations end with turns behind the last answer to learn, which are left out"


def _fields(form: Form, value: dict[str, Any]) -> tuple[str, ...]:
    return (*FIELDS[form], *(_alpacas_keys(value) if form == "Alpaca instructions" else ()))


def _shown(key: str) -> str:
    return f"`{key[:LONGEST_NAME]}`"


def is_chat(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has the keys of a conversation."""
    return any(key in entry for key in KEYS_OF_CHATS) or is_prompt(entry)


def is_prompt(entry: Mapping[str, Any]) -> bool:
    """Whether an entry has a prompt and its completion; where it is no lesson, it is a table's row."""
    return "prompt" in entry and "completion" in entry and not any(key in entry for key in KEYS_OF_CHATS)


def other_answer(entry: Mapping[str, Any]) -> str | None:
    """The key of an answer beside that of the turns: `target`, or with a completion that is a text, a name of right answers alone.

    Logs of what models said have both. A verdict, true or false, is none.
    """
    if entry.get("target") is not None:
        return "target"
    are_texts = is_prompt(entry) and not any(isinstance(entry[key], list) for key in ("prompt", "completion"))
    beside = _named(entry, RIGHT_ANSWERS) if are_texts else ()
    return next((key for key in beside if not _is_verdict(key, entry[key])), None)


def _named(entry: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The keys that are called so, in whatever case, and say something."""
    return [key for key, said in entry.items() if textfiles.composed(key).strip().lower() in names and not _is_nothing(said)]


def _is_verdict(key: str, said: Any) -> bool:
    return key in VERDICTS and isinstance(said, bool)


def _is_nothing(said: Any) -> bool:
    return said in NOTHING or (isinstance(said, str) and is_blank(said))


def is_lesson(entry: Mapping[str, Any]) -> bool:
    """Whether an entry holds the answer to its question, as what `tune` learns does; an example of a suite has it as `target`.

    A prompt with its completion is a table's row where another column may be its question or its right answer.
    """
    if entry.get("target") is not None:
        return False
    if "conversations" in entry or "instruction" in entry:
        is_answered = "output" in entry or ("response" in entry and not _named(entry, RIGHT_ANSWERS))
        return "conversations" in entry or is_answered
    if is_prompt(entry):
        has_other_question = not isinstance(entry["prompt"], list) and _not_asked(entry, ASKED_BEFORE, [str(entry["prompt"])])
        return other_answer(entry) is None and not has_other_question
    turns = entry.get("messages")
    return isinstance(turns, list) and any(isinstance(turn, dict) and turn.get("role") == "assistant" for turn in turns)


def entries(path: Source) -> Entries:
    """The rows; or the objects of a JSONL file, or of a JSON file that is one list of them, or one of them over several lines."""
    if isinstance(path, Rows):
        return [(f"row {number}", value) for number, value in read_objects(path)]
    text = textfiles.read_text(path)
    if text.lstrip().startswith("["):
        values = textfiles.parse_json(text, path)
    elif _is_one_object(text):
        values = [textfiles.parse_json(text, path)]
    else:
        return [(f"line {line}", value) for line, value in textfiles.parse_jsonl(text, path)]
    has_escapes = "\\u" in text
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise DataError(f"`{path}`, entry {number}: not a JSON object", hint='each entry is one object: {"key": "value"}')
        if has_escapes:
            textfiles.utf8_json(value, path, f"entry {number}")
    if not values:
        raise DataError(f"`{path}` is an empty list", hint="each entry is one JSON object")
    return [(f"entry {number}", value) for number, value in enumerate(values, start=1)]


def _is_one_object(text: str) -> bool:
    """Whether a text is one JSON object, printed over several lines."""
    begin, _, rest = text.strip().partition("\n")
    try:
        json.loads(begin)
    except (ValueError, RecursionError):
        with suppress(ValueError, RecursionError):
            return bool(rest) and isinstance(json.loads(text), dict)
    return False


def _has_roles(value: Mapping[str, Any]) -> bool:
    """Whether the turns of `conversations` are OpenAI's messages, as many files on the hub have them."""
    turns = value["conversations"]
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and "role" in turns[0]


def _open_ai(value: dict[str, Any], path: Source, where: str) -> Lesson:
    field = "messages" if "messages" in value or "conversations" not in value else "conversations"
    return _of_messages(value, _rows(value, field, MESSAGE, path, where), path, where)


def _of_messages(value: dict[str, Any], rows: Sequence[Any], path: Source, where: str, *, num_read: int = 0) -> Lesson:
    wrong = "a message has role {!r} and content of type {}", f"roles are {', '.join(ROLES)}; the content is text"
    return _conversation(value, rows, path, where, keys=("role", "content"), roles=ROLES, wrong=wrong, num_read=num_read)


def _share_gpt(value: dict[str, Any], path: Source, where: str) -> Lesson:
    wrong = "a turn is from {!r} and has a value of type {}", f"turns are from {', '.join(SPEAKERS)}; the value is text"
    rows = _rows(value, "conversations", '{"from": ..., "value": ...}', path, where)
    return _conversation(value, rows, path, where, keys=("from", "value"), roles=SPEAKERS, wrong=wrong)


def _prompted(value: dict[str, Any], path: Source, where: str) -> Lesson:
    """TRL's `prompt` and `completion`: texts, or lists of messages. What the assistant says in a prompt is read and not learned."""
    parts = list[list[Any]]()
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(value.get(name), list):
            parts.append(_rows(value, name, MESSAGE, path, where))
            continue
        text = _as_text(value.get(name))
        if not isinstance(text, str) or is_blank(text):
            hint = "`prompt` and `completion` are texts, or lists of messages"
            raise DataError(f"`{path}`, {where}: `{name}` is {text!r}", hint=hint)
        parts.append([{"role": role, "content": ONE_SPACE.sub("", _without_space_around(text))}])
    prompt, completion = parts
    lesson = _of_messages(value, [*prompt, *completion], path, where, num_read=len(prompt))
    asked = [turn.content for turn in lesson.turns[: lesson.learned[0]]]
    _require_all_asked(value, "prompt", asked, path, where)
    return lesson


def _conversation(
    value: dict[str, Any], rows: Sequence[Any], path: Source, where: str, *, keys: tuple[str, str], roles: Mapping[str, Role],
    wrong: tuple[str, str], num_read: int = 0,
) -> Lesson:  # fmt: skip
    """The lesson of a conversation whose turns have these `keys`; `wrong`: what to say of one that is none, and the hint.

    `num_read`: of the first so many turns nothing is learned.
    """
    messages, not_learned, reasoning = _system_of(value, path, where), list[int](), list[str]()
    for number, row in enumerate(rows):
        _require_words_alone(row, path, where)
        speaker, content = (row.get(key) if isinstance(row, dict) else None for key in keys)
        content = _text_of_parts(content, path, where)
        if not isinstance(speaker, str) or speaker not in roles or not isinstance(content, str):
            raise DataError(f"`{path}`, {where}: {wrong[0].format(speaker, type(content).__name__)}", hint=wrong[1])
        role = roles[speaker]
        if number == 0 and role == "system" and messages:
            _require_same_system(messages[0].content, content, value, path, where)
            continue
        if role == "assistant" and (number < num_read or not _is_learned(row, path, where)):
            not_learned.append(len(messages))
        elif role == "assistant":
            _require_answer(content, path, where)
            _require_question(messages, path, where)
            reasoning += [name for name in REASONING if row.get(name) is not False and not _is_nothing(row.get(name))]
        messages.append(Message(role=role, content=content))
    return replace(_lesson(messages, path, where, not_learned), reasoning=reasoning[0] if reasoning else None)


def _require_same_system(beside: str, first: str, value: dict[str, Any], path: Source, where: str) -> None:
    """Raises DataError where the system says something else beside the turns than in the first of them."""
    if beside.strip() != first.strip():
        name = next(name for name in SYSTEMS if not _is_nothing(value.get(name)))
        raise DataError(f"`{path}`, {where}: it has a `{name}`, and begins with another message of the system", hint="make them one")


def _require_answer(content: str, path: Source, where: str) -> None:
    """Raises DataError for an answer to learn that is empty."""
    if is_blank(content):
        hint = 'write it, leave the conversation out, or give the answer "weight": 0, which is read and not learned'
        raise DataError(f"`{path}`, {where}: an answer of the assistant is empty", hint=hint)


def _require_question(before: Sequence[Message], path: Source, where: str) -> None:
    """Raises DataError for an answer to learn that nothing is asked before."""
    if before and before[-1].role == "user" and is_blank(before[-1].content):
        hint = "write it, or leave the conversation out"
        raise DataError(f"`{path}`, {where}: the question before an answer of the assistant is empty", hint=hint)


def _text_of_parts(content: Any, path: Source, where: str) -> Any:
    """A message's text, where it was written as a list of parts, as it is answered to; anything else as it is. Raises DataError."""
    if not isinstance(content, list) or not content or not all(isinstance(part, dict) for part in content):
        return content
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise DataError(
                f"`{path}`, {where}: a message holds a part of type {part.get('type')!r}, and nomoat learns texts",
                hint='leave the conversation out, or write the part as {"type": "text", "text": ...}',
            )
    return "\n".join(part["text"] for part in content)


def _alpacas_keys(value: Mapping[str, Any]) -> tuple[str, str, str]:
    """The keys of instruction, input and output. Dolly's `context` is the input where `input` says nothing, unless its words stand
    in the instruction; its `response` is the output where `output` is not there or empty.
    """
    context, instruction = _as_text(value.get("context")), str(value.get("instruction"))
    is_told = isinstance(context, str) and has_several_words(context) and stands_in(context, instruction)
    is_input = not _is_nothing(value.get("input")) or _is_nothing(context) or is_told
    is_response = "response" in value and (value.get("output") is None or value["output"] == "")
    return "instruction", "input" if is_input else "context", "response" if is_response else "output"


def _alpaca(value: dict[str, Any], path: Source, where: str) -> Lesson:
    names = _, extra_name, output_name = _alpacas_keys(value)
    parts = [_as_text(value.get(name)) for name in names]
    parts[1] = "" if parts[1] is None else parts[1]
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, str) or (name != extra_name and is_blank(part)):
            keys = first_few([_shown(key) for key in value], NAMED_KEYS)
            what = f"`{name}` is {part!r}" if name in value else f"no `{name}`; its keys are: {keys}"
            hint = f"`instruction` and `{output_name}` are text; `{extra_name}` may be empty"
            raise DataError(f"`{path}`, {where}: {what}", hint=hint)
    if extra_name == "context" or _is_nothing(value.get("input")):
        _require_all_asked(value, extra_name, [str(parts[1]), str(parts[0])], path, where)
    instruction, (extra, output) = str(parts[0]).strip(), (_without_space_around(str(part)) for part in parts[1:])
    extra = "" if is_blank(extra) else extra
    question = f"{instruction}\n\n{extra}" if extra else instruction
    before = [*_system_of(value, path, where), *_history_of(value, path, where)]
    return Lesson(
        where=where,
        turns=(*before, Message(role="user", content=question), Message(role="assistant", content=output)),
        alpaca_question=f"{instruction}{ALPACA_INPUT}{extra}" if extra else None,
    )


def _as_text(value: Any) -> Any:
    """A number as its text; anything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _require_all_asked(value: dict[str, Any], field: str, asked: Sequence[str], path: Source, where: str) -> None:
    """Raises DataError for a text beside a question that is named as one, too: the answer would be learned without it."""
    passages = _named(value, PASSAGES) if "context" in value and field != "prompt" else ()
    sources = {name for name in passages if not has_several_words(str(value[name]))}  # of the context: a number, or a file's name
    for name in [name for name in _not_asked(value, (*INPUT_NAMES, "context"), asked) if name not in sources]:
        what, mend = f"a `{field}`, and beside it `{name}`", f"write it into the `{field}`"
        if field == "input":
            what, mend = f"{'an empty' if field in value else 'no'} `input`, and a `{name}`", "call it `input`"
        raise DataError(
            f"`{path}`, {where}: it has {what}, which would not be asked",
            hint=f"{mend}, or leave it out; a suite is also made of one column of a table: --input-column (in Python: `input_column`)",
        )


def _not_asked(value: Mapping[str, Any], names: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The keys called so whose text is not part of a question, see `_is_asked`."""
    texts = {name: _as_text(value[name]) for name in _named(value, names)}
    return [name for name, text in texts.items() if isinstance(text, str) and not _is_asked(text, asked)]


def _is_asked(text: str, asked: Sequence[str]) -> bool:
    """Whether a text stands in the question, the last of `asked`, or before it; or is the question once more, written out, as one that
    holds it is, whatever the spacing.
    """
    question = _on_one_line(asked[-1])
    is_written_out = bool(question) and question in _on_one_line(text)
    return is_written_out or any(stands_in(text, turn) for turn in asked)


def stands_in(text: str, turn: str) -> bool:
    """Whether it does, as whole words and whatever the spacing."""
    said, whole = _on_one_line(text), _on_one_line(turn)
    at = whole.find(said)  # a pattern of a long text takes milliseconds to compile
    while at >= 0:
        around = whole[max(at - 1, 0) : at] + whole[at + len(said) : at + len(said) + 1]
        if not any(char.isalnum() or char == "_" for char in around):
            return True
        at = whole.find(said, at + 1)
    return False


def _on_one_line(text: str) -> str:
    return " ".join(textfiles.composed(text).split())


def _without_space_around(text: str) -> str:
    """Without space at its end and blank lines before it; the spaces that its first line begins with are code's."""
    return BLANK_LINES.sub("", text).rstrip()


def _rows(value: dict[str, Any], name: str, form: str, path: Source, where: str) -> list[Any]:
    """The turns of a conversation. Raises DataError if there are none."""
    rows = value.get(name)
    if not isinstance(rows, list) or not rows:
        what = f"`{name}` is empty" if rows == [] else f"no list of `{name}`"
        raise DataError(f"`{path}`, {where}: {what}", hint=f'write {{"{name}": [{form}]}}')
    return rows


def _require_learnable(value: dict[str, Any], path: Source, where: str) -> None:
    """Raises DataError for what stands beside the turns and changes what the answers mean."""
    _require_words_alone(value, path, where)
    for name in VERDICTS:
        if _is_verdict(name, value.get(name)):
            raise DataError(
                f"`{path}`, {where}: its `{name}` is {json.dumps(value[name])}, and nomoat learns every answer as a good one",
                hint=f"keep the conversations whose answers are good, and leave `{name}` out of them",
            )


def _require_words_alone(said: Any, path: Source, where: str) -> None:
    """Raises DataError where a lesson or a turn has more than words: learned without its tools, an answer would teach not to call."""
    if not isinstance(said, dict):
        return
    for names, why, hint in NOT_LEARNED:
        found = [f"`{name}`" for name in names if said.get(name) and said[name] not in NOTHING]
        if names == CALLS:
            found += [f"a turn from `{said[key]}`" for key in ("role", "from") if said.get(key) in CALLERS]
        if found:
            raise DataError(f"`{path}`, {where}: it has {found[0]}, and {why}", hint=hint)


def _is_learned(row: dict[str, Any], path: Source, where: str) -> bool:
    """Whether an answer is learned: as long as no mark says that it is not. Raises DataError for marks that are none, or differ."""
    marks = {name: row[name] for name in MARKS if row.get(name) is not None}
    for name, mark in marks.items():
        if mark not in (0, 1) or (name == "weight" and isinstance(mark, bool)):
            no, yes = ("0", "1") if name == "weight" else ("false", "true")
            raise DataError(
                f"`{path}`, {where}: a message of the assistant has {name} {mark!r}",
                hint=f"write {no} for an answer that is not learned, {yes} or nothing for one that is",
            )
    if len(set(marks.values())) > 1:
        said = listed([f"{name} {mark!r}" for name, mark in marks.items()])
        hint = "leave all but one of them out: one says that the answer is learned, and one that it is not"
        raise DataError(f"`{path}`, {where}: a message of the assistant has {said}", hint=hint)
    return all(marks.values())


def _system_of(value: dict[str, Any], path: Source, where: str) -> list[Message]:
    """The system's message, where it stands beside the turns."""
    given = [(name, value[name]) for name in SYSTEMS if value.get(name) is not None]
    for name, said in given:
        if not isinstance(said, str):
            raise DataError(f"`{path}`, {where}: `{name}` is of type {type(said).__name__}", hint="it is text, or nothing")
    texts = {said.strip(): said for _, said in given if said.strip()}
    if len(texts) > 1:
        raise DataError(f"`{path}`, {where}: it has a `system` and a `system_prompt`", hint="make them one")
    return [Message(role="system", content=said) for said in texts.values()]


def _history_of(value: dict[str, Any], path: Source, where: str) -> list[Message]:
    """The turns before an instruction of Alpaca's."""
    history = value.get("history") or []
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and not is_blank(text) for text in pair)):
            raise DataError(
                f"`{path}`, {where}: `history` is no list of pairs of texts", hint='write {"history": [["question", "answer"], ...]}'
            )
    roles: tuple[Role, Role] = ("user", "assistant")
    return [Message(role=role, content=text) for pair in history for role, text in zip(roles, pair, strict=True)]


def _lesson(messages: Sequence[Message], path: Source, where: str, not_learned: Sequence[int]) -> Lesson:
    """The conversation up to its last answer to learn. Raises DataError if there is none with something before it, and where the
    system speaks twice before the first turn.
    """
    if len(messages) > 1 and messages[0].role == messages[1].role == "system":
        raise DataError(f"`{path}`, {where}: it begins with two messages of the system", hint="make them one")
    whole = Lesson(where=where, turns=tuple(messages), not_learned=tuple(not_learned))
    if not whole.learned:
        what, hint = "no message of the assistant to learn from", "a lesson is what is said to the assistant, and its answer"
        if not_learned:
            what = "no answer is to be learned: each has weight 0, `loss` or `train` false, or stands in a `prompt`"
            hint = "leave the conversation out, or take the mark off an answer that is to be learned"
        raise DataError(f"`{path}`, {where}: {what}", hint=hint)
    end = whole.learned[-1] + 1
    return replace(whole, turns=whole.turns[:end], is_cut=end < len(messages))
