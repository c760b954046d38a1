"""Which kinds of private data a text holds. The text itself is never kept, logged or shown.

Read as a person would read it (`plain`): full-width digits and those of other scripts, what stands between the groups of a number,
invisible characters, escapes and Markdown's marks make no difference, and letters may be glued to a number, as Korean particles are.

Why not presidio-analyzer, whose recognisers the design names: it installs 51 packages and 374 MB, spaCy among them (measured
with presidio-analyzer 2.2.366), to match patterns of a few lines. Phone numbers are found by `phonenumberslite` (5 MB).

What this does not cover: names nobody listed, addresses, dates of birth, passports, driving licences, health, IP addresses, passwords
and keys of other forms; phone numbers of other countries without their `+`; accounts without a bank's word beside them or above, and
what ends in `원` as amounts do;
landline, business and account numbers in several cells of a table; numbers spelled out in words, in pictures, or in base64 and such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Literal, get_args

from nomoat.route.banks import BANKS, CITIES, DOUBTFUL, EVERYDAY, SHORT, UNITS
from nomoat.route.names import holds_name
from nomoat.route.orders import ORDER, is_order_cell
from nomoat.route.plain import readings

Kind = Literal["resident_number", "phone", "business_number", "bank_account", "card", "email", "api_key", "name"]
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_TITLES: dict[Kind, str] = {
    "resident_number": "a resident registration number",
    "phone": "a phone number",
    "business_number": "a business registration number",
    "bank_account": "a bank account",
    "card": "a card number",
    "email": "an e-mail address",
    "api_key": "an API key",
    "name": "a name from the policy",
}


def find(text: str, *, kinds: Iterable[Kind] = KINDS, names: Sequence[str] = ()) -> tuple[Kind, ...]:
    """Those of these kinds of which the text holds something. `names` are the user's own words."""
    read = readings(text)
    return tuple(kind for kind in kinds if any(_holds(reading, kind, names) for reading in read))


Finder = Callable[[str], bool]  # of one kind, in a text in its plainest characters


def _holds(text: str, kind: Kind, names: Sequence[str]) -> bool:
    if kind == "name":
        return holds_name(text, names)
    return FINDERS[kind](text) or (kind in BROKEN_KINDS and _over_breaks(text, kind))


def _over_breaks(text: str, kind: Kind) -> bool:
    """Numbers that a line's end parts anywhere (`010-12` and `34-5678`, also as two parts of a message), with dashes between all
    groups and none around: columns of numbers are ordinary."""
    for found in BREAK.finditer(text):
        start, after = found.span(found.lastindex or 0)
        at = max(0, start - REACH_OF_BREAKS)
        line, join = text[at:start] + text[after : after + REACH_OF_BREAKS], start - at
        for number in DASHED_NUMBER.finditer(line):
            if number.start() < join < number.end() and FINDERS[kind](number[0]):
                return True
    return False


