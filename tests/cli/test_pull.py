"""`nomoat pull`, as a user's shell sees it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from patience import PATIENCE_SECONDS
from shell import NOMOAT, Done

from nomoat import footprint, hardware, paths
from nomoat.catalog import cards, memory
from nomoat.cli.pull import _explain
from nomoat.engine import optimum
from nomoat.records import Source

Nomoat = Callable[..., Done]
HUB = "hf:owner/repo/m.gguf"
INT8_NOTE, CODES_NOTE = "(estimate: int8 in memory, whatever the file)", "(estimate: the file's own codes in memory)"


@pytest.fixture
def mirror(nomoat: Nomoat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that holds one small file which begins as a GGUF file does; `nomoat` has taken away the user's."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(1000))
    monkeypatch.setenv("NOMOAT_MIRROR", str(folder))
    return folder


def test_pull_prints_the_path_and_rm_takes_it_away(mirror: Path, empty_home: Path, nomoat: Nomoat) -> None:
    path = empty_home / "models" / "hf" / "owner" / "repo" / "m.gguf"
    done = nomoat("pull", HUB)
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert done.stderr == (
        f"{HUB}: not in the catalogue; commercial use: unknown; memory is known when it is here: `nomoat show {HUB}`\n"
        f"{HUB}: pulled, 1 kB\n"
    )
    again = nomoat("pull", HUB)
    assert (again.stdout, again.stderr.splitlines()[0]) == (f"{path}\n", f"{HUB}: here already")
    assert [row["id"] for row in json.loads(nomoat("models", "--pulled", "--json").stdout)] == [HUB]
    assert nomoat("rm", HUB, "--yes").stderr == f"{HUB}: removed, 1 kB free again\n"
    assert not path.exists()


def test_pull_of_several_prints_the_paths_of_those_that_came(mirror: Path, empty_home: Path, nomoat: Nomoat) -> None:
    (mirror / "n.gguf").write_bytes(b"GGUF" + bytes(2000))
    folder = empty_home / "models" / "hf" / "owner" / "repo"
    done = nomoat("pull", HUB, "hf:owner/repo/n.gguf", "no-such-model", HUB)
    assert (done.returncode, done.stdout) == (1, f"{folder / 'm.gguf'}\n{folder / 'n.gguf'}\n")


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell closes it")
def test_pull_of_several_brings_all_though_stdout_is_closed(mirror: Path, empty_home: Path) -> None:
    (mirror / "n.gguf").write_bytes(b"GGUF" + bytes(2000))
    command = f"{NOMOAT} pull {HUB} hf:owner/repo/n.gguf >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 1 and "error: stdout is closed" in done.stderr
    assert sorted(file.name for file in (empty_home / "models" / "hf" / "owner" / "repo").glob("*.gguf")) == ["m.gguf", "n.gguf"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("stdout", [">&-", ">/dev/full", "| true"])
def test_pull_of_several_says_why_it_ended_whatever_stdout_takes(stdout: str, mirror: Path, empty_home: Path) -> None:
    command = f"{{ {NOMOAT} pull {HUB} no-such-model; echo $? >&2; }} {stdout}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    told = done.stderr.splitlines()
    assert (told[2], told[3][:5], told[4:]) == ("error: no model is called `no-such-model`", "hint:", ["1"])


def test_pull_of_a_card_whose_file_was_cut_since_fetches_it_again(
    mirror: Path, empty_home: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = paths.sha256_of(mirror / "m.gguf")
    card = replace(cards.card("smollm2-135m"), sources=(Source(url="mirror:", file_name="m.gguf", sha256=sha256),))
    monkeypatch.setattr(cards, "find", {card.id: card}.get)
    path = Path(nomoat("pull", card.id).stdout.strip())
    assert nomoat("pull", card.id).stderr == f"{card.id}: here already\n"
    os.truncate(path, 300)
    done = nomoat("pull", card.id)
    assert done.stderr.startswith(f"{card.id}: `{path}` is not the file that the catalogue names for `{card.id}`")
    assert (done.returncode, done.stdout, path.read_bytes()) == (0, f"{path}\n", (mirror / "m.gguf").read_bytes())


def test_pull_of_a_file_without_a_card_that_is_here_and_was_cut_says_how_to_fetch_it_again(
    mirror: Path, tiny_gguf: Path, nomoat: Nomoat
) -> None:
    """Its sha256 is known to nobody: what uses it says to download it again, and a pull finds it here."""
    (mirror / "m.gguf").write_bytes(tiny_gguf.read_bytes())
    path = Path(nomoat("pull", HUB).stdout.strip())
    assert nomoat("pull", HUB).stderr == f"{HUB}: here already\n"
    os.truncate(path, path.stat().st_size - 100)
    done = nomoat("pull", HUB)
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout, first) == (0, f"{path}\n", f"{HUB}: here already")
    assert second.startswith(f"note: `{path}` is not a whole GGUF file: ")
    assert second.endswith(f"; `nomoat pull {HUB} --force` fetches it again")


def test_pull_of_what_is_here_and_cannot_be_run_or_read_prints_its_path_and_says_why(
    mirror: Path, tiny_gguf: Path, nomoat: Nomoat, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_gguf.read_bytes()
    (mirror / "m.gguf").write_bytes(content[:4] + (1).to_bytes(4, "little") + content[8:])
    path = nomoat("pull", HUB).stdout.strip()
    done = nomoat("pull", HUB)
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert done.stderr.splitlines()[1] == (
        f"note: `{path}` is of GGUF's first version, which was in use for some days of August 2023; take a newer file of this model"
    )

    def denied(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("nomoat.engine.source.open_source", denied)
    done = nomoat("pull", HUB)
    assert (done.returncode, done.stdout) == (0, f"{path}\n")
    assert done.stderr.splitlines()[1] == f"note: `{path}` cannot be read: Permission denied"


def test_pull_of_a_split_model_that_was_cut_off_goes_on(mirror: Path, nomoat: Nomoat) -> None:
    first, second = (f"m-0000{number}-of-00002.gguf" for number in (1, 2))
    (mirror / first).write_bytes(b"GGUF" + bytes(1000))
    assert nomoat("pull", f"hf:owner/repo/{first}").returncode == 1
    (mirror / second).write_bytes(b"GGUF" + bytes(1000))
    done = nomoat("pull", f"hf:owner/repo/{first}")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"hf:owner/repo/{first}: pulled, 2 kB")
    assert Path(done.stdout.strip()).with_name(second).is_file()
    assert "here already" in nomoat("pull", f"hf:owner/repo/{first}").stderr


@pytest.mark.skipif(optimum.is_installed(), reason="the convert extra might run it")
def test_pull_refuses_a_folder_it_could_not_run_before_its_weights_unless_forced(
    mirror: Path, nomoat: Nomoat, empty_home: Path
) -> None:
    folder = mirror / "owner" / "repo"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "rwkv"}')
    done = nomoat("pull", "hf:owner/repo")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: the architecture `rwkv` is not one that nomoat can import" in done.stderr
    assert "error: `hf:owner/repo` holds no tokenizer that nomoat can read" in nomoat("pull", "hf:owner/repo", "--force").stderr
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
    done = nomoat("pull", "hf:owner/repo", "--force")
    assert (done.returncode, done.stdout) == (0, f"{empty_home / 'models' / 'hf' / 'owner' / 'repo'}\n")
    assert [row["id"] for row in json.loads(nomoat("models", "--pulled", "--json").stdout)] == ["hf:owner/repo"]
    again = nomoat("pull", "hf:owner/repo")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.stderr.splitlines()[1].startswith("note: the architecture `rwkv` is not one that nomoat can import; ")


def test_pull_says_licence_and_memory_before_it_connects(program: Nomoat) -> None:
    done = program("pull", "qwen2.5-coder-0.5b")
    assert (done.returncode, done.stdout) == (1, "")
    first, second, third, *rest = done.stderr.splitlines()
    assert first == "Qwen2.5 Coder 0.5B Instruct: commercial use: yes"
    assert second.startswith("  condition of qwen2.5-coder-0.5b itself: whoever passes it on")
    assert third.startswith("memory: ")
    has_own = footprint.has_native_kernels()
    total, weights, cache, note = ("0.9", "0.49", "0.04", CODES_NOTE) if has_own else ("1.0", "0.52", "0.05", INT8_NOTE)
    assert f"about {total} GB: weights {weights} + KV cache {cache} (4,096 tokens) + overhead 0.40 {note}" in third
    assert rest == [
        "error: refused to connect to `huggingface.co` to pull a model: NOMOAT_OFFLINE is set",
        "hint: unset NOMOAT_OFFLINE to allow it, or set NOMOAT_MIRROR to a folder that holds the file",
    ]


def test_pull_says_what_the_first_start_writes_where_the_disk_has_no_room_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = cards.card("smollm2-135m")
    need, size = memory.memory_need(card), max(source.size_bytes or 0 for source in card.sources)
    assert need is not None
    later = need.weights_bytes + 32_000_000
    for free in (size + later, size + later - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        _explain(card.id, card)
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        first, then, there = map(paths.shown_size, (size, later, free))
        disk = f"the disk of `{paths.home()}` has {there} free"
        said = f"note: the file takes {first}, and the first start writes about {then} more; {disk}"
        assert notes == ([] if free == size + later else [said])


def test_what_a_pull_that_was_cut_off_has_fetched_is_not_counted_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = cards.card("smollm2-135m")
    need, source = memory.memory_need(card), card.sources[0]
    assert need is not None
    assert source.size_bytes is not None
    later, arrived = need.weights_bytes + 32_000_000, 90_000_000
    part = paths.models() / card.id / f".{source.file_name}.part"
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(arrived)
    rest = source.size_bytes - arrived
    for free in (rest + later, rest + later - 1):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        _explain(card.id, card)
        said = f"note: the rest of the file takes {paths.shown_size(rest)}, and the first start writes"
        assert (said in capsys.readouterr().err) == (free < rest + later)


def test_models_on_another_disk_than_what_is_made_of_them(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As behind a link: the disk of the models has no room to give, nor to lack, for what the first start writes."""
    card = cards.card("smollm2-135m")
    need = memory.memory_need(card)
    assert need is not None
    later, free = need.weights_bytes + 32_000_000, {}
    monkeypatch.setattr("nomoat.system_errors.is_one_disk", lambda one, other: False)
    monkeypatch.setattr("nomoat.system_errors.free_disk_bytes", lambda folder: free[folder])
    for free[paths.models()], free[paths.cache()] in ((0, later), (10**12, later - 1)):
        _explain(card.id, card)
        then, there = paths.shown_size(later), paths.shown_size(later - 1)
        said = f"note: the first start writes about {then}; the disk of `{paths.cache()}` has {there} free"
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert notes == ([said] if free[paths.cache()] < later else [])


