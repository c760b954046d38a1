"""How one answer is scored against what was expected. Each scorer is a pure function; `metrics.py` says which metric has which.

Code is run, and scored, in `code.py`.
"""

from __future__ import annotations

import json
import re
import string
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from nomoat.errors import DataError
from nomoat.matching import normalise_answer
from nomoat.records import Example
from nomoat.rouge import rouge_l, words
from nomoat.textfiles import composed

DIGITS = 12  # of a score: those after are rounding, and two sides may differ in them


def exact(answer: str, target: str) -> float:
    """1.0 if answer and target are the same once normalised, else 0.0. An answer that holds nothing is never right."""
    return float(_comparable(answer) == _comparable(target))


def _comparable(text: str) -> str:
    """The text once normalised, or as it is where it is nothing but punctuation, such as "?"."""
    return normalise_answer(text) or text.strip()


# ---------------------------------------------------------------- choices
LETTERS = string.ascii_uppercase
NAMED = (
    r"(?P<named>(?:option|choice|letter)(?!\s+is\b))|(?:answer|option|choice|letter)(?:\s+is)?"
    r"|i\s++(?:choose|pick|select)|정답은?|답은?"
)
BEFORE = rf"(?P<before>(?:(?:the|my)\s++)?(?:(?:correct|right|best)\s++)?(?:{NAMED})?)"
IN_LATEX = r"(?:\W*+(?:boxed|text|textbf|mathrm)\{)*+"  # \boxed{\text{B}}
LETTER = re.compile(rf"\W*+{BEFORE}{IN_LATEX}\W*+(?P<letter>(?-i:[A-Za-z]))(?![A-Z])", re.IGNORECASE)
GOES_ON = r"(?:is|because|since|as|seems|has|and|or|best|(?<=A )would)\b"  # what may follow on a letter that is the choice
# "a dog", "A likely answer is", "I think", "I'd say": English words, and no letters. A tab stands between a letter and its text.
WORD = re.compile(rf"(?<=[AI]) +(?!{GOES_ON})(?-i:[a-z])|(?<=I)['’][a-z]", re.IGNORECASE)
# "D is wrong", "(D) is wrong", "D번이 아니라 B". Not "B. is not soluble", "(B) is not soluble" and "B. 아니요", which are a letter and
# its text, nor "B is not wrong", "B는 오답이 아닙니다" and "B가 아닌가요".
MARKS = r"[*_`\"'’”]*+"
DENIED = re.compile(
    rf"{MARKS} is(?:n['’]t| ++not)\b(?! ++(?:wrong|incorrect|false|only|just)\b)"
    rf"|(?:(?<=[(\[{{]\w)[)\]}}]++)?+{MARKS}(?: is ++(?:wrong|incorrect|false)\b|번? ?+(?:아닙니다|아님(?! \w)"
    r"|[은는이가] ?+(?:(?:정답|답)[이은]? ?+)?(?:틀(?:리(?!지 ?않)|[렸린려립])|아니(?!면|라고는? 할 수 없)"
    r"|아닙(?!니까)|아닌(?!가)|아님|아녜|오답(?!이? 아)|[옳맞]지 ?않)))",
    re.IGNORECASE,
)


def chosen_letter(answer: str, num_choices: int) -> int | None:
    """Index of the choice whose letter an answer begins with: "B", "(b)", "B. Paris", "The choice is B", "정답은 B"; else None.

    An A or an I that is a word of an English sentence ("a dog", "The answer is a dog", "I think B") is none. Behind "option",
    "choice" and "letter" stands a letter, whatever follows; behind "answer is" and "choice is" an A in capitals is one: no sentence
    begins there. A letter that is said not to be the answer is none ("D is incorrect", "D는 틀렸습니다"); no other is searched for.
    """
    text = unicodedata.normalize("NFKC", answer)
    found = LETTER.match(text)
    if found is None or DENIED.match(text, found.end()):
        return None
    is_letter = found["named"] or (found["before"] and found["letter"] == "A")
    if not is_letter and WORD.match(text, found.end()):
        return None
    index = LETTERS.index(found["letter"].upper())
    return index if index < num_choices else None


