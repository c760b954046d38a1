"""One training on several workers: the weights of one process, whoever dies or presses Ctrl-C, and errors that name the machine."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import learning
import pytest
import shell
import torch
from learning import COLUMNS, facts_of, weights
from patience import PATIENCE_SECONDS, wait_until

from nomoat import commands, net, paths
from nomoat.asking import cluster as clusters
from nomoat.errors import MissingExtraError, UnknownModelError, UsageError, WorkerError
from nomoat.hardware import Detected
from nomoat.tune import adapter, data_parallel, execution, loop, prepare
from nomoat.tune.data_parallel import Part, Shares, Task
from nomoat.tune.samples import Sample

ray = pytest.importorskip("ray", reason="needs nomoat's `ray` extra")
pytestmark = pytest.mark.usefixtures("same_precision_everywhere")

SETTINGS = prepare.Settings(rank=4, epochs=2, learning_rate=5e-3, batch=8)  # 22 steps
SHORT = prepare.Settings(rank=4, epochs=0.5)
tune = functools.partial(learning.tune, settings=SETTINGS)
KEEPING = execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Texts of several lengths, whose label their first letter tells: batches have a rest."""
    path = tmp_path / "colours.csv"
    rows = (f"{'xyz'[n % 3]} {'long ' * (n % 5)}{n},{['red', 'green', 'light blue'][n % 3]}\n" for n in range(90))
    path.write_text("text,label\n" + "".join(rows))
    return path


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers, whose processes no test reaches, learn in that, too; the frozen layer is kept where all layers do not learn."""
    monkeypatch.setattr(data_parallel.Crew, "choose_plan", lambda crew, say: _plan(crew._prepared))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes are other machines, that may be asked: one worker learns there, not this process."""
    monkeypatch.setattr(clusters, "is_here", lambda address: False)
    monkeypatch.setenv("NOMOAT_OFFLINE", "")


def _plan(prepared: prepare.Prepared) -> execution.ExecutionPlan:
    return execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=prepared.settings.layers < prepared.sizes.layers)


def metrics(folder: Path) -> dict[str, Any]:
    return facts_of(folder)["metrics"]


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-5, rtol=1e-3)


def assert_ends(hand: clusters.Hand) -> None:
    """The worker ends soon: Ray answers a request to end it before it has."""
    with pytest.raises(ray.exceptions.RayActorError):
        wait_until(lambda: not ray.get(hand.actor.hello.remote()), "its end")


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(found[name], value) for name, value in expected.items())


# ---------------------------------------------------------------- without Ray
def test_lessons_are_shared_out_evenly_and_stay_where_they_were_in_the_first_epoch() -> None:
    lessons = [Sample(tokens=[at] * 3, answers=((1, 3),)) for at in range(12)]
    first = [lessons[:6], lessons[6:]]
    shares = Shares(first, 3)
    assert [shares.of(batch) for batch in first] == [[[0, 3], [1, 4], [2, 5]]] * 2
    same_owner = [lessons[at] for at in (0, 3, 6, 9, 1, 2)]  # four of the first worker's, who has room for two
    assert shares.of(same_owner) == [[0, 1], [4, 2], [5, 3]]
    assert shares.of(lessons[:2]) == [[0], [1], []]


@pytest.mark.parametrize("noise", [None, 5.0], ids=["plain", "with noise"])
@pytest.mark.parametrize("count", [2, 5], ids=["two workers", "more than lessons"])
def test_the_parts_of_a_gradient_are_the_whole(tiny_gguf: Path, table: Path, noise: float | None, count: int) -> None:
    """Answers have other lengths, so that a mean of the workers' means would be something else."""
    settings = prepare.Settings(rank=4, batch=4, noise=noise, layers=2 if noise else 1)
    prepared = prepare.prepare(str(tiny_gguf), table, settings=settings, **COLUMNS)
    plan = _plan(prepared)
    alone = loop.Run(prepared, plan=plan, say=lambda _: None)
    parts = [Part(prepared, plan=plan, rank=rank, count=count) for rank in range(count)]
    for run in (alone, *parts):
        for parameter in run.parameters:  # fresh B matrices are zero, and would hide the gradient of A
            torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(parameter.numel()))
    batch = next(batch for batch in alone.sweeps.first() if len({lesson.num_learned for lesson in batch}) > 1)
    numbers, shares = alone.sweeps.places(batch), Shares(alone.sweeps.first(), count).of(batch)
    alone.step = 7
    losses = alone.backward(batch)
    whole = torch.cat([*(parameter.grad.flatten() for parameter in alone.parameters if parameter.grad is not None), losses])
    tasks = [Task(step=7, rate=1.0, batch=numbers, own=own) for own in shares]
    found = torch.stack([part.gradient(task) for part, task in zip(parts, tasks, strict=True)]).sum(0)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-3)


