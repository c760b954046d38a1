"""LoRA of a mixture's experts: the matrices as PEFT keeps them, and as a layer of ours takes them.

PEFT has two for each linear layer of each expert (`transformers` 4), or two for each parameter that all experts of a layer share (5):
for `down_proj`, and for the gate and up in one. These have no names of their own, but their shapes differ.

Shapes: E experts, R rank of one, I input, O output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import FloatArray

Pair = tuple[FloatArray, FloatArray]  # A_RI, B_OR of an expert; A_ERI, B_EOR of all
OF_EXPERTS = re.compile(
    r"(?P<all>(?:.+\.)?layers\.(?P<layer>\d+)\.(?:mlp|block_sparse_moe)\.experts)(?:(?:\.base_layer)*|\.(?P<number>\d+)\.(?P<part>\w+))"
)
PARTS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"} | {name: name for name in ("gate_proj", "up_proj", "down_proj")}


def is_of_experts(arch: Architecture, name: str) -> bool:
    """Whether a layer that PEFT calls so is one of experts that are chosen."""
    return arch.has_experts and OF_EXPERTS.fullmatch(name) is not None


def parameters(name: str) -> list[str]:
    """What patterns of scales are compared with, for a layer that PEFT calls so: of all experts two, else none."""
    found = OF_EXPERTS.fullmatch(name)
    return [] if found is None or found["number"] else [f"{found['all']}.{part}" for part in ("gate_up_proj", "down_proj")]


def of_layers(
    arch: Architecture, sizes: Dimensions, pairs: Mapping[str, Pair], scale_of: Callable[[str, int], float]
) -> dict[str, Pair]:
    """The matrices of all experts by the name of our layer, with their scales in B; zeros for an expert that they do not change.

    `pairs`: of what `is_of_experts`. `scale_of`: of what PEFT calls so, of that rank. Raises ValueError, which says what they change,
    for what such a model's experts are not.
    """
    found: dict[str, dict[int, Pair]] = {}
    for name, pair in pairs.items():
        for layer, told, by_expert in _apart(arch, sizes, name, *pair):
            known = found.setdefault(layer, {})
            if not known.keys().isdisjoint(by_expert):
                raise ValueError(f"`{layer}` twice, under two names")
            known |= {number: (a_RI, b_OR * np.float32(scale_of(told, len(a_RI)))) for number, (a_RI, b_OR) in by_expert.items()}
    return {layer: _together(by_expert, sizes.experts) for layer, by_expert in found.items()}


def _apart(
    arch: Architecture, sizes: Dimensions, name: str, a: FloatArray, b: FloatArray
) -> Iterator[tuple[str, str, dict[int, Pair]]]:
    """Our layer, what PEFT's patterns of scales are compared with, and the matrices of each expert."""
    found = OF_EXPERTS.fullmatch(name)
    assert found is not None
    ours, shape = f"model.layers.{found['layer']}.mlp.experts", (len(b), a.shape[1])
    ups, downs = (sizes.hidden, sizes.width), (sizes.width, sizes.hidden)
    if found["number"]:
        number, part = int(found["number"]), PARTS.get(found["part"])
        if part is None or number >= sizes.experts or shape != (downs if part == "down_proj" else ups):
            raise ValueError(f"`{name}` as one of {list(shape)}, which no expert of the model has")
        yield f"{ours}.{part}", name, {number: (a, b)}
        return
    if len(a) % sizes.experts or shape not in (downs, (2 * sizes.hidden, sizes.width)):
        raise ValueError(f"`{name}` as one of {list(shape)}, which no {sizes.experts} experts of the model have")
    a_ERI, b_EOR = a.reshape(sizes.experts, -1, shape[1]), b.reshape(shape[0], -1, sizes.experts).transpose(2, 0, 1)
    if shape == downs:
        yield f"{ours}.down_proj", f"{found['all']}.down_proj", dict(enumerate(zip(a_ERI, b_EOR, strict=True)))
        return
    by_turns = arch.activation == "clamped"  # GPT-OSS's gate and up
    for at, part in enumerate(("gate_proj", "up_proj")):
        half_EOR = b_EOR[:, at::2] if by_turns else b_EOR[:, at * sizes.hidden : (at + 1) * sizes.hidden]
        yield f"{ours}.{part}", f"{found['all']}.gate_up_proj", dict(enumerate(zip(a_ERI, half_EOR, strict=True)))


def _together(by_expert: Mapping[int, Pair], experts: int) -> Pair:
    """[E, R, I], [E, O, R], of the highest rank."""
    (a_RI, b_OR), rank = next(iter(by_expert.values())), max(len(a_RI) for a_RI, _ in by_expert.values())
    a_ERI, b_EOR = (np.zeros(shape, np.float32) for shape in ((experts, rank, a_RI.shape[1]), (experts, len(b_OR), rank)))
    for number, (a_RI, b_OR) in by_expert.items():
        a_ERI[number, : len(a_RI)], b_EOR[number, :, : len(a_RI)] = a_RI, b_OR
    return a_ERI, b_EOR
