"""Numbers of identity documents: passports, Korean driving licences, and those that some other countries give their people.

Some have a form that nothing else has. Others are everyday numbers, unless a word before them, or behind them in brackets, says it.

What this does not cover: numbers of other countries, driving licences of others than Korea, passports without a word and without the
lines that machines read.
"""

from __future__ import annotations

import re
from datetime import date

from nomoat.route.pii.numbers import REACH_OF_TABLES
from nomoat.route.pii.orders import NO_ORDER
from nomoat.route.pii.sought import has_any, led, near, small_letters

LICENCE = r"(?:1[1-9]|2[0-8])"  # begins with the police's number of a province
MONTH = r"(?:0[1-9]|1[0-2])"
NO_TIME = rf"(?!20\d\d{MONTH}(?:0[1-9]|[12]\d|3[01])(?:[01]\d|2[0-3])[0-5]\d)"  # `202401151030`
SSN = r"(?!000|666|9)\d{3}(?P<gap>[ .-]%s)(?!00)\d\d(?P=gap)(?!0000)\d{4}"
NINO = r"[A-CEGHJ-PR-TW-Z]{2}(?P<gap>[ -]?)\d\d(?P=gap)\d\d(?P=gap)\d\d(?P=gap)[A-D]"
IN_FOURS = r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}"
SAID = (  # what its words begin with in small letters, the words, and the number
    (
        ("여권", "passport", "旅券", "护照", "護照"),
        r"여권|passport|旅券|护照|護照",
        r"(?:[A-Z]{1,2}\d{6,8}|[MSRGDP]\s\d{8}|[A-Z]\d{3}[A-Z]\d{4})",
    ),
    (("여권", "passport"), r"여권\s?번호|passport[\s_-]?(?:(?:no|id)(?![a-z])|num|#)", r"\d{9}"),
    (
        *(("면허",), r"면허(?:증|번호|\s|:)"),
        rf"(?:{NO_TIME}{LICENCE}(?P<gap>[\s.-]?)\d\d(?P=gap)\d{{6}}(?P=gap)\d\d|\d\d-\d{{6}}-\d\d)",
    ),
    (  # Korean health insurance, not the policies of others
        ("건강", "보험증", "건보증"),
        r"건보증|건강\s?보험(?:증|카드|\s?증?\s?번호)|보험증(?![권서])",
        r"\d-?\d{10}(?!원)",
    ),
    (("면허", "운전", "licen"), r"면허|운전|licen[cs]e", rf"{LICENCE}-\d\d-\d{{6}}-\d\d"),
    (
        *(("ssn", "social"), r"(?<![^\W_])ssn(?![^\W_])|social[\s_]?security(?:[\s_]?(?:num|no(?![a-z])|#)|[\"']?\s?[:=])"),
        SSN % "?",
    ),
    (("social",), r"social[\s_]?security", SSN % ""),
    (("aadha", "आधार"), r"aadhaa?r|आधार", rf"(?=[2-9]){IN_FOURS}"),
    (("national", "ni"), r"national[\s_]insurance|(?<![^\W_])ni(?:no|[\s_](?:no|number))(?![^\W_])", NINO),
    # The plain form of `ー` is a dash.
    (("マイナンバ", "個人番", "my"), "マイナンバ-|個人番号|個人番號|(?<![^\\W_])my_?number(?![^\\W_])", IN_FOURS),
)
APART, ENDS = r"(?<![A-Za-z\d])(?<!\d[.,-])", r"(?![A-Za-z\d]|[.,-]\d|\.(?:jpe?g|png|heic|webp|gif)(?!\w))"
BEHIND_WORDS = tuple(
    near(f"(?:{words}){REACH_OF_TABLES}{APART}{number}{ENDS}", beginnings, 0, re.IGNORECASE) for beginnings, words, number in SAID
)
BEFORE_WORDS = tuple(
    (tuple(f"({word}" for word in beginnings), re.compile(rf"{APART}{number}{ENDS}\s?\((?:{words})", re.IGNORECASE))
    for beginnings, words, number in SAID
)
ITS_LICENCE = rf"(?<![\w-])(?={LICENCE}-){NO_ORDER}"
PATTERNS = (
    # With a year and a month first it may be anything's.
    re.compile(rf"{led('[12]', ITS_LICENCE)}\d-(?!{MONTH})\d\d-\d{{6}}-\d\d(?![\d-])"),
    re.compile(  # a passport's two lines for machines; in the first one it is filled up to its end
        r"P(?<=(?<![A-Z\d<])(?=[A-Z<]{40,44}(?![A-Z\d<])|[A-Z<]{5,41}<<<(?![A-Z\d<]))P)[A-Z<][A-Z]{3}[A-Z]{1,30}(?:<[A-Z]{1,30}){0,3}<<[A-Z<]{2}"
    ),
)
SECOND_LINE = re.compile(r"(?<![A-Z\d<])[A-Z\d<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z\d<]{14}[\d<]\d(?![A-Z\d<])")
ITS_DATES = re.compile(r"\d{7}[MFX<]\d{7}")
PROVINCE = r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[12])"
ITS_PROVINCE = rf"(?<!\d)(?=\d{{17}}){NO_ORDER}(?={PROVINCE})"
CHINESE = re.compile(rf"{led('[1-8]', ITS_PROVINCE)}\d{{5}}((?:19|20)\d\d)(\d\d)(\d\d)\d{{3}}[\dXx](?![A-Za-z\d])")
# Italy's codice fiscale: of a woman the day is that of her birth and 40.
ITALIAN = re.compile(
    r"(?<![A-Z\d])([A-Z]{6}\d\d[A-EHLMPRST](?:[04][1-9]|[1256]\d|[37][01])[A-Z]\d{3})([A-Z])(?![A-Z\d])", re.IGNORECASE
)
ITALIAN_BIRTH = re.compile(r"\d\d[A-Za-z]\d\d[A-Za-z]\d{3}[A-Za-z]")
ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)  # of A to Z; digits as A to J


def holds_identity_document(text: str) -> bool:
    small = small_letters(text)
    return (
        any(any(sought.finditer(text, small)) for sought in BEHIND_WORDS)
        or any(has_any(words, small) and pattern.search(text) for words, pattern in BEFORE_WORDS)
        or any(pattern.search(text) for pattern in PATTERNS)
        or (ITS_DATES.search(text) and SECOND_LINE.search(text)) is not None
        or any(map(_is_chinese, CHINESE.finditer(text)))
        or (ITALIAN_BIRTH.search(text) is not None and any(map(_is_italian, ITALIAN.finditer(text))))
    )


def _is_chinese(found: re.Match[str]) -> bool:
    """A resident's number of 18 characters: a birth, and the checksum of GB 11643 (ISO 7064, modulo 11, with `X` for 10)."""
    try:
        date(*map(int, found.groups()))
    except ValueError:
        return False
    values = (10 if one in "Xx" else int(one) for one in reversed(found[0]))
    return sum(value * pow(2, at, 11) for at, value in enumerate(values)) % 11 == 1


def _is_italian(found: re.Match[str]) -> bool:
    """Whether the last letter is what the decree of 23 December 1976 makes of the others, of which the first is an odd one."""
    values = [int(one) if one.isdecimal() else ord(one) - ord("A") for one in found[1].upper()]
    total = sum(ODD[value] for value in values[::2]) + sum(values[1::2])
    return total % 26 == ord(found[2].upper()) - ord("A")
