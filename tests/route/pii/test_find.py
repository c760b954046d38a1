"""The privacy guard: what it must see in a text, and what it must leave alone. No number here is anyone's."""

from __future__ import annotations

import json
import random
import sys
import time
import unicodedata

import pytest
from private_kinds import RESIDENT, kinds

from nomoat.route import pii


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("010-1234-5678", "phone"), ("016-123-4567", "phone"), (RESIDENT, "resident_number"), ("220-81-62517", "business_number"),
        ("4111-1111-1111-1111", "card"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n ", "\n> ", "\r", "\u2028", "\f"])
def test_a_number_whose_group_a_lines_end_parts_is_seen(number: str, kind: str, end: str) -> None:
    """As mail programs break lines, and where a message comes in two parts."""
    for at in range(1, len(number)):
        text = f"제 것은 {number[:at]}{end}{number[at:]}입니다"
        assert kinds(text, kinds=[kind]) == {kind}, text


def test_columns_of_numbers_and_dates_are_no_number_parted_by_a_lines_end() -> None:
    """Where dashes are missing, or others stand around, or no checksum fits."""
    rows = "\n".join(f"2024-{1 + at % 12:02}-{1 + at % 28:02},{at * 7919 % 10**6}" for at in range(500))
    assert kinds(rows) == set()
    for text in ("01012\n345678", "1-010-12\n34-5678", "4111-11\n11-1111-1112", "220-81-6\n2518", "801301-1\n234567", "-1\n-2\n010-1"):
        assert kinds(text) == set(), text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is a moat?",
        "주문번호 20240115123456",
        "order 2024-01234567",
        "lot 2023-1234-5678",
        "2024-01-15 10:30:00 에 입금했습니다",
        "입금 2024-01-15 10:30, 1,234,567원",
        "2023.12.31",
        "v1.2.3.4567 and 10.0.19045.3803",
        "가격은 1,234,567원",
        "ISBN 978-3-16-148410-0",
        "192.168.0.101",
        "3.14159265358979",
        "pi is not 0.1234567890",
        "1111 1111 1111 1111",
        "4111 1111 1111 1112",
        "sha 8f14e45fceea167a5a36dedd4bea2543",
        "@scope/package@1.2.3",
        "우리 회사는 2024-2025 예산",
        "오늘@강남역.같이가요",
        "GB82 WEST 1234 5698 7654 33",
        "DE88370400440532013000 EUR 500",
        "se24 is what all of them say",
        "order 41111111111111110000",
        "4111-1111 1111-1111 2025",
        "2024 41 11 11 11 11 11 11 11",
        "2024-01-15 2024-02-15 2024-03-15 2024-04-15 2024-05-15",
        "45.32 12.33 44.21 12.13",
        "4532\n1233\n4421\n1213",
        "1111 4532 1233 4421\n1213 1111 1111 1111",
        "1111 2222\n4532 1233\n4421 1213\n1111 2222",
        "4532.1233 4421.1213",
        "2024,4532,1233,4421,1213,5555",
        "2024,4532|1233|4421|1213|5555",
        "4532,1233|4421,1213",
        "900101,1234567",
        "날짜,금액\n240115,1500000\n240116,2300000\n240117,980000",
        "날짜,수량,금액\n240115,1,500000\n240116,2,230000",
        "240115 1 500000",
        "step,loss,tokens\n100,0.011234,1024\n200,0.010987,2048",
        "0.011,1024,2048\n0.010,1024,4096",
        "id,year,count\n010,2024,12\n011,2025,310",
        "2,010,1234.5",
        "010,1234|5678",
        "1,010,1230,000",
        "1:010:1234:567",
        "2022 998,431\n2023 1,010,345\n2024 1,019,222",
        "sold 1,016,250 - 2023",
        "2,010,120/2024",
        "010,1234\n2024 1",
        "010,1234.\n2024 was better",
        "시작 09:30, 끝 18:00, 인원 12, 금액 1,234,567",
        "AB02-12-4567 and F16-2024-1234",
        "입금\n\n20240115123456",
        "송금 2024.01.15 10:30",
        "account 2023-2024-2025",
        "The river bank 1990-1995-2000 flooded",
        "Bank holidays: 2024 12 25 2026",
        "GitHub account created 20190512103045",
        "계좌 개설 2024-0115 1030",
        "account balance is 1234567890.12",
        "account balance is 123456.78901",
        "accountant 110-123-456789",
        "bankruptcy 123-456-7890-12",
        "1024 KB 1234567890",
        "512KB 123-4567-8901",
        "downloaded 524288/1048576 KB",
        "memory 131072 / 262144 KB로",
        "1024 2048 4096 KB",
        "KB: 1024 2048 4096",
        "KB (단위) 1024 4096 16384",
        "SC-2023-00012345",
        "SC-20230115-0012",
        "SC-001234-2023",
        "계좌 개설 20240115-1030-20",
        "입금 2024.01.15.10.30",
        "account 20230101-20231231",
        "y = x @ self.net",
        "y = x @ self.net.weight",
        "y = x @ model.net(z)",
        "y = x @ model.net[0]",
        "x\n@app.net",
        "기업 2023-2024-2025",
        "상품 하나, 1234567890123",
        "주문 1234-0115-12345 하나 취소",
        "주문 1234-0115-12345 우리 회사",
        "| 계좌 | 개설일 |\n|---|---|\n| 급여 | 2024-01-15 |",
        "git@github.com:foo/bar.git",
        "ssh://git@github.com/foo/bar",
        "y = x @ self.weight",
        "만나요 @ 강남.같이",
        "1801010000000",
        "9 0 0 1 0 1 1 2 3 4 5 6 7",
        "1 9 0 0 1 0 1 1 2 3 4 5 6 8",
        "lot 20240115-3001234",
        "19900101-1234567",
        "2*3*4*5 and 2**16",
        "010*1234 and 12**345678",
        "50%20 off &amp; more, &c; C:\\new\\table",
        "240115 3500000원 결제",
        "240115\t3500000원 결제",
        "2401153500000원 결제",
        "날짜\t금액\n240115\t3500000\n240116\t1200000",
        "주민세 240115, 3500000원 납부",
        "입주민 관리비 240115, 1500000",
        "통장 잔액 1234567890원",
        "송금액 1234567890원을",
        "1234567890원을 통장으로 송금",
        "주문번호 20240115-0000123 입금 확인",
        "주문번호: 1234567890123 입금 확인",
        "운송장 1234567890123 무통장입금",
        "주문 1234567890123 계좌이체로 결제",
        "주문번호,결제\n1234567890123,계좌이체",
        "상태,주문번호\n입금완료,1234567890\n입금완료,1234567891",
        "상태,주문번호,송장번호,금액\n입금,1234567890123,123456789012,35000\n입금,1234567890124,123456789013,35000",
        "주문번호\t상태\n1234567890\t입금완료\n1234567891\t입금완료",
        '고객,"상태","주문번호","금액"\n김,"입금완료","1234567890","3000"',
        "어제 것:\n\n| 상태 | 송장번호 |\n| --- | --- |\n| 이체완료 | 123456789012 |",
        '{"id": 1234567890123, "계좌": "없음", "account": "foo"}',
        "1234567890123, account: foo",
        "a=010&b=2024&c=1234",
        "1.9001011234568\n1.8001011234560",
        "loss 2.9001011234568",
        "2024-01-15 10:30에 통장에 입금",
        '{"phone": null, "created": 1705314600}',
        "전화 요금 1012345678원",
        "1012345678",
        "icon@3x.png",
        "src=icon@2x.png,images/foo@1.5x.webp",
        "국민 1000000000명",
        "송금 1234567890회",
        "기업 1000000000건의",
        "icon-hana-1234-5678-90",
        "toss/1234-567-8901",
        "coin toss 1990 2000 3000 4000",
        "kb-1234-567890.html",
        "kakao: 1234567890",
        "Hanabi 123-456789-01234",
        "200 MG 50580-0226-50",
        "MG-1234-567890",
        "부산 6012-3456-7890",
        "부산,112-1234-5678-90",
        "송장 112-1234-5678-90 부산",
        "광주 220-81-62518",
        "경부산 112-1234-5678-90",
        "1234567890123으로 주문한 상품 환불해 주세요",
        "주문번호 1234567890123으로 환불 요청",
        "상품번호 1234567890123으로 환불",
        "환불 2024-12345678",
        "환불\t1234-567-8901",
        "score 0.5392234688708106",
        "p = 0.0112345678, 1.0123456789, -0.5881234567",
        "[0.9001011234568, 0.4111111111111111]",
        "127.0212345678, 37.5012345678",
        '{"id": "010", "year": "2024", "count": "1234"}',
        '{"q1": 4111, "q2": 1111, "q3": 1111, "q4": 1111}',
        "주문번호 20240115-0001234, 송장 6012-3456-7890",
        "ISBN 979-11-5839-140-9, 1-56619-909-3",
        "버전 10.0.19045.3803에서 2024.1.15로",
        "x\n@app.command()\n@app.net",
        "OOO 고객님, 1OO 5O% 할인",
        "다음。010은 끝",
        '{"accounts": 3, "total": 1234567890}',
        "account=5&id=1234567890",
        "은행,3,1234567890123",
        "은행 3곳에서 주문번호 1234567890123",
        '{"msg": "account 42 locked at 1715312448832"}',
        "은행,3,123-456-789012",
        "2024-01-15 10:22:33 INFO [account-service] retry 3 after 1715312448832",
        "Traceback account.py:42 1715312448832",
        "GET /api/accounts/42 1715312448832",
        "account-service v2 build 1234567890",
        "World Bank (2023): 8045311447",
        "Account 42: Ticket 2024000123",
        "SELECT * FROM account LIMIT 5 OFFSET 1234567890",
        "은행 3곳의 대출 잔액 1234567890123",
        "계좌이체 3일내 결제 주문 번호: 123456789012",
        "국민은행\t935\t386938878966",
        "국민은행\t3,000원\t386938878966",
        "국민은행    823    5234567890123",
        "account_id\tcount\n17\t1715312448832",
        "은행 3곳 사업자번호 220-81-62518",
        "하나 3만원 6012-3456-7890",
        "월별 매출\n02 2272 7731 8550\n합계 9999",
        "day 02 1024 2048 4096",
        "2024 01 02 3456 7890",
        "0x02 123 4567",
        "id a b c\n031 7560 9894 11\n032 8979 9800 42\n033 1264 6360 91",
        "은행 3곳 2023-2024-2025",
        "계좌 3개 개설 20190512103045",
        "국민 3명이 만든 회사 220-81-62518",
        "001 1234 5678 12\n002 1234 5678 12\n031 1234 5678 12\n032 1234 5678 12",
        "2024-02 555 1234",
        "order 2024-02-555-1234a",
        "+12 - 34 - 5678 - 9",
    ],
)
def test_everyday_numbers_are_left_alone(text: str) -> None:
    assert kinds(text) == set()


