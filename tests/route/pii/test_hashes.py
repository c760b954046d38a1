"""Hashes and UUIDs, within which digits stand by chance."""

from __future__ import annotations

import hashlib

import pytest
from private_kinds import kinds


@pytest.mark.parametrize(
    "text",
    [
        "9f4111111111111111ab4c2d8e7f6a5b", "a01012345678b1c2d3e4f5a6b7c8d9e0", "A01012345678B1C2D3E4F5A6B7C8D9E0F1A2B3C4",
        "sha256:e01012345678e1c2d3e4f5a6b7c8d9e0a01012345678b1c2d3e4f5a6b7c8d9e0", "0101abcd-1234-5678-9012-345678901234",
        "계좌 41111111-1111-1111-a111-411111111111",
    ],
)  # fmt: skip
def test_digits_within_hashes_and_uuids_are_no_numbers_of_anyone(text: str) -> None:
    assert kinds(text) == set()


def test_a_long_list_of_hashes_holds_nothing() -> None:
    """Phone numbers and cards stood in two of ten such lists."""
    for start in range(10):
        rows = (hashlib.sha256(str(at).encode()).hexdigest() for at in range(200 * start, 200 * (start + 1)))
        assert kinds("\n".join(rows)) == set()


def test_a_number_beside_a_hash_or_of_digits_alone_is_still_seen() -> None:
    assert kinds(f"010-1234-5678 {'a1' * 16}") == {"phone"}
    assert kinds(f"{'a1' * 16} 4111 1111 1111 1111") == {"card"}
    assert kinds("API_KEY=" + "a1b2" * 8) == {"api_key"}
