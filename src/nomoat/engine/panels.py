"""Products of many tokens at once, as a prompt has them: a tile's codes become 8 bits, with one scale a row for each chunk of columns.

So 64 products are one instruction and a sum is scaled once a chunk, where `kernels` scales it once a group: for that weights are
rounded a second time, to 8 bits. Two tiles and `PANEL_TOKENS` tokens are worked on together, whose sums fill the registers; a chunk
of two tiles stays in the nearest cache for all tokens of a part. Only for CPUs with VNNI, or ARM's products of bytes: elsewhere
8 bits take more instructions than a file's own codes, whose products are added in 16 bits (`Emit.dot`). By AMX `amx_bytes` multiplies.

A panel is the inputs of `PANEL_TOKENS` tokens, four columns of each: [chunk][panel][column / 4][token][4].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.codes import GROUPS, with_offsets
from nomoat.engine.emit import BYTE, FLOAT, HALF, LOW_WORDS, WORD, Emit
from nomoat.engine.kernels import AHEAD, HALF_ROUNDED
from nomoat.engine.step_tables import BY_AMX, INT8_PANEL_TOKENS
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS

PANEL_TOKENS = INT8_PANEL_TOKENS
FOUR_BYTES = 2 * TILE_ROWS * 4  # of both tiles' codes for four columns
ROUNDED_TOGETHER = 4  # tokens
ZERO = 128  # the byte that stands for a weight of 0 with VNNI alone: one operand of the instruction has no sign
FRACTION = 5  # bits behind the point while a code is scaled: the upper half of a product of two numbers of 16 bits with a sign


def to_bytes(kind: str) -> Callable[..., None]:
    """What makes some groups of a tile's codes of this type bytes, at every second place for a tile's operand, and each row's scale.

    Never wrong by more than half a 127th of the largest weight that a row's codes and scales could give in this chunk.
    """
    width, most, read = GROUPS[kind]
    bits = most.bit_length()
    group_bytes = TILE_BYTES[kind] * width // BLOCKS[kind][0]

    @jit.emitted
    def some_bytes(builder: Any, tile: Any, start: Any, groups: Any, codes: Any, scales: Any) -> None:
        emit = Emit(builder)
        for half in range(TILE_ROWS // emit.lanes):
            (largest,) = emit.variables(emit.number(0.0))
            with cgutils.for_range(builder, groups) as loop:
                _, scale, offset = with_offsets(emit, read(emit, tile, emit.add(start, loop.index), half))
                for end in (offset, emit.fused(scale, emit.number(float(most)), offset)):
                    builder.store(emit.larger(emit.without_sign(end), builder.load(largest)), largest)
            found = builder.load(largest)
            emit.store(builder.fmul(found, emit.number(1 / 127)), emit.add(scales, emit.size(4 * half * emit.lanes)))
            inverse = emit.inverse(found, 127.0)
            with cgutils.for_range(builder, groups) as loop:
                place = emit.add(codes, emit.times(loop.index, width // 4 * FOUR_BYTES), emit.size(half * 4 * emit.lanes))
                emit.prefetch(emit.add(tile, emit.times(emit.add(start, loop.index), group_bytes), emit.size(AHEAD)), group_bytes)
                fours, scale, offset = with_offsets(emit, read(emit, tile, emit.add(start, loop.index), half))
                factor = emit.whole(builder.fmul(builder.fmul(scale, inverse), emit.number(float(2 ** (bits + 1 + FRACTION)))))
                added = emit.whole(builder.fmul(builder.fmul(offset, inverse), emit.number(float(2**FRACTION))))
                added = builder.add(added, emit.word((ZERO << FRACTION) + (1 << FRACTION - 1)))
                for number, four in enumerate(fours):
                    made = _scaled(emit, four, bits, factor, added)
                    made = made if emit.has_vnni and not BY_AMX else emit.with_sign(made)
                    emit.store(made, emit.add(place, emit.size(number * FOUR_BYTES)))

    def to_bytes_of(tile: Any, start: Any, groups: Any, codes: Any, scales: Any) -> None:
        some_bytes(tile, start, groups, codes, scales)

    return to_bytes_of


def _scaled(emit: Emit, codes: Any, bits: int, factor: Any, added: Any) -> Any:
    """code * scale + offset of each byte of so many bits, as a byte: first the even bytes, then the odd ones, in 16 bits."""
    builder = emit.builder
    pairs = ir.VectorType(ir.IntType(16), 2 * emit.lanes)
    wide = ir.VectorType(WORD, 2 * emit.lanes)

    def twice(words: Any) -> Any:
        low = builder.and_(words, emit.word(LOW_WORDS))
        return builder.bitcast(builder.or_(low, builder.shl(low, emit.word(16))), pairs)

    def constant(value: int, kind: Any = pairs) -> Any:
        return ir.Constant(kind, [value] * 2 * emit.lanes)

    factor, added, codes = twice(factor), twice(added), builder.bitcast(codes, pairs)
    made = []
    for part in (builder.and_(codes, constant(255)), builder.lshr(codes, constant(8))):
        product = builder.mul(builder.sext(builder.shl(part, constant(15 - bits)), wide), builder.sext(factor, wide))
        upper = builder.trunc(builder.ashr(product, constant(16, wide)), pairs)
        made.append(builder.lshr(builder.add(upper, added), constant(FRACTION)))
    return builder.bitcast(builder.or_(made[0], builder.shl(made[1], constant(8))), emit.words)


@jit.emitted
def panel_product(
    builder: Any, codes: Any, scales: Any, inputs: Any, factors: Any, firsts: Any, sums: Any, tile_bytes: Any, panel_bytes: Any,
    fours: Any, blocks: Any, tokens: Any,
) -> None:  # fmt: skip
    """sums += a chunk's products of two tiles' codes and all panels, as far as there are tokens, or up to three more.

    `tile_bytes`: from the first tile's sums to the second's.
    """
    emit = Emit(builder)
    told = codes, scales, inputs, factors, firsts, sums, tile_bytes, panel_bytes, fours
    last = builder.sub(blocks, emit.size(1))
    with cgutils.for_range(builder, last) as block:
        _emit_panel(emit, told, block.index, range(PANEL_TOKENS))
    left, after = builder.sub(tokens, emit.times(last, PANEL_TOKENS)), builder.append_basic_block("after")
    for count in range(4, PANEL_TOKENS, 4):
        few, more = (builder.append_basic_block(f"{name}_{count}") for name in ("up_to", "over"))
        builder.cbranch(builder.icmp_signed("<=", left, emit.size(count)), few, more)
        builder.position_at_end(few)
        _emit_panel(emit, told, last, range(count))
        builder.branch(after)
        builder.position_at_end(more)
    _emit_panel(emit, told, last, range(PANEL_TOKENS))
    builder.branch(after)
    builder.position_at_end(after)


def _emit_panel(emit: Emit, arguments: Sequence[Any], block: Any, tokens: range) -> None:
    """The first tokens of a panel."""
    builder = emit.builder
    codes, scales, inputs, factors, firsts, sums, tile_bytes, panel_bytes, fours = arguments
    at_once = PANEL_TOKENS if emit.lanes == TILE_ROWS else PANEL_TOKENS // 2  # 16 registers in place of 32
    number = emit.times(block, PANEL_TOKENS * 4)
    panel = emit.add(inputs, builder.mul(block, panel_bytes))
    for half in range(TILE_ROWS // emit.lanes):
        across = emit.size(half * 4 * emit.lanes)
        weights = [emit.load(emit.add(scales, across, emit.size(4 * TILE_ROWS * tile)), emit.floats) for tile in (0, 1)]
        for start in range(0, len(tokens), at_once):
            some = tokens[start : start + at_once]
            starts = [emit.load(emit.add(firsts, number, emit.size(4 * token)), WORD, 4) for token in some]
            totals = _dots(emit, emit.add(codes, across), emit.add(panel, emit.size(4 * start)), fours, starts)
            for token, both in zip(some, totals, strict=True):
                factor = emit.all_lanes(emit.load(emit.add(factors, number, emit.size(4 * token)), FLOAT, 4))
                place = emit.add(sums, emit.times(number, TILE_ROWS), emit.size(4 * TILE_ROWS * token), across)
                for tile, total in enumerate(both):
                    here = place if tile == 0 else emit.add(place, tile_bytes)
                    scaled = builder.fmul(builder.sitofp(total, emit.floats), factor)
                    emit.store(emit.fused(scaled, weights[tile], emit.load(here, emit.floats)), here)


@jit.emitted
def begin_sums(builder: Any, sums: Any, bias: Any, tokens: Any) -> None:
    """A tile's sums of so many tokens begin with these sixteen numbers."""
    emit = Emit(builder)
    starts = _lanes(emit, bias)
    with cgutils.for_range(builder, tokens) as loop:
        _write_lanes(emit, starts, emit.add(sums, emit.times(loop.index, 4 * TILE_ROWS)))


