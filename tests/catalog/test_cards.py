"""The catalogue's cards: each whole, each with known terms; unknown ids are answered with the nearest ones."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import get_args

import pytest

from nomoat.catalog import cards, licences
from nomoat.engine.arch import known
from nomoat.errors import UnknownModelError
from nomoat.records import Confirmation, ModelCard

OF_THE_ISSUE = """
llama-7b llama-13b llama-33b llama-65b alpaca-7b vicuna-7b-v1.1 vicuna-13b-v1.1 vicuna-7b-v1.5 vicuna-13b-v1.5 bloom-560m
bloom-7b1 bloom-176b opt-125m opt-350m opt-1.3b opt-2.7b opt-6.7b opt-13b opt-30b opt-66b opt-175b openllama-3b openllama-7b
openllama-13b gpt-j-6b mpt-7b mpt-7b-instruct mpt-7b-chat falcon-7b falcon-40b llama2-7b llama2-13b llama2-70b smollm2-135m
smollm2-360m smollm2-1.7b qwen2.5-0.5b qwen2.5-1.5b qwen2.5-7b qwen2.5-coder-0.5b qwen2.5-coder-1.5b gemma3-270m gemma3-1b
text-davinci-003 gpt-3.5-turbo gpt-4 palm2 bard gpt-4o-mini gpt-4.1-nano gpt-4.1-mini gpt-5 gpt-5-mini gpt-5-nano
gemini-2.5-flash gemini-2.5-flash-lite claude-haiku-4.5
"""

FAMILY = """
[[family]]
developer = "A"
released = "2024"
licence = "mit"
context_tokens = 10
card = [
  { id = "a-1b", title = "A 1B", parameters = 1_000_000_000 },
  { id = "a-2b", title = "A 2B", parameters = 2_000_000_000, context_tokens = 20, parents = [{ kind = "base", name = "a-1b" }] },
]
"""


@pytest.mark.parametrize("model_id", OF_THE_ISSUE.split())
def test_every_system_of_the_argument_has_a_card(model_id: str) -> None:
    assert cards.find(model_id) is not None


@pytest.mark.parametrize("card", cards.cards(), ids=lambda card: card.id)
def test_card_names_known_terms_with_a_source(card: ModelCard) -> None:
    assert card.licence in licences.licences()
    assert card.licence_source
    assert card.developer
    for parent in card.parents:
        assert parent.licence in licences.licences()
        assert parent.source
    if card.kind == "open":
        assert card.architecture in known()
        assert None not in (card.context_tokens, card.layers, card.kv_heads, card.head_dim)
        assert card.sources or card.notes, "no file, and no word why"
    for source in card.sources:
        assert source.file_name.endswith(".gguf")
        assert source.url.partition(":")[0] in ("pypi", "hf", "mirror")


@pytest.mark.parametrize("card", cards.cards(), ids=lambda card: card.id)
def test_a_card_does_not_contradict_itself(card: ModelCard) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.\-]*", card.id)
    assert re.fullmatch(r"20\d\d(-[01]\d(-[0-3]\d)?)?", card.released)
    assert (card.kind == "closed" and not card.sources) or (card.kind == "open" and card.parameters is not None)
    for number in (card.parameters, card.context_tokens, card.layers, card.kv_heads, card.head_dim):
        assert number is None or (isinstance(number, int) and number > 0)
    assert {card.licence_confirmed, *(parent.confirmed for parent in card.parents)} <= {*get_args(Confirmation)}
    assert {parent.kind for parent in card.parents} <= {"base", "data", "teacher"}
    for source in card.sources:
        assert source.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", source.sha256)
        assert source.size_bytes is None or source.size_bytes > 0


def test_no_two_cards_have_one_id() -> None:
    families = tomllib.loads(resources.files("nomoat.catalog").joinpath("models.toml").read_text(encoding="utf-8"))["family"]
    assert len(cards.cards()) == sum(len(family["card"]) for family in families)


@pytest.mark.parametrize("model_id", ["bloom-7b1", "opt-125m", "gpt-j-6b"])
def test_a_card_without_a_file_whose_architecture_runs_says_what_does(model_id: str) -> None:
    found = cards.card(model_id)
    assert found.architecture in known() and not found.sources
    assert "safetensors runs as `hf:owner/repo`" in found.notes and "not runnable" not in found.notes


def test_a_card_adds_to_its_family_and_overrides_it() -> None:
    one, two = cards.parse_cards(FAMILY)
    assert (one.developer, one.context_tokens, two.context_tokens) == ("A", 10, 20)


def test_a_base_that_is_a_card_brings_its_own_licence() -> None:
    _, two = cards.parse_cards(FAMILY)
    assert (two.parents[0].name, two.parents[0].licence) == ("a-1b", "mit")


def test_an_unknown_id_names_the_nearest_ones() -> None:
    with pytest.raises(UnknownModelError) as failed:
        cards.card("smolm2-135")
    assert failed.value.message == "no model is called `smolm2-135`"
    assert failed.value.hint is not None
    assert failed.value.hint.startswith("did you mean `smollm2-135m`")


def test_an_id_like_no_other_points_to_the_list() -> None:
    with pytest.raises(UnknownModelError) as failed:
        cards.card("한국어")
    assert failed.value.hint == (
        "`nomoat models` lists the models nomoat knows; a file is named by its path, or as hf:owner/repo/file.gguf"
    )
