"""`nomoat rm`: remove a pulled model or a tuned adapter."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from nomoat.cli import console


def rm(
    model: Annotated[
        str | None, typer.Argument(help="A pulled model, or BASE+ADAPTER for a tuned adapter.", show_default=False)
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Remove what can be made again: imported models and compiled kernels.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a pulled model, a tuned adapter (the base stays), or what can be made again.

    \b
    Examples:
      nomoat rm smollm2-135m
      nomoat rm smollm2-135m+reviews --yes
      nomoat rm --cache                 imported models, made again when they are needed
      nomoat models --pulled            what there is to remove

    With a model or an adapter goes what was imported of it. Imports that nobody has used for 30 days go by themselves.
    """
    from nomoat.errors import UsageError

    if cache == (model is not None):
        raise UsageError("name one thing to remove", hint="a model, BASE+ADAPTER, or --cache; `nomoat models --pulled` lists models")
    if model is None:
        _remove_cache(yes)
    else:
        _remove_model(model, yes)


def _remove_cache(yes: bool) -> None:
    from nomoat import cache

    _confirm(f"what can be made again, {_megabytes(cache.size())}", yes)
    console.say(f"cache: removed, {_megabytes(cache.clear())} free again")


def _remove_model(model: str, yes: bool) -> None:
    from nomoat import paths
    from nomoat.catalog import cards, pull
    from nomoat.cli.facts import adapter_folder
    from nomoat.engine import importer
    from nomoat.errors import UnknownModelError

    adapter = adapter_folder(model) if cards.find(model) is None else None
    installed = pull.find_installed(model) if adapter is None else None
    if adapter is None and installed is None and "+" in model and not model.startswith(("hf:", "https:")):
        raise UnknownModelError(f"no adapter is called `{model.rpartition('+')[2]}`", hint="adapters lie in NOMOAT_HOME/adapters")
    _confirm(f"the adapter in {adapter}" if adapter is not None else f"`{model}` from this disk", yes)
    made_of = adapter or installed
    freed = importer.forget(made_of) if made_of is not None else 0
    if adapter is None:
        freed += pull.remove(model)
    else:
        with paths.translate_disk_errors(adapter):
            shutil.rmtree(adapter)
    console.say(f"{model}: removed{f', {_megabytes(freed)} free again' if freed else ''}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _confirm(what: str, yes: bool) -> None:
    if not yes and console.has_person() and not typer.confirm(f"Remove {what}?", err=True):
        raise typer.Exit(1)
