"""A text as a person would read it, for the guard: each character in its plainest form, escapes as what they stand for, without the
control characters, the marks that only say how it is to look, and what parts the fields of a record.

What this does not cover: base64 and other encodings, letters of other scripts that look like Latin ones.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from urllib.parse import unquote

DASHES = dict.fromkeys(
    "\u2043\u2212\u30fc\u02d7\u23af\u2500\u2501\u2796\u3161\uff70\uffda", "-"
)  # look like dashes, and are none to Unicode
VOWEL_EU = "\u1173"  # looks like `ㅡ`, and is one where no consonant stands before it
DOTS = dict.fromkeys("\u2022\u2027\u2219\u22c5\u25cf\u30fb\u318d\uff65", "\u00b7")
SLASHES = dict.fromkeys("\u2044\u2215\u29f8", "/")
APOSTROPHES = dict.fromkeys("\u00b4\u02b9\u02bb\u02bc\u2018\u2019\u201b\u2032", "'")
SIGNS = DASHES | DOTS | SLASHES | APOSTROPHES
# Circled, white on black and such: digits to Unicode, which knows of no plainer form.
NEGATIVE_DIGITS = {
    sign: str(unicodedata.digit(sign))
    for sign in map(chr, (*range(0x24EB, 0x2500), *range(0x2776, 0x2794)))
    if unicodedata.digit(sign, None) is not None
}
# Take up no place, or that of a space, and are letters, marks or symbols to Unicode: fillers, variation selectors, and what joins,
# encloses (keycaps), underlines or strikes through.
UNSEEN = re.compile(
    r"[\u0305\u0332\u0333\u0335-\u0338\u033f\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u20dd-\u20e4\u2800\u3164\ufe00-\ufe0f\uffa0"
    r"\U000e0100-\U000e01ef]"
)
# All but tabs and line ends; what colours a terminal or moves its cursor as a whole; and what Unicode has not given out, to be ignored
# should it ever be. No number hides in one: of its digits at most three stand together.
CONTROL = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u2065\ufff0-\ufff8\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)  # each begins with one
CONTROLS = re.compile(rf"(?:\x1b\[|\x9b)[?>]?(?:\d{{0,3}}[;:])*\d{{0,3}}[A-Za-z]|\x1b[()][AB]|{CONTROL.pattern}")
LINES_ENDS = re.compile(r"[\r\v\f\x85\u2028\u2029](?:(?<=\r)\n)?")
# A syllable or letter may be written as several characters, as macOS writes file names. These follow the first of them; so do marks.
FOLLOWS = re.compile(r"[\u1161-\u1175\u11a8-\u11c2\uff9e\uff9f]")
# Hold a digit and are none: circled and raised numbers, fractions, units such as `㎡`, keycaps. They number a list or a note, or end
# what stands before, and touch numbers they are no part of.
NUMBERING = re.compile(
    r"[0-9]\ufe0f?[\u20dd-\u20e4]|[\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2089\u2150-\u215f\u2189\u2460-\u249b\u24ea-\u24ff\u2776-\u2793\u3251-\u325f"
    r"\u32b1-\u32cb\u3358-\u33fe\U0001f100-\U0001f10a]"
)
SIGNS_OF_UNITS = re.compile("[\u3371-\u33df]")
MOST_CHARACTERS = 4096  # each alone, of which is remembered what they are
# What is not plain yet, with what it may follow: Hangul's syllables are, as ASCII is.
NOT_PLAIN = re.compile(r"[\x00-\x7f\uac00-\ud7a3]?[^\x00-\x7f\uac00-\ud7a3]+")


def plain(text: str) -> str:
    """The text in its plainest characters; white space and control characters as they are."""
    return text if text.isascii() else NOT_PLAIN.sub(_plain_characters, text)


def _plain_characters(run: re.Match[str]) -> str:
    characters: list[str] = []
    for character in run[0]:
        plainest, category, follows = _plain_character(character)
        if characters and follows:
            together = unicodedata.normalize("NFKC", characters[-1] + plainest)
            if len(together) == 1:
                characters[-1] = together
                continue
            if category.startswith("M") and not characters[-1].isalpha():  # a stray mark on a digit or a dash
                continue
        characters.extend("-" if plainest == VOWEL_EU else plainest)
    return "".join(characters)


@functools.lru_cache(MOST_CHARACTERS)  # a text of signs has few that differ
def _plain_character(character: str) -> tuple[str, str, bool]:
    """With its category and whether it may be one with what it follows; nothing of what is not seen."""
    category = unicodedata.category(character)
    if category == "Cf" or UNSEEN.match(character):
        return "", category, False
    return _sign_or_letter(character, category), category, category.startswith("M") or FOLLOWS.match(character) is not None


def _sign_or_letter(character: str, category: str) -> str:
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Pd":
        return "-"
    return SIGNS.get(character) or NEGATIVE_DIGITS.get(character) or unicodedata.normalize("NFKC", character)


# `\u` escapes, also those of an escaped text, in pairs where a character takes two; a character of a URL, or of a form; HTML's.
BACKSLASHES, HEX = r"\\{1,8}", r"[0-9A-Fa-f]"
ESCAPES = (
    rf"{BACKSLASHES}(?:u[Dd][89ABab]{HEX}{{2}}{BACKSLASHES}u[Dd][C-Fc-f]{HEX}{{2}}|u{HEX}{{4}}|[nrt])"
    rf"|%(?:[2-7]{HEX}|[CDcd]{HEX}%{HEX}{{2}}|[Ee]{HEX}(?:%{HEX}{{2}}){{2}}|[Ff][0-7](?:%{HEX}{{2}}){{3}})"
    rf"|&(?:#\d{{1,7}};?|#[Xx]{HEX}{{1,6}};?|[A-Za-z][A-Za-z0-9]{{1,30}};)"
)
OF_SIGNS, OF_ALL = re.compile(ESCAPES), re.compile(rf"{ESCAPES}|{BACKSLASHES}[bf]|%[01]{HEX}")  # without control characters, and with
ESCAPE = re.compile(r"[\\%&]")  # begins one
FORM_VALUE = re.compile(r"=[^\s&=+]*\+[^\s&=]*")
FORM_SPACE = re.compile(r"(?<!=)\+|\+(?![1-9])")  # a `+`, but for that of a number from abroad: `tel=+82+10`
CODE_UNIT = re.compile(rf"u({HEX}{{4}})")
LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
MOST_ESCAPED = 3  # escapes of escapes of escapes
# Markdown's marks beside a letter, a digit or a dash that has one, a backslash before punctuation, and what quotes a line. Two digits
# with marks between them are not put together.
MARKS = re.compile(
    r"[*`_\\](?:(?<=\w[*`])[*`]{0,2}(?![*`\d])|(?<=[*`])(?<![*`\d].)[*`]{0,2}(?=\w)"
    r"|(?<=_)(?<!\w_)_{0,2}(?=\d)|(?<=\d_)_{0,2}(?!\w)|(?<=\\)(?=[^\w\s]))"
)
QUOTES = re.compile(r"^(?:[^\S\n]?>){1,9}[^\S\n]?", re.MULTILINE)
# `김^영희`, `PRN^CP^^82^10^98765432`: components of HL7's fields and of DICOM's names; no powers (`10^6`).
CARETS = re.compile(r"\^(?:(?<=[\w^]\^)(?:\^|[^\W\d_]{2}|[\uac00-\ud7a3]|\d{3})|(?<=[^\W\d_]{2}\^)[^\W\d_])")
# HTML's elements within a line (Word's `o:p`, too) and comments; and all tags one after another, which part cells, or a table's rows.
ELEMENTS_IN_LINE = (
    "a|abbr|b|bdi|bdo|big|code|del|dfn|em|font|i|ins|kbd|label|mark|nobr|o:p|q|s|samp|small|span|strike|strong|sub|sup|tt|u|var|wbr"
)
IN_LINE = rf"</?(?:{ELEMENTS_IN_LINE})(?:\s[^<>]*)?/?>|<!--.{{0,200}}?-->"
HOLDS_TAGS = re.compile(rf"</[A-Za-z][^<>]*>\s*</?[A-Za-z]|<br\s?/?>|{IN_LINE}", re.IGNORECASE)
IN_LINES, TAGS = re.compile(IN_LINE, re.IGNORECASE), re.compile(r"(?:</?[A-Za-z][^<>]*>\s*)+")
ROWS_END = re.compile(r"</?tr\b", re.IGNORECASE)


def readings(text: str) -> tuple[str, ...]:
    """In its plainest characters, and so without escapes and marks; both also with spaces for what numbers a list. And all that
    without what `_on_screen` takes away, and without tags and the `^` of records. No text twice.

    All of them, for a mark or a control character may also part what is no one word, an escape be none, and a number be written in `①`
    and its like: what is found in a text as it stands is found whatever else it may mean.
    """
    found: dict[str, None] = {}
    plainest = functools.cache(plain)  # most are the same both times
    for ways, decoded in ((_numbered, _without_escapes), (_on_screen, _without_form_and_escapes)):
        for as_given in map(plainest, ways(text)):
            read = decoded(as_given)
            unescaped = (as_given,) if read == as_given else map(plainest, ways(read))
            found |= dict.fromkeys((as_given, *(_without_marks(way) for way in unescaped)))
    return tuple(found | dict.fromkeys(map(_without_markup, found)))


def _without_markup(text: str) -> str:
    if "^" in text and CARETS.search(text):
        text = text.replace("^", " ")
    if "<" in text and HOLDS_TAGS.search(text):
        text = TAGS.sub(lambda tags: "\n" if ROWS_END.search(tags[0]) else "|", IN_LINES.sub("", text))
    return text


def _without_marks(text: str) -> str:
    return MARKS.sub("", QUOTES.sub("", text) if ">" in text else text)


def _numbered(text: str) -> dict[str, None]:
    """The text; and so with spaces for what numbers a list."""
    return dict.fromkeys((text, _without_numbering(text)))


def _without_numbering(text: str) -> str:
    """Units still are units, but without a digit of their own: a number before one counts something."""
    return text if text.isascii() else NUMBERING.sub(lambda sign: " m " if SIGNS_OF_UNITS.match(sign[0]) else " ", text)


def _on_screen(text: str) -> dict[str, None]:
    """Those with `\\n` at the end of each line and without control characters; and with spaces for these, which may part words."""
    ways = _numbered(text)
    if CONTROL.search(text):
        ways = dict.fromkeys((*(CONTROLS.sub("", way) for way in ways), CONTROLS.sub(" ", _without_numbering(text))))
    return dict.fromkeys(LINES_ENDS.sub("\n", way) for way in ways)


def _without_escapes(text: str, escapes: re.Pattern[str] = OF_SIGNS) -> str:
    for _ in range(MOST_ESCAPED):
        before, text = text, escapes.sub(_unescaped, text) if ESCAPE.search(text) else text
        if text == before:
            break
    return text


def _without_form_and_escapes(text: str) -> str:
    """Without the `+` of a form, too, and the escapes of control characters."""
    text = FORM_VALUE.sub(lambda value: FORM_SPACE.sub(" ", value[0]), text)
    return _without_escapes(text, OF_ALL)


def _unescaped(escape: re.Match[str]) -> str:
    return html.unescape(escape[0]) if escape[0].startswith("&") else _character_of(escape[0])


@functools.lru_cache(MOST_CHARACTERS)
def _character_of(escape: str) -> str:
    if escape.startswith("%"):
        return unquote(escape)
    units = b"".join(int(unit, 16).to_bytes(2, "little") for unit in CODE_UNIT.findall(escape))
    return units.decode("utf-16-le", "replace") or LETTERS[escape[-1]]
