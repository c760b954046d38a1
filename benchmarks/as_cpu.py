"""Run a command as if this machine's CPU had fewer instructions: how an older or a smaller CPU does, where there is none at hand.

    python benchmarks/as_cpu.py avx2 python benchmarks/speed.py qwen2.5-coder-0.5b --llama-python VENV/bin/python
    python benchmarks/as_cpu.py avx_vnni python -m pytest tests/engine

`avx2`: as AMD's Zen 2 and 3 and Intel's Core of the 4th to the 10th generation. `avx_vnni`: as Intel's Core from the 12th generation
on, which has products of bytes and no AVX-512. `sse4_2`: as small Celerons and Pentiums, and Core before the 4th generation.

nomoat and those it asks see such a /proc/cpuinfo, LLVM (which numba and nomoat compile by) takes the CPU for such a one, and oneDNN
(in OpenVINO and PyTorch) keeps to such instructions; what OpenVINO itself asks the CPU it still sees, so that its own products may
fail. A peer compiled by itself has to be compiled so. Speed is that of this CPU without those instructions; clocks, caches and
memory stay its own. Needs Linux and user namespaces. Compiled code and imported models are kept apart only under another
NOMOAT_HOME.

What a program does on such a CPU in truth tells QEMU (`qemu-x86_64 -cpu Haswell`, slow), with this for /proc/cpuinfo.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

INFO = Path("/proc/cpuinfo")
# what LLVM takes the CPU for, what oneDNN keeps to, and the flags nobody may see
CPUS = {
    "avx2": ("haswell", "AVX2", ("avx512", "amx", "avx_vnni")),
    "avx_vnni": ("alderlake", "AVX2_VNNI", ("avx512", "amx")),
    "sse4_2": ("nehalem", "SSE41", ("avx", "amx", "fma", "f16c", "bmi")),
}


def without(text: str, hidden: tuple[str, ...]) -> str:
    """/proc/cpuinfo without some of its flags."""
    lines = []
    for line in text.splitlines():
        name, _, value = line.partition(":")
        kept = [flag for flag in value.split() if not flag.startswith(hidden)]
        lines.append(f"{name}: {' '.join(kept)}" if name.strip() == "flags" else line)
    return "\n".join(lines) + "\n"


# Every Python of the command imports this at its start. LLVM's names of flags begin as Linux's do, but have no `_`.
TELL_LLVM = """
import importlib.util
if importlib.util.find_spec("llvmlite"):
    from llvmlite import binding
    features = binding.get_host_cpu_features()
    features.update((name, False) for name in features if name.startswith({hidden}))
    binding.get_host_cpu_name, binding.get_host_cpu_features = (lambda: {name!r}), (lambda: features)
"""


def main() -> int:
    if len(sys.argv) < 3 or sys.argv[1] not in CPUS:
        print(__doc__, file=sys.stderr)
        return 2
    name, isa, hidden = CPUS[sys.argv[1]]
    told = TELL_LLVM.format(name=name, hidden=tuple(flag.replace("_", "") for flag in hidden))
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder) / "cpuinfo"
        seen.write_text(without(INFO.read_text(encoding="utf-8"), hidden), encoding="utf-8")
        (Path(folder) / "sitecustomize.py").write_text(told, encoding="utf-8")
        found = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "PYTHONPATH": found}
        inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /proc/cpuinfo && exec "$@"', str(seen)]
        return subprocess.run([*inside, *sys.argv[2:]], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
