"""Suites: questions with known answers. NAME.jsonl holds one example a line, NAME.toml beside it says what they are.

    {"id": "7", "input": "Works well.", "target": "positive", "choices": ["negative", "positive"], "category": "audio"}

An example has either `input` (one user message, through the suite's `prompt` and `system` where it has them) or `messages`
(a conversation, used as it is). `id` is the line's number where none is given; `choices` and `category` may be missing.

    name = "reviews"              metric = "choice"     # or "exact"
    examples = "reviews.jsonl"    sha256 = "…"          # of that file; checked
    licence = "mit"               source = "https://…"
    max_new_tokens = 32           per_token = false     # see scorers.py
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nomoat import paths
from nomoat.errors import BadFileError, DataError, UnknownModelError, UsageError
from nomoat.judge.examples import digest_of, read_examples, render_example
from nomoat.records import Example, Message
from nomoat.tasks import label_task_messages, read_labelled, read_table
from nomoat.textfiles import read_jsonl, read_text

Metric = Literal["exact", "choice", "review"]

TABLE_SUFFIXES = (".csv", ".tsv", ".tab")
BUILT_IN = ("vicuna80",)
MAX_LABELS = 256  # each label is scored for each example; more than this is hardly a label column
DEFAULT_MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """Examples and how their answers are scored. `sha256` names their content, wherever they came from.

    `metric`: "exact" compares the written answer, "choice" takes the likeliest of the choices, "review" reads what a judge
    wrote about stored answers. `folder` holds the reviews of a "review" suite.
    """

    name: str
    metric: Metric
    examples: tuple[Example, ...]
    sha256: str
    licence: str = "unknown"
    source: str = ""
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    per_token: bool = False
    folder: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a suite's TOML may say; anything else in it is an error."""

    name: str
    metric: Metric | None = None
    examples: str = ""
    sha256: str = ""
    licence: str = "unknown"
    source: str = ""
    system: str = ""
    prompt: str = "{input}"
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    per_token: bool = False


def load_suite(ref: str | Path | Suite, *, input_column: str | None = None, label_column: str | None = None) -> Suite:
    """The suite of that name, or of that file: a folder, a .toml, a .jsonl, or a table with its two columns named.

    A name is looked for in NOMOAT_HOME's `suites` folder, then among the built-in ones.
    Raises DataError with file and line, UnknownModelError, UsageError where a flag is missing or too many.
    """
    if isinstance(ref, Suite):
        return ref
    path = _find(ref)
    if path is not None and path.suffix.lower() in TABLE_SUFFIXES:
        return suite_from_csv(path, *_both_columns(path, input_column, label_column))
    if input_column or label_column:
        raise UsageError("--input-column and --label-column are for tables (CSV, TSV)", hint="a suite needs neither")
    if path is None:
        return _vicuna80()
    if path.suffix.lower() == ".toml":
        return _load_toml(path)
    if path.suffix.lower() == ".jsonl":
        beside = path.with_suffix(".toml")
        return _load_toml(beside) if beside.exists() else _assemble(Settings(name=path.stem), path)
    raise UsageError(
        f"`{path}`: nomoat cannot tell what kind of file this is",
        hint=f"suites end in .toml or .jsonl, tables in {', '.join(TABLE_SUFFIXES)}",
    )


