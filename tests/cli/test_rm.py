"""`nomoat rm`, as a user's shell sees it."""

from __future__ import annotations

import errno
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import Done
from small_disk import FILL, run_on_small_disk
from tiny import write_adapter, write_tiny_gguf

from nomoat.engine import importer
from nomoat.tune.adapter import alone_with, tuning

Nomoat = Callable[..., Done]


@pytest.mark.parametrize("piped", [b"", b"n\n", b"y\n"])
def test_where_nobody_can_be_asked_nothing_is_removed_without_yes(
    piped: bytes, empty_home: Path, tmp_path: Path, nomoat: Nomoat, tuned: Callable[[str], Path]
) -> None:
    """What is piped in is no answer. What can be made again is removed all the same."""
    adapter, weights = tuned("own"), pulled(empty_home, "a.gguf", "llama")
    imported = importer.import_gguf(weights)
    (tmp_path / "s.jsonl").write_text('{"input": "question", "target": "a"}\n')
    assert nomoat("eval", "fake:", str(tmp_path / "s.jsonl")).returncode == 0
    answers = empty_home / "runs" / "answers.sqlite"
    before = answers.read_bytes()
    for what in ("openllama-3b+후기", "hf:o/r/a.gguf", "--answers"):
        done = nomoat("rm", what, piped=piped)
        assert done.returncode == 1 and done.stderr.startswith("error: there is no terminal to ask on whether to remove ")
        assert done.stderr.endswith("; nothing was removed\nhint: if that is meant, add --yes\n")
    assert (adapter.exists(), weights.exists(), answers.read_bytes()) == (True, True, before)
    assert nomoat("rm", "--cache", piped=piped).returncode == 0
    assert not imported.exists()


def test_rm_removes_an_adapter_and_nothing_else(empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]) -> None:
    (tuned("own") / "adapter_model.safetensors").write_bytes(bytes(2_000_000))
    (empty_home / "adapters" / "other").mkdir()
    assert nomoat("rm", "openllama-3b+후기", "--yes").stderr == "openllama-3b+후기: removed, 2 MB free again\n"
    assert [path.name for path in (empty_home / "adapters").iterdir()] == ["other"]


def test_an_adapter_with_a_plus_in_its_name_is_listed_shown_and_removed_by_that(
    empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]
) -> None:
    """As somebody put it there; `tune` gives no such names."""
    folder = tuned("own")
    folder = folder.rename(folder.with_name("한국어 후기+1"))
    (folder / "adapter_config.json").write_text("{}")
    (row,) = json.loads(nomoat("models", "--pulled", "--json").stdout)
    assert row["id"] == "openllama-3b+한국어 후기+1"
    assert f"adapter: {folder}" in nomoat("show", row["id"]).stdout.splitlines()
    assert nomoat("rm", row["id"], "--yes").returncode == 0
    assert not folder.exists()


def test_several_are_removed_one_after_another(empty_home: Path, nomoat: Nomoat) -> None:
    files = [pulled(empty_home, name, "llama") for name in ("a.gguf", "b.gguf")]
    done = nomoat("rm", "hf:o/r/a.gguf", "hf:o/r/b.gguf", "--yes")
    assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == ["hf:o/r/a.gguf", "hf:o/r/b.gguf"]
    assert not any(file.exists() for file in files)


def test_a_link_to_an_adapter_is_removed_and_what_it_points_to_stays(
    empty_home: Path, tmp_path: Path, program: Nomoat, tuned: Callable[[str], Path]
) -> None:
    kept = tuned("own").rename(tmp_path / "kept")
    link = empty_home / "adapters" / "linked"
    link.symlink_to(kept)
    assert program("rm", "openllama-3b+linked", "--yes").stderr == "openllama-3b+linked: removed\n"
    assert not link.is_symlink()
    assert (kept / "provenance.json").is_file()


def test_what_is_being_tuned_stays_and_so_does_what_was_imported_with_it(empty_home: Path, nomoat: Nomoat) -> None:
    (empty_home / "adapters").mkdir(parents=True)
    folder = write_adapter(empty_home / "adapters" / "후기")
    baked = importer.import_gguf(pulled(empty_home, "a.gguf", "llama"), adapter=folder)
    with alone_with(folder, hint=""):
        done = nomoat("rm", "hf:o/r/a.gguf+후기", "--yes")
    assert done.returncode == 1 and "is being tuned by another nomoat right now" in done.stderr
    assert (folder.exists(), baked.exists()) == (True, True)


