"""Names of Korean cities, provinces and districts behind which a road or a quarter with a number is an address."""

from __future__ import annotations

import re
from collections.abc import Iterable

METROPOLITAN = "서울 부산 대구 인천 광주 대전 울산 세종"
PROVINCES = """
    경기도 강원도 강원특별자치도 충청북도 충청남도 충북도 충남도 전라북도 전북도 전북특별자치도 전라남도 전남도 경상북도
    경상남도 경북도 경남도 제주도 제주특별자치도
"""
CITIES = """
    수원 성남 고양 용인 부천 안산 안양 남양주 화성 평택 의정부 시흥 파주 김포 광명 군포 하남 오산 이천 안성 의왕 양주 포천
    여주 동두천 과천 구리 춘천 원주 강릉 동해 태백 속초 삼척 청주 충주 제천 천안 공주 보령 아산 서산 논산 계룡 당진 전주
    군산 익산 정읍 남원 김제 목포 여수 순천 나주 광양 포항 경주 김천 안동 구미 영주 영천 상주 문경 경산 창원 진주 통영 사천
    김해 밀양 거제 양산 제주 서귀포
"""
COUNTIES = """
    가평 양평 연천 홍천 횡성 영월 평창 정선 철원 화천 양구 인제 고성 양양 보은 옥천 영동 증평 진천 괴산 음성 단양 금산 부여
    서천 청양 홍성 예산 태안 완주 진안 무주 장수 임실 순창 고창 부안 담양 곡성 구례 고흥 보성 화순 장흥 강진 해남 영암 무안
    함평 영광 장성 완도 진도 신안 의성 청송 영양 영덕 청도 고령 성주 칠곡 예천 봉화 울진 울릉 군위 의령 함안 창녕 남해 하동
    산청 함양 거창 합천 강화 옹진 기장 달성 울주
"""
DISTRICTS = """
    종로 용산 성동 광진 동대문 중랑 성북 강북 도봉 노원 은평 서대문 마포 양천 강서 구로 금천 영등포 동작 관악 서초 강남 송파
    강동 영도 부산진 동래 해운대 사하 금정 연제 수영 사상 수성 달서 미추홀 연수 남동 부평 계양 제물포 영종 검단 광산 유성
    대덕 장안 권선 팔달 영통 수정 중원 분당 덕양 일산동 일산서 처인 기흥 수지 만안 동안 상록 단원 원미 소사 오정 상당 서원
    흥덕 청원 동남 서북 완산 덕진 의창 성산 마산합포 마산회원 진해 만세 효행 병점 동탄 서해
"""
SIDES = "중구 동구 서구 남구 북구"  # districts of several cities
# Without `시`, `도` or `구`, and no other words than that.
SHORT = """
    경기 강원 충북 충남 전북 전남 경북 경남 제주 수원 성남 용인 부천 안산 안양 남양주 평택 의정부 파주 김포 광명 군포 하남
    춘천 원주 강릉 속초 청주 충주 천안 아산 전주 군산 익산 목포 여수 순천 포항 경주 구미 창원 김해 거제 서귀포 종로 용산
    동대문 노원 은평 서대문 마포 구로 영등포 관악 서초 강남 송파 해운대 부평 분당 일산 판교 기흥
"""
WELL_KNOWN = frozenset(f"{METROPOLITAN} {SHORT}".split())
FULL = (
    *PROVINCES.split(),
    *(f"{name}{kind}" for name in METROPOLITAN.split() for kind in ("시", "특별시", "광역시", "특별자치시", *SIDES.split())),
    *(f"{name}시" for name in CITIES.split()),
    *(f"{name}군" for name in COUNTIES.split()),
    *(f"{name}구" for name in DISTRICTS.split()),
)


def _any_of(names: Iterable[str], before: str = "", behind: str = "") -> str:
    """A pattern of any of the names, the longest first. Each alternative begins with another letter, so that `re` tries few of them.

    `before` stands behind that letter, whose place there `%s` takes.
    """
    ends: dict[str, list[str]] = {}
    for name in sorted(set(names), key=len, reverse=True):
        ends.setdefault(name[0], []).append(name[1:])
    return "|".join(f"{first}{before.replace('%s', first)}(?:{'|'.join(rest)}){behind}" for first, rest in ends.items())


OWN_WORD = r"(?<![\uac00-\ud7a3]%s)"
PLACE = re.compile("|".join((_any_of(FULL), _any_of(SIDES.split(), OWN_WORD), _any_of(WELL_KNOWN, OWN_WORD, r"(?=[\s,])"))))
ROMAN = "Seoul|Busan|Daegu|Incheon|Gwangju|Daejeon|Ulsan|Sejong|Jeju|Korea"
