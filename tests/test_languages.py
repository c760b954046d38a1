"""Which languages texts are in."""

from __future__ import annotations

import errno
import os
import sys
from base64 import b64encode

import pytest
from py3langid.langid import LanguageIdentifier

from nomoat.languages import FEWEST_TEXTS, language_shares

ENGLISH = [
    "My parcel is late.", "When will my card arrive?", "It broke after a day.", "I like it a lot", "Can I get a refund?",
    "The price was wrong", "Where is my order", "Works well", "Please call me back", "too loud, but fine otherwise",
    "Delivery took three weeks.", "I was charged twice", "The screen is cracked", "ok thanks", "How do I change my PIN?",
    "They never answered my mail",
]  # fmt: skip
GERMAN = ["Guten Tag, das Paket ist kaputt", "Wo bleibt meine Bestellung?", "Das ging aber schnell", "Leider zu klein"]
FRENCH = ["bonjour, le colis est bon", "Je voudrais un remboursement", "la livraison était en retard", "Très content"]
KOREAN = ["배송이 늦어요", "잘 쓰고 있습니다", "환불해 주세요", "화면이 깨졌어요", "생각보다 작네요"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([*ENGLISH[:12], *GERMAN, *FRENCH], {"en": 0.6, "fr": 0.2, "de": 0.2}),
        ([*ENGLISH[:15], *KOREAN], {"en": 0.75, "ko": 0.25}),
        ([text.upper() for text in ENGLISH] + ["", "XJ-1234-QTR9"], {"en": 1.0}),
        ([*ENGLISH, *(b64encode(f"{text}!".encode()).decode() for text in ENGLISH)], {"en": 0.5, "zxx": 0.5}),
    ],
)
def test_shares_are_within_five_points(texts: list[str], expected: dict[str, float]) -> None:
    assert language_shares(texts) == pytest.approx(expected, abs=0.05)


def test_of_many_texts_that_take_turns_each_language_has_its_share() -> None:
    turns = [text for at in range(2000) for text in (ENGLISH[at % 16], KOREAN[at % 5])]
    assert language_shares(turns) == pytest.approx({"en": 0.5, "ko": 0.5}, abs=0.07)  # by 1,000 of them, of a fixed seed


def test_of_too_few_texts_nothing_is_said() -> None:
    assert language_shares(ENGLISH[: FEWEST_TEXTS - 1]) == {}


def test_of_texts_that_tell_nothing_nothing_is_said() -> None:
    assert language_shares([*ENGLISH[: FEWEST_TEXTS - 1], *(f"XJ-{at}-QTR{at}" for at in range(100, 120))]) == {}


NAMES = [
    "Samsung Galaxy S21", "iPhone 13 Pro", "Logitech MX Master", "Sony WH-1000XM4", "Dell XPS 13", "Lenovo ThinkPad X1",
    "Canon EOS R5", "Bose QC45", "Nintendo Switch", "Kindle Paperwhite", "GoPro Hero 10", "Apple Watch SE",
]  # fmt: skip


@pytest.mark.parametrize("others", [[*NAMES, *NAMES], [f"XJ-{at}-QTR{at}" for at in range(100, 120)]])
def test_where_less_than_half_of_the_texts_tell_a_language_nothing_is_said(others: list[str]) -> None:
    assert language_shares([*KOREAN, *KOREAN, *others]) == {}


@pytest.mark.parametrize("missing", ["_lzma", "py3langid.langid"])
def test_where_python_cannot_read_what_tells_languages_nothing_is_said(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "lzma" or name.startswith("py3langid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert language_shares(ENGLISH) == {}


def test_where_temporary_files_have_no_room_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a full `/tmp`, or in a container that may write to NOMOAT_HOME alone: py3langid unpacks its model there."""

    def refuse(*_given: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LanguageIdentifier, "from_model_file", refuse)
    assert language_shares(ENGLISH) == {}
