"""`nomoat rm`: remove a pulled model or a tuned adapter."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nomoat.cli import console


def rm(
    model: Annotated[str, typer.Argument(help="A pulled model, or BASE+ADAPTER for a tuned adapter.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a pulled model, or a tuned adapter (the base stays).

    \b
    Examples:
      nomoat rm smollm2-135m
      nomoat rm smollm2-135m+reviews --yes
      nomoat models --pulled            what there is to remove
    """
    from nomoat import paths
    from nomoat.catalog import cards, pull
    from nomoat.cli.facts import adapter_folder
    from nomoat.errors import UnknownModelError

    adapter = adapter_folder(model) if cards.find(model) is None else None
    if adapter is None and pull.find_installed(model) is None and "+" in model and not model.startswith(("hf:", "https:")):
        raise UnknownModelError(f"no adapter is called `{model.rpartition('+')[2]}`", hint="adapters lie in NOMOAT_HOME/adapters")
    if not yes and sys.stdin.isatty():
        what = f"the adapter in {adapter}" if adapter is not None else f"`{model}` from this disk"
        if not typer.confirm(f"Remove {what}?", err=True):
            raise typer.Exit(1)
    if adapter is None:
        console.say(f"{model}: removed, {pull.remove(model) / 1e6:,.0f} MB free again")
        return
    import shutil

    with paths.translate_disk_errors(adapter):
        shutil.rmtree(adapter)
    console.say(f"{model}: removed")
