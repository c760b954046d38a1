"""Products of a step's tiles with the inputs of a part's tokens, and how inputs are rounded for them, see `steps`.

Shapes: M tokens, R rows (outputs), C columns (inputs).
"""

from __future__ import annotations

from typing import Any

from nomoat import jit
from nomoat.engine import amx, amx_bytes, panels
from nomoat.engine.kernels import ROUNDED, round_inputs
from nomoat.engine.step_tables import (
    AMX_CHUNK,
    B_TILE_NUMBERS,
    BY_AMX,
    BYTE_CHUNKS,
    CHUNK_SUMS_AFTER,
    CODES_AFTER,
    PAIR_COLUMNS,
    PANEL_TOKENS,
    SCALES_AFTER,
    SUMS_BYTES,
    ZEROS_AFTER,
    AdapterStep,
    BTile,
    Kind,
    Room,
    Step,
)
from nomoat.engine.tiles import TILE_ROWS


@jit.kernel
def multiply_tile(step: Any, room: Any, y: Any, tokens: Any, t: Any) -> None:
    columns, rows = step[Step.COLUMNS], step[Step.ROWS]
    inputs, scales, totals, sums = room[Room.INPUTS], room[Room.SCALES], room[Room.TOTALS], room[Room.SUMS]
    tile, here = step[Step.TILES] + t * step[Step.TILE_BYTES], y + t * 4 * TILE_ROWS
    jit.call_with_9(step[Step.CODE], tile, inputs, scales, totals, sums, here, tokens, columns, rows)


@jit.kernel
def add_beside(beside: Any, room: Any, owners: Any, y: Any, row_bytes: Any, tokens: Any, t: Any) -> None:
    """What each token's adapter adds to a tile's rows of a result: B's rows times what A made of the inputs.

    `beside`: an `AdapterStep`. `owners`: the address of each token's adapter, -1 for none.
    """
    owner_M, hidden_bytes = jit.longs_at(owners, tokens), 4 * beside[Step.ROWS]
    m = 0
    while m < tokens:
        owner, end = owner_M[m], m + 1
        while end < tokens and owner_M[end] == owner:
            end += 1
        if owner >= 0:
            place = jit.longs_at(
                beside[AdapterStep.B_TILES] + 8 * B_TILE_NUMBERS * (owner * beside[AdapterStep.NUM_TILES] + t), B_TILE_NUMBERS
            )
            hidden = room[Room.HIDDEN] + 4 * place[BTile.FIRST_RANK]
            while end - m >= panels.RANKS_TOGETHER:
                panels.add_ranks_together(
                    place[BTile.WEIGHTS], hidden + m * hidden_bytes, hidden_bytes, place[BTile.RANK], y + m * row_bytes, row_bytes
                )
                m += panels.RANKS_TOGETHER
            while m < end:
                panels.add_ranks(
                    place[BTile.WEIGHTS], hidden + m * hidden_bytes, hidden_bytes, place[BTile.RANK], y + m * row_bytes, row_bytes
                )
                m += 1
        m = end