def _written(*, added: bool) -> Any:
    @jit.emitted
    def written(builder: Any, sums: Any, y: Any, tokens: Any, row_bytes: Any) -> None:
        emit = Emit(builder)
        with cgutils.for_range(builder, tokens) as loop:
            found = _lanes(emit, emit.add(sums, emit.times(loop.index, 4 * TILE_ROWS)))
            place = emit.add(y, builder.mul(loop.index, row_bytes))
            if added:
                found = [builder.fadd(a, b) for a, b in zip(found, _lanes(emit, place), strict=True)]
            _write_lanes(emit, found, place)

    return written


# A tile's sums of so many tokens, written into their rows of a result or added to them.
write_sums, add_sums = _written(added=False), _written(added=True)


def _add_ranks(tokens: int) -> Any:
    """y += B h for a tile's sixteen rows and so many tokens: `b` is [rank][row] in f16, `hidden` [token][rank] in f32."""

    @jit.emitted
    def add_ranks(builder: Any, b: Any, hidden: Any, hidden_bytes: Any, rank: Any, y: Any, row_bytes: Any) -> None:
        emit = Emit(builder)
        places = [emit.add(y, emit.times(row_bytes, token)) for token in range(tokens)]
        seen = [emit.add(hidden, emit.times(hidden_bytes, token)) for token in range(tokens)]
        totals = [emit.variables(*_lanes(emit, place)) for place in places]
        with cgutils.for_range(builder, rank) as loop:
            row = emit.add(b, emit.times(loop.index, 2 * TILE_ROWS))
            rows = [emit.numbers(emit.add(row, emit.size(2 * start)), HALF) for start in range(0, TILE_ROWS, emit.lanes)]
            for of_token, here in zip(totals, seen, strict=True):
                factor = emit.all_lanes(emit.load(emit.add(here, emit.times(loop.index, 4)), FLOAT, 4))
                for total, weights in zip(of_token, rows, strict=True):
                    builder.store(emit.fused(weights, factor, builder.load(total)), total)
        for of_token, place in zip(totals, places, strict=True):
            _write_lanes(emit, [builder.load(total) for total in of_token], place)

    return add_ranks


