"""What is written for a person to see: the user's own words are never markup."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import pytest
from misbehaving import Server, say
from rich.console import Console
from rich.progress import Progress
from rich.text import Text
from shell import Done

from nomoat.cli import console

WORDS = "Tickets [beta] [/INST] :x:"


@pytest.mark.parametrize("made", [console.byte_progress, console.item_progress, console.stage_progress])
def test_what_a_bar_says_is_text(made: Callable[[], Progress]) -> None:
    bar, out = made(), io.StringIO()
    bar.add_task(WORDS, total=2, info=f"of {WORDS}")
    Console(file=out, width=200).print(bar.get_renderable())
    assert WORDS in out.getvalue()
    assert made is console.byte_progress or f"of {WORDS}" in out.getvalue()


@pytest.mark.parametrize("forced", [False, True])
def test_a_bar_leaves_nothing_in_a_log(forced: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """rich before 14.3 ended one that nobody sees with an empty line."""
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with console.download_bar("a model") as show:
        show("model.gguf", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_what_is_said_does_not_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("two models:\n\ta\x1b]0;PWNED\x07, b\x9b2J\u202egpj.exe\u2066")
    assert capsys.readouterr().err == "two models:\n\ta]0;PWNED, b2Jgpj.exe\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("term", "said"), [("dumb", "a model: 50%\n"), ("xterm", "")])
def test_a_terminal_that_draws_no_line_again_is_told_of_progress_as_a_log_is(
    term: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of TERM=dumb rich would draw nothing at all."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("sys.stderr", Terminal())
    console.Tenths(console.item_progress()).show("a model", 0.5, "")
    assert sys.stderr.getvalue() == said  # type: ignore[attr-defined]


@pytest.mark.parametrize(("out", "shown"), [(Terminal, "a]0;PWNED, 31mred"), (io.StringIO, "a\x1b]0;PWNED\x07, \x9b31mred")])
def test_what_is_printed_does_not_drive_a_terminal_and_is_whole_elsewhere(
    out: type[io.StringIO], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", out())
    console.print_text("a\x1b]0;PWNED\x07, \x9b31mred")
    assert sys.stdout.getvalue() == f"{shown}\n"  # type: ignore[attr-defined]


def test_a_table_does_not_drive_a_terminal_and_keeps_its_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    table = console.table(show_header=False)
    table.add_row("ev\x1b]0;SUITE\x07il", "MIT\x1b[31m\x9b2J")
    console.wide_out().print(table)
    console.stdout_console().print(Text("on `ev\x1b]0;il`", style="bold"))
    lines = sys.stdout.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in lines] == ["ev]0;SUITEil  MIT[31m2J", "\x1b[1mon `ev]0;il`\x1b[0m"]


@pytest.mark.parametrize("out", [Terminal, io.StringIO])
def test_json_says_the_same_on_a_terminal_in_characters_that_do_not_drive_it(
    out: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", out())
    console.print_json({"name": "\x1b[31m\x9b2J\u202e 가"})
    text = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert json.loads(text) == {"name": "\x1b[31m\x9b2J\u202e 가"}
    assert ("\x9b" in text) == ("\u202e" in text) == (out is io.StringIO)
    assert "\x1b" not in text


def test_errors_do_not_drive_the_terminal(nomoat: Callable[..., Done], serving: Callable[..., Server]) -> None:
    server = serving(say(200, {"object": "list", "data": [{"id": "\x1b[2Jone"}, {"id": "two"}]}))
    done = nomoat("run", server.url, "hello")
    assert done.stderr == (f"error: the server at `{server.url}` has 2 models: [2Jone, two\nhint: write `{server.url}#[2Jone`\n")


def test_what_a_table_says_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = console.table()
    table.add_column(f"about {WORDS}")
    table.add_row(WORDS)
    console.wide_out().print(table)
    assert capsys.readouterr().out == f"about {WORDS}\n{WORDS}\n"  # piped, there are no blanks at an end
