"""New tasks from a teacher on a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from misbehaving import Server, counted, say
from teaching import COMPLETION_TOKENS, PROMPT_TOKENS, write_tasks

from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.catalog.datasets import pull_dataset
from nomoat.distil.instructions import SEEDS, SEEDS_FILE, Distilled, Plan, Seeds, distil, read_seeds
from nomoat.distil.prompts import Task
from nomoat.errors import DataError, RemoteError
from nomoat.responder import load

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
    assert found.dropped == {"like one before": 3, "about images, sound or files": 3, "no answer": 3}
    assert (found.num_offered, found.partial) == (29, "")


def test_requests_do_not_depend_on_what_was_answered_so_nothing_is_asked_twice(serving: Serving) -> None:
    server = serving(write_tasks)
    few = taught(server, Plan(seeds=PLAN.seeds, num_tasks=5), concurrency=1)
    assert len(server.bodies) == 1
    many = taught(server, concurrency=7)
    assert many.tasks[:5] == few.tasks
    assert len(server.bodies) == 3
    assert taught(server, concurrency=2).tasks == many.tasks
    assert len(server.bodies) == 3


def test_an_answer_that_was_cut_off_loses_its_last_task(serving: Serving) -> None:
    from misbehaving import events, piece

    text = "4. Instruction: Explain the tides of the sea\nOutput: The moon.\n5. Instruction: Explain how a mill works\nOutput: It tur"
    found = taught(serving(events(piece(text, "length"))), Plan(seeds=PLAN.seeds, num_tasks=2, max_requests=1))
    assert [task.instruction for task in found.tasks] == ["Explain the tides of the sea"]
    assert found.dropped == {"cut off": 1}


def test_a_teacher_that_repeats_itself_is_not_asked_for_ever(serving: Serving) -> None:
    server = serving(counted("4. Instruction: Explain the tides of the sea\nOutput: The moon.", 1, 1))
    found = taught(server)
    assert len(server.bodies) == 10  # five times the two that could have done
    assert found.partial == "10 answers held 10 tasks, and 1 of them were kept; --max-requests allows more"


def test_budget_holds_and_counts_what_was_stored_before(serving: Serving) -> None:
    """A dollar for a thousand tokens in, two for a thousand out: an answer costs $1.30, and could have cost more than $5."""
    server = serving(write_tasks)

    def prices(max_cost_usd: float | None) -> Spending:
        return Spending(max_cost_usd=max_cost_usd, input_usd_per_million=1000.0, output_usd_per_million=2000.0)

    real = (PROMPT_TOKENS + 2 * COMPLETION_TOKENS) / 1000
    most = 7.0  # more than one request can cost, less than two
    found = taught(server, spending=prices(most))
    assert found.spent.cost_usd == pytest.approx(real * len(server.bodies))
    assert 0 < real * len(server.bodies) <= most
    assert found.partial.startswith(f"--max-cost ${most:,.4f} is reached")
    assert 0 < len(found.tasks) < 20
    asked = len(server.bodies)
    assert taught(server, spending=prices(most)).tasks == found.tasks
    assert len(server.bodies) == asked
    assert len(taught(server, spending=prices(100.0)).tasks) == 20
    assert len(server.bodies) == 3


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
