"""What `steps` does to a token's numbers between two products: loops over float32 that lie at an address."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine.step_tables import GATE_LIMIT, GATE_SLOPE

# GELU in its form with the tangent is x * sigmoid(a x + b x^3)
GELU_LINEAR = 2 * (2 / math.pi) ** 0.5
GELU_CUBIC = GELU_LINEAR * 0.044715


@jit.kernel
def copy(x: Any, y: Any, columns: Any) -> None:
    """y = x."""
    x_C, y_C = jit.floats_at(x, columns), jit.floats_at(y, columns)
    for c in range(columns):
        y_C[c] = x_C[c]


@jit.kernel
def copy_rows(x: Any, y: Any, columns: Any, tokens: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens."""
    for start in range(me * share, tokens, threads * share):
        for m in range(start, min(start + share, tokens)):
            copy(x + 4 * m * columns, y + 4 * m * columns, columns)


@jit.kernel
def add(x: Any, y: Any, columns: Any) -> None:
    """y += x."""
    x_C, y_C = jit.floats_at(x, columns), jit.floats_at(y, columns)
    for c in range(columns):
        y_C[c] += x_C[c]


@jit.kernel
def add_times(x: Any, factor: Any, y: Any, columns: Any) -> None:
    """y += factor * x."""
    x_C, y_C = jit.floats_at(x, columns), jit.floats_at(y, columns)
    for c in range(columns):
        y_C[c] += factor * x_C[c]


@jit.kernel
def gate(x: Any, up: Any, columns: Any) -> None:
    """x = silu(x) * up."""
    x_C, up_C = jit.floats_at(x, columns), jit.floats_at(up, columns)
    for c in range(columns):
        x_C[c] = x_C[c] / (np.float32(1) + jit.exp(-x_C[c])) * up_C[c]


@jit.kernel
def gelu_gate(x: Any, up: Any, columns: Any) -> None:
    """x = gelu(x) * up."""
    x_C, up_C = jit.floats_at(x, columns), jit.floats_at(up, columns)
    for c in range(columns):
        turned = x_C[c] * (np.float32(GELU_LINEAR) + np.float32(GELU_CUBIC) * x_C[c] * x_C[c])
        x_C[c] = x_C[c] / (np.float32(1) + jit.exp(-turned)) * up_C[c]


@jit.kernel
def clamped_gate(x: Any, up: Any, columns: Any) -> None:
    """x = x * sigmoid(1.702 x) * (up + 1), of x up to 7 and of up within plus and minus 7. Source: OpenAI's gpt_oss/torch/model.py."""
    x_C, up_C, limit = jit.floats_at(x, columns), jit.floats_at(up, columns), np.float32(GATE_LIMIT)
    for c in range(columns):
        given, opened = min(x_C[c], limit), min(max(up_C[c], -limit), limit)
        x_C[c] = given / (np.float32(1) + jit.exp(-np.float32(GATE_SLOPE) * given)) * (opened + np.float32(1))


@jit.kernel
def norm_scale(x_C: Any, epsilon: Any) -> Any:
    """1 / rms(x)."""
    total = np.float32(0)
    for c in range(len(x_C)):
        total += x_C[c] * x_C[c]
    return np.float32(1) / np.sqrt(total / np.float32(len(x_C)) + epsilon)


@jit.kernel
def norm(x: Any, weight: Any, epsilon: Any, y: Any, columns: Any) -> None:
    """y = x / rms(x) * weight. In place it has a loop of its own: LLVM's vectors are for places that lie apart."""
    x_C, weight_C, y_C = jit.floats_at(x, columns), jit.floats_at(weight, columns), jit.floats_at(y, columns)
    scale = norm_scale(x_C, epsilon)
    if x == y:
        for c in range(columns):
            x_C[c] *= scale * weight_C[c]
        return
    for c in range(columns):
        y_C[c] = x_C[c] * scale * weight_C[c]


@jit.kernel
def add_norm(x: Any, weight: Any, epsilon: Any, y: Any, columns: Any) -> None:
    """y += x / rms(x) * weight."""
    x_C, weight_C, y_C = jit.floats_at(x, columns), jit.floats_at(weight, columns), jit.floats_at(y, columns)
    scale = norm_scale(x_C, epsilon)
    for c in range(columns):
        y_C[c] += x_C[c] * scale * weight_C[c]
