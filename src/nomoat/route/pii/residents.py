"""Resident registration numbers, of citizens and of foreigners."""

from __future__ import annotations

import re
from datetime import date

from nomoat.route.pii.numbers import (
    GAP,
    GAP_OR_CELLS,
    IN_WON,
    LAST_FOLLOW,
    NEXT_KEY,
    OTHER_CELL,
    REACH,
    WON,
    WORD_REACH,
    has_word_before,
)

# The first digit of the second half may stand alone, as in forms that mask the rest.
BETWEEN_HALVES = rf"{GAP_OR_CELLS}|{NEXT_KEY}"
IN_WORDS = r"\D{1,20}"  # `앞자리는 900101이고 뒷자리는 1234567`
RESIDENT = re.compile(rf"(?<!\d)(?=((\d{{6}})(?:({BETWEEN_HALVES})(\d{{7}})|\s?-\s?(\d\s{{1,2}}\d{{6}})|{IN_WORDS}(\d{{7}}))(?!\d)))")
SIX_DIGITS = re.compile(r"\d{6}")
# In the boxes of a form, and with all of the birth's year: rows of digits and dates are ordinary, so that these have more to prove.
BOX = r"[^\S\n]{1,3}"
IN_BOXES = re.compile(rf"(\d(?<!\d\d)(?<!\d\s\d)(?:{BOX}\d){{5}}(?:{BOX}|\s{{0,3}}-\s{{0,3}})\d(?:{BOX}\d){{6}})(?!\s{{0,3}}\d)")
FULL_YEAR = re.compile(rf"((?:19|20)(?<!\d\d\d)\d{{6}}{GAP}\d{{7}})(?!\d)")
# In halves with words between (`앞자리 850412, 뒷자리 2134561`), and with the birth as a date (`85.04.12-2134561`).
IN_HALVES = re.compile(rf"(\d(?<!\d\d)\d{{5}}{LAST_FOLLOW}\d{{7}})(?!\d)")
DATED = re.compile(rf"(\d(?<!\d\d)\d(?:\d\d)?([./-])\d\d\2\d\d{GAP}\d{{7}})(?!\d)")
SIGN_BETWEEN = re.compile(r"[^\s\d]\s*\d{7}\Z")
# Alone: `주민등록번호 뒷자리: 2134561`, in the next line, too; and `뒷자리는 2134561`, where no word says whose else.
SECOND_HALF = re.compile(
    r"(?:주민|민증|외국인)(?:\s?등록)?(?:\s?번호)?의?\s?(?:뒷\s?(?:(?:7|일곱)\s?)?(?:자리|번호|부분)|(?:끝|마지막)\s?(?:7|일곱)\s?자리|뒤(?:에?\s?(?:7|일곱)?\s?자리)?)"
    rf"(?:[은는이가]?[\s:=(\"',|]{{0,4}}|(?<!뒤){REACH}(?!\d{{7}}(?:{WON}|명)))[1-8](?<!\d\d)\d{{6}}(?!\d)"
)
END_ALONE = re.compile(
    rf"(?:뒷\s?(?:(?:7|일곱)\s?)?|뒤\s?(?:7|일곱)\s?)자리(?:\s?(?:전체|모두|다))?[은는이가요]?[\s:=>?(]{{0,4}}[1-8]\d{{6}}(?!\d|[.-]\d|{WON}|[명회개건]|[인이가]?\s?(?:당첨|복권))"
)
OF_OTHERS = re.compile(  # or the number that such a word right before it names
    r"복권|로또|당첨|추첨|연금|송장|쿠폰|상품|제품|일련|주문|접수|코드|원주율|소수점"
    r"|(?:(?<!주민|등록|분증|록증)(?<!등록\s|분증\s|록증\s)번호|(?:사업자|차량|상표|특허)등록번호|[군학사]번|카드|계좌|전화|티켓|영수증|시리얼|serial|s/n|isbn|imei)의?\s?\Z",
    re.IGNORECASE,
)
SAID = re.compile(r"(?<!입)주민(?!세)|외국인\s?등록|(?<![^\W_])(?:rrn|resident)", re.IGNORECASE)
# Names the number itself: between a date and an amount, and before them, `주민센터` is no such word, nor is `지역주민`: what a form
# calls a person has one of these endings (`대표자주민`, `본인주민`).
NAMED = re.compile(
    r"(?<![입거])주민(?:\s?\(?(?:(?:외국인|법인)\)?\s?)?(?:등록|번호|뒷|뒤)|등본|증(?!가)|\s?(?:id|no)(?![a-z]))"
    r"|(?:(?<![\uac00-\ud7a3])부?|[자객주녀모친니들딸생표장족님편]|(?<!외국)인|[회사직위임팀]원|버지|아내|[이감]사)주민(?=[^\uac00-\ud7a3\d]{0,3}(?:\d{7}|\Z))"
    r"|외국인\s?등록|(?<![^\W_])(?:rrn|resident[\s_]?(?:reg|no|num|id))",
    re.IGNORECASE,
)
# So does any other word but of a place, before what is no round amount: people's names and who they are (`김영희주민`, `며느리주민`).
NAMED_BY_ANY = re.compile(
    r"(?<![입거]|\b[원이])(?<!지역|마을|동네|현지|인근|피해|전체|[동서남북]부)(?<!외국인)주민(?=[^\uac00-\ud7a3\d]{0,3}(?:\d{7}|\Z))"
)
ROUND = "000"
LIKE_STAMP = re.compile("1[3-9]")  # milliseconds since 1970, from 2011 to 2033
# Where time stamps stand bare: behind a key, but for such as `regNo`, and where a log's line begins.
STAMP_KEY = re.compile(
    r"(?<!\w)(?![\"']?\w{0,30}(?:no|num|nr|number|ssn|jumin|birth)[\"']?\s?[:=])"
    r"(?:[\"']\w{1,30}[\"']\s?:|\w{1,30}\s?=|(?:t|ts|ms|epoch|\w{0,30}(?:time|stamp|date|_at))\s?:)\s{0,3}\Z",
    re.IGNORECASE | re.ASCII,
)
STAMP_KEY_REACH = 40  # characters
LOG_BEGINS = re.compile(r"(?:\A|\n|\[)\Z")
LOG_GOES_ON = re.compile(r"\]?[\s|,]{1,3}\[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL|GET|POST)(?![^\W_])")
LINES_PART = re.compile(r"[^\n{}\[\]]*")  # up to what is another line, or another record of JSON
LINE_REACH = 200  # characters to each side
HANGUL = re.compile("[\uac00-\ud7a3]")
MANY = 5  # bare numbers that begin as time stamps do; fewer count whatever their checksums
CENTURIES = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900, "3": 2000, "4": 2000, "7": 2000, "8": 2000}
FIRST_BIRTH = date(1900, 1, 1)
WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def holds_resident_number(text: str) -> bool:
    """Birth date and century must fit. Numbers given out since October 2020 have no checksum, so a wrong one proves nothing.

    The birth lies between 1900 and today: running numbers behind a date, as of orders and specimens, begin with 0. A date and an
    amount in two cells look the same, and a tenth of these fit by chance: of all such pairs in the text most have to fit. Those in one
    piece that begin as time stamps do, and stand as these do in JSON and logs, count where half of such or more fit: a child's number
    may be younger than the child, as those of foreigners are, and have no checksum. Elsewhere each counts, but for many that stand
    bare on lines without Hangul, of which half or more have to fit. A word before either half says it of all of these, whenever the
    birth, and is needed where words part them. Halves that words part, or, without such a word, nothing or spaces, are a date and an
    amount where `원` is behind them.
    """
    in_cells, like_stamps, bare = list[bool](), list[bool](), list[bool]()  # whether the checksum fits
    for match in RESIDENT.finditer(text) if SIX_DIGITS.search(text) else ():
        digits = match[2] + "".join((match[4] or match[5] or match[6]).split())
        born, between = _born(digits), "-" if match[5] else match[3]
        is_said = has_word_before(SAID, text, match.start()) or _is_named(digits, text, *match.span(1))
        may_be_amount = between is None or not (is_said or between.strip())
        if born is None or (may_be_amount and IN_WON.match(text, match.end(1))):
            continue
        if is_said:
            return True
        if between is None or not FIRST_BIRTH <= born <= date.today():  # None: there are words between
            continue
        if between and not OTHER_CELL.search(between):
            return True
        fits = _checksum_fits(digits)
        if between:
            in_cells.append(fits)
        elif LIKE_STAMP.match(digits):
            if _stands_as_stamp(text, *match.span(1)):
                like_stamps.append(fits)
            elif _has_hangul_on_its_line(text, *match.span(1)):
                return True
            else:
                bare.append(fits)
        elif fits or not _is_barcode(digits):
            return True
    if 0 < len(bare) < MANY or any(fitting and 2 * sum(fitting) >= len(fitting) for fitting in (like_stamps, bare)):
        return True
    return 2 * sum(in_cells) > len(in_cells) or _holds_second_half(text) or _holds_one_with_more_to_prove(text)


