"""The work between a layer's matrix products, each one pass over memory: norm, rotation, gate, and the loss with its slope. And what
is made of a matrix in the engine's tiles.

PyTorch has them for CPUs as chains of operations with several passes and copies each (docs/tried/tuning-speed.md). Compiled by numba
at the first use in an installation (half a minute), and kept. Numbers come in and go out in f32 or bf16; all is computed in f32.

Shapes: M tokens, W width, H heads, D head width, R a head's turning part, I hidden width, N tokens with loss, V vocabulary; T tiles,
B blocks of a tile, S bytes of a block.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba import types
from numba.extending import overload

from nomoat import jit, machine_code
from nomoat.engine import chain, elementwise, forked, tiles

numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # the fastest first: docs/tried/tuning-speed.md
kernel: jit.Decorator = numba.njit(parallel=True, cache=True, fastmath=jit.FAST, error_model="numpy")
inlined: jit.Decorator = numba.njit(inline="always", error_model="numpy")
compiled: Callable[..., jit.Decorator] = overload
ONE, THREE = np.float32(1), np.float32(3)
TILE_ROWS, GROUP = tiles.TILE_ROWS, tiles.BLOCKS[tiles.WHOLE_BYTES][0]
CODES_AT = tiles.TILE_BYTES[tiles.WHOLE_BYTES] - TILE_ROWS * GROUP  # behind a float16 of each row
LARGEST_CODE, ZERO_CODE = np.float32(127), np.float32(tiles.ZEROS[tiles.WHOLE_BYTES])
FLOAT16_UNIT, FLOAT16_SHIFT = np.float32(2.0**112), np.uint32(13)  # float16's bits that far up are a float32 that much smaller
FLOAT16_INFINITY = np.uint32(0x7C00)
Bytes = npt.NDArray[np.uint8]
_LOCK, _TORCHS_BEFORE = threading.Lock(), list[int]()  # an entry a training that is under way


def use_threads(count: int, say: Callable[[str], None] | None = None, *, types: Sequence[str] = ()) -> None:
    """The kernels and PyTorch's own operations work on so many threads from now on; they are compiled, if they can be kept, and so
    are the engine's products with tiles of these types.

    Another process compiles them, see `machine_code.compile_elsewhere`. `say` is told before that begins: it takes half a minute, and
    minutes on a slow machine. Raises UsageError in a fork of a process that has run or tuned a model.
    """
    forked.begin()
    set_threads(count)

    def begun(done: int, total: int) -> None:
        if say and done == 0:
            say("compiling for this CPU (once)")

    code = "import sys; from nomoat.tune import kernels; kernels.compile_all(sys.argv[1:])"
    machine_code.compile_elsewhere("-".join(["tuning", *types]), code, *types, progress=begun if say else None)


@contextmanager
def threads_of_the_caller() -> Iterator[None]:
    """Whoever uses PyTorch or numba beside nomoat has as many threads of theirs afterwards as before, whatever is set within.

    PyTorch's number is the process's, numba's the calling thread's: of trainings beside each other the last one gives that back.
    """
    of_numba = numba.get_num_threads()
    with _LOCK:
        _TORCHS_BEFORE.append(_TORCHS_BEFORE[-1] if _TORCHS_BEFORE else torch.get_num_threads())
    try:
        yield
    finally:
        with _LOCK:
            before = _TORCHS_BEFORE.pop()
            if not _TORCHS_BEFORE:
                torch.set_num_threads(before)
        numba.set_num_threads(of_numba)


def set_threads(count: int) -> None:
    """`use_threads`, where all is compiled already."""
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    _begin_no_threads_within_threads()


def _begin_no_threads_within_threads() -> None:
    """numba, once it has threads, lets each thread of OpenMP have some of its own (`omp_set_nested`). Where it finds PyTorch's OpenMP,
    as on Linux, PyTorch's attention then begins some for each of its small products: it took 17 times as long.
    """
    with suppress(AttributeError, TypeError):  # no OpenMP is loaded for all to use; on Windows nothing is
        ctypes.CDLL(None).omp_set_max_active_levels(1)


def compile_all(types: Sequence[str]) -> None:
    """For numbers in f32 and bf16, and tiles of these types: half a minute of a CPU where they are not kept yet. See
    `machine_code.compile_by`."""
    functions = chain.functions(types) if types else []
    functions += [to_floats_of(name) for name in types if name != tiles.WHOLE_BYTES]  # which `_use_tiles` needs
    calls = [functools.partial(getattr, function, "address") for function in functions]
    machine_code.compile_by([*calls, _use_norm, _use_rotation, _use_gate, _use_loss, _use_tiles])


def _use_norm() -> None:
    # of the residual, and of heads with norms of their own
    for kind, dtype in ((torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)):
        x_MW = torch.ones(2, 32, dtype=kind, requires_grad=True)
        rms_norm(x_MW, torch.ones(32), 1e-5, dtype).sum().backward()


def _use_rotation() -> None:
    angles = torch.ones(2, 16)
    for dtype in (torch.float32, torch.bfloat16):
        rotate(torch.ones(2, 1, 32, dtype=dtype, requires_grad=True), angles, angles).sum().backward()


def _use_gate() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        gate(torch.ones(2, 64, dtype=dtype, requires_grad=True), "silu").sum().backward()


def _use_loss() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        cross_entropy(torch.ones(2, 32, dtype=dtype), torch.zeros(2, dtype=torch.int64), 1.0)


def _use_tiles() -> None:
    made = np.empty((2, tiles.TILE_BYTES[tiles.WHOLE_BYTES]), np.uint8)
    fill_tiles(made, np.zeros((2 * TILE_ROWS, GROUP), np.float32))
    transposed([(tiles.WHOLE_BYTES, made)], GROUP)
    for dtype in (torch.float32, torch.bfloat16):
        expanded([(tiles.WHOLE_BYTES, made)], GROUP, dtype)


# -------------------------------------------------------------------- numbers
def load(numbers: Any, at: Any) -> Any:
    """A number as f32; bf16 comes as its 16 bits."""


def store(numbers: Any, at: Any, value: Any) -> Any:
    """The reverse, rounded to the nearest, ties to even."""


@compiled(load, inline="always")
def _load(numbers: Any, at: Any) -> Callable[..., Any]:
    if numbers.dtype == types.uint16:

        def widened(numbers: Any, at: Any) -> Any:
            return jit.as_float(np.uint32(numbers[at]) << np.uint32(16))

        return widened

    def plain(numbers: Any, at: Any) -> Any:
        return numbers[at]

    return plain


@compiled(store, inline="always")
def _store(numbers: Any, at: Any, value: Any) -> Callable[..., Any]:
    if numbers.dtype == types.uint16:

        def rounded(numbers: Any, at: Any, value: Any) -> None:
            bits = jit.as_bits(np.float32(value))
            numbers[at] = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))

        return rounded

    def plain(numbers: Any, at: Any, value: Any) -> None:
        numbers[at] = value

    return plain


def _array(tensor: torch.Tensor) -> Any:
    """The same memory for numba."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


