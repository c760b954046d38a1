"""How whoever does a long piece of work tells how far it is; of a training there is more to tell: `tune.loop.StageProgress`."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # done so far, in all
FileProgress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all if known
AnswerProgress = Callable[[str, int, int], None]  # model, answers so far, answers in all


def quiet(_name: str, _done: int, _total: int | None) -> None:
    """Shows nothing of several pieces, each told by its name."""
