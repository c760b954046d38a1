"""What serving many requests takes: a shared beginning, many at once, schemas, and adapters beside the weights against baked ones.

    python benchmarks/serving.py FILE.gguf [--json OUT.json]

Every number is of the engine itself, without HTTP. Adapters are random ones of rank 16 on all seven projections of each layer.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from safetensors.numpy import save_file

from nomoat.engine import Engine, importer
from nomoat.engine.openvino import OpenVINOEngine
from nomoat.records import Message, Request
from nomoat.responder import Responder

ROOT = Path(__file__).parents[1]
PREFIX_TOKENS, NEW_TOKENS, RANK = 2000, 64, 16
STORY = Request(messages=(Message(role="user", content="Write a story about a lighthouse keeper."),), max_new_tokens=NEW_TOKENS)
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["question", "order", "statement"]},
        "words": {"type": "integer", "minimum": 0, "maximum": 1000},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["title", "kind", "words", "tags"],
    "additionalProperties": False,
}


def prefix(engine: OpenVINOEngine) -> dict[str, Any]:
    """Milliseconds to the first token of prompts that share their first 2,000 tokens: the first one, and the median of the others."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    ids = engine.tokenizer.encode(text)[:PREFIX_TOKENS]
    times = []
    for at in range(7):
        tail = engine.tokenizer.encode(f"\n\nQuestion {at}: what is the text above about?")
        done = Responder("x", engine).complete(Request(prompt_ids=tuple(ids + tail), max_new_tokens=2))
        times.append(done.usage.prefill_seconds * 1e3)
    return {"first_ms": round(times[0]), "next_ms": round(float(np.median(times[1:])), 1)}


def at_once(engine: Engine, count: int) -> float:
    """Tokens a second in total."""
    requests = [
        Request(messages=(Message(role="user", content=f"Tell a story about the number {at}."),), max_new_tokens=NEW_TOKENS)
        for at in range(count)
    ]
    began = time.perf_counter()
    tokens = sum(done.usage.completion_tokens for _, done in Responder("x", engine).complete_many(requests, concurrency=count))
    return round(tokens / (time.perf_counter() - began), 1)


def speed(engine: Engine, request: Request = STORY) -> float:
    """Decoding, tokens a second, best of three."""
    return round(max(Responder("x", engine).complete(request).usage.decode_tokens_per_second for _ in range(3)), 1)


def schema(engine: OpenVINOEngine) -> dict[str, Any]:
    """Fifty random prompts, sampled: how many answers follow the schema, and what following it costs."""
    chance = random.Random(1)
    words = (ROOT / "docs/serve.md").read_text(encoding="utf-8").split()
    asked = [
        Request(
            messages=(Message(role="user", content=" ".join(chance.sample(words, 12))),),
            max_new_tokens=200,
            temperature=1.0,
            seed=at,
            json_schema=json.dumps(SCHEMA),
        )
        for at in range(50)
    ]
    good = 0
    for _, done in Responder("x", engine).complete_many(asked, concurrency=8):
        jsonschema.validate(json.loads(done.text), SCHEMA)
        good += 1
    sampled = replace(STORY, temperature=1.0, seed=1)
    long = {"type": "array", "items": {"type": "string", "maxLength": 30}, "minItems": 20}
    return {
        "followed": good,
        "of": len(asked),
        "decode_tokens_per_second": speed(engine, replace(sampled, json_schema=json.dumps(long))),
        "without_schema": speed(engine, sampled),
    }


def adapters(path: Path, folder: Path) -> dict[str, Any]:
    """Decoding and 8 requests at once: base alone, an adapter baked, and base and two adapters on one copy of the weights."""
    fused, apart = importer.import_gguf(path), importer.import_gguf(path, fused=False)
    layers = _layers(apart)
    made = [_random_adapter(folder / str(seed), layers, seed) for seed in (1, 2)]
    found: dict[str, Any] = {}
    for name, folder_of in (("base", fused), ("baked", importer.import_gguf(path, adapter=made[0]))):
        engine = OpenVINOEngine(folder_of)
        found[name] = {"decode": speed(engine), "eight_at_once": at_once(engine, 8)}
        engine.close()
    engine = OpenVINOEngine(apart, beside=made)
    for name, one in (("beside_base", engine), ("beside_adapter", engine.adapted(0))):
        found[name] = {"decode": speed(one), "eight_at_once": at_once(one, 8)}
    engine.close()
    return found


def _layers(folder: Path) -> dict[str, list[int]]:
    """Shapes of the seven projections of each layer."""
    import openvino as ov

    model = ov.Core().read_model(folder / "openvino_model.xml")
    nodes = [node for node in model.get_ops() if node.get_friendly_name().endswith("_proj") and node.get_type_name() == "MatMul"]
    return {node.get_friendly_name(): [axis.get_length() for axis in node.input(1).get_partial_shape()] for node in nodes}


def _random_adapter(folder: Path, layers: dict[str, list[int]], seed: int) -> Path:
    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    tensors = {}
    for name, (rows, columns) in layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = chance.normal(0, 0.01, (RANK, columns)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = chance.normal(0, 0.01, (rows, RANK)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": RANK}))
    return folder


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    engine = OpenVINOEngine(importer.import_gguf(asked.file))
    found: dict[str, Any] = {"model": asked.file.name, "shared_prefix": prefix(engine)}
    found["tokens_per_second_at_once"] = {count: at_once(engine, count) for count in (1, 8, 32)}
    found["schema"] = schema(engine)
    engine.close()
    with tempfile.TemporaryDirectory() as folder:
        found["adapters"] = adapters(asked.file, Path(folder))
    print(json.dumps(found, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