def test_what_is_being_tuned_and_has_no_folder_yet_is_not_taken_for_unknown(empty_home: Path, nomoat: Nomoat) -> None:
    with alone_with(empty_home / "adapters" / "후기", hint=""):
        done = nomoat("rm", "openllama-3b+후기", "--yes")
    assert done.stderr == "error: `후기` is being tuned by another nomoat right now\nhint: end that, or wait for it\n"


def test_weights_stay_while_something_is_tuned_on_them(empty_home: Path, nomoat: Nomoat) -> None:
    """It would end well, where the system lets it read on, and could not be gone on with."""
    weights, other = pulled(empty_home, "a.gguf", "llama"), pulled(empty_home, "b.gguf", "llama")
    with tuning(empty_home / "adapters" / "후기", weights):
        done = nomoat("rm", "hf:o/r/a.gguf", "--yes")
        assert nomoat("rm", "hf:o/r/b.gguf", "--yes").returncode == 0
    assert done.stderr == "error: `후기` is being tuned on `hf:o/r/a.gguf` right now\nhint: end that, or wait for it\n"
    assert (weights.exists(), other.exists()) == (True, False)
    assert nomoat("rm", "hf:o/r/a.gguf", "--yes").returncode == 0


def test_in_a_home_that_somebody_else_filled_the_model_is_named_and_not_a_lock(
    empty_home: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """root may write everywhere, so the system's refusal is put in its mouth."""
    weights = pulled(empty_home, "a.gguf", "llama")
    with tuning(empty_home / "adapters" / "spam", weights):
        pass  # its locks stay

    def refusing(do: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Path, *told: Any, **named: Any) -> Any:
            if path == weights or path.parent == empty_home / "cache" / "locks":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return do(path, *told, **named)

        return refuse

    monkeypatch.setattr(Path, "open", refusing(Path.open))
    monkeypatch.setattr(Path, "unlink", refusing(Path.unlink))
    done = nomoat("rm", "hf:o/r/a.gguf", "--yes")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: cannot remove `{weights}`: Permission denied\n"
        f"hint: check who may write to `{empty_home}`, or set NOMOAT_HOME to a folder of yours\n",
    )


@pytest.mark.parametrize("is_tuned", [True, False])
def test_with_an_adapter_goes_what_an_interrupted_training_left(
    is_tuned: bool, empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]
) -> None:
    if is_tuned:
        tuned("own")
    left = empty_home / "adapters" / ".후기.checkpoint"
    left.mkdir(parents=True)
    (left / "checkpoint.pt").write_bytes(bytes(3_000_000))
    assert nomoat("rm", "openllama-3b+후기", "--yes").stderr == "openllama-3b+후기: removed, 3 MB free again\n"
    assert list((empty_home / "adapters").iterdir()) == []


@pytest.mark.parametrize(
    ("ref", "error", "hint"),
    [
        ("smollm2-135m", "no model called `smollm2-135m` is pulled", "nothing is pulled yet"),
        ("openllama-3b+..", "no adapter is called `..`", "adapters lie in NOMOAT_HOME/adapters"),
    ],
)
def test_rm_of_what_is_not_there_removes_nothing(ref: str, error: str, hint: str, empty_home: Path, nomoat: Nomoat) -> None:
    (empty_home / "adapters" / "kept").mkdir(parents=True)
    done = nomoat("rm", ref)
    assert (done.returncode, done.stderr) == (1, f"error: {error}\nhint: {hint}\n")
    assert (empty_home / "adapters" / "kept").is_dir()


def pulled(home: Path, name: str, arch: str) -> Path:
    folder = home / "models/hf/o/r"
    folder.mkdir(parents=True, exist_ok=True)
    return write_tiny_gguf(folder / name, arch=arch)


def test_with_a_model_goes_what_was_imported_of_it(empty_home: Path, nomoat: Nomoat) -> None:
    kept, doomed = pulled(empty_home, "a.gguf", "llama"), pulled(empty_home, "b.gguf", "qwen2")
    folders = [importer.import_gguf(path) for path in (kept, doomed)]
    done = nomoat("rm", "hf:o/r/b.gguf", "--yes")
    assert done.stderr.startswith("hf:o/r/b.gguf: removed, ")
    assert [folder.exists() for folder in folders] == [True, False]
    assert (kept.exists(), doomed.exists()) == (True, False)


