"""How close the engine is to the file: negative log-likelihood of a real text, ours against the dequantised fp32 model.

    python benchmarks/fidelity.py smollm2-135m [--tokens 1500] [--json FILE]

The text: sentences of the `vader-reviews` data set, joined. The reference: `transformers` reading the same GGUF file in fp32, an
implementation independent of ours. Two paths of ours are measured: likelihoods (`score`), and the continuous batching that
writes answers (its prompt log-probabilities).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import date
from pathlib import Path

import torch

from nomoat import hardware, responder
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine import importer
from nomoat.engine.openvino import OpenVINOEngine
from nomoat.records import Request


def real_text() -> str:
    """The data set's sentences, one after another."""
    path = pull_dataset("vader-reviews") / "amazonReviewSnippets_GroundTruth.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return " ".join(line.split("\t", 2)[2] for line in lines)


def reference_nll(path: Path, ids: list[int]) -> float:
    """Mean negative log-likelihood a token under the fp32 model."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    with torch.no_grad():
        rows = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return -float(rows.gather(1, torch.tensor(ids[1:])[:, None]).mean())


def scored_nll(engine: OpenVINOEngine, ids: list[int]) -> float:
    """The same through `score`'s path: the first token as the prompt, the rest as its continuation."""
    from nomoat.engine.likelihood import Scorer

    (score,) = Scorer(engine._folder, engine.layout.properties).score(ids[:1], [ids[1:]])
    return -score.log_probability / score.num_tokens


def batched_nll(engine: OpenVINOEngine, ids: list[int]) -> float:
    """The same through continuous batching: the log-probabilities it gives to its prompt."""
    told = engine.prompt_likelihoods(Request(prompt_ids=tuple(ids)))[1:]  # the first token has no probability
    return -sum(one.log_probability or 0.0 for one in told) / len(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    files = responder.find_files(options.model)
    engine = OpenVINOEngine(importer.import_gguf(files.weights))
    ids = engine.tokenizer.encode(real_text())[: options.tokens]
    reference = reference_nll(files.weights, ids)
    paths = {"score": scored_nll(engine, ids), "continuous batching": batched_nll(engine, ids)}
    row = {
        "date": date.today().isoformat(), "machine": hardware.summary(), "command": " ".join(sys.argv), "model": options.model,
        "tokens": len(ids), "layout": engine.layout.properties, "fp32_nll": reference,
        "fp32_perplexity": math.exp(reference), **{f"{name}_nll": value for name, value in paths.items()},
        **{f"{name}_off_by_percent": 100 * (value / reference - 1) for name, value in paths.items()},
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    if options.json:
        options.json.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