def _holds_second_half(text: str) -> bool:
    alone = (found.start() for found in END_ALONE.finditer(text))
    return SECOND_HALF.search(text) is not None or any(not has_word_before(OF_OTHERS, text, start) for start in alone)


def _stands_as_stamp(text: str, start: int, end: int) -> bool:
    """As a bare value of JSON, or where a log's line begins."""
    before = text[max(0, start - STAMP_KEY_REACH) : start]
    return STAMP_KEY.search(before) is not None or (LOG_BEGINS.search(before) is not None and LOG_GOES_ON.match(text, end) is not None)


def _has_hangul_on_its_line(text: str, start: int, end: int) -> bool:
    before, behind = text[max(0, start - LINE_REACH) : start][::-1], text[end : end + LINE_REACH]
    return any(HANGUL.search(part, 0, found.end()) for part in (before, behind) if (found := LINES_PART.match(part)))


def _holds_one_with_more_to_prove(text: str) -> bool:
    """The checksum fits, or a word before them says it, as it has to of a date: one that names the number, where blanks part them."""
    for pattern in (IN_BOXES, FULL_YEAR, IN_HALVES, DATED):
        for match in pattern.finditer(text):
            written = "".join(filter(str.isdecimal, match[1]))
            digits, born = written[-13:], _born(written[-13:])
            if born is None or not FIRST_BIRTH <= born <= date.today() or not f"{born:%Y%m%d}".endswith(written[:-7]):
                continue
            if pattern is DATED and IN_WON.match(text, match.end(1)):
                continue  # `지역 주민 24.01.15 1500000원`
            is_proof = pattern is not DATED and not match[1].isdecimal()
            start, needs_name = match.start(), pattern is DATED and not SIGN_BETWEEN.search(match[1])
            is_said = _is_named(digits, text, max(0, start - WORD_REACH), start) if needs_name else has_word_before(SAID, text, start)
            if is_said or (is_proof and _checksum_fits(digits)):
                return True
    return False


def _is_named(digits: str, text: str, start: int, end: int) -> bool:
    """Whether a word there names the number of these digits."""
    return bool(NAMED.search(text, start, end) or (not digits.endswith(ROUND) and NAMED_BY_ANY.search(text, start, end)))


def _born(digits: str) -> date | None:
    try:
        return date(CENTURIES[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return None


def _is_barcode(digits: str) -> bool:
    """A Korean or Japanese product's EAN-13: every second digit counts three times."""
    total = sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits))
    return digits.startswith(("880", "45", "49")) and total % 10 == 0


def _checksum_fits(digits: str) -> bool:
    """Citizens: (11 - sum mod 11) mod 10; foreigners (5 to 8): two more. As python-stdnum has it for citizens."""
    total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, digits[:12], strict=True))
    base = 13 if digits[6] in "5678" else 11
    return (base - total % 11) % 10 == int(digits[12])
