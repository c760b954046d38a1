"""LoRA adapters beside the weights they change, chosen for each text of a pass.

All adapters of a layer are two small matrices, one behind the other: y = W x + B ((A x) * m), where m is 1 where a column belongs
to the text's adapter. So texts with different adapters, and with none, share a pass over the weights. A model with one adapter is
faster with it baked into its weights (`importer`).

Shapes: T tokens, N adapters, I input, O output, R ranks of all adapters of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nomoat.engine.importer import LoraDelta
from nomoat.errors import BadFileError

INPUT = "adapter"


def attach(model: Any, adapters: Sequence[LoraDelta]) -> None:
    """Add the adapters to a model for paged attention, and the input `adapter` [T, N]: 1 for the one a token is read with, else 0.

    Raises BadFileError for an adapter of other layers or sizes than the model's.
    """
    from openvino import opset13 as op

    chosen = op.parameter([-1, len(adapters)], np.float32, name=INPUT)
    chosen.output(0).set_names({INPUT})
    masks: dict[tuple[int, ...], Any] = {}
    layers = {node.friendly_name: node for node in model.get_ops() if node.get_type_name() in ("MatMul", "TiledProduct")}
    for name in sorted({layer for adapter in adapters for layer in adapter.layers}):
        if name not in layers:
            raise BadFileError(f"an adapter changes the layer `{name}`, which this model does not have")
        parts = [adapter.layers.get(name) for adapter in adapters]
        ranks = tuple(0 if part is None else len(part[0]) for part in parts)
        if ranks not in masks:
            owner_NR = np.repeat(np.eye(len(adapters), dtype=np.float32), ranks, axis=1)
            masks[ranks] = op.unsqueeze(op.matmul(chosen, op.constant(owner_NR), False, False), op.constant(np.array([1])))
        _add(layers[name], [part for part in parts if part is not None], masks[ranks])
    model.add_parameters([chosen])
    model.validate_nodes_and_infer_types()


def _add(layer: Any, parts: Sequence[tuple[Any, Any]], mask_T1R: Any) -> None:
    from openvino import opset13 as op

    a_RI = np.ascontiguousarray(np.concatenate([a for a, _ in parts]), np.float32)
    b_OR = np.ascontiguousarray(np.concatenate([b for _, b in parts], axis=1), np.float32)
    weight = [layer.output(0).partial_shape[-1].get_length(), layer.input_value(0).partial_shape[-1].get_length()]
    if weight != [len(b_OR), a_RI.shape[1]]:
        raise BadFileError(f"an adapter's `{layer.friendly_name}` is [{len(b_OR)}, {a_RI.shape[1]}], the model's is {weight}")
    readers = layer.output(0).get_target_inputs()
    inner = op.multiply(op.matmul(layer.input(0).get_source_output(), op.constant(a_RI), False, True), mask_T1R)
    whole = op.add(layer, op.matmul(inner, op.constant(b_OR), False, True))
    for reader in readers:
        reader.replace_source_output(whole.output(0))
