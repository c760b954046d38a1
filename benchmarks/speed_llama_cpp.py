"""llama.cpp as a peer of `speed.py`: run by a Python that has a natively compiled llama-cpp-python, and nothing of nomoat.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python

Reads a question a line on stdin (JSON: `prompts`, lists of token ids; `new_tokens`) and answers with a line of times. Calls the C
interface directly: Python's part of a step is a few microseconds. The settings are llama.cpp's own defaults; several prompts at once
are read in a context of their own, in which each has its own keys and values, as llama.cpp advises where they share no beginning.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator

try:
    import llama_cpp as c
except ImportError:
    sys.exit(f"{sys.argv[0]}: run it by the Python of an environment that has llama-cpp-python:\n{__doc__}")

CONTEXT_TOKENS = 8192  # of one request, or 32 of 256 tokens
SEQUENCES = 32
BATCH_TOKENS = 2048


_silent = c.llama_log_callback(lambda level, text, data: None)  # llama.cpp's log goes nowhere


class Peer:
    """One model, a context for a single prompt and one for many; greedy."""

    def __init__(self, path: str, num_threads: int) -> None:
        c.llama_log_set(_silent, None)
        c.llama_backend_init()
        self._model = c.llama_model_load_from_file(path.encode(), c.llama_model_default_params())
        self._contexts = [self._make_context(num_sequences, num_threads) for num_sequences in (1, SEQUENCES)]
        self._context = self._contexts[0]
        self._batch = c.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._sampler = c.llama_sampler_init_greedy()

    def _make_context(self, num_sequences: int, num_threads: int) -> c.llama_context_p:
        settings = c.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_seq_max = CONTEXT_TOKENS, BATCH_TOKENS, num_sequences
        settings.kv_unified = False
        settings.n_threads = settings.n_threads_batch = num_threads
        return c.llama_init_from_model(self._model, settings)

    def answer(self, prompts: list[list[int]], new_tokens: int) -> dict[str, float]:
        """Reads all prompts, then writes `new_tokens` tokens after each, a token of every answer a step."""
        self._context = self._contexts[len(prompts) > 1]
        c.llama_memory_clear(c.llama_get_memory(self._context), True)
        started = time.perf_counter()
        last = self._read(prompts)
        first_at = time.perf_counter()
        for step in range(1, new_tokens):
            entries = [(token, len(prompts[at]) + step - 1, at, True) for at, token in enumerate(last)]
            self._decode(entries)
            last = [c.llama_sampler_sample(self._sampler, self._context, at) for at in range(len(prompts))]
        ended = time.perf_counter()
        return {
            "prompt_tokens": sum(map(len, prompts)), "new_tokens": new_tokens * len(prompts),
            "prefill_seconds": first_at - started, "decode_seconds": ended - first_at, "seconds": ended - started,
        }  # fmt: skip

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """The first new token of each prompt."""
        entries = [(t, at, i, at == len(ids) - 1) for i, ids in enumerate(prompts) for at, t in enumerate(ids)]
        first = []
        for start in range(0, len(entries), BATCH_TOKENS):
            part = entries[start : start + BATCH_TOKENS]
            self._decode(part)
            ends = [at for at, entry in enumerate(part) if entry[3]]
            first += [c.llama_sampler_sample(self._sampler, self._context, at) for at in ends]
        return first

    def _decode(self, entries: list[tuple[int, int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(entries)
        for at, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, wanted
            batch.seq_id[at][0] = sequence
        if c.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")


def questions() -> Iterator[dict[str, object]]:
    """What `speed.py` asks, until it closes the pipe."""
    for line in sys.stdin:
        yield json.loads(line)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} FILE.gguf THREADS, as `speed.py` calls it\n{__doc__}")
    path, num_threads = sys.argv[1], int(sys.argv[2])
    answer: Callable[..., dict[str, float]] = Peer(path, num_threads).answer
    print(json.dumps({"version": c.__version__}), flush=True)
    for question in questions():
        print(json.dumps(answer(question["prompts"], question["new_tokens"])), flush=True)


if __name__ == "__main__":
    main()
