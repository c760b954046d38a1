"""What references to servers name, and those that cannot be meant."""

from __future__ import annotations

import pytest

from nomoat import config
from nomoat.engine.remote import remote_engine
from nomoat.errors import UsageError


def test_address_without_a_path_means_v1() -> None:
    engine = remote_engine("http://localhost:1#m")
    assert (engine.base_url, repr(engine)) == ("http://localhost:1/v1", "RemoteEngine(http://localhost:1/v1#m)")
    engine.close()


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("openai:", "`openai:` names no model"),
        ("http://user:pass@localhost:1/v1#m", "a server's address holds no user, password or query (`http://localhost:1`)"),
        ("https://user:pass@host.example/v1#m", "a server's address holds no user, password or query (`https://host.example`)"),
        ("http://localhost:notaport/v1#m", "the address of a server cannot be read"),
        ("http:///v1#m", "`http:///v1#m` is not the address of a server"),
    ],
)  # fmt: skip
def test_reference_that_cannot_be_meant_is_refused(ref: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        remote_engine(ref)
    assert caught.value.message == message


def test_azures_address_with_a_version_names_the_one_that_is_taken() -> None:
    with pytest.raises(UsageError) as caught:
        remote_engine("https://myres.openai.azure.com/openai/deployments/my/chat/completions?api-version=2024-10-21#my")
    assert caught.value.message == (
        "a server's address holds no query (`https://myres.openai.azure.com`), and Azure's newer one needs none"
    )
    assert caught.value.hint == "write `https://RESOURCE.openai.azure.com/openai/v1#DEPLOYMENT`"


@pytest.mark.parametrize(
    ("ref", "names", "first"),
    [("openai:gpt", "OPENAI_API_KEY", "OPENAI_API_KEY"), ("google:g", "GOOGLE_API_KEY or GEMINI_API_KEY", "GOOGLE_API_KEY"),
     ("anthropic:c", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY")],
)  # fmt: skip
def test_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch, ref: str, names: str, first: str) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    with pytest.raises(UsageError) as caught:
        remote_engine(ref)
    assert caught.value.message == f"`{ref}` needs a key, and {names} is not set"
    assert caught.value.hint == f'export {first}=…, or write {first} = "…" into `{config.keys_path()}`, then try again'


def test_openai_base_url_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:pass@localhost:1/v1")
    with pytest.raises(UsageError) as caught:
        remote_engine("openai:m")
    assert caught.value.message == "a server's address holds no user, password or query (`https://localhost:1`)"
    assert caught.value.hint == "put the key into OPENAI_API_KEY"
