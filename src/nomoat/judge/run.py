"""Ask a model, or two, the questions of a suite: `nomoat eval` and `nomoat duel`.

Answers are greedy, and each is stored before it is scored: a run that was stopped goes on where it was, and a second run over the
same answers costs nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from nomoat import responder as responders
from nomoat.errors import DataError, UnsupportedError, UsageError
from nomoat.judge import scorers
from nomoat.judge.judges import StoredReviews, load_reviews
from nomoat.judge.store import AnswerStore, ChoiceScores
from nomoat.judge.suites import Suite, load_suite
from nomoat.judge.verdict import Duel, Evaluation, compare, side_of
from nomoat.records import Completion, Example, Outcome, Request, Verdict
from nomoat.responder import DEFAULT_WORKERS, Responder

STORED = "stored:"

Progress = Callable[[str, int, int], None]  # model, answers so far, answers in all


def quiet(_model: str, _done: int, _total: int) -> None:
    """A progress that shows nothing."""


def evaluate(
    responder: str | Responder,
    suite: str | Path | Suite,
    *,
    input_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    progress: Progress = quiet,
) -> list[Outcome]:
    """A model's answers to a suite, scored, one an example. `limit` examples are drawn with `seed`; None asks all.

    The two columns are for a suite that is a table (CSV, TSV).

    Raises what `load` and `load_suite` raise, DataError for an example that does not fit into the model's context (before
    anything is asked), UnsupportedError for a suite that only compares.
    """
    suite = load_suite(suite, input_column=input_column, label_column=label_column)
    return list(run_suite(responder, suite, limit=limit, seed=seed, workers=workers, progress=progress).outcomes)


def duel(
    left: str | Responder,
    right: str | Responder,
    suite: str | Path | Suite | None = None,
    *,
    input_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    progress: Progress = quiet,
) -> Verdict:
    """Who is better on a suite, and how sure that is. Two `stored:` models of one suite need no `suite`.

    The two columns are for a suite that is a table (CSV, TSV).

    Raises what `evaluate` raises, UsageError if there is no suite, UnsupportedError for stored answers nobody reviewed.
    """
    if suite is not None:
        suite = load_suite(suite, input_column=input_column, label_column=label_column)
    return run_duel(left, right, suite, limit=limit, seed=seed, workers=workers, progress=progress).verdict


def run_suite(
    responder: str | Responder,
    suite: str | Path | Suite,
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    progress: Progress = quiet,
    store: AnswerStore | None = None,
) -> Evaluation:
    """As `evaluate`, with everything a report needs. Outcomes are kept in the store, where `route` finds them."""
    suite, notes = _drawn(load_suite(suite), limit, seed)
    if suite.metric == "review":
        raise UnsupportedError(
            f"the answers to `{suite.name}` are neither right nor wrong: they can only be compared",
            hint=f"try `nomoat duel {STORED}{suite.name}/vicuna-13b {STORED}{suite.name}/gpt35`",
        )
    with _opened(responder) as model, _opened_store(store) as answers:
        asked = _Asked(model=model, suite=suite, store=answers, workers=workers, progress=progress)
        outcomes = _by_choice(asked) if suite.metric == "choice" else _by_text(asked)
        answers.save_outcomes(suite.sha256, suite.metric, model.digest, outcomes)
        facts = {"digest": model.digest, "reused answers": str(asked.num_reused)}
        side = side_of(model.ref, model.licence, suite.metric, outcomes, facts=facts, seed=seed)
    return Evaluation(suite=suite, side=side, outcomes=tuple(outcomes), notes=(*notes, *asked.notes), seed=seed)


def run_duel(
    left: str | Responder,
    right: str | Responder,
    suite: str | Path | Suite | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    workers: int = DEFAULT_WORKERS,
    progress: Progress = quiet,
    store: AnswerStore | None = None,
) -> Duel:
    """As `duel`, with everything a report needs. A model given by reference is loaded when its turn comes, and closed after it."""
    asked = load_suite(_implied_suite(left, right) if suite is None else suite)
    if asked.metric == "review":
        return _replay(left, right, asked, limit, seed)
    with _opened_store(store) as answers:
        one, other = (
            run_suite(side, asked, limit=limit, seed=seed, workers=workers, progress=progress, store=answers) for side in (left, right)
        )
    return Duel(verdict=compare(one, other), left=one, right=other)


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One run over a suite while it goes on."""

    model: Responder
    suite: Suite
    store: AnswerStore
    workers: int
    progress: Progress
    num_reused: int = 0
    notes: tuple[str, ...] = ()

    def request(self, example: Example) -> Request:
        return Request(messages=example.messages, max_new_tokens=self.suite.max_new_tokens, temperature=0.0)

    def outcome(self, example: Example, *, answer: str, score: float, seconds: float) -> Outcome:
        return Outcome(
            suite=self.suite.name,
            example_id=example.id,
            model=self.model.ref,
            answer=answer,
            score=score,
            category=example.category,
            seconds=seconds,
        )


