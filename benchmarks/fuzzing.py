"""What the fuzzers share: each case goes through the whole import, watched for time, memory, crashes and foreign errors.

A case is made from its number and the seed alone. Cases of odd numbers take the road of large models: weights stay in their file's
codes, and where the family allows it nomoat's own passes, compiled without checks of bounds, answer two prompts, with one thread. The
others take that of models as small as these are, in OpenVINO's form; every tenth number's answers, too, and gives likelihoods.

The process that tries a case may not grow by more than 512 MB in it, of whoever's memory. What Python and numpy allocate for a model
is traced. Where it is refused that may be four times its files and 64 KB, and besides, if its header was in order and its weights were
being read, four times these as stored: some matrices at a time are numbers of 32 bits. Where it was more the case is tried once more:
Python's own tables grow in whichever case they are full. A finding is anything but an error of nomoat's own or a model: another
exception, a crash, more than a second of CPU until it is refused, more than 20 s, or more memory.
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
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from facts import circumstances
from facts import write as write_found

from nomoat import cache, machine_code

LIMIT_SECONDS = 1.0
HANG_SECONDS = 20
GROWTH_BYTES = 512_000_000
MEMORY_FACTOR, MEMORY_ALLOWANCE_BYTES = 4, 64_000  # the latter for what a file of a few bytes takes
CASES_A_PROCESS = 1000  # OpenVINO keeps a part of what each model took
RUN_EVERY = 10  # of the models in OpenVINO's form, every tenth also answers
CACHE_BYTES = 16_000_000  # of keys and values: the usual 2 GB of addresses would be more than a case may have
OUTCOMES = ("refused", "imported", "answered", "answered in its file's codes")
SIZES_OF_FORMS = ("FEW_WEIGHTS", "TILES_FROM_WEIGHTS")  # of `footprint`; with 0 a small model takes the road of large ones

Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Fuzzer:
    """What is damaged. `whole`: the files of models that work; `damaged`: (number, seed) -> what was done, and the files then.

    `model`: the folder of the files -> what nomoat is given.
    """

    script: str
    description: str
    cases: int
    model: Callable[[Path], Path]
    whole: Callable[[], Sequence[Files]]
    damaged: Callable[[int, int], tuple[str, Files]]


def try_model(path: Path, number: int) -> tuple[str, int]:
    """(what became of it by the road of this number, one of OUTCOMES; the bytes of its weights as stored, 0 if it was refused before).

    Anything but nomoat's own errors comes through.
    """
    from nomoat import footprint, paths
    from nomoat.engine import importer
    from nomoat.engine.local import LocalEngine
    from nomoat.errors import NomoatError
    from nomoat.records import Message, Request

    for kept in paths.cache().glob("*"):  # of the case before
        if kept.name != cache.KERNELS:
            shutil.rmtree(kept)
    refused, imported, answered, in_codes = OUTCOMES
    stored = [0]
    as_large, as_small = number % 2 == 1, number % RUN_EVERY == 0
    with ExitStack() as road:
        if as_large:
            for name in SIZES_OF_FORMS:
                road.enter_context(mock.patch.object(footprint, name, 0))
        try:
            folder = importer.import_gguf(path, check=lambda sizes, num_weights, num_bytes, *how: stored.append(num_bytes))
        except NomoatError:
            return refused, stored[-1]
        with closing(LocalEngine(folder)) as engine:
            engine.bound_cache(CACHE_BYTES)
            chat = Request(messages=(Message(role="user", content="hello hell he 12"),), max_new_tokens=4)
            for request in (chat, Request(prompt="hello" * 20, max_new_tokens=4)):
                with suppress(NomoatError):
                    engine.count_tokens(request)
                    if as_large or as_small:
                        list(engine.generate(request))
                    if as_small:
                        engine.score(request, ["hell"])
    return in_codes if engine.storage.has_tiles else answered if as_large or as_small else imported, stored[-1]


def work(fuzzer: Fuzzer, first: int, count: int, seed: int, note: Path) -> None:
    """Try cases in this process, and print a line of JSON for each finding and one for the whole."""
    folder = note.with_name("model")
    wholes = fuzzer.whole()
    for number, files in [(0, wholes[0]), *((1, files) for files in wholes)]:  # all is compiled and loaded before it is measured
        write(folder, files)
        assert try_model(fuzzer.model(folder), number)[0].startswith("answered")
    tracemalloc.start()
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, largest = 0.0, 0.0
    for number in range(first, first + count):
        note.write_text(str(number))
        kind, files = fuzzer.damaged(number, seed)
        size = write(folder, files)
        for _ in range(2):
            outcome, stored, seconds, grown = watched(fuzzer.model(folder), number)
            allowed = MEMORY_FACTOR * (size + stored) + MEMORY_ALLOWANCE_BYTES
            if outcome != "refused" or grown <= allowed:
                break
        outcomes[f"{kind}: {outcome if outcome in OUTCOMES else 'finding'}"] += 1
        if outcome not in OUTCOMES:
            finding(number, kind, outcome)
        elif outcome == "refused":
            slowest, largest = max(slowest, seconds), max(largest, grown / allowed)
            if seconds > LIMIT_SECONDS:
                finding(number, kind, f"{seconds:.1f} s of CPU until it was refused")
            if grown > allowed:
                finding(number, kind, f"{grown:,} bytes allocated for {size:,} bytes of files")
    print(json.dumps({"outcomes": outcomes, "slowest_seconds": slowest, "memory_of_allowed": largest}), flush=True)


def watched(path: Path, number: int) -> tuple[str, int, float, int]:
    """(what became of a model, or what was raised; bytes of its weights; seconds of CPU; bytes allocated), within the limits."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + GROWTH_BYTES, resource.RLIM_INFINITY))
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    tracemalloc.reset_peak()
    before, started = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        outcome, stored = try_model(path, number)
    except BaseException as exc:  # noqa: BLE001 - this is what is looked for
        where = traceback.extract_tb(exc.__traceback__)[-1]
        outcome, stored = f"{type(exc).__name__}: {str(exc)[:300]} ({Path(where.filename).name}:{where.lineno})", 0
    faulthandler.cancel_dump_traceback_later()
    return outcome, stored, time.process_time() - started, tracemalloc.get_traced_memory()[1] - before


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
        kept, kernels = machine_code.FOLDER.parent, Path(environment["NOMOAT_HOME"]) / "cache" / cache.KERNELS
        for place in (kept, kernels.parent):
            place.mkdir(parents=True, exist_ok=True)
        kernels.symlink_to(kept)  # what is compiled already, and for the next run what is compiled here
        note = Path(folder) / "case"
        while at < end:
            part = min(end - at, CASES_A_PROCESS)
            command = [sys.executable, fuzzer.script, "--worker", "--first", str(at), "--cases", str(part), "--seed", str(seed)]
            done = subprocess.run([*command, "--note", str(note)], env=environment, capture_output=True, text=True, check=False)
            for line in done.stdout.splitlines():
                row = json.loads(line)
                if "case" in row:
                    findings.append(told(row))
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
            findings.append(told({"case": broken, "damage": fuzzer.damaged(broken, seed)[0], "what": what}))
            at = broken + 1
    facts = {"cases": count, "seed": seed, "first": first, "findings": len(findings), "slowest_refusal_cpu_seconds": round(slowest, 3),
             "largest_memory_of_allowed": round(largest, 3), "outcomes": dict(sorted(outcomes.items()))}  # fmt: skip
    return facts, findings


def told(row: dict[str, Any]) -> dict[str, Any]:
    """The same, shown at once: thousands of cases take an hour."""
    print(f"case {row['case']} ({row['damage']}): {row['what']}", file=sys.stderr, flush=True)
    return row


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
    print(json.dumps(facts, indent=1))
    write_found(arguments.json, {**circumstances(), **facts, "found": findings})
    return 1 if findings else 0
