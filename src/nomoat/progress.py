"""How whoever does a long piece of work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # done so far, in all


def quiet(_name: str, _done: int, _total: int | None) -> None:
    """Shows nothing of several pieces, each told by its name."""
