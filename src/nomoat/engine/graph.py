"""An architecture's description and weights -> an OpenVINO model with a stateful key-value cache.

Inputs: input_ids [B, T], attention_mask [B, P + T], position_ids [B, T], beam_idx [B]. Output: logits [B, T, V].
Every linear layer bears the name it has in Hugging Face models (`model.layers.0.self_attn.q_proj`), so that adapters attach.

Shapes: B batch, T new tokens, P tokens in the cache, V vocabulary, H heads, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op

from nomoat.engine import layout
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import FloatArray, GGUFFile

CHUNK_VALUES = 4_000_000  # weights dequantised at a time by one thread: bounds the peak memory
MASKED = np.float32(-65504)
# The two matrices of some files are one, quantised twice. Keeping one saves a fifth of a small model and is closer to fp32.
SAME_MATRIX_COSINE = 0.98

# (layer name, first row, rows) -> what an adapter adds to these rows, or None
Delta = Callable[[str, npt.NDArray[np.intp]], FloatArray | None]
Node = Any


def row_order(arch: Architecture, sizes: Dimensions, layer: str) -> npt.NDArray[np.intp] | None:
    """Where each row of q or k lies in the file, for families whose files permute them; None where rows lie in order."""
    heads = {"q_proj": sizes.heads, "k_proj": sizes.kv_heads}.get(layer.rpartition(".")[2])
    if not arch.rows_permuted or heads is None:
        return None
    return np.arange(heads * sizes.head_dim).reshape(heads, sizes.head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


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
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self.file, self.arch, self.sizes = file, arch, sizes
        self._delta = delta
        self._progress = progress
        self._arrays: list[Any] = []  # constants made with shared_memory do not keep their array alive
        self._sinks: list[Node] = []
        self._mask: Node | None = None
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
        self._batch = op.gather(op.shape_of(self._inputs["input_ids"]), _i64(0), op.constant(np.int64(0)))
        self._rope = self._rope_tables()
        embedding, output = head_tensor(self.file)
        table = self._matrix(embedding, "model.embed_tokens")
        x = op.gather(table, op.convert(self._inputs["input_ids"], "i32"), op.constant(np.int32(0)))
        for layer in range(self.sizes.layers):
            x = op.add(x, self._attention(self._norm(x, f"blk.{layer}.attn_norm.weight"), layer))
            x = op.add(x, self._mlp(self._norm(x, f"blk.{layer}.ffn_norm.weight"), layer))
            if self._progress:
                self._progress(layer + 1, self.sizes.layers)
        x = self._norm(x, "output_norm.weight")
        head = table if output == embedding else self._matrix(output, "lm_head")
        logits = _named(op.matmul(x, head, False, True), "lm_head")
        logits.output(0).set_names({"logits"})
        self._pool.shutdown()
        return ov.Model([op.result(logits)], self._sinks, list(self._inputs.values()), self.arch.name)

    # ---------------------------------------------------------------- weights
    def _matrix(self, tensor_name: str, layer_name: str) -> Node:
        """A tensor as int8 codes times a scale per row, in float32 for whoever reads it: [rows, columns]."""
        tensor = self.file.tensor(tensor_name)
        order = row_order(self.arch, self.sizes, layer_name)
        indices = np.arange(tensor.num_rows) if order is None else order
        step = max(1, CHUNK_VALUES // tensor.shape[-1])

        def quantised(start: int) -> tuple[Any, Any]:
            weights = self.file.rows(tensor_name, indices[start : start + step])
            rows = np.arange(start, start + len(weights))
            change = self._delta(layer_name, rows) if self._delta else None
            return layout.quantise_rows(weights if change is None else weights + change)

        parts = list(self._pool.map(quantised, range(0, tensor.num_rows, step)))
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
            order = row_order(self.arch, self.sizes, name)
            y = op.add(y, op.constant((bias if order is None else bias[order]).reshape(1, 1, -1)))
        return y

    def _norm(self, x: Node, tensor_name: str) -> Node:
        weight = op.constant(self.file.rows(tensor_name).reshape(1, 1, -1))
        mean_square = op.reduce_mean(op.power(x, np.float32(2)), _i64(-1), True)
        scale = op.divide(np.float32(1), op.sqrt(op.add(mean_square, np.float32(self.sizes.norm_epsilon))))
        return op.multiply(op.multiply(x, scale), weight)

    # ---------------------------------------------------------------- layers
    def _rope_tables(self) -> tuple[Node, Node]:
        """Cosine and sine of every position's angles, [B, 1, T, D]."""
        inverse = 1 / self.sizes.rope_base ** (np.arange(0, self.sizes.head_dim, 2, dtype=np.float64) / self.sizes.head_dim)
        if "rope_freqs.weight" in self.file.tensors:
            inverse = inverse / self.file.rows("rope_freqs.weight")
        positions = op.convert(op.unsqueeze(self._inputs["position_ids"], _i64(1)), "f32")
        frequencies = op.constant(inverse.astype(np.float32).reshape(1, -1, 1))
        angles = op.transpose(op.matmul(frequencies, positions, False, False), _i64(0, 2, 1))
        angles = op.concat([angles, angles], -1)
        return op.unsqueeze(op.cos(angles), _i64(1)), op.unsqueeze(op.sin(angles), _i64(1))

    def _rotate(self, x_BHTD: Node) -> Node:
        half, end = self.sizes.head_dim // 2, np.iinfo(np.int64).max
        first = op.slice(x_BHTD, _i64(0), _i64(half), _i64(1), _i64(3))
        second = op.slice(x_BHTD, _i64(half), _i64(end), _i64(1), _i64(3))
        turned = op.concat([op.multiply(second, np.float32(-1)), first], -1)
        cosine, sine = self._rope
        return op.add(op.multiply(x_BHTD, cosine), op.multiply(turned, sine))

    def _attention(self, x: Node, layer: int) -> Node:
        heads, kv_heads, head_dim = self.sizes.heads, self.sizes.kv_heads, self.sizes.head_dim

        def by_head(part: str, count: int) -> Node:
            y = op.reshape(self._linear(x, layer, f"self_attn.{part}"), _i64(0, 0, count, head_dim), True)
            return op.transpose(y, _i64(0, 2, 1, 3))

        query = self._rotate(by_head("q_proj", heads))
        new = {"key": self._rotate(by_head("k_proj", kv_heads)), "value": by_head("v_proj", kv_heads)}
        full = {kind: self._cached(tokens, f"past_key_values.{layer}.{kind}present.{layer}.{kind}") for kind, tokens in new.items()}
        y = op.scaled_dot_product_attention(query, full["key"], full["value"], self._mask)
        y = op.reshape(op.transpose(y, _i64(0, 2, 1, 3)), _i64(0, 0, heads * head_dim), True)
        return self._linear(y, layer, "self_attn.o_proj")

    def _cached(self, new_BHTD: Node, variable: str) -> Node:
        """The cached keys or values with the new ones after them, repeated for each query head: [B, H, P + T, D]."""
        heads, kv_heads, head_dim = self.sizes.heads, self.sizes.kv_heads, self.sizes.head_dim
        empty = op.broadcast(np.float32(0), op.concat([self._batch, _i64(kv_heads), _i64(0), _i64(head_dim)], 0))
        read = op.read_value(empty, variable, ov.Type.f32, ov.PartialShape([-1, kv_heads, -1, head_dim]))
        past = op.gather(read, self._inputs["beam_idx"], op.constant(np.int64(0)))
        if self._mask is None:
            self._mask = self._causal_mask(past)
        both = op.concat([past, new_BHTD], 2)
        self._sinks.append(op.assign(both, variable))
        if heads == kv_heads:
            return both
        repeat = op.concat([self._batch, _i64(1), _i64(heads // kv_heads), _i64(1), _i64(1)], 0)
        both = op.broadcast(op.unsqueeze(both, _i64(2)), repeat, broadcast_spec="BIDIRECTIONAL")
        return op.reshape(both, _i64(0, heads, -1, head_dim), True)

    def _causal_mask(self, past_BHPD: Node) -> Node:
        def size(node: Node, axis: int) -> Node:
            return op.gather(op.shape_of(node), op.constant(np.int64(axis)), op.constant(np.int64(0)))

        before, now = size(past_BHPD, 2), size(self._inputs["input_ids"], 1)
        total, zero, one = op.add(before, now), op.constant(np.int64(0)), op.constant(np.int64(1))
        keys = op.unsqueeze(op.range(zero, total, one, "i64"), _i64(0, 1, 2))
        queries = op.unsqueeze(op.range(before, total, one, "i64"), _i64(0, 1, 3))
        real = op.unsqueeze(op.convert(self._inputs["attention_mask"], "boolean"), _i64(1, 2))
        return op.select(op.logical_and(op.less_equal(keys, queries), real), np.float32(0), MASKED)

    def _mlp(self, x: Node, layer: int) -> Node:
        gate = op.swish(self._linear(x, layer, "mlp.gate_proj"))
        return self._linear(op.multiply(gate, self._linear(x, layer, "mlp.up_proj")), layer, "mlp.down_proj")

    def _parameter(self, name: str, shape: list[int], kind: Any) -> Node:
        node = _named(op.parameter(shape, kind), name)
        node.output(0).set_names({name})
        return node


def _named(node: Node, name: str) -> Node:
    node.set_friendly_name(name)
    return node


def _i64(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
