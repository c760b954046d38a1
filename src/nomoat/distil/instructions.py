"""Self-instruct as Alpaca did it: a teacher is shown a few seed tasks and asked for more; what is new and well formed is kept.

What request number N shows is drawn from the seeds alone, by the seed and N. So the same command asks the same again, whatever was
answered before: stored answers are found, and a run that was stopped goes on where it was.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nomoat import paths
from nomoat.asking.answers import TOO_LONG, Collected, collect, count_earlier, failure_of
from nomoat.asking.spending import Spending
from nomoat.asking.spent import Spent
from nomoat.asking.store import AnswerStore
from nomoat.distil.filters import Novelty, reason_to_drop
from nomoat.distil.prompts import Task, parse_tasks, render_example, render_request
from nomoat.errors import BudgetReachedError, DataError, NomoatError
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.progress import Progress
from nomoat.records import Completion, Message, Request
from nomoat.responder import Responder
from nomoat.textfiles import read_jsonl
from nomoat.words import counted

SEEDS = "alpaca-seeds"
SEEDS_FILE = "seed_tasks.jsonl"
EXAMPLES_A_REQUEST = 3
TOKENS_A_TASK = 200
PATIENCE = 5  # asked at most so many times as often as would do if every task were kept
MOST_REQUESTS = 100_000  # unless the plan names more
MAX_VAIN_WAVES = 3  # so many times in a row nothing was answered, and something refused
NOT_NEW = "like one before"
CUT_OFF = "cut off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """The tasks that are shown to the teacher. `sha256` is of their file."""

    name: str
    sha256: str
    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked. `max_requests` None is five times as many as would do if every task were kept, and 100,000 at most."""

    seeds: Seeds
    num_tasks: int = 100
    tasks_a_request: int = 10
    max_requests: int | None = None
    temperature: float = 0.7
    seed: int = 0
    language: str | None = None

    def most_requests(self) -> int:
        """More are not made."""
        return self.max_requests or min(MOST_REQUESTS, PATIENCE * math.ceil(self.num_tasks / self.tasks_a_request))

    def requests(self) -> Iterator[Request]:
        """All that is asked at most, each made when it is wanted."""
        return map(self.request, range(self.most_requests()))

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
            max_new_tokens=TOKENS_A_TASK * self.tasks_a_request,
            temperature=self.temperature,
            seed=self.seed + number,
        )

    def asked_before(self, store: AnswerStore, teacher: Responder) -> list[Request]:
        """Those of `requests` that this teacher has answered, or may have."""
        seeds = range(self.seed, self.seed + self.most_requests())
        return store.asked_before(teacher.digest, seeds, lambda seed: self.request(seed - self.seed))

    def settings(self) -> dict[str, Any]:
        """What decides which tasks come out, but for their number."""
        return {
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

    `partial`: why there are fewer than asked for; empty if there are not.
    """

    tasks: list[Task] = field(default_factory=list)
    num_offered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    spent: Spent
    partial: str = ""


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

    They are fewer than the plan's where the budget is used up, where requests failed, or where the teacher says little that is new.
    They depend neither on `concurrency` nor on the number of the teacher's workers, as far as its answers do not.
    Raises what no further request would fare better with, and the failure if nothing was answered at all.
    """
    spending = Spending() if spending is None else spending
    found = Distilled(spent=Spent(pricing=spending.pricing(teacher)))
    novelty = Novelty(task.instruction for task in plan.seeds.tasks)
    earlier = [] if spending.budget is None else plan.asked_before(store, teacher)
    count_earlier(teacher, earlier, store=store, spending=spending)
    to_ask, asked = plan.requests(), set[Request]()
    num_vain, failure = 0, None
    with spending.told():
        while len(found.tasks) < plan.num_tasks and num_vain < MAX_VAIN_WAVES:
            missing = math.ceil((plan.num_tasks - len(found.tasks)) / plan.tasks_a_request)
            at_once = min(missing, concurrency * teacher.num_workers)
            is_over = isinstance(failure, BudgetReachedError)  # nothing is asked any more; what is stored behind it was paid for
            wave = [request for request in earlier if request not in asked] if is_over else list(itertools.islice(to_ask, at_once))
            if not wave:
                break
            asked.update(wave)
            waiting = deque(wave)

            def read_in_order(_num_open: int, waiting: deque[Request] = waiting) -> None:
                """What was kept depends on the order of the requests, not on which answer came first."""
                while waiting and (answer := store.answer(teacher.digest, waiting[0])) is not None:
                    _sort(answer, plan, novelty, found)
                    waiting.popleft()
                progress(len(found.tasks), plan.num_tasks)

            collected = collect(teacher, wave, store=store, spending=spending, concurrency=concurrency, show=read_in_order)
            found.spent.add(collected)
            failure = failure_of(failure, collected.failure)
            for request in waiting:  # behind one that failed
                if request in collected.answers:
                    _sort(collected.answers[request], plan, novelty, found)
            is_vain = not collected.answers and not isinstance(failure, BudgetReachedError) and _was_refused(collected)
            num_vain = num_vain + 1 if is_vain else 0
        if failure is not None and not found.spent.num_answers:
            raise failure
    if len(found.tasks) < plan.num_tasks:
        has_ended_all = isinstance(failure, BudgetReachedError) or num_vain == MAX_VAIN_WAVES
        found.partial = failure.message if failure is not None and has_ended_all else _limit_reached(found, plan, failure)
    return found


def _was_refused(collected: Collected) -> bool:
    """Whether something failed for another reason than its length, which says nothing of the requests to come."""
    return any(not isinstance(error, TOO_LONG) for error in collected.failed.values())


def _sort(answer: Completion, plan: Plan, novelty: Novelty, found: Distilled) -> None:
    """Keep what is good of an answer, and count the rest by reason.

    Once there are enough, nothing is looked at: how much is left over depends on how many were asked at once.
    """
    is_cut = answer.finish_reason != "stop"
    tasks = parse_tasks(answer.text, is_cut=is_cut)
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


def _limit_reached(found: Distilled, plan: Plan, failure: NomoatError | None) -> str:
    failed = "" if failure is None else f"; {found.spent.num_failed:,} failed: {failure.message}"
    return (
        f"the limit of {counted(plan.most_requests(), 'request')} is reached: {counted(found.spent.num_answers, 'answer')} held "
        f"{counted(found.num_offered, 'task')}, and {len(found.tasks):,} of them were kept{failed}"
    )


def as_rows(tasks: Sequence[Task]) -> list[dict[str, str]]:
    """Tasks as Alpaca's files hold them."""
    return [asdict(task) for task in tasks]
