"""Bank accounts: numbers that a bank's word stands beside, and IBANs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from nomoat.route.pii import orders
from nomoat.route.pii.banks import BANKS, CITIES, DOUBTFUL, EVERYDAY, KOREAN_FIRMS, OTHER_FIRMS, SECURITIES, SHORT, UNITS
from nomoat.route.pii.numbers import COLUMNS, GAP, IS, ITS_END, NEXT, REACH, REACH_OF_TABLES, SIGN, WON, has_word_before
from nomoat.route.pii.orders import is_order_cell
from nomoat.route.pii.sought import Near, near, small_letters

# Groups on one line, always the same between them: a date and a time make no number.
LINE_GAP = rf"(?:(?:[^\S\r\n]|{SIGN}){{1,4}}|(?:[^\S\n]*+{SIGN}){{1,6}}[^\S\n]*+)"
GROUPS = rf"\d{{1,5}}(?P<gap>{LINE_GAP})\d{{2,8}}(?:(?P=gap)\d{{2,8}}){{0,2}}(?:-\d(?![\d-]))?"  # of securities, one digit last
NUMBER = rf"(?P<number>\d(?<!\d\d)(?:{GROUPS}|\d{{9,15}}(?!\d|{WON})))(?!\d)"
# So many people, times, pieces or cases, in ten digits, beside words that mean other things than an account, too. Behind an account
# `명의` is its holder's name, and `건` may be the matter.
COUNT = rf"(?<!\d{{11}})(?:명(?!의)|[회개]|(?<=000)건){ITS_END}"
NO_COUNT = NUMBER.replace(WON, f"{WON}|{COUNT}")
GROUPED = rf"(?P<number>\d(?<!\d\d){GROUPS})(?!\d)"
IN_COLUMNS = NUMBER.replace(LINE_GAP, rf"(?:{LINE_GAP}|{COLUMNS})")  # as tables have other numbers
YEAR, MONTH, DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
CALENDAR = MONTH + DAY
# With seven or eight digits first (`7123456-78-01`), as securities firms have them, and as documents do.
LONG = rf"(?P<number>(?<!\d)\d{{7,8}}(?<!{YEAR}{CALENDAR})(?P<gap>-)\d\d(?:-\d\d)?)(?!-?\d)"
NO_PHONE = r"(?!0\d{1,2}-?\d{3,4}-?\d{4}(?!-?\d))"
YEAR_OR_DATE = rf"{YEAR}(?:{CALENDAR})?"
# Part numbers have these first, or second of two; an account may have such a group further on.
DASHED = rf"(?!{YEAR_OR_DATE}-|\d{{2,6}}-{YEAR_OR_DATE}(?![\d-]))" + GROUPED.replace(LINE_GAP, "-")
ACCOUNT = r"(?:(?<![^\W_])|(?-i:(?<=[a-z])(?=[A-Z])))(?:bank|account|acct)(?:[_ -]?(?:account|acct|number|num|no|id)){0,3}s?(?![^\W_])"
BESIDE = r"(?:\s?통장)?(?:으?로)?(?:\s?\([^()\d\n]{1,12}\))?[\s:|,;\"'()\[\]/\u00b7-]{0,6}"
BEHIND = r"[\s()\[\],:/|\u00b7-]{0,4}"
ENDS = r"(?=으?로|[^\S\n]*(?:[^\w\s]|\n|\Z))"  # an everyday word after a number, and the end of what is said
# Behind a number, what leads to the word: `로 50만원 바로 이체`, `가 우리 회사 계좌`, ` is my account`. Not over cells and keys.
TO_WORD = r"[\"']?[\uac00-\ud7a3]{0,4}(?:[^\S\t]|[()\[\]:/\u00b7-]|,[^\S\t]){0,4}"
AMOUNT = r"(?:\d[\d,.]{0,11}\s?[십백천만억]{0,2}\s?){1,2}원"
WORDS = r"(?:[\uac00-\ud7a3]{1,6}\s){0,2}[\uac00-\ud7a3]{0,6}?"
WHOSE = r"(?:(?:is|was|as)\s)?(?:(?:my|our|your|his|her|their|the|an?)\s)?(?:[a-z]{1,12}\s)?"
NO_ORDER = rf"{orders.NO_ORDER}{orders.NO_PARCEL}(?!{YEAR}{CALENDAR}-)"  # nor what begins with a whole date: `20240115-0000123`
# Behind a city: no parcel, and no business number, whose checksum decides.
NO_OTHER = r"(?!(?:\d{4}-\d{4}-\d{4}|\d{3}-\d{2}-\d{5})(?![\d-]))" + NO_PHONE
NO_HOTLINE = r"(?!(?:1-)?\d{3}-\d{3}-\d{4}(?![-\d]))"  # of the USA
# An amount before an account, `3만원 보내줘`, or one short number of a branch, a year: `2지점`, `1:`; not over cells and keys.
TO_NUMBER = rf"(?:[^\d\n\"'|;=&\t,]|,(?=[^\S\n\t])){{0,12}}(?:\n[^\d\n]{{0,10}})?{NO_ORDER}{NO_OTHER}"
OVER_AMOUNT = rf"{AMOUNT}{TO_NUMBER}"
OVER_ONE = rf"\d(?:[,.]?\d){{0,8}}+(?:[^\S\n\t]?[^\W\d_]|[):\]]|\.?[^\S\n\t]){TO_NUMBER}"
IN_LIST = r"(?:[\s_](?:no\.?|number|번호))?\s?#?\d{1,2}[):.]\s{0,2}"  # `계좌 1: `, of several
# A bank under a key of its own, up to two keys further on its account: behind a key that says number, or in groups with a `-`. Where
# its name is a word or a city, too (`{"city": "부산", "no": 1234567890}`), the key says that it is a bank.
KEY, VALUE = r"[\"']?[^\W\d][\w .\[\]-]{0,20}", r"[^\d\n\"',;=:{}]{0,30}"
BANK_KEY = rf"(?:bank(?:[\s_-]?(?:name|nm|code|cd))?|은행(?:명|이름)?){IS}"
ITS_NAME = rf"(?:(?:{SHORT}|{EVERYDAY}|{DOUBTFUL}|{CITIES})(?:\s?bank)?|\w{{2,6}}{SECURITIES})"
NAMED = rf"(?:[:=]\s{{0,3}}[\"']?[\uac00-\ud7a3]{{0,8}}(?:{BANKS})|{BANK_KEY}{ITS_NAME})"
NUMBER_KEY = rf"[\"']?(?:(?:bank|account|acct|계좌)[\s_-]?)?(?:number|num|no|번호){IS}"
BEHIND_FIRM = rf"(?:{BESIDE}(?:{OVER_AMOUNT})?{NO_OTHER}|{TO_NUMBER})"
REFUNDED = r"\s?으?로\s?(?:(?:전액|전부|일부|부분|바로|즉시|꼭|빨리|다시)\s?)?환불"
UNDER_KEYS = rf"{NAMED}{NEXT}(?:{KEY}{IS}{VALUE}{NEXT}){{0,2}}?"
PAID = (  # in a table often how an order stands
    re.compile(rf"(?:입금|송금|이체){REACH}{NO_COUNT}"),
    re.compile(rf"{NO_ORDER}{NUMBER}{TO_WORD}(?:{AMOUNT}[을만]?\s?)?{WORDS}(?:계좌|(?<!무)통장|(?<!무통장)입금|송금|이체)"),
)
# Words, in small letters, of which a text that a pattern fits has one; where they are first, with the characters before them.
OWN, OWN_IN_LATIN = ("계좌", "통장", "예금주"), ("bank", "account", "acct")
OF_OWN = (*OWN, *OWN_IN_LATIN)
OF_BANKS = ("은행", "뱅크", "농협", "수협", "신협", "축협", "금고", "우체국", "조합")
OF_BANKS_AND_OWN, OF_BANKS_KEYS = (*OF_BANKS, *OF_OWN), (*OF_BANKS, "bank")
OF_SHORT = (
    *("국민", "신한", "카카오", "토스", "카뱅", "케뱅", "토뱅", "씨티", "제일"),
    *("ibk", "shinhan", "kookmin", "hyup", "saemaul", "chartered", "bank"),
)
OF_EVERYDAY = ("우리", "하나", "기업", "제일", "산업", "새마을", "외환", "woori")
OF_UNITS = ("kb", "nh", "sc")
OF_DOUBTFUL = (*OF_UNITS, "mg", "hana", "toss", "kakao", "citi")
OF_ALL_SHORT = (*OF_SHORT, *OF_EVERYDAY, *OF_DOUBTFUL)
OF_KOREAN_FIRMS, OF_OTHER_FIRMS = ("증권", "금융투자", "cma"), ("securities",)
OF_FIRMS = (*OF_KOREAN_FIRMS, *OF_OTHER_FIRMS)
OF_CITIES = ("부산", "경남", "대구", "광주", "전북", "제주", "busan", "nam", "daegu", "wangju", "jeonbuk", "jeju")
OF_PAYING, OF_REFUNDS = ("입금", "송금", "이체"), ("환불",)
BEHIND_WORDS = (
    near(rf"(?:계좌|통장|예금주|{ACCOUNT}){REACH_OF_TABLES}{IN_COLUMNS}", OF_OWN, 0, re.IGNORECASE),
    near(rf"(?:{BANKS}){REACH}{NUMBER}", OF_BANKS, 3),
    near(rf"(?:{BANKS}|계좌|통장|예금주|{ACCOUNT}){REACH}{OVER_AMOUNT}{NUMBER}", OF_BANKS_AND_OWN, 3, re.IGNORECASE),
    near(rf"(?:{BANKS}|계좌|통장|예금주|{ACCOUNT}){REACH}{OVER_ONE}{DASHED}", OF_BANKS_AND_OWN, 3, re.IGNORECASE),
    near(rf"(?:계좌(?:번호)?|통장|{ACCOUNT}){IN_LIST}{NO_OTHER}{NUMBER}", OF_OWN, 0, re.IGNORECASE),
    near(rf"{UNDER_KEYS}{NUMBER_KEY}{NO_PHONE}{NUMBER}", OF_BANKS_KEYS, 16, re.IGNORECASE),
    near(rf"{UNDER_KEYS}{KEY}{IS}{NO_OTHER}{DASHED}", OF_BANKS_KEYS, 16, re.IGNORECASE),
    near(rf"(?:{SHORT}){BESIDE}{OVER_ONE}{DASHED}", OF_SHORT, 9),
    near(rf"(?:{SHORT}|{EVERYDAY}|{DOUBTFUL}){BESIDE}{OVER_AMOUNT}{DASHED}", OF_ALL_SHORT, 9),
    Near(PAID[0], dict.fromkeys(OF_PAYING, 0)),
    near(rf"(?:{SHORT}){BESIDE}{NO_COUNT}", OF_SHORT, 9),
    near(rf"(?:{EVERYDAY}){BESIDE}{GROUPED}", OF_EVERYDAY, 3),
    near(rf"(?:{UNITS}{BESIDE}|{DOUBTFUL}{BESIDE}{NO_PHONE}){DASHED}", OF_DOUBTFUL, 0),
    near(rf"(?:{DOUBTFUL}|{SECURITIES})으로{BESIDE}{GROUPED}", (*OF_DOUBTFUL, *OF_FIRMS), 0),
    near(rf"(?:{KOREAN_FIRMS}{BEHIND_FIRM}|{OTHER_FIRMS}{BEHIND_FIRM}{NO_HOTLINE}){DASHED}", OF_FIRMS, 0),
    near(rf"{SECURITIES}{BEHIND_FIRM}{LONG}", OF_FIRMS, 0),
    near(rf"(?:계좌(?:번호)?|통장(?:번호)?|{ACCOUNT})[은는이가]?(?:\sis)?\.?{BESIDE}{LONG}", OF_OWN, 0, re.IGNORECASE),
    near(rf"{UNDER_KEYS}{NUMBER_KEY}{LONG}", OF_BANKS_KEYS, 16, re.IGNORECASE),
    near(rf"{CITIES}[ :]{{1,3}}{NO_OTHER}{DASHED}", OF_CITIES, 6),
    near(rf"(?:우리|하나|기업)[\s:]{{0,3}}{NO_COUNT}", ("우리", "하나", "기업"), 0),
    near(rf"환불[은: \n]{{0,3}}{NO_PHONE}{DASHED}", OF_REFUNDS, 0),
)
REACH_OF_NUMBER, BEGINS = 120, re.compile(r"\d(?<!\d\d)")  # characters at most from the end of a number to a word behind it


def _behind(pattern: re.Pattern[str], words: Iterable[str]) -> Near:
    """Where a number stands before any of the words: with its gaps it may be as long as a line."""
    return Near(pattern, dict.fromkeys(words, REACH_OF_NUMBER), in_line=True, begins=BEGINS)


BEFORE_WORDS = (
    _behind(re.compile(rf"{NUMBER}[\s()\[\],:/]{{0,4}}\w{{0,6}}(?:{BANKS}|예금주)"), (*OF_BANKS, "예금주")),
    _behind(PAID[1], (*OF_PAYING, "계좌", "통장")),
    _behind(re.compile(rf"{NUMBER}\s?으?로\s?(?:{AMOUNT}|무통장)"), ("로",)),
    _behind(re.compile(rf"{NO_ORDER}(?<!번호[\s:])(?<!번호:\s){NO_PHONE}{NUMBER}{REFUNDED}"), OF_REFUNDS),
    _behind(re.compile(rf"{NO_ORDER}(?<!번호[\s:])(?<!번호:\s){LONG}{REFUNDED}"), OF_REFUNDS),
    _behind(re.compile(rf"{NO_ORDER}{LONG}{BEHIND}\w{{0,6}}{SECURITIES}"), OF_FIRMS),
    _behind(re.compile(rf"{NO_ORDER}{NUMBER}{TO_WORD}{WHOSE}(?>{ACCOUNT})(?![\"']?\s?[:=])", re.IGNORECASE), OWN_IN_LATIN),
    _behind(re.compile(rf"{NO_ORDER}{NO_PHONE}{DASHED}{BEHIND}\w{{0,6}}{KOREAN_FIRMS}"), OF_KOREAN_FIRMS),
    _behind(re.compile(rf"{NO_ORDER}{NO_PHONE}{NO_HOTLINE}{DASHED}{BEHIND}{OTHER_FIRMS}"), OF_OTHER_FIRMS),
    _behind(
        re.compile(rf"{GROUPED}{BEHIND}(?:(?:{SHORT})(?![a-zA-Z])|(?:{EVERYDAY}){ENDS}|{DOUBTFUL}(?:으로|\s?통장))"), OF_ALL_SHORT
    ),
    _behind(re.compile(rf"{DASHED}{BEHIND}{UNITS}{ENDS}"), OF_UNITS),
    _behind(re.compile(rf"{NO_PHONE}{DASHED}{BEHIND}{DOUBTFUL}{ENDS}"), OF_DOUBTFUL),
)
ONE_NUMBER = re.compile(NUMBER)
ACCOUNT_DIGITS = range(10, 17)
TEN_DIGITS = re.compile(rf"\d(?<!\d\d)(?>(?:{LINE_GAP}|{COLUMNS})?\d){{9,}}+")  # without them there is no account
DIGITS = re.compile(r"\d+")
# `1234567890.12`: what has a decimal point. `1234567890123.4월` is an account, a full stop and a date.
FRACTION_ENDS = r"(?!\d|[^\S\n]?[\uac00-\ud7a3])"
DECIMALS, NO_MORE = re.compile(rf"\.\d+{FRACTION_ENDS}"), re.compile(FRACTION_ENDS)
CLOCK = r"(?:[01]\d|2[0-3])(?:-?[0-5]\d){0,2}"
DATE = rf"(?:{YEAR}-{MONTH}-{DAY}|{YEAR}{CALENDAR})"
# Groups that are years, or a date and with it a time, another date or a year. Accounts often have one group that looks like a year.
TIMES = re.compile(rf"{YEAR}(?:-{YEAR})+|{DATE}(?:-(?:{CLOCK}|{DATE}|{YEAR}))?")
TIMESTAMP = re.compile(rf"{YEAR}{CALENDAR}(?:[01]\d|2[0-3])(?:[0-5]\d){{1,2}}\d{{0,3}}")
LONG_FIRST_DIGITS = range(7, 9)
NO_ACCOUNT = re.compile(rf"(?:{orders.CALLED_SO.pattern}|(?:품번|품\s?번호|모델명?|코드|티켓|인보이스|견적서?)[은는]?[\s:#]{{0,3}}\Z)")
ISBN = re.compile(r"97[89]-\d{1,5}-\d{1,7}-\d{1,7}-\d")
IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d{2}")
# Characters of an IBAN by country: SWIFT's registry, and the countries that use the form without standing in it.
IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "AO CV GW LY MZ PT ST", 26: "DZ IR IS TR", 27: "BI CF CG CM DJ FR GA GR IT KM MC MG MR SM TD",
    28: "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC",
    32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: length for length, countries in IBAN_COUNTRIES.items() for country in countries.split()}


def holds_bank_account(text: str) -> bool:
    has_orders = False
    for match in filter(_is_account, _beside_words(text) if TEN_DIGITS.search(text) else ()):
        if match.re not in PAID or not is_order_cell(match):
            return True
        has_orders = True
    if has_orders:  # a word reaches the first number only, which an order may be before an account
        without = ONE_NUMBER.sub(lambda match: "" if is_order_cell(match) else match[0], text)
        if any(_is_account(match) and not is_order_cell(match) for pattern in PAID for match in pattern.finditer(without)):
            return True
    return _holds_iban(text)


def _beside_words(text: str) -> Iterator[re.Match[str]]:
    small = small_letters(text)
    for sought in (*BEHIND_WORDS, *BEFORE_WORDS):
        yield from sought.finditer(text, small)


def _is_account(match: re.Match[str]) -> bool:
    """Whether a number that a bank's word is beside can be one. Of a long one that spaces part, the last group may be an amount. A
    last digit alone does not count: orders' numbers have one."""
    groups = DIGITS.findall(match["number"])
    if len(groups[-1]) == 1:
        if ISBN.fullmatch(match["number"]):
            return False
        groups.pop()
    if len(groups[0]) in LONG_FIRST_DIGITS and has_word_before(NO_ACCOUNT, match.string, match.start("number")):
        return False
    if match["gap"] and match["gap"].isspace() and sum(map(len, groups)) > ACCOUNT_DIGITS[-1]:
        groups.pop()
    return sum(map(len, groups)) in ACCOUNT_DIGITS and not (_is_time(groups) or _is_decimal(match, groups))


