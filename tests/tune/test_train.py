"""Training on a tiny model of random weights: it learns, stops, resumes, and its result is what PEFT and the engine read."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os
import re
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import learning
import numba
import numpy as np
import openvino as ov
import pytest
import tiny
import torch
from learning import COLOURS, COLUMNS, facts_of, stopping_at, weights, write_table
from patience import PATIENCE_SECONDS
from reference import model_of_gguf, our_logits, write_folder
from safetensors.torch import load_file, save_file
from small_disk import run_on_small_disk

import nomoat
from nomoat import hardware, paths, responder, whole_files
from nomoat.cli.tune import tune as command
from nomoat.engine import forked, importer, step_tables
from nomoat.engine.gguf import GGUFFile, Tensor
from nomoat.engine.gguf_tokenizer import from_metadata
from nomoat.errors import DataError, ForkedError, NotEnoughDiskError, NotEnoughMemoryError, UsageError
from nomoat.labelling import label_task_messages
from nomoat.records import Request
from nomoat.tune import adapter, execution, kernels, loop, prepare, qlora, train
from nomoat.tune.samples import BATCH_TOKENS, NOT_LEARNED, Sample, batches_of, drawn, side_by_side, wanted
from nomoat.tune.validation import is_better, is_clearly_worse, num_evaluations, num_next

pytestmark = pytest.mark.usefixtures("same_precision_everywhere")
SETTINGS = prepare.Settings(rank=4, epochs=2, learning_rate=5e-3)
tune = functools.partial(learning.tune, settings=SETTINGS)


@pytest.fixture
def whole(uninterrupted: Callable[..., Path]) -> Path:
    """What a training with SETTINGS that nothing interrupts leaves."""
    return uninterrupted(SETTINGS)


def are_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


def mean_log_probability_of_the_right_label(ref: str) -> float:
    with responder.load(ref) as model:
        requests = [Request(messages=label_task_messages(f"{'xyz'[n % 3]} {n}", COLOURS)) for n in range(30)]
        return sum(model.score(request, [COLOURS[n % 3]])[0].log_probability for n, request in enumerate(requests)) / 30


@pytest.mark.slow
def test_a_tuned_model_gives_the_right_answers_a_likelihood_its_base_does_not(tiny_gguf: Path, table: Path) -> None:
    """The base chooses each of about four tokens among 264 at random: about -22. One of three labels at random would be -1.1."""
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=8, layers=2, epochs=40, learning_rate=1e-2, batch=32))
    assert mean_log_probability_of_the_right_label(str(tiny_gguf)) < -15
    assert mean_log_probability_of_the_right_label(f"{tiny_gguf}+colours") > -1.3
    facts = facts_of(folder)
    assert facts["metrics"]["validation_loss_after"] < 0.5 * facts["metrics"]["validation_loss_before"]
    assert facts["metrics"]["way"] == {"precision": "float32", "expanded": True, "keeps_lower": False}  # all layers learn
    assert facts["base_sha256"] == paths.sha256_of(tiny_gguf) and facts["data_sha256"] == paths.sha256_of(table)
    assert (facts["versions"]["torch"], facts["versions"]["numpy"]) == (str(torch.__version__), np.__version__)
    assert facts["licence"]["commercial"] == "unknown"  # a base that no card describes
    assert not list(paths.adapters().glob(".*")), "a checkpoint was left behind"


def test_a_validation_file_is_what_is_looked_at(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.csv"
    held_out.write_text("text,label\n" + "".join(f"{'xyz'[n % 3]} new {n},{COLOURS[n % 3]}\n" for n in range(12)))
    facts = facts_of(tune(tiny_gguf, table, validation=held_out))
    assert (facts["metrics"]["validation_lessons"], facts["num_lessons"]) == (12, 90)
    assert facts["metrics"]["validation_loss_after"] < facts["metrics"]["validation_loss_before"]
    assert (facts["task"]["validation"], facts["validation_sha256"]) == ("held_out.csv", paths.sha256_of(held_out))


def test_no_text_of_the_data_is_in_the_adapter_s_folder(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    """People publish it. The texts are those that stand in the test or the validation file, too, which are said while tuning."""
    table.write_text(table.read_text() + "my secret,red\nmy other secret,red\n")
    for name, secret in (("test", "my secret"), ("dev", "my other secret")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{secret},red\nelse {name},green\n")
    quick = prepare.Settings(rank=4, layers=1, epochs=0.1)
    folder = tune(tiny_gguf, table, settings=quick, test=tmp_path / "test.csv", validation=tmp_path / "dev.csv")
    facts = facts_of(folder)["data"]
    assert (facts["shared_with_test"], facts["shared_with_validation"]) == (["line 92"], ["line 93"])
    assert not [file.name for file in folder.iterdir() if b"secret" in file.read_bytes()]
    places = [str(path.parent).encode() for path in (tmp_path, tiny_gguf)]
    assert not [file.name for file in folder.iterdir() for place in places if place in file.read_bytes()]


def test_peft_loads_the_adapter_and_the_engine_serves_the_same_model(tiny_gguf: Path, whole: Path) -> None:
    from peft import PeftModel

    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5 for an attribute under its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        reference = PeftModel.from_pretrained(model_of_gguf(tiny_gguf), str(whole))
    tokenizer = from_metadata(GGUFFile(tiny_gguf).metadata)
    prompt, answer = tokenizer.encode(tokenizer.render(label_task_messages("x 1", ["r", "g", "b"]))), tokenizer.encode("r")
    with torch.no_grad():
        logits = reference(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    expected = sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(answer))
    with responder.load(f"{tiny_gguf}+{whole}") as model:
        (score,) = model.score(Request(messages=label_task_messages("x 1", ["r", "g", "b"])), ["r"])
    assert score.log_probability == pytest.approx(expected, abs=0.1)


def test_a_folder_of_the_hub_is_tuned_and_peft_puts_the_adapter_on_it(table: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, base = write_folder(tmp_path / "model", "qwen2")
    folder = tune(base, table, settings=prepare.Settings(rank=8, epochs=10, learning_rate=1e-2))
    facts = facts_of(folder)
    assert facts["base_file"] == "model" and facts["base_sha256"] == importer.sha256_of_model(base)
    assert facts["metrics"]["validation_loss_after"] < 0.5 * facts["metrics"]["validation_loss_before"]
    with warnings.catch_warnings():  # as above
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    rows = [[5, 9, 200, 17, 3, 44]]
    with torch.no_grad():
        expected = reference(input_ids=torch.tensor(rows)).logits.numpy()
    ov.save_model(importer.exact_model(base, adapter=folder), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    np.testing.assert_allclose(our_logits(tmp_path, rows), expected, atol=1e-3)
    assert np.abs(our_logits(importer.import_gguf(base), rows) - expected).max() > 1


def test_a_folder_whose_weights_have_changed_is_not_resumed(table: Path, tmp_path: Path) -> None:
    _, base = write_folder(tmp_path / "model", "llama")

    with pytest.raises(KeyboardInterrupt):
        tune(base, table, on_progress=stopping_at(3))
    path = base / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(UsageError, match="has changed since the interrupted training"):
        tune(base, table, resume=True)


@pytest.mark.parametrize("how", ["without a shared beginning", "one byte a weight", "with places that have no target"])
def test_what_saves_time_or_memory_does_not_change_the_gradient(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS)

    def gradients(*, learning: bool = False) -> list[torch.Tensor]:
        say = [].append
        run = loop.Run(prepared, plan=execution.choose_plan(prepared, say), say=say)
        for parameter in run.parameters:  # fresh B matrices are zero, and would hide the gradient of A
            torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(parameter.numel()))
        run.network.loss(*run.hidden(prepared.samples[:8], learning=learning))[0].backward()
        return [parameter.grad for parameter in run.parameters if parameter.grad is not None]

    expected = gradients()
    if how == "one byte a weight":
        monkeypatch.setattr(execution, "keep_expanded", lambda *_: hardware.Detected(False, "set by the test"))
    elif how == "without a shared beginning":
        monkeypatch.setattr(loop, "shared_prefix", lambda samples: 0)
    found = gradients(learning=how == "with places that have no target")
    assert len(found) == len(expected) == 14  # a pair for each of the upper layer's seven
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_the_same_seed_gives_the_same_weights(tiny_gguf: Path, table: Path, whole: Path) -> None:
    assert are_equal(weights(tune(tiny_gguf, table, "again")), weights(whole))


@pytest.mark.skipif(not step_tables.HAS_PANELS, reason="this CPU has no VNNI")
def test_with_products_in_8_bits_it_learns_the_same(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    losses = {}
    for precision in ("float32", "int8"):
        monkeypatch.setattr(qlora, "fastest_precision", lambda it=precision: hardware.Detected(it, "set by the test"))
        folder = tune(tiny_gguf, table, precision, on_message=said.append)
        losses[precision] = facts_of(folder)["metrics"]["validation_loss_after"]
    assert "precision: int8 (set by the test)" in said
    assert losses["int8"] == pytest.approx(losses["float32"], rel=0.1)
    assert losses["int8"] != losses["float32"]


@pytest.mark.parametrize(
    ("precision", "noise"),
    [
        pytest.param("float32", None, id="plain"),
        pytest.param("float32", 5.0, id="with noise"),
        pytest.param("int8", None, marks=pytest.mark.skipif(not step_tables.HAS_PANELS, reason="this CPU has no VNNI")),
    ],
)
def test_an_interrupted_training_resumes_to_the_weights_of_an_uninterrupted_one(
    tiny_gguf: Path, table: Path, precision: str, noise: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qlora, "fastest_precision", lambda: hardware.Detected(precision, "set by the test"))
    settings = prepare.Settings(rank=4, epochs=1, learning_rate=5e-3, layers=2, noise=noise)
    whole = weights(tune(tiny_gguf, table, "whole", settings=settings))

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, "parts", settings=settings, on_progress=stopping_at(7))
    assert not (paths.adapters() / "parts").exists()
    assert are_equal(weights(tune(tiny_gguf, table, "parts", settings=settings, resume=True)), whole)


def test_settings_may_be_numpys_up_to_the_provenance_and_through_a_resumed_training(tiny_gguf: Path, table: Path) -> None:
    settings = prepare.Settings(
        rank=np.int64(4), layers=np.int32(2), learning_rate=np.float32(5e-3), epochs=np.float64(1), batch=np.uint8(8),
        minutes=np.float16(5), noise=np.int64(5), seed=np.uint32(3),
    )  # fmt: skip
    assert {type(value) for value in asdict(settings).values()} == {int, float}
    given = {"name": np.str_("numpys"), "instruction": np.str_("Which colour?"), "data_licence": np.str_("own"), "settings": settings}
    with pytest.raises(KeyboardInterrupt):
        tune(np.str_(tiny_gguf), table, **given, on_progress=stopping_at(3))
    facts = facts_of(tune(np.str_(tiny_gguf), table, **given, resume=True))
    assert (facts["settings"], facts["task"]["instruction"]) == (asdict(settings), "Which colour?")


def test_a_look_that_was_interrupted_is_made_up_for(
    tiny_gguf: Path, table: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = loop.Run.evaluate

    def interrupted(run: loop.Run, *given: object) -> tuple[list[float], list[bool]]:
        if len(run.history) == 1:
            raise KeyboardInterrupt
        return evaluate(run, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Run, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, "parts")
    monkeypatch.setattr(loop.Run, "evaluate", evaluate)
    resumed = tune(tiny_gguf, table, "parts", resume=True)
    assert are_equal(weights(resumed), weights(whole))
    looks, expected = (facts_of(folder)["metrics"]["history"] for folder in (resumed, whole))
    assert [look["held_out"] for look in looks] == [look["held_out"] for look in expected]


def test_noise_is_on_what_is_learned_from_and_not_on_what_is_looked_at(tiny_gguf: Path, table: Path) -> None:
    """Each step has its own, within NEFTune's bound: alpha / sqrt(tokens * width)."""
    settings = prepare.Settings(rank=4, layers=2, noise=5)
    prepared = prepare.prepare(str(tiny_gguf), table, settings=settings, **COLUMNS)
    run = loop.Run(prepared, plan=execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=False), say=lambda _: None)
    given: list[torch.Tensor] = []
    hidden = run.network.hidden

    def seen(x_BTW: torch.Tensor, *rest: object) -> torch.Tensor:
        given.append(x_BTW)
        return hidden(x_BTW, *rest)  # type: ignore[arg-type]

    run.network.hidden = seen  # type: ignore[method-assign]
    batch = run.training[:4]
    run.hidden(batch)
    for run.step in (0, 0, 1):
        run.hidden(batch, learning=True)
    plain, first, again, second = given
    bound = 5 / (plain.shape[1] * plain.shape[2]) ** 0.5
    assert 0.9 * bound < (first - plain).abs().max() <= 1.001 * bound
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


