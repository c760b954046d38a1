"""New tasks from a teacher on a real server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from misbehaving import Act, Server, counted, events, piece, priced, say
from patience import PATIENCE_SECONDS
from teaching import COMPLETION_TOKENS, PROMPT_TOKENS, task_text, write_tasks

from nomoat.asking.store import AnswerStore
from nomoat.catalog.datasets import SEEDS, pull_dataset
from nomoat.distil.instructions import SEEDS_FILE, Distilled, Plan, Seeds, distil, read_seeds
from nomoat.distil.prompts import Task
from nomoat.engine.fake import FakeEngine
from nomoat.errors import CacheExceededError, DataError, RemoteError
from nomoat.money import dollars
from nomoat.records import Chunk, Request, Usage
from nomoat.responder import Responder, load

Serving = Callable[..., Server]
TASKS = tuple(Task(instruction=f"Name {word} birds of a kind", input="", output="wren") for word in ("two", "three", "four"))
PLAN = Plan(seeds=Seeds(name="seeds.jsonl", sha256="0" * 64, tasks=TASKS), num_tasks=20)


def taught(server: Server, plan: Plan = PLAN, **options: object) -> Distilled:
    with load(f"{server.url}#m") as teacher, AnswerStore() as store:
        return distil(teacher, plan, store=store, **options)  # type: ignore[arg-type]


def test_good_tasks_are_kept_and_the_others_counted_by_reason(serving: Serving) -> None:
    found = taught(serving(write_tasks))
    assert len(found.tasks) == 20
    assert len({task.instruction for task in found.tasks}) == 20
    assert all(
        task.instruction.startswith("Explain ") and task.output.startswith("Because ") and not task.input for task in found.tasks
    )
    assert found.spent.num_answers == 3  # seven good ones an answer
    assert found.dropped == {"like one before": 2, "about images, sound or files": 2, "no answer": 2}  # in two whole answers
    assert (found.num_offered, found.partial) == (26, "")


def test_requests_do_not_depend_on_what_was_answered_so_nothing_is_asked_twice(serving: Serving) -> None:
    server = serving(write_tasks)
    few = taught(server, Plan(seeds=PLAN.seeds, num_tasks=5), concurrency=1)
    assert len(server.bodies) == 1
    many = taught(server, concurrency=7)
    assert many.tasks[:5] == few.tasks
    assert len(server.bodies) == 3
    assert taught(server, concurrency=2).tasks == many.tasks
    assert len(server.bodies) == 3


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_off_loses_its_last_task(serving: Serving, reason: str) -> None:
    text = "4. Instruction: Explain the tides of the sea\nOutput: The moon.\n5. Instruction: Explain how a mill works\nOutput: It tur"
    found = taught(serving(events(piece(text, reason))), Plan(seeds=PLAN.seeds, num_tasks=2, max_requests=1))
    assert [task.instruction for task in found.tasks] == ["Explain the tides of the sea"]
    assert found.dropped == {"cut off": 1}


@pytest.mark.parametrize("rest", ["", ',\n{"instruction": "Explain how a mill wo'])
def test_objects_before_a_cut_are_whole(serving: Serving, rest: str) -> None:
    whole = [{"instruction": f"Explain the {what} of the sea", "output": "So."} for what in ("old tides", "salty taste and green hue")]
    text = "[" + ",\n".join(json.dumps(one) for one in whole) + rest
    found = taught(serving(events(piece(text, "length"))), Plan(seeds=PLAN.seeds, num_tasks=3, max_requests=1))
    assert [task.instruction for task in found.tasks] == [one["instruction"] for one in whole]
    assert found.dropped == {"cut off": 1}


def test_a_teacher_that_repeats_itself_is_not_asked_for_ever(serving: Serving) -> None:
    server = serving(counted("4. Instruction: Explain the tides of the sea\nOutput: The moon.", 1, 1))
    found = taught(server)
    assert len(server.bodies) == 10  # five times the two that could have done
    assert found.partial == "the limit of 10 requests is reached: 10 answers held 10 tasks, and 1 of them were kept"


def cut_at(limit: int, but: Callable[[int], bool] = lambda _seed: False) -> Act:
    """A teacher that thinks for `limit` tokens, which nobody sees, but for some seeds. What is cut off costs as much as it could."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        body = handler.body  # type: ignore[attr-defined]
        room = body["max_tokens"]
        if room > limit or but(body["seed"]):
            write_tasks(handler)
        else:
            usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": room}
            events(piece(None, "length"), {"choices": [], "usage": usage})(handler)

    return act


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_a_teacher_whose_first_answers_are_all_cut_off_before_a_task_is_not_asked_more(serving: Serving, concurrency: int) -> None:
    server, plan = serving(cut_at(2500)), replace(PLAN, num_tasks=500)
    found = taught(server, plan, concurrency=concurrency)
    assert (len(server.bodies), found.num_offered, found.in_vain) == (4, 0, {"cut off before a task was whole": 4})
    said = "4 answers held no whole task: all ended at the limit of 2,000 new tokens, thinking included, before one was whole"
    assert found.partial == said
    assert (taught(server, plan).partial, len(server.bodies)) == (said, 4)
    with_room = taught(server, replace(plan, max_tokens=3000))
    assert (len(with_room.tasks), with_room.partial) == (500, "")
    assert {body["max_tokens"] for body in server.bodies[4:]} == {3000}


