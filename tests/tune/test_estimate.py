"""What is said about time and memory before the work, against the work itself."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from learning import COLUMNS, facts_of, stopping_at
from typer.testing import CliRunner

from nomoat import commands, hardware
from nomoat.cli import app
from nomoat.errors import NotEnoughMemoryError
from nomoat.tune import estimate, execution, prepare, train
from nomoat.tune.prepare import Prepared
from nomoat.tune.validation import EVALUATIONS

pytestmark = pytest.mark.usefixtures("same_precision_everywhere")


@pytest.fixture
def prepared(tiny_gguf: Path, tmp_path: Path) -> Prepared:
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"{'long ' * (n % 20)}{n},{'ab'[n % 2]}\n" for n in range(400)))
    return prepare.prepare(str(tiny_gguf), path, **COLUMNS)


def test_the_time_is_foretold_within_a_factor_of_three(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 2 on an idle machine. In the processor's time of one thread: tests run beside others, which slow the clock's down."""
    monkeypatch.setenv("NOMOAT_THREADS", "1")
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    foretold = estimate.estimate(prepared)
    began = time.process_time()
    folder = train.learn(prepared, name="x", replace=True)
    took = time.process_time() - began
    metrics = facts_of(folder)["metrics"]
    assert 1 / 3 < foretold.learning_seconds / metrics["seconds"] < 3
    assert 1 / 3 < foretold.seconds / took < 3


def test_a_time_budget_bounds_the_whole(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_cost", lambda *_: estimate.Cost(1.0, 10.0, 1.0))
    unbounded = estimate.estimate(prepared)
    settings = prepare.chosen(prepare.Settings(minutes=1), num_lessons=400, width=64, layers=2, can_add_layers=True)
    bounded = estimate.estimate(replace(prepared, settings=settings))
    assert unbounded.seconds > 60
    assert bounded.seconds == 60
    assert bounded.looking_seconds < unbounded.looking_seconds
    assert bounded.tokens_per_second == unbounded.tokens_per_second


def test_a_budget_too_short_for_the_looks_and_a_step_is_not_promised(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 lessons are held out, in two batches: a look is at one of them, and the time is that of two looks and a step."""
    monkeypatch.setattr(estimate, "_cost", lambda *_: estimate.Cost(100.0, 1000.0, 100.0))
    settings = prepare.chosen(prepare.Settings(minutes=1), num_lessons=400, width=64, layers=2, can_add_layers=True)
    found = estimate.estimate(replace(prepared, settings=settings))
    assert found.seconds == pytest.approx(found.looking_seconds + 1100)


def test_the_lower_layers_are_read_once_or_in_every_step(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "_cost", lambda *_: estimate.Cost(10.0, 30.0, 1.0))
    once = estimate.estimate(prepared)
    monkeypatch.setattr(execution, "KEPT_PART", 10**9)
    in_every_step = estimate.estimate(prepared)
    epochs, evaluations = prepared.settings.epochs, 1 + max(EVALUATIONS, round(prepared.settings.epochs))
    assert in_every_step.learning_seconds / once.learning_seconds == pytest.approx(40 * epochs / (10 + 30 * epochs))
    assert in_every_step.looking_seconds / once.looking_seconds == pytest.approx(11 * evaluations / (10 + evaluations))


def test_too_little_memory_is_found_out_before_anything_is_measured(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: hardware.Detected(5 * 10**8, "set by the test"))
    with pytest.raises(NotEnoughMemoryError):
        estimate.estimate(prepared)


def dry_run(prepared: Prepared, *more: str) -> tuple[str, str]:
    columns = ["--input-column", "text", "--label-column", "label", "--dry-run"]
    done = CliRunner().invoke(app, ["tune", str(prepared.weights), str(prepared.data.path), *columns, *more])
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_a_dry_run_says_time_and_memory(prepared: Prepared) -> None:
    out, said = dry_run(prepared, "--json")
    assert re.search(r"time: about \d\.\d minutes at most; all epochs take \d\.\d, measuring the lessons held out \d\.\d", said)
    assert "memory: weights kept expanded (about " in said
    assert re.search(r"^disk: about \d+ kB while it learns, and [\d,]+ MB are free$", said, re.MULTILINE)
    assert json.loads(out)["estimate"]["learning_seconds"] > 0


def test_a_dry_run_shows_a_person_what_it_is_at(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.console.shows_bars", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, said = dry_run(prepared)
    assert f"reading {prepared.data.path.name}" in said and "timing a step" in said


def test_a_dry_run_shows_how_much_is_read(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    _, said = dry_run(prepared)
    assert f"reading {prepared.data.path.name}: 25%\n" in said  # 100 of 400 lessons


def test_a_training_says_its_time_before_it_begins_and_not_where_it_goes_on(prepared: Prepared) -> None:
    def said(*more: str) -> str:
        columns = ["--input-column", "text", "--label-column", "label", "--epochs", "0.1", "--name", "x"]
        done = CliRunner().invoke(app, ["tune", str(prepared.weights), str(prepared.data.path), *columns, *more])
        assert done.exit_code == 0, done.output
        return done.stderr

    assert re.search(r"\ntime: about \d\.\d minutes at most; .*\n(.*\n)*precision: ", said())
    assert "time: about" in said("--replace", "--resume")  # there is nothing to go on from
    with pytest.raises(KeyboardInterrupt):
        train.learn(replace(prepared, settings=replace(prepared.settings, epochs=0.1)), name="y", on_progress=stopping_at(2))
    assert "time: about" not in said("--name", "y", "--resume")


def test_a_dry_run_without_pytorch_says_what_is_missing(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "nomoat.tune.estimate", raising=False)
    out, said = dry_run(prepared, "--json")
    assert f"time and memory: known only with PyTorch: {commands.installing_extra('tune')}" in said
    assert json.loads(out)["estimate"] is None