def test_with_an_adapter_goes_what_was_imported_with_it(empty_home: Path, nomoat: Nomoat) -> None:
    (empty_home / "adapters").mkdir(parents=True)
    folder = write_adapter(empty_home / "adapters" / "후기")
    base = pulled(empty_home, "a.gguf", "llama")
    plain, baked = importer.import_gguf(base), importer.import_gguf(base, adapter=folder)
    assert nomoat("rm", "hf:o/r/a.gguf+후기", "--yes").returncode == 0
    assert (plain.exists(), baked.exists(), folder.exists(), base.exists()) == (True, False, False, True)


def test_rm_cache_removes_what_can_be_made_again_and_models_says_how_much(empty_home: Path, nomoat: Nomoat) -> None:
    base = pulled(empty_home, "a.gguf", "llama")
    folder = importer.import_gguf(base)
    assert "cache: " in nomoat("models", "--pulled").stderr
    assert nomoat("rm", "--cache").stderr.startswith("cache: removed, ")
    assert (folder.exists(), base.exists()) == (False, True)
    assert "cache: " not in nomoat("models", "--pulled").stderr


def test_rm_answers_removes_what_was_asked_and_answered(empty_home: Path, tmp_path: Path, nomoat: Nomoat) -> None:
    path = empty_home / "runs" / "answers.sqlite"
    (empty_home / "router").mkdir(parents=True)
    assert nomoat("rm", "--answers").stderr == "answers: none are stored\n"
    assert not path.exists()
    suite = tmp_path / "s.jsonl"
    suite.write_text('{"input": "b secret", "target": "secret b"}\n' * 3)
    assert nomoat("eval", "fake:", str(suite)).returncode == 0
    assert b"secret" in b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
    stays = f"`{empty_home / 'router'}` stays: the learned router, with fragments of the prompts it learned from\n"
    removed = "answers: removed, 1 answer and 3 outcomes, 0 kB free again\n"
    assert nomoat("rm", "--answers", "--yes").stderr == removed + stays
    assert b"secret" not in b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


def test_rm_damaged_removes_what_cannot_be_read_and_the_rest_is_not_asked_again(
    empty_home: Path, tmp_path: Path, nomoat: Nomoat
) -> None:
    assert nomoat("rm", "--damaged").stderr == "answers: none are stored\n"
    suite = tmp_path / "s.jsonl"
    suite.write_text("".join(f'{{"input": "question {at}", "target": "a"}}\n' for at in range(3)))
    assert nomoat("eval", "fake:", str(suite)).returncode == 0
    for yes in ((), ("--yes",)):
        assert nomoat("rm", "--damaged", *yes).stderr == "answers: all can be read\n"
    with sqlite3.connect(empty_home / "runs" / "answers.sqlite") as database:
        database.execute("UPDATE answers SET answer = substr(answer, 1, 40) WHERE request LIKE '%question 1%'")
    database.close()
    refused = nomoat("eval", "fake:", str(suite))
    assert (refused.returncode, "hint: `nomoat rm --damaged` removes" in refused.stderr) == (1, True)
    asked = nomoat("rm", "--damaged")
    assert (asked.returncode, asked.stderr.startswith("error: there is no terminal to ask on whether to remove ")) == (1, True)
    assert nomoat("rm", "--damaged", "--yes").stderr == (
        "answers: removed, 1 that could not be read; asked for again, it is computed, and paid for, again\n"
    )
    assert json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)["side"]["facts"]["reused answers"] == "2"


