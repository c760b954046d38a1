"""Hashes and UUIDs: what stands within them are no numbers of anyone."""

from __future__ import annotations

import re

# 32 hexadecimal digits or more (MD5 and longer), or a UUID, in letters of one case, one of which is there.
HASH = re.compile(
    r"(?<![0-9A-Za-z])(?:(?=[0-9-]{0,36}[a-f])[0-9a-f]{8}(?:[0-9a-f]{24,}|-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"
    r"|(?=[0-9-]{0,36}[A-F])[0-9A-F]{8}(?:[0-9A-F]{24,}|-(?:[0-9A-F]{4}-){3}[0-9A-F]{12}))(?![0-9A-Za-z])"
)
MANY = re.compile("[0-9A-Fa-f]{12}")  # each has so many in a row


def without_hashes(text: str) -> str:
    """With `!` in place of each."""
    return HASH.sub("!", text) if MANY.search(text) else text
