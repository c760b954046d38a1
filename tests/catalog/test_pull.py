"""Models on this disk: pulled once, found by reference, listed, removed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from nomoat import paths
from nomoat.catalog import cards, pull
from nomoat.errors import BadFileError, ChecksumError, DownloadError, UnknownModelError, UnsupportedError, UsageError
from nomoat.records import Source

HUB = "hf:owner/repo/sub/m.gguf"


@pytest.fixture
def hub(server: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    server.files["/owner/repo/resolve/main/sub/m.gguf"] = b"GGUF one"
    return server


def test_a_file_of_the_hub_is_pulled_once_found_listed_and_removed(hub: Any, empty_home: Path) -> None:
    path = pull.pull_model(HUB)
    assert path == paths.models() / "hf" / "owner" / "repo" / "sub" / "m.gguf"
    assert pull.pull_model(HUB) == path
    assert len(hub.asked) == 1
    assert pull.find_installed(HUB) == path
    assert pull.installed() == [pull.Installed(ref=HUB, path=path, size_bytes=8)]
    assert pull.remove(HUB) == 8
    assert list(empty_home.rglob("*")) == []
    assert pull.find_installed(HUB) is None


def test_all_parts_of_a_split_model_are_pulled_and_removed_whichever_is_named(hub: Any, empty_home: Path) -> None:
    for number in (1, 2):
        hub.files[f"/owner/repo/resolve/main/m-0000{number}-of-00002.gguf"] = b"GGUF part"
    path = pull.pull_model("hf:owner/repo/m-00002-of-00002.gguf")
    assert sorted(part.name for part in path.parent.iterdir()) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert pull.remove("hf:owner/repo/m-00001-of-00002.gguf") == 18
    assert list(empty_home.rglob("*")) == []


@pytest.mark.parametrize("query", ["?download=true", "?from=a/b&to=c", "#top"])
def test_all_parts_of_a_split_model_are_pulled_from_an_address_with_a_query(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own button copies such addresses."""
    asked: list[str] = []

    def fetched(source: Source, target: Path, **_: object) -> None:
        asked.append(source.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"GGUF")

    monkeypatch.setattr(pull, "fetch", fetched)
    first, second = (f"https://huggingface.co/owner/repo/resolve/main/m-0000{number}-of-00002.gguf" for number in (1, 2))
    path = pull.pull_model(second + query)
    assert (path.name, asked) == ("m-00002-of-00002.gguf", [first + query, second + query])
    assert [(model.ref, model.size_bytes) for model in pull.installed()] == [(first, 8)]
    assert pull.find_installed(second + query) == pull.find_installed(second) == path
    assert pull.remove(first + query) == 8


def test_a_split_model_is_installed_when_all_its_parts_are_here(hub: Any) -> None:
    first, second = (f"hf:owner/repo/m-0000{number}-of-00002.gguf" for number in (1, 2))
    hub.files["/owner/repo/resolve/main/m-00001-of-00002.gguf"] = b"GGUF part"
    with pytest.raises(DownloadError):
        pull.pull_model(first)
    assert (pull.find_installed(first), pull.find_installed(second)) == (None, None)
    hub.files["/owner/repo/resolve/main/m-00002-of-00002.gguf"] = b"GGUF part"
    path = pull.pull_model(first)
    assert (pull.find_installed(first), pull.find_installed(second)) == (path, path.with_name("m-00002-of-00002.gguf"))


def test_a_split_model_is_one_model_of_all_its_bytes(hub: Any) -> None:
    for number in (1, 2, 3):
        hub.files[f"/owner/repo/resolve/main/m-0000{number}-of-00003.gguf"] = b"GGUF part"
    path = pull.pull_model("hf:owner/repo/m-00003-of-00003.gguf")
    first = path.with_name("m-00001-of-00003.gguf")
    one = pull.Installed(ref="hf:owner/repo/m-00001-of-00003.gguf", path=first, size_bytes=27)
    assert pull.installed() == [one] and pull.size_bytes(path) == 27
    first.unlink()
    (path.parent / "folder.gguf").mkdir()
    assert [(model.path.name, model.size_bytes) for model in pull.installed()] == [("m-00002-of-00003.gguf", 18)]


