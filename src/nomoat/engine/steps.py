"""What the threads of a team do of a job: steps between two layers' attention (products, norms, gates), and what lies between jobs.

See `program` for who gives them jobs, and `custom_ops.FusedBlock` for what steps are.

Shapes: M tokens, R rows (outputs), C columns (inputs), W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import amx, amx_bytes, experts, panels, step_tables
from nomoat.engine.attention_kernels import prefetch
from nomoat.engine.attention_tables import VIEW_NUMBERS, Attention, View
from nomoat.engine.elementwise import add, add_norm, copy, copy_rows, gate, gelu_gate, norm
from nomoat.engine.kernels import AHEAD
from nomoat.engine.products import (
    add_beside,
    multiply_in_place,
    multiply_pair,
    multiply_tile,
    round_for_amx,
    round_panels,
    round_some,
)
from nomoat.engine.step_tables import (
    ADAPTER_STEP_NUMBERS,
    AMX_CHUNK,
    ATTENTION,
    BY_AMX,
    CHOICE,
    COPY_BYTES,
    COUNTS,
    GATED_BYTES,
    HAS_PANELS,
    JOB_NUMBERS,
    LAST_BIT,
    LAST_NORM,
    PAIR_ROOM,
    PANEL_TOKENS,
    PANELS_FROM,
    PIECES,
    ROOM_NUMBERS,
    STEP_NUMBERS,
    SUMS_BYTES,
    TOKENS_A_PART,
    AdapterStep,
    Job,
    Kind,
    Room,
    Step,
)
from nomoat.engine.team import TEAM_NUMBERS, TeamState
from nomoat.engine.tiles import TILE_ROWS

MANY_PAIRS = 2 * PANELS_FROM  # on average, of an expert
_tokens_a_part, _panels_from = jit.kernel(step_tables.tokens_a_part), jit.kernel(step_tables.panels_from)


# Every step is done by all threads at once, each with its share: of a tile's rows of the result, or of the tokens
@jit.kernel
def _asking(owners: Any, tokens: Any) -> Any:
    """A bit for each adapter that one of these tokens has."""
    owner_M, found = jit.longs_at(owners, tokens), 0
    for m in range(tokens):
        if owner_M[m] >= 0:
            found |= 1 << min(owner_M[m], LAST_BIT)
    return found


@jit.kernel
def _is_needed(step: Any, t: Any, asking: Any) -> Any:
    """Whether a tile is, of all adapters' matrix, by those that are asked; any other product's are, with 0 for these."""
    return asking == 0 or (jit.longs_at(step[AdapterStep.USERS], t + 1)[t] & asking) != 0


@jit.kernel
def _multiply(step: Any, beside: Any, room: Any, owners: Any, y: Any, tokens: Any, asking: Any, taken: Any, threads: Any) -> None:
    """`taken`: the address of how many tiles have been taken by any thread, which takes a few more until none is left."""
    count = step[Step.ROWS] // TILE_ROWS
    piece = max(1, count // (PIECES * threads))
    start = jit.add_atomic(taken, piece)
    while start < count:
        for t in range(start, min(start + piece, count)):
            if not _is_needed(step, t, asking):
                continue
            multiply_tile(step, room, y, tokens, t)
            if owners:
                add_beside(beside, room, owners, y + 4 * TILE_ROWS * t, 4 * step[Step.ROWS], tokens, t)
        start = jit.add_atomic(taken, piece)


@jit.kernel
def _multiply_panels(
    step: Any, beside: Any, room: Any, owners: Any, y: Any, tokens: Any, blocks: Any, asking: Any, taken: Any, threads: Any, me: Any
) -> None:
    """A step's product for a part of a prompt, written or added to y.

    A thread takes several pairs of tiles at a time where there are many: each time it waits for all that it has written.
    """
    count, sums = step[Step.ROWS] // TILE_ROWS, room[Room.PAIRS] + me * PAIR_ROOM
    piece = 2 * max(1, count // (2 * PIECES * threads))
    start = jit.add_atomic(taken, piece)
    while start < count:
        for t in range(start, min(start + piece, count), 2):
            both = min(2, count - t)
            if not (_is_needed(step, t, asking) or _is_needed(step, t + both - 1, asking)):
                continue
            after = t + 2 if t + 2 < start + piece else jit.load_atomic(taken)  # the latter: if no other thread takes those meanwhile
            for tile in range(after, min(after + 2, count)):
                prefetch(step[Step.TILES] + tile * step[Step.TILE_BYTES], AHEAD)
            if BY_AMX and (step[Step.KIND] != Kind.ADD or step[Step.VECTOR] == 0):
                multiply_in_place(step, beside, room, owners, tokens, t, t + both - 1, sums, y)
                continue
            multiply_pair(step, beside, room, owners, tokens, blocks, t, t + both - 1, sums)
            for tile in range(both):
                here, there = sums + tile * SUMS_BYTES, y + 4 * (t + tile) * TILE_ROWS
                if step[Step.KIND] == Kind.ADD:
                    panels.add_sums(here, there, tokens, 4 * step[Step.ROWS])
                else:
                    panels.write_sums(here, there, tokens, 4 * step[Step.ROWS])
        start = jit.add_atomic(taken, piece)


@jit.kernel
def _is_gated(step: Any) -> Any:
    return step[Step.KIND] == Kind.GATED or step[Step.KIND] == Kind.GELU_GATED


@jit.kernel
def _gate(step: Any, x: Any, up: Any, columns: Any) -> None:
    if step[Step.KIND] == Kind.GATED:
        gate(x, up, columns)
    else:
        gelu_gate(x, up, columns)


@jit.kernel
def _multiply_gated(step: Any, beside: Any, room: Any, owners: Any, tokens: Any, chunk: Any, blocks: Any, taken: Any, me: Any) -> None:
    """A gate's results for a part of a prompt, a chunk at a time, which is rounded for the next product before it leaves the cache.

    `chunk`: the next product's.
    """
    columns, sums = step[Step.ROWS] // 2, room[Room.PAIRS] + me * PAIR_ROOM
    gated = sums + PAIR_ROOM - GATED_BYTES
    c = jit.add_atomic(taken, 1)
    while c * chunk < columns:
        width = min(chunk, columns - c * chunk)
        for n in range(width // TILE_ROWS):
            t = c * (chunk // TILE_ROWS) + n
            multiply_pair(step, beside, room, owners, tokens, blocks, t, t + columns // TILE_ROWS, sums)
            _gate(step, sums, sums + SUMS_BYTES, tokens * TILE_ROWS)
            panels.write_sums(sums, gated + 4 * n * TILE_ROWS, tokens, 4 * width)
        if BY_AMX:
            in_bytes = chunk == AMX_CHUNK
            next_panels = room[Room.NEXT_INPUTS] + c * chunk * (amx_bytes.COLUMN_BYTES if in_bytes else amx.COLUMN_BYTES)
            scales = room[Room.NEXT_SCALES] + 4 * c * blocks * PANEL_TOKENS
            round_for_amx(gated, 4 * width, next_panels, scales, 0, tokens, width, columns, chunk, blocks)
        else:
            next_panels, number = room[Room.NEXT_INPUTS] + c * chunk * blocks * PANEL_TOKENS, 4 * c * blocks * PANEL_TOKENS
            scales, firsts = room[Room.NEXT_SCALES] + number, room[Room.NEXT_SUMS] + number
            round_panels(gated, 4 * width, next_panels, scales, firsts, 0, tokens, width, chunk, blocks)
        c = jit.add_atomic(taken, 1)


@jit.kernel
def _round_rows(x: Any, row_bytes: Any, room: Any, tokens: Any, columns: Any, chunk: Any, blocks: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: a panel is written by one thread."""
    share = PANEL_TOKENS if blocks else 1
    for start in range(me * share, tokens, threads * share):
        round_some(x, row_bytes, room, start, min(start + share, tokens), columns, chunk, blocks)


