"""Suites whose answers and scores were published: no model is asked, nothing is scored again."""

from __future__ import annotations

from nomoat.engine.recorded import read_recorded
from nomoat.engine.stored import full_stored_name, stored_names
from nomoat.errors import UnsupportedError
from nomoat.judge.groups import grouped, groups_in
from nomoat.judge.suites import Suite
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
    scored = [
        Outcome(
            suite=suite.name,
            example_id=example.id,
            model=ref,
            answer=rows[example.id].answers.get(name, f"scored {rows[example.id].scores[name]:g}"),
            score=rows[example.id].scores[name],
            category=example.category,
        )
        for example in suite.examples
    ]
    outcomes = grouped(scored, groups_in(suite))
    side = side_of(ref, "unknown", suite.metric, outcomes, facts={"recorded as": name})
    data = f"recorded answers: {suite.source}; licence of the data: {suite.licence}"
    notes = (data, *notes, *notes_over_all(suite, ref, outcomes))
    return Evaluation(suite=suite, side=side, outcomes=outcomes, notes=notes, seed=seed)
