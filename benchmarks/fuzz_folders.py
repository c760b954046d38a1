"""Damaged Hugging Face folders through the whole import: each has to end in a clear error within a second, or in a model.

    python benchmarks/fuzz_folders.py [--cases 6000] [--seed 1] [--first 0] [--json FILE]

Whole folders of six small models (weights in one file and in several, each kind of tokenizer) get files truncated, lost, emptied or
swapped, and bits flipped; headers of safetensors with lengths, offsets, shapes, types and names that lie; and values of every JSON
file (config, index, tokenizer, its settings) that are missing, of another type, out of range, nested ten thousand times, or nonsense;
vocabularies lose tokens, and merges make what is none.
What is a finding, and how cases are tried: `fuzzing.py`. Exit code 1 if there are findings.

Not covered: weights whose values are changed and stay numbers; templates and patterns that compute for ever; what optimum-intel
converts.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import struct
import sys
from collections.abc import Callable
from typing import Any

import fuzzing
import numpy as np
from fuzz_gguf import EXTREMES, NONSENSE, TEMPLATES, bytelevel, sentencepiece
from fuzzing import Files, Fuzzer

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT = 64, 128, 4, 2, 64
NESTED = "nested"  # written as ten thousand lists in each other
ODD: tuple[Any, ...] = (
    *NONSENSE,
    *EXTREMES,
    {},
    {"a": 1},
    {"content": None},
    None,
    NESTED,
    10**400,
    -(2**63),
    "\ud800",
    "../../x",
    "model.safetensors",
)
TYPES = ("F64", "F32", "F16", "BF16", "I64", "I8", "F8_E4M3", "U8", "BOOL", "", "f32", 7, None)
Tensors = dict[str, np.ndarray]


# ---------------------------------------------------------------- folders
def json_bytes(value: object) -> bytes:
    """As a file holds it; what JSON cannot hold, as Python writes it."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace(f'"{NESTED}"', "[" * 10_000 + "]" * 10_000).encode()