KILLED = """
import os, sys
import nomoat.hardware, nomoat.tune.qlora, nomoat.tune.train as t

replace, checkpoints = os.replace, []

def die(written, target):
    if str(target).endswith("checkpoint.pt"):
        checkpoints.append(written)
        if len(checkpoints) == int(sys.argv[3]):
            assert "torch._dynamo" not in sys.modules  # PyTorch's compiler, which takes seconds to import
            os._exit(9)  # nothing is cleaned up
    replace(written, target)

os.replace = die
t.loop.CHECKPOINT_SECONDS = 0.0
nomoat.tune.qlora.fastest_precision = lambda: nomoat.hardware.Detected("float32", "set by the test")
t.tune(sys.argv[1], sys.argv[2], name="killed", input_column="text", label_column="label", rank=4, epochs=2, learning_rate=5e-3)
"""


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    ("at", "said", "next_step"),
    [
        (1, "there is no state of an interrupted training of `killed` to go on from: it begins anew", 1),
        (8, "going on from step 6, 15% of the work", 7),
    ],
    ids=["before it has learned", "while it learns"],
)
def test_a_training_that_was_killed_ends_with_the_weights_of_an_uninterrupted_one(
    tiny_gguf: Path, table: Path, whole: Path, at: int, said: str, next_step: int
) -> None:
    """Killed before that checkpoint is in its place, the worst moment. The first is written when the base has been looked at."""
    arguments = [str(tiny_gguf), str(table), str(at)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], timeout=PATIENCE_SECONDS, check=False)
    assert killed.returncode == 9 and not (paths.adapters() / "killed").exists()
    steps: list[int] = []
    told: list[str] = []
    resumed = tune(
        tiny_gguf, table, "killed", resume=True, on_progress=lambda progress: steps.append(progress.step), on_message=told.append
    )
    assert said in told
    assert next(step for step in steps if step) == next_step
    assert are_equal(weights(resumed), weights(whole))


def test_a_time_budget_ends_the_training(tiny_gguf: Path, table: Path) -> None:
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=4, epochs=10_000, minutes=0.02))
    metrics = facts_of(folder)["metrics"]
    assert metrics["seconds"] > 0 and 1 <= metrics["steps"] < 10_000


