"""What a thread of a team does with its jobs, see `team`; `program` announces them."""

from __future__ import annotations

from typing import Any

from nomoat import jit
from nomoat.engine.team import MOST_THREADS, TEAM_NUMBERS, TeamState

SPINS = 20_000  # how often a thread looks for the next job before it sleeps: some tenths of a millisecond


def add(address: Any, value: Any) -> Any:
    """Add to the number that lies there, atomically, and give what it was: with 0, what it is after all that this thread has written
    is to be seen, which ARM's plain loads may be before.
    """
    return jit.add_atomic(address, value)


@jit.kernel
def _do_share(state: Any, me: Any, threads: Any) -> None:
    numbers = jit.longs_at(state, TEAM_NUMBERS)
    jit.call_with_3(numbers[TeamState.SHARE], state, me, threads)
    if me == 0:
        numbers[TeamState.OWED] = 0


def do_share(state: Any, me: Any) -> None:
    """A thread's share of the job that is announced. `state`: the address of the team's."""
    _do_share(state, me, jit.load_atomic(state + 8 * TeamState.TICKET) & MOST_THREADS)


def serve(state: Any, me: Any, done: Any) -> Any:
    """Do one's share of the chains after the one whose ticket is `done`; the last ticket when no other came for a moment."""
    spins = 0
    while spins < SPINS:
        ticket = jit.load_atomic(state + 8 * TeamState.TICKET)
        if ticket == done:
            spins = jit.wait_a_moment(spins)
        else:
            done = ticket
            if me < ticket & MOST_THREADS:
                _do_share(state, me, ticket & MOST_THREADS)
                spins = 0
    return done


def announce(state: Any, jobs: Any, count: Any) -> Any:
    """Begin with a chain of so many jobs and do one's share. 1, and nothing done, if somebody must be woken first: see `do_share`."""
    numbers = jit.longs_at(state, TEAM_NUMBERS)
    threads = numbers[TeamState.THREADS]
    numbers[TeamState.JOBS], numbers[TeamState.NUM_JOBS], numbers[TeamState.OWED] = jobs, count, 1
    if threads > 1:  # one alone calls nobody
        ticket = jit.load_atomic(state + 8 * TeamState.TICKET)
        jit.add_atomic(state + 8 * TeamState.TICKET, MOST_THREADS + 1 + threads - (ticket & MOST_THREADS))
        for thread in range(1, threads):
            if jit.load_atomic(state + 8 * (TEAM_NUMBERS + thread)):
                return 1
    _do_share(state, 0, threads)
    return 0
