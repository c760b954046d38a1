"""Answers that no target decides, judged by a model: pairs in `nomoat duel --judge`, single answers in `nomoat eval --judge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from nomoat.asking.store import AnswerStore
from nomoat.judge import agreement, judge_prompts, wording
from nomoat.judge.duel import duel_of, fought_over
from nomoat.judge.groups import group_names
from nomoat.judge.kept import is_kept
from nomoat.judge.metrics import Metric
from nomoat.judge.model_judge import Conversation, Judge, Pair, PairVerdict
from nomoat.judge.opened import given, opened, opened_store
from nomoat.judge.run import in_turn
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.table import Table, mean_sides, ordered, several_models
from nomoat.judge.verdict import DEFAULT_RULES, Duel, Evaluation, Rules, cut
from nomoat.records import Message
from nomoat.references import STORED, names_weights
from nomoat.responder import Responder, ref_of

PAIRS: Metric = "judged"
GRADE: Metric = "grade"
NO_ANSWERS = ("code", "regex")  # whose targets are what an answer is put to
ANSWER_TOKENS = 512  # where a suite was not made to be judged by what is written


def run_judged_duel(
    left: str | Path | Responder,
    right: str | Path | Responder,
    suite: Suite,
    judge: str | Path | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Duel:
    """Ask both sides everything, and a judge, in both orders, whose answer is better. A side's score is its share of wins, ties half.

    `check` names labelled pairs (`vicuna80`, or a JSONL file) that the judge's agreement is measured on first.
    Raises what `run_suite` raises for either side, and what asking the judge raises.
    """
    return _judged((left, right), suite, judge, settings or RunSettings(), check=check, rules=rules).duels[0, 1]


def run_judged_duels(
    left: str | Path | Responder,
    right: str | Path | Responder,
    suites: Sequence[Suite],
    judge: str | Path | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
    rules: Rules = DEFAULT_RULES,
) -> list[Duel]:
    """`run_judged_duel` over each of several suites, corrected for their number, and kept, as `run_duels` does it."""
    settings = settings or RunSettings()  # one budget for all
    return fought_over(suites, rules, lambda suite, own: run_judged_duel(left, right, suite, judge, settings, check=check, rules=own))


def run_judged_table(
    models: Sequence[str | Path | Responder],
    suite: Suite,
    judge: str | Path | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
    rules: Rules = DEFAULT_RULES,
) -> Table:
    """Ask every model everything, and a judge about each two of them; put them in order of the pairs they won.

    A model's score is its share of wins over all its pairs. Raises what `run_judged_duel` raises, UsageError as `run_table` does.
    """
    judged = _judged(several_models(models), suite, judge, settings or RunSettings(), check=check, rules=rules)
    return ordered(judged.sides, judged.duels, rules, judged.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What a judge made of each two models, by their positions, and of each over all its pairs.

    `notes` are of the judge, over all pairs, and of kept answers.
    """

    duels: dict[tuple[int, int], Duel]
    sides: list[Evaluation]
    notes: tuple[str, ...]


def _judged(
    models: Sequence[str | Path | Responder],
    suite: Suite,
    judge: str | Path | Responder,
    settings: RunSettings,
    *,
    check: str | None,
    rules: Rules,
) -> _Judged:
    """Let all models answer, one after another, and the judge compare each two of them on each example."""
    named, judge = [given(model) for model in models], given(judge)
    meetings = list(combinations(range(len(named)), 2))
    with opened_store(settings) as store:
        settings = replace(settings, store=store)
        sides, unasked = in_turn(named, asked_for_a_judge(suite), settings, judge=judge)
        settings.spending.begin_stage(ref_of(judge))
        with opened(judge, settings) as model:
            judging = _judge(model, store, settings)
            checked = _checked(judging, check, settings.seed)
            verdicts = judging.pairs(_pairs(sides, meetings), together=len(meetings))
        rows = [verdicts[start : start + len(meetings)] for start in range(0, len(verdicts), len(meetings))]
        known = [at for at, row in enumerate(rows) if None not in row]
        read = [verdict for at in known for verdict in rows[at] if verdict is not None]
        shown = [verdict for verdict in read if verdict.is_asked]
        _require_verdicts([] if _is_silent(shown, len(read)) else read, judging)
        groups = [group for group, row in zip(group_names(sides[0].outcomes), rows, strict=True) if None not in row for _ in meetings]
        told = _pair_notes(judging, read, groups)
        notes = (*_partial_note(judging, len(known), len(rows)), *told, *checked, *judging.notes, *unasked)
        duels = {}
        for at, (one, other) in enumerate(meetings):
            scores = [verdict.score for verdict in read[at :: len(meetings)]]
            left = _scored(sides[one], PAIRS, known, scores, judging)
            right = _scored(sides[other], PAIRS, known, [1 - score for score in scores], judging)
            duels[one, other] = duel_of(left, right, rules=rules, notes=notes)
        means = mean_sides(duels, len(named), rules)
        for side in [side for side in means if not side.side.model.startswith(STORED)]:
            _keep(side, store)
    return _Judged(duels=duels, sides=means, notes=notes)


