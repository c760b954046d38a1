"""Keys and passwords that have no form of their own: what names them says that they are.

What this does not cover: passwords of letters alone, of digits alone but behind Korean words, of fewer than six characters, with
brackets, quotes, commas or spaces in them, and such as everybody writes into examples (`password123`, `elastic1`); users' sessions.
"""

from __future__ import annotations

import base64
import re
from itertools import pairwise

from nomoat.route.pii.columns import cells_under
from nomoat.route.pii.sought import Near, has_any, small_letters

QUOTE = r"\\?[\"'`]"
IS = rf"(?:{QUOTE}\]?)?(?:\s{{0,3}}(?::=|=>|=|:(?!:))\s{{0,3}}|>|\s{{1,12}}value\s?[:=]\s?)"
IS_SAID = rf"(?:{IS}|\s(?:is|was)\s{{0,3}}:?\s{{0,3}}|\s?(?:은|는|이|가)\s{{0,3}}:?\s{{0,3}})"
IS_SAID_IN_KOREAN = rf"(?:{IS}|\s?(?:은|는|이|가|를|을)?\s{{0,3}}[:=]?\s{{0,3}})"
OPENS = rf"(?:[bfru]?{QUOTE})?"
# `암호` is a cipher, too: only where something is said of it.
KOREAN = r"(?P<korean>비밀\s?번호|비번|패스워드|암호(?=[\s\"']{0,2}[:=(은는이가]))"
NOTE = r"(?:\s?\([^()\n]{1,20}\)(?=\s?[:=은는이가]))?"  # `비밀번호(임시): `

