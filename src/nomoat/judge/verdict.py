"""From scored answers to a verdict. Every comparison is paired: both sides answered the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nomoat import bounds, proportions
from nomoat.errors import DataError, UsageError
from nomoat.judge import stats, wording
from nomoat.judge.groups import grouped, groups_in, groups_of, notes_on
from nomoat.judge.metrics import METRICS, mean_score
from nomoat.judge.sequential import ConfidenceSequence, Watch, common_part
from nomoat.judge.suite import Suite
from nomoat.records import ContinuationScore, Measure, Outcome, Side, Verdict, Winner, in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a duel has to show. `alpha`: how often a winner may be named between equals. `rope`: how many per cent of the scale
    still count as equal; None if only a difference of nothing does. Raises UsageError for what cannot be meant.
    """

    alpha: float = 0.05
    rope: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", bounds.number("alpha", self.alpha))
        if self.rope is not None:
            object.__setattr__(self, "rope", bounds.number("rope", self.rope))
        if not 0 < self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha:g}", hint="give a share between 0 and 1, such as 0.05")
        if self.rope is not None and not 0 < self.rope < 100:
            raise UsageError(f"the rope is {self.rope:g}", hint="give the per cent of the scale that still count as equal, such as 2")


DEFAULT_RULES = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One model's answers to a suite. `outcomes` are in the order of `suite.examples`, which are the ones that were answered.

    `partial` says why some of the questions are not among them, or why they tell little of the model; it is empty if neither is so.
    `tells_little` is the latter alone: no winner is named over such answers. `unread` are the examples whose written answer is none
    of the choices, `unread_cut` those of them where it was cut off. The totals of `side` are those of all that was asked, whatever of
    it is left.
    """

    suite: Suite
    side: Side
    outcomes: tuple[Outcome, ...] = field(repr=False)
    likelihoods: Mapping[str, tuple[ContinuationScore, ...]] = field(default_factory=dict, repr=False)  # of choices, by example_id
    notes: tuple[str, ...] = ()
    seed: int = 0
    partial: str = ""
    tells_little: str = ""
    unread: frozenset[str] = field(default=frozenset(), repr=False)
    unread_cut: frozenset[str] = field(default=frozenset(), repr=False)

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """Two models' answers to the same examples, and what follows from them."""

    verdict: Verdict
    left: Evaluation
    right: Evaluation

    __repr__ = in_short


def score_interval(
    metric: str,
    scores: Sequence[float],
    *,
    alpha: float = DEFAULT_RULES.alpha,
    groups: Sequence[str] | None = None,
) -> stats.Interval:
    """Interval for a mean score: clustered where examples belong to groups, Wilson's for right or wrong, else one that knows the ends
    of the scale: few scores near to each other say little of rare ones far away.
    """
    scale = METRICS[metric].scale
    if groups is not None and len(set(groups)) < len(groups):
        return stats.clustered_score_interval(scores, groups, *scale, confidence=1 - alpha)
    if METRICS[metric].right_or_wrong:
        return proportions.wilson_interval(round(sum(scores)), len(scores), confidence=1 - alpha)
    return stats.mean_interval(scores, *scale, confidence=1 - alpha)


def side_of(
    model: str, licence: str, metric: str, outcomes: Sequence[Outcome], *, facts: Mapping[str, str], price: str = "",
    dropped: Sequence[Outcome] = (), earlier: Sequence[Outcome] = (), bytes_in_vain: int = 0,
) -> Side:  # fmt: skip
    """What the outcomes of one model come to. Latency is over the answers that were timed, cost over those with a price; totals
    count an answer once, however many equal questions it is to, and those `dropped`, too, which are no evidence; those of `earlier`
    tries at the same questions are added. `bytes_in_vain`: sent out for questions that failed.
    """
    scores = [outcome.score for outcome in outcomes]
    low, high = score_interval(metric, scores, groups=groups_of(outcomes))
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds > 0]
    num_tokens = sum(outcome.completion_tokens for outcome in outcomes if outcome.seconds > 0)
    costs = [outcome.cost_usd for outcome in outcomes if outcome.cost_usd is not None]
    asked = [*{outcome.same_as or outcome.example_id: outcome for outcome in (*outcomes, *dropped)}.values(), *earlier]
    return Side(
        model=model,
        score=mean_score(scores),
        score_low=low,
        score_high=high,
        licence=licence,
        seconds_p50=float(np.percentile(seconds, 50)) if seconds else None,
        seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
        bytes_out=sum(outcome.bytes_out for outcome in asked) + bytes_in_vain,
        cost_usd_per_1000=1000 * sum(costs) / len(costs) if costs else None,
        cost_usd=None if any(outcome.cost_usd is None for outcome in asked) else sum(outcome.cost_usd or 0.0 for outcome in asked),
        price=price,
        tokens_per_second=num_tokens / sum(seconds) if num_tokens and seconds else None,
        facts=dict(facts),
    )


