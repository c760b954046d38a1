"""Jobs for a team of threads, which `steps` says how to do: steps between two layers' attention, and chains of jobs.

Shapes: M tokens, R rows (outputs), C columns (inputs), W width.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import config
from nomoat.engine import forked, shutdown
from nomoat.engine.step_tables import (
    ADAPTER_STEP_NUMBERS,
    AMX_CHUNK,
    BY_AMX,
    COPY_BYTES,
    COUNTS,
    HAS_PANELS,
    INPUT_BYTES,
    JOB_NUMBERS,
    PAIR_ROOM,
    PANEL_TOKENS,
    PART_TOKENS,
    ROOM_NUMBERS,
    STEP_NUMBERS,
    TOKENS_A_PART,
    AdapterStep,
    Job,
    Kind,
    Room,
    Step,
    chunk_of,
)
from nomoat.engine.team import MOST_THREADS, Team, TeamState
from nomoat.engine.tiles import BLOCKS, CACHE_LINE, CHUNK, GROUP_CODES, TILE_BYTES, TILE_ROWS, WHOLE_BYTES
from nomoat.machine_code import Compiled

EXIT_SECONDS = 60.0  # how long a process that ends waits for a pass, and for a job, at most
SHARE_OF_JOBS = Compiled("engine.steps", "share", 3)
ANNOUNCE = Compiled("engine.team_kernels", "announce", 3, gives_number=True)
DO_SHARE = Compiled("engine.team_kernels", "do_share", 2)
_one_at_a_time = threading.Lock()  # there is one team, and one memory
_last_in_line = threading.Lock()  # held until whoever came last has had its turn
_most_threads = MOST_THREADS


def use_threads(count: int) -> None:
    """At most so many do what a program does by itself from now on: where other work stands between, which has so many, too."""
    global _most_threads  # noqa: PLW0603 - there is one team
    _most_threads = count


@functools.cache
def team() -> Team:
    """The threads that all programs share."""
    return Team(config.threads().value, SHARE_OF_JOBS.address)


@functools.cache
def product_of(type_name: str) -> Compiled:
    """Of some tokens with a tile of this type, see `kernels.product`."""
    return Compiled("engine.kernels", "product", 9, kind=type_name)


@functools.cache
def to_panels_of(type_name: str, *, in_words: bool) -> Compiled:
    """What makes a tile's codes of this type what many tokens are multiplied by, where `HAS_PANELS`. `in_words`: bf16."""
    return Compiled(*("engine.amx", "to_words") if in_words else ("engine.panels", "to_bytes"), 5, kind=type_name)


@atexit.register
def _wait_for_the_last_job() -> None:
    """A process that ends frees its memory, which the team must not be at work on then, nor OpenVINO. No other job begins.

    A fork has the locks and none of the threads that would give them back.
    """
    if forked.is_fork():
        return
    shutdown.end(EXIT_SECONDS)
    if _one_at_a_time.acquire(timeout=EXIT_SECONDS):
        _one_at_a_time.release()


def _do(jobs: int, count: int) -> None:
    """A chain of so many jobs that lie there. What is announced is done whatever comes, such as Ctrl-C.

    Otherwise the team would wait for the caller's share, and be out of step for good. While `_one_at_a_time` is held.
    """
    shutdown.require_time()
    threads, announce, do_share = team(), ANNOUNCE.call, DO_SHARE.call  # what fails here announces nothing
    try:
        if announce(threads.address, jobs, count):
            threads.wake()
            do_share(threads.address, 0)
    except BaseException:
        while threads.state[TeamState.OWED]:
            with suppress(BaseException):  # the first is raised
                threads.wake()
                do_share(threads.address, 0)
        raise


def _behind(mine: threading.Lock) -> threading.Lock:
    """Stand in line with a lock that is held until the turn is over; the lock of whoever stands before.

    `with mine, _behind(mine), _one_at_a_time` takes turns, pass by pass, or layer by layer where OpenVINO runs the rest: who
    asks again at once would take `_one_at_a_time` before those who wait for it wake. Whatever comes, such as Ctrl-C, can only lose the
    order: `with` gives all three back.
    """
    global _last_in_line
    before, _last_in_line = _last_in_line, mine
    return before


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


def run_jobs(jobs: Any, programs: Sequence[Program], ready: Callable[[], None]) -> None:
    """Do a chain of jobs, of which some are these programs'. `ready` is called before, when nobody else uses the memory they share."""
    mine = threading.Lock()
    try:
        with mine, _behind(mine), _one_at_a_time:
            ready()
            while any(program.moves != _memory.moves for program in programs):
                for program in programs:
                    program.prepare(1)
            began = team().begin()
            _do(int(jobs.ctypes.data), len(jobs))
            team().note(began)
    finally:
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

    `users`: whose each of the matrix's tiles is, a bit for each adapter. `places` [N, tiles, `BTile`]. `kept`: what lies at
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


