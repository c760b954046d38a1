"""Decoder architectures, each a short declarative description; `graph.py` turns a description into a model.

To add one:

1. `arch/<family>.py` with an `Architecture`: its parts, and what `transformers` (and so PEFT's adapters) calls them.
2. `known`, below: its name in GGUF files.
3. `engine/hf_families.py`: an entry of `FAMILIES` by the `model_type` of its Hugging Face `config.json`, with what that means by
   leaving a key out. `engine/hf_config.py`: keys of its own in `KINDS`, and in `read_metadata` where sizes have other names.
4. `engine/pre_tokenizers.py`: its pre-tokenizer, and `PRE_TOKENIZERS_OF` where all its files split texts in one way.
5. `tests/reference.py`: a `Case`, by which tests compare files (`test_arch.py`), folders (`test_safetensors.py`) and adapters
   (`test_peft_names.py`) with `transformers` and PEFT. They fail for an architecture in `known` without one.
6. `footprint.py`: `NATIVE_FAMILIES` where it is one that `is_usual`, `UNEVEN_KEYS` where its keys have norms or biases.
7. `docs/models.md`, and the list of architectures in both READMEs.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from nomoat import footprint
from nomoat.errors import BadFileError, UnsupportedError

if TYPE_CHECKING:
    from nomoat.engine.source import ModelSource

# our layer's name -> tensor's name, within a layer
SPLIT_QKV = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
}
FUSED_QKV = {"self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output"}  # rows of q, then of k, then of v
GATED_MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
FUSED_GATED_MLP = {"mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}  # rows of the gate, then of up
PLAIN_MLP = {"mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
ROUTER = "mlp.gate"
EXPERTS = {
    ROUTER: "ffn_gate_inp",
    "mlp.experts.gate_proj": "ffn_gate_exps",
    "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}
SHARED_GATE = "mlp.shared_expert_gate"
SHARED_EXPERT = {  # which all tokens ask, by the sigmoid of its gate
    SHARED_GATE: "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
}
ROUTERS = (ROUTER, SHARED_GATE)  # what makes the weights of experts
# our layer's name -> that of `transformers`, where several families share it
HF_DENSE_MLP = {"mlp.up_proj": "mlp.dense_h_to_4h", "mlp.down_proj": "mlp.dense_4h_to_h"}


Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared", "clamped"]
GELUS: tuple[Activation, ...] = ("gelu", "gelu_tanh")
SOMETIMES_MIXED = ("llama",)  # families with mixtures of experts and others; `llama`'s is Mixtral
MAX_NUMBER = 2**31  # no size of a model is as large
BY_CONVERSION = (  # from the checkout: no package index has nomoat
    "their Hugging Face folder with the `convert` extra "
    "(`pip install '.[convert]'` in the checkout of nomoat, best into an environment of its own)"
)
ENCODERS = (  # how their names begin
    "bert", "nomic-bert", "nomic_bert", "modern-bert", "modernbert", "jina-bert", "neo-bert", "eurobert", "roberta", "xlm-roberta",
    "distilbert", "deberta", "electra", "gemma-embedding", "t5encoder",
)  # fmt: skip
OTHERS = f"`nomoat models` lists models that run; others may run from {BY_CONVERSION}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How a family of decoders is built. The defaults are LLaMA's. Biases are added wherever the file has them.

    `rope_pairs`: which elements of a head the file's rows rotate together. Rows of neighbours are put into the order of `rotate_half`,
    which is that of Hugging Face's Llama and so of PEFT adapters.
    `attention_norms`: the first that is in the file is taken. Without any, and without an `mlp_norm`, they read the layer's input.
    `qk_norm`: over what there is a norm of queries, and one of keys. `turns_before_norms`: which have turned by positions by then.
    `parallel`: attention and MLP both read the layer's input; a file of GPT-NeoX may say otherwise (`use_parallel_residual`).
    `divides_logits`: by the file's `logit_scale`, which others multiply them by.
    `scales_residual`: a file may say how much is added of what attention and MLP give (`residual_scale`).
    `must_say`: numbers of the file without which a model would be answered wrongly.
    `experts_normed`: a token weights its experts by the softmax of their scores alone, not of all; a file may say otherwise
    (`expert_weights_norm`).
    `windowed`: which layers see no further back than the file's window, repeated over the layers.
    `turning`: which layers turn by positions, repeated so, too. Where layers may have windows, and a model has none, all of them do.
    `local_rope_base`: the base of the windowed layers, where it is another; they do not scale their positions.
    `width_scaled_layers`: models of so many layers divide scores by the root of width / heads, not of the head's width.
    `sinks`: each head's weights of what a token sees are shared with a number of its own, which stands for nothing seen.
    `yarn_truncates`: YaRN's range of pairs that are divided in part begins and ends with whole ones.
    `activation`: "clamped" is GPT-OSS's gate, see `elementwise.clamped_gate`.
    `window`, `attention_cap`, `logit_cap`: of a file that does not say; one that says 0 has none.
    `hf_layers`: where `transformers` has the layers; `hf_names`: our name of a part within one -> its name there. Left out, both are
    Llama's. `hf_neighbours`: it has the rows of neighbours as the file has them, not as Llama's. `own_names`: what the code in its
    folders called them, in `transformer.h`, before `transformers` had the family.
    """

    name: str
    norm: Literal["rms", "layer"] = "rms"
    attention_norms: tuple[str, ...] = ("attn_norm",)
    mlp_norm: str | None = "ffn_norm"
    qk_norm: Literal["each head", "all heads"] | None = None
    turns_before_norms: bool = False
    post_norms: bool = False
    embedding_norm: bool = False
    embedding_scaled: bool = False
    positions: Literal["rope", "alibi", "learned"] = "rope"
    rope_pairs: Literal["halves", "neighbours"] = "halves"
    local_rope_base: float | None = None
    windowed: tuple[bool, ...] = (False,)
    turning: tuple[bool, ...] = (True,)
    width_scaled_layers: int | None = None
    sinks: bool = False
    yarn_truncates: bool = True
    window: int | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    activation: Activation = "silu"
    parallel: bool = False
    divides_logits: bool = False
    scales_residual: bool = False
    must_say: tuple[str, ...] = ()
    experts_normed: bool = True
    projections: Mapping[str, str] = field(default_factory=lambda: SPLIT_QKV | GATED_MLP)
    hf_layers: str = "model.layers"
    hf_names: Mapping[str, str] = field(default_factory=dict)
    hf_neighbours: bool = False
    own_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def qkv(self) -> tuple[str, ...]:
        """The layers of queries, keys and values, in this order, or the one of all."""
        return self._those(*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "qkv")))

    @property
    def has_experts(self) -> bool:
        """Whether each token asks some of many MLPs."""
        return ROUTER in self.projections

    @property
    def has_shared_expert(self) -> bool:
        """Whether there is one more that all tokens ask."""
        return SHARED_GATE in self.projections

    @property
    def gate_up(self) -> tuple[str, ...]:
        """The layers of the gate and of what it opens, in this order, or the one of both; empty without a gate."""
        gated = self._those("mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj")
        return () if gated == ("mlp.up_proj",) else gated

    @property
    def activations(self) -> tuple[Activation, ...]:
        """Those that a model of the family may have: both forms of GELU where it opens no gate."""
        return GELUS if self.activation in GELUS and not self.gate_up else (self.activation,)

    def attention_norm(self, tensors: Container[str], layer: int) -> str | None:
        """The norm before a layer's attention, of those in its file."""
        last = self.attention_norms[-1] if self.attention_norms else None
        return next((name for name in self.attention_norms if f"blk.{layer}.{name}.weight" in tensors), last)

    def _those(self, *names: str) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.projections)


