"""Attention of a few tokens over keys and values in blocks of float16, as OpenVINO's paged attention keeps them.

A block is [head][token][width]. A link of a chain (see `program`) is one layer's attention: its numbers are the places of that layer,
`FACTS` those of a pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kernels import FLOAT, HALF, Emit

# of a layer: queries, keys and values with the bytes from one token's to the next's; the cache; what was seen
FACTS, QUERY, KEY, VALUE, QUERY_ROW, KEY_ROW, VALUE_ROW, KEYS, VALUES, SEEN, QUERY_NORM, KEY_NORM, UNITS = range(3, 16)
LINK_NUMBERS = 16
# of a model; of a pass: each token's place in its text, and where that text's blocks begin in the list of blocks; the tokens attended
# to one by one, and the rows of many (see `prompt_attention`), with memory for both
HEADS, KV_HEADS, WIDTH, TURNING, SCALE, WINDOW, EPSILON = range(7)
TOKENS, COSINES, SINES, PLACES, BLOCKS, FIRST_BLOCKS, FEW, NUM_FEW, ROW_TABLE, NUM_ROWS = range(7, 17)
SCORES, SCORES_BYTES, UNPACKED, ROOMS, ROOM_BYTES = range(17, 22)
KEEP_CODE, FEW_CODE, UNPACK_CODE, ROWS_CODE, NUM_FACTS = range(22, 27)  # functions of a link's address, a thread and their number


@jit.in_llvm
def _dots(typing: Any, query: Any, keys: Any, count: Any, width: Any, scores: Any) -> Any:
    """scores = keys [count, width] of float16 times a query."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        query, keys, count, width, scores = args
        parts = builder.udiv(width, emit.size(emit.lanes))
        total = cgutils.alloca_once_value(builder, emit.number(0.0))
        with cgutils.for_range(builder, count) as token:
            builder.store(emit.number(0.0), total)
            row = emit.add(keys, emit.times(builder.mul(token.index, width), 2))
            with cgutils.for_range(builder, parts) as part:
                key = emit.numbers(emit.add(row, emit.times(part.index, 2 * emit.lanes)), HALF)
                asked = emit.load(emit.add(query, emit.times(part.index, 4 * emit.lanes)), emit.floats)
                builder.store(emit.fused(key, asked, builder.load(total)), total)
            emit.store(emit.float_sum(builder.load(total)), emit.add(scores, emit.times(token.index, 4)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@jit.in_llvm
def _gather(typing: Any, weights: Any, values: Any, count: Any, width: Any, seen: Any) -> Any:
    """seen += weights times values [count, width] of float16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        weights, values, count, width, seen = args
        total = cgutils.alloca_once_value(builder, emit.number(0.0))
        with cgutils.for_range(builder, builder.udiv(width, emit.size(emit.lanes))) as part:
            place = emit.add(seen, emit.times(part.index, 4 * emit.lanes))
            builder.store(emit.load(place, emit.floats), total)
            with cgutils.for_range(builder, count) as token:
                start = emit.add(builder.mul(token.index, width), emit.times(part.index, emit.lanes))
                value = emit.numbers(emit.add(values, emit.times(start, 2)), HALF)
                weight = emit.all_lanes(emit.load(emit.add(weights, emit.times(token.index, 4)), FLOAT, 4))
                builder.store(emit.fused(value, weight, builder.load(total)), total)
            emit.store(builder.load(total), place)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@jit.in_llvm
def _keep(typing: Any, values: Any, place: Any, width: Any) -> Any:
    """Write numbers as float16."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        values, place, width = args
        with cgutils.for_range(builder, builder.udiv(width, emit.size(emit.lanes))) as part:
            found = emit.load(emit.add(values, emit.times(part.index, 4 * emit.lanes)), emit.floats)
            halves = builder.fptrunc(found, ir.VectorType(HALF, emit.lanes))
            emit.store(halves, emit.add(place, emit.times(part.index, 2 * emit.lanes)), 1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


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
    """One thread's share of the tokens' keys, turned, and values: into their blocks."""
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width = facts[KV_HEADS], facts[WIDTH]
    for unit in range(me, facts[TOKENS] * heads, threads):
        m, head = unit // heads, unit % heads
        key = link[KEY] + m * link[KEY_ROW] + 4 * head * width
        turn(key, facts, m, link[KEY_NORM])
        place = jit.longs_at(facts[PLACES], m + 1)[m]
        row = place % BLOCK_TOKENS * width * 2
        _keep(key, _block(facts, link[KEYS], m, place // BLOCK_TOKENS, head) + row, width)
        value = link[VALUE] + m * link[VALUE_ROW] + 4 * head * width
        _keep(value, _block(facts, link[VALUES], m, place // BLOCK_TOKENS, head) + row, width)


def attend(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the heads of tokens attended to one by one, when all keys are kept: what they see up to their place."""
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width = facts[HEADS], facts[WIDTH]
    scale = jit.as_float(np.uint32(facts[SCALE]))
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
        for part in range(2):
            if part == 1:
                _softmax(scores, last + 1 - first)
            start = first
            while start <= last:
                number = start // BLOCK_TOKENS
                count = min((number + 1) * BLOCK_TOKENS, last + 1) - start
                row, here = start % BLOCK_TOKENS * width * 2, scores + 4 * (start - first)
                if part == 0:
                    _dots(query, _block(facts, link[KEYS], m, number, kv_head) + row, count, width, here)
                else:
                    _gather(here, _block(facts, link[VALUES], m, number, kv_head) + row, count, width, seen)
                start += count
