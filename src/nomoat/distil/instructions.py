"""Self-instruct as Alpaca did it: a teacher is shown a few seed tasks and asked for more; what is new and well formed is kept.

What request number N shows is drawn from the seeds alone, by the seed and N. So the same command asks the same again, whatever was
answered before: stored answers are found, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nomoat import matching, paths
from nomoat.asking.answers import TOO_LONG, Collected, collect, count_earlier, failure_of, kept_answer
from nomoat.asking.room import with_room
from nomoat.asking.spending import Spending
from nomoat.asking.spent import Spent
from nomoat.asking.store import AnswerStore
from nomoat.distil.filters import Novelty, reason_to_drop
from nomoat.distil.prompts import Task, parse_tasks, render_example, render_request
from nomoat.errors import DataError, NomoatError
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.progress import Progress
from nomoat.records import Completion, Effort, FinishReason, Message, Request, in_short
from nomoat.responder import Responder
from nomoat.textfiles import read_jsonl
from nomoat.words import counted

SEEDS_FILE = "seed_tasks.jsonl"
EXAMPLES_A_REQUEST = 3
TOKENS_A_TASK = 200
PATIENCE = 5  # asked at most so many times as often as would do if every task were kept
MOST_REQUESTS = 100_000  # unless the plan names more
MAX_VAIN_WAVES = 3  # so many times in a row nothing was answered, and something refused
FEW_IN_VAIN = 4  # answers, the first ones, none of which held a whole task: the others would hold none either
NOT_NEW = "like one before"
CUT_OFF = "cut off"
NO_TASK = "without a task"
EMPTY = "with nothing in them"
CONTEXT_FULL = "cut off by the teacher's context before a task was whole"
BEFORE_A_TASK: dict[FinishReason, str] = {
    "length": "cut off before a task was whole", "filtered": "stopped by a content filter before a task was whole",
}  # fmt: skip
FIRST_WORDS = 60  # characters of an answer without a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """The tasks that are shown to the teacher. `sha256` is of their file."""

    name: str
    sha256: str
    tasks: tuple[Task, ...]

    __repr__ = in_short


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked. `max_requests` None is five times as many as would do if every task were kept, and 100,000 at most.

    `max_tokens` is the longest answer, thinking included; None is 200 a task. `reasoning_effort`: how long to think before.
    """

    seeds: Seeds
    num_tasks: int = 100
    tasks_a_request: int = 10
    max_requests: int | None = None
    temperature: float = 0.7
    seed: int = 0
    language: str | None = None
    max_tokens: int | None = None
    reasoning_effort: Effort | None = None

    __repr__ = in_short

    def longest_answer(self) -> int:
        """In tokens."""
        return TOKENS_A_TASK * self.tasks_a_request if self.max_tokens is None else self.max_tokens

    def most_requests(self) -> int:
        """More are not made."""
        return self.max_requests or min(MOST_REQUESTS, PATIENCE * math.ceil(self.num_tasks / self.tasks_a_request))

    def requests(self, teacher: Responder, store: AnswerStore) -> Iterator[Request]:
        """All that is asked at most, each made when it is wanted. With more room than before, what is whole is not asked again."""
        return map(self._asking(teacher, store), range(self.most_requests()))

    def _asking(self, teacher: Responder, store: AnswerStore) -> Callable[[int], Request]:
        """What makes the request of a number for this teacher."""
        if self.max_tokens is None:
            return self.request
        room, limits = self.max_tokens, store.limits(teacher.digest)
        return lambda number: with_room(teacher, self.request(number), room, store=store, limits=limits)

    def parts(self) -> tuple[str, ...]:
        """What the requests are made of: their own words, and each seed as it is shown."""
        return (
            render_request((), self.tasks_a_request, language=self.language),
            *(render_example(1, task) for task in self.seeds.tasks),
        )

    def request(self, number: int) -> Request:
        """What is asked the `number`th time, counted from 0."""
        draw = random.Random(f"{self.seed} {number}")
        shown = draw.sample(self.seeds.tasks, min(EXAMPLES_A_REQUEST, len(self.seeds.tasks)))
        text = render_request(shown, self.tasks_a_request, language=self.language)
        return Request(
            messages=(Message(role="user", content=text),),
            max_new_tokens=self.longest_answer(),
            temperature=self.temperature,
            seed=self.seed + number,
            reasoning_effort=self.reasoning_effort,
        )

    def asked_before(self, store: AnswerStore, teacher: Responder) -> list[Request]:
        """Those of `requests` that this teacher has answered, or may have, with no more room than this; of `max_tokens`, with any."""
        most = self.longest_answer()
        limits = {*(limit for limit in store.limits(teacher.digest) if limit < most or self.max_tokens is not None), most}

        def with_any_room(seed: int) -> list[Request]:
            request = self.request(seed - self.seed)
            return [replace(request, max_new_tokens=limit) for limit in limits]

        return store.asked_before(teacher.digest, range(self.seed, self.seed + self.most_requests()), with_any_room)

    def answered(self, store: AnswerStore, teacher: Responder) -> list[Request]:
        """Those of `requests` whose answer is kept, and is not asked for again."""
        numbers = sorted({(request.seed or 0) - self.seed for request in self.asked_before(store, teacher)})
        requests = map(self._asking(teacher, store), numbers)
        return [request for request in requests if kept_answer(teacher, request, store) is not None]

    def settings(self) -> dict[str, Any]:
        """What decides which tasks come out, but for their number, and for how many of them had room."""
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return effort | {
            "seeds": self.seeds.name,
            "seeds_sha256": self.seeds.sha256,
            "tasks_a_request": self.tasks_a_request,
            "temperature": self.temperature,
            "seed": self.seed,
            "language": self.language,
        }