class Sight(NamedTuple):
    """How a layer sees."""

    local: bool  # no further back than the window
    turns: bool  # by positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """The sizes of one model, read from its file."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int  # of one expert, where there are several
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    rope_base: float
    rotary_dim: int | None = None  # None: the whole head turns
    rope_scale: float = 1.0  # positions are divided by it
    yarn_tokens: int | None = None  # YaRN: only what turns slowly over this many tokens is divided
    yarn_turns: tuple[float, float] = (32.0, 1.0)  # what turns as often as the first is left as it is; as the second, divided wholly
    yarn_truncates: bool = True  # to whole pairs
    rope_magnitude: float = 1.0  # cosine and sine are multiplied by it
    long_factors: bool = False  # LongRoPE: the file's factors for contexts longer than it was first trained on
    local_rope_base: float | None = None
    window: int | None = None
    alibi_max_bias: float = 8.0
    clamp_qkv: float | None = None
    logit_cap: float | None = None
    attention_cap: float | None = None  # scores are kept within plus and minus this, smoothly
    parallel: bool = False
    context_is_window: bool = False  # the model reads longer texts, each token only so far back; no graph of its family does that
    experts: int = 0  # of a mixture
    experts_chosen: int = 0  # by each token
    experts_normed: bool = True  # so is `expert_gating_func` 3, whatever `expert_weights_norm` says
    shared_hidden: int = 0  # of the expert that all tokens ask
    embedding_scale: float = 1.0
    score_scale: float | None = None  # None: see `score_width`
    logit_scale: float = 1.0
    norms_last: bool = False  # after attention and MLP are added, not before them

    @property
    def has_paged_attention(self) -> bool:
        """Whether OpenVINO's PagedAttention can run it here: none of its 28 inputs caps scores."""
        return self.attention_cap is None and footprint.can_page()


