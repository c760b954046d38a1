"""Whether a file's tensors are its architecture's, of the sizes its metadata states. Asked before anything is made of either."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from nomoat.engine.arch import ROUTER, SHARED_GATE, Architecture, Dimensions
from nomoat.engine.source import ModelSource
from nomoat.errors import BadFileError, UnsupportedError

Shape = tuple[int, ...]
# what answers to texts do not depend on: how positions turn, said a second time (files of 2023), and the part that sees images
UNUSED = re.compile(r"rope_freqs|blk\.\d+\.attn_rot_embd(\..*)?|(v|mm)\..*")

OPTIONAL_OF_A_LAYER = re.compile(r"blk\.\d+\.(.+\.bias|.+_norm\.weight)")
BETWEEN = ("token_embd_project.weight", "output_project.weight")
BETWEEN_LAYERS = ("model.project_in", "model.project_out")  # as an adapter names them


def require_fitting(file: ModelSource, arch: Architecture, sizes: Dimensions) -> None:
    """Raises UnsupportedError for the first tensor that the architecture does not have: computed without it, answers would be wrong.
    BadFileError for the first that is missing, or of another shape than the sizes ask for.

    What only some files have (biases, norms of some variants) may be missing, in all layers.
    """
    if sizes.heads % sizes.kv_heads:
        raise BadFileError(f"`{file.path}` shares {sizes.kv_heads} heads among {sizes.heads}", hint="download it again")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > sizes.vocabulary:  # rows that are no token are never chosen
        raise BadFileError(
            f"`{file.path}` has {len(tokens):,} tokens, and its model knows {sizes.vocabulary:,}",
            hint="download it again, or try another file of this model",
        )
    has_layers = replace(sizes, layers=min(sizes.layers, len(file.tensors)))  # however many a damaged file says
    _require_known(file, arch, {*dict(_needed(arch, has_layers)), *dict(_possible(arch, has_layers)), *_read_elsewhere(arch)})
    for name, shape in _needed(arch, sizes):  # ends before a damaged number of layers has become as many names
        _require(file, name, shape)
    for name, shape in _around_layers(file, sizes):
        _require(file, name, shape)
    for name, shape in _possible(arch, sizes):
        if name in file.tensors:
            _require(file, name, shape)
    _require_in_all_layers(file, sizes)
    if arch.positions == "learned" and (rows := file.tensor("position_embd.weight").num_rows) < sizes.context_tokens:
        raise BadFileError(f"`{file.path}` has {rows:,} positions for a context of {sizes.context_tokens:,}", hint="download it again")


def _require(file: ModelSource, name: str, shape: Shape) -> None:
    found = file.tensor(name).shape
    if shape not in (found, (1, *found)):  # a matrix of one row is a vector in GGUF files
        raise BadFileError(
            f"`{file.path}` states sizes that its tensors do not have: `{name}` is {_words(found)} and should be {_words(shape)}",
            hint="download it again, and compare its size",
        )


def _words(shape: Shape) -> str:
    return " x ".join(f"{size:,}" for size in shape)


def _needed(arch: Architecture, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Every matrix of every layer, and its sinks."""
    shapes = _projections(sizes)
    for layer in range(sizes.layers):
        for part, tensor in arch.projections.items():
            yield f"blk.{layer}.{tensor}.weight", shapes[part]
        if arch.sinks:
            yield f"blk.{layer}.attn_sinks.weight", (sizes.heads,)


