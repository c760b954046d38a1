"""A command with commands of its own, and the verbs, which are loaded when they are asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """Its help shows all of each command's first sentence, in several lines where the terminal is narrow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.get_short_help_str(sys.maxsize)) for name, command in self.commands.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Verbs(Mapping[str, Any]):
    """Commands by name; each is imported and made when it is first asked for: to make all of them takes longer than a verb's start."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            found = getattr(importlib.import_module(f"nomoat.cli.{name}"), name if name != "eval" else "eval_")
            root = typer.Typer(rich_markup_mode=None, callback=lambda: None)
            if isinstance(found, typer.Typer):
                root.add_typer(found, name=name)
            else:
                root.command(name)(found)
            self._made[name] = typer.main.get_group(root).commands[name]
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
