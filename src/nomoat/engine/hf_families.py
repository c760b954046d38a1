"""How the families of `transformers` differ: what only their `config.json` says, what it leaves unsaid, and how their tensors lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine import arch as architectures
from nomoat.engine import hf_config
from nomoat.engine.hf_config import Config
from nomoat.engine.step_tables import GATE_LIMIT, GATE_SLOPE

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
    row_order: RowOrder = lambda config, name, count: None  # where it is not what the architecture makes of it: see `row_order`
    transposed: tuple[str, ...] = ()  # tensors whose rows are columns
    norm_offset: float = 0.0  # what the GGUF file adds to the weights of norms
    unsaid: Config = field(default_factory=dict)  # what `config.json` means by leaving it out
    unread: tuple[str, ...] = ()  # how names of tensors begin that texts do not need


def row_order(family: Family, config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """Where each row that a GGUF file would have lies in the folder's tensor; None for in order. `name`, `count`: see `RowOrder`.

    Raises ValueError or IndexError if the tensor cannot have so many rows.
    """
    arch = architectures.find(family.arch)
    is_llamas = arch.rope_pairs == "neighbours" and not arch.hf_neighbours
    return (_halves_to_neighbours if is_llamas else family.row_order)(config, name, count)


def _halves_to_neighbours(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """q and k in GGUF's order of neighbours: LLaMA."""
    if name.rpartition(".")[2] not in ("attn_q", "attn_k"):
        return None
    return np.arange(count).reshape(-1, 2, hf_config.head_dim(config) // 2).swapaxes(1, 2).reshape(-1)


def _heads_to_parts(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """(q, k, v of a head) x heads -> all q, all k, all v: GPT-NeoX, BLOOM."""
    if not name.endswith("attn_qkv"):
        return None
    return np.arange(count).reshape(hf_config.num_heads(config), 3, -1).swapaxes(0, 1).reshape(-1)


def _groups_to_parts(config: Config, name: str, count: int) -> npt.NDArray[np.intp] | None:
    """(the q of a group, its k, its v) x groups -> all q, all k, all v: Falcon."""
    if not name.endswith("attn_qkv"):
        return None
    groups = np.arange(count).reshape(_falcon_kv_heads(config), -1, hf_config.head_dim(config))
    return np.concatenate([part.reshape(-1) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])])


def _falcon_kv_heads(config: Config) -> int:
    if config.get("new_decoder_architecture"):
        return int(config.get("num_kv_heads") or hf_config.num_heads(config))
    return 1 if config.get("multi_query", True) else hf_config.num_heads(config)


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


def _bigcode(config: Config) -> dict[str, Any]:
    if not config.get("multi_query", True):
        raise architectures.not_yet("each head of this StarCoder has keys and values of its own, which lie in another order")
    if not config.get("scale_attn_weights", True):
        raise architectures.not_yet("this StarCoder scales its scores in another way than others (`scale_attn_weights`)")
    return {"attention.head_count_kv": 1}


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
        "width": hf_config.width(config),
        "heads": hf_config.num_heads(config),
        "head_dim": hf_config.head_dim(config),
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
    local = hf_config.scaling((config.get("rope_parameters") or {}).get("sliding_attention") or {})
    if local != "default":
        raise architectures.not_yet(f"this model scales its positions in layers with a window (`{local}`)")


def _require_usual_windows(config: Config, arch: architectures.Architecture) -> None:
    kinds, names = config.get("layer_types") or [], ("full_attention", "sliding_attention")
    if kinds != [names[arch.windowed[at % len(arch.windowed)]] for at in range(len(kinds))]:
        raise architectures.not_yet(f"windows lie in other layers of this model (`layer_types`) than of others of `{arch.name}`")


