"""Products of many tokens with weights by AMX in 8 bits, as `panels` makes them: half the loads and half the products of bf16 (`amx`).

Weights and inputs share a scale for each `AMX_CHUNK` columns, of a row and of a token. A chunk's sums of 32 tokens are scaled while
the next chunk is multiplied: tiles and vectors are units of their own, and what a tile was stored to is slow to be read at once.

A panel is the inputs of `PANEL_TOKENS` tokens, `STEP` columns of each: [panel][column / STEP][token][STEP], zeros up to a whole step.
An input that is no number counts as 0, as in `panels`; an infinite one makes all of its token's results no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.amx import INPUTS, PANEL_TOKENS, REGISTER_BYTES, REGISTER_ROWS, WORDS, Registers
from nomoat.engine.emit import BYTE, FLOAT, Emit
from nomoat.engine.panels import FOUR_BYTES
from nomoat.engine.step_tables import AMX_CHUNK, CHUNK_SUMS_BYTES
from nomoat.engine.tiles import TILE_ROWS

STEP = 64  # columns that one instruction adds up
COLUMN_BYTES = PANEL_TOKENS  # of a panel
CHUNK_STEPS = AMX_CHUNK // STEP
STEP_BYTES = STEP // 4 * FOUR_BYTES
CHUNK_SCALES = 2 * 4 * TILE_ROWS  # bytes, of both tiles' rows
VECTOR_BYTES = 4 * TILE_ROWS
SUMS_ROW = 2 * VECTOR_BYTES  # of a token's sums of both tiles


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Places of variables: what a chunk's sums are scaled by and added to. `rows`: how many tokens they are of."""

    sums: Any
    factors: Any
    scales: Any
    starts: Any
    start_tile_bytes: Any
    start_row_bytes: Any
    target: Any
    rows: Any

    @classmethod
    def of_none(cls, emit: Emit, scales: Any) -> _Chunk:
        zero = emit.size(0)
        return cls(*emit.variables(zero, zero, scales, *[zero] * 5))

    def become(self, emit: Emit, *values: Any) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            emit.builder.store(value, getattr(self, name))


@jit.emitted
def panel_product(
    builder: Any, codes: Any, scales: Any, inputs: Any, factors: Any, factor_bytes: Any, starts: Any, start_tile_bytes: Any,
    start_row_bytes: Any, sums: Any, tile_bytes: Any, row_bytes: Any, panel_bytes: Any, steps: Any, tokens: Any, room: Any,
) -> None:  # fmt: skip
    """sums = starts + the products of two tiles' codes and all panels, of so many steps of columns, which begin with a chunk.

    `scales` [chunk][tile][row]; `factors` [chunk][token], `factor_bytes` to the next chunk's. `room`: of two chunks' sums. For all
    else see `amx.panel_product`. After `take_registers` of whole panels.
    """
    emit = Emit(builder, lanes=TILE_ROWS)
    registers, before = Registers(emit), _Chunk.of_none(emit, scales)
    (turn,) = emit.variables(emit.size(0))
    chunks = builder.udiv(emit.add(steps, emit.size(CHUNK_STEPS - 1)), emit.size(CHUNK_STEPS))
    panels = builder.udiv(emit.add(tokens, emit.size(PANEL_TOKENS - 1)), emit.size(PANEL_TOKENS))
    with cgutils.for_range(builder, panels) as panel:
        first = emit.times(panel.index, PANEL_TOKENS)
        rows = _least(emit, builder.sub(tokens, first), PANEL_TOKENS)
        target = emit.add(sums, builder.mul(first, row_bytes))
        start = emit.add(starts, builder.mul(first, start_row_bytes))
        seen = emit.add(inputs, builder.mul(panel.index, panel_bytes))
        with cgutils.for_range(builder, chunks) as chunk:
            at = emit.times(chunk.index, CHUNK_STEPS)
            count = _least(emit, builder.sub(steps, at), CHUNK_STEPS)
            weights, here = emit.add(codes, emit.times(at, STEP_BYTES)), emit.add(seen, emit.times(at, 2 * REGISTER_BYTES))
            place = emit.add(room, emit.times(builder.load(turn), CHUNK_SUMS_BYTES))
            with builder.if_else(builder.icmp_signed(">", rows, emit.size(REGISTER_ROWS))) as (many, few):
                for branch, halves in ((many, (0, 1)), (few, (0,))):
                    with branch:
                        _emit_chunk(registers, weights, here, count, halves, place, before, tile_bytes, row_bytes)
            builder.store(builder.xor(builder.load(turn), emit.size(1)), turn)
            is_first = builder.icmp_signed("==", chunk.index, emit.size(0))
            begun = ((start, target), (start_tile_bytes, tile_bytes), (start_row_bytes, row_bytes))
            before.become(
                emit, place, emit.add(factors, builder.mul(chunk.index, factor_bytes), emit.times(first, 4)),
                emit.add(scales, emit.times(chunk.index, CHUNK_SCALES)),
                *(builder.select(is_first, *both) for both in begun), target, rows,
            )  # fmt: skip
    _emit_scaled(emit, before, emit.size(0), emit.size(PANEL_TOKENS), tile_bytes, row_bytes)


