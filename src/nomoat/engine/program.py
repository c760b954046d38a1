"""Steps between two layers' attention (products, norms, gates), done by a team of threads; see `product.BetweenAttentions`.

Compiled by numba at the first use, once a machine (some seconds).

Shapes: M tokens, R rows (outputs), C columns (inputs), W width.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nomoat import config, jit, paths
from nomoat.engine import attention
from nomoat.engine.kernels import CACHE_LINE, GROUPS, PRODUCTS, ROUNDED, round_inputs
from nomoat.engine.panels import (
    CAN_BE_USED,
    CHUNK,
    FINE_PANELS_FROM,
    FOUR_BYTES,
    NARROW,
    NARROW_CHUNK,
    PAIR_BYTES,
    PANEL_TOKENS,
    PANELS_FROM,
    ROUNDED_TOGETHER,
    TO_BYTES,
    add_sums,
    begin_sums,
    panel_product,
    round_into_panel,
    write_sums,
)
from nomoat.engine.team import JOB, SHARE, SHARED, SLEEPING, THREADS, TICKET, Team
from nomoat.engine.tiles import BLOCKS, TILE_BYTES, TILE_ROWS
from nomoat.engine.vectors import add, add_norm, copy, copy_rows, gate, gelu_gate, norm

KINDS = ("add", "hold", "add_norm", "norm", "gated", "gelu_gated", "out")
ADD, HOLD, ADD_NORM, NORM, GATED, GELU_GATED, OUT = range(len(KINDS))
KIND, CODE, PANELS_CODE, GROUP, ROWS, COLUMNS, TILES, TILE_SIZE, VECTOR = range(9)  # columns of a table of steps
INPUTS, SCALES, TOTALS, SUMS, RESULT, PAIRS, NEXT_INPUTS, NEXT_SCALES, NEXT_SUMS, ROOMS = range(10)  # places of memory
# numbers of a job
STATE, STEPS, NUM_STEPS, ROOM, TAKEN, WIDTH, EPSILON, TOKENS, SEEN, BEFORE, AFTER, OUTPUTS = range(12)
WEIGHT = WANTED = OUTPUTS  # of the last norm; of a choice
CHUNK_COLUMNS, LINK = OUTPUTS + 3, attention.LINK_NUMBERS  # of a prompt's panels; numbers of a job in a chain
ATTENTION, LAST_NORM, CHOICE = 0, -1, -2  # what stands for a number of steps in jobs that are none
PIECES = 8  # of a product, for each thread: one that is slower takes fewer
SPINS = 20_000  # how often a thread looks for the next job before it sleeps: some tenths of a millisecond
TOKENS_A_PART = 336  # at most, of a prompt, whose intermediate results stay in a CPU's caches: 28 panels
PART_TOKENS = TOKENS_A_PART + PANEL_TOKENS  # a few more may be read, if not used
SUMS_BYTES = 4 * TILE_ROWS * PART_TOKENS  # of a tile
GATED_BYTES = 4 * CHUNK * PART_TOKENS
# of a thread: two tiles' sums, scales, zeros and codes, and a chunk of a gate's results
PAIR_ROOM = 2 * SUMS_BYTES + 4 * 4 * TILE_ROWS + PAIR_BYTES + GATED_BYTES


@jit.kernel
def _tokens_a_part(tokens: Any) -> Any:
    """Whole panels, in parts of about the same size. Without any token, too: a prompt's first pass may want no logits."""
    tokens = max(1, tokens)
    parts = -(-tokens // TOKENS_A_PART)
    return -(-tokens // (parts * PANEL_TOKENS)) * PANEL_TOKENS


# Every step is done by all threads at once, each with its share: of a tile's rows of the result, or of the tokens
@jit.kernel
def _multiply_tile(step: Any, room: Any, y: Any, tokens: Any, t: Any) -> None:
    columns, rows = step[COLUMNS], step[ROWS]
    inputs, scales, totals, sums = room[INPUTS], room[SCALES], room[TOTALS], room[SUMS]
    tile, here = step[TILES] + t * step[TILE_SIZE], y + t * 4 * TILE_ROWS
    jit.call_with_9(step[CODE], tile, inputs, scales, totals, sums, here, tokens, columns, rows)


@jit.kernel
def _multiply(step: Any, room: Any, y: Any, tokens: Any, taken: Any, threads: Any) -> None:
    """`taken`: the address of how many tiles have been taken by any thread, which takes a few more until none is left."""
    count = step[ROWS] // TILE_ROWS
    piece = max(1, count // (PIECES * threads))
    start = jit.add_atomic(taken, piece)
    while start < count:
        for t in range(start, min(start + piece, count)):
            _multiply_tile(step, room, y, tokens, t)
        start = jit.add_atomic(taken, piece)


@jit.kernel
def _multiply_pair(step: Any, room: Any, chunk: Any, blocks: Any, first: Any, second: Any, sums: Any) -> None:
    """The products of two tiles and the panels of a part, with their biases. What they need themselves lies after the sums."""
    columns = step[COLUMNS]
    scales = sums + 2 * SUMS_BYTES
    zeros = scales + 2 * 4 * TILE_ROWS
    codes = zeros + 2 * 4 * TILE_ROWS
    for tile, t in enumerate((first, second)):
        begin_sums(sums + tile * SUMS_BYTES, step[VECTOR] + 4 * t * TILE_ROWS if step[VECTOR] else zeros, blocks * PANEL_TOKENS)
    for start in range(0, columns, chunk):
        width = min(chunk, columns - start)
        for tile, t in enumerate((first, second)):
            here = step[TILES] + t * step[TILE_SIZE]
            group, there = step[GROUP], codes + tile * (FOUR_BYTES // 2)
            jit.call_with_5(step[PANELS_CODE], here, start // group, width // group, there, scales + tile * 4 * TILE_ROWS)
        number = 4 * (start // chunk) * blocks * PANEL_TOKENS
        inputs, factors, firsts = room[INPUTS] + start * blocks * PANEL_TOKENS, room[SCALES] + number, room[SUMS] + number
        panel_product(codes, scales, inputs, factors, firsts, sums, SUMS_BYTES, chunk * PANEL_TOKENS, width // 4, blocks)


@jit.kernel
def _multiply_panels(step: Any, room: Any, y: Any, tokens: Any, chunk: Any, blocks: Any, taken: Any, me: Any) -> None:
    """A step's product for a part of a prompt, written or added to y."""
    count, sums = step[ROWS] // TILE_ROWS, room[PAIRS] + me * PAIR_ROOM
    t = jit.add_atomic(taken, 2)
    while t < count:
        both = min(2, count - t)
        _multiply_pair(step, room, chunk, blocks, t, t + both - 1, sums)
        for tile in range(both):
            here, there = sums + tile * SUMS_BYTES, y + 4 * (t + tile) * TILE_ROWS
            if step[KIND] == ADD:
                add_sums(here, there, tokens, 4 * step[ROWS])
            else:
                write_sums(here, there, tokens, 4 * step[ROWS])
        t = jit.add_atomic(taken, 2)


@jit.inline
def _is_gated(step: Any) -> Any:
    return step[KIND] == GATED or step[KIND] == GELU_GATED


@jit.kernel
def _gate(step: Any, x: Any, up: Any, columns: Any) -> None:
    if step[KIND] == GATED:
        gate(x, up, columns)
    else:
        gelu_gate(x, up, columns)


@jit.kernel
def _multiply_gated(step: Any, room: Any, tokens: Any, chunk: Any, blocks: Any, taken: Any, me: Any) -> None:
    """A gate's results for a part of a prompt, a chunk at a time, which is rounded for the next product before it leaves the cache."""
    columns, sums = step[ROWS] // 2, room[PAIRS] + me * PAIR_ROOM
    gated = sums + PAIR_ROOM - GATED_BYTES
    c = jit.add_atomic(taken, 1)
    while c * chunk < columns:
        width = min(chunk, columns - c * chunk)
        for n in range(width // TILE_ROWS):
            t = c * (chunk // TILE_ROWS) + n
            _multiply_pair(step, room, chunk, blocks, t, t + columns // TILE_ROWS, sums)
            _gate(step, sums, sums + SUMS_BYTES, tokens * TILE_ROWS)
            write_sums(sums, gated + 4 * n * TILE_ROWS, tokens, 4 * width)
        panels, number = room[NEXT_INPUTS] + c * chunk * blocks * PANEL_TOKENS, 4 * c * blocks * PANEL_TOKENS
        scales, firsts = room[NEXT_SCALES] + number, room[NEXT_SUMS] + number
        _round_panels(gated, 4 * width, panels, scales, firsts, 0, tokens, width, chunk, blocks)
        c = jit.add_atomic(taken, 1)


@jit.kernel
def _round_panels(
    x: Any, row_bytes: Any, panels: Any, scales: Any, firsts: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any
) -> None:
    for m in range(first, end, ROUNDED_TOGETHER):
        panel = panels + m // PANEL_TOKENS * chunk * PANEL_TOKENS + 4 * (m % PANEL_TOKENS)
        left = min(ROUNDED_TOGETHER, end - m)
        round_into_panel(x + m * row_bytes, row_bytes, left, panel, scales + 4 * m, firsts + 4 * m, columns, chunk, blocks)


@jit.kernel
def _round_some(x: Any, row_bytes: Any, room: Any, first: Any, end: Any, columns: Any, chunk: Any, blocks: Any) -> None:
    if blocks:
        _round_panels(x, row_bytes, room[INPUTS], room[SCALES], room[SUMS], first, end, columns, chunk, blocks)
        return
    for m in range(first, end):
        n, here = m * columns, x + m * row_bytes
        round_inputs(here, room[INPUTS] + n, room[SCALES] + n // 8, room[TOTALS] + n // 8, room[SUMS] + n // 4, columns // ROUNDED)


@jit.kernel
def _round_rows(x: Any, row_bytes: Any, room: Any, tokens: Any, columns: Any, chunk: Any, blocks: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: a panel is written by one thread."""
    share = PANEL_TOKENS if blocks else 1
    for start in range(me * share, tokens, threads * share):
        _round_some(x, row_bytes, room, start, min(start + share, tokens), columns, chunk, blocks)


@jit.kernel
def _finish(step: Any, y: Any, residual: Any, tokens: Any, width: Any, threads: Any, me: Any) -> None:
    """What follows a product, one thread's share of the tokens: its bias, and the sum or the gate."""
    rows = step[ROWS]
    for m in range(me, tokens, threads):
        here = y + 4 * m * rows
        if step[VECTOR]:
            add(step[VECTOR], here, rows)
        if step[KIND] == ADD:
            add(here, residual + 4 * m * width, rows)
        elif _is_gated(step):
            _gate(step, here, here + 2 * rows, rows // 2)


@jit.kernel
def _norm_rows(step: Any, residual: Any, y: Any, epsilon: Any, tokens: Any, width: Any, share: Any, threads: Any, me: Any) -> None:
    """One thread's share of the tokens: of the residual into y, or of y added to the residual."""
    for start in range(me * share, tokens, threads * share):
        for m in range(start, min(start + share, tokens)):
            row = 4 * m * width
            if step[KIND] == NORM:
                norm(residual + row, step[VECTOR], epsilon, y + row, width)
            else:
                add_norm(y + row, step[VECTOR], epsilon, residual + row, width)


@jit.kernel
def _part(steps: Any, job: Any, part: Any, first: Any, tokens: Any, threads: Any, me: Any) -> None:
    """All steps for the tokens of a part, one thread's share.

    Rows of a result are ready when all threads are; then each token is the share of one thread until the next product.
    """
    state, room, outputs, width = job[STATE], jit.longs_at(job[ROOM], ROOMS).copy(), job[OUTPUTS:], job[WIDTH]
    taken = job[TAKEN] + 8 * len(steps) * part
    epsilon = jit.as_float(np.uint32(job[EPSILON]))
    residual = job[AFTER] + 4 * first * width
    columns, chunk = steps[0, COLUMNS], job[CHUNK_COLUMNS]
    panels_from = PANELS_FROM if chunk >= NARROW_CHUNK else FINE_PANELS_FROM
    blocks = -(-tokens // PANEL_TOKENS) if CAN_BE_USED and tokens >= panels_from else 0
    share = PANEL_TOKENS if blocks else 1  # of tokens, as `_round_rows` has them
    if job[BEFORE] != job[AFTER]:
        copy_rows(job[BEFORE] + 4 * first * width, residual, width, tokens, share, threads, me)
    if job[SEEN]:
        _round_rows(job[SEEN] + 4 * first * columns, 4 * columns, room, tokens, columns, chunk, blocks, threads, me)
        jit.meet(state, threads)
    at = 0
    for number in range(len(steps)):
        step = steps[number]
        rows = step[ROWS]
        y = room[RESULT]
        if step[KIND] == NORM or step[KIND] == ADD_NORM:
            _norm_rows(step, residual, y, epsilon, tokens, width, share, threads, me)
            if step[KIND] == NORM:
                _round_rows(y, 4 * width, room, tokens, width, chunk, blocks, threads, me)
                jit.meet(state, threads)
            continue
        if step[KIND] == OUT:
            y = outputs[at] + 4 * first * rows
            at += 1
        if blocks and _is_gated(step):
            _multiply_gated(step, room, tokens, chunk, blocks, taken + 8 * number, me)
            room[INPUTS], room[NEXT_INPUTS] = room[NEXT_INPUTS], room[INPUTS]
            room[SCALES], room[NEXT_SCALES] = room[NEXT_SCALES], room[SCALES]
            room[SUMS], room[NEXT_SUMS] = room[NEXT_SUMS], room[SUMS]
        elif blocks:
            _multiply_panels(step, room, residual if step[KIND] == ADD else y, tokens, chunk, blocks, taken + 8 * number, me)
        else:
            _multiply(step, room, y, tokens, taken + 8 * number, threads)
        jit.meet(state, threads)
        if blocks == 0:
            _finish(step, y, residual, tokens, width, threads, me)
            if _is_gated(step):
                _round_rows(y, 4 * rows, room, tokens, rows // 2, chunk, blocks, threads, me)
                jit.meet(state, threads)


@jit.kernel
def _last_norm(job: Any, me: Any, threads: Any) -> None:
    """The norm after the last layer."""
    width, epsilon = job[WIDTH], jit.as_float(np.uint32(job[EPSILON]))
    for m in range(me, job[TOKENS], threads):
        norm(job[BEFORE] + 4 * m * width, job[WEIGHT], epsilon, job[AFTER] + 4 * m * width, width)


@jit.kernel
def _choose(job: Any, me: Any, threads: Any) -> None:
    """The rows of the tokens whose logits are wanted, one after another."""
    wanted, row_bytes = jit.longs_at(job[WANTED], job[TOKENS]), 4 * job[WIDTH]
    for m in range(me, job[TOKENS], threads):
        copy(job[BEFORE] + wanted[m] * row_bytes, job[AFTER] + m * row_bytes, job[WIDTH])


def share(at: Any, me: Any, threads: Any) -> None:
    """A chain of jobs, one thread's share. `at`: the address of the team's state. Compiled by itself, see `jit.compiled`."""
    state = jit.longs_at(at, SHARED)
    links = jit.longs_at(state[JOB], state[JOB + 1] * LINK).reshape(state[JOB + 1], LINK)
    for number in range(len(links)):
        job = links[number]
        if job[NUM_STEPS] == ATTENTION:
            facts, here = jit.longs_at(job[attention.FACTS], attention.NUM_FACTS), state[JOB] + 8 * LINK * number
            jit.call_with_3(facts[attention.KEEP_CODE], here, me, threads)
            jit.meet(job[STATE], threads)
            if facts[attention.NUM_ROWS]:
                jit.call_with_3(facts[attention.UNPACK_CODE], here, me, threads)
                jit.meet(job[STATE], threads)
                jit.call_with_3(facts[attention.ROWS_CODE], here, me, threads)
            jit.call_with_3(facts[attention.FEW_CODE], here, me, threads)
        elif job[NUM_STEPS] == LAST_NORM:
            _last_norm(job, me, threads)
        elif job[NUM_STEPS] == CHOICE:
            _choose(job, me, threads)
        else:
            steps = jit.longs_at(job[STEPS], job[NUM_STEPS] * (VECTOR + 1)).reshape(job[NUM_STEPS], VECTOR + 1)
            size = _tokens_a_part(job[TOKENS])
            for first in range(0, job[TOKENS], size):
                _part(steps, job, first // size, first, min(size, job[TOKENS] - first), threads, me)
        jit.meet(job[STATE], threads)


@jit.kernel
def _do_share(state: Any, me: Any) -> None:
    jit.call_with_3(state[SHARE], state.ctypes.data, me, state[THREADS])


@jit.kernel
def _serve(state: Any, me: Any, done: Any) -> Any:
    """Do jobs after the first `done`; how many there were when no other came for a moment. See `team.Team`."""
    address = state.ctypes.data
    spins = 0
    while spins < SPINS:
        if jit.load_atomic(address + 8 * TICKET) == done:
            spins = jit.wait_a_moment(spins)
        else:
            done += 1
            _do_share(state, me)
            spins = 0
    return done


@jit.kernel
def _announce(state: Any, links: Any) -> Any:
    """Begin with a chain of jobs and do one's share. 1, and nothing done, if somebody has to be woken first: then call `_do_share`."""
    state[JOB], state[JOB + 1] = links.ctypes.data, len(links)
    jit.add_atomic(state.ctypes.data + 8 * TICKET, 1)
    if jit.load_atomic(state.ctypes.data + 8 * SLEEPING):
        return 1
    _do_share(state, 0)
    return 0


@jit.kernel
def _start(state: Any, job: Any, seen: Any, before: Any, after: Any, first: Any, second: Any, third: Any) -> Any:
    """A chain of one job. See `_announce`."""
    rows = after if after.size else first
    tokens = rows.shape[0] * rows.shape[1]
    job[TOKENS] = tokens
    job[SEEN] = seen.ctypes.data if seen.size else 0
    job[BEFORE] = before.ctypes.data
    job[AFTER] = after.ctypes.data
    job[OUTPUTS] = first.ctypes.data
    job[OUTPUTS + 1] = second.ctypes.data
    job[OUTPUTS + 2] = third.ctypes.data
    taken = jit.longs_at(job[TAKEN], job[NUM_STEPS] * (-(-tokens // TOKENS_A_PART)))
    taken[:] = 0
    return _announce(state, job.reshape(1, LINK))


_one_at_a_time = threading.Lock()  # there is one team, and one memory
NOTHING = np.zeros((0, 0, 0), np.float32)
NUM_ARRAYS = 6  # what is seen, the residual before and after, three outputs


@functools.cache
def team() -> Team:
    """The threads that all programs share."""
    return Team(config.threads().value, jit.compiled(share, 3).address, _serve)


def prepare() -> None:
    """Compile what is not compiled yet: seconds, once a machine. Raises NotEnoughDiskError, NotWritableError."""
    with paths.translate_disk_errors(jit.CACHE):
        x, y = np.zeros((1, 1, 256), np.float32), np.zeros((1, 1, TILE_ROWS), np.float32)
        weights = np.zeros(TILE_BYTES["Q4_K"], np.uint8)
        Program([("out", "Q4_K", TILE_ROWS, 0, -1)], weights.ctypes.data, 256).run(x, None, None, [y])


class _Memory:
    """Memory that is kept for the next job of any program."""

    def __init__(self) -> None:
        self.moves = 1  # how often a place has changed, and before
        self._arrays: dict[str, Any] = {}

    def place(self, name: str, size: int) -> int:
        """The address of so many bytes, at the beginning of a cache line."""
        if name not in self._arrays or len(self._arrays[name]) < size + CACHE_LINE:
            self._arrays[name] = np.zeros(size + CACHE_LINE, np.uint8)
            self.moves += 1
        return -(-int(self._arrays[name].ctypes.data) // CACHE_LINE) * CACHE_LINE


_memory = _Memory()


def run_links(links: Any, programs: Sequence[Program], ready: Callable[[], None]) -> None:
    """Do a chain of jobs, of which some are these programs'. `ready` is called before, when nobody else uses the memory they share."""
    with _one_at_a_time:
        ready()
        while any(program.moves != _memory.moves for program in programs):
            for program in programs:
                program.prepare(1)
        if _announce(team().state, links):
            team().wake()
            _do_share(team().state, 0)


def max_parts(tokens: int) -> int:
    """How many parts a pass of so many tokens, or fewer, has at most."""
    return -(-tokens // TOKENS_A_PART)


def place(name: str, size: int) -> int:
    """The address of so many bytes of the memory that all programs share, for whoever is `ready`."""
    return _memory.place(name, size)


class Program:
    """Steps from some inputs to some outputs; see `product.BetweenAttentions` for what they are."""

    def __init__(self, steps: Sequence[Sequence[Any]], address: int, columns: int, *, width: int = 0, epsilon: float = 0.0,
                 chunk: int = 0) -> None:  # fmt: skip
        """`address`: where the weights lie. `columns`: of the first input. `width`: of the residual, if there is one.

        `chunk`: columns that share a scale where many tokens are multiplied; 0: what is near enough for models of this width.
        """
        table, columns_before = np.zeros((len(steps), VECTOR + 1), np.int64), columns
        for number, (kind, type_name, rows, place, vector) in enumerate(steps):
            table[number, KIND] = KINDS.index(kind)
            table[number, VECTOR] = 0 if vector < 0 else address + vector
            table[number, ROWS] = rows
            if kind in ("norm", "add_norm"):
                columns = rows
                continue
            table[number, CODE] = jit.compiled(PRODUCTS[type_name], 9).address
            table[number, PANELS_CODE] = jit.compiled(TO_BYTES[type_name], 5).address if CAN_BE_USED else 0
            table[number, GROUP] = GROUPS[type_name][0]
            table[number, TILES] = address + place
            table[number, TILE_SIZE] = columns // BLOCKS[type_name][0] * TILE_BYTES[type_name]
            table[number, COLUMNS] = columns
            if kind in ("gated", "gelu_gated"):
                columns = rows // 2
        self.steps, self.width, self.epsilon = table, width, int(np.float32(epsilon).view(np.uint32))
        widest, most = int(table[:, COLUMNS].max()), int(table[table[:, KIND] != OUT, ROWS].max(initial=0))
        self._sizes = {  # for each token
            "inputs": -(-widest // CHUNK) * CHUNK,
            "scales": widest // 8,
            "totals": widest // 8,
            "sums": widest // 4,
            "result": 4 * most,
        }
        self.room = np.zeros(ROOMS, np.int64)
        self._job = np.zeros(LINK, np.int64)
        self.chunk = chunk or (NARROW_CHUNK if (width or columns_before) < NARROW else CHUNK)
        self._job[CHUNK_COLUMNS] = self.chunk
        self.moves, self._parts = 0, 0

    def prepare(self, parts: int) -> None:
        """Have memory for so many parts of a prompt. It is shared, and may have moved for another program since."""
        self.room[:PAIRS] = [_memory.place(name, PART_TOKENS * size) for name, size in self._sizes.items()]
        self.room[PAIRS] = _memory.place("pairs", PAIR_ROOM * len(team()))
        self.room[NEXT_INPUTS:] = [
            _memory.place(f"next {name}", PART_TOKENS * self._sizes[name]) for name in ("inputs", "scales", "sums")
        ]
        taken = _memory.place("taken", 8 * len(self.steps) * parts)
        state = team().state.ctypes.data
        self._job[:TOKENS] = (
            state,
            self.steps.ctypes.data,
            len(self.steps),
            self.room.ctypes.data,
            taken,
            self.width,
            self.epsilon,
        )
        self.moves, self._parts = _memory.moves, parts

    def run(self, seen: Any, before: Any, after: Any, outputs: Sequence[Any]) -> None:
        """Write the residual after all steps, which it is before them, and the outputs. All are float32 [., ., columns], or None.

        Little of Python is used here: each layer's weights have driven it out of the CPU's caches.
        """
        threads = team()
        rows = outputs[0] if after is None else after
        parts = max_parts(rows.shape[0] * rows.shape[1])
        places = [NOTHING if array is None else array for array in (seen, before, after, *outputs)]
        places += [NOTHING] * (NUM_ARRAYS - len(places))
        with _one_at_a_time:
            if self.moves != _memory.moves or self._parts < parts:
                self.prepare(parts)
            if _start(threads.state, self._job, *places):
                threads.wake()
                _do_share(threads.state, 0)
