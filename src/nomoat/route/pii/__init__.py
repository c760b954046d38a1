"""Which kinds of private data a text holds. The text itself is never kept, logged or shown.

A module for each kind; each `holds_…` looks for one in a text in its plainest characters. `guard` asks for a request's texts.

Read as a person would read it (`plain`): full-width digits and those of other scripts, what stands between the groups of a number,
invisible characters, escapes and Markdown's marks make no difference, and letters may be glued to a number, as Korean particles are.

Why not presidio-analyzer, whose recognisers the design names: it installs 51 packages and 374 MB, spaCy among them (measured
with presidio-analyzer 2.2.366), to match patterns of a few lines. Phone numbers are found by `phonenumberslite` (5 MB).

What this does not cover: names nobody listed, dates of birth, identity documents but for those of `documents`, plates but for
Korean ones, health, IP addresses, keys and passwords of other forms that nothing names; phone numbers of other countries without
their `+`; accounts without a bank's word beside them or above, and what ends in `원` as amounts do;
addresses without a house number or with no place beside it, and of countries that `addresses` does not know;
landline, business and account numbers in several cells of a table or under several keys;
numbers spelled out in words but for mobile ones, in pictures, or in base64 and such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from nomoat.route.pii.accounts import holds_bank_account
from nomoat.route.pii.addresses import holds_address
from nomoat.route.pii.api_keys import holds_api_key
from nomoat.route.pii.business import holds_business_number
from nomoat.route.pii.cards import holds_card
from nomoat.route.pii.customs import holds_customs_code
from nomoat.route.pii.documents import holds_identity_document
from nomoat.route.pii.emails import holds_email
from nomoat.route.pii.fractions import without_fractions
from nomoat.route.pii.hashes import without_hashes
from nomoat.route.pii.names import holds_name
from nomoat.route.pii.patterns import holds_pattern
from nomoat.route.pii.phones import holds_phone
from nomoat.route.pii.plain import readings
from nomoat.route.pii.plates import holds_number_plate
from nomoat.route.pii.residents import holds_resident_number

Kind = Literal[
    "resident_number", "identity_document", "number_plate", "phone", "business_number", "customs_code", "bank_account", "card",
    "email", "address", "api_key", "name",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_TITLES: dict[Kind, str] = {
    "resident_number": "a resident registration number",
    "identity_document": "an identity document's number",
    "number_plate": "a car's number plate",
    "phone": "a phone number",
    "business_number": "a business registration number",
    "customs_code": "a personal customs code",
    "bank_account": "a bank account",
    "card": "a card number",
    "email": "an e-mail address",
    "address": "a postal address",
    "api_key": "an API key or a password",
    "name": "a name or a pattern from the policy",
}


def find(text: str, *, kinds: Iterable[Kind] = KINDS, names: Sequence[str] = (), patterns: Sequence[str] = ()) -> tuple[Kind, ...]:
    """Those of these kinds of which the text holds something. `names` are the user's own words, `patterns` regular expressions, which
    are looked for in the text as it is, too; what either finds is a `name`."""
    read = readings(text)
    numbers = [without_hashes(reading) for reading in read]
    whole = [without_fractions(reading) for reading in numbers]
    where = dict.fromkeys(HASH_LIKE, numbers) | dict.fromkeys(FRACTION_LIKE, whole)

    def holds(kind: Kind) -> bool:
        if kind == "name":
            return any(holds_name(one, names) for one in read) or holds_pattern(dict.fromkeys((text, *read)), patterns)
        return any(_holds(one, kind) for one in where.get(kind, read))

    return tuple(filter(holds, kinds))


def _holds(text: str, kind: Kind) -> bool:
    if FINDERS[kind](text) or (kind in BROKEN_KINDS and _over_breaks(text, kind)):
        return True
    return kind in GOING_ON and (going_on := DASH_AT_END.sub("-", text)) != text and FINDERS[kind](going_on)


def _over_breaks(text: str, kind: Kind) -> bool:
    """Numbers that a line's end parts anywhere (`010-12` and `34-5678`, also as two parts of a message), with dashes between all
    groups and none around: columns of numbers are ordinary."""
    for found in BREAK.finditer(text):
        start, after = found.span(found.lastindex or 0)
        at = max(0, start - REACH_OF_BREAKS)
        line, join = text[at:start] + text[after : after + REACH_OF_BREAKS], start - at
        for number in DASHED_NUMBER.finditer(line):
            if number.start() < join < number.end() and FINDERS[kind](number[0]):
                return True
    return False


REACH_OF_BREAKS = 20  # characters: the longest of those numbers, and one beside it
# A line's end between digits, with a dash before or behind them, and what it may part: see `_over_breaks`.
LINES_END = r"([^\S\n]{0,4}\n[^\S\n]{0,4})"
BREAK = re.compile(rf"\d(?:-\d{{0,12}}{LINES_END}(?=\d)|{LINES_END}(?=\d{{0,12}}-\d))")
DASHED_NUMBER = re.compile(r"(?<![\d-])(?:01[016789]-\d{3,4}-\d{4}|\d{6}-\d{7}|\d{4}-\d{4}-\d{4}-\d{4}|\d{3}-\d{2}-\d{5})(?![\d-])")
HASH_LIKE = ("identity_document", "business_number", "customs_code", "bank_account")
FRACTION_LIKE = ("resident_number", "phone", "card")
# Numbers of many forms, that go on behind a dash in the next line.
GOING_ON, DASH_AT_END = ("phone", "bank_account"), re.compile(r"-(?<=\d-)[^\S\n]*+\n\s{0,8}(?=\d)")
BROKEN_KINDS = ("resident_number", "phone", "business_number", "card")

FINDERS: dict[Kind, Callable[[str], bool]] = {  # each looks in a text in its plainest characters
    "resident_number": holds_resident_number,
    "identity_document": holds_identity_document,
    "number_plate": holds_number_plate,
    "phone": holds_phone,
    "business_number": holds_business_number,
    "customs_code": holds_customs_code,
    "bank_account": holds_bank_account,
    "card": holds_card,
    "email": holds_email,
    "address": holds_address,
    "api_key": holds_api_key,
}
