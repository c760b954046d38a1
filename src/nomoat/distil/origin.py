"""What the data of a teacher is made from: whose terms bind whatever learns from it (`catalog.licences.of_parents`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nomoat import references, textfiles
from nomoat.catalog import licences, sidecar
from nomoat.catalog.datasets import SEEDS, dataset, pull_dataset
from nomoat.distil import alpaca
from nomoat.distil.instructions import SEEDS_FILE, Seeds, read_seeds
from nomoat.records import Parent


def load_seeds(path: str | Path | None = None) -> tuple[Seeds, tuple[Parent, ...]]:
    """The tasks that are shown, Alpaca's unless a file is named, and what the result is made from where it is made from them.

    Alpaca's are known under any name, and edited; what a model wrote is nobody's own.
    Raises what `read_seeds` and `pull_dataset` raise.
    """
    known = dataset(SEEDS)
    alpacas = known.parent
    if path is None:
        return read_seeds(pull_dataset(known.name) / SEEDS_FILE, name=known.name), (alpacas,)
    path = textfiles.as_named(path)
    found, origin = read_seeds(path), of_file(path)
    if found.sha256 in {source.sha256 for source in known.files}:
        return replace(found, name=known.name), (alpacas, *origin)
    own = () if origin else (Parent(kind="data", name=found.name, licence="own"),)
    return found, (*own, *([alpacas] if alpaca.are_mostly_alpacas(found.tasks) else []), *origin)


def of_file(path: str | Path) -> tuple[Parent, ...]:
    """What a file of the user's was made from, where a model wrote it."""
    beside = sidecar.find(textfiles.as_named(path))
    return () if beside is None else beside.parents


def notes_of(path: str | Path) -> tuple[str, ...]:
    """Where the terms that are written beside a file are not those that are known now."""
    beside = sidecar.find(textfiles.as_named(path))
    return () if beside is None else beside.notes


def parents_of(teacher: str, origin: Sequence[Parent], *, are_labels: bool, terms: str | None = None) -> tuple[Parent, ...]:
    """What tasks or labels are made from: the teacher that this model reference names, with all it was made from, and the `origin` of
    what it was shown. `terms`: the user's word for those of a teacher that nomoat does not know.

    Tasks of every kind, which Alpaca's seeds and what came of them are, train an assistant, which terms of providers forbid, also of
    those that wrote what was shown.
    Raises UsageError for terms that nomoat knows already, or that have no entry in its catalogue.
    """
    name = references.shown_name(teacher)
    found = licences.taught_by(name, references.licence_chain(teacher))
    if terms is not None:
        found = licences.with_stated(found, terms)
    parents = (*found, *origin)
    return licences.for_assistant(parents) if not are_labels and any(parent.name == SEEDS for parent in origin) else parents
