"""A verdict in words and figures, the same in the terminal, in JSON and in the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import ROUND_DOWN, Context, Decimal

from nomoat.judge.metrics import METRICS
from nomoat.money import dollars
from nomoat.records import Measure, Side, Standing, Verdict
from nomoat.words import counted

DOWNWARDS = Context(rounding=ROUND_DOWN)
ROUNDING = 1e-12  # of a p-value, or an alpha
SAME = 1e-6  # points: what lies nearer to an end of a scale is that end, but for how it was computed
MORE_DECIMALS = (0, 2, 4)  # the report's Korean tells per cent (1, 3, 5 of them) from a judge's points (2, 4, 6) by their number


def render_confidence(alpha: float) -> str:
    """How sure an interval is, with alpha to three digits: "95 %", "98.33 %". Never 100 %."""
    return f"{DOWNWARDS.subtract(Decimal(100), Decimal(f'{100 * alpha:.3g}')):f} %"


def render_items(verdict: Verdict) -> str:
    """How many examples were asked, and of how many: "80 items", "48 of 200 items"."""
    n, planned = verdict.num_examples, verdict.num_planned
    return f"{n:,} of {planned:,} items" if n < planned else counted(n, "item")


def render_tally(num_examples: int, won: int, lost: int) -> str:
    """How many examples there are, and how many of them each side won: "80: 14 to 44"."""
    return f"{num_examples:,}: {won:,} to {lost:,}"


def render_score(metric: str, value: float) -> str:
    """One score: "81.2 %", or "7.98" on a judge's scale."""
    return _score_words(metric, value, value, value)[0]


def render_side_score(metric: str, side: Side) -> str:
    """A side's score with its interval: "81.2 % [78.7, 83.5]"."""
    return render_estimate(metric, side.score, side.score_low, side.score_high)


def render_estimate(metric: str, value: float, low: float, high: float) -> str:
    """A score with its interval: "81.2 % [78.7, 83.5]"."""
    score, low_words, high_words = _score_words(metric, value, low, high)
    return f"{score} [{low_words}, {high_words}]"


def render_difference(verdict: Verdict) -> str:
    """The difference, left minus right, with its interval: "+26.2 points [+22.9, +29.4]"."""
    return _points(verdict.metric, verdict.difference, verdict.difference_low, verdict.difference_high, sign="+")


def render_p_value(p_value: float, alpha: float) -> str:
    """A p-value as it should be read: never 0, and not rounded up to the alpha that it is below, nor to 1."""
    if p_value < 0.0001:
        return "p < 0.0001"
    decimals = 4 if p_value < 0.1 else 2
    while any(p_value < end - ROUNDING <= round(p_value, decimals) for end in (alpha, 1.0)):
        decimals += 1
    return f"p = {p_value:.{decimals}f}"


def render_measure(measure: Measure) -> str:
    """A proportion or a ratio with its interval: "14 of 80 = 17.5 % [10.7, 27.3]"."""
    low, high, value = 100 * measure.low, 100 * measure.high, 100 * measure.value
    digits = decimals_of(2 if "ratio" in measure.name else 1, value, low, high)
    return f"{measure.text} = {value:.{digits}f} % [{low:.{digits}f}, {high:.{digits}f}]"


def render_seconds(seconds: float | None) -> str:
    """A latency, or a dash where nothing was timed."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def render_latency(side: Side) -> str:
    """Median and 95th percentile of the time an answer took."""
    return f"{render_seconds(side.seconds_p50)} / {render_seconds(side.seconds_p95)}" if side.seconds_p50 is not None else "-"


def render_speed(side: Side) -> str:
    """New tokens a second, over all answers that were timed."""
    return "-" if side.tokens_per_second is None else f"{side.tokens_per_second:,.1f}"


def summary_of(verdict: Verdict) -> str:
    """Who won, in one sentence that never says more than the data does."""
    items = render_items(verdict)
    left, right = _scored(verdict, verdict.left), _scored(verdict, verdict.right)
    reviewed = "" if METRICS[verdict.metric].is_share else " by its stored reviews"
    if verdict.winner == "undecided":
        return f"Too close to call on `{verdict.suite}`{reviewed} after {items}: {left} against {right}."
    if verdict.winner == "equal" and verdict.rope is not None:
        return (
            f"Practically equal on `{verdict.suite}`{reviewed} after {items}: {left} against {right}, "
            f"apart by {render_difference(verdict)}, less than the {METRICS[verdict.metric].in_points(verdict.rope):g} that count."
        )
    ahead, behind = (left, right) if verdict.winner == "left" else (right, left)
    low, high = sorted((abs(verdict.difference_low), abs(verdict.difference_high)))
    lead = _points(verdict.metric, abs(verdict.difference), low, high)
    p_value = render_p_value(verdict.p_value, verdict.alpha)
    return f"{ahead} is ahead of {behind} on `{verdict.suite}`{reviewed}, {items}: by {lead}, {p_value}."


def unread_words(num_unread: int, num_answers: int, model: str) -> str:
    """How many of a model's written answers are read as none of the choices."""
    return f"{num_unread:,} of {num_answers:,} answers of `{model}` are read as none of the choices"


def cut_words(said: str, num_unread: int, num_cut: int, max_new_tokens: int) -> str:
    """What `unread_words` say, or begin; and if most of these answers were cut off, that more room may be all they lack."""
    return f"{said}: most of them were cut off within the limit of {max_new_tokens:,} new tokens" if 2 * num_cut > num_unread else said


