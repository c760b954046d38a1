"""The privacy guard: what it must see in a text, and what it must leave alone. No number here is anyone's."""

from __future__ import annotations

import json
import random
import sys
import time
import unicodedata
from urllib.parse import quote

import pytest

from nomoat.route import pii
from nomoat.route.pii.names import holds_name


def kinds(text: str, **options: object) -> set[str]:
    return set(pii.find(text, **options))  # type: ignore[arg-type]


RESIDENT = "800101-1234560"  # the checksum fits


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
    ],
)
def test_resident_number_is_seen_however_it_is_written(text: str) -> None:
    assert kinds(text) == {"resident_number"}


@pytest.mark.parametrize(
    "text", ["801301-1234560", "800132-1234560", "030229-3234567", "800101-12345678", "1800101-1234560", "19900101-3234560"]
)
def test_number_without_a_birth_date_is_no_resident_number(text: str) -> None:
    assert "resident_number" not in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "010-1234-5678로 연락 주세요",
        "전화010-1234-5678입니다",
        "01012345678",
        "tel01012345678",
        "010 1234 5678",
        "010.1234.5678",
        "010, 1234, 5678",
        "010|1234|5678",
        "| 010  | 1234 | 5678 |",
        '"010","1234","5678"',
        "['010', '1234', '5678']",
        '["010",\n "1234",\n "5678"]',
        "3,홍길동,010,1234,5678,서울",
        "3;010;1234-5678",
        "1,010,1234,5678",
        "3, 010,1234-5678",
        "홍길동,010,123-4567",
        "010,12345678",
        "010)1234-5678",
        "010•1234•5678",
        "010ㆍ1234ㆍ5678",
        "010・1234・5678",
        "010_1234_5678",
        "02·123·4567",
        "02_123_4567",
        "0️⃣1️⃣0️⃣ 1234 5678",
        "0\u03361\u03360\u0336-\u03361234-5678",
        "010-12\u030134-5678",
        "０１０－１２３４－５６７８",
        "011-234-5678",
        "02-123-4567",
        "tel02-123-4567",
        "FAX031)123-4567",
        "02_123_4567fax",
        "T(02)123-4567F",
        "(02) 123-4567",
        "031)123-4567",
        "070-1234-5678",
        "1588-1234",
        "+82 10-1234-5678",
        "call +1 (650) 253-0000 now",
        "+44 20 7946 0958",
        "0082-10-1234-5678",
        "0082 10 1234 5678",
        "00821012345678",
        "0082-2-123-4567",
        "tel0082-2-123-4567",
        "0x0082 0212345678",
        "010-**1234**-5678",
        "__010__-__1234__-5678",
        "`010`-`1234`-`5678`",
        "010\\-1234\\-5678",
        "010%2D1234%2D5678",
        "010&nbsp;1234&nbsp;5678",
        "010&#x2d;1234&#45;5678",
        r"010\u002d1234\u002D5678",
        '{"휴대폰": 1012345678}',
        '{"mobileNo": "1012345678"}',
        "휴대폰번호,1012345678",
        "이름,휴대폰,주소\n홍길동,1012345678,서울",
        "휴대폰 10-1234-5678",
        "phone: 1012345678.0",
        "010     1234     5678",
        "010  -  1234  -  5678",
        "010 - - 1234 - - 5678",
        "홍길동     010     1234     5678     서울     1990",
        "02     123     4567",
        "02  -  123  -  4567",
        "+82     10     1234     5678",
        "전화 02-123-\n4567",
        "070-1234- \n  5678",
        "1588-\n1234",
        "+82 10-1234-\n5678",
        "hp1=010&hp2=1234&hp3=5678",
        "hp[0]=010&hp[1]=1234&hp[2]=5678",
        '{"hp1":"010","hp2":"1234","hp3":"5678"}',
        '{"a": "010", "b": "1234", "c": "5678"}',
        '{\n        "a": "010",\n        "b": "1234",\n        "c": "5678"}',
        '{"phone": {"first": "010", "middle": "1234", "last": "5678"}}',
        "O1O-1234-5678",
        "전화 o1o 1234 5678로",
        "010。1234。5678",
        "02。123。4567",
        "010\u22151234\u22155678",
        "⓿❶⓿-❶❷❸❹-❺❻❼❽",
        "❶010-1234-5678",
        "1.01012345678\n2.01023456789",
        "1.010-1234-5678",
        "휴대폰\t주소와 그 밖의 여러 가지 내용을 적은 칸 입니다\n1012345678\t서울",
        "전화 +82 10-1234-5678 9시 이후에 주세요",
        "Call +82 10 1234 5678 24 hours a day",
        "+82 (0)10 1234 5678 10,000",
        "+82-10-1234-5678a",
        "0082 10 1234 5678[1]",
        "call +44 20 7946 0958 9am",
        "+1 415 555 2671 5",
        "+81 90-1234-5678 3",
        "+86 138 0013 8000 2024-01-15 10:22",
        "+1-415-555-2671[1]",
        "1)02-555-1234",
        "(1)02-555-1234",
        "02-555-1234[1]",
        "02 555 1234 10",
        "070 1234 5678 3",
        "주문 3 02 555 1234",
        "(02) 555-1234 10",
        "02) 555-1234 10시",
        "문의 (031) 123 4567 10:00-18:00",
        "02-555 1234 10시",
        "02 555-1234 10:00",
        "02)5551234 10시",
        "02) 555 1234 02) 555 1235",
        "02 555 1234 1000~1800",
        "02 555 1234 031 123 4567 9",
        "02 555 1234 2024년 3월부터",
        "0507 1234 5678 10시",
        "경기 031 123 4567 9시\n인천 032 123 4567 9시\n강원 033 123 4567 9시",
        "이진수 01010101010",  # the word for binary, and a name that many have
    ],
)
def test_phone_number_is_seen_however_it_is_written(text: str) -> None:
    assert kinds(text) == {"phone"}


