"""Products with a file's own 4- and 6-bit codes: y = x W^T, computed on the codes as `tiles` has them.

Inputs are rounded to 8 bits with a scale for each 32, products summed as whole numbers over a group of a tile's codes (32, 16 of
Q6_K), and a group's sum is scaled in float32: so a weight is what the file says. OpenVINO 2026.4 reads groups of 32 at half the
speed (docs/log.md). Compiled by numba for this CPU at the first use, once a machine.

Shapes: M texts' tokens, R rows (outputs), C columns (inputs), G groups of a row.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from nomoat import config, hardware, jit, paths
from nomoat.engine.team import JOB, THREADS, TICKET, Team
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS

TOKENS_AT_ONCE = (12, 8, 4, 2, 1, 0)  # whose sums stay in registers while a tile is read; the next larger for other numbers
BYTE, WORD, SIZE = ir.IntType(8), ir.IntType(32), ir.IntType(64)
FLOAT, HALF = ir.FloatType(), ir.HalfType()
ROUNDED, HALF_ROUNDED = 32, 16  # inputs that share a scale, and that are summed
CACHE_LINE, AHEAD = 64, 2048  # bytes; how far before it is used a tile is asked for
LOW_HALVES, BITS_4_AND_5 = 0x0F0F0F0F, 0x30303030
KINDS = ("add", "norm", "gated", "out")
ADD, NORM, GATED, OUT = range(len(KINDS))
KIND, TYPE, ROWS, COLUMNS, TILES, TILE_SIZE, VECTOR = range(7)  # columns of a table of steps
INPUTS, SCALES, TOTALS, SUMS, RESULT, GATE = range(6)  # places of memory
STATE, STEPS, NUM_STEPS, ROOM, SEEN, RESIDUAL, OUTPUTS, TOKENS, WIDTH, EPSILON = range(10)  # numbers of a job
SPINS = 20_000  # how often a thread looks for the next job before it sleeps: some tenths of a millisecond
TOKENS_A_PART = 256  # of a prompt, whose intermediate results stay in a CPU's caches
kernel: jit.Decorator = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=jit.FAST)


class _Emit:
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

    def numbers(self, address: Any, kind: Any) -> Any:
        """A number of each lane's row, as float32."""
        found = self.load(address, ir.VectorType(kind, self.lanes))
        return self.builder.fpext(found, self.floats)

    def small_numbers(self, address: Any, *, signed: bool) -> Any:
        """The same of a number that is a byte."""
        found = self.load(address, ir.VectorType(BYTE, self.lanes))
        return self.builder.sitofp(found, self.floats) if signed else self.builder.uitofp(found, self.floats)

    def largest(self, values: Sequence[Any]) -> Any:
        """The largest number without its sign: the bits of such numbers are in the same order."""
        bits = [self.builder.and_(self.builder.bitcast(value, self.words), self.word(0x7FFFFFFF)) for value in values]
        most = functools.reduce(lambda a, b: self.builder.select(self.builder.icmp_unsigned(">", a, b), a, b), bits)
        return self.builder.bitcast(self._call(f"llvm.vector.reduce.umax.v{self.lanes}i32", WORD, [most]), FLOAT)

    def whole(self, values: Any) -> Any:
        """The nearest whole numbers."""
        return self.builder.fptosi(self._call(f"llvm.rint.v{self.lanes}f32", self.floats, [values]), self.words)

    def sum_of(self, words: Any) -> Any:
        return self._call(f"llvm.vector.reduce.add.v{self.lanes}i32", WORD, [words])

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c."""
        return self._call(f"llvm.fma.v{self.lanes}f32", self.floats, [a, b, c])

    def dot(self, total: Any, codes: Any, inputs: Any) -> Any:
        """In each lane the sum of four products of an unsigned and a signed byte, added to `total`."""
        if self.has_vnni:
            return self._call(f"llvm.x86.avx512.vpdpbusd.{self.lanes * 32}", self.words, [total, codes, inputs])
        bytes_, pairs = ir.VectorType(BYTE, 32), ir.VectorType(ir.IntType(16), 16)
        as_bytes = [self.builder.bitcast(value, bytes_) for value in (codes, inputs)]
        two = self._call("llvm.x86.avx2.pmadd.ub.sw", pairs, as_bytes)  # codes have 6 bits at most: nothing saturates
        four = self._call("llvm.x86.avx2.pmadd.wd", self.words, [two, ir.Constant(pairs, [1] * 16)])
        return self.builder.add(total, four)

    def _call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), arguments)

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
def _q4_0(emit: _Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q4_0"]))
    return _nibbles(emit, emit.add(block, emit.size(32)), 4, half), emit.numbers(emit.add(block, emit.size(half * 16)), HALF), -8


def _q4_1(emit: _Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    block = emit.add(tile, emit.times(group, TILE_BYTES["Q4_1"]))
    scale, offset = (emit.numbers(emit.add(block, emit.size(at + half * 16)), HALF) for at in (0, 32))
    return _nibbles(emit, emit.add(block, emit.size(64)), 4, half), scale, offset


def _q4_k(emit: _Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
    builder = emit.builder
    block = emit.add(tile, emit.times(builder.lshr(group, emit.size(3)), TILE_BYTES["Q4_K"]))
    within = builder.and_(group, emit.size(7))
    small = emit.add(block, emit.times(within, 32), emit.size(64 + half * 8))
    scale, minimum = (emit.numbers(emit.add(block, emit.size(at + half * 16)), HALF) for at in (0, 32))
    scale = builder.fmul(scale, emit.small_numbers(small, signed=False))
    minimum = builder.fmul(minimum, emit.small_numbers(emit.add(small, emit.size(16)), signed=False))
    codes = emit.add(block, emit.times(within, 256), emit.size(64 + 256))
    return _nibbles(emit, codes, 4, half), scale, builder.fneg(minimum)


def _q6_k(emit: _Emit, tile: Any, group: Any, half: int) -> tuple[list[Any], Any, Any]:
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


def _nibbles(emit: _Emit, address: Any, count: int, half: int) -> list[Any]:
    found, mask = [], emit.word(LOW_HALVES)
    for at in range(count):
        both = emit.load(emit.add(address, emit.size(64 * at + 32 * half)), emit.words)
        found += [emit.builder.and_(both, mask), emit.builder.and_(emit.builder.lshr(both, emit.word(4)), mask)]
    return found


GROUPS = {"Q4_0": (32, _q4_0), "Q4_1": (32, _q4_1), "Q4_K": (32, _q4_k), "Q6_K": (16, _q6_k)}


def _sums(emit: _Emit, kind: str, count: int, half: int, places: dict[str, Any]) -> None:
    """The products of one tile (or half of it) and `count` tokens, written where they belong."""
    builder, (width, read) = emit.builder, GROUPS[kind]
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
            first = emit.word(0)
            if isinstance(offset, int):
                halves = emit.times(rounded, 2 * token)
                place = emit.add(halves, emit.times(at, width // HALF_ROUNDED))
                whole_sum = emit.load(emit.add(places["sums"], emit.times(place, 4)), WORD, 4)
                if width == ROUNDED:
                    other = emit.load(emit.add(places["sums"], emit.times(place, 4), emit.size(4)), WORD, 4)
                    whole_sum = builder.add(whole_sum, other)
                first = emit.all_lanes(builder.mul(whole_sum, ir.Constant(WORD, offset)))
            dots = first
            for four, code in enumerate(codes):
                dots = emit.dot(dots, code, emit.all_lanes(emit.load(emit.add(inputs, emit.size(4 * four)), WORD)))
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
    width, _ = GROUPS[kind]

    @jit.in_llvm
    def tile(
        typing: Any, tile: Any, inputs: Any, scales: Any, totals: Any, sums: Any, outputs: Any, tokens: Any, columns: Any, rows: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            emit = _Emit(builder)
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


_q4_0_tile, _q4_1_tile, _q4_k_tile, _q6_k_tile = _tile("Q4_0"), _tile("Q4_1"), _tile("Q4_K"), _tile("Q6_K")


@jit.in_llvm
def _round(typing: Any, inputs: Any, rounded: Any, scales: Any, totals: Any, sums: Any, groups: Any) -> Any:
    """A token's inputs in 8 bits; of each 32 their scale, and the sum of the rounded ones times it; of each 16 the sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit = _Emit(builder, lanes=HALF_ROUNDED)
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


