"""Business registration numbers."""

from __future__ import annotations

import re

from nomoat.route.pii.numbers import COLUMNS, GAP, IN_COLUMNS, has_word_before

BUSINESS = re.compile(rf"(\d{{3}}(?<!\d{{4}}))({COLUMNS}|{GAP})(\d{{2}})\2(\d{{5}})(?!\d)")
WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
SAID = re.compile(r"사업자|business\s+(?:registration|reg)|\bBRN\b", re.IGNORECASE)


def holds_business_number(text: str) -> bool:
    """The checksum must fit; ten digits without separators or in columns, of which a tenth would fit by chance, need a word before
    them too."""
    for match in BUSINESS.finditer(text):
        digits = match[1] + match[3] + match[4]
        is_grouped = match[2] and not IN_COLUMNS.fullmatch(match[2])
        if (is_grouped or has_word_before(SAID, text, match.start())) and _checksum_fits(digits):
            return True
    return False


def _checksum_fits(digits: str) -> bool:
    """Source: National Tax Service; the ninth digit counts once more with the tens of its product."""
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, digits[:9], strict=True))
    return (10 - (total + int(digits[8]) * 5 // 10) % 10) % 10 == int(digits[9])
