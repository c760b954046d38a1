"""A tuned model in every form it can be served in, on a whole test set: here, and as llama.cpp reads what `export` writes.

    python benchmarks/exports.py BASE+ADAPTER TEST.tsv --input-column text --label-column annotation [--instruction WORDS]
                                    [--llama-cpp PYTHON] [--json OUT]

Greedy answers, scored as equal to the label or not. PYTHON is the one of an environment with llama-cpp-python: exports_llama_cpp.py.
Times are of all texts, one after the other in llama.cpp, 16 at once here: they tell how long a test takes, not which engine is faster.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facts import answer_of, circumstances, program, write

from nomoat import config, labelling, references, responder, tables
from nomoat.proportions import wilson_interval
from nomoat.records import Request
from nomoat.tune import export

MAX_TOKENS = 32  # more than a label has: the longest of Banking77 takes 17
PEER = Path(__file__).with_name("exports_llama_cpp.py")


def here(model: responder.Responder, requests: Sequence[Request]) -> dict[str, Any]:
    """Answers of an engine of this process."""
    model.complete(requests[0])
    began = time.perf_counter()
    answers = {at: done.text.strip() for at, done in model.complete_many(requests)}
    seconds = time.perf_counter() - began
    model.close()
    return {"answers": [answers[at] for at in range(len(requests))], "seconds": seconds}


def in_llama_cpp(python: str, files: dict[str, str], requests: Sequence[Request]) -> dict[str, Any]:
    """Answers of llama.cpp."""
    chats = [[{"role": message.role, "content": message.content} for message in request.messages] for request in requests]
    asked = {"files": files, "chats": chats, "max_tokens": MAX_TOKENS, "threads": config.threads().value}
    answers: dict[str, Any] = answer_of([python, str(PEER)], asked)
    return answers


def measured(ref: str, python: str | None, requests: Sequence[Request], folder: Path) -> dict[str, dict[str, Any]]:
    """Each form by its name. `folder` is for the files."""
    files = references.find_files(ref)
    assert files.adapter is not None
    found = {"nomoat, baked into int8": here(responder.load(ref), requests)}
    found["nomoat, beside the base's weights"] = here(responder.load_sharing([ref])[0], requests)
    if python is None:
        return found
    kinds: tuple[export.Quantisation, ...] = ("Q8_0", "F16")
    for kind in kinds:
        merged = export.merged_gguf(files.weights, files.adapter, folder / f"{kind}.gguf", quantisation=kind)
        found[f"llama.cpp, merged {kind}"] = in_llama_cpp(python, {"model_path": str(merged)}, requests)
    lora = export.lora_gguf(files.weights, files.adapter, folder / "lora.gguf")
    loaded = {"model_path": str(files.weights), "lora_path": str(lora)}
    found[f"llama.cpp, {files.weights.name} and the LoRA file"] = in_llama_cpp(python, loaded, requests)
    return found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="BASE+ADAPTER")
    parser.add_argument("test", type=Path)
    parser.add_argument("--input-column", required=True)
    parser.add_argument("--label-column", required=True)
    parser.add_argument("--instruction", help="the question it was tuned on, as `tune --instruction` takes it")
    parser.add_argument("--llama-cpp", type=program, help="a Python that has llama-cpp-python")
    parser.add_argument("--limit", type=int, help="only so many texts")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = tables.read_labelled(asked.test, input_column=asked.input_column, label_column=asked.label_column)[: asked.limit]
    labels = sorted({row.label for row in rows})
    question = labelling.kept_question(labels, asked.instruction)
    requests = [Request(messages=labelling.messages_of(question, row.text), max_new_tokens=MAX_TOKENS) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        found = measured(asked.model, asked.llama_cpp, requests, Path(folder))
    first = next(iter(found.values()))["answers"]
    for name, facts in found.items():
        right = sum(answer == row.label for answer, row in zip(facts["answers"], rows, strict=True))
        low, high = wilson_interval(right, len(rows))
        same = sum(a == b for a, b in zip(facts["answers"], first, strict=True))
        facts |= {"right": right, "of": len(rows), "same_as_first": same}
        score = f"{100 * right / len(rows):.2f} % [{100 * low:.1f}, {100 * high:.1f}]"
        print(f"{name:60} {score}, {right} of {len(rows)}; same answer {same}; {facts['seconds']:.0f} s")
    told = {name: {k: v for k, v in facts.items() if k != "answers"} for name, facts in found.items()}
    write(asked.json, {**circumstances(), **told})


if __name__ == "__main__":
    main()