KEY = re.compile(
    rf"(?:authorization(?:{IS}){OPENS}[A-Za-z][A-Za-z-]{{1,19}}\s{{1,3}}"  # and a scheme: Kakao's is `KakaoAK`
    r"|(?:(?:api|app|secret|access|auth|account|client|consumer|private|rest|service|refresh|signing|encryption|master|storage"
    r"|webhook|admin|bot|subscription|deploy|personal|openai|anthropic|claude|gemini|azure|mistral|groq|deepseek|cohere"
    r"|security|crtfc|aes|hmac|crypto|cipher|(?<![A-Za-z])(?:aria|lea|seed|des|enc|jwt))"
    r"[ ._-]?(?:access[ ._-]?)?(?:key|token|secret)|(?<![A-Za-z])(?:token|secret)|authorization)"
    rf"(?:{IS_SAID}|{QUOTE}\s?,\s?)|-{{2}}[a-z-]{{0,20}}(?:key|token|secret)[\s=]{{1,3}}"
    rf"|(?:키|토큰|시크릿){NOTE}{IS_SAID_IN_KOREAN}|(?<![A-Za-z])(?:Bearer|Basic)\s{{1,3}})"
    rf"{OPENS}(?:(?:Bearer|Basic|Token|Bot)\s{{1,3}})?(?P<key>[A-Za-z0-9+/_.~-]{{10,300}}+)={{0,2}}+(?![(\[{{])",
    re.IGNORECASE,
)
# `user:password` in base64, as Docker's and npm's files have it; as HTTP has it is a `KEY`.
PAIR = re.compile(rf"(?:{QUOTE}auth{QUOTE}|(?<![A-Za-z0-9])_auth)\s{{0,3}}[:=]\s{{0,3}}{OPENS}(?P<key>[A-Za-z0-9+/]{{8,300}}+)")
# `CREATE USER core IDENTIFIED BY …`, Oracle's, whose passwords need no quotes.
USER = r"[\w.$#@%\"'`-]{1,60}"
OF_USER = (
    rf"(?:(?:create|alter)\s{{1,3}}(?:user|role)|grant\s[\w\s,]{{1,60}}?\sto|connect\s{{1,3}}to)\s{{1,20}}(?:if\snot\sexists\s)?{USER}"
)
IDENTIFIED_BY = rf"\s{{1,20}}identified\s{{1,20}}(?:with\s{{1,3}}{USER}\s{{1,20}})?by\s{{1,20}}"
# The arguments before a password, in Java and in Python.
NAME = rf"\s{{0,20}}(?:{QUOTE}[^\"'`\n]{{0,60}}{QUOTE}|[\w.]{{1,40}})\s?,\s{{0,20}}"
VALUE = r"[!#-&*-+./0-:=?-Z^-_a-z~-]{4,64}+"
CONNECT = rf"(?:getConnection\([^;]{{1,200}}?,|oracle(?:db)?\.connect\(){NAME}"
SAME_COMMAND = r"(?:[^\n|&;\\]|\\\n){0,120}?"
PASSWORD = re.compile(
    rf"(?:(?:pass(?:word|(?<!etc/pass)wd|phrase|code)|pwd|(?-i:(?<=[A-Z0-9]_)PASS))(?:\s(?:for|to|of|on)\s[\w ./-]{{1,30}}?)?{IS_SAID}"
    rf"|(?:(?<![A-Za-z_])pw(?=:(?!:)|[\s\\\"'=은는이가를을])|{KOREAN}{NOTE}){IS_SAID_IN_KOREAN}"
    rf"|(?<=[A-Za-z0-9]_)pw{IS}|(?<![A-Za-z])pass{IS}(?=[bfru]?{QUOTE})"
    rf"|(?:ansible_\w{{1,30}}?|ssh|db|database|s?ftp|smtp|mail|ldap|redis|mysql|root|admin|sudo|become|user|proxy)[_.-]?pass{IS}"
    r"|(?:(?:(?:create|alter)\s{1,3}user|grant\s{1,3}all)\b[^;\n]{0,80}?identified|(?-i:IDENTIFIED))"
    rf"\s{{1,3}}by\s{{1,3}}(?={QUOTE})"
    rf"|{OF_USER}{IDENTIFIED_BY}"
    rf"|(?:(?<![A-Za-z])password|sshpass\s{{1,3}}-p)\s{{1,3}}(?={QUOTE})"
    rf"|-{{2}}password\s{{1,3}}|sshpass\s{{1,3}}-p\s?|requirepass\s{{1,3}}"
    # Java's `-storepass`, openssl's `-passin pass:`, and the `login` of .netrc and of Docker.
    rf"|(?<![\w-])-{{1,2}}(?:(?:src|dest)?(?:store|key)pass\s{{1,3}}|pass(?:in|out)?[\s=]{{1,3}}{QUOTE}?pass:)"
    rf"|(?<![A-Za-z])login\s{{1,20}}(?!anonymous\s)[^\s\"'(),]{{1,80}}\s{{1,20}}password\s{{1,3}}"
    rf"|(?<![\w-])(?:docker|podman|nerdctl|buildah|oras|helm|oc|cf|az|acr)\s(?:registry\s)?login[^\S\n]{SAME_COMMAND}(?<=\s)-p[\s=]{{0,3}}"
    rf"|(?:set|with|\.)\w{{0,20}}(?:password|passwd|pwd)\(\s{{0,20}}(?={QUOTE})|{CONNECT}(?={QUOTE})"
    rf"|(?:define|put|set\w{{0,10}})\(\s?{QUOTE}[\w.-]{{0,30}}password{QUOTE}\s?,\s?"
    rf"|(?:mysql\w{{0,6}}|mariadb)\s[^\n|]{{0,60}}?(?<=\s)-p|redis-cli\s[^\n|]{{0,60}}?-a\s{{1,3}}"
    rf"|(?<![\w-])(?:-u|-{{2}}user)\s{{0,3}}{OPENS}[\w.@-]{{1,40}}:)"
    rf"{OPENS}(?P<password>{VALUE})(?![(\[{{\\])",
    re.IGNORECASE,
)
# What a line or a turn asks for, and the next one is; and what heads a column.
CIPHER = r"암호(?:화|문(?![구자장])|학|명|\s?(?:화폐|자산|해독|알고리즘|체계|방식|모듈|기술))"
WORD = rf"(?:(?P<korean>비밀\s?번호|비번|패스워드|(?!{CIPHER})암호)|pass(?:word|phrase|code)|passwd|pwd|pw(?![A-Za-z]))"
ASKED = re.compile(
    rf"{WORD}(?P<of_it>[^\n]{{0,42}}?)(?:(?<=[?:요오줘])|(?<=[요오줘][.!]))[^\S\n]{{0,3}}\n"
    rf"\s{{0,3}}(?P<password>{VALUE})[^\S\n]{{0,3}}(?![^\n])",
    re.IGNORECASE,
)
# What is asked last of it, to which digits are no password: `비밀번호 오류 코드가 뭐죠?`, but `오류입니다. 다시 입력해 주세요`.
# And when it was, in the same sentence, to which years and dates are none, but to `몇 년생으로 했어요?`. Neither where the password is
# itself asked for right behind the word: `비밀번호 알려 주세요. 접수번호는 나중에 주셔도 돼요`.
ASKS_OTHER = re.compile(
    r"(?:(?:접수|인증|내선|오류|에러)\s?(?:번호|코드)|포트(?!폴)|내선(?!으로)|길이|횟수"
    r"|몇\s?(?:회|초|비트|번(?:이나)?\s(?:틀|시도|실패|났|나[와왔]|바[꿨뀌꾸])))[^.!?\d]*[.!?]?\Z"
)
ASKS_WHEN = re.compile(
    r"[^.!?,:]*?(?:(?:만료|변경)\s?(?:일|날짜|기[간한])|언제(?!든)|며칠|몇\s?(?:년|월|일|시|분))(?!생?으?로(?!부터))[^.!?,:]*[.!?]?\Z"
)
WHEN = re.compile(r"(?:19|20)\d\d(?:\d{4})?")
ASKS_FOR_IT = re.compile(
    r"(?:\s?\(?(?:숫자\s?)?\d{1,2}\s?자리(?:\s?숫자)?\)?)?[을를이가은는]?요?\s{0,2}(?:(?:좀|다시|먼저|한번)\s)?"
    r"(?:(?:입력|알려|말씀|적어)\s?(?:해(?![도야서])|하[시세셔십]|주(?!는)|줘|줄|달|부탁|바[라랍])|뭐|뭔|뭡|무엇|어떻게\s?[되된돼])"
)
HEAD, CELL = re.compile(WORD, re.IGNORECASE), re.compile(VALUE)
IN_ADDRESS = re.compile(r"://(?P<user>[^\s/:@'\"`<>{}]{0,64}):(?P<password>[^\s/@'\"`<>{}]{3,100})@(?=[\w\[])")
OF_NEON = re.compile(r"npg_[A-Za-z0-9]{12}")
# `user/password@db01`, Oracle's and Tibero's: in addresses of JDBC, and behind what connects.
OF_ORACLE = re.compile(
    r"(?:jdbc:\w{2,12}:\w{2,5}:|(?:(?<![\w.-])(?:(?P<alone>sqlplus|sqlldr|tbsql|expdp|impdp)|exp|imp|rman|conn|connect)\s|connect\()"
    r"\s{0,3}(?:-[a-z]{1,3}\s{1,3}){0,3}(?:target\s{1,3}|userid\s?=\s?)?\\?[\"']?)"
    r"(?P<user>[\w.$#-]{1,40})/(?P<password>[^\s/@'\"`<>{}\\]{4,64}+)(?(alone)|@)",
    re.IGNORECASE,
)

