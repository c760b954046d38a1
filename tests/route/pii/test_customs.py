"""Personal customs codes. None here is anyone's."""

from __future__ import annotations

import pytest
from private_kinds import kinds


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
