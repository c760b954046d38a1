"""The table of providers, and the pages that show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nomoat import config, providers
from nomoat.catalog import licences
from nomoat.engine.dialect import Dialect
from nomoat.providers import PROVIDERS, Provider, is_remote
from nomoat.records import Message, Request

ROOT = Path(__file__).parents[1]


def test_the_page_of_keys_has_each_provider_with_the_variables_of_its_key() -> None:
    found = {}
    for line in (ROOT / "docs" / "config.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and (name := re.search(r"`(\w+):NAME`", line)):
            found[name[1]] = re.findall(r"\w+_API_KEY", line)
    assert found == {name: list(provider.key_variables) for name, provider in PROVIDERS.items()}


@pytest.mark.parametrize("page", ["README.md", "README.ko.md", "docs/run.md"])
def test_a_page_of_references_names_each_provider(page: str) -> None:
    assert PROVIDERS.keys() <= set(re.findall(r"`(\w+):(?:gpt-4o-mini|NAME)?`", (ROOT / page).read_text(encoding="utf-8")))


def test_the_terms_of_each_provider_are_in_the_catalogue() -> None:
    for name, provider in PROVIDERS.items():
        licences.require_known(provider.terms)
        assert licences.teacher(f"{name}:x").licence == provider.terms
        assert licences.licence(provider.assistant_terms).commercial == "no"


def test_each_key_is_a_secret() -> None:
    keys = {variable for name in (*PROVIDERS, providers.ANY_SERVER) for variable in providers.key_variables(name)}
    assert keys | {config.HUB_TOKEN, config.CLIENTS_KEY} == config.SECRETS


def test_clouds_are_told_the_name_of_the_function_to_call_beside_all_others() -> None:
    tools = tuple(f'{{"type": "function", "function": {{"name": "{name}"}}}}' for name in "ab")
    asked = Request(messages=(Message(role="user", content="x"),), tools=tools, must_call=("b",))
    body = Dialect(PROVIDERS["openai"].host, is_cloud=True).body("m", asked)
    assert (len(body["tools"]), body["tool_choice"]) == (2, {"type": "function", "function": {"name": "b"}})


def test_who_is_not_known_to_chat_only_is_asked_prompts_without_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Request(prompt="x")
    new = Provider(base_url="https://api.new.example/v1", key_variables=("NEW_KEY",), terms="own", assistant_terms="own")
    monkeypatch.setitem(PROVIDERS, "new", new)
    assert Dialect("api.new.example", is_cloud=True).body("m", asked)["prompt"] == "x"
    for name in ("openai", "google", "anthropic"):
        assert Dialect(PROVIDERS[name].host, is_cloud=True).refusal(asked) is not None


@pytest.mark.parametrize("ref", ["openai:gpt", "google:gemini", "anthropic:claude", "http://x/v1#m", "https://x/v1"])
def test_references_to_servers_are_known_by_their_beginning(ref: str) -> None:
    assert is_remote(ref)
    assert not is_remote("smollm2-135m") and not is_remote("hf:owner/repo/file.gguf")


@pytest.mark.parametrize("rest", ["", "?download=true", "+reviews", "?v=1+reviews"])
def test_a_file_pulled_from_a_server_is_no_server(rest: str) -> None:
    assert not is_remote(f"https://x/models/file.gguf{rest}")


@pytest.mark.parametrize(
    "ref", ["https://x/v1#file.gguf", "https://x/file.gguf#m", "https://x.gguf", "http://x/file.gguf", "https://x/v1?m=file.gguf"]
)
def test_an_address_of_anything_else_is_a_server(ref: str) -> None:
    assert is_remote(ref)
