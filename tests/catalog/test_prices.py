"""The price table."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.asking.spending import list_pricing
from nomoat.catalog import cards
from nomoat.catalog.prices import PARTS, own_path, price, prices
from nomoat.errors import DataError
from nomoat.records import Completion, LongPrompts, Usage


def test_a_price_has_a_date_and_a_source() -> None:
    found = price("openai:gpt-4o-mini")
    assert found is not None
    assert (found.input_usd_per_million, found.output_usd_per_million, found.as_of) == (0.15, 0.60, "2024-07")
    assert all(row.source and row.as_of for row in prices().values())


def test_a_dated_version_has_the_price_of_its_model() -> None:
    assert price("openai:gpt-4o-mini-2024-07-18") == price("openai:gpt-4o-mini")
    assert price("anthropic:claude-haiku-4-5-20251001") == price("anthropic:claude-haiku-4-5")


def test_a_dated_version_with_a_price_of_its_own_has_that() -> None:
    dearer, today = price("openai:gpt-4o-2024-05-13"), price("openai:gpt-4o")
    assert dearer is not None
    assert (dearer.input_usd_per_million, dearer.output_usd_per_million) == (5.0, 15.0)
    assert price("openai:gpt-4o-2024-08-06") == today != dearer


def test_ones_own_price_of_a_model_is_not_that_of_a_dated_version_with_another(empty_home: Path) -> None:
    empty_home.mkdir()
    own_path().write_text(OWN.replace("gpt-4o-mini", "gpt-4o"))
    dearer, today = price("openai:gpt-4o-2024-05-13"), price("openai:gpt-4o-2024-08-06")
    assert dearer is not None and today is not None
    assert (dearer.input_usd_per_million, today.input_usd_per_million) == (5.0, 0.3)


def test_long_prompts_have_the_price_that_is_asked_for_them() -> None:
    dearer, flat = price("google:gemini-2.5-pro"), price("google:gemini-2.5-flash")
    assert dearer is not None and flat is not None
    assert dearer.long_prompts == LongPrompts(above_tokens=200_000, input_usd_per_million=2.5, output_usd_per_million=15.0)
    assert flat.long_prompts is None
    told = list_pricing("google:gemini-2.5-pro", is_local=False)
    assert told.note.startswith(
        "$1.25 in, $10.00 out per million tokens ($2.50 and $15.00 where a prompt has more than 200,000), list price"
    )
    usage = Usage(prompt_tokens=200_001, completion_tokens=1000, prefill_seconds=0.0, decode_seconds=0.0)
    cost_usd = told.cost_usd(Completion(text="", finish_reason="stop", usage=usage))
    assert cost_usd == pytest.approx(0.5150025)


def test_an_unknown_model_has_no_price() -> None:
    assert price("openai:gpt-99") is None


@pytest.mark.parametrize("api", [card.api for card in cards.cards() if card.api])
def test_every_model_that_can_be_called_has_a_price(api: str) -> None:
    assert price(api) is not None


A_PRICE = "has to be a number of USD from 0 to 1,000,000, without quotes"
OWN = '[[price]]\napi = "openai:gpt-4o-mini"\ninput = 0.3\noutput = 1\nas_of = 2026-11-01\nsource = "our contract"\n'


def test_ones_own_prices_come_first(empty_home: Path) -> None:
    empty_home.mkdir()
    own_path().write_text(OWN)
    found = price("openai:gpt-4o-mini")
    assert found is not None
    assert (found.input_usd_per_million, found.output_usd_per_million, found.as_of) == (0.3, 1, "2026-11-01")


def test_a_source_of_several_lines_stands_in_one(empty_home: Path) -> None:
    empty_home.mkdir()
    own_path().write_text(OWN.replace('"our contract"', '"""our\n  contract\n"""'))
    assert list_pricing("openai:gpt-4o-mini", is_local=False).note.endswith("your price as of 2026-11-01 (our contract)")


@pytest.mark.parametrize("as_of", ["2026년 11월", "202611", "20261128", "2026-11", "Nov 2026", "until 31.12.2026"])
def test_a_date_of_any_form_has_a_year(empty_home: Path, as_of: str) -> None:
    empty_home.mkdir()
    own_path().write_text(OWN.replace("2026-11-01", f'"{as_of}"'), encoding="utf-8")
    found = price("openai:gpt-4o-mini")
    assert found is not None and found.as_of == as_of


@pytest.mark.parametrize(
    ("right", "wrong", "why"),
    [
        ("0.3", '"0.15"', f"`input` of `openai:gpt-4o-mini` is '0.15', and {A_PRICE}"),
        ("0.3", "-1", f"`input` of `openai:gpt-4o-mini` is -1, and {A_PRICE}"),
        ("0.3", "1e308", f"`input` of `openai:gpt-4o-mini` is 1e+308, and {A_PRICE}"),
        ("= 1\n", "= nan\n", f"`output` of `openai:gpt-4o-mini` is nan, and {A_PRICE}"),
        ("source", 'unit = "words"\nsource', "a unit is 'words', and has to be tokens or characters"),
        ("[[price]]", "[price]", "there is no [[price]] in it"),
        (OWN, 'price = ["x"]', "`price` holds 'x', and a price has to be lines below [[price]]"),
        ('"openai:gpt-4o-mini"', "['x']", "`api` is ['x'], and has to be a text"),
        (
            "source",
            "long_prompts = 3\nsource",
            "`long_prompts` of `openai:gpt-4o-mini` is 3, and has to be a table of above_tokens, input, output",
        ),
        ("output = 1\n", "", "a price has no `output`"),
        ("source", "outputt = 2\nsource", f"the price of `openai:gpt-4o-mini` has `outputt`, and can have {', '.join(PARTS)}"),
        (
            "source",
            "long_prompt = {above_tokens = 9, input = 1, output = 1}\nsource",
            f"the price of `openai:gpt-4o-mini` has `long_prompt`, and can have {', '.join(PARTS)}",
        ),
        (
            "source",
            "long_prompts = {above_tokens = 9, input = 1, output = 1, unit = 1}\nsource",
            "`long_prompts` of `openai:gpt-4o-mini` has `unit`, and can have above_tokens, input, output",
        ),
        ("[[price]]", "[[prise]]\na = 1\n[[price]]", "it has `prise`, and can have price"),
        ("[[price]]", OWN + "[[price]]", "`openai:gpt-4o-mini` has two prices"),
        ("2026-11-01", '"soon"', "`as_of` of `openai:gpt-4o-mini` is 'soon', and has to be a date, such as \"2026-11\""),
        ("2026-11-01", '"12026"', "`as_of` of `openai:gpt-4o-mini` is '12026', and has to be a date, such as \"2026-11\""),
        ("2026-11-01", "true", '`as_of` of `openai:gpt-4o-mini` is True, and has to be a date, such as "2026-11"'),
        ("source", "long_prompts = {above_tokens = 9, input = 1}\nsource", "a price has no `output`"),
        (
            "source",
            "long_prompts = {above_tokens = 0, input = 1, output = 1}\nsource",
            "`above_tokens` of `openai:gpt-4o-mini` is 0, and has to be a whole number of at least 1",
        ),
    ],
)
def test_ones_own_prices_that_are_none_are_refused_with_the_reason(empty_home: Path, right: str, wrong: str, why: str) -> None:
    empty_home.mkdir()
    own_path().write_text(OWN.replace(right, wrong))
    with pytest.raises(DataError) as caught:
        price("openai:gpt-4o-mini")
    assert caught.value.message == f"`{own_path()}` is not a table of prices: {why}"


def test_the_lines_of_the_hint_are_a_table_of_prices(empty_home: Path) -> None:
    empty_home.mkdir()
    own_path().write_text("soon")
    with pytest.raises(DataError) as caught:
        price("openai:NAME")
    assert caught.value.hint is not None
    own_path().write_text(caught.value.hint.partition("\n")[2])
    found = price("openai:NAME")
    assert found is not None
    assert (found.input_usd_per_million, found.output_usd_per_million) == (0.15, 0.6)
