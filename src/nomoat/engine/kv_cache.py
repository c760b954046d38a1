"""Keys and values of a layer in blocks of whole numbers, and how they get there; `attention` has what is seen of them.

A block has of each head [column / 2][token][2] of keys, so that a query meets 32 of them at once, or [token / 2][column][2] of values,
and then what 1 stands for in each token's. A number has 8 bits, or 16 where single columns are far larger than all others.
A job here is one layer's attention, `attention_tables.Attention`; its `facts` are the `View` that it shares with others of a pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine import attention_tables
from nomoat.engine.attention_tables import SMALL, VIEW_NUMBERS, WIDE, Attention, View
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.elementwise import norm
from nomoat.engine.emit import BYTE, FLOAT, SHORT, WORD, Emit
from nomoat.engine.step_tables import JOB_NUMBERS, Job

MOST_SMALL = 127  # the largest whole number of 8 bits
# of 16 bits, as far as no sum of products passes 32: the length of a query and of a key, and the largest value
LENGTH, MOST_WIDE = 32767, 8191


head_bytes = jit.kernel(attention_tables.head_bytes)


def _unit_of(emit: Emit, values: Any, parts: Any, most_whole: int | None) -> Any:
    """What 1 is to stand for in a head's keys or values, whose largest becomes `most_whole`, or whose length `LENGTH`."""
    builder = emit.builder
    (most,) = emit.variables(emit.number(0.0))
    with cgutils.for_range(builder, parts) as part:
        found, before = emit.part(values, part), builder.load(most)
        builder.store(emit.larger(emit.without_sign(found), before) if most_whole else emit.fused(found, found, before), most)
    if most_whole:
        return builder.fmul(emit.highest(builder.load(most)), ir.Constant(FLOAT, 1 / most_whole))
    length = builder.extract_element(emit.root(emit.all_lanes(emit.float_sum(builder.load(most)))), ir.Constant(WORD, 0))
    return builder.fmul(length, ir.Constant(FLOAT, 1 / LENGTH))


def _keep(size: int, most: int | None, *, columns: int, step: int) -> Any:
    """Write a head's numbers as whole ones of so many bytes, `columns` beside each other every `step` bytes; and what 1 stands for."""

    @jit.emitted
    def keep(builder: Any, values: Any, width: Any, place: Any, unit_place: Any) -> None:
        emit = Emit(builder)
        parts = builder.udiv(width, emit.size(emit.lanes))
        unit = _unit_of(emit, values, parts, most)
        emit.store(unit, unit_place)
        inverse = emit.inverse(emit.all_lanes(unit))
        together = emit.lanes // columns
        with cgutils.for_range(builder, parts) as part:
            whole = emit.whole(builder.fmul(emit.part(values, part), inverse))
            numbers = builder.trunc(whole, ir.VectorType(BYTE if size == SMALL else SHORT, emit.lanes))
            numbers = builder.bitcast(numbers, ir.VectorType(ir.IntType(8 * size * columns), together))
            here = emit.add(place, emit.times(part.index, together * step))
            for lane in range(together):
                number = builder.extract_element(numbers, ir.Constant(WORD, lane))
                emit.store(number, emit.add(here, emit.size(step * lane)), 1)

    return keep


_keep_small_key = _keep(SMALL, MOST_SMALL, columns=2, step=2 * BLOCK_TOKENS)
_keep_wide_key = _keep(WIDE, None, columns=2, step=4 * BLOCK_TOKENS)
_keep_small_value = _keep(SMALL, MOST_SMALL, columns=1, step=2)
_keep_wide_value = _keep(WIDE, MOST_WIDE, columns=1, step=4)


