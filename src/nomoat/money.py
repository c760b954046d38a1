"""Sums of money as a person reads them."""

from __future__ import annotations

import math


def dollars(usd: float, *, digits: int = 4) -> str:
    """`$1.97`; so many digits or more where a sum needs them, and never an exponent."""
    whole, _, part = f"{usd:,.{_digits(usd, digits)}f}".partition(".")
    return f"${whole}.{part.rstrip('0'):0<2}"


def as_told(usd: float, *, digits: int) -> float:
    """The sum that `dollars` tells."""
    return round(usd, _digits(usd, digits))


def _digits(usd: float, least: int) -> int:
    return max(least, 1 - math.floor(math.log10(usd))) if 0 < usd < 1 else least
