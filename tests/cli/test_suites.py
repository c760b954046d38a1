"""`nomoat suites`: listing, showing, making."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nomoat.cli import app
from nomoat.errors import UnknownModelError, UsageError


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["suites", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_names_source_and_licence_of_every_suite() -> None:
    lines = {line.split()[0]: line for line in run().splitlines()}
    assert "1,319" in lines["gsm8k"] and "numeric" in lines["gsm8k"] and "github:openai/grade-school-math" in lines["gsm8k"]
    assert "a mirror only" in lines["nsmc"]
    assert {"humaneval", "kobest-sentineg", "vader-tweets", "vicuna80"} <= set(lines)
    rows = json.loads(run("--json"))
    assert {row["name"] for row in rows} == set(lines) - {"SUITE"}


def test_the_list_breaks_no_word_where_it_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.cli.console.PIPED_WIDTH", 60)
    assert "\ngsm8k\n   ITEMS     1,319\n   METRIC    numeric\n" in run()


def test_a_suite_of_ones_own_is_made_listed_and_shown(tmp_path: Path, empty_home: Path) -> None:
    table = tmp_path / "tickets.csv"
    table.write_text("text,label\nIt broke.,fault\nWhere is it?,question\nBroken.,fault\nWhen?,question\n")
    said = run("new", str(table))
    assert "metric: choice (2 different answers in 4 rows: fault, question)" in said
    assert said.endswith("next: nomoat eval smollm2-135m tickets\n")
    assert (empty_home / "suites" / "tickets.jsonl").exists()
    assert any(line.startswith("tickets ") and "yours" in line for line in run().splitlines())
    shown = run("show", "tickets", "-n", "1")
    assert "[user] Classify the text. Answer with one of: fault, question." in shown and "  * fault\n  - question" in shown
    toml = tomllib.loads((empty_home / "suites" / "tickets.toml").read_text())
    facts = json.loads(run("--json", "show", "tickets"))
    assert facts["suite_digest"] != toml["sha256"] and f"suite digest: {facts['suite_digest']}\n" in shown
    assert facts["suite_sha256"] == facts["suite_digest"] and "sha256" not in facts and "sha256" not in shown
    assert run("--json", "show", "tickets") == run("show", "tickets", "--json") and json.loads(run("--json", "show", "tickets"))
    with pytest.raises(UsageError, match="there is a suite `tickets`"):
        run("new", str(table))
    run("new", str(table), "--replace")


def test_showing_a_suite_shows_a_person_that_it_is_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million examples took most of a minute without a word."""
    monkeypatch.setattr("nomoat.cli.console.shows_bars", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    (tmp_path / "my.jsonl").write_text('{"input": "1 + 1", "target": "2"}\n')
    assert "reading" in run("show", str(tmp_path / "my.jsonl"))


def test_brackets_and_colons_in_a_title_are_text(empty_home: Path) -> None:
    title = "Tickets [beta] [/INST] :x: sorted"
    (empty_home / "suites").mkdir(parents=True)
    (empty_home / "suites" / "tickets.toml").write_text(f'title = "{title}"\n')
    (empty_home / "suites" / "tickets.jsonl").write_text('{"input": "It broke.", "target": "fault"}\n')
    assert any(line.startswith("tickets ") and title in line for line in run().splitlines())


def test_a_suite_is_made_of_what_tune_learns_and_told_to_programs(tmp_path: Path, empty_home: Path) -> None:
    """Of what `distil` writes, and of chats; both can be looked at before."""
    tasks, chats = tmp_path / "tasks.jsonl", tmp_path / "chats.jsonl"
    tasks.write_text('{"instruction": "Translate to German.", "input": "cat", "output": "Katze"}\n')
    chats.write_text('{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n')
    of_alpaca = "[user, of a model here with Alpaca's template] Translate to German.\n\n### Input:\ncat\n"
    assert f"[user] Translate to German.\n\ncat\n{of_alpaca}=> Katze\n" in run("show", str(tasks))
    assert "Alpaca" not in run("show", str(chats))
    assert "[user] hi\n=> ho\n" in run("show", str(chats))
    result = CliRunner().invoke(app, ["suites", "new", str(tasks), "--name", "held-out", "--json"])
    facts = json.loads(result.stdout)
    assert (facts["name"], facts["metric"], facts["num_examples"]) == ("held-out", "exact", 1)
    assert facts["toml"] == str(empty_home / "suites" / "held-out.toml")
    assert facts["reasons"] == [
        "input: Alpaca instructions, as `tune` learns them, up to the last answer",
        "label: the last answer",
        "metric: exact (no answer has more than 1 word)",
    ]
    assert all(reason in result.stderr for reason in facts["reasons"])
    assert facts["suite_digest"] == json.loads(run("show", "held-out", "--json"))["suite_digest"]


def test_a_table_is_shown_once_its_columns_are_named(tmp_path: Path) -> None:
    table = tmp_path / "t 2.csv"
    table.write_text("body,team\nIt broke.,fault\nWhere is it?,question\n")
    with pytest.raises(UsageError, match="its input column is not named"):
        run("show", str(table))
    shown = run("show", str(table), "--input-column", "body", "--label-column", "team")
    assert "Text: It broke.\nLabel:\n  * fault\n  - question" in shown


def test_a_file_with_a_space_in_its_name_becomes_a_suite_that_can_be_called(tmp_path: Path, empty_home: Path) -> None:
    table = tmp_path / "고객 문의.csv"
    table.write_text("내용,분류\n환불해 주세요,환불\n언제 오나요,배송\n", encoding="utf-8")
    said = run("new", str(table))
    assert "name: 고객_문의 (a suite cannot be called `고객 문의`; give another with --name, in Python: `name`)" in said
    assert said.endswith("next: nomoat eval qwen2.5-1.5b 고객_문의\n")
    assert "name: 고객_문의\n" in run("show", "고객_문의")
    with pytest.raises(UsageError) as caught:
        run("new", str(table), "--name", "고객 문의")
    assert caught.value.hint == "choose letters, digits, `_`, `-`, `.`, the last two not first (--name, in Python: `name`)"


def test_a_suite_of_ones_own_is_never_told_to_be_a_built_in_one(tmp_path: Path, empty_home: Path) -> None:
    """`suites new` gives no such name, but its file may lie there all the same; then the name means it."""
    table = tmp_path / "gsm8k.csv"
    table.write_text("text,label\nIt broke.,fault\nWhere is it?,question\n")
    for words in ((), ("--name", "gsm8k", "--to", str(tmp_path / "out")), ("--replace",)):
        with pytest.raises(UsageError) as caught:
            run("new", str(table), *words)
        assert (caught.value.message, caught.value.hint) == ("`gsm8k` is a suite that comes with nomoat", "choose another --name")
    run("new", str(table), "--name", "mine")
    for suffix in (".toml", ".jsonl"):
        text = (empty_home / "suites" / f"mine{suffix}").read_text().replace("mine", "gsm8k")
        (empty_home / "suites" / f"gsm8k{suffix}").write_text(text, newline="\n")
    assert [(row["from"], row["num_examples"]) for row in json.loads(run("--json")) if row["name"] == "gsm8k"] == [("yours", 2)]
    assert json.loads(run("show", "gsm8k", "--json"))["from"] == "yours"
    assert json.loads(run("show", str(empty_home / "suites" / "gsm8k.toml"), "--json"))["from"] == "yours"
    for suffix in (".toml", ".jsonl"):
        (empty_home / "suites" / f"gsm8k{suffix}").unlink()
    toml = empty_home / "suites" / "mine.toml"
    toml.write_text(toml.read_text().replace('name = "mine"', 'name = "gsm8k"'))
    rows = [(row["name"], row["num_examples"]) for row in json.loads(run("--json")) if row["name"] in ("mine", "gsm8k")]
    assert rows == [("mine", 2), ("gsm8k", 1319)]
    shown = run("show", "mine")
    assert shown.startswith(f"note: `{toml}` names it `gsm8k`, as its results do; commands find it as `mine`\nname: mine\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".toml", ".schema.json"])
def test_a_new_suite_replaces_no_file_unasked(suffix: str, tmp_path: Path) -> None:
    table, there = tmp_path / "faq.csv", tmp_path / "to" / f"faq{suffix}"
    table.write_text("text,label\nIt broke.,fault\nWhere is it?,question\nBroken.,fault\nWhen?,question\n")
    there.parent.mkdir()
    there.write_text("mine")
    with pytest.raises(UsageError, match=rf"there is a suite `faq` in .* already: `faq{re.escape(suffix)}`"):
        run("new", str(table), "--to", str(there.parent))
    assert there.read_text() == "mine" and [*there.parent.iterdir()] == [there]
    run("new", str(table), "--to", str(there.parent), "--replace")


def test_a_new_suite_never_replaces_the_file_it_is_made_from(tmp_path: Path) -> None:
    faq = tmp_path / "faq.jsonl"
    faq.write_text("".join(f'{{"question": "What is {n}?", "answer": "It is {n}."}}\n' for n in range(4)))
    before = faq.read_text()
    link = tmp_path / "questions.jsonl"
    link.symlink_to(faq)
    for source in (faq, link):
        with pytest.raises(UsageError, match=r"would replace `.*`, which it is made from"):
            run("new", str(source), "--name", "faq", "--to", str(tmp_path), "--replace")
    assert faq.read_text() == before
    run("new", str(faq), "--name", "answers", "--to", str(tmp_path))


def test_an_own_suite_that_cannot_be_read_says_why_in_the_list(empty_home: Path) -> None:
    (empty_home / "suites").mkdir(parents=True)
    (empty_home / "suites" / "bad.toml").write_text("metric = 3")
    assert "cannot be read:" in run()


def test_examples_of_a_suite_that_was_made_here_are_counted_and_not_read(
    tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "tickets.csv"
    table.write_text("text,label\nIt broke.,fault\nWhere is it?,question\nBroken.,fault\nWhen?,question\n")
    run("new", str(table))
    monkeypatch.setattr("nomoat.judge.suites.read_examples", None)
    (row,) = [row for row in json.loads(run("--json")) if row["name"] == "tickets"]
    assert (row["num_examples"], row["metric"], row["from"], row["source"]) == (4, "choice", "yours", "tickets.csv")
    with (empty_home / "suites" / "tickets.jsonl").open("a") as file:
        file.write("\n")
    assert "is not the file that `tickets.toml` describes" in json.loads(run("--json"))[0]["title"]


def test_an_unknown_metric_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no metric is called `bleurt`"):
        run("new", str(tmp_path / "x.csv"), "--metric", "bleurt")


def test_a_suite_of_ones_own_is_removed_and_nothing_else(empty_home: Path) -> None:
    folder = empty_home / "suites"
    (folder / "whole").mkdir(parents=True)
    for name in ("a.toml", "a.jsonl", "a.schema.json", "a.b.toml", "a.b.jsonl", "half.jsonl", "whole/x.jsonl"):
        (folder / name).write_text("")
    assert run("rm", "a", "--yes") == "a: removed a.jsonl, a.schema.json, a.toml; what was asked and answered: `nomoat rm --answers`\n"
    run("rm", "half", "whole", "--yes")
    assert sorted(path.name for path in folder.iterdir()) == ["a.b.jsonl", "a.b.toml"]


def test_a_suite_is_not_removed_where_nobody_can_be_asked(empty_home: Path) -> None:
    file = empty_home / "suites" / "a.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("")
    with pytest.raises(UsageError) as caught:
        run("rm", "a")
    assert caught.value.message == f"there is no terminal to ask on whether to remove {file}; nothing was removed"
    assert (caught.value.hint, file.exists()) == ("if that is meant, add --yes", True)


def test_a_link_to_a_suite_is_removed_and_what_it_points_to_stays(tmp_path: Path, empty_home: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x.jsonl").write_text("")
    (empty_home / "suites").mkdir(parents=True)
    (empty_home / "suites" / "linked").symlink_to(tmp_path / "kept")
    run("rm", "linked", "--yes")
    assert not (empty_home / "suites" / "linked").is_symlink()
    assert (tmp_path / "kept" / "x.jsonl").exists()


@pytest.mark.parametrize("name", ["gone", "gsm8k", "../outside", "deeper/b", "..", "", "{home}/outside"])
def test_what_is_no_suite_of_ones_own_is_not_removed(name: str, empty_home: Path) -> None:
    files = [empty_home / name for name in ("outside.jsonl", "suites/b.toml", "suites/deeper/b.jsonl")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    name = name.format(home=empty_home)
    with pytest.raises(UnknownModelError) as caught:
        run("rm", name)
    assert (caught.value.message, caught.value.hint) == (f"no suite of yours is called `{name}`", "yours are deeper, b")
    assert all(file.exists() for file in files)