def known() -> dict[str, Architecture]:
    """Every architecture by the name GGUF files give it."""
    from nomoat.engine.arch.arcee import ARCEE
    from nomoat.engine.arch.bloom import BLOOM
    from nomoat.engine.arch.cohere import COHERE2, COMMAND_R
    from nomoat.engine.arch.ernie4_5 import ERNIE4_5
    from nomoat.engine.arch.exaone import EXAONE
    from nomoat.engine.arch.exaone4 import EXAONE4
    from nomoat.engine.arch.falcon import FALCON
    from nomoat.engine.arch.gemma import GEMMA, GEMMA2, GEMMA3
    from nomoat.engine.arch.glm4 import CHATGLM, GLM4
    from nomoat.engine.arch.gpt2 import GPT2
    from nomoat.engine.arch.gptj import GPTJ
    from nomoat.engine.arch.gptneox import GPTNEOX
    from nomoat.engine.arch.gptoss import GPTOSS
    from nomoat.engine.arch.granite import GRANITE, GRANITEMOE
    from nomoat.engine.arch.hunyuan import HUNYUAN_DENSE
    from nomoat.engine.arch.llama import LLAMA
    from nomoat.engine.arch.minicpm import MINICPM
    from nomoat.engine.arch.mistral3 import MISTRAL3
    from nomoat.engine.arch.mpt import MPT
    from nomoat.engine.arch.nemotron import NEMOTRON
    from nomoat.engine.arch.olmo2 import OLMO2
    from nomoat.engine.arch.olmoe import OLMOE
    from nomoat.engine.arch.opt import OPT
    from nomoat.engine.arch.phi2 import PHI2
    from nomoat.engine.arch.phi3 import PHI3
    from nomoat.engine.arch.qwen2 import QWEN2, QWEN2MOE
    from nomoat.engine.arch.qwen3 import QWEN3, QWEN3MOE
    from nomoat.engine.arch.smollm3 import SMOLLM3
    from nomoat.engine.arch.stablelm import STABLELM
    from nomoat.engine.arch.starcoder import STARCODER
    from nomoat.engine.arch.starcoder2 import STARCODER2

    families = [
        ARCEE, BLOOM, CHATGLM, COHERE2, COMMAND_R, ERNIE4_5, EXAONE, EXAONE4, FALCON, GEMMA, GEMMA2, GEMMA3, GLM4, GPT2, GPTJ, GPTNEOX,
        GPTOSS, GRANITE, GRANITEMOE, HUNYUAN_DENSE, LLAMA, MINICPM, MISTRAL3, MPT, NEMOTRON, OLMO2, OLMOE, OPT, PHI2, PHI3, QWEN2,
        QWEN2MOE, QWEN3, QWEN3MOE, SMOLLM3, STABLELM, STARCODER, STARCODER2,
    ]  # fmt: skip
    return {arch.name: arch for arch in families}


