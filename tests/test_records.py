"""What a record refuses to hold."""

from __future__ import annotations

import pytest

from nomoat.errors import UsageError
from nomoat.records import Message, Request


def test_half_a_character_is_refused_before_anything_is_asked() -> None:
    for make in (lambda: Message(role="user", content="hi \ud83d"), lambda: Request(prompt="hi \ud83d")):
        with pytest.raises(UsageError) as caught:
            make()
        assert caught.value.message == "the text is not whole: its character 4 is half of one"
        assert caught.value.hint == "send UTF-8 text; convert it first: `iconv`"


@pytest.mark.parametrize("count", [0, -1])
def test_an_answer_of_no_tokens_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"an answer of at most {count} tokens is asked for"):
        Request(prompt="x", max_new_tokens=count)
