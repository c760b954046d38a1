"""What is looked for only where a text holds a word, or a shorter pattern, is found as if it were looked for everywhere.

The texts are drawn from the patterns themselves, with a fixed seed.
"""

from __future__ import annotations

import functools
import random
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from nomoat.route.pii import (
    accounts,
    addresses,
    api_keys,
    cards,
    customs,
    documents,
    emails,
    fractions,
    hashes,
    passwords,
    phones,
    plain,
    residents,
)
from nomoat.route.pii.sought import Near, small_letters

ALPHABET = [*string.ascii_letters, *string.digits, *' -._/:=+,@<>()"\n\t', *"가나로동은행계좌환불번호에게"]
CATEGORIES = {
    codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_NOT_DIGIT: r"\D", codes.CATEGORY_SPACE: r"\s", codes.CATEGORY_NOT_SPACE: r"\S",
    codes.CATEGORY_WORD: r"\w", codes.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


class Sampler:
    """Draws texts of a pattern's form. What it looks back and forth at is not heeded: some of the texts do not fit the pattern."""

    def __init__(self, pattern: re.Pattern[str], seed: int) -> None:
        self._parsed = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
        self._draw = random.Random(seed)
        self._groups: dict[int, str] = {}

    def sample(self) -> str:
        self._groups = {}
        return self._of(self._parsed)

    def _of(self, items: Sequence[tuple[Any, Any]]) -> str:
        return "".join(self._one(code, told) for code, told in items)

    def _one(self, code: Any, told: Any) -> str:
        text = ""
        match code:
            case codes.LITERAL:
                text = chr(told)
            case codes.NOT_LITERAL | codes.ANY | codes.IN:
                text = self._character(code, told)
            case codes.BRANCH:
                text = self._of(self._draw.choice(told[1]))
            case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
                least, most, items = told
                most = min(most, least + 60)
                count = self._draw.choice((least, most, self._draw.randint(least, most)))  # the bounds, above all
                text = "".join(self._of(items) for _ in range(count))
            case codes.SUBPATTERN:
                text = self._groups[told[0]] = self._of(told[3])
            case codes.ATOMIC_GROUP:
                text = self._of(told)
            case codes.GROUPREF:
                text = self._groups.get(told, "")
            case codes.GROUPREF_EXISTS:
                text = self._of((told[1] if told[0] in self._groups else told[2]) or [])
            case _:
                assert code in (codes.ASSERT, codes.ASSERT_NOT, codes.AT), code
        return text

    def _character(self, code: Any, told: Any) -> str:
        if code is codes.IN and told[0][0] is not codes.NEGATE:
            kind, value = self._draw.choice(told)
            if kind is codes.LITERAL:
                return chr(value)
            if kind is codes.RANGE:
                return chr(self._draw.randint(*value))
            return self._draw.choice(_fitting(((kind, value),)))
        negated = told[1:] if code is codes.IN else [(codes.LITERAL, told)] if code is codes.NOT_LITERAL else [(codes.LITERAL, 10)]
        return self._draw.choice(_fitting(tuple(negated), negated=True))


@functools.cache
def _fitting(kinds: tuple[tuple[Any, Any], ...], *, negated: bool = False) -> list[str]:
    """The characters that are one of these kinds, or none of them."""
    return [one for one in ALPHABET if negated is not any(_is(kind, value, one) for kind, value in kinds)]


def _is(kind: Any, value: Any, character: str) -> bool:
    if kind is codes.LITERAL:
        return ord(character) == value
    if kind is codes.RANGE:
        return value[0] <= ord(character) <= value[1]
    return re.match(CATEGORIES[value], character) is not None


def texts_of(pattern: re.Pattern[str], num_texts: int = 15, least: int = 3) -> Iterator[str]:
    """That many texts in which something fits the pattern, or at least `least` where most are of its form alone."""
    sampler, found = Sampler(pattern, 5), 0
    for _ in range(80 * num_texts):
        text = sampler.sample()
        for beside in (text, f" {text} ", f"가{text}"):
            if pattern.search(beside):
                found += 1
                yield beside
                break
        if found == num_texts:
            return
    assert found >= least, (found, pattern.pattern[:60])


NEARS: dict[str, Near] = {
    "keys": passwords.KEYS,
    "pairs": passwords.PAIRS,
    "passwords": passwords.PASSWORDS,
    "Oracle": passwords.OF_ORACLES,
    "phones": phones.WITHOUT_ZERO,
    **{f"account {at}": near for at, near in enumerate(accounts.BEHIND_WORDS)},
    **{f"account before {at}": near for at, near in enumerate(accounts.BEFORE_WORDS)},
    **{f"document {at}": near for at, near in enumerate(documents.BEHIND_WORDS)},
}


@pytest.mark.parametrize("name", NEARS)
def test_near_its_words_a_pattern_finds_what_it_finds_anywhere(name: str) -> None:
    near = NEARS[name]
    last = ""
    for text in texts_of(near.pattern):
        for given in (*as_turks_type(text), text.upper(), f"{last}\n{text}", f"{last}{text}", f"İ {text}"):
            found = [match.span() for match in near.finditer(given, small_letters(given))]
            assert found == [match.span() for match in anywhere(near, given)], given
        last = text


def as_turks_type(text: str) -> tuple[str, ...]:
    """With their letters in place of `i`, which patterns take them for where case is ignored."""
    return text, text.replace("i", "ı"), text.replace("i", "İ")


def anywhere(near: Near, text: str) -> Iterator[re.Match[str]]:
    if not near.overlapping:
        return near.pattern.finditer(text)
    return filter(None, (near.pattern.match(text, at) for at in range(len(text))))


SECRET = "aB3dE5gH7jK9mN1pQ3sT5vX7"


@pytest.mark.parametrize(
    ("near", "text"),
    [
        (passwords.PASSWORDS, f"grant {'a' * 60} to{' ' * 20}if not exists {'u' * 60}{' ' * 20}identified by {SECRET}"),
        (passwords.PASSWORDS, f"ansible_{'a' * 30}_pass={SECRET}"),
        (passwords.PASSWORDS, f'set{"a" * 10}( \\"{"a" * 30}password\\", {SECRET}'),
        (passwords.PASSWORDS, f"with{'a' * 20}pwd('{SECRET}"),
        (passwords.PASSWORDS, f"buildah registry login -p {SECRET}"),
        (passwords.KEYS, f"subscription-access-key: {SECRET}"),
        (passwords.KEYS, f"--{'a' * 20}token {SECRET}"),
        (passwords.PAIRS, f'\\"auth\\": "{SECRET}'),
        (accounts.BEHIND_WORDS[1], "새마을금고 123-45-678901"),
        (accounts.BEHIND_WORDS[10], "Standard Chartered 123-45-678901"),
        (accounts.BEHIND_WORDS[18], "Gyeongnam: 123-45-678901"),
        (accounts.BEHIND_WORDS[5], f':   "{"가" * 8}새마을금고, no: 123456-78-901234'),
    ],
)
def test_a_match_that_begins_as_far_before_its_word_as_can_be_is_found(near: Near, text: str) -> None:
    found = [match.span() for match in near.pattern.finditer(text)]
    assert found and found[0][0] == 0
    assert next(near.finditer(text, small_letters(text))).span() == found[0]


@pytest.mark.parametrize("near", accounts.BEFORE_WORDS, ids=range(len(accounts.BEFORE_WORDS)))
def test_a_number_is_no_farther_before_its_word_than_is_looked(near: Near) -> None:
    parsed = parser.parse(near.pattern.pattern, near.pattern.flags & ~re.UNICODE)
    number = next(at for at, (code, told) in enumerate(parsed) if code is codes.SUBPATTERN and told[0])
    assert parsed[number + 1 :].getwidth()[1] <= accounts.REACH_OF_NUMBER


def test_a_number_with_gaps_as_wide_as_can_be_is_found_before_its_word() -> None:
    text = f"1234{' ' * 300}-5678{' ' * 300}-9012 우리 회사 계좌"
    assert any(any(near.finditer(text, text)) for near in accounts.BEFORE_WORDS)


class Tried:
    """A pattern that fits nothing and counts how often it is tried."""

    def __init__(self) -> None:
        self.times = 0

    def match(self, text: str, at: int) -> None:
        self.times += 1


def test_numbers_are_tried_on_lines_that_a_word_is_near_and_once_each() -> None:
    """In a table of numbers under `계좌` all were, by each pattern, in one call that kept all threads waiting."""
    tried, given = Tried(), accounts.BEFORE_WORDS[1]
    near = replace(given, pattern=tried)  # type: ignore[arg-type]
    text = "288104 301299 110200\n" * 1000 + "288104 301299 우리 계좌\n"
    assert not list(near.finditer(text, text))
    assert 2 <= tried.times < 30


@pytest.mark.parametrize("near", [passwords.KEYS, passwords.PASSWORDS], ids=["keys", "passwords"])
def test_a_match_begins_as_its_pattern_says(near: Near) -> None:
    """All first two characters that the pattern's branches have: none is skipped."""
    assert near.begins
    for two in beginnings(parser.parse(near.pattern.pattern, near.pattern.flags & ~re.UNICODE)):
        assert all(near.begins.match(written) for written in (two, two.upper(), *as_turks_type(two))), two


def beginnings(items: Sequence[tuple[Any, Any]], count: int = 2) -> set[str]:
    """The first so many characters of what fits; of a class that is no choice of a few, `~` for any."""
    if not count or not items:
        return {""}
    (code, told), rest = items[0], items[1:]
    match code:
        case codes.LITERAL:
            firsts = {chr(told)}
        case codes.IN if told[0][0] is not codes.NEGATE and all(kind is codes.LITERAL for kind, _ in told):
            firsts = {chr(value) for _, value in told}
        case codes.NOT_LITERAL | codes.ANY | codes.IN:
            firsts = {"a"}
        case codes.BRANCH:
            firsts = {text for branch in told[1] for text in beginnings(branch, count)}
        case codes.SUBPATTERN:
            firsts = beginnings(told[3], count)
        case codes.ATOMIC_GROUP:
            firsts = beginnings(told, count)
        case codes.MAX_REPEAT | codes.MIN_REPEAT | codes.POSSESSIVE_REPEAT:
            least, most, once = told
            firsts = {text for often in range(min(least, count), min(most, count) + 1) for text in beginnings([*once] * often, count)}
        case _:
            firsts = {""}
    return {first + more for first in firsts for more in (beginnings(rest, count - len(first)) if len(first) < count else {""})}


WITH_WORDS: dict[str, tuple[Sequence[str], re.Pattern[str]]] = {
    **{f"document {at}": given for at, given in enumerate(documents.BEFORE_WORDS)},
    "customs": (customs.WORDS, customs.SAID),
}


@pytest.mark.parametrize("name", WITH_WORDS)
def test_what_fits_a_pattern_holds_one_of_its_words(name: str) -> None:
    words, pattern = WITH_WORDS[name]
    for text in texts_of(pattern):
        for given in as_turks_type(text):
            assert any(word in small_letters(given) for word in words) or not pattern.search(given), given


GATES: list[tuple[re.Pattern[str], re.Pattern[str]]] = [
    (phones.MAY_BE_GLUED, phones.GLUED),
    (phones.MAY_BE_SPACED, phones.SPACED),
    (phones.MAY_BE_FAR_APART, phones.FAR_APART),
    *((addresses.KOREAN_ENDS, pattern) for pattern in addresses.KOREAN_IN_LATIN),
    *((addresses.TOWN_ENDS, pattern) for pattern in addresses.EUROPEAN),
    (documents.ITS_DATES, documents.SECOND_LINE),
    (documents.ITALIAN_BIRTH, documents.ITALIAN),
    *((phones.FIRST_UNDER_KEYS, pattern) for pattern in phones.MOBILE_UNDER_KEYS),
    (cards.TWO_UNDER_KEYS, cards.UNDER_KEYS),
    *((cards.CARD_START, pattern) for pattern in cards.AS_PRINTED),
    *((addresses.HOUSE_NUMBERS, pattern) for pattern in (addresses.STREET, addresses.STREET_IN_ANY_CASE, addresses.IN_TOWNS[0])),
    (residents.SIX_DIGITS, residents.FULL_YEAR),
    (fractions.DIGITS, fractions.FRACTION),
    (hashes.MANY, hashes.HASH),
    *((emails.AT_SIGN, pattern) for pattern in (emails.EMAIL, emails.EMAIL_FOR_PEOPLE)),
    (plain.CONTROL, plain.CONTROLS),
    *((plain.ESCAPE, pattern) for pattern in (plain.OF_ALL, plain.OF_SIGNS)),
]


@pytest.mark.parametrize(("gate", "pattern"), GATES)
def test_what_fits_a_pattern_fits_the_shorter_one_that_is_asked_first(gate: re.Pattern[str], pattern: re.Pattern[str]) -> None:
    for text in texts_of(pattern, least=1):
        assert gate.search(text), text


def test_a_key_of_a_known_form_is_one_word_and_as_long_as_the_shortest() -> None:
    for form in (*api_keys.FORMS, api_keys.AZURE, api_keys.ADDRESSES, api_keys.ENCODED_PEM):
        pattern = re.compile(form)
        assert parser.parse(form).getwidth()[0] >= api_keys.SHORTEST or all(
            len(found[0]) >= api_keys.SHORTEST for text in texts_of(pattern, least=1) if (found := pattern.search(text))
        )
        assert not any(re.search(r"\s", found[0]) for text in texts_of(pattern, least=1) if (found := pattern.search(text)))
        assert all(api_keys.API_KEY.search(f" {found[0]}") for text in texts_of(pattern, least=1) if (found := pattern.search(text)))


def test_hangul_is_plain_with_what_follows_it() -> None:
    """A syllable is plain unless a letter or a mark behind it makes another of it."""
    assert plain.plain("가나다\u11a8라\u0301마") == "가나닥라\u0301마"
    assert plain.plain("가\u200b\u11a8") == "각"
    assert plain.plain("(나\uff0d１２)") == "(나-12)"
