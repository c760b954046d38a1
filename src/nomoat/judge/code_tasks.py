"""Tasks of code: HumanEval and MBPP as examples whose target is the program that tests an answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nomoat.judge.examples import asked, code_target
from nomoat.records import Example

SIMPLE_EVALS = (
    "Read the following function signature and docstring, and fully implement the function described. "
    "Your response should only contain the code for this function.\n"
)
EVALPLUS = "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
# What EvalPlus puts into a chat model's mouth.
EVALPLUS_START = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n```python\n"
)


def humaneval_rows(folder: Path) -> list[dict[str, Any]]:
    """The data set's rows, its solutions with them."""
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def humaneval(folder: Path) -> Iterator[Example]:
    """Each function from its docstring, asked of a chat model in the words of openai/simple-evals."""
    for row in humaneval_rows(folder):
        yield _humaneval_example(row, f"{SIMPLE_EVALS}{row['prompt']}")


def humaneval_evalplus(folder: Path) -> Iterator[Example]:
    """The same in EvalPlus's words, which want the answer begun with EVALPLUS_START: without that, small models copy the question."""
    for row in humaneval_rows(folder):
        yield _humaneval_example(row, f"{EVALPLUS}\n```\n{row['prompt'].strip()}\n```\n")


def _humaneval_example(row: dict[str, Any], text: str) -> Example:
    # The prompt goes before the answer: a model may leave out its imports and helpers. What the answer defines anew counts.
    target = code_target(before=f"{row['prompt']}    pass\n", after=f"{row['test']}\ncheck({row['entry_point']})\n")
    return Example(id=row["task_id"].rpartition("/")[2], messages=asked(text), target=target)


def humaneval_base(folder: Path) -> Iterator[Example]:
    """The same as a text to go on with."""
    for row in humaneval_rows(folder):
        target = code_target(before=row["prompt"], after=f"{row['test']}\ncheck({row['entry_point']})\n", joined=True)
        yield Example(id=row["task_id"].rpartition("/")[2], messages=asked(row["prompt"]), target=target)


def mbpp(folder: Path) -> Iterator[Example]:
    """Each task with the asserts its answer has to pass."""
    for row in json.loads((folder / "sanitized-mbpp.json").read_text(encoding="utf-8")):
        asserts = "\n".join(row["test_list"])
        text = (
            f"You are an expert Python programmer, and here is your task: {row['prompt']} Your code should pass these tests:\n\n"
            f"{asserts}\n"
        )
        target = code_target(before="\n".join(row["test_imports"]), after=asserts)
        yield Example(id=str(row["task_id"]), messages=asked(text), target=target)