@dataclass(slots=True, kw_only=True)
class Distilled:
    """`num_offered` tasks were looked at, until there were enough; `dropped`: how many of them were not kept, by reason.

    `in_vain`: how many of the answers looked at held no whole task, by reason; `without_task`: the first words of one of those that
    were not cut off. `partial`: why there are fewer than asked for; empty if there are not. `hint`: what to do, where the failure that
    ended the asking says it. `context_tokens`: the teacher's, where it is known.
    """

    tasks: list[Task] = field(default_factory=list)
    num_offered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    in_vain: Counter[str] = field(default_factory=Counter)
    num_with_task: int = 0
    without_task: str = ""
    spent: Spent
    partial: str = ""
    hint: str = ""
    context_tokens: int | None = None

    __repr__ = in_short

    @property
    def is_in_vain(self) -> bool:
        """Whether so many answers, and all, held no whole task that no more are asked for, unless one that is kept already does."""
        return not self.num_with_task and self.in_vain.total() >= FEW_IN_VAIN

    def few_enough(self, most: int) -> int:
        """How many may be asked for at once: until a task has come, no more than tell whether any will."""
        return most if self.num_with_task else min(most, FEW_IN_VAIN - self.in_vain.total())


def read_seeds(path: Path, *, name: str | None = None) -> Seeds:
    """Tasks of a JSONL file: Alpaca's `instruction`, `input`, `output`, or self-instruct's `instances` of the last two.

    Raises DataError with the line of what is neither.
    """
    found = []
    for line, row in read_jsonl(path):
        instances = row.get("instances")
        first = instances[0] if isinstance(instances, list) and instances and isinstance(instances[0], dict) else row
        parts = {"instruction": row.get("instruction"), "input": first.get("input", ""), "output": first.get("output")}
        for part, value in parts.items():
            if not isinstance(value, str) or (part != "input" and not value.strip()):
                raise DataError(
                    f"`{path}`, line {line}: `{part}` is {value!r}", hint='a seed is {"instruction": ..., "input": ..., "output": ...}'
                )
        found.append(Task(**{part: str(value).strip() for part, value in parts.items()}))
    return Seeds(name=name or path.name, sha256=paths.sha256_of(path), tasks=tuple(found))


def distil(
    teacher: Responder,
    plan: Plan,
    *,
    store: AnswerStore,
    spending: Spending | None = None,
    concurrency: int = DEFAULT_CONCURRENCY,
    progress: Progress = lambda _done, _total: None,
) -> Distilled:
    """New tasks of this teacher; `progress` is told how many there are, of how many.

    They are fewer than the plan's where the budget is used up, where requests failed, where the teacher says little that is new, or
    where its first answers hold no task. They depend neither on `concurrency` nor on the number of the teacher's workers, as far as
    its answers do not.
    Raises the failure if nothing was answered at all, and what `collect` raises.
    """
    spending = Spending() if spending is None else spending
    found = Distilled(spent=Spent(pricing=spending.pricing(teacher)), context_tokens=teacher.engine.context_tokens)
    novelty = Novelty(task.instruction for task in plan.seeds.tasks)
    if spending.budget is not None:
        count_earlier(teacher, plan.asked_before(store, teacher), store=store, spending=spending)
    asked = dict[Request, None]()
    to_ask = (request for request in plan.requests(teacher, store) if request not in asked)
    num_vain, failure, is_over = 0, None, False
    with spending.told():
        while len(found.tasks) < plan.num_tasks and num_vain < MAX_VAIN_WAVES:
            missing = math.ceil((plan.num_tasks - len(found.tasks)) / plan.tasks_a_request)
            if is_over or found.is_in_vain:  # nothing is asked; what is stored behind was paid for
                wave = [request for request in plan.answered(store, teacher) if request not in asked]
            else:
                at_once = found.few_enough(min(missing, concurrency * teacher.num_workers))
                wave = list(itertools.islice(to_ask, at_once))
            if not wave:
                break
            asked.update(dict.fromkeys(wave))
            waiting = deque(wave)

            def read_in_order(_num_open: int, waiting: deque[Request] = waiting) -> None:
                """What was kept depends on the order of the requests, not on which answer came first."""
                while waiting and (answer := kept_answer(teacher, waiting[0], store)) is not None:
                    _sort(answer, plan, novelty, found)
                    waiting.popleft()
                progress(len(found.tasks), plan.num_tasks)

            collected = collect(
                teacher, wave, store=store, spending=spending, concurrency=concurrency, show=read_in_order, takes_part=True
            )
            found.spent.add(collected)
            failure = failure_of(failure, collected)
            is_over = is_over or collected.is_over
            for request in waiting:  # behind one that failed
                if request in collected.answers:
                    _sort(collected.answers[request], plan, novelty, found)
            is_vain = not collected.answers and not is_over and _was_refused(collected)
            num_vain = num_vain + 1 if is_vain else 0
        if failure is not None and not found.spent.num_answers:
            raise failure
    found.spent.add_earlier(teacher, asked, store=store, spending=spending, any_room=plan.max_tokens is not None)
    if len(found.tasks) < plan.num_tasks:
        found.partial, found.hint = _why_partial(found, plan, failure, has_ended_all=is_over or num_vain == MAX_VAIN_WAVES)
    return found


