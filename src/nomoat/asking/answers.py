"""Answers to questions: from the store where they were given before, from the model where not.

Each answer is stored in the thread that received it, before anything else is done with it: neither Ctrl-C nor a later failure
loses it. A question that fails leaves the others alone, and is asked again by the next run.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

from nomoat import matching, system_errors, whole_files
from nomoat.asking.room import with_other_room
from nomoat.asking.spending import Pricing, Spending
from nomoat.asking.store import AnswerStore
from nomoat.engine.pacing import LONGEST_ASKED_WAIT_SECONDS
from nomoat.engine.remote import QUOTA_CODES, RemoteEngine
from nomoat.errors import BudgetReachedError, CacheExceededError, ContextExceededError, NomoatError, RemoteError, is_of_what_was_asked
from nomoat.money import dollars
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.records import ChoiceScores, Completion, Request
from nomoat.responder import Responder
from nomoat.words import counted

HOPELESS = (401, 402, 403, 404)  # no key, no money, no permission, no such model: no other question will fare better
MAX_FAILURES_IN_A_ROW = 5
LOOKED_UP_AT_ONCE = 1_000  # requests, a tenth of a second, after which it is shown how many have an answer
# Free before each question to a server, for the answers that are under way then: SQLite first writes up to 4 MB beside its file.
FREE_DISK_BYTES = 10_000_000
SHORT_BYTES = 400  # some 100 tokens: with template and choices about what a pass over several questions takes of one
TOO_LONG = (ContextExceededError, CacheExceededError)  # of one text: says nothing of the others

FREE_HINT = (
    " (say that a server of yours costs nothing: --price-in 0 --price-out 0, in Python: `input_usd_per_million` and "
    "`output_usd_per_million`)"
)

Question = tuple[Request, tuple[str, ...]]  # what likelihoods are of: a request, and the choices after it

log = logging.getLogger("nomoat.asking")


@dataclass(slots=True, kw_only=True)
class Collected:
    """Answers by request; those of `reused` were in the store. `failed`: those that failed of themselves, and why; `ended`: why others
    were not asked (again). `failure` is why some requests have no answer: the first of these reasons, or the end of the budget.
    `lost`: how many calls for a request, ever, may have been billed and brought no answer that was kept. `cut`: those whose stored
    answer the context of a model on this machine ended, which has room for more now. `is_over`: `failure` ends what is asked later,
    too.
    """

    answers: dict[Request, Completion] = field(default_factory=dict)
    reused: set[Request] = field(default_factory=set)
    failed: dict[Request, NomoatError] = field(default_factory=dict)
    ended: list[NomoatError] = field(default_factory=list)
    lost: dict[Request, int] = field(default_factory=dict)
    cut: set[Request] = field(default_factory=set)
    num_reused: int = 0
    failure: NomoatError | None = None
    is_over: bool = False

    @property
    def num_failed(self) -> int:
        return len(self.failed)

    @property
    def bytes_in_vain(self) -> int:
        """What was sent to another machine for those that failed, or that ended all."""
        return sum(error.bytes_out for error in (*self.failed.values(), *self.ended))


def collect(
    model: Responder,
    requests: Sequence[Request],
    *,
    store: AnswerStore,
    spending: Spending,
    concurrency: int,
    show: Callable[[int], None] = lambda _num_open: None,
    in_order: bool = False,
    in_a_row: FailuresInARow | None = None,
    takes_part: bool = False,
) -> Collected:
    """Every request's answer, as far as there is one. Equal requests are asked once; `show` is told how many are still open.

    With a budget, questions are asked in random order, so that those answered when it is used up are a fair sample; but `in_order`,
    where the caller has seen to that. `in_a_row`: for who asks a model in several parts, the same for all of them. `takes_part`: some
    answers are worth something without the others, fair sample or not.
    Raises what no other question would fare better with; but where a server says so, as when the credit is used up, that ends the
    asking of who `takes_part` as the budget does. A full disk is raised, and no question leaves for a server without room for its
    answer; answers that came and could not be kept are told of.
    """
    collected = Collected()
    is_sample = spending.budget is not None and not in_order
    different = list(dict.fromkeys(random.Random(0).sample(requests, len(requests)) if is_sample else requests))
    state = store.state()
    _look(model, different, collected, store, show)
    if is_open := len(collected.answers) < len(different):
        spending.watch(model)
    takes_money = spending.may_cost(model)
    with _no_other_pays(model, store, spending) if is_open and takes_money else nullcontext():
        if takes_money and store.state() != state:  # another run may have been asking the same
            _look(model, different, collected, store, show)
        pending = [request for request in different if request not in collected.answers]
        show(len(pending))
        count_earlier(model, different, store=store, spending=spending, answers=collected.answers)
        if pending:
            try:
                with _lost_calls_counted(model, store, spending):
                    _ask(
                        model, pending, collected, store=store, spending=spending, concurrency=concurrency, show=show,
                        in_a_row=FailuresInARow() if in_a_row is None else in_a_row, takes_part=takes_part,
                    )  # fmt: skip
            except BaseException:
                with suppress(NomoatError):  # on a full disk that fails, too, and says less
                    _save_notes(model, store)
                raise
            _save_notes(model, store)
    collected.num_reused = sum(request in collected.reused for request in requests)
    if isinstance(model.engine, RemoteEngine):
        collected.lost = {request: num for request in different if (num := store.num_lost(model.digest, request))}
    return collected


def _look(
    model: Responder, requests: Sequence[Request], collected: Collected, store: AnswerStore,
    show: Callable[[int], None] = lambda _num_open: None,
) -> None:  # fmt: skip
    """Add the answers that are in the store by now."""
    for num_looked_up, request in enumerate(requests):
        if num_looked_up and num_looked_up % LOOKED_UP_AT_ONCE == 0:
            show(len(requests) - len(collected.answers))
        if request in collected.answers or (stored := store.answer(model.digest, request)) is None:
            continue
        if _has_room_for_more(model, request, stored):
            collected.cut.add(request)
        else:
            collected.answers[request] = stored
            collected.reused.add(request)


def kept_answer(model: Responder, request: Request, store: AnswerStore) -> Completion | None:
    """The stored answer that `collect` would give for this request; None if it would ask the model, for the first time or again."""
    stored = store.answer(model.digest, request)
    return None if stored is None or _has_room_for_more(model, request, stored) else stored


def _has_room_for_more(model: Responder, request: Request, answer: Completion) -> bool:
    """Whether a shorter context than the model's now ended the answer."""
    context, usage = model.engine.context_tokens, answer.usage
    if answer.finish_reason != "length" or context is None or not model.is_local:
        return False
    wanted = context if request.max_new_tokens is None else request.max_new_tokens
    return usage.completion_tokens < min(wanted, context - usage.prompt_tokens)


