"""How near a GPT-OSS of true width is to float32: our likelihoods beside those of a reference in numpy, random weights.

    python benchmarks/gpt_oss_width.py FOLDER [--layers 2] [--tokens 300] [--without sinks window] [--json FILE]

FOLDER gets a file of so many layers and a small vocabulary (`synthetic_gguf.py`; 0.9 GB with two layers, whose first has a window
of 128 tokens). The reference is written by OpenAI's description of the model and multiplies by the file's numbers in float32. Printed
is the KL divergence a token, in nats: ours; of the reference with the inputs of quantised products rounded to 8 bits; `--without`: of
the reference with a part of the model left out, as an error would be.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import synthetic_gguf
from facts import circumstances, write

from nomoat.engine import importer
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.local import LocalEngine
from nomoat.records import Request

FloatArray = npt.NDArray[np.float32]
Inputs = Callable[[FloatArray], FloatArray]
SHAPE = replace(synthetic_gguf.GPT_OSS, vocabulary=2048)
FIRST_WORD = 260  # tokens before it are control pieces and bytes
WINDOW, BASE, FACTOR, FIRST_CONTEXT, FAST, SLOW = 128, 150000.0, 32.0, 4096, 32.0, 1.0
LIMIT, SLOPE = 7.0, 1.702


# ---------------------------------------------------------------- the reference: T tokens, H heads, D a head's width
def softmax(scores: FloatArray) -> FloatArray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def turned(x_THD: FloatArray) -> FloatArray:
    """By positions that YaRN stretches, without rounding to whole pairs."""
    dim, half = SHAPE.head_dim, SHAPE.head_dim // 2
    own = BASE ** -(np.arange(0, dim, 2) / dim)
    ends = [dim * np.log(FIRST_CONTEXT / (turns * 2 * np.pi)) / (2 * np.log(BASE)) for turns in (FAST, SLOW)]
    share = np.clip((np.arange(half) - ends[0]) / (ends[1] - ends[0]), 0, 1)
    angles = np.arange(len(x_THD))[:, None, None] * (own / FACTOR * share + own * (1 - share))
    magnitude = 0.1 * np.log(FACTOR) + 1
    cos, sin = (magnitude * of(angles) for of in (np.cos, np.sin))
    low, high = x_THD[..., :half], x_THD[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(np.float32)


def normed(x: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5)) * weight)


def rounded(x: FloatArray) -> FloatArray:
    """To 8 bits, with a scale for each 32."""
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scales = np.maximum(np.abs(groups).max(-1, keepdims=True) / np.float32(127), np.float32(1e-30))
    return np.asarray(np.rint(groups / scales) * scales).reshape(x.shape)


class Layer:
    """One layer of a file. `inputs`: what becomes of the inputs of products, but the router's; `without`: a part that is left out."""

    def __init__(self, file: GGUFFile, number: int, inputs: Inputs, without: str | None) -> None:
        self._file, self._number, self._inputs, self._without = file, number, inputs, without

    def _rows(self, name: str, rows: slice | None = None) -> FloatArray:
        return self._file.rows(f"blk.{self._number}.{name}", rows)

    def _product(self, x: FloatArray, name: str) -> FloatArray:
        return np.asarray(x @ self._rows(f"{name}.weight").T + self._rows(f"{name}.bias"))

    def attention(self, x: FloatArray) -> FloatArray:
        count, groups = len(x), SHAPE.heads // SHAPE.kv_heads
        h = self._inputs(normed(x, self._rows("attn_norm.weight")))
        q, k, v = (self._product(h, f"attn_{part}").reshape(count, -1, SHAPE.head_dim) for part in "qkv")
        scores = np.einsum("thd,shd->hts", turned(q), turned(k).repeat(groups, 1)) * np.float32(SHAPE.head_dim**-0.5)
        back = np.arange(count)[:, None] - np.arange(count)
        has_window = self._number % 2 == 0 and self._without != "window"
        scores = np.where((back >= 0) & ((back < WINDOW) | (not has_window)), scores, -np.inf)
        sinks = -np.inf if self._without == "sinks" else self._rows("attn_sinks.weight")[:, None]
        weights = softmax(np.concatenate([scores, np.broadcast_to(sinks, scores.shape[:2])[..., None]], axis=-1))[..., :-1]
        seen = np.einsum("hts,shd->thd", weights, v.repeat(groups, 1))
        return self._product(self._inputs(seen.reshape(count, -1)), "attn_output")

    def experts(self, x: FloatArray) -> FloatArray:
        h = normed(x, self._rows("post_attention_norm.weight"))
        scores = self._product(h, "ffn_gate_inp")
        chosen = np.argsort(-scores, axis=-1)[:, : SHAPE.chosen]
        weights, made = softmax(np.take_along_axis(scores, chosen, -1)), np.zeros_like(x)
        biases = {part: self._rows(f"ffn_{part}_exps.bias").reshape(SHAPE.experts, -1) for part in ("gate", "up", "down")}
        for expert in range(SHAPE.experts):
            tokens, places = np.nonzero(chosen == expert)
            if not len(tokens):
                continue
            rows = slice(expert * SHAPE.hidden, (expert + 1) * SHAPE.hidden)  # as many as the width

            def product(y: FloatArray, part: str, rows: slice = rows, expert: int = expert) -> FloatArray:
                return np.asarray(self._inputs(y) @ self._rows(f"ffn_{part}_exps.weight", rows).T + biases[part][expert])

            gate = np.minimum(product(h[tokens], "gate"), LIMIT)
            up = np.clip(product(h[tokens], "up"), -LIMIT, LIMIT)
            made[tokens] += weights[tokens, places][:, None] * product(gate / (1 + np.exp(-SLOPE * gate)) * (up + 1), "down")
        return made


