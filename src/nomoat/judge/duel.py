"""Two models, the same questions, and a verdict: `nomoat duel`."""

from __future__ import annotations

from pathlib import Path

from nomoat.errors import DataError, UnsupportedError, UsageError
from nomoat.judge.judges import StoredReviews, load_reviews
from nomoat.judge.run import STORED, Progress, drawn, opened, opened_store, quiet, run_suite
from nomoat.judge.store import AnswerStore
from nomoat.judge.suites import Suite, load_suite
from nomoat.judge.verdict import Duel, Evaluation, compare, side_of
from nomoat.records import Outcome, Request, Verdict
from nomoat.responder import DEFAULT_CONCURRENCY, Responder


def duel(
    left: str | Responder,
    right: str | Responder,
    suite: str | Path | Suite | None = None,
    *,
    input_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: Progress = quiet,
) -> Verdict:
    """Who is better on a suite, and how sure that is. Two `stored:` models of one suite need no `suite`.

    The two columns are for a suite that is a table (CSV, TSV).

    Raises what `evaluate` raises, UsageError if there is no suite, UnsupportedError for stored answers nobody reviewed.
    """
    if suite is not None:
        suite = load_suite(suite, input_column=input_column, label_column=label_column)
    return run_duel(left, right, suite, limit=limit, seed=seed, concurrency=concurrency, progress=progress).verdict


def run_duel(
    left: str | Responder,
    right: str | Responder,
    suite: str | Path | Suite | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: Progress = quiet,
    store: AnswerStore | None = None,
) -> Duel:
    """As `duel`, with everything a report needs. A model given by reference is loaded when its turn comes, and closed after it."""
    asked = load_suite(_implied_suite(left, right) if suite is None else suite)
    if asked.metric == "review":
        return _replay(left, right, asked, limit, seed)
    with opened_store(store) as answers:
        one, other = (
            run_suite(side, asked, limit=limit, seed=seed, concurrency=concurrency, progress=progress, store=answers)
            for side in (left, right)
        )
    return Duel(verdict=compare(one, other), left=one, right=other)


def _ref(side: str | Responder) -> str:
    return side if isinstance(side, str) else side.ref


def _implied_suite(left: str | Responder, right: str | Responder) -> str:
    suites = {_ref(side).removeprefix(STORED).partition("/")[0] for side in (left, right) if _ref(side).startswith(STORED)}
    if len(suites) != 1 or not all(_ref(side).startswith(STORED) for side in (left, right)):
        raise UsageError("a duel needs a suite to fight over", hint="name one with --suite: a path, a name, or a CSV with its columns")
    return suites.pop()


# ---------------------------------------------------------------- stored answers, stored reviews
def _replay(left: str | Responder, right: str | Responder, suite: Suite, limit: int | None, seed: int) -> Duel:
    """A duel that was fought before: stored answers, and what a judge wrote about them."""
    prefix = f"{STORED}{suite.name}/"
    for side in (left, right):
        if not _ref(side).startswith(prefix):
            raise UnsupportedError(
                f"`{suite.name}` has reviews of stored answers only, and `{_ref(side)}` is not one of them",
                hint=f"name both sides as {prefix}NAME",
            )
    if suite.folder is None:
        raise ValueError("a suite of reviews has a folder")
    asked, notes = drawn(suite, limit, seed)
    reviews = load_reviews(suite.name, suite.folder, _ref(left).removeprefix(prefix), _ref(right).removeprefix(prefix))
    missing = [example.id for example in asked.examples if example.id not in reviews.scores]
    if missing:
        raise DataError(f"{len(missing)} of the examples of `{suite.name}` have no review, the first is `{missing[0]}`")
    one = _reviewed(left, asked, {key: pair[0] for key, pair in reviews.scores.items()}, seed)
    other = _reviewed(right, asked, {key: pair[1] for key, pair in reviews.scores.items()}, seed)
    return Duel(verdict=compare(one, other, notes=(*notes, *_caveats(reviews, other, suite))), left=one, right=other)


def _reviewed(side: str | Responder, suite: Suite, scores: dict[str, float], seed: int) -> Evaluation:
    with opened(side) as model:
        outcomes = [
            Outcome(
                suite=suite.name,
                example_id=example.id,
                model=model.ref,
                answer=model.complete(Request(messages=example.messages)).text,
                score=scores[example.id],
                category=example.category,
                group=example.group,
            )
            for example in suite.examples
        ]
        facts = {"digest": model.digest, "total score": f"{sum(outcome.score for outcome in outcomes):.1f}"}
        side_record = side_of(model.ref, model.licence, suite.metric, outcomes, facts=facts, seed=seed)
    return Evaluation(suite=suite, side=side_record, outcomes=tuple(outcomes), seed=seed)


def _caveats(reviews: StoredReviews, right: Evaluation, suite: Suite) -> list[str]:
    """What the stored reviews leave open."""
    n, right_total = len(right.outcomes), sum(outcome.score for outcome in right.outcomes)
    notes = [
        f"answers and reviews: {suite.source or suite.name}; licence of the data: {suite.licence}",
        f"each pair was shown to the judge in one order only, `{reviews.shown_first}` first: what the order did is not known",
        f"the judge is a model ({reviews.judge}"
        + ("" if reviews.temperature is None else f", temperature {reviews.temperature:g}")
        + "): asked again it may score otherwise, and the intervals do not cover that",
    ]
    if right_total > 0:
        notes.append(
            "a ratio of totals is no share of quality: answers that all got the judge's lowest score, 1, would still reach "
            f"{100 * n / right_total:.1f} %"
        )
    if reviews.num_in_prose:
        notes.append(f"{reviews.num_in_prose} reviews do not begin with their scores: the numbers recorded with them were used")
    return notes
