"""Talking with a model on the terminal: history, commands, and Ctrl-C that stops an answer and not the program."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import create_app_session, get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.plain_text import PlainTextOutput
from prompt_toolkit.utils import is_dumb_terminal

from nomoat import bounds, paths, textfiles, whole_files
from nomoat.cli import Stopped, answering, console, options
from nomoat.errors import ContextExceededError, DataError, NomoatError, UsageError
from nomoat.records import Message, Request
from nomoat.responder import Responder
from nomoat.words import counted

HELP = """\
/clear           forget the conversation, keep the system message
/save FILE       write the conversation as chat JSONL, which `nomoat tune` reads
/load FILE       go on with a conversation that /save wrote
/set NAME VALUE  change a setting, such as temp or max-tokens; /set alone shows all
/system TEXT     set the system message; without TEXT show it; /system - takes it away
/help            this list
/bye             end; /exit, /quit and Ctrl-D do too
\"""              begins a text of several lines, and ends it
Ctrl-C stops an answer, or empties the line. A space before the slash sends it as text."""
ENDS = ("/bye", "/exit", "/quit")
QUOTES = '"""'
SETTINGS = {  # what `nomoat run` calls them, and a request
    "temp": "temperature", "top-p": "top_p", "top-k": "top_k", "min-p": "min_p", "repeat-penalty": "repetition_penalty",
    "max-tokens": "max_new_tokens", "seed": "seed",
}  # fmt: skip
MAY_BE_NONE = ("max_new_tokens", "seed")
AS_TEXT = "a space before the slash sends it as text"


