"""Tuned adapters on this disk: a folder each, by name in NOMOAT_HOME/adapters, or anywhere by its path; or a LoRA in one GGUF file."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path
from typing import Any

from nomoat import paths
from nomoat.catalog import sidecar
from nomoat.errors import BadFileError, UnknownModelError
from nomoat.hub_folder import ADAPTER_CONFIG, read_object
from nomoat.textfiles import as_named
from nomoat.words import first_few

PROVENANCE = "provenance.json"  # what `nomoat tune` writes about an adapter, beside it

NAMED = 3  # in a message
MOST_NAMED = 12  # of all that are here, those that a mistyped name is near to first


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER_CONFIG).exists()


def adapters() -> list[Path]:
    """Those that are known by their name."""
    return sorted(path for path in paths.adapters().glob("[!.]*") if is_adapter(path))


def place_of(name: str) -> Path | None:
    """The folder of an adapter, by its name or its path (also `./NAME`, and below `paths.adapters()`), or the GGUF file; None if there
    is none."""
    try:
        known, lying = as_named(paths.adapters() / name), as_named(name)
        places = (known, lying) if Path(name).name == name else (lying, known)
        is_file = name.lower().endswith(".gguf")
        return next((place for place in places if is_adapter(place) or (is_file and place.is_file())), None)
    except OSError:  # such as for a name that is too long for a file
        return None


def with_its_base(name: str) -> str | None:
    """BASE+NAME, for the name of an adapter in NOMOAT_HOME; None if none is called so. BASE is said of one made elsewhere."""
    folder = next((folder for folder in adapters() if folder.name == name), None)
    if folder is None:
        return None
    base = ""
    with suppress(BadFileError):
        base = base_of(provenance_of(folder))
    return f"{base or 'BASE'}+{name}"


def find_adapter(name: str) -> Path:
    """As `place_of`. Raises UnknownModelError, naming what a file is of, what a folder of this name holds, or those that are here."""
    if (place := place_of(name)) is not None:
        return place
    if (around := _around(name)) is not None:
        raise UnknownModelError(f"`{name}` is one file of an adapter", hint=f"name its folder: `{around}`")
    if inside := [f"`{path}`" for path in _inside(name)]:
        raise UnknownModelError(f"`{name}` holds no adapter itself", hint=f"name one in it: {first_few(inside, NAMED)}")
    there = [path.name for path in adapters()]
    near = difflib.get_close_matches(name, there, n=NAMED, cutoff=0.5)
    first = first_few([*near, *(one for one in there if one not in near)], MOST_NAMED)
    known = f"adapters here: {first}" if there else "there are no adapters yet; `nomoat tune` makes one"
    raise UnknownModelError(f"no adapter `{name}`", hint=known)


def _around(name: str) -> Path | None:
    """The adapter that a file of this path is of, such as its weights; None if there is none."""
    try:
        file = as_named(name).absolute()
        return file.parent if file.is_file() and is_adapter(file.parent) else None
    except OSError:
        return None


def _inside(name: str) -> list[Path]:
    """The adapters of a folder of several, as PEFT saves what has more than one, by what they are named with."""
    try:
        folder = next((folder for folder in (paths.adapters() / name, as_named(name)) if folder.is_dir()), None)
        return [] if folder is None else sorted(Path(name) / path.name for path in folder.iterdir() if is_adapter(path))
    except OSError:
        return []


def provenance_of(adapter: Path) -> dict[str, Any]:
    """What `nomoat tune` wrote about an adapter, or `nomoat export` beside its file; empty for one that was made elsewhere.

    Raises BadFileError.
    """
    if adapter.is_file():
        return sidecar.told_of(adapter, paths.sha256_of)
    path = adapter / PROVENANCE
    return read_object(path, hint="tune the adapter again") if path.is_file() else {}


def base_of(provenance: dict[str, Any]) -> str:
    """The reference of the model an adapter was tuned beside; "" where it is not told."""
    return str(provenance.get("base") or "")


def question_of(provenance: dict[str, Any]) -> str | None:
    """What the texts of a table were asked with, see `labelling.put_question`; None for an adapter that learned otherwise."""
    question = _part(provenance, "data").get("question")
    return None if question is None else str(question)


def labels_of(provenance: dict[str, Any]) -> list[str]:
    """The labels of the tables an adapter was tuned on, from the first on; none if they were no tables, or held free answers."""
    return sorted({str(label) for name in ("data", "start") for label in _part(provenance, name).get("labels") or ()})


def instruction_of(provenance: dict[str, Any]) -> str | None:
    """The instruction of the last table an adapter was tuned on, where that was given."""
    parts = (_part(provenance, name) for name in ("task", "start"))
    return next((part["instruction"] for part in parts if part.get("instruction") is not None), None)


def template_of(provenance: dict[str, Any]) -> str | None:
    """The named chat template an adapter was tuned with; None for its model's own."""
    return _part(provenance, "task").get("template")


def _part(provenance: dict[str, Any], name: str) -> dict[str, Any]:
    """Empty where there is none: whoever made the adapter elsewhere may have written anything."""
    part = provenance.get(name)
    return part if isinstance(part, dict) else {}
