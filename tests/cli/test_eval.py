"""`nomoat eval`, as a user's shell sees it."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import shell
from misbehaving import Server, thinking
from patience import PATIENCE_SECONDS

from nomoat import __version__ as nomoat_version
from nomoat import hardware, paths
from nomoat.errors import NotEnoughDiskError
from nomoat.judge import sandbox

nomoat = functools.partial(shell.nomoat, COLUMNS="100")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mirror.jsonl"
    rows = [{"input": "b a", "target": "A b."}, {"input": "왜 그래", "target": "그래 왜"}, {"input": "c d", "target": "c d"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_eval_prints_the_score_with_its_interval(suite: Path, tmp_path: Path) -> None:
    done = shell.program("eval", "fake:", str(suite), "--report", str(tmp_path / "r.html"), COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, f"report: {tmp_path / 'r.html'}\n")
    assert " ".join(done.stdout.split()).endswith(
        "`fake:` reaches 66.7 % [20.8, 93.9] on `mirror`, 3 items (accuracy, answer compared with the target)."
    )
    assert (tmp_path / "r.html").exists()


def test_second_eval_reuses_the_answers(suite: Path) -> None:
    assert json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)["side"]["facts"]["reused answers"] == "0"
    said = json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)
    assert said["side"]["facts"]["reused answers"] == "3"
    assert (said["suite"], said["metric"], said["num_examples"]) == ("mirror", "exact", 3)
    assert said["side"]["score"] == pytest.approx(2 / 3)


def test_answers_cut_off_before_they_began_end_the_command_as_partial_and_more_tokens_ask_them_again(
    suite: Path, serving: Callable[..., Server]
) -> None:
    model = f"{serving(thinking('c d', 300)).url}#m"
    done = nomoat("eval", model, str(suite))
    assert (done.returncode, done.stderr) == (
        3,
        f"partial: 3 of 3 answers of `{model}` were cut off within the limit of 32 new tokens with nothing in them, "
        "or reasoning alone; the same command with a higher --max-tokens goes on from there\n",
    )
    done = nomoat("eval", model, str(suite), "--max-tokens", "2000", "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["partial"], said["run"]["max_tokens"]) == (0, "", 2000)
    assert said["run"]["command"].endswith(" --max-tokens 2000") and said["side"]["score"] == pytest.approx(1 / 3)
    done = nomoat("duel", model, "fake:", "--suite", str(suite), "--max-tokens", "2000", "--json")
    assert (done.returncode, json.loads(done.stdout)["losses"]) == (0, 2)


def test_json_holds_what_the_command_needs_to_be_given_again_and_every_score(suite: Path) -> None:
    said = json.loads(nomoat("eval", "fake:", str(suite), "--limit", "2", "--seed", "3", "--quality", "high", "--json").stdout)
    run = said["run"]
    assert (run["nomoat"], run["command"]) == (
        nomoat_version, f"nomoat eval fake: {suite} --quality high --limit 2 --seed 3"
    )  # fmt: skip
    wanted = {"suite": str(suite), "seed": 3, "limit": 2, "quality": "high", "template": None, "input_column": None, "concurrency": 16}
    assert run.items() >= wanted.items()
    assert said["alpha"] == 0.05
    assert [{*item} for item in said["items"]] == [{"id", "score", "target", "answer", "seconds"}] * 2
    assert [(item["target"], item["answer"]) for item in said["items"]] == [("A b.", "a b"), ("c d", "d c")]
    assert (datetime.now(UTC) - datetime.fromisoformat(run["date"])).total_seconds() < 60 * PATIENCE_SECONDS
    assert run["machine"] == hardware.summary()
    assert sum(item["score"] for item in said["items"]) / 2 == said["side"]["score"]


@pytest.mark.skipif(sandbox.missing_wall() != "", reason=f"this machine walls nothing off: {sandbox.missing_wall()}")
def test_tests_that_pass_without_an_answer_are_named(tmp_path: Path) -> None:
    suite = tmp_path / "programs.jsonl"
    tasks = {"1 = x": "{answer}\ndef test_x():\n    assert x == 2", "2 = x": "{answer}\nassert x == 2"}
    suite.write_text("".join(f"{json.dumps({'input': text, 'target': target})}\n" for text, target in tasks.items()))
    assert json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)["notes"][:1] == [
        "the tests of `1` pass without any answer: what is in functions that nothing calls, or below `if __name__ == '__main__':`, "
        "is not run"
    ]


@pytest.mark.skipif(sandbox.missing_wall() != "", reason=f"this machine walls nothing off: {sandbox.missing_wall()}")
def test_why_answers_of_code_failed_is_told_for_each_and_counted(tmp_path: Path) -> None:
    suite, page = tmp_path / "programs.jsonl", tmp_path / "r.html"
    rows = [{"input": text, "target": "{answer}\nassert x == 1"} for text in ("1 = x", "2 = x", "bytearray(1<<50) = x", "x")]
    suite.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    note = (
        "programs of `fake:`: 2 of 4 failed, 0 ran out of time and 1 out of memory; `--json` shows what each said "
        "(in Python: `Outcome.said`)"
    )
    said = json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)
    assert said["notes"] == [note, "programs of `fake:` that failed said: AssertionError 1, NameError 1"]
    assert [(item["ended"], item["said"]) for item in said["items"]] == [
        ("passed", ""),
        ("failed", "AssertionError (line 2: assert x == 1)"),
        ("out of memory", "MemoryError"),
        ("failed", "NameError: name 'x' is not defined (line 1: x)"),
    ]
    assert nomoat("eval", "stored:programs/fake:", str(suite), "--report", str(page)).returncode == 0
    shown = '<span lang="en">wrong</span><span lang="ko">틀림</span> · <span lang="en">{}</span><span lang="ko">{}</span>: {}</p>'
    assert shown.format("failed", "실패", "AssertionError (line 2: assert x == 1)") in page.read_text(encoding="utf-8")
    assert shown.format("out of memory", "메모리 부족", "MemoryError") in page.read_text(encoding="utf-8")
    together = json.loads(nomoat("duel", "fake:", "fake:", "--suite", str(suite), "--json").stdout)["items"]
    assert {"id": "2", "ended": ["failed"] * 2, "said": ["AssertionError (line 2: assert x == 1)"] * 2}.items() <= together[1].items()


def test_broken_suite_is_named_with_its_line(suite: Path) -> None:
    suite.write_text('{"input": "a", "target": "a"}\n{"input": "b"}\n')
    done = nomoat("eval", "fake:", str(suite))
    assert (done.returncode, done.stdout) == (1, "")
    missing = f"error: `{suite}`, line 2: `target` is missing, and should be text\n"
    assert done.stderr == missing + 'hint: write it as text: "target": "…"\n'


def test_damaged_store_says_what_to_do(suite: Path) -> None:
    paths.runs().mkdir(parents=True)
    (paths.runs() / "answers.sqlite").write_text("no database" * 100)
    done = nomoat("eval", "fake:", str(suite))
    assert done.stderr == (
        f"error: `{paths.runs() / 'answers.sqlite'}` is damaged: file is not a database\n"
        "hint: `nomoat rm --damaged` removes what cannot be read, and saves the rest; "
        "what is gone is computed, and paid for, again\n"
    )


SLOW = """
import sys, time
from nomoat.engine.fake import FakeEngine
from nomoat.cli import main
answer = FakeEngine.generate
def slowly(self, request):
    time.sleep(0.05)
    print("asked", flush=True)
    yield from answer(self, request)
FakeEngine.generate = slowly
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_keeps_the_answers_and_says_so(tmp_path: Path) -> None:
    suite = tmp_path / "long.jsonl"
    suite.write_text("".join(f'{{"input": "question {at}", "target": "x"}}\n' for at in range(400)))
    arguments = [sys.executable, "-c", SLOW, "eval", "fake:", str(suite), "--concurrency", "2"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(6):
        process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    kept = paths.runs() / "answers.sqlite"
    assert errors == f"stopped: what was answered so far is kept in {kept}; the same command goes on from there\n"
    said = json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)
    assert 4 <= int(said["side"]["facts"]["reused answers"]) < 400


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_result_is_printed_also_where_its_report_finds_no_room(
    suite: Path, as_json: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise NotEnoughDiskError("no space left")

    plain = nomoat("eval", "fake:", str(suite), *as_json)
    monkeypatch.setattr("nomoat.judge.report.write_evaluation_report", full)
    done = nomoat("eval", "fake:", str(suite), "--report", "r.html", *as_json)
    assert (done.returncode, done.stderr) == (1, "error: no space left\n")
    assert len(done.stdout.splitlines()) == len(plain.stdout.splitlines()) > 3
