"""What is told to workers, who have another working folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from patience import PATIENCE_SECONDS, wait_until
from tiny import write_adapter

from nomoat import references
from nomoat.asking import cluster
from nomoat.errors import UsageError, WorkerError


@pytest.mark.parametrize("number", [0, 1.5, "2"])
def test_no_number_of_workers_is_refused_before_ray_is_imported(number: Any) -> None:
    with pytest.raises(UsageError, match="workers"), cluster.connection(number, None, what="this"):
        raise AssertionError("there is nothing to work with")


def test_workers_find_what_this_process_finds(
    tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of other things are named like the card and its adapter, as `nomoat export BASE+reviews -o reviews/` makes one."""
    pulled = empty_home / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct-Q4_K_M.gguf"
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (pulled.parent, here / "smollm2-135m", here / "reviews", here / "a+b", elsewhere):
        folder.mkdir(parents=True)
    shutil.copy(tiny_gguf, here / "tiny.gguf")
    shutil.copy(tiny_gguf, here / "a+b" / "tiny.gguf")
    write_adapter(empty_home / "adapters" / "reviews")
    write_adapter(here / "mine")
    names = ["smollm2-135m", "smollm2-135m+reviews", "hf:owner/repo/a+b.gguf", "gone+gone"]
    in_folders = ["tiny.gguf", "tiny.gguf+reviews", "tiny.gguf+mine", "a+b/tiny.gguf", "a+b/tiny.gguf+mine"]
    monkeypatch.chdir(here)
    assert [cluster.portable(ref) for ref in names] == names
    sent = [cluster.portable(ref) for ref in in_folders]
    found = [references.find_files(ref) for ref in in_folders]
    monkeypatch.chdir(elsewhere)
    for one, ref in zip(found, sent, strict=True):
        there = references.find_files(ref)
        assert (there.weights, there.adapter) == (here / one.weights, one.adapter and here / one.adapter)


def test_what_ray_starts_reaches_nobody_and_workers_and_this_process_have_their_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cluster.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    before = dict(os.environ)
    started: dict[str, str] = {}

    def init(**_: object) -> SimpleNamespace:
        started.update(os.environ)
        return SimpleNamespace(address_info={"session_dir": "/tmp/ray/session_1"})

    assert cluster.connect(SimpleNamespace(init=init), None) == Path("/tmp/ray/session_1")
    assert dict(os.environ) == before
    assert started["http_proxy"] == started["HTTPS_PROXY"] == cluster.NOBODY
    assert started["no_proxy"] == "127.0.0.1,localhost"
    monkeypatch.setattr(os, "environ", started)
    cluster.settle({}, 1.0, 1)
    assert started == {**before, "NOMOAT_THREADS": "1"}


def test_a_worker_that_does_not_start_is_named_with_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "START_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "_require_head", lambda ray: None)
    place = SimpleNamespace(host="10.0.0.7", cpus=2.0)
    hand: Any = SimpleNamespace(actor=SimpleNamespace(hello=SimpleNamespace(remote=object)), place=place)
    ray = SimpleNamespace(wait=lambda calls, **_: ([], calls))
    with pytest.raises(WorkerError) as caught:
        cluster.require_started(ray, [hand], extras="ray")
    assert caught.value.message == "the worker on `10.0.0.7` did not start within 0 s"
    assert caught.value.hint == (
        "`ray status` tells whether 2 of its CPUs are free; fewer --workers (in Python: `workers`) take fewer machines"
    )


class AuthenticationError(Exception):
    """As Ray's, whose base is an Exception and nothing else."""


@pytest.mark.parametrize("error", [Exception("The current node timed out during startup."), AuthenticationError("no token")])
def test_ray_that_does_not_start_here_says_what_to_do(error: Exception) -> None:
    def init(**_: object) -> None:
        raise error

    ray = SimpleNamespace(init=init, exceptions=SimpleNamespace(AuthenticationError=AuthenticationError))
    with pytest.raises(WorkerError, match=f"(?m)^Ray did not start on this machine: {error}$") as caught:
        cluster.connect(ray, None)
    assert caught.value.hint == "if this machine is too busy to start Ray, try again, or leave out --workers (in Python: `workers`)"


