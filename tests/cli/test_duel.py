"""`nomoat duel`, as a user's shell sees it."""

from __future__ import annotations

import functools
import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import shell
from quiz import knowing, quiz

from nomoat.cli.duel import print_leaderboard
from nomoat.judge.table import run_table

nomoat = functools.partial(shell.nomoat, COLUMNS="100")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "test.csv"
    path.write_text("text,label\nfine,positive\nbroken negative,negative\n좋아요,positive\n", encoding="utf-8")
    return path


def test_duel_over_a_table_prints_a_verdict_and_writes_a_report(table: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    columns = ("--input-column", "text", "--label-column", "label")
    done = shell.program("duel", "fake:", "fake:", "--suite", str(table), *columns, "--report", str(report), COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, f"report: {report}\n")
    assert done.stdout.startswith("test: 3 items, accuracy of choices; [95 % intervals]\n")
    assert "Too close to call on `test` after 3 items" in done.stdout
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")


def verdicts(*arguments: str) -> list[dict[str, Any]]:
    """What the command says in JSON, but for the time, and how many answers it had already."""
    done = nomoat(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(re.sub(r'"(reused answers|date|num_reused)": ("[^"]+"|\d+)', r'"\1": ""', done.stdout))
    return said if isinstance(said, list) else [said]


@pytest.mark.parametrize(
    "command",
    [
        "duel fake: fake: --all --limit 2 --seed 7 --alpha 0.1 --rope 3 --template vicuna_v1.1 --quality high",
        "duel fake: fake: -s gsm8k.csv --concurrency 1",
        "duel fake: fake: --judge fake: --judge-check labels.jsonl --max-cost 9 --yes",
        'duel --table fake: "stored:it\'s a test/fake:" --alpha 0.2',
        "eval fake: --limit 2 --seed 3 --price-in 0.5 --price-out 2 --quality small",
    ],
)
def test_command_that_a_report_prints_does_it_again(table: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """The table is named as it was given: `gsm8k`, without its ending, would be a suite of another's."""
    arguments = shlex.split(command)
    monkeypatch.chdir(table.parent)
    for name in ("it's a test.csv", "gsm8k.csv"):
        Path(name).write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    Path("labels.jsonl").write_text('{"question": "q", "answer_a": "a", "answer_b": "b", "winner": "a"}\n', encoding="utf-8")
    columns = ["--input-column", "text", "--label-column", "label", "--instruction", 'Good, or "bad"?']
    suite = [*(["--suite"] if arguments[0] == "duel" else []), "it's a test.csv"]
    if "--table" in arguments:
        verdicts("eval", "fake:", "it's a test.csv", *columns)
    first = verdicts(*arguments, *suite, *columns, "--report", "r.html")
    printed = re.search(r"<pre>(.*)</pre>", Path("r.html").read_text(encoding="utf-8"))
    assert printed is not None
    words = shlex.split(html.unescape(printed[1]))
    options = {word for word in (*arguments, *columns) if word.startswith("--")}
    assert {word for word in words if word.startswith("--") and word != "--suite"} == options - {"--yes"}
    assert verdicts(*words[1:]) == first


def test_duel_fits_a_narrow_terminal(table: Path) -> None:
    columns = ("--input-column", "text", "--label-column", "label")
    done = nomoat("duel", "fake:", "fake:", "--suite", str(table), *columns, COLUMNS="50")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 50


def test_json_is_the_whole_verdict_and_nothing_else(table: Path) -> None:
    columns = ("--input-column", "text", "--label-column", "label")
    done = nomoat("duel", "fake:", "fake:", "--suite", str(table), *columns, "--limit", "2", "--seed", "7", "--json")
    verdict = json.loads(done.stdout)
    assert (verdict["num_examples"], verdict["seed"], verdict["winner"], verdict["p_value"]) == (2, 7, "undecided", 1.0)
    assert verdict["notes"] == [
        "2 of 3 examples, drawn with seed 7",
        "`fake:` and `fake:` are one model: both have the digest `fake-e3b0c44298f`",
        "asked in a random order (seed 7), 16 at a time, with a look after each; the intervals hold whenever one stops",
    ]
    assert (verdict["run"]["label_column"], verdict["run"]["concurrency"], verdict["run"]["quality"]) == ("label", 16, "default")
    assert {*verdict["run"]["versions"]} == {"python", "openvino", "numba", "numpy", "scipy"} and verdict["run"]["weights"] == []
    for item in verdict["items"]:
        assert [*item] == ["id", "scores", "target", "answers", "seconds", "choices", "likelihoods"]
        assert len(item["scores"]) == len(item["answers"]) == len(item["seconds"]) == 2
        for answer, score, likelihoods in zip(item["answers"], item["scores"], item["likelihoods"], strict=True):
            likeliest = max(zip(item["choices"], likelihoods, strict=True), key=lambda pair: pair[1]["log_probability"])[0]
            assert answer == likeliest and score == (answer == item["target"])
    assert done.stderr == ""


def test_several_suites_are_one_table(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ("duel", "fake:", "fake:", "-s", str(table), "-s", str(other), "--input-column", "text", "--label-column", "label")
    done = nomoat(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("fake: minus fake:, 2 suites; [95 % intervals, all together]\n")
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith(("test ", "other "))] == [
        ["test", "3"],
        ["other", "3"],
    ]
    assert "a winner needs an interval without 0 and an uncorrected p below 0.025" in " ".join(done.stdout.split())
    for fact in ("bytes sent out", "cost in total", "price", "licence"):  # of each suite's answers
        assert len(re.findall(rf"^{fact}  ", done.stdout, re.MULTILINE)) == 2, fact
    assert [row["suite"] for row in json.loads(nomoat(*arguments, "--json").stdout)] == ["test", "other"]
    report = tmp_path / "r.html"
    assert nomoat(*arguments, "--report", str(report)).stderr == f"report: {report}\n"
    assert "corrected for the number of suites (Holm)" in report.read_text(encoding="utf-8")
    judged = json.loads(nomoat(*arguments, "--judge", "fake:", "--json").stdout)
    assert [(row["metric"], row["ties"], row["p_value_corrected"]) for row in judged] == [("judged", 3, 1.0)] * 2
    for further in ([], ["--judge", "openai:gpt-4o"]):  # before anything is agreed to
        refused = nomoat(*arguments, "--table", *further).stderr
        assert refused == "error: a leaderboard is over one suite, and 2 were named\nhint: run the command once for each suite\n"


def test_table_of_one_model_twice_is_refused(table: Path) -> None:
    columns = ("--input-column", "text", "--label-column", "label")
    done = nomoat("duel", "--table", "fake:", "fake:", "--suite", str(table), *columns)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == "error: a table needs at least two different models, and these are fake:, fake:\nhint: name two models or more, each once\n"
    )


def test_table_with_a_rope_is_refused(table: Path) -> None:
    done = nomoat("duel", "--table", "fake:", "stored:test/fake:", "--suite", str(table), "--rope", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --rope says when two models are equal, and a table names nobody so\n")


@pytest.mark.parametrize(("num_models", "said"), [(2, "behind the first "), (3, "behind the first, corrected p ")])
def test_table_of_several_says_that_its_p_values_are_corrected(num_models: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their intervals are not: 6 questions apart, all one way, exclude 0, and among three models p is 0.0625."""
    models = [knowing(name, right) for name, right in (("a", 40), ("b", 34), ("c", 33))[:num_models]]
    print_leaderboard(run_table(models, quiz(40)).leaderboard)
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.data
def test_table_prints_a_leaderboard_and_writes_a_report(vicuna_folder: Path, tmp_path: Path) -> None:
    names = [f"stored:vicuna80/{name}" for name in ("alpaca-13b", "gpt35", "vicuna-13b")]
    report = tmp_path / "t.html"
    done = nomoat("duel", "--table", *names, "--report", str(report), COLUMNS="140")
    assert (done.returncode, done.stderr) == (0, f"report: {report}\n")
    assert "1  stored:vicuna80/gpt35" in done.stdout
    said = " ".join(done.stdout.split())
    assert "`stored:vicuna80/gpt35` leads 2 other models on `vicuna80`, 80 items; 1 of them never compared with it directly." in said
    board = json.loads(nomoat("duel", "--table", *names, "--json").stdout)
    assert [row["side"]["model"] for row in board["standings"]] == [names[1], names[2], names[0]]


@pytest.mark.parametrize(
    ("arguments", "stderr"),
    [
        (
            ["fake:", "--suite", "test.csv"],
            "error: a duel has two sides, and 1 was named\n"
            "hint: name LEFT and RIGHT, and the suite with --suite; or put several in order with --table\n",
        ),
        (
            ["fake:", "fake:"],
            "error: a duel needs a suite to fight over\n"
            "hint: name one with --suite (in Python: `suite`): a path, a name, or a CSV with its columns\n",
        ),
        (
            ["fake:", "fake:", "--suite", "nosuch"],
            "error: no suite is called `nosuch`\n"
            "hint: did you mean `nsmc`? `nomoat suites` lists them, `nomoat suites new FILE` makes one; "
            "or give the path of a .toml, .jsonl or .csv\n",
        ),
        (
            ["fake:", "fake:", "--suite", "none.csv"],
            "error: `none.csv`: there is no such file\nhint: check its name, and the folder\n",
        ),
        (
            ["fake:", "fake:", "--suite", "test.csv"],
            "error: `test.csv` is a table, and its input column is not named\n"
            "hint: name it with --input-column (in Python: `input_column`); its columns are: text, label\n",
        ),
        (
            ["fake:", "fake:", "--suite", "test.csv", "--input-column", "text", "--label-column", "class"],
            "error: `test.csv` has no column `class`\nhint: its columns are: text, label\n",
        ),
        (
            ["fake:", "fake:", "--suite", "empty.csv", "--input-column", "text", "--label-column", "label"],
            "error: `empty.csv` is empty\nhint: the first line names the columns, each further line is one row\n",
        ),
        (
            ["fake:", "fake:", "--suite", "test.csv", "--report", "."],
            "error: `.` is a folder, and the report is a file\nhint: try `--report report.html`\n",
        ),
        (
            [
                "fake:",
                "fake:",
                "--suite",
                "test.csv",
                "--input-column",
                "text",
                "--label-column",
                "label",
                "--report",
                "empty.csv/report.html",
            ],
            "error: cannot write `empty.csv/report.html`: File exists (`empty.csv`)\n"
            "hint: check that its folder is yours, or choose another place\n",
        ),
    ],
)
def test_bad_input_is_answered_in_two_lines(table: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], stderr: str) -> None:
    monkeypatch.chdir(table.parent)
    Path("empty.csv").touch()
    done = nomoat("duel", *arguments)
    is_incomplete = "a duel has two sides" in stderr or "needs a suite" in stderr
    assert (done.returncode, done.stdout, done.stderr) == (2 if is_incomplete else 1, "", stderr)


@pytest.mark.data
def test_vicuna_replay_prints_the_published_ratio_and_the_counts(vicuna_folder: Path) -> None:
    done = nomoat("duel", "stored:vicuna80/vicuna-13b", "stored:vicuna80/gpt35")
    said = " ".join(done.stdout.split())
    for line in (
        "left minus right -0.69 points [-1.27, -0.11], p = 0.0207",
        "wins 14 of 80 = 17.5 % [10.7, 27.3]",
        "ties 22 of 80 = 27.5 % [18.9, 38.1]",
        "losses 44 of 80 = 55.0 % [44.1, 65.4]",
        "wins and ties 36 of 80 = 45.0 % [34.6, 55.9]",
        "total score ratio 638.0 / 693.0 = 92.06 % [87.24, 95.40]",
        "note: answers and reviews: Chiang et al. 2023, lmsys.org/blog/2023-03-30-vicuna; licence of the data: apache-2.0",
    ):
        assert line in said


@pytest.mark.data
def test_pair_without_reviews_is_told_the_pairs_there_are(vicuna_folder: Path) -> None:
    done = nomoat("duel", "stored:vicuna80/gpt35", "stored:vicuna80/bard")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: no stored review compares `gpt35` and `bard`\n"
        "hint: reviewed together were: alpaca-13b and llama-13b; vicuna-13b and alpaca-13b; vicuna-13b and bard; "
    )
