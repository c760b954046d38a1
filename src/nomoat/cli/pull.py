"""`nomoat pull`: fetch models, after saying under which terms they come and what memory they need."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat import commands, footprint, paths, system_errors
from nomoat.cli import completion, console
from nomoat.errors import BadFileError, NomoatError
from nomoat.records import ModelCard

if TYPE_CHECKING:
    from nomoat.catalog import memory


def pull(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Card ids, hf:owner/repo, hf:owner/repo/file.gguf or https://host/file.gguf.",
            autocompletion=completion.models_to_pull,
            metavar="MODEL...",
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Pull what does not fit or cannot be run, and again what is here already.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to questions.")] = False,
) -> None:
    """Fetch models: licence and memory first, then the file or the folder, checked and whole.

    \b
    Examples:
      nomoat pull smollm2-135m
      nomoat pull qwen2.5-coder-0.5b smollm2-360m
      nomoat pull hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_S.gguf
      nomoat pull hf:HuggingFaceTB/SmolLM2-135M           # a folder of safetensors, as the hub has it
      NOMOAT_MIRROR=/mnt/models nomoat pull smollm2-135m      # an air-gapped site

    A pull that was cut off goes on where it stopped, if the server says which version of the file it has: run the same command
    again. The paths go to stdout, at the end.
    """
    here: list[Path] = []
    try:
        for ref in models:
            here.append(_made_sure_of(ref, force, yes))
    except BaseException:
        with suppress(OSError):  # why it ended is to be said, and not that stdout takes nothing
            _print(here)
        raise
    _print(here)  # at the end: a stdout that takes nothing ends no pull


def _print(here: Sequence[Path]) -> None:
    for path in here:
        console.print_text(str(path))


def _made_sure_of(ref: str, force: bool, yes: bool) -> Path:
    """Where it is, pulled if it is not here yet."""
    from nomoat import references
    from nomoat.catalog import cards
    from nomoat.catalog import pull as catalogue

    card = cards.find(ref)
    found = None if force else catalogue.find_installed(ref)
    damage = None if found is None else _damage(found)
    if damage is not None:
        console.say(f"{ref}: {damage}; it is pulled anew")
    elif found is not None:
        console.say(f"{ref}: here already")
        if card is None:
            _say_if_unusable(ref, found)
        return found
    references.require_weights(ref)
    catalogue.require_source(ref)
    _explain(ref, card)
    if card is not None and not force:
        _require_consent(card, yes)
    return _fetch(ref, force, is_damaged=damage is not None)


def _damage(found: Path) -> str | None:
    """Why what is here is not what the catalogue names; None for what is, and for what no card tells a sha256 of."""
    from nomoat.catalog import pull as catalogue
    from nomoat.engine import importer

    try:
        catalogue.require_as_published(found, importer.remembered_sha256)
    except BadFileError as exc:
        return exc.message
    return None


def _say_if_unusable(ref: str, path: Path) -> None:
    """Of what no card tells a sha256 of: that it was cut, is no model, or is none that runs here, as its own header tells."""
    from nomoat.engine.source import open_source

    try:
        open_source(path)
    except BadFileError as exc:
        console.say(f"note: {exc.message}; `{commands.as_line(['nomoat', 'pull', ref, '--force'])}` fetches it again")
    except NomoatError as exc:
        console.say(f"note: {exc.message}{f'; {exc.hint}' if exc.hint else ''}")
    except OSError as exc:
        console.say(f"note: `{path}` cannot be read: {exc.strerror or exc}")


def _explain(ref: str, card: ModelCard | None) -> None:
    from nomoat.catalog import licences, memory
    from nomoat.cli import model_facts

    if card is None:
        console.say(f"{ref}: not in the catalogue; commercial use: unknown; memory is known when it is here: `nomoat show {ref}`")
        return
    found = licences.chain(card)
    console.say(f"{card.title}: {licences.use_line(found)}")
    for text in licences.reasons(found):
        console.say(f"  {text}")
    need = memory.memory_need(card)
    if need is not None:
        console.say(f"memory: {model_facts.memory_line(need)}")
        _say_if_disk_is_short(card, need)
    if not model_facts.runs_here(card.architecture):
        console.say(f"engine: cannot run {card.architecture} yet")


def _say_if_disk_is_short(card: ModelCard, need: memory.MemoryNeed) -> None:
    """For what is still to come of the file, and what the first start writes, beside it or on another disk."""
    from nomoat.catalog import pull as catalogue

    size = max((source.size_bytes or 0 for source in card.sources), default=0)
    missing, later = max(0, size - catalogue.bytes_arrived(card.id)), footprint.import_bytes(need.weights_bytes)
    with suppress(OSError):  # of a disk that is not there, which the pull itself says
        free = system_errors.free_disk_bytes(paths.cache())
        now, then, there = map(paths.shown_size, (missing, later, free))
        if not system_errors.is_one_disk(paths.models(), paths.cache()):  # the file's own disk is looked at when it is fetched
            if free < later:
                console.say(f"note: the first start writes about {then}; the disk of `{paths.cache()}` has {there} free")
        elif size and free < missing + later:
            file = "the file" if missing == size else "the rest of the file"
            disk = f"the disk of `{paths.home()}` has {there} free"
            console.say(f"note: {file} takes {now}, and the first start writes about {then} more; {disk}")


def _require_consent(card: ModelCard, yes: bool) -> None:
    """Ask before a download that could not be run; without a terminal to ask on, refuse."""
    from nomoat.catalog import memory

    need = memory.memory_need(card)
    if yes or need is None or memory.fit(need).value != "does not fit":
        return
    if not console.has_person():
        memory.require_fit(card.id, need)
    if not typer.confirm("It does not fit into this machine. Pull it all the same?", err=True):
        raise typer.Exit(1)


def _fetch(ref: str, force: bool, *, is_damaged: bool) -> Path:
    from nomoat.catalog import pull as catalogue

    with console.download_bar(ref) as progress:
        try:
            path = catalogue.pull_model(ref, force=force or is_damaged, progress=progress, look_at=None if force else _require_known)
        except KeyboardInterrupt:
            console.say("stopped; run the same command again to go on")
            raise typer.Exit(console.STOPPED_EXIT) from None
    console.say(f"{ref}: pulled, {paths.shown_size(catalogue.size_bytes(path))}")
    return path


def _require_known(config: dict[str, Any]) -> None:
    """Refuse a folder that could not be run, before its weights are fetched."""
    from nomoat.engine import optimum, safetensors

    if not optimum.is_installed():
        safetensors.require_known(config)
