"""Tasks that a teacher writes in tags or in a table, though it was shown lines: its fields are known by their names there, too."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

Fields = dict[str, str]  # a task's "instruction", "input" and "output", as far as it has them

TAG = re.compile(r"<(?P<name>[^\W\d]\w{0,30}+)(?:\s[^<>]{0,200}+)?>")
INNER = re.compile(rf"\s*+{TAG.pattern}")
CELL = re.compile(r"(?<!\\)\|")
LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def tagged_tasks(answer: str, fields: Mapping[str, str]) -> list[Fields]:
    """Those of `<instruction>…</instruction>`, with the others behind it. `fields`: which field a name means."""
    found, at, ends = list[Fields](), 0, dict[str, int]()
    while tag := TAG.search(answer, at):
        at, name = tag.end(), tag["name"]
        if (field := fields.get(name.lower())) is None:
            continue
        if -1 < ends.get(name, 0) < at:  # of a teacher that repeats a tag the same end is not sought again and again
            ends[name] = answer.find(f"</{name}>", at)
        if (end := ends[name]) < 0 or (
            field == "instruction" and INNER.match(answer, at)
        ):  # such as `<task>`, around all fields of one
            continue
        if field == "instruction":
            found.append({})
        if found:
            found[-1].setdefault(field, html.unescape(answer[at:end]).strip())
            at = end
    return found


def table_tasks(lines: Sequence[str], fields: Mapping[str, str]) -> list[Fields]:
    """Those of the rows of a Markdown table whose head names an instruction and an output; a row that is not whole is none."""
    found, columns = list[Fields](), list[str]()
    for line in lines:
        cells = _cells(line)
        named = [fields.get(cell.strip("*_` ").lower(), "") for cell in cells]
        if {"instruction", "output"} <= set(named):
            columns = named
        elif columns and len(cells) == len(columns) and any(cell.strip("-: ") for cell in cells):
            texts = [LINE_BREAK.sub("\n", cell).replace("\\|", "|") for cell in cells]
            found.append({field: text for field, text in zip(columns, texts, strict=True) if field})
    return found


def _cells(line: str) -> list[str]:
    """Of a row between bars; none of another line."""
    line = line.strip()
    return [cell.strip() for cell in CELL.split(line[1:-1])] if len(line) > 1 and line[0] == line[-1] == "|" else []
