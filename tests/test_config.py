"""`config.toml` and what it may say."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from nomoat import config, hardware
from nomoat.errors import UsageError


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("threads = [", "is not TOML: Invalid value (at end of document)", "mend it or remove it"),
        ("foo = 1", "sets `foo`, which is not a setting", "known: offline, mirror, context_tokens, threads, quality"),
        ('threads = "abc"', "sets `threads` to 'abc'", "give a whole number of at least 1"),
        ("threads = 0", "sets `threads` to 0", "give a whole number of at least 1"),
        ('offline = "no"', "sets `offline` to 'no'", "give true or false"),
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