RANKS_TOGETHER = 8  # tokens
add_ranks, add_ranks_together = _add_ranks(1), _add_ranks(RANKS_TOGETHER)


def _lanes(emit: Emit, address: Any) -> list[Any]:
    """A tile's sixteen numbers."""
    return [emit.load(emit.add(address, emit.size(4 * start)), emit.floats) for start in range(0, TILE_ROWS, emit.lanes)]


def _write_lanes(emit: Emit, found: list[Any], address: Any) -> None:
    for number, values in enumerate(found):
        emit.store(values, emit.add(address, emit.size(4 * emit.lanes * number)))


def _dots(emit: Emit, codes: Any, inputs: Any, fours: Any, starts: list[Any]) -> list[list[Any]]:
    """Of each token and both tiles the sums of products, as whole numbers."""
    builder = emit.builder
    totals = [emit.variables(*[emit.all_lanes(start)] * 2) for start in starts]
    with cgutils.for_range(builder, fours) as loop:
        place = emit.add(codes, emit.times(loop.index, FOUR_BYTES))
        tiles = [emit.load(emit.add(place, emit.size(4 * TILE_ROWS * tile)), emit.words) for tile in (0, 1)]
        seen = emit.add(inputs, emit.times(loop.index, 4 * PANEL_TOKENS))
        for token, both in enumerate(totals):
            input_ = emit.all_lanes(emit.load(emit.add(seen, emit.size(4 * token)), WORD, 4))
            for tile, total in zip(tiles, both, strict=True):
                builder.store(emit.dot(builder.load(total), [tile], [input_]), total)
    return [[builder.load(total) for total in both] for both in totals]