def safetensors(tensors: Tensors, dtype: str) -> bytes:
    """A file of weights. Matrices are of the type given, vectors of F32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, values in tensors.items():
        kind = dtype if values.ndim > 1 else "F32"
        content = in_type(values, kind)
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    return pack(json_bytes(header), bytes(data))


def pack(header: bytes, data: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def in_type(values: np.ndarray, kind: str) -> bytes:
    if kind == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F16": np.float16, "F32": np.float32, "F64": np.float64}[kind]).tobytes()


def matrices(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    chance = np.random.default_rng(len(shapes))
    return {name: chance.normal(0, 0.1, shape) if len(shape) > 1 else np.ones(shape) for name, shape in shapes.items()}


def llama_like(words: int, **more: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes as Llama has them; `more`: vectors of each layer."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        shapes |= {f"{block}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        shapes |= {f"{block}.mlp.{part}_proj.weight": (HIDDEN, WIDTH) for part in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (WIDTH, HIDDEN)
        shapes |= {f"{block}.{norm}_layernorm.weight": (WIDTH,) for norm in ("input", "post_attention")}
        shapes |= {f"{block}.{name}": shape for name, shape in more.items()}
    return shapes


def config(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "model_type": kind, "architectures": ["X"], "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip


def tokenizer_json() -> Files:
    """Byte-level BPE, as `tokenizers` writes it, and settings with a template."""
    from nomoat.engine import gguf_tokenizer

    facts = bytelevel("qwen2")
    backend = gguf_tokenizer.from_metadata(facts).backend
    settings = {
        "chat_template": facts["tokenizer.chat_template"], "eos_token": "<|endoftext|>", "bos_token": {"content": "<|im_end|>"},
        "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}}, "model_max_length": CONTEXT,
    }  # fmt: skip
    return {"tokenizer.json": backend.to_str().encode(), "tokenizer_config.json": json_bytes(settings)}


def vocab_and_merges() -> Files:
    facts = bytelevel("gpt-2")
    vocabulary = {token: at for at, token in enumerate(facts["tokenizer.ggml.tokens"])}
    merges = "\n".join(["#version: 0.2", *facts["tokenizer.ggml.merges"]])
    settings = {"eos_token": "<|endoftext|>", "added_tokens_decoder": {str(len(vocabulary)): {"content": "<new>", "special": False}}}
    return {
        "vocab.json": json_bytes(vocabulary), "merges.txt": merges.encode(), "tokenizer_config.json": json_bytes(settings),
        "added_tokens.json": json_bytes({"<new>": len(vocabulary)}),
    }  # fmt: skip


def sentencepiece_model() -> Files:
    """The protobuf of a BPE vocabulary."""

    def field(number: int, wire: int, content: bytes) -> bytes:
        return bytes([number * 8 + wire]) + content

    def message(number: int, content: bytes) -> bytes:
        size = bytes([len(content)]) if len(content) < 128 else bytes([len(content) % 128 + 128, len(content) // 128])
        return field(number, 2, size + content)

    facts = {key.removeprefix("tokenizer.ggml."): value for key, value in sentencepiece().items()}
    pieces = b"".join(
        message(1, message(1, token.encode()) + field(2, 5, struct.pack("<f", score)) + field(3, 0, bytes([kind])))
        for token, score, kind in zip(facts["tokens"], facts["scores"], facts["token_type"], strict=True)
    )
    settings = {"add_bos_token": True, "chat_template": [{"name": "default", "template": "{{ messages[0]['content'] }}"}]}
    content = pieces + message(2, field(3, 0, b"\x02")) + message(3, field(3, 0, b"\x01") + field(4, 0, b"\x00"))
    return {"tokenizer.model": content, "tokenizer_config.json": json_bytes(settings)}


@functools.cache
def whole_folders() -> list[Files]:
    """Six small models: their families, types, tokenizers and position schemes between them cover the readers."""
    words = len(bytelevel("qwen2")["tokenizer.ggml.tokens"]) + 1
    pieces = len(sentencepiece()["tokenizer.ggml.tokens"])
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 32}  # fmt: skip
    llama = config("llama", rope_scaling=scaling, tie_word_embeddings=False)
    gemma = config("gemma3_text", head_dim=16, sliding_window=8, layer_types=["sliding_attention"] * 5 + ["full_attention"],
                   hidden_activation="gelu_pytorch_tanh", query_pre_attn_scalar=16, rope_local_base_freq=10000.0)  # fmt: skip
    factors = [1.0] * (WIDTH // HEADS // 2)
    phi = config("phi3", rope_scaling={"type": "longrope", "short_factor": factors, "long_factor": factors}, sliding_window=None,
                 original_max_position_embeddings=32)  # fmt: skip
    norms = {f"{name}.weight": (WIDTH,) for name in ("pre_feedforward_layernorm", "post_feedforward_layernorm")}
    norms |= {f"self_attn.{part}_norm.weight": (16,) for part in "qk"}
    shards = in_shards(matrices({**llama_like(words), "lm_head.weight": (words, WIDTH)}))
    return [
        {"config.json": json_bytes(llama), **shards, **tokenizer_json()},
        folder(gemma, llama_like(pieces, **norms), "BF16", sentencepiece_model()),
        folder(phi, phi_shapes(words), "F16", tokenizer_json()),
        folder(config("gpt_neox", use_parallel_residual=True, rotary_pct=0.5, hidden_act="gelu", layer_norm_eps=1e-5),
               neox_shapes(words), "F32", tokenizer_json()),
        folder(config("gpt2", activation_function="gelu_new", layer_norm_epsilon=1e-5), gpt2_shapes(words), "F32", vocab_and_merges()),
        folder(config("opt", ffn_dim=HIDDEN, word_embed_proj_dim=WIDTH, activation_function="relu"),
               opt_shapes(words), "F16", vocab_and_merges()),
    ]  # fmt: skip


def folder(facts: dict[str, Any], shapes: dict[str, tuple[int, ...]], dtype: str, words: Files) -> Files:
    return {"config.json": json_bytes(facts), "model.safetensors": safetensors(matrices(shapes), dtype), **words}


def in_shards(tensors: Tensors) -> Files:
    """Two files of weights and their index."""
    names = list(tensors)
    halves = {f"model-0000{at + 1}-of-00002.safetensors": names[at::2] for at in range(2)}
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    files = {file: safetensors({name: tensors[name] for name in half}, "F16") for file, half in halves.items()}
    return {**files, "model.safetensors.index.json": json_bytes(index)}


def phi_shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes = {name: shape for name, shape in llama_like(words).items() if "q_proj" not in name and "k_proj" not in name}
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        del shapes[f"{block}.self_attn.v_proj.weight"], shapes[f"{block}.mlp.gate_proj.weight"], shapes[f"{block}.mlp.up_proj.weight"]
        shapes |= {f"{block}.self_attn.qkv_proj.weight": (3 * WIDTH, WIDTH), f"{block}.mlp.gate_up_proj.weight": (2 * HIDDEN, WIDTH)}
    return shapes


def neox_shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"gpt_neox.final_layer_norm.{part}": (WIDTH,) for part in ("weight", "bias")}
    shapes["gpt_neox.embed_in.weight"] = (words, WIDTH)
    for layer in range(LAYERS):
        block = f"gpt_neox.layers.{layer}"
        for part, rows, columns in (
            ("attention.query_key_value", 3 * WIDTH, WIDTH), ("attention.dense", WIDTH, WIDTH),
            ("mlp.dense_h_to_4h", HIDDEN, WIDTH), ("mlp.dense_4h_to_h", WIDTH, HIDDEN),
        ):  # fmt: skip
            shapes |= {f"{block}.{part}.weight": (rows, columns), f"{block}.{part}.bias": (rows,)}
        norms = ("input_layernorm", "post_attention_layernorm")
        shapes |= {f"{block}.{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")}
        shapes[f"{block}.attention.bias"] = (1, 1, CONTEXT, CONTEXT)  # no weight: a mask, as old checkpoints keep
    return shapes


def gpt2_shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (words, WIDTH), "wpe.weight": (CONTEXT, WIDTH)}
    shapes |= {f"ln_f.{part}": (WIDTH,) for part in ("weight", "bias")}
    for layer in range(LAYERS):
        for part, rows, columns in (
            ("attn.c_attn", 3 * WIDTH, WIDTH), ("attn.c_proj", WIDTH, WIDTH), ("mlp.c_fc", HIDDEN, WIDTH),
            ("mlp.c_proj", WIDTH, HIDDEN),
        ):  # fmt: skip
            shapes |= {f"h.{layer}.{part}.weight": (columns, rows), f"h.{layer}.{part}.bias": (rows,)}
        shapes |= {f"h.{layer}.{norm}.{part}": (WIDTH,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return shapes


def opt_shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"model.decoder.final_layer_norm.{part}": (WIDTH,) for part in ("weight", "bias")}
    shapes |= {"model.decoder.embed_tokens.weight": (words, WIDTH), "model.decoder.embed_positions.weight": (CONTEXT + 2, WIDTH)}
    for layer in range(LAYERS):
        block = f"model.decoder.layers.{layer}"
        attention = [(f"self_attn.{part}", WIDTH, WIDTH) for part in ("q_proj", "k_proj", "v_proj", "out_proj")]
        for part, rows, columns in (*attention, ("fc1", HIDDEN, WIDTH), ("fc2", WIDTH, HIDDEN)):
            shapes |= {f"{block}.{part}.weight": (rows, columns), f"{block}.{part}.bias": (rows,)}
        norms = ("self_attn_layer_norm", "final_layer_norm")
        shapes |= {f"{block}.{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")}
    return shapes


# ---------------------------------------------------------------- damage
def damaged(number: int, seed: int) -> tuple[str, Files]:
    """(what was done, the files) of a case."""
    chance = random.Random(f"{seed}/{number}")
    files = dict(chance.choice(whole_folders()))
    kind = chance.choice(list(DAMAGES))
    DAMAGES[kind](files, chance)
    return kind, files


def one_of(files: Files, chance: random.Random, *endings: str) -> str:
    return chance.choice([name for name in files if name.endswith(endings)] or list(files))


def truncate(files: Files, chance: random.Random) -> None:
    name = one_of(files, chance)
    reach = len(files[name]) if chance.random() < 0.5 else min(len(files[name]), 4000)
    files[name] = files[name][: chance.randrange(reach + 1)]


def flip(files: Files, chance: random.Random) -> None:
    name = one_of(files, chance)
    content = bytearray(files[name])
    reach = len(content) if chance.random() < 0.3 else min(len(content), 4000)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        content[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    files[name] = bytes(content)


def mix_up(files: Files, chance: random.Random) -> None:
    """Files that are missing, empty, another's, twice there, or no JSON."""
    name, other = one_of(files, chance), one_of(files, chance)
    action = chance.randrange(6)
    if action == 0:
        del files[name]
    elif action == 1:
        files[name] = b""
    elif action == 2:
        files[name], files[other] = files[other], files[name]
    elif action == 3:
        files[name] += files[name]
    elif action == 4:
        files[name] = chance.choice(
            (b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000, b"{}" + bytes(9))
        )
    else:
        more = (
            "chat_template.jinja",
            "tokenizer.model",
            "generation_config.json",
            "model.safetensors.index.json",
            "added_tokens.json",
        )
        files[chance.choice(more)] = chance.choice((*[text.encode() for text in TEMPLATES], b"{}", b"\xff", files[name]))