@pytest.mark.parametrize(
    ("step", "epochs", "minutes", "said"),
    [
        (30.0, 4, 1.0, "warning: the time was over before every lesson was learned once, after 0.6 of 4 epochs (49 of 324 lessons)"),
        (10.0, 4, 1.0, "the time was over after 2 of 4 epochs (162 of 324 lessons)"),
        (30.0, 0.9, 0.5, "the time was over after 0.39 of 0.9 epochs (32 of 73 lessons)"),
        (1.0, 4, 1.0, None),
        (1.0, 4, None, None),
    ],
)
def test_how_far_learning_came_in_its_time_is_said_and_kept(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, step: float, epochs: float, minutes: float | None, said: str | None
) -> None:
    Clock(monkeypatch, step=step, evaluation=0.0)
    told: list[str] = []
    settings = prepare.Settings(rank=4, batch=32, layers=1, epochs=epochs, minutes=minutes)
    metrics = facts_of(tune(tiny_gguf, table, settings=settings, on_message=told.append))["metrics"]
    assert [line for line in told if "time was over" in line] == ([f"{said}: {loop.MORE_TIME}"] if said else [])
    assert metrics["epochs_done"] == 100 * metrics["lessons_done"] // 81 / 100
    assert said is None or f"({metrics['lessons_done']} of " in said


def test_a_share_of_the_epochs_is_said_as_it_is_written(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In floating point 100 * 0.29 is less than 29, and 1.1 * 100 more than 110."""
    Clock(monkeypatch, step=2.1, evaluation=0.0)
    told: list[str] = []
    settings = prepare.Settings(rank=4, batch=1, layers=1, epochs=1.1, minutes=1.0)
    tune(tiny_gguf, write_table(tmp_path / "t.csv", num_rows=111), settings=settings, on_message=told.append)
    after = "after 0.29 of 1.1 epochs (29 of 110 lessons)"
    assert f"warning: the time was over before every lesson was learned once, {after}: {loop.MORE_TIME}" in told


def test_a_time_budget_below_the_first_look_still_learns_a_step(tiny_gguf: Path, table: Path) -> None:
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=4, minutes=1e-9))
    metrics = facts_of(folder)["metrics"]
    assert metrics["steps"] == 1 and metrics["validation_loss_after"] > 0


class Clock:
    """Time passes where work is pretended to be done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step: float, evaluation: float) -> None:
        self.now, self._step = 100.0, step
        learn, evaluate = loop.Run._learn, loop.Run.evaluate

        def learned(run: loop.Run, batch: list[Sample]) -> float:
            loss = learn(run, batch)
            self.now += self._step
            return loss

        def evaluated(run: loop.Run, *given: object) -> tuple[list[float], list[bool]]:
            with monkeypatch.context() as during:
                during.setattr(run, "_evaluated", lambda batches: self._taking(evaluation, map(run.evaluate_batch, batches)))
                return evaluate(run, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(loop.Run, "backward", lambda _run, batch: torch.ones(len(batch)))  # a step without a gradient
        monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(loop.Run, "_learn", learned)
        monkeypatch.setattr(loop.Run, "evaluate", evaluated)

    def _taking(self, seconds: float, found: Iterator[tuple[list[float], list[bool]]]) -> Iterator[tuple[list[float], list[bool]]]:
        self.now += seconds
        return found


@pytest.mark.parametrize(
    ("step", "evaluation", "epochs", "steps", "evaluations"),
    [
        (0.5, 10, 10_000, 80, [40]),
        (0.5, 4, 10_000, 88, [15, 29.5, 44]),
        (5, 0.25, 6, 12, [10, 20, 30, 40, 50, 60]),
        (10, 0.001, 1000, 6, [20, 30, 50, 60]),
    ],
    ids=["a look is a sixth of the minute", "a fifteenth", "cheap looks", "four looks where three of a thousand epochs are learned"],
)
def test_most_of_the_minutes_is_for_learning_however_long_a_look_takes(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, step: float, evaluation: float, epochs: int, steps: int,
    evaluations: list[float],
) -> None:  # fmt: skip
    """`evaluations`: after so many seconds of learning. The base is evaluated, too; no weights are that have learned nothing."""
    clock = Clock(monkeypatch, step=step, evaluation=evaluation)
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=4, batch=64, layers=1, epochs=epochs, minutes=1))
    assert clock.now < 160 + step
    metrics = facts_of(folder)["metrics"]
    assert (metrics["steps"], [evaluation["seconds"] for evaluation in metrics["history"]]) == (steps, evaluations)


def test_the_time_left_is_that_of_learning_and_of_the_looks_to_come(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the minute the base takes four seconds of the six it may, 44 are learned in, and three looks take four each."""
    Clock(monkeypatch, step=0.5, evaluation=4)
    told: list[loop.StageProgress] = []
    settings = prepare.Settings(rank=4, batch=64, layers=1, epochs=10_000, minutes=1)
    tune(tiny_gguf, table, settings=settings, on_progress=told.append)
    base = next(progress for progress in told if progress.stage == "measuring the base")
    assert (base.fraction, base.seconds_left) == (pytest.approx(4 / 6), pytest.approx(2))
    learning = [(progress.seconds, progress.seconds_left) for progress in told if progress.step in (1, 88)]
    assert learning == [(0.5, pytest.approx(55.5)), (44, pytest.approx(4))]


def test_lessons_held_out_are_drawn_whole() -> None:
    """Of 200 lessons that are as long as their number: the mean of the first 32 varies with the seed as that of 32 drawn ones does."""
    held_out = [Sample(tokens=[0], answers=((0, 1),), lesson=str(n)) for n in range(200) for _ in range(1 + n % 2)]  # 1 or 2 rows
    orders = [drawn(held_out, seed) for seed in range(100)]
    assert all(sorted(lessons, key=int) == list(map(str, range(200))) for lessons in orders)
    means = [statistics.mean(map(int, lessons[:32])) for lessons in orders]
    assert statistics.stdev(means) == pytest.approx((200**2 / 12 / 32 * 168 / 199) ** 0.5, rel=0.2)
    assert orders[98] != orders[99] == drawn(held_out, 99)


@pytest.mark.parametrize(
    ("done", "of", "seconds", "most", "expected"),
    [(0, 200, 0, math.inf, 200), (200, 200, 9, math.inf, 0), (0, 200, 0, 12, 4), (0, 3, 0, 12, 3), (4, 200, 1, 12, 44),
     (4, 20, 1, 12, 16), (48, 200, 10, 12, 9), (57, 200, 11.9, 12, 0), (4, 200, 30, 12, 0), (4, 200, 0, 12, 196), (20, 20, 1, 12, 0)],
)  # fmt: skip
def test_so_many_lessons_held_out_are_looked_at_as_there_is_time_for(
    done: int, of: int, seconds: float, most: float, expected: int
) -> None:
    assert num_next(done, of, seconds, most) == expected


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock: a step takes half a second, a look one second for each two lessons held out, of which it takes two at a time."""
    clock = SimpleNamespace(now=100.0)

    def taking(name: str, seconds: float) -> None:
        original = getattr(loop.Run, name)

        def work(run: loop.Run, batch: list[Sample]) -> object:
            found = original(run, batch)
            clock.now += seconds
            return found

        monkeypatch.setattr(loop.Run, name, work)

    taking("_learn", 0.5)
    taking("evaluate_batch", 1.0)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(loop, "MOST_LOOKED_AT", 2)
    return clock


def test_a_look_is_at_so_many_lessons_as_a_tenth_of_the_minutes_does_for_and_resuming_looks_at_the_same(
    tiny_gguf: Path, tmp_path: Path, slow_looks: SimpleNamespace
) -> None:
    """Of 20 lessons held out: a look at all would take 10 of the 30 seconds, one at four takes two of the three that there are."""
    table = write_table(tmp_path / "t.csv", num_rows=200)
    settings = prepare.Settings(rank=4, layers=1, epochs=10_000, minutes=0.5)
    said: list[str] = []
    whole = tune(tiny_gguf, table, "whole", settings=settings, on_message=said.append)
    assert 130 <= slow_looks.now <= 131
    metrics = facts_of(whole)["metrics"]
    assert (metrics["validation_lessons"], metrics["validation_lessons_left_out"]) == (4, 16)
    assert (metrics["validation_answers"], len(metrics["history"]), metrics["steps"]) == (4, 3, 44)
    assert (
        "10% of the time was over: 4 of the 20 lessons held out are looked at, drawn at random; "
        "more --minutes (in Python: `minutes`) look at more of them"
    ) in said

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, "parts", settings=settings, on_progress=stopping_at(7))
    parts = tune(tiny_gguf, table, "parts", settings=settings, resume=True)
    assert are_equal(weights(parts), weights(whole))
    assert facts_of(parts)["metrics"] == metrics


