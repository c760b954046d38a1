"""The Korean of the report's sentences, which stands in korean.toml beside the English.

A finished English sentence is looked up, whoever made it, and its values are copied: figures cannot differ, and what was kept on disk
is understood, too. What stands in a place is looked up only where its format says so, and then all of it or the sentence stays
English: names, labels and errors are never put into Korean. Whether a whole text is the report's own or data, the caller knows.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from string import Formatter

TWINS: Mapping[str, str] = tomllib.loads(resources.files("nomoat.judge").joinpath("korean.toml").read_text(encoding="utf-8"))
MOST_CHARACTERS = 1000  # of a sentence; what is longer holds an error's words
MOST_DEPTH = 6  # of sentences in the places of others
NUMBER = r"[+-]?(?:inf|nan|\d++(?:[.,]\d++)*+(?:e[+-]?\d++)?+)"
NAME = "`[^`]*+`"
SCORE = rf"{NUMBER}(?: %)?+ \[{NUMBER}, {NUMBER}\]"
# What may stand in a place, by its format. These are copied; of names in a list, the last is told apart by a comma, too, and the
# rest of a few names is counted in Korean.
COPIED = {
    "": ".*?",  # anything; within `these`, a name
    "few": ".*?",
    "name": NAME,
    "names": f"{NAME}(?:, {NAME})*+(?: and {NAME})?+",
    "score": SCORE,
    "scored": rf"{NAME} \({SCORE}\)",
    "p": r"p [=<] \d\.\d++",
    "$": rf"\${NUMBER}",
    ".1f": r"[+-]?[\d,]++\.\d(?:\d\d)*+",  # or two more decimals, or four: see `wording.MORE_DECIMALS`
    ".2f": r"[+-]?[\d,]++\.(?:\d\d)++",
    **dict.fromkeys((",", "d", "g"), NUMBER),
}
# These are looked up; so is any other format: one of several texts, `one at a time|# at a time`, in which # is a number.
LOOKED_UP = {
    "said": ".+?",  # a sentence of the report's own, or a part of one
    "failed": rf"{NUMBER} questions? got no answer: .*",
    "items": rf"(?:{NUMBER} of )?+{NUMBER} items?",
    "share": rf"{NUMBER} of {NUMBER} = {NUMBER} % \[{NUMBER}, {NUMBER}\]",
    "points": rf"{NUMBER} points \[{NUMBER}, {NUMBER}\]",
    ".1f points": rf"{COPIED['.1f']} points \[{NUMBER}, {NUMBER}\]",
    ".2f points": rf"{COPIED['.2f']} points \[{NUMBER}, {NUMBER}\]",
}
CLAUSE = re.compile(r"(?:\A|; )((?:`[^`]*+`|(?!; )[^`])++)")


def twin(english: str) -> str | None:
    """The Korean of an English text of a report, or of its clauses; None where it has none. No text takes long."""
    return _twin(english, 0) if len(english) <= MOST_CHARACTERS else None


@functools.lru_cache(maxsize=4096)
def _twin(english: str, depth: int) -> str | None:
    """As `twin`; `depth`: how many sentences this one stands in."""
    if english in TWINS:
        return TWINS[english]
    if depth > MOST_DEPTH:
        return None
    for pattern, formats, korean in _patterns():
        if found := pattern.fullmatch(english):
            values = {name: _value(text, formats[name], depth) for name, text in found.groupdict().items()}
            if None not in values.values():
                return korean.format(**values)
    whole = english.removesuffix(".")
    clauses = CLAUSE.findall(whole)
    if clauses == [english] or "; ".join(clauses) != whole:
        return None
    said = [text for clause in clauses if (text := _twin(clause, depth + 1)) is not None]
    return ". ".join(said) + english[len(whole) :] if len(said) == len(clauses) else None


def _value(text: str, how: str, depth: int) -> str | None:
    """What stands in the place of `text`; None where it is looked up and has no Korean."""
    if how == "names":
        return ", ".join(re.findall(NAME, text))
    if how == "few":
        return re.sub(rf" and ({NUMBER}) more$", r" 외 \1개", text)
    return text if how in COPIED or not text else _twin(text, depth + 1)


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, str], str]]:
    """Of each twin with places: what an English sentence of it looks like, the formats of its places, and the Korean.

    The longest come first: a short one may look like a part of it.
    """
    rows = []
    for english, korean in TWINS.items():
        pieces, formats, words = "", {}, ""
        for literal, name, how, _ in Formatter().parse(english):
            pieces += re.escape(literal)
            words += literal
            if name:
                formats[name] = how or ""
                pieces += f"(?P<{name}>{'[^`]*+' if not how and words.count('`') % 2 else _place(how or '')})"
        if formats:
            rows.append((len(words), (re.compile(pieces, re.DOTALL), formats, korean)))
    return [row for _, row in sorted(rows, key=lambda row: -row[0])]


def _place(how: str) -> str:
    """What may stand in a place of this format, as a regular expression."""
    return {**COPIED, **LOOKED_UP}.get(how) or re.escape(how).replace(r"\|", "|").replace(r"\#", NUMBER)
