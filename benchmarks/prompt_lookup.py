"""What prompt lookup (`nomoat.engine.lookup`) gains: decoding speed with and without it, on work that copies and on free text.

    python benchmarks/prompt_lookup.py FILE.gguf ... [--json OUT.json] [--repeats 3]

Each task is answered in turn with and without guesses, greedily; the best of the repeats counts. A pass over several tokens rounds
differently from a pass over one, and with dynamic quantisation a near tie may turn: where the answers differ, the mean log-probability
of a token of either, as the model itself tells it for the whole text, shows whether one is worse.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from facts import circumstances, write

from nomoat.engine import batching, importer
from nomoat.engine.local import LocalEngine
from nomoat.records import Message, Request
from nomoat.responder import Responder

ROOT = Path(__file__).parents[1]
CODE = (ROOT / "src/nomoat/engine/lookup.py").read_text(encoding="utf-8")
TEXT_CHARACTERS = 12_000  # of a page that may become longer than a model's context
PAGE = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
TEXT = PAGE[PAGE.index("## Errors") :][:TEXT_CHARACTERS].rpartition("\n\n")[0]
TASKS = {
    "edit": f"Rename the class Lookup to Guesser in this file. Answer with the whole changed file only.\n\n```python\n{CODE}```",
    "extract": f"Copy every sentence of this text that mentions a key or a status, word for word.\n\n{TEXT}",
    "summarise": f"Summarise this text in a few sentences, keeping its own words where possible.\n\n{TEXT}",
    "free": "Write a story about a lighthouse keeper who finds a map in a bottle.",
    "free 2": "Explain why the sky is blue, and what that has to do with sunsets.",
}
NEW_TOKENS = 200


def measure(path: Path, repeats: int) -> list[dict[str, object]]:
    """One row for each task."""
    engine = LocalEngine(importer.import_gguf(path))
    rows: list[dict[str, object]] = []
    for task, text in TASKS.items():
        request = Request(messages=(Message(role="user", content=text),), max_new_tokens=NEW_TOKENS)
        best: dict[int, float] = {}
        answers: dict[int, str] = {}
        for _ in range(repeats):
            for guessed in (0, batching.GUESSED_TOKENS or 16):
                batching.GUESSED_TOKENS = guessed
                done = Responder("benchmark", engine).complete(request)
                best[guessed] = max(best.get(guessed, 0.0), done.usage.decode_tokens_per_second)
                answers[guessed] = done.text
        (plain, with_guesses), (a, b) = best.values(), answers.values()
        row = {
            "model": path.name, "task": task, "prompt_tokens": done.usage.prompt_tokens, "new_tokens": done.usage.completion_tokens,
            "plain_tokens_per_second": round(plain, 1), "lookup_tokens_per_second": round(with_guesses, 1),
            "ratio": round(with_guesses / plain, 2), "same_answer": a == b,
            "mean_log_probability": [round(mean_log_probability(engine, request, text), 4) for text in (a, b)],
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        rows.append(row)
    engine.close()
    return rows


def mean_log_probability(engine: LocalEngine, request: Request, answer: str) -> float:
    """Of the answer's tokens after the request's prompt, read in one pass."""
    prompt, ids = engine.tokenizer.prompt_ids(request), engine.tokenizer.encode(answer)
    told = engine.prompt_likelihoods(Request(prompt_ids=(*prompt, *ids)))[len(prompt) :]
    return sum(one.log_probability or 0.0 for one in told) / len(ids)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    rows = [row for path in asked.files for row in measure(path, asked.repeats)]
    write(asked.json, {**circumstances(), "rows": rows})


if __name__ == "__main__":
    main()
