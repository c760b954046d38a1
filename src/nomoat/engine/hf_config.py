"""What a Hugging Face `config.json` says, under GGUF's keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.engine import arch as architectures
from nomoat.engine.gguf import FloatArray
from nomoat.errors import BadFileError

if TYPE_CHECKING:
    from nomoat.engine.hf_families import Family

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "relu": "relu", "relu2": "relu_squared",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip

MAX_NUMBER, MAX_HEAD_DIM = 1e15, 65536
Config = Mapping[str, Any]


def first(config: Config, *names: str) -> Any:
    """The first of these keys that says something; None if none does."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def _layers(config: Config) -> Any:
    return first(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")


def num_heads(config: Config) -> int:
    """Attention heads; 1 where none is told."""
    return int(first(config, "num_attention_heads", "n_head", "n_heads") or 1)


def width(config: Config) -> int:
    """Of a token's hidden state; 0 where none is told."""
    return int(first(config, "n_embed", "hidden_size", "n_embd", "d_model") or 0)


def _num_kv_heads(config: Config) -> int:
    return int(config.get("num_key_value_heads") or num_heads(config))


def head_dim(config: Config) -> int:
    """Width of a head."""
    return int(config.get("head_dim") or width(config) // num_heads(config))


def _hidden(config: Config) -> int:
    return int(first(config, "intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim") or 4 * width(config))


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
        "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor", "attn_factor", "alibi_bias_max",
        "clip_qkv", "norm_epsilon", "swiglu_limit", "swiglu_alpha", "embedding_multiplier", "residual_multiplier",
        "attention_multiplier", "logits_scaling", "logit_scale", "scale_emb", "scale_depth", "dim_model_base", "norm_eps", "alpha",
        "mscale", "mscale_all_dim", "llama_4_scaling_beta",
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


def require_kinds(config: Config, *, levels: int = 3) -> None:
    """Raise BadFileError for a value of `config.json` that is of another kind than its key is; null is as good as none.

    So many `levels` of objects in objects are looked into: nobody reads further ones.
    """
    for kind, (is_so, names) in KINDS.items():
        for name in names:
            value = config.get(name)
            if value is not None and not is_so(value):
                raise BadFileError(f"config.json says `{name}` = {_shown(value)}, which is not {kind}", hint="download it again")
    for name in KINDS["an object"][1] if levels > 1 else ():
        require_kinds(config.get(name) or {}, levels=levels - 1)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _activation(config: Config, arch: architectures.Architecture, family: Family) -> str:
    """That of the MLPs. Raises UnsupportedError. The first Gemmas named another than they were trained with."""
    found: str = arch.activation
    for name in family.activations:
        if (act := config.get(name)) is not None:
            found = "gelu_tanh" if (arch.name, act) == ("gemma", "gelu") else ACTIVATIONS.get(act, "")
            if found not in arch.activations:
                raise architectures.not_yet(f"this model's activation is `{act}` where that of `{arch.name}` is {arch.activation}")
    return found


def read_metadata(config: Config, family: Family) -> dict[str, Any]:
    """The metadata a GGUF file of this model would hold. Raises UnsupportedError for variants that would be answered wrongly."""
    arch = architectures.find(family.arch)
    activation = _activation(config, arch, family)
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
        "attention.head_count_kv": _num_kv_heads(config),
        "attention.key_length": head_dim(config),
        "feed_forward_length": _hidden(config),
        "context_length": (context := _context_tokens(longest, arch, family.window(config))),
        "context_is_window": context < longest or None,
        "rope.freq_base": _base(config, rope),
        "attention.temperature_scale": float(rope.get("llama_4_scaling_beta") or 0) or None,
        "attention.sliding_window": (family.window(config) or 0) if any(arch.windowed) else None,
        "hidden_activation": None if activation == arch.activation else activation,
    }
    epsilon = first(config, "rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps") or 1e-5
    keys["attention.layer_norm_rms_epsilon" if arch.norm == "rms" else "attention.layer_norm_epsilon"] = epsilon
    share = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor")
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
    found, of_mlx = config.get("quantization_config"), config.get("quantization")
    if isinstance(of_mlx, dict) and "bits" in of_mlx:  # beside which some write the other, too
        return "MLX"
    if not isinstance(found, dict):
        return None
    unnamed = "bitsandbytes" if found.get("load_in_4bit") or found.get("load_in_8bit") else "a method without a name"
    return str(found.get("quant_method") or unnamed)


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
            kv_heads=_num_kv_heads(config),
            head_dim=head_dim(config),
            hidden=_hidden(config),
            vocabulary=vocabulary,
            context_tokens=_longest(config),
            norm_epsilon=1e-5,
            rope_base=10000.0,
        )
    except (TypeError, ValueError, ArithmeticError) as exc:  # the last of infinity, and of less than one head
        raise BadFileError(f"config.json states sizes that are no whole numbers ({exc})", hint="download it again") from exc


