"""Time to the same held-out accuracy on Banking77, beside a plain loop of transformers and PEFT.

    python benchmarks/tuning_race.py smollm2-135m --data FOLDER --hf FOLDER --peer-python PYTHON [--minutes 2 3 4] [--json FILE]

The peer learns all layers for one epoch (--peer-steps fewer), its rate falling to nothing; seconds are those of its steps. Ours is
`nomoat tune --minutes M` as it comes, but for an instruction as short as the peer's, once for each M; seconds are those of its
process, the looks at the lessons it holds out among them. An answer is right if each of its tokens is the likeliest after those
before it. 500 lessons held out, the same for all.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from facts import answer_of, circumstances, existing_folder, program, write
from tuning_speed import LESSONS_A_STEP, RANK, RATE, pairs_of, shuffled_rows

HELD_OUT = 500
NAME = "bench-race"
COLUMNS: dict[str, Any] = {"input_column": "text", "label_column": "category", "instruction": "Which intent does this message have?"}


def peer_task(model: str, rows: list[dict[str, str]], steps: int | None) -> dict[str, Any]:
    """Batches of like length in a random order: pools of 20 batches are sorted and shuffled."""
    pairs, eos = pairs_of(model, rows)
    held_out, rest = pairs[:HELD_OUT], pairs[HELD_OUT:]
    drawn, batches = random.Random(0), []
    for start in range(0, len(rest), 20 * LESSONS_A_STEP):
        pool = sorted(rest[start : start + 20 * LESSONS_A_STEP], key=lambda pair: len(pair[0]) + len(pair[1]))
        batches += [pool[at : at + LESSONS_A_STEP] for at in range(0, len(pool), LESSONS_A_STEP)]
    drawn.shuffle(batches)
    return {"batches": batches[:steps], "held_out": held_out, "rank": RANK, "rate": RATE, "eos": eos, "falling": True}


def write_table(rows: list[dict[str, str]], path: Path) -> Path:
    """The rows as a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "category"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def accuracy(model: str, held_out: Path) -> float:
    """Part of the answers that the tuned network gives token for token."""
    import torch
    from safetensors.torch import load_file

    from nomoat import paths
    from nomoat.tune import execution, loop, prepare

    folder = paths.adapters() / NAME
    settings = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["settings"]
    options = prepare.Settings(rank=settings["rank"], layers=settings["layers"])
    prepared = prepare.prepare(model, held_out, settings=options, **COLUMNS)
    run = loop.Run(prepared, plan=execution.choose_plan(prepared, lambda _: None), say=lambda _: None)
    run._use(
        {name.removeprefix("base_model.model."): value for name, value in load_file(folder / "adapter_model.safetensors").items()}
    )
    right = 0
    with torch.no_grad():
        for start in range(0, len(prepared.samples), 32):
            batch = prepared.samples[start : start + 32]
            hidden_NW, targets_N = run.hidden(batch)
            hits = (run.network.logits(hidden_NW).argmax(-1) == targets_N).split([sample.num_learned for sample in batch])
            right += sum(bool(whole.all()) for whole in hits)
    return right / len(prepared.samples)


def ours(model: str, lessons: Path, held_out: Path, minutes: float) -> dict[str, Any]:
    """The command, timed from outside."""
    options = {f"--{name.replace('_', '-')}": value for name, value in COLUMNS.items()} | {"--name": NAME, "--minutes": str(minutes)}
    command = [sys.executable, "-m", "nomoat", "tune", model, str(lessons), "--replace", *itertools.chain(*options.items())]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"minutes": minutes, "seconds": time.perf_counter() - started, "held_out_accuracy": accuracy(model, held_out)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--hf", type=existing_folder, required=True)
    parser.add_argument("--peer-python", type=program, required=True)
    parser.add_argument("--peer-steps", type=int)
    parser.add_argument("--minutes", type=float, nargs="+", default=[2, 3, 4])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = shuffled_rows(arguments.data)
    found: dict[str, Any] = {**circumstances(), "model": arguments.model, "ours": []}
    with tempfile.TemporaryDirectory() as work:
        lessons, held_out = (write_table(part, Path(work) / f"{at}.csv") for at, part in enumerate((rows[HELD_OUT:], rows[:HELD_OUT])))
        for minutes in arguments.minutes:
            found["ours"].append(ours(arguments.model, lessons, held_out, minutes))
            print(found["ours"][-1], flush=True)
        task = Path(work) / "task.json"
        task.write_text(json.dumps(peer_task(arguments.model, rows, arguments.peer_steps)), encoding="utf-8")
        command = [arguments.peer_python, str(Path(__file__).with_name("tuning_speed_peers.py")), "peft", str(arguments.hf), str(task)]
        found["peer"] = answer_of(command)
        print(found["peer"], flush=True)
    as_good = [run["seconds"] for run in found["ours"] if run["held_out_accuracy"] >= found["peer"]["held_out_accuracy"]]
    found["times_faster"] = found["peer"]["seconds"] / min(as_good) if as_good else None
    print("times faster:", found["times_faster"])
    write(arguments.json, found)


if __name__ == "__main__":
    main()