@jit.emitted
def round_into_panel(
    builder: Any, inputs: Any, row_bytes: Any, tokens: Any, panel: Any, scales: Any, firsts: Any, columns: Any, chunk_columns: Any,
    blocks: Any,
) -> None:  # fmt: skip
    """Up to four tokens' inputs in 8 bits, a chunk's with one scale, into their places of the panels; what a chunk's sums begin with.

    Fewer tokens: the last one's also stand in the places after it, which nobody reads.
    """
    emit = Emit(builder, lanes=HALF_ROUNDED)
    zero = emit.word(0)
    chunks = builder.udiv(builder.sub(emit.add(columns, chunk_columns), emit.size(1)), chunk_columns)
    last = builder.sub(tokens, emit.size(1))
    rows = []
    for token in range(ROUNDED_TOGETHER):
        own = builder.select(builder.icmp_signed("<", emit.size(token), last), emit.size(token), last)
        rows.append(emit.add(inputs, builder.mul(own, row_bytes)))
    with cgutils.for_range(builder, chunks) as chunk:
        start = builder.mul(chunk.index, chunk_columns)
        left = builder.sub(columns, start)
        left = builder.select(builder.icmp_signed("<", left, chunk_columns), left, chunk_columns)
        parts = builder.udiv(left, emit.size(HALF_ROUNDED))
        sources = [emit.add(row, emit.times(start, 4)) for row in rows]
        most = emit.variables(*[emit.number(0.0)] * ROUNDED_TOGETHER)
        with cgutils.for_range(builder, parts) as part:
            for source, largest in zip(sources, most, strict=True):
                values = emit.part(source, part)
                builder.store(emit.larger(emit.without_sign(values), builder.load(largest)), largest)
        scales_here = [builder.fmul(emit.largest([builder.load(largest)]), ir.Constant(FLOAT, 1 / 127)) for largest in most]
        inverses = [emit.all_lanes(emit.inverse(scale)) for scale in scales_here]
        totals = emit.variables(*[zero] * ROUNDED_TOGETHER)
        target = emit.add(panel, builder.mul(emit.times(start, PANEL_TOKENS), blocks))
        with cgutils.for_range(builder, parts) as part:
            fours = []
            for source, inverse, total in zip(sources, inverses, totals, strict=True):
                values = emit.part(source, part)
                rounded = emit.whole(builder.fmul(values, inverse))
                builder.store(builder.add(builder.load(total), rounded), total)
                small = builder.trunc(rounded, ir.VectorType(BYTE, HALF_ROUNDED))
                fours.append(builder.bitcast(small, ir.VectorType(WORD, ROUNDED_TOGETHER)))
            place = emit.add(target, emit.times(part.index, HALF_ROUNDED * PANEL_TOKENS))
            for number, four in enumerate(_turned(emit, fours)):
                emit.store(four, emit.add(place, emit.size(4 * PANEL_TOKENS * number)))
        number = builder.mul(emit.times(chunk.index, 4 * PANEL_TOKENS), blocks)
        for token, (scale, total) in enumerate(zip(scales_here, totals, strict=True)):
            here = emit.add(number, emit.size(4 * token))
            emit.store(scale, emit.add(scales, here))
            zero = ir.Constant(WORD, -ZERO if emit.has_vnni else 0)
            first = builder.mul(emit.sum_of(builder.load(total)), zero)
            emit.store(first, emit.add(firsts, here))


def _turned(emit: Emit, fours: list[Any]) -> list[Any]:
    """Four vectors of four words as the rows of a matrix: its columns."""

    def mixed(a: Any, b: Any, *places: int) -> Any:
        return emit.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(WORD, 4), list(places)))

    low, high = ([mixed(a, b, *places) for a, b in (fours[:2], fours[2:])] for places in ((0, 4, 1, 5), (2, 6, 3, 7)))
    return [mixed(*pair, *places) for pair in (low, high) for places in ((0, 1, 4, 5), (2, 3, 6, 7))]