@contextmanager
def _no_other_pays(model: Responder, store: AnswerStore, spending: Spending) -> Iterator[None]:
    """A model that may take money is asked by one run at a time, whatever each asks: the others wait, and say so.

    Each then finds what the others were answered, and knows what they have spent on its questions. On a disk without locks nobody
    waits.
    """

    def say() -> None:
        if model.digest not in spending.waited_for:
            spending.waited_for.add(model.digest)
            log.warning(
                "note: another run is asking `%s`; waiting for it, so that no answer is paid for twice%s", model.ref, FREE_HINT
            )

    with whole_files.alone(store.path.with_name(model.digest), locks=store.path.with_name("locks"), waiting=say):
        yield


@contextmanager
def _lost_calls_counted(model: Responder, store: AnswerStore, spending: Spending) -> Iterator[None]:
    """While it is asked, a server's calls that may be billed and bring no answer are counted in the store, by who made them.

    So are those that are still under way at the end, for whoever pressed Ctrl-C waits for them only so long.
    """
    if not isinstance(model.engine, RemoteEngine):
        yield
        return
    calls = model.engine.calls
    before, calls.on_lost = calls.on_lost, functools.partial(_count_lost, model, store, spending)
    try:
        yield
    finally:
        try:
            calls.abandon()
        finally:
            calls.on_lost = before


def _count_lost(model: Responder, store: AnswerStore, spending: Spending, request: Request, *, is_told: bool = False) -> None:
    """One more call that may be billed and brought nothing that is kept; see `Spending.count_lost`."""
    store.count_lost(model.digest, request)
    spending.count_lost(model, request, is_told=is_told)


def notes_of(model: Responder, store: AnswerStore, *, num_reused: int) -> tuple[str, ...]:
    """What has to be known about a model's answers; where some were stored before, also what its server refused then."""
    before = store.notes(model.digest) if num_reused else ()
    return tuple(dict.fromkeys((*before, *model.notes)))


def _save_notes(model: Responder, store: AnswerStore) -> None:
    if isinstance(model.engine, RemoteEngine) and model.notes:
        store.save_notes(model.digest, model.notes)


