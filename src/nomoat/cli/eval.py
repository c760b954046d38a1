"""`nomoat eval`: one model, questions with known answers, a score with its interval."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import completion, console, judging, options, sending
from nomoat.pool import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from nomoat.judge.verdict import Evaluation


def eval_(
    context: typer.Context,
    model: options.Model,
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="A name, a .toml, .jsonl or folder, or a CSV.", autocompletion=completion.suites)
    ],
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    instruction: options.Instruction = None,
    template: options.FallbackTemplate = None,
    max_tokens: options.LongestAnswer = None,
    reasoning_effort: options.ReasoningEffort = None,
    quality: options.Quality = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    concurrency: options.Concurrency = DEFAULT_CONCURRENCY,
    workers: options.NumWorkers = None,
    ray: options.RayAddress = None,
    max_cost: options.MaxCost = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    judge: options.JudgeModel = None,
    judge_check: options.JudgeCheck = None,
    yes: options.Yes = False,
    report: options.Report = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a model on questions with known answers.

    \b
    Examples:
      nomoat suites new test.csv --name reviews     # once: a suite of your own
      nomoat eval smollm2-135m reviews
      nomoat eval smollm2-135m test.csv --input-column text --label-column label
      nomoat eval smollm2-135m my.jsonl --limit 200 --report report.html
      nomoat eval bloom-560m reviews --template vicuna_v1.1     # a base model, which has no chat template
      nomoat eval openai:gpt-4o-mini my.toml --max-cost 0.50 --json
      nomoat eval smollm2-135m vicuna80 --judge qwen2.5-coder-1.5b --judge-check vicuna80

    Every answer is kept before it is scored: a run that was stopped goes on where it was, and no answer is asked for twice.
    """
    from nomoat.asking.spending import Spending
    from nomoat.asking.workers import started_workers
    from nomoat.judge.judged import run_graded
    from nomoat.judge.report import write_evaluation_report
    from nomoat.judge.run import run_suite
    from nomoat.judge.settings import RunSettings
    from nomoat.judge.suites import load_suite

    judging.require_report_path(report)
    spending = Spending(max_cost_usd=max_cost, input_usd_per_million=price_in, output_usd_per_million=price_out)
    with console.waiting(f"reading {suite}"):
        loaded = load_suite(suite, input_column=input_column, label_column=label_column, instruction=instruction, models=[model])
    judging.require_judge(judge, judge_check)
    plain = RunSettings(
        limit=limit, seed=seed, concurrency=concurrency, spending=spending, template=template, max_new_tokens=max_tokens,
        reasoning_effort=reasoning_effort,
    )  # fmt: skip
    sending.require_consent([model], [loaded], plain, yes=yes, judge=judge, check=judge_check)
    with started_workers(workers, ray, concurrency=concurrency) as started, judging.bars(replace(plain, workers=started)) as settings:
        if judge is None:
            evaluation = run_suite(model, loaded, settings)
        else:
            evaluation = run_graded(model, loaded, judge, settings, check=judge_check)
    write = partial(write_evaluation_report, evaluation)
    judging.show_result(
        context, report, _facts(evaluation), lambda _: _print(evaluation), write, (evaluation.partial,), behind=[[evaluation]],
        as_json=as_json,
    )  # fmt: skip


def _facts(evaluation: Evaluation) -> dict[str, Any]:
    """What `--json` prints of it, besides how it was asked."""
    from nomoat.judge.verdict import DEFAULT_RULES

    return {
        "suite": evaluation.suite.name, "suite_sha256": evaluation.suite.sha256, "metric": evaluation.suite.metric,
        "seed": evaluation.seed, "alpha": DEFAULT_RULES.alpha, "num_examples": len(evaluation.outcomes), "side": evaluation.side,
        "notes": evaluation.notes, "partial": evaluation.partial,
    }  # fmt: skip


def _print(evaluation: Evaluation) -> None:
    from nomoat.judge import wording

    out = console.stdout_console()
    judging.print_sides(out, evaluation.suite.metric, (evaluation.side,))
    suite, side = evaluation.suite, evaluation.side
    judging.print_words(wording.score_sentence(suite.name, suite.metric, side, len(evaluation.outcomes)), evaluation.notes)