def _is_silent(shown: Sequence[PairVerdict], num_read: int) -> bool:
    """Whether a judge said nothing of any pair it was shown. One or two pairs, of many that are equal, may be at fault themselves."""
    is_enough = len(shown) >= 3 or 20 * len(shown) > num_read
    return is_enough and all(verdict.is_silent for verdict in shown)


def _pairs(sides: Sequence[Evaluation], meetings: Sequence[tuple[int, int]]) -> list[Pair]:
    """Example by example, each meeting's pair of answers."""
    conversations = [_conversations(side) for side in sides]
    return [
        Pair(one=conversations[one][example.id], other=conversations[other][example.id], reference=example.target)
        for example in sides[0].suite.examples
        for one, other in meetings
    ]


def run_graded(
    responder: str | Path | Responder,
    suite: Suite,
    judge: str | Path | Responder,
    settings: RunSettings | None = None,
    *,
    check: str | None = None,
) -> Evaluation:
    """Ask a model everything, and a judge for a grade from 1 to 10 of each answer. See `run_judged_duel`.

    Answers whose grade cannot be read are left out, and counted.
    """
    responder, judge, settings = given(responder), given(judge), settings or RunSettings()
    with opened_store(settings) as store:
        settings = replace(settings, store=store)
        (graded,), unasked = in_turn([responder], asked_for_a_judge(suite), settings, judge=judge)
        settings.spending.begin_stage(ref_of(judge))
        with opened(judge, settings) as model:
            judging = _judge(model, store, settings)
            notes = _checked(judging, check, settings.seed)
            conversations = _conversations(graded)
            grades = judging.grades([(conversations[example.id], example.target) for example in graded.suite.examples])
        known = [at for at, grade in enumerate(grades) if grade is not None]
        _require_verdicts(known, judging)
        result = _scored(graded, GRADE, known, [grade for grade in grades if grade is not None], judging)
        if not is_kept(ref_of(responder)):  # whose digest is the model's, and whose record is its own
            _keep(result, store)
        told = judging.notes
    unread = len(grades) - len(known)
    if unread and judging.failure is None:
        notes = (f"{unread:,} of {len(grades):,} grades could not be read: those answers are left out", *notes)
    partial = _partial_note(judging, len(known), len(grades))
    notes = (*result.notes, *partial, _judge_note(judging, "graded"), *notes, *told, *unasked)
    return replace(result, notes=tuple(dict.fromkeys(notes)))  # said once, if of both models


def asked_for_a_judge(suite: Suite) -> Suite:
    """The suite as its questions are asked where a judge compares the answers: all are written, and have room for it.

    A target that is a program or a pattern is no answer, and no judge is shown it.
    """
    tokens = suite.max_new_tokens if suite.metric == "judge" else max(suite.max_new_tokens, ANSWER_TOKENS)
    examples = suite.examples
    if suite.metric in NO_ANSWERS:
        examples = tuple(replace(example, target="", other_targets=()) for example in examples)
    return replace(suite, metric="judge", max_new_tokens=tokens, examples=examples)