def test_a_drive_that_is_not_there_is_for_the_pull_to_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As on Windows, where nothing is above it."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    _explain("smollm2-135m", cards.card("smollm2-135m"))
    assert "note: " not in capsys.readouterr().err


@pytest.mark.skipif(hardware.memory_total_bytes().value > 51e9, reason="this machine holds 70 billion parameters")
def test_pull_of_what_cannot_fit_is_refused_without_a_terminal_unless_forced(nomoat: Nomoat) -> None:
    done = nomoat(
        "pull",
        "llama2-70b",
    )
    assert done.returncode == 1
    # what 4-bit files take depends on this CPU's instructions
    needed = re.search(r"memory: does not fit; about (4[58]\.\d) GB", done.stderr)
    assert needed is not None
    assert f"error: `llama2-70b` needs about {needed[1]} GB of memory, and there are " in done.stderr
    for consent in ("--force", "--yes"):
        assert "error: refused to connect to `huggingface.co`" in nomoat("pull", "llama2-70b", consent).stderr


@pytest.mark.parametrize(
    ("ref", "error", "hint"),
    [
        ("smolm2-135m", "no model is called `smolm2-135m`", "did you mean `smollm2-135m`"),
        ("openai:gpt-4o", "`openai:gpt-4o` is asked on its server, and nothing of it is here", "`nomoat models` lists"),
        (
            "http://x/m.gguf",
            "`http://x/m.gguf` is no address that a file is pulled from: it begins with http:",
            "fetch the file yourself",
        ),
        ("auto", "`auto` is no model: it chooses one for each question", "`nomoat route policy` says which, and when"),
        ("gpt-4", "`gpt-4` is a closed model: its weights were never published", "ask it as `openai:gpt-4`"),
        ("bloom-176b", "nomoat knows no GGUF file of `bloom-176b`", "No whole GGUF file confirmed"),
        ("hf:owner", "`hf:owner` names no file of the hub", "a GGUF file of the hub is named `hf:owner/repo/file.gguf`, a folder"),
        ("hf:owner/repo", "refused to connect to `huggingface.co` to pull a model", "unset NOMOAT_OFFLINE to allow it, or set"),
    ],
)
def test_pull_of_what_cannot_be_had_says_why(ref: str, error: str, hint: str, nomoat: Nomoat) -> None:
    done = nomoat("pull", ref)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {error}" in done.stderr and f"\nhint: {hint}" in done.stderr
