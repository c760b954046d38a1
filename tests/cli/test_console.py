"""What is written for a person to see: the user's own words are never markup."""

from __future__ import annotations

import io
import json
import logging
import re
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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_server_says_is_a_line_of_its_log_where_nobody_looks_on(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log, screen = logging.getLogger("nomoat.test"), io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    with console.logged(log):
        console.say("ready\x1b")
        log.info("loaded")
        log.warning("full")
    console.say("over")
    assert caplog.messages == (["full"] if is_terminal else ["ready", "loaded", "full"])
    assert screen.getvalue() == ("ready\nover\n" if is_terminal else "over\n")


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


COLUMNS = {
    "": ["1", "2"],
    "model": ["stored:vicuna80/gpt35", "stored:vicuna80/vicuna-13b"],
    "score": ["8.66 [8.25, 8.81]", "8.41 [7.90, 8.68]"],
    "behind the first": ["-", "-0.69 points [-1.27, -0.11], p = 0.0414"],
}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (
            100,
            "   model                       score              behind the first\n"
            "1  stored:vicuna80/gpt35       8.66 [8.25, 8.81]  -\n"
            "2  stored:vicuna80/vicuna-13b  8.41 [7.90, 8.68]  -0.69 points [-1.27, -0.11], p = 0.0414\n",
        ),
        (
            80,
            "1  stored:vicuna80/gpt35\n"
            "   score             8.66 [8.25, 8.81]\n"
            "2  stored:vicuna80/vicuna-13b\n"
            "   score             8.41 [7.90, 8.68]\n"
            "   behind the first  -0.69 points [-1.27, -0.11], p = 0.0414\n",
        ),
    ],
)
def test_rows_that_a_console_has_no_room_for_stand_below_each_other(
    capsys: pytest.CaptureFixture[str], width: int, shown: str
) -> None:
    """No name and no interval is broken."""
    out = console.stdout_console()
    out.width = width
    console.print_rows(out, COLUMNS, num_heads=2)
    assert capsys.readouterr().out == shown


LISTED = {
    "MODEL": ["smollm2-135m", "한국어-모델"],
    "SIZE": ["135", "2"],
    "USE": ["yes, with use restrictions", "no"],
    "HERE": ["", "pulled"],
}


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (
            60,
            "MODEL         SIZE  USE                         HERE\n"
            "smollm2-135m   135  yes, with use restrictions\n"
            "한국어-모델      2  no                          pulled\n",
        ),
        (
            40,
            "MODEL         SIZE  USE           HERE\n"
            "smollm2-135m   135  yes, with\n"
            "                    use\n"
            "                    restrictions\n"
            "한국어-모델      2  no            pulled\n",
        ),
        (
            39,
            "smollm2-135m\n   SIZE  135\n   USE   yes, with use restrictions\n한국어-모델\n   SIZE  2\n   USE   no\n   HERE  pulled\n",
        ),
    ],
)
def test_cells_that_may_be_broken_are_so_between_words(capsys: pytest.CaptureFixture[str], width: int, shown: str) -> None:
    out = console.stdout_console()
    out.width = width
    console.print_rows(out, LISTED, num_heads=1, broken=("USE", "HERE"), numbers=("SIZE",))
    assert capsys.readouterr().out == shown


def test_a_word_that_is_wider_than_20_columns_may_be_broken_where_a_cell_may(capsys: pytest.CaptureFixture[str]) -> None:
    """Else one reference to a model elsewhere would take the table from a terminal of 80 columns."""
    out = console.stdout_console()
    out.width = 24
    console.print_rows(out, {"A": ["a"], "B": ["google:gemini-2.5-flash-lite"]}, num_heads=1, broken=("B",))
    assert capsys.readouterr().out == "A  B\na  google:gemini-2.5-fla\n   sh-lite\n"


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_every_terminal_has_its_own_width(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of TERM=dumb rich would say 80."""
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("rich.console.detect_legacy_windows", lambda: False)  # an old one of Windows has a column less
    assert console.stdout_console().width == 40


@pytest.mark.parametrize(
    ("make", "total", "done", "shown"),
    [
        (console.item_progress, 308_000, 92_400, "stored:vi…  92400/308000 left -:--:--"),
        (console.stage_progress, 1.0, 0.3, "stored:vi…  30% left -:--:--"),
        (console.byte_progress, 98_000_000, 9_800_000, "stored:vi… 9.8/98.0 MB -:--:--"),
    ],
)
def test_where_a_terminal_has_no_room_for_a_bar_its_figures_are_whole(
    make: Callable[[], Progress], total: float, done: float, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("rich.console.detect_legacy_windows", lambda: False)
    bar, out = make(), io.StringIO()
    bar.add_task("stored:vicuna80/vicuna-13b", total=total, completed=done, info="answers")
    Console(file=out, width=40, legacy_windows=False).print(bar.get_renderable())
    assert out.getvalue().rstrip() == shown


def test_on_a_narrow_terminal_what_is_waited_for_has_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = io.StringIO()
    monkeypatch.setattr(console, "stderr_console", lambda: Console(file=out, width=40, force_terminal=True))
    monkeypatch.setattr(console, "shows_bars", lambda: True)
    with console.waiting("reading my.csv"):
        pass
    assert "reading m…" in out.getvalue() and "0:00:00" in out.getvalue()


def test_what_is_waited_for_has_a_length_once_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(console, "stderr_console", lambda: Console(file=out, width=100, force_terminal=True))
    monkeypatch.setattr(console, "shows_bars", lambda: True)
    with console.waiting("reading my.csv") as show:
        show(30, 120)
    assert "reading my.csv" in out.getvalue() and "25%" in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_a_log_is_told_how_far_it_is_what_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with console.waiting("reading my.csv") as show:
        for done in (10, 15, 60):
            show(done, 120)
    assert capsys.readouterr().err == "reading my.csv: 8%\nreading my.csv: 12%\nreading my.csv: 50%\n"


def test_a_log_is_told_anew_of_what_gets_longer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A router that may be one of chance is tried 195 times more."""
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    with console.waiting("learning") as show:
        for total, done in ((6, 5), (201, 5), (201, 6), (201, 30)):
            show(done, total)
    assert capsys.readouterr().err == "learning: 83%\nlearning: 2%\nlearning: 15%\n"
