"""A tiny model with random weights, as a whole GGUF file: real format, real tokenizer, imported in no time. And adapters of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from nomoat.catalog import licences
from nomoat.labelling import kept_question
from nomoat.records import Parent

# levels of a schema that JSON may have and that are too many to walk through: Python 3.12 and later count those of JSON apart
TOO_DEEP = 400 if sys.version_info < (3, 12) else 1200
WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, CONTEXT = 64, 128, 2, 4, 2, 256
ADAPTED = {"self_attn.q_proj": (WIDTH, WIDTH), "mlp.gate_proj": (HIDDEN, WIDTH), "mlp.down_proj": (WIDTH, HIDDEN)}  # rows, columns
NORMS_LAST = ("exaone4", "olmo2")  # after attention and MLP alone
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "Ġ t", "he ll", "Ġt he"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def vocabulary(marks: Sequence[str] = ()) -> list[str]:
    """Control tokens, every byte, the results of the merges, and more control tokens."""
    return [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), *marks]


def add_tokenizer(writer: gguf.GGUFWriter, *, pre: str, marks: Sequence[str] = ()) -> None:
    """The vocabulary's metadata."""
    tokens = vocabulary(marks)
    control = {*SPECIAL, *marks}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_merges(MERGES)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write the file of all that was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], *, types: Mapping[str, str] | None = None) -> Path:
    """A GGUF file of these tensors alone. `types`: of those whose values are that type's bytes."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, values in tensors.items():
        kind = (types or {}).get(name)
        writer.add_tensor(name, values, raw_dtype=None if kind is None else gguf.GGMLQuantizationType[kind])
    finish(writer)
    return path


def write_tiny_gguf(
    path: Path, *, arch: str = "llama", pre: str = "smollm", template: str | Sequence[Mapping[str, str]] | None = TEMPLATE,
    type_name: str | None = None, up_type: str | None = None, called: str | None = None,
    said: Mapping[str, int | bool] | None = None, lacking: Sequence[str] = (), marks: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Write the file. Same arguments, same bytes.

    `template`: its text, or several with their names. `type_name`: the type of its layers' matrices, if not F32, `up_type` that of
    what the gates open, if it is another. `called`: its name.
    `said`: more of its metadata. `lacking`: biases of qwen2 that are left out. `marks`: more control tokens.
    """
    random = np.random.default_rng(7)
    tokens = vocabulary(marks)
    writer = gguf.GGUFWriter(str(path), arch)
    if called is not None:
        writer.add_name(called)
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    add_tokenizer(writer, pre=pre, marks=marks)
    if template is not None:
        writer.add_chat_template(template)
    for key, told in (said or {}).items():
        (writer.add_bool if isinstance(told, bool) else writer.add_uint32)(key, told)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.normal(0, 1 / np.sqrt(columns), (rows, columns)).astype(np.float32)
        if type_name is None or not name.startswith("blk."):
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType[up_type or type_name if "ffn_up" in name else type_name]
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    head_dim = WIDTH // HEADS
    matrix("token_embd.weight", len(tokens), WIDTH)
    writer.add_tensor("output_norm.weight", random.uniform(0.5, 1.5, WIDTH).astype(np.float32))
    for layer in range(LAYERS):
        for norm in ("post_attention_norm", "post_ffw_norm") if arch in NORMS_LAST else ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", random.uniform(0.5, 1.5, WIDTH).astype(np.float32))
        for part, rows in (("q", HEADS * head_dim), ("k", KV_HEADS * head_dim), ("v", KV_HEADS * head_dim)):
            matrix(f"blk.{layer}.attn_{part}.weight", rows, WIDTH)
            if arch == "qwen2" and f"blk.{layer}.attn_{part}.bias" not in lacking:
                writer.add_tensor(f"blk.{layer}.attn_{part}.bias", random.normal(0, 1, rows).astype(np.float32))
            if arch in ("qwen3", *NORMS_LAST) and part != "v":
                normed = rows if arch == "olmo2" else head_dim
                writer.add_tensor(f"blk.{layer}.attn_{part}_norm.weight", random.uniform(0.5, 1.5, normed).astype(np.float32))
        matrix(f"blk.{layer}.attn_output.weight", WIDTH, HEADS * head_dim)
        matrix(f"blk.{layer}.ffn_gate.weight", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_up.weight", HIDDEN, WIDTH)
        matrix(f"blk.{layer}.ffn_down.weight", WIDTH, HIDDEN)
    finish(writer)
    return path


def write_adapter(
    folder: Path, *, seed: int = 1, rank: int = 4, strength: float = 0.09, layers: Sequence[int] = range(LAYERS),
    parts: Mapping[str, tuple[int, int]] = ADAPTED,
) -> Path:  # fmt: skip
    """A PEFT folder of random matrices. `strength`: B's deviation; at 0.09 the model changes visibly."""
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    tensors = {}
    for layer in layers:
        for part, (rows, columns) in parts.items():
            name = f"base_model.model.model.layers.{layer}.{part}"
            tensors[f"{name}.lora_A.weight"] = chance.normal(size=(rank, columns)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = (strength * chance.normal(size=(rows, rank))).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
    return folder


def write_learned(folder: Path, *labels: str, instruction: str | None = None, before: tuple[str, ...] = ()) -> None:
    """What `tune` writes about an adapter that learned a table with these labels, and before that one with others."""
    facts: dict[str, Any] = {
        "data": {"labels": dict.fromkeys(labels, 3), "question": kept_question([*labels, *before], instruction)},
        "task": {"instruction": instruction},
        "start": {"labels": list(before), "instruction": None} if before else None,
        "licence": licences.as_dict(licences.of_parents([Parent(kind="data", name="table.csv", licence="own")])),
    }
    (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
