"""A decoder in PyTorch with frozen weights and a LoRA beside each linear layer, from the same description as the engine's graph.

Shapes: B batch, T tokens of a row, P tokens every row begins with, K = P + T, M tokens of a pass (B * T, with the beginning P more),
N tokens with loss, W width, H heads, D head width, R width of a head's turning part. Rows are padded at their end: what is real never
sees padding, so no mask is needed for it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from nomoat.engine import layout, positions, tied_embeddings, tiles
from nomoat.engine.arch import Architecture, Dimensions, Sight, score_scale, sights
from nomoat.engine.gguf import FloatArray
from nomoat.engine.source import ModelSource
from nomoat.engine.weights import Form
from nomoat.errors import BadFileError
from nomoat.progress import Progress
from nomoat.tune import kernels, qlora

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # without a gate; with one: kernels.GATES
    "gelu": functional.gelu,
    "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "relu_squared": lambda x: functional.relu(x).square(),
}
SHORT_SCORES = 128 * 256  # of a head in a row
MASKED_QUERIES = 64  # of a mask at a time: in f32, and what is seen beside it
Order = npt.NDArray[np.intp] | None
Pair = tuple[torch.Tensor, torch.Tensor]
PrefixCache = list[Pair]
Lora = dict[str, list[torch.Tensor]] | None


@dataclass(slots=True)
class Beginning:
    """Tokens every row begins with, as far as the frozen layers bring them: keys and values of those, and what the last one says."""

    cache: PrefixCache
    x_1PW: torch.Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Where the M tokens of a pass stand: `own` of the beginning itself, then B rows of T tokens after its `past` tokens."""

    own: int
    past: int
    rows: int
    length: int

    def all(self) -> torch.Tensor:
        """Of every token, [M]."""
        return torch.cat([torch.arange(self.own), torch.arange(self.past, self.past + self.length).repeat(self.rows)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One layer in one pass: all it needs beside what the tokens are. `lora`: of its linear layers, by the name of their first part.

    `masks` are added to the scores of the beginning and of a row; `turn`: cosine and sine of the tokens' angles. `before`: keys and
    values of the tokens before, [1, H, P, D] each; `keep` takes this pass's. `wanted_M`: it speaks about these tokens only.
    """

    layer: int
    places: Places
    lora: Lora
    masks: list[torch.Tensor]
    turn: Pair | None
    before: Pair | None
    keep: PrefixCache | None
    wanted_M: torch.Tensor | None


@dataclass(slots=True)
class Linear:
    """One or several linear layers of the same input, as one matrix; the adapter has them apart. `parts`: (name, outputs) of each, in
    the order of the matrix's rows."""

    matrix: qlora.Matrix
    bias: torch.Tensor | None
    parts: list[tuple[str, int]]


class Network:
    """See the module. `parameters` holds the adapter's matrices in f32 by PEFT's names; nothing else learns.

    A row goes through it in two steps: `read`, the lowest `frozen` layers, which have no adapter, so that what they say can be kept;
    and `hidden`, all others.
    `keep_expanded`: weights as they multiply fastest in this precision, or as one byte each (and activations computed twice), for
    models too large for that.
    """

    def __init__(
        self, file: ModelSource, arch: Architecture, sizes: Dimensions, *, rank: int, seed: int, precision: qlora.Precision,
        keep_expanded: bool, frozen: int, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        """`progress` is told of each layer that is read."""
        self.arch, self.sizes, self.dtype, self.frozen = arch, sizes, qlora.DTYPES[precision], frozen
        self.parameters: dict[str, torch.nn.Parameter] = {}
        self._file, self._rank, self._seed, self._frugal = file, rank, seed, not keep_expanded
        self._store = functools.partial(qlora.kept, precision=precision, expanded=keep_expanded)
        embedding, output = tied_embeddings.head_tensor(file)
        self._storage = layout.storage(file, sizes, "default")
        self._head: qlora.Matrix = self._store([self._weights(output, "lm_head")])
        self._embedding = self._head if embedding == output else self._store([self._weights(embedding, "embed_tokens")])
        self._layers: list[dict[str, Linear]] = []
        for layer in range(sizes.layers):
            self._layers.append(self._read_layer(layer))
            if progress:
                progress(layer + 1, sizes.layers)
        self._vectors = {name: self._vector(name) for name, tensor in file.tensors.items() if len(tensor.shape) == 1}  # norms, biases
        self._sights = sights(arch, sizes)
        self._rope = {sight: self._rotation(sight) for sight in set(self._sights)}
        self._places = torch.from_numpy(file.rows("position_embd.weight")) if arch.positions == "learned" else None
        self._slopes = positions.alibi_slopes(sizes.heads, sizes.alibi_max_bias) if arch.positions == "alibi" else None

    # ---------------------------------------------------------------- weights
    def _vector(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._file.rows(name).reshape(-1)).float()

    def _read_layer(self, layer: int) -> dict[str, Linear]:
        """Linear layers by the name of their first part."""
        groups: list[tuple[str, ...]] = [group for group in (self.arch.qkv, self.arch.gate_up) if len(group) > 1]
        groups += [(name,) for name in self.arch.projections if not any(name in group for group in groups)]
        return {group[0]: self._read_linear(layer, group) for group in groups}

    def _weights(self, name: str, layer: str, order: Order = None) -> qlora.Part:
        """A matrix: in int8 or the file's own codes where it is served so, else as its rows' numbers."""
        tensor = self._file.tensor(name)
        form = self._storage.form(layer, tensor, changed=False)

        def read(rows: slice) -> FloatArray:
            return self._file.rows(name, rows if order is None else order[rows])

        def read_tiles(rows: slice) -> tiles.Bytes:
            indices = np.arange(tensor.num_rows)[rows] if order is None else order[rows]
            try:
                return tiles.tiled(self._file.raw_rows(name, indices), tensor.type_name)
            except ValueError as exc:
                raise BadFileError(f"tensor `{name}` of `{self._file.path}` has {exc}", hint="download it again") from exc

        made = qlora.Part(tensor.num_rows, tensor.shape[-1], read, form if form.kind == "int8" else Form("float32"))
        return replace(made, type_name=tensor.type_name, read_tiles=read_tiles) if form.kind == "tiles" else made

    def _read_linear(self, layer: int, group: Sequence[str]) -> Linear:
        weights, biases, parts = [], [], []
        for part in group:
            name, source = f"model.layers.{layer}.{part}", f"blk.{layer}.{self.arch.projections[part]}"
            order = positions.row_order(self.arch, self.sizes, name)
            weights.append(self._weights(f"{source}.weight", name, order))
            if f"{source}.bias" in self._file.tensors:
                bias = self._vector(f"{source}.bias")
                biases.append(bias if order is None else bias[order])
            outputs, inputs = weights[-1].num_rows, weights[-1].num_inputs
            parts.append((name, outputs))
            if layer >= self.frozen:
                seed = zlib.crc32(name.encode(), self._seed % 2**32)
                self.parameters |= qlora.fresh_lora(name, rank=self._rank, inputs=inputs, outputs=outputs, seed=seed)
        return Linear(self._store(weights), torch.cat(biases).to(self.dtype) if biases else None, parts)

    def _rotation(self, sight: Sight) -> tuple[torch.Tensor, float] | None:
        if self.arch.positions != "rope" or not sight.turns:
            return None
        inverse, magnitude = positions.rotation(self._file, self.sizes, sight)
        return torch.from_numpy(inverse).float(), magnitude

    # ---------------------------------------------------------------- the forward pass
    def begin(self, ids_P: Sequence[int]) -> Beginning:
        """The first tokens of every row, read once for all of them."""
        cache: PrefixCache = []
        return Beginning(cache, self._read(torch.tensor([list(ids_P)]), past=0, before=None, keep=cache))

    def read(self, ids_BT: torch.Tensor, beginning: Beginning | None = None) -> torch.Tensor:
        """What the frozen layers say about each token: [B, T, W], f32, without gradients."""
        past, before = (beginning.x_1PW.shape[1], beginning.cache) if beginning else (0, None)
        return self._read(ids_BT, past=past, before=before, keep=None)

    def hidden(self, x_BTW: torch.Tensor, wanted_BT: torch.Tensor, beginning: Beginning | None = None) -> torch.Tensor:
        """What the last layer says about the N wanted of the tokens that were `read`, before the last norm: [N, W], f32, row by row.

        The beginning goes through the learning layers once, beside the rows; gradients flow back through it, too.
        """
        x_MW, wanted_M, past = x_BTW.flatten(0, 1), wanted_BT.flatten(), 0
        if beginning is not None:
            past = beginning.x_1PW.shape[1]
            x_MW, wanted_M = torch.cat([beginning.x_1PW[0], x_MW]), functional.pad(wanted_M, (past, 0))
        places = Places(own=past, past=past, rows=len(x_BTW), length=x_BTW.shape[1])
        return self._through(x_MW, range(self.frozen, self.sizes.layers), places, before=None, keep=None, wanted_M=wanted_M)

    def loss(self, hidden_NW: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of `targets`, each predicted from its row of `hidden`; those below 0 do not count.

        And of each by itself, without gradients: [N].
        """
        return qlora.answer_loss(self._last(hidden_NW), self._head, self._vectors.get("output.bias"), targets_N, self.sizes.logit_cap)

    def losses(self, hidden_NW: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same of each target by itself, and whether it is the likeliest token: both [N], without gradients."""
        losses, hits, head = [], [], self._head.ready()
        with torch.no_grad():
            for hidden, targets in zip(*(rows.split(qlora.AnswerLoss.CHUNK_TOKENS) for rows in (hidden_NW, targets_N)), strict=True):
                logits = self.logits(hidden, head)
                hits.append(logits.argmax(-1) == targets)
                losses.append(kernels.cross_entropy(logits, targets, 1.0))  # the logits are lost
        return torch.cat(losses), torch.cat(hits)

    def logits(self, hidden_NW: torch.Tensor, head: qlora.Matrix | None = None) -> torch.Tensor:
        """Scores of every token of the vocabulary, f32: for some hundred rows at a time. `head`: the output matrix, made ready."""
        logits = (head or self._head).times(self._last(hidden_NW)).float()
        if "output.bias" in self._vectors:
            logits = logits + self._vectors["output.bias"]
        cap = self.sizes.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _last(self, hidden_NW: torch.Tensor) -> torch.Tensor:
        """What logits are products with."""
        x = self._norm(hidden_NW, "output_norm")
        return (x if self.sizes.logit_scale == 1 else x * self.sizes.logit_scale).to(self.dtype)

    def _read(self, ids_BT: torch.Tensor, *, past: int, before: PrefixCache | None, keep: PrefixCache | None) -> torch.Tensor:
        places = Places(own=0, past=past, rows=len(ids_BT), length=ids_BT.shape[1])
        with torch.no_grad():
            x_MW = self._embedded(ids_BT.flatten(), places.all())
            return self._through(x_MW, range(self.frozen), places, before=before, keep=keep).view(*ids_BT.shape, -1)

    def _through(
        self, x_MW: torch.Tensor, layers: range, places: Places, *, before: PrefixCache | None, keep: PrefixCache | None,
        wanted_M: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Through some layers, each with its pair of `before`; `wanted_M` is for the last of them."""
        masks = {local: self._masks(places, local) for local in {sight.local for sight in self._sights}}
        turns = {sight: self._turn(places.all(), sight) for sight in self._rope}
        for at, layer in enumerate(layers):
            sight = self._sights[layer]
            call = Call(
                layer=layer, places=places, lora=self._lora(layer), masks=masks[sight.local], turn=turns[sight],
                before=before[at] if before else None, keep=keep, wanted_M=wanted_M if layer == layers[-1] else None,
            )  # fmt: skip
            if self._frugal and torch.is_grad_enabled():
                x_MW = checkpoint(self._layer, x_MW, call, use_reentrant=False)
            else:
                x_MW = self._layer(x_MW, call)
        return x_MW

    def _lora(self, layer: int) -> Lora:
        """A and each part's B of each linear layer, in the working precision; A of several parts: rows below each other."""
        if layer < self.frozen:
            return None
        found = {}
        for first, linear in self._layers[layer].items():
            a = torch.cat([self.parameters[f"{name}.lora_A.weight"] for name, _ in linear.parts])
            bs = [self.parameters[f"{name}.lora_B.weight"] for name, _ in linear.parts]
            found[first] = [part.to(self.dtype) for part in (a, *bs)]
        return found

    def _embedded(self, ids_M: torch.Tensor, places_M: torch.Tensor) -> torch.Tensor:
        x = self._embedding.rows(ids_M)
        if self.sizes.embedding_scale != 1:
            x = x * self.sizes.embedding_scale
        if self._places is not None:
            x = x + self._places[places_M.clamp(max=len(self._places) - 1)]  # padding may stand beyond the last place
        return self._norm(x, "token_embd_norm") if self.arch.embedding_norm else x

    def _layer(self, x: torch.Tensor, call: Call) -> torch.Tensor:
        block, arch = f"blk.{call.layer}", self.arch
        first = arch.attention_norm(self._vectors, call.layer)
        normed = self._before(x, call, first)
        attended = self._attention(normed, call)
        if call.wanted_M is not None:
            x, normed, attended = (rows[call.wanted_M] for rows in (x, normed, attended))
        attended = self._linear(attended, "self_attn.o_proj", call)
        if arch.post_norms:
            attended = self._norm(attended, f"{block}.post_attention_norm")
        both = x + attended
        if self.sizes.parallel:
            normed = normed if first == arch.mlp_norm else self._before(x, call, arch.mlp_norm)
        else:
            normed = self._before(both, call, arch.mlp_norm)
        y = self._mlp(normed, call)
        return both + (self._norm(y, f"{block}.post_ffw_norm") if arch.post_norms else y)

    def _before(self, x: torch.Tensor, call: Call, norm: str | None) -> torch.Tensor:
        """What attention or MLP read."""
        return x if norm is None else self._norm(x, f"blk.{call.layer}.{norm}")

    def _attention(self, x_MW: torch.Tensor, call: Call) -> torch.Tensor:
        """What each token takes from those it sees, heads side by side: the input of the output projection."""
        sizes, places, before = self.sizes, call.places, call.before
        turning = sizes.heads + sizes.kv_heads
        fused = "self_attn.qkv_proj" if "self_attn.qkv_proj" in self.arch.projections else "self_attn.q_proj"
        y = self._linear(x_MW, fused, call)
        if sizes.clamp_qkv is not None:
            y = y.clamp(-sizes.clamp_qkv, sizes.clamp_qkv)
        both, value = y.unflatten(-1, (turning + sizes.kv_heads, sizes.head_dim)).split([turning, sizes.kv_heads], dim=1)
        if self.arch.qk_norm and not self.arch.turns_before_norms:
            both = self._qk_normed(both, call)
        if call.turn is not None:
            both = kernels.rotate(both, *call.turn)
        if self.arch.turns_before_norms:
            both = self._qk_normed(both, call)
        query, key = both.split([sizes.heads, sizes.kv_heads], dim=1)
        scaled = query * score_scale(self.arch, sizes)
        parts = [part.split([places.own, len(x_MW) - places.own]) for part in (scaled, key, value)]
        query, key, value = (rows.view(places.rows, places.length, *rows.shape[1:]).transpose(1, 2) for _, rows in parts)
        if call.keep is not None:
            call.keep.append((key, value))
        attended = []
        if places.own:
            own_query, own_key, own_value = (own[None].transpose(1, 2) for own, _ in parts)
            attended.append(_attend(own_query, own_key, own_value, call.masks[0], cap=sizes.attention_cap))
            before = (own_key, own_value)
        if before is not None:
            key, value = (
                torch.cat([old.expand(places.rows, -1, -1, -1), new], dim=2) for old, new in zip(before, (key, value), strict=True)
            )
        attended.append(_attend(query, key, value, call.masks[1], cap=sizes.attention_cap))
        return torch.cat([part.transpose(1, 2).flatten(2).flatten(0, 1) for part in attended])

    def _qk_normed(self, both_MHD: torch.Tensor, call: Call) -> torch.Tensor:
        """Queries and keys, one after the other, by the norm of each: of a head's, or of all heads' at once."""
        normed = []
        for name, part in zip("qk", both_MHD.split([self.sizes.heads, self.sizes.kv_heads], dim=1), strict=True):
            whole = part if self.arch.qk_norm == "each head" else part.flatten(1)
            normed.append(self._norm(whole, f"blk.{call.layer}.attn_{name}_norm").view(part.shape))
        return torch.cat(normed, dim=1)

    def _mlp(self, x: torch.Tensor, call: Call) -> torch.Tensor:
        if self.arch.gate_up:
            y = kernels.gate(self._linear(x, self.arch.gate_up[0], call), self.arch.activation)
        else:
            y = ACTIVATIONS[self.arch.activation](self._linear(x, "mlp.up_proj", call))
        return self._linear(y, "mlp.down_proj", call)

    def _linear(self, x_MI: torch.Tensor, first: str, call: Call) -> torch.Tensor:
        linear = self._layers[call.layer][first]
        return qlora.lora_linear(x_MI.to(self.dtype), linear.matrix, linear.bias, *(call.lora[first] if call.lora else [None]))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Over the last axis: in f32, or in the working precision where it is an RMS norm."""
        weight, bias = self._vectors[f"{name}.weight"], self._vectors.get(f"{name}.bias")
        if self.arch.norm == "layer":
            return functional.layer_norm(x.float(), weight.shape, weight, bias, self.sizes.norm_epsilon)
        return kernels.rms_norm(x, weight, self.sizes.norm_epsilon, self.dtype)

    def _turn(self, places_M: torch.Tensor, sight: Sight) -> Pair | None:
        """Cosine and sine of every token's angles, [M, R / 2]; None where a layer does not turn."""
        if (rotation := self._rope[sight]) is None:
            return None
        inverse, magnitude = rotation
        angles = places_M[:, None].float() * inverse
        return angles.cos() * magnitude, angles.sin() * magnitude

    def _masks(self, places: Places, local: bool) -> list[torch.Tensor]:
        """What is added to the scores of the beginning, [P, P], and of a row, [T, K]; with ALiBi a head each, [1, H, T, K].

        Of three dimensions a mask is not for PyTorch's kernel that does without all scores.
        """
        masks = []
        for start, stop in ((0, places.own), (places.past, places.past + places.length)):
            heads = () if self._slopes is None else (1, len(self._slopes))
            masks.append(torch.empty(*heads, stop - start, stop, dtype=self.dtype))
            for at in range(start, stop, MASKED_QUERIES):
                rows = slice(at - start, at - start + MASKED_QUERIES)
                masks[-1][..., rows, :] = self._mask(torch.arange(at, min(at + MASKED_QUERIES, stop)), torch.arange(stop), local)
        return masks

    def _mask(self, queries_T: torch.Tensor, keys_K: torch.Tensor, local: bool) -> torch.Tensor:
        """See `_masks`, in f32."""
        seen = keys_K <= queries_T[:, None]
        if local and self.sizes.window is not None:
            seen &= keys_K > queries_T[:, None] - self.sizes.window
        bias = torch.zeros(seen.shape)
        if self._slopes is not None:
            # by distance, which bf16 holds well where it matters; by place a softmax is the same, and its last bits are lost
            bias = torch.from_numpy(self._slopes)[:, None, None] * (keys_K - queries_T[:, None])
        return bias.masked_fill(~seen, -torch.inf)


def num_masked(arch: Architecture, sizes: Dimensions, own: int, length: int) -> int:
    """How many numbers the masks of a pass hold, with `own` tokens of a beginning before rows of so many."""
    kinds = len({sight.local for sight in sights(arch, sizes)})
    heads = sizes.heads if arch.positions == "alibi" else 1
    return kinds * heads * (own**2 + length * (own + length))


def holds_scores(length: int, seen: int, *, capped: bool) -> bool:
    """Whether attention of so many tokens of a row to so many holds all its scores, or each head's copy of keys and values."""
    return capped or length * seen <= SHORT_SCORES


def _attend(
    query_BHTD: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, *, cap: float | None = None
) -> torch.Tensor:
    """Attention of queries that are scaled already; `key` and `value` are [B, heads of their own, K, D]. Returns [B, H, T, D].

    Short rows: two products, the queries of a key's heads side by side, since PyTorch's kernel takes twice the time
    (docs/tried/tuning-speed.md).
    Long rows: that kernel, which never holds all scores, and cannot cap them.
    """
    rows, heads, length, _ = query_BHTD.shape
    kv_heads, seen = key.shape[1:3]
    if not holds_scores(length, seen, capped=cap is not None):
        key, value = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (key, value))
        return functional.scaled_dot_product_attention(query_BHTD, key, value, attn_mask=mask, scale=1.0)
    scores = query_BHTD.reshape(rows, kv_heads, -1, query_BHTD.shape[-1]) @ key.transpose(2, 3)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    scores = (scores.view(rows, heads, length, seen) + mask).softmax(-1)
    return (scores.view(rows, kv_heads, -1, seen) @ value).view(rows, heads, length, -1)
