"""Attention of a few tokens over keys and values in blocks of float16.

A block is [head][column][token] of keys, so that a query meets 32 of them at once, and [head][token][column] of values. A link of a
chain (see `program`) is one layer's attention: its numbers are the places of that layer, `FACTS` those of a pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kernels import FLOAT, HALF, WORD, Emit

# of a layer: queries, keys and values with the bytes from one token's to the next's; the cache; what was seen
FACTS, QUERY, KEY, VALUE, QUERY_ROW, KEY_ROW, VALUE_ROW, KEYS, VALUES, SEEN, QUERY_NORM, KEY_NORM, UNITS = range(3, 16)
LINK_NUMBERS = 18
# of a model's layers that see alike
HEADS, KV_HEADS, WIDTH, TURNING, SCALE, CAP, WINDOW, EPSILON = range(8)
# where a pass has each token's turn, its place in its text, and where that text's blocks begin in the list of blocks; the tokens
# attended to one by one, and the rows of many (see `prompt_attention`)
COSINES, SINES, PLACES, FIRST_BLOCKS, FEW, ROW_TABLE = range(8, 14)
# of a pass: how many of them, and memory for both kinds
TOKENS, BLOCKS, SCORES, SCORES_BYTES, UNPACKED, ROOMS, ROOM_BYTES, NUM_FEW, NUM_ROWS = range(14, 23)
KEEP_CODE, FEW_CODE, UNPACK_CODE, ROWS_CODE, NUM_FACTS = range(23, 28)  # functions of a link's address, a thread and their number


@jit.in_llvm
def _dots(typing: Any, query: Any, keys: Any, width: Any, scores: Any) -> Any:
    """scores [32] = a query times a block's keys. Columns by turns into two sums, so that none waits for the one before it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        query, keys, width, scores = args
        places = range(0, BLOCK_TOKENS, emit.lanes)
        totals = [[cgutils.alloca_once_value(builder, emit.number(0.0)) for _ in places] for _ in (0, 1)]
        for total in (*totals[0], *totals[1]):
            builder.store(emit.number(0.0), total)
        with cgutils.for_range(builder, builder.udiv(width, emit.size(2))) as pair:
            for number, sums in enumerate(totals):
                asked = emit.all_lanes(emit.load(emit.add(query, emit.times(pair.index, 8), emit.size(4 * number)), FLOAT, 4))
                column = emit.add(keys, emit.times(pair.index, 4 * BLOCK_TOKENS), emit.size(2 * BLOCK_TOKENS * number))
                for place, total in zip(places, sums, strict=True):
                    key = emit.numbers(emit.add(column, emit.size(2 * place)), HALF)
                    builder.store(emit.fused(key, asked, builder.load(total)), total)
        for place, first, second in zip(places, *totals, strict=True):
            emit.store(builder.fadd(builder.load(first), builder.load(second)), emit.add(scores, emit.size(4 * place)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@jit.in_llvm
def _gather(typing: Any, weights: Any, values: Any, count: Any, width: Any, seen: Any) -> Any:
    """seen += weights times values [count, width] of float16. Four vectors at a time, whose sums do not wait for one another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        weights, values, count, width, seen = args

        def gather(column: Any, parts: int) -> None:
            places = [emit.add(seen, emit.times(column, 4), emit.size(4 * emit.lanes * part)) for part in range(parts)]
            totals = [cgutils.alloca_once_value(builder, emit.number(0.0)) for _ in places]
            for place, total in zip(places, totals, strict=True):
                builder.store(emit.load(place, emit.floats), total)
            with cgutils.for_range(builder, count) as token:
                row = emit.add(values, emit.times(emit.add(builder.mul(token.index, width), column), 2))
                weight = emit.all_lanes(emit.load(emit.add(weights, emit.times(token.index, 4)), FLOAT, 4))
                for part, total in enumerate(totals):
                    value = emit.numbers(emit.add(row, emit.size(2 * emit.lanes * part)), HALF)
                    builder.store(emit.fused(value, weight, builder.load(total)), total)
            for place, total in zip(places, totals, strict=True):
                emit.store(builder.load(total), place)

        fours = builder.udiv(width, emit.size(4 * emit.lanes))
        with cgutils.for_range(builder, fours) as loop:
            gather(emit.times(loop.index, 4 * emit.lanes), 4)
        rest = builder.sub(builder.udiv(width, emit.size(emit.lanes)), emit.times(fours, 4))
        with cgutils.for_range(builder, rest) as loop:
            gather(emit.times(emit.add(emit.times(fours, 4), loop.index), emit.lanes), 1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@jit.in_llvm
def _keep(typing: Any, values: Any, place: Any, width: Any) -> Any:
    """Write numbers as float16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        values, place, width = args
        with cgutils.for_range(builder, builder.udiv(width, emit.size(emit.lanes))) as part:
            emit.store(_halves(emit, values, part), emit.add(place, emit.times(part.index, 2 * emit.lanes)), 1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@jit.in_llvm
def _keep_across(typing: Any, values: Any, place: Any, width: Any) -> Any:
    """The same, each number a column after the one before it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        values, place, width = args
        with cgutils.for_range(builder, builder.udiv(width, emit.size(emit.lanes))) as part:
            halves = builder.bitcast(_halves(emit, values, part), ir.VectorType(ir.IntType(16), emit.lanes))
            column = emit.add(place, emit.times(part.index, 2 * BLOCK_TOKENS * emit.lanes))
            for lane in range(emit.lanes):
                number = builder.extract_element(halves, ir.Constant(WORD, lane))
                emit.store(number, emit.add(column, emit.size(2 * BLOCK_TOKENS * lane)), 2)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


def _halves(emit: Emit, values: Any, part: Any) -> Any:
    """A vector of numbers as float16."""
    found = emit.load(emit.add(values, emit.times(part.index, 4 * emit.lanes)), emit.floats)
    return emit.builder.fptrunc(found, ir.VectorType(HALF, emit.lanes))


@jit.inline
def turn(x: Any, facts: Any, m: Any, norm: Any) -> None:
    """A head's first half against its second, after its norm, where it has one."""
    width, turning = facts[WIDTH], facts[TURNING]
    if norm:
        x_W, norm_W = jit.floats_at(x, width), jit.floats_at(norm, width)
        total = np.float32(0)
        for w in range(width):
            total += x_W[w] * x_W[w]
        scale = np.float32(1) / np.sqrt(total / np.float32(width) + jit.as_float(np.uint32(facts[EPSILON])))
        for w in range(width):
            x_W[w] *= scale * norm_W[w]
    half = turning // 2
    cosines, sines = facts[COSINES] + 4 * m * half, facts[SINES] + 4 * m * half
    x_T, cos_H, sin_H = jit.floats_at(x, turning), jit.floats_at(cosines, half), jit.floats_at(sines, half)
    for h in range(half):
        a, b = x_T[h], x_T[half + h]
        x_T[h] = a * cos_H[h] - b * sin_H[h]
        x_T[half + h] = b * cos_H[h] + a * sin_H[h]


@jit.inline
def block_of(facts: Any, cache: Any, at: Any, head: Any) -> Any:
    """Where the keys or values of one head lie, of the block at a place of the list."""
    block = jit.longs_at(facts[BLOCKS] + 8 * at, 1)[0]
    return cache + (block * facts[KV_HEADS] + head) * BLOCK_TOKENS * facts[WIDTH] * 2


@jit.inline
def _block(facts: Any, cache: Any, m: Any, number: Any, head: Any) -> Any:
    """The same of a token's text."""
    return block_of(facts, cache, jit.longs_at(facts[FIRST_BLOCKS] + 8 * m, 1)[0] + number, head)


@jit.inline
def cap_scores(scores: Any, count: Any, cap: Any) -> None:
    """Keep them within plus and minus `cap`, smoothly: cap * tanh(score / cap)."""
    scores_C = jit.floats_at(scores, count)
    for c in range(count):
        scores_C[c] = cap - np.float32(2) * cap / (np.float32(1) + jit.exp(np.float32(2) / cap * scores_C[c]))


@jit.inline
def _softmax(scores: Any, count: Any) -> None:
    scores_C = jit.floats_at(scores, count)
    most, total = scores_C[0], np.float32(0)
    for c in range(count):
        most = max(most, scores_C[c])
    for c in range(count):
        scores_C[c] = jit.exp(scores_C[c] - most)
    for c in range(count):
        total += scores_C[c]
    for c in range(count):
        scores_C[c] /= total


def keep_keys(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the tokens' keys, turned, and values: into their blocks.

    Tokens that follow one another are the share of one thread: their keys lie in the same cache lines.
    """
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width, tokens = facts[KV_HEADS], facts[WIDTH], facts[TOKENS]
    places = jit.longs_at(facts[PLACES], tokens)
    for unit in range(me, -(-tokens // BLOCK_TOKENS) * heads, threads):
        first, head = unit // heads * BLOCK_TOKENS, unit % heads
        for m in range(first, min(first + BLOCK_TOKENS, tokens)):
            key = link[KEY] + m * link[KEY_ROW] + 4 * head * width
            turn(key, facts, m, link[KEY_NORM])
            number, within = places[m] // BLOCK_TOKENS, places[m] % BLOCK_TOKENS
            _keep_across(key, _block(facts, link[KEYS], m, number, head) + 2 * within, width)
            value = link[VALUE] + m * link[VALUE_ROW] + 4 * head * width
            _keep(value, _block(facts, link[VALUES], m, number, head) + 2 * within * width, width)


def attend(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the heads of tokens attended to one by one, when all keys are kept: what they see up to their place."""
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width = facts[HEADS], facts[WIDTH]
    scale, cap = jit.as_float(np.uint32(facts[SCALE])), jit.as_float(np.uint32(facts[CAP]))
    scores = facts[SCORES] + me * facts[SCORES_BYTES]
    few = jit.longs_at(facts[FEW], facts[NUM_FEW])
    for unit in range(me, facts[NUM_FEW] * heads, threads):
        m, head = few[unit // heads], unit % heads
        kv_head = head * facts[KV_HEADS] // heads
        query = link[QUERY] + m * link[QUERY_ROW] + 4 * head * width
        seen = link[SEEN] + 4 * (m * heads + head) * width
        turn(query, facts, m, link[QUERY_NORM])
        query_W, seen_W = jit.floats_at(query, width), jit.floats_at(seen, width)
        for w in range(width):
            query_W[w] *= scale
            seen_W[w] = 0
        last = jit.longs_at(facts[PLACES], m + 1)[m]
        first = max(0, last + 1 - facts[WINDOW]) if facts[WINDOW] else 0
        first_block, last_block = first // BLOCK_TOKENS, last // BLOCK_TOKENS
        begin = first_block * BLOCK_TOKENS  # whose score is the first
        for number in range(first_block, last_block + 1):
            _dots(query, _block(facts, link[KEYS], m, number, kv_head), width, scores + 4 * (number * BLOCK_TOKENS - begin))
        if cap:
            cap_scores(scores + 4 * (first - begin), last + 1 - first, cap)
        _softmax(scores + 4 * (first - begin), last + 1 - first)
        for number in range(first_block, last_block + 1):
            start = max(first, number * BLOCK_TOKENS)
            count = min((number + 1) * BLOCK_TOKENS, last + 1) - start
            row = start % BLOCK_TOKENS * width * 2
            _gather(scores + 4 * (start - begin), _block(facts, link[VALUES], m, number, kv_head) + row, count, width, seen)
