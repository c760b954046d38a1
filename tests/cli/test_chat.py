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
from letters import decomposed
from patience import PATIENCE_SECONDS
from shell import IGNORED, is_ignored, sending

import nomoat
from nomoat import conversations
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
    other.handle("/save ~nobody-of-here/x.jsonl")  # on Windows all homes are beside each other
    other.handle(f"/save {tmp_path}/nothing/here/x.jsonl")
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["/save FILE: which file?", "nothing to save yet"]
    assert said[3:5] == [f"saved 3 messages to {target}"] * 2
    assert said[6] == f"`{target}` exists; choose another name"
    assert said[7] == f"there is no folder `{target}`"
    if sys.platform != "win32":
        assert said[8] == "error: `~nobody-of-here/x.jsonl`: no home folder is known for `~nobody-of-here`"
    assert said[-1] == f"there is no folder `{tmp_path / 'nothing' / 'here'}`"
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
    assert said[0].startswith("error: `/save /") and "File name too long" in said[0]
    assert said[1].startswith("error: `/save /") and "null byte" in said[1]
    assert said[2] == "error: `/save /theirs/x`: [Errno 13] Permission denied: '/theirs/x'"
    assert [message.content for message in talk.messages] == ["x", "x"]


@pytest.mark.parametrize(("number", "holds"), [(errno.EBADF, True), (errno.EPIPE, False)], ids=["buffered", "unbuffered"])
def test_a_stdout_that_takes_no_answer_ends_the_chat(number: int, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str = "", **_options: object) -> None:
        if text or holds:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("nomoat.cli.console.print_text", refuse)
    with pytest.raises(OSError, match=os.strerror(number)):
        chat().handle("x")


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), ValueError("no such code")])
def test_an_error_of_the_engine_is_said_and_does_not_end_the_chat(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            raise error

    chat(Broken()).handle("x")
    assert capsys.readouterr() == ("", f"error: {error}\n")


def test_system_is_set_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat()
    for line in ("/system", "/system answer in Korean", "/system"):
        talk.handle(line)
    none = "no system message of yours; the model's chat template may have one\n"
    assert capsys.readouterr().err == f"{none}set, from the next question on\nanswer in Korean\n"
    for line in ("/system -", "/system"):
        talk.handle(line)
    assert (talk.system, capsys.readouterr().err) == (None, f"taken away, from the next question on\n{none}")


def test_unknown_command_is_no_question_and_a_leading_space_makes_it_one(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat()
    for line in ("/etc/passwd what", "   ", '""""""', "/help"):
        talk.handle(line)
    assert talk.messages == []
    said = "no command `/etc/passwd`; /help lists them, and a space before the slash sends it as text\n/clear "
    assert capsys.readouterr().err.startswith(said)
    talk.handle(" /etc/passwd what")
    assert turns(talk) == [("user", "/etc/passwd what"), ("assistant", "what /etc/passwd")]
    for line in ("/clear\nsummarise this", "/bye now"):
        talk.handle(line)
    assert len(talk.messages) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"nothing may stand behind `{command}`; a space before the slash sends it as text" for command in ("/clear", "/bye")
    ]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("    if x:\n        y()\n", "    if x:\n        y()"),
        ("\n\n\t첫째\n\n둘째  ", "\t첫째\n\n둘째"),
        (" /a b", "/a b"),
        ("  // b", "  // b"),
        ('"""\n    if x:\n\n        """y"""\n"""', '    if x:\n\n        """y"""'),
        ('"""한 줄"""', "한 줄"),
        ('    """What it does."""', '    """What it does."""'),
        ('"""What it does."""\nimport os', '"""What it does."""\nimport os'),
        ('"""Doc."""\nx = """abc"""', '"""Doc."""\nx = """abc"""'),
    ],
)
def test_a_question_is_sent_as_it_was_written(written: str, text: str) -> None:
    talk = chat()
    talk.handle(written)
    assert talk.messages[0].content == text


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


