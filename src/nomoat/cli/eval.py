"""`nomoat eval`: one model, questions with known answers, a score with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli import console, judging

if TYPE_CHECKING:
    from nomoat.judge.verdict import Evaluation


def eval_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model reference: see `nomoat models`.")],
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A name, a .toml, .jsonl or folder, or a CSV.")],
    input_column: Annotated[str | None, typer.Option(help="The CSV's column of texts.", show_default=False)] = None,
    label_column: Annotated[str | None, typer.Option(help="The CSV's column of right answers.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask this many, drawn at random.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing and of the intervals.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Answers in the making at once.")] = 16,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print for machines.")] = False,
) -> None:
    """Measure a model on questions with known answers.

    \b
    Examples:
      nomoat eval smollm2-135m reviews
      nomoat eval smollm2-135m test.csv --input-column text --label-column label
      nomoat eval smollm2-135m my.jsonl --limit 200 --report report.html
      nomoat eval smollm2-135m my.toml --json

    Every answer is kept before it is scored: a run that was stopped goes on where it was, and no answer is asked for twice.
    """
    from nomoat.judge.run import run_suite
    from nomoat.judge.suites import load_suite

    judging.require_report_path(report)
    loaded = load_suite(suite, input_column=input_column, label_column=label_column)
    with judging.bars() as progress:
        evaluation = run_suite(model, loaded, limit=limit, seed=seed, workers=workers, progress=progress)
    if as_json:
        suite_facts = {"suite": loaded.name, "suite_sha256": loaded.sha256, "metric": loaded.metric, "seed": seed}
        console.print_json(
            {**suite_facts, "num_examples": len(evaluation.outcomes), "side": evaluation.side, "notes": evaluation.notes}
        )
    else:
        _print(evaluation)
    if report is not None:
        from nomoat.judge.report import write_evaluation_report

        write_evaluation_report(evaluation, report)
        console.say(f"report: {report}")


def _print(evaluation: Evaluation) -> None:
    from nomoat.judge import wording

    out = console.stdout_console()
    out.print(judging.side_table(evaluation.suite.metric, (evaluation.side,)))
    suite, side = evaluation.suite, evaluation.side
    judging.print_words(wording.score_sentence(suite.name, suite.metric, side, len(evaluation.outcomes)), evaluation.notes)
