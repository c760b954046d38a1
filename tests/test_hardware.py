"""What memory and CPUs a container has, and what a machine is called: made files in the place of the system's."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from patience import PATIENCE_SECONDS

from nomoat import hardware

GB = 10**9
TAKES_50_MB = """
from nomoat import hardware
print(hardware.memory_of_this_process_bytes())
content = b"1" * 50_000_000
print(hardware.memory_of_this_process_bytes())
"""
# As the kernel writes them: version 1 has the group's own pages and those of all its children.
STATS = {
    "": "anon 300000000\nfile 4500000000\nshmem 200000000\ninactive_file 1400000000\nactive_file 2900000000\n"
    "slab_reclaimable 100000000\nslab 150000000\n",
    "memory": "cache 1\ninactive_file 1000000000\nactive_file 1\ntotal_cache 4600000000\ntotal_shmem 200000000\n"
    "total_inactive_file 1400000000\ntotal_active_file 3000000000\n",
}
NAMES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


@pytest.fixture(params=["", "memory"], ids=["version 2", "version 1"])
def container(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container of 8 GB, 4.9 of them used, on a machine with 50 GB left; where its files are."""

    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "own")
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
    """As after a pull of 4.4 GB, and models that were run twice: used of late or not, it is given back when memory is needed."""
    assert hardware.memory_available_bytes() == hardware.Detected(7_500_000_000, "left within the container's limit")


def test_more_memory_in_a_container_is_a_higher_limit_and_elsewhere_fewer_programs(container: Path) -> None:
    there = hardware.memory_available_bytes()
    assert hardware.more_memory(there, 121_000_000) == "raise the container's limit by 0.13 GB"
    assert hardware.more_memory(there) == "raise the container's limit"
    (container / "memory.max").unlink(missing_ok=True)
    (container / "memory.limit_in_bytes").unlink(missing_ok=True)
    assert hardware.more_memory(hardware.memory_available_bytes(), 121_000_000) == "close other programs"


@pytest.mark.parametrize("stat", [None, "", "inactive_file\ntotal_inactive_file\n"])
def test_a_container_that_does_not_tell_keeps_nothing_of_files(container: Path, stat: str | None) -> None:
    (container / "memory.stat").unlink() if stat is None else (container / "memory.stat").write_text(stat)
    assert hardware.memory_available_bytes().value == 3_100_000_000


def test_more_kept_than_used_is_no_more_than_the_limit(container: Path) -> None:
    """The two files are read one after the other."""
    (container / "memory.stat").write_text("inactive_file 6000000000\ntotal_inactive_file 6000000000\n")
    assert hardware.memory_available_bytes().value == 8 * GB


# As the kernel tells them: version 2, version 1, and a container of version 1 on a host whose groups it does not see.
OWN = {"": "0::/user.slice/job 7.scope\n", "memory": "9:name=systemd:/\n4:memory:/user.slice/job 7.scope\n0::/\n"}


@pytest.mark.parametrize("at", ["user.slice/job 7.scope", "user.slice"])
def test_a_limit_of_the_group_this_process_is_in_or_of_one_above_is_seen(container: Path, at: str, tmp_path: Path) -> None:
    """`systemd-run -p MemoryMax=2G`, Slurm, a container that shares the host's groups: not the topmost one has the limit."""
    controller = "" if container == tmp_path else container.name
    hardware.OWN_CGROUPS.write_text(OWN[controller])
    limit, used = NAMES[controller]
    folder = container / at
    folder.mkdir(parents=True)
    (folder / limit).write_text(f"{2 * GB}\n")
    (folder / used).write_text("1600000000\n")
    (folder / "memory.stat").write_text(f"inactive_file {1 if controller else GB}\ntotal_inactive_file {GB}\n")
    assert hardware.memory_total_bytes() == hardware.Detected(2 * GB, "limit of the control group")
    assert hardware.memory_available_bytes() == hardware.Detected(1_400_000_000, "left within the control group's limit")
    (folder / limit).write_text("max\n" if not controller else "9223372036854771712\n")
    assert hardware.memory_total_bytes() == hardware.Detected(8 * GB, "limit of the container")
    assert hardware.memory_available_bytes().value == 7_500_000_000


