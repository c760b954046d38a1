"""How fast a model answers with LoRA adapters: beside its weights, baked into them, and beside layers that are apart (OpenVINO).

    python benchmarks/adapters.py smollm2-135m [--rank 16] [--turns 5] [--json FILE]

The adapters are random ones on every layer, as large as `tune` makes them. All ways take turns: a prompt of about 512 tokens and an
answer of 64 drawn ones; then 32 answers at once, of the base alone, and of four adapters, eight each. `seconds`: from the adapter's
folder to the first token of the base's first answer. Quoted as ratios to the base in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from facts import circumstances, write
from safetensors.numpy import save_file

from nomoat import config
from nomoat.bench.model import fresh_prompt, request_for
from nomoat.engine import importer
from nomoat.engine.local import LocalEngine
from nomoat.engine.native import Blueprint
from nomoat.engine.source import open_source
from nomoat.records import Completion, Request
from nomoat.references import find_files
from nomoat.responder import Responder

ADAPTERS, AT_ONCE = 4, 32


def write_adapter(weights: Path, folder: Path, *, rank: int, seed: int) -> Path:
    """A PEFT folder of small random numbers, on every linear layer of a LLaMA-like model."""
    sizes = importer.read_sizes(open_source(weights))
    width, hidden = sizes.width, sizes.hidden
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    shapes = {
        "self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries), "mlp.gate_proj": (hidden, width), "mlp.up_proj": (hidden, width),
        "mlp.down_proj": (width, hidden),
    }  # fmt: skip
    chance = np.random.default_rng(seed)
    tensors = {}
    for layer in range(sizes.layers):
        for part, (rows, columns) in shapes.items():
            name = f"base_model.model.model.layers.{layer}.{part}"
            tensors[f"{name}.lora_A.weight"] = (chance.standard_normal((rank, columns)) / columns**0.5).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = (0.01 * chance.standard_normal((rows, rank))).astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}))
    return folder


def ways(weights: Path, adapters: Sequence[Path]) -> dict[str, Callable[[], LocalEngine]]:
    """What is compared; each makes its engine, with the first adapter alone where it is baked."""
    return {
        "beside": lambda: LocalEngine(importer.import_gguf(weights), weights=weights, beside=adapters),
        "baked": lambda: LocalEngine(importer.import_gguf(weights, adapter=adapters[0]), weights=weights, adapter=adapters[0]),
        "apart": lambda: LocalEngine(importer.import_gguf(weights, fused=False), weights=weights, beside=adapters),
    }


def measured(weights: Path, adapters: Sequence[Path], turns: int) -> dict[str, Any]:
    """Tokens a second of each way, the median of all turns, and all turns."""
    importer.import_gguf(weights)
    made: dict[str, Responder] = {}
    facts: dict[str, Any] = {}
    for way, make in ways(weights, adapters).items():
        started = time.perf_counter()
        engine = make()
        made[way] = Responder(way, engine if way == "baked" else engine.adapted(0))
        made[way].complete(Request(prompt="moat", max_new_tokens=1))
        facts[way] = {"seconds": round(time.perf_counter() - started, 1), "prompt": [], "answer": []}
        if way == "beside":
            made["base"] = Responder("base", engine)
            facts["base"] = {"prompt": [], "answer": []}
    for turn in range(turns):
        for way, model in made.items():
            usage = model.complete(request_for(fresh_prompt(model, turn), seed=turn)).usage
            facts[way]["prompt"].append(round(usage.prefill_tokens_per_second))
            facts[way]["answer"].append(round(usage.decode_tokens_per_second, 1))
        base = made["base"].engine
        assert isinstance(base, LocalEngine)
        shared = [Responder(f"{at}", base.adapted(at)) for at in range(len(adapters))]
        for way, models in (("base", [made["base"]]), ("beside", shared)):
            facts[way].setdefault("at_once", []).append(at_once(models, turn))
    for told in facts.values():
        told |= {f"{name}_median": statistics.median(told[name]) for name in ("prompt", "answer", "at_once") if name in told}
    for model in made.values():
        model.close()
    return facts


def at_once(models: Sequence[Responder], turn: int) -> float:
    """Tokens a second of 32 short prompts and their answers, over these models."""
    requests = [request_for(f"{turn} {number}: the river", seed=number) for number in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = time.perf_counter()
        answers: list[Completion] = list(pool.map(lambda both: models[both[0] % len(models)].complete(both[1]), enumerate(requests)))
        return round(sum(answer.usage.completion_tokens for answer in answers) / (time.perf_counter() - started), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    weights = find_files(asked.model).weights
    if not Blueprint(importer.import_gguf(weights)).can_run():
        raise SystemExit(f"`{asked.model}` does not run in passes of nomoat's own here: there is nothing to compare")
    with tempfile.TemporaryDirectory() as work:
        adapters = [write_adapter(weights, Path(work) / str(at), rank=asked.rank, seed=at) for at in range(ADAPTERS)]
        facts = measured(weights, adapters, asked.turns)
    made = {**circumstances(), "threads": config.threads().value, "model": asked.model}
    result = made | {"rank": asked.rank, "turns": asked.turns, "ways": facts}
    for way, told in facts.items():
        ratios = {
            name: told[f"{name}_median"] / facts["base"][f"{name}_median"] for name in ("prompt", "answer", "at_once") if name in told
        }
        print(f"{way:7}", *(f"{name} {told[f'{name}_median']:,.0f} tok/s ({ratio:.2f})" for name, ratio in ratios.items()), sep="  ")
    write(asked.json, result)


if __name__ == "__main__":
    main()
