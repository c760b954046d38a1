"""One file, from a server that misbehaves: whole, or resumable, or not there at all."""

from __future__ import annotations

import base64
import errno
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NamedTuple

import httpx
import pytest
from homes import names_in
from misbehaving import Server
from patience import wait_until

from nomoat import config
from nomoat.catalog import part as part_module
from nomoat.catalog.fetch import fetch, hub_url
from nomoat.catalog.part import part_of
from nomoat.errors import ChecksumError, DownloadError, NotEnoughDiskError, NotWritableError, OfflineError, RedirectedError, UsageError
from nomoat.records import Source

BODY = b"GGUF" + bytes(range(256)) * 4000  # a megabyte
SHA256 = hashlib.sha256(BODY).hexdigest()


def source(url: str, **more: Any) -> Source:
    return Source(url=url, file_name="m.gguf", **more)


def pull(what: Source, target: Path) -> None:
    fetch(what, target, purpose="pull a model")


@pytest.fixture
def target(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    return empty_home / "models" / "m" / "m.gguf"


# ---------------------------------------------------------------- servers
def test_a_file_arrives_whole_and_its_progress_is_told(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    told: list[tuple[str, int, int | None]] = []
    what = source(f"{server.url}/m.gguf", sha256=SHA256, size_bytes=len(BODY))
    fetch(what, target, purpose="pull a model", progress=lambda *now: told.append(now))
    assert target.read_bytes() == BODY
    assert names_in(target.parent) == ["m.gguf"]
    assert told[-1] == ("m.gguf", len(BODY), len(BODY))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_file_arrives_in_the_home_of_a_user_whose_name_is_korean(server: Any, target: Path) -> None:
    """Python 3.11's own way to open a file for oneself alone on Windows takes no such path."""
    server.files["/m.gguf"] = BODY
    there = target.parent / "홍길동" / "받은 것" / "모델.gguf"
    pull(source(f"{server.url}/m.gguf", sha256=SHA256), there)
    assert there.read_bytes() == BODY
    assert names_in(there.parent) == ["모델.gguf"]


def test_a_cut_connection_keeps_what_came_and_the_next_call_asks_only_for_the_rest(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    server.cut_after = 300_000
    what = source(f"{server.url}/m.gguf", sha256=SHA256)
    with pytest.raises(DownloadError) as failed:
        pull(what, target)
    assert failed.value.message == f"the connection was lost after 300,000 bytes of `{server.url}/m.gguf`"
    assert failed.value.hint == "run the same command again to resume"
    assert names_in(target.parent) == [".m.gguf.part", ".m.gguf.part.etag"]
    pull(what, target)
    assert target.read_bytes() == BODY
    assert server.asked[1][1]["range"] == "bytes=300000-"
    assert names_in(target.parent) == ["m.gguf"]


def test_a_server_without_ranges_starts_over(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    server.cut_after, server.knows_ranges = 300_000, False
    with pytest.raises(DownloadError):
        pull(source(f"{server.url}/m.gguf"), target)
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == BODY


def test_a_file_that_changed_between_two_calls_is_not_mixed(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    server.cut_after = 300_000
    with pytest.raises(DownloadError):
        pull(source(f"{server.url}/m.gguf"), target)
    server.files["/m.gguf"], server.etag = BODY[::-1].replace(b"FUGG", b"") + b"", '"two"'
    server.files["/m.gguf"] = b"GGUF" + server.files["/m.gguf"]
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == server.files["/m.gguf"]


@pytest.mark.parametrize(
    ("tags", "headers"),
    [
        (("", ""), [{}, {}]),
        (('W/"one"', 'W/"one"'), [{}, {}]),
        (("", ""), [{"Last-Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}, {"Last-Modified": "Sun, 02 Nov 2025 10:00:00 GMT"}]),
        (('"one"', '"two"'), [{}, {}]),
        (('"one"', ""), [{}, {}]),
    ],
)
def test_versions_are_not_mixed_where_the_server_has_no_strong_tag_or_ignores_ours(
    tags: tuple[str, str], headers: list[dict[str, str]], server: Any, target: Path
) -> None:
    server.minds_versions = False
    server.files["/m.gguf"], server.etag, server.headers, server.cut_after = BODY, tags[0], headers[0], 300_000
    with pytest.raises(DownloadError):
        pull(source(f"{server.url}/m.gguf"), target)
    server.files["/m.gguf"], server.etag, server.headers = b"GGUF" + b"2" * len(BODY), tags[1], headers[1]
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == server.files["/m.gguf"]


@pytest.mark.parametrize("says_it_again", [True, False])
def test_a_pull_goes_on_where_the_server_says_only_when_the_file_changed(says_it_again: bool, server: Any, target: Path) -> None:
    server.files["/m.gguf"], server.etag, server.cut_after = BODY, "", 300_000
    server.headers = {"Last-Modified": "Sat, 01 Nov 2025 10:00:00 GMT"}
    with pytest.raises(DownloadError) as failed:
        pull(source(f"{server.url}/m.gguf"), target)
    assert failed.value.hint == "run the same command again to resume"
    server.minds_versions = False
    if not says_it_again:
        server.headers = {}
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1][1]["range"] == "bytes=300000-"
    assert server.asked[-1][1]["if-range"] == "Sat, 01 Nov 2025 10:00:00 GMT"


def test_a_pull_that_will_begin_anew_says_so(server: Any, target: Path) -> None:
    server.files["/m.gguf"], server.etag, server.cut_after = BODY, "", 300_000
    with pytest.raises(DownloadError) as failed:
        pull(source(f"{server.url}/m.gguf"), target)
    said = "run the same command again; it begins anew: the server does not say which version of the file it has"
    assert failed.value.hint == said
    for cut_after in (300_000, 0):
        server.cut_after = cut_after
        with pytest.raises(DownloadError) as failed:
            pull(source(f"{server.url}/m.gguf"), target)
        assert failed.value.hint == (said if cut_after else "run the same command again")


@pytest.mark.parametrize(
    ("tag", "changed"),
    [('"\xe9"', ""), ("one", ""), ("", "Sat, 01 Nov 2025 10:00:00 GMT (\xe9)"), ("", "Sat, 01 Nov 2025 10:00:00 +99999999999999")],
)
def test_a_name_of_a_version_that_no_request_can_carry_is_not_kept(tag: str, changed: str, server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    server.cut_after, server.etag, server.headers = 300_000, tag, {"Last-Modified": changed}
    with pytest.raises(DownloadError):
        pull(source(f"{server.url}/m.gguf"), target)
    assert names_in(target.parent) == [".m.gguf.part"]
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == BODY


def test_a_part_longer_than_the_file_is_forgotten(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    target.parent.mkdir(parents=True)
    target.with_name(".m.gguf.part").write_bytes(BODY + b"more")
    target.with_name(".m.gguf.part.etag").write_text(server.etag)
    pull(source(f"{server.url}/m.gguf", sha256=SHA256), target)
    assert target.read_bytes() == BODY
    assert ["range" in headers for _, headers in server.asked] == [True, False]


def test_a_server_that_refuses_a_range_nobody_asked_for_is_asked_once(server: Any, target: Path) -> None:
    server.status = 416
    with pytest.raises(DownloadError) as failed:
        pull(source(f"{server.url}/m.gguf"), target)
    assert failed.value.message.startswith(f"`{server.url}/m.gguf`: the server answered 416 ")
    assert len(server.asked) == 1
    assert names_in(target.parents[1]) == []


def test_wrong_bytes_leave_nothing_and_say_both_sums(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = b"GGUF, but another"
    with pytest.raises(ChecksumError) as failed:
        pull(source(f"{server.url}/m.gguf", sha256=SHA256), target)
    found = hashlib.sha256(b"GGUF, but another").hexdigest()
    assert failed.value.message == (
        f"`{server.url}/m.gguf` is not the file it should be: 17 bytes with sha256 {found[:16]}…, expected {SHA256[:16]}…"
    )
    assert failed.value.hint == "nothing was kept; run the command again, or check the address"
    assert names_in(target.parents[1]) == []


def test_a_web_page_instead_of_a_model_is_refused(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = b"<html>log in first</html>"
    with pytest.raises(ChecksumError, match="is not a GGUF file: it begins with b'<htm'"):
        pull(source(f"{server.url}/m.gguf"), target)
    assert names_in(target.parents[1]) == []


class Refusal(NamedTuple):
    status: int
    message: str
    hint: str


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(404, "`hf:o/r/m.gguf`: the server has no such file (404)", "check the name, or use another source"),
        Refusal(
            401,
            "`hf:o/r/m.gguf`: the server refused with 401",
            "check the name; if it is gated, accept its terms at https://huggingface.co/o/r and set HF_TOKEN",
        ),
        Refusal(503, "`hf:o/r/m.gguf`: the server answered 503 Service Unavailable", "try again later"),
    ],
)
def test_a_refusal_leaves_nothing_and_says_what_to_do(
    refusal: Refusal, server: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.status = refusal.status
    with pytest.raises(DownloadError) as failed:
        pull(source("hf:o/r/m.gguf"), target)
    assert (failed.value.message, failed.value.hint) == (refusal.message, refusal.hint)
    assert names_in(target.parents[1]) == []


def test_nobody_listening_says_so(target: Path) -> None:
    with pytest.raises(DownloadError, match="cannot reach") as failed:
        pull(source("http://127.0.0.1:9/m.gguf"), target)
    assert failed.value.message.startswith("cannot reach `127.0.0.1` to pull `http://127.0.0.1:9/m.gguf`: ")
    assert failed.value.hint == "check the network and the proxy settings"
    assert names_in(target.parents[1]) == []


def test_a_certificate_that_is_not_trusted_is_named_with_the_variable_that_helps(untrusted: tuple[Server, Path], target: Path) -> None:
    with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED") as failed:
        pull(source(f"{untrusted[0].url}/m.gguf"), target)
    assert failed.value.hint == (
        "if you trust whoever signed its certificate (a company's proxy, yourself), name theirs: SSL_CERT_FILE=FILE.pem"
    )
    assert names_in(target.parents[1]) == []


def test_offline_refuses_and_names_the_mirror(target: Path) -> None:
    with pytest.raises(OfflineError, match=re.escape("refused to connect to `huggingface.co` to pull a model")):
        pull(source("hf:o/r/m.gguf"), target)
    with pytest.raises(OfflineError, match="refused to connect to `the package index of pip` to pull a model"):
        pull(source("pypi:nomoat==0.0.0", member="x"), target)
    assert names_in(target.parents[1]) == []


@pytest.mark.parametrize(("begun", "sha256"), [("https", None), ("https", SHA256), ("http", None)])
def test_what_is_pulled_over_https_goes_on_over_http_only_if_its_sum_is_known(
    begun: str, sha256: str | None, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it is not even asked for there."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    asked = []

    def answer(_: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if request.url.host == "b.example":
            return httpx.Response(200, stream=httpx.ByteStream(BODY), request=request)
        return httpx.Response(302, headers={"location": "http://b.example/m.gguf"}, request=request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", answer)
    url = f"{begun}://a.example/m.gguf"
    if begun == "http" or sha256:
        pull(source(url, sha256=sha256), target)
        assert target.read_bytes() == BODY
        return
    with pytest.raises(RedirectedError, match=r"refused to go on to `b\.example` over http to pull a model: "):
        pull(source(url, sha256=sha256), target)
    assert asked == [url] and not target.exists()


# ---------------------------------------------------------------- the hub
def test_the_hub_gets_the_token_and_its_promised_sum_is_checked(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    config.keys_path().parent.mkdir(exist_ok=True)
    config.keys_path().write_text('HF_TOKEN = "hf_secret"')
    config.keys_path().chmod(0o600)
    server.files["/storage"] = BODY
    server.redirects["/o/r/resolve/main/sub/m%20%231.gguf"] = ("/storage", SHA256)
    pull(source("hf:o/r/sub/m #1.gguf"), target)
    assert server.asked[0][1]["authorization"] == "Bearer hf_secret"
    server.redirects["/o/r/resolve/main/sub/m%20%231.gguf"] = ("/storage", "0" * 64)
    with pytest.raises(ChecksumError, match="expected 0000000000000000…"):
        pull(source("hf:o/r/sub/m #1.gguf"), target)


def test_the_hub_is_huggingface_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert hub_url("o/r/m.gguf") == "https://huggingface.co/o/r/resolve/main/m.gguf"


# ---------------------------------------------------------------- the mirror
def test_a_mirror_folder_is_asked_by_sum_and_then_by_name(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("NOMOAT_MIRROR", str(mirror))
    (mirror / "m.gguf").write_bytes(BODY)
    pull(source("hf:o/r/m.gguf"), target)
    assert target.read_bytes() == BODY
    (mirror / SHA256).write_bytes(BODY)
    (mirror / "m.gguf").write_bytes(b"an old one")
    pull(source("hf:o/r/m.gguf", sha256=SHA256), target)
    assert target.read_bytes() == BODY


def test_a_truncated_file_in_the_mirror_is_named(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").write_bytes(BODY[:1000])
    monkeypatch.setenv("NOMOAT_MIRROR", tmp_path.as_uri())
    with pytest.raises(ChecksumError) as failed:
        pull(source("hf:o/r/m.gguf", sha256=SHA256), target)
    assert f"`{tmp_path / 'm.gguf'}` is not the file it should be: 1,000 bytes" in failed.value.message
    assert failed.value.hint == "nothing was kept; replace that file, or unset NOMOAT_MIRROR"
    assert names_in(target.parents[1]) == []


def test_a_mirror_may_be_a_server(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_MIRROR", f"{server.url}/pool/")
    server.files["/pool/m.gguf"] = BODY
    pull(source("hf:o/r/m.gguf", sha256=SHA256), target)
    assert [path for path, _ in server.asked] == [f"/pool/{SHA256}", "/pool/m.gguf"]
    assert target.read_bytes() == BODY


def test_the_password_of_a_mirror_is_sent_and_not_shown(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_MIRROR", server.url.replace("http://", "http://me:pass@"))
    server.files["/m.gguf"] = b"GGUF other"
    with pytest.raises(ChecksumError) as failed:
        pull(source("hf:o/r/m.gguf", sha256=SHA256), target)
    assert failed.value.message.startswith(f"`{server.url}/m.gguf` is not the file it should be")
    assert {headers["authorization"] for _, headers in server.asked} == {f"Basic {base64.b64encode(b'me:pass').decode()}"}
    monkeypatch.setenv("NOMOAT_MIRROR", "ftp://me:pass@host/pool")
    with pytest.raises(UsageError) as refused:
        pull(source("hf:o/r/m.gguf", sha256=SHA256), target)
    assert refused.value.message == "NOMOAT_MIRROR is `ftp://host/pool`, which is no folder"


def test_what_the_mirror_lacks_is_fetched_from_its_source(server: Any, target: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path))
    server.files["/m.gguf"] = BODY
    pull(source(f"{server.url}/m.gguf"), target)
    assert target.read_bytes() == BODY


def test_a_mirror_that_is_no_folder_is_a_usage_error(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="which is no folder"):
        pull(source("hf:o/r/m.gguf"), target)
    assert names_in(target.parents[1]) == []


# ---------------------------------------------------------------- disks and processes
def test_a_file_that_would_not_fit_is_refused_before_it_is_asked_for(server: Any, target: Path, monkeypatch: Any) -> None:
    server.files["/m.gguf"] = BODY
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 2_000_000))  # type: ignore[attr-defined]
    with pytest.raises(NotEnoughDiskError) as failed:
        pull(source(f"{server.url}/m.gguf"), target)
    assert (
        failed.value.message
        == f"`m.gguf` needs 1 MB more, and beside it 67 MB are to stay free; the disk of `{target.parent}` has 2 MB free"
    )
    assert names_in(target.parents[1]) == []


def test_a_file_whose_server_does_not_say_how_long_it_is_does_not_fill_the_disk(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, free = bytes(1 << 20), part_module.SPARE_BYTES + (10 << 20)

    def usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(free=free - target.with_name(".m.gguf.part").stat().st_size)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with (
        pytest.raises(NotEnoughDiskError, match=r"`m\.gguf` needs 4 MB more, and beside it 67 MB are to stay free"),
        part_of(target, "pull a model", lambda *_: None) as part,
    ):
        part.add(itertools.repeat(block), None)
    assert names_in(target.parents[1]) == []


def test_a_disk_that_fills_up_leaves_nothing(server: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.files["/m.gguf"] = BODY
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NotEnoughDiskError, match="no space left on the disk of"):
        pull(source(f"{server.url}/m.gguf"), target)
    assert names_in(target.parents[1]) == []


def test_a_killed_process_leaves_a_part_that_is_resumed(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    server.pause_after = 600_000
    url = f"{server.url}/m.gguf"
    code = (
        "import sys; from pathlib import Path; from nomoat.catalog.fetch import fetch; from nomoat.records import Source\n"
        "fetch(Source(url=sys.argv[1], file_name='m.gguf'), Path(sys.argv[2]), purpose='pull a model')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url, str(target)])
    part = target.with_name(".m.gguf.part")
    wait_until(lambda: part.exists() and part.stat().st_size >= 500_000, "half of the file")
    with pytest.raises(DownloadError, match=re.escape("`m.gguf` is being pulled or removed by another nomoat right now")):
        pull(source(url, sha256=SHA256), target)
    process.kill()
    process.wait()
    server.pause_after = None
    kept = part.stat().st_size
    pull(source(url, sha256=SHA256), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1][1]["range"] == f"bytes={kept}-"


def test_a_file_that_another_finished_meanwhile_is_not_written_into(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening of the part and its lock another nomoat may rename it: what is open then is the whole file."""
    fcntl = pytest.importorskip("fcntl")
    lock, others = fcntl.flock, target.with_name(".m.gguf.part")

    def finished_first(number: int, how: int) -> None:
        if not target.exists():
            others.write_bytes(BODY)
            others.rename(target)
        lock(number, how)

    monkeypatch.setattr(fcntl, "flock", finished_first)
    with pytest.raises(RuntimeError, match="lost"), part_of(target, "pull a model", lambda _done, _total: None) as part:
        part.start_over()
        raise RuntimeError("lost")
    assert target.read_bytes() == BODY


# ---------------------------------------------------------------- Windows
@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Windows refuses to `part.py`: to rename and to remove a file that is open. Everyone else sees the system that is here."""
    files: list[BinaryIO] = []
    opened_alone, replace, unlink = part_module._opened_alone, os.replace, os.unlink

    def opened(path: Path, name: str) -> BinaryIO:
        files.append(opened_alone(path, name))
        return files[-1]

    def require_closed(path: Any) -> None:
        if any(file.name == str(path) and not file.closed for file in files):
            raise PermissionError(errno.EACCES, "[WinError 32] The process cannot access the file", str(path))

    def replace_closed(origin: Any, place: Any) -> None:
        require_closed(origin)
        replace(origin, place)

    def unlink_closed(path: Any, **more: Any) -> None:
        require_closed(path)
        unlink(path, **more)

    monkeypatch.setattr(part_module, "_opened_alone", opened)
    monkeypatch.setattr(os, "replace", replace_closed)
    monkeypatch.setattr(os, "unlink", unlink_closed)
    monkeypatch.setattr(part_module, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))


@pytest.mark.usefixtures("windows")
def test_on_windows_a_file_gets_its_name_when_it_is_closed(server: Any, target: Path) -> None:
    server.files["/m.gguf"] = BODY
    pull(source(f"{server.url}/m.gguf", sha256=SHA256), target)
    assert target.read_bytes() == BODY
    assert names_in(target.parent) == ["m.gguf"]


@pytest.mark.usefixtures("windows")
def test_on_windows_a_cut_pull_goes_on_and_what_cannot_be_renamed_stays(
    server: Any, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/m.gguf"] = BODY
    server.cut_after = 300_000
    what = source(f"{server.url}/m.gguf", sha256=SHA256, size_bytes=len(BODY))
    with pytest.raises(DownloadError):
        pull(what, target)
    assert target.with_name(".m.gguf.part").stat().st_size == 300_000
    with monkeypatch.context() as refused, pytest.raises(NotWritableError, match=r"m\.gguf"):
        refused.setattr(os, "replace", refuse)
        pull(what, target)
    assert target.with_name(".m.gguf.part").stat().st_size == len(BODY)
    num_asked = len(server.asked)
    pull(what, target)
    assert (target.read_bytes(), names_in(target.parent), len(server.asked)) == (BODY, ["m.gguf"], num_asked)
    target.unlink()
    with pytest.raises(ChecksumError):
        pull(source(f"{server.url}/m.gguf", sha256="0" * 64), target)
    assert names_in(target.parents[1]) == []


def refuse(origin: Path, place: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(origin), None, str(place))
