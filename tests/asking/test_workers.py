"""The same evaluation, and the same teacher, on Ray actors: same numbers, nothing lost, errors that name the machine."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shell
from patience import PATIENCE_SECONDS
from tiny import TEMPLATE, write_tiny_gguf

from nomoat import commands, errors, net
from nomoat.asking import cluster as ray_cluster
from nomoat.asking.store import AnswerStore
from nomoat.asking.workers import Facts, Workers, started_workers
from nomoat.distil.instructions import Plan, Seeds, distil
from nomoat.distil.label import label
from nomoat.distil.prompts import Task
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import ContextExceededError, MissingExtraError, OfflineError, UnknownModelError, UsageError, WorkerError
from nomoat.hardware import Detected
from nomoat.judge.duel import run_duel
from nomoat.judge.metrics import Metric
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.verdict import Evaluation
from nomoat.progress import AnswerProgress, quiet
from nomoat.records import Example, Message, Outcome, Request, Verdict

ray = pytest.importorskip("ray", reason="needs nomoat's `ray` extra")


@pytest.fixture(scope="class")
def workers(cluster: str) -> Iterator[Workers]:
    """Two workers, one on each node: the same for the tests of a class, new ones for any other."""
    with started_workers(None, cluster, concurrency=4) as started:
        assert started is not None
        yield started


def suite_of(metric: Metric, count: int) -> Suite:
    examples = tuple(
        Example(
            id=str(at),
            messages=(Message(role="user", content=f"the hello {at}"),),
            target="a",
            choices=tuple(random.Random(at).sample("abcdefgh", 3)) if metric == "choice" else (),
        )
        for at in range(count)
    )
    return Suite(name=f"{metric}-{count}", metric=metric, examples=examples, sha256=f"{metric}{count}", max_new_tokens=6)


def asked(model: str, suite: Suite, store: Path, workers: Workers | None, progress: AnswerProgress = quiet) -> Evaluation:
    with AnswerStore(store) as opened:
        # One answer at a time and worker: a model in 8 bits may write otherwise beside other texts.
        return run_suite(model, suite, RunSettings(store=opened, workers=workers, concurrency=1, progress=progress))


def without_times(outcomes: tuple[Outcome, ...]) -> list[Outcome]:
    return [replace(outcome, seconds=0.0) for outcome in outcomes]


# These connect by themselves, and stand before those that are connected already.
def test_a_cluster_that_is_not_there_says_how_to_start_one() -> None:
    with pytest.raises(WorkerError, match=r"^no Ray cluster at `auto`") as caught, started_workers(None, "auto"):
        pass
    assert caught.value.hint == "`ray start --head` starts one; --ray (in Python: `ray`) takes auto or HOST:PORT"


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as taken:  # and not listened to
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(WorkerError, match=f"^no Ray cluster at `{address}`: .*refused"), started_workers(None, address):
            pass


def test_what_a_dead_cluster_left_behind_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray finds it: the address in the arguments of a process that lives, or in the file of the last `ray start`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", lambda *_: address)
        with pytest.raises(WorkerError, match=f"^no Ray cluster at `{address}`: .*refused") as caught, started_workers(None, "auto"):
            pass
    assert caught.value.hint == (
        "`ray start --head` starts one; `ray stop` ends what is left of one that has ended; "
        "--ray (in Python: `ray`) takes auto or HOST:PORT"
    )


def test_the_head_of_a_cluster_elsewhere_is_not_asked_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", lambda *_: "192.0.2.1:6379")
    with pytest.raises(OfflineError), started_workers(None, "auto"):
        pass


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "local", "10.0.0.5", "10.0.0.5:"])
def test_what_is_no_address_of_a_cluster_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`local`, too: Ray would start a cluster, and listen on every network."""
    what = "Ray Client, which nomoat does not use" if address.startswith("ray://") else "no cluster"
    for given in (address, "auto"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match=f"(?m)^`{address}` is the address of {what}$"), started_workers(None, given):
            pass


def test_a_cluster_elsewhere_is_refused_when_offline() -> None:
    with (
        pytest.raises(OfflineError, match=r"(?m)^refused to connect to `192.0.2.1` to use a Ray cluster: NOMOAT_OFFLINE is set$"),
        started_workers(None, "192.0.2.1:6379"),
    ):
        pass


