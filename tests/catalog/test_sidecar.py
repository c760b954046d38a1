"""The terms that stand beside a file which a model wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nomoat import paths
from nomoat.catalog import licences, sidecar
from nomoat.catalog.datasets import SEEDS
from nomoat.errors import BadFileError
from nomoat.records import Parent

TEACHER = Parent(kind="teacher", name="openai:gpt-4o-mini", licence="openai-terms")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "작업.jsonl"
    path.write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    with sidecar.saving(path, sha256=paths.sha256_of(path), teacher="openai:gpt-4o-mini", parents=[TEACHER], facts={"tasks": 1}):
        pass
    return path


def test_a_sidecar_reads_back(data: Path) -> None:
    found = sidecar.find(data)
    assert found is not None
    assert (found.teacher, found.parents, found.is_of_this_content, found.facts["tasks"]) == (TEACHER.name, (TEACHER,), True, 1)


@pytest.mark.parametrize(
    ("settings", "name", "licence"),
    [({"seeds": SEEDS}, SEEDS, "openai-assistant"), ({"labels": ["a"]}, SEEDS, "openai-terms"), ({}, "mine.jsonl", "openai-terms")],
)
def test_tasks_of_every_kind_that_an_earlier_nomoat_had_written_are_of_an_assistant(
    settings: dict[str, Any], name: str, licence: str, data: Path
) -> None:
    shown = Parent(kind="data", name=name, licence="apache-2.0")
    facts, sha256 = {"settings": settings}, paths.sha256_of(data)
    with sidecar.saving(data, sha256=sha256, teacher=TEACHER.name, parents=[TEACHER, shown], facts=facts):
        pass
    found = sidecar.find(data)
    assert found is not None
    assert found.parents == (replace(TEACHER, licence=licence), shown)


@pytest.mark.parametrize(
    ("teacher", "written", "known"),
    [
        ("https://api.openai.com/v1#gpt-4o", "own", "openai-terms"),
        ("https://api.openai.com/v1#gpt-4o", "apache-2.0", "openai-terms"),
        ("https://api.openai.com/v1#gpt-4o", "openai-assistant", "openai-assistant"),
        ("https://api.openai.com/v1#gpt-4o", "openai-terms-2027", "openai-terms-2027"),
        ("smollm2-135m", "mit", "apache-2.0"),
        ("http://127.0.0.1:9/v1#m", "own", "unknown"),
        ("http://127.0.0.1:9/v1#m", "apache-2.0", "apache-2.0"),
    ],
)
def test_terms_that_an_earlier_nomoat_took_for_those_of_a_teacher_are_known_terms_now(
    teacher: str, written: str, known: str, data: Path
) -> None:
    """It took the user's word for those of any, and "own" as well."""
    parent = Parent(kind="teacher", name=teacher, licence=written, source=licences.STATED)
    own = Parent(kind="data", name="seeds.jsonl", licence="own")
    with sidecar.saving(data, sha256=paths.sha256_of(data), teacher=teacher, parents=[parent, own], facts={}):
        pass
    found = sidecar.find(data)
    assert found is not None
    assert (found.parents[0].licence, found.parents[1]) == (known, own)
    said = f"of {teacher}, `{data.name}.provenance.json` has other terms (`{written}`) than are known now (`{known}`)"
    assert found.notes == (() if known == written else (said,))


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("openai-terms", licences.STATED),
        ("openai-terms", ""),
        ("unknown", ""),
        ("apache-2.0", licences.STATED),
        ("own", licences.STATED),
    ],
)
def test_tasks_of_every_kind_are_of_an_assistant_by_the_terms_that_are_known_now_of_whoever_wrote_what_was_shown(
    written: str, source: str, data: Path
) -> None:
    shown = Parent(kind="teacher", name="https://api.openai.com/v1#gpt-4o", licence=written, source=source)
    parents = [licences.teacher("smollm2-135m"), Parent(kind="data", name=SEEDS, licence="cc-by-nc-4.0"), shown]
    with sidecar.saving(data, sha256=paths.sha256_of(data), teacher="smollm2-135m", parents=parents, facts={"settings": {}}):
        pass
    found = sidecar.find(data)
    assert found is not None
    assert (found.parents[:2], found.parents[2].licence) == (tuple(parents[:2]), "openai-assistant")
    assert f"(`{written}`) than are known now (`openai-assistant`)" in found.notes[0]


