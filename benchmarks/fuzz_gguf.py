"""Damaged GGUF files through the whole import: each has to end in a clear error within a second, or in a model.

    python benchmarks/fuzz_gguf.py [--cases 20000] [--seed 1] [--first 0] [--json FILE]

Whole files of small models (every type that nomoat's own passes multiply by, mixtures of experts, one model in two files) are
truncated, get bits flipped, sizes that lie, tensors that are moved, renamed, reshaped or retyped, and metadata that is missing, of
another type, out of range, or nonsense (vocabulary, merges, scores and template included).
What is a finding, and how cases are tried: `fuzzing.py`. Exit code 1 if there are findings.

Not covered: weights whose values are changed and stay numbers, which no reader can know; templates that compute for ever.
"""

from __future__ import annotations

import functools
import math
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import fuzzing
import gguf
import numpy as np
from fuzzing import Files, Fuzzer

LAYERS, HEADS, CONTEXT = 2, 4, 64
NORMS = {  # of a layer, where they are not the usual two
    "gemma3": ("attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"), "gpt-oss": ("attn_norm", "post_attention_norm"),
}  # fmt: skip
FUSED, BIASED = ("phi3", "gpt2"), ("gpt2", "qwen2", "gpt-oss")
Stored = tuple[tuple[int, ...], int, bytes]  # of a tensor: shape, innermost first; type; content
EXTREMES = (0, 1, 2, 31, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
NONSENSE: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 2**31, 2**32 - 1, 2**63, 0.0, -1.5, 1e-30, 1e30, float("nan"), float("inf"), True, False, "", "llama",
    "\x00", "가" * 50, [], [0], [1.5], ["a"], [[]], ["", ""], [-1, 2**31], "x" * 5000,
)  # fmt: skip
TEMPLATES = ("{{", "{% for m in messages %}", "{{ messages[9].content }}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}", "{{ x.y.z }}",
             "{{ 'a' * 10**10 }}", "{% include 'x' %}", "{{ messages | tojson }}", "{{ messages | sort }}")  # fmt: skip


# ---------------------------------------------------------------- files
@dataclass
class Model:
    """What a GGUF file holds, to be changed and written. `beside`: the whole files of a model that is in several."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]
    name: str = "case.gguf"
    beside: Files = field(default_factory=dict)
    spots: list[tuple[int, str]] = field(default_factory=list)  # where sizes and counts stand in what was written

    def write(self) -> bytes:
        """The file's bytes."""
        self.spots = [(8, "Q"), (16, "Q")]
        out = bytearray(struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.metadata)))
        for key, value in self.metadata.items():
            self._text(out, key)
            self._value(out, value)
        data = bytearray()
        for name, (shape, kind, content) in self.tensors.items():
            self._text(out, name)
            self._mark(out, "I", len(shape))
            for size in shape:
                self._mark(out, "Q", size)
            self._mark(out, "I", kind)
            self._mark(out, "Q", len(data))
            data += content + bytes(-len(content) % 32)
        return bytes(out + bytes(-len(out) % 32) + data)

    def _mark(self, out: bytearray, code: str, value: int) -> None:
        self.spots.append((len(out), code))
        out += struct.pack("<" + code, value)

    def _text(self, out: bytearray, text: str) -> None:
        content = text.encode("utf-8", "surrogateescape")
        self._mark(out, "Q", len(content))
        out += content

    def _value(self, out: bytearray, value: Any) -> None:
        kind, code = kind_of(value)
        self._mark(out, "I", kind)
        if isinstance(value, list):
            item_kind = kind_of(value[0])[0] if value else 4
            self._mark(out, "I", item_kind)
            self._mark(out, "Q", len(value))
            for item in value:
                self._item(out, item, item_kind)
        elif isinstance(value, str):
            self._text(out, value)
        else:
            out += struct.pack("<" + code, value)

    def _item(self, out: bytearray, item: Any, kind: int) -> None:
        if kind == 8:
            self._text(out, str(item))
        elif kind == 9:
            out += struct.pack("<IQ", 4, 0)
        elif kind == 6:
            out += struct.pack("<f", item)
        else:
            out += struct.pack("<Q" if kind == 10 else "<i", item % 2**64 if kind == 10 else max(-(2**31), min(item, 2**31 - 1)))


