"""What a person sees while a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nomoat.cli import console, loading


class Bar:
    def __init__(self) -> None:
        self.told: list[object] = []

    def add_task(self, description: str, **fields: object) -> int:
        self.told.append(description)
        return 7

    def update(self, task: int, *, completed: int, total: int) -> None:
        self.told.append((task, completed, total))


def test_without_a_terminal_what_is_done_once_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with loading.bars(*loading.loading_bars("tiny")) as (importing, compiling):
        assert capsys.readouterr().err == ""
        importing(1, 3)
        importing(3, 3)
        compiling(0, 9)
        compiling(9, 9)
    assert capsys.readouterr().err == "[importing tiny (once)]\n[compiling for this CPU (once)]\n"


def test_a_bar_appears_with_the_first_layer_that_is_imported_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Bar | str] = []

    @contextmanager
    def bar() -> Iterator[Bar]:
        made.append(Bar())
        yield made[0]  # type: ignore[misc]
        made.append("gone")

    monkeypatch.setattr(console, "item_progress", bar)
    named = loading.loading_bars("tiny")
    with loading.bars(*named):
        pass
    assert made == []
    with loading.bars(*named) as (importing, compiling):
        importing(1, 3)
        importing(2, 3)
        compiling(0, 9)
        assert len(made) == 1
    expected = ["importing tiny (once)", (7, 1, 3), (7, 2, 3), "compiling for this CPU (once)", (7, 0, 9)]
    assert made[0].told == expected  # type: ignore[union-attr]
    assert made[1:] == ["gone"]


def test_a_context_beyond_the_model_s_is_said(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (8, 100_000):
        with loading.load_with_bar(str(tiny_gguf), context_tokens=asked) as loaded:
            has = loaded.engine.context_tokens
    note = f"note: a context of 100,000 tokens is asked for, and `{tiny_gguf}` has {has:,}"
    assert [line for line in capsys.readouterr().err.splitlines() if "context" in line] == [note]


def test_what_is_imported_for_the_router_has_its_own_name(
    tiny_gguf: Path, empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_home.mkdir()
    (empty_home / "policy.toml").write_text(f"local = {json.dumps(str(tiny_gguf))}\n", encoding="utf-8")
    with loading.load_with_bar("auto", takes_auto=True):
        assert capsys.readouterr().err.startswith(f"[importing {tiny_gguf} (once)]\n")
