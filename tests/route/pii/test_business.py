"""Business registration numbers."""

from __future__ import annotations

import pytest
from private_kinds import kinds


@pytest.mark.parametrize(
    "text",
    [
        "124-81-00998",
        "124 81 00998",
        "124.81.00998",
        "124 - 81 - 00998",
        "124  -  81  -  00998",
        "사업자번호     124     81     00998",
        "사업자번호 1248100998",
        "사업자등록번호(124－81－00998)를",
    ],
)
def test_business_number_with_its_checksum_is_seen(text: str) -> None:
    assert kinds(text) == {"business_number"}


@pytest.mark.parametrize("text", ["124-81-00999", "주문 1248100998", "사업자번호 1248100999", "124     81     00998"])
def test_business_number_needs_its_checksum_and_without_separators_a_word(text: str) -> None:
    assert kinds(text) == set()
