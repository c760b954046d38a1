"""How a run asks, whatever it asks and whomever: what `eval`, `duel`, tables and judges have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

from nomoat import bounds
from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.asking.workers import Workers
from nomoat.engine import templates
from nomoat.errors import UsageError
from nomoat.pool import DEFAULT_CONCURRENCY, some
from nomoat.progress import AnswerProgress, quiet
from nomoat.records import Effort


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """`limit` examples are drawn with `seed`, None asks all; up to `concurrency` answers are in the making at once.

    `store` None is the user's own, opened for the run. `spending` holds a budget, and prices that no table knows. With `workers`,
    models whose weights are on disk answer there, and `concurrency` is each worker's. `template` names the chat template of local
    models that have none. `max_new_tokens` is the longest written answer, in place of the suite's, and `reasoning_effort` how long who
    writes it is to think before. Raises UsageError for what is of another type, a template that nobody knows, a `concurrency` or
    `max_new_tokens` below 1, a `seed` below 0 and an effort that is none of OpenAI's.
    """

    limit: int | None = None
    seed: int = 0
    concurrency: int = DEFAULT_CONCURRENCY
    progress: AnswerProgress = quiet
    store: AnswerStore | None = None
    spending: Spending = field(default_factory=Spending)
    workers: Workers | None = None
    template: str | None = None
    max_new_tokens: int | None = None
    reasoning_effort: Effort | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "concurrency", some(self.concurrency))
        bounds.require_type("progress", self.progress, Callable)
        bounds.require_type("spending", self.spending, Spending)
        if self.store is not None:
            bounds.require_type("store", self.store, AnswerStore)
        if self.workers is not None:
            bounds.require_type("workers", self.workers, Workers)
        if self.template is not None:
            bounds.require_text(self.template, "`template`")
        if self.template:
            templates.named(self.template)  # also where nobody uses it
        if self.reasoning_effort is not None:
            bounds.require_one_of("reasoning_effort", self.reasoning_effort, get_args(Effort))
        for name in ("seed", "limit", "max_new_tokens"):
            if name == "seed" or getattr(self, name) is not None:
                object.__setattr__(self, name, bounds.whole(name, getattr(self, name)))
        if self.seed < 0:
            raise UsageError(f"`seed` is {self.seed}", hint="it can be 0 or more")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UsageError(f"`max_new_tokens` is {self.max_new_tokens}", hint="it can be 1 or more")
