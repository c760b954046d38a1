"""Attention of many queries by AMX, where a CPU has it: see `attention`, whose very numbers these are.

A thread takes some queries of a head of keys. A span's keys and values are laid out for AMX once for all of them; then each sixteen
see it, but for the blocks after all of their tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import amx, attention_tables
from nomoat.engine.amx import REGISTER_BYTES
from nomoat.engine.attention_amx_kernels import (
    find_largest,
    gather_small,
    gather_wide,
    lay_small_fours,
    lay_wide_fours,
    score_small,
    score_wide,
    split_query,
    split_weights,
    weigh,
)
from nomoat.engine.attention_kernels import LOG2_E, cap_scores, clear, start_of
from nomoat.engine.attention_tables import (
    AMX_LEAST,
    AMX_PORTION,
    AMX_ROWS,
    AMX_STATE_BYTES,
    COLUMNS,
    ROW_NUMBERS,
    SMALL,
    SPAN_BLOCKS,
    SPAN_BYTES,
    STEP,
    UNITS_A_THREAD,
    VIEW_NUMBERS,
    Attention,
    QueryState,
    Row,
    View,
)
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kv_cache import block_of
from nomoat.engine.step_tables import JOB_NUMBERS

_places = jit.kernel(attention_tables.amx_places)


def attend(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the queries of rows of many tokens, when keys and values are kept: the next few, until none are left."""
    job = jit.longs_at(at, JOB_NUMBERS)
    facts = jit.longs_at(job[Attention.VIEW], VIEW_NUMBERS)
    room, heads, count = facts[View.ROOMS] + me * facts[View.ROOM_BYTES], facts[View.KV_HEADS], facts[View.NUM_MANY]
    rows = jit.table_at(facts[View.MANY_ROWS], count, ROW_NUMBERS)
    group, queries = facts[View.HEADS] // heads, 0
    for r in range(count):
        queries += rows[r, Row.TOKENS] * group
    # fewer at a time where threads would have too few portions each
    fair = -(-queries * heads // (UNITS_A_THREAD * threads * AMX_ROWS)) * AMX_ROWS
    size, taken, before, r = max(AMX_LEAST, min(AMX_PORTION, fair)), job[Attention.NEXT_UNITS], 0, 0
    unit = jit.add_atomic(taken, 1)
    if count:
        amx.take_registers(amx.PANEL_TOKENS)
    while r < count:
        portions = -(-rows[r, Row.TOKENS] * group // size)
        if unit - before >= portions * heads:
            before += portions * heads
            r += 1
            continue
        head, first = (unit - before) // portions, (portions - 1 - (unit - before) % portions) * size  # see `attention.attend`
        _attend_some(job, facts, rows[r], head, first, min(size, rows[r, Row.TOKENS] * group - first), room)
        unit = jit.add_atomic(taken, 1)
    if count:
        amx.give_back_registers()


@jit.kernel
def _split_queries(
    job: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, room: Any, numbers: Any, steps: Any, states: Any, after: Any
) -> None:
    """Queries in bytes, beside one another; states of each sixteen; and for each of these the token after its own."""
    width, group = facts[View.WIDTH], facts[View.HEADS] // facts[View.KV_HEADS]
    scale = jit.as_float(np.uint32(facts[View.SCALE])) * np.float32(LOG2_E)
    clear(numbers, steps * STEP)
    numbers_W, after_P = jit.floats_at(numbers, width), jit.longs_at(after, AMX_PORTION)
    m, own = first // group, first % group
    for n in range(count):
        after_P[n] = row[Row.POSITION] + m + 1
        query = job[Attention.QUERY] + (row[Row.FIRST_TOKEN] + m) * job[Attention.QUERY_ROW_BYTES] + 4 * (head * group + own) * width
        query_W = jit.floats_at(query, width)
        for w in range(width):
            numbers_W[w] = query_W[w]
        state = states + n // AMX_ROWS * AMX_STATE_BYTES + 4 * (n % AMX_ROWS)
        most, total = (
            jit.floats_at(state + QueryState.MOST * 4 * AMX_ROWS, 1),
            jit.floats_at(state + QueryState.TOTAL * 4 * AMX_ROWS, 1),
        )
        most[0], total[0] = start_of(job[Attention.SINKS], head * group + own)
        unit = state + QueryState.QUERY_UNIT * 4 * AMX_ROWS
        split_query(numbers, steps, room + n * 2 * steps * STEP, unit)
        jit.floats_at(unit, 1)[0] *= scale
        own += 1
        if own == group:
            m, own = m + 1, 0
    for n in range(count, -(-count // AMX_ROWS) * AMX_ROWS):
        after_P[n] = after_P[count - 1]


@jit.kernel
def _lay_span(
    job: Any, facts: Any, row: Any, head: Any, block: Any, blocks: Any, steps: Any, keys: Any, values: Any, key_scales: Any,
    value_scales: Any,
) -> None:  # fmt: skip
    """Keys and values of so many blocks as AMX has them, and their scales."""
    width, size, value_size, first = facts[View.WIDTH], facts[View.KEY_SIZE], facts[View.VALUE_SIZE], row[Row.FIRST_BLOCK] + block
    for b in range(blocks):
        key = block_of(facts, job[Attention.KEYS], first + b, head, size)
        there = keys + b * steps * 2 * size * REGISTER_BYTES
        if size == SMALL:
            lay_small_fours(key, 2 * BLOCK_TOKENS, 0, width // 4, there)
        else:
            lay_wide_fours(key, 4 * BLOCK_TOKENS, 0, width // 4, there)
        value = block_of(facts, job[Attention.VALUES], first + b, head, value_size)
        for column in range(0, width, COLUMNS):
            here, there = value + 2 * column * value_size, values + SPAN_BLOCKS * BLOCK_TOKENS * column * value_size
            if value_size == SMALL:
                lay_small_fours(here, 2 * width, b * BLOCK_TOKENS // 4, BLOCK_TOKENS // 4, there)
            else:
                lay_wide_fours(here, 4 * width, b * BLOCK_TOKENS // 4, BLOCK_TOKENS // 4, there)
        key_scales_B, value_scales_B = (
            jit.floats_at(key_scales + 4 * BLOCK_TOKENS * b, BLOCK_TOKENS),
            jit.floats_at(value_scales + 4 * BLOCK_TOKENS * b, BLOCK_TOKENS),
        )
        of_keys_B, of_values_B = (
            jit.floats_at(key + BLOCK_TOKENS * width * size, BLOCK_TOKENS),
            jit.floats_at(value + BLOCK_TOKENS * width * value_size, BLOCK_TOKENS),
        )
        for n in range(BLOCK_TOKENS):
            key_scales_B[n], value_scales_B[n] = of_keys_B[n], of_values_B[n]


@jit.kernel
def _score(facts: Any, queries: Any, blocks: Any, steps: Any, state: Any, room: Any) -> None:
    """Sixteen queries' scores of the first blocks of a span that is laid out."""
    keys, _, _, scores, _, sums, _, key_scales, _, _, _, _ = _places(room, facts[View.WIDTH])
    units = state + 4 * QueryState.QUERY_UNIT * AMX_ROWS
    if facts[View.KEY_SIZE] == SMALL:
        score_small(queries, keys, steps, blocks, units, key_scales, sums, scores)
    else:
        score_wide(queries, keys, steps, blocks, units, key_scales, sums, scores)


@jit.kernel
def _weigh(facts: Any, start: Any, blocks: Any, after_Q: Any, state: Any, room: Any) -> None:
    """Their scores become weights. `start`: the span's first token. `after_Q`: the token after each query's own."""
    window, shown = facts[View.WINDOW], blocks * BLOCK_TOKENS
    _, _, _, scores, weights, sums, _, _, value_scales, sights, _, _ = _places(room, facts[View.WIDTH])
    cap = jit.as_float(np.uint32(facts[View.CAP])) * np.float32(LOG2_E)
    lows_Q, counts_Q, whole = jit.longs_at(sights, AMX_ROWS), jit.longs_at(sights + 8 * AMX_ROWS, AMX_ROWS), blocks
    for n in range(AMX_ROWS):
        end = after_Q[n] - start
        lows_Q[n] = max(0, end - window) if window else 0
        counts_Q[n] = max(0, min(end, shown) - lows_Q[n])
        whole = min(whole, 0 if lows_Q[n] else counts_Q[n] // BLOCK_TOKENS)
    if cap:
        for n in range(AMX_ROWS):
            cap_scores(scores + n * SPAN_BYTES, shown, cap)
    find_largest(scores, blocks, whole, sights, state, sums)
    weigh(scores, blocks, whole, sights, value_scales, state, sums)
    split_weights(scores, (blocks + 1) // 2, state, sums, weights)


@jit.kernel
def _gather(facts: Any, blocks: Any, state: Any, seen: Any, room: Any) -> None:
    """Add what they see by their weights."""
    width, parts = facts[View.WIDTH], (blocks + 1) // 2
    columns = -(-width // COLUMNS)
    _, values, _, _, weights, sums, _, _, _, _, _, _ = _places(room, width)
    if facts[View.VALUE_SIZE] == SMALL:
        gather_small(weights, values, parts, columns, state, sums, seen)
    else:
        gather_wide(weights, values, parts, columns, state, sums, seen)


@jit.kernel
def _see_span(facts: Any, start: Any, blocks: Any, count: Any, steps: Any, after: Any, states: Any, seen: Any, room: Any) -> None:
    """What all queries see of a span that is laid out.

    Between the weights of sixteen and what they see are the next ones' scores: AMX waits long for what has just been written.
    """
    columns, weighed, before = -(-facts[View.WIDTH] // COLUMNS) * COLUMNS, -1, 0
    for n in range(0, count, AMX_ROWS):
        after_Q = jit.longs_at(after + 8 * n, AMX_ROWS)
        some = min(blocks, -(-(after_Q[AMX_ROWS - 1] - start) // BLOCK_TOKENS))
        if some > 0:
            state = states + n // AMX_ROWS * AMX_STATE_BYTES
            _score(facts, room + n * 2 * steps * STEP, some, steps, state, room)
            if weighed >= 0:
                _gather(facts, before, states + weighed // AMX_ROWS * AMX_STATE_BYTES, seen + weighed * 4 * columns, room)
            _weigh(facts, start, some, after_Q, state, room)
            weighed, before = n, some
    if weighed >= 0:
        _gather(facts, before, states + weighed // AMX_ROWS * AMX_STATE_BYTES, seen + weighed * 4 * columns, room)


@jit.kernel
def _attend_some(job: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, room: Any) -> None:
    """What some queries of a row see, from number `first` on, of the heads that share a key's."""
    width, window = facts[View.WIDTH], facts[View.WINDOW]
    steps, columns = -(-width // STEP), -(-width // COLUMNS) * COLUMNS
    keys, values, numbers, _, _, _, seen, key_scales, value_scales, sights, states, _ = _places(room, width)
    after = sights + 2 * 8 * AMX_ROWS
    _split_queries(job, facts, row, head, first, count, room, numbers, steps, states, after)
    clear(seen, count * columns)
    after_P = jit.longs_at(after, count)
    block, end_block = max(0, after_P[0] - window) // BLOCK_TOKENS if window else 0, (after_P[count - 1] - 1) // BLOCK_TOKENS + 1
    while block < end_block:
        blocks, start = min((block // SPAN_BLOCKS + 1) * SPAN_BLOCKS, end_block) - block, block * BLOCK_TOKENS
        _lay_span(job, facts, row, head, block, blocks, steps, keys, values, key_scales, value_scales)
        _see_span(facts, start, blocks, count, steps, after, states, seen, room)
        block += blocks
    group = facts[View.HEADS] // facts[View.KV_HEADS]
    m, own = first // group, first % group  # counted on: `attention._result_of` divides for each query
    for n in range(count):
        result = job[Attention.ATTENDED] + 4 * ((row[Row.FIRST_TOKEN] + m) * facts[View.HEADS] + head * group + own) * width
        result_W, seen_W = jit.floats_at(result, width), jit.floats_at(seen + n * 4 * columns, width)
        total = jit.floats_at(states + n // AMX_ROWS * AMX_STATE_BYTES + 4 * (QueryState.TOTAL * AMX_ROWS + n % AMX_ROWS), 1)[0]
        for w in range(width):
            result_W[w] = seen_W[w] / total
        own += 1
        if own == group:
            m, own = m + 1, 0
