"""This machine's two limits: how fast memory is read, and how fast matrices are multiplied.

Every new token needs all weights read once from memory, so memory speed bounds decoding; reading a prompt is arithmetic.
Measured with numpy, each the best of a few runs within seconds. Other programs make both figures smaller.

What this does not cover: the GPU, int8 arithmetic (which the engine uses, and which may beat float32), and machines whose caches hold
the whole test array (256 MB).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil

from nomoat import config, hardware

READ_BYTES = 256_000_000
READ_SECONDS = 1.0  # for each number of threads
GEMM_SIZE = 2048  # 16 MB a matrix
GEMM_RUNS = 5
LOAD_SECONDS = 0.5
BUSY_SHARE = 0.25  # of the CPUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many CPUs all programs used for a moment, and how many the whole machine has."""

    busy_cpus: float
    num_cpus: int
    is_busy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Limits of a machine: bytes per second read from memory by one thread and by `num_threads`, float32 operations per second."""

    summary: str
    num_threads: int
    read_bytes_per_second_one_thread: float
    read_bytes_per_second: float
    gemm_flops: float


def read_load() -> Load:
    """To be read before anything is measured, which is a load itself."""
    num_cpus = psutil.cpu_count() or 1
    busy_cpus = psutil.cpu_percent(LOAD_SECONDS) / 100 * num_cpus
    return Load(busy_cpus=busy_cpus, num_cpus=num_cpus, is_busy=busy_cpus > BUSY_SHARE * num_cpus)


def measure_machine(*, read_bytes: int = READ_BYTES, read_seconds: float = READ_SECONDS, gemm_size: int = GEMM_SIZE) -> Machine:
    """Measure; takes about three seconds and 300 MB."""
    num_threads = config.threads().value
    return Machine(
        summary=hardware.summary(),
        num_threads=num_threads,
        read_bytes_per_second_one_thread=read_speed(num_threads=1, num_bytes=read_bytes, seconds=read_seconds),
        read_bytes_per_second=read_speed(num_threads=num_threads, num_bytes=read_bytes, seconds=read_seconds),
        gemm_flops=gemm_speed(size=gemm_size),
    )


def read_speed(*, num_threads: int, num_bytes: int = READ_BYTES, seconds: float = READ_SECONDS) -> float:
    """Bytes per second read from memory: the best pass over one array within `seconds`.

    Summing 64-bit integers is the fastest reading numpy has: in the cache it is more than twice as fast as from memory.
    """
    numbers = np.arange(num_bytes // 8, dtype=np.int64)  # written, so that its pages are not all the same page of zeros
    parts = np.array_split(numbers, num_threads)
    with ThreadPoolExecutor(num_threads) as pool:  # numpy lets go of the interpreter while it sums
        return numbers.nbytes / _best_seconds(lambda: list(pool.map(np.sum, parts)), seconds=seconds)


def gemm_speed(*, size: int) -> float:
    """Floating point operations per second of a float32 product of square matrices: the best of a few, on numpy's own threads."""
    a = np.ones((size, size), np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / _best_seconds(lambda: np.matmul(a, a, out=out), runs=GEMM_RUNS)


def _best_seconds(work: Callable[[], object], *, runs: int = 2, seconds: float = 0.0) -> float:
    """The fastest of at least `runs` runs, and of as many as fit into `seconds`, after one to warm up."""
    work()
    best, done = float("inf"), 0
    end = time.perf_counter() + seconds
    while done < runs or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best, done = min(best, time.perf_counter() - started), done + 1
    return best
