"""Attention over keys and values in blocks, one token at a time and a prompt's many at once, beside plain products."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nomoat import footprint, hardware
from nomoat.engine import attention_tables as tables
from nomoat.engine import chain, kv_cache, step_tables
from nomoat.engine.attention_tables import Attention, LaidOut, Row, View
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.step_tables import JOB_NUMBERS

pytestmark = pytest.mark.skipif(not footprint.has_native_kernels(), reason="this CPU has no instructions for nomoat's own products")
THREADS = 2


def kept(numbers_BHTW: Any, size: int, *, keys: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
    """Blocks of keys or values as `kv_cache` has them, and the numbers that they stand for."""
    largest = np.abs(numbers_BHTW).max(-1) / (kv_cache.MOST_SMALL if size == tables.SMALL else kv_cache.MOST_WIDE)
    units = np.linalg.norm(numbers_BHTW, axis=-1) / kv_cache.LENGTH if keys and size == tables.WIDE else largest
    units = units.astype(np.float32)
    whole = np.rint(numbers_BHTW / units[..., None]).astype(np.int8 if size == tables.SMALL else np.int16)
    blocks, heads, tokens, width = whole.shape
    pairs = whole.reshape(blocks, heads, tokens, width // 2, 2).swapaxes(2, 3)
    if not keys:
        pairs = whole.reshape(blocks, heads, tokens // 2, 2, width).swapaxes(3, 4)
    parts = (np.ascontiguousarray(part).reshape(blocks, heads, -1).view(np.uint8) for part in (pairs, units))
    return np.concatenate(list(parts), -1), whole * units[..., None].astype(np.float64)


def drawn_cache(
    texts: list[tuple[int, int]], counts: list[int], listed: Any, new_numbers: tuple[Any, Any], sizes: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], int, Any, Any]:
    """Blocks of a model with one layer, the bytes of its keys in each, and what keys and values stand for, those of new tokens too.

    These are yet to be kept: what nobody wrote may be anything.
    """
    _, kv_heads, width = new_numbers[0].shape
    firsts = np.cumsum(counts) - counts
    parts, known = [], []
    for number, (new, size) in enumerate(zip(new_numbers, sizes, strict=True)):
        drawn = np.random.default_rng(number).standard_normal((sum(counts) + 3, kv_heads, BLOCK_TOKENS, width), np.float32)
        unwritten = np.zeros(drawn.shape[:3], bool)
        m = 0
        for first, count, (past, told) in zip(firsts, counts, texts, strict=True):
            for at in range(past, count * BLOCK_TOKENS):
                unwritten[listed[first + at // BLOCK_TOKENS], :, at % BLOCK_TOKENS] = True
            for at in range(past, past + told):
                drawn[listed[first + at // BLOCK_TOKENS], :, at % BLOCK_TOKENS] = new[m]
                m += 1
        blocks, stands_for = kept(drawn, size, keys=number == 0)
        blocks[:, :, BLOCK_TOKENS * width * size :].view(np.float32)[unwritten] = np.nan
        parts.append(blocks.reshape(len(blocks), -1))
        known.append(stands_for)
    return np.concatenate(parts, 1), parts[0].shape[1], known[0], known[1]


def steps(pieces: int, *, by_amx: bool) -> list[Any]:
    """What attention is done by, in this order."""
    keep, attend, join, *with_amx = chain.ATTENTION_FUNCTIONS
    return [keep, *(with_amx if by_amx else []), attend, *([join] if pieces > 1 else [])]


def attended(
    texts: list[tuple[int, int]],
    *,
    heads: int,
    kv_heads: int,
    width: int = 64,
    window: int = 0,
    cap: float = 0,
    has_sinks: bool = False,
    seed: int = 0,
    pieces: int = 1,
    sizes: tuple[int, int] = (tables.SMALL, tables.SMALL),
    by_amx: bool = step_tables.BY_AMX,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """What the new tokens of texts see, (tokens before, new tokens) each: ours, and by plain products."""
    drawn = np.random.default_rng(seed)
    tokens = sum(new for _, new in texts)
    query, key, value = (
        np.random.default_rng([seed, part]).standard_normal((tokens, count, width), np.float32)
        for part, count in enumerate((heads, kv_heads, kv_heads))
    )
    query *= 3
    counts = [-(-(past + new) // BLOCK_TOKENS) for past, new in texts]
    listed = drawn.permutation(sum(counts) + 3)[: sum(counts)].astype(np.int64)
    cache, key_bytes, known_keys, known_values = drawn_cache(texts, counts, listed, (key, value), sizes)
    told = np.array([(new, past, 1, count, at - 1) for at, ((past, new), count) in enumerate(zip(texts, counts, strict=True))])
    places, first_blocks, owners, wanted, chosen_owners = (np.zeros(tokens, np.int64) for _ in range(5))
    few, many, asked = (np.zeros((len(texts), tables.ROW_NUMBERS), np.int64) for _ in range(3))
    arrays = (np.zeros(tokens, np.float32), places, first_blocks, owners, wanted, chosen_owners, few, many, asked)
    laid = np.zeros(tables.LAID_OUT_NUMBERS, np.int64)
    laid[: LaidOut.NUM_FEW] = (
        told.ctypes.data, len(told), tokens, heads // kv_heads, *(array.ctypes.data for array in arrays)
    )  # fmt: skip
    chain.LAY_OUT.call(laid.ctypes.data)
    num_few, num_many, num_asked, *portions, longest = laid[LaidOut.NUM_FEW :].tolist()
    assert np.array_equal(owners, np.repeat(told[:, 4], told[:, 0]))
    assert np.array_equal(chosen_owners[: len(texts)], told[:, 4])
    assert np.array_equal(wanted[: len(texts)], np.cumsum(told[:, 0]) - 1)
    assert num_few + num_many == num_asked == len(texts)
    assert longest == max(past + new for past, new in texts)
    short = sum(-(-new * heads // kv_heads // tables.PORTION) for _, new in texts if new < tables.MANY_TOKENS)
    assert portions == [short, len(texts) * -(-heads // kv_heads // tables.PORTION)]
    assert asked[:, Row.POSITION].tolist() == [past + new - 1 for past, new in texts]
    seen = np.zeros((tokens, heads, width), np.float32)
    room = np.zeros((THREADS, tables.room_bytes(width)), np.uint8)
    partial = np.zeros(tables.partial_bytes(1000, pieces, width), np.uint8)
    view, job, taken = (
        np.zeros(tables.VIEW_NUMBERS, np.int64),
        np.zeros(JOB_NUMBERS, np.int64),
        np.zeros(2, np.int64),
    )
    scale, most = (int(np.float32(number).view(np.uint32)) for number in (width**-0.5, cap))
    view[: View.ALL_NORMED] = heads, kv_heads, width, 0, scale, most, window, 0, cache.strides[0], *sizes
    nothing = np.zeros(1, np.float32)
    view[View.COSINES : View.TOKENS] = [array.ctypes.data for array in (nothing, nothing, places, first_blocks, few, many)]
    view[View.TOKENS : View.KEEP_CODE] = (
        tokens, listed.ctypes.data, room.ctypes.data, room.shape[1], partial.ctypes.data, pieces, num_few, num_many
    )  # fmt: skip
    job[Attention.VIEW], job[Attention.ATTENDED], job[Attention.NEXT_UNITS], view[View.AMX_CODE] = (
        view.ctypes.data,
        seen.ctypes.data,
        taken.ctypes.data,
        chain.ATTENTION_FUNCTIONS[-1].address if by_amx else 0,
    )
    turned = query.copy()  # in place
    job[[Attention.QUERY, Attention.KEY, Attention.VALUE]] = [array.ctypes.data for array in (turned, key, value)]
    job[[Attention.QUERY_ROW_BYTES, Attention.KEY_ROW_BYTES, Attention.VALUE_ROW_BYTES]] = [
        4 * n * width for n in (heads, kv_heads, kv_heads)
    ]
    sinks = np.linspace(-3, 6, heads, dtype=np.float32)
    job[[Attention.KEYS, Attention.VALUES, Attention.SINKS]] = (
        cache.ctypes.data,
        cache.ctypes.data + key_bytes,
        sinks.ctypes.data if has_sinks else 0,
    )
    for step in steps(pieces, by_amx=by_amx):
        for thread in range(THREADS):  # one after another: the first takes what is dealt by turns
            step.call(job.ctypes.data, thread, THREADS)
    expected = np.zeros_like(seen)
    for m in range(tokens):
        low = max(0, places[m] + 1 - window) if window else 0
        at = np.arange(low, places[m] + 1)
        blocks, within = listed[first_blocks[m] + at // BLOCK_TOKENS], at % BLOCK_TOKENS
        for head in range(heads):
            own = head * kv_heads // heads
            likely = known_keys[blocks, own, within] @ query[m, head] * width**-0.5
            likely = cap * np.tanh(likely / cap) if cap else likely
            weights = np.exp(likely - likely.max())
            shared = weights.sum() + has_sinks * np.exp(sinks[head] - likely.max())
            expected[m, head] = weights / shared @ known_values[blocks, own, within]
    return seen, expected


def require_seen(texts: list[tuple[int, int]], **settings: Any) -> None:
    """That the tokens of these texts see what plain products say, as near as queries and weights of 16 bits allow."""
    seen, expected = attended(texts, **settings)
    np.testing.assert_allclose(seen, expected, atol=2e-3, rtol=2e-3)
    assert np.abs(seen - expected).mean() < 1e-4 * (settings.get("width", 64) / 64) ** 0.5


@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (4, 4), (14, 2), (8, 4), (8, 1)])
@pytest.mark.parametrize(("window", "cap"), [(0, 0), (40, 0), (0, 2.5)])
@pytest.mark.parametrize("pieces", [1, 3])
def test_tokens_see_those_up_to_their_own_place(heads: int, kv_heads: int, window: int, cap: float, pieces: int) -> None:
    """Rows of many tokens, of few and of one, after other tokens and at a beginning, over more than a span of keys."""
    texts = [(0, 300), (70, 1), (500, 25), (3, 7), (31, 33), (600, 1), (299, 2), (520, 23)]
    require_seen(texts, heads=heads, kv_heads=kv_heads, window=window, cap=cap, pieces=pieces)


@pytest.mark.parametrize("window", [0, 40])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_head_s_sink_takes_a_share_of_its_weights_once(window: int, pieces: int) -> None:
    texts = [(0, 300), (70, 1), (500, 25), (3, 7), (31, 33), (600, 1), (299, 2)]
    require_seen(texts, heads=8, kv_heads=1, window=window, pieces=pieces, has_sinks=True)


@pytest.mark.parametrize("width", [80, 96, 256])
@pytest.mark.parametrize(
    "sizes",
    [
        (tables.SMALL, tables.SMALL),
        (tables.WIDE, tables.SMALL),
        (tables.WIDE, tables.WIDE),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3])
def test_heads_may_have_any_width_that_models_have(width: int, sizes: tuple[int, int], pieces: int) -> None:
    require_seen([(0, 60), (70, 1), (290, 30), (600, 1)], heads=6, kv_heads=2, width=width, sizes=sizes, pieces=pieces)


def test_what_a_token_of_a_prompt_sees_does_not_depend_on_what_comes_after_it() -> None:
    whole, _ = attended([(0, 300)], heads=9, kv_heads=3)
    for tokens in (24, 100, 257):
        part, _ = attended([(0, tokens)], heads=9, kv_heads=3)
        assert np.array_equal(part, whole[:tokens])


OTHER_CPU = """
from nomoat import hardware
hardware.cpu_flags = lambda: frozenset({"avx2", "fma", "f16c"})
from tests.engine.test_attention import require_seen
for sizes in ((1, 1), (2, 2)):
    require_seen([(0, 60), (70, 1), (31, 33), (300, 4)], heads=6, kv_heads=2, pieces=2, sizes=sizes)
