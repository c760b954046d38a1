"""Graphs of the usual decoders whose weights stay the file's own codes: all between two layers' attention is one operation.

Usual is: RMS norms before attention and MLP, around or after them, a gate, one after the other (LLaMA, Qwen, Phi-3, Gemma, EXAONE).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from nomoat.engine import positions
from nomoat.engine.arch import ROUTERS, Architecture, Dimensions, Sight, has_usual_attention, is_usual, score_scale, sights
from nomoat.engine.custom_ops import FusedBlock, Weights
from nomoat.engine.graph import GraphBuilder, Source
from nomoat.engine.native import FACTS, AttentionFacts
from nomoat.engine.positions import Node
from nomoat.engine.source import ModelSource
from nomoat.engine.tiles import TILE_ROWS, WHOLE_BYTES


def facts_of(arch: Architecture, sizes: Dimensions, file: ModelSource, parts: list[list[list[tuple[str, int]]]]) -> AttentionFacts:
    """For an imported model. `parts`: see `AttentionFacts`."""
    layers = range(sizes.layers)
    normed = layers if arch.qk_norm else ()
    norms = [[file.rows(f"blk.{layer}.attn_{part}_norm.weight").tolist() for part in "qk"] for layer in normed]
    of_layers = sights(arch, sizes)
    kinds = sorted(set(of_layers))
    return AttentionFacts(
        heads=sizes.heads, kv_heads=sizes.kv_heads, head_dim=sizes.head_dim, norms=norms,
        sinks=[file.rows(f"blk.{layer}.attn_sinks.weight").tolist() for layer in layers] if arch.sinks else [],
        scale=score_scale(arch, sizes), cap=sizes.attention_cap or 0,
        views=[_view(sizes, file, sight) for sight in kinds], layers=[kinds.index(sight) for sight in of_layers],
        embedding_scale=sizes.embedding_scale, logit_scale=sizes.logit_scale, logit_cap=sizes.logit_cap or 0,
        vocabulary=sizes.vocabulary, parts=parts,
    )  # fmt: skip


def _view(sizes: Dimensions, file: ModelSource, sight: Sight) -> dict[str, Any]:
    inverse, magnitude = positions.rotation(file, sizes, sight)
    return {"window": (sizes.window or 0) if sight.local else 0, "inverse": inverse.tolist(), "magnitude": magnitude}


class FusedBuilder(GraphBuilder):
    """Builds graphs as `GraphBuilder` does, of fused blocks. Only for what `can_build` is true of."""

    def can_build(self) -> bool:
        """Whether this model is a usual one, with all its layers' weights in tiles."""
        if not (is_usual(self.arch, self.sizes) and self.storage.fused):
            return False
        layers, names = range(self.sizes.layers), [name for name in self.arch.projections if name not in ROUTERS]
        return all(self._form(self._source(layer, name)).is_tiled for layer in layers for name in names)

    def _build(self) -> ov.Model:
        self._parts: list[list[list[tuple[str, int]]]] = []
        model = super()._build()
        if has_usual_attention(self.arch, self.sizes):
            facts = facts_of(self.arch, self.sizes, self.file, self._parts)
            model.set_rt_info(json.dumps(asdict(facts)), list(FACTS))
        return model

    def _layers(self, x: Node) -> Node:
        x, parts = self._fused(None, x, -1)
        for layer in range(self.sizes.layers):
            x, parts = self._fused(self._seen(parts, layer), x, layer)
            self._tell(layer + 1)
        return x

    def _mix(self, given: Weights, product: Callable[..., None], layer: int) -> None:
        """Add the steps of a mixture of experts."""
        (router, bias), mixture = self._router(layer), (self.sizes.experts, self.sizes.experts_chosen)
        choice = "choose" if self.sizes.experts_normed else "choose_of_all"
        given.add(choice, "", len(router), None, np.concatenate([router.reshape(-1), bias]), *mixture)
        self._parts[-1].append([])
        if self.arch.has_shared_expert:
            product("gated", [self._source(layer, f"mlp.shared_expert.{name}_proj") for name in ("gate", "up")])
            product("hold", [self._source(layer, "mlp.shared_expert.down_proj")])
            given.add("add_shared", "", self.sizes.width, None, None, *mixture)
            self._parts[-1].append([])
        gate_up = [self._source(layer, f"mlp.experts.{name}_proj") for name in ("gate", "up")]
        product("experts_clamped" if self.arch.activation == "clamped" else "experts_gated", gate_up, *mixture)
        product("experts_add", [self._source(layer, "mlp.experts.down_proj")], *mixture)

    def _fused(self, seen: Node | None, residual: Node, layer: int) -> tuple[Node, list[Node]]:
        """From a layer's attention (-1: the embedding) to the next one's: the residual, its queries, keys and values."""
        given = Weights()
        products: list[tuple[Sequence[Source], str, int]] = []
        self._parts.append([])

        def product(kind: str, parts: Sequence[Source], *mixture: int) -> None:
            types, experts = {self._tile_type(part) for part in parts}, mixture[0] if mixture else 1
            type_name = types.pop() if len(types) == 1 else WHOLE_BYTES
            shape, biases = self._tiles_shape(parts, type_name), self._biases(parts, experts)
            given.add(kind, type_name, shape[0] * TILE_ROWS // experts, shape, biases, *mixture)
            products.append((parts, type_name, experts))
            made_of = () if mixture else parts  # an adapter is not added to experts
            self._parts[-1].append([(part.layer, self.file.tensor(part.tensor).num_rows) for part in made_of])

        def norm(kind: str, at: int, name: str | None) -> None:
            weight = None if name is None else self.file.rows(f"blk.{at}.{name}.weight")
            given.add(kind, "", self.sizes.width, None, weight)
            self._parts[-1].append([])

        def add(part: str, post_norm: str) -> None:
            product("hold" if self.arch.post_norms else "add", [self._source(layer, part)])
            if self.arch.post_norms:
                norm("add_norm", layer, post_norm)

        if seen is not None:
            add("self_attn.o_proj", "post_attention_norm")
            norm("norm", layer, self.arch.mlp_norm)
            if self.arch.has_experts:
                self._mix(given, product, layer)
            else:
                kind = "gated" if self.arch.activation == "silu" else "gelu_gated"
                product(kind, [self._source(layer, name) for name in self.arch.gate_up])
                add("mlp.down_proj", "post_ffw_norm")
        groups: list[list[Source]] = []
        if layer + 1 < self.sizes.layers:
            norm("norm", layer + 1, next(iter(self.arch.attention_norms), None))
            groups = self._queries_keys_values(layer + 1)
            for group in groups:
                product("out", group)
        steps, whole, tiles = given.finished()
        self._fill([(*product, made) for product, made in zip(products, tiles, strict=True)])
        self._arrays.append(whole)
        inputs = [*([] if seen is None else [seen]), residual, op.constant(whole, shared_memory=True)]
        told = {"epsilon": self.sizes.norm_epsilon, "chunk": self._chunk}
        made = FusedBlock(inputs, steps=steps, first=int(seen is None), **told)
        outputs = made.outputs()
        return outputs[0], [one for y, group in zip(outputs[1:], groups, strict=True) for one in self._split(y, group)]

    def _queries_keys_values(self, layer: int) -> list[list[Source]]:
        """Those of one type are one product."""
        parts = (self._source(layer, name) for name in self.arch.qkv)
        return [list(group) for _, group in itertools.groupby(parts, self._apart)]