def find(name: str) -> Architecture:
    """The description of a family. Raises UnsupportedError with the list of those that are known."""
    families = known()
    if name not in families:
        raise unknown(name)
    return families[name]


def of(source: ModelSource) -> Architecture:
    """The description of a model's family. Raises BadFileError if its file tells none, UnsupportedError."""
    arch = find(str(source.require("general.architecture")))
    told = source.metadata.get(f"{arch.name}.hidden_activation")  # of folders
    arch = replace(arch, activation=next((one for one in arch.activations if one == str(told)), arch.activation))
    if arch.name == "chatglm" and "blk.0.attn_qkv.weight" in source.tensors:
        arch = replace(arch, projections=FUSED_QKV | FUSED_GATED_MLP)
    return with_experts(arch, _Said(arch.name, source.metadata).optional_whole("expert_count") or 0)


def with_experts(arch: Architecture, experts: int) -> Architecture:
    """The same, whose MLPs are mixtures where a model has so many experts: Mixtral's are files of `llama`."""
    if not experts or arch.has_experts:
        return arch
    return replace(arch, projections={part: name for part, name in arch.projections.items() if "mlp" not in part} | EXPERTS)


def unknown(name: str) -> UnsupportedError:
    """The error for an architecture that nomoat does not know."""
    if name.startswith(ENCODERS) and not name.endswith(("decoder", "generation")):
        return sees_both_ways()
    families = ", ".join(sorted(known()))
    return UnsupportedError(
        f"the architecture `{name}` is not one that nomoat can import",
        hint=f"known: {families}; others may run from {BY_CONVERSION}",
    )


def not_yet(what: str) -> UnsupportedError:
    """The error for a variant of an architecture that nomoat does know. `what`: the beginning of a sentence."""
    return UnsupportedError(f"{what}, which nomoat cannot do yet", hint=OTHERS)


def sees_both_ways() -> UnsupportedError:
    """The error for a model that writes no text."""
    return UnsupportedError(
        "each token of this model sees those after it, too (an embedding model), which nomoat cannot do yet",
        hint="choose a model that writes text: `nomoat models` lists some",
    )


def _known_scaling(kind: Any) -> str:
    """How positions are stretched. Raises UnsupportedError for what is not known."""
    if not isinstance(kind, str) or kind not in ("none", "linear", "yarn", "longrope"):
        raise not_yet(f"this model scales its positions (`{kind}`)")
    return kind


@dataclass(frozen=True, slots=True)
class _Said:
    """What a file's metadata says under its architecture's name. Raises BadFileError for what is missing or cannot be."""

    name: str
    metadata: Mapping[str, Any]

    def number(self, key: str, default: float | None = None) -> Any:
        value = self.metadata.get(f"{self.name}.{key}", default)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():  # one for each layer, and all the same
            value = value[0].item()
        if value is None:
            message = f"the file does not say `{self.name}.{key}`"
            raise BadFileError(message, hint="the file was made by a tool that left it out; try another")
        if not isinstance(value, int | float) or not 0 < value < MAX_NUMBER:
            hint = f"one number is needed, above 0 and below {MAX_NUMBER:,}; try another file"
            raise BadFileError(f"the file says `{self.name}.{key}` = {value!r}", hint=hint)
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        if type(value := self.number(key, default)) is not int:
            raise BadFileError(f"the file says `{self.name}.{key}` = {value!r}", hint="a whole number is needed; try another file")
        return value

    def optional(self, key: str, default: float | None = None) -> Any:
        """None where the file says 0, or nothing and there is no default."""
        value = self.metadata.get(f"{self.name}.{key}", default)
        return None if value is None or (isinstance(value, int | float) and value == 0) else self.number(key, default)

    def optional_whole(self, key: str, default: int | None = None) -> int | None:
        return None if self.optional(key, default) is None else self.whole(key, default)


