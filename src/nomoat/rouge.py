"""ROUGE-L, for every script."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import regex

LETTER = r"[\p{L}\p{N}]"  # or a digit
ON_LETTER = r"[\p{L}\p{N}\p{Mn}\p{Mc}]"  # or a vowel sign or the like on one: without them Indic words fall apart
WORD = regex.compile(f"{LETTER}{ON_LETTER}*")


def words(text: str) -> list[str]:
    """Letters, with their marks, and digits that stand together, in lower case. rouge-score's own tokenizer knows ASCII only."""
    return WORD.findall(text.lower())


def rouge_l(given: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 over the longest common subsequence of two lists of words, without stemming. Source: Google's rouge-score."""
    return float(_scorer().score(wanted, given)["rougeL"].fmeasure)


class _AsGiven:
    """A tokenizer for what is in words already."""

    def tokenize(self, found: Sequence[str]) -> Sequence[str]:
        return found


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_AsGiven())
