"""Answers that no target decides, judged by a model: pairs in `nomoat duel --judge`, single answers in `nomoat eval --judge`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nomoat.asking.store import AnswerStore
from nomoat.errors import DataError, NomoatError
from nomoat.judge import agreement
from nomoat.judge.model_judge import Conversation, Judge, Pair, PairVerdict
from nomoat.judge.run import Asking, drawn, opened, opened_store
from nomoat.judge.settings import RunSettings
from nomoat.judge.suites import Metric, Suite
from nomoat.judge.verdict import DEFAULT_RULES, Duel, Evaluation, Rules, compare, in_common, side_of
from nomoat.records import Message
from nomoat.responder import Responder, names_weights

PAIRS: Metric = "judged"
GRADE: Metric = "grade"
ANSWER_TOKENS = 512  # where a suite was not made to be judged by what is written


def run_judged_duel(
    left: str | Responder,
    right: str | Responder,
    suite: Suite,
    judge: str | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Duel:
    """Ask both sides everything, and a judge, in both orders, whose answer is better. A side's score is its share of wins, ties half.

    `check` names labelled pairs (`vicuna80`, or a JSONL file) that the judge's agreement is measured on first.
    Raises what `run_suite` raises for either side, and what asking the judge raises.
    """
    settings = settings or RunSettings()
    spending = settings.spending
    with opened_store(settings.store) as store:
        ask = _asker(suite, store, settings)
        refs = [side if isinstance(side, str) else side.ref for side in (left, right, judge)]
        spending.begin_stage(*refs)
        first = ask(left)
        spending.begin_stage(*refs[1:])
        one, other = in_common([first, ask(right)])
        spending.begin_stage(refs[2])
        with opened(judge) as model:
            judging = _judge(model, store, settings)
            notes = _checked(judging, check, settings.seed)
            conversations = _conversations(one), _conversations(other)
            pairs = [
                Pair(one=conversations[0][example.id], other=conversations[1][example.id], reference=example.target)
                for example in one.suite.examples
            ]
            verdicts = judging.pairs(pairs)
        known = [at for at, verdict in enumerate(verdicts) if verdict is not None]
        read = [verdict for verdict in verdicts if verdict is not None]
        _require_some(read, judging.failure)
        scores = [verdict.score for verdict in read]
        one = _scored(one, PAIRS, known, scores, judging.failure)
        other = _scored(other, PAIRS, known, [1 - score for score in scores], judging.failure)
        for side in (one, other):
            store.save_outcomes(suite.sha256, PAIRS, side.side.facts["digest"], side.outcomes)
    notes = (*_pair_notes(judging, read), *notes)
    verdict = compare(one, other, rules=rules, notes=notes)
    return Duel(verdict=verdict, left=replace(one, side=verdict.left), right=replace(other, side=verdict.right))


def run_graded(
    responder: str | Responder,
    suite: Suite,
    judge: str | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
) -> Evaluation:
    """Ask a model everything, and a judge for a grade from 1 to 10 of each answer. See `run_judged_duel`.

    Answers whose grade cannot be read are left out, and counted.
    """
    settings = settings or RunSettings()
    spending = settings.spending
    with opened_store(settings.store) as store:
        refs = [side if isinstance(side, str) else side.ref for side in (responder, judge)]
        spending.begin_stage(*refs)
        graded = _asker(suite, store, settings)(responder)
        spending.begin_stage(refs[1])
        with opened(judge) as model:
            judging = _judge(model, store, settings)
            notes = _checked(judging, check, settings.seed)
            conversations = _conversations(graded)
            grades = judging.grades([(conversations[example.id], example.target) for example in graded.suite.examples])
        known = [at for at, grade in enumerate(grades) if grade is not None]
        _require_some(known, judging.failure)
        result = _scored(graded, GRADE, known, [grade for grade in grades if grade is not None], judging.failure)
        store.save_outcomes(suite.sha256, GRADE, result.side.facts["digest"], result.outcomes)
    unread = len(grades) - len(known)
    if unread and judging.failure is None:
        notes = (f"{unread:,} of {len(grades):,} grades could not be read: those answers are left out", *notes)
    return replace(result, notes=(*result.notes, _judge_note(judging, "graded"), *notes))


def _asker(suite: Suite, store: AnswerStore, settings: RunSettings) -> Callable[[str | Responder], Evaluation]:
    """Gets one side's written answers, not yet scored."""
    tokens = suite.max_new_tokens if suite.metric == "judge" else max(suite.max_new_tokens, ANSWER_TOKENS)
    asked, notes = drawn(replace(suite, metric="judge", max_new_tokens=tokens), settings.limit, settings.seed)

    def ask(side: str | Responder) -> Evaluation:
        with opened(side) as model:
            asking = Asking(model=model, suite=asked, store=store, settings=settings)
            asking.ask(asked.examples)
            return asking.evaluation(notes=notes)

    return ask


