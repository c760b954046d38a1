"""`nomoat duel`: two models, the same questions, and a verdict that says how sure it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat.cli import completion, console, judging, options, sending
from nomoat.errors import IncompleteError, UsageError
from nomoat.pool import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from nomoat.judge.settings import RunSettings
    from nomoat.judge.suite import Suite
    from nomoat.judge.table import Table as Ordered
    from nomoat.judge.verdict import Duel, Rules
    from nomoat.records import Leaderboard, Verdict

Models = Annotated[
    list[str],
    typer.Argument(metavar="LEFT RIGHT", help="Two model references, or more with --table.", autocompletion=completion.models_here),
]
Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suite",
        "-s",
        help="A name, a .toml, .jsonl or folder, or a CSV; several are allowed.",
        autocompletion=completion.suites,
        show_default=False,
    ),
]
StopEarly = Annotated[bool, typer.Option("--stop-early/--all", help="Stop as soon as the winner is known, or ask everything.")]
Rope = Annotated[float | None, typer.Option(help="How many per cent of the scale still count as equal.", show_default=False)]


def duel(
    context: typer.Context,
    models: Models,
    suites: Suites = None,
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    instruction: options.Instruction = None,
    template: options.FallbackTemplate = None,
    max_tokens: options.LongestAnswer = None,
    reasoning_effort: options.ReasoningEffort = None,
    quality: options.Quality = None,
    limit: options.Limit = None,
    table: Annotated[bool, typer.Option("--table", help="A leaderboard of two or more models.")] = False,
    stop_early: StopEarly = True,
    alpha: Annotated[float, typer.Option(help="How often a winner may be named between equals.")] = 0.05,
    rope: Rope = None,
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
    """Compare two models on the same questions: who is better, and how sure that is.

    \b
    Examples:
      nomoat suites new test.csv --name reviews     # once: a suite of your own
      nomoat duel smollm2-135m+reviews smollm2-135m --suite reviews
      nomoat duel smollm2-135m openai:gpt-4o-mini --suite test.csv --input-column text --label-column label
      nomoat duel smollm2-135m+reviews smollm2-135m --suite sms_spam --suite banking77 --limit 200 --all --report report.html
      nomoat duel --table smollm2-135m qwen2.5-coder-0.5b qwen2.5-coder-1.5b --suite reviews --report report.html
      nomoat duel smollm2-135m qwen2.5-coder-0.5b -s vicuna80 --judge qwen2.5-coder-1.5b --judge-check vicuna80
      nomoat duel --table smollm2-360m qwen2.5-coder-0.5b -s self-instruct-252 --limit 50 --judge openai:gpt-4o --max-cost 2
      nomoat duel smollm2-135m stored:reviews/openai:gpt-4o-mini --suite reviews
      nomoat duel bloom-560m+support bloom-560m --suite my.jsonl --template vicuna_v1.1
      nomoat duel stored:vicuna80/vicuna-13b stored:vicuna80/gpt35
      nomoat duel stored:routellm-gsm8k/gpt-4 stored:routellm-gsm8k/mixtral

    A duel asks in random order and stops as soon as the winner is known, or, with `--rope`, that the two are practically equal;
    however often it looks, a winner between equals is named at most in 5 of 100 duels (`--alpha`; proved for answers right or wrong,
    for scores such as F1 tried only). `--all` asks everything. `stored:SUITE/MODEL` stands for what MODEL answered in SUITE; the last
    two examples replay published comparisons so. Answers are kept: a duel that was stopped goes on, and no answer is asked for twice.
    """
    from nomoat.asking.spending import Spending
    from nomoat.asking.workers import started_workers
    from nomoat.judge.settings import RunSettings
    from nomoat.judge.suites import load_suites
    from nomoat.judge.verdict import Rules

    judging.require_report_path(report)
    judging.require_judge(judge, judge_check)
    spending = Spending(max_cost_usd=max_cost, input_usd_per_million=price_in, output_usd_per_million=price_out)
    sides, rules = _sides(models, table=table, rope=rope, num_suites=len(suites or [])), Rules(alpha=alpha, rope=rope)
    with console.waiting(f"reading {', '.join(suites or ['the suite'])}"):
        loaded = load_suites(suites or [], models, input_column=input_column, label_column=label_column, instruction=instruction)
    settings = RunSettings(
        limit=limit, seed=seed, concurrency=concurrency, spending=spending, template=template, max_new_tokens=max_tokens,
        reasoning_effort=reasoning_effort,
    )  # fmt: skip
    sending.require_consent(models, _to_ask(loaded), settings, yes=yes, judge=judge, check=judge_check)
    with started_workers(workers, ray, concurrency=concurrency) as started:
        how = _How(settings=replace(settings, workers=started), rules=rules, stop_early=stop_early, judge=judge, check=judge_check)
        _compare(models, sides, loaded, how, partial(judging.show_result, context, report, as_json=as_json))


def _to_ask(suites: list[Suite]) -> list[Suite]:
    """Without those whose scores are recorded."""
    from nomoat.judge.recorded import has_recorded_scores

    return [suite for suite in suites if not has_recorded_scores(suite)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What the options say of a duel, whomever and whatever it is between and over."""

    settings: RunSettings
    rules: Rules
    stop_early: bool
    judge: str | None
    check: str | None


