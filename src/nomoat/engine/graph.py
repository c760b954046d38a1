"""An architecture's description and weights -> an OpenVINO model with a stateful key-value cache.

Inputs: input_ids [B, T], attention_mask [B, P + T], position_ids [B, T], beam_idx [B]. Output: logits [B, T, V].
Every linear layer bears the name it has in Hugging Face's Llama (`model.layers.0.self_attn.q_proj`), so that adapters attach; where a
file fuses matrices, that of Phi-3 (`qkv_proj`, `gate_up_proj`).

Shapes: B batch, T new tokens, P tokens in the cache, V vocabulary, H heads, D head width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op

from nomoat.engine import layout, positions
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import FloatArray, GGUFFile
from nomoat.engine.positions import Node, i64

CHUNK_VALUES = 4_000_000  # weights dequantised at a time by one thread: bounds the peak memory
# The two matrices of some files are one, quantised twice. Keeping one saves a fifth of a small model and is closer to fp32.
SAME_MATRIX_COSINE = 0.98

# (layer name, first row, rows) -> what an adapter adds to these rows, or None
Delta = Callable[[str, npt.NDArray[np.intp]], FloatArray | None]
ACTIVATIONS = {
    "silu": op.swish,
    "gelu": functools.partial(op.gelu, approximation_mode="ERF"),
    "gelu_tanh": functools.partial(op.gelu, approximation_mode="TANH"),
}


def head_tensor(file: GGUFFile) -> tuple[str, str]:
    """The tensors to read the embedding and the output matrix from; the same name twice where they are one matrix."""
    if "output.weight" not in file.tensors:
        return "token_embd.weight", "token_embd.weight"
    rows = np.linspace(0, file.tensor("token_embd.weight").num_rows - 1, 64).astype(np.intp)
    a, b = file.rows("token_embd.weight", rows), file.rows("output.weight", rows)
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    same = a.shape == b.shape and norm > 0 and float(np.sum(a * b)) / norm > SAME_MATRIX_COSINE
    return ("output.weight", "output.weight") if same else ("token_embd.weight", "output.weight")


class GraphBuilder:
    """Builds one model. The builder must outlive the model: constants share the arrays it keeps."""

    def __init__(
        self, file: GGUFFile, arch: Architecture, sizes: Dimensions, *, delta: Delta | None = None,
        progress: Callable[[int, int], None] | None = None, exact: bool = False,
    ) -> None:  # fmt: skip
        """`exact` keeps every weight as the file has it, in float32."""
        self.file, self.arch, self.sizes, self.exact = file, arch, sizes, exact
        self._delta = delta
        self._progress = progress
        self._arrays: list[Any] = []  # constants made with shared_memory do not keep their array alive
        self._sinks: list[Node] = []
        self._masks: positions.Masks | None = None
        self._made: dict[bool, Node] = {}  # one mask for all layers of a kind
        self._pool = ThreadPoolExecutor(2)

    def build(self) -> ov.Model:
        """The whole model. Takes seconds to minutes; `progress` is told (layers done, layers)."""
        inputs = {
            "input_ids": ([-1, -1], np.int64),
            "attention_mask": ([-1, -1], np.int64),
            "position_ids": ([-1, -1], np.int64),
            "beam_idx": ([-1], np.int32),
        }
        self._inputs = {name: self._parameter(name, shape, kind) for name, (shape, kind) in inputs.items()}
        self._batch = op.gather(op.shape_of(self._inputs["input_ids"]), i64(0), op.constant(np.int64(0)))
        self._rope = {local: self._rope_tables(local=local) for local in set(self.arch.windowed)}
        embedding, output = head_tensor(self.file)
        table = self._matrix(embedding, "model.embed_tokens")
        x = self._embedded(table)
        for layer in range(self.sizes.layers):
            x = self._layer(x, layer)
            if self._progress:
                self._progress(layer + 1, self.sizes.layers)
        x = self._norm(x, "output_norm")
        logits = self._logits(x, table if output == embedding else self._matrix(output, "lm_head"))
        logits.output(0).set_names({"logits"})
        self._pool.shutdown()
        return ov.Model([op.result(logits)], self._sinks, list(self._inputs.values()), self.arch.name)

    # ---------------------------------------------------------------- weights
    def _matrix(self, tensor_name: str, layer_name: str) -> Node:
        """A tensor as int8 codes times a scale per row (or exact), in float32 for whoever reads it: [rows, columns]."""
        tensor = self.file.tensor(tensor_name)
        order = positions.row_order(self.arch, self.sizes, layer_name)
        indices = np.arange(tensor.num_rows) if order is None else order
        step = max(1, CHUNK_VALUES // tensor.shape[-1])

        def read(start: int) -> FloatArray:
            weights = self.file.rows(tensor_name, indices[start : start + step])
            rows = np.arange(start, start + len(weights))
            change = self._delta(layer_name, rows) if self._delta else None
            return weights if change is None else weights + change

        starts = range(0, tensor.num_rows, step)
        if self.exact:
            return op.constant(np.concatenate(list(self._pool.map(read, starts))))
        parts = list(self._pool.map(lambda start: layout.quantise_rows(read(start)), starts))
        codes, scales = (np.ascontiguousarray(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
        self._arrays += [codes, scales]
        node = op.convert(op.constant(codes, shared_memory=True), "f16")
        return op.convert(op.multiply(node, op.constant(scales, shared_memory=True)), "f32")

    def _linear(self, x: Node, layer: int, part: str) -> Node:
        name = f"model.layers.{layer}.{part}"
        source = f"blk.{layer}.{self.arch.projections[part]}"
        y = _named(op.matmul(x, self._matrix(f"{source}.weight", name), False, True), name)
        if f"{source}.bias" in self.file.tensors:
            bias = self.file.rows(f"{source}.bias")
            order = positions.row_order(self.arch, self.sizes, name)
            y = op.add(y, op.constant((bias if order is None else bias[order]).reshape(1, 1, -1)))
        return y

    def _norm(self, x: Node, tensor_name: str) -> Node:
        """A norm over the last axis."""
        epsilon = self.sizes.norm_epsilon
        if self.arch.norm == "layer":
            y = op.mvn(x, i64(-1), True, epsilon, "inside_sqrt")
        else:
            mean_square = op.reduce_mean(op.power(x, np.float32(2)), i64(-1), True)
            y = op.multiply(x, op.divide(np.float32(1), op.sqrt(op.add(mean_square, np.float32(epsilon)))))
        y = op.multiply(y, self._vector(f"{tensor_name}.weight"))
        bias = f"{tensor_name}.bias"
        return op.add(y, self._vector(bias)) if bias in self.file.tensors else y

    def _vector(self, tensor_name: str) -> Node:
        return op.constant(self.file.rows(tensor_name).reshape(1, 1, -1))

    # ---------------------------------------------------------------- layers
    def _rope_tables(self, *, local: bool) -> tuple[Node, Node] | None:
        if self.arch.positions != "rope":
            return None
        sizes = self.sizes
        if local and sizes.local_rope_base is not None:
            sizes = replace(sizes, rope_base=sizes.local_rope_base, rope_scale=1.0, yarn_tokens=None, rope_magnitude=1.0)
        return positions.rope_tables(positions.inverse_frequencies(self.file, sizes), self._inputs["position_ids"], sizes)

    def _embedded(self, table: Node) -> Node:
        x = op.gather(table, op.convert(self._inputs["input_ids"], "i32"), op.constant(np.int32(0)))
        if self.arch.embedding_scaled:
            x = op.multiply(x, np.float32(self.sizes.width**0.5))
        if self.arch.positions == "learned":
            places = op.constant(self.file.rows("position_embd.weight"))
            x = op.add(x, op.gather(places, op.convert(self._inputs["position_ids"], "i32"), op.constant(np.int32(0))))
        return self._norm(x, "token_embd_norm") if self.arch.embedding_norm else x

    def _logits(self, x: Node, head: Node) -> Node:
        y = _named(op.matmul(x, head, False, True), "lm_head")
        if "output.bias" in self.file.tensors:
            y = op.add(y, self._vector("output.bias"))
        return y if self.sizes.logit_cap is None else _capped(y, self.sizes.logit_cap)

    def _layer(self, x: Node, layer: int) -> Node:
        block, arch = f"blk.{layer}", self.arch
        first = next(
            (name for name in arch.attention_norms if f"{block}.{name}.weight" in self.file.tensors), arch.attention_norms[-1]
        )
        normed = self._norm(x, f"{block}.{first}")
        attended = self._attention(normed, layer)
        if arch.post_norms:
            attended = self._norm(attended, f"{block}.post_attention_norm")
        both = op.add(x, attended)
        if self.sizes.parallel:
            normed = normed if first == arch.mlp_norm else self._norm(x, f"{block}.{arch.mlp_norm}")
        else:
            normed = self._norm(both, f"{block}.{arch.mlp_norm}")
        y = self._mlp(normed, layer)
        return op.add(both, self._norm(y, f"{block}.post_ffw_norm") if arch.post_norms else y)

    def _attention(self, x: Node, layer: int) -> Node:
        heads, head_dim = self.sizes.heads, self.sizes.head_dim
        local = self.arch.windowed[layer % len(self.arch.windowed)]
        query, key, value = self._query_key_value(x, layer)
        if self.arch.qk_norm:
            query, key = self._norm(query, f"blk.{layer}.attn_q_norm"), self._norm(key, f"blk.{layer}.attn_k_norm")
        query, key, value = (op.transpose(y, i64(0, 2, 1, 3)) for y in (query, key, value))
        if tables := self._rope[local]:
            query, key = (positions.rotate(y, tables, self.sizes) for y in (query, key))
        key, value = self._cached(key, f"{layer}.key"), self._cached(value, f"{layer}.value")
        y = self._attended(query, key, value, self._mask(local))
        y = op.reshape(op.transpose(y, i64(0, 2, 1, 3)), i64(0, 0, heads * head_dim), True)
        return self._linear(y, layer, "self_attn.o_proj")

    def _attended(self, query: Node, key: Node, value: Node, mask: Node) -> Node:
        """The values a query sees, by its scores: [B, H, T, D]."""
        if self.sizes.attention_cap is None:
            return op.scaled_dot_product_attention(query, key, value, mask, *self._scale())
        (scale,) = self._scale() or [np.float32(self.sizes.head_dim**-0.5)]
        scores = _capped(op.matmul(op.multiply(query, scale), key, False, True), self.sizes.attention_cap)
        return op.matmul(op.softmax(op.add(scores, mask), -1), value, False, False)

    def _query_key_value(self, x: Node, layer: int) -> tuple[Node, ...]:
        """Each [B, T, H, D], with the heads it has."""
        counts = (self.sizes.heads, self.sizes.kv_heads, self.sizes.kv_heads)
        if "self_attn.qkv_proj" in self.arch.projections:
            lengths = i64(*(count * self.sizes.head_dim for count in counts))
            parts = op.variadic_split(self._linear(x, layer, "self_attn.qkv_proj"), i64(2), lengths).outputs()
        else:
            parts = [self._linear(x, layer, f"self_attn.{part}_proj") for part in "qkv"]
        if (limit := self.sizes.clamp_qkv) is not None:
            parts = [op.clamp(part, -limit, limit) for part in parts]
        return tuple(op.reshape(y, i64(0, 0, count, self.sizes.head_dim), True) for y, count in zip(parts, counts, strict=True))

    def _scale(self) -> list[Node]:
        """What scores are multiplied with, where it is not one by the root of the head's width."""
        if self.sizes.layers != self.arch.width_scaled_layers:
            return []
        return [op.constant(np.float32((self.sizes.width // self.sizes.heads) ** -0.5))]

    def _mask(self, local: bool) -> Node:
        assert self._masks is not None
        if local not in self._made:
            if self.arch.positions == "alibi":
                self._made[local] = self._masks.alibi(positions.alibi_slopes(self.sizes.heads, self.sizes.alibi_max_bias))
            elif local and self.sizes.window is not None:
                self._made[local] = self._masks.windowed(self.sizes.window)
            else:
                self._made[local] = self._masks.causal()
        return self._made[local]

    def _cached(self, new_BHTD: Node, name: str) -> Node:
        """The cached keys or values with the new ones after them, repeated for each query head: [B, H, P + T, D]."""
        heads, kv_heads, head_dim = self.sizes.heads, self.sizes.kv_heads, self.sizes.head_dim
        variable = f"past_key_values.{name}present.{name}"
        empty = op.broadcast(np.float32(0), op.concat([self._batch, i64(kv_heads), i64(0), i64(head_dim)], 0))
        read = op.read_value(empty, variable, ov.Type.f32, ov.PartialShape([-1, kv_heads, -1, head_dim]))
        past = op.gather(read, self._inputs["beam_idx"], op.constant(np.int64(0)))
        if self._masks is None:
            self._masks = positions.Masks(self._inputs, past)
        both = op.concat([past, new_BHTD], 2)
        self._sinks.append(op.assign(both, variable))
        if heads == kv_heads:
            return both
        repeat = op.concat([self._batch, i64(1), i64(heads // kv_heads), i64(1), i64(1)], 0)
        both = op.broadcast(op.unsqueeze(both, i64(2)), repeat, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(both, i64(0, heads, -1, head_dim), True)

    def _mlp(self, x: Node, layer: int) -> Node:
        activate = ACTIVATIONS[self.arch.activation]
        if "mlp.gate_up_proj" in self.arch.projections:
            halves = i64(self.sizes.hidden, self.sizes.hidden)
            gate, up = op.variadic_split(self._linear(x, layer, "mlp.gate_up_proj"), i64(2), halves).outputs()
            y = op.multiply(activate(gate), up)
        elif "mlp.gate_proj" in self.arch.projections:
            y = op.multiply(activate(self._linear(x, layer, "mlp.gate_proj")), self._linear(x, layer, "mlp.up_proj"))
        else:
            y = activate(self._linear(x, layer, "mlp.up_proj"))
        return self._linear(y, layer, "mlp.down_proj")

    def _parameter(self, name: str, shape: list[int], kind: Any) -> Node:
        node = _named(op.parameter(shape, kind), name)
        node.output(0).set_names({name})
        return node


def _capped(x: Node, cap: float) -> Node:
    """Kept within plus and minus `cap`, smoothly."""
    return op.multiply(op.tanh(op.divide(x, np.float32(cap))), np.float32(cap))


def _named(node: Node, name: str) -> Node:
    node.set_friendly_name(name)
    return node