def kept_scores(
    digest: str, questions: Iterable[Question], store: AnswerStore, *, max_unread: float = 0.0
) -> dict[Question, ChoiceScores]:
    """The likelihoods that are in the store under this digest, by their question; not those with more unread than `max_unread`."""
    looked_up = ((question, store.choice_scores(digest, *question)) for question in dict.fromkeys(questions))
    return {question: scores for question, scores in looked_up if scores is not None and _is_read(scores, max_unread)}


def _is_read(scored: ChoiceScores, max_unread: float) -> bool:
    return matching.unread_share(scored.scores) <= max_unread * (1 + 1e-9)  # the same sum in another order


def collect_scores(
    model: Responder,
    questions: Sequence[Question],
    *,
    store: AnswerStore,
    max_unread: float = 0.0,
    concurrency: int = DEFAULT_CONCURRENCY,
    kept: Mapping[Question, ChoiceScores] | None = None,
    show: Callable[[int], None] = lambda _num_open: None,
) -> list[ChoiceScores | ContextExceededError]:
    """The likelihoods of each question's choices, or why there are none: they are longer than the model's context.

    `max_unread`: how much of many choices may stay unread, see `Engine.timed_scores`. What is kept with more unread is read anew, and
    replaced. `kept`: what `kept_scores` has found of them, where the caller has asked it. `show` is told how many are still open.
    Raises UnsupportedError for a model that gives no likelihoods.
    """
    found = kept_scores(model.scores_digest, questions, store, max_unread=max_unread) if kept is None else kept
    results: dict[Question, ChoiceScores | ContextExceededError] = {**found}
    pending = [question for question in dict.fromkeys(questions) if question not in found]
    show(len(pending))

    def work(question: Question, left: threading.Event) -> ChoiceScores | ContextExceededError:
        since = store.choice_scores(model.scores_digest, *question)
        if since is not None and _is_read(since, max_unread):  # by another run
            return since
        try:
            scored = model.engine.timed_scores(*question, max_unread=max_unread, stop=left)
        except ContextExceededError as error:
            return error
        store.save_choice_scores(model.scores_digest, *question, scored, replace=since is not None)
        return scored

    pending.sort(key=_length, reverse=True)  # stable: what the long ones begin with alike is read once where they follow one another
    for done, (index, result) in enumerate(model.run_many(work, pending, concurrency=concurrency), start=1):
        results[pending[index]] = result
        show(len(pending) - done)
    return [results[question] for question in questions]


def _length(question: Question) -> int:
    """In bytes, about, up to `SHORT_BYTES`: short questions of one length are read together."""
    request, _ = question
    texts = (request.prompt or "", *(message.content for message in request.messages))
    return min(SHORT_BYTES, sum(len(text.encode()) for text in texts))


def failure_of(before: NomoatError | None, collected: Collected) -> NomoatError | None:
    """Of what is asked in several parts: the first failure, or what ends all, such as the budget's end, whatever failed before."""
    return collected.failure if before is None or collected.is_over else before


def count_earlier(
    model: Responder, requests: Sequence[Request], *, store: AnswerStore, spending: Spending,
    answers: Mapping[Request, Completion] | None = None, any_room: bool = False,
) -> None:  # fmt: skip
    """Count what earlier tries at these cost: `collect` does, and who asks in several parts does it before the first, of all of them.

    `answers`: those of them that are in the store, where the caller has looked.

    A budget is for the questions, not for one try at them: what stored answers cost counts, each once in a run, those too that a lower
    limit gave, and with `any_room` a higher one. So does the most that calls can have cost whose answer was lost; those of this run,
    its meter counts.
    """
    pricing = spending.pricing(model)
    rates = pricing.rates
    if spending.budget is None or rates is None:
        return
    asked = set(requests)
    limits = store.limits(model.digest)
    for request in (tried for one in requests for tried in (*with_other_room(one, limits, any_room=any_room), one)):
        if (model.digest, request) not in spending.paid:
            answer = answers.get(request) if answers is not None and request in asked else store.answer(model.digest, request)
            if answer is not None:
                spending.paid.add((model.digest, request))
                spending.budget.count(pricing.billed_usd(request, answer) or 0.0)
        if isinstance(model.engine, RemoteEngine):
            num_lost = store.num_lost(model.digest, request)
            num_known = spending.lost[model.digest, request]
            if num_lost > num_known:  # fewer, where somebody removed answers meanwhile: what is spent stays spent
                spending.budget.count((num_lost - num_known) * rates.most_usd(request))
                spending.lost[model.digest, request] = num_lost