@jit.in_llvm
def _pointer(typing: Any, address: Any) -> Any:
    kind = types.CPointer(types.float32)
    return kind(types.intp), lambda context, builder, signature, args: builder.inttoptr(args[0], context.get_value_type(kind))


@jit.in_llvm
def _long_pointer(typing: Any, address: Any) -> Any:
    kind = types.CPointer(types.int64)
    return kind(types.intp), lambda context, builder, signature, args: builder.inttoptr(args[0], context.get_value_type(kind))


@kernel
def _longs(address: Any, count: Any) -> Any:
    return numba.carray(_long_pointer(address), (count,))


@kernel
def _floats(address: Any, count: Any) -> Any:
    return numba.carray(_pointer(address), (count,))


# Every step is done by all threads at once, each with its share: of a tile's rows of the result, or of the tokens
@kernel
def _multiply(step: Any, room: Any, y: Any, tokens: Any, me: Any, threads: Any) -> None:
    columns, rows, size = step[COLUMNS], step[ROWS], step[TILE_SIZE]
    inputs, scales, totals, sums = room[INPUTS], room[SCALES], room[TOTALS], room[SUMS]
    count = rows // TILE_ROWS
    for t in range(count * me // threads, count * (me + 1) // threads):
        tile, here = step[TILES] + t * size, y + t * 4 * TILE_ROWS
        if step[TYPE] == 0:
            _q4_0_tile(tile, inputs, scales, totals, sums, here, tokens, columns, rows)
        elif step[TYPE] == 1:
            _q4_1_tile(tile, inputs, scales, totals, sums, here, tokens, columns, rows)
        elif step[TYPE] == 2:
            _q4_k_tile(tile, inputs, scales, totals, sums, here, tokens, columns, rows)
        else:
            _q6_k_tile(tile, inputs, scales, totals, sums, here, tokens, columns, rows)


@kernel
def _round_one(x: Any, room: Any, m: Any, columns: Any) -> None:
    n = m * columns
    _round(x, room[INPUTS] + n, room[SCALES] + n // 8, room[TOTALS] + n // 8, room[SUMS] + n // 4, columns // ROUNDED)


@kernel
def _norm(x: Any, weight: Any, epsilon: Any, y: Any, columns: Any) -> None:
    x_C, weight_C, y_C = _floats(x, columns), _floats(weight, columns), _floats(y, columns)
    total = np.float32(0)
    for c in range(columns):
        total += x_C[c] * x_C[c]
    scale = np.float32(1) / np.sqrt(total / np.float32(columns) + epsilon)
    for c in range(columns):
        y_C[c] = x_C[c] * scale * weight_C[c]


@kernel
def _gate(both: Any, y: Any, hidden: Any) -> None:
    gate_H, up_H, y_H = _floats(both, hidden), _floats(both + 4 * hidden, hidden), _floats(y, hidden)
    for h in range(hidden):
        y_H[h] = gate_H[h] / (np.float32(1) + jit.exp(-gate_H[h])) * up_H[h]


@kernel
def _add(x: Any, y: Any, columns: Any) -> None:
    """y += x."""
    x_C, y_C = _floats(x, columns), _floats(y, columns)
    for c in range(columns):
        y_C[c] += x_C[c]


@kernel
def _part(steps: Any, job: Any, first: Any, tokens: Any, threads: Any, me: Any) -> None:
    """All steps for some tokens, one thread's share.

    Rows of a result are ready when all threads are; then each token is the share of one thread until the next product.
    """
    state, room, outputs, width = job[STATE], _longs(job[ROOM], GATE + 1), _longs(job[OUTPUTS], len(steps)), job[WIDTH]
    epsilon = jit.as_float(np.uint32(job[EPSILON]))
    residual = job[RESIDUAL] + 4 * first * width
    columns = steps[0, COLUMNS]
    if job[SEEN]:
        for m in range(me, tokens, threads):
            _round_one(job[SEEN] + 4 * (first + m) * columns, room, m, columns)
        jit.meet(state, threads)
    at = 0
    for number in range(len(steps)):
        step = steps[number]
        rows = step[ROWS]
        if step[KIND] == NORM:
            for m in range(me, tokens, threads):
                y = room[RESULT] + 4 * m * width
                _norm(residual + 4 * m * width, step[VECTOR], epsilon, y, width)
                _round_one(y, room, m, width)
            jit.meet(state, threads)
            continue
        y = room[RESULT]
        if step[KIND] == OUT:
            y = outputs[at] + 4 * first * rows
            at += 1
        _multiply(step, room, y, tokens, me, threads)
        jit.meet(state, threads)
        for m in range(me, tokens, threads):
            here = y + 4 * m * rows
            if step[VECTOR]:
                _add(step[VECTOR], here, rows)
            if step[KIND] == ADD:
                _add(here, residual + 4 * m * width, width)
            elif step[KIND] == GATED:
                gated = room[GATE] + 2 * m * rows
                _gate(here, gated, rows // 2)
                _round_one(gated, room, m, rows // 2)
        if step[KIND] == GATED:
            jit.meet(state, threads)


@kernel
def _share(state: Any, me: Any) -> None:
    """A job, one thread's share."""
    job = state[JOB:]
    steps = _longs(job[STEPS], job[NUM_STEPS] * (VECTOR + 1)).reshape(job[NUM_STEPS], VECTOR + 1)
    for first in range(0, job[TOKENS], TOKENS_A_PART):
        _part(steps, job, first, min(TOKENS_A_PART, job[TOKENS] - first), state[THREADS], me)
    jit.meet(job[STATE], state[THREADS])


@kernel
def _serve(state: Any, me: Any, done: Any) -> Any:
    """See `team.Team`."""
    address = state.ctypes.data
    spins = 0
    while spins < SPINS:
        if jit.load_atomic(address + 8 * TICKET) == done:
            spins = jit.wait_a_moment(spins)
        else:
            done += 1
            _share(state, me)
            spins = 0
    return done


_one_at_a_time = threading.Lock()  # there is one team, and one memory
_memory: dict[str, tuple[Any, int]] = {}


@functools.cache
def _team() -> Team:
    return Team(config.threads().value, _serve)


def prepare() -> None:
    """Compile what is not compiled yet: seconds, once a machine. Raises NotEnoughDiskError, NotWritableError."""
    with paths.translate_disk_errors(jit.CACHE):
        x, y = np.zeros(256, np.float32), np.zeros(TILE_ROWS, np.float32)
        weights = np.zeros(TILE_BYTES["Q4_K"], np.uint8)
        Program([("out", "Q4_K", TILE_ROWS, 0, -1)], weights.ctypes.data, len(x)).run(x.ctypes.data, 0, [y.ctypes.data], tokens=1)


def _room(columns: int, results: int) -> Any:
    """Addresses of memory for a part of a prompt, kept for the next call; a few tokens more may be read, if not used."""
    tokens = TOKENS_A_PART + TOKENS_AT_ONCE[0]
    sizes = (columns, columns // 8, columns // 8, columns // 4, 4 * results, 2 * results)
    found = []
    for name, size in zip(("inputs", "scales", "totals", "sums", "result", "gate"), sizes, strict=True):
        if name not in _memory or len(_memory[name][0]) < tokens * size:
            made = np.zeros(tokens * size, np.uint8)
            _memory[name] = made, made.ctypes.data
        found.append(_memory[name][1])
    return np.array(found, np.int64)


class Program:
    """Steps from some inputs to some outputs; see `product.BetweenAttentions` for what they are."""

    def __init__(self, steps: Sequence[Sequence[Any]], address: int, columns: int) -> None:
        """`address`: where the weights lie. `columns`: of the first input, be it what attention gave or the residual."""
        table = np.zeros((len(steps), VECTOR + 1), np.int64)
        for number, (kind, type_name, rows, place, vector) in enumerate(steps):
            table[number, KIND] = KINDS.index(kind)
            table[number, VECTOR] = 0 if vector < 0 else address + vector
            table[number, ROWS] = rows
            if kind == "norm":
                columns = rows
                continue
            table[number, TYPE] = tuple(BLOCKS).index(type_name)
            table[number, TILES] = address + place
            table[number, TILE_SIZE] = columns // BLOCKS[type_name][0] * TILE_BYTES[type_name]
            table[number, COLUMNS] = columns
            if kind == "gated":
                columns = rows // 2
        self._steps = table
        self._sizes = int(table[:, COLUMNS].max()), int(table[table[:, KIND] != OUT, ROWS].max(initial=0))

    def run(self, seen: int, residual: int, outputs: Sequence[int], *, tokens: int, width: int = 0, epsilon: float = 0.0) -> None:
        """Change the residual [M, W] and write the outputs. All are addresses of float32 in rows; `seen` and `residual` may be 0."""
        team = _team()
        places = np.array([*outputs, *[0] * (len(self._steps) - len(outputs))], np.int64)
        with _one_at_a_time:
            room = _room(*self._sizes)
            team.state[JOB:] = 0
            team.state[JOB : JOB + EPSILON + 1] = (
                team.state.ctypes.data, self._steps.ctypes.data, len(self._steps), room.ctypes.data, seen, residual,
                places.ctypes.data, tokens, width, int(np.float32(epsilon).view(np.uint32)),
            )  # fmt: skip
            team.announce()
            _share(team.state, 0)
