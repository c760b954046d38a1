"""What a reference to a server names: provider, address, model, and the key that goes with them.

PROVIDER:NAME                 one of `providers.PROVIDERS`, with its key; openai: is asked at OPENAI_BASE_URL if set
http://host:port/v1#NAME      NOMOAT_UPSTREAM_API_KEY if set, else NOMOAT_API_KEY if it is a client that asks;
                              without #NAME the only model the server has
"""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

from nomoat import config, net
from nomoat.errors import SettingError, UsageError
from nomoat.providers import ANY_SERVER, PROVIDERS, UPSTREAM_KEY, key_variables

AZURE_VERSION = "api-version="
NO_KEY = "none"  # the SDK wants one, and servers without keys do not look


def parse(ref: str) -> tuple[str, str, str]:
    """Provider (`ANY_SERVER` for an address), base URL and model name; the name may be empty for a server.

    Raises UsageError for a reference that cannot be meant.
    """
    provider, _, rest = ref.partition(":")
    if provider in PROVIDERS:
        if not rest:
            raise UsageError(f"`{ref}` names no model", hint=f"write `{provider}:NAME`")
        base_url = (provider == "openai" and os.environ.get("OPENAI_BASE_URL")) or PROVIDERS[provider].base_url
        _split(base_url, example="OPENAI_BASE_URL=https://host/v1", key="OPENAI_API_KEY")
        return provider, base_url, rest
    parts = _split(ref, example="http://host:port/v1#model", key=UPSTREAM_KEY)
    return ANY_SERVER, f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}", parts.fragment


def _split(address: str, *, example: str, key: str) -> SplitResult:
    """The parts of a server's address. Raises UsageError for what is none, and for one that holds secrets, which belong into `key`."""
    hint = f"write `{example}`"
    try:
        parts = urlsplit(address)
        netloc = f"{parts.hostname}{'' if parts.port is None else f':{parts.port}'}"
    except ValueError as exc:
        raise UsageError("the address of a server cannot be read", hint=hint) from exc
    if AZURE_VERSION in parts.query and not (parts.username or parts.password):
        raise UsageError(
            f"a server's address holds no query (`{parts.scheme}://{netloc}`), and Azure's newer one needs none",
            hint="write `https://RESOURCE.openai.azure.com/openai/v1#DEPLOYMENT`",
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"a server's address holds no user, password or query (`{parts.scheme}://{netloc}`)", hint=f"put the key into {key}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"`{address}` is not the address of a server", hint=hint)
    return parts


def parse_to_ask(ref: str, *, as_client: bool) -> tuple[str, str, str, str]:
    """What `parse` gives, and the key to ask with. `as_client`: see `responder.load`.

    Raises UsageError for a reference that cannot be meant, OfflineError, SettingError for a key that is not set.
    """
    provider, base_url, model = parse(ref)
    net.require_allowed("ask a model server", net.host_of(base_url), gateway=net.gateway_note(base_url, model))
    return provider, base_url, model, _key_for(ref, provider, as_client=as_client)


def variables_asked_for(provider: str, *, as_client: bool) -> tuple[str, ...]:
    """The environment's names of the key that a provider is asked with, the first that is set. `as_client`: see `responder.load`."""
    names = key_variables(provider)
    return (*names, config.CLIENTS_KEY) if as_client and provider == ANY_SERVER else names


def _key_for(ref: str, provider: str, *, as_client: bool) -> str:
    """The key that a provider is asked with; `NO_KEY` of a server that needs none."""
    names = key_variables(provider)
    found = config.secret(*names)
    if found is None and provider == ANY_SERVER:
        found = config.secret(config.CLIENTS_KEY) if as_client else None
        return NO_KEY if found is None else found.value
    if found is None:
        raise SettingError(
            f"`{ref}` needs a key, and {' or '.join(names)} is not set",
            hint=f'export {names[0]}=…, or write {names[0]} = "…" into `{config.keys_path()}`, then try again',
        )
    return found.value
