"""`nomoat suites`: the questions there are to ask, and how to make your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat import paths, system_errors, whole_files
from nomoat.cli import completion, console, options
from nomoat.cli.groups import Group
from nomoat.errors import NomoatError, UsageError
from nomoat.textfiles import composed
from nomoat.words import counted

if TYPE_CHECKING:
    from nomoat.judge.builtin import BuiltIn
    from nomoat.judge.suite import Suite
    from nomoat.judge.suite_files import SuiteFile

BASE, KOREAN_BASE = "smollm2-135m", "qwen2.5-1.5b"  # docs/tune.md, "Which base"
QUESTIONS = "A CSV, TSV or JSONL with a text and an answer a row; or conversations, as `tune` takes them."

suites = typer.Typer(
    cls=Group,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="""List suites: questions with known answers, built in and your own.

    \b
    Examples:
      nomoat suites                                 # what there is
      nomoat suites show gsm8k                      # where it comes from, and what a model is asked
      nomoat suites new my.csv                      # your own, from a table
      nomoat eval smollm2-135m gsm8k --limit 50
      nomoat suites rm my                           # remove it again

    A built-in suite is pulled when it is first used, and checked; NOMOAT_MIRROR is asked before its source.
    """,
)


@suites.callback()
def list_suites(context: typer.Context, as_json: options.AsJson = False) -> None:
    """The list, where no other command is given."""
    if context.invoked_subcommand is not None:
        context.default_map = {name: {"as_json": as_json} for name in ("show", "new")}  # `suites --json show X`, too
        return
    rows = _own() + _built_in()
    if as_json:
        console.print_json(rows)
        return
    columns = {
        "SUITE": [row["name"] for row in rows],
        "ITEMS": [f"{row['num_examples']:,}" for row in rows],
        "METRIC": [row["metric"] for row in rows],
        "LANGUAGE": [row["language"] for row in rows],
        "LICENCE": [row["licence"] for row in rows],
        "FROM": [row["from"] for row in rows],
        "WHAT": [row["title"] for row in rows],
    }
    console.print_rows(console.wide_out(), columns, num_heads=1, broken=("LICENCE", "FROM", "WHAT"), numbers=("ITEMS",))


@suites.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="SUITE", help="A name, a .toml, .jsonl, table or folder.", autocompletion=completion.suites)
    ],
    examples: Annotated[int, typer.Option("--examples", "-n", min=0, help="How many examples to print.")] = 2,
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a suite: its source and terms, and its first examples, as a model is asked them.

    \b
    Examples:
      nomoat suites show kobest-copa
      nomoat suites show my.toml -n 5
      nomoat suites show my.csv --input-column text --label-column label
    """
    from nomoat.judge.suite_files import find, own_suites
    from nomoat.judge.suites import load_suite

    with console.waiting(f"reading {name}"):
        suite = load_suite(name, input_column=input_column, label_column=label_column)
    path, listed = find(name), composed(name)
    facts = _facts(suite, is_own=path is not None)
    if path is not None and listed != suite.name and own_suites().get(listed) in (path, path.parent):
        console.say(f"note: `{path}` names it `{suite.name}`, as its results do; commands find it as `{listed}`")
        facts["name"] = listed
    if as_json:
        console.print_json({**facts, "suite_sha256": suite.sha256, "examples": suite.examples[:examples]})  # named as in results, too
        return
    for key, value in facts.items():
        if value != "":
            console.print_text(f"{key.replace('_', ' ')}: {value}")
    for example in suite.examples[:examples]:
        console.print_text(f"\n--- example {example.id}{f' ({example.category})' if example.category else ''}")
        for message in example.messages:
            console.print_text(f"[{message.role}] {message.content}" if suite.chat else message.content)
        if example.alpaca_question:
            console.print_text(f"[user, of a model here with Alpaca's template] {example.alpaca_question}")
        for choice in example.choices:
            console.print_text(f"  {'*' if choice in (example.target, *example.other_targets) else '-'} {choice}")
        if not example.choices and example.target:
            console.print_text("\n".join(f"=> {target}" for target in (example.target, *example.other_targets)))