def unnamed(verdict: Verdict) -> str:
    """That no winner is named, whatever the scores: the answers tell too little. Why is in a note."""
    left, right = _scored(verdict, verdict.left), _scored(verdict, verdict.right)
    return f"No winner is named on `{verdict.suite}` after {render_items(verdict)}: {left} against {right}."


def render_ahead(verdict: Verdict) -> str:
    """Who is ahead, in a cell of a table."""
    undecided = "no winner named" if verdict.why_none else "too close to call"
    names = {"left": verdict.left.model, "right": verdict.right.model, "equal": "practically equal", "undecided": undecided}
    return names[verdict.winner]


def open_in_groups_note(metric: str, num_groups: int, difference: float, low: float, high: float, rope: float) -> str:
    """Why a difference whose interval is inside the rope is not called practically none."""
    points = _points(metric, difference, low, high, sign="+", unlike=METRICS[metric].in_points(rope))
    return (
        f"not called practically equal: groups unlike these {num_groups:,}, which they may happen to lack, leave more of the "
        f"difference open: {points}"
    )


def several_sentence(verdicts: Sequence[Verdict]) -> str:
    """How many of several suites each side is ahead on."""
    counts = Counter(verdict.winner for verdict in verdicts)
    left, right = verdicts[0].left.model, verdicts[0].right.model
    parts = [f"`{left}` is ahead on {counts['left']} of {counted(len(verdicts), 'suite')}, `{right}` on {counts['right']}"]
    parts += [f"practically equal on {counts['equal']}"] if counts["equal"] else []
    num_unnamed = sum(bool(verdict.why_none) for verdict in verdicts)
    num_close = counts["undecided"] - num_unnamed
    parts += [f"too close to call on {num_close}"] if num_close else []
    parts += [f"no winner named on {num_unnamed}"] if num_unnamed else []
    return f"{'; '.join(parts)}."


def several_note(verdicts: Sequence[Verdict]) -> str:
    """Why a corrected p-value below alpha may still name no winner."""
    share = verdicts[0].alpha
    return (
        "p-values are corrected for the number of suites (Holm); a winner needs an interval without 0 and an uncorrected p below "
        f"{share:.2g}, each suite's equal share of alpha, so that all winners named are right together with a probability of "
        f"{render_confidence(share * len(verdicts))}"
    )


def score_sentence(suite: str, metric: str, side: Side, num_examples: int) -> str:
    """What one model reached, in one sentence."""
    items = counted(num_examples, "item")
    return f"`{side.model}` reaches {render_side_score(metric, side)} on `{suite}`, {items} ({METRICS[metric].title})."


def render_rating(standing: Standing) -> str:
    """A rating with its interval: "1,085 [1,040, 1,133]"."""
    return f"{standing.rating:,.0f} [{standing.rating_low:,.0f}, {standing.rating_high:,.0f}]"


def render_behind(metric: str, standing: Standing, alpha: float) -> str:
    """The difference to the first of a leaderboard, or a dash where there is none."""
    if standing.difference is None or standing.difference_low is None or standing.difference_high is None:
        return "-"
    points = _points(metric, standing.difference, standing.difference_low, standing.difference_high, sign="+")
    return f"{points}, {render_p_value(standing.p_value or 0.0, alpha)}"


def render_usd(usd: float | None) -> str:
    """A price people can compare."""
    return "not known" if usd is None else dollars(usd)


def _points(metric: str, value: float, low: float, high: float, *, sign: str = "", unlike: float = 0.0) -> str:
    """A difference with its interval, whose ends do not read as 0, nor as `unlike` points to their side, which they are not."""
    value, low, high = (METRICS[metric].points_per_score * number for number in (value, low, high))
    digits = _decimals(1 if METRICS[metric].is_share else 2, (low, 0.0), (high, 0.0), (low, -unlike), (high, unlike))
    form = f"{sign}z.{digits}f"  # "z": no minus before a 0
    return f"{value:{form}} points [{low:{form}}, {high:{form}}]"


def decimals_of(fewest: int, value: float, low: float, high: float, ends: tuple[float, float] = (0.0, 100.0)) -> int:
    """How many decimals a share, or a score, and its interval take: see `_decimals`."""
    return _decimals(fewest, (value, ends[0]), (value, ends[1]), (low, ends[1]), (high, ends[0]))


def _decimals(fewest: int, *unlike: tuple[float, float]) -> int:
    """How many decimals it takes for no first number of a pair to read as the second, which it is not; as far as four more do."""
    for decimals in (fewest + more for more in MORE_DECIMALS):
        if not any(round(number, decimals) == end and abs(number - end) > SAME for number, end in unlike):
            break
    return decimals


def _score_words(metric: str, value: float, low: float, high: float) -> tuple[str, str, str]:
    """A score and the ends of its interval, with as many decimals each."""
    scoring = METRICS[metric]
    value, low, high, lowest, highest = (scoring.points_per_score * number for number in (value, low, high, *scoring.scale))
    decimals = decimals_of(1 if scoring.is_share else 2, value, low, high, (lowest, highest))
    return f"{value:.{decimals}f}{' %' if scoring.is_share else ''}", f"{low:.{decimals}f}", f"{high:.{decimals}f}"


def _scored(verdict: Verdict, side: Side) -> str:
    return f"`{side.model}` ({render_side_score(verdict.metric, side)})"
