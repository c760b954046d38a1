"""`config.toml` and what it may say."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import nomoat
from nomoat import config, hardware, net
from nomoat.catalog.fetch import fetch
from nomoat.errors import OfflineError, UsageError
from nomoat.records import Source


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("threads = [", "is not TOML: Invalid value (at end of document)", "mend it or remove it"),
        ("foo = 1", "sets `foo`, which is not a setting", "known: offline, mirror, context_tokens, threads, quality"),
        ('threads = "abc"', "sets `threads` to 'abc'", "give a whole number of at least 1"),
        ("threads = 0", "sets `threads` to 0", "give a whole number of at least 1"),
        ('offline = "no"', "sets `offline` to 'no'", "give true or false"),
        ('quality = "best"', "sets `quality` to 'best'", "give high, default or small, in quotes"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(empty_home: Path, text: str, message: str, hint: str) -> None:
    path = empty_home / "config.toml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        config.read_file()
    assert (caught.value.message, caught.value.hint) == (f"`{path}` {message}", hint)


def test_a_folder_in_its_place_is_said(empty_home: Path) -> None:
    (empty_home / "config.toml").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        config.read_file()


@pytest.fixture
def file_alone(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `config.toml` that says all it can, and an environment that says nothing."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    path = empty_home / "config.toml"
    path.parent.mkdir()
    path.write_text('offline = true\nmirror = "/none"\ncontext_tokens = 512\nthreads = 1\nquality = "small"\n')
    return path


def test_the_file_holds_wherever_settings_are_read(file_alone: Path, tmp_path: Path) -> None:
    """In Python as on the command line: nobody has to apply it first."""
    assert config.threads() == hardware.Detected(1, f"`threads` in `{file_alone}`")
    assert (config.context_tokens(), config.quality().value) == (512, "small")
    with pytest.raises(OfflineError) as refused:
        nomoat.load("openai:gpt-4o-mini")
    assert refused.value.message == f"refused to connect to `api.openai.com` to ask a model server: `offline` in `{file_alone}` is set"
    with pytest.raises(UsageError) as lost:
        fetch(Source(url="mirror:x", file_name="x"), tmp_path / "x", purpose="pull a model")
    assert lost.value.message == f"`mirror` in `{file_alone}` is `/none`, which is no folder"


def test_the_environment_is_above_the_file(file_alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    monkeypatch.setenv("NOMOAT_THREADS", "3")
    assert (net.offline(), config.threads().value) == (None, 3)
    origins = {setting.name: (setting.value, setting.origin) for setting in config.settings()}
    assert origins["threads"] == ("3", "environment (NOMOAT_THREADS)")
    assert origins["quality"] == ("small", str(file_alone))


def test_a_broken_file_stops_python_too(file_alone: Path) -> None:
    file_alone.write_text("offline = 1")
    with pytest.raises(UsageError, match="sets `offline` to 1"):
        nomoat.load("openai:gpt-4o-mini")


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOMOAT_THREADS", "")
    monkeypatch.setenv("NOMOAT_CONTEXT_TOKENS", "")
    assert (config.threads(), config.context_tokens()) == (hardware.threads(), None)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no thread on a core")
def test_a_thread_that_is_kept_on_one_core_counts_all_cores_of_the_process() -> None:
    """OpenVINO keeps its threads on a core each, and asks nomoat's products from them."""
    here, found = hardware.threads(), []

    def ask() -> None:
        os.sched_setaffinity(0, {min(hardware.allowed_cores())})
        found.append(hardware.threads())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [here]


@pytest.mark.parametrize("name", ["NOMOAT_API_KEY", "NOMOAT_UPSTREAM_API_KEY", "GEMINI_API_KEY"])
def test_keys_are_listed_and_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0123456789abcdef")
    (row,) = [row for row in config.settings() if row.name == name]
    assert (row.value, row.origin) == ("…cdef", "environment")
