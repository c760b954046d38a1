"""Products and weights of attention in LLVM, for vectors of this CPU's width: what `attention` is made of."""

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
# of a query so far: its largest score, the sum of its weights, what that is scaled by; of many tokens' what 1 of its own whole numbers
# stands for, and 1 of its weights'
MOST, TOTAL, FACTOR, QUERY_UNIT, WEIGHT_UNIT, STATE = range(6)
STATE_BYTES = 4 * STATE
# Whole numbers of 16 bits, as far as no sum of products passes 32: the length of a query and of a key; the largest value of a key; a
# weight times what 1 of its key's values stands for, and all of a span together, with what rounding adds
LENGTH, MOST_VALUE, MOST_WEIGHT, ALL_WEIGHTS = 32767, 8191, 32767, (1 << 18) - 256


def _emit_product(emit: Emit, rows: int, row_bytes: int, step_bytes: int, added: bool, arguments: Sequence[Any]) -> None:
    """See `_product`. The rows' numbers are `row_bytes` apart, and those that are summed `step_bytes`."""
    builder = emit.builder
    left, columns, column_step, count, result, result_step = arguments
    most = QUERIES if emit.lanes == 16 else QUERIES // 2  # 16 registers in place of 32
    at_once = max(size for size in range(1, most + 1) if rows % size == 0)
    places = [(row, part) for row in range(at_once) for part in (0, 1)]
    chains = max(1, CHAINS // len(places))

    def add_one(index: Any, begin: int, column: int, sums: list[Any]) -> None:
        here = emit.add(columns, builder.mul(index, column_step), emit.size(2 * column))
        both = [emit.numbers(emit.add(here, emit.size(2 * emit.lanes * part)), HALF) for part in (0, 1)]
        there = emit.add(left, emit.times(index, step_bytes))
        for row in range(at_once):
            number = emit.all_lanes(emit.load(emit.add(there, emit.size(row_bytes * (begin + row))), FLOAT, 4))
            for part in (0, 1):
                total = sums[2 * row + part]
                builder.store(emit.fused(both[part], number, builder.load(total)), total)

    for begin in range(0, rows, at_once):
        for column in range(0, COLUMNS, 2 * emit.lanes):
            there = _results(emit, result, result_step, begin, column, places)
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


def _results(emit: Emit, result: Any, step: Any, begin: int, column: int, places: Sequence[tuple[int, int]]) -> list[Any]:
    """Where the results of rows from `begin` and of the two vectors from a column on lie."""
    return [
        emit.add(result, emit.times(step, begin + row), emit.size(4 * (column + emit.lanes * part))) for row, part in places
    ]  # fmt: skip


def _product(sizes: Sequence[int], strides: Callable[[int], tuple[int, int]], *, added: bool) -> Any:
    """Of so many rows with 32 columns as they are kept, in float16. `which`: of the sizes. `added`: to what lies there."""

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
                _emit_product(emit, rows, *strides(rows), added, args[1:])
                builder.branch(after)
            builder.position_at_end(after)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return product


def _product_of_pairs(row_bytes: int, step_bytes: int, *, added: bool) -> Any:
    """Of `QUERIES` rows with 32 columns, each two whole numbers that are summed beside each other. `added`: to what lies there.

    `units` and, if it is not added, `scales`: what 1 stands for in each row, a state apart, and in each column.
    """

    @jit.in_llvm
    def product(
        typing: Any, left: Any, columns: Any, column_step: Any, count: Any, units: Any, scales: Any, result: Any, result_step: Any
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            left, columns, column_step, count, units, scales, result, result_step = args
            at_once = QUERIES if emit.lanes == 16 else QUERIES // 2
            places = [(row, part) for row in range(at_once) for part in (0, 1)]
            for begin in range(0, QUERIES, at_once):
                for column in range(0, COLUMNS, 2 * emit.lanes):
                    sums = emit.variables(*[emit.word(0)] * len(places))
                    with cgutils.for_range(builder, count) as loop:
                        here = emit.add(columns, builder.mul(loop.index, column_step), emit.size(4 * column))
                        both = [emit.load(emit.add(here, emit.size(4 * emit.lanes * part)), emit.words) for part in (0, 1)]
                        there = emit.add(left, emit.times(loop.index, step_bytes))
                        for row in range(at_once):
                            pair = emit.all_lanes(emit.load(emit.add(there, emit.size(row_bytes * (begin + row))), WORD, 4))
                            for part, total in enumerate(sums[2 * row : 2 * row + 2]):
                                builder.store(emit.dot_pairs(builder.load(total), both[part], pair), total)
                    there = _results(emit, result, result_step, begin, column, places)
                    for (row, part), place, total in zip(places, there, sums, strict=True):
                        unit = emit.all_lanes(emit.load(emit.add(units, emit.size(STATE_BYTES * (begin + row))), FLOAT, 4))
                        found = builder.sitofp(builder.load(total), emit.floats)
                        if added:
                            emit.store(emit.fused(found, unit, emit.load(place, emit.floats)), place)
                        else:
                            scale = emit.load(emit.add(scales, emit.size(4 * (column + emit.lanes * part))), emit.floats)
                            emit.store(builder.fmul(builder.fmul(found, unit), scale), place)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), generate

    return product


# queries with the keys of a block, [column / 2][32][2]; and weights with values, [key / 2][column][2]
score, gather = _product_of_pairs(4, 4 * QUERIES, added=False), _product_of_pairs(SPAN_BYTES, 4, added=True)
# the same of few tokens, whose panels are [column][query], with keys and values as they are kept
score_kept = _product(FEW_QUERIES, lambda rows: (4, 4 * rows), added=False)
gather_kept = _product(FEW_QUERIES, lambda _: (SPAN_BYTES, 4), added=True)


def _weighed(*, all_seen: bool, rounded: bool) -> Any:
    """A query's scores of so many keys become weights, of all or of those from `low` to below `high`; its state with it.

    `rounded`: times the keys' `scales`, as whole numbers of 16 bits, one after another.
    """

    @jit.in_llvm
    def weigh(typing: Any, scores: Any, count: Any, low: Any, high: Any, state: Any, scales: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            scores, count, low, high, state, scales = args
            parts = builder.udiv(count, emit.size(emit.lanes))
            lanes = ir.Constant(emit.words, list(range(emit.lanes)))
            low_, width = (builder.trunc(value, WORD) for value in (low, builder.sub(high, low)))
            nothing, zero = emit.number(NOTHING), emit.number(0.0)

            def found(part: Any, numbers: Any) -> Any:
                return emit.load(emit.add(numbers, emit.times(part.index, 4 * emit.lanes)), emit.floats)

            def seen_of(part: Any, found: Any, otherwise: Any) -> Any:
                if all_seen:
                    return found
                first = builder.sub(builder.trunc(emit.times(part.index, emit.lanes), WORD), low_)
                is_seen = builder.icmp_unsigned("<", builder.add(emit.all_lanes(first), lanes), emit.all_lanes(width))
                return builder.select(is_seen, found, otherwise)

            most, total, heaviest, heavy = emit.variables(nothing, zero, zero, zero)
            with cgutils.for_range(builder, parts) as part:
                score = seen_of(part, found(part, scores), nothing)
                builder.store(emit.larger(score, builder.load(most)), most)
            before = emit.load(emit.add(state, emit.size(4 * MOST)), FLOAT, 4)
            largest = emit.highest(builder.load(most))
            largest = builder.select(builder.fcmp_ordered(">", largest, before), largest, before)
            all_largest = emit.all_lanes(largest)
            with cgutils.for_range(builder, parts) as part:
                weight = _power(emit, builder.fsub(found(part, scores), all_largest))
                weight = seen_of(part, weight, zero)
                builder.store(builder.fadd(builder.load(total), weight), total)
                if rounded:
                    scale = seen_of(part, found(part, scales), zero)
                    builder.store(emit.fused(weight, scale, builder.load(heavy)), heavy)
                    weight = builder.fmul(weight, scale)
                    builder.store(emit.larger(weight, builder.load(heaviest)), heaviest)
                emit.store(weight, emit.add(scores, emit.times(part.index, 4 * emit.lanes)))
            factors = _power(emit, builder.fsub(emit.all_lanes(before), all_largest))
            factor = builder.extract_element(factors, ir.Constant(WORD, 0))
            sum_place = emit.add(state, emit.size(4 * TOTAL))
            sums = [emit.all_lanes(value) for value in (emit.load(sum_place, FLOAT, 4), emit.float_sum(builder.load(total)))]
            sum_ = emit.fused(sums[0], factors, sums[1])
            emit.store(builder.extract_element(sum_, ir.Constant(WORD, 0)), sum_place)
            emit.store(largest, emit.add(state, emit.size(4 * MOST)))
            emit.store(factor, emit.add(state, emit.size(4 * FACTOR)))
            if rounded:
                by_one = builder.fmul(emit.all_lanes(emit.highest(builder.load(heaviest))), emit.number(1 / MOST_WEIGHT))
                by_all = builder.fmul(emit.all_lanes(emit.float_sum(builder.load(heavy))), emit.number(1 / ALL_WEIGHTS))
                unit = emit.larger(by_one, by_all)
                emit.store(builder.extract_element(unit, ir.Constant(WORD, 0)), emit.add(state, emit.size(4 * WEIGHT_UNIT)))
                inverse = emit.inverse(unit)
                with cgutils.for_range(builder, parts) as part:  # each is written where one before it was read
                    shorts = emit.shorts(builder.fmul(found(part, scores), inverse))
                    emit.store(shorts, emit.add(scores, emit.times(part.index, 2 * emit.lanes)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), generate

    return weigh


weigh_all, weigh_some = (_weighed(all_seen=all_seen, rounded=False) for all_seen in (True, False))
weigh_all_rounded, weigh_some_rounded = (_weighed(all_seen=all_seen, rounded=True) for all_seen in (True, False))


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
def pack_query(typing: Any, query: Any, width: Any, panel: Any, unit: Any) -> Any:
    """Into its places of a panel, [column / 2][query][2], with `LENGTH` as its length; what 1 stands for."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        query, width, panel, unit = args
        parts = builder.udiv(width, emit.size(emit.lanes))
        (squares,) = emit.variables(emit.number(0.0))

        def found(part: Any) -> Any:
            return emit.load(emit.add(query, emit.times(part.index, 4 * emit.lanes)), emit.floats)

        with cgutils.for_range(builder, parts) as part:
            builder.store(emit.fused(found(part), found(part), builder.load(squares)), squares)
        units = builder.fmul(emit.root(emit.all_lanes(emit.float_sum(builder.load(squares)))), emit.number(1 / LENGTH))
        emit.store(builder.extract_element(units, ir.Constant(WORD, 0)), unit)
        inverse = emit.inverse(units)
        with cgutils.for_range(builder, parts) as part:
            pairs = builder.bitcast(emit.shorts(builder.fmul(found(part), inverse)), ir.VectorType(WORD, emit.lanes // 2))
            there = emit.add(panel, emit.times(part.index, 4 * QUERIES * emit.lanes // 2))
            for lane in range(emit.lanes // 2):
                pair = builder.extract_element(pairs, ir.Constant(WORD, lane))
                emit.store(pair, emit.add(there, emit.size(4 * QUERIES * lane)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@jit.in_llvm
def pack_keys(typing: Any, keys: Any, width: Any, result: Any, scales: Any) -> Any:
    """A block's keys of float16 as [column / 2][32][2], each with `LENGTH` as its length, and what 1 stands for in each."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        keys, width, result, scales = args

        def found(column: Any, first: int) -> Any:
            return emit.numbers(emit.add(keys, emit.times(column, 2 * COLUMNS), emit.size(2 * first)), HALF)

        for first in range(0, COLUMNS, emit.lanes):
            (squares,) = emit.variables(emit.number(0.0))
            with cgutils.for_range(builder, width) as loop:
                number = found(loop.index, first)
                builder.store(emit.fused(number, number, builder.load(squares)), squares)
            units = builder.fmul(emit.root(builder.load(squares)), emit.number(1 / LENGTH))
            emit.store(units, emit.add(scales, emit.size(4 * first)))
            inverse = emit.inverse(units)
            with cgutils.for_range(builder, builder.udiv(width, emit.size(2))) as loop:
                column = emit.times(loop.index, 2)
                both = (builder.fmul(found(at, first), inverse) for at in (column, emit.add(column, emit.size(1))))
                emit.store(emit.pairs(*both), emit.add(result, emit.times(loop.index, 4 * COLUMNS), emit.size(4 * first)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@jit.in_llvm
def pack_values(typing: Any, values: Any, width: Any, result: Any, scales: Any) -> Any:
    """A block's values of float16 as [key / 2][column][2], each key's largest as `MOST_VALUE`, and what 1 stands for in each."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        values, width, result, scales = args
        parts, row_bytes = builder.udiv(width, emit.size(emit.lanes)), emit.times(width, 2)

        def found(row: Any, part: Any) -> Any:
            return emit.numbers(emit.add(row, emit.times(part.index, 2 * emit.lanes)), HALF)

        with cgutils.for_range(builder, emit.size(BLOCK_TOKENS // 2)) as pair:
            first = emit.add(values, builder.mul(pair.index, emit.times(row_bytes, 2)))
            rows, place = (first, emit.add(first, row_bytes)), emit.add(scales, emit.times(pair.index, 8))
            largest = emit.variables(emit.number(0.0), emit.number(0.0))
            with cgutils.for_range(builder, parts) as part:
                for row, most in zip(rows, largest, strict=True):
                    builder.store(emit.larger(emit.without_sign(found(row, part)), builder.load(most)), most)
            inverses = []
            for number, most in enumerate(largest):
                unit = builder.fmul(emit.highest(builder.load(most)), ir.Constant(FLOAT, 1 / MOST_VALUE))
                emit.store(unit, emit.add(place, emit.size(4 * number)))
                inverses.append(emit.inverse(emit.all_lanes(unit)))
            there = emit.add(result, builder.mul(pair.index, emit.times(row_bytes, 2)))
            with cgutils.for_range(builder, parts) as part:
                low, high = (builder.fmul(found(row, part), inverse) for row, inverse in zip(rows, inverses, strict=True))
                emit.store(emit.pairs(low, high), emit.add(there, emit.times(part.index, 4 * emit.lanes)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@jit.in_llvm
def prefetch(typing: Any, place: Any, count: Any) -> Any:
    """Let so many bytes come into the cache, which are read soon."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder)
        place, count = args
        with cgutils.for_range(builder, builder.udiv(count, emit.size(4 * CACHE_LINE))) as part:
            emit.prefetch(emit.add(place, emit.times(part.index, 4 * CACHE_LINE)), 4 * CACHE_LINE)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 2), generate
