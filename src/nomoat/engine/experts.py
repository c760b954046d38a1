"""What the threads of a team do of a mixture of experts: which of them each token asks, and their products, see `steps`.

A pair is a token and one of the experts it asks. Those of one expert lie beside each other, so its weights are read once.

Shapes: M tokens, E experts, K of them a token asks, C columns (inputs).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import amx, panels
from nomoat.engine.elementwise import add, add_times, clamped_gate, copy, gate
from nomoat.engine.products import multiply_in_place, multiply_pair, multiply_tile, round_some
from nomoat.engine.step_tables import (
    BY_AMX,
    COPY_BYTES,
    INPUT_BYTES,
    PAIR_ROOM,
    PANEL_TOKENS,
    PIECES,
    ROOM_NUMBERS,
    STEP_NUMBERS,
    SUMS_BYTES,
    Kind,
    Room,
    Step,
)
from nomoat.engine.tiles import TILE_ROWS

LEAST_SCORE = np.float32(-3e38)  # of an expert that a token asks already
LOWEST_SCORE = np.float32(-1e38)  # of others, and in place of no number: else a token would ask one expert several times


@jit.kernel
def rate(step: Any, x: Any, room: Any, tokens: Any, threads: Any, me: Any) -> None:
    """One thread's share of the experts: each token's score of them, [M, E], or [M, E + 1] with a shared one, which is the last."""
    scored, columns = step[Step.ROWS], step[Step.COLUMNS]
    scores = jit.floats_at(room[Room.EXPERT_SCORES], tokens * scored)
    biases = jit.floats_at(step[Step.VECTOR] + 4 * scored * columns, scored)
    for e in range(me, scored, threads):
        weight_C = jit.floats_at(step[Step.VECTOR] + 4 * e * columns, columns)
        for m in range(tokens):
            x_C, total = jit.floats_at(x + 4 * m * columns, columns), biases[e]
            for c in range(columns):
                total += weight_C[c] * x_C[c]
            scores[m * scored + e] = total if total > LOWEST_SCORE else LOWEST_SCORE


@jit.kernel
def choose(step: Any, room: Any, tokens: Any, share: Any) -> None:
    """The K experts of the highest scores, weighted by the softmax of these alone or of all, and the order of all pairs: see
    `_order`."""
    experts, chosen, scored = step[Step.EXPERTS], step[Step.CHOSEN], step[Step.ROWS]
    scores = jit.floats_at(room[Room.EXPERT_SCORES], tokens * scored)
    weights = jit.floats_at(room[Room.EXPERT_WEIGHTS], tokens * chosen)
    picks = jit.longs_at(room[Room.EXPERT_PICKS], tokens * chosen)
    for m in range(tokens):
        highest, total = np.float32(0), np.float32(0)
        for pair in range(m * chosen, (m + 1) * chosen):
            best = m * scored
            for at in range(m * scored + 1, m * scored + experts):
                if scores[at] > scores[best]:
                    best = at
            if pair == m * chosen:
                highest = scores[best]
            picks[pair], weights[pair] = best - m * scored, jit.exp(scores[best] - highest)
            total += weights[pair]
            scores[best] = LEAST_SCORE
        if step[Step.KIND] == Kind.CHOOSE_OF_ALL:
            for at in range(m * scored, m * scored + experts):
                total += jit.exp(scores[at] - highest)
        for pair in range(m * chosen, (m + 1) * chosen):
            weights[pair] /= total
    _order(room, tokens, experts, chosen, share)


@jit.kernel
def _order(room: Any, tokens: Any, experts: Any, chosen: Any, share: Any) -> None:
    """Where the pairs of each expert begin, at a multiple of `share`, how many they are, which experts have any, and whose each is."""
    picks, places = jit.longs_at(room[Room.EXPERT_PICKS], tokens * chosen), jit.longs_at(room[Room.EXPERT_PLACES], tokens * chosen)
    starts, counts = jit.longs_at(room[Room.EXPERT_STARTS], experts), jit.longs_at(room[Room.EXPERT_COUNTS], experts)
    asked = jit.longs_at(room[Room.EXPERTS_ASKED], experts + 1)
    for e in range(experts):
        counts[e] = 0
    for pair in range(tokens * chosen):
        counts[picks[pair]] += 1
    asked[0], end = 0, 0
    for e in range(experts):
        starts[e] = end
        end += -(-counts[e] // share) * share
        if counts[e]:
            asked[0] += 1
            asked[asked[0]] = e
            counts[e] = 0
    owners = jit.longs_at(room[Room.EXPERT_TOKENS], end)
    for pair in range(tokens * chosen):
        e = picks[pair]
        places[pair] = starts[e] + counts[e]
        owners[places[pair]] = pair // chosen
        counts[e] += 1


@jit.kernel
def _see(room: Any, first: Any, columns: Any, chunk: Any) -> None:
    """Let a thread's `room` have the inputs of an expert whose first pair is this one. A panel takes whole chunks."""
    n = first * -(-columns // chunk) * chunk
    room[Room.INPUTS], room[Room.SCALES] = room[Room.EXPERT_INPUTS] + INPUT_BYTES * n, room[Room.EXPERT_SCALES] + n // 8
    room[Room.TOTALS], room[Room.SUMS] = room[Room.EXPERT_TOTALS] + n // 8, room[Room.EXPERT_SUMS] + n // 4


@jit.kernel
def round_pairs(step: Any, x: Any, room: Any, chunk: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of all pairs: their tokens' inputs, or (x: 0) what the gate makes of the products before, rounded.

    `share`: pairs of an expert that one thread takes at a time, a panel or one.
    """
    experts, columns = step[Step.EXPERTS], step[Step.COLUMNS] if x else step[Step.ROWS] // 2
    row_bytes = 4 * columns if x else 4 * step[Step.ROWS]
    starts, counts = jit.longs_at(room[Room.EXPERT_STARTS], experts), jit.longs_at(room[Room.EXPERT_COUNTS], experts)
    asked, units = jit.longs_at(room[Room.EXPERTS_ASKED], experts + 1), 0
    for at in range(1, asked[0] + 1):
        first, count = starts[asked[at]], counts[asked[at]]
        owners = jit.longs_at(room[Room.EXPERT_TOKENS] + 8 * first, count)
        here, blocks = room[Room.EXPERT_RESULT] + first * row_bytes, -(-count // PANEL_TOKENS) if share > 1 else 0
        _see(room, first, columns, chunk)
        for start in range(0, count, share):
            end = min(start + share, count)
            if units % threads == me:
                for m in range(start, end):
                    if x:
                        copy(x + owners[m] * row_bytes, here + m * row_bytes, columns)
                    elif step[Step.KIND] == Kind.EXPERTS_CLAMPED:
                        clamped_gate(here + m * row_bytes, here + m * row_bytes + 4 * columns, columns)
                    else:
                        gate(here + m * row_bytes, here + m * row_bytes + 4 * columns, columns)
                round_some(here, row_bytes, room, start, end, columns, chunk, blocks)
            units += 1


@jit.kernel
def multiply(step: Any, room: Any, chunk: Any, share: Any, taken: Any, threads: Any, me: Any) -> None:
    """The products of each expert that is asked with its pairs. `taken`: see `steps._multiply`, of two tiles each."""
    rows, columns, experts = step[Step.ROWS], step[Step.COLUMNS], step[Step.EXPERTS]
    starts, counts = jit.longs_at(room[Room.EXPERT_STARTS], experts), jit.longs_at(room[Room.EXPERT_COUNTS], experts)
    asked, of_expert = jit.longs_at(room[Room.EXPERTS_ASKED], experts + 1), step[Step.ROWS] // TILE_ROWS
    own = jit.longs_at(room[Room.COPIES] + COPY_BYTES * me + 16 * ROOM_NUMBERS, STEP_NUMBERS)
    for at in range(STEP_NUMBERS):
        own[at] = step[at]
    twos = -(-of_expert // 2)
    piece = max(1, asked[0] * twos // (PIECES * threads))
    start = jit.add_atomic(taken, piece)
    while start < asked[0] * twos:
        for at in range(start, min(start + piece, asked[0] * twos)):
            e, t = asked[1 + at // twos], 2 * (at % twos)
            _see(room, starts[e], columns, chunk)
            own[Step.TILES] = step[Step.TILES] + e * of_expert * step[Step.TILE_BYTES]
            own[Step.VECTOR] = step[Step.VECTOR] + 4 * e * rows if step[Step.VECTOR] else 0
            y = room[Room.EXPERT_RESULT] + 4 * starts[e] * rows
            _multiply_two(own, room, y, counts[e], share, t, min(t + 1, of_expert - 1), me)
        start = jit.add_atomic(taken, piece)


@jit.kernel
def _multiply_two(step: Any, room: Any, y: Any, count: Any, share: Any, first: Any, second: Any, me: Any) -> None:
    """Two tiles of an expert and its pairs, with their biases."""
    sums, none = room[Room.PAIRS] + me * PAIR_ROOM, np.int64(0)
    if share == 1:
        for t in range(first, second + 1):
            multiply_tile(step, room, y, count, t)
            for m in range(count if step[Step.VECTOR] else 0):
                add(step[Step.VECTOR] + 4 * t * TILE_ROWS, y + 4 * (m * step[Step.ROWS] + t * TILE_ROWS), TILE_ROWS)
    elif BY_AMX:
        amx.take_registers(count)
        multiply_in_place(step, step, room, none, count, first, second, sums, y)
    else:
        multiply_pair(step, step, room, none, count, -(-count // PANEL_TOKENS), first, second, sums)
        for t in range(first, second + 1):
            panels.write_sums(sums + (t - first) * SUMS_BYTES, y + 4 * t * TILE_ROWS, count, 4 * step[Step.ROWS])


@jit.kernel
def add_up(step: Any, room: Any, residual: Any, tokens: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: what the experts of each gave, by their weights."""
    rows, chosen = step[Step.ROWS], step[Step.CHOSEN]
    places = jit.longs_at(room[Room.EXPERT_PLACES], tokens * chosen)
    weights = jit.floats_at(room[Room.EXPERT_WEIGHTS], tokens * chosen)
    for start in range(me * share, tokens, threads * share):
        for m in range(start, min(start + share, tokens)):
            for pair in range(m * chosen, (m + 1) * chosen):
                add_times(room[Room.EXPERT_RESULT] + 4 * places[pair] * rows, weights[pair], residual + 4 * m * rows, rows)


@jit.kernel
def add_shared(step: Any, y: Any, room: Any, residual: Any, tokens: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: what the expert gave that all ask, y, by the sigmoid of its score."""
    rows, scored = step[Step.ROWS], step[Step.EXPERTS] + 1
    scores = jit.floats_at(room[Room.EXPERT_SCORES], tokens * scored)
    for start in range(me * share, tokens, threads * share):
        for m in range(start, min(start + share, tokens)):
            weight = np.float32(1) / (np.float32(1) + jit.exp(-scores[(m + 1) * scored - 1]))
            add_times(y + 4 * m * rows, weight, residual + 4 * m * rows, rows)
