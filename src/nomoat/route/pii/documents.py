"""Numbers of identity documents: passports, Korean driving licences, and those that some other countries give their people.

Some have a form that nothing else has. Others are everyday numbers, unless a word before them, or behind them in brackets, says it.

What this does not cover: numbers of other countries, driving licences of others than Korea, passports without a word and without the
lines that machines read.
"""

from __future__ import annotations

import re
from datetime import date

from nomoat.route.pii.numbers import REACH_OF_TABLES

LICENCE = r"(?:1[1-9]|2[0-8])"  # begins with the police's number of a province
NINO = r"[A-CEGHJ-PR-TW-Z]{2}(?P<gap>[ -]?)\d\d(?P=gap)\d\d(?P=gap)\d\d(?P=gap)[A-D]"
IN_FOURS = r"\d{4}(?P<gap>[ -]?)\d{4}(?P=gap)\d{4}"
SAID = (
    (r"여권|passport|旅券|护照|護照", r"(?:[A-Z]{1,2}\d{6,8}|[A-Z]\d{3}[A-Z]\d{4})"),
    (r"여권\s?번호|passport[\s_-]?(?:no|num|id|#)", r"\d{9}"),
    (r"면허(?:증|번호|\s|:)", rf"(?:{LICENCE}(?P<gap>[\s.-]?)\d\d(?P=gap)\d{{6}}(?P=gap)\d\d|\d\d-\d{{6}}-\d\d)"),
    (r"(?<![^\W_])ssn(?![^\W_])|social[\s_]?security", r"(?!000|666|9)\d{3}(?P<gap>[ .-]?)(?!00)\d\d(?P=gap)(?!0000)\d{4}"),
    (r"aadhaa?r|आधार", rf"(?=[2-9]){IN_FOURS}"),
    (r"national[\s_]insurance|(?<![^\W_])ni(?:no|[\s_](?:no|number))(?![^\W_])", NINO),
    ("マイナンバ-|個人番号|個人番號|(?<![^\\W_])my_?number(?![^\\W_])", IN_FOURS),  # the plain form of `ー` is a dash
)
APART, ENDS = r"(?<![A-Za-z\d])(?<!\d[.,-])", r"(?![A-Za-z\d]|[.,-]\d)"
PATTERNS = (
    *(re.compile(f"(?:{words}){REACH_OF_TABLES}{APART}{number}{ENDS}", re.IGNORECASE) for words, number in SAID),
    *(re.compile(rf"{APART}{number}{ENDS}\s?\((?:{words})", re.IGNORECASE) for words, number in SAID),
    re.compile(rf"(?<![\d-]){LICENCE}-\d\d-\d{{6}}-\d\d(?![\d-])"),
    re.compile(rf"(?<![A-Z\d]){NINO.replace('[ -]?', ' ')}(?![A-Z\d])"),  # `AB 12 34 56 C`
    re.compile(r"(?<![A-Z\d])[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z](?![A-Z\d])", re.IGNORECASE),  # Italy's codice fiscale
    re.compile(r"(?<![A-Z\d<])P[A-Z<][A-Z]{3}[A-Z]{1,30}(?:<[A-Z]{1,30}){0,3}<<[A-Z<]{2}"),  # a passport's two lines for machines
    re.compile(r"(?<![A-Z\d<])[A-Z\d<]{9}\d[A-Z<]{3}\d{7}[MFX<]\d{7}[A-Z\d<]{14}[\d<]\d(?![A-Z\d<])"),
)
CHINESE = re.compile(r"(?<!\d)[1-9]\d{5}((?:19|20)\d\d)(\d\d)(\d\d)\d{3}[\dXx](?![A-Za-z\d])")


def holds_identity_document(text: str) -> bool:
    return any(pattern.search(text) for pattern in PATTERNS) or any(map(_is_chinese, CHINESE.finditer(text)))


def _is_chinese(found: re.Match[str]) -> bool:
    """A resident's number of 18 characters: a birth, and the checksum of GB 11643 (ISO 7064, modulo 11, with `X` for 10)."""
    try:
        date(*map(int, found.groups()))
    except ValueError:
        return False
    values = (10 if one in "Xx" else int(one) for one in reversed(found[0]))
    return sum(value * pow(2, at, 11) for at, value in enumerate(values)) % 11 == 1
