"""`nomoat tune`, as a new user's log sees it."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shell
from learning import write_table
from typer.testing import CliRunner

from nomoat import commands
from nomoat.cli import app
from nomoat.cli.tune import _say_how_to_ask, learn_with_bar


@pytest.fixture
def command(tiny_gguf: Path, tmp_path: Path) -> list[str]:
    """`tune` of a small table."""
    table = write_table(tmp_path / "colours.csv", ["red", "blue"], "xy", num_rows=60)
    return ["tune", str(tiny_gguf), str(table), "--input-column", "text", "--label-column", "label", "--name", "c"]


def stopped(command: list[str], needle: str, number: int) -> tuple[int, list[str]]:
    """The program, sent a signal when a line begins with `needle`: its exit code and what was said."""
    with subprocess.Popen([shell.NOMOAT, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if needle and line.startswith(needle):
                process.send_signal(number)
                needle = ""
    return process.returncode, said


@pytest.mark.parametrize(
    "given", ["--rank=0", "--layers=-1", "--batch=0", "--seed=-1", "--epochs=0", "--minutes=-5", "--learning-rate=nan", "--noise=inf"]
)
def test_a_number_that_cannot_be_meant_is_a_command_line_that_cannot_be_read(command: list[str], given: str) -> None:
    done = CliRunner().invoke(app, [*command, given])
    assert (done.exit_code, f"'{given.split('=', maxsplit=1)[0]}'" in done.stderr) == (2, True)


@pytest.mark.skipif(os.name != "posix", reason="Windows ends a process at once")
@pytest.mark.usefixtures("kernels")
def test_a_stopped_training_says_how_to_go_on_and_other_settings_are_named(command: list[str]) -> None:
    """By Ctrl-C. Other signals stop a verb likewise: see `test_main.py`; what they find under way is in `test_interrupts.py`."""
    command = [*command, "--epochs", "500"]
    code, said = stopped(command, "tuning", signal.SIGINT)
    assert (code, said[-1]) == (130, "stopped; the same command with --resume goes on from here")
    assert any(line.startswith("measuring the base: 0%") for line in said)
    done = shell.nomoat(*command, "--rank", "8", "--resume")
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (
        1,
        ["error: the interrupted training of `c` was begun with rank 16, not 8",
         "hint: give the same arguments as then, or start again without --resume (in Python: `resume`)"],
    )  # fmt: skip


def test_data_that_are_no_file_are_said_to_be_none(command: list[str], tmp_path: Path) -> None:
    """A mistyped licence is told first: nothing has to be read for it."""
    (tmp_path / "folder.csv").mkdir()
    for name, said in (("absent.csv", ": there is no such file"), ("folder.csv", " is a folder, not a file")):
        command[2] = str(tmp_path / name)
        done = shell.nomoat(*command)
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, f"error: `{command[2]}`{said}")
    assert shell.nomoat(*command, "--data-licence", "mti").stderr.startswith("error: no terms are called `mti`\n")


@pytest.mark.skipif(os.name != "posix", reason="Windows ends a process at once")
@pytest.mark.usefixtures("kernels")
def test_a_training_stopped_before_it_learned_says_so(command: list[str]) -> None:
    code, said = stopped(command, "precision:", signal.SIGTERM)
    assert (code, said[-1]) == (130, "stopped before anything was learned")


@pytest.mark.parametrize(("seconds", "left"), [(None, ""), (99.4, ", 99 s left"), (200, ", 3 min left")])
def test_a_log_says_how_long_it_will_take(
    seconds: float | None, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nomoat.tune import loop, train

    def learn(*_: object, on_progress: Any, **__: object) -> Path:
        on_progress(loop.StageProgress(stage="measuring the base", fraction=0.25, seconds_left=seconds))
        on_progress(loop.StageProgress(stage="tuning", fraction=0.16, step=1, loss=1.964, tokens_per_second=168, seconds_left=seconds))
        return Path("adapters/c")

    monkeypatch.setattr(train, "learn", learn)
    prepared: Any = None
    learn_with_bar(prepared, name="c")
    assert capsys.readouterr().err.splitlines() == [
        f"measuring the base: 25%{left}",
        f"tuning: 16%, loss 1.964, 168 tok/s{left}",
    ]


PRIVATE = ["010-1234-5678로 전화 주세요", "me@naver.com", "홍길동 고객 환불 요청"]


@pytest.mark.parametrize(
    ("policy", "texts", "shown"),
    [
        ('names = ["홍길동"]', [*PRIVATE, "늦게 왔어요"], "늦게 왔어요"),
        ('names = ["홍길동"]', PRIVATE, "..."),
        ("", [*PRIVATE[:1] * 99, "늦게 왔어요"], "늦게 왔어요"),
        ("", [*PRIVATE[:1] * 100, "늦게 왔어요"], "..."),
        ("names =", ["늦게 왔어요"], "..."),
    ],
    ids=["names of the policy", "only private ones", "among the first hundred", "behind them", "a policy that cannot be read"],
)
def test_the_text_in_that_command_holds_nothing_private(
    policy: str, texts: list[str], shown: str, empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_home.mkdir()
    (empty_home / "policy.toml").write_text(policy, encoding="utf-8")
    lessons = [SimpleNamespace(text=text) for text in texts]
    prepared: Any = SimpleNamespace(
        base="base", survey=SimpleNamespace(question="Q: {text}", labels={}), data=SimpleNamespace(lessons=lessons)
    )
    _say_how_to_ask(prepared, Path("adapters/c"))
    assert capsys.readouterr().err.splitlines()[1] == f"try it: nomoat run base+c --as-tuned {commands.as_line([shown])}"


@pytest.mark.parametrize("text", ["It broke", "-5 degrees", "--json", "it's '-'"])
def test_the_command_that_a_training_ends_with_asks_about_the_text_whatever_it_begins_with(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = SimpleNamespace(lessons=[SimpleNamespace(text=text)])
    prepared: Any = SimpleNamespace(base="base", survey=SimpleNamespace(question="Q: {text}", labels={}), data=data)
    _say_how_to_ask(prepared, Path("adapters/colours"))
    command = capsys.readouterr().err.splitlines()[1].removeprefix("try it: nomoat ")
    asked = []

    def in_its_words(model: str, prompt: str) -> str:
        asked.append((model, prompt))
        raise SystemExit

    monkeypatch.setattr(importlib.import_module("nomoat.cli.run"), "_in_its_words", in_its_words)
    CliRunner().invoke(app, shlex.split(command))
    assert asked == [("base+colours", text)]