def test_force_pulls_again(hub: Any) -> None:
    pull.pull_model(HUB)
    hub.files["/owner/repo/resolve/main/sub/m.gguf"] = b"GGUF two"
    assert pull.pull_model(HUB, force=True).read_bytes() == b"GGUF two"


def test_a_failed_second_pull_leaves_the_first_file(hub: Any) -> None:
    path = pull.pull_model(HUB)
    hub.status = 503
    with pytest.raises(DownloadError):
        pull.pull_model(HUB, force=True)
    assert path.read_bytes() == b"GGUF one"


def test_a_card_is_checked_against_its_sum(hub: Any, empty_home: Path) -> None:
    hub.files["/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"] = b"GGUF other"
    with pytest.raises(ChecksumError, match="10 bytes with sha256"):
        pull.pull_model("qwen2.5-coder-0.5b")
    assert list(empty_home.rglob("*")) == []


@pytest.mark.parametrize("name", ["m.gguf", "m[q4].gguf"])
def test_remove_takes_what_a_cut_pull_left(name: str, hub: Any, empty_home: Path) -> None:
    ref = f"hf:owner/repo/{name}"
    hub.files[f"/owner/repo/resolve/main/{quote(name)}"] = b"GGUF one"
    hub.cut_after = 4
    with pytest.raises(DownloadError):
        pull.pull_model(ref)
    assert pull.installed() == []
    assert pull.remove(ref) > 0
    assert list(empty_home.rglob("*")) == []


@pytest.mark.parametrize("is_here", [False, True])
def test_what_is_being_pulled_is_not_removed_nor_pulled_while_it_is_removed(is_here: bool, hub: Any, empty_home: Path) -> None:
    """The pull's part was removed under it, and the pull said to check who may write there."""
    busy = "`m.gguf` is being pulled or removed by another nomoat right now"
    begun: list[int] = []

    def remove(name: str, done_bytes: int, total_bytes: int | None) -> None:
        with pytest.raises(DownloadError) as refused:
            pull.remove(HUB, first=lambda: begun.append(1) or 0)
        assert refused.value.message == busy

    def pull_too() -> int:
        with pytest.raises(DownloadError) as refused:
            pull.pull_model(HUB, force=True)
        assert refused.value.message == busy
        return 5

    if is_here:
        pull.pull_model(HUB)
    path = pull.pull_model(HUB, force=True, progress=remove)
    assert (path.read_bytes(), begun) == (b"GGUF one", [])
    if sys.platform != "win32":  # which removes no file that is open, locked ones among them
        assert pull.remove(HUB, first=pull_too) == 5 + 8
        assert not path.parent.exists()


def test_what_is_not_here_cannot_be_removed() -> None:
    with pytest.raises(UnknownModelError) as failed:
        pull.remove("smollm2-135m")
    assert (failed.value.message, failed.value.hint) == ("no model called `smollm2-135m` is pulled", "nothing is pulled yet")


