"""Tuning speed beside other trainers: the very same batches of tokens, rank and rate, held-out loss at the end, turn by turn.

    python benchmarks/tuning_speed.py smollm2-135m --data FOLDER --hf FOLDER --peer-python PYTHON [--litgpt PROGRAM] [--steps 40]
    python benchmarks/tuning_speed.py smollm2-135m --data FOLDER --hf FOLDER --peer-python PYTHON --seeds 0 1 2
    python benchmarks/tuning_speed.py smollm2-135m --data FOLDER --hf FOLDER --peer-python PYTHON --long [--steps 20]

--data: a folder with banking77/train.csv (gzipped or not), the lessons; with --long with vicuna_blog_eval, whose answers of some 300
tokens are learned: 6 conversations a step in place of 32 messages. --hf: the GGUF's dequantised float32 weights as `transformers`
saves them.
PYTHON: of an environment with `torch transformers peft trl`. PROGRAM: `litgpt` of one of its own; it learns the same lessons by its
own defaults (its prompt around them, rank 8 on two matrices a layer). Each contender is a process of its own. Tokens are those of the
lessons, without padding and prompts around them; ours finds nothing shared between lessons here. Seconds include what is done once.
Several seeds (of batches, lessons held out and fresh adapters): ours with all layers and PEFT only, whose losses are compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from facts import answer_of, circumstances, existing_folder, program, write

LITGPT_NAMES = {"smollm2-135m": "SmolLM2-135M-Instruct"}
OURS, PEFT = "ours, all layers", "transformers + PEFT, float32"
LESSONS_A_STEP, POOL, HELD_OUT, RANK, RATE = 32, 640, 200, 16, 8e-4
LONG_LESSONS_A_STEP, LONG_POOL, LONG_HELD_OUT = 6, 120, 40
CONVERSATIONS = "vicuna_blog_eval/eval/table"
Pair = tuple[list[int], list[int]]  # prompt and answer


def shuffled_rows(data: Path) -> list[dict[str, str]]:
    """Banking77's training rows: text and category in words."""
    from tuning import training_file

    rows = list(csv.DictReader(training_file(data, "banking77/train.csv").decode("utf-8").splitlines()))
    random.Random(0).shuffle(rows)
    return [{"text": row["text"], "category": row["category"].replace("_", " ")} for row in rows]


def pairs_of(model: str, rows: list[dict[str, str]]) -> tuple[list[Pair], int]:
    """Prompt and answer of each row in tokens, and the token that ends an answer."""
    from nomoat import references
    from nomoat.engine.gguf import GGUFFile

    tokenizer = GGUFFile(references.find_files(model).weights).read_tokenizer()
    pairs = [
        (tokenizer.encode(f"Message: {row['text']}\nIntent:"), [*tokenizer.encode(" " + row["category"]), tokenizer.special.eos_id])
        for row in rows
    ]
    return pairs, tokenizer.special.eos_id


def long_pairs_of(model: str, data: Path) -> tuple[list[Pair], int]:
    """Vicuna's 80 questions, each with the answers of seven models, as the model is asked."""
    from nomoat import references
    from nomoat.engine.gguf import GGUFFile
    from nomoat.records import Message

    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    tokenizer = GGUFFile(references.find_files(model).weights).read_tokenizer()
    questions = {row["question_id"]: row["text"] for row in read(data / CONVERSATIONS / "question.jsonl")}
    answers = [row for path in sorted((data / CONVERSATIONS / "answer").glob("*.jsonl")) for row in read(path) if row["text"].strip()]
    prompts = (tokenizer.render([Message(role="user", content=questions[row["question_id"]])]) for row in answers)
    end = tokenizer.special.eos_id
    return [
        (tokenizer.encode(prompt), [*tokenizer.encode(row["text"]), end]) for prompt, row in zip(prompts, answers, strict=True)
    ], end


def task(model: str, data: Path, steps: int, seed: int, *, is_long: bool) -> dict[str, Any]:
    """Batches of lessons of like length, and lessons held out, in tokens."""
    pairs, eos = long_pairs_of(model, data) if is_long else pairs_of(model, shuffled_rows(data))
    lessons, pooled, num_held = (LONG_LESSONS_A_STEP, LONG_POOL, LONG_HELD_OUT) if is_long else (LESSONS_A_STEP, POOL, HELD_OUT)
    drawn = random.Random(seed)
    drawn.shuffle(pairs)
    held_out, rest = pairs[:num_held], pairs[num_held:]
    batches = []
    for _ in range(steps):
        pool = sorted(drawn.sample(rest, pooled), key=lambda pair: len(pair[0]) + len(pair[1]))
        at = drawn.randrange(pooled - lessons)
        batches.append(pool[at : at + lessons])
    return {"batches": batches, "held_out": held_out, "rank": RANK, "rate": RATE, "eos": eos, "seed": seed, "falling": True}


