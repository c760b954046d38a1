"""Numbers of identity documents. None here is anyone's for all we know."""

from __future__ import annotations

import random
import time

import pytest
from private_kinds import kinds

from nomoat.route import pii
from nomoat.route.pii.documents import holds_identity_document


@pytest.mark.parametrize(
    "text",
    [
        "SSN 123-45-6789",
        "my social security number is 123 45 6789",
        '{"ssn": "123456789"}',
        '{"social_security_number": "123456789"}',
        "name,ssn\nKim,123-45-6789",
        "123-45-6789 (SSN)",
        "여권번호 M12345678",
        "여권번호는 M123A4567입니다",
        "여권 M12345678로 예약",
        "M12345678 (여권번호)",
        "Passport No. M12345678",
        "passport number: 123456789",
        "passport TR1234567",
        '{"passportNo":"M12345678"}',
        "P<KORKIM<<CHULSU<<<<<<<<<<<<<<<<<<<<<<<<<<<<",
        "PMKORKIM<<CHUL<SU<<<<<<<<<<<<<<<<<<<<<<<<<<<",
        "M123456784KOR8001014M3001012<<<<<<<<<<<<<<04",
        "L898902C36UTO7408122F1204159ZE184226B<<<<<10",
        "11-34-567890-12",
        "운전면허 11-12-345678-90",
        "면허번호: 111234567890",
        "driver's license 11-12-345678-90",
        "운전자 김철수 (11-12-345678-90)",
        '{"social_security": "123456789"}',
        "운전면허번호 11 12 345678 90",
        "운전면허: 서울 12-345678-90",
        "Aadhaar 2345 6789 0123",
        "aadhar number: 234567890123",
        "National Insurance number AB123456C",
        "NINO: ab123456c",
        "NINO AB 12 34 56 C",
        "RSSMRA85T10A562S",
        "11010519491231002X",
        "身份证号:11010519491231002X",
        "マイナンバー 1234 5678 9012",
        "個人番号：123456789012",
    ],
)
def test_a_documents_number_is_seen(text: str) -> None:
    assert kinds(text) == {"identity_document"}
    assert kinds(f"안녕하세요.\n{text}\n감사합니다.") == {"identity_document"}


@pytest.mark.parametrize(
    "text",
    [
        "123-45-6789",
        "the social security act of 1935",
        "Social security tax is 6.2 % up to 168600",
        "SSN is AAA-GG-SSSS, of 9 digits",
        "ssn 000-12-3456",
        "여권번호는 M 뒤에 숫자 8자리",
        "여권 파워 192개국, 2024년",
        "여권 접수 2024-01-15 10:30",
        "passport.js 0.6.0 and passport-local 1.0.0",
        "passport renewal costs 130000000 won",
        "passport control at gate B12345",
        "M12345678",
        "운전면허 시험 2024-01-15 10:30",
        "운전면허 갱신 수수료 15000원, 문의",
        "의사 면허 번호 12345",
        "99-12-345678-90",
        "1-11-12-345678-90-1",
        "aadhaar covers 1,300,000,000 people",
        "2345 6789 0123",
        "AB 12 CD 34",
        "DB 12 34 56 C",
        "my_number = 42",
        "my number is 1234 5678 9012",
        "110105194912310021",
        "110105194913310021",
        "vector<MAP<KEY<<2",
        "P<T><<X",
        'echo "PACKAGES<<EOF" >> "$GITHUB_OUTPUT"',
        'echo "PAYLOAD<<EOF" >> $GITHUB_ENV',
        "cat >PROMPT<<EOF",
        "PARAMS<<SQL",
        "PRINTF<<ENDL",
        "JK 85 90 78 B",
        "이름 국어 영어 수학 등급\nKB 95 88 91 A",
        "KT 60 50 34 C",
        "AM 10 20 30 A",
        "문서번호 24-05-000123-01",
        "송장번호 24-11-123456-01",
        "주문번호: 25-01-004512-02",
        "견적서 24-03-000045-01 확인 부탁드립니다",
        "품번 21-10-350012-00",
        "로트 24-05-123456-01 생산",
        "제12-34-567890-12호",
        "주문번호: 12-34-567890-12",
        "면허 갱신 일시 202401151030",
        "운전면허 시험 접수 202405201400",
        "serial ABCDEF12A34B567C",
        "MODELS24A01B001C",
        "deadbe12a34b567c",
        "주문번호 300100202405010007",
        "passport_scan_P1010001.jpg",
        "여권 사진 파일 P1020345.JPG 올렸어요",
        "passport notification id 123456789",
        "Social Security paid out 123456789 dollars",
    ],
)
def test_everyday_words_and_numbers_are_no_documents(text: str) -> None:
    assert kinds(text) == set()


def test_what_stands_in_a_hash_is_no_document() -> None:
    assert kinds("110105194912310003") == {"identity_document"}
    assert kinds("sha 8f14e45fceeaab110105194912310003") == set()


def test_long_numbers_are_hardly_ever_a_chinese_residents() -> None:
    """A date stands in it and the checksum fits. Drawn with a fixed seed: no chance of a false alarm."""
    draw = random.Random(8)
    assert pii.find(" ".join(str(draw.randint(10**17, 10**18 - 1)) for _ in range(2_000)), kinds=["identity_document"]) == ()


def test_long_text_takes_no_time() -> None:
    """A tenth of a second each, or less. A pattern that goes over its text again and again takes five at the least."""
    pieces = (
        "ssn ", "ssn,", "여권 M1234567", "면허 11-12-", "11-12-345678-9", "passport no ", "P<KORA<A<A<<", "P<KORAAAAAAAA<", "A<", "A",
        "1", "AB 12 34 ", "AAAAAA11A11A111", "110105194912310", "2345 6789 ", "aadhaar 2345 6789 ", "my_number\n|",
        "P<KORA<<<", "주문번호: 11-", "RSSMRA85T10A562",
    )  # fmt: skip
    for text in ((piece * 100_000)[:100_000] for piece in pieces):
        started = time.process_time()
        holds_identity_document(text)
        assert time.process_time() - started < 5, text[:20]