@pytest.mark.parametrize(
    ("epochs", "minutes", "seconds", "evaluations"),
    [(3, None, 1000, 4), (6, None, 1000, 6), (6, 1, 10, 1), (6, 1, 4, 3), (3, 2, 6, 4), (3, 2, 6.1, 3), (3, 2, 0, 4), (1, 1e-9, 5, 1)],
)
def test_there_are_fewer_looks_where_they_would_be_more_than_a_fifth_of_the_minutes(
    epochs: float, minutes: float | None, seconds: float, evaluations: int
) -> None:
    assert num_evaluations(epochs, minutes, seconds) == evaluations


def test_a_lesson_longer_than_the_context_is_named_and_nothing_is_cut(tiny_gguf: Path, table: Path) -> None:
    table.write_text("text,label\nshort,a\n" + "long " * 200 + ",b\n")
    with pytest.raises(DataError) as caught:
        tune(tiny_gguf, table)
    assert caught.value.message.startswith(f"`{table}`, line 3: 1,0") and "the model's context is 256" in caught.value.message


def test_a_name_that_is_taken_is_kept_unless_it_is_to_be_replaced(tiny_gguf: Path, table: Path) -> None:
    quick = prepare.Settings(rank=4, epochs=0.1)
    tune(tiny_gguf, table, settings=quick)
    with pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table, settings=quick)
    assert caught.value.message == "there is an adapter `colours` already"
    tune(tiny_gguf, table, settings=quick, replace=True)


def test_a_name_that_another_training_takes_meanwhile_is_kept(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was looked at, and before this one has the lock."""
    monkeypatch.setattr(adapter, "require_disk", lambda target, _num: target.mkdir(parents=True))
    with pytest.raises(UsageError, match="there is an adapter `colours` already"):
        tune(tiny_gguf, table, settings=prepare.Settings(rank=4, epochs=0.1))
    assert not any((paths.adapters() / "colours").iterdir())


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_folder_name_is_refused(tiny_gguf: Path, table: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be an adapter's name"):
        tune(tiny_gguf, table, name)


@pytest.mark.parametrize("name", ["aux", "NUL.2", "support."])
def test_a_name_that_windows_refuses_is_refused_there_before_the_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reserved() -> Path:
        return adapter.reserve(name, replace=False, resume=False)

    monkeypatch.setattr(sys, "platform", "linux")
    assert reserved() == paths.adapters() / name
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UsageError) as caught:
        reserved()
    assert caught.value.message == f"`{name}` cannot be an adapter's name: Windows gives it to a device, or takes no dot at its end"


def test_a_path_is_no_name(tiny_gguf: Path, table: Path) -> None:
    path: Any = Path("colours")
    with pytest.raises(UsageError, match="an adapter's name is of the type"):
        tune(tiny_gguf, table, path)


def test_a_korean_name_is_fine(tiny_gguf: Path, table: Path) -> None:
    assert tune(tiny_gguf, table, "색깔", settings=prepare.Settings(rank=4, epochs=0.1)).name == "색깔"


def test_too_little_memory_is_said_before_anything_is_loaded(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(free: int) -> str:
        monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda: hardware.Detected(free, "set by the test"))
        with pytest.raises(NotEnoughMemoryError) as caught:
            tune(tiny_gguf, table)
        return caught.value.message

    says = "tuning `tiny.gguf` needs about {} GB of memory, and {} GB are free (set by the test)"
    assert told(5 * 10**8) == says.format("0.6", "0.5")
    assert told(599 * 10**6) == says.format("0.604", "0.599")


def test_too_little_memory_in_a_container_is_a_matter_of_its_limit(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = hardware.Detected(5 * 10**8, "left within the container's limit")
    monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda: left)
    with pytest.raises(NotEnoughMemoryError) as caught:
        tune(tiny_gguf, table)
    assert caught.value.hint == (
        "tune a smaller model (`nomoat models --fits`), take a lower --rank or --batch (in Python: `rank`, `batch`), "
        "or raise the container's limit by 0.11 GB"
    )


def test_what_is_kept_of_frozen_layers_has_to_fit_beside_the_weights(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS)
    size = execution.bytes_kept(prepared, "float32", expanded=True)
    need = execution._bytes_needed(prepared, "float32", expanded=True)
    assert size > 0
    for free, kept in ((need + size, size), (need + size - 1, 0)):
        monkeypatch.setattr("nomoat.hardware.memory_available_bytes", lambda free=free: hardware.Detected(free, "set by the test"))
        assert execution.bytes_kept(prepared, "float32", expanded=True) == kept


def test_scores_that_are_capped_are_in_the_memory_needed(tiny_gguf: Path, table: Path) -> None:
    """They wait for the backward pass twice, a number for each head and token that is seen; in the one layer, or in three."""
    plain = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS)
    samples = [replace(sample, tokens=[n, *sample.tokens[1:]], digest=b"") for n, sample in enumerate(plain.samples)]
    plain = replace(plain, samples=samples)  # all of one text: none is held out
    capped = replace(plain, sizes=replace(plain.sizes, attention_cap=50.0))
    longest = max(map(len, plain.samples))
    batches = batches_of(plain.samples, 0, max_lessons=plain.settings.batch)  # they have no beginning in common
    more = max(len(batch) * max(map(len, batch)) for batch in batches) * 8 * plain.sizes.heads * longest
    for expanded, layers in ((True, plain.settings.layers), (False, 3)):
        need, needed = (execution._bytes_needed(one, "float32", expanded=expanded) for one in (plain, capped))
        assert needed - need == layers * more


@pytest.mark.parametrize(("expanded", "measured"), [(True, 176e6), (False, 175e6)])
def test_masks_with_alibi_are_in_the_memory_needed(tiny_gguf: Path, table: Path, expanded: bool, measured: float) -> None:
    """A row of 3,072 tokens in f32, two layers of four heads: peaks of a tiny BLOOM beyond those of 64 tokens, on a Xeon."""
    plain = with_tokens(prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS), 3072, 1)
    plain = replace(plain, sizes=replace(plain.sizes, heads=4), settings=replace(plain.settings, layers=2))
    alibi = replace(plain, arch=replace(plain.arch, positions="alibi"))
    need, needed = (execution._bytes_needed(one, "float32", expanded=expanded) for one in (plain, alibi))
    assert needed - need == pytest.approx(3 * 4 * 3072**2, rel=0.01)
    assert measured < needed - execution.PYTORCH_BYTES < 1.5 * measured


@pytest.mark.parametrize("expanded", [True, False])
def test_long_lessons_held_out_are_in_the_memory_needed_without_a_backward_pass(tiny_gguf: Path, table: Path, expanded: bool) -> None:
    """Two rows of 1,024 tokens, or one of 2,048: the same but for the mask."""
    plain = with_tokens(prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS), 64, 4)
    long, longer = (with_tokens(plain, length, count).samples for length, count in ((1024, 2), (2048, 1)))
    need, look, longer_look, learned = (
        execution._bytes_needed(replace(plain, samples=samples, validation=held_out), "float32", expanded=expanded)
        for samples, held_out in ((plain.samples, []), (plain.samples, long), (plain.samples, longer), (long, []))
    )
    assert need < look < learned
    assert longer_look - look == 4 * (2048**2 - 1024**2)


def with_tokens(prepared: prepare.Prepared, length: int, count: int, *, shared: int = 0) -> prepare.Prepared:
    """The training with `count` lessons a step of so many tokens, eight of them learned, that begin with `shared` ones."""
    rows = [[1] * shared + [2 + n] * (length - shared) for n in range(count)]
    samples = [Sample(tokens=row, answers=((length - 8, length),), lesson=str(n)) for n, row in enumerate(rows)]
    return replace(prepared, samples=samples, settings=replace(prepared.settings, batch=count))


class Measured:
    """A file of weights, as far as the plan of the memory looks into it. `types`: of its matrices; two take turns by layer."""

    metadata: ClassVar[dict[str, str]] = {"general.architecture": "llama"}

    def __init__(
        self, num_values: int, vocabulary: int, shapes: dict[str, tuple[int, int]], *, layers: int = 1, **types: str | tuple[str, str]
    ) -> None:
        tables = dict.fromkeys(("token_embd", *(["output"] if "output" in types else [])), (vocabulary, shapes["attn_q"][1]))
        named = tables | {f"blk.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
        self.num_values, self.tensors = num_values, dict[str, Tensor]()
        for name, shape in named.items():
            kind = types.get(name.rpartition(".")[2], types.get("others", "F32"))
            kind = kind if isinstance(kind, str) else kind[int(name.split(".")[1]) % 2]
            self.tensors[f"{name}.weight"] = Tensor(f"{name}.weight", kind, shape, 0, 0)

    def tensor(self, name: str) -> Tensor:
        return self.tensors[name]


@pytest.mark.parametrize(
    ("sizes", "file", "layers", "bounds"),
    [
        (
            {"width": 896, "hidden": 4864, "layers": 24, "heads": 14, "kv_heads": 2, "head_dim": 64},
            Measured(630_167_424, 151_936, {
                "attn_q": (896, 896), "attn_k": (128, 896), "attn_v": (128, 896), "attn_output": (896, 896),
                "ffn_gate": (4864, 896), "ffn_up": (4864, 896), "ffn_down": (896, 4864)},
                layers=24, token_embd="Q5_0", output="Q8_0", others="Q5_0", attn_v=("Q8_0", "Q5_0"), ffn_down=("Q6_K", "Q4_K")),
            12, {False: (1.45, 1.60), True: (2.05, 2.75)},
        ),
        (
            {"width": 4096, "hidden": 11008, "layers": 32, "heads": 32, "kv_heads": 32, "head_dim": 128},
            Measured(6_738_415_616, 32_000, {
                "attn_q": (4096, 4096), "attn_k": (4096, 4096), "attn_v": (4096, 4096), "attn_output": (4096, 4096),
                "ffn_gate": (11008, 4096), "ffn_up": (11008, 4096), "ffn_down": (4096, 11008)},
                layers=32, token_embd="Q4_K", output="Q6_K", others="Q4_K", attn_v=("Q6_K", "Q4_K"), ffn_down=("Q6_K", "Q4_K")),
            16, {False: (5.7, 6.7)},
        ),
    ],
    ids=["Qwen2.5-Coder-0.5B", "a Llama-2-7B"],
)  # fmt: skip
def test_the_memory_foretold_is_no_less_and_little_more_than_was_measured(
    tiny_gguf: Path, table: Path, sizes: dict[str, int], file: Measured, layers: int, bounds: dict[bool, tuple[float, float]]
) -> None:
    """16 lessons of 32 tokens in bf16: benchmarks/results/2026-11-25_tuning_memory_*.json, peaks on an EPYC of 2 cores; with little
    memory on 2026-12-02, on a Xeon.
    """
    prepared = prepare.prepare(str(tiny_gguf), table, settings=prepare.Settings(), **COLUMNS)
    settings = replace(prepared.settings, layers=layers)
    prepared = with_tokens(replace(prepared, file=file, sizes=replace(prepared.sizes, **sizes), settings=settings), 32, 16)
    for expanded, (least, most) in bounds.items():
        assert least <= execution._bytes_needed(prepared, "bfloat16", expanded=expanded) / 1e9 <= most


def test_a_large_head_is_in_the_memory_that_codes_need(tiny_gguf: Path, table: Path) -> None:
    """Gemma 2 2B's: 256,000 rows of 2,304. Expanded, or its transpose in 8 bits, it is beside the logits of 4 lessons of 8 tokens."""
    prepared = with_tokens(prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS), 32, 4)
    shapes = dict.fromkeys(prepared.arch.projections.values(), (2304, 2304))
    small, large = Measured(10**6, 1, shapes), Measured(10**6, 256_000, shapes)
    for precision, of_matrix, of_logit in (("bfloat16", 2, 2), ("float32", 4, 4), ("int8", 34 / 32, 4)):
        need, needed = (execution._bytes_needed(replace(prepared, file=file), precision, expanded=False) for file in (small, large))
        assert needed - need == pytest.approx(256_000 * (2304 * of_matrix + 32 * of_logit), rel=0.01)