def _by_choice(run: _Asked) -> list[Outcome]:
    """Likelihood of each example's choices; written answers for a model that gives no likelihoods."""
    examples = run.suite.examples
    found: dict[str, ChoiceScores] = {}
    for example in examples:
        if (stored := run.store.choice_scores(run.model.digest, run.request(example), example.choices)) is not None:
            found[example.id] = stored
    pending = [example for example in examples if example.id not in found]
    run.num_reused = len(found)
    _require_context(run, pending, new_tokens=1)
    for done, example in enumerate(pending, start=len(found)):
        run.progress(run.model.ref, done, len(examples))
        began = time.perf_counter()
        try:
            scores = run.model.score(run.request(example), example.choices)
        except UnsupportedError:
            return _by_written_choice(run)
        scored = ChoiceScores(scores=tuple(scores), seconds=time.perf_counter() - began)
        run.store.save_choice_scores(run.model.digest, run.request(example), example.choices, scored)
        found[example.id] = scored
    run.progress(run.model.ref, len(examples), len(examples))
    outcomes = []
    for example in examples:
        scored = found[example.id]
        answer = example.choices[scorers.likeliest(scored.scores, per_token=run.suite.per_token)]
        outcomes.append(run.outcome(example, answer=answer, score=float(answer == example.target), seconds=scored.seconds))
    return outcomes


def _by_written_choice(run: _Asked) -> list[Outcome]:
    outcomes = []
    for example, completion in _written(run):
        index = scorers.matching_choice(completion.text, example.choices)
        score = float(index is not None and example.choices[index] == example.target)
        outcomes.append(_with_usage(run.outcome(example, answer=completion.text, score=score, seconds=0.0), completion))
    unmatched = sum(
        scorers.matching_choice(outcome.answer, example.choices) is None
        for outcome, example in zip(outcomes, run.suite.examples, strict=True)
    )
    run.notes += (
        f"`{run.model.ref}` gives no likelihoods: its written answers were compared with the choices, "
        f"and {unmatched:,} of {len(outcomes):,} were none of them",
    )
    return outcomes


def _by_text(run: _Asked) -> list[Outcome]:
    return [
        _with_usage(
            run.outcome(example, answer=completion.text, score=scorers.exact(completion.text, example.target), seconds=0.0), completion
        )
        for example, completion in _written(run)
    ]


