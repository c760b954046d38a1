"""What a teacher's tasks and labels are worth: how many tasks are kept and why not the others, how many labels are the right ones.

    python benchmarks/distil.py [TEACHER] [--tasks 20] [--texts 100] [--json FILE]

Tasks: Alpaca's seeds, `nomoat distil`'s own settings. Labels: texts drawn from the test part of SMS Spam (split by CLARIN-PL), its two
labels, `nomoat distil --label`'s own question. Whether a task's answer is true is not measured: read them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from facts import circumstances, write

from nomoat import proportions, responder
from nomoat.asking.store import AnswerStore
from nomoat.distil import instructions, origin
from nomoat.distil.label import label
from nomoat.judge.suites import load_suite
from nomoat.responder import Responder

SUITE = "sms_spam"
SEED = 0


def measured_tasks(teacher: Responder, store: AnswerStore, num_tasks: int) -> dict[str, Any]:
    """The tasks, and what became of those that were offered."""
    seeds, _ = origin.load_seeds()
    began = time.perf_counter()
    found = instructions.distil(teacher, instructions.Plan(seeds=seeds, num_tasks=num_tasks), store=store)
    return {
        "kept": len(found.tasks),
        "offered": found.num_offered,
        "dropped": dict(found.dropped.most_common()),
        "partial": found.partial,
        **found.spent.facts(),
        "seconds": time.perf_counter() - began,
        "tasks": instructions.as_rows(found.tasks),
    }


def measured_labels(teacher: Responder, store: AnswerStore, num_texts: int) -> dict[str, Any]:
    """How many labels are the right ones, and how many are among those the teacher is sure of."""
    examples = random.Random(SEED).sample(load_suite(SUITE).examples, num_texts)
    texts = [example.messages[-1].content.partition("\n\nText: ")[2].removesuffix("\nLabel:") for example in examples]
    labels = examples[0].choices
    began = time.perf_counter()
    found = label(teacher, texts, labels, store=store)
    truth = {text: example.target for text, example in zip(texts, examples, strict=True)}
    right = [one.label == truth[one.text] for one in found.labels]
    frequent = max(labels, key=list(truth.values()).count)
    return {
        "texts": num_texts,
        "labelled": len(right),
        "by": found.how,
        "given": found.counts(),
        "right": sum(right),
        "interval": proportions.wilson_interval(sum(right), len(right)),
        "right_if_always_the_most_frequent": sum(example.target == frequent for example in examples),
        "truth": {name: sum(example.target == name for example in examples) for name in labels},
        "recall": {name: sum(ok for ok, one in zip(right, found.labels, strict=True) if truth[one.text] == name) for name in labels},
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", nargs="?", default="qwen2.5-coder-1.5b")
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {**circumstances(), "teacher": args.teacher}
    with responder.load(args.teacher) as teacher, AnswerStore() as store:
        if args.texts:
            found["labels"] = measured_labels(teacher, store, args.texts)
            print(json.dumps(found["labels"], indent=1, ensure_ascii=False), flush=True)
        if args.tasks:
            found["instructions"] = measured_tasks(teacher, store, args.tasks)
            print(json.dumps(found["instructions"], indent=1, ensure_ascii=False))
    write(args.json, found)


if __name__ == "__main__":
    main()
