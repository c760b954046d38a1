"""Products of many tokens with weights by Intel's AMX, whose registers are tiles of sixteen rows: in bf16, with sums in float32.

A tile of a file becomes numbers of 16 bits once for all tokens of a part. Nothing is scaled between the products, so a pass is nearer
to float32 than one in 8 bits (`amx_bytes`, `panels`), and no chunk of columns has a scale of its own: for what 8 bits would change too
much, see `step_tables.chunk_of`. Only where the system lets this process use AMX (`step_tables.BY_AMX`).

A panel is the inputs of `PANEL_TOKENS` tokens, `STEP` columns of each: [panel][column / STEP][token][STEP].

`Registers` are attention's, too, whose products are of bytes: `attention_amx_kernels`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.codes import GROUPS, with_offsets
from nomoat.engine.emit import BYTE, SHORT, WORD, Emit
from nomoat.engine.kernels import AHEAD
from nomoat.engine.step_tables import AMX_PANEL_TOKENS
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS

PANEL_TOKENS = AMX_PANEL_TOKENS
STEP = 32  # columns that one instruction adds up
REGISTER_ROWS, REGISTER_BYTES, ROWS_FROM = 16, 1024, 48  # the last: where their rows stand in what sets their sizes
ROW_BYTES = 2 * 4 * TILE_ROWS  # of both tiles' weights of two columns
COLUMN_BYTES = 2 * PANEL_TOKENS  # of a panel
STEP_BYTES = STEP // 2 * ROW_BYTES
FOUR_BYTES = 2 * ROW_BYTES
HALF, UPPER_HALF = 0x8000, -0x10000  # half a step of bf16 in a float32's bits; those that it keeps
# A weight's lower half is cut off, two instructions of ten less than to round, which loses half a step on average. A number is 128 to
# 256 steps, so that half a step is ln(2) / 256 of it on average: scales and offsets are made larger by so much.
MADE_UP_FOR = 1 + math.log(2) / 256
ONE, CODE_BITS = 0x3F800000, 0x007F8000  # 1.0 as float32, and the eight bits behind its point
CODE_PLACES = (15, 7, -1, -9)  # how far up a word's bytes move to them
INPUTS, WORDS, REGISTERS = 4, 6, 8  # numbers of registers; those before have sums
FIRST_HALF, SECOND_HALF = (0, 1, INPUTS), (2, 3, INPUTS + 1)  # which have a row for each token of a panel's halves


def to_words(kind: str) -> Callable[..., None]:
    """What makes some groups of a tile's codes of this type bf16, as the register of one tile of two has them.

    With the arguments of `panels.to_bytes`.
    """
    width, _, read = GROUPS[kind]
    group_bytes = TILE_BYTES[kind] * width // BLOCKS[kind][0]

    @jit.emitted
    def some_words(builder: Any, tile: Any, start: Any, groups: Any, words: Any) -> None:
        emit = Emit(builder, lanes=TILE_ROWS)
        with cgutils.for_range(builder, groups) as loop:
            at = emit.add(start, loop.index)
            place = emit.add(words, emit.times(loop.index, width // 4 * FOUR_BYTES))
            emit.prefetch(emit.add(tile, emit.times(at, group_bytes), emit.size(AHEAD)), group_bytes)
            fours, scale, offset = with_offsets(emit, read(emit, tile, at, 0))
            # a code in the bits behind the point of 1.0 is 1 + code / 256
            offset = builder.fmul(offset, emit.number(MADE_UP_FOR))
            scale = builder.fmul(scale, emit.number(256.0 * MADE_UP_FOR))
            offset = builder.fsub(offset, scale)
            for number, four in enumerate(fours):
                found = [emit.fused(scale, _one_and(emit, four, up), offset) for up in CODE_PLACES]
                for pair in (0, 1):
                    even, odd = (builder.bitcast(value, emit.words) for value in found[2 * pair :][:2])
                    both = emit.first_or_both(builder.lshr(even, emit.word(16)), odd, emit.word(UPPER_HALF))
                    emit.store(both, emit.add(place, emit.size(number * FOUR_BYTES + pair * ROW_BYTES)))

    def to_words_of(tile: Any, start: Any, groups: Any, words: Any, _: Any) -> None:
        some_words(tile, start, groups, words)

    return to_words_of


def _one_and(emit: Emit, four: Any, up: int) -> Any:
    moved = emit.builder.shl(four, emit.word(up)) if up > 0 else emit.builder.lshr(four, emit.word(-up))
    bits = emit.builder.or_(emit.builder.and_(moved, emit.word(CODE_BITS)), emit.word(ONE))
    return emit.builder.bitcast(bits, emit.floats)


class Registers:
    """Those of AMX, of sixteen rows of 64 bytes each."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self._told = cgutils.alloca_once(emit.builder, ir.ArrayType(BYTE, 64))

    def have_rows(self, tokens: Any) -> None:
        """As a panel of so many tokens needs them. It takes some 200 cycles."""
        emit, builder = self.emit, self.emit.builder
        is_small = builder.icmp_signed("<", tokens, emit.size(REGISTER_ROWS))
        first = builder.select(is_small, tokens, emit.size(REGISTER_ROWS))
        second = builder.sub(tokens, first)
        second = builder.select(builder.icmp_signed("<", second, emit.size(1)), emit.size(1), second)  # none may have no row
        sizes = [1, 0, *[0] * 14, *[64, 0] * REGISTERS, *[0] * 16, *[REGISTER_ROWS] * REGISTERS, *[0] * 8]  # palette 1; Intel's order
        builder.store(ir.Constant(ir.ArrayType(BYTE, 64), bytearray(sizes)), self._told)
        for rows, numbers in ((first, FIRST_HALF), (second, SECOND_HALF)):
            for number in numbers:
                place = builder.gep(self._told, [ir.Constant(WORD, at) for at in (0, ROWS_FROM + number)])
                builder.store(builder.trunc(rows, BYTE), place)
        self._call("ldtilecfg", builder.bitcast(self._told, BYTE.as_pointer()))

    def give_back(self) -> None:
        self._call("tilerelease")

    def load(self, number: int, address: Any, row_bytes: Any) -> None:
        self._call("tileloadd64", BYTE(number), self._pointer(address), row_bytes)

    def store(self, number: int, address: Any, row_bytes: Any) -> None:
        self._call("tilestored64", BYTE(number), self._pointer(address), row_bytes)

    def clear(self, number: int) -> None:
        self._call("tilezero", BYTE(number))

    def multiply(self, sums: int, inputs: int, others: int, name: str = "tdpbf16ps") -> None:
        self._call(name, BYTE(sums), BYTE(inputs), BYTE(others))

    def _pointer(self, address: Any) -> Any:
        return self.emit.builder.inttoptr(address, BYTE.as_pointer())

    def _call(self, name: str, *arguments: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.emit.builder.module, kind, f"llvm.x86.{name}")
        self.emit.builder.call(function, arguments)


