"""Work in threads: what was begun is finished."""

from __future__ import annotations

import queue
import threading
import time

import pytest
from patience import PATIENCE_SECONDS

from nomoat import pool
from nomoat.pool import run_many


def test_results_carry_their_index_and_no_more_run_at_once_than_asked() -> None:
    running: list[int] = []
    most = 0
    lock = threading.Lock()

    def work(item: int, _left: threading.Event) -> int:
        nonlocal most
        with lock:
            running.append(item)
            most = max(most, len(running))
        time.sleep(0.002)
        with lock:
            running.remove(item)
        return item * item

    assert sorted(run_many(work, range(20), concurrency=3)) == [(at, at * at) for at in range(20)]
    assert most <= 3
    assert list(run_many(work, [], concurrency=3)) == []


def test_failure_is_raised_after_what_was_begun_has_finished() -> None:
    begun: list[int] = []
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    threads: dict[int, threading.Thread] = {}

    def work(item: int, _left: threading.Event) -> int:
        begun.append(item)
        threads[item] = threading.current_thread()
        if item < 2:
            both.wait()
        if item == 0:
            raise ValueError("no")
        threads[0].join(PATIENCE_SECONDS)  # it ends by its failure
        return item

    finished = []
    with pytest.raises(ValueError, match="no"):
        for index, _ in run_many(work, range(100), concurrency=2):
            finished.append(index)
    assert finished == [1]
    assert sorted(begun) == [0, 1]


def test_caller_who_leaves_waits_for_what_was_begun_and_no_longer_than_the_grace() -> None:
    kept: list[int] = []
    began = threading.Event()

    def work(item: int, left: threading.Event) -> int:
        if item == 0:
            return item
        began.set()
        left.wait(PATIENCE_SECONDS)
        kept.append(item)
        return item

    results = run_many(work, range(100), concurrency=2)
    assert next(results) == (0, 0)
    began.wait(PATIENCE_SECONDS)
    results.close()  # type: ignore[attr-defined]
    assert 1 <= len(kept) <= 2


def test_where_no_more_threads_start_those_that_did_do_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started, may_start = threading.Thread.start, [], 2

    def third_fails(thread: threading.Thread) -> None:
        if len(started) == may_start:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    assert sorted(run_many(lambda item, left: (item, left.is_set()), range(9), concurrency=4)) == [
        (at, (at, False)) for at in range(9)
    ]
    assert len(started) == 2
    may_start = 0
    started.clear()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(run_many(lambda item, _left: item, range(9), concurrency=4))


def test_ctrl_c_while_threads_are_started_ends_those_that_were(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    called: list[bool] = []
    start, started, began = threading.Thread.start, [], threading.Event()

    def third_fails(thread: threading.Thread) -> None:
        if len(started) == 2:
            assert began.wait(PATIENCE_SECONDS)
            raise KeyboardInterrupt
        started.append(thread)
        start(thread)

    def work(item: int, left: threading.Event) -> int:
        began.set()
        assert left.wait(PATIENCE_SECONDS)
        kept.append(item)
        return item

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(KeyboardInterrupt):
        list(run_many(work, range(100), concurrency=4, on_leaving=lambda: called.append(True)))
    assert called == [True]
    assert not any(thread.is_alive() for thread in started)
    assert 1 <= len(kept) <= 2


def test_caller_who_leaves_waits_no_longer_than_the_grace() -> None:
    may_end, has_ended = threading.Event(), threading.Event()

    def work(item: int, _left: threading.Event) -> None:
        if item == 1:
            may_end.wait(PATIENCE_SECONDS)
            has_ended.set()

    results = run_many(work, range(2), concurrency=2, grace_seconds=0.05)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not has_ended.is_set()
    may_end.set()


def test_caller_who_leaves_is_told_what_is_waited_for_and_another_interrupt_ends_that(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_end, join, has_come = threading.Event(), threading.Thread.join, []

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, min(timeout or 0.0, 0.01))
        if has_come:
            raise KeyboardInterrupt
        has_come.append(True)

    def work(item: int, _left: threading.Event) -> None:
        if item:
            may_end.wait(PATIENCE_SECONDS)

    results = run_many(work, range(3), concurrency=3)
    next(results)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 5
    may_end.set()
    assert caplog.messages == ["stopping: waiting up to 30 s for 2 answers in the making; Ctrl-C again ends at once"]


def test_nothing_is_waited_for_without_a_look_at_what_else_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows lets Ctrl-C end no wait: it comes after it."""
    waits: list[tuple[str, float | None]] = []
    join, may_end = threading.Thread.join, threading.Event()

    class Results(queue.SimpleQueue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            waits.append(("result", timeout))
            if len(waits) > 4:
                may_end.set()
            return super().get(block, timeout)

    def watched(thread: threading.Thread, timeout: float | None = None) -> None:
        waits.append(("end", timeout))
        if len(waits) > 4:
            may_end.set()
        join(thread, timeout)

    def work(item: int, _left: threading.Event) -> int:
        if item:
            may_end.wait(PATIENCE_SECONDS)
        return item

    monkeypatch.setattr(queue, "SimpleQueue", Results)
    monkeypatch.setattr(threading.Thread, "join", watched)
    monkeypatch.setattr(pool, "HEARTBEAT_SECONDS", 0.01)
    assert list(run_many(work, range(2), concurrency=2)) == [(0, 0), (1, 1)]
    assert len(waits) > 4 and {*waits} == {("result", 0.01)}
    waits.clear()
    may_end.clear()
    results = run_many(work, range(2), concurrency=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert [kind for kind, _ in waits].count("end") > 2
    assert all(wait is not None and wait <= 0.01 for _, wait in waits)
