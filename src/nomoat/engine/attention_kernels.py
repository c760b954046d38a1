"""Products and weights of attention in LLVM, for vectors of this CPU's width: what `attending` is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.emit import CACHE_LINE, FLOAT, HALF, WORD, Emit

COLUMNS = BLOCK_TOKENS  # of a product: the keys of a block, or so many of a value's columns
QUERIES = 12  # a panel, whose sums with 32 keys or columns fill the registers
FEW_QUERIES = (1, 2, 3, 4, 6, 8, QUERIES)  # panels of few tokens' queries; the next larger for other numbers
CHAINS = 4  # sums that are needed lest one waits for the one before it
SPAN_BLOCKS = 8
SPAN_BYTES = 4 * SPAN_BLOCKS * BLOCK_TOKENS  # of a query's scores
NOTHING, LEAST_EXPONENT, LOG2_E = -1e30, -100.0, 1.44269504
# of a query so far: its largest score, the sum of its weights, what that is scaled by
MOST, TOTAL, FACTOR, STATE = range(4)
STATE_BYTES = 4 * STATE


def _emit_product(emit: Emit, rows: int, row_bytes: int, step_bytes: int, kept: bool, added: bool, arguments: Sequence[Any]) -> None:
    """See `_product`. The rows' numbers are `row_bytes` apart, and those that are summed `step_bytes`."""
    builder = emit.builder
    left, columns, column_step, count, result, result_step = arguments
    most = QUERIES if emit.lanes == 16 else QUERIES // 2  # 16 registers in place of 32
    at_once = max(size for size in range(1, most + 1) if rows % size == 0)
    places = [(row, part) for row in range(at_once) for part in (0, 1)]
    chains = max(1, CHAINS // len(places))
    kind, size = (HALF, 2) if kept else (FLOAT, 4)

    def add_one(index: Any, begin: int, column: int, sums: list[Any]) -> None:
        here = emit.add(columns, builder.mul(index, column_step), emit.size(size * column))
        both = [emit.numbers(emit.add(here, emit.size(size * emit.lanes * part)), kind) for part in (0, 1)]
        there = emit.add(left, emit.times(index, step_bytes))
        for row in range(at_once):
            number = emit.all_lanes(emit.load(emit.add(there, emit.size(row_bytes * (begin + row))), FLOAT, 4))
            for part in (0, 1):
                total = sums[2 * row + part]
                builder.store(emit.fused(both[part], number, builder.load(total)), total)

    for begin in range(0, rows, at_once):
        for column in range(0, COLUMNS, 2 * emit.lanes):
            there = [
                emit.add(result, emit.times(result_step, begin + row), emit.size(4 * (column + emit.lanes * part)))
                for row, part in places
            ]
            starts = [emit.load(place, emit.floats) if added else emit.number(0.0) for place in there]
            sums = [[cgutils.alloca_once_value(builder, emit.number(0.0)) for _ in places] for _ in range(chains)]
            for number, chain in enumerate(sums):
                for start, total in zip(starts, chain, strict=True):
                    builder.store(start if number == 0 else emit.number(0.0), total)
            turns = builder.udiv(count, emit.size(chains))
            with cgutils.for_range(builder, turns) as loop:
                for number, chain in enumerate(sums):
                    add_one(emit.add(emit.times(loop.index, chains), emit.size(number)), begin, column, chain)
            done = emit.times(turns, chains)
            with cgutils.for_range(builder, builder.sub(count, done)) as loop:
                add_one(emit.add(done, loop.index), begin, column, sums[0])
            for place, *totals in zip(there, *sums, strict=True):
                emit.store(functools.reduce(builder.fadd, [builder.load(total) for total in totals]), place)


def _product(sizes: Sequence[int], strides: Callable[[int], tuple[int, int]], *, kept: bool, added: bool) -> Any:
    """Of so many rows with 32 columns, float32 or as they are `kept`, float16. `which`: of the sizes. `added`: to what lies there."""

    @jit.in_llvm
    def product(
        typing: Any, which: Any, left: Any, columns: Any, column_step: Any, count: Any, result: Any, result_step: Any
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            after = builder.append_basic_block("after")
            choice = builder.switch(args[0], after)
            for number, rows in enumerate(sizes):
                block = builder.append_basic_block(f"rows_{rows}")
                choice.add_case(emit.size(number), block)
                builder.position_at_end(block)
                _emit_product(emit, rows, *strides(rows), kept, added, args[1:])
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return product


def _beside(rows: int) -> tuple[int, int]:
    """Queries [column][of a panel]."""
    return 4, 4 * rows


def _in_spans(_: int) -> tuple[int, int]:
    """Weights [of a panel][key of a span]."""
    return SPAN_BYTES, 4


# queries with keys [column][32]; and weights with values [key][column]
score, gather = _product([QUERIES], _beside, kept=False, added=False), _product([QUERIES], _in_spans, kept=False, added=True)
score_kept, gather_kept = (
    _product(FEW_QUERIES, _beside, kept=True, added=False), _product(FEW_QUERIES, _in_spans, kept=True, added=True),
)  # fmt: skip


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
            before = emit.load(emit.add(state, emit.size(4 * MOST)), FLOAT, 4)
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
            sum_place = emit.add(state, emit.size(4 * TOTAL))
            sum_ = builder.fadd(builder.fmul(emit.load(sum_place, FLOAT, 4), factor), emit.float_sum(builder.load(total)))
            emit.store(sum_, sum_place)
            emit.store(largest, emit.add(state, emit.size(4 * MOST)))
            emit.store(factor, emit.add(state, emit.size(4 * FACTOR)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), generate

    return weigh


weigh_all, weigh_some = _weighed(all_seen=True), _weighed(all_seen=False)


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
def widen(typing: Any, halves: Any, count: Any, result: Any) -> Any:
    """So many numbers of float16 as float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        halves, count, result = args
        with cgutils.for_range(builder, builder.udiv(count, emit.size(emit.lanes))) as part:
            found = emit.numbers(emit.add(halves, emit.times(part.index, 2 * emit.lanes)), HALF)
            emit.store(found, emit.add(result, emit.times(part.index, 4 * emit.lanes)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@jit.in_llvm
def ask_for(typing: Any, place: Any, count: Any) -> Any:
    """Let so many bytes come into the cache, which are read soon."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        place, count = args
        with cgutils.for_range(builder, builder.udiv(count, emit.size(4 * CACHE_LINE))) as part:
            emit.prefetch(emit.add(place, emit.times(part.index, 4 * CACHE_LINE)), 4 * CACHE_LINE)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), generate
