"""A verdict in words and figures, the same in the terminal, in JSON and in the report."""

from __future__ import annotations

from nomoat.judge.judges import SCALE
from nomoat.records import Measure, Side, Verdict

METRICS = {
    "exact": "accuracy, answer compared with the target",
    "choice": "accuracy, likeliest choice",
    "numeric": "accuracy, last number of the answer",
    "regex": "share of answers that hold the pattern",
    "code": "pass@1, the answer's code put to its tests",
    "f1": "F1 over words",
    "char-f1": "F1 over characters",
    "rouge": "ROUGE-L",
    "chrf": "chrF",
    "bleu": "sentence BLEU",
    "json": "F1 over the fields of JSON",
    "review": "score by a judge's stored reviews, 1 to 10",
}


RIGHT_OR_WRONG = frozenset({"exact", "choice", "numeric", "regex", "code"})
ON_A_SCALE = frozenset({"review"})


def is_accuracy(metric: str) -> bool:
    """Whether scores lie in 0..1 and are shown in per cent, instead of as points on a judge's scale."""
    return metric not in ON_A_SCALE


def is_right_or_wrong(metric: str) -> bool:
    """Whether each answer scores 0 or 1, so that the formulas for proportions hold."""
    return metric in RIGHT_OR_WRONG


def scale_of(metric: str) -> tuple[float, float]:
    """The lowest and the highest score a metric can give."""
    return (0.0, 1.0) if is_accuracy(metric) else SCALE


def render_confidence(alpha: float) -> str:
    """How sure an interval is: "95 %"."""
    return f"{100 * (1 - alpha):g} %"


def render_items(verdict: Verdict) -> str:
    """How many examples were asked, and of how many: "80 items", "48 of 200 items"."""
    n, planned = verdict.num_examples, verdict.num_planned
    return f"{n:,} of {planned:,} items" if n < planned else _items(n)


def render_score(metric: str, value: float) -> str:
    """One score: "81.2 %", or "7.98" on a judge's scale."""
    return f"{100 * value:.1f} %" if is_accuracy(metric) else f"{value:.2f}"


def render_interval(metric: str, low: float, high: float) -> str:
    """An interval of scores: "[78.7, 83.5]"."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]" if is_accuracy(metric) else f"[{low:.2f}, {high:.2f}]"


def render_difference(verdict: Verdict) -> str:
    """The difference, left minus right, with its interval: "+26.2 points [+22.9, +29.4]"."""
    return _points(verdict.metric, verdict.difference, verdict.difference_low, verdict.difference_high, sign="+")


def render_p_value(p_value: float) -> str:
    """A p-value as it should be read: never 0."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}" if p_value < 0.1 else f"p = {p_value:.2f}"


def render_measure(measure: Measure) -> str:
    """A proportion or a ratio with its interval: "14 of 80 = 17.5 % [10.7, 27.3]"."""
    digits = 2 if "ratio" in measure.name else 1
    low, high = f"{100 * measure.low:.{digits}f}", f"{100 * measure.high:.{digits}f}"
    return f"{measure.text} = {100 * measure.value:.{digits}f} % [{low}, {high}]"


def render_seconds(seconds: float | None) -> str:
    """A latency, or a dash where nothing was timed."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def render_latency(side: Side) -> str:
    """Median and 95th percentile of the time an answer took."""
    return f"{render_seconds(side.seconds_p50)} / {render_seconds(side.seconds_p95)}" if side.seconds_p50 is not None else "-"


def render_cost(side: Side) -> str:
    """US dollars for 1,000 answers, or a dash where no price is known."""
    return "-" if side.cost_usd_per_1000 is None else f"${side.cost_usd_per_1000:,.2f}"


def summary_of(verdict: Verdict) -> str:
    """Who won, in one sentence that never says more than the data does."""
    items = render_items(verdict)
    left, right = _scored(verdict, verdict.left), _scored(verdict, verdict.right)
    reviewed = "" if is_accuracy(verdict.metric) else " by its stored reviews"
    if verdict.winner == "undecided":
        return f"Too close to call on `{verdict.suite}`{reviewed} after {items}: {left} against {right}."
    if verdict.winner == "equal":
        return (
            f"Practically equal on `{verdict.suite}`{reviewed} after {items}: {left} against {right}, "
            f"apart by {render_difference(verdict)}, less than the {verdict.rope:g} that count."
        )
    ahead, behind = (left, right) if verdict.winner == "left" else (right, left)
    low, high = sorted((abs(verdict.difference_low), abs(verdict.difference_high)))
    lead = _points(verdict.metric, abs(verdict.difference), low, high)
    return f"{ahead} is ahead of {behind} on `{verdict.suite}`{reviewed}, {items}: by {lead}, {render_p_value(verdict.p_value)}."


def score_sentence(suite: str, metric: str, side: Side, num_examples: int) -> str:
    """What one model reached, in one sentence."""
    items = _items(num_examples)
    interval = render_interval(metric, side.score_low, side.score_high)
    return f"`{side.model}` reaches {render_score(metric, side.score)} {interval} on `{suite}`, {items} ({METRICS[metric]})."


def _items(count: int) -> str:
    return f"{count:,} item{'s' if count != 1 else ''}"


def _points(metric: str, value: float, low: float, high: float, *, sign: str = "") -> str:
    scale, digits = (100, 1) if is_accuracy(metric) else (1, 2)
    value, low, high = (scale * number + 0.0 for number in (value, low, high))
    return f"{value:{sign}.{digits}f} points [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def _scored(verdict: Verdict, side: Side) -> str:
    interval = render_interval(verdict.metric, side.score_low, side.score_high)
    return f"`{side.model}` ({render_score(verdict.metric, side.score)} {interval})"
