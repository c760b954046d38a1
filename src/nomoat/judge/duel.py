"""Two models, the same questions, and a verdict: `nomoat duel`."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from nomoat import bounds
from nomoat.asking.spending import Spending
from nomoat.errors import BudgetReachedError, IncompleteError, NotEnoughMemoryError, UnsupportedError
from nomoat.judge import power, stats
from nomoat.judge.askable import have_room_together, require_askable, require_context, require_scorable
from nomoat.judge.asking import Asking
from nomoat.judge.groups import groups_in, groups_of
from nomoat.judge.kept import KeptEngine, is_kept
from nomoat.judge.metrics import METRICS
from nomoat.judge.opened import given, opened, opened_store
from nomoat.judge.recorded import has_recorded_scores, recorded_evaluation, stored_evaluation
from nomoat.judge.run import asked_in_turn, drawn, warn_of_unlearned
from nomoat.judge.sequential import Watch
from nomoat.judge.settings import RunSettings
from nomoat.judge.stored_reviews import StoredReviews, load_reviews
from nomoat.judge.suite import Suite
from nomoat.judge.suites import load_suite
from nomoat.judge.verdict import DEFAULT_RULES, Duel, Evaluation, Rules, compare, in_common, range_of_differences
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.progress import AnswerProgress, quiet
from nomoat.records import Effort, Example, Request, Verdict
from nomoat.references import STORED
from nomoat.responder import Responder, ref_of
from nomoat.rows import Given
from nomoat.words import listed

SuiteRef = TypeVar("SuiteRef", bound=str | Suite)

ROUND_PERCENT = 2  # of the examples asked so far: each look goes over all different values, and of many takes long


def duel(
    left: str | Path | Responder,
    right: str | Path | Responder,
    suite: Given | Suite | None = None,
    *,
    input_column: str | None = None,
    label_column: str | None = None,
    instruction: str | None = None,
    limit: int | None = None,
    stop_early: bool = True,
    alpha: float = 0.05,
    rope: float | None = None,
    seed: int = 0,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: AnswerProgress = quiet,
    spending: Spending | None = None,
    template: str | None = None,
    max_new_tokens: int | None = None,
    reasoning_effort: Effort | None = None,
) -> Verdict:
    """Who is better on a suite, and how sure that is. Two `stored:` models of one suite need no `suite`.

    With `stop_early` the examples are asked in a random order, and no more of them than it takes to name the winner. `alpha` is how
    often a winner may be named between equals; `rope` is how many per cent of the scale still count as equal. `spending` holds a
    budget for both sides. All else is as `evaluate` has it.

    Raises what `evaluate` raises, UsageError if there is no suite, UnsupportedError for stored answers nobody reviewed.
    """
    left, right = given(left), given(right)
    if suite is not None:
        suite = load_suite(
            suite, input_column=input_column, label_column=label_column, instruction=instruction, models=[left, right]
        )  # fmt: skip
    settings = RunSettings(
        limit=limit, seed=seed, concurrency=concurrency, progress=progress, spending=spending or Spending(), template=template,
        max_new_tokens=max_new_tokens, reasoning_effort=reasoning_effort,
    )  # fmt: skip
    rules = Rules(alpha=alpha, rope=rope)
    if suite is not None:
        warn_of_unlearned(suite)
    return run_duel(left, right, suite, settings, stop_early=stop_early, rules=rules).verdict


def run_duel(
    left: str | Path | Responder,
    right: str | Path | Responder,
    suite: str | Path | Suite | None = None,
    settings: RunSettings | None = None,
    *,
    stop_early: bool = True,
    rules: Rules = DEFAULT_RULES,
) -> Duel:
    """As `duel`, with everything a report needs.

    A duel that may stop early has both models loaded at once; if memory does not hold both, it asks everything. Otherwise a model
    given by reference is loaded when its turn comes, and closed after it. Two sides that are stored cost nothing to ask, and are
    asked everything; so is a suite whose examples belong together in groups: in a random order, one at a time, they would be no
    independent draws.
    """
    bounds.require_flag("stop_early", stop_early)
    left, right, settings = given(left), given(right), settings or RunSettings()
    asked = suite_of(left, right, suite=suite)
    if asked.metric == "review":
        return _replay(left, right, asked, settings, rules)
    planned, notes = drawn(asked, settings.limit, settings.seed)
    if has_recorded_scores(asked):
        one, other = (recorded_evaluation(ref_of(side), planned, notes=notes, seed=settings.seed) for side in (left, right))
        return duel_of(one, other, rules=rules)
    require_scorable(asked)
    require_askable((left, right), planned, settings)
    both_stored = all(ref_of(side).startswith(STORED) and not is_kept(ref_of(side)) for side in (left, right))
    with opened_store(settings) as store, ExitStack() as stack:
        settings = replace(settings, store=store)
        has_groups = any(groups_in(planned).values())
        may_stop = not (stop_early or has_groups)
        ask_all = partial(_ask_all, left, right, planned, notes, settings, rules=rules, may_stop=may_stop)
        if not stop_early or both_stored:
            return ask_all()
        both = None if has_groups else _loaded_together(left, right, planned, settings, stack)
        if both is None:
            why = "examples belong together in groups" if has_groups else "memory does not hold both models at once"
            note = f"{why}: each side answered everything, and the duel could not stop early"
            return ask_all(why=(note,))
        planned = replace(planned, examples=tuple(random.Random(settings.seed).sample(planned.examples, len(planned.examples))))
        is_same = both[0].ref == both[1].ref  # a model against itself has two bars
        labels = (f"{both[0].ref} (left)", f"{both[1].ref} (right)") if is_same else ("", "")
        asking = [
            Asking(model=model, label=label, suite=planned, store=store, settings=settings)
            for model, label in zip(both, labels, strict=True)
        ]
        watch = _ask_until_known(asking[0], asking[1], rules, round_size=settings.concurrency)
        # Each look took every answer for a draw of its own, whichever are equal among those that it came to.
        evaluations = in_common([side.evaluation(notes=notes) for side in asking], groups_in(planned))
    found = duel_of(*evaluations, rules=rules, watch=watch)
    note = _order_note(watch, settings.concurrency, settings.seed, asking, names_none=bool(found.verdict.why_none))
    return replace(found, verdict=replace(found.verdict, notes=(*found.verdict.notes, note)))


def run_duels(
    left: str | Path | Responder,
    right: str | Path | Responder,
    suites: Sequence[str | Suite],
    settings: RunSettings | None = None,
    *,
    stop_early: bool = True,
    rules: Rules = DEFAULT_RULES,
) -> list[Duel]:
    """A duel over each of several suites, in which all winners named are right together with a probability of 1 - alpha.

    Each duel gets its share of alpha, so its intervals are wider than they would be alone; p-values are corrected too (Holm). Where
    the budget is used up before the first question of a suite, the duels before it are the result, and the last of them says so.
    """
    settings = settings or RunSettings()  # one budget for all
    return fought_over(suites, rules, lambda suite, own: run_duel(left, right, suite, settings, stop_early=stop_early, rules=own))


def fought_over(suites: Sequence[SuiteRef], rules: Rules, fight: Callable[[SuiteRef, Rules], Duel]) -> list[Duel]:
    """See `run_duels`: the duels, each by its share of `rules`, with p-values corrected for the number of suites, those not fought
    over among them."""
    own = replace(rules, alpha=rules.alpha / len(suites))
    fought: list[Duel] = []
    for suite in suites:
        try:
            fought.append(fight(suite, own))
        except BudgetReachedError as error:
            if not fought:
                raise
            fought[-1] = _last(fought[-1], suites[len(fought) :], error)
            break
    p_values = stats.holm([*(duel.verdict.p_value for duel in fought), *[1.0] * (len(suites) - len(fought))])
    return [
        replace(duel, verdict=replace(duel.verdict, p_value_corrected=p_value))
        for duel, p_value in zip(fought, p_values[: len(fought)], strict=True)
    ]


def _last(fought: Duel, missing: Sequence[str | Suite], error: BudgetReachedError) -> Duel:
    """The duel before the budget was used up, which says what was not fought over, and why."""
    names = listed([f"`{suite.name if isinstance(suite, Suite) else suite}`" for suite in missing])
    note = f"PARTIAL: nothing was fought over {names}: {error.message}"
    verdict = fought.verdict
    return replace(fought, verdict=replace(verdict, partial=verdict.partial or error.message, notes=(*verdict.notes, note)))


def _ask_all(
    left: str | Responder,
    right: str | Responder,
    planned: Suite,
    notes: Sequence[str],
    settings: RunSettings,
    *,
    rules: Rules,
    may_stop: bool,
    why: Sequence[str] = (),
) -> Duel:
    """Ask both sides everything. `may_stop`: it could stop early, had `--all` not been given; notes say what that would change."""
    (one, other), unasked = asked_in_turn((left, right), planned, notes, settings)
    if may_stop:
        unasked = [f"{note} (without `--all`, in Python: with `stop_early`, they hold)" for note in unasked]
    return duel_of(one, other, rules=rules, notes=(*why, *unasked))


def duel_of(one: Evaluation, other: Evaluation, *, rules: Rules, watch: Watch | None = None, notes: Sequence[str] = ()) -> Duel:
    """The duel of two evaluations of the same examples, with the intervals of its verdict. See `compare`."""
    verdict = compare(one, other, rules=rules, watch=watch, notes=notes)
    if groups_of(one.outcomes) is None:
        verdict = power.with_items_needed(verdict, alpha=rules.alpha if watch is None else watch.alpha_each)
    return Duel(verdict=verdict, left=replace(one, side=verdict.left), right=replace(other, side=verdict.right))


# ---------------------------------------------------------------- asking no more than it takes
def _loaded_together(
    left: str | Responder, right: str | Responder, planned: Suite, settings: RunSettings, stack: ExitStack
) -> tuple[Responder, Responder] | None:
    """Both models at once, until the stack is closed; None if memory does not hold them."""
    with ExitStack() as opening:
        try:
            both = opening.enter_context(opened(left, settings)), opening.enter_context(opened(right, settings))
        except NotEnoughMemoryError:
            return None
        if not have_room_together((left, right), planned, settings):
            return None
        stack.push(opening.pop_all())
        return both


def _ask_until_known(one: Asking, other: Asking, rules: Rules, *, round_size: int) -> Watch:
    """Ask both sides the same examples and look after each round whether the answer is known.

    A round has `round_size` examples, or `ROUND_PERCENT` of those before it where that is more.
    """
    metric, planned = one.suite.metric, one.suite.examples
    examples = _kept_by(one, _kept_by(other, planned))
    for side in (one, other):
        require_context(side, examples, new_tokens=1 if metric == "choice" else side.max_new_tokens)
    lowest, highest = range_of_differences(metric)
    rope = None if rules.rope is None else METRICS[metric].in_scale(rules.rope)
    watch = Watch(lowest=lowest, highest=highest, alpha=rules.alpha, rope=rope, num_planned=len(planned))
    end = 0
    while end < len(examples):
        start, end = end, end + max(round_size, end * ROUND_PERCENT // 100)
        differences = _differences(one, other, examples[start:end])
        if differences:
            watch.add(differences)
        is_out_of_money = _is_out_of_money(one, other)
        # Kept answers may end where an earlier duel knew its winner: theirs is no number that was fixed before.
        if end >= len(examples) and len(examples) == len(planned) and not is_out_of_money:
            watch.end()
        if watch.is_known or is_out_of_money or one.is_in_vain or other.is_in_vain:
            break
    return watch


def _kept_by(side: Asking, examples: Sequence[Example]) -> Sequence[Example]:
    """The examples that a side has answers to, where those it has are all there will be. Raises DataError if it has none."""
    if not isinstance(side.model.engine, KeptEngine):
        return examples
    kept = side.kept(side.model.engine, examples)
    if not kept:
        side.evaluation()
    return kept


def _differences(one: Asking, other: Asking, examples: Sequence[Example]) -> list[float]:
    """Scores of one side minus the other's, of the examples that both answer."""
    answered = {outcome.example_id: outcome.score for outcome in one.ask(examples)}
    asked = [example for example in examples if example.id in answered]
    return [answered[outcome.example_id] - outcome.score for outcome in other.ask(asked)]


