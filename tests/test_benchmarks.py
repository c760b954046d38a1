"""`benchmarks/`: its helpers say which environment they want, and its index leads to every page and every raw file."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_SECONDS

from nomoat import hardware
from nomoat.judge import stats

FOLDER = Path(__file__).parents[1] / "benchmarks"
RESULTS = FOLDER / "results"
pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="needs the repository's benchmarks folder")
JSON = re.compile(r"`([^`\s]+\.json)`")
BRACES = re.compile(r"\{([^{}]*)\}")


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("exports_llama_cpp.py", "llama-cpp-python"),
        ("file_types_llama_cpp.py", "llama-cpp-python"),
        ("large_model_llama_cpp.py", "llama-cpp-python"),
        ("requantise.py FILE Q3_K_M TARGET", "llama-cpp-python"),
        ("speed_llama_cpp.py FILE 2", "llama-cpp-python"),
        ("scoring_lm_eval.py", "lm-eval"),
        ("tuning_speed_peers.py peft FOLDER TASK", "torch, transformers, peft"),
    ],
)
def test_a_helper_run_without_its_peer_says_which_environment_it_wants(script: str, wanted: str) -> None:
    """`-S`: a Python without packages."""
    name, *arguments = script.split()
    command = [sys.executable, "-S", str(FOLDER / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)
    assert done.returncode != 0 and done.stdout == ""
    assert "Traceback" not in done.stderr and f"environment that has {wanted}" in done.stderr


def test_what_a_script_found_is_written_with_its_circumstances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = importlib.import_module("facts")
    monkeypatch.setattr(sys, "argv", ["benchmarks/speed.py", "smollm2-135m", "--turns", "5 of 5"])
    facts.write(None, {"never": "written"})
    facts.write(tmp_path / "found.json", {**facts.circumstances(), "한글": 1})
    told = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (told["date"], told["machine"], told["한글"]) == (date.today().isoformat(), hardware.summary(), 1)
    assert told["command"] == "benchmarks/speed.py smollm2-135m --turns '5 of 5'"
    assert re.fullmatch(r"([0-9a-f]{12,40}(-dirty)?)?", told["commit"])


def test_a_process_is_given_what_it_is_asked_and_answers_in_its_last_line() -> None:
    facts = importlib.import_module("facts")
    code = "import json, sys; asked = json.load(sys.stdin); print('loading'); print(json.dumps([asked]))"
    assert facts.answer_of([sys.executable, "-c", code], {"a": 1}) == [{"a": 1}]
    with pytest.raises(subprocess.CalledProcessError):
        facts.answer_of([sys.executable, "-c", "raise SystemExit(2)"])


@pytest.mark.parametrize("sizes", [[5] * 10, [10] * 4 + [1] * 16, [1] * 20])
def test_intervals_of_many_runs_at_once_are_those_of_each(sizes: list[int]) -> None:
    """But for the drawn weights: ends, of 1,000 draws, have a standard error of 4 % of its width."""
    intervals = importlib.import_module("intervals")
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    values = intervals.drawn(np.random.default_rng(1), 12, np.array(sizes), 0.5, intervals.beta(0.8, 4))
    runs = intervals.Runs(values, np.array(sizes), np.random.default_rng(5))
    found, gaffke, half = np.array(runs.weighed()["now"]).T, np.array(runs.gaffke()).T, np.array(runs.jackknife()).T
    for row, (ends, free, robust) in enumerate(zip(found, gaffke, half, strict=True)):
        expected = stats.clustered_score_interval(values[row].tolist(), groups, 0.0, 1.0)
        assert ends == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))
        mean, _, t = stats._between_groups(values[row], groups, 0.95)
        reach = t * np.sqrt(stats._jackknife(values[row], *stats._sizes(groups)))
        assert robust == pytest.approx((mean - reach, min(1.0, mean + reach)))
        if max(sizes) == 1:
            expected = stats.mean_interval(values[row].tolist(), 0.0, 1.0)
            assert free == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0]))


@pytest.mark.parametrize("sizes", [[5] * 10, [10] * 4 + [1] * 16])
def test_intervals_of_many_differences_at_once_are_those_of_each(sizes: list[int]) -> None:
    intervals = importlib.import_module("intervals")
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    kind = intervals.mixed((0.1, 1.0), (0.1, -1.0), (0.8, 0.0))
    values = intervals.drawn(np.random.default_rng(1), 30, np.array(sizes), 0.5, kind)
    values[3] = 0.0  # nothing differs
    runs = intervals.Runs(values, np.array(sizes), np.random.default_rng(5))
    for row, ends in enumerate(np.array(runs.tango(runs.variance_R)).T):
        assert ends == pytest.approx(stats.clustered_difference_interval(values[row].tolist(), groups, 1.0), abs=1e-6)


def test_every_script_that_writes_json_writes_its_circumstances() -> None:
    for script in FOLDER.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        does = "from facts import" in text and "circumstances()" in text and re.search(r"\bwrite(_found)?\(", text) is not None
        assert ('"--json", type=Path' in text) == does, script


def named_on(page: Path) -> set[str]:
    """The files that a page names, with `*` and braces written out."""
    patterns = JSON.findall(page.read_text(encoding="utf-8"))
    return {file.name for pattern in patterns for one in written_out(pattern) for file in RESULTS.glob(one)}


def written_out(pattern: str) -> list[str]:
    """`a{b,c}d` is `abd` and `acd`."""
    found = BRACES.search(pattern)
    if not found:
        return [pattern]
    return [one for part in found[1].split(",") for one in written_out(pattern[: found.start()] + part + pattern[found.end() :])]


def test_braces_are_written_out() -> None:
    assert written_out("a{b,c}_{d,}.json") == ["ab_d.json", "ab_.json", "ac_d.json", "ac_.json"]


def test_every_raw_file_is_named_by_a_page_and_every_named_one_is_there() -> None:
    pages = [FOLDER / "README.md", *RESULTS.glob("*.md")]
    assert {file.name for file in RESULTS.glob("*.json")} == set[str]().union(*map(named_on, pages))
    for page in pages:
        lines = (line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("Files: "))
        for one in (one for line in lines for pattern in JSON.findall(line) for one in written_out(pattern)):
            assert list(RESULTS.glob(one)), f"{page.name} names {one}"


def test_the_index_names_every_script_and_every_page() -> None:
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#:]+)\)", index))
    assert {f"results/{page.name}" for page in RESULTS.glob("*.md")} <= linked
    assert {script.name for script in FOLDER.glob("*.py")} == set(re.findall(r"^\| `(\w+\.py)`", index, re.MULTILINE))
    for target in linked:
        assert (FOLDER / target).exists(), target


class ParsedError(Exception):
    """Ends a script that has read its words."""


def commands() -> dict[str, set[str]]:
    """Of each script the words of its command in the index, and on the pages to which its row leads, if these write all of them.

    Words that a script no longer knows, as the index says below its tables, are left out.
    """
    found: dict[str, set[str]] = {}
    for line in (FOLDER / "README.md").read_text(encoding="utf-8").partition("\nNo measurements")[0].splitlines():
        if script := re.match(r"\| `(\w+\.py)`", line):
            named = re.compile(rf"`(?:python )?(?:benchmarks/)?{re.escape(script[1])}( [^`]+)`")
            pages = [RESULTS / page for page in re.findall(r"\(results/([^)]+)\)", line)]
            whole = [words for page in pages for words in named.findall(page.read_text(encoding="utf-8")) if "..." not in words]
            indexed = line.split(" | ")[2].strip("`").removeprefix(script[1])
            found[script[1]] = {re.sub(r"[\[\]]", "", words) for words in (indexed, *whole) if "--gsm8k" not in words}
    return found


COMMANDS = commands() if RESULTS.is_dir() else {}


@pytest.mark.parametrize("script", COMMANDS)
def test_scripts_know_the_words_of_their_commands_in_the_index_and_on_its_pages(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_end(parser: argparse.ArgumentParser) -> None:
        raise ParsedError(parse(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_end)
    named = {"PYTHON": sys.executable, "VENV/bin/python": sys.executable, "PROGRAM": sys.executable, "FOLDER": str(tmp_path)}
    named |= {"TASK": "sms_spam", "N": "1"}
    for words in COMMANDS[script]:
        monkeypatch.setattr(sys, "argv", [script, *(named.get(word, word) for word in shlex.split(words))])
        with pytest.raises(ParsedError):
            runpy.run_path(str(FOLDER / script), run_name="__main__")


def ended(script: str, *words: str) -> str:
    """What a script that fails says on stderr."""
    command = [sys.executable, str(FOLDER / script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--data, --hf and --peer-python are needed"),
        (("--hf", "nowhere"), "argument --hf: there is no folder `nowhere`"),
        (("--peer-python", "no/python"), "argument --peer-python: there is no program `no/python`"),
    ],
)
def test_a_peer_that_is_not_there_is_told_before_anything_is_measured(words: tuple[str, ...], said: str) -> None:
    assert ended("tuning_speed.py", "smollm2-135m", *words).endswith(f"error: {said}\n")


def test_files_in_other_types_need_an_environment_that_can_write_them(tmp_path: Path) -> None:
    file_types = importlib.import_module("file_types")
    with pytest.raises(SystemExit, match="environment that has llama-cpp-python"):
        file_types.made(tmp_path / "model.gguf", "Q4_0", sys.executable, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("vaderSentiment") is not None, reason="vaderSentiment is there")
def test_vader_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vader.py"])
    with pytest.raises(SystemExit, match="environment that has nomoat and vaderSentiment"):
        importlib.import_module("vader").main()


def test_what_was_found_is_written_where_no_folder_was(tmp_path: Path) -> None:
    importlib.import_module("facts").write(tmp_path / "new" / "found.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "found.json").read_text(encoding="utf-8")) == {"a": 1}


def test_a_file_of_random_weights_has_the_same_bytes_from_each_process_in_a_folder_that_was_not(tmp_path: Path) -> None:
    """A set of words has another order in each process, by its hashes."""
    code = "import sys, synthetic_gguf as s; from pathlib import Path; "
    code += "s.write(Path(sys.argv[1]), s.Shape(layers=1, width=256, hidden=256, heads=4, kv_heads=4, head_dim=64, vocabulary=500))"
    files = [tmp_path / seed / "file.gguf" for seed in "12"]
    for file in files:
        environment = {**os.environ, "PYTHONHASHSEED": file.parent.name, "PYTHONPATH": str(FOLDER)}
        subprocess.run([sys.executable, "-c", code, str(file)], env=environment, check=True, timeout=PATIENCE_SECONDS)
    assert files[0].read_bytes() == files[1].read_bytes()


def said_by_tuning(task: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """What `tuning.py` ends with, without a mirror: a text is printed to stderr, and the exit code is 1."""
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    monkeypatch.setattr(sys, "argv", ["tuning.py", task, "--data", str(data)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "tuning.py"), run_name="__main__")
    return ended.value.code


def test_a_training_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said_by_tuning("sms_spam", tmp_path, monkeypatch) == (
        f"error: `{tmp_path}` holds no `sms_spam/sms_spam_train.tsv`, gzipped or not\n"
        "hint: name the folder of training files with --data"
    )


def test_a_test_split_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sms_spam").mkdir()
    (tmp_path / "sms_spam" / "sms_spam_train.tsv").write_text("text\tannotation\nhi\tnot spam\n")
    words = said_by_tuning("sms_spam", tmp_path, monkeypatch)
    assert isinstance(words, str) and words.startswith("error: ") and "\nhint: " in words
