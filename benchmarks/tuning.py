"""Tune on a data set's training split, then ask the test split once: accuracy beside published numbers, and what it cost.

    python benchmarks/tuning.py sms_spam --model smollm2-135m [--seeds 0 1 2] [--minutes M] [--epochs N] [--layers N] [--json FILE]

Tasks: see TASKS. The tuned model is served as users run it, and its written answer has to be the label; tasks whose choices differ
from question to question are scored by likelihood. The base is scored by likelihood, the kinder way, on `--base-limit` questions.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from nomoat import config, hardware, paths
from nomoat.catalog.datasets import pull_dataset
from nomoat.judge import builtin, stats
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suites import Suite
from nomoat.records import Example
from nomoat.rouge import rouge_l
from nomoat.tasks import label_task_messages
from nomoat.tune import prepare, train

TEST_PART_OF_VADER = 0.3
NEUTRAL = 0.05  # VADER's own bound on a scale of -1 to 1; the paper's classes


@dataclass(frozen=True, slots=True)
class Split:
    """Lessons and questions; `shared` are the ids of questions whose text is learned from, too."""

    train: list[Example]
    test: list[Example]
    metric: str  # of the tuned model's answers
    shared: frozenset[str] = frozenset()


def labelled(rows: Sequence[tuple[str, str]], labels: Sequence[str], instruction: str | None = None) -> list[Example]:
    """(text, label) in the words of `nomoat tune`."""
    return [
        Example(id=str(at), messages=label_task_messages(text, labels, instruction=instruction), target=label, choices=tuple(labels))
        for at, (text, label) in enumerate(rows)
    ]


def sms_spam() -> Split:
    """Every row is learned; the texts that stand in both are counted apart."""
    folder = pull_dataset("sms_spam")
    sides = []
    for part in ("train", "test"):
        path = folder / f"sms_spam_{part}.tsv"
        rows = builtin._table(path, "\t")
        sides.append([(row["text"].strip(), row["annotation"]) for row in rows])
    train_rows, test_rows = sides
    known = {text for text, _ in train_rows}
    labels = ("not spam", "spam")
    shared = frozenset(str(at) for at, (text, _) in enumerate(test_rows) if text in known)
    return Split(labelled(train_rows, labels), labelled(test_rows, labels), "exact", shared)


def banking77() -> Split:
    """77 labels, not listed in the prompt: the tuned model knows them."""
    folder = pull_dataset("banking77")
    labels = sorted(json.loads((folder / "categories.json").read_text(encoding="utf-8")))
    words = "Which intent does this customer of a bank have?"
    train_rows, test_rows = (
        [(row["text"].strip(), row["category"]) for row in builtin._table(folder / f"{part}.csv", ",")] for part in ("train", "test")
    )
    return Split(labelled(train_rows, labels, words), labelled(test_rows, labels, words), "exact")


def e2e_nlg() -> Split:
    """Learned from the development set (the training set is not at hand), one lesson a reference."""
    folder = pull_dataset("e2e_nlg")
    test = list(builtin._e2e_nlg(folder))
    words = test[0].messages[0].content.partition("\n\n")[0]
    rows = builtin._table(folder / "devset.csv", ",")
    lessons = [
        replace(test[0], id=str(at), messages=(replace(test[0].messages[0], content=f"{words}\n\n{row['mr']}"),), target=row["ref"])
        for at, row in enumerate(rows)
    ]
    return Split(lessons, test, "rouge")


def kobest(task: str) -> Split:
    """The training split read by the suite's own words, in place of the test split."""
    folder = pull_dataset("kobest")
    name = {"sentineg": "SentiNeg", "copa": "COPA"}[task]
    read: Callable[[Path], Iterator[Example]] = getattr(builtin, f"_kobest_{task}")
    with tempfile.TemporaryDirectory() as other:
        (Path(other) / name).mkdir()
        source = folder / name / "train.tsv"
        data = source.read_bytes() if source.exists() else gzip.decompress((folder / name / "train.tsv.gz").read_bytes())
        (Path(other) / name / "test.tsv").write_bytes(data)
        lessons = list(read(Path(other)))
    return Split(lessons, list(read(folder)), "exact" if task == "sentineg" else "choice")


