"""Writes a GGUF file of a model's true size with random weights: for memory, speed and import time, where no real file is at hand.

    python benchmarks/synthetic_gguf.py FOLDER [--layers 32] [--mixture | --gpt-oss]

The model: Llama-2-7B's shape in the mix of types llama.cpp calls Q4_K_M, 4.08 GB; that of Qwen3-30B-A3B, a mixture of experts,
with a smaller vocabulary, 18 GB with all its 48 layers; or that of GPT-OSS 20B, its experts in MXFP4 and all else in 8 bits, 12 GB
with all its 24. Blocks are random with scales such that each layer keeps its input's size, as in a trained model; the vocabulary is
made up. It answers, and its answers mean nothing.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

CHUNK_ROWS = 1024  # rows written at a time
SCALES = 16, 48  # the range that the 6-bit scales of the sub-blocks are drawn from
Q4, Q6, F32 = gguf.GGMLQuantizationType.Q4_K, gguf.GGMLQuantizationType.Q6_K, gguf.GGMLQuantizationType.F32
Q8, MXFP4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.MXFP4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a Llama, of a Qwen3 with experts, or of a GPT-OSS."""

    arch: str = "llama"
    width: int = 4096
    hidden: int = 11008
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    head_dim: int = 128
    vocabulary: int = 32000
    context_tokens: int = 4096
    experts: int = 0
    chosen: int = 0


MIXTURE = Shape(arch="qwen3moe", width=2048, hidden=768, layers=48, kv_heads=4, experts=128, chosen=8)
GPT_OSS = Shape(
    arch="gpt-oss", width=2880, hidden=2880, layers=24, heads=64, kv_heads=8, head_dim=64, vocabulary=201088, context_tokens=131072,
    experts=32, chosen=4,
)  # fmt: skip


def q4_k_blocks(count: int, deviation: float, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Blocks of 256 weights of mean 0 and about that standard deviation, [count, 144].

    A weight is d * scale * code - dmin * offset. The offset's code is the scale's and dmin is 7.5 d, so that codes 0..15 lie around 0.
    """
    blocks = np.empty((count, 144), np.uint8)
    scales = chance.integers(*SCALES, (count, 8), np.uint8)
    low, high = scales[:, :4], scales[:, 4:]
    first = low | (high >> 4) << 6
    blocks[:, 4:16] = np.concatenate([first, first, (high & 15) | (high & 15) << 4], axis=1)
    blocks[:, 16:] = np.frombuffer(chance.bytes(count * 128), np.uint8).reshape(count, 128)
    scale = deviation / (np.sqrt(np.mean(np.arange(*SCALES) ** 2.0)) * np.arange(16).std())
    blocks[:, :4] = np.array([scale, 7.5 * scale], np.float16).view(np.uint8)
    return blocks


def q6_k_blocks(count: int, deviation: float, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The same in Q6_K, [count, 210]: a weight is d * scale * (code - 32)."""
    blocks = np.empty((count, 210), np.uint8)
    blocks[:, :192] = np.frombuffer(chance.bytes(count * 192), np.uint8).reshape(count, 192)
    blocks[:, 192:208] = chance.integers(*SCALES, (count, 16), np.uint8)
    scale = deviation / (np.sqrt(np.mean(np.arange(*SCALES) ** 2.0)) * np.arange(64).std())
    blocks[:, 208:] = np.array([scale], np.float16).view(np.uint8)
    return blocks


def q8_0_blocks(count: int, deviation: float, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Of 32 weights in Q8_0, [count, 34]: a weight is d * code."""
    blocks = np.empty((count, 34), np.uint8)
    blocks[:, :2] = np.array([deviation / np.arange(-128, 128).std()], np.float16).view(np.uint8)
    blocks[:, 2:] = np.frombuffer(chance.bytes(count * 32), np.uint8).reshape(count, 32)
    return blocks


def mxfp4_blocks(count: int, deviation: float, chance: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Of 32 weights in MXFP4, [count, 17]: a weight is a number of 4 bits times a power of two, of which two neighbours are drawn."""
    blocks = np.empty((count, 17), np.uint8)
    numbers = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    wanted = deviation**2 / np.mean(numbers**2)
    exponent = int(np.floor(np.log2(wanted) / 2))
    share = (wanted / 4.0**exponent - 1) / 3  # of blocks with the larger one
    blocks[:, 0] = 127 + exponent + (chance.random(count) < share)
    blocks[:, 1:] = np.frombuffer(chance.bytes(count * 16), np.uint8).reshape(count, 16)
    return blocks


BLOCKS_OF = {Q4: q4_k_blocks, Q6: q6_k_blocks, Q8: q8_0_blocks, MXFP4: mxfp4_blocks}


def tensors_of(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """(name, rows first, type), as llama.cpp's Q4_K_M mixes them."""
    width, hidden, count = shape.width, shape.hidden, shape.layers
    yield "token_embd.weight", (shape.vocabulary, width), Q4
    for layer in range(count):
        finer = Q6 if layer < count // 8 or layer >= 7 * count // 8 or (layer - count // 8) % 3 == 2 else Q4
        name = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            yield f"{name}.{norm}.weight", (width,), F32
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        for part, rows, kind in (("q", queries, Q4), ("k", keys, Q4), ("v", keys, finer)):
            yield f"{name}.attn_{part}.weight", (rows, width), kind
        yield f"{name}.attn_output.weight", (width, queries), Q4
        if shape.experts:
            for part in "qk":
                yield f"{name}.attn_{part}_norm.weight", (shape.head_dim,), F32
            yield f"{name}.ffn_gate_inp.weight", (shape.experts, width), F32
        all_, end = ((shape.experts,), "_exps") if shape.experts else ((), "")
        yield f"{name}.ffn_gate{end}.weight", (*all_, hidden, width), Q4
        yield f"{name}.ffn_up{end}.weight", (*all_, hidden, width), Q4
        yield f"{name}.ffn_down{end}.weight", (*all_, width, hidden), finer
    yield "output_norm.weight", (width,), F32
    yield "output.weight", (shape.vocabulary, width), Q6


def tensors_of_gpt_oss(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], gguf.GGMLQuantizationType]]:
    """The same, as the files of GPT-OSS have them."""
    width, hidden, experts = shape.width, shape.hidden, shape.experts
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    parts: dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType]] = {
        "attn_q": ((queries, width), Q8), "attn_k": ((keys, width), Q8), "attn_v": ((keys, width), Q8),
        "attn_output": ((width, queries), Q8), "ffn_gate_inp": ((experts, width), F32),
        "ffn_gate_exps": ((experts, hidden, width), MXFP4), "ffn_up_exps": ((experts, hidden, width), MXFP4),
        "ffn_down_exps": ((experts, width, hidden), MXFP4),
    }  # fmt: skip
    yield "token_embd.weight", (shape.vocabulary, width), Q8
    for layer in range(shape.layers):
        for norm in ("attn_norm", "post_attention_norm"):
            yield f"blk.{layer}.{norm}.weight", (width,), F32
        yield f"blk.{layer}.attn_sinks.weight", (shape.heads,), F32
        for part, (sizes, kind) in parts.items():
            yield f"blk.{layer}.{part}.weight", sizes, kind
            yield f"blk.{layer}.{part}.bias", sizes[:-1], F32
    yield "output_norm.weight", (width,), F32
    yield "output.weight", (shape.vocabulary, width), Q8


