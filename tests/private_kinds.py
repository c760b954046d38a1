"""What tests ask the privacy guard."""

from __future__ import annotations

from nomoat.route import pii

RESIDENT = "800101-1234560"  # the checksum fits


def kinds(text: str, **options: object) -> set[str]:
    """What is found in a text; `options`: of `pii.find`."""
    return set(pii.find(text, **options))  # type: ignore[arg-type]
