"""Personal customs codes (개인통관고유부호), with which people in Korea buy from abroad."""

from __future__ import annotations

import re

from nomoat.route.pii.sought import has_any, small_letters

CODE = re.compile(r"(?<![A-Za-z\d])[Pp][\s:._-]?(?:\d[\s._-]?){11}\d(?!\d)")
WORDS = ("통관", "세관", "직구", "부호", "pccc", "customs", "clearance")
SAID = re.compile(r"통관|세관|직구|고유\s?부호|(?<![A-Za-z])(?:pccc|customs|clearance[\s_-]?code)", re.IGNORECASE)


def holds_customs_code(text: str) -> bool:
    """How its check digit comes about is not published, and numbers of goods and orders look the same: a word says it, anywhere in
    the text, as a column's head or a question does."""
    return has_any(WORDS, small_letters(text)) and SAID.search(text) is not None and CODE.search(text) is not None