REACH_OF_BREAKS = 20  # characters: the longest of those numbers, and one beside it
# A line's end between digits, with a dash before or behind them, and what it may part: see `_over_breaks`.
LINES_END = r"([^\S\n]{0,4}\n[^\S\n]{0,4})"
BREAK = re.compile(rf"\d-\d{{0,12}}{LINES_END}(?=\d)|(?<=\d){LINES_END}(?=\d{{0,12}}-\d)")
DASHED_NUMBER = re.compile(r"(?<![\d-])(?:01[016789]-\d{3,4}-\d{4}|\d{6}-\d{7}|\d{4}-\d{4}-\d{4}-\d{4}|\d{3}-\d{2}-\d{5})(?![\d-])")
BROKEN_KINDS = ("resident_number", "phone", "business_number", "card")
# What may stand between the groups of a number, in the plain text.
GAP = r"[\s._/~\u00b7-]{0,4}"
# Between two cells of a table or a list, whose texts may be quoted. Ordinary tables are full of numbers: what is found over cells has
# more to prove.
CELLS = r"[\s\"']{0,6}[,|:;][\s\"']{0,6}"
GAP_OR_CELLS = rf"(?:{CELLS}|{GAP})"
IN_CELLS = re.compile(r"[,|:;]")
OTHER_CELL = re.compile(r"[,|:;&=]|\A\s*\t\s*\Z")
WORD_REACH = 24  # characters before a number in which a word may say what it is
# From such a word to its number, which often is on the next line, or in the next row of a table.
REACH = r"[^\d\n]{0,20}(?:\n[^\d\n]{0,10})?"
REACH_OF_TABLES = r"[^\d\n]{0,20}(?:(?:[|\t,;][^\d\n]{0,40})?\n(?:[\s|:+-]*\n)?(?:\|[^\d\n]{0,40}|[^\d\n]{0,10}))?"
# Behind digits that are an amount of money: `3500000원`, `1234567890원을`; `원래` is none.
ITS_END = r"(?:으로|까지|부터|에서|이상|이하|입니다|이다|이야|이에요|이고|[이을은의도만에과])?(?![^\W_])"
WON = rf"[^\S\n]?원(?:정|씩)?{ITS_END}"
IN_WON = re.compile(WON)
REACH_OF_CELLS = 14  # characters, with the digit before or after them
DIGIT_BEFORE, DIGIT_AFTER = re.compile(rf"\d{GAP}\Z"), re.compile(rf"{GAP}\d")
CELL_BEFORE, CELL_AFTER = re.compile(rf"\d{GAP_OR_CELLS}\Z"), re.compile(rf"{GAP_OR_CELLS}\d")


# ---------------------------------------------------------------- resident registration numbers
# The first digit of the second half may stand alone, as in forms that mask the rest.
KEY = r"[^\W\d][\w-]{0,20}[\s\"']{0,3}[:=][\s\"']{0,3}"  # of JSON, YAML, a form
BETWEEN_HALVES = rf"{GAP_OR_CELLS}|[\s\"']{{0,3}}[,;&\n][\s\"']{{0,6}}{KEY}"
IN_WORDS = r"\D{1,20}"  # `앞자리는 900101이고 뒷자리는 1234567`
RESIDENT = re.compile(rf"(?<!\d)(?=((\d{{6}})(?:({BETWEEN_HALVES})(\d{{7}})|\s?-\s?(\d\s{{1,2}}\d{{6}})|{IN_WORDS}(\d{{7}}))(?!\d)))")
# In the boxes of a form, and with all of the birth's year: rows of digits and dates are ordinary, so that these have more to prove.
BOX = r"[^\S\n]{1,3}"
IN_BOXES = re.compile(rf"(\d(?<!\d\d)(?<!\d\s\d)(?:{BOX}\d){{5}}(?:{BOX}|\s{{0,3}}-\s{{0,3}})\d(?:{BOX}\d){{6}})(?!\s{{0,3}}\d)")
FULL_YEAR = re.compile(rf"((?:19|20)(?<!\d\d\d)\d{{6}}{GAP}\d{{7}})(?!\d)")
RESIDENT_WORDS = re.compile(r"(?<!입)주민(?!세)|외국인\s?등록|(?<![^\W_])(?:rrn|resident)", re.IGNORECASE)
CENTURIES = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900, "3": 2000, "4": 2000, "7": 2000, "8": 2000}
FIRST_BIRTH = date(1900, 1, 1)
RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _resident_numbers(text: str) -> bool:
    """Birth date and century must fit. Numbers given out since October 2020 have no checksum, so a wrong one proves nothing.

    A date and an amount in two cells look the same, and a tenth of these fit by chance: over cells the birth lies between 1900 and
    today, and of all such pairs in the text most have to fit. It lies there, too, where nothing parts the halves, as in barcodes, and
    where words do. A word before the first half says it of all of these, and is needed where words part them. Without one, halves that
    nothing or spaces part are a date and an amount where `원` is behind them.
    """
    num_in_cells = num_fitting = 0
    for match in RESIDENT.finditer(text):
        digits = match[2] + "".join((match[4] or match[5] or match[6]).split())
        born, between = _born(digits), "-" if match[5] else match[3]
        is_said = _is_said(RESIDENT_WORDS, text, match.start())
        is_amount = not is_said and between is not None and not between.strip() and IN_WON.match(text, match.end(1))
        if born is None or is_amount:
            continue
        if between and not OTHER_CELL.search(between):
            return True
        if not FIRST_BIRTH <= born <= date.today():
            continue
        if is_said:
            return True
        fits = _resident_checksum_fits(digits)
        if between:
            num_in_cells += 1
            num_fitting += fits
        elif between == "" and (fits or not _is_barcode(digits)):
            return True
    return 2 * num_fitting > num_in_cells or _resident_numbers_with_more_to_prove(text)


