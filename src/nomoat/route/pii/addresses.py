"""Postal addresses: a house number, and a place beside it or a word that says what it is.

What this does not cover: places without a house number, addresses abroad but for English, German and French ones, those in Chinese and
Japanese characters, farms and other houses that have a name alone.
"""

from __future__ import annotations

import re

from nomoat.route.pii.numbers import CELLS, NEXT_KEY, has_word_before
from nomoat.route.pii.places import PLACE, ROMAN, WELL_KNOWN
from nomoat.route.pii.sought import led
from nomoat.route.pii.zips import STATES, ZIP, state_and_zip

HANGUL = r"[\uac00-\ud7a3]"
APART = rf"(?:{NEXT_KEY}|{CELLS}|\s{{0,3}})"
# A house's number, and what may follow it: no counter (`3개`, `2 명`), no date, amount or range.
COUNTERS = (
    "개|명|원|년|월|일|시|분|초|시간|번|차|차선|층|회|곳|대|점|위|가지|종|건|배|살|세|인|권|장|잔|병|그릇|마리|채|호선|호점|주|주년|박|만|억|천"
    "|퍼센트|미터|킬로|세대|가구|평|동|단지|년대|개월|부|편|화|팀|쪽|페이지|대로|코스|구간|호"
)
UNITS_OF_SIZE = r"(?:km|m|cm|mm|kg|g|x|%|℃)(?![A-Za-z])"
PARTICLES = (  # `종로 3가` is a quarter, `역삼동 35도` warm; the last are the plain letters of `ㅋㅋ` and `ㅠㅠ`
    r"번지|에서|에|으로|로|까지|부터|입니[다당]|이(?![상하내후전닝]|\s?넘)|예요|야|인데|의|은|는|을|를|요|세요|라[고는서]|랍니다|래요|랑|니까|네요|죠|거든요|였|인[가지]"
    r"|인\s(?:집|건물|곳)|신가요|(?:(?<!\D\d)가|(?:(?<=\d\d\d)|(?<=-\d)|(?<=-\d\d)|(?<=[로길]\s\d)|(?<=[로길]\s\d\d))도|[와과염임])(?!\w)|임[다당]|하고|[구고]요|한테|쪽(?:으로|에)|뒤(?:에|로|쪽|편)|건너편|앞|옆|근처|맞은편|건물|지하|맞[아습죠나]|[\u1100-\u11ff]"
)
NUMBER_ENDS = (
    rf"(?!\d|[.:/~-]\d|,\d{{3}}(?![\d동호층])|\s?(?:%|~(?=\s?\d))|\s(?:{COUNTERS})(?:[을를이가은는의에도만]|씩|으로|까지|부터)?(?!{HANGUL})|\s{UNITS_OF_SIZE})"
    rf"(?:(?={PARTICLES})|(?!\w))"
)
# A lot on a hill: `산 58`. What touches the word is a hill's name (`지리산 3`), but before `12-1` or `12번지`.
HILL = rf"(?:(?P<hill>(?<!{HANGUL})산)|(?<!부동)산(?=[^\S\n\t]?\d{{1,5}}(?:-\d|번지)))"
ITS_NUMBER = rf"(?:(?:지하|{HILL})[^\S\n\t]?)?(?P<number>[1-9]\d{{0,4}}(?:-\d{{1,4}})?){NUMBER_ENDS}"
BRANCH = rf"(?P<branch>\s?\d{{1,4}}번?{HANGUL}?길)?"  # `12길`, `289번길`
ITS_NAME = rf"{HANGUL}(?:{HANGUL}|\d){{0,9}}?(?:\s\d{{1,2}})?"
ROAD = rf"(?P<road>{ITS_NAME}[로길]){BRANCH}"
# Behind a place it may begin otherwise: `2순환로`, `4.19로`, `63로`, `APEC로`. So does what is counted: `2위로`.
BEGINS = r"(?:[1-9]\d{0,3}(?:[.\u00b7]\d{1,2})?|APEC|LS)"
ANY_ROAD = rf"(?P<road>(?:{BEGINS}(?:{ITS_NAME})?|{ITS_NAME})[로길]){BRANCH}"
QUARTER = rf"(?:{HANGUL}{{1,5}}(?:\s?\d{{1,2}})?[읍면동리]|{HANGUL}{{1,4}}\d?신도시)"
LOT = rf"(?P<lot>{HANGUL}{{1,5}}(?:(?:\s?\d{{1,2}})?[동리]|\s?\d가))"
BEHIND_PLACE = re.compile(rf"{APART}(?:{QUARTER}{APART}){{0,2}}?(?:{ANY_ROAD}|{LOT}){APART}{ITS_NUMBER}")
ALONE = re.compile(rf"(?<![\uac00-\ud7a3\d])(?:{ROAD}|{LOT})\s{{0,2}}{ITS_NUMBER}")
# Everyday words that end as roads and quarters do. No road ends in `-으로`.
ROAD_LIKE = """
    가로 세로 서로 바로 따로 새로 별로 주로 때로 홀로 날로 실로 절로 그리로 이리로 저리로 대로 그대로 이대로 저대로 제대로
    멋대로 맘대로 마음대로 뜻대로 별도로 절대로 실제로 정말로 진짜로 스스로 함부로 대체로 차례로 억지로 의외로 최초로 최대로
    최소로 무료로 유료로 추가로 전체로 하루로 하나로 도로 통로 진로 피로 위로 아래로 뒤로 어디로 여기로 거기로 순서대로
    예정대로 내로 외로 결과로 대표로 후로 이후로 이유로 평가로 별개로 임의로 차로 도보로 말로 글로 종류로 번호로 단위로
    주소로 가로세로 팩스로 카카오로 소포로 서비스로 퀵서비스로 달러로
    컬러로 화이트로 가로로 세로로
    등산로 산책로 가는길 오는길 둘레길 올레길 기준로 결승골로 동점골로 선제골로 역전골로 추가골로 만회골로 쐐기골로 자책골로 데뷔골로
"""
LOT_LIKE = """
    운동 활동 행동 이동 노동 감동 아동 공동 변동 자동 작동 합동 충동 진동 동동 연동 가동 구동 출동 선동 소동 유동 율동 수동
    능동 파동 우리 거리 자리 처리 관리 정리 요리 소리 머리 빨리 멀리 권리 원리 심리 수리 물리 논리 분리 금리 승리 유리 다리
    허리 병리 격리 대리 무리 마리 도리 미리 냉동 카테고리 스토리 히스토리 메모리 배터리 갤러리 라이브러리
    쿼리 트리 엔트리 디렉터리 디렉토리 리포지터리 리포지토리 딕셔너리 바이너리 팩토리 인벤토리
"""
NO_ROADS, NO_LOTS = frozenset(ROAD_LIKE.split()), frozenset(LOT_LIKE.split())
NO_ROADS_END = re.compile(r"(?:으|[역구군도형체대시동월년령관점교급종류]별|경|서버|포트|푸시|메일|문자|슬랙|채널)로\Z")  # no `샛별로`
ROADS_OF_TABLES = re.compile(r"(?:도로|[근굣]길|산책로|기찻길)\Z")  # with a count in the next cell
COUNTED_ROADS = re.compile(
    rf"\A\d[\d.\u00b7]*[십백천만억]{{0,2}}(?:{COUNTERS}|번째|순위|등급?|단계|학년|학기|분기|회차|주차|년차|퍼|프로|포인트|달러|유로|센티|리터|자리|칸|줄"
    rf"|타수?|인가구|루|승|패|연패|라운드|급|교시|인치|호기|개소|위권|배수|성급{HANGUL}*)(?:째|당|대|도|쯤)?(?<![.\u00b7]\d대)(?<![.\u00b7]\d\d대)[로길]\Z"
    r"|\A\d로\Z"
)
NO_LOTS_END = ("활동", "아동", "처리", "관리")
NO_HANGUL = re.compile(r"\A[^\uac00-\ud7a3]+")
IN_A_YEAR = re.compile(r"(?:19|20)\d\d-")
SAID = re.compile(
    r"주소|배송지|수령지|지번|거주|사는\s?[곳데집]|살고|살아|사시는|우리\s?집|저희\s?집|자택|본가|소재지|받는\s?곳|배달|택배|본적"
    r"|(?<![A-Za-z])(?<!(?i:ip|ac)\s)(?i:addr(?:ess)?)"
)
LIVE, SEND = "살고|살아|사는|삽니다|거주", "배송|배달|택배|보내|발송|부[쳐치]|수령"
SAID_BEHIND = re.compile(rf"[^\d\n]{{0,6}}?(?:{LIVE}|{SEND}|주소|앞에\s?[두놓놔])")
AT_OR_TO = re.compile(  # what something is set to proves nothing: `타임아웃을 임시로 30으로 변경`
    rf"\s?(?:에서?|으?로)\s?[^\d\n]{{0,6}}?(?:{LIVE})|(?:\s?에서?|으?로)\s?[^\d\n]{{0,6}}?(?:{SEND})"
    r"|\s?에\s?[^\d\n]{0,6}?(?:사무실|매장|가게|회사|집|학원|공장|창고)[이가도]?\s?있"
    r"|으?로\s?[^\d\n]{0,6}?주소[를도]?\s?(?:변경|바[꿔꾸꿀]|수정)"
)
AT_OR_TO_FIRST = re.compile(  # where nothing stands before it: no `견적서를 카카오로 3 로 보내`
    rf"\s?(?:에서?|앞?으?로)\s?[^\d\n]{{0,6}}?(?:{LIVE}|{SEND}|받을게|받겠|받으[면려])"
)
BEGINNING = re.compile(r"(?:\A|[\n.!?]|안녕하세요,)[^\S\n]{0,3}(?:(?:(?:제|내|우리|저희)\s)?(?:물건|짐)[은을]\s)?\Z")
# Of a wing, before its floor: `연구동 3-1, 2층`; words that end in `리` are as many.
ROOM = re.compile(r"\d-\d")
WING = re.compile(
    r"리\Z|(?:연구|강의|실험|행정|기숙사|생활관?|병|사무|업무|관리|공장|생산|작업|창고|물류|상가|주차|교육"
    r"|실습|전시|진료|외래|입원|식당|도서관|기계|복지|체육|별관?|신관|본관?|측)동\Z"
)
NUMBERED = re.compile(r"\s\d{1,2}로\Z")  # `프로그램 2로 3길 10`
# Behind a quarter: years, and one year before what is told of it.
YEARS_BEHIND = re.compile(r"(?:19|20)\d\d-(?:19|20)\d\d|(?:199|20[0-3])\d")
WORD_BEHIND = re.compile(rf"[^\S\n]{{1,3}}{HANGUL}|[와과랑도]|하고|였")
NEXT_FIELD = re.compile(rf"{NEXT_KEY}|\s?\|\s?")
CELL_BEGINS = re.compile(r"(?:\A|[\n|])[\s(*>-]{0,16}(?:\d{5}\)?\s)?\Z")  # of a list, too; and behind a postcode
COUNTED_BY = re.compile(  # with a count in a cell beside a place: `분기별로 4`, `버스로 40`; no `샛별로`, `캠퍼스로`
    r"(?:(?<![샛새한큰])별|[버박]스|(?:지하|전)철|(?:기|자동|전|열|승용|화물)차)로\Z"
)
QUARTER_BEHIND = re.compile(rf"\s?\((?!(?:{'|'.join(LOT_LIKE.split())})[,)\s]){QUARTER}[,)\s]")
OTHER_CELL = re.compile(r"[\t\n,|:;]")
# A flat: alone where such a word is beside it, and behind the name of a block of flats.
FLAT_ENDS = r"호(?![기선차봉점])"
FLAT = rf"(?<![\dA-Za-z])(?:\d{{1,4}}|[A-F가나다라마바])동\s{{0,3}}(?:지하\s?)?\d{{1,4}}{FLAT_ENDS}"
FLATS = re.compile(FLAT)
HOUSES = "아파트|(?i:apt)|빌라|맨션|오피스텔|연립|자이|래미안|푸르지오|힐스테이트|캐슬|더샵|편한세상|아이파크|하이츠|주공"
BLOCK = f"{HOUSES}|타운|단지"
HOME_BEHIND = re.compile(  # behind what may be a house's number, or a year: where it ends, or goes on to someone
    rf"\s?번지|\s(?:우리|저희|제)\s?집|\s{HANGUL}{{2,4}}\s앞(?![^\S\n]?{HANGUL})"
    rf"|\s{HANGUL}{{1,10}}?(?:{HOUSES}|빌딩|하우스|원룸|상가)(?:(?:으?로|에)\s|(?:입니다|이?에요|예요)?(?![^\S\n]?{HANGUL}))"
    r"|\s?(?:입니다|이[에예]요|예요)|\s(?:근처|부근|인근|옆|맞은편|건너편|앞에서|소재|외\s?\d|토지|건물|우편물)"
    rf"|\s(?:아파트|원룸|빌라)(?![^\S\n]?{HANGUL})"
)
IN_BLOCK = re.compile(
    rf"(?:{BLOCK})\.?[\s,]{{0,3}}(?:\d{{1,2}}(?:차|단지)[\s,]{{0,3}}|\([^()\d\n]{{1,12}}\)\s?)?"
    rf"(?:{FLAT}|[1-9]\d{{2,3}}{FLAT_ENDS}|(?!(?:19|20)\d\d-(?:19|20)\d\d)[1-9]\d{{2,3}}-[1-9]\d{{2,3}}{NUMBER_ENDS})"
)
FLAT_BEHIND_PLACE = re.compile(  # behind any name; no ranges such as `100-150`
    rf"{APART}(?:{QUARTER}{APART}){{1,2}}?(?:(?:{HANGUL}|[A-Za-z]){{1,12}}\s){{1,2}}?"
    rf"(?:{FLAT}|[1-9](?!00)\d\d-[1-9]\d?(?!00)[0-2]\d{NUMBER_ENDS})"
)
UNIT_BEHIND = re.compile(
    rf"(?:[\s,]{{1,3}}|(?=\())(?:\([^()\n]{{1,20}}\)[\s,]{{0,3}})?(?:{HANGUL}{{2,10}}[\s,]{{1,3}})?\(?"
    rf"(?:{FLAT}|(?:(?:지하\s?)?[1-9]\d{{2,3}}|[Bb]\d{{1,3}}){FLAT_ENDS}|(?P<floor>(?:지하\s?|[Bb])?[1-9]\d?층)|반지하|옥탑)"
)

