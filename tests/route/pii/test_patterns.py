"""The user's own regular expressions."""

from __future__ import annotations

import json
import time

import pytest
from private_kinds import kinds

from nomoat.route.pii import patterns
from nomoat.route.pii.patterns import why_unusable

PATIENT = r"(?:환자|등록)번호 ?\d{8}"


@pytest.mark.parametrize(
    "text",
    [
        "환자번호 12345678의 결과",
        "등록번호00123456",
        "환자번호 １２３４５６７８",
        json.dumps({"q": "환자번호 12345678"}),
        "<b>환자번호</b> 12345678",
    ],
)
def test_a_pattern_is_looked_for_however_a_text_is_written(text: str) -> None:
    assert kinds(text, patterns=[r"MRN\d{6}", PATIENT]) == {"name"}
    assert kinds(text, patterns=[r"MRN\d{6}"]) == set()


def test_a_pattern_is_looked_for_in_the_text_as_it_is_too() -> None:
    """In its plainest characters it is another one."""
    assert kinds("부위 ① 12", patterns=["① [0-9]+"]) == {"name"}


def test_patterns_count_where_names_do() -> None:
    assert kinds("환자번호 12345678", kinds=["phone"], patterns=[PATIENT]) == set()


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (PATIENT, ""),
        (r"\b[A-Z]{2,3}-\d{4,10}\b", ""),
        (r"(?i)project\s+moat", ""),
        (r"환자번호.*\d{8}", ""),
        (r"MRN(\d+", "is no regular expression: missing ) at position 7"),
        (r"\d*", "matches the empty text, and so every text"),
        (r"MRN(?:\w+\s?)+x", "is too slow: 2,000 characters take longer than 0.2 s"),
        (r"(?:\d+)+번", "is too slow: 2,000 characters take longer than 0.2 s"),
        (r"(?:환자)(?:(?:\w+\s?)+)+번호$", "is too slow: 2,000 characters take longer than 0.2 s"),
    ],
)
def test_a_pattern_that_cannot_be_looked_for_is_known_before(pattern: str, why: str) -> None:
    assert why_unusable(pattern) == why


def test_a_text_that_takes_too_long_to_search_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program may give it one that no policy would be let have."""
    slow, text = r"(?:(?:[ab]b?)+)+c", "ab" * 5_000 + "!c"
    monkeypatch.setattr(patterns, "LONGEST_SEARCH", 0.2)
    started = time.process_time()
    assert kinds(text, patterns=[slow]) == {"name"}
    assert time.process_time() - started < 5
