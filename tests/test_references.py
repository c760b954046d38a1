"""References: which files they mean, and what these may be used for."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from letters import decomposed
from misbehaving import Server, counted
from tiny import write_adapter, write_tiny_gguf

from nomoat import paths, references, responder
from nomoat.asking.spending import Spending
from nomoat.catalog import cards, licences, prices, pull
from nomoat.catalog.licences import reasons
from nomoat.cli.show import show
from nomoat.errors import NomoatError, OfflineError, UnknownModelError, UsageError
from nomoat.records import Request, Source


@pytest.mark.parametrize("ref", ["smollm2-135m", "smollm2-135m+mine"])
def test_a_folder_of_other_things_does_not_hide_a_card_of_its_name(
    ref: str, tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = cards.card("smollm2-135m").sources[0]
    pulled = empty_home / "models" / "smollm2-135m" / source.file_name
    pulled.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, pulled)
    adapter = write_adapter(empty_home / "adapters" / "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ref).mkdir()
    found = references.find_files(ref)
    assert (found.weights, found.adapter) == (pulled, adapter if "+" in ref else None)
    (tmp_path / ref / "config.json").write_text("{}")
    assert references.find_files(ref).weights == Path(ref)


def test_a_name_that_is_shown_holds_no_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "of a client" / "mine"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    shown = {
        "smollm2-135m": "smollm2-135m",
        "smollm2-135m+mine": "smollm2-135m+mine",
        str(tiny_gguf): "tiny.gguf",
        f"{tiny_gguf}+mine": "tiny.gguf+mine",
        f"smollm2-135m+{adapter}": "smollm2-135m+mine",
        f"{tiny_gguf}+{adapter}": "tiny.gguf+mine",
        "http://127.0.0.1:1/v1#a+b": "http://127.0.0.1:1/v1#a+b",
    }
    assert {ref: references.shown_name(ref) for ref in shown} == shown
    (tmp_path / "c++").mkdir()
    assert references.shown_name(str(shutil.copy(tiny_gguf, tmp_path / "c++"))) == "tiny.gguf"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows may say that it is not there")
def test_a_name_too_long_for_a_file_is_told(empty_home: Path) -> None:
    for ref in ("a" * 300, f"smollm2-135m+{'a' * 300}"):
        with pytest.raises(UsageError, match="is longer than the name of a file may be"):
            references.find_files(ref)
    assert references.shown_name(f"openai:{'a' * 300}") == f"openai:{'a' * 300}"


def test_a_part_of_a_server_s_address_too_long_for_a_file_names_none(empty_home: Path) -> None:
    assert references.parted(f"http://host/v1?x=a+{'a' * 300}#m") == ("http://host/v1?x=a", f"{'a' * 300}#m")


def test_a_model_pulled_from_any_server_is_used_by_its_address(tiny_gguf: Path, empty_home: Path) -> None:
    ref = "https://host/models/tiny.gguf"
    with pytest.raises(UnknownModelError) as missing:
        responder.load(ref)
    assert (missing.value.message, missing.value.hint) == (f"`{ref}` is not on this machine yet", f"nomoat pull {ref}")
    pulled = empty_home / "models" / "https" / "host" / "models" / "tiny.gguf"
    pulled.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, pulled)
    adapter = write_adapter(empty_home / "adapters" / "mine")
    assert [model.ref for model in pull.installed()] == [ref]
    assert references.names_weights(ref) and responder.groups([ref, f"{ref}+mine"]) == [[ref, f"{ref}+mine"]]
    assert references.find_files(f"{ref}+mine") == references.LocalFiles(name=ref, weights=pulled, adapter=adapter)
    with responder.load(ref, context_tokens=64) as model:
        assert (model.name, model.is_local) == (ref, True)
        assert model.complete(Request(prompt="moat", max_new_tokens=2)).usage.completion_tokens == 2


def test_a_pulled_file_with_a_plus_in_its_name_is_that_file(
    tiny_gguf: Path, empty_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = "hf:owner/repo/tiny+reviews.gguf"
    pulled = empty_home / "models" / "hf" / "owner" / "repo" / "tiny+reviews.gguf"
    pulled.parent.mkdir(parents=True)
    shutil.copy(tiny_gguf, pulled)
    adapter = write_adapter(empty_home / "adapters" / "mine")
    assert references.find_files(ref) == references.LocalFiles(name=ref, weights=pulled, adapter=None)
    assert references.find_files(f"{ref}+mine") == references.LocalFiles(name=ref, weights=pulled, adapter=adapter)
    show(ref, as_json=True)
    assert json.loads(capsys.readouterr().out)["path"] == str(pulled)


@pytest.fixture
def card_of_tiny(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a card whose file the tiny model is."""
    known = cards.card("alpaca-7b")
    source = Source(url="hf:owner/repo/tiny.gguf", file_name="tiny.gguf", sha256=paths.sha256_of(tiny_gguf))
    monkeypatch.setattr(cards, "cards", lambda: (replace(known, id="tiny-card", sources=(source,)),))
    return "tiny-card"


