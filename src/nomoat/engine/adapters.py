"""LoRA adapters beside the weights they change, chosen for each text of a pass.

All adapters of a layer are two small matrices, one behind the other: y = W x + B ((A x) * m), where m is 1 where a column belongs
to the text's adapter. So texts with different adapters, and with none, share a pass over the weights. `beside` is for passes of our
own; `attach` for OpenVINO's graphs, where a model with one adapter is faster with it baked into its weights (`importer.import_with`).

Shapes: T tokens, N adapters, I input, O output, R ranks of all adapters of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import tiles
from nomoat.engine.lora import OTHER_BASE, LoraDelta
from nomoat.engine.program import Beside
from nomoat.engine.step_tables import B_TILE_NUMBERS, LAST_BIT
from nomoat.engine.weights import whole_bytes
from nomoat.errors import BadFileError

INPUT = "adapter"


def attach(model: Any, adapters: Sequence[LoraDelta]) -> None:
    """Add the adapters to a model for paged attention, and the input `adapter` [T, N]: 1 for the one a token is read with, else 0.

    Raises BadFileError for an adapter of other layers or sizes than the model's, UnsupportedError for one of the output layer.
    """
    from openvino import opset13 as op

    chosen = op.parameter([-1, len(adapters)], np.float32, name=INPUT)
    chosen.output(0).set_names({INPUT})
    masks: dict[tuple[int, ...], Any] = {}
    layers = {node.friendly_name: node for node in model.get_ops() if node.get_type_name() in ("MatMul", "TiledProduct")}
    for adapter in adapters:
        adapter.require_standing_beside()
    for name in sorted({layer for adapter in adapters for layer in adapter.layers}):
        if name not in layers:
            raise BadFileError(f"an adapter changes the layer `{name}`, which this model does not have", hint=OTHER_BASE)
        parts = [adapter.scaled(name) for adapter in adapters]
        ranks = tuple(0 if part is None else len(part[0]) for part in parts)
        if ranks not in masks:
            owner_NR = np.repeat(np.eye(len(adapters), dtype=np.float32), ranks, axis=1)
            masks[ranks] = op.unsqueeze(op.matmul(chosen, op.constant(owner_NR), False, False), op.constant(np.array([1])))
        rows, columns = (port.partial_shape[-1].get_length() for port in (layers[name].output(0), layers[name].input_value(0)))
        for adapter in adapters:
            adapter.require_fitting(name, (rows, columns))
        _add(layers[name], [part for part in parts if part is not None], masks[ranks])
    model.add_parameters([chosen])
    model.validate_nodes_and_infer_types()


def beside(parts: Sequence[tuple[str, int]], columns: int, adapters: Sequence[LoraDelta]) -> Beside | None:
    """What the adapters add to a product of these layers (name, rows) with so many columns, if they do.

    A in 8 bits, as inputs are; B in f16. Raises BadFileError for an adapter of other sizes than the model's.
    """
    for adapter in adapters:
        for name, rows in parts:
            adapter.require_fitting(name, (rows, columns))
    given = [[adapter.scaled(name) for name, _ in parts] for adapter in adapters]
    if not any(pair for of_adapter in given for pair in of_adapter):
        return None
    places = np.zeros((len(adapters), sum(rows for _, rows in parts) // tiles.TILE_ROWS, B_TILE_NUMBERS), np.int64)
    seen: list[npt.NDArray[np.float32]] = []
    kept: list[npt.NDArray[np.float16]] = []
    ranks: list[int] = []  # whose each rank is, as a bit
    for number, (places_T3, of_adapter) in enumerate(zip(places, given, strict=True)):
        first = 0
        for (name, rows), pair in zip(parts, of_adapter, strict=True):
            tiles_here = rows // tiles.TILE_ROWS
            if pair is not None:
                a_RI, b_OR = pair
                turned_TR16 = np.ascontiguousarray(b_OR.reshape(tiles_here, tiles.TILE_ROWS, -1).transpose(0, 2, 1), np.float16)
                if not np.isfinite(turned_TR16).all():
                    raise BadFileError(
                        f"an adapter's `{name}` has weights above 65,504", hint="tune it again, at a lower learning rate"
                    )
                addresses = turned_TR16.ctypes.data + turned_TR16[0].nbytes * np.arange(tiles_here)
                places_T3[first : first + tiles_here] = np.stack(np.broadcast_arrays(addresses, len(ranks), len(a_RI)), axis=1)
                ranks += [1 << min(number, LAST_BIT)] * len(a_RI)
                seen.append(a_RI)
                kept.append(turned_TR16)
            first += tiles_here
    padding = -len(ranks) % tiles.TILE_ROWS
    seen.append(np.zeros((padding, columns), np.float32))
    users = np.bitwise_or.reduce(np.reshape(ranks + [0] * padding, (-1, tiles.TILE_ROWS)), axis=1)
    return Beside(tiles.tiled(whole_bytes(np.concatenate(seen)), tiles.WHOLE_BYTES), users, places, kept)


def _add(layer: Any, parts: Sequence[tuple[Any, Any]], mask_T1R: Any) -> None:
    from openvino import opset13 as op

    a_RI = np.ascontiguousarray(np.concatenate([a for a, _ in parts]), np.float32)
    b_OR = np.ascontiguousarray(np.concatenate([b for _, b in parts], axis=1), np.float32)
    readers = layer.output(0).get_target_inputs()
    inner = op.multiply(op.matmul(layer.input(0).get_source_output(), op.constant(a_RI), False, True), mask_T1R)
    whole = op.add(layer, op.matmul(inner, op.constant(b_OR), False, True))
    for reader in readers:
        reader.replace_source_output(whole.output(0))
