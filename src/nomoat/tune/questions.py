"""What lessons ask, as digests by which they are compared: in any case and spacing."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence

from nomoat.conversations import Lesson


def asked(lesson: Lesson) -> Iterator[tuple[int, bytes]]:
    """The place of each answer to learn, and a digest of what is asked before it: a row's text, or all that is said but answers,
    learned or not."""
    if lesson.text is not None:
        yield 1, hashlib.sha256(_plain(lesson.text)).digest()
        return
    found, between, learned = hashlib.sha256(), b"", set(lesson.learned)
    for at, message in enumerate(lesson.messages):
        if at in learned:
            yield at, found.digest()
        if (at == 0 or message.role != "assistant") and (said := _plain(message.content)):
            found.update(between + said)
            between = b" "


def last_asked(lesson: Lesson) -> bytes:
    """What is asked before its last answer."""
    *_, (_, question) = asked(lesson)
    return question


def ends(lessons: Sequence[Lesson]) -> dict[bytes, bytes]:
    """The last question of the conversation that goes on from a question, as logs hold one once for each of its answers; of a question
    from which several go on, itself. Only of those from which one does.
    """
    of_several = [questions for lesson in lessons if len(questions := [question for _, question in asked(lesson)]) > 1]
    gone_on, found = {question for *earlier, _ in of_several for question in earlier}, dict[bytes, bytes]()
    for *earlier, last in of_several:
        if last not in gone_on:
            found |= {question: last if found.get(question, last) == last else question for question in earlier}
    return found


def _plain(text: str) -> bytes:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode("utf-8", "surrogatepass")
