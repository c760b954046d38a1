"""What lessons ask, as digests by which they are compared: in any case and spacing."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from nomoat.conversations import Lesson

NO_WIDTH = re.compile("[\u200b\u2060\ufeff]")  # spaces that nobody sees and `split` does not know: pages and exports add them


def asked(lesson: Lesson) -> Iterator[tuple[int, bytes]]:
    """The place of each answer to learn, and a digest of what is asked before it: a row's text, or all that is said but answers,
    learned or not."""
    not_learned = set(lesson.not_learned)
    return ((at, question) for at, question in answered(lesson) if at not in not_learned)


def answered(lesson: Lesson) -> Iterator[tuple[int, bytes]]:
    """As `asked`, of every answer."""
    if lesson.text is not None:
        yield 1, hashlib.sha256(_plain(lesson.text)).digest()
        return
    found, between = hashlib.sha256(), b""
    for at, message in enumerate(lesson.messages):
        if at > 0 and message.role == "assistant":
            yield at, found.digest()
        if (at == 0 or message.role != "assistant") and (said := _plain(message.content)):
            found.update(between + said)
            between = b" "


def last_asked(lesson: Lesson) -> bytes:
    """What is asked before its last answer."""
    *_, (_, question) = asked(lesson)
    return question


def chains(lessons: Sequence[Lesson]) -> tuple[dict[bytes, bytes], set[bytes]]:
    """The first question of the chain that each question is in, and the questions of chains from which several conversations go on.

    A chain is what a log holds of a conversation, once for each of its answers: of questions each of which follows another alone. One
    ends with its conversation, or where several go on, each another way; it keeps its first question where the conversation goes on.
    Of every answer, learned or not. Questions by themselves are in neither.
    """
    of_lessons = (list(dict.fromkeys(question for _, question in answered(lesson))) for lesson in lessons)
    of_several = [questions for questions in of_lessons if len(questions) > 1]
    following, forks, first = dict[bytes, bytes](), set[bytes](), dict[bytes, bytes]()
    for questions in of_several:
        forks.update(one for one, after in itertools.pairwise(questions) if following.setdefault(one, after) != after)
    for questions in of_several:
        begin = questions[0]
        for question, after in itertools.pairwise((*questions, b"")):
            first[question] = min(begin, first.get(question, begin))  # of two, where another asks in two turns what one asks in one
            begin = after if question in forks else begin
    return first, {question for questions in of_several for question in questions if first[question] != first[questions[-1]]}


def _plain(text: str) -> bytes:
    return " ".join(NO_WIDTH.sub("", unicodedata.normalize("NFKC", text)).casefold().split()).encode("utf-8", "surrogatepass")
