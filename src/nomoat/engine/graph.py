"""An architecture's description and weights -> an OpenVINO model with a stateful key-value cache.

Inputs: input_ids [B, T], attention_mask [B, P + T], position_ids [B, T], beam_idx [B]. Output: logits [B, T, V].
Every linear layer bears the name it has in Hugging Face's Llama (`model.layers.0.self_attn.q_proj`), so that adapters attach; where a
file fuses matrices, that of Phi-3 (`qkv_proj`, `gate_up_proj`).

Shapes: B batch, T new tokens, P tokens in the cache, V vocabulary, H heads, D head width.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from openvino.utils.node_factory import NodeFactory

from nomoat.engine import positions, tiles, weights
from nomoat.engine.arch import ROUTERS, Architecture, Dimensions, Sight, score_scale, sights
from nomoat.engine.custom_ops import TiledProduct, TiledRows
from nomoat.engine.gguf import FloatArray
from nomoat.engine.layout import Storage, chunk_told
from nomoat.engine.positions import Node, i64
from nomoat.engine.source import ModelSource
from nomoat.engine.step_tables import GATE_LIMIT, GATE_SLOPE
from nomoat.engine.tied_embeddings import head_tensor
from nomoat.engine.weights import Form
from nomoat.progress import Progress

if TYPE_CHECKING:
    from nomoat.engine.lora import LoraDelta

CHUNK_VALUES, THREADS = 1_000_000, 2  # weights dequantised at a time by one thread, and how many do: bounds the peak memory

ACTIVATIONS = {
    "silu": op.swish,
    "gelu": functools.partial(op.gelu, approximation_mode="ERF"),
    "gelu_tanh": functools.partial(op.gelu, approximation_mode="TANH"),
    "relu": op.relu,
    "relu_squared": lambda x: op.power(op.relu(x), np.float32(2)),
}


class Source(NamedTuple):
    """Where a layer's weights come from."""

    tensor: str
    layer: str

    @property
    def bias(self) -> str:
        return self.tensor.removesuffix("weight") + "bias"


class Tiled(NamedTuple):
    """A matrix that stays in its file's own codes."""

    node: Node  # its tiles
    type_name: str
    rows: int  # of whole tiles
    columns: int