def _is_out_of_money(*sides: Asking) -> bool:
    return any(isinstance(side.failure, BudgetReachedError) for side in sides)


def _order_note(watch: Watch, round_size: int, seed: int, sides: Sequence[Asking], *, names_none: bool) -> str:
    """How it was asked, and why no more. `names_none`: the verdict, whatever the scores."""
    looks = "one at a time" if round_size == 1 else f"{round_size} at a time"
    if any(after.num_examples - before.num_examples > round_size for before, after in pairwise(watch.looks)):
        looks = f"{looks} and later {ROUND_PERCENT} % of those before"
    order = f"asked in a random order (seed {seed}), {looks}, with a look after each; the intervals hold whenever one stops"
    if watch.is_complete:
        return order
    is_in_vain = any(side.is_in_vain for side in sides)
    if watch.is_known and names_none and not is_in_vain:
        return f"{order}: the rest was not asked, for the scores would do for a verdict, though the answers tell too little"
    if watch.is_known and not is_in_vain:
        return f"{order}: the rest was not needed (`--all`, in Python: `stop_early=False`, asks everything)"
    if _is_out_of_money(*sides):
        return f"{order}: the rest was not asked, for want of money (`--max-cost`, in Python: `max_cost_usd`)"
    if is_in_vain:
        return f"{order}: the rest was not asked, for no answer began"
    return f"{order}: the rest has no kept answers"


