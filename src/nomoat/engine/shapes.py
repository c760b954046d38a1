"""Whether a file's tensors have the sizes that its metadata states. Asked before anything is made of either."""

from __future__ import annotations

from collections.abc import Iterator

from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.source import ModelSource
from nomoat.errors import BadFileError

Shape = tuple[int, ...]


def require_fitting(file: ModelSource, arch: Architecture, sizes: Dimensions) -> None:
    """Raises BadFileError for the first tensor that is missing or of another shape than the sizes ask for.

    What only some files have (biases, norms of some variants) may be missing.
    """
    if sizes.heads % sizes.kv_heads:
        raise BadFileError(f"`{file.path}` shares {sizes.kv_heads} heads among {sizes.heads}", hint="download it again")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > sizes.vocabulary:
        raise BadFileError(
            f"`{file.path}` has {len(tokens):,} tokens, and its model knows {sizes.vocabulary:,}", hint="download it again"
        )
    for name, shape in _needed(arch, sizes):
        _require(file, name, shape)
    for name, shape in _possible(arch, sizes):
        if name in file.tensors:
            _require(file, name, shape)
    if arch.positions == "learned" and file.tensor("position_embd.weight").num_rows < sizes.context_tokens:
        rows = file.tensor("position_embd.weight").num_rows
        raise BadFileError(f"`{file.path}` has {rows:,} positions for a context of {sizes.context_tokens:,}", hint="download it again")


def _require(file: ModelSource, name: str, shape: Shape) -> None:
    found = file.tensor(name).shape
    if found != shape:
        raise BadFileError(
            f"`{file.path}` states sizes that its tensors do not have: `{name}` is {_words(found)} and should be {_words(shape)}",
            hint="download it again, and compare its size",
        )


def _words(shape: Shape) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _needed(arch: Architecture, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Every matrix of every layer."""
    shapes = _projections(sizes)
    for layer in range(sizes.layers):
        for part, tensor in arch.projections.items():
            yield f"blk.{layer}.{tensor}.weight", shapes[part]


def _possible(arch: Architecture, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Every vector that may be there."""
    shapes = _projections(sizes)
    norms = dict.fromkeys((*arch.attention_norms, arch.mlp_norm, "post_attention_norm", "post_ffw_norm"))
    for kind in ("weight", "bias"):
        for name in ("output_norm", "token_embd_norm"):
            yield f"{name}.{kind}", (sizes.width,)
        for layer in range(sizes.layers):
            for norm in norms:
                yield f"blk.{layer}.{norm}.{kind}", (sizes.width,)
            for part in "qk":
                yield f"blk.{layer}.attn_{part}_norm.{kind}", (sizes.head_dim,)
    for layer in range(sizes.layers):
        for part, tensor in arch.projections.items():
            yield f"blk.{layer}.{tensor}.bias", shapes[part][:1]
    yield "output.bias", (sizes.vocabulary,)


def _projections(sizes: Dimensions) -> dict[str, Shape]:
    """The shape of each linear layer's matrix, [outputs, inputs]."""
    width, hidden = sizes.width, sizes.hidden
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    return {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.qkv_proj": (queries + 2 * keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (hidden, width),
        "mlp.up_proj": (hidden, width),
        "mlp.gate_up_proj": (2 * hidden, width),
        "mlp.down_proj": (width, hidden),
    }