def reference(path: Path, ids: list[int], *, inputs: Inputs = np.asarray, without: str | None = None) -> FloatArray:
    """Log-probabilities, [T, V]."""
    file = GGUFFile(path)
    x = file.rows("token_embd.weight", np.array(ids))
    for number in range(file.metadata["gpt-oss.block_count"]):
        layer = Layer(file, number, inputs, without)
        x = x + layer.attention(x)
        x = x + layer.experts(x)
    return log_softmax(inputs(normed(x, file.rows("output_norm.weight"))) @ file.rows("output.weight").T)


# ---------------------------------------------------------------- ours
def ours(path: Path, ids: list[int]) -> FloatArray:
    """The same, but for what follows the last token."""
    engine = LocalEngine(importer.import_gguf(path))
    found = engine.prompt_likelihoods(Request(prompt_ids=ids, top_logprobs=SHAPE.vocabulary))
    engine.close()
    made = np.empty((len(found) - 1, SHAPE.vocabulary), np.float32)
    for row, likelihood in zip(made, found[1:], strict=True):
        for one in likelihood.top:
            row[one.token_id] = one.log_probability
    return made


def divergence(of: FloatArray, other: FloatArray) -> dict[str, float]:
    by_token = (np.exp(of) * (of - other)).sum(-1)
    return {"mean": float(by_token.mean()), "median": float(np.median(by_token)), "largest": float(by_token.max())}


def main() -> int:
    """Write the file, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--without", nargs="*", choices=("sinks", "window"), default=())
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    path = synthetic_gguf.write(arguments.folder / "gpt-oss-width.gguf", replace(SHAPE, layers=arguments.layers))
    ids = np.random.default_rng(5).integers(FIRST_WORD, SHAPE.vocabulary, arguments.tokens).tolist()
    whole = reference(path, ids)[:-1]
    others = {"ours": ours(path, ids), "inputs rounded": reference(path, ids, inputs=rounded)[:-1]}
    others |= {f"without {part}": reference(path, ids, without=part)[:-1] for part in arguments.without}
    found = {name: divergence(whole, other) for name, other in others.items()}
    for name, kl in found.items():
        print(name, ", ".join(f"{key} {value:.6f}" for key, value in kl.items()))
    write(arguments.json, {**circumstances(), "tokens": len(whole), "layers": arguments.layers, "kl": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
