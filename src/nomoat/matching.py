"""When two texts count as the same, and which choice an answer is."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nomoat.errors import UsageError
from nomoat.records import ContinuationScore

MINUS = re.compile(r"[−–](?=\.?\d)")  # as books print it
CODE_MARK = "`"  # Markdown's, as "*" and "_" are; Unicode does not count it as punctuation
KEPT_BEFORE = re.compile(r"-\.?\d|(?<!\.)\.\d|(?<!#)#\w|%")  # "# Yes" and "## Yes" are headings
KEPT_BEHIND = re.compile(r"%|(?<=\w)#")
# What stands around a choice in a sentence that says nothing else, once normalised: "정답은 긍정입니다", "the answer is positive".
NAMED = "answer|label|category|class|classification|sentiment|prediction"
KOREAN = "정답|답변|최종 답|답|분류(?: 결과)?|라벨|레이블|(?:감정|감성)(?: (?:분류|분석))?(?: 결과)?|카테고리|범주"
A_TEXT = "(?:the|this) (?:text|message|sentence|review|comment|e-?mail|tweet|post)"
# Names of answers, too, but not within reasons, where they may be those of something else.
KOREAN_KIND = "(?:문의 ?)?유형|주제|결과|예측"
KOREAN_TEXTS = "텍스트|메시지|문장|리뷰|댓글|게시글|글|이?메일|트윗|(?:고객 )?문의|문자|기사|뉴스|후기|상품평|질문|내용|의견"
KOREAN_TEXT = rf"(?:이|해당|위|주어진) (?:{KOREAN_TEXTS})"
ANSWER_IS = (
    rf"(?:the )?(?:correct |right |final )?(?:{NAMED})(?: (?:of|for) {A_TEXT})?(?: is\b ?:?|\W*?:)|(?:{KOREAN})\W*?:"
    rf"|{A_TEXT} is\b(?: (?:classified|categori[sz]ed|labell?ed) as\b)? ?:?"
    rf"|(?:{KOREAN_TEXT}(?:의 (?:{KOREAN}|{KOREAN_KIND}))?|{KOREAN})[은는]"
)
BEGINS = re.compile(rf"^(?:{ANSWER_IS}|(?:{KOREAN_KIND})(?:\W*?:|[은는]))")
BEGINS_A_REASON = re.compile(rf"^(?:{ANSWER_IS})")
ENDS = re.compile(
    r"(?:입니다|이?네요|이에요|예요|이요|이다|(?<=\w\w)다|임|으?로 (?:분류|판단)(?:됩니다|된다|됨|합니다|할 수 있습니다)"
    r"|에 (?:해당|속)(?:합니다|한다|함))$"
)
A_KIND_OF_TEXT = re.compile(rf"(?<=\w\w) (?P<text>{KOREAN_TEXTS})$")  # "스팸 메일", "긍정적인 리뷰"
AS_ADJECTIVE = re.compile(r"(?<=\w\w)적(?:인)?$")
SPELLED_TWICE = {"아니요": "아니오", "아니오": "아니요", "네": "예", "예": "네"}  # the same word, as often written so as so
WRAPPED = re.compile(  # "1. ham", "<ham>", and TeX's "$\boxed{ham}$"
    r"^(?:\d+[.)] )?(?:<(?P<marked>[^<>]+)>|\$*\\?boxed\{(?:\\text\{)?(?P<boxed>[^{}]+)\}*\$*|(?P<bare>.+))$"
)
# An answer before its reasons, which an empty line or a heading ("Reason: ...") sets off. "Spam?" and "Spam:" are no answers.
# Matched against what is stripped, and no run of it goes over several lines: answers may be long, and of signs alone.
FIRST = re.compile(r"(?P<said>\S.*?)\n(?:[^\S\n]*\n|(?=[^\w\n]*[^\W\d][\w ]{0,30}[^\w\n]*[:：]))(?P<reasons>.+)", re.DOTALL)
OPEN = re.compile(r"(?:.*\w)?+[^\w?？:：]*[?？:：]", re.DOTALL)
# Behind what a line of reasons, once normalised, says what the answer is, and may take the first back: "Correction: no", "so the
# answer is no". What it says of something else does not: "Ending: negative", "Sub-category: sports".
CONCLUDES = "correction|verdict|conclusion|overall|reflection|so|therefore|thus|hence|결론|정정|최종|따라서|그러므로"
CONCLUSION_IS = re.compile(
    rf"(?:^|[^\w\s'’/-] ?|\b(?:{CONCLUDES}) )(?:{ANSWER_IS})"
    rf"|\b(?:{CONCLUDES})(?:\W{{1,4}}(?:it|this|that))?(?: is\b|\W{{0,4}}:|[은는])"
)
CLAUSE_ENDS = re.compile(r"[,.;!](?!\w)|[。—]")  # "Answer: no, because ..."

DRAFT_BEGINS, DRAFT_ENDS = "<think>", "</think>"
# A draft that some models write before they answer. A server's template may have opened it: then only its end is there.
DRAFT = re.compile(r"\A(?:\s*<(?P<name>think|thinking|reasoning)>.*?(?:</(?P=name)>\s*|\Z)|(?:(?!<think>).)*?</think>\s*)", re.DOTALL)


def without_draft(answer: str) -> str:
    """The answer behind the draft that a model which thinks first may write; nothing where it never ended that."""
    return DRAFT.sub("", answer)


def normalise_answer(text: str) -> str:
    """The text as `exact` compares it: NFKC, case folded, runs of space as one, without punctuation, backticks or space around it.

    Signs inside stay ("u.s.", "don't"), and so do currency and mathematical signs and those of a number or a name: a minus, however it
    is written, a point before a digit, "%" and "#" ("-5", ".5", "50%" and "C#" are not "5", "50" and "C").
    """
    folded = MINUS.sub("-", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))
    start, end = 0, len(folded)
    while start < end and _is_padding(folded[start]) and not KEPT_BEFORE.match(folded, start):
        start += 1
    while end > start and _is_padding(folded[end - 1]) and not KEPT_BEHIND.match(folded, end - 1):
        end -= 1
    # NFKC once more: case folding can undo it ("ẞ", "ǰ").
    return unicodedata.normalize("NFKC", folded[start:end])


def require_different(labels: Collection[str]) -> None:
    """Raises UsageError unless there are two or more, each of which an answer can be without being another."""
    if len({normalise_answer(label) for label in labels}) < max(2, len(labels)):
        named = ", ".join(f"`{label}`" for label in labels) or "none"
        raise UsageError(f"the labels are {named}", hint="give two or more that differ in more than case and signs, such as ham,spam")


def likeliest(scores: Sequence[ContinuationScore], *, per_token: bool = False) -> int:
    """Index of the likeliest choice; the first of several equal ones.

    By default log-probabilities are summed over a choice's tokens: the probability that the model would write that choice (and where a
    choice of a conversation begins another, nothing more: see `engine.likelihood.ends_of`).
    With `per_token` they are averaged, which does not put long choices at a disadvantage, and is no probability any more.
    Raises ValueError if there are no scores.
    """
    if not scores:
        raise ValueError("nothing to choose from")
    values = [score.log_probability / max(1, score.num_tokens) if per_token else score.log_probability for score in scores]
    return values.index(max(values))


def unread_share(scores: Sequence[ContinuationScore]) -> float:
    """What those that were not read to their end add up to at most, as a share of what the others do; 0 where all were read."""
    logs = [(score.log_probability, score.is_bound) for score in scores]
    if not any(is_bound for _, is_bound in logs):
        return 0.0
    best = max((log for log, is_bound in logs if not is_bound), default=-math.inf)
    if best == -math.inf:
        return math.inf
    bounds = sum(math.exp(log - best) for log, is_bound in logs if is_bound)
    return bounds / sum(math.exp(log - best) for log, is_bound in logs if not is_bound)


def matching_choice(answer: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that a written answer is, or that a sentence names which says nothing else; None if it is none, or several.

    "정답은 긍정입니다.", "이 리뷰는 긍정적입니다.", "Label: positive", "<positive>" and "1. positive" name one, and "아니요" is
    "아니오". "It is positive, I think" does not: the text is not searched. A draft before it is no part of it, nor are reasons behind
    an empty line, unless they say at last that the answer is another choice.
    """
    said, places = without_draft(answer), _places(choices)
    index = _named_choice(said, places)
    if index is not None or (first := FIRST.match(said.strip())) is None or OPEN.match(first["said"]):
        return index
    index = _named_choice(first["said"], places)
    named = [at for line in first["reasons"].splitlines() if (at := _concluded_choice(line, places)) is not None]
    return index if named[-1:] in ([], [index]) else None


