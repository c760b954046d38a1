"""`nomoat duel`: two models, the same questions, and a verdict that says how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli import console, judging, options

if TYPE_CHECKING:
    from nomoat.records import Verdict


def duel(
    left: Annotated[str, typer.Argument(metavar="LEFT", help="A model reference: see `nomoat models`.")],
    right: Annotated[str, typer.Argument(metavar="RIGHT", help="Another one.")],
    suite: Annotated[
        str | None, typer.Option("--suite", "-s", help="A name, a .toml, .jsonl or folder, or a CSV.", show_default=False)
    ] = None,
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = 16,
    report: options.Report = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two models on the same questions: who is better, and how sure that is.

    \b
    Examples:
      nomoat duel smollm2-135m+reviews smollm2-135m --suite reviews
      nomoat duel smollm2-135m openai:gpt-4o-mini --suite test.csv --input-column text --label-column label
      nomoat duel LEFT RIGHT --suite my.jsonl --limit 200 --report report.html
      nomoat duel stored:vicuna80/vicuna-13b stored:vicuna80/gpt35

    The last one replays the Vicuna blog of 2023 from its stored answers and GPT-4's stored reviews.
    Every answer is kept before it is scored: a duel that was stopped goes on where it was, and no answer is asked for twice.
    """
    from nomoat.judge.duel import run_duel
    from nomoat.judge.suites import load_suite

    judging.require_report_path(report)
    loaded = None if suite is None else load_suite(suite, input_column=input_column, label_column=label_column)
    with judging.bars() as progress:
        fought = run_duel(left, right, loaded, limit=limit, seed=seed, concurrency=concurrency, progress=progress)
    if as_json:
        console.print_json(fought.verdict)
    else:
        print_verdict(fought.verdict)
    if report is not None:
        from nomoat.judge.report import write_duel_report

        write_duel_report(fought, report)
        console.say(f"report: {report}")


def print_verdict(verdict: Verdict) -> None:
    """The verdict for a person, on stdout, as wide as the terminal."""
    from rich.table import Table
    from rich.text import Text

    from nomoat.judge import wording

    out = console.stdout_console()
    items = f"{verdict.num_examples:,} item{'s' if verdict.num_examples != 1 else ''}"
    out.print(Text(f"{verdict.suite}: {items}, {wording.METRICS[verdict.metric]}; [95 % intervals]"))
    out.print()
    out.print(judging.side_table(verdict.metric, (verdict.left, verdict.right)))
    out.print()
    table = Table(box=None, pad_edge=False, show_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("left minus right", Text(f"{wording.render_difference(verdict)}, {wording.render_p_value(verdict.p_value)}"))
    for measure in verdict.measures:
        table.add_row(Text(measure.name), Text(wording.render_measure(measure)))
    out.print(table)
    judging.print_words(verdict.sentence, verdict.notes)
