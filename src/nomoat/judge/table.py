"""Many models on the same questions: `nomoat duel --table`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nomoat import bounds
from nomoat.errors import IncompleteError, UnsupportedError, UsageError
from nomoat.joined import joined
from nomoat.judge import stats
from nomoat.judge.askable import require_scorable
from nomoat.judge.duel import run_duel, suite_of
from nomoat.judge.groups import groups_of
from nomoat.judge.metrics import mean_score
from nomoat.judge.opened import given, opened_store
from nomoat.judge.recorded import has_recorded_scores, recorded_evaluation
from nomoat.judge.run import drawn, in_turn
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.verdict import DEFAULT_RULES, Duel, Evaluation, Rules, compare, same_model_note, score_interval
from nomoat.records import Leaderboard, Pairing, Side, Standing, Verdict, in_short
from nomoat.responder import Responder, ref_of
from nomoat.words import counted, listed

AVERAGE_RATING = 1000.0
RATING_PER_LOG_ODDS = 400 / math.log(10)  # Elo: ten to one is 400 points


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A leaderboard with the evaluations behind it, in its order.

    `partials` say why an evaluation is of a part, or tells little, and why a model is not said to be behind the first, or ahead of it,
    whatever the scores.
    """

    leaderboard: Leaderboard
    evaluations: tuple[Evaluation, ...]
    partials: tuple[str, ...] = ()

    __repr__ = in_short


def run_table(
    models: Sequence[str | Path | Responder],
    suite: str | Path | Suite | None = None,
    settings: RunSettings | None = None,
    *,
    rules: Rules = DEFAULT_RULES,
) -> Table:
    """Ask every model everything, one model after another, and put them in order.

    Over stored reviews, models are ordered by the pairs that were reviewed. Raises what `run_duel` raises, UsageError for fewer than
    2 models or one named twice, UnsupportedError if two halves of the models were never compared.
    """
    settings = settings or RunSettings()
    named = several_models(models)
    asked = suite_of(*named, suite=suite)
    if asked.metric == "review":
        return _reviewed_table(named, asked, settings, rules)
    notes: list[str] = []
    if has_recorded_scores(asked):
        planned, drawing = drawn(asked, settings.limit, settings.seed)
        evaluations = [recorded_evaluation(ref_of(one), planned, notes=drawing, seed=settings.seed) for one in named]
    else:
        require_scorable(asked)
        with opened_store(settings) as store:
            evaluations, notes = in_turn(named, asked, replace(settings, store=store))
    evaluations = [_scored(each, [outcome.score for outcome in each.outcomes], rules) for each in evaluations]
    duels = {
        (one, other): Duel(
            verdict=compare(evaluations[one], evaluations[other], rules=rules), left=evaluations[one], right=evaluations[other]
        )
        for one, other in combinations(range(len(named)), 2)
    }
    return ordered(evaluations, duels, rules, notes)


def _reviewed_table(models: Sequence[str | Responder], suite: Suite, settings: RunSettings, rules: Rules) -> Table:
    duels: dict[tuple[int, int], Duel] = {}
    for one, other in combinations(range(len(models)), 2):
        try:
            duels[one, other] = run_duel(models[one], models[other], suite, settings, rules=rules)
        except UnsupportedError:
            continue  # these two were never shown to the judge together
    _require_connected(len(models), list(duels), suite.name)
    note = f"{len(duels)} of {len(models) * (len(models) - 1) // 2} pairs were reviewed; a score is the mean over a model's pairs"
    every_note = [fought.verdict.notes for fought in duels.values()]
    shared = [text for text in every_note[0] if all(text in others for others in every_note)]
    return ordered(mean_sides(duels, len(models), rules), duels, rules, (note, *shared))


def several_models(models: Sequence[str | Path | Responder]) -> list[str | Responder]:
    """As they are given. Raises UsageError for one in place of several, for fewer than 2, or one named twice."""
    named = [given(model) for model in bounds.several(models, "models are put in order", one=str | Responder)]
    names = [ref_of(model) for model in named]
    if len(names) < 2 or len(set(names)) < len(names):
        kind = IncompleteError if len(names) < 2 else UsageError
        raise kind(
            f"a table needs at least two different models, and these are {', '.join(names) or 'none'}",
            hint="name two models or more, each once",
        )
    return named


