"""What a Hugging Face `config.json` says, under GGUF's keys, and how a family's tensors differ from those of its GGUF files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import arch as architectures
from nomoat.engine.gguf import FloatArray
from nomoat.engine.step_tables import GATE_LIMIT, GATE_SLOPE
from nomoat.errors import BadFileError

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip

Config = Mapping[str, Any]
# (config, GGUF name of a tensor without its suffix, rows it has) -> where each row lies in the folder's tensor; None: in order
RowOrder = Callable[[Config, str, int], npt.NDArray[np.intp] | None]


@dataclass(frozen=True, slots=True)
class Family:
    """How a `model_type` differs from its architecture's GGUF files. `keys`: what only it says, under GGUF's keys."""

    arch: str
    keys: Callable[[Config], dict[str, Any]] = lambda config: {}
    window: Callable[[Config], int | None] = lambda config: None  # how far a token sees, in the layers that see no further
    turns_partly: bool = False  # positions may turn a part of each head's elements (`partial_rotary_factor`)
    activations: tuple[str, ...] = ("hidden_act",)  # what names the activation; others may stand there, and mean nothing
    row_order: RowOrder = lambda config, name, count: None
    transposed: tuple[str, ...] = ()  # tensors whose rows are columns
    norm_offset: float = 0.0  # what the GGUF file adds to the weights of norms
    unsaid: Config = field(default_factory=dict)  # what `config.json` means by leaving it out
    unread: tuple[str, ...] = ()  # how names of tensors begin that texts do not need


def first(config: Config, *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _layers(config: Config) -> Any:
    return first(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")


def num_heads(config: Config) -> int:
    return int(first(config, "num_attention_heads", "n_head", "n_heads") or 1)


def width(config: Config) -> int:
    return int(first(config, "n_embed", "hidden_size", "n_embd", "d_model") or 0)


def head_dim(config: Config) -> int:
    return int(config.get("head_dim") or width(config) // num_heads(config))


def _halves_to_neighbours(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """q and k in GGUF's order of neighbours: LLaMA."""
    if name.rpartition(".")[2] not in ("attn_q", "attn_k"):
        return None
    return np.arange(count).reshape(-1, 2, head_dim(config) // 2).swapaxes(1, 2).reshape(-1)


def _heads_to_parts(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """(q, k, v of a head) x heads -> all q, all k, all v: GPT-NeoX, BLOOM."""
    if not name.endswith("attn_qkv"):
        return None
    return np.arange(count).reshape(num_heads(config), 3, -1).swapaxes(0, 1).reshape(-1)


def _groups_to_parts(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """(the q of a group, its k, its v) x groups -> all q, all k, all v: Falcon."""
    if not name.endswith("attn_qkv"):
        return None
    groups = np.arange(count).reshape(_falcon_kv_heads(config), -1, head_dim(config))
    return np.concatenate([part.reshape(-1) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])])


def _falcon_kv_heads(config: Config) -> int:
    if config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or num_heads(config))
    return 1 if config.get("multi_query", True) else num_heads(config)


def _require_usual_residual(config: Config) -> None:
    if config.get("apply_residual_connection_post_layernorm"):
        raise architectures.not_yet("this model adds attention and MLP to what their norms gave")


def _bloom(config: Config) -> dict[str, Any]:
    _require_usual_residual(config)
    return {}


def _gpt2(config: Config) -> dict[str, Any]:
    for name, usual in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if bool(config.get(name, usual)) is not usual:
            raise architectures.not_yet(f"this GPT-2 scales its scores in another way than others (`{name}`)")
    return {}


def _falcon(config: Config) -> dict[str, Any]:
    _require_usual_residual(config)
    if config.get("alibi") or not config.get("parallel_attn", True):
        raise architectures.not_yet("this Falcon has ALiBi or attends before its MLP (RefinedWeb-1B)")
    return {"attention.head_count_kv": _falcon_kv_heads(config)}


def _mpt(config: Config) -> dict[str, Any]:
    attention = config.get("attn_config") or {}
    odd = [name for name in ("qk_ln", "prefix_lm", "softmax_scale", "kv_n_heads") if attention.get(name)]
    if odd or not attention.get("alibi", True):
        raise architectures.not_yet(f"this MPT is of another variant ({', '.join(odd) or 'no ALiBi'})")
    return {
        "attention.max_alibi_bias": float(attention.get("alibi_bias_max") or 8),
        "attention.clamp_kqv": float(attention.get("clip_qkv") or 0),
    }