@pytest.mark.parametrize(
    "text",
    [
        "124-81-00998",
        "124 81 00998",
        "124.81.00998",
        "124 - 81 - 00998",
        "124  -  81  -  00998",
        "사업자번호     124     81     00998",
        "사업자번호 1248100998",
        "사업자등록번호(124－81－00998)를",
    ],
)
def test_business_number_with_its_checksum_is_seen(text: str) -> None:
    assert kinds(text) == {"business_number"}


@pytest.mark.parametrize(
    "text",
    [
        "개인통관고유부호 P123456789012",
        "통관번호는 P123456789012입니다",
        "P1234-5678-9012 통관부호예요",
        "PCCC: p123456789012",
        '{"customs_id": "P123456789012"}',
        "이름,개인통관고유부호,주소\n김철수,P123456789012,서울",
        "통관부호\nＰ１２３４５６７８９０１２",
        "세관에서 통관 때문에 연락왔어요. 어제 주문했고 색은 검정입니다. 번호는 P 1234 5678 9012 이에요",
        "직구하는데 P123456789012 입니다",
        "해외직구 고유부호: P123456789012",
        "개인 고유 부호 P123456789012",
        "세관 P123456789012",
        "personal clearance code P123456789012",
        "clearanceCode P123456789012",
        "통관부호: P_123456789012",
        "통관부호 P.1234.5678.9012",
    ],
)
def test_personal_customs_code_is_seen(text: str) -> None:
    assert kinds(text) == {"customs_code"}


