"""Peak memory of tuning, and the time of a step: weights expanded, and kept small (`codes`), of which the rest is made layer by layer.

    python benchmarks/tuning_memory.py MODEL.gguf [--steps 10] [--lessons 16] [--tokens 32] [--ways expanded codes] [--json FILE]

The lessons are random tokens, a quarter of them learned; --lessons of --tokens make a step. Each way is a process of its own. The
peak is of the resident set, every twentieth of a second; without the part that is mapped from files, which the system may drop and
read again, it stands beside that.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from facts import answer_of, circumstances, write
from large_model import Peak


def measured(arguments: argparse.Namespace, way: str) -> dict[str, Any]:
    """Some steps of a fresh training."""
    from nomoat import config
    from nomoat.tune import execution, kernels, loop, prepare, qlora
    from nomoat.tune.samples import Sample

    peak, drawn = Peak(), random.Random(0)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as table:
        table.write('{"instruction": "Say a.", "output": "a"}\n' * 2)  # replaced below
        table.flush()
        prepared = prepare.prepare(
            str(arguments.file), table.name, settings=prepare.Settings(batch=arguments.lessons, layers=arguments.layers)
        )
    learned = arguments.tokens // 4
    samples = [
        Sample(
            tokens=[drawn.randrange(300, 30_000) for _ in range(arguments.tokens)],
            answers=((arguments.tokens - learned, arguments.tokens),),
        )
        for _ in range(arguments.lessons * 2)
    ]
    precision = qlora.fastest_precision().value
    kernels.use_threads(config.threads().value, types=execution.types_in_tiles(prepared, precision))
    began = time.perf_counter()
    run = loop.Run(
        replace(prepared, samples=samples),
        plan=execution.ExecutionPlan(precision=precision, expanded=way == "expanded", keeps_lower=False),
        say=lambda _: None,
    )  # fmt: skip
    loaded = time.perf_counter()
    for _ in range(arguments.steps):
        run._learn(samples[: arguments.lessons])
    seconds = (time.perf_counter() - loaded) / arguments.steps
    return {"way": way, "precision": precision, "layers": prepared.settings.layers, "load_seconds": round(loaded - began, 1),
            "seconds_a_step": round(seconds, 2), **peak.facts()}  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    for name, default in (("steps", 10), ("lessons", 16), ("tokens", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--ways", nargs="+", choices=("expanded", "codes"), default=["expanded", "codes"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measured(arguments, arguments.here)))
        return
    found: dict[str, Any] = {
        **circumstances(), "file": arguments.file.name, "file_gb": round(arguments.file.stat().st_size / 1e9, 2),
        "tokens_a_step": arguments.lessons * arguments.tokens, "runs": [],
    }  # fmt: skip
    for way in arguments.ways:
        found["runs"].append(answer_of([sys.executable, *sys.argv, "--here", way]))
        print(found["runs"][-1], flush=True)
    write(arguments.json, found)


if __name__ == "__main__":
    main()
