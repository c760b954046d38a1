"""Data sets nomoat can fetch: each file pinned by its sha256."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nomoat import paths
from nomoat.catalog.fetch import fetch
from nomoat.errors import UnknownModelError
from nomoat.progress import FileProgress, quiet
from nomoat.records import Confirmation, Parent, Source

SEEDS = "alpaca-seeds"  # tasks of every kind: what a model makes of them trains a general assistant


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set: what it is, under which terms, and its files. A file's `file_name` is its path inside the folder.

    `licence_confirmed`: "read" if it was seen in its source that the terms are those of these files, else "memory".
    """

    name: str
    title: str
    licence: str
    licence_source: str
    citation: str
    notes: str
    files: tuple[Source, ...]
    licence_confirmed: Confirmation = "read"

    @property
    def parent(self) -> Parent:
        """It, as what a model learned from."""
        return Parent(kind="data", name=self.name, licence=self.licence, source=self.licence_source, confirmed=self.licence_confirmed)


@cache
def datasets() -> dict[str, Dataset]:
    """Every data set of the catalogue by name."""
    text = resources.files("nomoat.catalog").joinpath("datasets.toml").read_text(encoding="utf-8")
    return {name: _parse(name, row) for name, row in tomllib.loads(text).items()}


def dataset(name: str) -> Dataset:
    """The data set of that name. Raises UnknownModelError, naming the nearest ones."""
    known = datasets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
        raise UnknownModelError(f"no data set is called `{name}`", hint=f"did you mean {', '.join(f'`{n}`' for n in near)}?")
    return known[name]


def holding(sha256: str) -> Dataset | None:
    """The data set that has a file with this sha256; None for a file that is not the catalogue's, or no longer as it was there."""
    return next((found for found in datasets().values() if any(file.sha256 == sha256 for file in found.files)), None)


def dataset_files(name: str) -> dict[str, Path]:
    """Where each file of a data set lies once it is pulled, by its path inside the folder."""
    folder = paths.data() / name
    return {source.file_name: folder / source.file_name for source in dataset(name).files}


def pull_dataset(name: str, *, progress: FileProgress = quiet) -> Path:
    """Fetch what is missing of a data set, or has another size than it should, and return its folder.

    Raises UnknownModelError, and what `fetch` raises.
    """
    targets = dataset_files(name)
    for source in dataset(name).files:
        target = targets[source.file_name]
        if not target.is_file() or source.size_bytes not in (None, target.stat().st_size):
            # A mirror may hold the file under its sha256, or as `vicuna80/question.jsonl`.
            fetch(replace(source, file_name=f"{name}/{source.file_name}"), target, purpose="pull a data set", progress=progress)
    return paths.data() / name


def where_from(name: str) -> str:
    """In a word or two, where a data set is had from."""
    url = dataset(name).files[0].url
    if url.startswith("mirror:"):
        return "a mirror only"
    if url.startswith("pypi:"):
        return url.partition("==")[0]
    parts = urlsplit(url)
    if parts.hostname == "raw.githubusercontent.com":
        return f"github:{'/'.join(parts.path.split('/')[1:3])}"
    return str(parts.hostname)


def _parse(name: str, row: dict[str, Any]) -> Dataset:
    files = tuple(Source(file_name=entry.pop("path"), **entry) for entry in row.pop("files"))
    return Dataset(name=name, files=files, **row)