def ours(model: str, path: Path, *, all_layers: bool) -> dict[str, Any]:
    """Our network and step on these batches."""
    from nomoat import config, references
    from nomoat.engine import importer
    from nomoat.engine.source import open_source
    from nomoat.tune import execution, kernels, loop, prepare, qlora
    from nomoat.tune.samples import Sample

    layers = importer.read_sizes(open_source(references.find_files(model).weights)).layers if all_layers else None
    given = json.loads(path.read_text(encoding="utf-8"))
    table = path.with_name("lessons.csv")
    table.write_text("text,label\none,a\ntwo,b\n", encoding="utf-8")  # replaced below by the batches' tokens
    prepared = prepare.prepare(
        model, table, input_column="text", label_column="label", settings=prepare.Settings(layers=layers, seed=given["seed"])
    )

    def sample(pair: Pair) -> Sample:
        return Sample(tokens=[*pair[0], *pair[1]], answers=((len(pair[0]), len(pair[0]) + len(pair[1])),))

    batches = [[sample(pair) for pair in batch] for batch in given["batches"]]
    held_out = [sample(pair) for pair in given["held_out"]]
    precision = qlora.fastest_precision().value
    kernels.use_threads(config.threads().value, types=execution.types_in_tiles(prepared, precision))
    plan = execution.ExecutionPlan(precision=precision, expanded=True, keeps_lower=False)
    run = loop.Run(replace(prepared, samples=[lesson for batch in batches for lesson in batch]), plan=plan, say=lambda _text: None)
    run.prefix, run.beginning = 0, None
    tokens, started = 0, time.perf_counter()
    for step, batch in enumerate(batches):
        run.optimizer.rate = given["rate"] * min((step + 1) / 10, 1 - step / len(batches))  # falling as the peer's does
        run.network.loss(*run.hidden(batch))[0].backward()
        run.optimizer.step()
        tokens += sum(map(len, batch))
    seconds = time.perf_counter() - started
    run.look_at(held_out)
    return {"tokens": tokens, "seconds": seconds, "held_out_loss": run._mean(run.evaluate()[0])}


def litgpt(arguments: argparse.Namespace, task: Path) -> dict[str, Any]:
    """`litgpt finetune_lora` by its defaults on the same lessons, once through. Seconds: of its iterations, as it prints them."""
    from nomoat import references
    from nomoat.engine.gguf import GGUFFile

    tokenizer = GGUFFile(references.find_files(arguments.model).weights).read_tokenizer()
    lessons: list[Pair] = [pair for batch in json.loads(task.read_text(encoding="utf-8"))["batches"] for pair in batch]
    folder, data = task.with_name("litgpt"), task.with_name("lessons.json")
    shutil.copytree(arguments.hf, folder, dirs_exist_ok=True)
    data.write_text(
        json.dumps([{"instruction": tokenizer.decode(prompt), "output": tokenizer.decode(answer[:-1])} for prompt, answer in lessons]),
        encoding="utf-8",
    )
    name = LITGPT_NAMES[arguments.model]
    commands = (
        ("convert_to_litgpt", str(folder), "--model_name", name),
        ("finetune_lora", str(folder), "--data", "JSON", "--data.json_path", str(data), "--train.epochs", "1",
         "--out_dir", str(task.with_name("out"))),
    )  # fmt: skip
    for command in commands:
        done = subprocess.run([arguments.litgpt, *command], stdout=subprocess.PIPE, text=True, check=True)
    times = [float(found) / 1000 for found in re.findall(r"iter time: ([\d.]+) ms", done.stdout)]
    length = mean(len(prompt) + len(answer) for prompt, answer in lessons)
    return {"tokens": round(length * len(times)), "seconds": sum(times), "held_out_loss": None}


def in_turn(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Each contender in a process of its own; with several seeds only ours with all layers and PEFT."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(
            json.dumps(task(arguments.model, arguments.data, arguments.steps, seed, is_long=arguments.long)), encoding="utf-8"
        )
        peer = [arguments.peer_python, str(Path(__file__).with_name("tuning_speed_peers.py"))]
        me = [sys.executable, __file__, arguments.model, "--task", str(path)]
        commands = {
            OURS: [*me, "--all-layers"],
            PEFT: [*peer, "peft", str(arguments.hf), str(path)],
        }
        if len(arguments.seeds) == 1:
            commands |= {"ours, as it comes": me, "TRL SFTTrainer": [*peer, "trl", str(arguments.hf), str(path)]}
        runs: dict[str, Callable[[], dict[str, Any]]] = {name: partial(answer_of, command) for name, command in commands.items()}
        if arguments.litgpt:
            runs["LitGPT"] = partial(litgpt, arguments, path)
        found = {}
        for name, run in runs.items():
            try:
                found[name] = run()
            except subprocess.CalledProcessError as exc:
                print(f"{name} failed: {exc}", flush=True)
                continue
            found[name]["tokens_per_second"] = round(found[name]["tokens"] / found[name]["seconds"], 1)
            print(seed, name, found[name], flush=True)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--hf", type=existing_folder)
    parser.add_argument("--peer-python", type=program)
    parser.add_argument("--litgpt", type=program)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--all-layers", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        found = ours(arguments.model, arguments.task, all_layers=arguments.all_layers)
        found["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
        print(json.dumps(found))
        return
    if not (arguments.data and arguments.hf and arguments.peer_python):
        parser.error("--data, --hf and --peer-python are needed")
    runs = {seed: in_turn(arguments, seed) for seed in arguments.seeds}
    found = {**circumstances(), "model": arguments.model, "steps": arguments.steps, "long": arguments.long, "contenders": runs}
    if whole := [run for run in runs.values() if OURS in run and PEFT in run]:  # neither has failed
        mean_loss = {name: mean(run[name]["held_out_loss"] for run in whole) for name in (OURS, PEFT)}
        found["mean_held_out_loss"] = mean_loss
        print(f"held-out loss, mean of {len(whole)}: {mean_loss[OURS]:.4f} and {mean_loss[PEFT]:.4f}")
    write(arguments.json, found)


if __name__ == "__main__":
    main()
