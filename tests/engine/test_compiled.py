"""Compiled models on disk: read back they give the same bits, and whatever is wrong with them costs time and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat import hardware
from nomoat.engine import compiled, importer, paged
from nomoat.engine.compiled import BLOB, FACTS, CompiledCopy
from nomoat.engine.local import LocalEngine
from nomoat.engine.paged import PagedModel, Row
from nomoat.records import Request
from nomoat.responder import Responder

PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}


@pytest.fixture
def folder(tiny_gguf: Path) -> Path:
    return importer.import_gguf(tiny_gguf)


@pytest.fixture
def copy(tmp_path: Path) -> CompiledCopy:
    return CompiledCopy(tmp_path / "copy", PROPERTIES)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were compiled."""
    made: list[Path] = []
    whole = paged._page

    def counted(model: Any, folder: Path, adapters: Any) -> None:
        made.append(folder)
        whole(model, folder, adapters)

    monkeypatch.setattr(paged, "_page", counted)
    return made


def logits(model: PagedModel) -> np.ndarray:
    """Of a prompt and of a token after it."""
    model.allocate(4)
    first = model.run([Row([5, 6, 7, 8, 9], 0, [0], 5)])[0].copy()
    return np.concatenate([first, model.run([Row([10], 5, [0], 1)])[0]])


def test_a_model_read_back_gives_the_same_bits_and_is_not_compiled(folder: Path, copy: CompiledCopy, compilations: list[Path]) -> None:
    fresh = logits(PagedModel(folder, PROPERTIES, copy=copy))
    assert (fresh != 0).any()
    assert (logits(PagedModel(folder, PROPERTIES, copy=copy)) == fresh).all()
    assert compilations == [folder]


def test_a_copy_that_another_cpu_made_is_not_read(
    folder: Path, copy: CompiledCopy, compilations: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home may be on several machines, of which one may lack instructions that the other's copy has."""
    PagedModel(folder, PROPERTIES, copy=copy)
    monkeypatch.setattr(hardware, "cpu_name", lambda: "another machine's")
    PagedModel(folder, PROPERTIES, copy=CompiledCopy(tmp_path / "copy", PROPERTIES))
    assert compilations == [folder, folder]


def test_the_engine_keeps_its_model_in_the_cache_and_answers_the_same(
    folder: Path, empty_home: Path, compilations: list[Path]
) -> None:
    def answer() -> str:
        with Responder("tiny", LocalEngine(folder)) as model:
            return model.complete(Request(prompt="the hello", max_new_tokens=12)).text

    first = answer()
    assert (empty_home / "cache" / "compiled" / folder.name / BLOB).stat().st_size > 0
    assert answer() == first
    assert compilations == [folder]


def cut(place: Path) -> None:
    blob = place / BLOB
    blob.write_bytes(blob.read_bytes()[:-100])


def scramble_graph(place: Path) -> None:
    blob = place / BLOB
    whole = blob.read_bytes()
    blob.write_bytes(whole[:-5000] + bytes(5000))


def scramble_head(place: Path) -> None:
    blob = place / BLOB
    whole = blob.read_bytes()
    blob.write_bytes(bytes(200) + whole[200:])


def lose(place: Path) -> None:
    (place / BLOB).unlink()


def empty_facts(place: Path) -> None:
    (place / FACTS).write_text("[]")


def other_openvino(place: Path) -> None:
    facts = json.loads((place / FACTS).read_text())
    facts["key"]["openvino"] = "1.0"
    (place / FACTS).write_text(json.dumps(facts))


@pytest.mark.parametrize("damage", [cut, scramble_graph, scramble_head, lose, empty_facts, other_openvino])
def test_a_damaged_copy_is_made_anew(
    folder: Path, copy: CompiledCopy, compilations: list[Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    fresh = logits(PagedModel(folder, PROPERTIES, copy=copy))
    damage(tmp_path / "copy")
    assert (logits(PagedModel(folder, PROPERTIES, copy=copy)) == fresh).all()
    assert (logits(PagedModel(folder, PROPERTIES, copy=copy)) == fresh).all()
    assert compilations == [folder, folder]


def test_a_copy_made_with_other_properties_is_not_read(folder: Path, tmp_path: Path, compilations: list[Path]) -> None:
    others = PROPERTIES | {"KV_CACHE_PRECISION": "f32"}
    for properties in (PROPERTIES, others):
        PagedModel(folder, properties, copy=CompiledCopy(tmp_path / "copy", properties))
    assert compilations == [folder, folder]


def test_a_cache_that_cannot_be_written_costs_a_compilation_and_no_error(
    folder: Path, tmp_path: Path, compilations: list[Path]
) -> None:
    (tmp_path / "file").write_text("in the way")
    copy = CompiledCopy(tmp_path / "file" / "copy", PROPERTIES)
    for _ in range(2):
        logits(PagedModel(folder, PROPERTIES, copy=copy))
    assert compilations == [folder, folder]


def test_large_models_are_not_kept(folder: Path, copy: CompiledCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LARGEST_BYTES", 10)
    PagedModel(folder, PROPERTIES, copy=copy)
    assert not (tmp_path / "copy").exists()


def test_what_openvino_cannot_read_back_is_written_once_and_keeps_no_disk(
    folder: Path, copy: CompiledCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledCopy, "read", lambda self: None)
    PagedModel(folder, PROPERTIES, copy=copy)
    assert [path.name for path in (tmp_path / "copy").iterdir()] == [FACTS]
    before = (tmp_path / "copy").stat().st_mtime_ns
    monkeypatch.undo()
    assert copy.read() is None
    PagedModel(folder, PROPERTIES, copy=copy)
    assert (tmp_path / "copy").stat().st_mtime_ns == before
