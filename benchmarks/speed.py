"""Speed beside the peers: the same file, turn by turn in one run, so that a noisy machine is noisy for all.

    python benchmarks/speed.py qwen2.5-coder-0.5b --llama-python VENV/bin/python [--at-once] [--beside N] [--json FILE]

Peers: llama.cpp (`--llama-python`: a Python with a natively compiled llama-cpp-python; see `speed_llama_cpp.py`) and OpenVINO GenAI's
own GGUF reader (`--genai`; not every file can be read by it). Each engine is a process of its own, loaded before the first turn; all
get the same tokens: real sentences, a different stretch of them each turn. Three tests: a prompt of 660 tokens
(`--prompt-tokens`), an answer of 64 tokens after it, and 32 requests at once (prompts of 64 tokens, answers of 64; total new tokens
per second, the reading included). `--beside`: so many other programs compute without a pause meanwhile, as on a laptop in use.
Printed are medians over rounds, the range, each round's speed, and the ratio ours / theirs of each round's pair. Answers that end
early say little of the speed: such a round's pair is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from facts import circumstances, program, write

from nomoat import config, references, responder
from nomoat.bench import machine
from nomoat.catalog.datasets import pull_dataset
from nomoat.records import Request

PROMPT_TOKENS, NEW_TOKENS = 660, 64
AT_ONCE, SHORT_PROMPT_TOKENS = 32, 64
FEWEST_TOKENS = 24  # of a shorter answer the speed says little
TESTS = ("prefill", "decode", "at_once")


def real_text() -> str:
    """Sentences of product reviews, one after another."""
    path = pull_dataset("vader-reviews") / "amazonReviewSnippets_GroundTruth.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return " ".join(line.split("\t", 2)[2] for line in lines)


# ---------------------------------------------------------------- engines, each in its own process
def serve_nomoat(ref: str) -> None:
    """Answers as a user gets them: through `nomoat.load`."""
    with responder.load(ref) as model:
        model.complete(Request(prompt="moat", max_new_tokens=1))
        _say({"version": "this tree"})
        for line in sys.stdin:
            question = json.loads(line)
            requests = [Request(prompt=text, max_new_tokens=question["new_tokens"]) for text in question["texts"]]
            started = time.perf_counter()
            usages = [answer.usage for _, answer in model.complete_many(requests, concurrency=len(requests))]
            seconds = time.perf_counter() - started
            _say({
                "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
                "new_tokens": sum(usage.completion_tokens for usage in usages),
                "prefill_seconds": usages[0].prefill_seconds, "decode_seconds": usages[0].decode_seconds, "seconds": seconds,
            })  # fmt: skip


def serve_genai(path: str) -> None:
    """GenAI's own GGUF reader, with its default settings."""
    import numpy as np
    import openvino as ov
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(path, "CPU")
    _say({"version": openvino_genai.__version__})
    for line in sys.stdin:
        question = json.loads(line)
        if len(question["prompts"]) > 1:  # LLMPipeline answers one at a time
            _say({})
            continue
        settings = openvino_genai.GenerationConfig()
        settings.max_new_tokens, settings.ignore_eos, settings.apply_chat_template = question["new_tokens"], True, False
        started = time.perf_counter()
        answer = pipeline.generate(ov.Tensor(np.array(question["prompts"], np.int64)), settings)
        seconds = time.perf_counter() - started
        prefill = answer.perf_metrics.get_ttft().mean / 1000
        _say({
            "prompt_tokens": len(question["prompts"][0]), "new_tokens": len(answer.tokens[0]),
            "prefill_seconds": prefill, "decode_seconds": seconds - prefill, "seconds": seconds,
        })  # fmt: skip


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


@dataclass
class Engine:
    """A process that answers questions, and what it took for each test."""

    name: str
    process: subprocess.Popen[str]
    load_seconds: float
    speeds: dict[str, list[float | None]] = field(
        default_factory=lambda: {test: [] for test in TESTS}
    )  # a round each; None: says little

    @classmethod
    def start(cls, name: str, command: list[str]) -> Engine:
        """Start it and wait until it has loaded. Raises RuntimeError with its last words if it cannot."""
        started = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        engine = cls(name, process, 0.0)
        engine._answer()
        engine.load_seconds = time.perf_counter() - started
        return engine

    def ask(self, texts: list[str], prompts: list[list[int]], new_tokens: int) -> dict[str, Any]:
        """One turn."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"texts": texts, "prompts": prompts, "new_tokens": new_tokens}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def memory_bytes(self) -> int:
        """What the process holds now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# ---------------------------------------------------------------- the tests
