"""Numbers of things, and lists of them, as a sentence holds them."""

from __future__ import annotations

import pytest

from nomoat.words import LONGEST_NAME, apart, counted, first_few, is_blank, listed, two_gigabytes


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 epochs"), (1, "1 epoch"), (1.0, "1 epoch"), (0.5, "0.5 epochs"), (2, "2 epochs"), (1319, "1,319 epochs")],
)
def test_one_thing_has_no_plural_and_thousands_are_told_apart(count: float, said: str) -> None:
    assert counted(count, "epoch") == said


@pytest.mark.parametrize(("names", "said"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_the_last_name_of_a_list_stands_behind_and(names: list[str], said: str) -> None:
    assert listed(names) == said


def test_the_last_name_may_stand_behind_another_word() -> None:
    assert listed([".toml", ".jsonl", ".ndjson"], last="or") == ".toml, .jsonl or .ndjson"


def test_of_a_long_list_the_first_names_are_said_and_how_many_follow() -> None:
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c"], 2) == "a, b and 1 more"
    assert first_few([str(number) for number in range(2000)], 1) == "0 and 1,999 more"


def test_a_name_with_a_comma_of_its_own_is_told_from_the_others_of_a_list() -> None:
    assert ", ".join(map(apart, ["a", "b", "a, b"])) == "a, b, `a, b`"


def test_a_long_name_is_cut_in_a_list() -> None:
    assert (apart("x" * LONGEST_NAME), apart("x" * 2000)) == ("x" * LONGEST_NAME, f"{'x' * LONGEST_NAME}…")
    assert apart("x, y" * 500).startswith("`x, yx, y") and apart("x, y" * 500).endswith("…`")


def test_two_sizes_that_a_sentence_compares_are_told_apart() -> None:
    assert two_gigabytes(5_000_000_000, 2_000_000_000) == ("5.0", "2.0")
    assert two_gigabytes(723_000_000, 700_000_000) == ("0.72", "0.70")
    assert two_gigabytes(1, 1) == ("0.0", "0.0")


def test_what_nobody_sees_of_a_name_is_shown_in_a_list() -> None:
    said = {
        "a\nb": "a⟨U+000A⟩b",
        "긍정\u200b": "긍정⟨U+200B⟩",
        "a\tb, c": "`a⟨U+0009⟩b, c`",
        "긍\u200d정\u3164": "긍⟨U+200D⟩정⟨U+3164⟩",
    }
    assert {name: apart(name) for name in said} == said
    signs = [
        "👩\u200d💻",
        "❤\ufe0f",
        "1\ufe0f\u20e3 star",
        "می\u200cخواهم",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    ]
    assert [apart(name) for name in signs] == signs
    assert [apart(name) for name in ("کار\u200cها", "\U0001f3f4\U000e0073\U000e0070")] == [
        "کار⟨U+200C⟩ها",
        "\U0001f3f4⟨U+E0073⟩⟨U+E0070⟩",
    ]


def test_a_text_of_spaces_and_marks_is_blank() -> None:
    assert all(map(is_blank, ("", " \n", "\u200b", "\ufeff \u00a0", "\u2060")))
    assert all(map(is_blank, ("\u3164", "\u2800", "\ufe0f\u034f")))
    assert not any(map(is_blank, ("a", "\u200b.", "ㅠ", "👩")))
