"""`nomoat bench`, as a user's shell sees it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import shell

from nomoat import __version__ as nomoat_version
from nomoat.bench import machine as bench_machine
from nomoat.bench import model as bench_model

LIMITS = ["memory read, # thread # GB/s", "memory read, # threads # GB/s", "matrix product, float # # GFLOP/s"]


nomoat = functools.partial(shell.nomoat, COLUMNS="100")


def without_numbers(text: str) -> str:
    return re.sub(r" *\d[\d,]*(\.\d+)?", " #", text)


def without_compiling(said: str) -> str:
    """Other tests may have compiled it all, or not."""
    return said.replace("[compiling for this CPU (once)]\n", "")


def kept(measure: Callable[..., Any], found: list[Any]) -> Callable[..., Any]:
    """It measures, and what it finds is in `found`, too."""

    def measured(*arguments: Any, **options: Any) -> Any:
        found.append(measure(*arguments, **options))
        return found[-1]

    return measured


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests may run beside this one, on however many CPUs. What is measured is small."""
    monkeypatch.setenv("NOMOAT_THREADS", "2")
    small = functools.partial(bench_machine.measure_machine, read_bytes=8_000_000, read_seconds=0.05, gemm_size=256)
    monkeypatch.setattr(bench_machine, "measure_machine", small)
    monkeypatch.setattr(bench_machine, "read_load", lambda: bench_machine.Load(busy_cpus=0.1, num_cpus=8, is_busy=False))


def test_bench_prints_the_limits_of_this_machine() -> None:
    done = nomoat("bench")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert " cores " in first
    assert [without_numbers(line) for line in rest] == LIMITS


def test_bench_with_one_thread_reads_memory_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_THREADS", "1")
    assert [without_numbers(line) for line in nomoat("bench").stdout.splitlines()[1:]] == [LIMITS[0], LIMITS[2]]


def test_bench_of_a_model_holds_it_against_the_limits_and_is_a_table_for_people(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once, and printed both ways."""
    found: list[Any] = []
    for module, measure in ((bench_machine, "measure_machine"), (bench_model, "measure_model")):
        monkeypatch.setattr(module, measure, kept(getattr(module, measure), found))
    done = nomoat("bench", str(tiny_gguf), "--quality", "high", "--json")
    assert (done.returncode, without_compiling(done.stderr)) == (0, f"[importing {tiny_gguf} (once)]\n[timing {tiny_gguf}]\n")
    said = json.loads(done.stdout)
    machine, model = said["machine"], said["model"]
    assert (model["model"], model["turns"]) == (str(tiny_gguf), 3)
    assert "(quality high: " in model["stored_as"]
    assert model["decode_limit_tokens_per_second"] == pytest.approx(machine["read_bytes_per_second"] / model["read_bytes_a_token"])
    assert model["read_bytes_a_token"] > model["weights_read_bytes"]
    assert model["prefill_share"] == pytest.approx(model["prefill_tokens_per_second"] / model["prefill_float32_tokens_per_second"])
    for module, measure, one in ((bench_model, "measure_model", found[0]), (bench_machine, "measure_machine", found[1])):
        monkeypatch.setattr(module, measure, lambda *_args, one=one, **_options: one)
    done = nomoat("bench", str(tiny_gguf))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == found[1].summary
    assert [without_numbers(line) for line in lines[1:4]] == LIMITS and lines[4] == ""
    assert lines[5] == f"{tiny_gguf}, best of 3, one request at a time"
    starts = ["load to", "prefill,", "decode,", "stored a", "read a t", "float32", "memory a"]
    assert [line[:8].strip() for line in lines[6:]] == starts


def test_bench_says_that_the_machine_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    done = json.loads(nomoat("bench", "--json").stdout)
    assert done["nomoat"] == nomoat_version and abs(datetime.now(UTC) - datetime.fromisoformat(done["date"])) < timedelta(minutes=5)
    assert done["load"] == {"busy_cpus": 0.1, "num_cpus": 8, "is_busy": False}
    found = bench_machine.Machine(**done["machine"])
    monkeypatch.setattr(bench_machine, "measure_machine", lambda: found)
    monkeypatch.setattr(bench_machine, "read_load", lambda: bench_machine.Load(busy_cpus=1.93, num_cpus=2, is_busy=True))
    assert nomoat("bench").stderr == (
        "note: the machine was busy: other programs used 1.9 of its 2 CPUs just before; the figures are smaller for it: close them, "
        "or believe the larger of two runs\n"
    )


def test_bench_of_an_unknown_file_names_it() -> None:
    done = nomoat("bench", "none.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no file at `none.gguf`\nhint: check the path, or see what there is with `nomoat models`\n"


def test_a_quality_of_no_model_is_refused() -> None:
    done = nomoat("bench", "--quality", "high")
    assert done.returncode == 1
    assert done.stderr == "error: --quality is of a model, and none is named\nhint: add MODEL\n"
