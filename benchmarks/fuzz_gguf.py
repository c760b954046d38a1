"""Damaged GGUF files through the whole import: each has to end in a clear error within a second, or in a model.

    python benchmarks/fuzz_gguf.py [--cases 20000] [--seed 1] [--first 0] [--json FILE]

Whole files of five small models are truncated, get bits flipped, sizes that lie, tensors that are moved, renamed, reshaped or
retyped, and metadata that is missing, of another type, out of range, or nonsense (vocabulary, merges, scores and template included).
What is a finding, and how cases are tried: `fuzzing.py`. Exit code 1 if there are findings.

Not covered: weights whose values are changed and stay numbers, which no reader can know; templates that compute for ever.
"""

from __future__ import annotations

import functools
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fuzzing
import gguf
import numpy as np
from fuzzing import Files, Fuzzer

NAME = "case.gguf"
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
    """What a GGUF file holds, to be changed and written. `tensors`: name -> (shape as stored, type, bytes)."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]]
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


def matrix(rows: int, columns: int, kind: gguf.GGMLQuantizationType, chance: np.random.Generator) -> tuple[Any, int, bytes]:
    weights = chance.normal(0, columns**-0.5, (rows, columns)).astype(np.float32)
    content = weights if kind == gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(weights, kind)
    return (columns, rows), int(kind), np.ascontiguousarray(content).tobytes()


@functools.cache
def whole_models() -> list[Model]:
    """Five small models: their architectures, types, tokenizers and position schemes between them cover the importer."""
    kinds = gguf.GGMLQuantizationType
    return [
        small_model("llama", [kinds.Q8_0, kinds.Q4_1], sentencepiece()),
        small_model("qwen2", [kinds.F16, kinds.Q5_0], bytelevel("qwen2")),
        small_model("gemma3", [kinds.F32, kinds.Q4_0], sentencepiece(), {"attention.sliding_window": 8, "attention.key_length": 16}),
        small_model("phi3", [kinds.BF16, kinds.Q5_1], sentencepiece(), {"rope.scaling.original_context_length": 32}),
        small_model("gpt2", [kinds.F32, kinds.Q8_0], bytelevel("gpt-2")),
    ]


def small_model(name: str, kinds: list[gguf.GGMLQuantizationType], words: dict[str, Any], more: dict[str, Any] | None = None) -> Model:
    """Two layers, 64 wide."""
    chance = np.random.default_rng(len(name))
    width, hidden, heads, layers = 64, 128, 4, 2
    sizes = {
        "block_count": layers, "context_length": 64, "embedding_length": width, "feed_forward_length": hidden,
        "attention.head_count": heads, "attention.head_count_kv": heads, "rope.freq_base": 10000.0, "rope.dimension_count": 16,
        "attention.layer_norm_rms_epsilon": 1e-5, "attention.layer_norm_epsilon": 1e-5, **(more or {}),
    }  # fmt: skip
    metadata = {"general.architecture": name, "general.alignment": 32, **{f"{name}.{key}": value for key, value in sizes.items()}}
    fused = name in ("phi3", "gpt2")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(words["tokenizer.ggml.tokens"]), width)}
    norms = ["attn_norm", "ffn_norm", *(["post_attention_norm", "post_ffw_norm"] if name == "gemma3" else [])]
    for layer in range(layers):
        block = f"blk.{layer}"
        shapes |= {f"{block}.{norm}.weight": (width,) for norm in norms}
        if name == "gemma3":
            shapes |= {f"{block}.attn_{part}_norm.weight": (16,) for part in "qk"}
        qkv = {"attn_qkv": (3 * width, width)} if fused else {f"attn_{part}": (width, width) for part in "qkv"}
        up = {"ffn_up": ((2 if name == "phi3" else 1) * hidden, width)}
        gate = {} if fused else {"ffn_gate": (hidden, width)}
        for part, size in (qkv | up | gate | {"attn_output": (width, width), "ffn_down": (width, hidden)}).items():
            shapes[f"{block}.{part}.weight"] = size
            if name in ("gpt2", "qwen2") and part not in ("ffn_gate",):
                shapes[f"{block}.{part}.bias"] = size[:1]
    shapes["output_norm.weight"] = (width,)
    if name == "gpt2":
        shapes["position_embd.weight"] = (64, width)
    if name == "phi3":
        shapes |= {f"rope_factors_{kind}.weight": (8,) for kind in ("long", "short")}
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {}
    for at, (tensor, shape) in enumerate(shapes.items()):
        if len(shape) == 1:
            tensors[tensor] = (shape, 0, np.ones(shape, np.float32).tobytes())
        else:
            tensors[tensor] = matrix(shape[0], shape[1], kinds[at % len(kinds)], chance)
    return Model(metadata | words, tensors)


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
    """(what was done, the file) of a case."""
    chance = random.Random(f"{seed}/{number}")
    source = chance.choice(whole_models())
    model = Model(dict(source.metadata), dict(source.tensors))
    kind = chance.choice(list(DAMAGES))
    try:
        return kind, {NAME: DAMAGES[kind](model, chance)}
    except (struct.error, OverflowError):  # a value that no GGUF can hold
        return "bits", {NAME: flip(model, chance)}


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
    name = model.metadata["general.architecture"]
    keys = [key for key in model.metadata if key.startswith(f"{name}.")]
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
    model=NAME,
    whole=lambda: {NAME: whole_models()[0].write()},
    damaged=damaged,
)

if __name__ == "__main__":
    sys.exit(fuzzing.main(GGUF))