class Prompts:
    """Stretches of the real text of about so many tokens, each begun where the last one ended."""

    def __init__(self, weights: Path) -> None:
        from nomoat.engine import importer, tokenizer

        self._tokenizer = tokenizer.load(importer.import_gguf(weights))
        self._words = real_text().split()
        self._at = 0

    def next(self, num_tokens: int) -> tuple[str, list[int]]:
        """A text and its token ids."""
        words: list[str] = []
        while True:
            words.append(self._words[self._at % len(self._words)])
            self._at += 1
            if len(words) >= num_tokens // 2:
                ids = self._tokenizer.prompt_ids(Request(prompt=" ".join(words)))
                if len(ids) >= num_tokens:
                    return " ".join(words), ids


def run_round(engines: list[Engine], prompts: Prompts, *, prompt_tokens: int, at_once: bool, keep: bool) -> None:
    """Every engine once in every test, by turns."""
    text, ids = prompts.next(prompt_tokens)
    for engine in engines:
        answer = engine.ask([text], [ids], NEW_TOKENS)
        if keep:
            is_long = answer["new_tokens"] >= FEWEST_TOKENS
            engine.speeds["prefill"].append(answer["prompt_tokens"] / answer["prefill_seconds"])
            engine.speeds["decode"].append((answer["new_tokens"] - 1) / answer["decode_seconds"] if is_long else None)
    if at_once:
        many = [prompts.next(SHORT_PROMPT_TOKENS) for _ in range(AT_ONCE)]
        for engine in engines:
            answer = engine.ask([text for text, _ in many], [ids for _, ids in many], NEW_TOKENS)
            if keep and answer:
                engine.speeds["at_once"].append(answer["new_tokens"] / answer["seconds"])


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        return {"nomoat": serve_nomoat, "genai": serve_genai}[sys.argv[2]](sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--llama-python", type=program, metavar="PYTHON")
    parser.add_argument("--genai", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=PROMPT_TOKENS)
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--beside", type=int, default=0, metavar="N")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    weights = references.find_files(options.model).weights
    prompts = Prompts(weights)
    engines = [Engine.start("nomoat", [sys.executable, __file__, "--serve", "nomoat", options.model])]
    if options.llama_python:
        peer = Path(__file__).with_name("speed_llama_cpp.py")
        command = [options.llama_python, str(peer), str(weights), str(config.threads().value)]
        engines.append(Engine.start("llama.cpp", command))
    if options.genai:
        try:
            engines.append(Engine.start("GenAI's reader", [sys.executable, __file__, "--serve", "genai", str(weights)]))
        except RuntimeError as exc:
            print(exc, "(it cannot read every file)", file=sys.stderr)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.beside)]
    try:
        for turn in range(options.rounds + 1):  # the first warms up
            run_round(engines, prompts, prompt_tokens=options.prompt_tokens, at_once=options.at_once, keep=turn > 0)
    finally:
        for other in others:
            other.kill()
    bandwidth = machine.read_speed(num_threads=config.threads().value)
    result = report(options, engines, bandwidth)
    for engine in engines:
        engine.close()
    print(json.dumps(result, indent=1))
    write(options.json, result)


def report(options: argparse.Namespace, engines: list[Engine], bandwidth: float) -> dict[str, Any]:
    """Medians, ranges and ratios of every engine."""
    ours = engines[0]
    rows: dict[str, Any] = {}
    for engine in engines:
        row: dict[str, Any] = {"load_seconds": engine.load_seconds, "memory_MB": round(engine.memory_bytes() / 1e6)}
        for test, speeds in engine.speeds.items():
            if told := [speed for speed in speeds if speed]:
                row[test] = {"median": statistics.median(told), "low": min(told), "high": max(told), "rounds": speeds}
                pairs = zip(ours.speeds[test], speeds, strict=True)
                if engine is not ours and (ratios := [our / their for our, their in pairs if our and their]):
                    row[test]["ours_is_times"] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        rows[engine.name] = row
    return {
        **circumstances(), "model": options.model,
        "rounds": options.rounds, "beside": options.beside, "memory_read_bytes_per_second": bandwidth, "engines": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