def _product_row(type_name: str, rows: int, columns: int, address: int, chunk: int) -> Any:
    """A table's row of a product with tiles that lie there."""
    in_words = BY_AMX and chunk != AMX_CHUNK
    row = np.zeros(STEP_NUMBERS, np.int64)
    row[Step.CODE] = product_of(type_name).address
    row[Step.PANELS_CODE] = to_panels_of(type_name, in_words=in_words).address if HAS_PANELS else 0
    row[Step.GROUP] = GROUP_CODES[type_name]
    row[Step.TILES], row[Step.TILE_BYTES] = address, columns // BLOCKS[type_name][0] * TILE_BYTES[type_name]
    row[Step.KIND], row[Step.ROWS], row[Step.COLUMNS], row[Step.CHUNK] = Kind.OUT, rows, columns, chunk
    return row


def _expert_sizes(steps: Any) -> dict[Room, int]:
    """Bytes of what a part of a prompt needs for a mixture of experts."""
    steps = steps[steps[:, Step.EXPERTS] > 0]
    if not len(steps):
        return {}
    rows, columns, experts, chosen = (int(steps[:, at].max()) for at in (Step.ROWS, Step.COLUMNS, Step.EXPERTS, Step.CHOSEN))
    columns = -(-columns // CHUNK) * CHUNK
    pairs, places = PART_TOKENS * chosen, PART_TOKENS * chosen + experts * PANEL_TOKENS  # each expert's begin with a panel
    return {
        Room.EXPERT_INPUTS: INPUT_BYTES * places * columns, Room.EXPERT_SCALES: places * columns // 8,
        Room.EXPERT_TOTALS: places * columns // 8, Room.EXPERT_SUMS: places * columns // 4, Room.EXPERT_RESULT: 4 * places * rows,
        Room.EXPERT_SCORES: 4 * PART_TOKENS * (experts + 1), Room.EXPERT_WEIGHTS: 4 * pairs, Room.EXPERT_PICKS: 8 * pairs,
        Room.EXPERT_PLACES: 8 * pairs, Room.EXPERT_TOKENS: 8 * places, Room.EXPERT_STARTS: 8 * experts,
        Room.EXPERT_COUNTS: 8 * experts, Room.EXPERTS_ASKED: 8 * (experts + 1),
    }  # fmt: skip


def mixes_experts(steps: Sequence[Sequence[Any]]) -> bool:
    """Whether some of them are of a mixture of experts."""
    return any(step[0].startswith("choose") for step in steps)


class Program:
    """Steps from some inputs to some outputs; see `custom_ops.FusedBlock` for what they are."""

    def __init__(self, steps: Sequence[Sequence[Any]], address: int, columns: int, *, width: int = 0, epsilon: float = 0.0,
                 chunk: int = 0, is_last: bool = False, has_experts: bool = False) -> None:  # fmt: skip
        """`address`: where the weights lie. `columns`: of the first input. `width`: of the residual, if there is one.

        `chunk`: columns that share a scale where many tokens are multiplied; 0: what `step_tables.chunk_of` says. For that are
        `is_last`, whether the steps are of the `LAST_LAYERS`, and `has_experts`, whether the model is a mixture. OpenVINO's operations
        know neither, and of a product by itself no width but its own columns: theirs is 8 bits by AMX in more places.
        """
        table = np.zeros((len(steps), STEP_NUMBERS), np.int64)
        of_kind = functools.partial(chunk_of, width or columns, has_experts=has_experts or mixes_experts(steps))
        inner, of_gates = chunk or of_kind(), chunk or of_kind(is_last_gate=is_last)
        chunks = {"gated": of_gates, "gelu_gated": of_gates}
        for number, (kind, type_name, rows, place, vector, *mixture) in enumerate(steps):
            if kind in ("norm", "add_norm", "add_shared"):
                columns = rows
            elif kind in ("choose", "choose_of_all"):
                table[number, Step.COLUMNS], table[number, Step.CHUNK] = columns, inner
            else:
                table[number] = _product_row(type_name, rows, columns, address + place, chunks.get(kind, inner))
                columns = rows // 2 if kind in ("gated", "gelu_gated", "experts_gated", "experts_clamped") else columns
            table[number, Step.EXPERTS : Step.CHOSEN + 1] = mixture or 0
            table[number, Step.KIND], table[number, Step.ROWS] = Kind[kind.upper()], rows
            table[number, Step.VECTOR] = 0 if vector < 0 else address + vector
        self.steps, self.width, self.epsilon = table, width, int(np.float32(epsilon).view(np.uint32))
        widest, most = int(table[:, Step.COLUMNS].max()), int(table[table[:, Step.KIND] < Kind.OUT, Step.ROWS].max(initial=0))
        inputs = INPUT_BYTES * -(-widest // CHUNK) * CHUNK
        of_token = {
            Room.INPUTS: inputs, Room.SCALES: widest // 8, Room.TOTALS: widest // 8, Room.SUMS: widest // 4, Room.RESULT: 4 * most,
            Room.NEXT_INPUTS: inputs, Room.NEXT_SCALES: widest // 8, Room.NEXT_SUMS: widest // 4,
        }  # fmt: skip
        self._sizes = {at: PART_TOKENS * size for at, size in of_token.items()} | _expert_sizes(table)
        self._kept: list[Beside] = []
        self.room = np.zeros(ROOM_NUMBERS, np.int64)
        self._job = np.zeros(JOB_NUMBERS, np.int64)
        self._address = int(self._job.ctypes.data)
        self.beside = np.zeros((len(steps), ADAPTER_STEP_NUMBERS), np.int64)
        self.moves, self._parts = 0, 0

    def add_beside(self, number: int, added: Beside) -> None:
        """Let adapters add to a step's result, for tokens that have one."""
        row, (columns, chunk) = self.beside[number], map(int, self.steps[number, [Step.COLUMNS, Step.CHUNK]])
        row[:STEP_NUMBERS] = _product_row(WHOLE_BYTES, added.rows, columns, added.tiles.ctypes.data, chunk)
        row[AdapterStep.B_TILES], row[AdapterStep.NUM_TILES] = added.places.ctypes.data, added.places.shape[1]
        row[AdapterStep.USERS] = added.users.ctypes.data
        self._kept.append(added)

    def prepare(self, parts: int) -> None:
        """Have memory for so many parts of a prompt. It is shared, and may have moved for another program since."""
        hidden = 4 * PART_TOKENS * max((added.rows for added in self._kept), default=0)
        others = {Room.PAIRS: PAIR_ROOM * len(team()), Room.HIDDEN: hidden, Room.COPIES: COPY_BYTES * len(team())}
        for at, size in (self._sizes | others).items():
            self.room[at] = _memory.place(at.name, size)
        taken = _memory.place("taken", 8 * COUNTS * len(self.steps) * parts)
        self._job[:] = self.job(taken)
        self.moves, self._parts = _memory.moves, parts

    def job(self, taken: int) -> Any:
        """A table's row of it, but for its tokens and their places. `taken`: what `Job.NEXT_TILES` says."""
        row = np.zeros(JOB_NUMBERS, np.int64)
        places = (array.ctypes.data for array in (team().state, self.steps, self.room, self.beside))
        row[[Job.STATE, Job.STEPS, Job.ROOM, Job.ADAPTER_STEPS]] = [*places]
        row[Job.NUM_STEPS], row[Job.NEXT_TILES] = len(self.steps), taken
        row[Job.WIDTH], row[Job.EPSILON] = self.width, self.epsilon
        return row

    def run(self, seen: Any, before: Any, after: Any, outputs: Sequence[Any]) -> None:
        """Write the residual after all steps, which it is before them, and the outputs. All are float32 [., ., columns], or None.

        Little of Python is used here: each layer's weights have driven it out of the CPU's caches.
        """
        rows = outputs[0] if after is None else after
        tokens = rows.shape[0] * rows.shape[1]
        parts, job = max_parts(tokens), self._job
        places = [0 if array is None else array.ctypes.data for array in (seen, before, after, *outputs)]
        mine = threading.Lock()
        try:
            with mine, _behind(mine), _one_at_a_time:
                if self.moves != _memory.moves or self._parts < parts:
                    self.prepare(parts)
                ctypes.memset(int(job[Job.NEXT_TILES]), 0, 8 * COUNTS * len(self.steps) * parts)
                job[Job.TOKENS], job[Job.ATTENDED : Job.ATTENDED + len(places)] = tokens, places
                if _most_threads < len(team()):
                    team().state[TeamState.THREADS] = _most_threads
                else:
                    team().begin()  # and no `note`: threads of torch or OpenVINO, which run the rest, stand before ours
                _do(self._address, 1)
        finally:
            _give_back_unwanted()
