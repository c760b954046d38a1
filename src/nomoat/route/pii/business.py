"""Business registration numbers."""

from __future__ import annotations

import re

from nomoat.route.pii.numbers import COLUMNS, GAP, IN_COLUMNS, IN_WON, REACH_OF_TABLES, has_word_before
from nomoat.route.pii.orders import CALLED_SO

BETWEEN = rf"({COLUMNS}|{GAP})"
BUSINESS = re.compile(rf"(\d{{3}}(?<!\d{{4}})){BETWEEN}(\d{{2}}){BETWEEN}(\d{{5}})(?!\d)")
WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
WORDS = r"사업자|계산서(?!비스|버)|지출\s?증빙|business\s+(?:registration|reg)|(?<![^\W_])BRN(?![^\W_])"
SAID = re.compile(WORDS, re.IGNORECASE)
SAID_ABOVE = re.compile(rf"(?:{WORDS}){REACH_OF_TABLES}\Z", re.IGNORECASE)
SAID_BEHIND = re.compile(rf"[^\d\n]{{0,12}}?(?:{WORDS})", re.IGNORECASE)
REACH_ABOVE = 160  # characters


def holds_business_number(text: str) -> bool:
    """The checksum must fit; ten digits in one piece, in columns, or with other gaps, of which a tenth would fit by chance, need a
    word before or behind them, too, and not to be called an order's or an amount."""
    for match in BUSINESS.finditer(text):
        number, first, second = match[1] + match[3] + match[5], match[2], match[4]
        is_grouped = first and first == second and not IN_COLUMNS.fullmatch(first)
        if _checksum_fits(number) and (is_grouped or _is_said(match)):
            return True
    return False


def _is_said(match: re.Match[str]) -> bool:
    text, (start, end) = match.string, match.span()
    if has_word_before(CALLED_SO, text, start) or IN_WON.match(text, end):
        return False
    return bool(
        has_word_before(SAID, text, start)
        or SAID_ABOVE.search(text, max(0, start - REACH_ABOVE), start)
        or SAID_BEHIND.match(text, end)
    )


def _checksum_fits(digits: str) -> bool:
    """Source: National Tax Service; the ninth digit counts once more with the tens of its product."""
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, digits[:9], strict=True))
    return (10 - (total + int(digits[8]) * 5 // 10) % 10) % 10 == int(digits[9])
