"""Where suites lie, of the user's own and by their path, and what the TOML of one says."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nomoat import bounds, paths
from nomoat.errors import BadFileError, DataError, UnknownModelError, UsageError
from nomoat.judge.builtin import BUILT_IN
from nomoat.judge.metrics import WRITABLE, Metric
from nomoat.tables import TABLE_SUFFIXES
from nomoat.textfiles import JSONL_SUFFIXES, as_named, composed, not_there, parse_toml, read_text


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
SETTING_TYPES: dict[str, type] = {
    **dict.fromkeys(SuiteFile.__slots__, str),
    **dict.fromkeys(("shots", "max_new_tokens"), int),
    **dict.fromkeys(("chat", "per_token"), bool),
    "stop": list,
}
WRITTEN = {str: '"…"', int: "8", bool: "true", list: '["…"]'}  # a value of that type in TOML


def suite_files(name: str, folder: Path) -> tuple[Path, Path, Path]:
    """Where a suite of that name is written: examples, description, schema. Raises UsageError for a name that is no file's."""
    if not name or any(not (char.isalnum() or char in "-_.") for char in name) or name.startswith((".", "-")):
        raise UsageError(
            f"`{name}` cannot be a suite's name",
            hint="choose letters, digits, `_`, `-`, `.`, the last two not first (--name, in Python: `name`)",
        )
    if not paths.is_name_here(name):
        raise UsageError(f"`{name}` cannot be a suite's name: {paths.NO_NAME_HERE}", hint="choose another --name (in Python: `name`)")
    return _files_beside(folder / f"{name}.toml")


def _files_beside(toml: Path) -> tuple[Path, Path, Path]:
    return toml.with_suffix(".jsonl"), toml, toml.with_suffix(".schema.json")


def own_suites() -> dict[str, Path]:
    """The suites in NOMOAT_HOME, by name, which is in NFC however the file's is."""
    home = paths.suites()
    files = {composed(path.stem): path for path in sorted(home.glob("*.toml"))}
    return {**{composed(path.name): path for path in sorted(home.glob("*")) if path.is_dir()}, **files}


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


def find(ref: str | Path) -> Path | None:
    """The file that `ref` means; None for a built-in suite. A folder that is no suite does not hide one of its name.

    Raises UnknownModelError, and UsageError and DataError for what is not there, or a folder with no suite or several.
    """
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
        f"no suite is called `{ref}`",
        hint=f"{hint}`nomoat suites` lists them, `nomoat suites new FILE` makes one; or give the path of a .toml, .jsonl or .csv",
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


def examples_of(path: Path, settings: SuiteFile) -> Path:
    """The file of a TOML's examples, which is the one that it describes. Raises DataError, BadFileError."""
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


def read_settings(path: Path) -> SuiteFile:
    """What that TOML of a suite says. Raises DataError."""
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
            hint = f"write it as {key} = {WRITTEN[kind]}"
            raise DataError(f"`{path}`: `{key}` is {bounds.shown(value)}, and should be {expected}", hint=hint)
        if isinstance(value, int) and abs(value) >= 10**bounds.MOST_DIGITS:
            hint = f"give a whole number of at most {bounds.MOST_DIGITS} digits"
            raise DataError(f"`{path}`: `{key}` is {bounds.shown(value)}", hint=hint)
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