def test_an_answer_that_holds_but_a_part_of_one_task_is_one_in_vain(serving: Serving) -> None:
    server = serving(events(piece("4. Instruction: Explain how a mill works\nOutput: It tur", "length")))
    found = taught(server, replace(PLAN, tasks_a_request=1, max_tokens=9))
    assert (len(server.bodies), found.dropped, found.in_vain.total()) == (4, {"cut off": 4}, 4)
    assert "the limit of 9 new tokens" in found.partial


def test_a_teacher_that_offers_no_tasks_is_not_asked_more_and_its_words_are_said(serving: Serving) -> None:
    server = serving(counted("<think>No.</think>I'm sorry,\nbut I cannot help with that.", 9, 9))
    found = taught(server, concurrency=1)
    assert (len(server.bodies), found.in_vain, found.without_task) == (
        4, {"without a task": 4}, "I'm sorry, but I cannot help with that.",
    )  # fmt: skip
    assert found.partial == "4 answers held no whole task; one begins `I'm sorry, but I cannot help with that.`"
    silent = taught(serving(counted("", 9, 0)), concurrency=1)
    assert silent.partial == "4 answers held no whole task: 4 with nothing in them"


def test_a_teacher_that_lists_instructions_without_outputs_is_not_asked_more(serving: Serving) -> None:
    server = serving(counted("4. Instruction: Explain the tides of the sea\nOutput:\n5. Instruction: Tell how a mill works", 9, 9))
    found = taught(server, replace(PLAN, num_tasks=500))
    assert (len(server.bodies), found.dropped, found.in_vain) == (4, {"no answer": 8}, {"without a task": 4})
    assert found.partial.startswith("4 answers held no whole task; one begins `4. Instruction: Explain the tides")


def test_a_teacher_that_offers_a_task_in_time_is_asked_on_though_most_answers_hold_none(serving: Serving) -> None:
    found = taught(serving(cut_at(2500, but=lambda seed: seed % 4 == 3)), replace(PLAN, num_tasks=30), concurrency=1)
    assert found.in_vain == {"cut off before a task was whole": 12}  # of 15 requests, of which three would do
    assert len(found.tasks) == 21
    assert found.partial.startswith("the limit of 15 requests is reached")


def test_more_room_is_for_what_was_cut_off_and_the_bill_holds_what_that_cost_before(serving: Serving) -> None:
    """An answer costs $1.30, one that was cut off $4.70."""
    server, plan = serving(cut_at(2500, but=lambda seed: seed % 4 == 2)), replace(PLAN, num_tasks=30, max_requests=4)
    before = taught(server, plan, spending=priced(), concurrency=1)
    assert (before.spent.cost_usd, len(server.bodies)) == (pytest.approx(3 * 4.7 + REAL_USD), 4)
    more = taught(server, replace(plan, max_tokens=3000), spending=priced())
    assert sorted(body["seed"] for body in server.bodies[4:]) == [0, 1, 3]
    assert (more.spent.cost_usd, more.spent.num_answers) == (pytest.approx(3 * 4.7 + 4 * REAL_USD), 4)
    assert more.spent.earlier_usd == pytest.approx([4.7] * 3)
    spending = priced(20.0)
    again = taught(server, replace(plan, max_tokens=3000, max_requests=9, num_tasks=60), spending=spending)
    assert again.partial.startswith("the budget of $20.00 is reached"), "3 x $4.70 and 4 x $1.30 leave no room for another"
    assert (again.tasks[: len(more.tasks)], len(server.bodies)) == (more.tasks, 7)