@pytest.mark.parametrize(
    "text",
    [
        "상품 P123456789012 재입고 언제 되나요?",
        "통관 번호 P12345678901",
        "통관 P1234567890123",
        "통관 XP123456789012",
        "통관 123456789012",
        "통관이 언제 끝나나요? 주문 20241129",
        "clearance sale: P123456789012",
        "직구로 산 물건, 주문 P-2024-1129-01",
        "세관 안내 p. 12.3456.7890",
    ],
)
def test_numbers_of_goods_are_no_customs_codes(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize("text", ["124-81-00999", "주문 1248100998", "사업자번호 1248100999", "124     81     00998"])
def test_business_number_needs_its_checksum_and_without_separators_a_word(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "신한은행 110-123-456789",
        "신한은행 110 - 123 - 456789",
        "신한은행 110.123.456789",
        "신한은행\n110-123-456789",
        "계좌 1\u03321\u03320\u0332-123-456789",
        "신한은행\r\n  110-123-456789",
        "계좌번호\n110-123-456789",
        "Bank account\nNo. 110-123-456789",
        "계좌번호: 123456-01-123456",
        "국민 123456-01-123456",
        "110-123-456789 (신한은행)",
        "입금은 3333011234567로",
        "my bank account is 1234567890",
        "농협 352 1234 5678 93",
        "GB82 WEST 1234 5698 7654 32",
        "GB82  WEST  1234  5698  7654  32",
        "GB82 WEST 1234\n5698 7654 32",
        "DE89370400440532013000",
        "IBAN: DE89 3704 0044 0532 0130 00 BIC: COBADEFFXXX",
        "DE89370400440532013000 EUR 500",
        "transfer 500 to de89 3704 0044 0532 0130 00 please",
        "De89-3704-0044-0532-0130-00",
        "MT84MALT011000012345MTLCAST001S",
        '{"bank_account_number":"12345678901234"}',
        '{"account_no":"110-123-456789"}',
        '{"accountNumber":"110123456789"}',
        '{"userAccountNo": "110123456789"}',
        "account_no: 110-123-456789",
        "bank_account=110-123-456789",
        "accounts: 110-123-456789",
        "| 은행 | 계좌번호 | 예금주 |\n|---|---|---|\n| 국민 | 123456-78-901234 | 홍길동 |",
        "| 이름 | 계좌번호 | 비고 | 등록한 날짜 | 담당 |\n|:--|--:|---|---|---|\n| 홍길동 | 123456-78-901234 | - |",
        "| 계좌번호 |\n| --- |\n| 123456-78-901234 |",
        "계좌번호\n\n123456-78-901234",
        "계좌번호\t예금주 성명과 그 밖의 여러 가지 내용을 적은 칸\n110-123-456789\t홍",
        "계좌\t주소와 그 밖의 여러 가지 내용을 적은 칸 입니다\n110-123-456789",
        "계좌\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t110-123-456789",
        "계좌                              |주소\n110-123-456789",
        "국민 | 123456-78-901234",
        "국민,123456-78-901234",
        "신한(이영희) 110-123-456789",
        "[신한] 110-123-456789",
        "신한 - 110-123-456789",
        "신한/110-123-456789/이영희",
        "신한으로 110-123-456789",
        "신한 통장 110-123-456789로 환불",
        "국민 통장으로 123456-01-123456 보내주세요",
        "통장 번호는 1002-123-456789 예요",
        "KB 123456-78-901234",
        "KB 123456-01-201234",
        "NH: 352-1234-5678-93",
        "NH: 352-2012-5678-93",
        "KB으로 123456 01 123456 보내주세요",
        "123456-01-123456 (KB)",
        "123456 01 123456 KB은행",
        "123456 01 123456 KB 통장으로",
        "농협 2001-12-123456",
        "새마을금고 2011-0912-1234",
        "신협 1999-0101-123456",
        "계좌 110-2023-123456",
        "은행 1234567890123.4월 1일",
        "계좌 123456789012.3개월",
        "농협 123456.7890123 으로",
        "SC제일 123-45-678901",
        "카뱅 3333-01-1234567",
        "새마을 9002-1234-5678-9",
        "우리: 1002-123-456789",
        "110-123-456789 신한",
        "환불은 110-123-456789 (신한, 이영희)로",
        "1002-123-456789 (예금주: 이영희)",
        "1002-123-456789 우리로 보내세요",
        "은행: 국민은행\n예금주: 이영희\n번호: 110-123-456789",
        "**계좌**: **110-123-456789**",
        "110-123-456789 계좌로 50만원 보내줘",
        "110-123-456789로 입금해줘",
        "110-123-456789로 3만 5천원 바로 이체해줘",
        "110-123-456789로 50만원 보내줘",
        "110-123-456789로 무통장입금",
        "110-123-456789 여기로 송금",
        "110-123-456789 통장",
        "110-123-456789 (계좌번호)",
        "110-123-456789가 우리 회사 계좌입니다",
        "110-123-456789, 제 계좌예요",
        "110-123-456789\n위 계좌로 입금 바랍니다",
        "110123456789 계좌로",
        "110-123-456789 account",
        "110-123-456789 is my bank account",
        "110123456789 is our savings account",
        "계좌 110123456789원래 쓰던 것",
        "입금완료,110-123-456789",
        "상태,번호\n입금완료,110123456789",
        "상태,번호,주문번호\n입금완료,110123456789,1",
        "주문번호, 이름 알려 주세요\n입금은 110123456789, 저에게",
        "주문번호, 이름은 여기\n입금\n110123456789",
        "주문번호,상태,계좌번호\n1234567890,입금완료,110123456789",
        "상태,주문번호,계좌\n입금완료,1234567890,110123456789",
        "상태,이름,주문번호,메모\n입금완료,홍길동,1234567890123,환불은 110-123-456789 로",
        "상태,주문번호,번호\n입금,1234567890123,1102345678901",
        "상태,주문번호,송장번호,번호\n입금,1234567890123,123456789012,1102345678901",
        "Shinhan 110-123-456789",
        "SHINHAN: 110123456789",
        "kookmin 123456-01-123456",
        "NongHyup 302-1234-5678-91",
        "Woori 1002 123 456789",
        "Hana 123-456789-01234",
        "Toss 1000-1234-5678",
        "Kakao 3333-01-1234567",
        "kakaobank 3333011234567",
        "110-123-456789 (shinhan)",
        "kb 123456-01-123456",
        "ibk 123-456789-01-234",
        "MG 9002-1234-5678-9",
        "토뱅 1000-1234-5678",
        "외환 123-456789-01234",
        "부산 112-1234-5678-90",
        "경남: 207-0012-3456-78",
        "Busan 112-1234-5678-90",
        "110-123-456789로 환불 부탁드려요",
        "110123456789으로 전액 환불해 주세요",
        "환불: 110-123-456789",
        "환불은 110-123-456789",
        "account=110+123+456789",
        "계좌 110123456789명의 홍길동",
        "계좌 110123456789건 문의",
        "계좌번호 110123456789명",
        "계좌 110123456789개",
        "계좌 110123456789회",
        "송금 110123456789개에",
        "계좌: 1234567890123개입니다",
        "계좌 110123456000건",
        "NH 020-1234-5678-08",
        "KB 012-345-6789-01",
        "SC 054-321-9876-543",
        "KB 001-234-5678-901",
        "KB: 012-3456-7890-12",
        "NH 099-1234-5678-91",
        "계좌 110     123     456789",
        "국민 110  -  123  -  456789",
        "계좌번호                              110-123-456789",
        "GB82     WEST     1234     5698     7654     32",
        "계좌 110-123-\n456789",
        "국민은행으로 3만원 보내줘 123456-01-123456",
        "우리은행 3만원 1002-123-456789",
        "국민은행에 30,000원 123456-01-123456",
        "계좌: 국민 3만원 123456-01-123456",
        "계좌1: 110-123-456789",
        "카카오뱅크 26주적금 3333-01-1234567",
        "신한은행 강남2지점 110-123-456789",
        "국민은행 2024년 개설 123456-01-123456",
        "국민은행(1990년생 홍길동) 123456-01-123456",
        "신한으로 3만원 110-123-456789",
        "국민은행 3만원 보내줘\n123456-01-123456",
        "신한은행 홍길동 3만원\n110-123-456789",
        "카카오뱅크 2층\n3333-01-1234567",
        "국민은행 3만5천원 123456-01-123456",
        "계좌 1: 1234567890123",
        "계좌번호 1) 12345678901234",
        "account 1: 110123456789",
        "account no 2: 123456789012",
        "국민은행 3만 5천원 123456-01-123456",
        "국민은행 30,000원, 123456-01-123456",
        "국민은행 3만원, 123456-01-123456",
        "국민은행 3만원 보내줘 12345601123456",
        "농협 3만원 보내줘 302 1234 5678 91",
        "KB 3만원 123456-01-123456",
        "하나 3만원 123-456789-01234",
        "우리 3만원 1002-123-456789",
        "기업 3만원 123-456789-01-234",
        "신한 110 123 456789 50000",
        "국민은행 123456 04 123456 50000원",
        "신한은행 110-123-  \n\n456789",
    ],
)
def test_bank_account_with_a_banks_word_is_seen(text: str) -> None:
    assert kinds(text) == {"bank_account"}


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
    ],
)
def test_card_number_is_seen_alone_and_beside_other_digits(text: str) -> None:
    assert kinds(text) == {"card"}


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


