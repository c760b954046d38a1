"""Products and weights of attention by Intel's AMX, for many queries: the whole numbers of `attention_kernels`, to the last bit.

AMX multiplies bytes. A query's number and a weight, of 16 bits, are 256 times one byte and another one, and so are keys and values of
16 bits: the products of each two bytes are added up alone, then moved up and added. Where the sum fits 32 bits its parts need not.

Sixteen rows of queries or weights meet `COLUMNS` keys, or columns of values: inputs are [row][step][upper or lower byte][`STEP`], what
they meet is [step][half of `COLUMNS`][upper or lower byte][group of four][16][4].
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.amx import REGISTER_BYTES, Registers
from nomoat.engine.attention_kernels import ALL_WEIGHTS, MOST_WEIGHT, NOTHING, power, query_units
from nomoat.engine.attention_tables import (
    AMX_ROWS,
    COLUMNS,
    SMALL,
    SPAN_BLOCKS,
    SPAN_BYTES,
    SPLIT_BYTES,
    STEP,
    SUMS_BYTES,
    WIDE,
    QueryState,
)
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.emit import BYTE, SHORT, SIZE, WORD, Emit
from nomoat.engine.tiles import CACHE_LINE

LANES = 16  # of a vector of float32, as each CPU with AMX has them
PLANE_BYTES = 4 * COLUMNS * AMX_ROWS  # of the sums of products of two bytes
INPUTS, OTHERS = 4, 6  # first numbers of registers; those before have sums
SPAN = SPAN_BLOCKS * BLOCK_TOKENS


@jit.emitted
def split_query(builder: Any, query: Any, steps: Any, bytes_: Any, unit: Any) -> None:
    """A query's numbers, and zeros up to a whole step, as `attention_kernels.pack_query` has them, but in bytes; what 1 stands for."""
    emit = Emit(builder)
    units = query_units(emit, query, emit.times(steps, STEP // LANES))
    emit.store(builder.extract_element(units, ir.Constant(WORD, 0)), unit)
    inverse = emit.inverse(units)
    with cgutils.for_range(builder, steps) as loop:
        here, there = emit.add(query, emit.times(loop.index, 4 * STEP)), emit.add(bytes_, emit.times(loop.index, 2 * STEP))
        _emit_split(emit, here, inverse, there)


def _emit_split(emit: Emit, numbers: Any, inverse: Any, place: Any) -> None:
    """A step's numbers, times a factor, as whole ones of 16 bits: the upper bytes, then the lower ones.

    In the order that instructions leave them in: of group number `g` of four at place `_place_of(g)`.
    """
    builder, shorts = emit.builder, ir.VectorType(SHORT, STEP // 2)
    words = []
    for part in range(STEP // LANES):
        found = emit.load(emit.add(numbers, emit.size(4 * LANES * part)), emit.floats)
        words.append(emit.nearest(emit.product(found, inverse)))
    halves = [emit.called("packssdw.512", shorts, words[at : at + 2]) for at in (0, 2)]
    upper = [builder.ashr(half, ir.Constant(shorts, [8] * (STEP // 2))) for half in halves]
    lower = [builder.and_(half, ir.Constant(shorts, [255] * (STEP // 2))) for half in halves]
    for at, (name, both) in enumerate((("packsswb.512", upper), ("packuswb.512", lower))):
        emit.store(emit.called(name, ir.VectorType(BYTE, STEP), both), emit.add(place, emit.size(STEP * at)))


def _place_of(emit: Emit, group: Any) -> Any:
    four, within = emit.builder.lshr(group, emit.size(2)), emit.builder.and_(group, emit.size(3))
    return emit.add(four, emit.times(within, 4))


def _lay_fours(size: int) -> Any:
    """Groups of two pairs each, `COLUMNS` beside each other, become fours of bytes, from group number `first` on of all steps.

    `row_bytes`: from a pair to the next.
    """

    @jit.emitted
    def lay_fours(builder: Any, pairs: Any, row_bytes: Any, first: Any, groups: Any, fours: Any) -> None:
        emit = Emit(builder)
        half_bytes = 2 * size * COLUMNS // 2
        bytes_ = ir.VectorType(BYTE, half_bytes)
        with cgutils.for_range(builder, groups) as loop:
            group = emit.add(first, loop.index)
            row = _place_of(emit, builder.and_(group, emit.size(15)))
            step = builder.lshr(group, emit.size(4))
            there = emit.add(fours, emit.times(step, 2 * size * REGISTER_BYTES), emit.times(row, CACHE_LINE))
            here = emit.add(pairs, builder.mul(emit.times(loop.index, 2), row_bytes))
            for half in (0, 1):
                both = [
                    emit.load(emit.add(place, emit.size(half * half_bytes)), bytes_) for place in (here, emit.add(here, row_bytes))
                ]
                for plane in range(size):
                    byte = size - 1 - plane  # the upper one first
                    lanes = [
                        pair * half_bytes + 2 * size * lane + size * number + byte
                        for lane in range(COLUMNS // 2)
                        for pair in (0, 1)
                        for number in (0, 1)
                    ]
                    four = builder.shuffle_vector(*both, ir.Constant(ir.VectorType(ir.IntType(32), 64), lanes))
                    emit.store(four, emit.add(there, emit.size((half * size + plane) * REGISTER_BYTES)))

    return lay_fours


lay_small_fours, lay_wide_fours = _lay_fours(SMALL), _lay_fours(WIDE)


def _sums_of(size: int, halves: Sequence[int]) -> dict[tuple[int, int], int]:
    """The number of the register with the sums of a half and a power of 256, the highest first."""
    return {(half, power): (2 * half if size == SMALL else 0) + power for half in halves for power in range(size + 1)}


def _emit_products(registers: Registers, size: int, halves: Sequence[int], others: Any) -> None:
    """Add a step's products to the sums; the inputs are in their registers."""
    emit, numbers = registers.emit, _sums_of(size, halves)
    for half in halves:
        planes = [OTHERS + (half if size == SMALL else plane) for plane in range(size)]
        for plane, number in enumerate(planes):
            registers.load(number, emit.add(others, emit.size((half * size + plane) * REGISTER_BYTES)), emit.size(CACHE_LINE))
        # what adds to the same sums is as far apart as can be: it waits for the one before
        for byte, plane in ((0, 0), (1, 0)) if size == SMALL else ((0, 1), (0, 0), (1, 1), (1, 0)):
            signs = "us"[byte == 0] + "us"[plane == 0]
            registers.multiply(numbers[half, byte + plane], INPUTS + byte, planes[plane], f"tdpb{signs}d")


def _emit_sums(registers: Registers, size: int, halves: Sequence[int], inputs: tuple[Any, Any, Any], others: Any, steps: Any) -> None:
    """The products of all steps. `inputs`: where they are, and the bytes from a row and from a step to the next."""
    emit, (place, row_bytes, step_bytes) = registers.emit, inputs
    for number in _sums_of(size, halves).values():
        registers.clear(number)
    with cgutils.for_range(emit.builder, steps) as loop:
        here = emit.add(place, emit.builder.mul(loop.index, step_bytes))
        for byte in (0, 1):
            registers.load(INPUTS + byte, emit.add(here, emit.size(STEP * byte)), row_bytes)
        _emit_products(registers, size, halves, emit.add(others, emit.times(loop.index, 2 * size * REGISTER_BYTES)))


def _emit_keep(registers: Registers, size: int, halves: Sequence[int], sums: Any) -> None:
    emit = registers.emit
    for (half, rank), number in _sums_of(size, halves).items():
        registers.store(number, emit.add(sums, emit.size(rank * PLANE_BYTES + half * CACHE_LINE)), emit.size(4 * COLUMNS))


def _sum_at(emit: Emit, place: Any, size: int) -> Any:
    """Sixteen columns' sums of a row, as float32."""
    builder = emit.builder
    planes = [emit.load(emit.add(place, emit.size(power * PLANE_BYTES)), emit.words) for power in range(size + 1)]
    whole = functools.reduce(lambda sums, plane: builder.add(builder.shl(sums, emit.word(8)), plane), planes)
    return builder.sitofp(whole, emit.floats)


def _score(size: int) -> Any:
    """Sixteen queries' scores of the keys of so many blocks. `units`, `scales`: what 1 stands for in each query and in each key.

    While some are multiplied those before are scaled. `sums`: of two blocks. After `amx.take_registers`.
    """

    @jit.emitted
    def score(
        builder: Any, queries: Any, keys: Any, steps: Any, blocks: Any, units: Any, scales: Any, sums: Any, scores: Any
    ) -> None:  # fmt: skip
        emit = Emit(builder)
        registers = Registers(emit)
        inputs = queries, emit.times(steps, 2 * STEP), emit.size(2 * STEP)

        def scale(block: Any, halves: Sequence[int], here: Any) -> None:
            at = emit.times(block, 4 * COLUMNS)
            of_keys = {half: emit.load(emit.add(scales, at, emit.size(half * CACHE_LINE)), emit.floats) for half in halves}
            with cgutils.for_range(builder, emit.size(AMX_ROWS)) as row:
                unit = emit.one(units, row.index)
                there = emit.add(scores, emit.times(row.index, SPAN_BYTES), at)
                for half in halves:
                    place = emit.add(here, emit.times(row.index, 4 * COLUMNS), emit.size(half * CACHE_LINE))
                    found = emit.product(emit.product(_sum_at(emit, place, size), of_keys[half]), unit)
                    emit.store(found, emit.add(there, emit.size(half * CACHE_LINE)))

        def all_blocks(turns: Sequence[Sequence[int]], *, by_steps: bool) -> None:
            """Scaled are sums that were written at least one turn before: the CPU waits for those of the last one."""
            before = 3 - len(turns)
            if not by_steps:  # they stay
                for byte in (0, 1):
                    registers.load(INPUTS + byte, emit.add(queries, emit.size(STEP * byte)), inputs[1])

            def sums_of(block: Any) -> Any:
                return emit.add(sums, emit.times(builder.and_(block, emit.size(before - 1)), SUMS_BYTES))

            def scale_before(index: Any, halves: Sequence[int]) -> None:
                with builder.if_then(builder.icmp_signed(">=", index, emit.size(before))):
                    block = builder.sub(index, emit.size(before))
                    scale(block, halves, sums_of(block))

            with cgutils.for_range(builder, blocks) as loop:
                key = emit.add(keys, builder.mul(loop.index, emit.times(steps, 2 * size * REGISTER_BYTES)))
                for halves in turns:
                    if by_steps:
                        _emit_sums(registers, size, halves, inputs, key, steps)
                    else:
                        for number in _sums_of(size, halves).values():
                            registers.clear(number)
                        _emit_products(registers, size, halves, key)
                    scale_before(loop.index, halves)
                    _emit_keep(registers, size, halves, sums_of(loop.index))
            for last in range(before):
                for halves in turns:
                    scale_before(emit.add(blocks, emit.size(last)), halves)

        with builder.if_else(builder.icmp_signed("==", steps, emit.size(1))) as (one, more):
            with one:
                all_blocks(((0,), (1,)), by_steps=False)
            with more:
                all_blocks(((0, 1),) if size == SMALL else ((0,), (1,)), by_steps=True)

    return score


score_small, score_wide = _score(SMALL), _score(WIDE)


def _each_part(
    emit: Emit, row: Any, blocks: Any, whole: Any, sights: Any, do: Callable[[Any, Callable[[Any, Any], Any]], None]
) -> None:
    """`do` with each part of a row, and with what gives numbers where the query sees them, and something else elsewhere.

    It sees all keys of the first `whole` blocks; of the others those from a place on, so many: whole numbers of 64 bits in `sights`,
    the places of sixteen queries and then their counts.
    """
    builder = emit.builder
    parts, whole_parts = (emit.times(count, BLOCK_TOKENS // LANES) for count in (blocks, whole))
    with cgutils.for_range(builder, whole_parts) as part:
        do(part, lambda found, _: found)
    places = [emit.add(sights, emit.times(row, 8), emit.size(8 * AMX_ROWS * at)) for at in (0, 1)]
    low, count = (builder.trunc(emit.load(place, SIZE, 8), WORD) for place in places)
    count, lanes = emit.all_lanes(count), ir.Constant(emit.words, list(range(LANES)))
    with cgutils.for_range(builder, parts, start=whole_parts) as part:
        first = builder.sub(builder.trunc(emit.times(part.index, LANES), WORD), low)
        is_seen = builder.icmp_unsigned("<", builder.add(emit.all_lanes(first), lanes), count)
        do(part, lambda found, otherwise: builder.select(is_seen, found, otherwise))


def _of_state(emit: Emit, state: Any, name: QueryState) -> Any:
    """Where the numbers of sixteen queries by this name lie."""
    return emit.add(state, emit.size(CACHE_LINE * name))


@jit.emitted
def find_largest(builder: Any, scores: Any, blocks: Any, whole: Any, sights: Any, state: Any, room: Any) -> None:
    """The largest of the scores that each of sixteen queries has seen, and what it saw is scaled by; see `_each_part`.

    `state`: [`QueryState`][query]. `room`: of a register.
    """
    emit = Emit(builder)
    nothing = emit.number(NOTHING)
    with cgutils.for_range(builder, emit.size(AMX_ROWS)) as loop:
        (most,) = emit.variables(nothing)
        here = emit.add(scores, emit.times(loop.index, SPAN_BYTES))

        def look(part: Any, seen_of: Callable[[Any, Any], Any], here: Any = here, most: Any = most) -> None:
            builder.store(emit.larger(seen_of(emit.part(here, part), nothing), builder.load(most)), most)

        _each_part(emit, loop.index, blocks, whole, sights, look)
        emit.store(builder.load(most), emit.add(room, emit.times(loop.index, CACHE_LINE)))
    place = _of_state(emit, state, QueryState.MOST)
    before = emit.load(place, emit.floats)
    largest = emit.larger(_of_rows(emit, room, emit.larger), before)
    emit.store(largest, place)
    emit.store(power(emit, emit.less(before, largest)), _of_state(emit, state, QueryState.FACTOR))


@jit.emitted
def weigh(builder: Any, scores: Any, blocks: Any, whole: Any, sights: Any, scales: Any, state: Any, room: Any) -> None:
    """The scores of sixteen queries become weights times the scales of values, as `attention_kernels` has them; after `find_largest`.

    `room`: of three registers. A last block that fills half a step is followed by weights of 0.
    """
    emit = Emit(builder)
    zero = emit.number(0.0)
    totals, heaviests, heavies = (emit.add(room, emit.size(number * REGISTER_BYTES)) for number in range(3))
    with cgutils.for_range(builder, emit.size(AMX_ROWS)) as loop:
        here, found = emit.add(scores, emit.times(loop.index, SPAN_BYTES)), emit.variables(zero, zero, zero)
        largest = emit.one(_of_state(emit, state, QueryState.MOST), loop.index)

        def weigh_part(
            part: Any, seen_of: Callable[[Any, Any], Any], here: Any = here, largest: Any = largest, found: Any = found
        ) -> None:  # fmt: skip
            total, heaviest, heavy = found
            weight = seen_of(power(emit, emit.less(emit.part(here, part), largest)), zero)
            builder.store(emit.more(builder.load(total), weight), total)
            weight = emit.product(weight, seen_of(emit.part(scales, part), zero))
            builder.store(emit.larger(weight, builder.load(heaviest)), heaviest)
            builder.store(emit.more(builder.load(heavy), weight), heavy)
            emit.store(weight, emit.add(here, emit.times(part.index, 4 * LANES)))

        _each_part(emit, loop.index, blocks, whole, sights, weigh_part)
        for number, matrix in zip(found, (totals, heaviests, heavies), strict=True):
            emit.store(builder.load(number), emit.add(matrix, emit.times(loop.index, CACHE_LINE)))
        with builder.if_then(builder.trunc(blocks, ir.IntType(1))):
            for part in range(BLOCK_TOKENS // LANES):
                emit.store(zero, emit.add(here, emit.times(blocks, 4 * BLOCK_TOKENS), emit.size(4 * LANES * part)))
    before, factor = (emit.load(_of_state(emit, state, name), emit.floats) for name in (QueryState.TOTAL, QueryState.FACTOR))
    total = emit.fused(before, factor, _of_rows(emit, totals, emit.more))
    emit.store(total, _of_state(emit, state, QueryState.TOTAL))
    by_one = emit.product(_of_rows(emit, heaviests, emit.larger), emit.number(1 / MOST_WEIGHT))
    by_all = emit.product(_of_rows(emit, heavies, emit.more), emit.number(1 / ALL_WEIGHTS))
    emit.store(emit.larger(by_one, by_all), _of_state(emit, state, QueryState.WEIGHT_UNIT))


@jit.emitted
def split_weights(builder: Any, weights: Any, steps: Any, state: Any, room: Any, bytes_: Any) -> None:
    """Weights of sixteen queries as bytes. `room`: of a vector."""
    emit = Emit(builder)
    emit.store(emit.inverse(emit.load(_of_state(emit, state, QueryState.WEIGHT_UNIT), emit.floats)), room)
    with cgutils.for_range(builder, emit.size(AMX_ROWS)) as loop:
        inverse = emit.one(room, loop.index)
        with cgutils.for_range(builder, steps) as step:
            here = emit.add(weights, emit.times(loop.index, SPAN_BYTES), emit.times(step.index, 4 * STEP))
            there = emit.add(bytes_, emit.times(loop.index, SPLIT_BYTES), emit.times(step.index, 2 * STEP))
            _emit_split(emit, here, inverse, there)


def _of_rows(emit: Emit, matrix: Any, both: Callable[[Any, Any], Any]) -> Any:
    """What sixteen numbers of each of sixteen rows make, in each lane of a vector: first those eight places apart, then four."""
    found = [emit.load(emit.add(matrix, emit.size(CACHE_LINE * row)), emit.floats) for row in range(AMX_ROWS)]
    left = LANES  # numbers of a row
    while left > 1:
        left //= 2
        places = [row * 2 * left + number for row in range(LANES // left) for number in range(left)]
        halves = [ir.Constant(emit.words, [place + after for place in places]) for after in (0, left)]
        found = [
            both(*(emit.builder.shuffle_vector(a, b, half) for half in halves)) for a, b in zip(found[::2], found[1::2], strict=True)
        ]
    return found[0]


def _gather(size: int) -> Any:
    """Scale what sixteen queries saw, and add to it their values' columns, so many times `COLUMNS`.

    `sums`: of all columns. After `amx.take_registers`.
    """

    @jit.emitted
    def gather(builder: Any, weights: Any, values: Any, steps: Any, columns: Any, state: Any, sums: Any, seen: Any) -> None:
        emit = Emit(builder)
        registers = Registers(emit)
        inputs = weights, emit.size(SPLIT_BYTES), emit.size(2 * STEP)
        turns = ((0, 1),) if size == SMALL else ((0,), (1,))

        def add(column: Any, halves: Sequence[int]) -> None:
            there = emit.add(seen, emit.times(column, 4 * COLUMNS))
            with cgutils.for_range(builder, emit.size(AMX_ROWS)) as row:
                factor, unit = (
                    emit.one(_of_state(emit, state, name), row.index) for name in (QueryState.FACTOR, QueryState.WEIGHT_UNIT)
                )
                for half in halves:
                    at = emit.size(half * CACHE_LINE)
                    place = emit.add(there, builder.mul(row.index, emit.times(columns, 4 * COLUMNS)), at)
                    total = _sum_at(emit, emit.add(sums, emit.times(row.index, 4 * COLUMNS), at), size)
                    emit.store(emit.fused(total, unit, emit.product(emit.load(place, emit.floats), factor)), place)

        with cgutils.for_range(builder, columns) as loop:
            value = emit.add(values, emit.times(loop.index, SPAN * COLUMNS * size))
            for halves in turns:
                _emit_sums(registers, size, halves, inputs, value, steps)
                with builder.if_then(builder.icmp_signed(">", loop.index, emit.size(0))):
                    add(builder.sub(loop.index, emit.size(1)), halves)
                _emit_keep(registers, size, halves, sums)
        for halves in turns:
            add(builder.sub(columns, emit.size(1)), halves)

    return gather


gather_small, gather_wide = _gather(SMALL), _gather(WIDE)
