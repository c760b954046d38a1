"""nomoat's own operations in OpenVINO's graphs, for weights that stay the codes of their file: `program` computes them.

A model that has them is read by `compiled.core()`, which knows them. OpenVINO asks such an operation for its output's shape in each
pass, which takes as long as 60 microseconds of Python: so all that lies between two layers' attention is one operation.

Shapes: ... any axes, C columns (inputs), R rows (outputs), W width, T tiles, S bytes of a tile, V vocabulary.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import openvino as ov

from nomoat.engine import tiles


class _CustomOp(ov.Op):  # type: ignore[misc]
    """What nomoat's operations share. `attributes`: numbers and texts, written into a model's file."""

    defaults: ClassVar[dict[str, Any]]

    def __init__(self, inputs: Sequence[Any] | None = None, **attributes: Any) -> None:
        super().__init__(self)
        self._attributes = attributes or dict(self.defaults)
        self._program: Any = None  # made at the first pass, for this place of a compiled model
        if inputs is not None:
            self.set_arguments([value if isinstance(value, ov.Output) else value.output(0) for value in inputs])
            self.constructor_validate_and_infer_types()

    def get_type_info(self) -> Any:
        return self.class_type_info

    def clone_with_new_inputs(self, inputs: Sequence[Any]) -> Any:
        return type(self)(inputs, **self._attributes)

    def visit_attributes(self, visitor: Any) -> bool:
        visitor.on_attributes(self._attributes)
        return True

    def has_evaluate(self) -> bool:
        return True

    def _set_shape(self, output: int, like: int, last: int) -> None:
        shape = self.get_input_partial_shape(like)
        shape[len(shape) - 1] = ov.Dimension(last)
        self.set_output_type(output, ov.Type.f32, shape)


class TiledProduct(_CustomOp):
    """x [..., C] and the tiles [T, S] of W -> x W^T [..., R]. `chunk`: see `program.Program`."""

    class_type_info = ov.DiscreteTypeInfo("TiledProduct", "nomoat")
    defaults: ClassVar = {"type_name": "", "rows": 0, "chunk": 0}

    def validate_and_infer_types(self) -> None:
        self._set_shape(0, 0, self._attributes["rows"])

    def evaluate(self, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
        x, y = inputs[0].data, outputs[0].data
        if self._program is None:
            step = ["out", self._attributes["type_name"], self._attributes["rows"], 0, -1]
            self._program = _program([step], inputs[1], x.shape[-1], chunk=self._attributes["chunk"])
        if y.size:
            self._program.run(x, None, None, [y])
        return True


class TiledRows(_CustomOp):
    """Tiles [T, S] of a table [V, W] and rows [...] -> those rows [..., W]."""

    class_type_info = ov.DiscreteTypeInfo("TiledRows", "nomoat")
    defaults: ClassVar = {"type_name": "", "columns": 0}

    def validate_and_infer_types(self) -> None:
        shape = self.get_input_partial_shape(1)
        self.set_output_type(0, ov.Type.f32, ov.PartialShape([*shape, ov.Dimension(self._attributes["columns"])]))

    def evaluate(self, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
        found = tiles.rows_of(inputs[0].data, self._attributes["type_name"], inputs[1].data.reshape(-1))
        outputs[0].data[:] = found.reshape(outputs[0].data.shape)
        return True


class FusedBlock(_CustomOp):
    """What lies between a layer's attention and the next one's.

    Inputs: what attention gave [..., C], unless the first layer is to come; the residual [..., W]; and all weights, as bytes.
    Outputs: the new residual [..., W], and the output of each step `out` [..., R].

    `steps` is a list in JSON of lists [kind, type, rows, place, place of a bias or -1]; for `chunk` see `program.Program`.
    x is at first what attention gave:
        add         residual += x W^T [+ bias]
        hold        y = x W^T [+ bias]
        add_norm    residual += y / rms(y) * weight
        norm        x = residual / rms(residual) * weight; without a weight, x = residual
        gated       x = silu(a) * b, with a and b the halves of x W^T [+ bias]
        gelu_gated  x = gelu(a) * b, gelu by the tangent
        out         the next output = x W^T [+ bias]
    These have two numbers more, how many experts there are and how many a token asks, and the rows of one expert:
        choose           those of the highest x W^T + bias, weighted by the softmax of these; W is float32, in the place of a bias,
                         and the bias behind it; both may have a row more, of a shared expert
        choose_of_all    the same, weighted by the softmax of all
        experts_gated    as `gated`, for each of a token's experts; their W lie one after another, and so do their biases
        experts_clamped  the same with `elementwise.clamped_gate`
        experts_add      residual += each one's x W^T [+ bias] by its weight
        add_shared       residual += y by the sigmoid of the shared expert's x W^T + bias
    """

    class_type_info = ov.DiscreteTypeInfo("FusedBlock", "nomoat")
    defaults: ClassVar = {"steps": "[]", "first": 0, "epsilon": 0.0, "chunk": 0}

    def validate_and_infer_types(self) -> None:
        residual = 1 - self._attributes["first"]
        self.set_output_type(0, ov.Type.f32, self.get_input_partial_shape(residual))
        for at, rows in enumerate(_outputs(self._attributes["steps"]), 1):
            self._set_shape(at, residual, rows)

    def evaluate(self, outputs: Sequence[Any], inputs: Sequence[Any]) -> bool:
        before, after = inputs[-2].data, outputs[0].data
        seen = None if self._attributes["first"] else inputs[0].data
        if self._program is None:
            steps, width = parsed_steps(self._attributes["steps"]), after.shape[-1]
            columns = width if seen is None else seen.shape[-1]
            told = {name: self._attributes[name] for name in ("epsilon", "chunk")}
            self._program = _program(steps, inputs[-1], columns, width=width, **told)
        if after.size:
            self._program.run(seen, before, after, [output.data for output in outputs[1:]])
        return True


class Weights:
    """What one `FusedBlock` multiplies by, put together: each part begins where a cache line does."""

    def __init__(self) -> None:
        self._tiles: list[tuple[int, tuple[int, int]]] = []
        self._vectors: list[tuple[int, npt.NDArray[np.uint8]]] = []
        self._steps: list[list[Any]] = []
        self._size = 0

    def add(
        self, kind: str, type_name: str, rows: int, tiles_shape: tuple[int, int] | None, vector: npt.NDArray[np.float32] | None,
        *mixture: int,
    ) -> None:  # fmt: skip
        """One step; a norm, whose weight is the vector, has no tiles. `mixture`: the experts, and those of a token."""
        places = [-1, -1]
        if tiles_shape is not None:
            places[0] = self._room(math.prod(tiles_shape))
            self._tiles.append((places[0], tiles_shape))
        if vector is not None:
            places[1] = self._room(vector.nbytes)
            self._vectors.append((places[1], vector.reshape(-1).view(np.uint8)))
        self._steps.append([kind, type_name, rows, *places, *mixture])

    def _room(self, size: int) -> int:
        place = self._size
        self._size += -(-size // tiles.CACHE_LINE) * tiles.CACHE_LINE
        return place

    def finished(self) -> tuple[str, npt.NDArray[np.uint8], list[npt.NDArray[np.uint8]]]:
        """The steps, all parts, and therein those of tiles, which are still to be written."""
        whole = np.zeros(self._size, np.uint8)
        for place, vector in self._vectors:
            whole[place : place + len(vector)] = vector
        of_tiles = [whole[place : place + math.prod(shape)].reshape(shape) for place, shape in self._tiles]
        return json.dumps(self._steps), whole, of_tiles


OPERATIONS = (TiledProduct, TiledRows, FusedBlock)


@functools.cache
def parsed_steps(steps: str) -> list[list[Any]]:
    """Of a `FusedBlock`."""
    return json.loads(steps)  # type: ignore[no-any-return]


@functools.cache
def _outputs(steps: str) -> list[int]:
    """The rows of each."""
    return [rows for kind, _, rows, *_ in parsed_steps(steps) if kind == "out"]


def _program(steps: Sequence[Sequence[Any]], weights: Any, columns: int, **told: Any) -> Any:
    """The weights stay where they are: OpenVINO keeps them for as long as the compiled model lives."""
    from nomoat.engine.program import Program

    return Program(steps, int(weights.data.ctypes.data), columns, **told)