class TestTwoNodes:
    @pytest.mark.parametrize("metric", ["choice", "exact"])
    def test_two_nodes_give_the_same_numbers_as_one_process(
        self, metric: Metric, workers: Workers, tiny_gguf: Path, tmp_path: Path
    ) -> None:
        suite = suite_of(metric, 12)
        alone = asked(str(tiny_gguf), suite, tmp_path / "alone.sqlite", None)
        shared = asked(str(tiny_gguf), suite, tmp_path / "shared.sqlite", workers)
        assert without_times(shared.outcomes) == without_times(alone.outcomes)
        assert (shared.side.score, shared.side.score_low, shared.side.facts) == (
            alone.side.score,
            alone.side.score_low,
            alone.side.facts,
        )
        assert len({outcome.answer for outcome in shared.outcomes}) > 1
        assert shared.notes[0].startswith("answered by 2 workers on ") and shared.notes[0].endswith(f": 12 questions to `{tiny_gguf}`")
        again = asked(str(tiny_gguf), suite, tmp_path / "shared.sqlite", workers)
        assert again.side.facts["reused answers"] == "12" and not [note for note in again.notes if "answered by" in note]
        with AnswerStore(tmp_path / "alone.sqlite") as one, AnswerStore(tmp_path / "shared.sqlite") as other:
            first, second = (tuple(kept.outcome for kept in store.outcomes()) for store in (one, other))
            assert without_times(first) == without_times(second)

    def test_likelihoods_are_the_same_to_the_last_bit(self, workers: Workers, tiny_gguf: Path) -> None:
        import nomoat

        request = Request(prompt="hello the hello")
        with nomoat.load(str(tiny_gguf)) as here, workers.load(str(tiny_gguf)) as there:
            assert there.score(request, ["a", " the", "hello"]) == here.score(request, ["a", " the", "hello"])
            many = [f"{letter}{number} he" for letter in "abcd" for number in range(20)]
            found = [one.engine.timed_scores(request, many, max_unread=math.inf).scores for one in (there, here)]
            assert found[0] == found[1]
            assert (there.digest, there.is_local, there.num_workers) == (here.digest, True, 2)

    def test_a_model_without_a_chat_template_gets_the_one_named(self, workers: Workers, tmp_path: Path) -> None:
        bare = write_tiny_gguf(tmp_path / "bare.gguf", template=None)
        with workers.load(str(bare), fallback_template="falcon") as named:
            assert named.template == Detected("falcon", "as asked: it has none")

    def test_a_duel_on_workers_stops_at_the_same_question(self, workers: Workers, tiny_gguf: Path, tmp_path: Path) -> None:
        other = write_tiny_gguf(tmp_path / "other.gguf", arch="qwen2", pre="qwen2")
        suite = suite_of("choice", 60)
        knows = {
            outcome.example_id: outcome.answer for outcome in asked(str(tiny_gguf), suite, tmp_path / "first.sqlite", None).outcomes
        }
        suite = replace(suite, sha256="known", examples=tuple(replace(each, target=knows[each.id]) for each in suite.examples))
        verdicts: list[Verdict] = []
        for name, used in (("alone", None), ("shared", workers)):
            with AnswerStore(tmp_path / f"{name}.sqlite") as store:
                settings = RunSettings(store=store, workers=used, concurrency=8)
                verdicts.append(run_duel(str(tiny_gguf), str(other), suite, settings).verdict)
        facts = [(v.winner, v.num_examples, v.difference, v.difference_low, v.p_value, v.wins, v.losses) for v in verdicts]
        assert facts[0] == facts[1]
        assert verdicts[1].num_examples < 60

    def test_two_nodes_teach_what_one_process_teaches(self, workers: Workers, tmp_path: Path) -> None:
        """Tasks are sampled, each with its own seed: whichever worker is asked, it gives the same answer."""
        import nomoat

        brief = write_tiny_gguf(tmp_path / "brief.gguf", template=TEMPLATE.replace("m['content']", "m['content'][-40:]"))
        texts = ["배송이 빨라요", "사흘 만에 고장났어요", "그냥 그래요", "배송이 빨라요"]
        seeds = Seeds(name="seeds", sha256="0", tasks=(Task(instruction="Name two birds", input="", output="wren"),))
        plan = Plan(seeds=seeds, num_tasks=2, tasks_a_request=1, max_requests=2)
        written, labels = [], []
        for name, load in (("alone", nomoat.load), ("shared", workers.load)):
            with AnswerStore(tmp_path / f"{name}.sqlite") as store, load(str(brief)) as teacher:
                assert distil(teacher, plan, store=store, concurrency=1).spent.num_answers == 2
                answers = [store.answer(teacher.digest, plan.request(number)) for number in range(2)]
                written.append([answer.text for answer in answers if answer is not None])
                labels.append(label(teacher, texts, ("긍정", "부정"), store=store).labels)
        assert len(set(written[0])) == 2
        assert written[0] == written[1]
        assert labels[0] == labels[1]

    def test_what_names_no_weights_is_asked_from_here(self, workers: Workers) -> None:
        """Keys go nowhere, and `--max-cost` is kept where the money is counted."""
        with workers.load("fake:") as fake, workers.load("http://127.0.0.1:1/v1#m") as server:
            assert (fake.num_workers, fake.notes) == (1, ())
            assert isinstance(server.engine, RemoteEngine)

    def test_a_machine_without_the_model_is_named_with_what_to_do_there(self, workers: Workers) -> None:
        with pytest.raises(UnknownModelError, match=r"(?m)^on `.+`: `smollm2-135m` is not on this machine yet$") as caught:
            workers.load("smollm2-135m")
        assert caught.value.hint == "on that machine: nomoat pull smollm2-135m"

    def test_errors_of_a_worker_are_those_of_this_process(self, workers: Workers, tiny_gguf: Path) -> None:
        with workers.load(str(tiny_gguf)) as model, pytest.raises(ContextExceededError) as caught:
            model.score(Request(prompt="x" * 500), ["a"])
        assert (caught.value.prompt_tokens, caught.value.context_tokens) == (500, 256)


