"""A verdict as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.

It is in English and in Korean: each text stands there twice, and the page shows those of one language. The browser's language
chooses, by the page's one line of script, and so may the reader. What plots are called for a screen reader is English.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from markupsafe import Markup, escape

from nomoat import __version__, whole_files
from nomoat.judge import korean, plots, slices, wording
from nomoat.judge.groups import group_names, groups_of
from nomoat.judge.metrics import METRICS, mean_score
from nomoat.judge.table import Table
from nomoat.judge.verdict import DEFAULT_RULES, Duel, Evaluation, score_interval
from nomoat.records import Example, Outcome, Side, Verdict
from nomoat.words import SHOWN_TURNS, counted

MAX_EXAMPLES_SHOWN = 10
MAX_EXAMPLES_OF_SEVERAL = 4  # for each of several suites
MAX_CHARACTERS_SHOWN = 20_000  # of a question, or an answer
END_CHARACTERS = 16  # of a plot's label, always shown
LONG_CHARACTERS, LONG_LINES = 150, 8  # a longer text may need to be scrolled: on a telephone, a line has 16 syllables
NO_FULL_STOP = re.compile(r"다(\([^()]*\))?$")  # behind a sentence in Korean
LICENCE_TITLES = ("your own data", "terms not known")  # of the catalogue's: those that are no names
LICENCE_OF_AUTO = re.compile(r"local: (.*?); cloud: (.*)")  # of the two that it asks
MIN_FOR_INTERVAL = 5  # a category with fewer examples, or groups of them, gets no interval: three numbers promise too much


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


def write_duel_report(duel: Duel, path: Path, *, command: str) -> None:
    """Write the report of a duel to `path`, whole or not at all. `command` is what fights it again. Raises NotEnoughDiskError."""
    verdict = duel.verdict
    metric, scale = verdict.metric, METRICS[verdict.metric].points_per_score
    point = plots.Point(value=scale * verdict.difference, interval=(scale * verdict.difference_low, scale * verdict.difference_high))
    pairs = [(one.score, other.score) for one, other in zip(duel.left.outcomes, duel.right.outcomes, strict=True)]
    square = [pairs.count(pair) for pair in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))]
    _write(
        path,
        "report.html.j2",
        _common((duel.left, duel.right), alpha=verdict.alpha),
        about=[wording.render_items(verdict), METRICS[metric].title],
        sentence=verdict.sentence,
        notes=verdict.notes,
        verdict=verdict,
        difference=_difference_forest([point], room=1.25, title="difference, left minus right, in points"),
        square=square if METRICS[metric].right_or_wrong else None,
        plots_shown=_plots_of(verdict, pairs),
        shown_title="The most telling items: where the two differ",
        shown=_where_they_differ(duel),
        command=command,
        settings=_settings(duel.left, verdict),
    )


def write_duels_report(duels: Sequence[Duel], path: Path, *, command: str) -> None:
    """Write one report of duels of the same two models over several suites to `path`, as `write_duel_report` does.

    Raises NotEnoughDiskError.
    """
    verdicts = [duel.verdict for duel in duels]
    first = duels[0]
    points = [_difference_in_per_cent(verdict) for verdict in verdicts]
    alpha = first.verdict.alpha * len(duels)
    settings = [(f"suite {number}", _digest(v.suite, v.suite_sha256)) for number, v in enumerate(verdicts, start=1)]
    _write(
        path,
        "several.html.j2",
        {"name": counted(len(duels), "suite"), "evaluations": (first.left, first.right), "duels": duels, "verdicts": verdicts},
        about=[f"[{wording.render_confidence(alpha)} intervals, all together]"],
        confidence=wording.render_confidence(alpha),
        alpha=alpha,
        sentence=wording.several_sentence(verdicts),
        notes=(),
        forest=_difference_forest(points, room=1.1, title="differences with their intervals"),
        side_rows=[_side_rows(verdict.metric, (verdict.left, verdict.right)) for verdict in verdicts],
        shown=[_where_they_differ(duel, MAX_EXAMPLES_OF_SEVERAL) for duel in duels],
        command=command,
        settings=[*settings, ("seed", str(first.verdict.seed)), ("alpha, all together", f"{alpha:g}")],
    )


def _difference_in_per_cent(verdict: Verdict) -> plots.Point:
    lowest, highest = METRICS[verdict.metric].scale
    value, low, high = (
        100 * number / (highest - lowest) for number in (verdict.difference, verdict.difference_low, verdict.difference_high)
    )
    return plots.Point(value=value, interval=(low, high))


def write_evaluation_report(evaluation: Evaluation, path: Path, *, command: str) -> None:
    """Write the report of one model's evaluation to `path`, as `write_duel_report` does. Raises NotEnoughDiskError."""
    suite, side = evaluation.suite, evaluation.side
    _, highest = METRICS[suite.metric].scale
    wrong = [
        Shown(example=example, answers=(outcome,))
        for example, outcome in zip(suite.examples, evaluation.outcomes, strict=True)
        if outcome.score < highest
    ]
    title, shown = "Examples that were not right", _spread(wrong, MAX_EXAMPLES_SHOWN)
    if not METRICS[suite.metric].is_share:
        title, shown = "The answers with the lowest scores", sorted(wrong, key=lambda row: row.answers[0].score)[:MAX_EXAMPLES_SHOWN]
    _write(
        path,
        "report.html.j2",
        _common((evaluation,)),
        about=[counted(len(evaluation.outcomes), "item"), METRICS[suite.metric].title],
        sentence=wording.score_sentence(suite.name, suite.metric, side, len(evaluation.outcomes)),
        notes=evaluation.notes,
        verdict=None,
        shown_title=title,
        shown=shown,
        command=command,
        settings=_settings(evaluation, None),
    )