def _concluded_choice(line: str, places: Mapping[str, int]) -> int | None:
    """The choice that a line of reasons is, or says at last that the answer is; None if it says nothing of the answer."""
    for said in reversed(CONCLUSION_IS.split(normalise_answer(line))[1:]):
        for part in (said, CLAUSE_ENDS.split(said, maxsplit=1)[0]):
            if (index := _named_choice(part, places)) is not None:
                return index
    return _named_choice(line, places, is_reason=True)


def _places(choices: Sequence[str]) -> dict[str, int]:
    """The index of each choice that is like no other once normalised, by what it is then."""
    names = [normalise_answer(choice) for choice in choices]
    counts = Counter(names)
    return {name: at for at, name in enumerate(names) if name and counts[name] == 1}


def _named_choice(said: str, places: Mapping[str, int], *, is_reason: bool = False) -> int | None:
    """See `matching_choice`. A line that `is_reason` names none as an adjective where it is no sentence: "긍정적인 내용:"."""
    given = normalise_answer(said)
    bare = (BEGINS_A_REASON if is_reason else BEGINS).sub("", given)
    wrapped = WRAPPED.match(bare.strip())
    inner = (wrapped["marked"] or wrapped["boxed"] or wrapped["bare"]) if wrapped else bare
    ended = normalise_answer(ENDS.sub("", bare))
    tries = [normalise_answer(one) for one in (given, bare, ended, inner)]
    if not is_reason or bare != given or ended != bare:
        tries += _without_kind(ended, places)
    tries += [SPELLED_TWICE[name] for name in tries if name in SPELLED_TWICE]
    return next((places[name] for name in tries if name in places), None)


