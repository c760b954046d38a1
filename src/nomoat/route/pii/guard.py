"""What of a request must not leave: looked for in each of its texts alone, and in those that are read one after another.

What stands beside a number may take it for something else (digits, the rows of a table), and the next turn stands beside all earlier
ones: so each text counts by itself. A number may go on over two turns: so they count together, too, as many as fill a window.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from nomoat.route import pii
from nomoat.route.pii import Kind

MOST_REMEMBERED = 10_000  # texts, at about 300 bytes each
# Characters: of texts that are looked at together, and of those that the next window has, too, where these are whole texts; no fewer
# than the last, since each group of a number may be a text.
WINDOW, OVERLAP, LEAST = 20_000, 5_000, 100
FAR: tuple[Kind, ...] = ("customs_code",)  # a word anywhere says what they are, however far from them

_lock = threading.Lock()
_remembered: OrderedDict[bytes, tuple[Kind, ...]] = OrderedDict()


def private_kinds(
    texts: Iterable[str], *, kinds: Sequence[Kind], names: Sequence[str], patterns: Sequence[str] = (), whole: str = ""
) -> tuple[Kind, ...]:
    """The kinds of private data that any of the texts holds, each once, by text and then as `kinds` has them. `whole`: all of what
    `windows` shows in pieces, in which those that are `FAR` are looked for, too.

    Each turn of a conversation comes with all earlier ones: what was seen in a text is remembered by the text's sha256, without it.
    """
    texts = dict.fromkeys(texts)
    found = _kinds_in(texts, kinds, names, patterns)
    far = tuple(kind for kind in kinds if kind in FAR and kind not in found)
    return (*found, *(_kinds_in([whole], far) if whole and far and whole not in texts else ()))


def windows(texts: Iterable[str]) -> Iterator[str]:
    """The texts one after another, in pieces of whole texts: what is added at the end changes the last piece alone. Each text is in
    one with the text before it, and with those between which are fewer than `LEAST` characters."""
    held, length, is_new = deque[str](), 0, False
    for text in texts:
        held.append(text)
        length, is_new = length + len(text), True
        if length >= WINDOW and length - len(held[0]) >= LEAST:
            yield "\n".join(held)
            is_new = False
            while length > OVERLAP and length - len(held[0]) >= LEAST:
                length -= len(held.popleft())
    if is_new:
        yield "\n".join(held)


def _kinds_in(
    texts: Iterable[str], kinds: Sequence[Kind], names: Sequence[str] = (), patterns: Sequence[str] = ()
) -> tuple[Kind, ...]:
    asked = hashlib.sha256(repr((tuple(kinds), tuple(names), tuple(patterns))).encode()).digest()
    find = functools.partial(pii.find, kinds=kinds, names=names, patterns=patterns)
    return tuple(dict.fromkeys(kind for text in texts for kind in _kinds_of(text, find, asked)))


def _kinds_of(text: str, find: Callable[[str], tuple[Kind, ...]], asked: bytes) -> tuple[Kind, ...]:
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
