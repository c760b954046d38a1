"""What of a request must not leave: looked for in each of its texts alone, and in those that are read one after another.

What stands beside a number may take it for something else (digits, the rows of a table), and the next turn stands beside all earlier
ones: so each text counts by itself. A number may go on over two turns: so they count together, too.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from nomoat.route import pii
from nomoat.route.pii import Kind

MOST_REMEMBERED = 10_000  # texts, at about 300 bytes each

_lock = threading.Lock()
_remembered: OrderedDict[bytes, tuple[Kind, ...]] = OrderedDict()


def private_kinds(
    texts: Iterable[str], *, kinds: Sequence[Kind], names: Sequence[str], patterns: Sequence[str] = ()
) -> tuple[Kind, ...]:
    """The kinds of private data that any of the texts holds, each once, by text and then as `kinds` has them.

    Each turn of a conversation comes with all earlier ones: what was seen in a text is remembered by the text's sha256, without it.
    """
    asked = hashlib.sha256(repr((tuple(kinds), tuple(names), tuple(patterns))).encode()).digest()
    find = functools.partial(pii.find, kinds=kinds, names=names, patterns=patterns)
    return tuple(dict.fromkeys(kind for text in dict.fromkeys(texts) for kind in _kinds_in(text, find, asked)))


def _kinds_in(text: str, find: Callable[[str], tuple[Kind, ...]], asked: bytes) -> tuple[Kind, ...]:
    key = hashlib.sha256(asked + text.encode("utf-8", "surrogatepass")).digest()
    with _lock:
        if key in _remembered:
            _remembered.move_to_end(key)
            return _remembered[key]
    found = find(text)
    with _lock:
        _remembered[key] = found
        while len(_remembered) > MOST_REMEMBERED:
            _remembered.popitem(last=False)
    return found
