"""A usual model in its file's own codes, run by nomoat alone: each pass, from token ids to logits, is one call of `program`.

OpenVINO needs 0.2 ms for what it does around each layer of a pass over one token, and a second to compile a model
(docs/tried/openvino.md). It is not asked here, nor imported; `NATIVE`, written with an import, says which weights are which.

Shapes: T tokens of all rows, W tokens whose logits are wanted, V vocabulary, D width, H heads of a head width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from nomoat import footprint
from nomoat.engine import hugepages, tiles
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.imported import GRAPH, NATIVE, WEIGHTS, not_whole
from nomoat.engine.paged import PagedModel, Row
from nomoat.progress import Progress

if TYPE_CHECKING:
    from nomoat.engine.lora import LoraDelta
    from nomoat.engine.program import Program

COMPILE = """
import sys
from nomoat import machine_code
from nomoat.engine import chain
machine_code.compile_all(chain.functions(sys.argv[1:]))
"""
FEW_TOKENS, MOST_KEPT = 8, 1024  # of a pass whose tokens' embeddings are kept, and how many are
FACTS = ("nomoat", "attention")  # the path in a graph's `rt_info` of its `AttentionFacts`


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFacts:
    """What a model's file tells of its attention, embedding and output. 0 stands for no window and no cap.

    A view is how a layer sees: how far back, and how positions turn; `layers` says which of the views each has. `norms`: of each layer
    those of queries and of keys, of a head or of all at once, or none at all. `sinks`: of each layer each head's, or none at all.
    `parts`: of each step of each `FusedBlock` the layers it is made of, and the rows of each.
    """

    heads: int
    kv_heads: int
    head_dim: int
    norms: Sequence[Sequence[Sequence[float]]]
    scale: float
    cap: float
    views: Sequence[dict[str, Any]]
    layers: Sequence[int]
    embedding_scale: float
    logit_scale: float
    logit_cap: float
    vocabulary: int
    parts: Sequence[Sequence[Sequence[tuple[str, int]]]]
    sinks: Sequence[Sequence[float]] = ()


class Blueprint:
    """What `NATIVE` tells of an imported folder. Of a model that is not run here that is the types of its tiles alone, and there are
    none of these attributes."""

    facts: AttentionFacts
    embedding: dict[str, Any]
    head: dict[str, Any]
    norm: Sequence[int]
    programs: Sequence[dict[str, Any]]

    def __init__(self, folder: Path) -> None:
        """Raises BadFileError if the folder is not whole."""
        self.folder = folder
        try:
            told = json.loads((folder / NATIVE).read_text(encoding="utf-8"))
            self._types: list[str] = told.pop("types")
            self._is_run_here = bool(told)
            if told:
                self.facts = AttentionFacts(**told["facts"])
                self.embedding, self.head, self.norm, self.programs = (
                    told[name] for name in ("embedding", "head", "norm", "programs")
                )
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
            raise not_whole(folder) from exc

    def can_run(self, adapters: Sequence[LoraDelta] = ()) -> bool:
        """Whether `fused.FusedBuilder` wrote it, with facts of its attention, its embedding and output in tiles, and its steps are
        made of all the layers that the adapters change. Then `facts`, `embedding`, `head`, `norm` and `programs` are there.
        """
        if not self._is_run_here:
            return False
        layers = {name for steps in self.facts.parts for parts in steps for name, _ in parts}
        return all(layers.issuperset(adapter.layers) for adapter in adapters)

    def number_sizes(self, quality: str) -> tuple[int, int]:
        """See `footprint.kv_sizes`."""
        steps = [step for block in self.programs for step in json.loads(block["steps"])]
        biased = any(kind == "out" and vector >= 0 for kind, *_, vector in steps)
        return footprint.kv_sizes(self.facts.head_dim, uneven_keys=biased or bool(self.facts.norms), quality=quality)

    def cache_bytes_a_token(self, quality: str) -> int:
        """Of a token's keys and values."""
        facts = self.facts
        return footprint.kv_bytes_a_token(len(facts.layers), facts.kv_heads, facts.head_dim, self.number_sizes(quality))

    def compile_once(self, progress: Progress | None = None, *, adapters: bool) -> None:
        """Have all here that the model needs compiled, nothing for one without tiles: by another process, see `machine_code`, and by
        this one what is not kept after that. Raises NotEnoughDiskError, NotWritableError.

        `adapters`: what those beside its weights need as well.
        """
        from nomoat import machine_code
        from nomoat.engine import chain

        if types := self.types(adapters=adapters):
            functions = chain.functions(types)
            if not all(function.is_kept for function in functions):
                machine_code.compile_elsewhere("-".join(types), COMPILE, *types, progress=progress)
            for function in functions:
                _ = function.address

    def types(self, *, adapters: bool) -> list[str]:
        """Of all matrices in tiles that the model multiplies by."""
        return sorted({*self._types, *([tiles.WHOLE_BYTES] if self._types and adapters else ())})


