"""Talking: commands, Ctrl-C, the context's end; in this process, and once on a real terminal."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS

import nomoat
from nomoat.cli.chat import HELP, Chat
from nomoat.engine.fake import FakeEngine
from nomoat.errors import RemoteError
from nomoat.records import Chunk, Message, Request
from nomoat.responder import Responder


def chat(engine: FakeEngine | None = None, *, system: str | None = None) -> Chat:
    return Chat(Responder("fake", engine or FakeEngine()), settings={"max_new_tokens": 50}, system=system)


def turns(talk: Chat) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in talk.messages]


def test_conversation_is_kept_and_the_system_message_stands_apart(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(system="be brief")
    talk.handle("안녕 하세요")
    talk.handle("c d")
    assert turns(talk) == [("user", "안녕 하세요"), ("assistant", "하세요 안녕"), ("user", "c d"), ("assistant", "d c")]
    assert capsys.readouterr() == ("하세요 안녕\nd c\n", "[4 prompt tokens, 2 new, 0.0 s]\n[8 prompt tokens, 2 new, 0.0 s]\n")


def test_clear_forgets_the_conversation_and_keeps_the_system_message(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(system="be brief")
    talk.handle("a b")
    talk.handle("/clear")
    assert (talk.messages, talk.system) == ([], "be brief")
    assert capsys.readouterr().err.endswith("forgotten\n")


def test_save_writes_chat_jsonl_and_overwrites_only_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(system="be brief")
    target = tmp_path / "my chat.jsonl"
    talk.handle("/save")
    talk.handle(f"/save {target}")
    talk.handle("안녕 b")
    talk.handle(f"/save {target}")
    talk.handle(f"/save {target}")
    assert json.loads(target.read_text(encoding="utf-8")) == {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "안녕 b"},
            {"role": "assistant", "content": "b 안녕"},
        ]
    }
    other = chat()
    other.handle("x")
    other.handle(f"/save {target}")
    other.handle(f"/save {target}/below")
    other.handle("/save ~nobody-of-here/x.jsonl")
    other.handle(f"/save {tmp_path}/nothing/here/x.jsonl")
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["/save FILE: which file?", "nothing to save yet"]
    assert said[3:5] == [f"saved 3 messages to {target}"] * 2
    assert said[6] == f"`{target}` exists; choose another name"
    assert said[7] == f"there is no folder `{target}`"
    assert said[8] == "error: `~nobody-of-here/x.jsonl`: no home folder is known for `~nobody-of-here`"
    assert said[9] == f"there is no folder `{tmp_path}/nothing/here`"
    assert [path.name for path in tmp_path.iterdir()] == ["my chat.jsonl"]


def test_a_place_that_cannot_even_be_looked_at_does_not_end_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = chat()
    talk.handle("x")
    talk.handle(f"/save {tmp_path}/{'x' * 300}")
    talk.handle(f"/save {tmp_path}/a\0b")

    def exists(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)  # as of a folder of another user's
    talk.handle("/save /theirs/x")
    said = capsys.readouterr().err.splitlines()[1:]
    assert said[0].startswith("error: could not save `/") and "File name too long" in said[0]
    assert said[1].startswith("error: could not save `/") and "null byte" in said[1]
    assert said[2] == "error: could not save `/theirs/x`: [Errno 13] Permission denied: '/theirs/x'"
    assert [message.content for message in talk.messages] == ["x", "x"]


def test_system_is_set_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat()
    for line in ("/system", "/system answer in Korean", "/system"):
        talk.handle(line)
    assert capsys.readouterr().err == "no system message\nset, from the next question on\nanswer in Korean\n"
    for line in ("/system -", "/system"):
        talk.handle(line)
    assert (talk.system, capsys.readouterr().err) == (None, "taken away, from the next question on\nno system message\n")


def test_unknown_command_is_no_question_and_a_leading_space_makes_it_one(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat()
    for line in ("/etc/passwd what", "   ", "/help"):
        talk.handle(line)
    assert talk.messages == []
    assert capsys.readouterr().err.startswith("no command `/etc/passwd`; /help lists them\n/clear ")
    talk.handle(" /etc/passwd what")
    assert turns(talk) == [("user", "/etc/passwd what"), ("assistant", "what /etc/passwd")]


def test_first_question_over_the_context_is_not_answered_with_clear(capsys: pytest.CaptureFixture[str]) -> None:
    chat(FakeEngine(context_tokens=3)).handle("a b c d")
    assert capsys.readouterr().err.endswith(
        "hint: shorten the prompt, ask for fewer new tokens, or choose a model with a longer context\n"
    )


def test_conversation_over_the_context_is_refused_with_numbers_and_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(FakeEngine(context_tokens=6))
    talk.handle("a b")
    before = turns(talk)
    capsys.readouterr()
    talk.handle("c d e")
    assert turns(talk) == before
    assert capsys.readouterr() == (
        "",
        "error: the prompt is too long: it has 7 tokens and the answer may have 50, but the model's context is 6 tokens\n"
        "hint: /clear begins a new conversation\n",
    )


class Failing(FakeEngine):
    def generate(self, request: Request) -> Iterator[Chunk]:
        yield Chunk(text="half")
        raise RemoteError("gone", hint="try again")


def test_failed_question_can_be_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(Failing())
    talk.handle("a")
    assert talk.messages == []
    assert capsys.readouterr() == ("half\n", "error: gone\nhint: try again\n")


def test_only_a_line_that_begins_with_the_slash_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("/bye", "/exit", "/quit"):
        lines = [f" {word}", f"{word} ", "never read"]
        monkeypatch.setattr("prompt_toolkit.PromptSession.prompt", lambda *_, lines=lines: lines.pop(0))
        talk = chat()
        talk.talk()
        assert (turns(talk), lines) == ([("user", word), ("assistant", word)], ["never read"])
        assert word in HELP


def test_what_a_server_refused_is_said_once_in_a_talk(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    engine.notes_on = lambda request: ("refuses `seed`",)  # type: ignore[attr-defined]
    talk = chat(engine)
    talk.handle("a")
    talk.handle("b")
    assert capsys.readouterr().err.splitlines()[0] == "note: refuses `seed`"
    talk.handle("c")
    assert "note" not in capsys.readouterr().err


class Stopped(FakeEngine):
    def generate(self, request: Request) -> Iterator[Chunk]:
        yield Chunk(text="half an")
        signal.raise_signal(signal.SIGINT)
        yield Chunk(text=" answer")


def test_ctrl_c_while_answering_keeps_the_half_that_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(Stopped())
    talk.handle("a")
    assert talk.messages == [Message(role="user", content="a"), Message(role="assistant", content="half an")]
    assert capsys.readouterr() == ("half an\n", "[stopped]\n")


class StoppedBeforeItsFirstWord(FakeEngine):
    def generate(self, request: Request) -> Iterator[Chunk]:
        raise KeyboardInterrupt  # as while the prompt is made ready


def test_ctrl_c_before_the_first_word_takes_the_question_back(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(StoppedBeforeItsFirstWord())
    talk.handle("a")
    assert talk.messages == []
    assert capsys.readouterr() == ("", "[stopped]\n")


def test_model_elsewhere_is_announced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    engine.is_local = False
    chat(engine)._greet()
    assert capsys.readouterr().err.splitlines()[1:] == ["note: what you write may leave this machine"]
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", "http://127.0.0.1:4000")
    with nomoat.load("http://127.0.0.1:4000/v1#m") as model:
        Chat(model, settings={})._greet()
    said = "note: what you write leaves this machine and goes to 127.0.0.1 (a gateway, as NOMOAT_GATEWAYS says)"
    assert capsys.readouterr().err.splitlines()[1:] == [said]


# ---------------------------------------------------------------- on a terminal
SLOW_CHAT = """
import time
from nomoat import cli
from nomoat.engine.fake import FakeEngine

