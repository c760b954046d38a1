"""Rules for what a model's weights take in memory and on the disk: the engine follows them, and the catalogue foretells by them."""

from __future__ import annotations

from nomoat import hardware

TILES_FROM_WEIGHTS = 700_000_000  # from here on an answer waits for memory more than for the calls of nomoat's own products
# instructions of nomoat's own products, on x86 and on ARM; where there are better ones, they are used
TILES_NEED = ({"avx2", "fma", "f16c"}, {"asimddp"})
EXACT_BYTES_PER_WEIGHT = 2 * 4  # float32, once in the model and once as compiled
EXACT_SHARE = 1 / 4  # of all memory, not of what is free: the same machine is to give the same likelihoods every day
# run by nomoat's own products at any size
NATIVE_FAMILIES = {
    "chatglm", "ernie4_5", "exaone", "exaone4", "gemma", "gemma2", "gemma3", "glm4", "gpt-oss", "granite", "granitemoe", "llama",
    "minicpm", "mistral3", "olmo2", "olmoe", "phi3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3",
}  # fmt: skip
OUTLIERS = ("gemma",)  # families whose rows hold single large weights, which one scale a row loses
MANY_WEIGHTS = 1_000_000_000  # of a mixture: so many are not computed for each token, which asks few of its experts
FEW_WEIGHTS = 20_000_000  # below it all is done at once: products to be compiled would take longer

SPARE_DISK_BYTES = 32_000_000  # of an import: the graph, the tokenizer, and room to breathe
USUAL_TOKENS = 4096  # of context, which memory is planned for where no other is asked for
KV_BYTES_PER_VALUE = 2  # float16
# of keys and values that nomoat's own passes keep: a scale for each head's of a token; up to so many columns have one of 8 bits
KV_SCALE_BYTES, MOST_SMALL_COLUMNS = 4, 128
HEAD_COLUMNS = 16  # a head of such passes has a multiple of so many
# families whose biases or norms make, or may make, single columns of keys far larger than all others
UNEVEN_KEYS = {"chatglm", "exaone4", "gemma3", "glm4", "gpt-oss", "olmo2", "olmoe", "qwen2", "qwen2moe", "qwen3", "qwen3moe"}
CACHE_BYTES = 2 << 30  # of keys and values of many texts at once and of beginnings that are kept, where that is free


def import_bytes(weights_bytes: int) -> int:
    """What the first start of a model needs on the disk, where its weights as they are served are so many bytes."""
    return weights_bytes + SPARE_DISK_BYTES


def kv_sizes(head_dim: int, *, uneven_keys: bool, quality: str) -> tuple[int, int]:
    """Bytes of a number of a key, and of a value, that nomoat's own passes keep: one where that is near enough."""
    value = 1 if head_dim <= MOST_SMALL_COLUMNS and quality != "high" else 2
    return 2 if uneven_keys else value, value


def foretold_kv_sizes(family: str | None, head_dim: int, *, keeps_codes: bool, quality: str) -> tuple[int, int] | None:
    """The same of a model that is not imported; None where OpenVINO keeps keys and values. `keeps_codes`: as its file has them."""
    if family not in NATIVE_FAMILIES or not keeps_codes or head_dim % HEAD_COLUMNS:
        return None
    return kv_sizes(head_dim, uneven_keys=family in UNEVEN_KEYS, quality=quality)


def kv_bytes_a_token(layers: int, kv_heads: int, head_dim: int, sizes: tuple[int, int] | None = None) -> int:
    """The keys and values of one token, in all layers. `sizes`: see `kv_sizes`; None where OpenVINO keeps them, as float16."""
    each = 2 * KV_BYTES_PER_VALUE * head_dim if sizes is None else sum(head_dim * size + KV_SCALE_BYTES for size in sizes)
    return layers * kv_heads * each


def has_native_kernels() -> bool:
    """Whether nomoat's own products run on this CPU, which multiply by a file's own codes."""
    return any(hardware.cpu_flags() >= need for need in TILES_NEED)


def in_tiles(num_weights: int, quality: str) -> bool:
    """Whether a 4-bit file of so many weights is kept in its own codes, whatever its family."""
    return num_weights >= (FEW_WEIGHTS if quality == "small" else TILES_FROM_WEIGHTS) and has_native_kernels()


def can_page() -> bool:
    """Whether OpenVINO 2026.4.1's PagedAttention runs on this CPU: on x86-64 it needs AVX2, and fails at its first pass without.

    On ARM it needs SVE, which neither Apple's CPUs nor those of small boards have, and takes no keys of 16 bits.
    """
    return "avx2" in hardware.cpu_flags()


def is_large_mixture(num_weights: int, experts: int) -> bool:
    """Whether it is too large for OpenVINO's products, which would compute all experts of each token."""
    return experts > 0 and num_weights > MANY_WEIGHTS


def exact_bytes(num_weights: int, experts: int) -> int | None:
    """What likelihoods in float32 take beside the served weights; None where that is too much, and the served form is used."""
    if is_large_mixture(num_weights, experts):
        return None
    need = EXACT_BYTES_PER_WEIGHT * num_weights
    return need if need <= EXACT_SHARE * hardware.memory_total_bytes().value else None