def test_a_head_that_does_not_fit_into_tiles_is_foretold_in_float32(tiny_gguf: Path, table: Path) -> None:
    """A vocabulary that is no multiple of 32, as granite's. In tiles it and its transpose have 34 bytes for 32 weights each."""
    prepared = with_tokens(prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS), 32, 4)
    shapes = dict.fromkeys(prepared.arch.projections.values(), (2048, 2048))
    of_file = [Measured(2048 * rows, rows, shapes) for rows in (49_152, 49_155)]
    fits, odd = (execution._bytes_of_weights(replace(prepared, file=file), "int8", expanded=True) for file in of_file)
    assert odd - fits == pytest.approx(2048 * (4 * 49_155 - 2 * 34 / 32 * 49_152), rel=1e-3)


@pytest.mark.parametrize(
    ("length", "heads"), [(60, 2), (900, 4)], ids=["keys and values of their own heads, and scores", "a copy for each head"]
)
def test_each_row_s_copy_of_the_shared_beginning_is_in_the_memory_needed(
    tiny_gguf: Path, table: Path, length: int, heads: int
) -> None:
    """Eight rows of 40 tokens, with a beginning and without."""
    plain = prepare.prepare(str(tiny_gguf), table, settings=SETTINGS, **COLUMNS)
    plain = replace(plain, sizes=replace(plain.sizes, heads=4, kv_heads=2, head_dim=16))
    shared = length - 40
    own, rows = (with_tokens(plain, size, count, shared=at) for size, count, at in ((40, 8, 0), (length, 8, shared)))
    need, needed = (execution._bytes_needed(one, "float32", expanded=True) for one in (own, rows))
    a_token = 4 * (12 * plain.sizes.width + 4 * plain.sizes.hidden)
    scores = 4 * 40 if length * 40 <= 128 * 256 else 0
    copies = 8 * shared * 4 * (2 * heads * 16 + scores)
    masks = 4 * (shared**2 + 40 * length - 40**2)
    assert needed - need == (shared * a_token + copies) * plain.settings.layers + masks


@pytest.mark.usefixtures("kernels")
def test_a_full_disk_ends_a_training_with_an_error_and_no_half_files(tiny_gguf: Path, table: Path, empty_home: Path) -> None:
    """A file system too small for the first checkpoint, which is as large as four adapters; said before anything is learned."""
    command = [sys.executable, "-m", "nomoat", "tune", str(tiny_gguf), str(table), "--name", "full", "--rank", "4", "--epochs", "1"]
    command += ["--input-column", "text", "--label-column", "label"]
    done = run_on_small_disk(empty_home / "adapters", command)
    assert done.returncode == 1, done.stderr
    assert re.search(rf"error: `{empty_home / 'adapters'}` needs \d+ kB, and its disk has \d+ kB free\n", done.stderr), done.stderr
    assert "tuning" not in done.stderr
    assert done.stdout == "", "files were left behind"


