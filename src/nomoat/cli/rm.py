"""`nomoat rm`: remove pulled models, tuned adapters, what can be made again, or stored answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from nomoat import paths, system_errors, whole_files
from nomoat.cli import completion, console
from nomoat.errors import DamagedError, IncompleteError, NotEnoughDiskError, UnknownModelError, UsageError
from nomoat.words import counted

WHILE_TUNED = "end that, or wait for it"
END_OTHERS = "end every nomoat that asks models first"


def rm(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Pulled models, or BASE+ADAPTER for a tuned adapter.",
            autocompletion=completion.models_here,
            metavar="[MODEL...]",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Remove what can be made again: imported models and compiled kernels.")
    ] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="Remove all that models were asked and answered in eval, duel, tune and distil.")
    ] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Remove stored answers that cannot be read any more, and save the others.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask. Where there is no terminal to ask on, all but --cache needs it.")
    ] = False,
) -> None:
    """Remove pulled models, tuned adapters (the base stays), caches, or stored answers.

    \b
    Examples:
      nomoat rm smollm2-135m gemma3-270m      # in this order; it ends at the first that cannot be removed
      nomoat rm smollm2-135m+reviews --yes
      nomoat rm --cache                 # imported models, made again when they are needed
      nomoat rm --answers               # every stored question and answer, and its score
      nomoat rm --damaged               # those that a disk has changed, and no others
      nomoat models --pulled            # what there is to remove

    With a model or an adapter goes what was imported of it, with an adapter what an interrupted training left. Imports that nobody has
    used for 30 days go by themselves.

    Without stored answers, `stored:` models have none, `route learn` has nothing to learn from, and what is asked again is computed,
    and paid for, again. A suite of yours is removed by `nomoat suites rm`. A learned router stays, with fragments
    of prompts: its folder is NOMOAT_HOME/router.
    """
    if cache + answers + damaged + bool(models) != 1:
        hint = "`nomoat models --pulled` lists models and adapters"
        kind = UsageError if models or cache or answers or damaged else IncompleteError
        raise kind("name models to remove, or one of --cache, --answers and --damaged", hint=hint)
    if models:
        for model in models:
            _remove_model(model, yes)
    elif cache:
        _remove_cache(yes)
    elif damaged:
        _remove_damaged(yes)
    else:
        _remove_answers(yes)


def _remove_cache(yes: bool) -> None:
    from nomoat import cache

    if console.has_person():  # a script loses nothing by it
        console.confirm_removal(f"what can be made again, {paths.shown_size(cache.size())}", yes=yes)
    for link in cache.links():
        console.say(f"`{link}` leads to `{link.resolve()}`, which another home may use: left alone")
    console.say(f"cache: removed, {paths.shown_size(cache.clear())} free again")


def _remove_answers(yes: bool) -> None:
    from nomoat.asking.database import beside
    from nomoat.asking.store import AnswerStore, damaged_files, default_path
    from nomoat.route import learned

    path = paths.led_to(default_path())
    if not path.exists() and not damaged_files(path):
        console.say("answers: none are stored")
        return
    console.confirm_removal(f"all stored answers, {paths.shown_size(_size(path))}", yes=yes)
    before = _size(path)
    try:
        with AnswerStore() as store:
            counts = " and ".join(map(counted, store.forget(), ("answer", "outcome")))
    except DamagedError:
        console.confirm_removal(f"the damaged file of them ({END_OTHERS})", yes=yes)
        counts = "with a damaged file"
        for file in (path, *beside(path)):
            file.unlink(missing_ok=True)
    except NotEnoughDiskError as error:  # that takes some room first; perhaps it is the answers that fill the disk
        files = f"`{path}`, `{path.name}-wal` and `{path.name}-shm`"
        hint = f"free some 100 kB or more, or end every nomoat and delete the files in which all answers are: {files}"
        raise NotEnoughDiskError(error.message, hint=hint) from error
    for old in damaged_files(path):
        old.unlink(missing_ok=True)
    freed = paths.shown_size(max(0, before - _size(path)))
    console.say(f"answers: removed, {counts}, {freed} free again")
    if (router := learned.folder()).exists():
        console.say(f"`{router}` stays: the learned router, with fragments of the prompts it learned from")


def _remove_damaged(yes: bool) -> None:
    from nomoat.asking.store import AnswerStore, default_path, save_readable

    if not default_path().exists():
        console.say("answers: none are stored")
        return
    num = 0
    try:
        with AnswerStore() as store:
            if yes or store.num_damaged():
                _confirm_damaged(yes)
                num = store.forget_damaged()
    except DamagedError:
        _confirm_damaged(yes)
        saved = save_readable()
        lost = f"about {saved.num_lost_rows:,} of its rows could not be read" if saved.num_lost_rows else "no row is known to be lost"
        console.say(
            f"answers: saved, {counted(saved.num_answers, 'answer')} and {counted(saved.num_outcomes, 'outcome')} of a damaged file; "
            f"{lost}; it is kept as `{saved.old}` until you remove it"
        )
        return
    if not num:
        console.say("answers: all can be read")
        return
    again = f"asked for again, {'it is' if num == 1 else 'they are'} computed, and paid for, again"
    console.say(f"answers: removed, {num:,} that could not be read; {again}")


def _confirm_damaged(yes: bool) -> None:
    console.confirm_removal(f"stored answers that cannot be read ({END_OTHERS})", yes=yes)


def _size(database: Path) -> int:
    """With what SQLite has beside it, which comes and goes, and what is left of damaged ones."""
    from nomoat.asking.store import damaged_files

    size = 0
    for path in {*database.parent.glob(f"{database.name}*"), *damaged_files(database)}:
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _remove_model(model: str, yes: bool) -> None:
    from nomoat import references
    from nomoat.catalog import cards, pull
    from nomoat.cli.model_facts import adapter_place
    from nomoat.engine import importer
    from nomoat.tune.adapter import alone_with

    place = adapter_place(model) if cards.find(model) is None else None
    folders = [] if place is None else _of_adapter(place)
    installed = None if folders else pull.find_installed(model)
    if not folders and installed is None and "+" in model and not model.startswith(references.BY_ADDRESS):
        if place is not None:
            with alone_with(place, hint=WHILE_TUNED):  # a training that has no checkpoint yet has no folder
                pass
        raise UnknownModelError(f"no adapter is called `{references.parted(model)[1]}`", hint="adapters lie in NOMOAT_HOME/adapters")
    if not folders:
        pull.require_here(model)
    _require_not_tuned_on(model, installed)
    console.confirm_removal(f"the adapter in {' and '.join(map(str, folders))}" if folders else f"`{model}` from this disk", yes=yes)
    _require_not_tuned_on(model, installed)  # a training may have begun while somebody was asked
    if place is not None and folders:
        freed = _remove_adapter(place, folders)
    else:
        freed = pull.remove(model, first=lambda: importer.forget(installed) if installed is not None else 0)
    console.say(f"{model}: removed{f', {paths.shown_size(freed)} free again' if freed else ''}")


def _require_not_tuned_on(model: str, installed: Path | None) -> None:
    from nomoat.tune.adapter import tuned_on

    if installed is not None and (names := tuned_on(installed)):
        raise UsageError(f"`{names[0]}` is being tuned on `{model}` right now", hint=WHILE_TUNED)


def _remove_adapter(place: Path, folders: Sequence[Path]) -> int:
    """And what was imported with it. Returns the bytes that got free. Raises UsageError while it is being tuned."""
    from nomoat.engine import importer
    from nomoat.tune.adapter import alone_with

    with alone_with(place, hint=WHILE_TUNED), system_errors.translate_disk_errors(place, to="remove"):
        freed = importer.forget(folders[0])
        freed += sum(paths.bytes_below(folder) for folder in folders if not folder.is_symlink())
        for folder in folders:
            whole_files.remove_folder(folder)
    return freed


def _of_adapter(place: Path) -> list[Path]:
    """What is here of an adapter: its folder, or a link to one, and what is left of an interrupted training of it."""
    from nomoat.tune.adapter import checkpoint_folder

    return [path for path in (place, checkpoint_folder(place)) if path.is_dir() or path.is_symlink()]
