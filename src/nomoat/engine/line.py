"""Texts that wait, in the order in which they are let in and read: askers take turns, by the tokens that they ask to be read.

A text's place is where its asker's last unread one ends, or what is being read now if that is further, and its own tokens more. So
the texts of one asker are read as they come, and who comes while many of another wait is behind as many tokens of theirs as they
bring themselves.
Source: Golestani 1994, doi:10.1109/INFCOM.1994.337677.
"""

from __future__ import annotations

import bisect
import operator
from collections import deque
from collections.abc import Sequence

from nomoat.engine.texts import Text

_place = operator.attrgetter("place")


class Line(deque[Text]):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: dict[str, int] = {}  # by asker, the place of the last that is unread
        self._now = 0

    def put(self, text: Text) -> None:
        text.place = self._ends[text.asker] = max(self._now, self._ends.get(text.asker, 0)) + len(text.ids)
        self.insert(bisect.bisect_right(self, text.place, key=_place), text)

    def give_back(self, text: Text) -> None:
        """It was let in, and waits again, before all else that its asker has here, whose turns begin anew with what it is to read."""
        own = [text, *(other for other in self if other.asker == text.asker)]
        others = [other for other in self if other.asker != text.asker]
        self.clear()
        self.extend(others)
        self._ends.pop(text.asker, None)
        for one in own:
            self.put(one)

    def in_order(self, texts: Sequence[Text]) -> list[Text]:
        """These, which were let in and are yet to be read, the one whose turn it is first."""
        ordered = sorted(texts, key=_place)
        self._now = max([self._now, *(text.place for text in ordered[:1])])
        return ordered

    def drop_cancelled(self, unread: Sequence[Text]) -> None:
        """`unread`: those that were let in, in that order."""
        left = [text for text in self if not text.cancelled]
        if len(left) < len(self):
            self.clear()
            self.extend(left)
        self._ends = {text.asker: text.place for text in (*unread, *left)}