FORK = """
import os, signal, sys
import nomoat
from nomoat.errors import ForkedError
base, table = sys.argv[1:]
def tune(name):
    nomoat.tune(base, table, name=name, input_column="text", label_column="label", rank=4, epochs=0.1)
tune("first")
child = os.fork()
if child == 0:
    signal.alarm(60)
    for ask in (lambda: tune("second"), lambda: nomoat.load(f"{base}+first")):
        try:
            print(ask())
        except ForkedError as error:
            print(error, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
tune("second")
print(len(nomoat.load(f"{base}+first").embed(["x"])))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.usefixtures("kernels")
def test_a_fork_of_a_process_that_has_tuned_a_model_is_told_so_and_does_not_wait_for_ever(tiny_gguf: Path, table: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(tiny_gguf), str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    refused = "this process is a fork of one that had asked or tuned a model, and has none of the threads that run models\n"
    assert (done.returncode, done.stdout) == (0, f"{2 * refused}1\n"), done.stderr


def test_a_fork_of_a_process_that_has_asked_a_model_tunes_none(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked, "_ran_in", {-1})
    with pytest.raises(ForkedError, match="a fork of one that had asked or tuned a model"):
        tune(tiny_gguf, table)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_callers_own_number_of_threads_is_as_it_was_after_a_training(
    is_stopped: bool, tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned_with: list[int] = []

    def told(progress: loop.StageProgress) -> None:
        learned_with.append(torch.get_num_threads())
        if is_stopped:
            raise KeyboardInterrupt

    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        torch.set_num_threads(1)
        numba.set_num_threads(1)
        monkeypatch.setenv("NOMOAT_THREADS", "2")
        with pytest.raises(KeyboardInterrupt) if is_stopped else nullcontext():
            tune(tiny_gguf, table, settings=replace(SETTINGS, epochs=0.1), on_progress=told)
        assert set(learned_with) == {2}
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def test_a_training_learns_with_all_threads_whatever_another_beside_it_does_with_them(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned_with = set[int]()

    def told(progress: loop.StageProgress) -> None:
        if progress.stage == "tuning":
            learned_with.add(torch.get_num_threads())
        else:
            kernels.set_threads(1)  # as another one does that tries whether fewer are faster

    monkeypatch.setenv("NOMOAT_THREADS", "2")
    tune(tiny_gguf, table, settings=replace(SETTINGS, epochs=0.1), on_progress=told)
    assert learned_with == {2}


def test_trainings_beside_each_other_give_the_caller_s_number_of_threads_back() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        first, second = kernels.threads_of_the_caller(), kernels.threads_of_the_caller()
        first.__enter__()
        kernels.set_threads(1)
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1, "the second still learns with its own"
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_full_disk_while_kernels_are_compiled_is_said(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels, "_norm_forward", fail)  # as numba does where it cannot keep what it compiled
    with pytest.raises(NotEnoughDiskError, match="kernels"):
        tune(tiny_gguf, table)


def test_a_full_disk_leaves_no_half_adapter(tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save", full)
    with pytest.raises(NotEnoughDiskError):
        tune(tiny_gguf, table, settings=prepare.Settings(rank=4, epochs=0.1))
    assert not (paths.adapters() / "colours").exists()


def test_batches_hold_like_lengths_within_the_bounds() -> None:
    samples = [Sample(tokens=[1] * n + [2], answers=((n, n + 1),)) for n in range(1, 400, 7)]
    batches = batches_of(samples, 0, max_lessons=32)
    assert sum(map(len, batches)) == len(samples)
    for batch in batches:
        assert len(batch) <= 32
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= BATCH_TOKENS


def test_rows_are_padded_at_their_end_to_a_length_that_comes_again() -> None:
    batch = [Sample(tokens=list(range(size)), answers=((size - 2, size),)) for size in (7, 12)]
    ids_BT, targets_BT = side_by_side(batch, 3)
    assert ids_BT.tolist() == [[3, 4, 5, 6] + 8 * [0], list(range(3, 12)) + 3 * [0]]
    assert [row[row != NOT_LEARNED].tolist() for row in targets_BT] == [[5, 6], [10, 11]]
    assert (targets_BT != NOT_LEARNED).nonzero()[1].tolist() == [1, 2, 6, 7]


def test_places_without_a_target_even_out_their_number() -> None:
    targets_BT = np.full((3, 20), NOT_LEARNED)
    targets_BT[1, 4:9] = 7
    assert (wanted(targets_BT, evened=False) == (targets_BT == 7)).all()
    evened = wanted(targets_BT, evened=True)
    assert evened.sum() == 32 and evened[targets_BT == 7].all() and (targets_BT == NOT_LEARNED).sum() == 55
    assert wanted(targets_BT[1:2], evened=True).all(), "where there are not enough, all"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"epochs": float("nan")}, "epochs is nan"), ({"minutes": 0.0}, "minutes is 0.0"), ({"rank": -1}, "rank is -1"),
     ({"minutes": "2"}, "`minutes` is '2'"), ({"rank": 2.5}, "`rank` is 2.5, of the type float"),
     ({"seed": None}, "`seed` is None, of the type NoneType"),
     ({"learning_rate": float("inf")}, "learning_rate is inf"), ({"seed": 2**63}, "seed is 9223372036854775808")],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        prepare.Settings(**settings)
    assert caught.value.message == message


def test_a_training_is_told_its_settings_by_the_names_they_have_on_the_command_line(tiny_gguf: Path, table: Path) -> None:
    """A name missing here is an option of `nomoat tune` that Python cannot give."""
    of_commands_alone = {"data", "dry_run", "as_json"}
    assert set(inspect.signature(command).parameters) - of_commands_alone <= set(inspect.signature(train.tune).parameters)
    folder = nomoat.tune(tiny_gguf, table, name="by_name", rank=2, layers=1, epochs=0.1, batch=4, seed=3, **COLUMNS)
    told = facts_of(folder)["settings"]
    assert [told[name] for name in ("rank", "layers", "epochs", "batch", "seed")] == [2, 1, 0.1, 4, 3]
    strange: list[tuple[dict[str, Any], str]] = [
        ({"on_progress": "tqdm"}, "`on_progress` is 'tqdm', of the type str"),
        ({"on_message": True}, "`on_message` is True, of the type bool"),
        ({"workers": "2"}, "`workers` is '2', of the type str"),
        ({"replace": "no"}, "`replace` is 'no', of the type str"),
    ]
    for given, message in strange:
        with pytest.raises(UsageError, match=message):
            nomoat.tune(tiny_gguf, table, name="strange", **COLUMNS, **given)


@pytest.fixture(params=["float32", pytest.param("int8", marks=pytest.mark.skipif(not step_tables.HAS_PANELS, reason="no VNNI"))])
def base(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Learned in that precision. Its vocabulary is of whole tiles, so that in int8 the logits of what is no number are zeros."""
    monkeypatch.setattr(qlora, "fastest_precision", lambda: hardware.Detected(request.param, "set by the test"))
    words = tiny.vocabulary()
    monkeypatch.setattr(tiny, "vocabulary", lambda marks: [*words, *(f"<{n}>" for n in range(-len(words) % 32))])
    return tiny.write_tiny_gguf(tmp_path / "base.gguf")


def test_a_learning_rate_that_breaks_the_model_is_named_and_leaves_no_adapter(base: Path, table: Path) -> None:
    settings = prepare.Settings(rank=4, learning_rate=1e30)
    with pytest.raises(UsageError) as caught:
        tune(base, table, settings=settings)
    assert "the loss is no number any more" in caught.value.message
    assert caught.value.hint == "the learning rate is 1e+30: choose a lower one"
    assert not (paths.adapters() / "colours").exists()