def _least(emit: Emit, value: Any, most: int) -> Any:
    return emit.builder.select(emit.builder.icmp_signed("<", value, emit.size(most)), value, emit.size(most))


def _emit_chunk(
    registers: Registers, weights: Any, inputs: Any, steps: Any, halves: Sequence[int], place: Any, before: _Chunk, tile_bytes: Any,
    row_bytes: Any,
) -> None:  # fmt: skip
    """A chunk's sums of sixteen tokens or of two times sixteen; a part of those before is scaled with each step."""
    emit, builder = registers.emit, registers.emit.builder
    share = builder.udiv(emit.add(steps, emit.size(PANEL_TOKENS - 1)), steps)
    for half in halves:
        for tile in (0, 1):
            registers.clear(2 * half + tile)
    with cgutils.for_range(builder, steps) as loop:
        codes, here = (
            emit.add(weights, emit.times(loop.index, STEP_BYTES)),
            emit.add(inputs, emit.times(loop.index, 2 * REGISTER_BYTES)),
        )
        for tile in (0, 1):
            registers.load(WORDS + tile, emit.add(codes, emit.size(tile * FOUR_BYTES // 2)), emit.size(FOUR_BYTES))
        for half in halves:
            registers.load(INPUTS + half, emit.add(here, emit.size(half * REGISTER_BYTES)), emit.size(STEP))
        for half in halves:
            for tile in (0, 1):
                registers.multiply(2 * half + tile, INPUTS + half, WORDS + tile, "tdpbssd")
        first = builder.mul(loop.index, share)
        _emit_scaled(emit, before, first, emit.add(first, share), tile_bytes, row_bytes)
    for half in halves:
        for tile in (0, 1):
            there = emit.add(place, emit.size(half * REGISTER_ROWS * SUMS_ROW + tile * VECTOR_BYTES))
            registers.store(2 * half + tile, there, emit.size(SUMS_ROW))


def _emit_scaled(emit: Emit, chunk: _Chunk, first: Any, end: Any, tile_bytes: Any, row_bytes: Any) -> None:
    """A chunk's sums of some tokens. Both tiles may be one: it is read twice before it is written."""
    builder = emit.builder
    sums, factors, scales, starts, start_tile_bytes, start_row_bytes, target, rows = (
        builder.load(getattr(chunk, name)) for name in chunk.__slots__
    )
    weights = [emit.load(emit.add(scales, emit.size(tile * VECTOR_BYTES)), emit.floats) for tile in (0, 1)]
    end = builder.select(builder.icmp_signed("<", end, rows), end, rows)
    with cgutils.for_range(builder, end, first) as row:
        factor, made = emit.one(factors, row.index), []
        for tile in (0, 1):
            whole = emit.load(emit.add(sums, emit.times(row.index, SUMS_ROW), emit.size(tile * VECTOR_BYTES)), emit.words)
            start = emit.add(starts, builder.mul(row.index, start_row_bytes), *[start_tile_bytes] * tile)
            scaled = emit.product(builder.sitofp(whole, emit.floats), factor)
            made.append(emit.fused(scaled, weights[tile], emit.load(start, emit.floats)))
        there = emit.add(target, builder.mul(row.index, row_bytes))
        for tile, values in enumerate(made):
            emit.store(values, emit.add(there, *[tile_bytes] * tile))


@jit.emitted
def round_into_panels(
    builder: Any, inputs: Any, row_bytes: Any, first: Any, end: Any, columns: Any, panels: Any, panel_bytes: Any, factors: Any,
    factor_bytes: Any,
) -> None:  # fmt: skip
    """The inputs of tokens from the first to before the end in 8 bits, into their places of the panels; and each chunk's scale.

    `inputs`: where the first one's lie. `factors`: as `panel_product` has them.
    """
    emit = Emit(builder, lanes=TILE_ROWS)
    chunks = builder.udiv(emit.add(columns, emit.size(AMX_CHUNK - 1)), emit.size(AMX_CHUNK))
    with cgutils.for_range(builder, builder.sub(end, first)) as token:
        at = emit.add(first, token.index)
        row = emit.add(inputs, builder.mul(token.index, row_bytes))
        panel = emit.add(panels, builder.mul(builder.udiv(at, emit.size(PANEL_TOKENS)), panel_bytes))
        target = emit.add(panel, emit.times(builder.urem(at, emit.size(PANEL_TOKENS)), STEP))
        with cgutils.for_range(builder, chunks) as chunk:
            start = emit.times(chunk.index, AMX_CHUNK)
            factor = emit.add(factors, builder.mul(chunk.index, factor_bytes), emit.times(at, 4))
            width = _least(emit, builder.sub(columns, start), AMX_CHUNK)
            _emit_rounded(emit, emit.add(row, emit.times(start, 4)), width, emit.add(target, emit.times(start, COLUMN_BYTES)), factor)


def _emit_rounded(emit: Emit, source: Any, columns: Any, target: Any, factor: Any) -> None:
    """A chunk of one token's inputs."""
    builder, parts = emit.builder, emit.builder.udiv(columns, emit.size(TILE_ROWS))
    (largest,) = emit.variables(emit.number(0.0))
    with cgutils.for_range(builder, parts) as part:
        builder.store(emit.larger(emit.without_sign(emit.part(source, part)), builder.load(largest)), largest)
    scale = builder.fmul(emit.largest([builder.load(largest)]), ir.Constant(FLOAT, 1 / 127))
    emit.store(scale, factor)
    inverse = emit.all_lanes(emit.inverse(scale))
    a_step = STEP // TILE_ROWS

    def place(number: Any) -> Any:
        within = emit.times(builder.urem(number, emit.size(a_step)), TILE_ROWS)
        return emit.add(target, emit.times(builder.udiv(number, emit.size(a_step)), 2 * REGISTER_BYTES), within)

    small = ir.VectorType(BYTE, TILE_ROWS)
    with cgutils.for_range(builder, parts) as part:
        rounded = emit.whole(builder.fmul(emit.part(source, part), inverse))
        emit.store(builder.trunc(rounded, small), place(part.index), 1)
    whole_steps = emit.times(builder.udiv(emit.add(parts, emit.size(a_step - 1)), emit.size(a_step)), a_step)
    with cgutils.for_range(builder, whole_steps, parts) as missing:
        emit.store(ir.Constant(small, [0] * TILE_ROWS), place(missing.index), 1)
