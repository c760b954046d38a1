"""Sums of money as a person reads them."""

from __future__ import annotations

import math


def dollars(usd: float) -> str:
    """`$1.97`; four digits or more where a sum needs them, and never an exponent."""
    digits = max(4, 1 - math.floor(math.log10(usd))) if 0 < usd < 1 else 4
    whole, _, part = f"{usd:,.{digits}f}".partition(".")
    return f"${whole}.{part.rstrip('0'):0<2}"
