"""The GGUF you run as a PyTorch model to tune: its own quantised weights, expanded, with LoRA layers on top.

All weights are kept expanded (in bf16 or f32, whichever this CPU multiplies faster): what a model needs is checked before.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nomoat import hardware
from nomoat.engine import arch as architectures
from nomoat.engine import graph, importer, layout, positions
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import FloatArray, GGUFFile
from nomoat.errors import NotEnoughMemoryError, UnsupportedError

TRAINING_OVERHEAD_BYTES = 1_500_000_000  # PyTorch, activations of a batch, optimiser; measured on SmolLM2
TUNABLE = {"llama": "Llama", "qwen2": "Qwen2"}  # by the name `transformers` gives the family's classes
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def fastest_precision() -> hardware.Detected[str]:
    """The number format this CPU multiplies matrices fastest in, measured now (a tenth of a second)."""
    speeds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.randn(512, 768, dtype=dtype), torch.randn(1536, 768, dtype=dtype)
        torch.nn.functional.linear(x, weight)
        times = []
        for _ in range(5):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - started)
        speeds[dtype] = 2 * 512 * 768 * 1536 / min(times) / 1e9
    f32, bf16 = speeds[torch.float32], speeds[torch.bfloat16]
    if bf16 > 1.3 * f32:
        return hardware.Detected("bfloat16", f"{bf16:.0f} GFLOP/s here, against {f32:.0f} with f32")
    return hardware.Detected("float32", f"{f32:.0f} GFLOP/s here, against {bf16:.0f} with bf16")


def load_model(path: Path, *, dtype: torch.dtype) -> Any:
    """A frozen `transformers` model with the weights of a GGUF file as they will be served: rounded to the engine's int8 layout.

    Raises NotEnoughMemoryError before anything is loaded, UnsupportedError for families that run but cannot be tuned.
    """
    file = GGUFFile(path)
    arch = architectures.find(str(file.require("general.architecture")))
    if arch.name not in TUNABLE:
        raise UnsupportedError(
            f"models of the architecture `{arch.name}` run here, but nomoat cannot tune them yet",
            hint=f"tune one of these: {', '.join(TUNABLE)}",
        )
    sizes = importer.read_sizes(file)
    need = file.num_values * dtype.itemsize + TRAINING_OVERHEAD_BYTES
    free = hardware.memory_available_bytes().value
    if need > free:
        raise NotEnoughMemoryError(
            f"tuning `{path.name}` needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free",
            hint="tune a smaller model (`nomoat models --fits`), or close other programs",
        )
    with torch.device("meta"):  # nothing is allocated or initialised: every weight comes from the file
        model = _empty_model(arch, sizes, tied=len(set(graph.head_tensor(file))) == 1)
    state = {name: torch.from_numpy(array).to(dtype) for name, array in _tensors(file, arch, sizes)}
    model.load_state_dict(state, strict=False, assign=True)
    if "lm_head.weight" not in state:
        model.tie_weights()
    _set_rope(model, file, sizes)
    left_out = [name for name, value in model.named_parameters() if value.is_meta]
    if left_out:
        raise RuntimeError(f"no weights were found for {left_out}")
    return model.requires_grad_(False)


def add_lora(model: Any, *, rank: int, seed: int) -> Any:
    """The model with fresh LoRA layers in f32 on all seven projections; fresh layers change nothing."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5 for an attribute under its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return get_peft_model(model, settings, autocast_adapter_dtype=True)


def _empty_model(arch: Architecture, sizes: Dimensions, *, tied: bool) -> Any:
    import transformers

    family = TUNABLE[arch.name]
    config_class, model_class = getattr(transformers, f"{family}Config"), getattr(transformers, f"{family}ForCausalLM")
    settings = config_class(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.context_tokens,
        rms_norm_eps=sizes.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_base},
        tie_word_embeddings=tied,
        attn_implementation="sdpa",
    )
    return model_class(settings).eval()


def _tensors(file: GGUFFile, arch: Architecture, sizes: Dimensions) -> Any:
    """(Hugging Face name, weights) of every tensor."""
    embedding, output = graph.head_tensor(file)
    yield "model.embed_tokens.weight", _as_served(file.rows(embedding))
    if output != embedding:
        yield "lm_head.weight", _as_served(file.rows(output))
    yield "model.norm.weight", file.rows("output_norm.weight")
    for layer in range(sizes.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", file.rows(f"blk.{layer}.attn_norm.weight")
        yield f"{prefix}.post_attention_layernorm.weight", file.rows(f"blk.{layer}.ffn_norm.weight")
        for part, tensor in arch.projections.items():
            name, source = f"{prefix}.{part}", f"blk.{layer}.{tensor}"
            order = positions.row_order(arch, sizes, name)
            yield f"{name}.weight", _as_served(file.rows(f"{source}.weight", order))
            if f"{source}.bias" in file.tensors:
                bias = file.rows(f"{source}.bias")
                yield f"{name}.bias", bias if order is None else bias[order]


def _as_served(weights: FloatArray) -> FloatArray:
    codes, scales = layout.quantise_rows(weights)
    return np.asarray(codes * scales.astype(np.float32), np.float32)


def _set_rope(model: Any, file: GGUFFile, sizes: Dimensions) -> None:
    """The rotation frequencies: a buffer that is in no file and was left unmade."""
    inverse = positions.inverse_frequencies(file, sizes)
    rotary = model.model.rotary_emb
    rotary.attention_scaling = sizes.rope_magnitude
    rotary.inv_freq = torch.from_numpy(inverse).float()
    rotary.original_inv_freq = rotary.inv_freq