def _require_usual_pattern(config: Config, arch: architectures.Architecture, *, or_as: str | None) -> None:
    """The same where layers may be told by how many there are to one that has no window."""
    _require_usual_windows(config, arch)
    pattern = config.get("sliding_window_pattern")
    if not config.get("layer_types") and pattern not in (len(arch.windowed), or_as):
        raise architectures.not_yet(f"this model's attention windows follow another pattern ({pattern}) than `{arch.name}` has")


def _olmo3(config: Config) -> dict[str, Any]:
    _require_usual_windows(config, architectures.find("olmo2"))
    _require_unscaled_windows(config)
    return {}


def _exaone4(config: Config) -> dict[str, Any]:
    """The 1.2B has no window, and what its layers are called means nothing then."""
    if not config.get("sliding_window"):
        return {}
    _require_usual_pattern(config, architectures.find("exaone4"), or_as="LLLG")
    return {}


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
    _require_usual_pattern(config, architectures.find("cohere2"), or_as=None)
    return {"logit_scale": float(config.get("logit_scale") or 1)}


def _granite(config: Config) -> dict[str, Any]:
    names = {
        "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale", "attention_multiplier": "attention.scale",
        "logits_scaling": "logit_scale",
    }  # fmt: skip
    return {key: float(config[name]) for name, key in names.items() if config.get(name) is not None}


def _minicpm(config: Config) -> dict[str, Any]:
    if config.get("sparse_config"):
        raise architectures.not_yet("a token of this model sees a choice of those before it (`sparse_config`)")
    layers = max(int(config.get("num_hidden_layers") or 1), 1)
    return {
        "embedding_scale": float(config.get("scale_emb") or 1),
        "residual_scale": float(config.get("scale_depth") or 1) / layers**0.5,
        "logit_scale": hf_config.width(config) / float(config.get("dim_model_base") or 1),
    }


