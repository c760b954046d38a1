"""List prices of cloud APIs, each with its date and its source; `prices.toml` in NOMOAT_HOME, in the same form, comes first."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from nomoat import paths
from nomoat.errors import DataError
from nomoat.records import LongPrompts
from nomoat.textfiles import read_text

LINES = '[[price]], api = "openai:NAME", input = 0.15, output = 0.6, as_of = "2026-11", source = "…"'  # of one, for hints
VERSION_DATE = re.compile(r"-(20\d\d-\d\d-\d\d|20\d{6})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million units of input and output. `as_of` is since when, or for which period, the source gives it.

    `long_prompts`: what is asked where a prompt is long; None where that makes no difference.
    """

    api: str
    input_usd_per_million: float
    output_usd_per_million: float
    unit: Literal["tokens", "characters"]
    as_of: str
    source: str
    long_prompts: LongPrompts | None = None


@cache
def prices() -> dict[str, Price]:
    """Every price by API reference (`openai:gpt-4o-mini`)."""
    return _parse(resources.files("nomoat.catalog").joinpath("prices.toml").read_text(encoding="utf-8"))


def own_path() -> Path:
    """Where the user may write prices: their own contract's, or a server's that the table does not know."""
    return paths.home() / "prices.toml"


def _parse(text: str) -> dict[str, Price]:
    """Raises KeyError, TypeError and ValueError for what is no table of prices."""
    rows = tomllib.loads(text).get("price")
    if not isinstance(rows, list):
        raise ValueError("there is no [[price]] in it")
    return {
        row["api"]: Price(
            api=row["api"],
            input_usd_per_million=_usd(row, "input"),
            output_usd_per_million=_usd(row, "output"),
            unit=_unit(row.get("unit", "tokens")),
            as_of=str(row["as_of"]),  # a TOML date, too
            source=str(row["source"]),
            long_prompts=_long_prompts(row),
        )
        for row in rows
    }


def _usd(row: dict[str, Any], name: str) -> float:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` of `{row['api']}` is {value!r}, and has to be a number of USD, at least 0, without quotes")
    return value


def _long_prompts(row: dict[str, Any]) -> LongPrompts | None:
    told = row.get("long_prompts")
    if told is None:
        return None
    above = told["above_tokens"]
    if isinstance(above, bool) or not isinstance(above, int) or above < 1:
        raise ValueError(f"`above_tokens` of `{row['api']}` is {above!r}, and has to be a whole number of at least 1")
    priced = {"api": f"{row['api']}, long prompts", **told}
    return LongPrompts(above_tokens=above, input_usd_per_million=_usd(priced, "input"), output_usd_per_million=_usd(priced, "output"))


def _unit(value: Any) -> Literal["tokens", "characters"]:
    if value not in ("tokens", "characters"):
        raise ValueError(f"a unit is {value!r}, and has to be tokens or characters")
    return cast(Literal["tokens", "characters"], value)


def price(api_ref: str) -> Price | None:
    """The price of an API reference; a dated version (`openai:gpt-4o-mini-2024-07-18`) without one has that of its model.

    Raises DataError if the user's own table cannot be read.
    """
    own, known = _own_prices(), prices()
    for ref in (api_ref, VERSION_DATE.sub("", api_ref)):
        if (found := own.get(ref) or known.get(ref)) is not None:
            return found
    return None


def _own_prices() -> dict[str, Price]:
    path = own_path()
    if not path.exists():
        return {}
    try:
        return _parse(read_text(path))
    except (ValueError, KeyError, TypeError) as exc:  # TOMLDecodeError is a ValueError
        raise DataError(
            f"`{path}` is not a table of prices: {f'a price has no `{exc.args[0]}`' if isinstance(exc, KeyError) else exc}",
            hint=f"a price has the lines: {LINES}",
        ) from exc
