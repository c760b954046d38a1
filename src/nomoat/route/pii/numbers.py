"""How numbers are written in a text in its plainest characters: what stands between their groups, around them and before them."""

from __future__ import annotations

import re

# What may stand between the groups of a number, in the plain text: signs with as many blanks around them as there are, or blanks.
SIGN = r"[._/~\u00b7\u3002-]"
BLANKS = r"[^\S\n]*+\n?[^\S\n]*+"
GAP = rf"(?:(?:\s|{SIGN}){{0,4}}|(?:{BLANKS}{SIGN}){{1,6}}{BLANKS})"
# Between two cells of a table or a list, whose texts may be quoted. Ordinary tables are full of numbers: what is found over cells has
# more to prove. More blanks than a gap has part columns.
COLUMNS = r"[^\S\n]{5,}+"
CELLS = r"[\s\"']{0,40}+[,|:;][\s\"']{0,40}+"
GAP_OR_CELLS = rf"(?:{CELLS}|{COLUMNS}|{GAP})"
IN_COLUMNS = re.compile(COLUMNS)
IN_CELLS = re.compile(rf"[,|:;]|\A{COLUMNS}\Z")
OTHER_CELL = re.compile(rf"[,|:;&=]|\A\s*\t\s*\Z|\A{COLUMNS}\Z")
# The next key of JSON, YAML or a form, up to its value, which may be the first of a list.
IS = r"[\s\"']{0,3}[:=][\s\"']{0,3}(?:\[[\s\"']{0,40}+)?"
NEXT = r"[\s\"']{0,3}(?:\s{0,40}+\])?[,;&\n][\s\"']{0,40}+"
NEXT_KEY = rf"{NEXT}[^\W\d][\w.\[\]-]{{0,20}}{IS}"
# Keys that differ in their last character: `hp1=010&hp2=1234`, `{"a": "010", "b": "1234"}`; the values in quotes or behind `=`, but
# for keys of one character: `a=010&b=2024`.
VALUE = r"\]?(?:[\s\"']{0,3}=[\s\"']{0,3}|[\"']?:\s{0,3}[\"'])"
LIKE_KEYS, NEXT_LIKE = rf"(?<![\w.-])(?!\w\s{{0,3}}=\s{{0,3}}\d)([\w.\[-]{{0,20}})\w{VALUE}", rf"{NEXT}\1\w{VALUE}"
VALUES = re.compile(r"[:=][\s\"']{0,3}\d{3,4}[\s\"']{0,3}[,;&\n]")  # else there are no such
# Between the halves of a number, with a word which says that the last digits follow.
LAST_FOLLOW = r"(?=\D{0,30}(?:뒷\s?(?:자리|번호|부분)|끝(?:자리|번호|(?![\uac00-\ud7a3]))|마지막\s?(?:자리|번호|네|4)))\D{1,40}"
WORD_REACH = 24  # characters before a number in which a word may say what it is
# From such a word to its number, which often is on the next line, or in the next row of a table.
REACH = r"[^\d\n]{0,20}[^\S\n]*+(?:\n[^\d\n]{0,10})?"
REACH_OF_TABLES = (
    r"[^\d\n]{0,20}(?:[^\S\n]*+|[^\S\t\n]*+[|\t,;][^\d\n]{0,40}(?=\n))(?:\n(?:[\s|:+-]*\n)?(?:\|[^\d\n]{0,40}|[^\d\n]{0,10}))?"
)
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