def _gemma(config: Config) -> dict[str, Any]:
    """Of Gemma 2 and 3. Caps: null is none, and what is not there is what the architecture says."""
    arch = architectures.find(str(config["model_type"]).removesuffix("_text"))
    size: dict[str, Any] = {
        "layers": config.get("num_hidden_layers"),
        "width": width(config),
        "heads": num_heads(config),
        "head_dim": head_dim(config),
    }
    scalar, usual = config.get("query_pre_attn_scalar") or 256, architectures.score_width(arch, **size)
    if scalar != usual:
        raise architectures.not_yet(f"this Gemma divides its scores by the root of {scalar} where others of its size take {usual}")
    kinds = config.get("layer_types")
    _require_usual_windows(config, arch)
    _require_unscaled_windows(config)
    period = None if kinds else config.get("sliding_window_pattern")
    caps = ("attn_logit_softcapping", "final_logit_softcapping") if arch.attention_cap else ("final_logit_softcapping",)
    return {"attention.sliding_window_pattern": period} | {name: float(config[name] or 0) for name in caps if name in config}


def _require_unscaled_windows(config: Config) -> None:
    local = scaling((config.get("rope_parameters") or {}).get("sliding_attention") or {})
    if local != "default":
        raise architectures.not_yet(f"this model scales its positions in layers with a window (`{local}`)")


def _require_usual_windows(config: Config, arch: architectures.Architecture) -> None:
    kinds = config.get("layer_types") or []
    if kinds != [_KINDS_OF_LAYERS[arch.windowed[at % len(arch.windowed)]] for at in range(len(kinds))]:
        raise architectures.not_yet(f"windows lie in other layers of this model (`layer_types`) than of others of `{arch.name}`")


def _olmo3(config: Config) -> dict[str, Any]:
    _require_usual_windows(config, architectures.find("olmo2"))
    _require_unscaled_windows(config)
    return {}


def _exaone4(config: Config) -> dict[str, Any]:
    """The 1.2B has no window, and what its layers are called means nothing then."""
    if not config.get("sliding_window"):
        return {}
    arch, pattern = architectures.find("exaone4"), config.get("sliding_window_pattern")
    _require_usual_windows(config, arch)
    if not config.get("layer_types") and pattern not in (len(arch.windowed), "LLLG"):
        raise architectures.not_yet(f"this model's attention windows follow another pattern ({pattern}) than `{arch.name}` has")
    return {}


_KINDS_OF_LAYERS = ("full_attention", "sliding_attention")


def _smollm3(config: Config) -> dict[str, Any]:
    turning, told = architectures.find("smollm3").turning, config.get("no_rope_layers")
    if told is None:
        odd = config.get("no_rope_layer_interval") not in (None, len(turning))
    else:
        odd = [bool(turns) for turns in told] != [turning[at % len(turning)] for at in range(len(told))]
    if odd:
        raise architectures.not_yet("other layers of this SmolLM3 turn by positions than of others (`no_rope_layers`)")
    if config.get("use_sliding_window") and config.get("sliding_window"):
        raise architectures.not_yet("this SmolLM3 sees a window (`use_sliding_window`)")
    return {}


def _cohere(config: Config) -> dict[str, Any]:
    if config.get("use_qk_norm"):
        raise architectures.not_yet("this model has norms of each head's queries and keys (Command R+)")
    return {"logit_scale": float(config.get("logit_scale") or 1)}


def _cohere2(config: Config) -> dict[str, Any]:
    arch, pattern = architectures.find("cohere2"), config.get("sliding_window_pattern")
    _require_usual_windows(config, arch)
    if not config.get("layer_types") and pattern not in (None, len(arch.windowed)):
        raise architectures.not_yet(f"this model's attention windows follow another pattern ({pattern}) than `{arch.name}` has")
    return {"logit_scale": float(config.get("logit_scale") or 1)}


