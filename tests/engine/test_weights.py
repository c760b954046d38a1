"""Forms of matrices: how near they are to what they were made from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13 as op

from nomoat.engine import weights
from nomoat.engine.weights import Form

ROWS, COLUMNS = 24, 512


def matrix(*, seed: int = 0) -> npt.NDArray[np.float32]:
    made = np.random.default_rng(seed).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    made[3] = 0
    return made


def computed(arrays: weights.Arrays, form: Form) -> npt.NDArray[np.float32]:
    """The matrix as OpenVINO multiplies with it: its product with the identity."""
    x = op.parameter([-1, COLUMNS], np.float32)
    y = op.matmul(x, weights.expanded(arrays, form), False, True)
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    compiled = ov.Core().compile_model(ov.Model([op.result(y)], [x], "matrix"), "CPU", exact)
    return np.asarray(compiled([np.eye(COLUMNS, dtype=np.float32)])[0]).T


@pytest.mark.parametrize(
    ("form", "steps"),
    [(Form("int8"), 254), (Form("int8", 64), 254), (Form("uint4", 64), 15), (Form("uint4", 128), 15), (Form("float32"), 0)],
)
def test_a_weight_is_at_most_half_a_step_from_its_source(form: Form, steps: int) -> None:
    source = matrix()
    lanes = source.reshape(ROWS, -1, form.group or COLUMNS)
    widest = 2 * np.abs(lanes).max(axis=2, keepdims=True)
    allowed = 0.52 * widest / steps + 2e-3 * np.abs(lanes) if steps else np.zeros_like(lanes)
    error = np.abs(computed(weights.quantised(source, form), form).reshape(lanes.shape) - lanes)
    assert (error <= allowed + 1e-3 * bool(steps)).all()


@pytest.mark.parametrize("form", [Form("float32"), Form("int8"), Form("int8", 64), Form("uint4", 64)])
def test_the_bytes_foretold_are_those_of_the_arrays(form: Form) -> None:
    arrays = weights.quantised(matrix(), form)
    packed = sum(array.nbytes for array in arrays) - (arrays[2].nbytes // 2 if form.kind == "uint4" else 0)  # zeros are packed later
    assert form.bytes_of(ROWS, COLUMNS) == packed
