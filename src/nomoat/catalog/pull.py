"""Models on this disk: pull, find, list, remove. A card's file lies in `models/ID/`, the hub's in `models/hf/OWNER/REPO/`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from nomoat import paths
from nomoat.catalog import cards
from nomoat.catalog.fetch import Progress, fetch, quiet
from nomoat.errors import NomoatError, OfflineError, UnknownModelError, UnsupportedError, UsageError
from nomoat.records import ModelCard, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model file on this disk. `ref` is what names it on the command line."""

    ref: str
    path: Path
    size_bytes: int


def pull_model(card_or_ref: ModelCard | str, *, force: bool = False, progress: Progress = quiet) -> Path:
    """Fetch a model's file, unless it is here already and `force` is not given, and return its path.

    A reference is a card's id, `hf:owner/repo/file.gguf` or `https://host/file.gguf`. Sources are tried in order; the last
    one's error is raised. Raises UnknownModelError, UnsupportedError (no file to pull) and what `fetch` raises.
    """
    found = None if force else find_installed(card_or_ref if isinstance(card_or_ref, str) else card_or_ref.id)
    if found is not None:
        return found
    sources = _sources(card_or_ref)
    folder = paths.models() / _folder(card_or_ref)
    for source in sources[:-1]:
        with suppress(NomoatError):
            return fetch(source, folder / source.file_name, purpose="pull a model", progress=progress)
    return fetch(sources[-1], folder / sources[-1].file_name, purpose="pull a model", progress=progress)


def find_installed(ref: str) -> Path | None:
    """Where the model of that reference lies, if it is pulled."""
    try:
        sources = _sources(ref)
    except NomoatError:
        return None
    for source in sources:
        path = paths.models() / _folder(ref) / source.file_name
        if path.is_file():
            return path
    return None


def installed() -> list[Installed]:
    """Every pulled model file."""
    return [Installed(ref=_ref(path), path=path, size_bytes=path.stat().st_size) for path in _files()]


def remove(ref: str) -> int:
    """Remove a pulled model, and what is left of a pull that was cut off. Returns the bytes that got free.

    Raises UnknownModelError if nothing of that name is here.
    """
    known = cards.find(ref) is not None or ref.partition(":")[0] in ("hf", "https")
    folder = paths.models() / _folder(ref) if known else None
    if folder is None or not folder.is_dir():
        here = ", ".join(f"`{model.ref}`" for model in installed())
        raise UnknownModelError(f"no model called `{ref}` is pulled", hint=f"pulled: {here}" if here else "nothing is pulled yet")
    doomed = [path for path in folder.iterdir() if path.is_file()]
    if not ref.startswith(tuple(f"{card.id}" for card in cards.cards() if card.id == ref)):  # a hub folder may hold other files
        name = _sources(ref)[0].file_name
        doomed = [path for path in doomed if path.name == name or path.name.startswith(f".{name}.part")]
    freed = sum(path.stat().st_size for path in doomed)
    for path in doomed:
        path.unlink()
    with suppress(OSError):  # not empty
        for parent in (folder, *folder.parents):
            if parent == paths.home():
                break
            parent.rmdir()
    return freed


def require_source(card: ModelCard) -> None:
    """Raise UnsupportedError or UsageError if there is no file of this model to pull."""
    if card.kind == "closed":
        ask = f"ask it as `{card.api}`" if card.api else card.notes or "it cannot be had"
        raise UsageError(f"`{card.id}` is a closed model: its weights were never published", hint=ask)
    if not card.sources:
        raise UnsupportedError(f"nomoat knows no GGUF file of `{card.id}`", hint=card.notes or "name a file as hf:owner/repo/file.gguf")