def write_table_report(table: Table, path: Path, *, command: str) -> None:
    """Write the report of a leaderboard to `path`, as `write_duel_report` does. Raises NotEnoughDiskError."""
    board, first = table.leaderboard, table.evaluations[0]
    points = [[plots.Point(value=row.rating, interval=(row.rating_low, row.rating_high))] for row in board.standings]
    low, high = min(row.rating_low for row in board.standings), max(row.rating_high for row in board.standings)
    margin = 0.05 * (high - low)
    _write(
        path,
        "table.html.j2",
        {
            "name": board.suite,
            "suite": first.suite,
            "evaluations": table.evaluations,
            "confidence": wording.render_confidence(board.alpha),
        },
        board=board,
        about=[counted(board.num_examples, "item"), METRICS[board.metric].title],
        sentence=board.sentence,
        notes=board.notes,
        forest=_forest(points, low=low - margin, high=high + margin, unit="", title="ratings with their intervals"),
        command=command,
        settings=_settings(first, None),
    )


def _common(evaluations: tuple[Evaluation, ...], *, alpha: float = DEFAULT_RULES.alpha) -> dict[str, object]:
    """What the pages of a duel and of an evaluation share."""
    metric = evaluations[0].suite.metric
    examples = evaluations[0].suite.examples
    rows = slices.slices_of(examples)
    labels, points = _forest_rows(evaluations, rows, alpha)
    scoring = METRICS[metric]
    high, unit = scoring.points_per_score * scoring.scale[1], "%" if scoring.is_share else ""
    return {
        "name": evaluations[0].suite.name,
        "suite": evaluations[0].suite,
        "evaluations": evaluations,
        "confidence": wording.render_confidence(alpha),
        "labels": [
            (_shortened(name) if row.is_data else _label(name), tally) for row, (name, tally) in zip(rows, labels, strict=True)
        ],
        "labels_note": slices.note_on(examples),
        "figures": [
            (row.name if row.is_data else _said(row.name), [_in_figures(metric, point) for point in in_row])
            for row, in_row in zip(rows, points, strict=True)
        ],
        "forest": _forest(points, low=0, high=high, unit=unit, title="scores with their intervals"),
        "side_rows": _side_rows(metric, [evaluation.side for evaluation in evaluations]),
    }


