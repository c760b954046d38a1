"""The machine's limits. How fast this machine is, is not tested; that the figures mean what they say, is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nomoat.bench import machine


def test_limits_are_measured_within_the_time_they_are_given() -> None:
    found = machine.measure_machine(read_bytes=8_000_000, read_seconds=0.05, gemm_size=128)
    assert found.num_threads >= 1
    assert str(found.num_threads) in found.summary
    # From a slow phone's memory to a fast server's cache.
    assert 1e8 < found.read_bytes_per_second_one_thread < 1e13
    assert 1e8 < found.read_bytes_per_second < 1e13
    assert 1e7 < found.gemm_flops < 1e14


def test_a_machine_is_busy_above_a_quarter_of_its_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 8)
    for percent, is_busy in ((25.0, False), (50.0, True)):
        monkeypatch.setattr(machine.psutil, "cpu_percent", lambda _seconds, percent=percent: percent)
        assert machine.read_load() == machine.Load(busy_cpus=8 * percent / 100, num_cpus=8, is_busy=is_busy)


def test_threads_share_one_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that says each pass took a second, the speed is the bytes of one array, however many threads read it."""
    monkeypatch.setattr(machine, "_best_seconds", lambda work, **_: (work(), 1.0)[1])
    assert machine.read_speed(num_threads=1, num_bytes=8_000_000) == 8_000_000
    assert machine.read_speed(num_threads=3, num_bytes=8_000_000) == 8_000_000
    assert machine.gemm_speed(size=10) == 2000


class Clock:
    """Time passes where work is pretended to be done."""

    def __init__(self, *seconds: float) -> None:
        self.now = 0.0
        self.seconds = list(seconds)

    def work(self) -> None:
        self.now += self.seconds.pop(0)


def test_best_run_counts_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1, 30, 10, 30)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert machine._best_seconds(clock.work, runs=3) == 10


def test_runs_go_on_as_long_as_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(100, 8, 8, 8, 4, 2)
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    assert machine._best_seconds(clock.work, runs=2, seconds=25) == 4