def suite_from_csv(
    path: Path, input_column: str, label_column: str, *, instruction: str | None = None, labels: Sequence[str] | None = None
) -> Suite:
    """A choice suite from a table: each row asks for its label, and the choices are the labels that occur (or `labels`).

    Rows are known by their line. Raises DataError as `read_labelled` does, for fewer than 2 labels or more than 256, and for a
    label that is not among `labels`.
    """
    rows = read_labelled(path, input_column=input_column, label_column=label_column)
    known = tuple(sorted(set(labels) if labels is not None else {row.label for row in rows}))
    if len(known) < 2:
        raise DataError(
            f"`{path}`: every row has the {label_column} `{known[0]}`", hint="a choice needs at least two different labels"
        )
    if len(known) > MAX_LABELS:
        raise DataError(
            f"`{path}`: column `{label_column}` holds {len(known):,} different labels, and at most {MAX_LABELS} can be chosen from",
            hint="is it the label column? free answers are written as a .jsonl suite with the metric `exact`",
        )
    examples = []
    for row in rows:
        if row.label not in known:
            raise DataError(f"`{path}`, line {row.line}: label `{row.label}` is not one of {', '.join(known)}")
        messages = label_task_messages(row.text, known, instruction=instruction)
        examples.append(Example(id=str(row.line), messages=messages, target=row.label, choices=known))
    return Suite(name=path.stem, metric="choice", examples=tuple(examples), sha256=digest_of(examples), source=str(path.name))


def write_suite(suite: Suite, folder: Path) -> Path:
    """Write FOLDER/NAME.jsonl, with each prompt as the models will see it, and FOLDER/NAME.toml; return the latter's path.

    Raises UsageError for a name that is no file name, or a suite that only stored reviews can score.
    """
    if suite.metric == "review":
        raise UsageError(f"`{suite.name}` is scored by stored reviews, which a suite file cannot hold")
    if not suite.name or any(not (char.isalnum() or char in "-_.") for char in suite.name) or suite.name.startswith("."):
        raise UsageError(f"`{suite.name}` cannot be a suite's name", hint="use letters, digits, `-`, `_` and `.`")
    jsonl, toml = folder / f"{suite.name}.jsonl", folder / f"{suite.name}.toml"
    with paths.whole_file(jsonl) as part:
        part.write_text("".join(f"{render_example(example)}\n" for example in suite.examples), encoding="utf-8")
    values = {
        "name": suite.name,
        "metric": suite.metric,
        "examples": jsonl.name,
        "sha256": paths.sha256_of(jsonl),
        "licence": suite.licence,
        "source": suite.source,
        "max_new_tokens": suite.max_new_tokens,
        "per_token": suite.per_token,
    }
    with paths.whole_file(toml) as part:
        # A JSON string is a TOML string too, but for DEL, which TOML wants escaped.
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f") for key, value in values.items()]
        part.write_text("".join(lines), encoding="utf-8")
    return toml


def _find(ref: str | Path) -> Path | None:
    """The file that `ref` means; None for a built-in suite."""
    path = Path(ref)
    if isinstance(ref, Path) or len(path.parts) > 1 or path.exists() or path.suffix.lower() in (".toml", ".jsonl", *TABLE_SUFFIXES):
        if not path.exists():
            raise DataError(f"`{path}`: there is no such file")
        return _file_in(path) if path.is_dir() else path
    home = paths.home() / "suites"
    if (home / ref).is_dir():
        return _file_in(home / ref)
    if (home / f"{ref}.toml").exists():
        return home / f"{ref}.toml"
    if ref in BUILT_IN:
        return None
    known = sorted({*BUILT_IN, *(entry.stem for entry in home.glob("*") if entry.is_dir() or entry.suffix == ".toml")})
    near = difflib.get_close_matches(str(ref), known, n=3, cutoff=0.5) or known
    raise UnknownModelError(
        f"no suite is called `{ref}`", hint=f"known: {', '.join(near)}; or give the path of a .toml, .jsonl or .csv"
    )


def _file_in(folder: Path) -> Path:
    """The one suite of a folder."""
    for pattern in ("*.toml", "*.jsonl"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"`{folder}` holds {len(found)} suites", hint=f"name one: {', '.join(str(file) for file in found[:5])}")
    raise DataError(f"`{folder}` holds no suite", hint="a suite is NAME.jsonl, with NAME.toml beside it")


