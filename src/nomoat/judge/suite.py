"""A suite as everything else has it, wherever it was read or made: `suites.py` reads, `new_suite.py` makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nomoat import matching
from nomoat.judge import scorers
from nomoat.judge.code import broken_program
from nomoat.judge.metrics import Metric
from nomoat.records import Example, in_short

DEFAULT_MAX_NEW_TOKENS = 32
CODE_MAX_NEW_TOKENS = 768  # as `humaneval` has


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Examples and how their answers are scored. `sha256` names their content, wherever they came from.

    `metric` is what an answer's score is: see `metrics.py`; "judge" answers can only be compared by a judge, "review" answers are
    stored, with what a judge wrote about them, in `folder`. Without `chat`, an example's text is given to a model as it is, no
    template around it, and a choice is scored after `delimiter`. `schema` is what JSON answers must be. `answer_start` is put into the
    model's mouth, and counts as the beginning of its answer: for models on this machine only. `notes` say what has to be known about
    its questions. Without `is_metric_told` nobody said how answers are scored.
    """

    name: str
    metric: Metric
    examples: tuple[Example, ...] = field(repr=False)
    sha256: str
    title: str = ""
    licence: str = "unknown"
    source: str = ""
    language: str = ""
    prompt_source: str = ""
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    stop: tuple[str, ...] = ()
    chat: bool = True
    delimiter: str = ""
    per_token: bool = False
    answer_start: str = ""
    schema: Mapping[str, Any] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    is_metric_told: bool = field(default=True, compare=False)  # of how it was read, not of what it is

    __repr__ = in_short

    def answer_in(self, written: str) -> str:
        """What is compared of what a model wrote, which goes on from `answer_start`; what begins as a draft is no part of it.

        Not covered: a draft behind an `answer_start`.
        """
        return matching.without_draft(f"{self.answer_start}{written}")


def unfit(metric: str, example: Example, target: str, schema: Mapping[str, Any] | None, *, chat: bool = True) -> str:
    """Why this example cannot be scored against one of its targets by this metric; empty if it can."""
    problems: dict[str, Callable[[], str]] = {
        "choice": lambda: "" if example.choices else "has no choices",
        "code": lambda: broken_program(target, chat=chat),
        "json": lambda: scorers.broken_json(target) if target else "" if schema is not None else "has no target, there is no schema",
        "numeric": lambda: scorers.broken_number(target),
        "regex": lambda: scorers.broken_pattern(target),
    }
    return problems[metric]() if metric in problems else ""