def _granite(config: Config) -> dict[str, Any]:
    names = {
        "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale", "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }  # fmt: skip
    return {key: float(config[name]) for name, key in names.items() if config.get(name) is not None}


def _mixture(config: Config) -> dict[str, Any]:
    """Of experts."""
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step") not in (None, 1):
        raise architectures.not_yet("some layers of this model have no experts")
    return {
        "expert_count": first(config, "num_local_experts", "num_experts"),
        "expert_used_count": config.get("num_experts_per_tok"),
        "expert_feed_forward_length": config.get("moe_intermediate_size"),
        "expert_shared_feed_forward_length": config.get("shared_expert_intermediate_size"),
        "expert_weights_norm": config.get("norm_topk_prob"),
    }


def _gptoss(config: Config) -> dict[str, Any]:
    _require_usual_windows(config, architectures.find("gpt-oss"))
    usual = {"swiglu_limit": GATE_LIMIT, "swiglu_alpha": GATE_SLOPE}
    odd = [name for name, value in usual.items() if config.get(name) not in (None, value)]
    if odd:
        raise architectures.not_yet(f"the gate of this model has other numbers than others of its family ({', '.join(odd)})")
    return _mixture(config)


def _granitemoe(config: Config) -> dict[str, Any]:
    return _granite(config) | _mixture(config)


def _olmoe(config: Config) -> dict[str, Any]:
    return _mixture(config) | {"attention.clamp_kqv": config.get("clip_qkv")}


def _stablelm(config: Config) -> dict[str, Any]:
    if config.get("use_parallel_residual") or config.get("qk_layernorm"):
        raise architectures.not_yet("this StableLM has norms of each head, or none before its MLP (the 12B)")
    return {}


def _window(config: Config) -> int | None:
    return config.get("sliding_window")


def _qwen_window(config: Config) -> int | None:
    """None where no layer has one: it is off, or begins behind the last layer."""
    if not config.get("use_sliding_window"):
        return None
    kinds, first = config.get("layer_types"), int(config.get("max_window_layers") or 0)
    has_windows = any(kind != "full_attention" for kind in kinds) if kinds else first < int(config.get("num_hidden_layers") or 0)
    return config.get("sliding_window") if has_windows else None


def _qwen_mixture_window(config: Config) -> int | None:
    """`transformers` gives it to every layer of Qwen3's mixtures, and to every second of Qwen2's."""
    return config.get("sliding_window") if config.get("use_sliding_window") else None


def _neox(config: Config) -> dict[str, Any]:
    return {"use_parallel_residual": bool(config.get("use_parallel_residual", True)), "attention.head_count_kv": num_heads(config)}


def _opt(config: Config) -> dict[str, Any]:
    if config.get("_remove_final_layer_norm") and config.get("do_layer_norm_before", True):
        raise architectures.not_yet("this OPT lacks its last norm (its checkpoint is older than its architecture)")
    return {"norms_last": not config.get("do_layer_norm_before", True)}


def _without_offset(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """OPT's table of positions has two rows before the first."""
    return np.arange(2, count) if name == "position_embd" else None


OPT_NAMES = {
    "embed_tokens": "token_embd", "embed_positions": "position_embd", "project_in": "token_embd_project",
    "project_out": "output_project", "final_layer_norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_output",
    "self_attn_layer_norm": "attn_norm", "fc1": "ffn_up", "fc2": "ffn_down",
}  # fmt: skip
# What `config.json` means by leaving it out: the values of transformers' classes, where they differ from what all families take.
_DECODER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "rms_norm_eps")
_LLAMA = dict(zip(_DECODER, (4096, 11008, 32, 32, 2048, 1e-6), strict=True))
_MISTRAL = dict(zip(_DECODER, (4096, 14336, 32, 32, 131072, 1e-6), strict=True)) | {"num_key_value_heads": 8, "sliding_window": 4096}
_QWEN2 = dict(zip(_DECODER, (4096, 22016, 32, 32, 32768, 1e-6), strict=True)) | {
    "num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
_MIXTRAL = dict(zip(_DECODER, (4096, 14336, 32, 32, 131072, 1e-5), strict=True)) | {
    "num_key_value_heads": 8, "rope_theta": 1e6, "num_local_experts": 8, "num_experts_per_tok": 2,
}  # fmt: skip
_QWEN2MOE = dict(zip(_DECODER, (2048, 5632, 24, 16, 32768, 1e-6), strict=True)) | {
    "num_key_value_heads": 16, "sliding_window": 4096, "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "norm_topk_prob": False,
}  # fmt: skip
_QWEN3MOE = dict(zip(_DECODER, (2048, 6144, 24, 32, 32768, 1e-6), strict=True)) | {
    "num_key_value_heads": 4, "sliding_window": 4096, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    "norm_topk_prob": False,
}  # fmt: skip
_PHI3 = dict(zip(_DECODER, (3072, 8192, 32, 32, 4096, 1e-5), strict=True)) | {"original_max_position_embeddings": 4096}
_OF_GEMMAS = {"head_dim": 256, "tie_word_embeddings": True}
_COHERE = {
    "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40, "num_attention_heads": 64, "logit_scale": 0.0625,
    "max_position_embeddings": 8192, "rope_theta": 500000.0, "tie_word_embeddings": True,
}  # fmt: skip
_COHERE2 = _COHERE | {"rope_theta": 10000.0, "sliding_window": 4096}
_EXAONE4 = dict(zip(_DECODER, (4096, 16384, 32, 32, 2048, 1e-5), strict=True)) | {
    "sliding_window": 4096, "sliding_window_pattern": 4,
}  # fmt: skip
_GLM4 = dict(zip(_DECODER, (4096, 13696, 40, 32, 131072, 1.5625e-7), strict=True)) | {
    "num_key_value_heads": 2, "head_dim": 128, "partial_rotary_factor": 0.5,
}  # fmt: skip
_GRANITE = dict(zip(_DECODER, (4096, 11008, 32, 32, 2048, 1e-6), strict=True)) | {
    "embedding_multiplier": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0, "logits_scaling": 1.0,
}  # fmt: skip
_GRANITEMOE = _GRANITE | {"num_local_experts": 8, "num_experts_per_tok": 2}
_OLMOE = dict(zip(_DECODER, (2048, 2048, 16, 16, 4096, 1e-5), strict=True)) | {
    "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": False,
}  # fmt: skip
_OLMO2 = dict(zip(_DECODER, (4096, 11008, 32, 32, 2048, 1e-5), strict=True))
_OLMO3 = _OLMO2 | {"rope_theta": 500000.0, "sliding_window": 4096}
_SMOLLM3 = dict(zip(_DECODER, (2048, 11008, 36, 16, 32768, 1e-6), strict=True)) | {
    "num_key_value_heads": 4, "rope_theta": 2e6, "tie_word_embeddings": True,
}  # fmt: skip
_STARCODER2 = {
    "hidden_size": 3072, "intermediate_size": 12288, "num_hidden_layers": 30, "num_attention_heads": 24, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip
_STABLELM = {
    "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "max_position_embeddings": 4096, "partial_rotary_factor": 0.25,
}  # fmt: skip
_PHI = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32, "partial_rotary_factor": 0.5,
}  # fmt: skip
_GEMMA = dict(zip(_DECODER, (3072, 24576, 28, 16, 8192, 1e-6), strict=True)) | _OF_GEMMAS | {"num_key_value_heads": 16}
_GEMMA2 = dict(zip(_DECODER, (2304, 9216, 26, 8, 8192, 1e-6), strict=True)) | _OF_GEMMAS | {
    "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096,
}  # fmt: skip
_GEMMA3 = {**_GEMMA2, "max_position_embeddings": 131072, "rope_theta": 1e6}  # files with a vision part say little else
_NEOX = {
    "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 44, "num_attention_heads": 64, "rotary_pct": 0.25,
}  # fmt: skip
_OPT = {
    "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "tie_word_embeddings": True,
}  # fmt: skip
_GPTOSS = dict(zip(_DECODER, (2880, 2880, 36, 64, 131072, 1e-5), strict=True)) | {
    "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128, "num_local_experts": 128, "num_experts_per_tok": 4,
    "rope_theta": 150000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096},
}  # fmt: skip
_EXAONE = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 4096, "rope_theta": 500000.0,
}  # fmt: skip
_FALCON = {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "tie_word_embeddings": True}
_BLOOM = {"hidden_size": 64, "n_layer": 2, "n_head": 8, "tie_word_embeddings": True}
_MPT = {"d_model": 2048, "n_layers": 24, "n_heads": 16, "tie_word_embeddings": True}
_GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "tie_word_embeddings": True}
_GPTJ = {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64}
GPT2_TRANSPOSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
GEMMA_2_OR_3 = Family("", keys=_gemma, window=_window, activations=("hidden_activation",), norm_offset=1)
FAMILIES = {
    "bloom": Family("bloom", keys=_bloom, activations=(), row_order=_heads_to_parts, unsaid=_BLOOM),
    "cohere": Family("command-r", keys=_cohere, unsaid=_COHERE),
    "cohere2": Family("cohere2", keys=_cohere2, window=_window, unsaid=_COHERE2),
    "exaone": Family("exaone", activations=("activation_function", "hidden_act"), unsaid=_EXAONE),
    "exaone4": Family("exaone4", keys=_exaone4, window=_window, unsaid=_EXAONE4),
    "falcon": Family("falcon", keys=_falcon, activations=("activation",), row_order=_groups_to_parts, unsaid=_FALCON),
    "gemma": Family("gemma", activations=("hidden_act", "hidden_activation"), norm_offset=1, unsaid=_GEMMA),
    "gemma2": replace(GEMMA_2_OR_3, arch="gemma2", unsaid=_GEMMA2),
    "gemma3": replace(GEMMA_2_OR_3, arch="gemma3", unsaid=_GEMMA3, unread=("vision_tower.", "multi_modal_projector.")),
    "gemma3_text": replace(GEMMA_2_OR_3, arch="gemma3", unsaid=_GEMMA3),
    "glm4": Family("glm4", turns_partly=True, unsaid=_GLM4),
    "gpt2": Family("gpt2", keys=_gpt2, activations=("activation_function",), transposed=GPT2_TRANSPOSED, unsaid=_GPT2),
    "gpt_neox": Family("gptneox", keys=_neox, turns_partly=True, row_order=_heads_to_parts, unsaid=_NEOX),
    "gptj": Family(
        "gptj",
        keys=lambda config: {"rope.dimension_count": config.get("rotary_dim")},
        activations=("activation_function",),
        unsaid=_GPTJ,
    ),
    "gpt_oss": Family("gpt-oss", keys=_gptoss, window=_window, activations=(), unsaid=_GPTOSS),
    "granite": Family("granite", keys=_granite, row_order=_halves_to_neighbours, unsaid=_GRANITE),
    "granitemoe": Family("granitemoe", keys=_granitemoe, row_order=_halves_to_neighbours, unsaid=_GRANITEMOE),
    "llama": Family("llama", row_order=_halves_to_neighbours, unsaid=_LLAMA),
    "mistral": Family("llama", window=_window, row_order=_halves_to_neighbours, unsaid=_MISTRAL),
    "mixtral": Family("llama", keys=_mixture, window=_window, row_order=_halves_to_neighbours, unsaid=_MIXTRAL),
    "mpt": Family("mpt", keys=_mpt, activations=(), unsaid=_MPT),
    "olmo2": Family("olmo2", unsaid=_OLMO2),
    "olmo3": Family("olmo2", keys=_olmo3, window=_window, unsaid=_OLMO3),
    "olmoe": Family("olmoe", keys=_olmoe, unsaid=_OLMOE),
    "opt": Family("opt", keys=_opt, activations=("activation_function",), row_order=_without_offset, unsaid=_OPT),
    "phi": Family("phi2", turns_partly=True, unsaid=_PHI),
    "phi3": Family("phi3", window=_window, turns_partly=True, unsaid=_PHI3),
    "qwen2": Family("qwen2", window=_qwen_window, unsaid=_QWEN2),
    "qwen2_moe": Family("qwen2moe", keys=_mixture, window=_qwen_mixture_window, unsaid=_QWEN2MOE),
    "qwen3": Family("qwen3", window=_qwen_window, unsaid={**_QWEN2, "head_dim": 128}),
    "qwen3_moe": Family("qwen3moe", keys=_mixture, window=_qwen_mixture_window, unsaid=_QWEN3MOE),
    "stablelm": Family("stablelm", keys=_stablelm, turns_partly=True, unsaid=_STABLELM),
    "starcoder2": Family("starcoder2", window=_window, unsaid=_STARCODER2),
    "smollm3": Family("smollm3", keys=_smollm3, row_order=_halves_to_neighbours, unsaid=_SMOLLM3),
}


