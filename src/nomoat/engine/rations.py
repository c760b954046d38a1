"""What a chat template may take: each step is paid for in bytes before it is made, and is refused if it takes too many at once.

A byte stands for what a byte of a text takes, or for the time in which a template does as much: some 5 ns.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from typing import Any, NoReturn

MOST_BYTES = 2_000_000_000  # that all a template makes may take together
ONCE = 20  # a step may take so many times less: nothing cuts it short
STEP_BYTES = 10  # what a step of a loop, a call, or a value that is written counts for besides
LOOK_BYTES = 20 * STEP_BYTES  # the time is looked at as often
MOST_SECONDS = 10.0  # of computing
PART_BYTES = 90  # of a part of a text, as in `split`: what Python's texts take besides their letters, and its place in the list
ESCAPED = 4  # letters that stand for one in a text within a list that is written, such as `\x00`
DEEPEST = 200  # lists within lists: Python's own walks through them have the C stack


class _Ration(threading.local):
    """What is left for this thread's rendering."""

    num_bytes = math.inf
    until = math.inf  # of `time.thread_time`, which takes as long as a hundred steps
    asks_at = math.inf  # of `time.monotonic`: until then it cannot be over
    looks_at = -math.inf  # so few bytes left, and the time is looked at


_left = _Ration()


@contextmanager
def bounded() -> Iterator[None]:
    """Within it a template that takes more than MOST_BYTES or MOST_SECONDS raises SecurityError."""
    outside = vars(_left).copy()
    _left.num_bytes = _left.looks_at = MOST_BYTES
    _left.until, _left.asks_at = time.thread_time() + MOST_SECONDS, time.monotonic() + MOST_SECONDS
    try:
        yield
    finally:
        vars(_left).clear()
        vars(_left).update(outside)


def pay(num_bytes: int) -> None:
    """For one step. Raises SecurityError where that is too much at once, or nothing is left."""
    left = _left.num_bytes = _left.num_bytes - num_bytes
    if left < _left.looks_at:
        _left.looks_at = left - LOOK_BYTES
        require_once(num_bytes)
        if left < 0:
            stop(f"it makes more than {MOST_BYTES / 1e6:,.0f} MB of texts, or loops as long: a shorter conversation may do")
        if time.monotonic() >= _left.asks_at:
            _require_time()


def _require_time() -> None:
    rest = _left.until - time.thread_time()
    if rest < 0:
        stop(f"it computes for more than {MOST_SECONDS:.0f} s: a shorter conversation may do")
    _left.asks_at = time.monotonic() + rest


def require_once(num_bytes: int) -> None:
    """Raises SecurityError if a single step would take so much."""
    if num_bytes * ONCE > MOST_BYTES:
        stop(f"it makes, or looks at, more than {MOST_BYTES / ONCE / 1e6:,.0f} MB in one step")


def stop(why: str) -> NoReturn:
    from jinja2.exceptions import SecurityError

    raise SecurityError(why)


def step() -> None:
    pay(STEP_BYTES)


def made(value: Any, paid: int = 0) -> Any:
    """A value that a template has made; `paid`: bytes of it that were paid before."""
    pay(max(STEP_BYTES, sys.getsizeof(value) - paid))
    return value


def metered(values: Iterable[Any], num_bytes: int = STEP_BYTES) -> Iterator[Any]:
    """Each of these values, a step that counts for so many bytes."""
    for value in values:
        pay(num_bytes)
        yield value


def listed(values: Iterable[Any]) -> list[Any]:
    """These values, which may be made only now, as the letters of a text are."""
    return list(metered(values, STEP_BYTES if isinstance(values, list | tuple) else PART_BYTES))


def pay_for(values: Sequence[Any], times: int = 1) -> int:
    """For texts that are made of these values, each written so many times; how many bytes that were.

    What is within lists and dicts counts wherever it is met, however often that is, as it is written or compared as often.
    """
    from jinja2 import Undefined

    scalars = (str, int, float, complex, type(None), Undefined)
    level, depth, paid = values, 0, 0
    while level:
        if depth > DEEPEST:
            stop(f"it nests lists in lists more than {DEEPEST} deep")
        below: list[Any] = []
        for value in level:
            num_bytes = STEP_BYTES + sys.getsizeof(value) * times * (ESCAPED if depth and isinstance(value, str) else 1)
            pay(num_bytes)
            paid += num_bytes
            if isinstance(value, scalars):
                continue
            if isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
                below += value
            elif isinstance(value, Mapping):
                below += [*value.keys(), *value.values()]
            else:
                stop(f"it writes a value of the type {type(value).__name__}")
        level, depth = below, depth + 1
    return paid


def text_of(value: Any) -> str:
    """A value as text; what is one is paid for by who makes something of it."""
    if isinstance(value, str):
        return value
    paid = pay_for([value])
    return str(made(str(value), paid))


def joined(parts: Iterable[Any]) -> str:
    """Parts of a text, put together: of `~`, of a macro, of all that is rendered."""
    texts, paid = [], 0
    for part in parts:
        text = text_of(part)
        size = sys.getsizeof(text)
        pay(STEP_BYTES + size)
        paid += size
        texts.append(text)
    require_once(paid)
    return str(made("".join(texts), paid))
