"""The catalogue's cards, read from `models.toml` once. Whether they can be is for tests."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Any

from nomoat.errors import UnknownModelError
from nomoat.records import ModelCard, Parent, Source


@cache
def cards() -> tuple[ModelCard, ...]:
    """Every card, in the order of the file."""
    text = resources.files("nomoat.catalog").joinpath("models.toml").read_text(encoding="utf-8")
    return parse_cards(text)


def parse_cards(text: str) -> tuple[ModelCard, ...]:
    """Cards from TOML: what a family says holds for each of its cards unless the card says otherwise."""
    found: dict[str, ModelCard] = {}
    for family in tomllib.loads(text)["family"]:
        shared = {name: value for name, value in family.items() if name != "card"}
        for row in family["card"]:
            card = _card({**shared, **row}, found)
            found[card.id] = card
    return tuple(found.values())


def find(model_id: str) -> ModelCard | None:
    """The card of that id, or None."""
    return next((card for card in cards() if card.id == model_id), None)


def find_by_file(name: str) -> ModelCard | None:
    """The first card that is pulled as a file of that name, or None. The name alone says so: nothing is read."""
    return next((card for card in cards() if name in {source.file_name for source in card.sources}), None)


def card(model_id: str) -> ModelCard:
    """The card of that id. Raises UnknownModelError, naming the nearest ones."""
    found = find(model_id)
    if found is None:
        raise UnknownModelError(f"no model is called `{model_id}`", hint=nearest_hint(model_id))
    return found


def nearest_hint(model_id: str) -> str:
    """What to try instead of an id that is not in the catalogue."""
    from nomoat.catalog import tuned

    if (whole := tuned.with_its_base(model_id)) is not None:
        return f"that is an adapter: write `{whole}`"
    near = difflib.get_close_matches(model_id.lower(), [card.id for card in cards()], n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(f'`{name}`' for name in near)}? `nomoat models` lists all"
    return "`nomoat models` lists the models nomoat knows; a file is named by its path, or as hf:owner/repo/file.gguf"


def _card(row: dict[str, Any], bases: dict[str, ModelCard]) -> ModelCard:
    parents = tuple(_parent(parent, bases) for parent in row.get("parents", ()))
    sources = tuple(_source(source) for source in row.get("sources", ()))
    return ModelCard(**{**row, "parents": parents, "sources": sources})


def _parent(row: dict[str, Any], bases: dict[str, ModelCard]) -> Parent:
    base = bases.get(row.get("name", "")) if row.get("kind") == "base" else None
    if base is None:
        return Parent(**row)
    return Parent(kind="base", name=base.id, licence=base.licence, source=base.licence_source, confirmed=base.licence_confirmed)


def _source(row: dict[str, Any]) -> Source:
    return Source(**{"file_name": row.get("url", "").rsplit("/", 1)[-1], **row})
