"""What this machine is: each detection returns the value and the reason for it."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

import psutil

from nomoat import paths, words

T = TypeVar("T")

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# By version of control groups: the folder of what controls memory, and the files with its limit, what is used, and of that, under
# these names in the last one, what is given back when needed: pages of files, used of late or not, and slabs where they are told.
# So count the kernel's MemAvailable (mm/show_mem.c, `si_mem_available`) and LXCFS; shmem and locked pages are not among them.
# `inactive_file` alone, which kubelet and `docker stats` subtract, leaves out what was mapped twice, as weights are.
CGROUP_MEMORY = (
    ("", "memory.max", "memory.current", "memory.stat", {"inactive_file", "active_file", "slab_reclaimable"}),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", {"total_inactive_file", "total_active_file"}),
)
# The same of CPUs: the time a group may use in each period, and the period, in one file or in two.
CGROUP_QUOTAS = (("", ("cpu.max",)), ("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us")))
CPU_INFO = Path("/proc/cpuinfo")
FLAGS_KEYS = {"x86_64": "flags", "amd64": "flags", "aarch64": "Features", "arm64": "Features"}  # there, by architecture
CPU_KEY = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
# What LLVM calls otherwise than Linux of the flags that are asked for.
LINUX_NAMES = {
    "avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
    "amx-tile": "amx_tile", "amx-bf16": "amx_bf16", "amx-int8": "amx_int8", "dotprod": "asimddp",
}  # fmt: skip
# Source: Linux, Documentation/arch/x86/xstate.rst
ARCH_PRCTL, ASK_FOR_STATE, STATE_OF_AMX = 158, 0x1023, 18
LEFT_WITHIN = "left within "  # begins the reason of what is free where a limit is nearer than the machine's end
OF_APPLE = {"asimddp"}  # what every Mac's ARM CPU has, of what is asked for
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


def cpus() -> int:
    """How many CPUs' time this process may have: those it may run on, or its container's share of them."""
    allowed, share = len(allowed_cores()), _share_of_cpus()
    return allowed if share is None else min(allowed, share.value)


def _physical_cores(logical: set[int]) -> int:
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
    allowed = _physical_cores(allowed_cores())
    physical = psutil.cpu_count(logical=False) or allowed
    share = _share_of_cpus()
    if share is not None and share.value < min(allowed, physical):
        return share
    if allowed < physical:
        return Detected(allowed, f"{allowed} of {physical} physical cores are allowed to this process")
    return Detected(physical, f"{physical} physical cores")


def memory_total_bytes() -> Detected[int]:
    """Memory this process could ever have: the machine's, the limit of its control group (a container's, a job's), or its own."""
    found = [_machine_memory()[0], *(Detected(limit, f"limit of {what}") for what, limit, _ in _memory_limits())]
    if (space := _address_space()) is not None:
        found.append(Detected(space[0], "limit of this process (ulimit -v)"))
    return min(found, key=lambda one: one.value)


def memory_available_bytes() -> Detected[int]:
    """Memory that can be had now without swapping, what the system keeps of files included."""
    found = [_machine_memory()[1]]
    found += [Detected(left, f"{LEFT_WITHIN}{what}'s limit") for what, _, left in _memory_limits() if left is not None]
    if (space := _address_space()) is not None:
        found.append(Detected(max(0, space[0] - space[1]), f"{LEFT_WITHIN}this process's limit (ulimit -v)"))
    return min(found, key=lambda one: one.value)


def more_memory(there: Detected[int], missing_bytes: int | None = None) -> str:
    """What a user can do for more than `memory_available_bytes` found, and how much more it has to be, if that is known."""
    limit = there.reason.removeprefix(LEFT_WITHIN)
    if limit == there.reason:
        return "close other programs"
    return f"raise {limit}" if missing_bytes is None else f"raise {limit} by {words.gigabytes_up(missing_bytes)} GB"


def memory_of_this_process_bytes() -> int:
    """What it has that nobody else has, as far as the system tells: no part of what is free."""
    with suppress(OSError, psutil.Error):  # no /proc
        told = psutil.Process().memory_info()
        return int(told.rss - getattr(told, "shared", 0))
    return 0