# -------------------------------------------------------------------- norm
@kernel
def _norm_forward(x_MW: Any, weight_W: Any, epsilon: Any, y_MW: Any, scale_M: Any) -> None:
    width = x_MW.shape[1]
    for m in numba.prange(len(x_MW)):
        x, y = x_MW[m], y_MW[m]
        total = np.float32(0)
        for w in range(width):
            value = load(x, w)
            total += value * value
        scale = ONE / np.sqrt(total / np.float32(width) + epsilon)
        scale_M[m] = scale
        for w in range(width):
            store(y, w, load(x, w) * scale * weight_W[w])


@kernel
def _norm_backward(x_MW: Any, weight_W: Any, scale_M: Any, dy_MW: Any, dx_MW: Any) -> None:
    width = x_MW.shape[1]
    for m in numba.prange(len(x_MW)):
        x, dy, dx, scale = x_MW[m], dy_MW[m], dx_MW[m], scale_M[m]
        along = np.float32(0)
        for w in range(width):
            along += load(dy, w) * weight_W[w] * load(x, w)
        along *= scale * scale / np.float32(width)
        for w in range(width):
            store(dx, w, scale * (load(dy, w) * weight_W[w] - along * load(x, w)))


class RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight over the last axis; the result in `dtype`, the gradient in x's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_W: torch.Tensor, epsilon: float, dtype: torch.dtype) -> Any:
        x_MW = x.reshape(-1, x.shape[-1])
        y, scale_M = torch.empty(x.shape, dtype=dtype), torch.empty(len(x_MW))
        _norm_forward(_array(x_MW), _array(weight_W), np.float32(epsilon), _array(y.view(x_MW.shape)), _array(scale_M))
        ctx.save_for_backward(x_MW, weight_W, scale_M)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x_MW, weight_W, scale_M = ctx.saved_tensors
        dx = torch.empty(grads[0].shape, dtype=x_MW.dtype)
        dy_MW = grads[0].reshape(x_MW.shape)
        _norm_backward(_array(x_MW), _array(weight_W), _array(scale_M), _array(dy_MW), _array(dx.view(x_MW.shape)))
        return dx, None, None, None


