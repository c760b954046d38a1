"""What memory and CPUs a container has, and what a machine is called: made files in the place of the system's."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from nomoat import hardware

GB = 10**9
# As the kernel writes them: version 1 has the group's own pages and those of all its children.
STATS = {
    "": "anon 400000000\nfile 4500000000\ninactive_file 4400000000\nactive_file 100000000\n",
    "memory": "cache 1\ninactive_file 1000000000\ntotal_inactive_file 4400000000\ntotal_active_file 100000000\n",
}
NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


@pytest.fixture(params=["", "memory"], ids=["version 2", "version 1"])
def container(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container of 8 GB, 4.9 of them used, on a machine with 50 GB left; where its files are."""

    def moved(path: Path) -> Path:
        return tmp_path / path.relative_to("/sys/fs/cgroup")

    monkeypatch.setattr(hardware, "CGROUP_LIMITS", tuple(map(moved, hardware.CGROUP_LIMITS)))
    monkeypatch.setattr(hardware, "CGROUP_USES", tuple(map(moved, hardware.CGROUP_USES)))
    monkeypatch.setattr(hardware, "CGROUP_STATS", tuple((moved(path), name) for path, name in hardware.CGROUP_STATS))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB, available=50 * GB))
    limit, used = NAMES[request.param]
    folder = tmp_path / request.param
    folder.mkdir(exist_ok=True)
    (folder / limit).write_text(f"{8 * GB}\n")
    (folder / used).write_text("4900000000\n")
    (folder / "memory.stat").write_text(STATS[request.param])
    return folder


@pytest.mark.usefixtures("container")
def test_what_a_container_keeps_of_files_counts_as_free() -> None:
    """As after a pull of 4.4 GB: they are given back when memory is needed."""
    assert hardware.memory_available_bytes() == hardware.Detected(7_500_000_000, "left within the container's limit")


@pytest.mark.parametrize("stat", [None, "", "inactive_file\ntotal_inactive_file\n"])
def test_a_container_that_does_not_tell_keeps_nothing_of_files(container: Path, stat: str | None) -> None:
    (container / "memory.stat").unlink() if stat is None else (container / "memory.stat").write_text(stat)
    assert hardware.memory_available_bytes().value == 3_100_000_000


def test_more_kept_than_used_is_no_more_than_the_limit(container: Path) -> None:
    """The two files are read one after the other."""
    (container / "memory.stat").write_text("inactive_file 6000000000\ntotal_inactive_file 6000000000\n")
    assert hardware.memory_available_bytes().value == 8 * GB