def _compare(models: list[str], sides: tuple[str, str] | None, suites: list[Suite], how: _How, show: Callable[..., None]) -> None:
    from nomoat.judge import report as reports

    if sides is None:
        found = _put_in_order(models, suites, how)
        write = partial(reports.write_table_report, found)
        show(found.leaderboard, print_leaderboard, write, found.partials, behind=[found.evaluations])
    elif len(suites) > 1:
        fought = _fight_over_several(sides, suites, how)
        verdicts = [duel.verdict for duel in fought]
        words, partials = partial(print_several, alpha=how.rules.alpha), [verdict.partial for verdict in verdicts]
        behind = [(duel.left, duel.right) for duel in fought]
        show(verdicts, words, partial(reports.write_duels_report, fought), partials, behind=behind)
    else:
        one = _fight(sides, suites[0] if suites else None, how)
        write = partial(reports.write_duel_report, one)
        show(one.verdict, print_verdict, write, [one.verdict.partial], behind=[(one.left, one.right)])


def _fight(sides: tuple[str, str], suite: Suite | None, how: _How) -> Duel:
    from nomoat.judge.duel import run_duel, suite_of
    from nomoat.judge.judged import run_judged_duel

    with judging.bars(how.settings) as settings:
        if how.judge is None:
            return run_duel(*sides, suite, settings, stop_early=how.stop_early, rules=how.rules)
        asked = suite_of(*sides, suite=suite)
        return run_judged_duel(*sides, asked, how.judge, settings, check=how.check, rules=how.rules)


def _fight_over_several(sides: tuple[str, str], suites: list[Suite], how: _How) -> list[Duel]:
    from nomoat.judge.duel import run_duels
    from nomoat.judge.judged import run_judged_duels

    with judging.bars(how.settings) as settings:
        if how.judge is None:
            return run_duels(*sides, suites, settings, stop_early=how.stop_early, rules=how.rules)
        return run_judged_duels(*sides, suites, how.judge, settings, check=how.check, rules=how.rules)


def _put_in_order(models: list[str], suites: list[Suite], how: _How) -> Ordered:
    from nomoat.judge.duel import suite_of
    from nomoat.judge.judged import run_judged_table
    from nomoat.judge.table import run_table

    suite = suites[0] if suites else None
    with judging.bars(how.settings) as settings:
        if how.judge is None:
            return run_table(models, suite, settings, rules=how.rules)
        return run_judged_table(models, suite_of(*models, suite=suite), how.judge, settings, check=how.check, rules=how.rules)