def test_terms_of_a_gateway_that_stand_there_by_hand_are_those_for_an_assistant_too(data: Path) -> None:
    teacher = "http://gateway:4000/v1#x"
    parents = [Parent(kind="teacher", name=teacher, licence="openai-terms"), Parent(kind="data", name=SEEDS, licence="cc-by-nc-4.0")]
    with sidecar.saving(data, sha256=paths.sha256_of(data), teacher=teacher, parents=parents, facts={"settings": {}}):
        pass
    found = sidecar.find(data)
    assert found is not None and found.parents[0].licence == "openai-assistant"


def test_a_file_that_was_changed_still_has_its_teacher(data: Path) -> None:
    data.write_text('{"instruction": "c", "input": "", "output": "d"}\n')
    found = sidecar.find(data)
    assert found is not None
    assert (found.parents, found.is_of_this_content) == ((TEACHER,), False)


def test_a_file_that_was_renamed_is_known_by_its_content(data: Path) -> None:
    renamed = data.rename(data.with_name("mine.jsonl"))
    found = sidecar.find(renamed)
    assert found is not None
    assert found.parents == (TEACHER,)


def test_exported_weights_keep_their_terms_under_the_name_that_these_ask_for(tmp_path: Path) -> None:
    weights = tmp_path / "reviews.gguf"
    with sidecar.whole_with_chain(weights, licences.chain(None), {"task": {"labels": ["a"]}}) as part:
        part.write_bytes(b"weights")
    terms = sidecar.chain_of(weights, paths.sha256_of)
    renamed = weights.rename(tmp_path / "llama-reviews.gguf")
    (tmp_path / "own.gguf").write_bytes(b"others")
    (tmp_path / "own.gguf.provenance.json").write_text('{"sha256": "of what it was"}')
    assert sidecar.told_of(renamed, paths.sha256_of)["task"] == {"labels": ["a"]}
    assert sidecar.chain_of(renamed, paths.sha256_of) == terms
    assert sidecar.told_of(tmp_path / "own.gguf", paths.sha256_of) == {}


def test_other_files_of_the_folder_have_no_teacher(data: Path) -> None:
    (data.parent / "package.provenance.json").write_text("[]")  # somebody else's
    other = data.with_name("own.jsonl")
    other.write_text("{}")
    assert sidecar.find(other) is None


def test_a_file_that_is_not_there_has_none(data: Path) -> None:
    """Whoever reads it says so; beside others' sidecars it was opened to be told apart."""
    sidecar.path_of(data).write_text("{}")
    assert sidecar.find(data.with_name("mistyped.csv")) is None
    assert sidecar.find(data.parent) is None


@pytest.mark.parametrize(
    "told", ['{"teacher": "x"}', '{"teacher": "x", "made_from": [{"kind": "teacher", "name": null, "licence": "mit"}]}']
)
def test_a_broken_sidecar_is_not_passed_over(told: str, data: Path) -> None:
    sidecar.path_of(data).write_text(told)
    with pytest.raises(BadFileError, match="should say which teacher wrote"):
        sidecar.find(data)


def test_what_a_newer_nomoat_says_besides_of_a_teacher_is_passed_over(data: Path) -> None:
    beside = sidecar.path_of(data)
    told = json.loads(beside.read_text())
    told["made_from"][0]["since"] = 2027
    beside.write_text(json.dumps(told))
    found = sidecar.find(data)
    assert found is not None
    assert found.parents == (TEACHER,)


def chained(change: Callable[[dict[str, Any]], object]) -> licences.ChainVerdict:
    """A licence chain with this change to its first link, read as it is written beside an adapter."""
    told = {"licence": licences.as_dict(licences.of_parents([TEACHER]))}
    change(told["licence"]["links"][0])
    return sidecar.recorded_chain(told, Path("provenance.json"), hint="tune the adapter again")


def test_what_a_newer_nomoat_says_besides_of_a_licence_is_passed_over() -> None:
    assert chained(lambda link: link.update(since=2027)) == licences.of_parents([TEACHER])


def test_a_verdict_that_only_a_newer_nomoat_knows_is_told_as_that() -> None:
    with pytest.raises(BadFileError) as caught:
        chained(lambda link: link.update(commercial="yes, for a fee"))
    assert caught.value.message == "`provenance.json` was written by a newer nomoat: `commercial` is `yes, for a fee` there"
    assert caught.value.hint == "update nomoat"
