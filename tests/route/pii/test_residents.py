"""Resident numbers and foreigners' numbers: what the guard must see, and what it must leave alone. None here is anyone's."""

from __future__ import annotations

import random

import pytest
from private_kinds import RESIDENT, kinds

from nomoat.route import pii


def test_foreigners_number_has_a_checksum_of_its_own() -> None:
    """The weighted sum is 131, which is 10 modulo 11; (13 - 10) modulo 10 is 3. In two cells it has to fit."""
    assert kinds("800101,5123453") == {"resident_number"}
    assert kinds("800101,5123451") == set()


def test_resident_number_without_its_checksum_is_private_all_the_same() -> None:
    assert kinds("800101-1234567") == {"resident_number"}


@pytest.mark.parametrize(
    "text",
    [
        "8001011234560",
        "800101 1234560",
        "800101 - 1234560",
        "800101–1234560",
        "８００１０１－１２３４５６３",
        "٨٠٠١٠١-١٢٣٤٥٦٠",
        "८००१०१-१२३४५६०",
        "8001\u200b01-1234560",
        "주민번호800101-1234560입니다",
        "ID800101-1234560X",
        "800101\n1234560",
        "800101/1234560",
        "800101_1234560",
        "800101ㅡ1234560",
        "800101 ─ 1234560",
        "800101 -- 1234560",
        "-".join("".join(f"{digit}\ufe0f\u20e3" for digit in half) for half in ("800101", "1234560")),
        "040229-3234567",
        "900101-1 234567",
        "111111-9 900101-1234568",
        "900101,1234568",
        '홍길동,"900101","1234568",서울',
        "| 900101 | 1234568 |",
        "900101:1234568",
        '{"jumin1": "900101", "jumin2": "1234568"}',
        "jumin1=900101&jumin2=1234568",
        "jumin1: 900101\njumin2: 1234568",
        "주민등록번호 9 0 0 1 0 1 - 1 2 3 4 5 6 7",
        "주민등록번호 9 0 0 1 0 1 1 2 3 4 5 6 7",
        "9 0 0 1 0 1 - 1 2 3 4 5 6 8",
        "9  0  0  1  0  1  1  2  3  4  5  6  8",
        "19900101-1234568",
        "주민번호 19900101-1234567",
        "주민번호 199001011234567",
        "8801011234563",
        "900101\\-1234568",
        "**900101**-**1234568**",
        "900101&#45;1234568",
        "> 900101-\n> 1234568",
        "900101\t1234568",
        "900101\t-\t1234567",
        "주민등록번호\t900101\t1234567",
        "주민번호 앞자리 900101, 뒷자리 1234568",
        "주민번호 앞: 900101 뒤: 1234568",
        "주민번호는 900101 다시 1234568",
        "주민번호 앞자리는 900101이고 뒷자리는 1234567이야",
        "생년월일: 850412 / 주민등록번호 뒷자리: 2134561",
        "생년월일 1985.04.12 주민뒷자리 2134561",
        "주민번호 뒷자리 2134561",
        "주민등록번호의 뒤 7자리는 2134561",
        "주민번호 뒤 2134561 앞 850412",
        "주민번호 85.04.12-2134561",
        "주민등록번호: 1985.04.12 2134561",
        "주민번호 85-04-12-2134561",
        "앞자리 900101 뒷자리 1234568",
        "외국인등록번호 앞 900101 뒤 5234567",
        "900101 1234567원본",
        "주민번호 9001011234568 원",
        "주민번호 900101 1234568 원",
        "주민번호: 900101, 1234568원",
        "주민등록번호 900101/1234567 원 씨",
        "900101.1234568원",
        "900101  -  1234567",
        "900101     1234568",
        "주민등록번호 900101      1234567",
        "| 900101          | 1234568 |",
        "주민등록 85.04.12-2134561",
        "주민(등록)번호 85.04.12-2134561",
        "주민(외국인)등록번호 85.04.12-2134561",
        "주민: 85.04.12-2134561",
        "대표자주민 85.04.12-2134561",
        "직원주민 85.04.12-2134561",
        "| 본인주민 | 1985-04-12-2134561 |",
        "850412, 배우자주민 2134561",
        "홍길동 주민: 85.04.12-2134561",
        "주민증 번호 85.04.12-2134561",
        "주민등본 85.04.12-2134561",
        "<th>주민(등록)번호</th><td>1985-04-12-2134561</td>",
        "생년월일 850412 (주민 2134561)",
        "born 850412, resident no. 2134561",
    ],
)
def test_resident_number_is_seen_however_it_is_written(text: str) -> None:
    assert kinds(text) == {"resident_number"}