def suite_of(*sides: str | Responder, suite: str | Path | Suite | None) -> Suite:
    """The suite that was named, or the one that stored sides have answered. Raises what `load_suite` and `implied_suite` raise."""
    return load_suite(implied_suite(*sides) if suite is None else suite)


def implied_suite(*sides: str | Responder) -> str:
    """The suite that stored sides have answered. Raises IncompleteError if there is no such suite, or more than one."""
    refs = [ref_of(side) for side in sides]
    suites = {ref.removeprefix(STORED).partition("/")[0] for ref in refs if ref.startswith(STORED)}
    if len(suites) != 1 or not all(ref.startswith(STORED) for ref in refs):
        raise IncompleteError(
            "a duel needs a suite to fight over",
            hint="name one with --suite (in Python: `suite`): a path, a name, or a CSV with its columns",
        )
    return suites.pop()


# ---------------------------------------------------------------- stored answers, stored reviews
def _replay(left: str | Responder, right: str | Responder, suite: Suite, settings: RunSettings, rules: Rules) -> Duel:
    """A duel that was fought before: stored answers, and what a judge wrote about them."""
    prefix = f"{STORED}{suite.name}/"
    for side in (left, right):
        if not ref_of(side).startswith(prefix):
            raise UnsupportedError(
                f"`{suite.name}` has reviews of stored answers only, and `{ref_of(side)}` is not one of them",
                hint=f"name both sides as {prefix}NAME",
            )
    if suite.folder is None:
        raise ValueError("a suite of reviews has a folder")
    asked, notes = drawn(suite, settings.limit, settings.seed)
    reviews = load_reviews(suite.name, suite.folder, ref_of(left).removeprefix(prefix), ref_of(right).removeprefix(prefix))
    one = _reviewed(left, asked, {key: pair[0] for key, pair in reviews.scores.items()}, settings.seed)
    other = _reviewed(right, asked, {key: pair[1] for key, pair in reviews.scores.items()}, settings.seed)
    return duel_of(one, other, rules=rules, notes=(*notes, *_caveats(reviews, other, suite)))


