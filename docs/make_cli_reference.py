"""Write docs/cli.md from the commands' own help: python docs/make_cli_reference.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from nomoat.cli import app

TARGET = Path(__file__).parent / "cli.md"
WIDTH = 110


def commands(command: object, name: str) -> Iterator[tuple[str, str]]:
    """(full name, help) of a command and of all below it."""
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, "help_option_names": ["-h", "--help"]}
    context = typer.Context(command, info_name=name, **settings)  # type: ignore[arg-type]
    yield name, command.get_help(context)  # type: ignore[attr-defined]
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {child}")


def render() -> str:
    """The whole page."""
    parts = ["# Command line reference\n\nMade by `make docs` from each command's `--help`; do not edit.\n"]
    for name, text in commands(typer.main.get_command(app), "nomoat"):
        parts.append(f"\n## `{name}`\n\n```text\n{text.rstrip()}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
