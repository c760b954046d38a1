"""Choices of a model that gives no likelihoods: how it is asked to write one, and which one it wrote.

A question that names its choices is asked as it is, and the answer is compared with them. Any other gets them as letters; which letter
a choice has is drawn from the example's id, so that no letter is right more often than another.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from nomoat import matching
from nomoat.judge import scorers
from nomoat.judge.suite import Suite
from nomoat.records import Example, Message

LETTERS_BEGIN = f"\n\n{scorers.LETTERS[0]}. "
LETTERS_END = "Answer with the letter of the right choice only."


def by_letter(suite: Suite) -> bool:
    """Whether the suite's choices are asked for by letter. Looks at all of its examples: to be asked once, not for each of them."""
    return all(2 <= len(example.choices) <= len(scorers.LETTERS) for example in suite.examples) and not all(
        choice in example.messages[-1].content for example in suite.examples for choice in example.choices
    )


def written_question(example: Example, *, lettered: bool) -> tuple[Message, ...]:
    """The conversation that asks for a choice in writing; `lettered` if its suite's are asked for `by_letter`."""
    if not lettered:
        return example.messages
    *before, last = example.messages
    return (*before, Message(role="user", content=f"{last.content}{letters_of(example)}"))


def letters_of(example: Example) -> str:
    """What follows a question whose choice is asked for by letter: which letter stands for which, and that one is to be written."""
    return "\n\n".join(("", "\n".join(f"{letter}. {choice}" for letter, choice in _by_letter(example)), LETTERS_END))


def without_letters(asked: Sequence[Message]) -> tuple[Message, ...]:
    """The question alone of what was asked with `letters_of` behind it."""
    *before, last = asked
    return (*before, Message(role="user", content=last.content.rpartition(LETTERS_BEGIN)[0]))


def are_at_other_letters(example: Example, asked: str) -> bool:
    """Whether a choice stands at another letter in what was asked than it would now. One that is written otherwise now does not,
    where there are as many of them as now."""
    offered = f"\n{asked[asked.rfind(LETTERS_BEGIN) :].strip()}\n".casefold()
    lines = [(f"\n{letter}. {choice}\n".casefold(), f". {choice}\n".casefold()) for letter, choice in _by_letter(example)]
    last, *more = (f"\n{letter}. ".casefold() in offered for letter in scorers.LETTERS[len(lines) - 1 : len(lines) + 1])
    return not last or any(more) or any(line not in offered and text in offered for line, text in lines)


def written_choice(example: Example, answer: str, *, lettered: bool) -> str | None:
    """The choice that an answer is; None if it is none of them. An answer that is a choice, word for word, counts as one.

    So does a sentence that names a choice and says nothing else, where it names no letter: "The answer is B." is the letter, even
    where a choice is called B. A draft before it is no part of it.
    """
    answer = matching.without_draft(answer)
    index = matching.equal_choice(answer, example.choices)
    if index is None and lettered:
        letter = scorers.chosen_letter(answer, len(example.choices))
        index = None if letter is None else _order(example)[letter]
    if index is None:
        index = matching.matching_choice(answer, example.choices)
    return None if index is None else example.choices[index]


def choice_offered(example: Example, offered: str) -> str:
    """The example's choice that one is which was offered when the question had other words, and another delimiter maybe; itself if it
    is none of them."""
    return next((choice for choice in example.choices if choice.strip() == offered.strip()), offered.strip())


def is_right(example: Example, choice: str | None) -> float:
    """1.0 for a right choice, else 0.0."""
    return float(choice is not None and choice in (example.target, *example.other_targets))


def _by_letter(example: Example) -> list[tuple[str, str]]:
    return [(scorers.LETTERS[at], example.choices[index]) for at, index in enumerate(_order(example))]


def _order(example: Example) -> list[int]:
    count = len(example.choices)
    return random.Random(example.id).sample(range(count), count)
