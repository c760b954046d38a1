"""`examples/`: the replays show what their page shows; in the live one, a model behind a server stands for the cloud."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from patience import PATIENCE_SECONDS

from nomoat.asking.spending import Spending
from nomoat.errors import DataError, UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    spec = importlib.util.spec_from_file_location("live", ROOT / "examples/live.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "live", module)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    rows = [{"input": f"{at}번 🙂?", "target": target, "choices": ["예", "no"]} for at, target in enumerate(("예", "no"))]
    path = tmp_path / "words.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_served_model_is_billed_and_once_asked_needs_no_server(
    live: ModuleType, suite: Path, tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = live.Asked(str(suite), None, 2)
    prices = {"input_usd_per_million": 1000.0, "output_usd_per_million": 2000.0}
    with live.served(str(tiny_gguf), port) as cloud:
        first = live.fight([cloud, str(tiny_gguf)], asked, Spending(**prices))
    again = live.fight([cloud, str(tiny_gguf)], asked, Spending(**prices))

    costs = {row.side.model: row.side.cost_usd for row in first.standings}
    assert costs[str(tiny_gguf)] == 0 and costs[cloud] > 0
    assert {row.side.facts["reused answers"] for row in again.standings} == {"2"}
    live.show(again, asked.concurrency)
    shown = capsys.readouterr().out
    assert shown.startswith("| words, 2 items, 2 at a time | score | behind the first | cost per 1,000 | latency p50 / p95 |\n")
    assert "| the cloud's tiny.gguf | " in shown


def test_server_that_does_not_start_is_quoted(live: ModuleType, tiny_gguf: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(UsageError, match="the server did not start: error: ") as caught,
            live.served(str(tiny_gguf), taken.getsockname()[1]),
        ):
            pass
    assert caught.value.hint == "choose another --port if this one is taken"


@pytest.fixture
def replays() -> ModuleType:
    spec = importlib.util.spec_from_file_location("replays", ROOT / "examples/replays.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders", "vicuna_folder")
def test_page_of_replays_shows_what_the_example_prints(replays: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/replays.md").read_text(encoding="utf-8")
    for replay in replays.REPLAYS.values():
        replay()
        assert capsys.readouterr().out.strip() in page


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "vicuna, routellm, lora-land; all of them where none is named"),
        (["live", "--help"], 0, "--price-in"),
        (["vicuña"], 2, "error: there is no replay `vicuña`; give vicuna, routellm, lora-land, or live first"),
    ],
)
def test_the_example_says_what_it_takes(arguments: list[str], code: int, words: str) -> None:
    command = [sys.executable, str(ROOT / "examples/replays.py"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False, env={**os.environ, "COLUMNS": "200"}
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert words in done.stdout + done.stderr


def test_an_error_of_the_example_ends_with_its_message(replays: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for hint, said in ((None, "error: no room"), ("make some", "error: no room\nhint: make some")):
        error = DataError("no room", hint=hint)
        monkeypatch.setitem(replays.REPLAYS, "vicuna", lambda error=error: (_ for _ in ()).throw(error))
        with pytest.raises(SystemExit) as ended:
            replays.main(["vicuna"])
        assert ended.value.code == said
