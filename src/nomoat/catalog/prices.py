"""List prices of cloud APIs, each with its date and its source; `prices.toml` in NOMOAT_HOME, in the same form, comes first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

from nomoat import paths
from nomoat.bounds import shown
from nomoat.errors import DataError
from nomoat.records import LongPrompts
from nomoat.textfiles import parse_toml, read_text

PARTS = ("api", "input", "output", "as_of", "source", "unit", "long_prompts")
LONG_PARTS = ("above_tokens", "input", "output")
MOST_USD = 1e6  # per million, a dollar for each: what is dearer is mistyped
YEAR = re.compile(r"(?<!\d)(19|20)\d\d")  # "2026-11", "202611", "2026년 11월"
VERSION_DATE = re.compile(r"-(20\d\d-\d\d-\d\d|20\d{6})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD per million units of input and output. `as_of` is since when, or for which period, the source gives it.

    `long_prompts`: what is asked where a prompt is long; None where that makes no difference. `is_own`: the user's table has it.
    """

    api: str
    input_usd_per_million: float
    output_usd_per_million: float
    unit: Literal["tokens", "characters"]
    as_of: str
    source: str
    long_prompts: LongPrompts | None = None
    is_own: bool = False


@cache
def prices() -> dict[str, Price]:
    """Every price by API reference (`openai:gpt-4o-mini`)."""
    return _parse(resources.files("nomoat.catalog").joinpath("prices.toml").read_text(encoding="utf-8"))


def lines(api: str = "openai:NAME", *, usd_in: str = "0.15", usd_out: str = "0.60", as_of: str = "2026-11") -> str:
    """A price as the user may write it, for the end of a hint: lines of TOML."""
    return f'\n[[price]]\napi = "{api}"\ninput = {usd_in}\noutput = {usd_out}\nas_of = "{as_of}"\nsource = "…"'


def own_path() -> Path:
    """Where the user may write prices: their own contract's, or a server's that the table does not know."""
    return paths.home() / "prices.toml"


def _parse(text: str) -> dict[str, Price]:
    """Raises KeyError and ValueError for what is no table of prices."""
    table = parse_toml(text)
    rows = table.get("price")
    if not isinstance(rows, list):
        raise ValueError("there is no [[price]] in it")
    _require_known(table, ("price",), "it")
    found: dict[str, Price] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"`price` holds {row!r}, and a price has to be lines below [[price]]")
        if not isinstance(api := row["api"], str):
            raise ValueError(f"`api` is {api!r}, and has to be a text")
        if api in found:
            raise ValueError(f"`{api}` has two prices")
        _require_known(row, PARTS, f"the price of `{api}`")
        found[api] = Price(
            api=api,
            input_usd_per_million=_usd(row, "input"),
            output_usd_per_million=_usd(row, "output"),
            unit=_unit(row.get("unit", "tokens")),
            as_of=_as_of(row),
            source=_in_a_line(row["source"]),
            long_prompts=_long_prompts(row),
        )
    return found


def _require_known(given: dict[str, Any], known: Sequence[str], where: str) -> None:
    """What is mistyped may be a dearer price, and is not passed over."""
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"{where} has `{unknown[0]}`, and can have {', '.join(known)}")


def _as_of(row: dict[str, Any]) -> str:
    """In words, or a date of TOML's."""
    value = row["as_of"]
    if not isinstance(value, str | date) or not YEAR.search(str(value)):
        raise ValueError(f'`as_of` of `{row["api"]}` is {value!r}, and has to be a date, such as "2026-11"')
    return _in_a_line(value)


def _in_a_line(value: Any) -> str:
    return " ".join(str(value).split())


def _usd(row: dict[str, Any], name: str) -> float:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_USD:
        within = f"a number of USD from 0 to {MOST_USD:,.0f}, without quotes"
        raise ValueError(f"`{name}` of `{row['api']}` is {shown(value)}, and has to be {within}")
    return value


def _long_prompts(row: dict[str, Any]) -> LongPrompts | None:
    told = row.get("long_prompts")
    if told is None:
        return None
    if not isinstance(told, dict):
        raise ValueError(f"`long_prompts` of `{row['api']}` is {told!r}, and has to be a table of {', '.join(LONG_PARTS)}")
    above = told["above_tokens"]
    _require_known(told, LONG_PARTS, f"`long_prompts` of `{row['api']}`")
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
        return {api: replace(found, is_own=True) for api, found in _parse(read_text(path)).items()}
    except (ValueError, KeyError) as exc:
        raise DataError(
            f"`{path}` is not a table of prices: {f'a price has no `{exc.args[0]}`' if isinstance(exc, KeyError) else exc}",
            hint=f"a price has these lines:{lines()}",
        ) from exc