def test_the_terms_of_a_cards_file_are_known_wherever_it_lies(
    card_of_tiny: str, tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = licences.chain(cards.card(card_of_tiny))
    assert own.commercial == "no"
    shutil.copy(tiny_gguf, tmp_path / "any name.gguf")
    assert references.licence_chain(str(tmp_path / "any name.gguf")) == own
    pulled = empty_home / "models" / card_of_tiny / "tiny.gguf"
    pulled.parent.mkdir(parents=True)
    pulled.write_bytes(b"GGUF, and a newer one than the card's sha256 is of")
    assert references.licence_chain(card_of_tiny) == own
    monkeypatch.chdir(pulled.parent)
    assert references.licence_chain("tiny.gguf") == own
    write_adapter(empty_home / "adapters" / "mine")
    beside = references.licence_chain(f"{tmp_path / 'any name.gguf'}+mine")
    assert beside is not None and [link.name for link in beside.links] == [*(link.name for link in own.links), "not recorded"]


@pytest.mark.usefixtures("empty_home")
def test_data_that_an_adapter_does_not_name_are_said_to_be_not_recorded(tmp_path: Path) -> None:
    found = references.adapter_chain("openllama-3b", write_adapter(tmp_path / "theirs"))
    assert reasons(found)[0] == "because of data not recorded: terms not known"


@pytest.mark.usefixtures("empty_home")
def test_a_name_gives_a_file_no_terms(card_of_tiny: str, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(card_of_tiny).write_bytes(tiny_gguf.read_bytes() + b"other")
    assert references.licence_chain(card_of_tiny) == licences.chain(None)


def test_an_adapter_beside_another_file_of_its_bases_name_has_the_terms_of_both(
    card_of_tiny: str, tiny_gguf: Path, empty_home: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(empty_home / "adapters" / "mine")
    base, other = tmp_path / "tiny.gguf", tmp_path / "other" / "tiny.gguf"
    other.parent.mkdir()
    shutil.copy(tiny_gguf, base)
    other.write_bytes(tiny_gguf.read_bytes() + b"other")
    recorded = licences.chain(cards.card(card_of_tiny))
    told = {"base": card_of_tiny, "base_file": base.name, "base_sha256": paths.sha256_of(base), "licence": licences.as_dict(recorded)}
    (adapter / "provenance.json").write_text(json.dumps(told))
    assert references.licence_chain(f"{base}+mine") == recorded
    assert references.licence_chain(f"{other}+mine") == licences.chain_of_all(licences.chain(None), recorded)
    assert references.adapter_chain(card_of_tiny, adapter) == recorded, "a base that is not here"


def test_an_adapter_beside_other_weights_than_it_was_learned_beside_says_so_in_one_note(
    tiny_gguf: Path, empty_home: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(empty_home / "adapters" / "mine")
    told = {"base_file": "tiny.gguf", "base_sha256": paths.sha256_of(tiny_gguf), "licence": licences.as_dict(licences.chain(None))}
    (adapter / "provenance.json").write_text(json.dumps(told))
    other = write_tiny_gguf(tmp_path / "other.gguf", type_name="Q8_0")
    note = f"`mine` was learned beside tiny.gguf (sha256 {told['base_sha256'][:16]}…), other weights than these"
    for ref, notes in ((f"{tiny_gguf}+mine", ()), (str(other), ()), (f"{other}+mine", (note,))):
        with responder.load(ref, context_tokens=64) as model:
            assert (model.notes, model.notes_on("x")) == (notes, notes)
    (adapter / "provenance.json").write_text(json.dumps({**told, "base_file": "a-folder"}))
    assert references.find_files(f"{other}+mine").notes == (), "a GGUF file may be made of that folder"
    (adapter / "provenance.json").unlink()
    assert references.find_files(f"{other}+mine").notes == (), "made elsewhere"


def test_what_is_known_of_an_adapter_is_read_once(tiny_gguf: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "mine")
    (adapter / "provenance.json").write_text('{"data": {"question": "{text}?"}, "task": {"template": "chatml"}}', encoding="utf-8")
    files = references.find_files(f"{tiny_gguf}+{adapter}")
    template = files.template(own=None)
    (adapter / "provenance.json").unlink()
    assert (template and template.value, files.question, files.notes) == ("chatml", "{text}?", ())


def test_an_adapter_with_a_plus_in_its_name_or_its_path_is_found(tiny_gguf: Path, empty_home: Path, tmp_path: Path) -> None:
    named = write_adapter(empty_home / "adapters" / "a+1")
    lying = write_adapter(tmp_path / "c++" / "b")
    base = tmp_path / "c++" / "tiny.gguf"
    shutil.copy(tiny_gguf, base)
    for weights in (tiny_gguf, base):
        for adapter, folder in (("a+1", named), (str(lying), lying)):
            ref = f"{weights}+{adapter}"
            assert references.find_files(ref) == references.LocalFiles(name=str(weights), weights=weights, adapter=folder)
    assert references.shown_name(f"smollm2-135m+{lying}") == "smollm2-135m+b"
    assert references.split("smollm2-135m+a+2") == ("smollm2-135m+a", "2"), "what is not here"


def test_two_adapters_beside_one_base_are_said_to_be_two(empty_home: Path) -> None:
    for name in ("sms", "spam"):
        write_adapter(empty_home / "adapters" / name)

    for ask in (references.find_files, show):
        with pytest.raises(UsageError) as found:
            ask("smollm2-135m+sms+spam")
        assert found.value.message == "`smollm2-135m+sms+spam` names two adapters, `sms` and `spam`, and a model answers with one"
        assert found.value.hint == (
            "`smollm2-135m+sms` and `smollm2-135m+spam` answer each by itself; `nomoat tune smollm2-135m+sms DATA` goes on from `sms`"
        )


def test_a_file_named_like_a_card_is_that_file(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_gguf, "smollm2-135m")
    assert references.find_files("smollm2-135m").weights == Path("smollm2-135m")


def test_a_file_and_an_adapter_are_found_whichever_way_their_letters_are_written(
    tiny_gguf: Path, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS writes them, and as everyone else does."""
    monkeypatch.chdir(tmp_path)
    parted = decomposed("내모델.gguf")
    shutil.copy(tiny_gguf, parted)
    adapter = paths.adapters() / "한글리뷰"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    found = references.find_files("./내모델.gguf+" + decomposed("한글리뷰"))
    assert references.is_path("내모델.gguf")
    assert (found.weights, found.adapter) == (Path(parted), adapter)


@pytest.mark.parametrize("ref", ["gpt-4", "palm2", "opt-125m", "hf:owner", "nothing"])
def test_what_cannot_be_had_is_refused_in_the_words_of_pull(ref: str) -> None:
    with pytest.raises(NomoatError) as pulled:
        pull.pull_model(ref)
    with pytest.raises(NomoatError) as loaded:
        responder.load(ref)
    assert (type(loaded.value), loaded.value.message, loaded.value.hint) == (
        type(pulled.value),
        pulled.value.message,
        pulled.value.hint,
    )


def test_a_folder_that_is_no_model_is_no_base_of_an_adapter(empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_adapter(empty_home / "adapters" / "reviews")
    recorded = licences.chain(cards.card("alpaca-7b"))
    (adapter / "provenance.json").write_text(json.dumps({"base": "mybase", "licence": licences.as_dict(recorded)}))
    (tmp_path / "mybase").mkdir()
    monkeypatch.chdir(tmp_path)
    assert references.adapter_chain("mybase", adapter) == recorded
    assert references.adapter_chain("", adapter) == licences.chain_of_all(licences.chain(None), recorded)


@pytest.mark.parametrize(
    ("ref", "is_local"),
    [
        ("smollm2-135m+mine", True), ("fake:", True), ("stored:suite/name", True), ("https://host/models/tiny.gguf", True),
        ("http://127.0.0.1:8080/v1#m", True), ("http://[::1]:8080/v1", True), ("https://llm.example/v1#m", False),
        ("google:gemini", False), ("openai:m", False), ("auto", None),
    ],
)  # fmt: skip
def test_a_reference_says_whether_prompts_stay_on_this_machine(
    ref: str, is_local: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert references.is_local(ref) is is_local
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:11434/v1")
    assert references.is_local(ref) is (True if ref == "openai:m" else is_local)


@pytest.mark.parametrize("named", ["http://127.0.0.1:4000", "http://0.0.0.0:4000/v1", "http://[::]:4000", "http://my-host:4000"])
def test_a_server_on_this_machine_is_outside_if_the_user_says_that_it_sends_on_what_it_is_asked(
    named: str, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the port, whatever the machine and the model are called. A price alone says nothing of that."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", f"https://gate.example {named}")
    empty_home.mkdir()
    prices.own_path().write_text(prices.lines("http://127.0.0.1:8080/v1#m", usd_in="1", usd_out="2"), encoding="utf-8")
    places = ["http://localhost:4000/v1#small", "http://127.0.0.1:4000/v1#big", "http://127.0.0.1:8080/v1#m", "http://localhost#m"]
    assert [references.is_local(ref) for ref in places] == [False, False, True, True]
    with responder.load(places[0]) as model:
        assert not model.is_local
        assert Spending().pricing(model).rates is None
        monkeypatch.setenv("NOMOAT_OFFLINE", "1")
        refused = re.escape("refused to connect to `localhost` (a gateway, as NOMOAT_GATEWAYS says) to ask a model server: ")
        with pytest.raises(OfflineError, match=refused):
            model.complete("hello")
    with pytest.raises(OfflineError, match=refused):
        responder.load(places[0])
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:4000/v1")
    assert not references.is_local("openai:m")


@pytest.mark.parametrize(
    ("model", "is_local"),
    [
        ("gpt-oss:120b-cloud", False), ("glm-4.6:cloud", False), ("kim/Qwen3:480B-Cloud", False), ("gpt-oss:20b", True),
        ("gpt-oss:cloudy", True), ("my-cloud", True), ("cloud", True), ("host:5000/kim-cloud", True),
    ],
)  # fmt: skip
def test_a_model_that_ollama_sends_to_its_cloud_is_outside_by_its_name(
    model: str, is_local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ollama sends what such a model is asked to ollama.com, from port 11434 of this machine."""
    assert references.is_local(f"http://127.0.0.1:11434/v1#{model}") is is_local
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:11434/v1")
    assert references.is_local(f"openai:{model}") is is_local


def test_a_model_of_ollamas_cloud_is_refused_offline_and_its_bytes_are_counted(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(counted("yes", 1, 1))
    ref = f"{server.url}#gpt-oss:120b-cloud"
    refused = "(a gateway to Ollama's cloud, as the name `gpt-oss:120b-cloud` says) to ask a model server: "
    with pytest.raises(OfflineError, match=re.escape(refused)):
        responder.load(ref)
    monkeypatch.delenv("NOMOAT_OFFLINE")
    with responder.load(ref) as model:
        assert model.complete("hello").usage.bytes_out > 0
