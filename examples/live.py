"""Replay 5, a live one: a model served over HTTP stands for the cloud, and is billed as one, against small ones in this process.

    python examples/replays.py live --data FOLDER [--price-in USD --price-out USD] [--minutes M] [--json FILE]

FOLDER holds sms_spam/sms_spam_train.tsv. SmolLM2 is tuned on it first, for `--minutes`. Then every model answers every question of
SUITES. Stopped anywhere, the same command goes on: adapter and answers are kept in NOMOAT_HOME. Prices are USD per million tokens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import nomoat
from nomoat import config, hardware, paths
from nomoat.asking.spending import Spending
from nomoat.catalog import prices
from nomoat.catalog.datasets import pull_dataset
from nomoat.cli import judging
from nomoat.errors import UsageError
from nomoat.judge.settings import RunSettings
from nomoat.judge.table import run_table
from nomoat.judge.wording import render_behind, render_latency, render_side_score, render_usd
from nomoat.records import Leaderboard
from nomoat.references import shown_name
from nomoat.tune import adapter

CLOUD, BASE, ADAPTER, OTHER = "qwen2.5-coder-1.5b", "smollm2-135m", "live-spam", "qwen2.5-coder-0.5b"
PRICED_LIKE = "openai:gpt-4o-mini"
START_SECONDS = 300.0  # the first start imports the file


@dataclass(frozen=True, slots=True)
class Asked:
    """A suite, how many of its questions (drawn with seed 0; None: all), and how many are asked at a time, whomever."""

    suite: str
    limit: int | None
    concurrency: int


# One at a time where answers are short: latencies are then those of one user. Programs take minutes so, and are written eight at once.
SUITES = (Asked("sms_spam", 200, 1), Asked("banking77", 100, 1), Asked("humaneval", 60, 8))


@contextmanager
def served(model: str, port: int) -> Iterator[str]:
    """The reference of a model behind a `nomoat serve` of its own. Raises UsageError with the server's words if it does not start."""
    command = [sys.executable, "-m", "nomoat", "serve", model, "--port", str(port)]
    with (
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "said").open("w+b") as said,
        subprocess.Popen(command, stderr=said) as server,
    ):
        try:
            deadline = time.monotonic() + START_SECONDS
            while f":{port}/v1" not in (words := Path(said.name).read_text(encoding="utf-8", errors="replace")):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise UsageError(f"the server did not start: {words.strip()}", hint="choose another --port if this one is taken")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1#{shown_name(model)}"
        finally:
            server.terminate()


def tuned(data: Path, minutes: float) -> str:
    """The reference of SmolLM2 tuned on the training messages without those of the test; tuned now if it was not yet."""
    if not (paths.adapters() / ADAPTER / "adapter_config.json").exists():
        table = data / "sms_spam" / "sms_spam_train.tsv"
        test = pull_dataset("sms_spam") / "sms_spam_test.tsv"
        columns = {"input_column": "text", "label_column": "annotation"}
        print(f"tuning {BASE} for {minutes:g} minutes", file=sys.stderr)
        nomoat.tune(
            BASE,
            table,
            name=ADAPTER,
            resume=adapter.can_resume(ADAPTER),
            test=test,
            minutes=minutes,
            **columns,
        )
    return f"{BASE}+{ADAPTER}"


def fight(models: Sequence[str], asked: Asked, spending: Spending) -> Leaderboard:
    """Every model asked the same questions of a suite, one model after the other, and put in order."""
    with judging.bars(RunSettings(limit=asked.limit, concurrency=asked.concurrency, spending=spending)) as settings:
        return run_table(models, asked.suite, settings).leaderboard


def show(board: Leaderboard, concurrency: int) -> None:
    """A table in Markdown."""
    how = "one at a time" if concurrency == 1 else f"{concurrency} at a time"
    print(f"| {board.suite}, {board.num_examples} items, {how} | score | behind the first | cost per 1,000 | latency p50 / p95 |")
    print("|---|---|---|---|---|")
    for row in board.standings:
        name = f"the cloud's {row.side.model.partition('#')[2]}" if "#" in row.side.model else row.side.model
        cells = (render_side_score(board.metric, row.side), render_behind(board.metric, row, board.alpha))
        print(f"| {name} | {' | '.join(cells)} | {render_usd(row.side.cost_usd_per_1000)} | {render_latency(row.side)} |")
    print(f"\n{board.sentence}")
    for note in board.notes:
        print(f"- {note}")
    print(flush=True)


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="replays.py live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="to tune")
    parser.add_argument("--port", type=int, default=8765, help="answers are kept under the server's address: keep to one")
    parser.add_argument("--price-in", type=float, help=f"without both prices: the list prices of {PRICED_LIKE}")
    parser.add_argument("--price-out", type=float)
    parser.add_argument("--json", type=Path)
    replay(parser.parse_args(arguments))


def replay(given: argparse.Namespace) -> None:
    """Tune, serve, ask, and show."""
    usual = prices.price(PRICED_LIKE)
    assert usual is not None
    price_in, price_out = given.price_in, given.price_out
    if price_in is None and price_out is None:
        price_in, price_out = usual.input_usd_per_million, usual.output_usd_per_million
    spending = Spending(input_usd_per_million=price_in, output_usd_per_million=price_out)
    started = time.perf_counter()
    small = [tuned(given.data, given.minutes), BASE, OTHER]
    boards = []
    with served(CLOUD, given.port) as cloud:
        for asked in SUITES:
            boards.append(fight([cloud, *small], asked, spending))
            show(boards[-1], asked.concurrency)
    minutes = (time.perf_counter() - started) / 60
    print(
        f"{hardware.summary()}, {config.threads().value} threads; {minutes:.1f} minutes; ${price_in:g} in, ${price_out:g} out",
        flush=True,
    )
    if given.json:
        facts = {"machine": hardware.summary(), "minutes": round(minutes, 1), "price_in": price_in, "price_out": price_out}
        found = {**facts, "asked": [asdict(asked) for asked in SUITES], "boards": [asdict(board) for board in boards]}
        given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
