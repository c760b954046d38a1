"""One process against several workers of this machine: tokens a second while learning, and what adding gradients up costs a step.

    python benchmarks/tuning_workers.py smollm2-135m FILE --input-column text --label-column category [--workers 2] [--json FILE]

FILE: a table to tune on; what is learned lies in the adapters benchmark-workersN. Turn by turn, the best of --rounds counts.
Seconds are those of learning alone: neither loading, nor starting workers, nor looking at lessons held out. Then gloo by itself:
two processes on loopback add up as many numbers as adapters have.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from facts import circumstances, write

TRIES = 30
MEGABYTES = (2.5, 10, 40)  # of adapters: a quarter of SmolLM2-135M's upper half at rank 16, the whole of it, that of a 1.5B


def tuned(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """What provenance.json says of a training with so many workers."""
    command = [sys.executable, "-m", "nomoat", "tune", options.model, options.file]
    command += ["--name", f"benchmark-workers{workers}", "--replace", "--json"]
    for name in ("input_column", "label_column", "instruction", "epochs", "batch"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run([*command, "--workers", str(workers)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)["metrics"]  # type: ignore[no-any-return]


def add_up(rank: int, port: int, found: Any) -> None:
    """One of two processes. Puts median milliseconds by megabytes."""
    import torch
    from torch import distributed

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    where = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=datetime.timedelta(minutes=2))
    for megabytes in MEGABYTES:
        numbers, times = torch.zeros(int(megabytes * 1e6 / 4)), []
        for _ in range(TRIES):
            distributed.barrier()
            began = time.perf_counter()
            distributed.all_reduce(numbers)
            times.append(time.perf_counter() - began)
        if rank == 0:
            found.put((megabytes, round(1e3 * median(times), 2), round(1e3 * min(times), 2)))
    distributed.destroy_process_group()


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("file")
    parser.add_argument("--input-column")
    parser.add_argument("--label-column")
    parser.add_argument("--instruction")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=29_517)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs: dict[int, list[dict[str, Any]]] = {1: [], options.workers: []}
    for _ in range(options.rounds):
        for workers, done in runs.items():
            done.append(tuned(options, workers))
            print(workers, done[-1]["tokens"] / done[-1]["seconds"], file=sys.stderr)
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    processes = [context.Process(target=add_up, args=(rank, options.port, found)) for rank in range(2)]
    for process in processes:
        process.start()
    allreduce = [found.get(timeout=300) for _ in MEGABYTES]
    for process in processes:
        process.join()
    said = {
        str(workers): {
            "tokens_per_second": [round(each["tokens"] / each["seconds"], 1) for each in done],
            "milliseconds_a_step": [round(1e3 * each["seconds"] / each["steps"], 1) for each in done],
            "milliseconds_a_step_adding_up": [each.get("milliseconds_a_step_adding_up") for each in done],
            "validation_loss": [each["validation_loss_after"] for each in done],
            "precision": done[0]["way"]["precision"],
            "steps": done[0]["steps"],
        }
        for workers, done in runs.items()
    }
    result = {
        **circumstances(), "model": options.model, "runs": said, "allreduce_mb_median_ms_best_ms": allreduce,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    write(options.json, result)


if __name__ == "__main__":
    main()