@pytest.mark.parametrize("text", ["4111 1111 1111 1112 5555 5555 5555 4444", "5555 5555 5555 4444 4111 1111 1111 1112"])
def test_a_card_is_seen_beside_what_is_none_on_a_line(text: str) -> None:
    assert kinds(text) == {"card"}


@pytest.mark.parametrize(
    "text",
    [
        "kim@example.com으로 보내요",
        "<a.b+c@mail.example.co.kr>",
        "ｋｉｍ＠ｅｘａｍｐｌｅ．ｃｏｍ",
        "메일kim@example.com",
        "홍길동@example.com",
        "kim@한국.kr",
        "홍길동@회사.한국으로",
        unicodedata.normalize("NFD", "홍길동@메일.com"),
        "jürgen@bücher.de",
        "кто@пример.рф",
        "山田@例え.テスト",
        "डाटा@डाटामेल.भारत",
        "kim @ naver.com",
        "kim @ naver.com.",
        "kim @ naver.com(회사)",
        "kim@\nnaver.com",
        "kim\n@naver.com",
        "kim@naver.\ncom",
        "kim(at)naver.com",
        "kim[at]naver[dot]co.kr",
        "kim 골뱅이 naver.com으로",
        "kim@naver。com",
        "kim%40naver.com",
        "kim&#64;naver.com",
        "kim\\@naver.com",
        "**kim**@**naver**.com",
        "git@example.com",
    ],
)
def test_email_is_seen(text: str) -> None:
    assert kinds(text) == {"email"}


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("sk-", "proj-abcdEFGH0123456789_-abcdEFGH"),
        ("sk-", "ant-api03-abcdEFGH0123456789"),
        ("sk-", "or-v1-0f3c9a7be4d1528860fe9b2c7a64d3e85190bc2ad7f6e3410958cb7ade2f6034"),
        ("sk-", "5f0c9a7be4d1428860fe9b2c7a64d3e8"),
        ("sk-", "qn3vx8rjw2m5tzk7ybd4hgs9"),
        ("AKIA", "ABCDEFGH01234567"),
        ("ghp_", "abcdEFGH0123456789abcdEFGH0123456789"),
        ("github_pat_", "abcdEFGH0123456789_abcdEFGH0123456789abcdEFGH"),
        ("glpat-", "abcdEFGH0123456789ab"),
        ("AIza", "SyabcdEFGH0123456789abcdEFGH0123456"),
        ("xoxb-", "012345678901-abcdEFGH0123456789"),
        ("hf_", "abcdEFGHabcdEFGHabcdEFGHabcdEFGHab"),
        ("-----BEGIN ", "RSA PRIVATE KEY-----"),
        ("-----BEGIN ", "PGP PRIVATE KEY BLOCK-----"),
        ("---- BEGIN ", "SSH2 ENCRYPTED PRIVATE KEY ----"),
    ],
)
def test_api_key_is_seen(start: str, rest: str) -> None:
    """In two parts, so that nobody who looks for keys in this file finds one."""
    assert kinds(f'KEY="{start}{rest}"', kinds=["api_key"]) == {"api_key"}
    assert kinds(f"키는 {start}{rest}입니다", kinds=["api_key"]) == {"api_key"}
    assert kinds(f"x{start}{rest}", kinds=["api_key"]) == ({"api_key"} if start.startswith("-") else set())