def spoil(value: Any, chance: random.Random) -> Any:
    """A JSON value with something in it replaced, taken out or put in. Looks for a place from the top."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return chance.choice(ODD)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = chance.choice(keys)
    action = chance.randrange(8)
    if action == 0:
        del value[key]
    elif action == 1 and isinstance(value, dict):
        value[chance.choice(("", "x", "a" * 300, *list(value)))] = value.pop(key)
    elif action == 1 and isinstance(value, list):
        value += value[key : key + 40]
    elif action == 2 and isinstance(value[key], int | float) and not isinstance(value[key], bool):
        was = value[key]
        value[key] = chance.choice(
            (0, 1, 2, 3, 5, 17, 63, 65, 1000, 10**6, 2**31, was * 2, was / 2, was + 1, was - 1, -was, float(was))
        )
    else:
        value[key] = spoil(value[key], chance)
    return value


def spoil_json(files: Files, chance: random.Random) -> None:
    """Values of any JSON file."""
    spoil_in(files, one_of(files, chance, ".json"), chance)


def spoil_config(files: Files, chance: random.Random) -> None:
    spoil_in(files, "config.json", chance)


def spoil_words(files: Files, chance: random.Random) -> None:
    """A vocabulary and its merges that do not fit together; of SentencePiece, bytes of its pieces."""
    if "tokenizer.model" in files:
        content = bytearray(files["tokenizer.model"])
        for _ in range(chance.choice((1, 2, 8))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        files["tokenizer.model"] = bytes(content)
    elif "tokenizer.json" in files:
        value = json.loads(files["tokenizer.json"])
        spoil_vocabulary(value["model"]["vocab"], value["model"]["merges"], chance)
        if chance.random() < 0.3:
            added = value["added_tokens"]
            added.append(
                {**chance.choice(added), "content": chance.choice(("<new>", "h", "")), "id": chance.choice((0, 5, 10**6, 2**31))}
            )
        files["tokenizer.json"] = json_bytes(value)
    else:
        vocabulary, merges = json.loads(files["vocab.json"]), [line.split(" ") for line in files["merges.txt"].decode().splitlines()]
        spoil_vocabulary(vocabulary, merges, chance)
        files["vocab.json"], files["merges.txt"] = json_bytes(vocabulary), "\n".join(map(" ".join, merges)).encode()


def spoil_vocabulary(vocabulary: dict[str, int], merges: list[list[str]], chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 3))):
        action, merge = chance.randrange(6), chance.choice(merges)
        token = chance.choice(("".join(merge), merge[0], merge[-1], *vocabulary))
        if action == 0:
            vocabulary.pop(token, None)
        elif action == 1:
            vocabulary[chance.choice(("", "x" * 3000, "가", " "))] = vocabulary.pop(token, 7)
        elif action == 2:
            vocabulary[token] = chance.choice((0, 1, len(vocabulary), 10**6, 2**31, *vocabulary.values()))
        elif action == 3:
            merges.remove(merge)
            merges.append(["h", "h"])
        elif action == 4:
            merges.append(chance.choice((["h", "q"], ["", ""], ["h"], ["h", "e", "l"], ["zz", "h"], merge)))
        else:
            chance.shuffle(merges)


def spoil_in(files: Files, name: str, chance: random.Random) -> None:
    value = json.loads(files[name])
    for _ in range(chance.choice((1, 1, 2, 3))):
        value = spoil(copy.deepcopy(value), chance)
    files[name] = json_bytes(value)


def spoil_header(files: Files, chance: random.Random) -> None:
    """What a file of weights says of its tensors, or how long it says that is."""
    name = one_of(files, chance, ".safetensors")
    size = int.from_bytes(files[name][:8], "little")
    header, data = json.loads(files[name][8 : 8 + size]), files[name][8 + size :]
    if chance.random() < 0.15:
        claimed = chance.choice((*EXTREMES, size + 1, size - 1, size * 2, len(files[name]), len(files[name]) - 8))
        files[name] = struct.pack("<Q", claimed) + files[name][8:]
        return
    for _ in range(chance.choice((1, 1, 2, 3))):
        tensor = chance.choice(list(header))
        spoil_tensor(header, tensor, len(data), chance)
        if not header:
            break
    files[name] = pack(json_bytes(header), data)


def spoil_tensor(header: dict[str, Any], tensor: str, size: int, chance: random.Random) -> None:
    facts, other = header[tensor], chance.choice(list(header))
    action = chance.randrange(9)
    if action == 0:
        del header[tensor]
    elif action == 1:
        odd = (
            "", "x", "lm_head.weight", "model.layers.9.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias", "a" * 300,
            "model.layers.0.weight", "model.decoder.layers.0.weight",
        )  # fmt: skip
        header[chance.choice(odd)] = header.pop(tensor)
    elif action == 2:
        header[tensor], header[other] = header[other], facts
    elif action == 3 or not isinstance(facts, dict) or not isinstance(facts.get("shape"), list):
        header[tensor] = spoil(copy.deepcopy(facts), chance)
    elif action == 4:
        facts["dtype"] = chance.choice(TYPES)
    elif action == 5:
        facts["shape"] = chance.choice((facts["shape"][::-1], [*facts["shape"], 1], [], [0], [-1], [2**63, 2**63], [2**40, 0]))
    elif action == 6:
        facts["shape"] = [chance.choice((0, 1, -1, 1.5, True, 2**33, "3", part, 2 * part)) for part in facts["shape"]]
    elif action == 7:
        facts["data_offsets"] = [
            chance.choice((0, 1, -1, size, size + 1, 2**62, 1.5, None)) for _ in range(chance.choice((1, 2, 2, 2, 3)))
        ]
    else:
        begin, end = chance.choice(((4, 4), (1, 1), (-4, -4), (0, 4), (4, 0)))
        was = facts.get("data_offsets")  # perhaps damaged before
        if isinstance(was, list) and len(was) == 2 and all(isinstance(value, int | float) for value in was):
            facts["data_offsets"] = [was[0] + begin, was[1] + end]
        else:
            facts["data_offsets"] = None


DAMAGES: dict[str, Callable[[Files, random.Random], None]] = {
    "truncated": truncate,
    "bits": flip,
    "files": mix_up,
    "config": spoil_config,
    "JSON": spoil_json,
    "header": spoil_header,
    "words": spoil_words,
}
FOLDERS = Fuzzer(
    script=__file__, description=__doc__ or "", cases=6000, model=lambda folder: folder, whole=whole_folders, damaged=damaged
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(fuzzing.main(FOLDERS))
