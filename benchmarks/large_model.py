"""What a large file takes: import, loading, answering, and llama.cpp beside it.

    python benchmarks/large_model.py FILE.gguf [--only import|ours|llama.cpp] [--llama-cpp PYTHON] [--json FILE]

Each step runs in a process of its own, so that its peak memory is its own. Peak: of the resident set, every twentieth of a second;
without the part that is mapped from files, which the system may drop and read again, it stands beside that. The answer is greedy,
after a prompt of about 128 tokens. `--llama-cpp`: the Python of an environment with llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from facts import answer_of, circumstances, program, write

from nomoat import config

PROMPT_TOKENS, NEW_TOKENS, TURNS = 128, 32, 2
STEPS = ("import", "ours", "llama.cpp")


class Peak:
    """Watches this process's memory."""

    def __init__(self) -> None:
        self.most, self.most_anonymous = 0, 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            with suppress(OSError):
                lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
                resident, anonymous = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
                self.most, self.most_anonymous = max(self.most, resident), max(self.most_anonymous, anonymous)
            time.sleep(0.05)

    def facts(self) -> dict[str, float]:
        return {"peak_gb": round(self.most / 1e9, 2), "peak_without_mapped_files_gb": round(self.most_anonymous / 1e9, 2)}


def importing(path: Path) -> dict[str, Any]:
    """Import anew: seconds, the size of what came of it."""
    import shutil

    from nomoat.engine import importer

    importer.remembered_sha256(path)  # once a file, and not part of the import
    started = time.perf_counter()
    folder = importer.import_gguf(path, here=True)
    if time.perf_counter() - started < 1:  # it was there
        shutil.rmtree(folder)
        started = time.perf_counter()
        folder = importer.import_gguf(path, here=True)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "ir_gb": round(sum(file.stat().st_size for file in folder.iterdir()) / 1e9, 2)}


def ours(path: Path) -> dict[str, Any]:
    """Load and answer."""
    from nomoat import responder
    from nomoat.records import Request

    started = time.perf_counter()
    with responder.load(str(path)) as model:
        tokenizer = model.engine.tokenizer
        assert tokenizer is not None
        text = tokenizer.decode(list(range(300, 300 + PROMPT_TOKENS - 1)))
        request = Request(prompt=text, max_new_tokens=NEW_TOKENS)
        model.complete(Request(prompt="a", max_new_tokens=1))
        loaded = time.perf_counter() - started
        done = [model.complete(request) for _ in range(TURNS)]
        best = max(completion.usage.decode_tokens_per_second for completion in done)
        usage = done[0].usage
        return {
            "load_seconds": round(loaded, 1),
            "prompt_tokens": usage.prompt_tokens,
            "new_tokens": usage.completion_tokens,
            "prefill_tok_s": round(usage.prefill_tokens_per_second, 1),
            "decode_tok_s": round(best, 2),
        }


def main() -> int:
    """Run the steps and print a line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", choices=STEPS)
    parser.add_argument("--llama-cpp", type=program, metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", choices=("import", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        step: Callable[[Path], dict[str, Any]] = {"import": importing, "ours": ours}[arguments.here]
        peak = Peak()
        print(json.dumps({**step(arguments.file), **peak.facts()}))
        return 0
    facts: dict[str, Any] = {
        **circumstances(), "file": arguments.file.name,
        "file_gb": round(arguments.file.stat().st_size / 1e9, 2),
    }  # fmt: skip
    asked = {"path": str(arguments.file), "threads": config.threads().value}  # of llama.cpp
    asked |= {"prompt_tokens": PROMPT_TOKENS, "new_tokens": NEW_TOKENS, "turns": TURNS}
    for name in STEPS:
        if arguments.only not in (None, name) or (name == "llama.cpp" and not arguments.llama_cpp):
            continue
        if name == "llama.cpp":
            command = [arguments.llama_cpp, str(Path(__file__).with_name("large_model_llama_cpp.py"))]
        else:
            command = [sys.executable, __file__, str(arguments.file), "--here", name]
        facts[name] = answer_of(command, asked)
        print(name, json.dumps(facts[name]), flush=True)
    write(arguments.json, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