def _ask(
    model: Responder,
    pending: list[Request],
    collected: Collected,
    *,
    store: AnswerStore,
    spending: Spending,
    concurrency: int,
    show: Callable[[int], None],
    in_a_row: FailuresInARow,
    takes_part: bool,
) -> None:
    unkept = _Unkept(functools.partial(_count_lost, model, store, spending, is_told=True))
    takes_money = spending.may_cost(model)

    def work(request: Request, caller_left: threading.Event) -> Completion | NomoatError:
        if not takes_money:  # else `_no_other_pays`
            _look(model, (request,), collected, store)
            if request in collected.answers:  # another run has asked it since
                return collected.answers[request]
        if isinstance(model.engine, RemoteEngine):
            system_errors.require_free_disk(store.path.parent, FREE_DISK_BYTES)
        try:
            completion = model.complete(request, caller_left=caller_left)
        except TOO_LONG as error:
            return error
        except BudgetReachedError as error:
            collected.ended.append(error)  # here: of several threads that it ends, only the first one's error is raised
            raise
        except RemoteError as error:
            if _ends_all(error) or in_a_row.failed() >= MAX_FAILURES_IN_A_ROW:
                collected.ended.append(error)
                raise
            return error
        with unkept.noted(model, request, completion):
            is_first = store.save_answer(model.digest, request, completion, is_paid=takes_money, replace=request in collected.cut)
        in_a_row.went_well()
        if is_first:
            spending.count_answer(model, request, completion)
            return completion
        if takes_money:  # on a disk without locks another run was faster: its answer stays, and both are paid for
            _count_lost(model, store, spending, request)
            count_earlier(model, (request,), store=store, spending=spending)
        return store.answer(model.digest, request) or completion

    try:
        for done, (index, result) in enumerate(
            model.run_many(work, pending, concurrency=concurrency, is_free=not takes_money), start=1
        ):  # a variable would keep it from its end, and so from what it waits for, until this has ended
            if isinstance(result, NomoatError):
                collected.failed[pending[index]] = result
                collected.failure = collected.failure or result
            else:
                collected.answers[pending[index]] = result
            show(len(pending) - done)
    except NomoatError as error:
        unkept.tell(spending.pricing(model), error)
        if not isinstance(error, BudgetReachedError) and not (takes_part and isinstance(error, RemoteError)):
            raise
        collected.failure, collected.is_over = error, True
    except BaseException as error:
        unkept.note(spending.pricing(model), error)
        raise


def _ends_all(error: RemoteError) -> bool:
    """Whether no other question will fare better: nothing is left to pay with, say, or the server wants us away for long."""
    is_hopeless = error.status in HOPELESS or error.code in QUOTA_CODES or (error.wait_seconds or 0.0) > LONGEST_ASKED_WAIT_SECONDS
    return is_hopeless and not is_of_what_was_asked(error)


class _Unkept:
    """Answers that came from a server and could not be written down: paid for, and asked for again by the next run."""

    def __init__(self, count_lost: Callable[[Request], None]) -> None:
        self._count_lost = count_lost
        self._answers: list[tuple[Request, Completion, NomoatError]] = []

    @contextmanager
    def noted(self, model: Responder, request: Request, completion: Completion) -> Iterator[None]:
        """Around saving one. Where that fails, its call is counted as lost if at least that, which is shorter, can be kept."""
        try:
            yield
        except NomoatError as error:
            if isinstance(model.engine, RemoteEngine):
                self._answers.append((request, completion, error))
                with suppress(NomoatError):
                    self._count_lost(request)
            raise

    def tell(self, pricing: Pricing, cause: NomoatError) -> None:
        """Raise why they could not be kept, with how many they are and what they cost; nothing if there are none."""
        if said := self._said(pricing):
            why = self._answers[0][2]
            raise type(why)(said, hint=why.hint) from cause

    def note(self, pricing: Pricing, error: BaseException) -> None:
        """Say the same in a note (PEP 678) on what is no error of ours, such as Ctrl-C."""
        if said := self._said(pricing):
            error.add_note(f"note: {said}")

    def _said(self, pricing: Pricing) -> str:
        if not self._answers:
            return ""
        bills = [usd for request, answer, _ in self._answers if (usd := pricing.billed_usd(request, answer)) is not None]
        cost = f", which cost {dollars(sum(bills))}" if bills else ""
        return f"{self._answers[0][2].message}; {counted(len(self._answers), 'answer')} came and could not be kept{cost}"


class FailuresInARow:
    """A model's failures since its last success, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num = 0

    def failed(self) -> int:
        """One more; how many there are now."""
        with self._lock:
            self._num += 1
            return self._num

    def went_well(self) -> None:
        """A success: the row has ended."""
        with self._lock:
            self._num = 0
