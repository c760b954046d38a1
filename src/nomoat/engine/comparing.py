"""Comparisons in chat templates as Python makes them, but step by step: Python compares lists within lists without a pause.

Two lists of two lists of two lists, and so on, are made by a few letters; to compare them takes a step for each time that one is met.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any

from jinja2 import Undefined
from jinja2.filters import ignore_case, make_attrgetter

from nomoat.engine.rations import PART_BYTES, STEP_BYTES, metered, pay, stop

PLAIN = frozenset({str, int, bool, float, type(None)})  # compared with anything, they look at nothing within it
LETTERS = 8  # of a text, or more, are compared or searched in the time of a byte


def key(value: Any) -> Any:
    """What may be looked up in a dict. Tuples of tuples take as long to look up as to compare, and more stack than there is."""
    if type(value) not in PLAIN and not isinstance(value, Undefined):
        stop(f"it looks up a value of the type {type(value).__name__}")
    return value


def equal(left: Any, right: Any) -> Any:
    pay(STEP_BYTES)
    if type(right) in PLAIN or type(left) in PLAIN:
        return left == right
    return _is_equal(left, right)


def unequal(left: Any, right: Any) -> bool:
    return not equal(left, right)


def _is_equal(left: Any, right: Any) -> bool:
    pay(STEP_BYTES + (min(len(left), len(right)) // LETTERS if isinstance(left, str) and isinstance(right, str) else 0))
    if _are_rows(left, right):
        return len(left) == len(right) and all(map(_is_same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return len(left) == len(right) and all(name in right and _is_same(left[name], right[name]) for name in left)
    _refuse_items(left, right)
    return bool(left == right)


def _is_same(left: Any, right: Any) -> bool:
    return left is right or _is_equal(left, right)


def _are_rows(left: Any, right: Any) -> bool:
    return (isinstance(left, list) and isinstance(right, list)) or (isinstance(left, tuple) and isinstance(right, tuple))


def _refuse_items(*values: Any) -> None:
    if any(isinstance(value, ItemsView) for value in values):
        stop("it compares `items()`, which no chat template needs")


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def is_ordered(left: Any, right: Any) -> bool:
        pay(STEP_BYTES)
        if _are_rows(left, right):
            for one, other in zip(left, right, strict=False):
                if not _is_same(one, other):
                    return is_ordered(one, other)
            return compare(len(left), len(right))
        _refuse_items(left, right)
        return bool(compare(left, right))

    return is_ordered


def within(value: Any, values: Any) -> bool:
    """`value in values`."""
    pay(STEP_BYTES)
    if type(values) is dict and type(value) is str:  # as nearly always
        return value in values
    if isinstance(values, str):
        pay(len(values) // LETTERS)
        return value in values
    if isinstance(values, Mapping | KeysView):
        return key(value) in values
    if isinstance(values, list | tuple) and type(value) in PLAIN:
        pay(len(values) * (STEP_BYTES + (len(value) // LETTERS if isinstance(value, str) else 0)))
        return value in values
    return any(_is_same(value, one) for one in values)


def not_within(value: Any, values: Any) -> bool:
    return not within(value, values)


def places(values: Sequence[Any], value: Any) -> Iterator[int]:
    """Where this value stands among these."""
    return (place for place, one in enumerate(values) if _is_same(one, value))


def unique(environment: Any, value: Iterable[Any], case_sensitive: bool = False, attribute: Any = None) -> Iterator[Any]:
    """Jinja's filter."""
    looked_at = make_attrgetter(environment, attribute, postprocess=None if case_sensitive else ignore_case)
    seen = set()
    for one in metered(value, PART_BYTES):
        if (found := key(looked_at(one))) not in seen:
            seen.add(found)
            yield one


def mapping(pairs: Any) -> dict[Any, Any]:
    """A dict of another one, or of pairs, each looked up in a step of its own: numbers can be such that all are found in one place."""
    found = {}
    for name, value in metered(pairs.items() if isinstance(pairs, Mapping) else pairs, PART_BYTES):
        found[key(name)] = value
    return found


COMPARED: dict[str, Callable[[Any, Any], bool]] = {  # by Jinja's names of operators
    "eq": equal,
    "ne": unequal,
    "lt": _ordered(operator.lt),
    "lteq": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "gteq": _ordered(operator.ge),
    "in": within,
    "notin": not_within,
}
TESTS = {  # by Jinja's names of tests
    **dict.fromkeys(("==", "eq", "equalto"), "eq"), **dict.fromkeys(("!=", "ne"), "ne"), "in": "in",
    **dict.fromkeys((">", "gt", "greaterthan"), "gt"), **dict.fromkeys((">=", "ge"), "gteq"),
    **dict.fromkeys(("<", "lt", "lessthan"), "lt"), **dict.fromkeys(("<=", "le"), "lteq"),
}  # fmt: skip
