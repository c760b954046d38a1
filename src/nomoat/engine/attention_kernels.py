"""Products and weights of attention in LLVM, for vectors of this CPU's width: what `attention` is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.attention_tables import COLUMNS, QUERIES, SPAN_BYTES, STATE_BYTES, QueryState
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.emit import BYTE, FLOAT, SHORT, SIZE, WORD, Emit
from nomoat.engine.kv_cache import LENGTH
from nomoat.engine.tiles import CACHE_LINE

PANELS = (1, 2, 3, 4, 6, 8, QUERIES)  # of so many queries; the next larger for other numbers
CHAINS = 4  # sums that are needed lest one waits for the one before it
NOTHING, LEAST_EXPONENT, LOG2_E = -1e30, -100.0, 1.44269504
# times what 1 of its key's values stands for; and of all of a span together, so that no sum of products passes 32 bits
MOST_WEIGHT, ALL_WEIGHTS = 32767, (1 << 18) - 256


def _emit_product(
    emit: Emit, rows: int, left: Any, strides: tuple[int, int], columns: Callable[[Any], Any], kind: Any, count: Any,
    write: Callable[[int, int, int, Any], None],
) -> None:  # fmt: skip
    """Of so many rows with 32 columns: sums of products of whole numbers, in pairs that lie beside each other.

    `strides`: bytes from one row's pair to the next row's, and to the row's next. `columns`: where those of a pair lie, `kind` each.
    `write` gets a row, its first column, which vector of it, and that vector's sums.
    """
    builder = emit.builder
    most = QUERIES if emit.lanes == 16 else QUERIES // 2  # 16 registers in place of 32
    at_once = max(size for size in range(1, most + 1) if rows % size == 0)
    places = [(row, part) for row in range(at_once) for part in (0, 1)]
    chains = max(1, CHAINS // len(places))
    pair_bytes = 2 * kind.width // 8

    def add_one(index: Any, begin: int, column: int, sums: list[Any]) -> None:
        here = emit.add(columns(index), emit.size(pair_bytes * column))
        both = [_pairs_at(emit, emit.add(here, emit.size(pair_bytes * emit.lanes * part)), kind) for part in (0, 1)]
        there = emit.add(left, emit.times(index, strides[1]))
        for row in range(at_once):
            pair = emit.all_lanes(emit.load(emit.add(there, emit.size(strides[0] * (begin + row))), WORD, 4))
            for part, total in enumerate(sums[2 * row : 2 * row + 2]):
                builder.store(emit.dot_pairs(builder.load(total), both[part], pair), total)

    for begin in range(0, rows, at_once):
        for column in range(0, COLUMNS, 2 * emit.lanes):
            sums = [emit.variables(*[emit.word(0)] * len(places)) for _ in range(chains)]
            turns = builder.udiv(count, emit.size(chains))
            with cgutils.for_range(builder, turns) as loop:
                for number, chain in enumerate(sums):
                    add_one(emit.add(emit.times(loop.index, chains), emit.size(number)), begin, column, chain)
            done = emit.times(turns, chains)
            with cgutils.for_range(builder, builder.sub(count, done)) as loop:
                add_one(emit.add(done, loop.index), begin, column, sums[0])
            for (row, part), *totals in zip(places, *sums, strict=True):
                total = functools.reduce(builder.add, [builder.load(total) for total in totals])
                write(begin + row, column, part, builder.sitofp(total, emit.floats))


def _pairs_at(emit: Emit, address: Any, kind: Any) -> Any:
    """Pairs of whole numbers, of 16 bits each."""
    if kind is SHORT:
        return emit.load(address, emit.words)
    found = emit.load(address, ir.VectorType(BYTE, 2 * emit.lanes))
    return emit.builder.bitcast(emit.builder.sext(found, ir.VectorType(SHORT, 2 * emit.lanes)), emit.words)


def _of_each_size(builder: Any, which: Any, emit_one: Callable[[int], None]) -> None:
    """What is emitted for panels of the size that `which` says."""
    after = builder.append_basic_block("after")
    choice = builder.switch(which, after)
    for number, rows in enumerate(PANELS):
        block = builder.append_basic_block(f"rows_{rows}")
        choice.add_case(ir.Constant(SIZE, number), block)
        builder.position_at_end(block)
        emit_one(rows)
        builder.branch(after)
    builder.position_at_end(after)


def _score(kind: Any) -> Any:
    """A panel's scores of a block's keys. `units`, `scales`: what 1 stands for in each query, a state apart, and in each key."""

    @jit.emitted
    def score(builder: Any, which: Any, queries: Any, keys: Any, count: Any, units: Any, scales: Any, result: Any) -> None:
        emit = Emit(builder)

        def columns(index: Any) -> Any:
            return emit.add(keys, emit.times(index, 2 * kind.width // 8 * COLUMNS))

        def write(row: int, column: int, part: int, sums: Any) -> None:
            at = emit.size(4 * (column + emit.lanes * part))
            unit = emit.all_lanes(emit.load(emit.add(units, emit.size(STATE_BYTES * row)), FLOAT, 4))
            scale = emit.load(emit.add(scales, at), emit.floats)
            emit.store(emit.product(emit.product(sums, scale), unit), emit.add(result, emit.size(SPAN_BYTES * row), at))

        def emit_one(rows: int) -> None:
            _emit_product(emit, rows, queries, (4, 4 * rows), columns, kind, count, write)

        _of_each_size(builder, which, emit_one)

    return score


score_small, score_wide = _score(BYTE), _score(SHORT)


def _gather(kind: Any) -> Any:
    """Add to what a panel saw so many pairs of values by their weights: 32 columns, in the blocks of a list."""

    @jit.emitted
    def gather(
        builder: Any, which: Any, weights: Any, values: Any, blocks: Any, block_bytes: Any, pair_bytes: Any, count: Any, units: Any,
        result: Any, result_step: Any,
    ) -> None:  # fmt: skip
        emit = Emit(builder)
        shift, within = BLOCK_TOKENS.bit_length() - 2, BLOCK_TOKENS // 2 - 1

        def columns(index: Any) -> Any:
            block = emit.load(emit.add(blocks, emit.times(builder.lshr(index, emit.size(shift)), 8)), SIZE, 8)
            pair = builder.mul(builder.and_(index, emit.size(within)), pair_bytes)
            return emit.add(values, builder.mul(block, block_bytes), pair)

        def write(row: int, column: int, part: int, sums: Any) -> None:
            unit = emit.all_lanes(emit.load(emit.add(units, emit.size(STATE_BYTES * row)), FLOAT, 4))
            place = emit.add(result, emit.times(result_step, row), emit.size(4 * (column + emit.lanes * part)))
            emit.store(emit.fused(sums, unit, emit.load(place, emit.floats)), place)

        def emit_one(rows: int) -> None:
            _emit_product(emit, rows, weights, (SPAN_BYTES, 4), columns, kind, count, write)

        _of_each_size(builder, which, emit_one)

    return gather


gather_small, gather_wide = _gather(BYTE), _gather(SHORT)


def _weighed(*, all_seen: bool) -> Any:
    """A query's scores of so many keys become weights, of all or of those from `low` to below `high`; its state with it.

    They are times the values' `scales`, as whole numbers of 16 bits, one after another.
    """

    @jit.emitted
    def weigh(builder: Any, scores: Any, count: Any, low: Any, high: Any, state: Any, scales: Any) -> None:
        emit = Emit(builder)
        parts = builder.udiv(count, emit.size(emit.lanes))
        lanes = ir.Constant(emit.words, list(range(emit.lanes)))
        low_, width = (builder.trunc(value, WORD) for value in (low, builder.sub(high, low)))
        nothing, zero = emit.number(NOTHING), emit.number(0.0)

        def seen_of(part: Any, found: Any, otherwise: Any) -> Any:
            if all_seen:
                return found
            first = builder.sub(builder.trunc(emit.times(part.index, emit.lanes), WORD), low_)
            is_seen = builder.icmp_unsigned("<", builder.add(emit.all_lanes(first), lanes), emit.all_lanes(width))
            return builder.select(is_seen, found, otherwise)

        most, total, heaviest, heavy = emit.variables(nothing, zero, zero, zero)
        with cgutils.for_range(builder, parts) as part:
            score = seen_of(part, emit.part(scores, part), nothing)
            builder.store(emit.larger(score, builder.load(most)), most)
        before = emit.load(emit.add(state, emit.size(4 * QueryState.MOST)), FLOAT, 4)
        largest = emit.highest(builder.load(most))
        largest = builder.select(builder.fcmp_ordered(">", largest, before), largest, before)
        all_largest = emit.all_lanes(largest)
        with cgutils.for_range(builder, parts) as part:
            weight = power(emit, emit.less(emit.part(scores, part), all_largest))
            weight = seen_of(part, weight, zero)
            builder.store(emit.more(builder.load(total), weight), total)
            weight = emit.product(weight, seen_of(part, emit.part(scales, part), zero))
            builder.store(emit.larger(weight, builder.load(heaviest)), heaviest)
            builder.store(emit.more(builder.load(heavy), weight), heavy)
            emit.store(weight, emit.add(scores, emit.times(part.index, 4 * emit.lanes)))
        factors = power(emit, emit.less(emit.all_lanes(before), all_largest))
        factor = builder.extract_element(factors, ir.Constant(WORD, 0))
        sum_place = emit.add(state, emit.size(4 * QueryState.TOTAL))
        sums = [emit.all_lanes(value) for value in (emit.load(sum_place, FLOAT, 4), emit.float_sum(builder.load(total)))]
        sum_ = emit.fused(sums[0], factors, sums[1])
        emit.store(builder.extract_element(sum_, ir.Constant(WORD, 0)), sum_place)
        emit.store(largest, emit.add(state, emit.size(4 * QueryState.MOST)))
        emit.store(factor, emit.add(state, emit.size(4 * QueryState.FACTOR)))
        by_one = emit.product(emit.all_lanes(emit.highest(builder.load(heaviest))), emit.number(1 / MOST_WEIGHT))
        by_all = emit.product(emit.all_lanes(emit.float_sum(builder.load(heavy))), emit.number(1 / ALL_WEIGHTS))
        unit = emit.larger(by_one, by_all)
        emit.store(builder.extract_element(unit, ir.Constant(WORD, 0)), emit.add(state, emit.size(4 * QueryState.WEIGHT_UNIT)))
        inverse = emit.inverse(unit)
        with cgutils.for_range(builder, parts) as part:  # each is written where one before it was read
            shorts = emit.shorts(emit.product(emit.part(scores, part), inverse))
            emit.store(shorts, emit.add(scores, emit.times(part.index, 2 * emit.lanes)))

    return weigh


weigh_all, weigh_some = (_weighed(all_seen=all_seen) for all_seen in (True, False))


def power(emit: Emit, x: Any) -> Any:
    """2^x of numbers up to 0, to about 1e-7. Cephes' polynomial."""
    builder = emit.builder
    x = emit.larger(x, emit.number(LEAST_EXPONENT))
    has_avx512 = emit.lanes == 16
    if has_avx512:
        r = emit.fraction(x)
        whole = emit.less(x, r)
    else:
        whole = emit.rounded(x)
        r = emit.less(x, whole)
    y = emit.number(1.535336188319500e-4)
    for coefficient in (
        1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1, 6.931472028550421e-1, 1.0
    ):  # fmt: skip
        y = emit.fused(y, r, emit.number(coefficient))
    if has_avx512:
        return emit.times_power(y, whole)
    exponent = builder.shl(builder.fptosi(whole, emit.words), emit.word(23))
    return builder.bitcast(builder.add(builder.bitcast(y, emit.words), exponent), emit.floats)


