"""Ask a model the questions of a suite: `nomoat eval`, and each side of `nomoat duel`.

Answers are greedy, and each is stored before it is scored: a run that was stopped goes on where it was, and a second run over the
same answers costs nothing.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from nomoat.asking import as_tuned
from nomoat.asking.spending import Spending
from nomoat.errors import UsageError
from nomoat.judge.askable import require_askable, require_scorable
from nomoat.judge.asking import Asking
from nomoat.judge.groups import conversations_of
from nomoat.judge.kept import kept_first, unasked_note
from nomoat.judge.new_suite import metric_of
from nomoat.judge.opened import given, opened, opened_store
from nomoat.judge.recorded import has_recorded_scores, recorded_evaluation
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.suites import load_suite
from nomoat.judge.verdict import Evaluation, in_common
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.progress import AnswerProgress, quiet
from nomoat.records import Effort, Outcome
from nomoat.responder import Responder, ref_of
from nomoat.rows import Given


class Outcomes(list[Outcome]):
    """The outcomes of `evaluate`. `notes` is what has to be known of them; `partial` says why they are not those of all examples, or
    tell little of the model, and is empty if neither is so. Parts of the list, as slices are, have neither."""

    def __init__(self, outcomes: Iterable[Outcome] = (), *, notes: tuple[str, ...] = (), partial: str = "") -> None:
        super().__init__(outcomes)
        self.notes = notes
        self.partial = partial

    def __repr__(self) -> str:
        """In a line, without the outcomes: a notebook would show pages of them."""
        whose = "".join(f" of {one.model} on {one.suite}" for one in self[:1])
        mean = f", mean score {sum(one.score for one in self) / len(self):.4g}" if self else ""
        partial = f", partial: {self.partial}" if self.partial else ""
        return f"<Outcomes: {len(self):,}{whose}{mean}{partial}>"


def evaluate(
    responder: str | Path | Responder,
    suite: Given | Suite,
    *,
    input_column: str | None = None,
    label_column: str | None = None,
    instruction: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: AnswerProgress = quiet,
    spending: Spending | None = None,
    template: str | None = None,
    max_new_tokens: int | None = None,
    reasoning_effort: Effort | None = None,
) -> Outcomes:
    """A model's answers to a suite, scored, one an example: a list with what has to be known of it as its `notes` and `partial`.
    `limit` examples are drawn with `seed`; None asks all.

    `suite` is what `nomoat.judge.suites.load_suite` takes: a name, a file, a folder, or rows as a list of dicts or a data frame. The
    two columns and `instruction`, the words before each text or with `{text}` in them all that is asked, are for a suite that is a
    table (CSV, TSV, rows). Up to `concurrency` answers are in the making at once. `progress` is told (model, answers so far,
    answers in all). `spending` holds a budget, and prices that no table knows. Where it is used up, or a question failed for good,
    the outcomes are fewer than the examples, and `partial` says so. Labels of a table that a tuned model never learned are a
    UserWarning, too, before anything is asked. `template` names the chat template of a local model that has none. `max_new_tokens` is
    the longest written answer, in place of the suite's: what was cut off before is asked again, and what was whole is not.
    `reasoning_effort` is OpenAI's, for written answers: how long a model is to think before.

    Answers are kept: who interrupts it (Ctrl-C) and calls it again goes on, and nothing is asked twice.

    Raises what `load` and `load_suite` raise, DataError for an example that does not fit into the model's context (before
    anything is asked), UnsupportedError for a suite that only compares.
    """
    responder = given(responder)
    suite = load_suite(
        suite, input_column=input_column, label_column=label_column, instruction=instruction, models=[responder]
    )  # fmt: skip
    settings = RunSettings(
        limit=limit, seed=seed, concurrency=concurrency, progress=progress, spending=spending or Spending(), template=template,
        max_new_tokens=max_new_tokens, reasoning_effort=reasoning_effort,
    )  # fmt: skip
    warn_of_unlearned(suite)
    found = run_suite(responder, suite, settings)
    return Outcomes(found.outcomes, notes=found.notes, partial=found.partial)


def warn_of_unlearned(suite: Suite) -> None:
    """Labels that a tuned model never learned, as warnings where the caller's caller stands."""
    for note in filter(as_tuned.is_on_unlearned, suite.notes):
        warnings.warn(note, stacklevel=3)


