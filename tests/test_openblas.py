"""Whether there is room for OpenBLAS is looked at before it begins."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="`ulimit -v` is Linux's")
IMPORTED_WITH = """
import os, resource, sys
import numpy
from nomoat import openblas
told, free, library = sys.argv[1:]
if told:
    os.environ["OPENBLAS_NUM_THREADS"] = told
resource.setrlimit(resource.RLIMIT_AS, [int(openblas.STATM.read_text().split()[0]) * 4096 + (int(free) << 20)] * 2)
os.sched_getaffinity = lambda _: set(range(16))
openblas.require_room()
openblas.require_room()
assert len([one for one in sys.meta_path if isinstance(one, openblas._Room)]) == 1
try:
    __import__(library)
except openblas.NotEnoughMemoryError as exc:
    print(exc.message, exc.hint, sep="\\n")
"""


def imported(threads: str, free_mib: int, library: str) -> str:
    command = [sys.executable, "-c", IMPORTED_WITH, threads, str(free_mib), library]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("threads", ["", "0", "99", "many"])
def test_without_room_for_its_threads_it_does_not_begin(threads: str) -> None:
    """There it would ask for ever, see the module."""
    assert imported(threads, 600, "scipy.linalg") == (
        "`scipy` maps about 0.7 GB, and this process may map 0.6 GB more\n"
        "raise the limit (`ulimit -v`), or set OPENBLAS_NUM_THREADS=1, which needs less\n"
    )


def test_with_few_threads_it_has_room_where_many_have_none() -> None:
    assert imported("1", 600, "scipy.linalg") == ""


def test_what_brings_none_is_not_looked_at() -> None:
    assert imported("", 30, "csv") == ""