@pytest.mark.parametrize(
    "text",
    [
        "sk-toggleable__label-arrow-of-a-long-1", "sk-Estimator-id-1", "AKIA is how they begin", "hf_hub_download", "AIza",
        "sk-learn-something-long", "sk-learn-1-with-2-many-3-short-4-words", "sk-internationalization2024",
        "sk-otherwiseunbelievablylongword", "sk-123456789012345678901234", "disk-0f3c9a7be4d1528860fe9b2c7a64d3e8", "sk-0f3c9a7be4d1",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----BEGIN CERTIFICATE-----",
    ],
)  # fmt: skip
def test_everyday_words_are_no_api_keys(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("김철수", "김철수는 왔다"),
        ("김철수", "우리김철수"),
        ("김 철수", "김철수"),
        ("김철수", unicodedata.normalize("NFD", "김철수가")),
        ("김철수", "김\ufe0f철수"),
        ("김철수", "김\u3164철\u3164수"),
        ("ガクト", unicodedata.normalize("NFD", "ガクトは")),
        ("ジョブズ", unicodedata.normalize("NFD", "ジョブズ氏")),
        (unicodedata.normalize("NFD", "ガクト"), "ｶﾞｸﾄ"),
        ("أحمد", unicodedata.normalize("NFD", "أحمد")),
        ("Jane Roe", "JANE  ROE called"),
        ("Jane Roe", "jane roe가 전화했다"),
        ("Project X", "the project\nx plan"),
        ("C++ (secret)", "uses c++ (secret)!"),
        ("O'Brien", "O’Brien"),
        ("O'Brien", "call o‘brien"),
        ("O’Brien", "O'BRIEN"),
        ("O'Brien", "Oʼbrien"),
        ("O'Brien", "O′Brien"),
        ("O'Brien", "O´Brien"),
        ("O'Brien", "O`Brien"),
        ("O'Brien", "O＇Brien"),
        ("김철수", "김 철수"),
        ("김철수", "김　철수는"),
        ("김철수", "성명: 김 철 수"),
        ("김철수", "어제 온 김철\n수는"),
        ("김철수", "우리 김  철수"),
        ("김구", "김 구 선생"),
        ("이지원", "담당: 이 지원"),
        ("이지원", "담당:이 지원"),
        ("이지원", "기관이지원"),
        ("LG전자", "LG 전자가"),
        ("佐藤", "担当は佐 藤です"),
        ("山田太郎", "山田 太郎"),
        ("ジョブズ", "ジョブ ズ"),
        ("Strauß", "STRAUSS"),
        ("Strauß", "Strauss"),
        ("Strauß", "STRAUẞ"),
        ("Strauss", "strauß"),
        ("İpek", "IPEK"),
        ("Παύλος", "ΠΑΎΛΟΣ"),
        ("Project Moat", "project-moat/readme"),
        ("Project Moat", "project_moat"),
        ("Project Moat", "project.moat"),
        ("Project Moat", "Project **Moat**"),
        ("Project Moat", "Project%20Moat"),
        ("Project Moat", "q=Project+Moat"),
        ("Project Moat", json.dumps("first line\nProject Moat")),
        ("Project 🏰", json.dumps("the project 🏰")),
        ("김철수", "김**철수**"),
        ("김철수", "`김`철수"),
        ("김철수", "김, 철수"),
        ("김철수", "김·철수"),
        ("김철수", "> 어제 온 김철\n> 수는"),
        ("김철수", json.dumps({"name": "김철수"})),
        ("김철수", json.dumps(json.dumps({"name": "김철수"}))),
        ("김철수", quote("김철수")),
        ("김철수", quote(quote("김철수"))),
        ("김철수", "&#44608;&#xCCA0;&#49688;"),
        ("김철수", "&amp;#44608;철수"),
        ("김철수", "김&nbsp;철수"),
        ("MRN", "MRN12345"),
        ("Moat", "moat2026"),
        ("Project-Sun", "project sun"),
        ("Project-Sun", "ProjectSun"),
        ("Project-Sun", "project_sun"),
        ("St. Mary", "ST MARY"),
        ("J. Smith", "j.smith"),
        ("J. Smith", "JSmith"),
        ("김·철수", "김철수"),
        ("김 철수", "김·철수"),
        ("X-Ray7", "xray7"),
        ("C++", "c++"),
    ],
)
def test_listed_name_is_seen(name: str, text: str) -> None:
    assert kinds(text, names=[name]) == {"name"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Roe", "heroes"),
        ("Roe", "Roebuck"),
        ("Roe", "hRoe"),
        ("Roe", "R oe"),
        ("Иван", "и ванна"),
        ("김철수", "김철호"),
        ("김철수", "김치 철수"),
        ("이수", "사람이 수영한다"),
        ("이지원", "기관이 지원한다"),
        ("이수정", "문장이 수정되었다"),
        ("Strauß", "Straussen"),
        (" ", "a b"),
        ("Roe", "R-oe"),
        ("Project Moat", "project. A moat"),
        ("김철수", "김, 그리고 철수"),
        ("이수정", "문장이, 수정"),
        ("Kim", "Kims"),
        ("Kim", "2kim"),
        ("Project 7", "project 71"),
        ("C++", "c d"),
        ("3.5", "35"),
    ],
)
def test_part_of_another_word_is_not_a_listed_name(name: str, text: str) -> None:
    assert kinds(text, names=[name]) == set()


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