class GraphBuilder:
    """Builds one model. The builder must outlive the model: constants share the arrays it keeps."""

    def __init__(
        self, file: ModelSource, arch: Architecture, sizes: Dimensions, stored: Storage, *, delta: LoraDelta | None = None,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.file, self.arch, self.sizes = file, arch, sizes
        self.storage = stored
        self._chunk = chunk_told(stored, arch.name)
        self._delta = delta
        self._progress = progress
        self._arrays: list[Any] = []  # constants made with shared_memory do not keep their array alive
        self._sinks: list[Node] = []
        self._masks: positions.Masks | None = None
        self._made: dict[bool, Node] = {}  # one mask for all layers of a kind
        self._sights = sights(arch, sizes)
        self._pool = ThreadPoolExecutor(THREADS)

    def build(self) -> ov.Model:
        """The whole model. Takes seconds to minutes; `progress` is told (layers done, layers)."""
        with self._pool:
            return self._build()

    def _build(self) -> ov.Model:
        inputs = {
            "input_ids": ([-1, -1], np.int64),
            "attention_mask": ([-1, -1], np.int64),
            "position_ids": ([-1, -1], np.int64),
            "beam_idx": ([-1], np.int32),
        }
        self._inputs = {name: self._parameter(name, shape, kind) for name, (shape, kind) in inputs.items()}
        self._batch = op.gather(op.shape_of(self._inputs["input_ids"]), i64(0), op.constant(np.int64(0)))
        self._rope = {sight: self._rope_tables(sight) for sight in set(self._sights)}
        embedding, output = head_tensor(self.file)
        if output == embedding and self._delta is not None:
            self._delta.require_other_than_output()
        table = self._table(embedding, "lm_head" if output == embedding else "model.embed_tokens")
        x = self._embedded(table)
        x = self._layers(x)
        x = x if self.sizes.norms_last else self._norm(x, "output_norm")
        logits = self._logits(x, table if output == embedding else self._table(output, "lm_head"))
        logits.output(0).set_names({"logits"})
        return ov.Model([op.result(logits)], self._sinks, list(self._inputs.values()), self.arch.name)

    def _layers(self, x: Node) -> Node:
        for layer in range(self.sizes.layers):
            x = self._layer(x, layer)
            self._tell(layer + 1)
        return x

    def _tell(self, layers_done: int) -> None:
        if self._progress:
            self._progress(layers_done, self.sizes.layers)

    # ---------------------------------------------------------------- weights
    def _tiled(self, parts: Sequence[Source]) -> Tiled:
        """Tensors of one type, one under the other, in their own codes."""
        type_name, columns = self._tile_type(parts[0]), self.file.tensor(parts[0].tensor).shape[-1]
        made = np.empty(self._tiles_shape(parts, type_name), np.uint8)
        self._fill([(parts, type_name, 1, made)])
        self._arrays.append(made)
        return Tiled(op.constant(made, shared_memory=True), type_name, len(made) * tiles.TILE_ROWS, columns)

    def _tile_type(self, part: Source) -> str:
        """Of a matrix that is kept in tiles."""
        return self.file.tensor(part.tensor).type_name if self._form(part).kind == "tiles" else tiles.WHOLE_BYTES

    def _tiles_shape(self, parts: Sequence[Source], type_name: str) -> tuple[int, int]:
        """Of tensors one under the other: how many tiles, and the bytes of each."""
        tensors = [self.file.tensor(part.tensor) for part in parts]
        num_tiles = sum(tiles.padded(tensor.num_rows) for tensor in tensors) // tiles.TILE_ROWS
        return num_tiles, tiles.size(type_name, tiles.TILE_ROWS, tensors[0].shape[-1])

    def _fill(self, products: Sequence[tuple[Sequence[Source], str, int, npt.NDArray[np.uint8]]]) -> None:
        """Write the tiles of each product's parts, of so many experts, where they are to stand."""

        def store(part: Source, start: int, indices: npt.NDArray[np.intp], type_name: str, made: npt.NDArray[np.uint8]) -> None:
            try:
                if self._form(part).kind == "tiles" and self.file.tensor(part.tensor).type_name == type_name:
                    raw = self.file.raw_rows(part.tensor, indices)
                else:
                    raw = weights.whole_bytes(self._values(part, start, indices))
                tiles.tiled(raw, type_name, made)
            except ValueError as exc:
                raise ValueError(f"`{part.tensor}` has {exc}") from exc

        stored = []
        for parts, type_name, experts, made in products:
            first = 0
            for piece in self._pieces(parts, experts):
                end = first + tiles.padded(len(piece[2])) // tiles.TILE_ROWS
                stored.append(self._pool.submit(store, *piece, type_name, made[first:end]))
                first = end
        for one in stored:
            one.result()

    def _values(self, part: Source, start: int, indices: npt.NDArray[np.intp]) -> FloatArray:
        """Some rows' weights, with what an adapter adds."""
        if self._delta is None or not self._is_changed(part.layer):
            return self.file.rows(part.tensor, indices)
        rows = np.arange(start, start + len(indices))
        values = self._delta.output_weights(rows) if part.layer == "lm_head" else None
        values = self.file.rows(part.tensor, indices) if values is None else values
        change = self._delta(part.layer, rows)
        return values if change is None else values + change

    def _pieces(self, parts: Sequence[Source], experts: int = 1) -> list[tuple[Source, int, npt.NDArray[np.intp]]]:
        """Of each tensor, a part of its rows at a time: the first of them, and the file's rows they are.

        Raises BadFileError if an adapter changes a layer as one of other sizes.
        """
        pieces = []
        for part in parts:
            tensor = self.file.tensor(part.tensor)
            if self._delta:
                self._delta.require_fitting(part.layer, (tensor.num_rows, tensor.shape[-1]))
            order = positions.row_order(self.arch, self.sizes, part.layer)
            indices = np.arange(tensor.num_rows) if order is None else order
            step = max(1, CHUNK_VALUES // tensor.shape[-1] // tiles.TILE_ROWS) * tiles.TILE_ROWS
            of_one = tensor.num_rows // experts
            pieces += [
                [(part, start, indices[start : min(start + step, end)]) for start in range(end - of_one, end, step)]
                for end in range(of_one, tensor.num_rows + 1, max(1, of_one))
            ]
        return [piece for number in range(experts) for of_expert in pieces[number::experts] for piece in of_expert]

    def _matrix(self, parts: Sequence[Source], form: Form) -> Node:
        """Tensors, one under the other, in float32 for whoever reads them [rows, columns]."""

        def stored(piece: tuple[Source, int, npt.NDArray[np.intp]]) -> weights.Arrays:
            return weights.quantised(self._values(*piece), form)

        made = list(self._pool.map(stored, self._pieces(parts)))
        arrays = [np.ascontiguousarray(np.concatenate(same)) for same in zip(*made, strict=True)]
        self._arrays += arrays if form.kind != "float32" else []
        return weights.expanded(arrays, form)

    def _source(self, layer: int, name: str) -> Source:
        return Source(f"blk.{layer}.{self.arch.projections[name]}.weight", f"model.layers.{layer}.{name}")

    def _form(self, part: Source) -> Form:
        """As the storage has it; a matrix that an adapter changes has codes of its own no more."""
        return self.storage.form(part.layer, self.file.tensor(part.tensor), changed=self._is_changed(part.layer))

    def _is_changed(self, layer: str) -> bool:
        """Whether an adapter changes it."""
        return self._delta is not None and layer in self._delta.layers

    def _table(self, tensor_name: str, layer_name: str) -> Node | Tiled:
        """The embedding, the output matrix, or what lies between one of them and the layers."""
        part = Source(tensor_name, layer_name)
        form = self._form(part)
        return self._tiled([part]) if form.is_tiled else self._matrix([part], form)

    def _looked_up(self, table: Node | Tiled, ids: Node) -> Node:
        """Rows of a table."""
        if isinstance(table, Tiled):
            return TiledRows([table.node, ids], type_name=table.type_name, columns=table.columns)
        return op.gather(table, ids, op.constant(np.int32(0)))

    def _multiplied(self, x: Node, matrix: Node | Tiled) -> Node:
        if isinstance(matrix, Tiled):
            return TiledProduct([x, matrix.node], type_name=matrix.type_name, rows=matrix.rows, chunk=self._chunk)
        return op.matmul(x, matrix, False, True)

    def _linear(self, x: Node, layer: int, part: str) -> Node:
        return self._linears(x, layer, (part,))[0]

    def _linears(self, x: Node, layer: int, names: Sequence[str]) -> list[Node]:
        """Layers that read the same input: those of the same form in one product, split afterwards, where the storage fuses."""
        parts = [self._source(layer, name) for name in names]
        forms = [(self._form(part), self._apart(part)) for part in parts]
        outputs: dict[Source, Node] = {}
        for kind in dict.fromkeys(forms):
            together = [part for part, form in zip(parts, forms, strict=True) if form == kind]
            outputs |= zip(together, self._product(x, together, kind[0]), strict=True)
        return [outputs[part] for part in parts]

    def _apart(self, part: Source) -> str:
        """Equal for layers of one form that may be one product."""
        if not self.storage.fused:
            return part.layer
        return self._tile_type(part) if self._form(part).is_tiled else ""

    def _product(self, x: Node, parts: Sequence[Source], form: Form) -> list[Node]:
        """Layers of one form as one product."""
        matrix = self._tiled(parts) if form.is_tiled else self._matrix(parts, form)
        y = _named(self._multiplied(x, matrix), "+".join(part.layer for part in parts))
        if (bias := self._biases(parts)) is not None:
            y = op.add(y, op.constant(bias.reshape(1, 1, -1)))
        return self._split(y, parts)

    def _split(self, y: Node, parts: Sequence[Source]) -> list[Node]:
        """What each of the layers gave that are one product."""
        if len(parts) == 1:
            return [y]
        return list(op.variadic_split(y, i64(2), i64(*(self.file.tensor(part.tensor).num_rows for part in parts))).outputs())

    def _biases(self, parts: Sequence[Source], experts: int = 1) -> FloatArray | None:
        """Of layers one under the other, of one expert after another; None if none of them has one."""
        has_one = any(part.bias in self.file.tensors for part in parts)
        return np.concatenate([self._bias(part).reshape(experts, -1) for part in parts], axis=1).reshape(-1) if has_one else None

    def _bias(self, part: Source) -> FloatArray:
        """A layer's bias in the order of its rows; zeros where the file has none."""
        if part.bias not in self.file.tensors:
            return np.zeros(self.file.tensor(part.tensor).num_rows, np.float32)
        bias = self.file.rows(part.bias).reshape(-1)
        order = positions.row_order(self.arch, self.sizes, part.layer)
        return bias if order is None else bias[order]

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
    def _rope_tables(self, sight: Sight) -> tuple[Node, Node] | None:
        if self.arch.positions != "rope" or not sight.turns:
            return None
        return positions.rope_tables(*positions.rotation(self.file, self.sizes, sight), self._inputs["position_ids"])

    def _embedded(self, table: Node | Tiled) -> Node:
        x = self._looked_up(table, op.convert(self._inputs["input_ids"], "i32"))
        if "token_embd_project.weight" in self.file.tensors:
            x = self._projected(x, "token_embd_project.weight", "model.project_in")
        if self.sizes.embedding_scale != 1:
            x = op.multiply(x, np.float32(self.sizes.embedding_scale))
        if self.arch.positions == "learned":
            places = op.constant(self.file.rows("position_embd.weight"))
            x = op.add(x, op.gather(places, op.convert(self._inputs["position_ids"], "i32"), op.constant(np.int32(0))))
        return self._norm(x, "token_embd_norm") if self.arch.embedding_norm else x

    def _projected(self, x: Node, tensor_name: str, layer_name: str) -> Node:
        """Between the width of the embedding and that of the layers."""
        return _named(self._multiplied(x, self._table(tensor_name, layer_name)), layer_name)

    def _logits(self, x: Node, head: Node | Tiled) -> Node:
        if "output_project.weight" in self.file.tensors:
            x = self._projected(x, "output_project.weight", "model.project_out")
        y = _named(self._multiplied(x, head), "lm_head")
        if isinstance(head, Tiled) and head.rows != self.sizes.vocabulary:
            y = op.slice(y, i64(0), i64(self.sizes.vocabulary), i64(1), i64(-1))
        bias = self._delta.output_bias() if self._delta else None
        if bias is not None or "output.bias" in self.file.tensors:
            y = op.add(y, self._vector("output.bias") if bias is None else op.constant(bias.reshape(1, 1, -1)))
        if self.sizes.logit_scale != 1:
            y = op.multiply(y, np.float32(self.sizes.logit_scale))
        return y if self.sizes.logit_cap is None else _capped(y, self.sizes.logit_cap)

    def _layer(self, x: Node, layer: int) -> Node:
        block, arch = f"blk.{layer}", self.arch
        if self.sizes.norms_last:
            x = self._norm(op.add(x, self._attention(x, layer)), f"{block}.attn_norm")
            return self._norm(op.add(x, self._mlp(x, layer)), f"{block}.ffn_norm")
        first = arch.attention_norm(self.file.tensors, layer)
        normed = self._before(x, layer, first)
        attended = self._attention(normed, layer)
        if arch.post_norms:
            attended = self._norm(attended, f"{block}.post_attention_norm")
        both = op.add(x, attended)
        if self.sizes.parallel:
            normed = normed if first == arch.mlp_norm else self._before(x, layer, arch.mlp_norm)
        else:
            normed = self._before(both, layer, arch.mlp_norm)
        y = self._mlp(normed, layer)
        return op.add(both, self._norm(y, f"{block}.post_ffw_norm") if arch.post_norms else y)

    def _before(self, x: Node, layer: int, norm: str | None) -> Node:
        """What attention or MLP read."""
        return x if norm is None else self._norm(x, f"blk.{layer}.{norm}")

    def _attention(self, x: Node, layer: int) -> Node:
        return self._linear(self._seen(self._linears(x, layer, self.arch.qkv), layer), layer, "self_attn.o_proj")

    def _seen(self, parts: Sequence[Node], layer: int) -> Node:
        """What each token gathers from those it sees, by its query: [B, T, all heads' values]."""
        heads, head_dim = self.sizes.heads, self.sizes.head_dim
        sight = self._sights[layer]
        query, key, value = self._as_heads(parts, layer)
        norms = self.arch.qk_norm == "each head"
        if norms and not self.arch.turns_before_norms:
            query, key = self._qk_normed(query, key, layer)
        query, key, value = (op.transpose(y, i64(0, 2, 1, 3)) for y in (query, key, value))
        if tables := self._rope[sight]:
            query, key = (positions.rotate(y, tables, self.sizes) for y in (query, key))
        if norms and self.arch.turns_before_norms:
            query, key = self._qk_normed(query, key, layer)
        key, value = self._cached(key, f"{layer}.key"), self._cached(value, f"{layer}.value")
        y = self._attended(query, key, value, self._mask(sight.local), layer)
        return op.reshape(op.transpose(y, i64(0, 2, 1, 3)), i64(0, 0, heads * head_dim), True)

    def _attended(self, query: Node, key: Node, value: Node, mask: Node, layer: int) -> Node:
        """The values a query sees, by its scores: [B, H, T, D]."""
        if self.sizes.attention_cap is None:
            return self._softmax_attention(query, key, value, mask, layer)
        scale = np.float32(score_scale(self.arch, self.sizes))
        scores = _capped(op.matmul(op.multiply(query, scale), key, False, True), self.sizes.attention_cap)
        return op.matmul(op.softmax(op.add(scores, mask), -1), value, False, False)

    def _softmax_attention(self, query: Node, key: Node, value: Node, mask: Node, layer: int) -> Node:
        """OpenVINO's own operation."""
        scale = score_scale(self.arch, self.sizes)
        if not self.arch.sinks:
            other = [] if scale == self.sizes.head_dim**-0.5 else [op.constant(np.float32(scale))]  # than it takes by itself
            return op.scaled_dot_product_attention(query, key, value, mask, *other)
        sinks = op.constant(self.file.rows(f"blk.{layer}.attn_sinks.weight").reshape(1, -1, 1, 1))
        inputs = [query, key, value, mask, op.constant(np.float32(scale)), sinks]
        # OpenVINO's Python has no argument for them
        return NodeFactory("opset13").create("ScaledDotProductAttention", [value.output(0) for value in inputs], {"causal": False})

    def _qk_normed(self, query: Node, key: Node, layer: int) -> tuple[Node, Node]:
        return self._norm(query, f"blk.{layer}.attn_q_norm"), self._norm(key, f"blk.{layer}.attn_k_norm")

    def _as_heads(self, parts: Sequence[Node], layer: int) -> tuple[Node, ...]:
        """Queries, keys and values, or all in one, each [B, T, H, D] with the heads it has."""
        counts = (self.sizes.heads, self.sizes.kv_heads, self.sizes.kv_heads)
        if len(parts) == 1:
            lengths = i64(*(count * self.sizes.head_dim for count in counts))
            parts = op.variadic_split(parts[0], i64(2), lengths).outputs()
        if (limit := self.sizes.clamp_qkv) is not None:
            parts = [op.clamp(part, -limit, limit) for part in parts]
        if self.arch.qk_norm == "all heads":
            parts = [*self._qk_normed(parts[0], parts[1], layer), parts[2]]
        return tuple(op.reshape(y, i64(0, 0, count, self.sizes.head_dim), True) for y, count in zip(parts, counts, strict=True))

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
        if self.arch.has_experts:
            return self._experts(x, layer)
        if "mlp.gate_up_proj" in self.arch.projections:
            halves = i64(self.sizes.hidden, self.sizes.hidden)
            gate, up = op.variadic_split(self._linear(x, layer, "mlp.gate_up_proj"), i64(2), halves).outputs()
            y = self._gated(gate, up)
        elif "mlp.gate_proj" in self.arch.projections:
            gate, up = self._linears(x, layer, ("mlp.gate_proj", "mlp.up_proj"))
            y = self._gated(gate, up)
        else:
            y = ACTIVATIONS[self.arch.activation](self._linear(x, layer, "mlp.up_proj"))
        return self._linear(y, layer, "mlp.down_proj")

    def _gated(self, gate: Node, up: Node) -> Node:
        if self.arch.activation != "clamped":
            return op.multiply(ACTIVATIONS[self.arch.activation](gate), up)
        gate, up = op.minimum(gate, np.float32(GATE_LIMIT)), op.clamp(up, -GATE_LIMIT, GATE_LIMIT)
        opened = op.multiply(gate, op.sigmoid(op.multiply(gate, np.float32(GATE_SLOPE))))
        return op.multiply(opened, op.add(up, np.float32(1)))

    def _router(self, layer: int) -> tuple[FloatArray, FloatArray]:
        """What each expert's score is a product with, the shared one's last, with what an adapter adds, and its bias.

        [experts, width], [experts].
        """
        parts = [self._source(layer, name) for name in ROUTERS if name in self.arch.projections]
        rows = [self._values(*piece).reshape(-1, self.sizes.width) for piece in self._pieces(parts)]
        return np.concatenate(rows), np.concatenate([self._bias(part) for part in parts])

    def _experts(self, x: Node, layer: int) -> Node:
        """All experts' MLPs of all tokens, by weights that are 0 for those it does not ask: to compare with."""
        count, chosen = self.sizes.experts, self.sizes.experts_chosen
        router, bias = self._router(layer)

        def score(which: slice) -> Node:
            return op.add(op.matmul(x, op.constant(router[which]), False, True), op.constant(bias[which].reshape(1, 1, -1)))

        scores = score(slice(count))
        best = op.topk(scores if self.sizes.experts_normed else op.softmax(scores, -1), np.int64(chosen), 2, "max", "value")
        of_best = op.softmax(best.output(0), -1) if self.sizes.experts_normed else best.output(0)
        shares = op.scatter_elements_update(op.multiply(scores, np.float32(0)), best.output(1), of_best, np.int64(2))
        every = op.unsqueeze(x, i64(1))  # [B, 1, T, D]

        def product(y: Node, name: str) -> Node:
            part = self._source(layer, f"mlp.experts.{name}")
            form = self._form(part)
            matrix = self._matrix([part], Form("int8") if form.is_tiled else form)
            y = op.matmul(y, op.reshape(matrix, i64(count, -1, self.file.tensor(part.tensor).shape[-1]), False), False, True)
            if part.bias not in self.file.tensors:
                return y
            return op.add(y, op.constant(self._bias(part).reshape(1, count, 1, -1)))

        y = product(self._gated(product(every, "gate_proj"), product(every, "up_proj")), "down_proj")  # [B, E, T, D]
        by_expert = op.unsqueeze(op.transpose(shares, i64(0, 2, 1)), i64(3))
        y = op.reduce_sum(op.multiply(y, by_expert), i64(1), False)
        if not self.arch.has_shared_expert:
            return y
        gate, up = self._linears(x, layer, [f"mlp.shared_expert.{name}_proj" for name in ("gate", "up")])
        shared = self._linear(self._gated(gate, up), layer, "mlp.shared_expert.down_proj")
        return op.add(y, op.multiply(shared, op.sigmoid(score(slice(count, None)))))

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
