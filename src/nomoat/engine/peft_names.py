"""What `transformers` calls a family's linear layers, so how PEFT's adapters name them, and where their rows lie there.

Ours have Llama's names (`graph`), and rows in the order in which the graph computes. A family with other names says so in its
description (`Architecture.hf_names`), and so does one with other rows than Llama's (`hf_neighbours`).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from nomoat.engine import hf_families
from nomoat.engine.arch import ROUTER, Architecture, Dimensions
from nomoat.engine.hf_families import FAMILIES, Family

LLAMAS = "model.layers"
# a model may be part of another: of one that sees, or of the same family's without its output
AROUND = re.compile(r"((model|language_model|transformer|gpt_neox|decoder)\.)*")
BESIDE_LAYERS = {
    "lm_head": "lm_head", "embed_out": "lm_head", "project_in": "model.project_in", "project_out": "model.project_out",
}  # fmt: skip

# of mixtures: Mixtral's before `transformers` 5, Granite's then and since, GPT-OSS's
THEIR_ROUTERS = tuple(
    f"layers.{name}" for name in ("block_sparse_moe.gate", "block_sparse_moe.router.layer", "block_sparse_moe.router", "mlp.router")
)


def _families(arch: Architecture) -> list[Family]:
    """Those of `transformers` that are of it."""
    return [family for family in FAMILIES.values() if family.arch == arch.name]


def has_rows_last(arch: Architecture) -> bool:
    """Whether the family's matrices lie transposed in `transformers` (PEFT's `fan_in_fan_out`)."""
    return any(family.transposed for family in _families(arch))


def is_unread(arch: Architecture, name: str) -> bool:
    """Whether it is a layer that texts do not need: of the part that sees images."""
    return any(name.removeprefix("model.").startswith(family.unread) for family in _families(arch))


def our_name(arch: Architecture, name: str) -> str:
    """The layer that `transformers` has under this name; the name itself, if it has none: an adapter of ours may have Llama's."""
    bare = AROUND.sub("", name, count=1)
    if bare in BESIDE_LAYERS:
        return BESIDE_LAYERS[bare]
    theirs = {f"{arch.hf_layers.rpartition('.')[2]}.{arch.hf_names.get(part, part)}": part for part in arch.projections}
    theirs |= {f"h.{own}": part for part, own in arch.own_names.items()}
    theirs |= dict.fromkeys(THEIR_ROUTERS, ROUTER) if arch.has_experts else {}
    found = re.fullmatch(r"(\w+)\.(\d+)\.(.+)", bare)
    part = found and theirs.get(f"{found[1]}.{found[3]}")
    return f"{LLAMAS}.{found[2]}.{part}" if found and part else name


def is_ours(arch: Architecture, name: str, layer: str) -> bool:
    """Whether only an adapter of ours has this name for the layer: its rows are in our order then."""
    part = layer.removeprefix(f"{LLAMAS}.").partition(".")[2]
    return name == layer and (arch.hf_layers != LLAMAS or arch.hf_names.get(part, part) != part)


def their_name(arch: Architecture, layer: str) -> str:
    """What `transformers` calls one of our layers (`model.layers.0.mlp.up_proj`)."""
    number, part = layer.removeprefix(f"{LLAMAS}.").split(".", 1)
    return f"{arch.hf_layers}.{number}.{arch.hf_names.get(part, part)}"


def row_order(arch: Architecture, sizes: Dimensions, layer: str, count: int) -> npt.NDArray[np.intp] | None:
    """Where each of the `count` rows of one of our layers lies in that of `transformers`; None for in order, and for layers beside.

    Raises ValueError if the layer cannot have so many rows.
    """
    tensor = arch.projections.get(layer.removeprefix(f"{LLAMAS}.").partition(".")[2])
    if tensor is None or not (arch.hf_names or arch.hf_neighbours):
        return None
    from nomoat.engine import positions

    family = _families(arch)[0]
    config = {
        "num_attention_heads": sizes.heads, "hidden_size": sizes.width, "head_dim": sizes.head_dim,
        "new_decoder_architecture": True, "num_kv_heads": sizes.kv_heads,
    }  # fmt: skip
    in_file, in_graph = hf_families.row_order(family, config, tensor, count), positions.row_order(arch, sizes, layer)
    if in_graph is not None and len(in_graph) != count:
        raise ValueError(f"it has {len(in_graph)}")
    if in_file is None or in_graph is None:
        return in_graph if in_file is None else in_file
    return in_file[in_graph]