def test_ordinary_tables_hold_nothing_private() -> None:
    """Drawn with a fixed seed: no chance of a false alarm."""
    draw = random.Random(2)

    def row(at: int) -> str:
        day = f"20{draw.randint(10, 29)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
        hour = f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}"
        cells = (f"{at:05}", day, f"{draw.randint(1, 9)}", f"{1000 * draw.randint(1, 9999)}", f"0.01{draw.randint(0, 9999):04}", hour)
        return draw.choice((",", ";", "|", "\t", ", ", " | ")).join(
            (*cells, f"SKU{draw.randint(10000, 99999)}", f"{draw.randint(1900, 2099)}")
        )

    for at in range(300):
        assert pii.find(row(at), kinds=["resident_number", "phone", "business_number", "card"]) == ()


def test_columns_far_from_each_other_hold_nothing_private() -> None:
    """Rows of numbers, of order ids from 001 on, of dates and amounts, of banks. Drawn with a fixed seed."""
    draw = random.Random(5)

    def number(num_digits: int) -> str:
        return f"{draw.randint(10 ** (num_digits - 1), 10**num_digits - 1)}"

    for width in (5, 9):
        gap = " " * width
        rows = [gap.join(number(4) for _ in range(4)) for _ in range(20)]
        ids = [gap.join((f"{at:03}", number(4), number(4), number(5))) for at in range(1, 61)]
        days = [gap.join((f"24{at % 12 + 1:02}{draw.randint(1, 28):02}", number(7), "2024-01-15")) for at in range(20)]
        banks = [
            gap.join((bank, number(5), number(4), number(6))) for bank in ("국민은행", "신한", "하나", "우리", "농협", "KB", "NH")
        ]
        for table in (rows, ids, days, banks):
            assert pii.find("\n".join(table)) == (), table


