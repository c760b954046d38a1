"""`nomoat distil`: a teacher writes instruction data, or labels texts of yours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat.cli import answering, completion, console, judging, options, sending
from nomoat.errors import UsageError
from nomoat.money import dollars
from nomoat.pool import DEFAULT_CONCURRENCY
from nomoat.words import apart, counted

if TYPE_CHECKING:
    from nomoat.asking.as_tuned import Question
    from nomoat.asking.spending import Spending
    from nomoat.asking.spent import Spent
    from nomoat.asking.store import AnswerStore
    from nomoat.distil.instructions import Plan
    from nomoat.distil.label import Labelled, LeftOut
    from nomoat.distil.table import Texts
    from nomoat.records import Parent, Request
    from nomoat.responder import Responder

EXAMPLES_SHOWN = 3
FOR_TASKS = ("num_tasks", "seeds", "language", "tasks_a_request", "max_requests", "temperature", "seed")  # mean nothing to labels
SeedFile = Annotated[
    Path | None,
    typer.Option(help="Your own examples, as JSONL; otherwise Alpaca's 175.", show_default=False, callback=options.as_named),
]
TeacherLicence = Annotated[str | None, typer.Option(help="The teacher's terms, where nomoat cannot know them.", show_default=False)]
TextFile = Annotated[
    Path | None,
    typer.Option(
        metavar="TEXTS",
        help="Label these: CSV, TSV, JSONL, or .txt with a text a line.",
        show_default=False,
        callback=options.as_named,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="a,b,c, or a file with one a line; of a TEACHER tuned on a table, its own if not given.", show_default=False),
]
Instruction = Annotated[
    str | None,
    typer.Option(
        help="Words before each text, or with {text} in them all that is asked; of a tuned TEACHER, its own if not given.",
        show_default=False,
    ),
]
MaxRequests = Annotated[
    int | None,
    typer.Option(
        min=1, help="Ask at most so often, not 5 times what would do if all were kept (100,000 at most).", show_default=False
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Longest written answer, thinking included; without it 200 a task, or a label's length. Asks again what was cut.",
        show_default=False,
    ),
]

Teacher = Annotated[
    str, typer.Argument(metavar="TEACHER", help="A model reference: see `nomoat models`.", autocompletion=completion.models_here)
]


def distil(
    context: typer.Context,
    teacher: Teacher,
    out: Annotated[Path, typer.Option("--out", "-o", help="Write here: .jsonl, or with --label .csv or .tsv.")],
    num_tasks: Annotated[int, typer.Option("--tasks", "-n", min=1, help="So many new tasks.")] = 100,
    seeds: SeedFile = None,
    language: Annotated[str | None, typer.Option(help="The language of the tasks, such as Korean.", show_default=False)] = None,
    tasks_a_request: Annotated[int, typer.Option("--per-request", min=1, help="Ask for so many at once.")] = 10,
    max_requests: MaxRequests = None,
    temperature: options.Temperature = 0.7,
    label: TextFile = None,
    labels: Labels = None,
    input_column: options.InputColumn = None,
    instruction: Instruction = None,
    max_tokens: MaxTokens = None,
    reasoning_effort: options.ReasoningEffort = None,
    teacher_licence: TeacherLicence = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the seed tasks shown, and of the sampling.")] = 0,
    concurrency: options.Concurrency = DEFAULT_CONCURRENCY,
    workers: options.NumWorkers = None,
    ray: options.RayAddress = None,
    max_cost: options.MaxCost = None,
    price_in: options.PriceIn = None,
    price_out: options.PriceOut = None,
    yes: options.Yes = False,
    replace: options.Replace = False,
    as_json: options.AsJson = False,
) -> None:
    """Let a teacher write instruction data, or label your texts.

    \b
    Examples:
      nomoat distil qwen2.5-coder-1.5b --out tasks.jsonl --tasks 200
      nomoat distil openai:gpt-4o-mini --out tasks.jsonl --tasks 1000 --max-cost 2 --seeds my_seeds.jsonl
      nomoat distil qwen2.5-coder-1.5b --out labelled.csv --label texts.csv --input-column text --labels ham,spam
      nomoat distil smollm2-135m+reviews --out labelled.csv --label new.csv --input-column text     # as `tune` taught it to
      nomoat distil qwen2.5-coder-1.5b --out tasks.jsonl --tasks 5000 --ray auto     # a cluster's machines answer
      nomoat tune smollm2-135m tasks.jsonl --name student

    As Alpaca did it: the teacher is shown three seed tasks and asked for more; what is well formed and unlike all before is kept.
    Every answer is kept before it is read: the same command goes on where it was, and asks nothing twice. The teacher's terms stand
    beside the file, and `tune` takes them into the licence of what learns from it.
    """
    from nomoat.asking.spending import Spending
    from nomoat.asking.workers import started_workers
    from nomoat.cli.loading import load_on
    from nomoat.distil import instructions, origin

    _require_teacher(teacher, teacher_licence)
    spending = Spending(max_cost_usd=max_cost, input_usd_per_million=price_in, output_usd_per_million=price_out)
    how = _How(out=out, spending=spending, concurrency=concurrency, yes=yes, replace=replace, as_json=as_json)
    asked: _Texts | Plan
    if label is not None:
        asked, shown = _texts(context, teacher, label, labels, input_column, instruction), origin.of_file(label)
    else:
        _require_no_labels(labels, input_column, instruction)
        read, shown = origin.load_seeds(seeds)
        asked = instructions.Plan(
            seeds=read, num_tasks=num_tasks, language=language, tasks_a_request=tasks_a_request, max_requests=max_requests,
            temperature=temperature, seed=seed, max_tokens=max_tokens, reasoning_effort=reasoning_effort,
        )  # fmt: skip
    given = seeds if label is None else label
    _require_places(out, given, are_labels=label is not None)
    answering.say_notes(() if given is None else origin.notes_of(given))
    parents = origin.parents_of(teacher, shown, are_labels=label is not None, terms=teacher_licence)
    with started_workers(workers, ray, concurrency=concurrency) as started, load_on(started, teacher) as model:
        if isinstance(asked, _Texts):
            _label(model, asked, parents, how)
        else:
            _instruct(model, asked, parents, how)


def _require_places(out: Path, read: Path | None, *, are_labels: bool) -> None:
    """Refuse places where nothing can be written, and those of what is read."""
    from nomoat.distil import files

    files.require_place(out, *(files.LABELS if are_labels else files.TASKS))
    for place in (out, files.left_out_place(out)) if are_labels else (out,):
        files.require_other(place, read)


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    """What the options say, whatever the teacher is asked for."""

    out: Path
    spending: Spending
    concurrency: int
    yes: bool
    replace: bool
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """The texts of `source`, or of its column, what is asked about them, and the `room` for answers: see `written_requests`."""

    source: Path
    input_column: str | None
    texts: Texts
    question: Question
    room: dict[str, Any]

    def settings(self, teacher: str) -> dict[str, Any]:
        """What decides which labels come out, whatever bounds their making. How long to think is for who writes them: a server."""
        from nomoat import paths
        from nomoat.providers import is_remote

        effort = self.room["reasoning_effort"] if is_remote(teacher) else None
        return {
            "texts_sha256": paths.sha256_of(self.source),
            "input_column": self.input_column,
            "labels": list(self.question.labels),
            "instruction": self.question.instruction,
            **({} if effort is None else {"reasoning_effort": effort}),
        }


def _instruct(model: Responder, plan: Plan, parents: Sequence[Parent], how: _How) -> None:
    """New tasks into a JSONL file, its sidecar, and what is to be said of them."""
    from nomoat.asking.store import AnswerStore
    from nomoat.distil import files, instructions
    from nomoat.languages import language_shares, shares_in_words

    settings = {"kind": "instructions", "teacher_digest": model.digest, **plan.settings()}
    files.require_own(how.out, settings, num_rows=plan.num_tasks, replace=how.replace)
    with AnswerStore() as store:
        _ask_consent(model, _with_bar(plan.requests(model, store), plan.most_requests()), store, how, parts=plan.parts())
        with judging.counting_bars("tasks") as progress:
            found = instructions.distil(
                model, plan, store=store, spending=how.spending, concurrency=how.concurrency,
                progress=lambda done, total: progress(model.ref, done, total),
            )  # fmt: skip
        notes = found.spent.notes(model, store, how.spending)
    facts = {
        "tasks": len(found.tasks),
        "offered": found.num_offered,
        "dropped": dict(found.dropped.most_common()),
        "answers_in_vain": dict(found.in_vain.most_common()),
        "max_tokens": plan.longest_answer(),
        "partial": found.partial,
        **found.spent.facts(),
        "notes": list(notes),
    }
    rows = instructions.as_rows(found.tasks)
    _say_spent(model, found.spent, notes)
    console.say(f"tasks: {len(found.tasks):,} kept of {found.num_offered:,} offered")
    if plan.language is not None and (
        shares := language_shares([text for task in found.tasks for text in (task.instruction, task.output)])
    ):
        console.say(f"  {plan.language} was asked for; by their words, roughly: {shares_in_words(shares)}")
    for reason, count in found.dropped.most_common():
        console.say(f"  {count:,} dropped: {reason}")
    for reason, count in found.in_vain.most_common():
        begins = f", such as: {found.without_task}" if reason == instructions.NO_TASK and found.without_task else ""
        console.say(f"  {counted(count, 'answer')} {reason}{begins}")
    with _saying_what_is_missing(facts), files.saving(
        how.out, lambda part: files.write_rows(part, rows), teacher=model.name, parents=parents, settings=settings, facts=facts,
        replace=how.replace,
    ) as saved:  # fmt: skip
        pass
    _end(saved, parents, facts, how, found.hint)


def _label(model: Responder, asked: _Texts, parents: Sequence[Parent], how: _How) -> None:
    """Labels into a table, what is left out into another, their sidecars, and what is to be said of them."""
    from nomoat.asking.store import AnswerStore
    from nomoat.distil import files
    from nomoat.distil.label import CUT_OFF, NO_LABEL, NO_TEXT, TOO_LONG_TEXT, label, requests_for, written_requests

    settings = {"kind": "labels", "teacher_digest": model.digest, **asked.settings(model.ref)}
    texts, question = asked.texts.asked, asked.question
    files.require_own(how.out, settings, num_rows=len(texts), replace=how.replace)
    files.require_own(files.left_out_place(how.out), settings, num_rows=len(texts), num_answers=len(texts), replace=how.replace)
    with AnswerStore() as store:
        different = dict.fromkeys(texts)
        usual = requests_for(different, question.labels, instruction=question.instruction)
        requests = written_requests(model, usual, store=store, **asked.room)
        _ask_consent(model, _with_bar(requests, len(different)), store, how)
        with judging.counting_bars("texts") as progress:
            found = label(
                model, asked.texts.of_rows, question.labels, instruction=question.instruction, store=store, **asked.room,
                spending=how.spending, concurrency=how.concurrency, progress=lambda done, total: progress(model.ref, done, total),
            )  # fmt: skip
        notes = found.spent.notes(model, store, how.spending)
    without_text = len(found.left_out(NO_TEXT))
    facts = {
        "texts": len(texts),
        "labelled": found.counts(),
        "by": found.how,
        "unmatched": len(found.left_out(NO_LABEL)),
        "max_tokens": found.max_tokens if found.how == "written" else None,
        "cut_off": len(found.left_out(CUT_OFF)),
        "too_long": len(found.left_out(TOO_LONG_TEXT)),
        "without_text": without_text,
        "partial": found.partial,
        **found.spent.facts(),
        "notes": [*question.notes, *notes],
    }
    _say_spent(model, found.spent, notes)
    labelled = ", ".join(f"{apart(name)} {count:,}" for name, count in found.counts().items())
    console.say(f"labels, by {'what it wrote' if found.how == 'written' else 'likelihood'}: {labelled or 'none'}")
    _say_left_out(found.left_out(NO_LABEL), "whose answer was none of the labels")
    _say_left_out(found.left_out(CUT_OFF), f"whose answer was cut off at {found.max_tokens:,} tokens; --max-tokens gives it more room")
    _say_left_out(found.left_out(TOO_LONG_TEXT), "too long for the teacher's context")
    if without_text:
        console.say(f"left out: {counted(without_text, 'row')} without a text")
    _save_labels(model, asked.texts, found, parents, settings, facts, how)
    if not found.labels:
        console.say("no text got a label")
        raise typer.Exit(judging.PARTIAL_EXIT)


def _save_labels(
    model: Responder,
    texts: Texts,
    found: Labelled,
    parents: Sequence[Parent],
    settings: dict[str, Any],
    facts: dict[str, Any],
    how: _How,
) -> None:
    """Both tables, or none where one of them may not be written. There is no second one where nothing is left out."""
    from nomoat import tables
    from nomoat.distil import files, table

    delimiter = "\t" if how.out.suffix.lower() in tables.TAB_SUFFIXES else ","
    columns, rows = table.labelled_table(texts, found)
    others, left_out = table.left_out_table(texts, found)
    beside = files.left_out_place(how.out)
    facts = {**facts, "rows": len(rows), "left_out": beside.name if left_out else None}
    of_others = {**facts, "rows": len(left_out)}

    what: dict[str, Any] = {"teacher": model.name, "parents": parents, "settings": settings, "replace": how.replace}

    def write(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> Callable[[Path], None]:
        return lambda part: files.write_table(part, columns, rows, delimiter=delimiter)

    with _saying_what_is_missing(facts), ExitStack() as whole:
        saved = whole.enter_context(files.saving(how.out, write(columns, rows), facts=facts, **what))
        if left_out:
            whole.enter_context(files.saving(beside, write(others, left_out), facts=of_others, is_left_out=True, **what))
    if left_out:
        console.say(f"wrote {beside}: the rows without a label, why, and what the teacher answered")
    elif not files.remove(beside):
        console.say(f"`{beside}` stays, for it is not as nomoat wrote it; now every row has a label")
    _end(saved, parents, facts, how, found.hint)


def _say_left_out(texts: Sequence[LeftOut], why: str) -> None:
    if texts:
        console.say(f"left out: {counted(len(texts), 'text')} {why}")
        for one in texts[:EXAMPLES_SHOWN]:
            answer = f" -> {' '.join(one.answer.split())[:60]}" if one.answer.strip() else ""
            console.say(f"  {' '.join(one.text.split())[:100]}{answer}")


def _texts(
    context: typer.Context, teacher: str, path: Path, labels: str | None, input_column: str | None, instruction: str | None
) -> _Texts:
    """What is read and asked; where the teacher was tuned to answer something else it is said."""
    from nomoat.asking import as_tuned
    from nomoat.distil.label import parse_labels
    from nomoat.distil.table import read_texts

    said = [one.opts[0] for one in context.command.params if one.name in FOR_TASKS and judging.is_given(context, one.name)]
    if said:
        raise UsageError(
            f"--label asks once for each text, for the likeliest label, and has no use for {', '.join(said)}",
            hint="leave out what is for new tasks; --max-cost bounds what labels cost, and a shorter file how often is asked",
        )
    question = as_tuned.question_for(teacher, None if labels is None else parse_labels(labels), instruction)
    with console.waiting(f"reading {path.name}"):
        texts = read_texts(path, input_column=input_column)
    answering.say_notes(question.notes)
    room = {name: context.params[name] for name in ("max_tokens", "reasoning_effort")}
    return _Texts(source=path, input_column=input_column, texts=texts, question=question, room=room)


def _require_no_labels(*given: str | None) -> None:
    """Refuse what means nothing without --label."""
    if any(value is not None for value in given):
        raise UsageError("--labels, --input-column and --instruction are for --label", hint="add --label TEXTS, or leave them out")


def _with_bar(requests: Iterable[Request], total: int) -> Iterator[Request]:
    """The requests. The bar appears with the first: a teacher on this machine is asked without looking at them all before."""
    with console.waiting("looking at what would be sent") as progress:
        for done, request in enumerate(requests):
            progress(done, total)
            yield request


def _ask_consent(model: Responder, requests: Iterable[Request], store: AnswerStore, how: _How, *, parts: Sequence[str] = ()) -> None:
    """Before anything leaves this machine: all that could be sent, at most."""
    from nomoat.asking.preview import preview_requests

    found = preview_requests(model, requests, spending=how.spending, store=store, parts=parts)
    sending.agree([] if found is None else [found], yes=how.yes)


def _require_teacher(teacher: str, stated_terms: str | None) -> None:
    """Before anything is read or fetched for it: that it is here, or elsewhere, and that its terms have an entry."""
    from nomoat import references
    from nomoat.catalog import licences

    if stated_terms is not None:
        licences.require_known(stated_terms)
    if references.names_weights(teacher):
        references.find_files(teacher)


def _say_spent(model: Responder, spent: Spent, notes: Sequence[str]) -> None:
    """Who answered, how often and at what cost, and what has to be known about these answers."""
    reused = f", {spent.num_reused:,} of them reused" if spent.num_reused else ""
    failed = f"; {counted(spent.num_failed, 'request')} failed" if spent.num_failed else ""
    cost = "cost not known" if spent.cost_usd is None else dollars(spent.cost_usd)
    out = f", {spent.bytes_out:,} bytes sent out" if spent.bytes_out else ""
    console.say(f"teacher: {model.ref}, {counted(spent.num_answers, 'answer')}{reused}{failed}{out}; {cost} ({spent.pricing.note})")
    answering.say_notes(notes)


def _end(saved: dict[str, Any], parents: Sequence[Parent], facts: dict[str, Any], how: _How, hint: str) -> None:
    """Terms and place of what was saved, and an exit code that says whether something is missing."""
    from nomoat.catalog import licences
    from nomoat.cli.tune import say_terms

    if saved.get("rows", saved.get("tasks")):
        console.say("terms of what learns from it:")
        say_terms(licences.of_parents(parents))
        if any(parent.licence == "unknown" and parent.name.startswith(saved["teacher"]) for parent in parents):
            console.say("note: if you know the teacher's terms, run it again with --teacher-licence: answers are not asked for again")
        console.say(f"wrote {how.out}")
    else:
        console.say(f"`{how.out}` holds nothing to learn from")
    if how.as_json:
        console.print_json(saved)
    judging.end(str(facts["partial"]), hint)


@contextmanager
def _saying_what_is_missing(facts: dict[str, Any]) -> Iterator[None]:
    """Say why a result is partial where it may not be written: often that is why."""
    try:
        yield
    except UsageError:
        if facts["partial"]:
            console.say(f"partial: {facts['partial']}")
        raise
