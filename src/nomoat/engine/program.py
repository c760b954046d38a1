"""Jobs for a team of threads, which `steps` says how to do: steps between two layers' attention, and chains of jobs.

Shapes: M tokens, R rows (outputs), C columns (inputs), W width.
"""

from __future__ import annotations

import atexit
import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import config, jit, paths
from nomoat.engine import ending
from nomoat.engine.codes import GROUPS
from nomoat.engine.emit import CACHE_LINE
from nomoat.engine.kernels import PRODUCTS
from nomoat.engine.panels import CAN_BE_USED
from nomoat.engine.steps import (
    AFTER,
    BEFORE,
    BESIDE,
    BESIDE_NUMBERS,
    CHUNK_COLUMNS,
    CODE,
    COLUMNS,
    COPIES,
    COPY_BYTES,
    COUNTS,
    GROUP,
    HIDDEN,
    INPUT_BYTES,
    KIND,
    KINDS,
    LINK,
    NEXT_INPUTS,
    NUM_STEPS,
    NUM_TILES,
    OUT,
    OUTPUTS,
    PAIR_ROOM,
    PAIRS,
    PANELS_CODE,
    PART_TOKENS,
    PLACES,
    ROOMS,
    ROWS,
    SEEN,
    TAKEN,
    TILE_SIZE,
    TILES,
    TO_PANELS,
    TOKENS,
    TOKENS_A_PART,
    USERS,
    VECTOR,
    share,
)
from nomoat.engine.team import JOB, OWED, SHARE, SLEEPING, THREADS, TICKET, Team
from nomoat.engine.tiles import BLOCKS, CHUNK, FINE_CHUNK, TILE_BYTES, TILE_ROWS, WHOLE_BYTES

EXIT_SECONDS = 60.0  # how long a process that ends waits for a pass, and for a job, at most
NARROW = 768  # below this width a model's answers change too much with `CHUNK`
SPINS = 20_000  # how often a thread looks for the next job before it sleeps: some tenths of a millisecond