def nsmc() -> Split:
    """Film reviews, the films of the test not among those learned from."""
    folder = pull_dataset("nsmc")
    sides = []
    for part in ("train", "test"):
        rows = builtin._plain_table(folder / f"{part}.tsv")
        pairs = [(row["document"].strip(), "긍정" if row["label"] == "1" else "부정") for row in rows]
        sides.append(labelled(pairs, ("긍정", "부정"), "다음 영화평이 긍정인지 부정인지 답하세요."))
    return Split(*sides, "exact")


def vader(suite: str, file_name: str) -> Split:
    """Three classes by the mean human rating, split by chance (seed 0) into 70 and 30 %."""
    folder = pull_dataset(suite)
    rows = []
    for _, rating, text in builtin._lines(folder / file_name):
        value = float(rating) / 4
        rows.append((text.strip(), "positive" if value >= NEUTRAL else "negative" if value <= -NEUTRAL else "neutral"))
    random.Random(0).shuffle(rows)
    cut = int(len(rows) * TEST_PART_OF_VADER)
    labels = ("negative", "neutral", "positive")
    return Split(labelled(rows[cut:], labels), labelled(rows[:cut], labels), "exact")


TASKS: dict[str, Callable[[], Split]] = {
    "sms_spam": sms_spam,
    "banking77": banking77,
    "e2e_nlg": e2e_nlg,
    "kobest-sentineg": lambda: kobest("sentineg"),
    "kobest-copa": lambda: kobest("copa"),
    "nsmc": nsmc,
    "vader-tweets": lambda: vader("vader-tweets", "tweets_GroundTruth.txt"),
    "vader-reviews": lambda: vader("vader-reviews", "amazonReviewSnippets_GroundTruth.txt"),
    "vader-movies": lambda: vader("vader-movies", "movieReviewSnippets_GroundTruth.txt"),
    "vader-news": lambda: vader("vader-news", "nytEditorialSnippets_GroundTruth.txt"),
}


def as_chats(lessons: Sequence[Example], path: Path) -> Path:
    """The lessons as OpenAI chats."""
    with path.open("w", encoding="utf-8") as file:
        for lesson in lessons:
            turns = [{"role": message.role, "content": message.content} for message in lesson.messages]
            file.write(json.dumps({"messages": [*turns, {"role": "assistant", "content": lesson.target}]}, ensure_ascii=False) + "\n")
    return path


def suite_of(name: str, examples: Sequence[Example], metric: Any) -> Suite:
    """The test split as a suite."""
    digest = hashlib.sha256("\n".join(str(example) for example in examples).encode()).hexdigest()
    return Suite(name=name, metric=metric, examples=tuple(examples), sha256=digest, max_new_tokens=96)


def asked(ref: str, name: str, examples: Sequence[Example], metric: str, limit: int | None = None) -> dict[str, str]:
    """The model's answer to each question, by id."""
    evaluation = run_suite(ref, suite_of(f"{name}-{metric}", examples, metric), RunSettings(limit=limit))
    return {outcome.example_id: outcome.answer.strip() for outcome in evaluation.outcomes}


def label_scores(examples: Sequence[Example], answers: dict[str, str]) -> dict[str, Any]:
    """Accuracy with Wilson's interval, F1 of each class (of few), their plain and weighted means."""
    rows = [(example.target, answers[example.id]) for example in examples if example.id in answers]
    right = sum(target == answer for target, answer in rows)
    low, high = stats.wilson(right, len(rows))
    found: dict[str, Any] = {"n": len(rows), "accuracy": round(right / len(rows), 4), "interval": [round(low, 4), round(high, 4)]}
    f1, support = {}, {}
    for label in sorted({target for target, _ in rows}):
        hits = sum(target == answer == label for target, answer in rows)
        given, wanted = sum(answer == label for _, answer in rows), sum(target == label for target, _ in rows)
        f1[label], support[label] = 2 * hits / (given + wanted), wanted
    if len(f1) <= 3:
        found["f1"] = {label: round(value, 4) for label, value in f1.items()}
    found["macro_f1"] = round(sum(f1.values()) / len(f1), 4)
    found["weighted_f1"] = round(sum(f1[label] * support[label] for label in f1) / len(rows), 4)
    return found


