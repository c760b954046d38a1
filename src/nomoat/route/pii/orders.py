"""Numbers of orders and parcels, which are as long as those of accounts."""

from __future__ import annotations

import re

ORDER, PARCEL = r"(?:주문|송장|예약|접수)", r"(?<![\uac00-\ud7a3])(?<!법인\s)(?<!부동산\s)(?:등기|소포)"  # no `법인등기`
NUMBERED = r"(?:주문|송장|예약|접수|등기|소포)"
# Not what is called so right before it.
NO_ORDERS_NUMBER = rf"(?<!{NUMBERED}번호[\s:])(?<!{NUMBERED}번호:\s)"
NO_ORDER = rf"(?<!{ORDER}[\s:]){NO_ORDERS_NUMBER}"
NO_PARCEL = rf"(?<!{PARCEL}[\s:])"  # which is no reason against a telephone number: `소포 1012345678로 전화`
CALLED_SO = re.compile(rf"(?:{ORDER}|{PARCEL}|{NUMBERED}\s?번호|등기우편)[은는이가]?[\s:#]{{0,3}}\Z")
HEAD = re.compile(rf"{NUMBERED}\s?번호")
REACH = 20_000  # characters: a longer table is as if it had no head


def is_order_cell(match: re.Match[str]) -> bool:
    """Whether a `number` is all that stands in a cell of a table, whose first line heads that column as one of orders or parcels."""
    text, (start, end) = match.string, match.span("number")
    reach = max(0, start - REACH)
    begin = text.rfind("\n\n", reach, start)
    head = text[reach if begin < 0 else begin + 2 : start].partition("\n")[0]
    before, after = text[text.rfind("\n", reach, start) + 1 : start], text[end : end + REACH].partition("\n")[0]
    for mark in ",;|\t":
        names, left, right = head.split(mark), before.split(mark), after.split(mark)
        is_row = len(names) > 1 and len(names) == len(left) + len(right) - 1
        if is_row and not (left[-1] + right[0]).strip(" \"'") and HEAD.fullmatch(names[len(left) - 1].strip(" \"'")):
            return True
    return False
