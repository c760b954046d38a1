"""What a teacher made, as files: Alpaca JSONL or a table, with a sidecar that says who made it and on what terms."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nomoat import __version__, paths
from nomoat.catalog import sidecar
from nomoat.errors import UsageError
from nomoat.records import Parent
from nomoat.tasks import TABLE_SUFFIXES

TASKS = ("tasks", (".jsonl", ".ndjson"))
LABELS = ("labels", TABLE_SUFFIXES)


def require_place(target: Path, what: str, suffixes: Sequence[str]) -> None:
    """Refuse a place where no file can be made, or one whose name says that it holds something else than `what`."""
    if target.is_dir():
        raise UsageError(f"`{target}` is a folder", hint=f"name a file: --out {target / what}{suffixes[0]}")
    if target.suffix.lower() not in suffixes:
        raise UsageError(f"`{target}` does not end as a file of {what} does", hint=f"let --out end in {', '.join(suffixes)}")
    paths.require_writable(target)


def require_other(target: Path, read: Path | None) -> None:
    """Refuse to write over the file that is read, under whatever name, and whatever may be replaced."""
    if read is not None and target.exists() and target.samefile(read):
        raise UsageError(f"`{target}` is the file that is read, and would be lost", hint="choose another --out")


def left_out_place(target: Path) -> Path:
    """Where the rows stand that have no label: `labelled.left_out.csv` beside `labelled.csv`."""
    return target.with_name(f"{target.stem}.left_out{target.suffix}")


def remove(target: Path) -> None:
    """Take away a file of an earlier run that would be empty now, and its sidecar."""
    target.unlink(missing_ok=True)
    sidecar.path_of(target).unlink(missing_ok=True)


def require_own(target: Path, settings: Mapping[str, Any], *, num_rows: int, replace: bool) -> None:
    """Refuse to write over a file that is not an earlier state of the same work, or that holds more than `num_rows`.

    `settings` decide what it is made of. Nothing at all is put over nothing but an empty file, whatever may be replaced.
    """
    if not target.exists():
        return
    found = None if replace else sidecar.find(target)
    if not replace:
        if found is None or not found.is_of_this_content or found.facts.get("settings") != json.loads(json.dumps(settings)):
            raise UsageError(
                f"`{target}` is there already, and not from this teacher with these settings",
                hint="choose another --out, or --replace it",
            )
        if (num_there := _num_rows(found.facts)) > num_rows:
            raise UsageError(
                f"`{target}` holds {num_there:,} rows, and would hold {num_rows:,}; it is left as it is",
                hint="choose another --out, or --replace it",
            )
    elif not num_rows and target.stat().st_size:
        raise UsageError(f"there is nothing to replace `{target}` with; it is left as it is", hint="choose another --out")


def _num_rows(facts: Mapping[str, Any]) -> int:
    """How many tasks, or labels, the facts of a file count."""
    return int(facts["tasks"]) if "tasks" in facts else sum(facts.get("labelled", {}).values())


def save(
    target: Path,
    write: Callable[[Path], None],
    *,
    teacher: str,
    parents: Sequence[Parent],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    replace: bool,
) -> dict[str, Any]:
    """The file that `write` fills, whole or not at all, with its sidecar; what that says. Raises what `require_own` raises."""
    require_own(target, settings, num_rows=_num_rows(facts), replace=replace)
    known = {"nomoat": __version__, "made": datetime.now(UTC).isoformat(timespec="seconds"), "settings": dict(settings), **facts}
    with paths.whole_file(target) as part:
        write(part)
        sidecar.save(target, sha256=paths.sha256_of(part), teacher=teacher, parents=parents, facts=known)
    return {"out": str(target), "teacher": teacher, "made_from": [asdict(one) for one in parents], **known}


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """JSONL."""
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]], *, delimiter: str) -> None:
    """A table with a header; a row may lack columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