"""


@pytest.mark.skipif("avx2" not in hardware.cpu_flags(), reason="this CPU has no AVX2")
def test_a_cpu_with_avx2_alone_sees_the_same(empty_home: Path) -> None:
    """With vectors of half the width, in a home of its own: its code is compiled anew, as it is written, which takes half as long."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "NUMBA_OPT": "0"}
    subprocess.run([sys.executable, "-c", OTHER_CPU], check=True, env=environment)


@pytest.mark.skipif(not step_tables.BY_AMX, reason="this CPU has no AMX, or the system does not give it")
@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        ([(0, 300), (500, 25), (31, 33)], {"heads": 9, "kv_heads": 3}),
        ([(0, 600)], {"heads": 14, "kv_heads": 2, "sizes": (tables.WIDE, tables.SMALL)}),
        ([(0, 24), (290, 30)], {"heads": 6, "kv_heads": 6, "width": 80, "cap": 2.5}),
        ([(0, 300)], {"heads": 6, "kv_heads": 2, "width": 80, "cap": 2.5, "sizes": (tables.WIDE, tables.WIDE)}),
        ([(70, 400)], {"heads": 4, "kv_heads": 2, "width": 96, "window": 40}),
        ([(0, 300)], {"heads": 4, "kv_heads": 1, "width": 128, "window": 257, "sizes": (tables.WIDE, tables.WIDE)}),
        ([(5, 100)], {"heads": 2, "kv_heads": 1, "width": 256, "sizes": (tables.WIDE, tables.WIDE)}),
        ([(0, 300)], {"heads": 8, "kv_heads": 2, "window": 128, "has_sinks": True}),
    ],
)
def test_with_amx_and_without_it_tokens_see_the_very_same(texts: list[tuple[int, int]], settings: dict[str, Any]) -> None:
    """To the last bit, so that a text's answer does not depend on which of the two read it."""
    with_it, without_it = (attended(texts, by_amx=by_amx, **settings)[0] for by_amx in (True, False))
    assert np.array_equal(with_it, without_it)


def test_keys_are_seen_in_pieces_where_threads_had_unlike_shares_else() -> None:
    assert [tables.pieces(3, 1800, threads) for threads in (1, 2, 3, 8)] == [1, 2, 1, 8]
    assert tables.pieces(3, 255, 2) == 1  # too short
    assert tables.pieces(8, 1800, 2) == 1  # enough of them
    assert tables.pieces(7, 10_000, 64) == 37  # not seven for each of 64