def _judge(model: Responder, store: AnswerStore, settings: RunSettings) -> Judge:
    return Judge(
        model=model,
        store=store,
        spending=settings.spending,
        concurrency=settings.concurrency,
        show=lambda done, total: settings.progress(f"judge {model.ref}", done, total),
    )


def _checked(judging: Judge, check: str | None, seed: int) -> tuple[str, ...]:
    """What is known of the judge's agreement with labels, measured now if that was asked for."""
    if check is None:
        known = agreement.remembered(judging.model.digest)
        return (known or "this judge's agreement with labels was never measured: `--judge-check vicuna80` does",)
    num_pairs = agreement.LOCAL_PAIRS if names_weights(judging.model.ref) else agreement.NUM_PAIRS
    found = agreement.measure(judging, agreement.load_labels(check, num_pairs=num_pairs, seed=seed))
    if found is None:
        raise judging.failure or DataError(f"the judge answered none of the labelled pairs of `{check}`")
    agreement.remember(judging.model.digest, found)
    return (found.sentence,)


def _conversations(evaluation: Evaluation) -> dict[str, Conversation]:
    """What was said up to and with each answer, by example; an example that follows another has its conversation before it."""
    said: dict[str, Conversation] = {}
    for example, outcome in zip(evaluation.suite.examples, evaluation.outcomes, strict=True):
        answer = Message(role="assistant", content=outcome.answer)
        said[example.id] = (*said.get(example.follows, ()), *example.messages, answer)
    return said


def _require_some(read: Sequence[object], failure: NomoatError | None) -> None:
    if not read:
        raise failure or DataError("the judge wrote nothing that could be read as a verdict", hint="choose a larger model as judge")


def _scored(
    evaluation: Evaluation, metric: Metric, known: Sequence[int], scores: Sequence[float], failure: NomoatError | None
) -> Evaluation:
    """The evaluation with the judge's scores, cut down to what was judged."""
    suite = replace(evaluation.suite, metric=metric, examples=tuple(evaluation.suite.examples[at] for at in known))
    outcomes = tuple(replace(evaluation.outcomes[at], score=score) for at, score in zip(known, scores, strict=True))
    old = evaluation.side
    side = side_of(old.model, old.licence, metric, outcomes, facts=old.facts, price=old.price, seed=evaluation.seed)
    partial = evaluation.partial or (f"the judge did not judge all: {failure.message}" if failure else "")
    return replace(evaluation, suite=suite, outcomes=outcomes, side=side, partial=partial)


def _pair_notes(judging: Judge, read: Sequence[PairVerdict]) -> tuple[str, ...]:
    notes = [_judge_note(judging, "judged"), agreement.order_words(read)]
    unread = sum(not verdict.is_readable for verdict in read)
    if unread:
        notes.append(
            f"{unread:,} of {len(read):,} pairs got a verdict that could not be read in at least one order: they count as ties"
        )
    return tuple(notes)


def _judge_note(judging: Judge, did: str) -> str:
    how = "by what it wrote" if judging.writes else "by the likeliest verdict, without an explanation"
    cost = "its cost is not known" if judging.cost_usd is None else f"at a cost of ${judging.cost_usd:,.4f}"
    sent = f", {judging.num_bytes_out:,} bytes sent out" if judging.num_bytes_out else ""
    return f"{did} by `{judging.model.ref}`, {how}; {cost}{sent}. A judge is a model: it has tastes of its own"