@suites.command()
def new(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help=QUESTIONS, callback=options.as_named),
    ],
    input_column: options.InputColumn = None,
    label_column: options.LabelColumn = None,
    metric: Annotated[
        str | None,
        typer.Option(help="How answers are scored, if not as guessed.", autocompletion=completion.metrics, show_default=False),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The suite's name, if not the file's.", show_default=False)] = None,
    folder: Annotated[
        Path | None, typer.Option("--to", help="Write it here instead of NOMOAT_HOME/suites.", show_default=False)
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a suite of that name.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a suite from a file of your own: NAME.jsonl with the questions, NAME.toml with what they are.

    \b
    Examples:
      nomoat suites new my.csv
      nomoat suites new tickets.tsv --input-column body --label-column team
      nomoat suites new faq.jsonl --metric rouge --to suites
      nomoat suites new chats.jsonl     # of each conversation, or Alpaca's instruction: what comes before its last answer

    Columns and metric are guessed where you do not say them, and the guesses are printed. Both files may be edited; a changed
    NAME.jsonl is used once the line `sha256`, which says what it was, is out of NAME.toml.
    """
    from nomoat.judge.new_suite import suite_from_file
    from nomoat.judge.suite_files import require_metric
    from nomoat.judge.suites import write_suite

    target = folder or paths.suites()
    with console.waiting(f"reading {file.name}"):
        guess = suite_from_file(
            file,
            input_column=input_column,
            label_column=label_column,
            metric=None if metric is None else require_metric(metric),
            name=name or "",
        )
        _require_no_other_meant(guess.suite.name, target, file)
        toml = write_suite(guess.suite, target, replace=replace)
    for reason in guess.reasons:
        console.say(reason)
    console.say(f"{counted(len(guess.suite.examples), 'example')} in {toml.with_suffix('.jsonl')}, described in {toml}")
    base = KOREAN_BASE if guess.suite.language == "ko" else BASE
    console.say(f"next: nomoat eval {base} {toml if folder else guess.suite.name}")
    if as_json:
        named = {"suite_sha256": guess.suite.sha256, "toml": str(toml), "reasons": guess.reasons}
        console.print_json(_facts(guess.suite, is_own=True) | named)


@suites.command()
def rm(
    names: Annotated[
        list[str],
        typer.Argument(metavar="SUITE...", help="Suites in NOMOAT_HOME/suites, by their names.", autocompletion=completion.own_suites),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where there is no terminal to ask on.")] = False,
) -> None:
    """Remove suites of your own: NAME.jsonl, NAME.toml and NAME.schema.json, or the folder NAME. Files with other names, which
    NAME.toml may name, stay.

    \b
    Examples:
      nomoat suites rm my old      # in this order; it ends at the first that cannot be removed
      nomoat suites rm tickets --yes

    What models were asked of it, and answered, is stored elsewhere: `nomoat rm --answers` removes that.
    """
    for name in names:
        _remove_suite(name, yes)


def _remove_suite(name: str, yes: bool) -> None:
    from nomoat.judge.suite_files import files_of

    files = files_of(name)
    console.confirm_removal(" and ".join(map(str, files)), yes=yes)
    for file in files:
        with system_errors.translate_disk_errors(file, to="remove"):
            if file.is_dir():
                whole_files.remove_folder(file)
            else:
                file.unlink(missing_ok=True)
    console.say(f"{name}: removed {', '.join(file.name for file in files)}; what was asked and answered: `nomoat rm --answers`")


def _require_no_other_meant(name: str, folder: Path, source: Path) -> None:
    """Refuse a built-in suite's name, and one of whose files `source` is one, whatever may be replaced."""
    from nomoat.judge.builtin import BUILT_IN
    from nomoat.judge.suite_files import suite_files

    if name in BUILT_IN:
        raise UsageError(f"`{name}` is a suite that comes with nomoat", hint="choose another --name")
    if any(path.exists() and path.samefile(source) for path in suite_files(name, folder)):
        raise UsageError(
            f"the suite `{name}` in `{folder}` would replace `{source}`, which it is made from", hint="choose another --name"
        )


def _built_in() -> list[dict[str, Any]]:
    """What is known, without their data, of the built-in suites but those whose name means one's own."""
    from nomoat.catalog.datasets import dataset
    from nomoat.judge.builtin import BUILT_IN
    from nomoat.judge.suite_files import own_suites

    own = own_suites()
    found = [(suite, dataset(suite.dataset)) for suite in BUILT_IN.values() if suite.name not in own]
    return [_row(suite, suite.num_examples, licence=data.licence, source=data.citation, of=suite) for suite, data in found]


def _own() -> list[dict[str, Any]]:
    """The suites in NOMOAT_HOME; one that cannot be read says why in its title."""
    from nomoat.judge.suite_files import own_suites
    from nomoat.judge.suites import outline

    rows = []
    for name in own_suites():
        try:
            suite, num_examples = outline(name)
            row = _row(suite, num_examples, licence=suite.licence, source=suite.source)
            rows.append(row | {"name": name})  # its TOML may call it otherwise
        except NomoatError as error:
            empty = {"metric": "?", "num_examples": 0, "language": "", "licence": "", "from": "yours", "source": ""}
            rows.append({"name": name, "title": f"cannot be read: {error.message}", **empty})
    return rows


def _row(
    suite: Suite | SuiteFile | BuiltIn, num_examples: int, *, licence: str, source: str, of: BuiltIn | None = None
) -> dict[str, Any]:
    """What the list tells of a suite. `of`: the built-in one that it is; None for one's own, which was read from a file."""
    from nomoat.catalog.datasets import where_from

    return {
        "name": suite.name,
        "title": suite.title,
        "metric": suite.metric,
        "num_examples": num_examples,
        "language": suite.language,
        "licence": licence,
        "from": "yours" if of is None else where_from(of.dataset),
        "source": source,
    }


def _facts(suite: Suite, *, is_own: bool) -> dict[str, Any]:
    from nomoat.judge.builtin import BUILT_IN

    of = None if is_own else BUILT_IN[suite.name]
    return {
        **_row(suite, len(suite.examples), licence=suite.licence, source=suite.source, of=of),
        "prompt_source": suite.prompt_source,
        "max_new_tokens": suite.max_new_tokens,
        "answer_start": suite.answer_start,
        "suite_digest": suite.sha256,  # of examples and start of answer; the TOML's `sha256` is that of the JSONL
    }