def test_each_lesson_is_read_by_one_worker_in_the_first_epoch(tiny_gguf: Path, table: Path) -> None:
    """What the frozen layers say is kept there; another one reads a lesson by itself when it gets it."""
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS)
    parts = [Part(prepared, plan=KEEPING, rank=rank, count=2) for rank in range(2)]
    first = parts[0].sweeps.first()
    shares, num_read = Shares(first, 2), 0
    for batch in first:
        for part, own in zip(parts, shares.of(batch), strict=True):
            places = {lesson.lesson: at for at, lesson in enumerate(part.training)}
            part.gradient(Task(step=0, rate=1.0, batch=[places[lesson.lesson] for lesson in batch], own=own))
    assert [len(part.kept) for part in parts] == [sum(len(shares.of(batch)[rank]) for batch in first) for rank in range(2)]
    num_read = sum(len(part.kept) for part in parts)
    assert num_read == len(parts[0].training)
    other = parts[1].training[[lesson.lesson for lesson in parts[1].training].index(first[0][0].lesson)]
    parts[1].gradient(Task(step=1, rate=1.0, batch=[parts[1].training.index(other)], own=[0]))
    assert sum(len(part.kept) for part in parts) == num_read + 1


def test_machines_that_differ_learn_in_float32_and_keep_what_all_have_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def opened(crew: data_parallel.Crew, method: str, hands: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        asked.extend(given)
        return [
            (execution.ExecutionPlan(precision=given[0][0].value, expanded=True, keeps_lower=False), ["roomy"]),
            (execution.ExecutionPlan(precision=given[1][0].value, expanded=False, keeps_lower=True), ["narrow"]),
        ]

    monkeypatch.setattr(data_parallel.Crew, "_opened", opened)
    crew, said = data_parallel.Crew(None, None, [None, None]), list[str]()  # type: ignore[arg-type, list-item]
    crew.found = [data_parallel.Found(machine="m", precision=Detected(precision, "")) for precision in ("int8", "bfloat16")]  # type: ignore[arg-type]
    assert crew.choose_plan(said.append) == execution.ExecutionPlan(precision="float32", expanded=False, keeps_lower=False)
    assert said == ["narrow"]
    crew.found = crew.found[:1] * 2
    assert crew.choose_plan(said.append).precision == "int8"
    assert [each[0].value for each in asked] == ["float32"] * 2 + ["int8"] * 2


def test_one_worker_alone_is_this_process_and_ray_is_not_needed(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert metrics(tune(tiny_gguf, table, "one", workers=1, settings=prepare.Settings(epochs=0.1)))["workers"] == [1]
    with pytest.raises(MissingExtraError) as caught:
        tune(tiny_gguf, table, "two", ray="127.0.0.1:1")
    assert caught.value.hint == commands.installing_extra("ray")
    with pytest.raises(UsageError, match="the number of workers is 0"):
        tune(tiny_gguf, table, "none", workers=0)


def test_what_workers_read_once_while_they_look_is_counted_as_long_as_the_longest_of_them_took() -> None:
    class Evaluated:
        hands = ("one", "other")

        def evaluated(self, batches: list[list[int]]) -> Iterator[tuple[tuple[list[float], list[bool]], float]]:
            yield from (((([0.5], [True]), seconds)) for seconds in (3.0, 1.0, 2.0)[: len(batches)])

    asking = object.__new__(data_parallel.DataParallelRun)
    asking.all_held_out = []
    asking._crew, asking._is_told, asking.seconds_reading = Evaluated(), True, 10.0  # type: ignore[assignment]
    assert list(asking._evaluated([[], [], []])) == [([0.5], [True])] * 3
    assert asking.seconds_reading == 15.0


def test_workers_look_at_batches_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[int]]] = []

    def hand(name: str) -> Any:
        def remote(batch: list[int]) -> int:
            asked.append((name, batch))
            return batch[0]

        return SimpleNamespace(actor=SimpleNamespace(evaluate=SimpleNamespace(remote=remote)))

    crew = object.__new__(data_parallel.Crew)
    crew.hands = [hand("a"), hand("b")]
    monkeypatch.setattr(crew, "_result", lambda call, owners: call)
    assert list(crew.evaluated([[0, 3], [1], [2]])) == [0, 1, 2]  # type: ignore[comparison-overlap]
    assert asked == [("a", [0, 3]), ("b", [1]), ("a", [2])]


