"""What `nomoat eval`, `nomoat duel` and `nomoat distil` share: bars, the table of what a model's answers took, an orderly stop."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from nomoat import commands, system_errors
from nomoat.cli import console
from nomoat.errors import NomoatError, UsageError
from nomoat.records import Side

Data = TypeVar("Data")

PARTIAL_EXIT = 3
GOES_ON = "the same command goes on from there"
# The words of what is partial because of it.
REACHED = re.compile(
    r"the (?:(?P<budget>budget of \$[\d,.]+)|(?P<limit>limit of [\d,]+ requests?)) is reached|the (?P<room>limit of [\d,]+ new tokens)"
)
# What helps where more answers do not, by the words of what is partial.
INSTEAD = {
    "are read as none of the choices": (
        "look at the answers (--report), and ask in words that they keep to (of a table: --instruction)"
    ),
    "whose question had other right answers": "give the same questions the same ids in both suites, or ask the model itself",
    "held no whole task": "another teacher, other seeds (--seeds) or fewer tasks at once (--per-request) may do better",
}
KEPT = re.compile(r"kept answers of `(?P<model>[^`]+)`")
OPTIONS = {"budget": "--max-cost", "limit": "--max-requests", "room": "--max-tokens"}
NAMES_PART = re.compile(r"(?<!/)[/#+](?=\w)")  # a model reference may be broken behind it
UNBOUNDED = 10_000  # columns: wider than any table
NOT_AGAIN = ("report", "as_json", "yes")  # where a result goes, and a consent that its reader has not given

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID
    from rich.table import Table

    from nomoat.judge.settings import RunSettings
    from nomoat.judge.verdict import Evaluation


@contextmanager
def bars(settings: RunSettings, *, next_time: str = GOES_ON) -> Iterator[RunSettings]:
    """The settings with a progress that shows a bar for each model, as `counting_bars` does."""
    with counting_bars("answers", next_time=next_time) as show:
        yield replace(settings, progress=show)


@contextmanager
def counting_bars(what: str, *, next_time: str = GOES_ON) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each model on stderr; `what` is counted. In a log it is a line at each new tenth, and none of what is soon done.

    Ctrl-C ends the command, and says what is kept, and what is `next_time`.
    """
    tasks: dict[str, tuple[TaskID, console.Tenths, int]] = {}
    try:
        with console.item_progress() as progress:

            def show(model: str, done: int, total: int) -> None:
                # A model may answer twice: against itself, or once more without likelihoods.
                if model not in tasks or done < tasks[model][2]:
                    log = console.Tenths(progress, apart_seconds=console.SECONDS_BETWEEN_LINES)
                    tasks[model] = (progress.add_task(model, total=total, info=what), log, 0)
                task, log, _ = tasks[model]
                tasks[model] = (task, log, done)
                progress.update(task, completed=done, total=total)
                log.show(model, done / max(total, 1), f"{done:,} of {total:,} {what}")

            yield show
    except KeyboardInterrupt as exc:
        from nomoat.asking.store import default_path

        kept = f"what was answered so far is kept in {default_path()}; {next_time}"
        is_known = tasks or next_time != GOES_ON  # another command is told, however little was asked
        console.say(f"stopped: {kept}" if is_known else "stopped before anything was asked")
        for note in getattr(exc, "__notes__", ()):
            console.say(note)
        raise typer.Exit(console.STOPPED_EXIT) from exc