def notes_over_all(suite: Suite, model: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """What has to be known of all answers together: which are to equal questions, which belong together, and, for a metric that has
    one, their score as one text.
    """
    notes = notes_on(suite, outcomes)
    over_all = METRICS[suite.metric].over_all
    if over_all is None:
        return notes
    answered = [(e, suite.answer_in(o.answer)) for e, o in zip(suite.examples, outcomes, strict=True)]
    return (*notes, f"`{model}` over all sentences as one text: {over_all(answered)}")


def in_common(evaluations: Sequence[Evaluation], groups: Mapping[str, str] | None = None) -> list[Evaluation]:
    """All of them, cut down to the examples that all answered, in the same groups: `groups`, or those that are in what is left.

    Raises DataError if nothing is.
    """
    shared = set.intersection(*({outcome.example_id for outcome in evaluation.outcomes} for evaluation in evaluations))
    if not shared:
        raise DataError("no question was answered by all sides", hint="run the same command again: what was answered is kept")
    suites = [
        replace(each.suite, examples=tuple(example for example in each.suite.examples if example.id in shared)) for each in evaluations
    ]
    groups = groups_in(suites[0]) if groups is None else groups
    return [_only(evaluation, suite, groups) for evaluation, suite in zip(evaluations, suites, strict=True)]


def _only(evaluation: Evaluation, suite: Suite, groups: Mapping[str, str]) -> Evaluation:
    ids = {example.id for example in suite.examples}
    outcomes = grouped([outcome for outcome in evaluation.outcomes if outcome.example_id in ids], groups)
    return evaluation if outcomes == evaluation.outcomes else cut(evaluation, suite, outcomes)


def cut(evaluation: Evaluation, suite: Suite, outcomes: Sequence[Outcome], **facts: str) -> Evaluation:
    """The evaluation with these of its outcomes, or others in their places, to the examples of `suite`; `facts` are added.

    What was sent and paid for in all stays: those that are left out were asked as well.
    """
    old = evaluation.side
    side = side_of(old.model, old.licence, suite.metric, outcomes, facts={**old.facts, **facts}, price=old.price)
    side = replace(side, bytes_out=old.bytes_out, cost_usd=old.cost_usd, num_reused=old.num_reused)
    before = notes_over_all(evaluation.suite, old.model, evaluation.outcomes)
    notes = (*(note for note in evaluation.notes if note not in before), *notes_over_all(suite, old.model, outcomes))
    return replace(evaluation, suite=suite, outcomes=tuple(outcomes), side=side, notes=notes)


def compare(
    left: Evaluation,
    right: Evaluation,
    *,
    notes: Sequence[str] = (),
    rules: Rules = DEFAULT_RULES,
    watch: Watch | None = None,
) -> Verdict:
    """The verdict over two evaluations of the same examples; `watch` if it was looked at while it went on.

    For examples whose number was fixed before, there is a winner if, and only if, the test gives p < alpha and the interval of the
    difference excludes 0. For answers that are right or wrong these are exact McNemar and Tango, two different formulas, and a
    verdict needs both; for other scores one formula (Gaffke) gives both; where examples are in groups, whole groups are flipped, and
    the interval is Tango's for as many pairs as the groups are worth. A duel that was watched has a winner as soon as the confidence
    sequence excludes 0, or at its end by the same formulas at alpha / 2. Two sides are equal where the interval is inside the rope; in
    groups, that of their totals has to be, too. No winner is named, and the verdict is partial, where the answers of a side tell
    little of it, or so many of the loser's, or of one of two that are equal, are read as none of the choices that these could
    turn the verdict.
    Raises ValueError if the examples differ.
    """
    if [outcome.example_id for outcome in left.outcomes] != [outcome.example_id for outcome in right.outcomes]:
        raise ValueError("the two sides answered different examples")
    metric, seed = left.suite.metric, left.seed
    one = [outcome.score for outcome in left.outcomes]
    other = [outcome.score for outcome in right.outcomes]
    groups = groups_of(left.outcomes)
    intervals = _Intervals(alpha=rules.alpha, watch=watch, groups=groups, seed=seed)
    wins = sum(a > b for a, b in zip(one, other, strict=True))
    losses = sum(a < b for a, b in zip(one, other, strict=True))
    found = _fixed(metric, one, other, rules.alpha, groups) if watch is None else _watched(metric, one, other, watch)
    is_equal = rules.rope is not None and stats.is_equivalent((found.low, found.high), METRICS[metric].in_scale(rules.rope))
    difference = mean_score(one) - mean_score(other)
    if is_equal and (still_open := _open_in_groups(metric, [a - b for a, b in zip(one, other, strict=True)], groups, rules)):
        is_equal = False
        notes = (*notes, wording.open_in_groups_note(metric, len(set(groups or ())), difference, *still_open, rules.rope or 0.0))
    winner: Winner = "equal" if is_equal else "undecided" if not found.is_decided else "left" if found.low > 0 else "right"
    notes = (*notes, *same_model_note(left.side, right.side))
    why_none = left.tells_little or right.tells_little
    if not why_none and (why_none := _could_turn(winner, left, right, rules)):
        notes = (f"PARTIAL: {why_none}", *notes)
    draft = Verdict(
        suite=left.suite.name,
        metric=metric,
        num_examples=len(one),
        left=intervals.around(left.side, metric, one),
        right=intervals.around(right.side, metric, other),
        difference=difference,
        difference_low=found.low,
        difference_high=found.high,
        wins=wins,
        ties=len(one) - wins - losses,
        losses=losses,
        p_value=found.p_value,
        winner="undecided" if why_none else winner,
        sentence="",
        notes=tuple(dict.fromkeys((*left.notes, *right.notes, *notes))),  # said once, if of both sides
        measures=_measures(metric, one, other, intervals),
        suite_sha256=left.suite.sha256,
        seed=seed,
        alpha=rules.alpha,
        rope=rules.rope,
        partial=left.partial or right.partial or why_none,
        num_planned=len(one) if watch is None else watch.num_planned,
        looks=() if watch is None else tuple(watch.looks),
        why_none=why_none,
    )
    return replace(draft, sentence=wording.unnamed(draft) if why_none else wording.summary_of(draft))


def same_model_note(one: Side, other: Side) -> tuple[str, ...]:
    """That two names are of one model: of the same weights, or of the same model of one server."""
    digest = one.facts.get("digest")
    if not digest or digest != other.facts.get("digest"):
        return ()
    return (f"`{one.model}` and `{other.model}` are one model: both have the digest `{digest[:16]}`",)


def _could_turn(winner: Winner, left: Evaluation, right: Evaluation, rules: Rules) -> str:
    """That the loser would be level, or ahead, had all its answers been right that are read as none of the choices, or that two equal
    sides would be apart by more than the rope, had one's been; else empty.
    """
    if winner == "undecided":
        return ""
    room = METRICS[left.suite.metric].in_scale(rules.rope or 0.0) * len(left.outcomes) if winner == "equal" else 0.0
    for ahead, behind in ((left, right), (right, left)):
        num_unread, num_cut = (sum(o.example_id in ids for o in behind.outcomes) for ids in (behind.unread, behind.unread_cut))
        lead = sum(outcome.score for outcome in ahead.outcomes) - sum(outcome.score for outcome in behind.outcomes)
        turns = num_unread > lead + room if winner == "equal" else lead > 0 and num_unread >= lead
        if num_unread and turns:
            said = f"{wording.unread_words(num_unread, len(behind.outcomes), behind.side.model)}, enough to turn the verdict"
            return wording.cut_words(said, num_unread, num_cut, behind.suite.max_new_tokens)
    return ""


def range_of_differences(metric: str) -> stats.Interval:
    """The lowest and the highest difference of two scores."""
    lowest, highest = METRICS[metric].scale
    return lowest - highest, highest - lowest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is known of the difference. `is_decided`: the data say which side is better, and the interval excludes 0."""

    low: float
    high: float
    p_value: float
    is_decided: bool


def _fixed(metric: str, one: Sequence[float], other: Sequence[float], alpha: float, groups: Sequence[str] | None = None) -> _Found:
    pairs = list(zip(one, other, strict=True))
    if groups is not None:
        differences = [a - b for a, b in pairs]
        sums = dict.fromkeys(groups, 0.0)
        for group, difference in zip(groups, differences, strict=True):
            sums[group] += difference
        p_value = stats.paired_permutation(list(sums.values()))  # a large group leaves no known scale any power
        low, high = stats.clustered_difference_interval(differences, groups, range_of_differences(metric)[1], confidence=1 - alpha)
    elif METRICS[metric].right_or_wrong:
        left_only, right_only = pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0))
        p_value = proportions.mcnemar_exact(left_only, right_only)
        low, high = stats.paired_proportions_interval(left_only, right_only, len(pairs), confidence=1 - alpha)
    else:
        differences = [a - b for a, b in pairs]
        p_value = stats.mean_p_value(differences, *range_of_differences(metric))
        low, high = stats.mean_interval(differences, *range_of_differences(metric), confidence=1 - alpha)
    return _Found(low=low, high=high, p_value=p_value, is_decided=p_value < alpha and (low > 0 or high < 0))


def _open_in_groups(metric: str, differences: Sequence[float], groups: Sequence[str] | None, rules: Rules) -> stats.Interval | None:
    """What the sample leaves open of the difference where that is more than the rope; None where it is not, or nothing is in groups.

    The interval of the difference is made of the groups that happen to be there: it knows nothing of larger ones that differ, too, and
    are not among them.
    """
    if groups is None or rules.rope is None:
        return None
    found = stats.group_totals_interval(differences, groups, *range_of_differences(metric), confidence=1 - rules.alpha)
    return None if stats.is_equivalent(found, METRICS[metric].in_scale(rules.rope)) else found


def _watched(metric: str, one: Sequence[float], other: Sequence[float], watch: Watch) -> _Found:
    low, high = watch.interval
    if low > 0 or high < 0 or not watch.is_complete:
        return _Found(low=low, high=high, p_value=watch.p_value, is_decided=low > 0 or high < 0)
    last = _fixed(metric, one, other, watch.alpha_each)
    low, high = common_part(watch.interval, (last.low, last.high))
    # Not where the two intervals contradict each other: the sequence's alone, which holds 0, names no side.
    is_decided = last.is_decided and (low > 0 or high < 0)
    return _Found(low=low, high=high, p_value=min(watch.p_value, 2 * last.p_value), is_decided=is_decided)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intervals:
    """Intervals of means of one duel, in which a number of examples was fixed before, or that was watched."""

    alpha: float
    watch: Watch | None
    groups: Sequence[str] | None
    seed: int

    def around(self, side: Side, metric: str, scores: Sequence[float]) -> Side:
        """The side with the interval of its score."""
        low, high = self.of(metric, scores)
        return replace(side, score_low=low, score_high=high)

    def of(self, metric: str, scores: Sequence[float]) -> stats.Interval:
        if self.watch is None:
            return score_interval(metric, scores, alpha=self.alpha, groups=self.groups)
        lowest, highest = METRICS[metric].scale
        at_any_time = ConfidenceSequence(lowest=lowest, highest=highest, alpha=self.watch.alpha_each).add(scores)
        if not self.watch.is_complete:
            return at_any_time
        return common_part(at_any_time, score_interval(metric, scores, alpha=self.watch.alpha_each))

    def share(self, name: str, counted: Sequence[bool]) -> Measure:
        count, n = sum(counted), len(counted)
        low, high = self.of("exact", [float(counts) for counts in counted])
        return Measure(name=name, value=count / n, low=low, high=high, text=f"{count:,} of {n:,}")


def _measures(metric: str, one: Sequence[float], other: Sequence[float], intervals: _Intervals) -> tuple[Measure, ...]:
    pairs = list(zip(one, other, strict=True))
    rows = [
        intervals.share("wins", [a > b for a, b in pairs]),
        intervals.share("ties", [a == b for a, b in pairs]),
        intervals.share("losses", [a < b for a, b in pairs]),
        intervals.share("wins and ties", [a >= b for a, b in pairs]),
    ]
    if METRICS[metric].right_or_wrong:
        rows.append(intervals.share("either right", [a + b > 0 for a, b in pairs]))
    if metric == "review" and len(pairs) > 1 and sum(other) > 0:
        total, other_total = sum(one), sum(other)
        found = stats.total_ratio_interval(one, other, confidence=1 - intervals.alpha, seed=intervals.seed)
        if found is not None:
            text = f"{total:.1f} / {other_total:.1f}"
            rows.append(Measure(name="total score ratio", value=total / other_total, low=found[0], high=found[1], text=text))
    return tuple(rows)