def _without_kind(said: str, places: Mapping[str, int]) -> list[str]:
    """What "긍정적인 리뷰" may call 긍정적 or 긍정. Of "불만 문의" nothing where 문의 is a choice, too."""
    kind = A_KIND_OF_TEXT.search(said)
    if kind and kind["text"] in places:
        return []
    adjective = A_KIND_OF_TEXT.sub("", said)
    return [adjective, re.sub(r"(?<=적)인$", "", adjective), AS_ADJECTIVE.sub("", adjective)]


def equal_choice(answer: str, choices: Sequence[str]) -> int | None:
    """Index of the choice that is the same as a written answer once both are normalised; None if it is none of them, or several."""
    return _places(choices).get(normalise_answer(answer))


def begun_length(text: str, mark: str) -> int:
    """How many of a text's last characters could be the beginning of `mark`, and not all of it."""
    most = min(len(text), len(mark) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(mark[:size])), 0)


def num_common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """How many items two sequences have in common before they differ."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def some_begin_others(texts: Iterable[Sequence[Any]]) -> bool:
    """Whether one of these texts, or rows of tokens, is another's beginning, and not all of it."""
    ordered = sorted({tuple(text) for text in texts})  # what begins with a text comes right after it
    return any(after[: len(before)] == before for before, after in pairwise(ordered))


def _is_padding(char: str) -> bool:
    return char in (" ", CODE_MARK) or unicodedata.category(char).startswith("P")
