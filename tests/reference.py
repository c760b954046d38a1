"""What the engine is compared with: tiny random models of `transformers`, and the GGUF files llama.cpp's converter would make of them.

Matrices are rounded to what int8 rows hold exactly, so that the imported model has the very weights of the reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import openvino as ov
import torch
import transformers
from safetensors.numpy import save_file
from tiny import add_tokenizer, finish, vocabulary, write_tiny_gguf
from transformers.pytorch_utils import Conv1D

from nomoat.engine import arch as architectures
from nomoat.engine import gguf_tokenizer, importer, positions, tied_embeddings
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.source import open_source
from nomoat.engine.weights import Form, quantised, restored

# Dynamic quantisation rounds activations, which this comparison must not see.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}

WIDTH, HIDDEN, HEADS, CONTEXT, WINDOW = 64, 128, 4, 256, 24
HEAD = WIDTH // HEADS
RANK = 4  # of `make_adapter`
Tensor = torch.Tensor
RANDOM = np.random.default_rng(3).integers(3, 250, 400).tolist()
# One token, prefixes of each other, a common beginning, the same twice, a long one.
CONTINUATIONS = [[7], [7, 8], [7, 8, 9], [7, 8, 9, 10], [7, 9], [20, 21, 22], [7, 8], RANDOM[:40], [*RANDOM[:30], 5]]
LLAMA_LIKE = {
    "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
}  # fmt: skip


def by_head_to_by_part(tensor: Tensor) -> Tensor:
    """(q, k, v of a head) x heads -> all q, all k, all v: GPT-NeoX and BLOOM."""
    return tensor.reshape(HEADS, 3, HEAD, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)


def by_group_to_by_part(tensor: Tensor, kv_heads: int) -> Tensor:
    """(the q of a group, its k, its v) x groups -> all q, all k, all v: Falcon."""
    groups = tensor.reshape(kv_heads, HEADS // kv_heads + 2, HEAD, *tensor.shape[1:])
    return torch.cat([part.reshape(-1, *tensor.shape[1:]) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])])


def by_neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Rows of q or k in the order of interleaved rotation: Llama."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A reference model and how its file is written. `change`: (name of a tensor, tensor) -> the tensor as the file has it."""

    arch: str
    model: str  # of the class in `transformers`, without `ForCausalLM`
    config: dict[str, Any]
    config_class: str | None = None
    keys: dict[str, Any] = field(default_factory=dict)
    change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
    norm_offset: float = 0.0  # what the converter adds to the weights of norms
    extra: dict[str, Any] = field(default_factory=dict)  # tensors that are in the file only
    one_qkv: bool = False  # the file has queries, keys and values in one matrix
    told: dict[str, Any] = field(default_factory=dict)  # what `config.json` says of a family that only its folders have code for


def llama_rows(name: str, tensor: Tensor) -> Tensor:
    heads = {"q_proj": HEADS, "k_proj": 2}.get(name.split(".")[-2])
    return tensor if heads is None else by_neighbours(tensor, heads)


def _fused_by_head(name: str, tensor: Tensor) -> Tensor:
    return by_head_to_by_part(tensor) if "query_key_value" in name else tensor