def _judge(model: Responder, store: AnswerStore, settings: RunSettings) -> Judge:
    return Judge(
        model=model,
        store=store,
        spending=settings.spending,
        concurrency=settings.concurrency,
        max_new_tokens=max(settings.max_new_tokens or 0, judge_prompts.MAX_VERDICT_TOKENS),
        show=lambda done, total: settings.progress(f"judge {model.ref}", done, total),
    )


def _checked(judging: Judge, check: str | None, seed: int) -> tuple[str, ...]:
    """What is known of the judge's agreement with labels, measured now if that was asked for."""
    if check is None:
        known = agreement.remembered(judging.model.digest)
        return (known or "this judge's agreement with labels was never measured: `--judge-check vicuna80` (in Python: `check`) does",)
    num_pairs = agreement.LOCAL_PAIRS if names_weights(judging.model.ref) else agreement.NUM_PAIRS
    found = agreement.measure(judging, agreement.load_labels(check, num_pairs=num_pairs, seed=seed))
    if found is None:
        said = f"the judge gave none of the labelled pairs of `{check}` a verdict that can be read"
        raise judging.no_verdict(said)
    agreement.remember(judging.model.digest, found)
    judging.failure = None  # of a labelled pair, which says nothing of the answers to come
    return (found.sentence,)


def _conversations(evaluation: Evaluation) -> dict[str, Conversation]:
    """What was said up to and with each answer, by example; an example that follows another has its conversation before it."""
    said: dict[str, Conversation] = {}
    for example, outcome in zip(evaluation.suite.examples, evaluation.outcomes, strict=True):
        answer = Message(role="assistant", content=evaluation.suite.answer_in(outcome.answer))
        said[example.id] = (*said.get(example.follows, ()), *example.messages, answer)
    return said


def _require_verdicts(read: Sequence[object], judging: Judge) -> None:
    if not read:
        raise judging.no_verdict("the judge wrote nothing that could be read as a verdict")


def _scored(evaluation: Evaluation, metric: Metric, known: Sequence[int], scores: Sequence[float], judging: Judge) -> Evaluation:
    """The evaluation with the judge's scores, cut down to what was judged."""
    suite = replace(evaluation.suite, metric=metric, examples=tuple(evaluation.suite.examples[at] for at in known))
    outcomes = [replace(evaluation.outcomes[at], score=score) for at, score in zip(known, scores, strict=True)]
    failure = judging.failure if len(known) < len(evaluation.outcomes) else None
    partial = evaluation.partial or (f"the judge did not judge all: {failure.message}" if failure else "")
    return replace(cut(evaluation, suite, outcomes, judge=judging.model.ref), partial=partial)


def _keep(judged: Evaluation, store: AnswerStore) -> None:
    """Save what a judge said of a model's answers."""
    store.save_outcomes(judged.suite.sha256, judged.suite.metric, judged.side.facts["digest"], judged.outcomes)


def _partial_note(judging: Judge, num_judged: int, num_asked: int) -> tuple[str, ...]:
    if judging.failure is None or num_judged == num_asked:
        return ()
    return (
        f"PARTIAL: the judge `{judging.model.ref}` judged {num_judged:,} of {num_asked:,} questions: {judging.failure.message}",
    )  # fmt: skip


def _pair_notes(judging: Judge, read: Sequence[PairVerdict], groups: Sequence[str]) -> tuple[str, ...]:
    notes = [_judge_note(judging, "judged"), agreement.order_words(read, groups)]
    unread = sum(not verdict.is_readable for verdict in read)
    if unread:
        notes.append(
            f"{unread:,} of {len(read):,} pairs got a verdict that could not be read in at least one order: they count as ties"
        )
    return tuple(notes)


def _judge_note(judging: Judge, did: str) -> str:
    unwritten = "by the likeliest grade" if did == "graded" else "by what its verdicts' likelihoods lean to over both orders"
    how = "by what it wrote" if judging.writes else f"{unwritten}, without an explanation"
    spent = judging.spent
    cost = "its cost is not known" if spent.cost_usd is None else f"at a cost of {wording.render_usd(spent.cost_usd)}"
    if spent.bytes_out:
        cost = f"{cost}, {spent.bytes_out:,} bytes sent out"
    return f"{did} by `{judging.model.ref}`, {how}; {cost}. A judge is a model: it has tastes of its own"