def _require_known_mixture(arch: Architecture, said: _Said) -> None:
    """Raises UnsupportedError for a mixture of experts of another kind, BadFileError for one that cannot be."""
    experts, chosen = said.optional_whole("expert_count") or 0, said.optional_whole("expert_used_count")
    if experts and not (arch.has_experts or arch.name in SOMETIMES_MIXED):
        raise not_yet(f"this model is a mixture of {experts} experts in a family (`{arch.name}`) whose mixtures are others")
    if experts and f"{arch.name}.expert_used_count" not in said.metadata:
        message = f"the file does not say how many of its {experts} experts each token asks (`{arch.name}.expert_used_count`)"
        raise BadFileError(message, hint="the file was made by a tool that left it out; try another")
    if (experts or arch.has_experts) and not 0 < (chosen or 0) <= experts:
        raise BadFileError(f"the file says that each token asks {chosen or 0} of {experts} experts", hint="try another file")
    for key, what in (("expert_shared_count", "experts that all tokens ask"), ("leading_dense_block_count", "layers without experts")):
        if said.optional(key):
            raise not_yet(f"this model has {what} (`{arch.name}.{key}`), unlike others of its family")
    # the second: a softmax of those that are chosen, as the first is once these are divided by their sum
    if said.optional("expert_gating_func", 1) not in (None, 1, 3) or said.optional("expert_weights_scale", 1) not in (None, 1):
        raise not_yet("this model weights its experts in another way than by the softmax of those that are chosen")


def _require_known_variant(arch: Architecture, said: _Said) -> None:
    """Raises UnsupportedError for other mixtures, tokens that see later ones, and layers that turn, see or add otherwise than the
    family's. BadFileError for a mixture that cannot be."""
    _require_known_mixture(arch, said)
    for key in arch.must_say:
        if f"{arch.name}.{key}" not in said.metadata:
            message = f"the file does not say `{arch.name}.{key}`: it was converted before files of `{arch.name}` said it"
            raise BadFileError(message, hint="take a newer conversion of this model, or its Hugging Face folder")
        said.number(key)
    if not arch.scales_residual and said.optional("residual_scale", 1) not in (None, 1):
        raise not_yet("this model adds another part of what its layers give than others of its family")
    if arch.qk_norm and said.optional("attention.clamp_kqv"):
        raise not_yet(f"this model keeps its queries, keys and values within limits (`{arch.name}.attention.clamp_kqv`)")
    if arch.name == "cohere2" and not said.optional("attention.sliding_window"):
        raise not_yet("no layer of this Command R7B has a window, nor turns by positions")
    if arch.name in ("granite", "granitemoe") and said.metadata.get(f"{arch.name}.rope.scaling.finetuned", True) is not True:
        raise not_yet("this model does not turn by positions")
    if said.metadata.get(f"{arch.name}.rope.dimension_sections") is not None:
        raise not_yet("this model turns by several positions at once (it sees images)")
    if said.metadata.get(f"{arch.name}.attention.causal", True) is not True:
        raise sees_both_ways()
    period = len(arch.windowed)
    told = said.metadata.get(f"{arch.name}.attention.sliding_window_pattern", period)
    pattern = told.tolist() if isinstance(told, np.ndarray) else told
    usual = [arch.windowed[layer % period] for layer in range(len(pattern))] if isinstance(pattern, list) else period
    if any(arch.windowed) and pattern != usual:
        raise not_yet(f"this model's attention windows follow another pattern ({pattern}) than `{arch.name}` has")


def _head_sizes(said: _Said, usual: int) -> tuple[int, int | None]:
    """A head's width, and how much of it turns by positions, if the file says it. Raises BadFileError, UnsupportedError."""
    width, turned = said.whole("attention.key_length", usual), said.optional_whole("rope.dimension_count")
    if said.whole("attention.value_length", width) != width:
        raise not_yet("this model's values are of another width than its keys")
    if turned is not None and (turned > width or turned % 2):
        raise BadFileError(f"the file turns {turned} of the {width} elements of a head", hint="try another file")
    if (base := said.number("rope.freq_base", 10000.0)) <= 1:
        raise BadFileError(f"the file's positions turn by the base {base}", hint="try another file")
    return width, turned