def query_units(emit: Emit, query: Any, parts: Any) -> Any:
    """What 1 is to stand for in a query of so many vectors, in all lanes."""
    (squares,) = emit.variables(emit.number(0.0))
    with cgutils.for_range(emit.builder, parts) as part:
        numbers = emit.part(query, part)
        emit.builder.store(emit.fused(numbers, numbers, emit.builder.load(squares)), squares)
    length = emit.root(emit.all_lanes(emit.float_sum(emit.builder.load(squares))))
    return emit.product(length, emit.number(1 / LENGTH))


@jit.emitted
def pack_query(builder: Any, query: Any, width: Any, panel: Any, step: Any, unit: Any) -> None:
    """Into its places of a panel, [column / 2][query][2], every `step` bytes, with `LENGTH` as its length; what 1 stands for."""
    emit = Emit(builder)
    parts = builder.udiv(width, emit.size(emit.lanes))
    units = query_units(emit, query, parts)
    emit.store(builder.extract_element(units, ir.Constant(WORD, 0)), unit)
    inverse = emit.inverse(units)
    with cgutils.for_range(builder, parts) as part:
        pairs = builder.bitcast(emit.shorts(emit.product(emit.part(query, part), inverse)), ir.VectorType(WORD, emit.lanes // 2))
        there = emit.add(panel, builder.mul(emit.times(part.index, emit.lanes // 2), step))
        for lane in range(emit.lanes // 2):
            pair = builder.extract_element(pairs, ir.Constant(WORD, lane))
            emit.store(pair, emit.add(there, emit.times(step, lane)))


@jit.emitted
def prefetch(builder: Any, place: Any, count: Any) -> None:
    """Let so many bytes come into the cache, which are read soon."""
    emit = Emit(builder)
    with cgutils.for_range(builder, builder.udiv(count, emit.size(4 * CACHE_LINE))) as part:
        emit.prefetch(emit.add(place, emit.times(part.index, 4 * CACHE_LINE)), 4 * CACHE_LINE)


@jit.kernel
def clear(place: Any, count: Any) -> None:
    """So many numbers become 0."""
    numbers = jit.floats_at(place, count)
    for n in range(count):
        numbers[n] = 0


@jit.kernel
def start_of(sinks: Any, head: Any) -> Any:
    """A query's largest score and its sum of weights when it has seen no key. `sinks`: address of each head's; 0: there are none."""
    if sinks:
        return jit.floats_at(sinks, head + 1)[head] * np.float32(LOG2_E), np.float32(1)
    return np.float32(NOTHING), np.float32(0)


@jit.kernel
def cap_scores(scores: Any, count: Any, cap: Any) -> None:
    """Keep them within plus and minus `cap`, smoothly: cap * tanh(score / cap)."""
    scores_C = jit.floats_at(scores, count)
    for c in range(count):
        scores_C[c] = cap - np.float32(2) * cap / (np.float32(1) + jit.exp(np.float32(2) / cap * scores_C[c]))
