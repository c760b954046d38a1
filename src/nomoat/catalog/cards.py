"""The catalogue's cards, read from `models.toml` once and checked as they are read."""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cache
from importlib import resources
from typing import Any, get_args

from nomoat.errors import UnknownModelError
from nomoat.records import Confirmation, ModelCard, Parent, Source

ID = re.compile(r"[a-z0-9][a-z0-9.\-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
RELEASED = re.compile(r"20\d\d(-[01]\d(-[0-3]\d)?)?")


@cache
def cards() -> tuple[ModelCard, ...]:
    """Every card, in the order of the file. Raises ValueError if the file contradicts itself, which is a bug of ours."""
    text = resources.files("nomoat.catalog").joinpath("models.toml").read_text(encoding="utf-8")
    return parse_cards(text)


def parse_cards(text: str) -> tuple[ModelCard, ...]:
    """Cards from TOML: what a family says holds for each of its cards unless the card says otherwise."""
    found: dict[str, ModelCard] = {}
    for family in tomllib.loads(text)["family"]:
        shared = {name: value for name, value in family.items() if name != "card"}
        for row in family["card"]:
            card = _card({**shared, **row}, found)
            if card.id in found:
                raise ValueError(f"two cards are called {card.id}")
            found[card.id] = card
    return tuple(found.values())


def find(model_id: str) -> ModelCard | None:
    """The card of that id, or None."""
    return next((card for card in cards() if card.id == model_id), None)


def card(model_id: str) -> ModelCard:
    """The card of that id. Raises UnknownModelError, naming the nearest ones."""
    found = find(model_id)
    if found is None:
        raise UnknownModelError(f"no model is called `{model_id}`", hint=nearest_hint(model_id))
    return found


def nearest_hint(model_id: str) -> str:
    """What to try instead of an id that is not in the catalogue."""
    near = difflib.get_close_matches(model_id.lower(), [card.id for card in cards()], n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(f'`{name}`' for name in near)}? `nomoat models` lists all"
    return "`nomoat models` lists the models nomoat knows; a file is named by its path, or as hf:owner/repo/file.gguf"


def _card(row: dict[str, Any], bases: dict[str, ModelCard]) -> ModelCard:
    try:
        row["parents"] = tuple(_parent(parent, bases) for parent in row.get("parents", ()))
        row["sources"] = tuple(_source(source) for source in row.get("sources", ()))
        made = ModelCard(**row)
    except TypeError as exc:  # a key that is missing, or is none
        raise ValueError(f"models.toml, card {row.get('id')}: {exc}") from exc
    _require(ID.fullmatch(made.id) is not None, made, "an id is lower case letters, digits, dots and hyphens")
    _require(RELEASED.fullmatch(made.released) is not None, made, f"no date: {made.released}")
    _require(made.kind in ("open", "closed"), made, f"kind is {made.kind}")
    _require(made.kind == "open" or not made.sources, made, "a closed model has no sources")
    _require(made.kind == "closed" or made.parameters is not None, made, "an open model says how large it is")
    for name in ("parameters", "context_tokens", "layers", "kv_heads", "head_dim"):
        value = getattr(made, name)
        _require(value is None or (isinstance(value, int) and value > 0), made, f"{name} is {value}")
    for confirmed in (made.licence_confirmed, *(parent.confirmed for parent in made.parents)):
        _require(confirmed in get_args(Confirmation), made, f"terms are confirmed by {confirmed!r}")
    for parent in made.parents:
        _require(parent.kind in ("base", "data", "teacher"), made, f"the kind of {parent.name} is {parent.kind!r}")
    for source in made.sources:
        _require(source.sha256 is None or SHA256.fullmatch(source.sha256) is not None, made, "a sha256 has 64 hex digits")
        _require(source.size_bytes is None or source.size_bytes > 0, made, "a size is positive")
    return made


def _parent(row: dict[str, Any], bases: dict[str, ModelCard]) -> Parent:
    base = bases.get(row.get("name", "")) if row.get("kind") == "base" else None
    if base is None:
        return Parent(**row)
    return Parent(kind="base", name=base.id, licence=base.licence, source=base.licence_source, confirmed=base.licence_confirmed)


def _source(row: dict[str, Any]) -> Source:
    return Source(**{"file_name": row.get("url", "").rsplit("/", 1)[-1], **row})


def _require(holds: bool, made: ModelCard, why: str) -> None:
    if not holds:
        raise ValueError(f"models.toml, card {made.id}: {why}")
