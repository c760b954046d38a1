"""A usual model in its file's own codes, run by nomoat alone: each pass, from token ids to logits, is one call of `program`.

OpenVINO needs 0.2 ms for what it does around each layer of a pass over one token, and a second to compile a model (docs/log.md). It is
not asked here; the folder's graph says which weights are which.

Shapes: T tokens of all rows, W tokens whose logits are wanted, V vocabulary, D width, H heads of a head width.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import tiles
from nomoat.engine.attention import BLOCK_TOKENS
from nomoat.engine.paged import PagedModel, Row
from nomoat.engine.product import parsed_steps


class OwnModel:
    """What `PagedModel` is, see the module. One thread at a time."""

    takes_many = True
    largest_pass = PagedModel.largest_pass

    @classmethod
    def of(cls, folder: Path) -> OwnModel | None:
        """For a folder that `between.BetweenBuilder` wrote, with `between.facts_of` it, whose embedding and output are in tiles."""
        from nomoat.engine.between import FACTS
        from nomoat.engine.compiled import core

        model = core().read_model(folder / "openvino_model.xml")
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
        self.vocabulary = int(told["rows"])
        self._layer_bytes = 2 * facts["kv_heads"] * BLOCK_TOKENS * facts["head_dim"]  # of a block's keys in float16, or its values
        self._layers = len(programs) - 1
        self.block_bytes = 2 * self._layers * self._layer_bytes

    def allocate(self, num_blocks: int) -> None:
        """Room for so many blocks. The operating system gives the memory when a block is first written.

        It is mapped as shared, though nobody shares it, so that `hugepages` tells it from weights: it would make all of it real.
        """
        self._memory = [[mmap.mmap(-1, num_blocks * self._layer_bytes) for _ in ("keys", "values")] for _ in range(self._layers)]
        places = [[np.frombuffer(part, np.uint8).ctypes.data for part in layer] for layer in self._memory]
        self._chain.use([(keys, values) for keys, values in places])

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass."""
        lengths_N = np.array([len(row.ids) for row in rows], np.int64)
        ids_T = np.concatenate([row.ids for row in rows]).astype(np.int64)
        places_T = np.concatenate([np.arange(row.past, row.past + len(row.ids)) for row in rows])
        blocks = [row.blocks[: -(-(row.past + len(row.ids)) // BLOCK_TOKENS)] for row in rows]
        first_blocks_T = np.repeat(np.cumsum([0, *map(len, blocks)])[:-1], lengths_N)
        ends = np.cumsum(lengths_N)
        wanted_W = np.concatenate([np.arange(end - row.wanted, end) for row, end in zip(rows, ends, strict=True)])
        angles = places_T.astype(np.float32)[:, None] * self._inverse
        cosines, sines = np.cos(angles) * self._magnitude, np.sin(angles) * self._magnitude
        x_TD = tiles.rows_of(self._table, self._table_type, ids_T)
        listed = np.concatenate(blocks).astype(np.int64)
        return self._chain.run(x_TD, places_T, listed, first_blocks_T, lengths_N, cosines, sines, wanted_W)


def _constant(node: Any, at: int) -> Any:
    return node.input_value(at % node.get_input_size()).get_node().data
