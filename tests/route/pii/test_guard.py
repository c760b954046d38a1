"""What must not leave is looked for in each text alone, and remembered without the text."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nomoat.route import pii
from nomoat.route.pii import guard
from nomoat.route.pii.guard import OVERLAP, WINDOW, private_kinds, windows


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were searched, by a guard that remembers nothing yet."""
    texts: list[str] = []
    find = pii.find
    monkeypatch.setattr(pii, "find", lambda text, **told: texts.append(text) or find(text, **told))
    guard._remembered.clear()
    return texts


def test_each_kind_is_named_once_in_the_order_it_is_seen() -> None:
    texts = ["kim@naver.com", "010-1234-5678", "lee@naver.com, 010-1234-5679"]
    assert private_kinds(texts, kinds=pii.KINDS, names=()) == ("email", "phone")


def test_a_text_is_searched_once_for_the_same_kinds_and_names(looked_at: list[str]) -> None:
    for _ in range(2):
        assert private_kinds(["kim@naver.com, moat", "b", "b"], kinds=("email",), names=()) == ("email",)
    assert private_kinds(["kim@naver.com, moat"], kinds=("name",), names=("moat",)) == ("name",)
    assert private_kinds(["kim@naver.com, moat"], kinds=("name",), names=("castle",)) == ()
    assert looked_at == ["kim@naver.com, moat", "b", "kim@naver.com, moat", "kim@naver.com, moat"]


def test_what_was_searched_is_not_kept_and_the_oldest_is_forgotten(looked_at: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_REMEMBERED", 2)
    for text in ("secret a", "secret b", "secret a", "secret c", "secret a", "secret b"):
        private_kinds([text], kinds=pii.KINDS, names=())
    assert looked_at == ["secret a", "secret b", "secret c", "secret b"]
    assert "secret" not in repr(guard._remembered)


def test_texts_that_fill_no_window_are_looked_at_as_one() -> None:
    assert list(windows(["a", "", "b"])) == ["a\n\nb"]
    assert list(windows([])) == []


def test_a_further_text_changes_the_last_window_alone_and_each_is_in_one_with_the_text_before_it() -> None:
    texts = [f"<{at}" + "-" * (at * 7_919 % 3_000) + ">" for at in range(80)]
    texts[40] += "-" * 3 * WINDOW
    for many in range(1, len(texts)):
        before, after = list(windows(texts[:many])), list(windows(texts[: many + 1]))
        assert before[:-1] == after[: len(before) - 1]
        assert len(after[-1]) < OVERLAP + WINDOW + 2 * 3_000 or texts[40] in after[-1]
    texts[41:44] = "010", "1234", "5678"
    assert any("\n".join(texts[40:45]) in window for window in windows(texts))
    assert sum(texts[40] in window for window in windows(texts)) == 2
    for one, next_one in pairwise(texts):
        assert any(f"{one}\n{next_one}" in window for window in windows(texts))


def test_what_a_word_says_however_far_from_it_is_looked_for_in_all(looked_at: list[str]) -> None:
    word, code = "통관 상담", "P123456789012"
    assert private_kinds([word, code], kinds=pii.KINDS, names=()) == ()
    for _ in range(2):
        assert private_kinds([word, code], kinds=pii.KINDS, names=(), whole=f"{word}\n{code}") == ("customs_code",)
    assert looked_at == [word, code, f"{word}\n{code}"]
    assert private_kinds([code], kinds=("phone",), names=(), whole=f"{word}\n{code}") == ()
