"""Keys and passwords that have no form of their own: what names them says that they are.

What this does not cover: passwords of letters alone, of digits alone but behind Korean words, of fewer than six characters, with
brackets, quotes, commas or spaces in them, and such as everybody writes into examples (`password123`, `elastic1`); users' sessions.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from itertools import pairwise

# Most texts hold none of the words that both patterns begin with, and are not searched.
KEY_WORDS = ("key", "token", "secret", "authorization", "bearer", "basic", "키", "토큰", "시크릿")
PASSWORD_WORDS = ("pass", "pwd", "pw", "identified", "-u", "mysql", "mariadb", "redis-cli", "비밀", "비번", "패스워드", "암호")
QUOTE = r"\\?[\"'`]"
IS = rf"(?:{QUOTE}\]?)?(?:\s{{0,3}}(?::=|=>|=|:(?!:))\s{{0,3}}|>|\s{{1,12}}value\s?[:=]\s?)"
IS_SAID = rf"(?:{IS}|\s(?:is|was)\s{{0,3}}:?\s{{0,3}}|\s?(?:은|는|이|가)\s{{0,3}}:?\s{{0,3}})"
IS_SAID_IN_KOREAN = rf"(?:{IS}|\s?(?:은|는|이|가|를|을)?\s{{0,3}}[:=]?\s{{0,3}})"
OPENS = rf"(?:[bfru]?{QUOTE})?"
# `암호` is a cipher, too: only where something is said of it.
KOREAN = r"(?P<korean>비밀\s?번호|비번|패스워드|암호(?=[\s\"']{0,2}[:=(은는이가]))"
NOTE = r"(?:\s?\([^()\n]{1,20}\)(?=\s?[:=은는이가]))?"  # `비밀번호(임시): `

KEY = re.compile(
    r"(?:(?:(?:api|app|secret|access|auth|account|client|consumer|private|rest|service|refresh|signing|encryption|master|storage"
    r"|webhook|admin|bot|subscription|deploy|personal|openai|anthropic|claude|gemini|azure|mistral|groq|deepseek|cohere)"
    r"[ _-]?(?:access[ _-]?)?(?:key|token|secret)|(?<![A-Za-z])(?:token|secret)|authorization)"
    rf"(?:{IS_SAID}|{QUOTE}\s?,\s?)|-{{2}}[a-z-]{{0,20}}(?:key|token|secret)[\s=]{{1,3}}"
    rf"|(?:키|토큰|시크릿){IS_SAID_IN_KOREAN}|(?<![A-Za-z])(?:Bearer|Basic)\s{{1,3}})"
    rf"{OPENS}(?:(?:Bearer|Basic|Token|Bot)\s{{1,3}})?(?P<key>[A-Za-z0-9+/_.~-]{{10,300}}+)={{0,2}}+(?![(\[{{])",
    re.IGNORECASE,
)
PASSWORD = re.compile(
    rf"(?:(?:pass(?:word|(?<!etc/pass)wd|phrase|code)|pwd|(?-i:(?<=[A-Z0-9]_)PASS))(?:\s(?:for|to|of|on)\s[\w ./-]{{1,30}}?)?{IS_SAID}"
    rf"|(?:(?<![A-Za-z_])pw(?=:(?!:)|[\s\\\"'=은는이가를을])|{KOREAN}{NOTE}){IS_SAID_IN_KOREAN}"
    rf"|(?<=[A-Za-z0-9]_)pw{IS}|(?<![A-Za-z])pass{IS}(?=[bfru]?{QUOTE})"
    r"|(?:(?:(?:create|alter)\s{1,3}user|grant\s{1,3}all)\b[^;\n]{0,80}?identified|(?-i:IDENTIFIED))"
    rf"\s{{1,3}}by\s{{1,3}}(?={QUOTE})"
    rf"|(?:-{{2}}password|(?<![A-Za-z])password|sshpass\s{{1,3}}-p)\s{{1,3}}(?={QUOTE})"
    rf"|-{{2}}password\s{{1,3}}|sshpass\s{{1,3}}-p\s?"
    rf"|(?:define|put|set\w{{0,10}})\(\s?{QUOTE}[\w.-]{{0,30}}password{QUOTE}\s?,\s?"
    rf"|(?:mysql\w{{0,6}}|mariadb)\s[^\n|]{{0,60}}?(?<=\s)-p|redis-cli\s[^\n|]{{0,60}}?-a\s{{1,3}}"
    rf"|(?<![\w-])(?:-u|-{{2}}user)\s{{0,3}}{OPENS}[\w.@-]{{1,40}}:)"
    rf"{OPENS}(?P<password>[!#-&*-+./0-:=?-Z^-_a-z~-]{{4,64}}+)(?![(\[{{\\])",
    re.IGNORECASE,
)
IN_ADDRESS = re.compile(r"://(?P<user>[^\s/:@'\"`<>{}]{0,64}):(?P<password>[^\s/@'\"`<>{}]{3,100})@(?=[\w\[])")

PLACEHOLDER = re.compile(
    r"x{3}|\*{3}|\.{3}|your|example|placeholder|change.?me|dummy|sample|redacted|insert|replace|foobar|open.?sesame|here\Z",
    re.IGNORECASE,
)
COUNTED = re.compile(r"12345678|abcdefgh", re.IGNORECASE)
# What is left of a password of an example without these is a short number.
EVERYDAY = re.compile(
    r"my|the|this|test(?:ing)?|user(?:name)?|db|database|postgres|mysql|redis|admin|root|guest|new|old|some|app|api|secret|super|strong"
    r"|safe|secure|(?:bad|wrong|correct|in?valid)|login|default|password|passwd|passphrase|pass|pwd|pw"
    r"|keys?|tokens?|string|value|hash|input|form|field|page|[\W_]",
    re.IGNORECASE,
)
CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|.*://.*|[$%*&!{<].*|pass(?:word|wd)[A-Za-z]\w*"
    # Paths, behind a port, too; `env:DB_PASS2`, `vault:…`, lines of /etc/passwd; names such as `rpassword::read2`.
    r"|(?:[.~]{0,2}|\d{2,5})/.*|(?:\d+:)?[a-z]{2,8}:.*|\w*(?:::\w+)+"
    # Versions, dates, measures, arithmetic, and `12-character`.
    r"|v?\d+(?:\.\d+){1,3}[\w+-]*|\d{4}-\d\d-\d\d.*|\d{1,5}(?:[cdgkmnptu]?(?:[smwgvba]|hz|ib|wh|bits?|bytes?)|min|sec|rpm|px)"
    r"|\d*\.\d+[*/+-]\w+|\w+[*/+-]\d*\.\d+|[a-z]\w{0,2}[*/+@][a-z]\w{0,2}|\d{1,3}[+~-][\d+~-]*[a-z-]+"
    # Ways to encrypt and to sign in, and types.
    r"|(?:[a-z0-9]+[/_-])*(?:sha|aes|aria|lea|des|chacha|md|rsa|pbkdf|argon|base|utf|tls|oauth|fido|wpa"
    r"|text|u?int|float|char|varchar)-?\d[\w./+-]*"
    # What examples write for letters of `password` and `secret`.
    r"|(?:p(?:[a@4]|%40)ssw[o0]rd|p(?:@|%40)ss|(?:t[o0]p\W?)?s[e3]cr[e3]t)!?(?:1|123|1234)?!?@?",
    re.IGNORECASE,
)
# A word or several with 1, 123 and such behind, and several in which there is one digit (`2FA-protected`): settings, rules, examples.
WORDS = re.compile(
    r"[a-z]+(?:[_.-][a-z]+)*[_.-]?(?:\d|12|1234?)|(?=\D*\d\D*\Z)[a-z\d]+(?:[_.-][a-z\d]+)+",
    re.IGNORECASE,
)
COUNTER = re.compile(r"\s?(?:자리|글자|자\b|개|회|번|원|년|월|일|분|초|시간|비트|바이트|-|~|\d)")
PIN = re.compile(r"\d{4,8}[*#]?")


def holds_password(text: str) -> bool:
    lowered = text.lower()
    return (
        (_has(KEY_WORDS, lowered) and any(map(_is_said_key, KEY.finditer(text))))
        or (_has(PASSWORD_WORDS, lowered) and any(map(_is_said_password, PASSWORD.finditer(text))))
        # With the `@` behind it, for which a sign at its end is one within it.
        or any(
            _is_password(f"{found['password']}@")
            for found in IN_ADDRESS.finditer(text)
            if found["user"] != found["password"] and not _is_words(found["password"])
        )
    )


def _has(words: Sequence[str], lowered: str) -> bool:
    return any(word in lowered for word in words)


def _is_said_key(found: re.Match[str]) -> bool:
    value, start = found["key"], found.start("key")
    if found.string[max(0, start - 8) : start].rstrip().lower().endswith("basic") and _is_basic_example(value):
        return False
    return _is_key(value)


def _is_basic_example(value: str) -> bool:
    """Whether the password that HTTP's Basic encodes is of everyday words alone (`user:pass`)."""
    try:
        password = base64.b64decode(f"{value}==").decode("utf-8", "replace").partition(":")[2]
    except ValueError:
        return False
    return password != "" and (PLACEHOLDER.search(password) is not None or EVERYDAY.sub("", password) == "")


