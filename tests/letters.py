"""Texts as other systems write their letters."""

from __future__ import annotations

import unicodedata


def decomposed(text: str) -> str:
    """As macOS names files: syllables and accented letters in their parts."""
    return unicodedata.normalize("NFD", text)
