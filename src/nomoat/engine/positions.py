"""Where a token stands, as attention is told: rotation, ALiBi, and the masks of what a token sees.

For passes over several texts (`paged`) OpenVINO replaces attention by its PagedAttention, which takes no mask: it finds windows and
ALiBi slopes by the very operations that make the mask, and silently drops any other mask. So these are built as it expects them.
Source: state_management_pattern.cpp of OpenVINO 2026.

Shapes: B batch, T new tokens, K tokens seen (cached and new), H heads, D head width, R width of a head's turning part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import opset13 as op

from nomoat.engine.arch import Architecture, Dimensions, Sight
from nomoat.engine.source import ModelSource
from nomoat.errors import BadFileError

MASKED = np.float32(-65504)
# What every mask is made of: `likelihood` finds these by name and puts a tree's places and sight in their stead.
KEYS, QUERIES, SEEN = "mask.keys", "mask.queries", "mask.seen"  # [K], [1, 1, T, 1], [B, 1, 1, K]
END = np.iinfo(np.int64).max
Node = Any


def i64(*values: int) -> Node:
    """A constant vector."""
    return op.constant(np.array(values, np.int64))


def size(node: Node, axis: int) -> Node:
    """One of a node's dimensions, as a scalar."""
    return op.gather(op.shape_of(node), op.constant(np.int64(axis)), op.constant(np.int64(0)))


def row_order(arch: Architecture, sizes: Dimensions, layer: str) -> npt.NDArray[np.intp] | None:
    """Where each row of q or k lies in the file, for families whose files pair neighbours; None where rows lie in order."""
    both = sizes.heads + sizes.kv_heads
    heads = {"q_proj": sizes.heads, "k_proj": sizes.kv_heads, "qkv_proj": both}.get(layer.rpartition(".")[2])
    if arch.positions != "rope" or arch.rope_pairs == "halves" or heads is None:
        return None
    rotary = sizes.rotary_dim or sizes.head_dim
    head = np.concatenate([np.arange(0, rotary, 2), np.arange(1, rotary, 2), np.arange(rotary, sizes.head_dim)])
    order = np.asarray(np.arange(heads)[:, None] * sizes.head_dim + head, np.intp).reshape(-1)
    if heads != both or not layer.endswith("qkv_proj"):
        return order
    return np.concatenate([order, np.arange(len(order), len(order) + sizes.kv_heads * sizes.head_dim)])  # values do not turn


