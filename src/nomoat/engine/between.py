"""Graphs of the usual decoders whose weights stay the file's own codes: all between two layers' attention is one operation.

Usual is: RMS norms before attention and MLP, a gate of SiLU, one after the other (LLaMA, Mistral, Qwen, Phi-3).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import openvino as ov
from openvino import opset13 as op

from nomoat.engine import positions, short
from nomoat.engine.graph import GraphBuilder, Source
from nomoat.engine.positions import Node
from nomoat.engine.product import BetweenAttentions, Weights
from nomoat.engine.tiles import TILE_ROWS

GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


class BetweenBuilder(GraphBuilder):
    """What `GraphBuilder` is. Only for what `can_build` is true of."""

    def can_build(self) -> bool:
        """Whether this model is a usual one, with all its layers' weights in tiles."""
        arch, sizes = self.arch, self.sizes
        is_usual = (
            arch.norm == "rms" and arch.activation == "silu" and not arch.post_norms and not sizes.parallel and not sizes.norms_last
        )
        has_gate = "mlp.gate_proj" in arch.projections or "mlp.gate_up_proj" in arch.projections
        if not (is_usual and has_gate and sizes.clamp_qkv is None and self.storage.fused):
            return False
        return all(self._in_tiles(layer) for layer in range(sizes.layers))

    def _in_tiles(self, layer: int) -> bool:
        parts = [self._source(layer, name) for name in self.arch.projections]
        gate_and_up = {self.file.tensor(part.tensor).type_name for part in self._gate_up(layer)}
        return len(gate_and_up) == 1 and all(self._form(part).kind == "tiles" for part in parts)

    def _gate_up(self, layer: int) -> list[Source]:
        names = ("mlp.gate_up_proj",) if "mlp.gate_up_proj" in self.arch.projections else GATE_UP
        return [self._source(layer, name) for name in names]

    def _build(self) -> ov.Model:
        model = super()._build()
        facts = short.facts_of(self.arch, self.sizes, positions.inverse_frequencies(self.file, self.sizes))
        if facts is not None:
            model.set_rt_info(json.dumps(facts), short.FACTS)
        return model

    def _layers(self, x: Node) -> Node:
        x, parts = self._between(None, x, -1)
        for layer in range(self.sizes.layers):
            x, parts = self._between(self._seen(parts, layer), x, layer)
            self._tell(layer + 1)
        return x

    def _between(self, seen: Node | None, residual: Node, layer: int) -> tuple[Node, list[Node]]:
        """From a layer's attention (-1: the embedding) to the next one's: the residual, its queries, keys and values."""
        given = Weights()

        def product(kind: str, parts: Sequence[Source]) -> None:
            made = self._tiles(parts)
            given.add(kind, self.file.tensor(parts[0].tensor).type_name, len(made) * TILE_ROWS, made, self._biases(parts))

        def norm(tensor_name: str) -> None:
            weight = self.file.rows(f"{tensor_name}.weight")
            given.add("norm", "", len(weight), None, weight)

        if seen is not None:
            product("add", [self._source(layer, "self_attn.o_proj")])
            norm(f"blk.{layer}.{self.arch.mlp_norm}")
            product("gated", self._gate_up(layer))
            product("add", [self._source(layer, "mlp.down_proj")])
        groups: list[list[Source]] = []
        if layer + 1 < self.sizes.layers:
            norm(f"blk.{layer + 1}.{self.arch.attention_norms[0]}")
            groups = self._queries_keys_values(layer + 1)
            for group in groups:
                product("out", group)
        steps, whole = given.finished()
        self._arrays.append(whole)
        inputs = [*([] if seen is None else [seen]), residual, op.constant(whole, shared_memory=True)]
        made = BetweenAttentions(inputs, steps=steps, first=int(seen is None), epsilon=self.sizes.norm_epsilon)
        outputs = made.outputs()
        return outputs[0], [one for y, group in zip(outputs[1:], groups, strict=True) for one in self._split(y, group)]

    def _queries_keys_values(self, layer: int) -> list[list[Source]]:
        """Those of one type are one product."""
        names = ("self_attn.qkv_proj",) if "self_attn.qkv_proj" in self.arch.projections else QKV
        parts = (self._source(layer, name) for name in names)
        return [list(group) for _, group in itertools.groupby(parts, self._apart)]
