"""`nomoat models`: the catalogue, with the licence verdict and the memory need of each model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nomoat import paths
from nomoat.cli import console, options


def models(
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only those that may be used commercially, conditions or not.")
    ] = False,
    fits: Annotated[bool, typer.Option("--fits", help="Only open models that fit into this machine's memory now.")] = False,
    is_open: Annotated[
        bool | None, typer.Option("--open/--closed", help="Only open, or only closed models.", show_default=False)
    ] = None,
    pulled: Annotated[bool, typer.Option("--pulled", help="Only what is on this disk.")] = False,
    context: options.ContextToPlan = None,
    as_json: options.AsJson = False,
) -> None:
    """List models: size, licence verdict, memory need, and whether they are here.

    \b
    Examples:
      nomoat models --fits --commercial       # what I may use and can run
      nomoat models --pulled
      nomoat models -c 32768 --open
      nomoat models --closed --json

    What was pulled besides the catalogue comes behind it, and then the adapters tuned here, as BASE+NAME.

    Memory is an estimate for this engine, which keeps a file's own codes where this CPU and the model's family allow it, and int8
    elsewhere. A * marks a verdict that rests on terms nobody has checked yet; `nomoat show MODEL` gives the reasons and sources.
    """
    from nomoat import cache
    from nomoat.catalog import cards, pull, tuned
    from nomoat.cli.model_facts import adapter_facts, card_facts, card_need, pulled_facts

    others = (model for model in pull.installed() if cards.find(model.ref) is None)
    rows = [
        *(card_facts(card, card_need(card, context)) for card in cards.cards()),
        *(pulled_facts(model, context) for model in others),
    ]
    rows += [adapter_facts(folder, rows) for folder in tuned.adapters()]
    here = [row["id"] for row in rows if row["pulled"] is not None]
    rows = [
        row
        for row in rows
        if (not commercial or row["licence"]["commercial"] not in ("no", "unknown"))
        and (not fits or (row["memory"] is not None and row["memory"]["fits"] == "fits"))
        and (is_open is None or (row["kind"] != "closed") == is_open)
        and (not pulled or row["pulled"] is not None)
    ]
    if as_json:
        console.print_json(rows)
        return
    if not rows:
        is_empty = pulled and not here
        console.say("nothing is pulled yet: `nomoat pull smollm2-135m`" if is_empty else "no model is like that")
        return
    _print(rows)
    if any(_is_unconfirmed(row) for row in rows):
        console.say("* rests on terms not confirmed: `nomoat show MODEL`")
    if pulled and (kept := cache.size()):
        console.say(f"cache: {paths.shown_size(kept)} that can be made again; `nomoat rm --cache` removes it")


def _print(rows: list[dict[str, Any]]) -> None:
    from nomoat.cli.model_facts import parameters

    columns = {
        "MODEL": [row["id"] for row in rows],
        "PARAMETERS": [parameters(row["parameters"]) for row in rows],
        "COMMERCIAL USE": [row["licence"]["commercial"] + ("*" if _is_unconfirmed(row) else "") for row in rows],
        "MEMORY": [_memory(row) for row in rows],
        "HERE": [_here(row) for row in rows],
    }
    broken = ("HERE", "COMMERCIAL USE", "MEMORY")
    console.print_rows(console.wide_out(), columns, num_heads=1, broken=broken, numbers=("PARAMETERS",))


def _memory(row: dict[str, Any]) -> str:
    """What a model needs, and whether that is there; of one that is elsewhere, by whose API it is asked."""
    need = row["memory"]
    if need is not None:
        return f"{need['total_bytes'] / 1e9:.1f} GB, {need['fits']}"
    return row["api"] or "gone" if row["kind"] == "closed" else "unknown"


def _here(row: dict[str, Any]) -> str:
    """Whether a model is on this disk, and what is in the way of that or of running it."""
    if row["kind"] == "adapter":
        made = f"tuned {(row['made'] or '')[:10]}".strip() + f", {paths.shown_size(row['size_bytes'])}"
        return f"{made} (cannot be read)" if row["notes"] else made
    here = ""
    if row["pulled"]:
        here = "pulled"
    elif row["kind"] != "closed" and not row["sources"]:
        here = "no file"
    elif row["sources"] and all(source.is_mirrors_only for source in row["sources"]):
        here = "mirror only"
    if row["kind"] == "open" and row["sources"] and not row["runs_here"]:
        why = f"engine lacks {row['architecture']}" if row["architecture"] else "cannot be read"
        here = f"{here} ({why})".strip()
    return here


def _is_unconfirmed(row: dict[str, Any]) -> bool:
    return any(link["confirmed"] != "read" for link in row["licence"]["links"])
