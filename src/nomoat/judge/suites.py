"""Suites: questions with known answers. NAME.jsonl holds one example a line, NAME.toml beside it says what they are.

    {"id": "7", "input": "Works well.", "target": "positive", "choices": ["negative", "positive"], "category": "audio"}

An example has either `input` (one user message, through the suite's `prompt` and `system` where it has them) or `messages`
(a conversation, used as it is). `id` is the line's number where none is given. `docs/suites.md` describes every field of both files.
The suites that come with nomoat are in `builtin.py`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from nomoat import matching, paths, whole_files
from nomoat.asking import as_tuned
from nomoat.errors import BadFileError, DataError, UnknownModelError, UsageError
from nomoat.judge import scorers
from nomoat.judge.builtin import BUILT_IN, BuiltIn
from nomoat.judge.examples import ANSWER, Frame, digest_of, read_examples, read_shots, render_example
from nomoat.judge.metrics import METRICS, WRITABLE, Metric
from nomoat.labelling import MAX_LABELS, label_instruction, label_task_messages
from nomoat.records import Example
from nomoat.rows import Given, Rows, Source, read_objects, taken, unit_of
from nomoat.tables import TABLE_SUFFIXES, read_labelled, require_columns
from nomoat.textfiles import JSONL_SUFFIXES, as_named, composed, not_there, of_unknown_kind, parse_json, parse_toml, read_text
from nomoat.words import apart, listed

if TYPE_CHECKING:
    from nomoat.responder import Responder

DEFAULT_MAX_NEW_TOKENS = 32
CODE_MAX_NEW_TOKENS = 768  # as `humaneval` has


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Examples and how their answers are scored. `sha256` names their content, wherever they came from.

    `metric` is what an answer's score is: see `metrics.py`; "judge" answers can only be compared by a judge, "review" answers are
    stored, with what a judge wrote about them, in `folder`. Without `chat`, an example's text is given to a model as it is, no
    template around it, and a choice is scored after `delimiter`. `schema` is what JSON answers must be. `answer_start` is put into the
    model's mouth, and counts as the beginning of its answer: for models on this machine only. `notes` say what has to be known about
    its questions. Without `is_metric_told` nobody said how answers are scored.
    """

    name: str
    metric: Metric
    examples: tuple[Example, ...]
    sha256: str
    title: str = ""
    licence: str = "unknown"
    source: str = ""
    language: str = ""
    prompt_source: str = ""
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    stop: tuple[str, ...] = ()
    chat: bool = True
    delimiter: str = ""
    per_token: bool = False
    answer_start: str = ""
    schema: Mapping[str, Any] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    is_metric_told: bool = field(default=True, compare=False)  # of how it was read, not of what it is

    def answer_in(self, written: str) -> str:
        """What is compared of what a model wrote, which goes on from `answer_start`; what begins as a draft is no part of it.

        Not covered: a draft behind an `answer_start`.
        """
        return matching.without_draft(f"{self.answer_start}{written}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFile:
    """What a suite's TOML may say; anything else in it is an error."""

    name: str
    metric: str = ""
    examples: str = ""
    sha256: str = ""
    title: str = ""
    licence: str = "unknown"
    source: str = ""
    language: str = ""
    prompt_source: str = ""
    system: str = ""
    prompt: str = "{input}"
    shots: int = 0
    shots_from: str = ""
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    chat: bool = True
    delimiter: str | None = None
    per_token: bool = False
    answer_start: str = ""
    schema: str = ""


SUFFIXES = (".toml", *JSONL_SUFFIXES)
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
    called `rows`, and have numbers from 1.

    `instruction` are the words before each text of a table, as `tune` takes them. A table asks for the labels that tuned ones of
    the `models` learned, too.

    A name is looked for in NOMOAT_HOME's `suites` folder, then among the built-in ones. What lies at that path comes before both,
    but for a folder that is no suite.
    Raises DataError with file and line, UnknownModelError, UsageError where a flag is missing or too many.
    """
    if isinstance(ref, Suite):
        return ref
    if not isinstance(ref, str | Path):
        return _of_rows(taken(ref, "rows"), models, input_column, label_column, instruction)
    path = _find(ref)
    _require_fit((path,), input_column, label_column, instruction)
    return _load(ref, path, models, input_column, label_column, instruction)


def _load(
    ref: str | Path, path: Path | None, models: Iterable[str | Responder] = (), input_column: str | None = None,
    label_column: str | None = None, instruction: str | None = None,
) -> Suite:  # fmt: skip
    """`path` is what `_find` found, and fits; see `_require_fit`."""
    if _is_table(path):
        columns, learned = require_columns(path, input_column, label_column), as_tuned.learned_by(models)
        return suite_from_csv(path, *columns, instruction=instruction, learned=learned)
    if path is None:
        return _built_in(BUILT_IN[str(ref)])
    if path.suffix.lower() == ".toml":
        return _load_toml(path)
    beside = path.with_suffix(".toml")
    return _load_toml(beside) if beside.exists() else _assemble(SuiteFile(name=composed(path.stem)), path, path.parent)


def _of_rows(
    rows: Rows, models: Iterable[str | Responder], input_column: str | None, label_column: str | None, instruction: str | None
) -> Suite:
    keys = {key for row in rows.values for key in row}
    if input_column is None and label_column is None and ({"messages", "choices"} & keys or {"input", "target"} <= keys):
        if instruction:
            hint = "name both columns of a table (in Python: `input_column` and `label_column`), or leave the instruction out"
            raise UsageError("an instruction is for tables, and these rows are a suite's examples", hint=hint)
        return _assemble(SuiteFile(name=rows.name), rows, Path())
    columns = require_columns(rows, input_column, label_column, or_else="name them `input` and `target` where answers are free")
    return suite_from_csv(rows, *columns, instruction=instruction, learned=as_tuned.learned_by(models))


def load_suites(refs: Sequence[str], models: Iterable[str | Responder] = (), **how_read: str | None) -> list[Suite]:
    """Each as `load_suite` gives it. Columns and an instruction go to the tables alone, and are refused where there is none."""
    found = [(ref, _find(ref)) for ref in refs]
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
    path: Source, input_column: str, label_column: str, *, instruction: str | None = None, labels: Sequence[str] | None = None,
    learned: Sequence[as_tuned.Learned] = (),
) -> Suite:  # fmt: skip
    """A choice suite from a table: each row asks for its label, and the choices are the labels that occur (or `labels`).

    So are those beside them that a tuned model `learned`, and where one was asked otherwise the suite's notes say so.

    Rows are known by their line, or their number. Raises DataError as `read_labelled` does, for fewer than 2 labels or more than
    256, and for a label that is not among `labels`.
    """
    rows = read_labelled(path, input_column=input_column, label_column=label_column)
    own = {composed(label) for label in labels} if labels is not None else {row.label for row in rows}
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
    words = label_instruction(known) if instruction is None else instruction
    examples = []
    for row in rows:
        if row.label not in known:
            raise DataError(
                f"`{path}`, {unit_of(path)} {row.line}: label `{row.label}` is not one of {', '.join(map(apart, known))}",
                hint="correct it, or add it to `labels`",
            )
        messages = label_task_messages(row.text, known, instruction=words)
        examples.append(Example(id=str(row.line), messages=messages, target=row.label, choices=known))
    return Suite(
        name=composed(path.stem) if isinstance(path, Path) else path.name, metric="choice", examples=tuple(examples),
        sha256=digest_of(examples), source=path.name,
        notes=tuple(as_tuned.notes(own, {*known}, words, learned)),
    )  # fmt: skip


def write_suite(suite: Suite, folder: Path) -> Path:
    """Write FOLDER/NAME.jsonl, with each prompt as the models will see it, and FOLDER/NAME.toml; return the latter's path.

    Raises UsageError for a suite whose scores come from elsewhere, stored or from a judge, and what `suite_files` raises.
    """
    if suite.metric not in WRITABLE:
        raise UsageError(
            f"`{suite.name}` has scores from elsewhere (`{suite.metric}`), which a suite's file cannot hold",
            hint="write the suite that was asked",
        )
    jsonl, toml, schema = suite_files(suite.name, folder)
    with ExitStack() as files:  # all are filled before the first is renamed, on a disk that is full none; the description is the last
        toml_part, jsonl_part = (files.enter_context(whole_files.whole_file(file)) for file in (toml, jsonl))
        jsonl_part.write_text("".join(f"{render_example(example)}\n" for example in suite.examples), encoding="utf-8")
        if suite.schema is not None:
            schema_part = files.enter_context(whole_files.whole_file(schema))
            schema_part.write_text(json.dumps(suite.schema, ensure_ascii=False, indent=2), encoding="utf-8")
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
        toml_part.write_text("".join(lines), encoding="utf-8")
    return toml


def suite_files(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Where a suite of that name is written: examples, description, schema. Raises UsageError for a name that is no file name."""
    if not name or any(not (char.isalnum() or char in "-_.") for char in name) or name.startswith("."):
        raise UsageError(
            f"`{name}` cannot be a suite's name", hint="choose letters, digits, `-`, `_`, `.` (--name, in Python: `name`)"
        )
    return _files_beside(folder / f"{name}.toml")


def _files_beside(toml: Path) -> tuple[Path, Path, Path]:
    return toml.with_suffix(".jsonl"), toml, toml.with_suffix(".schema.json")


def own_suites() -> dict[str, Path]:
    """The suites in NOMOAT_HOME, by name, which is in NFC however the file's is."""
    home = paths.suites()
    files = {composed(path.stem): path for path in sorted(home.glob("*.toml"))}
    return {**{composed(path.name): path for path in sorted(home.glob("*")) if path.is_dir()}, **files}


def outline(name: str) -> tuple[Suite | SuiteFile, int]:
    """What a suite says of itself, and how many examples it has. Raises what `load_suite` raises.

    They are counted, and not read, where its TOML names their metric and their sha256, as `write_suite` does.
    """
    path = _find(name)
    if path is not None and path.suffix.lower() == ".toml":
        settings = _read_settings(path)
        if settings.metric and settings.sha256:
            return settings, sum(bool(line.strip()) for line in read_text(_examples_of(path, settings)).split("\n"))
    suite = _load(name, path)
    return suite, len(suite.examples)


def files_of(name: str) -> tuple[Path, ...]:
    """What there is in NOMOAT_HOME of a suite of yours: its folder, or its files, with the one that makes it known last.

    Files that its TOML names and that have other names are not among them. Raises UnknownModelError.
    """
    own, home = own_suites(), paths.suites()
    place = own.get(composed(name), home / f"{composed(name)}.toml")
    if place.is_dir() and place.parent == home:
        return (place,)
    jsonl, toml, schema = _files_beside(place)
    found = tuple(path for path in (jsonl, schema, toml) if path.is_file() or path.is_symlink())
    if not found or place.parent != home:
        raise UnknownModelError(
            f"no suite of yours is called `{name}`", hint=f"yours are {', '.join(own)}" if own else "you have none"
        )
    return found


def _find(ref: str | Path) -> Path | None:
    """The file that `ref` means; None for a built-in suite. A folder that is no suite does not hide one of its name."""
    path, own, name = as_named(ref), own_suites(), composed(str(ref))
    is_name = name in own or name in BUILT_IN
    is_there = path.exists() and not (is_name and path.is_dir() and len(_suites_in(path)) != 1)
    if isinstance(ref, Path) or len(path.parts) > 1 or is_there or path.suffix.lower() in (*SUFFIXES, *TABLE_SUFFIXES):
        if not path.exists():
            raise not_there(path)
        return _file_in(path) if path.is_dir() else path
    if name in own:
        return _file_in(own[name]) if own[name].is_dir() else own[name]
    if name in BUILT_IN:
        return None
    near = difflib.get_close_matches(name, sorted({*BUILT_IN, *own}), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(f'`{one}`' for one in near)}? " if near else ""
    raise UnknownModelError(
        f"no suite is called `{ref}`", hint=f"{hint}`nomoat suites` lists them; or give the path of a .toml, .jsonl or .csv"
    )


def _file_in(folder: Path) -> Path:
    """The one suite of a folder."""
    found = _suites_in(folder)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"`{folder}` holds {len(found)} suites", hint=f"name one: {', '.join(str(file) for file in found[:5])}")
    raise DataError(f"`{folder}` holds no suite", hint="a suite is NAME.jsonl, with NAME.toml beside it")