def dimensions(
    metadata: dict[str, Any], *, vocabulary: int, has_long_factors: bool = False, context_tokens: int | None = None
) -> Dimensions:
    """Read the sizes out of a GGUF's metadata. Raises BadFileError for what is missing or cannot be, UnsupportedError.

    A model of LongRoPE has one set of factors up to its first context and one beyond it. A key is turned once, so a model has to
    have one set for all: the one for the `context_tokens` asked for, which is the first context where none are.
    """
    arch = find(name := metadata["general.architecture"])
    said = _Said(name, metadata)
    number, whole, optional = said.number, said.whole, said.optional
    _require_known_variant(arch, said)
    scaling = _known_scaling(metadata.get(f"{name}.rope.scaling.type", "linear"))  # older files state no more than a factor
    divided = optional("rope.scaling.yarn_log_multiplier")  # which other families' files have a tenth of
    if (divided and name != "mistral3") or number("rope.scaling.yarn_ext_factor", 1.0) != 1.0:
        raise not_yet("this model scales its positions by a variant of `yarn`")
    stretched = optional("rope.scaling.factor", optional("rope.scale_linear")) if scaling in ("linear", "yarn") else None
    factor = float(stretched or 1.0)
    magnitude = float(number("rope.scaling.attn_factor", 1.0))
    if scaling == "yarn":
        magnitude = _yarn_magnitude(magnitude, factor, divided)
    window = said.optional_whole("attention.sliding_window", arch.window) if any(arch.windowed) else None
    first, longest = _contexts(said, yarn_factor=factor if scaling == "yarn" else None)
    experts = said.optional_whole("expert_count") or 0
    has_two = has_long_factors and first < longest
    long_factors = has_two and context_tokens is not None and context_tokens > first
    # a model that adds r times what its layers give is one that adds all of it to a residual r times as small
    residual_scale = float(number("residual_scale", 1.0))
    width, heads = whole("embedding_length"), whole("attention.head_count")
    unsaid_parts = whole("expert_used_count") if arch.has_shared_expert else 1  # files of the spring of 2024, as llama.cpp reads them
    head_dim, rotary_dim = _head_sizes(said, width // heads)
    return Dimensions(
        layers=whole("block_count"),
        width=width,
        heads=heads,
        kv_heads=whole("attention.head_count_kv", heads),
        head_dim=head_dim,
        hidden=said.optional_whole("expert_feed_forward_length") or whole("feed_forward_length") // unsaid_parts,
        vocabulary=vocabulary,
        context_tokens=first if has_two and not long_factors else longest,
        norm_epsilon=float(number(f"attention.layer_norm{'_rms' if arch.norm == 'rms' else ''}_epsilon")) / residual_scale**2,
        rope_base=float(number("rope.freq_base", 10000.0)),
        rotary_dim=rotary_dim,
        rope_scale=factor,
        yarn_tokens=first if scaling == "yarn" else None,
        yarn_turns=(float(number("rope.scaling.yarn_beta_fast", 32.0)), float(number("rope.scaling.yarn_beta_slow", 1.0))),
        yarn_truncates=arch.yarn_truncates,
        rope_magnitude=magnitude,
        long_factors=long_factors,
        local_rope_base=float(number("rope.freq_base_swa", arch.local_rope_base)) if window and arch.local_rope_base else None,
        window=window,
        alibi_max_bias=float(number("attention.max_alibi_bias", 8.0)),
        clamp_qkv=optional("attention.clamp_kqv"),
        logit_cap=optional("final_logit_softcapping", arch.logit_cap),
        attention_cap=optional("attn_logit_softcapping", arch.attention_cap),
        parallel=metadata.get("gptneox.use_parallel_residual", arch.parallel) is True,
        context_is_window=metadata.get(f"{name}.context_is_window", False) is True,
        norms_last=metadata.get(f"{name}.norms_last", False) is True,
        embedding_scale=float(number("embedding_scale", width**0.5 if arch.embedding_scaled else 1.0)) / residual_scale,
        score_scale=optional("attention.scale"),
        logit_scale=float(number("logit_scale", 1.0)) ** (-1 if arch.divides_logits else 1),
        experts=experts,
        experts_chosen=said.optional_whole("expert_used_count") or 0 if experts else 0,
        experts_normed=metadata.get(f"{name}.expert_weights_norm", arch.experts_normed) is True or optional("expert_gating_func") == 3,
        shared_hidden=(said.optional_whole("expert_shared_feed_forward_length") or whole("feed_forward_length"))
        if arch.has_shared_expert
        else 0,
    )


def _contexts(said: _Said, *, yarn_factor: float | None) -> tuple[int, int]:
    """The context before positions were stretched, and the longest: with YaRN the longer of what is said and what the factor makes.

    Whoever switches it on as Qwen's cards have it leaves the model's own there. What `hf_config` made of a window stays. Where scores
    are scaled by a query's position (Ministral 3), which none of our graphs does, they are not within the first.
    """
    longest = said.whole("context_length")
    first = said.whole("rope.scaling.original_context_length", longest)
    if said.optional("attention.temperature_scale"):
        return first, min(first, longest)
    if yarn_factor is None or said.metadata.get(f"{said.name}.context_is_window") is True:
        return first, longest
    return first, max(longest, int(first * yarn_factor))


def _yarn_magnitude(said: float, factor: float, divided: float | None) -> float:
    """What cosine and sine are multiplied by. Files of OLMo 3 say what YaRN takes by itself.

    `divided`: by what that is of so much of the logarithm (`mscale_all_dim`, where `mscale` is 1).
    """
    usual = 1 + 0.1 * math.log(max(factor, 1.0))
    if divided:
        return said * usual / (1 + 0.1 * divided * math.log(max(factor, 1.0)))
    return usual if math.isclose(said, usual, rel_tol=1e-4) else said * usual


def notes(metadata: Mapping[str, Any], sizes: Dimensions) -> tuple[str, ...]:
    """What has to be known about a model's answers.

    llama.cpp overwrites `yarn_attn_factor` where YaRN is in use (llama-context.cpp). Its converter takes it from Hugging Face's
    `attn_factor`, which `transformers` does not read, either, or from `attention_factor`, for which `hf_config` refuses a folder.
    """
    name = metadata["general.architecture"]
    asked, longest = metadata.get(f"{name}.rope.scaling.yarn_attn_factor"), metadata.get(f"{name}.context_length", 0)
    if metadata.get(f"{name}.attention.temperature_scale") and longest > sizes.context_tokens:
        return (f"texts end at {sizes.context_tokens:,} tokens here: behind them this model's scores are scaled by position",)
    if not isinstance(asked, int | float) or math.isclose(asked, sizes.rope_magnitude, rel_tol=1e-4):
        return ()
    return (f"positions of this model ask for a factor of YaRN (`attn_factor`, {asked:g}) that is left out, as in llama.cpp",)


def is_usual(arch: Architecture, sizes: Dimensions) -> bool:
    """RMS norms before attention and MLP, around or after them, a gate, one after the other (LLaMA, Qwen, Phi-3, Gemma, EXAONE)."""
    known_gate = (bool(arch.gate_up) or arch.has_experts) and arch.activation in ("silu", "gelu_tanh", "clamped")
    one_after_the_other = not (sizes.parallel or sizes.norms_last) and (arch.mlp_norm is not None or arch.post_norms)
    return arch.norm == "rms" and known_gate and one_after_the_other and sizes.clamp_qkv is None and not arch.turns_before_norms


def has_usual_attention(arch: Architecture, sizes: Dimensions) -> bool:
    """Whether attention and embedding of a usual decoder are as `native` computes them."""
    return arch.positions == "rope" and not arch.embedding_norm and sizes.head_dim % footprint.HEAD_COLUMNS == 0


def sights(arch: Architecture, sizes: Dimensions) -> list[Sight]:
    """Of each layer."""
    all_turn = any(arch.windowed) and sizes.window is None
    kinds = ([pattern[layer % len(pattern)] for pattern in (arch.windowed, arch.turning)] for layer in range(sizes.layers))
    return [Sight(local, turns or all_turn) for local, turns in kinds]


def score_width(arch: Architecture, *, layers: int, width: int, heads: int, head_dim: int) -> int:
    """What the product of a query and a key is divided by the root of."""
    return width // heads if layers == arch.width_scaled_layers else head_dim


def score_scale(arch: Architecture, sizes: Dimensions) -> float:
    """What the product of a query and a key is multiplied by."""
    width = score_width(arch, layers=sizes.layers, width=sizes.width, heads=sizes.heads, head_dim=sizes.head_dim)
    return sizes.score_scale or float(width**-0.5)
