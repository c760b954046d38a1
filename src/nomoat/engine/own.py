"""A usual model in its file's own codes, run by nomoat alone: each pass, from token ids to logits, is one call of `program`.

OpenVINO needs 0.2 ms for what it does around each layer of a pass over one token, and a second to compile a model (docs/log.md). It is
not asked here, nor imported; the folder's graph says which weights are which.

Shapes: T tokens of all rows, W tokens whose logits are wanted, V vocabulary, D width, H heads of a head width.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from nomoat.engine import hugepages, tiles
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.paged import PagedModel, Row
from nomoat.errors import BadFileError

if TYPE_CHECKING:
    from nomoat.engine.lora import LoraDelta
    from nomoat.engine.program import Program

FEW_TOKENS, MOST_KEPT = 8, 1024  # of a pass whose tokens' embeddings are kept, and how many are
GRAPH, WEIGHTS = "openvino_model.xml", "openvino_model.bin"
FACTS = ("nomoat", "attention")  # where a folder tells them, see `between.facts_of`

FACT_NAMES = frozenset(
    (
        "heads",
        "kv_heads",
        "head_dim",
        "norms",
        "scale",
        "cap",
        "views",
        "layers",
        "embedding_scale",
        "logit_cap",
        "vocabulary",
        "parts",
    )
)


class OwnModel:
    """What `PagedModel` is, see the module. One thread at a time."""

    takes_many = True  # `alike_from`: of so many tokens, or more, a prompt's part is computed the same way; fewer round otherwise
    largest_pass = PagedModel.largest_pass

    @classmethod
    def of(cls, folder: Path, adapters: Sequence[LoraDelta] = ()) -> OwnModel | None:
        """For a folder that `can_run` is true of, with adapters beside its weights. Raises BadFileError if the folder is not whole."""
        graph = _graph_of(folder)
        return cls(graph, adapters) if graph.can_run(adapters) else None

    @classmethod
    def can_run(cls, folder: Path, adapters: Sequence[LoraDelta] = ()) -> bool:
        """Whether `between.BetweenBuilder` wrote it, with facts of its attention, its embedding and output in tiles, and its steps are
        made of all the layers that the adapters change. Raises BadFileError if the folder is not whole.
        """
        return _graph_of(folder).can_run(adapters)

    @classmethod
    def prepare(cls, folder: Path, progress: Callable[[int, int], None], *, adapters: bool = False) -> None:
        """Compile what a folder's model needs, see `chain.prepare`; nothing for one that is not run so. Raises BadFileError, too.

        `adapters`: what those beside its weights need as well.
        """
        from nomoat.engine import chain

        graph = _graph_of(folder)
        if graph.facts:
            kinds = ("TiledRows", "TiledProduct", "BetweenAttentions")
            operations = [graph.told(operation) for kind in kinds for operation in graph.of_type(kind)]
            types = {step[1] for told in operations for step in json.loads(told.get("steps", "[]"))}
            types |= {told.get("type_name", "") for told in operations} | ({tiles.WHOLE_BYTES} if adapters else set())
            chain.prepare(types - {""}, progress)

    def __init__(self, graph: _Graph, adapters: Sequence[LoraDelta]) -> None:
        """The weights stay where they are, in the folder's file."""
        from nomoat.engine.attention import MANY_TOKENS
        from nomoat.engine.chain import Chain
        from nomoat.engine.program import Program

        facts = graph.facts
        (looked_up,), (head,) = (graph.of_type(name) for name in ("TiledRows", "TiledProduct"))
        self._table = graph.constant(looked_up, 0).reshape(int(graph.told(head)["rows"]) // tiles.TILE_ROWS, -1)
        self._table_type = graph.told(looked_up)["type_name"]
        norm = graph.constant(graph.source(head, 0), 1).view(np.float32)
        self._embedding_scale, self._logit_cap = np.float32(facts["embedding_scale"]), np.float32(facts["logit_cap"])
        width, seen = len(norm), facts["heads"] * facts["head_dim"]
        self._kept: dict[int, npt.NDArray[np.float32]] = {}  # the embedding of some tokens
        self._width = width
        programs = []
        for number, operation in enumerate(graph.of_type("BetweenAttentions")):
            told, weights = graph.told(operation), graph.constant(operation, -1)
            columns = seen if number else width
            steps, epsilon, chunk = json.loads(told["steps"]), float(told["epsilon"]), int(told["chunk"])
            programs.append(Program(steps, weights.ctypes.data, columns, width=width, epsilon=epsilon, chunk=chunk))
            if adapters:
                _add_beside(programs[-1], facts["parts"][number], adapters)
        told = graph.told(head)
        self.vocabulary = int(facts["vocabulary"])
        step = ("out", told["type_name"], int(told["rows"]), 0, -1)
        last = Program([step], graph.constant(head, 1).ctypes.data, width, chunk=int(told["chunk"]))
        self._chain, self._graph = Chain(programs, last, norm, facts), graph
        self.alike_from = max(MANY_TOKENS, *(program.panels_from for program in programs))
        self.block_bytes = (len(programs) - 1) * 2 * 2 * facts["kv_heads"] * BLOCK_TOKENS * facts["head_dim"]  # float16
        self.mapped_bytes = graph.size_bytes

    def allocate(self, num_blocks: int) -> None:
        """Room for so many blocks. The operating system gives the memory when a block is first written."""
        self._memory = hugepages.memory(num_blocks * self.block_bytes + 2 * BLOCK_TOKENS)  # so many columns are read of each token
        self._chain.use(self._memory.ctypes.data, self.block_bytes)

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
    from nomoat.engine.steps import COLUMNS

    for number, of_step in enumerate(parts):
        added = beside(of_step, int(program.steps[number, COLUMNS]), adapters) if of_step else None
        if added is not None:
            program.add_beside(number, added)


def _graph_of(folder: Path) -> _Graph:
    """Read once a start, which asks for it several times: it takes 80 ms. Raises BadFileError."""
    try:
        written = tuple((folder / name).stat().st_mtime_ns for name in (GRAPH, WEIGHTS))
    except OSError as exc:
        raise _not_whole(folder) from exc
    return _read_graph(folder, written)


@functools.lru_cache(maxsize=1)
def _read_graph(folder: Path, written: tuple[int, ...]) -> _Graph:
    """`written`: when its files were, since another may have taken its place."""
    return _Graph(folder)


class _Graph:
    """The operations and constants of a folder, as OpenVINO wrote them. Its import and its reading would be 0.16 s of a start."""

    def __init__(self, folder: Path) -> None:
        try:
            root = ElementTree.parse(folder / GRAPH).getroot()
            self._bytes = np.memmap(folder / WEIGHTS, np.uint8, "r")
            told = root.find("/".join(("rt_info", *FACTS)))
            self.facts: dict[str, Any] = {} if told is None else dict(json.loads(told.get("value", "")))
        except (OSError, TypeError, ValueError, ElementTree.ParseError) as exc:
            raise _not_whole(folder) from exc
        if self.facts and not self.facts.keys() >= FACT_NAMES:
            raise _not_whole(folder)
        self._folder = folder
        self._layers = {layer.get("id"): layer for layer in root.iterfind("layers/layer")}
        self._sources = {(edge.get("to-layer"), edge.get("to-port")): edge.get("from-layer") for edge in root.iterfind("edges/edge")}

    @property
    def size_bytes(self) -> int:
        """Of its weights."""
        return len(self._bytes)

    def can_run(self, adapters: Sequence[LoraDelta]) -> bool:
        """See `OwnModel`."""
        if not self.facts or any(len(self.of_type(name)) != 1 for name in ("TiledRows", "TiledProduct")):
            return False
        layers = {name for steps in self.facts["parts"] for parts in steps for name, _ in parts}
        return all(layers.issuperset(adapter.layers) for adapter in adapters)

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

    def constant(self, operation: Any, at: int) -> npt.NDArray[np.uint8]:
        """The bytes of an input. Raises BadFileError if the file does not have them."""
        told = self.told(self.source(operation, at))
        start, size = int(told["offset"]), int(told["size"])
        if start + size > len(self._bytes):
            raise _not_whole(self._folder)
        return self._bytes[start : start + size]


def _not_whole(folder: Path) -> BadFileError:
    return BadFileError(f"`{folder}` is not a whole imported model", hint="remove that folder and try again")
