"""How texts are split before the parts are merged into the tokens of a byte-level vocabulary."""

from __future__ import annotations

from typing import Any

from nomoat.errors import UnsupportedError

ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_SPLIT = ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + REST
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN_SPLIT = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|" + REST
)
GPT4O_SPLIT = TEKKEN_SPLIT.replace(f"{LOWER}+|", f"{LOWER}+{ENGLISH}?|").replace(
    rf"{LOWER}*|\p{{N}}|", rf"{LOWER}*{ENGLISH}?|\p{{N}}{{1,3}}|"
)
BLOOM_SPLIT = r" ?[^(\s|.,!?…。，、।۔،)]+"
SEED_CODER_SPLIT = QWEN2_SPLIT.replace(r" ?[^\s\p{L}\p{N}]+[\r\n]*", r" ?[^\s\p{L}\p{N}]+")
# several: each splits what the one before it left
MINICPM5_SPLITS = (r"\p{N}{1,3}", LLAMA3_SPLIT)  # not that alone: spaces before a number stay together
IDEOGRAPHS = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
DEEPSEEK_CODER_SPLITS = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", IDEOGRAPHS, r"\p{N}")
DEEPSEEK3_SPLITS = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + REST,
)
# `tokenizer.ggml.pre` -> how texts are split before they are merged; who shares a way stands together, as in llama-vocab.cpp. The ways
# are those of the families' own tokenizers, which llama.cpp comes near to: tests/engine/test_tokenizer.py has where it is not the same
PRE_TOKENIZERS = {
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "roberta-bpe", "exaone4", "jais", "trillion", "granite-docling"), "words"),
    **dict.fromkeys(("a.x-4.0", "gigachat", "mellum"), "words"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), "digits and words"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), LLAMA3_SPLIT),
    **dict.fromkeys(("smaug-bpe", "dbrx", "glm4", "chatglm-bpe"), LLAMA3_SPLIT),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "hunyuan", "solar-open", "f2llmv2"), QWEN2_SPLIT),
    "minicpm5": MINICPM5_SPLITS,
    "mellum2": "digits and words",
    "tekken": TEKKEN_SPLIT,
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie"), GPT4O_SPLIT),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), DEEPSEEK3_SPLITS),
    "deepseek-coder": DEEPSEEK_CODER_SPLITS,
    "seed-coder": SEED_CODER_SPLIT,
    "viking": (BLOOM_SPLIT, r"\p{N}"),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), BLOOM_SPLIT),
    "falcon": "punctuation and words",
}
# the same for files older than that key, and for folders without a `tokenizer.json`, by their architecture or `model_type`; GPT-NeoX's
# own tokenizer composes letters (NFC), as "mpt" does and "gpt-2" does not
PRE_TOKENIZERS_OF = {
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "opt"), "gpt-2"),
    **dict.fromkeys(("gptneox", "gpt_neox", "mpt"), "mpt"),
    **dict.fromkeys(("qwen2", "qwen2moe", "qwen2_moe", "qwen3", "qwen3moe", "qwen3_moe"), "qwen2"),
    "bloom": "bloom",
    "falcon": "falcon",
}
SAYS_NOTHING = (None, "", "default")  # the last: who made the file did not know
LLAMA3_TOKENS = 128_256  # Llama 3 is known by the size of its vocabulary


def unsaid(arch: str, num_tokens: int) -> str:
    """The one of a file that does not name it. Raises UnsupportedError where that would be a guess."""
    if arch == "llama" and num_tokens == LLAMA3_TOKENS:
        return "llama-bpe"
    if arch not in PRE_TOKENIZERS_OF:
        raise UnsupportedError(
            f"the file does not say how its tokenizer splits texts (`tokenizer.ggml.pre`), and files of `{arch}` differ in it",
            hint="it is older than May 2024, or who made it did not know; try another file of this model",
        )
    return PRE_TOKENIZERS_OF[arch]


def pre_tokenizer(pre: str, *, space_first: bool) -> Any:
    """What splits a text before its parts are merged. Raises UnsupportedError for a name that is not known."""
    from tokenizers import Regex, pre_tokenizers

    if pre not in PRE_TOKENIZERS:
        raise UnsupportedError(f"the pre-tokenizer `{pre}` is not one that nomoat knows", hint=f"known: {', '.join(PRE_TOKENIZERS)}")
    way = PRE_TOKENIZERS[pre]
    words = pre_tokenizers.ByteLevel(add_prefix_space=space_first, use_regex=True)
    if way == "words":
        return words
    if way == "digits and words":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if way == "punctuation and words":  # as Falcon's own: digits are looked for among bytes, of which some look like digits
        threes = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")
        steps = [pre_tokenizers.Punctuation("contiguous"), words, pre_tokenizers.Digits(individual_digits=False), threes]
        return pre_tokenizers.Sequence(steps)
    raw_bytes = pre_tokenizers.ByteLevel(add_prefix_space=space_first, use_regex=False)
    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in ([way] if isinstance(way, str) else way)]
    return pre_tokenizers.Sequence([*splits, raw_bytes])