@jit.emitted
def take_registers(builder: Any, tokens: Any) -> None:
    """For products of so many tokens. Whoever else uses them in this thread has them in other sizes, or has given them back."""
    emit = Emit(builder, lanes=TILE_ROWS)
    are_few = builder.icmp_signed("<", tokens, emit.size(PANEL_TOKENS))
    Registers(emit).have_rows(builder.select(are_few, tokens, emit.size(PANEL_TOKENS)))


@jit.emitted
def give_back_registers(builder: Any) -> None:
    """So that a switch to another thread is fast again."""
    Registers(Emit(builder, lanes=TILE_ROWS)).give_back()


@jit.emitted
def panel_product(
    builder: Any, words: Any, inputs: Any, starts: Any, start_tile_bytes: Any, start_row_bytes: Any, sums: Any, tile_bytes: Any,
    row_bytes: Any, panel_bytes: Any, steps: Any, tokens: Any,
) -> None:  # fmt: skip
    """sums = starts + the products of two tiles' words and all panels, of so many steps of columns. After `take_registers`.

    `starts`, `sums`: of the first token and tile; `..._row_bytes` to the next token's (0: all start alike), `..._tile_bytes` to the
    second tile's. `panel_bytes`: of all columns.
    """
    emit = Emit(builder, lanes=TILE_ROWS)
    told = words, inputs, starts, start_tile_bytes, start_row_bytes, sums, tile_bytes, row_bytes, panel_bytes
    registers = Registers(emit)
    panels, left = (operation(tokens, emit.size(PANEL_TOKENS)) for operation in (builder.udiv, builder.urem))
    with cgutils.for_range(builder, panels) as panel:
        _emit_panel(registers, told, panel.index, steps, (0, 1))
    has_whole = builder.icmp_signed(">", panels, emit.size(0))
    with builder.if_then(builder.icmp_signed(">", left, emit.size(0))):
        with builder.if_then(has_whole):
            registers.have_rows(left)
        with builder.if_else(builder.icmp_signed(">", left, emit.size(REGISTER_ROWS))) as (many, few):
            with many:
                _emit_panel(registers, told, panels, steps, (0, 1))
            with few:
                _emit_panel(registers, told, panels, steps, (0,))
        with builder.if_then(has_whole):
            registers.have_rows(emit.size(PANEL_TOKENS))