@jit.kernel
def _finish(step: Any, y: Any, residual: Any, tokens: Any, width: Any, threads: Any, me: Any) -> None:
    """What follows a product, one thread's share of the tokens: its bias, and the sum or the gate."""
    rows = step[Step.ROWS]
    for m in range(me, tokens, threads):
        here = y + 4 * m * rows
        if step[Step.VECTOR]:
            add(step[Step.VECTOR], here, rows)
        if step[Step.KIND] == Kind.ADD:
            add(here, residual + 4 * m * width, rows)
        elif _is_gated(step):
            _gate(step, here, here + 2 * rows, rows // 2)


@jit.kernel
def _norm_rows(step: Any, residual: Any, y: Any, epsilon: Any, tokens: Any, width: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: of the residual into y, or of y added to the residual."""
    for start in range(me * share, tokens, threads * share):
        for m in range(start, min(start + share, tokens)):
            row = 4 * m * width
            if step[Step.KIND] == Kind.NORM:
                norm(residual + row, step[Step.VECTOR], epsilon, y + row, width)
            else:
                add_norm(y + row, step[Step.VECTOR], epsilon, residual + row, width)


@jit.kernel
def _norm(
    steps: Any, number: Any, room: Any, residual: Any, y: Any, epsilon: Any, tokens: Any, width: Any, blocks: Any,
    share: Any, state: Any, threads: Any, me: Any,
) -> None:  # fmt: skip
    """One thread's share of a norm, and of rounding what it gives for the next product; without weights, the residual as it is.

    What chooses among experts reads what is not rounded, and rounds it for those that are asked.
    """
    step = steps[number]
    if step[Step.VECTOR]:
        _norm_rows(step, residual, y, epsilon, tokens, width, share, threads, me)
    if step[Step.KIND] == Kind.NORM:
        following = number + 1
        while following < len(steps) - 1 and steps[following, Step.TILES] == 0:
            following += 1
        if steps[following, Step.EXPERTS] == 0:
            x = y if step[Step.VECTOR] else residual
            _round_rows(x, 4 * width, room, tokens, width, steps[following, Step.CHUNK], blocks, threads, me)
        jit.meet(state, threads)


@jit.kernel
def _product(
    step: Any, beside: Any, room: Any, owners: Any, y: Any, residual: Any, tokens: Any, next_chunk: Any, blocks: Any, asking: Any,
    taken: Any, threads: Any, me: Any,
) -> None:  # fmt: skip
    """One thread's share of a step's product, written to y; in a prompt's part with all that follows it, a sum or a gate.

    `asking`: see `_is_needed`. `next_chunk`: of the next product, for what a gate gives.
    """
    if BY_AMX and blocks:
        amx.take_registers(PANEL_TOKENS if step[Step.CHUNK] == AMX_CHUNK else tokens)
    if blocks == 0:
        _multiply(step, beside, room, owners, y, tokens, asking, taken, threads)
    elif _is_gated(step):
        _multiply_gated(step, beside, room, owners, tokens, next_chunk, blocks, taken, me)
        room[Room.INPUTS], room[Room.NEXT_INPUTS] = room[Room.NEXT_INPUTS], room[Room.INPUTS]
        room[Room.SCALES], room[Room.NEXT_SCALES] = room[Room.NEXT_SCALES], room[Room.SCALES]
        room[Room.SUMS], room[Room.NEXT_SUMS] = room[Room.NEXT_SUMS], room[Room.SUMS]
    else:
        target = residual if step[Step.KIND] == Kind.ADD else y
        _multiply_panels(step, beside, room, owners, target, tokens, blocks, asking, taken, threads, me)


@jit.kernel
def _ask_experts(
    step: Any, x: Any, shared: Any, residual: Any, state: Any, tokens: Any, share: Any, taken: Any, threads: Any, me: Any
) -> None:
    """A step of a mixture of experts, one thread's share. x: what the norm before them gave, or the shared expert.

    In panels where a whole part of a prompt has many pairs for each expert, so that a token's way never depends on the others.
    """
    none, chunk = np.int64(0), step[Step.CHUNK]
    room = jit.longs_at(shared[Room.COPIES] + COPY_BYTES * me + 8 * ROOM_NUMBERS, ROOM_NUMBERS)
    for at in range(ROOM_NUMBERS):
        room[at] = shared[at]
    together = share if TOKENS_A_PART * step[Step.CHOSEN] >= MANY_PAIRS * step[Step.EXPERTS] else 1
    if step[Step.KIND] == Kind.CHOOSE or step[Step.KIND] == Kind.CHOOSE_OF_ALL:
        experts.rate(step, x, room, tokens, threads, me)
        jit.meet(state, threads)
        if me == 0:
            experts.choose(step, room, tokens, together)
        jit.meet(state, threads)
        experts.round_pairs(step, x, room, chunk, together, threads, me)
        jit.meet(state, threads)
        return
    if step[Step.KIND] == Kind.ADD_SHARED:
        experts.add_shared(step, x, room, residual, tokens, share, threads, me)
        return
    experts.multiply(step, room, chunk, together, taken, threads, me)
    jit.meet(state, threads)
    if step[Step.KIND] != Kind.EXPERTS_ADD:
        experts.round_pairs(step, none, room, chunk, together, threads, me)
        jit.meet(state, threads)
        return
    experts.add_up(step, room, residual, tokens, share, threads, me)


@jit.kernel
def _part(steps: Any, job: Any, part: Any, first: Any, tokens: Any, threads: Any, me: Any) -> None:
    """All steps for the tokens of a part, one thread's share.

    Rows of a result are ready when all threads are; then each token is the share of one thread until the next product.
    """
    state, outputs, width = job[Job.STATE], job[Job.OUTPUTS :], job[Job.WIDTH]
    told = jit.longs_at(job[Job.ROOM], ROOM_NUMBERS)
    # an array of numba's would be counted, atomically, at each call
    room = jit.longs_at(told[Room.COPIES] + COPY_BYTES * me, ROOM_NUMBERS)
    for at in range(ROOM_NUMBERS):
        room[at] = told[at]
    besides = jit.table_at(job[Job.ADAPTER_STEPS], len(steps), ADAPTER_STEP_NUMBERS)
    first_owner = job[Job.ADAPTERS] + 8 * first if job[Job.ADAPTERS] else 0
    asking = _asking(first_owner, tokens) if first_owner else 0
    taken = job[Job.NEXT_TILES] + 8 * COUNTS * len(steps) * part
    epsilon = jit.as_float(np.uint32(job[Job.EPSILON]))
    residual = job[Job.AFTER] + 4 * first * width
    columns, chunk = steps[0, Step.COLUMNS], steps[0, Step.CHUNK]
    blocks = -(-tokens // PANEL_TOKENS) if HAS_PANELS and (job[Job.IN_PANELS] or tokens >= _panels_from(chunk)) else 0
    share = PANEL_TOKENS if blocks else 1  # of tokens, as `_round_rows` has them
    if job[Job.BEFORE] != job[Job.AFTER]:
        copy_rows(job[Job.BEFORE] + 4 * first * width, residual, width, tokens, share, threads, me)
    if job[Job.ATTENDED]:
        _round_rows(job[Job.ATTENDED] + 4 * first * columns, 4 * columns, room, tokens, columns, chunk, blocks, threads, me)
        jit.meet(state, threads)
    at, none = 0, np.int64(0)  # a number that numba knows would have it compile all once more for it
    for number in range(len(steps)):
        step = steps[number]
        rows = step[Step.ROWS]
        y = room[Room.RESULT]
        if step[Step.KIND] == Kind.NORM or step[Step.KIND] == Kind.ADD_NORM:
            _norm(steps, number, room, residual, y, epsilon, tokens, width, blocks, share, state, threads, me)
            continue
        if step[Step.KIND] >= Kind.CHOOSE:
            _ask_experts(step, y, room, residual, state, tokens, share, taken + 8 * number, threads, me)
            continue
        if step[Step.KIND] == Kind.OUT:
            y = outputs[at] + 4 * first * rows
            at += 1
        beside, next_chunk = besides[number], steps[min(number + 1, len(steps) - 1), Step.CHUNK]
        owners = first_owner if beside[AdapterStep.B_TILES] and asking else 0
        if owners:
            of_beside = taken + 8 * (len(steps) + number)
            _product(
                beside, beside, room, none, room[Room.HIDDEN], residual, tokens, next_chunk, blocks, asking, of_beside, threads, me
            )
            jit.meet(state, threads)
        _product(step, beside, room, owners, y, residual, tokens, next_chunk, blocks, none, taken + 8 * number, threads, me)
        jit.meet(state, threads)
        if blocks == 0:
            _finish(step, y, residual, tokens, width, threads, me)
            if _is_gated(step):
                _round_rows(y, 4 * rows, room, tokens, rows // 2, next_chunk, blocks, threads, me)
                jit.meet(state, threads)
    if BY_AMX and blocks:
        amx.give_back_registers()


@jit.kernel
def _last_norm(job: Any, me: Any, threads: Any) -> None:
    """The norm after the last layer."""
    width, epsilon = job[Job.WIDTH], jit.as_float(np.uint32(job[Job.EPSILON]))
    for m in range(me, job[Job.TOKENS], threads):
        norm(job[Job.BEFORE] + 4 * m * width, job[Job.WEIGHT], epsilon, job[Job.AFTER] + 4 * m * width, width)


@jit.kernel
def _choose(job: Any, me: Any, threads: Any) -> None:
    """The rows of the tokens whose logits are wanted, one after another."""
    wanted, row_bytes = jit.longs_at(job[Job.WANTED], job[Job.TOKENS]), 4 * job[Job.WIDTH]
    for m in range(me, job[Job.TOKENS], threads):
        copy(job[Job.BEFORE] + wanted[m] * row_bytes, job[Job.AFTER] + m * row_bytes, job[Job.WIDTH])


def share(at: Any, me: Any, threads: Any) -> None:
    """A chain of jobs, one thread's share. `at`: the address of the team's state."""
    state = jit.longs_at(at, TEAM_NUMBERS)
    jobs = jit.table_at(state[TeamState.JOBS], state[TeamState.NUM_JOBS], JOB_NUMBERS)
    for number in range(len(jobs)):
        job = jobs[number]
        if job[Job.NUM_STEPS] == ATTENTION:
            facts, here = jit.longs_at(job[Attention.VIEW], VIEW_NUMBERS), state[TeamState.JOBS] + 8 * JOB_NUMBERS * number
            jit.call_with_3(facts[View.KEEP_CODE], here, me, threads)
            jit.meet(job[Job.STATE], threads)
            if facts[View.AMX_CODE]:
                jit.call_with_3(facts[View.AMX_CODE], here, me, threads)
            jit.call_with_3(facts[View.ATTEND_CODE], here, me, threads)
            if facts[View.PIECES] > 1:
                jit.meet(job[Job.STATE], threads)
                jit.call_with_3(facts[View.JOIN_CODE], here, me, threads)
        elif job[Job.NUM_STEPS] == LAST_NORM:
            _last_norm(job, me, threads)
        elif job[Job.NUM_STEPS] == CHOICE:
            _choose(job, me, threads)
        else:
            steps = jit.table_at(job[Job.STEPS], job[Job.NUM_STEPS], STEP_NUMBERS)
            size = _tokens_a_part(job[Job.TOKENS])
            for first in range(0, job[Job.TOKENS], size):
                _part(steps, job, first // size, first, min(size, job[Job.TOKENS] - first), threads, me)
        jit.meet(job[Job.STATE], threads)
