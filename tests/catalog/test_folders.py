"""A folder of the hub: whole and of one commit, or resumable, or not there at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from homes import names_in

from nomoat import paths, references
from nomoat.catalog import pull
from nomoat.engine.source import open_source
from nomoat.errors import (
    BadFileError,
    ChecksumError,
    DownloadError,
    NomoatError,
    NotEnoughDiskError,
    OfflineError,
    UnknownModelError,
    UnsupportedError,
)

REF = "hf:owner/repo"
ONE, TWO = "1" * 40, "2" * 40
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def weights(text: str) -> bytes:
    return b"\x02" + bytes(7) + b"{}" + text.encode()


@pytest.fixture
def hub(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A repository with one file of weights, which names its commit."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    server.headers["X-Repo-Commit"] = ONE
    offer(server, {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": weights("one" * 10_000)})
    return server


def offer(server: Any, files: dict[str, bytes], *revisions: str) -> None:
    server.files |= {f"/owner/repo/resolve/{at}/{name}": body for at in revisions or ("main", ONE) for name, body in files.items()}


def in_two_shards(server: Any) -> None:
    for revision in ("main", ONE):
        del server.files[f"/owner/repo/resolve/{revision}/model.safetensors"]
    index = {"metadata": {"total_size": 20}, "weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}
    offer(server, {name: weights(name) for name in SHARDS} | {"model.safetensors.index.json": json.dumps(index).encode()})


def cutting(hub: Any) -> Callable[[str, int, int | None], None]:
    """Hears of progress, and has the connection cut amid the weights."""

    def cut(name: str, done_bytes: int, total_bytes: int | None) -> None:
        if name == "tokenizer.json":
            hub.cut_after = 20_000

    return cut


def refuse(config: dict[str, Any]) -> None:
    raise UnsupportedError(f"no {config['model_type']}")


def test_a_folder_is_pulled_once_found_listed_and_removed(hub: Any) -> None:
    folder = pull.pull_model(REF)
    assert folder == paths.models() / "hf" / "owner" / "repo"
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    asked = len(hub.asked)
    assert pull.pull_model(REF) == folder == pull.find_installed(REF) and len(hub.asked) == asked
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert pull.installed() == [pull.Installed(ref=REF, path=folder, size_bytes=size)]
    assert pull.remove(REF) == size
    assert not paths.models().exists() and pull.find_installed(REF) is None


def test_a_second_chat_template_lies_in_its_folder_and_is_replaced_and_removed_with_the_others(hub: Any) -> None:
    name = "additional_chat_templates/tool_use.jinja"
    offer(hub, {name: b"{{ tools }}"})
    folder = pull.pull_model(REF)
    assert (folder / name).read_text() == "{{ tools }}"
    for revision in ("main", ONE):
        del hub.files[f"/owner/repo/resolve/{revision}/{name}"]
    pull.pull_model(REF, force=True)
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    pull.remove(REF)
    assert not paths.models().exists()
    offer(hub, {name: b"{{ tools }}"})
    pull.pull_model(REF)
    assert pull.remove(REF) == sum(map(len, (hub.files[path] for path in hub.files if "/main/" in path)))
    assert not paths.models().exists()


def test_the_terms_that_go_along_with_the_weights_are_pulled_with_them(hub: Any) -> None:
    offer(hub, {"LICENSE": b"Apache", "NOTICE": b"Made by us"})
    folder = pull.pull_model(REF)
    assert names_in(folder) == ["LICENSE", "NOTICE", "config.json", "model.safetensors", "tokenizer.json"]
    assert pull.remove(REF) and not paths.models().exists()


def test_what_says_how_texts_become_vectors_is_pulled_and_removed_too(hub: Any) -> None:
    offer(hub, {"1_Pooling/config.json": b"{}"})
    folder = pull.pull_model(REF)
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]  # not asked for without modules
    offer(hub, {"modules.json": b"[]"})
    pull.pull_model(REF, force=True)
    pulled = ["1_Pooling", "1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "tokenizer.json"]
    assert names_in(folder) == pulled
    for revision in ("main", ONE):
        del hub.files[f"/owner/repo/resolve/{revision}/modules.json"]
    pull.pull_model(REF, force=True)
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    offer(hub, {"modules.json": b"[]"})
    pull.pull_model(REF, force=True)
    assert pull.remove(REF) == sum(map(len, (hub.files[path] for path in hub.files if "/main/" in path)))
    assert not paths.models().exists()


def test_every_file_is_of_the_commit_the_first_one_named(hub: Any) -> None:
    pull.pull_model(REF)
    first, *rest = [path for path, _ in hub.asked]
    assert first == "/owner/repo/resolve/main/config.json"
    assert {path.split("/")[4] for path in rest} == {ONE}


def test_a_cut_pull_goes_on_at_its_commit_although_the_repository_moved_on(hub: Any) -> None:
    with pytest.raises(DownloadError, match="the connection was lost after 20,000 bytes"):
        pull.pull_model(REF, progress=cutting(hub))
    folder = paths.models() / "hf" / "owner" / "repo"
    assert pull.find_installed(REF) is None and pull.installed() == []
    assert names_in(folder / ".pull") == [
        ".model.safetensors.part",
        ".model.safetensors.part.etag",
        ".origin",
        "config.json",
        "tokenizer.json",
    ]
    offer(hub, {"config.json": b'{"model_type": "other"}', "model.safetensors": weights("two")}, "main", TWO)
    hub.headers["X-Repo-Commit"], hub.asked[:] = TWO, []
    pull.pull_model(REF)
    assert (folder / "model.safetensors").read_bytes() == weights("one" * 10_000)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "llama"}
    assert {path.split("/")[4] for path, _ in hub.asked} == {ONE}
    assert not any(path.endswith(("/config.json", "/tokenizer.json")) for path, _ in hub.asked)
    assert [headers["range"] for path, headers in hub.asked if path.endswith("/model.safetensors")] == ["bytes=20000-"]
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_what_a_cut_pull_left_can_be_removed(hub: Any) -> None:
    hub.cut_after = 5
    with pytest.raises(DownloadError, match="the connection was lost after"):
        pull.pull_model(REF)
    assert pull.remove(REF) > 0
    assert not paths.models().exists()


def test_the_weights_an_index_names_are_fetched_and_no_others(hub: Any) -> None:
    in_two_shards(hub)
    offer(hub, {"pytorch_model.bin": b"x", "README.md": b"x"})
    assert names_in(pull.pull_model(REF)) == ["config.json", *SHARDS, "model.safetensors.index.json", "tokenizer.json"]


@pytest.mark.parametrize("make", [lambda _hub: None, in_two_shards], ids=["one file", "two"])
def test_a_folder_whose_weights_were_removed_by_hand_is_not_here_and_is_pulled_anew(hub: Any, make: Callable[[Any], None]) -> None:
    make(hub)
    folder = pull.pull_model(REF)
    before = names_in(folder)
    next(path for path in sorted(folder.glob("*.safetensors"))).unlink()
    assert (pull.find_installed(REF), pull.installed()) == (None, [])
    with pytest.raises(UnknownModelError) as caught:
        references.find_files(REF)
    assert (caught.value.message, caught.value.hint) == (f"`{REF}` is not on this machine yet", f"nomoat pull {REF}")
    assert pull.pull_model(REF) == folder == pull.find_installed(REF) and names_in(folder) == before
    next(path for path in sorted(folder.glob("*.safetensors"))).unlink()
    assert pull.remove(REF) > 0
    assert not paths.models().exists()


def test_of_a_folder_whose_index_was_cut_that_is_said_and_its_weights_stay(hub: Any) -> None:
    in_two_shards(hub)
    folder = pull.pull_model(REF)
    (folder / "model.safetensors.index.json").write_text("{")
    assert references.find_files(REF).weights == folder
    with pytest.raises(BadFileError, match="cannot be read"):
        open_source(folder)


def test_of_a_repository_with_the_weights_in_both_forms_the_whole_file_is_fetched(hub: Any) -> None:
    """As `transformers` takes it. The index may be of an older upload."""
    whole = weights("one" * 10_000)
    in_two_shards(hub)
    offer(hub, {"model.safetensors": whole})
    folder = pull.pull_model(REF)
    assert names_in(folder) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "../../../evil.safetensors"}, "names `../../../evil.safetensors`, which is no file of weights beside it"),
        ({"a": "weights.bin"}, "names `weights.bin`, which is no file of weights beside it"),
        ({"a": 3}, "names no files of weights"),
        ([], "names no files of weights"),
    ],
)
def test_an_index_that_names_no_files_beside_it_is_refused(hub: Any, weight_map: object, message: str) -> None:
    in_two_shards(hub)
    offer(hub, {"model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()})
    with pytest.raises(BadFileError) as caught:
        pull.pull_model(REF)
    assert caught.value.message == f"`model.safetensors.index.json` {message}"
    assert not paths.models().exists()


def test_weights_that_do_not_fit_on_the_disk_are_not_asked_for(hub: Any) -> None:
    in_two_shards(hub)
    index = {"metadata": {"total_size": 10**18}, "weight_map": {"a": SHARDS[0]}}
    offer(hub, {"model.safetensors.index.json": json.dumps(index).encode()})
    with pytest.raises(NotEnoughDiskError, match="needs 1,000,000,000,000 MB"):
        pull.pull_model(REF)
    assert not any("-of-" in path for path, _ in hub.asked)


def test_weights_leave_as_much_of_the_disk_free_as_each_of_their_files_does(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_two_shards(hub)
    index = {"metadata": {"total_size": 10**9}, "weight_map": {"a": SHARDS[0]}}
    offer(hub, {"model.safetensors.index.json": json.dumps(index).encode()})
    usage = shutil.disk_usage(".")._replace(free=10**9 + 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(NotEnoughDiskError, match="`hf:owner/repo` needs 1,000 MB more, and beside it 67 MB are to stay free"):
        pull.pull_model(REF)
    assert not any("-of-" in path for path, _ in hub.asked)


def test_a_forced_pull_replaces_the_model_when_the_new_one_is_whole_and_not_before(hub: Any) -> None:
    in_two_shards(hub)
    folder = pull.pull_model(REF)
    (folder / "m.gguf").write_bytes(b"GGUF, pulled by itself")
    before = names_in(folder)
    hub.headers["X-Repo-Commit"] = TWO
    offer(hub, {"config.json": b"{}", "tokenizer.json": b"{}"}, "main", TWO)
    with pytest.raises(UnsupportedError, match=r"`hf:owner/repo` holds no `model\.safetensors`"):
        pull.pull_model(REF, force=True)
    assert names_in(folder) == before and json.loads((folder / "config.json").read_text()) == {"model_type": "llama"}
    offer(hub, {"model.safetensors": weights("two")}, TWO)
    pull.pull_model(REF, force=True)
    assert names_in(folder) == ["config.json", "m.gguf", "model.safetensors", "tokenizer.json"]
    assert [model.ref for model in pull.installed()] == [REF, f"{REF}/m.gguf"]
    pull.remove(REF)
    assert names_in(folder) == ["m.gguf"]


def refused(hub: Any, status: int, code: str | None) -> NomoatError:
    hub.status = status
    hub.headers = {"X-Error-Code": code} if code else {}
    with pytest.raises(DownloadError) as caught:
        pull.pull_model(REF)
    assert not paths.models().exists()
    return caught.value


def test_a_gated_or_missing_repository_says_what_to_do(hub: Any) -> None:
    gated = refused(hub, 401, "GatedRepo")
    assert gated.message == "`hf:owner/repo/config.json` is gated: its owner gives it to those who accept the terms (401)"
    assert gated.hint == "accept its terms at https://huggingface.co/owner/repo, and set HF_TOKEN to a token of yours"
    for missing in (refused(hub, 401, "RepoNotFound"), refused(hub, 401, None)):
        assert missing.message == "`hf:owner/repo/config.json`: the server refused with 401"
        assert missing.hint == "check the name; if it is gated, accept its terms at https://huggingface.co/owner/repo and set HF_TOKEN"
    missing = refused(hub, 404, "RepoNotFound")
    assert (missing.message, missing.hint) == (
        "`hf:owner/repo/config.json`: there is no `owner/repo` (404)", "check the name; a private one needs HF_TOKEN",
    )  # fmt: skip
    other = refused(hub, 404, "EntryNotFound")
    assert other.message == "`hf:owner/repo` holds no `config.json`: it is no folder that nomoat could run"
    assert other.hint == "a GGUF file of the hub is named `hf:owner/repo/file.gguf`"


def test_without_a_network_nothing_is_left(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"cannot reach `127\.0\.0\.1` to pull `hf:owner/repo/config\.json`"):
        pull.pull_model(REF)
    monkeypatch.delenv("HF_ENDPOINT")
    with pytest.raises(OfflineError, match=r"refused to connect to `huggingface\.co` to pull a model"):
        pull.pull_model(REF)
    assert not paths.models().exists()


@pytest.mark.parametrize(
    ("name", "body", "error", "message"),
    [
        ("config.json", b"<html>log in", ChecksumError, "`hf:owner/repo/config.json` is not a JSON file: it begins with b'<htm'"),
        ("model.safetensors", b"<html>log in first", ChecksumError, "is not a safetensors file: it begins with b'<htm'"),
        ("config.json", b'{"model_type": ', BadFileError, "`hf:owner/repo/config.json` cannot be read: "),
        ("config.json", b"[]", BadFileError, "`hf:owner/repo/config.json` holds no JSON object"),
        ("tokenizer.json", None, UnsupportedError, "`hf:owner/repo` holds no tokenizer that nomoat can read"),
        ("model.safetensors", None, UnsupportedError, "`hf:owner/repo` holds no `model.safetensors`"),
    ],
)
def test_what_is_no_model_is_refused(hub: Any, name: str, body: bytes | None, error: type[Exception], message: str) -> None:
    for path in [path for path in hub.files if path.endswith(f"/{name}")]:
        if body is None:
            del hub.files[path]
        else:
            hub.files[path] = body
    with pytest.raises(error) as caught:
        pull.pull_model(REF, look_at=lambda config: None)
    assert message in str(caught.value)
    assert pull.find_installed(REF) is None


def test_who_looks_at_the_config_may_refuse_before_the_weights_are_asked_for(hub: Any) -> None:
    with pytest.raises(UnsupportedError, match="no llama"):
        pull.pull_model(REF, look_at=refuse)
    assert [path for path, _ in hub.asked] == ["/owner/repo/resolve/main/config.json"]
    assert not paths.models().exists()


def test_a_refusal_leaves_the_weights_that_came_before(hub: Any) -> None:
    """`pull --force` takes what nomoat cannot run; when it was cut off, and `--force` is forgotten, what came is still there."""
    with pytest.raises(DownloadError, match="the connection was lost after 20,000 bytes"):
        pull.pull_model(REF, progress=cutting(hub))
    with pytest.raises(UnsupportedError, match="no llama"):
        pull.pull_model(REF, look_at=refuse)
    hub.asked[:] = []
    pull.pull_model(REF)
    assert [headers["range"] for path, headers in hub.asked if path.endswith("/model.safetensors")] == ["bytes=20000-"]


def test_a_mirror_gives_the_whole_folder_without_a_connection(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror" / "owner" / "repo"
    mirror.mkdir(parents=True)
    for name, body in (("config.json", b"{}"), ("vocab.json", b"{}"), ("merges.txt", b""), ("model.safetensors", weights("mirror"))):
        (mirror / name).write_bytes(body)
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path / "mirror"))
    folder = pull.pull_model(REF)
    assert names_in(folder) == ["config.json", "merges.txt", "model.safetensors", "vocab.json"]
    assert hub.asked == []


@pytest.mark.parametrize("what", [pull.pull_model, pull.remove])
def test_two_pulls_of_one_folder_at_once_are_refused_and_so_is_its_removal(what: Callable[[str], object], hub: Any) -> None:
    def again(name: str, done_bytes: int, total_bytes: int | None) -> None:
        with pytest.raises(DownloadError) as caught:
            what(REF)
        assert caught.value.message == "`hf:owner/repo` is being pulled or removed by another nomoat right now"

    pull.pull_model(REF, progress=again)
    assert pull.find_installed(REF)