def _resident_numbers_with_more_to_prove(text: str) -> bool:
    """The checksum fits, or a word before them says it."""
    for pattern in (IN_BOXES, FULL_YEAR):
        for match in pattern.finditer(text):
            written = "".join(filter(str.isdecimal, match[1]))
            digits, born = written[-13:], _born(written[-13:])
            if born is None or not FIRST_BIRTH <= born <= date.today() or not f"{born:%Y%m%d}".endswith(written[:-7]):
                continue
            if _is_said(RESIDENT_WORDS, text, match.start()) or (_resident_checksum_fits(digits) and not match[1].isdecimal()):
                return True
    return False


def _born(digits: str) -> date | None:
    return _date(CENTURIES[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))


def _is_said(words: re.Pattern[str], text: str, start: int) -> bool:
    return words.search(text, max(0, start - WORD_REACH), start) is not None


def _is_barcode(digits: str) -> bool:
    """A Korean product's EAN-13: every second digit counts three times."""
    total = sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits))
    return digits.startswith("880") and total % 10 == 0


def _resident_checksum_fits(digits: str) -> bool:
    """Citizens: (11 - sum mod 11) mod 10; foreigners (5 to 8): two more. As python-stdnum has it for citizens."""
    total = sum(weight * int(digit) for weight, digit in zip(RESIDENT_WEIGHTS, digits[:12], strict=True))
    base = 13 if digits[6] in "5678" else 11
    return (base - total % 11) % 10 == int(digits[12])


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


# ---------------------------------------------------------------- phone numbers
# The library wants no Latin letter beside a number; a mobile number is one wherever it stands.
MOBILE = re.compile(rf"(?<!\d)01[016789]{GAP}\d{{3,4}}{GAP}\d{{4}}(?!\d)")
# The first cell is `010` or such, neither the end of a decimal fraction nor thousands (`1,010,345`); the rest, in one more cell or in
# two, goes on in the next line only as a cell of its own.
THOUSANDS = r"(?<=\d,)\d{3},\d{3}(?!\d)"
MOBILE_IN_CELLS = re.compile(
    rf"(?<!\d)(?<!\d\.)(?!{THOUSANDS})01[016789]({CELLS})\d{{3,4}}({CELLS}|(?!\D{{0,3}}\n){GAP})\d{{4}}(?!\d)"
)
# As spreadsheets leave it of a number, without its 0.
PHONE_WORDS = r"휴대폰|핸드폰|전화|연락처|phone|mobile|(?<![^\W_])(?:tel|hp)(?![^\W_])"
WITHOUT_ZERO = re.compile(
    rf"(?:{PHONE_WORDS}){REACH_OF_TABLES}10(?:\d{{8}}|(?P<gap>[ .-])\d{{4}}(?P=gap)\d{{4}})(?!\d|{WON})", re.IGNORECASE
)
LINE = r"[\s)._/\u00b7-]{1,3}"
GLUED = re.compile(rf"(?<!\d)([A-Za-z]?)(\(?0\d{{1,2}}{LINE}\d{{3,4}}{LINE}\d{{4}})(?!\d)([A-Za-z]?)")
UNKNOWN_GAP = re.compile(r"(?<=\d)[_\u00b7](?=\d)")  # to the library, which reads on over a dash: it is asked without one, too
FROM_ABROAD = re.compile(r"(?<!\d)(?<!0[Xx])0082(?=\D{0,3}\d)")
DECIMAL = re.compile(r"0\.\d+")