def test_workers_add_up_on_windows_whose_pytorch_has_no_libuv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    learners = [object.__new__(data_parallel.Learner) for _ in range(2)]
    for rank, learner in enumerate(learners):
        learner._rank, learner._count = rank, 2
    place = "127.0.0.1", learners[0].listen("127.0.0.1")

    def added(learner: data_parallel.Learner) -> float:
        learner.join(place, "127.0.0.1")
        value = torch.ones(1)
        learner._group.allreduce([value]).wait()
        return value.item()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(added, learners)) == [2, 2]
    assert not any(learner._store.libuvBackend for learner in learners)


# ---------------------------------------------------------------- on two nodes
@pytest.mark.slow
@pytest.mark.usefixtures("in_float32")
class TestTwoNodes:
    @pytest.mark.parametrize("settings", [SETTINGS, prepare.Settings(rank=4, epochs=2, layers=2, noise=5, batch=15)])
    def test_two_workers_learn_what_one_process_learns(
        self, cluster: str, settings: prepare.Settings, uninterrupted: Callable[..., Path]
    ) -> None:
        """Up to rounding: losses on the way, what is held out, and the weights."""
        alone, spread_out = uninterrupted(settings), uninterrupted(settings, ray=cluster)
        assert_close(weights(spread_out), weights(alone))
        one, two = metrics(alone), metrics(spread_out)
        for name in ("validation_loss_before", "validation_loss_after", "steps", "tokens"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
        for a, b in zip(one["history"], two["history"], strict=True):
            assert (b["learning"], b["held_out"]) == pytest.approx((a["learning"], a["held_out"]), rel=1e-4)
        assert (one["workers"], two["workers"], len(two["machines"])) == ([1], [2], 1)
        assert two["history"][0]["held_out"] < two["validation_loss_before"]

    @pytest.mark.usefixtures("elsewhere")
    def test_a_single_worker_elsewhere_goes_on_from_an_adapter_where_it_ended(
        self, cluster: str, tiny_gguf: Path, table: Path
    ) -> None:
        """Its node has not that adapter; this process sends what it knows."""
        tune(tiny_gguf, table, "first", settings=prepare.Settings(rank=4, epochs=1))
        base, settings, said = f"{tiny_gguf}+first", prepare.Settings(epochs=1), list[str]()
        alone, spread_out = (
            tune(base, table, f"second{at}", settings=settings, ray=address, workers=1, on_message=said.append)
            for at, address in enumerate((None, cluster))
        )
        assert "the lessons are sent to those machines of your Ray cluster" in said
        assert metrics(spread_out)["validation_loss_before"] == pytest.approx(metrics(alone)["validation_loss_before"], rel=1e-4)
        assert_close(weights(spread_out), weights(alone))

    def test_what_was_stopped_goes_on_to_the_same_weights(
        self, cluster: str, tiny_gguf: Path, table: Path, uninterrupted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By Ctrl-C, and then by the death of a worker; by two workers, and up to rounding by one process."""
        crews: list[data_parallel.Crew] = []
        find = data_parallel.Crew.find
        monkeypatch.setattr(data_parallel.Crew, "find", lambda crew: (crews.append(crew), find(crew)))
        steps: list[int] = []

        def stop(progress: loop.StageProgress) -> None:
            steps.append(progress.step)
            if progress.step == 7:
                raise KeyboardInterrupt
            if progress.step == 15:
                ray.kill(crews[1].hands[1].actor)

        with pytest.raises(KeyboardInterrupt):
            tune(tiny_gguf, table, "parts", ray=cluster, on_progress=stop)
        for hand in crews[0].hands:
            assert_ends(hand)
        with pytest.raises(WorkerError) as caught:
            tune(tiny_gguf, table, "parts", ray=cluster, resume=True, on_progress=stop)
        assert caught.value.message.startswith(f"the worker on `{crews[1].hands[1].place.host}` died: ")
        assert caught.value.hint == (
            "the same again with --resume, and with fewer --workers, too (in Python: `resume`, `workers`), goes on from step 15"
        )
        for hand in crews[1].hands:
            assert_ends(hand)
        shutil.copytree(adapter.checkpoint_folder(paths.adapters() / "parts"), adapter.checkpoint_folder(paths.adapters() / "alone"))
        by_two = tune(tiny_gguf, table, "parts", ray=cluster, resume=True, on_progress=lambda progress: steps.append(progress.step))
        assert [step for step in steps if step] == list(range(1, 23))
        assert_equal(weights(by_two), weights(uninterrupted(SETTINGS, ray=cluster)))
        by_one = tune(tiny_gguf, table, "alone", resume=True)
        assert_close(weights(by_one), weights(uninterrupted(SETTINGS)))
        assert metrics(by_one)["workers"] == [2, 1]

    @pytest.mark.usefixtures("elsewhere")
    def test_a_worker_that_dies_before_anything_is_learned_leaves_nothing_to_go_on_with(
        self, cluster: str, tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = data_parallel.Crew.opened

        def opened_and_ended(crew: data_parallel.Crew, *given: Any, **named: Any) -> loop.Run:
            run = opened(crew, *given, **named)
            ray.kill(crew.hands[0].actor)
            return run

        monkeypatch.setattr(data_parallel.Crew, "opened", opened_and_ended)
        with pytest.raises(WorkerError, match=r"^the worker on `.+` died: ") as caught:
            tune(tiny_gguf, table, "parts", ray=cluster, workers=1)
        assert caught.value.hint == "nothing was learned yet: start again; has that machine the memory for it?"
        assert not adapter.can_resume("parts")

    @pytest.mark.usefixtures("elsewhere")
    def test_the_loss_that_is_no_number_is_told_as_alone(self, cluster: str, tiny_gguf: Path, table: Path) -> None:
        settings = prepare.Settings(rank=4, learning_rate=1e30)
        with pytest.raises(UsageError, match="the loss is no number any more"):
            tune(tiny_gguf, table, "broken", ray=cluster, workers=1, settings=settings)


def test_one_worker_here_is_this_process(cluster: str, tiny_gguf: Path, table: Path, uninterrupted: Callable[..., Path]) -> None:
    said: list[str] = []
    one = tune(tiny_gguf, table, "one", settings=SHORT, ray=cluster, workers=1, on_message=said.append)
    assert "one worker, which is this machine: it learns by itself" in said
    assert_equal(weights(one), weights(uninterrupted(SHORT)))


@pytest.mark.usefixtures("elsewhere")
def test_a_machine_without_the_model_is_named_with_what_to_do_there(
    cluster: str, tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "portable", lambda ref: "smollm2-135m")
    with pytest.raises(UnknownModelError, match=r"(?m)^on `.+`: `smollm2-135m` is not on this machine yet$") as caught:
        tune(tiny_gguf, table, "c", ray=cluster, workers=1)
    assert caught.value.hint == "on that machine: nomoat pull smollm2-135m"


def test_another_file_than_on_the_machine_that_asks_is_refused(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the worker, within this process; that its errors name the machine is shown above."""
    monkeypatch.setattr(clusters, "settle", lambda *_: None)
    with pytest.raises(WorkerError) as caught:
        data_parallel.Learner({}, 1, 1).find({"base": str(tiny_gguf)}, sha256="0")
    assert caught.value.message == "`tiny.gguf` is another file than on the machine that asks"
    assert caught.value.hint == "have the same file on both"


def test_more_workers_than_a_step_has_lessons_are_refused(cluster: str, tiny_gguf: Path, table: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table, "c", ray=cluster, workers=9)
    assert caught.value.message == "a step has at most 8 lessons, and there are 9 workers"
    assert caught.value.hint == "take --workers 8 (in Python: `workers`), or a larger --batch (in Python: `batch`)"


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_the_command_takes_a_cluster(cluster: str, tiny_gguf: Path, table: Path) -> None:
    """Within this process, which is connected to that cluster already; one that connects by itself is in `test_workers.py`."""
    command = ["tune", str(tiny_gguf), str(table), "--input-column", "text", "--label-column", "label"]
    command += ["--name", "c", "--epochs", "1", "--json", "--ray", cluster, "--workers", "1"]
    dry = shell.nomoat(*command, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "\nevery worker has the model; the time above is what this machine would take alone\n" in dry.stderr
    assert set(json.loads(dry.stdout)) == {"data", "settings", "estimate"}
    done = shell.nomoat(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["workers"] == [1]
    assert "\neach batch is split over 1 worker on " in done.stderr and "\ntuning: 100%, loss " in done.stderr


LISTENING = """
import psutil, signal, sys
import nomoat

def look(progress):
    if progress.step == 1:
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    print(connection.laddr.ip)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert "scipy.stats" not in sys.modules  # which takes a second to import

nomoat.tune(sys.argv[1], sys.argv[2], name="c", input_column="text", label_column="label", workers=2, on_progress=look,
            rank=4, epochs=0.1)
assert psutil.Process().children(recursive=True) == []
"""


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_workers_of_this_machine_listen_on_loopback_only_and_end_with_the_training(tiny_gguf: Path, table: Path) -> None:
    """Whoever reaches a port of Ray may run code here, and whoever reaches one of gloo may spoil what is learned."""
    command = [sys.executable, "-c", LISTENING, str(tiny_gguf), str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {net.is_loopback(address) for address in done.stdout.split()} == {True}