@jit.kernel
def _do_share(state: Any, me: Any) -> None:
    jit.call_with_3(state[SHARE], state.ctypes.data, me, state[THREADS])
    if me == 0:
        state[OWED] = 0


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
    state[JOB], state[JOB + 1], state[OWED] = links.ctypes.data, len(links), 1
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
    taken = jit.longs_at(job[TAKEN], COUNTS * job[NUM_STEPS] * (-(-tokens // TOKENS_A_PART)))
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
    """Compile what is not compiled yet: seconds, once an installation. Raises NotEnoughDiskError, NotWritableError."""
    with paths.translate_disk_errors(jit.CACHE):
        x, y = np.zeros((1, 1, 256), np.float32), np.zeros((1, 1, TILE_ROWS), np.float32)
        weights = np.zeros(TILE_BYTES["Q4_K"], np.uint8)
        Program([("out", "Q4_K", TILE_ROWS, 0, -1)], weights.ctypes.data, 256).run(x, None, None, [y])


@atexit.register
def _wait_for_the_last_job() -> None:
    """A process that ends frees its memory, which the team must not be at work on then, nor OpenVINO. No other job begins."""
    ending.end(EXIT_SECONDS)
    if _one_at_a_time.acquire(timeout=EXIT_SECONDS):
        _one_at_a_time.release()


def _do(begin: Callable[..., Any], *told: Any) -> None:
    """A chain of jobs that `begin` announces, see `_announce`. What is announced is done whatever comes, such as Ctrl-C.

    Otherwise the team would wait for the caller's share, and be out of step for good. While `_one_at_a_time` is held.
    """
    ending.require_time()
    threads = team()
    try:
        if begin(threads.state, *told):
            threads.wake()
            _do_share(threads.state, 0)
    except BaseException:
        while threads.state[OWED]:
            with suppress(BaseException):  # the first is raised
                threads.wake()
                _do_share(threads.state, 0)
        raise


class _Memory:
    """Memory that is kept for the next job of any program."""

    def __init__(self) -> None:
        self.moves = 1  # how often a place has changed, and before
        self.is_unwanted = False
        self._arrays: dict[str, Any] = {}

    def place(self, name: str, size: int) -> int:
        """The address of so many bytes, at the beginning of a cache line."""
        if name not in self._arrays or len(self._arrays[name]) < size + CACHE_LINE:
            self.moves += 1
            self._arrays.pop(name, None)  # both at once might be more than there is
            self._arrays[name] = np.zeros(size + CACHE_LINE, np.uint8)
        return -(-int(self._arrays[name].ctypes.data) // CACHE_LINE) * CACHE_LINE

    def give_back(self) -> None:
        """All of it. While there is no job."""
        self.is_unwanted = False
        self.moves += 1
        self._arrays.clear()


_memory = _Memory()


def give_back_memory() -> None:
    """That of a model's passes, when it ends: a long prompt's takes hundreds of MB. A job that is under way gives it back at its end.

    Never waits: it may be called wherever Python frees objects, in the thread of a job, too.
    """
    _memory.is_unwanted = True
    _give_back_unwanted()


def _give_back_unwanted() -> None:
    """Whoever has held `_one_at_a_time` looks once it is free again: others who found it held have only said that it is unwanted."""
    while _memory.is_unwanted and _one_at_a_time.acquire(blocking=False):
        try:
            _memory.give_back()
        finally:
            _one_at_a_time.release()


def run_links(links: Any, programs: Sequence[Program], ready: Callable[[], None]) -> None:
    """Do a chain of jobs, of which some are these programs'. `ready` is called before, when nobody else uses the memory they share."""
    try:
        with _one_at_a_time:
            ready()
            while any(program.moves != _memory.moves for program in programs):
                for program in programs:
                    program.prepare(1)
            _do(_announce, links)
    finally:
        if _memory.is_unwanted:
            _give_back_unwanted()


def max_parts(tokens: int) -> int:
    """How many parts a pass of so many tokens, or fewer, has at most."""
    return -(-tokens // TOKENS_A_PART)


def place(name: str, size: int) -> int:
    """The address of so many bytes of the memory that all programs share, for whoever is `ready`."""
    return _memory.place(name, size)


@dataclass(frozen=True, slots=True)
class Beside:
    """What N adapters add to a product: all their A as one matrix, in tiles of 8 bits, and a place for each of the product's tiles.

    `users`: whose each of the matrix's tiles is, a bit for each adapter. `places` [N, tiles, PLACE]: see `steps`. `kept`: what lies at
    their addresses.
    """

    tiles: npt.NDArray[np.uint8]
    users: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    kept: Sequence[Any]

    @property
    def rows(self) -> int:
        """Of the matrix."""
        return len(self.tiles) * TILE_ROWS


def _product_row(type_name: str, rows: int, columns: int, address: int) -> Any:
    """A table's row of a product with tiles that lie there."""
    row = np.zeros(VECTOR + 1, np.int64)
    row[CODE] = jit.compiled(PRODUCTS[type_name], 9).address
    row[PANELS_CODE] = jit.compiled(TO_PANELS[type_name], 5).address if CAN_BE_USED else 0
    row[GROUP] = GROUPS[type_name][0]
    row[TILES], row[TILE_SIZE] = address, columns // BLOCKS[type_name][0] * TILE_BYTES[type_name]
    row[KIND], row[ROWS], row[COLUMNS] = OUT, rows, columns
    return row


class Program:
    """Steps from some inputs to some outputs; see `product.BetweenAttentions` for what they are."""

    def __init__(self, steps: Sequence[Sequence[Any]], address: int, columns: int, *, width: int = 0, epsilon: float = 0.0,
                 chunk: int = 0) -> None:  # fmt: skip
        """`address`: where the weights lie. `columns`: of the first input. `width`: of the residual, if there is one.

        `chunk`: columns that share a scale where many tokens are multiplied; 0: what is near enough for models of this width.
        """
        table, columns_before = np.zeros((len(steps), VECTOR + 1), np.int64), columns
        for number, (kind, type_name, rows, place, vector) in enumerate(steps):
            if kind in ("norm", "add_norm"):
                columns = rows
            else:
                table[number] = _product_row(type_name, rows, columns, address + place)
                columns = rows // 2 if kind in ("gated", "gelu_gated") else columns
            table[number, KIND], table[number, ROWS] = KINDS.index(kind), rows
            table[number, VECTOR] = 0 if vector < 0 else address + vector
        self.steps, self.width, self.epsilon = table, width, int(np.float32(epsilon).view(np.uint32))
        widest, most = int(table[:, COLUMNS].max()), int(table[table[:, KIND] != OUT, ROWS].max(initial=0))
        self._sizes = {  # for each token
            "inputs": INPUT_BYTES * -(-widest // CHUNK) * CHUNK,
            "scales": widest // 8,
            "totals": widest // 8,
            "sums": widest // 4,
            "result": 4 * most,
        }
        self._kept: list[Beside] = []
        self.room = np.zeros(ROOMS, np.int64)
        self._job = np.zeros(LINK, np.int64)
        self.chunk = chunk or (FINE_CHUNK if (width or columns_before) < NARROW else CHUNK)
        self._job[CHUNK_COLUMNS] = self.chunk
        self.beside = np.zeros((len(steps), BESIDE_NUMBERS), np.int64)
        self.moves, self._parts = 0, 0

    def add_beside(self, number: int, added: Beside) -> None:
        """Let adapters add to a step's result, for tokens that have one."""
        row = self.beside[number]
        row[: VECTOR + 1] = _product_row(WHOLE_BYTES, added.rows, int(self.steps[number, COLUMNS]), added.tiles.ctypes.data)
        row[PLACES], row[NUM_TILES], row[USERS] = added.places.ctypes.data, added.places.shape[1], added.users.ctypes.data
        self._kept.append(added)

    def prepare(self, parts: int) -> None:
        """Have memory for so many parts of a prompt. It is shared, and may have moved for another program since."""
        self.room[:PAIRS] = [_memory.place(name, PART_TOKENS * size) for name, size in self._sizes.items()]
        self.room[PAIRS] = _memory.place("pairs", PAIR_ROOM * len(team()))
        self.room[NEXT_INPUTS:HIDDEN] = [
            _memory.place(f"next {name}", PART_TOKENS * self._sizes[name]) for name in ("inputs", "scales", "sums")
        ]
        self.room[HIDDEN] = _memory.place("hidden", 4 * PART_TOKENS * max((added.rows for added in self._kept), default=0))
        self.room[COPIES] = _memory.place("copies", COPY_BYTES * len(team()))
        taken = _memory.place("taken", 8 * COUNTS * len(self.steps) * parts)
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
        self._job[BESIDE] = self.beside.ctypes.data
        self.moves, self._parts = _memory.moves, parts

    def run(self, seen: Any, before: Any, after: Any, outputs: Sequence[Any]) -> None:
        """Write the residual after all steps, which it is before them, and the outputs. All are float32 [., ., columns], or None.

        Little of Python is used here: each layer's weights have driven it out of the CPU's caches.
        """
        rows = outputs[0] if after is None else after
        parts = max_parts(rows.shape[0] * rows.shape[1])
        places = [NOTHING if array is None else array for array in (seen, before, after, *outputs)]
        places += [NOTHING] * (NUM_ARRAYS - len(places))
        try:
            with _one_at_a_time:
                if self.moves != _memory.moves or self._parts < parts:
                    self.prepare(parts)
                _do(_start, self._job, *places)
        finally:
            if _memory.is_unwanted:
                _give_back_unwanted()