def rotation(file: ModelSource, sizes: Dimensions, sight: Sight) -> tuple[npt.NDArray[np.float64], float]:
    """Radians a token for each pair of a head's turning part, [R / 2], and what cosine and sine are multiplied by.

    Windowed layers have a base of their own, where the family has one, and then no scaling.
    """
    if not sight.turns:
        return np.zeros((sizes.rotary_dim or sizes.head_dim) // 2), 1.0
    if sight.local and sizes.local_rope_base is not None:
        sizes = replace(sizes, rope_base=sizes.local_rope_base, rope_scale=1.0, yarn_tokens=None, rope_magnitude=1.0)
    return _inverse_frequencies(file, sizes), sizes.rope_magnitude


def _inverse_frequencies(file: ModelSource, sizes: Dimensions) -> npt.NDArray[np.float64]:
    rotary = sizes.rotary_dim or sizes.head_dim
    inverse = 1 / sizes.rope_base ** (np.arange(0, rotary, 2, dtype=np.float64) / rotary)
    inverse *= _yarn(sizes, len(inverse)) if sizes.yarn_tokens else 1 / sizes.rope_scale
    for name in ("rope_freqs.weight", f"rope_factors_{'long' if sizes.long_factors else 'short'}.weight"):
        if name in file.tensors:
            factors = file.rows(name)
            if factors.shape != inverse.shape or not (factors > 0).all():
                raise BadFileError(f"`{file.path}`: `{name}` has no factor for each of {len(inverse)} pairs", hint="download it again")
            return np.asarray(inverse / factors)
    return inverse


def _yarn(sizes: Dimensions, pairs: int) -> npt.NDArray[np.float64]:
    """1 for pairs that turn fast, 1 / scale for slow ones, parts of both between. Source: Peng et al. 2023, arXiv:2309.00071."""
    assert sizes.yarn_tokens is not None
    fast, slow = (
        pairs * math.log(sizes.yarn_tokens / (turns * 2 * math.pi)) / math.log(sizes.rope_base) for turns in sizes.yarn_turns
    )
    if sizes.yarn_truncates:
        fast, slow = math.floor(fast), math.ceil(slow)
    first, last = max(fast, 0), min(slow, 2 * pairs - 1)
    slowness = np.clip((np.arange(pairs) - first) / max(last - first, 0.001), 0, 1)
    return np.asarray(1 - slowness + slowness / sizes.rope_scale)


def rope_tables(inverse: npt.NDArray[np.float64], magnitude: float, position_ids: Node) -> tuple[Node, Node]:
    """Cosine and sine of every position's angles, [B, 1, T, R]. See `rotation`."""
    positions = op.convert(op.unsqueeze(position_ids, i64(1)), "f32")
    frequencies = op.constant(inverse.astype(np.float32).reshape(1, -1, 1))
    angles = op.transpose(op.matmul(frequencies, positions, False, False), i64(0, 2, 1))
    angles = op.concat([angles, angles], -1)

    def table(values: Node) -> Node:
        return op.unsqueeze(values if magnitude == 1 else op.multiply(values, np.float32(magnitude)), i64(1))

    return table(op.cos(angles)), table(op.sin(angles))


def rotate(x_BHTD: Node, tables: tuple[Node, Node], sizes: Dimensions) -> Node:
    """The first R of D elements turned, first half against second; the rest as they are."""
    rotary = sizes.rotary_dim or sizes.head_dim

    def part(start: int, stop: int) -> Node:
        return op.slice(x_BHTD, i64(start), i64(stop), i64(1), i64(3))

    whole = rotary == sizes.head_dim
    x = x_BHTD if whole else part(0, rotary)
    turned = op.concat([op.multiply(part(rotary // 2, END if whole else rotary), np.float32(-1)), part(0, rotary // 2)], -1)
    y = op.add(op.multiply(x, tables[0]), op.multiply(turned, tables[1]))
    return y if whole else op.concat([y, part(rotary, END)], -1)


def alibi_slopes(heads: int, max_bias: float) -> npt.NDArray[np.float32]:
    """What each head adds to a score for a token's distance, [H]. Source: Press et al. 2021, arXiv:2108.12409."""
    whole = 2 ** int(np.log2(heads))  # for other numbers of heads, every second slope of twice as many
    slopes = 2.0 ** (-max_bias * np.arange(1, whole + 1) / whole)
    between = 2.0 ** (-max_bias * np.arange(1, 2 * (heads - whole), 2) / (2 * whole))
    return np.concatenate([slopes, between]).astype(np.float32)


class Masks:
    """What is added to the scores of attention: 0 for what a token sees, MASKED for what it does not."""

    def __init__(self, inputs: Mapping[str, Node], past_BHPD: Node) -> None:
        before, now = size(past_BHPD, 2), size(inputs["input_ids"], 1)
        total, zero, one = op.add(before, now), op.constant(np.int64(0)), op.constant(np.int64(1))
        self._keys_K = op.range(zero, total, one, "i64")
        self._keys = op.unsqueeze(self._keys_K, i64(0, 1, 2))
        self._queries = op.unsqueeze(op.range(before, total, one, "i64"), i64(0, 1, 3))
        self._real = op.unsqueeze(op.convert(inputs["attention_mask"], "boolean"), i64(1, 2))
        self._causal = op.less_equal(self._keys, self._queries)
        for node, name in ((self._keys_K, KEYS), (self._queries, QUERIES), (self._real, SEEN)):
            node.set_friendly_name(name)

    def causal(self) -> Node:
        """All that came before, without padding: [B, 1, T, K]."""
        return op.select(op.logical_and(self._causal, self._real), np.float32(0), MASKED)

    def windowed(self, window: int) -> Node:
        """The last `window` tokens, in the operations of an exported GPT-OSS, those that change nothing included: [B, 1, T, K]."""
        near = op.greater(self._keys, op.add(self._queries, op.constant(np.int64(-window))))
        seen = op.bitwise_and(op.bitwise_and(self._causal, near), self._causal)
        seen = op.bitwise_and(op.bitwise_and(self._causal, seen), self._real)
        mask = op.select(op.broadcast(seen, op.shape_of(seen)), np.float32(0), MASKED)
        return op.slice(mask, i64(0), i64(END), i64(1), i64(3))

    def alibi(self, slopes_H: npt.NDArray[np.float32]) -> Node:
        """In the operations of an exported BLOOM: [B, H, T, K]. Softmax ignores shifts, so a key's place does for its distance."""
        heads = len(slopes_H)
        places = op.convert(op.unsqueeze(self._keys_K, i64(0, 1)), "f32")
        bias = op.multiply(op.constant(slopes_H.reshape(1, heads, 1)), places)  # the first is what PagedAttention is given
        bias = op.reshape(op.reshape(bias, i64(heads, 1, -1), False), i64(1, heads, 1, -1), False)
        return op.select(op.logical_not(op.logical_and(self._causal, self._real)), MASKED, bias)
