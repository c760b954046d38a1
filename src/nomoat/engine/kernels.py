"""Products with a file's own codes: y = x W^T, computed on the codes as `tiles` has them.

Inputs are rounded to 8 bits with a scale for each 32, products summed as whole numbers over a group of a tile's codes (32, or 16),
and a group's sum is scaled in float32: so a weight is what the file says. OpenVINO 2026.4 is slower with groups of 32
(benchmarks/results/2026-11-24_layouts_2core-epyc.md).

Shapes: M texts' tokens, R rows (outputs), C columns (inputs), G groups of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.codes import GROUPS
from nomoat.engine.emit import BYTE, FLOAT, LARGEST_INPUT, WORD, Emit
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS

TOKENS_AT_ONCE = (12, 8, 4, 2, 1, 0)  # whose sums stay in registers while a tile is read; the next larger for other numbers
ROUNDED, HALF_ROUNDED = 32, 16  # inputs that share a scale, and that are summed
AHEAD = 2048  # bytes; how far before it is used a tile is asked for


def _sums(emit: Emit, kind: str, count: int, half: int, places: dict[str, Any]) -> None:
    """The products of one tile (or half of it) and `count` tokens, written where they belong."""
    builder, (width, most, read) = emit.builder, GROUPS[kind]
    sums = emit.variables(*[emit.number(0.0)] * count)
    group_bytes = TILE_BYTES[kind] * width // BLOCKS[kind][0]
    rounded = builder.lshr(places["columns"], emit.size(5))  # groups of inputs, whatever the width of those of codes
    with cgutils.for_range(builder, places["groups"]) as loop:
        at = loop.index
        codes, scale, offset = read(emit, places["tile"], at, half)
        emit.prefetch(emit.add(places["tile"], emit.times(at, group_bytes), emit.size(AHEAD)), group_bytes)
        for token, total in enumerate(sums):
            inputs = emit.add(places["inputs"], emit.times(places["columns"], token), emit.times(at, width))
            number = emit.add(emit.times(rounded, token), at if width == ROUNDED else builder.lshr(at, emit.size(1)))
            first, is_signed = emit.word(0), most > LARGEST_INPUT and not emit.has_vnni
            if isinstance(offset, int) and not is_signed:
                halves = emit.times(rounded, 2 * token)
                place = emit.add(halves, emit.times(at, width // HALF_ROUNDED))
                whole_sum = emit.load(emit.add(places["sums"], emit.times(place, 4)), WORD, 4)
                if width == ROUNDED:
                    other = emit.load(emit.add(places["sums"], emit.times(place, 4), emit.size(4)), WORD, 4)
                    whole_sum = builder.add(whole_sum, other)
                first = emit.all_lanes(builder.mul(whole_sum, ir.Constant(WORD, offset)))
            fours = [emit.all_lanes(emit.load(emit.add(inputs, emit.size(4 * four)), WORD)) for four in range(len(codes))]
            dots = emit.dot_around_zero(first, codes, fours) if is_signed else emit.dot(first, codes, fours, most=most)
            whole = builder.sitofp(dots, emit.floats)
            rounding = emit.load(emit.add(places["scales"], emit.times(number, 4)), FLOAT, 4)
            before, scales = builder.load(total), emit.all_lanes(rounding)
            if not isinstance(offset, int):
                if width == ROUNDED:
                    sum_of_inputs = emit.load(emit.add(places["totals"], emit.times(number, 4)), FLOAT, 4)
                else:
                    place = emit.add(places["sums"], emit.times(emit.add(emit.times(rounded, 2 * token), at), 4))
                    sum_of_inputs = builder.fmul(builder.sitofp(emit.load(place, WORD, 4), FLOAT), rounding)
                before = emit.fused(offset, emit.all_lanes(sum_of_inputs), before)
            builder.store(emit.fused(whole, builder.fmul(scale, scales), before), total)
    for token, total in reversed(list(enumerate(sums))):  # those after the last token are overwritten by its own
        is_one = builder.icmp_signed("<", emit.size(token), places["last"])
        row = builder.select(is_one, emit.size(token), places["last"])
        place = emit.add(places["outputs"], builder.mul(places["row_bytes"], row), emit.size(half * 32))
        emit.store(builder.load(total), place)


def product(kind: str) -> Callable[..., None]:
    """What multiplies some tokens by a tile with codes of this type."""

    @jit.emitted
    def of_tile(
        builder: Any, tile: Any, inputs: Any, scales: Any, totals: Any, sums: Any, outputs: Any, tokens: Any, columns: Any, rows: Any
    ) -> None:
        emit = Emit(builder)
        groups = builder.udiv(columns, emit.size(GROUPS[kind][0]))
        (done,) = emit.variables(emit.size(0))
        for count, fewer in itertools.pairwise(TOKENS_AT_ONCE):
            limit = builder.sub(tokens, emit.size(fewer))
            with emit.loop(lambda limit=limit: builder.icmp_signed("<", builder.load(done), limit)):  # type: ignore[misc]
                at = builder.load(done)
                bytes_before = builder.mul(at, columns)  # of a token's inputs; an eighth of it of scales and totals
                number = builder.lshr(bytes_before, emit.size(3))
                places = {
                    "tile": tile, "groups": groups, "columns": columns, "row_bytes": emit.times(rows, 4),
                    "inputs": emit.add(inputs, bytes_before), "scales": emit.add(scales, number),
                    "totals": emit.add(totals, number), "sums": emit.add(sums, emit.times(number, 2)),
                    "outputs": emit.add(outputs, emit.times(builder.mul(at, rows), 4)),
                    "last": builder.sub(builder.sub(tokens, at), emit.size(1)),
                }  # fmt: skip
                for half in range(TILE_ROWS // emit.lanes):
                    _sums(emit, kind, count, half, places)
                builder.store(emit.add(at, emit.size(count)), done)

    def multiply(
        tile: Any, inputs: Any, scales: Any, totals: Any, sums: Any, outputs: Any, tokens: Any, columns: Any, rows: Any
    ) -> None:  # fmt: skip
        of_tile(tile, inputs, scales, totals, sums, outputs, tokens, columns, rows)

    return multiply


@jit.emitted
def round_inputs(builder: Any, inputs: Any, rounded: Any, scales: Any, totals: Any, sums: Any, groups: Any) -> None:
    """A token's inputs in 8 bits; of each 32 their scale, and the sum of the rounded ones times it; of each 16 the sum."""
    emit = Emit(builder, lanes=HALF_ROUNDED)
    with cgutils.for_range(builder, groups) as loop:
        start = emit.times(loop.index, ROUNDED)
        halves = [emit.load(emit.add(inputs, emit.times(start, 4), emit.size(at)), emit.floats) for at in (0, 64)]
        largest = builder.fmul(emit.largest(halves), ir.Constant(FLOAT, 1 / 127))
        inverse = emit.all_lanes(emit.inverse(largest))
        totals_here = []
        for half, values in enumerate(halves):
            codes = emit.whole(builder.fmul(values, inverse))
            emit.store(builder.trunc(codes, ir.VectorType(BYTE, HALF_ROUNDED)), emit.add(rounded, start, emit.size(16 * half)), 1)
            totals_here.append(emit.sum_of(codes))
            emit.store(totals_here[-1], emit.add(sums, emit.times(loop.index, 8), emit.size(4 * half)))
        number = emit.times(loop.index, 4)
        emit.store(largest, emit.add(scales, number))
        total = builder.sitofp(builder.add(*totals_here), FLOAT)
        emit.store(builder.fmul(total, largest), emit.add(totals, number))