def test_set_changes_what_is_asked_from_then_on(capsys: pytest.CaptureFixture[str]) -> None:
    engine = FakeEngine()
    asked: list[Request] = []
    engine.notes_on = lambda request: asked.append(request) or ()  # type: ignore[attr-defined, func-returns-value]
    talk = Chat(Responder("fake", engine), settings={"max_new_tokens": 1, "json_schema": None})
    talk.handle("a b")
    for line in ("max-tokens -1", "temp 0.7", "seed  3", "", "parameter temp 1", "temp", "temp 3", "top-k x",
                 "temperature 0.6", "TEMP 0.1"):  # fmt: skip
        talk.handle(f"/set {line}")
    talk.handle("c d")
    before, after = asked
    assert (before.max_new_tokens, before.temperature, before.seed) == (1, 0.0, None)
    assert (after.max_new_tokens, after.temperature, after.seed, after.top_k) == (None, 0.6, 3, 0)
    now = "/set NAME VALUE: temp 0.7, top-p 1.0, top-k 0, min-p 0.0, repeat-penalty 1.0, max-tokens -1, seed 3"
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "[cut at 1 new tokens; /set max-tokens NUMBER raises that]"
    assert said[2:16] == [
        *["set, from the next question on"] * 3, now, "no setting `parameter`", now, "`temp` needs a value", now,
        "error: `temperature` is 3.0", "hint: it can be 0 to 2", "`top-k` is a whole number, not `x`",
        "set, from the next question on", "no setting `TEMP`", now.replace("0.7", "0.6"),
    ]  # fmt: skip
    talk.handle("/set seed -1")
    talk.handle("c d")
    assert asked[-1].seed is None


def test_what_was_saved_is_gone_on_with_and_what_was_cut_is_not_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat(system="짧게")
    talk.handle("a b")
    talk.handle("/set max-tokens 1")
    talk.handle("c d")
    target = tmp_path / "대화.jsonl"
    talk.handle(f"/save {target}")
    rows = json.loads(target.read_text(encoding="utf-8"))["messages"]
    assert [row.get("weight") for row in rows] == [None, None, None, None, 0]
    (lesson,) = conversations.read(target).lessons
    assert [lesson.messages[place].content for place in lesson.learned] == ["b a"]

    other = chat(system="another")
    other.handle("x")
    other.handle(f"/load {target}")
    assert (turns(other), other.system) == (turns(talk), "짧게")
    other.handle("e f")
    other.handle(f"/save {target}")
    saved = json.loads(target.read_text(encoding="utf-8"))["messages"]
    assert (saved[:5], saved[6]) == (rows, {"role": "assistant", "content": "f e"})
    other.handle("/clear")
    other.handle("g h")
    other.handle(f"/save {tmp_path}/new.jsonl")
    assert "weight" not in (tmp_path / "new.jsonl").read_text(encoding="utf-8")
    assert f"loaded 5 messages of {target}" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        ("no JSON", "line 1: not JSON"),
        ('{"text": "a"}', "is no conversation"),
        ('{"messages": "ab"}', "is no conversation"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "is no conversation"),
        ('{"messages": [{"role": "system", "content": "a"}]}', "is no conversation"),
        ('{"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]}', "is no conversation"),
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 2, "is no conversation"),
    ],
)
def test_what_is_no_saved_conversation_is_not_loaded(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content, encoding="utf-8", newline="\n")
    talk = chat()
    talk.handle("a b")
    talk.handle("/load")
    talk.handle(f"/load {path}")
    shown = capsys.readouterr().err.splitlines()
    assert shown[1] == "/load FILE: which file?"
    assert shown[2].startswith("error: ") and said in shown[2]
    assert shown[3].startswith("hint: ")
    assert turns(talk) == [("user", "a b"), ("assistant", "b a")]


@pytest.mark.parametrize(
    "row",
    [
        '{"messages": [{"role": "user", "content": "a", "name": "민수"}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "source": "X"}',
    ],
)
def test_a_file_that_has_more_than_a_conversation_is_not_written_over(
    row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(row, encoding="utf-8", newline="\n")
    talk = chat()
    talk.handle(f"/load {path}")
    talk.handle(f"/save {path}")
    assert capsys.readouterr().err == f"loaded 2 messages of {path}\n`{path}` exists; choose another name\n"
    assert path.read_text(encoding="utf-8") == row


class Failing(FakeEngine):
    def generate(self, request: Request) -> Iterator[Chunk]:
        yield Chunk(text="half")
        raise RemoteError("gone", hint="try again")


def test_another_conversation_does_not_take_the_place_of_one_that_was_saved(tmp_path: Path) -> None:
    first, other = tmp_path / "대화.jsonl", tmp_path / "other.jsonl"
    other.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}', encoding="utf-8")
    talk = chat(system="brief")
    talk.handle("c d")
    talk.handle(f"/save {first}")
    saved = first.read_bytes()
    talk.handle(f"/load {other}")
    assert talk.system == "brief"
    talk.handle(f"/save {first}")
    assert first.read_bytes() == saved
    talk.handle(f"/load {decomposed(str(first))}")
    talk.handle("e f")
    talk.handle(f"/save {decomposed(str(first))}")
    assert len(list(tmp_path.iterdir())) == 2 and first.read_bytes() != saved


