"""The user's own words in a text in its plainest characters (`plain`).

What this does not cover: other spellings of a name, and its forms in other scripts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from nomoat.route.pii.plain import plain

# What may stand between the parts of a name, or for another of its kind.
SIGNS = dict.fromkeys(map(ord, ".,_/+\u00b7-'`"))
# Scripts without spaces within a name; whoever writes one may set its parts apart, and a line may end anywhere in it.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
HANGUL = re.compile(r"[\uac00-\ud7a3]")
BETWEEN_WORDS = r"\s*(?:[.,_/+\u00b7-]{1,2}\s{0,3})?"
# Where a listed name is parted: at white space, and at signs between letters, or a letter and a digit (`X-Ray 7`; not `C++`, `3.5`).
PARTED = re.compile(r"(?<=[^\W_])[\s.,_/+\u00b7-]++(?=[^\W\d_])|(?<=[^\W\d_])[\s.,_/+\u00b7-]++(?=[^\W_])|\s+")
LAST_SIGNS = re.compile(r"(?<=\w\w)[.,]+\Z")  # `ACME, Inc.`; not of `J.`
BETWEEN_SYLLABLES = r"(?:\s{0,3}|\s?[,._/\u00b7-]\s?)"
GOES_ON = re.compile(r"[A-Za-z0-9][A-Za-z]|[0-9]{2}")  # a word or a number, of which that would be a part
UNSPACED_BESIDE = re.compile(rf"(?<=[{UNSPACED}])(?=\S)|(?<=\S)(?=[{UNSPACED}])")


def holds_name(text: str, names: Sequence[str]) -> bool:
    """Whether one of them stands in it.

    Upper and lower case, forms of the apostrophe, and spaces, dots, dashes and such between words and between Korean, Chinese or
    Japanese characters make no difference. A Latin name is a whole word, but that digits may follow it (`MRN12345`); a Korean one may
    have particles glued to it.
    """
    folded = _folded(text)
    squeezed = _squeezed(folded)
    patterns = (_spelling(name) for name in names if _letters(name) in squeezed)  # few: each takes a hundred times as long as to look
    found = (match for pattern in filter(None, patterns) for match in pattern.finditer(folded))
    return any(not GOES_ON.match(folded, match.end() - 1) for match in found)


@functools.cache  # that of `re` holds some hundred patterns
def _spelling(name: str) -> re.Pattern[str] | None:
    words = PARTED.split(LAST_SIGNS.sub("", _folded(plain(name)).strip()))
    if not any(words):
        return None
    glued = BETWEEN_WORDS.join(map(_escaped, words))
    spaced = BETWEEN_WORDS.join(BETWEEN_SYLLABLES.join(map(_escaped, UNSPACED_BESIDE.split(word))) for word in words)
    if len(words) == 1 and HANGUL.match(words[0]):  # where one word ends so and the next begins so, these are everyday ones
        spaced = rf"{glued}|(?<!{HANGUL.pattern}){spaced}"
    return re.compile(rf"(?:(?<![A-Za-z0-9])|(?![A-Za-z0-9]))(?:{spaced})")


@functools.cache
def _letters(name: str) -> str:
    """Those that stand in each text in which the name does, when both are squeezed."""
    return _squeezed(_folded(plain(name)))


def _squeezed(folded: str) -> str:
    return "".join(folded.translate(SIGNS).split())


def _escaped(word: str) -> str:
    return re.escape(word).replace("'", "['`]")


def _folded(text: str) -> str:
    """The text in small letters, with `ss` for what is that in capitals, and the `i` of Turkish letters."""
    return text.casefold().replace("\u0307", "").replace("ı", "i")
