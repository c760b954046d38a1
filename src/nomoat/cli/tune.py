"""`nomoat tune`: fine-tune a base model on a file, on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat import commands, paths, system_errors
from nomoat.cli import completion, console, options
from nomoat.errors import NomoatError, UsageError

if TYPE_CHECKING:
    from nomoat.catalog.licences import ChainVerdict
    from nomoat.tune.estimate import Estimate
    from nomoat.tune.loop import StageProgress
    from nomoat.tune.prepare import Prepared

LONGEST_EXAMPLE = 80  # characters of a text that stands in a command
MOST_LOOKED_AT = 100  # texts, for one without personal data
SECONDS_SHOWN = 100  # and more are said in minutes
GOES_ON = "the same command with --resume goes on from here"

DATA = "CSV or TSV with a text and a label; or OpenAI chats, ShareGPT, Alpaca or prompts with completions as JSON(L)."
TEST = "A file whose texts must not be learned: those in both are dropped."
VALIDATION = "A file of lessons to hold out; without it a part of the data is."
INSTRUCTION = "Words before each text, or with {text} in them all that is asked, instead of the default ones (tables)."
DATA_LICENCE = "Terms of the data, such as cc-by-4.0; yours (`own`) if not given, but for files of known data sets."
SEED = "Seed of order and adapter: the same bits without --minutes, computed the same way."
Base = Annotated[
    str,
    typer.Argument(
        help="Where to start: a card's name, a .gguf file, a Hugging Face folder, or BASE+NAME.",
        autocompletion=completion.models_here,
    ),
]
Data = Annotated[Path, typer.Argument(help=DATA, callback=options.as_named)]
TestFile = Annotated[Path | None, typer.Option(help=TEST, callback=options.as_named)]
ValidationFile = Annotated[Path | None, typer.Option(help=VALIDATION, callback=options.as_named)]


def tune(
    base: Base,
    data: Data,
    name: Annotated[str, typer.Option("--name", help="The adapter's name: BASE+NAME will answer.")] = "",
    input_column: options.InputColumn = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels (tables).")] = None,
    instruction: Annotated[str | None, typer.Option(help=INSTRUCTION)] = None,
    test: TestFile = None,
    keep_shared: Annotated[bool, typer.Option("--keep-shared", help="Learn also what stands in the --test file.")] = False,
    validation: ValidationFile = None,
    template: options.Template = None,
    drop_long: Annotated[bool, typer.Option("--drop-long", help="Leave out lessons longer than the model's context.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the data is like and what it will take, and stop.")] = False,
    data_licence: Annotated[str | None, typer.Option(help=DATA_LICENCE, show_default=False)] = None,
    minutes: Annotated[float | None, options.above_zero("Be done after this time, if the epochs take longer.")] = None,
    epochs: Annotated[float | None, options.above_zero("How often a lesson is seen, on average; by their number if not given.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of the adapter; 16 if not given.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Upper layers that learn; half of them if not given.")] = None,
    learning_rate: Annotated[float | None, options.above_zero("Highest learning rate; by the model's width if not given.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Lessons a step; by the number of lessons if not given.")] = None,
    noise: Annotated[float | None, options.above_zero("NEFTune's noise on the words, 5 to 15, where all --layers learn.")] = None,
    seed: Annotated[int, typer.Option(min=0, help=SEED)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted training's state, if there is one.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Learn with this many processes, by Ray.")] = None,
    ray: options.RayAddress = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the adapter of this name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the adapter's provenance for machines.")] = False,
) -> None:
    """Fine-tune a model on your data; nothing leaves this machine, or the cluster that --ray names.

    \b
    Examples:
      nomoat tune smollm2-135m reviews.csv --input-column text --label-column label --name reviews
      nomoat tune smollm2-135m reviews.csv --input-column text --label-column label --test test.csv --dry-run
      nomoat tune smollm2-135m chats.jsonl --name support --minutes 10
      nomoat tune smollm2-135m chats.jsonl --name support --minutes 10 --resume     # after Ctrl-C
      nomoat tune smollm2-135m+support more.jsonl --name support2     # goes on from what `support` has learned
      nomoat tune smollm2-135m chats.jsonl --name support --ray auto     # a cluster's machines learn, each its part of a step
      nomoat tune bloom-560m chats.jsonl --name support --template vicuna_v1.1     # a base model, which has no chat template
      nomoat run smollm2-135m+support "My parcel is late"
      nomoat run smollm2-135m+reviews --as-tuned "It broke after a day"     # about a text, as its table was asked

    The adapter's folder holds the weights as PEFT names them, a plot where lessons were held out, and provenance.json: what it
    was made from, and its licence.
    """
    from nomoat.catalog import tuned
    from nomoat.tune import prepare

    if not dry_run:
        _reserve(name, replace=replace, resume=resume)
    settings = prepare.Settings(
        rank=rank, layers=layers, learning_rate=learning_rate, epochs=epochs, batch=batch, minutes=minutes, noise=noise, seed=seed
    )
    with console.waiting(f"reading {data.name}") as progress:
        prepared = prepare.prepare(
            base, data, input_column=input_column, label_column=label_column, instruction=instruction, test=test,
            keep_shared=keep_shared, validation=validation, drop_long=drop_long, template=template, data_licence=data_licence,
            settings=settings, progress=progress,
        )  # fmt: skip
    say_survey(prepared)
    if dry_run:
        _say_what_it_takes(prepared, workers, ray, as_json=as_json)
        return
    if workers in (None, 1) and ray is None:  # what others learn is not timed
        _say_time_ahead(prepared, name, resume=resume)
    folder = learn_with_bar(prepared, name=name, resume=resume, replace=replace, workers=workers, ray=ray)
    if as_json:
        console.print_json(tuned.provenance_of(folder))
        return
    _say_how_to_ask(prepared, folder)


def _reserve(name: str, *, replace: bool, resume: bool) -> None:
    """As `adapter.reserve`; refuse an adapter without a name, too."""
    from nomoat.tune import adapter

    if not name:
        raise UsageError("the adapter needs a name", hint="give --name, or --dry-run to look at the data only")
    adapter.reserve(name, replace=replace, resume=resume)


def say_survey(prepared: Prepared) -> None:
    """What the data is like."""
    from nomoat.tune import surveying

    for line in surveying.survey_lines(prepared):
        console.say(line)


def say_terms(found: ChainVerdict) -> None:
    """What the result may be used for, and why not, or under which conditions."""
    from nomoat.catalog import licences

    for line in licences.verdict_lines(found):
        console.say(line)


def _say_how_to_ask(prepared: Prepared, folder: Path) -> None:
    """Where it is, and a command to try it with: of a table, about a text of it and about another table, and the words for whoever
    asks otherwise.
    """
    from nomoat.labelling import question_line

    console.say(f"wrote {folder}")
    ref, question = commands.as_line([f"{prepared.base}+{folder.name}"]), prepared.survey.question
    if question is None:
        console.say(f'try it: nomoat run {ref} "..."')
        return
    short = _example(lesson.text for lesson in prepared.data.lessons if lesson.text is not None)
    no_option = "-- " if short.startswith("-") else ""
    console.say(f"try it: nomoat run {ref} --as-tuned {no_option}{commands.as_line([short])}")
    if prepared.survey.labels:
        column = commands.as_line([prepared.options["input_column"]])
        console.say(f"label a table: nomoat distil {ref} --label new.csv --input-column {column} --out labelled.csv")
    console.say(question_line(question))


def _example(texts: Iterable[str]) -> str:
    """A short text without what looks like personal data, or a name or pattern of the policy; `...` if the first short ones all have
    some, or the policy cannot be read.
    """
    from nomoat.route import pii
    from nomoat.route.policy import load_policy

    try:
        policy = load_policy()
    except NomoatError:  # the training is done, and does not fail for this
        return "..."
    short = (text for text in texts if len(text) <= LONGEST_EXAMPLE and text.isprintable())
    shown = (text for text in islice(short, MOST_LOOKED_AT) if not pii.find(text, names=policy.names, patterns=policy.patterns))
    return next(shown, "...")


def _say_estimate(prepared: Prepared) -> dict[str, Any] | None:
    """How long it will take, and how much memory; None without PyTorch, which measuring it needs."""
    try:
        from nomoat.tune.estimate import estimate
    except ModuleNotFoundError:
        console.say(f"time and memory: known only with PyTorch: {commands.installing_extra('tune')}")
        return None
    found = estimate(prepared, console.say)
    _say_time(found)
    console.say(f"memory: {found.memory}")
    free = system_errors.free_disk_bytes(paths.adapters())
    console.say(f"disk: about {paths.shown_size(found.disk_bytes)} while it learns, and {paths.shown_size(free)} are free")
    return asdict(found)


def _say_time_ahead(prepared: Prepared, name: str, *, resume: bool) -> None:
    """How long it will take; of what goes on that was said before. What it takes of memory and disk the training says."""
    from nomoat import extras

    with extras.needed_for("`nomoat tune`"):
        from nomoat.tune.estimate import estimate
    from nomoat.tune import adapter, interrupts

    if not (resume and adapter.can_resume(name)):
        with console.waiting("timing a step"), interrupts.translate_errors(prepared.weights.name, name, resume=False):
            found = estimate(prepared, console.say)
        _say_time(found)


def _say_time(found: Estimate) -> None:
    whole, learning, looking = (f"{seconds / 60:.1f}" for seconds in (found.seconds, found.learning_seconds, found.looking_seconds))
    console.say(
        f"time: about {whole} minutes at most; all epochs take {learning}, measuring the lessons held out {looking} "
        f"({found.tokens_per_second:,.0f} tok/s, timed now on the first layers)"
    )


def _say_what_it_takes(prepared: Prepared, workers: int | None, ray: str | None, *, as_json: bool) -> None:
    with console.waiting("timing a step"):
        found = _say_estimate(prepared)
    if found:
        _say_workers(prepared, workers, ray)
    if as_json:
        console.print_json({"data": asdict(prepared.survey), "settings": asdict(prepared.settings), "estimate": found})


def _say_workers(prepared: Prepared, workers: int | None, ray: str | None) -> None:
    """Which processes would learn, and how; nothing where it is this one alone. Raises what the training would."""
    from nomoat.tune import loop, train

    with train.crew(prepared, workers, ray, console.say) as learners:
        if not isinstance(learners, loop.ThisProcess):
            learners.choose_plan(console.say)
            console.say("every worker has the model; the time above is what this machine would take alone")


def learn_with_bar(prepared: Prepared, *, name: str, resume: bool = False, next_time: str = GOES_ON, **arguments: Any) -> Path:
    """Tune with a bar on stderr: stage, part done, loss, time left; in a log a line every tenth. Ctrl-C says what is `next_time`."""
    from nomoat import extras

    with extras.needed_for("`nomoat tune`"):
        from nomoat.tune import train
    from nomoat.tune import adapter

    goes_on = resume and adapter.can_resume(name)
    earlier = None if goes_on else adapter.saved_at(name)
    with console.stage_progress() as bar:
        task = bar.add_task("loading", total=None, info="")
        stage, log = "", console.Tenths(bar)

        def show(progress: StageProgress) -> None:
            nonlocal stage, log
            info = f"loss {progress.loss:.3f}, {progress.tokens_per_second:,.0f} tok/s" if progress.step else ""
            left = "" if progress.seconds_left is None else f"{_shown_time(progress.seconds_left)} left"
            if progress.stage != stage:
                bar.reset(task, description=progress.stage, total=1.0)
                stage, log = progress.stage, console.Tenths(bar)
            bar.update(task, completed=progress.fraction, info=info)
            log.show(stage, progress.fraction, ", ".join(filter(None, (info, left))))

        try:
            return train.learn(prepared, name=name, resume=resume, on_progress=show, on_message=bar.console.print, **arguments)
        except KeyboardInterrupt:
            bar.stop()
            if adapter.can_resume(name, earlier=earlier):
                console.say(f"stopped; {next_time}")
            elif adapter.can_resume(name):
                console.say("stopped before anything was learned; the state of the earlier training of this name is still there")
            elif goes_on or stage == "tuning":  # a training that has learned keeps its state until the adapter is written
                console.say("stopped when all was done: the adapter is written")
            else:
                console.say("stopped before anything was learned")
            raise typer.Exit(console.STOPPED_EXIT) from None


def _shown_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < SECONDS_SHOWN else f"{seconds / 60:.0f} min"