def _is_key(value: str) -> bool:
    """Letters and digits as chance mixes them: hexadecimal ones, or of capitals, small letters and digits in turn."""
    value = value.rstrip(".-")
    if PLACEHOLDER.search(value) or COUNTED.search(value) or CODE.fullmatch(value) or "//" in value:
        return False
    kinds = "".join(map(_kind, value))
    if not set("aA") & set(kinds) or "1" not in kinds:
        return False
    if re.fullmatch(r"[0-9a-f-]{32,}|[0-9A-F-]{32,}", value):
        return True
    mixed = sum(one != other and "-" not in (one, other) for one, other in pairwise(kinds)) / (len(kinds) - 1)
    return mixed >= 0.35 if len(value) >= 24 else mixed >= 0.45 and set("aA1") <= set(kinds)


def _kind(character: str) -> str:
    if character.isdecimal():
        return "1"
    return "-" if not character.isalpha() else "A" if character.isupper() else "a"


def _is_said_password(found: re.Match[str]) -> bool:
    value, end = found["password"], found.end("password")
    if found["korean"] and PIN.fullmatch(value):
        # `1234` and `0000` stand for all that are easy.
        return value not in "01234567890" and len(set(value)) > 1 and COUNTER.match(found.string, end) is None
    value = re.split(r"&(?=\w+=)", value)[0]
    # Behind Korean words people say their own passwords; behind English ones programs and examples have theirs.
    return len(value) >= 6 and (bool(found["korean"]) or not _is_words(value)) and _is_password(value)


def _is_words(value: str) -> bool:
    return WORDS.fullmatch(value.rstrip(".:?").removeprefix("-")) is not None


def _is_password(value: str) -> bool:
    """Letters, and digits or signs within; nothing that a program reads, and no example."""
    value = value.rstrip(".:?").removeprefix("-")
    if CODE.fullmatch(value) or PLACEHOLDER.search(value):
        return False
    if not re.search("[A-Za-z]", value) or not re.search(r"\d|(?<=.)[!@#$^~](?=.)", value):
        return False
    return re.fullmatch(r"\d|1?23\d*", EVERYDAY.sub("", value)) is None and EVERYDAY.sub("", value) != ""
