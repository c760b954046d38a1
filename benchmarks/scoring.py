"""Choices by log-likelihood: ours against lm-eval-harness's Hugging Face backend, same prompts, same items, same weights, one run.

    python benchmarks/scoring.py smollm2-135m --hf FOLDER --lm-eval-python PYTHON [--banking77 FOLDER] [--shots 3] [--json FILE]

FOLDER: the GGUF's dequantised float32 weights as `transformers` saves them. PYTHON: of an environment with `lm-eval[hf]`.
Tasks: the sentences of `vader-reviews` (is it positive?), and messages of Banking77 (which of 77 topics?) where its folder is given,
after `--shots` messages of its training set with their topics.
Ours is timed twice: as it is, and with the context computed again for each choice.
"""

from __future__ import annotations

import argparse
import csv
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from facts import answer_of, circumstances, existing_folder, program, write

from nomoat import config, references
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine import importer
from nomoat.engine.local import LocalEngine
from nomoat.pool import DEFAULT_CONCURRENCY, run_many
from nomoat.records import Request


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its choices."""

    context: str
    choices: tuple[str, ...]
    target: str


def reviews(count: int) -> list[Item]:
    """Sentences of reviews on Amazon that people rated clearly."""
    path = pull_dataset("vader-reviews") / "amazonReviewSnippets_GroundTruth.txt"
    rows = [line.split("\t", 2) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    clear = [(float(rating), text.strip()) for _, rating, text in rows if abs(float(rating)) >= 1][:count]
    choices = (" negative", " positive")
    return [Item(f"Review: {text}\nThis review is", choices, choices[rating > 0]) for rating, text in clear]


def banking77(folder: Path, count: int, shots: int) -> list[Item]:
    """Messages of the test set, evenly spread, each after the same messages of the training set, evenly spread as well."""
    choices = {name: " " + name.replace("_", " ") for name in json.loads((folder / "categories.json").read_text())}
    question = "Message: {}\nTopic:"
    shown = "".join(f"{question.format(row['text'])}{choices[row['category']]}\n\n" for row in _spread(folder / "train.csv", shots))
    return [
        Item(
            f"Classify the customer's message to a bank by its topic.\n{shown}{question.format(row['text'])}",
            tuple(choices.values()), choices[row["category"]],
        )
        for row in _spread(folder / "test.csv", count)
    ]  # fmt: skip


def _spread(table: Path, count: int) -> list[dict[str, str]]:
    """So many rows, evenly spread."""
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows[:: max(1, len(rows) // count)][:count] if count else []


def ours(engine: LocalEngine, items: list[Item]) -> tuple[list[list[float]], float]:
    """Log-probability of each choice, and the seconds it all took; asked as suites are, by length and some at a time."""

    def work(item: Item, _left: threading.Event) -> list[float]:
        return [score.log_probability for score in engine.score(Request(prompt=item.context), item.choices)]

    began = time.perf_counter()
    order = sorted(range(len(items)), key=lambda at: -len(items[at].context))
    done = run_many(work, [items[at] for at in order], concurrency=DEFAULT_CONCURRENCY)
    found = {order[at]: values for at, values in done}
    return [found[at] for at in range(len(items))], time.perf_counter() - began


def recomputed_seconds(engine: LocalEngine, items: list[Item]) -> float:
    """The same with one call a choice, nothing of the context kept between two."""
    scorer = engine._held_scorer()
    began = time.perf_counter()
    for item in items:
        for choice in item.choices:
            scorer._kept_ids = []
            engine.score(Request(prompt=item.context), [choice])
    return time.perf_counter() - began


def lm_eval(options: argparse.Namespace, items: list[Item]) -> dict[str, Any]:
    """What lm-eval-harness answers."""
    asked = {
        "folder": str(options.hf), "batch_size": options.batch_size, "threads": config.threads().value,
        "pairs": [(item.context, choice) for item in items for choice in item.choices],
    }  # fmt: skip
    command = [options.lm_eval_python, str(Path(__file__).with_name("scoring_lm_eval.py"))]
    answer: dict[str, Any] = answer_of(command, asked)
    return answer


def accuracy(values: list[list[float]], items: list[Item]) -> float:
    """Share of items whose likeliest choice is the target."""
    return float(np.mean([item.choices[int(np.argmax(row))] == item.target for row, item in zip(values, items, strict=True)]))


def compared(engine: LocalEngine, items: list[Item], options: argparse.Namespace) -> dict[str, Any]:
    """One task's row."""
    ours(engine, items[:2])
    again = items[: options.recomputed]
    seconds_again = recomputed_seconds(engine, again)
    mine, seconds = ours(engine, items)
    peer = lm_eval(options, items)
    numbers = iter(peer["log_probabilities"])
    theirs = [[next(numbers) for _ in item.choices] for item in items]
    count = len(items)
    orders = [np.argsort(a).tolist() == np.argsort(b).tolist() for a, b in zip(mine, theirs, strict=True)]
    return {
        "items": count, "choices": len(items[0].choices), "lm_eval": peer["version"],
        "ours_seconds_per_item": seconds / count, "recomputed_seconds_per_item": seconds_again / len(again),
        "lm_eval_seconds_per_item": peer["seconds"] / count,
        "times_recomputed": seconds_again / len(again) / (seconds / count), "times_lm_eval": peer["seconds"] / seconds,
        "accuracy": accuracy(mine, items), "lm_eval_accuracy": accuracy(theirs, items),
        "same_answer": float(np.mean([np.argmax(a) == np.argmax(b) for a, b in zip(mine, theirs, strict=True)])),
        "same_whole_order": float(np.mean(orders)),
        "largest_difference": max(float(np.abs(np.subtract(a, b)).max()) for a, b in zip(mine, theirs, strict=True)),
        "lm_eval_log_probabilities": [[round(value, 4) for value in row] for row in theirs],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--hf", type=existing_folder, required=True)
    parser.add_argument("--lm-eval-python", type=program, required=True)
    parser.add_argument("--batch-size", type=int, default=8, help="lm-eval's: 8 was its fastest of 1, 8, 32 and 77 here")
    parser.add_argument("--reviews", type=int, default=100, help="items")
    parser.add_argument("--banking77", type=Path)
    parser.add_argument("--messages", type=int, default=12, help="items of Banking77")
    parser.add_argument("--shots", type=int, default=0, help="answered messages in each context of Banking77")
    parser.add_argument("--recomputed", type=int, default=3, help="items to compute again for each choice")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = references.find_files(options.model)
    engine = LocalEngine(importer.import_gguf(files.weights), weights=files.weights)
    tasks = {"reviews": reviews(options.reviews)}
    if options.banking77:
        tasks["banking77"] = banking77(options.banking77, options.messages, options.shots)
    row = {
        **circumstances(), "model": options.model, "batch_size": options.batch_size,
        "shots": options.shots, "tasks": {name: compared(engine, items, options) for name, items in tasks.items()},
    }  # fmt: skip
    write(options.json, row)
    for task in row["tasks"].values():
        del task["lm_eval_log_probabilities"]
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