def generate(self, request, whole=FakeEngine.generate):
    for chunk in whole(self, request):
        yield chunk
        if "slow" in request.messages[-1].content and "b" in chunk.text:
            while True:  # until it is interrupted; a long sleep would sleep on if Ctrl-C came just before it
                time.sleep(0.01)

FakeEngine.generate = generate
cli.main()
"""


class Terminal:
    """A program on a pseudo-terminal: type, and wait for what it shows."""

    def __init__(self, *command: str) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.shown = ""  # up to what was waited for last
        self._seen = ""
        self._raw = b""

    def wait_for(self, text: str) -> None:
        """Read until `text` has been shown, after what was waited for before; terminal codes left out."""
        until = time.monotonic() + PATIENCE_SECONDS
        while text not in self._seen:
            assert time.monotonic() < until, f"{text!r} did not come, but {self._seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._raw += os.read(self._ours, 65536)
                self._seen = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", self._raw.decode(errors="ignore"))
        at = self._seen.index(text) + len(text)
        self.shown += self._seen[:at]
        self._seen, self._raw = self._seen[at:], self._seen[at:].encode()

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def close(self) -> int:
        try:
            return self.child.wait(timeout=PATIENCE_SECONDS)
        finally:
            self.child.kill()
            os.close(self._ours)

    def hang_up(self, *, says_so: bool) -> int:
        """Close the window. `says_so`: the system tells the program, as it does those that the terminal's shell knows."""
        os.close(self._ours)
        if says_so:
            self.child.send_signal(signal.SIGHUP)
        return self.child.wait(timeout=PATIENCE_SECONDS)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    if os.name != "posix":
        pytest.skip("needs a pseudo-terminal")
    opened = Terminal(sys.executable, "-c", SLOW_CHAT, "run", "fake:")
    yield opened
    if opened.child.poll() is None:
        opened.child.kill()
        opened.child.wait()


