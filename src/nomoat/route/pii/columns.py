"""Columns of tables, as CSV and Markdown have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

AROUND = " \r\"'`*"
ARGUMENTS = re.compile(r"\([^(),]*,[^()]*\)")  # of a call, which head no columns


def cells_under(text: str, head: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str], Sequence[str]]]:
    """The cells of columns that such a word alone heads, each with its head and the heads of all columns. A row has as many cells as
    the head; a comma may be one within brackets."""
    mark, heads, named = "", list[str](), dict[int, re.Match[str]]()
    for line in text.split("\n"):
        if not named or len(cells := line.split(mark)) != len(heads):
            mark, heads, named = _headed(line, head)
        else:
            yield from ((cells[column].strip(AROUND), word, heads) for column, word in named.items())


def _headed(line: str, head: re.Pattern[str]) -> tuple[str, list[str], dict[int, re.Match[str]]]:
    """What parts the cells of a table's head, its cells, and those that are such a word."""
    for mark in (";|\t" if ARGUMENTS.search(line) else ",;|\t") if head.search(line) else ():
        heads = line.split(mark)
        named = {column: word for column, cell in enumerate(heads) if (word := head.fullmatch(cell.strip(AROUND)))}
        if len(heads) > 1 and named:
            return mark, heads, named
    return "", [], {}