# Abroad, and Korean addresses in Latin letters.
START = r"(?<![\w$£€#/-])(?<!\d[.,:])"
NO_YEAR = rf"{START}(?!(?<=[Ii]n\s)(?:19|20)\d\d\s)"
HOUSE = rf"(?P<number>{led('[1-9]', NO_YEAR)}\d{{0,4}}+(?:-\d{{1,4}}+)?+[A-Za-z]?+),?+\s{{1,2}}+"
USUAL = "street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|terrace"
KINDS = f"{USUAL}|court|ct|way|place|pl|square|sq|crescent|close|parkway|pkwy|highway|hwy|circle|cir|loop|mews|row|gardens|grove|quay"
NAME = r"[A-Z](?:[\w.-]|'(?=\w)){0,18}"
SIDE = r"(?:\s(?:[NS][EW]?|[EW])(?!\w)\.?)?"
NO_NAME = "The|A|An|And|Of|In|On|My|Your|His|Her|Their|Our|This|That|Best|Top"
THINGS = re.compile(  # named as streets are, with a number before them
    r"\s(?:(?:hard|flash|disk|tape|usb|external|wheel|google|test|line|blood|food)\sdrive|(?:supreme|food|tennis|basketball)\scourt"
    r"|(?:mean|chi|latin|magic)\ssquare|(?:first|second|third|last)\splace|(?:for|while|event)\sloop|(?:front|header|data)\srow"
    r"|(?:milky|one)\sway|bedroom\sterrace)\Z",
    re.IGNORECASE,
)
STREET = re.compile(
    rf"{HOUSE}(?!(?:{NO_NAME})\s)(?:(?:(?:{NAME}|\d{{1,3}}(?:st|nd|rd|th))\s{{1,2}}){{1,4}}?(?i:{KINDS})|Broadway)(?!\w)\.?{SIDE}"
)
NO_STREET = (
    "the|an?|of|in|on|at|to|from|my|your|his|her|our|their|down|up|by|and|or|for|with|is|was|are|off|per|away|more|other|different|new|old|long"
    "|min(?:ute)?s?|miles?|hours?|hrs?|days?|weeks?|months?|years?|yrs?|blocks?|houses?|doors?|streets?|kilometers?|kms?|people|items?|times?|lanes?"
)
STREET_IN_ANY_CASE = re.compile(
    rf"{HOUSE}(?:(?!(?:{NO_STREET})\s)[a-z][a-z'.-]{{1,18}}\s{{1,2}}){{1,2}}?(?:{USUAL})(?!\w)\.?{SIDE}", re.IGNORECASE
)
CANADIAN = r"[A-Z]\d[A-Z]\s?\d[A-Z]\d"
POSTCODE = (  # of the United Kingdom, Canada, Australia, as written behind a street
    rf"(?:[A-Z]{{1,2}}\d[A-Z\d]?\s?\d[A-Z]{{2}}|{CANADIAN}|(?:NSW|VIC|QLD|WA|SA|TAS|ACT|NT)\s\d{{4}})(?!\w)"
)
TOWN = rf"(?:{NAME}[,\s]{{1,3}})"
HOUSE_UNIT = r"[,\s]{1,3}(?:(?:apt|apartment|suite|ste|unit|flat|floor|room|rm)(?![A-Za-z])[.\s]{0,2}#?|#\s?)(?:[A-Z]?\d|[A-Z](?!\w))"
PLACE_BEHIND = re.compile(
    rf"(?i:{HOUSE_UNIT})|[,\s]{{1,4}}(?:{TOWN}{{1,4}}?(?:{STATES})(?!\w)|{TOWN}{{0,4}}?(?:{ZIP}|{POSTCODE}))"
    rf"|(?:\s?,\s?|\s?\n\s?|[\"']\s?[,;]\s?[\"']|\s?[|\t]\s?)(?:{NAME}\s){{0,2}}{NAME}(?=[,;:!?)\n\"'|\t]|\s?\Z)"
)
ZIP_BEHIND = re.compile(
    rf"[,\s]{{1,3}}(?:[a-z.'-]{{2,18}}[,\s]{{1,3}}){{0,4}}?(?:(?:{STATES})[,\s]{{1,3}}{ZIP}|{POSTCODE})", re.IGNORECASE
)
SAID_ABROAD = re.compile(
    r"(?<![^\W_])(?:addr(?:ess(?:es)?)?|liv(?:es?|ed|ing)|resid(?:es?|ed|ing|ence)|ship(?:s|ped|ping)?|deliver(?:s|ed|y)?|mail(?:ed|ing)?|send|sent"
    r"|home|moved|billing|located|(?:i'm|i\sam)\sat|pick\s\w{2,4}\sup|street[\"']?\s?[:=]|addr(?:ess)?(?:_?line)?_?\d)(?![^\W_])",
    re.IGNORECASE,
)
KOREAN_ROAD = (
    r"(?:[A-Z][\w'.-]{0,20}\s){0,3}?[A-Za-z][A-Za-z\d]{0,20}(?:-(?:ro|daero|gil|dong|ri)|daero)(?!\w)"
    r"(?:\s?\d{1,4}(?:beon|[a-z]{1,2})?-?gil)?"
)
KOREAN_PLACE = rf"(?:[A-Z][a-z-]{{1,20}}-(?:gu|si|gun|do|eup|myeon|dong)(?!\w)|{ROMAN})"
# Behind any name, with all of it there: a town, a state and its ZIP, or a postcode as it is given out. No sizes such as `S5 2GB`.
# Up to the next part, which begins with none of its signs, and each way tried once: a part of an address is often none, and there are
# eight of these.
APART_ABROAD = rf"(?:(?>(?:[,\s]{{1,3}}|[\s\"']{{0,3}}[,;|\n][\s\"']{{0,9}})(?![\s\"',;|]))|(?>{NEXT_KEY}))"
WHOLE_POSTCODE = (
    r"(?:(?:[BEGLMNSW]|[A-PR-UWYZ][A-HK-Y])\d[A-Z\d]?\s?\d(?![GT]B)[ABD-HJLNP-UW-Z]{2}"
    rf"|{CANADIAN}"
    r"|(?:(?:NSW|ACT)\s2|VIC\s3|QLD\s4|SA\s5|WA\s6|TAS\s7|NT\s0)\d{3})(?!\w)"
)
PART = rf"(?:(?:{NAME}|#?\d{{1,4}}[A-Za-z]?(?![\w-])|upon|on|of|the|by|under|del?|la|le){APART_ABROAD})"
ANY_NAME = rf"(?!(?:{NO_STREET})\s)[a-z](?:[\w.-]|'(?=\w)){{0,18}}"
KOREAN_ENDS = re.compile(r"-(?:ro|daero|gil|dong|ri)|daero")
TOWN_ENDS = re.compile(r"\d{5}\s[A-ZÄÖÜÉ]")
IN_TOWNS = (
    re.compile(rf"{HOUSE}(?:{NAME}{APART_ABROAD}){{2}}(?:{PART}{{1,8}}?{state_and_zip(APART_ABROAD)}|{PART}{{0,8}}?{WHOLE_POSTCODE})"),
    re.compile(  # in any case
        rf"{HOUSE}(?:{ANY_NAME}\s{{1,2}}){{1,3}}?{ANY_NAME}(?:{HOUSE_UNIT}\w{{0,4}})?(?:,\s{{0,2}}|\s?\n)(?:(?:(?:new|old|long)\s)?{ANY_NAME}{APART_ABROAD}){{1,4}}?"
        rf"{state_and_zip(APART_ABROAD)}",
        re.IGNORECASE,
    ),
)
# Of all that begins with a house's number, with what has to stand behind it or a word before it; and where such a number is, before a
# word: few numbers are, and what is looked for at once in a long text, in one call of `re`, keeps all other threads waiting.
OF_HOUSES: tuple[tuple[re.Pattern[str], re.Pattern[str] | None], ...] = (
    *((STREET, PLACE_BEHIND), (STREET_IN_ANY_CASE, ZIP_BEHIND)),
    *((pattern, None) for pattern in IN_TOWNS),
)
HOUSE_NUMBERS = re.compile(
    rf"{led('[1-9]', START)}\d{{0,4}}+(?:-\d{{1,4}}+)?+[^\W\d_]?+,?+\s{{1,2}}+(?=(?i:[a-z])|\d{{1,3}}(?:st|nd|rd|th))"
)
# That of the Free Software Foundation, as files of many others name it in their licence's notice.
TO_TOWN = r"(?!\w)[\w\s,.*#/;-]{1,50}?"
OF_LICENCES = re.compile(
    rf"(?:(?:51\s+Franklin|59\s+Temple){TO_TOWN}Boston|675\s+Mass{TO_TOWN}Cambridge)[\s,*#/;]{{1,9}}MA[\s*#/;]{{1,9}}021\d\d(?:-\d{{4}})?(?![\d-])"
)
OTHERS = (
    re.compile(r"(?<![A-Za-z])P\.?\s?O\.?\s?Box\s(?:No\.?\s)?\d{1,6}(?!\d)", re.IGNORECASE),
    re.compile(r"사서함\s{0,2}(?:제\s?)?[1-9]\d{0,5}(?:-\d{1,4})?호?(?![\d개])"),
)
KOREAN_IN_LATIN = (
    re.compile(rf"{led('[0-9]', START)}\d{{0,4}}(?:-\d{{1,4}})?,?\s{{1,2}}{KOREAN_ROAD}[,\s]{{1,3}}{KOREAN_PLACE}"),
    re.compile(rf"{KOREAN_PLACE}[,\s]{{1,3}}{KOREAN_ROAD},?\s\d{{1,5}}(?![\d.:%])"),
    re.compile(rf"(?<![\w-]){KOREAN_ROAD}\s(?!(?:19|20)\d\d(?!\d))[1-9]\d{{0,4}}(?:-\d{{1,4}})?,\s{{1,2}}{KOREAN_PLACE}"),
)
EUROPEAN = (
    re.compile(  # German
        r"(?<!\w)(?:[A-ZÄÖÜ](?:[\w.-]{0,30}?\s?(?i:stra(?:ß|ss)e|str\.)|[\w-]{1,30}?(?:weg|platz|allee|gasse|damm|ufer|markt|ring))"
        r"|(?:Am|Im|Zum|Zur|An\sde[rmn]|Auf\sde[rmn]|Unter\sden)\s[A-ZÄÖÜ]\w{1,20})\s?\d{1,4}(?:\s?[-/]\s?\d{1,4})?\s?[a-z]?,?\s{1,2}(?:DE?-)?\d{5}\s[A-ZÄÖÜ]"
    ),
    re.compile(  # French
        rf"{led('[1-9]', START)}\d{{0,3}}(?:\s?(?:bis|ter|[A-D](?=\s)))?,?\s"
        r"(?i:rue|avenue|av\.|boulevard|bd|place|allée|chemin|impasse|quai|cours|route)\s"
        r"[^\d\n]{2,40}?[,\s]{1,3}\d{5}\s[A-ZÉ]"
    ),
)