def _both_columns(path: Path, input_column: str | None, label_column: str | None) -> tuple[str, str]:
    if input_column is None or label_column is None:
        missing = "--input-column" if input_column is None else "--label-column"
        columns = ", ".join(name or "(no name)" for name in read_table(path)[0])
        raise UsageError(
            f"`{path.name}` is a table, and {missing} does not say which column to use", hint=f"its columns are: {columns}"
        )
    return input_column, label_column


def _load_toml(path: Path) -> Suite:
    settings = _read_settings(path)
    jsonl = path.parent / (settings.examples or f"{path.stem}.jsonl")
    if not jsonl.exists():
        raise DataError(f"`{path}` names examples in `{jsonl.name}`, and there is no such file")
    if settings.sha256 and paths.sha256_of(jsonl) != settings.sha256:
        raise BadFileError(
            f"`{jsonl}` is not the file that `{path.name}` describes: its sha256 differs",
            hint="if you changed it on purpose, remove the line `sha256` from the .toml",
        )
    return _assemble(settings, jsonl)


def _read_settings(path: Path) -> Settings:
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as exc:
        raise DataError(f"`{path}` is not TOML: {exc}") from exc
    defaults = Settings(name=path.stem)
    known = {name: str if name == "metric" else type(getattr(defaults, name)) for name in Settings.__slots__}
    for key, value in values.items():
        if key not in known:
            raise DataError(f"`{path}` sets `{key}`, which a suite does not have", hint=f"known: {', '.join(known)}")
        if type(value) is not known[key]:
            raise DataError(f"`{path}`: `{key}` is {value!r}, and should be of type {known[key].__name__}")
    settings = Settings(**{"name": path.stem, **values})
    if settings.metric not in (None, "exact", "choice"):
        raise DataError(f"`{path}`: metric is `{settings.metric}`", hint="known: exact, choice")
    if settings.max_new_tokens < 1:
        raise DataError(f"`{path}`: max_new_tokens is {settings.max_new_tokens}", hint="give a whole number of at least 1")
    if "{input}" not in settings.prompt:
        raise DataError(f"`{path}`: the prompt does not say where the example's text goes", hint="write {input} there")
    return settings


def _assemble(settings: Settings, jsonl: Path) -> Suite:
    examples = read_examples(jsonl, system=settings.system, prompt=settings.prompt)
    metric: Metric = settings.metric or ("choice" if all(example.choices for example in examples) else "exact")
    if metric == "choice":
        for example in examples:
            if not example.choices:
                raise DataError(f"`{jsonl}`: example `{example.id}` has no choices, and the metric is `choice`")
    return Suite(
        name=settings.name,
        metric=metric,
        examples=examples,
        sha256=digest_of(examples),
        licence=settings.licence,
        source=settings.source,
        max_new_tokens=settings.max_new_tokens,
        per_token=settings.per_token,
    )


def _vicuna80() -> Suite:
    """The Vicuna blog's questions; GPT-4's reviews of the answers lie in the same folder."""
    from nomoat.catalog.datasets import dataset, pull_dataset

    return review_suite("vicuna80", pull_dataset("vicuna80"), licence=dataset("vicuna80").licence, source=dataset("vicuna80").citation)


def review_suite(name: str, folder: Path, *, licence: str = "unknown", source: str = "") -> Suite:
    """A suite in FastChat's layout: question.jsonl, answer/, review/. Raises DataError."""
    examples = []
    for line, row in read_jsonl(folder / "question.jsonl"):
        text, number = row.get("text"), row.get("question_id")
        if not isinstance(text, str) or not isinstance(number, int | str):
            raise DataError(f"`{folder / 'question.jsonl'}`, line {line}: a question has a `question_id` and a `text`")
        messages = (Message(role="user", content=text),)
        examples.append(Example(id=str(number), messages=messages, target="", category=str(row.get("category", ""))))
    return Suite(
        name=name, metric="review", examples=tuple(examples), sha256=digest_of(examples), licence=licence, source=source, folder=folder
    )
