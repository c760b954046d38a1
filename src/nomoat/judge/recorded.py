"""Suites whose answers and scores were published: no model is asked, nothing is scored again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nomoat.engine.recorded import read_recorded
from nomoat.engine.stored import full_stored_name, stored_names
from nomoat.errors import UnsupportedError
from nomoat.judge.groups import grouped, groups_in
from nomoat.judge.suite import Suite
from nomoat.judge.verdict import Evaluation, notes_over_all, side_of
from nomoat.records import Outcome
from nomoat.references import STORED


def has_recorded_scores(suite: Suite) -> bool:
    """Whether a suite's scores are all there is: no model can be asked."""
    return suite.metric in ("recorded", "published")


def recorded_evaluation(ref: str, suite: Suite, *, notes: tuple[str, ...], seed: int) -> Evaluation:
    """What was recorded of one system. Raises UnsupportedError for a model that is not one of the suite's stored ones."""
    prefix = f"{STORED}{suite.name}/"
    if suite.folder is None:
        raise ValueError("a suite of recorded scores has a folder")
    if not ref.startswith(prefix):
        raise UnsupportedError(
            f"`{suite.name}` has recorded scores only, and `{ref}` is not one of them",
            hint=f"recorded are: {', '.join(f'{prefix}{name}' for name in stored_names(suite.folder))}",
        )
    name = full_stored_name(suite.name, ref.removeprefix(prefix), suite.folder)
    rows = {row.id: row for row in read_recorded(suite.folder)}
    asked = [rows[example.id] for example in suite.examples]
    answers = ((row.answers.get(name, f"scored {row.scores[name]:g}"), row.scores[name]) for row in asked)
    data = f"recorded answers: {suite.source}; licence of the data: {suite.licence}"
    return stored_evaluation(ref, suite, answers, licence="unknown", facts={"recorded as": name}, notes=(data, *notes), seed=seed)


def stored_evaluation(
    ref: str, suite: Suite, answers: Iterable[tuple[str, float]], *, licence: str, facts: Mapping[str, str], seed: int,
    notes: tuple[str, ...] = (),
) -> Evaluation:  # fmt: skip
    """The evaluation of stored answers, each with its score, to the examples of a suite."""
    scored = [
        Outcome(suite=suite.name, example_id=example.id, model=ref, answer=answer, score=score, category=example.category)
        for example, (answer, score) in zip(suite.examples, answers, strict=True)
    ]
    outcomes = grouped(scored, groups_in(suite))
    side = side_of(ref, licence, suite.metric, outcomes, facts=facts)
    notes = (*notes, *notes_over_all(suite, ref, outcomes))
    return Evaluation(suite=suite, side=side, outcomes=outcomes, notes=notes, seed=seed)