class Chat:
    """One conversation. What was asked and answered is in `messages`; the system message stands apart.

    Nothing is ever cut from it: when it no longer fits into the context, the question is refused and the numbers are given.
    """

    def __init__(self, responder: Responder, *, settings: Mapping[str, Any], system: str | None = None) -> None:
        self.messages: list[Message] = []
        self.system = system
        self._responder = responder
        self._settings = dict(settings)
        self._broken_off: set[int] = set()  # places in `messages` of answers that did not end by themselves
        self._saved: set[Path] = set()
        self._noted: set[str] = set()

    def talk(self) -> None:
        """Read and answer until /bye or Ctrl-D."""
        self._greet()
        with create_app_session(output=_output()):  # a session of its own `output` has no prompt for dumb terminals
            session: PromptSession[str] = PromptSession(
                history=_history(),
                multiline=_is_open,
                key_bindings=_keys(),
                prompt_continuation=lambda width, line, wraps: "" if wraps else ". ",
            )
            while True:
                try:
                    line = session.prompt("> ")
                    if line.rstrip() in ENDS:
                        return
                    self.handle(line)
                except Stopped:
                    raise
                except KeyboardInterrupt:  # at the prompt, or a moment after an answer
                    continue
                except EOFError:
                    return

    def handle(self, written: str) -> None:
        """What the user wrote, a line or several: a command or a question."""
        command, argument = "", ""
        try:
            if not written.startswith("/"):
                if text := _as_meant(written):
                    self._ask(text)
                return
            command, *rest = written.split(maxsplit=1)
            argument = rest[0].rstrip() if rest else ""
            self._obey(command, argument)
        except NomoatError as error:
            _say_error(error, hint=error.hint)
        except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a NUL
            if isinstance(error, BrokenPipeError):
                raise  # nobody reads stdout any more: an unbuffered one holds nothing that the next line could fail at
            if not command:
                console.print_text(end="", flush=True)  # raises where it was stdout that took nothing: then the chat ends
            console.say(f"error: `{command} {argument}`: {error}" if command else f"error: {error}")

    def _obey(self, command: str, argument: str) -> None:
        match command:
            case "/clear" if not argument:
                self.messages, self._broken_off = [], set()
                console.say("forgotten")
            case "/save":
                self._save(argument)
            case "/load":
                self._load(argument)
            case "/set":
                self._set(*argument.split(maxsplit=1))
            case "/system":
                self._set_system(argument)
            case "/help":
                console.say(HELP)
            case _ if command in ("/clear", *ENDS):
                console.say(f"nothing may stand behind `{command}`; {AS_TEXT}")
            case _:
                console.say(f"no command `{command}`; /help lists them, and {AS_TEXT}")

    def _greet(self) -> None:
        console.say(f"{self._responder.ref}: /help lists the commands, Ctrl-D ends")
        if not self._responder.is_local:
            from nomoat.engine.remote import RemoteEngine

            engine = self._responder.engine
            goes = f"leaves this machine and goes to {engine.place}" if isinstance(engine, RemoteEngine) else "may leave this machine"
            console.say(f"note: what you write {goes}")

    def _ask(self, text: str) -> None:
        question = Message(role="user", content=text)
        request = Request(messages=(*self._whole(), question), **self._settings)
        try:
            shown = answering.show(self._responder, request)
        except NomoatError as error:
            full = isinstance(error, ContextExceededError) and self.messages  # the first question is too long by itself
            _say_error(error, hint="/clear begins a new conversation" if full else error.hint)
            return
        if shown.text:  # a question without an answer would leave two questions in a row
            self.messages += (question, Message(role="assistant", content=shown.text))
            if shown.finish_reason != "stop":
                self._broken_off.add(len(self.messages) - 1)
        notes = [note for note in self._responder.notes_on(request) if note not in self._noted]
        self._noted.update(notes)
        answering.say_notes(notes)
        knows_context = self._responder.engine.context_tokens is not None
        answering.say_outcome(
            shown, max_new_tokens=request.max_new_tokens, knows_context=knows_context, raised_by="/set max-tokens NUMBER"
        )

    def _whole(self) -> list[Message]:
        return [Message(role="system", content=self.system), *self.messages] if self.system else self.messages

    def _set(self, name: str = "", value: str = "") -> None:
        field = SETTINGS.get("temp" if name == "temperature" else name)
        if field is None or not value:
            if name:
                console.say(f"`{name}` needs a value" if field else f"no setting `{name}`")
            request = Request(prompt="", **self._settings)
            now = {known: getattr(request, field) for known, field in SETTINGS.items()}
            shown = ", ".join(f"{known} {options.NONE if value is None else value}" for known, value in now.items())
            console.say(f"/set NAME VALUE: {shown}")
            return
        try:
            number: Any = float(value) if field in bounds.NUMBERS else int(value)
        except ValueError:
            console.say(f"`{name}` is a {'number' if field in bounds.NUMBERS else 'whole number'}, not `{value}`")
            return
        settings = {**self._settings, field: None if number == options.NONE and field in MAY_BE_NONE else number}
        Request(prompt="", **settings)  # raises for what cannot be meant
        self._settings = settings
        console.say("set, from the next question on")

    def _set_system(self, text: str) -> None:
        if text:
            self.system = None if text == "-" else Message(role="system", content=text).content
            console.say("set, from the next question on" if self.system else "taken away, from the next question on")
        else:
            console.say(self.system or "no system message of yours; the model's chat template may have one")

    def _save(self, name: str) -> None:
        if not name:
            console.say("/save FILE: which file?")
            return
        if not self.messages:
            console.say("nothing to save yet")
            return
        target = textfiles.as_named(name).absolute()
        if problem := self._problem_with(target):
            console.say(problem)
            return
        rows = self._rows()
        with whole_files.whole_file(target) as part:
            part.write_text(json.dumps({"messages": rows}, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        self._saved.add(target)
        console.say(f"saved {counted(len(rows), 'message')} to {target}")

    def _rows(self) -> list[dict[str, Any]]:
        """The conversation as it is saved. `tune` reads an answer of weight 0 and does not learn it."""
        rows: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in self.messages]
        for place in self._broken_off:
            rows[place]["weight"] = 0
        return [{"role": "system", "content": self.system}, *rows] if self.system else rows

    def _load(self, name: str) -> None:
        if not name:
            console.say("/load FILE: which file?")
            return
        path = textfiles.as_named(name).absolute()
        entries = textfiles.read_jsonl(path)
        try:
            rows = entries[0][1]["messages"]
            whole = [Message(role=row["role"], content=row["content"]) for row in rows]
        except (KeyError, TypeError, UsageError):
            whole = []
        num_before = 1 if whole and whole[0].role == "system" else 0
        messages = whole[num_before:]
        if len(entries) > 1 or not messages or [one.role for one in messages] != ["user", "assistant"] * (len(messages) // 2):
            raise DataError(f"`{path}` is no conversation of questions and answers", hint="name a file that /save wrote")
        self.messages, self.system = messages, whole[0].content if num_before else self.system
        self._broken_off = {at for at, row in enumerate(rows[num_before:]) if row.get("weight") == 0}
        is_all = entries[0][1] == {"messages": self._rows()}  # else /save would lose what it does not write
        self._saved = {path} if is_all else set()
        console.say(f"loaded {counted(len(whole), 'message')} of {path}")

    def _problem_with(self, target: Path) -> str:
        """Why a conversation is not saved there; empty if it may be."""
        if target.exists() and target not in self._saved:
            return f"`{target}` exists; choose another name"
        return "" if target.parent.is_dir() else f"there is no folder `{target.parent}`"


def _as_meant(written: str) -> str:
    """The text of a question, its first line's indentation kept: without the space before a slash, and the quotes around it."""
    text = written.rstrip()
    is_quoted = _is_block(text) or (text.startswith(QUOTES) and "\n" not in text and text.count(QUOTES) == 2)
    if is_quoted and text.endswith(QUOTES) and len(text) >= 2 * len(QUOTES):
        text = text.removeprefix(QUOTES).removesuffix(QUOTES).rstrip()
    elif text.startswith(" /"):
        text = text.removeprefix(" ")
    return text.lstrip("\n")


def _is_block(text: str) -> bool:
    """Whether its first line opens quotes; a module's first line, in code that is pasted, closes them again."""
    return text.startswith(QUOTES) and text.partition("\n")[0].count(QUOTES) == 1


def _output() -> Output:
    """The terminal: stdout, or stderr where that is none; without codes where TERM is dumb."""
    if is_dumb_terminal():
        return PlainTextOutput(sys.stdout if sys.stdout.isatty() else sys.stderr)
    return create_output(always_prefer_tty=True)


@Condition
def _is_open() -> bool:
    """Whether the text began with quotes that are not closed yet: enter begins a line, and does not send it."""
    text = get_app().current_buffer.text.rstrip()
    return _is_block(text) and not (text.endswith(QUOTES) and text.count(QUOTES) % 2 == 0)


def _keys() -> KeyBindings:
    """Enter begins a line without the indentation of the one before; on a dumb terminal prompt_toolkit's own keys go before these."""
    keys = KeyBindings()

    @keys.add("enter", filter=_is_open)
    def _begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    return keys


def _say_error(error: NomoatError, *, hint: str | None) -> None:
    console.say(f"error: {error.message}")
    if hint:
        console.say(f"hint: {hint}")


class _FileHistory(FileHistory):
    """Of what finds no room in its file, only this conversation knows."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _history() -> History:
    """What was typed before; for the user's eyes only. Where it cannot be kept, it ends with the conversation."""
    path = paths.home() / "history"
    try:
        paths.make_folder(path.parent)
        path.touch(mode=0o600)
        with path.open("ab"):
            return _FileHistory(path)
    except OSError:
        return InMemoryHistory()
