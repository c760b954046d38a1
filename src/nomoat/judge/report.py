"""A verdict as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from nomoat import __version__, paths
from nomoat.judge import plots, wording
from nomoat.judge.verdict import Duel, Evaluation, score_interval
from nomoat.records import Example, Outcome, Side

MAX_EXAMPLES_SHOWN = 12
MIN_FOR_INTERVAL = 5  # a category with fewer examples gets no interval: a bootstrap of three numbers promises too much
TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One example on the page."""

    example: Example
    answers: tuple[Outcome, ...]

    @property
    def question(self) -> str:
        """The conversation; roles are named only where there is more than one turn."""
        turns = self.example.messages
        return turns[0].content if len(turns) == 1 else "\n\n".join(f"[{turn.role}] {turn.content}" for turn in turns)


def write_duel_report(duel: Duel, path: Path) -> None:
    """Write the report of a duel to `path`, whole or not at all. Raises NotEnoughDiskError."""
    verdict = duel.verdict
    scale = 100 if wording.is_accuracy(verdict.metric) else 1
    point = plots.Point(value=scale * verdict.difference, interval=(scale * verdict.difference_low, scale * verdict.difference_high))
    _write(
        path,
        evaluations=(duel.left, duel.right),
        sentence=verdict.sentence,
        notes=verdict.notes,
        verdict=verdict,
        difference=plots.difference_svg(point, unit="", title="difference, left minus right, in points"),
        shown=_where_they_differ(duel),
    )


def write_evaluation_report(evaluation: Evaluation, path: Path) -> None:
    """Write the report of one model's evaluation to `path`, whole or not at all. Raises NotEnoughDiskError."""
    suite, side = evaluation.suite, evaluation.side
    wrong = [
        Shown(example=example, answers=(outcome,))
        for example, outcome in zip(suite.examples, evaluation.outcomes, strict=True)
        if outcome.score < 1
    ]
    _write(
        path,
        evaluations=(evaluation,),
        sentence=wording.score_sentence(suite.name, suite.metric, side, len(evaluation.outcomes)),
        notes=evaluation.notes,
        verdict=None,
        difference="",
        shown=_spread(wrong, MAX_EXAMPLES_SHOWN),
    )


def _write(path: Path, *, evaluations: tuple[Evaluation, ...], **values: object) -> None:
    import jinja2

    suite = evaluations[0].suite
    labels, points = _forest_rows(evaluations)
    high, unit = (100, "%") if wording.is_accuracy(suite.metric) else (10, "")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["names"] = _names_marked
    template = environment.from_string(resources.files("nomoat.judge").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    page = template.render(
        **values,
        suite=suite,
        evaluations=evaluations,
        num_examples=len(evaluations[0].outcomes),
        labels=labels,
        forest=plots.forest_svg(points, low=0, high=high, unit=unit, title="scores with 95 % intervals"),
        side_rows=_side_rows(suite.metric, [evaluation.side for evaluation in evaluations]),
        wording=wording,
        plots=plots,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    with paths.whole_file(path) as part:
        part.write_text(page, encoding="utf-8")


def _names_marked(text: str) -> Markup:
    """`like this` in a sentence becomes a marked name; everything is escaped."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _side_rows(metric: str, sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    rows = [
        (
            "score",
            [
                f"{wording.render_score(metric, side.score)} {wording.render_interval(metric, side.score_low, side.score_high)}"
                for side in sides
            ],
        ),
        ("latency, median / 95th percentile", [wording.render_latency(side) for side in sides]),
        ("bytes sent to other machines", [f"{side.bytes_out:,}" for side in sides]),
        ("cost of 1,000 answers", [wording.render_cost(side) for side in sides]),
        ("licence", [side.licence for side in sides]),
    ]
    names = dict.fromkeys(name for side in sides for name in side.facts)
    return rows + [(name, [side.facts.get(name, "-") for side in sides]) for name in names]


def _forest_rows(evaluations: Sequence[Evaluation]) -> tuple[list[tuple[str, int]], list[list[plots.Point]]]:
    """Labels with their number of examples, and the points: all examples first, then each category if there are several."""
    everything = [evaluation.outcomes for evaluation in evaluations]
    metric, seed = evaluations[0].suite.metric, evaluations[0].seed
    groups: list[tuple[str, list[tuple[Outcome, ...]]]] = [("all", everything)]
    categories = sorted({outcome.category for outcome in everything[0]})
    if len(categories) > 1:
        for category in categories:
            picked = [tuple(outcome for outcome in outcomes if outcome.category == category) for outcomes in everything]
            groups.append((category or "(none)", picked))
    labels = [(name, len(sides[0])) for name, sides in groups]
    return labels, [[_point(metric, outcomes, seed) for outcomes in sides] for _, sides in groups]


def _point(metric: str, outcomes: Sequence[Outcome], seed: int) -> plots.Point:
    scale = 100 if wording.is_accuracy(metric) else 1
    scores = [outcome.score for outcome in outcomes]
    value = scale * sum(scores) / len(scores)
    if len(scores) < MIN_FOR_INTERVAL:
        return plots.Point(value=value, interval=None)
    low, high = score_interval(metric, scores, seed=seed)
    return plots.Point(value=value, interval=(scale * low, scale * high))


def _where_they_differ(duel: Duel) -> list[Shown]:
    """Up to twelve examples with different scores: the widest gaps first, half of them won by each side where there are enough."""
    rows = zip(duel.left.suite.examples, duel.left.outcomes, duel.right.outcomes, strict=True)
    apart = [(one.score - other.score, Shown(example=example, answers=(one, other))) for example, one, other in rows]
    won = [shown for gap, shown in sorted(apart, key=lambda row: -row[0]) if gap > 0]
    lost = [shown for gap, shown in sorted(apart, key=lambda row: row[0]) if gap < 0]
    half = MAX_EXAMPLES_SHOWN // 2
    return won[: max(half, MAX_EXAMPLES_SHOWN - len(lost))] + lost[: max(half, MAX_EXAMPLES_SHOWN - len(won))]


def _spread(rows: Sequence[Shown], count: int) -> list[Shown]:
    """`count` of the rows, evenly over all of them: files are often sorted."""
    if len(rows) <= count:
        return list(rows)
    return [rows[at * len(rows) // count] for at in range(count)]