@jit.kernel
def _multiply_words(
    step: Any, room: Any, tokens: Any, first: Any, second: Any, words: Any, starts: Any, start_tile_bytes: Any, start_row_bytes: Any,
    sums: Any, tile_bytes: Any, row_bytes: Any,
) -> None:  # fmt: skip
    """The products of two tiles and the panels of a part, in bf16; for places see `amx.panel_product`."""
    columns, group = step[Step.COLUMNS], step[Step.GROUP]
    at_once = -(-columns // (-(-columns // PAIR_COLUMNS) * amx.STEP)) * amx.STEP
    for start in range(0, columns, at_once):
        width = min(at_once, columns - start)
        for tile, t in enumerate((first, second)):
            here, there = step[Step.TILES] + t * step[Step.TILE_BYTES], words + tile * (amx.ROW_BYTES // 2)
            jit.call_with_5(step[Step.PANELS_CODE], here, start // group, width // group, there, 0)
        amx.panel_product(
            words,
            room[Room.INPUTS] + start * amx.COLUMN_BYTES,
            starts,
            start_tile_bytes,
            start_row_bytes,
            sums,
            tile_bytes,
            row_bytes,
            columns * amx.COLUMN_BYTES,
            width // amx.STEP,
            tokens,
        )
        starts, start_tile_bytes, start_row_bytes = sums, tile_bytes, row_bytes


@jit.kernel
def _multiply_amx_bytes(
    step: Any, room: Any, tokens: Any, first: Any, second: Any, own: Any, starts: Any, start_tile_bytes: Any, start_row_bytes: Any,
    sums: Any, tile_bytes: Any, row_bytes: Any,
) -> None:  # fmt: skip
    """The same in 8 bits by AMX. `own`: where a thread's memory begins."""
    columns, group, codes, scales = step[Step.COLUMNS], step[Step.GROUP], own + CODES_AFTER, own + SCALES_AFTER
    chunks, factor_bytes = -(-columns // AMX_CHUNK), 4 * -(-tokens // PANEL_TOKENS) * PANEL_TOKENS
    steps, parts = -(-columns // amx_bytes.STEP), -(-chunks // BYTE_CHUNKS)
    at_once = -(-chunks // parts) * AMX_CHUNK
    for start in range(0, columns, at_once):
        width = min(at_once, columns - start)
        for c in range(start, start + width, AMX_CHUNK):
            number, groups = c - start, min(AMX_CHUNK, columns - c) // group
            for tile, t in enumerate((first, second)):
                here, there = (
                    step[Step.TILES] + t * step[Step.TILE_BYTES],
                    codes + number // 4 * panels.FOUR_BYTES + tile * 4 * TILE_ROWS,
                )
                of_rows = scales + number // AMX_CHUNK * amx_bytes.CHUNK_SCALES + tile * 4 * TILE_ROWS
                jit.call_with_5(step[Step.PANELS_CODE], here, c // group, groups, there, of_rows)
        amx_bytes.panel_product(
            codes,
            scales,
            room[Room.INPUTS] + start * amx_bytes.COLUMN_BYTES,
            room[Room.SCALES] + start // AMX_CHUNK * factor_bytes,
            factor_bytes,
            starts,
            start_tile_bytes,
            start_row_bytes,
            sums,
            tile_bytes,
            row_bytes,
            steps * amx_bytes.STEP * amx_bytes.COLUMN_BYTES,
            -(-width // amx_bytes.STEP),
            tokens,
            own + CHUNK_SUMS_AFTER,
        )
        starts, start_tile_bytes, start_row_bytes = sums, tile_bytes, row_bytes


@jit.kernel
def _multiply_amx(
    step: Any, room: Any, tokens: Any, first: Any, second: Any, own: Any, starts: Any, start_tile_bytes: Any,
    start_row_bytes: Any, sums: Any, tile_bytes: Any, row_bytes: Any,
) -> None:  # fmt: skip
    """By AMX in the step's form, 8 bits or bf16. `own`: where a thread's memory begins."""
    if step[Step.CHUNK] == AMX_CHUNK:
        _multiply_amx_bytes(
            step, room, tokens, first, second, own, starts, start_tile_bytes, start_row_bytes, sums, tile_bytes, row_bytes
        )
    else:
        _multiply_words(
            step,
            room,
            tokens,
            first,
            second,
            own + CODES_AFTER,
            starts,
            start_tile_bytes,
            start_row_bytes,
            sums,
            tile_bytes,
            row_bytes,
        )


@jit.kernel
def _multiply_bytes(
    step: Any, room: Any, tokens: Any, blocks: Any, first: Any, second: Any, scales: Any, codes: Any, starts: Any,
    start_tile_bytes: Any, sums: Any,
) -> None:  # fmt: skip
    """The same in 8 bits by other instructions. The sums of a tile's tokens lie together."""
    for tile in range(2):
        panels.begin_sums(sums + tile * SUMS_BYTES, starts + tile * start_tile_bytes, blocks * PANEL_TOKENS)
    columns, group, chunk = step[Step.COLUMNS], step[Step.GROUP], step[Step.CHUNK]
    for start in range(0, columns, chunk):
        width = min(chunk, columns - start)
        for tile, t in enumerate((first, second)):
            here, there = step[Step.TILES] + t * step[Step.TILE_BYTES], codes + tile * (panels.FOUR_BYTES // 2)
            jit.call_with_5(step[Step.PANELS_CODE], here, start // group, width // group, there, scales + tile * 4 * TILE_ROWS)
        number = 4 * (start // chunk) * blocks * PANEL_TOKENS
        inputs, factors, firsts = (
            room[Room.INPUTS] + start * blocks * PANEL_TOKENS,
            room[Room.SCALES] + number,
            room[Room.SUMS] + number,
        )
        panels.panel_product(
            codes, scales, inputs, factors, firsts, sums, SUMS_BYTES, chunk * PANEL_TOKENS, width // 4, blocks, tokens
        )


@jit.kernel
def _starts(step: Any, first: Any, second: Any, zeros: Any) -> Any:
    """Where what the sums of two tiles begin with lies, the same for all tokens, and how far it is to the second's."""
    if step[Step.VECTOR]:
        return step[Step.VECTOR] + 4 * first * TILE_ROWS, 4 * (second - first) * TILE_ROWS
    return zeros, 0


@jit.kernel
def multiply_pair(
    step: Any, beside: Any, room: Any, owners: Any, tokens: Any, blocks: Any, first: Any, second: Any, sums: Any
) -> None:
    """The products of two tiles and the panels of a part, with their biases. What they need themselves lies after the sums."""
    codes = sums + CODES_AFTER
    starts, to_second = _starts(step, first, second, sums + ZEROS_AFTER)
    if BY_AMX:
        _multiply_amx(step, room, tokens, first, second, sums, starts, to_second, 0, sums, SUMS_BYTES, 4 * TILE_ROWS)
    else:
        _multiply_bytes(step, room, tokens, blocks, first, second, sums + SCALES_AFTER, codes, starts, to_second, sums)
    if owners:
        for tile, t in enumerate((first, second)):
            add_beside(beside, room, owners, sums + tile * SUMS_BYTES, 4 * TILE_ROWS, tokens, t)


@jit.kernel
def multiply_in_place(step: Any, beside: Any, room: Any, owners: Any, tokens: Any, first: Any, second: Any, own: Any, y: Any) -> None:
    """The same by AMX, written or added to y without a detour. `own`: where a thread's memory begins."""
    row_bytes, to_second, here = 4 * step[Step.ROWS], 4 * (second - first) * TILE_ROWS, y + 4 * first * TILE_ROWS
    starts, start_to_second = _starts(step, first, second, own + ZEROS_AFTER)
    start_row_bytes = 0
    if step[Step.KIND] == Kind.ADD:
        starts, start_to_second, start_row_bytes = here, to_second, row_bytes
    _multiply_amx(step, room, tokens, first, second, own, starts, start_to_second, start_row_bytes, here, to_second, row_bytes)
    if owners:
        for t in range(first, second + 1):
            add_beside(beside, room, owners, y + 4 * t * TILE_ROWS, row_bytes, tokens, t)


@jit.kernel
def round_panels(
    x: Any, row_bytes: Any, places: Any, scales: Any, firsts: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any
) -> None:
    for m in range(first, end, panels.ROUNDED_TOGETHER):
        panel = places + m // PANEL_TOKENS * chunk * PANEL_TOKENS + 4 * (m % PANEL_TOKENS)
        left = min(panels.ROUNDED_TOGETHER, end - m)
        panels.round_into_panel(x + m * row_bytes, row_bytes, left, panel, scales + 4 * m, firsts + 4 * m, columns, chunk, blocks)


@jit.kernel
def round_for_amx(
    x: Any, row_bytes: Any, places: Any, scales: Any, first: Any, end: Any, width: Any, columns: Any, chunk: Any, blocks: Any
) -> None:
    """So many columns, of all that a panel has, into their places. `x`: where the first token's lie."""
    if chunk == AMX_CHUNK:
        panel_bytes = -(-columns // amx_bytes.STEP) * amx_bytes.STEP * amx_bytes.COLUMN_BYTES
        amx_bytes.round_into_panels(x, row_bytes, first, end, width, places, panel_bytes, scales, 4 * blocks * PANEL_TOKENS)
    else:
        amx.round_into_panels(x, row_bytes, first, end, width, places, columns * amx.COLUMN_BYTES)


@jit.kernel
def round_some(x: Any, row_bytes: Any, room: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any) -> None:
    if blocks and BY_AMX:
        here = x + first * row_bytes
        round_for_amx(here, row_bytes, room[Room.INPUTS], room[Room.SCALES], first, end, columns, columns, chunk, blocks)
        return
    if blocks:
        round_panels(x, row_bytes, room[Room.INPUTS], room[Room.SCALES], room[Room.SUMS], first, end, columns, chunk, blocks)
        return
    for m in range(first, end):
        n, here = m * columns, x + m * row_bytes
        round_inputs(
            here,
            room[Room.INPUTS] + n,
            room[Room.SCALES] + n // 8,
            room[Room.TOTALS] + n // 8,
            room[Room.SUMS] + n // 4,
            columns // ROUNDED,
        )