@pytest.mark.parametrize(
    ("files", "value", "reason"),
    [
        ({"cpu.max": "200000 100000\n"}, 2, "the container's share of the CPUs"),
        ({"cpu.max": "250000 100000\n"}, 2, "the container's share of the CPUs"),
        ({"cpu.max": "50000 100000\n"}, 1, "the container's share of the CPUs"),
        ({"cpu.max": "max 100000\n"}, 64, "64 physical cores"),
        ({"cpu.max": "6400000 100000\n"}, 64, "64 physical cores"),
        ({"cpu.max": ""}, 64, "64 physical cores"),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3, "the container's share of the CPUs"),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64, "64 physical cores"),
        ({"cpu/cpu.cfs_quota_us": "300000\n"}, 64, "64 physical cores"),
        ({}, 64, "64 physical cores"),
    ],
)
def test_threads_are_no_more_than_a_container_has_time_for(
    files: dict[str, str], value: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota leaves every core allowed: `docker --cpus 2`, or a limit of Kubernetes."""
    _move_quotas(tmp_path, monkeypatch, files)
    monkeypatch.setattr(hardware, "allowed_cores", lambda: set(range(128)))
    assert hardware.threads() == hardware.Detected(value, reason)


def test_cores_that_are_fewer_than_a_containers_share_are_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _move_quotas(tmp_path, monkeypatch, {"cpu.max": "400000 100000\n"})
    monkeypatch.setattr(hardware, "allowed_cores", lambda: {0, 1, 2})
    assert hardware.threads() == hardware.Detected(3, "3 of 64 physical cores are allowed to this process")


def _move_quotas(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """A machine of 64 cores whose container says that of its CPUs."""
    (folder / "cpu").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    moved = tuple(tuple(folder / path.relative_to("/sys/fs/cgroup") for path in files) for files in hardware.CGROUP_QUOTAS)
    monkeypatch.setattr(hardware, "CGROUP_QUOTAS", moved)
    monkeypatch.setattr(hardware, "TOPOLOGY", folder)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 128 if logical else 64)


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
@pytest.mark.parametrize(
    ("allowed", "threads", "reason"),
    [
        ({0, 1, 4, 5}, 2, "2 of 4 physical cores are allowed to this process"),
        ({0, 1, 2, 3}, 4, "4 physical cores"),
        (set(range(8)), 4, "4 physical cores"),
        ({6}, 1, "1 of 4 physical cores are allowed to this process"),
    ],
)
def test_two_processors_of_one_core_are_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, allowed: set[int], threads: int, reason: str
) -> None:
    """Eight of four cores, the second of each after the first of all; a container may be given both of some."""
    for number in range(8):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / name).write_text(f"{number % 4},{number % 4 + 4}\n")
    monkeypatch.setattr(hardware, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(hardware, "allowed_cores", lambda: allowed)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8 if logical else 4)
    assert hardware.threads() == hardware.Detected(threads, reason)


def test_where_the_system_does_not_tell_what_shares_a_core_each_processor_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8 if logical else 4)
    for allowed, threads in (({0, 1, 4}, 3), (set(range(8)), 4)):
        monkeypatch.setattr(hardware, "allowed_cores", lambda allowed=allowed: allowed)
        assert hardware.threads().value == threads


ZEN_4 = "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: avx2 avx512_vnni\n"
ZEN_5 = "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nflags\t\t: avx2 avx512_vnni\n"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (ZEN_4, "AMD EPYC (family 25 model 17, avx512_vnni)"),
        (ZEN_5, "AMD EPYC (family 26 model 2, avx512_vnni)"),
        ("model name\t: ARMv8\nFeatures\t: asimd\n", f"ARMv8 ({platform.machine()})"),
    ],
    ids=["Zen 4", "Zen 5", "no family"],
)
def test_cpus_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, said: str) -> None:
    """A result was once noted as of the CPU that a machine of the same name had the day before."""
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    hardware.CPU_INFO.write_text(told)
    assert f" cores {said}, " in hardware.summary()


@pytest.mark.skipif(not hardware.CPU_INFO.exists(), reason="Linux tells it in a file, with which this compares")
def test_where_the_system_tells_nothing_llvm_finds_what_the_cpu_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"sse2", "avx2", "fma", "f16c", *hardware.LINUX_NAMES.values()} - {"avx512_fp16"}
    told = hardware.cpu_flags() & asked
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "none")
    assert hardware.cpu_flags() & asked == told


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_process_has_no_more_memory_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -v`: what it has mapped already is gone from that."""
    import resource

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * GB, available=50 * GB))
    monkeypatch.setattr(hardware, "CGROUP_LIMITS", ())
    for limit in (resource.RLIM_INFINITY, 60 * GB):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit) if which == resource.RLIMIT_AS else None)
        monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=15 * GB)))
        bounded = limit != resource.RLIM_INFINITY
        assert hardware.memory_total_bytes().value == (60 * GB if bounded else 64 * GB)
        assert hardware.memory_available_bytes() == (
            hardware.Detected(45 * GB, "left within this process's limit (ulimit -v)")
            if bounded
            else hardware.Detected(50 * GB, "free and reclaimable memory of the machine")
        )
