"""What tokens see: their queries meet the keys of their text, and weigh its values.

The queries of all heads that share a key stand beside one another, token by token, so that a key is read once for up to 24 of them.
Scores of a span of keys are held at a time; what was seen before is scaled when a larger score comes. Source: Dao et al. 2022,
FlashAttention, arXiv:2205.14135. Keys and values are whole numbers as they are kept, and queries and weights become such of 16 bits: a
CPU multiplies twice as many of them at once as of float32. Each key has scales of its own, so that nothing depends on what comes after
it. Keys of few tokens are seen in pieces where that gives every thread something to do, whose parts are joined (as in Flash-Decoding,
Dao et al. 2023). Many tokens are seen by AMX where it is to be had, in the very same numbers: `attention_amx`.

A job is one layer's, see `attention_tables.Attention`; `facts` is its `View`, a `Row` a text's part of the pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import attention_tables
from nomoat.engine.attention_kernels import (
    LOG2_E,
    NOTHING,
    PANELS,
    cap_scores,
    clear,
    gather_small,
    gather_wide,
    pack_query,
    prefetch,
    score_small,
    score_wide,
    start_of,
    weigh_all,
    weigh_some,
)
from nomoat.engine.attention_tables import (
    COLUMNS,
    LAID_OUT_NUMBERS,
    MANY_TOKENS,
    PASS_ROW_NUMBERS,
    PORTION,
    QUERIES,
    ROW_NUMBERS,
    SMALL,
    SPAN_BLOCKS,
    SPAN_BYTES,
    STATE_BYTES,
    STATE_NUMBERS,
    VIEW_NUMBERS,
    Attention,
    LaidOut,
    PassRow,
    QueryState,
    Row,
    View,
)
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kv_cache import block_of, head_bytes
from nomoat.engine.step_tables import JOB_NUMBERS

BLOCKS_AHEAD = 3  # keys are prefetched

_room_places = jit.kernel(attention_tables.room_places)


@jit.kernel
def _tell(rows: Any, number: Any, token: Any, tokens: Any, place: Any, block: Any) -> None:
    row = jit.longs_at(rows + 8 * ROW_NUMBERS * number, ROW_NUMBERS)
    row[Row.FIRST_TOKEN], row[Row.TOKENS] = token, tokens
    row[Row.POSITION], row[Row.FIRST_BLOCK] = place, block


def lay_out(at: Any) -> None:
    """Write what attention is to know of each token, and of rows of few, of many and of wanted tokens.

    `at`: the address of a table of where that is, and of what is told of it: `LaidOut`.
    """
    told = jit.longs_at(at, LAID_OUT_NUMBERS)
    group, count = told[LaidOut.GROUP], told[LaidOut.NUM_ROWS]
    rows_N5 = jit.table_at(told[LaidOut.ROWS], count, PASS_ROW_NUMBERS)
    tokens = told[LaidOut.NUM_TOKENS]
    floats_T, places_T = jit.floats_at(told[LaidOut.FLOATS], tokens), jit.longs_at(told[LaidOut.POSITIONS], tokens)
    first_blocks_T, owners_T = jit.longs_at(told[LaidOut.FIRST_BLOCKS], tokens), jit.longs_at(told[LaidOut.ADAPTERS], tokens)
    wanted_W, wanted_owners_W = jit.longs_at(told[LaidOut.WANTED], tokens), jit.longs_at(told[LaidOut.WANTED_ADAPTERS], tokens)
    token = few = many = asked = wanted = block = few_portions = asked_portions = longest = 0
    for n in range(count):
        length, past, num_wanted = rows_N5[n, PassRow.TOKENS], rows_N5[n, PassRow.PAST], rows_N5[n, PassRow.WANTED]
        blocks, owner = rows_N5[n, PassRow.BLOCKS], rows_N5[n, PassRow.ADAPTER]
        if length >= MANY_TOKENS:
            _tell(told[LaidOut.MANY], many, token, length, past, block)
            many += 1
        else:
            _tell(told[LaidOut.FEW], few, token, length, past, block)
            few, few_portions = few + 1, few_portions - (-length * group // PORTION)
        if num_wanted:
            before = length - num_wanted
            _tell(told[LaidOut.ASKED], asked, token + before, num_wanted, past + before, block)
            asked, asked_portions = asked + 1, asked_portions - (-num_wanted * group // PORTION)
        longest = max(longest, past + length)
        for m in range(length):
            floats_T[token] = places_T[token] = past + m
            first_blocks_T[token] = block
            owners_T[token] = owner
            if m >= length - num_wanted:
                wanted_W[wanted] = token
                wanted_owners_W[wanted] = owner
                wanted += 1
            token += 1
        block += blocks
    told[LaidOut.NUM_FEW], told[LaidOut.NUM_MANY], told[LaidOut.NUM_ASKED] = few, many, asked
    told[LaidOut.FEW_PORTIONS], told[LaidOut.ASKED_PORTIONS], told[LaidOut.LONGEST] = few_portions, asked_portions, longest


def attend(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the queries of all rows, when keys and values are kept.

    Each thread takes the next few: of rows of many, then of few, whose keys may be seen in pieces.
    """
    job = jit.longs_at(at, JOB_NUMBERS)
    facts = jit.longs_at(job[Attention.VIEW], VIEW_NUMBERS)
    room, heads = facts[View.ROOMS] + me * facts[View.ROOM_BYTES], facts[View.KV_HEADS]
    group = facts[View.HEADS] // heads
    for are_few in range(2):
        table, count = (facts[View.FEW_ROWS], facts[View.NUM_FEW]) if are_few else (facts[View.MANY_ROWS], facts[View.NUM_MANY])
        rows = jit.table_at(table, count, ROW_NUMBERS)
        if facts[View.AMX_CODE] and not are_few:  # `attention_amx` does these
            continue
        parts = facts[View.PIECES] if are_few else 1
        taken, before, r = job[Attention.NEXT_UNITS] + 8 * are_few, 0, 0
        unit = jit.add_atomic(taken, 1)
        while r < count:
            portions = -(-rows[r, Row.TOKENS] * group // PORTION)
            if unit - before >= portions * heads * parts:
                before += portions * heads * parts
                r += 1
                continue
            part, rest = (unit - before) % parts, (unit - before) // parts
            head, portion = rest // portions, rest % portions  # keys of one head stay in the cache
            first = (portions - 1 - portion) * PORTION  # the longest first
            partial = facts[View.PARTIAL] + unit * PORTION * 4 * (facts[View.WIDTH] + STATE_NUMBERS) if parts > 1 else 0
            together = min(PORTION, rows[r, Row.TOKENS] * group - first)
            _attend_some(job, facts, rows[r], head, first, together, room, are_few, part, parts, partial)
            unit = jit.add_atomic(taken, 1)


def join(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the queries of few tokens, when all pieces of their keys are seen."""
    job = jit.longs_at(at, JOB_NUMBERS)
    facts = jit.longs_at(job[Attention.VIEW], VIEW_NUMBERS)
    heads, width, parts = facts[View.KV_HEADS], facts[View.WIDTH], facts[View.PIECES]
    group, size = facts[View.HEADS] // heads, 4 * (width + STATE_NUMBERS)
    rows = jit.table_at(facts[View.FEW_ROWS], facts[View.NUM_FEW], ROW_NUMBERS)
    unit = query = 0
    for r in range(len(rows)):
        count = rows[r, Row.TOKENS] * group
        portions = -(-count // PORTION)
        for rest in range(heads * portions):
            head, first = rest // portions, (portions - 1 - rest % portions) * PORTION
            for n in range(first, min(first + PORTION, count)):
                if query % threads == me:
                    partial = facts[View.PARTIAL] + (unit * PORTION + n - first) * size
                    _join_parts(partial, PORTION * size, parts, _result_of(job, facts, rows[r], head, n), width)
                query += 1
            unit += parts


@jit.kernel
def _join_parts(partial: Any, step: Any, parts: Any, result: Any, width: Any) -> None:
    """What a query saw in each part of the keys, and its state there, which follows."""
    most, total = np.float32(NOTHING), np.float32(0)
    for part in range(parts):
        most = max(most, jit.floats_at(partial + part * step + 4 * width, STATE_NUMBERS)[QueryState.MOST])
    result_W = jit.floats_at(result, width)
    for w in range(width):
        result_W[w] = 0
    for part in range(parts):
        seen_W = jit.floats_at(partial + part * step, width)
        state = jit.floats_at(partial + part * step + 4 * width, STATE_NUMBERS)
        share = jit.exp((state[QueryState.MOST] - most) * np.float32(1 / LOG2_E))
        total += share * state[QueryState.TOTAL]
        for w in range(width):
            result_W[w] += share * seen_W[w]
    for w in range(width):
        result_W[w] /= total


@jit.kernel
def _result_of(job: Any, facts: Any, row: Any, head: Any, n: Any) -> Any:
    """Where it goes what a query of a row sees, number `n` of those of a head of keys."""
    group = facts[View.HEADS] // facts[View.KV_HEADS]
    m, own = row[Row.FIRST_TOKEN] + n // group, head * group + n % group
    return job[Attention.ATTENDED] + 4 * (m * facts[View.HEADS] + own) * facts[View.WIDTH]


@jit.kernel
def _weigh(facts: Any, scores: Any, count: Any, end: Any, state: Any, seen: Any, scales: Any) -> None:
    """A query's scores of so many keys become weights, of those it sees, before `end`; what it saw before is scaled to them.

    `scales`: of their values. Where it sees all of them, `weigh_all` saves the masks and gives the same bits.
    """
    width, window, cap = facts[View.WIDTH], facts[View.WINDOW], jit.as_float(np.uint32(facts[View.CAP])) * np.float32(LOG2_E)
    low, high = max(0, end - window) if window else 0, min(end, count)
    if cap:
        cap_scores(scores, count, cap)
    if low == 0 and high == count:
        weigh_all(scores, count, low, high, state, scales)
    else:
        weigh_some(scores, count, low, max(low, high), state, scales)
    factor = jit.floats_at(state, STATE_NUMBERS)[QueryState.FACTOR]
    if factor != 1:
        seen_W = jit.floats_at(seen, width)
        for w in range(width):
            seen_W[w] *= factor


@jit.kernel
def _panel_of(count: Any) -> Any:
    """Which of `PANELS` so many queries are put into, and how many it is of."""
    which = 0
    while which < len(PANELS) - 1 and PANELS[which] < count:
        which += 1
    return which, PANELS[which]


@jit.kernel
def _score_blocks(
    job: Any, facts: Any, row: Any, head: Any, block: Any, blocks: Any, end_block: Any, which: Any, panels: Any, together: Any,
    queries: Any, panel_bytes: Any, scores: Any, states: Any, value_scales: Any, are_few: Any,
) -> None:  # fmt: skip
    """The panels' scores of the keys of so many blocks, and the scales of their values. Values of few tokens' text are asked for."""
    width, size, first = facts[View.WIDTH], facts[View.KEY_SIZE], row[Row.FIRST_BLOCK] + block
    value_bytes = BLOCK_TOKENS * width * facts[View.VALUE_SIZE]
    for b in range(blocks):
        key = block_of(facts, job[Attention.KEYS], first + b, head, size)
        value = block_of(facts, job[Attention.VALUES], first + b, head, facts[View.VALUE_SIZE])
        if are_few:  # those of many lie in the CPU's caches
            prefetch(value, value_bytes)
            if block + b + BLOCKS_AHEAD < end_block:
                prefetch(block_of(facts, job[Attention.KEYS], first + b + BLOCKS_AHEAD, head, size), BLOCK_TOKENS * width * size)
        for p in range(panels):
            query, there = queries + p * panel_bytes, scores + p * together * SPAN_BYTES + 4 * BLOCK_TOKENS * b
            units, scales = states + p * together * STATE_BYTES + 4 * QueryState.QUERY_UNIT, key + BLOCK_TOKENS * width * size
            if size == SMALL:
                score_small(which, query, key, width // 2, units, scales, there)
            else:
                score_wide(which, query, key, width // 2, units, scales, there)
        scales_B = jit.floats_at(value_scales + 4 * BLOCK_TOKENS * b, BLOCK_TOKENS)
        kept_B = jit.floats_at(value + value_bytes, BLOCK_TOKENS)
        for n in range(BLOCK_TOKENS):
            scales_B[n] = kept_B[n]


@jit.kernel
def _gather_blocks(
    job: Any, facts: Any, row: Any, head: Any, block: Any, count: Any, which: Any, panels: Any, together: Any, scores: Any, seen: Any,
    seen_bytes: Any, states: Any,
) -> None:  # fmt: skip
    """Add to what the panels saw the values of so many keys from a block on, by their weights."""
    width, size, blocks = facts[View.WIDTH], facts[View.VALUE_SIZE], facts[View.BLOCKS] + 8 * (row[Row.FIRST_BLOCK] + block)
    values, pairs = job[Attention.VALUES] + head * head_bytes(width, size), (count + 1) // 2
    for column in range(0, width, COLUMNS):
        value = values + 2 * column * size
        for p in range(panels):
            weights, units = scores + p * together * SPAN_BYTES, states + p * together * STATE_BYTES + 4 * QueryState.WEIGHT_UNIT
            there = seen + p * together * seen_bytes + 4 * column
            if size == SMALL:
                gather_small(which, weights, value, blocks, facts[View.BLOCK_BYTES], 2 * width, pairs, units, there, seen_bytes)
            else:
                gather_wide(which, weights, value, blocks, facts[View.BLOCK_BYTES], 4 * width, pairs, units, there, seen_bytes)


@jit.kernel
def _attend_some(
    job: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, room: Any, are_few: Any, part: Any, parts: Any, partial: Any
) -> None:
    """Some panels of queries of a row from number `first` on, of the heads that share a key's; what they see in a part of the keys.

    `partial`: where what is seen and its states go; 0 for a single part, whose result goes where it is wanted.
    """
    width, group, window = facts[View.WIDTH], facts[View.HEADS] // facts[View.KV_HEADS], facts[View.WINDOW]
    which, together = _panel_of(count) if are_few else (len(PANELS) - 1, QUERIES)
    panels, panel_bytes = -(-count // together), 2 * together * width
    seen_bytes, scores, seen, states, scales, _ = _room_places(room, width)
    _prepare(job, facts, row, head, first, count, together, room, panel_bytes, states, part == 0)
    clear(seen, panels * together * seen_bytes // 4)
    lowest = max(0, row[Row.POSITION] + first // group + 1 - window) if window else 0
    end = row[Row.POSITION] + (first + count - 1) // group + 1
    block, blocks_seen = lowest // BLOCK_TOKENS, (end - 1) // BLOCK_TOKENS + 1 - lowest // BLOCK_TOKENS
    end_block = block + blocks_seen * (part + 1) // parts
    block += blocks_seen * part // parts
    while block < end_block:
        blocks = min((block // SPAN_BLOCKS + 1) * SPAN_BLOCKS, end_block) - block
        start, shown = block * BLOCK_TOKENS, blocks * BLOCK_TOKENS
        _score_blocks(
            job, facts, row, head, block, blocks, end_block, which, panels, together, room, panel_bytes, scores, states, scales,
            are_few,
        )  # fmt: skip
        for n in range(count):
            after = row[Row.POSITION] + (first + n) // group + 1 - start
            _weigh(facts, scores + n * SPAN_BYTES, shown, after, states + n * STATE_BYTES, seen + n * seen_bytes, scales)
        keys = min(shown, end - start)
        _gather_blocks(job, facts, row, head, block, keys, which, panels, together, scores, seen, seen_bytes, states)
        block += blocks
    for n in range(count):
        result, state = _result_of(job, facts, row, head, first + n), jit.floats_at(states + n * STATE_BYTES, STATE_NUMBERS)
        _hand_over(seen + n * seen_bytes, state, width, result, partial + n * 4 * (width + STATE_NUMBERS) if partial else 0)


@jit.kernel
def _hand_over(seen: Any, state: Any, width: Any, result: Any, partial: Any) -> None:
    seen_W = jit.floats_at(seen, width)
    if partial:
        partial_W = jit.floats_at(partial, width + STATE_NUMBERS)
        for w in range(width):
            partial_W[w] = seen_W[w]
        for s in range(STATE_NUMBERS):
            partial_W[width + s] = state[s]
    else:
        result_W = jit.floats_at(result, width)
        for w in range(width):
            result_W[w] = seen_W[w] / state[QueryState.TOTAL]


@jit.kernel
def _prepare(
    job: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, together: Any, panels: Any, panel_bytes: Any, states: Any,
    is_first: Any,
) -> None:  # fmt: skip
    """Queries side by side, [panel][column / 2][query][2], in whole numbers. And states of queries that have seen nothing yet, but
    for their heads' sinks in the first part of the keys."""
    width, group = facts[View.WIDTH], facts[View.HEADS] // facts[View.KV_HEADS]
    scale = jit.as_float(np.uint32(facts[View.SCALE])) * np.float32(LOG2_E)
    for n in range(count):
        m, own = row[Row.FIRST_TOKEN] + (first + n) // group, head * group + (first + n) % group
        query, panel = (
            job[Attention.QUERY] + m * job[Attention.QUERY_ROW_BYTES] + 4 * own * width,
            panels + n // together * panel_bytes,
        )
        state = jit.floats_at(states + n * STATE_BYTES, STATE_NUMBERS)
        state[QueryState.MOST], state[QueryState.TOTAL] = start_of(job[Attention.SINKS] if is_first else 0, own)
        pack_query(query, width, panel + 4 * (n % together), 4 * together, states + n * STATE_BYTES + 4 * QueryState.QUERY_UNIT)
        state[QueryState.QUERY_UNIT] *= scale
