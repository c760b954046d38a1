"""Options that several commands share, declared once so that they read the same everywhere."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from nomoat import bounds, config, textfiles
from nomoat.cli import completion
from nomoat.records import Effort

NONE = -1  # Ollama's and llama.cpp's word for no limit and no seed


def _use_quality(value: str | None) -> str | None:
    """A flag stands above the environment: it is put there, for whatever is loaded later in this process."""
    if value is not None:
        os.environ["NOMOAT_QUALITY"] = value
        config.quality()  # raises for what is none
    return value


def _known_template(value: str | None) -> str | None:
    """Raises for a name nobody knows before anything is asked."""
    if value is not None:
        from nomoat.engine import templates

        templates.named(value)
    return value


def _effort(value: str) -> Effort:
    """Raises UsageError for what is none."""
    bounds.require_one_of("--reasoning-effort", value, get_args(Effort))
    return cast(Effort, value)


def sampling(name: str, *flags: str, means: str) -> Any:
    """An option that is held to the bounds a `Request` has for the setting of that name."""
    low, high = bounds.NUMBERS[name]
    return typer.Option(*flags, min=low, max=high, help=means)


def _above_zero(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is no number above 0.")
    return value


def above_zero(means: str) -> Any:
    """An option for a number above 0."""
    return typer.Option(help=means, callback=_above_zero)


def as_named(value: Path | None) -> Path | None:
    """See `textfiles.as_named`: for files to be read."""
    return None if value is None else textfiles.as_named(value)


def not_piped(value: str | None) -> str | None:
    """The text of an argument; None for `-`, which means what is piped in."""
    return None if value == "-" else value


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model reference: see `nomoat models`.", autocompletion=completion.models_here)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print for machines.")]
ContextToPlan = Annotated[
    int | None, typer.Option("--context", "--ctx-size", "-c", min=1, help="Plan memory for this many tokens.", show_default=False)
]
ContextSize = Annotated[
    int | None, typer.Option("--ctx-size", "--context", "-c", min=1, show_default=False, help="Shorten the context to save memory.")
]
InputColumn = Annotated[
    str | None, typer.Option(help=r"Column of the texts (tables), or a text of several: '{title}\n{body}'.", show_default=False)
]
LabelColumn = Annotated[str | None, typer.Option(help="The column of right answers.", show_default=False)]
Instruction = Annotated[
    str | None,
    typer.Option(help="Words before a table's texts, or with {text} in them all that is asked, as in `tune`.", show_default=False),
]
LongestAnswer = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, help="Longest written answer, not the suite's; asks again what was cut.", show_default=False),
]
ReasoningEffort = Annotated[
    Effort | None,
    typer.Option(
        parser=_effort,
        metavar="EFFORT",
        show_default=False,
        help="How long to think before writing: none, minimal, low … max.",
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        callback=_use_quality,
        metavar="high|default|small",
        show_default=False,
        help="What of a file's quality to give up for speed.",
        autocompletion=completion.qualities,
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        callback=_known_template,
        help="Chat template of a model that has none or a wrong one.",
        autocompletion=completion.templates,
        show_default=False,
    ),
]
FallbackTemplate = Annotated[
    str | None,
    typer.Option(
        "--template",
        callback=_known_template,
        help="Chat template of those local models that have none; others keep theirs.",
        autocompletion=completion.templates,
        show_default=False,
    ),
]
Temperature = Annotated[float, sampling("temperature", "--temp", "--temperature", means="0: always the likeliest.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Ask this many, drawn at random.", show_default=False)]
Seed = Annotated[
    int,
    typer.Option(min=0, help="Of the drawing and the order, and of intervals that are drawn: of ratings and of a total score ratio."),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, help="Answers in the making at once; with 1, a local model writes the same each time.")
]
NumWorkers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Answer with this many processes, by Ray.", show_default=False)
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Workers on a Ray cluster: auto or HOST:PORT.", show_default=False),
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", min=0.0, help="Spend at most this, in USD; earlier tries count.", show_default=False)
]
PriceIn = Annotated[
    float | None, typer.Option("--price-in", min=0.0, help="The server's price of a million tokens in, USD.", show_default=False)
]
PriceOut = Annotated[float | None, typer.Option("--price-out", min=0.0, help="The same for a million tokens out.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Send to servers outside without asking.")]
JudgeModel = Annotated[
    str | None,
    typer.Option(
        "--judge", metavar="MODEL", help="A model that judges the answers.", autocompletion=completion.models_here, show_default=False
    ),
]
JudgeCheck = Annotated[
    str | None,
    typer.Option("--judge-check", metavar="LABELS", help="Measure the judge first: vicuna80, or a JSONL file.", show_default=False),
]
Replace = Annotated[bool, typer.Option("--replace", help="Write over what is there.")]
Report = Annotated[Path | None, typer.Option(help="Write an HTML report to this file.", show_default=False)]
