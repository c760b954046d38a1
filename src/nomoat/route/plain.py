"""A text as a person would read it, for the guard: each character in its plainest form, escapes as what they stand for, without the
marks that only say how it is to look. Of each character its place in the text as it was given is kept.

What this does not cover: base64 and other encodings, letters of other scripts that look like Latin ones, HTML's tags.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

Place = tuple[int, int]  # start and end of a character
Places = Callable[[int], Place]  # of each character of a text, in the text it was made of


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A way to read a text. `places` are those in the text as it was given, and so are `changes`: where it differs from the first way
    to read it, in order; None for the first."""

    text: str
    places: Places
    changes: Sequence[int] | None = None

    def changed(self, pattern: re.Pattern[str], beside: int) -> Iterator[Place]:
        """Where in this reading the pattern matches and something is read otherwise, there or so many characters beside it: the match
        with these."""
        changes = self.changes or ()
        for match in pattern.finditer(self.text):
            start, end = max(0, match.start() - beside), min(len(self.text), match.end() + beside)
            first = bisect_left(changes, self.places(start)[0])
            if first < len(changes) and changes[first] <= self.places(end - 1)[1]:
                yield start, end


DASHES = dict.fromkeys(
    "\u2212\u30fc\u02d7\u23af\u2500\u2501\u2796\u3161\uff70\uffda", "-"
)  # look like dashes, and are none to Unicode
DOTS = dict.fromkeys("\u2022\u2027\u2219\u22c5\u25cf\u30fb\u318d\uff65", "\u00b7")
APOSTROPHES = dict.fromkeys("\u00b4\u02b9\u02bb\u02bc\u2018\u2019\u201b\u2032", "'")
# Take up no place, or that of a space, and are letters, marks or symbols to Unicode: fillers, variation selectors, and what joins,
# encloses (keycaps), underlines or strikes through.
UNSEEN = re.compile(
    r"[\u0305\u0332\u0333\u0335-\u0338\u033f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u20dd-\u20e4\u2800\u3164\ufe00-\ufe0f\uffa0"
    r"\U000e0100-\U000e01ef]"
)
# A syllable or letter may be written as several characters, as macOS writes file names. These follow the first of them; so do marks.
FOLLOWS = re.compile(r"[\u1161-\u1175\u11a8-\u11c2\uff9e\uff9f]")
NOT_ASCII = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]+")  # with what they may follow


def plain(text: str) -> tuple[str, Places]:
    """The text in its plainest characters, and for each of them its place in `text`."""
    if text.isascii():
        return text, _same_place
    shown, places, _ = _replaced(text, NOT_ASCII, _plain_characters)
    return shown, places


def _same_place(at: int) -> Place:
    return at, at + 1


def _plain_characters(run: re.Match[str]) -> tuple[str, Sequence[Place]]:
    characters: list[str] = []
    places: list[Place] = []
    for at, character in enumerate(run[0], run.start()):
        category = "" if character.isascii() else unicodedata.category(character)
        if category == "Cf" or (category and UNSEEN.match(character)):
            continue
        plainest = _plain_character(character, category)
        if characters and (category.startswith("M") or (category and FOLLOWS.match(character))):
            together = unicodedata.normalize("NFKC", characters[-1] + plainest)
            if len(together) == 1:
                characters[-1], places[-1] = together, (places[-1][0], at + 1)
                continue
            if category.startswith("M") and not characters[-1].isalpha():  # a stray mark on a digit or a dash
                places[-1] = (places[-1][0], at + 1)
                continue
        characters.extend(plainest)
        places.extend([(at, at + 1)] * len(plainest))
    return "".join(characters), places


def _plain_character(character: str, category: str) -> str:
    if not category:  # ASCII
        return character
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Pd":
        return "-"
    return DASHES.get(character) or DOTS.get(character) or APOSTROPHES.get(character) or unicodedata.normalize("NFKC", character)