def _was_refused(collected: Collected) -> bool:
    """Whether something failed for another reason than its length, which says nothing of the requests to come."""
    return any(not isinstance(error, TOO_LONG) for error in collected.failed.values())


def _sort(answer: Completion, plan: Plan, novelty: Novelty, found: Distilled) -> None:
    """Keep what is good of an answer, and count the rest by reason.

    Once there are enough, nothing is looked at: how much is left over depends on how many were asked at once.
    """
    if len(found.tasks) == plan.num_tasks:
        return
    is_cut = answer.finish_reason != "stop"
    tasks = parse_tasks(answer.text, is_cut=is_cut)
    if any(task.instruction and task.output for task in (tasks[:-1] if is_cut else tasks)):
        found.num_with_task += 1
    else:
        words = " ".join(matching.without_draft(answer.text).split())[:FIRST_WORDS]
        is_short = found.context_tokens is not None and answer.usage.completion_tokens < plan.longest_answer()
        ended = CONTEXT_FULL if is_short and answer.finish_reason == "length" else BEFORE_A_TASK.get(answer.finish_reason)
        found.in_vain[ended or (NO_TASK if words else EMPTY)] += 1
        found.without_task = found.without_task or ("" if is_cut else words)
    for at, task in enumerate(tasks):
        if len(found.tasks) == plan.num_tasks:
            return
        found.num_offered += 1
        if is_cut and at == len(tasks) - 1:
            found.dropped[CUT_OFF] += 1
        elif (reason := reason_to_drop(task)) is not None:
            found.dropped[reason] += 1
        elif not novelty.is_new(task.instruction):
            found.dropped[NOT_NEW] += 1
        else:
            novelty.add(task.instruction)
            found.tasks.append(task)


def _why_partial(found: Distilled, plan: Plan, failure: NomoatError | None, *, has_ended_all: bool) -> tuple[str, str]:
    """Why there are fewer tasks than were asked for, and what to do where that is the failure's to say."""
    if found.is_in_vain or not (found.num_with_task or has_ended_all):
        return _held_nothing(found, plan), ""
    if failure is not None and has_ended_all:
        return failure.message, failure.hint or ""
    failed = "" if failure is None else f"; {found.spent.num_failed:,} failed: {failure.message}"
    said = (
        f"the limit of {counted(plan.most_requests(), 'request')} is reached: {counted(found.spent.num_answers, 'answer')} held "
        f"{counted(found.num_offered, 'task')}, and {len(found.tasks):,} of them were kept{failed}"
    )
    return said, ""


def _held_nothing(found: Distilled, plan: Plan) -> str:
    """That no answer held a whole task. What ended most of them is named, for who may give more room."""
    total, said = found.in_vain.total(), f"{counted(found.in_vain.total(), 'answer')} held no whole task"
    ends = {
        BEFORE_A_TASK["length"]: f"at the limit of {plan.longest_answer():,} new tokens, thinking included,",
        CONTEXT_FULL: f"where the teacher's context of {found.context_tokens or 0:,} tokens was full,",
    }
    for reason, end in ends.items():
        if 2 * (num_cut := found.in_vain[reason]) >= total:
            return f"{said}: {'all' if num_cut == total > 1 else f'{num_cut:,}'} ended {end} before one was whole"
    if found.without_task:
        return f"{said}; one begins `{found.without_task}`"
    return f"{said}: {', '.join(f'{count:,} {reason}' for reason, count in found.in_vain.most_common())}"


def as_rows(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """Tasks as Alpaca's files hold them."""
    return [asdict(task) for task in tasks]
