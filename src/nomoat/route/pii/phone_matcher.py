"""Phone numbers, as `phonenumbers` finds them in a text, some five times as fast in long columns of numbers.

The library tries each piece of such a column as a number, some 80 in every 20 of them. Most have digits that are no number of Korea,
which one pattern tells, made of the library's own facts; what is found is the same.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from typing import Any

from phonenumbers import Leniency, PhoneMetadata, PhoneNumberMatch, PhoneNumberMatcher

HOME_REGION = "KR"
DIGITS_ALONE = re.compile(r"[0-9\s()\[\]./-]*")  # without a `+` of other countries, an extension, a digit of another script
NO_DIGIT = re.compile(r"[^0-9]")
# A number is valid, says the library, if it is of one of these.
KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan", "voicemail",
)  # fmt: skip


def phones(text: str, *, as_usual: bool = False) -> Iterator[PhoneNumberMatch]:
    """The numbers in the text; `raw_string` is how each is written there. `as_usual`: those alone whose groups are what their country
    has."""
    leniency = Leniency.STRICT_GROUPING if as_usual else Leniency.VALID
    return iter(_Matcher(text, HOME_REGION, leniency, sys.maxsize))


class _Matcher(PhoneNumberMatcher):
    def _extract_match(self, candidate: str, offset: int) -> PhoneNumberMatch | None:
        if len(candidate) < _fewest_digits() or (
            DIGITS_ALONE.fullmatch(candidate) and len(NO_DIGIT.sub("", candidate)) < _fewest_digits()
        ):
            return None
        return super()._extract_match(candidate, offset)

    def _parse_and_verify(self, candidate: str, offset: int) -> PhoneNumberMatch | None:
        if DIGITS_ALONE.fullmatch(candidate) and not _digits_of_numbers().fullmatch(NO_DIGIT.sub("", candidate)):
            return None
        return super()._parse_and_verify(candidate, offset)


@functools.cache
def _fewest_digits() -> int:
    """Of a number dialled from here; one of another country has a prefix, a country and two more."""
    home: Any = PhoneMetadata.metadata_for_region(HOME_REGION)
    return int(min(home.general_desc.possible_length))


@functools.cache
def _digits_of_numbers() -> re.Pattern[str]:
    """Those that a number dialled from here may have: without the country, as it is given to others, or of another country."""
    home: Any = PhoneMetadata.metadata_for_region(HOME_REGION)
    given = (getattr(home, kind) for kind in KINDS)
    prefix, number = home.national_prefix_for_parsing, "|".join(one.national_number_pattern for one in given if one is not None)
    return re.compile(rf"(?:{prefix})?(?:{number})|(?:{home.country_code}|{home.international_prefix})[0-9]*")
