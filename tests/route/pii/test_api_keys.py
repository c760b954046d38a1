"""Keys of APIs and private keys. None here opens anything."""

from __future__ import annotations

import pytest
from private_kinds import kinds


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("sk-", "proj-abcdEFGH0123456789_-abcdEFGH"),
        ("sk-", "ant-api03-abcdEFGH0123456789"),
        ("sk-", "or-v1-0f3c9a7be4d1528860fe9b2c7a64d3e85190bc2ad7f6e3410958cb7ade2f6034"),
        ("sk-", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
        ("sk-", "qn3vx8rjw2m5tzk7ybd4hgs9"),
        ("AKIA", "ABCDEFGH01234567"),
        ("ghp_", "abcdEFGH0123456789abcdEFGH0123456789"),
        ("github_pat_", "abcdEFGH0123456789_abcdEFGH0123456789abcdEFGH"),
        ("glpat-", "abcdEFGH0123456789ab"),
        ("AIza", "SyabcdEFGH0123456789abcdEFGH0123456"),
        ("xoxb-", "012345678901-abcdEFGH0123456789"),
        ("hf_", "abcdEFGHabcdEFGHabcdEFGHabcdEFGHab"),
        ("-----BEGIN ", "RSA PRIVATE KEY-----"),
        ("-----BEGIN ", "PGP PRIVATE KEY BLOCK-----"),
        ("---- BEGIN ", "SSH2 ENCRYPTED PRIVATE KEY ----"),
    ],
)
def test_api_key_is_seen(start: str, rest: str) -> None:
    """In two parts, so that nobody who looks for keys in this file finds one."""
    assert kinds(f'KEY="{start}{rest}"', kinds=["api_key"]) == {"api_key"}
    assert kinds(f"키는 {start}{rest}입니다", kinds=["api_key"]) == {"api_key"}
    assert kinds(f"x{start}{rest}", kinds=["api_key"]) == ({"api_key"} if start.startswith("-") else set())


@pytest.mark.parametrize(
    "text",
    [
        "sk-toggleable__label-arrow-of-a-long-1", "sk-Estimator-id-1", "AKIA is how they begin", "hf_hub_download", "AIza",
        "sk-learn-something-long", "sk-learn-1-with-2-many-3-short-4-words", "sk-internationalization2024",
        "sk-otherwiseunbelievablylongword", "sk-123456789012345678901234", "disk-0f3c9a7be4d1528860fe9b2c7a64d3e8", "sk-0f3c9a7be4d1",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----BEGIN CERTIFICATE-----",
    ],
)  # fmt: skip
def test_everyday_words_are_no_api_keys(text: str) -> None:
    assert kinds(text) == set()
