"""Columns of tables, as CSV and Markdown have them."""

from __future__ import annotations

import re
from collections.abc import Iterator

AROUND = " \r\"'`*"
ARGUMENTS = re.compile(r"\([^(),]*,[^()]*\)")  # of a call, which head no columns


def cells_under(text: str, head: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str], str]]:
    """The cells of columns that such a word alone heads, each with its head and the line of all heads. A row has as many cells as the
    head; a comma may be one within brackets."""
    mark, columns, named, heads = "", 0, dict[int, re.Match[str]](), ""
    for line in text.split("\n"):
        if not named or len(cells := line.split(mark)) != columns:
            (mark, columns, named), heads = _headed(line, head), line
        else:
            yield from ((cells[column].strip(AROUND), word, heads) for column, word in named.items())


def _headed(line: str, head: re.Pattern[str]) -> tuple[str, int, dict[int, re.Match[str]]]:
    """What parts the cells of a table's head, how many there are, and those that are such a word."""
    for mark in (";|\t" if ARGUMENTS.search(line) else ",;|\t") if head.search(line) else ():
        heads = line.split(mark)
        named = {column: word for column, cell in enumerate(heads) if (word := head.fullmatch(cell.strip(AROUND)))}
        if len(heads) > 1 and named:
            return mark, len(heads), named
    return "", 0, {}