def mean_sides(duels: Mapping[tuple[int, int], Duel], num_models: int, rules: Rules) -> list[Evaluation]:
    """Each model's scores, as the mean over the duels it was in; all duels are over the same examples."""
    evaluations = []
    for at in range(num_models):
        own = [fought.left if at == pair[0] else fought.right for pair, fought in duels.items() if at in pair]
        means = [mean_score([outcome.score for outcome in item]) for item in zip(*(side.outcomes for side in own), strict=True)]
        evaluations.append(_scored(own[0], means, rules))
    return evaluations


def _scored(evaluation: Evaluation, scores: Sequence[float], rules: Rules) -> Evaluation:
    """The evaluation with these scores, in the order of its outcomes, and the interval of their mean by the table's rules."""
    outcomes = tuple(replace(outcome, score=score) for outcome, score in zip(evaluation.outcomes, scores, strict=True))
    metric, groups = evaluation.suite.metric, groups_of(outcomes)
    low, high = score_interval(metric, scores, alpha=rules.alpha, groups=groups)
    side = replace(evaluation.side, score=mean_score(scores), score_low=low, score_high=high)
    return replace(evaluation, outcomes=outcomes, side=side)


def ordered(
    evaluations: Sequence[Evaluation],
    duels: Mapping[tuple[int, int], Duel],
    rules: Rules,
    notes: Sequence[str],
) -> Table:
    """The table of these models (by position in `evaluations`), rated by who won which item of which duel."""
    first = evaluations[0]
    groups = groups_of(first.outcomes)
    if groups is None or len(set(groups)) == 1:  # of which every draw would be the same
        groups = tuple(outcome.example_id for outcome in first.outcomes)
    wins_GMM = _wins(duels, len(evaluations), groups)
    strengths_M, intervals_M2 = stats.bradley_terry_intervals(wins_GMM, confidence=1 - rules.alpha, seed=first.seed)
    order = sorted(range(len(evaluations)), key=lambda at: -strengths_M[at])
    against_first = {at: verdict for at in order[1:] if (verdict := _verdict_on(duels, at, order[0])) is not None}
    # Which rows are shown depends on who leads, and that on the same answers: all pairs were looked at.
    p_values = stats.holm([fought.verdict.p_value for fought in duels.values()])
    corrected = dict(zip((frozenset(pair) for pair in duels), p_values, strict=True))
    standings = []
    for at in order:
        low, high = (AVERAGE_RATING + RATING_PER_LOG_ODDS * float(bound) for bound in intervals_M2[at])
        rating = AVERAGE_RATING + RATING_PER_LOG_ODDS * float(strengths_M[at])
        standing = Standing(side=evaluations[at].side, rating=rating, rating_low=low, rating_high=high)
        if (verdict := against_first.get(at)) is not None:
            standing = replace(
                standing,
                difference=verdict.difference,
                difference_low=verdict.difference_low,
                difference_high=verdict.difference_high,
                p_value=corrected[frozenset((at, order[0]))],
            )
        standings.append(standing)
    suite = first.suite
    why_none = {
        evaluations[at].side.model: verdict.why_none
        for at, verdict in against_first.items()
        if verdict.why_none and corrected[frozenset((at, order[0]))] < rules.alpha
    }
    partials = tuple(filter(None, (*(evaluations[at].partial for at in order), *why_none.values())))
    told = {note for evaluation in evaluations for note in evaluation.notes}
    every_note = [f"PARTIAL: {why}" for why in why_none.values() if f"PARTIAL: {why}" not in told]
    every_note += [note for evaluation in evaluations for note in evaluation.notes]
    every_note += [note for one, other in combinations(evaluations, 2) for note in same_model_note(one.side, other.side)]
    leaderboard = Leaderboard(
        suite=suite.name,
        metric=suite.metric,
        num_examples=len(first.outcomes),
        standings=tuple(standings),
        sentence=_sentence(suite, standings, len(first.outcomes), rules.alpha, unnamed=why_none.keys()),
        notes=tuple(dict.fromkeys((*every_note, *notes))),
        suite_sha256=suite.sha256,
        seed=first.seed,
        alpha=rules.alpha,
        pairs=tuple(_pairing(fought.verdict, p_value) for fought, p_value in zip(duels.values(), p_values, strict=True)),
        partial=next(iter(partials), ""),
    )
    return Table(leaderboard=leaderboard, evaluations=tuple(evaluations[at] for at in order), partials=partials)