# Of `authorization: none` and a line with `client_secret: …`, the second name could be the value of the first.
KEY_BEGINS = re.compile(
    r"ac|ad|ae|an|ap|ar|au|az|ba|be|bo|ci|cl|co|cr|de|en|ge|gr|hm|jw|le|ma|mi|op|pe|pr|re|se|si|st|su|to|we|--|키.|토큰|시크",
    re.IGNORECASE | re.DOTALL,
)
PASSWORD_BEGINS = re.compile(
    r"ac|ad|al|an|az|be|bu|cf|co|cr|da|db|de|do|ft|ge|gr|he|id|ld|lo|ma|my|ne|oc|or|pa|po|pr|pu|pw|re|ro|se|sf|sm|ss|su|us|wi|-.|\.\w"
    r"|비밀|비번|패스|암호",
    re.IGNORECASE,
)
KEYS = Near(
    KEY,
    {"key": 22, "token": 22, "secret": 22, "authorization": 0, "bearer": 0, "basic": 0, "키": 0, "토큰": 0, "시크릿": 0},
    begins=KEY_BEGINS,
    overlapping=True,
)
PAIRS = Near(PAIR, {"auth": 2})
PASSWORDS = Near(
    PASSWORD,
    {"pass": 47, "pw": 24, "identified": 183, "-u": 1, "mysql": 0, "mariadb": 0, "redis-cli": 0, "login": 17, "connect": 9}
    | dict.fromkeys(("비밀", "비번", "패스워드", "암호"), 0),
    begins=PASSWORD_BEGINS,
)
OF_ASKED = ("pass", "pwd", "pw", "비밀", "비번", "패스워드", "암호")
ASKED_FOR = Near(ASKED, dict.fromkeys(OF_ASKED, 0), overlapping=True)  # `비밀번호가 만료됐으니 새 비번을 입력해 주세요`
OF_ORACLES = Near(OF_ORACLE, {"jdbc:": 0, "sql": 2, "exp": 0, "imp": 0, "rman": 0, "conn": 0})