def test_a_worker_that_dies_leaves_its_questions_to_the_other(workers: Workers, tiny_gguf: Path, tmp_path: Path) -> None:
    def end_one(_model: str, done: int, _total: int) -> None:
        if done == 3:
            end(workers, 1)

    alone = asked(str(tiny_gguf), suite_of("choice", 10), tmp_path / "alone.sqlite", None)
    shared = asked(str(tiny_gguf), suite_of("choice", 10), tmp_path / "shared.sqlite", workers, end_one)
    assert without_times(shared.outcomes) == without_times(alone.outcomes)
    assert "1 of 2 workers died, and the others answered in their place" in shared.notes


class _DeathError(Exception):
    pass


class _Call:
    def __init__(self, answer: Any) -> None:
        self.answer = answer


class _Method:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def remote(self, *_: Any) -> _Call:
        return _Call(self.answer)


class _RayOfStubs:
    """Gives what a method was made with, and raises it where it is an error."""

    exceptions = types.SimpleNamespace(RayError=_DeathError, RayTaskError=type("RayTaskError", (_DeathError,), {}))

    def get(self, call: _Call) -> Any:
        if isinstance(call.answer, Exception):
            raise call.answer
        return call.answer

    def wait(self, calls: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return calls, []

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(gcs_address="")  # no head to be looked for


def stub_workers(*answers: Any) -> Workers:
    """A worker for each answer; one that is an error has died, and nobody has noticed."""
    made = object.__new__(Workers)
    made._ray, made._lock, made._has_left = _RayOfStubs(), threading.Lock(), False
    place = ray_cluster.Place(node_id="n", host="h", address="a", cpus=1, share=1, wave=0)
    actors = [types.SimpleNamespace(count_tokens=_Method(answer), hello=_Method(answer)) for answer in answers]
    made._hands = [ray_cluster.Hand(actor=actor, place=place) for actor in actors]
    return made


def test_a_model_that_is_not_the_same_on_all_workers_is_closed_on_all(monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> None:
    workers = stub_workers(1, 1)
    same = Facts(digest="a", scores_digest="a", licence="", template=None, context_tokens=None)
    opened = [*zip(workers._hands, (same, replace(same, digest="b")), strict=True)]
    monkeypatch.setattr(workers, "_numbers", iter([7]), raising=False)
    monkeypatch.setattr(workers, "_open", lambda *_: opened)
    closed: list[int] = []
    monkeypatch.setattr(workers, "close_model", closed.append)
    with pytest.raises(WorkerError, match="would answer differently"):
        workers.load(str(tiny_gguf))
    assert closed == [7]


def test_workers_that_died_while_they_had_nothing_to_do_are_not_taken_for_victims_of_a_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = _DeathError("its process ended")
    workers = stub_workers(gone, gone, gone, gone, 21)
    assert workers.ask("count_tokens", 0) == 21
    assert workers.num_alive == 1
    assert caplog.messages == [f"note: a worker on `h` died, and {left} of 5 are left: its process ended" for left in (4, 3, 2, 1)]
    with pytest.raises(WorkerError, match="no worker is left"):
        stub_workers(gone, gone, gone, gone).ask("count_tokens", 0)


def test_a_question_over_which_workers_die_one_by_one_ends_with_the_third() -> None:
    workers = stub_workers(*[21] * 5)
    for hand in workers._hands:
        hand.actor.count_tokens = _Method(_DeathError("over this question"))
    with pytest.raises(WorkerError, match="3 workers died over the same question"):
        workers.ask("count_tokens", 0)
    assert workers.num_alive == 2


def test_a_worker_s_death_is_said_once_however_many_saw_it_and_not_where_the_caller_ended_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    workers = stub_workers(21, 21)
    for _ in range(2):
        workers._lose(workers._hands[0], _DeathError("over this question"))
    workers._has_left = True
    workers._lose(workers._hands[1], _DeathError("its process ended"))
    assert caplog.messages == ["note: a worker on `h` died, and 1 of 2 are left: over this question"]
    assert workers.num_alive == 0


def test_workers_that_died_over_questions_of_their_own_excuse_no_question() -> None:
    workers = stub_workers(*[21] * 6)
    for hand in workers._hands:
        hand.actor.count_tokens = _Method(_DeathError("over this question"))
    for hand in workers._hands[3:]:  # busy, and no more
        hand.num_under_way, hand.actor.hello = 1, _Method(_DeathError("over another"))
    with pytest.raises(WorkerError, match="3 workers died over the same question"):
        workers.ask("count_tokens", 0)


def test_what_ray_says_of_a_dead_worker_is_told_without_its_advice() -> None:
    said = "The actor died.\n\tactor_id: 1\nWorker exit detail: it ended. Some common causes include: (1) `ray stop --force`\nmore"
    assert ray_cluster.last_line(Exception(said)) == "Worker exit detail: it ended."


def test_when_no_worker_is_left_the_answers_so_far_are_kept(workers: Workers, tiny_gguf: Path, tmp_path: Path) -> None:
    def end_all(_model: str, done: int, _total: int) -> None:
        if done == 3:
            end(workers, 2)

    with pytest.raises(WorkerError, match="no worker is left"):
        asked(str(tiny_gguf), suite_of("choice", 50), tmp_path / "answers.sqlite", workers, end_all)
    rest = asked(str(tiny_gguf), suite_of("choice", 50), tmp_path / "answers.sqlite", None)
    assert 3 <= int(rest.side.facts["reused answers"]) < 50


def test_ctrl_c_ends_the_workers_and_keeps_the_answers(workers: Workers, tiny_gguf: Path, tmp_path: Path) -> None:
    def press(_model: str, done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(str(tiny_gguf), suite_of("exact", 50), tmp_path / "answers.sqlite", workers, press)
    with pytest.raises(WorkerError, match="no worker is left"):
        workers.ask("hello")
    rest = asked(str(tiny_gguf), suite_of("exact", 50), tmp_path / "answers.sqlite", None)
    assert 3 <= int(rest.side.facts["reused answers"]) < 50


def test_more_workers_than_nodes_share_them() -> None:
    """That workers who share a node start is shown below."""
    node = {"Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerAddress": "127.0.0.1", "NodeManagerHostname": "h"}
    places = ray_cluster.places(types.SimpleNamespace(nodes=lambda: [node | {"NodeID": name} for name in "ab"]), 3)
    assert sorted((place.share, place.wave, place.cpus) for place in places) == [(1, 0, 1), (2, 0, 0.5), (2, 1, 0.5)]


def test_the_command_takes_a_cluster(cluster: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """As a process of its own, which connects by the address."""
    path = tmp_path / "s.jsonl"
    rows = [{"input": f"hello {at}", "target": "yes", "choices": ["yes", "no"]} for at in range(4)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = shell.program("eval", str(tiny_gguf), str(path), "--ray", cluster, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["num_examples"] == 4 and said["notes"][0].startswith("answered by 2 workers on ")


def test_a_teacher_on_a_cluster_is_named_with_its_workers(cluster: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """Within this process, which is connected to that cluster already."""
    (tmp_path / "t.txt").write_text("배송이 빨라요\n사흘 만에 고장났어요\n", encoding="utf-8")
    out = tmp_path / "labels.csv"
    command = ["distil", str(tiny_gguf), "--label", str(tmp_path / "t.txt"), "--labels", "긍정,부정", "--out", str(out), "--json"]
    done = shell.nomoat(*command, "--ray", cluster)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["notes"][0].startswith("answered by 2 workers on ")
    assert f"\nnote: {said['notes'][0]}\nlabels, by likelihood: " in done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3


LISTENING = """
import psutil, signal, sys, time
from nomoat.asking.workers import started_workers
from nomoat.records import Request

def answer():
    requests = [Request(prompt="the", max_new_tokens=2, temperature=0.0)] * 8
    assert [done.usage.completion_tokens for _, done in model.complete_many(requests)] == [2] * 8

with started_workers(2, None) as started, started.load(sys.argv[1]) as model:
    answer()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip)
    next(each for each in psutil.Process().children(recursive=True) if "ray::Worker" in each.cmdline()[0]).kill()
    while started.num_alive == 2:
        answer()
    time.sleep(1.0)  # for what Ray says of it
"""


def test_workers_of_this_machine_keep_to_it_die_in_one_line_and_leave_sigterm_to_us(tiny_gguf: Path) -> None:
    """Whoever reaches a port of Ray may run code here; what Ray itself says of a death, line after line, has no place beside ours; and
    what it asks of addresses outside would knock at a proxy.
    """
    command = [sys.executable, "-c", LISTENING, str(tiny_gguf)]
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = {**kept, "http_proxy": address, "https_proxy": address}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"note: a worker on `.+` died, and 1 of 2 are left: .+\n", done.stderr)
    assert {net.is_loopback(address) for address in done.stdout.split()} == {True}


def test_ray_that_was_imported_without_a_token_starts_no_workers_here() -> None:
    code = (
        "import ray\n"
        "from nomoat.asking.workers import started_workers\n"
        "from nomoat.errors import WorkerError\n"
        "try:\n"
        "    with started_workers(2, None): pass\n"
        "except WorkerError as error:\n"
        "    print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    assert done.stdout == "Ray was imported before its workers could be kept to this machine, and reads its settings only then\n"


def test_no_workers_at_all_are_refused() -> None:
    with pytest.raises(UsageError, match="the number of workers is 0"), started_workers(0, None):
        pass


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError) as caught, started_workers(2, None):
        pass
    assert caught.value.hint == commands.installing_extra("ray")


def test_neither_ray_nor_scipys_statistics_are_imported_where_nothing_needs_them(tmp_path: Path) -> None:
    """A second, and half a second."""
    path = tmp_path / "s.jsonl"
    path.write_text('{"input": "b a", "target": "a b"}\n')
    code = f"import sys, nomoat; nomoat.evaluate('fake:', {str(path)!r}); print({{'ray', 'scipy.stats'}} & {{*sys.modules}})"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True).stdout
        == "set()\n"
    )


def test_every_error_can_be_sent_from_one_process_to_another() -> None:
    samples = [
        ContextExceededError(prompt_tokens=5, max_new_tokens=6, context_tokens=7),
        MissingExtraError(extra="x", what="y"),
        errors.BudgetReachedError(max_usd=1, spent_usd=1, next_usd=1),
        errors.RemoteError("m", hint="h", status=429, fate="rejected"),
    ]
    for error in samples:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.__dict__) == (type(error), str(error), error.__dict__)


def end(workers: Workers, count: int) -> None:
    """End so many worker processes, as too little memory would."""
    for hand in workers._hands[:count]:
        ray.kill(hand.actor)