@pytest.mark.parametrize(
    ("ref", "error", "message"),
    [
        ("gpt-4", UsageError, "`gpt-4` is a closed model: its weights were never published"),
        ("opt-125m", UnsupportedError, "nomoat knows no GGUF file of `opt-125m`"),
        ("hf:owner", UsageError, "`hf:owner` names no file of the hub"),
        ("hf:owner/m.gguf", UsageError, "`hf:owner/m.gguf` names no file of the hub"),
        ("hf:owner/..", UsageError, "names no file of the hub"),
        ("hf:owner/repo/../../x.gguf", UsageError, "names no file of the hub"),
        ("hf:/home/u/m.gguf", UsageError, "`hf:/home/u/m.gguf` names no file of the hub"),
        ("hf://owner/repo/m.gguf", UsageError, "names no file of the hub"),
        ("hf:owner//repo/m.gguf", UsageError, "names no file of the hub"),
        ("hf:owner/repo//m.gguf", UsageError, "names no file of the hub"),
        ("hf:./owner/repo/m.gguf", UsageError, "names no file of the hub"),
        ("hf:owner/repo/.pull/m.gguf", UsageError, "names no file of the hub"),
        (r"hf:owner/repo/..\..\m.gguf", UsageError, "names no file of the hub"),
        ("hf:C:/Users/u/m.gguf", UsageError, "names no file of the hub"),
        ("https://host/page.html", UsageError, "names no GGUF file"),
        ("https://me:secret@host:1/m.gguf", UsageError, r"(?m)^an address holds no user and no password \(`https://host:1`\)$"),
        ("https://me@host/m.gguf", UsageError, r"(?m)^an address holds no user and no password \(`https://host`\)$"),
        ("https://[host/m.gguf", UsageError, "is no address: Invalid IPv6 URL"),
        ("https://../hf/owner/repo/m.gguf", UsageError, "names no GGUF file"),
        (r"https://host/a/..\..\m.gguf", UsageError, "names no GGUF file"),
        ("nothing", UnknownModelError, "no model is called `nothing`"),
    ],
)
def test_what_cannot_be_pulled_says_why(ref: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pull.pull_model(ref)
    assert pull.find_installed(ref) is None


def test_a_file_outside_the_home_is_neither_removed_nor_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, mirror = tmp_path / "only" / "here" / "m.gguf", tmp_path / "mirror"
    for path, content in ((own, b"GGUF mine"), (mirror / "m.gguf", b"GGUF other")):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    monkeypatch.setenv("NOMOAT_MIRROR", str(mirror))
    for ref in (f"hf:{own}", f"hf:/{own}"):
        assert pull.find_installed(ref) is None
        with pytest.raises(UnknownModelError):
            pull.remove(ref)
        with pytest.raises(UsageError) as failed:
            pull.pull_model(ref, force=True)
        assert failed.value.hint == pull.HUB_HINT
    assert own.read_bytes() == b"GGUF mine"


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("hf:owner/repo:Q4_K_M", pull.TAG_HINT),
        ("hf:owner/repo@main", pull.REVISION_HINT),
        ("hf:owner/repo@main/m.gguf", pull.REVISION_HINT),
        ("hf:owner", pull.HUB_HINT),
        ("https://huggingface.co/owner/repo", pull.HUB_HINT),
        ("https://host/page", "the address has to end in .gguf"),
    ],
)
def test_what_other_tools_write_behind_a_repository_is_told_how_it_is_said_here(ref: str, hint: str) -> None:
    with pytest.raises(UsageError) as failed:
        pull.pull_model(ref)
    assert failed.value.hint == hint


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("hf.co/owner/repo:Q4_K_M", pull.TAG_HINT),
        ("owner/repo:Q4_K_M", pull.TAG_HINT),
        ("huggingface.co/owner/repo", pull.HUB_HINT),
        ("hf.co/owner/repo/file.gguf", pull.HUB_HINT),
        ("owner/repo", f"there is no such path; {pull.HUB_HINT}"),
    ],
)
def test_a_repository_as_other_tools_name_it_is_told_how_it_is_named_here(ref: str, hint: str) -> None:
    with pytest.raises(UnknownModelError) as failed:
        pull.pull_model(ref)
    assert (failed.value.message, failed.value.hint) == (f"no model is called `{ref}`", hint)


