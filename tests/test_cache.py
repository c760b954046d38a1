"""What can be made again: its size, and when it goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from nomoat import cache, paths

LONG_AGO = time.time() - 31 * 86_400


def made(kind: str, name: str, *, used: float | None = None) -> Path:
    folder = paths.cache() / kind / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(1000))
    if used is not None:
        os.utime(folder, (used, used))
    return folder


def test_a_sweep_removes_what_nobody_used_for_a_month_and_what_belongs_to_it() -> None:
    old, new = made(cache.IMPORTED, "old", used=LONG_AGO), made(cache.IMPORTED, "new")
    copies = [made(cache.COMPILED, name) for name in ("old", "old-prompts", "new", "new-prompts")]
    kernels = [made(cache.KERNELS, "before", used=LONG_AGO), made(cache.KERNELS, "now")]
    cache.sweep()
    assert [folder.exists() for folder in (old, new, *copies, *kernels)] == [False, True, False, False, True, True, False, True]


def test_a_use_counts() -> None:
    folder = made(cache.IMPORTED, "model", used=LONG_AGO)
    cache.use(folder)
    cache.use(folder.with_name("not there"))
    cache.sweep()
    assert folder.exists()


@pytest.mark.parametrize("kind", [cache.IMPORTED, cache.COMPILED, cache.KERNELS])
@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_what_a_killed_program_left_goes_after_a_day(kind: str, hours: int, stays: bool) -> None:
    begun = made(kind, ".model.abcdefgh.part", used=time.time() - 3600 * hours)
    cache.sweep()
    assert begun.exists() == stays


def test_clear_removes_all_but_what_is_being_made() -> None:
    assert (cache.size(), cache.clear()) == (0, 0)
    whole, begun = made(cache.IMPORTED, "model"), made(cache.IMPORTED, ".other.abcdefgh.part")
    made(cache.COMPILED, "model"), made(cache.KERNELS, "version")
    assert cache.size() == 4000
    assert cache.clear() == 3000
    assert (whole.exists(), begun.exists(), cache.size()) == (False, True, 1000)