def _reviewed(side: str | Responder, suite: Suite, scores: dict[str, float], seed: int) -> Evaluation:
    with opened(side) as model:
        answers = ((model.complete(Request(messages=one.messages)).text, scores[one.id]) for one in suite.examples)
        return stored_evaluation(model.ref, suite, answers, licence=model.licence, facts={"digest": model.digest}, seed=seed)


def _caveats(reviews: StoredReviews, right: Evaluation, suite: Suite) -> list[str]:
    """What the stored reviews leave open."""
    n, right_total = len(right.outcomes), sum(outcome.score for outcome in right.outcomes)
    heat = f", temperature {reviews.temperature:g}"
    notes = [
        f"answers and reviews: {suite.source or suite.name}; licence of the data: {suite.licence}",
        f"each pair was shown to the judge in one order only, `{reviews.shown_first}` first: what the order did is not known",
        f"the judge is a model ({reviews.judge}{heat}): asked again it may score otherwise, and the intervals do not cover that",
    ]
    if right_total > 0:
        notes.append(
            "a ratio of totals is no share of quality: answers that all got the judge's lowest score, 1, would still reach "
            f"{100 * n / right_total:.1f} %"
        )
    if reviews.num_in_prose:
        notes.append(f"{reviews.num_in_prose} reviews do not begin with their scores: the numbers recorded with them were used")
    return notes
