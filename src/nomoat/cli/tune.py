"""`nomoat tune`: fine-tune a base model on a file, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import console
from nomoat.errors import MissingExtraError

if TYPE_CHECKING:
    from nomoat.tune.train import Progress


def tune(
    base: Annotated[str, typer.Argument(help="Model to start from: a card's name or a .gguf file.")],
    data: Annotated[Path, typer.Argument(help="CSV or TSV with a text and a label, or chat JSONL.")],
    name: Annotated[str, typer.Option("--name", help="The adapter's name: BASE+NAME will answer.")],
    input_column: Annotated[str | None, typer.Option(help="Column of the texts (tables).")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels (tables).")] = None,
    instruction: Annotated[str | None, typer.Option(help="Words before each text, instead of the default ones (tables).")] = None,
    data_licence: Annotated[str, typer.Option(help="Terms of the data, as `nomoat show` names them.")] = "own",
    minutes: Annotated[float | None, typer.Option(help="Stop learning after this time, if the epochs are not done before.")] = None,
    epochs: Annotated[float, typer.Option(help="How often every lesson is seen.")] = 2.0,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.")] = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 8e-4,
    seed: Annotated[int, typer.Option(help="Seed of the order and of the fresh adapter.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted training.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the adapter of this name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the adapter's provenance for machines.")] = False,
) -> None:
    """Fine-tune a model on your data; nothing leaves this machine.

    \b
    Examples:
      nomoat tune smollm2-135m reviews.csv --input-column text --label-column label --name reviews
      nomoat tune smollm2-135m chats.jsonl --name support --minutes 10
      nomoat tune smollm2-135m chats.jsonl --name support --resume
      nomoat run smollm2-135m+support "My parcel is late"

    The adapter's folder holds the weights as PEFT names them, and provenance.json: what it was made from, and its licence.
    """
    try:
        from nomoat.tune import train
    except ModuleNotFoundError as exc:
        raise MissingExtraError(extra="tune", what="`nomoat tune`") from exc

    settings = train.Settings(rank=rank, learning_rate=learning_rate, epochs=epochs, minutes=minutes, seed=seed)
    folder = tune_with_bar(
        base, data, name=name, settings=settings, input_column=input_column, label_column=label_column,
        instruction=instruction, data_licence=data_licence, resume=resume, replace=replace,
    )  # fmt: skip
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    if as_json:
        console.print_json(provenance)
        return
    metrics = provenance["metrics"]
    before, after = metrics["validation_loss_before"], metrics["validation_loss_after"]
    if before is not None:
        console.say(f"loss on {metrics['validation_lessons']} lessons held out: {before:.3f} before, {after:.3f} after")
        if after >= before:
            console.say("it has learned nothing that helps there: try a lower --learning-rate, or more data")
    console.say(f"wrote {folder}")
    console.say(f'try it: nomoat run {base}+{name} "..."')


def tune_with_bar(base: str, data: Path, *, name: str, resume: bool = False, **arguments: Any) -> Path:
    """Tune with a bar on stderr: stage, part done, loss, time left; in a log a line every tenth. Ctrl-C says how to go on."""
    from nomoat.tune import adapter, train

    with console.stage_progress() as bar:
        task = bar.add_task("loading", total=None, info="")
        shown = ("", -1)

        def show(progress: Progress) -> None:
            nonlocal shown
            info = f"step {progress.step:,}, loss {progress.loss:.3f}" if progress.step else ""
            stage, tenths = shown
            if progress.stage != stage:
                bar.reset(task, description=progress.stage, total=1.0)
            bar.update(task, completed=progress.fraction, info=info)
            if progress.stage != stage or int(10 * progress.fraction) > tenths:
                shown = (progress.stage, int(10 * progress.fraction))
                if bar.disable:
                    console.say(f"{progress.stage}: {progress.fraction:.0%}{', ' if info else ''}{info}")

        try:
            return train.tune(base, data, name=name, resume=resume, on_progress=show, on_message=bar.console.print, **arguments)
        except KeyboardInterrupt:
            bar.stop()
            resumable = adapter.can_resume(name)
            console.say(
                "stopped; the same command with --resume goes on from here" if resumable else "stopped before anything was learned"
            )
            raise
