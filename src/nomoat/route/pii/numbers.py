"""How numbers are written in a text in its plainest characters: what stands between their groups, around them and before them."""

from __future__ import annotations

import re

# What may stand between the groups of a number, in the plain text.
GAP = r"[\s._/~\u00b7-]{0,4}"
# Between two cells of a table or a list, whose texts may be quoted. Ordinary tables are full of numbers: what is found over cells has
# more to prove.
CELLS = r"[\s\"']{0,6}[,|:;][\s\"']{0,6}"
GAP_OR_CELLS = rf"(?:{CELLS}|{GAP})"
IN_CELLS = re.compile(r"[,|:;]")
OTHER_CELL = re.compile(r"[,|:;&=]|\A\s*\t\s*\Z")
WORD_REACH = 24  # characters before a number in which a word may say what it is
# From such a word to its number, which often is on the next line, or in the next row of a table.
REACH = r"[^\d\n]{0,20}(?:\n[^\d\n]{0,10})?"
REACH_OF_TABLES = r"[^\d\n]{0,20}(?:(?:[|\t,;][^\d\n]{0,40})?\n(?:[\s|:+-]*\n)?(?:\|[^\d\n]{0,40}|[^\d\n]{0,10}))?"
# Behind digits that are an amount of money: `3500000원`, `1234567890원을`; `원래` is none.
ITS_END = r"(?:으로|까지|부터|에서|이상|이하|입니다|이다|이야|이에요|이고|[이을은의도만에과])?(?![^\W_])"
WON = rf"[^\S\n]?원(?:정|씩)?{ITS_END}"
IN_WON = re.compile(WON)


def has_word_before(words: re.Pattern[str], text: str, start: int) -> bool:
    """Whether one of these words stands before the number that starts there."""
    return words.search(text, max(0, start - WORD_REACH), start) is not None


def without_spaces(gap: str) -> str:
    """What stands between two groups, but for white space."""
    return "".join(gap.split())