@pytest.mark.parametrize("text", ["농협 3호점 054-123-4567", "국민은행 3층\n02-555-1234", "국민은행 3만원 02-555-1234"])
def test_a_branchs_phone_number_is_no_account(text: str) -> None:
    assert kinds(text) == {"phone"}


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


def test_fractions_are_no_numbers_of_anyone() -> None:
    """As Python writes them. Drawn with a fixed seed: no chance of a false alarm."""
    draw = random.Random(6)
    for num_decimals in (8, 10, 13, 16):
        assert pii.find(", ".join(f"{draw.random():.{num_decimals}f}" for _ in range(1_000))) == ()
        for between in (", ", "\n"):
            assert pii.find(between.join(f"{draw.uniform(1, 999):.{num_decimals}f}" for _ in range(1_000))) == ()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("주민번호 5.9001011234568", "resident_number"),
        ("2.9001011234568", "resident_number"),
        ("1.9001011234567\n2.9001021234567", "resident_number"),
        ("1. 홍길동\n  2.9001011234567\n3. 김철수\n1.8001011234560", "resident_number"),
        ("1. 홍길동\n\n참고\n1.9001011234567\n", "resident_number"),
        ("1. 학생\n  1.9001011234567\n  2.9001021234567\n2. 교사", "resident_number"),
        ("1.9001011234567(홍길동)\n3.5점", "resident_number"),
        ("> 1.9001011234567", "resident_number"),
        ("카드1.4111111111111111", "card"),
        ("1.0212345678", "phone"),
        ("3.01112345678", "phone"),
        ("100.01012345678", "phone"),
        ("tel 1.0101234567 8", "phone"),
    ],
)
def test_what_a_list_numbers_is_no_fraction(text: str, kind: str) -> None:
    assert kinds(text) == {kind}


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
def test_resident_number_in_cells_or_one_piece_is_of_somebody_who_may_live(number: str) -> None:
    """Born in 1890, and in 2099; the checksums fit, and written with a dash it is private all the same."""
    assert kinds(number.replace(",", "-")) == {"resident_number"}
    assert kinds(number) == kinds(number.replace(",", "")) == set()


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