PLACEHOLDER = re.compile(
    r"(?-i:x{3}|X{3})|\*{3}|\.{3}|your|example|placeholder|change.?me|dummy|sample|redacted|insert|replace|foobar|open.?sesame|here\Z",
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
STANDARD = r"(?:rfc|iso)-?[1-9]\d{2,4}"
MAKERS = r"(?:ansi|bs|din|draft|en|iec|ieee|ietf|jis|kics|ks|latin1|nf|tta)[/_-](?:x[/_-])?"
OF_STANDARDS = r"(?:en|cn|jp|kr|a\d?|amd\d|cor\d|basic|compliant|hotp|isms|json|latin1|p|pbkdf2|totp)"
CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|.*://.*|[$%*&!{<].*|pass(?:word|wd)[A-Za-z]\w*"
    # Paths, behind a port, too; `env:DB_PASS2`, `vault:…`, lines of /etc/passwd; names such as `rpassword::read2`.
    r"|(?:[.~]{0,2}|\d{2,5})/.*|(?:\d+:)?[a-z]{2,8}:.*|localhost:\d+|\w*(?:::\w+)+"
    # Versions, dates, measures, arithmetic, and `12-character`.
    r"|v?\d+(?:\.\d+){1,3}[\w+-]*|\d{4}-\d\d-\d\d.*|\d{1,5}(?:[cdgkmnptu]?(?:[smwgvba]|hz|ib|wh|bits?|bytes?)|min|sec|rpm|px)"
    r"|\d*\.\d+[*/+-]\w+|\w+[*/+-]\d*\.\d+|[a-z]\w{0,2}[*/+@][a-z]\w{0,2}|\d{1,3}[+~-][\d+~-]*[a-z-]+"
    # Standards, with who made them, what they are of and others beside them, but no numbers as long as a PIN (`iso27001-2580`); ways
    # to encrypt and to sign in, and types.
    rf"|(?:{MAKERS})*{STANDARD}(?:[:/._-](?:{OF_STANDARDS}|\d{{1,3}}|(?:19|20)\d\d)|/{STANDARD}|/\d{{5}})*"
    r"|(?:seed|hight)-?(?:64|128|256)(?:[/-][a-z]{3})?"
    r"|(?:[a-z0-9]+[/_-])*(?:sha|aes|aria|lea|des|chacha|md|rsa|pbkdf|argon|base|utf|tls|oauth|fido|wpa"
    r"|text|u?int|float|char|varchar)-?\d[\w./+-]*"
    # Products with their version: `비밀번호 Windows10 로그인`.
    r"|(?:windows|win|mac\W?os|ios|android|ubuntu|debian|centos|iphone|ipad|galaxy|outlook|office|excel|hwp|python|java|spring(?:boot)?|node"
    r"|my\W?sql|mssql|sql|postgres(?:ql)?|oracle|tibero|mariadb|redis|mongodb|[bs]crypt|http|html|css|usb|ipv|chrome|gpt)"
    r"-?\d{1,4}(?:\.\d{1,3}){0,2}[a-z]?(?:security)?"
    # What examples write for letters of `password` and `secret`.
    r"|(?:p(?:[a@4]|%40)ssw[o0]rd|p(?:@|%40)ss|(?:t[o0]p\W?)?s[e3]cr[e3]t)!?(?:1|123|1234)?!?@?",
    re.IGNORECASE,
)
# A word or several with 1, 123 and such behind, and several in which there is one digit (`2FA-protected`): settings, rules, examples.
WORDS = re.compile(
    r"[a-z]+(?:[_.-][a-z]+)*[_.-]?(?:\d|12|1234?)|(?=\D*\d\D*\Z)[a-z\d]+(?:[_.-][a-z\d]+)+",
    re.IGNORECASE,
)
BASE64 = re.compile("(?=.*[A-Za-z0-9+]{12})[A-Za-z0-9+/]{22,}")  # of 16 bytes or more
COUNTER = re.compile(r"\s?(?:에러|오류|코드|자리|글자|자\b|개|회|번|원|년|월|일|분|초|시간|비트|바이트|세대(?!\s?호출)|-|~|\d)")
PIN = re.compile(r"(?=(?:\D?\d){4})[*#]?\d{3,8}(?:[*#]\d{3,8})?[*#]?")
# Codes of doors, with the buttons that open and end them (`공동현관 1234#`, `호출 #0512#`), or, of a house's common door, of
# digits alone. `호출 1000*` is much else; and texts end as doors do (`결정문 #1234`).
DOOR = r"(?:현관|출입|도어\s?락|대문(?!자)|(?:(?<![\uac00-\ud7a3])|(?<=파트|\d동|단지))[정후]문|비번|비밀\s?번호)"
ITS_CODE = r"(?:[\s은는이가:=(,문구키]|출입|비번|비밀\s?번호|번호|코드|호출|방법){0,9}"
CODE_ENDS = r"[*#]?(?!\d{2,5}000\*)\d{4,8}(?:#|\*(?!\s?[\d(]))(?![A-Za-z(])"
IN_WORDS = r"(?:(?:열쇠|별표|우물정|샵)\s?\d{4,8}|\d{4,8}\s?(?:열쇠|별표|우물정|샵)|종(?:\d{3,8}|\s?\d{3,8}\s?종))"
DOOR_CODE = re.compile(
    rf"(?:현관|도어\s?락|대문(?!자)|비번|비밀\s?번호)[^\d\n*#]{{0,14}}(?!20\d\d\*){CODE_ENDS}"
    rf"|{DOOR}{ITS_CODE}(?:{CODE_ENDS}|(?<!호출\s)(?<!호출)[*#]\s?\d{{4,8}}(?!\s?(?:이슈|모델|참[고조]|커밋)|\d)|{IN_WORDS})"
    rf"|호출{ITS_CODE}(?:[*#]?\d{{4,8}}#|[*#]\d{{4,8}}\*|{IN_WORDS})"
    rf"|공동\s?현관{ITS_CODE}[*#]\d{{4,8}}(?!\d)"
    r"|(?:공동\s?현관문?(?:\s?(?:출입)?\s?(?:번호|코드))?|출입\s?(?:번호|코드))[은는]?[\s:]{0,3}(?P<pin>\d{4,8})"
    r"(?:(?=이[에요]|입니다|으?로|호출|[을를])|(?!\w|[.,~-]\d|\s?[*#]))"
)
OF_DOORS = ("현관", "출입", "락", "문", "호출", "비번", "비밀")


