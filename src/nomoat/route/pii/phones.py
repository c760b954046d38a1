"""Phone numbers: mobile ones wherever they stand, others as the library finds them (`phone_matcher`)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from nomoat.route.pii.columns import cells_under
from nomoat.route.pii.numbers import (
    CELLS,
    GAP,
    IN_CELLS,
    LAST_FOLLOW,
    LIKE_KEYS,
    NEXT,
    NEXT_KEY,
    NEXT_LIKE,
    REACH,
    REACH_OF_TABLES,
    SIGN,
    VALUES,
    WON,
    has_word_before,
    without_spaces,
)
from nomoat.route.pii.orders import NO_ORDER, NO_ORDERS_NUMBER
from nomoat.route.pii.sought import Near, has_any, led, small_letters
from nomoat.route.pii.zips import state_and_zip

# The library wants no Latin letter beside a number, nor more digits behind one; a mobile number is one wherever it stands, also as
# `O1O`, and from abroad.
FROM_HERE = r"(?:(?<=\+)|(?<=(?<!\d)(?<!0[Xx])0)0)82"
MOBILE = re.compile(
    rf"[0Oo+](?:(?<=(?<!\d)0)1[016789]|(?<=(?<![A-Za-z0-9])[Oo0])1[Oo0]|{FROM_HERE}{GAP}(?:\(?0\)?{GAP})?1[016789]){GAP}\d{{3,4}}{GAP}\d{{4}}(?!\d)"
)
# As people say it (`010에 1234에 5678`, `공일공 1234 오육칠팔`; the plain form of `ㅇ` is `\u110b`), each group
# in digits or in words: no `019 15일 1400`.
NOUGHT, DIGIT, WORD = "공영\u110b", r"[\d\u110b]", "[공영\u110b일이삼사오육륙칠팔구]"
AS_SAID = r"[^\S\n]{0,2}(?:[에의._/\u00b7-]|다시|대시|하이픈)?[^\S\n]{0,2}"
MOBILE_AS_SAID = re.compile(
    rf"[0Oo{NOUGHT}](?:(?<=(?<!\d)0)1[016789]|(?<=(?<![\dA-Za-z])[0Oo{NOUGHT}])(?:일[0Oo{NOUGHT}일육륙칠팔구]|(?<=[{NOUGHT}])1[{NOUGHT}]))"
    rf"{AS_SAID}(?:{DIGIT}{{3,4}}|{WORD}{{3,4}}){AS_SAID}(?:{DIGIT}{{4}}|{WORD}{{4}})(?!\d)"
)
# In halves with words between: `앞자리는 010-2345이고 뒷자리는 6789`.
MOBILE_IN_HALVES = re.compile(rf"0(?<!\d0)1[016789]{GAP}\d{{3,4}}{LAST_FOLLOW}\d{{4}}(?!\d)")
# With other signs (no binary numbers: `010+0111+0101`), and with the last group in brackets.
MOBILE_WITH_SIGNS = re.compile(
    r"0(?<!\d0)(?:1[016789]([*=+\u3001\u00d7])(?=\d{0,3}[2-9])\d{3,4}\1(?=\d{0,3}[2-9])\d{4}"
    r"|10[\s.-]?\d{4}\s?\(\s?\d{4})(?!\d)"
)
# The first cell is `010` or such, neither the end of a decimal fraction nor thousands (`1,010,345`); the rest, in one more cell or in
# two, goes on in the next line only as a cell of its own.
THOUSANDS = r"(?<=\d,)\d{3},\d{3}(?!\d)"
NO_FRACTION = rf"(?<!\d)(?<!\d\.)(?!{THOUSANDS})"
MOBILE_IN_CELLS = re.compile(rf"{led('0', NO_FRACTION)}1[016789]({CELLS})\d{{3,4}}({CELLS}|(?!\D{{0,3}}\n){GAP})\d{{4}}(?!\d)")
# As spreadsheets leave it of a number, without its 0.
PHONE_WORDS = (
    r"휴대폰|핸드폰|폰\s?번호|전화|연락처|phone|mobile|(?<![^\W_])(?:tel|h\.?p)(?![^\W_])"
    r"|(?<![^\W_])(?:cell|contact)(?=(?:[\s_-]?(?:no|num|number))?\.?[\"']?\s{0,2}(?:[:)=,;|\t\n]|\d\d-))"
)
FIRST_UNDER_KEYS = re.compile(rf"01[016789]{NEXT}")  # else there are none of these
MOBILE_UNDER_KEYS = (
    re.compile(rf"{LIKE_KEYS}01[016789]{NEXT_LIKE}\d{{3,4}}{NEXT_LIKE}\d{{4}}(?!\d)"),
    re.compile(rf"(?:{PHONE_WORDS}){REACH}01[016789]{NEXT_KEY}\d{{3,4}}(?:{NEXT_KEY}|{GAP})\d{{4}}(?!\d)", re.IGNORECASE),
)
ITS_REST = (
    rf"0(?:\d{{8}}|(?P<gap>[ .-])\d{{4}}(?P=gap)\d{{4}})(?!\d|{WON}"
    r"|\s(?:users?|counts?|people|records|rows|items|messages|views)(?!\w))"
)
WITHOUT_ZERO = Near(
    re.compile(rf"(?:{PHONE_WORDS}){REACH_OF_TABLES}1{ITS_REST}", re.IGNORECASE),
    dict.fromkeys(("휴대폰", "핸드폰", "폰", "전화", "연락처", "phone", "mobile", "tel", "hp", "h.p", "cell", "contact"), 0),
)
# Without the code of its area, or the `010`: `전화 2072-2114`, `연락처 9876-5432`. No prices.
WITHOUT_CODE = Near(
    re.compile(
        rf"(?:{PHONE_WORDS}|\u260e){REACH}{NO_ORDERS_NUMBER}(?<!ISO\s)(?<![\d.$€£-])(?<!\d,)"
        r"(?P<first>[2-9]\d{2,3})-(?P<second>\d{4})(?!-?\d|(?!x\s?\d|ext)[A-Za-z])",
        re.IGNORECASE,
    ),
    {**WITHOUT_ZERO.words, "\u260e": 0},
)
YEAR_TO_YEAR, DATE = re.compile(r"20\d\d-20\d\d"), re.compile(r"20[0-4]\d-(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
# Right before a number, or at the end of a table's head above its cell, these name it one.
NAMES_NUMBER = re.compile(
    rf"(?:(?:(?:(?:{PHONE_WORDS}|대표)[\s_-]?(?:번호|number|no)|폰\s?번호|연락처|(?<=대표)전화|(?<=대표\s)전화|\u260e|(?<![^\W_])tel)(?:[은는이가]|\sis)?"
    rf"|(?P<as_key>(?:{PHONE_WORDS})[\"']?\s?[:=]))[^\w\n]{{0,4}}"
    rf"|(?:(?<=[,;|\t])|(?<=[,;|\t]\s))(?P<as_head>(?:{PHONE_WORDS})(?:[\s_-]?(?:번호|number|no))?)[^\w\n]{{0,4}}\n[^\d\n]{{0,9}}[,;|\t]\s?)\Z",
    re.IGNORECASE,
)
# Around what only a `:` names: what makes it a date, but where it goes on as numbers do (`번으로`, `통화했던 곳`).
BEFORE_DATE = re.compile(
    rf"(?:last[\s_-](?:{PHONE_WORDS})|(?:next|first|prev(?:ious)?)[\s_-]?contact|(?:마지막|최근|다음)\s?전화)[\"']?\s?[:=][^\w\n]{{0,4}}\Z",
    re.IGNORECASE,
)
BEHIND_DATE = re.compile(
    r"까지|부터|(?:에|\s\d{1,2}:\d\d)?\s?(?:통화|(?:통화|전화|연락|문자|상담)\s?(?:함|했음|드림|드렸음|완료))[.)]?[^\S\n]*+(?:\n|\Z)"
)
OF_CALLS = re.compile(r"(?:전화|contact|phone)\W*", re.IGNORECASE)  # no `hp: `
GOES_ON = re.compile(r"\s?[\uac00-\ud7a3]")
# Heads of columns: of numbers, of what a telephone has, and of when it was called; and beside them those of who has a number.
HEADS_NUMBERS = re.compile(rf"(?:{PHONE_WORDS}|cell|contact)(?:[\s_-]?(?:번호|number|no))?[^\w\n]{{0,4}}", re.IGNORECASE)
HEADS_DEVICES = re.compile(r"(?:휴대폰|핸드폰|phone|mobile)\W*", re.IGNORECASE)
HEADS_WHAT = re.compile(r"구분|항목|사양|스펙|기종|모델|요금|channel|item|model|plan|price|spec", re.IGNORECASE)
HEADS_DATES = re.compile(r"날짜|일자|일시|date", re.IGNORECASE)
HEADS_WHO = re.compile(
    r"이름|성명|성함|고객|환자|회원|직원|학생|담당|보호자|업체|상호|거래처|name|customer|client|patient", re.IGNORECASE
)
LOCAL = re.compile(r"[2-9]\d{2,3}-\d{4}")
NO_FIGURE = rf"{NO_ORDER}(?<![\d.,-])"
WITHOUT_ZERO_BEFORE_WORD = re.compile(  # `1012345678로 전화 주세요`
    rf"{led('1', NO_FIGURE)}{ITS_REST}(?:\s?(?:으?로|에)\s?(?:[\uac00-\ud7a3]{{1,3}}\s)?(?:전화|연락|문자|카톡)"
    r"|\s?\((?:휴대폰|핸드폰|hp|mobile|cell|phone)"
    r"|\s(?:전화|연락|문자|카톡)\s?(?:주[세시]|줘|바[람랍]|부탁|요망)|\sis\s(?:my|his|her|our)\s(?:hp|mobile|cell|phone))",
    re.IGNORECASE,
)
LINE = r"[\s)._/\u00b7\u3002-]{1,3}"
# With what number its line or note stands in brackets: `1)02-555-1234`, `02-555-1234[1]`.
MAY_BE_GLUED = re.compile(rf"0\d{{1,2}}{LINE}\d{{3,4}}{LINE}\d{{4}}")
GLUED = re.compile(rf"((?<!\d)[A-Za-z]|[)\]]|)(?<!\d)(\(?0\d{{1,2}}{LINE}\d{{3,4}}{LINE}\d{{4}})(?!\d)([A-Za-z\[]?)")
AREAS = ("02", "070", "080", *(f"0{tens}{ones}" for tens in "3456" for ones in "12345"), *(f"050{one}" for one in "2345678"))
# Groups that blanks part, or brackets and dashes (`(02) 555-1234`). Not in a row of numbers: behind two digits, or before three that
# are neither a time nor a year (`1000~1800`, `2024년`) nor the next one's.
ITS_CODE = r"\(?(0(?:50\d|\d{1,2}))(?:(?:\)[^\S\n]{0,3}|-)\d{3,4}(?:[^\S\n]{0,3}|-)|[^\S\n]{1,3}\d{3,4}(?:[^\S\n]{1,3}|-))"
MAY_BE_SPACED = re.compile(r"0\d{1,3}[\s)-]")
SPACED = re.compile(
    rf"(?<![\d.,/~\u00b7-])(?<!\d\d[^\S\n])(?<!0[Xx]){ITS_CODE}\d{{4}}(?!-?\d)(?![^\S\n]{{1,3}}[1-9]\d{{2,}}(?![\w:~-]))"
)
INDEX_ROWS = 3  # so many lines that begin with codes which count up are what an index numbers
# From abroad, with all groups that follow, of which the last may be no part of it; 15 digits are the most, says E.164.
ABROAD = re.compile(r"\+\d(?:[ ()./-]{0,3}\d){7,30}")
GROUP_ENDS = re.compile(r"\d\d(?!\d)")  # one digit alone is no group
ABROAD_DIGITS = range(8, 16)
UNKNOWN_GAP = re.compile(r"[_\u00b7\u3002](?<=\d.)(?=\d)")  # to the library, which reads on over a dash: it is asked without one, too
FROM_ABROAD = re.compile(r"0(?<=(?<!\d)(?<!0[Xx])0)082(?=\D{0,3}\d)(?!(?<=\d\.0082)\W{1,9}\d\.\d)")  # nor of a row of fractions
# The library knows of no more than a few characters between two groups. Beside other columns of digits these may be, too.
MAY_BE_FAR_APART = re.compile(rf"0\d{{1,2}}(?:[^\S\n]|{SIGN}){{4}}")
FAR_APART = re.compile(
    rf"(?:(?P<before>\d)[^\S\n]++|(?<!\d))(0\d{{1,2}})(?P<gap>(?:[^\S\n]|{SIGN}){{4,}}+)(\d{{3,4}})(?:(?P=gap)|-)(\d{{4}})(?!\d)"
    r"(?P<after>[^\S\n]++\d)?"
)
FAR_APART_ABROAD = re.compile(r"\+\d(?:[^\S\n]*+[\d().-]){6,24}")
# What the library takes for a number: one digit before each point, as in a row of a matrix; no area or country and a number behind it.
DECIMALS = re.compile(r"0\.\d+|[\[(]?\s*-?\d\.\d+(?:[\s,;|-]+\d\.\d+)+")
TOO_SHORT = re.compile(r"(?:0|82)\d{0,7}")
# Nor all digits (`"0123456789"`), or a version and its date, as lists of changes have them: `0.4.1 / 2014-01-16`.
ALL_DIGITS = "0123456789"
RELEASE = re.compile(r"[\[(]?\d{1,3}(?:\.\d{1,3}){1,3}[\s/()\[\]-]{1,5}(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])")
# In the USA, behind its state or before the country: `MA 02110-1301`, but `OK 02555-1234`.
STATE_REACH = 5  # characters before it
LONG_ZIP, OF_STATE, COUNTRY_BEHIND = (
    re.compile(r"\d{5}-\d{4}"),
    re.compile(r"(?<!\w)" + state_and_zip(r"[,\s]{1,3}") + r"\Z"),
    re.compile(r",?\s{1,2}USA"),
)
# Of a service (`1588-1234`): in one piece, apart, years that rise and round numbers are everyday ones, unless a word says it. Years
# stand beside what they are of, and in Korean seldom right behind a firm.
SERVICE, SERVICE_AS_USUAL = re.compile(r"(1[568]\d\d)(\d{4})"), re.compile(r"\d{4}-\d{4}")
SERVICE_WORDS = (
    rf"{PHONE_WORDS}|(?:고객|콜|예약)\s?센터|대표\s?번호|문의|상담|연락|팩스|문자|스팸|예약\s?:|번호[가는은]|\u260e"
    r"|(?<![^\W_])(?:fax|call|helpline|hotline|ars|a/s)(?![^\W_])|(?<![^\W_])t\."
)
SERVICE_SAID = re.compile(SERVICE_WORDS, re.IGNORECASE)
SERVICE_SAID_BEHIND = re.compile(rf"번으로|[^\d\n]{{0,10}}?(?:{SERVICE_WORDS})", re.IGNORECASE)
ITS_ENDING = r"(?:으?로|까지|부터|에서|이상|이하|정도|대|[을를이가은는의에도만과와])?(?![^\W_])"
COUNTED = re.compile(  # `1200여 명`, but `여건이 되면` and such names as `여원`
    rf"\s?(?:=|[*+]\s?\d|[십백천만억]{{0,2}}(?:(?<!\s)여)?\s?(?:원|명|개|건|회|년대?|세기|칼로리|킬로|미터|달러|유로|해상도){ITS_ENDING}"
    r"|(?:kcal|cal|calories|k?m|cm|mm|k?g|mg|ml|[kmg]?hz|rpm|won|krw|usd|dollars|people|years|ad|bc|ce|bce)(?![^\W_])|[%$€£])",
    re.IGNORECASE,
)
# Of what rises: units that are other words, too (`통 안 받네요`), behind tens, which stand apart only behind round numbers; and sizes,
# behind eights. `KB` is a bank, too.
GLUED_UNIT, UNIT_APART = (
    re.compile(rf"{before}(?!통\D{{0,12}}?(?:(?<![\uac00-\ud7a3])[안못]|[없않]))(?:대|통|시){ITS_ENDING}")
    for before in (r"(?:\s?[십백천만억]{1,2}여?\s?|여\s?)?", r"\s(?:여(?=대[^\S\n]*+(?:\n|\Z)))?")
)
SIZE = re.compile(r"\s?(?:px|mah|[mgt]b)(?![^\W_])", re.IGNORECASE)
MATTER = re.compile(r"\s[건회]\w+")  # behind a number that a word says to be one: `1577-1577 건은`
YEARS, CENTURY = range(1500, 2100), 100
FIRM = re.compile(
    r"[\uac00-\ud7a3](?:은행|뱅크|예금|금고|카드|캐피탈|증권|보험|생명|화재|항공|택배|통신|전자|마트|쇼핑|파크)\s?[:(\[]?\s?\Z"
)
LINE_BEGINS, LINE_ENDS = re.compile(r"(?:\A|\n)[^\w\n]*\Z"), re.compile(r"[^\w\n]{0,9}(?:\n|\Z)")


def holds_phone(text: str) -> bool:
    from nomoat.route.pii.phone_matcher import phones

    wherever = (MOBILE, MOBILE_AS_SAID, MOBILE_IN_HALVES, MOBILE_WITH_SIGNS, WITHOUT_ZERO_BEFORE_WORD)
    small = small_letters(text)
    if any(pattern.search(text) for pattern in wherever) or _holds_column(text, small):
        return True
    if any(WITHOUT_ZERO.finditer(text, small)) or any(not _is_range(found) for found in WITHOUT_CODE.finditer(text, small)):
        return True
    if VALUES.search(text) and FIRST_UNDER_KEYS.search(text) and any(keys.search(text) for keys in MOBILE_UNDER_KEYS):
        return True
    for match in MOBILE_IN_CELLS.finditer(text):
        if not IN_CELLS.search(match[2]) or without_spaces(match[1]) == without_spaces(match[2]):
            return True
    near = FAR_APART_ABROAD.sub(lambda found: " ".join(found[0].split()), _without_columns(text))
    known = FROM_ABROAD.sub("+82 ", UNKNOWN_GAP.sub("-", near))
    apart = _without_rows(GLUED.sub(_set_apart, known) if MAY_BE_GLUED.search(known) else known)
    if any(not _is_everyday(form, found.start, found.raw_string) for form in {text, apart} for found in phones(form)):
        return True
    return any(phones("\n".join(_beginnings(apart)), as_usual=True))


def _holds_column(text: str, small: str) -> bool:
    """Whether a number without a code stands in a table, in a column of such."""
    cells = cells_under(text, HEADS_NUMBERS) if has_any(WITHOUT_ZERO.words, small) else ()
    # Each once: a column is long, and so is the head of a wide table.
    seen = {(head[0], heads, DATE.match(cell) is not None) for cell, head, heads in cells if LOCAL.fullmatch(cell)}
    return any(_names_column(head, heads, is_date=is_date) for head, heads, is_date in seen)


def _names_column(head: str, heads: str, *, is_date: bool) -> bool:
    """Whether a column holds numbers, and not dates, or what a telephone has."""
    if NAMES_NUMBER.search(head) or HEADS_WHO.search(heads):
        return True
    told = (OF_CALLS, HEADS_DATES) if is_date else (HEADS_DEVICES, HEADS_WHAT)
    return not (told[0].fullmatch(head) and told[1].search(heads))


def _is_range(found: re.Match[str]) -> bool:
    """Whether what a number without a code looks like is counted, or years; or, where no word names it a number, a date or what goes
    from one round number up to another. Behind a word with a `:` these need what says so beside them."""
    text, start, end = found.string, found.start("first"), found.end()
    first, second = int(found["first"]), int(found["second"])
    if _is_counted(text, end, first, second) or YEAR_TO_YEAR.match(text, start):
        return True
    is_date, rises = DATE.match(text, start) is not None, first < second and not first % 50 and not second % 50
    named = NAMES_NUMBER.search(text, found.start(), start)
    if not named:
        return is_date or rises
    if named["as_head"]:
        begin = text.rfind("\n", 0, found.start()) + 1
        return (is_date or rises) and not _names_column(named["as_head"], text[begin : named.end("as_head")], is_date=is_date)
    if named["as_key"] is None:
        return False
    is_dated_before = has_word_before(BEFORE_DATE, text, start) and not GOES_ON.match(text, end)
    is_dated = is_date and (is_dated_before or (OF_CALLS.match(named[0]) and BEHIND_DATE.match(text, end)))
    return bool(is_dated or (rises and UNIT_APART.match(text, end)))


def _is_counted(text: str, end: int, first: int, second: int) -> re.Match[str] | None:
    counted = COUNTED.match(text, end)
    if counted or first >= second:
        return counted
    in_tens, in_eights = (not first % by and not second % by for by in (10, 8))
    return (GLUED_UNIT.match(text, end) if in_tens else None) or (SIZE.match(text, end) if in_eights else None)


def _is_everyday(text: str, start: int, number: str) -> bool:
    """Whether what the library found there is more likely to be something else."""
    digits, end = "".join(filter(str.isdecimal, number)), start + len(number)
    service = SERVICE.fullmatch(digits)
    if service is None:
        is_of_state = OF_STATE.search(text, max(0, start - STATE_REACH), end)
        is_zip = LONG_ZIP.fullmatch(number) and (is_of_state or COUNTRY_BEHIND.match(text, end))
        is_none = DECIMALS.fullmatch(number) or TOO_SHORT.fullmatch(digits) or RELEASE.fullmatch(number)
        return bool(is_zip or is_none or number == ALL_DIGITS)
    first, second = int(service[1]), int(service[2])
    is_said, counted = has_word_before(SERVICE_SAID, text, start), _is_counted(text, end, first, second)
    if counted and not (is_said and MATTER.fullmatch(counted[0])):
        return True
    if is_said or SERVICE_SAID_BEHIND.match(text, end):
        return False
    is_alone = has_word_before(LINE_BEGINS, text, start) and LINE_ENDS.match(text, end)
    are_years = first < second and second in YEARS and not has_word_before(FIRM, text, start)
    if is_alone and second - first > CENTURY:
        are_years = False
    are_round = not first % 100 and not second % 50
    return not SERVICE_AS_USUAL.fullmatch(number.strip("()[] ")) or are_years or are_round


def _without_columns(text: str) -> str:
    """With a dash between groups that are far apart. Beside other columns of digits: those of `010`, if most such rows have it."""
    if not MAY_BE_FAR_APART.search(text):
        return text
    areas = [far[2] for far in FAR_APART.finditer(text)]
    are_mobile = 2 * areas.count("010") > len(areas)

    def put_together(far: re.Match[str]) -> str:
        area, exchange, line = far.group(2, 4, 5)
        is_one = not (far["before"] or far["after"]) or (area == "010" and are_mobile)
        return f" {area}-{exchange}-{line} " if is_one else far[0]

    return FAR_APART.sub(put_together, text)


def _set_apart(glued: re.Match[str]) -> str:
    """A number with the ends of lines in place of what touches it."""
    return "\n" * len(glued[1]) + glued[2] + "\n" * len(glued[3])


def _without_rows(text: str) -> str:
    """With numbers whose groups spaces part in lines of their own, digits beside them or not; where most such rows begin with an
    area's code, and those are no index."""
    if not MAY_BE_SPACED.search(text):
        return text
    rows = list(SPACED.finditer(text))
    areas = [spaced for spaced in rows if spaced[1] in AREAS]
    if 2 * len(areas) <= len(rows) or _are_index(areas):
        return text
    return SPACED.sub(lambda spaced: f"\n{spaced[0]}\n" if spaced[1] in AREAS else spaced[0], text)


def _are_index(rows: Sequence[re.Match[str]]) -> bool:
    """Whether several lines begin with the codes, each with the next one."""
    firsts = [int(row[1]) for row in rows if not row.start() or row.string[row.start() - 1] == "\n"]
    return len(firsts) >= INDEX_ROWS and all(after - before == 1 for before, after in itertools.pairwise(firsts))


def _beginnings(text: str) -> Iterator[str]:
    """Of each number from abroad, what ends with one of its groups."""
    for abroad in ABROAD.finditer(text):
        for end in GROUP_ENDS.finditer(abroad[0]):
            beginning = abroad[0][: end.end()]
            if sum(map(str.isdecimal, beginning)) in ABROAD_DIGITS:
                yield beginning