@pytest.mark.parametrize("told", ["0::/../../other\n", "4:memory:/docker/1f\n0::/docker/1f\n", "", "0::/\n4:memory:/\n"])
def test_a_group_whose_folder_is_not_here_changes_nothing(container: Path, told: str) -> None:
    hardware.OWN_CGROUPS.write_text(told)
    assert hardware.memory_total_bytes() == hardware.Detected(8 * GB, "limit of the container")


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}),
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/b/cpu.max": "350000 100000\n", "a/cpu.max": "700000 100000\n"}),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}),
    ],
)
def test_threads_are_no_more_than_the_group_has_time_for(
    own: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`systemd-run -p CPUQuota=300%`, and Slurm's."""
    _move_quotas(tmp_path, monkeypatch, files)
    hardware.OWN_CGROUPS.write_text(own)
    monkeypatch.setattr(hardware, "allowed_cores", lambda: set(range(128)))
    assert hardware.threads() == hardware.Detected(3, "the control group's share of the CPUs")


def test_what_this_process_has_for_itself_is_known() -> None:
    # In a process of its own: in this one the threads of other tests give memory back meanwhile.
    told = subprocess.run([sys.executable, "-c", TAKES_50_MB], check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    before, after = map(int, told.stdout.split())
    assert 0 < before < psutil.virtual_memory().total
    assert after - before == pytest.approx(50_000_000, rel=0.2)


def test_what_a_process_has_for_itself_counts_as_nothing_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> SimpleNamespace:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "Process", absent)
    assert hardware.memory_of_this_process_bytes() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows needs no /proc")
def test_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> SimpleNamespace:
        raise FileNotFoundError("/proc/meminfo")

    total = psutil.virtual_memory().total
    monkeypatch.setattr(psutil, "virtual_memory", absent)
    monkeypatch.setattr(hardware, "CGROUPS", Path("none"))
    assert hardware.memory_total_bytes().value == pytest.approx(total, rel=0.01)
    available = hardware.memory_available_bytes()
    assert 0 < available.value <= total
    assert available.reason == "free memory of the machine; without /proc what is reclaimable is not known"


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


def test_cpus_are_those_of_a_containers_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _move_quotas(tmp_path, monkeypatch, {"cpu.max": "200000 100000\n"})
    monkeypatch.setattr(hardware, "allowed_cores", lambda: set(range(128)))
    assert hardware.cpus() == 2


def test_cores_that_are_fewer_than_a_containers_share_are_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _move_quotas(tmp_path, monkeypatch, {"cpu.max": "400000 100000\n"})
    monkeypatch.setattr(hardware, "allowed_cores", lambda: {0, 1, 2})
    assert hardware.threads() == hardware.Detected(3, "3 of 64 physical cores are allowed to this process")
    assert hardware.cpus() == 3


def _move_quotas(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """A machine of 64 cores whose container says that of its CPUs."""
    (folder / "cpu").mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(hardware, "CGROUPS", folder)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", folder / "own")
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
    ("machine", "told", "said"),
    [
        ("x86_64", ZEN_4, "AMD EPYC (family 25 model 17, avx512_vnni)"),
        ("x86_64", ZEN_5, "AMD EPYC (family 26 model 2, avx512_vnni)"),
        ("aarch64", "model name\t: ARMv8\nFeatures\t: asimd\n", "ARMv8 (aarch64)"),
    ],
    ids=["Zen 4", "Zen 5", "no family"],
)
def test_cpus_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, told: str, said: str) -> None:
    """A result was once noted as of the CPU that a machine of the same name had the day before."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    hardware.CPU_INFO.write_text(told)
    assert f" cores {said}, " in hardware.summary()


@pytest.mark.parametrize(
    ("machine", "own", "foreign"),
    [
        ("x86_64", "flags\t\t: avx2 fma\n", "Features\t: asimd asimddp\n"),
        ("aarch64", "Features\t: asimd asimddp\n", "flags\t\t: avx2 fma\n"),
    ],
)
def test_an_emulated_process_has_none_of_the_flags_of_the_cpu_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, own: str, foreign: str
) -> None:
    """QEMU shows the host's file, and LLVM ends a process that asks for instructions of another architecture."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    for told, flags in ((own, set(own.split()[2:])), (foreign, set())):
        hardware.CPU_INFO.write_text(told)
        assert hardware.cpu_flags() == flags


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
    monkeypatch.setattr(hardware, "CGROUPS", Path("none"))
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


@pytest.mark.parametrize("missing", ["amx_bf16", "amx_int8", "amx_tile", "avx512_vnni"])
def test_amx_is_used_where_all_its_products_are(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Compiled code has both, of bf16 and of bytes."""
    flags = {"amx_bf16", "amx_int8", "amx_tile", "avx512_vnni"} - {missing}
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    assert hardware.amx() == hardware.Detected(False, "this CPU has no AMX")