def test_what_more_room_cost_before_is_in_the_bill_and_in_the_budget(serving: Serving) -> None:
    """With room for 3,000 tokens an answer that was cut off cost $6.70, with 2,000 $4.70."""
    server = serving(cut_at(5000))
    for max_tokens, usd in ((3000, 4 * 6.7), (2000, 4 * 6.7 + 4 * 4.7)):
        spending = priced(100.0)
        found = taught(server, replace(PLAN, max_tokens=max_tokens), spending=spending)
        assert spending.budget is not None
        assert found.spent.cost_usd == pytest.approx(usd) == spending.budget.spent_usd
    assert found.spent.earlier_usd == pytest.approx([6.7] * 4)


def test_tasks_that_were_paid_for_are_read_though_the_first_answers_hold_none_and_more_are_asked_for(serving: Serving) -> None:
    """The first request fails once; with its answer, the first four hold none."""
    refusal, fine = say(451, {"error": {"message": "no"}}), counted("I cannot.", 9, 9)
    acts = {0: [refusal, fine], **{seed: [fine] for seed in (1, 2, 3)}}

    def act(handler: BaseHTTPRequestHandler) -> None:
        left = acts.get(handler.body["seed"], [write_tasks])  # type: ignore[attr-defined]
        (left[0] if len(left) == 1 else left.pop(0))(handler)

    server = serving(act)
    first = taught(server, replace(PLAN, num_tasks=60), concurrency=1)
    assert (len(first.tasks), first.spent.num_failed, first.in_vain.total(), len(server.bodies)) == (60, 1, 3, 13)
    again = taught(server, replace(PLAN, num_tasks=70), concurrency=1)
    assert (again.tasks[:60], len(again.tasks), again.partial, again.in_vain.total()) == (first.tasks, 70, "", 4)
    assert [body["seed"] for body in server.bodies[13:]] == [0, 13]


class Fills(FakeEngine):
    """A teacher that thinks until its context is full, unless that holds 1,500 tokens beside the question. Counts what it is asked."""

    num_asked = 0

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.num_asked += 1
        read = self.count_tokens(request)
        room = (self.context_tokens or 0) - read
        is_whole = room > 1500
        usage = Usage(prompt_tokens=read, completion_tokens=300 if is_whole else room, prefill_seconds=0.0, decode_seconds=0.0)
        yield Chunk(text="".join(task_text(at, request.seed or 0) for at in range(4, 14)) if is_whole else "<think>hm")
        yield Chunk(text="", finish_reason="stop" if is_whole else "length", usage=usage)


def test_a_context_that_ended_the_answers_is_named_and_with_a_longer_one_they_are_asked_for_and_read_at_once() -> None:
    short, long = Fills(context_tokens=1024), Fills(context_tokens=4096)
    with AnswerStore() as store:
        found = distil(Responder("m", short), PLAN, store=store)
        assert (short.num_asked, found.in_vain) == (4, {"cut off by the teacher's context before a task was whole": 4})
        assert found.partial == (
            "4 answers held no whole task: all ended where the teacher's context of 1,024 tokens was full, before one was whole"
        )
        more = distil(Responder("m", long), PLAN, store=store)
        assert (long.num_asked, len(more.tasks), more.partial, more.in_vain) == (2, 20, "", {})
        assert (distil(Responder("m", long), PLAN, store=store).tasks, long.num_asked) == (more.tasks, 2)


NO_CREDIT = say(402, {"error": {"message": "no credit"}})


@pytest.mark.parametrize("concurrency", [1, 2, 16])
@pytest.mark.parametrize("refusal", [NO_CREDIT, say(429, {"error": {"code": "insufficient_quota"}})])
def test_credit_that_ends_leaves_what_was_paid_for(serving: Serving, concurrency: int, refusal: Act) -> None:
    server = serving(write_tasks, write_tasks, write_tasks, refusal)
    found = taught(server, replace(PLAN, num_tasks=200), concurrency=concurrency)
    assert (found.spent.num_answers, found.num_offered, len(found.tasks) > 15) == (3, 30, True)
    assert found.partial.startswith("`127.0.0.1` answered 4")
    assert found.hint.endswith("look at the account")
    assert len(server.bodies) <= 3 + concurrency


def test_a_server_that_wants_us_away_for_a_day_is_asked_nothing_more(serving: Serving) -> None:
    away = say(429, {"error": {"message": "daily limit"}}, headers={"retry-after": "86400"})
    server = serving(write_tasks, away)
    found = taught(server, replace(PLAN, num_tasks=200), concurrency=1)
    assert (len(server.bodies), found.hint) == (2, "the server asks to wait for 1,440 minutes")


