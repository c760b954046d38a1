"""Numbers of things, lists of them, and names, as a sentence holds them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

LONGEST_NAME = 80  # characters, of those in a list
SHOWN_CODE = "⟨U+{:04X}⟩"  # in the place of a character
# What turns letters around makes a name or code look like another: https://trojansource.codes. For `str.translate`.
SHOWN_TURNS = {code: SHOWN_CODE.format(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
# Spaces or full stops between words; or six letters of Thai, Lao, Burmese, Khmer, Japanese or Chinese.
SEVERAL_WORDS = re.compile(r"\S\s+\S|[。、，！？]|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{6}")
# Letters and signs by category that are not seen: Hangul's and Braille's blanks, the joiner of graphemes, selectors of variants.
UNSEEN = re.compile("[\u034f\u115f\u1160\u2800\u3164\uffa0\ufe00-\ufe0f]")
# Seen by what it makes of its neighbours: between emoji or behind one, in keycaps and flags of regions, and where it parts Arabic
# letters that would join.
IN_SIGNS = re.compile(
    "(?<=[^\\s\\w])[\u200d\ufe00-\ufe0f]|\ufe0f(?=\u20e3)|(?<=\U0001f3f4)[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f"
    "|(?<=[\u0626\u0628\u062a-\u062e\u0633-\u063f\u0641-\u0647\u064a\u0678-\u0687\u069a-\u06bf\u06c1\u06c2\u06cc\u06ce\u06d0])\u200c(?=[\u0620-\u06d3])"
)


def places_in_signs(text: str) -> set[int]:
    """Where characters stand that are not seen themselves, and change what is seen."""
    return {at for found in IN_SIGNS.finditer(text) for at in range(*found.span())}


def in_sight(name: str) -> str:
    """A name with what nobody sees, such as a line break or a space of no width, in a form that is seen."""
    shown = places_in_signs(name)
    return "".join(
        SHOWN_CODE.format(ord(char)) if at not in shown and (not char.isprintable() or UNSEEN.match(char)) else char
        for at, char in enumerate(name)
    )


def is_blank(text: str) -> bool:
    """Whether there is nothing to see: spaces, also those of no width, blank letters, and marks for the reader of a file."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") or UNSEEN.match(char) for char in text)


def trimmed(text: str) -> str:
    """The text without the space around it; empty where there is nothing to see."""
    return "" if is_blank(text) else text.strip()


def has_several_words(text: str) -> bool:
    """Whether it is more than a word, such as a number or a file's name; of a script that writes without spaces, six letters are."""
    return SEVERAL_WORDS.search(text) is not None


def counted(count: float, thing: str) -> str:
    """A number of things: "1 item", "1,319 items", "0.5 epochs". Only things whose plural ends in a plain s."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {thing}{'s' if count != 1 else ''}"


def listed(names: Sequence[str], *, last: str = "and") -> str:
    """Names in a sentence: "a, b and c"."""
    return f" {last} ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def apart(name: str) -> str:
    """A name as a list shows it: cut where it is long, and in backticks where its own commas would look like the list's."""
    shown = in_sight(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")
    return f"`{shown}`" if "," in shown else shown


def first_few(names: Sequence[str], most: int) -> str:
    """The first names of what may be a long list: "a, b and 1,234 more"."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def gigabytes_up(num_bytes: int) -> str:
    """In GB, rounded up to two decimals: enough of it."""
    return f"{math.ceil(num_bytes / 1e7) / 100:g}"


def two_gigabytes(one: int, other: int) -> tuple[str, str]:
    """Two numbers of bytes in GB that a sentence compares: with as many decimals, from one on, as tell them apart."""
    for decimals in range(1, 10):
        told = f"{one / 1e9:.{decimals}f}", f"{other / 1e9:.{decimals}f}"
        if one == other or told[0] != told[1]:
            break
    return told
