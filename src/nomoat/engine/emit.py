"""LLVM's instructions for vectors of numbers, as everything that is compiled here uses them: by way of numba, whose own loops do not
become the products of bytes that CPUs have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from nomoat import hardware
from nomoat.engine.tiles import CACHE_LINE

BYTE, SHORT, WORD, SIZE = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT, HALF = ir.FloatType(), ir.HalfType()
ARM_LANES = 4
FOUR_WORDS, SIXTEEN_BYTES = ir.VectorType(WORD, ARM_LANES), ir.VectorType(BYTE, 4 * ARM_LANES)
NO_SIGN, HIGHEST_BITS, LOW_WORDS = 0x7FFFFFFF, 0x80808080, 0x0000FFFF
LARGEST_SHORT, LARGEST_INPUT = 32767, 127
IN_ORDER = ("nsz",)
AS_USUAL = 4  # a rounding of AVX-512's instructions: as the thread's MXCSR says, to the nearest by default


class Emit:
    """LLVM's instructions for vectors of this CPU's width; 8 lanes take a tile in two halves."""

    def __init__(self, builder: Any, *, lanes: int | None = None) -> None:
        self.builder = builder
        self.lanes = lanes or (16 if "avx512_vnni" in hardware.cpu_flags() else 8)
        self.has_vnni, self.is_arm = hardware.has_vnni(), hardware.has_dotprod()
        self.words, self.floats = ir.VectorType(WORD, self.lanes), ir.VectorType(FLOAT, self.lanes)

    def size(self, value: int) -> Any:
        return ir.Constant(SIZE, value)

    def add(self, *values: Any) -> Any:
        return functools.reduce(self.builder.add, values)

    def times(self, value: Any, factor: int) -> Any:
        return self.builder.mul(value, self.size(factor))

    def load(self, address: Any, kind: Any, align: int = 1) -> Any:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def part(self, address: Any, loop: Any) -> Any:
        """The part of a row of float32 that a loop over such parts is at."""
        return self.load(self.add(address, self.times(loop.index, 4 * self.lanes)), self.floats, 4)

    def store(self, value: Any, address: Any, align: int = 4) -> None:
        self.builder.store(value, self.builder.inttoptr(address, value.type.as_pointer()), align=align)

    def all_lanes(self, value: Any) -> Any:
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        one = self.builder.insert_element(nothing, value, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(self.words, [0] * self.lanes))

    def one(self, address: Any, at: Any) -> Any:
        """The float32 of that number there, in all lanes."""
        return self.all_lanes(self.load(self.add(address, self.times(at, 4)), FLOAT, 4))

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

    def nearest(self, values: Any) -> Any:
        """The nearest whole numbers, by one instruction of AVX-512."""
        return self._masked("cvtps2dq", self.words, [values])

    def fraction(self, values: Any) -> Any:
        """What is left of them without the nearest whole numbers, by AVX-512."""
        return self._masked("reduce.ps", self.floats, [values, ir.Constant(WORD, 0)])

    def times_power(self, values: Any, exponents: Any) -> Any:
        """values * 2^exponents, which are whole, by AVX-512."""
        return self._masked("scalef.ps", self.floats, [values, exponents])

    def _masked(self, name: str, kind: Any, arguments: list[Any]) -> Any:
        """One of AVX-512's, of all sixteen lanes."""
        every = ir.Constant(ir.IntType(16), -1)
        return self.called(f"mask.{name}.512", kind, [*arguments, ir.Constant(kind, ir.Undefined), every, ir.Constant(WORD, AS_USUAL)])

    def called(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """An instruction of AVX-512, by LLVM's name for it."""
        return self._call(f"llvm.x86.avx512.{name}", result, arguments)

    def whole(self, values: Any) -> Any:
        """The nearest whole numbers."""
        return self.builder.fptosi(self.rounded(values), self.words)

    def shorts(self, values: Any) -> Any:
        """The nearest whole numbers, of 16 bits."""
        return self.builder.trunc(self.whole(values), ir.VectorType(SHORT, self.lanes))

    def variables(self, *starts: Any) -> list[Any]:
        """Places that begin with these values, each time they are come by."""
        return [cgutils.alloca_once_value(self.builder, start) for start in starts]

    def inverse(self, values: Any, factor: float = 1.0) -> Any:
        """factor / values, of a vector or of one number; 0 of 0."""
        one, zero = (self.number(value) if values.type == self.floats else ir.Constant(FLOAT, value) for value in (factor, 0.0))
        return self.builder.select(self.builder.fcmp_ordered("==", values, zero), zero, self.builder.fdiv(one, values))

    def root(self, values: Any) -> Any:
        return self._call(f"llvm.sqrt.v{self.lanes}f32", self.floats, [values])

    def sum_of(self, words: Any) -> Any:
        return self._call(f"llvm.vector.reduce.add.v{self.lanes}i32", WORD, [words])

    def float_sum(self, values: Any) -> Any:
        """Of all lanes, in any order."""
        return self._call(f"llvm.vector.reduce.fadd.v{self.lanes}f32", FLOAT, [ir.Constant(FLOAT, 0.0), values], fastmath=["reassoc"])

    def product(self, a: Any, b: Any) -> Any:
        """a * b, and of several in the order they are made, whose last bit depends on it: a flag of its own keeps numba's away."""
        return self.builder.fmul(a, b, flags=IN_ORDER)

    def more(self, a: Any, b: Any) -> Any:
        """a + b, in the same way."""
        return self.builder.fadd(a, b, flags=IN_ORDER)

    def less(self, a: Any, b: Any) -> Any:
        """a - b, in the same way."""
        return self.builder.fsub(a, b, flags=IN_ORDER)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c."""
        return self._call(f"llvm.fma.v{self.lanes}f32", self.floats, [a, b, c])

    def dot(self, total: Any, codes: Sequence[Any], inputs: Sequence[Any], *, most: int = 255) -> Any:
        """In each lane the sum of products of unsigned and signed bytes, four a vector, added to `total`. `most`: the largest code.

        Without VNNI, for codes of at most 7 bits: on ARM as bytes with a sign; by AVX2 as many products as cannot pass 16 bits are
        added in these.
        """
        both = list(zip(codes, inputs, strict=True))
        if self.is_arm:
            return functools.reduce(lambda sums, pair: self._signed_products(sums, *pair), both, total)
        if self.has_vnni:
            name = f"llvm.x86.avx512.vpdpbusd.{self.lanes * 32}"
            return functools.reduce(lambda sums, pair: self._call(name, self.words, [sums, *pair]), both, total)
        together = max(1, LARGEST_SHORT // (2 * most * LARGEST_INPUT))  # panels, which hold larger codes, are compiled, but not used
        for start in range(0, len(both), together):
            twos = [self._two_products(*pair) for pair in both[start : start + together]]
            total = self._add_pairs(total, functools.reduce(self.builder.add, twos))
        return total

    def dot_pairs(self, total: Any, a: Any, b: Any) -> Any:
        """In each lane the sum of two products of whole numbers of 16 bits, added to `total`."""
        if self.has_vnni:
            return self._call(f"llvm.x86.avx512.vpdpwssd.{self.lanes * 32}", self.words, [total, a, b])
        if self.is_arm:
            return self.builder.add(total, self._by_parts(self._pairs_on_arm, a, b))
        both = [self.builder.bitcast(value, ir.VectorType(SHORT, 2 * self.lanes)) for value in (a, b)]
        return self.builder.add(total, self._call("llvm.x86.avx2.pmadd.wd", self.words, both))

    def dot_around_zero(self, total: Any, codes: Sequence[Any], inputs: Sequence[Any]) -> Any:
        """The same of codes of 8 bits less 128, without VNNI: by AVX2 the sign of a code goes over to the input."""
        bytes_ = ir.VectorType(BYTE, 4 * self.lanes)
        for code, input_ in zip(codes, inputs, strict=True):
            signed = self.with_sign(code)
            if self.is_arm:
                total = self._signed_products(total, signed, input_)
                continue
            signed = self.builder.bitcast(signed, bytes_)
            size = self._call(f"llvm.abs.v{4 * self.lanes}i8", bytes_, [signed, ir.Constant(ir.IntType(1), 0)])
            turned = self._call("llvm.x86.avx2.psign.b", bytes_, [self.builder.bitcast(input_, bytes_), signed])
            total = self._add_pairs(total, self._two_products(size, turned))
        return total

    def with_sign(self, codes: Any) -> Any:
        """Each byte less 128, as a number with a sign."""
        return self.builder.xor(codes, self.word(HIGHEST_BITS))

    def first_or_both(self, a: Any, b: Any, c: Any) -> Any:
        """a | (b & c), of sixteen lanes, said so that it stays that: LLVM makes a shuffle of halves of words, four times as slow."""
        return self._call("llvm.x86.avx512.pternlog.d.512", self.words, [a, b, c, ir.Constant(WORD, 0xF8)])

    def looked_up(self, table: Any, codes: Any) -> Any:
        """The table's byte (every sixteen of it alike) for each byte of `codes`, which are below 16."""
        bytes_ = ir.VectorType(BYTE, 4 * self.lanes)
        if self.is_arm:
            return self._by_parts(self._looked_up_on_arm, self.builder.bitcast(table, self.words), codes)
        name = "llvm.x86.avx512.pshuf.b.512" if self.lanes == 16 else "llvm.x86.avx2.pshuf.b"
        return self.builder.bitcast(self._call(name, bytes_, [table, self.builder.bitcast(codes, bytes_)]), self.words)

    def _by_parts(self, made: Callable[..., Any], *vectors: Any) -> Any:
        """What `made` makes of each four lanes: ARM's vectors have as many."""
        nothing = ir.Constant(self.words, ir.Undefined)
        parts = []
        for start in range(0, self.lanes, ARM_LANES):
            lanes = ir.Constant(FOUR_WORDS, list(range(start, start + ARM_LANES)))
            parts.append(made(*(self.builder.shuffle_vector(vector, nothing, lanes) for vector in vectors)))
        while len(parts) > 1:
            count = parts[0].type.count
            both = ir.Constant(ir.VectorType(WORD, 2 * count), list(range(2 * count)))
            parts = [self.builder.shuffle_vector(*pair, both) for pair in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def _signed_products(self, total: Any, codes: Any, inputs: Any) -> Any:
        def made(total: Any, *both: Any) -> Any:
            bytes_ = [self.builder.bitcast(value, SIXTEEN_BYTES) for value in both]
            return self._call("llvm.aarch64.neon.sdot.v4i32.v16i8", FOUR_WORDS, [total, *bytes_])

        return self._by_parts(made, total, codes, inputs)

    def _pairs_on_arm(self, a: Any, b: Any) -> Any:
        """Sums of two products of 16 bits each, of four lanes."""
        shorts = [self.builder.bitcast(value, ir.VectorType(SHORT, 2 * ARM_LANES)) for value in (a, b)]
        products = []
        for start in (0, ARM_LANES):
            lanes = ir.Constant(FOUR_WORDS, list(range(start, start + ARM_LANES)))
            half = [self.builder.shuffle_vector(value, value, lanes) for value in shorts]
            products.append(self._call("llvm.aarch64.neon.smull.v4i32", FOUR_WORDS, half))
        return self._call("llvm.aarch64.neon.addp.v4i32", FOUR_WORDS, products)

    def _looked_up_on_arm(self, table: Any, codes: Any) -> Any:
        both = [self.builder.bitcast(value, SIXTEEN_BYTES) for value in (table, codes)]
        return self.builder.bitcast(self._call("llvm.aarch64.neon.tbl1.v16i8", SIXTEEN_BYTES, both), FOUR_WORDS)

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
