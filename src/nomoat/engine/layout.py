"""How weights are stored and computed with on this CPU: int8, one scale per output row, and the properties that go with it.

Measured on the reference machine (benchmarks/): 8-bit rows keep the quality of the file (KL to fp32 around 0.01) and are the fastest
prompt reading; 4-bit re-quantisation in OpenVINO's integer-zero-point form costs quality (KL around 0.27).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nomoat import hardware
from nomoat.engine.arch import Dimensions
from nomoat.engine.gguf import FloatArray

VERSION = "i8-2"  # part of the cache's key: change it when what is written changes
LARGEST_CODE = 127
# float16 cannot hold the scale of an all-zero row
SMALLEST_ROW_MAXIMUM = 1e-4

# float32 throughout, for likelihoods with weights as the file has them
EXACT_PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}


@dataclass(frozen=True, slots=True)
class Layout:
    """OpenVINO's CPU properties for a model, with the reason for each."""

    properties: dict[str, str]
    reasons: dict[str, str]


def quantise_rows(weights: FloatArray) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """Codes [rows, columns] and scales [rows, 1], so that codes * scales is close to `weights` [rows, columns]."""
    largest = np.abs(weights).max(axis=1, keepdims=True)
    scales = (np.maximum(largest, SMALLEST_ROW_MAXIMUM) / LARGEST_CODE).astype(np.float16)
    codes = np.rint(weights / scales.astype(np.float32))
    return np.clip(codes, -LARGEST_CODE, LARGEST_CODE).astype(np.int8), scales


def choose(sizes: Dimensions, *, num_threads: int) -> Layout:
    """The properties that are fastest for these sizes on this CPU within the quality bound."""
    properties, reasons = {}, {}

    def decide(name: str, value: str, reason: str) -> None:
        properties[name], reasons[name] = value, reason

    decide("INFERENCE_NUM_THREADS", str(num_threads), "set by NOMOAT_THREADS or one a physical core")
    if not any(flag.startswith("amx") for flag in hardware.cpu_flags()):
        decide("INFERENCE_PRECISION_HINT", "f32", "without AMX, bf16 is slower than f32 on the CPU")
    inputs = (sizes.width, sizes.hidden, sizes.heads * sizes.head_dim)
    group = next((size for size in (128, 64, 32) if all(k % size == 0 for k in inputs)), 0)
    decide("DYNAMIC_QUANTIZATION_GROUP_SIZE", str(group), "the largest group that divides every layer's input")
    decide("KV_CACHE_PRECISION", "f16", "the 8-bit cache is the main loss of quality on Qwen2")
    return Layout(properties, reasons)