def test_a_byte_that_is_no_text_does_not_end_the_talk(capsys: pytest.CaptureFixture[str]) -> None:
    talk = chat()
    talk.handle("a\udcffb")
    talk.handle("/system a\udcffb")
    assert capsys.readouterr().err.count("error: ") == 2 and talk.system is None
    talk.handle("c d")
    assert turns(talk) == [("user", "c d"), ("assistant", "d c")]


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

    def __init__(self, *command: str, kind: str = "xterm") -> None:
        import pty

        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": kind, "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.shown = ""  # up to what was waited for last
        self.num_codes = 0  # of the terminal's, that were left out
        self._seen = ""
        self._raw = b""

    def wait_for(self, text: str) -> None:
        """Read until `text` has been shown, after what was waited for before; terminal codes left out."""
        until = time.monotonic() + PATIENCE_SECONDS
        while text not in self._seen:
            assert time.monotonic() < until, f"{text!r} did not come, but {self._seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._raw += (come := os.read(self._ours, 65536))
                self.num_codes += come.count(b"\x1b")
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

    def hang_up(self, *, says_so: bool) -> None:
        """Close the window, and wait for the end. `says_so`: the system tells the program, as it does those that the terminal's shell
        knows."""
        os.close(self._ours)
        if says_so:
            if is_ignored("SIGHUP"):
                pytest.skip(IGNORED)
            self.child.send_signal(signal.SIGHUP)
        self.child.wait(timeout=PATIENCE_SECONDS)


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


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_dumb_terminal_is_sent_no_codes() -> None:
    terminal = Terminal(sys.executable, "-c", SLOW_CHAT, "run", "fake:", kind="dumb")
    terminal.wait_for("> ")
    terminal.type("one two\r")
    terminal.wait_for("two one\n")
    terminal.wait_for("> ")
    for line in ('"""', "three", "four", '"""'):
        terminal.type(f"{line}\r")
    terminal.wait_for("four three\n")
    terminal.wait_for("> ")
    terminal.type("/bye\r")
    terminal.wait_for("/bye")
    assert (terminal.close(), terminal.num_codes) == (0, 0)


def test_quotes_hold_several_lines_as_they_are_typed(terminal: Terminal, tmp_path: Path) -> None:
    terminal.wait_for(">")
    for line in ('"""', "  첫째", '둘째 """x"""', '"""'):
        terminal.type(f"{line}\r")
    terminal.wait_for("3 new, 0.0 s]")
    terminal.wait_for(">")
    terminal.type(f"/save {tmp_path}/chat.jsonl\r")
    terminal.wait_for("saved 2 messages to ")
    terminal.wait_for(">")
    terminal.type("/bye\r")
    assert terminal.close() == 0
    asked, _ = json.loads((tmp_path / "chat.jsonl").read_text(encoding="utf-8"))["messages"]
    assert asked["content"] == '  첫째\n둘째 """x"""'


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
@sending("SIGTERM", "SIGHUP")
def test_what_the_system_stops_is_the_chat_and_not_an_answer(terminal: Terminal, name: str, busy: Callable[[Terminal], None]) -> None:
    terminal.wait_for(">")
    busy(terminal)
    terminal.child.send_signal(getattr(signal, name))
    terminal.wait_for("stopped\n")
    assert terminal.close() == 130


@pytest.mark.parametrize(("busy", "says_so"), [(idle, True), (idle, False), (answering, True)])
def test_a_chat_ends_with_its_terminal(terminal: Terminal, busy: Callable[[Terminal], None], says_so: bool) -> None:
    terminal.wait_for(">")
    busy(terminal)
    terminal.hang_up(says_so=says_so)


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
