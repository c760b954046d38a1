"""From nothing to the first token: importing a file once, and starting on what was imported, each in a process of its own.

    python benchmarks/startup.py smollm2-135m [--runs 5] [--imports 3] [--json FILE]

The import writes into a temporary home, with the file's pages in the system's cache. Peak memory is that of the process that
imports, or of the one that it starts for that, whichever is larger: Python and OpenVINO, the arrays of weights, and those pages of the
file it still had mapped. A start is the whole command
`nomoat run MODEL hi -n 1`, from `fork` to exit; its parts are measured in another process, and in a third what a loaded model holds
that no other process shares (Linux alone tells). Python may keep modules as byte code, as
it does wherever PYTHONDONTWRITEBYTECODE is not set. The first start after an import of a model that OpenVINO runs compiles it and
keeps it as compiled; the others read that. Seconds of CPU, over all threads, hardly depend on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from facts import circumstances, write

from nomoat import paths, references, responder

IMPORT = """
import resource, sys, time
from pathlib import Path
started = time.perf_counter()
from nomoat.engine import importer
folder = importer.import_gguf(Path(sys.argv[1]))
took, who = time.perf_counter() - started, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(took, max(resource.getrusage(one).ru_maxrss for one in who) * 1024, folder)
"""
PARTS = """
import json, sys, time
times = {}
last = time.perf_counter()
def mark(name):
    global last
    times[name], last = time.perf_counter() - last, time.perf_counter()
from nomoat.cli import app
mark("command line")
from nomoat.responder import load
from nomoat.records import Message, Request
model = load(sys.argv[1])
mark("find, check and describe the model")
model.complete(Request(messages=(Message(role="user", content="hi"),), max_new_tokens=1))
mark("make the model ready, read the prompt")
model.close()
mark("end")
print(json.dumps(times))
"""
LOADED = """
import sys
import nomoat
model = nomoat.load(sys.argv[1])
with open("/proc/self/smaps_rollup") as file:
    print(sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_")))
model.close()
"""


def run_python(code: str, *arguments: str, home: str | None = None) -> str:
    environment = os.environ if home is None else {**os.environ, "NOMOAT_HOME": home}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout  # fmt: skip


def measure_import(weights: Path, runs: int) -> dict[str, Any]:
    """Median seconds and largest memory of imports into an empty home."""
    seconds, peaks = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            took, peak, folder = run_python(IMPORT, str(weights), home=home).split()
            seconds.append(float(took))
            peaks.append(int(peak))
            ir_bytes = sum(path.stat().st_size for path in Path(folder).glob("openvino_model.*"))
    return {
        "import_seconds": statistics.median(seconds), "import_seconds_all": seconds, "import_peak_bytes": max(peaks),
        "ir_bytes": ir_bytes, "allowed_peak_bytes": round(1.5 * ir_bytes + 300e6),
    }  # fmt: skip


def measure_start(ref: str, runs: int) -> dict[str, Any]:
    """Median seconds of the whole command, and of its parts."""
    command = [sys.executable, "-m", "nomoat", "run", ref, "hi", "-n", "1"]

    def start() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        took = time.perf_counter() - started
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        return took, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime

    shutil.rmtree(paths.cache() / "compiled", ignore_errors=True)
    first, _ = start()
    seconds, cpu_seconds = zip(*(start() for _ in range(runs)), strict=True)
    parts = [json.loads(run_python(PARTS, ref)) for _ in range(runs)]
    return {
        "start_seconds": statistics.median(seconds), "start_seconds_all": seconds, "first_start_seconds": first,
        "start_cpu_seconds": statistics.median(cpu_seconds), "start_cpu_seconds_all": cpu_seconds,
        "loaded_private_bytes": int(run_python(LOADED, ref)) if sys.platform == "linux" else None,
        "parts_seconds": {name: statistics.median(each[name] for each in parts) for name in parts[0]},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--imports", type=int, default=3, help="how often to import; 0: not at all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    weights = references.find_files(options.model).weights
    responder.load(options.model).close()  # imported for sure
    run_python(PARTS, options.model)  # and byte code is there
    row = {
        **circumstances(), "model": options.model,
        **measure_start(options.model, options.runs), **(measure_import(weights, options.imports) if options.imports else {}),
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    write(options.json, row)


if __name__ == "__main__":
    main()