def run_suite(responder: str | Path | Responder, suite: str | Path | Suite, settings: RunSettings | None = None) -> Evaluation:
    """As `evaluate`, with everything a report needs. Outcomes are kept in the store, where `route` finds them."""
    responder, settings = given(responder), settings or RunSettings()
    suite, notes = drawn(load_suite(suite), settings.limit, settings.seed)
    if has_recorded_scores(suite):
        return recorded_evaluation(ref_of(responder), suite, notes=notes, seed=settings.seed)
    require_scorable(suite)
    require_askable([responder], suite, settings)
    evaluation, unasked = _asked(responder, suite, notes, settings)
    return replace(evaluation, notes=(*evaluation.notes, unasked)) if unasked else evaluation


def in_turn(
    models: Sequence[str | Responder], suite: Suite, settings: RunSettings, *, judge: str | Responder | None = None
) -> tuple[list[Evaluation], list[str]]:
    """As `asked_in_turn`, of a suite that is still to be drawn from. Raises what `require_askable` raises before any is asked."""
    asked, notes = drawn(suite, settings.limit, settings.seed)
    require_askable(models, asked, settings, judge=judge)
    return asked_in_turn(models, asked, notes, settings, judge=judge)


def asked_in_turn(
    models: Sequence[str | Responder], asked: Suite, notes: Sequence[str], settings: RunSettings, *,
    judge: str | Responder | None = None,
) -> tuple[list[Evaluation], list[str]]:  # fmt: skip
    """Every model's answers, one model after another, to the examples that all answered; and what has to be known of kept ones.

    A budget keeps a share for each model to come, and for the judge.
    """
    refs = [ref_of(model) for model in (*models, *([] if judge is None else [judge]))]
    answered: dict[int, Evaluation] = {}
    unasked: list[str] = []
    for at in kept_first(models):
        settings.spending.begin_stage(*(ref for number, ref in enumerate(refs) if number not in answered))
        answered[at], note = _asked(models[at], asked, notes, settings)
        unasked.append(note)
        # No answer of the others is worth its money, or its time, where this one has none.
        asked = replace(asked, examples=answered[at].suite.examples)
    return in_common([answered[at] for at in range(len(models))]), [note for note in unasked if note]


def _asked(responder: str | Responder, suite: Suite, notes: Sequence[str], settings: RunSettings) -> tuple[Evaluation, str]:
    """The evaluation, and its `unasked_note`."""
    with opened_store(settings) as store, opened(responder, replace(settings, store=store)) as model:
        asking = Asking(model=model, suite=suite, store=store, settings=settings)
        asking.ask(suite.examples)
        num_kept = len(asking.examples) + asking.num_left_out
        return asking.evaluation(notes=notes), unasked_note(model.ref, num_kept, len(suite.examples))


def drawn(suite: Suite, limit: int | None, seed: int) -> tuple[Suite, tuple[str, ...]]:
    """The suite with `limit` of its examples, drawn at random (files are often sorted by label), in their order, and the notes on it.

    Conversations stay whole, so that a suite of them may give a few examples fewer.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}", hint="give a whole number of at least 1")
    total, notes = len(suite.examples), (*suite.notes, *_metric_note(suite))
    if limit is None or limit >= total:
        return suite, notes
    conversations = conversations_of(suite.examples)
    count = max(1, limit * len(conversations) // total)
    chosen = sorted(random.Random(seed).sample(range(len(conversations)), count))
    examples = tuple(example for at in chosen for example in conversations[at])
    return replace(suite, examples=examples), (*notes, f"{len(examples):,} of {total:,} examples, drawn with seed {seed}")


def _metric_note(suite: Suite) -> tuple[str, ...]:
    """That answers which hardly can be equal to the letter are compared so, where nobody asked for it."""
    if suite.is_metric_told or suite.metric != "exact":
        return ()
    answers = [example.target for example in suite.examples]
    guessed, _ = metric_of(answers, sorted(set(answers)), num_rows=len(answers))
    if guessed in ("exact", "choice"):  # labels are compared word for word, too
        return ()
    return (
        f"no `metric` is set, and answers are compared word for word: `{guessed}` would suit these targets more, and "
        "`nomoat suites new` takes it",
    )