def _is_time(groups: Sequence[str]) -> bool:
    """Years, or a date and a time, in their order: an account that looks so is not seen."""
    return (TIMESTAMP if len(groups) == 1 else TIMES).fullmatch("-".join(groups)) is not None


def _is_decimal(match: re.Match[str], groups: Sequence[str]) -> bool:
    if not match["gap"]:
        return DECIMALS.match(match.string, match.end("number")) is not None
    return match["gap"] == "." and len(groups) == 2 and NO_MORE.match(match.string, match.end("number")) is not None


def _holds_iban(text: str) -> bool:
    """As many characters as the country has, whatever follows them; more digits than letters tell them from words."""
    for start in IBAN_START.finditer(text):
        more = IBAN_LENGTHS.get(start[1].upper(), 0) - len(start[0])
        rest = rf"(?>(?:{COLUMNS}|{GAP})[A-Za-z0-9]){{{more}}}(?![A-Za-z0-9])"
        found = re.compile(rest).match(text, start.end()) if more > 0 else None
        if found is not None:
            number = "".join(filter(str.isalnum, text[start.start() : found.end()]))
            if 2 * sum(map(str.isdecimal, number)) > len(number) and _iban_checksum_fits(number):
                return True
    return False


def _iban_checksum_fits(number: str) -> bool:
    """ISO 13616: letters become 10 to 35, the first four characters go to the end, and the whole is 1 modulo 97."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1
