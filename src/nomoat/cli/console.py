"""What every command shares: stderr for people, stdout for data, and progress bars with an ETA."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def stderr_console() -> Console:
    """A console on stderr. Made anew each time, so that tests which replace sys.stderr see it."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def stdout_console() -> Console:
    """A console on stdout, for tables a person reads."""
    from rich.console import Console

    return Console(highlight=False)


def say(text: str) -> None:
    """One plain sentence to the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Data for machines, on stdout. Dataclasses become objects."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def byte_progress() -> Progress:
    """A bar for downloads: size, speed, time left."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=stderr_console(), transient=True,
    )  # fmt: skip


def item_progress() -> Progress:
    """A bar for counted work: done of total, time left, and a free text field `info`."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[info]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=stderr_console(), transient=True,
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, frozenset | set | tuple):
        return list(value)
    return str(value)
