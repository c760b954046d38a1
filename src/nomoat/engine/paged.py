"""An imported model compiled for paged attention: many texts in one pass, their keys and values in blocks that texts may share.

OpenVINO turns the stateful model into this one itself; nomoat adds an input that says of which tokens logits are wanted, and the last
hidden states as a second output, so that one compiled model writes answers, embeds texts and tells likelihoods.

Shapes: R rows (one a text), T tokens of all rows, W tokens whose logits are wanted, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import hugepages, shutdown
from nomoat.engine.adapters import attach
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.compiled import CompiledCopy, core, read_graph
from nomoat.engine.imported import WEIGHTS, not_whole
from nomoat.engine.lora import LoraDelta
from nomoat.engine.step_tables import NARROW_PANELS_FROM

CACHES = ("key_cache.", "value_cache.")


@dataclass(frozen=True, slots=True)
class Row:
    """A text's part in a pass: its new tokens, how many tokens lie before them, and the blocks with those and with room for these.

    `wanted`: of how many of the last new tokens logits are wanted. `adapter`: which of the model's adapters they are read with.
    `hidden`: whether somebody wants the last hidden states of all of them.
    """

    ids: Sequence[int]
    past: int
    blocks: Sequence[int]
    wanted: int
    adapter: int | None = None
    hidden: bool = False


class Inference:
    """What runs a compiled model whose outputs are logits and last hidden states. `places`: of its inputs, by each of their names."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()
        self.places = {name: at for at, port in enumerate(compiled.inputs) for name in port.get_names()}

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Both outputs, a row a token, overwritten by the next pass.

        Raises RuntimeError if the process ends, KeyError for an input that the model does not have; `position_ids` it may lack.
        """
        import openvino as ov

        with shutdown.waited_for():
            for name, value in inputs.items():
                if name in self.places or name != "position_ids":  # which those that optimum-intel converts have where they use them
                    self.request.set_input_tensor(self.places[name], ov.Tensor(value))
            self.request.start_async()  # `infer` would copy the outputs
            self.request.wait()
        logits, hidden = (self.request.get_output_tensor(at).data for at in (0, 1))
        return logits.reshape(-1, logits.shape[-1]), hidden.reshape(-1, hidden.shape[-1])


class PagedModel:
    """See the module. One thread at a time. A block holds the keys and values of `BLOCK_TOKENS` tokens."""

    takes_many = True
    largest_pass = 1 << 31  # tokens: without a bound of its own
    alike_from = NARROW_PANELS_FROM  # tokens of a prompt: fewer may round otherwise, where `FusedBlock` computes products
    mapped_bytes = 0  # of weights that stay in their file

    def __init__(
        self, folder: Path, properties: dict[str, str], adapters: Sequence[LoraDelta] = (), copy: CompiledCopy | None = None
    ) -> None:
        """`copy`: where this model is kept as compiled. One with adapters beside its weights is not kept."""
        copy = None if adapters else copy
        compiled = copy.read() if copy else None
        if compiled is None:
            model = read_graph(folder)
            _page(model, folder, adapters)
            compiled = core().compile_model(model, "CPU", properties)
            del model
            if copy and (again := copy.write(compiled, (folder / WEIGHTS).stat().st_size)) is not None:
                compiled = again
        self._copy = copy  # holds the weights' file open
        self._num_adapters = len(adapters)
        self._inference = Inference(compiled)
        self._caches = {name: compiled.input(name) for name in self._inference.places if name.startswith(CACHES)}
        self.block_bytes = sum(_block_bytes(port) for port in self._caches.values())

    def allocate(self, num_blocks: int) -> None:
        """Room for so many blocks. The operating system gives the memory when a block is first written.

        It is mapped as shared, though nobody shares it: each layer has its own, and large pages would make more real than is used.
        """
        import openvino as ov

        self._memory = {name: hugepages.mapped(num_blocks * _block_bytes(port)) for name, port in self._caches.items()}
        for name, port in self._caches.items():
            shape = [num_blocks, *(axis.get_length() for axis in list(port.partial_shape)[1:])]
            blocks = ov.Tensor(np.frombuffer(self._memory[name], np.uint8), ov.Shape(shape), port.element_type)
            self._inference.request.set_input_tensor(self._inference.places[name], blocks)

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass."""
        lengths = [len(row.ids) for row in rows]
        ends = np.cumsum(lengths)
        blocks = [row.blocks[: -(-(row.past + len(row.ids)) // BLOCK_TOKENS)] for row in rows]
        ids = np.concatenate([row.ids for row in rows]).astype(np.int64)
        places = np.concatenate([np.arange(row.past, row.past + len(row.ids)) for row in rows]).astype(np.int64)
        wanted = np.concatenate([np.arange(end - row.wanted, end) for row, end in zip(rows, ends, strict=True)]).astype(np.int64)
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": ids,
            "position_ids": places,
            "past_lens": np.array([row.past for row in rows], np.int32),
            "subsequence_begins": np.array([0, *ends], np.int32),
            "block_indices": np.concatenate(blocks).astype(np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, blocks)]).astype(np.int32),
            "max_context_len": np.array(max(row.past + len(row.ids) for row in rows), np.int32),
            "wanted": wanted,
        }
        if self._num_adapters:
            inputs["adapter"] = self._chosen_adapters(rows)
        return self._inference.run(inputs)

    def _chosen_adapters(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        chosen = np.zeros((sum(len(row.ids) for row in rows), self._num_adapters), np.float32)
        start = 0
        for row in rows:
            if row.adapter is not None:
                chosen[start : start + len(row.ids), row.adapter] = 1
            start += len(row.ids)
        return chosen


def _page(model: Any, folder: Path, adapters: Sequence[LoraDelta]) -> None:
    """Give it paged attention, its further input and output, and adapters."""
    from openvino._offline_transformations import paged_attention_transformation

    paged_attention_transformation(model)
    ask_for_what_is_wanted(model, folder, token_axis=0)
    if adapters:
        attach(model, adapters)


def ask_for_what_is_wanted(model: Any, folder: Path, *, token_axis: int) -> None:
    """Add the input `wanted`, the places of the tokens whose logits are computed, and the last hidden states as a second output."""
    from openvino import opset13 as op

    head = _head(model, folder)
    hidden = head.input(0).get_source_output()
    wanted = op.parameter([-1], np.int64, name="wanted")
    wanted.output(0).set_names({"wanted"})
    head.input(0).replace_source_output(op.gather(hidden, wanted, op.constant(np.int64(token_axis))).output(0))
    model.add_parameters([wanted])
    model.add_results([op.result(hidden)])
    model.validate_nodes_and_infer_types()


def _head(model: Any, folder: Path) -> Any:
    """The multiplication that makes logits; a bias or a cap may follow it."""
    node = model.output("logits").get_node().input(0).get_source_output().get_node()
    while node.get_type_name() not in ("MatMul", "TiledProduct"):
        if not node.inputs():
            raise not_whole(folder, "it has no output layer")
        node = node.input(0).get_source_output().get_node()
    return node


def _block_bytes(port: Any) -> int:
    values = int(np.prod([axis.get_length() for axis in list(port.partial_shape)[1:]]))
    return -(-values * int(port.element_type.bitwidth) // 8)