def test_only_the_kinds_asked_for_are_looked_for() -> None:
    assert kinds(f"{RESIDENT} 010-1234-5678", kinds=["phone"]) == {"phone"}


def test_a_text_is_read_in_its_plainest_characters() -> None:
    assert kinds("\u200b전화 ０１０－１２３４\u200b－５６７８!") == {"phone"}
    for name in ("STRAUẞ", "straußen", "김　철\u200b수"):
        assert kinds(f"Straße 1, Herr {name}", names=["strauss", "straußen", "김철수"]) == {"name"}
    assert kinds("Straße 1, ß Straußß", names=["strauss", "김철수"]) == set()
    text = unicodedata.normalize("NFD", "メールはガクト\ufe0fへ 4111\u3164 1111\n1111 1111")
    assert kinds(text, names=["ガクト"]) == {"name", "card"}


@pytest.mark.parametrize("written", [quote("김철수"), "김&#38;#52384;수", "&#44608;&nbsp;" + json.dumps("철수")[1:-1]])
def test_a_name_in_escapes_and_in_escapes_of_escapes_is_seen(written: str) -> None:
    assert kinds(f"from {written}, 3 of 40!", names=["김철수"]) == {"name"}


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


CONTROLS = [
    "\0",
    "\b",
    "\x1f",
    "\x7f",
    "\x80",
    "\x1b[01;31m\x1b[K",
    "\x1b[38;2;255;128;0m",
    "\x9b1m",
    "\x1b(B\x1b[m",
    "\u2065",
    "\U000e0080",
    "\ufff0",
]


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("resident_number", RESIDENT), ("phone", "010-1234-5678"), ("bank_account", "계좌 110-123-456789"), ("email", "kim@naver.com"),
        ("card", "4111-1111-1111-1111"), ("name", "김철수"), ("address", "마포구 월드컵북로 12"),
    ],
)  # fmt: skip
def test_what_a_screen_does_not_show_hides_nothing(kind: pii.Kind, text: str, control: str) -> None:
    """At each place, at all of them (as UTF-16 has NULs that is read as ASCII), and in the escapes of JSON. What is read apart there,
    too, may look like more."""
    for at in range(1, len(text)):
        assert kinds(text[:at] + control + text[at:], names=["김철수"]) >= {kind}, at
    assert kinds(control.join(text), names=["김철수"]) == {kind}
    assert kinds(json.dumps(control.join(text)), names=["김철수"]) == {kind}