def holds_address(text: str) -> bool:
    text = OF_LICENCES.sub("!", text)
    others = (*OTHERS, *(KOREAN_IN_LATIN if KOREAN_ENDS.search(text) else ()), *(EUROPEAN if TOWN_ENDS.search(text) else ()))
    return _holds_korean(text) or _holds_house(text) or any(pattern.search(text) for pattern in others)


def _holds_korean(text: str) -> bool:
    if text.isascii() and "apt" not in text.lower():  # of what is in Latin letters, only blocks of flats are called so
        return False
    for place in PLACE.finditer(text):
        found = BEHIND_PLACE.match(text, place.end())
        if (found and _is_in(place[0], found)) or FLAT_BEHIND_PLACE.match(text, place.end()):
            return True
    if any(_is_said(found) for found in ALONE.finditer(text) if _may_be_one(found)):
        return True
    flats = FLATS.finditer(text)
    return IN_BLOCK.search(text) is not None or any(
        has_word_before(SAID, text, flat.start()) or SAID_BEHIND.match(text, flat.end()) for flat in flats
    )


def _is_in(place: str, found: re.Match[str]) -> bool:
    """Whether it is an address behind that place. A number in another cell than its road or quarter may be of anything."""
    apart = found.string[found.end("road" if found["road"] else "lot") : found.start("number")]
    is_other_cell = OTHER_CELL.search(apart) is not None
    if is_other_cell and found["road"] and ROADS_OF_TABLES.search(found["road"]):
        return False
    if place in WELL_KNOWN or is_other_cell:
        return _may_be_one(found) and _is_plain(found)
    if found["lot"] and _is_year(found):
        return False
    # There are quarters such as `연동`, which are words elsewhere.
    return _may_be_one(found) or (bool(found["lot"]) and _is_plain(found) and not IN_A_YEAR.match(found["number"]))


