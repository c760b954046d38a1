"""`nomoat distil`: a teacher writes instruction data, or labels texts of yours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import console, judging, options, sending

if TYPE_CHECKING:
    from nomoat.asking.spending import Spending
    from nomoat.distil.instructions import Seeds
    from nomoat.distil.spent import Spent
    from nomoat.records import Parent, Request
    from nomoat.responder import Responder

EXAMPLES_SHOWN = 3


def distil(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="A model reference: see `nomoat models`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write here: JSONL, or with --label a table.")],
    num_tasks: Annotated[int, typer.Option("--tasks", "-n", min=1, help="So many new tasks.")] = 100,
    seeds: Annotated[
        Path | None, typer.Option(help="Your own examples, as JSONL; otherwise Alpaca's 175.", show_default=False)
    ] = None,
    language: Annotated[str | None, typer.Option(help="The language of the tasks, such as Korean.", show_default=False)] = None,
    tasks_a_request: Annotated[int, typer.Option("--per-request", min=1, help="Ask for so many at once.")] = 10,
    max_requests: Annotated[
        int | None, typer.Option(min=1, help="Ask at most so often; 5 times what would do if all were kept.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option("--temp", "--temperature", min=0.0, max=2.0, help="0: always the likeliest.")] = 0.7,
    label: Annotated[
        Path | None, typer.Option(metavar="TEXTS", help="Label these: CSV, TSV, or .txt with a text a line.", show_default=False)
    ] = None,
    labels: Annotated[str | None, typer.Option(help="a,b,c, or a file with one a line.", show_default=False)] = None,
    input_column: options.InputColumn = None,
    instruction: Annotated[str | None, typer.Option(help="Words before each text, as in `tune`.", show_default=False)] = None,
    teacher_licence: Annotated[
        str | None, typer.Option(help="The teacher's terms, where nomoat cannot know them.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the seed tasks shown, and of the sampling.")] = 0,
    concurrency: options.Concurrency = 16,
    max_cost: options.MaxCost = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    yes: options.Yes = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over what is there.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Let a teacher write instruction data, or label your texts.

    \b
    Examples:
      nomoat distil qwen2.5-coder-1.5b --out tasks.jsonl --tasks 200
      nomoat distil openai:gpt-4o-mini --out tasks.jsonl --tasks 1000 --max-cost 2 --seeds my_seeds.jsonl
      nomoat distil qwen2.5-coder-1.5b --out labelled.csv --label texts.csv --input-column text --labels ham,spam
      nomoat tune smollm2-135m tasks.jsonl --name student

    As Alpaca did it: the teacher is shown three seed tasks and asked for more; what is well formed and unlike all before is kept.
    Every answer is kept before it is read: the same command goes on where it was, and asks nothing twice. The teacher's terms stand
    beside the file, and `tune` takes them into the licence of what learns from it.
    """
    from nomoat.asking.spending import Spending
    from nomoat.catalog import licences
    from nomoat.cli.loading import load_with_bar

    if teacher_licence is not None:
        licences.require_known(teacher_licence)
    spending = Spending(max_cost_usd=max_cost, input_usd_per_million=price_in, output_usd_per_million=price_out)
    common: dict[str, Any] = {
        "out": out, "terms": teacher_licence, "spending": spending, "concurrency": concurrency, "yes": yes, "replace": replace,
        "as_json": as_json,
    }  # fmt: skip
    if label is not None:
        texts, known = _texts(label, labels, input_column)
        with load_with_bar(teacher) as model:
            _label(model, label, texts, known, instruction, **common)
        return
    _require_no_labels(labels, input_column, instruction)
    found = _seeds(seeds)
    settings = {"num_tasks": num_tasks, "language": language, "tasks_a_request": tasks_a_request, "max_requests": max_requests}
    with load_with_bar(teacher) as model:
        _instruct(model, found, {**settings, "temperature": temperature, "seed": seed}, is_own=seeds is not None, **common)


def _instruct(
    model: Responder, seeds: Seeds, wanted: dict[str, Any], *, is_own: bool, out: Path, terms: str | None, spending: Spending,
    concurrency: int, yes: bool, replace: bool, as_json: bool,
) -> None:  # fmt: skip
    """New tasks into a JSONL file, its sidecar, and what is to be said of them."""
    from nomoat.asking.store import AnswerStore
    from nomoat.distil import files, instructions

    plan = instructions.Plan(seeds=seeds, **wanted)
    settings = {"kind": "instructions", "teacher_digest": model.digest, **plan.settings()}
    files.require_own(out, settings, replace=replace)
    with AnswerStore() as store:
        _ask_consent(model, [plan.request(number) for number in range(plan.most_requests())], spending, store, yes=yes)
        with judging.counting_bars("tasks") as progress:
            found = instructions.distil(
                model, plan, store=store, spending=spending, concurrency=concurrency,
                progress=lambda done, total: progress(model.ref, done, total),
            )  # fmt: skip
    parents = [*_teachers(model.ref, terms, for_assistant=not is_own), _seeds_parent(seeds, is_own=is_own)]
    facts = {
        "tasks": len(found.tasks),
        "offered": found.num_offered,
        "dropped": dict(found.dropped.most_common()),
        "partial": found.partial,
        **found.spent.facts(),
    }
    rows = instructions.as_rows(found.tasks)
    saved = files.save(
        out, lambda part: files.write_rows(part, rows), teacher=model.ref, parents=parents, settings=settings, facts=facts
    )  # fmt: skip
    _say_spent(model.ref, found.spent)
    console.say(f"tasks: {len(found.tasks):,} kept of {found.num_offered:,} offered")
    for reason, count in found.dropped.most_common():
        console.say(f"  {count:,} dropped: {reason}")
    _end(out, saved, parents, found.partial, as_json=as_json)