# `\u` escapes, also those of an escaped text, in pairs where a character takes two; a character of a URL; HTML's.
BACKSLASHES, HEX = r"\\{1,8}", r"[0-9A-Fa-f]"
ESCAPES = re.compile(
    rf"{BACKSLASHES}(?:u[Dd][89ABab]{HEX}{{2}}{BACKSLASHES}u[Dd][C-Fc-f]{HEX}{{2}}|u{HEX}{{4}}|[nrt])"
    rf"|%(?:[2-7]{HEX}|[CDcd]{HEX}%{HEX}{{2}}|[Ee]{HEX}(?:%{HEX}{{2}}){{2}}|[Ff][0-7](?:%{HEX}{{2}}){{3}})"
    rf"|&(?:#\d{{1,7}};?|#[Xx]{HEX}{{1,6}};?|[A-Za-z][A-Za-z0-9]{{1,30}};)"
)
CODE_UNIT = re.compile(rf"u({HEX}{{4}})")
WHITE = {"n": "\n", "r": "\r", "t": "\t"}
MOST_ESCAPED = 3  # escapes of escapes of escapes
# Markdown's marks beside a letter, a digit or a dash that has one, a backslash before punctuation, and what quotes a line. Two digits
# with marks between them are not put together.
MARKS = re.compile(
    r"(?<=\w)(?<![*`])[*`]{1,3}(?![*`\d])|(?<![*`\d])[*`]{1,3}(?=\w)|(?<!\w)_{1,3}(?=\d)|(?<=\d)_{1,3}(?!\w)"
    r"|\\(?=[^\w\s])|(?<=\n)(?:[^\S\n]?>){1,9}[^\S\n]?"
)


def readings(text: str) -> list[Reading]:
    """In its plainest characters, and, where that is another text, so without escapes and marks.

    Both, for a mark may also part what is no one word, and an escape be none.
    """
    as_given, places = plain(text)
    first = Reading(text=as_given, places=places)
    shown, places, escapes = _decoded(as_given, places)
    bare, where, marks = _replaced(shown, MARKS, lambda _: ("", ()))
    if bare == as_given:
        return [first]
    changes = sorted([*escapes, *(places(mark)[0] for mark in marks)])
    return [first, Reading(text=bare, places=_further_back(places, where), changes=changes)]


def _further_back(places: Places, where: Places) -> Places:
    """Places of one text in the text that another was made of, which it was made of."""

    def place(at: int) -> Place:
        start, end = where(at)
        return places(start)[0], places(end - 1)[1]

    return place


def _decoded(text: str, places: Places) -> tuple[str, Places, list[int]]:
    """Of a text in its plainest characters, with their places: it without escapes, the new places, and those of the escapes."""
    given, escapes = text, list[int]()
    for _ in range(MOST_ESCAPED):
        if ESCAPES.search(text) is None:
            break
        text, where, starts = _replaced(text, ESCAPES, _character_of)
        escapes += (places(start)[0] for start in starts)
        places = _further_back(places, where)
    if text == given or text.isascii():
        return text, places, escapes
    shown, where = plain(text)
    return shown, _further_back(places, where), escapes


def _character_of(escape: re.Match[str]) -> tuple[str, Sequence[Place]]:
    """What it stands for, whose place is that of the whole escape."""
    character = _unescaped(escape)
    return character, [escape.span()] * len(character)


def _unescaped(escape: re.Match[str]) -> str:
    if escape[0].startswith("%"):
        return unquote(escape[0])
    if escape[0].startswith("&"):
        return html.unescape(escape[0])
    units = b"".join(int(unit, 16).to_bytes(2, "little") for unit in CODE_UNIT.findall(escape[0]))
    return units.decode("utf-16-le", "replace") or WHITE[escape[0][-1]]


def _replaced(
    text: str, pattern: re.Pattern[str], new: Callable[[re.Match[str]], tuple[str, Sequence[Place]]]
) -> tuple[str, Places, list[int]]:
    """The text with `new` in place of each match; of each character its place in `text`, which for those of a match `new` gives; and
    where the matches begin in `text`."""
    pieces: list[str] = []
    starts: list[int] = []
    made: list[tuple[Sequence[Place], int]] = []  # the places of what stands for a match, and the match's end
    begins: list[int] = []  # of it, in the text with them
    length = end = 0
    for match in pattern.finditer(text):
        start, (piece, places) = match.start(), new(match)
        pieces += text[end:start], piece
        starts.append(start)
        begins.append(length + start - end)
        length, end = begins[-1] + len(piece), match.end()
        made.append((places, end))

    def place(at: int) -> Place:
        before = bisect_right(begins, at) - 1
        if before < 0:
            return at, at + 1
        places, end = made[before]
        inside = at - begins[before]
        if inside < len(places):
            return places[inside]
        start = end + inside - len(places)
        return start, start + 1

    return "".join([*pieces, text[end:]]), place, starts