def _is_year(found: re.Match[str]) -> bool:
    text, end = found.string, found.end()
    if not YEARS_BEHIND.fullmatch(found["number"]) or text.startswith("번지", end):
        return False
    if "-" in found["number"]:
        return True
    is_home = any(behind.match(text, end) for behind in (UNIT_BEHIND, HOME_BEHIND, AT_OR_TO, AT_OR_TO_FIRST, SAID_BEHIND))
    return WORD_BEHIND.match(text, end) is not None and not is_home and not has_word_before(SAID, text, found.start("lot"))


def _is_said(found: re.Match[str]) -> bool:
    """Whether what stands around it, without a place, says that it is an address."""
    text, end = found.string, found.end()
    if text.startswith("번지", end):
        return True
    if not _is_plain(found):
        return False
    unit = UNIT_BEHIND.match(text, end)
    return bool(
        (unit and not (unit["floor"] and found["lot"] and ROOM.fullmatch(found["number"]) and WING.search(found["lot"])))
        or (found["branch"] and not NUMBERED.search(found["road"]))
        or (found["road"] and (QUARTER_BEHIND.match(text, end) or _is_before_place(found)))
        or AT_OR_TO.match(text, end)
        or (AT_OR_TO_FIRST.match(text, end) and has_word_before(BEGINNING, text, found.start()))
        or has_word_before(SAID, text, found.start())
    )