@pytest.mark.parametrize(
    "text", ["\x1b[9G010-1234-5678\x1b[30G42", "3\x00010-1234-5678\x007", "1%00010-1234-5678", "\x1b[010-1234-5678m"]
)
def test_what_a_control_character_parts_is_seen_alone(text: str) -> None:
    assert kinds(text) == {"phone"}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bank_account", "계좌 110{}123{}456789"), ("card", "카드 4111{0}1111{0}1111{0}1111"),
        ("resident_number", "9{0}0{0}0{0}1{0}0{0}1{0}-{0}1{0}2{0}3{0}4{0}5{0}6{0}8"), ("bank_account", "입금{0}{0}{0}110123456789"),
        ("email", "kim{}@naver.com"), ("email", "kim{}@ naver.com"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\v", "\f", "\x85", "\u2028", "\u2029"])
def test_what_may_end_a_line_may_be_white_space_within_one(kind: pii.Kind, text: str, end: str) -> None:
    assert kinds(text.format(end, end)) == {kind}


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
    "text",
    [
        "tel=+44%2020%207946%200958",
        "phone=+1%20212%20555%201234",
        "from=+49%20151%2012345678",
        "q=+81%2090-1234-5678",
        '"tel"="+49%2030%20901820"',
        r"tel=+86 138\u00201234\u00205678",
        "tel=+1-415-555-2671%20",
        "tel=+44 **20** 7946 0958",
        "tel=+44+20+7946+0958",
    ],
)
def test_the_plus_of_a_number_from_abroad_is_none_of_a_form(text: str) -> None:
    assert kinds(text) == {"phone"}


def test_a_form_has_plus_signs_for_spaces() -> None:
    assert kinds(f"tel=010+1234+5678&name={quote('김')}+{quote('철수')}", names=["김철수"]) == {"phone", "name"}
    assert kinds("https://here/?id=900101+1234568") == {"resident_number"}
    assert kinds("tel=%2B82+10+1234+5678") == kinds("tel=+82+10+1234+5678") == {"phone"}
    assert kinds("010 + 1234 + 5678") == kinds("010+1234+5678") == set()


def test_numbers_from_abroad_are_seen() -> None:
    assert kinds("t 0082-2-123-4567") == kinds("0x0082 0212345678") == {"phone"}


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


def test_long_text_takes_no_time() -> None:
    """A second of the processor each, or less. A pattern that goes over its text again and again takes five at the least."""
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
        "국민 3만원 ", "은행 3만원,", "은행 3만 5천원\n", "하나 3 원 ", "(02) 555-1234 ", "02) 555", "031 123 4567 9\n",
    ]  # fmt: skip
    for text in (
        *((piece * 40_000)[:40_000] for piece in pieces),
        "4111 1111 1111 1112 " * 5_000,
        "1.23456 card " * 3_000,
        "".join(f"{at}.9876543\n" for at in range(1, 1_000)) * 4,
        "sk-1" + "a" * 40_000,
        *(f"{start}{' ' * 40_000}1" for start in ("010", "계좌", "de89", "+1")),
        *(f"{start}{piece * 30}!" for start in STARTS for piece in ("-1", ".a", " - 1", "_1a", " 1", "1-", "- \n")),
    ):
        started = time.process_time()
        pii.find(text, names=["김철수", "O'Brien", "Project Moat"])
        assert time.process_time() - started < 5, text[:20]


def test_names_become_patterns_once_however_many_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than `re` keeps."""
    of_moats = [f"moat{at}" for at in range(600)]
    assert not holds_name("a castle", of_moats)
    monkeypatch.setattr("re.compile", None)
    assert holds_name("a castle, and moat599", of_moats)


def test_every_kind_has_words_for_people() -> None:
    assert set(pii.KIND_TITLES) == set(pii.KINDS) == {*pii.FINDERS, "name"}
