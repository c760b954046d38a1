"""What a record refuses to hold."""

from __future__ import annotations

from typing import Any

import pytest

from nomoat.errors import UsageError
from nomoat.records import Completion, Look, Measure, Message, Outcome, Request, Side, TokenLikelihood, Usage, Verdict


def test_half_a_character_is_refused_before_anything_is_asked() -> None:
    asks = (
        (lambda: Message(role="user", content="hi \ud83d"), "a message's content"),
        (lambda: Request(prompt="hi \ud83d"), "the prompt"),
    )
    for make, what in asks:
        with pytest.raises(UsageError) as caught:
            make()
        assert caught.value.message == f"{what} is not whole: its character 4 is half of one"
        assert caught.value.hint == "send UTF-8 text; convert it first: `iconv`"


def test_a_byte_that_the_locale_has_no_character_for_is_told_from_half_a_character() -> None:
    """As Python gives the arguments of a command where LC_ALL=C and its UTF-8 mode is off."""
    with pytest.raises(UsageError) as caught:
        Request(prompt="왜".encode().decode("ascii", "surrogateescape"))
    assert caught.value.message == "the prompt is not whole: its character 1 is a byte that this locale's encoding does not have"
    assert caught.value.hint == "set a locale of UTF-8 (`LC_ALL=C.UTF-8`), or PYTHONUTF8=1"


def test_an_answer_without_a_token_has_no_speed() -> None:
    nothing = Usage(prompt_tokens=1, completion_tokens=0, prefill_seconds=0.1, decode_seconds=2.0)
    assert (nothing.decode_tokens_per_second, nothing.prefill_tokens_per_second) == (0.0, 10.0)


@pytest.mark.parametrize("role", ["System", "bot", "", None])
def test_a_mistyped_role_is_refused_with_those_there_are(role: Any) -> None:
    """A chat template would write a turn of that name, beside the system's message it has for want of one."""
    with pytest.raises(UsageError) as caught:
        Message(role=role, content="You are a pirate.")
    assert (caught.value.message, caught.value.hint) == (f"`role` is {role!r}", "known are system, user, assistant, tool")


@pytest.mark.parametrize("count", [0, -1])
def test_an_answer_of_no_tokens_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"an answer of at most {count} tokens is asked for"):
        Request(prompt="x", max_new_tokens=count)


def test_records_show_no_defaults_and_shorten_what_is_long() -> None:
    assert repr(Message(role="user", content="Hi")) == "Message(role='user', content='Hi')"
    assert len(repr(Message(role="user", content="x" * 100_000))) < 300
    usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.5, decode_seconds=0.5)
    tokens = tuple(TokenLikelihood(token_id=token, content=b"x", log_probability=-1.0) for token in range(1000))
    shown = repr(Completion(text="x" * 100_000, finish_reason="stop", usage=usage, likelihoods=tokens))
    assert shown.startswith("Completion(text='xxx") and len(shown) < 2000
    outcome = Outcome(suite="s", example_id="1", model="m", answer="yes", score=1.0, answer_key="never shown")
    assert repr(outcome) == "Outcome(suite='s', example_id='1', model='m', answer='yes', score=1.0)"
    measured = {"score": 1.0, "score_low": 0.5, "score_high": 1.0, "seconds_p50": None, "seconds_p95": None, "cost_usd_per_1000": None}
    side = Side(model="m", licence="mit", bytes_out=0, facts={}, **measured)  # type: ignore[arg-type]
    assert repr(side).endswith("cost_usd_per_1000=None)")


def test_a_verdict_shows_its_sentence_and_not_each_look() -> None:
    """What a notebook shows of one had 2,000 characters."""
    scored = {"score": 0.5, "score_low": 0.25, "score_high": 0.75, "licence": "mit", "bytes_out": 0}
    taken = {"seconds_p50": 0.5, "seconds_p95": 0.5, "cost_usd_per_1000": None}
    side = Side(model="m", facts={"sha256": "f" * 64}, **scored, **taken)  # type: ignore[arg-type]
    numbers = {"difference": 0.0, "difference_low": -0.25, "difference_high": 0.25, "p_value": 1.0, "wins": 0, "ties": 9, "losses": 0}
    looks = tuple(Look(num_examples=count, low=-0.123456789, high=0.123456789) for count in range(16, 160, 16))
    measures = tuple(Measure(name="wins", value=0.123456789, low=0.123456789, high=0.123456789, text="0 of 9") for _ in range(6))
    shown = repr(
        Verdict(
            suite="s",
            metric="choice",
            num_examples=9,
            left=side,
            right=side,
            winner="undecided",
            sentence="Too close to call.",
            suite_sha256="f" * 64,
            looks=looks,
            measures=measures,
            **numbers,  # type: ignore[arg-type]
        )
    )
    assert "sentence='Too close to call.'" in shown and "ffff" not in shown
    assert len(shown) < 700, len(shown)


def test_a_request_shows_what_was_given_and_shortens_what_is_long() -> None:
    shown = repr(Request(prompt_ids=range(5000), max_new_tokens=3, temperature=0.5))
    assert shown == "Request(prompt_ids=(0, 1, 2, 3, 4, 5, ...), max_new_tokens=3, temperature=0.5)"
    assert repr(Request(prompt="What is a moat?")) == "Request(prompt='What is a moat?')"
    asked = Message(role="user", content="Hi")
    assert repr(Request(messages=[asked])) == f"Request(messages=({asked!r},))"
    for request in (Request(prompt="x" * 100_000), Request(messages=[Message(role="user", content="x" * 100_000)] * 100)):
        assert "xxx...xxx" in repr(request)
        assert len(repr(request)) < 2000
