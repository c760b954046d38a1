"""What a teacher made, as files: Alpaca JSONL or a table, with a sidecar that says who made it and on what terms."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

from nomoat import __version__, paths, streams, system_errors, whole_files
from nomoat.catalog import sidecar
from nomoat.errors import UsageError
from nomoat.records import Parent
from nomoat.tables import TABLE_SUFFIXES
from nomoat.textfiles import JSONL_SUFFIXES
from nomoat.words import counted

TASKS = ("tasks", JSONL_SUFFIXES)
LABELS = ("labels", TABLE_SUFFIXES)
OTHER_OR_REPLACED = "name another file, or --replace it (in Python: `replace`)"


def require_place(target: Path, what: str, suffixes: Sequence[str]) -> None:
    """Refuse a place where no file can be made, or one whose name says that it holds something else than `what`."""
    if target.is_dir():
        raise UsageError(f"`{target}` is a folder", hint=f"name a file, such as {target / what}{suffixes[0]}")
    if target.suffix.lower() not in suffixes:
        raise UsageError(f"`{target}` does not end as a file of {what} does", hint=f"name one that ends in {', '.join(suffixes)}")
    system_errors.require_writable(target)


def require_other(target: Path, read: Path | None) -> None:
    """Refuse to write over the file that is read, under whatever name, and whatever may be replaced."""
    if read is not None and target.exists() and target.samefile(read):
        raise UsageError(f"`{target}` is the file that is read, and would be lost", hint="name another file")


def left_out_place(target: Path) -> Path:
    """Where the rows stand that have no label: `labelled.left_out.csv` beside `labelled.csv`."""
    return target.with_name(f"{target.stem}.left_out{target.suffix}")


def remove(target: Path) -> bool:
    """Take away a file of an earlier run that would be empty now, and its sidecar; whether nothing is there any more.

    What was changed since, or is no file of ours, stays.
    """
    if target.exists() and (not sidecar.path_of(target).exists() or not _is_as_written(sidecar.find(target))):
        return False
    target.unlink(missing_ok=True)
    sidecar.path_of(target).unlink(missing_ok=True)
    return True


def require_own(target: Path, settings: Mapping[str, Any], *, num_rows: int, num_answers: int | None = None, replace: bool) -> None:
    """Refuse to write over a file that is not an earlier state of the same work, or that holds more than `num_rows`.

    What is left out gets less while more is answered: such a file has to be of no more than `num_answers`, in place of that.
    `settings` decide what it is made of. Nothing at all is put over nothing but an empty file, whatever may be replaced.
    """
    if not target.exists():
        return
    if streams.is_stream(target):  # no file of its own can say beside it who made it
        raise UsageError(f"`{target}` is a pipe or a device, and a file is written", hint="name another file")
    found = sidecar.find(target) if not replace or not num_rows else None
    if not replace:
        if not _is_as_written(found) or found.facts.get("settings") != json.loads(json.dumps(settings)):
            raise UsageError(f"`{target}` is there already, and not from this teacher with these settings", hint=OTHER_OR_REPLACED)
        there = (_num_rows if num_answers is None else _num_answers)(found.facts)
        if there > (now := num_rows if num_answers is None else num_answers):
            what = f"holds {counted(there, 'row')}, and would hold {now:,}"
            if num_answers is not None:
                what = f"holds what {counted(there, 'answer')} left out, and would hold that of {now:,}"
            raise UsageError(f"`{target}` {what}; it is left as it is", hint=OTHER_OR_REPLACED)
    elif not num_rows and target.stat().st_size and not (_is_as_written(found) and found.facts.get("rows") == 0):
        raise UsageError(f"there is nothing to replace `{target}` with; it is left as it is", hint="name another file")


def _num_rows(facts: Mapping[str, Any]) -> int:
    """How many there are in a file, by its facts: tasks, texts with a label, or texts without."""
    return int(facts["rows"] if "rows" in facts else facts["tasks"])


def _num_answers(facts: Mapping[str, Any]) -> int:
    """How many texts had an answer, or were too long for one, when a file was written."""
    return int(sum(facts["labelled"].values()) + facts["unmatched"] + facts["cut_off"] + facts["too_long"])


def _is_as_written(found: sidecar.Sidecar | None) -> TypeGuard[sidecar.Sidecar]:
    return found is not None and found.is_of_this_content


@contextmanager
def saving(
    target: Path,
    write: Callable[[Path], None],
    *,
    teacher: str,
    parents: Sequence[Parent],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
    replace: bool,
    is_left_out: bool = False,
) -> Iterator[dict[str, Any]]:
    """The file that `write` fills, and its sidecar, in their places when the block ends well; else what was there stays.

    Both are written before the block, which is given what the sidecar says. Raises what `require_own` raises.
    """
    num_answers = _num_answers(facts) if is_left_out else None
    require_own(target, settings, num_rows=_num_rows(facts), num_answers=num_answers, replace=replace)
    known = {"nomoat": __version__, "made": datetime.now(UTC).isoformat(timespec="seconds"), "settings": dict(settings), **facts}
    with whole_files.whole_file(target) as part:
        write(part)
        with sidecar.saving(target, sha256=paths.sha256_of(part), teacher=teacher, parents=parents, facts=known):
            yield {"out": str(target), "teacher": teacher, "made_from": [asdict(one) for one in parents], **known}


def write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """JSONL."""
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8", newline="\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str]], *, delimiter: str) -> None:
    """A table with a header; a row may lack columns.

    What is not all ASCII begins with a byte-order mark: without one Excel reads it in the code page of its country, as Korean's CP949.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    written = text.getvalue()
    path.write_bytes(written.encode("utf-8" if written.isascii() else "utf-8-sig"))
