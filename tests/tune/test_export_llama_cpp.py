"""What `export` writes, in llama.cpp itself: the same answers as nomoat's.

NOMOAT_LLAMA_PYTHON is the Python of an environment that has llama-cpp-python; without it this one is asked, if it has that.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from facts import answer_of

import nomoat
from nomoat import config, labelling, responder, tables
from nomoat.catalog.datasets import pull_dataset
from nomoat.records import Message, Request
from nomoat.tune import export

PYTHON = os.environ.get("NOMOAT_LLAMA_PYTHON") or (sys.executable if importlib.util.find_spec("llama_cpp") else None)
PEER = Path(__file__).parents[2] / "benchmarks" / "exports_llama_cpp.py"
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="needs llama-cpp-python, here or in the environment of NOMOAT_LLAMA_PYTHON"),
]
COLUMNS = {"input_column": "text", "label_column": "annotation"}
LABELS = ["not spam", "spam"]
NUM_LESSONS = 450
MAX_TOKENS = 8
LARGEST_GAP = 0.005


@pytest.fixture
def spam(
    mirror: None, kernels: None, smollm2_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, list[Any], list[str]]:
    """An adapter tuned on some of the training texts; the test split; what nomoat answers to it."""
    monkeypatch.delenv("NOMOAT_OFFLINE")
    folder = pull_dataset("sms_spam")
    table = tmp_path / "spam.tsv"
    rows = (folder / "sms_spam_train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(rows[: NUM_LESSONS + 1]), encoding="utf-8")
    adapter = nomoat.tune(str(smollm2_gguf), table, name="spam", epochs=3, **COLUMNS)
    texts = tables.read_labelled(folder / "sms_spam_test.tsv", **COLUMNS)
    requests = [Request(messages=labelling.label_task_messages(text.text, LABELS), max_new_tokens=MAX_TOKENS) for text in texts]
    with responder.load(f"{smollm2_gguf}+spam") as model:
        answers = {at: done.text.strip() for at, done in model.complete_many(requests)}
    return adapter, texts, [answers[at] for at in range(len(texts))]


def test_llama_cpp_answers_as_the_tuned_model_does(spam: Any, smollm2_gguf: Path, tmp_path: Path) -> None:
    """As many right answers within half a point, and the same answer to 98 of 100; merged and as a LoRA file.

    `benchmarks/exports.py` measures more forms.
    """
    adapter, texts, ours = spam
    right = [text.label for text in texts]
    score = num_equal(ours, right)
    assert score > 0.9 * len(texts), "the adapter has learned too little to compare anything"
    merged = export.merged_gguf(smollm2_gguf, adapter, tmp_path / "merged.gguf")
    lora = export.lora_gguf(smollm2_gguf, adapter, tmp_path / "lora.gguf")
    for files in ({"model_path": str(merged)}, {"model_path": str(smollm2_gguf), "lora_path": str(lora)}):
        theirs = in_llama_cpp(files, [labelling.label_task_messages(text.text, LABELS) for text in texts])
        assert abs(num_equal(theirs, right) - score) <= LARGEST_GAP * len(texts), files
        assert num_equal(theirs, ours) >= 0.98 * len(texts), files


def num_equal(answers: Sequence[str], others: Sequence[str]) -> int:
    return sum(a == b for a, b in zip(answers, others, strict=True))


def in_llama_cpp(files: dict[str, str], questions: Sequence[Sequence[Message]]) -> list[str]:
    """Asks llama.cpp greedily, with the chat template in its file."""
    chats = [[{"role": message.role, "content": message.content} for message in messages] for messages in questions]
    asked = {"files": files, "chats": chats, "max_tokens": MAX_TOKENS, "threads": config.threads().value}
    answers: list[str] = answer_of([str(PYTHON), str(PEER)], asked)["answers"]
    return answers
