"""`nomoat models`, as a user's shell sees it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from shell import Done
from tiny import write_adapter

from nomoat import footprint
from nomoat.catalog import cards
from nomoat.engine import imported, source
from nomoat.engine.gguf import GGUFFile

Nomoat = Callable[..., Done]


def test_models_lists_every_card_with_its_verdict(program: Nomoat) -> None:
    done = program("models")
    assert (done.returncode, done.stderr) == (0, "* rests on terms not confirmed: `nomoat show MODEL`\n")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(rows) == {"MODEL"} | {card.id for card in cards.cards()}
    assert " 6.74 B  no " in rows["alpaca-7b"]
    assert " yes, with use restrictions " in rows["bloom-560m"]
    assert " openai:gpt-4o-mini" in rows["gpt-4o-mini"]
    assert [name for name, row in rows.items() if row.rstrip().endswith(" mirror only")] == ["gemma3-270m"]


def test_commercial_leaves_out_no_and_unknown(empty_home: Path, nomoat: Nomoat) -> None:
    path = empty_home / "models" / "hf" / "o" / "r" / "unknown.gguf"
    path.parent.mkdir(parents=True)
    path.touch()
    assert "hf:o/r/unknown.gguf" in nomoat("models").stdout
    rows = json.loads(nomoat("models", "--commercial", "--json").stdout)
    ids = [row["id"] for row in rows]
    assert {row["licence"]["commercial"] for row in rows} == {"yes", "yes, if", "yes, with use restrictions"}
    assert "openllama-7b" in ids
    assert "vicuna-7b-v1.5" not in ids


def test_fits_and_open_and_closed_filter(nomoat: Nomoat) -> None:
    fitting = json.loads(nomoat("models", "--fits", "--json").stdout)
    assert {row["memory"]["fits"] for row in fitting} == {"fits"}
    assert {row["kind"] for row in json.loads(nomoat("models", "--closed", "--json").stdout)} == {"closed"}
    assert {row["kind"] for row in json.loads(nomoat("models", "--open", "--json").stdout)} == {"open"}


def test_pulled_files_have_rows_like_cards(empty_home: Path, nomoat: Nomoat, tiny_gguf: Path) -> None:
    tiny, broken = (empty_home / "models" / "hf" / "o" / "r" / name for name in ("tiny.gguf", "broken.gguf"))
    tiny.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, tiny)
    broken.write_bytes(b"GGUF")
    rows = {row["id"]: row for row in json.loads(nomoat("models", "--json", "-c", "64").stdout)}
    row, card = rows["hf:o/r/tiny.gguf"], rows["openllama-3b"]
    assert list(row) == list(card) and list(row["sources"][0]) == list(card["sources"][0])
    assert row["sources"][0]["size_bytes"] == tiny.stat().st_size
    assert (row["architecture"], row["runs_here"], row["pulled"]) == ("llama", True, str(tiny))
    shown = json.loads(nomoat("show", "hf:o/r/tiny.gguf", "--json", "-c", "64").stdout)
    same = ("parameters", "context_tokens", "licence", "runs_here")
    assert {name: row[name] for name in same} == {name: shown[name] for name in same} and row["context_tokens"]
    assert row["memory"]["total_bytes"] == shown["memory"]["total_bytes"]
    for name in ("--context", "--ctx-size"):
        planned = json.loads(nomoat("show", "hf:o/r/tiny.gguf", "--json", name, "64").stdout)
        assert planned["memory"]["total_bytes"] == shown["memory"]["total_bytes"]
    assert (rows["hf:o/r/broken.gguf"]["memory"], rows["hf:o/r/broken.gguf"]["runs_here"]) == (None, False)
    assert str(broken) in rows["hf:o/r/broken.gguf"]["notes"]
    fitting = nomoat("models", "--fits", "--pulled").stdout.splitlines()
    assert [line.split()[0] for line in fitting] == ["MODEL", "hf:o/r/tiny.gguf"]
    assert "pulled (cannot be read)" in nomoat("models", "--pulled").stdout


def test_a_pulled_file_that_only_another_user_may_read_is_listed_as_one_that_cannot_be_read(
    empty_home: Path, nomoat: Nomoat, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path) -> GGUFFile:
        if path == theirs:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))  # which nobody says to root
        return GGUFFile(path)

    ours, theirs = (empty_home / "models" / "hf" / "o" / "r" / name for name in ("ours.gguf", "theirs.gguf"))
    ours.parent.mkdir(parents=True)
    for path in (ours, theirs):
        shutil.copy(tiny_gguf, path)
    monkeypatch.setattr(source, "open_source", opened)
    rows = json.loads(nomoat("models", "--pulled", "--json").stdout)
    assert [(row["id"], row["runs_here"], row["notes"]) for row in rows] == [
        ("hf:o/r/ours.gguf", True, ""), ("hf:o/r/theirs.gguf", False, f"`{theirs}` cannot be read: Permission denied")
    ]  # fmt: skip
    assert nomoat("models", "--pulled").stdout.rstrip().endswith("pulled (cannot be read)")


def test_what_is_pulled_and_filtered_out_is_not_called_nothing(empty_home: Path, nomoat: Nomoat, tiny_gguf: Path) -> None:
    assert nomoat("models", "--pulled", "--commercial").stderr == "nothing is pulled yet: `nomoat pull smollm2-135m`\n"
    folder = empty_home / "models" / "hf" / "owner" / "repo"
    folder.mkdir(parents=True)
    shutil.copy(tiny_gguf, folder / "m.gguf")
    assert nomoat("models", "--pulled", "--commercial").stderr == "no model is like that\n"


def test_a_longer_context_needs_more_memory(nomoat: Nomoat) -> None:
    def total(*more: str) -> int:
        rows = json.loads(nomoat("models", "--json", *more).stdout)
        return next(row["memory"]["total_bytes"] for row in rows if row["id"] == "smollm2-135m")

    sizes = footprint.foretold_kv_sizes("llama", 64, keeps_codes=footprint.has_native_kernels(), quality="default")
    assert total("-c", "8192") - total("-c", "4096") == 4096 * footprint.kv_bytes_a_token(30, 3, 64, sizes)


def test_a_listing_of_nothing_says_so_and_leaves_no_trace(empty_home: Path, nomoat: Nomoat) -> None:
    done = nomoat("models", "--pulled")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing is pulled yet: `nomoat pull smollm2-135m`\n")
    assert json.loads(nomoat("models", "--pulled", "--json").stdout) == []
    assert not empty_home.exists()


def test_what_was_tuned_here_is_listed_after_the_pulled_models(empty_home: Path, nomoat: Nomoat, tuned: Callable[[str], Path]) -> None:
    folder = tuned("cc-by-nc-4.0")
    (folder / "adapter_config.json").write_text("{}")
    facts = json.loads((folder / "provenance.json").read_text()) | {"made": "2026-11-28T01:02:03+00:00"}
    (folder / "provenance.json").write_text(json.dumps(facts))
    broken = empty_home / "adapters" / "broken"
    broken.mkdir()
    for name in ("adapter_config.json", "provenance.json"):
        (broken / name).write_text("{")
    unreadable, row = json.loads(nomoat("models", "--pulled", "--json").stdout)
    card = json.loads(nomoat("models", "--json").stdout)[0]
    assert list(row)[: len(card)] == list(card)
    assert json.loads(nomoat("models", "--json").stdout)[-2:] == [unreadable, row]  # where who has tuned looks first
    assert (row["id"], row["kind"], row["base"], row["made"]) == ("openllama-3b+후기", "adapter", "openllama-3b", facts["made"])
    assert row["size_bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert (row["licence"]["commercial"], unreadable["licence"]["commercial"]) == ("no", "unknown")
    assert (unreadable["id"], unreadable["base"]) == ("BASE+broken", None) and "provenance.json` cannot be read" in unreadable["notes"]
    shown = nomoat("models", "--pulled").stdout.splitlines()
    assert shown[1].split()[0] == "BASE+broken" and shown[1].rstrip().endswith(" tuned, 0 kB (cannot be read)")
    assert shown[2].split()[:2] == ["openllama-3b+후기", "no"] and shown[2].rstrip().endswith(
        " tuned 2026-11-28, 1 kB (cannot be read)"
    )
    assert nomoat("models", "--pulled", "--commercial").stderr == "no model is like that\n"


def test_an_adapter_that_is_cut_is_listed_and_shown_as_one_that_cannot_be_read(empty_home: Path, nomoat: Nomoat) -> None:
    folder = write_adapter(empty_home / "adapters" / "mine")
    assert not nomoat("models", "--pulled").stdout.rstrip().endswith("(cannot be read)")
    assert "cannot be read" not in nomoat("show", "smollm2-135m+mine").stdout
    os.truncate(folder / "adapter_model.safetensors", 500)
    assert nomoat("models", "--pulled").stdout.rstrip().endswith("(cannot be read)")
    assert f"cannot be read: `{folder / 'adapter_model.safetensors'}` is not a whole" in nomoat("show", "smollm2-135m+mine").stdout


def test_the_list_reads_no_weights_of_adapters(empty_home: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(empty_home / "adapters" / "mine")
    monkeypatch.setattr("nomoat.engine.lora.as_numbers", None)
    assert "tuned" in (listed := nomoat("models", "--pulled").stdout) and "cannot be read" not in listed


def test_a_pulled_file_is_opened_once_for_its_memory(
    empty_home: Path, nomoat: Nomoat, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header and vocabulary take longer to read than all else that is listed. Other contexts may have other sizes (LongRoPE)."""
    card = cards.card("smollm2-135m")
    path = empty_home / "models" / card.id / card.sources[0].file_name
    path.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, path)
    opened: list[Path] = []

    def watched(path: Path) -> source.ModelSource:
        opened.append(path)
        return open_source(path)

    open_source = source.open_source
    monkeypatch.setattr(source, "open_source", watched)

    def total(*more: str) -> int:
        rows = json.loads(nomoat("models", "--json", *more).stdout)
        return int(next(row["memory"]["total_bytes"] for row in rows if row["id"] == card.id))

    first = total()
    assert total() == first and opened == [path]
    short = total("-c", "8")
    assert short < first and total("-c", "8") == short and opened == [path, path]
    shown = json.loads(nomoat("show", card.id, "--json").stdout)
    assert shown["memory"]["total_bytes"] == first
    assert len(opened) == 3  # for its layout
    for note in (empty_home / "cache" / "sizes").iterdir():
        note.write_text("{")  # damaged
    assert total() == first and len(opened) == 4
    os.utime(path, (0, 0))  # changed
    assert total() == first and len(opened) == 5
    monkeypatch.setattr(imported, "VERSION", "0")  # stored otherwise, maybe
    assert total() == first and len(opened) == 6