def _rope(config: Config) -> dict[str, Any]:
    """How positions turn, whether `transformers` 4 or 5 wrote it.

    Raises BadFileError where both are there and differ: `transformers` takes the old one then, and loses the base beside the new one.
    """
    new, old = config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    new = new.get("full_attention") or new
    if old and "rope_type" in new and _stretching(old) != _stretching(new):
        raise BadFileError(
            f"config.json says twice how positions are scaled, and not the same: `rope_scaling` is {_shown(old)}, and "
            f"`rope_parameters` {_shown(new)}",
            hint="put what is right (`rope_type`, `factor` and the rest) into `rope_parameters`, beside its `rope_theta`, and remove "
            "`rope_scaling`",
        )
    return {"rope_theta": config.get("rope_theta"), **(new if "rope_type" in new else {**old, **new})}


def _stretching(rope: Config) -> tuple[str, Any]:
    """The kind, and by how much, as far as that is said."""
    return scaling(rope), rope.get("factor")


def _scaling_keys(config: Config, rope: Config, arch: architectures.Architecture) -> dict[str, Any]:
    """How positions are stretched, where that is not said by a tensor: see `scaling_tensors`."""
    kind = scaling(rope)
    keys = {"rope.scaling.original_context_length": _first_context(config, rope), "rope.scaling.type": kind}
    if kind in ("default", "llama3"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": kind, "rope.scaling.factor": float(_needed(rope, "factor"))}
    if kind == "dynamic" and arch.name == "hunyuan-dense" and rope.get("alpha"):  # whatever it is called, it turns by another base
        turned = head_dim(config)
        return {"rope.freq_base": _base(config, rope) * float(rope["alpha"]) ** (turned / (turned - 2))}
    if kind in ("longrope", "su"):
        before, longest = _first_context(config, rope), _longest(config)
        if before < 2:
            raise BadFileError(f"config.json says that positions were stretched from {before}", hint="download it again")
        factor = max(float(rope.get("factor") or longest / before), 1.0)
        stretched = (1 + math.log(factor) / math.log(before)) ** 0.5
        return {**keys, "rope.scaling.type": "longrope", "rope.scaling.attn_factor": float(rope.get("attention_factor") or stretched)}
    has_both = rope.get("mscale") and rope.get("mscale_all_dim")  # `transformers` reads neither without the other
    odd = ["mscale"] if has_both and (rope["mscale"] != 1 or arch.name != "mistral3") else []
    usual = 1 + 0.1 * math.log(max(float(rope.get("factor") or 1), 1.0))
    if not math.isclose(rope.get("attention_factor") or usual, usual, rel_tol=1e-4):
        odd.append("attention_factor")
    if (rope.get("truncate") is not False) is not arch.yarn_truncates:
        odd.append("truncate")
    if kind != "yarn" or odd:
        raise architectures.not_yet(f"this model scales its positions (`{' '.join([kind, *odd])}`)")
    turns = {f"rope.scaling.yarn_{name}": float(rope[name]) for name in ("beta_fast", "beta_slow") if rope.get(name)}
    if has_both and not rope.get("attention_factor"):
        turns["rope.scaling.yarn_log_multiplier"] = float(rope["mscale_all_dim"])
    unread = {"rope.scaling.yarn_attn_factor": rope.get("attn_factor")}  # see `architectures.notes`
    return {**keys, "rope.scaling.factor": float(_needed(rope, "factor")), **turns, **unread}


def _base(config: Config, rope: Config) -> float:
    """What positions turn by."""
    return float(rope.get("rope_theta") or config.get("rotary_emb_base") or 10000)


def scaling(rope: Config) -> str:
    """The kind of rope scaling; "default" for none."""
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _needed(rope: Config, key: str) -> Any:
    """A value that this way of scaling has to have."""
    if not rope.get(key):
        raise BadFileError(f"config.json scales positions as `{scaling(rope)}` and says no `{key}`", hint="download it again")
    return rope[key]


def _first_context(config: Config, rope: Config) -> int:
    """The context before positions were stretched."""
    name = "original_max_position_embeddings"
    return int(rope.get(name) or config.get(name) or _longest(config))


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
