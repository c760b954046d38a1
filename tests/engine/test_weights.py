"""Forms of matrices: how near they are to what they were made from."""

from __future__ import annotations

from typing import Any

import gguf
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
    """The matrix as OpenVINO multiplies with it: its product with the identity, the remainder's included."""
    x = op.parameter([-1, COLUMNS], np.float32)
    node, rest = weights.expanded(arrays, form)
    y = op.matmul(x, node, False, True)
    if rest is not None:
        sums = op.reduce_sum(op.reshape(x, np.array([0, -1, form.group], np.int64), True), np.array([2], np.int64), False)
        y = op.add(y, op.matmul(sums, rest, False, True))
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


def raw_rows(type_name: str) -> npt.NDArray[np.uint8]:
    """Rows of a type as a file has them. `gguf` cannot write Q4_K: those are any bytes with scales of a plausible size."""
    kind = gguf.GGMLQuantizationType[type_name]
    if type_name != "Q4_K":
        return np.asarray(gguf.quants.quantize(matrix(seed=1), kind))
    chance = np.random.default_rng(2)
    blocks = chance.integers(0, 256, (ROWS, COLUMNS // 256, 144), dtype=np.uint8)
    blocks[..., :4] = chance.uniform(0.001, 0.01, (ROWS, COLUMNS // 256, 2)).astype(np.float16).view(np.uint8).reshape(ROWS, -1, 4)
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1", "Q4_K"])
def test_a_files_own_codes_give_the_files_own_weights(type_name: str) -> None:
    """What is rounded: only the remainder of the offset, to a 254th of the largest of its row."""
    raw = raw_rows(type_name)
    source: Any = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[type_name])
    form = Form("own4", 32)
    ours = computed(weights.own_codes(raw, type_name), form)
    assert np.abs(ours - source).max() < 0.004 * np.abs(source).max()
    requantised = computed(weights.quantised(source, Form("uint4", 32)), Form("uint4", 32))
    assert np.abs(ours - source).mean() < 0.2 * np.abs(requantised - source).mean() or type_name == "Q4_0"


@pytest.mark.parametrize("form", [Form("float32"), Form("int8"), Form("int8", 64), Form("uint4", 64)])
def test_the_bytes_foretold_are_those_of_the_arrays(form: Form) -> None:
    arrays = weights.quantised(matrix(), form)
    packed = sum(array.nbytes for array in arrays) - (arrays[2].nbytes // 2 if form.kind == "uint4" else 0)  # zeros are packed later
    assert form.bytes_of(ROWS, COLUMNS) == packed