def _suites_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.toml")) or sorted(folder.glob("*.jsonl"))


def _load_toml(path: Path) -> Suite:
    settings = _read_settings(path)
    jsonl = _examples_of(path, settings)
    return _assemble(settings, jsonl, jsonl.parent)


def _examples_of(path: Path, settings: SuiteFile) -> Path:
    """The file of a TOML's examples, which is the one that it describes."""
    jsonl = path.parent / (settings.examples or f"{path.stem}.jsonl")
    if not jsonl.exists():
        raise DataError(
            f"`{path}` names examples in `{settings.examples or jsonl.name}`, and there is no such file",
            hint=f"put it beside `{path.name}`, or name the file that holds them there: `examples`",
        )
    if settings.sha256 and paths.sha256_of(jsonl) != settings.sha256:
        raise BadFileError(
            f"`{jsonl}` is not the file that `{path.name}` describes: its sha256 differs",
            hint="if you changed it on purpose, remove the line `sha256` from the .toml",
        )
    return jsonl


def require_metric(name: str) -> Metric:
    """The metric of that name. Raises UsageError."""
    if name not in WRITABLE:
        raise UsageError(f"no metric is called `{name}`", hint=f"known: {', '.join(WRITABLE)}")
    return name


def _read_settings(path: Path) -> SuiteFile:
    try:
        values = parse_toml(read_text(path))
    except ValueError as exc:
        raise DataError(f"`{path}` is not TOML: {exc}", hint='write a key a line: title = "…"') from exc
    for key, value in values.items():
        if key not in SETTING_TYPES:
            raise DataError(f"`{path}` sets `{key}`, which a suite does not have", hint=f"known: {', '.join(SETTING_TYPES)}")
        kind = SETTING_TYPES[key]
        if type(value) is not kind or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
            expected = "a list of texts" if kind is list else f"of type {kind.__name__}"
            raise DataError(f"`{path}`: `{key}` is {value!r}, and should be {expected}", hint=f"write it as {key} = {WRITTEN[kind]}")
    stop = cast(list[str], values.get("stop", []))
    settings = SuiteFile(**{"name": composed(path.stem), **values, "stop": tuple(stop)})
    if settings.metric and settings.metric not in WRITABLE:
        raise DataError(f"`{path}`: no metric is called `{settings.metric}`", hint=f"known: {', '.join(WRITABLE)}")
    if settings.max_new_tokens is not None and settings.max_new_tokens < 1:
        raise DataError(f"`{path}`: max_new_tokens is {settings.max_new_tokens}", hint="give a whole number of at least 1")
    if settings.shots < 0:
        raise DataError(f"`{path}`: shots is {settings.shots}", hint="give how many are to be shown, 0 or more")
    if settings.shots and not settings.shots_from:
        raise DataError(
            f"`{path}`: shots is {settings.shots}, without a file they could come from", hint='write shots_from = "train.jsonl"'
        )
    if settings.answer_start and not settings.chat:
        raise DataError(f"`{path}`: answer_start is for conversations, and chat is false", hint="end the prompt with these words")
    if "{input}" not in settings.prompt:
        raise DataError(f"`{path}`: the prompt does not say where the example's text goes", hint="write {input} there")
    return settings


SETTING_TYPES: dict[str, type] = {
    **dict.fromkeys(SuiteFile.__slots__, str),
    **dict.fromkeys(("shots", "max_new_tokens"), int),
    **dict.fromkeys(("chat", "per_token"), bool),
    "stop": list,
}
WRITTEN = {str: '"…"', int: "8", bool: "true", list: '["…"]'}  # a value of that type in TOML


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
            if wrong := unfit(metric, example, target, schema):
                line, _ = read_objects(jsonl)[at]
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


def unfit(metric: str, example: Example, target: str, schema: Mapping[str, Any] | None) -> str:
    """Why this example cannot be scored against one of its targets by this metric; empty if it can."""
    problems: dict[str, Callable[[], str]] = {
        "choice": lambda: "" if example.choices else "has no choices",
        "code": lambda: "" if ANSWER in target else f"has a target without {ANSWER}, where the answer's code goes",
        "json": lambda: scorers.broken_json(target) if target else "" if schema is not None else "has no target, there is no schema",
        "numeric": lambda: scorers.broken_number(target),
        "regex": lambda: scorers.broken_pattern(target),
    }
    return problems[metric]() if metric in problems else ""


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
