"""The user's own regular expressions."""

from __future__ import annotations

import json
import time

import pytest
from private_kinds import kinds

from nomoat.route.pii import patterns
from nomoat.route.pii.patterns import why_unusable

TOO_SLOW = "is too slow: 1,000 characters take longer than 0.1 s"
TOO_OFTEN = "repeats something more than 99,999 times"
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
        ("(?a)(?u)MRN", "is no regular expression: ASCII, LOCALE and UNICODE flags are mutually incompatible"),
        (r"MRN(?:\w+\s?)+x", TOO_SLOW),
        (r"(?:\d+)+번", TOO_SLOW),
        (r"(?:환자)(?:(?:\w+\s?)+)+번호$", TOO_SLOW),
        (r"\d+\s*\d+\s*\d+번", TOO_SLOW),
        (r"MRN\d{1,99999}", ""),
        (r"MRN\d{000005}", ""),
        (r"MRN\{123456}", ""),
        (r"\d{123456", ""),  # a brace
        (r"a{100000}", TOO_OFTEN),
        (r"MRN(?:1|2){1,123456}", TOO_OFTEN),
        (r"a{123456,}", TOO_OFTEN),
        (r"(?x)a{ 123456 }", TOO_OFTEN),
        (r"\\{123456}", TOO_OFTEN),
        (r"(?:(?:1|2){999}){9999}", TOO_OFTEN),
        (r"(?x) (?:(?:x{999}) y) {999}", TOO_OFTEN),
        (r"MRN\d{999}-\d{999}(?:[({]{9}x){9}", ""),
        (r"환자번호(?:[^\n]{0,1000}\n){1,100}", ""),  # only the least is written out
        (r"(?:[^\n]{0,500}\n){0,200}환자", ""),
        (r"MRN(?:[ ,]{1,400}\d{4}){2,300}", ""),
        (r"(?:x{300}y){400,}", TOO_OFTEN),
        (r"MRN\d{8}(?# {5} of {100000})", ""),
        (r"(?:(?:x{99})(?#c){99})(?#c){99}", TOO_OFTEN),
    ],
)
def test_a_pattern_that_cannot_be_looked_for_is_known_before(pattern: str, why: str) -> None:
    assert why_unusable(pattern) == why


def test_what_is_opened_and_never_closed_is_not_looked_through_again_and_again() -> None:
    started = time.process_time()
    for opened in ("[" * 20_000, "{" + " " * 20_000, "(?#" * 10_000):
        assert patterns._most_repeats(opened) == 1
    assert time.process_time() - started < 10


def test_a_text_that_takes_too_long_to_search_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program may give it one that no policy would be let have."""
    slow, text = r"(?:(?:[ab]b?)+)+c", "ab" * 5_000 + "!c"
    monkeypatch.setattr(patterns, "LONGEST_SEARCH", 0.2)
    started = time.process_time()
    assert kinds(text, patterns=[slow]) == {"name"}
    assert time.process_time() - started < 5


class Searching:
    """In place of a compiled expression: finds nothing, after so many seconds of work, if it is given so many of all threads."""

    def __init__(self, *, seconds: float = 0.0, of_all_threads: float = 0.0) -> None:
        self.seconds, self.of_all_threads = seconds, of_all_threads
        self.searched: list[str] = []

    def search(self, text: str, *, timeout: float) -> None:
        if timeout < self.of_all_threads:
            raise TimeoutError
        until = time.thread_time() + self.seconds
        while time.thread_time() < until:
            pass
        self.searched.append(text)


def test_what_other_threads_compute_makes_no_pattern_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of `regex` counts it."""
    busy = Searching(of_all_threads=10 * patterns.LONGEST_SEARCH)
    monkeypatch.setattr(patterns, "_compiled", lambda pattern: busy)
    assert kinds("MRN 1", patterns=["MRN"]) == set()
    assert why_unusable("an expression of this test") == ""


def test_that_a_pattern_was_too_slow_once_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(patterns, "LONGEST_TRY", 1e-9)
        assert why_unusable("MRN-[0-9]+").startswith("is too slow")
    assert why_unusable("MRN-[0-9]+") == ""


def test_all_patterns_have_the_time_of_one_text_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "LONGEST_SEARCH", 0.1)
    monkeypatch.setattr(patterns, "_compiled", lambda pattern: Searching(seconds=0.04))
    assert kinds("MRN", patterns=["a", "b"]) == set()
    assert kinds("MRN", patterns=["a", "b", "c", "d"]) == {"name"}


def test_a_text_that_is_its_own_reading_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searching = Searching()
    monkeypatch.setattr(patterns, "_compiled", lambda pattern: searching)
    kinds("MRN 1", patterns=["MRN"])
    assert searching.searched == ["MRN 1"]


def test_a_long_pattern_is_tried_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    searching = Searching(seconds=0.05)
    monkeypatch.setattr(patterns, "_compiled", lambda pattern: searching)
    monkeypatch.setattr(patterns, "LONGEST_TRIES", 0.1)
    assert why_unusable("an expression with many letters") == ""
    assert len(searching.searched) < 6  # of more than 30


def test_a_pattern_too_large_for_the_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pattern: str) -> None:
        raise MemoryError

    monkeypatch.setattr(patterns, "_compiled", refuse)
    assert why_unusable(PATIENT) == "needs too much memory"