def holds_password(text: str) -> bool:
    small = small_letters(text)
    return (
        any(map(_is_said_key, KEYS.finditer(text, small)))
        or any(map(_is_said_pair, PAIRS.finditer(text, small)))
        or any(map(_is_said_password, PASSWORDS.finditer(text, small)))
        or any(map(_is_asked_password, ASKED_FOR.finditer(text, small)))
        or (has_any(OF_ASKED, small) and any(_is_in_column(value, head) for value, head, _ in cells_under(text, HEAD)))
        or (has_any(OF_DOORS, small) and any(map(_is_door_code, DOOR_CODE.finditer(text))))
        or any(map(_is_password_of_user, IN_ADDRESS.finditer(text)))
        or any(map(_is_password_of_user, OF_ORACLES.finditer(text, small)))
    )


def _is_said_key(found: re.Match[str]) -> bool:
    value, start = found["key"], found.start("key")
    is_basic = found.string[max(0, start - 8) : start].rstrip().lower().endswith("basic")
    if is_basic and (password := _password_of_pair(value)):
        return not _is_example(password)
    return _is_key(value)


def _is_said_pair(found: re.Match[str]) -> bool:
    return not _is_example(_password_of_pair(found["key"]))


def _password_of_pair(value: str) -> str:
    """That of `user:password` in base64; nothing where there is none."""
    try:
        pair = base64.b64decode(f"{value}==").decode()
    except ValueError:
        return ""
    return pair.partition(":")[2] if pair.isprintable() else ""