@pytest.mark.parametrize(
    "text", ["801301-1234560", "800132-1234560", "030229-3234567", "800101-12345678", "1800101-1234560", "19900101-3234560"]
)
def test_number_without_a_birth_date_is_no_resident_number(text: str) -> None:
    assert "resident_number" not in kinds(text)


def test_tables_of_dates_and_amounts_hold_no_resident_numbers() -> None:
    """A tenth of all numbers fit the checksum. Drawn with a fixed seed: no chance of a false alarm, but for the day's own date."""
    draw = random.Random(3)
    for _ in range(300):
        between = draw.choice((",", ", ", ";", " | ", "\t,", "\t"))
        rows = [
            f"{draw.randint(10, 24)}{draw.randint(1, 12):02}{draw.randint(1, 28):02}{between}{draw.randint(1_000_000, 9_999_999)}"
            for _ in range(12)
        ]
        assert pii.find("\n".join(rows), kinds=["resident_number"]) == ()


def test_table_of_residents_is_seen_also_where_some_numbers_have_no_checksum() -> None:
    """As those given out since October 2020."""
    rows = ["홍길동,900101,1234568", "김철수,800101,1234560", "이지원,800101,1234567"]
    assert kinds("\n".join(rows)) == {"resident_number"}
    assert kinds("\n".join(rows[1:])) == set()  # of two, one proves nothing


@pytest.mark.parametrize("number", ["900101,9234560", "991231,3234564"])
def test_resident_number_is_of_somebody_who_may_live_where_no_word_says_it(number: str) -> None:
    """Born in 1890, and in 2099; the checksums fit."""
    for between in ("-", " ", ",", ""):
        assert kinds(number.replace(",", between)) == set()
        assert kinds("주민번호 " + number.replace(",", between)) == {"resident_number"}


def test_running_numbers_behind_a_date_are_no_resident_numbers() -> None:
    """Of specimens, receptions, lots, as hospitals and laboratories have them: the seventh digit is a 0."""
    draw = random.Random(5)
    for _ in range(300):
        date = f"{draw.randint(10, 30)}{draw.randint(1, 12):02}{draw.randint(1, 28):02}"
        assert kinds(f"검체번호 {date}-{draw.randint(0, 99_999):07} 결과 문의") == set()
    assert kinds("접수 240115-0000012\nLot 251231-0123456\n240115-9000012 로트\n990115-3000012") == set()


def test_barcodes_are_no_resident_numbers() -> None:
    """Korean EAN-13. Drawn with a fixed seed: those whose resident checksum fits, too, are called one (1 % of all)."""
    draw = random.Random(4)
    seen = 0
    for _ in range(1_000):
        digits = f"880{draw.randint(0, 10**9 - 1):09}"
        number = digits + str(-sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits)) % 10)
        seen += "resident_number" in kinds(number, kinds=["resident_number"])
    assert seen < 25
    assert kinds("8801011234563") == {"resident_number"}  # no barcode's check digit
    assert kinds("8801011234567") == set()
    assert kinds("주민번호 8801011234567") == {"resident_number"}
    assert kinds("4902102072618, 4901301230881", kinds=["resident_number"]) == set()  # Japanese


