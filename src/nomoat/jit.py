"""What numba is told before it compiles anything: where compiled code is kept, and whose threads work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nomoat import paths

CACHE = paths.cache() / "kernels" / "kernel"  # not beside a module, which may not be ours to write to; a name there, for errors
FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums in vectors; numbers that are none stay so

Decorator = Callable[[Callable[..., Any]], Any]
in_llvm: Decorator = intrinsic
inline: Decorator = numba.njit(fastmath=FAST, error_model="numpy")


def configure(layers: Sequence[str]) -> None:
    """`layers`: numba's thread pools, the preferred first. The first that is used stays for as long as the process lives."""
    numba.config.CACHE_DIR = str(CACHE.parent)
    numba.config.THREADING_LAYER_PRIORITY = list(layers)


@in_llvm
def as_float(typing: Any, bits: Any) -> Any:
    """The f32 of these 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.FloatType())


@in_llvm
def as_bits(typing: Any, number: Any) -> Any:
    """The reverse."""
    return types.uint32(types.float32), lambda context, builder, signature, args: builder.bitcast(args[0], ir.IntType(32))


@inline
def exp(x: Any) -> Any:
    """e^x to about 1e-6, without a call, so that loops of it become vectors. Cephes' polynomial."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * r + np.float32(1.3981999507e-3)
    y = y * r + np.float32(8.3334519073e-3)
    y = y * r + np.float32(4.1665795894e-2)
    y = y * r + np.float32(1.6666665459e-1)
    y = y * r + np.float32(5.0000001201e-1)
    y = y * r * r + r + np.float32(1.0)
    return y * as_float(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23))