# ---------------------------------------------------------------- numbers
ONE = r"-?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
DIVIDED = rf"[ \t]*[/⁄][ \t]*{ONE}"  # as fractions are written: on one line
NO_DIGIT = "\ue000"  # of private use: stands for a small digit or an exponent, which is no part of a number
OPERATORS = f"+*/×·÷^{NO_DIGIT}-"
NO_TERM = rf"(?<![\w.:{OPERATORS}])(?<![{OPERATORS}] )"  # before a number that is no part of a name or a sum
# Of "18 = 36/2" the 18; else a number with what it is divided by: then it is none.
NUMBER = re.compile(rf"{NO_TERM}(?P<equal>{ONE})(?:[ \t]*=[ \t]*{ONE}(?:{DIVIDED})+)+|{ONE}(?:{DIVIDED})*")
FINAL = "####"  # GSM8K writes its answers after it
SMALL, IN_A_SQUARE = ("<super>", "<sub>"), "<square>"  # as Unicode's table calls how a character is made of others
SMALL_DIGIT = re.compile(r"[\d+−-]")
# Korean's powers of ten: "3만 5천", "1억 2,000만", "3만 5000". Not "5만큼" (by 5), "8조각" (8 pieces), "제3조" (article 3).
# Where neither a unit nor a smaller part follows, "조" is rather a team, an article of a law or a part of "조합" than 10^12.
TENS = {"십": 10, "백": 100, "천": 1_000}
MYRIADS = {"만": 10_000, "억": 100_000_000, "조": 1_000_000_000_000}
COUNT = r"\d[\d,]*+(?:\.\d++)?+"
TRILLION = (
    rf"조(?:(?<=\.\d조)|(?=여|분의| ?(?:원|달러|엔|유로|위안|개(?![가-힣])|개의)| ?(?:{COUNT}[십백천]){{0,3}}{COUNT}[십백천]?[만억]))"
)
MYRIAD = rf"(?:만(?!큼)|억|{TRILLION})"
TRILLION_ALONE = re.compile(rf"(?<=[\d십백천])(?!{TRILLION})조")
KOREAN_BEGINS = re.compile(rf"(?<![\d.,제])(?<!제 )(?={COUNT}(?:[십백천]|{MYRIAD}))")
KOREAN_PART = re.compile(rf" ?(?P<count>{COUNT})(?P<ten>[십백천])?+(?P<myriad>{MYRIAD})?+")
# Before a currency a number may be in words, its 1 left out, its unit apart: "삼만 오천원", "이십 만원", "만 2천원", "1,200 만원".
CURRENCY = "(?:원|달러|엔|유로|위안)"
KOREAN_DIGITS = {digit: str(at) for at, digit in enumerate("일이삼사오육칠팔구", start=1)}
ONE_COUNT = rf"(?:[{''.join(KOREAN_DIGITS)}]|{COUNT})"
# A unit alone is no amount within "(단위: 만원)", nor behind what counts it: "몇 만 원", "10여 만 원"; "이 만 원" may be "this 만 원".
ONLY_UNITS = r"[십백천만억]++ ?"
NO_AMOUNT = rf"(?!억|이 |{ONLY_UNITS}{CURRENCY}\)|(?:(?<=[몇\d] )|(?<=\b수 )|(?<=\d여 )|(?<=[십백천만억] )){ONLY_UNITS}{CURRENCY})"
TRILLION_IN_WORDS = rf"조(?= ?(?:{ONE_COUNT}?[십백천]){{0,3}}{ONE_COUNT}?억)"  # "구조원" is a rescuer
IN_WORDS = re.compile(
    rf"(?<![\w.,])(?<!\d ){NO_AMOUNT}(?:(?:{ONE_COUNT} ?)?+(?:[십백천만억]|{TRILLION_IN_WORDS}) ?+){{1,9}}"
    rf"{ONE_COUNT}?(?= ?{CURRENCY})"
)
MYRIAD_APART = re.compile(r"(?<=[\d십백천]) (?=[만억조])|(?<=\d) (?=[십백천])")
ONE_LEFT_OUT = re.compile(r"(?<!\d)[십백천]|(?<![\d십백천])만")
UNIT_APART = re.compile(rf"(?<=\d) (?=(?:[십백천]?[만억조]|[십백천])(?: ?{COUNT}[십백천]?만?){{0,3}} ?{CURRENCY})")
NO_LAST_PART = re.compile(r" ?[/⁄^:%]|[.,]\d")  # behind a number without a power of ten: it is one of its own
EXPONENT = re.compile(r"(?<=[^ \t])[ \t]{0,9}\^[ \t]*+(?:[{(][ \t]*+)?[+-]?\d+(?:\.\d+)?(?:[ \t]*+[})])?")  # "m^2", "cm^{2}"