def _is_before_place(found: re.Match[str]) -> bool:
    """Whether a place stands under the next key, as FHIR has them, or, with its whole name, in the next cell of a road's own."""
    text = found.string
    field = NEXT_FIELD.match(text, found.end())
    place = PLACE.match(text, field.end()) if field else None
    if not (field and place):
        return False
    is_own_cell = has_word_before(CELL_BEGINS, text, found.start()) and not COUNTED_BY.search(found["road"])
    return "|" not in field[0] or (is_own_cell and place[0] not in WELL_KNOWN)


def _may_be_one(found: re.Match[str]) -> bool:
    if found["road"]:
        return not (found["road"] in NO_ROADS or NO_ROADS_END.search(found["road"]) or COUNTED_ROADS.search(found["road"]))
    return found["lot"] not in NO_LOTS and not found["lot"].endswith(NO_LOTS_END)


def _is_plain(found: re.Match[str]) -> bool:
    """Whether it is an address with a short name alone before it, or a word: everyday words look like shorter roads and lots."""
    if found["road"]:
        return len(NO_HANGUL.sub("", found["road"])) > 2 and not found["road"].endswith("기로")
    return "-" in found["number"] or found.string.startswith("번지", found.end()) or found["hill"] is not None


def _holds_house(text: str) -> bool:
    """Whether an English address begins with one of the numbers, as if each pattern were looked for by itself."""
    ends = [0] * len(OF_HOUSES)
    for house in HOUSE_NUMBERS.finditer(text):
        start = house.start()
        for at, (pattern, behind) in enumerate(OF_HOUSES):
            found = pattern.match(text, start) if start >= ends[at] else None
            if found and (behind is None or _is_street(found, behind)):
                return True
            ends[at] = found.end() if found else ends[at]
    return False


def _is_street(found: re.Match[str], behind: re.Pattern[str]) -> bool:
    text, end = found.string, found.end()
    if THINGS.search(found[0].rstrip(".")) and not ZIP_BEHIND.match(text, end):
        return False
    return behind.match(text, end) is not None or has_word_before(SAID_ABROAD, text, found.start())
