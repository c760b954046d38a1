"""List prices of cloud APIs, each with its date and its source."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

VERSION_DATE = re.compile(r"-(20\d\d-\d\d-\d\d|20\d{6})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million units of input and output. `as_of` is since when, or for which period, the source gives it."""

    api: str
    input_usd_per_million: float
    output_usd_per_million: float
    unit: Literal["tokens", "characters"]
    as_of: str
    source: str

    def cost_usd(self, prompt_units: int, completion_units: int) -> float:
        """What one answer costs."""
        return (prompt_units * self.input_usd_per_million + completion_units * self.output_usd_per_million) / 1e6


@cache
def prices() -> dict[str, Price]:
    """Every price by API reference (`openai:gpt-4o-mini`)."""
    text = resources.files("nomoat.catalog").joinpath("prices.toml").read_text(encoding="utf-8")
    return {
        row["api"]: Price(
            api=row["api"],
            input_usd_per_million=row["input"],
            output_usd_per_million=row["output"],
            unit=row.get("unit", "tokens"),
            as_of=row["as_of"],
            source=row["source"],
        )
        for row in tomllib.loads(text)["price"]
    }


def price(api_ref: str) -> Price | None:
    """The price of an API reference; a dated version (`openai:gpt-4o-mini-2024-07-18`) has the price of its model."""
    return prices().get(api_ref) or prices().get(VERSION_DATE.sub("", api_ref))
