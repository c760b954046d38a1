"""Waits between attempts, and fewer requests at once for a server that complains."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from patience import PATIENCE_SECONDS

from nomoat.engine import pacing
from nomoat.engine.pacing import GaveUpWaitingError, Pace, asked_wait, wait_before


def test_waits_double_up_to_a_minute_and_half_of_each_is_chance() -> None:
    """The chance that 50 draws lie within a tenth of each other is below 1e-30."""
    for attempt, longest in ((1, 0.5), (2, 1.0), (4, 4.0), (7, 32.0), (8, 60.0), (1000, 60.0)):
        drawn = [wait_before(attempt) for _ in range(50)]
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
        assert max(drawn) - min(drawn) > longest / 20


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "Wed, 21 Oct 2015 07:27:30 GMT"}, 30.0),  # whatever the day is here
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", "date": "today"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +" + "9" * 30}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_wait_a_server_asks_for_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == seconds


def test_wait_until_a_date_is_counted_from_now() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    seconds = asked_wait({"retry-after": when})
    assert seconds is not None
    assert 25 < seconds <= 30


def test_storm_of_refusals_halves_once_and_answers_bring_the_pace_back() -> None:
    pace = Pace()
    turns = [pace.turn(0) for _ in range(8)]
    for turn in turns:
        turn.__enter__()
    for _ in range(5):
        pace.too_fast(0.2)
    assert pace.limit == 4
    for turn in turns:
        turn.__exit__(None, None, None)
    for _ in range(4):
        pace.went_well()
    assert pace.limit == 5


def test_requests_that_nobody_answers_keep_others_waiting_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SILENT_SECONDS", 1.0)
    pace = Pace(counts_silent=False)
    with pace.turn(0), pace.turn(0), pace.turn(0), pace.turn(0) as answered:
        answered.has_begun = True
        pace.too_fast(0.0)
        assert pace.limit == 2
        began = time.monotonic()
        with pace.turn(0):
            assert 0.5 < time.monotonic() - began < PATIENCE_SECONDS
            pace.too_fast(0.0)  # of all five that ask: those that are silent, too
            assert pace.limit == 3


def test_who_asks_alone_waits_for_all_and_all_for_that_one() -> None:
    pace, order, waiting = Pace(), [], threading.Event()

    def ask(name: str, alone: bool) -> None:
        with pace.turn(0, alone=alone):
            order.append((name, len(pace._turns)))

    threads = [threading.Thread(target=ask, args=one) for one in (("alone", True), ("alone", True), ("later", False))]
    with pace.turn(0):
        threads[0].start()
        threads[1].start()
        while pace._num_waiting_alone < 2:
            waiting.wait(0.001)
        threads[2].start()
        waiting.wait(0.05)
        assert order == []
    for thread in threads:
        thread.join()
    assert order == [("alone", 1), ("alone", 1), ("later", 1)]


def test_who_asks_alone_does_not_wait_for_ever_for_one_who_reads_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.engine.pacing.LONGEST_TURN_SECONDS", 0.01)
    pace = Pace()
    with pace.turn(0), pace.turn(0, alone=True) as alone:
        assert len(pace._turns) == 2
        assert alone.is_newest


def test_who_asks_alone_keeps_other_clients_waiting_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SILENT_SECONDS", 0.01)
    pace = Pace(counts_silent=False)
    with pace.turn(0, alone=True) as alone:
        alone.has_begun = True
        with pace.turn(0):
            assert not alone.is_newest


def test_a_question_is_the_newest_until_the_next_and_beside_others_that_are_being_answered_only() -> None:
    pace = Pace()
    with pace.turn(0) as first:
        assert first.is_newest
        with pace.turn(0) as second:
            assert not first.is_newest
            assert not second.is_newest
        first.has_begun = True
        with pace.turn(0) as third:
            assert third.is_newest
    assert not first.is_newest


def test_who_waits_is_sent_away_when_the_caller_leaves() -> None:
    pace = Pace()
    left = threading.Event()

    def wait() -> None:
        try:
            pace.pause(60, 0)
        except GaveUpWaitingError:
            left.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not left.wait(0.01):
        pace.give_up_waiting()
    thread.join()
    with pytest.raises(GaveUpWaitingError), pace.turn(0):  # nor does it wait once more
        raise AssertionError("never asked")
    with pace.turn(pace.num_given_up):  # who comes later is not disturbed
        assert left.is_set()
