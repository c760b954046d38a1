"""What a group of a tile's codes is, for all that multiplies: operands of four codes of each row, and each row's scale and offset.

A weight is scale * code + offset. The places are those of `tiles.LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import jit
from nomoat.engine.emit import BYTE, HALF, WORD, Emit
from nomoat.engine.tiles import BLOCKS, GROUP_CODES, LAYOUTS, LEVELS, TILE_BYTES, TILE_ROWS, UNITS, ZEROS

LOW_HALVES, LOW_TWO_BITS = 0x0F0F0F0F, 0x03030303
BIT_2, BIT_4, BITS_4_AND_5 = 0x04040404, 0x10101010, 0x30303030
SMALL, CODES = 64, 64 + 256  # where a block's small scales begin, and its codes, in the types that have sixteen bytes of both a row
GROUPS_OF_LEVELED = {kind: 256 // GROUP_CODES[kind] for kind in LEVELS if BLOCKS[kind][0] == 256}  # of a block
MOST_MXFP4 = max(LEVELS["MXFP4"])
Operands = list[Any]
Group = tuple[Operands, Any, Any]  # an offset that is a whole number of scales is no vector but that number


def _block(emit: Emit, kind: str, tile: Any, group: Any, groups: int) -> tuple[Any, Any]:
    """The address of a group's block, and which of its so many groups it is."""
    number = emit.builder.lshr(group, emit.size(groups.bit_length() - 1))
    return emit.add(tile, emit.times(number, TILE_BYTES[kind])), emit.builder.and_(group, emit.size(groups - 1))


def _number(emit: Emit, block: Any, half: int, at: int = 0) -> Any:
    return emit.numbers(emit.add(block, emit.size(at + half * 16)), HALF)


def _operand(emit: Emit, address: Any, number: int, half: int) -> Any:
    return emit.load(emit.add(address, emit.size(64 * number + 32 * half)), emit.words)


def _nibbles(emit: Emit, address: Any, count: int, half: int) -> Operands:
    found, mask = [], emit.word(LOW_HALVES)
    for at in range(count):
        both = _operand(emit, address, at, half)
        found += [emit.builder.and_(both, mask), emit.builder.and_(emit.builder.lshr(both, emit.word(4)), mask)]
    return found


def _moved(emit: Emit, words: Any, up: int) -> Any:
    return emit.builder.shl(words, emit.word(up)) if up >= 0 else emit.builder.lshr(words, emit.word(-up))


def _with_bits(emit: Emit, low: Operands, high: Any, *, apart: int, place: int, mask: int) -> Operands:
    """Codes whose upper bits share an operand: those of the first are its lowest, of the next so many bits further up."""
    moved = [_moved(emit, high, place - apart * at) for at in range(len(low))]
    return [emit.builder.or_(four, emit.builder.and_(bits, emit.word(mask))) for four, bits in zip(low, moved, strict=True)]


def _two_bits(emit: Emit, address: Any, half: int) -> Operands:
    four = _operand(emit, address, 0, half)
    return [emit.builder.and_(_moved(emit, four, -2 * at), emit.word(LOW_TWO_BITS)) for at in range(4)]


