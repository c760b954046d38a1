"""Which private data a text holds. Findings say where and of which kind; the text itself is never kept, logged or shown.

Read as a person would read it: full-width digits and those of other scripts, what stands between the groups of a number, and invisible
characters anywhere make no difference, and letters may be glued to a number, as Korean particles are.

Why not presidio-analyzer, whose recognisers the design names: it installs 51 packages and 374 MB, spaCy among them (measured
with presidio-analyzer 2.2.366), to match patterns of a few lines. Phone numbers are found by `phonenumbers` (5 MB).

What this does not cover: names nobody listed, addresses, passports, driving licences, health; phone numbers of other countries
without their `+`; accounts without a bank's word beside them; landline, business and account numbers in several cells of a table;
numbers spelled out in words, in pictures, or encoded.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

Kind = Literal["resident_number", "phone", "business_number", "bank_account", "card", "email", "name"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_TITLES: dict[Kind, str] = {
    "resident_number": "a resident registration number",
    "phone": "a phone number",
    "business_number": "a business registration number",
    "bank_account": "a bank account",
    "card": "a card number",
    "email": "an e-mail address",
    "name": "a name from the policy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Private data at `text[start:end]`. Not `certain`: it looks like it, but a checksum does not confirm it; still private."""

    kind: Kind
    start: int
    end: int
    certain: bool = True


