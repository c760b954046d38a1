"""What the threads of a team do of a mixture of experts: which of them each token asks, and their products, see `steps`.

A pair is a token and one of the experts it asks. Those of one expert lie beside each other, so its weights are read once.

Shapes: M tokens, E experts, K of them a token asks, P = M K pairs, C columns (inputs).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine.elementwise import add_times, gate
from nomoat.engine.kernels import ROUNDED, round_inputs
from nomoat.engine.step_tables import PIECES, Room, Step
from nomoat.engine.tiles import TILE_ROWS

LEAST_SCORE = np.float32(-3e38)  # of an expert that a token asks already


@jit.kernel
def rate(step: Any, x: Any, room: Any, tokens: Any, threads: Any, me: Any) -> None:
    """One thread's share of the experts: each token's score of them, [M, E]."""
    experts, columns = step[Step.ROWS], step[Step.COLUMNS]
    scores = jit.floats_at(room[Room.EXPERT_SCORES], tokens * experts)
    for e in range(me, experts, threads):
        weight_C = jit.floats_at(step[Step.VECTOR] + 4 * e * columns, columns)
        for m in range(tokens):
            x_C, total = jit.floats_at(x + 4 * m * columns, columns), np.float32(0)
            for c in range(columns):
                total += weight_C[c] * x_C[c]
            scores[m * experts + e] = total


@jit.kernel
def choose(step: Any, room: Any, tokens: Any) -> None:
    """The K experts of the highest scores, weighted by the softmax of these alone, and the order of all pairs."""
    experts, chosen = step[Step.EXPERTS], step[Step.CHOSEN]
    scores = jit.floats_at(room[Room.EXPERT_SCORES], tokens * experts)
    weights = jit.floats_at(room[Room.EXPERT_WEIGHTS], tokens * chosen)
    picks = jit.longs_at(room[Room.EXPERT_PICKS], tokens * chosen)
    for m in range(tokens):
        highest, total = np.float32(0), np.float32(0)
        for pair in range(m * chosen, (m + 1) * chosen):
            best = m * experts
            for at in range(m * experts + 1, (m + 1) * experts):
                if scores[at] > scores[best]:
                    best = at
            if pair == m * chosen:
                highest = scores[best]
            picks[pair], weights[pair] = best - m * experts, jit.exp(scores[best] - highest)
            total += weights[pair]
            scores[best] = LEAST_SCORE
        for pair in range(m * chosen, (m + 1) * chosen):
            weights[pair] /= total
    _order(room, tokens, experts, chosen)


@jit.kernel
def _order(room: Any, tokens: Any, experts: Any, chosen: Any) -> None:
    """Where the pairs of each expert begin, which experts have any, and whose each pair is."""
    picks, places = jit.longs_at(room[Room.EXPERT_PICKS], tokens * chosen), jit.longs_at(room[Room.EXPERT_PLACES], tokens * chosen)
    starts, asked = jit.longs_at(room[Room.EXPERT_STARTS], experts + 1), jit.longs_at(room[Room.EXPERTS_ASKED], experts + 1)
    owners = jit.longs_at(room[Room.EXPERT_TOKENS], tokens * chosen)
    for e in range(experts + 1):
        starts[e] = 0
    for pair in range(tokens * chosen):
        starts[picks[pair] + 1] += 1
    asked[0] = 0
    for e in range(experts):
        if starts[e + 1]:
            asked[0] += 1
            asked[asked[0]] = e
        starts[e + 1] += starts[e]
    for pair in range(tokens * chosen):  # each expert's start moves to its end, and back
        place = starts[picks[pair]]
        starts[picks[pair]] += 1
        places[pair], owners[place] = place, pair // chosen
    for e in range(experts, 0, -1):
        starts[e] = starts[e - 1]
    starts[0] = 0


@jit.kernel
def _round(x: Any, room: Any, pair: Any, columns: Any) -> None:
    n = pair * columns
    round_inputs(
        x,
        room[Room.EXPERT_INPUTS] + n,
        room[Room.EXPERT_SCALES] + n // 8,
        room[Room.EXPERT_TOTALS] + n // 8,
        room[Room.EXPERT_SUMS] + n // 4,
        columns // ROUNDED,
    )


@jit.kernel
def gather(step: Any, x: Any, room: Any, tokens: Any, threads: Any, me: Any) -> None:
    """One thread's share of the pairs: their tokens' inputs, rounded."""
    pairs, columns = tokens * step[Step.CHOSEN], step[Step.COLUMNS]
    owners = jit.longs_at(room[Room.EXPERT_TOKENS], pairs)
    for pair in range(me, pairs, threads):
        _round(x + 4 * owners[pair] * columns, room, pair, columns)


@jit.kernel
def multiply(step: Any, room: Any, taken: Any, threads: Any) -> None:
    """The products of each expert that is asked with its pairs. `taken`: see `steps._multiply`."""
    rows, columns, experts = step[Step.ROWS], step[Step.COLUMNS], step[Step.EXPERTS]
    starts, asked = jit.longs_at(room[Room.EXPERT_STARTS], experts + 1), jit.longs_at(room[Room.EXPERTS_ASKED], experts + 1)
    tiles = rows // TILE_ROWS
    count = asked[0] * tiles
    piece = max(1, count // (PIECES * threads))
    start = jit.add_atomic(taken, piece)
    while start < count:
        for at in range(start, min(start + piece, count)):
            e, t = asked[1 + at // tiles], at % tiles
            tile, pairs, n = step[Step.TILES] + (e * tiles + t) * step[Step.TILE_BYTES], starts[e + 1] - starts[e], starts[e] * columns
            jit.call_with_9(
                step[Step.CODE],
                tile,
                room[Room.EXPERT_INPUTS] + n,
                room[Room.EXPERT_SCALES] + n // 8,
                room[Room.EXPERT_TOTALS] + n // 8,
                room[Room.EXPERT_SUMS] + n // 4,
                room[Room.EXPERT_RESULT] + 4 * (starts[e] * rows + t * TILE_ROWS),
                pairs,
                columns,
                rows,
            )
        start = jit.add_atomic(taken, piece)


@jit.kernel
def gate_pairs(step: Any, room: Any, tokens: Any, threads: Any, me: Any) -> None:
    """One thread's share of the pairs: the gate's results, rounded for the next product."""
    rows = step[Step.ROWS]
    for pair in range(me, tokens * step[Step.CHOSEN], threads):
        here = room[Room.EXPERT_RESULT] + 4 * pair * rows
        gate(here, here + 2 * rows, rows // 2)
        _round(here, room, pair, rows // 2)


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
