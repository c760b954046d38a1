"""Korean banks and securities firms beside which a number is an account, as parts of patterns, by what else the word may mean.

What this does not cover: banks and firms of other countries.
"""

from __future__ import annotations

# The post office carries parcels and registered mail, too: right behind it, or as what the number is called, or as what one is said
# of that is as those of parcels are (its accounts have 14 digits).
CARRIED, PARCEL = "(?:등기|송장|소포|주문|접수|택배|EMS)", r"(?:\d{13}|\d{4}-\d{4}-\d{5}|\d{5}-\d{4}-\d{4})(?![\d-])"
POST_BANK = (
    r"우체국(?!\s?(?:택배(?!비)|쇼핑|소포|EMS|등기(?!비))"
    rf"|[^\d\n]{{0,20}}{CARRIED}"
    rf"(?:(?:우편)?\s?번호[은는이가]?[^\w\n]{{0,5}}\d|(?:우편)?[은는:]?\s?\d|[^\d\n]{{0,16}}{PARCEL}))"
)
BANKS = rf"은행|뱅크|농협|수협|신협|축협|새마을금고|{POST_BANK}|산림조합"
# In Latin letters a word of its own, in any case.
START, END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z])"
SHORT = (
    rf"국민|신한|카카오|토스|카뱅|케뱅|토뱅|씨티|SC제일|{START}(?i:IBK|Shinhan|Kookmin|Nong\s?hyup|Su\s?hyup|Shin\s?hyup|Saemaul"
    rf"|Standard\sChartered|(?:Kakao|Toss|Woori|Hana|Citi|IBK|KB|NH|iM|K)bank){END}"
)
EVERYDAY = rf"우리|하나|기업|제일|산업|새마을|외환|{START}(?i:Woori){END}"  # words, and 하나 a number
# Units of memory and of weight, beginnings of part numbers and of addresses on the web, and words of other languages.
UNITS = rf"{START}(?:KB|NH|SC){END}"
DOUBTFUL = rf"(?:{UNITS}|{START}(?:(?<!\d\s)MG|kb|nh|(?i:Hana|Toss|Kakao|Citi))(?![_/-]){END})"
# At the ends of names; `증권` is a paper, too.
KOREAN_FIRMS, OTHER_FIRMS = rf"(?:증권|금융투자|{START}CMA(?![_/-]){END})", rf"{START}(?i:securities)(?![_/-]){END}"
SECURITIES = rf"(?:{KOREAN_FIRMS}|{OTHER_FIRMS})"
CITIES = (  # and provinces
    r"(?<![\uac00-\ud7a3])(?:부산|경남|대구|광주|전북|제주"
    rf"|{START}(?i:Busan|(?:Kyong|Kyung|Gyeong)nam|Daegu|[GK]wangju|Jeonbuk|Jeju){END})"
)
