"""`nomoat distil`, as a user's shell sees it; the teacher is a real server on loopback, or the fake engine."""

from __future__ import annotations

import codecs
import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import shell
from misbehaving import Act, Server, counted, events, half, piece, say
from patience import PATIENCE_SECONDS, wait_until
from shell import NOMOAT, Done
from teaching import by_text, write_labels, write_tasks
from tiny import write_adapter, write_learned

from nomoat import labelling, tables
from nomoat.catalog import sidecar
from nomoat.catalog.datasets import pull_dataset
from nomoat.distil import files, instructions
from nomoat.distil.prompts import render_request
from nomoat.records import Parent
from nomoat.route import pii

Shell = Callable[..., Done]
OPENAI_AT_LOOPBACK = "openai:gpt-4o-mini"


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "seeds.jsonl"
    rows = [
        {"instruction": f"Name {word} birds of a kind", "input": "", "output": "wren"} for word in ("two", "three", "four", "five")
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tasks_are_written_as_alpaca_does_with_their_origin_beside_them(
    program: Shell, nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "20", "--seeds", str(seeds)]
    done = program(*command, "--price-in", "1", "--price-out", "2")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == (
        f"teacher: {server.url}#m, 3 answers; $0.0039 ($1.00 in, $2.00 out per million tokens, as given)\n"
        "tasks: 20 kept of 26 offered\n"
        "  2 dropped: like one before\n"
        "  2 dropped: about images, sound or files\n"
        "  2 dropped: no answer\n"
        "terms of what learns from it:\n"
        "commercial use: unknown, in part unconfirmed\n"
        f"  because of teacher {server.url}#m: terms not known\n"
        "note: if you know the teacher's terms, run it again with --teacher-licence: answers are not asked for again\n"
        f"wrote {out}\n"
    )
    rows = rows_of(out)
    assert len(rows) == 20
    assert {tuple(row) for row in rows} == {("instruction", "input", "output")}
    beside = json.loads((tmp_path / "tasks.jsonl.provenance.json").read_text())
    assert (beside["tasks"], beside["cost_usd"], beside["settings"]["seeds"]) == (20, pytest.approx(0.0039), "seeds.jsonl")
    again = nomoat(*command, "--json")
    assert json.loads(again.stdout)["answers_reused"] == 3
    assert rows_of(out) == rows
    assert len(server.bodies) == 3


def test_one_answer_is_called_one(nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path) -> None:
    server = serving(write_tasks)
    done = nomoat("distil", f"{server.url}#m", "--out", str(tmp_path / "tasks.jsonl"), "-n", "5", "--seeds", str(seeds))
    assert done.stderr.startswith(f"teacher: {server.url}#m, 1 answer; ")


def test_what_a_server_refuses_of_a_request_is_said_and_kept(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    message = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
    refusal = {"error": {"message": message, "param": "temperature", "code": "unsupported_value"}}
    server, out = serving(say(400, refusal), write_tasks), tmp_path / "tasks.jsonl"
    done = nomoat("distil", f"{server.url}#m", "--out", str(out), "-n", "5", "--seeds", str(seeds))
    note = "`m` at `127.0.0.1` refuses `temperature`: its answers are its own sampling, not the likeliest words"
    assert f"\nnote: {note}\ntasks: 5 kept" in done.stderr
    assert json.loads(sidecar.path_of(out).read_text())["notes"] == [note]


@pytest.mark.parametrize("labels", [False, True])
def test_what_may_have_been_paid_is_said_where_the_teacher_gave_no_answer(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, labels: bool
) -> None:
    server, texts = serving(half), tmp_path / "t.txt"
    texts.write_text("WIN a prize\n")
    for_labels = ("--out", str(tmp_path / "l.csv"), "--label", str(texts), "--labels", "ham,spam")
    for_tasks = ("--out", str(tmp_path / "t.jsonl"), "-n", "5", "--max-requests", "1", "--seeds", str(seeds))
    done = nomoat("distil", f"{server.url}#m", *(for_labels if labels else for_tasks), "--price-in", "1000", "--price-out", "2000")
    *_, error, hint, note = done.stderr.splitlines()
    assert (done.returncode, error[:7], hint) == (1, "error: ", "hint: try again")
    assert note.startswith(f"note: 3 calls to `{server.url}#m` brought no whole answer, and may have been billed: at most $")
    assert len(server.bodies) == 3


def test_lost_calls_and_more_spent_than_may_be_are_said_and_kept(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(half, write_tasks), tmp_path / "tasks.jsonl"
    price = ("--price-in", "1000", "--price-out", "2000")
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "5", "--seeds", str(seeds), *price]
    lost = f"1 call to `{server.url}#m` brought no whole answer, and may have been billed: at most $"
    assert f"\nnote: {lost}" in nomoat(*command).stderr
    done = nomoat(*command, "--max-cost", "0.5")
    assert (done.returncode, f"\nnote: {lost}" in done.stderr, len(server.bodies)) == (0, True, 2)
    assert "\nnote: more than the budget of $0.50 is spent, or may be: " in done.stderr
    beside = json.loads(sidecar.path_of(out).read_text())
    assert (beside["calls_lost"], [note[:12] for note in beside["notes"]]) == (1, [lost[:12], "more than th"])


def test_of_many_tasks_only_the_requests_that_are_asked_are_made_when_it_goes_on_too(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, num_made = serving(write_tasks), 0

    def counting(*shown: object, **how: object) -> str:
        nonlocal num_made
        num_made += 1
        return render_request(*shown, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(instructions, "render_request", counting)
    price = ("--price-in", "1000", "--price-out", "2000", "--max-cost", "7", "--concurrency", "1")  # enough for one or two
    command = ["distil", f"{server.url}#m", "--out", str(tmp_path / "tasks.jsonl"), "--seeds", str(seeds), *price]
    for tasks in ("20000", "99999999999"):
        done = nomoat(*command, "--tasks", tasks)
        assert (done.returncode, "\npartial: the budget of $7.00 is reached" in done.stderr) == (3, True)
    assert 0 < len(server.bodies) < 4
    assert num_made < 20


def test_kill_9_loses_only_what_was_under_way_and_nothing_is_asked_twice(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        write_tasks(handler)

    server, out = serving(slowly), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "140", "--seeds", str(seeds), "--concurrency", "2"]
    with subprocess.Popen([NOMOAT, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(server.bodies) >= 9, "the questions")
        process.kill()
    assert not out.exists()
    done = nomoat(*command, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, said["tasks"]) == (0, 140)
    assert said["answers_reused"] >= 7
    seeds_asked = [body["seed"] for body in server.bodies if body]
    assert len(set(seeds_asked)) == said["answers"]
    assert len(seeds_asked) <= said["answers"] + 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_says_that_the_same_command_goes_on(serving: Callable[..., Server], seeds: Path, tmp_path: Path) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        write_tasks(handler)

    server = serving(slowly)
    command = [NOMOAT, "distil", f"{server.url}#m", "--out", str(tmp_path / "t.jsonl"), "-n", "900", "--seeds", str(seeds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(server.bodies) >= 4, "the questions")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert said.startswith("stopped: what was answered so far is kept in ")
    assert said.endswith("; the same command goes on from there\n")


def test_a_file_of_other_origin_is_not_written_over(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    out.write_text("mine\n")
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "5", "--seeds", str(seeds)]
    done = nomoat(*command)
    assert (done.returncode, out.read_text()) == (1, "mine\n")
    assert done.stderr == (
        f"error: `{out}` is there already, and not from this teacher with these settings\n"
        "hint: name another file, or --replace it (in Python: `replace`)\n"
    )
    assert server.bodies == []
    assert nomoat(*command, "--replace").returncode == 0
    assert nomoat(*command, "--seed", "1").returncode == 1
    assert nomoat(*command, "-n", "9").returncode == 0


def test_languages_of_the_tasks_are_said_where_one_is_asked_for(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    deeds = (
        "sort the words by length",
        "name a river in the north",
        "tell how bread is made",
        "write a letter to your friend",
        "sum it up",
    )
    text = "".join(f"{at}. Instruction: Please {deed}\nOutput: This is what came of it.\n" for at, deed in enumerate(deeds, start=4))
    command = ["distil", f"{serving(counted(text, 9, 9)).url}#m", "-n", "5", "--seeds", str(seeds), "--out"]
    asked = nomoat(*command, str(tmp_path / "asked.jsonl"), "--language", "Korean")
    said = "tasks: 5 kept of 5 offered\n  Korean was asked for; by their words, roughly: en 100%\nterms"
    assert (asked.returncode, said in asked.stderr) == (0, True)
    assert "roughly" not in nomoat(*command, str(tmp_path / "any.jsonl")).stderr


def test_fewer_tasks_are_not_written_over_more(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, out = serving(*[write_tasks] * 3, counted("I cannot help with that.", 9, 9)), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "--seeds", str(seeds)]
    assert nomoat(*command, "-n", "20").returncode == 0
    whole = out.read_text()
    fewer = nomoat(*command, "-n", "3")
    assert (fewer.returncode, fewer.stderr) == (
        1,
        f"error: `{out}` holds 20 rows, and would hold 3; it is left as it is\n"
        "hint: name another file, or --replace it (in Python: `replace`)\n",
    )
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "another home"))  # the stored answers are not there
    nothing = nomoat(*command, "-n", "20")
    assert nothing.returncode == 1
    assert (
        "\ntasks: 0 kept of 0 offered\n  4 answers without a task, such as: I cannot help with that.\n"
        "partial: 4 answers held no whole task; one begins `I cannot help with that.`\n"
    ) in nothing.stderr
    assert f"\nerror: `{out}` holds 20 rows, and would hold 0; it is left as it is\n" in nothing.stderr
    assert "wrote" not in nothing.stderr
    replaced = nomoat(*command, "-n", "20", "--replace")
    assert f"\nerror: there is nothing to replace `{out}` with; it is left as it is\nhint: name another file\n" in replaced.stderr
    assert (replaced.returncode, out.read_text()) == (1, whole)
    assert json.loads(sidecar.path_of(out).read_text())["tasks"] == 20


def test_fewer_labels_are_not_written_over_more(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, source, out = serving(counted("spam", 9, 1), counted("no idea", 9, 1)), tmp_path / "texts.txt", tmp_path / "l.csv"
    source.write_text("WIN a prize\n")
    command = ["distil", f"{server.url}#m", "--out", str(out), "--label", str(source), "--labels", "ham,spam"]
    assert nomoat(*command).returncode == 0
    whole = out.read_text()
    monkeypatch.setenv("NOMOAT_HOME", str(tmp_path / "another home"))
    done = nomoat(*command)
    assert (done.returncode, out.read_text()) == (1, whole)
    assert f"\nerror: `{out}` holds 1 row, and would hold 0; it is left as it is\n" in done.stderr


def test_nothing_is_sent_outside_before_it_was_agreed_to(
    nomoat: Shell, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    done = nomoat("distil", OPENAI_AT_LOOPBACK, "--out", str(tmp_path / "t.jsonl"), "-n", "10", "--seeds", str(seeds))
    assert done.returncode == 1
    assert done.stderr.startswith("error: 5 texts (")
    assert " would go to api.openai.com, for `openai:gpt-4o-mini`; at most $0.0" in done.stderr
    assert done.stderr.endswith("hint: if that is meant, add --yes\n")


def test_a_log_is_told_how_far_the_look_at_what_would_be_sent_is(
    nomoat: Shell, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million texts it takes minutes."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    monkeypatch.setattr("nomoat.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    done = nomoat("distil", OPENAI_AT_LOOPBACK, "--out", str(tmp_path / "t.jsonl"), "--seeds", str(seeds), "-n", "10")
    assert "looking at what would be sent: 20%\n" in done.stderr


def test_many_requests_are_searched_for_personal_data_in_the_seeds_that_all_are_made_of(
    nomoat: Shell, seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5,000 tasks took half a minute before the first word."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    with seeds.open("a") as file:
        file.write(json.dumps({"instruction": "Write to kim@naver.com", "input": "", "output": "Hello"}) + "\n")
    searched, find = [], pii.find
    monkeypatch.setattr(pii, "find", lambda text, **options: searched.append(text) or find(text, **options))
    command = ["distil", OPENAI_AT_LOOPBACK, "--out", str(tmp_path / "t.jsonl"), "--seeds", str(seeds)]
    done = nomoat(*command, "-n", "5000", "--language", "Korean")
    assert done.stderr.startswith("error: 2,500 texts (")
    assert "; 1 of 6 parts of these texts hold what looks like personal data: an e-mail address\n" in done.stderr
    assert len(searched) == 6
    assert any("Korean" in text for text in searched)
    assert " of 5 hold what looks like personal data" in nomoat(*command, "-n", "10").stderr


def test_budget_that_is_used_up_leaves_a_part_and_exit_code_3(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "20", "--seeds", str(seeds), "--price-in", "1000"]
    done = nomoat(*command, "--price-out", "2000", "--max-cost", "7")
    assert done.returncode == 3
    said = done.stderr.splitlines()[-1]
    assert said.startswith("partial: the budget of $7.00 is reached")
    assert said.endswith("; the same command with a higher --max-cost goes on from there")
    assert 0 < len(rows_of(out)) < 20


def test_most_requests_made_leave_a_part_that_a_higher_bound_goes_on_from(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "20", "--seeds", str(seeds)]
    done = nomoat(*command, "--max-requests", "2")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        3,
        "partial: the limit of 2 requests is reached: 2 answers held 20 tasks, and 14 of them were kept; "
        "the same command with a higher --max-requests goes on from there",
    )
    done = nomoat(*command, "--max-requests", "9")
    assert (done.returncode, len(rows_of(out)), ", 2 of them reused" in done.stderr) == (0, 20, True)


def test_a_teacher_that_thinks_is_not_asked_in_vain_and_gets_more_room_or_less_to_think(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    def think(handler: BaseHTTPRequestHandler) -> None:
        body = handler.body  # type: ignore[attr-defined]
        has_room = body["max_tokens"] > 2500 or body.get("reasoning_effort") == "low"
        (write_tasks if has_room else events(piece(None, "length")))(handler)

    server, out = serving(think), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "200", "--seeds", str(seeds)]
    done = nomoat(*command)
    assert (done.returncode, out.read_text(), len(server.bodies)) == (3, "", 4)
    assert "\ntasks: 0 kept of 0 offered\n  4 answers cut off before a task was whole\n" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "partial: 4 answers held no whole task: all ended at the limit of 2,000 new tokens, thinking included, before one was whole; "
        "the same command with a higher --max-tokens goes on from there"
    )
    facts = json.loads(sidecar.path_of(out).read_text())
    assert (facts["answers_in_vain"], facts["max_tokens"]) == ({"cut off before a task was whole": 4}, 2000)
    done = nomoat(*command, "--max-tokens", "3000", "--json")
    assert (done.returncode, json.loads(done.stdout)["tasks"], len(rows_of(out))) == (0, 200, 200)
    other = tmp_path / "other.jsonl"
    done = nomoat(*command[:3], str(other), *command[4:], "--reasoning-effort", "low", "--json")
    assert (done.returncode, json.loads(done.stdout)["settings"]["reasoning_effort"]) == (0, "low")
    texts, labelled = tmp_path / "t.txt", tmp_path / "l.csv"
    texts.write_text("WIN a prize\n")
    label = ("--label", str(texts), "--labels", "ham,spam", "--reasoning-effort", "high")
    assert nomoat(*command[:3], str(labelled), *label).returncode == 3
    assert server.bodies[-1]["reasoning_effort"] == "high"


def test_a_teacher_that_refuses_is_told_with_its_words(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server = serving(counted("I cannot help with that.", 9, 9))
    done = nomoat("distil", f"{server.url}#m", "--out", str(tmp_path / "t.jsonl"), "-n", "20", "--seeds", str(seeds))
    assert done.returncode == 3
    assert done.stderr.splitlines()[-2:] == [
        f"`{tmp_path / 't.jsonl'}` holds nothing to learn from",
        "partial: 4 answers held no whole task; one begins `I cannot help with that.`; another teacher, other seeds (--seeds) or "
        "fewer tasks at once (--per-request) may do better",
    ]
    assert "terms of what learns from it" not in done.stderr


def test_credit_that_ends_leaves_a_part_and_exit_code_3(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks, write_tasks, say(402, {"error": {"message": "no credit"}})), tmp_path / "tasks.jsonl"
    done = nomoat("distil", f"{server.url}#m", "--out", str(out), "-n", "200", "--seeds", str(seeds), "--concurrency", "1")
    assert (done.returncode, len(rows_of(out))) == (3, 14)
    assert done.stderr.splitlines()[-1] == (
        "partial: `127.0.0.1` answered 402: no credit; the account's credit is used up: look at the account; "
        "then the same command goes on from there"
    )
    assert len(server.bodies) == 3


def test_labels_by_likelihood_and_in_writing(nomoat: Shell, serving: Callable[..., Server], tmp_path: Path) -> None:
    source, out = tmp_path / "texts.csv", tmp_path / "labelled.csv"
    source.write_text('text\n"WIN, a prize"\nsee you at noon\n당첨\n', encoding="utf-8")
    done = nomoat("distil", "fake:", "--out", str(out), "--label", str(source), "--labels", "ham,spam")
    assert done.returncode == 0
    with out.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert out.read_bytes().startswith(codecs.BOM_UTF8), "Excel would read it in its country's code page"
    assert tables.read_table(out) == rows
    assert [row["text"] for row in rows] == ["WIN, a prize", "see you at noon", "당첨"]
    assert all(row["label"] in ("ham", "spam") and 0.5 <= float(row["confidence"]) <= 1 for row in rows)
    server = serving(write_labels(("prize", "spam"), ("noon", "Ham."), ("당첨", "=HYPERLINK(1)")))
    written, left_out = tmp_path / "written.tsv", tmp_path / "written.left_out.tsv"
    done = nomoat("distil", f"{server.url}#m", "--out", str(written), "--label", str(source), "--labels", "ham,spam")
    assert written.read_bytes().splitlines() == [b"text\tlabel", b"WIN, a prize\tspam", b"see you at noon\tham"]
    answer = "당첨\tnone of the labels\t'=HYPERLINK(1)"
    assert left_out.read_text(encoding="utf-8").splitlines() == ["\ufefftext\twhy\tanswer", answer]
    assert (
        "labels, by what it wrote: spam 1, ham 1\nleft out: 1 text whose answer was none of the labels\n  당첨 -> =HYPERLINK(1)\n"
        f"wrote {left_out}: the rows without a label, why, and what the teacher answered\n"
    ) in done.stderr
    beside = sidecar.find(left_out)
    assert beside is not None and beside.is_of_this_content and beside.facts["left_out"] == left_out.name


@pytest.mark.parametrize("is_server", [False, True])
def test_how_long_to_think_is_part_of_what_labels_are_from_where_they_are_written(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path, is_server: bool
) -> None:
    ref = f"{serving(counted('spam', 9, 1)).url}#m" if is_server else "fake:"
    source, out = tmp_path / "texts.txt", tmp_path / "labels.csv"
    source.write_text("WIN a prize\n")
    command = ["distil", ref, "--out", str(out), "--label", str(source), "--labels", "ham,spam"]
    assert nomoat(*command).returncode == 0
    assert nomoat(*command, "--reasoning-effort", "low").returncode == is_server


def test_questions_of_a_teacher_that_sends_nothing_are_made_once(
    nomoat: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    messages = labelling.label_task_messages

    def counting(text: str, *what: Any, **more: Any) -> Any:
        made.append(text)
        return messages(text, *what, **more)

    monkeypatch.setattr(labelling, "label_task_messages", counting)
    source = tmp_path / "texts.txt"
    source.write_text("one\ntwo\nthree\n", encoding="utf-8")
    done = nomoat("distil", "fake:", "--out", str(tmp_path / "labels.csv"), "--label", str(source), "--labels", "ham,spam")
    assert done.returncode == 0
    assert [text for text in made if text in ("one", "two", "three")] == ["one", "two", "three"]


def test_labels_that_hold_commas_are_told_apart_where_they_are_counted(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path
) -> None:
    source, labels = tmp_path / "texts.csv", tmp_path / "labels.txt"
    source.write_text("text\nprize\nnoon\n", encoding="utf-8")
    labels.write_text("ham\nspam, bad\n", encoding="utf-8")
    server = serving(write_labels(("prize", "spam, bad"), ("noon", "ham")))
    command = ["distil", f"{server.url}#m", "--out", str(tmp_path / "out.csv"), "--label", str(source), "--labels", str(labels)]
    assert "labels, by what it wrote: `spam, bad` 1, ham 1\n" in nomoat(*command).stderr


def test_rows_are_known_again_by_their_other_columns_and_nothing_of_an_earlier_run_is_left(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path
) -> None:
    server = serving(write_labels(("prize", "spam"), ("noon", "I cannot tell")))
    source, out, left_out = tmp_path / "t.jsonl", tmp_path / "l.csv", tmp_path / "l.left_out.csv"
    source.write_text('{"id": "a7", "body": "see you at noon"}\n{"id": "b1", "body": "WIN a prize"}\n')
    command = ["distil", f"{server.url}#m", "--out", str(out), "--label", str(source), "--input-column", "body", "--labels"]
    assert nomoat(*command, "ham,spam").returncode == 0
    with out.open(encoding="utf-8", newline="") as labels, left_out.open(encoding="utf-8", newline="") as others:
        assert [*csv.DictReader(labels)] == [{"id": "b1", "body": "WIN a prize", "label": "spam"}]
        assert [row["id"] for row in csv.DictReader(others)] == ["a7"]
    told = left_out.read_bytes()
    left_out.write_text("id,body,label\na7,see you at noon,ham\n")  # by hand
    assert nomoat(*command, "ham,spam").stderr.startswith(f"error: `{left_out}` is there already, and not from this teacher")
    left_out.write_bytes(told)
    assert nomoat(*command, "ham,spam").returncode == 0
    done = nomoat(*command, "I cannot tell,spam", "--replace", "--json")
    assert (done.returncode, json.loads(done.stdout)["left_out"]) == (0, None)
    assert sorted(path.name for path in tmp_path.glob("l.*")) == ["l.csv", "l.csv.provenance.json"]


def test_a_disk_without_room_for_both_tables_gets_neither_and_the_next_run_writes_both(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path
) -> None:
    server = serving(write_labels(("prize", "spam"), ("noon", "I cannot tell")))
    (tmp_path / "t.txt").write_text("see you at noon\nWIN a prize\n")
    command = ["distil", f"{server.url}#m", "--out", str(tmp_path / "l.csv"), "--label", str(tmp_path / "t.txt"), "--labels"]
    write = files.write_table

    def full(path: Path, *table: Any, **how: Any) -> None:
        if ".left_out." in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *table, **how)

    def made() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in tmp_path.glob("l.*")}

    for labels in ("ham,spam", "eggs,spam"):
        before = made()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(files, "write_table", full)
            done = nomoat(*command, labels, "--replace")
        assert done.returncode == 1 and f"\nerror: no space left on the disk of `{tmp_path}`\n" in done.stderr
        assert made() == before
        assert nomoat(*command, labels, *(["--replace"] if before else [])).returncode == 0
        assert len(made()) == 4


def test_a_table_without_rows_is_replaced_by_another(nomoat: Shell, serving: Callable[..., Server], tmp_path: Path) -> None:
    server, out, left_out = serving(write_labels(("", "I cannot tell"))), tmp_path / "l.csv", tmp_path / "l.left_out.csv"
    (tmp_path / "t.txt").write_text("WIN a prize\n")
    command = ["distil", f"{server.url}#m", "--out", str(out), "--label", str(tmp_path / "t.txt"), "--labels"]
    done = nomoat(*command, "ham,spam")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, "no text got a label")
    assert nomoat(*command, "eggs,spam", "--replace").returncode == 3
    assert (out.read_text(), left_out.read_text().splitlines()[1:]) == (
        "text,label\n", ["WIN a prize,none of the labels,I cannot tell"],
    )  # fmt: skip
    facts = [json.loads(sidecar.path_of(path).read_text()) for path in (out, left_out)]
    assert [(one["rows"], one["settings"]["labels"]) for one in facts] == [(0, ["eggs", "spam"]), (1, ["eggs", "spam"])]
    done = nomoat(*command, "noodles,I cannot tell", "--replace")
    assert (done.returncode, out.read_text()) == (0, "text,label\nWIN a prize,I cannot tell\n")
    done = nomoat(*command, "eggs,spam", "--replace")
    assert done.stderr.splitlines()[-2] == f"error: there is nothing to replace `{out}` with; it is left as it is"
    assert not left_out.exists()


def test_what_is_left_out_gives_way_to_what_no_fewer_answers_left_out(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path, empty_home: Path
) -> None:
    """The table of labels was moved away, and the kept answers are gone: the teacher is asked anew."""
    acts: dict[str, Act] = {}

    def act(handler: BaseHTTPRequestHandler) -> None:
        acts["now"](handler)

    server = serving(act)
    out, left_out = tmp_path / "l.csv", tmp_path / "l.left_out.csv"
    (tmp_path / "t.txt").write_text("prize\nnoon\n")
    command = ["distil", f"{server.url}#m", "--out", str(out), "--label", str(tmp_path / "t.txt"), "--labels", "ham,spam"]

    def asked_anew(act: Act) -> Done:
        acts["now"] = act
        for path in (out, sidecar.path_of(out), empty_home / "runs" / "answers.sqlite"):
            path.unlink(missing_ok=True)
        return nomoat(*command, "--concurrency", "1")

    assert asked_anew(write_labels(("prize", "spam"), ("noon", "Hm."))).returncode == 0
    assert asked_anew(write_labels(("", "Hm."))).returncode == 3
    assert left_out.read_text().splitlines()[1:] == ["prize,none of the labels,Hm.", "noon,none of the labels,Hm."]
    done = asked_anew(by_text(("prize", counted("spam", 10, 1)), ("noon", say(400, {"error": {"message": "no"}}))))
    assert (done.returncode, out.exists()) == (1, False)
    assert done.stderr.splitlines()[-3].startswith("partial: 1 of 2 texts have no answer: ")
    assert done.stderr.splitlines()[-2] == (
        f"error: `{left_out}` holds what 2 answers left out, and would hold that of 1; it is left as it is"
    )
    acts["now"] = write_labels(("noon", "Hm."))
    assert nomoat(*command).returncode == 0
    assert (out.read_text(), left_out.read_text().splitlines()[1:]) == ("text,label\nprize,spam\n", ["noon,none of the labels,Hm."])


def test_a_teacher_that_thinks_gets_more_room_and_what_it_said_in_time_is_not_asked_again(
    nomoat: Shell, serving: Callable[..., Server], tmp_path: Path
) -> None:
    """Its draft may stand in the answer, or count without standing there."""

    def think(handler: BaseHTTPRequestHandler) -> None:
        body = handler.body  # type: ignore[attr-defined]
        is_easy = "noon" in body["messages"][-1]["content"]
        if is_easy or body["max_tokens"] > 200:
            counted("ham" if is_easy else "<think>A prize: ham or spam?</think>\n\nspam", 9, 9)(handler)
        else:
            events(piece("<think>Ham or" if "draft" in body["messages"][-1]["content"] else None), piece(None, "length"))(handler)

    server, source, out = serving(think), tmp_path / "t.txt", tmp_path / "l.csv"
    left_out = tmp_path / "l.left_out.csv"
    source.write_text("WIN a prize\na draft\nat noon\n")
    command = ["distil", f"{server.url}#m", "--out", str(out), "--label", str(source), "--labels", "ham,spam"]
    done = nomoat(*command)
    assert (done.returncode, out.read_text()) == (0, "text,label\nat noon,ham\n")
    assert left_out.read_text().splitlines()[1:] == ["WIN a prize,cut off at 20 tokens,", "a draft,cut off at 20 tokens,<think>Ham or"]
    assert (
        "\nleft out: 2 texts whose answer was cut off at 20 tokens; --max-tokens gives it more room\n"
        "  WIN a prize\n  a draft -> <think>Ham or\n"
    ) in done.stderr
    done = nomoat(*command, "--max-tokens", "500", "--json")
    facts = json.loads(done.stdout)
    assert (facts["labelled"], facts["cut_off"], facts["max_tokens"]) == ({"spam": 2, "ham": 1}, 0, 500)
    assert not left_out.exists()
    assert [body["max_tokens"] for body in server.bodies] == [20, 20, 20, 500, 500]
    assert nomoat(*command, "--max-tokens", "900").returncode == 0
    assert len(server.bodies) == 5  # what is whole is kept, whatever it might have had
    source.write_text("WIN the most\n")
    done = nomoat(*command[:3], str(tmp_path / "other.csv"), *command[4:], "--max-tokens", "100")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, "no text got a label")


@pytest.mark.usefixtures("kernels")
def test_a_teacher_tuned_on_a_table_needs_no_labels_and_is_not_asked_otherwise_without_a_word(
    nomoat: Shell, tmp_path: Path, tiny_gguf: Path
) -> None:
    adapter, source, out = tmp_path / "mail", tmp_path / "texts.csv", tmp_path / "labelled.csv"
    write_learned(write_adapter(adapter), "ham", "spam")
    source.write_text("id,text\n1,WIN a prize\n2,see you at noon\n")
    ref = f"{tiny_gguf}+{adapter}"
    command = ["distil", ref, "--label", str(source), "--input-column", "text", "--out"]
    done = nomoat(*command, str(out))
    note = f"asked with its labels (ham, spam), as `{ref}` was tuned: see `nomoat show {ref}`"
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, f"note: {note}")
    assert json.loads(sidecar.path_of(out).read_text())["notes"] == [note]
    assert nomoat(*command, str(out), "--labels", "ham,spam").returncode == 0  # the same file, or it would be refused
    done = nomoat(*command, str(tmp_path / "other.csv"), "--labels", "bad,good", "--instruction", "Good?")
    assert done.stderr.splitlines()[0] == f"note: `{ref}` was tuned on another question than this, see `nomoat show {ref}`"


def test_what_was_left_out_and_changed_by_hand_is_not_taken_away(nomoat: Shell, tmp_path: Path) -> None:
    out, left_out = tmp_path / "l.csv", tmp_path / "l.left_out.csv"
    (tmp_path / "t.csv").write_text("id,text\n1,WIN a prize\n2,\n")
    (tmp_path / "whole.csv").write_text("id,text\n1,WIN a prize\n")
    command = ["distil", "fake:", "--out", str(out), "--labels", "ham,spam", "--input-column", "text", "--replace", "--label"]
    assert nomoat(*command, str(tmp_path / "t.csv")).returncode == 0
    left_out.write_text("id,text,label\n2,see you at noon,ham\n")
    done = nomoat(*command, str(tmp_path / "whole.csv"))
    assert (done.returncode, left_out.read_text()) == (0, "id,text,label\n2,see you at noon,ham\n")
    assert f"`{left_out}` stays, for it is not as nomoat wrote it; now every row has a label\n" in done.stderr


def test_what_is_left_out_is_written_over_no_other_file(nomoat: Shell, tmp_path: Path) -> None:
    out, left_out = tmp_path / "l.csv", tmp_path / "l.left_out.csv"
    left_out.write_text("text\nmine\n")
    (tmp_path / "t.txt").write_text("WIN a prize\n")
    command = ["distil", "fake:", "--out", str(out), "--labels", "ham,spam", "--label"]
    done = nomoat(*command, str(tmp_path / "t.txt"))
    assert (done.returncode, out.exists(), left_out.read_text()) == (1, False, "text\nmine\n")
    assert done.stderr.startswith(f"error: `{left_out}` is there already, and not from this teacher with these settings\n")
    done = nomoat(*command, str(left_out), "--replace")
    assert done.stderr.startswith(f"error: `{left_out}` is the file that is read, and would be lost\n")
    assert left_out.read_text() == "text\nmine\n"


def test_flags_that_mean_nothing_together(nomoat: Shell, seeds: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "t.jsonl"))
    assert nomoat("distil", "fake:", *out, "--label", str(seeds)).stderr == (
        "error: which labels there are is not said, and nothing here says that `fake:` was tuned on a table of labels\n"
        "hint: add --labels a,b,c, or --labels FILE (in Python: `labels`)\n"
    )
    assert nomoat("distil", "fake:", *out, "--labels", "a,b").stderr == (
        "error: --labels, --input-column and --instruction are for --label\nhint: add --label TEXTS, or leave them out\n"
    )
    for option, value in {"--max-requests": "5", "--tasks": "100", "--seeds": str(seeds), "--temp": "0"}.items():
        label = ("--label", str(seeds), "--labels", "a,b", "--concurrency", "1")
        assert nomoat("distil", "fake:", *out, *label, option, value).stderr.startswith(
            f"error: --label asks once for each text, for the likeliest label, and has no use for {option}\nhint: leave out what"
        )
    said = nomoat("distil", "fake:", *out, "--teacher-licence", "apache2").stderr
    assert said.startswith("error: no terms are called `apache2`\nhint: did you mean `apache-2.0`? those known are: own, unknown, ")


def test_a_teacher_that_is_not_there_is_named_before_any_seeds_are_fetched(nomoat: Shell, tmp_path: Path) -> None:
    done = nomoat("distil", "smollm2-135n", "--out", str(tmp_path / "t.jsonl"))
    assert done.stderr.startswith("error: no model is called `smollm2-135n`\nhint: did you mean `smollm2-135m` or ")


def test_auto_is_no_teacher_whoever_it_would_ask(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    server = serving(write_tasks)
    empty_home.mkdir()
    (empty_home / "policy.toml").write_text(f'local = "fake:"\ncloud = "{server.url}#m"\ndefault = "cloud"\n')
    (tmp_path / "texts.txt").write_text("WIN a prize\n")
    asked = [
        ("--out", str(tmp_path / "t.jsonl"), "--seeds", str(seeds), "--max-cost", "1"),
        ("--out", str(tmp_path / "l.csv"), "--label", str(tmp_path / "texts.txt"), "--labels", "ham,spam"),
    ]
    for options in asked:
        done = nomoat("distil", "auto", *options)
        assert done.returncode == 1
        assert done.stderr.startswith("error: `auto` chooses between two models, and one is needed here\n")
    assert server.bodies == []


def test_terms_nomoat_knows_are_not_replaced_by_stated_ones(nomoat: Shell, seeds: Path, tmp_path: Path) -> None:
    """Before anything is asked, and before a key is looked for."""
    out = ("--out", str(tmp_path / "t.jsonl"))
    done = nomoat("distil", "openai:gpt-4o", *out, "--seeds", str(seeds), "--teacher-licence", "apache-2.0")
    assert done.stderr == (
        "error: the terms are known, and `apache-2.0` cannot stand in for them: openai:gpt-4o: OpenAI terms of use\n"
        "hint: leave it out: it is for terms that nomoat cannot know, such as those of a server\n"
    )


def test_what_seeds_were_made_from_binds_what_is_made_from_them(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of a first teacher, shown by Alpaca's seeds, are the seeds of a second one."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(seeds.read_text())
    made_from = [
        Parent(kind="teacher", name="anthropic:claude", licence="anthropic-terms"),
        Parent(kind="data", name="alpaca-seeds", licence="apache-2.0"),
    ]
    with sidecar.saving(first, sha256="0" * 64, teacher="anthropic:claude", parents=made_from, facts={}):
        pass
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("OPENAI_BASE_URL", serving(write_tasks).url)
    done = nomoat("distil", OPENAI_AT_LOOPBACK, "--out", str(second), "-n", "5", "--seeds", str(first), "--json")
    told = {parent["name"]: parent["licence"] for parent in json.loads(done.stdout)["made_from"]}
    assert told == {
        OPENAI_AT_LOOPBACK: "openai-assistant", "anthropic:claude": "anthropic-assistant", "alpaca-seeds": "apache-2.0",
    }  # fmt: skip
    assert "commercial use: no" in done.stderr


@pytest.mark.data
@pytest.mark.usefixtures("mirror")
def test_alpacas_seeds_are_known_under_another_name_and_edited(
    serving: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("OPENAI_BASE_URL", serving(write_tasks).url)
    lines = (pull_dataset("alpaca-seeds") / "seed_tasks.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    edited = [
        json.dumps({"instruction": f" {row['instruction'].upper()}", "input": "", "output": "x"}) for row in map(json.loads, lines)
    ]
    mine = [json.dumps({"instruction": f"What is {at} and {at}?", "input": "", "output": str(2 * at)}) for at in range(len(lines) + 1)]
    told = []
    for name, rows in {"copy": "".join(lines), "edited": "\n".join(edited), "half": "\n".join([*edited, *mine])}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(rows, encoding="utf-8")
        command = ["distil", OPENAI_AT_LOOPBACK, "--out", str(tmp_path / f"{name}.out.jsonl"), "-n", "5", "--seeds", str(path)]
        done = shell.nomoat(*command, "--json")
        assert done.returncode == 0
        told.append({parent["name"]: parent["licence"] for parent in json.loads(done.stdout)["made_from"]})
    alpacas = {"alpaca-seeds": "apache-2.0"}
    assert told == [
        {OPENAI_AT_LOOPBACK: "openai-assistant", **alpacas},
        {OPENAI_AT_LOOPBACK: "openai-assistant", "edited.jsonl": "own", **alpacas},
        {OPENAI_AT_LOOPBACK: "openai-terms", "half.jsonl": "own"},
    ]


def test_what_texts_were_made_from_binds_their_labels(nomoat: Shell, tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "labelled.csv"
    texts.write_text("WIN a prize\n")
    made_from = [Parent(kind="teacher", name="openai:gpt-4o", licence="openai-assistant")]
    with sidecar.saving(texts, sha256="0" * 64, teacher="openai:gpt-4o", parents=made_from, facts={}):
        pass
    done = nomoat("distil", "fake:", "--out", str(out), "--label", str(texts), "--labels", "ham,spam")
    assert "  because of teacher openai:gpt-4o: OpenAI's output may not be used" in done.stderr
    beside = sidecar.find(out)
    assert beside is not None and [parent.name for parent in beside.parents] == ["fake:", "openai:gpt-4o"]


@pytest.mark.usefixtures("kernels")
def test_what_stands_beside_the_file_names_no_folder(nomoat: Shell, tmp_path: Path, tiny_gguf: Path) -> None:
    teacher, texts, out = tmp_path / "of a client" / "t.gguf", tmp_path / "texts.txt", tmp_path / "l.csv"
    teacher.parent.mkdir()
    teacher.write_bytes(tiny_gguf.read_bytes())
    texts.write_text("WIN a prize\n")
    done = nomoat("distil", str(teacher), "--out", str(out), "--label", str(texts), "--labels", "ham,spam")
    assert done.returncode == 0, done.stderr
    told = sidecar.path_of(out).read_text()
    assert '"teacher": "t.gguf"' in told and '"name": "t.gguf (base weights of unknown origin)"' in told
    assert "of a client" not in told


def test_a_sidecar_that_cannot_be_read_is_told_before_anything_is_asked(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server = serving(write_tasks)
    sidecar.path_of(seeds).write_text("{}")
    done = nomoat("distil", f"{server.url}#m", "--out", str(tmp_path / "t.jsonl"), "--seeds", str(seeds))
    assert "should say which teacher wrote the file beside it, and does not" in done.stderr
    assert server.bodies == []


def test_a_file_whose_sidecar_was_cut_is_written_anew_as_the_error_says(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path
) -> None:
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    command = ["distil", f"{server.url}#m", "--out", str(out), "-n", "5", "--seeds", str(seeds)]
    assert nomoat(*command).returncode == 0
    num_asked, written = len(server.bodies), out.read_bytes()
    sidecar.path_of(out).write_bytes(b"")
    refused = nomoat(*command)
    assert refused.stderr.endswith(
        "hint: run the same `nomoat distil` again with --replace (in Python: `replace`): it writes both anew\n"
    )
    assert (refused.returncode, nomoat(*command, "--replace").returncode) == (1, 0)
    assert (len(server.bodies), out.read_bytes()) == (num_asked, written)
    assert sidecar.find(out) is not None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("t.csv", (), "does not end as a file of tasks does\nhint: name one that ends in .jsonl, .ndjson\n"),
        ("t", (), "does not end as a file of tasks does\nhint: name one that ends in .jsonl, .ndjson\n"),
        ("l.jsonl", ("--label", "--labels"), "does not end as a file of labels does\nhint: name one that ends in .csv, .tsv, .tab\n"),
    ],
)
def test_out_bears_the_name_of_what_it_holds(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, name: str, options: tuple[str, ...], message: str
) -> None:
    server, out = serving(write_tasks), tmp_path / name
    (tmp_path / "texts.txt").write_text("WIN a prize\n")
    given = dict(zip(options, (str(tmp_path / "texts.txt"), "ham,spam"), strict=False)) or {"--seeds": str(seeds)}
    done = nomoat("distil", f"{server.url}#m", "--out", str(out), *(part for pair in given.items() for part in pair))
    assert (done.returncode, done.stderr) == (1, f"error: `{out}` {message}")
    assert (server.bodies, out.exists()) == ([], False)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such pipes")
@pytest.mark.parametrize("name", ["l.csv", "l.left_out.csv"])
def test_a_pipe_is_no_file_to_write_into(nomoat: Shell, serving: Callable[..., Server], tmp_path: Path, name: str) -> None:
    """Who made it stands beside a file. Said before the teacher is asked."""
    server, pipe = serving(write_tasks), tmp_path / name
    (tmp_path / "texts.txt").write_text("WIN a prize\n")
    os.mkfifo(pipe)
    command = ["distil", f"{server.url}#m", "--label", str(tmp_path / "texts.txt"), "--labels", "ham,spam", "--replace", "--yes"]
    done = nomoat(*command, "--out", str(tmp_path / "l.csv"))
    said = f"error: `{pipe}` is a pipe or a device, and a file is written\nhint: name another file\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert (server.bodies, sorted(tmp_path.glob("l*"))) == ([], [pipe])


def test_what_is_read_is_not_written_over_whatever_may_be_replaced(nomoat: Shell, seeds: Path, tmp_path: Path) -> None:
    """Under its own name, a longer one, and that of a link. The texts are what cannot be had again."""
    texts, link = tmp_path / "texts.csv", tmp_path / "link.csv"
    texts.write_text("id,text\n1,WIN a prize\n")
    link.symlink_to(texts)
    (tmp_path / "sub").mkdir()
    before = texts.read_text(), seeds.read_text()
    labels = ("--label", str(texts), "--labels", "ham,spam", "--input-column", "text")
    for out, what in (
        (texts, labels), (tmp_path / "sub" / ".." / "texts.csv", labels), (link, labels), (seeds, ("--seeds", str(seeds), "-n", "1")),
    ):  # fmt: skip
        done = nomoat("distil", "fake:", "--out", str(out), "--replace", *what)
        said = f"error: `{out}` is the file that is read, and would be lost\nhint: name another file\n"
        assert (done.returncode, done.stderr) == (1, said)
    assert (texts.read_text(), seeds.read_text()) == before


def test_labels_of_another_column_are_not_written_over(nomoat: Shell, tmp_path: Path) -> None:
    source, out = tmp_path / "texts.csv", tmp_path / "labelled.csv"
    source.write_text("title,body\nhello,WIN a prize\n")
    command = ["distil", "fake:", "--out", str(out), "--label", str(source), "--labels", "ham,spam", "--input-column"]
    assert nomoat(*command, "title").returncode == 0
    before = out.read_text()
    done = nomoat(*command, "body")
    assert done.stderr.startswith(f"error: `{out}` is there already, and not from this teacher with these settings\n")
    assert out.read_text() == before
    assert nomoat(*command, "title").returncode == 0


def test_terms_of_texts_that_an_older_nomoat_took_for_a_teachers_are_said_not_to_be(nomoat: Shell, tmp_path: Path) -> None:
    texts, teacher = tmp_path / "t.csv", "https://api.openai.com/v1#gpt-4o"
    texts.write_text("text\nWIN a prize\n")
    parents = [Parent(kind="teacher", name=teacher, licence="mit", source="stated by the user")]
    with sidecar.saving(texts, sha256="0" * 64, teacher=teacher, parents=parents, facts={}):
        pass
    done = nomoat("distil", "fake:", "--out", str(tmp_path / "l.csv"), "--labels", "ham,spam", "--label", str(texts))
    assert f"note: of {teacher}, `t.csv.provenance.json` has other terms (`mit`) than" in done.stderr
    assert f"condition of teacher {teacher}: its output is not used to develop models that compete with OpenAI" in done.stderr


@pytest.mark.usefixtures("kernels")
def test_the_teachers_terms_enter_the_licence_of_what_is_tuned_on_its_tasks(
    nomoat: Shell, serving: Callable[..., Server], seeds: Path, tmp_path: Path, tiny_gguf: Path
) -> None:
    pytest.importorskip("torch")
    server, out = serving(write_tasks), tmp_path / "tasks.jsonl"
    terms = ("--teacher-licence", "openai-assistant")
    assert nomoat("distil", f"{server.url}#m", "--out", str(out), "-n", "20", "--seeds", str(seeds), *terms).returncode == 0
    done = nomoat("tune", str(tiny_gguf), str(out), "--name", "pupil", "--epochs", "0.2")
    assert done.returncode == 0, done.stderr
    assert f"teacher: {server.url}#m wrote this data\n" in done.stderr
    assert "commercial use: no" in done.stderr
    shown = nomoat("show", f"{tiny_gguf}+pupil").stdout
    assert f"because of teacher {server.url}#m: OpenAI's output may not be used to develop models that compete with OpenAI" in shown
    assert f"\ndata_file: {out.name}\n" in shown and "data_licence" not in shown, "they are nobody's own"


def test_terms_of_the_data_that_are_mistyped_are_an_error(nomoat: Shell, seeds: Path, tiny_gguf: Path) -> None:
    done = nomoat("tune", str(tiny_gguf), str(seeds), "--name", "x", "--data-licence", "cc-by-4")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "error: no terms are called `cc-by-4`\nhint: did you mean `cc-by-4.0`? those known are: own, unknown, "
    )
