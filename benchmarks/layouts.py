"""Speed, quality and memory of a model at each quality setting, with paged attention, by turns.

    python benchmarks/layouts.py smollm2-135m [--tokens 1000] [--rounds 3] [--genai] [--json FILE]

`--genai`: nearness of what OpenVINO GenAI's own reader of GGUF makes of the file, too, with OpenVINO's defaults, as its pipeline has.

The reference is the same file in float32 (weights, activations, cache), which tests prove against `transformers`. The text is that of
`speed.py`, begun as every request is: with the token that begins a text, where the model expects one. `kl` is of tokens read as a
prompt, `kl_answers` of tokens read one by one. Not covered: scheduling and sampling, which `speed.py` has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import openvino as ov
from facts import circumstances, write
from paged import Logits, PagedModel, Text, closeness, served
from speed import real_text

from nomoat import config, references
from nomoat.engine import arch as architectures
from nomoat.engine import importer, layout, tokenizer
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.graph import GraphBuilder

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
PROMPT_TOKENS, STEPS = 660, 16
ANSWER_TOKENS = 400  # read one at a time, as an answer is written


def reference(file: GGUFFile, ids: list[int]) -> Logits:
    """Log-probabilities of the file's own weights in float32."""
    sizes = importer.read_sizes(file)
    builder = GraphBuilder(file, architectures.of(file), sizes, layout.EXACT)
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(builder.build(), str(Path(folder) / "openvino_model.xml"), compress_to_fp16=False)
        return PagedModel(Path(folder), EXACT, last_only=False).log_probabilities(ids)


def genai_model(weights: Path, folder: Path) -> PagedModel:
    """What GenAI's reader makes of a file, saved in that folder by GenAI itself."""
    import openvino_genai

    link = folder / "model.gguf"
    link.symlink_to(weights.resolve())
    openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
    return PagedModel(folder, {}, last_only=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--genai", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weights = references.find_files(options.model).weights
    file = GGUFFile(weights)
    folders = {quality: importer.import_gguf(weights, quality=quality) for quality in config.QUALITIES}
    ids = tokenizer.load(folders["default"]).encode(real_text(), add_bos=True)[: max(options.tokens, PROMPT_TOKENS)]
    exact = reference(file, ids[: options.tokens])
    rows: dict[str, Any] = {}
    models: dict[str, Text] = {}
    sizes = importer.read_sizes(file)
    for quality, folder in folders.items():
        stored = layout.storage(file, sizes, quality)
        properties = layout.choose(sizes, stored, threads=config.threads()).properties
        whole = served(folder, properties, last_only=False)
        row = rows[quality] = {"storage": str(stored), "properties": properties, "weights_MB": round(stored.bytes_of(file) / 1e6)}
        row |= closeness(exact, whole.log_probabilities(ids[: options.tokens]), ids[: options.tokens])
        answer = min(options.tokens, ANSWER_TOKENS)
        row["kl_answers"] = closeness(exact[:answer], whole.log_probabilities(ids[:answer], 1), ids[:answer])["kl"]
        del whole
        models[quality] = served(folder, properties, last_only=True)
    if options.genai:
        with tempfile.TemporaryDirectory() as place:
            theirs = genai_model(weights, Path(place))
            found = rows["GenAI's reader"] = closeness(exact, theirs.log_probabilities(ids[: options.tokens]), ids[: options.tokens])
            answer = min(options.tokens, ANSWER_TOKENS)
            found["kl_answers"] = closeness(exact[:answer], theirs.log_probabilities(ids[:answer], 1), ids[:answer])["kl"]
            del theirs
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in range(options.rounds + 1):  # the first warms up
        for name, model in models.items():
            speeds = model.speeds(ids[:PROMPT_TOKENS], STEPS)
            if turn:
                turns[name].append(speeds)
    for name, all_speeds in turns.items():
        for at, phase in enumerate(("prefill", "decode")):
            values = [speeds[at] for speeds in all_speeds]
            rows[name][phase] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    result = {
        **circumstances(), "model": options.model,
        "tokens": options.tokens, "rounds": options.rounds, "qualities": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    write(options.json, result)


if __name__ == "__main__":
    main()
