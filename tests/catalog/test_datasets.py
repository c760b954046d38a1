"""Data sets: pinned files, fetched once, under their own relative paths."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from nomoat import paths
from nomoat.catalog import datasets, licences
from nomoat.catalog.fetch import fetch
from nomoat.errors import BadFileError, ChecksumError, UnknownModelError
from nomoat.records import Source


@pytest.fixture
def two_files(monkeypatch: pytest.MonkeyPatch, server: Any) -> dict[str, bytes]:
    """A data set of two small files on a server of ours."""
    bodies = {"question.jsonl": b'{"text": "\xec\x99\x9c?"}\n', "answer/a.jsonl": b"{}\n"}
    server.files = {f"/{name}": body for name, body in bodies.items()}
    files = tuple(
        Source(url=f"{server.url}/{name}", file_name=name, sha256=hashlib.sha256(body).hexdigest(), size_bytes=len(body))
        for name, body in bodies.items()
    )
    tiny = dataclasses.replace(datasets.dataset("vicuna80"), name="tiny", files=files)
    monkeypatch.setattr(datasets, "datasets", lambda: {"tiny": tiny})
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    return bodies


def test_pull_keeps_the_paths_inside_the_folder_and_asks_only_once(two_files: dict[str, bytes], server: Any) -> None:
    folder = datasets.pull_dataset("tiny")
    assert folder == paths.data() / "tiny"
    assert {name: (folder / name).read_bytes() for name in two_files} == two_files
    datasets.pull_dataset("tiny")
    assert len(server.asked) == 2


def test_a_file_that_is_missing_is_fetched_again(two_files: dict[str, bytes], server: Any) -> None:
    (datasets.pull_dataset("tiny") / "question.jsonl").unlink()
    datasets.pull_dataset("tiny")
    assert [path for path, _ in server.asked] == ["/question.jsonl", "/answer/a.jsonl", "/question.jsonl"]


def test_a_file_of_another_size_than_it_should_have_is_fetched_again(two_files: dict[str, bytes], server: Any) -> None:
    (datasets.pull_dataset("tiny") / "question.jsonl").write_bytes(two_files["question.jsonl"][:-1])
    folder = datasets.pull_dataset("tiny")
    assert (folder / "question.jsonl").read_bytes() == two_files["question.jsonl"]
    assert [path for path, _ in server.asked] == ["/question.jsonl", "/answer/a.jsonl", "/question.jsonl"]


def test_a_mirror_holds_a_file_under_the_data_sets_name(
    two_files: dict[str, bytes], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in two_files.items():
        (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / name).write_bytes(body)
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path))
    datasets.pull_dataset("tiny")
    assert server.asked == []


@pytest.mark.usefixtures("two_files")
def test_a_changed_file_leaves_nothing(server: Any, empty_home: Path) -> None:
    server.files["/question.jsonl"] = b"changed"
    with pytest.raises(ChecksumError):
        datasets.pull_dataset("tiny")
    assert list(empty_home.rglob("*")) == []


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UnknownModelError) as failed:
        datasets.pull_dataset("vicuna-80")
    assert (failed.value.message, failed.value.hint) == ("no data set is called `vicuna-80`", "did you mean `vicuna80`?")


@pytest.mark.parametrize("name", datasets.datasets())
def test_every_file_is_pinned_and_has_known_terms(name: str) -> None:
    found = datasets.dataset(name)
    assert found.licence in licences.licences()
    assert found.licence_source
    for source in found.files:
        assert source.sha256 is not None
        assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert source.size_bytes
        assert not Path(source.file_name).is_absolute()
        assert ".." not in Path(source.file_name).parts
    assert list(datasets.dataset_files(name)) == [source.file_name for source in found.files]


def test_vicuna80_has_the_questions_seven_answers_and_thirteen_reviews() -> None:
    names = list(datasets.dataset_files("vicuna80"))
    assert sum(name.startswith("answer/") for name in names) == 7
    assert sum(name.startswith("review/") for name in names) == 13
    assert "question.jsonl" in names


@pytest.mark.data
def test_vader_reviews_come_out_of_the_sdist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    folder = datasets.pull_dataset("vader-reviews")
    rows = (folder / "amazonReviewSnippets_GroundTruth.txt").read_text(encoding="ascii").splitlines()
    assert len(rows) == 3708
    assert rows[0].split("\t")[:2] == ["1_1", "-0.9"]


def test_a_file_comes_out_of_a_zip_at_an_address(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "문장\t답\n".encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("in/side.tsv", body)
    server.files = {"/a.zip": archive.getvalue()}
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    sha256 = hashlib.sha256(body).hexdigest()
    source = Source(url=f"{server.url}/a.zip", file_name="side.tsv", member="in/side.tsv", sha256=sha256, size_bytes=len(body))
    target = tmp_path / "to" / "side.tsv"
    fetch(source, target, purpose="pull a data set")
    assert target.read_bytes() == body
    assert [path.name for path in target.parent.iterdir()] == ["side.tsv"]
    with pytest.raises(BadFileError, match="holds no readable `none`"):
        fetch(dataclasses.replace(source, member="none"), tmp_path / "to" / "none", purpose="pull a data set")


@pytest.mark.parametrize("damage", ["the bytes of a zip", "the bytes of a tar.gz", "how a zip is packed"])
def test_a_damaged_archive_is_told_and_leaves_nothing(
    damage: str, server: Any, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the file has come out when the reader finds that the bytes are none of deflate's: in blocks of 64 KB at most."""
    body, packed = bytes(500_000), io.BytesIO()
    if damage == "the bytes of a tar.gz":
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=0) as opened_tar:
            entry = tarfile.TarInfo("side.tsv")
            entry.size = len(body)
            opened_tar.addfile(entry, io.BytesIO(body))
    else:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as opened:
            opened.writestr("side.tsv", body)
    sent = bytearray(packed.getvalue())
    start, length = (sent.index(b"PK\1\2") + 10, 1) if damage == "how a zip is packed" else (200_000, 100_000)
    sent[start : start + length] = b"\xff" * length
    server.files = {"/a": bytes(sent)}
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    source = Source(url=f"{server.url}/a", file_name="side.tsv", member="side.tsv")
    with pytest.raises(BadFileError) as failed:
        fetch(source, empty_home / "data" / "side.tsv", purpose="pull a data set")
    assert failed.value.message == "`archive` holds no readable `side.tsv`"
    assert failed.value.hint == "run the command again; if that does not help, report this: the catalogue is wrong"
    assert list(empty_home.rglob("*")) == []


def test_where_a_data_set_is_from_fits_a_table() -> None:
    assert datasets.where_from("gsm8k") == "github:openai/grade-school-math"
    assert datasets.where_from("vader-tweets") == "pypi:vaderSentiment"
    assert datasets.where_from("nsmc") == "a mirror only"


def test_a_file_of_a_data_set_is_known_by_its_sha256() -> None:
    file = datasets.dataset("banking77").files[0]
    assert file.sha256 is not None and datasets.holding(file.sha256) is datasets.dataset("banking77")
    assert datasets.holding("0" * 64) is None