def _pairing(verdict: Verdict, p_value_corrected: float) -> Pairing:
    return Pairing(
        left=verdict.left.model,
        right=verdict.right.model,
        difference=verdict.difference,
        difference_low=verdict.difference_low,
        difference_high=verdict.difference_high,
        p_value=verdict.p_value,
        p_value_corrected=p_value_corrected,
    )


def _wins(duels: Mapping[tuple[int, int], Duel], num_models: int, groups: Sequence[str]) -> NDArray[np.float64]:
    """How often each model (row) won against each other one (column), a tie half, for each group of items."""
    # I items, G groups of them, M models
    places = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    group_I = [places[group] for group in groups]
    wins_GMM = np.zeros((len(places), num_models, num_models))
    for (one, other), fought in duels.items():
        gap_I = np.sign([a.score - b.score for a, b in zip(fought.left.outcomes, fought.right.outcomes, strict=True)])
        np.add.at(wins_GMM[:, one, other], group_I, (1 + gap_I) / 2)
        np.add.at(wins_GMM[:, other, one], group_I, (1 - gap_I) / 2)
    return wins_GMM


def _verdict_on(duels: Mapping[tuple[int, int], Duel], one: int, other: int) -> Verdict | None:
    """The verdict of `one` against `other`, seen from `one`'s side; None if they were never compared."""
    if (one, other) in duels:
        return duels[one, other].verdict
    if (other, one) not in duels:
        return None
    found = duels[other, one].verdict
    return replace(found, difference=-found.difference, difference_low=-found.difference_high, difference_high=-found.difference_low)


def _sentence(suite: Suite, standings: Sequence[Standing], num_examples: int, alpha: float, *, unnamed: Collection[str]) -> str:
    """Who leads, whom the data cannot tell from the leader, and whose score is known to be higher: the order is that of items won.

    Of the `unnamed` models the answers tell too little, or the leader's.
    """
    leader = _name(standings[0].side)
    signs = {_name(row.side): 0 if row.side.model in unnamed else _sign(row, alpha) for row in standings[1:]}
    level, above = ([name for name, sign in signs.items() if sign == wanted] for wanted in (0, 1))
    items = counted(num_examples, "item")
    if len(level) == len(standings) - 1:
        return (
            f"Too close to call on `{suite.name}`, {items}: no model leads; {leader} is not known to be better than {listed(level)}."
        )
    num_led = len(standings) - 1 - len(level) - len(above)
    have = "has a higher score" if len(above) == 1 else "have higher scores"
    if num_led:
        lead = f"{leader} leads {counted(num_led, 'other model')} on `{suite.name}`, {items}"
        tied = f"too close to call between it and {listed(level)}"
        higher = f"{listed(above)} {have}, and won fewer items, which the order goes by"
    else:
        lead = f"No model leads on `{suite.name}`, {items}"
        tied = f"too close to call between {leader} and {listed(level)}"
        higher = f"{listed(above)} {have} than {leader}, and won fewer items, which the order goes by"
    unknown = sum(row.p_value is None for row in standings[1:])  # they count as led
    apart = f"{unknown} of them never compared with it directly"
    return f"{'; '.join([lead, *([apart] if unknown else []), *([tied] if level else []), *([higher] if above else [])])}."


def _sign(row: Standing, alpha: float) -> int | None:
    """Whether a model's score is known to be higher (1) than the leader's, or lower (-1), or neither (0); None if never compared."""
    if row.p_value is None or row.difference_low is None or row.difference_high is None:
        return None
    return 0 if row.p_value >= alpha else 1 if row.difference_low > 0 else -1 if row.difference_high < 0 else 0


def _name(side: Side) -> str:
    return f"`{side.model}`"


def _require_connected(num_models: int, pairs: Sequence[tuple[int, int]], suite: str) -> None:
    if len(set(joined([*pairs, *((at,) for at in range(num_models))]).tolist())) > 1:
        raise UnsupportedError(
            f"the stored reviews of `{suite}` do not connect these models: some were never compared with any of the others",
            hint="name a model that was compared with all of them, such as vicuna-13b",
        )
