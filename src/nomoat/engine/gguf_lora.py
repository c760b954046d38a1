"""LoRA adapters in one GGUF file, as llama.cpp's `convert_lora_to_gguf.py` and `nomoat export` write them, for `lora`.

Their matrices have the names of the base's tensors, and rows in the order of its GGUF file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nomoat.engine import positions
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.safetensors import Stored
from nomoat.errors import BadFileError, UnsupportedError

KIND, LORA_KIND, ALPHA, WORDS = "general.type", "adapter.type", "adapter.lora.alpha", "adapter.alora.invocation_tokens"
BASE = "general.base_model.0.name"
MATRIX = re.compile(r"(.+)\.weight\.lora_([ab])")
OF_A_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
OUTPUTS = {"output": "lm_head"}
AGAIN = "download it again, or make it anew with llama.cpp's convert_lora_to_gguf.py"


@dataclass(frozen=True, slots=True)
class Scaling:
    """By what the product of each layer's matrices is multiplied: one alpha, by each layer's own rank."""

    alpha: float
    rank: int
    base: str
    has_patterns = False

    def of_layer(self, _layer: str, rank: int) -> float:
        return self.alpha / rank


def is_adapter(path: Path) -> bool:
    """Whether a GGUF file is an adapter, of whatever kind. Raises BadFileError for what is no GGUF file."""
    return GGUFFile(path).metadata.get(KIND) == "adapter"


def read(path: Path) -> tuple[Scaling, dict[str, Stored]]:
    """The scaling and the matrices, by names as PEFT gives them: `base_model.model.blk.0.attn_q.lora_A.weight`.

    Raises BadFileError for what is no LoRA, UnsupportedError for one of a mixture's experts.
    """
    file = GGUFFile(path)
    if file.metadata.get(KIND) != "adapter":
        raise BadFileError(f"`{path}` is no adapter", hint="name an adapter behind the plus: BASE+ADAPTER")
    if (kind := file.metadata.get(LORA_KIND)) != "lora" or WORDS in file.metadata:
        what = "an activated LoRA, which changes only what stands behind its own words" if kind == "lora" else f"a `{kind}` adapter"
        raise BadFileError(f"`{path}` is {what}, and nomoat adds LoRA alone", hint="ask llama.cpp for its answers (`--lora`)")
    alpha = file.require(ALPHA)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not np.isfinite(alpha):
        raise BadFileError(f"`{path}` says {alpha!r} as `{ALPHA}`, which is no number", hint=AGAIN)
    stored, ranks = dict[str, Stored](), [1]
    for name, tensor in file.tensors.items():
        found = MATRIX.fullmatch(name)
        if found is None:
            raise BadFileError(f"`{path}` holds `{name}`, which is no LoRA matrix of a layer", hint=AGAIN)
        if len(tensor.shape) > 2:
            raise UnsupportedError(
                f"`{path}` changes a mixture's experts (`{name}`), which is not read from GGUF",
                hint="name the folder that PEFT saved it in",
            )
        stored[f"base_model.model.{found[1]}.lora_{found[2].upper()}.weight"] = Stored(file.rows(name), "F32")
        ranks += [tensor.num_rows] if found[2] == "a" else []
    base = file.metadata.get(BASE)
    return Scaling(float(alpha), max(ranks), base if isinstance(base, str) else ""), stored


def our_name(arch: Architecture, name: str) -> str:
    """The layer that has this name in GGUF (`blk.0.attn_q`); the name itself, if there is none."""
    found = OF_A_LAYER.fullmatch(name)
    part = found and next((part for part, tensor in arch.projections.items() if tensor == found[2]), None)
    return f"model.layers.{found[1]}.{part}" if found and part else OUTPUTS.get(name, name)


def row_order(arch: Architecture, sizes: Dimensions, layer: str, count: int) -> npt.NDArray[np.intp] | None:
    """Where each of the `count` rows of one of our layers lies in a GGUF file; None for in order.

    Raises ValueError if the layer cannot have so many rows.
    """
    order = positions.row_order(arch, sizes, layer)
    if order is not None and len(order) != count:
        raise ValueError(f"{len(order)} rows")
    return order