def give_back_freed_memory() -> None:
    """What was freed, to the system: glibc keeps it for the threads that freed it. Takes some ms."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library, such as musl, gives it back itself
            ctypes.CDLL(None).malloc_trim(0)


def _machine_memory() -> tuple[Detected[int], Detected[int]]:
    """All of it, and what is free."""
    try:
        told = psutil.virtual_memory()
    except OSError:  # no /proc
        page = os.sysconf("SC_PAGE_SIZE")
        return (
            Detected(page * os.sysconf("SC_PHYS_PAGES"), "memory of the machine"),
            Detected(
                page * os.sysconf("SC_AVPHYS_PAGES"), "free memory of the machine; without /proc what is reclaimable is not known"
            ),
        )
    return Detected(told.total, "memory of the machine"), Detected(told.available, "free and reclaimable memory of the machine")


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
    if limit == resource.RLIM_INFINITY:
        return None
    with suppress(OSError, psutil.Error):
        return limit, psutil.Process().memory_info().vms
    return limit, 0  # no /proc


def cpu_flags() -> frozenset[str]:
    """Instruction set flags as Linux names them: what it tells, or elsewhere (Windows, macOS) what LLVM finds.

    Empty where Linux tells those of another architecture than this process's: an emulator (QEMU) shows it the host's file.
    """
    if not CPU_INFO.exists():
        return _flags_by_llvm()
    key = FLAGS_KEYS.get(platform.machine().lower())
    return frozenset(_cpu_info(key).split()) if key else frozenset()


@functools.cache
def _flags_by_llvm() -> frozenset[str]:
    """Those that the CPU has and the system lets programs use."""
    from llvmlite import binding

    found = {LINUX_NAMES.get(name, name) for name, has in binding.get_host_cpu_features().items() if has}
    is_apple = (sys.platform, platform.machine()) == ("darwin", "arm64")  # where LLVM may find nothing
    return frozenset(found | OF_APPLE if is_apple else found)


def has_vnni() -> bool:
    """Whether one instruction multiplies four bytes without a sign with four that have one, and adds the products, in each lane."""
    return bool({"avx512_vnni", "avx_vnni"} & cpu_flags())


def has_fast_avx512_bf16() -> bool:
    """Whether AVX-512 multiplies more numbers in bf16 than in float32: AMD's does, Intel's (without AMX) no more of them."""
    return "avx512_bf16" in cpu_flags() and "AMD" in cpu_name()


def has_dotprod() -> bool:
    """Whether ARM's does the same of bytes that all have a sign."""
    return "asimddp" in cpu_flags()


def amx() -> Detected[bool]:
    """Whether AMX's products of bf16 and of bytes are for this process: the CPU has both, and Linux gives room for their registers."""
    if not {"amx_bf16", "amx_int8", "amx_tile", "avx512_vnni"} <= cpu_flags():
        return Detected(False, "this CPU has no AMX")
    if not sys.platform.startswith("linux"):
        return Detected(False, "AMX is used under Linux alone")
    if ctypes.CDLL(None, use_errno=True).syscall(ARCH_PRCTL, ASK_FOR_STATE, STATE_OF_AMX) != 0:
        return Detected(False, f"Linux does not give AMX to this process: {os.strerror(ctypes.get_errno())}")
    return Detected(True, "this CPU has AMX")


def cpu_kind() -> str:
    """All that compiled code may depend on of this CPU, in a short digest: a home may be on several machines."""
    told = (cpu_name(), *_family_and_model(), *sorted(cpu_flags()))
    return paths.sha256_of_texts(*told)[:12]


def summary() -> str:
    """One line that names this machine in a report. Clouds give several kinds of CPU one name: family and model tell."""
    total = memory_total_bytes().value / 2**30
    usable = cpu_flags() if amx().value else cpu_flags() - {"amx_bf16"}
    wide = next((name for name in ("amx_bf16", "avx512_vnni", "avx_vnni", "avx2", "asimddp") if name in usable), platform.machine())
    family, model = _family_and_model()
    kind = f"family {family} model {model}, {wide}" if family and model else wide
    return f"{threads().value} cores {cpu_name()} ({kind}), {total:.0f} GiB, {platform.system()}"


def versions(*names: str) -> dict[str, str]:
    """Of Python and of these packages, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _family_and_model() -> tuple[str, str]:
    return _cpu_info("cpu family"), _cpu_info("model\t")


def _cpu_info(name: str) -> str:
    """What Linux says of the first core under this name; empty where it says nothing."""
    with suppress(FileNotFoundError), CPU_INFO.open(encoding="utf-8", errors="replace") as lines:  # a large server's file takes ms
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
    return ""


def _share_of_cpus() -> Detected[int] | None:
    """How many CPUs' time this process has at most, in whole ones; None where nothing bounds it."""
    found = []
    for controller, files in CGROUP_QUOTAS:
        for what, folder in _groups(controller):
            with suppress(OSError, ValueError):  # absent, or "max"
                quota, period = (int(number) for file in files for number in (folder / file).read_text().split())
                if quota > 0 and period > 0:  # version 1 says -1 for none
                    found.append(Detected(max(1, quota // period), f"{what}'s share of the CPUs"))
    return min(found, key=lambda one: one.value, default=None)


def _memory_limits() -> list[tuple[str, int, int | None]]:
    """What has a limit, the limit, and what is left within it, if that is told."""
    found = []
    for controller, limit_file, use_file, stat_file, reclaimable in CGROUP_MEMORY:
        for what, folder in _groups(controller):
            if (limit := _number(folder / limit_file)) is not None:
                used = _number(folder / use_file)
                left = None if used is None else max(0, limit - max(0, used - _sum_of(folder / stat_file, reclaimable)))
                found.append((what, limit, left))
    return found


def _groups(controller: str) -> list[tuple[str, Path]]:
    """The control group this process is in, and all above it: what to call each, and its folder. "" stands for version 2.

    A container sees its own group as the topmost. Where it is told the names of those above (version 1), they are not in its folder.
    """
    top = CGROUPS / controller
    found = [("the container", top)]
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and ".." not in path.split("/"):  # else it is outside of what is seen here
                own = PurePosixPath(path.strip("/"))
                found += [("the control group", top / group) for group in (own, *own.parents) if group.parts]
    return found


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # absent, or "max"
        return int(path.read_text())
    return None


def _sum_of(path: Path, names: Collection[str]) -> int:
    """What a file says under these names, together; 0 for those under which it says nothing."""
    found = 0
    with suppress(OSError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key in names and value.isdecimal():
                found += int(value)
    return found
