"""Suites: questions with known answers. NAME.jsonl holds one example a line, NAME.toml beside it says what they are.

    {"id": "7", "input": "Works well.", "target": "positive", "choices": ["negative", "positive"], "category": "audio"}

An example has either `input` (one user message, through the suite's `prompt` and `system` where it has them) or `messages`
(a conversation, used as it is). `id` is the line's number where none is given. `docs/suites.md` describes every field of both files.
The suites that come with nomoat are in `builtin.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from nomoat import paths, whole_files
from nomoat.asking import as_tuned
from nomoat.conversations import entries, is_lesson, is_prompt
from nomoat.errors import DataError, UsageError
from nomoat.judge import scorers
from nomoat.judge.builtin import BUILT_IN, BuiltIn
from nomoat.judge.examples import ANSWER, Frame, digest_of, read_examples, read_shots, render_example
from nomoat.judge.metrics import METRICS, WRITABLE, Metric
from nomoat.judge.new_suite import suite_of_conversations
from nomoat.judge.suite import CODE_MAX_NEW_TOKENS, DEFAULT_MAX_NEW_TOKENS, Suite, unfit
from nomoat.judge.suite_files import SUFFIXES, SuiteFile, examples_of, find, read_settings, suite_files
from nomoat.labelling import MAX_LABELS, kept_question, messages_of
from nomoat.records import Example
from nomoat.rows import Given, Rows, Source, read_objects, taken, unit_of
from nomoat.tables import TABLE_SUFFIXES, read_labelled, require_columns
from nomoat.textfiles import composed, of_unknown_kind, parse_json, read_text
from nomoat.words import listed

if TYPE_CHECKING:
    from nomoat.responder import Responder

# What a suite and its TOML call by the same names, in the order in which it is written.
SHARED = (
    "licence", "source", "language", "prompt_source", "max_new_tokens", "stop", "chat", "delimiter", "per_token", "answer_start",
)  # fmt: skip


def load_suite(
    ref: Given | Suite, *, input_column: str | None = None, label_column: str | None = None, instruction: str | None = None,
    models: Iterable[str | Responder] = (),
) -> Suite:  # fmt: skip
    """The suite of that name, or of that file: a folder, a .toml, a .jsonl, or a table with its two columns named.

    Rows in place of a file (see `rows.source`) are what a .jsonl of them would be, or with their columns named a table. They are
    called `rows`, and have numbers from 1. A .jsonl without a TOML may also hold conversations with their answers, see `new_suite`.

    `instruction` are the words before each text of a table, or with `{text}` in them all that is asked, as `tune` takes them. A
    table asks for the labels that tuned ones of the `models` learned, too, and by the instruction that all of them learned, where
    there is one and none is given.

    A name is looked for in NOMOAT_HOME's `suites` folder, then among the built-in ones. What lies at that path comes before both,
    but for a folder that is no suite.
    Raises DataError with file and line, UnknownModelError, UsageError where a flag is missing or too many.
    """
    if isinstance(ref, Suite):
        return ref
    if not isinstance(ref, str | Path):
        return _of_rows(taken(ref, "rows"), models, input_column, label_column, instruction)
    path = find(ref)
    _require_fit((path,), input_column, label_column, instruction)
    return _load(ref, path, models, input_column, label_column, instruction)


def _load(
    ref: str | Path, path: Path | None, models: Iterable[str | Responder] = (), input_column: str | None = None,
    label_column: str | None = None, instruction: str | None = None,
) -> Suite:  # fmt: skip
    """`path` is what `find` found, and fits; see `_require_fit`."""
    if _is_table(path):
        return suite_from_csv(path, *require_columns(path, input_column, label_column), instruction=instruction, models=models)
    if path is None:
        return _built_in(BUILT_IN[str(ref)])
    if path.suffix.lower() == ".toml":
        return _load_toml(path)
    beside = path.with_suffix(".toml")
    return _load_toml(beside) if beside.exists() else _without_toml(composed(path.stem), path, path.parent)


def _of_rows(
    rows: Rows, models: Iterable[str | Responder], input_column: str | None, label_column: str | None, instruction: str | None
) -> Suite:
    keys = {key for row in rows.values for key in row}
    are_examples = bool({"messages", "choices"} & keys or {"input", "target"} <= keys)
    if input_column is None and label_column is None and (are_examples or is_lesson(rows.values[0])):
        if instruction:
            hint = "name both columns of a table (in Python: `input_column` and `label_column`), or leave the instruction out"
            raise UsageError("an instruction is for tables, and these rows are a suite's examples", hint=hint)
        return _without_toml(rows.name, rows, Path())
    columns = require_columns(rows, input_column, label_column, or_else="name them `input` and `target` where answers are free")
    return suite_from_csv(rows, *columns, instruction=instruction, models=models)


def load_suites(refs: Sequence[str], models: Iterable[str | Responder] = (), **how_read: str | None) -> list[Suite]:
    """Each as `load_suite` gives it. Columns and an instruction go to the tables alone, and are refused where there is none."""
    found = [(ref, find(ref)) for ref in refs]
    _require_fit([path for _ref, path in found], *how_read.values())
    return [_load(ref, path, models, **(how_read if _is_table(path) else {})) for ref, path in found]


def _is_table(path: Path | None) -> TypeGuard[Path]:
    return path is not None and path.suffix.lower() in TABLE_SUFFIXES


def _require_fit(found: Sequence[Path | None], *words: str | None) -> None:
    """Refuse files of no known kind, and words about tables where there is none: before anything is read or pulled."""
    for path in found:
        if path is not None and path.suffix.lower() not in (*SUFFIXES, *TABLE_SUFFIXES):
            raise of_unknown_kind(path, f"suites end in {listed(SUFFIXES, last='or')}, tables in {', '.join(TABLE_SUFFIXES)}")
    if any(words) and not any(_is_table(path) for path in found):
        raise UsageError(
            "an input column, a label column and an instruction are for tables (CSV, TSV)", hint="a suite needs none of them"
        )


def suite_from_csv(
    path: Source, input_column: str, label_column: str, *, instruction: str | None = None, models: Iterable[str | Responder] = (),
) -> Suite:  # fmt: skip
    """A choice suite from a table: each row asks for its label, and the choices are the labels that occur.

    So are those beside them that tuned ones of the `models` learned, and where one was asked otherwise the suite's notes say so. An
    instruction that all of them learned is used where none is given.

    Rows are known by their line, or their number. Raises DataError as `read_labelled` does, and for fewer than 2 labels or more than
    256.
    """
    rows = read_labelled(path, input_column=input_column, label_column=label_column)
    own, models = {row.label for row in rows}, list(models)
    learned = as_tuned.learned_by(models)
    known = tuple(sorted(as_tuned.labels_with(own, learned)))
    if len(known) < 2:
        raise DataError(
            f"`{path}`: every row has the {label_column} `{known[0]}`", hint="a choice needs at least two different labels"
        )
    if len(known) > MAX_LABELS:
        raise DataError(
            f"`{path}`: column `{label_column}` holds {len(known):,} different labels, and at most {MAX_LABELS} can be chosen from",
            hint="is it the label column? free answers are written as a .jsonl suite with the metric `exact`",
        )
    in_their_words = as_tuned.common_instruction(own, models, learned) if instruction is None else None
    instruction = instruction if in_their_words is None else in_their_words
    question = kept_question(known, instruction)
    examples = tuple(
        Example(id=str(row.line), messages=messages_of(question, row.text), target=row.label, choices=known) for row in rows
    )
    return Suite(
        name=composed(path.stem) if isinstance(path, Path) else path.name, metric="choice", examples=examples,
        sha256=digest_of(examples), source=path.name,
        notes=(
            *([] if in_their_words is None else [as_tuned.in_common_words(learned)]),
            *as_tuned.notes(own, {*known}, instruction, learned),
        ),
    )  # fmt: skip


def write_suite(suite: Suite, folder: Path, *, replace: bool = False) -> Path:
    """Write FOLDER/NAME.jsonl, with each prompt as the models will see it, and FOLDER/NAME.toml; return the latter's path.

    Raises UsageError for a suite whose scores come from elsewhere, stored or from a judge, for one of that name that is there already
    and not to be replaced, and what `suite_files` raises.
    """
    if suite.metric not in WRITABLE:
        raise UsageError(
            f"`{suite.name}` has scores from elsewhere (`{suite.metric}`), which a suite's file cannot hold",
            hint="write the suite that was asked",
        )
    jsonl, toml, schema = suite_files(suite.name, folder)
    if not replace and (there := [path for path in (jsonl, toml, schema) if path.exists()]):
        raise UsageError(
            f"there is a suite `{suite.name}` in `{folder}` already: {', '.join(f'`{path.name}`' for path in there)}",
            hint="choose another --name, or --replace it (in Python: `name`, `replace`)",
        )
    with ExitStack() as files:  # all are filled before the first is renamed, on a disk that is full none; the description is the last
        toml_part, jsonl_part = (files.enter_context(whole_files.whole_file(file)) for file in (toml, jsonl))
        with jsonl_part.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{render_example(example)}\n" for example in suite.examples)
        if suite.schema is not None:
            schema_part = files.enter_context(whole_files.whole_file(schema))
            schema_part.write_text(json.dumps(suite.schema, ensure_ascii=False, indent=2), encoding="utf-8", newline="\n")
        values = {
            "name": suite.name,
            "title": suite.title,
            "metric": suite.metric,
            "examples": jsonl.name,
            "sha256": paths.sha256_of(jsonl_part),
            "schema": "" if suite.schema is None else schema.name,
            **{name: getattr(suite, name) for name in SHARED},
        }
        # A JSON string is a TOML string too, but for DEL, which TOML wants escaped.
        lines = [
            f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
            for key, value in values.items()
            if value not in ("", ()) or (key == "delimiter" and not suite.chat)  # which is a space where none is said
        ]
        toml_part.write_text("".join(lines), encoding="utf-8", newline="\n")
    return toml


def outline(name: str) -> tuple[Suite | SuiteFile, int]:
    """What a suite says of itself, and how many examples it has. Raises what `load_suite` raises.

    They are counted, and not read, where its TOML names their metric and their sha256, as `write_suite` does.
    """
    path = find(name)
    if path is not None and path.suffix.lower() == ".toml":
        settings = read_settings(path)
        if settings.metric and settings.sha256:
            return settings, sum(bool(line.strip()) for line in read_text(examples_of(path, settings)).split("\n"))
    suite = _load(name, path)
    return suite, len(suite.examples)


def _load_toml(path: Path) -> Suite:
    settings = read_settings(path)
    jsonl = examples_of(path, settings)
    return _assemble(settings, jsonl, jsonl.parent)


def _without_toml(name: str, source: Source, folder: Path) -> Suite:
    """Of examples, or of conversations with their answers, as `suites new` makes it of these.

    Raises DataError for a table's rows with completions, of which `suites new` may make one.
    """
    where, first = (found := entries(source))[0]
    if is_lesson(first):
        return suite_of_conversations(found, source, name=name).suite
    if is_prompt(first) and first.get("target") is None:
        raise DataError(
            f"`{source}`, {where}: beside its `prompt` and `completion`, another column may be the question or the right answer",
            hint="make a suite of it with `nomoat suites new`, which also takes the columns by --input-column and --label-column "
            "(in Python: `input_column` and `label_column`)",
        )
    return _assemble(SuiteFile(name=name), source, folder)


def _assemble(settings: SuiteFile, jsonl: Source, folder: Path) -> Suite:
    """`folder`: where the other files lie that the settings name."""
    delimiter = settings.delimiter if settings.delimiter is not None else "" if settings.chat else " "
    frame = Frame(
        system=settings.system,
        prompt=settings.prompt,
        chat=settings.chat,
        delimiter=delimiter,
        shots=read_shots(folder / settings.shots_from, settings.shots) if settings.shots else (),
    )
    examples = read_examples(jsonl, frame, needs_target=not settings.metric or METRICS[settings.metric].needs_target)
    metric = settings.metric or _metric_of(examples)
    max_new_tokens = settings.max_new_tokens or (CODE_MAX_NEW_TOKENS if metric == "code" else DEFAULT_MAX_NEW_TOKENS)
    schema = _read_schema(folder / settings.schema) if settings.schema else None
    for at, example in enumerate(examples):
        if not settings.chat and (example.follows or len(example.messages) > 1):
            raise DataError(
                f"`{jsonl}`: example `{example.id}` is part of a conversation, and chat is false",
                hint="write all that comes before into its `input`, or leave `chat = false` out",
            )
        if metric == "choice" and example.follows:
            raise DataError(
                f"`{jsonl}`: example `{example.id}` follows another, and a choice is no answer that a conversation goes on from",
                hint="write what was said before into its `messages`",
            )
        for target in (example.target, *example.other_targets):
            if wrong := unfit(metric, example, target, schema, chat=settings.chat):
                line, _ = next(islice(read_objects(jsonl), at, None))
                raise DataError(
                    f"`{jsonl}`, {unit_of(jsonl)} {line}: example `{example.id}` {wrong}, and the metric is `{metric}`",
                    hint="correct that line, or set another `metric` in the .toml",
                )
    return Suite(
        name=settings.name,
        metric=metric,
        examples=examples,
        sha256=digest_of(examples, answer_start=settings.answer_start),
        title=settings.title,
        schema=schema,
        is_metric_told=bool(settings.metric),
        **{**{name: getattr(settings, name) for name in SHARED}, "delimiter": delimiter, "max_new_tokens": max_new_tokens},
    )


def _metric_of(examples: Sequence[Example]) -> Metric:
    """How answers are scored where no TOML says it."""
    if all(example.choices for example in examples):
        return "choice"
    return "code" if all(ANSWER in target for example in examples for target in (example.target, *example.other_targets)) else "exact"


def _read_schema(path: Path) -> Mapping[str, Any]:
    schema = parse_json(read_text(path), path)
    if wrong := scorers.broken_schema(schema):
        raise DataError(f"`{path}`: the schema {wrong}", hint="correct the file; https://json-schema.org says what a schema may hold")
    return cast(Mapping[str, Any], schema)


def _built_in(suite: BuiltIn) -> Suite:
    """The suite with its examples; its data is pulled the first time, and checked."""
    from nomoat.catalog.datasets import dataset, pull_dataset

    facts, folder = dataset(suite.dataset), pull_dataset(suite.dataset)
    examples = tuple(suite.read(folder))
    return Suite(
        name=suite.name,
        metric=suite.metric,
        examples=examples,
        sha256=digest_of(examples, answer_start=suite.settings.get("answer_start", "")),
        title=suite.title,
        licence=facts.licence,
        source=facts.citation,
        language=suite.language,
        prompt_source=suite.prompt_source,
        folder=folder if METRICS[suite.metric].origin == "stored" else None,
        notes=suite.notes,
        **suite.settings,
    )
