"""E-mail addresses."""

from __future__ import annotations

import re

# Names and hosts in letters of any script, some of which have marks; of Korean ends there are these four, and everyday words may stand
# behind an `@` and a dot.
MARKS = r"\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
LETTERS = rf"(?:[^\W\d_\u1100-\u11ff\uac00-\ud7a3]|[{MARKS}]){{2,}}"
EMAIL = re.compile(
    rf"(?<![\w{MARKS}.%+-])[\w{MARKS}.%+-]+@[\w{MARKS}-]+(?:\.[\w{MARKS}-]+)*\.(?:[A-Za-z]{{2,}}|한국|삼성|닷컴|닷넷|{LETTERS})"
)

# So that machines do not read it. Python multiplies with ` @ `, hence only these ends, and what goes on as code does is none.
DOT = r"(?:\s?[(\[{]\s?(?:dot|점|닷)\s?[)\]}]\s?|\s?[점닷]\s?|[.\u3002\uff61]\n?)"
HOSTS = rf"(?:[A-Za-z0-9-]{{1,63}}{DOT}){{1,3}}(?:com|net|org|kr)(?![A-Za-z0-9])"
AT = r"@|\s?(?:[(\[{<]\s?(?:at|골뱅이|@)\s?[)\]}>]|골뱅이)\s?"
# In the next line `@` begins a decorator, too, which may end in `.net`.
SPACED = r"(?:[^\S\n]@\s?|@\s|\n@(?![\w.-]*\.net\b))(?!(?:self|cls)\.)"
EMAIL_FOR_PEOPLE = re.compile(
    rf"(?<![\w.%+-])[\w.%+-]{{1,64}}(?:(?P<spaced>{SPACED})|{AT}){HOSTS}(?(spaced)(?![.(\[][A-Za-z0-9_]))", re.IGNORECASE
)
AT_SIGN = re.compile(r"@|골뱅이|[(\[{<]\s?at\s?[)\]}>]", re.IGNORECASE)
REPOSITORY = re.compile(r"[:/]\w")  # behind `git@host`
# Behind the `@` there is no host: images of more dots to the inch (`icon@2x.png`), files (`vue@next.js`), versions (`pkg@v1.2.io`).
# A version goes on as no host does (`8.5.0-28.el8_10.alma`; `163.126.com` is one).
HOST_ENDS = r"(?:\.\d{1,4})*(?:\.[a-z][a-z-]*)*\.(?-i:[a-z]{2,})\Z"
NO_HOST = re.compile(
    r".*@(?:\d(?:\.\d)?x\.(?:png|jpe?g|gif|webp|avif|svg)|.*\.(?:[cm]?js|jsx|tsx?|css|json|html?|ya?ml|toml)"
    rf"|v\d{{1,4}}(?:\.\d{{1,4}})+\.io|v?\d{{1,4}}\.\d{{1,4}}(?![A-Za-z0-9])(?!{HOST_ENDS}).*)",
    re.IGNORECASE,
)
# For examples, says RFC 2606. A capital may begin the next sentence: `kim@naver.com.Test it`.
RESERVED = re.compile(r"(?<![\w-])(?:(?i:example\.(?:com|net|org))|example|invalid|localhost|test|EXAMPLE|INVALID|LOCALHOST|TEST)\Z")

NOBODY = re.compile(r"(?:no|do-?not)[._-]?reply@", re.IGNORECASE)  # nobody reads what is sent there


def holds_email(text: str) -> bool:
    if AT_SIGN.search(text) is None:
        return False
    return any(not _is_no_email(match) for pattern in (EMAIL, EMAIL_FOR_PEOPLE) for match in pattern.finditer(text))


def _is_no_email(match: re.Match[str]) -> bool:
    text, end = match.string, match.end()
    if match[0].startswith("git@"):
        return REPOSITORY.match(text, end) is not None
    is_none = NO_HOST.fullmatch(match[0]) or RESERVED.search(match[0]) or NOBODY.match(match[0])
    return is_none is not None and not text.startswith("@", end)