def _write(path: Path, template: str, common: dict[str, object], **values: object) -> None:
    import jinja2

    folder = resources.files("nomoat.judge")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
    )
    environment.filters["running"] = escape
    environment.filters["said"] = _said
    environment.filters["language"] = _language
    environment.filters["is_long"] = _is_long
    environment.filters["figures"] = _figures
    environment.filters["label"] = _label
    environment.filters["licence"] = _licence
    environment.filters["shortened"] = _shortened
    environment.filters["plot"] = _plot
    page = environment.get_template(template).render(
        **common,
        **values,
        wording=wording,
        metrics=METRICS,
        most_characters=MAX_CHARACTERS_SHOWN,
        plots=plots,
        say=_say,
        labelled=_labelled,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=__version__,
    )
    with whole_files.whole_file(path) as part:
        part.write_text(page, encoding="utf-8", newline="\n")


def _plots_of(verdict: Verdict, pairs: Sequence[tuple[float, float]]) -> list[tuple[str, str, str]]:
    """Title, plot and words of whatever this verdict has to show beyond its difference."""
    metric, scale = verdict.metric, METRICS[verdict.metric].points_per_score
    shown = []
    if len(verdict.looks) > 1:
        words = (
            "The difference in points, left minus right, while items were asked: its confidence sequence. All of it holds "
            "together, so the duel may stop wherever it leaves 0."
        )
        rope = None if verdict.rope is None else METRICS[metric].in_points(verdict.rope)
        shown.append(("While it went on", plots.sequence_svg(verdict.looks, scale=scale, rope=rope, title=words), words))
    if not METRICS[metric].right_or_wrong and metric != "judged":  # won, tied or lost: the bar of all items says that
        words = (
            "Each dot is an item: left score across, right score up. Below the line the left side is better, above it the right one."
        )
        lowest, highest = METRICS[metric].scale
        scaled = [(scale * one, scale * other) for one, other in pairs]
        plot = plots.scatter_svg(scaled, low=scale * lowest, high=scale * highest, title=words)
        shown.append(("Item by item", plot, words))
    costs = [side.cost_usd_per_1000 for side in (verdict.left, verdict.right)]
    if None not in costs and any(costs):
        words = "Score against US dollars for 1,000 answers: up and to the left is better."
        sides = [
            (side.cost_usd_per_1000 or 0.0, scale * side.score, (scale * side.score_low, scale * side.score_high))
            for side in (verdict.left, verdict.right)
        ]
        shown.append(("What quality costs", plots.cost_svg(sides, title=words), words))
    return shown


def _digest(suite: str, sha256: str) -> Markup:
    return _say("{suite}, digest {digest}", suite=suite, digest=sha256)


def _settings(evaluation: Evaluation, verdict: Verdict | None) -> list[tuple[str, str]]:
    """Names of ours, and values, of which the report's own words are in both languages."""
    suite = evaluation.suite
    rows = [
        ("suite", _digest(suite.name, suite.sha256)),
        ("source", suite.source),
        ("licence of the data", _figures("unknown") if suite.licence == "unknown" else suite.licence),
        ("seed", str(evaluation.seed)),
        ("new tokens, at most", "" if METRICS[suite.metric].origin == "stored" else str(suite.max_new_tokens)),
    ]
    if verdict is not None:
        rows.append(("alpha", f"{verdict.alpha:g}"))
        if verdict.rope is not None:
            points = METRICS[verdict.metric].in_points(verdict.rope)
            within = f"within {points:g} percentage points" if METRICS[verdict.metric].is_share else f"within {points:g} points"
            rows.append(("counts as equal", _figures(within)))
    return [(name, value) for name, value in rows if value]


def _say(english: str, **values: object) -> Markup:
    """A sentence of the page's own, with its values as they are. Raises KeyError if it has no Korean."""
    return _in_both(english.format(**values), korean.TWINS[english].format(**values))


def _said(text: str) -> Markup:
    """A sentence, in both languages where it has a Korean twin; a note, which has no full stop, gets one there."""
    twin = korean.twin(text)
    return _in_both(text, f"{twin}." if twin and NO_FULL_STOP.search(twin) else twin, _names_marked)


def _figures(text: str) -> Markup:
    """A cell of a table, as `_said`, in lines that do not break within an interval or a p-value."""
    return _in_both(text, korean.twin(text), _unbroken)


def _licence(text: str) -> Markup:
    """What a licence allows, and, where that is named, which licences it stands in: "yes, if (Gemma Terms of Use)"; of `auto` both."""
    return _in_both(text, _licence_twin(text))