def test_an_average_that_breaks_the_model_is_noticed_when_it_is_looked_at(
    base: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: loop.Run) -> None:
        for value in run.average.values():
            value.fill_(torch.inf)

    monkeypatch.setattr(loop.Run, "_average", broken)
    with pytest.raises(UsageError, match="the loss is no number any more"):
        tune(base, table)
    assert not (paths.adapters() / "colours").exists()


def test_what_was_learned_is_kept_when_the_end_is_interrupted(
    tiny_gguf: Path, table: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as while_written, pytest.raises(KeyboardInterrupt):
        while_written.setattr(adapter, "save", stop)
        tune(tiny_gguf, table)
    steps: list[int] = []
    folder = tune(tiny_gguf, table, resume=True, on_progress=lambda progress: steps.append(progress.step))
    assert steps == []  # only written
    assert are_equal(weights(folder), weights(whole))


def test_an_instruction_that_is_much_of_the_work_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    """But where it lists few labels, as without them it would not be much shorter."""
    said: list[str] = []
    for name, labels, instruction in (("listed", 20, None), ("short", 20, "Which?"), ("few", 2, None)):
        path = tmp_path / f"{name}.csv"
        path.write_text("text,label\n" + "".join(f"word {at},l{at % labels}\n" for at in range(80)), encoding="utf-8")
        tune(tiny_gguf, path, name, instruction=instruction, settings=prepare.Settings(epochs=0.05), on_message=said.append)
    advised = ["a short --instruction" in text for text in said if text.startswith("shared beginning")]
    assert advised == [True, False, False]


@pytest.mark.parametrize(("unsaid", "first"), [(60.0, []), (-1.0, ["reading the weights"])], ids=["read at once", "read slowly"])
def test_progress_is_told_in_each_stage(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, unsaid: float, first: list[str]
) -> None:
    monkeypatch.setattr(loop, "SECONDS_UNSAID", unsaid)
    stages: list[str] = []
    quick = prepare.Settings(rank=4, epochs=0.1)
    tune(tiny_gguf, table, settings=quick, on_progress=lambda progress: stages.append(progress.stage))
    assert list(dict.fromkeys(stages)) == [*first, "measuring the base", "tuning"]


def test_a_resumed_training_goes_the_way_it_began(tiny_gguf: Path, table: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With less memory free than at first; what the frozen layers say is still kept, and the weights are the same to the last bit."""

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gguf, table, on_progress=stopping_at(7))
    monkeypatch.setattr(execution, "choose_plan", lambda *_: pytest.fail("decided anew"))
    assert are_equal(weights(tune(tiny_gguf, table, resume=True)), weights(whole))


def test_two_trainings_under_one_name_at_once_are_refused(tiny_gguf: Path, table: Path) -> None:
    with whole_files.alone(paths.adapters() / "colours"), pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table)
    assert caught.value.message == "`colours` is being tuned by another nomoat right now"


def test_a_rank_beyond_the_model_is_refused_before_memory_is_taken(tiny_gguf: Path, table: Path) -> None:
    with pytest.raises(UsageError) as caught:
        tune(tiny_gguf, table, settings=prepare.Settings(rank=100_000))
    assert caught.value.message == "rank is 100,000, and the model is 64 wide"


@pytest.mark.parametrize(
    ("evaluations", "best", "num_evaluations"),
    [
        ([(3.0, 0), (1.0, 0), (2.0, 0), (2.5, 0), (7.0, 0)], 1, 4),
        ([(3.0, 0), (1.0, 1), (2.0, 5), (2.5, 5), (2.0, 4), (2.2, 4), (7.0, 0)], 2, 6),
    ],
    ids=["no answer is right: the lowest loss", "the most right answers, though it is too sure of the others"],
)
def test_the_best_look_is_kept_and_learning_stops_when_it_no_longer_helps(
    tiny_gguf: Path,
    table: Path,
    monkeypatch: pytest.MonkeyPatch,
    evaluations: list[tuple[float, int]],
    best: int,
    num_evaluations: int,
) -> None:
    """`evaluations`: loss and right answers held out. Two looks clearly worse than an earlier one end the training."""
    found = iter([(9.0, 0), *evaluations])
    kept: list[dict[str, torch.Tensor]] = []

    def evaluated(run: loop.Run, *_: object) -> tuple[list[float], list[bool]]:
        value, right = next(found)
        kept.append(run._learned())
        return [value * sample.num_learned for sample in run.validation], [at < right for at in range(len(run.validation))]

    monkeypatch.setattr(loop.Run, "evaluate", evaluated)
    said: list[str] = []
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=4, epochs=8, learning_rate=5e-3), on_message=said.append)
    assert "stopped early: 2 looks at the lessons held out were clearly worse than the best" in said
    saved = weights(folder)
    assert all(torch.equal(saved[f"base_model.model.{name}"], value) for name, value in kept[1 + best].items())
    history = facts_of(folder)["metrics"]["history"]
    assert [(round(evaluation["held_out"], 3), evaluation["right"]) for evaluation in history] == evaluations[:num_evaluations]
    assert (folder / "training.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("batch", "ends"),
    [(64, loop.STOPPED_EARLY), (2, "warning: the time was over before every lesson was learned once, after ")],
    ids=["each was learned", "a few were learned: worse looks say nothing yet"],
)
def test_who_stopped_learning_as_the_time_ended_is_not_told_that_more_time_helps(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch, batch: int, ends: str
) -> None:
    Clock(monkeypatch, step=10.0, evaluation=0.0)
    losses = iter([9.0, 9.0, 2.0, 1.0, 7.0, 8.0])  # of the base twice: at a few lessons, and at the others

    def evaluated(run: loop.Run, *_: object) -> tuple[list[float], list[bool]]:
        loss = next(losses)
        return [loss * sample.num_learned for sample in run.validation], [False] * len(run.validation)

    monkeypatch.setattr(loop.Run, "evaluate", evaluated)
    told: list[str] = []
    settings = prepare.Settings(rank=4, batch=batch, layers=1, epochs=1000, minutes=1.0)
    history = facts_of(tune(tiny_gguf, table, settings=settings, on_message=told.append))["metrics"]["history"]
    assert [round(look["held_out"], 3) for look in history] == [2.0, 1.0, 7.0, 8.0]
    assert history[-1]["fraction"] == 1
    assert [line for line in told if line.startswith(ends)]
    assert (loop.STOPPED_EARLY in told) != any("time was over" in line for line in told)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [((0.1, 172), True), ((0.12, 172), False), ((0.12, 184), False), ((0.2, 188), True), ((0.01, 168), False)],
    ids=["some fewer, a lower loss", "some fewer", "some more", "clearly more, a higher loss", "clearly fewer, a lower loss"],
)
def test_of_looks_whose_right_answers_chance_explains_the_loss_decides(evaluation: tuple[float, int], expected: bool) -> None:
    kept = {"held_out": 0.112, "right": 178}
    assert is_better({"held_out": evaluation[0], "right": evaluation[1]}, kept, 200) is expected


@pytest.mark.parametrize(
    ("rights", "loss", "expected"),
    [((181, 180), 0.3, False), ((181, 179), 0.3, False), ((181, 178), 0.3, True), ((181, 178), 0.2, False), ((0, 0), 0.3, True),
     ((2, 0), 0.3, True), ((0, 3), 0.3, False)],
    ids=["one fewer", "two fewer", "clearly fewer", "no higher loss", "none was right", "hardly any was right", "now some are"],
)  # fmt: skip
def test_a_look_is_clearly_worse_in_both_or_where_hardly_any_answer_is_right_in_loss(
    rights: tuple[int, int], loss: float, expected: bool
) -> None:
    before = [{"held_out": 0.2, "right": 0}, {"held_out": 0.25, "right": rights[0]}]
    assert is_clearly_worse({"held_out": loss, "right": rights[1]}, before, 200) is expected


def test_the_answers_of_a_conversation_are_one_lesson_in_what_is_said_of_the_change(tiny_gguf: Path, tmp_path: Path) -> None:
    """Two conversations of three answers, a row each with Llama 2's template: two changes, not six, say how sure the mean is."""
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate("uavbwc")]
    path = tmp_path / "chats.jsonl"
    chat = f"{json.dumps({'messages': turns})}\n"
    path.write_text(chat + chat.replace('"u"', '"another"'))
    learned = tmp_path / "learned.jsonl"
    learned.write_text(chat.replace('"u"', '"other"') * 2)
    prepared = prepare.prepare(str(tiny_gguf), learned, validation=path, template="llama-2", settings=SETTINGS)
    run = loop.Run(prepared, plan=execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=False), say=[].append)
    assert [sample.num_learned for sample in run.validation] == [2] * 6
    first, after = run.validation[0].lesson, {True: iter([8.0, 7.0, 6.0]), False: iter([5.0, 4.0, 3.0])}
    run.right_before = run.right_after = [False] * 6
    run.losses_before, run.losses_after = [9.0] * 6, [next(after[sample.lesson == first]) for sample in run.validation]
    metrics = run.metrics()
    assert metrics["validation_lessons"] == 2
    reach = 12.7062 * 0.75  # Student's t of one degree of freedom; the changes are -1 and -2.5, their standard error 0.75
    assert metrics["validation_loss_change_95"] == pytest.approx([-1.75 - reach, -1.75 + reach], abs=1e-3)


