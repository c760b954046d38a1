"""What a teacher's data is made from, and whose terms bind what learns from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from homes import be_at_home_in

from nomoat.catalog import licences, sidecar
from nomoat.catalog.datasets import SEEDS
from nomoat.distil import alpaca, origin
from nomoat.errors import UsageError
from nomoat.records import Parent

ALPACAS = Parent(kind="data", name=SEEDS, licence="apache-2.0")


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"instruction": "Name a bird.", "input": "", "output": "Crow"}))
    return path


def test_seeds_of_the_user_are_their_own(seeds: Path) -> None:
    read, found = origin.load_seeds(seeds)
    assert [task.output for task in read.tasks] == ["Crow"]
    assert found == (Parent(kind="data", name="mine.jsonl", licence="own"),)


def test_seeds_may_be_named_by_a_text(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_at_home_in(seeds.parent, monkeypatch)
    parents = (Parent(kind="teacher", name="anthropic:claude", licence="anthropic-terms"),)
    with sidecar.saving(seeds, sha256="0" * 64, teacher="anthropic:claude", parents=parents, facts={}):
        pass
    for named in (str(seeds), "~/mine.jsonl"):
        assert origin.load_seeds(named) == origin.load_seeds(seeds)
        assert origin.of_file(named) == parents


def test_seeds_that_are_mostly_alpacas_are_alpacas_too(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca, "_fingerprints", lambda: {alpaca.fingerprint("Name a bird.")})
    _, found = origin.load_seeds(seeds)
    assert [(parent.name, parent.licence) for parent in found] == [("mine.jsonl", "own"), (SEEDS, "apache-2.0")]


def test_seeds_that_a_model_wrote_are_made_from_what_it_was_taught_by(seeds: Path) -> None:
    parents = (Parent(kind="teacher", name="anthropic:claude", licence="anthropic-assistant"), ALPACAS)
    with sidecar.saving(seeds, sha256="0" * 64, teacher="anthropic:claude", parents=parents, facts={}):
        pass
    assert origin.of_file(seeds) == origin.load_seeds(seeds)[1] == parents


@pytest.mark.parametrize(
    ("shown", "are_labels", "terms", "commercial"),
    [
        ((ALPACAS,), False, "openai-assistant", "no"),
        ((), False, "openai-terms", "yes, if"),
        ((ALPACAS,), True, "openai-terms", "yes, if"),
    ],
)
def test_openais_terms_forbid_tasks_of_every_kind_and_not_labels(
    shown: tuple[Parent, ...], are_labels: bool, terms: str, commercial: str
) -> None:
    teacher, *others = origin.parents_of("openai:gpt-4o", shown, are_labels=are_labels)
    assert (teacher.name, teacher.licence, tuple(others)) == ("openai:gpt-4o", terms, shown)
    assert licences.of_parents((teacher, *others)).commercial == commercial


def test_a_provider_s_terms_that_are_stated_of_a_gateway_forbid_the_same() -> None:
    for are_labels, licence in ((False, "google-assistant"), (True, "google-terms")):
        teacher, _ = origin.parents_of("http://gateway:4000/v1#x", (ALPACAS,), are_labels=are_labels, terms="google-terms")
        assert teacher.licence == licence


@pytest.mark.parametrize(("name", "source"), [("http://gateway:4000/v1#x", licences.STATED), ("https://api.openai.com/v1#gpt-4o", "")])
def test_tasks_of_every_kind_have_a_sidecar_that_reads_back_as_it_was_written(name: str, source: str, seeds: Path) -> None:
    shown = Parent(kind="teacher", name=name, licence="openai-terms", source=source)
    teacher, _, assistant = parents = origin.parents_of("fake:", (ALPACAS, shown), are_labels=False)
    assert (teacher.licence, assistant.licence) == ("unknown", "openai-assistant")
    with sidecar.saving(seeds, sha256="0" * 64, teacher="fake:", parents=parents, facts={}):
        pass
    assert (origin.of_file(seeds), origin.notes_of(seeds)) == (parents, ())


def test_terms_that_cannot_stand_in_are_called_as_they_were_given() -> None:
    with pytest.raises(UsageError, match="the terms are known, and `openai-terms` cannot stand in for them"):
        origin.parents_of("https://api.openai.com/v1#gpt-4o", (ALPACAS,), are_labels=False, terms="openai-terms")


def test_the_user_s_word_stands_in_for_terms_that_nomoat_cannot_know() -> None:
    server = "http://127.0.0.1:9/v1#m"
    (teacher,) = origin.parents_of(server, (), are_labels=True, terms="apache-2.0")
    assert (teacher.licence, teacher.source) == ("apache-2.0", "stated by the user")
    with pytest.raises(UsageError, match="no terms are called `apache2`"):
        origin.parents_of(server, (), are_labels=True, terms="apache2")