def kind_of(value: Any) -> tuple[int, str]:
    """GGUF's number for a value's kind, and `struct`'s letter."""
    if isinstance(value, bool):
        return 7, "?"
    if isinstance(value, int):
        return (4, "I") if 0 <= value < 2**32 else (5, "i") if -(2**31) <= value < 0 else (10, "Q")
    if isinstance(value, float):
        return 6, "f"
    return (8, "") if isinstance(value, str) else (9, "")


def matrix(shape: tuple[int, ...], kind: gguf.GGMLQuantizationType, chance: np.random.Generator) -> Stored:
    """Random weights of a type. Of types that `gguf` only reads, random blocks whose numbers are of plausible size."""
    *rows, columns = shape
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    try:
        content = gguf.quants.quantize(chance.normal(0, columns**-0.5, (math.prod(rows), columns)).astype(np.float32), kind)
    except NotImplementedError:
        blocks = chance.integers(0, 256, (4000, block_bytes), np.uint8)
        with np.errstate(all="ignore"):
            largest = np.abs(gguf.quants.dequantize(blocks, kind)).max(1)
        usable = blocks[(largest > 0.01) & (largest < 10)]
        content = usable[chance.integers(0, len(usable), math.prod(shape) // block)]
    return shape[::-1], int(kind), np.ascontiguousarray(content).tobytes()


@functools.cache
def whole_models() -> list[Model]:
    """Small models: their architectures, types, tokenizers and position schemes between them cover the importer and our passes."""
    kinds = gguf.GGMLQuantizationType
    return [
        small_model("llama", [kinds.Q8_0, kinds.Q4_1], sentencepiece()),
        small_model("qwen2", [kinds.F16, kinds.Q5_0], bytelevel("qwen2")),
        small_model("gemma3", [kinds.F32, kinds.Q4_0], sentencepiece(), {"attention.sliding_window": 8, "attention.key_length": 16}),
        small_model("phi3", [kinds.BF16, kinds.Q5_1], sentencepiece(), {"rope.scaling.original_context_length": 32}),
        small_model("gpt2", [kinds.F32, kinds.Q8_0], bytelevel("gpt-2")),
        small_model("qwen3", [kinds.Q2_K, kinds.Q3_K, kinds.Q5_K], bytelevel("qwen2"), width=256),
        small_model("llama", [kinds.IQ2_XXS, kinds.IQ2_XS, kinds.IQ2_S, kinds.IQ3_XXS, kinds.IQ3_S, kinds.IQ4_XS, kinds.IQ4_NL],
                    sentencepiece(), width=256),
        small_model("qwen3moe", [kinds.Q4_0, kinds.Q8_0], bytelevel("qwen2"), experts=6),
        small_model("gpt-oss", [kinds.MXFP4, kinds.Q8_0], bytelevel("gpt-4o"), {"attention.sliding_window": 8}, experts=4),
        *in_two(small_model("llama", [kinds.Q4_K, kinds.Q6_K], sentencepiece(), width=256)),
        small_model("llama", [kinds.Q4_K, kinds.Q6_K], bytelevel("smollm"), width=512),
    ]  # fmt: skip


def small_model(
    name: str, kinds: list[gguf.GGMLQuantizationType], words: dict[str, Any], more: dict[str, Any] | None = None, *,
    width: int = 64, experts: int = 0,
) -> Model:  # fmt: skip
    """Two layers of four heads; of so many experts, two are chosen."""
    chance = np.random.default_rng(len(name))
    sizes = {
        "block_count": LAYERS, "context_length": CONTEXT, "embedding_length": width, "feed_forward_length": 2 * width,
        "attention.head_count": HEADS, "attention.head_count_kv": HEADS, "rope.freq_base": 10000.0,
        "rope.dimension_count": width // HEADS, "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5,
        **(more or {}),
    }  # fmt: skip
    if experts:
        sizes |= {"expert_count": experts, "expert_used_count": 2, "expert_feed_forward_length": 2 * width}
    metadata = {"general.architecture": name, "general.alignment": 32, **{f"{name}.{key}": value for key, value in sizes.items()}}
    tensors: dict[str, Stored] = {}
    for at, (tensor, shape) in enumerate(shapes_of(name, len(words["tokenizer.ggml.tokens"]), width, experts).items()):
        if len(shape) == 1:
            tensors[tensor] = (shape, 0, np.ones(shape, np.float32).tobytes())
        else:
            is_exact = tensor.endswith((".bias", "ffn_gate_inp.weight"))
            tensors[tensor] = matrix(shape, gguf.GGMLQuantizationType.F32 if is_exact else kinds[at % len(kinds)], chance)
    return Model(metadata | words, tensors)


def shapes_of(name: str, vocabulary: int, width: int, experts: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's tensors."""
    head, hidden = width // HEADS, 2 * width
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, width), "output_norm.weight": (width,)}
    one: dict[str, tuple[int, ...]] = dict.fromkeys(NORMS.get(name, ("attn_norm", "ffn_norm")), (width,))
    one |= {f"attn_{part}_norm": (head,) for part in "qk" if name in ("gemma3", "qwen3", "qwen3moe")}
    one |= {"attn_qkv": (3 * width, width)} if name in FUSED else {f"attn_{part}": (width, width) for part in "qkv"}
    one["attn_output"] = (width, width)
    if experts:
        one |= {"ffn_gate_inp": (experts, width), "ffn_down_exps": (experts, width, hidden)}
        one |= {f"ffn_{part}_exps": (experts, hidden, width) for part in ("gate", "up")}
    else:
        one |= {"ffn_up": ((2 if name == "phi3" else 1) * hidden, width), "ffn_down": (width, hidden)}
        one |= {} if name in FUSED else {"ffn_gate": (hidden, width)}
    one |= {"attn_sinks": (HEADS,)} if name == "gpt-oss" else {}
    for layer in range(LAYERS):
        for part, shape in one.items():
            shapes[f"blk.{layer}.{part}.weight"] = shape
            if name in BIASED and len(shape) > 1 and part != "ffn_gate":
                shapes[f"blk.{layer}.{part}.bias"] = shape[:-1]
    shapes |= {"position_embd.weight": (CONTEXT, width)} if name == "gpt2" else {}
    return shapes | ({f"rope_factors_{kind}.weight": (head // 2,) for kind in ("long", "short")} if name == "phi3" else {})


def in_two(model: Model) -> list[Model]:
    """The same in two files, either of which may be damaged: all metadata in the first part, tensors by turns."""
    names = [f"case-0000{number}-of-00002.gguf" for number in (1, 2)]
    parts = []
    for at, metadata in enumerate((model.metadata, {})):
        split = {"split.no": at, "split.count": 2, "split.tensors.count": len(model.tensors)}
        parts.append(Model(metadata | split, dict(list(model.tensors.items())[at::2]), name=names[at]))
    first, second = parts
    first.beside, second.beside = {second.name: second.write()}, {first.name: first.write()}
    return parts


def sentencepiece() -> dict[str, Any]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["▁", *letters, "he", "ll", "hell", "hello", "▁hello"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 259)]
    return {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [-float(at) for at in range(len(tokens))], "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.add_space_prefix": True,
    }  # fmt: skip


def bytelevel(pre: str) -> dict[str, Any]:
    from tokenizers.pre_tokenizers import ByteLevel

    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"]
    tokens = ["<|endoftext|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in merges)]
    return {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(tokens) - 2)], "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
    }  # fmt: skip


# ---------------------------------------------------------------- damage
def damaged(number: int, seed: int) -> tuple[str, Files]:
    """(what was done, the files) of a case."""
    chance = random.Random(f"{seed}/{number}")
    source = chance.choice(whole_models())
    model = replace(source, metadata=dict(source.metadata), tensors=dict(source.tensors))
    kind = chance.choice(list(DAMAGES))
    try:
        content = DAMAGES[kind](model, chance)
    except (struct.error, OverflowError):  # a value that no GGUF can hold
        kind, content = "bits", flip(model, chance)
    return kind, {model.name: content, **model.beside}


def truncate(model: Model, chance: random.Random) -> bytes:
    content = model.write()
    return content[: chance.randrange(len(content)) if chance.random() < 0.5 else chance.randrange(min(len(content), 6000))]


def flip(model: Model, chance: random.Random) -> bytes:
    content = bytearray(model.write())
    reach = len(content) if chance.random() < 0.3 else min(len(content), model.spots[-1][0] + 8)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        content[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(content)


def lie(model: Model, chance: random.Random) -> bytes:
    content = bytearray(model.write())
    for _ in range(chance.choice((1, 1, 2))):
        at, code = chance.choice(model.spots)
        size = struct.calcsize(code)
        (was,) = struct.unpack_from("<" + code, content, at)
        value = chance.choice((*EXTREMES, was + 1, was - 1, was * 2, was // 2, len(content), len(content) - at))
        struct.pack_into("<" + code, content, at, value % 256**size)
    return bytes(content)


def spoil_metadata(model: Model, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 3))):
        key = chance.choice(list(model.metadata))
        if chance.random() < 0.2:
            del model.metadata[key]
        elif chance.random() < 0.1:
            model.metadata["x" * chance.randrange(300)] = model.metadata.pop(key)
        else:
            model.metadata[key] = chance.choice(NONSENSE)
        if not model.metadata:
            break
    return model.write()


def spoil_words(model: Model, chance: random.Random) -> bytes:
    names = [key for key, value in model.metadata.items() if key.startswith("tokenizer.ggml.") and isinstance(value, list)]
    if not names:  # the second of two files
        return spoil_metadata(model, chance)
    for _ in range(chance.choice((1, 2, 3))):
        name = chance.choice(names)
        values = list(model.metadata[name])
        at = chance.randrange(len(values)) if values else 0
        action = chance.randrange(6)
        if action == 0:
            values = values[:at]
        elif action == 1:
            values += values[at : at + chance.randrange(1, 40)]
        elif action == 2:
            chance.shuffle(values)
        elif action == 3 and values and isinstance(values[0], str):
            values[at] = chance.choice(("", " ", "a b c", "\udcff", "가", "x" * 3000))  # \udcff is written as a byte that is no text
        elif action == 4 and values and not isinstance(values[0], str):
            values[at] = chance.choice((-1, 0, 99, 2**31 - 1) if isinstance(values[0], int) else (float("nan"), 1e30, -1e30))
        else:
            model.metadata["tokenizer.chat_template"] = chance.choice(TEMPLATES)
        model.metadata[name] = values
    for key in ("bos_token_id", "eos_token_id"):
        if chance.random() < 0.2:
            model.metadata[f"tokenizer.ggml.{key}"] = chance.choice(EXTREMES)
    return model.write()


def spoil_sizes(model: Model, chance: random.Random) -> bytes:
    """Hyper-parameters that are plausible numbers and are not this file's."""
    keys = [key for key in model.metadata if not key.startswith(("general.", "tokenizer."))]
    for _ in range(chance.choice((1, 1, 2))):
        key = chance.choice(keys)
        was = model.metadata[key]
        plausible = (0, 1, 2, 3, 5, 8, 17, 63, 65, 128, 1000, 10**6, 2**31, was * 2, was / 2, -was, float(was))
        model.metadata[key] = chance.choice(plausible)
    return model.write()


def spoil_tensors(model: Model, chance: random.Random) -> bytes:
    names = list(model.tensors)
    for _ in range(chance.choice((1, 1, 2, 3))):
        name = chance.choice(names)
        if name not in model.tensors:
            continue
        shape, kind, content = model.tensors[name]
        action = chance.randrange(7)
        if action == 0:
            del model.tensors[name]
        elif action == 1:
            to = chance.choice(("", "x", "output.weight", "rope_freqs.weight", "blk.0.attn_q.bias", "a" * 300))
            model.tensors[to] = model.tensors.pop(name)
        elif action == 2:
            model.tensors[name] = (shape[::-1], kind, content)
        elif action == 3:
            model.tensors[name] = (shape, chance.randrange(45), content)
        elif action == 4:
            model.tensors[name] = (tuple(chance.choice((0, 1, 32, size, size * 2, 2**33)) for size in shape), kind, content)
        elif action == 5:
            model.tensors[name] = ((*shape, *[1] * chance.randrange(4)), kind, content)
        elif (other := chance.choice(names)) in model.tensors:
            model.tensors[name], model.tensors[other] = model.tensors[other], model.tensors[name]
    return model.write()


DAMAGES: dict[str, Callable[[Model, random.Random], bytes]] = {
    "truncated": truncate,
    "bits": flip,
    "lying sizes": lie,
    "metadata": spoil_metadata,
    "vocabulary": spoil_words,
    "hyper-parameters": spoil_sizes,
    "tensors": spoil_tensors,
}


GGUF = Fuzzer(
    script=__file__,
    description=__doc__ or "",
    cases=20000,
    model=lambda folder: min(folder.iterdir()),
    whole=lambda: [{model.name: model.write(), **model.beside} for model in whole_models()],
    damaged=damaged,
)

if __name__ == "__main__":
    sys.exit(fuzzing.main(GGUF))