def text_scores(examples: Sequence[Example], answers: dict[str, str]) -> dict[str, Any]:
    """ROUGE-L: best over all references of an input, and mean over them (every reference an item of its own)."""
    best, each = [], []
    for example in examples:
        scores = [rouge_l(answers[example.id], target) for target in (example.target, *example.other_targets)]
        best.append(max(scores))
        each += scores
    low, high = stats.bootstrap_mean(best, seed=0)
    mean = sum(best) / len(best)
    return {"n": len(best), "rouge_l_best": round(mean, 4), "interval": [round(low, 4), round(high, 4)],
            "rouge_l_each": round(sum(each) / len(each), 4), "references": len(each)}  # fmt: skip


def measured(task: str, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One training and its test."""
    split = TASKS[task]()
    score = text_scores if split.metric == "rouge" else label_scores
    name = f"bench-{task}-{seed}"
    settings = prepare.Settings(
        minutes=arguments.minutes, epochs=arguments.epochs, layers=arguments.layers, batch=arguments.batch, rank=arguments.rank,
        learning_rate=arguments.learning_rate, seed=seed,
    )  # fmt: skip
    started = time.perf_counter()
    path = as_chats(split.train, paths.home() / f"{name}.jsonl")
    prepared = prepare.prepare(arguments.model, path, settings=settings)
    folder = train.learn(prepared, name=name, replace=True, on_message=print, on_progress=told())
    tuned = time.perf_counter()
    answers = asked(f"{arguments.model}+{name}", task, split.test, split.metric)
    found = {
        "task": task, "model": arguments.model, "seed": seed, "date": date.today().isoformat(), "lessons": len(split.train),
        "settings": asdict(prepared.settings), "tuning_minutes": round((tuned - started) / 60, 2),
        "asking_minutes": round((time.perf_counter() - tuned) / 60, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "test": score(split.test, answers),
        "training": {key: value for key, value in json.loads((folder / "provenance.json").read_text())["metrics"].items()},
    }  # fmt: skip
    if split.shared:
        found["test_without_shared"] = score([example for example in split.test if example.id not in split.shared], answers)
    return found


def told() -> Callable[[train.Progress], None]:
    """A line every tenth of a stage."""
    last = [("", -1)]

    def show(progress: train.Progress) -> None:
        at = (progress.stage, int(10 * progress.fraction))
        if at != last[0]:
            last[0] = at
            print(f"{progress.stage} {progress.fraction:.0%} step {progress.step} loss {progress.loss:.3f} {progress.seconds:.0f} s", flush=True)

    return show


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--base-limit", type=int, default=0, help="questions to the base; 0 asks it nothing")
    for name, kind in (("minutes", float), ("epochs", float), ("learning-rate", float), ("layers", int), ("batch", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": hardware.summary(), "threads": config.threads().value, "runs": []}
    for seed in arguments.seeds:
        found["runs"].append(measured(arguments.task, arguments, seed))
        print(json.dumps(found["runs"][-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    if arguments.base_limit:
        split = TASKS[arguments.task]()
        metric = "rouge" if split.metric == "rouge" else "choice"
        answers = asked(arguments.model, arguments.task, split.test, metric, arguments.base_limit)
        asked_examples = [example for example in split.test if example.id in answers]
        found["base"] = (text_scores if metric == "rouge" else label_scores)(asked_examples, answers)
        print("base", json.dumps(found["base"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
