"""Who answers elsewhere: the providers a model reference may name, and where they are. `config.PROVIDER_KEYS`: the keys they want."""

from __future__ import annotations

import re
from typing import Literal

Provider = Literal["openai", "google", "anthropic", "http"]

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "anthropic": "https://api.anthropic.com/v1",
}
PULLED = re.compile(r"https://[^/?#]+/[^?#]*\.gguf(\?[^#+]*)?(\+[^#]*)?")  # a file on this disk, by where it came from; +ADAPTER


def is_remote(ref: str) -> bool:
    """Whether a model reference names a server, and not a file that was pulled from one."""
    return not PULLED.fullmatch(ref) and ref.startswith((*(f"{provider}:" for provider in BASE_URLS), "http://", "https://"))