def _licence_twin(text: str) -> str | None:
    if of_auto := LICENCE_OF_AUTO.fullmatch(text):
        local, cloud = map(_licence_twin, of_auto.groups())
        return local and cloud and korean.TWINS["local: {local}; cloud: {cloud}"].format(local=local, cloud=cloud)
    allowed, bracket, named = text.partition(" (")
    twin = korean.twin(allowed)
    titled = re.sub(rf"(?:^|(?<=, ))(?:{'|'.join(LICENCE_TITLES)})(?=[,)])", lambda found: korean.TWINS[found[0]], named)
    return twin and f"{twin}{bracket}{titled}"


def _label(name: str) -> Markup:
    """A row's name in a word of ours, as `_shortened`."""
    twin = korean.twin(name)
    return _shortened(name) if twin is None else _shortened(name, ' lang="en"') + _shortened(twin, ' lang="ko"')


def _language(text: str) -> str:
    """The code of a question's or an answer's language, as far as its letters tell; empty, which is HTML's for not known, if not."""
    return {"Korean": "ko", "Japanese": "ja", "Chinese": "zh"}.get(slices.language_of(text), "")


def _is_long(text: str) -> bool:
    """Whether a text may be higher than its place on the page."""
    return len(text) > LONG_CHARACTERS or text.count("\n") >= LONG_LINES


def _plot(svg: str) -> Markup:
    """A plot for the page, with the names of its axes in both languages."""

    def both(found: re.Match[str]) -> str:
        twin = korean.twin(found[1])
        return found[0] if twin is None else f'><tspan lang="en">{found[1]}</tspan><tspan lang="ko">{twin}</tspan></text>'

    return Markup(re.sub(r">([^<>]+)</text>", both, svg))


def _visible(value: object) -> object:
    """What a place of the page holds, with characters that turn letters around shown; `running` text and what is marked up stay."""
    return value.translate(SHOWN_TURNS) if type(value) is str else value


def _labelled(english: str) -> Markup:
    """What a cell is called where the table has no head, on a telephone."""
    return Markup('data-label="{}" data-ko="{}"').format(english, korean.TWINS[english])


def _in_both(english: str, twin: str | None, mark: Callable[[str], str] = escape) -> Markup:
    """A text, of which the page shows one language."""
    english = english.translate(SHOWN_TURNS)
    if twin is None:
        return escape(mark(english))
    twin = twin.translate(SHOWN_TURNS)
    return Markup('<span lang="en">{}</span><span lang="ko">{}</span>').format(mark(english), mark(twin))