def test_answers_behind_the_end_of_the_credit_are_read_too(serving: Serving) -> None:
    acts = [say(400, {"error": {"message": "no"}}), *[write_tasks] * 9]

    def act(handler: BaseHTTPRequestHandler) -> None:
        (acts.pop(0) if acts else NO_CREDIT)(handler)

    server = serving(act)
    first = taught(server, replace(PLAN, num_tasks=30), concurrency=1)
    assert (len(first.tasks), first.partial) == (30, "")
    acts.clear()
    found = taught(server, replace(PLAN, num_tasks=99), concurrency=1)
    assert (found.tasks[:30], found.partial) == (first.tasks, "`127.0.0.1` answered 402: no credit")


def test_how_long_to_think_is_told_and_changes_what_is_asked(serving: Serving) -> None:
    server = serving(write_tasks)
    for effort in (None, "low"):
        taught(server, replace(PLAN, num_tasks=5, reasoning_effort=effort))
    assert [body.get("reasoning_effort") for body in server.bodies] == [None, "low"]
    assert replace(PLAN, reasoning_effort="low").settings() == PLAN.settings() | {"reasoning_effort": "low"}


def test_requests_are_bounded_however_many_tasks_are_asked_for_unless_the_plan_says_more() -> None:
    assert replace(PLAN, num_tasks=10**11).most_requests() == 100_000
    assert replace(PLAN, num_tasks=10**11, max_requests=200_000).most_requests() == 200_000


# An answer costs $1.30, and could have cost more than $5.
REAL_USD = (PROMPT_TOKENS + 2 * COMPLETION_TOKENS) / 1000


def test_budget_holds_and_counts_what_was_stored_before(serving: Serving) -> None:
    server = serving(write_tasks)
    real = REAL_USD
    most = 7.0  # more than one request can cost, less than two
    found = taught(server, spending=priced(most))
    assert found.spent.cost_usd == pytest.approx(real * len(server.bodies))
    assert 0 < real * len(server.bodies) <= most
    assert found.partial.startswith(f"the budget of {dollars(most)} is reached")
    assert 0 < len(found.tasks) < 20
    asked = len(server.bodies)
    assert taught(server, spending=priced(most)).tasks == found.tasks
    assert len(server.bodies) == asked
    assert len(taught(server, spending=priced(100.0)).tasks) == 20
    assert len(server.bodies) == 3


def test_budget_counts_answers_behind_a_request_that_has_none_and_they_are_read(serving: Serving) -> None:
    """The first request failed, and the others cost more than $13: $7 have no room to ask it again."""
    server = serving(say(400, {"error": {"message": "no"}}), write_tasks)
    plan = Plan(seeds=PLAN.seeds, num_tasks=70)
    first = taught(server, plan, concurrency=1)
    asked = len(server.bodies)
    again = taught(server, plan, concurrency=1, spending=priced(7.0))
    assert len(server.bodies) == asked > 10
    assert (again.tasks, again.partial) == (first.tasks, "")
    assert again.spent.cost_usd == pytest.approx((asked - 1) * REAL_USD)


def test_money_that_ends_a_run_is_named_though_a_request_failed_before(serving: Serving) -> None:
    server = serving(say(400, {"error": {"message": "no"}}), write_tasks)
    found = taught(server, concurrency=1, spending=priced(7.0))
    assert found.partial.startswith("the budget of $7.00 is reached")
    assert (found.spent.num_failed, 0 < len(found.tasks) < 20) == (1, True)


def test_a_seed_too_long_for_the_teacher_costs_the_requests_that_show_it_and_no_others() -> None:
    long = Task(instruction="Shorten the text", input="word " * 5000, output="word")
    tasks = tuple(Task(instruction=f"Name bird number {at}", input="", output="wren") for at in range(9))
    plan = Plan(seeds=Seeds(name="seeds.jsonl", sha256="0" * 64, tasks=(*tasks, long)))
    requests = [plan.request(number) for number in range(plan.most_requests())]
    fitting = [request for request in requests if "word word" not in request.messages[0].content]
    assert 0 < len(fitting) < len(requests)
    answers = {request.messages[0].content: task_text(at, seed=at) for at, request in enumerate(fitting)}
    with AnswerStore() as store:
        found = distil(Responder("short", FakeEngine(answers=answers)), plan, store=store)
    assert (found.spent.num_answers, found.spent.num_failed) == (len(fitting), len(requests) - len(fitting))
    assert len(found.tasks) > 20
    assert found.partial.startswith(f"the limit of {len(requests)} requests is reached: {len(fitting)} answers held ")
    assert f" were kept; {len(requests) - len(fitting)} failed: the prompt is too long: it has 5," in found.partial


