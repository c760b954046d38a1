"""Business registration numbers."""

from __future__ import annotations

import pytest
from private_kinds import kinds


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
        "사업자번호 124-8100998",
        "사업자번호 12481-00998",
        "세금계산서 발행 부탁드려요 1248100998",
        "1248100998 세금계산서",
        "1248100998로 계산서 끊어 주세요",
        "현금영수증 지출증빙용 1248100998",
        "1248100998 (사업자번호)",
        "법인등기: 1248100998 사업자",
        "상호\t대표자\t사업자등록번호\t업태\t종목\t주소\n가나상사\t홍길동\t1248100998",
    ],
)
def test_business_number_with_its_checksum_is_seen(text: str) -> None:
    assert kinds(text) == {"business_number"}


@pytest.mark.parametrize(
    "text",
    [
        "124-81-00999", "주문 1248100998", "사업자번호 1248100999", "124     81     00998", "124-8100998", "세금계산서 1248100999",
        "세금계산서 합계 1248100998원", "요금 계산서비스 문의번호 1248100998", "1248100998 계산서버",
        "소포: 1248100998 사업자",
        "주문번호: 1248100998 계산서 부탁드려요", "계산서는 주문번호 1248100998", "1248100998은 주문번호이고, 금액을 다시 적은 계산서",
    ],
)  # fmt: skip
def test_business_number_needs_its_checksum_and_without_separators_a_word(text: str) -> None:
    assert kinds(text) == set()
