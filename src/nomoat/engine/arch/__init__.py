"""Decoder architectures, each a short declarative description; `graph.py` turns a description into a model.

To add one: write `arch/<family>.py` with an `Architecture`, and name it in `KNOWN`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nomoat.errors import BadFileError, UnsupportedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How a family of decoders is built: RMS norms, rotary positions, grouped-query attention, a gated MLP.

    `rows_permuted`: the file keeps the rows of q and k in the order of interleaved rotation (llama.cpp's for this family); they are
    put back into the order of `rotate_half`, which is that of Hugging Face and so of PEFT adapters.
    `projections`: our layer's name -> tensor's name, within a layer.
    """

    name: str
    rows_permuted: bool
    attention_bias: bool
    projections: dict[str, str] = field(
        default_factory=lambda: {
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
            "mlp.gate_proj": "ffn_gate",
            "mlp.up_proj": "ffn_up",
            "mlp.down_proj": "ffn_down",
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """The sizes of one model, read from its file."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float


def known() -> dict[str, Architecture]:
    """Every architecture by the name GGUF files give it."""
    from nomoat.engine.arch.llama import LLAMA
    from nomoat.engine.arch.qwen2 import QWEN2

    return {arch.name: arch for arch in (LLAMA, QWEN2)}


def find(name: str) -> Architecture:
    """The description of a family. Raises UnsupportedError with the list of those that are known."""
    families = known()
    if name not in families:
        raise UnsupportedError(
            f"the architecture `{name}` is not one that nomoat can import",
            hint=f"known: {', '.join(sorted(families))}; choose another model with `nomoat models`",
        )
    return families[name]


def dimensions(metadata: dict[str, Any], *, vocabulary: int) -> Dimensions:
    """Read the sizes out of a GGUF's metadata. Raises BadFileError for what is missing or cannot be."""
    name = metadata["general.architecture"]

    def number(key: str, default: float | None = None) -> Any:
        value = metadata.get(f"{name}.{key}", default)
        if not isinstance(value, int | float) or value <= 0:
            raise BadFileError(f"the file says `{name}.{key}` = {value!r}", hint="a positive number is needed; try another file")
        return value

    scaling = metadata.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none":
        raise UnsupportedError(f"this model scales its positions (`{scaling}`), which nomoat cannot do yet")
    width, heads = number("embedding_length"), number("attention.head_count")
    return Dimensions(
        layers=number("block_count"),
        width=width,
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
        head_dim=number("attention.key_length", width // heads),
        hidden=number("feed_forward_length"),
        vocabulary=vocabulary,
        context_tokens=number("context_length"),
        norm_epsilon=float(number("attention.layer_norm_rms_epsilon")),
        rope_base=float(number("rope.freq_base", 10000.0)),
    )
