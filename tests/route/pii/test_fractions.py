"""Digits behind a point are no numbers of anyone, and what numbers a list is no fraction."""

from __future__ import annotations

import random

import pytest
from private_kinds import kinds

from nomoat.route import pii


def test_fractions_are_no_numbers_of_anyone() -> None:
    """As Python writes them. Drawn with a fixed seed: no chance of a false alarm."""
    draw = random.Random(6)
    for num_decimals in (8, 10, 13, 16):
        assert pii.find(", ".join(f"{draw.random():.{num_decimals}f}" for _ in range(1_000))) == ()
        for between in (", ", "\n"):
            assert pii.find(between.join(f"{draw.uniform(1, 999):.{num_decimals}f}" for _ in range(1_000))) == ()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("주민번호 5.9001011234568", "resident_number"),
        ("2.9001011234568", "resident_number"),
        ("1.9001011234567\n2.9001021234567", "resident_number"),
        ("1. 홍길동\n  2.9001011234567\n3. 김철수\n1.8001011234560", "resident_number"),
        ("1. 홍길동\n\n참고\n1.9001011234567\n", "resident_number"),
        ("1. 학생\n  1.9001011234567\n  2.9001021234567\n2. 교사", "resident_number"),
        ("1.9001011234567(홍길동)\n3.5점", "resident_number"),
        ("> 1.9001011234567", "resident_number"),
        ("카드1.4111111111111111", "card"),
        ("1.0212345678", "phone"),
        ("3.01112345678", "phone"),
        ("100.01012345678", "phone"),
        ("tel 1.0101234567 8", "phone"),
    ],
)
def test_what_a_list_numbers_is_no_fraction(text: str, kind: str) -> None:
    assert kinds(text) == {kind}
