"""The Korean of the report's sentences, which stands in korean.toml beside the English.

A finished English sentence is looked up, whoever made it, and its values are copied: figures cannot differ, and what was kept on disk
is understood, too. Errors within a sentence, and what models and data say, have no twin and stay as they are.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from string import Formatter

TWINS: Mapping[str, str] = tomllib.loads(resources.files("nomoat.judge").joinpath("korean.toml").read_text(encoding="utf-8"))
MOST_CHARACTERS = 1000  # of a sentence; what is longer is data, or holds an error's words
# What may stand in a place, by its format; by any other, a number. Texts are put into Korean themselves, where they have a twin.
PLACES = {
    "": "(?:`[^`]*`|(?!; )[^`])*?",  # no more than one clause
    "any": "(?:`[^`]*`|[^`])*?",
    "names": "`[^`]*`(?:(?:, | and )`[^`]*`)*",
    "counted": r"[\d,]+ \w+",
    "p": r"p [=<] [\d.]+",
    "$": r"\$[\d.,]*\d",
    ".1f": r"[+-]?[\d,]+\.\d",
    ".2f": r"[+-]?[\d,]+\.\d\d",
}
NUMBER = r"[+-]?[\d.,]*\d"


def twin(english: str) -> str | None:
    """The Korean of an English text of a report; None where it has none."""
    if english in TWINS:
        return TWINS[english]
    if len(english) > MOST_CHARACTERS:
        return None
    for pattern, texts, has_words, korean in _patterns():
        if found := pattern.fullmatch(english):
            parts = found.groupdict()
            values = {name: _part(value) if name in texts else value for name, value in parts.items()}
            if has_words or values != parts:
                return korean.format(**values)
    clauses = english.rstrip(".").split("; ")
    said = [] if clauses == [english] else [_part(clause) for clause in clauses]
    return None if said in ([], clauses) else f"{'. '.join(said)}{'.' if english.endswith('.') else ''}"


def _part(text: str) -> str:
    """A text within a sentence; of names in a list the last, too, is told apart by a comma."""
    return re.sub(r"` and `(?=[^`]*`$)", "`, `", text) if (said := twin(text)) is None else said


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], frozenset[str], bool, str]]:
    """Of each twin with places: what an English sentence of it looks like, its places that are texts, whether it has words of its own,
    and the Korean.

    The longest come first: a short one may look like a part of it.
    """
    rows = []
    for english, korean in TWINS.items():
        pieces, texts, words = "", set(), ""
        for literal, name, how, _ in Formatter().parse(english):
            pieces += re.escape(literal)
            words += literal
            if not name:
                continue
            is_name = not how and words.count("`") % 2 == 1
            pieces += f"(?P<{name}>{'[^`]*' if is_name else PLACES.get(how or '', NUMBER)})"
            if how in ("", "any", "names", "counted") and not is_name:
                texts.add(name)
        if "(?P<" in pieces:
            has_words = any(character.isalpha() for character in words)
            rows.append((len(words), (re.compile(pieces, re.DOTALL), frozenset(texts), has_words, korean)))
    return [row for _, row in sorted(rows, key=lambda row: -row[0])]