def _written(run: _Asked) -> Iterator[tuple[Example, Completion]]:
    """Every example with its answer, in order, once all are there. Equal questions are asked once."""
    requests = {example.id: run.request(example) for example in run.suite.examples}
    found: dict[Request, Completion] = {}
    for request in requests.values():
        if request not in found and (stored := run.store.answer(run.model.digest, request)) is not None:
            found[request] = stored
    run.num_reused = sum(request in found for request in requests.values())
    missing = [example for example in run.suite.examples if requests[example.id] not in found]
    _require_context(run, missing, new_tokens=run.suite.max_new_tokens)
    pending = list(dict.fromkeys(requests[example.id] for example in missing))
    total = len(found) + len(pending)
    run.progress(run.model.ref, len(found), total)
    for index, completion in run.model.complete_many(pending, workers=run.workers):
        run.store.save_answer(run.model.digest, pending[index], completion)
        found[pending[index]] = completion
        run.progress(run.model.ref, len(found), total)
    cut = sum(found[request].finish_reason == "length" for request in requests.values())
    if cut:
        run.notes += (
            f"{cut:,} of {len(requests):,} answers of `{run.model.ref}` ended at the limit of {run.suite.max_new_tokens} new tokens",
        )
    return ((example, found[requests[example.id]]) for example in run.suite.examples)


def _with_usage(outcome: Outcome, completion: Completion) -> Outcome:
    return replace(
        outcome,
        seconds=completion.usage.seconds,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
        bytes_out=completion.bytes_out,
    )


def _require_context(run: _Asked, examples: Sequence[Example], *, new_tokens: int) -> None:
    """Find the example that is too long before the first one is asked, and name it."""
    context_tokens = run.model.engine.context_tokens
    if context_tokens is None:
        return
    for example in examples:
        try:
            prompt_tokens = run.model.engine.count_tokens(run.request(example))
        except UnsupportedError:
            return
        if prompt_tokens + new_tokens > context_tokens:
            raise DataError(
                f"example `{example.id}` of `{run.suite.name}` has {prompt_tokens:,} tokens and the answer may have {new_tokens:,}, "
                f"but the context of `{run.model.ref}` is {context_tokens:,} tokens",
                hint="shorten or remove the example, or choose a model with a longer context",
            )


def _drawn(suite: Suite, limit: int | None, seed: int) -> tuple[Suite, tuple[str, ...]]:
    """The suite with `limit` of its examples, drawn at random (files are often sorted by label), in their order."""
    if limit is not None and limit < 1:
        raise UsageError(f"the limit is {limit}", hint="give a whole number of at least 1")
    total = len(suite.examples)
    if limit is None or limit >= total:
        return suite, ()
    chosen = sorted(random.Random(seed).sample(range(total), limit))
    return replace(suite, examples=tuple(suite.examples[at] for at in chosen)), (
        f"{limit:,} of {total:,} examples, drawn with seed {seed}",
    )


@contextmanager
def _opened(responder: str | Responder) -> Iterator[Responder]:
    """A responder given is the caller's to close; one loaded here is closed here."""
    if isinstance(responder, Responder):
        yield responder
        return
    with responders.load(responder) as loaded:
        yield loaded


def _opened_store(store: AnswerStore | None) -> nullcontext[AnswerStore] | AnswerStore:
    return AnswerStore() if store is None else nullcontext(store)


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
    drawn, notes = _drawn(suite, limit, seed)
    reviews = load_reviews(suite.name, suite.folder, _ref(left).removeprefix(prefix), _ref(right).removeprefix(prefix))
    missing = [example.id for example in drawn.examples if example.id not in reviews.scores]
    if missing:
        raise DataError(f"{len(missing)} of the examples of `{suite.name}` have no review, the first is `{missing[0]}`")
    one = _reviewed(left, drawn, {key: pair[0] for key, pair in reviews.scores.items()}, seed)
    other = _reviewed(right, drawn, {key: pair[1] for key, pair in reviews.scores.items()}, seed)
    return Duel(verdict=compare(one, other, notes=(*notes, *_caveats(reviews, other, suite))), left=one, right=other)


def _reviewed(side: str | Responder, suite: Suite, scores: dict[str, float], seed: int) -> Evaluation:
    with _opened(side) as model:
        outcomes = [
            Outcome(
                suite=suite.name,
                example_id=example.id,
                model=model.ref,
                answer=model.complete(Request(messages=example.messages)).text,
                score=scores[example.id],
                category=example.category,
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
