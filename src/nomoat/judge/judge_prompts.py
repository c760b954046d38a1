"""What a model that judges is asked, and how its verdict is read.

The method is MT-bench's (Zheng et al. 2023, arXiv:2306.05685; FastChat's prompts `pair-v2` and `single-v1`): one question, two answers
called A and B, a short comparison, then [[A]], [[B]] or [[C]] for a tie; or one answer and a grade, [[1]] to [[10]]. Our words.
A judge whose likelihoods can be had is not asked to write: the likeliest of its possible verdicts counts, which it cannot write badly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nomoat import matching
from nomoat.records import Message, Request

MAX_VERDICT_TOKENS = 512
VERDICTS = ("[[A]]", "[[B]]", "[[C]]")
GRADES = tuple(f"[[{grade}]]" for grade in range(1, 11))

PAIR_TASK = (
    "You are an impartial judge. Two assistants, A and B, were given the same task by a user. Decide which of them did it better: "
    "who followed the user's instructions, and was helpful, relevant, correct, thorough and clear. {turns}The order in which the "
    "answers are shown, their length, and the names of the assistants must not count."
)
GRADE_TASK = (
    "You are an impartial judge. An assistant was given a task by a user. Grade its answer: did it follow the user's instructions, "
    "and was it helpful, relevant, correct, thorough and clear? {turns}"
)
LAST_TURN = "Judge the last answer; what was said before it is there to understand it. "
REFERENCE = "A reference answer is given: first find out whether what you judge agrees with it. "
WRITE_PAIR = (
    "Compare the answers in a few sentences. Then give your verdict in exactly this form: [[A]] if A is better, [[B]] if B is better, "
    "[[C]] if they are equally good."
)
WRITE_GRADE = "Explain your grade in a few sentences. Then give it, from 1 (useless) to 10 (perfect), in exactly this form: [[5]]."
CHOOSE_PAIR = "Write your verdict and nothing else: [[A]] if A is better, [[B]] if B is better, [[C]] if they are equally good."
CHOOSE_GRADE = "Write your grade and nothing else, from [[1]] (useless) to [[10]] (perfect)."


def pair_request(one: Sequence[Message], other: Sequence[Message], *, reference: str = "", writes: bool) -> Request:
    """Ask which of two conversations ends with the better answer; each ends with the assistant's. `writes`: see the module."""
    shared = _shared(one, other)
    parts = [_task(PAIR_TASK, one, reference), WRITE_PAIR if writes else CHOOSE_PAIR]
    parts += _section("The task", shared) + _reference(reference)
    parts += _section("Assistant A", one[len(shared) :]) + _section("Assistant B", other[len(shared) :])
    return _request(parts, writes=writes)


def grade_request(conversation: Sequence[Message], *, reference: str, writes: bool) -> Request:
    """Ask for the grade of the last answer of a conversation."""
    parts = [_task(GRADE_TASK, conversation, reference), WRITE_GRADE if writes else CHOOSE_GRADE]
    parts += _section("The task", conversation[:-1]) + _reference(reference) + _section("The answer", conversation[-1:])
    return _request(parts, writes=writes)


def parse_verdict(text: str) -> str | None:
    """A, B or C, as the last of the verdicts a judge wrote says; None if it wrote none. What stands in a draft is none."""
    found = re.findall(r"\[\[([ABC])\]\]", matching.without_draft(text))
    return found[-1] if found else None


def parse_grade(text: str) -> float | None:
    """The last grade a judge wrote; None if it wrote none from 1 to 10. What stands in a draft is none."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", matching.without_draft(text))
    grade = float(found[-1]) if found else 0.0
    return grade if 1 <= grade <= 10 else None


def _shared(one: Sequence[Message], other: Sequence[Message]) -> Sequence[Message]:
    """What both conversations begin with: the question, unless earlier answers differ."""
    same = 0
    while same < min(len(one), len(other)) - 1 and one[same] == other[same]:
        same += 1
    return one[:same]


def _task(template: str, conversation: Sequence[Message], reference: str) -> str:
    answers = sum(message.role == "assistant" for message in conversation)
    return template.replace("{turns}", (LAST_TURN if answers > 1 else "") + (REFERENCE if reference else "")).strip()


def _section(title: str, messages: Sequence[Message]) -> list[str]:
    if not messages:
        return []
    texts = [message.content if len(messages) == 1 else f"({message.role}) {message.content}" for message in messages]
    return [f"<<< {title} >>>", *texts, f"<<< End: {title} >>>"]


def _reference(reference: str) -> list[str]:
    return _section("Reference answer", [Message(role="assistant", content=reference)]) if reference else []


def _request(parts: Sequence[str], *, writes: bool) -> Request:
    # The task stands at the end once more: small judges forget what they were asked before two long answers.
    messages = (Message(role="user", content="\n\n".join([*parts, parts[1]])),)
    return Request(messages=messages, max_new_tokens=MAX_VERDICT_TOKENS if writes else 8, temperature=0.0)