def _phones(text: str) -> bool:
    from nomoat.route.phones import phones

    if MOBILE.search(text) or WITHOUT_ZERO.search(text):
        return True
    for match in MOBILE_IN_CELLS.finditer(text):
        if not IN_CELLS.search(match[2]) or _without_spaces(match[1]) == _without_spaces(match[2]):
            return True
    forms = {text, GLUED.sub(_set_apart, FROM_ABROAD.sub("+82 ", UNKNOWN_GAP.sub("-", text)))}
    return any(not DECIMAL.fullmatch(number) for form in forms for number in phones(form))


def _set_apart(glued: re.Match[str]) -> str:
    """A number with spaces in place of the letters beside it."""
    return " " * len(glued[1]) + glued[2] + " " * len(glued[3])


def _without_spaces(gap: str) -> str:
    return "".join(gap.split())


# ---------------------------------------------------------------- business registration numbers
BUSINESS = re.compile(rf"(\d{{3}}(?<!\d{{4}}))({GAP})(\d{{2}})\2(\d{{5}})(?!\d)")
BUSINESS_WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
BUSINESS_WORDS = re.compile(r"사업자|business\s+(?:registration|reg)|\bBRN\b", re.IGNORECASE)


def _business_numbers(text: str) -> bool:
    """The checksum must fit; ten digits without separators, of which a tenth would fit by chance, need a word before them too."""
    for match in BUSINESS.finditer(text):
        digits = match[1] + match[3] + match[4]
        if (match[2] or _is_said(BUSINESS_WORDS, text, match.start())) and _business_checksum_fits(digits):
            return True
    return False


