"""Who answers elsewhere: the providers a model reference may name (`openai:gpt-4o-mini`), and what is known of each.

To add one: an entry in `PROVIDERS`, its terms in catalog/licences.toml, its prices in catalog/prices.toml, a row in docs/config.md,
and its name in docs/run.md and both READMEs.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A cloud API of OpenAI's form.

    `key_variables`: the environment's names of its key; the first that is set counts.
    `terms`: the id, in the catalogue of licences, of the terms on what its models write; `assistant_terms`: of those where that is
    to train a general assistant, which competes with the provider's.
    `chats_only`: it has no /completions, as far as was seen, so that no prompt can be asked without a chat.
    `has_newer_limit`: its newer models refuse `max_tokens` and want `max_completion_tokens`, which older servers do not know.
    """

    base_url: str
    key_variables: tuple[str, ...]
    terms: str
    assistant_terms: str
    chats_only: bool = False
    has_newer_limit: bool = False

    @property
    def host(self) -> str:
        """The host of its address."""
        return urlsplit(self.base_url).hostname or ""


PROVIDERS = {
    "openai": Provider(
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        terms="openai-terms",
        assistant_terms="openai-assistant",
        chats_only=True,
        has_newer_limit=True,
    ),
    "google": Provider(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        terms="google-terms",
        assistant_terms="google-assistant",
        chats_only=True,
    ),
    "anthropic": Provider(
        base_url="https://api.anthropic.com/v1",
        key_variables=("ANTHROPIC_API_KEY",),
        terms="anthropic-terms",
        assistant_terms="anthropic-assistant",
        chats_only=True,
    ),
}
ANY_SERVER = "http"  # stands for the provider of a server that is named by its address
UPSTREAM_KEY = "NOMOAT_UPSTREAM_API_KEY"  # of any server
PULLED = re.compile(r"https://[^/?#]+/[^?#]*\.gguf(\?[^#+]*)?(\+[^#]*)?")  # a file on this disk, by where it came from; +ADAPTER


def is_remote(ref: str) -> bool:
    """Whether a model reference names a server, and not a file that was pulled from one."""
    return not PULLED.fullmatch(ref) and ref.startswith((*(f"{provider}:" for provider in PROVIDERS), "http://", "https://"))


def named_in(ref: str) -> Provider | None:
    """The provider that a model reference names; None if it names none."""
    return PROVIDERS.get(ref.partition(":")[0])


def answering(ref: str) -> Provider | None:
    """The provider that a model reference means, by its name or by its address; None for any other server, and for no server."""
    if (named := named_in(ref)) is not None or not is_remote(ref):
        return named
    with suppress(ValueError):  # an address that is none: whoever asks there says so
        return at(urlsplit(ref).hostname or "")
    return None


def at(host: str) -> Provider | None:
    """The provider that answers at this host; None for any other server."""
    return next((provider for provider in PROVIDERS.values() if provider.host == host), None)


def key_variables(provider: str) -> tuple[str, ...]:
    """The environment's names of the key for a provider, or for any server (`ANY_SERVER`); the first that is set counts."""
    return (UPSTREAM_KEY,) if provider == ANY_SERVER else PROVIDERS[provider].key_variables