def _label(
    model: Responder, source: Path, texts: list[str], labels: tuple[str, ...], instruction: str | None, *, out: Path,
    terms: str | None, spending: Spending, concurrency: int, yes: bool, replace: bool, as_json: bool,
) -> None:  # fmt: skip
    """Labels into a table, its sidecar, and what is to be said of them."""
    from nomoat import paths, tasks
    from nomoat.asking.store import AnswerStore
    from nomoat.distil import files
    from nomoat.distil.label import label, requests_for

    settings = {
        "kind": "labels",
        "teacher_digest": model.digest,
        "texts_sha256": paths.sha256_of(source),
        "labels": list(labels),
        "instruction": instruction,
    }
    files.require_own(out, settings, replace=replace)
    with AnswerStore() as store:
        _ask_consent(model, requests_for(texts, labels, instruction=instruction), spending, store, yes=yes)
        with judging.counting_bars("texts") as progress:
            found = label(
                model, texts, labels, instruction=instruction, store=store, spending=spending, concurrency=concurrency,
                progress=lambda done, total: progress(model.ref, done, total),
            )  # fmt: skip
    parents = _teachers(model.ref, terms, for_assistant=False)
    facts = {
        "texts": len(texts),
        "labelled": found.counts(),
        "by": found.how,
        "unmatched": len(found.unmatched),
        "too_long": len(found.too_long),
        "partial": found.partial,
        **found.spent.facts(),
    }
    delimiter = "\t" if out.suffix.lower() in tasks.TAB_SUFFIXES else ","
    saved = files.save(
        out, lambda part: files.write_labels(part, found.labels, delimiter=delimiter),
        teacher=model.ref, parents=parents, settings=settings, facts=facts,
    )  # fmt: skip
    _say_spent(model.ref, found.spent)
    counted = ", ".join(f"{name} {count:,}" for name, count in found.counts().items())
    console.say(f"labels, by {'what it wrote' if found.how == 'written' else 'likelihood'}: {counted or 'none'}")
    _say_left_out(found.unmatched, "whose answer was none of the labels")
    _say_left_out(found.too_long, "too long for the teacher's context")
    _end(out, saved, parents, found.partial, as_json=as_json)


def _say_left_out(texts: Sequence[str], why: str) -> None:
    if texts:
        console.say(f"left out: {len(texts):,} texts {why}")
        for text in texts[:EXAMPLES_SHOWN]:
            console.say(f"  {' '.join(text.split())[:100]}")


def _texts(path: Path, labels: str | None, input_column: str | None) -> tuple[list[str], tuple[str, ...]]:
    from nomoat.distil.label import parse_labels, read_texts
    from nomoat.errors import UsageError

    if labels is None:
        raise UsageError("--label needs to know which labels there are", hint="add --labels a,b,c, or --labels FILE")
    return read_texts(path, input_column=input_column), parse_labels(labels)


def _require_no_labels(*given: str | None) -> None:
    """Refuse what means nothing without --label."""
    from nomoat.errors import UsageError

    if any(value is not None for value in given):
        raise UsageError("--labels, --input-column and --instruction are for --label", hint="add --label TEXTS, or leave them out")


def _seeds(path: Path | None) -> Seeds:
    from nomoat.catalog.datasets import pull_dataset
    from nomoat.distil import instructions

    if path is not None:
        return instructions.read_seeds(path)
    folder = pull_dataset(instructions.SEEDS)
    return instructions.read_seeds(folder / instructions.SEEDS_FILE, name=instructions.SEEDS)


def _seeds_parent(seeds: Seeds, *, is_own: bool) -> Parent:
    """The seed tasks, as something the result is made from."""
    from nomoat.catalog.datasets import dataset
    from nomoat.records import Parent

    if is_own:
        return Parent(kind="data", name=seeds.name, licence="own")
    known = dataset(seeds.name)
    return Parent(kind="data", name=known.name, licence=known.licence, source=known.licence_source, confirmed="read")


def _ask_consent(model: Responder, requests: Sequence[Request], spending: Spending, store: Any, *, yes: bool) -> None:
    """Before anything leaves this machine: all that could be sent, at most."""
    from nomoat.asking.preview import preview_requests

    found = preview_requests(model, requests, spending=spending, store=store)
    sending.agree([] if found is None else [found], yes=yes)


def _teachers(ref: str, terms: str | None, *, for_assistant: bool) -> list[Parent]:
    from nomoat import responder
    from nomoat.catalog import licences
    from nomoat.records import Parent

    if terms is not None:
        return [Parent(kind="teacher", name=ref, licence=terms, source="stated by the user")]
    return list(licences.taught_by(ref, responder.licence_chain(ref), for_assistant=for_assistant))


def _say_spent(ref: str, spent: Spent) -> None:
    reused = f", {spent.num_reused:,} of them reused" if spent.num_reused else ""
    failed = f"; {spent.num_failed:,} requests failed" if spent.num_failed else ""
    cost = "cost not known" if spent.cost_usd is None else f"${spent.cost_usd:,.4f}"
    out = f", {spent.bytes_out:,} bytes sent out" if spent.bytes_out else ""
    console.say(f"teacher: {ref}, {spent.num_answers:,} answers{reused}{failed}{out}; {cost} ({spent.pricing.note})")


def _end(out: Path, saved: dict[str, Any], parents: Sequence[Parent], partial: str, *, as_json: bool) -> None:
    """The terms, the place, and an exit code that says whether something is missing."""
    from nomoat.catalog import licences
    from nomoat.cli.tune import say_terms

    console.say("terms of what learns from it:")
    say_terms(licences.of_parents(parents))
    console.say(f"wrote {out}")
    if as_json:
        console.print_json(saved)
    judging.end(partial)