def of_layers(arch: Architecture, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Every linear layer of the blocks, as an adapter names it: (rows, columns)."""
    shapes = _projections(sizes)
    for layer in range(sizes.layers):
        for part in arch.projections:
            yield f"model.layers.{layer}.{part}", shapes[part]


def layer_names(arch: Architecture, sizes: Dimensions) -> dict[str, str]:
    """The layer each tensor belongs to, from the lowest on: an adapter speaks of layers, a file of tensors."""
    return {
        f"blk.{layer}.{tensor}.weight": f"model.layers.{layer}.{part}"
        for layer in range(sizes.layers)
        for part, tensor in arch.projections.items()
    }


def _around_layers(file: ModelSource, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Embedding, output and its norm, and what lies between them and the layers in files where their rows have another width.

    Products of a file's own codes would read behind rows that are shorter than what they are multiplied by.
    """
    columns = sizes.width
    if not file.tensors.keys().isdisjoint(BETWEEN):
        columns = file.tensor("token_embd.weight").shape[-1]
        yield from zip(BETWEEN, ((sizes.width, columns), (columns, sizes.width)), strict=True)
    yield "token_embd.weight", (sizes.vocabulary, columns)
    if "output.weight" in file.tensors:
        yield "output.weight", (sizes.vocabulary, columns)
    if not sizes.norms_last:
        yield "output_norm.weight", (sizes.width,)


def _possible(arch: Architecture, sizes: Dimensions) -> Iterator[tuple[str, Shape]]:
    """Every vector that may be there."""
    shapes = _projections(sizes)
    after = ("post_attention_norm", "post_ffw_norm") if arch.post_norms else ()
    norms = dict.fromkeys((*arch.attention_norms, *([arch.mlp_norm] if arch.mlp_norm else ()), *after))
    for kind in ("weight", "bias") if arch.norm == "layer" else ("weight",):
        for name in ("output_norm", *(("token_embd_norm",) if arch.embedding_norm else ())):
            yield f"{name}.{kind}", (sizes.width,)
        for layer in range(sizes.layers):
            for norm in norms:
                yield f"blk.{layer}.{norm}.{kind}", (sizes.width,)
            for part in "qk" if arch.qk_norm else "":
                heads = {"q": sizes.heads, "k": sizes.kv_heads}[part] if arch.qk_norm == "all heads" else 1
                yield f"blk.{layer}.attn_{part}_norm.{kind}", (heads * sizes.head_dim,)
    for layer in range(sizes.layers):
        for part, tensor in arch.projections.items():
            yield f"blk.{layer}.{tensor}.bias", shapes[part][:-1]
    if arch.norm == "layer" and sizes.logit_scale == 1:  # no family has both: a bias may be meant before the scale or after it
        yield "output.bias", (sizes.vocabulary,)


def _read_elsewhere(arch: Architecture) -> tuple[str, ...]:
    """What has its size looked at by whoever reads it, and what `_around_layers` has looked at."""
    places = {"rope": ("rope_freqs", "rope_factors_short", "rope_factors_long"), "learned": ("position_embd",), "alibi": ()}
    return ("token_embd.weight", "output.weight", *BETWEEN, *(f"{name}.weight" for name in places[arch.positions]))


def _require_known(file: ModelSource, arch: Architecture, known: set[str]) -> None:
    strange = next((name for name in file.tensors if name not in known and not UNUSED.fullmatch(name)), None)
    if strange is not None:
        raise UnsupportedError(
            f"`{file.path}` holds the tensor `{strange}`, which the architecture `{arch.name}` does not have",
            hint="it is a variant that nomoat would answer wrongly; try another file of this model",
        )


def _require_in_all_layers(file: ModelSource, sizes: Dimensions) -> None:
    """Raise BadFileError for a bias or a norm that some layers have and others lack; which ones a variant has differs."""
    counts = Counter(found[1] for name in file.tensors if (found := OPTIONAL_OF_A_LAYER.fullmatch(name)))
    for name, count in counts.items():
        if count < sizes.layers:
            lacking = next(f"blk.{at}.{name}" for at in range(sizes.layers) if f"blk.{at}.{name}" not in file.tensors)
            raise BadFileError(
                f"`{file.path}` has no `{lacking}`, as GGUF calls it, and {count:,} of {sizes.layers:,} layers have theirs",
                hint="it is not complete: download it again",
            )


def _projections(sizes: Dimensions) -> dict[str, Shape]:
    """The shape of each linear layer's matrix, [outputs, inputs]; of those of experts [experts, outputs, inputs]."""
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
        ROUTER: (sizes.experts, width),
        "mlp.experts.gate_proj": (sizes.experts, hidden, width),
        "mlp.experts.up_proj": (sizes.experts, hidden, width),
        "mlp.experts.down_proj": (sizes.experts, width, hidden),
        SHARED_GATE: (1, width),
        "mlp.shared_expert.gate_proj": (sizes.shared_hidden, width),
        "mlp.shared_expert.up_proj": (sizes.shared_hidden, width),
        "mlp.shared_expert.down_proj": (width, sizes.shared_hidden),
    }
