"""Talking with a model on the terminal: history, commands, and Ctrl-C that stops an answer and not the program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.output import create_output

from nomoat import paths, whole_files
from nomoat.cli import Stopped, answering, console
from nomoat.errors import ContextExceededError, NomoatError
from nomoat.records import Message, Request
from nomoat.responder import Responder
from nomoat.words import counted

HELP = """\
/clear        forget the conversation, keep the system message
/save FILE    write the conversation as chat JSONL, which `nomoat tune` reads
/system TEXT  set the system message; without TEXT show it; /system - takes it away
/help         this list
/bye          end; /exit, /quit and Ctrl-D do too
Ctrl-C stops an answer, or empties the line. A space before the slash sends it as text."""


class Chat:
    """One conversation. What was asked and answered is in `messages`; the system message stands apart.

    Nothing is ever cut from it: when it no longer fits into the context, the question is refused and the numbers are given.
    """

    def __init__(self, responder: Responder, *, settings: Mapping[str, Any], system: str | None = None) -> None:
        self.messages: list[Message] = []
        self.system = system
        self._responder = responder
        self._settings = settings
        self._saved: set[Path] = set()
        self._noted: set[str] = set()

    def talk(self) -> None:
        """Read and answer until /bye or Ctrl-D."""
        self._greet()
        session: PromptSession[str] = PromptSession(history=_history(), output=create_output(always_prefer_tty=True))
        while True:
            try:
                line = session.prompt("> ")
                if line.rstrip() in ("/bye", "/exit", "/quit"):
                    return
                self.handle(line)
            except Stopped:
                raise
            except KeyboardInterrupt:  # at the prompt, or a moment after an answer
                continue
            except EOFError:
                return

    def handle(self, line: str) -> None:
        """One line of the user's: a command or a question."""
        if not line.strip():
            return
        if not line.startswith("/"):
            self._ask(line.strip())
            return
        command, _, argument = line.strip().partition(" ")
        match command:
            case "/clear":
                self.messages.clear()
                console.say("forgotten")
            case "/save":
                self._save(argument.strip())
            case "/system":
                self._set_system(argument.strip())
            case "/help":
                console.say(HELP)
            case _:
                console.say(f"no command `{command}`; /help lists them")

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
            console.say(f"error: {error.message}")
            full = isinstance(error, ContextExceededError) and self.messages  # the first question is too long by itself
            hint = "/clear begins a new conversation" if full else error.hint
            if hint:
                console.say(f"hint: {hint}")
            return
        if shown.text:  # a question without an answer would leave two questions in a row
            self.messages += (question, Message(role="assistant", content=shown.text))
        notes = [note for note in self._responder.notes_on(request) if note not in self._noted]
        self._noted.update(notes)
        answering.say_notes(notes)
        knows_context = self._responder.engine.context_tokens is not None
        answering.say_outcome(shown, max_new_tokens=request.max_new_tokens, knows_context=knows_context)

    def _whole(self) -> list[Message]:
        return [Message(role="system", content=self.system), *self.messages] if self.system else self.messages

    def _set_system(self, text: str) -> None:
        if text:
            self.system = None if text == "-" else text
            console.say("set, from the next question on" if self.system else "taken away, from the next question on")
        else:
            console.say(self.system or "no system message")

    def _save(self, name: str) -> None:
        if not name:
            console.say("/save FILE: which file?")
            return
        if not self.messages:
            console.say("nothing to save yet")
            return
        rows = [{"role": message.role, "content": message.content} for message in self._whole()]
        try:
            target = paths.expanded(name).absolute()
            if problem := self._problem_with(target):
                console.say(problem)
                return
            with whole_files.whole_file(target) as part:
                part.write_text(json.dumps({"messages": rows}, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        except NomoatError as error:
            console.say(f"error: {error.message}")
            return
        except (OSError, ValueError) as error:  # ValueError: no path at all, such as one with a NUL
            console.say(f"error: could not save `{name}`: {error}")
            return
        self._saved.add(target)
        console.say(f"saved {counted(len(rows), 'message')} to {target}")

    def _problem_with(self, target: Path) -> str:
        """Why a conversation is not saved there; empty if it may be."""
        if target.exists() and target not in self._saved:
            return f"`{target}` exists; choose another name"
        return "" if target.parent.is_dir() else f"there is no folder `{target.parent}`"


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