def number_in(text: str) -> Decimal | None:
    """The number after the last `####` of a text, or else its last number; None if it holds none, or that is a fraction or a power.

    Fractions are "1/2" and "½", powers "10^2" and "10²". Thousands separators and a dollar sign are left out: "$1,234.50" is 1234.5;
    "1e5" is 100,000; "25 m²" and "25 m^2" are 25. A number that is said to equal a fraction counts, and not the fraction: "18 = 36/2"
    is 18; "3만 5천" is 35,000, and so is "삼만 오천" before "원". Not the flexible-extract filter of
    EleutherAI/lm-evaluation-harness, gsm8k, which takes the last number anywhere and compares it as text.
    """
    before, after = _numbers(text)
    return _value(after[0] if after else before[-1]) if after or before else None


def broken_number(target: str) -> str:
    """Why a target is not one number that `number_in` reads, to go on after "the example"; empty if it is."""
    before, after = _numbers(target)
    found = after or before
    if not found:
        why = "holds no number"
    elif len(found) > 1 and not _is_said_twice(found):
        why = f"holds {len(found)} numbers: write the answer alone, or behind `{FINAL}`"
    elif _value(found[0]) is None:
        why = "is a fraction or a power: write it out, such as 0.5"
    else:
        return ""
    return f"has the target `{target}`, which {why}"


def _is_said_twice(found: Sequence[re.Match[str]]) -> bool:
    """Whether it is one number and, in brackets, the same once more: "35,000원(삼만 오천 원)"."""
    first, second = found[0], found[1]
    in_brackets = second.string[: second.start()].rstrip("₩ ").endswith("(")
    return len(found) == 2 and in_brackets and _value(first) == _value(second)


def _numbers(text: str) -> tuple[list[re.Match[str]], list[re.Match[str]]]:
    """The numbers of a text, in plain signs, before the last `####`, all of them where there is none, and those after it."""
    plain = _plain_signs(text)
    final = plain.rfind(FINAL)
    found = [*NUMBER.finditer(plain)]
    return [one for one in found if final < 0 or one.end() <= final], [one for one in found if 0 <= final < one.start()]


def _value(number: re.Match[str]) -> Decimal | None:
    if number["equal"] is None and number.string.startswith(NO_DIGIT, number.end()):
        return None
    try:
        return Decimal((number["equal"] or number[0]).replace(",", "").replace("$", ""))
    except InvalidOperation:
        return None


def is_number(text: str) -> bool:
    """Whether a text is a number, as `number_in` reads it, and nothing else but a sign of money or its Korean word."""
    alone = re.fullmatch(rf"₩?{ONE}(?: ?{CURRENCY})?", _plain_signs(text).strip().removeprefix("+"))
    return alone is not None and number_in(text) is not None


def _plain_signs(text: str) -> str:
    """NFKC, but for what it would turn into digits of their own: the ² of "m²" and "㎡"; and "m^2" without it, too."""
    plain = unicodedata.normalize("NFKC", "".join(map(_without_digit, text))).replace("−", "-")
    return EXPONENT.sub(NO_DIGIT, _in_digits(plain))


def _in_digits(text: str) -> str:
    """The text with its Korean powers of ten behind digits written out."""
    text = IN_WORDS.sub(_in_digits_and_units, UNIT_APART.sub("", text))
    done, written = 0, ""
    while begins := KOREAN_BEGINS.search(text, done):
        value, end = _korean_number(text, begins.end())
        written += f"{text[done : begins.end()]}{value:f}"
        done = end
    return written + text[done:]


def _in_digits_and_units(number: re.Match[str]) -> str:
    """`삼만 오천` as `3만 5천`, `만 2천` as `1만 2천`, `이십 만` as `2십만`."""
    digits = "".join(KOREAN_DIGITS.get(char, char) for char in number[0])
    return ONE_LEFT_OUT.sub(r"1\g<0>", MYRIAD_APART.sub("", digits))


def _korean_number(text: str, start: int) -> tuple[Decimal, int]:
    """The number that begins there, and where it ends: each part is less than the power of ten of the one before it."""
    whole = below_myriad = Decimal(0)
    least, last_myriad, end = Decimal("Infinity"), Decimal("Infinity"), start
    while part := KOREAN_PART.match(text, end):
        ten, myriad = TENS.get(part["ten"], 1), MYRIADS.get(part["myriad"], 1)
        amount = Decimal(part["count"].replace(",", "")) * ten
        is_plain = ten == myriad == 1
        if amount >= least or myriad >= last_myriad or (is_plain and ("." in part["count"] or NO_LAST_PART.match(text, part.end()))):
            break
        below_myriad, least, end = below_myriad + amount, Decimal(ten), part.end()
        if myriad > 1:
            whole, below_myriad = whole + below_myriad * myriad, Decimal(0)
            least = last_myriad = Decimal(myriad)
        elif is_plain:
            break
    return whole + below_myriad, end