def _is_example(password: str) -> bool:
    """Whether a password is of everyday words alone (`pass`)."""
    return PLACEHOLDER.search(password) is not None or EVERYDAY.sub("", password) == ""


def _is_key(value: str) -> bool:
    """Letters and digits as chance mixes them: hexadecimal ones, or of capitals, small letters and digits in turn."""
    value = value.rstrip(".-").removeprefix("0x")
    if PLACEHOLDER.search(value) or COUNTED.search(value) or ((CODE.fullmatch(value) or "//" in value) and not _is_base64(value)):
        return False
    kinds = set(map(_kind, value))
    if not kinds & set("aA") or "1" not in kinds:
        return False
    if re.fullmatch(r"[0-9a-f-]{32,}|[0-9A-F-]{32,}", value):
        return True
    return _is_well_mixed(value) or (len(value) >= 24 and _mixing(value) >= 0.35)


def _is_base64(value: str) -> bool:
    """Whether what begins with `/` or holds `//`, as paths do, is none, but a key that chance made: no file has such a name."""
    return BASE64.fullmatch(value) is not None and _is_well_mixed(max(value.split("/"), key=len))


def _is_well_mixed(value: str) -> bool:
    return set(map(_kind, value)) >= set("aA1") and _mixing(value) >= (0.35 if len(value) >= 24 else 0.45)


def _mixing(value: str) -> float:
    """The share of neighbours that are letters and digits of two kinds."""
    return sum(one != other and "-" not in (one, other) for one, other in pairwise(map(_kind, value))) / (len(value) - 1)


def _kind(character: str) -> str:
    if character.isdecimal():
        return "1"
    return "-" if not character.isalpha() else "A" if character.isupper() else "a"


def _is_said_password(found: re.Match[str]) -> bool:
    value, is_korean = found["password"], bool(found["korean"])
    if is_korean and PIN.fullmatch(value) and COUNTER.match(found.string, found.end("password")):
        return False
    return _is_named_password(re.split(r"&(?=\w+=)", value)[0], is_korean=is_korean)


def _is_asked_password(found: re.Match[str]) -> bool:
    asked, value = found["of_it"], found["password"]
    is_other = ASKS_OTHER.search(asked) if PIN.fullmatch(value) else None
    is_when = ASKS_WHEN.match(asked) if WHEN.fullmatch(value) else None
    return not ((is_other or is_when) and not ASKS_FOR_IT.match(asked)) and _is_said_password(found)


def _is_door_code(found: re.Match[str]) -> bool:
    pin = found["pin"]
    if pin is None:
        return True
    return not (COUNTER.match(found.string, found.end()) or WHEN.fullmatch(pin)) and _is_named_password(pin, is_korean=True)


def _is_named_password(value: str, *, is_korean: bool) -> bool:
    """Behind Korean words people say their own passwords; behind English ones programs and examples have theirs."""
    if is_korean and PIN.fullmatch(value):
        return value not in "01234567890" and len(set(value)) > 1  # `1234` and `0000` stand for all that are easy
    return len(value) >= 6 and (is_korean or not _is_words(value)) and _is_password(value)


def _is_in_column(value: str, head: re.Match[str]) -> bool:
    return CELL.fullmatch(value) is not None and _is_named_password(value, is_korean=bool(head["korean"]))


def _is_password_of_user(found: re.Match[str]) -> bool:
    """With the `@` behind it, for which a sign at its end is one within it."""
    password = found["password"]
    if OF_NEON.fullmatch(password) and not PLACEHOLDER.search(password):
        return True
    return found["user"] != password and not _is_words(password) and _is_password(f"{password}@")


def _is_words(value: str) -> bool:
    return WORDS.fullmatch(value.rstrip(".:?").removeprefix("-")) is not None


def _is_password(value: str) -> bool:
    """Letters, and digits or signs within; nothing that a program reads, and no example."""
    value = value.rstrip(".:?").removeprefix("-")
    if (CODE.fullmatch(value) and not _is_base64(value)) or PLACEHOLDER.search(value):
        return False
    if not re.search("[A-Za-z]", value) or not re.search(r"\d|(?<=.)[!@#$^~](?=.)", value):
        return False
    return re.fullmatch(r"\d?|1?23\d*", EVERYDAY.sub("", value)) is None
