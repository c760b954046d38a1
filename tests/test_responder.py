"""What is asked of a model from Python, and whether there is memory for what a reference means."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from types import ModuleType

import pytest

import nomoat
from nomoat import footprint, hardware, responder
from nomoat.cli.show import show
from nomoat.engine import importer
from nomoat.engine.source import open_source
from nomoat.errors import NotEnoughMemoryError, UsageError
from nomoat.hardware import Detected
from nomoat.records import Message, Request


def test_a_text_is_the_first_question_of_a_conversation() -> None:
    with responder.load("fake:") as model:
        asked = Request(messages=(Message(role="user", content="What is a moat?"),))
        assert model.complete("What is a moat?") == model.complete(asked)
        assert list(model.stream("What is a moat?")) == list(model.stream(asked))
        assert model.score("a moat", ["moat", "lake"]) == model.score(
            Request(messages=(Message(role="user", content="a moat"),)), ["moat", "lake"]
        )
        assert [answer.text for _, answer in sorted(model.complete_many(["a b", asked], concurrency=1))] == ["b a", "moat? a is What"]


def test_what_is_neither_a_text_nor_a_request_is_refused_with_what_to_give() -> None:
    with responder.load("fake:") as model:
        for ask in (model.complete, model.stream, model.prompt_likelihoods, lambda asked: model.score(asked, ["moat"])):
            with pytest.raises(
                UsageError, match=r"^a model is asked a text or a `nomoat\.records\.Request`, and this is a list$"
            ) as raised:
                ask([{"role": "user", "content": "What is a moat?"}])  # type: ignore[operator]
            assert raised.value.hint == 'give "…", or for a conversation Request(messages=(Message(role="user", content="…"), …))'


def test_one_text_where_several_are_meant_is_not_taken_for_its_characters() -> None:
    with responder.load("fake:") as model:
        for ask in (model.embed, lambda texts: model.score("a moat", texts), model.complete_many):
            with pytest.raises(UsageError, match="several texts are asked about at once, and this is one") as raised:
                ask("moat")
            assert raised.value.hint == 'give a list: ["…"]'


@pytest.mark.parametrize(("name", "module"), [("serve", "nomoat.serve.app"), ("tune", "nomoat.tune.train")])
def test_a_public_function_is_described_also_where_its_package_stands_in_its_place(name: str, module: str) -> None:
    function = getattr(importlib.import_module(module), name)
    standing = getattr(nomoat, name)
    assert isinstance(standing, ModuleType)
    assert inspect.signature(standing) == inspect.signature(function)
    assert str(inspect.getdoc(standing)).endswith(f"{name}{inspect.signature(function)}\n\n{inspect.getdoc(function)}")


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX and much memory, where no model is too small for a second form for prompts."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "amx_bf16"}))
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: Detected(64 * 10**9, "memory of the machine"))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)


@pytest.mark.usefixtures("amx")
def test_show_counts_no_second_form_of_a_file_that_keeps_its_codes(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(str(tiny_gguf), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["layout"]["forms"] == {"": ["tiles", 0]}
    assert (facts["layout"]["prompts"]["value"], facts["memory"]["prompts_bytes"]) == ("codes", 0)


@pytest.mark.usefixtures("amx")
def test_a_model_in_its_own_codes_is_loaded_where_there_is_room_for_one_form(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = responder.memory_need(str(tiny_gguf), 64)
    assert found is not None
    need = found.total_bytes
    check = responder._memory_check("tiny", 64)
    source = open_source(tiny_gguf)
    stored = importer.planned(source)
    told = importer.read_sizes(source), source.num_values, stored.bytes_of(source), stored.has_tiles
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need, "free"))
    check(*told)
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need - 1, "free"))
    with pytest.raises(NotEnoughMemoryError, match=r"`tiny` needs about 0\.4 GB of memory at a context of 64 tokens"):
        check(*told)
