"""Labels for texts of yours, by a teacher: the likeliest label where its likelihoods can be had, else the one that it writes.

The question is that of `nomoat tune` and `nomoat eval` for a table of texts and labels (`labelling.label_task_messages`); a teacher
that was tuned on one knows its labels and its words.
"""

from __future__ import annotations

import math
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from nomoat import bounds, labelling, matching, textfiles
from nomoat.asking import as_tuned
from nomoat.asking.answers import (
    TOO_LONG,
    FailuresInARow,
    collect,
    collect_scores,
    count_earlier,
    failure_of,
    kept_answer,
    kept_scores,
)
from nomoat.asking.room import with_room
from nomoat.asking.spending import Spending
from nomoat.asking.spent import Spent
from nomoat.asking.store import AnswerStore
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import ContextExceededError, NomoatError, UnsupportedError, UsageError
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.progress import Progress
from nomoat.records import Completion, ContinuationScore, Effort, Request, in_short
from nomoat.responder import Responder
from nomoat.words import is_blank

# Why a text is left out.
NO_LABEL, CUT_OFF, TOO_LONG_TEXT = "none of the labels", "cut off", "too long for the teacher"
NO_ANSWER, NO_TEXT = "no answer", "no text"
FEW_IN_VAIN = 8  # written answers that all ended at their limit before a label: the others would be cut off, too
SPARE_TOKENS = 16  # beside those of the longest label, of which a token may be as little as one byte
MAX_UNREAD = 1e-4  # of the likelihood of many labels: less than a table shows of a confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """`confidence`: how likely this label is among all of them, 0 to 1; None where it was written."""

    text: str
    label: str
    confidence: float | None = None

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A text without a label. `why`: its answer was none of them, or ended at its limit before it was one; the teacher's context or
    cache does not hold it; or none came; or the text is empty, and nobody was asked.
    """

    text: str
    why: str
    answer: str = ""

    __repr__ = in_short


@dataclass(slots=True, kw_only=True)
class Labelled:
    """`results`: one for each text, in their order. `partial`: why some texts have no answer; empty if all have one.

    `hint`: what to do, where the failure that ended the asking says it. `max_tokens`: what a written answer may have. `notes`: what
    has to be known of the question, see `as_tuned.question_for`.
    """

    max_tokens: int
    notes: tuple[str, ...] = ()
    results: list[Label | LeftOut] = field(default_factory=list)
    how: str = "likelihood"
    spent: Spent
    partial: str = ""
    hint: str = ""

    __repr__ = in_short

    @property
    def labels(self) -> list[Label]:
        """The labels there are."""
        return [one for one in self.results if isinstance(one, Label)]

    def left_out(self, why: str) -> list[LeftOut]:
        """The texts that were left out for that reason."""
        return [one for one in self.results if isinstance(one, LeftOut) and one.why == why]

    def counts(self) -> dict[str, int]:
        """How often each label was given, the most frequent first."""
        return dict(Counter(one.label for one in self.labels).most_common())


def parse_labels(given: str) -> tuple[str, ...]:
    """`ham,spam`, or the lines of a file of that name; a comma may be full-width, as in Chinese. Raises UsageError unless there are
    two or more that differ."""
    is_file = os.path.isfile(given)  # noqa: PTH113 - Path.is_file raises where a list is longer than any name of a file
    listed = given.replace("，", ",")
    if not is_file and "," not in listed and Path(given).suffix.lower() in (".txt", ".csv", ".tsv"):
        raise textfiles.not_there(Path(given))
    parts = textfiles.read_text(Path(given)).split("\n") if is_file else listed.split(",")
    labels = tuple(dict.fromkeys(textfiles.composed(part.strip()) for part in parts if part.strip()))
    matching.require_different(labels)
    return labels


def requests_for(texts: Iterable[str], labels: Sequence[str], *, instruction: str | None = None) -> Iterator[Request]:
    """What is asked, a request for each text, which is made when it is wanted; different ones for different texts."""
    longest = _usual_tokens(labels)
    asked = (labelling.label_task_messages(text, labels, instruction=instruction) for text in texts)
    return (Request(messages=messages, max_new_tokens=longest, temperature=0.0) for messages in asked)


def _usual_tokens(labels: Sequence[str]) -> int:
    return max(len(label.encode()) for label in labels) + SPARE_TOKENS


def written_requests(
    teacher: Responder,
    requests: Iterable[Request],
    *,
    store: AnswerStore,
    max_tokens: int | None,
    reasoning_effort: Effort | None = None,
) -> Iterator[Request]:
    """Those of `requests_for`, of a teacher that writes: an answer may have `max_tokens`, which a draft before it takes up, too.
    `reasoning_effort`: how long to think before.

    What was answered whole before, with whatever limit, is not asked again.
    """
    requests = (replace(request, reasoning_effort=reasoning_effort) for request in requests)
    if max_tokens is None:
        yield from requests
        return
    limits = store.limits(teacher.digest)
    for request in requests:
        yield with_room(teacher, request, max_tokens, store=store, limits=limits)


def label(
    teacher: Responder,
    texts: Iterable[str | None],
    labels: Iterable[str] | None = None,
    *,
    instruction: str | None = None,
    store: AnswerStore,
    spending: Spending | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    max_tokens: int | None = None,
    reasoning_effort: Effort | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Labelled:
    """A label for each text, in their order; `progress` is told how many have one, of how many. Empty texts, and empty cells of a data
    frame (None, NaN), have none.

    `labels` and `instruction`: those a teacher tuned on a table learned, if not given. `max_tokens`: see `written_requests`; otherwise
    as much as the longest label takes, and a little more. `reasoning_effort`: how long who writes is to think before.
    A few texts, drawn at random, are asked about first; where all of their answers are cut off before a label, no more are.
    Raises the failure if nothing was answered at all, UsageError for texts that are none, and as `question_for` and `collect` do.
    """
    bounds.require_type("teacher", teacher, Responder)
    bounds.require_type("store", store, AnswerStore)
    bounds.require_type("progress", progress, Callable)
    spending = Spending() if spending is None else spending
    bounds.require_type("spending", spending, Spending)
    if max_tokens is not None and (max_tokens := bounds.whole("max_tokens", max_tokens)) < 1:
        raise UsageError(f"`max_tokens` is {max_tokens}", hint="it can be 1 or more")
    if reasoning_effort is not None:
        bounds.require_one_of("reasoning_effort", reasoning_effort, get_args(Effort))
    several = ["" if bounds.is_missing(text) else text for text in bounds.several(texts, "texts are labelled at once")]
    bounds.require_texts("texts", several)
    filled = [text for text in several if not is_blank(text)]
    question = as_tuned.question_for(teacher.ref, labels, instruction)
    labels, instruction = question.labels, question.instruction
    requests = list(requests_for(filled, labels, instruction=instruction))
    asking = _Asking(teacher=teacher, texts=filled, labels=labels, requests=requests, store=store, progress=progress)
    spent = Spent(pricing=spending.pricing(teacher))
    found = Labelled(spent=spent, max_tokens=max_tokens or _usual_tokens(labels), notes=question.notes)
    if isinstance(teacher.engine, RemoteEngine) or not _by_likelihood(asking, found, concurrency):
        found.how = "written"
        asked = list(written_requests(teacher, requests, store=store, max_tokens=max_tokens, reasoning_effort=reasoning_effort))
        with spending.told():
            _by_text(replace(asking, requests=asked, any_room=max_tokens is not None), found, spending, concurrency)
    results = iter(found.results)
    found.results = [LeftOut(text=text, why=NO_TEXT) if is_blank(text) else next(results) for text in several]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """What is asked, whom, and who is told. `requests`: one for each of `texts`. `any_room`: their answers may have had more room."""

    teacher: Responder
    texts: Sequence[str]
    labels: tuple[str, ...]
    requests: Sequence[Request]
    store: AnswerStore
    progress: Progress
    any_room: bool = False


def _by_likelihood(asking: _Asking, found: Labelled, concurrency: int) -> bool:
    """Whether the teacher gives likelihoods. Of a server it is known that it does not, before all texts are looked up."""
    teacher, store, labels, total = asking.teacher, asking.store, asking.labels, len(asking.texts)
    questions = [(request, labels) for request in asking.requests]
    asking.progress(0, total)  # before it is looked up what is kept, which takes its time where there are many
    kept = kept_scores(teacher.scores_digest, questions, store, max_unread=MAX_UNREAD)
    fresh = {question for question in questions if question not in kept}
    try:
        collected = collect_scores(
            teacher, questions, store=store, max_unread=MAX_UNREAD, concurrency=concurrency, kept=kept,
            show=lambda num_open: asking.progress(total - num_open, total),
        )  # fmt: skip
    except UnsupportedError:
        return False
    for text, question, scored in zip(asking.texts, questions, collected, strict=True):
        if isinstance(scored, ContextExceededError):
            found.results.append(LeftOut(text=text, why=TOO_LONG_TEXT))
            continue
        found.spent.num_answers += 1
        found.spent.num_reused += question not in fresh
        fresh.discard(question)  # a text that comes again
        at = matching.likeliest(scored.scores)
        found.results.append(Label(text=text, label=labels[at], confidence=_share(scored.scores, at)))
    return True


def _share(scores: Sequence[ContinuationScore], at: int) -> float:
    """How likely one of these is, given that it is one of them; too little by `MAX_UNREAD` of it at most."""
    best = scores[at].log_probability
    return 1 / sum(math.exp(score.log_probability - best) for score in scores)


def _by_text(asking: _Asking, found: Labelled, spending: Spending, concurrency: int) -> None:
    answers, failed, why_missing = _written(asking, found, spending, concurrency)
    for text, request in zip(asking.texts, asking.requests, strict=True):
        completion = answers.get(request)
        at = None if completion is None else matching.matching_choice(completion.text, asking.labels)
        if at is not None:
            found.results.append(Label(text=text, label=asking.labels[at]))
        elif completion is not None:
            why = CUT_OFF if completion.finish_reason == "length" else NO_LABEL
            found.results.append(LeftOut(text=text, why=why, answer=completion.text))
        else:
            is_too_long = isinstance(failed.get(request), TOO_LONG)
            found.results.append(LeftOut(text=text, why=TOO_LONG_TEXT if is_too_long else NO_ANSWER))
    if num_missing := len(found.left_out(NO_ANSWER)):
        found.partial = f"{num_missing:,} of {len(asking.texts):,} texts have no answer: {why_missing}"


def _written(
    asking: _Asking, found: Labelled, spending: Spending, concurrency: int
) -> tuple[dict[Request, Completion], dict[Request, NomoatError], str]:
    """The answers, the failures of single texts, and why any other has no answer."""
    different, teacher, store = list(dict.fromkeys(asking.requests)), asking.teacher, asking.store
    count_earlier(teacher, different, store=store, spending=spending, any_room=asking.any_room)
    answers: dict[Request, Completion] = {}
    failed: dict[Request, NomoatError] = {}
    in_a_row, failure, is_over, in_vain = FailuresInARow(), None, False, ""
    first, others = _parts(different, concurrency)
    for several in (first, others):
        is_asked = not (is_over or in_vain)  # else what is stored was paid for
        part = [request for request in several if is_asked or kept_answer(teacher, request, store) is not None]

        def show(num_open: int, num_asked: int = len(answers) + len(failed) + len(part)) -> None:
            asking.progress(num_asked - num_open, len(different))

        collected = collect(
            teacher, part, store=store, spending=spending, concurrency=concurrency, show=show, in_a_row=in_a_row, takes_part=True
        )
        found.spent.add(collected)
        answers |= collected.answers
        failed |= collected.failed
        failure = failure_of(failure, collected)
        is_over = is_over or collected.is_over
        if (
            several is first
            and others
            and len(answers) >= FEW_IN_VAIN
            and all(_is_cut(one, asking.labels) for one in answers.values())
        ):
            in_vain = f"all of the first {len(answers):,} answers ended at the limit of {found.max_tokens:,} new tokens before a label"
    if failure is not None and not answers:
        raise failure
    found.spent.add_earlier(teacher, different, store=store, spending=spending, any_room=asking.any_room)
    if failure is not None and is_over and not in_vain:
        found.hint = failure.hint or ""
    reasons = (error.message for error in (failure, *failed.values()) if error is not None and not isinstance(error, TOO_LONG))
    return answers, failed, in_vain or next(reasons, "")


def _parts(requests: Sequence[Request], concurrency: int) -> tuple[Sequence[Request], Sequence[Request]]:
    """A few, drawn at random, by which it is known whether answers come to a label before their limit; and all others."""
    num_first = max(FEW_IN_VAIN, concurrency)
    if num_first >= len(requests):
        return requests, ()
    first = random.Random(0).sample(requests, num_first)
    known = set(first)
    return first, [request for request in requests if request not in known]


def _is_cut(answer: Completion, labels: Sequence[str]) -> bool:
    """Whether an answer ended at its limit before it was a label."""
    return answer.finish_reason == "length" and matching.matching_choice(answer.text, labels) is None