def vocabulary(count: int, chance: np.random.Generator) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and types of a SentencePiece vocabulary: three control pieces, 256 bytes, letters, and made-up words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    words = {"▁" + letter for letter in letters}
    while len(pieces) + len(words) < count:
        words.add("▁" + "".join(chance.choice(list(letters), chance.integers(2, 9))))
    pieces += sorted(words, key=lambda word: (len(word), word))[: count - len(pieces)]
    kinds += [gguf.TokenType.NORMAL] * (len(pieces) - len(kinds))
    return pieces, [-float(at) for at in range(len(pieces))], [int(kind) for kind in kinds]


def write(path: Path, shape: Shape, *, seed: int = 0) -> Path:
    """Write the file, a few rows at a time. Same arguments, same bytes."""
    chance = np.random.default_rng(seed)
    is_gpt_oss = shape.arch == "gpt-oss"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), shape.arch)
    writer.add_name("synthetic")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.chosen)
        writer.add_expert_feed_forward_length(shape.hidden)
    if is_gpt_oss:
        writer.add_sliding_window(128)
        writer.add_rope_freq_base(150000.0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(32.0)
        writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE if is_gpt_oss else gguf.LlamaFileType.MOSTLY_Q4_K_M)
    pieces, scores, kinds = vocabulary(shape.vocabulary, chance)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    tensors = list(tensors_of_gpt_oss(shape) if is_gpt_oss else tensors_of(shape))
    for name, sizes, kind in tensors:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        stored = (*sizes[:-1], sizes[-1] // block * block_bytes)
        shape_given, dtype = (sizes, np.dtype(np.float32)) if kind == F32 else (stored, np.dtype(np.uint8))
        writer.add_tensor_info(name, shape_given, dtype, int(np.prod(stored)), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    file.write(bytes(-file.tell() % 32))
    for name, sizes, kind in tensors:
        written = 0
        for part in _parts(name, sizes, kind, chance):
            file.write(part)
            written += len(part)
        file.write(bytes(-written % 32))
    writer.close()
    return path


def _parts(name: str, sizes: tuple[int, ...], kind: gguf.GGMLQuantizationType, chance: np.random.Generator) -> Iterator[bytes]:
    """A tensor's bytes."""
    if kind == F32 and name.endswith("norm.weight"):
        yield struct.pack(f"<{sizes[0]}f", *[1.0] * sizes[0])
        return
    if kind == F32:
        size = sizes[-1] ** -0.5 if name.endswith("inp.weight") else 0.5  # of routers; of biases and sinks
        yield (chance.standard_normal(sizes) * size).astype(np.float32).tobytes()
        return
    rows, columns = int(np.prod(sizes[:-1])), sizes[-1]
    deviation = 1.0 if name.startswith("token_embd") else columns**-0.5
    for start in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - start) * columns // gguf.GGML_QUANT_SIZES[kind][0]
        yield BLOCKS_OF[kind](count, deviation, chance).tobytes()


def main() -> int:
    """Write the file and say where it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--mixture", action="store_true", help="of experts, as Qwen3-30B-A3B")
    kinds.add_argument("--gpt-oss", action="store_true", help="as GPT-OSS 20B")
    arguments = parser.parse_args()
    shape, name, mix = Shape(), "llama2-7b", "Q4_K_M"
    if arguments.mixture:
        shape, name = MIXTURE, "qwen3-30b-a3b"
    elif arguments.gpt_oss:
        shape, name, mix = GPT_OSS, "gpt-oss-20b", "MXFP4"
    shape = replace(shape, layers=arguments.layers or shape.layers)
    path = write(arguments.folder / f"synthetic-{name}-{shape.layers}layers.{mix}.gguf", shape)
    print(f"{path}: {path.stat().st_size:,} bytes", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