def _falcon(kv_heads: int) -> Callable[[str, Tensor], Tensor]:
    return lambda name, tensor: by_group_to_by_part(tensor, kv_heads) if "query_key_value" in name else tensor


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
YARN_KEYS = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
YARN_MAGNITUDE = 1 + 0.1 * np.log(4.0).item()
FIRST_CONTEXT = CONTEXT - 32  # of LongRoPE; longer than any text of the other tests
SHORT, LONG = np.linspace(1, 1.5, HEAD // 2, dtype=np.float32), np.linspace(1, 9, HEAD // 2, dtype=np.float32)


def llama3_factors() -> Any:
    """What Llama 3.1's converter writes as `rope_freqs`: what each pair's turning is divided by."""
    waves = 2 * np.pi * 10000.0 ** (np.arange(0, HEAD, 2) / HEAD)
    turns = LLAMA3["original_max_position_embeddings"] / waves
    smooth = np.clip((turns - LLAMA3["low_freq_factor"]) / (LLAMA3["high_freq_factor"] - LLAMA3["low_freq_factor"]), 0, 1)
    return (1 / ((1 - smooth) / LLAMA3["factor"] + smooth)).astype(np.float32)


FOUR_LAYERS = {**LLAMA_LIKE, "num_hidden_layers": 4}
GEMMA = {**LLAMA_LIKE, "head_dim": 32, "num_key_value_heads": 1}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GLM = {**LLAMA_LIKE, "pad_token_id": 0, "head_dim": HEAD, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}}
CASES = {
    "llama": Case(arch="llama", model="Llama", config=LLAMA_LIKE, change=llama_rows),
    "llama, linear scaling": Case(
        arch="llama",
        model="Llama",
        config={**LLAMA_LIKE, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        change=llama_rows,
    ),
    "llama, scaling of 3.1": Case(
        arch="llama",
        model="Llama",
        config={**LLAMA_LIKE, "rope_parameters": LLAMA3},
        change=llama_rows,
        extra={"rope_freqs.weight": llama3_factors()},
    ),
    "llama, YaRN": Case(
        arch="llama", model="Llama", config={**LLAMA_LIKE, "rope_parameters": YARN}, keys=YARN_KEYS, change=llama_rows
    ),
    "llama, heads wider than the model": Case(  # Kanana 1.5, Mi:dm 2.0 Mini, HyperCLOVA X SEED
        arch="llama",
        model="Llama",
        config={**LLAMA_LIKE, "head_dim": 32},
        keys={"attention.key_length": 32, "attention.value_length": 32, "rope.dimension_count": 32},
        change=llama_rows,
    ),
    "llama, window": Case(
        arch="llama",
        model="Mistral",
        config={**LLAMA_LIKE, "sliding_window": WINDOW},
        keys={"attention.sliding_window": WINDOW},
        change=llama_rows,
    ),
    "qwen2": Case(arch="qwen2", model="Qwen2", config=LLAMA_LIKE),
    "qwen2, YaRN": Case(
        arch="qwen2",
        model="Qwen2",
        config={**LLAMA_LIKE, "rope_parameters": {**YARN, "rope_theta": 1e6, "beta_fast": 8.0, "beta_slow": 2.0}},
        keys={**YARN_KEYS, "rope.freq_base": 1e6, "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0},
    ),
    "qwen3": Case(
        arch="qwen3", model="Qwen3", config={**LLAMA_LIKE, "head_dim": 32}, keys={"attention.key_length": 32}
    ),
    "command-r": Case(
        arch="command-r", model="Cohere", config={**LLAMA_LIKE, "logit_scale": 2.0, "rope_parameters": ROPE}, keys={"logit_scale": 2.0}
    ),
    "cohere2": Case(
        arch="cohere2",
        model="Cohere2",
        config={**FOUR_LAYERS, "sliding_window": WINDOW, "logit_scale": 2.0, "rope_parameters": ROPE},
        keys={"logit_scale": 2.0, "attention.sliding_window": WINDOW},
    ),
    "exaone": Case(
        arch="exaone",
        model="Llama",
        config_class="ExaoneConfig",
        config={**LLAMA_LIKE, "rope_parameters": LLAMA3},
        keys={"rope.dimension_count": HEAD},
        extra={"rope_freqs.weight": llama3_factors()},
    ),
    "exaone4": Case(  # the 32B
        arch="exaone4",
        model="Exaone4",
        config={**FOUR_LAYERS, "num_hidden_layers": 5, "sliding_window": WINDOW, "rope_parameters": LLAMA3},
        keys={"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, True, True, False, True]},
        extra={"rope_freqs.weight": llama3_factors()},
    ),
    "exaone4, no window": Case(  # the 1.2B
        arch="exaone4",
        model="Exaone4",
        config={**FOUR_LAYERS, "sliding_window": None, "layer_types": 4 * ["full_attention"], "rope_parameters": ROPE},
    ),
    "chatglm": Case(arch="chatglm", model="Glm", config=GLM, keys={"rope.dimension_count": HEAD // 2}),
    "chatglm, one matrix": Case(arch="chatglm", model="Glm", config=GLM, keys={"rope.dimension_count": HEAD // 2}, one_qkv=True),
    "glm4": Case(arch="glm4", model="Glm4", config=GLM, keys={"rope.dimension_count": HEAD // 2}),
    "granite": Case(
        arch="granite",
        model="Granite",
        config={
            **LLAMA_LIKE, "rope_parameters": ROPE, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
            "attention_multiplier": 0.125, "logits_scaling": 0.5,
        },
        keys={"embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.125, "logit_scale": 0.5},
        change=llama_rows,
    ),
    "minicpm": Case(  # computed as Granite is, with scores as Llama's
        arch="minicpm",
        model="Granite",
        config={
            **LLAMA_LIKE, "rope_parameters": ROPE, "embedding_multiplier": 12.0, "residual_multiplier": 1.4 / 2**0.5,
            "attention_multiplier": HEAD**-0.5, "logits_scaling": 2.0,
        },
        keys={"embedding_scale": 12.0, "residual_scale": 1.4 / 2**0.5, "logit_scale": 2.0},
        change=llama_rows,
        told={"model_type": "minicpm", "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": WIDTH // 2},
    ),
    "arcee": Case(arch="arcee", model="Arcee", config={**LLAMA_LIKE, "rope_parameters": ROPE}, change=llama_rows),
    "ernie4_5": Case(arch="ernie4_5", model="Ernie4_5", config={**LLAMA_LIKE, "head_dim": HEAD, "rope_parameters": ROPE}),
    "hunyuan-dense": Case(
        arch="hunyuan-dense",
        model="HunYuanDenseV1",
        config={
            **LLAMA_LIKE, "head_dim": HEAD,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0, "alpha": 50.0},
        },
        keys={"rope.freq_base": 10000.0 * 50.0 ** (HEAD / (HEAD - 2)), "rope.scaling.type": "none"},
    ),
    "mistral3": Case(
        arch="mistral3",
        model="Ministral3",
        config={
            **LLAMA_LIKE, "head_dim": HEAD,
            "rope_parameters": {
                **YARN, "original_max_position_embeddings": CONTEXT, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
            },
        },
        keys={
            **YARN_KEYS, "rope.scaling.original_context_length": CONTEXT, "rope.scaling.yarn_log_multiplier": 1.0,
            "attention.temperature_scale": 0.1,
        },
        change=llama_rows,
    ),
    "nemotron": Case(
        arch="nemotron",
        model="Nemotron",
        config={**LLAMA_LIKE, "norm_eps": 0.01, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        keys={"rope.dimension_count": HEAD // 2},
        norm_offset=1,
    ),
    "olmo2": Case(arch="olmo2", model="Olmo2", config={**LLAMA_LIKE, "rope_parameters": ROPE}),
    "olmo3": Case(
        arch="olmo2",
        model="Olmo3",
        config={
            **FOUR_LAYERS, "sliding_window": WINDOW,
            "rope_parameters": {
                "full_attention": {**YARN, "rope_theta": 500000.0, "attention_factor": YARN_MAGNITUDE},
                "sliding_attention": {**ROPE, "rope_theta": 500000.0},
            },
        },
        keys={
            **YARN_KEYS, "rope.scaling.attn_factor": YARN_MAGNITUDE, "rope.freq_base": 500000.0, "attention.sliding_window": WINDOW,
            "attention.sliding_window_pattern": [True, True, True, False],
        },
    ),
    "smollm3": Case(
        arch="smollm3", model="SmolLM3", config={**FOUR_LAYERS, "pad_token_id": 0, "rope_parameters": ROPE}, change=llama_rows
    ),
    "stablelm": Case(  # 2 1.6B; its converter says `use_parallel_residual` of every model whose configuration does not
        arch="stablelm",
        model="StableLm",
        config={**LLAMA_LIKE, "use_qkv_bias": True, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}},
        keys={"rope.dimension_count": HEAD // 4, "use_parallel_residual": True},
    ),
    "starcoder": Case(
        arch="starcoder",
        model="GPTBigCode",
        config={"n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": 2, "n_head": HEADS, "n_positions": CONTEXT},
        keys={"attention.head_count_kv": 1},
    ),
    "starcoder2": Case(
        arch="starcoder2",
        model="Starcoder2",
        config={**LLAMA_LIKE, "sliding_window": WINDOW, "rope_parameters": ROPE, "norm_epsilon": 0.02},
        keys={"attention.sliding_window": WINDOW},
    ),
    "gemma": Case(arch="gemma", model="Gemma", config=GEMMA, keys={"attention.key_length": 32}, norm_offset=1),
    "gemma2": Case(
        arch="gemma2",
        model="Gemma2",
        config={
            **GEMMA, "num_hidden_layers": 4, "num_key_value_heads": 2, "sliding_window": WINDOW, "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
        },
        keys={
            "attention.key_length": 32, "attention.sliding_window": WINDOW, "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
        },
        norm_offset=1,
    ),
    "gemma3": Case(
        arch="gemma3",
        model="Gemma3",
        config_class="Gemma3TextConfig",
        config={
            **GEMMA, "num_hidden_layers": 7, "sliding_window": WINDOW, "query_pre_attn_scalar": 32,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": ROPE,
            },
        },
        keys={
            "attention.key_length": 32, "attention.sliding_window": WINDOW, "rope.freq_base": 1e6,
            "rope.scaling.type": "linear", "rope.scaling.factor": 8.0,
        },
        norm_offset=1,
    ),
    "phi2": Case(
        arch="phi2",
        model="Phi",
        config={**LLAMA_LIKE, "pad_token_id": 0, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        keys={"rope.dimension_count": HEAD // 2},
    ),
    "phi3": Case(
        arch="phi3", model="Phi3", config={**LLAMA_LIKE, "pad_token_id": 0, "rope_parameters": {**ROPE, "partial_rotary_factor": 1.0}},
        keys={"rope.dimension_count": HEAD},
    ),
    "phi3, window": Case(
        arch="phi3",
        model="Phi3",
        config={
            **LLAMA_LIKE, "pad_token_id": 0, "sliding_window": WINDOW, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5},
        },
        keys={"rope.dimension_count": HEAD // 2, "attention.sliding_window": WINDOW},
    ),
    "phi3, LongRoPE": Case(
        arch="phi3",
        model="Phi3",
        config={
            **LLAMA_LIKE, "pad_token_id": 0, "original_max_position_embeddings": FIRST_CONTEXT,
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "short_factor": SHORT.tolist(),
                "long_factor": LONG.tolist(), "original_max_position_embeddings": FIRST_CONTEXT,
            },
        },
        keys={
            "rope.dimension_count": HEAD, "rope.scaling.original_context_length": FIRST_CONTEXT,
            "rope.scaling.attn_factor": (1 + np.log(CONTEXT / FIRST_CONTEXT) / np.log(FIRST_CONTEXT)).item() ** 0.5,
        },
        extra={"rope_factors_short.weight": SHORT, "rope_factors_long.weight": LONG},
    ),
    "gptneox": Case(
        arch="gptneox",
        model="GPTNeoX",
        config={**LLAMA_LIKE, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}},
        keys={"rope.dimension_count": HEAD // 4, "use_parallel_residual": True, "attention.head_count_kv": HEADS},
        change=_fused_by_head,
    ),
    "gptneox, one after another": Case(
        arch="gptneox",
        model="GPTNeoX",
        config={**LLAMA_LIKE, "use_parallel_residual": False, "rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
        keys={"rope.dimension_count": HEAD // 2, "use_parallel_residual": False, "attention.head_count_kv": HEADS},
        change=_fused_by_head,
    ),
    "gpt2": Case(
        arch="gpt2",
        model="GPT2LMHead",
        config_class="GPT2Config",
        config={"n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": 2, "n_head": HEADS, "n_positions": CONTEXT},
    ),
    "falcon 7b": Case(
        arch="falcon",
        model="Falcon",
        config={**LLAMA_LIKE, "ffn_hidden_size": HIDDEN, "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False},
        keys={"attention.head_count_kv": 1},
        change=_falcon(1),
    ),
    "falcon 40b": Case(
        arch="falcon",
        model="Falcon",
        config={
            **LLAMA_LIKE, "ffn_hidden_size": HIDDEN, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False,
            "alibi": False,
        },
        keys={"attention.head_count_kv": 2},
        change=_falcon(2),
    ),
    "bloom": Case(
        arch="bloom",
        model="Bloom",
        config={"hidden_size": WIDTH, "n_layer": 2, "n_head": HEADS},
        keys={"feed_forward_length": 4 * WIDTH},
        change=_fused_by_head,
    ),
    "mpt": Case(
        arch="mpt",
        model="Mpt",
        config={
            "d_model": WIDTH, "n_heads": HEADS, "n_layers": 2, "expansion_ratio": 2, "max_seq_len": CONTEXT,
            "attn_config": {"clip_qkv": 0.8, "alibi": True},
        },
        keys={"attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.8, "feed_forward_length": 4 * WIDTH},
    ),
    "gptj": Case(
        arch="gptj",
        model="GPTJ",
        config={"n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": 2, "n_head": HEADS, "n_positions": CONTEXT, "rotary_dim": 8},
        keys={"rope.dimension_count": 8},
    ),
}  # fmt: skip


GPTOSS_YARN = {**YARN, "rope_theta": 150000.0, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False}
# Of mixtures of experts.
MIXTURES = {
    "gpt-oss": Case(
        arch="gpt-oss",
        model="GptOss",
        config={
            **LLAMA_LIKE, "num_hidden_layers": 3, "head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 4,
            "sliding_window": WINDOW, "rope_parameters": GPTOSS_YARN, "swiglu_limit": 7.0,
        },
        keys={
            **YARN_KEYS, "rope.freq_base": 150000.0, "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0,
            "attention.key_length": 32, "attention.sliding_window": WINDOW, "expert_count": 8, "expert_used_count": 4,
            "expert_feed_forward_length": HIDDEN,
        },
    ),
    "mixtral": Case(
        arch="llama",
        model="Mixtral",
        config={**LLAMA_LIKE, "rope_parameters": ROPE, "num_local_experts": 4, "num_experts_per_tok": 2},
        keys={"expert_count": 4, "expert_used_count": 2},
        change=llama_rows,
    ),
    "qwen3moe": Case(
        arch="qwen3moe",
        model="Qwen3Moe",
        config={
            **LLAMA_LIKE, "head_dim": 32, "num_experts": 24, "num_experts_per_tok": 3, "moe_intermediate_size": 96,
            "norm_topk_prob": True,
        },
        keys={"attention.key_length": 32, "expert_count": 24, "expert_used_count": 3, "expert_feed_forward_length": 96},
    ),
    "qwen2moe": Case(
        arch="qwen2moe",
        model="Qwen2Moe",
        config={
            **LLAMA_LIKE, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 96,
            "shared_expert_intermediate_size": 160,
        },
        keys={
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 96, "expert_shared_feed_forward_length": 160,
        },
    ),
    "granitemoe": Case(
        arch="granitemoe",
        model="GraniteMoe",
        config={
            **LLAMA_LIKE, "rope_parameters": ROPE, "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
            "attention_multiplier": 0.125, "logits_scaling": 0.5, "num_local_experts": 6, "num_experts_per_tok": 3,
        },
        keys={
            "embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.125, "logit_scale": 0.5, "expert_count": 6,
            "expert_used_count": 3,
        },
        change=llama_rows,
    ),
    "olmoe": Case(
        arch="olmoe",
        model="Olmoe",
        config={**LLAMA_LIKE, "rope_parameters": ROPE, "pad_token_id": 0, "num_experts": 24, "num_experts_per_tok": 3},
        keys={"expert_count": 24, "expert_used_count": 3},
    ),
}  # fmt: skip
# Families that no GGUF file has.
OPT = {
    "hidden_size": WIDTH, "ffn_dim": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT,
}  # fmt: skip
FOLDER_CASES = {
    "opt": Case(arch="opt", model="OPT", config=OPT),
    "opt 350m": Case(arch="opt", model="OPT", config={**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
}


def make_model(case: Case) -> Any:
    """The reference in f32. Same case, same weights."""
    torch.manual_seed(7)
    settings = getattr(transformers, case.config_class or f"{case.model}Config")(
        vocab_size=len(vocabulary()), attn_implementation="eager", **case.config
    )
    name = case.model if case.model.endswith("LMHead") else f"{case.model}ForCausalLM"
    model = getattr(transformers, name + "Model" if case.model.endswith("LMHead") else name)(settings).eval().float()
    randomise(model, arch=case.arch, norm_offset=case.norm_offset)
    return model


def make_seeing_gemma3() -> Any:
    """A Gemma 3 with a vision part, whose text part has the sizes that `config.json` leaves out: 8 heads, 256 wide, and so on."""
    torch.manual_seed(7)
    scaling = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}, "sliding_attention": ROPE}
    text = transformers.Gemma3TextConfig(
        vocab_size=len(vocabulary()), hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=6, sliding_window=WINDOW,
        rope_parameters=scaling,
    )  # fmt: skip
    sight = transformers.SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    settings = transformers.Gemma3Config(text_config=text, vision_config=sight, attn_implementation="eager")
    model = transformers.Gemma3ForConditionalGeneration(settings).eval().float()
    randomise(model.model.language_model, arch="gemma3", norm_offset=1)
    return model


def make_seeing_ministral3() -> Any:
    """A Ministral 3 with a vision part."""
    torch.manual_seed(7)
    text = transformers.Ministral3Config(vocab_size=len(vocabulary()), **CASES["mistral3"].config, tie_word_embeddings=False)
    sight = transformers.PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    settings = transformers.Mistral3Config(
        text_config=text, vision_config=sight, tie_word_embeddings=False, attn_implementation="eager"
    )
    model = transformers.Mistral3ForConditionalGeneration(settings).eval().float()
    for part in (model.model.language_model, model.lm_head):
        randomise(part, arch="mistral3", norm_offset=0)
    return model


def randomise(model: Any, *, arch: str, norm_offset: float) -> None:
    """Give a model of that architecture random weights."""
    rows_last = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    form = Form("int8", 64 if arch.startswith("gemma") else 0)  # what `layout.storage` gives the family
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.uniform_(-1, 3)
            elif name.endswith(("proj_bias", "router.bias")):
                weight.uniform_(-0.5, 0.5)
            elif weight.dim() == 1:
                low = 0.5 - norm_offset if name.endswith("weight") else -0.3
                weight.uniform_(low, low + (1 if name.endswith("weight") else 0.6))
            elif "wpe" in name:
                weight.normal_(0, 0.1)
            else:
                matrix = weight.T if name in rows_last else weight
                matrix = weight.transpose(1, 2) if arch == "gpt-oss" and "experts" in name else matrix
                rows = torch.randn(matrix.shape).reshape(-1, matrix.shape[-1])
                codes, scales = quantised((rows / matrix.shape[-1] ** 0.5).numpy(), form)
                matrix.copy_(torch.from_numpy((codes * scales.astype(np.float32)).reshape(matrix.shape)))


def _as_converted(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, what is tied once; of experts as the hub's folders have them, but all of a layer in one."""
    for own_name, tensor in model.named_parameters():
        name = own_name.replace("block_sparse_moe", "mlp")
        if model.config.model_type == "gpt_oss" and "experts" in name:
            yield from _experts_of_gptoss(name, tensor)
        elif name.endswith("sinks"):
            yield f"{name}.weight", tensor
        elif not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            yield name, tensor
        elif name.endswith("down_proj"):
            yield f"{name}.weight", tensor
        else:
            for part, of_part in zip(("gate", "up"), tensor.chunk(2, dim=1), strict=True):
                yield f"{name.replace('gate_up', part)}.weight", of_part


def _experts_of_gptoss(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Outputs are columns, those of gate and up by turns."""
    part, suffix = (name.removesuffix("_bias"), "bias") if name.endswith("_bias") else (name, "weight")
    rows = tensor if suffix == "bias" else tensor.transpose(1, 2)
    if part.endswith("down_proj"):
        yield f"{part}.{suffix}", rows
    else:
        for at, half in enumerate(("gate", "up")):
            yield f"{part.replace('gate_up', half)}.{suffix}", rows[:, at::2]


def write_gguf(path: Path, case: Case, model: Any) -> Path:
    """The file of a model."""
    config, layers = model.config, model.config.num_hidden_layers
    writer = gguf.GGUFWriter(str(path), case.arch)
    numbers = {
        "block_count": layers, "context_length": CONTEXT, "embedding_length": WIDTH, "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS, "attention.head_count_kv": getattr(config, "num_key_value_heads", HEADS),
        "rope.freq_base": 10000.0,
    }  # fmt: skip
    epsilon = getattr(config, "rms_norm_eps", None)
    if epsilon is None:
        found = (getattr(config, name, None) for name in ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"))
        writer.add_layer_norm_eps(next(filter(None, found), 1e-5))
    else:
        writer.add_layer_norm_rms_eps(epsilon)
    for key, value in (numbers | case.keys).items():
        add = {
            bool: writer.add_bool,
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            list: writer.add_array,
        }[type(value)]
        add(f"{case.arch}.{key}", value)
    add_tokenizer(writer, pre="smollm")
    names = gguf.get_tensor_name_map(next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == case.arch), layers)
    rows_last = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    held: dict[str, list[Tensor]] = {}
    for name, tensor in _as_converted(model):
        target = names.get_name(name, try_suffixes=(".weight", ".bias")) or names.get_name(
            name.removeprefix("transformer."), try_suffixes=(".weight", ".bias")
        )
        assert target, name
        data = case.change(name, tensor.detach().T if name in rows_last else tensor.detach()).squeeze()
        if tensor.dim() == 1 and name.endswith("weight"):
            data = data + case.norm_offset
        if case.one_qkv and (part := re.fullmatch(r"(blk\.\d+\.attn_)[qkv](\..*)", target)):
            parts = held.setdefault("qkv".join(part.groups()), [])
            parts.append(data)
            if len(parts) < 3:
                continue
            target, data = "qkv".join(part.groups()), torch.cat(parts)
        writer.add_tensor(target, np.ascontiguousarray(data.numpy()))
    for target, array in case.extra.items():
        writer.add_tensor(target, array)
    finish(writer)
    return path


def write_folder(folder: Path, name: str, *, dtype: torch.dtype = torch.float32, **saving: Any) -> tuple[Any, Path]:
    """A reference and its folder, with the tiny vocabulary's tokenizer."""
    case = (CASES | FOLDER_CASES | MIXTURES)[name]
    model = make_model(case)
    save_folder(folder, model.to(dtype), **saving)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | case.told))
    return model.float(), folder


def save_folder(folder: Path, model: Any, **saving: Any) -> None:
    """A model and the tiny vocabulary's tokenizer."""
    model.save_pretrained(folder, **saving)
    gguf_tokenizer.from_metadata(GGUFFile(write_tiny_gguf(folder / "tiny.gguf")).metadata).save(folder)
    (folder / "tiny.gguf").unlink()


def make_adapter(folder: Path, weights: Path, *, frozen: int = 0) -> Path:
    """Random LoRA matrices on every linear layer, but for the lowest `frozen` blocks."""
    file = open_source(weights)
    arch, sizes = architectures.of(file), importer.read_sizes(file)
    random = np.random.default_rng(3)
    tensors = {}
    for layer in range(frozen, sizes.layers):
        for part, tensor in arch.projections.items():
            rows, columns = file.tensor(f"blk.{layer}.{tensor}.weight").shape
            name = f"base_model.model.model.layers.{layer}.{part}"
            tensors[f"{name}.lora_A.weight"] = (random.standard_normal((RANK, columns)) / columns**0.5).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = random.standard_normal((rows, RANK)).astype(np.float32) * 0.2
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": {RANK}, "lora_alpha": {2 * RANK}}}')
    return folder


def compiled_exactly(folder: Path) -> Any:
    return ov.Core().compile_model(str(folder / "openvino_model.xml"), "CPU", EXACT)


def our_logits(model: Any, rows: list[list[int]], *, cut_at: int | None = None) -> Any:
    """Logits of one batch of equally long rows, with `cut_at` in two passes over the cache. `model`: compiled, or its folder."""
    request = (compiled_exactly(model) if isinstance(model, Path) else model).create_infer_request()
    ids = np.array(rows)
    parts = [ids] if cut_at is None else [ids[:, :cut_at], ids[:, cut_at:]]
    done, out = 0, []
    for part in parts:
        count = part.shape[1]
        positions = np.ascontiguousarray(np.broadcast_to(np.arange(done, done + count), part.shape))
        done += count
        inputs = {
            "input_ids": np.ascontiguousarray(part),
            "attention_mask": np.ones((len(rows), done), np.int64),
            "position_ids": positions,
            "beam_idx": np.arange(len(rows), dtype=np.int32),
        }
        out.append(request.infer(inputs)[0].copy())
    return np.concatenate(out, axis=1)


def model_of_gguf(path: Path) -> Any:
    """A Llama or Qwen2 of `transformers` in f32, with the weights of a file as they are served: rounded to int8 rows."""
    file = GGUFFile(path)
    arch = architectures.of(file)
    sizes = importer.read_sizes(file)
    family = {"llama": "Llama", "qwen2": "Qwen2"}[arch.name]
    embedding, output = tied_embeddings.head_tensor(file)
    settings = getattr(transformers, f"{family}Config")(
        vocab_size=sizes.vocabulary, hidden_size=sizes.width, intermediate_size=sizes.hidden, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads, head_dim=sizes.head_dim,
        max_position_embeddings=sizes.context_tokens, rms_norm_eps=sizes.norm_epsilon, tie_word_embeddings=embedding == output,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_base},
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForCausalLM")(settings).eval().float()
    names = {"model.embed_tokens.weight": embedding, "model.norm.weight": "output_norm.weight", "lm_head.weight": output}
    for layer in range(sizes.layers):
        names |= {f"model.layers.{layer}.{part}.weight": f"blk.{layer}.{tensor}.weight" for part, tensor in arch.projections.items()}
        names |= {f"model.layers.{layer}.{part}.bias": f"blk.{layer}.{tensor}.bias" for part, tensor in arch.projections.items()}
        names[f"model.layers.{layer}.input_layernorm.weight"] = f"blk.{layer}.attn_norm.weight"
        names[f"model.layers.{layer}.post_attention_layernorm.weight"] = f"blk.{layer}.ffn_norm.weight"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            rows = file.rows(names[name])
            if rows.ndim == 2:
                rows = restored(quantised(rows, Form("int8")), Form("int8"))
            order = positions.row_order(arch, sizes, name.rpartition(".")[0])
            parameter.copy_(torch.from_numpy(rows if order is None else rows[order]))
    return model


def reference_values(model: Any, prompt: list[int], rows: list[list[int]]) -> list[float]:
    """What `transformers` gives each row after the prompt, each whole text read alone; what begins another is read with it."""
    found: dict[tuple[int, ...], float] = {}
    for row in sorted(rows, key=len, reverse=True):
        if tuple(row) in found:
            continue
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + row]), use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        values = logits.gather(1, torch.tensor(row)[:, None])[:, 0].cumsum(0).tolist()
        found |= {tuple(row[: at + 1]): value for at, value in enumerate(values)}
    return [found[tuple(row)] for row in rows]
