"""Card numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nomoat.route.pii.numbers import (
    GAP,
    GAP_OR_CELLS,
    IN_CELLS,
    IN_COLUMNS,
    LAST_FOLLOW,
    LIKE_KEYS,
    NEXT,
    NEXT_LIKE,
    VALUES,
    has_word_before,
    without_spaces,
)

ISSUERS = {14: r"3[0689]", 15: r"3[47]|2131|1800", 16: r"3|4|5|6|9|2(?:2[2-9]|[3-6]|7[01]|720)", 19: r"4|62"}
ROW = re.compile(r"\d(?<!\d\d)(?<!\d[ -]\d)(?:[ -]?\d){13,18}+(?![ -]?\d)")  # as many digits as cards have
SHAPES = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (6, 13), (4, 6, 4), (4, 6, 5))  # digits of each group on a card; written in one piece, too
AS_PRINTED = tuple(re.compile(f"({GAP_OR_CELLS})".join(rf"\d{{{count}}}" for count in shape) + r"(?!\d)") for shape in SHAPES)
NOT_IN_FOURS = AS_PRINTED[2:]
# Where a group begins behind which those of any shape follow: in a table few of its numbers are tried as cards.
CARD_START = re.compile(
    rf"\d(?<!\d\d)\d{{3}}(?={GAP_OR_CELLS}\d{{4}}(?:{GAP_OR_CELLS}\d{{4}}{GAP_OR_CELLS}\d{{4}}|\d\d{GAP_OR_CELLS}\d{{4}})"
    rf"|\d\d{GAP_OR_CELLS}\d{{13}})"
)
IN_HALVES = re.compile(rf"\d(?<!\d\d)\d{{3}}{GAP}\d{{4}}{GAP}\d{{4}}{LAST_FOLLOW}\d{{4}}(?!\d)")  # `5555 5555 5555, 끝 4444`
FOUR_DIGITS, APART, LONG_ROW = re.compile(r"\d(?<!\d\d)\d{3}(?!\d)"), re.compile(GAP_OR_CELLS), 6
FOURS_ON_A_LINE = re.compile(rf"{FOUR_DIGITS.pattern}(?:[^\d\n]++\d{{4}}(?!\d)){{{LONG_ROW - 1}}}")  # else there is no long row
SAID = re.compile(r"카드(?!뉴스)|(?<![^\W_])card(?!i[agno]|bo|am)", re.IGNORECASE)
REACH_OF_CELLS = 60  # characters, with the digit before or after them
TWO_UNDER_KEYS = re.compile(  # of four
    rf"[:=][\s\"']{{0,3}}\d{{4}}{NEXT}[\w.\[-]{{1,21}}\]?[\s\"']{{0,3}}[:=][\s\"']{{0,3}}\d{{4}}(?!\d)"
)
UNDER_KEYS = re.compile(LIKE_KEYS + NEXT_LIKE.join([r"(\d{4})"] * 4) + r"(?!\d)")
DIGIT_BEFORE, DIGIT_AFTER = re.compile(rf"\d{GAP}\Z"), re.compile(rf"{GAP}\d")
CELL_BEFORE, CELL_AFTER = re.compile(rf"\d{GAP_OR_CELLS}\Z"), re.compile(rf"{GAP_OR_CELLS}\d")


def holds_card(text: str) -> bool:
    """An issuer's first digits, an issuer's length, and Luhn's checksum. 9: cards for use within Korea.

    Where other digits stand before or after, such as a date or a second card, it must be in one piece or in groups as cards have them:
    a tenth of all numbers fit the checksum by chance. So most of those have to fit whose groups are columns, far from each other, and
    half of those that would fill a row of six groups of four or more.
    """
    in_a_row = (row[0] for row in ROW.finditer(text))
    are_there = VALUES.search(text) and TWO_UNDER_KEYS.search(text)
    under_keys = ("".join(found.group(2, 3, 4, 5)) for found in UNDER_KEYS.finditer(text)) if are_there else ()
    in_halves = (found[0] for found in IN_HALVES.finditer(text))
    if any(map(_is_card, (*in_a_row, *under_keys, *in_halves))):
        return True
    rows = list(_long_rows(text))
    if rows and 2 * sum(map(_num_cards, rows)) >= sum(len(row) // 4 for row in rows):
        return True
    in_rows = {group.start() for row in rows for group in row}
    num_in_columns = num_fitting = 0
    for start in CARD_START.finditer(text):
        shapes = NOT_IN_FOURS if start.start() in in_rows else AS_PRINTED
        for found in filter(None, (pattern.match(text, start.start()) for pattern in shapes)):
            gaps = found.groups()
            if not _belongs_together(text, *found.span(), gaps=gaps):
                continue
            if any(map(IN_COLUMNS.fullmatch, gaps)):
                num_in_columns += 1
                num_fitting += _is_card(found[0])
            elif _is_card(found[0]):
                return True
    return 2 * num_fitting > num_in_columns


def _long_rows(text: str) -> Iterator[Sequence[re.Match[str]]]:
    """Groups of four digits on a line, six or more with the same between all."""
    row, between = list[re.Match[str]](), ""
    for group in FOUR_DIGITS.finditer(text) if FOURS_ON_A_LINE.search(text) else ():
        gap = text[row[-1].end() : group.start()] if row else "\n"
        sign, is_near = without_spaces(gap), "\n" not in gap and APART.fullmatch(gap) is not None
        if is_near and (len(row) == 1 or sign == between):
            row.append(group)
        else:
            if len(row) >= LONG_ROW:
                yield row
            row = [row[-1], group] if is_near else [group]
        between = sign
    if len(row) >= LONG_ROW:
        yield row


def _num_cards(row: Sequence[re.Match[str]]) -> int:
    """How many a row holds if as many as there is room for stand one behind the other: in cells from its begin or up to its end."""
    groups, spare = [group[0] for group in row], len(row) % 4
    is_in_cells = IN_CELLS.search(row[0].string[row[0].end() : row[1].start()]) is not None
    return max(
        sum(_is_card("".join(groups[at : at + 4])) for at in range(first, len(groups) - 3, 4))
        for first in ((0, spare) if is_in_cells else range(spare + 1))
    )


def _is_card(number: str) -> bool:
    digits = "".join(filter(str.isdecimal, number))
    return len(digits) in ISSUERS and re.match(ISSUERS[len(digits)], digits) is not None and _luhn_fits(digits)


def _belongs_together(text: str, start: int, end: int, *, gaps: Sequence[str]) -> bool:
    """The same between all groups, but for a line's end (`54252334\\n30109903`). A card may go on in the next line, or in further
    cells, where no digits stand before it or none after: no table. Over blank lines, as over turns, and from eight digits to eight
    there are none on either side; nor over several lines, where a word before it says it, too. Numbers beside it in other cells count
    where it stands in cells itself."""
    signs, breaks = {without_spaces(gap) or (gap and " ") for gap in gaps}, [gap.count("\n") for gap in gaps if "\n" in gap]
    are_halves = bool(breaks) and [bool(gap) for gap in gaps] == [False, True, False]
    if (len(signs) > 1 and not are_halves) or (len(breaks) > 1 and not has_word_before(SAID, text, start)):
        return False
    is_in_cells = any(map(IN_CELLS.search, gaps))
    if not breaks and not is_in_cells:
        return True
    before, after = (CELL_BEFORE, CELL_AFTER) if is_in_cells else (DIGIT_BEFORE, DIGIT_AFTER)
    beside = before.search(text, max(0, start - REACH_OF_CELLS), start), after.match(text, end)
    return not (any(beside) if sum(breaks) > 1 or are_halves else all(beside))


def _luhn_fits(digits: str) -> bool:
    """ISO/IEC 7812-1: from the right, every second digit counts twice, its digits added."""
    doubled = (int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0
