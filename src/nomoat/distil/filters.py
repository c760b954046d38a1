"""Which tasks of a teacher are kept: Alpaca's rules, and what they mean in Korean and in scripts without spaces.

Source: generate_instruction.py of tatsu-lab/stanford_alpaca @ 761dc5b. It drops what does not begin with ASCII; here any letter or
digit will do, also behind a sign that opens a question or a quotation.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex

from nomoat.distil.prompts import FORM, Task
from nomoat.rouge import LETTER, ON_LETTER, rouge_l

MIN_WORDS, MAX_WORDS = 4, 150
SYLLABLES_A_WORD = 2  # of Korean, Chinese and Japanese: `이 글을 요약해 줘` has four words and seven syllables
LETTERS_A_WORD = 3  # of Thai and others that write no space between words: `แปลประโยคนี้` has three words and ten letters
MAX_SIMILARITY = 0.7
COPIED = {FORM.instruction, FORM.input, FORM.output}  # small teachers mix them up, too
# What a model of text can neither see nor make.
NOT_TEXT = re.compile(
    r"\b(?:images?|graphs?|pictures?|photos?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b"
    r"|이미지|사진|그림(?!자|\s*형제)|그래프|(?<!프로)파일(?!럿)|동영상|비디오|오디오|음악을|도표|순서도",
    re.IGNORECASE,
)
PROGRAM = re.compile(r"write an? program|프로그램을 (?:작성|만들)", re.IGNORECASE)
SYLLABLE = re.compile(r"[\uac00-\ud7a3\u3040-\u30ff\u4e00-\u9fff]")
SPACELESS = regex.compile(r"[[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]&&\p{L}]", regex.V1)
# A letter of a script without spaces with the signs on it, or a word, which ends before any of the others.
PIECE = regex.compile(
    rf"{SYLLABLE.pattern}|{SPACELESS.pattern}\p{{M}}*|{LETTER}(?:(?!{SYLLABLE.pattern}|{SPACELESS.pattern}){ON_LETTER})*", regex.V1
)
OPENING = "¿¡“‘„‚«‹「『《〈"


def reason_to_drop(task: Task) -> str | None:
    """Why a task is not kept, whatever the others are; None if it is kept."""
    instruction = task.instruction
    length = _length(instruction)
    checks = {
        "no instruction": not instruction,
        "no answer": not task.output,
        "copied from the request": any(said.strip("<>[] .?").lower() in COPIED for said in (instruction, task.input, task.output)),
        "too short": length < MIN_WORDS,
        "too long": length > MAX_WORDS,
        "begins with no letter or digit": not instruction.lstrip(OPENING)[:1].isalnum(),
        "about images, sound or files": NOT_TEXT.search(instruction) is not None,
        "asks for a program": PROGRAM.match(instruction) is not None,
    }
    return next((reason for reason, applies in checks.items() if applies), None)


def pieces(text: str) -> list[str]:
    """What instructions are compared by: words, but each syllable of Korean, Chinese and Japanese by itself, and each letter of Thai
    and others that write no space between words.

    Korean's endings would make the same request a new one: 요약하세요, 요약해 주세요.
    """
    return PIECE.findall(text.lower())


class Novelty:
    """The instructions so far. One is new if its ROUGE-L F1 with each of them is at most 0.7, as in Alpaca."""

    def __init__(self, instructions: Iterable[str] = ()) -> None:
        self._known: list[list[str]] = []
        self._lengths = array("q")
        self._where: dict[tuple[str, int], array[int]] = {}  # see `_numbered`: the instructions that have it
        for instruction in instructions:
            self.add(instruction)

    def add(self, instruction: str) -> None:
        """From now on, what is like this one is not new."""
        found = pieces(instruction)
        for one in _numbered(found):
            self._where.setdefault(one, array("q")).append(len(self._known))
        self._known.append(found)
        self._lengths.append(len(found))

    def is_new(self, instruction: str) -> bool:
        """Whether it is unlike all so far."""
        found = pieces(instruction)
        return all(rouge_l(found, self._known[at]) <= MAX_SIMILARITY for at in self._candidates(found))

    def _candidates(self, found: Sequence[str]) -> Iterable[int]:
        """Those that could be like it: a common subsequence is no longer than what two texts have in common in any order.

        Counted for all at once: one by one, the check of each task would take the longer, the more there are.
        """
        places = [np.frombuffer(self._where[one], np.int64) for one in _numbered(found) if one in self._where]
        if not places:
            return ()
        common = np.bincount(np.concatenate(places), minlength=len(self._known))
        lengths = np.frombuffer(self._lengths, np.int64)
        return np.flatnonzero(2 * common > MAX_SIMILARITY * (len(found) + lengths)).tolist()


def _numbered(found: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each piece, and how often it came before: two texts have as many of these in common as pieces, in any order."""
    before = Counter[str]()
    for piece in found:
        yield piece, before[piece]
        before[piece] += 1


def _length(text: str) -> float:
    """In words; a text of syllables, or of a script without spaces, has at least as many as its syllables or letters make."""
    by_syllables, by_letters = len(SYLLABLE.findall(text)) / SYLLABLES_A_WORD, len(SPACELESS.findall(text)) / LETTERS_A_WORD
    return max(len(text.split()), by_syllables, by_letters)