def test_the_address_of_a_file_s_page_on_the_hub_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetched(source: Source, target: Path, **_: object) -> None:
        asked.append(source.url)
        target.parent.mkdir(parents=True)
        target.write_bytes(b"GGUF")

    monkeypatch.setattr(pull, "fetch", fetched)
    page = "https://huggingface.co/owner/blob/blob/main/blob/m.gguf?download=true"
    assert pull.pull_model(page) == pull.find_installed(page)
    assert asked == ["https://huggingface.co/owner/blob/resolve/main/blob/m.gguf?download=true"]
    (model,) = pull.installed()
    assert model.ref == "https://huggingface.co/owner/blob/resolve/main/blob/m.gguf"
    assert pull.find_installed(model.ref) == pull.find_installed(page)
    with pytest.raises(UnknownModelError):
        pull.remove("https://host/owner/repo/blob/main/m.gguf")
    assert pull.remove(page) == 4


@pytest.mark.parametrize(
    ("ref", "on_windows"),
    [
        ("https://host:8443/m.gguf", "https/host%3A8443/m.gguf"),
        ("https://[::1]:1/a./con/Con.gguf", "https/[%3A%3A1]%3A1/a%2E/%63on/%43on.gguf"),
        ('https://host/console/a*"b.gguf', "https/host/console/a%2A%22b.gguf"),
        ("hf:owner/repo/a?100%.gguf", "hf/owner/repo/a%3F100%25.gguf"),
    ],
)
@pytest.mark.parametrize(
    "system", [pytest.param("linux", marks=pytest.mark.skipif(sys.platform == "win32", reason="it does not take them")), "win32"]
)
def test_names_that_windows_would_not_take_are_others_there(
    monkeypatch: pytest.MonkeyPatch, ref: str, on_windows: str, system: str
) -> None:
    def fetched(source: Source, target: Path, **_: object) -> None:
        assert source.url == ref
        target.parent.mkdir(parents=True)
        target.write_bytes(b"GGUF")

    monkeypatch.setattr(pull, "fetch", fetched)
    monkeypatch.setattr(pull, "sys", SimpleNamespace(platform=system))
    path = pull.pull_model(ref)
    assert path == paths.models() / (on_windows if system == "win32" else ref.replace("://", "/").replace("hf:", "hf/"))
    assert [model.ref for model in pull.installed()] == [ref]
    assert pull.find_installed(ref) == path
    assert pull.remove(ref) == 4


@pytest.mark.parametrize("name", ["m.gguf", "Q4_K_M/a model (v2), 한국어+x.Q4_K_M.gguf", "m-00001-of-00001.gguf"])
def test_any_name_a_file_of_the_hub_may_have_is_found(name: str) -> None:
    path = paths.models().joinpath("hf", "owner-1", "repo.2_x", name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GGUF")
    assert pull.find_installed(f"hf:owner-1/repo.2_x/{name}") == path


def test_a_model_only_a_mirror_can_have_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path))
    with pytest.raises(DownloadError) as failed:
        pull.pull_model("gemma3-270m")
    assert failed.value.message == "`gemma-3-270m-q4_k_m.gguf` can be had only from a mirror"


def test_a_card_s_file_that_is_another_since_it_was_pulled_is_to_be_pulled_again(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = cards.card("smollm2-135m")
    source = replace(card.sources[0], size_bytes=4)
    monkeypatch.setattr(cards, "find", {card.id: replace(card, sources=(source,))}.get)
    file = paths.models() / "smollm2-135m" / source.file_name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    with pytest.raises(BadFileError) as caught:
        pull.require_as_published(file, lambda _: "0" * 64)
    assert caught.value.message == f"`{file}` is not the file that the catalogue names for `smollm2-135m`: its sha256 is another one"
    assert caught.value.hint is not None and "`nomoat pull smollm2-135m --force`" in caught.value.hint
    pull.require_as_published(file, lambda _: str(source.sha256))
    for of_somebody_else in (tmp_path / "smollm2-135m" / file.name, file.with_name("mine.gguf")):
        pull.require_as_published(of_somebody_else, lambda _: "0" * 64)
    file.write_bytes(b"GG")
    with pytest.raises(BadFileError, match=": it has 2 bytes, not 4"):  # known without reading it
        pull.require_as_published(file, lambda _: pytest.fail("read whole"))
