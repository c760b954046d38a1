"""Forms in which a matrix is stored, and the graph nodes that expand it: int8 or 4-bit codes times scales.

OpenVINO computes on the codes themselves where it finds `Convert(codes) [- Convert(zero)] * scale` before a product; it never holds
the expanded matrix. Zero points have to be whole numbers: with others it falls to a third of its speed.

Other codes are those of `tiles`, in the order of nomoat's own products.

Shapes: R rows (outputs), C columns (inputs), G groups of a row, S columns of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nomoat.engine.gguf import FloatArray

LARGEST_CODE = 127
# float16 cannot hold the scale of an all-zero row
SMALLEST_MAXIMUM = 1e-4

Arrays = tuple[npt.NDArray[Any], ...]
Node = Any


@dataclass(frozen=True, slots=True)
class Form:
    """How a matrix is stored. `group`: inputs that share a scale; 0 is the whole row."""

    kind: Literal["float32", "int8", "uint4", "tiles", "tiles8"]
    group: int = 0

    def __str__(self) -> str:
        if self.group:
            return f"{self.kind} in groups of {self.group}"
        names = {"float32": "float32", "tiles": "the file's own codes", "tiles8": "8 bits in groups of 32"}
        return names.get(self.kind, f"{self.kind} rows")

    @property
    def is_tiled(self) -> bool:
        """Whether nomoat's own products multiply by it."""
        return self.kind in ("tiles", "tiles8")

    def bytes_of(self, rows: int, columns: int) -> int:
        """What a matrix takes. Not for tiles, which depend on the file's type."""
        groups = rows * (columns // self.group if self.group else 1)
        per_weight = {"float32": 4.0, "int8": 1.0, "uint4": 0.5}[self.kind]
        per_group = {"float32": 0.0, "int8": 2.0, "uint4": 2.5}[self.kind]
        return int(rows * columns * per_weight + groups * per_group)


def whole_bytes(weights_RC: FloatArray) -> npt.NDArray[np.uint8]:
    """Rows in 8 bits with a float16 scale for each 32, as a GGUF file has them (Q8_0). Raises ValueError for what is no number."""
    lanes = weights_RC.reshape(len(weights_RC), -1, 32)
    scales = np.abs(lanes).max(axis=-1, keepdims=True) / 127
    with np.errstate(all="ignore"):  # what comes of damage is looked for by who takes the scales
        inverse = np.where(scales > 0, 1 / scales, 0)
        codes = np.rint(lanes * inverse).astype(np.int8)
    blocks = np.concatenate([scales.astype(np.float16).view(np.uint8), codes.view(np.uint8)], axis=-1)
    return blocks.reshape(len(weights_RC), -1)


def quantised(weights_RC: FloatArray, form: Form) -> Arrays:
    """Arrays that `expanded` makes a node of, a part of the rows at a time. Not for tiles."""
    if form.kind == "float32":
        return (weights_RC,)
    rows, columns = weights_RC.shape
    lanes = weights_RC.reshape(rows, -1, form.group or columns)
    if form.kind == "int8":
        largest = np.abs(lanes).max(axis=2, keepdims=True)
        scales = (np.maximum(largest, SMALLEST_MAXIMUM) / LARGEST_CODE).astype(np.float16)
        codes = np.rint(lanes * (1 / scales.astype(np.float32)))
        return np.clip(codes, -LARGEST_CODE, LARGEST_CODE).astype(np.int8), scales
    low = np.minimum(lanes.min(axis=2, keepdims=True), 0)  # the zero point is one of the codes, so the range has to hold 0
    high = np.maximum(lanes.max(axis=2, keepdims=True), 0)
    scales = (np.maximum(high - low, SMALLEST_MAXIMUM) / 15).astype(np.float16)
    inverse = 1 / scales.astype(np.float32)
    zeros = np.clip(np.rint(-low * inverse), 0, 15)
    codes = np.clip(np.rint(lanes * inverse + zeros), 0, 15).astype(np.uint8)
    return _packed(codes), scales, zeros.astype(np.uint8)


def restored(arrays: Arrays, form: Form) -> FloatArray:
    """The weights [R, C] that float32 or int8 arrays stand for."""
    if form.kind == "float32":
        return np.asarray(arrays[0], np.float32)
    codes, scales = arrays
    return np.asarray((codes * scales.astype(np.float32)).reshape(len(codes), -1), np.float32)


def expanded(arrays: Sequence[npt.NDArray[Any]], form: Form) -> Node:
    """A matrix [R, C] in float32. The nodes of codes share the memory of `arrays`: keep them."""
    from openvino import opset13 as op

    if form.kind == "float32":
        return op.constant(arrays[0])  # a copy: this model may outlive whoever built it
    codes, scales = arrays[:2]
    rows, groups = scales.shape[:2]
    lane = [rows, groups, 1] if groups > 1 else [rows, 1]
    if form.kind == "int8":
        node = op.convert(op.constant(codes.reshape(*lane[:-1], -1), shared_memory=True), "f16")
    else:
        node = op.convert(_uint4(codes, [*lane[:-1], codes.shape[-1] * 2]), "f16")
        flat = arrays[2].reshape(-1)
        zeros = _packed(np.append(flat, flat[:1]) if flat.size % 2 else flat)
        node = op.subtract(node, op.convert(_uint4(zeros, lane, shared=False), "f16"))
    node = op.multiply(node, op.constant(scales.reshape(lane), shared_memory=True))
    if groups > 1:
        node = op.reshape(node, np.array([rows, -1], np.int64), False)
    return op.convert(node, "f32")


def _uint4(packed: npt.NDArray[np.uint8], shape: list[int], *, shared: bool = True) -> Node:
    import openvino as ov

    return ov.op.Constant(ov.Tensor(packed, ov.Shape(shape), ov.Type.u4), shared_memory=shared)


def _packed(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two a byte, the first in the low half."""
    return np.ascontiguousarray(codes[..., 0::2] | (codes[..., 1::2] << 4))