def test_rm_damaged_saves_what_a_damaged_file_still_holds_and_rm_answers_removes_that_too(
    empty_home: Path, tmp_path: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, suite = empty_home / "runs" / "answers.sqlite", tmp_path / "s.jsonl"
    suite.write_text("".join(f'{{"input": "question {at}", "target": "a"}}\n' for at in range(3)))
    assert nomoat("eval", "fake:", str(suite)).returncode == 0

    def damage() -> None:
        with path.open("r+b") as file:
            file.write(b"\0" * 1000)

    damage()
    assert "there is no terminal to ask on" in nomoat("rm", "--damaged").stderr
    assert nomoat("rm", "--damaged", "--yes").stderr == (
        "answers: saved, 3 answers and 3 outcomes of a damaged file; no row is known to be lost; "
        f"it is kept as `{path}.damaged` until you remove it\n"
    )
    assert json.loads(nomoat("eval", "fake:", str(suite), "--json").stdout)["side"]["facts"]["reused answers"] == "3"
    damage()
    asked: list[str] = []
    with monkeypatch.context() as patched:  # a person who does not want that
        patched.setattr("nomoat.cli.console.has_person", lambda: True)
        patched.setattr("typer.confirm", lambda question, err: not (asked.append(question) or "damaged" in question))
        assert nomoat("rm", "--answers").returncode == 1 and path.exists()
    assert asked[1:] == ["Remove the damaged file of them (end every nomoat that asks models first)?"]
    removed = nomoat("rm", "--answers", "--yes")
    assert (removed.returncode, removed.stderr[:38]) == (0, "answers: removed, with a damaged file,")
    assert [left.name for left in path.parent.glob("answers.sqlite*")] == []


def test_rm_answers_removes_what_a_link_leads_to_and_what_a_killed_rm_damaged_left(
    empty_home: Path, tmp_path: Path, nomoat: Nomoat
) -> None:
    link, target = empty_home / "runs" / "answers.sqlite", tmp_path / "disk" / "real.sqlite"
    link.parent.mkdir(parents=True)
    target.parent.mkdir()
    link.symlink_to(target)
    for name in ("real.sqlite", "real.sqlite-wal", ".real.sqlite.123.part", ".real.sqlite.123.part-wal", "real.sqlite.damaged"):
        target.with_name(name).write_bytes(b"secret")
    target.with_name(".real.sqlite.theirs").write_bytes(b"other")
    assert nomoat("rm", "--answers", "--yes").stderr.startswith("answers: removed, with a damaged file,")
    assert [left.name for left in target.parent.iterdir() if left.is_file()] == [".real.sqlite.theirs"]
    target.with_name(".real.sqlite.123.part").write_bytes(b"secret")
    assert nomoat("rm", "--answers", "--yes").stderr.startswith("answers: removed, 0 answers and 0 outcomes,")
    assert not target.with_name(".real.sqlite.123.part").exists()


def test_rm_answers_on_a_full_disk_names_the_files_to_delete(empty_home: Path) -> None:
    code = f"from nomoat.asking.store import AnswerStore\nAnswerStore().close()\n{FILL}"
    runs = str(empty_home / "runs")
    remove = [sys.executable, "-m", "nomoat", "rm", "--answers", "--yes"]
    done = run_on_small_disk(Path(runs), ["sh", "-c", '"$1" -c "$2" "$0" && shift 2 && "$@"', runs, sys.executable, code, *remove])
    assert (done.returncode, done.stderr) == (
        1,
        f"error: no space left on the disk of `{runs}`\n"
        "hint: free some 100 kB or more, or end every nomoat and delete the files in which all answers are: "
        f"`{runs}/answers.sqlite`, `answers.sqlite-wal` and `answers.sqlite-shm`\n",
    )


def test_rm_cache_leaves_and_names_what_links_lead_to(empty_home: Path, tmp_path: Path, nomoat: Nomoat) -> None:
    kept = tmp_path / "other" / "imported"
    (kept / "model").mkdir(parents=True)
    (empty_home / "cache").mkdir(parents=True)
    link = empty_home / "cache" / "imported"
    link.symlink_to(kept)
    assert nomoat("rm", "--cache").stderr.splitlines() == [
        f"`{link}` leads to `{kept}`, which another home may use: left alone",
        "cache: removed, 0 kB free again",
    ]
    assert (kept / "model").is_dir() and link.is_symlink()


@pytest.mark.parametrize("arguments", [(), ("smollm2-135m", "--cache"), ("smollm2-135m", "--answers"), ("--cache", "--damaged")])
def test_rm_removes_one_thing(arguments: tuple[str, ...], nomoat: Nomoat) -> None:
    done = nomoat("rm", *arguments)
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1 if arguments else 2,
        "error: name models to remove, or one of --cache, --answers and --damaged",
    )
