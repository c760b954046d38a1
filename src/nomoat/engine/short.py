"""Passes over a few tokens of a usual model in its file's own codes, from token ids to logits in one call of `program`.

OpenVINO needs 0.2 ms for what it does around each layer of such a pass, which is a fifth of an answer's time (docs/log.md). So answers
are written here, where prompts are read by OpenVINO: both use the same keys and values.

Shapes: T tokens of all rows, W tokens whose logits are wanted, V vocabulary, D width, H heads of a head width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import arch as architectures
from nomoat.engine import positions, tiles
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.product import parsed_steps
from nomoat.engine.source import ModelSource

FACTS = ["nomoat", "attention"]  # where a model's file tells them
MOST_TOKENS = 48  # with more, OpenVINO reads them faster, whose attention reads keys for many tokens at once


def facts_of(arch: Architecture, sizes: Dimensions, file: ModelSource) -> dict[str, Any]:
    """What a model's file is to tell of its attention."""
    layers = range(sizes.layers if arch.qk_norm else 0)
    norms = [[file.rows(f"blk.{layer}.attn_{part}_norm.weight").tolist() for part in "qk"] for layer in layers]
    return {
        "heads": sizes.heads, "kv_heads": sizes.kv_heads, "head_dim": sizes.head_dim, "norms": norms,
        "window": architectures.windows(arch, sizes).pop() or 0,
        "inverse": positions.inverse_frequencies(file, sizes).tolist(), "magnitude": sizes.rope_magnitude,
    }  # fmt: skip


class ShortPasses:
    """See the module. One thread at a time."""

    @classmethod
    def of(cls, model: Any) -> ShortPasses | None:
        """For a model that `between.BetweenBuilder` made, with the facts of its attention, whose embedding and output are in tiles."""
        if not model.has_rt_info(FACTS):
            return None
        found: dict[str, list[Any]] = {"TiledRows": [], "BetweenAttentions": [], "TiledProduct": []}
        for node in model.get_ordered_ops():
            found.get(node.get_type_name(), []).append(node)
        is_whole = len(found["TiledRows"]) == len(found["TiledProduct"]) == 1
        return cls(json.loads(str(model.get_rt_info(FACTS).value)), found) if is_whole else None

    def __init__(self, facts: dict[str, Any], found: Mapping[str, Sequence[Any]]) -> None:
        """`found`: the operations of a graph, by kind. Their weights stay where they are."""
        from nomoat.engine.chain import Chain
        from nomoat.engine.program import Program

        (looked_up,), (head,) = found["TiledRows"], found["TiledProduct"]
        self._table, self._table_type = _constant(looked_up, 0), looked_up.get_attributes()["type_name"]
        norm, self._head = _constant(head.input_value(0).get_node(), 1).reshape(-1), _constant(head, 1)
        self._inverse = np.array(facts["inverse"], np.float32)
        self._magnitude = np.float32(facts["magnitude"])
        self._weights = [_constant(node, -1) for node in found["BetweenAttentions"]]
        width, seen = len(norm), facts["heads"] * facts["head_dim"]
        programs = []
        for number, (node, weights) in enumerate(zip(found["BetweenAttentions"], self._weights, strict=True)):
            told = node.get_attributes()
            steps = parsed_steps(told["steps"])
            programs.append(Program(steps, weights.ctypes.data, seen if number else width, width=width, epsilon=told["epsilon"]))
        told = head.get_attributes()
        last = Program([["out", told["type_name"], told["rows"], 0, -1]], self._head.ctypes.data, width)
        self._chain = Chain(programs, last, norm, facts)

    def use(self, caches: Mapping[str, npt.NDArray[Any]]) -> None:
        """The keys and values of all layers, as OpenVINO names them, in float16."""
        layers = range(len(self._weights) - 1)
        self._chain.use([(caches[f"key_cache.{layer}"].ctypes.data, caches[f"value_cache.{layer}"].ctypes.data) for layer in layers])

    def run(
        self, ids_T: npt.NDArray[np.int64], places_T: npt.NDArray[np.int64], blocks: Sequence[Sequence[int]], lengths: Sequence[int],
        wanted_W: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:  # fmt: skip
        """What `PagedModel.run` gives, of rows with so many new tokens each and these blocks."""
        first_blocks = np.repeat(np.cumsum([0, *map(len, blocks)])[:-1], lengths)
        angles = places_T.astype(np.float32)[:, None] * self._inverse
        cosines, sines = np.cos(angles) * self._magnitude, np.sin(angles) * self._magnitude
        x_TD = tiles.rows_of(self._table, self._table_type, ids_T)
        listed = np.concatenate(blocks).astype(np.int64)
        numbers = np.array(lengths, np.int64)
        return self._chain.run(x_TD, places_T, listed, first_blocks.astype(np.int64), numbers, cosines, sines, wanted_W)


def _constant(node: Any, at: int) -> Any:
    return node.input_value(at % node.get_input_size()).get_node().data