def _without_digit(char: str) -> str:
    kind = unicodedata.decomposition(char)
    if kind.startswith(SMALL) and SMALL_DIGIT.match(unicodedata.normalize("NFKC", char)):
        return NO_DIGIT
    return re.sub(r"\d", "", unicodedata.normalize("NFKC", char)) if kind.startswith(IN_A_SQUARE) else char


def numeric(answer: str, target: str) -> float:
    """1.0 if the answer's number equals the target's, however both are written, else 0.0.

    "6조" in an answer is 6, and 6 * 10^12 where the target is as large as that.
    """
    wanted = number_in(target)
    if wanted is not None and abs(wanted) >= MYRIADS["조"]:
        answer = TRILLION_ALONE.sub("조원", answer)
    given = number_in(answer)
    return float(given is not None and given == wanted)


# ---------------------------------------------------------------- words in common
ARTICLES = re.compile(r"\b(a|an|the)\b")
KOREAN_MARKS = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def f1(answer: str, target: str) -> float:
    """F1 over words, lower case, without punctuation and English articles; 0.0 where nothing is left of a side, or of both.

    Source: SQuAD 1.1's evaluation script.
    """
    return _f1(_squad_words(answer), _squad_words(target))


def char_f1(answer: str, target: str) -> float:
    """F1 over characters without space and punctuation, which is fair to Korean's endings. Source: KorQuAD 1.0's evaluation script."""
    return _f1(_korquad_characters(answer), _korquad_characters(target))


def _squad_words(text: str) -> list[str]:
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return ARTICLES.sub(" ", bare).split()


def _korquad_characters(text: str) -> list[str]:
    spaced = text.translate(KOREAN_MARKS).lower()
    return [char for char in spaced if char not in string.punctuation and not char.isspace()]


def _f1(given: Sequence[object], wanted: Sequence[object]) -> float:
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def rouge(answer: str, target: str) -> float:
    """ROUGE-L (F1 over the longest common subsequence of words), without stemming; any language is split at signs and space."""
    return rouge_l(words(answer), words(target))


def chrf(answer: str, target: str) -> float:
    """chrF2 of one sentence, in 0..1. Source: sacrebleu, with its defaults (Popović 2015, characters up to 6, no words)."""
    import sacrebleu

    return float(sacrebleu.sentence_chrf(answer, [target]).score) / 100


def bleu(answer: str, target: str) -> float:
    """BLEU of one sentence, in 0..1, with effective order. Source: sacrebleu, tokenizer 13a.

    The mean over sentences is not the BLEU of the corpus, and 13a splits Korean at spaces only: prefer chrF.
    """
    import sacrebleu

    return float(sacrebleu.sentence_bleu(answer, [target]).score) / 100


def chrf_over_all(pairs: Sequence[tuple[Example, str]]) -> str:
    """chrF2 of all sentences as one text: see `_over_all`."""
    import sacrebleu

    return _over_all(sacrebleu.CHRF(), pairs)


def bleu_over_all(pairs: Sequence[tuple[Example, str]]) -> str:
    """BLEU of all sentences as one text: see `_over_all`."""
    import sacrebleu

    return _over_all(sacrebleu.BLEU(), pairs)


def _over_all(scorer: Any, pairs: Sequence[tuple[Example, str]]) -> str:
    """The score of all sentences as one text, which is what papers report, with sacrebleu's signature to compare it by. In NFC."""
    most = max(1 + len(example.other_targets) for example, _ in pairs)
    targets = [tuple(composed(target) for target in (example.target, *example.other_targets)) for example, _ in pairs]
    references: Any = [[known[at] if at < len(known) else None for known in targets] for at in range(most)]
    score = scorer.corpus_score([composed(answer) for _, answer in pairs], references)
    return f"{score.name} {score.score:.1f} ({scorer.get_signature()})"


# ---------------------------------------------------------------- patterns
PATTERN_SECONDS = 2.0