# ---------------------------------------------------------------- config.json -> metadata
MAX_NUMBER, MAX_HEAD_DIM = 1e15, 65536


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


# what values are, wherever in `config.json` a key stands
KINDS: dict[str, tuple[Callable[[Any], bool], tuple[str, ...]]] = {
    "a whole number": (lambda value: _is_number(value) and value == int(value), (
        "num_attention_heads", "n_head", "n_heads", "hidden_size", "n_embd", "n_embed", "d_model", "head_dim", "num_kv_heads",
        "num_hidden_layers", "n_layer", "n_layers", "num_key_value_heads", "intermediate_size", "n_inner", "ffn_hidden_size",
        "ffn_dim", "rotary_dim", "original_max_position_embeddings", "max_position_embeddings", "n_positions", "max_seq_len",
        "seq_length", "n_ctx", "sliding_window", "max_window_layers", "vocab_size", "num_layers", "no_rope_layer_interval",
        "num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size",
        "decoder_sparse_step",
    )),
    "a number": (_is_number, (
        "rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "rope_theta", "rotary_emb_base", "partial_rotary_factor",
        "rotary_pct", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "rope_local_base_freq", "factor",
        "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "alibi_bias_max", "clip_qkv",
        "norm_epsilon", "swiglu_limit", "swiglu_alpha", "embedding_multiplier", "residual_multiplier", "attention_multiplier",
        "logits_scaling", "logit_scale",
    )),
    "true or false": (lambda value: isinstance(value, bool), (
        "new_decoder_architecture", "multi_query", "parallel_attn", "use_parallel_residual", "do_layer_norm_before",
        "_remove_final_layer_norm", "tie_word_embeddings", "use_sliding_window", "alibi", "scale_attn_weights",
        "scale_attn_by_inverse_layer_idx", "apply_residual_connection_post_layernorm", "is_causal", "use_qk_norm", "qk_layernorm",
        "norm_topk_prob",
    )),
    "a text": (lambda value: isinstance(value, str), (
        "model_type", "hidden_activation", "hidden_act", "activation_function", "activation", "rope_type", "type",
    )),
    "a number of layers, or their kinds": (
        lambda value: isinstance(value, str) or (_is_number(value) and value == int(value)), ("sliding_window_pattern",)
    ),
    "an object": (lambda value: isinstance(value, dict), (
        "rope_parameters", "rope_scaling", "attn_config", "full_attention", "sliding_attention", "text_config",
    )),
    "a list": (lambda value: isinstance(value, list), ("layer_types", "mlp_only_layers")),
    "a list of numbers": (lambda value: isinstance(value, list) and all(map(_is_number, value)), (
        "short_factor", "long_factor", "no_rope_layers",
    )),
}  # fmt: skip
NESTED = KINDS["an object"][1]


