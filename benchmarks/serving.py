"""What serving many requests takes: a shared beginning, many at once, one beside another's many, and schemas. Adapters: `adapters.py`.

    python benchmarks/serving.py FILE.gguf [--json OUT.json]

Every number is of the engine itself, without HTTP.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from facts import circumstances, write

from nomoat import net
from nomoat.engine import Engine, importer
from nomoat.engine.local import LocalEngine
from nomoat.records import Message, Request
from nomoat.responder import Responder

ROOT = Path(__file__).parents[1]
PREFIX_TOKENS, NEW_TOKENS = 2000, 64
MANY, SHORT_TOKENS, SECONDS = 64, 40, 15.0
MANY_PROMPTS, LONG_TOKENS = 20, 1500
STORY = Request(messages=(Message(role="user", content="Write a story about a lighthouse keeper."),), max_new_tokens=NEW_TOKENS)
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "kind": {"enum": ["question", "order", "statement"]},
        "words": {"type": "integer", "minimum": 0, "maximum": 1000},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["title", "kind", "words", "tags"],
    "additionalProperties": False,
}


def docs_ids(engine: LocalEngine) -> list[int]:
    """The tokens of all pages of the docs."""
    return engine.tokenizer.encode("".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))))


def prefix(engine: LocalEngine) -> dict[str, Any]:
    """Milliseconds to the first token of prompts that share their first 2,000 tokens: the first one, and the median of the others."""
    ids = docs_ids(engine)[:PREFIX_TOKENS]
    times = []
    for at in range(7):
        tail = engine.tokenizer.encode(f"\n\nQuestion {at}: what is the text above about?")
        done = Responder("x", engine).complete(Request(prompt_ids=tuple(ids + tail), max_new_tokens=2))
        times.append(done.usage.prefill_seconds * 1e3)
    return {"first_ms": round(times[0]), "next_ms": round(float(np.median(times[1:])), 1)}


def at_once(engine: Engine, count: int) -> float:
    """Tokens a second in total."""
    requests = [
        Request(messages=(Message(role="user", content=f"Tell a story about the number {at}."),), max_new_tokens=NEW_TOKENS)
        for at in range(count)
    ]
    began = time.perf_counter()
    tokens = sum(done.usage.completion_tokens for _, done in Responder("x", engine).complete_many(requests, concurrency=count))
    return round(tokens / (time.perf_counter() - began), 1)


def beside_many(engine: Engine) -> dict[str, Any]:
    """How long 40 tokens take alone and beside 64 long answers of another asker, and what those write meanwhile; the same where all
    count as one asker's, which take no turns. Medians of seconds; tokens a second."""
    responder = Responder("x", engine)
    stop, written = threading.Event(), [0] * MANY

    def write_on(at: int) -> None:
        told = Message(role="user", content=f"Write a long story about the number {at}.")
        with net.asking_for(stop, "many"):
            while not stop.is_set():
                for _ in responder.stream(Request(messages=(told,), max_new_tokens=300, temperature=1.0, seed=at)):
                    written[at] += 1

    def measured(asker: str | None) -> dict[str, float]:
        seconds: list[float] = []
        before, began = sum(written), time.perf_counter()
        while time.perf_counter() < began + SECONDS:
            if asker is None:
                time.sleep(1)
                continue
            one = Message(role="user", content=f"What is a moat, in the words of the year {len(seconds)}?")
            with net.asking_for(threading.Event(), asker):
                asked = time.perf_counter()
                responder.complete(Request(messages=(one,), max_new_tokens=SHORT_TOKENS, temperature=1.0, seed=1))
                seconds.append(time.perf_counter() - asked)
        rate = (sum(written) - before) / (time.perf_counter() - began)
        return ({"seconds": round(float(np.median(seconds)), 2)} if seconds else {}) | {"many_tokens_per_second": round(rate)}

    found = {"alone": measured("one")}
    threads = [threading.Thread(target=write_on, args=(at,)) for at in range(MANY)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS / 3)
    found |= {"many_alone": measured(None), "beside_another": measured("one"), "beside_its_own": measured("many")}
    stop.set()
    for thread in threads:
        thread.join()
    return found


def beside_prompts(engine: LocalEngine) -> dict[str, Any]:
    """Seconds to the first token of prompts of 1,500 and of 50 tokens: alone, and half a second after twenty of 1,500 of another
    asker; and until those all have theirs. The same where all count as one asker's."""
    ids, at = docs_ids(engine), itertools.count()

    def seconds(num_tokens: int, asker: str) -> float:
        start = next(at) * 307  # of each prompt another, none of which begins as another one does
        request = Request(prompt_ids=tuple(ids[start : start + num_tokens]), max_new_tokens=1)
        began = time.perf_counter()
        with net.asking_for(threading.Event(), asker):
            Responder("x", engine).complete(request)
        return time.perf_counter() - began

    def measured(num_tokens: int, asker: str) -> dict[str, float]:
        with ThreadPoolExecutor(MANY_PROMPTS) as threads:
            began = time.perf_counter()
            many = [threads.submit(seconds, LONG_TOKENS, "many") for _ in range(MANY_PROMPTS)]
            time.sleep(0.5)
            one = seconds(num_tokens, asker)
            wait(many)
            return {"seconds": round(one, 2), "all_of_the_many": round(time.perf_counter() - began, 1)}

    return {
        f"{num_tokens}_tokens": {
            "alone": round(float(np.median([seconds(num_tokens, "one") for _ in range(3)])), 2),
            "beside_another": measured(num_tokens, "one"),
            "beside_its_own": measured(num_tokens, "many"),
        }
        for num_tokens in (LONG_TOKENS, 50)
    }


def speed(engine: Engine, request: Request = STORY) -> float:
    """Decoding, tokens a second, best of three."""
    return round(max(Responder("x", engine).complete(request).usage.decode_tokens_per_second for _ in range(3)), 1)


def schema(engine: LocalEngine) -> dict[str, Any]:
    """Fifty random prompts, sampled: how many answers follow the schema, and what following it costs."""
    chance = random.Random(1)
    words = (ROOT / "docs/serve.md").read_text(encoding="utf-8").split()
    asked = [
        Request(
            messages=(Message(role="user", content=" ".join(chance.sample(words, 12))),),
            max_new_tokens=200,
            temperature=1.0,
            seed=at,
            json_schema=json.dumps(SCHEMA),
        )
        for at in range(50)
    ]
    good = 0
    for _, done in Responder("x", engine).complete_many(asked, concurrency=8):
        jsonschema.validate(json.loads(done.text), SCHEMA)
        good += 1
    sampled = replace(STORY, temperature=1.0, seed=1)
    long = {"type": "array", "items": {"type": "string", "maxLength": 30}, "minItems": 20}
    return {
        "followed": good,
        "of": len(asked),
        "decode_tokens_per_second": speed(engine, replace(sampled, json_schema=json.dumps(long))),
        "without_schema": speed(engine, sampled),
    }


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    engine = LocalEngine(importer.import_gguf(asked.file))
    found: dict[str, Any] = {**circumstances(), "model": asked.file.name}
    found["shared_prefix"] = prefix(engine)
    found["tokens_per_second_at_once"] = {count: at_once(engine, count) for count in (1, 8, 32)}
    found["beside_many"] = beside_many(engine)
    found["beside_prompts"] = beside_prompts(engine)
    found["schema"] = schema(engine)
    engine.close()
    print(json.dumps(found, indent=1))
    write(asked.json, found)


if __name__ == "__main__":
    main()
