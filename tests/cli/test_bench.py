"""`nomoat bench`, as a user's shell sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import shell


def nomoat(*arguments: str) -> shell.Done:
    return shell.nomoat(*arguments, COLUMNS="100")


def without_numbers(text: str) -> str:
    return re.sub(r" *\d[\d,]*(\.\d+)?", " #", text)


def without_compiling(said: str) -> str:
    """Other tests may have compiled it all, or not."""
    return said.replace("[compiling for this CPU (once)]\n", "")


def test_bench_prints_the_limits_of_this_machine() -> None:
    done = nomoat("bench")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert " cores " in first
    assert [without_numbers(line) for line in rest] == [
        "memory read, # thread #" + " GB/s",
        "memory read, # threads #" + " GB/s",
        "matrix product, float # #" + " GFLOP/s",
    ]


def test_bench_of_a_model_holds_it_against_the_limits(tiny_gguf: Path) -> None:
    done = nomoat("bench", str(tiny_gguf), "--json")
    assert (done.returncode, without_compiling(done.stderr)) == (0, f"[importing {tiny_gguf} (once)]\n[timing {tiny_gguf}]\n")
    said = json.loads(done.stdout)
    machine, model = said["machine"], said["model"]
    assert (model["model"], model["turns"]) == (str(tiny_gguf), 3)
    assert model["decode_limit_tokens_per_second"] == pytest.approx(machine["read_bytes_per_second"] / model["read_bytes_a_token"])
    assert model["read_bytes_a_token"] > model["weights_read_bytes"]
    assert model["prefill_share"] == pytest.approx(model["prefill_tokens_per_second"] / model["prefill_float32_tokens_per_second"])


def test_bench_of_a_model_is_a_table_for_people(tiny_gguf: Path) -> None:
    done = nomoat("bench", str(tiny_gguf))
    assert (done.returncode, without_compiling(done.stderr)) == (0, f"[importing {tiny_gguf} (once)]\n[timing {tiny_gguf}]\n")
    lines = done.stdout.splitlines()[5:]
    assert lines[0] == f"{tiny_gguf}, best of 3, one request at a time"
    starts = ["load to", "prefill,", "decode,", "stored a", "read a t", "float32", "memory a"]
    assert [line[:8].strip() for line in lines[1:]] == starts


def test_bench_of_an_unknown_file_names_it() -> None:
    done = nomoat("bench", "none.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: no file at `none.gguf`\nhint: check the path, or see what there is with `nomoat models`\n"