def matches(answer: str, pattern: str) -> float:
    """1.0 if the pattern is found anywhere in the answer, else 0.0. Raises DataError if that takes more than two seconds."""
    return float(_is_found(pattern, answer))


def _is_found(pattern: str, text: str) -> bool:
    import regex

    try:
        return regex.search(pattern, text, timeout=PATTERN_SECONDS) is not None
    except TimeoutError as exc:
        raise DataError(
            f"the pattern `{pattern}` took more than {PATTERN_SECONDS:g} s on one answer", hint="simplify it: nested repeats are slow"
        ) from exc


def broken_pattern(pattern: str) -> str:
    """What is wrong with a pattern, to go on after "the example"; empty if nothing is."""
    why = _why_no_pattern(pattern)
    return f"has the target `{pattern}`, which is no pattern ({why})" if why else ""


def _why_no_pattern(pattern: str) -> str:
    """Why `_is_found` cannot search for it; empty if it can."""
    import regex

    try:
        regex.compile(pattern)
    except (regex.error, ValueError) as exc:  # ValueError: of flags that exclude each other
        return str(exc)
    except RecursionError:
        return "it is nested too deep"
    return ""


# ---------------------------------------------------------------- JSON
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
SCHEMA_SECONDS = 10.0  # for one answer
_deadline: ContextVar[float] = ContextVar("_deadline")


def json_score(answer: str, target: str, schema: Mapping[str, Any] | None = None) -> float:
    """F1 over the fields of the target's JSON and the answer's; 0.0 for an answer that is no JSON, breaks the schema, or is hundreds
    of levels deep.

    Without a target, an answer that keeps the schema scores 1.0. Fields are compared by path and value, strings as `exact` does, 1
    equals 1.0. The order in a list does not count: each item, with all its fields, is paired with one of the other list's so that as
    many as possible are equal.
    """
    found, value = first_json(answer)
    try:
        if not found or (schema is not None and not _keeps(schema, value)):
            return 0.0
        if not target:
            return 1.0
        wanted = json.loads(target)
        return 2 * _num_common(value, wanted) / (_num_fields(value) + _num_fields(wanted))
    except RecursionError:
        return 0.0


def _keeps(schema: Any, value: Any) -> bool:
    import jsonschema
    import referencing

    validator = _in_time(jsonschema.validators.validator_for(schema))
    if isinstance(schema, dict):  # where it refers to itself, its draft would bring the library's own validator back
        schema = {name: part for name, part in schema.items() if name != "$schema"}
    # The registry knows the published drafts and nothing else: what a schema refers to is not fetched while a model is asked.
    _deadline.set(time.monotonic() + SCHEMA_SECONDS)
    return bool(validator(schema, registry=referencing.Registry()).is_valid(value))


@cache
def _in_time(validator: Any) -> Any:
    """The validator of a draft, which takes no longer than `_deadline`: a schema that refers to itself twice looks at each level of an
    answer twice as often as at the one above.

    Patterns are searched for as `matches` does, for no longer in each text: the library's `re` has no bound. Not covered: what
    `unevaluatedProperties` does with `patternProperties`, which nothing but another process could end, and schemas within the schema
    that name their own draft.
    """
    import jsonschema

    checks = {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional_properties}
    extend: Any = jsonschema.validators.extend
    return extend(validator, {name: _timed(check) for name, check in {**validator.VALIDATORS, **checks}.items()})


def _timed(check: Callable[..., Any]) -> Callable[..., Any]:
    def timed(validator: Any, part: Any, value: Any, schema: Any) -> Any:
        if time.monotonic() > _deadline.get():
            raise DataError(
                f"the schema took more than {SCHEMA_SECONDS:g} s on one answer",
                hint="simplify it: parts that refer to themselves are slow",
            )
        return check(validator, part, value, schema)

    return timed