def _mixture(config: Config) -> dict[str, Any]:
    """Of experts."""
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step") not in (None, 1):
        raise architectures.not_yet("some layers of this model have no experts")
    return {
        "expert_count": hf_config.first(config, "num_local_experts", "num_experts"),
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
    return {
        "use_parallel_residual": bool(config.get("use_parallel_residual", True)),
        "attention.head_count_kv": hf_config.num_heads(config),
    }


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
_MINICPM = _LLAMA | {"scale_emb": 1.0, "scale_depth": 1.0, "dim_model_base": 1.0, "tie_word_embeddings": True}
_ARCEE = dict(zip(_DECODER, (2560, 18432, 32, 32, 4096, 1e-5), strict=True))
_ERNIE4_5 = dict(zip(_DECODER, (1024, 3072, 18, 16, 131072, 1e-5), strict=True)) | {
    "num_key_value_heads": 2, "head_dim": 128, "rope_theta": 500000.0, "tie_word_embeddings": True,
}  # fmt: skip
_HUNYUAN = dict(zip(_DECODER, (4096, 11008, 32, 32, 2048, 1e-5), strict=True))
_MINISTRAL3 = dict(zip(_DECODER, (4096, 14336, 34, 32, 262144, 1e-5), strict=True)) | {
    "num_key_value_heads": 8, "head_dim": 128,
    "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
    },
}  # fmt: skip
_MISTRAL3 = dict(zip(_DECODER, (5120, 32768, 40, 32, 131072, 1e-5), strict=True)) | {  # which see; the text part is any Mistral
    "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 1e9, "tie_word_embeddings": True,
}  # fmt: skip
_NEMOTRON = {
    "hidden_size": 6144, "intermediate_size": 24576, "num_hidden_layers": 32, "num_attention_heads": 48,
    "max_position_embeddings": 4096, "partial_rotary_factor": 0.5,
}  # fmt: skip
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
SIGHT = ("vision_tower.", "multi_modal_projector.")
GPT2_TRANSPOSED = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")
GEMMA_2_OR_3 = Family("", keys=_gemma, window=_window, activations=("hidden_activation",), norm_offset=1)
FAMILIES = {
    "arcee": Family("arcee", unsaid=_ARCEE),
    "bloom": Family("bloom", keys=_bloom, activations=(), row_order=_heads_to_parts, unsaid=_BLOOM),
    "cohere": Family("command-r", keys=_cohere, unsaid=_COHERE),
    "cohere2": Family("cohere2", keys=_cohere2, window=_window, unsaid=_COHERE2),
    "ernie4_5": Family("ernie4_5", unsaid=_ERNIE4_5),
    "exaone": Family("exaone", activations=("activation_function", "hidden_act"), unsaid=_EXAONE),
    "exaone4": Family("exaone4", keys=_exaone4, window=_window, unsaid=_EXAONE4),
    "falcon": Family("falcon", keys=_falcon, activations=("activation",), row_order=_groups_to_parts, unsaid=_FALCON),
    "gemma": Family("gemma", activations=("hidden_act", "hidden_activation"), norm_offset=1, unsaid=_GEMMA),
    "gemma2": replace(GEMMA_2_OR_3, arch="gemma2", unsaid=_GEMMA2),
    "gemma3": replace(GEMMA_2_OR_3, arch="gemma3", unsaid=_GEMMA3, unread=SIGHT),
    "gemma3_text": replace(GEMMA_2_OR_3, arch="gemma3", unsaid=_GEMMA3),
    "glm": Family("chatglm", turns_partly=True, unsaid=_GLM4),
    "glm4": Family("glm4", turns_partly=True, unsaid=_GLM4),
    "gpt2": Family("gpt2", keys=_gpt2, activations=("activation_function",), transposed=GPT2_TRANSPOSED, unsaid=_GPT2),
    "gpt_bigcode": Family("starcoder", keys=_bigcode, activations=("activation_function",), unsaid=_GPT2),
    "gpt_neox": Family("gptneox", keys=_neox, turns_partly=True, row_order=_heads_to_parts, unsaid=_NEOX),
    "gptj": Family(
        "gptj",
        keys=lambda config: {"rope.dimension_count": config.get("rotary_dim")},
        activations=("activation_function",),
        unsaid=_GPTJ,
    ),
    "gpt_oss": Family("gpt-oss", keys=_gptoss, window=_window, activations=(), unsaid=_GPTOSS),
    "granite": Family("granite", keys=_granite, unsaid=_GRANITE),
    "granitemoe": Family("granitemoe", keys=_granitemoe, unsaid=_GRANITEMOE),
    "hunyuan_v1_dense": Family("hunyuan-dense", unsaid=_HUNYUAN),
    "llama": Family("llama", unsaid=_LLAMA),
    "ministral3": Family("mistral3", window=_window, unsaid=_MINISTRAL3),
    "mistral": Family("llama", window=_window, unsaid=_MISTRAL),
    "mixtral": Family("llama", keys=_mixture, window=_window, unsaid=_MIXTRAL),
    "minicpm": Family("minicpm", keys=_minicpm, unsaid=_MINICPM),
    "mistral3": Family("mistral3", window=_window, unsaid=_MISTRAL3, unread=SIGHT),
    "mpt": Family("mpt", keys=_mpt, activations=(), unsaid=_MPT),
    "nemotron": Family("nemotron", turns_partly=True, norm_offset=1, unsaid=_NEMOTRON),
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
    "smollm3": Family("smollm3", keys=_smollm3, unsaid=_SMOLLM3),
}


def opt_name(name: str) -> str | None:
    """What the `gguf` package has no names for."""
    base, _, suffix = name.removeprefix("model.").removeprefix("decoder.").rpartition(".")
    block = ""
    if base.startswith("layers."):
        number, _, base = base.removeprefix("layers.").partition(".")
        block = f"blk.{number}."
    part = "ffn_norm" if block and base == "final_layer_norm" else OPT_NAMES.get(base)
    return part and f"{block}{part}.{suffix}"