# -------------------------------------------------------------------- rotation
@kernel
def _rotate(x_MHD: Any, cosine_MR: Any, sine_MR: Any, sign: Any, y_MHD: Any) -> None:
    heads, half, size = x_MHD.shape[1], cosine_MR.shape[1], x_MHD.shape[2]
    for m in numba.prange(len(x_MHD)):
        for h in range(heads):
            x, y = x_MHD[m, h], y_MHD[m, h]
            for r in range(half):
                first, second = load(x, r), load(x, half + r)
                cosine, sine = cosine_MR[m, r], sine_MR[m, r] * sign
                store(y, r, first * cosine - second * sine)
                store(y, half + r, second * cosine + first * sine)
            for d in range(2 * half, size):
                store(y, d, load(x, d))


class Rotate(torch.autograd.Function):
    """The first R of a head's D elements turned by each token's angles (cosine and sine are [M, R / 2]), first half against second."""

    @staticmethod
    def forward(ctx: Any, x_MHD: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> Any:
        ctx.save_for_backward(cosine, sine)
        return Rotate.turned(x_MHD, cosine, sine, 1)

    @staticmethod
    def turned(x_MHD: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor, sign: int) -> torch.Tensor:
        y_MHD = torch.empty(x_MHD.shape, dtype=x_MHD.dtype)
        _rotate(_array(x_MHD), _array(cosine), _array(sine), np.float32(sign), _array(y_MHD))
        return y_MHD

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        cosine, sine = ctx.saved_tensors
        return Rotate.turned(grads[0], cosine, sine, -1), None, None


# -------------------------------------------------------------------- gate
# Both activations in use are x * sigmoid(a x + b x^3): SiLU, and GELU in its form with tanh.
GATES = {"silu": (1.0, 0.0), "gelu_tanh": (elementwise.GELU_LINEAR, elementwise.GELU_CUBIC)}


@kernel
def _gate_forward(both_M2I: Any, a: Any, b: Any, y_MI: Any) -> None:
    hidden = y_MI.shape[1]
    for m in numba.prange(len(y_MI)):
        both, y = both_M2I[m], y_MI[m]
        for i in range(hidden):
            x = load(both, i)
            store(y, i, x / (ONE + jit.exp(-x * (a + b * x * x))) * load(both, hidden + i))


@kernel
def _gate_backward(both_M2I: Any, a: Any, b: Any, dy_MI: Any, dboth_M2I: Any) -> None:
    hidden = dy_MI.shape[1]
    for m in numba.prange(len(dy_MI)):
        both, dy, dboth = both_M2I[m], dy_MI[m], dboth_M2I[m]
        for i in range(hidden):
            x, slope = load(both, i), load(dy, i)
            open_part = ONE / (ONE + jit.exp(-x * (a + b * x * x)))
            store(dboth, i, slope * load(both, hidden + i) * open_part * (ONE + x * (ONE - open_part) * (a + THREE * b * x * x)))
            store(dboth, hidden + i, slope * x * open_part)


class Gate(torch.autograd.Function):
    """activation(first half) * second half, over the last axis, for an activation of GATES."""

    @staticmethod
    def forward(ctx: Any, both_M2I: torch.Tensor, activation: str) -> Any:
        ctx.form = tuple(map(np.float32, GATES[activation]))
        ctx.save_for_backward(both_M2I)
        y_MI = torch.empty(len(both_M2I), both_M2I.shape[1] // 2, dtype=both_M2I.dtype)
        _gate_forward(_array(both_M2I), *ctx.form, _array(y_MI))
        return y_MI

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (both_M2I,) = ctx.saved_tensors
        dboth_M2I = torch.empty(both_M2I.shape, dtype=both_M2I.dtype)
        _gate_backward(_array(both_M2I), *ctx.form, _array(grads[0]), _array(dboth_M2I))
        return dboth_M2I, None


# -------------------------------------------------------------------- loss
@kernel
def _cross_entropy(logits_NV: Any, targets_N: Any, part: Any, losses_N: Any) -> None:
    vocabulary = logits_NV.shape[1]
    for n in numba.prange(len(targets_N)):
        logits, target = logits_NV[n], targets_N[n]
        if target < 0:
            losses_N[n] = 0
            logits[:] = 0
            continue
        top = load(logits, 0)
        for v in range(vocabulary):
            top = max(top, load(logits, v))
        total = np.float32(0)
        for v in range(vocabulary):
            total += jit.exp(load(logits, v) - top)
        below = load(logits, target) - top
        losses_N[n] = np.log(total) - below
        scale = part / total
        for v in range(vocabulary):
            store(logits, v, jit.exp(load(logits, v) - top) * scale)
        store(logits, target, jit.exp(below) * scale - part)


def cross_entropy(logits_NV: torch.Tensor, targets_N: torch.Tensor, part: float) -> torch.Tensor:
    """The loss of each target [N], f32. Over the logits it writes `part` times its slope by them. Targets below 0 have none."""
    losses_N = torch.empty(len(targets_N))
    _cross_entropy(_array(logits_NV), _array(targets_N), np.float32(part), _array(losses_N))
    return losses_N


# -------------------------------------------------------------------- tiles
@inlined
def _round(weights_G: Any, codes_G: Any) -> Any:
    """A group's codes; the bits of the float16 that is its scale."""
    largest = np.uint32(0)
    for at in range(GROUP):
        largest = max(largest, jit.as_bits(abs(weights_G[at])))
    scale = jit.as_float(largest) / LARGEST_CODE
    inverse = ONE / scale if scale > 0 else np.float32(0)
    for at in range(GROUP):
        codes_G[at] = np.uint8(np.int32(np.rint(weights_G[at] * inverse) + ZERO_CODE))
    bits = jit.as_bits(scale / FLOAT16_UNIT)
    bits += np.uint32(0xFFF) + ((bits >> FLOAT16_SHIFT) & np.uint32(1))
    return np.uint16(min(bits >> FLOAT16_SHIFT, FLOAT16_INFINITY))


@kernel
def _tile(weights_RC: Any, words_TBW: Any, scales_TBH: Any) -> None:
    """Into tiles of 8 bits, which are seen as words and as halves of them."""
    for t in numba.prange(len(words_TBW)):
        codes = np.empty(GROUP, np.uint8)
        words = codes.view(np.uint32)
        for b in range(words_TBW.shape[1]):
            for r in range(TILE_ROWS):
                scales_TBH[t, b, r] = _round(weights_RC[t * TILE_ROWS + r, b * GROUP : (b + 1) * GROUP], codes)
                for at in range(GROUP // 4):
                    words_TBW[t, b, CODES_AT // 4 + TILE_ROWS * at + r] = words[at]


@kernel
def _transpose(to_floats: Any, group: Any, block: Any, tiles_TS: Any, first: Any, words_BTW: Any, scales_BTH: Any) -> None:
    """The same of what is in tiles of any type: 32 rows of a block of columns at a time.

    `to_floats`: address of what reads groups of so many codes. `first`: how many times 32 rows stand above these.
    """
    address, tile_bytes, groups = np.int64(tiles_TS.ctypes.data), tiles_TS.shape[1], block // group
    for b in numba.prange(len(words_BTW) * TILE_ROWS // block):
        square_CR, codes = np.empty((block, GROUP), np.float32), np.empty(GROUP, np.uint8)
        words, floats, start = codes.view(np.uint32), np.int64(square_CR.ctypes.data), np.int64(b) * groups
        for t in range(len(tiles_TS)):
            tile, half = address + np.int64(t) * tile_bytes, np.int64(t) % 2
            jit.call_with_5(to_floats, tile, start, groups, floats + half * 4 * TILE_ROWS, 4 * GROUP)
            if half == 0:
                continue
            for c in range(block):
                tile, lane = (b * block + c) // TILE_ROWS, c % TILE_ROWS
                scales_BTH[tile, first + t // 2, lane] = _round(square_CR[c], codes)
                for at in range(GROUP // 4):
                    words_BTW[tile, first + t // 2, CODES_AT // 4 + TILE_ROWS * at + lane] = words[at]


@kernel
def _expand(to_floats: Any, group: Any, block: Any, tiles_TS: Any, weights_RC: Any) -> None:
    """The weights in tiles of any type; for `to_floats` see `_transpose`."""
    address, tile_bytes, groups = np.int64(tiles_TS.ctypes.data), tiles_TS.shape[1], block // group
    for t in numba.prange(len(tiles_TS)):
        floats_CR = np.empty((block, TILE_ROWS), np.float32)
        place, tile = np.int64(floats_CR.ctypes.data), address + np.int64(t) * tile_bytes
        for b in range(weights_RC.shape[1] // block):
            jit.call_with_5(to_floats, tile, np.int64(b) * groups, groups, place, 4 * TILE_ROWS)
            for r in range(TILE_ROWS):
                weights = weights_RC[t * TILE_ROWS + r]
                for c in range(block):
                    store(weights, b * block + c, floats_CR[c, r])


def fill_tiles(tiles_TS: Bytes, weights_RC: npt.NDArray[np.float32]) -> None:
    """Weights in 8 bits with a scale for each 32 of a row (Q8_0), into the engine's tiles; rows and columns are multiples of 32.

    In one pass what `weights.whole_bytes` and `tiles.tiled` do in ten times as long. Raises ValueError for what is no number.
    """
    tiles_TBS = tiles_TS.reshape(len(tiles_TS), -1, tiles.TILE_BYTES[tiles.WHOLE_BYTES])
    scales_TBH = tiles_TBS.view(np.float16)
    _tile(np.ascontiguousarray(weights_RC), tiles_TBS.view(np.uint32), scales_TBH.view(np.uint16))
    if not np.isfinite(scales_TBH[:, :, :TILE_ROWS]).all():
        raise ValueError("weights that are no numbers")


def expanded(parts: Sequence[tuple[str, Bytes]], columns: int, dtype: torch.dtype) -> torch.Tensor:
    """A matrix of so many columns, whose parts below each other are tiles [T, S] of a type each."""
    weights_RC = torch.empty(TILE_ROWS * sum(len(tiles_TS) for _, tiles_TS in parts), columns, dtype=dtype)
    rows = _array(weights_RC)
    for type_name, tiles_TS in parts:
        count = TILE_ROWS * len(tiles_TS)
        _expand(to_floats_of(type_name).address, tiles.GROUP_CODES[type_name], tiles.BLOCKS[type_name][0], tiles_TS, rows[:count])
        rows = rows[count:]
    return weights_RC


def transposed(parts: Sequence[tuple[str, Bytes]], columns: int) -> Bytes:
    """The transpose of a matrix of so many columns, whose parts below each other are tiles [T, S] of a type each; in tiles of 8 bits.

    Its scales are of 32 rows each, so its weights are rounded, also those that were of 8 bits.
    """
    rows, first = TILE_ROWS * sum(len(tiles_TS) for _, tiles_TS in parts), 0
    made = np.empty((columns // TILE_ROWS, rows // GROUP, tiles.TILE_BYTES[tiles.WHOLE_BYTES]), np.uint8)
    for type_name, tiles_TS in parts:
        to_floats, block = to_floats_of(type_name).address, tiles.BLOCKS[type_name][0]
        _transpose(to_floats, tiles.GROUP_CODES[type_name], block, tiles_TS, first, made.view(np.uint32), made.view(np.uint16))
        first += len(tiles_TS) * TILE_ROWS // GROUP
    return made


@functools.cache
def to_floats_of(type_name: str) -> machine_code.Compiled:
    """What makes a tile's codes of this type f32."""
    return machine_code.Compiled("engine.codes", "to_floats", 5, kind=type_name)


rms_norm: Callable[..., torch.Tensor] = RMSNorm.apply
rotate: Callable[..., torch.Tensor] = Rotate.apply
gate: Callable[..., torch.Tensor] = Gate.apply
