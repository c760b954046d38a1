"""Attention of the many tokens of a prompt: a text's keys and values become float32 once a layer, and are read once for many queries.

The queries of all heads that share a key stand beside one another, token by token. Scores of a span of keys are held at a time; what
was seen before is scaled when a larger score comes. Source: Dao et al. 2022, FlashAttention, arXiv:2205.14135.

A row is a text's part of the pass: its first token in the pass, how many, its first token's place in the text, where its blocks begin
in the list of blocks, and how many blocks the rows before it have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.attention import (
    CAP,
    FACTS,
    HEADS,
    KEYS,
    KV_HEADS,
    LINK_NUMBERS,
    NUM_FACTS,
    NUM_ROWS,
    QUERY,
    QUERY_NORM,
    QUERY_ROW,
    ROOM_BYTES,
    ROOMS,
    ROW_TABLE,
    SCALE,
    SEEN,
    UNITS,
    UNPACKED,
    VALUES,
    WIDTH,
    WINDOW,
    block_of,
    cap_scores,
    turn,
)
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kernels import CACHE_LINE, FLOAT, HALF, WORD, Emit

ROW_TOKENS = 24  # from so many tokens of a text on
FIRST_TOKEN, TOKENS, PLACE, FIRST_BLOCK, BLOCKS_BEFORE, ROW_NUMBERS = range(6)
QUERIES, PANELS = 12, 2  # a panel, whose sums with 32 keys or columns fill the registers; so many meet a block of keys in turn
COLUMNS = BLOCK_TOKENS  # of a product: the keys of a block, or so many of a value's columns
SPAN_BLOCKS = 8
SPAN_BYTES = 4 * SPAN_BLOCKS * BLOCK_TOKENS  # of a query's scores
NOTHING, LEAST_EXPONENT, LOG2_E = -1e30, -100.0, 1.44269504
# of a query so far: its largest score, the sum of its weights, what that is scaled by
MOST, TOTAL, FACTOR, STATE_BYTES = 0, 4, 8, 12


def room_bytes(width: int) -> int:
    """Of a thread: queries, scores, what is seen, states."""
    size = PANELS * QUERIES * (4 * (width + _whole_columns(width)) + SPAN_BYTES + STATE_BYTES)
    return -(-size // CACHE_LINE) * CACHE_LINE


def unpacked_bytes(blocks: int, kv_heads: int, width: int) -> int:
    """Of so many blocks. A product reads whole `COLUMNS`, so beyond the last number of a head whose width they do not divide."""
    return 2 * 4 * blocks * kv_heads * BLOCK_TOKENS * width + 4 * COLUMNS


def _whole_columns(width: int) -> int:
    return -(-width // COLUMNS) * COLUMNS


def _product(row_bytes: int, step_bytes: int, *, added: bool) -> Any:
    """Of twelve rows with 32 columns. The rows' numbers are so many bytes apart, and those that are summed."""

    @jit.in_llvm
    def product(typing: Any, rows: Any, columns: Any, column_step: Any, count: Any, result: Any, result_step: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            rows, columns, column_step, count, result, result_step = args
            at_once = QUERIES if emit.lanes == 16 else QUERIES // 2  # 16 registers in place of 32
            for begin in range(0, QUERIES, at_once):
                for column in range(0, 4 * COLUMNS, 8 * emit.lanes):
                    places = [
                        emit.add(result, emit.times(result_step, begin + row), emit.size(column + 4 * emit.lanes * part))
                        for row in range(at_once)
                        for part in (0, 1)
                    ]
                    starts = [emit.load(place, emit.floats) if added else emit.number(0.0) for place in places]
                    sums = [cgutils.alloca_once_value(builder, start) for start in starts]
                    for start, total in zip(starts, sums, strict=True):
                        builder.store(start, total)
                    with cgutils.for_range(builder, count) as loop:
                        here = emit.add(columns, builder.mul(loop.index, column_step), emit.size(column))
                        both = [emit.load(emit.add(here, emit.size(4 * emit.lanes * part)), emit.floats) for part in (0, 1)]
                        there = emit.add(rows, emit.times(loop.index, step_bytes))
                        for row in range(at_once):
                            number = emit.all_lanes(emit.load(emit.add(there, emit.size(row_bytes * (begin + row))), FLOAT, 4))
                            for part in (0, 1):
                                total = sums[2 * row + part]
                                builder.store(emit.fused(both[part], number, builder.load(total)), total)
                    for place, total in zip(places, sums, strict=True):
                        emit.store(builder.load(total), place)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), generate

    return product