def _pattern(validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[Exception]:
    import jsonschema

    if validator.is_type(value, "string") and not _is_found(pattern, value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, parts: Mapping[str, Any], value: Any, _schema: Any) -> Iterator[Exception]:
    for pattern, part in parts.items() if validator.is_type(value, "object") else ():
        for name, field in value.items():
            if _is_found(pattern, name):
                yield from validator.descend(field, part, path=name, schema_path=pattern)


def _additional_properties(validator: Any, part: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Exception]:
    known, patterns = schema.get("properties", ()), schema.get("patternProperties", ())
    for name, field in value.items() if validator.is_type(value, "object") else ():
        if name not in known and not any(_is_found(pattern, name) for pattern in patterns):
            yield from validator.descend(field, part, path=name)


def broken_schema(schema: Any) -> str:
    """What is wrong with a JSON schema, to go on after "the schema"; empty if nothing is."""
    import jsonschema
    import jsonschema_specifications
    import referencing
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, dict | bool) or (isinstance(schema, dict) and not isinstance(schema.get("$schema", ""), str)):
        return "is no JSON schema: that is an object, and its `$schema` an address"
    reference = ""
    try:
        validator: Any = jsonschema.validators.validator_for(schema)
        validator.check_schema(schema)
        whole = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
        resolver = jsonschema_specifications.REGISTRY.resolver_with_root(whole)  # with the published drafts, as in `_keeps`
        parts = [schema]
        for reference in dict.fromkeys(_references(schema)):
            parts.append(resolver.lookup(reference).contents)
            validator.check_schema(parts[-1])
        wrong = ((pattern, why) for part in parts for pattern in _patterns(part) if (why := _why_no_pattern(pattern)))
        return next((f"has the pattern `{pattern}`, which is none ({why})" for pattern, why in wrong), "")
    except jsonschema.SchemaError as exc:
        return f"refers to `{reference}`, which is no JSON schema: {exc.message}" if reference else f"is no JSON schema: {exc.message}"
    except (referencing.exceptions.Unresolvable, ValueError):  # ValueError: of an address that is none
        return f"refers to `{reference}`, which is not in it" if reference else "has an `$id` that is no address"
    except RecursionError:
        return "is nested too deep to be looked at"


def _references(schema: Any) -> Iterator[str]:
    """Where a schema's parts refer to."""
    return (part[name] for part in _parts(schema) for name in REFERENCES if isinstance(part.get(name), str))


def _patterns(schema: Any) -> Iterator[str]:
    """What a schema's parts search for in texts and names."""
    for part in _parts(schema):
        yield from part["patternProperties"] if isinstance(part.get("patternProperties"), dict) else ()
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """The objects of a schema that may say something about an answer."""
    if isinstance(schema, dict):
        yield schema
        schema = [value for name, value in schema.items() if name not in ("const", "enum", "default", "examples")]
    for part in schema if isinstance(schema, list) else ():
        yield from _parts(part)


def broken_json(text: str) -> str:
    """What is wrong with a target of JSON, to go on after "the example"; empty if nothing is."""
    try:
        json.loads(text)
    except (ValueError, RecursionError) as exc:
        return f"has a target that is not JSON ({exc})"
    return ""


def first_json(text: str) -> tuple[bool, Any]:
    """Whether a text holds JSON, and its value: the whole text, or the first object or list in it."""
    decoder = json.JSONDecoder()
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        pass
    for start in (match.start() for match in re.finditer(r"[{\[]", text)):
        try:
            return True, decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return False, None


def _num_fields(value: Any) -> int:
    """How many values hold no further ones; an empty object or list is one too."""
    if not _has_fields(value):
        return 1
    return sum(_num_fields(item) for item in (value.values() if isinstance(value, dict) else value))


def _num_common(one: Any, other: Any) -> int:
    """How many fields are the same in both."""
    if not (_has_fields(one) and _has_fields(other)):
        return int(not _has_fields(one) and not _has_fields(other) and _field(one) == _field(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return sum(_num_common(one[key], other[key]) for key in one.keys() & other.keys())
    return _num_paired(one, other) if isinstance(one, list) and isinstance(other, list) else 0


def _num_paired(one: list[Any], other: list[Any]) -> int:
    """How many fields are the same in both lists, whose items are paired so that it is most."""
    from scipy.optimize import linear_sum_assignment

    single, single_other = (Counter(_field(item) for item in items if not _has_fields(item)) for items in (one, other))
    num_common = (single & single_other).total()
    wholes, wholes_other = ([item for item in items if _has_fields(item)] for items in (one, other))
    if wholes and wholes_other:
        common = [[_num_common(item, item_other) for item_other in wholes_other] for item in wholes]
        num_common += sum(common[at][at_other] for at, at_other in zip(*linear_sum_assignment(common, maximize=True), strict=True))
    return num_common


def _has_fields(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _field(value: Any) -> tuple[str, object]:
    """(kind, value) of what holds no further fields."""
    if isinstance(value, str):
        return "text", _comparable(value)
    if isinstance(value, dict | list):
        return "empty", json.dumps(value)
    return type(value).__name__ if isinstance(value, bool) else "value", value
