"""Card numbers, alone and among other numbers. None here is anyone's."""

from __future__ import annotations

import random

import pytest
from private_kinds import kinds

from nomoat.route import pii
from nomoat.route.pii import cards


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111로 결제",
        "4111  1111  1111  1111",
        "4111\t1111\t1111\t1111",
        "4111.1111.1111.1111",
        "4111 - 1111 - 1111 - 1111",
        "4111 - 1111-1111 - 1111",
        "카드번호는 4111 1111 1111이고 뒷자리는 1111",
        "4111-1111-1111, 끝 1111",
        "4111 1111\n1111 1111",
        "카드 4111 1111 1111\n1111 12/27",
        "4111|1111|1111|1111",
        "| 4111 | 1111 | 1111 | 1111 |",
        '홍길동,"4111","1111","1111","1111"',
        "4111,1111,1111,1111,12/27",
        "3,4111,1111,1111,1111,홍길동",
        "카드 2 4111 1111\n1111 1111",
        "3: 4111 1111\n1111 1111, 12/27",
        "3, 4111-1111\n-1111-1111; 12/27",
        "2024, 4111.1111.1111\n.1111: 5",
        "5555555555554444",
        "378282246310005",
        "카드4111111111111111",
        "4111 1111 1111 1111 12/27",
        "4111-1111-1111-1111 1227 123",
        "2025-01-15 4111 1111 1111 1111",
        "카드 2 4111 1111 1111 1111",
        "카드 2 4111111111111111 1227",
        "3782 822463 10005 1227",
        "1. 3056 930902 5904 - paid",
        "12 6212 3456 7890 1234 569 12",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "4111     1111     1111     1111",
        "4111  -  1111  -  1111  -  1111",
        "홍길동     4111     1111     1111     1111     서울",
        "card1=4111&card2=1111&card3=1111&card4=1111",
        '{"no_1": "4111", "no_2": "1111", "no_3": "1111", "no_4": "1111"}',
        "1.4111-1111-1111-1111",
        "카드번호 4111\n1111\n1111\n1111",
        "card: 4111 1111\n\n1111\n1111",
        "cards 4111\n1111\n1111\n1111",
        "cardNumber: 4111\n1111\n1111\n1111",
        "CardNo.\n4111\n1111\n1111\n1111",
        "4111 1111\n\n1111 1111",
        "41111111\n11111111",
    ],
)
def test_card_number_is_seen_alone_and_beside_other_digits(text: str) -> None:
    assert kinds(text) == {"card"}


@pytest.mark.parametrize("text", ["4111 1111 1111 1112 5555 5555 5555 4444", "5555 5555 5555 4444 4111 1111 1111 1112"])
def test_a_card_is_seen_beside_what_is_none_on_a_line(text: str) -> None:
    assert kinds(text) == {"card"}


def test_lists_of_numbers_and_dates_hold_no_cards_by_chance() -> None:
    """A tenth of all numbers fit the checksum. Drawn with a fixed seed: no chance of a false alarm."""
    draw = random.Random(1)

    def four() -> int:
        return draw.randint(3000, 9999)

    for _ in range(300):
        phones = " ".join(f"010-{four()}-{four()}" for _ in range(4))
        counters = " ".join(f"02-{four() // 10}-{four()}" for _ in range(4))
        dates = " ".join(f"20{draw.randint(10, 29)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}" for _ in range(6))
        orders = " ".join(f"{four()}{four()}-{four()}" for _ in range(4))
        ages = " ".join(str(draw.randint(20, 99)) for _ in range(20))
        assert pii.find("\n".join((phones, counters, dates, orders, ages)), kinds=["card"]) == ()


@pytest.mark.parametrize(
    "text",
    [
        "4111\n1111\n1111\n1111", "카드 4111\n1111\n1111\n1111\n2025", "12\n\n4111 1111\n\n1111 1111", "41111111\n11111111\n22222222",
        "4111-1111\n1111-1111", "411111111111\n1111", "4111\n111111111111", "41111111 1111\n1111", "3056930902\n5904",
        "Cardiology\n4111\n1111\n1111\n1111", "카드뉴스\n4111\n1111\n1111\n1111",
        "cardiac\n4111\n1111\n1111\n1111", "cardboard\n4111\n1111\n1111\n1111",
    ],
)  # fmt: skip
def test_lists_of_numbers_line_by_line_are_no_cards(text: str) -> None:
    assert kinds(text, kinds=["card"]) == set()


BETWEEN = (" ", "-", "\t", ", ", " | ")


@pytest.mark.parametrize("between", BETWEEN)
def test_tables_of_numbers_of_four_digits_hold_no_cards_by_chance(between: str) -> None:
    """Of what a year brought in month by month, for five years; 27 to 100 in 100 were held where each four in a row were tried. Drawn
    with a fixed seed."""
    draw = random.Random(4)
    tables = ("\n".join(between.join(str(draw.randint(1000, 9999)) for _ in range(12)) for _ in range(5)) for _ in range(100))
    assert sum(pii.find(table, kinds=["card"]) == ("card",) for table in tables) <= 3


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize(
    "groups",
    [
        "4111 1111 1111 1111 5555 5555 5555 4444", "4111 1111 1111 1112 5555 5555 5555 4444",
        "1234 5678 4111 1111 1111 1111", "4111 1111 1111 1111 1227 2027", "2024 4111 1111 1111 1111 5555 5555 5555 4444",
        "4111 1111 1111 1111 5555 5555 5555 4444 4111 1111 1111 1111",
    ],
)  # fmt: skip
def test_cards_that_fill_a_row_are_seen(groups: str, between: str) -> None:
    assert kinds(groups.replace(" ", between), kinds=["card"]) == {"card"}


@pytest.mark.parametrize("between", (" ", "-", "\t"))
def test_a_card_amid_a_row_is_seen_where_it_stands_in_no_cells(between: str) -> None:
    assert kinds("1234 4111 1111 1111 1111 1227".replace(" ", between), kinds=["card"]) == {"card"}


def test_a_card_below_a_table_is_seen() -> None:
    draw = random.Random(4)
    table = "\n".join(" ".join(str(draw.randint(1000, 9999)) for _ in range(12)) for _ in range(5))
    assert kinds(f"{table}\n카드 4111 1111 1111 1111", kinds=["card"]) == {"card"}
    assert kinds(f"{table}\n3782 822463 10005", kinds=["card"]) == {"card"}


@pytest.mark.parametrize("row", ["48213,30277,5,61", "4821,3027", "482133 302771", "2024-01-15 4821"])
def test_of_a_table_s_numbers_none_is_tried_as_a_card_that_cannot_be_one(row: str) -> None:
    """Which took half of the guard's time over such tables."""
    assert not any(cards.CARD_START.finditer(f"{row}, Seoul\n" * 20))
