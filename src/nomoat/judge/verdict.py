"""From scored answers to a verdict. Every comparison is paired: both sides answered the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nomoat.judge import stats, wording
from nomoat.judge.judges import SCALE
from nomoat.judge.suites import Suite
from nomoat.records import Measure, Outcome, Side, Verdict

SIGNIFICANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One model's answers to a suite. `outcomes` are in the order of `suite.examples`, which are the ones that were asked."""

    suite: Suite
    side: Side
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two models' answers to the same examples, and what follows from them."""

    verdict: Verdict
    left: Evaluation
    right: Evaluation


def score_interval(metric: str, scores: Sequence[float], *, seed: int = 0) -> stats.Interval:
    """Interval for a mean score: Wilson's for answers that are right or wrong, else a bootstrap (the whole scale for a single one)."""
    if wording.is_right_or_wrong(metric):
        return stats.wilson_interval(round(sum(scores)), len(scores))
    return stats.mean_interval(scores, seed=seed) if len(scores) > 1 else _scale(metric)


def side_of(model: str, licence: str, metric: str, outcomes: Sequence[Outcome], *, facts: Mapping[str, str], seed: int = 0) -> Side:
    """What the outcomes of one model come to. Latency is over the answers that were timed, cost over those with a price."""
    scores = [outcome.score for outcome in outcomes]
    low, high = score_interval(metric, scores, seed=seed)
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds > 0]
    costs = [outcome.cost_usd for outcome in outcomes if outcome.cost_usd is not None]
    return Side(
        model=model,
        score=float(np.mean(scores)),
        score_low=low,
        score_high=high,
        licence=licence,
        seconds_p50=float(np.percentile(seconds, 50)) if seconds else None,
        seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
        bytes_out=sum(outcome.bytes_out for outcome in outcomes),
        cost_usd_per_1000=1000 * sum(costs) / len(costs) if costs else None,
        facts=dict(facts),
    )


def compare(left: Evaluation, right: Evaluation, *, notes: Sequence[str] = ()) -> Verdict:
    """The verdict over two evaluations of the same examples.

    There is a winner if, and only if, the exact test of wins against losses (exact McNemar, for accuracies) gives p < 0.05 and
    the 95 % interval of the difference excludes 0: the two are different formulas, and a verdict needs both.
    Raises ValueError if the examples differ.
    """
    if [outcome.example_id for outcome in left.outcomes] != [outcome.example_id for outcome in right.outcomes]:
        raise ValueError("the two sides answered different examples")
    metric, seed = left.suite.metric, left.seed
    one = [outcome.score for outcome in left.outcomes]
    other = [outcome.score for outcome in right.outcomes]
    wins = sum(a > b for a, b in zip(one, other, strict=True))
    losses = sum(a < b for a, b in zip(one, other, strict=True))
    low, high = _difference_interval(metric, one, other, seed)
    p_value = stats.mcnemar_exact(wins, losses)
    decided = p_value < SIGNIFICANCE and (low > 0 or high < 0)
    draft = Verdict(
        suite=left.suite.name,
        metric=metric,
        num_examples=len(one),
        left=left.side,
        right=right.side,
        difference=float(np.mean(one) - np.mean(other)),
        difference_low=low,
        difference_high=high,
        wins=wins,
        ties=len(one) - wins - losses,
        losses=losses,
        p_value=p_value,
        winner="undecided" if not decided else "left" if low > 0 else "right",
        sentence="",
        notes=tuple(dict.fromkeys((*left.notes, *right.notes, *notes))),  # what holds for both sides is said once
        measures=_measures(metric, wins, losses, one, other, seed),
        suite_sha256=left.suite.sha256,
        seed=seed,
    )
    return replace(draft, sentence=wording.summary_of(draft))


def _difference_interval(metric: str, one: Sequence[float], other: Sequence[float], seed: int) -> stats.Interval:
    if wording.is_right_or_wrong(metric):
        pairs = list(zip(one, other, strict=True))
        return stats.paired_proportions_interval(
            pairs.count((1.0, 1.0)), pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)), pairs.count((0.0, 0.0))
        )
    if len(one) < 2:
        low, high = _scale(metric)
        return low - high, high - low
    return stats.mean_interval([a - b for a, b in zip(one, other, strict=True)], seed=seed)


def _scale(metric: str) -> tuple[float, float]:
    return (0.0, 1.0) if wording.is_accuracy(metric) else SCALE


def _measures(metric: str, wins: int, losses: int, one: Sequence[float], other: Sequence[float], seed: int) -> tuple[Measure, ...]:
    n = len(one)
    ties = n - wins - losses
    shares = [("wins", wins), ("ties", ties), ("losses", losses), ("wins and ties", wins + ties)]
    rows = [_share(name, count, n) for name, count in shares]
    if not wording.is_accuracy(metric) and n > 1 and min(other) >= 0 and sum(other) > 0:
        total, other_total = sum(one), sum(other)
        low, high = stats.total_ratio_interval(one, other, seed=seed)
        text = f"{total:.1f} / {other_total:.1f}"
        rows.append(Measure(name="total score ratio", value=total / other_total, low=low, high=high, text=text))
    return tuple(rows)


def _share(name: str, count: int, n: int) -> Measure:
    low, high = stats.wilson_interval(count, n)
    return Measure(name=name, value=count / n, low=low, high=high, text=f"{count:,} of {n:,}")
