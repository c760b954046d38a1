"""A model's speed: fresh prompts, honest counts, and the bytes its limits are computed from."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from reference import MIXTURES, make_model, write_gguf
from tiny import CONTEXT, HEADS, HIDDEN, KV_HEADS, LAYERS, WIDTH, vocabulary

from nomoat.bench import model
from nomoat.bench.machine import Machine
from nomoat.engine.fake import FakeEngine
from nomoat.engine.gguf import GGUFFile
from nomoat.errors import UnsupportedError
from nomoat.records import Request
from nomoat.responder import Responder

KV_WIDTH = WIDTH // HEADS * KV_HEADS
LAYER_WEIGHTS = LAYERS * (2 * WIDTH * WIDTH + 2 * KV_WIDTH * WIDTH + 3 * WIDTH * HIDDEN)
LAYER_ROWS = LAYERS * (2 * WIDTH + 2 * KV_WIDTH + 2 * HIDDEN + WIDTH)


def test_real_model_is_timed(tiny_gguf: Path) -> None:
    turns: list[tuple[int, int]] = []
    speed = model.measure_model(str(tiny_gguf), progress=lambda done, total: turns.append((done, total)))
    assert turns == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert CONTEXT - model.NEW_TOKENS - 60 < speed.prompt_tokens <= CONTEXT - model.NEW_TOKENS
    assert 0 < speed.new_tokens <= model.NEW_TOKENS
    assert speed.load_seconds > 0
    assert speed.prefill_tokens_per_second is not None
    assert speed.prefill_tokens_per_second > 0


def test_bytes_read_a_token_are_those_of_the_matrices_and_their_scales(tiny_gguf: Path) -> None:
    weights = model.weights_of(GGUFFile(tiny_gguf))
    words = len(vocabulary())
    assert weights.layer_weights == LAYER_WEIGHTS
    assert weights.read_bytes == LAYER_WEIGHTS + words * WIDTH + 2 * (LAYER_ROWS + words)


def test_of_a_mixture_a_token_reads_the_experts_it_asks_alone(tmp_path: Path) -> None:
    case = MIXTURES["qwen3moe"]
    weights = model.weights_of(GGUFFile(write_gguf(tmp_path / "model.gguf", case, make_model(case))))
    attention, router, expert = (4 + 2 + 2 + 4) * 32 * 64, 24 * 64, 3 * 96 * 64
    assert weights.layer_weights == 2 * (attention + router + 3 * expert)


def test_limits_follow_from_the_machine() -> None:
    machine = Machine(summary="", num_threads=1, read_bytes_per_second_one_thread=1.0, read_bytes_per_second=1000.0, gemm_flops=6000.0)
    weights = model.Weights(read_bytes=10, cache_bytes=1, layer_weights=3, stored_as="int8 rows")
    assert (weights.decode_limit(machine, 0), weights.decode_limit(machine, 30)) == (100.0, 25.0)
    assert weights.prefill_at_float32(machine) == 1000.0


def test_prompts_share_no_beginning_and_are_as_long_as_wanted() -> None:
    """The engine keeps what it has read: a prompt that begins like another would be timed as faster than it is."""
    fake = Responder("fake:", FakeEngine())
    prompts = [model.fresh_prompt(fake, turn) for turn in range(20)]
    assert len({prompt.split()[0] for prompt in prompts}) == 20
    for prompt in prompts:
        pairs = list(itertools.pairwise(prompt.split()))
        assert len(set(pairs)) == len(pairs)  # of two words that come again, the next one could be guessed
        assert model.PROMPT_TOKENS - 8 <= fake.engine.count_tokens(Request(prompt=prompt)) <= model.PROMPT_TOKENS


def test_what_was_not_timed_has_no_speed() -> None:
    speed = model.measure_model("fake:")
    assert (speed.prefill_tokens_per_second, speed.decode_tokens_per_second, speed.weights) == (None, None, None)


@pytest.mark.parametrize("ref", ["openai:gpt-4o-mini", "http://127.0.0.1:9/v1#m"])
def test_model_on_a_server_is_refused_before_it_is_asked(ref: str) -> None:
    with pytest.raises(UnsupportedError) as raised:
        model.measure_model(ref)
    assert raised.value.message == f"`{ref}` is on a server, and bench measures this machine"
    assert raised.value.hint == "`nomoat duel` and `nomoat eval` time the answers of servers"