class NativeModel:
    """Runs passes as `PagedModel` does, without OpenVINO: see the module. One thread at a time."""

    takes_many = True
    largest_pass = PagedModel.largest_pass

    def __init__(self, blueprint: Blueprint, adapters: Sequence[LoraDelta] = (), quality: str = "default") -> None:
        """Of one that `can_run` is true of; the weights stay where they are, in its folder's file. Raises BadFileError."""
        from nomoat.engine.attention_tables import MANY_TOKENS
        from nomoat.engine.chain import Chain
        from nomoat.engine.program import Program, mixes_experts
        from nomoat.engine.step_tables import LAST_LAYERS, Step, panels_from

        folder, facts, head = blueprint.folder, blueprint.facts, blueprint.head
        try:
            weights = self._weights = np.memmap(folder / WEIGHTS, np.uint8, "r")
        except (FileNotFoundError, ValueError) as exc:  # the second of an empty one
            raise not_whole(folder) from exc

        def constant(at: Sequence[int]) -> npt.NDArray[np.uint8]:
            start, size = at
            if start + size > len(weights):
                raise not_whole(folder)
            return weights[start : start + size]

        self._table = constant(blueprint.embedding["at"]).reshape(int(head["rows"]) // tiles.TILE_ROWS, -1)
        self._table_type = blueprint.embedding["type_name"]
        norm = constant(blueprint.norm).view(np.float32)
        self._embedding_scale, self._logit_cap = np.float32(facts.embedding_scale), np.float32(facts.logit_cap)
        self._logit_scale = np.float32(facts.logit_scale)
        width, seen = len(norm), facts.heads * facts.head_dim
        self._kept: dict[int, npt.NDArray[np.float32]] = {}  # the embedding of some tokens
        self._width = width
        programs, all_steps = [], [json.loads(block["steps"]) for block in blueprint.programs]
        has_experts = any(map(mixes_experts, all_steps))
        for number, (block, steps) in enumerate(zip(blueprint.programs, all_steps, strict=True)):
            address, columns = constant(block["at"]).ctypes.data, seen if number else width
            epsilon, chunk, is_last = float(block["epsilon"]), int(block["chunk"]), number >= len(all_steps) - LAST_LAYERS
            programs.append(
                Program(steps, address, columns, width=width, epsilon=epsilon, chunk=chunk, is_last=is_last, has_experts=has_experts)
            )
            if adapters:
                _add_beside(programs[-1], facts.parts[number], adapters)
        self.vocabulary = facts.vocabulary
        step = ("out", head["type_name"], int(head["rows"]), 0, -1)
        last = Program([step], constant(head["at"]).ctypes.data, width, chunk=int(head["chunk"]), has_experts=has_experts)
        self._chain = Chain(programs, last, norm, facts, blueprint.number_sizes(quality))
        # of so many tokens, or more, a prompt's part is computed the same way; fewer round otherwise
        self.alike_from = max(MANY_TOKENS, panels_from(int(last.steps[0, Step.CHUNK])))
        self.block_bytes = BLOCK_TOKENS * blueprint.cache_bytes_a_token(quality)
        self.mapped_bytes = len(weights)

    def allocate(self, num_blocks: int) -> None:
        """Room for so many blocks. The operating system gives the memory when a block is first written."""
        self._memory = hugepages.memory(num_blocks * self.block_bytes)
        self._chain.use(self._memory.ctypes.data)

    def copy_block(self, source: int, target: int) -> None:
        """Its keys and values, of all layers."""
        memory_NB = self._memory.reshape(-1, self.block_bytes)
        memory_NB[target] = memory_NB[source]

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass.

        The states are none at all if no row wants them: then the last layer is not computed for tokens without wanted logits.
        """
        counts = [-(-(row.past + len(row.ids)) // BLOCK_TOKENS) for row in rows]
        owners = [-1 if row.adapter is None else row.adapter for row in rows]
        told = [(len(row.ids), row.past, row.wanted, *others) for row, *others in zip(rows, counts, owners, strict=True)]
        blocks = [block for row, count in zip(rows, counts, strict=True) for block in row.blocks[:count]]
        x_TD = self._embedded([token for row in rows for token in row.ids])
        hidden = any(row.hidden for row in rows)
        logits_WR, states = self._chain.run(x_TD, np.array(told, np.int64), np.array(blocks, np.int64), hidden=hidden)
        logits = logits_WR[:, : self.vocabulary]
        if self._logit_scale != 1:
            logits *= self._logit_scale
        if self._logit_cap:
            np.tanh(np.divide(logits, self._logit_cap, out=logits), out=logits)
            logits *= self._logit_cap
        return logits, states

    def _embedded(self, ids_T: Sequence[int]) -> npt.NDArray[np.float32]:
        """[T, D]. Answers say the same words again and again: theirs are kept."""
        if len(ids_T) > FEW_TOKENS:
            return self._rows(ids_T)
        x_TD = np.empty((len(ids_T), self._width), np.float32)
        for at, token in enumerate(ids_T):
            row = self._kept.get(token)
            if row is None:
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                row = self._kept[token] = self._rows([token])[0]
            x_TD[at] = row
        return x_TD

    def _rows(self, ids_T: Sequence[int]) -> npt.NDArray[np.float32]:
        found_TD = tiles.rows_of(self._table, self._table_type, np.array(ids_T))
        return found_TD if self._embedding_scale == 1 else found_TD * self._embedding_scale


def _add_beside(program: Program, parts: Sequence[Sequence[tuple[str, int]]], adapters: Sequence[LoraDelta]) -> None:
    """Let the adapters add to each step's result, where they change a layer it is made of."""
    from nomoat.engine.adapters import beside
    from nomoat.engine.step_tables import Step

    for number, of_step in enumerate(parts):
        added = beside(of_step, int(program.steps[number, Step.COLUMNS]), adapters) if of_step else None
        if added is not None:
            program.add_beside(number, added)


def write_native(folder: Path) -> None:
    """Write `NATIVE` beside a graph: the types of all tiles, and of a model that is run here the place in `WEIGHTS` of each part."""
    graph = _Graph(folder)
    told: dict[str, Any] = {"types": graph.types() if graph.facts else []}
    if graph.facts and all(len(graph.of_type(name)) == 1 for name in ("TiledRows", "TiledProduct")):
        (looked_up,), (head,) = (graph.of_type(name) for name in ("TiledRows", "TiledProduct"))
        programs = [{**graph.told(step), "at": graph.place(step, -1)} for step in graph.of_type("FusedBlock")]
        told |= {
            "facts": graph.facts, "embedding": {**graph.told(looked_up), "at": graph.place(looked_up, 0)},
            "head": {**graph.told(head), "at": graph.place(head, 1)}, "norm": graph.place(graph.source(head, 0), 1),
            "programs": programs,
        }  # fmt: skip
    (folder / NATIVE).write_text(json.dumps(told), encoding="utf-8", newline="\n")


class _Graph:
    """The operations of a folder, as OpenVINO wrote them."""

    def __init__(self, folder: Path) -> None:
        root = ElementTree.parse(folder / GRAPH).getroot()
        told = root.find("/".join(("rt_info", *FACTS)))
        self.facts: dict[str, Any] = {} if told is None else dict(json.loads(told.get("value", "")))
        self._layers = {layer.get("id"): layer for layer in root.iterfind("layers/layer")}
        self._sources = {(edge.get("to-layer"), edge.get("to-port")): edge.get("from-layer") for edge in root.iterfind("edges/edge")}

    def of_type(self, name: str) -> list[Any]:
        """In the order they are computed."""
        return [layer for layer in self._layers.values() if layer.get("type") == name]

    def told(self, operation: Any) -> dict[str, str]:
        """Its attributes."""
        return dict(operation.find("data").attrib)

    def source(self, operation: Any, at: int) -> Any:
        """What gives an operation's input; the last one's for -1."""
        ports = operation.findall("input/port")
        return self._layers[self._sources[operation.get("id"), ports[at].get("id")]]

    def place(self, operation: Any, at: int) -> list[int]:
        """Where the bytes of an input begin in `WEIGHTS`, and how many they are."""
        told = self.told(self.source(operation, at))
        return [int(told["offset"]), int(told["size"])]

    def types(self) -> list[str]:
        """Of the tiles that any operation multiplies by."""
        told = [self.told(found) for kind in ("TiledRows", "TiledProduct", "FusedBlock") for found in self.of_type(kind)]
        types = {step[1] for each in told for step in json.loads(each.get("steps", "[]"))}
        return sorted((types | {each.get("type_name", "") for each in told}) - {""})
