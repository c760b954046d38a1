"""Products with a file's own 4- and 6-bit codes: y = x W^T, computed on the codes as `tiles` has them.

Inputs are rounded to 8 bits with a scale for each 32, products summed as whole numbers over a group of a tile's codes (32, 16 of
Q6_K), and a group's sum is scaled in float32: so a weight is what the file says. OpenVINO 2026.4 reads groups of 32 at half the
speed (docs/log.md). Compiled by numba for this CPU at the first use, once a machine.

Shapes: M texts' tokens, R rows (outputs), C columns (inputs), G groups of a row.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import hardware, jit
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS

TOKENS_AT_ONCE = (12, 8, 4, 2, 1, 0)  # whose sums stay in registers while a tile is read; the next larger for other numbers
BYTE, SHORT, WORD, SIZE = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT, HALF = ir.FloatType(), ir.HalfType()
ROUNDED, HALF_ROUNDED = 32, 16  # inputs that share a scale, and that are summed
CACHE_LINE, AHEAD = 64, 2048  # bytes; how far before it is used a tile is asked for
LOW_HALVES, BITS_4_AND_5, BIT_4, NO_SIGN = 0x0F0F0F0F, 0x30303030, 0x10101010, 0x7FFFFFFF
HIGHEST_BITS = 0x80808080
LARGEST_SHORT, LARGEST_INPUT = 32767, 127


class Emit:
    """LLVM's instructions for vectors of this CPU's width; 8 lanes take a tile in two halves."""

    def __init__(self, builder: Any, *, lanes: int | None = None) -> None:
        self.builder = builder
        flags = hardware.cpu_flags()
        self.lanes = lanes or (16 if "avx512_vnni" in flags else 8)
        self.has_vnni = bool({"avx512_vnni", "avx_vnni"} & flags)
        self.words, self.floats = ir.VectorType(WORD, self.lanes), ir.VectorType(FLOAT, self.lanes)

    def size(self, value: int) -> Any:
        return ir.Constant(SIZE, value)

    def add(self, *values: Any) -> Any:
        return functools.reduce(self.builder.add, values)

    def times(self, value: Any, factor: int) -> Any:
        return self.builder.mul(value, self.size(factor))

    def load(self, address: Any, kind: Any, align: int = 1) -> Any:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Any, address: Any, align: int = 4) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=align)

    def all_lanes(self, value: Any) -> Any:
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        one = self.builder.insert_element(nothing, value, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(self.words, [0] * self.lanes))

    def prefetch(self, address: Any, count: int) -> None:
        """Ask for so many bytes, which are read soon."""
        kind = ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), WORD, WORD, WORD])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        for start in range(0, count, CACHE_LINE):
            place = self.builder.inttoptr(self.add(address, self.size(start)), BYTE.as_pointer())
            self.builder.call(function, [place, *(ir.Constant(WORD, value) for value in (0, 3, 1))])

    def word(self, value: int) -> Any:
        return ir.Constant(self.words, [value] * self.lanes)

    def number(self, value: float) -> Any:
        return ir.Constant(self.floats, [value] * self.lanes)

    def numbers(self, address: Any, kind: Any) -> Any:
        """A number of each lane's row, as float32."""
        found = self.load(address, ir.VectorType(kind, self.lanes))
        return self.builder.fpext(found, self.floats)

    def small_numbers(self, address: Any, *, signed: bool) -> Any:
        """The same of a number that is a byte."""
        found = self.load(address, ir.VectorType(BYTE, self.lanes))
        return self.builder.sitofp(found, self.floats) if signed else self.builder.uitofp(found, self.floats)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def without_sign(self, values: Any) -> Any:
        return self.builder.bitcast(self.builder.and_(self.builder.bitcast(values, self.words), self.word(NO_SIGN)), self.floats)

    def largest(self, values: Sequence[Any]) -> Any:
        """The largest number without its sign: the bits of such numbers are in the same order."""
        bits = [self.builder.and_(self.builder.bitcast(value, self.words), self.word(NO_SIGN)) for value in values]
        most = functools.reduce(lambda a, b: self.builder.select(self.builder.icmp_unsigned(">", a, b), a, b), bits)
        return self.builder.bitcast(self._call(f"llvm.vector.reduce.umax.v{self.lanes}i32", WORD, [most]), FLOAT)

    def highest(self, values: Any) -> Any:
        """The largest number with its sign."""
        return self._call(f"llvm.vector.reduce.fmax.v{self.lanes}f32", FLOAT, [values], fastmath=["nnan", "nsz"])

    def rounded(self, values: Any) -> Any:
        """The nearest whole numbers, as float32."""
        return self._call(f"llvm.rint.v{self.lanes}f32", self.floats, [values])

    def whole(self, values: Any) -> Any:
        """The nearest whole numbers."""
        return self.builder.fptosi(self.rounded(values), self.words)

    def sum_of(self, words: Any) -> Any:
        return self._call(f"llvm.vector.reduce.add.v{self.lanes}i32", WORD, [words])

    def float_sum(self, values: Any) -> Any:
        """Of all lanes, in any order."""
        return self._call(f"llvm.vector.reduce.fadd.v{self.lanes}f32", FLOAT, [ir.Constant(FLOAT, 0.0), values], fastmath=["reassoc"])

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c."""
        return self._call(f"llvm.fma.v{self.lanes}f32", self.floats, [a, b, c])

    def dot(self, total: Any, codes: Sequence[Any], inputs: Sequence[Any], *, most: int = 255) -> Any:
        """In each lane the sum of products of unsigned and signed bytes, four a vector, added to `total`. `most`: the largest code.

        Without VNNI by AVX2, for codes of at most 7 bits: as many products as cannot pass 16 bits are added in these.
        """
        both = list(zip(codes, inputs, strict=True))
        if self.has_vnni:
            name = f"llvm.x86.avx512.vpdpbusd.{self.lanes * 32}"
            return functools.reduce(lambda sums, pair: self._call(name, self.words, [sums, *pair]), both, total)
        together = max(1, LARGEST_SHORT // (2 * most * LARGEST_INPUT))  # panels, which hold larger codes, are compiled, but not used
        for start in range(0, len(both), together):
            twos = [self._two_products(*pair) for pair in both[start : start + together]]
            total = self._add_pairs(total, functools.reduce(self.builder.add, twos))
        return total

    def dot_around_zero(self, total: Any, codes: Sequence[Any], inputs: Sequence[Any]) -> Any:
        """The same of codes of 8 bits less 128, by AVX2 alone: the sign of a code goes over to the input."""
        bytes_ = ir.VectorType(BYTE, 4 * self.lanes)
        for code, input_ in zip(codes, inputs, strict=True):
            signed = self.builder.bitcast(self.builder.xor(code, self.word(HIGHEST_BITS)), bytes_)
            size = self._call(f"llvm.abs.v{4 * self.lanes}i8", bytes_, [signed, ir.Constant(ir.IntType(1), 0)])
            turned = self._call("llvm.x86.avx2.psign.b", bytes_, [self.builder.bitcast(input_, bytes_), signed])
            total = self._add_pairs(total, self._two_products(size, turned))
        return total

    def _two_products(self, codes: Any, inputs: Any) -> Any:
        """Sums of two products, in 16 bits."""
        both = [self.builder.bitcast(value, ir.VectorType(BYTE, 4 * self.lanes)) for value in (codes, inputs)]
        return self._call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(SHORT, 2 * self.lanes), both)

    def _add_pairs(self, total: Any, sums: Any) -> Any:
        """Both sums of a lane, added to its total."""
        ones = ir.Constant(ir.VectorType(SHORT, 2 * self.lanes), [1] * 2 * self.lanes)
        return self.builder.add(total, self._call("llvm.x86.avx2.pmadd.wd", self.words, [sums, ones]))

    def _call(self, name: str, result: Any, arguments: list[Any], *, fastmath: Sequence[str] = ()) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments, fastmath=fastmath)

    @contextmanager
    def loop(self, more: Callable[[], Any]) -> Iterator[None]:
        """While `more` gives a true bit."""
        ask, body, after = (self.builder.append_basic_block(name) for name in ("ask", "body", "after"))
        self.builder.branch(ask)
        self.builder.position_at_end(ask)
        self.builder.cbranch(more(), body, after)
        self.builder.position_at_end(body)
        yield
        self.builder.branch(ask)
        self.builder.position_at_end(after)


# What a group of codes is: a tile's address, which group, and which half of the rows -> its codes, and each row's scale and offset.
# An offset that is a whole number of scales is no vector but that number.
def _q4_0(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q4_0"]))
    return _nibbles(emit, emit.add(block, emit.size(32)), 4, half), emit.numbers(emit.add(block, emit.size(half * 16)), HALF), -8


def _q4_1(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q4_1"]))
    scale, offset = (emit.numbers(emit.add(block, emit.size(at + half * 16)), HALF) for at in (0, 32))
    return _nibbles(emit, emit.add(block, emit.size(64)), 4, half), scale, offset


def _q4_k(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    builder = emit.builder
    block = emit.add(tile, emit.times(builder.lshr(group, emit.size(3)), TILE_BYTES["Q4_K"]))
    within = builder.and_(group, emit.size(7))
    small = emit.add(block, emit.times(within, 32), emit.size(64 + half * 8))
    scale, minimum = (emit.numbers(emit.add(block, emit.size(at + half * 16)), HALF) for at in (0, 32))
    scale = builder.fmul(scale, emit.small_numbers(small, signed=False))
    minimum = builder.fmul(minimum, emit.small_numbers(emit.add(small, emit.size(16)), signed=False))
    codes = emit.add(block, emit.times(within, 256), emit.size(64 + 256))
    return _nibbles(emit, codes, 4, half), scale, builder.fneg(minimum)


def _q6_k(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    builder = emit.builder
    block = emit.add(tile, emit.times(builder.lshr(group, emit.size(4)), TILE_BYTES["Q6_K"]))
    within = builder.and_(group, emit.size(15))
    small = emit.small_numbers(emit.add(block, emit.times(within, 16), emit.size(64 + half * 8)), signed=True)
    scale = builder.fmul(emit.numbers(emit.add(block, emit.size(half * 16)), HALF), small)
    codes = emit.add(block, emit.times(within, 192), emit.size(64 + 256))
    low = _nibbles(emit, codes, 2, half)
    high = emit.load(emit.add(codes, emit.size(128 + half * 32)), emit.words)
    moved = [builder.shl(high, emit.word(4)), builder.shl(high, emit.word(2)), high, builder.lshr(high, emit.word(2))]
    mask = emit.word(BITS_4_AND_5)
    return [builder.or_(four, builder.and_(bits, mask)) for four, bits in zip(low, moved, strict=True)], scale, -32


def _q5_0(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    builder = emit.builder
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q5_0"]))
    scale = emit.numbers(emit.add(block, emit.size(half * 16)), HALF)
    high = emit.load(emit.add(block, emit.size(32 + half * 32)), emit.words)
    low = _nibbles(emit, emit.add(block, emit.size(32 + 64)), 4, half)
    moved = [builder.shl(high, emit.word(4 - at)) if at < 4 else builder.lshr(high, emit.word(at - 4)) for at in range(8)]
    return [builder.or_(four, builder.and_(bits, emit.word(BIT_4))) for four, bits in zip(low, moved, strict=True)], scale, -16


def _q8_0(emit: Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q8_0"]))
    codes = [emit.load(emit.add(block, emit.size(32 + 64 * at + 32 * half)), emit.words) for at in range(8)]
    return codes, emit.numbers(emit.add(block, emit.size(half * 16)), HALF), -128


def _nibbles(emit: Emit, address: Any, count: int, half: int) -> list[Any]:
    found, mask = [], emit.word(LOW_HALVES)
    for at in range(count):
        both = emit.load(emit.add(address, emit.size(64 * at + 32 * half)), emit.words)
        found += [emit.builder.and_(both, mask), emit.builder.and_(emit.builder.lshr(both, emit.word(4)), mask)]
    return found


# codes of a group, the largest code, and who reads it
GROUPS = {
    "Q4_0": (32, 15, _q4_0), "Q4_1": (32, 15, _q4_1), "Q4_K": (32, 15, _q4_k), "Q6_K": (16, 63, _q6_k), "Q5_0": (32, 31, _q5_0),
    "Q8_0": (32, 255, _q8_0),
}  # fmt: skip


def _sums(emit: Emit, kind: str, count: int, half: int, places: dict[str, Any]) -> None:
    """The products of one tile (or half of it) and `count` tokens, written where they belong."""
    builder, (width, most, read) = emit.builder, GROUPS[kind]
    zero = ir.Constant(emit.floats, [0.0] * emit.lanes)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(count)]
    for total in sums:
        builder.store(zero, total)
    group = cgutils.alloca_once_value(builder, emit.size(0))
    builder.store(emit.size(0), group)
    group_bytes = TILE_BYTES[kind] * width // BLOCKS[kind][0]
    rounded = builder.lshr(places["columns"], emit.size(5))  # groups of inputs, whatever the width of those of codes
    with emit.loop(lambda: builder.icmp_signed("<", builder.load(group), places["groups"])):
        at = builder.load(group)
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
            scales = emit.all_lanes(emit.load(emit.add(places["scales"], emit.times(number, 4)), FLOAT, 4))
            before = builder.load(total)
            if not isinstance(offset, int):
                totals = emit.all_lanes(emit.load(emit.add(places["totals"], emit.times(number, 4)), FLOAT, 4))
                before = emit.fused(offset, totals, before)
            builder.store(emit.fused(whole, builder.fmul(scale, scales), before), total)
        builder.store(emit.add(at, emit.size(1)), group)
    for token, total in reversed(list(enumerate(sums))):  # those after the last token are overwritten by its own
        is_one = builder.icmp_signed("<", emit.size(token), places["last"])
        row = builder.select(is_one, emit.size(token), places["last"])
        place = emit.add(places["outputs"], builder.mul(places["row_bytes"], row), emit.size(half * 32))
        emit.store(builder.load(total), place)


def _tile(kind: str) -> Any:
    """The products of one tile and all tokens."""
    width = GROUPS[kind][0]

    @jit.in_llvm
    def tile(
        typing: Any, tile: Any, inputs: Any, scales: Any, totals: Any, sums: Any, outputs: Any, tokens: Any, columns: Any, rows: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = Emit(builder)
            tile, inputs, scales, totals, sums, outputs, tokens, columns, rows = args
            groups = builder.udiv(columns, emit.size(width))
            done = cgutils.alloca_once_value(builder, emit.size(0))
            builder.store(emit.size(0), done)
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
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), generate

    return tile


q4_0_tile, q4_1_tile, q4_k_tile, q6_k_tile, q5_0_tile, q8_0_tile = (_tile(kind) for kind in GROUPS)


@jit.in_llvm
def round_inputs(typing: Any, inputs: Any, rounded: Any, scales: Any, totals: Any, sums: Any, groups: Any) -> Any:
    """A token's inputs in 8 bits; of each 32 their scale, and the sum of the rounded ones times it; of each 16 the sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = Emit(builder, lanes=HALF_ROUNDED)
        inputs, rounded, scales, totals, sums, groups = args
        with cgutils.for_range(builder, groups) as loop:
            start = emit.times(loop.index, ROUNDED)
            halves = [emit.load(emit.add(inputs, emit.times(start, 4), emit.size(at)), emit.floats) for at in (0, 64)]
            largest = builder.fmul(emit.largest(halves), ir.Constant(FLOAT, 1 / 127))
            is_zero = builder.fcmp_ordered("==", largest, ir.Constant(FLOAT, 0.0))
            inverse = builder.select(is_zero, ir.Constant(FLOAT, 0.0), builder.fdiv(ir.Constant(FLOAT, 1.0), largest))
            totals_here = []
            for half, values in enumerate(halves):
                codes = emit.whole(builder.fmul(values, emit.all_lanes(inverse)))
                emit.store(builder.trunc(codes, ir.VectorType(BYTE, HALF_ROUNDED)), emit.add(rounded, start, emit.size(16 * half)), 1)
                totals_here.append(emit.sum_of(codes))
                emit.store(totals_here[-1], emit.add(sums, emit.times(loop.index, 8), emit.size(4 * half)))
            number = emit.times(loop.index, 4)
            emit.store(largest, emit.add(scales, number))
            total = builder.sitofp(builder.add(*totals_here), FLOAT)
            emit.store(builder.fmul(total, largest), emit.add(totals, number))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), generate


def _multiply_q4_0(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q4_0_tile(a, b, c, d, e, f, g, h, i)


def _multiply_q4_1(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q4_1_tile(a, b, c, d, e, f, g, h, i)


def _multiply_q4_k(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q4_k_tile(a, b, c, d, e, f, g, h, i)


def _multiply_q6_k(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q6_k_tile(a, b, c, d, e, f, g, h, i)


def _multiply_q5_0(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q5_0_tile(a, b, c, d, e, f, g, h, i)


def _multiply_q8_0(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, i: Any) -> None:
    q8_0_tile(a, b, c, d, e, f, g, h, i)


# To be compiled by themselves (`jit.compiled`): tile, inputs, scales, totals, sums, outputs, tokens, columns, rows.
PRODUCTS = {
    "Q4_0": _multiply_q4_0, "Q4_1": _multiply_q4_1, "Q4_K": _multiply_q4_k, "Q6_K": _multiply_q6_k, "Q5_0": _multiply_q5_0,
    "Q8_0": _multiply_q8_0,
}  # fmt: skip