def print_several(verdicts: list[Verdict], alpha: float) -> None:
    """One line a suite, on stdout, then the sentence of each and what its answers took."""
    from rich.text import Text

    from nomoat.judge import wording

    out = console.wide_out()
    left, right = verdicts[0].left.model, verdicts[0].right.model
    out.print(Text(f"{left} minus {right}, {len(verdicts)} suites; [{wording.render_confidence(alpha)} intervals, all together]"))
    out.print()
    p_values = [verdict.p_value_corrected if verdict.p_value_corrected is not None else verdict.p_value for verdict in verdicts]
    columns = {
        "suite": [verdict.suite for verdict in verdicts],
        "items": [wording.render_items(verdict) for verdict in verdicts],
        "difference": [wording.render_difference(verdict) for verdict in verdicts],
        "corrected p": [wording.render_p_value(p_value, alpha) for p_value in p_values],
        "ahead": [wording.render_ahead(verdict) for verdict in verdicts],
    }
    console.print_rows(out, columns, num_heads=1)
    judging.print_words(wording.several_sentence(verdicts), (wording.several_note(verdicts),))
    for verdict in verdicts:
        judging.print_words(verdict.sentence, verdict.notes)
        out.print()
        judging.print_sides(console.stdout_console(), verdict.metric, (verdict.left, verdict.right))


def _sides(models: list[str], *, table: bool, rope: float | None, num_suites: int) -> tuple[str, str] | None:
    """Left and right; None for a table. Raises UsageError."""
    if table and rope is not None:
        raise UsageError(
            "--rope says when two models are equal, and a table names nobody so", hint="leave it out, or duel two of them"
        )
    if table and num_suites > 1:
        raise UsageError(f"a leaderboard is over one suite, and {num_suites} were named", hint="run the command once for each suite")
    if table:
        return None
    if len(models) != 2:
        kind = IncompleteError if len(models) < 2 else UsageError
        raise kind(
            f"a duel has two sides, and {len(models)} {'was' if len(models) == 1 else 'were'} named",
            hint="name LEFT and RIGHT, and the suite with --suite; or put several in order with --table",
        )
    return models[0], models[1]


def print_leaderboard(board: Leaderboard) -> None:
    """The leaderboard for a person, on stdout, as wide as the terminal."""
    from nomoat.judge import wording

    out = console.wide_out()
    _print_head(out, board, f"{board.num_examples:,} items")
    behind = "behind the first" if len(board.pairs) < 2 else "behind the first, corrected p"  # the intervals beside it are not
    columns = {
        "": [str(rank) for rank in range(1, len(board.standings) + 1)],
        "model": [row.side.model for row in board.standings],
        "score": [wording.render_side_score(board.metric, row.side) for row in board.standings],
        "rating": [wording.render_rating(row) for row in board.standings],
        behind: [wording.render_behind(board.metric, row, board.alpha) for row in board.standings],
        "cost per 1,000": [wording.render_usd(row.side.cost_usd_per_1000) for row in board.standings],
        "cost in total": [wording.render_usd(row.side.cost_usd) for row in board.standings],
        "bytes sent out": [f"{row.side.bytes_out:,}" for row in board.standings],
        "latency p50": [wording.render_seconds(row.side.seconds_p50) for row in board.standings],
    }
    shown = {title: cells for title, cells in columns.items() if {*cells} - {"-", "not known"}}
    console.print_rows(out, shown, num_heads=2)
    judging.print_words(board.sentence, board.notes)


def _print_head(out: Console, result: Leaderboard | Verdict, items: str) -> None:
    """The line that says of what the result is."""
    from rich.text import Text

    from nomoat.judge import wording
    from nomoat.judge.metrics import METRICS

    intervals = f"[{wording.render_confidence(result.alpha)} intervals]"
    out.print(Text(f"{result.suite}: {items}, {METRICS[result.metric].title}; {intervals}"))
    out.print()


def print_verdict(verdict: Verdict) -> None:
    """The verdict for a person, on stdout, as wide as the terminal."""
    from rich.text import Text

    from nomoat.judge import wording

    out = console.stdout_console()
    _print_head(out, verdict, wording.render_items(verdict))
    judging.print_sides(out, verdict.metric, (verdict.left, verdict.right))
    out.print()
    table = console.facts_table()
    p_value = wording.render_p_value(verdict.p_value, verdict.alpha)
    table.add_row("left minus right", Text(f"{wording.render_difference(verdict)}, {p_value}"))
    for measure in verdict.measures:
        table.add_row(Text(measure.name), Text(wording.render_measure(measure)))
    out.print(table)
    judging.print_words(verdict.sentence, verdict.notes)
