"""The price table."""

from __future__ import annotations

import pytest

from nomoat.catalog import cards
from nomoat.catalog.prices import price, prices


def test_a_price_has_a_date_and_a_source() -> None:
    found = price("openai:gpt-4o-mini")
    assert found is not None
    assert (found.input_usd_per_million, found.output_usd_per_million, found.as_of) == (0.15, 0.60, "2024-07")
    assert found.cost_usd(1_000_000, 500_000) == pytest.approx(0.45)
    assert all(row.source and row.as_of for row in prices().values())


def test_a_dated_version_has_the_price_of_its_model() -> None:
    assert price("openai:gpt-4o-mini-2024-07-18") == price("openai:gpt-4o-mini")
    assert price("anthropic:claude-haiku-4-5-20251001") == price("anthropic:claude-haiku-4-5")


def test_an_unknown_model_has_no_price() -> None:
    assert price("openai:gpt-99") is None


@pytest.mark.parametrize("api", [card.api for card in cards.cards() if card.api])
def test_every_model_that_can_be_called_has_a_price(api: str) -> None:
    assert price(api) is not None
