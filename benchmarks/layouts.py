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
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from facts import circumstances, write
from openvino import opset13 as op
from openvino._offline_transformations import paged_attention_transformation
from speed import real_text

from nomoat import config, references
from nomoat.engine import arch as architectures
from nomoat.engine import importer, layout, tokenizer
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.compiled import core
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.graph import GraphBuilder
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import Row

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32"}
PROMPT_TOKENS, STEPS = 660, 16
ANSWER_TOKENS = 400  # read one at a time, as an answer is written
CHUNK_TOKENS = 256
Logits = npt.NDArray[np.float32]


# ---------------------------------------------------------------- models with their logits in our hands
class Text:
    """A text that grows. `step` differs."""

    _past = 0

    def forget(self) -> None:
        """Begin anew."""
        self._past = 0

    def step(self, ids: Sequence[int]) -> Logits:
        """Read tokens after those read before; a view of their logits [tokens, vocabulary] that holds until the next step."""
        raise NotImplementedError

    def log_probabilities(self, ids: Sequence[int], chunk: int = CHUNK_TOKENS) -> Logits:
        """Of every next token, [tokens, vocabulary], the text read in chunks."""
        self.forget()
        return np.concatenate([log_softmax(self.step(ids[at : at + chunk])) for at in range(0, len(ids), chunk)])

    def speeds(self, prompt: Sequence[int], steps: int) -> tuple[float, float]:
        """Tokens per second of reading a prompt, and of the median step after it."""
        self.forget()
        started = time.perf_counter()
        self.step(prompt)
        prefill = len(prompt) / (time.perf_counter() - started)
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            self.step(prompt[:1])
            seconds.append(time.perf_counter() - started)
        return prefill, 1 / float(np.median(seconds))


