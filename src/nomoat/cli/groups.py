"""A command with commands of its own."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """Its help shows all of each command's first sentence, in several lines where the terminal is narrow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.get_short_help_str(sys.maxsize)) for name, command in self.commands.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
