"""Write docs/cli.md from the commands' own help: python docs/make_cli_reference.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from nomoat.cli import app

TARGET = Path(__file__).parent / "cli.md"
WIDTH = 110
TOP = """# Command line reference

Made by `make docs` from each command's `--help`; do not edit.

## Exit codes

| code | says |
|---|---|
| 0 | done; `serve` was ended |
| 1 | an error: stderr has its message and, mostly, a hint; or you answered no to what a command asked; or what read \
stdout has closed it, as `head` does: then without a word |
| 2 | a command line that cannot be read: an unknown option, a missing argument, or suite |
| 3 | `PARTIAL`: less than was asked for; stderr says why, and what goes on from there. Of `eval`, `duel` and `distil`. \
No score makes it another one: [In CI](duel.md#in-ci) says how a job fails by a score |
| 130 | stopped by Ctrl-C, SIGTERM or SIGHUP; of all but `serve` |

## With a screen reader

With `TERM=dumb` in the environment nothing on the terminal is drawn anew: progress is told by lines, and neither they nor
a conversation have terminal codes. `NO_COLOR=1` takes the colours alone away. In HTML reports the figures of plots of scores
stand in tables, too.
"""


def commands(command: object, name: str) -> Iterator[tuple[str, str]]:
    """(full name, help) of a command and of all below it."""
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, "help_option_names": ["-h", "--help"]}
    context = typer.Context(command, info_name=name, **settings)  # type: ignore[arg-type]
    yield name, command.get_help(context)  # type: ignore[attr-defined]
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {child}")


def render() -> str:
    """The whole page."""
    parts = [TOP]
    for name, text in commands(typer.main.get_command(app), "nomoat"):
        parts.append(f"\n## `{name}`\n\n```text\n{text.rstrip()}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
