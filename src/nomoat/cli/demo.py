"""`nomoat demo`: the whole story on one real model and one real data set, in minutes."""

from __future__ import annotations

import csv
import math
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat import hardware, paths, whole_files
from nomoat.cli import answering, console, judging
from nomoat.cli.loading import load_with_bar
from nomoat.errors import MissingExtraError, UnknownModelError, UsageError
from nomoat.records import Message, Request

if TYPE_CHECKING:
    from nomoat.judge.suite import Suite

BASE, ADAPTER, DATA = "smollm2-135m", "demo-reviews", "vader-reviews"
QUESTION = "Why is the sky blue?"
LABELS = ("negative", "positive")
TABLE = "train.csv"  # what the adapter learns from, in the data's folder


def demo(
    minutes: Annotated[float, typer.Option(min=0.1, max=1440, help="Minutes to tune.")] = 2.0,
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.", show_default=False)] = None,
) -> None:
    """Pull a model, ask it, tune it on real data, and prove with error bars what tuning was worth.

    \b
    Examples:
      nomoat demo
      nomoat demo --minutes 5
      NOMOAT_MIRROR=/mnt/models nomoat demo      # without the internet

    Needs about 400 MB of disk under NOMOAT_HOME and 2 GB of memory. Everything stays on this machine.
    """
    if math.isnan(minutes):  # it is within any bounds
        raise UsageError("--minutes is nan", hint="give a number, such as 2")
    _require_tune()
    judging.require_report_path(report)
    _require_own()
    started = time.perf_counter()
    console.say(f"nomoat demo on {hardware.summary()}")
    _step(1, f"Pull {BASE}, an open model of 135 million parameters (98 MB).")
    from nomoat.cli.pull import pull

    pull([BASE])
    _step(2, f'Ask it, on this machine: "{QUESTION}"')
    _ask()
    _step(3, "Fetch product-review sentences that twenty people each have rated (vaderSentiment, MIT licence).")
    table, suite = _prepare_data()
    labels = ", ".join(f"{sum(e.target == label for e in suite.examples)} {label}" for label in LABELS)
    console.say(f"learn from {table}; keep {len(suite.examples)} sentences of other reviews for the proof ({labels})")
    _step(4, f"Tune for {minutes:g} minutes: the model learns to tell positive from negative sentences.")
    _tune(table, minutes)
    _step(5, "Duel: the same questions to the tuned and to the untuned model, none of which it has seen.")
    path = report or paths.runs() / "demo.html"
    _duel(suite, path)
    console.say(f"\nDone in {(time.perf_counter() - started) / 60:.1f} minutes. The report, with a plot: {path}")
    activate = Path(sys.executable).with_name("activate")
    if shutil.which("nomoat") is None and activate.exists():  # `make demo` runs it by its path
        console.say(f"`. {activate}` puts nomoat on your path.")
    console.say(
        "Next:\n"
        f'  nomoat run {BASE}+{ADAPTER} --as-tuned "It broke after a day."\n'
        f"  nomoat duel {BASE}+{ADAPTER} {BASE} --suite {suite.name}\n"
        f"  nomoat serve {BASE}\n"
        "  nomoat tune --help            with your own data"
    )


def _require_tune() -> None:
    """Said before anything is downloaded."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError(extra="tune", what="`nomoat demo`")


def _require_own() -> None:
    """Refuse to write over what is no earlier demo's: its adapter learned from its table, its suite names its source."""
    from nomoat.catalog import tuned
    from nomoat.catalog.datasets import dataset
    from nomoat.judge.suite_files import files_of
    from nomoat.judge.suites import load_suite

    adapter, table = paths.adapters() / ADAPTER, paths.data() / DATA / TABLE
    learned = tuned.provenance_of(adapter).get("data_sha256") if adapter.exists() else None
    if adapter.exists() and not (table.exists() and learned == paths.sha256_of(table)):
        whose = f"that no demo made from `{table}`"
        if learned is not None and not table.exists():
            whose = f"of which cannot be told whether a demo made it, for there is no `{table}`"
        raise UsageError(
            f"there is an adapter `{ADAPTER}` {whose}, and the demo would write over it",
            hint=f"give its folder `{adapter}` another name, or remove it: nomoat rm {BASE}+{ADAPTER}",
        )
    with suppress(UnknownModelError):
        *_, suite = files_of(ADAPTER)  # its folder; or the last of its files, which a demo's description is
        if suite.suffix != ".toml" or load_suite(suite).source != dataset(DATA).citation:
            raise UsageError(
                f"there is a suite `{ADAPTER}` that no demo made, and the demo would write over it, or hide it",
                hint=f"move it out of `{suite.parent}`, or remove it: nomoat suites rm {ADAPTER}",
            )


def _step(number: int, sentence: str) -> None:
    console.say(f"\n[{number}/5] {sentence}")


def _ask() -> None:
    with load_with_bar(BASE) as model:
        request = Request(messages=(Message(role="user", content=QUESTION),), max_new_tokens=64)
        answering.say_outcome(answering.show(model, request), max_new_tokens=request.max_new_tokens)


def _prepare_data() -> tuple[Path, Suite]:
    """A table to learn from, and a suite of the sentences of other reviews: no review stands on both sides."""
    from nomoat.catalog.datasets import dataset, pull_dataset
    from nomoat.judge.builtin_examples import clear_ratings
    from nomoat.judge.suites import suite_from_csv, write_suite

    with console.download_bar(DATA) as progress:
        folder = pull_dataset(DATA, progress=progress)
    rows = clear_ratings(folder / "amazonReviewSnippets_GroundTruth.txt")
    tables = {"train": folder / TABLE, "test": folder / "test.csv"}
    for part, path in tables.items():
        with whole_files.whole_file(path) as whole, whole.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            # A key is the number of a review, and that of its sentence.
            writer.writerows(row for key, *row in rows if (int(key.partition("_")[0]) % 4 == 0) == (part == "test"))
    facts = dataset(DATA)
    suite = suite_from_csv(tables["test"], "text", "label")
    suite = replace(suite, name=ADAPTER, licence=facts.licence, source=facts.citation)
    write_suite(suite, paths.suites(), replace=True)
    return tables["train"], suite


def _tune(table: Path, minutes: float) -> None:
    from nomoat.cli.tune import learn_with_bar, say_survey
    from nomoat.tune.prepare import Settings, prepare

    settings = Settings(minutes=minutes, epochs=3)  # more epochs would only overfit, however fast the machine
    prepared = prepare(BASE, table, input_column="text", label_column="label", data_licence="mit", settings=settings)
    say_survey(prepared)
    learn_with_bar(prepared, name=ADAPTER, replace=True, next_time="the same command tunes anew")


def _duel(suite: Suite, report: Path) -> None:
    from nomoat.cli.duel import print_verdict
    from nomoat.judge.duel import run_duel
    from nomoat.judge.report import write_duel_report
    from nomoat.judge.settings import RunSettings

    command = f"nomoat duel {BASE}+{ADAPTER} {BASE} --suite {suite.name} --all"  # the demo itself would tune anew
    with judging.bars(RunSettings(), next_time=f"`{command}` goes on from there") as settings:
        # Everything is asked: the demo shows how good the tuned model is, not only that it is better.
        fought = run_duel(f"{BASE}+{ADAPTER}", BASE, suite, settings, stop_early=False)
    write_duel_report(fought, report, command=command)
    print_verdict(fought.verdict)