def find(text: str, *, kinds: Iterable[Kind] = KINDS, names: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Private data of these kinds, in order of place. The same place may be of two kinds. `names` are the user's own words."""
    plain, places = _plain(text)
    found: set[Finding] = set()
    for kind in kinds:
        spans = _names(plain, names) if kind == "name" else FINDERS[kind](plain)
        found |= {Finding(kind=kind, start=places[start][0], end=places[end - 1][1], certain=certain) for start, end, certain in spans}
    return tuple(sorted(found, key=lambda finding: (finding.start, finding.end, finding.kind)))


# A finder yields (start, end, certain) in the plain text.
Span = tuple[int, int, bool]
Finder = Callable[[str], Iterator[Span]]

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


def _plain(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text in its plainest characters, and for each of them its place in `text`."""
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    for at, character in enumerate(text):
        category = "" if character.isascii() else unicodedata.category(character)
        if category == "Cf" or (category and UNSEEN.match(character)):
            continue
        plain = _plain_character(character, category)
        if characters and (category.startswith("M") or (category and FOLLOWS.match(character))):
            together = unicodedata.normalize("NFKC", characters[-1] + plain)
            if len(together) == 1:
                characters[-1], places[-1] = together, (places[-1][0], at + 1)
                continue
            if category.startswith("M") and not characters[-1].isalpha():  # a stray mark on a digit or a dash
                places[-1] = (places[-1][0], at + 1)
                continue
        characters.extend(plain)
        places.extend([(at, at + 1)] * len(plain))
    return "".join(characters), places


def _plain_character(character: str, category: str) -> str:
    if not category:  # ASCII
        return character
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Pd":
        return "-"
    return DASHES.get(character) or DOTS.get(character) or APOSTROPHES.get(character) or unicodedata.normalize("NFKC", character)


# What may stand between the groups of a number, in the plain text.
GAP = r"[\s._/~\u00b7-]{0,4}"
# Between two cells of a table or a list, whose texts may be quoted. Ordinary tables are full of numbers: what is found over cells has
# more to prove.
CELLS = r"[\s\"']{0,6}[,|:;][\s\"']{0,6}"
GAP_OR_CELLS = rf"(?:{CELLS}|{GAP})"
IN_CELLS = re.compile(r"[,|:;]")
REACH_OF_CELLS = 14  # characters, with the digit before or after them
DIGIT_BEFORE, DIGIT_AFTER = re.compile(rf"\d{GAP}\Z"), re.compile(rf"{GAP}\d")
CELL_BEFORE, CELL_AFTER = re.compile(rf"\d{GAP_OR_CELLS}\Z"), re.compile(rf"{GAP_OR_CELLS}\d")


# ---------------------------------------------------------------- resident registration numbers
# The first digit of the second half may stand alone, as in forms that mask the rest.
RESIDENT = re.compile(rf"(?<!\d)(?=((\d{{6}})(?:({GAP_OR_CELLS})(\d{{7}})|\s?-\s?(\d\s{{1,2}}\d{{6}}))(?!\d)))")
CENTURIES = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900, "3": 2000, "4": 2000, "7": 2000, "8": 2000}
FIRST_BIRTH = date(1900, 1, 1)
RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _resident_numbers(text: str) -> Iterator[Span]:
    """Birth date and century must fit. Numbers given out since October 2020 have no checksum, so a wrong one proves nothing.

    A date and an amount in two cells look the same, and a tenth of these fit by chance: over cells the birth lies between 1900 and
    today, and of all such pairs in the text most have to fit.
    """
    in_cells: list[Span] = []
    for match in RESIDENT.finditer(text):
        digits = match[2] + "".join((match[4] or match[5]).split())
        born = _date(CENTURIES[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
        if born is None:
            continue
        span = *match.span(1), _resident_checksum_fits(digits)
        if not IN_CELLS.search(match[3] or ""):
            yield span
        elif FIRST_BIRTH <= born <= date.today():
            in_cells.append(span)
    if 2 * sum(is_certain for _, _, is_certain in in_cells) > len(in_cells):
        yield from in_cells


def _resident_checksum_fits(digits: str) -> bool:
    """Citizens: (11 - sum mod 11) mod 10; foreigners (5 to 8): two more. As python-stdnum has it for citizens."""
    total = sum(weight * int(digit) for weight, digit in zip(RESIDENT_WEIGHTS, digits[:12], strict=True))
    base = 13 if digits[6] in "5678" else 11
    return (base - total % 11) % 10 == int(digits[12])


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


# ---------------------------------------------------------------- phone numbers
# The library wants no Latin letter beside a number; a mobile number is one wherever it stands.
MOBILE = re.compile(rf"(?<!\d)01[016789]{GAP}\d{{3,4}}{GAP}\d{{4}}(?!\d)")
# The first cell is `010` or such, neither the end of a decimal fraction nor thousands (`1,010,345`); the rest, in one more cell or in
# two, goes on in the next line only as a cell of its own.
THOUSANDS = r"(?<=\d,)\d{3},\d{3}(?!\d)"
MOBILE_IN_CELLS = re.compile(
    rf"(?<!\d)(?<!\d\.)(?!{THOUSANDS})01[016789]({CELLS})\d{{3,4}}({CELLS}|(?!\D{{0,3}}\n){GAP})\d{{4}}(?!\d)"
)
LINE = r"[\s)._/\u00b7-]{1,3}"
GLUED = re.compile(rf"(?<!\d)([A-Za-z]?)(\(?0\d{{1,2}}{LINE}\d{{3,4}}{LINE}\d{{4}})(?!\d)([A-Za-z]?)")
UNKNOWN_GAP = re.compile(r"(?<=\d)[_\u00b7](?=\d)")  # to the library, which reads on over a dash: it is asked without one, too
DECIMAL = re.compile(r"0\.\d+")
HOME_REGION = "KR"


def _phones(text: str) -> Iterator[Span]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    for match in MOBILE.finditer(text):
        yield *match.span(), True
    for match in MOBILE_IN_CELLS.finditer(text):
        if not IN_CELLS.search(match[2]) or _without_spaces(match[1]) == _without_spaces(match[2]):
            yield *match.span(), True
    for form in {text, GLUED.sub(_set_apart, UNKNOWN_GAP.sub("-", text))}:
        for found in PhoneNumberMatcher(form, HOME_REGION, Leniency.VALID, sys.maxsize):
            if not DECIMAL.fullmatch(found.raw_string):
                yield found.start, found.end, True


def _set_apart(glued: re.Match[str]) -> str:
    """A number with spaces in place of the letters beside it."""
    return " " * len(glued[1]) + glued[2] + " " * len(glued[3])


def _without_spaces(gap: str) -> str:
    return "".join(gap.split())


# ---------------------------------------------------------------- business registration numbers
BUSINESS = re.compile(rf"(?<!\d)(\d{{3}})({GAP})(\d{{2}})\2(\d{{5}})(?!\d)")
BUSINESS_WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
BUSINESS_WORDS = re.compile(r"사업자|business\s+(?:registration|reg)|\bBRN\b", re.IGNORECASE)
WORD_REACH = 24  # characters before a number in which a word may say what it is


def _business_numbers(text: str) -> Iterator[Span]:
    """The checksum must fit; ten digits without separators, of which a tenth would fit by chance, need a word before them too."""
    for match in BUSINESS.finditer(text):
        digits = match[1] + match[3] + match[4]
        named = BUSINESS_WORDS.search(text, max(0, match.start() - WORD_REACH), match.start()) is not None
        if (match[2] or named) and _business_checksum_fits(digits):
            yield *match.span(), True


def _business_checksum_fits(digits: str) -> bool:
    """Source: National Tax Service; the ninth digit counts once more with the tens of its product."""
    total = sum(weight * int(digit) for weight, digit in zip(BUSINESS_WEIGHTS, digits[:9], strict=True))
    return (10 - (total + int(digits[8]) * 5 // 10) % 10) % 10 == int(digits[9])


# ---------------------------------------------------------------- bank accounts
# Groups on one line, always the same between them: a date and a time make no number.
LINE_GAP = r"(?:[^\S\r\n]|[._/~\u00b7-]){1,4}"
NUMBER = rf"(?<!\d)(?P<number>\d{{2,6}}(?P<gap>{LINE_GAP})\d{{2,8}}(?:(?P=gap)\d{{2,8}}){{0,2}}|\d{{10,16}})(?!\d)"
REACH = r"[^\d\n]{0,20}(?:\n[^\d\n]{0,10})?"  # from a bank's word to its number, which often is on the next line
BANKS = r"은행|뱅크|농협|수협|신협|축협|새마을금고|우체국"
ACCOUNTS = (
    re.compile(rf"(?:{BANKS}|계좌|입금|송금|이체|\baccount\b|\bacct\b|\bbank\b){REACH}{NUMBER}", re.IGNORECASE),
    re.compile(rf"(?:국민|신한|우리|하나|기업|카카오|토스)[\s:]{{0,3}}{NUMBER}"),  # everyday words, some of them
    re.compile(rf"{NUMBER}[\s()\[\],:/]{{0,4}}\w{{0,6}}(?:{BANKS})"),
)
ACCOUNT_DIGITS = range(10, 17)
IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}")
# Characters of an IBAN by country: SWIFT's registry, and the countries that use the form without standing in it.
IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "AO CV GW LY MZ PT ST", 26: "DZ IR IS TR", 27: "BI CF CG CM DJ FR GA GR IT KM MC MG MR SM TD",
    28: "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
    32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: length for length, countries in IBAN_COUNTRIES.items() for country in countries.split()}


def _bank_accounts(text: str) -> Iterator[Span]:
    for pattern in ACCOUNTS:
        for match in pattern.finditer(text):
            if sum(character.isdecimal() for character in match["number"]) in ACCOUNT_DIGITS:
                yield *match.span("number"), False
    yield from _ibans(text)


def _ibans(text: str) -> Iterator[Span]:
    """As many characters as the country has, whatever follows them; more digits than letters tell them from words."""
    for start in IBAN_START.finditer(text):
        more = IBAN_LENGTHS.get(start[1].upper(), 0) - len(start[0])
        found = re.compile(rf"(?:{GAP}[A-Za-z0-9]){{{more}}}(?![A-Za-z0-9])").match(text, start.end()) if more > 0 else None
        if found is not None:
            number = "".join(filter(str.isalnum, text[start.start() : found.end()]))
            if 2 * sum(map(str.isdecimal, number)) > len(number) and _iban_checksum_fits(number):
                yield start.start(), found.end(), True


def _iban_checksum_fits(number: str) -> bool:
    """ISO 13616: letters become 10 to 35, the first four characters go to the end, and the whole is 1 modulo 97."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


# ---------------------------------------------------------------- card numbers
ISSUERS = {14: r"3[0689]", 15: r"3[47]|2131|1800", 16: r"3|4|5|6|9|2(?:2[2-9]|[3-6]|7[01]|720)", 19: r"4|62"}
ROW = re.compile(r"\d+(?:[ -]\d+)*")
SHAPES = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (6, 13), (4, 6, 4), (4, 6, 5))  # digits of each group on a card; written in one piece, too
AS_PRINTED = tuple(
    re.compile(r"(?<!\d)(?=(" + f"({GAP_OR_CELLS})".join(rf"\d{{{count}}}" for count in shape) + r")(?!\d))") for shape in SHAPES
)


def _cards(text: str) -> Iterator[Span]:
    """An issuer's first digits, an issuer's length, and Luhn's checksum. 9: cards for use within Korea.

    Where other digits stand before or after, such as a date or a second card, it must be in one piece or in groups as cards have them:
    a tenth of all numbers fit the checksum by chance.
    """
    for row in ROW.finditer(text):
        if _is_card(row[0]):
            yield *row.span(), True
    for pattern in AS_PRINTED:
        for found in pattern.finditer(text):
            if _is_card(found[1]) and _belongs_together(text, *found.span(1), gaps=found.groups()[1:]):
                yield *found.span(1), True


def _is_card(number: str) -> bool:
    digits = "".join(filter(str.isdecimal, number))
    return len(digits) in ISSUERS and re.match(ISSUERS[len(digits)], digits) is not None and _luhn_fits(digits)


def _belongs_together(text: str, start: int, end: int, *, gaps: Sequence[str]) -> bool:
    """The same between all groups. A card may go on in the next line, or in further cells, where no digits stand before it or none
    after: no table. Numbers beside it in other cells count where it stands in cells itself."""
    if len({_without_spaces(gap) or (gap and " ") for gap in gaps}) > 1 or text.count("\n", start, end) > 1:
        return False
    is_in_cells = any(map(IN_CELLS.search, gaps))
    if "\n" not in text[start:end] and not is_in_cells:
        return True
    before, after = (CELL_BEFORE, CELL_AFTER) if is_in_cells else (DIGIT_BEFORE, DIGIT_AFTER)
    return not (before.search(text, max(0, start - REACH_OF_CELLS), start) and after.match(text, end))


def _luhn_fits(digits: str) -> bool:
    """ISO/IEC 7812-1: from the right, every second digit counts twice, its digits added."""
    doubled = (int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


# ---------------------------------------------------------------- e-mail addresses, names
# Names and hosts in letters of any script, some of which have marks; of Korean ends there are these four, and everyday words may stand
# behind an `@` and a dot.
MARKS = r"\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
LETTERS = rf"(?:[^\W\d_\u1100-\u11ff\uac00-\ud7a3]|[{MARKS}]){{2,}}"
EMAIL = re.compile(
    rf"(?<![\w{MARKS}.%+-])[\w{MARKS}.%+-]+@[\w{MARKS}-]+(?:\.[\w{MARKS}-]+)*\.(?:[A-Za-z]{{2,}}|한국|삼성|닷컴|닷넷|{LETTERS})"
)


def _emails(text: str) -> Iterator[Span]:
    for match in EMAIL.finditer(text):
        yield *match.span(), True


# Scripts without spaces within a name; whoever writes one may set its parts apart, and a line may end anywhere in it.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
HANGUL = re.compile(r"[\uac00-\ud7a3]")
UNSPACED_BESIDE = re.compile(rf"(?<=[{UNSPACED}])(?=\S)|(?<=\S)(?=[{UNSPACED}])")


def _names(text: str, names: Sequence[str]) -> Iterator[Span]:
    """Upper and lower case, forms of the apostrophe, and spaces between words and between Korean, Chinese or Japanese characters make
    no difference. A Latin name is a whole word; a Korean one may have particles glued to it."""
    folded, places = _folded(text)
    for pattern in filter(None, map(_spelling, names)):
        for match in pattern.finditer(folded):
            if not (_is_latin(folded[match.end() - 1]) and _is_latin(folded[match.end() : match.end() + 1])):
                yield places[match.start()], places[match.end() - 1] + 1, True


def _spelling(name: str) -> re.Pattern[str] | None:
    words = _folded(_plain(name)[0])[0].split()
    if not words:
        return None
    glued = r"\s*".join(map(_escaped, words))
    spaced = r"\s*".join(r"\s{0,3}".join(map(_escaped, UNSPACED_BESIDE.split(word))) for word in words)
    if len(words) == 1 and HANGUL.match(words[0]):  # where one word ends so and the next begins so, these are everyday ones
        spaced = rf"{glued}|(?<!{HANGUL.pattern}){spaced}"
    return re.compile(rf"(?:(?<![A-Za-z0-9])|(?![A-Za-z0-9]))(?:{spaced})", re.IGNORECASE)


def _escaped(word: str) -> str:
    return re.escape(word).replace("'", "['`]")


def _folded(text: str) -> tuple[str, list[int]]:
    """The text with `ss` for what is that in capitals, and for each of its characters the place in `text`."""
    characters = [character if character.isascii() else character.casefold().replace("\u0307", "") for character in text]
    return "".join(characters), [at for at, character in enumerate(characters) for _ in character]


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


FINDERS: dict[Kind, Finder] = {
    "resident_number": _resident_numbers,
    "phone": _phones,
    "business_number": _business_numbers,
    "bank_account": _bank_accounts,
    "card": _cards,
    "email": _emails,
}
