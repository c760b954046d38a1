"""Threads that compute together, and how many of them take part where other programs want the cores, too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
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
program.Team.begin = program.Team.note = lambda *_: None  # the number is told here, whatever else runs on this machine
answers = set()
for number in (4, 1, 3, 2, 4, 2, 1, 4, 3) * 2:
    program.team().state[TeamState.THREADS] = number
    request = Request(prompt="one word and another " * 9, max_new_tokens=12, top_logprobs=2, temperature=1.5, seed=3)
    answers.add(str([(delta.text, delta.likelihoods) for delta in engine.generate(request)]))
    assert program.team().state[TeamState.THREADS] == number
engine.close()
print(len(program.team()), len(answers))
"""

STARTED = """
import sys
import threading
from pathlib import Path
from nomoat import footprint
footprint.FEW_WEIGHTS = 0
from nomoat.engine import importer
from nomoat.engine.local import LocalEngine
path = Path(sys.argv[1])
engine = LocalEngine(importer.import_gguf(path), weights=path)
engine.start()
print(sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("nomoat")))
engine.close()
"""


class Crew:
    """Four threads whose clocks are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.team, self.now, self.waited = Team(4, 0), 1000.0, 0.0
        monkeypatch.setattr(team.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(team.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(team, "waited_ns", lambda thread: int(self.waited * 1e9) if thread == threading.get_native_id() else 0)

    def take_part(self, seconds: float, waiting: float) -> int:
        """How many do in a chain of so long, while so many stood in line for a core."""
        began = self.team.begin()
        took_part = int(self.team.state[TeamState.THREADS])
        self.now += seconds
        self.waited += waiting * seconds
        self.team.note(began)
        return took_part


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> Crew:
    return Crew(monkeypatch)


def test_all_take_part_while_all_have_a_core(crew: Crew) -> None:
    assert {crew.take_part(0.01, 0.1) for _ in range(200)} == {4}


@pytest.mark.parametrize(("waiting", "left"), [(0.5, 3), (1.6, 2), (2.8, 1), (3.6, 1)])
def test_fewer_take_part_where_some_stand_in_line(crew: Crew, waiting: float, left: int) -> None:
    crew.take_part(0.2, 0)
    assert [crew.take_part(0.01, waiting) for _ in range(15)] == [4] * 15
    assert crew.take_part(0.01, waiting) in (4, left)
    assert crew.take_part(0.01, 0) == left


def test_a_moment_in_which_another_program_ran_changes_nothing(crew: Crew) -> None:
    crew.take_part(0.2, 0)
    assert crew.take_part(0.02, 1) == 4
    assert {crew.take_part(0.01, 0) for _ in range(50)} == {4}


def test_all_try_again_after_a_while_that_grows_each_time_it_fails(crew: Crew) -> None:
    crew.take_part(0.2, 0)
    rests = []
    for _ in range(7):
        assert crew.take_part(0.2, 3) == 4
        began = crew.now
        while crew.take_part(0.01, 0) == 1:
            pass
        rests.append(crew.now - began)
    assert rests == sorted(rests)
    assert rests[0] == pytest.approx(4, abs=0.3)
    assert rests[-1] == pytest.approx(20, abs=0.5)


def test_the_first_chain_after_a_pause_has_all_of_them(crew: Crew) -> None:
    crew.take_part(0.2, 0)
    crew.take_part(0.2, 3)
    assert crew.take_part(0.01, 0) == 1
    crew.now += 3600
    assert crew.take_part(15, 0) == 4


def test_what_the_caller_waited_for_in_a_pause_was_no_chain(crew: Crew) -> None:
    crew.take_part(0.2, 0)
    crew.take_part(0.1, 0)
    crew.now, crew.waited = crew.now + 60, crew.waited + 30
    assert {crew.take_part(0.1, 0) for _ in range(5)} == {4}


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how long a thread stood in line for a core")
def test_a_thread_that_stands_in_line_is_told_apart_from_one_that_sleeps() -> None:
    me = threading.get_native_id()
    before = team.waited_ns(me)
    time.sleep(0.2)
    assert team.waited_ns(me) - before < 150e6
    assert team.waited_ns(2**22 + 1) == 0


def test_a_model_that_is_started_has_all_threads_before_the_first_question(tmp_path: Path, kernels: None) -> None:
    """So that where they cannot be begun a server says so at its start."""
    path = write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0")
    program = [sys.executable, "-c", STARTED, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | {"NOMOAT_THREADS": "3"})
    assert done.stdout.splitlines() == ["['nomoat-engine', 'nomoat-team-1', 'nomoat-team-2']"], done.stderr


def test_the_answer_is_the_same_to_the_last_bit_however_many_take_part(tmp_path: Path, kernels: None) -> None:
    path = write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0")
    program = [sys.executable, "-c", ALL_NUMBERS, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | {"NOMOAT_THREADS": "4"})
    assert done.stdout.split() == ["4", "1"], done.stderr
