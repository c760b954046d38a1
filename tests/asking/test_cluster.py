"""What is told to workers, who have another working folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import write_adapter

from nomoat import references
from nomoat.asking import cluster


def test_workers_find_what_this_process_finds(
    tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of other things are named like the card and its adapter, as `nomoat export BASE+reviews -o reviews/` makes one."""
    pulled = empty_home / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct-Q4_K_M.gguf"
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (pulled.parent, here / "smollm2-135m", here / "reviews", here / "a+b", elsewhere):
        folder.mkdir(parents=True)
    shutil.copy(tiny_gguf, here / "tiny.gguf")
    shutil.copy(tiny_gguf, here / "a+b" / "tiny.gguf")
    write_adapter(empty_home / "adapters" / "reviews")
    write_adapter(here / "mine")
    names = ["smollm2-135m", "smollm2-135m+reviews", "hf:owner/repo/a+b.gguf", "gone+gone"]
    in_folders = ["tiny.gguf", "tiny.gguf+reviews", "tiny.gguf+mine", "a+b/tiny.gguf", "a+b/tiny.gguf+mine"]
    monkeypatch.chdir(here)
    assert [cluster.portable(ref) for ref in names] == names
    sent = [cluster.portable(ref) for ref in in_folders]
    found = [references.find_files(ref) for ref in in_folders]
    monkeypatch.chdir(elsewhere)
    for one, ref in zip(found, sent, strict=True):
        there = references.find_files(ref)
        assert (there.weights, there.adapter) == (here / one.weights, one.adapter and here / one.adapter)


def test_what_ray_starts_reaches_nobody_and_workers_and_this_process_have_their_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cluster.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    before = dict(os.environ)
    started: dict[str, str] = {}
    cluster.connect(SimpleNamespace(init=lambda **_: started.update(os.environ)), None)
    assert dict(os.environ) == before
    assert started["http_proxy"] == started["HTTPS_PROXY"] == cluster.NOBODY
    assert started["no_proxy"] == "127.0.0.1,localhost"
    monkeypatch.setattr(os, "environ", started)
    cluster.settle({}, 1.0, 1)
    assert started == {**before, "NOMOAT_THREADS": "1"}
