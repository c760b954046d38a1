"""Threads that compute together, and how many of them take part where other programs want the cores, too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import write_tiny_gguf

from nomoat.engine import team
from nomoat.engine.team import Team, TeamState

# Every number of threads out of four, again and again, as a chain may have more or fewer than the one before.
ALL_NUMBERS = """
import sys
from pathlib import Path
from nomoat import footprint
footprint.FEW_WEIGHTS = 0
from nomoat.engine import importer, program
from nomoat.engine.local import LocalEngine
from nomoat.engine.team import TeamState
from nomoat.records import Request
path = Path(sys.argv[1])
engine = LocalEngine(importer.import_gguf(path), weights=path)
assert engine._blueprint is not None
program.Team.note = lambda *_, **__: None  # the number is told here, whatever else runs on this machine
answers = set()
for number in (4, 1, 3, 2, 4, 2, 1, 4, 3) * 2:
    program.team().state[TeamState.THREADS] = number
    request = Request(prompt="one word and another " * 9, max_new_tokens=12, top_logprobs=2, temperature=1.5, seed=3)
    answers.add(str([(delta.text, delta.likelihoods) for delta in engine.generate(request)]))
    assert program.team().state[TeamState.THREADS] == number
engine.close()
print(len(program.team()), len(answers))
"""


class Crew:
    """Four threads whose clocks are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.team, self.now = Team(4, 0), 1000.0
        monkeypatch.setattr(team.time, "monotonic", lambda: self.now)
        self._set = monkeypatch.setattr

    def take_part(self, seconds: float, running: float, *, slept: bool = False) -> int:
        """How many do after a chain of so long, of whose threads so many ran on average."""
        self.now += seconds
        self._set(self.team, "clocks", lambda: (seconds, running * seconds))
        self.team.note((0.0, 0.0), slept=slept)
        return int(self.team.state[TeamState.THREADS])


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    return Crew(monkeypatch)


needs_clocks = pytest.mark.skipif(
    not hasattr(time, "pthread_getcpuclockid"), reason="this system does not tell how long a thread computed"
)


@needs_clocks
def test_all_take_part_while_all_run(crew: Crew) -> None:
    assert {crew.take_part(0.01, 3.95) for _ in range(100)} == {4}
    assert {crew.take_part(0.01, 3.9, slept=True) for _ in range(100)} == {4}


@needs_clocks
@pytest.mark.parametrize(("running", "left"), [(3.5, 3), (2.4, 2), (1.2, 1), (0.4, 1)])
def test_fewer_take_part_where_some_do_not_run(crew: Crew, running: float, left: int) -> None:
    assert [crew.take_part(0.01, running) for _ in range(14)] == [4] * 14
    assert crew.take_part(0.02, running) == left


@needs_clocks
def test_a_moment_in_which_another_program_ran_changes_nothing(crew: Crew) -> None:
    assert crew.take_part(0.02, 3) == 4
    assert {crew.take_part(0.01, 4) for _ in range(50)} == {4}


@needs_clocks
def test_to_wake_those_who_sleep_is_no_loss(crew: Crew) -> None:
    assert {crew.take_part(0.01, 2, slept=True) for _ in range(50)} == {4}
    assert crew.take_part(2, 2, slept=True) < 4


@needs_clocks
def test_all_try_again_after_a_while_that_grows_each_time_it_fails(crew: Crew) -> None:
    rests = []
    for _ in range(4):
        assert crew.take_part(0.2, 1) == 1
        began = crew.now
        while crew.take_part(0.01, 1) == 1:
            pass
        rests.append(crew.now - began)
    assert rests == pytest.approx([2, 4, 8, 16], abs=0.2)
    assert crew.take_part(0.2, 4) == 4
    assert crew.take_part(0.2, 1) == 1
    began = crew.now
    while crew.take_part(0.01, 1) == 1:
        pass
    assert crew.now - began == pytest.approx(2, abs=0.2)


def test_the_answer_is_the_same_to_the_last_bit_however_many_take_part(tmp_path: Path, kernels: None) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0")
    program = [sys.executable, "-c", ALL_NUMBERS, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | {"NOMOAT_THREADS": "4"})
    assert done.stdout.split() == ["4", "1"], done.stderr
