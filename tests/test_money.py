"""Sums of money as a person reads them."""

from __future__ import annotations

import pytest

from nomoat.money import dollars


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (2.0, "$2.00"),
        (1.97, "$1.97"),
        (0.0103, "$0.0103"),
        (0, "$0.00"),
        (0.00003, "$0.00003"),
        (4.2e-07, "$0.00000042"),
        (1234.5, "$1,234.50"),
    ],
)
def test_sums_have_as_many_digits_as_they_need(usd: float, text: str) -> None:
    assert dollars(usd) == text
