"""Tables that Python and compiled code both read. Compiled code looks at no bounds: a wrong place is somebody else's memory."""

from __future__ import annotations

from enum import IntEnum

import pytest

from nomoat.engine.attention_tables import Attention, LaidOut, PassRow, QueryState, Row, View
from nomoat.engine.step_tables import ADAPTER_STEP_NUMBERS, JOB_NUMBERS, AdapterStep, BTile, Job, Kind, Room, Step
from nomoat.engine.team import TEAM_NUMBERS, TeamState


def places(*tables: type[IntEnum]) -> list[int]:
    """Of all names, in their order; two names of one place give it twice."""
    return [int(place) for table in tables for place in table.__members__.values()]


@pytest.mark.parametrize("table", [Kind, Step, BTile, Room, View, Row, PassRow, LaidOut, QueryState])
def test_each_place_of_a_table_has_one_name(table: type[IntEnum]) -> None:
    assert places(table) == list(range(len(table)))


def test_what_adapters_add_to_a_step_is_a_step_with_more_places() -> None:
    assert places(Step, AdapterStep) == list(range(ADAPTER_STEP_NUMBERS))


def test_a_layers_attention_has_the_places_of_any_job_and_its_own() -> None:
    together = sorted([Job.STATE, Job.NUM_STEPS, *places(Attention)])
    assert len(set(together)) == len(together)
    assert max(together) < JOB_NUMBERS == max(Job) + 1


def test_what_threads_of_a_team_wait_for_lies_apart_from_all_else() -> None:
    from nomoat import jit

    waited = [8 * place // 64 for place in (TeamState.TICKET, jit.ARRIVED, jit.PHASE)]  # which cache line
    others = {8 * place // 64 for place in places(TeamState) if place != TeamState.TICKET}
    assert len(set(waited)) == 3
    assert others.isdisjoint(waited)
    assert max(TeamState) < TEAM_NUMBERS
