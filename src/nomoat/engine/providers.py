"""Who answers elsewhere: the providers a model reference may name, where they are, and which keys they want."""

from __future__ import annotations

from typing import Literal

Provider = Literal["openai", "google", "anthropic", "http"]

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "anthropic": "https://api.anthropic.com/v1",
}
KEY_VARIABLES: dict[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "http": ("NOMOAT_UPSTREAM_API_KEY",),
}


def is_remote(ref: str) -> bool:
    """Whether a model reference names a server."""
    return ref.startswith((*(f"{provider}:" for provider in BASE_URLS), "http://", "https://"))
