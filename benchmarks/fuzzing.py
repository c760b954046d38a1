"""What the fuzzers share: each case goes through the whole import, watched for time, memory, crashes and foreign errors.

A case is made from its number and the seed alone. The process that tries it may not grow by more than 512 MB in a case. What Python
and numpy allocate for a model is traced, and may be four times its files and 2 MB where it is refused. A finding is anything but an
error of nomoat's own or a model: another exception, a crash, more than a second of CPU until it is refused, more than 20 s, or more
memory.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facts import circumstances
from facts import write as write_found

LIMIT_SECONDS = 1.0
HANG_SECONDS = 20
GROWTH_BYTES = 512_000_000
MEMORY_FACTOR, MEMORY_ALLOWANCE_BYTES = 4, 4_000_000  # Python's own tables grow by up to 3.2 MB, in whichever case they are full
CASES_A_PROCESS = 500  # OpenVINO keeps a part of what each model took
RUN_EVERY = 10  # of the models that came of it, every tenth also answers

Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Fuzzer:
    """What is damaged. `whole`: the files of a model that works; `damaged`: (number, seed) -> what was done, and the files then.

    `model` is what nomoat is given, in the folder of the files: a name, or "" for the folder itself.
    """

    script: str
    description: str
    cases: int
    model: str
    whole: Callable[[], Files]
    damaged: Callable[[int, int], tuple[str, Files]]


def try_model(path: Path, *, run: bool) -> str:
    """What became of it: "refused", "imported" or "answered". Anything but nomoat's own errors comes through."""
    from nomoat import paths
    from nomoat.engine import importer
    from nomoat.engine.local import LocalEngine
    from nomoat.errors import NomoatError
    from nomoat.records import Message, Request

    try:
        folder = importer.import_gguf(path)
    except NomoatError:
        return "refused"
    try:
        engine = LocalEngine(folder)
        for request in (Request(prompt="hello"), Request(messages=(Message(role="user", content="hello"),))):
            try:
                engine.count_tokens(request)
                if run:
                    engine.score(request, ["hell"])
            except NomoatError:
                continue
        engine.close()
    finally:
        shutil.rmtree(paths.cache())
    return "answered" if run else "imported"


def work(fuzzer: Fuzzer, first: int, count: int, seed: int, note: Path) -> None:
    """Try cases in this process, and print a line of JSON for each finding and one for the whole."""
    folder = note.with_name("model")
    write(folder, fuzzer.whole())
    assert try_model(folder / fuzzer.model, run=True) == "answered"  # every library is loaded before memory is measured
    tracemalloc.start()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, largest = 0.0, 0.0
    for number in range(first, first + count):
        note.write_text(str(number))
        kind, files = fuzzer.damaged(number, seed)
        size = write(folder, files)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH_BYTES, resource.RLIM_INFINITY))
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        tracemalloc.reset_peak()
        before, started = tracemalloc.get_traced_memory()[0], time.process_time()
        try:
            outcome = try_model(folder / fuzzer.model, run=number % RUN_EVERY == 0)
        except BaseException as exc:  # noqa: BLE001 - this is what is looked for
            outcome = "finding"
            where = traceback.extract_tb(exc.__traceback__)[-1]
            finding(number, kind, f"{type(exc).__name__}: {str(exc)[:300]} ({Path(where.filename).name}:{where.lineno})")
        seconds, grown = time.process_time() - started, tracemalloc.get_traced_memory()[1] - before
        faulthandler.cancel_dump_traceback_later()
        outcomes[f"{kind}: {outcome}"] += 1
        if outcome == "refused":
            allowed = MEMORY_FACTOR * size + MEMORY_ALLOWANCE_BYTES
            slowest, largest = max(slowest, seconds), max(largest, grown / allowed)
            if seconds > LIMIT_SECONDS:
                finding(number, kind, f"{seconds:.1f} s of CPU until it was refused")
            if grown > allowed:
                finding(number, kind, f"{grown:,} bytes allocated for {size:,} bytes of files")
    print(json.dumps({"outcomes": outcomes, "slowest_seconds": slowest, "memory_of_allowed": largest}), flush=True)


def write(folder: Path, files: Files) -> int:
    """These files and no others. Returns their bytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sum(map(len, files.values()))


def finding(number: int, kind: str, what: str) -> None:
    print(json.dumps({"case": number, "damage": kind, "what": what}), flush=True)


def fuzz(fuzzer: Fuzzer, *, first: int, count: int, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(facts, findings) of the cases from `first` on. A case that ends its process is a finding; the next process goes on after it."""
    findings: list[dict[str, Any]] = []
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = largest = 0.0
    at, end = first, first + count
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NOMOAT_HOME": folder + "/home", "NOMOAT_OFFLINE": "1", "NOMOAT_THREADS": "1"}
        note = Path(folder) / "case"
        while at < end:
            part = min(end - at, CASES_A_PROCESS)
            command = [sys.executable, fuzzer.script, "--worker", "--first", str(at), "--cases", str(part), "--seed", str(seed)]
            done = subprocess.run([*command, "--note", str(note)], env=environment, capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                row = json.loads(line)
                if "case" in row:
                    findings.append(row)
                else:
                    outcomes.update(row["outcomes"])
                    slowest, largest = max(slowest, row["slowest_seconds"]), max(largest, row["memory_of_allowed"])
            if done.returncode == 0:
                at += part
                continue
            if not note.exists():
                raise RuntimeError(done.stderr)
            broken = int(note.read_text())
            what = f"the process ended with {done.returncode}: {done.stderr.strip()[-600:]}"
            findings.append({"case": broken, "damage": fuzzer.damaged(broken, seed)[0], "what": what})
            at = broken + 1
    facts = {"cases": count, "seed": seed, "first": first, "findings": len(findings), "slowest_refusal_cpu_seconds": round(slowest, 3),
             "largest_memory_of_allowed": round(largest, 3), "outcomes": dict(sorted(outcomes.items()))}  # fmt: skip
    return facts, findings


def main(fuzzer: Fuzzer) -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=fuzzer.description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=fuzzer.cases)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(fuzzer, arguments.first, arguments.cases, arguments.seed, arguments.note)
        return 0
    facts, findings = fuzz(fuzzer, first=arguments.first, count=arguments.cases, seed=arguments.seed)
    for row in findings:
        print(f"case {row['case']} ({row['damage']}): {row['what']}", file=sys.stderr)
    print(json.dumps(facts, indent=1))
    write_found(arguments.json, {**circumstances(), **facts, "found": findings})
    return 1 if findings else 0