def require_kinds(config: Config, *, levels: int = 3) -> None:
    """Raise BadFileError for a value of `config.json` that is of another kind than its key is; null is as good as none.

    So many `levels` of objects in objects are looked into: nobody reads further ones.
    """
    for kind, (is_so, names) in KINDS.items():
        for name in names:
            value = config.get(name)
            if value is not None and not is_so(value):
                raise BadFileError(f"config.json says `{name}` = {_shown(value)}, which is not {kind}", hint="download it again")
    for name in NESTED if levels > 1 else ():
        require_kinds(config.get(name) or {}, levels=levels - 1)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _activation(name: str, arch: architectures.Architecture) -> str | None:
    """The first Gemmas named another than they were trained with."""
    return "gelu_tanh" if (arch.name, name) == ("gemma", "gelu") else ACTIVATIONS.get(name)


def read_metadata(config: Config, family: Family) -> dict[str, Any]:
    """The metadata a GGUF file of this model would hold. Raises UnsupportedError for variants that would be answered wrongly."""
    arch = architectures.find(family.arch)
    for name in family.activations:
        act = config.get(name)
        if act is not None and _activation(act, arch) != arch.activation:
            raise architectures.not_yet(f"this model's activation is `{act}` where that of `{arch.name}` is {arch.activation}")
    if config.get("use_bidirectional_attention") or config.get("is_causal") is False:
        raise architectures.sees_both_ways()
    if quantised_by(config) == "bitnet":
        raise architectures.not_yet("weights and inputs of this model are rounded as they are used (BitNet)")
    rope = _rope(config)
    longest = _stretched(config, rope)
    keys = {
        "block_count": _layers(config),
        "embedding_length": width(config),
        "attention.head_count": num_heads(config),
        "attention.head_count_kv": first(config, "num_key_value_heads") or num_heads(config),
        "attention.key_length": head_dim(config),
        "feed_forward_length": first(config, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 4 * width(config),
        "context_length": (context := _context_tokens(longest, arch, family.window(config))),
        "context_is_window": context < longest or None,
        "rope.freq_base": float(rope.get("rope_theta") or first(config, "rotary_emb_base") or 10000),
        "attention.sliding_window": (family.window(config) or 0) if any(arch.windowed) else None,
    }
    epsilon = first(config, "rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon") or 1e-5
    keys["attention.layer_norm_rms_epsilon" if arch.norm == "rms" else "attention.layer_norm_epsilon"] = epsilon
    share = first(rope, "partial_rotary_factor") or config.get("partial_rotary_factor")
    if share not in (None, 1) and not family.turns_partly:
        raise architectures.not_yet(f"this model turns {share} of each head's elements where `{arch.name}` turns all")
    if family.turns_partly:
        keys["rope.dimension_count"] = int(head_dim(config) * (share or config.get("rotary_pct") or 1))
    keys |= _scaling_keys(config, rope, arch)
    if arch.local_rope_base:
        local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
        keys["rope.freq_base_swa"] = float(local.get("rope_theta") or config.get("rope_local_base_freq") or arch.local_rope_base)
    named = {f"{family.arch}.{key}": value for key, value in (keys | family.keys(config)).items() if value is not None}
    return {"general.architecture": family.arch, **named}


def quantised_by(config: Config) -> str | None:
    """The method by which `transformers` rounds weights when it loads them, or has them rounded already."""
    found = config.get("quantization_config")
    return str(found.get("quant_method")) if isinstance(found, dict) else None


def plain_sizes(config: Config) -> architectures.Dimensions:
    """The sizes that most `config.json` state in the same words, for what is not built by us. Raises BadFileError."""
    layers, vocabulary = _layers(config), config.get("vocab_size")
    try:
        if not (width(config) and isinstance(layers, int) and isinstance(vocabulary, int)):
            raise BadFileError("config.json does not state layers, width and vocabulary", hint="download it again")
        return architectures.Dimensions(
            layers=layers,
            width=width(config),
            heads=num_heads(config),
            kv_heads=int(first(config, "num_key_value_heads") or num_heads(config)),
            head_dim=head_dim(config),
            hidden=int(first(config, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 4 * width(config)),
            vocabulary=vocabulary,
            context_tokens=_longest(config),
            norm_epsilon=1e-5,
            rope_base=10000.0,
        )
    except (TypeError, ValueError, ArithmeticError) as exc:  # the last of infinity, and of less than one head
        raise BadFileError(f"config.json states sizes that are no whole numbers ({exc})", hint="download it again") from exc


def _rope(config: Config) -> dict[str, Any]:
    """How positions turn, whether `transformers` 4 or 5 wrote it."""
    new = config.get("rope_parameters") or {}
    old = {} if "rope_type" in new else config.get("rope_scaling") or {}
    return {"rope_theta": config.get("rope_theta"), **(new.get("full_attention") or {**old, **new})}


def _scaling_keys(config: Config, rope: Config, arch: architectures.Architecture) -> dict[str, Any]:
    """How positions are stretched, where that is not said by a tensor: see `scaling_tensors`."""
    kind = scaling(rope)
    keys = {"rope.scaling.original_context_length": _first_context(config, rope), "rope.scaling.type": kind}
    if kind in ("default", "llama3"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": kind, "rope.scaling.factor": float(_needed(rope, "factor"))}
    if kind in ("longrope", "su"):
        before, longest = _first_context(config, rope), _longest(config)
        if before < 2:
            raise BadFileError(f"config.json says that positions were stretched from {before}", hint="download it again")
        factor = max(float(first(rope, "factor") or longest / before), 1.0)
        stretched = (1 + math.log(factor) / math.log(before)) ** 0.5
        return {**keys, "rope.scaling.type": "longrope", "rope.scaling.attn_factor": float(rope.get("attention_factor") or stretched)}
    odd = [name for name in ("mscale", "mscale_all_dim") if rope.get(name) is not None]
    usual = 1 + 0.1 * math.log(max(float(rope.get("factor") or 1), 1.0))
    if not math.isclose(rope.get("attention_factor") or usual, usual, rel_tol=1e-4):
        odd.append("attention_factor")
    if (rope.get("truncate") is not False) is not arch.yarn_truncates:
        odd.append("truncate")
    if kind != "yarn" or odd:
        raise architectures.not_yet(f"this model scales its positions (`{' '.join([kind, *odd])}`)")
    turns = {f"rope.scaling.yarn_{name}": float(rope[name]) for name in ("beta_fast", "beta_slow") if rope.get(name)}
    return {**keys, "rope.scaling.factor": float(_needed(rope, "factor")), **turns}


def scaling(rope: Config) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _needed(rope: Config, key: str) -> Any:
    """A value that this way of scaling has to have."""
    if not rope.get(key):
        raise BadFileError(f"config.json scales positions as `{scaling(rope)}` and says no `{key}`", hint="download it again")
    return rope[key]


def _first_context(config: Config, rope: Config) -> int:
    """The context before positions were stretched."""
    return int(
        first(rope, "original_max_position_embeddings") or first(config, "original_max_position_embeddings") or _longest(config)
    )


def scaling_tensors(config: Config) -> dict[str, FloatArray]:
    """What each pair's turning is divided by, where GGUF files keep it as tensors."""
    rope = _rope(config)
    if scaling(rope) == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rope, head_dim(config))}
    if scaling(rope) in ("longrope", "su"):
        return {f"rope_factors_{name}.weight": np.asarray(_needed(rope, f"{name}_factor"), np.float32) for name in ("short", "long")}
    return {}


def _longest(config: Config) -> int:
    """The longest text. BLOOM and the first Falcons do not say; both were trained on 2,048 tokens."""
    return int(first(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx") or 2048)


def _stretched(config: Config, rope: Config) -> int:
    """The longest text with YaRN, which is switched on without saying another one (see `architectures.dimensions`)."""
    if scaling(rope) != "yarn":
        return _longest(config)
    return max(_longest(config), int(_first_context(config, rope) * float(_needed(rope, "factor"))))


def _context_tokens(longest: int, arch: architectures.Architecture, window: int | None) -> int:
    """The longest text; where a window is not one of our layers', no longer than the window, within which it changes nothing."""
    return min(longest, int(window)) if window and not any(arch.windowed) else longest


def _llama3_factors(rope: Mapping[str, Any], head_dim: int) -> FloatArray:
    """What each pair's frequency is divided by, [D / 2]. Source: transformers' modeling_rope_utils.py."""
    if not 0 < head_dim <= MAX_HEAD_DIM:
        raise BadFileError(f"config.json says that heads are {head_dim:,} wide", hint="download it again")
    needed = ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor", "rope_theta", "factor")
    context, low, high, base, factor = (float(_needed(rope, key)) for key in needed)
    with np.errstate(all="ignore"):  # numbers that make no sense become factors that are none, which whoever reads them refuses
        inverse = 1 / base ** (np.arange(0, head_dim, 2) / head_dim)
        turns = context * inverse / (2 * np.pi)
        smooth = np.clip((turns - low) / np.float64(high - low), 0, 1)
        return np.asarray(1 / ((1 - smooth) / factor + smooth), np.float32)


def opt_name(name: str) -> str | None:
    """What the `gguf` package has no names for."""
    base, _, suffix = name.removeprefix("model.").removeprefix("decoder.").rpartition(".")
    block = ""
    if base.startswith("layers."):
        number, _, base = base.removeprefix("layers.").partition(".")
        block, base = f"blk.{number}.", "ffn_norm" if base == "final_layer_norm" else base
    part = OPT_NAMES.get(base, base if base == "ffn_norm" else None)
    return part and f"{block}{part}.{suffix}"
