"""A second form of a model, for prompts on CPUs with AMX: layers' weights expanded from int8 codes to bf16.

An answer is one token a pass and waits for memory, so codes are fastest. A prompt waits for products, and OpenVINO 2026.4 multiplies
expanded matrices with AMX 1.6 to 1.7 times as fast as codes (docs/log.md). Both forms read and write the same keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine.paged import PagedModel, Row

ROWS_AT_A_TIME = 64  # stay in a core's cache
HALF_OF_WHAT_BF16_DROPS = 0x8000
ROWS_ARE_OUTPUTS = {"transpose_a": False, "transpose_b": True}
Words = npt.NDArray[np.uint16]


def expand(model: Any) -> list[Words]:
    """Multiply by expanded matrices instead of int8 rows, except in the output layer. The compiled model uses the memory returned.

    The products are of bf16 themselves: a conversion behind each matrix would be computed beforehand, and twice the memory kept.
    What is split afterwards are several products here, of some of the rows each: a split costs a copy, which a long prompt feels.
    """
    import openvino as ov
    from openvino import opset13 as op

    made = []
    for node in model.get_ops():
        if node.get_type_name() != "MatMul" or node.get_friendly_name() == "lm_head" or node.get_attributes() != ROWS_ARE_OUTPUTS:
            continue
        found = _int8_rows(node.input_value(1).get_node())
        if found is None:
            continue
        words_RC = _as_bf16(*found)
        made.append(words_RC)
        inputs = op.convert(node.input_value(0), "bf16")
        for output, rows in _parts(node):
            part_RC = words_RC[rows]
            tensor = ov.Tensor(part_RC.view(np.uint8).reshape(-1), ov.Shape(part_RC.shape), ov.Type.bf16)
            matrix = ov.op.Constant(tensor, shared_memory=True)
            product = op.convert(op.matmul(inputs, matrix, **ROWS_ARE_OUTPUTS), "f32")
            for reader in output.get_target_inputs():
                reader.replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()
    return made


def _parts(product: Any) -> list[tuple[Any, slice]]:
    """The outputs of the split behind a product, and the rows of its matrix that make each; without one its own, of all rows."""
    reader, *others = product.output(0).get_target_inputs()
    split = reader.get_node()
    if others or split.get_type_name() != "VariadicSplit":
        return [(product.output(0), slice(None))]
    lengths = [int(length) for length in split.input_value(2).get_node().data]
    return [(output, slice(sum(lengths[:at]), sum(lengths[: at + 1]))) for at, output in enumerate(split.outputs())]


def _int8_rows(node: Any) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]] | None:
    """Codes [R, C] and scales [R, 1], if this is what `weights.expanded` makes of them; None for anything else."""
    chain = []
    for kind in ("Convert", "Multiply", "Convert"):
        if node.get_type_name() != kind:
            return None
        chain.append(node)
        node = node.input_value(0).get_node()
    scales = chain[1].input_value(1).get_node()
    is_rows = node.get_type_name() == scales.get_type_name() == "Constant" and len(node.data.shape) == 2
    return (node.data, scales.data) if is_rows and node.data.dtype == np.int8 else None


def _as_bf16(codes_RC: npt.NDArray[np.int8], scales_R1: npt.NDArray[np.float16]) -> Words:
    """The upper halves of the products' float32, rounded."""
    words = np.empty(codes_RC.shape, np.uint16)
    scales = scales_R1.astype(np.float32)
    for start in range(0, len(codes_RC), ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        bits = (codes_RC[rows] * scales[rows]).view(np.uint32)
        words[rows] = (bits + HALF_OF_WHAT_BF16_DROPS) >> 16
    return words


class TwoForms:
    """Runs passes as `PagedModel` does: rows of prompts in one form, rows of answers, which come first in a pass, in another."""

    takes_many = True
    largest_pass = PagedModel.largest_pass
    alike_from = 2  # tokens: a single one is read by the form for answers
    mapped_bytes = PagedModel.mapped_bytes

    def __init__(self, answers: PagedModel, prompts: PagedModel) -> None:
        self._answers, self._prompts = answers, prompts
        self.block_bytes = answers.block_bytes

    def allocate(self, num_blocks: int) -> None:
        """Room for so many blocks, for both."""
        self._answers.allocate(num_blocks)
        self._prompts.share_blocks(self._answers)

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass."""
        writing, reading = ([row for row in rows if row.reading is wanted] for wanted in (False, True))
        if not reading:
            return self._answers.run(writing)
        if not writing:
            return self._prompts.run(reading)
        logits, hidden = zip(self._answers.run(writing), self._prompts.run(reading), strict=True)
        return np.concatenate(logits), np.concatenate(hidden)
