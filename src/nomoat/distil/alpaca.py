"""Whether seeds are Alpaca's: a copy of their file, under whatever name, or an edited one.

OpenAI's terms depend on it: what comes of tasks of every kind trains an assistant that competes with theirs.
What this does not cover: instructions that were put in other words, or translated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from nomoat import textfiles
from nomoat.distil.prompts import Task

FINGERPRINT_DIGITS = 8


def are_mostly_alpacas(tasks: Sequence[Task]) -> bool:
    """Whether half of these instructions or more are Alpaca's, whatever their inputs and outputs."""
    return bool(tasks) and 2 * sum(fingerprint(task.instruction) in _fingerprints() for task in tasks) >= len(tasks)


def fingerprint(instruction: str) -> str:
    """Of an instruction, whatever its case and spaces: the file of Alpaca's has one a line."""
    words = " ".join(textfiles.composed(instruction).casefold().split())
    return hashlib.sha256(words.encode()).hexdigest()[:FINGERPRINT_DIGITS]


@cache
def _fingerprints() -> frozenset[str]:
    text = resources.files("nomoat.distil").joinpath("alpaca_fingerprints.txt").read_text(encoding="utf-8")
    return frozenset(text.split())
