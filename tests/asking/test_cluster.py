"""What is told to workers, who have another working folder."""

from __future__ import annotations

import shutil
from pathlib import Path

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
