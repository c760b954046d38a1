"""How many threads learn, where other programs want the cores, too."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from nomoat.tune.threads import Threads


def learned_with(
    most: int, seconds_a_token: Callable[[int, float], float], until: float = 200.0, tokens: int = 1000
) -> list[tuple[float, int]]:
    """After so many seconds, so many threads did a step: in turn. `seconds_a_token`: of some threads, at a time."""
    threads, now, steps = Threads(most), 0.0, []
    while now < until:
        a_token = seconds_a_token(threads.count, now)
        steps.append((now, threads.count))
        now += tokens * a_token
        threads.note(tokens * a_token, tokens, now)
    return steps


def alone(count: int, _now: float) -> float:
    return 0.001 / count**0.5


def beside_others(count: int, _now: float) -> float:
    return 0.001 * count**0.7


def test_all_learn_where_nothing_else_runs_but_for_some_tries() -> None:
    steps = learned_with(2, alone)
    tries = [now for now, count in steps if count == 1]
    assert 4 < len(tries) < 8
    gaps = [after - before for before, after in itertools.pairwise(tries)]
    assert gaps == pytest.approx([30] * len(gaps), abs=3)


@pytest.mark.parametrize("most", [2, 3, 8])
def test_one_learns_where_that_is_faster_however_many_there_are(most: int) -> None:
    steps = learned_with(most, beside_others)
    assert [count for now, count in steps if now > 60].count(1) > 0.9 * sum(now > 60 for now, _ in steps)


def test_all_learn_again_when_the_other_program_has_ended() -> None:
    steps = learned_with(2, lambda count, now: (beside_others if 10 < now < 80 else alone)(count, now), until=300)
    assert {count for now, count in steps if 60 < now < 80} == {1}
    assert [count for now, count in steps if now > 120].count(1) < 0.05 * sum(now > 120 for now, _ in steps)


def test_one_thread_stays_one() -> None:
    assert {count for _, count in learned_with(1, alone)} == {1}


def test_steps_that_compile_do_not_make_fewer_threads_seem_faster() -> None:
    steps = learned_with(2, lambda count, now: 0.02 if int(now) % 7 == 0 else alone(count, now))
    assert (1, 1) not in itertools.pairwise(count for _, count in steps)


def test_long_steps_are_tried_no_more_often_than_short_ones() -> None:
    steps = learned_with(2, alone, until=36_000, tokens=40_000)
    assert [count for _, count in steps].count(1) < 0.04 * len(steps)