# queries [column][12] with keys [column][32]; and weights [12][span] with values [key][column]
_score, _gather = _product(4, 4 * QUERIES, added=False), _product(SPAN_BYTES, 4, added=True)


def _weighed(*, all_seen: bool) -> Any:
    """A query's scores of so many keys become weights, of all or of those from `low` to below `high`; its state with it."""

    @jit.in_llvm
    def weigh(typing: Any, scores: Any, count: Any, low: Any, high: Any, state: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            scores, count, low, high, state = args
            parts = builder.udiv(count, emit.size(emit.lanes))
            lanes = ir.Constant(emit.words, list(range(emit.lanes)))
            low_, width = (builder.trunc(value, WORD) for value in (low, builder.sub(high, low)))
            nothing, zero = emit.number(NOTHING), emit.number(0.0)

            def place_of(part: Any) -> Any:
                return emit.add(scores, emit.times(part.index, 4 * emit.lanes))

            def seen_of(part: Any, found: Any, otherwise: Any) -> Any:
                if all_seen:
                    return found
                first = builder.sub(builder.trunc(emit.times(part.index, emit.lanes), WORD), low_)
                is_seen = builder.icmp_unsigned("<", builder.add(emit.all_lanes(first), lanes), emit.all_lanes(width))
                return builder.select(is_seen, found, otherwise)

            most = cgutils.alloca_once_value(builder, nothing)
            builder.store(nothing, most)
            with cgutils.for_range(builder, parts) as part:
                found = seen_of(part, emit.load(place_of(part), emit.floats), nothing)
                builder.store(emit.larger(found, builder.load(most)), most)
            before = emit.load(emit.add(state, emit.size(MOST)), FLOAT, 4)
            largest = emit.highest(builder.load(most))
            largest = builder.select(builder.fcmp_ordered(">", largest, before), largest, before)
            all_largest, total = emit.all_lanes(largest), cgutils.alloca_once_value(builder, zero)
            builder.store(zero, total)
            with cgutils.for_range(builder, parts) as part:
                weight = _power(emit, builder.fsub(emit.load(place_of(part), emit.floats), all_largest))
                weight = seen_of(part, weight, zero)
                emit.store(weight, place_of(part))
                builder.store(builder.fadd(builder.load(total), weight), total)
            factors = _power(emit, builder.fsub(emit.all_lanes(before), all_largest))
            factor = builder.extract_element(factors, ir.Constant(WORD, 0))
            sum_place = emit.add(state, emit.size(TOTAL))
            sum_ = builder.fadd(builder.fmul(emit.load(sum_place, FLOAT, 4), factor), emit.float_sum(builder.load(total)))
            emit.store(sum_, sum_place)
            emit.store(largest, emit.add(state, emit.size(MOST)))
            emit.store(factor, emit.add(state, emit.size(FACTOR)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), generate

    return weigh


_weigh_all, _weigh_some = _weighed(all_seen=True), _weighed(all_seen=False)


def _power(emit: Emit, x: Any) -> Any:
    """2^x of numbers up to 0, to about 1e-7. Cephes' polynomial."""
    builder = emit.builder
    x = emit.larger(x, emit.number(LEAST_EXPONENT))
    whole = emit.rounded(x)
    r, y = builder.fsub(x, whole), emit.number(1.535336188319500e-4)
    for coefficient in (
        1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1.0
    ):  # fmt: skip
        y = emit.fused(y, r, emit.number(coefficient))
    exponent = builder.shl(builder.fptosi(whole, emit.words), emit.word(23))
    return builder.bitcast(builder.add(builder.bitcast(y, emit.words), exponent), emit.floats)


@jit.in_llvm
def _widen(typing: Any, halves: Any, count: Any, result: Any) -> Any:
    """So many numbers of float16 as float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        halves, count, result = args
        with cgutils.for_range(builder, builder.udiv(count, emit.size(emit.lanes))) as part:
            found = emit.numbers(emit.add(halves, emit.times(part.index, 2 * emit.lanes)), HALF)
            emit.store(found, emit.add(result, emit.times(part.index, 4 * emit.lanes)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@jit.inline
def _clear(place: Any, count: Any) -> None:
    numbers = jit.floats_at(place, count)
    for n in range(count):
        numbers[n] = 0


@jit.inline
def _unpacked(facts: Any, row: Any, head: Any) -> Any:
    """Where a row's keys of one head lie, [block][column][key of 32]; its values, [key][column], follow. And the bytes of either."""
    blocks = -(-(row[PLACE] + row[TOKENS]) // BLOCK_TOKENS)
    size = 4 * blocks * BLOCK_TOKENS * facts[WIDTH]
    return facts[UNPACKED] + row[BLOCKS_BEFORE] * facts[KV_HEADS] * 2 * 4 * BLOCK_TOKENS * facts[WIDTH] + 2 * head * size, size


def unpack(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the blocks of all rows. Places after a text's end are zeros: what is kept there may be no number."""
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width = facts[KV_HEADS], facts[WIDTH]
    rows = jit.longs_at(facts[ROW_TABLE], facts[NUM_ROWS] * ROW_NUMBERS).reshape(facts[NUM_ROWS], ROW_NUMBERS)
    for r in range(len(rows)):
        row = rows[r]
        length = row[PLACE] + row[TOKENS]
        for unit in range(me, -(-length // BLOCK_TOKENS) * heads, threads):
            number, head = unit // heads, unit % heads
            keys = block_of(facts, link[KEYS], row[FIRST_BLOCK] + number, head)
            values = block_of(facts, link[VALUES], row[FIRST_BLOCK] + number, head)
            target, size = _unpacked(facts, row, head)
            target += 4 * number * BLOCK_TOKENS * width
            count = min(BLOCK_TOKENS, length - number * BLOCK_TOKENS)
            _widen(keys, BLOCK_TOKENS * width, target)
            _widen(values, count * width, target + size)
            if count < BLOCK_TOKENS:
                for column in range(width):
                    _clear(target + 4 * (column * BLOCK_TOKENS + count), BLOCK_TOKENS - count)
                _clear(target + size + 4 * count * width, (BLOCK_TOKENS - count) * width)


def attend(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the queries of all rows, when keys and values are unpacked: each thread takes the next few."""
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    rows = jit.longs_at(facts[ROW_TABLE], facts[NUM_ROWS] * ROW_NUMBERS).reshape(facts[NUM_ROWS], ROW_NUMBERS)
    room = facts[ROOMS] + me * facts[ROOM_BYTES]
    group = facts[HEADS] // facts[KV_HEADS]
    unit, before, r = jit.add_atomic(link[UNITS], 1), 0, 0
    while r < len(rows):
        portions = -(-rows[r, TOKENS] * group // (PANELS * QUERIES))
        if unit - before >= portions * facts[KV_HEADS]:
            before += portions * facts[KV_HEADS]
            r += 1
            continue
        head, portion = (unit - before) // portions, (unit - before) % portions  # keys of one head stay in the cache
        first = (portions - 1 - portion) * PANELS * QUERIES  # the longest first
        _attend_some(link, facts, rows[r], head, first, min(PANELS * QUERIES, rows[r, TOKENS] * group - first), room)
        unit = jit.add_atomic(link[UNITS], 1)


@jit.inline
def _weigh(facts: Any, scores: Any, count: Any, end: Any, state: Any, seen: Any) -> None:
    """A query's scores of so many keys become weights, of those it sees, before `end`; what it saw before is scaled to them."""
    width, window, cap = facts[WIDTH], facts[WINDOW], jit.as_float(np.uint32(facts[CAP])) * np.float32(LOG2_E)
    low, high = max(0, end - window) if window else 0, min(end, count)
    if cap:
        cap_scores(scores, count, cap)
    if low == 0 and high == count:
        _weigh_all(scores, count, low, high, state)
    else:
        _weigh_some(scores, count, low, max(low, high), state)
    factor = jit.floats_at(state + FACTOR, 1)[0]
    if factor != 1:
        seen_W = jit.floats_at(seen, width)
        for w in range(width):
            seen_W[w] *= factor


@jit.inline
def _attend_some(link: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, room: Any) -> None:
    """Some panels of queries of a row from number `first` on, of the heads that share a key's."""
    width, group, window = facts[WIDTH], facts[HEADS] // facts[KV_HEADS], facts[WINDOW]
    panels, panel_bytes, seen_bytes = -(-count // QUERIES), 4 * QUERIES * width, 4 * (-(-width // COLUMNS) * COLUMNS)
    scores = room + PANELS * panel_bytes
    seen = scores + PANELS * QUERIES * SPAN_BYTES
    states = seen + PANELS * QUERIES * seen_bytes
    _prepare(link, facts, row, head, first, count, room, states)
    _clear(seen, panels * QUERIES * seen_bytes // 4)
    keys, size = _unpacked(facts, row, head)
    lowest = max(0, row[PLACE] + first // group + 1 - window) if window else 0
    end = row[PLACE] + (first + count - 1) // group + 1
    block, last_block = lowest // BLOCK_TOKENS, (end - 1) // BLOCK_TOKENS
    while block <= last_block:
        blocks = min((block // SPAN_BLOCKS + 1) * SPAN_BLOCKS, last_block + 1) - block
        for b in range(blocks):
            here = keys + 4 * (block + b) * BLOCK_TOKENS * width
            for p in range(panels):
                there = scores + p * QUERIES * SPAN_BYTES + 4 * BLOCK_TOKENS * b
                _score(room + p * panel_bytes, here, 4 * COLUMNS, width, there, SPAN_BYTES)
        start, shown = block * BLOCK_TOKENS, blocks * BLOCK_TOKENS
        for n in range(count):
            after = row[PLACE] + (first + n) // group + 1 - start
            _weigh(facts, scores + n * SPAN_BYTES, shown, after, states + n * STATE_BYTES, seen + n * seen_bytes)
        values = keys + size + 4 * start * width
        for column in range(0, 4 * width, 4 * COLUMNS):
            for p in range(panels):
                there = seen + p * QUERIES * seen_bytes + column
                _gather(scores + p * QUERIES * SPAN_BYTES, values + column, 4 * width, min(shown, end - start), there, seen_bytes)
        block += blocks
    for n in range(count):
        m, own = row[FIRST_TOKEN] + (first + n) // group, head * group + (first + n) % group
        result_W = jit.floats_at(link[SEEN] + 4 * (m * facts[HEADS] + own) * width, width)
        seen_W, total = jit.floats_at(seen + n * seen_bytes, width), jit.floats_at(states + n * STATE_BYTES + TOTAL, 1)[0]
        for w in range(width):
            result_W[w] = seen_W[w] / total


@jit.inline
def _prepare(link: Any, facts: Any, row: Any, head: Any, first: Any, count: Any, panels: Any, states: Any) -> None:
    """Queries turned, scaled and side by side, [panel][column][12]; states of queries that have seen nothing yet."""
    width, group = facts[WIDTH], facts[HEADS] // facts[KV_HEADS]
    scale = jit.as_float(np.uint32(facts[SCALE])) * np.float32(LOG2_E)
    states_S = jit.floats_at(states, PANELS * QUERIES * STATE_BYTES // 4)
    if count % QUERIES:
        _clear(panels + count // QUERIES * 4 * QUERIES * width, QUERIES * width)
    for n in range(count):
        m, own = row[FIRST_TOKEN] + (first + n) // group, head * group + (first + n) % group
        query = link[QUERY] + m * link[QUERY_ROW] + 4 * own * width
        turn(query, facts, m, link[QUERY_NORM])
        query_W = jit.floats_at(query, width)
        panel = jit.floats_at(panels + n // QUERIES * 4 * QUERIES * width, QUERIES * width)
        for w in range(width):
            panel[w * QUERIES + n % QUERIES] = query_W[w] * scale
        states_S[n * STATE_BYTES // 4], states_S[n * STATE_BYTES // 4 + 1] = np.float32(NOTHING), np.float32(0)