def _business_checksum_fits(digits: str) -> bool:
    """Source: National Tax Service; the ninth digit counts once more with the tens of its product."""
    total = sum(weight * int(digit) for weight, digit in zip(BUSINESS_WEIGHTS, digits[:9], strict=True))
    return (10 - (total + int(digits[8]) * 5 // 10) % 10) % 10 == int(digits[9])


# ---------------------------------------------------------------- bank accounts
# Groups on one line, always the same between them: a date and a time make no number.
LINE_GAP = r"(?:[^\S\r\n]|[._/~\u00b7-]){1,4}"
GROUPS = rf"\d{{1,5}}(?P<gap>{LINE_GAP})\d{{2,8}}(?:(?P=gap)\d{{2,8}}){{0,2}}"
NUMBER = rf"(?P<number>\d(?<!\d\d)(?:{GROUPS}|\d{{9,15}}(?!\d|{WON})))(?!\d)"
# So many people, times, pieces or cases, in ten digits, beside words that mean other things than an account, too. Behind an account
# `명의` is its holder's name, and `건` may be the matter.
COUNT = rf"(?<!\d{{11}})(?:명(?!의)|[회개]|(?<=000)건){ITS_END}"
NO_COUNT = NUMBER.replace(WON, f"{WON}|{COUNT}")
GROUPED = rf"(?P<number>\d(?<!\d\d){GROUPS})(?!\d)"
NO_PHONE = r"(?!0\d{1,2}-?\d{3,4}-?\d{4}(?!-?\d))"
YEAR, MONTH, DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
CALENDAR = MONTH + DAY
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
# Not what is called an order or a parcel right before it, or begins with a whole date: `20240115-0000123`.
NO_ORDER = rf"(?<!{ORDER}[\s:])(?<!{ORDER}번호[\s:])(?<!{ORDER}번호:\s)(?!{YEAR}{CALENDAR}-)"
# Behind a city: no parcel, and no business number, whose checksum decides.
NO_PARCEL = r"(?!(?:\d{4}-\d{4}-\d{4}|\d{3}-\d{2}-\d{5})(?![\d-]))"
PAID = (  # in a table often how an order stands
    re.compile(rf"(?:입금|송금|이체){REACH}{NO_COUNT}"),
    re.compile(rf"{NO_ORDER}{NUMBER}{TO_WORD}(?:{AMOUNT}[을만]?\s?)?{WORDS}(?:계좌|(?<!무)통장|(?<!무통장)입금|송금|이체)"),
)
ACCOUNTS = (
    re.compile(rf"(?:계좌|통장|예금주|{ACCOUNT}){REACH_OF_TABLES}{NUMBER}", re.IGNORECASE),
    re.compile(rf"(?:{BANKS}){REACH}{NUMBER}"),
    PAID[0],
    re.compile(rf"(?:{SHORT}){BESIDE}{NO_COUNT}"),
    re.compile(rf"(?:{EVERYDAY}){BESIDE}{GROUPED}"),
    re.compile(rf"(?:{UNITS}{BESIDE}|{DOUBTFUL}{BESIDE}{NO_PHONE}){DASHED}"),
    re.compile(rf"{DOUBTFUL}으로{BESIDE}{GROUPED}"),
    re.compile(rf"{CITIES}[ :]{{1,3}}{NO_PARCEL}{NO_PHONE}{DASHED}"),
    re.compile(rf"(?:우리|하나|기업)[\s:]{{0,3}}{NO_COUNT}"),
    re.compile(rf"{NUMBER}[\s()\[\],:/]{{0,4}}\w{{0,6}}(?:{BANKS}|예금주)"),
    PAID[1],
    re.compile(rf"{NUMBER}\s?으?로\s?(?:{AMOUNT}|무통장)"),
    re.compile(rf"환불[은: \n]{{0,3}}{NO_PHONE}{DASHED}"),
    re.compile(
        rf"{NO_ORDER}(?<!번호[\s:])(?<!번호:\s){NO_PHONE}{NUMBER}\s?으?로\s?(?:(?:전액|전부|일부|부분|바로|즉시|꼭|빨리|다시)\s?)?환불"
    ),
    re.compile(rf"{NO_ORDER}{NUMBER}{TO_WORD}{WHOSE}(?>{ACCOUNT})(?![\"']?\s?[:=])", re.IGNORECASE),
    re.compile(rf"{GROUPED}{BEHIND}(?:(?:{SHORT})(?![a-zA-Z])|(?:{EVERYDAY}){ENDS}|{DOUBTFUL}(?:으로|\s?통장))"),
    re.compile(rf"{DASHED}{BEHIND}{UNITS}{ENDS}"),
    re.compile(rf"{NO_PHONE}{DASHED}{BEHIND}{DOUBTFUL}{ENDS}"),
)
ONE_NUMBER = re.compile(NUMBER)
ACCOUNT_DIGITS = range(10, 17)
TEN_DIGITS = re.compile(rf"\d(?:(?:{LINE_GAP})?\d){{9,}}+")  # without them there is no account
DIGITS = re.compile(r"\d+")
# `1234567890.12`: what has a decimal point. `1234567890123.4월` is an account, a full stop and a date.
FRACTION_ENDS = r"(?!\d|[^\S\n]?[\uac00-\ud7a3])"
DECIMALS, NO_MORE = re.compile(rf"\.\d+{FRACTION_ENDS}"), re.compile(FRACTION_ENDS)
CLOCK = r"(?:[01]\d|2[0-3])(?:-?[0-5]\d){0,2}"
DATE = rf"(?:{YEAR}-{MONTH}-{DAY}|{YEAR}{CALENDAR})"
# Groups that are years, or a date and with it a time, another date or a year. Accounts often have one group that looks like a year.
TIMES = re.compile(rf"{YEAR}(?:-{YEAR})+|{DATE}(?:-(?:{CLOCK}|{DATE}|{YEAR}))?")
TIMESTAMP = re.compile(rf"{YEAR}{CALENDAR}(?:[01]\d|2[0-3])(?:[0-5]\d){{1,2}}\d{{0,3}}")
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


def _bank_accounts(text: str) -> bool:
    has_orders = False
    for pattern in ACCOUNTS if TEN_DIGITS.search(text) else ():
        for match in filter(_is_account, pattern.finditer(text)):
            if pattern not in PAID or not is_order_cell(match):
                return True
            has_orders = True
    if has_orders:  # a word reaches the first number only, which an order may be before an account
        without = ONE_NUMBER.sub(lambda match: "" if is_order_cell(match) else match[0], text)
        if any(_is_account(match) and not is_order_cell(match) for pattern in PAID for match in pattern.finditer(without)):
            return True
    return _ibans(text)


def _is_account(match: re.Match[str]) -> bool:
    """Whether a number that a bank's word is beside can be one."""
    groups = DIGITS.findall(match["number"])
    return sum(map(len, groups)) in ACCOUNT_DIGITS and not (_is_time(groups) or _is_decimal(match, groups))


def _is_time(groups: Sequence[str]) -> bool:
    """Years, or a date and a time, in their order: an account that looks so is not seen."""
    return (TIMESTAMP if len(groups) == 1 else TIMES).fullmatch("-".join(groups)) is not None


def _is_decimal(match: re.Match[str], groups: Sequence[str]) -> bool:
    if not match["gap"]:
        return DECIMALS.match(match.string, match.end("number")) is not None
    return match["gap"] == "." and len(groups) == 2 and NO_MORE.match(match.string, match.end("number")) is not None


def _ibans(text: str) -> bool:
    """As many characters as the country has, whatever follows them; more digits than letters tell them from words."""
    for start in IBAN_START.finditer(text):
        more = IBAN_LENGTHS.get(start[1].upper(), 0) - len(start[0])
        found = re.compile(rf"(?:{GAP}[A-Za-z0-9]){{{more}}}(?![A-Za-z0-9])").match(text, start.end()) if more > 0 else None
        if found is not None:
            number = "".join(filter(str.isalnum, text[start.start() : found.end()]))
            if 2 * sum(map(str.isdecimal, number)) > len(number) and _iban_checksum_fits(number):
                return True
    return False


def _iban_checksum_fits(number: str) -> bool:
    """ISO 13616: letters become 10 to 35, the first four characters go to the end, and the whole is 1 modulo 97."""
    return int("".join(str(int(character, 36)) for character in number[4:] + number[:4])) % 97 == 1


# ---------------------------------------------------------------- card numbers
ISSUERS = {14: r"3[0689]", 15: r"3[47]|2131|1800", 16: r"3|4|5|6|9|2(?:2[2-9]|[3-6]|7[01]|720)", 19: r"4|62"}
ROW, CARD_START = re.compile(r"\d+(?:[ -]\d+)*"), re.compile(r"\d{4,}")
SHAPES = ((4, 4, 4, 4), (4, 4, 4, 4, 3), (6, 13), (4, 6, 4), (4, 6, 5))  # digits of each group on a card; written in one piece, too
AS_PRINTED = tuple(re.compile(f"({GAP_OR_CELLS})".join(rf"\d{{{count}}}" for count in shape) + r"(?!\d)") for shape in SHAPES)


def _cards(text: str) -> bool:
    """An issuer's first digits, an issuer's length, and Luhn's checksum. 9: cards for use within Korea.

    Where other digits stand before or after, such as a date or a second card, it must be in one piece or in groups as cards have them:
    a tenth of all numbers fit the checksum by chance.
    """
    if any(_is_card(row[0]) for row in ROW.finditer(text)):
        return True
    for start in CARD_START.finditer(text):
        for found in filter(None, (pattern.match(text, start.start()) for pattern in AS_PRINTED)):
            if _is_card(found[0]) and _belongs_together(text, *found.span(), gaps=found.groups()):
                return True
    return False


def _is_card(number: str) -> bool:
    digits = "".join(filter(str.isdecimal, number))
    return len(digits) in ISSUERS and re.match(ISSUERS[len(digits)], digits) is not None and _luhn_fits(digits)


def _belongs_together(text: str, start: int, end: int, *, gaps: Sequence[str]) -> bool:
    """The same between all groups. A card may go on in the next line, or in further cells, where no digits stand before it or none
    after: no table. Numbers beside it in other cells count where it stands in cells itself."""
    if len({_without_spaces(gap) or (gap and " ") for gap in gaps}) > 1 or text.count("\n", start, end) > 1:
        return False
    is_in_cells = any(map(IN_CELLS.search, gaps))
    if "\n" not in text[start:end] and not is_in_cells:
        return True
    before, after = (CELL_BEFORE, CELL_AFTER) if is_in_cells else (DIGIT_BEFORE, DIGIT_AFTER)
    return not (before.search(text, max(0, start - REACH_OF_CELLS), start) and after.match(text, end))


def _luhn_fits(digits: str) -> bool:
    """ISO/IEC 7812-1: from the right, every second digit counts twice, its digits added."""
    doubled = (int(digit) * (2 if at % 2 else 1) for at, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


# ---------------------------------------------------------------- e-mail addresses, keys
# Names and hosts in letters of any script, some of which have marks; of Korean ends there are these four, and everyday words may stand
# behind an `@` and a dot.
MARKS = r"\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
LETTERS = rf"(?:[^\W\d_\u1100-\u11ff\uac00-\ud7a3]|[{MARKS}]){{2,}}"
EMAIL = re.compile(
    rf"(?<![\w{MARKS}.%+-])[\w{MARKS}.%+-]+@[\w{MARKS}-]+(?:\.[\w{MARKS}-]+)*\.(?:[A-Za-z]{{2,}}|한국|삼성|닷컴|닷넷|{LETTERS})"
)

# So that machines do not read it. Python multiplies with ` @ `, hence only these ends, and what goes on as code does is none.
HOSTS = r"(?:[A-Za-z0-9-]{1,63}(?:\s?[(\[]dot[)\]]\s?|[.\u3002\uff61])){1,3}(?:com|net|org|kr)(?![A-Za-z0-9])"
AT = r"@|\s?(?:\(at\)|\[at\]|골뱅이)\s?"
SPACED = r"(?:[^\S\n]@\s?|@\s)(?!(?:self|cls)\.)"
EMAIL_FOR_PEOPLE = re.compile(
    rf"(?<![\w.%+-])[\w.%+-]{{1,64}}(?:(?P<spaced>{SPACED})|{AT}){HOSTS}(?(spaced)(?![.(\[][A-Za-z0-9_]))", re.IGNORECASE
)
REPOSITORY = re.compile(r"[:/]\w")  # behind `git@host`
IMAGE = re.compile(r".*@\d(?:\.\d)?x\.(?:png|jpe?g|gif|webp|avif|svg)", re.IGNORECASE)  # of more dots to the inch: `icon@2x.png`


def _emails(text: str) -> bool:
    return any(not _is_no_email(match) for pattern in (EMAIL, EMAIL_FOR_PEOPLE) for match in pattern.finditer(text))


def _is_no_email(match: re.Match[str]) -> bool:
    text, end = match.string, match.end()
    if match[0].startswith("git@"):
        return REPOSITORY.match(text, end) is not None
    return IMAGE.fullmatch(match[0]) is not None and not text.startswith("@", end)


# Of OpenAI, Anthropic and whoever writes them so, AWS, GitHub, GitLab, Google, Slack, Hugging Face; private keys in PEM.
API_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?=[\w-]{0,40}[A-Z])(?=[\w-]{0,40}\d)[A-Za-z0-9_-]{20,250}"
    r"|sk-(?:[a-z0-9]{1,12}-){0,3}(?=[a-z]*\d+[a-z]+(?:[a-z]*\d){2})[a-z0-9]{24}"  # hex and the like: no word has digits in two places
    r"|A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9])"
    r"|gh[opsur]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,90}|glpat-[A-Za-z0-9_-]{20}|AIza[A-Za-z0-9_-]{35}|xox[abprs]-[A-Za-z0-9-]{20,90}|hf_[A-Za-z0-9]{34})"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"
)


def _api_keys(text: str) -> bool:
    return API_KEY.search(text) is not None


FINDERS: dict[Kind, Finder] = {
    "resident_number": _resident_numbers,
    "phone": _phones,
    "business_number": _business_numbers,
    "bank_account": _bank_accounts,
    "card": _cards,
    "email": _emails,
    "api_key": _api_keys,
}
