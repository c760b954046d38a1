"""Nearness to float32 of prompts of few tokens, where the first tokens count most: texts, and questions in the model's chat template.

    python benchmarks/short_prompts.py smollm2-135m [--texts 30] [--quality default] [--json FILE]

The reference and the texts are those of `layouts.py`. `kl` is the mean over all tokens of all texts, `kl_last` over the last ones
alone, which an answer begins with, and `likeliest_percent` how many of these have the same likeliest token.
`log_probabilities`: how far those of the texts' own tokens are, as `serve` tells them with `echo`, over all lengths: each token's,
those of tokens that float32 finds likely (1 in 10 and more) and unlikely, and sums over 12 in a row, as a choice has them.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from facts import circumstances, write
from layouts import Text, exact_model, served_at
from speed import real_text

from nomoat import config, references
from nomoat.engine import importer, tokenizer
from nomoat.engine.gguf import GGUFFile
from nomoat.records import Message, Request

LENGTHS = (24, 32, 47, 48, 64, 128)  # tokens of texts
QUESTIONS = (10, 40, 80, 160, 300, 600)  # letters that are asked about
ASKED = "What does this say? "
LIKELY = np.log(0.1)
RUN = 12  # tokens of a choice


def closeness(exact: Text, ours: Text, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Of prompts, each read at once."""
    divergences, pairs, same = [], [], 0
    for ids in prompts:
        p, q = exact.log_probabilities(ids, len(ids)), ours.log_probabilities(ids, len(ids))
        divergences.append((np.exp(p) * (p - q)).sum(-1))
        pairs.append(np.stack([of[np.arange(len(ids) - 1), ids[1:]] for of in (p, q)]))
        same += int(p[-1].argmax() == q[-1].argmax())
    lengths = [len(ids) for ids in prompts]
    return {
        "tokens": [min(lengths), max(lengths)], "kl": float(np.mean([of_text.mean() for of_text in divergences])),
        "kl_last": float(np.mean([of_text[-1] for of_text in divergences])), "likeliest_percent": 100 * same / len(prompts),
        "pairs": pairs,
    }  # fmt: skip


def differences(pairs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Of log-probabilities [float32's and ours, tokens] of texts: see the module."""
    exact, ours = np.concatenate(pairs, axis=1)
    off = ours - exact
    runs = [(q - p)[at : at + RUN].sum() for p, q in pairs for at in range(0, len(p) - RUN + 1, RUN)]
    kinds = {"each": off, "likely": off[exact >= LIKELY], "unlikely": off[exact < LIKELY], f"sums_of_{RUN}": np.array(runs)}
    return {name: _spread(values) for name, values in kinds.items()}


def _spread(values: np.ndarray) -> dict[str, Any]:
    sizes = np.abs(values)
    return {
        "count": len(values), "mean": float(values.mean()), "sd": float(values.std()),
        **{f"within_{percent}_percent": float(np.percentile(sizes, percent)) for percent in (50, 95, 99)},
        "largest": float(sizes.max()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=30)
    parser.add_argument("--quality", choices=config.QUALITIES, default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weights = references.find_files(options.model).weights
    tokens = tokenizer.load(importer.import_gguf(weights, quality=options.quality))
    sentences = [sentence for sentence in real_text().split(". ") if len(sentence) > 200]
    random.Random(2).shuffle(sentences)
    texts = [" ".join((sentence, *sentences[:5])) for sentence in sentences[: options.texts]]
    encoded = [tokens.encode(text, add_bos=True) for text in texts]
    ours = served_at(options.quality, weights, last_only=False)[0]
    with tempfile.TemporaryDirectory() as place:
        exact = exact_model(GGUFFile(weights), Path(place))
        found: dict[str, Any] = {"texts": [closeness(exact, ours, [ids[:length] for ids in encoded]) for length in LENGTHS]}
        if tokens.chat_template:
            for letters in QUESTIONS:
                asked = [Request(messages=(Message(role="user", content=ASKED + text[:letters]),)) for text in texts]
                found.setdefault("questions", []).append(closeness(exact, ours, [*map(tokens.prompt_ids, asked)]))
    pairs = {kind: [pair for row in rows for pair in row.pop("pairs")] for kind, rows in found.items()}
    found["log_probabilities"] = differences(pairs["texts"])
    result = {**circumstances(), "model": options.model, "quality": options.quality, "num_texts": len(texts), **found}
    print(json.dumps(result, indent=1))
    write(options.json, result)


if __name__ == "__main__":
    main()