def test_only_the_kinds_asked_for_are_looked_for() -> None:
    assert kinds(f"{RESIDENT} 010-1234-5678", kinds=["phone"]) == {"phone"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("①900101-1234568", "resident_number"),
        ("900101-1234568¹", "resident_number"),
        ("①220-81-62517", "business_number"),
        ("①4111-1111-1111-1111", "card"),
        ("①123456-78-901234 국민은행", "bank_account"),
        ("연락처①010-1234-5678②02-123-4567", "phone"),
        ("1️⃣010-1234-5678", "phone"),
        ("3㎡010-1234-5678", "phone"),
        ("⓪①⓪-①②③④-⑤⑥⑦⑧", "phone"),
        (json.dumps("①010-1234-5678"), "phone"),
        ("&#9312;010-1234-5678", "phone"),
    ],
)
def test_what_numbers_a_list_or_a_note_hides_no_number(text: str, kind: str) -> None:
    assert kinds(text) == {kind}


def test_no_character_that_holds_a_digit_hides_a_number() -> None:
    signs = [sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign) != "Nd"]
    for sign in (sign for sign in signs if any(map(str.isdecimal, unicodedata.normalize("NFKC", sign)))):
        assert kinds(f"{sign}010-1234-5678{sign}") == {"phone"}, f"U+{ord(sign):04X}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("api_key", "\x1b[AKIAABCDEFGHIJKLMNOP"), ("api_key", "\x1b[sk-abcdefghij0123456789ABCDEFG"),
        ("api_key", "\x9bAKIAABCDEFGHIJKLMNOP"), ("api_key", "\x1b(AKIAABCDEFGHIJKLMNOP"),
        ("name", "\x1b[Kim"), ("name", "\x9bKim"), ("name", "\x1b(Brian"),
        ("phone", "3\U000e0080010-1234-5678"), ("phone", "3\ufff0010-1234-5678"), ("phone", "3\u2065010-1234-5678"),
        ("phone", r"%010\u002d1234\u002d5678"), ("email", "a@2x.png@naver.io"),
        ("bank_account", "주문번호\r\n110-123-456789 계좌"), ("bank_account", "KB 012-345-6789"), ("bank_account", "012-3456-7890 NH"),
        ("bank_account", "NH 010-1234-5678-08"),
    ],
)  # fmt: skip
def test_what_stands_in_a_text_is_seen_whatever_else_it_may_mean(kind: pii.Kind, text: str) -> None:
    """What looks like the end of a terminal's sign, an escape or a telephone number may be the beginning of what is private."""
    assert kind in kinds(text, names=["Kim", "Brian"])


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("resident_number", "**800101**-1234560"),
        ("phone", "010-**1234**-5678"),
        ("business_number", "124-**81**-00998"),
        ("bank_account", "계**좌**번호: 110-123-456789"),
        ("bank_account", f"| 은\\-행 | 계\\*좌 |\n|{'-' * 400}|---|\n| 123456-**78**-901234 | - |"),
        ("bank_account", "GB82 WEST 1234 **5698** 7654 32"),
        ("card", "4111-**1111**-1111-1111"),
        ("email", "kim@**naver**.com"),
        ("name", "김**철수**"),
    ],
)
def test_what_marks_change_is_seen_amid_a_long_text(kind: pii.Kind, number: str) -> None:
    filler = "A `word` of no meaning%20, 3 of 40. " * 30
    text = f"{filler}\n{number}\n{filler}"
    assert kinds(text, names=["김철수"]) == {kind}