def _names_marked(text: str) -> Markup:
    """`like this` in a sentence becomes a marked name; everything is escaped."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _unbroken(text: str) -> str:
    """Intervals and p-values do not break at the end of a line: "81.2 % [78.7,\u00a083.5]"."""
    return re.sub(r"\[[^]]*\]|p [=<] [\d.]+", lambda found: found[0].replace(" ", "\u00a0"), text)


def _shortened(name: str, language: str = "") -> Markup:
    """A label that is cut, where it is too long for its place, before its end: names of models differ there."""
    name = name.translate(SHOWN_TURNS)
    head, tail = name[:-END_CHARACTERS], name[-END_CHARACTERS:]
    return Markup('<span title="{}"{}><i>{}</i><b>{}</b></span>').format(name, Markup(language), head, tail)


def _side_rows(metric: str, sides: Sequence[Side]) -> list[tuple[Markup, list[str]]]:
    """As `_settings`, and the names in both languages, too."""
    rows: list[tuple[str, list[str]]] = [
        ("score", [_figures(wording.render_side_score(metric, side)) for side in sides]),
        ("latency, median / 95th percentile", [wording.render_latency(side) for side in sides]),
        ("bytes sent to other machines", [f"{side.bytes_out:,}" for side in sides]),
        ("tokens per second, new ones", [wording.render_speed(side) for side in sides]),
        ("cost of 1,000 answers", [_figures(wording.render_usd(side.cost_usd_per_1000)) for side in sides]),
        ("cost in total", [_figures(wording.render_usd(side.cost_usd)) for side in sides]),
    ]
    if any(side.price for side in sides):
        rows.append(("price", [_figures(side.price or "-") for side in sides]))
    rows.append(("licence", [_licence(side.licence) for side in sides]))
    names = dict.fromkeys(name for side in sides for name in side.facts)
    rows += [(name, [side.facts.get(name, "-") for side in sides]) for name in names]
    return [(_said(name), cells) for name, cells in rows]


def _forest_rows(
    evaluations: Sequence[Evaluation], rows: Sequence[slices.Slice], alpha: float
) -> tuple[list[tuple[str, str]], list[list[plots.Point]]]:
    """A label with how the items went, and the points, for each slice of the examples."""
    metric = evaluations[0].suite.metric
    labels, points = [], []
    for row in rows:
        picked = [[evaluation.outcomes[at] for at in row.positions] for evaluation in evaluations]
        labels.append((row.name, _tally(picked)))
        points.append([_point(metric, outcomes, alpha) for outcomes in picked])
    whole = [(evaluation.side.score, evaluation.side.score_low, evaluation.side.score_high) for evaluation in evaluations]
    scale = METRICS[metric].points_per_score
    points[0] = [plots.Point(value=scale * score, interval=(scale * low, scale * high)) for score, low, high in whole]
    return labels, points


def _difference_forest(points: Sequence[plots.Point], *, room: float, title: str) -> list[str]:
    """A row for each, around a line at 0; the axis is symmetric, and `room` times as long as the farthest number."""
    reach = room * max(abs(number) for point in points for number in (point.value, *(point.interval or ()))) or 1.0
    return _forest([[point] for point in points], low=-reach, high=reach, unit="", title=title, is_difference=True)


def _forest(
    points: list[list[plots.Point]], *, low: float, high: float, unit: str, title: str, is_difference: bool = False
) -> list[str]:
    """The plot twice: for a wide page, and for a telephone."""
    return [
        plots.forest_svg(points, low=low, high=high, unit=unit, title=title, is_difference=is_difference, is_narrow=is_narrow)
        for is_narrow in (False, True)
    ]


def _tally(picked: Sequence[Sequence[Outcome]]) -> str:
    """ "120", or "120: 14 to 9" where there are two sides."""
    if len(picked) == 1:
        return f"{len(picked[0]):,}"
    won = sum(one.score > other.score for one, other in zip(*picked, strict=True))
    lost = sum(one.score < other.score for one, other in zip(*picked, strict=True))
    return wording.render_tally(len(picked[0]), won, lost)


def _point(metric: str, outcomes: Sequence[Outcome], alpha: float) -> plots.Point:
    scale = METRICS[metric].points_per_score
    scores = [outcome.score for outcome in outcomes]
    value = scale * mean_score(scores)
    if len(set(group_names(outcomes))) < MIN_FOR_INTERVAL:
        return plots.Point(value=value, interval=None)
    low, high = score_interval(metric, scores, alpha=alpha, groups=groups_of(outcomes))
    return plots.Point(value=value, interval=(scale * low, scale * high))


def _in_figures(metric: str, point: plots.Point) -> Markup:
    """A score of a plot, which is in points, as a cell of a table."""
    scale = METRICS[metric].points_per_score
    if point.interval is None:
        return _figures(wording.render_score(metric, point.value / scale))
    return _figures(wording.render_estimate(metric, *(number / scale for number in (point.value, *point.interval))))


def _where_they_differ(duel: Duel, count: int = MAX_EXAMPLES_SHOWN) -> list[Shown]:
    """Up to `count` examples with different scores: the widest gaps first, half of them won by each side where there are enough."""
    rows = zip(duel.left.suite.examples, duel.left.outcomes, duel.right.outcomes, strict=True)
    apart = [(one.score - other.score, Shown(example=example, answers=(one, other))) for example, one, other in rows]
    won = [shown for gap, shown in sorted(apart, key=lambda row: -row[0]) if gap > 0]
    lost = [shown for gap, shown in sorted(apart, key=lambda row: row[0]) if gap < 0]
    half = count // 2
    return won[: max(half, count - len(lost))] + lost[: max(half, count - len(won))]


def _spread(rows: Sequence[Shown], count: int) -> list[Shown]:
    """`count` of the rows, evenly over all of them: files are often sorted."""
    if len(rows) <= count:
        return list(rows)
    return [rows[at * len(rows) // count] for at in range(count)]
