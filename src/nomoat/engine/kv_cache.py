"""Keys and values of a layer in blocks of float16, and how they get there; `attention` has what is seen of them.

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
from nomoat.engine.emit import HALF, WORD, Emit

# of a layer: queries, keys and values with the bytes from one token's to the next's; the cache; what was seen
FACTS, QUERY, KEY, VALUE, QUERY_ROW, KEY_ROW, VALUE_ROW, KEYS, VALUES, SEEN, QUERY_NORM, KEY_NORM, UNITS = range(3, 16)
LINK_NUMBERS = 18
# of a model's layers that see alike
HEADS, KV_HEADS, WIDTH, TURNING, SCALE, CAP, WINDOW, EPSILON, BLOCK_BYTES = range(9)
# where a pass has each token's turn, its place in its text, and where that text's blocks begin in the list of blocks; the rows of
# few tokens and those of many (see `attention`)
COSINES, SINES, PLACES, FIRST_BLOCKS, FEW_TABLE, MANY_TABLE = range(9, 15)
# of a pass: its tokens and blocks, memory, the pieces that the keys of few tokens are seen in, and how many rows there are
TOKENS, BLOCKS, UNPACKED, ROOMS, ROOM_BYTES, PARTIAL, PIECES, NUM_FEW, NUM_MANY = range(15, 24)
KEEP_CODE, UNPACK_CODE, ATTEND_CODE, JOIN_CODE, NUM_FACTS = range(24, 29)  # functions of a link's address, a thread and their number


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
def _turn(x: Any, facts: Any, m: Any, norm: Any) -> None:
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
    return cache + block * facts[BLOCK_BYTES] + head * BLOCK_TOKENS * facts[WIDTH] * 2


def keep(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the tokens: queries and keys are turned, keys and values go into their blocks.

    Tokens that follow one another are the share of one thread: their keys lie in the same cache lines.
    """
    link = jit.longs_at(at, LINK_NUMBERS)
    facts = jit.longs_at(link[FACTS], NUM_FACTS)
    heads, width, tokens = facts[KV_HEADS], facts[WIDTH], facts[TOKENS]
    group = facts[HEADS] // heads
    places, first_blocks = jit.longs_at(facts[PLACES], tokens), jit.longs_at(facts[FIRST_BLOCKS], tokens)
    for unit in range(me, -(-tokens // BLOCK_TOKENS) * heads, threads):
        first, head = unit // heads * BLOCK_TOKENS, unit % heads
        for m in range(first, min(first + BLOCK_TOKENS, tokens)):
            for own in range(head * group, (head + 1) * group):
                _turn(link[QUERY] + m * link[QUERY_ROW] + 4 * own * width, facts, m, link[QUERY_NORM])
            key = link[KEY] + m * link[KEY_ROW] + 4 * head * width
            _turn(key, facts, m, link[KEY_NORM])
            at_block, within = first_blocks[m] + places[m] // BLOCK_TOKENS, places[m] % BLOCK_TOKENS
            _keep_across(key, block_of(facts, link[KEYS], at_block, head) + 2 * within, width)
            value = link[VALUE] + m * link[VALUE_ROW] + 4 * head * width
            _keep(value, block_of(facts, link[VALUES], at_block, head) + 2 * within * width, width)