class NativeText(Text):
    """By nomoat's own passes."""

    def __init__(self, model: NativeModel, *, last_only: bool, max_tokens: int = 2048) -> None:
        self._model, self._last_only = model, last_only
        model.allocate(max_tokens // BLOCK_TOKENS + 1)

    def step(self, ids: Sequence[int]) -> Logits:
        total = self._past + len(ids)
        row = Row(ids, self._past, range(-(-total // BLOCK_TOKENS)), 1 if self._last_only else len(ids))
        self._past = total
        return self._model.run([row])[0]


def served(folder: Path, properties: dict[str, str], *, last_only: bool) -> Text:
    """A folder's model as `engine.local` would run it."""
    quality = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nomoat"]["storage"]["quality"]
    if (blueprint := Blueprint(folder)).can_run():
        return NativeText(NativeModel(blueprint, quality=quality), last_only=last_only)
    return PagedModel(folder, properties, last_only=last_only)


class PagedModel(Text):
    """One model, compiled with `properties`. `last_only`: logits of the last token of each step, as an answer needs them."""

    def __init__(self, folder: Path, properties: dict[str, str], *, last_only: bool, max_tokens: int = 2048) -> None:
        model = core().read_model(str(folder / "openvino_model.xml"))
        paged_attention_transformation(model)
        if last_only:
            _gather_before_head(model)
        self._request = core().compile_model(model, "CPU", properties).create_infer_request()
        self._last_only = last_only
        for port in self._request.model_inputs:
            name = port.get_any_name()
            if name.startswith(("key_cache", "value_cache")):
                sizes = [dimension.get_length() for dimension in list(port.get_partial_shape())[1:]]
                cache = ov.Tensor(port.get_element_type(), ov.Shape([max_tokens // BLOCK_TOKENS + 1, *sizes]))
                self._request.set_tensor(name, cache)

    def step(self, ids: Sequence[int]) -> Logits:
        total = self._past + len(ids)
        blocks = -(-total // BLOCK_TOKENS)
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array(ids, np.int64), "position_ids": np.arange(self._past, total),
            "past_lens": np.array([self._past], np.int32), "subsequence_begins": np.array([0, len(ids)], np.int32),
            "block_indices": np.arange(blocks, dtype=np.int32), "block_indices_begins": np.array([0, blocks], np.int32),
            "max_context_len": np.array(total, np.int32),
        }  # fmt: skip
        if self._last_only:
            inputs["sampled_tokens_indices"] = np.array([len(ids) - 1], np.int64)
        for name, values in inputs.items():
            self._request.set_tensor(name, ov.Tensor(np.ascontiguousarray(values).reshape(values.shape)))
        self._request.infer()
        self._past = total
        logits = self._request.get_tensor("logits").data
        return np.asarray(logits).reshape(-1, logits.shape[-1])


def log_softmax(logits: Logits) -> Logits:
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(shifted, np.float32)


def closeness(reference: Logits, ours: Logits, ids: Sequence[int]) -> dict[str, float]:
    """Mean KL(reference || ours) a token, the text's mean negative log-likelihood under ours, its change, and top-1 agreement."""
    kl = float(np.mean([np.sum(np.exp(p) * (p - q)) for p, q in zip(reference[:-1], ours[:-1], strict=True)]))
    at = np.arange(len(ids) - 1), np.array(ids[1:])
    nll, reference_nll = -float(ours[at].mean()), -float(reference[at].mean())
    top1 = float(np.mean(reference.argmax(axis=1) == ours.argmax(axis=1)))
    return {"kl": kl, "nll": nll, "nll_change": nll - reference_nll, "top1_percent": 100 * top1}


def _gather_before_head(model: ov.Model) -> None:
    """What GenAI does too: only tokens whose successor is wanted go through the output matrix."""
    wanted = op.parameter([-1], np.int64)
    wanted.output(0).set_names({"sampled_tokens_indices"})
    head = next(node for node in model.get_ops() if node.get_friendly_name() == "lm_head")
    chosen = op.gather(head.input_value(0), wanted, op.constant(np.int64(0)))
    head.input(0).replace_source_output(chosen.output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()


# ---------------------------------------------------------------- measuring
def exact_model(file: GGUFFile, folder: Path) -> PagedModel:
    """The file's own weights in float32, saved in that folder."""
    builder = GraphBuilder(file, architectures.of(file), importer.read_sizes(file), layout.EXACT)
    ov.save_model(builder.build(), str(folder / "openvino_model.xml"), compress_to_fp16=False)
    return PagedModel(folder, EXACT, last_only=False)


def served_at(quality: config.Quality, weights: Path, *, last_only: bool) -> tuple[Text, layout.Storage, dict[str, str]]:
    """A file's model at a quality, how it is stored, and the properties it is compiled with."""
    file = GGUFFile(weights)
    sizes, stored = importer.read_sizes(file), layout.storage(file, importer.read_sizes(file), quality)
    properties = layout.choose(sizes, stored, threads=config.threads()).properties
    return served(importer.import_gguf(weights, quality=quality), properties, last_only=last_only), stored, properties


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
    folder = importer.import_gguf(weights, quality="default")
    ids = tokenizer.load(folder).encode(real_text(), add_bos=True)[: max(options.tokens, PROMPT_TOKENS)]
    with tempfile.TemporaryDirectory() as place:
        exact = exact_model(file, Path(place)).log_probabilities(ids[: options.tokens])
    rows: dict[str, Any] = {}
    models: dict[str, Text] = {}
    for quality in config.QUALITIES:
        whole, stored, properties = served_at(quality, weights, last_only=False)
        weights_bytes = stored.bytes_of(file, importer.read_sizes(file))
        row = rows[quality] = {"storage": str(stored), "properties": properties, "weights_MB": round(weights_bytes / 1e6)}
        row |= closeness(exact, whole.log_probabilities(ids[: options.tokens]), ids[: options.tokens])
        answer = min(options.tokens, ANSWER_TOKENS)
        row["kl_answers"] = closeness(exact[:answer], whole.log_probabilities(ids[:answer], 1), ids[:answer])["kl"]
        del whole
        models[quality] = served_at(quality, weights, last_only=True)[0]
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