def _emit_panel(registers: Registers, told: Any, panel: Any, steps: Any, halves: tuple[int, ...]) -> None:
    """The products of sixteen tokens or of two times sixteen, whose sums stay in the first four registers."""
    emit = registers.emit
    words, inputs, starts, start_tile_bytes, start_row_bytes, sums, tile_bytes, row_bytes, panel_bytes = told
    seen = emit.add(inputs, emit.builder.mul(panel, panel_bytes))

    def places(first: Any, to_tile: Any, to_row: Any) -> list[tuple[int, Any]]:
        """Of each register its number and where its sums are in memory."""
        rows = [emit.add(first, emit.builder.mul(emit.times(panel, PANEL_TOKENS), to_row))]
        rows.append(emit.add(rows[0], emit.times(to_row, REGISTER_ROWS)))
        return [(2 * half + tile, emit.add(rows[half], *[to_tile] * tile)) for half in halves for tile in (0, 1)]

    for number, place in places(starts, start_tile_bytes, start_row_bytes):
        registers.load(number, place, start_row_bytes)
    with cgutils.for_range(emit.builder, steps) as loop:
        here, weights = emit.add(seen, emit.times(loop.index, 2 * REGISTER_BYTES)), emit.add(words, emit.times(loop.index, STEP_BYTES))
        for tile in (0, 1):
            registers.load(WORDS + tile, emit.add(weights, emit.size(tile * ROW_BYTES // 2)), emit.size(ROW_BYTES))
        for half in halves:
            registers.load(INPUTS + half, emit.add(here, emit.size(half * REGISTER_BYTES)), emit.size(2 * STEP))
        for half in halves:
            for tile in (0, 1):
                registers.multiply(2 * half + tile, INPUTS + half, WORDS + tile)
    for number, place in places(sums, tile_bytes, row_bytes):
        registers.store(number, place, row_bytes)


@jit.emitted
def round_into_panels(
    builder: Any, inputs: Any, row_bytes: Any, first: Any, end: Any, columns: Any, panels: Any, panel_bytes: Any
) -> None:  # fmt: skip
    """The inputs of tokens from the first to before the end in bf16, into their places of the panels.

    `inputs`: where the first one's lie.
    """
    emit = Emit(builder, lanes=TILE_ROWS)
    steps = builder.udiv(columns, emit.size(STEP))
    with cgutils.for_range(builder, builder.sub(end, first)) as token:
        at = emit.add(first, token.index)
        source = emit.add(inputs, builder.mul(token.index, row_bytes))
        panel = emit.add(panels, builder.mul(builder.udiv(at, emit.size(PANEL_TOKENS)), panel_bytes))
        target = emit.add(panel, emit.times(builder.urem(at, emit.size(PANEL_TOKENS)), 2 * STEP))
        with cgutils.for_range(builder, steps) as step:
            for half in (0, 1):
                here = emit.add(source, emit.times(step.index, 4 * STEP), emit.size(half * 4 * TILE_ROWS))
                bits = builder.add(builder.bitcast(emit.load(here, emit.floats), emit.words), emit.word(HALF))
                shorts = builder.trunc(builder.lshr(bits, emit.word(16)), ir.VectorType(SHORT, TILE_ROWS))
                emit.store(shorts, emit.add(target, emit.times(step.index, 2 * REGISTER_BYTES), emit.size(half * STEP)))