def require_report_path(path: Path | None) -> None:
    """Refuse a place that cannot become a report, before the models have worked for it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"`{path}` is a folder, and the report is a file", hint=f"try `--report {path / 'report.html'}`")
    system_errors.require_writable(path)


def again(context: typer.Context) -> str:
    """The command as it was given, to be pasted into a shell: what a report says to do it again."""
    words = ["nomoat", str(context.info_name)]
    for parameter in context.command.params:
        name = str(parameter.name)
        if name in NOT_AGAIN or not is_given(context, name):
            continue
        value = context.params[name]
        values = [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
        if parameter.param_type_name == "argument":
            words += values
        elif isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += [word for one in values for word in (parameter.opts[0], one)]
    return commands.as_line(words)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line, whatever its value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def print_sides(out: Console, metric: str, sides: Sequence[Side]) -> None:
    """A table with a column for each side. Names too long for it go on in the next line, at one of their signs."""
    table = _side_table(metric, sides, [side.model for side in sides])
    if out.measure(table, options=out.options.update(max_width=UNBOUNDED)).minimum > out.width:  # with no word broken
        table = _side_table(metric, sides, [NAMES_PART.sub(r"\g<0>\n", side.model) for side in sides])
    out.print(table)


def _side_table(metric: str, sides: Sequence[Side], names: Sequence[str]) -> Table:
    """Score, licence, time, bytes, cost."""
    from rich.text import Text

    from nomoat.judge import wording

    rows = {
        "score": [wording.render_side_score(metric, side) for side in sides],
        "latency p50 / p95": [wording.render_latency(side) for side in sides],
        "bytes sent out": [f"{side.bytes_out:,}" for side in sides],
        "tokens per second": [wording.render_speed(side) for side in sides],
        "cost per 1,000": [wording.render_usd(side.cost_usd_per_1000) for side in sides],
        "cost in total": [wording.render_usd(side.cost_usd) for side in sides],
        "price": [side.price for side in sides],
        "licence": [side.licence for side in sides],
        "answers reused": [side.facts.get("reused answers", "") for side in sides],
    }
    table = console.table()
    table.add_column("", no_wrap=True, min_width=max(map(len, rows)))
    for name in names:
        # Text, not str: rich would take the brackets of an interval, or of a name, for its own markup.
        table.add_column(Text(name, overflow="fold"), overflow="fold")
    for name, cells in rows.items():
        if any(cells):
            table.add_row(Text(name), *(Text(cell, overflow="fold") for cell in cells))
    return table


def require_judge(judge: str | None, check: str | None) -> None:
    """Refuse a check of nobody."""
    if judge is None and check is not None:
        raise UsageError("--judge-check measures a judge, and none is named", hint="add --judge MODEL")


def show_result(
    context: typer.Context, report: Path | None, data: Data, words: Callable[[Data], None], write: Callable[..., None],
    partials: Iterable[str], *, behind: Sequence[Sequence[Evaluation]], as_json: bool,
) -> None:  # fmt: skip
    """Write a result's report, print it, as JSON or in words, and end the command as `end` does, by the first of `partials`.

    `write` is given the report's path, and as `command` what does it all again. Where that fails, the result is printed all the same,
    before the error. `behind` the result, or each of several, are these evaluations of the same examples.
    """
    failure: Exception | None = None
    if report is not None:  # first: it stays, whatever becomes of what is printed
        try:
            write(report, command=again(context))
        except (NomoatError, OSError) as exc:
            failure = exc
    if not as_json:
        words(data)
    elif isinstance(data, list):
        console.print_json([_repeatable(context, one, sides) for one, sides in zip(data, behind, strict=True)])
    else:
        console.print_json(_repeatable(context, data, behind[0]))
    if failure is not None:
        raise failure
    if report is not None:
        console.say(f"report: {report}")
    end(next(filter(None, partials), ""))


def _repeatable(context: typer.Context, result: Any, sides: Sequence[Evaluation]) -> dict[str, Any]:
    """A result as an object, with what the command would need to be given again, what it was made with, and every item."""
    from nomoat.judge import evidence

    fields = result if isinstance(result, dict) else {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
    settings = {name: value for name, value in context.params.items() if name not in NOT_AGAIN}
    judge = settings.get("judge")
    named = [*(settings.get("models") or [settings["model"]]), *([judge] if judge else [])]
    made = evidence.circumstances([] if settings.get("ray") else named)  # a cluster's machines have files of their own
    return {**fields, "run": {"command": again(context), **settings, **made}, "items": evidence.items(sides)}


def end(partial: str, hint: str = "") -> None:
    """Say on stderr, and by the exit code, that a result is not over all questions, or that most answers to them never began, are
    read as no choice, may be to others or hold no task; `partial` names the bound that was met. `hint`: what to do where that was no
    bound of ours."""
    if not partial:
        return
    reached = REACHED.search(partial)
    advice = next((said for words, said in INSTEAD.items() if words in partial and reached is None), None)
    if advice is None:
        kept = KEPT.search(partial)  # to which no command adds any
        first = f"{hint}; then " if hint and reached is None else ""
        itself = f", naming `{kept['model']}` itself," if kept else ""
        higher = f" with a higher {OPTIONS[str(reached.lastgroup)]}" if reached else ""
        advice = f"{first}the same command{itself}{higher} goes on from there"
    console.say(f"partial: {partial}; {advice}")
    raise typer.Exit(PARTIAL_EXIT)


def print_words(sentence: str, notes: Sequence[str]) -> None:
    """The sentence, and below it what has to be known to read it rightly."""
    from rich.text import Text

    out = console.stdout_console()
    out.print()
    out.print(Text(sentence, style="bold"))
    for note in notes:
        out.print(Text(f"note: {note}", style="dim"))
