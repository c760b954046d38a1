"""What the threads of a team do of a job: steps between two layers' attention (products, norms, gates), and what lies between jobs.

See `program` for who gives them jobs, and `custom_ops.FusedBlock` for what steps are.

Shapes: M tokens, R rows (outputs), C columns (inputs), W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import amx, experts, panels, step_tables
from nomoat.engine.attention_kernels import prefetch
from nomoat.engine.attention_tables import VIEW_NUMBERS, Attention, View
from nomoat.engine.elementwise import add, add_norm, copy, copy_rows, gate, gelu_gate, norm
from nomoat.engine.kernels import AHEAD, ROUNDED, round_inputs
from nomoat.engine.step_tables import (
    ADAPTER_STEP_NUMBERS,
    ATTENTION,
    B_TILE_NUMBERS,
    CHOICE,
    CODES_AFTER,
    COPY_BYTES,
    COUNTS,
    GATED_BYTES,
    HAS_PANELS,
    IN_BF16,
    JOB_NUMBERS,
    LAST_BIT,
    LAST_NORM,
    PAIR_COLUMNS,
    PAIR_ROOM,
    PANEL_TOKENS,
    PANELS_FROM,
    PIECES,
    ROOM_NUMBERS,
    SCALES_AFTER,
    STEP_NUMBERS,
    SUMS_BYTES,
    ZEROS_AFTER,
    AdapterStep,
    BTile,
    Job,
    Kind,
    Room,
    Step,
)
from nomoat.engine.team import TEAM_NUMBERS, TeamState
from nomoat.engine.tiles import TILE_ROWS

_tokens_a_part = jit.kernel(step_tables.tokens_a_part)


# Every step is done by all threads at once, each with its share: of a tile's rows of the result, or of the tokens
@jit.kernel
def _multiply_tile(step: Any, room: Any, y: Any, tokens: Any, t: Any) -> None:
    columns, rows = step[Step.COLUMNS], step[Step.ROWS]
    inputs, scales, totals, sums = room[Room.INPUTS], room[Room.SCALES], room[Room.TOTALS], room[Room.SUMS]
    tile, here = step[Step.TILES] + t * step[Step.TILE_BYTES], y + t * 4 * TILE_ROWS
    jit.call_with_9(step[Step.CODE], tile, inputs, scales, totals, sums, here, tokens, columns, rows)


@jit.kernel
def _add_beside(beside: Any, room: Any, owners: Any, y: Any, row_bytes: Any, tokens: Any, t: Any) -> None:
    """What each token's adapter adds to a tile's rows of a result: B's rows times what A made of the inputs.

    `beside`: an `AdapterStep`. `owners`: the address of each token's adapter, -1 for none.
    """
    owner_M, hidden_bytes = jit.longs_at(owners, tokens), 4 * beside[Step.ROWS]
    m = 0
    while m < tokens:
        owner, end = owner_M[m], m + 1
        while end < tokens and owner_M[end] == owner:
            end += 1
        if owner >= 0:
            place = jit.longs_at(
                beside[AdapterStep.B_TILES] + 8 * B_TILE_NUMBERS * (owner * beside[AdapterStep.NUM_TILES] + t), B_TILE_NUMBERS
            )
            hidden = room[Room.HIDDEN] + 4 * place[BTile.FIRST_RANK]
            while end - m >= panels.RANKS_TOGETHER:
                panels.add_ranks_together(
                    place[BTile.WEIGHTS], hidden + m * hidden_bytes, hidden_bytes, place[BTile.RANK], y + m * row_bytes, row_bytes
                )
                m += panels.RANKS_TOGETHER
            while m < end:
                panels.add_ranks(
                    place[BTile.WEIGHTS], hidden + m * hidden_bytes, hidden_bytes, place[BTile.RANK], y + m * row_bytes, row_bytes
                )
                m += 1
        m = end


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
            _multiply_tile(step, room, y, tokens, t)
            if owners:
                _add_beside(beside, room, owners, y + 4 * TILE_ROWS * t, 4 * step[Step.ROWS], tokens, t)
        start = jit.add_atomic(taken, piece)


@jit.kernel
def _multiply_words(
    step: Any, room: Any, tokens: Any, first: Any, second: Any, words: Any, starts: Any, start_tile_bytes: Any, start_row_bytes: Any,
    sums: Any, tile_bytes: Any, row_bytes: Any,
) -> None:  # fmt: skip
    """The products of two tiles and the panels of a part, in bf16; for places see `amx.panel_product`."""
    columns, group = step[Step.COLUMNS], step[Step.GROUP]
    at_once = -(-columns // (-(-columns // PAIR_COLUMNS) * amx.STEP)) * amx.STEP
    for start in range(0, columns, at_once):
        width = min(at_once, columns - start)
        for tile, t in enumerate((first, second)):
            here, there = step[Step.TILES] + t * step[Step.TILE_BYTES], words + tile * (amx.ROW_BYTES // 2)
            jit.call_with_5(step[Step.PANELS_CODE], here, start // group, width // group, there, 0)
        amx.panel_product(
            words,
            room[Room.INPUTS] + start * amx.COLUMN_BYTES,
            starts,
            start_tile_bytes,
            start_row_bytes,
            sums,
            tile_bytes,
            row_bytes,
            columns * amx.COLUMN_BYTES,
            width // amx.STEP,
            tokens,
        )
        starts, start_tile_bytes, start_row_bytes = sums, tile_bytes, row_bytes


@jit.kernel
def _multiply_bytes(
    step: Any, room: Any, tokens: Any, chunk: Any, blocks: Any, first: Any, second: Any, scales: Any, codes: Any, starts: Any,
    start_tile_bytes: Any, sums: Any,
) -> None:  # fmt: skip
    """The same in 8 bits, which scales each chunk. The sums of a tile's tokens lie together."""
    for tile in range(2):
        panels.begin_sums(sums + tile * SUMS_BYTES, starts + tile * start_tile_bytes, blocks * PANEL_TOKENS)
    columns, group = step[Step.COLUMNS], step[Step.GROUP]
    for start in range(0, columns, chunk):
        width = min(chunk, columns - start)
        for tile, t in enumerate((first, second)):
            here, there = step[Step.TILES] + t * step[Step.TILE_BYTES], codes + tile * (panels.FOUR_BYTES // 2)
            jit.call_with_5(step[Step.PANELS_CODE], here, start // group, width // group, there, scales + tile * 4 * TILE_ROWS)
        number = 4 * (start // chunk) * blocks * PANEL_TOKENS
        inputs, factors, firsts = (
            room[Room.INPUTS] + start * blocks * PANEL_TOKENS,
            room[Room.SCALES] + number,
            room[Room.SUMS] + number,
        )
        panels.panel_product(
            codes, scales, inputs, factors, firsts, sums, SUMS_BYTES, chunk * PANEL_TOKENS, width // 4, blocks, tokens
        )


@jit.kernel
def _starts(step: Any, first: Any, second: Any, zeros: Any) -> Any:
    """Where what the sums of two tiles begin with lies, the same for all tokens, and how far it is to the second's."""
    if step[Step.VECTOR]:
        return step[Step.VECTOR] + 4 * first * TILE_ROWS, 4 * (second - first) * TILE_ROWS
    return zeros, 0


@jit.kernel
def _multiply_pair(
    step: Any, beside: Any, room: Any, owners: Any, tokens: Any, chunk: Any, blocks: Any, first: Any, second: Any, sums: Any
) -> None:
    """The products of two tiles and the panels of a part, with their biases. What they need themselves lies after the sums."""
    codes = sums + CODES_AFTER
    starts, to_second = _starts(step, first, second, sums + ZEROS_AFTER)
    if IN_BF16:
        _multiply_words(step, room, tokens, first, second, codes, starts, to_second, 0, sums, SUMS_BYTES, 4 * TILE_ROWS)
    else:
        _multiply_bytes(step, room, tokens, chunk, blocks, first, second, sums + SCALES_AFTER, codes, starts, to_second, sums)
    if owners:
        for tile, t in enumerate((first, second)):
            _add_beside(beside, room, owners, sums + tile * SUMS_BYTES, 4 * TILE_ROWS, tokens, t)


@jit.kernel
def _multiply_in_place(
    step: Any, beside: Any, room: Any, owners: Any, tokens: Any, first: Any, second: Any, sums: Any, y: Any
) -> None:  # fmt: skip
    """The same in bf16, written or added to y without a detour."""
    row_bytes, to_second, here = 4 * step[Step.ROWS], 4 * (second - first) * TILE_ROWS, y + 4 * first * TILE_ROWS
    starts, start_to_second = _starts(step, first, second, sums + ZEROS_AFTER)
    start_row_bytes = 0
    if step[Step.KIND] == Kind.ADD:
        starts, start_to_second, start_row_bytes = here, to_second, row_bytes
    _multiply_words(
        step, room, tokens, first, second, sums + CODES_AFTER, starts, start_to_second, start_row_bytes, here, to_second, row_bytes
    )
    if owners:
        for t in range(first, second + 1):
            _add_beside(beside, room, owners, y + 4 * t * TILE_ROWS, row_bytes, tokens, t)


@jit.kernel
def _multiply_panels(
    step: Any, beside: Any, room: Any, owners: Any, y: Any, tokens: Any, chunk: Any, blocks: Any, asking: Any, taken: Any,
    threads: Any, me: Any,
) -> None:  # fmt: skip
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
            if IN_BF16 and (step[Step.KIND] != Kind.ADD or step[Step.VECTOR] == 0):
                _multiply_in_place(step, beside, room, owners, tokens, t, t + both - 1, sums, y)
                continue
            _multiply_pair(step, beside, room, owners, tokens, chunk, blocks, t, t + both - 1, sums)
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
    """A gate's results for a part of a prompt, a chunk at a time, which is rounded for the next product before it leaves the cache."""
    columns, sums = step[Step.ROWS] // 2, room[Room.PAIRS] + me * PAIR_ROOM
    gated = sums + PAIR_ROOM - GATED_BYTES
    c = jit.add_atomic(taken, 1)
    while c * chunk < columns:
        width = min(chunk, columns - c * chunk)
        for n in range(width // TILE_ROWS):
            t = c * (chunk // TILE_ROWS) + n
            _multiply_pair(step, beside, room, owners, tokens, chunk, blocks, t, t + columns // TILE_ROWS, sums)
            _gate(step, sums, sums + SUMS_BYTES, tokens * TILE_ROWS)
            panels.write_sums(sums, gated + 4 * n * TILE_ROWS, tokens, 4 * width)
        if IN_BF16:
            next_panels = room[Room.NEXT_INPUTS] + c * chunk * amx.COLUMN_BYTES
            amx.round_into_panels(gated, 4 * width, 0, tokens, width, next_panels, columns * amx.COLUMN_BYTES)
        else:
            next_panels, number = room[Room.NEXT_INPUTS] + c * chunk * blocks * PANEL_TOKENS, 4 * c * blocks * PANEL_TOKENS
            scales, firsts = room[Room.NEXT_SCALES] + number, room[Room.NEXT_SUMS] + number
            _round_panels(gated, 4 * width, next_panels, scales, firsts, 0, tokens, width, chunk, blocks)
        c = jit.add_atomic(taken, 1)


@jit.kernel
def _round_panels(
    x: Any, row_bytes: Any, places: Any, scales: Any, firsts: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any
) -> None:
    for m in range(first, end, panels.ROUNDED_TOGETHER):
        panel = places + m // PANEL_TOKENS * chunk * PANEL_TOKENS + 4 * (m % PANEL_TOKENS)
        left = min(panels.ROUNDED_TOGETHER, end - m)
        panels.round_into_panel(x + m * row_bytes, row_bytes, left, panel, scales + 4 * m, firsts + 4 * m, columns, chunk, blocks)


@jit.kernel
def _round_some(x: Any, row_bytes: Any, room: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any) -> None:
    if blocks and IN_BF16:
        amx.round_into_panels(x + first * row_bytes, row_bytes, first, end, columns, room[Room.INPUTS], columns * amx.COLUMN_BYTES)
        return
    if blocks:
        _round_panels(x, row_bytes, room[Room.INPUTS], room[Room.SCALES], room[Room.SUMS], first, end, columns, chunk, blocks)
        return
    for m in range(first, end):
        n, here = m * columns, x + m * row_bytes
        round_inputs(
            here,
            room[Room.INPUTS] + n,
            room[Room.SCALES] + n // 8,
            room[Room.TOTALS] + n // 8,
            room[Room.SUMS] + n // 4,
            columns // ROUNDED,
        )


@jit.kernel
def _round_rows(x: Any, row_bytes: Any, room: Any, tokens: Any, columns: Any, chunk: Any, blocks: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: a panel is written by one thread."""
    share = PANEL_TOKENS if blocks else 1
    for start in range(me * share, tokens, threads * share):
        _round_some(x, row_bytes, room, start, min(start + share, tokens), columns, chunk, blocks)


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
    step: Any, room: Any, residual: Any, y: Any, epsilon: Any, tokens: Any, width: Any, chunk: Any, blocks: Any, share: Any,
    state: Any, threads: Any, me: Any,
) -> None:  # fmt: skip
    """One thread's share of a norm, and of rounding what it gives for the next product."""
    _norm_rows(step, residual, y, epsilon, tokens, width, share, threads, me)
    if step[Step.KIND] == Kind.NORM:
        _round_rows(y, 4 * width, room, tokens, width, chunk, blocks, threads, me)
        jit.meet(state, threads)


@jit.kernel
def _product(
    step: Any, beside: Any, room: Any, owners: Any, y: Any, residual: Any, tokens: Any, chunk: Any, blocks: Any, asking: Any,
    taken: Any, threads: Any, me: Any,
) -> None:  # fmt: skip
    """One thread's share of a step's product, written to y; in a prompt's part with all that follows it, a sum or a gate.

    `asking`: see `_is_needed`.
    """
    if blocks == 0:
        _multiply(step, beside, room, owners, y, tokens, asking, taken, threads)
    elif _is_gated(step):
        _multiply_gated(step, beside, room, owners, tokens, chunk, blocks, taken, me)
        room[Room.INPUTS], room[Room.NEXT_INPUTS] = room[Room.NEXT_INPUTS], room[Room.INPUTS]
        room[Room.SCALES], room[Room.NEXT_SCALES] = room[Room.NEXT_SCALES], room[Room.SCALES]
        room[Room.SUMS], room[Room.NEXT_SUMS] = room[Room.NEXT_SUMS], room[Room.SUMS]
    else:
        target = residual if step[Step.KIND] == Kind.ADD else y
        _multiply_panels(step, beside, room, owners, target, tokens, chunk, blocks, asking, taken, threads, me)


@jit.kernel
def _ask_experts(
    step: Any, x: Any, room: Any, residual: Any, state: Any, tokens: Any, share: Any, taken: Any, threads: Any, me: Any
) -> None:
    """A step of a mixture of experts, one thread's share. x: what the norm before them gave."""
    if step[Step.KIND] == Kind.CHOOSE:
        experts.rate(step, x, room, tokens, threads, me)
        jit.meet(state, threads)
        if me == 0:
            experts.choose(step, room, tokens)
        jit.meet(state, threads)
        experts.gather(step, x, room, tokens, threads, me)
        jit.meet(state, threads)
        return
    experts.multiply(step, room, taken, threads)
    jit.meet(state, threads)
    if step[Step.KIND] == Kind.EXPERTS_GATED:
        experts.gate_pairs(step, room, tokens, threads, me)
        jit.meet(state, threads)
    else:
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
    columns, chunk = steps[0, Step.COLUMNS], job[Job.CHUNK_COLUMNS]
    blocks = -(-tokens // PANEL_TOKENS) if HAS_PANELS and (job[Job.IN_PANELS] or tokens >= PANELS_FROM) else 0
    share = PANEL_TOKENS if blocks else 1  # of tokens, as `_round_rows` has them
    if job[Job.BEFORE] != job[Job.AFTER]:
        copy_rows(job[Job.BEFORE] + 4 * first * width, residual, width, tokens, share, threads, me)
    if job[Job.ATTENDED]:
        _round_rows(job[Job.ATTENDED] + 4 * first * columns, 4 * columns, room, tokens, columns, chunk, blocks, threads, me)
        jit.meet(state, threads)
    if IN_BF16 and blocks:
        amx.take_registers(tokens)
    at, none = 0, np.int64(0)  # a number that numba knows would have it compile all once more for it
    for number in range(len(steps)):
        step = steps[number]
        rows = step[Step.ROWS]
        y = room[Room.RESULT]
        if step[Step.KIND] == Kind.NORM or step[Step.KIND] == Kind.ADD_NORM:
            _norm(step, room, residual, y, epsilon, tokens, width, chunk, blocks, share, state, threads, me)
            continue
        if step[Step.KIND] >= Kind.CHOOSE:
            _ask_experts(step, y, room, residual, state, tokens, share, taken + 8 * number, threads, me)
            continue
        if step[Step.KIND] == Kind.OUT:
            y = outputs[at] + 4 * first * rows
            at += 1
        beside = besides[number]
        owners = first_owner if beside[AdapterStep.B_TILES] and asking else 0
        if owners:
            of_beside = taken + 8 * (len(steps) + number)
            _product(beside, beside, room, none, room[Room.HIDDEN], residual, tokens, chunk, blocks, asking, of_beside, threads, me)
            jit.meet(state, threads)
        _product(step, beside, room, owners, y, residual, tokens, chunk, blocks, none, taken + 8 * number, threads, me)
        jit.meet(state, threads)
        if blocks == 0:
            _finish(step, y, residual, tokens, width, threads, me)
            if _is_gated(step):
                _round_rows(y, 4 * rows, room, tokens, rows // 2, chunk, blocks, threads, me)
                jit.meet(state, threads)
    if IN_BF16 and blocks:
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