@pytest.mark.parametrize(
    "text",
    [
        "85.04.12-2134561", "생년월일 1985.04.12 번호 2134561", "주민세 뒤 2134561", "주민센터 뒤 2134561",
        "900101, 뒷면 1234568",
        "240301 주민센터 1200000", "240301 주민자치회 회비 1500000원",
        "지역 주민 24.01.15 1500000원", "마을주민 2024-01-15 3500000원", "원주민 24.01.15 1500000",
        "240301 지역주민 1500000", "240301 지역 주민 1500000원",
        "주민자치위원회 회비 24.01.15 1500000원", "주민센터 2024-01-15 3500000원",
        "주민증가율 24.01.15 1500000원",
        "참가 주민 3명, 24.01.15 1500000원",
        "거주민 등록 24.01.15 1500000원",
        "240301 residents 1500000",
    ],
)  # fmt: skip
def test_dates_and_halves_that_no_word_names_are_no_resident_numbers(text: str) -> None:
    assert kinds(text) == set()


def test_time_stamps_in_milliseconds_are_no_resident_numbers() -> None:
    """Of the months of 2014 to 2030 whose first digits are a birth date. Drawn with a fixed seed: where one stands alone, those whose
    checksum fits are called one (a tenth of those that are a birth date); beside others none is."""
    draw = random.Random(1)
    for start in range(14, 20):
        stamps = [start * 10**11 + draw.randint(1_010_000_000, 12_319_999_999) for _ in range(400)]
        assert sum("resident_number" in kinds(f'{{"ts":{stamp}}}', kinds=["resident_number"]) for stamp in stamps) < 25
        log = "\n".join(f'{{"ts":{stamp},"text":"hello"}}' for stamp in stamps)
        assert kinds(log, kinds=["resident_number"]) == set()
        assert kinds(f"{log}\n{RESIDENT}", kinds=["resident_number"]) == {"resident_number"}
        assert kinds(f"{log}\n800101,1234560", kinds=["resident_number"]) == {"resident_number"}


def test_child_is_seen_whose_number_begins_as_time_stamps_do() -> None:
    assert kinds("1701233123456") == {"resident_number"}
    assert kinds("주민번호 1701233123451") == {"resident_number"}
    assert kinds("170123-3123451") == {"resident_number"}


@pytest.mark.parametrize(
    "text",
    [
        "1701233123451",
        "1701237123450",
        "여권 대신 1701237123450",
        "아이 번호는 1701237123450 이에요",
        "Kim Hana,1701237123450",
        "Kim Hana: 1701237123450",
        "1701233123456\n1701237123450",
        '{"created":1701231123450,"no":"1701233123456"}',
        '{"created":1701231123450,"at":1701233123456}',
        '{"no":1701237123450}',
        '{"번호":1701237123450}',
        '{"name":"Hana","id":"1701237123450"}',
        "어린이집 원아 명단\n김하나 1701233123456\n이두리 1512124123450\n박세찬 1603013123450",
        "\n".join(f"김하나,1701237123{at}" for at in range(450, 490)),
        "\n".join(f'{{"name":"김하나","id":"1701237123{at}"}}' for at in range(450, 490)),
    ],
)
def test_child_whose_number_has_no_checksum_is_seen(text: str) -> None:
    """Foreign children who registered since October 2020, and whoever was given another number since."""
    assert kinds(text, kinds=["resident_number"]) == {"resident_number"}


@pytest.mark.parametrize(
    "text",
    [
        '{"ts":1701233123451}',
        '{"ts": 1701233123451, "text": "안녕하세요"}',
        "ts=1701233123451 msg=안녕",
        "created_at: 1701233123451",
        "1701233123451 INFO 서버 시작",
        "[1701233123451] ERROR 실패",
    ],
)
def test_bare_time_stamp_of_json_or_a_log_is_no_resident_number(text: str) -> None:
    """The checksum does not fit."""
    assert kinds(text, kinds=["resident_number"]) == set()


def test_many_bare_time_stamps_are_no_resident_numbers() -> None:
    assert kinds("\n".join(f"{stamp},login,ok" for stamp in range(1701233123400, 1701233123500)), kinds=["resident_number"]) == set()