def test_requests_too_long_for_the_cache_do_not_end_a_run() -> None:
    class Short(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            if request.seed != 7:
                raise CacheExceededError("no room")
            return super().generate(request)

    plan = Plan(seeds=PLAN.seeds, num_tasks=2, max_requests=8)
    last = plan.request(7).messages[0].content
    with AnswerStore() as store:
        found = distil(
            Responder("short", Short(answers={last: task_text(4, seed=0) + task_text(5, seed=0)})), plan, store=store, concurrency=1
        )
    assert (found.spent.num_answers, found.spent.num_failed, len(found.tasks)) == (1, 7, 2)


class Several(FakeEngine):
    """A model on so many workers."""

    def __init__(self, num_workers: int, answers: dict[str, str]) -> None:
        super().__init__(answers=answers)
        self._num_workers = num_workers

    @property
    def num_workers(self) -> int:
        return self._num_workers


def test_tasks_and_counts_depend_neither_on_the_number_of_workers_nor_on_how_many_are_asked_at_once(tmp_path: Path) -> None:
    """Most requests show a seed that is too long, so that many in a row have no answer; each answer says one task twice."""
    long = [Task(instruction=f"Shorten text {at}", input="word " * 5000, output="word") for at in range(3)]
    plan = Plan(seeds=Seeds(name="seeds.jsonl", sha256="0" * 64, tasks=(*TASKS, *long)), num_tasks=3, max_requests=200)
    texts = [plan.request(number).messages[0].content for number in range(200)]
    answers = {text: task_text(4, seed=at) * 2 + task_text(5, seed=at) for at, text in enumerate(texts) if "word word" not in text}
    found = []
    for num_workers, concurrency in ((1, 1), (1, 16), (2, 1), (3, 4)):
        with AnswerStore(tmp_path / f"{num_workers}-{concurrency}.sqlite") as store:
            found.append(distil(Responder("several", Several(num_workers, answers)), plan, store=store, concurrency=concurrency))
    assert [(one.tasks, one.num_offered, one.dropped, one.partial) for one in found[1:]] == [
        (found[0].tasks, 4, {"like one before": 1}, "")
    ] * 3
    assert len(found[0].tasks) == 3


def test_every_worker_is_asked_though_each_has_one_answer_in_the_making() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)

    class Waits(Several):
        def generate(self, request: Request) -> Iterator[Chunk]:
            both.wait()
            return super().generate(request)

    with AnswerStore() as store:
        distil(Responder("waits", Waits(2, {})), replace(PLAN, max_requests=2), store=store, concurrency=1)


def test_a_failed_request_costs_its_tasks_and_no_others(serving: Serving) -> None:
    server = serving(say(400, {"error": {"message": "no"}}), write_tasks)
    found = taught(server, concurrency=1)
    assert (len(found.tasks), found.partial, found.spent.num_failed) == (20, "", 1)


def test_a_server_that_always_refuses_is_left_alone(serving: Serving) -> None:
    server = serving(say(400, {"error": {"message": "no"}}))
    with pytest.raises(RemoteError, match="answered 400: no"):
        taught(server, concurrency=1)
    assert len(server.bodies) == 3


def test_a_teacher_nobody_may_ask_is_an_error(serving: Serving) -> None:
    with pytest.raises(RemoteError, match="401"):
        taught(serving(say(401, {"error": {"message": "bad key"}})))


def test_seeds_are_read_in_both_forms_and_bad_ones_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    rows = [
        {"instruction": "번역하세요", "input": "바다", "output": "sea"},
        {"id": 1, "instruction": "Add", "instances": [{"input": "1 1", "output": "2"}, {"input": "2 2", "output": "4"}]},
    ]
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    assert read_seeds(path).tasks == (
        Task(instruction="번역하세요", input="바다", output="sea"), Task(instruction="Add", input="1 1", output="2"),
    )  # fmt: skip
    path.write_text('{"instruction": "Add", "output": ""}\n')
    with pytest.raises(DataError) as caught:
        read_seeds(path)
    assert caught.value.message == f"`{path}`, line 1: `output` is ''"


@pytest.mark.data
def test_alpacas_seeds_are_all_read_and_each_request_shows_three_of_them(mirror: None) -> None:
    seeds = read_seeds(pull_dataset(SEEDS) / SEEDS_FILE, name=SEEDS)
    assert len(seeds.tasks) == 175
    plan = Plan(seeds=seeds)
    asked = [plan.request(number).messages[0].content for number in range(50)]
    assert len(set(asked)) == 50
    shown = [[task for task in seeds.tasks if f". Instruction: {task.instruction}\n" in text] for text in asked]
    assert {len(tasks) for tasks in shown} == {3}