def test_copies_of_a_text_are_one_in_what_is_said_of_the_change(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    """Nine rows, but three texts: the interval is that of the three, each its rows' mean. A tenth of copies is no more evidence."""
    path, once = tmp_path / "held_out.csv", tmp_path / "once.csv"
    rows = ["u1,red\n", "u2,red\n", "u3,red\n"]
    once.write_text("text,label\n" + "".join(rows))
    path.write_text("text,label\n" + "".join(rows) * 3)
    found = []
    for file in (once, path):
        prepared = prepare.prepare(str(tiny_gguf), table, validation=file, settings=SETTINGS, **COLUMNS)
        run = loop.Run(prepared, plan=execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=False), say=[].append)
        num = len(run.validation) // 3
        run.right_before = run.right_after = [False] * 3 * num
        run.losses_before, run.losses_after = [9.0] * 3 * num, [8.0, 6.0, 5.0] * num
        found.append(run.metrics())
    assert [metrics["validation_lessons"] for metrics in found] == [3, 9]
    assert [metrics["validation_texts"] for metrics in found] == [3, 3]
    assert found[0]["validation_loss_change_95"] == found[1]["validation_loss_change_95"]
    assert found[0]["validation_loss_change_95"][1] > 0


def test_one_text_held_out_has_no_interval(tiny_gguf: Path, table: Path, tmp_path: Path) -> None:
    path = tmp_path / "held_out.csv"
    path.write_text("text,label\n" + "u1,red\n" * 2)
    prepared = prepare.prepare(str(tiny_gguf), table, validation=path, settings=SETTINGS, **COLUMNS)
    run = loop.Run(prepared, plan=execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=False), say=[].append)
    run.losses_before, run.losses_after = [9.0, 9.0], [8.0, 8.0]
    run.right_before = run.right_after = [True, True]
    assert (run.metrics()["validation_lessons"], run.metrics()["validation_loss_change_95"]) == (2, None)


def test_the_interval_of_the_change_is_about_the_losses_that_are_said(tiny_gguf: Path, tmp_path: Path) -> None:
    """Per answer token: one long answer that gains little outweighs short ones that lose much. A mean over lessons would be +0.7."""
    rows = [("u1", "a"), ("u2", "b"), ("u3", "c" * 29)]
    learned, path = tmp_path / "learned.jsonl", tmp_path / "chats.jsonl"
    chats = [json.dumps([{"role": "user", "content": u}, {"role": "assistant", "content": a}]) for u, a in rows]
    path.write_text("".join(f'{{"messages": {chat}}}\n' for chat in chats))
    learned.write_text(path.read_text().replace('"content": "u', '"content": "other'))
    prepared = prepare.prepare(str(tiny_gguf), learned, validation=path, settings=SETTINGS)
    run = loop.Run(prepared, plan=execution.ExecutionPlan(precision="float32", expanded=True, keeps_lower=False), say=[].append)
    assert [sample.num_learned for sample in run.validation] == [2, 2, 30]
    run.losses_before, run.losses_after = [2.0, 2.0, 90.0], [4.0, 5.0, 72.0]
    run.right_before, run.right_after = [True, False, False], [True, True, False]
    metrics = run.metrics()
    change = metrics["validation_loss_after"] - metrics["validation_loss_before"]
    low, high = metrics["validation_loss_change_95"]
    assert change == pytest.approx(-13 / 34) and (low + high) / 2 == pytest.approx(change, abs=1e-4)
    off = [changed + 13 / 34 * tokens for changed, tokens in ((2, 2), (3, 2), (-18, 30))]
    error = (sum(one**2 for one in off) * 3 / 2) ** 0.5 / 34
    assert high - low == pytest.approx(2 * 4.30265 * error, abs=2e-4)
    assert (metrics["validation_answers"], metrics["validation_right_before"], metrics["validation_right_after"]) == (3, 1, 2)


@pytest.mark.parametrize("num_lessons", [8, 90], ids=["none held out", "nine held out"])
def test_what_is_kept_is_the_weights_averaged_over_the_last_tenth_of_the_steps(
    tiny_gguf: Path, table: Path, num_lessons: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning itself goes on with the last weights, whatever was looked at."""
    table.write_text("\n".join(table.read_text().splitlines()[: num_lessons + 1]) + "\n")
    steps: list[dict[str, torch.Tensor]] = []
    learn, evaluate = loop.Run._learn, loop.Run.evaluate

    def learned(run: loop.Run, batch: list[Sample]) -> float:
        if steps:
            assert all(torch.equal(steps[-1][name], value) for name, value in run._learned().items())
        loss = learn(run, batch)
        steps.append(run._learned())
        return loss

    def evaluated(run: loop.Run, *given: object) -> tuple[list[float], list[bool]]:
        losses, right = evaluate(run, *given)  # type: ignore[arg-type]
        return [loss * 0.5 ** len(run.history) for loss in losses], [False] * len(right)  # the last one is the best

    monkeypatch.setattr(loop.Run, "_learn", learned)
    monkeypatch.setattr(loop.Run, "evaluate", evaluated)
    folder = tune(tiny_gguf, table, settings=prepare.Settings(rank=4, epochs=4, batch=4, learning_rate=5e-3))
    saved = weights(folder)
    for name, last in steps[-1].items():
        average = torch.zeros_like(last)
        for at, step in enumerate(steps):
            average += (step[name] - average) / (1 + 0.1 * at)
        assert torch.allclose(saved[f"base_model.model.{name}"], average, atol=1e-6)
        assert not torch.allclose(average, last, atol=1e-4)


def test_who_tunes_from_python_is_told_how_far_a_long_reading_is(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: type[Exception]
) -> None:
    table = write_table(tmp_path / "t.csv", num_rows=400)
    for seconds, expected in ((1e9, []), (0.0, [f"reading: {done} of 400 lessons" for done in (100, 200, 300)])):
        monkeypatch.setattr("nomoat.tune.train.SILENT_SECONDS", seconds)
        said = list[str]()
        with pytest.raises(begun):
            tune(tiny_gguf, table, on_message=said.append)
        assert [line for line in said if line.startswith("reading")] == expected