def test_a_cluster_that_asks_for_a_token_says_where_to_put_it() -> None:
    def init(**_: object) -> None:
        raise AuthenticationError("a long text")

    ray = SimpleNamespace(init=init, exceptions=SimpleNamespace(AuthenticationError=AuthenticationError))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(WorkerError) as caught:
            cluster.connect(ray, address)
    assert caught.value.message == f"the Ray cluster at `{address}` asks for a token, and the one here is missing or wrong"
    assert caught.value.hint == "set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_TOKEN_PATH to the file that holds it"


@pytest.mark.parametrize("was_there", [False, True])
def test_the_folder_of_a_ray_started_here_goes_with_it_and_no_others(
    was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others, latest = tmp_path / "session_2", tmp_path / "session_1", tmp_path / "session_latest"
    for folder in (ours, others):
        (folder / "logs").mkdir(parents=True)
    latest.symlink_to(ours)
    context = SimpleNamespace(address_info={"session_dir": str(ours)})
    ended: list[bool] = []
    ray = SimpleNamespace(
        is_initialized=lambda: was_there, init=lambda **_: context, shutdown=lambda: ended.append((ours / "logs").exists())
    )
    monkeypatch.setattr(cluster, "import_ray", lambda **_: ray)
    with pytest.raises(KeyboardInterrupt), cluster.connection(1, None, what="tests"):
        raise KeyboardInterrupt
    assert ended == ([] if was_there else [True])
    assert (ours.exists(), latest.is_symlink(), others.exists()) == (was_there, was_there, True)
    if not was_there:
        ours.mkdir()
        latest.symlink_to(others)
        with cluster.connection(1, None, what="tests"):
            pass
        assert latest.is_symlink()  # another's, begun since


def test_what_a_ray_started_here_leaves_behind_is_ended_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agents live on where its head was killed. They name its folder no more than a worker does."""
    ours = tmp_path / "session_2"
    asleep = [sys.executable, "-c", "import time; time.sleep(600)", str(tmp_path)]
    starting = f"import subprocess; subprocess.Popen({asleep}).wait()"
    named, other = subprocess.Popen([sys.executable, "-c", starting, str(ours)]), subprocess.Popen(asleep)
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **_: SimpleNamespace(address_info={"session_dir": str(ours)}), shutdown=lambda: None
    )  # fmt: skip
    monkeypatch.setattr(cluster, "import_ray", lambda **_: ray)
    with cluster.connection(1, None, what="tests"):
        wait_until(psutil.Process(named.pid).children, "its child")
        agents = psutil.Process(named.pid).children()
    assert named.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert not psutil.wait_procs(agents, PATIENCE_SECONDS)[1]
    assert other.poll() is None
    other.kill()
    other.wait()


@pytest.mark.parametrize("step", ["readlink", "unlink"])
def test_a_link_that_another_ray_takes_or_keeps_meanwhile_fails_no_finished_run(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "session_2"
    ours.mkdir()
    (tmp_path / "session_latest").symlink_to(ours)

    def gone(*_: object, **__: object) -> Path:
        raise PermissionError

    monkeypatch.setattr(Path, step, gone)
    cluster._remove(ours)
    monkeypatch.undo()
    assert not ours.exists()


def test_a_head_that_has_gone_is_told_before_ray_ends_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray does so a minute after, without a word to Python; calls that are under way go on until then."""
    waited: list[float] = []

    def wait(calls: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        waited.append(timeout)
        return (calls[:1], calls[1:]) if len(waited) > 1 else ([], calls)

    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        ray = SimpleNamespace(wait=wait, get_runtime_context=lambda: SimpleNamespace(gcs_address=address))
        monkeypatch.setattr(cluster._Looked, "at", float("-inf"))
        assert cluster.wait(ray, ["a", "b"]) == (["a"], ["b"])
        assert waited == [cluster.LOOK_SECONDS] * 2
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "GONE_SECONDS", 0.0)
    place = cluster.Place(node_id="n", host="h", address="a", cpus=1, share=1, wave=0)
    hand = cluster.Hand(actor=None, place=place)
    for asked in (lambda: cluster.result(ray, "c"), lambda: cluster.opened(ray, hand, "c", "m")):
        with pytest.raises(WorkerError) as caught:
            asked()
        assert caught.value.message == f"the head of the Ray cluster, at `{address}`, has gone: Connection refused"
        assert caught.value.hint == "that machine or its `gcs_server` has ended: start again"


def test_what_does_not_end_in_time_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimpleNamespace(wait=lambda calls, **_: ([], calls))
    monkeypatch.setattr(cluster, "_require_head", lambda _: None)
    assert cluster.wait(ray, ["a"], seconds=0.0) == ([], ["a"])
