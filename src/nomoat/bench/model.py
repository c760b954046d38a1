"""How fast a model reads and writes on this machine, and how near that comes to the machine's limits.

Each turn has a prompt of its own, other from its first word on: the engine keeps what it has read, and would read nothing twice.

What this does not cover: several requests at once, long contexts, models on servers.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from string import ascii_lowercase

from nomoat import footprint, references
from nomoat import responder as responders
from nomoat.bench.machine import Machine
from nomoat.engine import importer
from nomoat.engine.gguf import Tensor
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.source import ModelSource, open_source
from nomoat.errors import UnsupportedError
from nomoat.progress import Progress
from nomoat.providers import is_remote
from nomoat.records import Request, Usage
from nomoat.responder import Responder

TURNS = 3
PROMPT_TOKENS = 512
NEW_TOKENS = 64
FEWEST_NEW_TOKENS = 16  # of a shorter answer the speed says little
DRAWN_AT, DRAWN_FROM = 2.0, 64  # the temperature; the likeliest tokens
LETTERS = range(3, 9)  # of a prompt's words


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a model's weights are to the machine, as the engine keeps them.

    `read_bytes`: read for each new token, the output matrix included, an embedding table of its own not, nor experts that it does not
    ask. `cache_bytes`: keys and values of each token before it, which it reads, too.
    `layer_weights`: weights each token of a prompt is multiplied with; the output matrix is needed for the last token only.
    """

    read_bytes: int
    cache_bytes: int
    layer_weights: int
    stored_as: str

    def bytes_a_token(self, context_tokens: float) -> float:
        """Read for a new token after so many."""
        return self.read_bytes + self.cache_bytes * context_tokens

    def decode_limit(self, machine: Machine, context_tokens: float) -> float:
        """New tokens per second after so many if memory did nothing but deliver what they read."""
        return machine.read_bytes_per_second / self.bytes_a_token(context_tokens)

    def prefill_at_float32(self, machine: Machine) -> float:
        """Prompt tokens per second of float32 arithmetic, a multiplication and an addition a weight. The engine's int8 may beat it."""
        return machine.gemm_flops / (2 * self.layer_weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpeed:
    """The best of `turns` turns. Tokens per second are None where nothing could be timed.

    `load_seconds`: from nothing to the first token of a first answer, the import of a new file included.
    """

    model: str
    turns: int
    prompt_tokens: int
    new_tokens: int
    load_seconds: float
    prefill_tokens_per_second: float | None
    decode_tokens_per_second: float | None
    weights: Weights | None

    @property
    def context_tokens(self) -> float:
        """Before a new token, in the mean."""
        return self.prompt_tokens + self.new_tokens / 2


def measure_model(
    ref: str, *, import_progress: Progress | None = None, compiling: Progress | None = None,
    progress: Progress = lambda done, total: None,
) -> ModelSpeed:  # fmt: skip
    """Load a local model and time it, one request at a time. Raises what `load` raises; UnsupportedError for a model on a server."""
    if is_remote(ref):
        raise UnsupportedError(
            f"`{ref}` is on a server, and bench measures this machine",
            hint="`nomoat duel` and `nomoat eval` time the answers of servers",
        )
    started = time.perf_counter()
    with responders.load(ref, progress=import_progress, compiling=compiling) as model:
        model.complete(Request(prompt="moat", max_new_tokens=1))
        load_seconds = time.perf_counter() - started
        usages: list[Usage] = []
        for turn in range(TURNS):
            progress(turn, TURNS)
            usages.append(model.complete(request_for(fresh_prompt(model, turn), seed=turn)).usage)
        progress(TURNS, TURNS)
    long_enough = [usage for usage in usages if usage.completion_tokens >= FEWEST_NEW_TOKENS]
    return ModelSpeed(
        model=ref,
        turns=TURNS,
        prompt_tokens=max(usage.prompt_tokens for usage in usages),
        new_tokens=max(usage.completion_tokens for usage in usages),
        load_seconds=load_seconds,
        prefill_tokens_per_second=max(usage.prefill_tokens_per_second for usage in usages) or None,
        decode_tokens_per_second=max((usage.decode_tokens_per_second for usage in long_enough), default=0.0) or None,
        weights=_weights(ref),
    )


def request_for(prompt: str, *, seed: int) -> Request:
    """An answer drawn from nearly all words alike, of which hardly any can be guessed beforehand: a pass gives one token."""
    return Request(prompt=prompt, max_new_tokens=NEW_TOKENS, temperature=DRAWN_AT, top_k=DRAWN_FROM, seed=seed)


def fresh_prompt(model: Responder, turn: int) -> str:
    """Letters drawn by chance, in which hardly any two tokens come twice, so that no answer is guessed from them, and no other turn
    begins alike: about 512 tokens, or what leaves room for an answer in a short context.
    """
    context_tokens = model.engine.context_tokens
    wanted = PROMPT_TOKENS if context_tokens is None else min(PROMPT_TOKENS, context_tokens - NEW_TOKENS)
    chance = random.Random(turn)
    text = f"{turn}"
    while True:
        words = ("".join(chance.choices(ascii_lowercase, k=chance.choice(LETTERS))) for _ in range(4))
        longer = f"{text} {' '.join(words)}"
        if model.engine.count_tokens(Request(prompt=longer)) > wanted:
            return text
        text = longer


def weights_of(file: ModelSource) -> Weights:
    """What the engine makes of a file's matrices at the quality that is set."""
    from nomoat.engine.tied_embeddings import output_tensor

    stored = importer.planned(file)
    sizes = importer.read_sizes(file)
    family = str(file.require("general.architecture"))
    kv_sizes = footprint.foretold_kv_sizes(family, sizes.head_dim, keeps_codes=stored.has_tiles, quality=stored.quality)
    matrices = {name: tensor for name, tensor in file.tensors.items() if tensor.is_matrix}
    layers = [tensor for name, tensor in matrices.items() if name.startswith("blk.")]

    def asked(tensor: Tensor) -> float:
        """The share of a matrix, or of one for each expert, that a token is multiplied with."""
        return sizes.experts_chosen / sizes.experts if len(tensor.shape) == 3 else 1

    return Weights(
        read_bytes=round(sum(stored.tensor_bytes(tensor) * asked(tensor) for tensor in [*layers, matrices[output_tensor(file)]])),
        cache_bytes=footprint.kv_bytes_a_token(sizes.layers, sizes.kv_heads, sizes.head_dim, kv_sizes),
        layer_weights=round(sum(tensor.num_values * asked(tensor) for tensor in layers)),
        stored_as=f"{stored} (quality {stored.quality}: {stored.reason})",
    )


def _weights(ref: str) -> Weights | None:
    """None for the fake engine, which has none, and for what optimum-intel converts: what of it a token reads is not known."""
    if ref == references.FAKE:
        return None
    source = open_source(references.find_files(ref).weights)
    return None if isinstance(source, ForeignFolder) else weights_of(source)