STARTS = ("ru11", "010", "1", "tel10", "계좌", "부산 ", "900101", "4111", "123-45", "a@", "kim@a.", "sk-", "+82", "hp1=010&")


def takes_long(before: str, piece: str, after: str) -> bool:
    """Whether four times the text takes far more than four times the processor's time, however often that is tried."""

    def seconds(length: int) -> float:
        text = f"{before}{(piece * length)[:length]}{after}"
        started = time.process_time()
        pii.find(text, names=["김철수", "O'Brien", "Project Moat"])
        return time.process_time() - started

    return all(seconds(10_000) > 6 * seconds(2_500) + 0.05 for _ in range(5))


def test_long_text_takes_no_time() -> None:
    """A pattern that goes over its text again and again would take 16 times as long for four times the text."""
    pieces = [
        "a", "1", "1 ", "a@", "12-", "은행", "A1", "4111 ", "de89",
        "가.", "x@가.", "1\n", "12 - ", "은행\n12  ", "de89 12  ", "가\u0301", "010,", "900101,1",
        "4111 , ", "1'\"  '", "tel02-", "김 철 ", "계좌|", "계좌\n|", "account_", "\\u", "*a_`",
        "\n> ", "%E&a", "kim @ a.", "국민 통장으로(", "Project\n\n", "900101,a:", "9 - 9 ", "sk-",
        "①", "전화 10", "phone,", "900101 가 ", "123-456-7890 가 ", "1234567890로 1", "123-456-7890 my ",
        "\x1b[0;", "1\0", "①\0%20", "=a+", "1-\r1", "환불\n", "1234567890로 환", "1234567890명", "부산 ", "Kakao 1-", "a@2x.",
        "1\r\n", "\v1", "=+1+", "a@2x.png@", "①\0%0①\\u2460\\b", "①\0\v\\u0000%0A1 ",
        "010      ", "계좌       ", "1 -  - ", 'a="4111",', "0.12345 ", "O1", "1-\n", "a1=010&", "kim\n@a.", "❶",
        "+82 ", "+1 415 ", "+999 12 34 56 78 90 ", "0082 ", "은행 3 ", "계좌 3만 ", "신한 110 123 4567 12345 ", "02 555 1234 ",
        "login a ", "docker login -", "getConnection(a,", "create user a identified ", "sqlplus a/", "jdbc:oracle:", "_auth=a",
        "abcdefghijklmnopqrstuv\n", "token=//a/",
        "국민 3만원 ", "은행 3만원,", "은행 3만 5천원\n", "하나 3 원 ", "(02) 555-1234 ", "02) 555", "031 123 4567 9\n",
        "증권", "증권 1-", "7123456-78-01 ", "공일공 ", "010 다시 ", "일", "1234567890 계산서", "123 45 67890 ",
        "kim 골뱅이 a 점 ", "a점",
    ]  # fmt: skip
    pieces += ["4111 1111 1111 1112 ", "1.23456 card ", "".join(f"{at}.9876543\n" for at in range(1, 1_000))]
    shapes = [
        *(("", piece, "") for piece in pieces),
        ("sk-1", "a", ""),
        *((start, " ", "1") for start in ("010", "계좌", "de89", "+1")),
    ]
    for shape in shapes:
        assert not takes_long(*shape), [part[:20] for part in shape]
    for start in STARTS:
        for piece in ("-1", ".a", " - 1", "_1a", " 1", "1-", "- \n"):
            started = time.process_time()
            pii.find(f"{start}{piece * 30}!", names=["김철수", "O'Brien", "Project Moat"])
            assert time.process_time() - started < 5, (start, piece)


def test_every_kind_has_words_for_people() -> None:
    assert set(pii.KIND_TITLES) == set(pii.KINDS) == {*pii.FINDERS, "name"}
