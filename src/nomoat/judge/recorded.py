"""Suites whose answers and scores were published: no model is asked, nothing is scored again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.engine.recorded import read_recorded
from nomoat.engine.stored import full_stored_name
from nomoat.errors import UnsupportedError
from nomoat.judge.examples import digest_of
from nomoat.judge.suites import Metric, Suite
from nomoat.judge.verdict import Evaluation, side_of
from nomoat.records import Example, Message, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSuite:
    """How the rows of a data set were scored, and what has to be known to read them rightly."""

    metric: Metric
    notes: tuple[str, ...]


RECORDED: Mapping[str, RecordedSuite] = {
    "routellm-gsm8k": RecordedSuite(
        metric="recorded",
        notes=(
            "scores are RouteLLM's: right if the number at the answer's end is",
            "31 of Mixtral's 1,319 answers break off inside a formula and count as wrong: up to 2.4 points of the difference",
        ),
    ),
    "routellm-mmlu": RecordedSuite(metric="recorded", notes=("scores are RouteLLM's; the answers themselves were not kept",)),
    "lora-land": RecordedSuite(
        metric="published",
        notes=(
            "each item is a task with its published score: what a task's own test questions leave open is not in these intervals",
            "completion prompts and short answers: some of GPT-4's low scores (0.014 on reuters) are format as much as ability",
        ),
    ),
}


def recorded_suite(name: str) -> Suite:
    """The suite of a data set of recorded scores. Raises what `pull_dataset` raises, DataError."""
    from nomoat.catalog.datasets import dataset, pull_dataset

    folder = pull_dataset(name)
    examples = tuple(
        Example(id=row.id, messages=(Message(role="user", content=row.question),), target="", category=row.category)
        for row in read_recorded(folder)
    )
    facts = dataset(name)
    return Suite(
        name=name,
        metric=RECORDED[name].metric,
        examples=examples,
        sha256=digest_of(examples),
        licence=facts.licence,
        source=facts.citation,
        folder=folder,
    )


def recorded_evaluation(ref: str, suite: Suite, *, notes: tuple[str, ...] = (), seed: int = 0) -> Evaluation:
    """What was recorded of one system. Raises UnsupportedError for a model that is not one of the suite's stored ones."""
    prefix = f"stored:{suite.name}/"
    if not ref.startswith(prefix) or suite.folder is None:
        raise UnsupportedError(
            f"`{suite.name}` has recorded scores only, and `{ref}` is not one of them", hint=f"name each side as {prefix}NAME"
        )
    name = full_stored_name(suite.name, ref.removeprefix(prefix), suite.folder)
    rows = {row.id: row for row in read_recorded(suite.folder)}
    outcomes = tuple(
        Outcome(
            suite=suite.name,
            example_id=example.id,
            model=ref,
            answer=rows[example.id].answers.get(name, f"scored {rows[example.id].scores[name]:g}"),
            score=rows[example.id].scores[name],
            category=example.category,
        )
        for example in suite.examples
    )
    side = side_of(ref, "unknown", suite.metric, outcomes, facts={"recorded as": name}, seed=seed)
    data = f"recorded answers: {suite.source}; licence of the data: {suite.licence}"
    return Evaluation(suite=suite, side=side, outcomes=outcomes, notes=(*notes, data, *RECORDED[suite.name].notes), seed=seed)