def _leveled(emit: Emit, nibbles: Operands, levels: Sequence[int], zero: int = 128) -> Operands:
    """Each code's level, and 128 or another number for which none is below 0."""
    bytes_ = [level + zero for level in levels] + [0] * (16 - len(levels))
    table = ir.Constant(ir.VectorType(BYTE, 4 * emit.lanes), bytes_ * (emit.lanes // 4))
    return [emit.looked_up(table, four) for four in nibbles]


# -------------------------------------------------------------------- a tile's address, which group, which half of the rows -> Group
def _usual(kind: str) -> Callable[[Emit, Any, Any, int], Group]:
    """Of a type with blocks of 32 codes of four bits, or of five, and one scale."""
    places = {name: place for name, (_, place, *_) in (LAYOUTS[kind].fields or {}).items()}

    def read(emit: Emit, tile: Any, group: Any, half: int) -> Group:
        block, _ = _block(emit, kind, tile, group, 1)
        high = _operand(emit, emit.add(block, emit.size(places["high"])), 0, half) if "high" in places else None
        codes = _nibbles(emit, emit.add(block, emit.size(places["codes"])), 4, half)
        codes = codes if high is None else _with_bits(emit, codes, high, apart=1, place=4, mask=BIT_4)
        scale = _number(emit, block, half)
        return codes, scale, _number(emit, block, half, places["offset"]) if "offset" in places else -ZEROS[kind]

    return read


def _q8_0(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, _ = _block(emit, "Q8_0", tile, group, 1)
    return [_operand(emit, emit.add(block, emit.size(32)), at, half) for at in range(8)], _number(emit, block, half), -128


def _q2_k(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, within = _block(emit, "Q2_K", tile, group, 16)
    both = emit.load(emit.add(block, emit.times(within, 16), emit.size(SMALL + half * 8)), ir.VectorType(BYTE, emit.lanes))
    both = emit.builder.zext(both, emit.words)
    scale = emit.builder.uitofp(emit.builder.and_(both, emit.word(15)), emit.floats)
    minimum = emit.builder.uitofp(emit.builder.lshr(both, emit.word(4)), emit.floats)
    codes = _two_bits(emit, emit.add(block, emit.times(within, 64), emit.size(CODES)), half)
    offset = emit.builder.fneg(emit.builder.fmul(_number(emit, block, half, 32), minimum))
    return codes, emit.builder.fmul(_number(emit, block, half), scale), offset


def _q3_k(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    """Two groups share an operand of third bits."""
    builder = emit.builder
    block, within = _block(emit, "Q3_K", tile, group, 16)
    pair, second = builder.lshr(within, emit.size(1)), builder.and_(within, emit.size(1))
    codes = emit.add(block, emit.times(pair, 192), emit.size(CODES))
    low = _two_bits(emit, emit.add(codes, emit.times(second, 64)), half)
    high = builder.lshr(_operand(emit, codes, 2, half), emit.all_lanes(builder.trunc(emit.times(second, 4), WORD)))
    return _with_bits(emit, low, high, apart=1, place=2, mask=BIT_2), _signed_scale(emit, block, within, half), -4


def _q4_k(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, within = _block(emit, "Q4_K", tile, group, 8)
    codes = _nibbles(emit, emit.add(block, emit.times(within, 256), emit.size(CODES)), 4, half)
    return codes, *_scale_and_minimum(emit, block, within, half)


def _q5_k(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, within = _block(emit, "Q5_K", tile, group, 8)
    codes = emit.add(block, emit.times(within, 320), emit.size(CODES))
    low, high = _nibbles(emit, codes, 4, half), _operand(emit, codes, 4, half)
    return _with_bits(emit, low, high, apart=1, place=4, mask=BIT_4), *_scale_and_minimum(emit, block, within, half)


def _q6_k(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, within = _block(emit, "Q6_K", tile, group, 16)
    codes = emit.add(block, emit.times(within, 192), emit.size(CODES))
    low, high = _nibbles(emit, codes, 2, half), _operand(emit, codes, 2, half)
    return _with_bits(emit, low, high, apart=2, place=4, mask=BITS_4_AND_5), _signed_scale(emit, block, within, half), -32


def _leveled_k(kind: str, groups: int) -> Callable[[Emit, Any, Any, int], Group]:
    """Of a type whose blocks have so many groups of levels."""

    def read(emit: Emit, tile: Any, group: Any, half: int) -> Group:
        block, within = _block(emit, kind, tile, group, groups)
        codes = emit.add(block, emit.times(within, 2048 // groups), emit.size(SMALL + 16 * groups))
        scale = _signed_scale(emit, block, within, half)
        if kind in UNITS:
            scale = emit.builder.fmul(scale, emit.number(UNITS[kind]))
        return _leveled(emit, _nibbles(emit, codes, 32 // groups, half), LEVELS[kind]), scale, -128

    return read


def _iq4_nl(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    block, _ = _block(emit, "IQ4_NL", tile, group, 1)
    nibbles = _nibbles(emit, emit.add(block, emit.size(32)), 4, half)
    return _leveled(emit, nibbles, LEVELS["IQ4_NL"]), _number(emit, block, half), -128


def _mxfp4(emit: Emit, tile: Any, group: Any, half: int) -> Group:
    """An exponent less stands for the half that the levels want, in float32's own bits; those too small are 0."""
    block, _ = _block(emit, "MXFP4", tile, group, 1)
    exponents = emit.load(emit.add(block, emit.size(half * 8)), ir.VectorType(BYTE, emit.lanes))
    exponents = emit.builder.zext(exponents, emit.words)
    is_usual = emit.builder.icmp_signed(">", exponents, emit.word(0))
    less = emit.builder.select(is_usual, emit.builder.sub(exponents, emit.word(1)), exponents)
    scale = emit.builder.bitcast(emit.builder.shl(less, emit.word(23)), emit.floats)
    nibbles = _nibbles(emit, emit.add(block, emit.size(16)), 4, half)
    return _leveled(emit, nibbles, LEVELS["MXFP4"], MOST_MXFP4), scale, -MOST_MXFP4


def _signed_scale(emit: Emit, block: Any, within: Any, half: int) -> Any:
    small = emit.add(block, emit.times(within, 16), emit.size(SMALL + half * 8))
    return emit.builder.fmul(_number(emit, block, half), emit.small_numbers(small, signed=True))


def _scale_and_minimum(emit: Emit, block: Any, within: Any, half: int) -> tuple[Any, Any]:
    small = emit.add(block, emit.times(within, 32), emit.size(SMALL + half * 8))
    scale = emit.builder.fmul(_number(emit, block, half), emit.small_numbers(small, signed=False))
    minimum = emit.small_numbers(emit.add(small, emit.size(16)), signed=False)
    return scale, emit.builder.fneg(emit.builder.fmul(_number(emit, block, half, 32), minimum))


def with_offsets(emit: Emit, found: Group) -> Group:
    """The same group with its offset as a vector."""
    codes, scale, offset = found
    return codes, scale, emit.builder.fmul(scale, emit.number(float(offset))) if isinstance(offset, int) else offset


_READERS: dict[str, tuple[int, Callable[[Emit, Any, Any, int], Group]]] = {
    "Q4_0": (15, _usual("Q4_0")), "Q4_1": (15, _usual("Q4_1")), "Q5_0": (31, _usual("Q5_0")), "Q5_1": (31, _usual("Q5_1")),
    "Q8_0": (255, _q8_0), "Q2_K": (3, _q2_k), "Q3_K": (7, _q3_k), "Q4_K": (15, _q4_k), "Q5_K": (31, _q5_k), "Q6_K": (63, _q6_k),
    "IQ4_NL": (LEVELS["IQ4_NL"][-1] + 128, _iq4_nl), "MXFP4": (2 * MOST_MXFP4, _mxfp4),
    **{kind: (LEVELS[kind][-1] + 128, _leveled_k(kind, groups)) for kind, groups in GROUPS_OF_LEVELED.items()},
}  # fmt: skip
# codes of a group, the largest code, and who reads it
GROUPS = {kind: (GROUP_CODES[kind], *reader) for kind, reader in _READERS.items()}


def to_floats(kind: str) -> Callable[..., None]:
    """What makes some groups of a tile's codes of this type the weights they stand for, in f32: a column's sixteen, the next one's
    so many bytes behind."""
    width, _, read = GROUPS[kind]

    @jit.emitted
    def some_floats(builder: Any, tile: Any, start: Any, groups: Any, floats: Any, column_bytes: Any) -> None:
        emit = Emit(builder)
        for half in range(TILE_ROWS // emit.lanes):
            with cgutils.for_range(builder, groups) as loop:
                fours, scale, offset = with_offsets(emit, read(emit, tile, emit.add(start, loop.index), half))
                place = emit.add(floats, emit.times(builder.mul(loop.index, column_bytes), width), emit.size(half * 4 * emit.lanes))
                for number in range(width):
                    code = builder.and_(builder.lshr(fours[number // 4], emit.word(number % 4 * 8)), emit.word(255))
                    weight = emit.fused(builder.uitofp(code, emit.floats), scale, offset)
                    emit.store(weight, emit.add(place, emit.times(column_bytes, number)))

    def to_floats_of(tile: Any, start: Any, groups: Any, floats: Any, column_bytes: Any) -> None:
        some_floats(tile, start, groups, floats, column_bytes)

    return to_floats_of