def test_chat_on_a_terminal(terminal: Terminal, tmp_path: Path, empty_home: Path) -> None:
    """Korean input, Ctrl-C at the prompt and while answering, /save, /clear, /bye, and the history file."""
    terminal.wait_for("fake:: /help lists the commands, Ctrl-D ends")
    terminal.wait_for(">")
    terminal.type("해자가 없다\r")
    terminal.wait_for("없다 해자가\n[2 prompt tokens, 2 new, 0.0 s]")
    terminal.wait_for(">")
    terminal.type("thrown away\x03")
    terminal.wait_for(">")
    terminal.type("slow e d c b a\r")
    terminal.wait_for("\na b")
    terminal.child.send_signal(signal.SIGINT)
    terminal.wait_for("[stopped]")
    terminal.wait_for(">")
    terminal.type(f"/save {tmp_path}/chat.jsonl\r")
    terminal.wait_for("saved 4 messages to ")
    terminal.wait_for(">")
    terminal.type("/clear\r")
    terminal.wait_for("forgotten")
    terminal.wait_for(">")
    terminal.type("one two\r")
    terminal.wait_for("[2 prompt tokens, 2 new, 0.0 s]")
    terminal.wait_for(">")
    terminal.type("/bye\r")
    assert terminal.close() == 0
    contents = [m["content"] for m in json.loads((tmp_path / "chat.jsonl").read_text(encoding="utf-8"))["messages"]]
    assert contents[:3] == ["해자가 없다", "없다 해자가", "slow e d c b a"]
    assert contents[3].startswith("a b") and not contents[3].endswith("slow")
    history = empty_home / "history"
    assert "+해자가 없다\n" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o077 == 0


def test_ctrl_d_ends_the_chat(terminal: Terminal) -> None:
    terminal.wait_for(">")
    terminal.type("\x04")
    assert terminal.close() == 0


def answering(terminal: Terminal) -> None:
    terminal.type("slow c b a\r")
    terminal.wait_for("\na b")


def idle(terminal: Terminal) -> None:
    """At the prompt, where nothing is typed."""


@pytest.mark.parametrize("busy", [idle, answering])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_the_system_stops_is_the_chat_and_not_an_answer(terminal: Terminal, name: str, busy: Callable[[Terminal], None]) -> None:
    terminal.wait_for(">")
    busy(terminal)
    terminal.child.send_signal(getattr(signal, name))
    terminal.wait_for("stopped\n")
    assert terminal.close() == 130


@pytest.mark.parametrize(("busy", "says_so"), [(idle, True), (idle, False), (answering, True)])
def test_a_chat_ends_with_its_terminal_and_without_a_traceback(
    terminal: Terminal, busy: Callable[[Terminal], None], says_so: bool
) -> None:
    """An error that is a bug has exit code 1."""
    terminal.wait_for(">")
    busy(terminal)
    assert terminal.hang_up(says_so=says_so) == 130


@pytest.mark.skipif(sys.platform != "linux", reason="needs `prlimit`")
def test_where_the_history_finds_no_room_the_chat_goes_on_without_a_word(terminal: Terminal, empty_home: Path) -> None:
    import resource

    terminal.wait_for(">")
    resource.prlimit(terminal.child.pid, resource.RLIMIT_FSIZE, (0, 0))  # an error like a full disk's
    for text in ("one two", "three four"):
        terminal.type(f"{text}\r")
        terminal.wait_for("2 new, 0.0 s]")
        terminal.wait_for(">")
    terminal.type("/bye\r")
    assert terminal.close() == 0
    assert (empty_home / "history").stat().st_size == 0
    assert "File too large" not in terminal.shown
