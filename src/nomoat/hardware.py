"""What this machine is: each detection returns the value and the reason for it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import psutil

T = TypeVar("T")

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CGROUP_USES = (Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"))
# What each version of control groups calls the pages of files that were not used of late: counted as used, given back when needed.
CGROUP_STATS = (
    (Path("/sys/fs/cgroup/memory.stat"), "inactive_file"),
    (Path("/sys/fs/cgroup/memory/memory.stat"), "total_inactive_file"),
)
# The CPUs' time a container may use in each period, and the period: in one file, or in two.
CGROUP_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    (Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")),
)
CPU_INFO = Path("/proc/cpuinfo")
CPU_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
# What LLVM calls otherwise than Linux of the flags that are asked for.
LINUX_NAMES = {
    "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
    "amx-bf16": "amx_bf16", "amx-int8": "amx_int8",
}  # fmt: skip
TASKS = Path("/proc/self/task")
TOPOLOGY = Path("/sys/devices/system/cpu")
SIBLINGS = ("core_cpus_list", "thread_siblings_list")  # the second is its name before Linux 5.3


@dataclass(frozen=True, slots=True)
class Detected(Generic[T]):
    """A value and why it is that."""

    value: T
    reason: str


def allowed_cores() -> set[int]:
    """The cores that any thread of this process may use: OpenVINO keeps some of its threads on one each."""
    if not hasattr(os, "sched_getaffinity"):
        return set(range(os.cpu_count() or 1))
    allowed = set(os.sched_getaffinity(0))
    for task in TASKS.iterdir() if TASKS.exists() else ():
        with suppress(OSError):  # it has ended meanwhile
            allowed |= os.sched_getaffinity(int(task.name))
    return allowed


def physical_cores(logical: set[int]) -> int:
    """How many cores these are: two of them may be one core's. Where the system does not tell, each is a core."""
    cores = set()
    for number in logical:
        for name in SIBLINGS:
            with suppress(OSError):
                cores.add((TOPOLOGY / f"cpu{number}" / "topology" / name).read_text())
                break
        else:
            return len(logical)
    return len(cores)


def threads() -> Detected[int]:
    """How many threads to compute with: one a physical core, no more than this process may use.

    Threads wait for each other by spinning: more than a container has time for would use up that of those that work.
    """
    allowed = physical_cores(allowed_cores())
    physical = psutil.cpu_count(logical=False) or allowed
    share = _share_of_cpus()
    if share is not None and share < min(allowed, physical):
        return Detected(share, "the container's share of the CPUs")
    if allowed < physical:
        return Detected(allowed, f"{allowed} of {physical} physical cores are allowed to this process")
    return Detected(physical, f"{physical} physical cores")


def memory_total_bytes() -> Detected[int]:
    """Memory this process could ever have: the machine's, its container's limit, or its own."""
    found = [Detected(psutil.virtual_memory().total, "memory of the machine")]
    if (limit := _read_first_number(CGROUP_LIMITS)) is not None:
        found.append(Detected(limit, "limit of the container"))
    if (space := _address_space()) is not None:
        found.append(Detected(space[0], "limit of this process (ulimit -v)"))
    return min(found, key=lambda one: one.value)


def memory_available_bytes() -> Detected[int]:
    """Memory that can be had now without swapping, what the system keeps of files included."""
    found = [Detected(psutil.virtual_memory().available, "free and reclaimable memory of the machine")]
    limit, used = _read_first_number(CGROUP_LIMITS), _read_first_number(CGROUP_USES)
    if limit is not None and used is not None:
        found.append(Detected(max(0, limit - max(0, used - _reclaimable_bytes())), "left within the container's limit"))
    if (space := _address_space()) is not None:
        found.append(Detected(max(0, space[0] - space[1]), "left within this process's limit (ulimit -v)"))
    return min(found, key=lambda one: one.value)


def cpu_name() -> str:
    """The processor's own name, as far as the system tells."""
    return _cpu_info("model name") or _name_in_registry() or platform.processor() or platform.machine()


def _name_in_registry() -> str:
    """Windows' own, whose `platform.processor()` is a family and a model; empty elsewhere."""
    if sys.platform == "win32":
        import winreg

        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, CPU_KEY) as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    return ""


def _address_space() -> tuple[int, int] | None:
    """How much memory this process may map (`ulimit -v`), and how much it has; None where nothing bounds it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else (limit, psutil.Process().memory_info().vms)


def cpu_flags() -> frozenset[str]:
    """Instruction set flags as Linux names them: what it tells, or elsewhere (Windows, macOS) what LLVM finds."""
    return frozenset(_cpu_info("flags", "Features").split()) if CPU_INFO.exists() else _flags_by_llvm()


@functools.cache
def _flags_by_llvm() -> frozenset[str]:
    """Those that the CPU has and the system lets programs use."""
    from llvmlite import binding

    return frozenset(LINUX_NAMES.get(name, name) for name, has in binding.get_host_cpu_features().items() if has)


def cpu_kind() -> str:
    """All that compiled code may depend on of this CPU, in a short digest: a home may be on several machines."""
    told = (cpu_name(), *_family_and_model(), *sorted(cpu_flags()))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]


def summary() -> str:
    """One line that names this machine in a report. Clouds give several kinds of CPU one name: family and model tell."""
    total = memory_total_bytes().value / 2**30
    wide = next((name for name in ("amx_int8", "avx512_vnni", "avx_vnni", "avx2") if name in cpu_flags()), platform.machine())
    family, model = _family_and_model()
    kind = f"family {family} model {model}, {wide}" if family and model else wide
    return f"{threads().value} cores {cpu_name()} ({kind}), {total:.0f} GiB, {platform.system()}"


def _family_and_model() -> tuple[str, str]:
    return _cpu_info("cpu family"), _cpu_info("model\t")


def _cpu_info(*names: str) -> str:
    """What Linux says of the first core under one of these names; empty where it says nothing."""
    lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")


def _share_of_cpus() -> int | None:
    """How many CPUs' time the container has, in whole ones; None where nothing bounds it."""
    for files in CGROUP_QUOTAS:
        with suppress(OSError, ValueError):  # absent, or "max"
            quota, period = (int(number) for file in files for number in file.read_text().split())
            if quota > 0 and period > 0:  # version 1 says -1 for none
                return max(1, quota // period)
    return None


def _read_first_number(paths: tuple[Path, ...]) -> int | None:
    for path in paths:
        try:
            return int(path.read_text())
        except (OSError, ValueError):  # absent, or "max"
            continue
    return None


def _reclaimable_bytes() -> int:
    """The container's file pages that are given back when memory is needed; 0 where that is not told."""
    for path, name in CGROUP_STATS:
        with suppress(OSError, ValueError):
            for line in path.read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    return 0
