"""Korean number plates (`123가 4567`, `서울 31바 1234`).

What this does not cover: plates of motorcycles, of diplomats and of other countries, and those whose halves stand in two cells.
"""

from __future__ import annotations

import re

from nomoat.route.pii.numbers import has_word_before

# Of plates: private cars, those for hire (허하호), of firms that carry (바사아자, 배) and of the forces.
LETTERS = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주바사아자허하호배육해공국합"
# `12조 3456`, `50자 1000`: such letters need a word if blanks are beside them, and so does what two lines part.
COUNTERS = "도로보오조구두부수주호배자사해국무"
FOR_HIRE = "바사아자배"  # of taxis, buses and lorries, behind a region
REGIONS = "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주"
COUNTED = (  # but `12가3456조회`, `배차`, `개인`; and what is told of numbers
    r"(?!\d|[.~-]\d|[십백천만억건kKm%]|조(?!회)|원(?!상)|명(?!의)|개(?!인)|회(?![원사])|년(?!식)|배(?![차송달])|세대|가구|미터|킬로|보[다단]"
    r"|의\s?(?:약수|배수|인수|절반)|[을를]\s?(?:넘|나[누눈눌]))"
)
PLATE = re.compile(
    rf"\d(?<![\dA-Za-z][.~-]\d)(?<![\dA-Za-z-]\d)\d{{1,2}}(?P<blank>[^\S\n]?)(?P<letter>[{LETTERS}])(?P<gap>[^\S\n]{{0,2}}|[-\n])"
    rf"(?P<last>\d{{4}}){COUNTED}"
)
REGION = re.compile(rf"(?:{REGIONS})\s?\Z")
CAR = re.compile(
    r"차량|번호판|차\s?번호|주차|차주|자동차|승용차|승합차|화물차|트럭|택시|버스|렌[터트]카|대차|입차|출차|견인|접촉\s?사고|블랙박스|차\s?(?:좀\s?)?빼"
)
NAMED = re.compile(r"번호판|차량?\s?번호")
ROUND = re.compile(r"(?:19|20)\d\d|\d\d00")
# Cases of courts were called so until 1999: `98다4321`. Right beside it, whatever they are about.
CASE_YEAR = re.compile(r"[4-9]\d\D")
CASE_BEFORE, CASE_BEHIND = re.compile(r"(?:선고|법원|지법|고법|판례|\d자)\s?\Z"), re.compile(r"\s?(?:전원합의체\s?)?(?:판결|결정)")
THOUSANDS = re.compile(r"\d,\d{3}\D")  # `1,234가 5678`
CASE = re.compile(r"판결|결정|선고|사건|판례|대법|법원|항소|상고|재판|헌재|헌마|헌바")
REACH = 60  # characters to each side


def holds_number_plate(text: str) -> bool:
    """Its form alone where nothing else looks like it; a word of cars near it, or a region before it, elsewhere."""
    return not text.isascii() and any(map(_is_plate, PLATE.finditer(text)))


def _is_plate(found: re.Match[str]) -> bool:
    text, (start, end) = found.string, found.span()
    near = text[max(0, start - REACH) : end + REACH]
    is_apart = bool(found["blank"] or found["gap"])
    is_counted = THOUSANDS.search(text, max(0, start - 2), end) is not None
    may_be_count = is_apart and (found["letter"] in COUNTERS or found["gap"] == "\n" or is_counted)
    is_in_region = REGION.search(text, max(0, start - 3), start) and not (may_be_count and found["letter"] not in FOR_HIRE)
    may_be_case = CASE_YEAR.match(text, start) is not None
    is_case = may_be_case and (has_word_before(CASE_BEFORE, text, start) or CASE_BEHIND.match(text, end))
    if is_case and not is_apart:
        return False
    # A round count, or where a row ends with a flat and the next one begins with a number: `101호\n1002`.
    needs_name = may_be_count and (ROUND.fullmatch(found["last"]) or (found["gap"] == "\n" and found["letter"] == "호"))
    if is_in_region or (NAMED if needs_name else CAR).search(near):
        return True
    return not (found["blank"] or may_be_count or (may_be_case and CASE.search(near)))