@jit.kernel
def _turn(x: Any, facts: Any, m: Any, weight: Any) -> None:
    """A head's first half against its second, after its norm, where it has one."""
    width, turning = facts[View.WIDTH], facts[View.ROTARY]
    if weight:
        norm(x, weight, jit.as_float(np.uint32(facts[View.EPSILON])), x, width)
    half = turning // 2
    cosines, sines = facts[View.COSINES] + 4 * m * half, facts[View.SINES] + 4 * m * half
    x_T, cos_H, sin_H = jit.floats_at(x, turning), jit.floats_at(cosines, half), jit.floats_at(sines, half)
    for h in range(half):
        a, b = x_T[h], x_T[half + h]
        x_T[h] = a * cos_H[h] - b * sin_H[h]
        x_T[half + h] = b * cos_H[h] + a * sin_H[h]


@jit.kernel
def block_of(facts: Any, cache: Any, at: Any, head: Any, size: Any) -> Any:
    """Where the keys or values of one head lie, of the block at a place of the list. `size`: bytes of a number."""
    block = jit.longs_at(facts[View.BLOCKS] + 8 * at, 1)[0]
    return cache + block * facts[View.BLOCK_BYTES] + head * head_bytes(facts[View.WIDTH], size)


def keep(at: Any, me: Any, threads: Any) -> None:
    """One thread's share of the tokens: queries and keys are turned, keys and values go into their blocks.

    Tokens that follow one another are the share of one thread: their keys lie in the same cache lines.
    """
    job = jit.longs_at(at, JOB_NUMBERS)
    facts = jit.longs_at(job[Attention.VIEW], VIEW_NUMBERS)
    heads, width, tokens = facts[View.KV_HEADS], facts[View.WIDTH], facts[View.TOKENS]
    size, value_size = facts[View.KEY_SIZE], facts[View.VALUE_SIZE]
    group = facts[View.HEADS] // heads
    query_norm, key_norm = job[Attention.QUERY_NORM], job[Attention.KEY_NORM]
    if facts[View.ALL_NORMED]:
        epsilon = jit.as_float(np.uint32(facts[View.EPSILON]))
        for m in range(me, tokens, threads):
            query = job[Attention.QUERY] + m * job[Attention.QUERY_ROW_BYTES]
            norm(query, query_norm, epsilon, query, group * heads * width)
            key = job[Attention.KEY] + m * job[Attention.KEY_ROW_BYTES]
            norm(key, key_norm, epsilon, key, heads * width)
        jit.meet(job[Job.STATE], threads)
        query_norm, key_norm = 0, 0
    places, first_blocks = jit.longs_at(facts[View.POSITIONS], tokens), jit.longs_at(facts[View.FIRST_BLOCKS], tokens)
    for unit in range(me, -(-tokens // BLOCK_TOKENS) * heads, threads):
        first, head = unit // heads * BLOCK_TOKENS, unit % heads
        for m in range(first, min(first + BLOCK_TOKENS, tokens)):
            for own in range(head * group, (head + 1) * group):
                _turn(job[Attention.QUERY] + m * job[Attention.QUERY_ROW_BYTES] + 4 * own * width, facts, m, query_norm)
            key = job[Attention.KEY] + m * job[Attention.KEY_ROW_BYTES] + 4 * head * width
            _turn(key, facts, m, key_norm)
            at_block, within = first_blocks[m] + places[m] // BLOCK_TOKENS, places[m] % BLOCK_TOKENS
            there = block_of(facts, job[Attention.KEYS], at_block, head, size)
            unit_place = there + BLOCK_TOKENS * width * size + 4 * within
            if size == SMALL:
                _keep_small_key(key, width, there + 2 * within, unit_place)
            else:
                _keep_wide_key(key, width, there + 4 * within, unit_place)
            value = job[Attention.VALUE] + m * job[Attention.VALUE_ROW_BYTES] + 4 * head * width
            there = block_of(facts, job[Attention.VALUES], at_block, head, value_size)
            unit_place = there + BLOCK_TOKENS * width * value_size + 4 * within
            there += (within // 2 * 2 * width + within % 2) * value_size
            if value_size == SMALL:
                _keep_small_value(value, width, there, unit_place)
            else:
                _keep_wide_value(value, width, there, unit_place)
